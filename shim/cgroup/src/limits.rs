//! Resources to control files, on v1 and on v2, and what the machine can't grant.
//!
//! | resource | v1 | v2 |
//! |---|---|---|
//! | memory | `memory.limit_in_bytes` | `memory.max` |
//! | memory and swap | `memory.memsw.limit_in_bytes` | `memory.swap.max`, without the memory |
//! | reservation | `memory.soft_limit_in_bytes` | `memory.low` |
//! | CPU shares | `cpu.shares` | `cpu.weight`, converted |
//! | CPU quota, period | `cpu.cfs_quota_us`, `cpu.cfs_period_us` | `cpu.max` |
//! | CPUs, memory nodes | `cpuset.cpus`, `cpuset.mems` | the same |
//! | processes | `pids.max` | the same |
//! | devices | `devices.deny`, `devices.allow` | a program (`devices`) |

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use shim_wire::plan::{DeviceRule, Resources};

use crate::layout::Hierarchy;
use crate::{Controller, Error, Layout, Reason, devices, read, write};

/// docker's minimum: below it a process hardly gets to its exec.
const MEMORY_MINIMUM: i64 = 6 << 20;
/// The kernel's default period, and its bounds (microseconds).
const DEFAULT_PERIOD: u64 = 100_000;
const PERIOD_MINIMUM: u64 = 1_000;
const PERIOD_MAXIMUM: u64 = 1_000_000;
const QUOTA_MINIMUM: i64 = 1_000;

/// Refuses what can be known to be impossible before anything is made.
pub(crate) fn check(layout: &Layout, resources: &Resources) -> Result<(), Error> {
    check_controllers(layout, resources)?;
    check_memory(layout, resources)?;
    check_cpu(resources)?;
    for (limit, list, online) in [
        ("cpuset-cpus", &resources.cpuset_cpus, "/sys/devices/system/cpu/online"),
        ("cpuset-mems", &resources.cpuset_mems, "/sys/devices/system/node/online"),
    ] {
        if !list.is_empty() {
            // A kernel without memory nodes has the one node 0.
            let online = read(Path::new(online)).unwrap_or_else(|_| "0".to_owned());
            check_list(limit, list, online.trim())?;
        }
    }
    if let Some(pids) = resources.pids
        && pids == 0
    {
        return Err(refused("pids", pids, Reason::TooSmall { minimum: 1 }));
    }
    resources.devices.iter().try_for_each(devices::check)
}

fn check_controllers(layout: &Layout, resources: &Resources) -> Result<(), Error> {
    let wanted = [
        ("memory", resources.memory.is_some(), Controller::Memory),
        ("memory-swap", resources.memory_swap.is_some(), Controller::Memory),
        ("memory-reservation", resources.memory_reservation.is_some(), Controller::Memory),
        ("cpu-shares", resources.cpu_shares.is_some(), Controller::Cpu),
        ("cpu-quota", resources.cpu_quota.is_some(), Controller::Cpu),
        ("cpu-period", resources.cpu_period.is_some(), Controller::Cpu),
        ("cpuset-cpus", !resources.cpuset_cpus.is_empty(), Controller::Cpuset),
        ("cpuset-mems", !resources.cpuset_mems.is_empty(), Controller::Cpuset),
        ("pids", resources.pids.is_some(), Controller::Pids),
        // v2 has no controller for devices, but programs.
        ("devices", !resources.devices.is_empty() && !layout.is_v2(), Controller::Devices),
    ];
    if wanted.iter().all(|(_, asked, _)| !asked) {
        return Ok(());
    }
    let on_v2 = match layout.unified() {
        Some(unified) if layout.is_v2() => read(&unified.join("cgroup.controllers"))?,
        Some(_) | None => String::new(),
    };
    for (limit, asked, controller) in wanted {
        let there = layout.controller(controller).is_some()
            || on_v2.split_whitespace().any(|name| name == controller.name());
        if asked && !there {
            return Err(Error::MissingController { limit, controller });
        }
    }
    Ok(())
}

