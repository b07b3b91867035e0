//! Layers of files.
#![forbid(unsafe_code)]
mod apply;
pub mod compress;
mod content;
mod error;
mod limits;
mod node;
mod path;
mod remove;
mod settle;
mod stream;
pub mod tar;
mod tree;
mod xattr;
pub use apply::{Applied, Deferred, apply};
pub use error::{Error, Problem, Result, Rule};
pub use limits::Limits;
pub use settle::{Settled, empty, settle};
pub use tree::Below;
