//! Who a process shall be: what a plan says of it, looked up in the rootfs' own files.

use shim_rootfs::Root;
use shim_rootfs::user::{self, Wanted};
use shim_wire::plan::User;

pub(crate) use shim_rootfs::user::Identity;

use crate::Error;

/// Looks a user up.
///
/// # Errors
/// [`Error::User`], and [`Error::System`] when a file can't be read.
pub(crate) fn resolve(root: &Root, user: &User) -> Result<Identity, Error> {
    let wanted = match user.name.as_str() {
        "" => Wanted::Numbers { uid: user.uid, gid: user.gid },
        name => Wanted::Named(name),
    };
    let mut found = user::resolve(root, wanted)?
        .map_err(|problem| Error::User { user: user.name.clone(), problem })?;
    if user.strict {
        found.groups.clear();
    }
    found.groups.extend(&user.additional_gids);
    found.groups = user::with(found.gid, found.groups);
    Ok(found)
}
