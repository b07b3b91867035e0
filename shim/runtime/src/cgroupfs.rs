//! A container's own control groups, at `/sys/fs/cgroup`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{OpenTreeFlags, open_tree};
use shim_cgroup::Layout;
use shim_wire::plan::PlanMount;

use crate::error::At;
use crate::rootfs::Root;
use crate::{Error, Step, mounts};

/// Whose groups are shown.
#[derive(Debug)]
pub(crate) enum View<'a> {
    /// Of the cgroup namespace that the caller is in.
    Namespace,
    /// The container's own directories, bound: without a namespace of its own the whole tree of the
    /// host would appear.
    Bound(&'a str),
}

/// Mounts every hierarchy: v2 as it is, v1 and hybrid as a tmpfs with a directory each.
pub(crate) fn mount(
    root: &Root,
    mount: &PlanMount,
    layout: &Layout,
    view: &View<'_>,
) -> Result<(), Error> {
    let place = mounts::place(root, mount, crate::rootfs::Leaf::Directory)?;
    if let (true, Some(unified)) = (layout.is_v2(), layout.unified()) {
        let hierarchy = hierarchy("cgroup2", "", unified, view, mount.flags)?;
        return mounts::attach(&hierarchy, place.as_fd(), &mount.destination);
    }
    let context = mounts::new_file_system("tmpfs", "tmpfs", "mode=755,size=64k")?;
    // Read-only only at the end: the directories in it are still to be made.
    let tmpfs = mounts::finish_file_system(&context, mount.flags & !1)
        .at(Step::Mount, &mount.destination)?;
    mounts::attach(&tmpfs, place.as_fd(), &mount.destination)?;
    for (name, option, at) in layout.v1_mounts() {
        let hierarchy = hierarchy("cgroup", option, at, view, mount.flags)?;
        let place = directory(&tmpfs, name)?;
        mounts::attach(&hierarchy, place.as_fd(), name)?;
        // `cpu` and `cpuacct` beside `cpu,cpuacct`, as systems have it.
        for alias in option.split(',').filter(|alias| *alias != name && !alias.contains('=')) {
            rustix::fs::symlinkat(name, &tmpfs, alias).at(Step::MakeLink, alias)?;
        }
    }
    if let Some(unified) = layout.unified() {
        let hierarchy = hierarchy("cgroup2", "", unified, view, mount.flags)?;
        let place = directory(&tmpfs, "unified")?;
        mounts::attach(&hierarchy, place.as_fd(), "unified")?;
    }
    match mount.flags & 1 {
        0 => Ok(()),
        _ => mounts::make_read_only(tmpfs.as_fd(), false, &mount.destination),
    }
}

fn hierarchy(
    kind: &str,
    option: &str,
    at: &Path,
    view: &View<'_>,
    flags: u64,
) -> Result<OwnedFd, Error> {
    match view {
        View::Namespace => {
            // A named hierarchy has no controllers, which has to be said.
            let data =
                if option.contains('=') { format!("none,{option}") } else { option.to_owned() };
            let context = mounts::new_file_system(kind, "cgroup", &data)?;
            mounts::finish_file_system(&context, flags)
                .at(Step::Mount, format_args!("{kind} {option}"))
        }
        View::Bound(path) => {
            let source = at.join(path);
            let how = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let copy = open_tree(CWD, &source, how).at(Step::Mount, source.display())?;
            mounts::set_flags(&copy, flags, &source.to_string_lossy())?;
            Ok(copy)
        }
    }
}

fn directory(tmpfs: &OwnedFd, name: &str) -> Result<OwnedFd, Error> {
    rustix::fs::mkdirat(tmpfs, name, Mode::from_raw_mode(0o755)).at(Step::MakeTarget, name)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat(tmpfs, name, flags, Mode::empty()).at(Step::MakeTarget, name)?;
    Ok(place)
}
