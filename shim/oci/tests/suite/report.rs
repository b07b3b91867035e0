//! Where errors are told.

use serde_json::Value;

use crate::sandbox::Sandbox;

#[test]
fn errors_are_lines_of_the_log_as_well() {
    let sandbox = Sandbox::new("true");
    let log = sandbox.text("log");
    let error = sandbox.oci(&["--log", &log, "--log-format", "json", "start", "nobody"]).err();
    assert_eq!(error, "bosun-oci: container does not exist: nobody\n");
    let line: Value = serde_json::from_str(&std::fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], "container does not exist: nobody");
    assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    sandbox.oci(&["--log", &log, "start", "nobody"]).err();
    let text = std::fs::read_to_string(&log).unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("time=\""), "{last}");
    assert!(last.ends_with("level=error msg=\"container does not exist: nobody\""), "{last}");
}

#[test]
fn what_is_done_is_told_when_asked_for() {
    let sandbox = Sandbox::new("true");
    let log = sandbox.text("log");
    let global = ["--log", &log, "--log-format", "json", "--debug"];
    let bundle = sandbox.bundle();
    sandbox.oci(&[&global[..], &["create", "--bundle", &bundle, &sandbox.id]].concat()).ok();
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("\"level\":\"debug\"") && text.contains(&sandbox.id), "{text}");
}

#[test]
fn versions_and_features() {
    let sandbox = Sandbox::new("true");
    let version = sandbox.oci(&["--version"]).ok();
    assert!(version.starts_with("bosun-oci ") && version.contains("\nspec: 1."), "{version}");
    let features: Value = serde_json::from_str(&sandbox.oci(&["features"]).ok()).unwrap();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    let error = sandbox.oci(&["spec", "--bundle", &sandbox.bundle()]).err();
    assert!(error.contains("config.json: exists already"), "{error}");
}

#[test]
fn a_log_that_can_not_be_written_is_an_error() {
    let sandbox = Sandbox::new("true");
    let error = sandbox.oci(&["--log", "/no/such/log", "list"]).err();
    assert!(error.contains("open the log /no/such/log: No such file"), "{error}");
    // As runc had it before 1.2.
    sandbox.oci(&["--criu", "/no/such/criu", "list"]).ok();
}
