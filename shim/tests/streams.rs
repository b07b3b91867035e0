//! Attach clients, standard input, execs: what flows in and out beside the log.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::time::Duration;

use shim_wire::attach::{Hello, Kind};
use shim_wire::task::{CloseIoRequest, Empty, ResizePtyRequest, StateResponse, Status};
use shim_wire::ttrpc::Code;
use support::{AttachClient, Client, TASK, TestShim, exec_of, may_run, proc_kilobytes, readable};

fn hello() -> Hello {
    Hello::default()
}

#[test]
fn a_client_that_attached_before_the_start_misses_nothing() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("first");
    let mut client = shim.connect();
    shim.create(&mut client, &shim.shell("echo out; echo err >&2")).unwrap();
    let attached = shim.attach().hello(&hello());
    client.start("").unwrap();
    let output = attached.finish();
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(output.last, Some(Kind::End));
    client.wait("").unwrap();
    let late = shim.attach().hello(&hello()).finish();
    assert_eq!((late.text(), late.last), (String::new(), Some(Kind::End)));
    shim.release(&mut client);
}

#[test]
fn input_of_several_clients_reaches_the_process_and_ends_when_asked() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("stdin");
    shim.options.stdin = true;
    let mut client = shim.connect();
    shim.create(&mut client, &shim.plan_of(&["/bin/cat"])).unwrap();
    let sends = Hello { stdin: true, ..hello() };
    let mut one = shim.attach().hello(&sends);
    let mut two = shim.attach().hello(&Hello { no_output: true, ..sends.clone() });
    client.start("").unwrap();
    one.type_in(b"one\n");
    one.expect("one\n");
    two.type_in(b"two\n");
    one.expect("two\n");
    // One that only goes ends nobody's input but its own.
    drop(two);
    one.type_in(b"still\n");
    one.expect("still\n");
    let request = CloseIoRequest { id: "stdin".to_owned(), stdin: true, ..Default::default() };
    client.call::<Empty>(TASK, "CloseIO", &request).unwrap();
    assert_eq!(client.wait("").unwrap(), 0);
    assert_eq!(one.finish().last, Some(Kind::End));
    shim.release(&mut client);
}

#[test]
fn input_that_is_one_clients_ends_behind_its_last_byte() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("once");
    (shim.options.stdin, shim.options.stdin_once) = (true, true);
    let mut client = shim.connect();
    shim.create(&mut client, &shim.shell("sleep 0.3; exec md5sum")).unwrap();
    let mut sender = shim.attach().hello(&Hello { stdin: true, ..hello() });
    client.start("").unwrap();
    let block = b"0123456789abcde\n".repeat(65_536);
    sender.type_in(&block);
    sender.send(Kind::CloseStdin, &[]);
    assert_eq!(client.wait("").unwrap(), 0);
    let expected = {
        let path = shim.container.path().join("block");
        std::fs::write(&path, &block).unwrap();
        let output = std::process::Command::new("md5sum").arg(path).output().unwrap().stdout;
        String::from_utf8(output).unwrap().split(' ').next().unwrap().to_owned()
    };
    assert!(sender.finish().text().starts_with(&expected));
    shim.release(&mut client);
}

#[test]
fn without_standard_input_a_process_reads_its_end() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("null");
    let mut client = shim.connect();
    shim.create(&mut client, &shim.shell("cat; echo end of input")).unwrap();
    client.start("").unwrap();
    assert_eq!(client.wait("").unwrap(), 0);
    assert_eq!(shim.logged("stdout"), "end of input\n");
    shim.release(&mut client);
}

