//! Daemon and shim are killed at every failpoint of their sources, in the course of a whole life of
//! a container. Whatever the point: afterwards there is one truth, everything works, and nothing is
//! left. The fault matrix grows from here.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use integration::daemon::{Daemon, Settings};
use integration::wait;

const RUN: &str = "--name one -p 5000:5000 --rootfs / /bin/sh -c 'trap \"exit 5\" TERM; echo ready; while :; do sleep 0.05; done'";

/// The names in `fail_point!("…")` of the sources below a directory of the project.
fn names(directory: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(directory)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(path).unwrap();
            found.extend(text.split("fail_point!(").skip(1).filter_map(|rest| {
                Some(rest.trim_start().strip_prefix('"')?.split_once('"')?.0.to_owned())
            }));
        }
    }
    found
}

pub(crate) fn of_operation(directory: &str, operation: &str) -> Vec<String> {
    let side = if directory == "shim" { "shim" } else { "daemon" };
    let start = format!("{side}.{operation}.");
    let found: Vec<_> =
        names(directory).into_iter().filter(|name| name.starts_with(&start)).collect();
    assert!(!found.is_empty(), "no failpoint {start}* in {directory}/");
    found
}

/// A container's whole life, as far as it gets.
fn live(daemon: &Daemon) {
    let _ = daemon.ctl(&format!("create {RUN}"));
    let _ = daemon.ctl("start one");
    let _ = daemon.ctl("exec one /bin/true");
    let _ = daemon.ctl("stop -t 1 one");
    let _ = daemon.ctl("rm -f one");
}

/// One truth, and a container of the same name and port can be made and ends as it should.
fn expect_sound(daemon: &Daemon, point: &str) {
    let listed = daemon.ctl("ps -a --format '{{.Names}} {{.State}}'").text();
    assert!(
        ["", "one created", "one running", "one exited"].contains(&listed.as_str()),
        "{point}: {listed}"
    );
    if !listed.is_empty() {
        if listed == "one running" {
            assert_eq!(daemon.ctl("exec one /bin/echo yes").text(), "yes", "{point}");
        }
        daemon.ctl("rm -f one").ok();
    }
    daemon.expect_nothing_left();
    daemon.ctl(&format!("run -d {RUN}")).ok();
    daemon.until_logged("one", "ready");
    daemon.ctl("stop one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), "5", "{point}");
    daemon.ctl("rm one").ok();
}

/// How long after the last call a daemon may take to get to a point that nobody waits for.
const REACHED: Duration = Duration::from_secs(5);

fn kill_the_daemon_at_each(operation: &str) {
    let mut unreached = Vec::new();
    for point in of_operation("daemon", operation) {
        let mut daemon = Settings::new().failpoint(&format!("{point}=panic")).start();
        live(&daemon);
        if daemon.ended_by_itself(REACHED).is_none() {
            unreached.push(point);
            daemon.kill();
            daemon.clear_environment();
            daemon.start_again();
            continue;
        }
        daemon.clear_environment();
        daemon.start_again();
        expect_sound(&daemon, &point);
    }
    assert!(unreached.is_empty(), "a whole life of a container does not pass {unreached:?}");
}

fn kill_the_shim_at_each(operation: &str) {
    for point in of_operation("shim", operation) {
        let mut daemon = Settings::new().failpoint(&format!("{point}=panic")).start();
        live(&daemon);
        wait::until(&format!("the container to be at rest after {point}"), || {
            let state = daemon.ctl("ps -a --format '{{.State}}'").text();
            (state != "running").then_some(())
        });
        daemon.kill();
        daemon.clear_environment();
        daemon.start_again();
        expect_sound(&daemon, &point);
    }
}

#[test]
fn daemon_create() {
    kill_the_daemon_at_each("create");
}

#[test]
fn daemon_start() {
    kill_the_daemon_at_each("start");
}

#[test]
fn daemon_exec() {
    kill_the_daemon_at_each("exec");
}

#[test]
fn daemon_stop() {
    kill_the_daemon_at_each("stop");
}

#[test]
fn daemon_delete() {
    kill_the_daemon_at_each("delete");
}

/// The commits of a life, one after the other: the daemon dies around each of them.
#[test]
fn daemon_store() {
    for point in of_operation("daemon", "store") {
        for commit in 0..20 {
            let armed = format!("{point}={commit}*off->panic");
            let mut daemon = Settings::new().failpoint(&armed).prepare();
            daemon.launch();
            daemon.serving_or_ended();
            live(&daemon);
            if daemon.ended_by_itself(Duration::from_millis(200)).is_none() {
                assert!(commit > 3, "{point} is passed only {commit} times");
                daemon.kill();
                daemon.clear_environment();
                break;
            }
            daemon.clear_environment();
            daemon.start_again();
            expect_sound(&daemon, &armed);
        }
    }
}

/// A daemon that dies while it finds out what the one before left.
#[test]
fn daemon_recover() {
    for point in of_operation("daemon", "recover") {
        let mut daemon = Settings::new().failpoint("no.such.point=off").start();
        daemon.ctl(&format!("run -d {RUN}")).ok();
        daemon.until_logged("one", "ready");
        let before = daemon.process("one");
        daemon.kill();
        daemon.set_failpoint(&format!("{point}=panic"));
        daemon.launch();
        assert!(daemon.ended_by_itself(wait::LIMIT).is_some(), "{point} is not passed");
        daemon.clear_environment();
        daemon.start_again();
        assert_eq!(daemon.process("one"), before, "{point}");
        expect_sound(&daemon, &point);
    }
}

/// A blob that comes and goes while the daemon dies: it is whole or it is sent again, and nothing of it
/// stays.
#[test]
fn daemon_content() {
    const DIGEST: &str = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    let put = format!("content put --ref blob --digest {DIGEST}");
    for point in of_operation("daemon", "content") {
        let mut daemon = Settings::new().failpoint(&format!("{point}=panic")).start();
        let _ = daemon.client().feed(&put, "hello\n");
        let _ = daemon.ctl(&format!("content rm {DIGEST}"));
        assert!(daemon.ended_by_itself(wait::LIMIT).is_some(), "{point} is not passed");
        daemon.clear_environment();
        daemon.start_again();
        for digest in daemon.ctl("content ls -q").text().lines() {
            assert_eq!(daemon.ctl(&format!("content get {digest}")).stdout, "hello\n", "{point}");
        }
        assert_eq!(daemon.client().feed(&put, "hello\n").text(), DIGEST, "{point}");
        assert_eq!(daemon.ctl(&format!("content get {DIGEST}")).stdout, "hello\n", "{point}");
        daemon.ctl(&format!("content rm {DIGEST}")).ok();
        for directory in ["blobs/sha256", "ingest"] {
            let path = daemon.place().root.join("content").join(directory);
            assert_eq!(std::fs::read_dir(path).unwrap().count(), 0, "{point}: {directory}");
        }
    }
}

#[test]
fn shim_create() {
    kill_the_shim_at_each("create");
}

#[test]
fn shim_start() {
    kill_the_shim_at_each("start");
}

#[test]
fn shim_exec() {
    kill_the_shim_at_each("exec");
}

#[test]
fn shim_exit() {
    kill_the_shim_at_each("exit");
}

#[test]
fn ordinary_programs_have_none() {
    for name in ["bosund", "bosun-shim"] {
        let binary = std::fs::read(integration::daemon::program(name)).unwrap();
        let point = b".after_";
        let found = binary.windows(point.len()).any(|window| window == point);
        assert!(!found, "{name} holds names of failpoints");
    }
}
