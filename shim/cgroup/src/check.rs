//! What can be known to be impossible before anything is made.

use std::borrow::Cow;
use std::path::Path;

use rustix::io::Errno;
use shim_wire::plan::Resources;

use crate::settings::throttles;
use crate::{Controller, Error, Layout, Reason, devices, read};

/// Memory is counted in whole pages, and none is as little as this.
const PAGE: i64 = 4096;
/// The kernel's bounds of a period (microseconds).
const PERIOD_MINIMUM: u64 = 1_000;
const PERIOD_MAXIMUM: u64 = 1_000_000;
const QUOTA_MINIMUM: i64 = 1_000;

/// # Errors
/// As [`check`], and for swap that is limited without memory: a new group has no limit beside it.
pub(crate) fn check_new(layout: &Layout, resources: &Resources) -> Result<(), Error> {
    check(layout, resources)?;
    match resources.memory_swap {
        Some(both) if both >= 0 && resources.memory.is_none() => {
            Err(refused("memory.swap", both, Reason::WithoutMemory))
        }
        Some(_) | None => Ok(()),
    }
}

/// # Errors
/// Names the first limit that this machine can't grant, and why.
pub(crate) fn check(layout: &Layout, resources: &Resources) -> Result<(), Error> {
    check_controllers(layout, resources)?;
    check_memory(resources)?;
    check_cpu(resources)?;
    for (limit, list, online) in [
        ("cpu.cpus", &resources.cpuset_cpus, "/sys/devices/system/cpu/online"),
        ("cpu.mems", &resources.cpuset_mems, "/sys/devices/system/node/online"),
    ] {
        if !list.is_empty() {
            // A kernel without memory nodes has the one node 0.
            let online = read(Path::new(online)).unwrap_or_else(|_| "0".to_owned());
            check_list(limit, list, online.trim())?;
        }
    }
    if resources.pids == Some(0) {
        return Err(refused("pids.limit", 0, Reason::TooSmall { minimum: 1 }));
    }
    resources.devices.iter().try_for_each(devices::check)
}

/// The limits that are asked for, and whose they are. Lifting one asks for nothing.
pub(crate) fn asked(resources: &Resources) -> Vec<(&'static str, Controller)> {
    use Controller::{Cpu, Cpuset, Hugetlb, Io, Memory, NetCls, NetPrio, Pids, Rdma};
    let limited = |value: Option<i64>| value.is_some_and(|value| value >= 0);
    let positive = |value: Option<i64>| value.is_some_and(|value| value > 0);
    let default = shim_wire::plan::BlockIo::default();
    let io = resources.block_io.as_ref().unwrap_or(&default);
    let own_weights = io.weight_devices.iter().any(|device| device.weight.is_some());
    let leaf_weights = io.weight_devices.iter().any(|device| device.leaf_weight.is_some());
    let mut asked = vec![
        ("memory.limit", limited(resources.memory), Memory),
        ("memory.swap", limited(resources.memory_swap), Memory),
        ("memory.reservation", limited(resources.memory_reservation), Memory),
        ("memory.swappiness", resources.memory_swappiness.is_some(), Memory),
        ("memory.disableOOMKiller", resources.oom_kill_disable == Some(true), Memory),
        ("cpu.shares", resources.cpu_shares.is_some(), Cpu),
        ("cpu.quota", limited(resources.cpu_quota), Cpu),
        ("cpu.period", resources.cpu_period.is_some(), Cpu),
        ("cpu.burst", resources.cpu_burst.is_some_and(|burst| burst > 0), Cpu),
        ("cpu.idle", positive(resources.cpu_idle), Cpu),
        ("cpu.realtimeRuntime", positive(resources.cpu_rt_runtime), Cpu),
        ("cpu.realtimePeriod", resources.cpu_rt_period.is_some(), Cpu),
        ("cpu.cpus", !resources.cpuset_cpus.is_empty(), Cpuset),
        ("cpu.mems", !resources.cpuset_mems.is_empty(), Cpuset),
        ("pids.limit", limited(resources.pids), Pids),
        ("blockIO.weight", io.weight.is_some(), Io),
        ("blockIO.leafWeight", io.leaf_weight.is_some(), Io),
        ("blockIO.weightDevice[*].weight", own_weights, Io),
        ("blockIO.weightDevice[*].leafWeight", leaf_weights, Io),
        // None of what is not there comes by itself: kubelets say so of every size.
        ("hugepageLimits", resources.hugepages.iter().any(|limit| limit.limit > 0), Hugetlb),
        ("rdma", !resources.rdma.is_empty(), Rdma),
        ("network.classID", resources.network_class.is_some(), NetCls),
        ("network.priorities", !resources.network_priorities.is_empty(), NetPrio),
    ];
    for (limit, _, devices) in throttles(io) {
        asked.push((limit, devices.iter().any(|device| device.rate > 0), Io));
    }
    asked.retain(|(_, wanted, _)| *wanted);
    asked.into_iter().map(|(limit, _, controller)| (limit, controller)).collect()
}

