//! A container dies with its shim, at once and honestly.

use std::time::{Duration, Instant};

use integration::daemon::{Daemon, Settings};
use integration::process::Process;
use integration::wait;
use rustix::process::Signal;

#[test]
fn the_container_of_a_killed_shim_is_dead_within_a_second() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one -p 5000:5000 --rootfs / /bin/sh -c 'sleep 601 & sleep 600'").ok();
    let (process, shim) = (daemon.process("one"), daemon.shim("one"));
    let begin = Instant::now();
    shim.kill();
    wait::until_true("the end of its process", || !process.lives());
    assert!(begin.elapsed() < wait::patiently(Duration::from_secs(1)), "{:?}", begin.elapsed());
    daemon.until_status("one", "exited");
    let exit = daemon.api().get("one").state.unwrap().exit.unwrap();
    assert_eq!(exit.reason, "ShimLost");
    assert!(exit.unknown || exit.signal == 9, "{exit:?}");
    assert_eq!(
        integration::process::Process::belonging(&daemon.place().prefix, daemon.scratch())
            .into_iter()
            .filter(|left| left.arguments().iter().any(|word| word == "601"))
            .count(),
        0
    );
}

/// Neither what ends a service nor what its memory is limited to is for the shims that it started.
#[test]
fn a_shim_leaves_the_groups_of_the_daemon() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    let shim = daemon.shim("one");
    shim.until_out_of_service();
}

#[test]
fn it_can_be_started_again() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one -p 5000:5000 --rootfs / /bin/sleep 600").ok();
    daemon.shim("one").kill();
    daemon.until_status("one", "exited");
    daemon.ctl("start one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.Status}}"), "running");
}

#[test]
fn its_log_up_to_then_is_kept() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sh -c 'echo written; sleep 600'").ok();
    daemon.until_logged("one", "written");
    daemon.shim("one").kill();
    daemon.until_status("one", "exited");
    assert_eq!(daemon.ctl("logs one").stdout, "written\n");
}

#[test]
fn while_the_daemon_is_dead_it_is_found_at_the_next_start() {
    let mut daemon = Daemon::start();
    daemon.ctl("run -d --name one -p 5000:5000 --rootfs / /bin/sleep 600").ok();
    let (process, shim) = (daemon.process("one"), daemon.shim("one"));
    daemon.kill();
    shim.kill();
    wait::until_true("the shim's end", || !shim.lives());
    daemon.start_again();
    wait::until_true("the end of its process", || !process.lives());
    daemon.until_status("one", "exited");
    let exit = daemon.api().get("one").state.unwrap().exit.unwrap();
    assert_eq!(exit.reason, "ShimLost", "{exit:?}");
}

#[test]
fn who_waits_is_told() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    let waiting = daemon.ctl_start("wait one");
    daemon.shim("one").kill();
    let output = waiting.finish();
    assert!(["137", "255"].contains(&output.waited().as_str()), "{output:?}");
}

#[test]
fn a_stopped_shim_does_not_stop_a_kill() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    let (process, shim) = (daemon.process("one"), daemon.shim("one"));
    shim.signal(Signal::STOP);
    let killing = daemon.ctl_start("kill one");
    wait::until_true("the end of its process", || !process.lives());
    // A shim that hangs may have been killed as well by now.
    shim.signal(Signal::CONT);
    let _ = killing.finish();
    daemon.until_status("one", "exited");
    // Unknown when the shim took the code and was killed before it could say so.
    let code = daemon.inspect("one", "{{.State.ExitCode}}");
    assert!(["137", "255"].contains(&code.as_str()), "{code}");
}

/// Its shim dies when the process has got to its exec and the daemon has not heard of it: it ran, so it
/// has ended, and is not as if it had never been started.
#[test]
fn a_start_whose_answer_never_came_is_no_start_that_failed() {
    let daemon = Settings::new().failpoint("shim.start.after_exec=panic").start();
    daemon.ctl("create --name one -p 5000:5000 --rootfs / /bin/sleep 600").ok();
    daemon.ctl("start one").fails(1, &["one"]);
    let state = daemon.api().get("one").state.unwrap();
    assert_eq!(daemon.inspect("one", "{{.State.Status}}"), "exited");
    let exit = state.exit.unwrap();
    assert_eq!(exit.reason, "ShimLost", "{exit:?}");
    assert!(exit.unknown || exit.signal == 9, "{exit:?}");
}

/// The daemon dies before its shim can be found by an identity.
#[test]
fn a_shim_that_nobody_can_find_dies_with_its_daemon() {
    let mut daemon = Settings::new().failpoint("shim.setup.before_identity=sleep(4000)").start();
    daemon.ctl("create --name one -p 5000:5000 --rootfs / /bin/sleep 600").ok();
    let starting = daemon.ctl_start("start one");
    let shims = || {
        Process::belonging(&daemon.place().prefix, daemon.scratch())
            .into_iter()
            .filter(|process| process.arguments().first().is_some_and(|name| name == "bosun-shim"))
            .collect::<Vec<_>>()
    };
    let stray = wait::until("its shim", || shims().first().copied());
    daemon.kill();
    drop(starting.finish());
    wait::until_true("the shim's end", || !stray.lives());
    daemon.clear_environment();
    daemon.start_again();
    daemon.ctl("start one").ok();
    assert_ne!(daemon.shim("one"), stray);
}
