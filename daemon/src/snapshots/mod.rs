//! Snapshots: containerd's model (prepare, view, commit, mounts, stat, list, usage, remove) over one
//! driver, `overlayfs`.
//!
//! The rows are the truth, directories follow them: a directory without a row is an orphan of a
//! crash and is removed at the next start; a row's directory is made again when it is missing. A
//! snapshot may rest on a committed one, on a directory of the host, or on nothing.
//!
//! Nothing is mounted here: whoever runs the container does that, in its own mount namespace.

mod aside;
mod durability;
mod layer;
mod overlayfs;
mod pins;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use crate::blocking::off_the_loop;
use crate::error::{Error, Result};
use crate::leases;
use crate::store::{Kind, NewEvent, Resource, ResourceKind, SnapshotRow, Store, Transaction};
use crate::time::Time;
use crate::trees::{self, Usage};

use durability::Durability;
pub use layer::{LAYER_LABEL, Presence, SIZE_LABEL, Unpacking};
pub(crate) use layer::{merged, merged_or_none, writable};
use overlayfs::Overlayfs;
pub use overlayfs::{Layers, Mount};
pub use pins::{Pin, Pins};

/// What a snapshot rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    Nothing,
    /// The name of a committed snapshot.
    Parent(String),
    /// A directory of the host.
    Directory(PathBuf),
}

/// A snapshot as it is told of: parents by name.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub row: SnapshotRow,
    pub parent: Option<String>,
}

/// What a snapshot is made with.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    pub labels: BTreeMap<String, String>,
    /// The lease that is to hold it from its first moment on.
    pub lease: Option<String>,
}

/// The snapshot service; clones share it.
#[derive(Clone, Debug)]
pub struct Snapshots {
    store: Store,
    driver: Overlayfs,
    pins: Pins,
    durability: Durability,
}

impl Snapshots {
    #[must_use]
    pub fn new(store: Store, directory: PathBuf, trash: PathBuf) -> Self {
        Self {
            store,
            durability: Durability::new(directory.clone()),
            driver: Overlayfs::new(directory, trash),
            pins: Pins::default(),
        }
    }

    /// What is being made and must not be collected.
    #[must_use]
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Makes an active snapshot or a view.
    ///
    /// # Errors
    /// The key is taken, the parent is missing or not committed, the directory is none.
    pub async fn prepare(
        &self,
        namespace: &str,
        key: &str,
        base: Base,
        kind: Kind,
        marks: Marks,
    ) -> Result<Layers> {
        check_key(key)?;
        let owner = namespace.to_owned();
        let wanted = key.to_owned();
        let number = self
            .store
            .write(move |tx| {
                let number = insert(tx, &owner, &wanted, &base, kind, None, marks.labels)?;
                hold(tx, &owner, marks.lease.as_deref(), wanted)?;
                Ok::<_, Error>(number)
            })
            .await?;
        self.layers_of_number(number).await
    }

    /// Makes the active snapshot of a container, within the transaction that makes the container.
    /// Its directories are made by [`Snapshots::materialize`], after the commit.
    ///
    /// # Errors
    /// As [`Snapshots::prepare`].
    pub fn prepare_held(
        tx: &mut Transaction<'_>,
        namespace: &str,
        id: &str,
        base: &Base,
        labels: BTreeMap<String, String>,
    ) -> Result<i64> {
        insert(tx, namespace, id, base, Kind::Active, Some(id), labels)
    }

    /// The layers of a snapshot that rests on a directory alone, without asking the store: what
    /// a container over `--rootfs` needs on its way to its start.
    ///
    /// # Errors
    /// Directories that can't be made.
    pub fn materialize(&self, number: i64, directory: &Path) -> Result<Layers> {
        self.driver.make(number, Some(directory))?;
        Ok(self.driver.layers(number, Kind::Active, &[], Some(directory)))
    }

    /// The layers of a snapshot, its directories made when they are missing.
    ///
    /// # Errors
    /// The snapshot is gone, or the store's own.
    pub async fn layers_of_number(&self, number: i64) -> Result<Layers> {
        let chain = self.store.read(move |tx| chain(tx, number)).await?;
        if let Some(torn) = chain.iter().find(|row| durability::is_torn(row)) {
            return Err(Error::SnapshotTorn { key: torn.key.clone() });
        }
        let own = &chain[0];
        let parents: Vec<i64> = chain[1..].iter().map(|row| row.number).collect();
        let directory = chain.last().and_then(|row| row.directory.clone());
        let model =
            parents.first().map(|parent| self.driver.tree(*parent)).or_else(|| directory.clone());
        if own.kind != Kind::View {
            self.driver.make(number, model.as_deref())?;
        }
        Ok(self.driver.layers(number, own.kind, &parents, directory.as_deref()))
    }

    /// How to mount a snapshot.
    ///
    /// # Errors
    /// It does not exist.
    pub async fn mounts(&self, namespace: &str, key: &str) -> Result<Vec<Mount>> {
        let snapshot = self.stat(namespace, key).await?;
        if snapshot.row.kind == Kind::Committed {
            return Err(wrong_kind(key, Kind::Committed, "active or a view"));
        }
        Ok(self.layers_of_number(snapshot.row.number).await?.mounts())
    }

