//! Removing trees of any depth, by descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

/// Names that have been taken already.
const MAX_TRIES: u32 = 1000;

/// Removes what is at a name, with all that is in it. Never follows a link, nor goes where something is mounted.
///
/// Directories are moved up to the first one before they are emptied: however deep they lie, two
/// descriptors are enough.
///
/// # Errors
/// As unlinkat(2) and renameat2(2) say. `ENOENT` when nothing is there; `EBUSY` or `EXDEV` where something is
/// mounted.
pub(crate) fn remove(directory: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        other => return other,
    }
    match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        other => return other,
    }
    clear(&open(directory, name)?)?;
    rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)
}

/// Removes all that is in a directory.
///
/// # Errors
/// As [`remove`].
pub(crate) fn clear(top: &OwnedFd) -> Result<(), Errno> {
    let mut number = 0;
    loop {
        let names = names(top)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            match rustix::fs::unlinkat(top, name.as_slice(), AtFlags::empty()) {
                Err(Errno::ISDIR) => flatten(top, &name, &mut number)?,
                Err(Errno::NOENT) => {}
                other => other?,
            }
        }
    }
}

/// Removes a directory, after what is in it was moved to `top`.
fn flatten(top: &OwnedFd, name: &[u8], number: &mut u32) -> Result<(), Errno> {
    let remove = || rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR);
    match remove() {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        other => return other,
    }
    let directory = open(top.as_fd(), name)?;
    for inner in names(&directory)? {
        let inner = inner.as_slice();
        match rustix::fs::unlinkat(&directory, inner, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            other => {
                other?;
                continue;
            }
        }
        match rustix::fs::unlinkat(&directory, inner, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => move_up(&directory, inner, top, number)?,
            other => other?,
        }
    }
    remove()
}

fn move_up(from: &OwnedFd, name: &[u8], top: &OwnedFd, number: &mut u32) -> Result<(), Errno> {
    for _ in 0..MAX_TRIES {
        *number = number.wrapping_add(1);
        let to = format!(".removed-{number}");
        match rustix::fs::renameat_with(from, name, top, to, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            other => return other,
        }
    }
    Err(Errno::EXIST)
}

fn open(directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    loop {
        match rustix::fs::openat2(directory, name, flags, Mode::empty(), how) {
            // Something was renamed meanwhile (openat2(2)).
            Err(Errno::AGAIN) => {}
            opened => return opened,
        }
    }
}

/// The names in a directory, in the order of the file system.
pub(crate) fn names(directory: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(name.as_slice(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_that_is_deeper_than_any_path_goes() {
        let directory = tempfile::tempdir().unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::open(directory.path(), flags, Mode::empty()).unwrap();
        let mut here = rustix::io::fcntl_dupfd_cloexec(&top, 3).unwrap();
        for depth in 0..3000 {
            rustix::fs::mkdirat(&here, "deep", Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&here, ".removed-1", Mode::RWXU).unwrap();
            rustix::fs::symlinkat("/etc", &here, format!("link{depth}")).unwrap();
            here = open(here.as_fd(), b"deep").unwrap();
        }
        remove(top.as_fd(), b"deep").unwrap();
        assert_eq!(names(&top).unwrap().len(), 2);
        clear(&top).unwrap();
        assert!(names(&top).unwrap().is_empty());
        assert_eq!(remove(top.as_fd(), b"deep"), Err(Errno::NOENT));
        assert!(std::path::Path::new("/etc/passwd").exists());
    }
}
