//! The harness: real daemons, shims and clients in places of their own, and a look for leftovers.
//!
//! | module | what it hides |
//! |---|---|
//! | [`daemon`] | a bosund with its own root, cgroups, bridge and network namespace |
//! | [`ctl`] | one run of the client: words in, output and exit code out |
//! | [`terminal`] | the same on a pseudo terminal, as a person has it |
//! | [`api`] | the gRPC API over the daemon's socket |
//! | [`netns`] | network namespaces, and running code inside one |
//! | [`http`] | one GET, from inside a network namespace |
//! | [`process`] | what the host's /proc says about a process |
//! | [`leak`] | what a daemon left on the machine |
//! | [`wait`] | conditions with deadlines; nothing here sleeps blindly |
//!
//! Deliberately absent: mocks. Whatever a test says, it says about the programs in `bin/`.
#![forbid(unsafe_code)]

pub mod api;
pub mod ctl;
pub mod daemon;
pub mod http;
pub mod leak;
pub mod netns;
pub mod process;
pub mod terminal;
pub mod wait;
