//! The log's file: only whole records, whatever happens to the disk or to the path.
//!
//! - **Rotation** falls between records: `log` becomes `log.1`, that one `log.2`, and so on.
//! - **A write that fails** half-way is cut back to the last whole record, and what is missing is
//!   counted. The first write that succeeds again is led by one record that says how much.
//! - **A path that was renamed away or removed** is opened again, without being told.
//! - **A torn tail** that a power cut left is cut off when the file is opened.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use shim_wire::exit::Timestamp;
use shim_wire::plan;

use super::{Batch, Record};

/// How long a renamed or removed file may go unnoticed while records are written.
const PATH_CHECK_NS: u64 = 100_000_000;

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    place: Place,
    /// Bytes in the file, as far as nobody else changed it.
    size: u64,
    /// Bytes after which it is rotated; 0 never.
    max_size: u64,
    /// How many files are kept, the current one included.
    max_files: u32,
    /// Something was written that may not survive a power cut yet.
    unsynced: bool,
    /// When the path was last compared to the file, in nanoseconds since the epoch.
    checked: u64,
    lost: u64,
    /// What of `lost` no record in the log speaks of yet.
    gap: u64,
    /// The group of the file may read it, whatever the umask is.
    for_group: bool,
}

/// Which file a path means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    device: u64,
    inode: u64,
}

impl Place {
    fn of(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl LogFile {
    /// # Errors
    /// When the file can't be opened, or is none: a symbolic link, a pipe.
    pub(super) fn open(options: &plan::Log) -> io::Result<Self> {
        let path = PathBuf::from(&options.path);
        // Who collects a node's logs is of that group.
        let for_group = options.format() == plan::LogFormat::Cri;
        let (file, place, size) = open_for_records(&path, for_group)?;
        Ok(Self {
            path,
            file,
            place,
            size,
            max_size: options.max_size,
            max_files: options.max_files.max(1),
            unsynced: false,
            checked: 0,
            lost: 0,
            gap: 0,
            for_group,
        })
    }

    /// Writes the records of `batch`, rotating between them. `marker` encodes the record that
    /// speaks of a number of missing bytes.
    pub(super) fn append(
        &mut self,
        batch: &Batch,
        time: Timestamp,
        marker: impl FnOnce(u64) -> Vec<u8>,
    ) {
        self.follow_path(time);
        if self.gap > 0 {
            let marker = marker(self.gap);
            return self.append_after_gap(&marker, batch);
        }
        let mut done = 0;
        while done < batch.records.len() {
            let start = start_of(&batch.records, done);
            let mut fitting = self.fitting(&batch.records[done..], start);
            if fitting == 0 {
                // A record longer than a whole file gets a file of its own; when rotation is not
                // possible, a file that grows is better than a record lost.
                fitting = match self.size > 0 && self.rotate().is_ok() {
                    true => self.fitting(&batch.records[done..], start).max(1),
                    false => 1,
                };
            }
            let records = &batch.records[done..done + fitting];
            let end = start_of(&batch.records, done + fitting);
            if let Err(written) = self.write(&batch.bytes[start..end]) {
                let whole = records.partition_point(|record| record.end - start <= written);
                let boundary = start_of(&batch.records, done + whole) - start;
                self.cut_back(written - boundary);
                self.count_lost(&batch.records[done + whole..]);
                return;
            }
            done += fitting;
        }
    }

    /// The first write after a failed one: everything or nothing, so that a disk that is full to
    /// the brim does not fill with markers.
    fn append_after_gap(&mut self, marker: &[u8], batch: &Batch) {
        let unit = [marker, &batch.bytes].concat();
        if self.max_size > 0 && self.size > 0 && self.size + unit.len() as u64 > self.max_size {
            // A failure is met again by the write, and counted there.
            let _ = self.rotate();
        }
        match self.write(&unit) {
            Ok(()) => self.gap = 0,
            Err(written) => {
                self.cut_back(written);
                self.count_lost(&batch.records);
            }
        }
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.file.sync_data()?;
            self.unsynced = false;
        }
        Ok(())
    }

    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let (file, place, size) = open_for_records(&self.path, self.for_group)?;
        if place != self.place {
            // What was acknowledged stays, also where nobody looks for it any more.
            let _ = self.sync();
        }
        (self.file, self.place, self.size) = (file, place, size);
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes_lost(&self) -> u64 {
        self.lost
    }

    /// How many of `records`, of which the first begins at `start`, fit before rotation.
    fn fitting(&self, records: &[Record], start: usize) -> usize {
        if self.max_size == 0 {
            return records.len();
        }
        let room = self.max_size.saturating_sub(self.size);
        records.partition_point(|record| (record.end - start) as u64 <= room)
    }

    /// Writes all of `bytes`; on failure, says how many of them the file has got.
    fn write(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut written = 0;
        self.unsynced = true;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => return Err(written),
                Ok(len) => {
                    written += len;
                    self.size += len as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(written),
            }
        }
        Ok(())
    }

