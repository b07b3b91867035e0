//! Attributes of mounts: by mount_setattr(2), or, before Linux 5.12, by mount(2).
//!
//! The old way changes only what is attached. A detached mount is attached for that moment to a place
//! in the old root's procfs, which the container never sees, and moved from there to where it belongs.
//! It changes one mount at a time: below a recursive bind, what is mounted stays as writable as it is
//! on the host, which is what such kernels always gave.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{FileType, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, mount_change, mount_remount, move_mount,
};
use shim_sys::mount::MountAttributes;

/// Files of every procfs, to attach a directory and a file to.
pub(crate) const DIRECTORY: &str = "/proc/fs";
const FILE: &str = "/proc/version";

/// The attributes that mount(2) has the same bits for, and those that it has others for.
const SAME_BITS: u64 = 0xf;
const NOATIME: (u64, MountFlags) = (0x10, MountFlags::NOATIME);
const STRICTATIME: (u64, MountFlags) = (0x20, MountFlags::STRICTATIME);
const NODIRATIME: (u64, MountFlags) = (0x80, MountFlags::NODIRATIME);

/// MOUNT_ATTR__ATIME, and what mount(2) has for it.
const ATIME_FIELD: u64 = 0x70;
const ATIME: MountFlags =
    MountFlags::NOATIME.union(MountFlags::STRICTATIME).union(MountFlags::RELATIME);

/// Changes a mount, attached or not, and those below it when `recursive`.
pub(crate) fn mount_setattr(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: MountAttributes,
) -> Result<(), Errno> {
    match shim_sys::mount::mount_setattr(mount, recursive, attributes) {
        Err(Errno::NOSYS) => by_mount(mount, recursive, attributes),
        other => other,
    }
}

fn by_mount(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: MountAttributes,
) -> Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    let change = || {
        if attributes.set | attributes.clear != 0 {
            let kept = current(mount)? & !flags(attributes.clear & !ATIME_FIELD);
            let kept = if attributes.clear & ATIME_FIELD == 0 { kept } else { kept & !ATIME };
            let flags = MountFlags::BIND | kept | flags(attributes.set);
            mount_remount(path.as_str(), flags, "")?;
        }
        if attributes.propagation != 0 {
            let propagation = u32::try_from(attributes.propagation).map_err(|_| Errno::INVAL)?;
            let mut flags = MountPropagationFlags::from_bits_retain(propagation);
            flags.set(MountPropagationFlags::REC, recursive);
            mount_change(path.as_str(), flags)?;
        }
        Ok(())
    };
    match change() {
        // It is not attached.
        Err(Errno::INVAL) => park(mount).and_then(|()| change()),
        other => other,
    }
}

fn park(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    let mode = rustix::fs::fstat(mount)?.st_mode;
    let is_directory = FileType::from_raw_mode(mode) == FileType::Directory;
    let place = if is_directory { DIRECTORY } else { FILE };
    move_mount(mount, "", rustix::fs::CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// What a mount has already: a remount sets all flags anew.
fn current(mount: BorrowedFd<'_>) -> Result<MountFlags, Errno> {
    let found = rustix::fs::fstatvfs(mount)?.f_flag;
    let table = [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let has = |(one, _): &&(StatVfsMountFlags, MountFlags)| found.contains(*one);
    Ok(table.iter().filter(has).fold(MountFlags::empty(), |all, (_, flag)| all | *flag))
}

fn flags(attributes: u64) -> MountFlags {
    let same = u32::try_from(attributes & SAME_BITS).unwrap_or_default();
    let other = [NOATIME, STRICTATIME, NODIRATIME];
    other
        .iter()
        .filter(|(attribute, _)| attributes & attribute != 0)
        .fold(MountFlags::from_bits_retain(same), |all, (_, flag)| all | *flag)
}
