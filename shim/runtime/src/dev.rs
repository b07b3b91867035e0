//! Device nodes, the links of /dev, and the pty.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use shim_rootfs::{Leaf, Root};
use shim_wire::plan::{Device, PlanMount};

use crate::error::At;
use crate::{Error, Rule, Step, mounts};

/// DEVPTS_SUPER_MAGIC of statfs(2).
const DEVPTS_MAGIC: u64 = 0x1cd1;

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Whether /dev is the container's own, to be filled: not a directory of the host's.
pub(crate) fn is_own(mounts: &[PlanMount]) -> bool {
    !mounts
        .iter()
        .any(|mount| mount.kind == "bind" && mount.destination.trim_end_matches('/') == "/dev")
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
            _ => return Err(Error::refused(&device.path, Rule::DeviceKind)),
        };
        Ok(Self { kind, number: rustix::fs::makedev(device.major, device.minor) })
    }

    fn is(self, found: &Stat) -> bool {
        FileType::from_raw_mode(found.st_mode) == self.kind
            && (self.kind == FileType::Fifo || found.st_rdev == self.number)
    }
}

/// Makes a device node, or binds the host's where nodes can't be made.
pub(crate) fn make_node(root: &Root, device: &Device) -> Result<(), Error> {
    let node = Node::of(device)?;
    let (parent, name) = root.make_parent(&device.path)?;
    let mode = Mode::from_raw_mode(device.mode & 0o7777);
    match rustix::fs::mknodat(&parent, name, node.kind, mode, node.number) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let found = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
                .at(Step::MakeDevice, &device.path)?;
            return match node.is(&found) {
                true => Ok(()),
                false => Err(Error::refused(&device.path, Rule::OtherDevice)),
            };
        }
        Err(Errno::PERM) => return bind_node(root, device),
        Err(errno) => return Err(errno).at(Step::MakeDevice, &device.path),
    }
    if device.uid == 0 && device.gid == 0 {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .at(Step::MakeDevice, &device.path)
}

/// Binds the host's node of the same path; a FIFO is made, anybody can.
pub(crate) fn bind_node(root: &Root, device: &Device) -> Result<(), Error> {
    let node = Node::of(device)?;
    if node.kind == FileType::Fifo {
        return make_node(root, device);
    }
    let how = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let copy = open_tree(CWD, device.path.as_str(), how).at(Step::MakeDevice, &device.path)?;
    let found = rustix::fs::fstat(&copy).at(Step::MakeDevice, &device.path)?;
    if !node.is(&found) {
        return Err(Error::refused(&device.path, Rule::OtherDevice));
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
