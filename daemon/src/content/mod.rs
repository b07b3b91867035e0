//! Content: containerd's model. Blobs by digest, ingests by reference that resume.
//!
//! ```text
//!   open ─▶ write… ─▶ fdatasync ─▶ verify ─▶ rename ─▶ fsync directory ─▶ commit ─▶ acknowledge
//!     ▲        │          └────────────┴─ not what was expected: nothing stays
//!     └────────┘ the writer went away: its bytes wait for the next one
//! ```
//!
//! A namespace has a blob by its row; the bytes are one file for all of them, in OCI layout. The rows
//! are the truth: removal takes the row first, and the file when no namespace has it any more; a file
//! without a row is an orphan of a crash and is removed at the next start. A client gives a namespace a
//! blob by sending its bytes, never by knowing its digest; a pull takes what another namespace has, once
//! a registry's manifest leads to it.
//!
//! Deliberately absent: what is in a blob.

mod follow;
mod ingest;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bosun_image::Digest;
use bytes::Bytes;

pub use follow::{Follower, is_torn};
pub use ingest::{Description, Ingest, Writer, hash_of};

use crate::blocking::off_the_loop;
use crate::error::{Error, Result};
use crate::leases;
use crate::plain_file;
use crate::store::{self, BlobRow, NewEvent, Resource, ResourceKind, Store, Transaction};
use crate::time::Time;

/// How many files of removed blobs are held open until they are out of the transaction.
const HELD_OPEN: usize = 256;

/// Tells the temporary files of one daemon apart.
static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// The most that one read of a [`Reader`] gives, in bytes.
const CHUNK: u64 = 256 << 10;

/// The content service; clones share it.
#[derive(Clone, Debug)]
pub struct Content {
    store: Store,
    blobs: Arc<PathBuf>,
    ingests: Arc<PathBuf>,
    writers: ingest::Writers,
}

/// What a writer says of the blob that is to come.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Bytes of the whole blob.
    pub size: Option<u64>,
    pub digest: Option<Digest>,
    pub labels: BTreeMap<String, String>,
    /// The lease that is to hold the blob from its first moment on.
    pub lease: Option<String>,
}

/// A part of a blob, read in order.
#[derive(Debug)]
pub struct Reader {
    file: Arc<File>,
    path: PathBuf,
    position: u64,
    end: u64,
}

impl Content {
    /// The service over a directory in which `blobs/sha256` and `ingest` are there already.
    #[must_use]
    pub fn new(store: Store, directory: &Path) -> Self {
        Self {
            store,
            blobs: Arc::new(directory.join("blobs/sha256")),
            ingests: Arc::new(directory.join("ingest")),
            writers: ingest::Writers::default(),
        }
    }

    /// Opens an ingest for writing, or begins it. Its bytes are added at `offset`, or at its end.
    ///
    /// # Errors
    /// It has a writer, was begun for another blob, or has less than `offset` bytes.
    pub async fn writer(
        &self,
        namespace: &str,
        reference: &str,
        expected: Expected,
        offset: Option<u64>,
    ) -> Result<Writer> {
        check_reference(reference)?;
        let claim = self.writers.claim(namespace, reference)?;
        let description = Description {
            namespace: namespace.to_owned(),
            reference: reference.to_owned(),
            expected_size: expected.size,
            expected_digest: expected.digest.map(|digest| digest.to_string()),
            labels: expected.labels,
            lease: expected.lease,
            started_at: Time::now(),
        };
        let ingests = Arc::clone(&self.ingests);
        off_the_loop(move || Writer::open(&ingests, claim, description, offset)).await
    }

    /// Adds bytes to an ingest.
    ///
    /// # Errors
    /// More came than was expected, and nothing stays; or they can't be written.
    pub async fn write(&self, mut writer: Writer, data: Vec<Bytes>) -> Result<Writer> {
        off_the_loop(move || {
            for part in data {
                match writer.write(&part) {
                    Ok(()) => {}
                    Err(error @ Error::IngestMismatch { .. }) => {
                        return Err(give_up(writer, error));
                    }
                    // On a full disk, say: what was written can be resumed.
                    Err(error) => return Err(error),
                }
            }
            Ok(writer)
        })
        .await
    }

