//! Requests to a host: how it speaks, and what it wants to see first.

use std::sync::Arc;

use bosun_image::Reference;
use reqwest::header::{self, HeaderMap};
use reqwest::{Method, Response, StatusCode, Url};

use crate::auth::{Credentials, Grant, Secret, bearer};
use crate::challenge;
use crate::error::is_no_tls;
use crate::hosts::Endpoint;
use crate::token::Question;
use crate::transport::{Outgoing, Upload};
use crate::{At, Error, Registry, Result};

/// Who asks: all requests of one user about the images of one host.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) registry: Registry,
    pub(crate) domain: String,
    pub(crate) credentials: Option<Arc<Credentials>>,
}

/// What is asked.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) target: Target<'a>,
    /// Space-separated scopes of a token for it; empty for none.
    pub(crate) scope: &'a str,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<&'a Upload<'a>>,
    pub(crate) at: &'a At,
}

pub(crate) enum Target<'a> {
    /// Below `/v2/`, with its query.
    Path(&'a str),
    /// Where the registry itself said to go on.
    Url(Url),
}

impl Session {
    /// Sends a request, with a token when it takes one. An answer that is no success is an error.
    pub(crate) async fn send(&self, endpoint: &Endpoint, call: &Call<'_>) -> Result<Response> {
        let clients = &self.registry.clients;
        if !endpoint.may_be_plain {
            return self.send_to(endpoint, &endpoint.base, call).await;
        }
        let plain = plain(&endpoint.base);
        if !clients.is_plain(&plain) {
            match self.send_to(endpoint, &endpoint.base, call).await {
                Err(Error::Unreachable { source, .. }) if is_no_tls(&source) => {}
                other => return other,
            }
        }
        let answer = self.send_to(endpoint, &plain, call).await;
        clients.set_plain(&plain, !matches!(answer, Err(Error::Unreachable { .. })));
        answer
    }

    async fn send_to(&self, endpoint: &Endpoint, base: &Url, call: &Call<'_>) -> Result<Response> {
        let url = self.address(endpoint, base, &call.target, call.at)?;
        let credentials = self.credentials.as_deref().filter(|_| endpoint.own);
        let grant = Grant::new(base.origin().ascii_serialization(), call.scope, credentials);
        let tokens = &self.registry.tokens;
        let mut authorization = match credentials.map(Credentials::secret) {
            Some(Secret::RegistryToken(token)) => bearer(token),
            Some(Secret::Password { .. } | Secret::IdentityToken(_)) | None => tokens.get(&grant),
        };
        let mut asked = false;
        loop {
            let mut home_headers = endpoint.headers.clone();
            if let Some(value) = &authorization {
                home_headers.insert(header::AUTHORIZATION, value.clone());
            }
            let outgoing = Outgoing {
                method: call.method.clone(),
                url: url.clone(),
                home: base,
                tls: &endpoint.tls,
                headers: call.headers.clone(),
                home_headers,
                body: call.body,
                at: call.at,
            };
            let (response, at_home) = self.registry.follow(outgoing).await?;
            if response.status() != StatusCode::UNAUTHORIZED || !at_home {
                return self.registry.success(response, call.at).await;
            }
            tokens.forget(&grant);
            let challenge = challenge::of(&response);
            let refused = self.registry.success(response, call.at).await;
            let (false, Some(challenge)) = (asked, challenge) else { return refused };
            let answer = Question { base, endpoint, credentials, scope: call.scope, at: call.at };
            let Some(granted) = self.registry.answer(&answer, &challenge).await? else {
                return refused;
            };
            authorization = Some(granted.header.clone());
            tokens.keep(grant.clone(), granted);
            asked = true;
        }
    }

    fn address(
        &self,
        endpoint: &Endpoint,
        base: &Url,
        target: &Target<'_>,
        at: &At,
    ) -> Result<Url> {
        match target {
            Target::Url(url) => Ok(url.clone()),
            Target::Path(path) => {
                let unusable =
                    |_| Error::BadAnswer { at: at.clone(), problem: "a path is unusable" };
                let mut url = base.join(path).map_err(unusable)?;
                if !endpoint.own {
                    url.query_pairs_mut().append_pair("ns", &self.domain);
                }
                Ok(url)
            }
        }
    }
}

/// What is asked for, in an error's words.
pub(crate) fn image(reference: &Reference) -> String {
    format!("image {:?}", reference.familiar())
}

pub(crate) fn plain(url: &Url) -> Url {
    let mut plain = url.clone();
    // A port that https does not name is http's own, as with docker.
    let _ = plain.set_scheme("http");
    plain
}
