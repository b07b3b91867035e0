//! The harness: real daemons, shims and clients in places of their own, and a look for leftovers.
//!
//! | module | what it hides |
//! |---|---|
//! | [`daemon`] | a bosund with its own root, cgroups, bridge and network namespace |
//! | [`containerd`] | Debian's containerd, with bosun's shim as a runtime |
//! | [`ctl`] | one run of the client: words in, output and exit code out |
//! | [`terminal`] | the same on a pseudo terminal, as a person has it |
//! | [`api`] | the gRPC API over the daemon's socket |
//! | [`messages`] | random messages of every method of the API |
//! | [`netns`] | network namespaces, and running code inside one |
//! | [`http`] | one request, from inside a network namespace |
//! | [`http2`] | frames by hand, over the daemon's socket |
//! | [`http_server`] | a server there whose every byte a test decides |
//! | [`tar`] | tars as data, also those that no tool would write |
//! | [`image`] | images as data |
//! | [`archive`] | images in files: OCI layouts, OCI and docker archives |
//! | [`registry`] | Debian's docker-registry: plain, with TLS, with passwords, with tokens |
//! | [`fake_registry`] | one that misbehaves as it is told |
//! | [`tree`] | whole trees of files, compared |
//! | [`canary`] | files of the host that nothing may reach |
//! | [`swapper`] | two names that change places all the time |
//! | [`criu`] | a program in criu's place, where the kernel is not criu's |
//! | [`device`] | a device that can be opened, if nobody keeps one from it |
//! | [`elf`] | programs of a few machine instructions |
//! | [`disk`] | small disks that can be full, broken or cut off |
//! | [`process`] | what the host's /proc says about a process |
//! | [`leak`] | what a daemon left on the machine |
//! | [`kubelet`] | a kubelet's side: pods and containers over the CRI |
//! | [`nri`] | a plugin of a node, as a test wants it to behave |
//! | [`matrix`] | the fault matrix: rows, points, faults, and what must be true all the same |
//! | [`wait`] | conditions with deadlines; nothing here sleeps blindly |
//!
//! Deliberately absent: mocks. Whatever a test says, it says about the programs in `bin/`.
#![forbid(unsafe_code)]

pub mod api;
pub mod archive;
pub mod canary;
pub mod containerd;
pub mod criu;
pub mod ctl;
pub mod daemon;
pub mod device;
pub mod disk;
pub mod elf;
pub mod executable;
pub mod fake_registry;
pub mod http;
pub mod http2;
pub mod http_server;
pub mod image;
pub mod kubelet;
pub mod leak;
pub mod matrix;
pub mod messages;
pub mod netns;
pub mod nri;
pub mod process;
pub mod registry;
pub mod swapper;
pub mod tar;
pub mod terminal;
pub mod tree;
pub mod wait;
