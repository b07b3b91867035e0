//! Volumes of an image: directories of the container's own, filled from what the image has there.
//!
//! The image says where; its path is looked up inside the image's tree alone, so a link or `..`
//! leads to nothing of the host (CVE-2022-23648). A volume that is half filled has another name
//! until it is whole.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use bosun_layer::{ArchiveOptions, ExtractOptions, Limits};
use rustix::fs::{Mode, OFlags};
use shim_rootfs::Root;

use super::{blocking, path_error};
use crate::container::Record;
use crate::error::{Error, Result};
use crate::layout::make_directory;
use crate::pipe;
use crate::snapshots;

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
        blocking(move || {
            let half = source.with_extension("filling");
            match std::fs::remove_dir_all(&half) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file("remove", &half)(error));
                }
                Ok(()) | Err(_) => {}
            }
            make_directory(&half, 0o755)
                .map_err(|error| Error::file("make volume", &half)(std::io::Error::other(error)))?;
            if !trees.is_empty() {
                copy(&snapshots::merged(&trees)?, &destination, &half, &label)?;
            }
            std::fs::rename(&half, &source).map_err(Error::file("put in place", &source))
        })
        .await?;
    }
    Ok(())
}

/// Copies what a path of an image leads to, when that is a directory.
fn copy(image: &Root, path: &str, to: &Path, label: &str) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(source) = image.open(path, flags) else { return Ok(()) };
    let target = rustix::fs::open(to, flags, Mode::empty())
        .map_err(|errno| Error::file("open volume", to)(errno.into()))?;
    let target = Root::new(target);
    let (parts, mut taken) = pipe::out();
    let (given, reader) = pipe::into();
    std::thread::scope(|scope| {
        let written = scope.spawn(|| {
            let options = ArchiveOptions { one_mount: false };
            let (name, as_name) = (OsStr::new("."), OsStr::new("."));
            let mut parts = bosun_layer::archive(source.as_fd(), name, as_name, parts, options)?;
            parts.flush().map_err(bosun_layer::Error::Write)
        });
        scope.spawn(move || {
            while let Some(part) = taken.blocking_recv() {
                if !given.send_blocking(part) {
                    return;
                }
            }
            given.finish_blocking();
        });
        let options = ExtractOptions { keep_kinds: false, owners: true };
        let read =
            bosun_layer::extract(reader, &target, OsStr::new("/"), options, &Limits::default());
        let written = written.join().unwrap_or(Ok(()));
        written.and(read.map(drop)).map_err(|source| path_error(source, label, path))
    })
}
