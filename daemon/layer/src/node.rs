//! Files of every kind, made by a directory's descriptor and a name in it that is never followed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::error::{At, Error, Result, Rule};
use crate::tar::{Entry, Kind, Time, Xattr};
use crate::xattr::{self, Fate, proc_path};

/// What a file gets beside its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a> {
    pub(crate) mode: u32,
    /// User and group; `None` for the caller's own.
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) mtime: Time,
    pub(crate) xattrs: &'a [Xattr],
    /// For errors.
    pub(crate) path: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// # Errors
    /// An attribute that would forge overlayfs' own.
    pub(crate) fn of(entry: &'a Entry) -> Result<Self> {
        if entry.xattrs.iter().any(|xattr| xattr::fate(&xattr.name) == Fate::Forged) {
            return Err(Error::refused(&entry.path, Rule::OverlayAttribute));
        }
        Ok(Self {
            mode: entry.mode,
            owner: Some((entry.uid, entry.gid)),
            mtime: entry.mtime,
            xattrs: &entry.xattrs,
            path: &entry.path,
        })
    }

    /// Of a file that there is, to make another one like it.
    pub(crate) fn like(stat: &Stat, xattrs: &'a [Xattr], path: &'a [u8]) -> Self {
        Self {
            mode: stat.st_mode & 0o7777,
            owner: Some((stat.st_uid, stat.st_gid)),
            mtime: mtime(stat),
            xattrs,
            path,
        }
    }

    /// Gives them to an open file or directory. The owner comes first: a change of it takes setuid
    /// bits and capabilities away. `has_owner` says that it is right already.
    pub(crate) fn give(&self, fd: impl AsFd, has_owner: bool) -> Result<()> {
        let fd = fd.as_fd();
        if let (Some((uid, gid)), false) = (self.owner, has_owner) {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::fchown(fd, uid, gid).at("set the owner of", self.path)?;
        }
        let mode = Mode::from_raw_mode(self.mode & 0o7777);
        rustix::fs::fchmod(fd, mode).at("set the mode of", self.path)?;
        for Xattr { name, value } in self.kept() {
            let set = rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty());
            check_xattr(set, name).at("set an extended attribute of", self.path)?;
        }
        rustix::fs::futimens(fd, &times(self.mtime)).at("set the times of", self.path)
    }

    /// Gives them to what can't be opened: links, devices, pipes.
    pub(crate) fn give_at(
        &self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        is_link: bool,
    ) -> Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place =
            rustix::fs::openat(directory, name, flags, Mode::empty()).at("open", self.path)?;
        if let Some((uid, gid)) = self.owner {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(&place, "", uid, gid, AtFlags::EMPTY_PATH)
                .at("set the owner of", self.path)?;
        }
        let itself = proc_path(&place);
        if !is_link {
            let mode = Mode::from_raw_mode(self.mode & 0o7777);
            rustix::fs::chmod(itself.as_str(), mode).at("set the mode of", self.path)?;
        }
        for Xattr { name, value } in self.kept() {
            // The kernel gives these to regular files and directories only.
            if name.starts_with(b"user.") || name.starts_with(b"security.") {
                continue;
            }
            let flags = XattrFlags::empty();
            let set = rustix::fs::setxattr(itself.as_str(), name.as_slice(), value, flags);
            check_xattr(set, name).at("set an extended attribute of", self.path)?;
        }
        rustix::fs::utimensat(directory, name, &times(self.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .at("set the times of", self.path)
    }

    fn kept(&self) -> impl Iterator<Item = &'a Xattr> + use<'a> {
        self.xattrs.iter().filter(|xattr| xattr::fate(&xattr.name) == Fate::Kept)
    }
}

/// A new and empty regular file, open for writing.
///
/// # Errors
/// `EEXIST` when there is anything of that name.
pub(crate) fn create_file(
    directory: BorrowedFd<'_>,
    name: &[u8],
) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))
}

/// A new link, device or pipe, of a mode that only its owner can use.
///
/// # Errors
/// `EEXIST` when there is anything of that name.
pub(crate) fn create_special(
    directory: BorrowedFd<'_>,
    name: &[u8],
    special: Special<'_>,
) -> std::result::Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o600);
    let node = |kind, number| rustix::fs::mknodat(directory, name, kind, mode, number);
    match special {
        Special::Symlink(target) => rustix::fs::symlinkat(target, directory, name),
        Special::Character(number) => node(FileType::CharacterDevice, number),
        Special::Block(number) => node(FileType::BlockDevice, number),
        Special::Fifo => node(FileType::Fifo, 0),
    }
}

/// What has no content of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Special<'a> {
    Symlink(&'a [u8]),
    Character(u64),
    Block(u64),
    Fifo,
}

impl<'a> Special<'a> {
    pub(crate) fn of(kind: &'a Kind) -> Option<Self> {
        match kind {
            Kind::Symlink { target } => Some(Self::Symlink(target)),
            Kind::Character { major, minor } => {
                Some(Self::Character(rustix::fs::makedev(*major, *minor)))
            }
            Kind::Block { major, minor } => Some(Self::Block(rustix::fs::makedev(*major, *minor))),
            Kind::Fifo => Some(Self::Fifo),
            Kind::File { .. } | Kind::Directory | Kind::HardLink { .. } => None,
        }
    }

    pub(crate) fn is_link(self) -> bool {
        matches!(self, Self::Symlink(_))
    }
}

/// What is at a name, a link itself when it is one; `None` when nothing is.
pub(crate) fn look(directory: impl AsFd, name: &[u8]) -> std::result::Result<Option<Stat>, Errno> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

pub(crate) fn is_directory(stat: &Stat) -> bool {
    kind(stat) == FileType::Directory
}

/// The device 0/0, by which overlayfs hides what lies below.
#[must_use]
pub fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(crate) fn mtime(stat: &Stat) -> Time {
    Time { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

/// Access and modification alike, as docker and umoci set them.
pub(crate) fn times(mtime: Time) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

/// An access control list on a file system that has none is left out.
fn check_xattr(set: std::result::Result<(), Errno>, name: &[u8]) -> std::result::Result<(), Errno> {
    match set {
        Err(Errno::OPNOTSUPP) if name.starts_with(b"system.") => Ok(()),
        other => other,
    }
}
