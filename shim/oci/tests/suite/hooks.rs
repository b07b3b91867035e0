//! Hooks, and what they are told.

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

#[test]
fn all_six_run_in_order_and_are_told_the_state() {
    let mut sandbox = Sandbox::new("touch /ran");
    sandbox.set("/root/readonly", json!(false));
    let log = sandbox.text("log");
    let kinds = ["prestart", "createRuntime", "poststart", "poststop"];
    let hook = |kind: &str| {
        let script = format!("(cat; echo ' {kind}') >>{log}");
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    let mut hooks: serde_json::Map<String, Value> =
        kinds.iter().map(|kind| ((*kind).to_owned(), hook(kind))).collect();
    let inside = json!([{"path": "/bin/sh", "args": ["sh", "-c", "cat >/told"]}]);
    hooks.insert("startContainer".to_owned(), inside);
    sandbox.set("/hooks", Value::Object(hooks));
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    sandbox.create().ok();
    let pid = sandbox.state()["pid"].clone();
    let lines: Vec<(Value, String)> = read().lines().map(split).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for ((state, kind), expected) in lines.iter().zip(kinds) {
        assert_eq!(kind, expected);
        assert_eq!(state["id"], json!(sandbox.id));
        assert_eq!(state["pid"], pid);
        assert_eq!(state["status"], "creating");
        assert_eq!(state["bundle"], json!(sandbox.bundle()));
    }
    sandbox.on("start", &[]).ok();
    sandbox.wait_for("stopped");
    let told = std::fs::read_to_string(sandbox.path("bundle/rootfs/told")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&told).unwrap()["status"], "created");
    sandbox.on("delete", &[]).ok();
    let all: Vec<(Value, String)> = read().lines().map(split).collect();
    let names: Vec<&str> = all.iter().map(|(_, kind)| kind.as_str()).collect();
    assert_eq!(names.last(), Some(&"poststop"), "{names:?}");
    assert_eq!(all.last().unwrap().0["status"], "stopped");
    assert!(sandbox.is_gone());
}

/// `STATE KIND`.
fn split(line: &str) -> (Value, String) {
    let (state, kind) = line.rsplit_once(' ').unwrap();
    (serde_json::from_str(state).unwrap(), kind.to_owned())
}

#[test]
fn one_that_fails_undoes_the_create() {
    let mut sandbox = Sandbox::new("true");
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo why >&2; exit 5"]}]);
    sandbox.set("/hooks", json!({"createRuntime": hook}));
    let error = sandbox.create().err();
    assert!(error.contains("hooks.createRuntime[0]") && error.contains("why"), "{error}");
    assert!(sandbox.is_gone());
}

#[test]
fn a_poststop_that_fails_is_a_warning() {
    let mut sandbox = Sandbox::new("true");
    let ran = sandbox.text("ran");
    let touch = json!({"path": "/bin/touch", "args": ["touch", ran]});
    sandbox.set("/hooks", json!({"poststop": [{"path": "/bin/false"}, touch]}));
    let said = sandbox.run();
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("warning: hooks.poststop[0]"), "{said:?}");
    assert!(sandbox.path("ran").exists(), "the others run all the same");
    assert!(sandbox.is_gone());
}

#[test]
fn a_poststart_that_fails_ends_the_container() {
    let mut sandbox = Sandbox::new("exec sleep 1000");
    sandbox.set("/hooks", json!({"poststart": [{"path": "/bin/false"}]}));
    sandbox.create().ok();
    let error = sandbox.on("start", &[]).err();
    assert!(error.contains("hooks.poststart[0]"), "{error}");
    sandbox.wait_for("stopped");
}

/// However quick it is.
#[test]
fn a_program_that_ends_at_once_has_its_poststart() {
    let mut sandbox = Sandbox::new("exit 0");
    sandbox.set("/process/args", json!(["true"]));
    let script = format!("cat >> {0}; echo >> {0}", sandbox.text("told"));
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    sandbox.set("/hooks", json!({"poststart": hook}));
    for round in 1..=12 {
        sandbox.create().ok();
        sandbox.on("start", &[]).ok();
        let told = std::fs::read_to_string(sandbox.path("told")).unwrap_or_default();
        assert_eq!(told.lines().count(), round, "{told}");
        let last: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
        assert_eq!(last["status"] == "running", last["pid"].is_number(), "{last}");
        sandbox.wait_for("stopped");
        sandbox.on("delete", &[]).ok();
    }
}