    /// Makes an active snapshot a committed one, under a name.
    ///
    /// # Errors
    /// It does not exist, is not active, is held by a container, or the name is taken.
    pub async fn commit(&self, namespace: &str, key: &str, name: &str, marks: Marks) -> Result<()> {
        check_key(name)?;
        let (namespace, key, name) = (namespace.to_owned(), key.to_owned(), name.to_owned());
        // There is no blob to make it again from: its files are on the disk before it is.
        let directory = self.durability.clone();
        off_the_loop(move || directory.sync_now()).await?;
        self.store
            .write(move |tx| -> Result<()> {
                let row = find(tx, &namespace, &key)?;
                if row.kind != Kind::Active {
                    return Err(wrong_kind(&key, row.kind, "active"));
                }
                if let Some(holder) = row.held_by {
                    return Err(Error::SnapshotHeld { key, holder });
                }
                if tx.snapshot(&namespace, &name)?.is_some() {
                    return Err(Error::SnapshotExists { key: name });
                }
                tx.commit_snapshot(row.number, &name, &marks.labels)?;
                hold(tx, &namespace, marks.lease.as_deref(), name.clone())?;
                tx.rename_leased(&namespace, ResourceKind::Snapshot, &key, &name)?;
                tx.event(event(&namespace, "commit", &name))?;
                Ok(())
            })
            .await
    }

    /// # Errors
    /// It does not exist.
    pub async fn stat(&self, namespace: &str, key: &str) -> Result<Snapshot> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        self.store
            .read(move |tx| {
                let row = find(tx, &namespace, &key)?;
                with_parent(tx, row)
            })
            .await
    }

    /// # Errors
    /// The store's own.
    pub async fn list(&self, namespace: &str) -> Result<Vec<Snapshot>> {
        let namespace = namespace.to_owned();
        self.store
            .read(move |tx| {
                let rows = tx.snapshots(&namespace)?;
                rows.into_iter().map(|row| with_parent(tx, row)).collect()
            })
            .await
    }

    /// What its own layer takes, without its parents.
    ///
    /// # Errors
    /// It does not exist, or its directory can't be read.
    pub async fn usage(&self, namespace: &str, key: &str) -> Result<Usage> {
        self.usage_of(self.stat(namespace, key).await?.row.number).await
    }

    /// As [`usage`](Self::usage), of a number; one whose directory is gone takes nothing.
    ///
    /// # Errors
    /// Its directory can't be read.
    pub async fn usage_of(&self, number: i64) -> Result<Usage> {
        Ok(self.usage_of_all(vec![number]).await?.into_iter().next().unwrap_or_default())
    }

    /// As [`usage_of`](Self::usage_of), of many at once, in their order: most trees are small, and to hand each
    /// to another thread takes longer than to walk it.
    ///
    /// # Errors
    /// A directory can't be read.
    pub async fn usage_of_all(&self, numbers: Vec<i64>) -> Result<Vec<Usage>> {
        let driver = self.driver.clone();
        off_the_loop(move || {
            let of = |number: &i64| {
                let tree = driver.tree(*number);
                trees::usage(&tree).map_err(Error::file("measure", &tree))
            };
            numbers.iter().map(of).collect()
        })
        .await
    }

    /// What a committed snapshot takes together with those below it, in bytes, as it was measured when
    /// they were unpacked.
    ///
    /// # Errors
    /// It does not exist.
    pub async fn chain_size(&self, namespace: &str, name: &str) -> Result<u64> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let rows = self
            .store
            .read(move |tx| {
                let number = find(tx, &namespace, &name)?.number;
                chain(tx, number)
            })
            .await?;
        let size = |row: &SnapshotRow| row.labels.get(SIZE_LABEL)?.parse::<u64>().ok();
        Ok(rows.iter().filter_map(size).sum())
    }

    /// Removes a snapshot that nobody needs.
    ///
    /// # Errors
    /// A child, a container or a lease has it; the error names it.
    pub async fn remove(&self, namespace: &str, key: &str) -> Result<()> {
        let (this, namespace, key) = (self.clone(), namespace.to_owned(), key.to_owned());
        // To its end, also when nobody waits any more.
        let removed = tokio::spawn(async move { this.remove_now(&namespace, &key).await });
        removed.await.unwrap_or(Err(Error::Stopping))
    }

    async fn remove_now(&self, namespace: &str, key: &str) -> Result<()> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        let number = self
            .store
            .write(move |tx| -> Result<i64> {
                let row = find(tx, &namespace, &key)?;
                if let Some(holder) = row.held_by {
                    return Err(Error::SnapshotHeld { key, holder });
                }
                if let Some(child) = tx.child_of(row.number)? {
                    return Err(Error::SnapshotHasChild { key, child });
                }
                leases::check_free(tx, &namespace, ResourceKind::Snapshot, &key)?;
                tx.remove_snapshot(row.number)?;
                tx.event(event(&namespace, "remove", &key))?;
                Ok(row.number)
            })
            .await?;
        self.discard(number).await
    }

    /// Removes the directories of a snapshot whose row is gone.
    ///
    /// # Errors
    /// Names the directory.
    pub async fn discard(&self, number: i64) -> Result<()> {
        let driver = self.driver.clone();
        off_the_loop(move || driver.discard(number)).await
    }

    /// Removes the directories that no row names, left by a crash.
    ///
    /// # Errors
    /// The store's own, or a directory that can't be read.
    pub async fn remove_orphans(&self) -> Result<usize> {
        let known: HashSet<i64> =
            self.store.read(|tx| tx.snapshot_numbers()).await.map(HashSet::from_iter)?;
        let driver = self.driver.clone();
        off_the_loop(move || driver.remove_orphans(&known)).await
    }
}

