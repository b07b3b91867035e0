//! Pulling: from a reference to a name, with everything that it reaches here and verified.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bosun_image::{Config, Descriptor, Digest, Document, Kind, MAX_DEPTH, Manifest, Reference};
use bosun_registry::{Credentials, Repository};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use tokio::sync::{Semaphore, oneshot};

use super::layers::{Job, Layer, Origin, Source, first_error};
use super::progress::{Board, Status};
use super::tree::{Choice, bad, reference_labels};
use super::{Images, TRANSFERS};
use crate::content::{Expected, Writer};
use crate::error::{Error, Result};
use crate::gc::SNAPSHOT_REFERENCE;

/// Bytes that are gathered before they are written.
const GATHER: usize = 1 << 20;

/// How often a watcher is told of bytes that came.
const TOLD: Duration = Duration::from_millis(100);

/// What is to be pulled.
#[derive(Clone, Debug)]
pub struct Pull {
    pub reference: Reference,
    pub choice: Choice,
    /// Every platform of an index; only the chosen one is unpacked.
    pub all_platforms: bool,
    pub credentials: Option<Credentials>,
    /// Of the name.
    pub labels: BTreeMap<String, String>,
    pub unpack: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    pub name: String,
    /// The name stood for the same image before.
    pub up_to_date: bool,
}

/// One image of an index: its documents are here, its layers may not be.
#[derive(Debug)]
struct Part {
    manifest: Manifest,
    /// To be unpacked by.
    config: Option<Config>,
}

/// The registry as the place that blobs come from.
struct Download<'a> {
    images: &'a Images,
    repository: Repository,
    /// Where the registry has it: for pushes that can take it from there.
    source: (String, String),
    transfers: Semaphore,
}

impl Images {
    /// Resolves, downloads, verifies, unpacks and names an image.
    ///
    /// # Errors
    /// The registry's; what it has is no image, or not what its digest says; the disk is full.
    pub async fn pull(&self, namespace: &str, pull: Pull, board: &Board) -> Result<Pulled> {
        let name = pull.reference.name();
        let work = |job: Job| async move { self.pull_held(&job, pull).await };
        self.with_lease(namespace, &name, board, |job| work(job).boxed()).await
    }

    async fn pull_held(&self, job: &Job, pull: Pull) -> Result<Pulled> {
        let repository =
            self.registry.repository(&pull.reference, pull.credentials.clone()).await?;
        let resolved = repository.resolve().await?;
        let target = resolved.descriptor.clone();
        // As docker: who asks for a digest gets it, and no tag moves.
        let reference = match pull.reference.digest() {
            Some(digest) => pull.reference.at_digest(digest.clone()),
            None => pull.reference.clone(),
        };
        let name = reference.name();
        tracing::debug!(name, digest = %target.digest, "resolved");
        job.board.resolved(&name, &target);
        let domain = pull.reference.domain();
        let download = Download {
            images: self,
            repository,
            source: (
                format!("containerd.io/distribution.source.{domain}"),
                pull.reference.path().to_owned(),
            ),
            transfers: Semaphore::new(TRANSFERS),
        };
        let parts = download.documents(job, &pull, target.clone(), resolved.body).await?;
        let works = parts.iter().map(|part| job.part(self.bring_layers(job, part, &download)));
        first_error(join_all(works).await)?;
        let up_to_date =
            self.name(&job.namespace, &reference, &target, pull.labels, "pull").await?;
        Ok(Pulled { name, up_to_date })
    }

