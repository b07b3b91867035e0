//! Mounts: made and set up while they are attached nowhere, then attached to a descriptor.

use std::borrow::Cow;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    open_tree,
};
use shim_rootfs::{Leaf, Root};
use shim_sys::mount::MountAttributes;
use shim_wire::plan::{IdMap, PlanMount};

use crate::error::At;
use crate::procfs::Procfs;
use crate::setattr::{self, mount_setattr};
use crate::userns::{self, UserNamespace};
use crate::{Error, Rule, Step, copyup, overlay};

/// MS_* of mount(2), as the plan has them.
mod flag {
    pub(super) const REMOUNT: u64 = 0x20;
    pub(super) const BIND: u64 = 0x1000;
    pub(super) const REC: u64 = 0x4000;
    pub(super) const PRIVATE: u64 = 1 << 18;
    pub(super) const SHARED: u64 = 1 << 20;
    /// In the order of [`super::ATTRIBUTES`].
    pub(super) const RDONLY: u64 = 1;
    pub(super) const NOSUID: u64 = 2;
    pub(super) const NODEV: u64 = 4;
    pub(super) const NOEXEC: u64 = 8;
    pub(super) const NOSYMFOLLOW: u64 = 256;
    pub(super) const NOATIME: u64 = 1024;
    pub(super) const NODIRATIME: u64 = 2048;
    pub(super) const STRICTATIME: u64 = 1 << 24;
    pub(super) const RELATIME: u64 = 1 << 21;
    /// Of the file system as a whole: sync, mand, dirsync, silent, iversion, lazytime.
    pub(super) const OF_FILE_SYSTEM: u64 = 1 << 4 | 1 << 6 | 1 << 7 | 1 << 15 | 1 << 23 | 1 << 25;
}

/// MOUNT_ATTR_* of mount_setattr(2) for each flag.
const ATTRIBUTES: [(u64, u64); 8] = [
    (flag::RDONLY, 0x1),
    (flag::NOSUID, 0x2),
    (flag::NODEV, 0x4),
    (flag::NOEXEC, 0x8),
    (flag::NOSYMFOLLOW, 0x0020_0000),
    (flag::NOATIME, 0x10),
    (flag::NODIRATIME, 0x80),
    (flag::STRICTATIME, 0x20),
];
/// MOUNT_ATTR__ATIME: one field of several bits, cleared before one of them is set.
const ATIME_FIELD: u64 = 0x70;
const ATIME_FLAGS: u64 = flag::NOATIME | flag::STRICTATIME | flag::RELATIME;
const READ_ONLY: u64 = 0x1;
/// MOUNT_ATTR_IDMAP.
const IDMAP: u64 = 0x0010_0000;
/// What fsconfig(2) takes at most for a string, the terminating NUL included.
const MAX_VALUE: usize = 256;

/// MS_RDONLY, for those who have to leave it out for a while.
pub(crate) const READ_ONLY_FLAG: u64 = flag::RDONLY;

/// What an empty directory is mounted with.
pub(crate) const MASK_FLAGS: u64 = flag::RDONLY | flag::NOSUID | flag::NODEV | flag::NOEXEC;

/// PROC_SUPER_MAGIC of statfs(2).
pub(crate) const PROC_MAGIC: u64 = 0x9fa0;

/// What may be mounted over in procfs: what lxcfs and the like stand in for. All else could be a way
/// to fake what the last steps write (CVE-2015-3631, CVE-2019-16884).
const MAY_BE_COVERED: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// A mount of the plan, complete but for its place.
#[derive(Debug)]
pub(crate) struct Detached {
    mount: OwnedFd,
    leaf: Leaf,
}

/// Copies the sources of those binds that can't wait. What shall travel back to the host is its peer
/// only before the mount table turns into a slave of the host's; and once something lies on the old
/// root, nobody gets a user namespace to map ids by.
pub(crate) fn copy_early(mounts: &[PlanMount]) -> Result<Vec<Option<Detached>>, Error> {
    let is_early = |mount: &PlanMount| {
        let is_shared = mount.propagation & flag::SHARED != 0;
        is_copy(mount) && (is_shared || mount.idmap() != IdMap::None)
    };
    let take = |mount: &PlanMount| is_early(mount).then(|| copy(mount, None)).transpose();
    each(mounts, take)
}

