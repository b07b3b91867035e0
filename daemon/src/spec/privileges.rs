//! What a container may do: capabilities, masked and read-only paths, devices, seccomp, AppArmor.

use std::path::{Component, Path};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder, LinuxDevice,
    LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxSeccomp,
};
use shim_plan::capability::CapabilitySet;
use shim_plan::profile;

use super::machine::{self, HostDevice};
use super::{AppArmor, ContainerOptions, DeviceRequest, Error, Machine, Seccomp};
use crate::apparmor::{self, Support};

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

/// Capabilities that are kept over the exec of whoever runs; without effect for root.
pub(super) fn ambient(options: &ContainerOptions) -> Result<CapabilitySet, Error> {
    let (_, ambient) = named(&options.security.cap_ambient)?;
    Ok(ambient)
}

/// In the bounding, effective and permitted sets; never inheritable (CVE-2022-24769), never ambient.
pub(super) fn sets(set: CapabilitySet) -> Result<LinuxCapabilities, OciSpecError> {
    sets_with(set, CapabilitySet::default())
}

/// As [`sets`], but for those that are ambient: they have to be in all five.
pub(super) fn sets_with(
    set: CapabilitySet,
    ambient: CapabilitySet,
) -> Result<LinuxCapabilities, OciSpecError> {
    let list = |set: CapabilitySet| -> Capabilities {
        set.names().filter_map(|name| capability(&name)).collect()
    };
    let (names, kept) = (list(set.union(ambient)), list(ambient));
    LinuxCapabilitiesBuilder::default()
        .bounding(names.clone())
        .effective(names.clone())
        .permitted(names)
        .inheritable(kept.clone())
        .ambient(kept)
        .build()
}

/// The filter of system calls that a container gets.
#[derive(Clone, Debug)]
pub(super) enum Filter {
    None,
    Default,
    Profile(Box<LinuxSeccomp>),
}

/// # Errors
/// The file of a profile can't be read, or is none.
pub(super) fn seccomp(options: &ContainerOptions) -> Result<Filter, Error> {
    if options.privileged {
        return Ok(Filter::None);
    }
    match &options.security.seccomp {
        Seccomp::Default => Ok(Filter::Default),
        Seccomp::Unconfined => Ok(Filter::None),
        Seccomp::Profile(path) => {
            let text =
                std::fs::read(path).map_err(|source| Error::Read { path: path.clone(), source })?;
            serde_json::from_slice(&text)
                .map(|profile| Filter::Profile(Box::new(profile)))
                .map_err(|source| Error::SeccompProfile { path: path.clone(), source })
        }
    }
}

/// The profile of AppArmor that confines a container; `None` when none does.
#[must_use]
pub fn apparmor_profile<'a>(options: &'a ContainerOptions, machine: &Machine) -> Option<&'a str> {
    let has_default = matches!(machine.apparmor, Support::Full { .. });
    match &options.security.apparmor {
        AppArmor::Profile(name) => Some(name),
        AppArmor::Default if has_default && !options.privileged => Some(apparmor::DEFAULT),
        AppArmor::Default | AppArmor::Unconfined => None,
    }
}

/// As [`apparmor_profile`], looked for in the kernel.
///
/// # Errors
/// The machine has no such profile.
pub(super) fn apparmor(
    options: &ContainerOptions,
    machine: &Machine,
) -> Result<Option<String>, Error> {
    let Some(name) = apparmor_profile(options, machine) else { return Ok(None) };
    let refused = |problem: String| Err(Error::AppArmor { name: name.to_owned(), problem });
    match &machine.apparmor {
        Support::Absent => return refused("AppArmor is not enabled on this kernel".to_owned()),
        // It is put there when the container starts.
        Support::Full { .. } if name == apparmor::DEFAULT => {}
        // Several at once (`//&`) and those of a namespace (`:NS:`) are in no list.
        Support::Full { .. } | Support::NoDefault { .. }
            if name.starts_with(':') || name.contains("//&") => {}
        Support::Full { .. } | Support::NoDefault { .. } => match apparmor::is_loaded(name) {
            Ok(true) => {}
            Ok(false) => return refused("it is not loaded".to_owned()),
            Err(error) => return refused(format!("the kernel's list can't be read: {error}")),
        },
    }
    Ok(Some(name.to_owned()))
}

