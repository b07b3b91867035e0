//! One layer into a directory of its own, in overlayfs' form.
//!
//! Layers are unpacked side by side, each without those below it. What a layer says by itself goes
//! into its tree at once: files, whiteouts (the device 0/0), directories that hide what lies below
//! (`trusted.overlay.opaque`). What only the layers below can say is of two kinds:
//!
//! * Directories that no entry made look like those below: known afterwards, and set by
//!   [`settle`](crate::settle).
//! * Where an entry goes at all, when a link is on its way, and what a hard link leads to that is not
//!   in this layer. Few layers have that; such a one is read to its end for its digest, and applied
//!   again on top of the others: [`Below::Tree`].
//!
//! The result is what unpacking all layers onto one tree gives, in the order of their entries; where
//! unpackers differ, umoci's.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bosun_image::Digest;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::content;
use crate::error::{At, Error, Result, Rule, shown};
use crate::limits::Limits;
use crate::node::{self, Attributes, Special, is_directory, is_whiteout};
use crate::path::{Plain, components, split};
use crate::stream::{self, Uncompressed};
use crate::tar::{Entry, Kind, Reader};
use crate::tree::{Below, Lower, Tree, Unresolved, copy_attributes, look_below};
use crate::xattr::{self, proc_path};

/// What the name of a whiteout begins with (OCI image specification, layer).
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// What hides all that lies below in its directory.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
/// What else aufs has beside whiteouts, and nobody else reads.
const AUFS: &[u8] = b".wh..wh.";

/// A layer that was unpacked.
#[derive(Debug)]
pub struct Applied {
    /// Of the uncompressed bytes, all of them.
    pub diff_id: Digest,
    /// The uncompressed bytes.
    pub size: u64,
    /// What is left to do when the layers below are there.
    pub deferred: Deferred,
}

/// What a layer could not know by itself. It lives as long as the unpacking of its image.
#[derive(Debug)]
pub struct Deferred {
    /// The root looks like the one below.
    pub(crate) is_root_implicit: bool,
    /// Directories that no entry made, by real path, and parents before what is in them.
    pub(crate) implicit: BTreeSet<Vec<u8>>,
    /// An entry whose place depends on the layers below: the tree is of no use.
    pub(crate) dependent: Option<String>,
}

impl Deferred {
    /// Whether [`settle`](crate::settle) has nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.is_root_implicit && self.implicit.is_empty() && self.dependent.is_none()
    }

    /// The entry for whose sake the layer has to be applied again, on top of those below.
    #[must_use]
    pub fn dependent(&self) -> Option<&str> {
        self.dependent.as_deref()
    }
}

/// Unpacks a layer, compressed or not, into `tree`: an empty directory that nobody else uses.
///
/// # Errors
/// [`Error::NotTar`], and whatever is wrong with an entry, by its name. The tree is then of no use.
pub fn apply(
    layer: impl std::io::Read + Send,
    tree: BorrowedFd<'_>,
    below: Below<'_>,
    limits: &Limits,
) -> Result<Applied> {
    let (deferred, whole) = stream::consume(layer, limits, |source| {
        let unpacking = Unpacking {
            tree: Tree::new(tree, below),
            is_root_implicit: true,
            size: 0,
            limits,
            path: Plain::default(),
        };
        unpacking.dress_root(tree)?;
        unpacking.run(source)
    })?;
    Ok(Applied { diff_id: whole.digest, size: whole.size, deferred })
}

struct Unpacking<'a> {
    tree: Tree<'a>,
    is_root_implicit: bool,
    /// Of files, holes included.
    size: u64,
    limits: &'a Limits,
    /// The current entry's.
    path: Plain,
}

/// How an entry went.
enum Outcome {
    Done,
    /// It depends on the layers below, and these are pending.
    Dependent,
}