/// Whether it changes a mount instead of making one.
pub(crate) fn is_remount(mount: &PlanMount) -> bool {
    mount.flags & flag::REMOUNT != 0
}

fn is_copy(mount: &PlanMount) -> bool {
    mount.kind == "bind" && !is_remount(mount)
}

/// Whether it is to be read-only once all that lies in it is there: a tmpfs is made empty, and
/// mount points, devices and the working directory are still to be made in it.
pub(crate) fn is_read_only_at_the_end(mount: &PlanMount) -> bool {
    mount.kind == "tmpfs"
        && (mount.recursive_set & READ_ONLY != 0
            || mount.flags & flag::RDONLY != 0 && mount.recursive_cleared & READ_ONLY == 0)
}

/// The plan of a mount as it is first made, which is writable when it becomes read-only at the end.
fn as_made(mount: &PlanMount) -> Cow<'_, PlanMount> {
    if !is_read_only_at_the_end(mount) {
        return Cow::Borrowed(mount);
    }
    let mut writable = mount.clone();
    writable.flags &= !flag::RDONLY;
    writable.recursive_set &= !READ_ONLY;
    Cow::Owned(writable)
}

/// Copies the sources of all binds, and makes the overlays of id-mapped layers.
pub(crate) fn copy_all(
    mounts: &[PlanMount],
    user: &UserNamespace,
) -> Result<Vec<Option<Detached>>, Error> {
    let take = |mount: &PlanMount| {
        if is_copy(mount) {
            return copy(mount, Some(user)).map(Some);
        }
        let is_mapped = mount.idmap() != IdMap::None;
        is_mapped.then(|| of_mapped_layers(mount, user)).transpose()
    };
    each(mounts, take)
}

/// What there is of each mount; an error names which.
fn each<T>(
    mounts: &[PlanMount],
    take: impl Fn(&PlanMount) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let named = |(index, mount)| take(mount).map_err(|error| error.of_mount(index, mount));
    mounts.iter().enumerate().map(named).collect()
}

/// An overlay that nothing is written to, of layers whose owners are shown as the container's.
fn of_mapped_layers(mount: &PlanMount, user: &UserNamespace) -> Result<Detached, Error> {
    const LOWER: &str = "lowerdir=";
    let (lower, options): (Vec<&str>, Vec<&str>) = mount
        .data
        .split(',')
        .filter(|word| !word.is_empty())
        .partition(|word| word.starts_with(LOWER));
    let layers = lower.iter().flat_map(|word| word[LOWER.len()..].split(':'));
    let layers = layers.map(str::to_owned).collect();
    let options = options.into_iter().map(str::to_owned).collect();
    let made = overlay::of_mapped_layers(layers, options, user)?;
    set_flags(&made, mount.flags, &mount.destination)?;
    set_recursively(&made, mount)?;
    Ok(Detached { mount: made, leaf: Leaf::Directory })
}

/// Makes a mount of any kind but of control groups. `label` is its SELinux context, where it takes
/// one.
pub(crate) fn make(mount: &PlanMount, label: &str) -> Result<Detached, Error> {
    match mount.kind.as_str() {
        "bind" => copy(mount, None),
        _ => {
            let mount = &*as_made(mount);
            let detached = new(mount, label)?;
            if mount.kind == "mqueue" && !label.is_empty() {
                let path = format!("/proc/self/fd/{}", detached.as_raw_fd());
                let label = label.as_bytes();
                rustix::fs::setxattr(path, "security.selinux", label, XattrFlags::empty())
                    .at(Step::SecurityLabel, &mount.destination)?;
            }
            set_recursively(&detached, mount)?;
            if mount.propagation & !flag::REC & !flag::PRIVATE != 0 {
                set_propagation(&detached, mount)?;
            }
            Ok(Detached { mount: detached, leaf: Leaf::Directory })
        }
    }
}

