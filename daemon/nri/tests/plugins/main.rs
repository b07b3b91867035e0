//! The runtime's side over real sockets, against plugins that behave and others.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod asking;
mod joining;
mod world;

/// The one that the tests of the whole daemon have.
#[path = "../../../../integration/src/nri.rs"]
#[allow(dead_code, unreachable_pub, reason = "those tests use more of it")]
mod plugin;
