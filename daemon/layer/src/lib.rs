//! Layers of files.
#![forbid(unsafe_code)]
mod error;
mod limits;
pub mod tar;
pub use error::{Error, Problem, Result, Rule};
pub use limits::Limits;