    async fn bring_layers(&self, job: &Job, part: &Part, download: &Download<'_>) -> Result<()> {
        let digest = &part.manifest.config.digest;
        let is_unknown = |blob: &&Descriptor| !matches!(blob.kind(), Kind::Layer(_));
        if let Some(blob) = part.manifest.layers.iter().find(is_unknown)
            && part.config.is_some()
        {
            let (digest, media_type) = (blob.digest.to_string(), blob.media_type.clone());
            return Err(Error::LayerType { digest, media_type });
        }
        let layers = match &part.config {
            Some(config) => Layer::all(&config.check_layers(&part.manifest).map_err(bad(digest))?),
            None => Vec::new(),
        };
        // What is no layer by its type is brought as it is: somebody may know what it is for.
        let is_other =
            |blob: &&Descriptor| !layers.iter().any(|layer| layer.blob.digest == blob.digest);
        let others = part.manifest.layers.iter().filter(is_other);
        let others: Vec<_> = others
            .map(|blob| {
                job.part(async move {
                    download.bring(job, blob, None).await?;
                    job.board.done(blob);
                    Ok(())
                })
            })
            .collect();
        let unpacked = async {
            self.unpack_layers(job, &layers, download).await?;
            self.keep_unpacked(&job.namespace, digest, &layers).await
        };
        let (mut outcomes, unpacked) = futures::future::join(join_all(others), unpacked).await;
        outcomes.push(unpacked);
        first_error(outcomes)
    }

    /// Lets the configuration of an image keep the snapshot of its layers.
    pub(super) async fn keep_unpacked(
        &self,
        namespace: &str,
        config: &Digest,
        layers: &[Layer],
    ) -> Result<()> {
        let Some(top) = layers.last() else { return Ok(()) };
        let key = SNAPSHOT_REFERENCE.to_owned();
        let labels = BTreeMap::from([(key, top.chain_id.to_string())]);
        self.content.label(namespace, config, labels).await
    }
}

