//! Trees of files that containers made: measured and removed.
//!
//! A container may make anything: links in the place of directories at any moment, directories in
//! each other ten thousand deep. So a walk goes by descriptors, follows no link, and does not recurse;
//! what lies deeper than it keeps open is flattened before it is removed, and not measured.
//!
//! What is mounted in a tree is not of it: nothing of that is measured or removed, also where it is of the same
//! file system. Everything around it is, and then the removal fails, and says where.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How deep a walk goes: each level is a descriptor.
const DEEPEST: usize = 128;

/// How often a directory that fills while it is emptied is begun again.
const TRIES: u32 = 8;

/// What a tree takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub size: u64,
    pub inodes: u64,
}

/// What the files of a tree take, each inode counted once. What goes meanwhile is not counted, and a
/// tree that is not there takes nothing.
///
/// # Errors
/// A directory can't be read.
pub fn usage(path: &Path) -> io::Result<Usage> {
    let mut usage = Usage::default();
    let mut seen = HashSet::new();
    let top = match open_top(path) {
        Ok(top) => top,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(usage),
        Err(errno) => return Err(errno.into()),
    };
    let mut count = |stat: &rustix::fs::Stat| {
        if seen.insert((stat.st_dev, stat.st_ino)) {
            usage.inodes += 1;
            usage.size += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        }
    };
    count(&rustix::fs::fstat(&top)?);
    let mut levels = vec![Dir::new(top)?];
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.read() else {
            levels.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if is_dots(name) {
            continue;
        }
        let here = level.fd()?;
        let Ok(stat) = rustix::fs::statat(here, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        count(&stat);
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_directory && levels.len() < DEEPEST {
            let here = levels.last().map(Dir::fd).transpose()?;
            // It may be another thing by now: then there is nothing in it.
            if let Some(Ok(next)) = here.map(|here| open(here, name)) {
                levels.push(Dir::new(next)?);
            }
        }
    }
    Ok(usage)
}

/// Moves a tree away, to `trash`, and removes it there, so that its place is free at once; what is not
/// there is fine. Where `trash` is another file system's it is removed in its place.
///
/// # Errors
/// As rename(2) and unlinkat(2) say.
pub fn discard(path: &Path, trash: &Path) -> io::Result<()> {
    match std::fs::rename(path, trash) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => remove(path)?,
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    remove(trash)
}

/// Removes a tree, or a file; what is not there is fine.
///
/// # Errors
/// As unlinkat(2) says; [`io::ErrorKind::ResourceBusy`] where something is mounted in it: what is there is
/// untouched, and the rest is gone.
pub fn remove(path: &Path) -> io::Result<()> {
    for _ in 0..TRIES {
        match rustix::fs::unlinkat(CWD, path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(Errno::BUSY) => return Err(mounted(None)),
            Err(errno) => return Err(errno.into()),
        }
        // Before it is opened: of one that is mounted on this says so.
        match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(Errno::BUSY) => return Err(mounted(None)),
            Err(errno) => return Err(errno.into()),
        }
        match open_top(path) {
            Ok(top) => {
                if let Some(name) = empty(top)? {
                    return Err(mounted(Some(&name)));
                }
            }
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::NOTEMPTY.into())
}

/// Why a tree can't go: it, or what has this name in it, is a place where something is mounted.
fn mounted(name: Option<&CStr>) -> io::Error {
    let what = match name {
        None => "something is mounted on it".to_owned(),
        Some(name) => format!("something is mounted in it, on {}", name.to_string_lossy()),
    };
    io::Error::new(
        io::ErrorKind::ResourceBusy,
        format!("{what}: unmount that; nothing in there is removed"),
    )
}

/// Removes all that is in a directory, but for the places where something is mounted; answers the name of
/// one of these.
fn empty(top: OwnedFd) -> io::Result<Option<CString>> {
    let mut foreign = None;
    let mut levels = vec![(Dir::new(top)?, CString::default())];
    while let Some((level, _)) = levels.last_mut() {
        let Some(entry) = level.read() else {
            let Some((_, name)) = levels.pop() else { break };
            let Some((above, _)) = levels.last() else { break };
            match rustix::fs::unlinkat(above.fd()?, &name, AtFlags::REMOVEDIR) {
                // What came meanwhile is for another try.
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(Errno::BUSY) => foreign = Some(name),
                Err(errno) => return Err(errno.into()),
            }
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if is_dots(name) {
            continue;
        }
        match rustix::fs::unlinkat(level.fd()?, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::BUSY) => foreign = Some(name.to_owned()),
            Err(Errno::ISDIR) => {
                let name = name.to_owned();
                let next = match open(level.fd()?, &name) {
                    Ok(next) => next,
                    Err(Errno::XDEV) => {
                        foreign = Some(name);
                        continue;
                    }
                    Err(_) => continue,
                };
                if levels.len() < DEEPEST {
                    levels.push((Dir::new(next)?, name));
                    continue;
                }
                if let Err(error) = bosun_layer::empty(next.as_fd()) {
                    if !is_foreign(&error) {
                        return Err(io::Error::other(error));
                    }
                    foreign = Some(name);
                    continue;
                }
                if let Some((level, _)) = levels.last() {
                    rustix::fs::unlinkat(level.fd()?, &name, AtFlags::REMOVEDIR)?;
                }
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(foreign)
}

/// Whether that is in the way that something is mounted there.
fn is_foreign(error: &bosun_layer::Error) -> bool {
    let bosun_layer::Error::File { source, .. } = error else { return false };
    matches!(Errno::from_io_error(source), Some(Errno::BUSY | Errno::XDEV))
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens the directory of a tree, wherever it is.
fn open_top(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())
}

/// Opens a directory in a tree.
///
/// # Errors
/// As openat2(2) says: `EXDEV` where something is mounted on it.
fn open(at: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    loop {
        match rustix::fs::openat2(&at, name, DIRECTORY, Mode::empty(), how) {
            // Something was renamed meanwhile (openat2(2)).
            Err(Errno::AGAIN) => {}
            opened => return opened,
        }
    }
}

fn is_dots(name: &std::ffi::CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directories in each other, deeper than any path names.
    fn deep(top: &Path, levels: usize) {
        let mut here = open_top(top).unwrap();
        for _ in 0..levels {
            rustix::fs::mkdirat(&here, "x", Mode::from_raw_mode(0o700)).unwrap();
            here = open(&here, c"x").unwrap();
        }
    }

    /// In a mount namespace of its own.
    #[test]
    fn what_is_mounted_in_a_tree_is_left_alone_and_told_of() {
        let outcome = std::thread::spawn(|| {
            use rustix::mount::{
                MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change,
                unmount,
            };
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).unwrap();
            let directory = tempfile::tempdir().unwrap();
            let (tree, other) = (directory.path().join("tree"), directory.path().join("other"));
            std::fs::create_dir_all(&other).unwrap();
            std::fs::write(other.join("keep"), "keep").unwrap();
            let deep = ["x"; DEEPEST + 10].join("/");
            for place in ["mnt/t", deep.as_str(), ""] {
                for is_bound in [false, true] {
                    let place = tree.join(place);
                    std::fs::create_dir_all(&place).unwrap();
                    std::fs::write(tree.join("goes"), "").unwrap();
                    match is_bound {
                        true => mount_bind(&other, &place),
                        false => mount("none", &place, "tmpfs", MountFlags::empty(), c""),
                    }
                    .unwrap();
                    std::fs::write(place.join("keep"), "keep").unwrap();
                    let mounted_on = open_top(&place).unwrap();
                    let within = std::os::fd::AsRawFd::as_raw_fd(&mounted_on);
                    let measured = usage(&tree).unwrap();
                    let error = remove(&tree).unwrap_err();
                    assert!(error.to_string().contains("mounted"), "{error}");
                    // What lies deep in the tree was moved up.
                    let kept = Path::new("/proc/thread-self/fd").join(within.to_string());
                    assert_eq!(std::fs::read_to_string(kept.join("keep")).unwrap(), "keep");
                    if place != tree {
                        assert!(!tree.join("goes").exists(), "{}", place.display());
                        let depth = place.strip_prefix(&tree).unwrap().components().count() as u64;
                        assert!(measured.inodes <= depth + 2, "{measured:?}");
                    }
                    unmount(&kept, UnmountFlags::DETACH).unwrap();
                    remove(&tree).unwrap();
                    assert!(!tree.exists());
                }
            }
            // A file can be mounted on as well.
            std::fs::create_dir(&tree).unwrap();
            std::fs::write(tree.join("file"), "").unwrap();
            mount_bind(other.join("keep"), tree.join("file")).unwrap();
            let error = remove(&tree).unwrap_err();
            assert!(error.to_string().contains("on file"), "{error}");
            unmount(tree.join("file"), UnmountFlags::empty()).unwrap();
            remove(&tree).unwrap();
            assert_eq!(std::fs::read_to_string(other.join("keep")).unwrap(), "keep");
        });
        outcome.join().unwrap();
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_removed_and_measured() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("tree");
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        std::fs::write(top.join("a/file"), [1; 10_000]).unwrap();
        std::fs::hard_link(top.join("a/file"), top.join("a/b/same")).unwrap();
        let before = usage(&top).unwrap();
        assert_eq!(before.inodes, 4);
        assert!(before.size >= 10_000);
        deep(&top, 20_000);
        assert!(usage(&top).unwrap().inodes > before.inodes);
        remove(&top).unwrap();
        assert!(!top.exists());
        remove(&top).unwrap();
        assert_eq!(usage(&top).unwrap(), Usage::default());
    }

    #[test]
    fn links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (canary, tree) = (directory.path().join("canary"), directory.path().join("tree"));
        std::fs::create_dir_all(canary.join("inside")).unwrap();
        std::fs::create_dir(&tree).unwrap();
        std::os::unix::fs::symlink(&canary, tree.join("link")).unwrap();
        std::os::unix::fs::symlink(&canary, directory.path().join("top")).unwrap();
        assert_eq!(usage(&tree).unwrap().inodes, 2);
        assert_eq!(usage(&directory.path().join("top")).unwrap().inodes, 0);
        remove(&tree).unwrap();
        remove(&directory.path().join("top")).unwrap();
        assert!(canary.join("inside").is_dir());
    }
}
