//! Credentials and what is granted for them.
//!
//! ```text
//!   401 Basic  ─▶ the password itself
//!   401 Bearer ─▶ the token service that the registry names: password, identity token or nobody
//!                 ─▶ a token for a scope, kept until shortly before its end
//! ```
//!
//! A token is kept under the origin, the scope and the credentials it was granted for, so that no
//! user ever rides on another's.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// What a user shows to one registry, and to no other.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    host: String,
    secret: Secret,
}

/// The secret part. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Password {
        username: String,
        password: String,
    },
    /// A token service's refresh token (OAuth2), in place of a password.
    IdentityToken(String),
    /// A bearer token for the registry itself.
    RegistryToken(String),
}

impl Credentials {
    /// Credentials for a host, as it stands in an image's name.
    #[must_use]
    pub fn new(host: &str, secret: Secret) -> Self {
        let host = match host {
            // What docker's configuration calls it.
            "https://index.docker.io/v1/" | "index.docker.io" | "registry-1.docker.io" => {
                "docker.io"
            }
            other => other,
        };
        Self { host: host.to_owned(), secret }
    }

    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }

    fn fingerprint(&self) -> [u8; 32] {
        let parts: [&str; 4] = match &self.secret {
            Secret::Password { username, password } => ["password", &self.host, username, password],
            Secret::IdentityToken(token) => ["identity", &self.host, "", token],
            Secret::RegistryToken(token) => ["registry", &self.host, "", token],
        };
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("host", &self.host).finish_non_exhaustive()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password(…)",
            Self::IdentityToken(_) => "IdentityToken(…)",
            Self::RegistryToken(_) => "RegistryToken(…)",
        })
    }
}

/// The header of a name and a password.
pub(crate) fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    header("Basic ", &STANDARD.encode(format!("{username}:{password}")))
}

/// The header of a token; nothing when the token can't be in one.
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    header("Bearer ", token)
}

fn header(scheme: &str, secret: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("{scheme}{secret}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What a token service answers (distribution specification, token response).
#[derive(Deserialize)]
pub(crate) struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
    /// To be kept in place of the password.
    pub(crate) refresh_token: Option<String>,
}

impl Answer {
    /// The header to send, and until when.
    pub(crate) fn granted(&self) -> Option<Granted> {
        /// What a token is good for when its service does not say.
        const DEFAULT: u64 = 60;
        /// Not used in its last seconds: it has to last for the way.
        const MARGIN: u64 = 10;
        const LONGEST: u64 = 3600;
        let token = if self.token.is_empty() { &self.access_token } else { &self.token };
        let header = bearer(token).filter(|_| !token.is_empty())?;
        let seconds = self.expires_in.unwrap_or(DEFAULT).min(LONGEST).saturating_sub(MARGIN);
        Some(Granted { header, until: Some(Instant::now() + Duration::from_secs(seconds)) })
    }
}

/// A header that a registry took, or is expected to take.
#[derive(Clone, Debug)]
pub(crate) struct Granted {
    pub(crate) header: HeaderValue,
    /// Without an end: a password.
    pub(crate) until: Option<Instant>,
}

/// For what something was granted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Grant {
    origin: String,
    scope: String,
    who: Option<[u8; 32]>,
}

impl Grant {
    pub(crate) fn new(origin: String, scope: &str, who: Option<&Credentials>) -> Self {
        Self { origin, scope: scope.to_owned(), who: who.map(Credentials::fingerprint) }
    }
}

/// All that was granted and has not ended. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Tokens(Arc<Mutex<HashMap<Grant, Granted>>>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    pub(crate) fn get(&self, grant: &Grant) -> Option<HeaderValue> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, granted| granted.until.is_none_or(|until| until > Instant::now()));
        all.get(grant).map(|granted| granted.header.clone())
    }

    pub(crate) fn keep(&self, grant: Grant, granted: Granted) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(grant, granted);
    }

    pub(crate) fn forget(&self, grant: &Grant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(grant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(password: &str) -> Credentials {
        let (username, password) = ("user".to_owned(), password.to_owned());
        Credentials::new("host", Secret::Password { username, password })
    }

    #[test]
    fn nothing_prints_a_secret() {
        let all = [
            password("hunter2").secret,
            Secret::IdentityToken("hunter2".into()),
            Secret::RegistryToken("hunter2".into()),
        ];
        for secret in all {
            let printed = format!("{:?} {secret:?}", Credentials::new("host", secret.clone()));
            assert!(!printed.contains("hunter2") && printed.contains("host"), "{printed}");
        }
        let granted = Granted { header: basic("user", "hunter2").unwrap(), until: None };
        let encoded = STANDARD.encode("user:hunter2");
        assert!(!format!("{granted:?}").contains(&encoded));
    }

    #[test]
    fn a_token_is_for_its_origin_scope_and_credentials_alone() {
        let tokens = Tokens::default();
        let (mine, other) = (password("a"), password("b"));
        let grant = |origin: &str, scope, who| Grant::new(origin.to_owned(), scope, who);
        let granted = Granted { header: bearer("t").unwrap(), until: None };
        tokens.keep(grant("https://h", "pull", Some(&mine)), granted);
        assert!(tokens.get(&grant("https://h", "pull", Some(&mine))).is_some());
        for (origin, scope, who) in [
            ("http://h", "pull", Some(&mine)),
            ("https://h", "push", Some(&mine)),
            ("https://h", "pull", Some(&other)),
            ("https://h", "pull", None),
        ] {
            assert!(tokens.get(&grant(origin, scope, who)).is_none(), "{origin} {scope}");
        }
    }

    #[test]
    fn a_token_ends_before_its_service_says() {
        let answer = |text: &str| serde_json::from_str::<Answer>(text).unwrap().granted();
        let soon = answer(r#"{"token":"t","expires_in":5}"#).unwrap();
        assert!(soon.until.unwrap() <= Instant::now());
        let later = answer(r#"{"access_token":"t","expires_in":99999999999}"#).unwrap();
        assert!(later.until.unwrap() > Instant::now() + Duration::from_secs(3000));
        assert!(answer(r#"{"token":""}"#).is_none());
        assert!(answer(r#"{"token":"a\r\nb"}"#).is_none());
    }
}
