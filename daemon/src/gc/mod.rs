//! Garbage collection: what nothing reaches goes, and nothing else.
//!
//! containerd's rules and label names. Roots are images, leases, containers, and whatever is
//! labelled `containerd.io/gc.root`; arrows are the labels `containerd.io/gc.ref.*` of images, blobs
//! and snapshots, a snapshot's parent, and, the other way round, `containerd.io/gc.bref.*`.
//!
//! ```text
//!   image ──▶ index ──▶ manifest ──▶ config ──▶ snapshot (chain id) ──▶ parent …
//!   container ────────────▲  └─────▶ layers         ▲
//!   container's own snapshot ───────────────────────┘
//! ```
//!
//! Marking is a pure function ([`unreachable`]) over what one transaction sees, and the rows go in
//! that same transaction, so nothing can be collected that became reachable meanwhile. Files follow
//! the rows. Blobs that a pull brings are leased by it; trees that are being unpacked are pinned in
//! memory ([`Pins`]), because half a tree is of no use to the next daemon.

mod mark;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::content::Content;
use crate::error::{Error, Result};
use crate::snapshots::{Pins, Snapshots};
use crate::store::{NewEvent, Store, Transaction};
use crate::time::Time;

pub use mark::{Graph, SNAPSHOT_REFERENCE, Unreachable, Without, unreachable};

/// How long a change waits for others before a collection.
const GATHER: Duration = Duration::from_millis(100);

/// How often it is looked at without a change: leases expire by themselves.
const PERIOD: Duration = Duration::from_secs(300);

/// How long an ingest may rest before nobody is expected to resume it.
pub const INGEST_IDLE: Duration = Duration::from_secs(24 * 3600);

/// Something that a collection removed, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A name that had expired.
    Image {
        name: String,
    },
    Blob {
        digest: String,
        size: u64,
    },
    Snapshot {
        key: String,
        size: u64,
    },
    Ingest {
        reference: String,
        size: u64,
    },
}

/// How a collection is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// Remove nothing, only say what would go.
    pub dry_run: bool,
    /// Asked for by somebody: the trees of snapshots are measured, which takes a walk through each,
    /// and ingests go that nobody writes to now.
    pub by_hand: bool,
}

/// The collector; clones share it.
#[derive(Clone, Debug)]
pub struct Collector {
    store: Store,
    content: Content,
    snapshots: Snapshots,
    pins: Pins,
    changed: Arc<Notify>,
}

impl Collector {
    #[must_use]
    pub fn new(store: Store, content: Content, snapshots: Snapshots) -> Self {
        let pins = snapshots.pins().clone();
        Self { store, content, snapshots, pins, changed: Arc::default() }
    }

    /// Something may be unreachable now.
    pub fn nudge(&self) {
        self.changed.notify_one();
    }

    /// Collects whenever it was nudged, and from time to time. Never ends.
    pub async fn serve(&self) {
        loop {
            let nudged = tokio::time::timeout(PERIOD, self.changed.notified()).await;
            if nudged.is_ok() {
                tokio::time::sleep(GATHER).await;
            }
            if let Err(error) = self.collect_all().await {
                tracing::warn!(%error, "garbage not collected; tried again at the next change");
            }
        }
    }

