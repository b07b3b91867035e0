//! Making a new group able to hold limits: controllers of the unified hierarchy are switched on level
//! by level, a v1 cpuset gets something to share.
//!
//! On the way down others may be in charge. A level that has processes of its own can't have
//! controllers below it (EBUSY: "no internal processes" of cgroups(7)), one that was delegated has only
//! what its owner passed on (EACCES, ENOENT), a threaded one knows only some (EOPNOTSUPP). That is an
//! error when a limit needs what is missing, and nothing to anybody else.

use std::path::Path;

use rustix::fs::{CWD, Gid, Uid};
use rustix::io::Errno;

use crate::{Controller, Error, read, write};

/// What limits and statistics need.
const WANTED: [&str; 7] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids", "rdma"];

/// Switches controllers on for the group at `path`: on v2 all that there are, on a hybrid machine
/// those of the limits in `asked` that are in no v1 hierarchy. Those that are on afterwards.
///
/// # Errors
/// [`Error::NotDelegated`] for the first limit whose controller could not be switched on.
pub(crate) fn enable(
    mount: &Path,
    path: &str,
    everything: bool,
    asked: &[(&'static str, Controller)],
) -> Result<String, Error> {
    let there = read(&mount.join("cgroup.controllers"))?;
    let needed = |name: &str| asked.iter().any(|(_, asked)| asked.unified_name() == name);
    let wanted: Vec<&str> = there
        .split_whitespace()
        .filter(|name| (everything && WANTED.contains(name)) || needed(name))
        .collect();
    let file = mount.join(path).join("cgroup.controllers");
    let on = read(&file)?;
    if wanted.iter().all(|name| has(&on, name)) {
        return Ok(on);
    }
    let mut refused = None;
    let mut level = mount.to_owned();
    for name in path.split('/') {
        if let Err(error) = enable_below(&level, &wanted) {
            refused.get_or_insert(error);
        }
        level.push(name);
    }
    let on = read(&file)?;
    for (limit, controller) in asked {
        let name = controller.unified_name();
        if has(&there, name) && !has(&on, name) {
            let (level, errno) = refused.unwrap_or((level, Errno::NOENT));
            let (limit, controller) = (*limit, *controller);
            return Err(Error::NotDelegated { limit, controller, level, errno });
        }
    }
    Ok(on)
}

fn has(list: &str, name: &str) -> bool {
    list.split_whitespace().any(|other| other == name)
}

/// Switches on what is missing below one level; what can be, when not all can.
fn enable_below(level: &Path, wanted: &[&str]) -> Result<(), (std::path::PathBuf, Errno)> {
    let refused = |error: &Error| (level.to_owned(), error.errno().unwrap_or(Errno::NOENT));
    let file = level.join("cgroup.subtree_control");
    let on = read(&file).map_err(|error| refused(&error))?;
    let missing: Vec<String> =
        wanted.iter().filter(|name| !has(&on, name)).map(|name| format!("+{name}")).collect();
    if missing.is_empty() || write(&file, &missing.join(" ")).is_ok() {
        return Ok(());
    }
    let mut first = Ok(());
    for name in &missing {
        if let Err(error) = write(&file, name) {
            first = first.and(Err(refused(&error)));
        }
    }
    first
}

/// Below a threaded group every other must be one as well, or no process can join it.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn become_threaded_below_threaded(group: &Path) -> Result<(), Error> {
    let file = group.join("cgroup.type");
    match read(&file) {
        Ok(kind) if kind.trim() == "domain invalid" => write(&file, "threaded"),
        // Before Linux 4.14 there was no other type.
        Ok(_) | Err(Error::Io { errno: Errno::NOENT, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Gives a new v1 cpuset group the CPUs and memory nodes of its parent: it is born with none, and
/// nothing can join it.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn inherit_cpuset(mount: &Path, path: &str) -> Result<(), Error> {
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

/// Hands a group of the unified hierarchy to the root of a user namespace: the directory and the
/// files that the kernel says are the delegatee's (`/sys/kernel/cgroup/delegate`), never its limits.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn delegate(group: &Path, uid: u32, gid: u32) -> Result<(), Error> {
    const SINCE_4_15: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";
    let list = read(Path::new("/sys/kernel/cgroup/delegate"));
    let list = list.unwrap_or_else(|_| SINCE_4_15.to_owned());
    let owner = (Uid::from_raw(uid), Gid::from_raw(gid));
    let chown = |path: &Path| {
        rustix::fs::chownat(CWD, path, Some(owner.0), Some(owner.1), rustix::fs::AtFlags::empty())
    };
    chown(group).map_err(|errno| Error::io("hand over", group, errno))?;
    for name in list.lines().filter(|name| !name.contains('/')) {
        let file = group.join(name);
        match chown(&file) {
            // Of a controller that is not on.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::io("hand over", &file, errno)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A tree of plain files, which take a write as the kernel's do not: only what was asked for can
    /// be seen.
    fn tree(controllers: &str, levels: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), controllers).unwrap();
        for (level, on) in levels {
            fs::create_dir_all(root.path().join(level)).unwrap();
            fs::write(root.path().join(level).join("cgroup.controllers"), on).unwrap();
            fs::write(root.path().join(level).join("cgroup.subtree_control"), "").unwrap();
        }
        root
    }

    fn asked_of(root: &Path, level: &str) -> String {
        fs::read_to_string(root.join(level).join("cgroup.subtree_control")).unwrap()
    }

    #[test]
    fn controllers_are_switched_on_above_the_group_and_not_in_it() {
        let root = tree("cpu io memory misc pids\n", &[("", ""), ("a", ""), ("a/b", "")]);
        fs::write(root.path().join("cgroup.controllers"), "cpu io memory misc pids\n").unwrap();
        enable(root.path(), "a/b", true, &[]).unwrap();
        for level in ["", "a"] {
            assert_eq!(asked_of(root.path(), level), "+cpu +io +memory +pids", "{level:?}");
        }
        assert_eq!(asked_of(root.path(), "a/b"), "", "it may have processes");
    }

    #[test]
    fn a_hybrid_machine_gets_only_what_is_asked_for() {
        let root = tree("", &[("", ""), ("a", "")]);
        fs::write(root.path().join("cgroup.controllers"), "hugetlb rdma\n").unwrap();
        enable(root.path(), "a", false, &[]).unwrap();
        assert_eq!(asked_of(root.path(), ""), "");
        let asked = [("hugepageLimits", Controller::Hugetlb)];
        let said = enable(root.path(), "a", false, &asked).unwrap_err().to_string();
        assert_eq!(asked_of(root.path(), ""), "+hugetlb");
        assert!(
            said.starts_with(
                "linux.resources.hugepageLimits: controller \"hugetlb\" is not passed on"
            ),
            "{said}"
        );
    }

    #[test]
    fn the_files_of_a_delegatee_change_hands_and_limits_do_not() {
        use std::os::unix::fs::MetadataExt;
        let root = tree("", &[("a", "")]);
        let group = root.path().join("a");
        for file in ["cgroup.procs", "cgroup.threads", "memory.max"] {
            fs::write(group.join(file), "").unwrap();
        }
        let own = fs::metadata(&group).unwrap().uid();
        if own != 0 {
            return;
        }
        delegate(&group, 1234, 1235).unwrap();
        let owner = |name: &str| {
            let found = fs::metadata(group.join(name)).unwrap();
            (found.uid(), found.gid())
        };
        for name in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
            assert_eq!(owner(name), (1234, 1235), "{name:?}");
        }
        assert_eq!(owner("memory.max"), (0, 0));
    }

    #[test]
    fn a_group_below_a_threaded_one_becomes_threaded() {
        let root = tree("", &[("a", "")]);
        let group = root.path().join("a");
        let file = group.join("cgroup.type");
        for (kind, expected) in [("domain invalid\n", "threaded"), ("domain\n", "domain\n")] {
            fs::write(&file, kind).unwrap();
            become_threaded_below_threaded(&group).unwrap();
            // A plain file keeps the end of a longer text.
            let found = fs::read_to_string(&file).unwrap();
            assert!(found.starts_with(expected), "{found}");
        }
    }
}
