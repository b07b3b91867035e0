//! Limits: checked against the machine, then in the spec's terms.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxCpuBuilder, LinuxHugepageLimitBuilder, LinuxMemory,
    LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
    LinuxThrottleDevice, LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder,
};
use shim_wire::plan::Resources;

use super::machine::{HostDevice, cpu_list};
use super::{ContainerOptions, DeviceLimit, Error, Limits, Machine, generate, privileges};

/// Microseconds in which the quota counts, as docker has it.
const CPU_PERIOD: u64 = 100_000;

/// The kernel takes no quota below a millisecond: a hundredth of a CPU in that period.
const NANO_CPUS_MIN: i64 = 10_000_000;

const NANO: i64 = 1_000_000_000;

/// What the kernel takes as a weight (`sched/core.c`: MIN_SHARES, MAX_SHARES).
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// What a weight of block devices can be.
const BLKIO_WEIGHTS: std::ops::RangeInclusive<u64> = 10..=1000;

/// Limits as the kernel will be told them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Checked {
    memory: Option<i64>,
    memory_swap: Option<i64>,
    memory_reservation: Option<i64>,
    memory_swappiness: Option<u64>,
    oom_kill_disable: Option<bool>,
    cpu_quota: Option<i64>,
    cpu_period: Option<u64>,
    cpu_shares: Option<u64>,
    cpu_rt_period: Option<u64>,
    cpu_rt_runtime: Option<i64>,
    cpuset_cpus: Option<String>,
    cpuset_mems: Option<String>,
    pids: Option<i64>,
    blkio_weight: Option<u16>,
    weight_devices: Vec<Device>,
    read_bps: Vec<Device>,
    write_bps: Vec<Device>,
    read_iops: Vec<Device>,
    write_iops: Vec<Device>,
    hugepages: BTreeMap<String, i64>,
    unified: BTreeMap<String, String>,
}

/// A block device, by its number, and what it is limited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Device {
    major: u32,
    minor: u32,
    value: u64,
}

pub(super) fn check(limits: &Limits, machine: &Machine) -> Result<Checked, Error> {
    let memory = limits.memory.filter(|memory| *memory != 0);
    let reservation = limits.memory_reservation.filter(|reservation| *reservation != 0);
    // How little is too little is the kernel's to say.
    for (what, asked) in [("memory limit", memory), ("memory reservation", reservation)] {
        if let Some(asked) = asked.filter(|asked| *asked < 0) {
            return Err(Error::malformed(what, asked.to_string(), "a number of bytes"));
        }
    }
    if let (Some(memory), Some(reservation)) = (memory, reservation)
        && reservation > memory
    {
        return Err(Error::Contradiction {
            what: "memory reservation",
            why: "is more than the memory limit: lower it",
        });
    }
    if let Some(swappiness) = limits.memory_swappiness.filter(|swappiness| *swappiness > 100) {
        return Err(Error::malformed("swappiness", swappiness.to_string(), "between 0 and 100"));
    }
    let (cpu_quota, cpu_period) = cpu_time(limits, machine.online_cpus.len())?;
    let blkio_weight = limits.blkio_weight.filter(|weight| *weight != 0);
    for weight in blkio_weight
        .into_iter()
        .map(u64::from)
        .chain(limits.blkio_weight_devices.iter().map(|device| device.value))
    {
        if !BLKIO_WEIGHTS.contains(&weight) {
            let expected = "between 10 and 1000";
            return Err(Error::malformed("weight of block devices", weight.to_string(), expected));
        }
    }
    Ok(Checked {
        memory,
        memory_swap: swap(limits.memory_swap, memory, machine.counts_swap)?,
        memory_reservation: reservation,
        memory_swappiness: limits.memory_swappiness,
        oom_kill_disable: limits.oom_kill_disable,
        cpu_quota,
        cpu_period,
        cpu_shares: shares(limits.cpu_shares)?,
        cpu_rt_period: limits.cpu_rt_period.filter(|period| *period != 0),
        cpu_rt_runtime: limits.cpu_rt_runtime.filter(|runtime| *runtime != 0),
        cpuset_cpus: cpuset(&limits.cpuset_cpus, machine)?,
        cpuset_mems: Some(limits.cpuset_mems.clone()).filter(|mems| !mems.is_empty()),
        pids: pids(limits.pids)?,
        blkio_weight,
        weight_devices: devices(&limits.blkio_weight_devices)?,
        read_bps: devices(&limits.device_read_bps)?,
        write_bps: devices(&limits.device_write_bps)?,
        read_iops: devices(&limits.device_read_iops)?,
        write_iops: devices(&limits.device_write_iops)?,
        hugepages: limits
            .hugepages
            .iter()
            .map(|(size, limit)| (size.clone(), i64::try_from(*limit).unwrap_or(i64::MAX)))
            .collect(),
        unified: limits.unified.clone(),
    })
}

