//! HTTP clients: one for each way of speaking TLS, each with its pool of connections.
//!
//! reqwest does HTTP and proxies and no more: redirects and retries are followed here, by rules
//! that it can't know, and bodies are taken as they come.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder, Identity, Url};

use crate::hosts::{authority, is_loopback};
use crate::{Error, Options, Result};

/// What a connection to a host needs.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tls {
    /// PEM, beside the system's own.
    pub(crate) authorities: Vec<Vec<u8>>,
    /// PEM of a certificate and its key.
    pub(crate) identity: Option<Vec<u8>>,
    pub(crate) skip_verify: bool,
    pub(crate) dial_timeout: Option<Duration>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("skip_verify", &self.skip_verify).finish_non_exhaustive()
    }
}

impl Tls {
    /// For another origin: a client's certificate is as good as a password.
    pub(crate) fn without_identity(&self) -> Self {
        Self { identity: None, ..self.clone() }
    }
}

/// All clients, and what is known of hosts on loopback. Clones share them.
#[derive(Clone)]
pub(crate) struct Clients {
    options: Arc<Options>,
    made: Arc<Mutex<HashMap<(Tls, bool), Client>>>,
    plain: Arc<Mutex<HashSet<String>>>,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

impl Clients {
    pub(crate) fn new(options: Arc<Options>) -> Self {
        // reqwest takes the process's own provider; another's choice before this one is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { options, made: Arc::default(), plain: Arc::default() }
    }

    /// The client for an address. A proxy of the environment is for others, never for loopback.
    pub(crate) fn get(&self, tls: &Tls, url: &Url) -> Result<Client> {
        let key = (tls.clone(), is_loopback(url));
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(&key) {
            return Ok(client.clone());
        }
        let client = self.make(tls, key.1).map_err(|source| Error::Client { source })?;
        made.insert(key, client.clone());
        Ok(client)
    }

    fn make(&self, tls: &Tls, direct: bool) -> reqwest::Result<Client> {
        let mut authorities = Vec::new();
        for pem in &tls.authorities {
            authorities.extend(Certificate::from_pem_bundle(pem)?);
        }
        let identity = tls.identity.as_deref().map(Identity::from_pem).transpose()?;
        let builder = || -> ClientBuilder {
            let mut builder = Client::builder()
                .user_agent(&self.options.user_agent)
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .http1_only()
                .connect_timeout(tls.dial_timeout.unwrap_or(self.options.connect_timeout))
                .tls_danger_accept_invalid_certs(tls.skip_verify);
            if let Some(identity) = &identity {
                builder = builder.identity(identity.clone());
            }
            if direct { builder.no_proxy() } else { builder }
        };
        match builder().tls_certs_merge(authorities.clone()).build() {
            Ok(client) => Ok(client),
            Err(error) => {
                // A machine without any certificates still has its loopback and its own authorities.
                tracing::warn!(%error, "the system's certificates can't be used");
                builder().tls_certs_only(authorities).build()
            }
        }
    }

    /// Whether a host on loopback was found to speak without TLS.
    pub(crate) fn is_plain(&self, url: &Url) -> bool {
        self.plain.lock().unwrap_or_else(PoisonError::into_inner).contains(&authority(url))
    }

    pub(crate) fn set_plain(&self, url: &Url, plain: bool) {
        let mut known = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
        if plain {
            known.insert(authority(url))
        } else {
            known.remove(&authority(url))
        };
    }
}
