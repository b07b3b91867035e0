//! That a store was put right, and that it is not done yet: what its rows are missing is taken from the blobs
//! by others, once it is open ([`Images::restore`](crate::images::Images::restore)).
//!
//! A file beside the database says so, from before the first row is changed until that is done. A daemon
//! that is killed between leaves a database in which nothing is wrong, and blobs that no row names: the next
//! one would take them for garbage.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::Error;
use super::rebuild::make_way;
use crate::{atomic, plain_file};

/// What it says of a database that was made anew, and of one with rows that were.
const REBUILT: &[u8] = b"rebuilt\n";
const MENDED: &[u8] = b"mended\n";

fn file(database: &Path) -> PathBuf {
    database.with_extension("unfinished")
}

/// Notes it, on the disk. What says more stays.
pub(super) fn note(database: &Path, is_rebuilt: bool) -> io::Result<()> {
    match read(database) {
        Some(true) => Ok(()),
        Some(false) if !is_rebuilt => Ok(()),
        Some(false) | None => {
            let text = if is_rebuilt { REBUILT } else { MENDED };
            atomic::write_durably(&file(database), text, 0o600)
        }
    }
}

/// Whether it is noted; of one that was made anew if so, or where that can't be read any more: more is
/// looked for then.
pub(super) fn read(database: &Path) -> Option<bool> {
    match plain_file::read(&file(database), plain_file::NOTE) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        said => Some(!said.is_ok_and(|said| said == MENDED)),
    }
}

/// It is done.
pub(super) fn done(database: &Path) -> Result<(), Error> {
    let (root, file) = (database.parent().unwrap_or(Path::new("/")), file(database));
    make_way(root, &file)?;
    let removed = match std::fs::remove_file(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        removed => removed.and_then(|()| File::open(root)?.sync_all()),
    };
    removed.map_err(|source| super::rebuild::file_failed(&file, source))
}
