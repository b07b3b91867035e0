//! A small disk of a test's own: ext4 in a file, that can be full, out of inodes, broken or cut off.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::netns::run;

/// How much a disk holds.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub megabytes: u32,
    /// Files; with `None` as many as ext4 makes.
    pub inodes: Option<u32>,
}

/// A mounted disk. It goes with this value, whatever uses it.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    at: PathBuf,
    options: &'static str,
}

impl Disk {
    /// Makes one in the file `image`, or on that device, and mounts it.
    ///
    /// # Panics
    /// When it can't be made: the tests need root, loop devices and e2fsprogs.
    #[must_use]
    pub fn new(image: &Path, size: Size, at: &Path) -> Self {
        if !image.exists() {
            let file = File::create(image).expect("a file");
            file.set_len(u64::from(size.megabytes) << 20).expect("a file");
        }
        let mut command = Command::new("mke2fs");
        // Nothing of it is kept for root, and nothing is written later in the background.
        command.args(["-qF", "-t", "ext4", "-m", "0"]);
        command.args(["-E", "lazy_itable_init=0,lazy_journal_init=0"]);
        if let Some(inodes) = size.inodes {
            command.args(["-N", &inodes.to_string()]);
        }
        run(command.arg(image));
        let disk = Self::of(image, at);
        disk.mount();
        disk
    }

    /// One that is in a file or on a device already, to be mounted by [`replace`](Self::replace).
    #[must_use]
    pub fn of(image: &Path, at: &Path) -> Self {
        let options = "errors=remount-ro,data=ordered";
        Self { image: image.to_owned(), at: at.to_owned(), options }
    }

    fn mount(&self) {
        std::fs::create_dir_all(&self.at).expect("a directory");
        // A file gets a loop device.
        run(Command::new("mount").args(["-o", self.options]).args([&self.image, &self.at]));
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// From now on data comes to it in any order (`data=writeback`): what is not synced may be zeros
    /// after a power cut. Nothing may use it.
    ///
    /// # Panics
    /// When something does.
    pub fn in_any_order(&mut self) {
        self.unmount();
        self.options = "errors=remount-ro,data=writeback";
        self.mount();
    }

    /// Takes all of it, to the last block.
    ///
    /// # Panics
    /// When it can't be written.
    #[must_use]
    pub fn fill(&self) -> Ballast {
        Ballast::of_blocks(&self.at)
    }

    /// Takes all of its inodes.
    ///
    /// # Panics
    /// When it has more than a test wants to make files.
    #[must_use]
    pub fn take_inodes(&self) -> Ballast {
        let directory = self.at.join("ballast");
        std::fs::create_dir(&directory).expect("a directory");
        let made = (0..100_000).take_while(|n| File::create(directory.join(n.to_string())).is_ok());
        assert!(made.count() < 100_000, "it has too many inodes");
        Ballast(directory)
    }

    /// The kernel finds an error in it, and makes it read-only, as it does on its own. Only
    /// [`replace`](Self::replace) helps.
    ///
    /// # Panics
    /// When the kernel can't be asked to.
    pub fn turn_read_only(&self) {
        let device = run(Command::new("findmnt").args(["-no", "SOURCE"]).arg(&self.at));
        let name = device.trim().trim_start_matches("/dev/");
        let path = format!("/sys/fs/ext4/{name}/trigger_fs_error");
        std::fs::write(&path, "a test").unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// The power goes, as the disk sees it: what it has not got until now never comes, and every access
    /// is an error (EIO). Only [`replace`](Self::replace) helps.
    ///
    /// # Panics
    /// When the kernel can't be asked to.
    pub fn cut(&self) {
        // EXT4_IOC_SHUTDOWN without a flush of the journal (fs/ext4/ext4.h).
        let script = "import fcntl, os, struct, sys\n\
                      fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        run(Command::new("python3").args(["-c", script]).arg(&self.at));
    }

    /// Mounts it anew, repaired, as the next boot does. Whoever used it has ended.
    ///
    /// # Panics
    /// When something uses it, or it can't be repaired.
    pub fn replace(&self) {
        self.unmount();
        let repaired = Command::new("e2fsck").args(["-fp"]).arg(&self.image).output();
        let repaired = repaired.expect("e2fsck of e2fsprogs");
        // 1: errors were corrected (e2fsck(8)).
        assert!(repaired.status.code().is_some_and(|code| code < 2), "{repaired:?}");
        self.mount();
    }

    /// # Panics
    /// When something uses it.
    pub fn unmount(&self) {
        if !std::fs::read_to_string("/proc/self/mountinfo")
            .is_ok_and(|table| table.contains(&format!(" {} ", self.at.display())))
        {
            return;
        }
        let gone = crate::wait::within(crate::wait::LIMIT, || {
            let umount = Command::new("umount").arg(&self.at).output().ok()?;
            umount.status.success().then_some(())
        });
        assert!(gone.is_some(), "{} is in use", self.at.display());
        // It may still be mounted in somebody's copy of the mount table, a container's that is being
        // made: what is mounted then is the same again, and as it was.
        crate::wait::until_true("the end of the last mount of a disk", || {
            let loops = Command::new("losetup").arg("-j").arg(&self.image).output();
            loops.is_ok_and(|loops| loops.stdout.is_empty())
        });
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).output();
        if self.image.is_file() {
            let _ = std::fs::remove_file(&self.image);
        }
    }
}

/// What takes the room of a disk, until it is dropped.
#[derive(Debug)]
pub struct Ballast(PathBuf);

impl Ballast {
    /// Takes all blocks of the file system of a directory, to the last.
    ///
    /// # Panics
    /// When there can be no file.
    #[must_use]
    pub fn of_blocks(directory: &Path) -> Self {
        let path = directory.join("ballast");
        let mut file = File::create(&path).expect("a file");
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
        // Blocks that are only promised may be more than there are.
        let _ = file.sync_all();
        Self(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let removed = match self.0.is_dir() {
            true => std::fs::remove_dir_all(&self.0),
            false => std::fs::remove_file(&self.0),
        };
        if let Err(error) = removed {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}
