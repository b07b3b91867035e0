//! One layer's tree while it is being filled: a directory that nobody else has, in overlayfs' form.
//!
//! ```text
//!  path in the archive ─▶ resolve ─▶ real path ─▶ enter ─▶ directory's descriptor
//!                          │ links followed in      │ opened, or made
//!                          │ this tree and below    │
//! ```
//!
//! A real path has no links in it: every component is a directory in the tree, or is going to be
//! one. The last few directories are kept open. What a directory's time shall be is the time it has
//! on disk, but while it is open here: then it is kept, and set again when it is closed.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;
use shim_rootfs::Root;

use crate::error::{At, Error, Result, Rule};
use crate::node::{self, Attributes, is_directory, is_whiteout};
use crate::path::{Plain, components, is_within, split};
use crate::remove;
use crate::tar::Time;
use crate::xattr;

/// Directories kept open.
const OPEN: usize = 32;
/// As the kernel has it (MAXSYMLINKS of path_resolution(7)).
const MAX_LINKS: u32 = 40;
/// What the names of directories may take that nothing made, and of those that hide others, in bytes.
const MAX_REMEMBERED: usize = 16 << 20;

/// What lies under a layer.
#[derive(Clone, Copy, Debug)]
pub enum Below<'a> {
    /// Nothing: it is an image's first.
    Nothing,
    /// Layers that are not there yet. What depends on them is put off.
    Pending,
    /// The layers below as one tree, which is only read.
    Tree(&'a Root),
}

/// A path without links.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) path: Plain,
    /// False when nothing can be there, in this tree or below.
    pub(crate) exists: bool,
}

/// Why a path could not be resolved.
#[derive(Debug)]
pub(crate) enum Unresolved {
    /// Where it leads is for the layers below to say.
    Pending,
    Failed(Error),
}

impl From<Error> for Unresolved {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

#[derive(Debug)]
pub(crate) struct Tree<'a> {
    root: BorrowedFd<'a>,
    below: Below<'a>,
    /// The one used last is the last.
    open: Vec<Directory>,
    /// Directories that no entry made, while the layers below are pending.
    implicit: BTreeSet<Vec<u8>>,
    /// Directories that hide what lies below them.
    opaque: BTreeSet<Vec<u8>>,
    remembered: usize,
    /// There were too many implicit ones: with the layers below at hand, they need not be known.
    pub(crate) forgot: bool,
    /// Directories made because nothing else made them.
    pub(crate) made: u64,
    /// What new files belong to.
    own: (u32, u32),
}

/// A directory that is open.
#[derive(Debug)]
pub(crate) struct Directory {
    path: Vec<u8>,
    fd: OwnedFd,
    /// What it shall have when it is closed.
    mtime: Time,
    is_touched: bool,
    /// Its group goes to new files.
    gives_group: bool,
}

