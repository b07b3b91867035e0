//! run, exec, start and attach over pipes.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use bosun_proto::v1::Exit;
use bosun_proto::v1::output_chunk::Message;
use tonic::Code;

use crate::ctl::{command, fed, finished, ran, signal};
use crate::daemon::{Fake, ID, Process, exit, refusal, running, start};

fn hello() -> Process {
    let out = Message::Stdout(b"hello\n".to_vec());
    let err = Message::Stderr(b"oops\n".to_vec());
    Process::Writes(vec![out, err], exit(42))
}

#[test]
fn run_shows_both_outputs_and_exits_as_the_container_did() {
    let fake = Fake::acting(hello());
    let (daemon, _dir) = start(&fake);
    let ran = ran(command(&daemon.socket, "run --rm --name job --rootfs / sh -c x"));
    assert_eq!((ran.code, ran.out.as_str()), (42, "hello\n"));
    assert_eq!(ran.err, "ctl: warning: mind the gap\noops\n");
    let book = fake.book();
    assert_eq!(book.calls, ["create job", "attach stdin=false start=true"]);
    assert!(book.request_ids.iter().all(|id| id.len() == 32), "{:?}", book.request_ids);
    assert!(book.created.as_ref().unwrap().auto_remove);
    assert!(book.namespaces.iter().all(|name| name == "default"));
}

#[test]
fn run_detached_prints_the_id() {
    let fake = Fake::acting(hello());
    let (daemon, dir) = start(&fake);
    let file = dir.path().join("id");
    let words = format!("--namespace other run -d --cidfile {} --rootfs / true", file.display());
    let ran = ran(command(&daemon.socket, &words));
    assert_eq!((ran.code, ran.out), (0, format!("{ID}\n")));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), ID);
    assert_eq!(fake.book().namespaces, ["other"]);

    let again = crate::ctl::ran(command(&daemon.socket, &words));
    assert_eq!(again.code, 125);
    assert!(again.err.contains("exists"), "{}", again.err);
    assert_eq!(fake.book().calls.len(), 1, "nothing was created");
}

#[test]
fn a_command_that_cannot_start_is_told_by_the_exit_code() {
    for (code, reason, wanted) in [
        (Code::NotFound, "COMMAND_NOT_FOUND", 127),
        (Code::FailedPrecondition, "COMMAND_NOT_EXECUTABLE", 126),
        (Code::AlreadyExists, "PORT_IN_USE", 125),
    ] {
        let fake = Fake::acting(Process::Refuses(code, reason, "\"sh\": no such thing in /"));
        let (daemon, _dir) = start(&fake);
        let run = ran(command(&daemon.socket, "run --rm --rootfs / sh"));
        assert_eq!(run.code, wanted, "{run:?}");
        assert!(run.err.ends_with("ctl: \"sh\": no such thing in /\n"), "{run:?}");
        assert_eq!(fake.book().calls.last().unwrap(), &format!("remove {ID} false"));

        let detached = ran(command(&daemon.socket, "run -d --rootfs / sh"));
        assert_eq!(detached.code, wanted, "{detached:?}");

        fake.book().containers.push(running("web"));
        let exec = ran(command(&daemon.socket, "exec web sh"));
        assert_eq!(exec.code, wanted, "{exec:?}");
    }
}

#[test]
fn input_reaches_the_container_until_it_ends() {
    let fake = Fake::acting(Process::Echoes);
    let (daemon, _dir) = start(&fake);
    // More than every buffer on the way holds.
    let input: Vec<u8> = (0..4_000_000_u32).map(|at| b'a' + (at % 26) as u8).collect();
    let ran = fed(command(&daemon.socket, "run -i --rootfs / cat"), &input);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.as_bytes() == input, "{} bytes came back", ran.out.len());
    assert_eq!(fake.book().calls[1], "attach stdin=true start=true");
}

#[test]
fn without_i_no_input_is_read() {
    let fake = Fake::acting(hello());
    let (daemon, _dir) = start(&fake);
    let ran = fed(command(&daemon.socket, "run --rootfs / true"), b"unread");
    assert_eq!((ran.code, ran.out.as_str()), (42, "hello\n"));
}

#[test]
fn signals_go_to_the_container() {
    for (caught, code) in
        [(rustix::process::Signal::TERM, 143), (rustix::process::Signal::INT, 130)]
    {
        let fake = Fake::acting(Process::AwaitsSignal);
        let (daemon, _dir) = start(&fake);
        let mut child = command(&daemon.socket, "run --rootfs / sleep 9").spawn().unwrap();
        let mut first = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut first).unwrap();
        assert_eq!(first, "ready\n");
        signal(child.id(), rustix::process::Signal::USR1);
        fake.wait_until(|book| book.calls.contains(&format!("kill {ID} SIGUSR1")));
        signal(child.id(), caught);
        assert_eq!(finished(child).code, code);
    }
}

