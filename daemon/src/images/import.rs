//! Importing archives: OCI layouts and docker's, in any order and compressed or not, and the tar of
//! a root file system.
//!
//! An archive is read once, as it comes. Files that are blobs go straight to the store; documents
//! that say what they are (`index.json`, `manifest.json`) may come at any place, so they are kept in
//! memory until the end, and are bounded. Only then is anything named.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, Read};

use bosun_image::{
    Config, Descriptor, Digest, Document, Draft, History, Index, Manifest, Platform, Reference,
    media_type,
};
use bosun_layer::compress::Decoder;
use bosun_layer::tar::{Chunk, Entry, Kind as FileKind, Reader as Tar};
use bytes::Bytes;
use futures::FutureExt;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use super::layers::{Job, blocking};
use super::progress::Board;
use super::tree::{Choice, bad, reference_labels};
use super::{Images, changes};
use crate::container::random_id;
use crate::content::{Expected, Writer};
use crate::error::{Error, Result};
use crate::pipe;
use crate::time::Time;

/// Documents of one archive that are kept in memory, in bytes.
const DOCUMENTS: usize = 4 * bosun_image::MAX_DOCUMENT;

/// Bytes that are looked at to tell what an archive is.
const PEEK: usize = 512 << 10;

/// Uncompressed bytes of those, at most.
const LOOKED_AT: u64 = 16 << 20;

/// Bytes that are read at a time.
const BUFFER: usize = 256 << 10;

/// The most files of one archive of images: names are kept in memory.
const MOST_FILES: u32 = 20_000;

/// The most images of one archive.
const MOST_IMAGES: usize = 1000;

/// A full name, written by containerd, docker and buildkit.
const NAME: &str = "io.containerd.image.name";
/// OCI image specification, annotations: most often a tag, sometimes a name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What an archive is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportKind {
    /// By what is in it.
    Auto,
    Images,
    Rootfs,
}

/// What is to be imported.
#[derive(Clone, Debug)]
pub struct Import {
    pub kind: ImportKind,
    /// For a root file system, and for an archive with one image without a name.
    pub reference: Option<Reference>,
    pub choice: Choice,
    /// Dockerfile instructions, for a root file system.
    pub changes: Vec<String>,
    pub message: String,
    pub unpack: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub names: Vec<String>,
    pub warnings: Vec<String>,
}

/// An image whose documents are in the store.
struct Named {
    name: Option<Reference>,
    target: Descriptor,
}

impl Images {
    /// Imports what comes through the pipe.
    ///
    /// # Errors
    /// It is no archive of that kind; something it names is not in it; its content is not what its
    /// digests say; the disk is full. Nothing of it stays then.
    pub async fn import(
        &self,
        namespace: &str,
        import: Import,
        bytes: pipe::Reader,
    ) -> Result<Imported> {
        let board = Board::default();
        let work = |job: Job| async move {
            let source = Peeked::of(bytes).await?;
            let is_of_images = match import.kind {
                ImportKind::Auto => source.is_image_archive(),
                ImportKind::Images => true,
                ImportKind::Rootfs => false,
            };
            match is_of_images {
                true => self.import_images(&job, &import, source).await,
                false => self.import_rootfs(&job, &import, source).await,
            }
        };
        self.with_lease(namespace, &board, |job| work(job).boxed()).await
    }

    async fn import_images(&self, job: &Job, import: &Import, source: Peeked) -> Result<Imported> {
        let files = Files::read(self, job, source).await?;
        let images = match (&files.index, &files.manifest) {
            (Some(index), _) => named_by_index(index)?,
            (None, Some(manifest)) => self.of_docker(job, &files, manifest).await?,
            (None, None) => {
                return Err(Error::BadArchive {
                    problem: "neither index.json nor manifest.json is in it: for the tar of a root file system use `ctl import`"
                        .to_owned(),
                });
            }
        };
        let alone = images.len() == 1;
        let mut imported = Imported::default();
        let mut named = Vec::with_capacity(images.len());
        for image in images {
            let name = match (image.name, &import.reference) {
                (_, Some(asked)) if alone => asked.clone(),
                (Some(name), _) => name,
                (None, _) => unnamed(&image.target.digest)?,
            };
            let warnings = self.check_imported(job, import, &name, &image.target).await?;
            imported.warnings.extend(warnings);
            named.push((name, image.target));
        }
        // All of them are whole: only then is the first one named.
        for (name, target) in named {
            self.name(&job.namespace, &name, &target, BTreeMap::new(), "load").await?;
            imported.names.push(name.name());
        }
        Ok(imported)
    }

