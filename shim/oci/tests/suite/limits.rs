//! Limits, and what a container uses.

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

/// A control file of the container's, on v1 or v2.
fn file(sandbox: &Sandbox, v1: &str, v2: &str) -> String {
    let groups = sandbox.groups();
    let found = groups.iter().flat_map(|group| [group.join(v1), group.join(v2)]);
    let path = found.into_iter().find(|path| path.exists()).unwrap();
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
fn limits_are_changed_by_flags_and_by_file() {
    let sandbox = Sandbox::running("exec sleep 1000");
    sandbox.on("update", &["--memory", "64m", "--pids-limit", "33", "--cpu-share", "512"]).ok();
    let memory = || file(&sandbox, "memory.limit_in_bytes", "memory.max");
    let pids = || file(&sandbox, "pids.max", "pids.max");
    assert_eq!((memory(), pids()), ("67108864".to_owned(), "33".to_owned()));
    let limits = sandbox.text("limits.json");
    std::fs::write(&limits, json!({"pids": {"limit": 44}}).to_string()).unwrap();
    sandbox.on("update", &["--resources", &limits]).ok();
    assert_eq!((memory(), pids()), ("67108864".to_owned(), "44".to_owned()), "the rest stays");
    let error = sandbox.on("update", &["--memory", "1000"]).err();
    assert!(error.contains("linux.resources.memory.limit: 1000: the minimum is "), "{error}");
    let error = sandbox.on("update", &["--memory", "lots"]).err();
    assert!(error.contains("--memory: \"lots\""), "{error}");
    std::fs::write(&limits, json!({"pids": {"limit": -7}}).to_string()).unwrap();
    let error = sandbox.on("update", &["-r", &limits]).err();
    assert!(error.contains("limits.json: linux.resources.pids.limit"), "{error}");
    for (limits_of, expected) in [
        (json!([]), "limits.json: an object is expected"),
        (json!({"pids": {"limit": "x"}}), "limits.json: linux.resources.pids.limit: invalid type"),
        (json!({"devices": [{"access": "r"}]}), "linux.resources.devices[0].allow: missing"),
    ] {
        std::fs::write(&limits, limits_of.to_string()).unwrap();
        let error = sandbox.on("update", &["-r", &limits]).err();
        assert!(error.contains(expected), "{error}");
    }
    std::fs::write(&limits, json!({"memory": {"kernel": 1 << 20}}).to_string()).unwrap();
    let mut command = sandbox.command(&["update", "-r", &limits, &sandbox.id]);
    command.stdin(std::process::Stdio::null());
    let said = sandbox.finish(command);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("warning: linux.resources.memory.kernel"), "{said:?}");
    let error = sandbox.on("update", &["--l3-cache-schema", "x"]).err();
    assert!(error.contains("--l3-cache-schema"), "{error}");
}

#[test]
fn what_it_uses_is_told_in_runcs_shape() {
    let mut sandbox = Sandbox::new("exec sleep 1000");
    sandbox.set("/linux/resources/pids", json!({"limit": 55}));
    sandbox.on("run", &["--detach", "--bundle", &sandbox.bundle()]).ok();
    let event: Value = serde_json::from_str(&sandbox.on("events", &["--stats"]).ok()).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(sandbox.id)));
    let data = &event["data"];
    assert_eq!(data["pids"], json!({"current": 1, "limit": 55}));
    assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{data}");
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{data}");
    assert!(data["memory"]["raw"].as_object().unwrap().len() > 10, "{data}");
}

#[test]
fn events_end_with_the_container() {
    let sandbox = Sandbox::running("exec sleep 1000");
    let output = std::fs::File::create(sandbox.path("events")).unwrap();
    let mut child = sandbox
        .command(&["events", "--interval", "10ms", &sandbox.id])
        .stdout(output)
        .spawn()
        .unwrap();
    let read = || std::fs::read_to_string(sandbox.path("events")).unwrap();
    crate::sandbox::until("three events", || read().lines().count() >= 3);
    sandbox.oci(&["kill", &sandbox.id, "KILL"]).ok();
    assert!(child.wait().unwrap().success());
}
