//! The client of OCI registries: hosts and mirrors, credentials, pull, push.
//!
//! ```text
//!   Registry ─ repository(name) ─▶ Repository ─ resolve, manifest, blob, push… ─▶ one pass:
//!                                                 mirrors in order, then the server
//!                                                   └▶ transport: scheme, token, redirects
//!   again, after a pause ◀──────────── too many requests, 5xx, broke off, stalled
//! ```
//!
//! A registry is a stranger. What it sends is bounded in size and in time, and is checked against the
//! digest that led to it; where it points gets no credentials, and neither does a mirror, an error or
//! a log.
//!
//! Deliberately absent: where bytes are kept (the digest of a blob is checked by who keeps it, as its
//! bytes may come in parts and over restarts), docker's configuration file (its reader is the
//! client), and `urls` in manifests, which nobody follows.
#![forbid(unsafe_code)]

mod auth;
mod blob;
mod body;
mod challenge;
mod clients;
mod error;
mod hosts;
mod push;
mod repository;
mod retry;
mod session;
mod token;
mod transport;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bosun_image::Reference;

pub use auth::{Credentials, Secret};
pub use blob::Blob;
pub use error::{At, Error, Result, Tried};
pub use push::Pushed;
pub use repository::{Repository, Resolved};
pub use retry::Retry;

/// How the client behaves. The defaults suit a daemon on a network of today.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directories with `HOST/hosts.toml`, or `HOST/*.crt` as docker has them; the first that knows
    /// a host counts.
    pub certs_dirs: Vec<PathBuf>,
    pub user_agent: String,
    /// For a connection with its TLS handshake; `dial_timeout` of a host's file goes before it.
    pub connect_timeout: Duration,
    /// From the end of a request to the headers of its answer.
    pub response_timeout: Duration,
    /// The longest pause in a body.
    pub idle_timeout: Duration,
    /// Bytes per second that a body has to come with, in the mean of a window.
    pub minimum_rate: u64,
    pub rate_window: Duration,
    /// How often something is tried in all, before its error stands.
    pub attempts: u32,
    /// The pause before the second attempt; each further one is twice as long.
    pub first_pause: Duration,
    /// The longest pause, whatever a registry asks for.
    pub longest_pause: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            certs_dirs: Vec::new(),
            user_agent: concat!("bosun/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(15),
            response_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
            minimum_rate: 1024,
            rate_window: Duration::from_secs(30),
            attempts: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
        }
    }
}

/// All registries: connection pools and tokens. Clones share them.
#[derive(Clone, Debug)]
pub struct Registry {
    options: Arc<Options>,
    clients: clients::Clients,
    tokens: auth::Tokens,
}

impl Registry {
    /// A client without any connection yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let options = Arc::new(options);
        let clients = clients::Clients::new(Arc::clone(&options));
        Self { options, clients, tokens: auth::Tokens::default() }
    }

    /// The repository of an image. The host's file is read anew each time.
    ///
    /// # Errors
    /// The credentials are another host's, or the host's file can't be used.
    pub async fn repository(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<Repository> {
        let foreign = credentials.as_ref().filter(|given| given.host() != reference.domain());
        if let Some(given) = foreign {
            let (host, registry) = (given.host().to_owned(), reference.domain().to_owned());
            return Err(Error::ForeignCredentials { host, registry });
        }
        let endpoints = hosts::endpoints(&self.options.certs_dirs, reference.domain()).await?;
        Ok(Repository::new(self.clone(), reference.clone(), endpoints, credentials))
    }

    /// Whether a host takes these credentials. Gives what to keep in place of a password, if the
    /// host's token service offers that.
    ///
    /// # Errors
    /// [`Error::Unauthorized`]: it does not; or it can't be reached.
    pub async fn login(&self, credentials: Credentials) -> Result<Option<String>> {
        let host = credentials.host().to_owned();
        let endpoints = hosts::endpoints(&self.options.certs_dirs, &host).await?;
        token::login(self, &host, &endpoints, &credentials).await
    }
}