    /// Links the documents of an image to their parts, and unpacks the one for this machine.
    async fn check_imported(
        &self,
        job: &Job,
        import: &Import,
        name: &Reference,
        target: &Descriptor,
    ) -> Result<Vec<String>> {
        let namespace = job.namespace.as_str();
        self.content.stat(namespace, &target.digest).await.map_err(|_| missing(target))?;
        for blob in self.reach(namespace, target).await? {
            if matches!(blob.kind(), bosun_image::Kind::Index | bosun_image::Kind::Manifest) {
                let document = self.document(namespace, &blob).await?;
                let labels = reference_labels(&document).into_iter().collect();
                self.content.label(namespace, &blob.digest, labels).await?;
            }
        }
        let image = match self.resolve(namespace, &name.name(), target, &import.choice).await {
            Ok(image) => image,
            Err(Error::NoPlatform { platform, there, .. }) if !import.choice.asked => {
                let there = there.join(", ");
                return Ok(vec![format!("image {name} is not for {platform}, only for {there}")]);
            }
            Err(Error::NoSuchBlob { digest }) => {
                let problem = format!("image {name} needs {digest}, which is not in it");
                return Err(Error::BadArchive { problem });
            }
            Err(error) => return Err(error),
        };
        for layer in &image.manifest.layers {
            let known = self.content.stat(namespace, &layer.digest).await;
            let known = known.map_err(|_| missing(layer))?;
            if known.size != layer.size {
                let digest = layer.digest.to_string();
                let (wanted, got) = (layer.size.to_string(), known.size.to_string());
                return Err(Error::IngestMismatch { reference: digest, what: "size", wanted, got });
            }
        }
        if import.unpack {
            self.unpacked(namespace, &image).await?;
        }
        Ok(Vec::new())
    }

    /// The images of a docker archive, given manifests.
    async fn of_docker(&self, job: &Job, files: &Files, json: &[u8]) -> Result<Vec<Named>> {
        let entries: Vec<DockerImage> = serde_json::from_slice(json).map_err(|source| {
            Error::BadArchive { problem: format!("manifest.json can't be read: {source}") }
        })?;
        if entries.len() > MOST_IMAGES {
            let problem = format!("manifest.json has more than {MOST_IMAGES} images");
            return Err(Error::BadArchive { problem });
        }
        let mut images = Vec::new();
        for entry in entries {
            let config = self.docker_config(job, files, &entry.config).await?;
            let mut layers = Vec::with_capacity(entry.layers.len());
            for layer in &entry.layers {
                layers.push(self.docker_layer(job, files.blob(layer)?).await?);
            }
            let manifest = Manifest {
                media_type: media_type::OCI_MANIFEST.to_owned(),
                config,
                layers,
                annotations: BTreeMap::new(),
            };
            let target = self.put_manifest(job, &manifest).await?;
            let tags = entry.repo_tags.unwrap_or_default();
            if tags.is_empty() {
                images.push(Named { name: None, target: target.clone() });
            }
            for tag in tags {
                let name = tag.parse().map_err(|source| Error::BadArchive {
                    problem: format!("manifest.json: {source}"),
                })?;
                images.push(Named { name: Some(name), target: target.clone() });
            }
        }
        Ok(images)
    }

    /// The configuration of a docker archive's image: a document beside the others, or a blob.
    async fn docker_config(&self, job: &Job, files: &Files, path: &str) -> Result<Descriptor> {
        let path = clean(path.as_bytes());
        let bytes = match files.documents.get(&path) {
            Some(bytes) => bytes.clone(),
            None => {
                let blob = files.blob(&path)?;
                let most = bosun_image::MAX_DOCUMENT as u64;
                self.content.read(&job.namespace, &blob.0, most).await?.into()
            }
        };
        let descriptor = Descriptor::of(media_type::OCI_CONFIG, &bytes);
        Config::parse(&bytes).map_err(bad(&descriptor.digest))?;
        let expected = Expected { lease: job.lease.clone(), ..Expected::default() };
        self.content.put(&job.namespace, bytes, expected).await?;
        Ok(descriptor)
    }

