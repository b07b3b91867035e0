//! A tree that others may be changing, into an archive.
//!
//! Every step goes from a descriptor to a name in it that is not followed, and what was found is used
//! through its own descriptor: whatever a container swaps meanwhile, only its own files are read. A
//! file is opened only after it is known to be one, so that no device and no pipe is ever opened.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::apply;
use crate::error::{At, Error, Result, Rule};
use crate::node::{self, is_directory, is_whiteout};
use crate::remove::names;
use crate::tar::{Entry, Kind, MAX_NAME, Time, Writer};
use crate::tree::{link_target, open_directory};
use crate::xattr::{self, proc_path};

/// The most directories in each other: each is a descriptor.
const MAX_DEPTH: usize = 500;
/// What is remembered of files with several names, in bytes. Others are written once for each name.
const MAX_LINKS: usize = 16 << 20;

/// What kind of tree it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is seen.
    Plain {
        /// What is mounted in it shows as empty.
        one_mount: bool,
    },
    /// An overlay's upper directory, written as a layer.
    Upper,
}

#[derive(Debug)]
pub(crate) struct Walk<'a, W> {
    writer: &'a mut Writer<W>,
    form: Form,
    /// Of the file at hand, in the archive.
    path: Vec<u8>,
    links: HashMap<(u64, u64), Link>,
    remembered: usize,
}

#[derive(Debug)]
struct Link {
    path: Vec<u8>,
    /// Names that are still to come.
    left: u32,
}

/// A directory whose files are being written.
struct Level {
    fd: OwnedFd,
    names: std::vec::IntoIter<Vec<u8>>,
    /// Of the path before it.
    length: usize,
}

impl<'a, W: Write> Walk<'a, W> {
    pub(crate) fn new(writer: &'a mut Writer<W>, form: Form) -> Self {
        Self { writer, form, path: Vec::new(), links: HashMap::new(), remembered: 0 }
    }

    /// Writes what is at a name, with all that is in it, as `path`.
    pub(crate) fn add(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<()> {
        if name == b".." || name.contains(&b'/') {
            return Err(Error::refused(name, Rule::NotAPath));
        }
        self.path = path.to_vec();
        match self.file(parent, name)? {
            Visited::Gone => Err(Errno::NOENT).at("open", path),
            Visited::Done => Ok(()),
            Visited::Directory(fd) => self.descend(fd),
        }
    }

    /// Writes what is in a directory; itself it has no entry.
    pub(crate) fn add_content(&mut self, directory: BorrowedFd<'_>) -> Result<()> {
        self.path.clear();
        let fd = open_directory(directory, b".").at("open directory", b"/")?;
        self.descend(fd)
    }

    fn descend(&mut self, top: OwnedFd) -> Result<()> {
        let mut levels = vec![self.level(top, self.path.len())?];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.next() else {
                self.path.truncate(level.length);
                levels.pop();
                continue;
            };
            let length = self.path.len();
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            let visited = self.file(level.fd.as_fd(), &name)?;
            let Visited::Directory(fd) = visited else {
                self.path.truncate(length);
                continue;
            };
            if levels.len() == MAX_DEPTH {
                return Err(Error::refused(&self.path, Rule::TooDeep));
            }
            let level = self.level(fd, length)?;
            levels.push(level);
        }
        Ok(())
    }

    fn level(&mut self, fd: OwnedFd, length: usize) -> Result<Level> {
        let mut names = names(&fd).at("read directory", &self.path)?;
        names.sort();
        if self.form == Form::Upper && xattr::is_opaque(&fd).at("look at", &self.path)? {
            self.whiteout(apply::OPAQUE)?;
        }
        Ok(Level { fd, names: names.into_iter(), length })
    }

