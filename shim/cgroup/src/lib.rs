//! Control groups of containers: make, limit, join, count, kill, remove.
//!
//! One container has one path (`bosun/default/web`) in every hierarchy of the machine: each v1
//! controller's, systemd's named one, and the unified one on v2 and hybrid machines. Used by the shim
//! on the way of a start, so each function makes as few system calls as it can, and by the daemon to
//! kill and clean up what a lost shim left.
//!
//! | module | what |
//! |---|---|
//! | [`layout`](crate::Layout) | which hierarchies there are, and where |
//! | `check` | what the machine can't grant, before anything is made |
//! | `settings` | limits as files of v1 and v2 |
//! | `apply` | writing them, and taking them back |
//! | `controllers` | making a new group able to hold limits; delegation |
//! | `update` | new limits for a group in use |
//! | `devices` | device rules, a program on v2 |
//! | `stats` | what a group uses, in containerd's messages |
//! | `oom` | being told when the kernel kills for want of memory |
//! | `own` | what the groups of the calling process itself allow it |
//! | `kill` | ending everything in a group, and removing it |
//! | `freeze` | stopping everything in a group, and letting it go on |
//!
//! Deliberately absent: systemd as a manager, and processes in inner nodes: a container's
//! group is a leaf until the container itself divides it.
#![forbid(unsafe_code)]

mod apply;
mod check;
mod controllers;
mod devices;
mod error;
mod freeze;
mod kill;
mod layout;
mod oom;
mod own;
mod settings;
mod stats;
mod update;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use shim_wire::plan::{DeviceRule, Resources};

pub use error::{Controller, Error, Reason};
pub use kill::{list, prune};
pub use layout::Layout;
pub use oom::OomWatch;
pub use settings::cpu_weight;
use settings::{Setting, Settings};
pub use stats::Metrics;
pub use update::Held;

/// What v1 shows for no limit of memory is the greatest number of bytes in whole pages (memory.txt, 8), whose
/// size differs: so much is none in any case.
const UNLIMITED: u64 = 1 << 62;

/// A container's group, in all hierarchies at once.
#[derive(Clone, Debug)]
pub struct Cgroup {
    layout: Layout,
    path: String,
}

/// The way into a group of one v1 hierarchy.
#[derive(Debug)]
pub struct Door {
    file: OwnedFd,
    path: PathBuf,
}

impl Door {
    /// Moves the calling, single-threaded process into the group.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn enter(&self) -> Result<(), Error> {
        retry(|| rustix::io::write(&self.file, b"0"))
            .map(drop)
            .map_err(|errno| Error::io("write", &self.path, errno))
    }
}

impl Cgroup {
    /// Names a group; touches nothing.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] when the path is not a plain relative one of at least one component.
    pub fn new(layout: &Layout, path: &str) -> Result<Self, Error> {
        let plain =
            |name: &str| !name.is_empty() && name != "." && name != ".." && name.len() <= 255;
        if path.len() > 1024 || path.contains('\0') || !path.split('/').all(plain) {
            return Err(Error::InvalidPath { path: path.to_owned() });
        }
        Ok(Self { layout: layout.clone(), path: path.to_owned() })
    }

    /// Makes the group in every hierarchy and sets its limits. What exists already is kept.
    ///
    /// # Errors
    /// [`Error::MissingController`] and [`Error::LimitRefused`] for limits that this machine can't
    /// grant, checked before anything is made where that can be known; otherwise [`Error::Io`].
    pub fn create(&self, resources: &Resources) -> Result<(), Error> {
        check::check_new(&self.layout, resources)?;
        for mount in self.layout.mounts() {
            self.make(mount)?;
        }
        if let Some(hierarchy) = self.layout.controller(Controller::Cpuset) {
            controllers::inherit_cpuset(hierarchy.mount(), &self.path)?;
        }
        if let Some(unified) = self.layout.unified() {
            let everything = self.layout.is_v2();
            if everything {
                controllers::become_threaded_below_threaded(&unified.join(&self.path))?;
            }
            self.enable(unified, everything, resources)?;
        }
        apply::apply(self.settings(resources)?, None)?;
        self.set_devices(&resources.devices)
    }

    /// Switches on what the unified hierarchy has to hold.
    fn enable(&self, unified: &Path, everything: bool, resources: &Resources) -> Result<(), Error> {
        let none = resources.hugepages.iter().any(|limit| limit.limit == 0);
        if none && self.layout.controller(Controller::Hugetlb).is_none() {
            // Wherever they can be counted there are to be none; elsewhere that is no error.
            let asked = [("hugepageLimits", Controller::Hugetlb)];
            let _ = controllers::enable(unified, &self.path, everything, &asked);
        }
        let asked = self.asked_of_unified(resources);
        if everything || !asked.is_empty() {
            controllers::enable(unified, &self.path, everything, &asked)?;
        }
        Ok(())
    }