    async fn docker_layer(&self, job: &Job, (digest, size): (Digest, u64)) -> Result<Descriptor> {
        let mut file = self.content.open(&job.namespace, &digest).await?;
        let media_type = blocking(move || layer_type(&mut file)).await?;
        Ok(Descriptor::new(media_type, digest, size))
    }

    pub(super) async fn put_manifest(&self, job: &Job, manifest: &Manifest) -> Result<Descriptor> {
        let bytes = manifest.to_bytes();
        let target = Descriptor::of(&manifest.media_type, &bytes);
        let labels = reference_labels(&Document::Manifest(manifest.clone())).into_iter().collect();
        let expected = Expected { labels, lease: job.lease.clone(), ..Expected::default() };
        self.content.put(&job.namespace, bytes.into(), expected).await?;
        Ok(target)
    }

    /// An image of one layer: the archive itself.
    async fn import_rootfs(&self, job: &Job, import: &Import, source: Peeked) -> Result<Imported> {
        let store = Store::new(self, job);
        let (digest, size) = blocking(move || store.take(source, "the archive", None)).await?;
        let mut file = self.content.open(&job.namespace, &digest).await?;
        let limits = self.limits;
        let (diff_id, media_type) = blocking(move || {
            let media_type = layer_type(&mut file)?;
            Ok((diff_id(file, &limits)?, media_type))
        })
        .await?;
        let platform = match import.choice.asked {
            true => import.choice.platform.clone(),
            false => Platform::host(),
        };
        let mut draft = Draft::new(&platform);
        let mut execution = bosun_image::Execution::default();
        changes::apply(&mut execution, &import.changes)?;
        let created = Time::now().rfc3339();
        draft.set_created(&created);
        let written = |draft: &mut Draft| -> std::result::Result<(), bosun_image::Error> {
            draft.set_execution(&execution)?;
            let comment = match import.message.as_str() {
                "" => "imported by bosun".to_owned(),
                message => message.to_owned(),
            };
            let history =
                History { created: Some(created), comment: Some(comment), ..History::default() };
            draft.push(Some(diff_id), &history)
        };
        written(&mut draft).map_err(bad(&digest))?;
        let (config, _) = draft.finish().map_err(bad(&digest))?;
        let layer = Descriptor::new(media_type, digest, size);
        let target = self.put_image(job, config, vec![layer]).await?;
        let name = match &import.reference {
            Some(name) => name.clone(),
            None => unnamed(&target.digest)?,
        };
        self.check_imported(job, import, &name, &target).await?;
        self.name(&job.namespace, &name, &target, BTreeMap::new(), "import").await?;
        Ok(Imported { names: vec![name.name()], warnings: Vec::new() })
    }

    /// Stores a configuration and a manifest of it.
    pub(super) async fn put_image(
        &self,
        job: &Job,
        config: Vec<u8>,
        layers: Vec<Descriptor>,
    ) -> Result<Descriptor> {
        let descriptor = Descriptor::of(media_type::OCI_CONFIG, &config);
        let expected = Expected { lease: job.lease.clone(), ..Expected::default() };
        self.content.put(&job.namespace, config.into(), expected).await?;
        let manifest = Manifest {
            media_type: media_type::OCI_MANIFEST.to_owned(),
            config: descriptor,
            layers,
            annotations: BTreeMap::new(),
        };
        self.put_manifest(job, &manifest).await
    }
}

/// What the name of something without a name begins with.
pub(super) const UNNAMED: &str = "localhost/unnamed@";

/// A name for what has none: it says nothing but the digest.
pub(super) fn unnamed(digest: &Digest) -> Result<Reference> {
    Ok(format!("{UNNAMED}{digest}").parse()?)
}

fn missing(blob: &Descriptor) -> Error {
    Error::BadArchive { problem: format!("{} is named, but not in it", blob.digest) }
}