/// The typed name; both tables hold all capabilities up to Linux 5.9's last.
fn capability(name: &str) -> Option<Capability> {
    name.strip_prefix("CAP_").and_then(|bare| bare.parse().ok())
}

pub(super) fn masked_paths(options: &ContainerOptions, machine: &Machine) -> Vec<String> {
    if options.privileged {
        return Vec::new();
    }
    if let Some(paths) = &options.security.masked_paths {
        return paths.clone();
    }
    let fixed = MASKED.iter().map(|path| (*path).to_owned());
    fixed.chain(machine.thermal_paths.iter().cloned()).collect()
}

pub(super) fn readonly_paths(options: &ContainerOptions) -> Vec<String> {
    match (&options.security.readonly_paths, options.privileged) {
        (_, true) => Vec::new(),
        (Some(paths), false) => paths.clone(),
        (None, false) => READONLY.iter().map(|path| (*path).to_owned()).collect(),
    }
}

/// Nothing is allowed, then what docker allows on top of the default devices, which need no rule
/// here: `/dev/console` and `/dev/tty`; then what was asked for. A privileged container may use every
/// device.
pub(super) fn device_rules(
    privileged: bool,
    asked: &[HostDevice],
) -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
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
    let mut rules = vec![every, allow(5, 1)?, allow(5, 0)?];
    for device in asked {
        let rule = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(if device.block { LinuxDeviceType::B } else { LinuxDeviceType::C })
            .major(i64::from(device.major))
            .minor(i64::from(device.minor))
            .access(&device.access)
            .build()?;
        rules.push(rule);
    }
    Ok(rules)
}

/// Those that were asked for, beside the defaults that every runtime makes; a privileged container
/// has the host's.
pub(super) fn devices(options: &ContainerOptions) -> Result<Vec<HostDevice>, Error> {
    let mut devices = match options.has_host_devices() {
        true => machine::host_devices(Path::new("/dev"))?,
        false => Vec::new(),
    };
    for request in &options.devices {
        for device in asked(request)? {
            devices.retain(|other| other.path != device.path);
            devices.push(device);
        }
    }
    Ok(devices)
}

/// One device, or all below a directory.
fn asked(request: &DeviceRequest) -> Result<Vec<HostDevice>, Error> {
    let DeviceRequest { host_path, container_path, access } = request;
    let valid = |access: &str| access.chars().all(|letter| "rwm".contains(letter));
    if !valid(access) {
        return Err(Error::malformed("access to a device", access, "letters of rwm"));
    }
    let inside = match container_path.as_os_str().is_empty() {
        true => host_path,
        false => container_path,
    };
    for path in [host_path, inside] {
        if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
            let path = path.to_string_lossy();
            return Err(Error::malformed("device", path, "an absolute path without .."));
        }
    }
    let failed = |source| Error::Read { path: host_path.clone(), source };
    // The node that a link leads to, as every other program has it.
    let real = host_path.canonicalize().map_err(failed)?;
    let found = match std::fs::metadata(&real).map_err(failed)?.is_dir() {
        true => machine::host_devices(&real)?,
        false => vec![machine::host_device(&real)?],
    };
    let access = if access.is_empty() { "rwm" } else { access };
    let renamed = found.into_iter().map(|device| {
        let below = device.path.strip_prefix(&real).unwrap_or(Path::new(""));
        let path = match below.as_os_str().is_empty() {
            true => inside.clone(),
            false => inside.join(below),
        };
        HostDevice { path, access: access.to_owned(), ..device }
    });
    Ok(renamed.collect())
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
