//! Trees of files that containers made: measured and removed.
//!
//! A container may make anything: links in the place of directories at any moment, directories in
//! each other ten thousand deep. So a walk goes by descriptors, follows no link, and does not recurse;
//! what lies deeper than it keeps open is flattened before it is removed, and not measured.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
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
    let top = match open(CWD, path) {
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
/// As unlinkat(2) says.
pub fn remove(path: &Path) -> io::Result<()> {
    for _ in 0..TRIES {
        match rustix::fs::unlinkat(CWD, path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(errno) => return Err(errno.into()),
        }
        match open(CWD, path) {
            Ok(top) => empty(top)?,
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

/// Removes all that is in a directory.
fn empty(top: OwnedFd) -> io::Result<()> {
    let mut levels = vec![(Dir::new(top)?, CString::default())];
    while let Some((level, _)) = levels.last_mut() {
        let Some(entry) = level.read() else {
            let Some((_, name)) = levels.pop() else { break };
            let Some((above, _)) = levels.last() else { break };
            match rustix::fs::unlinkat(above.fd()?, &name, AtFlags::REMOVEDIR) {
                // What came meanwhile is for another try.
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
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
            Err(Errno::ISDIR) => {
                let name = name.to_owned();
                let Ok(next) = open(level.fd()?, &name) else { continue };
                if levels.len() < DEEPEST {
                    levels.push((Dir::new(next)?, name));
                    continue;
                }
                bosun_layer::empty(next.as_fd()).map_err(io::Error::other)?;
                if let Some((level, _)) = levels.last() {
                    rustix::fs::unlinkat(level.fd()?, &name, AtFlags::REMOVEDIR)?;
                }
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn open(at: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

fn is_dots(name: &std::ffi::CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directories in each other, deeper than any path names.
    fn deep(top: &Path, levels: usize) {
        let mut here = open(CWD, top).unwrap();
        for _ in 0..levels {
            rustix::fs::mkdirat(&here, "x", Mode::from_raw_mode(0o700)).unwrap();
            here = open(&here, "x").unwrap();
        }
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