/// One image of docker's `manifest.json` (docker image specification 1.2).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The images of an OCI layout.
fn named_by_index(json: &[u8]) -> Result<Vec<Named>> {
    let wrong = |source| Error::BadArchive { problem: format!("index.json: {source}") };
    let index: Index = match Document::parse(json, None).map_err(wrong)? {
        Document::Index(index) => index,
        Document::Manifest(_) => {
            return Err(Error::BadArchive { problem: "index.json is a manifest".to_owned() });
        }
    };
    if index.manifests.len() > MOST_IMAGES {
        let problem = format!("index.json has more than {MOST_IMAGES} images");
        return Err(Error::BadArchive { problem });
    }
    let named = index.manifests.into_iter().map(|target| {
        let annotation = [NAME, REF_NAME].iter().find_map(|key| target.annotations.get(*key));
        let name = match annotation {
            None => None,
            Some(text) => Some(text.parse().map_err(wrong)?),
        };
        Ok(Named { name, target })
    });
    named.collect()
}

/// The files of an archive: documents by path, and blobs by path.
#[derive(Debug, Default)]
struct Files {
    index: Option<Bytes>,
    manifest: Option<Bytes>,
    documents: HashMap<String, Bytes>,
    blobs: HashMap<String, (Digest, u64)>,
    /// Links, as docker writes them for layers that are there twice.
    links: HashMap<String, String>,
    entries: u32,
}

impl Files {
    async fn read(images: &Images, job: &Job, source: Peeked) -> Result<Self> {
        let store = Store::new(images, job);
        let limits = images.limits;
        blocking(move || {
            let source = buffered(source, limits.size)?;
            let mut tar = Tar::new(source, limits.entries);
            let mut files = Self::default();
            let mut kept = 0;
            while let Some(entry) = tar.next().map_err(archive)? {
                files.take(&store, &mut tar, &entry, &mut kept)?;
            }
            Ok(files)
        })
        .await
    }

    fn take<R: BufRead>(
        &mut self,
        store: &Store,
        tar: &mut Tar<R>,
        entry: &Entry,
        kept: &mut usize,
    ) -> Result<()> {
        let path = clean(&entry.path);
        self.entries += 1;
        if self.entries > MOST_FILES {
            let problem = format!("it has more than {MOST_FILES} files: no archive of images has");
            return Err(Error::BadArchive { problem });
        }
        let size = match &entry.kind {
            FileKind::File { size } => *size,
            FileKind::Symlink { target } | FileKind::HardLink { target } => {
                self.links.insert(path, String::from_utf8_lossy(target).into_owned());
                return Ok(());
            }
            FileKind::Directory
            | FileKind::Character { .. }
            | FileKind::Block { .. }
            | FileKind::Fifo => return Ok(()),
        };
        if let Some(hex) = path.strip_prefix("blobs/sha256/") {
            let digest: Digest = format!("{}{hex}", Digest::PREFIX).parse()?;
            let blob = store.take(Body::of(tar), &path, Some((digest, size)))?;
            self.blobs.insert(path, blob);
            return Ok(());
        }
        // What docker of old wrote beside each layer: what is in them is in manifest.json as well.
        if path.ends_with("/VERSION") || path.ends_with("/json") {
            return Ok(());
        }
        if !path.ends_with(".json") && !matches!(path.as_str(), "oci-layout" | "repositories") {
            // A layer, or a file of old that says nothing.
            let blob = store.take(Body::of(tar), &path, None)?;
            self.blobs.insert(path, blob);
            return Ok(());
        }
        *kept = kept.saturating_add(usize::try_from(size).unwrap_or(usize::MAX));
        if size > bosun_image::MAX_DOCUMENT as u64 || *kept > DOCUMENTS {
            return Err(Error::BadArchive {
                problem: format!(
                    "{path} has {size} bytes: at most {} are read of one document, {DOCUMENTS} of all",
                    bosun_image::MAX_DOCUMENT
                ),
            });
        }
        let mut bytes = Vec::new();
        Body::of(tar).read_to_end(&mut bytes).map_err(reading)?;
        let bytes = Bytes::from(bytes);
        match path.as_str() {
            "index.json" => self.index = Some(bytes),
            "manifest.json" => self.manifest = Some(bytes),
            _ => {
                self.documents.insert(path, bytes);
            }
        }
        Ok(())
    }

    /// The blob at a path, through a link if need be.
    fn blob(&self, path: &str) -> Result<(Digest, u64)> {
        let mut path = clean(path.as_bytes());
        for _ in 0..8 {
            if let Some(blob) = self.blobs.get(&path) {
                return Ok(blob.clone());
            }
            let Some(target) = self.links.get(&path) else { break };
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            path = match self.blobs.contains_key(target.as_str()) {
                // A hard link names its target from the root of the archive.
                true => target.clone(),
                false => clean(format!("{directory}/{target}").as_bytes()),
            };
        }
        Err(Error::BadArchive { problem: format!("{path:?} is named, but not in it") })
    }
}

