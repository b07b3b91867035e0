//! The rootfs itself: an overlay of layers, or a directory.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use shim_rootfs::overlay::{Layers, Made, Upper};
use shim_wire::plan::Rootfs;

use crate::{Error, mounts};

/// Assembles the rootfs.
pub(crate) fn make(rootfs: &Rootfs) -> Result<Made, Error> {
    match rootfs.lower.as_slice() {
        [] => bind(&rootfs.directory).map(Made::Detached),
        // Not an overlay for kernels before 6.10, and none is needed.
        [layer] if rootfs.upper.is_empty() => view(layer).map(Made::Detached),
        lower @ [_, ..] => {
            let upper = (!rootfs.upper.is_empty()).then_some(Upper {
                directory: &rootfs.upper,
                work: &rootfs.work,
                volatile: rootfs.volatile,
            });
            let options = &rootfs.overlay_options;
            Ok(shim_rootfs::overlay::make(&Layers { lower, upper, options })?)
        }
    }
}

/// A copy of the directory's mount, with what is mounted below it.
fn bind(directory: &str) -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let mount = open_tree(CWD, directory, flags).map_err(|errno| missing(directory, errno))?;
    mounts::make_private(&mount, directory)?;
    Ok(mount)
}

/// A single layer as it is, read-only.
fn view(layer: &str) -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, layer, flags).map_err(|errno| missing(layer, errno))?;
    mounts::make_private(&mount, layer)?;
    mounts::make_read_only(mount.as_fd(), false, layer)?;
    Ok(mount)
}

fn missing(source: &str, errno: Errno) -> Error {
    Error::MountSource { source: source.to_owned(), destination: "/".to_owned(), errno }
}
