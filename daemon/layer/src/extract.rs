//! Plain archives into a directory that is in use: `cp` into a container, and out of one into a
//! host's directory.
//!
//! Nothing is a whiteout here. Every name is looked up in the root as it is at that moment, links
//! followed inside ([`Root`]); what is made is made by descriptors, so a container that swaps
//! directories meanwhile gets the files somewhere in its own tree, and nowhere else.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use shim_rootfs::{Leaf, Root};

use crate::content;
use crate::error::{At, Error, Result, Rule};
use crate::limits::Limits;
use crate::node::{self, Attributes, Special, is_directory};
use crate::path::{Plain, split};
use crate::remove::remove;
use crate::stream::{self, Uncompressed};
use crate::tar::{Entry, Kind, Reader, Time, Xattr};
use crate::tree::open_directory;

/// How often something is made again that somebody else was faster with.
const MAX_RACES: u32 = 100;
/// What the names of directories may take whose times are set at the end, in bytes.
const MAX_REMEMBERED: usize = 16 << 20;
const SET_ID: u32 = 0o6000;

/// How an archive is unpacked into a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtractOptions {
    /// A directory is never replaced by something else, nor something else by a directory.
    pub keep_kinds: bool,
    /// Owners as the archive says. Otherwise the caller's own, and setuid and setgid bits only for
    /// files that were the caller's.
    pub owners: bool,
}

/// Unpacks an archive, compressed or not, into a directory of a root, and says how many entries it
/// had.
///
/// # Errors
/// The directory is missing; an entry goes up with `..`, or is refused otherwise; the system's. What
/// was unpacked before stays.
pub fn extract(
    archive: impl Read + Send,
    root: &Root,
    directory: &OsStr,
    options: ExtractOptions,
    limits: &Limits,
) -> Result<u64> {
    let (entries, _) = stream::consume(archive, limits, |source| {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let top = [b"/", directory.as_bytes()].concat();
        root.open(OsStr::from_bytes(&top), flags).at("open directory", &top)?;
        let mut extraction = Extraction {
            root,
            directory: directory.as_bytes(),
            options,
            own: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            parent: None,
            times: Vec::new(),
            remembered: 0,
        };
        extraction.run(source, limits)
    })?;
    Ok(entries)
}

struct Extraction<'a> {
    root: &'a Root,
    directory: &'a [u8],
    options: ExtractOptions,
    own: (u32, u32),
    /// The directory of the last entry.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Of directories, for when all is in them.
    times: Vec<(Vec<u8>, Time)>,
    remembered: usize,
}

