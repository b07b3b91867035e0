//! Files that are put in place whole: a daemon that is killed leaves no half of one.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::plain_file;

/// Makes `content` the content of a file, by way of `NAME.new` beside it. Nothing is synced. One that
/// has this content and mode already stays: where a file takes the place of another one, ext4 writes it
/// out at once (`auto_da_alloc`, ext4(5)), which costs more than to read it.
///
/// # Errors
/// Those of open(2), write(2) and rename(2); the file is what it was then.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    if is_already(path, content, mode) {
        return Ok(());
    }
    let (temporary, mut file) = begin(path, mode)?;
    // Whatever the umask is.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    std::fs::rename(&temporary, path)
}

/// As [`write`], and it is on the disk, under its name, before this is done.
///
/// # Errors
/// Those of open(2), write(2), fsync(2) and rename(2).
pub(crate) fn write_durably(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let (temporary, mut file) = begin(path, mode)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// What is to take the place of a file, beside it.
fn begin(path: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let file = match make(&temporary, mode) {
        // Nobody's file: a link, say, or a FIFO.
        Err(error) if plain_file::is_damage(&error) => {
            std::fs::remove_file(&temporary)?;
            make(&temporary, mode)?
        }
        made => made?,
    };
    Ok((temporary, file))
}

fn make(temporary: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    plain_file::open_with(&mut options, temporary)
}

fn is_already(path: &Path, content: &[u8], mode: u32) -> bool {
    let Ok(mut file) = plain_file::open(path) else { return false };
    let same = file
        .metadata()
        .is_ok_and(|found| found.len() == content.len() as u64 && found.mode() & 0o7777 == mode);
    let mut known = Vec::with_capacity(content.len());
    same && file.read_to_end(&mut known).is_ok() && known == content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_was_written_last_and_stays_when_nothing_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let found = || std::fs::metadata(&path).unwrap();
        write(&path, b"one", 0o600).unwrap();
        let first = found().ino();
        write(&path, b"one", 0o600).unwrap();
        assert_eq!(found().ino(), first);
        for (content, mode) in [(&b"two"[..], 0o600), (b"two", 0o644), (b"", 0o644)] {
            let before = found().ino();
            write(&path, content, mode).unwrap();
            assert_ne!(found().ino(), before, "{content:?} {mode:o}");
            assert_eq!(std::fs::read(&path).unwrap(), content);
            assert_eq!(found().mode() & 0o7777, mode);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (other, path) = (directory.path().join("other"), directory.path().join("file"));
        std::fs::write(&other, "one").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        write(&path, b"one", 0o600).unwrap();
        assert!(path.symlink_metadata().unwrap().is_file());
        assert_eq!(std::fs::read(&other).unwrap(), b"one");
    }

    #[test]
    fn a_fifo_on_the_way_holds_up_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for place in [path.clone(), directory.path().join("file.new")] {
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mkfifoat(rustix::fs::CWD, &place, mode).unwrap();
            write(&path, place.as_os_str().as_encoded_bytes(), 0o600).unwrap();
            let written = std::fs::read(&path).unwrap();
            assert_eq!(written, place.as_os_str().as_encoded_bytes());
        }
    }
}
