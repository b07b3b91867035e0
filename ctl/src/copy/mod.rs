//! Files of this machine on their way.
//!
//! ```text
//! pack      files of this machine into a tar
//! ```

mod pack;

use std::io;
use std::path::PathBuf;

pub(crate) use pack::{Pack, pack};

/// Why files can't be copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("cannot read {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot pack {}: {source}", .path.display())]
    Pack { path: PathBuf, source: bosun_layer::Error },
}