impl Download<'_> {
    /// Brings the documents below a descriptor, and the configurations.
    async fn documents(
        &self,
        job: &Job,
        pull: &Pull,
        target: Descriptor,
        body: Bytes,
    ) -> Result<Vec<Part>> {
        let name = pull.reference.name();
        let mut parts = Vec::new();
        let mut seen = BTreeSet::new();
        let mut waiting = vec![(target, Some(body), 0, true)];
        while let Some((descriptor, body, depth, chosen)) = waiting.pop() {
            if depth > MAX_DEPTH {
                return Err(Error::NestedTooDeep { name });
            }
            if !seen.insert(descriptor.digest.clone()) {
                continue;
            }
            if seen.len() > bosun_image::MAX_MANIFESTS {
                let limit = bosun_image::MAX_MANIFESTS;
                return Err(Error::TooManyDocuments { name, limit });
            }
            let (document, exists) = self.document(job, &descriptor, body).await?;
            match document {
                Document::Index(index) => {
                    let best = match pull.choice.of(&name, &index) {
                        Ok(best) => Some(best.digest.clone()),
                        // Of an index below another one: its sister may have it.
                        Err(_) if pull.all_platforms => None,
                        Err(error) => return Err(error),
                    };
                    let wanted = index.manifests.iter().filter(|entry| {
                        best.as_ref() == Some(&entry.digest)
                            || (pull.all_platforms
                                && matches!(entry.kind(), Kind::Index | Kind::Manifest))
                    });
                    for entry in wanted {
                        let chosen = chosen && best.as_ref() == Some(&entry.digest);
                        waiting.push((entry.clone(), None, depth + 1, chosen));
                    }
                }
                Document::Manifest(manifest) => {
                    let mut config = self.config(job, &manifest, chosen).await?;
                    if let Some(config) = config.as_ref().filter(|_| depth == 0) {
                        check_platform(pull, &name, config)?;
                    }
                    config = config.filter(|_| chosen && pull.unpack);
                    parts.push(Part { manifest, config });
                }
            }
            let status = if exists { Status::Exists } else { Status::Done };
            job.board.set(&descriptor, status, descriptor.size);
        }
        Ok(parts)
    }

    /// A document, from the store or the registry; and whether it was in the store.
    async fn document(
        &self,
        job: &Job,
        descriptor: &Descriptor,
        body: Option<Bytes>,
    ) -> Result<(Document, bool)> {
        let content = &self.images.content;
        let (namespace, digest) = (job.namespace.as_str(), &descriptor.digest);
        let lease = job.lease.clone();
        let known = content.adopt(namespace, digest, BTreeMap::new(), lease.clone()).await?;
        let bytes = match (body, known) {
            (Some(body), _) => body,
            (None, Some(_)) => self.images.bytes(namespace, descriptor).await?.into(),
            (None, None) => self.repository.manifest(descriptor).await?,
        };
        let document =
            Document::parse(&bytes, Some(&descriptor.media_type)).map_err(bad(digest))?;
        let mut labels: BTreeMap<_, _> = reference_labels(&document).into_iter().collect();
        labels.extend([self.source.clone()]);
        let expected = Expected { size: None, digest: Some(digest.clone()), labels, lease };
        content.put(namespace, bytes, expected).await?;
        Ok((document, known.is_some()))
    }

    /// The configuration of an image. Of a part that is not to be unpacked it may be anything.
    async fn config(&self, job: &Job, manifest: &Manifest, chosen: bool) -> Result<Option<Config>> {
        let descriptor = &manifest.config;
        if descriptor.size > bosun_image::MAX_DOCUMENT as u64 {
            return Err(bad(&descriptor.digest)(bosun_image::Error::TooLarge {
                what: "configuration",
                size: usize::try_from(descriptor.size).unwrap_or(usize::MAX),
            }));
        }
        self.bring(job, descriptor, None).await?;
        let bytes = self.images.bytes(&job.namespace, descriptor).await?;
        job.board.done(descriptor);
        match Config::parse(&bytes) {
            Ok(config) => Ok(Some(config)),
            Err(error) if chosen => Err(bad(&descriptor.digest)(error)),
            Err(_) => Ok(None),
        }
    }

    /// Takes a blob that somebody has, or downloads it; one at a time for each.
    async fn bring_one(
        &self,
        job: &Job,
        blob: &Descriptor,
        follow: Option<oneshot::Sender<Source>>,
        arrived: &AtomicBool,
    ) -> Result<()> {
        let content = &self.images.content;
        job.board.set(blob, Status::Waiting, 0);
        let _turn = self.images.blobs.wait(blob.digest.clone()).await;
        let labels = BTreeMap::from([self.source.clone()]);
        let known = content.adopt(&job.namespace, &blob.digest, labels, job.lease.clone()).await?;
        if let Some(size) = known {
            if size != blob.size {
                let (wanted, got) = (blob.size.to_string(), size.to_string());
                let reference = blob.digest.to_string();
                let wrong = Error::IngestMismatch { reference, what: "size", wanted, got };
                return Err(self.named(blob, wrong));
            }
            job.board.set(blob, Status::Exists, size);
            if let Some(follow) = follow {
                let file = content.open(&job.namespace, &blob.digest).await?;
                let _ = follow.send(Source::Whole(file));
            }
            return Ok(());
        }
        let permit = self.transfers.acquire().await.map_err(|_| Error::Stopping)?;
        let outcome = self.download(job, blob, follow, arrived).await;
        drop(permit);
        outcome?;
        job.board.set(blob, Status::Downloaded, blob.size);
        Ok(())
    }

    /// Downloads into an ingest, from where an earlier attempt left it.
    async fn download(
        &self,
        job: &Job,
        blob: &Descriptor,
        follow: Option<oneshot::Sender<Source>>,
        arrived: &AtomicBool,
    ) -> Result<()> {
        let content = &self.images.content;
        let expected = Expected {
            size: Some(blob.size),
            digest: Some(blob.digest.clone()),
            labels: BTreeMap::from([self.source.clone()]),
            lease: job.lease.clone(),
        };
        let reference = format!("{}-{}", word(blob.kind()), blob.digest);
        let mut writer = content.writer(&job.namespace, &reference, expected, None).await?;
        if let Some(follow) = follow {
            // Who does not want to follow any more has an error of its own.
            let _ = follow.send(Source::Growing(writer.follow()?));
        }
        shim_failpoints::step!("daemon.pull.before_download", error);
        let received = self.receive(job, blob, writer, arrived).await;
        writer = received.map_err(|error| self.named(blob, error))?;
        shim_failpoints::step!("daemon.pull.before_blob", error);
        content.commit(writer).await.map_err(|error| self.named(blob, error))?;
        shim_failpoints::step!("daemon.pull.after_blob");
        Ok(())
    }

    /// An error of the store, in the words of who pulls.
    fn named(&self, blob: &Descriptor, error: Error) -> Error {
        if let Error::IngestMismatch { what, wanted, got, .. } = error {
            let name = self.repository.reference().familiar();
            let blob = format!("{} {} of {name}", word(blob.kind()), blob.digest);
            return Error::WrongContent { blob, what, wanted, got };
        }
        error
    }

    /// Writes what comes. `arrived` is set before the last of it can be read along.
    async fn receive(
        &self,
        job: &Job,
        blob: &Descriptor,
        mut writer: Writer,
        arrived: &AtomicBool,
    ) -> Result<Writer> {
        job.board.set(blob, Status::Downloading, writer.received());
        if writer.received() >= blob.size {
            return Ok(writer);
        }
        let content = &self.images.content;
        let board = job.board.clone();
        let (told, offset) = (blob.clone(), writer.received());
        let repository = self.repository.clone().on_retry(move |retry| {
            board.set(&told, Status::Retrying(retry.reason.to_string()), offset);
        });
        let mut bytes = repository.blob(blob, offset).await?;
        let mut told = tokio::time::Instant::now();
        loop {
            let mut gathered = Vec::new();
            let mut length = 0;
            while length < GATHER {
                let Some(part) = bytes.next().await else { break };
                let part = match part {
                    Ok(part) => part,
                    Err(error) => {
                        // What came stays, to go on from there.
                        content.write(writer, gathered).await?;
                        return Err(error.into());
                    }
                };
                length += part.len();
                gathered.push(part);
            }
            if gathered.is_empty() {
                return Ok(writer);
            }
            if writer.received() + length as u64 >= blob.size {
                arrived.store(true, Ordering::Relaxed);
            }
            writer = content.write(writer, gathered).await?;
            shim_failpoints::step!("daemon.pull.after_write");
            if told.elapsed() >= TOLD {
                told = tokio::time::Instant::now();
                job.board.set(blob, Status::Downloading, writer.received());
            }
        }
    }
}