impl<'a> Tree<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>, below: Below<'a>) -> Self {
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self {
            root,
            below,
            open: Vec::with_capacity(OPEN),
            implicit: BTreeSet::new(),
            opaque: BTreeSet::new(),
            remembered: 0,
            forgot: false,
            made: 0,
            own,
        }
    }

    pub(crate) fn below(&self) -> Below<'a> {
        self.below
    }

    /// Sets the times of what is still open, and gives the directories that nothing made.
    pub(crate) fn close(mut self) -> Result<BTreeSet<Vec<u8>>> {
        while let Some(directory) = self.open.pop() {
            directory.close()?;
        }
        Ok(self.implicit)
    }

    /// Where a directory really is. Nothing is made.
    pub(crate) fn resolve(&mut self, path: &[u8]) -> std::result::Result<Resolved, Unresolved> {
        // Nearly always: a directory of this tree, by its own path.
        if self.find(path, path)?.is_some() {
            return Ok(Resolved { path: Plain::new(path)?, exists: true });
        }
        let mut real = Plain::default();
        let mut exists = true;
        let mut links = 0;
        let mut pending: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
        while let Some(name) = pending.pop() {
            if name == b".." {
                real.pop();
                exists = true;
                continue;
            }
            let target = match exists {
                true => self.step(&mut real, &name, path)?,
                false => Step::Missing,
            };
            match target {
                Step::Directory => {}
                Step::Missing => exists = false,
                Step::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Error::refused(path, Rule::TooManyLinks).into());
                    }
                    if target.starts_with(b"/") {
                        real = Plain::default();
                    }
                    pending.extend(components(&target).rev().map(<[u8]>::to_vec));
                    continue;
                }
            }
            real.push(&name);
            real.check_length()?;
        }
        Ok(Resolved { path: real, exists })
    }

    /// What a name in a real directory is, in this tree and below.
    fn step(
        &mut self,
        real: &mut Plain,
        name: &[u8],
        path: &[u8],
    ) -> std::result::Result<Step, Unresolved> {
        let not_a_directory = || Error::refused(path, Rule::NotADirectory);
        let mut next = real.clone();
        next.push(name);
        if let Some(index) = self.find(real.as_bytes(), path)? {
            let directory = self.open[index].fd.as_fd();
            match node::look(directory, name).at("look at", path)? {
                None => {}
                Some(stat) if is_directory(&stat) => return Ok(Step::Directory),
                Some(stat) if is_whiteout(&stat) => return Ok(Step::Missing),
                Some(stat) if node::kind(&stat) == FileType::Symlink => {
                    if matches!(self.below, Below::Pending) {
                        // It leads into this tree or past it: who knows what is there.
                        return Err(Unresolved::Pending);
                    }
                    return Ok(Step::Link(link_target(directory, name).at("read", path)?));
                }
                Some(_) => return Err(not_a_directory().into()),
            }
        }
        match self.below {
            Below::Nothing => Ok(Step::Missing),
            _ if self.is_sealed(real.as_bytes()) => Ok(Step::Missing),
            // Taken for one, for now.
            Below::Pending => Ok(Step::Directory),
            Below::Tree(root) => {
                match look_below(root, next.as_bytes()).at("look below at", path)? {
                    Lower::Nothing => Ok(Step::Missing),
                    Lower::Directory(_) => Ok(Step::Directory),
                    Lower::Link(target) => Ok(Step::Link(target)),
                    Lower::Other(_) => Err(not_a_directory().into()),
                }
            }
        }
    }

    /// The directory at a real path, made with all that leads there when it is missing.
    pub(crate) fn enter(&mut self, path: &[u8]) -> Result<&mut Directory> {
        let index = self.index(path)?;
        Ok(&mut self.open[index])
    }

    fn index(&mut self, path: &[u8]) -> Result<usize> {
        if let Some(index) = self.find(path, path)? {
            return Ok(index);
        }
        // From the root on, each by its parent's descriptor.
        let mut index = self.find(b"", path)?.ok_or(Errno::NOENT).at("open directory", path)?;
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in slashes.chain([path.len()]) {
            let next = &path[..end];
            index = match self.position(next) {
                Some(known) => known,
                None => {
                    let directory = self.open[index].fd.as_fd();
                    let fd = match open_directory(directory, split(next).1) {
                        Ok(fd) => fd,
                        Err(Errno::NOENT | Errno::NOTDIR) => self.make(index, next)?,
                        Err(errno) => return Err(errno).at("open directory", next),
                    };
                    self.keep_open(next, fd)?
                }
            };
        }
        Ok(index)
    }

    /// Makes a directory that no entry has made. It looks like the one below, if there is one.
    fn make(&mut self, parent: usize, path: &[u8]) -> Result<OwnedFd> {
        let (above, name) = split(path);
        let is_sealed = self.is_sealed(above);
        let directory = &mut self.open[parent];
        let hides = directory.replace_whiteout(name, path)?;
        let fd = directory.make(name, path)?.ok_or(Errno::EXIST).at("make directory", path)?;
        self.made += 1;
        if hides {
            self.make_opaque(&fd, path)?;
        } else if !is_sealed {
            match self.below {
                Below::Nothing => {}
                Below::Pending => self.remember_implicit(path),
                Below::Tree(root) => {
                    let lower = look_below(root, path).at("look below at", path)?;
                    if let Lower::Directory(place) = lower {
                        copy_attributes(place.as_fd(), &fd, path)?;
                        return Ok(fd);
                    }
                }
            }
        }
        if self.open[parent].gives_group {
            let (uid, gid) = self.own;
            let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::fchown(&fd, owner.0, owner.1).at("set the owner of", path)?;
        }
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755)).at("set the mode of", path)?;
        Ok(fd)
    }

    /// A directory of this tree that is open, or can be opened; `None` when there is none at that
    /// path, or a link on the way.
    fn find(&mut self, path: &[u8], shown: &[u8]) -> Result<Option<usize>> {
        if let Some(index) = self.position(path) {
            return Ok(Some(index));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let name = if path.is_empty() { b"." } else { path };
        match rustix::fs::openat2(self.root, name, flags, Mode::empty(), how) {
            Ok(fd) => self.keep_open(path, fd).map(Some),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno).at("open directory", shown),
        }
    }

    /// Where a directory is among the open ones.
    fn position(&mut self, path: &[u8]) -> Option<usize> {
        let index = self.open.iter().rposition(|directory| directory.path == path)?;
        let last = self.open.len() - 1;
        if last - index <= OPEN / 2 {
            return Some(index);
        }
        let directory = self.open.remove(index);
        self.open.push(directory);
        Some(last)
    }

    fn keep_open(&mut self, path: &[u8], fd: OwnedFd) -> Result<usize> {
        if self.open.len() == OPEN {
            self.open.remove(0).close()?;
        }
        let stat = rustix::fs::fstat(&fd).at("look at", path)?;
        self.open.push(Directory {
            path: path.to_vec(),
            fd,
            mtime: node::mtime(&stat),
            is_touched: false,
            gives_group: stat.st_mode & Mode::SGID.bits() != 0,
        });
        Ok(self.open.len() - 1)
    }

    /// Gives a directory what its entry says, and makes it when there is none.
    pub(crate) fn put_directory(
        &mut self,
        parent: &[u8],
        name: &[u8],
        attributes: &Attributes<'_>,
    ) -> Result<()> {
        let mut path = Plain::new(parent)?;
        path.push(name);
        let path = path.as_bytes();
        let shown = attributes.path;
        let directory = self.enter(parent)?;
        let gives_group = directory.gives_group;
        let (fd, is_new) = if let Some(fd) = directory.make(name, shown)? {
            (fd, true)
        } else if directory.has_directory(name, shown)? {
            (open_directory(directory.fd.as_fd(), name).at("open directory", shown)?, false)
        } else {
            // Whatever it was hid all that lies below, and so must this.
            directory.remove(name, shown)?;
            let fd =
                directory.make(name, shown)?.ok_or(Errno::EXIST).at("make directory", shown)?;
            self.make_opaque(&fd, path)?;
            (fd, true)
        };
        if !is_new {
            self.clear_attributes(&fd, shown)?;
            self.forget_implicit(path);
        }
        let has_owner = is_new && attributes.owner == Some(self.own) && !gives_group;
        attributes.give(&fd, has_owner)?;
        if let Some(open) = self.open.iter_mut().find(|open| open.path == path) {
            open.mtime = attributes.mtime;
            open.gives_group = attributes.mode & Mode::SGID.bits() != 0;
        }
        Ok(())
    }

    /// Gives the root of the tree what its entry says.
    pub(crate) fn put_root(&mut self, attributes: &Attributes<'_>) -> Result<()> {
        let directory = self.enter(b"")?;
        directory.mtime = attributes.mtime;
        directory.gives_group = attributes.mode & Mode::SGID.bits() != 0;
        let root = self.root;
        self.clear_attributes(root, attributes.path)?;
        attributes.give(root, false)
    }

    /// An entry says all of a directory: what an earlier one or the tree below gave it goes.
    fn clear_attributes(&self, fd: impl AsFd, path: &[u8]) -> Result<()> {
        let fd = fd.as_fd();
        for xattr in xattr::read(fd).at("read the attributes of", path)? {
            rustix::fs::fremovexattr(fd, xattr.name.as_slice())
                .at("remove an extended attribute of", path)?;
        }
        Ok(())
    }

    /// Makes room at a name for something that is no directory.
    pub(crate) fn clear_name(&mut self, parent: &[u8], name: &[u8], shown: &[u8]) -> Result<()> {
        let mut path = Plain::new(parent)?;
        path.push(name);
        self.forget_within(path.as_bytes());
        self.enter(parent)?.remove(name, shown)
    }

    /// Hides what lies below at a name; what this layer has there itself stays.
    pub(crate) fn hide(&mut self, parent: &[u8], name: &[u8], shown: &[u8]) -> Result<()> {
        let mut path = Plain::new(parent)?;
        path.push(name);
        let directory = self.enter(parent)?;
        match node::look(&directory.fd, name).at("look at", shown)? {
            None => {
                directory.is_touched = true;
                let mode = Mode::empty();
                rustix::fs::mknodat(&directory.fd, name, FileType::CharacterDevice, mode, 0)
                    .at("make the whiteout of", shown)
            }
            Some(stat) if is_directory(&stat) => self.hide_all(path.as_bytes(), shown),
            Some(_) => Ok(()),
        }
    }

    /// Hides all that lies below in a directory.
    pub(crate) fn hide_all(&mut self, path: &[u8], shown: &[u8]) -> Result<()> {
        let fd = self.enter(path)?.fd.as_fd();
        let fd = rustix::io::fcntl_dupfd_cloexec(fd, 3).at("open directory", shown)?;
        self.make_opaque(&fd, path)
    }

    fn make_opaque(&mut self, fd: &OwnedFd, path: &[u8]) -> Result<()> {
        if matches!(self.below, Below::Nothing) {
            return Ok(());
        }
        xattr::make_opaque(fd).at("make opaque", path)?;
        if self.opaque.insert(path.to_vec()) && !self.remember(path) {
            let limit = MAX_REMEMBERED as u64;
            return Err(Error::Limit { what: "bytes of names of opaque directories", limit });
        }
        Ok(())
    }

    /// Whether nothing of what lies below shows in a directory.
    pub(crate) fn is_sealed(&self, path: &[u8]) -> bool {
        let is_hidden_at = |end| self.opaque.contains(&path[..end]);
        !self.opaque.is_empty()
            && (0..=path.len())
                .filter(|end| matches!(path.get(*end), None | Some(b'/')))
                .chain([0])
                .any(is_hidden_at)
    }

    fn remember_implicit(&mut self, path: &[u8]) {
        if self.implicit.insert(path.to_vec()) && !self.remember(path) {
            self.forgot = true;
        }
    }

    fn remember(&mut self, path: &[u8]) -> bool {
        // With what a set takes for each.
        self.remembered += path.len() + 64;
        self.remembered <= MAX_REMEMBERED
    }

    fn forget_implicit(&mut self, path: &[u8]) {
        if self.implicit.remove(path) {
            self.remembered = self.remembered.saturating_sub(path.len() + 64);
        }
    }

    /// Before a directory is removed: what is known of it and of those in it.
    fn forget_within(&mut self, path: &[u8]) {
        let mut index = 0;
        while index < self.open.len() {
            match is_within(&self.open[index].path, path) {
                true => drop(self.open.remove(index)),
                false => index += 1,
            }
        }
        for set in [&mut self.implicit, &mut self.opaque] {
            // In order: all that begins with the path is together, with names that only begin alike.
            let begins = |known: &&Vec<u8>| known.starts_with(path);
            let alike = set.range(path.to_vec()..).take_while(begins);
            let gone: Vec<_> = alike.filter(|known| is_within(known, path)).cloned().collect();
            for known in gone {
                self.remembered = self.remembered.saturating_sub(known.len() + 64);
                set.remove(&known);
            }
        }
    }

    /// What this tree has at a name in a real directory; nothing is made.
    pub(crate) fn look(
        &mut self,
        parent: &[u8],
        name: &[u8],
        shown: &[u8],
    ) -> Result<Option<Stat>> {
        let Some(index) = self.find(parent, shown)? else { return Ok(None) };
        node::look(&self.open[index].fd, name).at("look at", shown)
    }

    /// Whether a new file in a directory is of this owner anyway.
    pub(crate) fn is_own(&self, owner: Option<(u32, u32)>, gives_group: bool) -> bool {
        owner == Some(self.own) && !gives_group
    }
}