    /// The limits that the unified hierarchy has to hold.
    fn asked_of_unified(&self, resources: &Resources) -> Vec<(&'static str, Controller)> {
        let mut asked = check::asked(resources);
        asked.retain(|(_, controller)| self.layout.controller(*controller).is_none());
        for file in resources.unified.keys() {
            let controller = file.split('.').next();
            let known = Controller::ALL.into_iter();
            asked.extend(
                known
                    .filter(|known| Some(known.unified_name()) == controller)
                    .map(|known| ("unified", known)),
            );
        }
        asked
    }

    /// What every hierarchy is to be told.
    fn settings(&self, resources: &Resources) -> Result<Vec<Setting>, Error> {
        let mut settings = Vec::new();
        for hierarchy in self.layout.v1() {
            let group = hierarchy.mount().join(&self.path);
            settings.extend(Settings::v1(&group, resources, |one| hierarchy.has(one)));
        }
        if let Some(unified) = self.layout.unified() {
            // A controller is in one hierarchy.
            let here = |one| self.layout.controller(one).is_none();
            settings.extend(Settings::v2(&unified.join(&self.path), resources, here)?);
        }
        Ok(settings)
    }

    fn set_devices(&self, rules: &[DeviceRule]) -> Result<(), Error> {
        match (self.layout.controller(Controller::Devices), self.layout.unified()) {
            (Some(hierarchy), _) => devices::write(&hierarchy.mount().join(&self.path), rules),
            (None, Some(unified)) => devices::attach(&unified.join(&self.path), rules),
            (None, None) => Ok(()),
        }
    }

    /// Hands the group in the unified hierarchy to a user namespace's root, so that the container can
    /// divide it: its directory and the files of a delegatee, not its limits.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn delegate(&self, uid: u32, gid: u32) -> Result<(), Error> {
        match self.layout.unified() {
            Some(unified) => controllers::delegate(&unified.join(&self.path), uid, gid),
            None => Ok(()),
        }
    }

    /// Makes the group in the unified hierarchy alone and opens it, for a process that shall be born
    /// into it (CLONE_INTO_CGROUP). `None` on a v1 machine.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create_unified(&self) -> Result<Option<OwnedFd>, Error> {
        let Some(unified) = self.layout.unified() else { return Ok(None) };
        let directory = self.make(unified)?;
        self.open(&directory).map(Some)
    }

    /// Opens the group in the unified hierarchy. `None` on a v1 machine.
    ///
    /// # Errors
    /// [`Error::Io`], `ENOENT` when it does not exist.
    pub fn open_unified(&self) -> Result<Option<OwnedFd>, Error> {
        self.layout.unified().map(|mount| self.open(&mount.join(&self.path))).transpose()
    }

    /// Opens the group below this one, in the unified hierarchy, that a process is in: where others
    /// can join it when the container has divided its group and moved itself down.
    ///
    /// # Errors
    /// [`Error::Io`], `ENOENT` when the process is gone, or is in no group of this container.
    pub fn open_unified_of(&self, pid: i32) -> Result<Option<OwnedFd>, Error> {
        let Some(mount) = self.layout.unified() else { return Ok(None) };
        let file = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let text = read(&file)?;
        let group = text.lines().find_map(|line| line.strip_prefix("0::/"));
        let rest = group.and_then(|group| group.strip_prefix(&self.path));
        match group {
            Some(group) if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) => {
                self.open(&mount.join(group)).map(Some)
            }
            Some(_) | None => Err(Error::io("find the group in", &file, Errno::NOENT)),
        }
    }

    fn open(&self, directory: &Path) -> Result<OwnedFd, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(directory, flags, Mode::empty())
            .map_err(|errno| Error::io("open", directory, errno))
    }

    /// Moves a process, with all its threads, into the group in every hierarchy.
    ///
    /// # Errors
    /// [`Error::Io`], `ESRCH` when the process is gone.
    pub fn join(&self, pid: i32) -> Result<(), Error> {
        let pid = pid.to_string();
        for directory in self.paths() {
            write(&directory.join("cgroup.procs"), &pid)?;
        }
        Ok(())
    }

    /// Moves the calling, single-threaded process into the group in the v1 hierarchies; the unified
    /// one it was born into.
    ///
    /// A thread that moves itself through `tasks` is spared the lock over all forks of the machine
    /// that every other way takes, and with it a wait of up to 15 ms for a grace period (the kernel's
    /// `cgroup_procs_write_start`).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn join_self_v1(&self) -> Result<(), Error> {
        self.open_doors_v1()?.iter().try_for_each(Door::enter)
    }

    /// The files by which [`join_self_v1`](Self::join_self_v1) moves a thread, to be used by one that
    /// may not open them any more: what counts is who opened them.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open_doors_v1(&self) -> Result<Vec<Door>, Error> {
        let open = |hierarchy: &layout::Hierarchy| {
            let path = hierarchy.mount().join(&self.path).join("tasks");
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            match rustix::fs::open(&path, flags, Mode::empty()) {
                Ok(file) => Ok(Door { file, path }),
                Err(errno) => Err(Error::io("write", &path, errno)),
            }
        };
        self.layout.v1().iter().map(open).collect()
    }

    /// Whether the group is there in any hierarchy.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.paths().iter().any(|path| path.exists())
    }

    /// The groups above this one that are not there, in all hierarchies, the deepest first.
    #[must_use]
    pub fn missing_above(&self) -> Vec<PathBuf> {
        let mut missing = Vec::new();
        for mount in self.layout.mounts() {
            let group = mount.join(&self.path);
            let above = group.ancestors().skip(1);
            missing.extend(
                above.take_while(|path| *path != mount && !path.exists()).map(Path::to_path_buf),
            );
        }
        missing
    }

    /// The group's directory in each hierarchy, the unified one first.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.layout.mounts().map(|mount| mount.join(&self.path)).collect()
    }

    /// The hierarchies it is in.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The relative path it was named by.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// How often the kernel killed a process of this group, or of one below it, for want of memory.
    /// 0 when nobody counts.
    ///
    /// # Errors
    /// [`Error::Io`], `ENOENT` when the group does not exist.
    pub fn oom_kills(&self) -> Result<u64, Error> {
        if self.layout.is_v2() {
            let Some(mount) = self.layout.unified() else { return Ok(0) };
            // Counts the groups below as well.
            return oom_kills_in(&mount.join(&self.path).join("memory.events"));
        }
        let Some(hierarchy) = self.layout.controller(Controller::Memory) else { return Ok(0) };
        let mut total = 0;
        for directory in kill::tree(&hierarchy.mount().join(&self.path)) {
            total += oom_kills_in(&directory.join("memory.oom_control"))?;
        }
        Ok(total)
    }

    /// The same of the group above and all that are or were in it. `None` where nobody counts what was in
    /// groups that are gone, as on v1.
    ///
    /// What somebody else may remove as soon as it is empty can be asked for no other way: systemd does so
    /// with a scope, and may come before whoever waits for the end of a process.
    #[must_use]
    pub fn oom_kills_above(&self) -> Option<u64> {
        let mount = self.layout.unified().filter(|_| self.layout.is_v2())?;
        oom_kills_in(&mount.join(&self.path).parent()?.join("memory.events")).ok()
    }

    /// Makes the group's directory in one hierarchy, and those above it when they are missing.
    fn make(&self, mount: &Path) -> Result<PathBuf, Error> {
        let directory = mount.join(&self.path);
        // Somebody may remove an inner group while it is empty, so begin again a few times.
        for _ in 0..8 {
            match make_readable(&directory) {
                Ok(()) | Err(Errno::EXIST) => return Ok(directory),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(Error::io("make", &directory, errno)),
            }
            let mut inner = mount.to_owned();
            let Some((parents, _)) = self.path.rsplit_once('/') else { break };
            for name in parents.split('/') {
                inner.push(name);
                match make_readable(&inner) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(Errno::NOENT) => break,
                    Err(errno) => return Err(Error::io("make", &inner, errno)),
                }
            }
        }
        Err(Error::io("make", &directory, Errno::NOENT))
    }
}

