//! One operation at a time for each container, also beyond a daemon's death.
//!
//! Within the process there is a queue for each container. Beyond it: a plugin reads its configuration
//! from a file that the runtime has locked (flock(2)); the lock is the open file's, which the plugin
//! shares, so it lasts until both are gone. When a daemon dies in the midst of an ADD, and the next one
//! wants to undo it, that waits until the plugin has come to its end, and does not run beside it.
//!
//! A thing that a plugin left running may hold such a file for ever; so the wait has an end.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep};

use crate::error::{Error, Result};

const POLL: Duration = Duration::from_millis(50);

type Queue = Arc<tokio::sync::Mutex<()>>;

#[derive(Debug)]
pub(crate) struct Locks {
    directory: PathBuf,
    queues: Mutex<HashMap<String, Queue>>,
}

/// A container's lock, and what its plugins read.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
    _turn: OwnedMutexGuard<()>,
}

impl Locks {
    pub(crate) fn new(directory: PathBuf) -> Locks {
        Locks { directory, queues: Mutex::default() }
    }

    /// Waits for those before: in this process without an end, for what another one left for `patience`.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub(crate) async fn lock(&self, container: &str, patience: Duration) -> Result<Lock> {
        let queue = self.queue(container);
        let turn = queue.lock_owned().await;
        fs::create_dir_all(&self.directory).map_err(Error::file("make", &self.directory))?;
        let path = self.directory.join(container);
        let until = Instant::now() + patience;
        let file = loop {
            if let Some(file) = try_lock(&path)? {
                break file;
            }
            if Instant::now() >= until {
                tracing::warn!(
                    container,
                    "a CNI plugin of an earlier daemon still holds {}: not waited for any more",
                    path.display()
                );
                fs::remove_file(&path).map_err(Error::file("remove", &path))?;
                continue;
            }
            sleep(POLL).await;
        };
        Ok(Lock { file, path, _turn: turn })
    }

    fn queue(&self, container: &str) -> Queue {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        // Who waits or works holds one more.
        queues.retain(|_, queue| Arc::strong_count(queue) > 1);
        Arc::clone(queues.entry(container.into()).or_default())
    }
}

/// None while somebody else has it.
fn try_lock(path: &Path) -> Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(Error::file("open", path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(Error::file("lock", path)(error.into())),
    }
    // Whoever had it before may have removed it in between.
    let inode = |metadata: io::Result<fs::Metadata>| metadata.ok().map(|metadata| metadata.ino());
    let own = inode(file.metadata());
    Ok((own.is_some() && own == inode(fs::metadata(path))).then_some(file))
}

impl Lock {
    /// The file with a plugin's configuration in it, to be its standard input.
    pub(crate) fn input(&self, request: &[u8]) -> io::Result<&File> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(request)?;
        file.rewind()?;
        Ok(file)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_after_the_other_and_nothing_stays() {
        let directory = tempfile::tempdir().unwrap();
        let locks = Arc::new(Locks::new(directory.path().join("locks")));
        let first = locks.lock("a", Duration::ZERO).await.unwrap();
        let other = locks.lock("b", Duration::ZERO).await.unwrap();
        let waiting = tokio::spawn({
            let locks = Arc::clone(&locks);
            async move { locks.lock("a", Duration::ZERO).await }
        });
        sleep(Duration::from_millis(200)).await;
        assert!(!waiting.is_finished());
        drop(first);
        drop(waiting.await.unwrap().unwrap());
        drop(other);
        assert_eq!(fs::read_dir(directory.path().join("locks")).unwrap().count(), 0);
        locks.queue("c");
        assert_eq!(locks.queues.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn what_an_earlier_daemon_left_is_waited_for_but_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let locks = Locks::new(directory.path().into());
        // An open file of its own, as a plugin has it that outlives its daemon.
        let plugin = try_lock(&directory.path().join("a")).unwrap().unwrap();
        let patience = Duration::from_secs(3600);
        let waited = tokio::select! {
            _ = locks.lock("a", patience) => true,
            () = sleep(Duration::from_millis(200)) => false,
        };
        assert!(!waited);
        drop(plugin);
        drop(locks.lock("a", patience).await.unwrap());

        let stays = try_lock(&directory.path().join("a")).unwrap().unwrap();
        let patience = Duration::from_millis(200);
        let started = Instant::now();
        drop(locks.lock("a", patience).await.unwrap());
        assert!(started.elapsed() >= patience);
        drop(stays);
    }

    #[tokio::test]
    async fn a_plugin_reads_its_request_and_no_longer_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let locks = Locks::new(directory.path().into());
        let lock = locks.lock("a", Duration::ZERO).await.unwrap();
        for request in ["a longer request", "short"] {
            let file = lock.input(request.as_bytes()).unwrap();
            assert_eq!(io::read_to_string(file).unwrap(), request);
        }
    }
}
