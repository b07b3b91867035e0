//! The way of a container through its shim: create, start, wait, record, release; and the ways
//! beside it.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::os::fd::AsFd;
use std::time::Duration;

use shim_wire::exit::ExitStatus;
use shim_wire::files::ProcessIdentity;
use shim_wire::shim::{Phase, ReleaseRequest};
use shim_wire::task::{DeleteResponse, Empty, PidsResponse, StateResponse, Status, TaskRequest};
use shim_wire::ttrpc::Code;
use support::{Failure, SHIM, TASK, TestShim, eventually, may_run};

#[test]
fn a_container_runs_and_its_exit_is_recorded_before_it_is_told() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("exit42");
    let mut client = shim.connect();
    let pid = shim.run_shell(&mut client, "echo out; echo err >&2; exit 42");
    assert_eq!(client.wait("").unwrap(), 42);
    let record = shim.record();
    assert_eq!((record.attempt, record.status), (1, ExitStatus::Code(42)));
    assert!(!record.oom_killed);
    assert_eq!(shim.logged("stdout"), "out\n");
    assert_eq!(shim.logged("stderr"), "err\n");
    let status = client.status();
    assert_eq!((status.phase(), status.pid, status.attempt), (Phase::Recorded, pid, 1));
    let deleted: DeleteResponse = client.call(TASK, "Delete", &client.process("")).unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 42));
    shim.release(&mut client);
}

#[test]
fn a_signal_is_recorded_as_one() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("signal");
    let mut client = shim.connect();
    shim.run_shell(&mut client, "exec sleep 1000");
    client.kill("", 9).unwrap();
    assert_eq!(client.wait("").unwrap(), 137);
    assert_eq!(shim.record().status, ExitStatus::Signal(9));
    let finished = client.kill("", 9).unwrap_err();
    assert_eq!(finished.code, Code::NotFound);
    assert!(finished.message.contains("process already finished"), "{}", finished.message);
    shim.release(&mut client);
}

#[test]
fn waiters_of_every_connection_are_answered_before_and_after_the_exit() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("waiters");
    let mut client = shim.connect();
    let mut early = shim.connect();
    shim.create(&mut client, &shim.shell("sleep 0.2; exit 3")).unwrap();
    let streams: Vec<u32> =
        (0..50).map(|_| early.send(TASK, "Wait", &client.process(""))).collect();
    let mut gone = shim.connect();
    gone.send(TASK, "Wait", &client.process(""));
    drop(gone);
    client.start("").unwrap();
    let mut answered: Vec<u32> = (0..50)
        .map(|_| {
            let (stream, exit) = early.receive();
            let exit: shim_wire::task::WaitResponse =
                prost::Message::decode(exit.unwrap().as_slice()).unwrap();
            assert_eq!(exit.exit_status, 3);
            stream
        })
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, streams);
    assert_eq!(client.wait("").unwrap(), 3);
    shim.release(&mut client);
}

#[test]
fn the_loss_of_every_connection_changes_nothing() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("lost");
    let mut client = shim.connect();
    shim.run_shell(&mut client, "sleep 0.3; echo meanwhile; exit 42");
    client.send(TASK, "Wait", &client.process(""));
    drop(client);
    eventually("the record is there", || shim.container.exit().exists());
    let mut client = shim.connect();
    assert_eq!(client.status().phase(), Phase::Recorded);
    assert_eq!(client.wait("").unwrap(), 42);
    assert_eq!(shim.logged("stdout"), "meanwhile\n");
    assert!(shim.is_alive(), "it waits for its release");
    shim.release(&mut client);
}

#[test]
fn only_the_release_of_its_own_run_lets_a_shim_go() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("release");
    let mut client = shim.connect();
    shim.run_shell(&mut client, "sleep 0.2");
    let release = |attempt| ReleaseRequest { attempt };
    let early: Failure = client.call::<Empty>(SHIM, "Release", &release(1)).unwrap_err();
    assert_eq!(early.code, Code::FailedPrecondition);
    client.wait("").unwrap();
    let other = client.call::<Empty>(SHIM, "Release", &release(2)).unwrap_err();
    assert_eq!(other.code, Code::InvalidArgument);
    assert!(shim.is_alive());
    shim.release(&mut client);
}

#[test]
fn output_is_complete_however_soon_the_end_follows() {
    if !may_run() {
        return;
    }
    for round in 0..20 {
        let mut shim = TestShim::start(&format!("last-{round}"));
        let mut client = shim.connect();
        shim.run_shell(&mut client, "head -c 300000 /dev/zero | tr '\\0' x; printf end");
        client.wait("").unwrap();
        let text = shim.logged("stdout");
        assert_eq!((text.len(), text.ends_with("xend")), (300_003, true), "round {round}");
        shim.release(&mut client);
    }
}

