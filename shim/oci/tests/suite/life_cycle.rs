//! From create to delete.

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

#[test]
fn created_started_ended_deleted() {
    let sandbox = Sandbox::new("echo ran >/proc/1/fd/1; exec sleep 1000");
    let pid_file = sandbox.text("pid");
    sandbox.on("create", &["--bundle", &sandbox.bundle(), "--pid-file", &pid_file]).ok();
    let state = sandbox.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], json!(sandbox.id));
    assert_eq!(state["bundle"], json!(sandbox.bundle()));
    assert_eq!(state["pid"].to_string(), std::fs::read_to_string(&pid_file).unwrap());
    let command = |pid: &Value| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(command(&state["pid"]).contains("bosun-oci"), "its program is not executed yet");
    sandbox.on("start", &[]).ok();
    sandbox.wait_for("running");
    assert_eq!(sandbox.state()["pid"], state["pid"]);
    sandbox.on("kill", &[]).ok();
    assert_eq!(sandbox.status(), "running", "a first process without a handler takes no SIGTERM");
    sandbox.oci(&["kill", &sandbox.id, "KILL"]).ok();
    sandbox.wait_for("stopped");
    assert_eq!(sandbox.state()["pid"], 0);
    sandbox.on("delete", &[]).ok();
    assert!(sandbox.is_gone());
}

#[test]
fn run_ends_as_its_process_does() {
    let sandbox = Sandbox::new("echo out; echo err >&2; exit 42");
    let said = sandbox.run();
    assert_eq!((said.code, &*said.stdout, &*said.stderr), (42, "out\n", "err\n"));
    assert!(sandbox.is_gone());
    let killed = Sandbox::new("exec sleep 1000");
    let mut child = killed
        .command(&["run", "--keep", "--bundle", &killed.bundle(), &killed.id])
        .spawn()
        .unwrap();
    crate::sandbox::until("container", || killed.on("state", &[]).code == 0);
    killed.wait_for("running");
    killed.oci(&["kill", &killed.id, "9"]).ok();
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert_eq!(killed.status(), "stopped", "--keep keeps it");
}

#[test]
fn a_signal_to_run_is_the_containers() {
    let sandbox = Sandbox::new("trap 'exit 7' USR1; touch /tmp/up; while :; do sleep 0.05; done");
    let mut sandbox = sandbox;
    sandbox.set("/root/readonly", json!(false));
    std::fs::create_dir(sandbox.path("bundle/rootfs/tmp")).unwrap();
    let mut child =
        sandbox.command(&["run", "--bundle", &sandbox.bundle(), &sandbox.id]).spawn().unwrap();
    let up = sandbox.path("bundle/rootfs/tmp/up");
    crate::sandbox::until("script", || up.exists());
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert!(sandbox.is_gone());
}

#[test]
fn pause_and_resume() {
    let sandbox = Sandbox::running("exec sleep 1000");
    sandbox.on("pause", &[]).ok();
    assert_eq!(sandbox.status(), "paused");
    assert!(sandbox.on("pause", &[]).err().contains("it is paused"));
    assert!(sandbox.exec(&[], &["true"]).err().contains("it is paused"));
    sandbox.on("resume", &[]).ok();
    assert_eq!(sandbox.status(), "running");
    assert!(sandbox.on("resume", &[]).err().contains("it is running"));
    sandbox.on("pause", &[]).ok();
    sandbox.oci(&["kill", &sandbox.id, "KILL"]).ok();
    sandbox.wait_for("stopped");
}

#[test]
fn a_paused_container_is_deleted_by_force() {
    let sandbox = Sandbox::running("exec sleep 1000");
    sandbox.on("pause", &[]).ok();
    sandbox.on("delete", &["--force"]).ok();
    assert!(sandbox.is_gone());
}

#[test]
fn lists_and_processes() {
    let sandbox = Sandbox::running("sleep 1000 & exec sleep 1000");
    let pid = sandbox.state()["pid"].to_string();
    let table = sandbox.oci(&["list"]).ok();
    let lines: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert_eq!(lines[1][..4], [&*sandbox.id, &*pid, "running", &*sandbox.bundle()]);
    assert_eq!(sandbox.oci(&["list", "-q"]).ok().trim(), sandbox.id);
    let list: Value = serde_json::from_str(&sandbox.oci(&["list", "-f", "json"]).ok()).unwrap();
    assert_eq!(list, json!([sandbox.state()]));
    crate::sandbox::until("second process", || sandbox.on("ps", &[]).ok().lines().count() == 3);
    let pids: Vec<i32> = serde_json::from_str(&sandbox.on("ps", &["-f", "json"]).ok()).unwrap();
    assert!(pids.len() == 2 && pids.contains(&pid.parse().unwrap()), "{pids:?}");
    let columns = sandbox.oci(&["ps", &sandbox.id, "-o", "pid,comm", "-e"]).ok();
    assert!(columns.lines().skip(1).all(|line| line.contains("sleep")), "{columns}");
}

#[test]
fn kill_all_reaches_every_process() {
    let mut sandbox = Sandbox::new("sleep 1000 & sleep 1000 & exec sleep 1000");
    // Without a pid namespace the others outlive the first.
    let namespaces = sandbox.config["linux"]["namespaces"].as_array().unwrap().clone();
    let without: Vec<Value> = namespaces.into_iter().filter(|one| one["type"] != "pid").collect();
    sandbox.set("/linux/namespaces", json!(without));
    sandbox.on("run", &["--detach", "--bundle", &sandbox.bundle()]).ok();
    let count = || {
        let pids: Vec<i32> = serde_json::from_str(&sandbox.on("ps", &["-f", "json"]).ok()).unwrap();
        pids.len()
    };
    crate::sandbox::until("three processes", || count() == 3);
    sandbox.oci(&["kill", &sandbox.id, "KILL"]).ok();
    sandbox.wait_for("stopped");
    assert_eq!(count(), 2);
    sandbox.oci(&["kill", "--all", &sandbox.id, "KILL"]).ok();
    crate::sandbox::until("end", || count() == 0);
    sandbox.on("delete", &[]).ok();
    assert!(sandbox.is_gone());
}

#[test]
fn annotations_are_in_the_state() {
    let mut sandbox = Sandbox::new("true");
    sandbox.set("/annotations", json!({"org.example.a": "1"}));
    sandbox.create().ok();
    assert_eq!(sandbox.state()["annotations"], json!({"org.example.a": "1"}));
}
