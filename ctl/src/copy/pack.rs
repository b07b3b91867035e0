//! Files of this machine into a tar.
//!
//! They are the user's own, read with the user's rights: nobody hostile is between. What changes
//! meanwhile has the size it had when it was looked at.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use bosun_layer::tar::{Entry, Kind, Time, Writer};
use rustix::fs::{major, minor};

use super::CopyError;

/// Smaller writes are gathered: a header is 512 bytes.
const BUFFER: usize = 256 << 10;

/// What to pack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pack<'a> {
    pub(crate) path: &'a Path,
    /// What it is called in the archive; without a name, a directory's content is packed.
    pub(crate) name: Option<&'a str>,
    /// What the path leads to, when it is a link.
    pub(crate) follow: bool,
}

/// A file whose other names are links to the first one.
type Links = HashMap<(u64, u64), Vec<u8>>;

/// Writes the archive. Sockets are left out: they are nothing without who listens.
pub(crate) fn pack(what: &Pack<'_>, to: impl Write) -> Result<(), CopyError> {
    let Pack { path, name, follow } = *what;
    let metadata = if follow { fs::metadata(path) } else { fs::symlink_metadata(path) };
    let metadata = metadata.map_err(|source| unreadable(path, source))?;
    let mut packer =
        Packer { writer: Writer::new(BufWriter::with_capacity(BUFFER, to)), links: Links::new() };
    match name {
        Some(name) => packer.tree(path, name.as_bytes(), &metadata)?,
        None => packer.children(path, b"")?,
    }
    packer.writer.finish().map_err(|source| unpackable(path, source))?;
    Ok(())
}

struct Packer<W> {
    writer: Writer<W>,
    links: Links,
}

impl<W: Write> Packer<W> {
    /// One file, and what is below it: directories before what is in them.
    fn tree(&mut self, path: &Path, name: &[u8], metadata: &Metadata) -> Result<(), CopyError> {
        let Some(kind) = self.kind(path, name, metadata)? else { return Ok(()) };
        let is_file = matches!(kind, Kind::File { .. });
        let entry = Entry {
            path: named(name, &kind),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: Time {
                seconds: metadata.mtime(),
                nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
            },
            xattrs: Vec::new(),
            kind,
        };
        let data: Box<dyn Read> = if is_file {
            Box::new(File::open(path).map_err(|source| unreadable(path, source))?)
        } else {
            Box::new(io::empty())
        };
        self.writer.append(&entry, data).map_err(|source| unpackable(path, source))?;
        if metadata.is_dir() { self.children(path, name) } else { Ok(()) }
    }

    fn children(&mut self, directory: &Path, name: &[u8]) -> Result<(), CopyError> {
        let entries = fs::read_dir(directory).map_err(|source| unreadable(directory, source))?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
        let names: io::Result<Vec<_>> = names.collect();
        let mut names = names.map_err(|source| unreadable(directory, source))?;
        // The same tree gives the same archive.
        names.sort_unstable();
        for child in names {
            let path = directory.join(&child);
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                // Gone since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(unreadable(&path, source)),
            };
            self.tree(&path, &below(name, &child), &metadata)?;
        }
        Ok(())
    }

    /// Nothing for what no archive holds.
    fn kind(
        &mut self,
        path: &Path,
        name: &[u8],
        metadata: &Metadata,
    ) -> Result<Option<Kind>, CopyError> {
        let file_type = metadata.file_type();
        if metadata.nlink() > 1 && !file_type.is_dir() {
            let identity = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&identity) {
                return Ok(Some(Kind::HardLink { target: first.clone() }));
            }
            self.links.insert(identity, name.to_owned());
        }
        let (major, minor) = (major(metadata.rdev()), minor(metadata.rdev()));
        Ok(Some(if file_type.is_file() {
            Kind::File { size: metadata.len() }
        } else if file_type.is_dir() {
            Kind::Directory
        } else if file_type.is_symlink() {
            let target = fs::read_link(path).map_err(|source| unreadable(path, source))?;
            Kind::Symlink { target: target.into_os_string().into_vec() }
        } else if file_type.is_fifo() {
            Kind::Fifo
        } else if file_type.is_char_device() {
            Kind::Character { major, minor }
        } else if file_type.is_block_device() {
            Kind::Block { major, minor }
        } else {
            return Ok(None);
        }))
    }
}

/// A directory's name ends with a slash, as every tar has it.
fn named(name: &[u8], kind: &Kind) -> Vec<u8> {
    let slash: &[u8] = if matches!(kind, Kind::Directory) { b"/" } else { b"" };
    [name, slash].concat()
}

fn below(directory: &[u8], child: &OsStr) -> Vec<u8> {
    let mut name = directory.to_owned();
    if !name.is_empty() {
        name.push(b'/');
    }
    name.extend_from_slice(child.as_bytes());
    name
}

fn unreadable(path: &Path, source: io::Error) -> CopyError {
    CopyError::Read { path: path.to_owned(), source }
}

fn unpackable(path: &Path, source: bosun_layer::Error) -> CopyError {
    CopyError::Pack { path: PathBuf::from(path), source }
}

#[cfg(test)]
mod tests {
    use bosun_layer::tar::Reader;

    use super::*;

    fn entries(what: &Pack<'_>) -> Vec<(String, Kind)> {
        let mut archive = Vec::new();
        pack(what, &mut archive).unwrap();
        let mut reader = Reader::new(archive.as_slice(), 100);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next().unwrap() {
            entries.push((String::from_utf8(entry.path).unwrap(), entry.kind));
        }
        entries
    }

    #[test]
    fn a_tree_has_every_kind_of_file_once() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("a"), "four").unwrap();
        fs::hard_link(tree.join("a"), tree.join("b")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", tree.join("c")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(tree.join("d")).unwrap();
        let packed = entries(&Pack { path: &tree, name: Some("new"), follow: false });
        assert_eq!(
            packed,
            [
                ("new/".to_owned(), Kind::Directory),
                ("new/a".to_owned(), Kind::File { size: 4 }),
                ("new/b".to_owned(), Kind::HardLink { target: b"new/a".to_vec() }),
                ("new/c".to_owned(), Kind::Symlink { target: b"/etc/passwd".to_vec() }),
            ]
        );
        let content = entries(&Pack { path: &tree, name: None, follow: false });
        assert_eq!(content[0], ("a".to_owned(), Kind::File { size: 4 }));
        assert_eq!(content[1].1, Kind::HardLink { target: b"a".to_vec() });
    }

    #[test]
    fn a_link_is_copied_as_one_unless_it_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        fs::write(dir.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let kind = |follow| entries(&Pack { path: &link, name: Some("n"), follow })[0].1.clone();
        assert_eq!(kind(false), Kind::Symlink { target: b"file".to_vec() });
        assert_eq!(kind(true), Kind::File { size: 1 });
    }
}
