//! Importing archives: OCI layouts and docker's, in any order and compressed or not, and the tar of
//! a root file system.
//!
//! An archive is read once, as it comes (`archive`); only when all of it is in the store, and every
//! image in it is whole, is anything named.

use std::collections::BTreeMap;

use bosun_image::{
    Config, Descriptor, Digest, Document, Draft, History, Index, Manifest, Platform, Reference,
    media_type,
};
use futures::FutureExt;
use serde::Deserialize;

use super::archive::{Files, Peeked, Store, clean, diff_id, layer_type};
use super::layers::Job;
use super::progress::Board;
use super::tree::{Choice, bad, reference_labels};
use super::{Images, changes};
use crate::blocking::off_the_loop;
use crate::content::Expected;
use crate::error::{Error, Result};
use crate::pipe;
use crate::time::Time;

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
            shim_failpoints::step!("daemon.load.before_archive", error);
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
        self.with_lease(namespace, "import", &board, |job| work(job).boxed()).await
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
        shim_failpoints::step!("daemon.load.after_archive", error);
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
            imported.names.push(name.name());
            named.push((name, image.target));
        }
        shim_failpoints::step!("daemon.load.before_names", error);
        // All of them are whole: only then is one named, and all are at once.
        self.name_all(&job.namespace, named, BTreeMap::new(), "load").await?;
        shim_failpoints::step!("daemon.load.after_names");
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
        shim_failpoints::step!("daemon.load.after_labels", error);
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
        let counted = image.config.check_layers(&image.manifest);
        counted
            .map_err(|source| Error::BadArchive { problem: format!("image {name}: {source}") })?;
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
            shim_failpoints::step!("daemon.load.before_unpack", error);
            self.unpacked(namespace, &image).await?;
            shim_failpoints::step!("daemon.load.after_unpack", error);
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
            let (config, known) = self.docker_config(job, files, &entry.config).await?;
            let mut layers = Vec::with_capacity(entry.layers.len());
            for (index, path) in entry.layers.iter().enumerate() {
                let layer = self.docker_layer(job, files.blob(path)?).await?;
                refuse_the_layer_of_another(path, &layer, known.diff_ids.get(index))?;
                layers.push(layer);
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
    async fn docker_config(
        &self,
        job: &Job,
        files: &Files,
        path: &str,
    ) -> Result<(Descriptor, Config)> {
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
        refuse_the_id_of_another(&path, &descriptor.digest)?;
        let config = Config::parse(&bytes).map_err(bad(&descriptor.digest))?;
        let expected = Expected { lease: job.lease.clone(), ..Expected::default() };
        self.content.put(&job.namespace, bytes, expected).await?;
        shim_failpoints::step!("daemon.load.after_config", error);
        Ok((descriptor, config))
    }

    async fn docker_layer(&self, job: &Job, (digest, size): (Digest, u64)) -> Result<Descriptor> {
        let mut file = self.content.open(&job.namespace, &digest).await?;
        let media_type = off_the_loop(move || layer_type(&mut file)).await?;
        Ok(Descriptor::new(media_type, digest, size))
    }

    pub(super) async fn put_manifest(&self, job: &Job, manifest: &Manifest) -> Result<Descriptor> {
        let bytes = manifest.to_bytes();
        let target = Descriptor::of(&manifest.media_type, &bytes);
        let labels = reference_labels(&Document::Manifest(manifest.clone())).into_iter().collect();
        let expected = Expected { labels, lease: job.lease.clone(), ..Expected::default() };
        self.content.put(&job.namespace, bytes.into(), expected).await?;
        shim_failpoints::step!("daemon.load.after_manifest", error);
        Ok(target)
    }

    /// An image of one layer: the archive itself.
    async fn import_rootfs(&self, job: &Job, import: &Import, source: Peeked) -> Result<Imported> {
        let store = Store::new(self, job);
        let (digest, size) = off_the_loop(move || store.take(source, "the archive", None)).await?;
        shim_failpoints::step!("daemon.load.after_layer", error);
        let mut file = self.content.open(&job.namespace, &digest).await?;
        let limits = self.limits;
        let (diff_id, media_type) = off_the_loop(move || {
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

/// A configuration of a docker archive is called by its digest, which is the image's id
/// (`HEX.json`, or `sha256:HEX`); a name of another form says nothing.
fn refuse_the_id_of_another(path: &str, digest: &Digest) -> Result<()> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let name = name.strip_suffix(".json").unwrap_or(name);
    let id = name.strip_prefix(Digest::PREFIX).unwrap_or(name);
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id || id.eq_ignore_ascii_case(digest.hex()) {
        return Ok(());
    }
    let problem = format!("{path:?} is called by the id of another image: its content is {digest}");
    Err(Error::BadArchive { problem })
}

/// A layer that is not compressed is what the configuration says by its digest. Of others that is found
/// when they are unpacked, which layers that are there already are not again.
fn refuse_the_layer_of_another(
    path: &str,
    layer: &Descriptor,
    diff_id: Option<&Digest>,
) -> Result<()> {
    let Some(wanted) = diff_id.filter(|_| layer.media_type == media_type::OCI_LAYER) else {
        return Ok(());
    };
    if *wanted == layer.digest {
        return Ok(());
    }
    let problem = format!("{path:?} is {}, and its configuration wants {wanted}", layer.digest);
    Err(Error::BadArchive { problem })
}

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