fn check_memory(layout: &Layout, resources: &Resources) -> Result<(), Error> {
    let memory = resources.memory.filter(|memory| *memory >= 0);
    if let Some(memory) = memory
        && memory < MEMORY_MINIMUM
    {
        let minimum = MEMORY_MINIMUM as u64;
        return Err(refused("memory", memory, Reason::TooSmall { minimum }));
    }
    let Some(both) = resources.memory_swap.filter(|both| *both >= 0) else { return Ok(()) };
    match memory {
        None => return Err(refused("memory-swap", both, Reason::WithoutMemory)),
        Some(memory) if both < memory => {
            return Err(refused("memory-swap", both, Reason::BelowMemory));
        }
        Some(_) => {}
    }
    // The root group of v1 has the file exactly when swap is accounted.
    if let Some(hierarchy) = layout.controller(Controller::Memory)
        && !hierarchy.mount().join("memory.memsw.limit_in_bytes").exists()
    {
        return Err(refused("memory-swap", both, Reason::SwapNotAccounted));
    }
    Ok(())
}

fn check_cpu(resources: &Resources) -> Result<(), Error> {
    if let Some(shares) = resources.cpu_shares
        && shares < 2
    {
        return Err(refused("cpu-shares", shares, Reason::TooSmall { minimum: 2 }));
    }
    if let Some(period) = resources.cpu_period
        && !(PERIOD_MINIMUM..=PERIOD_MAXIMUM).contains(&period)
    {
        let reason = match period < PERIOD_MINIMUM {
            true => Reason::TooSmall { minimum: PERIOD_MINIMUM },
            false => Reason::Kernel(Errno::INVAL),
        };
        return Err(refused("cpu-period", period, reason));
    }
    let Some(quota) = resources.cpu_quota.filter(|quota| *quota >= 0) else { return Ok(()) };
    if quota < QUOTA_MINIMUM {
        let minimum = QUOTA_MINIMUM as u64;
        return Err(refused("cpu-quota", quota, Reason::TooSmall { minimum }));
    }
    let online = read(Path::new("/sys/devices/system/cpu/online"))?;
    let online = count(&parse_list(online.trim()).unwrap_or_default());
    let period = resources.cpu_period.unwrap_or(DEFAULT_PERIOD);
    if quota as u64 > period.saturating_mul(u64::from(online)) {
        let cpus = format!("{:.2} CPUs", quota as f64 / period as f64);
        return Err(refused("cpus", cpus, Reason::MoreThanCpus { online }));
    }
    Ok(())
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

fn count(ranges: &[(u32, u32)]) -> u32 {
    ranges.iter().fold(0, |sum, (first, last)| sum.saturating_add(last - first + 1))
}

/// Sets what one v1 hierarchy is responsible for.
pub(crate) fn apply_v1(
    hierarchy: &Hierarchy,
    path: &str,
    group: &Path,
    resources: &Resources,
) -> Result<(), Error> {
    if hierarchy.has(Controller::Memory) {
        set_number(group, "memory.limit_in_bytes", "memory", resources.memory)?;
        let both = "memory.memsw.limit_in_bytes";
        // Unlimited is what a new group has anyway, and the file may be missing.
        set_number(group, both, "memory-swap", resources.memory_swap.filter(|both| *both >= 0))?;
        let soft = "memory.soft_limit_in_bytes";
        set_number(group, soft, "memory-reservation", resources.memory_reservation)?;
    }
    if hierarchy.has(Controller::Cpu) {
        set_number(group, "cpu.shares", "cpu-shares", resources.cpu_shares)?;
        set_number(group, "cpu.cfs_period_us", "cpu-period", resources.cpu_period)?;
        set_number(group, "cpu.cfs_quota_us", "cpu-quota", resources.cpu_quota)?;
    }
    if hierarchy.has(Controller::Cpuset) {
        inherit_cpuset(hierarchy.mount(), path)?;
        set_text(group, "cpuset.cpus", "cpuset-cpus", &resources.cpuset_cpus)?;
        set_text(group, "cpuset.mems", "cpuset-mems", &resources.cpuset_mems)?;
    }
    if hierarchy.has(Controller::Pids) {
        let pids = resources.pids.map(max_when_negative);
        set_text(group, "pids.max", "pids", &pids.unwrap_or_default())?;
    }
    if hierarchy.has(Controller::Devices) {
        for rule in &resources.devices {
            let file = if rule.allow { "devices.allow" } else { "devices.deny" };
            write(&group.join(file), &device_line(rule))?;
        }
    }
    Ok(())
}

/// Gives a new v1 cpuset group the CPUs and memory nodes of its parent: it is born with none, and
/// nothing can join it.
fn inherit_cpuset(mount: &Path, path: &str) -> Result<(), Error> {
    let group = mount.join(path);
    if !read(&group.join("cpuset.mems"))?.trim().is_empty() {
        return Ok(());
    }
    let mut level = mount.to_owned();
    for name in path.split('/') {
        let parent = level.clone();
        level.push(name);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if read(&level.join(file))?.trim().is_empty() {
                write(&level.join(file), read(&parent.join(file))?.trim())?;
            }
        }
        if level != group {
            // From now on the kernel does this at the birth of each group below.
            write(&level.join("cgroup.clone_children"), "1")?;
        }
    }
    Ok(())
}

