//! mount_setattr(2): attributes and propagation of mounts, also of ones not attached anywhere yet.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// `struct mount_attr` (linux/mount.h, MOUNT_ATTR_SIZE_VER0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MountAttributes {
    /// MOUNT_ATTR_* to switch on.
    pub set: u64,
    /// MOUNT_ATTR_* to switch off; the access-time modes are a field, switched off by
    /// MOUNT_ATTR__ATIME as a whole before one is set.
    pub clear: u64,
    /// MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE, or 0 to leave it.
    pub propagation: u64,
    pub user_namespace: u64,
}

/// Changes the mount whose root is `mount`, and those below it when `recursive`.
///
/// # Errors
/// Those of mount_setattr(2); `ENOSYS` before Linux 5.12.
pub fn mount_setattr(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: MountAttributes,
) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string and the attributes are valid for their size.
    crate::check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    })
    .map(drop)
}
