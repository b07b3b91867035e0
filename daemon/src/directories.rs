//! Directories of the host that others go through: sources of mounts and places of logs, which a kubelet
//! expects to be made, and what plugins and agents of the node share with bosund.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// What such a directory is open to, whatever the daemon's umask is: containers and agents that are not
/// root go through it.
const MODE: u32 = 0o755;

/// Makes a directory, and what is missing above it. What is there stays as it is.
///
/// # Errors
/// Something on the way is no directory, or can't be made.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    let there = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let start = if path.is_absolute() { "/" } else { "." };
    let mut at = rustix::fs::open(start, there, Mode::empty())?;
    for part in path.components() {
        let name = match part {
            Component::Normal(_) | Component::ParentDir => part.as_os_str(),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => continue,
        };
        at = match rustix::fs::openat(&at, name, there, Mode::empty()) {
            Err(Errno::NOENT) => match make_one(&at, Path::new(name)) {
                // Somebody else was faster.
                Err(Errno::EXIST) => rustix::fs::openat(&at, name, there, Mode::empty())?,
                made => made?,
            },
            found => found?,
        };
    }
    Ok(())
}

/// By its descriptor: nobody who may write above it has the mode of something else changed.
fn make_one(above: &OwnedFd, name: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::mkdirat(above, name, Mode::from_raw_mode(MODE))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(above, name, flags, Mode::empty())?;
    // What it has of the one above it, the group for what is made in it, stays.
    let kept = rustix::fs::fstat(&made)?.st_mode & 0o7000;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(kept | MODE))?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_there_keeps_its_mode_and_links_are_followed() {
        let place = tempfile::tempdir().unwrap();
        let mode = |name: &str| {
            std::fs::metadata(place.path().join(name)).unwrap().permissions().mode() & 0o7777
        };
        std::fs::create_dir(place.path().join("there")).unwrap();
        let closed = std::fs::Permissions::from_mode(0o710);
        std::fs::set_permissions(place.path().join("there"), closed).unwrap();
        std::os::unix::fs::symlink("there", place.path().join("link")).unwrap();
        for _ in 0..2 {
            make(&place.path().join("link/a/b")).unwrap();
        }
        assert_eq!((mode("there"), mode("there/a"), mode("there/a/b")), (0o710, MODE, MODE));
        make(&place.path().join("link/a/../c")).unwrap();
        assert_eq!(mode("there/c"), MODE);
        std::fs::write(place.path().join("file"), "").unwrap();
        assert!(make(&place.path().join("file/a")).is_err());
        std::os::unix::fs::symlink("nowhere", place.path().join("dangling")).unwrap();
        assert!(make(&place.path().join("dangling/a")).is_err());
    }
}
