//! The command line as its callers use it, on real containers. Needs root and busybox-static.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod checkpoint;
mod crash;
mod descriptors;
mod exec;
mod hooks;
mod life_cycle;
mod limits;
mod namespaces;
mod podman;
mod report;
mod sandbox;
mod systemd;
mod terminal;
