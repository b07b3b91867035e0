//! The rootfs itself: an overlay of layers, or a directory.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, OpenTreeFlags, UnmountFlags, mount, open_tree, unmount};
use shim_rootfs::overlay::{Layers, Made, Upper, takes_idmapped_layers};
use shim_wire::plan::Rootfs;

use crate::error::At;
use crate::userns::{UserNamespace, acting_as};
use crate::{Error, Rule, Step, mounts};

/// Assembles the rootfs.
pub(crate) fn make(rootfs: &Rootfs) -> Result<Made, Error> {
    match rootfs.lower.as_slice() {
        [] => bind(&rootfs.directory).map(Made::Detached),
        // Not an overlay for kernels before 6.10, and none is needed.
        [layer] if rootfs.upper.is_empty() => view(layer, None).map(Made::Detached),
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

/// Assembles the rootfs for a container of a user namespace: attached nowhere.
pub(crate) fn make_detached(rootfs: &Rootfs, user: &UserNamespace) -> Result<OwnedFd, Error> {
    if !rootfs.idmap || rootfs.lower.is_empty() {
        return match make(rootfs)? {
            Made::Detached(mount) => Ok(mount),
            Made::OnRoot => copy_of_covered_root(),
        };
    }
    match rootfs.lower.as_slice() {
        [layer] if rootfs.upper.is_empty() => view(layer, Some(user)),
        _ if !takes_idmapped_layers() => Err(Error::refused("/", Rule::CantIdmapOverlay)),
        _ => idmapped(rootfs, user),
    }
}

/// An overlay of id-mapped layers, nearest first, that nothing is written to.
pub(crate) fn of_mapped_layers(
    layers: Vec<String>,
    options: Vec<String>,
    user: &UserNamespace,
) -> Result<OwnedFd, Error> {
    if !takes_idmapped_layers() {
        return Err(Error::refused("an overlay of id-mapped layers", Rule::CantIdmapOverlay));
    }
    let layers = Rootfs { lower: layers, overlay_options: options, ..Rootfs::default() };
    idmapped(&layers, user)
}

/// An overlay whose layers are id-mapped, the one that is written to as well: on disk the files belong
/// to whom the image says, in the container to its users, and nothing is changed for it.
///
/// The layers are given to the kernel by paths, because only Linux 6.15 takes what is attached nowhere.
fn idmapped(rootfs: &Rootfs, user: &UserNamespace) -> Result<OwnedFd, Error> {
    let stage = Stage::set_up()?;
    let mut lower = Vec::with_capacity(rootfs.lower.len());
    for (index, layer) in rootfs.lower.iter().enumerate() {
        lower.push(stage.put(&index.to_string(), &idmapped_copy(layer, user)?)?);
    }
    // Both have to be of one mount.
    let (above, upper, work) = split(&rootfs.upper, &rootfs.work);
    let (mut directory, mut working) = (String::new(), String::new());
    if !rootfs.upper.is_empty() {
        let place = stage.put("upper", &idmapped_copy(above, user)?)?;
        directory = format!("{place}/{upper}");
        working = format!("{place}/{work}");
    }
    let upper = (!rootfs.upper.is_empty()).then_some(Upper {
        directory: &directory,
        work: &working,
        volatile: rootfs.volatile,
    });
    // overlayfs makes files of its own, as who it was mounted by.
    let made = acting_as(user.root, || {
        let options = &rootfs.overlay_options;
        Ok(shim_rootfs::overlay::make(&Layers { lower: &lower, upper, options })?)
    })?;
    match made {
        Made::Detached(mount) => Ok(mount),
        Made::OnRoot => copy_of_covered_root(),
    }
}

/// Takes what was mounted over the root off it: copies it and unmounts it there. In a mount namespace
/// of another user it would be locked on top of the old root, which then could not be let go of.
pub(crate) fn copy_of_covered_root() -> Result<OwnedFd, Error> {
    // A lookup of the root's parent stays at the root, and goes up to what is mounted on it.
    const COVER: &str = "/..";
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let copy = rustix::fs::open(COVER, flags, Mode::empty())
        .and_then(|root| mounts::copy_of(root.as_fd(), false))
        .at(Step::Overlay, "/")?;
    unmount(COVER, UnmountFlags::DETACH).at(Step::Overlay, "/")?;
    Ok(copy)
}

/// The directory that two paths have in common, and what they are below it.
fn split<'a>(one: &'a str, other: &'a str) -> (&'a str, &'a str, &'a str) {
    let same = one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count();
    let end = one.get(..same).and_then(|common| common.rfind('/')).map_or(0, |slash| slash + 1);
    (&one[..end], &one[end..], &other[end..])
}

/// A place for mounts in procfs, of this process' mount namespace alone, while an overlay is made.
struct Stage;

impl Stage {
    const PLACE: &str = "/proc/fs";

    fn set_up() -> Result<Self, Error> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("tmpfs", Self::PLACE, "tmpfs", flags, Some(c"mode=755,size=64k"))
            .at(Step::Mount, Self::PLACE)?;
        Ok(Self)
    }

    /// The path where the mount is now.
    fn put(&self, name: &str, mount: &OwnedFd) -> Result<String, Error> {
        let path = format!("{}/{name}", Self::PLACE);
        rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)).at(Step::MakeTarget, &path)?;
        let place = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .at(Step::MakeTarget, &path)?;
        mounts::attach(mount, place.as_fd(), &path)?;
        Ok(path)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // A procfs that is covered in part can't be mounted again in a user namespace.
        let _ = unmount(Self::PLACE, UnmountFlags::DETACH);
    }
}

fn idmapped_copy(directory: &str, user: &UserNamespace) -> Result<OwnedFd, Error> {
    let how = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let copy = open_tree(CWD, directory, how).map_err(|errno| missing(directory, errno))?;
    mounts::make_private(&copy, directory)?;
    mounts::map_ids(&copy, user.as_fd(), false, directory)?;
    Ok(copy)
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
fn view(layer: &str, user: Option<&UserNamespace>) -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = match user {
        Some(user) => idmapped_copy(layer, user)?,
        None => open_tree(CWD, layer, flags).map_err(|errno| missing(layer, errno))?,
    };
    mounts::make_private(&mount, layer)?;
    mounts::make_read_only(mount.as_fd(), false, layer)?;
    Ok(mount)
}

fn missing(source: &str, errno: Errno) -> Error {
    Error::MountSource { source: source.to_owned(), destination: "/".to_owned(), errno }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_and_work_are_named_from_where_both_are() {
        assert_eq!(split("/s/12/fs", "/s/12/work"), ("/s/12/", "fs", "work"));
        assert_eq!(split("/s/upper", "/s/upper-work"), ("/s/", "upper", "upper-work"));
        assert_eq!(split("/a/x", "/b/y"), ("/", "a/x", "b/y"));
    }
}
