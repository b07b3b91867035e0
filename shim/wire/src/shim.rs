//! `bosun.shim.v1.Shim`: what containerd's task API lacks.
//!
//! | method | request | response | meaning |
//! |---|---|---|---|
//! | `Status` | [`Empty`](crate::task::Empty) | [`StatusResponse`] | everything a daemon that just started asks |
//! | `Release` | [`ReleaseRequest`] | [`Empty`](crate::task::Empty) | the exit is committed: the shim may go |
//! | `ReopenLog` | [`Empty`](crate::task::Empty) | [`Empty`](crate::task::Empty) | opens the log file by its path again |

use prost::Message;

use crate::protocol::Versions;

pub const SERVICE: &str = "bosun.shim.v1.Shim";

#[derive(Clone, PartialEq, Eq, Message)]
pub struct StatusResponse {
    /// The exit protocol's state.
    #[prost(enumeration = "Phase", tag = "1")]
    pub phase: i32,
    /// The run that this shim serves, counted from 1; 0 before Create.
    #[prost(uint64, tag = "2")]
    pub attempt: u64,
    /// The container's first process; 0 before Create.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    /// Its start (CLOCK_REALTIME, at the answer to Start).
    #[prost(message, optional, tag = "4")]
    pub started_at: Option<crate::task::Timestamp>,
    #[prost(string, repeated, tag = "5")]
    pub execs: Vec<String>,
    #[prost(uint32, tag = "6")]
    pub attached: u32,
    /// Bytes of output that a full disk kept out of the log.
    #[prost(uint64, tag = "7")]
    pub log_bytes_lost: u64,
    /// The shim's own version, as its package has it.
    #[prost(string, tag = "8")]
    pub version: String,
    /// What it understands (see [`protocol`](crate::protocol)).
    #[prost(uint32, tag = "9")]
    pub oldest_protocol: u32,
    #[prost(uint32, tag = "10")]
    pub newest_protocol: u32,
    /// It stands still until it is resumed.
    #[prost(bool, tag = "50")]
    pub paused: bool,
    /// What a pod's containers join.
    #[prost(message, repeated, tag = "100")]
    pub namespaces: Vec<HeldNamespace>,
}

impl StatusResponse {
    /// What the shim understands.
    #[must_use]
    pub fn versions(&self) -> Versions {
        Versions { oldest: self.oldest_protocol, newest: self.newest_protocol }
    }
}

/// A namespace that the shim holds: `/proc/SHIM/fd/DESCRIPTOR` leads to it.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct HeldNamespace {
    /// The CLONE_NEW* flag that names its kind.
    #[prost(uint64, tag = "1")]
    pub kind: u64,
    #[prost(uint32, tag = "2")]
    pub descriptor: u32,
}

/// [`ShimState`](crate::lifecycle::ShimState) on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Phase {
    Empty = 0,
    Created = 1,
    Running = 2,
    Draining = 3,
    Recording = 4,
    Recorded = 5,
    Released = 6,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ReleaseRequest {
    /// The run whose exit was committed; another number is refused.
    #[prost(uint64, tag = "1")]
    pub attempt: u64,
}
