//! One request to one host: its scheme, its credentials, its redirects, its errors.
//!
//! Credentials, a host's own headers and a client's certificate go to the origin (scheme, host,
//! port) of the endpoint and nowhere else. Once a redirect has left it, nothing brings them back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bosun_image::Reference;
use bytes::{Bytes, BytesMut};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;

use crate::auth::{Answer, Credentials, Grant, Granted, Secret, basic, bearer};
use crate::blob::{Body, Break};
use crate::challenge::{self, Challenge};
use crate::clients::Tls;
use crate::error::{Detail, Stall};
use crate::error::{is_no_tls, root_cause};
use crate::hosts::{Endpoint, authority, is_loopback, same_origin};
use crate::{At, Error, Registry, Result};

/// Redirects that are followed for one request.
const MOST_REDIRECTS: usize = 5;
/// Bytes of an error's body that are read.
const LONGEST_ERROR: u64 = 64 << 10;
/// Bytes of a token service's answer.
const LONGEST_TOKEN: u64 = 1 << 20;

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

/// A body that can be begun again.
pub(crate) struct Upload<'a> {
    pub(crate) open: &'a (dyn Fn() -> reqwest::Body + Send + Sync),
    /// Bytes taken from it so far.
    pub(crate) sent: Arc<AtomicU64>,
}

/// A request as it goes out, and what of it stays at home.
struct Outgoing<'a> {
    method: Method,
    url: Url,
    /// The origin that may see the headers below and the client's certificate.
    home: &'a Url,
    tls: &'a Tls,
    headers: HeaderMap,
    home_headers: HeaderMap,
    body: Option<&'a Upload<'a>>,
    at: &'a At,
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
            let challenge = challenge_of(&response);
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

/// Who wants to be let in where.
struct Question<'a> {
    base: &'a Url,
    endpoint: &'a Endpoint,
    credentials: Option<&'a Credentials>,
    scope: &'a str,
    at: &'a At,
}

impl Registry {
    /// Follows the redirects of a request that reads. Says whether the answer is the home's own.
    async fn follow(&self, mut outgoing: Outgoing<'_>) -> Result<(Response, bool)> {
        let reads = matches!(outgoing.method, Method::GET | Method::HEAD);
        let mut at_home = same_origin(outgoing.home, &outgoing.url);
        let mut seen = vec![outgoing.url.clone()];
        loop {
            let response = self.execute(&outgoing, at_home).await?;
            let moved = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !reads || !moved {
                return Ok((response, at_home));
            }
            let next = location(&response, outgoing.at)?;
            // The rest of a small body, so that the connection can be used again.
            let _ = self.body(response, outgoing.at, LONGEST_ERROR).await;
            check_hop(&outgoing.url, &next, outgoing.at)?;
            if seen.contains(&next) || seen.len() > MOST_REDIRECTS {
                let (at, limit) = (outgoing.at.clone(), MOST_REDIRECTS);
                return Err(Error::RedirectLoop { at, limit });
            }
            at_home &= same_origin(outgoing.home, &next);
            seen.push(next.clone());
            outgoing.url = next;
        }
    }

