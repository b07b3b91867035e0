//! Device nodes, the links of /dev, and the pty.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, StatxFlags, Uid, statx};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use shim_rootfs::{Leaf, Root};
use shim_wire::plan::{Device, PlanMount};

use crate::error::At;
use crate::procfs::Procfs;
use crate::{Error, Rule, Step, mounts};

/// DEVPTS_SUPER_MAGIC of statfs(2).
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Of a node whose mode nobody said.
const DEFAULT_MODE: u32 = 0o666;

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Whether /dev is the container's own, to be filled: not a directory of the host's, nor a devtmpfs, of
/// which the machine has one.
pub(crate) fn is_own(mounts: &[PlanMount]) -> bool {
    !mounts
        .iter()
        .filter(|mount| matches!(&*mount.kind, "bind" | "devtmpfs"))
        .any(|mount| mount.destination.trim_end_matches('/') == "/dev")
}

/// Makes the links that programs expect in /dev. What the rootfs has there is kept.
pub(crate) fn make_links(root: &Root) -> Result<(), Error> {
    let dev = root.make("/dev", Leaf::Directory)?;
    for (name, target) in LINKS {
        match rustix::fs::symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).at(Step::MakeLink, format_args!("/dev/{name}")),
        }
    }
    Ok(())
}

/// What a node is.
#[derive(Clone, Copy)]
struct Node {
    kind: FileType,
    number: u64,
}

impl Node {
    fn of(device: &Device) -> Result<Self, Error> {
        let kind = match device.kind.as_str() {
            "c" | "u" => FileType::CharacterDevice,
            "b" => FileType::BlockDevice,
            "p" => return Ok(Self { kind: FileType::Fifo, number: 0 }),
            _ => return Err(Error::refused(name_of(device), Rule::DeviceKind)),
        };
        Ok(Self { kind, number: rustix::fs::makedev(device.major, device.minor) })
    }

    fn is(self, found: &Stat) -> bool {
        FileType::from_raw_mode(found.st_mode) == self.kind
            && (self.kind == FileType::Fifo || found.st_rdev == self.number)
    }
}

/// How errors call it.
fn name_of(device: &Device) -> String {
    match device.index {
        Some(index) => format!("linux.devices[{index}] at {}", device.path),
        None => device.path.clone(),
    }
}

/// Makes a device node, or binds the host's where nodes can't be made.
///
/// One that is there already must be that device, and gets the mode and the owner that are asked for, as
/// one that is made: if it is the container's. On a mount of somebody else's files it stays as it is,
/// and another mode or owner that the specification asks for is refused.
pub(crate) fn make_node(root: &Root, device: &Device) -> Result<(), Error> {
    let node = Node::of(device)?;
    let (parent, name) = root.make_parent(&device.path)?;
    let bits = Mode::from_raw_mode(device.mode.unwrap_or(DEFAULT_MODE) & 0o7777);
    let is_new = match rustix::fs::mknodat(&parent, name, node.kind, bits, node.number) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(Errno::PERM) => return bind_node(root, device),
        Err(errno) => return Err(errno).at(Step::MakeDevice, name_of(device)),
    };
    let at = |errno| Error::System { step: Step::MakeDevice, object: name_of(device), errno };
    // From here on it is this file, whatever else comes to its name.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(&parent, name, flags, Mode::empty()).map_err(at)?;
    let found = rustix::fs::fstat(&made).map_err(at)?;
    if !node.is(&found) {
        return Err(Error::refused(name_of(device), Rule::OtherDevice));
    }
    let wanted = |asked: Option<u32>, otherwise| match is_new {
        true => Some(asked.unwrap_or(otherwise)),
        false => asked,
    };
    let [mode, uid, gid] = [
        (wanted(device.mode.map(|mode| mode & 0o7777), DEFAULT_MODE), found.st_mode & 0o7777),
        (wanted(device.uid, 0), found.st_uid),
        (wanted(device.gid, 0), found.st_gid),
    ]
    .map(|(wanted, found)| wanted.filter(|wanted| *wanted != found));
    if (mode, uid, gid) == (None, None, None) {
        return Ok(());
    }
    if !is_new && !is_of_the_container(root, made.as_fd()).map_err(at)? {
        return match device.index {
            Some(_) => {
                let has = (found.st_mode & 0o7777, found.st_uid, found.st_gid);
                let text =
                    |(mode, uid, gid): (u32, u32, u32)| format!("mode {mode:o} owner {uid}:{gid}");
                let asked = (mode.unwrap_or(has.0), uid.unwrap_or(has.1), gid.unwrap_or(has.2));
                let object =
                    format!("{}, {} instead of {}", name_of(device), text(has), text(asked));
                Err(Error::refused(object, Rule::OthersDevice))
            }
            None => Ok(()),
        };
    }
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    let is_given_away = uid.is_some() || gid.is_some();
    // A change of the owner takes the bits of setuid and setgid away (chown(2)).
    let mode = mode.or_else(|| device.mode.filter(|_| is_given_away));
    let change = || {
        if is_given_away {
            rustix::fs::chownat(&made, "", uid, gid, AtFlags::EMPTY_PATH).map_err(at)?;
        }
        mode.map_or(Ok(()), |mode| Procfs::private()?.set_mode(made.as_fd(), mode).map_err(at))
    };
    match change() {
        // What nobody asked for by name may stay as it is where nothing can be changed.
        Err(error) if device.index.is_none() && error.errno() == Some(Errno::ROFS) => Ok(()),
        changed => changed,
    }
}

