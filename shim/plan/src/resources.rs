//! Limits and the cgroup they hold in.
//!
//! OCI and docker write "as it is" as 0 or by absence, and "no limit" as -1: both mean the same to a
//! new container, but not to an update. `pids.limit` is no such number: its 0 is a limit, and who has
//! none leaves it away.
//!
//! `memory.kernel` and `memory.kernelTCP` are read and have no effect: Linux took the first away in
//! 5.16, the specification advises against both, and runc passes them over as well.
//! `memory.useHierarchy` is what every group is since Linux 5.11. Who asks for another thing is warned
//! ([`parse`](crate::parse)).

mod block_io;

use std::path::Path;

use oci_spec::runtime::{
    LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxRdma, LinuxResources,
};
use shim_wire::plan::{HugepageLimit, NetworkPriority, RdmaLimit, Resources};

use crate::{Context, Error, Scope, devices};

const AT: &str = "linux.cgroupsPath";

/// Longest name of a network interface (IFNAMSIZ, without its NUL).
const INTERFACE_NAME_MAX: usize = 15;

/// The cgroup's path below each controller's mount point, without a leading slash.
pub(crate) fn cgroup(spec: Option<&Path>, context: &Context) -> Result<String, Error> {
    if context.systemd_cgroup {
        return Ok(scope(spec, context)?.path);
    }
    let fallback = &context.cgroup;
    let Some(path) = spec.filter(|path| !path.as_os_str().is_empty()) else {
        return if fallback.is_empty() {
            Err(Error::missing(AT))
        } else {
            Ok(fallback.trim_matches('/').to_owned())
        };
    };
    let text = text(path)?;
    if !text.contains('/') && text.split(':').count() == 3 {
        // Of the other manager, which was not asked for.
        return Err(Error::value(AT, text));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty()
        || parts.iter().any(|part| matches!(*part, "." | ".."))
        || text.contains('\0')
    {
        return Err(Error::malformed(AT, text, "a path below the cgroup root"));
    }
    Ok(parts.join("/"))
}

/// The same where systemd makes it.
pub(crate) fn scope(spec: Option<&Path>, context: &Context) -> Result<Scope, Error> {
    let path = spec.map(text).transpose()?;
    Scope::parse(path, &context.cgroup)
}

fn text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| Error::malformed(AT, path.to_string_lossy(), "text"))
}

/// Of a new container, whose OOM killer is there until it is switched off. `version` is that of the
/// specification: before 1.3 a limit of 0 processes was no limit, as podman 4 still writes it.
pub(crate) fn of_new(
    spec: Option<&LinuxResources>,
    version: &str,
) -> Result<Option<Resources>, Error> {
    let mut lowered = lower(spec)?;
    if let Some(resources) = &mut lowered {
        let zero = spec.and_then(|spec| spec.pids().as_ref()).is_some_and(|pids| pids.limit() == 0);
        if zero && ["1.0.", "1.1.", "1.2."].iter().any(|before| version.starts_with(before)) {
            resources.pids = None;
        }
        resources.oom_kill_disable = resources.oom_kill_disable.filter(|disable| *disable);
    }
    Ok(lowered.filter(|resources| *resources != Resources::default()))
}

/// Absent when the spec limits nothing.
pub(crate) fn lower(spec: Option<&LinuxResources>) -> Result<Option<Resources>, Error> {
    let Some(spec) = spec else { return Ok(None) };
    let mut lowered = Resources {
        devices: devices::rules(spec.devices().as_deref().unwrap_or_default())?,
        pids: spec.pids().as_ref().map(|pids| pids_limit(pids.limit())),
        block_io: spec.block_io().as_ref().map(block_io::lower).transpose()?.flatten(),
        hugepages: hugepages(spec.hugepage_limits().as_deref().unwrap_or_default())?,
        rdma: spec.rdma().iter().flatten().map(rdma).collect::<Result<_, _>>()?,
        ..Resources::default()
    };
    lowered.rdma.sort_by(|one, other| one.device.cmp(&other.device));
    if let Some(pids) = lowered.pids.filter(|pids| *pids < -1) {
        let at = "linux.resources.pids.limit";
        return Err(Error::malformed(at, pids.to_string(), "a number of processes or -1"));
    }
    if let Some(spec) = spec.memory() {
        memory(spec, &mut lowered)?;
    }
    if let Some(spec) = spec.cpu() {
        cpu(spec, &mut lowered)?;
    }
    if let Some(spec) = spec.network() {
        network(spec, &mut lowered)?;
    }
    for (key, value) in spec.unified().iter().flatten() {
        unified(key, value)?;
        lowered.unified.insert(key.clone(), value.clone());
    }
    Ok((lowered != Resources::default()).then_some(lowered))
}

