//! When the files of unpacked layers are on the disk.
//!
//! Syncing every file would make a pull as slow as the disk. So a layer is committed as written in
//! this boot, and a syncfs(2) in the background makes it durable, for all layers at once. When the
//! machine goes down before that, the next daemon sees another boot and unpacks the layer anew from
//! its blob, which is durable; so a file that lost its bytes is never served. A syncfs that fails is
//! never tried again for the same layers (after an error the kernel may take lost pages for clean):
//! from the next boot on they are torn.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::Snapshots;
use crate::blocking::off_the_loop;
use crate::error::{Error, Result};
use crate::shim::boot_id;
use crate::store::{LOST, SnapshotRow};

/// How long layers wait for company.
const GATHER: Duration = Duration::from_secs(1);

/// Before a boot's id: in it the files could not be made durable. They are as they were written for as
/// long as the machine is up, and nobody knows what is on the disk.
const FAILED: &str = "failed:";

/// Whether the files of a snapshot are not what they were: they were written in another boot, and
/// were not durable when that ended.
pub(super) fn is_torn(row: &SnapshotRow) -> bool {
    let Some(written_in) = &row.written_in else { return false };
    written_in.strip_prefix(FAILED).unwrap_or(written_in) != boot_id()
}

#[derive(Clone, Debug)]
pub(super) struct Durability {
    directory: Arc<PathBuf>,
    changed: Arc<Notify>,
}

impl Durability {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory: Arc::new(directory), changed: Arc::default() }
    }

    pub(super) fn nudge(&self) {
        self.changed.notify_one();
    }

    /// Writes back everything of the file system.
    pub(super) fn sync_now(&self) -> Result<()> {
        shim_failpoints::step!("daemon.unpack.before_syncfs", error);
        let sync = || {
            let directory = File::open(&*self.directory)?;
            rustix::fs::syncfs(&directory)?;
            Ok(())
        };
        sync().map_err(Error::file("make durable", &self.directory))
    }
}

impl Snapshots {
    /// Makes layers durable whenever there are new ones. Never ends.
    pub async fn serve(&self) {
        self.durability.nudge();
        loop {
            self.durability.changed.notified().await;
            tokio::time::sleep(GATHER).await;
            if let Err(error) = self.make_durable().await {
                tracing::error!(%error, "unpacked layers may not be on the disk: they are unpacked again at the next start");
            }
        }
    }

    /// Makes the layers of this boot durable.
    ///
    /// # Errors
    /// The disk's, after which these layers count as torn; or the store's own.
    pub async fn make_durable(&self) -> Result<()> {
        let rows = self.store.read(|tx| tx.not_durable()).await?;
        let numbers: Vec<i64> = rows
            .into_iter()
            .filter(|(_, row)| row.written_in.as_deref() == Some(boot_id()))
            .map(|(_, row)| row.number)
            .collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let durability = self.durability.clone();
        let synced = off_the_loop(move || durability.sync_now()).await;
        let written_in = synced.is_err().then(|| format!("{FAILED}{}", boot_id()));
        self.store
            .write(move |tx| -> Result<()> {
                for number in numbers {
                    tx.set_durability(number, written_in.as_deref())?;
                }
                Ok(())
            })
            .await?;
        synced
    }

    /// Says of committed snapshots whose trees are missing that they are lost: what can be is unpacked
    /// again.
    ///
    /// # Errors
    /// The store's own.
    pub async fn mark_missing(&self) -> Result<()> {
        let rows = self.store.read(|tx| tx.committed()).await?;
        let driver = self.driver.clone();
        let missing: Vec<SnapshotRow> = off_the_loop(move || {
            let is_missing = |row: &SnapshotRow| !driver.tree(row.number).is_dir();
            Ok(rows.into_iter().filter(is_missing).collect())
        })
        .await?;
        for row in missing {
            if row.written_in.as_deref() == Some(LOST) {
                continue;
            }
            let (key, number) = (&row.key, row.number);
            tracing::error!(snapshot = key, number, "the tree of a layer is missing");
            self.store.write(move |tx| tx.set_durability(number, Some(LOST))).await?;
        }
        Ok(())
    }

    /// Layers that were not on the disk when the machine went down, with their namespaces, parents
    /// first.
    ///
    /// # Errors
    /// The store's own.
    pub async fn torn(&self) -> Result<Vec<(String, SnapshotRow)>> {
        let mut rows = self.store.read(|tx| tx.not_durable()).await?;
        rows.retain(|(_, row)| is_torn(row));
        Ok(rows)
    }
}
