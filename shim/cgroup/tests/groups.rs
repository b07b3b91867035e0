//! Real groups in this machine's hierarchies, below a prefix of their own. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shim_cgroup::{Cgroup, Layout, list, prune};
use shim_wire::plan::{DeviceRule, Resources};

/// A prefix that nobody else has, removed with everything below it at the end of a test.
struct Prefix {
    layout: Layout,
    name: String,
}

impl Prefix {
    fn new(test: &str) -> Self {
        let name = format!("bosun-test-cgroup-{test}-{}", std::process::id());
        Self { layout: Layout::detect().unwrap(), name }
    }

    fn group(&self, id: &str) -> Cgroup {
        Cgroup::new(&self.layout, &format!("{}/ns/{id}", self.name)).unwrap()
    }
}

impl Drop for Prefix {
    fn drop(&mut self) {
        for path in list(&self.layout, &self.name).unwrap() {
            let group = Cgroup::new(&self.layout, &path).unwrap();
            let _ = group.kill(soon());
            let _ = group.remove(soon());
        }
        prune(&self.layout, &self.name).unwrap();
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// A shell in the group that runs `script` once it is a member, and is killed with the test.
struct Member(Child);

impl Member {
    fn new(group: &Cgroup, script: &str) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        group.join(child.id().try_into().unwrap()).unwrap();
        drop(child.stdin.take());
        Self(child)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

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
fn limits_reach_the_kernel() {
    let prefix = Prefix::new("limits");
    let group = prefix.group("a");
    let resources = Resources {
        memory: Some(64 << 20),
        memory_swap: Some(128 << 20),
        memory_reservation: Some(32 << 20),
        cpu_shares: Some(512),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        cpuset_cpus: "0".to_owned(),
        cpuset_mems: "0".to_owned(),
        pids: Some(7),
        devices: vec![],
    };
    group.create(&resources).unwrap();
    let expected: &[(&str, &str)] = if prefix.layout.is_v2() {
        &[
            ("memory.max", "67108864"),
            ("memory.low", "33554432"),
            ("cpu.weight", "20"),
            ("cpu.max", "50000 100000"),
            ("cpuset.cpus", "0"),
            ("pids.max", "7"),
        ]
    } else {
        &[
            ("memory.limit_in_bytes", "67108864"),
            ("memory.memsw.limit_in_bytes", "134217728"),
            ("memory.soft_limit_in_bytes", "33554432"),
            ("cpu.shares", "512"),
            ("cpu.cfs_quota_us", "50000"),
            ("cpuset.cpus", "0"),
            ("pids.max", "7"),
        ]
    };
    for (file, value) in expected {
        let found = group
            .paths()
            .iter()
            .find_map(|path| std::fs::read_to_string(path.join(file)).ok())
            .unwrap_or_else(|| panic!("{file} is nowhere"));
        assert_eq!(found.trim(), *value, "{file}");
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