    async fn execute(&self, outgoing: &Outgoing<'_>, at_home: bool) -> Result<Response> {
        let away;
        let tls = if at_home {
            outgoing.tls
        } else {
            away = outgoing.tls.without_identity();
            &away
        };
        let client = self.clients.get(tls, &outgoing.url)?;
        let mut request = client.request(outgoing.method.clone(), outgoing.url.clone());
        request = request.headers(outgoing.headers.clone());
        if at_home {
            request = request.headers(outgoing.home_headers.clone());
        }
        if let Some(upload) = outgoing.body {
            upload.sent.store(0, Ordering::Relaxed);
            request = request.body((upload.open)());
        }
        let at = outgoing.at;
        let answered = match outgoing.body {
            None => tokio::time::timeout(self.options.response_timeout, request.send())
                .await
                .map_err(|_| Stall::Response(self.options.response_timeout)),
            Some(upload) => {
                let pause = self.options.response_timeout.max(self.options.idle_timeout);
                while_it_goes_on(request.send(), &upload.sent, pause).await
            }
        };
        match answered {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let source = error.without_url();
                Err(Error::Unreachable { at: at.clone(), problem: root_cause(&source), source })
            }
            Err(stall) => Err(Error::Stalled { at: at.clone(), received: 0, stall }),
        }
    }

    /// The answer, when it is a success, or the error that it is.
    pub(crate) async fn success(&self, response: Response, at: &At) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = retry_after(response.headers());
        let read = self.body(response, at, LONGEST_ERROR).await;
        let detail = read.map(|body| message(&body)).unwrap_or_default();
        let at = at.clone();
        Err(match status.as_u16() {
            401 => Error::Unauthorized { at, detail },
            403 => Error::Denied { at, detail },
            404 => Error::NotFound { at },
            429 => Error::TooManyRequests { at, detail, retry_after },
            status @ 500..=599 => Error::Unavailable { at, status, detail, retry_after },
            status => Error::Status { at, status, detail },
        })
    }

    /// A whole body of at most so many bytes.
    pub(crate) async fn body(&self, response: Response, at: &At, limit: u64) -> Result<Bytes> {
        let too_large = || Error::TooLarge { at: at.clone(), limit };
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut body = Body::new(response, Arc::clone(&self.options));
        let mut whole = BytesMut::new();
        loop {
            let received = whole.len() as u64;
            match body.chunk().await {
                Ok(Some(bytes)) if received + bytes.len() as u64 > limit => return Err(too_large()),
                Ok(Some(bytes)) => whole.extend_from_slice(&bytes),
                Ok(None) => return Ok(whole.freeze()),
                Err(end) => return Err(end.at(at.clone(), received)),
            }
        }
    }

    /// What to send to a registry that asks so. Nothing when there is nothing to show.
    async fn answer(&self, asked: &Question<'_>, challenge: &Challenge) -> Result<Option<Granted>> {
        match (challenge, asked.credentials.map(Credentials::secret)) {
            (_, Some(Secret::RegistryToken(_))) => Ok(None),
            (Challenge::Basic, Some(Secret::Password { username, password })) => {
                Ok(basic(username, password).map(|header| Granted { header, until: None }))
            }
            (Challenge::Basic, Some(Secret::IdentityToken(_)) | None) => Ok(None),
            (Challenge::Bearer { realm, service, scope }, _) => {
                let answer = self.token(asked, realm, service, scope, false).await?;
                let problem = "there is no token in its answer";
                let unusable = || token_error(asked.at, realm, problem);
                answer.granted().ok_or_else(unusable).map(Some)
            }
        }
    }

    /// Asks a token service. With `offline`, also for what may be kept in place of a password.
    async fn token(
        &self,
        asked: &Question<'_>,
        realm: &str,
        service: &str,
        scope: &str,
        offline: bool,
    ) -> Result<Answer> {
        let secret = asked.credentials.map(Credentials::secret);
        let mut url = check_realm(asked, realm, secret.is_some())?;
        let scopes = scopes(asked.scope, scope);
        let mut headers = HeaderMap::new();
        let mut form = None;
        if let Some(Secret::IdentityToken(token)) = secret {
            let mut fields = Url::parse("form:").map_err(|_| token_error(asked.at, realm, ""))?;
            fields.query_pairs_mut().extend_pairs([
                ("grant_type", "refresh_token"),
                ("service", service),
                ("client_id", "bosun"),
                ("scope", &scopes.join(" ")),
                ("refresh_token", token),
            ]);
            let encoded = Bytes::from(fields.query().unwrap_or_default().to_owned());
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(header::CONTENT_TYPE, kind);
            form = Some(encoded);
        } else {
            let mut query = url.query_pairs_mut();
            if !service.is_empty() {
                query.append_pair("service", service);
            }
            for scope in scopes {
                query.append_pair("scope", scope);
            }
            if let Some(Secret::Password { username, .. }) = secret {
                query.append_pair("account", username);
            }
            if offline {
                query.extend_pairs([("offline_token", "true"), ("client_id", "bosun")]);
            }
        }
        let mut home_headers = HeaderMap::new();
        if let Some(Secret::Password { username, password }) = secret {
            home_headers
                .extend(basic(username, password).map(|value| (header::AUTHORIZATION, value)));
        }
        let open = || form.clone().unwrap_or_default().into();
        let upload = Upload { open: &open, sent: Arc::default() };
        let home = url.clone();
        let same = same_origin(asked.base, &url);
        let tls = &asked.endpoint.tls;
        let tls = if same { tls.clone() } else { tls.without_identity() };
        let outgoing = Outgoing {
            method: if form.is_some() { Method::POST } else { Method::GET },
            url,
            home: &home,
            tls: &tls,
            headers,
            home_headers,
            body: form.is_some().then_some(&upload),
            at: asked.at,
        };
        let (response, _) = self.follow(outgoing).await?;
        let response = match self.success(response, asked.at).await {
            Err(Error::Denied { at, detail }) => return Err(Error::Unauthorized { at, detail }),
            Err(Error::NotFound { .. } | Error::Status { .. }) => {
                return Err(token_error(asked.at, realm, "its service answers with an error"));
            }
            other => other?,
        };
        let body = self.body(response, asked.at, LONGEST_TOKEN).await?;
        serde_json::from_slice(&body)
            .map_err(|_| token_error(asked.at, realm, "its service answers with what is no token"))
    }
}