/// Switches the controllers that limits and statistics need on for the group, from the root down
/// (cgroup.subtree_control of cgroups(7)).
pub(crate) fn enable_controllers(mount: &Path, path: &str) -> Result<(), Error> {
    const WANTED: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];
    let there = read(&mount.join("cgroup.controllers"))?;
    let wanted: Vec<&str> = there.split_whitespace().filter(|name| WANTED.contains(name)).collect();
    let has_all = |file: &Path| {
        let on = read(file)?;
        Ok(wanted.iter().all(|name| on.split_whitespace().any(|other| other == *name)))
    };
    if has_all(&mount.join(path).join("cgroup.controllers"))? {
        return Ok(());
    }
    let mut level = mount.to_owned();
    let line: Vec<String> = wanted.iter().map(|name| format!("+{name}")).collect();
    for name in path.split('/') {
        let file = level.join("cgroup.subtree_control");
        if !has_all(&file)? {
            write(&file, &line.join(" "))?;
        }
        level.push(name);
    }
    Ok(())
}

/// Sets the limits of a v2 group.
pub(crate) fn apply_v2(group: &Path, resources: &Resources) -> Result<(), Error> {
    let memory = resources.memory.map(max_when_negative).unwrap_or_default();
    set_text(group, "memory.max", "memory", &memory)?;
    if let Some(both) = resources.memory_swap {
        let swap = match resources.memory {
            Some(memory) if both >= 0 && memory >= 0 => both - memory,
            Some(_) | None => -1,
        };
        let result = set_text(group, "memory.swap.max", "memory-swap", &max_when_negative(swap));
        match result {
            // A kernel without swap has no such file, and nothing to limit.
            Err(Error::Io { errno: Errno::NOENT, .. }) => {}
            other => other?,
        }
    }
    set_number(group, "memory.low", "memory-reservation", resources.memory_reservation)?;
    set_number(group, "cpu.weight", "cpu-shares", resources.cpu_shares.map(weight))?;
    if resources.cpu_quota.is_some() || resources.cpu_period.is_some() {
        let quota = max_when_negative(resources.cpu_quota.unwrap_or(-1));
        let period = resources.cpu_period.unwrap_or(DEFAULT_PERIOD);
        set_text(group, "cpu.max", "cpu-quota", &format!("{quota} {period}"))?;
    }
    set_text(group, "cpuset.cpus", "cpuset-cpus", &resources.cpuset_cpus)?;
    set_text(group, "cpuset.mems", "cpuset-mems", &resources.cpuset_mems)?;
    let pids = resources.pids.map(max_when_negative).unwrap_or_default();
    set_text(group, "pids.max", "pids", &pids)?;
    devices::attach(group, &resources.devices)
}

/// Shares of v1 (2 to 262144) as a weight of v2 (1 to 10000), end to end in a straight line, as the
/// OCI runtimes convert it.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + (shares - 2) * 9_999 / 262_142
}