/// The numbers of block devices of the host.
fn devices(limits: &[DeviceLimit]) -> Result<Vec<Device>, Error> {
    let number = |limit: &DeviceLimit| {
        let path = &limit.path;
        let found =
            std::fs::metadata(path).map_err(|source| Error::Read { path: path.clone(), source })?;
        if !found.file_type().is_block_device() {
            let (what, value) = ("device", path.to_string_lossy());
            return Err(Error::malformed(what, value, "a block device of this machine"));
        }
        let device = found.rdev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        Ok(Device { major, minor, value: limit.value })
    };
    limits.iter().map(number).collect()
}

/// The quota and the period, whichever way they are asked for.
fn cpu_time(limits: &Limits, online: usize) -> Result<(Option<i64>, Option<u64>), Error> {
    let period = limits.cpu_period.filter(|period| *period != 0);
    let quota = limits.cpu_quota.filter(|quota| *quota != 0);
    if limits.nano_cpus.is_some_and(|cpus| cpus != 0) && (period.is_some() || quota.is_some()) {
        return Err(Error::Contradiction {
            what: "CPUs",
            why: "are asked for twice, as a number and as a quota: leave one of them away",
        });
    }
    if let Some(period) = period.filter(|period| !(1_000..=1_000_000).contains(period)) {
        let expected = "between 1000 and 1000000 microseconds";
        return Err(Error::malformed("CPU period", period.to_string(), expected));
    }
    if let Some(quota) = quota.filter(|quota| *quota < 1_000 && *quota != -1) {
        let expected = "at least 1000 microseconds, or -1";
        return Err(Error::malformed("CPU quota", quota.to_string(), expected));
    }
    Ok(match cpu_quota(limits.nano_cpus, online)? {
        Some(quota) => (Some(quota), Some(CPU_PERIOD)),
        None => (quota, period),
    })
}

fn swap(asked: Option<i64>, memory: Option<i64>, counted: bool) -> Result<Option<i64>, Error> {
    match (asked.filter(|swap| *swap != 0), memory) {
        (None, None) => Ok(None),
        (None, Some(memory)) => Ok(counted.then(|| memory.saturating_mul(2))),
        (Some(_), None) => Err(Error::Contradiction {
            what: "memory and swap together",
            why: "can be limited only with memory: set a memory limit (-m) as well",
        }),
        (Some(_), Some(_)) if !counted => Err(Error::NoSwapLimit),
        (Some(-1), Some(_)) => Ok(Some(-1)),
        (Some(swap), Some(_)) if swap < 0 => {
            Err(Error::malformed("memory and swap together", swap.to_string(), "a size or -1"))
        }
        (Some(swap), Some(memory)) if swap < memory => Err(Error::SwapBelowMemory { memory, swap }),
        (Some(swap), Some(_)) => Ok(Some(swap)),
    }
}

