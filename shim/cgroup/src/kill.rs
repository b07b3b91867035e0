//! Ending everything in a group, removing it, and finding what was left.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::{Cgroup, Controller, Error, Layout, read, write};

/// Between two looks at something that is about to end: at first, and at most.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_micros(200);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(16);

impl Cgroup {
    /// The processes of the group and of those below it. Empty when it does not exist.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn procs(&self) -> Result<Vec<i32>, Error> {
        // A process can leave neither of these two without leaving the container's own group: one
        // is enough but for what joined by hand.
        let v1 = self.layout.v1().first().map(|hierarchy| hierarchy.mount());
        self.procs_of(self.layout.unified().into_iter().chain(v1))
    }

    /// As [`procs`](Self::procs), of every hierarchy: also what was put into a group of that name by
    /// somebody else, who need not have put it into all of them.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn procs_anywhere(&self) -> Result<Vec<i32>, Error> {
        self.procs_of(self.layout.mounts())
    }

    fn procs_of<'a>(&self, mounts: impl Iterator<Item = &'a Path>) -> Result<Vec<i32>, Error> {
        let mut pids = BTreeSet::new();
        for mount in mounts {
            for directory in tree(&mount.join(&self.path)) {
                match read(&directory.join("cgroup.procs")) {
                    Ok(text) => pids.extend(text.lines().filter_map(|pid| pid.parse::<i32>().ok())),
                    Err(Error::Io { errno: Errno::NOENT | Errno::NODEV, .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        // 0 stands for a process of another pid namespace that has no number here.
        Ok(pids.into_iter().filter(|pid| *pid > 0).collect())
    }

    /// Kills everything in the group and waits until nothing is left in it.
    ///
    /// # Errors
    /// [`Error::StillPopulated`] at the deadline; [`Error::Io`].
    pub fn kill(&self, deadline: Instant) -> Result<(), Error> {
        let at_once = self.layout.unified().map(|mount| mount.join(&self.path).join("cgroup.kill"));
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(file) = &at_once {
                match write(file, "1") {
                    // Not there before Linux 5.14, and when the group does not exist.
                    Ok(()) | Err(Error::Io { errno: Errno::NOENT | Errno::NODEV, .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            if self.procs()?.is_empty() {
                return Ok(());
            }
            if pause > FIRST_PAUSE {
                // What is still there after the kernel's own way, if it has one.
                self.kill_one_by_one()?;
            }
            if Instant::now() >= deadline {
                let pids = self.procs()?;
                if pids.is_empty() {
                    return Ok(());
                }
                return Err(Error::StillPopulated { path: self.path.clone(), pids });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Freezes the group where it can be frozen, so that nothing forks away from under the list and
    /// no number is reused, signals each process, and thaws it.
    fn kill_one_by_one(&self) -> Result<(), Error> {
        let freezer = self.layout.controller(Controller::Freezer);
        let state = freezer.map(|freezer| freezer.mount().join(&self.path).join("freezer.state"));
        if let Some(state) = &state {
            ignore_absence(write(state, "FROZEN"))?;
        }
        let killed = self.procs().map(|pids| {
            for pid in pids {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    // Gone in the meantime is what is wanted.
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        });
        if let Some(state) = &state {
            ignore_absence(write(state, "THAWED"))?;
        }
        killed
    }

    /// Removes the group, and what a container made below it, from every hierarchy. A group that is
    /// not there is removed.
    ///
    /// # Errors
    /// [`Error::Io`], `EBUSY` when processes are still in it at the deadline.
    pub fn remove(&self, deadline: Instant) -> Result<(), Error> {
        for directory in self.paths() {
            remove_tree(&directory, deadline)?;
        }
        Ok(())
    }
}

fn ignore_absence(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Io { errno: Errno::NOENT | Errno::NODEV, .. }) => Ok(()),
        other => other,
    }
}

fn remove_tree(directory: &Path, deadline: Instant) -> Result<(), Error> {
    let mut pause = FIRST_PAUSE;
    loop {
        match rmdir(directory) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // Also while the last process is on its way out, a moment after it was reaped.
            Err(Errno::BUSY) => {}
            Err(errno) => return Err(Error::io("remove", directory, errno)),
        }
        for below in tree(directory).iter().skip(1).rev() {
            // Whatever fails here shows in the next try of the whole.
            let _ = rmdir(below);
        }
        if Instant::now() >= deadline {
            return match rmdir(directory) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(errno) => Err(Error::io("remove", directory, errno)),
            };
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn rmdir(directory: &Path) -> Result<(), Errno> {
    rustix::fs::unlinkat(CWD, directory, AtFlags::REMOVEDIR)
}

/// A group and all below it, each before what it holds; empty when it does not exist.
pub(crate) fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        if let Some(below) = children(&directory) {
            pending.extend(below.iter().map(|name| directory.join(name)));
            found.push(directory);
        }
    }
    found
}

/// The groups directly below one; `None` when it does not exist.
fn children(directory: &Path) -> Option<Vec<String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let file = rustix::fs::open(directory, flags, Mode::empty()).ok()?;
    // A group without any below it has two links (inode(7)); most have none.
    if rustix::fs::fstat(&file).is_ok_and(|found| found.st_nlink == 2) {
        return Some(Vec::new());
    }
    let mut names = Vec::new();
    for entry in Dir::new(file).ok()?.flatten() {
        let name = entry.file_name().to_string_lossy();
        if entry.file_type() == FileType::Directory && name != "." && name != ".." {
            names.push(name.into_owned());
        }
    }
    Some(names)
}

/// Every container's group below `prefix` in any hierarchy, as `PREFIX/NAMESPACE/ID`, sorted.
///
/// # Errors
/// [`Error::InvalidPath`] for a prefix that is none.
pub fn list(layout: &Layout, prefix: &str) -> Result<Vec<String>, Error> {
    let prefix = Cgroup::new(layout, prefix)?;
    let mut found = BTreeSet::new();
    for root in prefix.paths() {
        for namespace in children(&root).unwrap_or_default() {
            for id in children(&root.join(&namespace)).unwrap_or_default() {
                found.insert(format!("{}/{namespace}/{id}", prefix.path));
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// Removes the inner groups of `prefix` that hold nothing, and `prefix` itself when it holds nothing
/// any more. What is in use stays.
///
/// # Errors
/// [`Error::InvalidPath`] for a prefix that is none.
pub fn prune(layout: &Layout, prefix: &str) -> Result<(), Error> {
    for root in Cgroup::new(layout, prefix)?.paths() {
        for namespace in children(&root).unwrap_or_default() {
            let _ = rmdir(&root.join(namespace));
        }
        let _ = rmdir(&root);
    }
    Ok(())
}
