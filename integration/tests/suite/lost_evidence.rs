//! What a daemon that starts does not find, or finds silent, while containers run: their state directory, a
//! shim's identity, the root's disk, an answer.

use std::path::Path;
use std::process::Command;

use integration::daemon::{Daemon, Settings};
use integration::disk::Size;
use integration::process::Process;
use integration::wait;
use rustix::process::Signal;

use crate::daemon_process::refused;

/// Ends with 7 when it is asked to, and writes lines until then.
const ENDS_WITH_7: &str = "run -d --name one --net none --rootfs / /bin/sh -c \
     'trap \"exit 7\" TERM; echo ready; while :; do echo line; sleep 0.02; done'";

fn with_one(settings: Settings) -> (Daemon, Process) {
    let daemon = settings.start();
    daemon.ctl(ENDS_WITH_7).ok();
    daemon.until_logged("one", "ready");
    let process = daemon.process("one");
    // A start is stored a moment after its answer.
    let copy = daemon.container_dir(&daemon.inspect("one", "{{.Id}}")).path().join("record.json");
    wait::until_true("a start that is stored", || {
        let text = std::fs::read_to_string(&copy).unwrap_or_default();
        let value = text.split_once("started_at\\\":");
        value.is_some_and(|(_, value)| !value.starts_with("null"))
    });
    (daemon, process)
}

/// The daemon's command line with another value for a flag.
fn with_flag(daemon: &Daemon, flag: &str, value: &str) -> Command {
    let own = daemon.command();
    let mut other = Command::new(own.get_program());
    let mut is_value = false;
    for word in own.get_args() {
        if is_value {
            other.arg(value)
        } else {
            other.arg(word)
        };
        is_value = word == flag;
    }
    other
}

#[test]
fn a_shim_whose_identity_is_lost_is_found() {
    let (mut daemon, process) = with_one(Settings::new());
    let id = daemon.inspect("one", "{{.Id}}");
    daemon.kill();
    let identity = daemon.run_dir(&id).shim_identity();
    std::fs::remove_file(&identity).unwrap();
    daemon.start_again();
    assert!(process.lives());
    assert_eq!(daemon.inspect("one", "{{.State.Status}}"), "running");
    assert!(identity.exists(), "the next daemon need not look for it");
    daemon.ctl("exec one /bin/true").ok();
    daemon.ctl("stop one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), "7");
}

/// Removes all that is in the state directory, as who keeps /run tidy does.
fn empty(daemon: &Daemon) {
    for entry in std::fs::read_dir(&daemon.place().state).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => std::fs::remove_dir_all(entry.path()).unwrap(),
            false => std::fs::remove_file(entry.path()).unwrap(),
        }
    }
}

#[test]
fn without_what_was_in_the_state_directory_containers_go_on() {
    let (mut daemon, process) = with_one(Settings::new());
    daemon.ctl("pod create pod").ok();
    daemon.ctl("run -d --name two --pod pod --rootfs / /bin/sleep 600").ok();
    daemon.ctl("run -d --name web -p 5000:5000 --rootfs / /bin/sleep 600").ok();
    let others = ["two", "web"].map(|name| daemon.process(name));
    daemon.kill();
    empty(&daemon);
    daemon.start_again();
    // What this one has had put back is there for the next.
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.process("one"), process);
    assert_eq!(["two", "web"].map(|name| daemon.process(name)), others);
    let client = daemon.ctl_start("attach --no-stdin one");
    client.expect("line");
    for name in ["one", "two", "web"] {
        assert_eq!(daemon.inspect(name, "{{.State.Status}}"), "running");
        assert_eq!(daemon.ctl(&format!("exec {name} /bin/echo on")).text(), "on");
        daemon.ctl(&format!("cp {name}:/etc/hosts {}", daemon.scratch().display())).ok();
    }
    daemon.ctl("run --rm --pod pod --rootfs / /bin/true").ok();
    daemon.ctl("stop one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), "7");
    assert!(daemon.ctl("logs one").stdout.lines().skip(1).all(|line| line == "line"));
    client.finish().check(7);
    daemon.ctl("start one").ok();
    daemon.ctl("rm -f one web").ok();
    daemon.ctl("pod rm -f pod").ok();
    daemon.expect_nothing_left();
}

