//! The bounded part of the fault matrix: each row once or a few times. `make matrix` runs the rest.

use std::path::Path;

use integration::matrix;

fn row(name: &str) {
    let row = matrix::row(name).unwrap();
    // Two at a time beside the other tests.
    let outcome = row.run_bounded("", 2);
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
fn starved_shim() {
    row("starved-shim");
}

#[test]
fn corruption() {
    row("corruption");
}

#[test]
fn calls() {
    row("calls");
}

#[test]
fn damaged_archives() {
    row("archives");
}

#[test]
fn changed_inputs() {
    row("inputs");
}

#[test]
fn logs() {
    row("logs");
}

#[test]
fn upgrade() {
    row("upgrade");
}

#[test]
fn http2() {
    row("http2");
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

/// The list of troubles in the documentation names tests and rows that there are.
#[test]
fn every_trouble_has_its_test() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(top.join("docs/RELIABILITY.md")).unwrap();
    let named: Vec<(&str, &str)> =
        text.split('`').skip(1).step_by(2).filter_map(|word| word.split_once("::")).collect();
    assert!(named.len() > 50, "{named:?}");
    for (place, name) in named {
        if place == "matrix" {
            let is_tested = matrix::tested::TESTED.iter().any(|row| row.name == name);
            assert!(matrix::row(name).is_some() || is_tested, "there is no row {name}");
            continue;
        }
        let file = match place.ends_with(".rs") {
            true => top.join(place),
            false => top.join(format!("integration/tests/suite/{place}.rs")),
        };
        let source = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(source.contains(&format!("fn {name}(")), "{place} has no test {name}");
    }
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
