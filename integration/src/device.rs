//! A device of the machine that root can open: what keeps a container from it is not its absence.

use std::fs::File;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

/// Of character devices that are no driver's own (`misc`, devices.txt of Linux).
pub const MISC: u32 = 10;

/// Opening and closing one of these does nothing.
const HARMLESS: [&str; 5] = ["fuse", "loop-control", "tun", "btrfs-control", "vga_arbiter"];

/// The minor number of such a device.
///
/// # Panics
/// When the machine has none, or nobody may make a node.
#[must_use]
pub fn harmless() -> u32 {
    let devices = std::fs::read_to_string("/proc/misc").expect("the list of devices");
    let place = tempfile::tempdir().expect("a directory");
    let node = place.path().join("node");
    let opens = |minor: u32| {
        let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o600));
        mknodat(CWD, &node, kind, mode, makedev(MISC, minor)).expect("root can make nodes");
        let opened = File::open(&node).is_ok();
        std::fs::remove_file(&node).expect("a node of ours");
        opened
    };
    devices
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .filter(|(_, name)| HARMLESS.contains(name))
        .filter_map(|(minor, _)| minor.parse().ok())
        .find(|minor| opens(*minor))
        .expect("a device that can be opened")
}