impl Unpacking<'_> {
    /// As long as no entry says how the root looks.
    fn dress_root(&self, tree: BorrowedFd<'_>) -> Result<()> {
        if let Below::Tree(root) = self.tree.below() {
            let to = rustix::io::fcntl_dupfd_cloexec(tree, 3).at("open", b"the root")?;
            return copy_attributes(root.as_fd(), &to, b"/");
        }
        rustix::fs::fchmod(tree, Mode::from_raw_mode(0o755)).at("set the mode of", b"/")
    }

    fn run(mut self, source: &mut Uncompressed) -> Result<Deferred> {
        let mut reader = Reader::new(source, self.limits.entries);
        while let Some(entry) = reader.next()? {
            match self.entry(&entry, &mut reader)? {
                Outcome::Done if !self.tree.forgot => {}
                Outcome::Done | Outcome::Dependent => return Ok(Deferred::again(&entry)),
            }
            if self.tree.made > self.limits.entries {
                return Err(Error::Limit { what: "entries", limit: self.limits.entries });
            }
        }
        let is_pending = matches!(self.tree.below(), Below::Pending);
        Ok(Deferred {
            is_root_implicit: is_pending && self.is_root_implicit,
            implicit: self.tree.close()?,
            dependent: None,
        })
    }

    fn entry(&mut self, entry: &Entry, reader: &mut Reader<&mut Uncompressed>) -> Result<Outcome> {
        self.path.set(&entry.path)?;
        let path = std::mem::take(&mut self.path);
        let (parent, name) = split(path.as_bytes());
        let done = match Name::of(parent, name, &entry.path)? {
            Name::Root => self.root(entry).map(|()| Outcome::Done),
            Name::Ignored => Ok(Outcome::Done),
            Name::Opaque => self.whiteout(parent, None, &entry.path),
            Name::Whiteout(hidden) => self.whiteout(parent, Some(hidden), &entry.path),
            Name::File => self.file(parent, name, entry, reader),
        };
        self.path = path;
        done
    }

    fn root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(Error::refused(&entry.path, Rule::RootKind));
        }
        self.is_root_implicit = false;
        self.tree.put_root(&Attributes::of(entry)?)
    }

    /// Hides one name, or all of a directory.
    fn whiteout(&mut self, parent: &[u8], name: Option<&[u8]>, shown: &[u8]) -> Result<Outcome> {
        let parent = match self.tree.resolve(parent) {
            Ok(resolved) => resolved,
            Err(Unresolved::Pending) => return Ok(Outcome::Dependent),
            // Nothing can be in it that would have to be hidden.
            Err(Unresolved::Failed(Error::Refused { rule: Rule::NotADirectory, .. })) => {
                return Ok(Outcome::Done);
            }
            Err(Unresolved::Failed(error)) => return Err(error),
        };
        let path = parent.path.as_bytes();
        match self.tree.below() {
            Below::Nothing => return Ok(Outcome::Done),
            _ if !parent.exists => return Ok(Outcome::Done),
            Below::Tree(root) => {
                let mut hidden = Plain::new(path)?;
                hidden.push(name.unwrap_or(b"."));
                let hidden = look_below(root, hidden.as_bytes()).at("look below at", shown)?;
                if matches!(hidden, Lower::Nothing) {
                    return Ok(Outcome::Done);
                }
            }
            Below::Pending => {}
        }
        match name {
            Some(name) => self.tree.hide(path, name, shown)?,
            None => self.tree.hide_all(path, shown)?,
        }
        Ok(Outcome::Done)
    }

    fn file(
        &mut self,
        parent: &[u8],
        name: &[u8],
        entry: &Entry,
        reader: &mut Reader<&mut Uncompressed>,
    ) -> Result<Outcome> {
        let attributes = Attributes::of(entry)?;
        let parent = match self.tree.resolve(parent) {
            Ok(resolved) => resolved.path,
            Err(Unresolved::Pending) => return Ok(Outcome::Dependent),
            Err(Unresolved::Failed(error)) => return Err(error),
        };
        let parent = parent.as_bytes();
        match &entry.kind {
            Kind::Directory => self.tree.put_directory(parent, name, &attributes)?,
            Kind::File { size } => {
                self.size = self.size.saturating_add(*size);
                if self.size > self.limits.size {
                    let what = "bytes in its files";
                    return Err(Error::Limit { what, limit: self.limits.size });
                }
                let (fd, has_owner) = self.create(parent, name, &attributes)?;
                content::write(reader, fd.as_fd(), &entry.path)?;
                attributes.give(&fd, has_owner)?;
            }
            Kind::HardLink { target } => return self.hard_link(parent, name, target, &entry.path),
            Kind::Symlink { .. } | Kind::Character { .. } | Kind::Block { .. } | Kind::Fifo => {
                if let Some(special) = Special::of(&entry.kind) {
                    self.special(parent, name, special, &attributes)?;
                }
            }
        }
        Ok(Outcome::Done)
    }

    /// A new file in place of whatever is there, and whether it has the right owner already.
    fn create(
        &mut self,
        parent: &[u8],
        name: &[u8],
        attributes: &Attributes<'_>,
    ) -> Result<(OwnedFd, bool)> {
        loop {
            let (directory, gives_group) = self.tree.enter(parent)?.touch();
            match node::create_file(directory, name) {
                Ok(fd) => return Ok((fd, self.tree.is_own(attributes.owner, gives_group))),
                Err(Errno::EXIST) => self.tree.clear_name(parent, name, attributes.path)?,
                Err(errno) => return Err(errno).at("make", attributes.path),
            }
        }
    }

    fn special(
        &mut self,
        parent: &[u8],
        name: &[u8],
        special: Special<'_>,
        attributes: &Attributes<'_>,
    ) -> Result<()> {
        loop {
            let (directory, _) = self.tree.enter(parent)?.touch();
            match node::create_special(directory, name, special) {
                Ok(()) => return attributes.give_at(directory, name, special.is_link()),
                Err(Errno::EXIST) => self.tree.clear_name(parent, name, attributes.path)?,
                Err(errno) => return Err(errno).at("make", attributes.path),
            }
        }
    }

    fn hard_link(
        &mut self,
        parent: &[u8],
        name: &[u8],
        target: &[u8],
        shown: &[u8],
    ) -> Result<Outcome> {
        let target = Plain::new(target)?;
        let (target_parent, target_name) = split(target.as_bytes());
        if target_name.is_empty() {
            return Err(Error::refused(shown, Rule::LinkToDirectory));
        }
        let target_parent = match self.tree.resolve(target_parent) {
            Ok(resolved) => resolved.path,
            Err(Unresolved::Pending) => return Ok(Outcome::Dependent),
            Err(Unresolved::Failed(error)) => return Err(error),
        };
        let target_parent = target_parent.as_bytes();
        if !self.bring(target_parent, target_name, shown)? {
            return Ok(Outcome::Dependent);
        }
        if (target_parent, target_name) == (parent, name) {
            return Ok(Outcome::Done);
        }
        self.tree.enter(parent)?.touch();
        loop {
            // Held by descriptor: to enter the one may close the other.
            let from = self.tree.enter(target_parent)?.fd();
            let from = rustix::io::fcntl_dupfd_cloexec(from, 3).at("open directory", shown)?;
            let (to, _) = self.tree.enter(parent)?.touch();
            match rustix::fs::linkat(&from, target_name, to, name, AtFlags::empty()) {
                Ok(()) => return Ok(Outcome::Done),
                Err(Errno::EXIST) => self.tree.clear_name(parent, name, shown)?,
                Err(Errno::NOENT) => return Err(Error::refused(shown, Rule::NoTarget)),
                Err(errno) => return Err(errno).at("link", shown),
            }
        }
    }

    /// Makes sure that the target of a hard link is in this tree. False when it can only be below,
    /// and that is pending.
    fn bring(&mut self, parent: &[u8], name: &[u8], shown: &[u8]) -> Result<bool> {
        let no_target = || Error::refused(shown, Rule::NoTarget);
        let mut path = Plain::new(parent)?;
        path.push(name);
        let path = path.as_bytes();
        if let Some(stat) = self.tree.look(parent, name, shown)? {
            return match &stat {
                stat if is_whiteout(stat) => Err(no_target()),
                stat if is_directory(stat) => Err(Error::refused(shown, Rule::LinkToDirectory)),
                _ => Ok(true),
            };
        }
        let root = match self.tree.below() {
            _ if self.tree.is_sealed(parent) => return Err(no_target()),
            Below::Nothing => return Err(no_target()),
            Below::Pending => return Ok(false),
            Below::Tree(root) => root,
        };
        match look_below(root, path).at("look below at", shown)? {
            Lower::Nothing => Err(no_target()),
            Lower::Directory(_) => Err(Error::refused(shown, Rule::LinkToDirectory)),
            Lower::Link(target) => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW;
                let place = open_below(root, path, flags).at("open below", shown)?;
                self.copy_up(parent, name, &place, Some(&target), shown).map(|()| true)
            }
            Lower::Other(place) => self.copy_up(parent, name, &place, None, shown).map(|()| true),
        }
    }

    /// Copies a file from below into this tree, as overlayfs would before it links to it.
    fn copy_up(
        &mut self,
        parent: &[u8],
        name: &[u8],
        place: &OwnedFd,
        link: Option<&[u8]>,
        shown: &[u8],
    ) -> Result<()> {
        use rustix::fs::FileType;
        let stat = rustix::fs::fstat(place).at("look below at", shown)?;
        let xattrs = xattr::read(place).at("read the attributes of", shown)?;
        let attributes = Attributes::like(&stat, &xattrs, shown);
        let special = match (node::kind(&stat), link) {
            (FileType::Symlink, Some(target)) => Special::Symlink(target),
            (FileType::CharacterDevice, _) => Special::Character(stat.st_rdev),
            (FileType::BlockDevice, _) => Special::Block(stat.st_rdev),
            (FileType::Fifo, _) => Special::Fifo,
            (FileType::RegularFile, _) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let from = rustix::fs::open(proc_path(place), flags, Mode::empty())
                    .at("open below", shown)?;
                let (to, has_owner) = self.create(parent, name, &attributes)?;
                content::copy(&from, &to, shown)?;
                return attributes.give(&to, has_owner);
            }
            _ => return Err(Error::refused(shown, Rule::Kind)),
        };
        self.special(parent, name, special, &attributes)
    }
}

