//! What can go wrong, in words that runc's callers know.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{step} {}: {source}", path.display())]
    File { step: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: exists already: remove it first", path.display())]
    FileExists { path: PathBuf },
    /// A flag that is known and that bosun can't honour.
    #[error("{flag}: {why}")]
    Refused { flag: &'static str, why: &'static str },
    #[error("standard output: {0}")]
    Output(io::Error),
}

impl Error {
    pub(crate) fn file(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { step, path, source }
    }
}
