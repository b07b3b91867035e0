//! Images: names for manifests, and the ways in and out.
//!
//! ```text
//!   registry ──pull──▶ ┌─────────────────────────────┐ ──push──▶ registry
//!   archive ─import──▶ │ content (blobs), snapshots  │ ─export─▶ archive
//!   container ─commit▶ │ one name ─▶ one descriptor  │
//!                      └─────────────────────────────┘
//! ```
//!
//! | module | |
//! |---|---|
//! | `names` | looking up, listing, tagging, removing, pruning |
//! | `tree` | what a name reaches |
//! | `pull`, `push` | the registry's side |
//! | `layers` | from blobs to snapshots, side by side |
//! | `archive`, `import`, `export` | archives |
//! | `commit` | an image of a container's files |
//! | `changes` | dockerfile instructions, for import and commit |
//! | `progress` | how far a pull or a push is |
//! | `restore` | what a mended store is missing, from the blobs |
//!
//! A name is written last, when all that it reaches is durable or can be made again; until then a
//! lease holds what is there. What an image says is not trusted: see `bosun_image` for its
//! documents, `bosun_layer` for its files.

mod archive;
mod changes;
mod commit;
mod export;
mod import;
mod layers;
mod names;
mod progress;
mod pull;
mod push;
mod restore;
mod tree;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bosun_image::Digest;
use bosun_layer::Limits;
use bosun_registry::{Credentials, Registry};
use tokio::sync::Semaphore;

pub use commit::Commit;
pub use import::{Import, ImportKind, Imported};
pub use names::{Base, Found, Named, Pruned, Removed};
pub use progress::{Board, Event, Part, Progress, Status, Watcher};
pub use pull::{Pull, Pulled};
pub use push::{Push, Pushed};
pub use tree::{Choice, Resolved};

use crate::content::Content;
use crate::error::Result;
use crate::gc::Collector;
use crate::leases::Leases;
use crate::snapshots::Snapshots;
use crate::store::Store;
use crate::turns::Turns;

/// Blobs that one pull or push moves at a time.
const TRANSFERS: usize = 6;

/// How many images' documents are kept in memory.
const REMEMBERED: usize = 512;

/// The image service; clones share it.
#[derive(Clone, Debug)]
pub struct Images {
    store: Store,
    content: Content,
    snapshots: Snapshots,
    leases: Leases,
    collector: Collector,
    registry: Registry,
    /// Who brings a blob.
    blobs: Turns<Digest>,
    /// Who unpacks a chain id of a namespace.
    chains: Turns<(String, String)>,
    /// Who moves the names of a namespace.
    names: Turns<String>,
    /// Layers that may be unpacked at a time: a few more than processors, since some wait for bytes.
    unpackers: Arc<Semaphore>,
    resolved: Remembered,
    boards: Boards,
    going_on: work::Leased,
    limits: Limits,
}

/// What the image service works with.
#[derive(Debug)]
pub struct Parts {
    pub store: Store,
    pub content: Content,
    pub snapshots: Snapshots,
    pub leases: Leases,
    pub collector: Collector,
    pub registry: Registry,
}

impl Images {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            store: parts.store,
            content: parts.content,
            snapshots: parts.snapshots,
            leases: parts.leases,
            collector: parts.collector,
            registry: parts.registry,
            blobs: Turns::default(),
            chains: Turns::default(),
            names: Turns::default(),
            unpackers: Arc::new(Semaphore::new(processors + 2)),
            resolved: Remembered::default(),
            boards: Boards::default(),
            going_on: work::Leased::default(),
            limits: Limits::default(),
        }
    }

    /// Asks a registry whether it takes these credentials. Answers what to keep in place of the
    /// password, if its token service gave one.
    ///
    /// # Errors
    /// It does not take them, or can't be reached.
    pub async fn login(&self, credentials: Credentials) -> Result<Option<String>> {
        Ok(self.registry.login(credentials).await?)
    }

    /// The board of a call that may be under way already, by its namespace and request id.
    #[must_use]
    pub fn board(&self, namespace: &str, request_id: &str) -> Board {
        if request_id.is_empty() {
            return Board::default();
        }
        self.boards.of(namespace, request_id)
    }
}

/// Boards of calls under way, so that the same call made again sees what the first one does.
#[derive(Clone, Debug, Default)]
struct Boards(Arc<Mutex<HashMap<(String, String), Board>>>);

impl Boards {
    fn of(&self, namespace: &str, request_id: &str) -> Board {
        let mut boards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that only the table has are of the past.
        boards.retain(|_, board| board.is_watched());
        boards.entry((namespace.to_owned(), request_id.to_owned())).or_default().clone()
    }
}

type ResolvedKey = (String, Digest, String);

fn resolved_key(namespace: &str, target: &Digest, choice: &Choice) -> ResolvedKey {
    (namespace.to_owned(), target.clone(), choice.platform.to_string())
}

/// Documents are named by their digests, so what was read once stays true; but they may have gone.
#[derive(Clone, Debug, Default)]
struct Remembered(Arc<Mutex<BTreeMap<ResolvedKey, Arc<Resolved>>>>);

impl Remembered {
    fn get(&self, key: &ResolvedKey) -> Option<Arc<Resolved>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn put(&self, key: ResolvedKey, resolved: Arc<Resolved>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.pop_first();
        }
        known.insert(key, resolved);
    }

    /// Blobs went: what was here may not be any more.
    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