fn new(mount: &PlanMount, label: &str) -> Result<OwnedFd, Error> {
    make_file_system(mount, label).map_err(|error| {
        // Of the calls for a mount, only this one says so of nothing but the type.
        let is_unknown =
            || fsopen(&*mount.kind, FsOpenFlags::FSOPEN_CLOEXEC).err() == Some(Errno::NODEV);
        if error.errno() != Some(Errno::NODEV) || !is_unknown() {
            return error;
        }
        let object = format!("type {:?} of the mount at {:?}", mount.kind, mount.destination);
        Error::refused(object, Rule::NoFileSystem)
    })
}

fn make_file_system(mount: &PlanMount, label: &str) -> Result<OwnedFd, Error> {
    let at = || format!("{} at {}", mount.kind, mount.destination);
    // The kernel labels these itself.
    let label = if matches!(&*mount.kind, "proc" | "sysfs" | "mqueue") { "" } else { label };
    let is_plain = matches!(&*mount.kind, "proc" | "sysfs" | "tmpfs" | "devpts" | "mqueue")
        && mount.flags & flag::OF_FILE_SYSTEM == 0
        && mount.data.len() < MAX_VALUE;
    if !is_plain {
        return by_mount(mount, label).map_err(|errno| {
            // Which of them the kernel did not take is in its log alone.
            let object = match errno {
                Errno::INVAL if !mount.data.is_empty() => {
                    format!("{} with the options {:?}", at(), mount.data)
                }
                _ => at(),
            };
            Error::System { step: Step::Mount, object, errno }
        });
    }
    let context = new_file_system(&mount.kind, &mount.source, &mount.data)?;
    if !label.is_empty() {
        fsconfig_set_string(&context, "context", label).at(Step::MountOption, label)?;
    }
    finish_file_system(&context, mount.flags).at(Step::Mount, at())
}

/// Any file system, with all that mount(2) takes: the new calls don't know all flags, nor long
/// options. It needs a place for a moment, which is one in the old root's procfs.
fn by_mount(mount: &PlanMount, label: &str) -> Result<OwnedFd, Errno> {
    let mut data = mount.data.clone();
    if !label.is_empty() {
        let separator = if data.is_empty() { "" } else { "," };
        data += &format!("{separator}context=\"{label}\"");
    }
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    let flags = mount.flags & !(flag::REC | flag::BIND | flag::REMOUNT);
    let flags = MountFlags::from_bits_retain(u32::try_from(flags).map_err(|_| Errno::INVAL)?);
    let (source, kind) = (mount.source.as_str(), mount.kind.as_str());
    rustix::mount::mount(source, setattr::DIRECTORY, kind, flags, Some(data.as_c_str()))?;
    let place = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(setattr::DIRECTORY, place, Mode::empty())
}

/// Changes a mount that is there already.
pub(crate) fn remount(root: &Root, mount: &PlanMount) -> Result<(), Error> {
    let path = &mount.destination;
    let place = root.open(path, OFlags::PATH).at(Step::Resolve, path)?;
    if mount.flags & flag::BIND != 0 {
        // All that is not asked for is switched off, as mount(2) does it.
        let (set, _) = attributes(mount.flags);
        let all = ATTRIBUTES.iter().fold(ATIME_FIELD, |bits, (_, attribute)| bits | attribute);
        let attributes =
            MountAttributes { set, clear: all & !set | ATIME_FIELD, ..MountAttributes::default() };
        mount_setattr(place.as_fd(), false, attributes).at(Step::MountAttributes, path)?;
    } else {
        let data =
            CString::new(mount.data.as_str()).map_err(|_| Error::refused(path, Rule::NulByte))?;
        let flags = u32::try_from(mount.flags & !flag::REC).unwrap_or_default();
        let flags = MountFlags::from_bits_retain(flags);
        let name = format!("/proc/self/fd/{}", place.as_raw_fd());
        rustix::mount::mount_remount(name, flags, data.as_c_str())
            .at(Step::MountAttributes, path)?;
    }
    set_tree(&place, mount)
}