/// What a component of a path is.
enum Step {
    Directory,
    Link(Vec<u8>),
    Missing,
}

impl Directory {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// For who makes something in it.
    pub(crate) fn touch(&mut self) -> (BorrowedFd<'_>, bool) {
        self.is_touched = true;
        (self.fd.as_fd(), self.gives_group)
    }

    /// `None` when there is anything of that name.
    fn make(&mut self, name: &[u8], shown: &[u8]) -> Result<Option<OwnedFd>> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o700)) {
            Err(Errno::EXIST) => return Ok(None),
            other => other.at("make directory", shown)?,
        }
        self.is_touched = true;
        open_directory(self.fd.as_fd(), name).at("open directory", shown).map(Some)
    }

    fn has_directory(&self, name: &[u8], shown: &[u8]) -> Result<bool> {
        let stat = node::look(&self.fd, name).at("look at", shown)?;
        Ok(stat.is_some_and(|stat| is_directory(&stat)))
    }

    fn remove(&mut self, name: &[u8], shown: &[u8]) -> Result<()> {
        self.is_touched = true;
        match remove::remove(self.fd.as_fd(), name) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).at("replace", shown),
        }
    }

    /// Whether there was one.
    fn replace_whiteout(&mut self, name: &[u8], shown: &[u8]) -> Result<bool> {
        let stat = node::look(&self.fd, name).at("look at", shown)?;
        let is_there = stat.is_some_and(|stat| is_whiteout(&stat));
        if is_there {
            self.remove(name, shown)?;
        }
        Ok(is_there)
    }

    fn close(self) -> Result<()> {
        if !self.is_touched {
            return Ok(());
        }
        rustix::fs::futimens(&self.fd, &node::times(self.mtime)).at("set the times of", &self.path)
    }
}