/// No process at all comes to the same as one, which is there already: nothing else is made. (0 is no
/// limit that systemd's TasksMax= has.)
fn pids_limit(limit: i64) -> i64 {
    if limit == 0 { 1 } else { limit }
}

fn memory(spec: &LinuxMemory, lowered: &mut Resources) -> Result<(), Error> {
    let at = |name: &str| format!("linux.resources.memory.{name}");
    lowered.memory = bytes(spec.limit(), &at("limit"))?;
    lowered.memory_reservation = bytes(spec.reservation(), &at("reservation"))?;
    lowered.memory_swap = bytes(spec.swap(), &at("swap"))?;
    bytes(spec.kernel(), &at("kernel"))?;
    bytes(spec.kernel_tcp(), &at("kernelTCP"))?;
    // -1, as an unsigned number, is docker's "as it is".
    lowered.memory_swappiness = spec.swappiness().filter(|value| *value != u64::MAX);
    if let Some(swappiness) = lowered.memory_swappiness.filter(|value| *value > 100) {
        return Err(Error::malformed(at("swappiness"), swappiness.to_string(), "from 0 to 100"));
    }
    lowered.oom_kill_disable = spec.disable_oom_killer();
    lowered.memory_check = spec.check_before_update() == Some(true);
    match (lowered.memory, lowered.memory_swap) {
        (Some(limit), Some(swap)) if swap != -1 && swap < limit => Err(Error::contradiction(
            at("swap"),
            "is memory and swap together, and smaller than linux.resources.memory.limit",
        )),
        (Some(-1), Some(swap)) if swap != -1 => Err(Error::contradiction(
            at("swap"),
            "is memory and swap together, and limited while linux.resources.memory.limit is not",
        )),
        _ => Ok(()),
    }
}

fn cpu(spec: &LinuxCpu, lowered: &mut Resources) -> Result<(), Error> {
    let at = |name: &str| format!("linux.resources.cpu.{name}");
    lowered.cpu_shares = spec.shares().filter(|shares| *shares != 0);
    lowered.cpu_quota = microseconds(spec.quota(), &at("quota"))?;
    lowered.cpu_period = spec.period().filter(|period| *period != 0);
    // Of a new group both are 0, which an update may want back.
    lowered.cpu_burst = spec.burst();
    lowered.cpu_idle = spec.idle();
    lowered.cpu_rt_runtime = microseconds(spec.realtime_runtime(), &at("realtimeRuntime"))?;
    lowered.cpu_rt_period = spec.realtime_period().filter(|period| *period != 0);
    lowered.cpuset_cpus = list(spec.cpus().as_deref(), &at("cpus"))?;
    lowered.cpuset_mems = list(spec.mems().as_deref(), &at("mems"))?;
    if let Some(idle) = lowered.cpu_idle.filter(|idle| ![0, 1].contains(idle)) {
        return Err(Error::malformed(at("idle"), idle.to_string(), "0 or 1"));
    }
    if lowered.cpu_idle == Some(1) && lowered.cpu_shares.is_some() {
        let why = "are of no group that linux.resources.cpu.idle makes idle";
        return Err(Error::contradiction(at("shares"), why));
    }
    let more = |part: Option<u64>, whole: Option<u64>| matches!((part, whole), (Some(part), Some(whole)) if part > whole);
    let positive = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    if more(lowered.cpu_burst, positive(lowered.cpu_quota)) {
        return Err(Error::contradiction(at("burst"), "is more than linux.resources.cpu.quota"));
    }
    if more(positive(lowered.cpu_rt_runtime), lowered.cpu_rt_period) {
        let why = "is more than linux.resources.cpu.realtimePeriod";
        return Err(Error::contradiction(at("realtimeRuntime"), why));
    }
    Ok(())
}

