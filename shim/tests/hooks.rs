//! Hooks that run beside a shim's loop. Those of a create are tested where they are run.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::fs;

use shim_wire::exit::ExitStatus;
use shim_wire::hooks::{Hook, HookKind, State};
use shim_wire::shim::{Phase, ReleaseRequest};
use shim_wire::task::{DeleteResponse, Empty};
use support::{SHIM, TASK, TestShim, eventually, may_run};

fn start(name: &str, hooks: &[(HookKind, &str)]) -> TestShim {
    let mut shim = TestShim::start(name);
    let directory = shim.directory().display().to_string();
    let hook = |(kind, script): &(HookKind, &str)| Hook {
        kind: (*kind).into(),
        path: "/bin/sh".to_owned(),
        args: ["sh".to_owned(), "-c".to_owned(), format!("cd {directory}; {script}")].into(),
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        timeout: 5,
    };
    shim.hooks.hooks = hooks.iter().map(hook).collect();
    shim.hooks.state = Some(State { id: name.to_owned(), ..State::default() });
    shim
}

fn said(shim: &TestShim, file: &str) -> String {
    fs::read_to_string(shim.directory().join(file)).unwrap_or_default()
}

#[test]
fn a_start_is_answered_after_poststart_and_output_flows_meanwhile() {
    if !may_run() {
        return;
    }
    // More than a pipe holds.
    let script =
        "until grep -q end container/poststart-json.log; do sleep 0.05; done; echo ran > poststart";
    let mut shim = start("poststart", &[(HookKind::Poststart, script)]);
    let mut client = shim.connect();
    let script = "seq 1 30000; echo end; exec sleep 1000";
    let pid = shim.create(&mut client, &shim.shell(script)).unwrap();
    assert_eq!(client.start("").unwrap(), pid);
    assert_eq!(said(&shim, "poststart"), "ran\n");
    client.kill("", 9).unwrap();
    assert_eq!(client.wait("").unwrap(), 137);
    shim.release(&mut client);
}

#[test]
fn a_poststart_that_fails_ends_the_container() {
    if !may_run() {
        return;
    }
    let mut shim = start("poststart-fails", &[(HookKind::Poststart, "echo no; exit 9")]);
    let mut client = shim.connect();
    shim.create(&mut client, &shim.shell("exec sleep 1000")).unwrap();
    let failure = client.start("").unwrap_err();
    assert_eq!(failure.message, "hooks.poststart[0] \"/bin/sh\": exit code 9: no");
    assert_eq!(client.wait("").unwrap(), 137);
    assert_eq!(shim.record().status, ExitStatus::Signal(9));
    shim.release(&mut client);
}

#[test]
fn an_end_is_told_before_poststop_and_a_delete_after_it() {
    if !may_run() {
        return;
    }
    let script = "sleep 1; cat >> poststop; echo >> poststop";
    let mut shim = start("poststop", &[(HookKind::Poststop, script)]);
    let mut client = shim.connect();
    shim.run_shell(&mut client, "exit 3");
    assert_eq!(client.wait("").unwrap(), 3);
    assert_eq!(client.status().phase(), Phase::Recorded);
    assert_eq!(said(&shim, "poststop"), "", "nothing waits for a hook");
    let deleted: DeleteResponse = client.call(TASK, "Delete", &client.process("")).unwrap();
    assert_eq!(deleted.exit_status, 3);
    let state = concat!(
        r#"{"ociVersion":"","id":"poststop","status":"stopped","bundle":"","annotations":{}}"#,
        "\n"
    );
    assert_eq!(said(&shim, "poststop"), state);
    let _: DeleteResponse = client.call(TASK, "Delete", &client.process("")).unwrap();
    shim.release(&mut client);
    assert_eq!(said(&shim, "poststop"), state, "it ran once");
}

#[test]
fn a_shim_that_is_released_goes_when_poststop_has_run() {
    if !may_run() {
        return;
    }
    let script = "until [ -e go ]; do sleep 0.05; done; echo ran >> poststop; exit 1";
    let mut shim = start("release", &[(HookKind::Poststop, script)]);
    let mut client = shim.connect();
    shim.run_shell(&mut client, "exit 0");
    client.wait("").unwrap();
    let request = ReleaseRequest { attempt: shim.options.attempt };
    client.call::<Empty>(SHIM, "Release", &request).unwrap();
    fs::write(shim.directory().join("go"), "").unwrap();
    assert_eq!(shim.wait_end(), Some(0));
    assert_eq!(said(&shim, "poststop"), "ran\n");
    let log = shim.shim_log();
    assert!(log.contains("hooks.poststop[0] \"/bin/sh\": exit code 1"), "{log}");
}

#[test]
fn a_start_that_fails_is_answered_after_poststop() {
    if !may_run() {
        return;
    }
    let hooks =
        [(HookKind::StartContainer, "exit 4"), (HookKind::Poststop, "echo ran >> poststop")];
    let mut shim = start("start-fails", &hooks);
    let mut client = shim.connect();
    shim.create(&mut client, &shim.shell("echo never")).unwrap();
    let failure = client.start("").unwrap_err();
    assert_eq!(failure.message, "hooks.startContainer[0] \"/bin/sh\": exit code 4");
    assert_eq!(said(&shim, "poststop"), "ran\n");
    eventually("nothing was said", || shim.logged("stdout").is_empty());
    shim.kill();
}