#[test]
fn a_terminal_takes_input_and_follows_its_window() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("window");
    shim.options.stdin = true;
    (shim.options.width, shim.options.height) = (91, 17);
    let mut client = shim.connect();
    let mut plan = shim.shell("stty size; read line; stty size; read line; stty size; echo $line");
    plan.process.as_mut().unwrap().terminal = true;
    shim.create(&mut client, &plan).unwrap();
    let mut attached = shim.attach().hello(&Hello { stdin: true, ..hello() });
    client.start("").unwrap();
    attached.expect("17 91\r\n");
    attached.send(Kind::Resize, &[0, 100, 0, 40]);
    attached.type_in(b"\n");
    attached.expect("40 100\r\n");
    let resize = |width| ResizePtyRequest {
        id: "window".to_owned(),
        width,
        height: 50,
        ..ResizePtyRequest::default()
    };
    client.call::<Empty>(TASK, "ResizePty", &resize(120)).unwrap();
    let failure = client.call::<Empty>(TASK, "ResizePty", &resize(70_000)).unwrap_err();
    assert_eq!(failure.code, Code::InvalidArgument);
    attached.type_in(b"typed\n");
    let rest = attached.finish().text();
    assert!(rest.ends_with("50 120\r\ntyped\r\n"), "{rest:?}");
    client.wait("").unwrap();
    shim.release(&mut client);
}

#[test]
fn a_hundred_thousand_resizes_leave_nothing_behind() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("resizes");
    let mut client = shim.connect();
    let mut plan = shim.shell("exec sleep 1000");
    plan.process.as_mut().unwrap().terminal = true;
    shim.create(&mut client, &plan).unwrap();
    client.start("").unwrap();
    let mut attached = shim.attach().hello(&hello());
    let before = proc_kilobytes(shim.pid(), "status", "VmRSS:");
    for step in 0..100_000u32 {
        let [_, _, high, low] = step.to_be_bytes();
        attached.send(Kind::Resize, &[high, low, 0, 24]);
    }
    client.status();
    let after = proc_kilobytes(shim.pid(), "status", "VmRSS:");
    assert!(after <= before + 200, "{before} kB before, {after} kB after");
    client.kill("", 9).unwrap();
    client.wait("").unwrap();
    drop(attached);
    shim.release(&mut client);
}

#[test]
fn a_slow_client_is_let_go_and_the_container_does_not_wait() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("slow");
    let mut client = shim.connect();
    let script = format!("yes {} | head -c 8000000", "x".repeat(99));
    shim.create(&mut client, &shim.shell(&script)).unwrap();
    let slow = shim.attach().hello(&hello());
    client.start("").unwrap();
    assert_eq!(client.wait("").unwrap(), 0);
    let output = slow.finish();
    assert_eq!(output.last, Some(Kind::Lagged));
    assert!(output.stdout.len() < 4_000_000);
    assert_eq!(shim.log().len(), 80_000);
    shim.release(&mut client);
}

#[test]
fn a_paced_client_gets_every_byte_at_its_own_speed() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("paced");
    let mut client = shim.connect();
    shim.create(&mut client, &shim.shell("seq 1 1000000")).unwrap();
    let paced = shim.attach().hello(&Hello { paced: true, ..hello() });
    client.start("").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let expected: String = (1..=1_000_000).map(|n| format!("{n}\n")).collect();
    let output = paced.finish();
    assert_eq!(output.last, Some(Kind::End));
    assert!(output.text() == expected, "{} bytes", output.stdout.len());
    client.wait("").unwrap();
    shim.release(&mut client);
}

#[test]
fn a_paced_client_that_stands_still_does_not_hold_the_exit_back() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("stuck");
    let mut client = shim.connect();
    let script = "head -c 900000 /dev/zero & head -c 900000 /dev/zero >&2 & wait; printf end";
    shim.create(&mut client, &shim.shell(script)).unwrap();
    let stuck = shim.attach().hello(&Hello { paced: true, ..hello() });
    client.start("").unwrap();
    assert_eq!(client.wait("").unwrap(), 0);
    let output = stuck.finish();
    assert_eq!((output.stdout.len(), output.stderr.len()), (900_003, 900_000));
    assert_eq!(output.last, Some(Kind::End));
    shim.release(&mut client);
}