#[test]
fn without_sig_proxy_signals_end_ctl_alone() {
    let fake = Fake::acting(Process::AwaitsSignal);
    let (daemon, _dir) = start(&fake);
    let words = "run --sig-proxy=false --rootfs / sleep 9";
    let mut child = command(&daemon.socket, words).spawn().unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    signal(child.id(), rustix::process::Signal::TERM);
    assert_eq!(finished(child).code, 143);
    assert!(!fake.book().calls.iter().any(|call| call.starts_with("kill")));
}

#[test]
fn a_reader_that_goes_away_ends_ctl_quietly() {
    let lines = vec![Message::Stdout(vec![b'x'; 4096]); 1000];
    let fake = Fake::acting(Process::Writes(lines, exit(0)));
    let (daemon, _dir) = start(&fake);
    let mut child = command(&daemon.socket, "run --rootfs / yes").spawn().unwrap();
    drop(child.stdout.take());
    let ran = finished(child);
    assert_eq!((ran.code, ran.err.as_str()), (141, "ctl: warning: mind the gap\n"));
}

#[test]
fn an_unknown_exit_status_is_said() {
    let unknown = Exit { unknown: true, reason: "ShimLost".into(), ..exit(255) };
    let fake = Fake::acting(Process::Writes(vec![], unknown));
    let (daemon, _dir) = start(&fake);
    let ran = ran(command(&daemon.socket, "run --name job --rootfs / true"));
    assert_eq!(ran.code, 255);
    assert!(ran.err.ends_with("ctl: the exit status of job is unknown: ShimLost\n"), "{}", ran.err);
}

#[test]
fn exec_is_a_further_process() {
    let fake = Fake::acting(hello());
    fake.book().containers.push(running("web"));
    let (daemon, _dir) = start(&fake);
    let exec = ran(command(&daemon.socket, "exec -e A=1 web ls -t -d"));
    assert_eq!((exec.code, exec.out.as_str(), exec.err.as_str()), (42, "hello\n", "oops\n"));
    let detached = ran(command(&daemon.socket, "exec -d web sleep 9"));
    assert_eq!((detached.code, detached.out.as_str()), (0, ""));
    assert_eq!(
        fake.book().calls,
        ["exec [\"ls\", \"-t\", \"-d\"] [\"A=1\"]", "exec detached [\"sleep\", \"9\"]"]
    );
    let missing = ran(command(&daemon.socket, "exec none ls"));
    assert_eq!((missing.code, missing.err.as_str()), (1, "ctl: no such container: none\n"));
}

#[test]
fn start_and_attach_stay_with_a_container() {
    let fake = Fake::acting(hello());
    fake.book().containers.push(running("web"));
    let (daemon, _dir) = start(&fake);
    let start = ran(command(&daemon.socket, "start -a web"));
    assert_eq!((start.code, start.out.as_str()), (42, "hello\n"));
    let attach = fed(command(&daemon.socket, "attach web"), b"");
    assert_eq!((attach.code, attach.out.as_str()), (42, "hello\n"));
    let attach = ran(command(&daemon.socket, "attach --no-stdin web"));
    assert_eq!(attach.code, 42);
    assert_eq!(
        fake.book().calls,
        [
            "attach stdin=false start=true",
            "attach stdin=true start=false",
            "attach stdin=false start=false"
        ]
    );
    let both = ran(command(&daemon.socket, "start -a web db"));
    assert_ne!(both.code, 0);
    assert!(both.err.contains("works on one container"), "{}", both.err);
}

#[test]
fn starting_and_attaching_to_what_runs_attaches() {
    let fake = Fake::acting(hello());
    fake.book().containers.push(running("web"));
    fake.book().start_failures =
        [refusal(Code::FailedPrecondition, "ALREADY_RUNNING", "it runs")].into();
    let (daemon, _dir) = start(&fake);
    let ran = ran(command(&daemon.socket, "start -a web"));
    assert_eq!((ran.code, ran.out.as_str()), (42, "hello\n"), "{}", ran.err);
}

#[test]
fn a_terminal_cannot_be_made_of_a_pipe() {
    let fake = Fake::acting(hello());
    fake.book().containers.push(running("web"));
    let (daemon, _dir) = start(&fake);
    for words in ["run -it --rootfs / sh", "exec -it web sh"] {
        let ran = ran(command(&daemon.socket, words));
        assert_eq!(ran.code, 125, "{words}");
        assert!(ran.err.starts_with("ctl: the input device is not a TTY"), "{}", ran.err);
    }
    assert!(fake.book().calls.is_empty(), "nothing was created");
    // -t alone reads nothing and so needs no terminal.
    let mut alone = command(&daemon.socket, "run -t --rootfs / true");
    alone.stdin(Stdio::null());
    assert_eq!(ran(alone).code, 42);
}
