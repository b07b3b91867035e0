//! What bosund and bosun-shim must agree on, and nothing else.
//!
//! | module | what both sides must agree on |
//! |---|---|
//! | [`id`] | which names are ids, so that an id is always a safe path component |
//! | [`files`] | the name of every file and socket of a container |
//! | [`exit`] | the exit record: the one durable fact that the shim makes |
//! | [`lifecycle`] | the exit protocol: the states of both sides, as pure functions |
//! | [`exec`] | the states of the further processes |
//! | [`protocol`] | the versions of what is said, and which of them two builds share |
//! | [`removal`] | what is taken away after an end, and in which order |
//! | [`plan`] | what the shim executes: an OCI spec lowered to kernel terms |
//! | [`hooks`] | programs to run at points of a container's life |
//! | [`task`] | containerd's task API (v2 and v3 share these messages) |
//! | [`metrics`] | a task's statistics, as containerd has them |
//! | [`containerd`] | what containerd and a shim say beside it: start, events, options |
//! | [`shim`] | what that API lacks: release of an exit, reopening of a log, status |
//! | [`ttrpc`] | the frames that carry both, without I/O |
//! | [`attach`] | the frames of the attach socket, without I/O |
//!
//! Deliberately absent: I/O, descriptors, threads, JSON libraries. The shim links all of this, so
//! everything here has to earn its place in its memory.
#![forbid(unsafe_code)]

pub mod attach;
pub mod containerd;
pub mod exec;
pub mod exit;
pub mod files;
pub mod hooks;
pub mod id;
pub mod lifecycle;
pub mod metrics;
pub mod plan;
pub mod protocol;
pub mod removal;
pub mod shim;
pub mod task;
pub mod ttrpc;