/// Nobody reaches its shim any more, so it ends; but nobody says that it never ran.
#[test]
fn without_its_state_directory_a_container_whose_shim_stands_still_has_ended_and_is_told_how() {
    let (mut daemon, process) = with_one(Settings::new());
    let started = daemon.inspect("one", "{{.State.StartedAt}}");
    let shim = daemon.shim("one");
    daemon.kill();
    empty(&daemon);
    shim.signal(Signal::STOP);
    daemon.start_again();
    assert!(!process.lives());
    let template = "{{.State.Status}} {{.State.ExitCode}} {{.State.StartedAt}}";
    assert_eq!(daemon.inspect("one", template), format!("exited 255 {started}"));
    assert!(daemon.ctl("logs one").stdout.contains("ready"));
    daemon.ctl("start one").ok();
    daemon.ctl("rm -f one").ok();
    daemon.expect_nothing_left();
}

#[test]
fn a_root_that_is_not_mounted_is_no_reason_to_end_what_runs() {
    let (mut daemon, process) = with_one(Settings::new());
    daemon.kill();
    let root = daemon.place().root.clone();
    let away = root.with_extension("away");
    std::fs::rename(&root, &away).unwrap();
    for _ in 0..2 {
        let said = refused(&mut daemon.command());
        assert!(said.contains(&*root.to_string_lossy()) && said.contains("mount it"), "{said}");
    }
    std::fs::remove_dir_all(&root).unwrap();
    std::fs::rename(&away, &root).unwrap();
    daemon.start_again();
    assert!(process.lives());
    assert_eq!(daemon.inspect("one", "{{.State.Status}}"), "running");
    daemon.ctl("stop one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), "7");
}

#[test]
fn where_its_containers_are_not_looked_for_a_daemon_does_not_start() {
    let (mut daemon, process) = with_one(Settings::new());
    daemon.kill();
    let state = daemon.place().state.clone();
    let other = daemon.scratch().join("other");
    let said = refused(&mut with_flag(&daemon, "--state", &other.to_string_lossy()));
    assert!(said.contains(&format!("--state {}", state.display())), "{said}");
    let said = refused(&mut with_flag(&daemon, "--cgroup-prefix", "bosun-t-other"));
    assert!(said.contains(&format!("--cgroup-prefix {}", daemon.place().prefix)), "{said}");
    daemon.start_again();
    assert!(process.lives());
    assert_eq!(daemon.inspect("one", "{{.State.Status}}"), "running");
}

#[test]
fn a_shim_that_does_not_answer_a_new_daemon_keeps_its_container() {
    let (mut daemon, process) = with_one(Settings::new());
    daemon.ctl("run -d --name two --net none --rootfs / /bin/sleep 600").ok();
    let shim = daemon.shim("one");
    shim.signal(Signal::STOP);
    daemon.kill();
    daemon.start_again();
    assert!(process.lives() && shim.lives());
    assert_eq!(daemon.inspect("one", "{{.State.Status}}"), "running");
    daemon.ctl("exec two /bin/true").ok();
    // It ends before its shim is heard of again, which tells the truth then.
    process.signal(Signal::TERM);
    shim.signal(Signal::CONT);
    daemon.until_status("one", "exited");
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), "7");
}

#[test]
fn a_shim_that_never_answers_again_is_removed_by_force() {
    let (mut daemon, process) = with_one(Settings::new());
    let shim = daemon.shim("one");
    shim.signal(Signal::STOP);
    daemon.kill();
    daemon.start_again();
    daemon.ctl("rm -f one").ok();
    wait::until_true("the end of both", || !process.lives() && !shim.lives());
    daemon.expect_nothing_left();
}

/// A disk that answers nothing, until this goes.
struct Frozen<'a>(&'a Path);

impl<'a> Frozen<'a> {
    fn new(directory: &'a Path) -> Self {
        assert!(Command::new("fsfreeze").arg("-f").arg(directory).status().unwrap().success());
        Self(directory)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        assert!(Command::new("fsfreeze").arg("-u").arg(self.0).status().unwrap().success());
    }
}

#[test]
fn a_disk_that_hangs_while_a_daemon_starts_ends_nobody() {
    let size = Size { megabytes: 32, inodes: None };
    let (mut daemon, process) = with_one(Settings::new().disk_at("root/containers", size));
    daemon.kill();
    let containers = daemon.place().root.join("containers");
    let frozen = Frozen::new(&containers);
    daemon.launch();
    let asked = "it is asked again and again";
    wait::until_true("a shim that does not answer", || daemon.log().contains(asked));
    drop(frozen);
    assert!(daemon.serves_or_ends(), "{}", daemon.log());
    assert!(process.lives());
    assert_eq!(daemon.inspect("one", "{{.State.Status}}"), "running");
    daemon.ctl("exec one /bin/true").ok();
    daemon.ctl("stop one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), "7");
}