fn cpu_quota(nano_cpus: Option<i64>, online: usize) -> Result<Option<i64>, Error> {
    let Some(asked) = nano_cpus.filter(|asked| *asked != 0) else { return Ok(None) };
    let most = i64::try_from(online).unwrap_or(i64::MAX).saturating_mul(NANO);
    if !(NANO_CPUS_MIN..=most).contains(&asked) {
        return Err(Error::TooManyCpus { asked: cpus(asked), online });
    }
    // At most some thousand CPUs: the product is far below 2^63.
    Ok(Some(asked / 1000 * CPU_PERIOD.cast_signed() / (NANO / 1000)))
}

/// Billionths as a person writes them: 1.5.
fn cpus(nano: i64) -> String {
    let text = format!("{}.{:09}", nano / NANO, (nano % NANO).abs());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn shares(asked: Option<u64>) -> Result<Option<u64>, Error> {
    match asked.filter(|shares| *shares != 0) {
        Some(shares) if !SHARES.contains(&shares) => {
            Err(Error::malformed("CPU shares", shares.to_string(), "between 2 and 262144"))
        }
        shares => Ok(shares),
    }
}

fn cpuset(asked: &str, machine: &Machine) -> Result<Option<String>, Error> {
    if asked.is_empty() {
        return Ok(None);
    }
    let list =
        cpu_list(asked).ok_or_else(|| Error::malformed("CPUs", asked, "a list such as 0-3,7"))?;
    match list.difference(&machine.online_cpus).next() {
        Some(missing) => Err(Error::NoSuchCpu {
            asked: asked.to_owned(),
            missing: *missing,
            online: machine.online_cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
        }),
        None => Ok(Some(asked.to_owned())),
    }
}

fn pids(asked: Option<i64>) -> Result<Option<i64>, Error> {
    match asked {
        None | Some(0 | -1) => Ok(None),
        Some(limit) if limit < -1 => {
            Err(Error::malformed("limit of processes", limit.to_string(), "above 0, or -1"))
        }
        limit => Ok(limit),
    }
}

/// With the device rules, which are resources to the spec.
pub(super) fn resources(
    checked: &Checked,
    privileged: bool,
    asked: &[HostDevice],
) -> Result<LinuxResources, OciSpecError> {
    let mut resources =
        LinuxResourcesBuilder::default().devices(privileges::device_rules(privileged, asked)?);
    if !checked.hugepages.is_empty() {
        let limit = |(size, limit): (&String, &i64)| {
            LinuxHugepageLimitBuilder::default().page_size(size).limit(*limit).build()
        };
        let limits: Result<Vec<_>, _> = checked.hugepages.iter().map(limit).collect();
        resources = resources.hugepage_limits(limits?);
    }
    if !checked.unified.is_empty() {
        let unified: HashMap<String, String> = checked.unified.clone().into_iter().collect();
        resources = resources.unified(unified);
    }
    if let Some(memory) = memory(checked)? {
        resources = resources.memory(memory);
    }
    if let Some(cpu) = cpu(checked)? {
        resources = resources.cpu(cpu);
    }
    if let Some(block_io) = block_io(checked)? {
        resources = resources.block_io(block_io);
    }
    if let Some(limit) = checked.pids {
        resources = resources.pids(LinuxPidsBuilder::default().limit(limit).build()?);
    }
    resources.build()
}

fn memory(checked: &Checked) -> Result<Option<LinuxMemory>, OciSpecError> {
    let mut memory = LinuxMemoryBuilder::default();
    if let Some(limit) = checked.memory {
        memory = memory.limit(limit);
    }
    if let Some(swap) = checked.memory_swap {
        memory = memory.swap(swap);
    }
    if let Some(reservation) = checked.memory_reservation {
        memory = memory.reservation(reservation);
    }
    if let Some(swappiness) = checked.memory_swappiness {
        memory = memory.swappiness(swappiness);
    }
    if let Some(disable) = checked.oom_kill_disable {
        memory = memory.disable_oom_killer(disable);
    }
    let memory = memory.build()?;
    Ok((memory != LinuxMemory::default()).then_some(memory))
}

fn cpu(checked: &Checked) -> Result<Option<LinuxCpu>, OciSpecError> {
    let mut cpu = LinuxCpuBuilder::default();
    if let Some(quota) = checked.cpu_quota {
        cpu = cpu.quota(quota);
    }
    if let Some(period) = checked.cpu_period {
        cpu = cpu.period(period);
    }
    if let Some(shares) = checked.cpu_shares {
        cpu = cpu.shares(shares);
    }
    if let Some(period) = checked.cpu_rt_period {
        cpu = cpu.realtime_period(period);
    }
    if let Some(runtime) = checked.cpu_rt_runtime {
        cpu = cpu.realtime_runtime(runtime);
    }
    if let Some(cpus) = &checked.cpuset_cpus {
        cpu = cpu.cpus(cpus);
    }
    if let Some(mems) = &checked.cpuset_mems {
        cpu = cpu.mems(mems);
    }
    let cpu = cpu.build()?;
    Ok((cpu != LinuxCpu::default()).then_some(cpu))
}

fn block_io(checked: &Checked) -> Result<Option<LinuxBlockIo>, OciSpecError> {
    let throttles = |devices: &[Device]| -> Result<Vec<LinuxThrottleDevice>, OciSpecError> {
        let throttle = |device: &Device| {
            LinuxThrottleDeviceBuilder::default()
                .major(i64::from(device.major))
                .minor(i64::from(device.minor))
                .rate(device.value)
                .build()
        };
        devices.iter().map(throttle).collect()
    };
    let weight = |device: &Device| {
        LinuxWeightDeviceBuilder::default()
            .major(i64::from(device.major))
            .minor(i64::from(device.minor))
            .weight(u16::try_from(device.value).unwrap_or(u16::MAX))
            .build()
    };
    let mut block_io = LinuxBlockIo::default();
    block_io.set_weight(checked.blkio_weight);
    let some = |list: Vec<LinuxThrottleDevice>| Some(list).filter(|list| !list.is_empty());
    let weights = checked.weight_devices.iter().map(weight).collect::<Result<Vec<_>, _>>()?;
    block_io
        .set_weight_device(Some(weights).filter(|list| !list.is_empty()))
        .set_throttle_read_bps_device(some(throttles(&checked.read_bps)?))
        .set_throttle_write_bps_device(some(throttles(&checked.write_bps)?))
        .set_throttle_read_iops_device(some(throttles(&checked.read_iops)?))
        .set_throttle_write_iops_device(some(throttles(&checked.write_iops)?));
    Ok((block_io != LinuxBlockIo::default()).then_some(block_io))
}

/// What an update changes.
#[derive(Clone, Debug)]
pub struct Update {
    /// The score of its processes from now on, where it changes.
    pub oom_score_adj: Option<i32>,
    /// All limits of the container, from now on.
    pub limits: Limits,
    /// The spec with them.
    pub json: String,
    /// What a running container is told.
    pub resources: Resources,
}

/// What is to change of a container that is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Those that are named.
    pub limits: Limits,
    /// Of all its processes, from -1000 to 1000 (proc_pid_oom_score_adj(5)).
    pub oom_score_adj: Option<i32>,
}