/// Makes one directory of a hierarchy. Whatever the umask is, whoever is in a container reads its
/// limits: a program that is not root sizes itself by them.
fn make_readable(directory: &Path) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdir(directory, mode)?;
    rustix::fs::chmod(directory, mode)
}

/// The count of `oom_kill` in a file of `name value` lines.
fn oom_kills_in(path: &Path) -> Result<u64, Error> {
    let text = match read(path) {
        // The memory controller is not switched on for this group.
        Err(Error::Io { errno: Errno::NOENT, .. }) if path.parent().is_some_and(Path::exists) => {
            return Ok(0);
        }
        other => other?,
    };
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    Ok(count.unwrap_or(0))
}

/// Writes a control file in one write, as each of them wants it.
fn write(path: &Path, value: &str) -> Result<(), Error> {
    let result = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| retry(|| rustix::io::write(&file, value.as_bytes())));
    result.map(drop).map_err(|errno| Error::io("write", path, errno))
}

fn read(path: &Path) -> Result<String, Error> {
    let mut text = Vec::new();
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| read_to_end(&file, &mut text))
        .map_err(|errno| Error::io("read", path, errno))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn read_to_end(file: &OwnedFd, text: &mut Vec<u8>) -> Result<(), Errno> {
    let mut chunk = [0; 4096];
    loop {
        match retry(|| rustix::io::read(file, &mut chunk))? {
            0 => return Ok(()),
            count => text.extend_from_slice(&chunk[..count]),
        }
    }
}

/// Again until no signal interrupts it.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_name_a_group() {
        let layout = Layout::parse("");
        for path in ["a", "bosun/default/web", "a.b/c-d"] {
            assert!(Cgroup::new(&layout, path).is_ok(), "{path}");
        }
        let long = "x".repeat(256);
        for path in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\0b", &long] {
            assert!(Cgroup::new(&layout, path).is_err(), "{path:?}");
        }
    }
}
