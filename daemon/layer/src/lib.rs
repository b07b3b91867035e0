//! Layers of files: tars in and out, overlay whiteouts, compression.
//!
//! ```text
//!   registry, archive ─▶ apply ─▶ one tree for each layer ─▶ settle ─▶ overlay
//!                                                                        │
//!   layer ◀─ diff ◀─────────────────────────────────────── upper directory
//!   cp, export ◀─ archive ◀─────── a container's root ◀─ extract ◀─ cp
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`apply`](apply()), [`settle`](settle()) | a layer into a tree of its own, beside the others; what it could not know by itself |
//! | [`changes`], [`diff`](diff()) | what an overlay's upper directory changes, as a list and as a layer |
//! | [`archive`](archive()), [`extract`](extract()) | plain archives out of and into trees that are in use |
//! | [`tar`] | entries out of and into a stream |
//! | [`compress`] | gzip and zstd, told by the first bytes |
//! | `stream` | decompression and hashing beside the writing |
//! | `tree` | a layer's tree while it is filled: real paths, open directories, what hides what |
//! | `walk` | a tree that others may be changing, into an archive |
//! | `node`, `content`, `xattr`, `remove` | files by descriptor: made, filled, dressed, removed |
//! | `path` | names of archives as paths below a root |
//!
//! An archive is hostile: all memory is bounded whatever it says, no link in it leads out, and an
//! error names the entry. Everything blocks; callers have threads for it.
//!
//! Deliberately absent: where blobs come from, who mounts what, manifests, and any program: what is
//! compressed is never given to one that could be the container's own.
#![forbid(unsafe_code)]

mod apply;
mod archive;
pub mod compress;
mod content;
mod diff;
mod error;
mod extract;
mod limits;
mod node;
mod path;
mod remove;
mod settle;
mod stream;
pub mod tar;
mod tree;
mod walk;
mod xattr;

pub use apply::{Applied, Deferred, apply};
pub use archive::{ArchiveOptions, archive, archive_content};
pub use diff::{Change, ChangeKind, changes, diff};
pub use error::{Error, Problem, Result, Rule};
pub use extract::{ExtractOptions, extract};
pub use limits::Limits;
pub use node::is_whiteout;
pub use settle::{Settled, empty, settle};
pub use shim_rootfs::Root;
pub use tree::Below;
pub use xattr::OPAQUE;
