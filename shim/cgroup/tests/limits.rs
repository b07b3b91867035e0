//! Limits of real groups in this machine's hierarchies: made, changed, refused. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use shim_cgroup::Cgroup;
use shim_wire::plan::{
    BlockIo, DeviceRule, HugepageLimit, Resources, ThrottleDevice, WeightDevice,
};

use support::{Member, Prefix, file};

const MIB: i64 = 1 << 20;

/// What the files of a group say, by their v1 and their v2 name.
fn assert_files(group: &Cgroup, expected: &[(&str, &str, &str, &str)]) {
    for (v1, on_v1, v2, on_v2) in expected {
        let (name, value) = match group.layout().is_v2() {
            true => (*v2, *on_v2),
            false => (*v1, *on_v1),
        };
        if !name.is_empty() {
            assert_eq!(file(group, name), value, "{name}");
        }
    }
}

#[test]
fn limits_reach_the_kernel() {
    let prefix = Prefix::new("limits");
    let group = prefix.group("a");
    let resources = Resources {
        memory: Some(64 * MIB),
        memory_swap: Some(128 * MIB),
        memory_reservation: Some(32 * MIB),
        cpu_shares: Some(512),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        cpu_burst: Some(1_000),
        cpuset_cpus: "0".to_owned(),
        cpuset_mems: "0".to_owned(),
        pids: Some(7),
        ..Resources::default()
    };
    group.create(&resources).unwrap();
    assert_files(
        &group,
        &[
            ("memory.limit_in_bytes", "67108864", "memory.max", "67108864"),
            ("memory.memsw.limit_in_bytes", "134217728", "", ""),
            ("memory.soft_limit_in_bytes", "33554432", "memory.low", "33554432"),
            ("cpu.shares", "512", "cpu.weight", "59"),
            ("cpu.cfs_quota_us", "50000", "cpu.max", "50000 100000"),
            ("cpu.cfs_burst_us", "1000", "cpu.max.burst", "1000"),
            ("cpuset.cpus", "0", "cpuset.cpus", "0"),
            ("pids.max", "7", "pids.max", "7"),
        ],
    );
}

#[test]
fn what_only_v1_knows_reaches_its_files_and_is_refused_elsewhere() {
    let prefix = Prefix::new("v1-only");
    let group = prefix.group("a");
    let resources = Resources {
        memory_swappiness: Some(7),
        oom_kill_disable: Some(true),
        ..Resources::default()
    };
    if prefix.layout.is_v2() {
        let said = group.create(&resources).unwrap_err().to_string();
        assert_eq!(said, "linux.resources.memory.swappiness: cgroup v2 has no such limit");
        assert!(!group.exists(), "nothing is made for a limit that can't be");
        return;
    }
    group.create(&resources).unwrap();
    assert_eq!(file(&group, "memory.swappiness"), "7");
    assert!(file(&group, "memory.oom_control").starts_with("oom_kill_disable 1\n"));
    let again = Resources { oom_kill_disable: Some(false), ..Resources::default() };
    group.update(&again).unwrap();
    assert!(file(&group, "memory.oom_control").starts_with("oom_kill_disable 0\n"));
}

