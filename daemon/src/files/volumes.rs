//! Volumes of an image: directories of the container's own, filled from what the image has there.
//!
//! The image says where; its path is looked up inside the image's tree alone, so a link or `..`
//! leads to nothing of the host (CVE-2022-23648). A volume that is half filled has another name
//! until it is whole.

use std::ffi::OsStr;
use std::io::{self, BufWriter, IntoInnerError, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use bosun_layer::{ArchiveOptions, ExtractOptions, Limits};
use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use shim_rootfs::Root;

use super::path_error;
use crate::blocking::off_the_loop;
use crate::container::Record;
use crate::error::{Error, Result};
use crate::layout::make_directory;
use crate::pipe;
use crate::snapshots;
use crate::trees;

/// Makes the volumes of a container that are not there yet.
///
/// # Errors
/// Directories that can't be made or filled.
pub async fn fill(record: &Record, container_dir: &Path, trees: &[PathBuf]) -> Result<()> {
    for volume in &record.options.volumes {
        let source = volume.source(container_dir);
        if source.exists() {
            continue;
        }
        let (trees, destination) = (trees.to_vec(), volume.destination.clone());
        let label = record.name.clone();
        off_the_loop(move || {
            shim_failpoints::step!("daemon.volume.before_directory", error);
            let half = source.with_extension("filling");
            trees::remove(&half).map_err(Error::file("remove", &half))?;
            make_directory(&half, 0o755)
                .map_err(|error| Error::file("make volume", &half)(std::io::Error::other(error)))?;
            shim_failpoints::step!("daemon.volume.after_directory", error);
            if !trees.is_empty() {
                copy(&snapshots::merged(&trees)?, &destination, &half, &label)?;
            }
            shim_failpoints::step!("daemon.volume.before_rename", error);
            std::fs::rename(&half, &source).map_err(Error::file("put in place", &source))?;
            shim_failpoints::step!("daemon.volume.after_rename", error);
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Copies what a path of an image leads to, when that is a directory.
fn copy(image: &Root, path: &str, to: &Path, label: &str) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(source) = image.open(path, flags) else { return Ok(()) };
    let own = rustix::io::fcntl_dupfd_cloexec(&source, 3)
        .map_err(|errno| Error::file("look at volume", to)(errno.into()))?;
    let target = rustix::fs::open(to, flags, Mode::empty())
        .map_err(|errno| Error::file("open volume", to)(errno.into()))?;
    let target = Root::new(target);
    let (given, reader) = pipe::into();
    std::thread::scope(|scope| {
        let written = scope.spawn(move || {
            let options = ArchiveOptions { one_mount: false };
            let (name, as_name) = (OsStr::new("."), OsStr::new("."));
            let to = BufWriter::with_capacity(PART, Given(given));
            let to = bosun_layer::archive(source.as_fd(), name, as_name, to, options)?;
            let failed = |error: IntoInnerError<_>| bosun_layer::Error::Write(error.into_error());
            // Only a whole archive has an end.
            to.into_inner().map_err(failed)?.0.finish_blocking();
            Ok(())
        });
        let options = ExtractOptions { keep_kinds: false, owners: true };
        let limits = Limits::default();
        let read = bosun_layer::extract(reader, &target, OsStr::new("/"), options, &limits);
        let written = written.join().map_err(|_| Error::Stopping)?;
        written.and(read.map(drop)).map_err(|source| path_error(source, label, path))
    })?;
    shim_failpoints::step!("daemon.volume.after_copy", error);
    // Its root looks like the image's.
    let dress = || -> rustix::io::Result<()> {
        let like = rustix::fs::fstat(&own)?;
        let (uid, gid) = (Uid::from_raw(like.st_uid), Gid::from_raw(like.st_gid));
        rustix::fs::chownat(CWD, to, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::chmodat(CWD, to, Mode::from_raw_mode(like.st_mode & 0o7777), AtFlags::empty())
    };
    dress().map_err(|errno| Error::file("prepare volume", to)(errno.into()))?;
    shim_failpoints::step!("daemon.volume.before_sync", error);
    // A volume is filled once: it must not come back empty after a power cut.
    let synced = std::fs::File::open(to).and_then(|place| Ok(rustix::fs::syncfs(&place)?));
    synced.map_err(Error::file("make durable", to))
}

/// Bytes of one part.
const PART: usize = 256 << 10;

/// The giving end of a pipe, to be written to.
struct Given(pipe::Sender);

impl Write for Given {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.0.send_blocking(Bytes::copy_from_slice(data)) {
            true => Ok(data.len()),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
