//! A container's own control groups, at `/sys/fs/cgroup`.
//!
//! Each hierarchy appears as a bind of the container's own directory in it. Inside a cgroup namespace
//! that is the very mount that the kernel would make (its root is the namespace's root), for two
//! system calls instead of five; without one it keeps the rest of the host's tree out of sight.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode};
use rustix::mount::{OpenTreeFlags, open_tree};
use shim_cgroup::Cgroup;
use shim_rootfs::{Leaf, Root};
use shim_wire::plan::PlanMount;

use crate::error::At;
use crate::{Error, Rule, Step, mounts};

/// Mounts every hierarchy: v2 as it is, v1 and hybrid as a tmpfs with a directory each; of a
/// `cgroup2` on hybrid, the unified one alone. The groups must be made.
pub(crate) fn mount(root: &Root, mount: &PlanMount, cgroup: &Cgroup) -> Result<(), Error> {
    let layout = cgroup.layout();
    let place = mounts::place(root, mount, Leaf::Directory, false)?;
    let unified_alone = layout.is_v2() || mount.kind == "cgroup2";
    if unified_alone && layout.unified().is_none() {
        return Err(Error::refused(&mount.destination, Rule::NoUnified));
    }
    if let (true, Some(unified)) = (unified_alone, layout.unified()) {
        let group = bind(unified, cgroup, mount.flags)?;
        mounts::attach(&group, place.as_fd(), &mount.destination)?;
        return mounts::set_tree(&group, mount);
    }
    let context = mounts::new_file_system("tmpfs", "tmpfs", "mode=755,size=64k")?;
    // Read-only only at the end: the directories in it are still to be made.
    let flags = mount.flags & !mounts::READ_ONLY_FLAG;
    let tmpfs = mounts::finish_file_system(&context, flags).at(Step::Mount, &mount.destination)?;
    mounts::attach(&tmpfs, place.as_fd(), &mount.destination)?;
    for (name, subsystems, at) in layout.v1_mounts() {
        attach(&tmpfs, name, &bind(at, cgroup, mount.flags)?)?;
        // `cpu` and `cpuacct` beside `cpu,cpuacct`, as systems have it.
        for alias in subsystems.split(',').filter(|alias| *alias != name && !alias.contains('=')) {
            rustix::fs::symlinkat(name, &tmpfs, alias).at(Step::MakeLink, alias)?;
        }
    }
    if let Some(unified) = layout.unified() {
        attach(&tmpfs, "unified", &bind(unified, cgroup, mount.flags)?)?;
    }
    if mount.flags & mounts::READ_ONLY_FLAG != 0 {
        mounts::make_read_only(tmpfs.as_fd(), false, &mount.destination)?;
    }
    mounts::set_tree(&tmpfs, mount)
}

/// A copy of the container's directory in the hierarchy that is mounted at `at`.
fn bind(at: &Path, cgroup: &Cgroup, flags: u64) -> Result<OwnedFd, Error> {
    let source = at.join(cgroup.path());
    let how = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let copy = open_tree(CWD, &source, how).at(Step::Mount, source.display())?;
    mounts::set_flags(&copy, flags, &source.to_string_lossy())?;
    Ok(copy)
}

fn attach(tmpfs: &OwnedFd, name: &str, group: &OwnedFd) -> Result<(), Error> {
    rustix::fs::mkdirat(tmpfs, name, Mode::from_raw_mode(0o755)).at(Step::MakeTarget, name)?;
    mounts::attach_below(group, tmpfs, name)
}