/// What a plan says of a mount that is attached, and of all below it.
pub(crate) fn set_tree(place: &OwnedFd, mount: &PlanMount) -> Result<(), Error> {
    set_recursively(place, mount)?;
    match mount.propagation {
        0 => Ok(()),
        _ => set_propagation(place, mount),
    }
}

/// What holds for a mount and all below it: there is no old way for that.
fn set_recursively(mount: &OwnedFd, plan: &PlanMount) -> Result<(), Error> {
    let (set, clear) = (plan.recursive_set, plan.recursive_cleared);
    if set | clear == 0 {
        return Ok(());
    }
    let attributes = MountAttributes { set, clear, ..MountAttributes::default() };
    shim_sys::mount::mount_setattr(mount.as_fd(), true, attributes)
        .at(Step::MountAttributes, format_args!("all below {}", plan.destination))
}

/// A context for a file system of a kind, with its options.
pub(crate) fn new_file_system(kind: &str, source: &str, data: &str) -> Result<OwnedFd, Error> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).at(Step::Mount, kind)?;
    if !source.is_empty() {
        fsconfig_set_string(&context, "source", source).at(Step::MountOption, source)?;
    }
    for option in data.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&context, key, value),
            None => fsconfig_set_flag(&context, option),
        }
        .at(Step::MountOption, format_args!("{option} of {kind}"))?;
    }
    Ok(context)
}

/// The mount of a context.
pub(crate) fn finish_file_system(context: &OwnedFd, flags: u64) -> Result<OwnedFd, Errno> {
    fsconfig_create(context)?;
    let attributes = u32::try_from(attributes(flags).0).map_err(|_| Errno::INVAL)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes);
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// MS_* flags as attributes to set and to clear.
fn attributes(flags: u64) -> (u64, u64) {
    let set = ATTRIBUTES
        .iter()
        .filter(|(flag, _)| flags & flag != 0)
        .fold(0, |bits, (_, attribute)| bits | attribute);
    (set, if flags & ATIME_FLAGS != 0 { ATIME_FIELD } else { 0 })
}

/// A copy of a host directory or file with its flags, and of what is mounted below it when the plan
/// says so.
fn copy(mount: &PlanMount, user: Option<&UserNamespace>) -> Result<Detached, Error> {
    let recursive = mount.flags & flag::REC != 0;
    let missing = |errno| Error::MountSource {
        source: mount.source.clone(),
        destination: mount.destination.clone(),
        errno,
    };
    let mut how = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    how.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    let copy = open_tree(CWD, mount.source.as_str(), how).map_err(missing)?;
    let found = rustix::fs::fstat(&copy).map_err(missing)?;
    let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
    let leaf = if is_directory { Leaf::Directory } else { Leaf::File };
    let (set, clear) = attributes(mount.flags);
    let clear = clear | attributes(mount.cleared).0 & !set;
    if set | clear != 0 {
        // Of a field, nothing or all is cleared.
        let clear = if clear & ATIME_FIELD != 0 { clear | ATIME_FIELD } else { clear };
        let attributes = MountAttributes { set, clear, ..MountAttributes::default() };
        mount_setattr(copy.as_fd(), false, attributes).at(Step::MountAttributes, &mount.source)?;
    }
    set_recursively(&copy, mount)?;
    set_propagation(&copy, mount)?;
    map_ids_of(&copy, mount, user)?;
    Ok(Detached { mount: copy, leaf })
}

fn map_ids_of(
    copy: &OwnedFd,
    mount: &PlanMount,
    user: Option<&UserNamespace>,
) -> Result<(), Error> {
    let recursive = match mount.idmap() {
        IdMap::None => return Ok(()),
        IdMap::Mount => false,
        IdMap::Tree => true,
    };
    if !mount.uid_mappings.is_empty() {
        let maps =
            userns::with_maps(&mount.uid_mappings, &mount.gid_mappings, &Procfs::private()?)?;
        return map_ids(copy, maps.as_fd(), recursive, &mount.source);
    }
    let user = user.ok_or_else(|| Error::refused(&mount.destination, Rule::NoMaps))?;
    map_ids(copy, user.as_fd(), recursive, &mount.source)
}

