//! The layers of an image: fetched, verified, decompressed and written side by side.
//!
//! ```text
//!   layer n   registry ──▶ ingest ──▶ blob            (verified here)
//!                            └─ read along ─▶ inflate ─▶ tree ─┐
//!   layer n-1 … the same …                                    ├─▶ settled and committed, in order
//! ```
//!
//! What is here already is taken as it is: a blob of any namespace, a chain id of this one. Whoever
//! asks for the same blob or the same chain id meanwhile waits for its turn and finds it done. A
//! layer waits only for those below it, so turns can't wait for each other in a circle.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use bosun_image::{Descriptor, Digest};
use bosun_layer::{Applied, Below, Limits, Settled};
use futures::FutureExt;
use futures::future::{BoxFuture, join, join_all};
use rustix::fs::{Mode, OFlags};
use tokio::sync::{oneshot, watch};

use super::Images;
use super::progress::{Board, Status};
use super::tree::{Resolved, bad};
use crate::blocking::off_the_loop;
use crate::content::{self, Follower};
use crate::error::{Error, Result};
use crate::snapshots::{self, LAYER_LABEL, Marks, Presence, SIZE_LABEL, Unpacking};
use crate::trees;

/// One layer of an image.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub blob: Descriptor,
    pub diff_id: Digest,
    /// It and all below it.
    pub chain_id: Digest,
    /// The chain id of the layer below.
    pub parent: Option<Digest>,
}

/// Where blobs come from that are not here.
pub(super) trait Origin: Sync {
    /// Brings a blob into the store. As soon as its first bytes are there, they may be read along.
    fn bring<'a>(
        &'a self,
        job: &'a Job,
        blob: &'a Descriptor,
        follow: Option<oneshot::Sender<Source>>,
    ) -> BoxFuture<'a, Result<()>>;
}

/// What a piece of work on an image is done for.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub namespace: String,
    /// Holds what is brought, until a name does.
    pub lease: Option<String>,
    pub board: Board,
    /// True once a part of it has failed: the others need not go on.
    stop: Arc<watch::Sender<bool>>,
}

impl Job {
    pub(super) fn new(namespace: &str, lease: Option<String>, board: &Board) -> Self {
        let (stop, _) = watch::channel(false);
        Self { namespace: namespace.to_owned(), lease, board: board.clone(), stop: Arc::new(stop) }
    }

    /// Runs one part of the work, unless another has failed; and when it fails itself, the others
    /// are told. So all of them come to their end, and nothing goes on behind an error.
    pub(super) async fn part<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let outcome = work.await;
        if outcome.is_err() {
            self.stop.send_replace(true);
        }
        outcome
    }

    /// Is done when another part has failed.
    pub(super) async fn stopped(&self) {
        // The sender is ours.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }
}

/// The first error that is the cause of others, or all is well.
pub(super) fn first_error(outcomes: Vec<Result<()>>) -> Result<()> {
    let mut stopping = Ok(());
    for outcome in outcomes {
        match outcome {
            Ok(()) => {}
            Err(Error::Stopping) => stopping = Err(Error::Stopping),
            Err(error) => return Err(error),
        }
    }
    stopping
}

/// The bytes of a layer, as they are stored.
#[derive(Debug)]
pub(super) enum Source {
    Whole(File),
    Growing(Follower),
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Whole(file) => file.read(buffer),
            Self::Growing(follower) => follower.read(buffer),
        }
    }
}

impl Layer {
    /// The layers of an image, lowest first, from its descriptors beside their diff ids.
    pub(super) fn all(layers: &[(&Descriptor, &Digest)]) -> Vec<Self> {
        let diff_ids: Vec<Digest> = layers.iter().map(|(_, diff_id)| (*diff_id).clone()).collect();
        let chain = bosun_image::chain_ids(&diff_ids);
        let parents = std::iter::once(None).chain(chain.iter().cloned().map(Some));
        layers
            .iter()
            .zip(&chain)
            .zip(parents)
            .map(|(((blob, diff_id), chain_id), parent)| Self {
                blob: (*blob).clone(),
                diff_id: (*diff_id).clone(),
                chain_id: chain_id.clone(),
                parent,
            })
            .collect()
    }
}

