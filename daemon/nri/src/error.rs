//! What keeps a pod or container from being what was asked for, because of plugins.

use std::io;
use std::path::{Path, PathBuf};

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Plugins are named by index and name: `10-example`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A plugin said no.
    #[error("NRI plugin {plugin}: {call}: {message}")]
    Refused { plugin: String, call: &'static str, message: String },
    #[error(
        "NRI plugins {first} and {second} both set {what} of container {container}: one of them has to leave it, or take it away first"
    )]
    Conflict { first: String, second: String, what: String, container: String },
    #[error(
        "NRI plugin {plugin}: it updates container {container}, which is only being made: it can be adjusted"
    )]
    UpdateOfNew { plugin: String, container: String },
    #[error("NRI plugin {plugin} does not allow what plugins change of the container: {reason}")]
    Rejected { plugin: String, reason: String },
    /// What nobody looked at is not allowed.
    #[error(
        "NRI plugin {plugin} could not look at what plugins change of the container: {problem}"
    )]
    NotValidated { plugin: String, problem: String },
    #[error("NRI: {}: can't {step}: {source}", path.display())]
    File { step: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "NRI: another runtime listens on {}: name another socket, or switch NRI off in one of both",
        path.display()
    )]
    SocketInUse { path: PathBuf },
}

impl Error {
    pub(crate) fn file(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File { step, path, source }
    }
}
