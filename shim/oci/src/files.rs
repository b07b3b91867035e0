//! Files that are there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// How many names may be taken already.
const TRIES: u32 = 8;

/// Writes a file beside its place and moves it there.
///
/// # Errors
/// Names the file.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let (mut file, temporary) = new_beside(path, mode).map_err(Error::file("write", path))?;
    let written = file.write_all(bytes).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| {
        // The error is what matters.
        let _ = fs::remove_file(&temporary);
        Error::file("write", path)(error)
    })
}

/// A file that was not there before, in the same directory. Others may write to that, so nothing they
/// put there is opened, and nobody knows the name beforehand.
fn new_beside(path: &Path, mode: u32) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut tries = 0;
    loop {
        // Each has keys of its own, which are random.
        let random = RandomState::new().build_hasher().finish();
        let temporary = path.with_file_name(format!(".{name}.{random:016x}"));
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary) {
            Ok(file) => return Ok((file, temporary)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < TRIES => {
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}
