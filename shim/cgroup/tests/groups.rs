//! Real groups in this machine's hierarchies, below a prefix of their own. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use shim_cgroup::{Cgroup, list, prune};
use shim_wire::plan::{DeviceRule, Resources};

use support::{Member, Prefix, soon};

/// Leaves two more behind it, one in a session of its own.
const FAMILY: &str = "sleep 100 & setsid sleep 100 & wait";

#[test]
fn is_made_in_every_hierarchy_and_leaves_nothing() {
    let prefix = Prefix::new("whole-life");
    let group = prefix.group("a");
    assert!(!group.exists());
    for _ in 0..2 {
        group.create(&Resources::default()).unwrap();
        assert!(group.paths().iter().all(|path| path.is_dir()), "{:?}", group.paths());
    }
    assert_eq!(list(&prefix.layout, &prefix.name).unwrap(), [group.path()]);
    prune(&prefix.layout, &prefix.name).unwrap();
    assert!(group.exists(), "pruning removes only what is empty");
    group.remove(soon()).unwrap();
    group.remove(soon()).unwrap();
    assert!(group.paths().iter().all(|path| !path.exists()));
    prune(&prefix.layout, &prefix.name).unwrap();
    for path in group.paths() {
        assert!(!path.parent().unwrap().parent().unwrap().exists(), "{}", path.display());
    }
}

#[test]
fn kills_everything_in_it_and_below_it() {
    let prefix = Prefix::new("kill");
    let group = prefix.group("a");
    group.create(&Resources::default()).unwrap();
    let mut child = Member::new(&group, FAMILY);
    let nested = Cgroup::new(&prefix.layout, &format!("{}/nested", group.path())).unwrap();
    if prefix.layout.is_v2() {
        // As a container divides its group there: without controllers, for it has processes.
        nested.paths().iter().for_each(|path| std::fs::create_dir(path).unwrap());
    } else {
        nested.create(&Resources::default()).unwrap();
    }
    let mut below = Member::new(&nested, FAMILY);
    while group.procs().unwrap().len() < 6 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(group.remove(Instant::now()).is_err(), "processes live in it");
    let killed = std::thread::scope(|scope| {
        let killing = scope.spawn(|| group.kill(soon()));
        child.0.wait().unwrap();
        below.0.wait().unwrap();
        killing.join().unwrap()
    });
    killed.unwrap();
    assert!(group.procs().unwrap().is_empty());
    group.remove(soon()).unwrap();
    assert!(!group.exists());
}

#[test]
fn what_is_in_one_hierarchy_alone_is_found() {
    let prefix = Prefix::new("alone");
    let group = prefix.group("a");
    group.create(&Resources::default()).unwrap();
    for directory in group.paths() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id().to_string();
        std::fs::write(directory.join("cgroup.procs"), &pid).unwrap();
        let found = group.procs_anywhere().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, [pid.parse().unwrap()], "{}", directory.display());
    }
}

#[test]
fn a_group_that_would_stand_still_is_refused() {
    let prefix = Prefix::new("frozen");
    let group = prefix.group("a");
    group.refuse_frozen().unwrap();
    let above = Cgroup::new(&prefix.layout, &format!("{}/ns", prefix.name)).unwrap();
    for (made, frozen) in [(&above, &above), (&group, &above), (&group, &group)] {
        made.create(&Resources::default()).unwrap();
        frozen.freeze(true).unwrap();
        let error = group.refuse_frozen().unwrap_err().to_string();
        frozen.freeze(false).unwrap();
        assert!(error.ends_with("is frozen: thaw it first"), "{error}");
        assert!(error.contains(&prefix.name), "{error}");
        group.refuse_frozen().unwrap();
    }
}

#[test]
fn a_killed_hog_is_counted() {
    let prefix = Prefix::new("oom");
    let group = prefix.group("a");
    let swap = std::fs::read_to_string("/proc/swaps").unwrap().lines().count() > 1;
    let resources = Resources {
        memory: Some(8 << 20),
        memory_swap: swap.then_some(8 << 20),
        ..Resources::default()
    };
    group.create(&resources).unwrap();
    assert_eq!(group.oom_kills().unwrap(), 0);
    let mut hog = Member::new(&group, "head -c 67108864 /dev/zero | tail");
    assert!(!hog.0.wait().unwrap().success());
    assert_eq!(group.oom_kills().unwrap(), 1);
}

#[test]
fn a_device_program_is_accepted_and_obeyed() {
    let prefix = Prefix::new("devices");
    let group = prefix.group("a");
    let rule = |allow, kind: &str, major, minor, access: &str| DeviceRule {
        allow,
        kind: kind.to_owned(),
        major,
        minor,
        access: access.to_owned(),
    };
    let rules = vec![
        rule(false, "a", None, None, "rwm"),
        rule(true, "c", Some(1), Some(3), "rwm"),
        rule(true, "c", Some(1), Some(9), "r"),
    ];
    group.create(&Resources { devices: rules, ..Resources::default() }).unwrap();
    let script = ": > /dev/null || exit 1; head -c1 /dev/urandom || exit 2
        (: > /dev/urandom) 2>/dev/null && exit 3; (: < /dev/zero) 2>/dev/null && exit 4; exit 0";
    let mut child = Member::new(&group, script);
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}

#[test]
fn many_are_made_side_by_side() {
    let prefix = Prefix::new("race");
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let prefix = &prefix;
            scope.spawn(move || {
                for round in 0..10 {
                    let group = prefix.group(&format!("{worker}-{round}"));
                    group.create(&Resources::default()).unwrap();
                    group.remove(soon()).unwrap();
                    prune(&prefix.layout, &prefix.name).unwrap();
                }
            });
        }
    });
}
