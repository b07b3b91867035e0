//! What a container may do: capabilities, masked and read-only paths, devices, seccomp.

use std::path::Path;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder, LinuxDevice,
    LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};
use shim_plan::capability::CapabilitySet;
use shim_plan::profile;

use super::machine::{self, HostDevice};
use super::{ContainerOptions, Error, Machine};

/// docker's default set.
pub(super) const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_CHROOT",
    "MKNOD",
    "AUDIT_WRITE",
    "SETFCAP",
];

/// Paths that look empty to a container, after docker's list: each tells of the host or of its other
/// containers, or lets one disturb them. The thermal counters of [`Machine`] come behind them.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths that can't be written to.
const READONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The word that stands for every capability.
const ALL: &str = "ALL";

/// Compiles the seccomp profile of a container that asks for no capabilities, so that the first one
/// does not wait for it: some 25 ms of one CPU, once. What fails here fails there again, and is told
/// there.
pub fn warm_up(machine: &Machine) {
    let default = CapabilitySet::of(DEFAULT_CAPABILITIES).unwrap_or_default();
    let _ = shim_plan::seccomp::compile(&profile::default(default, machine.kernel));
}

/// The default set less what is dropped, then what is added; `ALL` as an addition is everything less
/// what is dropped, as a drop nothing but what is added. A privileged container starts from
/// everything. Everything is what the daemon itself has; what is named beyond that is refused.
pub(super) fn capabilities(
    options: &ContainerOptions,
    machine: &Machine,
) -> Result<CapabilitySet, Error> {
    let everything = machine.capabilities;
    let (add_all, add) = named(&options.cap_add)?;
    let (drop_all, drop) = named(&options.cap_drop)?;
    if let Some(name) = add.without(everything).names().next() {
        return Err(Error::CapabilityNotHeld { name });
    }
    let default = CapabilitySet::of(DEFAULT_CAPABILITIES).unwrap_or_default();
    let default = default.without(default.without(everything));
    Ok(if options.privileged || add_all {
        everything.without(drop)
    } else if drop_all {
        add
    } else {
        default.without(drop).union(add)
    })
}

fn named(names: &[String]) -> Result<(bool, CapabilitySet), Error> {
    let all = names.iter().any(|name| name.eq_ignore_ascii_case(ALL));
    let single = names.iter().map(String::as_str).filter(|name| !name.eq_ignore_ascii_case(ALL));
    CapabilitySet::of(single)
        .map(|set| (all, set))
        .map_err(|name| Error::UnknownCapability { name: name.to_owned() })
}

/// In the bounding, effective and permitted sets; never inheritable (CVE-2022-24769), never ambient.
pub(super) fn sets(set: CapabilitySet) -> Result<LinuxCapabilities, OciSpecError> {
    let names: Capabilities = set.names().filter_map(|name| capability(&name)).collect();
    LinuxCapabilitiesBuilder::default()
        .bounding(names.clone())
        .effective(names.clone())
        .permitted(names)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()
}

/// The typed name; both tables hold all capabilities up to Linux 5.9's last.
fn capability(name: &str) -> Option<Capability> {
    name.strip_prefix("CAP_").and_then(|bare| bare.parse().ok())
}

pub(super) fn masked_paths(privileged: bool, machine: &Machine) -> Vec<String> {
    if privileged {
        return Vec::new();
    }
    let fixed = MASKED.iter().map(|path| (*path).to_owned());
    fixed.chain(machine.thermal_paths.iter().cloned()).collect()
}

pub(super) fn readonly_paths(privileged: bool) -> Vec<String> {
    let paths: &[&str] = if privileged { &[] } else { &READONLY };
    paths.iter().map(|path| (*path).to_owned()).collect()
}

/// Nothing is allowed, then what docker allows on top of the default devices, which need no rule
/// here: `/dev/console` and `/dev/tty`. A privileged container may use every device.
pub(super) fn device_rules(privileged: bool) -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    let every = LinuxDeviceCgroupBuilder::default()
        .allow(privileged)
        .typ(LinuxDeviceType::A)
        .access("rwm")
        .build()?;
    if privileged {
        return Ok(vec![every]);
    }
    let allow = |major: i64, minor: i64| {
        LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(LinuxDeviceType::C)
            .major(major)
            .minor(minor)
            .access("rwm")
            .build()
    };
    Ok(vec![every, allow(5, 1)?, allow(5, 0)?])
}

/// None beside the defaults that every runtime makes; a privileged container has the host's.
pub(super) fn devices(privileged: bool) -> Result<Vec<HostDevice>, Error> {
    if privileged { machine::host_devices(Path::new("/dev")) } else { Ok(Vec::new()) }
}

pub(super) fn device(host: &HostDevice) -> Result<LinuxDevice, OciSpecError> {
    LinuxDeviceBuilder::default()
        .path(&host.path)
        .typ(if host.block { LinuxDeviceType::B } else { LinuxDeviceType::C })
        .major(i64::from(host.major))
        .minor(i64::from(host.minor))
        .file_mode(host.mode)
        .uid(host.uid)
        .gid(host.gid)
        .build()
}
