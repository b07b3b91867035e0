//! Token services: who is asked for a token, what is shown there, and logging in.
//!
//! A registry names the service itself, so what it names is checked before a secret goes there.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, Url};

use crate::auth::{Answer, Credentials, Granted, Secret, basic, bearer};
use crate::challenge::{self, Challenge};
use crate::error::is_no_tls;
use crate::hosts::{Endpoint, authority, is_loopback, same_origin};
use crate::session::plain;
use crate::transport::{Outgoing, Upload, is_inner};
use crate::{At, Error, Registry, Result};

/// Bytes of a token service's answer.
const LONGEST_TOKEN: u64 = 1 << 20;
const FORM: &str = "application/x-www-form-urlencoded";
const CLIENT: &str = "bosun";

/// Who wants to be let in where.
pub(crate) struct Question<'a> {
    pub(crate) base: &'a Url,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) credentials: Option<&'a Credentials>,
    pub(crate) scope: &'a str,
    pub(crate) at: &'a At,
}

impl Registry {
    /// What to send to a registry that asks so. Nothing when there is nothing to show.
    pub(crate) async fn answer(
        &self,
        asked: &Question<'_>,
        challenge: &Challenge,
    ) -> Result<Option<Granted>> {
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
        let (mut headers, mut home_headers) = (HeaderMap::new(), HeaderMap::new());
        let mut form = None;
        if let Some(Secret::IdentityToken(token)) = secret {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(FORM));
            form = Some(refresh_form(service, &scopes, token));
        } else {
            add_query(&mut url, service, &scopes, secret, offline);
        }
        if let Some(Secret::Password { username, password }) = secret {
            let value = basic(username, password);
            home_headers.extend(value.map(|value| (header::AUTHORIZATION, value)));
        }
        let away = asked.endpoint.tls.without_identity();
        let tls = if same_origin(asked.base, &url) { &asked.endpoint.tls } else { &away };
        let open = || form.clone().unwrap_or_default().into();
        let upload = Upload { open: &open, sent: Arc::default() };
        let (at, home) = (asked.at, &url.clone());
        let body = form.is_some().then_some(&upload);
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let outgoing = Outgoing { method, url, home, tls, headers, home_headers, body, at };
        let (response, _) = self.follow(outgoing).await?;
        let response = match self.success(response, at).await {
            Err(Error::Denied { at, detail }) => return Err(Error::Unauthorized { at, detail }),
            Err(Error::NotFound { .. } | Error::Status { .. }) => {
                return Err(token_error(at, realm, "its service answers with an error"));
            }
            other => other?,
        };
        let body = self.body(response, at, LONGEST_TOKEN).await?;
        serde_json::from_slice(&body)
            .map_err(|_| token_error(at, realm, "its service answers with what is no token"))
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
    let challenge = challenge::of(&response);
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

/// The address of a token service, when it may see what is to be shown.
fn check_realm(asked: &Question<'_>, realm: &str, secret: bool) -> Result<Url> {
    let problem = |problem| token_error(asked.at, realm, problem);
    let url = Url::parse(realm)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| problem("the address is unusable"))?;
    if is_inner(&url) && !is_inner(asked.base) {
        return Err(problem("this machine's own services are no token service of another host"));
    }
    let plain_at_home =
        asked.base.scheme() == "http" && is_loopback(asked.base) && is_loopback(&url);
    if secret && url.scheme() != "https" && !plain_at_home {
        return Err(problem("credentials are not sent there without TLS"));
    }
    Ok(url)
}

/// The body that shows a refresh token (RFC 6749, section 6).
fn refresh_form(service: &str, scopes: &[&str], token: &str) -> Bytes {
    let scope = scopes.join(" ");
    let fields = [
        ("grant_type", "refresh_token"),
        ("service", service),
        ("client_id", CLIENT),
        ("scope", &scope),
        ("refresh_token", token),
    ];
    let fields = fields.map(|(name, value)| format!("{name}={}", escaped(value)));
    fields.join("&").into()
}

fn add_query(
    url: &mut Url,
    service: &str,
    scopes: &[&str],
    secret: Option<&Secret>,
    offline: bool,
) {
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
        query.extend_pairs([("offline_token", "true"), ("client_id", CLIENT)]);
    }
}

/// As a form has it; all but what never needs it is escaped.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escape =
        |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(escape).collect()
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
