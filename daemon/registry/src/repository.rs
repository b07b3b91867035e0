//! A repository: reading what an image's name leads to.

use std::fmt;
use std::sync::Arc;

use bosun_image::media_type::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use bosun_image::{Descriptor, Digest, Document, MAX_DOCUMENT, Reference};
use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, Response};

use crate::auth::Credentials;
use crate::blob::{Blob, known_bytes};
use crate::hosts::{Capabilities, Endpoint};
use crate::retry::{Attempts, Listener};
use crate::session::{Call, Session, Target, image};
use crate::{At, Error, Options, Registry, Result, Retry, Tried};

/// The repository of an image, as one user sees it. Clones share connections and tokens.
#[derive(Clone)]
pub struct Repository {
    session: Session,
    reference: Reference,
    endpoints: Arc<[Endpoint]>,
    listener: Option<Listener>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub descriptor: Descriptor,
    /// The index or manifest itself: verified, and known to be one.
    pub body: Bytes,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("reference", &self.reference).finish_non_exhaustive()
    }
}

impl Repository {
    pub(crate) fn new(
        registry: Registry,
        reference: Reference,
        endpoints: Vec<Endpoint>,
        credentials: Option<Credentials>,
    ) -> Self {
        let domain = reference.domain().to_owned();
        let session = Session { registry, domain, credentials: credentials.map(Arc::new) };
        Self { session, reference, endpoints: endpoints.into(), listener: None }
    }

    /// Tells before each pause why something is tried again.
    #[must_use]
    pub fn on_retry(self, tell: impl Fn(&Retry<'_>) + Send + Sync + 'static) -> Self {
        Self { listener: Some(Arc::new(tell)), ..self }
    }

    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Whether the registry is there and lets this user in.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] if not; or what keeps it from answering.
    pub async fn check(&self) -> Result<()> {
        let what = image(&self.reference);
        let any = |_: Capabilities| true;
        let ask = |endpoint, at: At| async move {
            let call = self.get("", HeaderMap::new(), &at);
            self.session.send(endpoint, &Call { scope: "", ..call }).await.map(drop)
        };
        self.again(&what, any, ask).await
    }

    /// What the reference stands for: by its digest if it has one, else by its tag.
    ///
    /// # Errors
    /// It is not there, is no image's document, or is another than its digest says.
    pub async fn resolve(&self) -> Result<Resolved> {
        let what = image(&self.reference);
        let by_digest = self.reference.digest();
        let able = |can: Capabilities| if by_digest.is_some() { can.pull } else { can.resolve };
        let name =
            by_digest.map_or_else(|| self.reference.tag().unwrap_or("latest"), Digest::as_str);
        let ask = |endpoint, at: At| async move {
            let response = self.get_manifest(endpoint, name, &at).await?;
            let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
            let media_type = text(header::CONTENT_TYPE.as_str()).map(str::to_owned);
            let stated = text("docker-content-digest").map(str::to_owned);
            let body = self.session.registry.body(response, &at, MAX_DOCUMENT as u64).await?;
            let digest = Digest::of(&body);
            check_digest(by_digest.map(Digest::as_str), &digest, &at)?;
            check_digest(stated.as_deref(), &digest, &at)?;
            let document = Document::parse(&body, media_type.as_deref())
                .map_err(|source| Error::BadDocument { at, source })?;
            let size = body.len() as u64;
            let descriptor = Descriptor::new(document.media_type(), digest, size);
            Ok(Resolved { descriptor, body })
        };
        self.again(&what, able, ask).await
    }

    /// The bytes of an index, a manifest or a configuration, verified.
    ///
    /// # Errors
    /// They are not there, or others than the descriptor says.
    pub async fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes> {
        let what = self.what("manifest", &descriptor.digest);
        let ask = |endpoint, at: At| async move {
            let response = self.get_manifest(endpoint, descriptor.digest.as_str(), &at).await?;
            self.verified(response, descriptor, &at).await
        };
        if descriptor.size > MAX_DOCUMENT as u64 {
            return Err(Error::TooLarge { at: self.at(&what), limit: MAX_DOCUMENT as u64 });
        }
        self.again(&what, |can| can.pull, ask).await
    }

    /// The bytes of a small blob, as a configuration is, verified.
    ///
    /// # Errors
    /// They are not there, others than the descriptor says, or more than 8 MiB.
    pub async fn small_blob(&self, descriptor: &Descriptor) -> Result<Bytes> {
        let what = self.what("blob", &descriptor.digest);
        if descriptor.size > MAX_DOCUMENT as u64 {
            return Err(Error::TooLarge { at: self.at(&what), limit: MAX_DOCUMENT as u64 });
        }
        let ask = |endpoint, at: At| async move {
            let (response, _) = self.get_blob(endpoint, descriptor, 0, &at).await?;
            self.verified(response, descriptor, &at).await
        };
        self.again(&what, |can| can.pull, ask).await
    }

    /// A blob from a byte on.
    ///
    /// # Errors
    /// It is not there, has another length, or begins before `offset`'s end.
    pub async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<Blob> {
        if offset > descriptor.size {
            let at = self.at(&self.what("blob", &descriptor.digest));
            return Err(Error::BadLength { at, wanted: descriptor.size, got: offset });
        }
        Blob::new(self.clone(), descriptor.clone(), offset).open().await
    }