#[test]
fn a_terminal_has_its_line_ends_and_both_streams_in_one() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("pty");
    let mut client = shim.connect();
    let mut plan = shim.shell("test -t 1 && echo terminal; echo err >&2; printf end");
    plan.process.as_mut().unwrap().terminal = true;
    shim.create(&mut client, &plan).unwrap();
    client.start("").unwrap();
    assert_eq!(client.wait("").unwrap(), 0);
    assert_eq!(shim.logged("stdout"), "terminal\r\nerr\r\nend");
    assert_eq!(shim.logged("stderr"), "");
    shim.release(&mut client);
}

#[test]
fn processes_are_identified_and_listed() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("pids");
    let mut client = shim.connect();
    let pid = shim.run_shell(&mut client, "sleep 1000 & exec sleep 1000");
    for (path, of) in [(shim.run.shim_identity(), shim.pid()), (shim.run.init_identity(), pid)] {
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(ProcessIdentity::decode(&text).unwrap().pid, of);
    }
    let task = TaskRequest { id: "pids".to_owned() };
    eventually("both processes are listed", || {
        let pids: PidsResponse = client.call(TASK, "Pids", &task).unwrap();
        pids.processes.len() == 2 && pids.processes.iter().any(|process| process.pid == pid)
    });
    let state: StateResponse = client.call(TASK, "State", &client.process("")).unwrap();
    assert_eq!((state.status(), state.pid, state.terminal), (Status::Running, pid, false));
    client.kill_with("", 9, true).unwrap();
    assert_eq!(client.wait("").unwrap(), 137);
    shim.release(&mut client);
}

#[test]
fn a_paused_container_stands_still_and_can_still_be_killed() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("pause");
    let mut client = shim.connect();
    shim.run_shell(&mut client, "while :; do echo tick; sleep 0.01; done");
    let task = TaskRequest { id: "pause".to_owned() };
    let size = || std::fs::metadata(shim.log_path()).map_or(0, |file| file.len());
    eventually("it ticks", || size() > 0);
    client.call::<Empty>(TASK, "Pause", &task).unwrap();
    let state: StateResponse = client.call(TASK, "State", &client.process("")).unwrap();
    assert_eq!(state.status(), Status::Paused);
    std::thread::sleep(Duration::from_millis(50));
    let stood = size();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(size(), stood);
    client.call::<Empty>(TASK, "Resume", &task).unwrap();
    eventually("it ticks again", || size() > stood);
    client.call::<Empty>(TASK, "Pause", &task).unwrap();
    client.kill("", 9).unwrap();
    assert_eq!(client.wait("").unwrap(), 137);
    shim.release(&mut client);
}

#[test]
fn a_shim_leaves_the_service_that_started_it() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("service");
    let mut client = shim.connect();
    // One that never rests.
    shim.run_shell(&mut client, "while :; do echo tick; sleep 0.1; done");
    let cgroups = || std::fs::read_to_string(format!("/proc/{}/cgroup", shim.pid())).unwrap();
    let by_services = |line: &&str| line.starts_with("0::") || line.contains(":name=systemd:");
    eventually("it is in a cgroup of its own", || {
        cgroups().lines().filter(by_services).all(|line| line.ends_with("-service/shim"))
    });
    client.kill("", 9).unwrap();
    client.wait("").unwrap();
    shim.release(&mut client);
}

#[test]
fn a_kill_for_want_of_memory_is_recorded_as_one() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("oom");
    shim.options.resources.as_mut().unwrap().memory = Some(20 << 20);
    let mut client = shim.connect();
    shim.run_shell(&mut client, "exec dd if=/dev/zero of=/dev/null bs=200M");
    assert_eq!(client.wait("").unwrap(), 137);
    let record = shim.record();
    assert_eq!((record.status, record.oom_killed), (ExitStatus::Signal(9), true));
    shim.release(&mut client);
}

#[test]
fn what_is_left_without_a_pid_namespace_dies_with_the_first_process() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("rest");
    shim.options.clone_flags &= !0x2000_0000;
    let mut client = shim.connect();
    shim.run_shell(&mut client, "(trap '' TERM HUP; echo left; sleep 1000) & sleep 0.1; exit 5");
    assert_eq!(client.wait("").unwrap(), 5);
    assert_eq!(shim.logged("stdout"), "left\n");
    let task = TaskRequest { id: "rest".to_owned() };
    let pids: PidsResponse = client.call(TASK, "Pids", &task).unwrap();
    assert_eq!(pids.processes, []);
    shim.release(&mut client);
}

