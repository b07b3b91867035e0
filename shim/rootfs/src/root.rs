//! Every path inside a rootfs: the one way in.
//!
//! A rootfs belongs to whoever made the image. Any component of any path in it may be a symbolic
//! link, may be swapped for one by another container that shares a volume, or may be a special file.
//! So nothing is ever found by a path from the host's root: all lookups start at a descriptor of the
//! rootfs and are confined to it by the kernel (openat2(2): RESOLVE_IN_ROOT, no magic links), and
//! what was found is used through its descriptor, never looked up again.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::At;
use crate::{Error, Rule, Step};

/// As the kernel has it (MAXSYMLINKS of path_resolution(7)).
const MAX_LINKS: u32 = 40;
/// How often a lookup that raced with a rename is begun again.
const MAX_RACES: u32 = 20_000;
/// How many of them are tried at once, before others get their turn in between.
const EAGER: u32 = 128;

/// The root of a container's file system.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// What to make at the end of a path, when there is nothing. Modes are 0755 and 0644, less the
/// caller's umask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    Directory,
    File,
}

impl Root {
    /// The rootfs that begins at a directory.
    #[must_use]
    pub fn new(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// Opens what a path leads to, through links that stay inside. With O_NOFOLLOW, the last
    /// component may be a link (opened with O_PATH, it is the link itself).
    ///
    /// # Errors
    /// As openat2(2) says.
    pub fn open(&self, path: impl AsRef<OsStr>, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.resolve(path.as_ref(), flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// As [`open`](Self::open), but `ELOOP` when any component is a link.
    ///
    /// # Errors
    /// As openat2(2) says.
    pub fn open_plain(&self, path: impl AsRef<OsStr>, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.resolve(path.as_ref(), flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
    }

    fn resolve(&self, path: &OsStr, flags: OFlags, how: ResolveFlags) -> Result<OwnedFd, Errno> {
        let mut races = 0;
        loop {
            match rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
                // The kernel saw a rename beside it and can't tell whether it is still inside.
                Err(Errno::AGAIN) if races < MAX_RACES => {
                    races += 1;
                    if races > EAGER {
                        std::thread::yield_now();
                    }
                }
                Err(Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// The directory that holds the last component of a path, as a place (O_PATH), and that
    /// component, which is not looked at. Nothing is made.
    ///
    /// # Errors
    /// The path names no entry of a directory, or what leads there is missing or no directory.
    pub fn open_parent<'a>(
        &self,
        path: &'a (impl AsRef<OsStr> + ?Sized),
    ) -> Result<(OwnedFd, &'a OsStr), Error> {
        let path = path.as_ref();
        let (parent, name) = split(path)?;
        let directory = self.open(parent, OFlags::PATH | OFlags::DIRECTORY);
        Ok((directory.at(Step::Resolve, parent)?, name))
    }

    /// What a path names: the link itself when its last component is one.
    ///
    /// # Errors
    /// As openat2(2) says; `ENOENT` when nothing is there.
    pub fn look(&self, path: impl AsRef<OsStr>) -> Result<(OwnedFd, Stat), Error> {
        let path = path.as_ref();
        let found = self.open(path, OFlags::PATH | OFlags::NOFOLLOW).at(Step::Resolve, path)?;
        let stat = rustix::fs::fstat(&found).at(Step::Look, path)?;
        Ok((found, stat))
    }

    /// What a path leads to, as a place (O_PATH), made with all that leads there when it is missing.
    ///
    /// A link that leads to nothing is followed, inside, and what it names is made: images have
    /// `/etc/resolv.conf` as a link into `/run`.
    ///
    /// # Errors
    /// Names the path; more links than path_resolution(7) allows are refused.
    pub fn make(&self, path: impl AsRef<OsStr>, leaf: Leaf) -> Result<OwnedFd, Error> {
        let path = path.as_ref();
        match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT) => self.walk(path, leaf),
            other => other.at(Step::Resolve, path),
        }
    }

    /// As [`open_parent`](Self::open_parent), with all that leads there made when it is missing.
    ///
    /// # Errors
    /// The path names no entry of a directory; else as [`make`](Self::make).
    pub fn make_parent<'a>(
        &self,
        path: &'a (impl AsRef<OsStr> + ?Sized),
    ) -> Result<(OwnedFd, &'a OsStr), Error> {
        let (parent, name) = split(path.as_ref())?;
        Ok((self.make(parent, Leaf::Directory)?, name))
    }

    fn walk(&self, path: &OsStr, leaf: Leaf) -> Result<OwnedFd, Error> {
        let copy = rustix::io::fcntl_dupfd_cloexec(&self.0, 3).at(Step::Resolve, path)?;
        // The way from the root to here; `..` goes back on it and never asks the file system.
        let mut way: Vec<OwnedFd> = vec![copy];
        let mut pending: VecDeque<OsString> = components(path);
        let mut links = 0;
        let mut races = 0;
        while let Some(name) = pending.pop_front() {
            if name == ".." {
                way.truncate(way.len().saturating_sub(1).max(1));
                continue;
            }
            let here = way.last().map(AsFd::as_fd).ok_or(Errno::NOENT).at(Step::Resolve, path)?;
            match look(here, &name) {
                Ok(Found::Link(target)) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Error::refused(path, Rule::TooManyLinks));
                    }
                    if target.as_bytes().starts_with(b"/") {
                        way.truncate(1);
                    }
                    for component in components(&target).into_iter().rev() {
                        pending.push_front(component);
                    }
                }
                Ok(Found::Other(next)) => way.push(next),
                Err(Errno::NOENT) if races < EAGER => {
                    races += 1;
                    let wanted = if pending.is_empty() { leaf } else { Leaf::Directory };
                    create(here, &name, wanted).at(Step::MakeTarget, path)?;
                    // Looked up like anything else: somebody may have been faster.
                    pending.push_front(name);
                }
                Err(errno) => return Err(errno).at(Step::Resolve, path),
            }
        }
        way.pop().ok_or(Errno::NOENT).at(Step::Resolve, path)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

enum Found {
    Link(OsString),
    Other(OwnedFd),
}

/// One component, never followed: what it is.
fn look(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Found, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let found = loop {
        match rustix::fs::openat2(directory, name, flags, Mode::empty(), how) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => break other?,
        }
    };
    let mode = rustix::fs::fstat(&found)?.st_mode;
    if FileType::from_raw_mode(mode) != FileType::Symlink {
        return Ok(Found::Other(found));
    }
    let target = rustix::fs::readlinkat(&found, "", Vec::new())?;
    Ok(Found::Link(OsString::from_vec(target.into_bytes())))
}

fn create(directory: BorrowedFd<'_>, name: &OsStr, leaf: Leaf) -> Result<(), Errno> {
    let result = match leaf {
        Leaf::Directory => rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755)),
        Leaf::File => rustix::fs::openat(
            directory,
            name,
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o644),
        )
        .map(drop),
    };
    match result {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// The path of the directory, and the name in it.
fn split(path: &OsStr) -> Result<(&OsStr, &OsStr), Error> {
    let mut bytes = path.as_bytes();
    while let Some(shorter) = bytes.strip_suffix(b"/") {
        bytes = shorter;
    }
    let slash = bytes.iter().rposition(|byte| *byte == b'/');
    let (parent, name) = slash.map_or((&b""[..], bytes), |at| (&bytes[..at], &bytes[at + 1..]));
    if matches!(name, b"" | b"." | b"..") {
        return Err(Error::refused(path, Rule::NotAPath));
    }
    let parent = if parent.is_empty() { b"/" } else { parent };
    Ok((OsStr::from_bytes(parent), OsStr::from_bytes(name)))
}

fn components(path: &OsStr) -> VecDeque<OsString> {
    path.as_bytes()
        .split(|byte| *byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
        .map(|name| OsStr::from_bytes(name).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        outside: tempfile::TempDir,
        root: Root,
    }

    fn fixture() -> Fixture {
        let outside = tempfile::tempdir().unwrap();
        let inside = outside.path().join("root");
        std::fs::create_dir(&inside).unwrap();
        std::fs::create_dir(outside.path().join("host")).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = Root::new(rustix::fs::open(&inside, flags, Mode::empty()).unwrap());
        Fixture { outside, root }
    }

    impl Fixture {
        fn link(&self, target: &str, name: &str) {
            let at = self.outside.path().join("root").join(name);
            std::os::unix::fs::symlink(target, at).unwrap();
        }

        fn host_is_untouched(&self) -> bool {
            std::fs::read_dir(self.outside.path().join("host")).unwrap().next().is_none()
                && std::fs::read_dir(self.outside.path()).unwrap().count() == 2
        }
    }

    #[test]
    fn a_missing_path_is_made_with_all_that_leads_there() {
        let fixture = fixture();
        fixture.root.make("/a/b/./c", Leaf::Directory).unwrap();
        fixture.root.make("/a/b/file", Leaf::File).unwrap();
        let root = fixture.outside.path().join("root");
        assert!(root.join("a/b/c").is_dir());
        assert!(root.join("a/b/file").is_file());
    }

    #[test]
    fn links_that_lead_out_lead_to_the_same_path_inside() {
        let fixture = fixture();
        let host = fixture.outside.path().join("host");
        fixture.link(host.to_str().unwrap(), "absolute");
        fixture.link("../../../../../host", "relative");
        fixture.link("../host", "near");
        fixture.link("../../run/stub", "dangling");
        for name in ["absolute", "relative", "near", "dangling"] {
            fixture.root.make(format!("/{name}/made"), Leaf::File).unwrap();
        }
        assert!(fixture.host_is_untouched());
        let root = fixture.outside.path().join("root");
        assert!(root.join("host/made").is_file());
        assert!(root.join("run/stub/made").is_file());
        assert!(root.join(host.strip_prefix("/").unwrap()).join("made").is_file());
    }

    #[test]
    fn dots_never_lead_out() {
        let fixture = fixture();
        fixture.root.make("/../../host/../../host/made", Leaf::File).unwrap();
        assert!(fixture.host_is_untouched());
        assert!(fixture.outside.path().join("root/host/made").is_file());
    }

    #[test]
    fn a_circle_of_links_ends() {
        let fixture = fixture();
        fixture.link("two", "one");
        fixture.link("one", "two");
        assert!(fixture.root.make("/one/x", Leaf::File).is_err());
        assert!(fixture.root.open("/one", OFlags::PATH).is_err());
    }

    #[test]
    fn a_link_where_none_may_be_is_seen() {
        let fixture = fixture();
        std::fs::create_dir(fixture.outside.path().join("root/real")).unwrap();
        fixture.link("real", "proc");
        let open = |path| fixture.root.open_plain(path, OFlags::PATH).map(drop);
        assert_eq!(open("/proc"), Err(Errno::LOOP));
        assert_eq!(open("/real"), Ok(()));
    }

    #[test]
    fn magic_links_are_not_followed() {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = Root::new(rustix::fs::open("/", flags, Mode::empty()).unwrap());
        assert_eq!(root.open("/proc/self/root", OFlags::PATH).map(drop), Err(Errno::LOOP));
        assert_eq!(root.open("/proc/self/fd/0", OFlags::PATH).map(drop), Err(Errno::LOOP));
    }

    #[test]
    fn another_container_that_swaps_a_directory_for_a_link_gains_nothing() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let fixture = fixture();
        let root = fixture.outside.path().join("root");
        std::fs::create_dir(root.join("volume")).unwrap();
        fixture.link(fixture.outside.path().join("host").to_str().unwrap(), "swap");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let (one, other) = (root.join("volume"), root.join("swap"));
                while !done.load(Ordering::Relaxed) {
                    let here = rustix::fs::CWD;
                    rustix::fs::renameat_with(here, &one, here, &other, flags).unwrap();
                }
            });
            for round in 0..2000 {
                // Whether it succeeds is the race's to say; where it lands is not.
                let _ = fixture.root.make(format!("/volume/{round}/made"), Leaf::File);
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(fixture.host_is_untouched());
    }

    #[test]
    fn a_parent_is_found_through_links_and_never_made() {
        let fixture = fixture();
        let root = fixture.outside.path().join("root");
        std::fs::create_dir(root.join("real")).unwrap();
        fixture.link("/real", "link");
        let (parent, name) = fixture.root.open_parent("/link/new/").unwrap();
        assert_eq!(name, "new");
        let same = |stat: rustix::fs::Stat, path| {
            use std::os::unix::fs::MetadataExt;
            stat.st_ino == std::fs::metadata(root.join(path)).unwrap().ino()
        };
        assert!(same(rustix::fs::fstat(&parent).unwrap(), "real"));
        assert_eq!(fixture.root.open_parent("top").unwrap().1, "top");
        assert_eq!(fixture.root.open_parent("no/x").unwrap_err().errno(), Some(Errno::NOENT));
        for path in ["", "/", ".", "..", "a/..", "a/."] {
            assert!(fixture.root.open_parent(path).is_err(), "{path:?}");
        }
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 2);
    }

    #[test]
    fn a_link_is_looked_at_and_not_followed() {
        let fixture = fixture();
        fixture.link("nowhere", "link");
        let (link, stat) = fixture.root.look("/link").unwrap();
        assert_eq!(FileType::from_raw_mode(stat.st_mode), FileType::Symlink);
        assert_eq!(rustix::fs::readlinkat(link, "", Vec::new()).unwrap().as_bytes(), b"nowhere");
        assert_eq!(fixture.root.look("/nowhere").unwrap_err().errno(), Some(Errno::NOENT));
    }

    #[test]
    fn names_are_bytes() {
        let fixture = fixture();
        let odd = OsStr::from_bytes(b"\xff\xfe");
        std::os::unix::fs::symlink(odd, fixture.outside.path().join("root/link")).unwrap();
        fixture.root.make("/link/made", Leaf::File).unwrap();
        assert!(fixture.outside.path().join("root").join(odd).join("made").is_file());
    }
}
