//! Mounts that travel between the host and a container: only where the mount that the source lies on lets
//! them. The kernel binds such a source all the same, and then nothing ever comes: who waits for it can't
//! tell why, so it is said before anything is made.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use shim_sys::mountinfo::{self, Mounted};

use super::invalid;
use crate::error::{Error, Result};
use crate::spec::{BindMount, Propagation};

/// Refuses mounts that are to travel and can't.
///
/// # Errors
/// Names the source, the mount that it lies on, and the way out; or a source that is not there.
pub(super) fn check(mounts: &[BindMount]) -> Result<()> {
    let mut table = None;
    for mount in mounts {
        let wanted = match mount.propagation {
            Propagation::Rprivate | Propagation::Private => continue,
            Propagation::Rslave | Propagation::Slave => Wanted::ToContainer,
            Propagation::Rshared | Propagation::Shared => Wanted::BothWays,
        };
        let source = mount.source.as_path();
        let look = |errno: Errno| Error::file("look up the mount of", source)(errno.into());
        let id = mount_of(source).map_err(look)?;
        let table = match &mut table {
            Some(table) => table,
            none => none.insert(mountinfo::of("self").map_err(look)?),
        };
        if let Some(mounted) = table.iter().find(|mounted| u64::from(mounted.id) == id)
            && !wanted.is_met_by(mounted)
        {
            let problem = format!(
                "{}: source {}: {wanted} is asked for, and {point} is mounted {}: `mount --make-shared {point}` \
                 on the host lets mounts travel",
                mount.destination,
                source.display(),
                if mounted.is_slave { "slave, not shared" } else { "private" },
                wanted = wanted.name(),
                point = mounted.point,
            );
            return Err(invalid("config.mounts", problem));
        }
    }
    Ok(())
}

/// Which way mounts are to travel.
#[derive(Clone, Copy)]
enum Wanted {
    ToContainer,
    BothWays,
}

impl Wanted {
    /// As the CRI has it.
    fn name(self) -> &'static str {
        match self {
            Self::ToContainer => "propagation HOST_TO_CONTAINER",
            Self::BothWays => "propagation BIDIRECTIONAL",
        }
    }

    /// mount_namespaces(7): what comes to a slave goes on to its own slaves, but nothing comes back.
    fn is_met_by(self, mounted: &Mounted) -> bool {
        match self {
            Self::ToContainer => mounted.is_shared || mounted.is_slave,
            Self::BothWays => mounted.is_shared,
        }
    }
}

/// The id of the mount that a path leads into, links followed: also where others lie below that one at the
/// same place, which a comparison of paths would not tell apart.
fn mount_of(path: &Path) -> std::result::Result<u64, Errno> {
    Ok(statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?.stx_mnt_id)
}
