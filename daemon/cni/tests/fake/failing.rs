//! Plugins that fail, hang, talk nonsense, or talk too much.

use std::fs;
use std::time::Duration;

use bosun_cni::{Error, Failure};
use serde_json::json;

use crate::world::{GOOD, World, assert_says, collect, container};

/// The failure by which an attach was undone.
fn cause(error: Error) -> (Failure, Option<Box<Error>>) {
    let Error::Add { cause, left } = error else { panic!("{error}") };
    let Error::Plugin { failure, .. } = *cause else { panic!("{cause}") };
    (failure, left)
}

/// Plugin `b` of a chain `a b c`, that does this at ADD.
fn world(at_add: &str) -> World {
    let world = World::with("1.0.0", &["a", "b", "c"]);
    world.plugin("b", &format!("if [ $CNI_COMMAND = ADD ]; then\n{at_add}\nfi\n"));
    world
}

const UNDONE: [&str; 4] = ["ADD a c1 eth0", "ADD b c1 eth0", "DEL b c1 eth0", "DEL a c1 eth0"];

#[tokio::test]
async fn what_fails_midway_is_undone() {
    let table = [
        (r#"echo '{"code":7,"msg":"no range","details":"d"}'; exit 1"#, "no range; d (code 7)"),
        (
            "echo 'panic: at the disco' >&2; exit 3",
            "exit status: 3, saying \"panic: at the disco\"",
        ),
        ("echo not json; exit 1", "saying \"not json\""),
        ("kill -9 $$", "signal: 9"),
        ("exit 1", "without a word"),
        (":", "its answer is not one"),
        ("echo '[1]'", "saying \"[1]\""),
        (r#"echo '{"cniVersion":"7.0.0"}'"#, "7.0.0"),
        (r#"echo '{"ips":[{"address":"10.0.0.300/24"}]}'"#, "10.0.0.300"),
        ("yes '{\"a\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}'", "more than 1048576 bytes"),
        (r#"printf '{"code":1,"msg":"a\\n\\u001b[31m"}'; exit 1"#, r"a\n\u{1b}[31m (code 1)"),
    ];
    for (at_add, word) in table {
        let world = world(at_add);
        let error = world.cni().attach(container("c1")).await.unwrap_err();
        assert_says(&error, &["network \"net\": plugin \"b\": ADD: ", word]);
        assert!(matches!(error, Error::Add { left: None, .. }), "{error}");
        assert_eq!(world.calls(), UNDONE, "{at_add}");
        // What there was until then.
        assert_eq!(world.read("b", "DEL")["prevResult"]["interfaces"][0]["name"], "a");
        world.assert_clean();
    }
}

#[tokio::test]
async fn one_that_hangs_is_killed_with_its_children() {
    let mut world = world("sleep 1000 & echo $! > \"$here/child\"; echo so far >&2; sleep 1000");
    world.settings.deadline = Duration::from_millis(1500);
    let error = world.cni().attach(container("c1")).await.unwrap_err();
    assert_says(&error, &["\"b\": ADD: was killed", "1.5s", "so far"]);
    assert!(matches!(cause(error), (Failure::Deadline { .. }, None)));
    assert_eq!(world.calls(), UNDONE);
    let child = fs::read_to_string(world.path("bin/child")).unwrap();
    let status = format!("/proc/{}/stat", child.trim());
    // It is gone, or dead and not buried by whoever inherited it.
    world
        .wait("the child's end", || {
            fs::read_to_string(&status).map_or(true, |stat| stat.contains(") Z "))
        })
        .await;
    world.assert_clean();
}

#[tokio::test]
async fn one_that_leaves_its_output_open_is_not_waited_for() {
    let world = World::with("1.0.0", &["a"]);
    // Without a group of its own it would be killed; with a redirection it would not hold the output.
    let daemon = "[ $CNI_COMMAND = ADD ] && { sleep 1000 & echo $! > \"$here/child\"; }";
    world.plugin("a", &format!("{GOOD}\n{daemon}\nexit 0"));
    let attached = world.cni().attach(container("c1")).await.unwrap();
    assert_eq!(attached[0].result.ips.len(), 1);
    let child = fs::read_to_string(world.path("bin/child")).unwrap();
    let pid = rustix::process::Pid::from_raw(child.trim().parse().unwrap()).unwrap();
    // It lives on, as a daemon does that a plugin starts.
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn large_configurations_and_long_complaints_block_nobody() {
    let world = World::new();
    let text = "x".repeat(500_000);
    world.network(&json!({ "cniVersion": "1.0.0", "name": "net" }), &["deaf"]);
    let file = world.path("net.d/net.conflist");
    let list = fs::read_to_string(&file).unwrap();
    fs::write(&file, list.replace("\"type\"", &format!("\"text\":\"{text}\",\"type\""))).unwrap();
    // It never reads, and fills the pipe of the other side first.
    world.program(
        "deaf",
        "#!/bin/sh\nhead -c 300000 /dev/zero | tr '\\0' y >&2\necho '{\"cniVersion\":\"1.0.0\"}'\n",
    );
    world.cni().attach(container("c1")).await.unwrap();
    world.program("deaf", "#!/bin/sh\nhead -c 300000 /dev/zero | tr '\\0' y >&2\nexit 2\n");
    let error = world.cni().detach(container("c1")).await.unwrap_err();
    let Error::Plugin { failure: Failure::Exit { said, .. }, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(said.len(), 4096);
}

#[tokio::test]
async fn a_delete_that_fails_halts_and_is_tried_again() {
    let world = World::with("1.0.0", &["a", "b"]);
    let cni = world.cni();
    cni.attach(container("c1")).await.unwrap();
    world.plugin("b", "echo '{\"code\":11,\"msg\":\"later\"}'; exit 1");
    world.calls();
    let error = cni.detach(container("c1")).await.unwrap_err();
    assert_says(&error, &["\"net\"", "\"b\"", "DEL", "later (code 11)"]);
    // The address that `a` gave is not given to another, for `b` may still lead to it.
    assert_eq!(world.calls(), ["DEL b c1 eth0"]);
    assert_eq!(world.cached(), ["net-c1-eth0"]);
    world.plugin("b", GOOD);
    cni.detach(container("c1")).await.unwrap();
    assert_eq!(world.calls(), ["DEL b c1 eth0", "DEL a c1 eth0"]);
    world.assert_clean();
}

#[tokio::test]
async fn undoing_that_fails_goes_on_and_is_tried_again_by_gc() {
    let world = World::with("1.0.0", &["a", "b"]);
    world.plugin("b", "echo \"$CNI_COMMAND is broken\" >&2; exit 1");
    let cni = world.cni();
    let error = cni.attach(container("c1")).await.unwrap_err();
    assert_says(&error, &["ADD is broken", "undoing it failed as well", "DEL is broken"]);
    assert!(matches!(cause(error), (Failure::Exit { .. }, Some(_))));
    assert_eq!(world.calls(), UNDONE);
    assert_eq!(world.cached(), ["net-c1-eth0"]);

    assert_eq!(collect(&cni, &[]).await.failed.len(), 1);
    assert_eq!(world.cached(), ["net-c1-eth0"]);
    world.plugin("b", GOOD);
    world.calls();
    let collected = collect(&cni, &[]).await;
    assert_eq!(collected.removed.len(), 1);
    assert!(collected.failed.is_empty(), "{:?}", collected.failed);
    assert_eq!(world.calls(), ["DEL b c1 eth0", "DEL a c1 eth0"]);
    world.assert_clean();
}

#[tokio::test]
async fn a_damaged_cache_is_named_and_the_delete_done() {
    let world = World::with("1.0.0", &["a"]);
    let cni = world.cni();
    for damage in ["", "{\"kind\":\"cniCacheV1\"", "{\"kind\":\"other\"}", "\0\0\0"] {
        cni.attach(container("c1")).await.unwrap();
        fs::write(world.path("cache/results/net-c1-eth0"), damage).unwrap();
        let error = cni.attached("c1").await.unwrap_err();
        assert_says(&error, &["cache/results/net-c1-eth0", "damaged"]);
        assert!(cni.check(container("c1")).await.is_err());
        world.calls();
        let passed_over = cni.detach(container("c1")).await.unwrap();
        assert!(matches!(passed_over[..], [Error::Damaged { .. }]), "{passed_over:?}");
        assert_eq!(world.calls(), ["DEL a c1 eth0"]);
        assert_eq!(world.read("a", "DEL").get("prevResult"), None);
        world.assert_clean();
    }
    // Nobody knows how to undo it.
    cni.attach(container("c1")).await.unwrap();
    fs::write(world.path("cache/results/net-c1-eth0"), "").unwrap();
    fs::remove_file(world.path("net.d/net.conflist")).unwrap();
    let error = cni.detach(container("c1")).await.unwrap_err();
    assert_says(&error, &["c1", "eth0", "\"net\"", "no configuration"]);
}

#[test]
fn what_a_daemon_that_died_had_begun_is_undone_by_the_next() {
    let world = World::with("1.0.0", &["a", "b"]);
    world.plugin("b", &format!("[ $CNI_COMMAND = ADD ] && sleep 1000\n{GOOD}"));
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let first = runtime();
    first.block_on(async {
        let cni = world.cni();
        tokio::select! {
            _ = cni.attach(container("c1")) => panic!("it can't have ended"),
            () = world.wait("the call", || world.path("bin/b.ADD.env").exists()) => {}
        }
    });
    first.shutdown_background();
    runtime().block_on(async {
        let cni = world.cni();
        world.wait("the plugin's call", || world.calls().is_empty()).await;
        assert_eq!(world.cached(), ["net-c1-eth0"]);
        assert!(cni.attached("c1").await.unwrap().is_empty());
        assert!(matches!(cni.attach(container("c1")).await, Err(Error::Attached { .. })));
        assert_eq!(collect(&cni, &[]).await.removed.len(), 1);
        assert_eq!(world.calls(), ["DEL b c1 eth0", "DEL a c1 eth0"]);
    });
    world.assert_clean();
}

#[tokio::test]
async fn a_cache_that_can_not_be_written_keeps_plugins_from_running() {
    let world = World::with("1.0.0", &["a"]);
    fs::create_dir_all(world.path("cache/results/.net-c1-eth0.new")).unwrap();
    let error = world.cni().attach(container("c1")).await.unwrap_err();
    assert_says(&error, &[".net-c1-eth0.new", "can't write", "Is a directory"]);
    assert_eq!(world.calls(), [""; 0]);
}