/// Shows credentials to a host, whatever was granted for them before.
pub(crate) async fn login(
    registry: &Registry,
    host: &str,
    endpoints: &[Endpoint],
    credentials: &Credentials,
) -> Result<Option<String>> {
    let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.own) else {
        let other = endpoints.last().map(|endpoint| endpoint.host.clone()).unwrap_or_default();
        return Err(Error::ForeignCredentials { host: host.to_owned(), registry: other });
    };
    let at = At { what: "login".into(), registry: host.into(), tried: Vec::new() };
    let plain = plain(&endpoint.base);
    let mut base = &endpoint.base;
    let greeting = |base: &Url, header: Option<HeaderValue>| Outgoing {
        method: Method::GET,
        url: base.clone(),
        home: &endpoint.base,
        tls: &endpoint.tls,
        headers: HeaderMap::new(),
        home_headers: header.map(|value| (header::AUTHORIZATION, value)).into_iter().collect(),
        body: None,
        at: &at,
    };
    let mut first = registry.follow(Outgoing { home: base, ..greeting(base, None) }).await;
    if endpoint.may_be_plain
        && matches!(&first, Err(Error::Unreachable { source, .. }) if is_no_tls(source))
    {
        base = &plain;
        first = registry.follow(Outgoing { home: base, ..greeting(base, None) }).await;
    }
    let (response, _) = first?;
    let challenge = challenge_of(&response);
    let refused = registry.success(response, &at).await;
    let (Err(Error::Unauthorized { .. }), Some(challenge)) = (&refused, challenge) else {
        return refused.map(|_| None);
    };
    let asked = Question { base, endpoint, credentials: Some(credentials), scope: "", at: &at };
    let (header, kept) = match (&challenge, credentials.secret()) {
        (_, Secret::RegistryToken(token)) => (bearer(token), None),
        (Challenge::Basic, _) => {
            (registry.answer(&asked, &challenge).await?.map(|granted| granted.header), None)
        }
        (Challenge::Bearer { realm, service, scope }, _) => {
            let answer = registry.token(&asked, realm, service, scope, true).await?;
            (answer.granted().map(|granted| granted.header), answer.refresh_token)
        }
    };
    let Some(header) = header else { return refused.map(|_| None) };
    let outgoing = Outgoing { home: base, ..greeting(base, Some(header)) };
    let (response, _) = registry.follow(outgoing).await?;
    registry.success(response, &at).await?;
    Ok(kept.filter(|token| !token.is_empty()))
}

/// What is asked for, in an error's words.
pub(crate) fn image(reference: &Reference) -> String {
    format!("image {:?}", reference.familiar())
}