impl Images {
    /// Brings the layers of an image and makes snapshots of them.
    ///
    /// # Errors
    /// The first that comes; it names the layer.
    pub(super) async fn unpack_layers(
        &self,
        job: &Job,
        layers: &[Layer],
        origin: &impl Origin,
    ) -> Result<()> {
        let (done, waiting): (Vec<_>, Vec<_>) =
            layers.iter().map(|_| watch::channel(false)).unzip();
        let below = std::iter::once(None).chain(waiting.into_iter().map(Some));
        let mut works: Vec<_> = layers
            .iter()
            .zip(done)
            .zip(below)
            .map(|((layer, done), below)| {
                let work = self.unpack_layer(job, layer, origin, done, below);
                (layer.blob.size, job.part(work).boxed())
            })
            .collect();
        // The longest work first, so that it does not come last and alone.
        works.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
        first_error(join_all(works.into_iter().map(|(_, work)| work)).await)
    }

    async fn unpack_layer(
        &self,
        job: &Job,
        layer: &Layer,
        origin: &impl Origin,
        done: watch::Sender<bool>,
        below: Option<watch::Receiver<bool>>,
    ) -> Result<()> {
        let (namespace, chain_id) = (job.namespace.as_str(), layer.chain_id.as_str());
        let _turn = self.chains.wait((job.namespace.clone(), chain_id.to_owned())).await;
        match self.snapshots.presence(namespace, chain_id, job.lease.clone()).await? {
            Presence::Whole => origin.bring(job, &layer.blob, None).await?,
            Presence::Torn(row) => {
                origin.bring(job, &layer.blob, None).await?;
                wait_for(below).await?;
                self.mend(namespace, &row).await?;
            }
            Presence::Missing => {
                match self.make_layer(job, layer, origin, below.clone()).await {
                    // It was here, and has been set aside: who can bring it again does.
                    Err(damaged @ Error::BlobDamaged { .. }) => {
                        match self.make_layer(job, layer, origin, below).await {
                            Err(Error::NoSuchBlob { .. } | Error::Stopping) => return Err(damaged),
                            other => other?,
                        }
                    }
                    other => other?,
                }
            }
        }
        job.board.done(&layer.blob);
        done.send_replace(true);
        Ok(())
    }

    async fn make_layer(
        &self,
        job: &Job,
        layer: &Layer,
        origin: &impl Origin,
        below: Option<watch::Receiver<bool>>,
    ) -> Result<()> {
        let namespace = job.namespace.as_str();
        let unpacking = self.snapshots.begin_layer(namespace).await?;
        let size = match self.fill_layer(job, layer, origin, &unpacking, below).await {
            Ok(size) => size,
            Err(error) => {
                // Its tree goes; should that fail, it is garbage that is collected later.
                if let Err(left) = self.snapshots.abandon_layer(unpacking).await {
                    tracing::warn!(%left, "half a layer stays until the next collection");
                }
                return Err(self.cause(error, &layer.blob.digest).await);
            }
        };
        let labels = BTreeMap::from([
            (LAYER_LABEL.to_owned(), layer.blob.digest.to_string()),
            (SIZE_LABEL.to_owned(), size.to_string()),
        ]);
        let marks = Marks { labels, lease: job.lease.clone() };
        let parent = layer.parent.as_ref().map(Digest::as_str);
        let name = layer.chain_id.as_str();
        self.snapshots.commit_layer(namespace, unpacking, name, parent, marks).await
    }

    /// Why a layer can't be unpacked: the bytes of its blob may not be what was stored.
    async fn cause(&self, error: Error, blob: &Digest) -> Error {
        if !matches!(error, Error::Layer { .. } | Error::DiffId { .. }) {
            return error;
        }
        match self.content.check(blob).await {
            Err(damaged @ Error::BlobDamaged { .. }) => damaged,
            Ok(()) | Err(_) => error,
        }
    }

