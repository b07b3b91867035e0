//! What befalls a daemon's disks, and its machine.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{COUNT, Daemon};
use crate::disk::Disk;
use crate::leak;
use crate::netns::NetNs;

impl Daemon {
    /// Its first disk; see [`Settings::disk_at`](super::Settings::disk_at).
    ///
    /// # Panics
    /// When it was given none.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        self.disks.first().expect("a disk of its own")
    }

    /// As [`disk`](Self::disk), to be changed.
    ///
    /// # Panics
    /// When it was given none.
    pub fn disk_mut(&mut self) -> &mut Disk {
        self.disks.first_mut().expect("a disk of its own")
    }

    /// The machine loses its power, and is started again, without the daemon: every process is gone, and
    /// the network, the control groups and the state directory with them. Its disks have what they had
    /// got; another boot is another id.
    ///
    /// # Panics
    /// When something can't be done.
    pub fn lose_power(&mut self) {
        self.disks.iter().for_each(Disk::cut);
        self.boot_again();
    }

    /// Ends every process of its containers; its disks are unmounted.
    ///
    /// # Panics
    /// When a disk is in use.
    pub fn end_all(&mut self) {
        leak::kill(&self.place, self.directory.path());
        self.disks.iter().for_each(Disk::unmount);
    }

    /// Takes another disk in the place of its first, which is unmounted.
    ///
    /// # Panics
    /// When it was given none.
    pub fn replace_disk(&mut self, disk: Disk) {
        *self.disk_mut() = disk;
    }

    /// As [`lose_power`](Self::lose_power), of disks that are as they are, and are repaired.
    ///
    /// # Panics
    /// When something can't be done.
    pub fn boot_again(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        leak::kill(&self.place, self.directory.path());
        self.disks.iter().for_each(Disk::replace);
        leak::remove_cgroups(&self.place);
        let entries = std::fs::read_dir(&self.place.state).into_iter().flatten().flatten();
        for entry in entries {
            let path = entry.path();
            let removed = match path.is_dir() {
                true => std::fs::remove_dir_all(&path),
                false => std::fs::remove_file(&path),
            };
            assert!(removed.is_ok(), "{}: {removed:?}", path.display());
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        self.netns = Arc::new(NetNs::new(&format!("bosun-t-{:x}-{number}", super::own_number())));
        self.baseline.clear();
        let boot = self.directory.path().join("boot_id");
        let id = format!("{:08x}-0000-4000-8000-{number:012x}\n", super::own_number());
        std::fs::write(&boot, id).expect("a file");
        self.boot = Some(boot);
    }
}