/// What lies below at a real path.
#[derive(Debug)]
pub(crate) enum Lower {
    Nothing,
    Directory(OwnedFd),
    Link(Vec<u8>),
    /// As a place (O_PATH).
    Other(OwnedFd),
}

/// Looks at a real path below: no link is followed, and the device that overlayfs hides files with
/// is nothing.
pub(crate) fn look_below(root: &Root, path: &[u8]) -> std::result::Result<Lower, Errno> {
    use std::os::unix::ffi::OsStrExt;
    let name = if path.is_empty() { b"." } else { path };
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let place = match root.open_plain(std::ffi::OsStr::from_bytes(name), flags) {
        Ok(place) => place,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Lower::Nothing),
        Err(errno) => return Err(errno),
    };
    let stat = rustix::fs::fstat(&place)?;
    if is_directory(&stat) {
        return Ok(Lower::Directory(place));
    }
    if node::kind(&stat) == FileType::Symlink {
        return link_target(place.as_fd(), b"").map(Lower::Link);
    }
    Ok(if is_whiteout(&stat) { Lower::Nothing } else { Lower::Other(place) })
}

/// Mode, owner, attributes and times of a directory below.
pub(crate) fn copy_attributes(from: BorrowedFd<'_>, to: &OwnedFd, path: &[u8]) -> Result<()> {
    let stat = rustix::fs::fstat(from).at("look below at", path)?;
    let xattrs = xattr::read(from).at("read the attributes of", path)?;
    Attributes::like(&stat, &xattrs, path).give(to, false)
}

pub(crate) fn link_target(
    directory: BorrowedFd<'_>,
    name: &[u8],
) -> std::result::Result<Vec<u8>, Errno> {
    rustix::fs::readlinkat(directory, name, Vec::new()).map(std::ffi::CString::into_bytes)
}

pub(crate) fn open_directory(
    directory: BorrowedFd<'_>,
    name: &[u8],
) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}
