//! What an overlay's upper directory changes: as a list, and as a layer.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::Stat;
use shim_rootfs::Root;

use crate::error::{At, Error, Result, Rule};
use crate::node::{self, is_directory, is_whiteout};
use crate::remove::names;
use crate::tar::{MAX_NAME, Writer};
use crate::tree::{Lower, look_below, open_directory};
use crate::walk::{Form, Walk};
use crate::xattr;

/// The most directories in each other: each is a descriptor.
const MAX_DEPTH: usize = 500;

/// How a file differs from the layers below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

/// A file that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub kind: ChangeKind,
    /// Absolute, of the rootfs.
    pub path: Vec<u8>,
}

/// Lists what an upper directory changes, in the order of paths, as docker does: a directory counts
/// as modified when something was added to it or deleted from it, or when it looks different itself.
/// The root is never listed.
///
/// # Errors
/// A directory can't be read, or directories lie deeper than 500.
pub fn changes(upper: BorrowedFd<'_>, below: Option<&Root>) -> Result<Vec<Change>> {
    let top = open_directory(upper, b".").at("open directory", b"/")?;
    let mut listing = Listing { below, path: Vec::new(), changes: Vec::new() };
    listing.directory(&top, xattr::is_opaque(&top).at("look at", b"/")?, 0)?;
    Ok(listing.changes)
}

/// Writes an upper directory as a layer: whiteouts and opaque directories as the OCI image
/// specification has them, hard links kept, sockets left out. The same directory gives the same
/// bytes. The root has an entry when its mode or owner is not that of the root below.
///
/// # Errors
/// [`Rule::Redirect`] for an overlay that was mounted with `redirect_dir` or `metacopy`; else as
/// [`archive`](crate::archive).
pub fn diff<W: Write>(upper: BorrowedFd<'_>, below: Option<&Root>, to: W) -> Result<W> {
    let mut writer = Writer::new(to);
    let mut walk = Walk::new(&mut writer, Form::Upper);
    if is_root_changed(upper, below)? {
        walk.root(upper)?;
    }
    walk.add_content(upper)?;
    writer.finish()
}

fn is_root_changed(upper: BorrowedFd<'_>, below: Option<&Root>) -> Result<bool> {
    let Some(below) = below else { return Ok(true) };
    let row = |fd: BorrowedFd<'_>| -> Result<_> {
        let stat = rustix::fs::fstat(fd).at("look at", b"/")?;
        Ok((stat.st_mode, stat.st_uid, stat.st_gid, xattr::read(fd).at("look at", b"/")?))
    };
    Ok(row(upper)? != row(below.as_fd())?)
}

struct Listing<'a> {
    below: Option<&'a Root>,
    /// Without a leading slash.
    path: Vec<u8>,
    changes: Vec<Change>,
}

impl Listing<'_> {
    /// Lists what is in a directory. `is_opaque`: nothing of the one below shows in it. True when
    /// something was added or deleted.
    fn directory(&mut self, fd: &OwnedFd, is_opaque: bool, depth: usize) -> Result<bool> {
        if depth == MAX_DEPTH {
            return Err(Error::refused(&self.path, Rule::TooDeep));
        }
        let ours = names(fd).at("read directory", &self.path)?;
        let mut all: BTreeSet<Vec<u8>> = ours.into_iter().collect();
        if is_opaque {
            all.extend(self.names_below()?);
        }
        let mut is_modified = false;
        for name in all {
            let length = self.path.len();
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            if self.path.len() > MAX_NAME {
                return Err(Error::refused(&self.path, Rule::LongPath));
            }
            let stat = node::look(fd, &name).at("look at", &self.path)?;
            is_modified |= self.file(fd, &name, stat, is_opaque, depth)?;
            self.path.truncate(length);
        }
        Ok(is_modified)
    }

    /// Lists one file. True when it was added or deleted.
    fn file(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        stat: Option<Stat>,
        is_opaque: bool,
        depth: usize,
    ) -> Result<bool> {
        let lower = self.lower()?;
        let is_below = !matches!(lower, Lower::Nothing);
        let Some(stat) = stat.filter(|stat| !is_whiteout(stat)) else {
            if is_below {
                self.push(ChangeKind::Deleted);
            }
            return Ok(is_below);
        };
        let kind = if is_below { ChangeKind::Modified } else { ChangeKind::Added };
        let index = self.changes.len();
        self.push(kind);
        if is_directory(&stat) {
            let fd = open_directory(parent.as_fd(), name).at("open directory", &self.path)?;
            let is_opaque = is_opaque || xattr::is_opaque(&fd).at("look at", &self.path)?;
            let is_modified = self.directory(&fd, is_opaque, depth + 1)?;
            if let Lower::Directory(place) = lower {
                let below = rustix::fs::fstat(place).at("look below at", &self.path)?;
                if !is_modified && is_alike(&stat, &below) {
                    // It is here only because of what is in it.
                    self.changes.remove(index);
                }
            }
        }
        Ok(!is_below)
    }

    fn push(&mut self, kind: ChangeKind) {
        let path = [b"/", &self.path[..]].concat();
        self.changes.push(Change { kind, path });
    }

    fn lower(&self) -> Result<Lower> {
        match self.below {
            Some(root) => look_below(root, &self.path).at("look below at", &self.path),
            None => Ok(Lower::Nothing),
        }
    }

    /// What the directory at hand has below.
    fn names_below(&self) -> Result<Vec<Vec<u8>>> {
        let Lower::Directory(place) = self.lower()? else { return Ok(Vec::new()) };
        let fd = open_directory(place.as_fd(), b".").at("open directory", &self.path)?;
        names(&fd).at("read directory", &self.path)
    }
}

fn is_alike(ours: &Stat, below: &Stat) -> bool {
    let row = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, node::mtime(stat));
    row(ours) == row(below)
}