fn set_propagation(copy: &OwnedFd, mount: &PlanMount) -> Result<(), Error> {
    let (propagation, recursive) = match mount.propagation {
        0 => (flag::PRIVATE, true),
        asked => (asked & !flag::REC, asked & flag::REC != 0),
    };
    let attributes = MountAttributes { propagation, ..MountAttributes::default() };
    mount_setattr(copy.as_fd(), recursive, attributes).at(Step::Propagation, &mount.destination)
}

/// Sets the flags of a copy, alone and cut off from all others.
pub(crate) fn set_flags(copy: &OwnedFd, flags: u64, name: &str) -> Result<(), Error> {
    let (set, clear) = attributes(flags);
    let attributes =
        MountAttributes { set, clear, propagation: flag::PRIVATE, ..MountAttributes::default() };
    mount_setattr(copy.as_fd(), false, attributes).at(Step::MountAttributes, name)
}

/// Cuts a mount, and those below it, off from all others.
pub(crate) fn make_private(mount: &OwnedFd, name: &str) -> Result<(), Error> {
    let attributes = MountAttributes { propagation: flag::PRIVATE, ..MountAttributes::default() };
    mount_setattr(mount.as_fd(), true, attributes).at(Step::Propagation, name)
}

/// Lets a mount that is attached nowhere, and those below it when `recursive`, show owners as a user
/// namespace maps them.
pub(crate) fn map_ids(
    mount: &OwnedFd,
    user: BorrowedFd<'_>,
    recursive: bool,
    name: &str,
) -> Result<(), Error> {
    let attributes = MountAttributes {
        set: IDMAP,
        user_namespace: user.as_raw_fd().unsigned_abs().into(),
        ..MountAttributes::default()
    };
    match shim_sys::mount::mount_setattr(mount.as_fd(), recursive, attributes) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            Err(Error::refused(name, Rule::CantIdmap))
        }
        other => other.at(Step::IdMap, name),
    }
}

/// Makes one mount read-only; those below it stay as they are, unless `recursive`.
pub(crate) fn make_read_only(
    mount: BorrowedFd<'_>,
    recursive: bool,
    name: &str,
) -> Result<(), Error> {
    let attributes = MountAttributes { set: READ_ONLY, ..MountAttributes::default() };
    mount_setattr(mount, recursive, attributes).at(Step::MountAttributes, name)
}

impl Detached {
    /// Attaches it where the plan says, and gives back its root.
    pub(crate) fn attach_at(self, root: &Root, mount: &PlanMount) -> Result<OwnedFd, Error> {
        let found = rustix::fs::fstatfs(&self.mount).at(Step::Resolve, &mount.destination)?;
        let place = place(root, mount, self.leaf, found.f_type as u64 == PROC_MAGIC)?;
        refuse_another_kind(&place, mount, self.leaf)?;
        if mount.kind == "tmpfs" {
            self.take_after(&place, mount)?;
        }
        attach(&self.mount, place.as_fd(), &mount.destination)?;
        Ok(self.mount)
    }
}

impl Detached {
    /// A tmpfs has the mode of the directory that it covers, unless the plan says otherwise, and, when
    /// it says so, all that is in it, and the owner.
    fn take_after(&self, covered: &OwnedFd, mount: &PlanMount) -> Result<(), Error> {
        let [has_mode, has_uid, has_gid] = ["mode=", "uid=", "gid="]
            .map(|name| mount.data.split(',').any(|option| option.starts_with(name)));
        let path = &mount.destination;
        if mount.copy_up {
            let kept = copyup::Kept { mode: has_mode, uid: has_uid, gid: has_gid };
            return copyup::copy(covered.as_fd(), self.mount.as_fd(), kept).map_err(|failed| {
                let object = failed.at(Path::new(path)).display().to_string();
                Error::System { step: Step::CopyUp, object, errno: failed.errno }
            });
        }
        if !has_mode {
            let mode = rustix::fs::fstat(covered).at(Step::Resolve, path)?.st_mode & 0o7777;
            let mode = Mode::from_raw_mode(mode);
            rustix::fs::chmodat(&self.mount, ".", mode, AtFlags::empty()).at(Step::CopyUp, path)?;
        }
        Ok(())
    }
}

