//! What an image is: references, descriptors, indexes, manifests, configurations, platforms.
//!
//! Everything here comes from outside: a registry, an archive, a user's command line. So every type
//! is made by parsing, and a value of it is well-formed; sizes and counts are bounded before memory
//! is spent; a document that two readers could take for two things is refused.
//!
//! Deliberately absent: I/O, where an image comes from or is kept, and what is in a layer.
#![forbid(unsafe_code)]

mod bounded;
mod config;
mod descriptor;
mod digest;
mod document;
mod draft;
mod error;
mod label;
pub mod media_type;
mod platform;
mod reference;

pub use config::{Config, Execution, History, chain_ids};
pub use descriptor::Descriptor;
pub use digest::{Digest, InvalidDigest};
pub use document::{Document, Index, Manifest};
pub use draft::Draft;
pub use error::{Error, NameProblem, Result};
pub use label::{is_reserved, take_reserved};
pub use media_type::{Compression, Kind};
pub use platform::{Platform, choose};
pub use reference::Reference;

/// The most bytes that an index, a manifest or a configuration may have: 8 MiB, twice what the
/// distribution specification asks registries to take.
pub const MAX_DOCUMENT: usize = 8 << 20;
/// The most layers of an image. Overlay file systems stack 500 at most, docker builds 127 at most.
pub const MAX_LAYERS: usize = 128;
/// The most entries of an index.
pub const MAX_MANIFESTS: usize = 1000;
/// How deep indexes may lie in each other. Whoever walks them counts.
pub const MAX_DEPTH: usize = 8;
