//! Trees into archives: `export` and `cp` out of a container, and out of a host's directory.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use crate::error::Result;
use crate::tar::Writer;
use crate::walk::{Form, Walk};

/// What is archived of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// What is mounted in it shows as an empty directory or file.
    pub one_mount: bool,
}

/// Writes what is at `name` in a directory, with all that is in it. The first component of every path
/// in the archive is `as_name`. Links are never followed, this one neither.
///
/// # Errors
/// [`Error::File`](crate::Error::File) when nothing is there, or a file can't be read;
/// [`Error::Write`](crate::Error::Write) when the archive is not taken.
pub fn archive<W: Write>(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    as_name: &OsStr,
    to: W,
    options: ArchiveOptions,
) -> Result<W> {
    let mut writer = Writer::new(to);
    let form = Form::Plain { one_mount: options.one_mount };
    Walk::new(&mut writer, form).add(directory, name.as_bytes(), as_name.as_bytes())?;
    writer.finish()
}

/// Writes what is in a directory, which has no entry itself.
///
/// # Errors
/// As [`archive`].
pub fn archive_content<W: Write>(
    directory: BorrowedFd<'_>,
    to: W,
    options: ArchiveOptions,
) -> Result<W> {
    let mut writer = Writer::new(to);
    let form = Form::Plain { one_mount: options.one_mount };
    Walk::new(&mut writer, form).add_content(directory)?;
    writer.finish()
}
