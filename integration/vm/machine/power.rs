//! Power cuts at any request to a disk, also between two flushes: dm-log-writes records what an ext4 gets
//! while clients work on a bosund, with a mark for everything that a client is told; then the disk is
//! made anew up to one entry or another, and a bosund of the next boot is started on it.
//!
//! dm-log-writes records a write once the flush after it is answered (Documentation/admin-guide/
//! device-mapper/log-writes.rst), so what stands between two flushes is what a disk may have lost of its
//! cache: of the entries after the last flush only every other one is taken, and those that were to be
//! on the disk before they were answered (FUA).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use integration::daemon::Settings;
use integration::disk::Disk;
use integration::matrix::power::{Journal, SIZE};
use integration::netns::run;

/// Cuts of one run of the clients.
const CUTS: usize = 5;

/// How long the clients work: everything here is emulated.
const WORK: Duration = Duration::from_secs(25);

const NAME: &str = "bosun-power";
const SECTOR: u64 = 512;

/// Flags of an entry (drivers/md/dm-log-writes.c).
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn what_was_told_is_on_the_disk_wherever_it_is_cut() {
    let recorder = Recorder::start();
    let mut daemon = Settings::new().on_device("root", &recorder.device()).start();
    let journal = Journal::new(|number| {
        run(Command::new("dmsetup").args(["message", NAME, "0", "mark", &number.to_string()]));
    });
    journal.clients(&mut daemon, 0, WORK, |daemon| daemon.kill());
    daemon.end_all();
    let log = recorder.stop();
    let entries = read(&log);
    let marks = entries.iter().filter(|entry| entry.mark.is_some()).count();
    assert!(marks > 10, "the clients were told {marks} things");
    // The first of the marks comes after the file system was made and the daemon began.
    let first = entries.iter().position(|entry| entry.mark.is_some()).unwrap();
    for cut in 1..=CUTS {
        let at = first + (entries.len() - first) * cut / (CUTS + 1);
        let image = daemon.scratch().join(format!("cut-{cut}"));
        let told = replay(&log, &entries[..at], &image);
        println!("cut at {at} of {} entries: {told} of {marks} marks", entries.len());
        daemon.replace_disk(Disk::of(&image, &daemon.place().root.clone()));
        daemon.boot_again();
        daemon.start_again();
        journal.expect_kept(&mut daemon, told);
        daemon.kill();
        daemon.end_all();
    }
    daemon.start_again();
}

/// A disk whose requests are recorded.
struct Recorder {
    directory: tempfile::TempDir,
    loops: [String; 2],
}

impl Recorder {
    fn start() -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let size = u64::from(SIZE.megabytes) << 20;
        let loops = [("disk", size), ("log", size * 6)].map(|(name, size)| {
            let path = directory.path().join(name);
            File::create(&path).unwrap().set_len(size).unwrap();
            run(Command::new("losetup").args(["-f", "--show"]).arg(&path)).trim().to_owned()
        });
        run(Command::new("modprobe").arg("dm-log-writes"));
        let table = format!("0 {} log-writes {} {}", size / SECTOR, loops[0], loops[1]);
        run(Command::new("dmsetup").args(["create", NAME, "--table", &table]));
        // Without udev nobody else makes its node.
        run(Command::new("dmsetup").arg("mknodes"));
        Self { directory, loops }
    }

    fn device(&self) -> PathBuf {
        Path::new("/dev/mapper").join(NAME)
    }

    /// Ends the recording; the file with it.
    fn stop(&self) -> PathBuf {
        run(Command::new("dmsetup").args(["remove", "--retry", NAME]));
        self.directory.path().join("log")
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = Command::new("dmsetup").args(["remove", "--force", NAME]).output();
        for device in &self.loops {
            let _ = Command::new("losetup").args(["-d", device]).status();
        }
    }
}

/// One request.
struct Entry {
    /// Of the disk.
    sector: u64,
    sectors: u64,
    flags: u64,
    /// Where its data are in the log, in bytes.
    data: u64,
    mark: Option<usize>,
}

/// The entries of a log: its first sector is the super block (struct `log_write_super`).
fn read(log: &Path) -> Vec<Entry> {
    let file = File::open(log).unwrap();
    let number = |at: u64| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    };
    let count = number(16);
    // In whose number everything is counted.
    assert_eq!(number(24) & 0xffff_ffff, SECTOR);
    let mut at = SECTOR;
    let mut entries = Vec::new();
    for _ in 0..count {
        let [sector, sectors, flags, length] = [0, 8, 16, 24].map(|field| number(at + field));
        let text = (flags & MARK != 0).then(|| {
            let mut text = vec![0; usize::try_from(length).unwrap()];
            file.read_exact_at(&mut text, at + 32).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        // The driver's own mark, at the end, is no number.
        let mark = text.and_then(|text| text.parse().ok());
        let data = at + SECTOR;
        at = data;
        if flags & DISCARD == 0 {
            at += sectors * SECTOR;
        }
        entries.push(Entry { sector, sectors, flags, data, mark });
    }
    entries
}

/// Makes the disk as it was after some entries, but for every other one that may have been in its cache;
/// answers the last mark.
fn replay(log: &Path, entries: &[Entry], image: &Path) -> usize {
    let (log, disk) = (File::open(log).unwrap(), File::create(image).unwrap());
    disk.set_len(u64::from(SIZE.megabytes) << 20).unwrap();
    let flushed = entries.iter().rposition(|entry| entry.flags & FLUSH != 0).unwrap_or(0);
    let mut told = 0;
    for (number, entry) in entries.iter().enumerate() {
        told = entry.mark.unwrap_or(told);
        let is_in_cache = number > flushed && entry.flags & FUA == 0;
        if entry.flags & MARK != 0 || (is_in_cache && number % 2 == 1) {
            continue;
        }
        let mut data = vec![0; usize::try_from(entry.sectors * SECTOR).unwrap()];
        if entry.flags & DISCARD == 0 {
            log.read_exact_at(&mut data, entry.data).unwrap();
        }
        disk.write_all_at(&data, entry.sector * SECTOR).unwrap();
    }
    told
}
