//! Views of layers on kernels that can't make them of descriptors alone.
//!
//! Before Linux 6.8 layers are given to fsconfig(2) in one string of at most 255 bytes, which is six
//! layers. mount(2) takes a page, but attaches what it makes to a place. So a thread with a mount
//! table of its own mounts there, takes a detached copy of the mount, and ends: with it goes the
//! table, and the copy's descriptor is all that is left. Paths are relative to the directory of all
//! snapshots, so that 128 layers fit.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, OpenTreeFlags};

/// Makes a detached overlay of `lower`, nearest first, with an upper and a work directory or without.
///
/// # Errors
/// As mount(2) says.
pub(super) fn overlay(lower: &[PathBuf], upper: Option<(&Path, &Path)>) -> io::Result<OwnedFd> {
    let home = home(lower).ok_or(io::ErrorKind::InvalidInput)?;
    let options = options(&home, lower, upper);
    let mount = move || -> io::Result<OwnedFd> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private)?;
        std::env::set_current_dir(&home)?;
        let options = std::ffi::CString::new(options)?;
        let flags = MountFlags::empty();
        rustix::mount::mount("overlay", &home, "overlay", flags, options.as_c_str())?;
        let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok(rustix::mount::open_tree(CWD, &home, copy)?)
    };
    // A thread of its own: table and working directory end with it.
    let thread = std::thread::Builder::new().name("overlay".to_owned()).spawn(mount)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that mounts panicked")))
}

/// The directory of all snapshots: a tree is `HOME/NUMBER/fs`.
fn home(lower: &[PathBuf]) -> Option<PathBuf> {
    lower.iter().find_map(|tree| tree.parent()?.parent()).map(Path::to_owned)
}

fn options(home: &Path, lower: &[PathBuf], upper: Option<(&Path, &Path)>) -> String {
    let short = |path: &Path| {
        let path = path.strip_prefix(home).unwrap_or(path).to_string_lossy().into_owned();
        path.replace('\\', "\\\\").replace(',', "\\,").replace(':', "\\:")
    };
    let lower: Vec<String> = lower.iter().map(|tree| short(tree)).collect();
    let mut options = format!("lowerdir={}", lower.join(":"));
    if let Some((upper, work)) = upper {
        options += &format!(",upperdir={},workdir={}", short(upper), short(work));
    }
    options
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::{Mode, OFlags};

    use super::*;

    #[test]
    fn many_layers_become_one_view_that_is_in_no_mount_table() {
        let directory = tempfile::tempdir().unwrap();
        let trees: Vec<PathBuf> = (0..100)
            .map(|number| {
                let tree = directory.path().join(number.to_string()).join("fs");
                std::fs::create_dir_all(&tree).unwrap();
                std::fs::write(tree.join(format!("file-{number}")), "x").unwrap();
                tree
            })
            .collect();
        let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let working = std::env::current_dir().unwrap();
        let view = overlay(&trees, None).unwrap();
        for name in ["file-0", "file-99"] {
            rustix::fs::openat(view.as_fd(), name, OFlags::PATH, Mode::empty()).unwrap();
        }
        assert_eq!(std::env::current_dir().unwrap(), working);
        let after = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert_eq!(before.lines().count(), after.lines().count());
        drop(view);
        std::fs::remove_dir_all(trees[0].parent().unwrap()).unwrap();
    }
}