    /// Makes a blob of bytes that are all here: documents, not layers. One that exists gets the
    /// labels, and the lease.
    ///
    /// # Errors
    /// They are not what the digest says; the disk does not take them; there is no such lease.
    pub async fn put(&self, namespace: &str, data: Bytes, expected: Expected) -> Result<Digest> {
        let digest = Digest::of(&data);
        let size = data.len() as u64;
        if let Some(wanted) = expected.digest.filter(|wanted| *wanted != digest) {
            return Err(Error::IngestMismatch {
                reference: wanted.to_string(),
                what: "digest",
                wanted: wanted.to_string(),
                got: digest.to_string(),
            });
        }
        let claim = Description {
            namespace: namespace.to_owned(),
            reference: digest.to_string(),
            expected_size: Some(size),
            expected_digest: Some(digest.to_string()),
            labels: expected.labels,
            lease: expected.lease,
            started_at: Time::now(),
        };
        loop {
            let (path, blobs, data) = (self.path(&digest), Arc::clone(&self.blobs), data.clone());
            off_the_loop(move || match path.metadata() {
                Ok(known) if known.len() == size => Ok(()),
                Ok(_) | Err(_) => write_blob(&path, &blobs, &data),
            })
            .await?;
            match self.record(&claim, &digest, size).await {
                Ok(true) => return Ok(digest),
                Ok(false) => {}
                Err(error) => {
                    self.forget(&digest).await;
                    return Err(error);
                }
            }
        }
    }

    /// Gives a namespace a blob whose bytes are here already: its own gets the labels and the lease,
    /// another namespace's becomes this one's as well. `None` when nobody has it.
    ///
    /// # Errors
    /// The store's own; there is no such lease.
    pub async fn adopt(
        &self,
        namespace: &str,
        digest: &Digest,
        labels: BTreeMap<String, String>,
        lease: Option<String>,
    ) -> Result<Option<u64>> {
        let wanted = digest.to_string();
        let known = self.store.read(move |tx| tx.blob_size(&wanted)).await?;
        let Some(size) = known else { return Ok(None) };
        let claim = Description {
            namespace: namespace.to_owned(),
            reference: digest.to_string(),
            expected_size: None,
            expected_digest: None,
            labels,
            lease,
            started_at: Time::now(),
        };
        Ok(self.record(&claim, digest, size).await?.then_some(size))
    }

    /// Adds to the labels of a blob; an empty value takes a label away.
    ///
    /// # Errors
    /// The namespace does not have it.
    pub async fn label(
        &self,
        namespace: &str,
        digest: &Digest,
        labels: BTreeMap<String, String>,
    ) -> Result<()> {
        let (namespace, digest) = (namespace.to_owned(), digest.to_string());
        self.store
            .write(move |tx| match tx.label_blob(&namespace, &digest, &labels)? {
                true => Ok(()),
                false => Err(Error::NoSuchBlob { digest }),
            })
            .await
    }

    /// The whole of a small blob.
    ///
    /// # Errors
    /// The namespace does not have it, it is larger than `most`, or it can't be read.
    pub async fn read(&self, namespace: &str, digest: &Digest, most: u64) -> Result<Vec<u8>> {
        let row = self.stat(namespace, digest).await?;
        if row.size > most {
            return Err(Error::BlobTooLarge { digest: row.digest, size: row.size, most });
        }
        let path = self.path(digest);
        let data = off_the_loop(move || match plain_file::read(&path, most) {
            // A row without a file: nothing is whole about it either.
            Err(source) if is_not_there(&source) => Ok(Vec::new()),
            other => other.map_err(Error::file("read blob", &path)),
        })
        .await?;
        match Digest::of(&data) == *digest {
            true => Ok(data),
            false => Err(self.damaged(digest).await),
        }
    }

    /// Opens a blob's file.
    ///
    /// # Errors
    /// The namespace does not have it, or it can't be opened.
    pub async fn open(&self, namespace: &str, digest: &Digest) -> Result<File> {
        let row = self.stat(namespace, digest).await?;
        self.open_whole(digest, row.size).await
    }

    /// Opens the file of a blob that has its size; any other is damaged.
    async fn open_whole(&self, digest: &Digest, size: u64) -> Result<File> {
        let path = self.path(digest);
        let opened = off_the_loop(move || match plain_file::open(&path) {
            Err(source) if is_not_there(&source) => Ok(None),
            other => other.map(Some).map_err(Error::file("open blob", &path)),
        })
        .await?;
        match opened {
            Some(file) if file.metadata().is_ok_and(|found| found.len() == size) => Ok(file),
            Some(_) | None => Err(self.damaged(digest).await),
        }
    }

