//! Commands that are killed in the middle.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::sandbox::{Sandbox, until};

/// Whenever it dies, what is left is removed by force.
#[test]
fn a_create_that_is_killed_leaves_nothing_that_force_can_not_remove() {
    for delay in (0..12).map(|step| Duration::from_micros(step * step * 150)) {
        let sandbox = Sandbox::new("exec sleep 1000");
        let mut child = sandbox
            .command(&["create", "--bundle", &sandbox.bundle(), &sandbox.id])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(delay);
        child.kill().unwrap();
        child.wait().unwrap();
        sandbox.on("delete", &["--force"]).ok();
        assert!(sandbox.is_gone(), "after {delay:?}: {:?}", sandbox.groups());
        sandbox.create().ok();
    }
}

/// A hook holds the create where it has all, and nobody can start it yet.
#[test]
fn a_create_that_is_killed_in_a_hook_is_not_there() {
    let mut sandbox = Sandbox::new("exec sleep 1000");
    let marker = sandbox.text("in-hook");
    let script = format!("touch {marker}; exec sleep 1000");
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    sandbox.set("/hooks", json!({"createRuntime": hook}));
    let mut child =
        sandbox.command(&["create", "--bundle", &sandbox.bundle(), &sandbox.id]).spawn().unwrap();
    until("hook", || std::path::Path::new(&marker).exists());
    assert_eq!(sandbox.status(), "creating");
    child.kill().unwrap();
    child.wait().unwrap();
    until("end", || sandbox.status() == "stopped");
    sandbox.on("delete", &[]).ok();
    assert!(sandbox.is_gone());
}

/// What its child hangs in is no reason to wait for a command that is gone.
#[test]
fn nobody_waits_for_a_command_that_was_killed() {
    let mut sandbox = Sandbox::new("exec sleep 1000");
    // Nobody answers its filter's questions: the first one is its exec.
    let agent = std::os::unix::net::UnixListener::bind(sandbox.path("agent")).unwrap();
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": sandbox.text("agent"),
        "syscalls": [{"names": ["execve", "execveat"], "action": "SCMP_ACT_NOTIFY"}],
    });
    sandbox.set("/linux/seccomp", filter);
    let mut child =
        sandbox.command(&["run", "--bundle", &sandbox.bundle(), &sandbox.id]).spawn().unwrap();
    // Not read: the filter's descriptor is in it, and without one there are no questions.
    let connection = agent.accept().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    child.kill().unwrap();
    child.wait().unwrap();
    // The container is nobody's, though its process hangs on; one that was slower is stopped.
    let error = sandbox.on("start", &[]).err();
    assert!(error.contains("cannot start container"), "{error}");
    sandbox.on("delete", &["--force"]).ok();
    assert!(sandbox.is_gone());
    drop(connection);
}

/// The program runs, whoever else was killed.
#[test]
fn a_run_that_is_killed_leaves_its_container() {
    let sandbox = Sandbox::new("exec sleep 1000");
    let mut child =
        sandbox.command(&["run", "--bundle", &sandbox.bundle(), &sandbox.id]).spawn().unwrap();
    until("container", || sandbox.on("state", &[]).code == 0 && sandbox.status() == "running");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(sandbox.status(), "running");
    sandbox.on("delete", &["--force"]).ok();
    assert!(sandbox.is_gone());
}

/// The number of a container's process, when that is another process meanwhile, is nothing to it.
#[test]
fn a_number_that_was_reused_is_not_the_container() {
    let sandbox = Sandbox::new("true");
    sandbox.create().ok();
    let identity = sandbox.path("state").join(&sandbox.id).join("init.pid");
    let text = std::fs::read_to_string(&identity).unwrap();
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let own = std::process::id().to_string();
    words[0] = &own;
    std::fs::write(&identity, words.join(" ")).unwrap();
    assert_eq!(sandbox.status(), "stopped");
    assert!(sandbox.oci(&["kill", &sandbox.id, "KILL"]).err().contains("container not running"));
    sandbox.on("delete", &[]).ok();
    assert!(sandbox.is_gone(), "and what really was its process ends with its group");
}

#[test]
fn the_state_is_roots_alone_even_under_umask_0() {
    let sandbox = Sandbox::new("true");
    rustix::process::umask(rustix::fs::Mode::empty());
    let created = sandbox.create();
    let oci = sandbox.command(&[]).get_program().to_owned();
    let deep = |words: &[&str]| {
        let mut command = Command::new(&oci);
        command.arg("--root").arg(sandbox.path("above/it/state")).args(words).stdin(Stdio::null());
        sandbox.finish(command)
    };
    let other = format!("{}-deep", sandbox.id);
    let made = deep(&["create", "--bundle", &sandbox.bundle(), &other]);
    let removed = deep(&["delete", "--force", &other]);
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    created.ok();
    made.ok();
    removed.ok();
    let mode = |path: &std::path::Path| {
        std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    };
    let directory = sandbox.path("state").join(&sandbox.id);
    assert_eq!((mode(&sandbox.path("state")), mode(&directory)), (0o700, 0o700));
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(&directory).unwrap().flatten() {
        assert_eq!(mode(&entry.path()), 0o600, "{:?}", entry.path());
        seen.push(entry.file_name());
    }
    assert!(seen.len() >= 5, "{seen:?}");
    // Nobody else can put another root in the place of this one.
    let above = [sandbox.path("above"), sandbox.path("above/it"), sandbox.path("above/it/state")];
    assert_eq!(above.map(|path| mode(&path)), [0o755, 0o755, 0o700]);
}
