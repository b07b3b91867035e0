//! A layer of an image as a snapshot: unpacked beside its parents, then put on top of them.
//!
//! Layers are written side by side, each into a tree of its own that knows nothing of those below.
//! Only when its turn comes is it put on its parent, under its chain id (OCI image specification,
//! "Layer ChainID"). Until then it is pinned in memory: half a tree is of no use to another daemon.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use shim_rootfs::{Root, overlay};

use super::aside;
use super::durability::is_torn;
use super::pins::Pin;
use super::{Kind, Marks, SnapshotRow, Snapshots, chain, check_key, event, find, hold};
use crate::blocking::off_the_loop;
use crate::container::random_id;
use crate::error::{Error, Result};
use crate::shim::boot_id;
use crate::store::UNPACKING;
use crate::time::Time;

/// The label of a committed layer that names the blob it was unpacked from, and can be again.
pub const LAYER_LABEL: &str = "io.bosun/layer";

/// The label of a committed layer that says what its own tree takes, in bytes on disk.
pub const SIZE_LABEL: &str = "io.bosun/size";

/// How a committed snapshot is.
#[derive(Clone, Debug)]
pub enum Presence {
    Missing,
    Whole,
    /// It was not on the disk when the machine went down.
    Torn(SnapshotRow),
}

/// A layer that is being unpacked. Dropped, its tree is garbage.
#[derive(Debug)]
pub struct Unpacking {
    number: i64,
    tree: PathBuf,
    pin: Arc<Pin>,
}

impl Unpacking {
    /// Where its files go.
    #[must_use]
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// Keeps the tree from being collected for as long as somebody writes to it.
    #[must_use]
    pub fn pin(&self) -> Arc<Pin> {
        Arc::clone(&self.pin)
    }
}

impl Snapshots {
    /// Makes an empty tree for a layer.
    ///
    /// # Errors
    /// The store's own, or directories that can't be made.
    pub async fn begin_layer(&self, namespace: &str) -> Result<Unpacking> {
        let (namespace, pins) = (namespace.to_owned(), self.pins.clone());
        let now = Time::now();
        let (number, pin) = self
            .store
            .write(move |tx| -> Result<_> {
                let row = SnapshotRow {
                    number: 0,
                    key: format!("{UNPACKING}{}", random_id()),
                    kind: Kind::Active,
                    parent: None,
                    directory: None,
                    held_by: None,
                    created_at: now,
                    updated_at: now,
                    labels: std::collections::BTreeMap::new(),
                    written_in: None,
                };
                let number = tx.insert_snapshot(&namespace, &row)?;
                Ok((number, pins.hold(number)))
            })
            .await?;
        shim_failpoints::step!("daemon.unpack.after_row", error);
        let driver = self.driver.clone();
        off_the_loop(move || driver.make(number, None)).await?;
        Ok(Unpacking { number, tree: self.driver.tree(number), pin: Arc::new(pin) })
    }

    /// Puts an unpacked layer on its parent, under its chain id. Its files come to the disk by and by.
    ///
    /// # Errors
    /// The parent is missing; the name is taken, which [`has`](Self::has) tells before.
    pub async fn commit_layer(
        &self,
        namespace: &str,
        layer: Unpacking,
        name: &str,
        parent: Option<&str>,
        marks: Marks,
    ) -> Result<()> {
        check_key(name)?;
        let (owner, number) = (namespace.to_owned(), layer.number);
        let (name, parent) = (name.to_owned(), parent.map(str::to_owned));
        shim_failpoints::step!("daemon.unpack.before_commit", error);
        self.store
            .write(move |tx| -> Result<()> {
                if tx.snapshot(&owner, &name)?.is_some() {
                    return Err(Error::SnapshotExists { key: name });
                }
                let parent = match parent {
                    None => None,
                    Some(parent) => Some(find(tx, &owner, &parent)?.number),
                };
                tx.commit_layer(number, &name, parent, &marks.labels, boot_id())?;
                tx.event(event(&owner, "commit", &name))?;
                hold(tx, &owner, marks.lease.as_deref(), name)?;
                drop(layer);
                Ok(())
            })
            .await?;
        shim_failpoints::step!("daemon.unpack.after_commit");
        self.durability.nudge();
        Ok(())
    }

    /// Removes the tree of a layer that could not be unpacked.
    ///
    /// # Errors
    /// The store's own, or a directory that can't be removed.
    pub async fn abandon_layer(&self, layer: Unpacking) -> Result<()> {
        // Its files first: on a full disk the row can't go yet. It is garbage from here on.
        self.discard(layer.number).await?;
        let number = layer.number;
        self.store.write(move |tx| tx.remove_snapshot(number)).await?;
        drop(layer);
        Ok(())
    }

