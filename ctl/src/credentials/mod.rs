//! Credentials of registries, where docker keeps them: the `config.json` of `$DOCKER_CONFIG` or
//! `~/.docker`, and the helpers that it names.
//!
//! What is found here is handed to the daemon for the one host that it belongs to, and goes nowhere
//! else: never into a helper's arguments, never into an error. The parsers' own errors quote what
//! they read, so they are left out as well.

mod config;
mod helper;
mod key;

use std::io;
use std::path::PathBuf;

use bosun_proto::v1::RegistryAuth;

use config::Config;
use helper::Helper;
pub(crate) use key::host_of;

/// Why credentials can't be read or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    #[error("cannot {step} {}: {source}", .path.display())]
    File { step: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{} is not docker's configuration: line {line}, column {column}: mend it, or name another directory with DOCKER_CONFIG",
        .path.display()
    )]
    Malformed { path: PathBuf, line: usize, column: usize },
    #[error(
        "{}: the entry of {key} in \"auths\" can't be read: log in again with \"ctl login {key}\"",
        .path.display()
    )]
    Entry { path: PathBuf, key: String },
    #[error(
        "{}: \"{name}\" is no name of a credential helper: want the part behind \"docker-credential-\"",
        .path.display()
    )]
    HelperName { path: PathBuf, name: String },
    #[error("cannot run {program}: {source}: install it, or take it out of {}", .path.display())]
    HelperStart { program: String, path: PathBuf, source: io::Error },
    #[error("{program} {action}: {said}")]
    HelperFailed { program: String, action: &'static str, said: String },
    #[error("{program} {action} did not end within {seconds} seconds")]
    HelperHung { program: String, action: &'static str, seconds: u64 },
    #[error("{program} get answered with something else than credentials")]
    HelperAnswer { program: String },
    #[error(
        "cannot tell where docker's configuration is: HOME is not set: set it, or DOCKER_CONFIG"
    )]
    NoHome,
}

/// What was kept of a login.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// In a helper.
    Safe,
    /// In this file, for everybody who can read it.
    Unencrypted(PathBuf),
}

/// The credentials of one user.
#[derive(Debug)]
pub(crate) struct Credentials {
    config: Config,
}

impl Credentials {
    /// Reads docker's configuration; one that does not exist is empty.
    pub(crate) fn open() -> Result<Self, CredentialError> {
        Config::open().map(|config| Self { config })
    }

    /// What there is for a registry's host, as an image's name has it. Nothing is no error: most
    /// images are public.
    pub(crate) async fn find(&self, host: &str) -> Result<Option<RegistryAuth>, CredentialError> {
        let found = match self.helper(host)? {
            Some(helper) => helper.get(&key::of(host)).await?,
            None => self.config.auth(host)?,
        };
        Ok(found.map(|auth| RegistryAuth { host: host.to_owned(), ..auth }))
    }

    /// Keeps what a registry has accepted.
    pub(crate) async fn keep(&mut self, auth: &RegistryAuth) -> Result<Kept, CredentialError> {
        let key = key::of(&auth.host);
        match self.helper(&auth.host)? {
            Some(helper) => {
                helper.store(&key, auth).await?;
                // docker lists there what its helpers have.
                self.config.set(&key, serde_json::Map::new())?;
                Ok(Kept::Safe)
            }
            None => {
                self.config.set(&key, config::entry(auth))?;
                Ok(Kept::Unencrypted(self.config.path().to_owned()))
            }
        }
    }

    /// Forgets a host, in whatever spelling it was kept.
    pub(crate) async fn erase(&mut self, host: &str) -> Result<(), CredentialError> {
        if let Some(helper) = self.helper(host)? {
            helper.erase(&key::of(host)).await?;
        }
        self.config.remove(host)
    }

    fn helper(&self, host: &str) -> Result<Option<Helper>, CredentialError> {
        let Some(name) = self.config.helper(host) else { return Ok(None) };
        Helper::new(name, self.config.path()).map(Some)
    }
}