#[test]
fn a_create_that_fails_leaves_nothing_and_the_shim_goes_with_its_daemon() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("fails");
    let mut client = shim.connect();
    let log = shim.options.log.as_mut().unwrap();
    let good = std::mem::replace(&mut log.path, "/nonexistent/directory/log".to_owned());
    let failure = shim.create(&mut client, &shim.shell("true")).unwrap_err();
    assert!(failure.message.contains("/nonexistent/directory/log"), "{}", failure.message);
    assert_eq!(client.status().phase(), Phase::Empty);
    assert!(!shim.container.exit().exists());
    shim.options.log.as_mut().unwrap().path = good;
    drop(client);
    assert_eq!(shim.wait_end(), Some(0));
}

#[test]
fn calls_that_make_no_sense_are_refused_by_name() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("sense");
    let mut client = shim.connect();
    let other = shim_wire::task::ProcessRequest { id: "other".to_owned(), ..Default::default() };
    let foreign = shim_wire::task::CreateTaskRequest {
        id: "sense".to_owned(),
        options: Some(shim_wire::task::Any {
            type_url: "runc.options.v1".to_owned(),
            value: Vec::new(),
        }),
        ..Default::default()
    };
    let expected = [
        (client.call::<Empty>(TASK, "Start", &other), Code::NotFound, "\"other\""),
        (client.call(TASK, "Start", &client.process("")), Code::NotFound, "not been created"),
        (client.call(TASK, "Migrate", &Empty {}), Code::Unimplemented, "Task/Migrate"),
        (client.call("no.such.Service", "X", &Empty {}), Code::Unimplemented, "no.such.Service/X"),
        (client.call(TASK, "Create", &foreign), Code::InvalidArgument, "runc.options.v1"),
    ];
    for (result, code, text) in expected {
        let failure = result.unwrap_err();
        assert_eq!(failure.code, code, "{}", failure.message);
        assert!(failure.message.contains(text), "{}", failure.message);
    }
    shim.run_shell(&mut client, "sleep 0.1");
    let again = shim.create(&mut client, &shim.shell("true")).unwrap_err();
    assert_eq!(again.code, Code::AlreadyExists);
    let twice = client.start("").unwrap_err();
    assert_eq!(twice.code, Code::FailedPrecondition);
    client.wait("").unwrap();
    shim.release(&mut client);
}

#[test]
fn a_published_port_stays_taken_while_the_container_lives() {
    if !may_run() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut shim = TestShim::start_in("port", directory, &[listener.as_fd()]);
    let mut client = shim.connect();
    shim.run_shell(&mut client, "sleep 0.1");
    drop(listener);
    assert!(std::net::TcpListener::bind(address).is_err(), "the shim holds it");
    client.wait("").unwrap();
    shim.release(&mut client);
    std::net::TcpListener::bind(address).unwrap();
}

#[test]
fn a_container_dies_with_its_shim() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("killed");
    let mut client = shim.connect();
    let pid = shim.run_shell(&mut client, "sleep 1000 & exec sleep 1000");
    shim.kill();
    eventually("the process is dead", || {
        // A zombie waits for whoever reaps it.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
    });
    assert!(!shim.container.exit().exists(), "nobody invents a status");
}

#[test]
fn garbage_on_a_socket_ends_that_connection_alone() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("garbage");
    let mut client = shim.connect();
    shim.run_shell(&mut client, "exec sleep 1000");
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..200 {
        let path = if round % 2 == 0 { shim.sockets.shim() } else { shim.sockets.attach() };
        let mut rude = UnixStream::connect(path).unwrap();
        let garbage: Vec<u8> = (0..500)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed.to_le_bytes()[3]
            })
            .collect();
        // A short frame of its kind now and then, so that more than headers is looked at.
        let header: &[u8] = match round % 4 {
            0 => &[0, 0, 0, 40, 0, 0, 0, 1, 1, 0],
            1 => &[5, 0, 0, 0, 40],
            _ => &[],
        };
        rude.write_all(header).unwrap();
        // The shim may have hung up before the end.
        let _ = rude.write_all(&garbage);
        let _ = rude.shutdown(std::net::Shutdown::Write);
        let _ = rude.read_to_end(&mut Vec::new());
    }
    let status = client.status();
    assert_eq!((status.phase(), status.attached), (Phase::Running, 0));
    client.kill("", 9).unwrap();
    assert_eq!(client.wait("").unwrap(), 137);
    shim.release(&mut client);
}