    /// Whether there is a committed snapshot of this name; it is held by the lease from then on.
    ///
    /// # Errors
    /// The store's own; there is no such lease.
    pub async fn presence(
        &self,
        namespace: &str,
        name: &str,
        lease: Option<String>,
    ) -> Result<Presence> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.store
            .write(move |tx| -> Result<Presence> {
                let known = tx.snapshot(&namespace, &name)?;
                let Some(row) = known.filter(|row| row.kind == Kind::Committed) else {
                    return Ok(Presence::Missing);
                };
                hold(tx, &namespace, lease.as_deref(), name)?;
                Ok(if is_torn(&row) { Presence::Torn(row) } else { Presence::Whole })
            })
            .await
    }

    /// The trees of a committed snapshot and its parents, nearest first.
    ///
    /// # Errors
    /// It does not exist.
    pub async fn trees(&self, namespace: &str, name: &str) -> Result<Vec<PathBuf>> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let number = self.store.read(move |tx| Ok::<_, Error>(find(tx, &namespace, &name)?.number));
        self.trees_of_number(number.await?).await
    }

    /// As [`trees`](Self::trees), of a number.
    ///
    /// # Errors
    /// It does not exist.
    pub async fn trees_of_number(&self, number: i64) -> Result<Vec<PathBuf>> {
        let rows = self.store.read(move |tx| chain(tx, number)).await?;
        Ok(rows.iter().map(|row| self.driver.tree(row.number)).collect())
    }

    /// The name of the snapshot below.
    ///
    /// # Errors
    /// The store's own.
    pub async fn name_of_parent(&self, row: &SnapshotRow) -> Result<Option<String>> {
        let Some(number) = row.parent else { return Ok(None) };
        let parent = self.store.read(move |tx| tx.snapshot_by_number(number)).await?;
        Ok(parent.map(|parent| parent.key))
    }

    /// Empties the tree of a committed layer whose files did not all come to the disk, so that it can
    /// be unpacked anew, in its place.
    ///
    /// # Errors
    /// Directories that can't be removed or made.
    pub async fn empty_layer(&self, row: &SnapshotRow) -> Result<PathBuf> {
        let (driver, number) = (self.driver.clone(), row.number);
        off_the_loop(move || {
            driver.discard(number)?;
            driver.make(number, None)
        })
        .await?;
        Ok(self.driver.tree(row.number))
    }

    /// A layer that was unpacked anew is as good as one of this boot.
    ///
    /// # Errors
    /// The store's own.
    pub async fn layer_mended(&self, row: &SnapshotRow) -> Result<()> {
        let number = row.number;
        self.store.write(move |tx| tx.set_durability(number, Some(boot_id()))).await?;
        self.durability.nudge();
        Ok(())
    }
}

/// A view of trees, nearest first, as they look on top of each other: a mount that is nowhere.
///
/// # Errors
/// Trees that can't be mounted.
pub(crate) fn merged(trees: &[PathBuf]) -> Result<Root> {
    if let [only] = trees {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(only, flags, Mode::empty())
            .map_err(|errno| Error::file("open tree", only)(errno.into()))?;
        return Ok(Root::new(directory));
    }
    detached(trees, None)
}

/// A view that is written to: `upper` over the trees below it, with overlayfs' own directory.
///
/// # Errors
/// Trees that can't be mounted.
pub(crate) fn writable(trees: &[PathBuf], upper: &Path, work: &Path) -> Result<Root> {
    detached(trees, Some((upper, work)))
}

fn detached(trees: &[PathBuf], upper: Option<(&Path, &Path)>) -> Result<Root> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let lower: Vec<String> = trees.iter().map(|tree| text(tree)).collect();
    let written = upper.map(|(directory, work)| (text(directory), text(work)));
    let layers = overlay::Layers {
        lower: &lower,
        upper: written.as_ref().map(|(directory, work)| overlay::Upper {
            directory,
            work,
            volatile: false,
        }),
        options: &[],
    };
    let first = trees.first().map_or(Path::new("/"), PathBuf::as_path);
    let made = match overlay::detached(&layers) {
        Err(shim_rootfs::Error::Refused { rule: shim_rootfs::Rule::OldKernel, .. }) => {
            aside::overlay(trees, upper)
        }
        other => other.map_err(std::io::Error::other),
    };
    made.map(Root::new).map_err(Error::file("put layers on top of each other, from", first))
}

/// As [`merged`], of what may be no trees at all.
///
/// # Errors
/// Trees that can't be mounted.
pub(crate) fn merged_or_none(trees: &[PathBuf]) -> Result<Option<Root>> {
    if trees.is_empty() { Ok(None) } else { merged(trees).map(Some) }
}
