//! Room for the records of removals and exits on a full disk.
//!
//! A file beside the database holds some blocks. When the disk is about to be full some of them go, before
//! the commit that would fail; so what makes room can be recorded. Not all at once: whoever filled the
//! disk takes what is free faster than a commit does. It is made again when there is room. What is new
//! is refused meanwhile: it would take that for itself.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::rebuild;
use crate::plain_file;

/// What is held.
const HELD: u64 = 4 << 20;

/// What is let go of for a commit, when less than that is free.
const STEP: u64 = 512 << 10;

/// What is new is refused when less than this is free, and the reserve is taken again when there is this
/// much and more.
const LOW: u64 = 1 << 20;
const ROOM: u64 = 16 << 20;

#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    held: u64,
}

impl Reserve {
    pub(super) fn beside(database: &Path) -> Self {
        let path = database.with_extension("db-reserve");
        let root = database.parent().unwrap_or(Path::new("/"));
        if let Err(error) = rebuild::make_way(root, &path) {
            tracing::warn!(path = %path.display(), %error, "there is no room kept for records");
        }
        let held = plain_file::open(&path).and_then(|file| file.metadata());
        let mut held = held.map_or(0, |file| file.len());
        if held > HELD && cut(&path, HELD).is_ok() {
            held = HELD;
        }
        let mut reserve = Self { path, held };
        reserve.look();
        reserve
    }

    /// Lets go of the reserve, or takes it, by what is free now.
    pub(super) fn look(&mut self) {
        let Some(free) = free_beside(&self.path) else { return };
        if self.held > 0 && free < STEP {
            let left = self.held.saturating_sub(STEP);
            tracing::warn!(free, left, "the disk is full: the reserve for records is used now");
            if cut(&self.path, left).is_ok() {
                self.held = left;
            }
        } else if self.held < HELD && free >= ROOM && take(&self.path).is_ok() {
            self.held = HELD;
        }
    }
}

/// Whether less is free than what is kept for records.
pub(super) fn is_low(database: &Path) -> bool {
    free_beside(database).is_some_and(|free| free < LOW)
}

/// How many bytes are free on the disk of a file, without what its file system keeps for itself.
fn free_beside(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path.parent()?).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn cut(path: &Path, length: u64) -> std::io::Result<()> {
    plain_file::open_with(OpenOptions::new().write(true), path)?.set_len(length)
}

fn take(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = plain_file::open_with(&mut options, path)?;
    fallocate(&file, FallocateFlags::empty(), 0, HELD)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_held_where_there_is_room_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("meta.db");
        assert_eq!(Reserve::beside(&database).held, HELD);
        let mut again = Reserve::beside(&database);
        assert_eq!(again.held, HELD);
        std::fs::remove_file(directory.path().join("meta.db-reserve")).unwrap();
        again.held = 0;
        again.look();
        assert!(again.held == HELD && directory.path().join("meta.db-reserve").is_file());
    }
}