impl From<Limits> for Change {
    fn from(limits: Limits) -> Self {
        Self { limits, oom_score_adj: None }
    }
}

/// Changes the limits of a container: what `asked` says, in the place of what was said before.
///
/// # Errors
/// As [`generate`](super::generate), for the limits as they would be then.
pub fn update(
    options: &ContainerOptions,
    json: &str,
    change: &Change,
    machine: &Machine,
) -> Result<Update, Error> {
    let asked = &change.limits;
    let limits = options.limits.updated(asked);
    let oom_score_adj = generate::oom_score(change.oom_score_adj, machine)?;
    let checked = check(&limits, machine)?;
    let lowered = resources(&checked, options.has_host_devices(), &[])?;
    let mut spec: serde_json::Value = serde_json::from_str(json)?;
    // Only what it limits is touched: a typed spec may lose what it does not know.
    let rules = spec["linux"]["resources"]["devices"].take();
    spec["linux"]["resources"] = serde_json::to_value(&lowered)?;
    if !rules.is_null() {
        spec["linux"]["resources"]["devices"] = rules;
    }
    if let Some(score) = oom_score_adj {
        spec["process"]["oomScoreAdj"] = score.into();
    }
    let mut resources = shim_plan::resources(&lowered)?;
    // The rules of devices are as they were.
    resources.devices.clear();
    // A new container has no limit where none is said; one in use has to be told.
    if asked.pids.is_some() && checked.pids.is_none() {
        resources.pids = Some(-1);
    }
    let json = serde_json::to_string_pretty(&spec)?;
    Ok(Update { oom_score_adj, limits, json, resources })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::machine;

    fn checked(change: impl FnOnce(&mut Limits)) -> Result<Checked, Error> {
        let mut limits = Limits::default();
        change(&mut limits);
        check(&limits, &machine())
    }

    fn said(change: impl FnOnce(&mut Limits)) -> String {
        checked(change).unwrap_err().to_string()
    }

    #[test]
    fn nothing_asked_is_nothing_limited() {
        assert_eq!(checked(|_| {}).unwrap(), Checked::default());
        let zeros = checked(|limits| {
            (limits.memory, limits.nano_cpus, limits.pids) = (Some(0), Some(0), Some(0));
            (limits.memory_swap, limits.cpu_shares) = (Some(0), Some(0));
        });
        assert_eq!(zeros.unwrap(), Checked::default());
    }

    #[test]
    fn cpus_become_a_quota() {
        let quota =
            |nano| checked(|limits| limits.nano_cpus = Some(nano)).unwrap().cpu_quota.unwrap();
        assert_eq!(quota(NANO), 100_000);
        assert_eq!(quota(1_500_000_000), 150_000);
        assert_eq!(quota(2 * NANO), 200_000);
        assert_eq!(quota(NANO_CPUS_MIN), 1_000);
    }

    #[test]
    fn more_cpus_than_the_machine_has_are_refused_naming_both() {
        let message = said(|limits| limits.nano_cpus = Some(2_500_000_000));
        assert!(message.contains("2.5 CPUs") && message.contains("has 2"), "{message}");
        assert!(said(|limits| limits.nano_cpus = Some(1)).contains("0.000000001 CPUs"));
        assert!(said(|limits| limits.nano_cpus = Some(-NANO)).contains("-1 CPUs"));
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_named() {
        assert!(said(|limits| limits.cpuset_cpus = "0-3".into()).contains("no CPU 2, only 0,1"));
        assert!(said(|limits| limits.cpuset_cpus = "x".into()).contains("\"x\" is not a list"));
        let both = checked(|limits| limits.cpuset_cpus = "0-1".into()).unwrap();
        assert_eq!(both.cpuset_cpus.as_deref(), Some("0-1"));
    }

    #[test]
    fn swap_is_as_much_as_memory_where_nothing_is_said_of_it() {
        assert!(said(|limits| limits.memory = Some(-1)).contains("memory limit \"-1\""));
        let message = said(|limits| limits.memory_reservation = Some(-2));
        assert!(message.contains("memory reservation \"-2\""), "{message}");
        assert_eq!(checked(|limits| limits.memory = Some(4096)).unwrap().memory, Some(4096));
        let default = checked(|limits| limits.memory = Some(64 << 20)).unwrap();
        assert_eq!(default.memory_swap, Some(128 << 20));
        let none = checked(|limits| {
            (limits.memory, limits.memory_swap) = (Some(64 << 20), Some(64 << 20));
        });
        assert_eq!(none.unwrap().memory_swap, Some(64 << 20));
        let unlimited = checked(|limits| {
            (limits.memory, limits.memory_swap) = (Some(64 << 20), Some(-1));
        });
        assert_eq!(unlimited.unwrap().memory_swap, Some(-1));
        assert!(said(|limits| limits.memory_swap = Some(64 << 20)).contains("-m"));
        let less = said(|limits| (limits.memory, limits.memory_swap) = (Some(64 << 20), Some(1)));
        assert!(less.contains("less than memory alone"), "{less}");
        let reserved = said(|limits| {
            (limits.memory, limits.memory_reservation) = (Some(8 << 20), Some(9 << 20));
        });
        assert!(reserved.contains("more than the memory limit"), "{reserved}");
    }

    #[test]
    fn a_swap_limit_that_the_kernel_can_t_grant_is_an_error_only_when_asked_for() {
        let machine = Machine { counts_swap: false, ..machine() };
        let mut limits = Limits { memory: Some(64 << 20), ..Limits::default() };
        assert_eq!(check(&limits, &machine).unwrap().memory_swap, None);
        limits.memory_swap = Some(128 << 20);
        assert!(check(&limits, &machine).unwrap_err().to_string().contains("counts no swap"));
    }

    #[test]
    fn a_quota_is_another_way_to_say_cpus() {
        let both = checked(|limits| {
            (limits.cpu_quota, limits.cpu_period) = (Some(-1), Some(50_000));
        });
        let both = both.unwrap();
        assert_eq!((both.cpu_quota, both.cpu_period), (Some(-1), Some(50_000)));
        let twice = said(|limits| {
            (limits.nano_cpus, limits.cpu_quota) = (Some(NANO), Some(5_000));
        });
        assert!(twice.contains("asked for twice"), "{twice}");
        assert!(said(|limits| limits.cpu_period = Some(10)).contains("CPU period \"10\""));
        assert!(said(|limits| limits.cpu_quota = Some(10)).contains("CPU quota \"10\""));
    }

    #[test]
    fn only_block_devices_are_limited() {
        let limit = |path: &str, value| vec![DeviceLimit { path: path.into(), value }];
        let null = said(|limits| limits.device_read_bps = limit("/dev/null", 1));
        assert!(null.contains("device \"/dev/null\" is not a block device"), "{null}");
        let missing = said(|limits| limits.device_write_iops = limit("/nowhere", 1));
        assert!(missing.contains("/nowhere"), "{missing}");
        let weight = said(|limits| limits.blkio_weight = Some(9));
        assert!(weight.contains("between 10 and 1000"), "{weight}");
    }

    #[test]
    fn an_update_changes_what_it_names_and_keeps_the_rest_of_the_spec() {
        let json = r#"{"linux":{"resources":{},"future":1},"more":[true]}"#;
        let mut options = ContainerOptions::default();
        options.limits.memory = Some(64 << 20);
        options.limits.nano_cpus = Some(NANO);
        let asked = Limits { pids: Some(-1), cpu_quota: Some(20_000), ..Limits::default() };
        let update = update(&options, json, &asked.clone().into(), &machine()).unwrap();
        assert_eq!((update.limits.memory, update.limits.nano_cpus), (Some(64 << 20), None));
        let spec: serde_json::Value = serde_json::from_str(&update.json).unwrap();
        assert_eq!(spec["linux"]["future"], 1);
        assert_eq!(spec["more"][0], true);
        assert_eq!(spec["linux"]["resources"]["memory"]["limit"], 64 << 20);
        assert_eq!(spec["linux"]["resources"]["cpu"]["quota"], 20_000);
        assert!(spec["linux"]["resources"]["devices"].is_array());
        assert_eq!(update.resources.pids, Some(-1), "a limit that was there is lifted");
        assert_eq!(update.resources.cpu_quota, Some(20_000));
        assert!(update.resources.devices.is_empty());
        let ruled = r#"{"linux":{"resources":{"devices":[{"allow":true,"access":"rw"}]}}}"#;
        let update = super::update(&options, ruled, &asked.into(), &machine()).unwrap();
        let spec: serde_json::Value = serde_json::from_str(&update.json).unwrap();
        let kept = &spec["linux"]["resources"]["devices"];
        assert_eq!(*kept, serde_json::json!([{"allow": true, "access": "rw"}]), "as they were");
    }

    /// What each update names holds until another one names it, and the kernel is told all of it.
    #[test]
    fn a_limit_outlives_the_updates_that_do_not_name_it() {
        let machine = machine();
        let mut options = ContainerOptions::default();
        let mut json = r#"{"linux":{"resources":{}}}"#.to_owned();
        let mut updated = |change: Change| {
            let update = update(&options, &json, &change, &machine)?;
            (options.limits, json) = (update.limits.clone(), update.json.clone());
            let spec: serde_json::Value = serde_json::from_str(&json)?;
            Ok::<_, Error>((update, spec))
        };
        let first = Limits {
            memory: Some(64 << 20),
            memory_swap: Some(96 << 20),
            pids: Some(10),
            cpuset_cpus: "0".to_owned(),
            oom_kill_disable: Some(true),
            unified: [("memory.high".to_owned(), "1".to_owned())].into(),
            ..Limits::default()
        };
        updated(Change { limits: first, oom_score_adj: Some(7) }).unwrap();
        let (second, spec) =
            updated(Limits { memory: Some(80 << 20), ..Limits::default() }.into()).unwrap();
        let told = &second.resources;
        assert_eq!((told.memory, told.memory_swap), (Some(80 << 20), Some(96 << 20)));
        assert_eq!((told.pids, &*told.cpuset_cpus), (Some(10), "0"));
        assert_eq!(told.oom_kill_disable, Some(true));
        assert_eq!(told.unified["memory.high"], "1");
        assert_eq!(spec["process"]["oomScoreAdj"], 7);
        assert_eq!(spec["linux"]["resources"]["memory"]["swap"], 96 << 20);
        let (third, spec) = updated(
            Limits {
                pids: Some(-1),
                memory_swap: Some(-1),
                oom_kill_disable: Some(false),
                ..Limits::default()
            }
            .into(),
        )
        .unwrap();
        let told = &third.resources;
        assert_eq!((told.memory, told.memory_swap), (Some(80 << 20), Some(-1)));
        assert_eq!((told.pids, told.oom_kill_disable), (Some(-1), Some(false)));
        assert_eq!(third.limits.oom_kill_disable, Some(false), "what is said last holds");
        assert_eq!(spec["linux"]["resources"]["memory"]["disableOOMKiller"], false);
        let (fourth, _) =
            updated(Limits { cpu_shares: Some(5), ..Limits::default() }.into()).unwrap();
        assert_eq!(fourth.resources.memory_swap, Some(-1));
        assert_eq!(fourth.resources.oom_kill_disable, Some(false));
        // More than memory and swap together, whose limit is still there.
        updated(Limits { memory_swap: Some(96 << 20), ..Limits::default() }.into()).unwrap();
        let refused = updated(Limits { memory: Some(128 << 20), ..Limits::default() }.into());
        assert!(refused.unwrap_err().to_string().contains("less than memory alone"));
    }

    #[test]
    fn weights_and_numbers_of_processes_have_bounds() {
        assert!(said(|limits| limits.cpu_shares = Some(1)).contains("\"1\""));
        assert!(said(|limits| limits.cpu_shares = Some(262_145)).contains("262144"));
        assert!(said(|limits| limits.pids = Some(-2)).contains("\"-2\""));
        assert_eq!(checked(|limits| limits.pids = Some(-1)).unwrap().pids, None);
        assert_eq!(checked(|limits| limits.pids = Some(100)).unwrap().pids, Some(100));
    }
}