    /// Makes an ingest a blob. Answers once it is durable; goes on when nobody waits any more.
    ///
    /// # Errors
    /// Its size or digest is another than expected, or the disk did not take it: nothing stays of it.
    pub async fn commit(&self, writer: Writer) -> Result<(Digest, u64)> {
        let this = self.clone();
        let committed = tokio::spawn(async move { this.commit_now(writer).await });
        committed.await.unwrap_or(Err(Error::Stopping))
    }

    async fn commit_now(&self, mut writer: Writer) -> Result<(Digest, u64)> {
        let size = writer.received();
        let (mut writer, digest) = off_the_loop(move || match writer.verify() {
            Ok(digest) => Ok((writer, digest)),
            Err(error) => Err(give_up(writer, error)),
        })
        .await?;
        let path = self.path(&digest);
        loop {
            let (blob, directory) = (path.clone(), Arc::clone(&self.blobs));
            writer = off_the_loop(move || {
                writer.publish(&blob, &directory)?;
                Ok(writer)
            })
            .await?;
            match self.record(writer.description(), &digest, size).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    self.forget(&digest).await;
                    return Err(error);
                }
            }
        }
        shim_failpoints::step!("daemon.content.before_ingest_removal", error);
        off_the_loop(move || writer.discard()).await?;
        Ok((digest, size))
    }

    /// A file whose row could not be committed, on a full disk say, is nobody's.
    async fn forget(&self, digest: &Digest) {
        if let Err(error) = self.unlink_unneeded(vec![digest.to_string()]).await {
            tracing::warn!(%digest, %error, "a blob without a record stays until the next start");
        }
    }

    /// Commits the row of a blob whose file is in its place. False when a removal of the same blob
    /// by another namespace has just taken the file away: files are unlinked in transactions too,
    /// and those come one after the other.
    async fn record(&self, description: &Description, digest: &Digest, size: u64) -> Result<bool> {
        let namespace = description.namespace.clone();
        let (path, digest) = (self.path(digest), digest.to_string());
        let (created_at, labels) = (Time::now(), description.labels.clone());
        let lease = description.lease.clone();
        self.store
            .write(move |tx| -> Result<bool> {
                if !path.metadata().is_ok_and(|file| file.len() == size) {
                    return Ok(false);
                }
                let row = BlobRow { digest, size, created_at, labels };
                if tx.insert_blob(&namespace, &row)? {
                    tx.event(event(&namespace, "create", &row.digest))?;
                }
                leases::hold_new(
                    tx,
                    &namespace,
                    lease.as_deref(),
                    Resource { kind: ResourceKind::Content, id: row.digest },
                )?;
                Ok(true)
            })
            .await
    }

    /// # Errors
    /// The namespace does not have it.
    pub async fn stat(&self, namespace: &str, digest: &Digest) -> Result<BlobRow> {
        let (namespace, digest) = (namespace.to_owned(), digest.clone());
        self.store.read(move |tx| find(tx, &namespace, &digest)).await
    }

    /// # Errors
    /// The store's own.
    pub async fn list(&self, namespace: &str) -> Result<Vec<BlobRow>> {
        let namespace = namespace.to_owned();
        Ok(self.store.read(move |tx| tx.blobs(&namespace)).await?)
    }

    /// Opens a part of a blob: from `offset`, at most `size` bytes.
    ///
    /// # Errors
    /// The namespace does not have it, or it ends before `offset`.
    pub async fn reader(
        &self,
        namespace: &str,
        digest: &Digest,
        offset: u64,
        size: Option<u64>,
    ) -> Result<Reader> {
        let row = self.stat(namespace, digest).await?;
        if offset > row.size {
            return Err(Error::BeyondBlob { digest: row.digest, size: row.size, offset });
        }
        let end = size.map_or(row.size, |size| offset.saturating_add(size).min(row.size));
        let file = self.open_whole(digest, row.size).await?;
        Ok(Reader { file: Arc::new(file), path: self.path(digest), position: offset, end })
    }

    /// Removes a blob from a namespace, and its bytes when no other one has it.
    ///
    /// # Errors
    /// The namespace does not have it, or a lease holds it; the error names the lease.
    pub async fn remove(&self, namespace: &str, digest: &Digest) -> Result<()> {
        let (this, namespace, digest) = (self.clone(), namespace.to_owned(), digest.clone());
        // To its end, also when nobody waits any more.
        let removed = tokio::spawn(async move { this.remove_now(&namespace, &digest).await });
        removed.await.unwrap_or(Err(Error::Stopping))
    }

    async fn remove_now(&self, namespace: &str, digest: &Digest) -> Result<()> {
        let (namespace, removed) = (namespace.to_owned(), digest.clone());
        self.store
            .write(move |tx| -> Result<()> {
                find(tx, &namespace, &removed)?;
                leases::check_free(tx, &namespace, ResourceKind::Content, removed.as_str())?;
                tx.remove_blob(&namespace, removed.as_str())?;
                tx.event(event(&namespace, "delete", removed.as_str()))?;
                Ok(())
            })
            .await?;
        self.unlink_unneeded(vec![digest.to_string()]).await
    }

    /// Unlinks the files of blobs that no namespace has any more. The names go in a transaction, so
    /// that nobody gives a namespace a blob whose file is just going; the bytes go afterwards.
    ///
    /// # Errors
    /// A file that can't be removed.
    pub async fn unlink_unneeded(&self, digests: Vec<String>) -> Result<()> {
        if digests.is_empty() {
            return Ok(());
        }
        shim_failpoints::step!("daemon.content.before_unlink", error);
        let this = self.clone();
        let open = self
            .store
            .write(move |tx| -> Result<Vec<File>> {
                let mut open = Vec::new();
                for digest in digests {
                    if tx.is_blob_needed(&digest)? {
                        continue;
                    }
                    let path = this.path(&digest.parse()?);
                    // Freeing the blocks of a large file takes its time: that is left to the last
                    // descriptor. There are not so many of those.
                    if open.len() < HELD_OPEN {
                        open.extend(plain_file::open(&path));
                    }
                    unlink(&path)?;
                }
                Ok(open)
            })
            .await?;
        off_the_loop(move || {
            drop(open);
            Ok(())
        })
        .await
    }

    /// Ingests that have no writer and that rested for `idle`, or that were to be held by a lease that
    /// is none of `leases`; they are dropped, unless only asked for.
    ///
    /// # Errors
    /// The directory of ingests can't be read, or one can't be removed.
    pub async fn idle_ingests(
        &self,
        namespace: &str,
        idle: Duration,
        leases: &[String],
        only_asked: bool,
    ) -> Result<Vec<Ingest>> {
        let leases = leases.to_vec();
        let (ingests, writers) = (Arc::clone(&self.ingests), self.writers.clone());
        let namespace = namespace.to_owned();
        off_the_loop(move || {
            let mut dropped = Vec::new();
            for ingest in ingest::list(&ingests, &namespace)? {
                let reference = &ingest.description.reference;
                // One that is being written to is not idle.
                let Ok(claim) = writers.claim(&namespace, reference) else { continue };
                let rested =
                    SystemTime::now().duration_since(ingest.touched_at).unwrap_or_default();
                let lease = ingest.description.lease.as_ref();
                let is_lost = lease.is_some_and(|lease| !leases.contains(lease));
                if rested < idle && !is_lost {
                    continue;
                }
                if !only_asked {
                    ingest::abort(&ingests, &claim)?;
                }
                dropped.push(ingest);
            }
            Ok(dropped)
        })
        .await
    }

    /// Drops the ingests that were to become blobs of a lease, and that nobody writes to.
    ///
    /// # Errors
    /// The directory of ingests can't be read, or one can't be removed.
    pub async fn abort_of_lease(&self, namespace: &str, lease: &str) -> Result<()> {
        let (ingests, writers) = (Arc::clone(&self.ingests), self.writers.clone());
        let (namespace, lease) = (namespace.to_owned(), lease.to_owned());
        off_the_loop(move || {
            for ingest in ingest::list(&ingests, &namespace)? {
                let known = &ingest.description;
                if known.lease.as_deref() == Some(lease.as_str())
                    && let Ok(claim) = writers.claim(&namespace, &known.reference)
                {
                    ingest::abort(&ingests, &claim)?;
                }
            }
            Ok(())
        })
        .await
    }

    /// How far an ingest is.
    ///
    /// # Errors
    /// There is none of that reference.
    pub async fn status(&self, namespace: &str, reference: &str) -> Result<Ingest> {
        let (namespace, reference) = (namespace.to_owned(), reference.to_owned());
        let ingests = Arc::clone(&self.ingests);
        off_the_loop(move || {
            ingest::status(&ingests, &namespace, &reference)
                .ok_or(Error::NoSuchIngest { reference })
        })
        .await
    }

    /// # Errors
    /// The directory of ingests can't be read.
    pub async fn ingests(&self, namespace: &str) -> Result<Vec<Ingest>> {
        let (namespace, ingests) = (namespace.to_owned(), Arc::clone(&self.ingests));
        off_the_loop(move || ingest::list(&ingests, &namespace)).await
    }

    /// Drops an ingest and its bytes.
    ///
    /// # Errors
    /// There is none of that reference, or it has a writer.
    pub async fn abort(&self, namespace: &str, reference: &str) -> Result<()> {
        let claim = self.writers.claim(namespace, reference)?;
        let (reference, ingests) = (reference.to_owned(), Arc::clone(&self.ingests));
        off_the_loop(move || {
            if ingest::abort(&ingests, &claim)? {
                return Ok(());
            }
            Err(Error::NoSuchIngest { reference })
        })
        .await
    }

    /// Removes blobs that no row names and directories that are no ingests, left by a crash. Before
    /// anybody is served.
    ///
    /// # Errors
    /// The store's own, or a directory that can't be read.
    pub async fn remove_orphans(&self) -> Result<usize> {
        let known: HashSet<String> =
            self.store.read(|tx| tx.blob_digests()).await.map(HashSet::from_iter)?;
        let (blobs, ingests) = (Arc::clone(&self.blobs), Arc::clone(&self.ingests));
        let root = self.root();
        off_the_loop(move || {
            let entries = std::fs::read_dir(&*blobs)
                .map_err(Error::file("read directory of blobs", &blobs))?;
            let mut removed = 0;
            for entry in entries.flatten() {
                let name = entry.file_name();
                let digest = format!("{}{}", Digest::PREFIX, name.to_string_lossy());
                let path = entry.path();
                if known.contains(&digest) || store::is_aside(&path) {
                    continue;
                }
                // What was never a blob, whatever it is.
                store::make_way(&root, &path)?;
                unlink(&path)?;
                removed += 1;
            }
            Ok(removed + ingest::remove_orphans(&ingests)?)
        })
        .await
    }

    /// Gives a namespace the row of a blob whose file is here and is what its name says. False when
    /// there is no such file; one that is damaged is set aside.
    ///
    /// # Errors
    /// [`Error::BlobDamaged`], the store's own, or a file that can't be read.
    pub async fn regain(&self, namespace: &str, digest: &Digest) -> Result<bool> {
        match self.stat(namespace, digest).await {
            Ok(_) => return Ok(true),
            Err(Error::NoSuchBlob { .. }) => {}
            Err(error) => return Err(error),
        }
        let path = self.path(digest);
        let size = match path.metadata() {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) | Err(_) => return Ok(false),
        };
        self.check(digest).await?;
        let claim = Description {
            namespace: namespace.to_owned(),
            reference: digest.to_string(),
            expected_size: None,
            expected_digest: None,
            labels: BTreeMap::new(),
            lease: None,
            started_at: Time::now(),
        };
        self.record(&claim, digest, size).await
    }

    /// Reads a blob to its end and compares it with its name. One that is damaged is set aside, so
    /// that the next pull brings it again.
    ///
    /// # Errors
    /// [`Error::BlobDamaged`], or a file that can't be read.
    pub async fn check(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        let found = off_the_loop(move || {
            let file = match plain_file::open(&path) {
                Err(source) if plain_file::is_damage(&source) => return Ok(None),
                opened => opened.map_err(Error::file("open blob", &path))?,
            };
            ingest::hash_of(&mut &file).map(Some).map_err(Error::file("read blob", &path))
        })
        .await?;
        match found.is_some_and(|found| Digest::finish(found) == *digest) {
            true => Ok(()),
            false => Err(self.damaged(digest).await),
        }
    }

    /// Sets the file of a blob aside that is not what its name says; no namespace has it any more.
    pub(crate) async fn damaged(&self, digest: &Digest) -> Error {
        let (path, name) = (self.path(digest), digest.to_string());
        let root = self.root();
        let aside = self
            .store
            .write(move |tx| -> Result<Option<PathBuf>> {
                tx.forget_blob(&name)?;
                match path.symlink_metadata() {
                    Ok(_) => Ok(Some(store::set_aside(&root, &path)?)),
                    Err(_) => Ok(None),
                }
            })
            .await;
        match aside {
            Ok(Some(aside)) => {
                tracing::error!(blob = %digest, aside = %aside.display(), "a blob is not what its digest says: set aside");
            }
            Ok(None) => tracing::error!(blob = %digest, "the file of a blob is missing"),
            Err(error) => tracing::error!(blob = %digest, %error, "a damaged blob stays"),
        }
        Error::BlobDamaged { digest: digest.to_string() }
    }

    /// The files of blobs that no namespace has.
    ///
    /// # Errors
    /// The store's own, or a directory that can't be read.
    pub async fn strangers(&self) -> Result<Vec<Digest>> {
        let known: HashSet<String> =
            self.store.read(|tx| tx.blob_digests()).await.map(HashSet::from_iter)?;
        let blobs = Arc::clone(&self.blobs);
        off_the_loop(move || {
            let entries = std::fs::read_dir(&*blobs)
                .map_err(Error::file("read directory of blobs", &blobs))?;
            let names = entries.flatten().filter_map(|entry| {
                format!("{}{}", Digest::PREFIX, entry.file_name().to_string_lossy()).parse().ok()
            });
            Ok(names.filter(|digest: &Digest| !known.contains(digest.as_str())).collect())
        })
        .await
    }

    /// The daemon's root, two levels above the directory of ingests.
    fn root(&self) -> PathBuf {
        let root = self.ingests.parent().and_then(Path::parent);
        root.map_or_else(|| self.ingests.to_path_buf(), Path::to_owned)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }
}