    pub(crate) async fn open_blob(
        &self,
        descriptor: &Descriptor,
        position: u64,
        what: &str,
    ) -> Result<(Response, u64)> {
        let ask = |endpoint, at: At| async move {
            self.get_blob(endpoint, descriptor, position, &at).await
        };
        self.once(what, |can| can.pull, ask).await
    }

    async fn get_blob(
        &self,
        endpoint: &Endpoint,
        descriptor: &Descriptor,
        position: u64,
        at: &At,
    ) -> Result<(Response, u64)> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        if position > 0 {
            let range = HeaderValue::try_from(format!("bytes={position}-"));
            headers.extend(range.map(|range| (header::RANGE, range)));
        }
        let path = format!("{}/blobs/{}", self.reference.path(), descriptor.digest);
        let scope = self.scope("pull");
        let call = Call { scope: &scope, ..self.get(&path, headers, at) };
        let response = self.session.send(endpoint, &call).await?;
        let known = known_bytes(&response, descriptor, position, at)?;
        Ok((response, known))
    }

    async fn get_manifest(&self, endpoint: &Endpoint, name: &str, at: &At) -> Result<Response> {
        let accepted = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST, "*/*"].join(", ");
        let accepted = HeaderValue::try_from(accepted).ok();
        let headers = accepted.map(|accepted| (header::ACCEPT, accepted)).into_iter().collect();
        let path = format!("{}/manifests/{name}", self.reference.path());
        let scope = self.scope("pull");
        let call = Call { scope: &scope, ..self.get(&path, headers, at) };
        self.session.send(endpoint, &call).await
    }

    async fn verified(&self, response: Response, wanted: &Descriptor, at: &At) -> Result<Bytes> {
        let bad_length = |got| Error::BadLength { at: at.clone(), wanted: wanted.size, got };
        if let Some(length) = response.content_length().filter(|length| *length != wanted.size) {
            return Err(bad_length(length));
        }
        let body = match self.session.registry.body(response, at, wanted.size).await {
            Err(Error::TooLarge { .. }) => return Err(bad_length(wanted.size + 1)),
            other => other?,
        };
        if body.len() as u64 != wanted.size {
            return Err(bad_length(body.len() as u64));
        }
        check_digest(Some(wanted.digest.as_str()), &Digest::of(&body), at)?;
        Ok(body)
    }

    /// Asks all endpoints, and again after a pause when that may help.
    ///
    /// `ask` takes what it needs by value: a future that borrows from its own arguments could not be
    /// sent to another thread.
    pub(crate) async fn again<'a, T, F: Future<Output = Result<T>>>(
        &'a self,
        what: &str,
        able: impl Fn(Capabilities) -> bool,
        ask: impl Fn(&'a Endpoint, At) -> F,
    ) -> Result<T> {
        let mut attempts = Attempts::new();
        loop {
            match self.once(what, &able, &ask).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    attempts.pause(self.options(), what, error, self.listener()).await?;
                }
            }
        }
    }

    /// Asks one endpoint after the other until one has it. The last one's error is the error.
    async fn once<'a, T, F: Future<Output = Result<T>>>(
        &'a self,
        what: &str,
        able: impl Fn(Capabilities) -> bool,
        ask: impl Fn(&'a Endpoint, At) -> F,
    ) -> Result<T> {
        let mut at = self.at(what);
        let mut last = None;
        for endpoint in self.endpoints.iter().filter(|endpoint| able(endpoint.capabilities)) {
            match ask(endpoint, at.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) if endpoint.mirror => {
                    let tried = Tried { mirror: endpoint.host.clone(), answer: error.brief() };
                    tracing::debug!(what, mirror = %endpoint.host, %error, "a mirror does not help");
                    at.tried.push(tried);
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        let problem = "no host of its file may be asked for this";
        Err(last.unwrap_or(Error::BadAnswer { at, problem }))
    }

    fn get<'a>(&self, path: &'a str, headers: HeaderMap, at: &'a At) -> Call<'a> {
        let (method, target) = (Method::GET, Target::Path(path));
        Call { method, target, scope: "", headers, body: None, at }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn options(&self) -> &Arc<Options> {
        &self.session.registry.options
    }

    pub(crate) fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    pub(crate) fn scope(&self, actions: &str) -> String {
        format!("repository:{}:{actions}", self.reference.path())
    }

    pub(crate) fn what(&self, kind: &str, digest: &Digest) -> String {
        format!("{kind} {digest} of {}", image(&self.reference))
    }

    pub(crate) fn at(&self, what: &str) -> At {
        let (what, registry) = (what.into(), self.reference.domain().into());
        At { what, registry, tried: Vec::new() }
    }
}

/// Whether content is what somebody said it is; who says nothing can't be wrong.
pub(crate) fn check_digest(stated: Option<&str>, got: &Digest, at: &At) -> Result<()> {
    // Another algorithm than ours says nothing that could be compared.
    match stated.and_then(|text| text.parse::<Digest>().ok()) {
        Some(wanted) if wanted != *got => {
            Err(Error::BadDigest { at: at.clone(), wanted, got: got.clone() })
        }
        Some(_) | None => Ok(()),
    }
}
