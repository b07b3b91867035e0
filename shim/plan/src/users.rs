//! The users of a user namespace: which ids it has, and who they are on the host.

use oci_spec::runtime::{LinuxIdMapping, Process, Spec};
use shim_wire::plan::IdMapping;

use crate::Error;

/// The kernel's, since Linux 4.15 (UID_GID_MAP_MAX_EXTENTS).
const LINES_MAX: usize = 340;
/// A map is written at once, and in less than a page.
const BYTES_MAX: usize = 4095;

#[derive(Debug, Default)]
pub(crate) struct Users {
    pub(crate) uids: Vec<IdMapping>,
    pub(crate) gids: Vec<IdMapping>,
}

/// What the spec says of its user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    None,
    New,
    /// Its maps are written already; the spec may repeat them.
    Joined,
}

pub(crate) fn lower(spec: &Spec, namespace: Namespace) -> Result<Users, Error> {
    let Some(linux) = spec.linux() else { return Ok(Users::default()) };
    let list = |list: &Option<Vec<LinuxIdMapping>>, at: &str| {
        let list = list.as_deref().unwrap_or_default();
        match namespace {
            Namespace::None if !list.is_empty() => Err(Error::contradiction(
                at,
                "ids are mapped in a user namespace, and linux.namespaces has none",
            )),
            Namespace::New if list.is_empty() => Err(Error::missing(at)),
            Namespace::None | Namespace::New | Namespace::Joined => mappings(list, at),
        }
    };
    let users = Users {
        uids: list(linux.uid_mappings(), "linux.uidMappings")?,
        gids: list(linux.gid_mappings(), "linux.gidMappings")?,
    };
    if namespace == Namespace::New {
        for (list, at) in [(&users.uids, "linux.uidMappings"), (&users.gids, "linux.gidMappings")] {
            if !has(list, 0) {
                return Err(Error::contradiction(at, "0 of the container is mapped to nobody"));
            }
        }
    }
    Ok(users)
}

/// One map, of a container or of a mount.
pub(crate) fn mappings(list: &[LinuxIdMapping], at: &str) -> Result<Vec<IdMapping>, Error> {
    if list.len() > LINES_MAX {
        let count = format!("{} mappings", list.len());
        return Err(Error::malformed(at, count, "a map of at most 340 mappings"));
    }
    let mut lowered: Vec<IdMapping> = Vec::with_capacity(list.len());
    let mut bytes = 0;
    for (index, mapping) in list.iter().enumerate() {
        let (inside, outside, size) = (mapping.container_id(), mapping.host_id(), mapping.size());
        let at = format!("{at}[{index}]");
        // 4294967295 is no id: it means "leave it" to the kernel.
        if size == 0 || [inside, outside].iter().any(|first| first.checked_add(size).is_none()) {
            let expected = "at least 1, and within ids from 0 to 4294967294";
            return Err(Error::malformed(format!("{at}.size"), size.to_string(), expected));
        }
        let overlaps = |first: u32, earlier: u32, earlier_size: u32| {
            earlier < first + size && first < earlier + earlier_size
        };
        if lowered.iter().any(|earlier| overlaps(inside, earlier.inside, earlier.size)) {
            let at = format!("{at}.containerID");
            return Err(Error::contradiction(at, "overlaps with an earlier mapping"));
        }
        if lowered.iter().any(|earlier| overlaps(outside, earlier.outside, earlier.size)) {
            let at = format!("{at}.hostID");
            return Err(Error::contradiction(at, "overlaps with an earlier mapping"));
        }
        bytes += format!("{inside} {outside} {size}\n").len();
        lowered.push(IdMapping { inside, outside, size });
    }
    if bytes > BYTES_MAX {
        let size = format!("{bytes} bytes");
        return Err(Error::malformed(at, size, "a map that fits into the kernel's 4095 bytes"));
    }
    Ok(lowered)
}

/// The process has to be somebody in the namespace.
pub(crate) fn check_process(process: &Process, users: &Users) -> Result<(), Error> {
    let check = |list: &[IdMapping], id: u32, at: String| match list.is_empty() || has(list, id) {
        true => Ok(()),
        false => {
            Err(Error::malformed(at, id.to_string(), "an id that is mapped in the user namespace"))
        }
    };
    let user = process.user();
    check(&users.uids, user.uid(), "process.user.uid".to_owned())?;
    check(&users.gids, user.gid(), "process.user.gid".to_owned())?;
    for (index, gid) in user.additional_gids().iter().flatten().enumerate() {
        check(&users.gids, *gid, format!("process.user.additionalGids[{index}]"))?;
    }
    Ok(())
}

pub(crate) fn has(list: &[IdMapping], id: u32) -> bool {
    list.iter().any(|mapping| {
        mapping.inside <= id && u64::from(id) < u64::from(mapping.inside) + u64::from(mapping.size)
    })
}
