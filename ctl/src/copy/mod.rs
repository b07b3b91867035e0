//! Files between here and a container, by docker's rules.
//!
//! ```text
//! rules     what goes where: pure, over paths and what they are
//! pack      files of this machine into a tar
//! rebase    a tar's names made those that are wanted, and what is dangerous left out
//! unpack    a tar of a container's into a directory here, which it can't leave
//! ```

mod pack;
mod rebase;
mod rules;
mod unpack;

use std::io;
use std::path::PathBuf;

pub(crate) use pack::{Pack, pack};
pub(crate) use rules::{Copy, Found, Here, Landing, Origin, There, landing};
pub(crate) use unpack::{Unpack, unpack};

/// Why files can't be copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("neither side is in a container: give one as CONTAINER:PATH")]
    NoContainer,
    #[error("both sides are in containers: copy to here first, or through - and a pipe")]
    TwoContainers,
    #[error("cannot copy a directory to {0}, which is a file: name a directory, or a new name")]
    DirectoryToFile(String),
    #[error("{0} is not a directory: leave out the slash at its end")]
    NotADirectory(String),
    #[error("there is no directory {0}: make it first, or leave out the slash at its end")]
    NoDirectory(String),
    #[error("{0} is not a directory: a tar from stdin is unpacked in one")]
    StreamToFile(String),
    #[error("{0} has no name that a copy could have")]
    NoName(String),
    #[error("cannot read {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot pack {}: {source}", .path.display())]
    Pack { path: PathBuf, source: bosun_layer::Error },
    #[error("cannot unpack in {}: {source}", .path.display())]
    Unpack { path: PathBuf, source: bosun_layer::Error },
    #[error("what the container sent is not what was asked for: {entry:?} is not in {asked:?}")]
    Stray { entry: String, asked: String },
}
