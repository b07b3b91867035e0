//! Where a stock shim lives: in this shim's cgroup, so that killing that ends it as well, and in a
//! mount namespace that nobody else has.
//!
//! In there are the mounts that a stock shim needs at paths: the container's rootfs, its network
//! namespace, and a `/run/containerd` of its own, so that its socket lies in the bundle. The host's
//! mount table and directories have nothing of it, and all goes with the last process.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use shim_cgroup::{Cgroup, Layout};
use shim_wire::files::Bundle;
use shim_wire::plan::Resources;

use super::error::Error;
use crate::error::Error as ShimError;

const NEW_MOUNTS: u64 = 0x0002_0000;

/// Where containerd's shims put their sockets, whatever they are told.
const RUN_CONTAINERD: &str = "/run/containerd";

/// Moves this process there. Its mount namespace.
///
/// # Errors
/// Names the step.
pub(super) fn enter(
    cgroup: Option<&str>,
    bundle: &Bundle,
    network: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, ShimError> {
    if let Some(cgroup) = cgroup {
        let group = Cgroup::new(&Layout::detect()?, cgroup)?;
        group.create(&Resources::default())?;
        group.join(i32::try_from(std::process::id()).unwrap_or(0))?;
    }
    Ok(mounts(bundle, network)?)
}

fn mounts(bundle: &Bundle, network: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Error> {
    let step = |step| move |errno: rustix::io::Errno| Error::step(step, "", errno.into());
    // What the stock shim and what the container leaves behind comes to this process.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(step("become the stock shim's subreaper"))?;
    shim_sys::clone::unshare(NEW_MOUNTS).map_err(step("make a mount namespace"))?;
    let propagation = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", propagation).map_err(step("keep mounts from the host"))?;
    make_directory(Path::new(RUN_CONTAINERD), 0o711)?;
    for directory in [bundle.rootfs(), bundle.run_containerd(), bundle.runtime_root()] {
        make_directory(&directory, 0o711)?;
    }
    for file in [bundle.log(), bundle.network_namespace()] {
        File::create(&file).map_err(|e| Error::step("make", file.display().to_string(), e))?;
    }
    bind(&bundle.run_containerd(), Path::new(RUN_CONTAINERD))?;
    if let Some(network) = network {
        let descriptor = format!("/proc/self/fd/{}", network.as_raw_fd());
        bind(Path::new(&descriptor), &bundle.network_namespace())?;
    }
    let own = "/proc/self/ns/mnt";
    File::open(own).map(OwnedFd::from).map_err(|e| Error::step("open", own, e))
}

fn bind(source: &Path, target: &Path) -> Result<(), Error> {
    mount_bind(source, target)
        .map_err(|errno| Error::step("mount", target.display().to_string(), errno.into()))
}

fn make_directory(path: &Path, mode: u32) -> Result<(), Error> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::step("make directory", path.display().to_string(), error))
        }
        Ok(()) => {
            // Whatever the umask is: who is not root in the container passes through.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(path, mode)
                .map_err(|e| Error::step("make directory", path.display().to_string(), e))
        }
        Err(_) => Ok(()),
    }
}
