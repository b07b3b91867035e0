//! The exit code of `run`, `exec` and `wait` is the container's; 125, 126 and 127 are docker's.

use integration::daemon::Daemon;

#[test]
fn run_ends_with_the_code_of_the_container() {
    let daemon = Daemon::start();
    for code in [0, 1, 42, 125, 255] {
        daemon.ctl(&format!("run --rm --net none --rootfs / /bin/sh -c 'exit {code}'")).check(code);
    }
}

#[test]
fn a_signal_is_128_and_its_number() {
    let daemon = Daemon::start();
    daemon.ctl("run --name one --net none --rootfs / /bin/sh -c 'sh -c \"kill -SEGV \\$\\$\"; exit $?'").check(139);
    daemon.ctl("run -d --name two --net none --rootfs / /bin/sleep 600").ok();
    daemon.process("two").kill();
    assert_eq!(daemon.ctl("wait two").waited(), "137");
    let exit = daemon.api().get("two").state.unwrap().exit.unwrap();
    assert_eq!((exit.signal, exit.unknown, exit.reason.as_str()), (9, false, ""));
}

#[test]
fn a_command_that_is_not_found_is_127() {
    let daemon = Daemon::start();
    daemon.ctl("run --rm --net none --rootfs / /no/such/program").fails(127, &["/no/such/program"]);
    daemon.ctl("run --rm --net none --rootfs / no-such-word").fails(127, &["no-such-word"]);
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
}

#[test]
fn a_command_that_is_not_executable_is_126() {
    let daemon = Daemon::start();
    daemon.ctl("run --rm --net none --rootfs / /etc/passwd").fails(126, &["/etc/passwd"]);
    daemon.ctl("run --rm --net none --rootfs / /etc").fails(126, &["/etc"]);
}

#[test]
fn what_the_daemon_refuses_is_125() {
    let daemon = Daemon::start();
    daemon.ctl("run --rm --rootfs /no/such/tree /bin/true").fails(125, &["/no/such/tree"]);
    daemon.ctl("run --no-such-flag --rootfs / /bin/true").fails(125, &["--no-such-flag"]);
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
}

#[test]
fn a_failed_start_leaves_nothing_running_and_says_why() {
    let daemon = Daemon::start();
    daemon.ctl("create --name one --net none --rootfs / /no/such/program").ok();
    let output = daemon.ctl("start one");
    assert_ne!(output.code, Some(0));
    assert!(output.stderr.contains("/no/such/program"), "{}", output.stderr);
    assert_eq!(daemon.inspect("one", "{{.State.Running}}"), "false");
    assert_eq!(
        integration::process::Process::belonging(
            &daemon.place().prefix,
            std::path::Path::new("/no/such/path")
        ),
        []
    );
}

#[test]
fn the_time_of_the_end_is_that_of_the_process() {
    let daemon = Daemon::start();
    daemon.ctl("run --name one --net none --rootfs / /bin/sleep 0.3").ok();
    let state = daemon.api().get("one").state.unwrap();
    let (start, end) = (state.started_at.unwrap(), state.exit.unwrap().exited_at.unwrap());
    let millis =
        (end.seconds - start.seconds) * 1000 + i64::from(end.nanos - start.nanos) / 1_000_000;
    assert!((290..3000).contains(&millis), "{millis} ms");
}