impl Deferred {
    fn again(entry: &Entry) -> Self {
        Self {
            is_root_implicit: false,
            implicit: BTreeSet::new(),
            dependent: Some(shown(&entry.path)),
        }
    }
}

/// What an entry's name says.
enum Name<'a> {
    Root,
    Opaque,
    /// Of the file with this name.
    Whiteout(&'a [u8]),
    /// aufs' own.
    Ignored,
    File,
}

impl<'a> Name<'a> {
    fn of(parent: &[u8], name: &'a [u8], shown: &[u8]) -> Result<Self> {
        if name.is_empty() {
            return Ok(Self::Root);
        }
        let mut above = components(parent).filter(|component| component.starts_with(WHITEOUT));
        match above.next() {
            Some(component) if component.starts_with(AUFS) => return Ok(Self::Ignored),
            // It could be written, but never again be read from an archive.
            Some(_) => return Err(Error::refused(shown, Rule::Whiteout)),
            None => {}
        }
        match name.strip_prefix(WHITEOUT) {
            None => Ok(Self::File),
            Some(_) if name == OPAQUE => Ok(Self::Opaque),
            Some(_) if name.starts_with(AUFS) => Ok(Self::Ignored),
            Some(b"" | b"." | b"..") => Err(Error::refused(shown, Rule::Whiteout)),
            Some(hidden) => Ok(Self::Whiteout(hidden)),
        }
    }
}

fn open_below(
    root: &shim_rootfs::Root,
    path: &[u8],
    flags: OFlags,
) -> std::result::Result<OwnedFd, Errno> {
    use std::os::unix::ffi::OsStrExt;
    root.open_plain(std::ffi::OsStr::from_bytes(path), flags)
}
