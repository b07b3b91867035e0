//! Files that appear only when they are whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file being written under another name beside its own. Dropped unfinished, nothing is left, and
/// what stood at its path is as it was.
///
/// A path that is no regular file (a pipe, `/dev/null`) is written to as it comes: nothing may take
/// its place.
#[derive(Debug)]
pub(crate) struct WholeFile {
    file: File,
    /// Where it is now and where it is to be; nothing when it is there already.
    names: Option<(PathBuf, PathBuf)>,
}

impl WholeFile {
    /// For its owner alone. A link is followed: what it leads to is replaced.
    ///
    /// # Errors
    /// The directory does not exist or can't be written, or the path is a directory.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        match std::fs::metadata(path) {
            Ok(found) if found.is_file() => Self::beside(&path.canonicalize()?),
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) => {
                let file = OpenOptions::new().write(true).open(path)?;
                Ok(Self { file, names: None })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::beside(path),
            Err(error) => Err(error),
        }
    }

    fn beside(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        for attempt in 0_u32.. {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}-{attempt}", std::process::id()));
            let temporary = path.with_file_name(hidden);
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
            match made {
                Ok(file) => return Ok(Self { file, names: Some((temporary, path.to_owned())) }),
                // Left behind by another process of this number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    pub(crate) fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all(data)
    }

    /// Makes it durable and gives it its name.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let Some((temporary, path)) = &self.names else { return Ok(()) };
        self.file.sync_all()?;
        std::fs::rename(temporary, path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = File::open(directory.unwrap_or(Path::new(".")))?;
        self.names = None;
        directory.sync_all()
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some((temporary, _)) = &self.names {
            // Whoever removed it did what was to be done.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn it_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        std::fs::write(&path, "old").unwrap();
        let mut file = WholeFile::create(&path).unwrap();
        file.write(b"new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        drop(file);
        assert_eq!(names(dir.path()), ["a.tar"]);
        let mut file = WholeFile::create(&path).unwrap();
        file.write(b"new").unwrap();
        file.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(names(dir.path()), ["a.tar"]);
    }

    #[test]
    fn links_stay_and_devices_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        let mut file = WholeFile::create(&link).unwrap();
        file.write(b"new").unwrap();
        file.finish().unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&real).unwrap(), "new");
        let mut null = WholeFile::create(Path::new("/dev/null")).unwrap();
        null.write(b"gone").unwrap();
        null.finish().unwrap();
        assert!(!Path::new("/dev/null").is_file());
        assert!(WholeFile::create(dir.path()).is_err());
        assert!(WholeFile::create(&dir.path().join("none/a")).is_err());
    }
}
