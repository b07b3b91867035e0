//! Shims that are killed: with the daemon there, without it, with it; and strangers with their pids.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Case, few_pids};
use crate::daemon::Daemon;
use crate::process::Process;
use crate::wait;

const RUN: &str =
    "run -d --name one -p 5000:5000 --rootfs / /bin/sh -c 'echo written; sleep 601 & sleep 600'";
/// A program that becomes somebody else, who gets no signals of root's at its parent's death.
const RUN_AS: &str = "run -d --name one --net none --rootfs / /usr/bin/setpriv --reuid 65534 --clear-groups /bin/sh -c 'echo written; sleep 600'";

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::plain("daemon up", |_| daemon_up(RUN)),
        Case::plain("daemon up, other credentials", |_| daemon_up(RUN_AS)),
        Case::plain("daemon down", |_| daemon_down(RUN)),
        Case::plain("daemon down, other credentials", |_| daemon_down(RUN_AS)),
        Case::plain("both at once", |_| both()),
        Case::plain("pid of the process reused", |_| reused_pid()),
        Case::plain("pids reused, daemon up", |_| reused_at_once()),
        Case::measured("few pids", few_pids::few),
    ]
}

fn started(run: &str) -> (Daemon, Process, Process) {
    let daemon = Daemon::start();
    daemon.ctl(run).ok();
    daemon.until_logged("one", "written");
    let (process, shim) = (daemon.process("one"), daemon.shim("one"));
    (daemon, process, shim)
}

fn daemon_up(run: &str) {
    let (daemon, process, shim) = started(run);
    let begin = Instant::now();
    shim.kill();
    wait::until_true("the end of its process", || !process.lives());
    assert!(begin.elapsed() < wait::patiently(Duration::from_secs(1)), "{:?}", begin.elapsed());
    expect_lost(&daemon);
}

fn daemon_down(run: &str) {
    let (mut daemon, process, shim) = started(run);
    daemon.kill();
    shim.kill();
    wait::until_true("the shim's end", || !shim.lives());
    daemon.start_again();
    wait::until_true("the end of its process", || !process.lives());
    expect_lost(&daemon);
}

fn both() {
    let (mut daemon, process, shim) = started(RUN);
    shim.kill();
    daemon.kill();
    daemon.start_again();
    wait::until_true("the end of its process", || !process.lives());
    expect_lost(&daemon);
}

/// The daemon's records name a pid that is a stranger's by now.
pub(super) fn reused_pid() {
    let (mut daemon, process, shim) = started(RUN);
    daemon.kill();
    shim.kill();
    process.kill();
    wait::until_true("their ends", || {
        !process.lives() && !shim.lives() && gone(process) && gone(shim)
    });
    let strangers: Vec<Child> = [process, shim].into_iter().filter_map(stranger).collect();
    daemon.start_again();
    expect_lost(&daemon);
    expect_untouched(strangers);
}

fn expect_untouched(strangers: Vec<Child>) {
    for mut stranger in strangers {
        assert!(matches!(stranger.try_wait(), Ok(None)), "a stranger was killed");
        let _ = stranger.kill();
        let _ = stranger.wait();
    }
}

/// A daemon that did not start the shim: the pids are strangers' before it can have looked.
pub(super) fn reused_at_once() {
    let (mut daemon, process, shim) = started(RUN);
    daemon.kill();
    daemon.start_again();
    let pid = daemon.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let pid = pid.expect("the daemon runs");
    kill_process(pid, Signal::STOP).expect("a child of ours");
    shim.kill();
    process.kill();
    wait::until_true("their ends", || gone(process) && gone(shim));
    let strangers: Vec<Child> = [process, shim].into_iter().filter_map(stranger).collect();
    kill_process(pid, Signal::CONT).expect("a child of ours");
    expect_lost(&daemon);
    expect_untouched(strangers);
}

fn gone(process: Process) -> bool {
    !process.path("").exists()
}

/// A process of another program with the pid of one that has ended. `None` when others were faster every
/// time.
fn stranger(gone: Process) -> Option<Child> {
    for _ in 0..200 {
        fs::write("/proc/sys/kernel/ns_last_pid", (gone.0 - 1).to_string()).expect("root's file");
        let mut command = Command::new("/bin/sleep");
        let mut child = command.arg("600").stdin(Stdio::null()).spawn().expect("a program");
        if child.id() == gone.0 {
            return Some(child);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    None
}

/// It has ended, and nothing is made up about how; it can be started again.
fn expect_lost(daemon: &Daemon) {
    daemon.until_status("one", "exited");
    let exit = daemon.api().get("one").state.and_then(|state| state.exit).expect("an exit");
    assert_eq!(exit.reason, "ShimLost", "{exit:?}");
    assert!(exit.unknown || exit.signal == 9, "{exit:?}");
    assert_eq!(daemon.ctl("logs one").stdout, "written\n");
    daemon.ctl("start one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.Status}}"), "running");
    daemon.ctl("rm -f one").ok();
    daemon.expect_nothing_left();
}
