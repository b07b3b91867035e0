//! Further processes in a running container.

use std::time::Duration;

use integration::daemon::Daemon;
use integration::wait;

fn with_sleeper() -> Daemon {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one -e FROM=run -w /usr --net none --rootfs / /bin/sleep 600").ok();
    daemon
}

#[test]
fn the_code_is_that_of_the_process() {
    let daemon = with_sleeper();
    daemon.ctl("exec one /bin/sh -c 'exit 17'").check(17);
    daemon.ctl("exec one /bin/true").check(0);
    assert_eq!(daemon.inspect("one", "{{.State.Running}}"), "true");
}

#[test]
fn a_command_that_can_not_be_run_is_126_or_127() {
    let daemon = with_sleeper();
    daemon.ctl("exec one no-such-program").fails(127, &["no-such-program"]);
    daemon.ctl("exec one /etc/passwd").fails(126, &["/etc/passwd"]);
}

#[test]
fn input_and_output_are_streams() {
    let daemon = with_sleeper();
    assert_eq!(daemon.client().feed("exec -i one /usr/bin/tr a-z A-Z", "loud\n").text(), "LOUD");
    let output = daemon.ctl("exec one /bin/sh -c 'echo out; echo err >&2'");
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn a_client_that_says_no_more_gets_all_output() {
    use bosun_proto::v1::{ExecOpen, ExecRequest, exec_request, output_chunk};
    let daemon = with_sleeper();
    let command = ["/bin/sh", "-c", "sleep 0.3; echo out; exit 4"].map(str::to_owned);
    let open =
        ExecOpen { container: "one".to_owned(), command: command.into(), ..Default::default() };
    let open = ExecRequest { message: Some(exec_request::Message::Open(open)) };
    let api = daemon.api();
    let (mut out, mut status) = (Vec::new(), None);
    api.wait(async {
        let answers = api.io().exec(tokio_stream::iter([open])).await.unwrap();
        let mut answers = answers.into_inner();
        while let Some(chunk) = answers.message().await.unwrap() {
            match chunk.message {
                Some(output_chunk::Message::Stdout(bytes)) => out.extend(bytes),
                Some(output_chunk::Message::Exit(exit)) => status = Some(exit.status),
                _ => {}
            }
        }
    });
    assert_eq!((out.as_slice(), status), (&b"out\n"[..], Some(4)));
}

#[test]
fn it_is_in_the_container() {
    let daemon = with_sleeper();
    assert_eq!(daemon.ctl("exec one /bin/cat /proc/1/comm").text(), "sleep");
    let inside = daemon
        .ctl("exec one /bin/readlink /proc/self/ns/mnt /proc/self/ns/pid /proc/self/ns/net")
        .text();
    let process = daemon.process("one");
    let wanted: Vec<_> = ["mnt", "pid", "net"]
        .map(|kind| process.namespace(kind).unwrap().display().to_string())
        .into();
    assert_eq!(inside.lines().collect::<Vec<_>>(), wanted);
}

#[test]
fn directory_environment_and_user_are_the_containers_or_as_asked() {
    let daemon = with_sleeper();
    assert_eq!(daemon.ctl("exec one /bin/sh -c 'pwd; echo $FROM; id -u'").text(), "/usr\nrun\n0");
    let asked = "exec -w /tmp -e FROM=exec -e MORE=1 -u 65534:65534 one /bin/sh -c 'pwd; echo $FROM$MORE; id -u; id -g'";
    assert_eq!(daemon.ctl(asked).text(), "/tmp\nexec1\n65534\n65534");
    assert_eq!(daemon.ctl("exec -u nobody one /usr/bin/id -un").text(), "nobody");
}

#[test]
fn an_unknown_user_is_named() {
    let daemon = with_sleeper();
    let output = daemon.ctl("exec -u no-such-user one /bin/true");
    assert_ne!(output.code, Some(0));
    assert!(output.stderr.contains("no-such-user"), "{}", output.stderr);
}

#[test]
fn a_detached_one_goes_on_alone() {
    let daemon = with_sleeper();
    daemon.ctl("exec -d one /bin/sh -c 'sleep 0.2; echo done > /tmp/bosun-exec-mark'").ok();
    wait::until("what it wrote", || {
        daemon.ctl("exec one cat /tmp/bosun-exec-mark").stdout.contains("done").then_some(())
    });
}

#[test]
fn it_has_no_more_rights_than_the_container() {
    let daemon = with_sleeper();
    let process = daemon.process("one");
    for field in ["CapEff", "CapBnd", "Seccomp", "NoNewPrivs"] {
        let inside = daemon
            .ctl(&format!("exec one /bin/sh -c 'grep ^{field}: /proc/self/status | cut -f2'"))
            .text();
        assert_eq!(Some(inside), process.status(field), "{field}");
    }
}

#[test]
fn it_is_in_the_cgroups_of_the_container() {
    let daemon = with_sleeper();
    let mut client = daemon.ctl_start("exec one /bin/sleep 77");
    let wanted = daemon.process("one").cgroups();
    let found = wait::until("the process on the host", || {
        integration::process::Process::all().into_iter().find(|process| {
            process.arguments() == ["/bin/sleep", "77"] && process.cgroups() == wanted
        })
    });
    assert!(!client.has_ended());
    found.kill();
    client.finish().check(137);
}

#[test]
fn a_terminal_of_its_own() {
    let daemon = with_sleeper();
    let mut terminal = daemon.terminal("exec -it one /bin/sh");
    terminal.send("stty size; tty\n");
    terminal.expect("24 80");
    terminal.expect("/dev/pts/");
    terminal.send("exit 12\n");
    assert_eq!(terminal.finish().0, Some(12));
}

#[test]
fn it_ends_with_the_container() {
    let daemon = with_sleeper();
    let client = daemon.ctl_start("exec one /bin/sh -c 'echo ready; sleep 600'");
    client.expect("ready");
    daemon.ctl("kill one").ok();
    client.finish().check(137);
}

#[test]
fn a_container_killed_under_a_storm_of_execs_has_ended_and_everybody_is_told() {
    let daemon = with_sleeper();
    let storm = || {
        let one = || daemon.ctl("exec one /bin/true").code;
        (0..).map(|number| (number, one())).find(|(_, code)| *code != Some(0))
    };
    let told = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(storm)).collect();
        std::thread::sleep(Duration::from_secs(1));
        daemon.ctl("kill one").ok();
        clients.into_iter().map(|client| client.join().unwrap().unwrap()).collect::<Vec<_>>()
    });
    assert!(told.iter().any(|(number, _)| *number > 0), "none of them ran: {told:?}");
    assert!(told.iter().all(|(_, code)| code.is_some()), "not answered: {told:?}");
    daemon.ctl("wait one").check(137);
    assert_eq!(daemon.inspect("one", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
}

#[test]
fn in_what_does_not_run_it_is_refused() {
    let daemon = Daemon::start();
    daemon.ctl("create --name one --net none --rootfs / /bin/true").ok();
    daemon.ctl("exec one /bin/true").fails(1, &["one", "not running"]);
}

#[test]
fn ten_at_once() {
    let daemon = with_sleeper();
    let clients: Vec<_> = (0..10)
        .map(|n| daemon.ctl_start(&format!("exec one /bin/sh -c 'echo {n}; exit {n}'")))
        .collect();
    for (n, client) in clients.into_iter().enumerate() {
        let output = client.finish();
        output.check(i32::try_from(n).unwrap());
        assert_eq!(output.stdout, format!("{n}\n"));
    }
}
