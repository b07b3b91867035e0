//! What a layer could not know while it was unpacked beside the others.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use shim_rootfs::Root;

use crate::apply::Deferred;
use crate::error::{At, Error, Result, Rule, shown};
use crate::node::{self, is_whiteout};
use crate::path::split;
use crate::remove::{clear, names};
use crate::tree::{Lower, copy_attributes, look_below};

/// How settling went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The tree is complete.
    Done,
    /// The entry named belongs elsewhere, by what lies below: the tree has to be emptied
    /// ([`empty`]), and the layer applied again with [`Below::Tree`](crate::Below::Tree).
    Again { entry: String },
}

/// Completes a tree that was unpacked while the layers below were pending. `below` is those layers
/// as one tree, `None` when there are none after all. Costs nothing when nothing was deferred.
///
/// # Errors
/// A file below stands where this layer has a directory that it does not make; or the system's.
pub fn settle(tree: BorrowedFd<'_>, deferred: &Deferred, below: Option<&Root>) -> Result<Settled> {
    if let Some(entry) = &deferred.dependent {
        return Ok(Settled::Again { entry: entry.clone() });
    }
    let mut alike = Vec::new();
    let mut missing = Vec::new();
    for path in &deferred.implicit {
        let lower = match below {
            Some(root) => look_below(root, path).at("look below at", path)?,
            None => Lower::Nothing,
        };
        match lower {
            Lower::Directory(_) => alike.push(path),
            Lower::Nothing => missing.push((path, Rule::NoTarget)),
            Lower::Link(_) => return Ok(Settled::Again { entry: shown(path) }),
            Lower::Other(_) => missing.push((path, Rule::NotADirectory)),
        }
    }
    // What is in a directory comes before it.
    for (path, why) in missing.into_iter().rev() {
        if !prune(tree, path)? && why == Rule::NotADirectory {
            return Err(Error::refused(path, why));
        }
    }
    if let Some(root) = below {
        for path in alike {
            // It may have gone: pruning one takes what is in it.
            let Some(directory) = open(tree, path)? else { continue };
            if let Lower::Directory(place) = look_below(root, path).at("look below at", path)? {
                copy_attributes(place.as_fd(), &directory, path)?;
            }
        }
        if deferred.is_root_implicit {
            let to = rustix::io::fcntl_dupfd_cloexec(tree, 3).at("open", b"/")?;
            copy_attributes(root.as_fd(), &to, b"/")?;
        }
    }
    Ok(Settled::Done)
}

/// Removes all that is in a tree.
///
/// # Errors
/// As unlinkat(2) says.
pub fn empty(tree: BorrowedFd<'_>) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(tree, ".", flags, Mode::empty()).at("open", b"the tree")?;
    clear(&top).at("empty", b"the tree")
}

/// Removes a directory that is here only for whiteouts of what is not there. False when there is
/// something in it.
fn prune(tree: BorrowedFd<'_>, path: &[u8]) -> Result<bool> {
    let Some(directory) = open(tree, path)? else { return Ok(true) };
    let whiteouts = names(&directory).at("read directory", path)?;
    for name in &whiteouts {
        let stat = node::look(&directory, name).at("look at", path)?;
        if !stat.is_some_and(|stat| is_whiteout(&stat)) {
            return Ok(false);
        }
    }
    for name in &whiteouts {
        rustix::fs::unlinkat(&directory, name.as_slice(), AtFlags::empty()).at("remove", path)?;
    }
    let (parent, name) = split(path);
    let Some(parent) = open(tree, parent)? else { return Ok(true) };
    let stat = rustix::fs::fstat(&parent).at("look at", path)?;
    rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).at("remove", path)?;
    // As if it had never been there.
    rustix::fs::futimens(&parent, &node::times(node::mtime(&stat))).at("set the times of", path)?;
    Ok(true)
}

/// A directory of the tree; `None` when it has gone.
fn open(tree: BorrowedFd<'_>, path: &[u8]) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let name = if path.is_empty() { b"." } else { path };
    match rustix::fs::openat2(tree, name, flags, Mode::empty(), how) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).at("open directory", path),
    }
}