/// What only v1 knows.
const NOT_ON_V2: [&str; 6] = [
    "memory.swappiness",
    "memory.disableOOMKiller",
    "cpu.realtimeRuntime",
    "cpu.realtimePeriod",
    "blockIO.leafWeight",
    "blockIO.weightDevice[*].leafWeight",
];

fn check_controllers(layout: &Layout, resources: &Resources) -> Result<(), Error> {
    let asked = asked(resources);
    if asked.is_empty() && resources.unified.is_empty() && resources.devices.is_empty() {
        return Ok(());
    }
    // v2 has no controller for devices, but programs.
    let devices = ("devices", Controller::Devices);
    if !resources.devices.is_empty()
        && !layout.is_v2()
        && layout.controller(Controller::Devices).is_none()
    {
        let (limit, controller) = devices;
        return Err(Error::MissingController { limit, controller });
    }
    let unified = layout.unified_controllers()?;
    let on_unified = |name: &str| unified.split_whitespace().any(|other| other == name);
    for (limit, controller) in asked {
        if layout.controller(controller).is_some() {
            continue;
        }
        if !on_unified(controller.unified_name()) {
            return Err(Error::MissingController { limit, controller });
        }
        if NOT_ON_V2.contains(&limit) {
            let value = String::new();
            return Err(refused(limit, value, Reason::OnlyOnV1));
        }
    }
    for file in resources.unified.keys() {
        let controller = file.split('.').next().unwrap_or_default();
        let plain = !file.contains('/') && file.contains('.') && !file.starts_with('.');
        // Who would be asked, were it not checked here: a file of the group's own.
        let has_it = on_unified(controller) || controller == "cgroup" && layout.is_v2();
        if !plain || !has_it {
            let controller = controller.to_owned();
            let limit = format!("unified[{file:?}]");
            return Err(refused(limit, "", Reason::NeedsUnified { controller }));
        }
    }
    check_swap_accounting(layout, resources)
}