/// The number of a whole disk of this machine.
fn disk() -> Option<(u32, u32)> {
    let disks = std::fs::read_dir("/sys/block").ok()?;
    let name = disks.flatten().map(|entry| entry.file_name().into_string().unwrap());
    let name = name.filter(|name| !name.starts_with("loop") && !name.starts_with("zram")).min()?;
    let text = std::fs::read_to_string(format!("/sys/block/{name}/dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn disks_are_throttled_and_let_go_again() {
    let Some((major, minor)) = disk() else { return };
    let prefix = Prefix::new("throttle");
    let group = prefix.group("a");
    let limits = |rate| Resources {
        block_io: Some(BlockIo {
            read_bps: vec![ThrottleDevice { major, minor, rate }],
            write_iops: vec![ThrottleDevice { major, minor, rate }],
            ..BlockIo::default()
        }),
        ..Resources::default()
    };
    group.create(&limits(1_000_000)).unwrap();
    let (on_v1, on_v2) = (
        format!("{major}:{minor} 1000000"),
        format!("{major}:{minor} rbps=1000000 wbps=max riops=max wiops=1000000"),
    );
    assert_files(
        &group,
        &[
            ("blkio.throttle.read_bps_device", &on_v1, "io.max", &on_v2),
            ("blkio.throttle.write_iops_device", &on_v1, "", ""),
        ],
    );
    group.update(&limits(0)).unwrap();
    assert_files(&group, &[("blkio.throttle.read_bps_device", "", "io.max", "")]);
}

#[test]
fn weights_of_disks_reach_the_scheduler_that_is_there() {
    let Some((major, minor)) = disk() else { return };
    let prefix = Prefix::new("weight");
    let group = prefix.group("a");
    let weight = |weight, devices| Resources {
        block_io: Some(BlockIo {
            weight: Some(weight),
            weight_devices: devices,
            ..BlockIo::default()
        }),
        ..Resources::default()
    };
    let created = group.create(&weight(200, vec![]));
    let has = |name: &str| group.paths().iter().any(|path| path.join(name).exists());
    let (name, value) = if has("blkio.bfq.weight") {
        ("blkio.bfq.weight", "200")
    } else if has("io.bfq.weight") {
        ("io.bfq.weight", "default 200")
    } else if has("io.weight") {
        ("io.weight", "default 1920")
    } else {
        let said = created.unwrap_err().to_string();
        assert!(said.contains("blockIO.weight: ") && said.contains("this kernel has no"), "{said}");
        return;
    };
    created.unwrap();
    assert_eq!(file(&group, name), value);
    let device = WeightDevice { major, minor, weight: Some(300), leaf_weight: None };
    // A disk whose scheduler is another takes no weight of its own; the other limit stays.
    if let Err(error) = group.update(&weight(400, vec![device])) {
        assert!(
            error.to_string().starts_with("linux.resources.blockIO.weightDevice[0].weight: "),
            "{error}"
        );
        assert_eq!(file(&group, name), value);
    }
}

#[test]
fn huge_pages_are_limited_and_sizes_that_are_not_there_refused() {
    let prefix = Prefix::new("hugepages");
    let limits = |limits: &[(&str, i64)]| Resources {
        hugepages: limits
            .iter()
            .map(|(size, limit)| HugepageLimit { page_size: (*size).to_owned(), limit: *limit })
            .collect(),
        ..Resources::default()
    };
    let limit = |page_size: &str| limits(&[(page_size, 4 << 20)]);
    // None of them is what there is anyway.
    let none = limits(&[("2MB", 0), ("3MB", 0)]);
    let without = prefix.group("c");
    without.create(&none).unwrap();
    without.update(&none).unwrap();
    let group = prefix.group("a");
    match group.create(&limit("2MB")) {
        Err(error) => {
            assert!(
                error
                    .to_string()
                    .starts_with("linux.resources.hugepageLimits: this machine has no")
            );
            return;
        }
        Ok(()) => {
            assert_files(&group, &[("hugetlb.2MB.max", "4194304", "hugetlb.2MB.max", "4194304")]);
            assert_files(&without, &[("hugetlb.2MB.max", "0", "hugetlb.2MB.max", "0")]);
        }
    }
    let said = prefix.group("b").create(&limit("3MB")).unwrap_err().to_string();
    assert!(
        said.starts_with(
            "linux.resources.hugepageLimits[0]: 4194304: this kernel has no hugetlb.3MB"
        ),
        "{said}"
    );
}

#[test]
fn files_of_the_unified_hierarchy_are_written_as_they_are_named() {
    let prefix = Prefix::new("unified");
    let group = prefix.group("a");
    let unified = |file: &str, value: &str| Resources {
        unified: [(file.to_owned(), value.to_owned())].into(),
        ..Resources::default()
    };
    let refused = group.create(&unified("nosuch.max", "1")).unwrap_err().to_string();
    assert_eq!(
        refused,
        "linux.resources.unified[\"nosuch.max\"]: it needs cgroup v2 with its controller \"nosuch\""
    );
    assert!(!group.exists());
    if prefix.layout.is_v2() {
        group.create(&unified("memory.high", "12582912")).unwrap();
        assert_eq!(file(&group, "memory.high"), "12582912");
    } else if group.create(&unified("hugetlb.2MB.max", "2097152")).is_ok() {
        assert_eq!(file(&group, "hugetlb.2MB.max"), "2097152", "a controller that v1 left free");
    }
}

#[test]
fn memory_and_swap_go_up_and_down_together() {
    let prefix = Prefix::new("memory");
    let group = prefix.group("a");
    let limits = |memory, both| Resources {
        memory: Some(memory * MIB),
        memory_swap: Some(both * MIB),
        ..Resources::default()
    };
    group.create(&limits(64, 128)).unwrap();
    for (memory, both) in [(256, 512), (16, 32), (32, 32), (100, 200)] {
        group.update(&limits(memory, both)).unwrap();
        let memory = (memory * MIB).to_string();
        let swap = (both * MIB).to_string();
        assert_files(
            &group,
            &[
                ("memory.limit_in_bytes", &memory, "memory.max", &memory),
                ("memory.memsw.limit_in_bytes", &swap, "", ""),
            ],
        );
    }
    group.update(&Resources { memory: Some(-1), ..Resources::default() }).unwrap();
    let unlimited = "9223372036854771712";
    assert_files(
        &group,
        &[
            ("memory.limit_in_bytes", unlimited, "memory.max", "max"),
            ("memory.memsw.limit_in_bytes", unlimited, "memory.swap.max", "max"),
        ],
    );
}

#[test]
fn a_limit_outlives_the_updates_that_do_not_name_it() {
    let prefix = Prefix::new("outlives");
    let group = prefix.group("a");
    let none = Resources::default();
    group.create(&none).unwrap();
    let both = (164 * MIB).to_string();
    let check = |memory: i64, swap: i64, pids: &str| {
        let (memory, swap) = ((memory * MIB).to_string(), (swap * MIB).to_string());
        assert_files(
            &group,
            &[
                ("memory.limit_in_bytes", &memory, "memory.max", &memory),
                ("memory.memsw.limit_in_bytes", &both, "memory.swap.max", &swap),
                ("pids.max", pids, "pids.max", pids),
            ],
        );
    };
    let first = Resources {
        memory: Some(64 * MIB),
        memory_swap: Some(164 * MIB),
        pids: Some(10),
        ..none.clone()
    };
    group.update(&first).unwrap();
    check(64, 100, "10");
    group.update(&Resources { memory: Some(54 * MIB), ..none.clone() }).unwrap();
    check(54, 110, "10");
    group.update(&Resources { pids: Some(11), ..none.clone() }).unwrap();
    check(54, 110, "11");
    group.update(&Resources { memory: Some(100 * MIB), ..none.clone() }).unwrap();
    check(100, 64, "11");
    group.update(&Resources { memory_swap: Some(164 * MIB), ..none }).unwrap();
    check(100, 64, "11");
}

#[test]
fn memory_beyond_the_limit_of_memory_and_swap_is_refused_with_the_way_out() {
    let prefix = Prefix::new("beyond");
    let group = prefix.group("a");
    let limits =
        Resources { memory: Some(32 * MIB), memory_swap: Some(64 * MIB), ..Resources::default() };
    group.create(&limits).unwrap();
    let more = Resources { memory: Some(128 * MIB), ..Resources::default() };
    let said = group.update(&more).unwrap_err().to_string();
    assert_eq!(
        said,
        "linux.resources.memory.limit: 134217728: it is more than the limit of memory and swap together, \
         67108864: raise that as well"
    );
}

#[test]
fn quota_period_and_burst_change_in_any_direction() {
    let prefix = Prefix::new("quota");
    let group = prefix.group("a");
    let limits = |quota, period, burst| Resources {
        cpu_quota: Some(quota),
        cpu_period: Some(period),
        cpu_burst: Some(burst),
        ..Resources::default()
    };
    group.create(&limits(50_000, 100_000, 50_000)).unwrap();
    for (quota, period, burst) in
        [(10_000, 20_000, 10_000), (90_000, 90_000, 90_000), (-1, 100_000, 0), (5_000, 50_000, 1)]
    {
        group.update(&limits(quota, period, burst)).unwrap();
        let as_v2 = match quota {
            -1 => format!("max {period}"),
            quota => format!("{quota} {period}"),
        };
        assert_files(
            &group,
            &[
                ("cpu.cfs_quota_us", &quota.to_string(), "cpu.max", &as_v2),
                ("cpu.cfs_period_us", &period.to_string(), "", ""),
                ("cpu.cfs_burst_us", &burst.to_string(), "cpu.max.burst", &burst.to_string()),
            ],
        );
    }
}

#[test]
fn a_group_becomes_idle_and_has_shares_again() {
    let prefix = Prefix::new("idle");
    let group = prefix.group("a");
    group.create(&Resources::default()).unwrap();
    let limits =
        |idle| Resources { cpu_idle: Some(idle), cpu_shares: Some(2048), ..Resources::default() };
    group.update(&limits(1)).unwrap();
    assert_eq!(file(&group, "cpu.idle"), "1");
    group.update(&limits(0)).unwrap();
    assert_files(&group, &[("cpu.shares", "2048", "cpu.weight", "174")]);
    assert_eq!(file(&group, "cpu.idle"), "0");
}

#[test]
fn an_update_that_is_refused_changes_nothing() {
    let prefix = Prefix::new("atomic");
    let group = prefix.group("a");
    let limits = |memory: i64, pids, cpus: &str| Resources {
        memory: Some(memory * MIB),
        pids: Some(pids),
        cpuset_cpus: cpus.to_owned(),
        ..Resources::default()
    };
    group.create(&limits(64, 100, "0-1")).unwrap();
    // What the container made below has CPU 1 for itself, so that the group can't give it up.
    let below = Cgroup::new(&prefix.layout, &format!("{}/below", group.path())).unwrap();
    if prefix.layout.is_v2() {
        return;
    }
    below.create(&limits(64, 100, "1")).unwrap();
    let said = group.update(&limits(128, 200, "0")).unwrap_err().to_string();
    assert!(said.starts_with("linux.resources.cpu.cpus: 0: the kernel refused it"), "{said}");
    assert_files(
        &group,
        &[
            ("memory.limit_in_bytes", "67108864", "", ""),
            ("pids.max", "100", "", ""),
            ("cpuset.cpus", "0-1", "", ""),
        ],
    );
}

#[test]
fn less_memory_than_is_in_use_is_refused_where_that_is_asked_for() {
    let prefix = Prefix::new("in-use");
    let group = prefix.group("a");
    group.create(&Resources { memory: Some(200 * MIB), ..Resources::default() }).unwrap();
    // Its buffer of 50 MB stays in memory.
    let _hog = Member::new(&group, "exec dd if=/dev/zero of=/dev/null bs=50M");
    let usage = || {
        let v2 = group.layout().is_v2();
        let name = if v2 { "memory.current" } else { "memory.usage_in_bytes" };
        file(&group, name).parse::<i64>().unwrap()
    };
    while usage() < 50 * MIB {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let less = Resources { memory: Some(20 * MIB), memory_check: true, ..Resources::default() };
    let said = group.update(&less).unwrap_err().to_string();
    assert!(
        said.starts_with("linux.resources.memory.limit: 20971520: ")
            && said.ends_with("are in use"),
        "{said}"
    );
}

#[test]
fn device_rules_are_replaced() {
    let prefix = Prefix::new("replace");
    let group = prefix.group("a");
    let rules = |minor| {
        let rule = |allow, kind: &str, minor: Option<i64>| DeviceRule {
            allow,
            kind: kind.to_owned(),
            major: minor.map(|_| 1),
            minor,
            access: "rwm".to_owned(),
        };
        let devices = vec![rule(false, "a", None), rule(true, "c", Some(minor))];
        Resources { devices, ..Resources::default() }
    };
    const NULL: i64 = 3;
    const ZERO: i64 = 5;
    let may_read = |device: &str| {
        let script = format!("exec head -c1 {device}");
        Member::new(&group, &script).0.wait().unwrap().success()
    };
    group.create(&rules(NULL)).unwrap();
    assert_eq!((may_read("/dev/null"), may_read("/dev/zero")), (true, false));
    group.update(&rules(ZERO)).unwrap();
    assert_eq!((may_read("/dev/null"), may_read("/dev/zero")), (false, true));
}
