//! What a name reaches in the content store: index, manifests, configurations, layers.

use std::collections::BTreeSet;
use std::sync::Arc;

use bosun_image::{Config, Descriptor, Digest, Document, Index, MAX_DEPTH, Manifest, Platform};

use super::{Images, resolved_key};
use crate::error::{Error, Result};

/// The largest configuration that is kept in memory, in bytes.
const REMEMBERED_SIZE: usize = 128 << 10;

/// One image of one platform, whose documents are here.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Of the manifest.
    pub descriptor: Descriptor,
    pub manifest: Manifest,
    pub config: Config,
    /// The configuration as it is.
    pub config_json: Vec<u8>,
}

impl Resolved {
    /// Bytes of manifest, configuration and layers.
    #[must_use]
    pub fn size(&self) -> u64 {
        let layers: u64 = self.manifest.layers.iter().map(|layer| layer.size).sum();
        self.descriptor.size + self.manifest.config.size + layers
    }

    /// The name of the snapshot of all its layers; `None` without layers.
    #[must_use]
    pub fn chain_id(&self) -> Option<Digest> {
        bosun_image::chain_ids(&self.config.diff_ids).pop()
    }
}

/// Which part of an image is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub platform: Platform,
    /// It was asked for, so nothing else will do.
    pub asked: bool,
}

impl Choice {
    /// This machine's, or the platform of this text.
    ///
    /// # Errors
    /// It is no platform.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "" => Self { platform: Platform::host(), asked: false },
            text => Self { platform: text.parse().map_err(Error::from)?, asked: true },
        })
    }

    /// The entry of an index to take.
    ///
    /// # Errors
    /// None is for this platform; the error lists those that are there.
    pub(super) fn of<'a>(&self, name: &str, index: &'a Index) -> Result<&'a Descriptor> {
        bosun_image::choose(&index.manifests, &self.platform).ok_or_else(|| {
            let there: BTreeSet<String> = index
                .manifests
                .iter()
                .filter_map(|entry| entry.platform.as_ref())
                .map(ToString::to_string)
                .collect();
            Error::NoPlatform {
                name: name.to_owned(),
                platform: self.platform.to_string(),
                there: there.into_iter().collect(),
            }
        })
    }
}

impl Images {
    /// A document of the store.
    pub(super) async fn document(&self, namespace: &str, blob: &Descriptor) -> Result<Document> {
        let bytes = self.bytes(namespace, blob).await?;
        Document::parse(&bytes, Some(&blob.media_type)).map_err(bad(&blob.digest))
    }

    /// The bytes of a document or a configuration.
    pub(super) async fn bytes(&self, namespace: &str, blob: &Descriptor) -> Result<Vec<u8>> {
        self.content.read(namespace, &blob.digest, bosun_image::MAX_DOCUMENT as u64).await
    }

    /// The image of a platform that a descriptor stands for, as far as its documents are here.
    ///
    /// # Errors
    /// [`Error::NoPlatform`]; [`Error::NoSuchBlob`] when that part of the image is not here; a
    /// document that can't be read.
    pub async fn resolve(
        &self,
        namespace: &str,
        name: &str,
        target: &Descriptor,
        choice: &Choice,
    ) -> Result<Arc<Resolved>> {
        let key = resolved_key(namespace, &target.digest, choice);
        if let Some(known) = self.resolved.get(&key) {
            // Documents never change, but they may have gone.
            self.content.stat(namespace, &known.manifest.config.digest).await?;
            return Ok(known);
        }
        let mut descriptor = target.clone();
        for _ in 0..MAX_DEPTH {
            match self.document(namespace, &descriptor).await? {
                Document::Index(index) => descriptor = choice.of(name, &index)?.clone(),
                Document::Manifest(manifest) => {
                    let config_json = self.bytes(namespace, &manifest.config).await?;
                    let config =
                        Config::parse(&config_json).map_err(bad(&manifest.config.digest))?;
                    if choice.asked && !choice.platform.matches(&config.platform()) {
                        return Err(Error::NoPlatform {
                            name: name.to_owned(),
                            platform: choice.platform.to_string(),
                            there: vec![config.platform().to_string()],
                        });
                    }
                    let resolved = Arc::new(Resolved { descriptor, manifest, config, config_json });
                    if resolved.config_json.len() <= REMEMBERED_SIZE {
                        self.resolved.put(key, Arc::clone(&resolved));
                    }
                    return Ok(resolved);
                }
            }
        }
        Err(Error::NestedTooDeep { name: name.to_owned() })
    }

    /// Everything of the store that a descriptor reaches, itself included; parts that are not here
    /// are left out. Parents come after their parts, as a registry wants them.
    pub(super) async fn reach(
        &self,
        namespace: &str,
        target: &Descriptor,
    ) -> Result<Vec<Descriptor>> {
        let mut found: Vec<Descriptor> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut waiting = vec![(target.clone(), 0)];
        while let Some((blob, depth)) = waiting.pop() {
            if depth > MAX_DEPTH {
                return Err(Error::NestedTooDeep { name: target.digest.to_string() });
            }
            match self.content.stat(namespace, &blob.digest).await {
                Ok(_) => {}
                Err(Error::NoSuchBlob { .. }) => continue,
                Err(error) => return Err(error),
            }
            if !seen.insert(blob.digest.clone()) {
                // It has to come before the one that was just met as well.
                found.retain(|known| known.digest != blob.digest);
                found.push(blob);
                continue;
            }
            let parts: Vec<Descriptor> = match blob.kind() {
                bosun_image::Kind::Index | bosun_image::Kind::Manifest => {
                    match self.document(namespace, &blob).await? {
                        Document::Index(index) => index.manifests,
                        Document::Manifest(manifest) => {
                            std::iter::once(manifest.config).chain(manifest.layers).collect()
                        }
                    }
                }
                bosun_image::Kind::Config
                | bosun_image::Kind::Layer(_)
                | bosun_image::Kind::Other => Vec::new(),
            };
            found.push(blob);
            waiting.extend(parts.into_iter().map(|part| (part, depth + 1)));
        }
        found.reverse();
        Ok(found)
    }
}

/// An error in a blob's content.
pub(super) fn bad(digest: &Digest) -> impl FnOnce(bosun_image::Error) -> Error {
    let digest = digest.to_string();
    move |source| Error::BadImage { digest, source: Arc::new(source) }
}

/// The labels by which a document keeps its parts (containerd's names).
pub(super) fn reference_labels(document: &Document) -> Vec<(String, String)> {
    let label = |what: String, digest: &Digest| {
        (format!("containerd.io/gc.ref.content.{what}"), digest.to_string())
    };
    match document {
        Document::Index(index) => index
            .manifests
            .iter()
            .enumerate()
            .map(|(number, entry)| label(format!("m.{number}"), &entry.digest))
            .collect(),
        Document::Manifest(manifest) => {
            let layers = manifest.layers.iter().enumerate();
            std::iter::once(label("config".to_owned(), &manifest.config.digest))
                .chain(layers.map(|(number, layer)| label(format!("l.{number}"), &layer.digest)))
                .collect()
        }
    }
}