impl Reader {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// The file can't be read, or is shorter than its record says.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let count = CHUNK.min(self.end - self.position);
        if count == 0 {
            return Ok(None);
        }
        let (file, path, position) = (Arc::clone(&self.file), self.path.clone(), self.position);
        let data = off_the_loop(move || {
            let mut data = vec![0; usize::try_from(count).unwrap_or(0)];
            file.read_exact_at(&mut data, position).map_err(Error::file("read blob", &path))?;
            Ok(data)
        })
        .await?;
        self.position += count;
        Ok(Some(data))
    }
}

/// What was wrong with a writer's bytes is worse than what keeps them from being removed.
fn give_up(writer: Writer, error: Error) -> Error {
    if let Err(left) = writer.discard() {
        tracing::warn!(error = %left, "an ingest that can't be used stays");
    }
    error
}

fn find(tx: &mut Transaction<'_>, namespace: &str, digest: &Digest) -> Result<BlobRow> {
    let missing = || Error::NoSuchBlob { digest: digest.to_string() };
    tx.blob(namespace, digest.as_str())?.ok_or_else(missing)
}

/// Whether there is no file where one belongs: nothing, or something else.
fn is_not_there(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound || plain_file::is_damage(error)
}

/// Makes a blob's file, durably. Until it has its name it is an orphan like any other.
fn write_blob(path: &Path, directory: &Path, data: &[u8]) -> Result<()> {
    let number = TEMPORARY.fetch_add(1, Ordering::Relaxed);
    let temporary = directory.join(format!(".{}-{number}", std::process::id()));
    let write = || {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(Error::file("make blob", &temporary))?;
        file.write_all(data).map_err(Error::file("write blob", &temporary))?;
        file.sync_data().map_err(Error::file("make durable", &temporary))?;
        shim_failpoints::step!("daemon.pull.before_put", error);
        std::fs::rename(&temporary, path).map_err(Error::file("put in place", path))?;
        ingest::sync_directory(directory)
    };
    let written = write();
    if written.is_err() {
        // What can't be written is most likely a full disk, which this helps.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn unlink(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove blob", path)(source))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn event(namespace: &str, action: &str, digest: &str) -> NewEvent {
    NewEvent {
        namespace: namespace.to_owned(),
        kind: "content".to_owned(),
        action: action.to_owned(),
        id: digest.to_owned(),
        attributes: BTreeMap::new(),
    }
}

fn check_reference(reference: &str) -> Result<()> {
    let problem = if reference.is_empty() {
        "it must not be empty"
    } else if reference.len() > 256 {
        "it has at most 256 bytes"
    } else if reference.chars().any(char::is_control) {
        "it must not hold control characters"
    } else {
        return Ok(());
    };
    Err(Error::InvalidArgument { what: "reference of the ingest", problem: problem.to_owned() })
}