    /// Writes a layer's tree while its blob comes, and settles what depends on the layers below. Answers what it
    /// takes, in bytes on disk.
    async fn fill_layer(
        &self,
        job: &Job,
        layer: &Layer,
        origin: &impl Origin,
        unpacking: &Unpacking,
        below: Option<watch::Receiver<bool>>,
    ) -> Result<u64> {
        let unpack = || Unpack {
            tree: unpacking.tree().to_owned(),
            limits: self.limits,
            digest: layer.blob.digest.clone(),
        };
        let (follow, followed) = oneshot::channel();
        let bring = async {
            origin.bring(job, &layer.blob, Some(follow)).await?;
            job.board.set(&layer.blob, Status::Unpacking, 0);
            Ok(())
        };
        let apply = async {
            // Without a source there is an error on the other side.
            let Ok(source) = followed.await else { return Ok(None) };
            // Bytes that are still to come are waited for by their own pull, not by all others.
            let _permit = match &source {
                Source::Growing(_) => None,
                Source::Whole(_) => {
                    Some(self.unpackers.acquire().await.map_err(|_| Error::Stopping)?)
                }
            };
            let unpack = unpack();
            let (pin, is_first) = (unpacking.pin(), layer.parent.is_none());
            let applied = off_the_loop(move || {
                let below = if is_first { Below::Nothing } else { Below::Pending };
                let applied = unpack.apply(source, below);
                drop(pin);
                applied
            });
            // What can't be unpacked need not come.
            job.part(applied).await.map(Some)
        };
        let (brought, applied) = join(bring, apply).await;
        let applied = match (brought, applied) {
            // It was stopped because it can't be unpacked.
            (Err(Error::Stopping) | Ok(()), Err(error)) | (Err(error), _) => return Err(error),
            (Ok(()), Ok(applied)) => applied.ok_or(Error::Stopping)?,
        };
        if applied.diff_id != layer.diff_id {
            return Err(Error::DiffId {
                digest: layer.blob.digest.to_string(),
                wanted: layer.diff_id.to_string(),
                got: applied.diff_id.to_string(),
            });
        }
        wait_for(below).await?;
        let trees = match &layer.parent {
            Some(parent) => self.snapshots.trees(&job.namespace, parent.as_str()).await?,
            None => Vec::new(),
        };
        let unpack = unpack();
        let again = self.content.open(&job.namespace, &layer.blob.digest).await?;
        let pin = unpacking.pin();
        off_the_loop(move || {
            let settled = unpack.settle(&applied, &trees, again);
            let size = trees::usage(&unpack.tree).map_err(Error::file("measure", &unpack.tree));
            drop(pin);
            settled.and(size).map(|usage| usage.size)
        })
        .await
    }

    /// The name of the snapshot of an image whose blobs are here; its layers are unpacked when they
    /// are not yet. Empty for an image without layers.
    ///
    /// # Errors
    /// A layer is missing, or can't be unpacked.
    pub(super) async fn unpacked(&self, namespace: &str, image: &Resolved) -> Result<String> {
        let digest = &image.manifest.config.digest;
        let pairs = image.config.check_layers(&image.manifest).map_err(bad(digest))?;
        let layers = Layer::all(&pairs);
        let Some(top) = layers.last() else { return Ok(String::new()) };
        let name = top.chain_id.to_string();
        if let Presence::Whole = self.snapshots.presence(namespace, &name, None).await? {
            return Ok(name);
        }
        let work = async |job: Job| {
            self.unpack_layers(&job, &layers, &AtHome(self)).await?;
            self.keep_unpacked(namespace, digest, &layers).await
        };
        self.with_lease(namespace, "unpack", &Board::default(), |job| work(job).boxed()).await?;
        Ok(name)
    }

    /// Unpacks layers anew that were not on the disk when the machine went down. One that can't be
    /// stays as it is, and what stands on it can't be started.
    ///
    /// # Errors
    /// The store's own.
    pub async fn mend_torn(&self) -> Result<()> {
        let mut torn = self.snapshots.torn().await?;
        while !torn.is_empty() {
            let numbers: Vec<i64> = torn.iter().map(|(_, row)| row.number).collect();
            // Those whose parents are whole come first.
            let (now, later): (Vec<_>, Vec<_>) = torn
                .into_iter()
                .partition(|(_, row)| row.parent.is_none_or(|parent| !numbers.contains(&parent)));
            torn = later;
            for (namespace, row) in now {
                match self.mend(&namespace, &row).await {
                    Ok(()) => tracing::info!(snapshot = row.key, "unpacked again after a crash"),
                    Err(error) => {
                        tracing::error!(snapshot = row.key, %error, "layer lost in a crash can't be unpacked again");
                    }
                }
            }
        }
        Ok(())
    }