    /// Collects in every namespace.
    ///
    /// # Errors
    /// The store's own, or files that can't be removed.
    pub async fn collect_all(&self) -> Result<usize> {
        let namespaces = self.store.read(|tx| tx.namespaces()).await?;
        let mut removed = 0;
        let mut outcome = Ok(());
        for namespace in namespaces {
            match self.collect(&namespace, Mode::default()).await {
                Ok(items) => removed += items.len(),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        if removed > 0 {
            tracing::debug!(removed, "garbage collected");
        }
        outcome.map(|()| removed)
    }

    /// Collects in one namespace; answers what went, or with [`Mode::dry_run`] what would go.
    ///
    /// # Errors
    /// The store's own, or files that can't be removed: their rows are gone, and the next start
    /// removes them.
    pub async fn collect(&self, namespace: &str, mode: Mode) -> Result<Vec<Item>> {
        self.collect_without(namespace, mode, Without::default()).await
    }

    /// As [`collect`](Self::collect), as if some things were not there any more. For dry runs.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub async fn collect_without(
        &self,
        namespace: &str,
        mode: Mode,
        without: Without,
    ) -> Result<Vec<Item>> {
        // To its end, also when nobody waits any more: the files of rows that went are found by
        // nobody but the next start.
        let (this, namespace) = (self.clone(), namespace.to_owned());
        let task = tokio::spawn(async move { this.collect_now(&namespace, mode, without).await });
        task.await.unwrap_or(Err(Error::Stopping))
    }

    async fn collect_now(
        &self,
        namespace: &str,
        mode: Mode,
        without: Without,
    ) -> Result<Vec<Item>> {
        shim_failpoints::step!("daemon.gc.before_mark", error);
        // Read within the transaction: a pin is taken within the one that makes the row.
        let (owner, pins) = (namespace.to_owned(), self.pins.clone());
        let (gone, leases) = self
            .store
            .write(move |tx| -> Result<_> {
                let mut graph = Graph::load(tx, &owner, pins.held())?;
                graph.forget(&without);
                let gone = unreachable(&graph, Time::now());
                let leases: Vec<String> =
                    graph.leases.iter().map(|(lease, _)| lease.id.clone()).collect();
                if !mode.dry_run {
                    sweep(tx, &owner, &gone)?;
                }
                Ok((gone, leases))
            })
            .await?;
        shim_failpoints::step!("daemon.gc.after_sweep");
        let mut items: Vec<Item> =
            gone.images.into_iter().map(|name| Item::Image { name }).collect();
        let mut digests = Vec::with_capacity(gone.blobs.len());
        for blob in gone.blobs {
            digests.push(blob.digest.clone());
            items.push(Item::Blob { digest: blob.digest, size: blob.size });
        }
        for snapshot in &gone.snapshots {
            let size = match mode.by_hand {
                true => {
                    let usage = self.snapshots.usage_of(snapshot.number).await;
                    usage.map_or(0, |usage| usage.size)
                }
                false => 0,
            };
            items.push(Item::Snapshot { key: snapshot.key.clone(), size });
        }
        let idle = if mode.by_hand { Duration::ZERO } else { INGEST_IDLE };
        let idle = self.content.idle_ingests(namespace, idle, &leases, mode.dry_run).await;
        if let Err(error) = &idle {
            tracing::warn!(%error, "ingests not looked at");
        }
        items.extend(idle.unwrap_or_default().into_iter().map(|ingest| Item::Ingest {
            reference: ingest.description.reference,
            size: ingest.received,
        }));
        if mode.dry_run {
            return Ok(items);
        }
        let mut outcome = self.content.unlink_unneeded(digests).await;
        shim_failpoints::step!("daemon.gc.before_snapshots");
        for snapshot in gone.snapshots {
            outcome = outcome.and(self.snapshots.discard(snapshot.number).await);
        }
        outcome.map(|()| items)
    }
}

/// Removes the rows. Children come before their parents, which they refer to.
fn sweep(tx: &mut Transaction<'_>, namespace: &str, gone: &Unreachable) -> Result<()> {
    for name in &gone.images {
        tx.remove_image(namespace, name)?;
        tx.event(event(namespace, "image", "delete", name))?;
    }
    for blob in &gone.blobs {
        tx.remove_blob(namespace, &blob.digest)?;
        tx.event(event(namespace, "content", "delete", &blob.digest))?;
    }
    for snapshot in &gone.snapshots {
        tx.remove_snapshot(snapshot.number)?;
        tx.event(event(namespace, "snapshot", "remove", &snapshot.key))?;
    }
    Ok(())
}

fn event(namespace: &str, kind: &str, action: &str, id: &str) -> NewEvent {
    NewEvent {
        namespace: namespace.to_owned(),
        kind: kind.to_owned(),
        action: action.to_owned(),
        id: id.to_owned(),
        attributes: BTreeMap::new(),
    }
}
