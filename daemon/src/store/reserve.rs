//! Room for the records of removals and exits on a full disk.
//!
//! A file beside the database holds some blocks. When the disk is about to be full it goes, before the
//! commit that would fail; so what makes room can be recorded. It is made again when there is room.
//! What is new is refused meanwhile: it would take that for itself.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// What is held.
const HELD: u64 = 4 << 20;

/// It is let go of when less than this is free, and taken again when there is this much and more.
const LOW: u64 = 1 << 20;
const ROOM: u64 = 16 << 20;

#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    is_held: bool,
}

impl Reserve {
    pub(super) fn beside(database: &Path) -> Self {
        let path = database.with_extension("db-reserve");
        let is_held = path.metadata().is_ok_and(|file| file.len() >= HELD);
        let mut reserve = Self { path, is_held };
        reserve.look();
        reserve
    }

    /// Lets go of the reserve, or takes it, by what is free now.
    pub(super) fn look(&mut self) {
        let Some(free) = free_beside(&self.path) else { return };
        if self.is_held && free < LOW {
            tracing::warn!(free, "the disk is full: the reserve for records is used now");
            self.is_held = std::fs::remove_file(&self.path).is_err();
        } else if !self.is_held && free >= ROOM {
            self.is_held = take(&self.path).is_ok();
        }
    }
}

/// Whether less is free than what is kept for records.
pub(super) fn is_low(database: &Path) -> bool {
    free_beside(database).is_some_and(|free| free < LOW)
}

/// How many bytes are free on the disk of a file.
fn free_beside(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path.parent()?).ok()?;
    Some(disk.f_bfree.saturating_mul(disk.f_frsize))
}

fn take(path: &Path) -> std::io::Result<()> {
    let file: File =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
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
        assert!(Reserve::beside(&database).is_held);
        let mut again = Reserve::beside(&database);
        assert!(again.is_held);
        std::fs::remove_file(directory.path().join("meta.db-reserve")).unwrap();
        again.is_held = false;
        again.look();
        assert!(again.is_held && directory.path().join("meta.db-reserve").is_file());
    }
}
