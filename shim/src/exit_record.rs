//! The exit record on disk: room made at create, filled and renamed at the exit.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use shim_wire::exit::{ExitRecord, MAX_ENCODED_LEN};
use shim_wire::files::ContainerDir;

/// The record's file while it has no content, and its directory.
#[derive(Debug)]
pub(crate) struct Reserved {
    container: ContainerDir,
    temporary: File,
    directory: File,
    /// The temporary file is the record now.
    written: bool,
}

impl Reserved {
    /// Makes the temporary file and allocates its room, so that a disk that is full at the exit
    /// can't lose it. A record of an earlier run stays until this one takes its place.
    ///
    /// # Errors
    /// When there is no room now, or the directory can't be written.
    pub(crate) fn new(container: &ContainerDir) -> io::Result<Self> {
        let temporary = create(container)?;
        let directory = File::open(container.path())?;
        Ok(Self { container: container.clone(), temporary, directory, written: false })
    }

    /// Makes `record` durable: it is the container's exit record when this returns.
    ///
    /// # Errors
    /// When the file system can't say that it is durable. It may be tried again.
    pub(crate) fn write(&mut self, record: &ExitRecord) -> io::Result<()> {
        let text = record.encode();
        let temporary = self.container.exit_temporary();
        if !temporary.exists() {
            // Its directory may have been removed as well: the status is to be had all the same.
            match DirBuilder::new().mode(0o700).create(self.container.path()) {
                Ok(()) => self.directory = File::open(self.container.path())?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            self.temporary = create(&self.container)?;
        }
        self.temporary.write_all_at(text.as_bytes(), 0)?;
        self.temporary.set_len(text.len() as u64)?;
        self.temporary.sync_data()?;
        shim_failpoints::step!("shim.exit.before_rename", error);
        fs::rename(temporary, self.container.exit())?;
        self.written = true;
        shim_failpoints::step!("shim.exit.after_rename", error);
        self.directory.sync_all()
    }
}

impl Drop for Reserved {
    /// A create that failed leaves no file behind.
    fn drop(&mut self) {
        if !self.written {
            // It may have gone with its directory.
            let _ = fs::remove_file(self.container.exit_temporary());
        }
    }
}

fn create(container: &ContainerDir) -> io::Result<File> {
    let path = container.exit_temporary();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, MAX_ENCODED_LEN as u64) {
        // A file system without the call takes the record as it takes any other file.
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(file),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use shim_wire::exit::{ExitStatus, Timestamp};

    use super::*;

    fn record(attempt: u64) -> ExitRecord {
        ExitRecord {
            attempt,
            status: ExitStatus::Code(42),
            oom_killed: false,
            exited_at: Timestamp { seconds: 1, nanos: 2 },
            boot_id: "boot".to_owned(),
            boottime_ns: 3,
        }
    }

    #[test]
    fn a_record_replaces_the_one_of_the_run_before() {
        let directory = tempfile::tempdir().unwrap();
        let container = ContainerDir::new(directory.path().to_owned());
        for attempt in [1, 2] {
            let mut reserved = Reserved::new(&container).unwrap();
            assert_eq!(container.exit().exists(), attempt > 1);
            reserved.write(&record(attempt)).unwrap();
            let text = fs::read_to_string(container.exit()).unwrap();
            assert_eq!(ExitRecord::decode(&text), Ok(record(attempt)));
            assert!(!container.exit_temporary().exists());
        }
    }

    #[test]
    fn room_that_was_not_used_is_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let container = ContainerDir::new(directory.path().to_owned());
        drop(Reserved::new(&container).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_temporary_file_that_somebody_removed_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let container = ContainerDir::new(directory.path().to_owned());
        let mut reserved = Reserved::new(&container).unwrap();
        fs::remove_file(container.exit_temporary()).unwrap();
        reserved.write(&record(1)).unwrap();
        assert!(container.exit().exists());
    }

    #[test]
    fn a_directory_that_somebody_removed_is_made_again() {
        let parent = tempfile::tempdir().unwrap();
        let container = ContainerDir::new(parent.path().join("id"));
        fs::create_dir(container.path()).unwrap();
        let mut reserved = Reserved::new(&container).unwrap();
        fs::remove_dir_all(container.path()).unwrap();
        reserved.write(&record(1)).unwrap();
        assert!(container.exit().exists());
    }
}
