//! After the store was mended: what the rows of images, blobs and layers are missing is made again from
//! what the blobs themselves say.
//!
//! A manifest names its configuration and layers, and the configuration the chain of them; so a blob's
//! row, its labels and a lost layer's place can be told from a name alone.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime};

use bosun_image::{Config, Descriptor, Digest, Document, media_type};

use super::Images;
use super::layers::Layer;
use super::tree::{bad, reference_labels};
use crate::error::{Error, Result};
use crate::gc;
use crate::snapshots::LAYER_LABEL;
use crate::store::{
    Finding, Kind, LOST, LeaseRow, Resource, ResourceKind, SnapshotRow, Transaction,
};
use crate::time::Time;

/// How deep indexes may lie in each other.
const MAX_DEPTH: usize = 8;

/// The lease of what nothing else holds after a rebuild, and how long it holds.
const LEASE: &str = "rebuilt";
const HELD: Duration = Duration::from_secs(24 * 3600);

/// Where a blob without a record goes: nobody knows whose it was.
const NAMESPACE: &str = "default";

impl Images {
    /// Completes what was restored of the store; `is_rebuilt`: nothing is left of the rows that were.
    ///
    /// # Errors
    /// The store's own; a directory that can't be read.
    pub async fn restore(&self, is_rebuilt: bool) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        shim_failpoints::step!("daemon.rebuild.before_names", error);
        for namespace in self.store.read(|tx| tx.namespaces()).await? {
            let owner = namespace.clone();
            let (images, containers) = self
                .store
                .read(move |tx| {
                    Ok::<_, Error>((tx.images(&owner)?, tx.containers_of_images(&owner)?))
                })
                .await?;
            let named = images.into_iter().map(|image| image.target);
            let used = containers.iter().filter_map(|container| {
                let digest = container.manifest.parse().ok()?;
                Some(Descriptor::new(media_type::OCI_MANIFEST, digest, 0))
            });
            for target in named.chain(used) {
                let digest = target.digest.clone();
                if let Err(error) = self.regain(&namespace, target).await {
                    findings.push(Finding {
                        object: format!("image {digest} of namespace {namespace}"),
                        problem: crate::api::sentence(&error),
                        remedy: "pull it again".to_owned(),
                    });
                }
            }
        }
        shim_failpoints::step!("daemon.rebuild.after_names", error);
        if is_rebuilt {
            findings.extend(self.take_in_strangers().await?);
            shim_failpoints::step!("daemon.rebuild.before_lease", error);
            self.hold_unreachable().await?;
            shim_failpoints::step!("daemon.rebuild.after_lease", error);
        }
        for finding in &findings {
            tracing::error!(
                object = finding.object,
                problem = finding.problem,
                "{}",
                finding.remedy
            );
        }
        Ok(findings)
    }

    /// Gives a namespace the rows of everything that a descriptor reaches and whose file is here.
    async fn regain(&self, namespace: &str, target: Descriptor) -> Result<()> {
        let mut seen = HashSet::new();
        let mut waiting = vec![(target, 0)];
        while let Some((blob, depth)) = waiting.pop() {
            if depth > MAX_DEPTH {
                return Err(Error::NestedTooDeep { name: blob.digest.to_string() });
            }
            // The other platforms of an index are not here.
            if !seen.insert(blob.digest.clone())
                || !self.content.regain(namespace, &blob.digest).await?
            {
                continue;
            }
            match blob.kind() {
                bosun_image::Kind::Index | bosun_image::Kind::Manifest => {}
                bosun_image::Kind::Config
                | bosun_image::Kind::Layer(_)
                | bosun_image::Kind::Other => continue,
            }
            let bytes = self.bytes(namespace, &blob).await?;
            let document = Document::parse(&bytes, None).map_err(bad(&blob.digest))?;
            let labels: BTreeMap<String, String> =
                reference_labels(&document).into_iter().collect();
            self.content.label(namespace, &blob.digest, labels).await?;
            match document {
                Document::Index(index) => {
                    waiting.extend(index.manifests.into_iter().map(|entry| (entry, depth + 1)));
                }
                Document::Manifest(manifest) => {
                    for part in std::iter::once(&manifest.config).chain(&manifest.layers) {
                        self.content.regain(namespace, &part.digest).await?;
                    }
                    match self.bytes(namespace, &manifest.config).await {
                        Ok(bytes) => self.regain_layers(namespace, &manifest, &bytes).await?,
                        // Of another platform.
                        Err(Error::NoSuchBlob { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells lost layers of an image where they stand and what they are unpacked from.
    async fn regain_layers(
        &self,
        namespace: &str,
        manifest: &bosun_image::Manifest,
        config: &[u8],
    ) -> Result<()> {
        let digest = &manifest.config.digest;
        let config = Config::parse(config).map_err(bad(digest))?;
        let pairs = config.check_layers(manifest).map_err(bad(digest))?;
        let layers = Layer::all(&pairs);
        let Some(top) = layers.last().map(|layer| layer.chain_id.to_string()) else {
            return Ok(());
        };
        let owner = namespace.to_owned();
        let is_unpacked = self
            .store
            .write(move |tx| {
                regain_chain(tx, &owner, &layers)?;
                Ok::<_, Error>(tx.snapshot(&owner, &top)?.is_some())
            })
            .await?;
        match is_unpacked {
            true => self.keep_unpacked(namespace, digest, &Layer::all(&pairs)).await,
            false => Ok(()),
        }
    }

    /// Blobs that no name reaches and whose records are lost.
    async fn take_in_strangers(&self) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for digest in self.content.strangers().await? {
            let taken = self.content.regain(NAMESPACE, &digest).await;
            if let Err(error) = taken {
                findings.push(Finding {
                    object: format!("blob {digest}"),
                    problem: crate::api::sentence(&error),
                    remedy: "set aside".to_owned(),
                });
            }
        }
        Ok(findings)
    }

    /// Lets a lease hold what nothing reaches: what did may have been a lease that is lost.
    async fn hold_unreachable(&self) -> Result<()> {
        self.store
            .write(|tx| -> Result<()> {
                let now = Time::now();
                for namespace in tx.namespaces()? {
                    let graph = gc::Graph::load(tx, &namespace, HashSet::new())?;
                    let loose = gc::unreachable(&graph, now);
                    if loose.blobs.is_empty() && loose.snapshots.is_empty() {
                        continue;
                    }
                    tx.remove_lease(&namespace, LEASE)?;
                    let lease = LeaseRow {
                        id: LEASE.to_owned(),
                        created_at: now,
                        expires_at: Some((SystemTime::now() + HELD).into()),
                        labels: BTreeMap::new(),
                    };
                    tx.insert_lease(&namespace, &lease)?;
                    let blobs =
                        loose.blobs.into_iter().map(|row| (ResourceKind::Content, row.digest));
                    let snapshots =
                        loose.snapshots.into_iter().map(|row| (ResourceKind::Snapshot, row.key));
                    for (kind, id) in blobs.chain(snapshots) {
                        tx.hold(&namespace, LEASE, &Resource { kind, id })?;
                    }
                }
                Ok(())
            })
            .await
    }
}

/// Gives rows of lost layers their parents and the names of their blobs; a layer that is missing below
/// one that is known gets a row, so that it is unpacked again as well.
fn regain_chain(tx: &mut Transaction<'_>, namespace: &str, layers: &[Layer]) -> Result<()> {
    let mut lost = Vec::new();
    let mut is_needed = false;
    for layer in layers.iter().rev() {
        match tx.snapshot(namespace, layer.chain_id.as_str())? {
            Some(row) if row.written_in.as_deref() == Some(LOST) => {
                is_needed = true;
                lost.push((layer, Some(row.number)));
            }
            Some(_) => is_needed = false,
            None if is_needed => lost.push((layer, None)),
            None => {}
        }
    }
    // The lowest first: each is the parent of the next.
    for (layer, number) in lost.into_iter().rev() {
        let parent = match &layer.parent {
            None => None,
            Some(parent) => tx.snapshot(namespace, parent.as_str())?.map(|row| row.number),
        };
        let labels = label(&layer.blob.digest);
        match number {
            Some(number) => tx.place_lost_layer(number, parent, &labels)?,
            None => {
                let now = Time::now();
                tx.insert_snapshot(
                    namespace,
                    &SnapshotRow {
                        number: 0,
                        key: layer.chain_id.to_string(),
                        kind: Kind::Committed,
                        parent,
                        directory: None,
                        held_by: None,
                        created_at: now,
                        updated_at: now,
                        labels,
                        written_in: Some(LOST.to_owned()),
                    },
                )?;
            }
        }
    }
    Ok(())
}

fn label(blob: &Digest) -> BTreeMap<String, String> {
    BTreeMap::from([(LAYER_LABEL.to_owned(), blob.to_string())])
}
