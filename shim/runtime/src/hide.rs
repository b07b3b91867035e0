//! Masked and read-only paths.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use shim_rootfs::Root;

use crate::error::At;
use crate::{Error, Step, mounts};

/// Covers paths: a file by the null device, a directory by an empty, read-only one. What is not
/// there is passed over.
#[derive(Debug)]
pub(crate) struct Masks {
    /// Proven to be the host's null device; never what the rootfs has at `/dev/null`
    /// (CVE-2025-31133).
    null: OwnedFd,
    /// One file system for all directories: each one more would slow the teardown.
    empty: Option<OwnedFd>,
}

impl Masks {
    pub(crate) fn new(null: OwnedFd) -> Self {
        Self { null, empty: None }
    }

    pub(crate) fn mask(&mut self, root: &Root, path: &str) -> Result<(), Error> {
        let place = match root.open(path, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            other => other.at(Step::Hide, path)?,
        };
        let mode = rustix::fs::fstat(&place).at(Step::Hide, path)?.st_mode;
        if FileType::from_raw_mode(mode) != FileType::Directory {
            let cover = mounts::copy_of(self.null.as_fd(), false).at(Step::Hide, path)?;
            // Read-only, so that the mode of the host's node can't be changed from inside.
            mounts::make_read_only(cover.as_fd(), false, path)?;
            return mounts::attach(&cover, place.as_fd(), path);
        }
        let cover = self.empty_directory(path)?;
        mounts::attach(&cover, place.as_fd(), path)?;
        // Only what is attached can be copied (before Linux 6.15).
        self.empty.get_or_insert(cover);
        Ok(())
    }

    fn empty_directory(&self, path: &str) -> Result<OwnedFd, Error> {
        if let Some(first) = &self.empty {
            return mounts::copy_of(first.as_fd(), false).at(Step::Hide, path);
        }
        let context = mounts::new_file_system("tmpfs", "tmpfs", "nr_blocks=1,nr_inodes=1")?;
        mounts::finish_file_system(&context, mounts::MASK_FLAGS).at(Step::Hide, path)
    }
}

/// Makes a path, and all that is mounted below it, read-only. What is not there is passed over.
pub(crate) fn protect(root: &Root, path: &str) -> Result<(), Error> {
    let place = match root.open(path, OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        other => other.at(Step::Protect, path)?,
    };
    let copy = mounts::copy_of(place.as_fd(), true).at(Step::Protect, path)?;
    mounts::make_read_only(copy.as_fd(), true, path)?;
    mounts::attach(&copy, place.as_fd(), path)
}