fn check_memory(resources: &Resources) -> Result<(), Error> {
    let memory = resources.memory.filter(|memory| *memory >= 0);
    // How much a program needs is known when it has ended for want of it.
    if let Some(memory) = memory
        && memory < PAGE
    {
        let minimum = PAGE.unsigned_abs();
        return Err(refused("memory.limit", memory, Reason::TooSmall { minimum }));
    }
    let Some(both) = resources.memory_swap.filter(|both| *both >= 0) else { return Ok(()) };
    match memory {
        Some(memory) if both < memory => Err(refused("memory.swap", both, Reason::BelowMemory)),
        None if resources.memory.is_some() => {
            Err(refused("memory.swap", both, Reason::WithoutMemory))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_swap_accounting(layout: &Layout, resources: &Resources) -> Result<(), Error> {
    let Some(both) = resources.memory_swap.filter(|both| *both >= 0) else { return Ok(()) };
    // The root group of v1 has the file exactly when swap is accounted.
    if let Some(hierarchy) = layout.controller(Controller::Memory)
        && !hierarchy.mount().join("memory.memsw.limit_in_bytes").exists()
    {
        return Err(refused("memory.swap", both, Reason::SwapNotAccounted));
    }
    Ok(())
}

fn check_cpu(resources: &Resources) -> Result<(), Error> {
    if let Some(shares) = resources.cpu_shares
        && shares < 2
    {
        return Err(refused("cpu.shares", shares, Reason::TooSmall { minimum: 2 }));
    }
    if let Some(period) = resources.cpu_period
        && !(PERIOD_MINIMUM..=PERIOD_MAXIMUM).contains(&period)
    {
        let reason = match period < PERIOD_MINIMUM {
            true => Reason::TooSmall { minimum: PERIOD_MINIMUM },
            false => Reason::Kernel(Errno::INVAL),
        };
        return Err(refused("cpu.period", period, reason));
    }
    match resources.cpu_quota {
        Some(quota) if (0..QUOTA_MINIMUM).contains(&quota) => {
            let minimum = QUOTA_MINIMUM as u64;
            Err(refused("cpu.quota", quota, Reason::TooSmall { minimum }))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether `list` names only what `online` names.
fn check_list(limit: &'static str, list: &str, online: &str) -> Result<(), Error> {
    let asked = parse_list(list).ok_or_else(|| refused(limit, list, Reason::Malformed))?;
    let there = parse_list(online).unwrap_or_default();
    let covered = |(first, last): &(u32, u32)| {
        // Ranges of the kernel are sorted and do not touch, so one of them must hold it all.
        there.iter().any(|(low, high)| low <= first && last <= high)
    };
    if asked.iter().all(covered) {
        return Ok(());
    }
    Err(refused(limit, list, Reason::NotOnline { online: online.to_owned() }))
}

/// The ranges of a list like `0-2,7`, never expanded: `0-4294967295` costs nothing
/// (CVE-2018-20699's class).
fn parse_list(list: &str) -> Option<Vec<(u32, u32)>> {
    let number = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
    };
    list.split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some((first, last))
        })
        .collect()
}

fn refused(limit: impl Into<Cow<'static, str>>, value: impl ToString, reason: Reason) -> Error {
    Error::LimitRefused { limit: limit.into(), value: value.to_string(), reason }
}

#[cfg(test)]
mod tests {
    use shim_wire::plan::HugepageLimit;

    use super::*;

    #[test]
    fn lists_are_checked_against_what_is_online_without_being_expanded() {
        for (list, online, fits) in [
            ("0", "0-1", true),
            ("0-1", "0-1", true),
            ("1,0", "0-1", true),
            ("2", "0-1", false),
            ("0-2", "0-1", false),
            ("0-4294967295", "0-1", false),
            ("1-2", "0-1,2-3", false),
            ("0,2", "0-1,2-3", true),
        ] {
            assert_eq!(check_list("cpu.cpus", list, online).is_ok(), fits, "{list} of {online}");
        }
        for list in ["", "a", "1-", "-1", "2-1", "0,,1", "+1", "0-99999999999", "0 1"] {
            assert_eq!(parse_list(list), None, "{list:?}");
        }
    }

    #[test]
    fn a_limit_without_its_controller_names_both() {
        let only_pids = Layout::parse("36 31 0:1 / /c/pids rw - cgroup cgroup rw,pids\n");
        let none = Resources::default();
        let block_io = shim_wire::plan::BlockIo { weight: Some(10), ..Default::default() };
        for (resources, limit, controller) in [
            (Resources { memory: Some(64 << 20), ..none.clone() }, "memory.limit", "memory"),
            (Resources { network_class: Some(1), ..none.clone() }, "network.classID", "net_cls"),
            (Resources { block_io: Some(block_io), ..none.clone() }, "blockIO.weight", "blkio"),
        ] {
            let error = check(&only_pids, &resources).unwrap_err();
            assert!(error.is_limit());
            assert_eq!(
                error.to_string(),
                format!(
                    "linux.resources.{limit}: this machine has no cgroup controller \"{controller}\""
                )
            );
        }
        let pages = |limit| Resources {
            hugepages: vec![HugepageLimit { page_size: "2MB".to_owned(), limit }],
            ..none.clone()
        };
        assert!(check(&only_pids, &pages(1)).unwrap_err().to_string().contains("hugetlb"));
        assert!(check(&only_pids, &pages(0)).is_ok(), "there are none");
        let lifted = Resources { memory: Some(-1), cpu_burst: Some(0), ..none };
        assert!(check(&only_pids, &lifted).is_ok(), "nothing is asked for");
    }

    #[test]
    fn what_only_one_version_knows_is_refused_by_the_other() {
        let root = tempfile::tempdir().unwrap();
        let mount = root.path().display();
        std::fs::write(root.path().join("cgroup.controllers"), "cpu io memory pids\n").unwrap();
        let v2 = Layout::parse(&format!("1 1 0:1 / {mount} rw - cgroup2 none rw\n"));
        let said = |resources: Resources| check(&v2, &resources).unwrap_err().to_string();
        let none = Resources::default();
        assert_eq!(
            said(Resources { memory_swappiness: Some(1), ..none.clone() }),
            "linux.resources.memory.swappiness: cgroup v2 has no such limit"
        );
        assert_eq!(
            said(Resources { cpu_rt_runtime: Some(1), ..none.clone() }),
            "linux.resources.cpu.realtimeRuntime: cgroup v2 has no such limit"
        );
        assert_eq!(
            said(Resources { network_class: Some(1), ..none.clone() }),
            "linux.resources.network.classID: this machine has no cgroup controller \"net_cls\""
        );
        let unified = |file: &str| Resources {
            unified: [(file.to_owned(), "1".to_owned())].into(),
            ..none.clone()
        };
        assert!(check(&v2, &unified("memory.high")).is_ok());
        assert_eq!(
            said(unified("rdma.max")),
            "linux.resources.unified[\"rdma.max\"]: it needs cgroup v2 with its controller \"rdma\""
        );
        let v1 = Layout::parse("1 1 0:1 / /c/m rw - cgroup cgroup rw,memory\n");
        assert!(check(&v1, &unified("memory.high")).is_err());
    }

    #[test]
    fn impossible_limits_are_refused_with_their_name() {
        let layout = Layout::parse(
            "1 1 0:1 / /c/m rw - cgroup cgroup rw,memory\n\
             1 1 0:2 / /c/c rw - cgroup cgroup rw,cpu\n\
             1 1 0:3 / /c/s rw - cgroup cgroup rw,cpuset\n\
             1 1 0:4 / /c/p rw - cgroup cgroup rw,pids\n",
        );
        let none = Resources::default();
        let table: [(Resources, &str); 9] = [
            (
                Resources { memory: Some(1000), ..none.clone() },
                "linux.resources.memory.limit: 1000",
            ),
            (
                Resources { memory: Some(1 << 30), memory_swap: Some(1 << 31), ..none.clone() },
                "linux.resources.memory.swap: 2147483648: the kernel does not account swap",
            ),
            (
                Resources { memory: Some(-1), memory_swap: Some(1 << 30), ..none.clone() },
                "linux.resources.memory.swap: 1073741824: ",
            ),
            (Resources { cpu_shares: Some(1), ..none.clone() }, "linux.resources.cpu.shares: 1"),
            (Resources { cpu_quota: Some(10), ..none.clone() }, "linux.resources.cpu.quota: 10"),
            (Resources { cpu_period: Some(10), ..none.clone() }, "linux.resources.cpu.period: 10"),
            (
                Resources { cpuset_cpus: "4000".to_owned(), ..none.clone() },
                "linux.resources.cpu.cpus: 4000: this machine has",
            ),
            (Resources { pids: Some(0), ..none.clone() }, "linux.resources.pids.limit: 0"),
            (
                Resources { cpuset_mems: "x".to_owned(), ..none.clone() },
                "linux.resources.cpu.mems: x: not a list",
            ),
        ];
        for (resources, expected) in table {
            let text = check(&layout, &resources).unwrap_err().to_string();
            assert!(text.starts_with(expected), "{text}");
        }
        assert!(check(&layout, &none).is_ok());
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("memory.memsw.limit_in_bytes"), "").unwrap();
        let mount = root.path().display();
        let layout = Layout::parse(&format!("1 1 0:1 / {mount} rw - cgroup cgroup rw,memory\n"));
        let alone = Resources { memory_swap: Some(1 << 30), ..none };
        assert!(check(&layout, &alone).is_ok(), "of a group that has a memory limit");
        let text = check_new(&layout, &alone).unwrap_err().to_string();
        assert!(
            text.starts_with("linux.resources.memory.swap: 1073741824: it is memory and"),
            "{text}"
        );
    }
}
