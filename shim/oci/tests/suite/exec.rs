//! Further processes.

use std::io::Read as _;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

#[test]
fn a_process_has_what_the_flags_say() {
    let sandbox = Sandbox::running("exec sleep 1000");
    let said = sandbox.exec(&[], &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((said.code, &*said.stdout, &*said.stderr), (3, "out\n", "err\n"));
    let flags = ["--user", "5:6", "-g", "7", "--env", "ONE=1", "--cwd", "/bin", "--no-new-privs"];
    let script = "id; echo $ONE $TERM; readlink /proc/$$/cwd; grep NoNewPrivs /proc/$$/status";
    assert_eq!(
        sandbox.exec(&flags, &["sh", "-c", script]).ok(),
        "uid=5 gid=6 groups=6,7\n1 xterm\n/bin\nNoNewPrivs:\t1\n"
    );
    let bounding =
        |flags: &[&str]| sandbox.exec(flags, &["grep", "CapBnd", "/proc/self/status"]).ok();
    assert_eq!(bounding(&[]), "CapBnd:\t0000000020000420\n");
    assert_eq!(bounding(&["--cap", "CAP_NET_ADMIN"]), "CapBnd:\t0000000020001420\n");
}

#[test]
fn a_process_as_json_is_taken_as_it_is() {
    let sandbox = Sandbox::running("exec sleep 1000");
    let file = sandbox.text("process.json");
    let process = json!({
        "cwd": "/bin",
        "args": ["sh", "-c", "echo $A; id -u; readlink /proc/$$/cwd"],
        "env": ["A=b", "PATH=/bin"],
        "user": {"uid": 9, "gid": 9},
    });
    std::fs::write(&file, process.to_string()).unwrap();
    assert_eq!(sandbox.exec(&["--process", &file], &[]).ok(), "b\n9\n/bin\n");
    let process = json!({"cwd": "/", "args": ["id", "-u"], "env": ["PATH=/bin"]});
    std::fs::write(&file, process.to_string()).unwrap();
    assert_eq!(sandbox.exec(&["--process", &file], &[]).ok(), "0\n", "no user is root");
    std::fs::write(&file, "{\"cwd\": 1}").unwrap();
    let error = sandbox.exec(&["--process", &file], &[]).err();
    assert!(error.contains("process.json: process.cwd: invalid type"), "{error}");
}

#[test]
fn a_detached_process_goes_on() {
    let sandbox = Sandbox::running("exec sleep 1000");
    let pid_file = sandbox.text("exec.pid");
    sandbox.exec(&["--detach", "--pid-file", &pid_file], &["sleep", "1000"]).ok();
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    let pids = sandbox.on("ps", &["-f", "json"]).ok();
    assert!(pids.contains(&pid), "{pid}: {pids}");
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    assert_eq!(namespace(&pid), namespace(&sandbox.state()["pid"].to_string()));
    // Reaped by whoever takes orphans here, so that the container can end.
    sandbox.on("delete", &["--force"]).ok();
}

#[test]
fn the_agent_of_its_filter_is_told_whose_process_it_is() {
    let mut sandbox = Sandbox::new("exec sleep 1000");
    let listener = UnixListener::bind(sandbox.path("agent")).unwrap();
    let told = || -> Value {
        let mut text = vec![0; 4096];
        let length = listener.accept().unwrap().0.read(&mut text).unwrap();
        serde_json::from_slice(&text[..length]).unwrap()
    };
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": sandbox.text("agent"),
        "syscalls": [{"names": ["swapoff"], "action": "SCMP_ACT_NOTIFY"}],
    });
    sandbox.set("/linux/seccomp", filter);
    sandbox.set("/annotations", json!({"org.example.agent": "yes"}));
    sandbox.on("run", &["--detach", "--bundle", &sandbox.bundle()]).ok();
    let first = told();
    sandbox.exec(&[], &["true"]).ok();
    let further = told();
    for (told, status) in [(first, "created"), (further, "running")] {
        let state = &told["state"];
        assert_eq!(state["id"], sandbox.id, "{told}");
        assert_eq!(state["bundle"], sandbox.bundle(), "{told}");
        assert_eq!(state["ociVersion"], sandbox.config["ociVersion"], "{told}");
        assert_eq!(state["annotations"]["org.example.agent"], "yes", "{told}");
        assert_eq!(state["status"], status, "{told}");
    }
}

#[test]
fn errors_end_with_255() {
    let sandbox = Sandbox::running("exec sleep 1000");
    for (flags, command, expected) in [
        (&[][..], &["nope"][..], "exec: \"nope\": executable file not found in $PATH"),
        (&[], &[], "COMMAND"),
        (&["--user", "root"], &["true"], "--user: \"root\" is not UID or UID:GID"),
        (&["--cap", "CAP_NOPE"], &["true"], "--cap: \"CAP_NOPE\" is not a capability"),
        (&["--cwd", "/nope"], &["true"], "working directory \"/nope\""),
        (&["--cwd", "bin"], &["true"], "--cwd: \"bin\" is not an absolute path"),
        (&["--process", "/nope"], &[], "/nope: No such file"),
        (&["--process", "/nope"], &["true"], "COMMAND: the file of --process says that"),
        (&["--process", "/nope", "--cwd", "/"], &[], "--cwd: the file of --process says that"),
        (&["--cgroup", "nope"], &["true"], "--cgroup: \"nope\""),
    ] {
        let said = sandbox.exec(flags, command);
        assert_eq!(said.code, 255, "{said:?}");
        assert!(said.stderr.contains(expected), "{expected}: {said:?}");
    }
}

#[test]
fn a_process_can_be_put_into_a_group_below_the_containers() {
    let sandbox = Sandbox::running("exec sleep 1000");
    for group in sandbox.groups() {
        std::fs::create_dir(group.join("below")).unwrap();
        if group.starts_with("/sys/fs/cgroup/cpuset") {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                std::fs::copy(group.join(file), group.join("below").join(file)).unwrap();
            }
        }
    }
    let groups = sandbox.exec(&["--cgroup", "below"], &["cat", "/proc/self/cgroup"]).ok();
    assert!(groups.lines().all(|line| line.ends_with(":/below")), "{groups}");
}
