//! Holding containers still.

use std::path::PathBuf;

use integration::daemon::Daemon;

use crate::limits::control_file;

/// What holds a container still, also while no daemon is there.
pub(crate) struct Freezer(PathBuf);

impl Freezer {
    pub(crate) fn of(daemon: &Daemon, container: &str) -> Self {
        Self(control_file(daemon, container, "freezer.state", "cgroup.freeze"))
    }

    /// Whether it is held, or is about to be.
    pub(crate) fn holds(&self) -> bool {
        let state = std::fs::read_to_string(&self.0).unwrap();
        !["THAWED", "0"].contains(&state.trim())
    }

    /// The processes in its group.
    pub(crate) fn processes(&self) -> String {
        std::fs::read_to_string(self.0.with_file_name("cgroup.procs")).unwrap()
    }
}

/// A container that writes a line every few milliseconds.
fn ticking(daemon: &Daemon) {
    let words = "run -d --name one --net none --rootfs / /bin/sh -c 'while :; do echo tick; sleep 0.02; done'";
    daemon.ctl(words).ok();
    daemon.until_logged("one", "tick");
}

fn lines(daemon: &Daemon) -> usize {
    daemon.ctl("logs one").stdout.lines().count()
}

/// Whether lines are added in a while.
fn ticks(daemon: &Daemon) -> bool {
    let before = lines(daemon);
    std::thread::sleep(std::time::Duration::from_millis(300));
    lines(daemon) > before
}

#[test]
fn a_paused_container_stands_still_until_it_is_unpaused() {
    let daemon = Daemon::start();
    ticking(&daemon);
    assert_eq!(daemon.ctl("pause one").text(), "one");
    assert!(!ticks(&daemon));
    assert_eq!(
        daemon.inspect("one", "{{.State.Status}} {{.State.Paused}} {{.State.Running}}"),
        "paused true true"
    );
    let listed = daemon.ctl("ps --format {{.State}}:{{.Status}}").text();
    assert!(listed.starts_with("paused:Up ") && listed.ends_with("(Paused)"), "{listed}");
    assert_eq!(daemon.ctl("ps -q --filter status=running").text(), "");
    assert_ne!(daemon.ctl("ps -q --filter status=paused").text(), "");
    assert_eq!(daemon.ctl("info --format {{.ContainersPaused}}").text(), "1");
    assert_eq!(daemon.ctl("unpause one").text(), "one");
    assert!(ticks(&daemon));
    assert_eq!(daemon.inspect("one", "{{.State.Status}}"), "running");
}

#[test]
fn what_makes_no_sense_is_said() {
    let daemon = Daemon::start();
    daemon.ctl("create --name made --net none --rootfs / /bin/true").ok();
    daemon.ctl("pause made").fails(1, &["made", "is not running"]);
    ticking(&daemon);
    daemon.ctl("unpause one").fails(1, &["is not paused"]);
    daemon.ctl("pause one").ok();
    daemon.ctl("pause one").fails(1, &["is paused", "ctl unpause"]);
    daemon.ctl("start one").fails(1, &["is paused"]);
    daemon.ctl("exec one /bin/true").fails(125, &["is paused"]);
    daemon.ctl("rm one").fails(1, &["is running"]);
}

#[test]
fn it_stays_paused_over_a_restart_of_the_daemon() {
    let mut daemon = Daemon::start();
    ticking(&daemon);
    daemon.ctl("pause one").ok();
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.inspect("one", "{{.State.Status}}"), "paused");
    assert!(!ticks(&daemon));
    daemon.ctl("unpause one").ok();
    assert!(ticks(&daemon));
}

#[test]
fn a_paused_container_is_stopped_in_its_own_way() {
    let daemon = Daemon::start();
    let words = "run -d --name one --net none --rootfs / /bin/sh -c 'trap \"exit 7\" TERM; echo ready; while :; do sleep 0.02; done'";
    daemon.ctl(words).ok();
    daemon.until_logged("one", "ready");
    daemon.ctl("pause one").ok();
    daemon.ctl("stop -t 10 one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.Status}} {{.State.ExitCode}}"), "exited 7");
}

#[test]
fn a_paused_container_is_killed_and_removed() {
    let daemon = Daemon::start();
    ticking(&daemon);
    daemon.ctl("pause one").ok();
    daemon.ctl("kill one").ok();
    daemon.until_status("one", "exited");
    daemon.ctl("start one").ok();
    daemon.ctl("pause one").ok();
    daemon.ctl("rm -f one").ok();
    assert_eq!(daemon.ctl("ps -aq").text(), "");
}
