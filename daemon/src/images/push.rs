//! Pushing: what the registry does not have, parts before what names them.

use std::collections::BTreeMap;
use std::io;

use bosun_image::{Descriptor, Document, Kind, Reference};
use bosun_registry::{Credentials, Repository};
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{self, StreamExt};

use super::progress::{Board, Status};
use super::tree::Choice;
use super::{Images, TRANSFERS};
use crate::error::{Error, Result};

/// Says which repositories of a registry have a blob.
const SOURCE_LABEL: &str = "containerd.io/distribution.source.";

/// What is to be pushed.
#[derive(Clone, Debug)]
pub struct Push {
    /// A name, or an id.
    pub image: String,
    /// Where to; the image's own name otherwise.
    pub reference: Option<Reference>,
    pub choice: Choice,
    pub credentials: Option<Credentials>,
}

/// What is at the registry now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    pub name: String,
    pub target: Descriptor,
}

impl Images {
    /// Uploads an image and gives it its name there.
    ///
    /// # Errors
    /// There is no such image, a part of it is not here, or the registry's.
    pub async fn push(&self, namespace: &str, push: Push, board: &Board) -> Result<Pushed> {
        let row = self.get(namespace, &push.image, &push.choice).await?.row;
        let reference = match push.reference {
            Some(reference) => reference,
            None => row.name.parse().map_err(Error::from)?,
        };
        let target = self.pushable(namespace, &row.name, &row.target, &push.choice).await?;
        board.resolved(&reference.name(), &target);
        let repository = self.registry.repository(&reference, push.credentials).await?;
        let reached = self.reach(namespace, &target).await?;
        let is_document = |blob: &&Descriptor| matches!(blob.kind(), Kind::Index | Kind::Manifest);
        let (documents, blobs): (Vec<_>, Vec<_>) = reached.iter().partition(is_document);
        self.check_whole(namespace, &documents).await?;
        let mut uploads = Vec::with_capacity(blobs.len());
        for blob in blobs {
            uploads.push(self.push_blob(namespace, &repository, &reference, blob, board).boxed());
        }
        let mut uploads = stream::iter(uploads).buffer_unordered(TRANSFERS);
        while let Some(done) = uploads.next().await {
            done?;
        }
        drop(uploads);
        for document in documents {
            board.set(document, Status::Uploading, 0);
            let bytes = self.bytes(namespace, document).await?;
            let tag = match document.digest == target.digest {
                true => reference.tag(),
                false => None,
            };
            repository.push_manifest(document, bytes.into(), tag).await?;
            board.set(document, Status::Done, document.size);
        }
        Ok(Pushed { name: reference.name(), target })
    }

    /// Every part of each manifest is here.
    async fn check_whole(&self, namespace: &str, documents: &[&Descriptor]) -> Result<()> {
        for document in documents {
            if let Document::Manifest(manifest) = self.document(namespace, document).await? {
                for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
                    self.content.stat(namespace, &blob.digest).await?;
                }
            }
        }
        Ok(())
    }

    async fn push_blob(
        &self,
        namespace: &str,
        repository: &Repository,
        reference: &Reference,
        blob: &Descriptor,
        board: &Board,
    ) -> Result<()> {
        board.set(blob, Status::Waiting, 0);
        let row = self.content.stat(namespace, &blob.digest).await?;
        let known = row.labels.get(&format!("{SOURCE_LABEL}{}", reference.domain()));
        let elsewhere: Vec<String> = known
            .iter()
            .flat_map(|paths| paths.split(','))
            .filter(|path| *path != reference.path())
            .map(str::to_owned)
            .collect();
        let open = || {
            let (content, board) = (self.content.clone(), board.clone());
            let (namespace, blob) = (namespace.to_owned(), blob.clone());
            async_stream::try_stream! {
                let opened = content.reader(&namespace, &blob.digest, 0, None).await;
                let mut reader = opened.map_err(io::Error::other)?;
                let mut sent = 0;
                while let Some(data) = reader.next().await.map_err(io::Error::other)? {
                    sent += data.len() as u64;
                    board.set(&blob, Status::Uploading, sent);
                    yield Bytes::from(data);
                }
            }
        };
        let pushed = repository.push_blob(blob, open, &elsewhere).await?;
        let status = match pushed {
            bosun_registry::Pushed::Exists => Status::Exists,
            bosun_registry::Pushed::Mounted => Status::Mounted,
            bosun_registry::Pushed::Uploaded => Status::Done,
        };
        board.set(blob, status, blob.size);
        let key = format!("{SOURCE_LABEL}{}", reference.domain());
        let mut paths: Vec<&str> = known.iter().flat_map(|paths| paths.split(',')).collect();
        if !paths.contains(&reference.path()) {
            paths.push(reference.path());
            let labels = BTreeMap::from([(key, paths.join(","))]);
            self.content.label(namespace, &blob.digest, labels).await?;
        }
        Ok(())
    }
}
