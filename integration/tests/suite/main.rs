//! One test program over the real binaries: a module per topic, one behaviour per test.
//!
//! Every test has a daemon, a network namespace and directories of its own, so they run side by
//! side; and each ends with a look for leftovers (see `integration::daemon`).
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that meets a missing value has failed")]

mod architecture;
mod archives;
mod attach;
mod bad_input;
mod bad_registry;
mod budgets;
mod cdi;
mod checkpoint;
mod commit;
mod containerd;
mod content;
mod corruption;
mod cp;
mod credentials;
mod cri;
mod daemon_process;
mod disk_full;
mod events;
mod exec;
mod exit_status;
mod gc;
mod hostile_layers;
mod image_config;
mod image_crash;
mod image_listing;
mod image_names;
mod lifecycle;
mod limits;
mod listing;
mod logs;
mod lost_evidence;
mod main_job;
mod matrix;
mod mounts;
mod names;
mod network;
mod pause;
mod pods;
mod ports;
mod pull;
mod push;
mod recovery;
mod request_id;
mod rootfs;
mod runtimes;
mod seccomp;
mod security;
mod shim_lost;
mod snapshots;
mod terminal;
mod unpack;
mod update;
mod users;
