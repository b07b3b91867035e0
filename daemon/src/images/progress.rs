//! How far a pull or a push is, for any number of watchers.
//!
//! A board has one entry for each blob; a watcher is told of those that changed since it last
//! looked. So a slow watcher misses steps between, never the last one, and memory does not grow.

use std::sync::{Arc, Mutex, PoisonError};

use bosun_image::{Descriptor, Kind};
use tokio::sync::watch;

/// What is happening to a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Waiting,
    Downloading,
    /// Broke off, and why; goes on after a pause.
    Retrying(String),
    Downloaded,
    Unpacking,
    /// It was there already.
    Exists,
    /// At the registry, from another of its repositories.
    Mounted,
    Uploading,
    Done,
}

/// What a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Manifest,
    Config,
    Layer,
}

/// One blob's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub digest: String,
    pub part: Part,
    pub status: Status,
    /// Bytes done.
    pub current: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Something to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The reference stands for this.
    Resolved {
        name: String,
        target: Descriptor,
    },
    Progress(Progress),
}

/// The state of all blobs of one pull or push; clones share it.
#[derive(Clone, Debug)]
pub struct Board(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    entries: Mutex<Entries>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Entries {
    version: u64,
    resolved: Option<(u64, Event)>,
    blobs: Vec<(u64, Progress)>,
}

/// One who looks at a board.
#[derive(Debug)]
pub struct Watcher {
    board: Board,
    seen: u64,
    version: watch::Receiver<u64>,
}

impl Default for Board {
    fn default() -> Self {
        let (version, _) = watch::channel(0);
        Self(Arc::new(Shared { entries: Mutex::default(), version }))
    }
}

impl Board {
    /// Notes what a reference stands for.
    pub fn resolved(&self, name: &str, target: &Descriptor) {
        let event = Event::Resolved { name: name.to_owned(), target: target.clone() };
        self.change(|entries| entries.resolved = Some((entries.version, event)));
    }

    /// Notes what is happening to a blob.
    pub fn set(&self, blob: &Descriptor, status: Status, current: u64) {
        let part = match blob.kind() {
            Kind::Index | Kind::Manifest => Part::Manifest,
            Kind::Config => Part::Config,
            Kind::Layer(_) | Kind::Other => Part::Layer,
        };
        let digest = blob.digest.to_string();
        let progress = Progress { digest, part, status, current, total: blob.size };
        self.change(|entries| {
            let version = entries.version;
            let known = entries.blobs.iter_mut().find(|(_, known)| known.digest == progress.digest);
            match known {
                Some(known) => *known = (version, progress),
                None => entries.blobs.push((version, progress)),
            }
        });
    }

    /// Notes that a blob is where it should be; one that was there all the time stays that.
    pub fn done(&self, blob: &Descriptor) {
        let digest = blob.digest.as_str();
        let existed = {
            let entries = self.0.entries.lock().unwrap_or_else(PoisonError::into_inner);
            let known = entries.blobs.iter().find(|(_, known)| known.digest == digest);
            known.is_some_and(|(_, known)| known.status == Status::Exists)
        };
        if !existed {
            self.set(blob, Status::Done, blob.size);
        }
    }

    fn change(&self, change: impl FnOnce(&mut Entries)) {
        let mut entries = self.0.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.version += 1;
        change(&mut entries);
        self.0.version.send_replace(entries.version);
    }

    /// Whether anybody but the table of boards has it.
    #[must_use]
    pub(super) fn is_watched(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Watches from the beginning.
    #[must_use]
    pub fn watch(&self) -> Watcher {
        Watcher { board: self.clone(), seen: 0, version: self.0.version.subscribe() }
    }
}

impl Watcher {
    /// Waits for a change. Cancel safe.
    pub async fn changed(&mut self) {
        let seen = self.seen;
        // The board outlives its watchers, so this does not fail.
        let _ = self.version.wait_for(|version| *version > seen).await;
    }

    /// What changed since the last look.
    pub fn look(&mut self) -> Vec<Event> {
        let entries = self.board.0.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let new = |version: &u64| *version > self.seen;
        let resolved = entries.resolved.iter().filter(|(version, _)| new(version));
        let blobs = entries.blobs.iter().filter(|(version, _)| new(version));
        let events = resolved
            .map(|(_, event)| event.clone())
            .chain(blobs.map(|(_, progress)| Event::Progress(progress.clone())))
            .collect();
        self.seen = entries.version;
        events
    }
}

#[cfg(test)]
mod tests {
    use bosun_image::{Digest, media_type};

    use super::*;

    #[tokio::test]
    async fn a_watcher_that_comes_late_sees_the_last_state_of_everything() {
        let board = Board::default();
        let blob =
            |name: &str| Descriptor::new(media_type::OCI_LAYER, Digest::of(name.as_bytes()), 9);
        let mut early = board.watch();
        board.set(&blob("a"), Status::Downloading, 1);
        early.changed().await;
        assert_eq!(early.look().len(), 1);
        board.set(&blob("a"), Status::Downloading, 2);
        board.set(&blob("a"), Status::Done, 9);
        board.set(&blob("b"), Status::Exists, 9);
        let statuses = |events: Vec<Event>| -> Vec<Status> {
            let status = |event| match event {
                Event::Progress(progress) => progress.status,
                Event::Resolved { .. } => Status::Waiting,
            };
            events.into_iter().map(status).collect()
        };
        assert_eq!(statuses(early.look()), [Status::Done, Status::Exists]);
        assert_eq!(statuses(board.watch().look()), [Status::Done, Status::Exists]);
        assert!(early.look().is_empty());
    }
}
