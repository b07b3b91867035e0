//! Extended attributes: which of them travel, and how they are read and set by descriptor.

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::tar::Xattr;

/// What overlayfs keeps for itself. An archive that could set these could redirect a directory or
/// take the content of another file.
const OVERLAY: &[u8] = b"trusted.overlay.";
/// On a directory, with the value `y`: all below it is hidden (kernel's overlayfs.rst).
pub const OPAQUE: &str = "trusted.overlay.opaque";

/// What becomes of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Kept,
    /// Labels and hashes that are the machine's own to give.
    Dropped,
    /// overlayfs' own.
    Forged,
}

/// Of an attribute by its name.
pub(crate) fn fate(name: &[u8]) -> Fate {
    if name.starts_with(OVERLAY) {
        return Fate::Forged;
    }
    let is_kept = name == b"security.capability"
        || name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || name.starts_with(b"system.posix_acl_");
    if is_kept { Fate::Kept } else { Fate::Dropped }
}

/// All attributes of a file, sorted by name, but for those that are overlayfs' or the machine's. The
/// descriptor may be of any kind, a place (O_PATH) too.
pub(crate) fn read(fd: impl AsFd) -> Result<Vec<Xattr>, Errno> {
    // No call reads the attributes of a place; its name in procfs leads to the same file, and a link
    // there is not followed further.
    let path = proc_path(fd);
    let mut list = Vec::new();
    let grown = grow(&mut list, |buffer| rustix::fs::listxattr(path.as_str(), buffer));
    match grown {
        // Not the kind of file, or not the kind of file system.
        Err(Errno::OPNOTSUPP | Errno::PERM) => return Ok(Vec::new()),
        other => other?,
    }
    let mut xattrs = Vec::new();
    for name in list.split(|byte| *byte == 0) {
        if name.is_empty() || fate(name) != Fate::Kept {
            continue;
        }
        let mut value = Vec::new();
        match grow(&mut value, |buffer| rustix::fs::getxattr(path.as_str(), name, buffer)) {
            Ok(()) => xattrs.push(Xattr { name: name.to_vec(), value }),
            // It went meanwhile.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    xattrs.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(xattrs)
}

/// Whether a directory hides what lies below it.
pub(crate) fn is_opaque(directory: impl AsFd) -> Result<bool, Errno> {
    let mut value = [0; 2];
    match rustix::fs::fgetxattr(directory, OPAQUE, &mut value[..]) {
        // "x" says that there are whiteouts in another form, not that it is opaque.
        Ok(1) => Ok(value[0] == b'y'),
        Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether a file is not where its content is: overlayfs would have to follow.
pub(crate) fn is_redirected(fd: impl AsFd) -> Result<bool, Errno> {
    let path = proc_path(fd);
    for name in ["trusted.overlay.redirect", "trusted.overlay.metacopy"] {
        match rustix::fs::getxattr(path.as_str(), name, &mut [0; 0][..]) {
            Ok(_) | Err(Errno::RANGE) => return Ok(true),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(false)
}

/// Makes a directory hide what lies below it.
pub(crate) fn make_opaque(directory: impl AsFd) -> Result<(), Errno> {
    rustix::fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty())
}

/// A name by which a descriptor's own file is found, whatever became of its path.
pub(crate) fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

fn grow(
    buffer: &mut Vec<u8>,
    call: impl Fn(&mut [u8]) -> Result<usize, Errno>,
) -> Result<(), Errno> {
    /// XATTR_SIZE_MAX and XATTR_LIST_MAX of the kernel.
    const MOST: usize = 64 << 10;
    for size in [1 << 10, MOST] {
        buffer.resize(size, 0);
        match call(buffer) {
            Err(Errno::RANGE) if size < MOST => {}
            other => {
                buffer.truncate(other?);
                return Ok(());
            }
        }
    }
    Err(Errno::RANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_kept_dropped_or_refused_by_name() {
        for (name, want) in [
            ("user.comment", Fate::Kept),
            ("security.capability", Fate::Kept),
            ("trusted.other", Fate::Kept),
            ("system.posix_acl_access", Fate::Kept),
            ("security.selinux", Fate::Dropped),
            ("security.ima", Fate::Dropped),
            ("security.evm", Fate::Dropped),
            ("system.nfs4_acl", Fate::Dropped),
            ("nonsense", Fate::Dropped),
            ("trusted.overlay.opaque", Fate::Forged),
            ("trusted.overlay.redirect", Fate::Forged),
            ("trusted.overlay.metacopy", Fate::Forged),
        ] {
            assert_eq!(fate(name.as_bytes()), want, "{name}");
        }
    }
}
