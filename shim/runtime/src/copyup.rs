//! What a rootfs has where a tmpfs is mounted, copied into it (the option `tmpcopyup`).
//!
//! All by descriptors, and no link is followed: another container may share the directory.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

/// What of the directory itself is not copied: options of the mount say it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) mode: bool,
    pub(crate) uid: bool,
    pub(crate) gid: bool,
}

/// What could not be copied.
#[derive(Debug)]
pub(crate) struct Failed {
    /// Below the directory; empty for itself.
    pub(crate) entry: PathBuf,
    pub(crate) errno: Errno,
}

impl Failed {
    fn below(self, name: &CStr) -> Self {
        Self { entry: self.at(Path::new(OsStr::from_bytes(name.to_bytes()))), ..self }
    }

    /// Its path, given that of the directory.
    pub(crate) fn at(&self, directory: &Path) -> PathBuf {
        directory.components().chain(self.entry.components()).collect()
    }
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        Self { entry: PathBuf::new(), errno }
    }
}

/// Copies all that is in a directory, and who and what the directory itself is.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, kept: Kept) -> Result<(), Failed> {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = rustix::fs::openat(from, ".", directory, Mode::empty())?;
    let to = rustix::fs::openat(to, ".", directory, Mode::empty())?;
    let (mut wanted, own) = (rustix::fs::fstat(&from)?, rustix::fs::fstat(&to)?);
    if kept.mode {
        wanted.st_mode = own.st_mode;
    }
    if kept.uid {
        wanted.st_uid = own.st_uid;
    }
    if kept.gid {
        wanted.st_gid = own.st_gid;
    }
    fill(&from, &to, &wanted)
}

fn fill(from: &OwnedFd, to: &OwnedFd, wanted: &Stat) -> Result<(), Failed> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            entry_of(from, to, name).map_err(|failed| failed.below(name))?;
        }
    }
    Ok(dress(from, to, wanted)?)
}

fn entry_of(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> Result<(), Failed> {
    let found = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let flags = flags | OFlags::RDONLY | OFlags::DIRECTORY;
            let open = |directory| rustix::fs::openat(directory, name, flags, Mode::empty());
            let (from, to) = (open(from)?, open(to)?);
            fill(&from, &to, &rustix::fs::fstat(&from)?)
        }
        FileType::RegularFile => {
            let source = rustix::fs::openat(
                from,
                name,
                flags | OFlags::RDONLY | OFlags::NONBLOCK,
                Mode::empty(),
            )?;
            // Something else may have come to its name meanwhile, that has no end.
            let found = rustix::fs::fstat(&source)?;
            if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
                return Err(Errno::STALE.into());
            }
            let flags = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let copy = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
            while match rustix::fs::sendfile(&copy, &source, None, 1 << 30) {
                Ok(count) => count > 0,
                Err(Errno::INTR) => true,
                Err(errno) => return Err(errno.into()),
            } {}
            Ok(dress(&source, &copy, &found)?)
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target, to, name)?;
            Ok(give(to, name, &found)?)
        }
        kind @ (FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown) => {
            let mode = Mode::from_raw_mode(found.st_mode & 0o7777);
            rustix::fs::mknodat(to, name, kind, mode, found.st_rdev)?;
            Ok(give(to, name, &found)?)
        }
    }
}

/// Owner and times of what can't be opened.
fn give(directory: &OwnedFd, name: &CStr, found: &Stat) -> Result<(), Errno> {
    let (uid, gid) = owner(found);
    rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::utimensat(directory, name, &times(found), AtFlags::SYMLINK_NOFOLLOW)
}

/// Owner, mode, extended attributes and times.
fn dress(from: &OwnedFd, to: &OwnedFd, found: &Stat) -> Result<(), Errno> {
    let (uid, gid) = owner(found);
    rustix::fs::fchown(to, Some(uid), Some(gid))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(found.st_mode & 0o7777))?;
    attributes(from.as_fd(), to.as_fd())?;
    rustix::fs::futimens(to, &times(found))
}

/// Those that the tmpfs can hold, capabilities of programs among them.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut names = vec![0; 64 << 10];
    let count = match rustix::fs::flistxattr(from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        other => other?,
    };
    for name in names[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let size = rustix::fs::fgetxattr(from, name, &mut value[..])?;
        match rustix::fs::fsetxattr(to, name, &value[..size], XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn owner(found: &Stat) -> (Uid, Gid) {
    (Uid::from_raw(found.st_uid), Gid::from_raw(found.st_gid))
}

fn times(found: &Stat) -> Timestamps {
    let nanoseconds = |value| i64::try_from(value).unwrap_or_default();
    Timestamps {
        last_access: Timespec { tv_sec: found.st_atime, tv_nsec: nanoseconds(found.st_atime_nsec) },
        last_modification: Timespec {
            tv_sec: found.st_mtime,
            tv_nsec: nanoseconds(found.st_mtime_nsec),
        },
    }
}