#[test]
fn clients_of_nothing_are_refused_with_a_reason() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("refused");
    let mut client = shim.connect();
    let refused = |mut attached: AttachClient, exec_id: &str| {
        let hello = Hello { exec_id: exec_id.to_owned(), ..hello() };
        attached.send(Kind::Hello, &prost::Message::encode_to_vec(&hello));
        let (kind, reason) = attached.receive().unwrap();
        assert_eq!(kind, Kind::Refused);
        assert_eq!(attached.receive(), None);
        String::from_utf8(reason).unwrap()
    };
    // attach.sock is there before the first answer.
    client.status();
    assert!(refused(shim.attach(), "").contains("not been created"));
    shim.run_shell(&mut client, "exec sleep 1000");
    assert!(refused(shim.attach(), "nope").contains("\"nope\""));
    let mut rude = shim.attach();
    rude.send(Kind::Stdin, b"no hello");
    assert_eq!(rude.receive(), None);
    client.kill("", 9).unwrap();
    client.wait("").unwrap();
    shim.release(&mut client);
}

/// A container that only waits, for execs to run in.
fn sleeper(name: &str) -> (TestShim, Client) {
    let shim = TestShim::start(name);
    let mut client = shim.connect();
    shim.run_shell(&mut client, "exec sleep 1000");
    (shim, client)
}

fn end(mut shim: TestShim, mut client: Client) {
    client.kill("", 9).unwrap();
    assert_eq!(client.wait("").unwrap(), 137);
    shim.release(&mut client);
}

fn attach_exec(shim: &TestShim, id: &str, stdin: bool) -> AttachClient {
    shim.attach().hello(&Hello { exec_id: id.to_owned(), stdin, paced: true, ..hello() })
}

#[test]
fn an_exec_has_streams_and_an_exit_of_its_own() {
    if !may_run() {
        return;
    }
    let (shim, mut client) = sleeper("exec");
    let mut options = exec_of("cat; echo err >&2; exit 7");
    options.stdin = true;
    client.exec("e1", &options).unwrap();
    assert_eq!(client.exec("e1", &options).unwrap_err().code, Code::AlreadyExists);
    let mut attached = attach_exec(&shim, "e1", true);
    let pid = client.start("e1").unwrap();
    assert_ne!(pid, 0);
    attached.type_in(b"through\n");
    attached.expect("through\n");
    attached.send(Kind::CloseStdin, &[]);
    assert_eq!(client.wait("e1").unwrap(), 7);
    let output = attached.finish();
    assert_eq!((&output.stderr[..], output.last), (&b"err\n"[..], Some(Kind::End)));
    let state: StateResponse = client.call(TASK, "State", &client.process("e1")).unwrap();
    assert_eq!((state.status(), state.exit_status, state.pid), (Status::Stopped, 7, pid));
    client.call::<shim_wire::task::DeleteResponse>(TASK, "Delete", &client.process("e1")).unwrap();
    assert_eq!(client.wait("e1").unwrap_err().code, Code::NotFound);
    assert_eq!(shim.log().len(), 0, "an exec's output is not the container's");
    end(shim, client);
}

#[test]
fn what_is_said_to_an_exec_before_its_start_is_not_lost() {
    if !may_run() {
        return;
    }
    let (shim, mut client) = sleeper("early");
    let mut options = exec_of("exec md5sum");
    options.stdin = true;
    client.exec("e1", &options).unwrap();
    let mut attached = attach_exec(&shim, "e1", true);
    attached.type_in(b"early\n");
    attached.send(Kind::CloseStdin, &[]);
    std::thread::sleep(Duration::from_millis(50));
    client.start("e1").unwrap();
    assert_eq!(client.wait("e1").unwrap(), 0);
    assert!(attached.finish().text().starts_with("afaecdd59b3c26b63e9c8929f1e22749"));
    end(shim, client);
}

#[test]
fn an_exec_has_a_terminal_of_its_own() {
    if !may_run() {
        return;
    }
    let (shim, mut client) = sleeper("execpty");
    let mut options = exec_of("stty size; tty >/dev/null && echo terminal; read x; echo got $x");
    options.stdin = true;
    (options.width, options.height) = (77, 11);
    options.process.as_mut().unwrap().terminal = true;
    client.exec("e1", &options).unwrap();
    let mut attached = attach_exec(&shim, "e1", true);
    client.start("e1").unwrap();
    attached.expect("11 77\r\nterminal\r\n");
    attached.type_in(b"it\n");
    let output = attached.finish();
    assert!(output.text().ends_with("got it\r\n"), "{:?}", output.text());
    assert_eq!(client.wait("e1").unwrap(), 0);
    end(shim, client);
}