/// Where a registry says to go, resolved against where it said so.
pub(crate) fn location(response: &Response, at: &At) -> Result<Url> {
    let problem = |problem| Error::BadRedirect { at: at.clone(), problem };
    let value = response.headers().get(header::LOCATION).ok_or(problem("it does not say where"))?;
    let text = value.to_str().map_err(|_| problem("the address is not ASCII"))?;
    let mut url = response.url().join(text).map_err(|_| problem("the address is unusable"))?;
    let _ = (url.set_username(""), url.set_password(None));
    url.set_fragment(None);
    Ok(url)
}

/// Whether one may be sent from here to there.
pub(crate) fn check_hop(from: &Url, to: &Url, at: &At) -> Result<()> {
    let problem = |problem| Err(Error::BadRedirect { at: at.clone(), problem });
    match to.scheme() {
        "http" | "https" => {}
        _ => return problem("neither http nor https"),
    }
    if is_loopback(to) && !is_loopback(from) {
        return problem("this machine's own services");
    }
    Ok(())
}

/// The address of a token service, when it may see what is to be shown.
fn check_realm(asked: &Question<'_>, realm: &str, secret: bool) -> Result<Url> {
    let problem = |problem| token_error(asked.at, realm, problem);
    let url = Url::parse(realm)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| problem("the address is unusable"))?;
    if is_loopback(&url) && !is_loopback(asked.base) {
        return Err(problem("this machine's own services are no token service of another host"));
    }
    let plain_at_home =
        asked.base.scheme() == "http" && is_loopback(asked.base) && is_loopback(&url);
    if secret && url.scheme() != "https" && !plain_at_home {
        return Err(problem("credentials are not sent there without TLS"));
    }
    Ok(url)
}

fn token_error(at: &At, realm: &str, problem: &'static str) -> Error {
    let realm = Url::parse(realm).map(|url| authority(&url)).unwrap_or_default();
    Error::Token { at: at.clone(), realm, problem }
}

/// What is needed and what is asked for, each once.
fn scopes<'a>(ours: &'a str, theirs: &'a str) -> Vec<&'a str> {
    let mut all: Vec<&str> = Vec::new();
    for scope in ours.split(' ').chain(theirs.split(' ')) {
        if !scope.is_empty() && !all.contains(&scope) {
            all.push(scope);
        }
    }
    all
}

fn challenge_of(response: &Response) -> Option<Challenge> {
    const LONGEST: usize = 8 << 10;
    let all = response.headers().get_all(header::WWW_AUTHENTICATE);
    let texts = all.iter().filter_map(|value| value.to_str().ok());
    challenge::parse(texts.filter(|text| text.len() <= LONGEST))
}

fn plain(url: &Url) -> Url {
    let mut plain = url.clone();
    // A port that https does not name is http's own, as with docker.
    let _ = plain.set_scheme("http");
    plain
}

/// In seconds; a date is not understood, and the usual pause serves.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// What the registry says of an error (distribution specification, error codes).
fn message(body: &[u8]) -> Detail {
    #[derive(Deserialize)]
    struct Errors {
        #[serde(default)]
        errors: Vec<One>,
        #[serde(default)]
        details: String,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(errors) = serde_json::from_slice::<Errors>(body) else { return Detail::default() };
    match errors.errors.into_iter().next() {
        Some(One { code, message }) if message.is_empty() => Detail::new(&code),
        Some(One { message, .. }) => Detail::new(&message),
        None => Detail::new(&errors.details),
    }
}

/// Waits for an answer as long as bytes of the body go out.
async fn while_it_goes_on<T>(
    answer: impl Future<Output = T>,
    sent: &AtomicU64,
    pause: Duration,
) -> Result<T, Stall> {
    let mut answer = std::pin::pin!(answer);
    let mut before = u64::MAX;
    loop {
        match tokio::time::timeout(pause, &mut answer).await {
            Ok(answered) => return Ok(answered),
            Err(_) if sent.load(Ordering::Relaxed) == before => return Err(Stall::Response(pause)),
            Err(_) => before = sent.load(Ordering::Relaxed),
        }
    }
}

impl Break {
    pub(crate) fn at(self, at: At, received: u64) -> Error {
        match self {
            Self::Broken(problem) => Error::Broken { at, received, problem },
            Self::Stalled(stall) => Error::Stalled { at, received, stall },
        }
    }
}
