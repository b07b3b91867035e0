//! Limits and the cgroup they hold in.

use std::path::Path;

use oci_spec::runtime::LinuxResources;
use shim_wire::plan::Resources;

use crate::{Error, devices};

/// The cgroup's path below each controller's mount point, without a leading slash.
pub(crate) fn cgroup(spec: Option<&Path>, fallback: &str) -> Result<String, Error> {
    const AT: &str = "linux.cgroupsPath";
    let Some(path) = spec.filter(|path| !path.as_os_str().is_empty()) else {
        return if fallback.is_empty() {
            Err(Error::missing(AT))
        } else {
            Ok(fallback.trim_matches('/').to_owned())
        };
    };
    let text = path.to_str().ok_or_else(|| Error::malformed(AT, path.to_string_lossy(), "text"))?;
    if !text.contains('/') && text.split(':').count() == 3 {
        // SLICE:PREFIX:NAME, of the systemd manager.
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

/// Absent when the spec limits nothing. OCI and docker write "no limit" as 0 or -1.
pub(crate) fn lower(spec: Option<&LinuxResources>) -> Result<Option<Resources>, Error> {
    let Some(spec) = spec else { return Ok(None) };
    let mut lowered = Resources {
        devices: devices::rules(spec.devices().as_deref().unwrap_or_default())?,
        pids: spec.pids().as_ref().map(|pids| pids.limit()).filter(|limit| *limit > 0),
        ..Resources::default()
    };
    let at = |name: &str| format!("linux.resources.memory.{name}");
    if let Some(memory) = spec.memory() {
        lowered.memory = bytes(memory.limit(), &at("limit"))?.filter(|limit| *limit > 0);
        lowered.memory_reservation =
            bytes(memory.reservation(), &at("reservation"))?.filter(|limit| *limit > 0);
        lowered.memory_swap = bytes(memory.swap(), &at("swap"))?.filter(|limit| *limit != 0);
        if let (Some(limit), Some(swap)) = (lowered.memory, lowered.memory_swap)
            && swap != -1
            && swap < limit
        {
            return Err(Error::contradiction(
                at("swap"),
                "is memory and swap together, and smaller than linux.resources.memory.limit",
            ));
        }
    }
    if let Some(cpu) = spec.cpu() {
        lowered.cpu_shares = cpu.shares().filter(|shares| *shares != 0);
        lowered.cpu_quota = cpu.quota().filter(|quota| *quota != 0);
        lowered.cpu_period = cpu.period().filter(|period| *period != 0);
        lowered.cpuset_cpus = list(cpu.cpus().as_deref(), "linux.resources.cpu.cpus")?;
        lowered.cpuset_mems = list(cpu.mems().as_deref(), "linux.resources.cpu.mems")?;
        if lowered.cpu_quota.is_some_and(|quota| quota < -1) {
            let value = cpu.quota().unwrap_or_default().to_string();
            return Err(Error::malformed("linux.resources.cpu.quota", value, "microseconds or -1"));
        }
    }
    Ok((lowered != Resources::default()).then_some(lowered))
}

fn bytes(value: Option<i64>, at: &str) -> Result<Option<i64>, Error> {
    match value {
        Some(value) if value < -1 => {
            Err(Error::malformed(at, value.to_string(), "a number of bytes or -1"))
        }
        value => Ok(value),
    }
}

/// `0-3,7` (cpuset(7), "List format").
fn list(text: Option<&str>, at: &str) -> Result<String, Error> {
    let text = text.unwrap_or_default();
    let valid = text.is_empty()
        || text.split(',').all(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            matches!((first.parse::<u32>(), last.parse::<u32>()), (Ok(first), Ok(last)) if first <= last)
        });
    if valid {
        Ok(text.to_owned())
    } else {
        Err(Error::malformed(at, text, "a list such as 0-3,7"))
    }
}