/// Where a mount goes, made when it is missing. `is_procfs`: what it is, not what it was called.
pub(crate) fn place(
    root: &Root,
    mount: &PlanMount,
    leaf: Leaf,
    is_procfs: bool,
) -> Result<OwnedFd, Error> {
    let path = &mount.destination;
    if matches!(mount.kind.as_str(), "proc" | "sysfs") {
        // A link would let the image choose which directory the kernel's files appear in, and what
        // later stands at /proc (CVE-2019-19921, CVE-2023-28642, CVE-2025-54867).
        match root.open_plain(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            Err(Errno::LOOP) => return Err(Error::refused(path, Rule::Symlink)),
            other => return other.at(Step::Resolve, path),
        }
    }
    let place = root.make(path, leaf)?;
    refuse_to_cover_procfs(&place, &mount.destination, is_procfs)?;
    Ok(place)
}

fn refuse_to_cover_procfs(place: &OwnedFd, path: &str, is_procfs: bool) -> Result<(), Error> {
    let path = path.trim_end_matches('/');
    // The whole of it may be stood in for by the host's, or by another procfs, only.
    if path == "/proc" {
        return match is_procfs {
            true => Ok(()),
            false => Err(Error::refused(path, Rule::Overmount)),
        };
    }
    let found = rustix::fs::fstatfs(place).at(Step::Resolve, path)?;
    if found.f_type as u64 == PROC_MAGIC && !MAY_BE_COVERED.contains(&path) {
        return Err(Error::refused(path, Rule::Overmount));
    }
    Ok(())
}

/// A directory goes on a directory only, and nothing else does.
fn refuse_another_kind(place: &OwnedFd, mount: &PlanMount, leaf: Leaf) -> Result<(), Error> {
    let found = rustix::fs::fstat(place).at(Step::Resolve, &mount.destination)?;
    let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
    let rule = match (leaf == Leaf::Directory, is_directory) {
        (true, false) => Rule::DirectoryOnFile,
        (false, true) => Rule::FileOnDirectory,
        (true, true) | (false, false) => return Ok(()),
    };
    Err(Error::refused(format!("mount at {:?}", mount.destination), rule))
}

/// Attaches a mount on top of whatever a descriptor stands for.
pub(crate) fn attach(mount: &OwnedFd, place: BorrowedFd<'_>, name: &str) -> Result<(), Error> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags).at(Step::Attach, name)
}

/// Attaches a mount at a name in a directory that nobody else can change yet.
pub(crate) fn attach_below(mount: &OwnedFd, parent: &OwnedFd, name: &str) -> Result<(), Error> {
    move_mount(mount, "", parent, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .at(Step::Attach, name)
}

/// A copy of the mount that a descriptor lies in, with that as its root.
pub(crate) fn copy_of(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut how = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    how.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(fd, "", how)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_attributes_one_by_one() {
        assert_eq!(attributes(0), (0, 0));
        assert_eq!(attributes(flag::RDONLY | flag::NOSUID | flag::NODEV | flag::NOEXEC), (15, 0));
        assert_eq!(attributes(flag::NOATIME), (0x10, ATIME_FIELD));
        assert_eq!(attributes(flag::STRICTATIME), (0x20, ATIME_FIELD));
        assert_eq!(attributes(flag::REC), (0, 0));
    }

    #[test]
    fn a_bind_without_a_source_names_it() {
        let mount = PlanMount {
            kind: "bind".to_owned(),
            source: "/no/such/source".to_owned(),
            destination: "/data".to_owned(),
            ..PlanMount::default()
        };
        let error = make(&mount, "").unwrap_err();
        assert_eq!(error.kind(), crate::Kind::MountSource);
        assert!(error.to_string().contains("/no/such/source"), "{error}");
    }
}