    /// Writes the entry of one file.
    fn file(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<Visited> {
        if self.path.len() >= MAX_NAME {
            return Err(Error::refused(&self.path, Rule::LongPath));
        }
        let place = match self.open(parent, name) {
            Ok(place) => place,
            // It went meanwhile.
            Err(Errno::NOENT) => return Ok(Visited::Gone),
            Err(Errno::XDEV) => return self.mounted(parent, name),
            Err(errno) => return Err(errno).at("open", &self.path),
        };
        let stat = rustix::fs::fstat(&place).at("look at", &self.path)?;
        if self.form == Form::Upper {
            if is_whiteout(&stat) {
                return self.hidden(name);
            }
            if name.starts_with(apply::WHITEOUT) {
                return Err(Error::refused(&self.path, Rule::Whiteout));
            }
            if xattr::is_redirected(&place).at("look at", &self.path)? {
                return Err(Error::refused(&self.path, Rule::Redirect));
            }
        }
        match node::kind(&stat) {
            FileType::RegularFile => self.regular(&place, &stat)?,
            FileType::Directory => {
                let fd = open_directory(place.as_fd(), b".").at("open directory", &self.path)?;
                self.directory(&fd)?;
                return Ok(Visited::Directory(fd));
            }
            FileType::Symlink => {
                let target = link_target(place.as_fd(), b"").at("read", &self.path)?;
                self.special(&place, &stat, Kind::Symlink { target })?;
            }
            FileType::CharacterDevice => {
                let (major, minor) = device(&stat);
                self.special(&place, &stat, Kind::Character { major, minor })?;
            }
            FileType::BlockDevice => {
                let (major, minor) = device(&stat);
                self.special(&place, &stat, Kind::Block { major, minor })?;
            }
            FileType::Fifo => self.special(&place, &stat, Kind::Fifo)?,
            // Of no use to anybody but who listens on it.
            FileType::Socket | FileType::Unknown => {}
        }
        Ok(Visited::Done)
    }

    fn open(&self, parent: BorrowedFd<'_>, name: &[u8]) -> std::result::Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        how.set(ResolveFlags::NO_XDEV, self.form == Form::Plain { one_mount: true });
        loop {
            match rustix::fs::openat2(parent, name, flags, Mode::empty(), how) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    fn regular(&mut self, place: &OwnedFd, stat: &Stat) -> Result<()> {
        if let Some(target) = self.linked(stat) {
            return self.special(place, stat, Kind::HardLink { target });
        }
        // Its own name in procfs: the same file, whatever the directory says by now.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file =
            rustix::fs::open(proc_path(place), flags, Mode::empty()).at("open", &self.path)?;
        let stat = rustix::fs::fstat(&file).at("look at", &self.path)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let entry = self.entry(&file, &stat, Kind::File { size })?;
        self.writer.append(&entry, File::from(file))
    }

    fn special(&mut self, place: &OwnedFd, stat: &Stat, kind: Kind) -> Result<()> {
        let entry = self.entry(place, stat, kind)?;
        self.writer.append(&entry, std::io::empty())
    }

    /// Writes the entry of a directory that is open.
    pub(crate) fn directory(&mut self, fd: &OwnedFd) -> Result<()> {
        let stat = rustix::fs::fstat(fd).at("look at", &self.path)?;
        let mut entry = self.entry(fd, &stat, Kind::Directory)?;
        entry.path.push(b'/');
        self.writer.append(&entry, std::io::empty())
    }

    /// The root's own entry.
    pub(crate) fn root(&mut self, directory: BorrowedFd<'_>) -> Result<()> {
        let fd = open_directory(directory, b".").at("open directory", b"/")?;
        self.path = b".".to_vec();
        self.directory(&fd)
    }

    fn entry(&self, fd: impl AsFd, stat: &Stat, kind: Kind) -> Result<Entry> {
        Ok(Entry {
            path: self.path.clone(),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: node::mtime(stat),
            xattrs: match matches!(kind, Kind::HardLink { .. }) {
                true => Vec::new(),
                false => xattr::read(fd).at("read the attributes of", &self.path)?,
            },
            kind,
        })
    }

    /// The name under which a file has been written, when it has several.
    fn linked(&mut self, stat: &Stat) -> Option<Vec<u8>> {
        if stat.st_nlink < 2 {
            return None;
        }
        let key = (stat.st_dev, stat.st_ino);
        if let Some(link) = self.links.get_mut(&key) {
            link.left = link.left.saturating_sub(1);
            if link.left > 0 {
                return Some(link.path.clone());
            }
            return self.links.remove(&key).map(|link| link.path);
        }
        self.remembered += self.path.len() + 64;
        if self.remembered <= MAX_LINKS {
            let left = u32::try_from(stat.st_nlink).unwrap_or(u32::MAX) - 1;
            self.links.insert(key, Link { path: self.path.clone(), left });
        }
        None
    }

    /// What something is mounted on: empty, and as such places mostly look, for what is below the
    /// mount can't be seen.
    fn mounted(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<Visited> {
        let Some(stat) = node::look(parent, name).at("look at", &self.path)? else {
            return Ok(Visited::Gone);
        };
        let (kind, mode) = match is_directory(&stat) {
            true => (Kind::Directory, 0o755),
            false => (Kind::File { size: 0 }, 0o644),
        };
        let mut entry = self.plain(kind, mode);
        if is_directory(&stat) {
            entry.path.push(b'/');
        }
        self.writer.append(&entry, std::io::empty())?;
        Ok(Visited::Done)
    }

    /// The whiteout in place of a file.
    fn hidden(&mut self, name: &[u8]) -> Result<Visited> {
        let length = self.path.len() - name.len();
        let name = [apply::WHITEOUT, name].concat();
        self.path.truncate(length);
        if self.path.last() == Some(&b'/') {
            self.path.pop();
        }
        self.whiteout(&name)?;
        Ok(Visited::Done)
    }

    /// An empty file of that name in the directory at hand.
    fn whiteout(&mut self, name: &[u8]) -> Result<()> {
        let mut entry = self.plain(Kind::File { size: 0 }, 0);
        if !entry.path.is_empty() {
            entry.path.push(b'/');
        }
        entry.path.extend_from_slice(name);
        self.writer.append(&entry, std::io::empty())
    }

    fn plain(&self, kind: Kind, mode: u32) -> Entry {
        let (path, mtime) = (self.path.clone(), Time::default());
        Entry { path, kind, mode, uid: 0, gid: 0, mtime, xattrs: Vec::new() }
    }
}

/// What became of a file.
enum Visited {
    Done,
    /// It was not there any more.
    Gone,
    /// Its own entry is written; what is in it is not.
    Directory(OwnedFd),
}

fn device(stat: &Stat) -> (u32, u32) {
    (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
}
