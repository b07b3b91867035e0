//! Paths inside a rootfs, and the overlay that a rootfs is.
//!
//! | module | what |
//! |---|---|
//! | [`Root`] | every path inside a rootfs: the one way in |
//! | [`overlay`] | a rootfs assembled from layers, attached nowhere |
//! | [`user`] | who a process shall be, by the rootfs' own files |
//!
//! The shim builds containers with it, the daemon and its client unpack, copy and look files up.
//!
//! Deliberately absent: anything that writes a file's content, and any mount table.
#![forbid(unsafe_code)]

mod error;
pub mod overlay;
mod root;
pub mod user;

pub use error::{Error, Rule, Step};
pub use root::{Leaf, Root};