/// A path of an archive, from its root, without `.` and `..`.
fn clean(path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The store, for a thread that reads an archive.
struct Store {
    images: Images,
    job: Job,
    runtime: Handle,
}

impl Store {
    fn new(images: &Images, job: &Job) -> Self {
        Self { images: images.clone(), job: job.clone(), runtime: Handle::current() }
    }

    /// Makes a blob of all that comes.
    fn take(
        &self,
        mut source: impl Read,
        what: &str,
        known: Option<(Digest, u64)>,
    ) -> Result<(Digest, u64)> {
        let content = &self.images.content;
        let expected = Expected {
            size: known.as_ref().map(|(_, size)| *size),
            digest: known.map(|(digest, _)| digest),
            labels: BTreeMap::new(),
            lease: self.job.lease.clone(),
        };
        let reference = format!("import-{}-{what}", &random_id()[..16]);
        let reference: String = reference.chars().filter(|c| !c.is_control()).take(200).collect();
        let opened = content.writer(&self.job.namespace, &reference, expected, Some(0));
        let writer = self.runtime.block_on(opened)?;
        match self.fill(writer, &mut source) {
            Ok(done) => Ok(done),
            Err(error) => {
                // Nobody could resume it.
                let dropped = content.abort(&self.job.namespace, &reference);
                if let Err(left) = self.runtime.block_on(dropped)
                    && !matches!(left, Error::NoSuchIngest { .. })
                {
                    tracing::warn!(%left, "part of an import stays until it is collected");
                }
                Err(error)
            }
        }
    }

    fn fill(&self, mut writer: Writer, source: &mut impl Read) -> Result<(Digest, u64)> {
        let content = &self.images.content;
        loop {
            let mut part = vec![0; 1 << 20];
            let count = read_full(source, &mut part).map_err(reading)?;
            if count == 0 {
                return self.runtime.block_on(content.commit(writer));
            }
            part.truncate(count);
            writer = self.runtime.block_on(content.write(writer, vec![part.into()]))?;
        }
    }
}

fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// The bytes of an archive's present file.
struct Body<'a, R> {
    tar: &'a mut Tar<R>,
    /// What was lent and is not taken yet.
    rest: Vec<u8>,
    taken: usize,
    zeros: u64,
}

impl<'a, R: BufRead> Body<'a, R> {
    fn of(tar: &'a mut Tar<R>) -> Self {
        Self { tar, rest: Vec::new(), taken: 0, zeros: 0 }
    }
}

