//! What a spec must know of the machine: how much there is of it, and what must be hidden.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use shim_plan::capability::{self, CapabilitySet};
use shim_plan::profile::KernelVersion;

use super::Error;
use crate::apparmor;

/// The bit of CAP_SYS_RESOURCE.
const SYS_RESOURCE: u32 = 24;

/// What is read once, at the daemon's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub online_cpus: BTreeSet<u32>,
    /// What the daemon itself has, and so can give.
    pub capabilities: CapabilitySet,
    pub kernel: KernelVersion,
    pub hostname: String,
    /// The memory controller can limit swap too.
    pub counts_swap: bool,
    /// The daemon's own OOM score, when a child's can't be lower.
    pub oom_score_floor: Option<i32>,
    /// `/sys/devices/system/cpu/cpuN/thermal_throttle`, of the CPUs that have it: counters that tell
    /// one container of another's load.
    pub thermal_paths: Vec<String>,
    pub apparmor: apparmor::Support,
}

impl Machine {
    /// # Errors
    /// Names the file of /proc or /sys that can't be read or is not as the kernel writes it.
    pub fn read() -> Result<Self, Error> {
        let kernel = read("/proc/sys/kernel/osrelease")?;
        let online = read("/sys/devices/system/cpu/online")?;
        let possible = read("/sys/devices/system/cpu/possible")?;
        let capabilities = own_capabilities()?;
        let score = read("/proc/self/oom_score_adj")?;
        let thermal = |cpu| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle");
        Ok(Self {
            online_cpus: cpu_list(&online)
                .ok_or_else(|| Error::malformed("the list of online CPUs", &online, "a list"))?,
            capabilities,
            kernel: kernel_version(&kernel)
                .ok_or_else(|| Error::malformed("the kernel's release", &kernel, "a version"))?,
            hostname: read("/proc/sys/kernel/hostname")?,
            counts_swap: counts_swap(),
            oom_score_floor: if capabilities.contains(SYS_RESOURCE) {
                None
            } else {
                score.parse().ok()
            },
            thermal_paths: cpu_list(&possible)
                .unwrap_or_default()
                .into_iter()
                .map(thermal)
                .filter(|path| Path::new(path).exists())
                .collect(),
            apparmor: apparmor::Support::detect(),
        })
    }
}

fn read(path: &str) -> Result<String, Error> {
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .map_err(|source| Error::Read { path: PathBuf::from(path), source })
}

/// `0-3,7`; `None` when it is anything else.
pub(super) fn cpu_list(text: &str) -> Option<BTreeSet<u32>> {
    /// More than any kernel's NR_CPUS, and few enough to count through.
    const MAX: u32 = 1 << 16;
    let mut cpus = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number < MAX);
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// The first two numbers of `6.1.0-18-amd64`.
fn kernel_version(release: &str) -> Option<KernelVersion> {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The capabilities that the daemon can give to a container: its own.
///
/// # Errors
/// `/proc/self/status` can't be read.
pub(super) fn own_capabilities() -> Result<CapabilitySet, Error> {
    read("/proc/self/status").map(|status| capabilities_of(&status))
}

/// Both permitted and in the bounding set, which an exec could not widen again.
fn capabilities_of(status: &str) -> CapabilitySet {
    let set = |name: &str| {
        let bits = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(bits.trim(), 16).ok()
    };
    let all = CapabilitySet::all(capability::number_of_last());
    CapabilitySet(set("CapPrm:").unwrap_or(0) & set("CapBnd:").unwrap_or(0) & all.0)
}

/// cgroup v1 shows a file for it; v2 counts swap wherever it has the memory controller.
fn counts_swap() -> bool {
    let v1 = Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes");
    let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    v1.exists() || v2.is_ok_and(|list| list.split_whitespace().any(|name| name == "memory"))
}

/// A device node of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostDevice {
    pub(super) path: PathBuf,
    pub(super) block: bool,
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// What may be done with it: `rwm`.
    pub(super) access: String,
}

/// A device node.
///
/// # Errors
/// It can't be read, or is none.
pub(super) fn host_device(path: &Path) -> Result<HostDevice, Error> {
    let metadata =
        fs::metadata(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    device_of(path, &metadata).ok_or_else(|| {
        Error::malformed("device", path.to_string_lossy(), "a device node of this machine")
    })
}

fn device_of(path: &Path, metadata: &fs::Metadata) -> Option<HostDevice> {
    let kind = metadata.file_type();
    let device = metadata.rdev();
    (kind.is_char_device() || kind.is_block_device()).then(|| HostDevice {
        path: path.to_owned(),
        block: kind.is_block_device(),
        major: rustix::fs::major(device),
        minor: rustix::fs::minor(device),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        access: "rwm".to_owned(),
    })
}

/// Every node below `dev` but terminals and what a container has of its own. Nodes that go while
/// they are listed are passed over.
///
/// # Errors
/// `dev` itself can't be read.
pub(super) fn host_devices(dev: &Path) -> Result<Vec<HostDevice>, Error> {
    /// Directories of their own mounts, and links that every container gets anew.
    const OWN: [&str; 7] = ["pts", "shm", "fd", "mqueue", "console", "ptmx", ".udev"];
    let mut found = Vec::new();
    let mut pending = vec![dev.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(source) if directory == dev => return Err(Error::Read { path: directory, source }),
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            let own = OWN.iter().any(|name| entry.file_name() == *name);
            let Ok(metadata) = entry.metadata() else { continue };
            let kind = metadata.file_type();
            if directory == dev && own {
                continue;
            }
            if kind.is_dir() {
                pending.push(entry.path());
            } else {
                found.extend(device_of(&entry.path(), &metadata));
            }
        }
    }
    found.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_the_kernels() {
        let list = |text| cpu_list(text).map(|cpus| cpus.into_iter().collect::<Vec<_>>());
        assert_eq!(list("0"), Some(vec![0]));
        assert_eq!(list("0-2,5"), Some(vec![0, 1, 2, 5]));
        for text in ["", "a", "3-1", "1-", "-1", "0,,1", "0-4294967295"] {
            assert_eq!(list(text), None, "{text:?}");
        }
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read().unwrap();
        assert!(machine.online_cpus.contains(&0), "CPU 0 can't be taken offline on most machines");
        assert!(machine.kernel >= (4, 0), "{:?}", machine.kernel);
        assert!(machine.capabilities.0 < 1 << 41, "{:?}", machine.capabilities);
        assert!(!machine.hostname.is_empty());
    }

    #[test]
    fn the_devices_of_the_host_are_nodes_and_no_terminals() {
        let devices = host_devices(Path::new("/dev")).unwrap();
        let null = devices.iter().find(|device| device.path == Path::new("/dev/null")).unwrap();
        assert_eq!((null.block, null.major, null.minor), (false, 1, 3));
        assert!(devices.iter().all(|device| !device.path.starts_with("/dev/pts")));
        assert!(devices.iter().all(|device| device.path != Path::new("/dev/console")));
    }

    #[test]
    fn a_release_and_a_status_are_read_where_they_say_it() {
        assert_eq!(kernel_version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("5.10-rc1"), Some((5, 10)));
        assert_eq!(kernel_version("unknown"), None);
        let status = "Name:\tx\nCapPrm:\tffffffffffffffff\nCapBnd:\t0000000001000001\n";
        assert_eq!(capabilities_of(status), CapabilitySet(1 << SYS_RESOURCE | 1));
        assert_eq!(capabilities_of("Name:\tx\n"), CapabilitySet(0));
    }
}
