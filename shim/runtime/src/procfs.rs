//! Procfs that a container can't redirect.
//!
//! What a container finds at `/proc` may be covered by its own mounts, in part or as a whole, so
//! that a write to `/proc/self/attr/exec` lands in `/proc/sys/kernel/core_pattern`
//! (CVE-2025-52881's class). Writes here start at the root of a procfs mount of our own and refuse to
//! cross mounts or follow links.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::error::At;
use crate::{Error, Step};

#[derive(Debug)]
pub(crate) struct Procfs(OwnedFd);

impl Procfs {
    /// One that nobody else sees, of this process' pid namespace.
    pub(crate) fn private() -> Result<Self, Error> {
        let mount = || {
            let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(&context)?;
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        };
        mount().map(Self).at(Step::Mount, "a private procfs")
    }

    /// The root of a procfs mount that was just made.
    pub(crate) fn of(mount: OwnedFd) -> Self {
        Self(mount)
    }

    /// Writes a file of it, whole and at once.
    pub(crate) fn write(&self, path: &str, value: &str) -> Result<(), Errno> {
        let file = self.open(path, OFlags::WRONLY)?;
        match rustix::io::write(&file, value.as_bytes())? {
            count if count == value.len() => Ok(()),
            _ => Err(Errno::INVAL),
        }
    }

    /// Reads a file of it.
    pub(crate) fn read(&self, path: &str) -> Result<String, Errno> {
        let file = self.open(path, OFlags::RDONLY)?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::fs::File::from(file), &mut text)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        Ok(text)
    }

    /// Opens what a file of `PID/ns` leads to: the one kind of link that is followed, in a procfs that
    /// nobody else sees.
    pub(crate) fn open_namespace(&self, path: &str) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.0, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    }

    fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&self.0, path, flags, Mode::empty(), how)
    }

    /// Sets the mode of a file by its descriptor, which may be of `O_PATH`: chmod(2) takes none.
    pub(crate) fn set_mode(&self, file: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
        let path = format!("{}/fd/{}", rustix::process::getpid().as_raw_pid(), file.as_raw_fd());
        let mode = Mode::from_raw_mode(mode & 0o7777);
        rustix::fs::chmodat(&self.0, path, mode, AtFlags::empty())
    }

    /// Writes a file of this process' own directory.
    pub(crate) fn write_own(&self, file: &str, value: &str) -> Result<(), Errno> {
        let pid = rustix::process::getpid();
        self.write(&format!("{}/{file}", pid.as_raw_pid()), value)
    }
}