impl<R: BufRead> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.rest.len() && self.zeros == 0 {
            self.rest.clear();
            self.taken = 0;
            match self.tar.chunk().map_err(io::Error::other)? {
                None => return Ok(0),
                Some(Chunk::Data(bytes)) => self.rest.extend_from_slice(bytes),
                Some(Chunk::Hole(length)) => self.zeros = length,
            }
        }
        if self.zeros > 0 {
            let count = buffer.len().min(usize::try_from(self.zeros).unwrap_or(usize::MAX));
            buffer[..count].fill(0);
            self.zeros -= count as u64;
            return Ok(count);
        }
        let count = buffer.len().min(self.rest.len() - self.taken);
        buffer[..count].copy_from_slice(&self.rest[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

/// An archive's uncompressed bytes, and not more than `most` of them.
fn buffered<R: Read>(
    source: R,
    most: u64,
) -> Result<io::BufReader<io::Take<Decoder<io::BufReader<R>>>>> {
    let decoder = Decoder::new(io::BufReader::with_capacity(BUFFER, source)).map_err(archive)?;
    Ok(io::BufReader::with_capacity(BUFFER, decoder.take(most)))
}

/// The type of a layer, by its first bytes.
fn layer_type(file: &mut std::fs::File) -> Result<&'static str> {
    use std::io::Seek;
    let mut first = [0; 8];
    let count = read_full(file, &mut first).map_err(reading)?;
    file.rewind().map_err(reading)?;
    Ok(match bosun_layer::compress::detect(&first[..count]) {
        bosun_image::Compression::None => media_type::OCI_LAYER,
        bosun_image::Compression::Gzip => media_type::OCI_LAYER_GZIP,
        bosun_image::Compression::Zstd => media_type::OCI_LAYER_ZSTD,
    })
}

/// The digest of a layer's uncompressed bytes, every one of which is read as a tar's.
fn diff_id(file: std::fs::File, limits: &bosun_layer::Limits) -> Result<Digest> {
    let decoder = Decoder::new(io::BufReader::with_capacity(BUFFER, file)).map_err(archive)?;
    let hashing = Hashing { source: decoder.take(limits.size), hash: Sha256::new() };
    let mut tar = Tar::new(io::BufReader::with_capacity(BUFFER, hashing), limits.entries);
    let mut entries = 0u64;
    while tar.next().map_err(archive)?.is_some() {
        entries += 1;
    }
    if entries == 0 {
        return Err(Error::BadArchive { problem: "it is empty".to_owned() });
    }
    let mut rest = tar.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(reading)?;
    Ok(Digest::finish(rest.into_inner().hash))
}

struct Hashing<R> {
    source: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

fn archive(source: bosun_layer::Error) -> Error {
    Error::Archive { source: std::sync::Arc::new(source) }
}

fn reading(source: io::Error) -> Error {
    Error::BadArchive { problem: format!("its bytes can't be read: {source}") }
}

/// An archive whose beginning was looked at.
#[derive(Debug)]
struct Peeked {
    head: io::Cursor<Vec<u8>>,
    rest: pipe::Reader,
}

impl Peeked {
    async fn of(mut bytes: pipe::Reader) -> Result<Self> {
        blocking(move || {
            let mut head = vec![0; PEEK];
            let count = read_full(&mut bytes, &mut head).map_err(reading)?;
            head.truncate(count);
            Ok(Self { head: io::Cursor::new(head), rest: bytes })
        })
        .await
    }

    /// Whether its first file is one that only archives of images have. What can't be told is a root
    /// file system, whose reader says what is wrong with it.
    fn is_image_archive(&self) -> bool {
        let Ok(source) = buffered(self.head.get_ref().as_slice(), LOOKED_AT) else { return false };
        let mut tar = Tar::new(source, 64);
        while let Ok(Some(entry)) = tar.next() {
            let path = clean(&entry.path);
            if !path.is_empty() {
                return is_of_images(&path);
            }
        }
        false
    }
}

impl Read for Peeked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.head.read(buffer)? {
            0 => self.rest.read(buffer),
            count => Ok(count),
        }
    }
}

/// Names that OCI layouts and docker archives have at their top.
fn is_of_images(path: &str) -> bool {
    let (top, _) = path.split_once('/').unwrap_or((path, ""));
    let is_id = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    matches!(top, "blobs" | "oci-layout" | "index.json" | "manifest.json" | "repositories")
        || is_id(top)
        || top.strip_suffix(".json").is_some_and(is_id)
        || top.strip_suffix(".tar").is_some_and(is_id)
        || top.strip_suffix(".tar.gz").is_some_and(is_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_known_by_any_of_its_names() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            "blobs/sha256",
            "oci-layout",
            "manifest.json",
            &id,
            &format!("{id}/layer.tar"),
            &format!("{id}.json"),
        ] {
            assert!(is_of_images(path), "{path}");
        }
        for path in ["bin", "etc/manifest.json", "index.html", &id[1..]] {
            assert!(!is_of_images(path), "{path}");
        }
    }

    #[test]
    fn paths_of_an_archive_stay_in_it() {
        for (path, cleaned) in [("./a//b", "a/b"), ("a/../../b", "b"), ("/x", "x"), ("", "")] {
            assert_eq!(clean(path.as_bytes()), cleaned);
        }
    }

    #[test]
    fn a_layer_that_is_a_link_is_found() {
        let mut files = Files::default();
        files.blobs.insert("one/layer.tar".to_owned(), (Digest::of(b"1"), 1));
        files.links.insert("two/layer.tar".to_owned(), "../one/layer.tar".to_owned());
        files.links.insert("three/layer.tar".to_owned(), "one/layer.tar".to_owned());
        files.links.insert("ring".to_owned(), "ring".to_owned());
        for path in ["one/layer.tar", "./two/layer.tar", "three/layer.tar"] {
            assert_eq!(files.blob(path).unwrap().1, 1, "{path}");
        }
        assert!(files.blob("ring").is_err() && files.blob("none").is_err());
    }
}