impl Origin for Download<'_> {
    fn bring<'a>(
        &'a self,
        job: &'a Job,
        blob: &'a Descriptor,
        follow: Option<oneshot::Sender<Source>>,
    ) -> BoxFuture<'a, Result<()>> {
        let bring = async move {
            let arrived = AtomicBool::new(false);
            let mut brought = std::pin::pin!(self.bring_one(job, blob, follow, &arrived));
            tokio::select! {
                biased;
                () = job.stopped() => {}
                outcome = &mut brought => return outcome,
            }
            // What could not be unpacked may be other bytes than were asked for. When all of them are here,
            // that is about to be known, and it is the cause.
            if arrived.load(Ordering::Relaxed) { brought.await } else { Err(Error::Stopping) }
        };
        bring.boxed()
    }
}

/// A reference that stands for one manifest leaves no choice; what was asked for must be it.
fn check_platform(pull: &Pull, name: &str, config: &Config) -> Result<()> {
    let there = config.platform();
    if !pull.choice.asked || pull.choice.platform.matches(&there) {
        return Ok(());
    }
    Err(Error::NoPlatform {
        name: name.to_owned(),
        platform: pull.choice.platform.to_string(),
        there: vec![there.to_string()],
    })
}

/// How ingests are named, as containerd's clients do.
fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Index => "index",
        Kind::Manifest => "manifest",
        Kind::Config => "config",
        Kind::Layer(_) => "layer",
        Kind::Other => "unknown",
    }
}