fn hugepages(spec: &[LinuxHugepageLimit]) -> Result<Vec<HugepageLimit>, Error> {
    let mut lowered: Vec<HugepageLimit> = Vec::with_capacity(spec.len());
    for (index, spec) in spec.iter().enumerate() {
        let at = |name: &str| format!("linux.resources.hugepageLimits[{index}].{name}");
        let page_size = spec.page_size().clone();
        // It becomes part of a file's name.
        let digits = page_size.trim_end_matches(|unit: char| !unit.is_ascii_digit());
        let is_size = !digits.is_empty()
            && !digits.starts_with('0')
            && digits.bytes().all(|digit| digit.is_ascii_digit())
            && ["KB", "MB", "GB"].contains(&&page_size[digits.len()..]);
        if !is_size {
            return Err(Error::malformed(at("pageSize"), page_size, "a size such as 2MB or 1GB"));
        }
        if lowered.iter().any(|earlier| earlier.page_size == page_size) {
            return Err(Error::contradiction(at("pageSize"), "a second limit of the same pages"));
        }
        let limit = spec.limit();
        if limit < -1 {
            let expected = "a number of bytes or -1";
            return Err(Error::malformed(at("limit"), limit.to_string(), expected));
        }
        lowered.push(HugepageLimit { page_size, limit });
    }
    Ok(lowered)
}

fn rdma((device, spec): (&String, &LinuxRdma)) -> Result<RdmaLimit, Error> {
    let at = format!("linux.resources.rdma[{device:?}]");
    if !is_name(device) {
        return Err(Error::malformed(at, device, "the name of a device"));
    }
    let (handles, objects) = (spec.hca_handles(), spec.hca_objects());
    if handles.is_none() && objects.is_none() {
        return Err(Error::missing(format!("{at}.hcaHandles")));
    }
    Ok(RdmaLimit { device: device.clone(), handles, objects })
}

fn network(spec: &LinuxNetwork, lowered: &mut Resources) -> Result<(), Error> {
    lowered.network_class = spec.class_id().filter(|class| *class != 0);
    for (index, spec) in spec.priorities().iter().flatten().enumerate() {
        let interface = spec.name().clone();
        if !is_name(&interface) || interface.len() > INTERFACE_NAME_MAX {
            let at = format!("linux.resources.network.priorities[{index}].name");
            return Err(Error::malformed(at, interface, "the name of an interface"));
        }
        lowered.network_priorities.push(NetworkPriority { interface, priority: spec.priority() });
    }
    Ok(())
}

/// A word of a line of a control file.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
}

/// Only files of controllers, and the bounds of the tree below: the others of `cgroup.*` move, stop
/// and end processes.
fn unified(key: &str, value: &str) -> Result<(), Error> {
    let at = format!("linux.resources.unified[{key:?}]");
    let (controller, file) = key.split_once('.').unwrap_or_default();
    let plain = |part: &str| {
        let of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !part.is_empty() && part.bytes().all(of_a_name)
    };
    if !plain(controller) || !plain(file) {
        return Err(Error::malformed(at, key, "a file of a controller, such as memory.high"));
    }
    if controller == "cgroup" && !file.starts_with("max.") {
        return Err(Error::not_supported(at));
    }
    if value.trim().is_empty() || value.contains('\0') {
        return Err(Error::malformed(at, value, "text to write"));
    }
    Ok(())
}

/// 0 is as it is.
fn bytes(value: Option<i64>, at: &str) -> Result<Option<i64>, Error> {
    match value.filter(|value| *value != 0) {
        Some(value) if value < -1 => {
            Err(Error::malformed(at, value.to_string(), "a number of bytes or -1"))
        }
        value => Ok(value),
    }
}

/// 0 is as it is.
fn microseconds(value: Option<i64>, at: &str) -> Result<Option<i64>, Error> {
    match value.filter(|value| *value != 0) {
        Some(value) if value < -1 => {
            Err(Error::malformed(at, value.to_string(), "microseconds or -1"))
        }
        value => Ok(value),
    }
}

/// `0-3,7` (cpuset(7), "List format").
fn list(text: Option<&str>, at: &str) -> Result<String, Error> {
    let text = text.unwrap_or_default();
    let number = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten()
    };
    let valid = text.is_empty()
        || text.split(',').all(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last)
        });
    if valid {
        Ok(text.to_owned())
    } else {
        Err(Error::malformed(at, text, "a list such as 0-3,7"))
    }
}
