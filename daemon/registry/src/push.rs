//! Pushing: only what the registry does not have.
//!
//! ```text
//!   HEAD blob ─▶ there: nothing to do
//!     └▶ POST mount=…&from=… ─▶ 201: taken from another repository
//!          └▶ 202, or a plain POST ─▶ PUT of the whole blob
//! ```
//!
//! A broken upload is begun anew: registries differ too much in what they keep of one.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bosun_image::{Descriptor, Digest};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};

use crate::hosts::Endpoint;
use crate::repository::check_digest;
use crate::session::{Call, Target};
use crate::transport::{Upload, check_hop, location};
use crate::{At, Error, Repository, Result};

/// How a blob came to the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Exists,
    /// From another repository of the same registry.
    Mounted,
    Uploaded,
}

impl Repository {
    /// Uploads a blob, unless the registry has it, here or in one of `mount_from`'s repositories
    /// (paths without the host). `open` gives its bytes from the first on, each time it is called.
    ///
    /// # Errors
    /// The registry does not take it, or its bytes can't be read.
    pub async fn push_blob<S>(
        &self,
        descriptor: &Descriptor,
        open: impl Fn() -> S + Send + Sync,
        mount_from: &[String],
    ) -> Result<Pushed>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let what = self.what("blob", &descriptor.digest);
        let failed: Arc<Mutex<Option<io::Error>>> = Arc::default();
        let sent = Arc::default();
        let body = || body(open(), Arc::clone(&sent), Arc::clone(&failed));
        let (upload, failed) = (&Upload { open: &body, sent: Arc::clone(&sent) }, &failed);
        let ask = |endpoint, at: At| async move {
            if self.has_blob(endpoint, descriptor, &at).await? {
                return Ok(Pushed::Exists);
            }
            let Some(session) = self.begin(endpoint, descriptor, mount_from, &at).await? else {
                return Ok(Pushed::Mounted);
            };
            let uploaded = self.upload(endpoint, descriptor, session, upload, &at).await;
            let ours = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(source) = ours {
                return Err(Error::Upload { what: at.what.to_string(), source });
            }
            uploaded.map(|()| Pushed::Uploaded)
        };
        self.again(&what, |can| can.push, ask).await
    }

    /// Uploads a document, under a tag or its digest. All it refers to has to be there.
    ///
    /// # Errors
    /// The registry does not take it.
    pub async fn push_manifest(
        &self,
        descriptor: &Descriptor,
        bytes: Bytes,
        tag: Option<&str>,
    ) -> Result<()> {
        let what = self.what("manifest", &descriptor.digest);
        check_digest(Some(descriptor.digest.as_str()), &Digest::of(&bytes), &self.at(&what))?;
        let name = tag.unwrap_or(descriptor.digest.as_str());
        let path = format!("{}/manifests/{name}", self.reference().path());
        let open = || bytes.clone().into();
        let (upload, path) = (&Upload { open: &open, sent: Arc::default() }, &path);
        let ask = |endpoint, at: At| async move {
            let problem = "the media type can't be sent";
            let kind = HeaderValue::from_str(&descriptor.media_type)
                .map_err(|_| Error::BadAnswer { at: at.clone(), problem })?;
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
            let (method, target) = (Method::PUT, Target::Path(path));
            let scope = self.scope("pull,push");
            let call = Call { method, target, scope: &scope, headers, body: Some(upload), at: &at };
            let response = self.session().send(endpoint, &call).await?;
            check_stored(&response, &descriptor.digest, &at)
        };
        self.again(&what, |can| can.push, ask).await
    }

    async fn has_blob(&self, endpoint: &Endpoint, blob: &Descriptor, at: &At) -> Result<bool> {
        let path = format!("{}/blobs/{}", self.reference().path(), blob.digest);
        let scope = self.scope("pull,push");
        let (target, headers) = (Target::Path(&path), HeaderMap::new());
        let call = Call { method: Method::HEAD, target, scope: &scope, headers, body: None, at };
        match self.session().send(endpoint, &call).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Where to upload to; nothing when the blob could be mounted.
    async fn begin(
        &self,
        endpoint: &Endpoint,
        blob: &Descriptor,
        mount_from: &[String],
        at: &At,
    ) -> Result<Option<Url>> {
        /// Others are not worth a request each.
        const MOST_MOUNTS: usize = 3;
        let uploads = format!("{}/blobs/uploads/", self.reference().path());
        let own = self.scope("pull,push");
        let mut session = None;
        for from in mount_from.iter().take(MOST_MOUNTS) {
            let path = format!("{uploads}?mount={}&from={from}", blob.digest);
            let scope = format!("{own} repository:{from}:pull");
            match self.post(endpoint, &path, &scope, at).await {
                Ok(response) if response.status() == StatusCode::CREATED => return Ok(None),
                Ok(response) => session = Some(response),
                // No access to the other repository: the bytes can still be sent.
                Err(Error::Unauthorized { .. } | Error::Denied { .. } | Error::NotFound { .. }) => {
                }
                Err(error) => return Err(error),
            }
        }
        let response = match session {
            Some(response) => response,
            None => self.post(endpoint, &uploads, &own, at).await?,
        };
        let url = location(&response, at)?;
        check_hop(response.url(), &url, at)?;
        Ok(Some(url))
    }

    async fn post(
        &self,
        endpoint: &Endpoint,
        path: &str,
        scope: &str,
        at: &At,
    ) -> Result<Response> {
        let headers = HeaderMap::from_iter([(header::CONTENT_LENGTH, HeaderValue::from(0))]);
        let (method, target) = (Method::POST, Target::Path(path));
        self.session()
            .send(endpoint, &Call { method, target, scope, headers, body: None, at })
            .await
    }

    async fn upload(
        &self,
        endpoint: &Endpoint,
        blob: &Descriptor,
        mut url: Url,
        body: &Upload<'_>,
        at: &At,
    ) -> Result<()> {
        url.query_pairs_mut().append_pair("digest", blob.digest.as_str());
        let headers = HeaderMap::from_iter([
            (header::CONTENT_LENGTH, HeaderValue::from(blob.size)),
            (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        ]);
        let (method, target) = (Method::PUT, Target::Url(url));
        let scope = self.scope("pull,push");
        let call = Call { method, target, scope: &scope, headers, body: Some(body), at };
        let response = self.session().send(endpoint, &call).await?;
        check_stored(&response, &blob.digest, at)
    }
}

fn check_stored(response: &Response, wanted: &Digest, at: &At) -> Result<()> {
    if response.status() != StatusCode::CREATED {
        return Err(Error::BadAnswer {
            at: at.clone(),
            problem: "it does not say that it is kept",
        });
    }
    let stated = response.headers().get("docker-content-digest");
    check_digest(stated.and_then(|value| value.to_str().ok()), wanted, at)
}

fn body<S>(
    stream: S,
    sent: Arc<std::sync::atomic::AtomicU64>,
    failed: Arc<Mutex<Option<io::Error>>>,
) -> reqwest::Body
where
    S: Stream<Item = io::Result<Bytes>> + Send + 'static,
{
    reqwest::Body::wrap_stream(stream.map(move |read| match read {
        Ok(bytes) => {
            sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Ok(bytes)
        }
        Err(error) => {
            let kind = error.kind();
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            Err(io::Error::from(kind))
        }
    }))
}