fn max_when_negative(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

fn device_line(rule: &DeviceRule) -> String {
    let number = |number: Option<i64>| number.map_or("*".to_owned(), |number| number.to_string());
    match rule.kind.as_str() {
        "a" => "a".to_owned(),
        kind => format!("{kind} {}:{} {}", number(rule.major), number(rule.minor), rule.access),
    }
}

fn set_number(
    group: &Path,
    file: &str,
    limit: &'static str,
    value: Option<impl ToString>,
) -> Result<(), Error> {
    set_text(group, file, limit, &value.map(|value| value.to_string()).unwrap_or_default())
}

/// Writes a limit, unless it is empty. What the kernel says against the value is an error about the
/// limit, not about a file.
fn set_text(group: &Path, file: &str, limit: &'static str, value: &str) -> Result<(), Error> {
    if value.is_empty() {
        return Ok(());
    }
    let path: PathBuf = group.join(file);
    const ABOUT_THE_VALUE: [Errno; 5] =
        [Errno::INVAL, Errno::RANGE, Errno::BUSY, Errno::NOSPC, Errno::ACCESS];
    write(&path, value).map_err(|error| match error.errno() {
        Some(errno) if ABOUT_THE_VALUE.contains(&errno) => {
            refused(limit, value, Reason::Kernel(errno))
        }
        Some(_) | None => error,
    })
}

fn refused(limit: &'static str, value: impl ToString, reason: Reason) -> Error {
    Error::LimitRefused { limit, value: value.to_string(), reason }
}

#[cfg(test)]
mod tests {
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
            assert_eq!(check_list("cpuset-cpus", list, online).is_ok(), fits, "{list} of {online}");
        }
        for list in ["", "a", "1-", "-1", "2-1", "0,,1", "+1", "0-99999999999", "0 1"] {
            assert_eq!(parse_list(list), None, "{list:?}");
        }
    }

    #[test]
    fn shares_become_weights_from_end_to_end() {
        for (shares, expected) in
            [(0, 1), (2, 1), (1024, 39), (262_144, 10_000), (u64::MAX, 10_000)]
        {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn a_limit_without_its_controller_names_both() {
        let only_pids = Layout::parse("36 31 0:1 / /c/pids rw - cgroup cgroup rw,pids\n");
        let resources = Resources { memory: Some(64 << 20), ..Resources::default() };
        let error = check(&only_pids, &resources).unwrap_err();
        assert!(error.is_limit());
        assert_eq!(
            error.to_string(),
            "limit memory: this machine has no cgroup controller \"memory\""
        );
    }

    #[test]
    fn impossible_limits_are_refused_with_their_name() {
        let layout = Layout::parse(
            "1 1 0:1 / /c/m rw - cgroup cgroup rw,memory\n\
             1 1 0:2 / /c/c rw - cgroup cgroup rw,cpu\n\
             1 1 0:3 / /c/s rw - cgroup cgroup rw,cpuset\n\
             1 1 0:4 / /c/p rw - cgroup cgroup rw,pids\n",
        );
        let table: [(Resources, &str); 9] = [
            (Resources { memory: Some(4096), ..Resources::default() }, "limit memory of 4096"),
            (
                Resources { memory_swap: Some(1 << 30), ..Resources::default() },
                "limit memory-swap of 1073741824: it needs a memory limit",
            ),
            (
                Resources {
                    memory: Some(1 << 30),
                    memory_swap: Some(1 << 29),
                    ..Resources::default()
                },
                "limit memory-swap of 536870912: it counts",
            ),
            (Resources { cpu_shares: Some(1), ..Resources::default() }, "limit cpu-shares of 1"),
            (Resources { cpu_quota: Some(i64::MAX), ..Resources::default() }, "limit cpus of"),
            (Resources { cpu_quota: Some(10), ..Resources::default() }, "limit cpu-quota of 10"),
            (Resources { cpu_period: Some(10), ..Resources::default() }, "limit cpu-period of 10"),
            (
                Resources { cpuset_cpus: "4000".to_owned(), ..Resources::default() },
                "limit cpuset-cpus of 4000: this machine has",
            ),
            (Resources { pids: Some(0), ..Resources::default() }, "limit pids of 0"),
        ];
        for (resources, expected) in table {
            let text = check(&layout, &resources).unwrap_err().to_string();
            assert!(text.starts_with(expected), "{text}");
        }
        assert!(check(&layout, &Resources::default()).is_ok());
    }

    #[test]
    fn device_rules_are_lines_of_the_v1_files() {
        let rule = |kind: &str, major, minor, access: &str| DeviceRule {
            allow: true,
            kind: kind.to_owned(),
            major,
            minor,
            access: access.to_owned(),
        };
        assert_eq!(device_line(&rule("a", None, None, "rwm")), "a");
        assert_eq!(device_line(&rule("c", Some(1), Some(3), "rwm")), "c 1:3 rwm");
        assert_eq!(device_line(&rule("b", Some(8), None, "r")), "b 8:* r");
    }
}
