//! Which hierarchies a machine has, found from what is mounted.
//!
//! ```text
//!  v2      /sys/fs/cgroup                        one hierarchy with all controllers
//!  v1      /sys/fs/cgroup/memory, …/cpu, …       one for each controller, and systemd's named one
//!  hybrid  v1, and /sys/fs/cgroup/unified        the unified one, with few controllers or none
//! ```

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::{Controller, Error};

const ROOT: &str = "/sys/fs/cgroup";
/// CGROUP2_SUPER_MAGIC of statfs(2).
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// The hierarchies of this machine; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout(Arc<Inner>);

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    v1: Vec<Hierarchy>,
    unified: Option<PathBuf>,
}

/// A v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    mount: PathBuf,
    /// What tells it from the others: `cpu,cpuacct`, `name=systemd`.
    subsystems: String,
}

impl Hierarchy {
    pub(crate) fn mount(&self) -> &Path {
        &self.mount
    }

    pub(crate) fn has(&self, controller: Controller) -> bool {
        self.subsystems.split(',').any(|name| name == controller.name())
    }
}

impl Layout {
    /// Looks at what is mounted, once in the life of a process: a machine does not change its
    /// hierarchies, and the mount table of a busy one is long.
    ///
    /// # Errors
    /// [`Error::NoHierarchy`] when no cgroup file system is mounted; [`Error::Io`].
    pub fn detect() -> Result<Self, Error> {
        static FOUND: OnceLock<Layout> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(found.clone());
        }
        let found = Self::look()?;
        Ok(FOUND.get_or_init(|| found).clone())
    }

    fn look() -> Result<Self, Error> {
        // One call instead of the whole mount table on the machines that are becoming the rule.
        if rustix::fs::statfs(ROOT).is_ok_and(|found| found.f_type as u64 == CGROUP2_MAGIC) {
            return Ok(Self(Arc::new(Inner { v1: Vec::new(), unified: Some(ROOT.into()) })));
        }
        let layout = Self::parse(&crate::read(Path::new("/proc/self/mountinfo"))?);
        if layout.0.v1.is_empty() && layout.0.unified.is_none() {
            return Err(Error::NoHierarchy);
        }
        Ok(layout)
    }

    /// The layout in the text of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
    #[must_use]
    pub fn parse(mountinfo: &str) -> Self {
        let mut v1: Vec<Hierarchy> = Vec::new();
        let mut unified: Option<PathBuf> = None;
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let Some(mount) = before.split(' ').nth(4).map(|field| PathBuf::from(unescape(field)))
            else {
                continue;
            };
            let mut after = after.split(' ');
            let kind = after.next().unwrap_or_default();
            let options = after.nth(1).unwrap_or_default();
            if kind == "cgroup2" && unified.is_none() {
                unified = Some(mount);
            } else if kind == "cgroup" {
                let subsystems = subsystems(options);
                if !v1.iter().any(|hierarchy| hierarchy.subsystems == subsystems) {
                    v1.push(Hierarchy { mount, subsystems });
                }
            }
        }
        Self(Arc::new(Inner { v1, unified }))
    }

    /// Whether the unified hierarchy is the only one, and so has the controllers.
    #[must_use]
    pub fn is_v2(&self) -> bool {
        self.0.v1.is_empty()
    }

    /// Where the unified hierarchy is mounted, on v2 and hybrid.
    #[must_use]
    pub fn unified(&self) -> Option<&Path> {
        self.0.unified.as_deref()
    }

    /// The controllers that the unified hierarchy has, separated by spaces: on a hybrid machine what
    /// is in no v1 one.
    pub(crate) fn unified_controllers(&self) -> Result<String, Error> {
        self.unified()
            .map_or(Ok(String::new()), |mount| crate::read(&mount.join("cgroup.controllers")))
    }

    pub(crate) fn v1(&self) -> &[Hierarchy] {
        &self.0.v1
    }

    pub(crate) fn controller(&self, controller: Controller) -> Option<&Hierarchy> {
        self.0.v1.iter().find(|hierarchy| hierarchy.has(controller))
    }

    /// The mount point of every hierarchy, the unified one first.
    pub(crate) fn mounts(&self) -> impl Iterator<Item = &Path> {
        self.unified().into_iter().chain(self.0.v1.iter().map(Hierarchy::mount))
    }

    /// The v1 hierarchies as a container sees them below `/sys/fs/cgroup`: the name of the
    /// directory, the option that mounts it (`cpu,cpuacct`, `name=systemd`), and where the host has
    /// it.
    pub fn v1_mounts(&self) -> impl Iterator<Item = (&str, &str, &Path)> {
        self.0.v1.iter().map(|hierarchy| {
            let name = hierarchy.mount.file_name().and_then(std::ffi::OsStr::to_str);
            let subsystems = hierarchy.subsystems.as_str();
            (name.unwrap_or(subsystems), subsystems, hierarchy.mount())
        })
    }
}

/// The options that say which hierarchy it is, without those that say how it is mounted.
fn subsystems(options: &str) -> String {
    const HOW: &[&str] =
        &["rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods"];
    let which = options
        .split(',')
        .filter(|option| !HOW.contains(option) && !option.starts_with("release_agent="));
    which.collect::<Vec<_>>().join(",")
}

/// Undoes the octal escapes of space, tab, newline and backslash.
fn unescape(field: &str) -> String {
    let mut plain = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                plain.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
22 27 0:21 / /proc rw - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/systemd rw shared:2 - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
34 31 0:29 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn hybrid_has_each_hierarchy_once() {
        let layout = Layout::parse(HYBRID);
        assert!(!layout.is_v2());
        assert_eq!(layout.unified(), Some(Path::new("/sys/fs/cgroup/unified")));
        let mounts: Vec<_> = layout.v1_mounts().collect();
        let root = Path::new("/sys/fs/cgroup");
        assert_eq!(
            mounts,
            [
                ("cpu,cpuacct", "cpu,cpuacct", root.join("cpu,cpuacct").as_path()),
                ("systemd", "name=systemd", root.join("systemd").as_path()),
            ]
        );
        assert!(layout.controller(Controller::Cpu).is_some());
        assert!(layout.controller(Controller::Memory).is_none());
    }

    #[test]
    fn v2_is_one_hierarchy_wherever_it_is_mounted() {
        let layout = Layout::parse("29 23 0:26 / /my\\040cgroups rw shared:9 - cgroup2 none rw\n");
        assert!(layout.is_v2());
        assert_eq!(layout.unified(), Some(Path::new("/my cgroups")));
    }

    #[test]
    fn lines_that_say_nothing_are_passed_over() {
        let layout = Layout::parse("\n - \n1 2 3 - cgroup2\n\u{fffd} - cgroup x\n");
        assert_eq!(layout.unified(), None);
    }

    #[test]
    fn escapes_are_undone_and_odd_ones_kept() {
        assert_eq!(unescape("a\\040b\\134c\\9\\"), "a b\\c\\9\\");
    }
}
