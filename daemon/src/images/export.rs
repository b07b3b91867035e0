//! Exporting images: one archive that is an OCI layout and a docker archive at once.
//!
//! `index.json` and `oci-layout` for those who read OCI, `manifest.json` for docker and its kin;
//! blobs once, as they are stored. The documents come first, so that a reader of a stream knows
//! what to expect.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bosun_image::{Descriptor, Document, Index, Reference, media_type};
use bosun_layer::tar::{Entry, Kind as FileKind, Time as FileTime, Writer as Tar};
use serde::Serialize;
use tokio::runtime::Handle;

use super::Images;
use super::tree::Choice;
use crate::blocking::off_the_loop;
use crate::content::Content;
use crate::error::{Error, Result};
use crate::pipe;

/// OCI image layout specification.
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// What is written, known before the first byte is.
#[derive(Debug)]
pub struct Export {
    namespace: String,
    index: Vec<u8>,
    manifest: Vec<u8>,
    blobs: Vec<Descriptor>,
}

/// One image of docker's `manifest.json` (docker image specification 1.2).
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl Images {
    /// Finds everything that an archive of these images holds.
    ///
    /// # Errors
    /// There is no such image, or a part of it is not here.
    pub async fn prepare_export(
        &self,
        namespace: &str,
        names: &[String],
        choice: &Choice,
    ) -> Result<Export> {
        if names.is_empty() {
            return Err(Error::InvalidArgument {
                what: "images",
                problem: "none is named: name one at least".to_owned(),
            });
        }
        let mut index = Vec::new();
        let mut docker: BTreeMap<String, DockerImage> = BTreeMap::new();
        let mut blobs = Vec::new();
        let mut seen = BTreeSet::new();
        for name in names {
            let row = self.get(namespace, name, choice).await?.row;
            let image = self.resolve(namespace, &row.name, &row.target, choice).await?;
            for blob in std::iter::once(&image.manifest.config).chain(&image.manifest.layers) {
                self.content.stat(namespace, &blob.digest).await?;
            }
            let target = self.pushable(namespace, &row.name, &row.target, choice).await?;
            for blob in self.reach(namespace, &target).await? {
                if seen.insert(blob.digest.clone()) {
                    blobs.push(blob);
                }
            }
            let name: Reference = row.name.parse()?;
            index.push(named(&target, &name));
            let entry = docker.entry(image.descriptor.digest.to_string());
            let entry = entry.or_insert_with(|| DockerImage {
                config: path(&image.manifest.config),
                repo_tags: Vec::new(),
                layers: image.manifest.layers.iter().map(path).collect(),
            });
            if name.tag().is_some() {
                entry.repo_tags.push(name.familiar());
            }
        }
        let index = Index {
            media_type: media_type::OCI_INDEX.to_owned(),
            manifests: index,
            annotations: BTreeMap::new(),
        };
        let docker: Vec<DockerImage> = docker.into_values().collect();
        let manifest = serde_json::to_vec(&docker).map_err(crate::store::Error::from)?;
        Ok(Export { namespace: namespace.to_owned(), index: index.to_bytes(), manifest, blobs })
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// A blob that can't be read; or nobody reads any more.
    pub async fn export(&self, export: Export, to: pipe::Writer) -> Result<()> {
        let (content, runtime) = (self.content.clone(), Handle::current());
        off_the_loop(move || write(&content, &runtime, &export, to)).await
    }

    /// An index whose manifests are all here, or the manifest of a platform.
    pub(super) async fn pushable(
        &self,
        namespace: &str,
        name: &str,
        target: &Descriptor,
        choice: &Choice,
    ) -> Result<Descriptor> {
        if let Document::Index(index) = self.document(namespace, target).await? {
            let mut whole = true;
            for entry in &index.manifests {
                whole &= self.content.stat(namespace, &entry.digest).await.is_ok();
            }
            if choice.asked || !whole {
                return Ok(self.resolve(namespace, name, target, choice).await?.descriptor.clone());
            }
        }
        Ok(target.clone())
    }
}

/// An entry of the layout's index, with the name for those who read either annotation.
fn named(target: &Descriptor, name: &Reference) -> Descriptor {
    let mut annotations = BTreeMap::new();
    if let Some(tag) = name.tag() {
        annotations.insert("io.containerd.image.name".to_owned(), name.name());
        annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag.to_owned());
    }
    Descriptor { annotations, platform: None, ..target.clone() }
}

fn path(blob: &Descriptor) -> String {
    format!("blobs/sha256/{}", blob.digest.hex())
}

fn write(content: &Content, runtime: &Handle, export: &Export, to: pipe::Writer) -> Result<()> {
    let failed = |source| Error::Archive { source: std::sync::Arc::new(source) };
    let mut tar = Tar::new(to);
    let entry = |path: &str, kind: FileKind| Entry {
        path: path.as_bytes().to_vec(),
        mode: if kind == FileKind::Directory { 0o755 } else { 0o644 },
        kind,
        uid: 0,
        gid: 0,
        mtime: FileTime::default(),
        xattrs: Vec::new(),
    };
    let documents: [(&str, &[u8]); 3] = [
        ("oci-layout", LAYOUT.as_bytes()),
        ("index.json", &export.index),
        ("manifest.json", &export.manifest),
    ];
    shim_failpoints::step!("daemon.save.before_documents", error);
    for (path, bytes) in documents {
        let kind = FileKind::File { size: bytes.len() as u64 };
        tar.append(&entry(path, kind), bytes).map_err(failed)?;
    }
    for path in ["blobs/", "blobs/sha256/"] {
        tar.append(&entry(path, FileKind::Directory), io::empty()).map_err(failed)?;
    }
    for blob in &export.blobs {
        shim_failpoints::step!("daemon.save.before_blob", error);
        let file = runtime.block_on(content.open(&export.namespace, &blob.digest))?;
        let kind = FileKind::File { size: blob.size };
        tar.append(&entry(&path(blob), kind), file).map_err(failed)?;
    }
    shim_failpoints::step!("daemon.save.before_end", error);
    tar.finish().map_err(failed)?;
    shim_failpoints::step!("daemon.save.after_end", error);
    Ok(())
}
