//! The bounded part of the fault matrix: each row once or a few times. `make matrix` runs the rest.

use integration::matrix;

fn row(name: &str) {
    let row = matrix::row(name).unwrap();
    // Two at a time beside the other tests.
    let outcome = row.run_bounded(2);
    assert!(outcome.lost.is_empty(), "{} lost:\n{}", outcome.lost.len(), outcome.lost.join("\n"));
    let may_miss = ["kill-shim", "kill-both", "client-gone", "sync", "disk-call"].contains(&name);
    assert!(
        may_miss || outcome.unreached.is_empty(),
        "a container's life does not pass {:?}",
        outcome.unreached
    );
}

#[test]
fn kill_daemon() {
    row("kill-daemon");
}

#[test]
fn kill_shim() {
    row("kill-shim");
}

#[test]
fn kill_both() {
    row("kill-both");
}

#[test]
fn error() {
    row("error");
}

#[test]
fn client_gone() {
    row("client-gone");
}

#[test]
fn churn() {
    row("churn");
}

#[test]
fn down() {
    row("down");
}

#[test]
fn lost_shim() {
    row("lost-shim");
}

#[test]
fn last_bytes() {
    row("last-bytes");
}

#[test]
fn rotation() {
    row("rotation");
}

#[test]
fn same_request() {
    row("same-request");
}

#[test]
fn slow_clients() {
    row("slow-clients");
}

#[test]
fn growth() {
    row("growth");
}

#[test]
fn ends() {
    row("ends");
}

#[test]
fn starved() {
    row("starved");
}

#[test]
fn full_disk() {
    row("full-disk");
}

#[test]
fn no_inodes() {
    row("no-inodes");
}

#[test]
fn read_only() {
    row("read-only");
}

#[test]
fn lost_disk() {
    row("lost-disk");
}

#[test]
fn power() {
    row("power");
}

#[test]
fn sync() {
    row("sync");
}

#[test]
fn disk_call() {
    row("disk-call");
}

/// A new operation of daemon or shim needs a life that passes its points.
#[test]
fn every_point_is_walked() {
    let unknown = matrix::unknown_points();
    assert!(unknown.is_empty(), "no life passes {unknown:?}");
}

#[test]
fn ordinary_programs_have_no_points() {
    for name in ["bosund", "bosun-shim"] {
        let binary = std::fs::read(integration::daemon::program(name)).unwrap();
        let point = b"<failpoint ";
        let found = binary.windows(point.len()).any(|window| window == point);
        assert!(!found, "{name} holds names of failpoints");
    }
}