    async fn mend(&self, namespace: &str, row: &crate::store::SnapshotRow) -> Result<()> {
        let missing = || Error::SnapshotTorn { key: row.key.clone() };
        let digest: Digest = row.labels.get(LAYER_LABEL).ok_or_else(missing)?.parse()?;
        let source = Source::Whole(self.content.open(namespace, &digest).await?);
        let trees = match row.parent {
            Some(parent) => self.snapshots.trees_of_number(parent).await?,
            None => Vec::new(),
        };
        let tree = self.snapshots.empty_layer(row).await?;
        let unpack = Unpack { tree, limits: self.limits, digest: digest.clone() };
        let name = row.key.clone();
        let parent = self.snapshots.name_of_parent(row).await?;
        let unpacked = off_the_loop(move || {
            let root = snapshots::merged_or_none(&trees)?;
            let below = root.as_ref().map_or(Below::Nothing, Below::Tree);
            let applied = unpack.apply(source, below)?;
            if chain(parent.as_deref(), &applied.diff_id) != name {
                return Err(Error::SnapshotTorn { key: name });
            }
            // The layers below are there, so that nothing is left to do but for what they look like.
            unpack
                .settled(bosun_layer::settle(
                    unpack.open()?.as_fd(),
                    &applied.deferred,
                    root.as_ref(),
                ))
                .map(drop)
        })
        .await;
        match unpacked {
            Ok(()) => self.snapshots.layer_mended(row).await,
            Err(error) => Err(self.cause(error, &digest).await),
        }
    }
}

/// Waits for the layer below; one that fails ends this work as well.
async fn wait_for(below: Option<watch::Receiver<bool>>) -> Result<()> {
    let Some(mut below) = below else { return Ok(()) };
    below.wait_for(|done| *done).await.map(drop).map_err(|_| Error::Stopping)
}

/// The chain id of a layer on top of another one, or on nothing.
fn chain(parent: Option<&str>, diff_id: &Digest) -> String {
    match parent {
        None => diff_id.to_string(),
        Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()).to_string(),
    }
}

/// The store as the place where blobs are: nothing has to be brought.
pub(super) struct AtHome<'a>(pub &'a Images);

impl Origin for AtHome<'_> {
    fn bring<'a>(
        &'a self,
        job: &'a Job,
        blob: &'a Descriptor,
        follow: Option<oneshot::Sender<Source>>,
    ) -> BoxFuture<'a, Result<()>> {
        let bring = async move {
            let file = self.0.content.open(&job.namespace, &blob.digest).await?;
            if let Some(follow) = follow {
                // Who does not want it any more has an error of its own.
                let _ = follow.send(Source::Whole(file));
            }
            Ok(())
        };
        bring.boxed()
    }
}

/// One layer's way into its tree, for a thread.
struct Unpack {
    tree: PathBuf,
    limits: Limits,
    /// Of its blob.
    digest: Digest,
}

impl Unpack {
    fn apply(&self, source: Source, below: Below<'_>) -> Result<Applied> {
        self.settled(bosun_layer::apply(source, self.open()?.as_fd(), below, &self.limits))
    }

    /// Does what could not be done without the layers below: most often nothing. A layer whose
    /// entries go where a link below leads is read once more.
    fn settle(&self, applied: &Applied, trees: &[PathBuf], again: File) -> Result<()> {
        if applied.deferred.is_empty() {
            return Ok(());
        }
        let root = snapshots::merged_or_none(trees)?;
        let tree = self.open()?;
        match self.settled(bosun_layer::settle(tree.as_fd(), &applied.deferred, root.as_ref()))? {
            Settled::Done => Ok(()),
            Settled::Again { entry } => {
                tracing::debug!(layer = %self.digest, entry, "depends on the layers below: again");
                self.settled(bosun_layer::empty(tree.as_fd()))?;
                let below = root.as_ref().map_or(Below::Nothing, Below::Tree);
                let applied = self.apply(Source::Whole(again), below)?;
                let settled = bosun_layer::settle(tree.as_fd(), &applied.deferred, root.as_ref());
                self.settled(settled).map(drop)
            }
        }
    }

    fn open(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&self.tree, flags, Mode::empty())
            .map_err(|errno| Error::file("open tree of layer", &self.tree)(errno.into()))
    }

    fn settled<T>(&self, outcome: bosun_layer::Result<T>) -> Result<T> {
        outcome.map_err(|source| match content::is_torn(&source) {
            // Why it broke off is the download's to say.
            true => Error::Stopping,
            false => Error::Layer { digest: self.digest.to_string(), source: Arc::new(source) },
        })
    }
}