/// Whether a file lies on the rootfs itself. What is mounted in it may be the host's, also where a path
/// leads to a file system that was made for the container: something else may lie on top of that.
fn is_of_the_container(root: &Root, file: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mount_of = |file: BorrowedFd<'_>| {
        let found = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
        // Before Linux 5.8 nobody says.
        let is_known = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        Ok::<_, Errno>(is_known.then_some(found.stx_mnt_id))
    };
    let wanted = mount_of(file)?;
    Ok(wanted.is_some() && mount_of(root.as_fd())? == wanted)
}

/// Binds the host's node of the same path; a FIFO is made, anybody can.
pub(crate) fn bind_node(root: &Root, device: &Device) -> Result<(), Error> {
    let node = Node::of(device)?;
    if node.kind == FileType::Fifo {
        return make_node(root, device);
    }
    let how = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let at = |errno| Error::System { step: Step::MakeDevice, object: name_of(device), errno };
    let copy = open_tree(CWD, device.path.as_str(), how).map_err(at)?;
    let found = rustix::fs::fstat(&copy).map_err(at)?;
    if !node.is(&found) {
        return Err(Error::refused(name_of(device), Rule::OtherDevice));
    }
    let place = root.make(&device.path, Leaf::File)?;
    mounts::attach(&copy, place.as_fd(), &device.path)
}

/// A pty of the container's own devpts: the master, and the other side.
///
/// No name is looked up after the first: the other side comes out of the master
/// (TIOCGPTPEER of ioctl_tty(2)), so nothing that stands at `/dev/pts/0` can take its place
/// (CVE-2025-52565).
pub(crate) fn open_terminal(
    root: &Root,
    width: u32,
    height: u32,
) -> Result<(OwnedFd, OwnedFd), Error> {
    const PATH: &str = "/dev/pts/ptmx";
    let open = || {
        let master = root.open(PATH, OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK)?;
        if rustix::fs::fstatfs(&master)?.f_type as u64 != DEVPTS_MAGIC {
            return Ok(None);
        }
        // Non-blocking was for the case that it is something else.
        rustix::fs::fcntl_setfl(&master, OFlags::empty())?;
        unlockpt(&master)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        if width != 0 && height != 0 {
            let size = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
            let size =
                Winsize { ws_row: size(height), ws_col: size(width), ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(&slave, size)?;
        }
        Ok(Some((master, slave)))
    };
    open().at(Step::OpenTerminal, PATH)?.ok_or_else(|| Error::refused(PATH, Rule::NotAPty))
}

/// Binds the other side of the pty at /dev/console.
pub(crate) fn bind_console(root: &Root, slave: &OwnedFd) -> Result<(), Error> {
    const PATH: &str = "/dev/console";
    let copy = mounts::copy_of(slave.as_fd(), false).at(Step::OpenTerminal, PATH)?;
    let place = root.make(PATH, Leaf::File)?;
    mounts::attach(&copy, place.as_fd(), PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dev_of_the_hosts_is_not_filled() {
        let own = |kind: &str, destination: &str| {
            let (kind, destination) = (kind.to_owned(), destination.to_owned());
            is_own(&[PlanMount { kind, destination, ..PlanMount::default() }])
        };
        assert!(own("tmpfs", "/dev") && own("bind", "/dev/shm") && own("devtmpfs", "/host"));
        assert!(!own("bind", "/dev/") && !own("devtmpfs", "/dev"), "the machine has one devtmpfs");
    }
}