fn hold(tx: &mut Transaction<'_>, namespace: &str, lease: Option<&str>, key: String) -> Result<()> {
    leases::hold_new(tx, namespace, lease, Resource { kind: ResourceKind::Snapshot, id: key })
}

fn insert(
    tx: &mut Transaction<'_>,
    namespace: &str,
    key: &str,
    base: &Base,
    kind: Kind,
    held_by: Option<&str>,
    labels: BTreeMap<String, String>,
) -> Result<i64> {
    if tx.snapshot(namespace, key)?.is_some() {
        return Err(Error::SnapshotExists { key: key.to_owned() });
    }
    let (parent, directory) = match base {
        Base::Nothing => (None, None),
        Base::Directory(path) => (None, Some(check_directory(path)?)),
        Base::Parent(name) => {
            let parent = find(tx, namespace, name)?;
            if parent.kind != Kind::Committed {
                return Err(wrong_kind(name, parent.kind, "committed"));
            }
            (Some(parent.number), None)
        }
    };
    let now = Time::now();
    let row = SnapshotRow {
        number: 0,
        key: key.to_owned(),
        kind,
        parent,
        directory,
        held_by: held_by.map(str::to_owned),
        created_at: now,
        updated_at: now,
        labels,
        written_in: None,
    };
    let number = tx.insert_snapshot(namespace, &row)?;
    tx.event(event(namespace, "prepare", key))?;
    Ok(number)
}

/// The snapshot and its parents, nearest first.
fn chain(tx: &mut Transaction<'_>, number: i64) -> Result<Vec<SnapshotRow>> {
    let mut rows = Vec::new();
    let mut next = Some(number);
    while let Some(number) = next {
        let missing = || Error::NoSuchSnapshot { key: number.to_string() };
        let row = tx.snapshot_by_number(number)?.ok_or_else(missing)?;
        next = row.parent;
        rows.push(row);
    }
    Ok(rows)
}

fn find(tx: &mut Transaction<'_>, namespace: &str, key: &str) -> Result<SnapshotRow> {
    tx.snapshot(namespace, key)?.ok_or_else(|| Error::NoSuchSnapshot { key: key.to_owned() })
}

fn with_parent(tx: &mut Transaction<'_>, row: SnapshotRow) -> Result<Snapshot> {
    let parent = match row.parent {
        None => None,
        Some(number) => tx.snapshot_by_number(number)?.map(|parent| parent.key),
    };
    Ok(Snapshot { row, parent })
}

fn event(namespace: &str, action: &str, key: &str) -> NewEvent {
    NewEvent {
        namespace: namespace.to_owned(),
        kind: "snapshot".to_owned(),
        action: action.to_owned(),
        id: key.to_owned(),
        attributes: BTreeMap::new(),
    }
}

fn wrong_kind(key: &str, kind: Kind, wanted: &'static str) -> Error {
    let kind = match kind {
        Kind::View => "a view",
        Kind::Active => "active",
        Kind::Committed => "committed",
    };
    Error::SnapshotKind { key: key.to_owned(), kind, wanted }
}

fn check_key(key: &str) -> Result<()> {
    let problem = if key.is_empty() {
        "it must not be empty"
    } else if key.len() > 256 {
        "it has at most 256 bytes"
    } else if key.chars().any(char::is_control) {
        "it must not hold control characters"
    } else {
        return Ok(());
    };
    Err(Error::InvalidArgument { what: "snapshot key", problem: problem.to_owned() })
}

/// A directory that may be a base: absolute, there, and a directory.
fn check_directory(path: &Path) -> Result<PathBuf> {
    let wrong = |problem: &str| Error::InvalidArgument {
        what: "directory",
        problem: format!("{}: {problem}", path.display()),
    };
    if !path.is_absolute() {
        return Err(wrong("give an absolute path"));
    }
    if path.to_str().is_none() {
        return Err(wrong("its name is not UTF-8"));
    }
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(path.to_owned()),
        Ok(_) => Err(wrong("not a directory")),
        Err(source) => Err(wrong(&source.to_string())),
    }
}