#[test]
fn an_exec_that_nobody_listens_to_runs_to_its_end() {
    if !may_run() {
        return;
    }
    let (shim, mut client) = sleeper("deaf");
    client.exec("e1", &exec_of("head -c 5000000 /dev/zero; exit 4")).unwrap();
    client.start("e1").unwrap();
    assert_eq!(client.wait("e1").unwrap(), 4);
    client.exec("e2", &exec_of("head -c 5000000 /dev/zero; exit 5")).unwrap();
    let attached = attach_exec(&shim, "e2", false);
    client.start("e2").unwrap();
    drop(attached);
    assert_eq!(client.wait("e2").unwrap(), 5);
    end(shim, client);
}

#[test]
fn what_an_exec_leaves_running_is_not_killed_by_its_pipes() {
    if !may_run() {
        return;
    }
    let (shim, mut client) = sleeper("leaves");
    let mark = "/dev/pts/../shim-test-mark";
    let script = format!("(sleep 0.3; echo x; echo y; : > {mark}) & exit 0");
    client.exec("e1", &exec_of(&script)).unwrap();
    client.start("e1").unwrap();
    assert_eq!(client.wait("e1").unwrap(), 0);
    client.call::<shim_wire::task::DeleteResponse>(TASK, "Delete", &client.process("e1")).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    client.exec("e2", &exec_of(&format!("test -e {mark}"))).unwrap();
    client.start("e2").unwrap();
    assert_eq!(client.wait("e2").unwrap(), 0, "it came to its end");
    end(shim, client);
}

#[test]
fn an_exec_ends_although_what_it_left_floods_its_output() {
    if !may_run() {
        return;
    }
    let (shim, mut client) = sleeper("floods");
    client.exec("e1", &exec_of("yes & sleep 0.2; exit 6")).unwrap();
    let attached = attach_exec(&shim, "e1", false);
    client.start("e1").unwrap();
    assert_eq!(client.wait("e1").unwrap(), 6);
    assert_eq!(attached.finish().last, Some(Kind::End));
    end(shim, client);
}

#[test]
fn the_ends_of_execs_are_told_before_the_containers() {
    if !may_run() {
        return;
    }
    let (mut shim, mut client) = sleeper("order");
    for id in ["e1", "e2", "e3"] {
        client.exec(id, &exec_of("exec sleep 1000")).unwrap();
        client.start(id).unwrap();
    }
    let mut watcher = shim.connect();
    let init = watcher.send(TASK, "Wait", &client.process(""));
    for id in ["e1", "e2", "e3"] {
        watcher.send(TASK, "Wait", &client.process(id));
    }
    assert!(!readable(watcher.descriptor(), Duration::from_millis(100)));
    client.kill("", 9).unwrap();
    let answers: Vec<u32> = (0..4).map(|_| watcher.receive().0).collect();
    assert_eq!(answers.last(), Some(&init), "{answers:?}");
    shim.release(&mut client);
}

#[test]
fn a_signal_reaches_an_exec_alone() {
    if !may_run() {
        return;
    }
    let (shim, mut client) = sleeper("killexec");
    client.exec("e1", &exec_of("exec sleep 1000")).unwrap();
    assert_eq!(client.kill("e1", 15).unwrap_err().code, Code::FailedPrecondition);
    client.start("e1").unwrap();
    client.kill("e1", 15).unwrap();
    assert_eq!(client.wait("e1").unwrap(), 143);
    assert_eq!(client.kill("e1", 15).unwrap_err().code, Code::NotFound);
    let state: StateResponse = client.call(TASK, "State", &client.process("")).unwrap();
    assert_eq!(state.status(), Status::Running);
    end(shim, client);
}
