//! A program's file where nobody can write to it: what a container can get hold of must not be what
//! the host runs (CVE-2019-5736).
//!
//! A container can make the runtime execute itself inside (`#!/proc/self/exe`), and then holds its
//! file by `/proc/PID/exe`. While anybody executes that file the kernel refuses to open it for
//! writing (ETXTBSY), but that ends with the last process, and Linux 6.11 does not refuse it at
//! all. A read-only mount that is attached nowhere costs nothing; where the kernel can't make one,
//! a sealed copy in memory costs its size.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::mount::{MountAttributes, mount_setattr};

/// MOUNT_ATTR_RDONLY and MS_PRIVATE of mount_setattr(2).
const READ_ONLY: u64 = 0x1;
const PRIVATE: u64 = 1 << 18;

/// The program at `path`, to be executed by its descriptor: close-on-exec.
///
/// # Errors
/// When it is not there, or can neither be mounted nor copied.
pub fn protected(path: &Path) -> Result<OwnedFd, Errno> {
    let own = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    if is_protected(&own) {
        return Ok(own);
    }
    read_only_mount(path, &own).or_else(|_| sealed_copy(&own))
}

/// Whether a file lies where nobody can write to it.
#[must_use]
pub fn is_protected(file: &OwnedFd) -> bool {
    let on_read_only_mount = rustix::fs::fstatvfs(file)
        .is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY));
    let is_sealed =
        || rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::WRITE));
    on_read_only_mount || is_sealed()
}

fn read_only_mount(path: &Path, own: &OwnedFd) -> Result<OwnedFd, Errno> {
    // A link of procfs may lead into another mount namespace, from where nothing is copied: by name.
    let path = rustix::fs::readlink(path, Vec::new()).map_or_else(
        |_| path.as_os_str().as_encoded_bytes().to_vec(),
        std::ffi::CString::into_bytes,
    );
    let how = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, path, how)?;
    let attributes =
        MountAttributes { set: READ_ONLY, propagation: PRIVATE, ..MountAttributes::default() };
    mount_setattr(mount.as_fd(), false, attributes)?;
    let identity =
        |file: &OwnedFd| rustix::fs::fstat(file).map(|found| (found.st_dev, found.st_ino));
    // Replaced by a newer one meanwhile, or deleted.
    if identity(&mount)? == identity(own)? { Ok(mount) } else { Err(Errno::STALE) }
}

fn sealed_copy(own: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create("bosun", flags)?;
    loop {
        match rustix::fs::sendfile(&copy, own, None, 1 << 30) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_the_program_and_takes_no_more_bytes() {
        let own = std::fs::File::open("/proc/self/exe").unwrap().into();
        let copy = sealed_copy(&own).unwrap();
        let size = |file: &OwnedFd| rustix::fs::fstat(file).unwrap().st_size;
        assert_eq!(size(&copy), size(&own));
        assert_eq!(rustix::io::pwrite(&copy, b"x", 0), Err(Errno::PERM));
        assert!(is_protected(&copy));
    }
}
