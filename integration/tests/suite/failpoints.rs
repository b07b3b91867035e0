//! Points that a container's life alone does not bring out: those of the database, of a daemon's start, of
//! blobs, of pods. The rest is the fault matrix (`matrix.rs`), and that of images (`image_crash.rs`).

use std::collections::BTreeSet;
use std::time::Duration;

use integration::daemon::{Daemon, Settings};
use integration::matrix::life::{self, History, Told};
use integration::matrix::points::{self, Point};
use integration::wait;

const RUN: &str = "--name one -p 5000:5000 --rootfs / /bin/sh -c 'trap \"exit 5\" TERM; echo ready; while :; do sleep 0.05; done'";

pub(crate) fn of_operation(operation: &str) -> Vec<String> {
    points::of("daemon", &[operation]).into_iter().map(|point| point.name).collect()
}

/// A new operation of daemon or shim needs a life that passes its points.
#[test]
fn every_operation_is_tested() {
    let here = ["daemon.store", "daemon.recover", "daemon.content", "shim.sandbox"];
    let of_images = ["daemon.pull", "daemon.unpack", "daemon.gc"];
    let in_the_matrix: BTreeSet<String> = integration::matrix::OF_A_CONTAINER
        .iter()
        .flat_map(|(side, operations)| operations.iter().map(move |name| format!("{side}.{name}")))
        .collect();
    let untested: Vec<Point> = points::all()
        .into_iter()
        .filter(|point| {
            let operation = format!("{}.{}", point.side(), point.operation());
            !in_the_matrix.contains(&operation)
                && !here.contains(&operation.as_str())
                && !of_images.contains(&operation.as_str())
        })
        .collect();
    assert!(untested.is_empty(), "no life passes {untested:?}");
}

/// Whatever is there can be removed, and a container can be made as ever.
fn expect_as_new(daemon: &Daemon, point: &str) {
    daemon.ctl("rm -f one").ok();
    daemon.expect_nothing_left();
    daemon.ctl(&format!("run -d {RUN}")).ok();
    daemon.until_logged("one", "ready");
    daemon.ctl("stop one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), "5", "{point}");
    daemon.ctl("rm one").ok();
}

/// The commits of a life, one after the other: the daemon dies around each of them.
#[test]
fn daemon_store() {
    for point in of_operation("store") {
        for commit in 0..20 {
            let armed = format!("{point}={commit}*off->panic");
            let mut daemon = Settings::new().failpoint(&armed).prepare();
            daemon.launch();
            daemon.serving_or_ended();
            let history = life::live(daemon.client(), History::new(5), |_| Told::Nothing);
            if daemon.ended_by_itself(Duration::from_millis(200)).is_none() {
                assert!(commit > 3, "{point} is passed only {commit} times");
                daemon.kill();
                daemon.clear_environment();
                break;
            }
            daemon.clear_environment();
            daemon.start_again();
            life::expect_sound(&daemon, &history, &armed);
        }
    }
}

/// A daemon that dies while it finds out what the one before left.
#[test]
fn daemon_recover() {
    for point in of_operation("recover") {
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
        expect_as_new(&daemon, &point);
    }
}

/// A blob that comes and goes while the daemon dies: it is whole or it is sent again, and nothing of it
/// stays.
#[test]
fn daemon_content() {
    const DIGEST: &str = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    let put = format!("content put --ref blob --digest {DIGEST}");
    for point in of_operation("content") {
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

/// A pod whose shim dies, or whose daemon does while it is made.
#[test]
fn shim_sandbox() {
    for point in points::of("shim", &["sandbox"]) {
        let mut daemon = Settings::new().failpoint(&format!("{}=panic", point.name)).start();
        let output = daemon.ctl("pod create pod");
        assert_ne!(output.code, Some(0), "{}: {output:?}", point.name);
        daemon.kill();
        daemon.clear_environment();
        daemon.start_again();
        let _ = daemon.ctl("pod rm -f pod");
        daemon.expect_nothing_left();
        daemon.ctl("pod create pod").ok();
        daemon.ctl("run --rm --pod pod --rootfs / /bin/true").ok();
        daemon.ctl("pod rm -f pod").ok();
        daemon.expect_nothing_left();
    }
}

#[test]
fn ordinary_programs_have_none() {
    for name in ["bosund", "bosun-shim"] {
        let binary = std::fs::read(integration::daemon::program(name)).unwrap();
        let point = b"<failpoint ";
        let found = binary.windows(point.len()).any(|window| window == point);
        assert!(!found, "{name} holds names of failpoints");
    }
}