impl Extraction<'_> {
    fn run(&mut self, source: &mut Uncompressed, limits: &Limits) -> Result<u64> {
        let mut reader = Reader::new(source, limits.entries);
        let mut entries = 0;
        let mut size: u64 = 0;
        while let Some(entry) = reader.next()? {
            if let Kind::File { size: more } = entry.kind {
                size = size.saturating_add(more);
                if size > limits.size {
                    return Err(Error::Limit { what: "bytes in its files", limit: limits.size });
                }
            }
            self.entry(&entry, &mut reader)?;
            entries += 1;
        }
        for (path, mtime) in std::mem::take(&mut self.times) {
            // Whoever has moved it since may have it.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            if let Ok(fd) = self.root.open(OsStr::from_bytes(&path), flags) {
                rustix::fs::futimens(fd, &node::times(mtime)).at("set the times of", &path)?;
            }
        }
        Ok(entries)
    }

    fn entry(&mut self, entry: &Entry, reader: &mut Reader<&mut Uncompressed>) -> Result<()> {
        let path = Plain::new(&entry.path)?;
        let (parent, name) = split(path.as_bytes());
        if name.is_empty() {
            // The directory itself, which is there already and is not the archive's.
            return Ok(());
        }
        let parent = self.parent(parent, &entry.path)?;
        let mut attributes = Attributes::of(entry)?;
        let xattrs: Vec<Xattr>;
        if !self.options.owners {
            attributes.owner = None;
            if (entry.uid, entry.gid) != self.own {
                attributes.mode &= !SET_ID;
            }
        }
        if self.own.0 != 0 {
            // What only root may set.
            let is_user = |xattr: &&Xattr| xattr.name.starts_with(b"user.");
            xattrs = entry.xattrs.iter().filter(is_user).cloned().collect();
            attributes.xattrs = &xattrs;
        }
        let is_target = entry.kind == Kind::Directory;
        for _ in 0..MAX_RACES {
            let found = node::look(&parent, name).at("look at", &entry.path)?;
            let is_there = found.as_ref().map(is_directory);
            if self.options.keep_kinds && is_there.is_some_and(|is_there| is_there != is_target) {
                return Err(Error::refused(&entry.path, Rule::KindKept));
            }
            if is_there.is_some() && !(is_target && is_there == Some(true)) {
                match remove(parent.as_fd(), name) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno).at("replace", &entry.path),
                }
            }
            match self.make(&parent, name, entry, &attributes, reader) {
                Err(Made::Raced) => {}
                Err(Made::Failed(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
        Err(Errno::AGAIN).at("make", &entry.path)
    }

    fn make(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        attributes: &Attributes<'_>,
        reader: &mut Reader<&mut Uncompressed>,
    ) -> std::result::Result<(), Made> {
        let path = &entry.path;
        match &entry.kind {
            Kind::Directory => {
                match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno).at("make directory", path)?,
                }
                let fd = match open_directory(parent.as_fd(), name) {
                    Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Err(Made::Raced),
                    other => other.at("open directory", path)?,
                };
                attributes.give(&fd, false)?;
                self.remember(path, attributes.mtime)?;
            }
            Kind::File { .. } => {
                let fd = raced(node::create_file(parent.as_fd(), name))?.at("make", path)?;
                content::write(reader, fd.as_fd(), path)?;
                attributes.give(&fd, false)?;
            }
            Kind::HardLink { target } => {
                let target = Plain::new(target)?;
                let (from, from_name) = split(target.as_bytes());
                let from = self.full(from);
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                let from = self.root.open(OsStr::from_bytes(&from), flags).at("link", path)?;
                let linked = rustix::fs::linkat(from, from_name, parent, name, AtFlags::empty());
                raced(linked)?.at("link", path)?;
            }
            Kind::Symlink { .. } | Kind::Character { .. } | Kind::Block { .. } | Kind::Fifo => {
                if let Some(special) = Special::of(&entry.kind) {
                    let made = node::create_special(parent.as_fd(), name, special);
                    raced(made)?.at("make", path)?;
                    attributes.give_at(parent.as_fd(), name, special.is_link())?;
                }
            }
        }
        Ok(())
    }

    /// A directory of the archive, made with all that leads there when it is missing.
    fn parent(&mut self, path: &[u8], shown: &[u8]) -> Result<OwnedFd> {
        if let Some((known, fd)) = &self.parent
            && known == path
        {
            return rustix::io::fcntl_dupfd_cloexec(fd, 3).at("open directory", shown);
        }
        let full = self.full(path);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = match self.root.open(OsStr::from_bytes(&full), flags) {
            Err(Errno::NOENT) => self.make_parents(&full)?,
            other => other.at("open directory", shown)?,
        };
        let copy = rustix::io::fcntl_dupfd_cloexec(&fd, 3).at("open directory", shown)?;
        self.parent = Some((path.to_vec(), fd));
        Ok(copy)
    }

    /// Goes back to what is there, and on from it by descriptors.
    fn make_parents(&self, full: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut missing = Vec::new();
        let mut end = full;
        let mut here = loop {
            let (above, name) = split(end);
            if !name.is_empty() {
                missing.push((end, name));
            }
            let path = if above.is_empty() { b"/" } else { above };
            match self.root.open(OsStr::from_bytes(path), flags) {
                Err(Errno::NOENT) if !above.is_empty() => end = above,
                other => break other.at("open directory", path)?,
            }
        };
        while let Some((path, name)) = missing.pop() {
            here = self.make_parent(&here, path, name)?;
        }
        Ok(here)
    }

    /// Whatever the umask, others may pass through.
    fn make_parent(&self, directory: &OwnedFd, path: &[u8], name: &[u8]) -> Result<OwnedFd> {
        let is_new = match rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(errno).at("make directory", path),
        };
        match open_directory(directory.as_fd(), name) {
            Ok(made) if is_new => {
                let mode = Mode::from_raw_mode(0o755);
                rustix::fs::fchmod(&made, mode).at("set the mode of", path).map(|()| made)
            }
            // A link that leads to nothing yet.
            Err(Errno::NOTDIR | Errno::LOOP) => {
                Ok(self.root.make(OsStr::from_bytes(path), Leaf::Directory)?)
            }
            other => other.at("open directory", path),
        }
    }

    /// A path of the archive as one of the root.
    fn full(&self, path: &[u8]) -> Vec<u8> {
        [b"/", self.directory, b"/", path].concat()
    }

    fn remember(&mut self, path: &[u8], mtime: Time) -> Result<()> {
        let full = self.full(Plain::new(path)?.as_bytes());
        self.remembered += full.len() + 64;
        if self.remembered <= MAX_REMEMBERED {
            self.times.push((full, mtime));
        }
        Ok(())
    }
}

/// Why something was not made.
enum Made {
    /// Somebody else made something of that name.
    Raced,
    Failed(Error),
}

impl From<Error> for Made {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

fn raced<T>(
    result: std::result::Result<T, Errno>,
) -> std::result::Result<std::result::Result<T, Errno>, Made> {
    match result {
        Err(Errno::EXIST) => Err(Made::Raced),
        other => Ok(other),
    }
}