    /// Takes the last `bytes` off the file.
    fn cut_back(&mut self, bytes: usize) {
        // Somebody may have truncated the file meanwhile: its own length is what counts.
        let size = self.file.metadata().map_or(self.size, |metadata| metadata.len());
        self.size = size.saturating_sub(bytes as u64);
        if bytes > 0 {
            // It makes a file shorter: no disk is too full for that, and there is no other way.
            let _ = self.file.set_len(self.size);
        }
    }

    fn count_lost(&mut self, records: &[Record]) {
        let bytes: u64 = records.iter().map(|record| record.output).sum();
        self.lost += bytes;
        self.gap += bytes;
    }

    /// Opens the path again when it no longer means this file.
    fn follow_path(&mut self, time: Timestamp) {
        let seconds = u64::try_from(time.seconds).unwrap_or(0);
        let now = seconds * 1_000_000_000 + u64::from(time.nanos);
        if now.abs_diff(self.checked) < PATH_CHECK_NS {
            return;
        }
        self.checked = now;
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) if Place::of(&metadata) == self.place => self.size = metadata.len(),
            // A path that can't be opened now is tried again; the old file takes the records.
            Ok(_) | Err(_) => drop(self.reopen()),
        }
    }

    /// Moves files one number up, as far as there is no gap, and begins a new one. The oldest goes when
    /// there are too many.
    fn rotate(&mut self) -> io::Result<()> {
        shim_failpoints::step!("shim.log.before_rotate", error);
        self.sync()?;
        if self.max_files == 1 {
            return self.begin_anew();
        }
        let oldest = self.max_files - 1;
        let is_free = |number: &u32| fs::symlink_metadata(numbered(&self.path, *number)).is_err();
        let free = (1..oldest).find(is_free).unwrap_or(oldest);
        for number in (1..free).rev() {
            match fs::rename(numbered(&self.path, number), numbered(&self.path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        let first = numbered(&self.path, 1);
        fs::rename(&self.path, &first)?;
        shim_failpoints::step!("shim.log.after_rotate_rename");
        self.reopen().inspect_err(|_| {
            // Without a new file the old one goes on, under its own name.
            let _ = fs::rename(&first, &self.path);
        })
    }

    /// A new file in the place of the one: whoever reads that has it to its end, and sees that it is
    /// another one now.
    fn begin_anew(&mut self) -> io::Result<()> {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        // What a shim left that was killed here.
        let _ = fs::remove_file(&new);
        let made = open_for_records(&new, self.for_group)
            .and_then(|made| fs::rename(&new, &self.path).map(|()| made));
        match made {
            Ok((file, place, size)) => (self.file, self.place, self.size) = (file, place, size),
            // Where no file can be made, the one is cut.
            Err(_) => {
                let _ = fs::remove_file(&new);
                self.file.set_len(0)?;
                self.size = 0;
            }
        }
        Ok(())
    }
}

fn start_of(records: &[Record], index: usize) -> usize {
    index.checked_sub(1).map_or(0, |before| records[before].end)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn open_for_records(path: &Path, for_group: bool) -> io::Result<(File, Place, u64)> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if for_group && metadata.len() == 0 {
        file.set_permissions(fs::Permissions::from_mode(0o640))?;
    }
    let size = cut_torn_tail(&mut file, metadata.len())?;
    Ok((file, Place::of(&metadata), size))
}

/// Cuts a file of `size` bytes back to the end of its last line; returns what is left of it.
fn cut_torn_tail(file: &mut File, size: u64) -> io::Result<u64> {
    let mut window = [0u8; 4096];
    let mut end = size;
    while end > 0 {
        let start = end.saturating_sub(window.len() as u64);
        let part = &mut window[..usize::try_from(end - start).unwrap_or(0)];
        file.read_exact_at(part, start)?;
        if let Some(newline) = part.iter().rposition(|byte| *byte == b'\n') {
            end = start + newline as u64 + 1;
            break;
        }
        end = start;
    }
    if end < size {
        file.set_len(end)?;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Timestamp = Timestamp { seconds: 1_763_930_000, nanos: 0 };

    fn options(directory: &Path, max_size: u64, max_files: u32) -> plan::Log {
        let path = directory.join("log").to_str().unwrap().to_owned();
        plan::Log { format: 1, path, max_size, max_files }
    }

    fn batch(records: &[&str]) -> Batch {
        let mut batch = Batch::default();
        for record in records {
            batch.bytes.extend_from_slice(record.as_bytes());
            let output = record.len() as u64;
            batch.records.push(Record { end: batch.bytes.len(), output });
        }
        batch
    }

    fn append(log: &mut LogFile, records: &[&str], time: Timestamp) {
        log.append(&batch(records), time, |lost| format!("<{lost} lost>\n").into_bytes());
    }

    fn text(path: &Path) -> Option<String> {
        fs::read_to_string(path).ok()
    }

    #[test]
    fn rotation_falls_between_records_and_keeps_so_many_files() {
        let directory = tempfile::tempdir().unwrap();
        let log_path = directory.path().join("log");
        let mut log = LogFile::open(&options(directory.path(), 6, 3)).unwrap();
        append(&mut log, &["aa\n", "bb\n", "cc\n", "dddddddd\n", "e\n"], TIME);
        assert_eq!(text(&log_path).as_deref(), Some("e\n"));
        assert_eq!(text(&numbered(&log_path, 1)).as_deref(), Some("dddddddd\n"));
        assert_eq!(text(&numbered(&log_path, 2)).as_deref(), Some("cc\n"));
        assert_eq!(text(&numbered(&log_path, 3)), None);
        append(&mut log, &["f\n"], TIME);
        assert_eq!(text(&log_path).as_deref(), Some("e\nf\n"));
    }

    /// What a rotation that was killed leaves.
    #[test]
    fn a_gap_is_filled_before_anything_goes() {
        let directory = tempfile::tempdir().unwrap();
        let log_path = directory.path().join("log");
        fs::write(numbered(&log_path, 3), "old\n").unwrap();
        fs::write(numbered(&log_path, 1), "newer\n").unwrap();
        let mut log = LogFile::open(&options(directory.path(), 6, 4)).unwrap();
        append(&mut log, &["aaaaa\n", "bb\n"], TIME);
        let expected = [(1, "aaaaa\n"), (2, "newer\n"), (3, "old\n")];
        for (number, kept) in expected {
            assert_eq!(text(&numbered(&log_path, number)).as_deref(), Some(kept));
        }
    }

    #[test]
    fn one_file_alone_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(&options(directory.path(), 6, 1)).unwrap();
        append(&mut log, &["aa\n", "bb\n", "cc\n"], TIME);
        let log_path = directory.path().join("log");
        assert_eq!(text(&log_path).as_deref(), Some("cc\n"));
        let mut reader = File::open(&log_path).unwrap();
        append(&mut log, &["dd\n", "ee\n"], TIME);
        assert_eq!(text(&log_path).as_deref(), Some("ee\n"));
        let mut seen = String::new();
        io::Read::read_to_string(&mut reader, &mut seen).unwrap();
        assert_eq!(seen, "cc\ndd\n", "who reads the one before has it to its end");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_path_that_was_renamed_away_or_removed_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let log_path = directory.path().join("log");
        let mut log = LogFile::open(&options(directory.path(), 0, 1)).unwrap();
        append(&mut log, &["a\n"], TIME);
        fs::rename(&log_path, directory.path().join("old")).unwrap();
        append(&mut log, &["b\n"], Timestamp { seconds: TIME.seconds + 1, ..TIME });
        assert_eq!(text(&log_path).as_deref(), Some("b\n"));
        fs::remove_file(&log_path).unwrap();
        append(&mut log, &["c\n"], Timestamp { seconds: TIME.seconds + 2, ..TIME });
        assert_eq!(text(&log_path).as_deref(), Some("c\n"));
        fs::rename(&log_path, directory.path().join("older")).unwrap();
        log.reopen().unwrap();
        append(&mut log, &["d\n"], Timestamp { seconds: TIME.seconds + 2, ..TIME });
        assert_eq!(text(&log_path).as_deref(), Some("d\n"));
    }

    #[test]
    fn a_planted_link_and_a_pipe_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        fs::write(&target, "canary").unwrap();
        std::os::unix::fs::symlink(&target, directory.path().join("log")).unwrap();
        assert!(LogFile::open(&options(directory.path(), 0, 1)).is_err());
        assert_eq!(text(&target).as_deref(), Some("canary"));
        let as_directory = plan::Log {
            path: directory.path().to_str().unwrap().to_owned(),
            ..options(directory.path(), 0, 1)
        };
        assert!(LogFile::open(&as_directory).is_err());
    }

    #[test]
    fn a_torn_tail_is_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let log_path = directory.path().join("log");
        let nuls = "\0".repeat(10_000);
        for (before, after) in [
            (String::new(), "n\n".to_owned()),
            ("a\n".to_owned(), "a\nn\n".to_owned()),
            ("a\nb".to_owned(), "a\nn\n".to_owned()),
            (format!("a\nb\n{nuls}"), "a\nb\nn\n".to_owned()),
            (nuls.clone(), "n\n".to_owned()),
        ] {
            fs::write(&log_path, &before).unwrap();
            let mut log = LogFile::open(&options(directory.path(), 0, 1)).unwrap();
            append(&mut log, &["n\n"], TIME);
            assert_eq!(text(&log_path), Some(after), "{} bytes before", before.len());
        }
    }
}
