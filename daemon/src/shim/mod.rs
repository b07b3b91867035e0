//! Shims, seen from the daemon: starting one, talking to it, its streams, its end.
//!
//! | module | |
//! |---|---|
//! | `launch` | spawns a shim with its listening socket and its descriptors |
//! | `client` | the task API and our own service over ttrpc, every call with a deadline |
//! | `attach` | the streams of a process |
//! | `process` | a shim as a process: its identity, its end |
//!
//! Nothing here knows of records or stores.

mod attach;
mod client;
mod launch;
mod process;

pub use attach::{AttachReader, AttachWriter, Attached, Output, attach};
pub use client::{Client, Exited, Metrics};
pub use launch::{Launch, Program, launch};
pub use process::{ShimProcess, boot_id, is_alive, living, read_identity};

use shim_wire::protocol::{self, Versions};
use shim_wire::ttrpc::Code;

/// What this daemon understands of shims.
pub(crate) fn understood() -> Versions {
    Versions {
        oldest: shim_failpoints::number("daemon.protocol.oldest", protocol::OWN.oldest),
        newest: shim_failpoints::number("daemon.protocol.newest", protocol::OWN.newest),
    }
}

/// What can go wrong between the daemon and a shim.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("shim: {step}: {source}")]
    Io { step: &'static str, source: std::io::Error },
    /// The container's part answered: the step, the thing and the cause are in the message.
    #[error("{message}")]
    Refused { code: Code, message: String },
    #[error("shim: {method}: no answer within {seconds} s")]
    TimedOut { method: &'static str, seconds: u64 },
    #[error("shim: {method}: the shim is gone")]
    Gone { method: &'static str },
    #[error("shim: {method}: an answer that can't be read: {problem}")]
    Malformed { method: &'static str, problem: String },
    #[error("shim: attach: {message}")]
    AttachRefused { message: String },
}

impl From<shim_failpoints::Stumble> for Error {
    fn from(stumble: shim_failpoints::Stumble) -> Self {
        Self::Io { step: "pass a failpoint", source: stumble.into() }
    }
}
