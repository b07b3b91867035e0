//! The daemon's own small files: regular ones alone, and no more of them than they may have.
//!
//! In the place of a file may lie anything: a FIFO, which holds up whoever opens it; a directory; a link
//! to what is another's; a sparse file of any length, which would be read into memory whole. All of these
//! are a file that is damaged, and each reader does with it what it does with any other damage.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Bytes that a note has at most: a mark, an identity, an exit record, the name of a directory.
pub(crate) const NOTE: u64 = 64 << 10;

/// Bytes that a record, a specification or options have at most: some times the largest message by which
/// one can be made (`api::MAX_MESSAGE`).
pub(crate) const RECORD: u64 = 64 << 20;

/// Opens a file for reading, if it is one.
///
/// # Errors
/// Those of open(2); [`ErrorKind::InvalidData`] says what else is there.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    open_with(OpenOptions::new().read(true), path)
}

/// As [`open`], in the way that `options` say.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_with(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let opened = options.custom_flags(flags).open(path);
    match opened.and_then(|file| Ok((file.metadata()?.is_file(), file))) {
        Ok((true, file)) => Ok(file),
        Ok((false, _)) => Err(no_file(path, None)),
        Err(error) => Err(no_file(path, Some(error))),
    }
}

/// The content of a file that has at most so many bytes.
///
/// # Errors
/// Those of open(2) and read(2); [`ErrorKind::InvalidData`] says what is no such file about it.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = open(path)?;
    let size = file.metadata()?.len();
    let too_large = || {
        let problem = format!("it has {size} bytes, and {most} at most are any of bosund's");
        io::Error::new(ErrorKind::InvalidData, problem)
    };
    if size > most {
        return Err(too_large());
    }
    let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // It may grow meanwhile.
    Read::by_ref(&mut file).take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most { Err(too_large()) } else { Ok(content) }
}

/// As [`read`], of text.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let invalid = |_| io::Error::new(ErrorKind::InvalidData, "it is not text");
    String::from_utf8(read(path, most)?).map_err(invalid)
}

/// Whether it is there, and not what it should be: not whether it can be read.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    error.kind() == ErrorKind::InvalidData
}

/// What is in the place of a file, when that is none; a link is not followed.
pub(crate) fn other_kind(path: &Path) -> Option<&'static str> {
    let found = path.symlink_metadata().ok()?.file_type();
    (!found.is_file()).then(|| kind(found))
}

/// As people call it.
pub(crate) fn kind(found: FileType) -> &'static str {
    if found.is_dir() {
        "a directory"
    } else if found.is_file() {
        "a file"
    } else if found.is_symlink() {
        "a symbolic link"
    } else if found.is_fifo() {
        "a FIFO"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Why there is no file in its place: what is there, else what the system says.
fn no_file(path: &Path, error: Option<io::Error>) -> io::Error {
    match (other_kind(path), error) {
        (Some(kind), _) => {
            io::Error::new(ErrorKind::InvalidData, format!("it is {kind}, not a file"))
        }
        (None, Some(error)) => error,
        // It was another one a moment ago.
        (None, None) => io::Error::new(ErrorKind::InvalidData, "it is no file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, Mode, mkfifoat};

    #[test]
    fn what_is_no_file_or_too_large_is_damage_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        mkfifoat(CWD, place("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        std::fs::create_dir(place("directory")).unwrap();
        std::fs::write(place("file"), "12345").unwrap();
        std::os::unix::fs::symlink(place("file"), place("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(place("socket")).unwrap();
        File::create(place("sparse")).unwrap().set_len(6 << 30).unwrap();
        std::fs::write(place("binary"), [0xff]).unwrap();
        assert_eq!(read(&place("file"), 5).unwrap(), b"12345");
        for (name, said) in [
            ("fifo", "a FIFO"),
            ("directory", "a directory"),
            ("link", "a symbolic link"),
            ("socket", "a socket"),
            ("sparse", "6442450944 bytes"),
            ("binary", "not text"),
        ] {
            let error = read_text(&place(name), 4096).unwrap_err();
            assert!(is_damage(&error) && error.to_string().contains(said), "{name}: {error}");
        }
        assert!(is_damage(&read(&place("file"), 4).unwrap_err()));
        assert_eq!(read(&place("none"), 4).unwrap_err().kind(), ErrorKind::NotFound);
        let written = open_with(OpenOptions::new().write(true), &place("fifo")).unwrap_err();
        assert!(is_damage(&written), "{written}");
    }
}
