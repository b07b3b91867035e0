//! Builds a container from a plan, and joins one for an exec.
//!
//! ```text
//!  parent (the shim)                        child (becomes the container's first process)
//!  ─────────────────                        ─────────────────────────────────────────────
//!  group in the unified hierarchy
//!  clone3 ────────────────────────────────▶ join namespaces, own mount tree
//!  groups and limits in the v1 hierarchies  overlay, mounts, devices       (side by side)
//!  ◀──────────────────────────── Terminal ─ pty of the container's own devpts
//!                                           masks, read-only paths
//!  CgroupReady ───────────────────────────▶ join v1 groups, unshare and mount them
//!  hooks ◀──────────────────────── Assembled
//!  GoOn ──────────────────────────────────▶ hooks
//!                                           pivot_root
//!  ◀─────────────────────────────── Ready ─ user, directory, command are found
//!  Start ─────────────────────────────────▶ limits, identity, capabilities, seccomp, exec
//!  ◀───────────────────── end of the socket or Failed
//! ```
//!
//! A parent that has to go in between hands over what waits to the next one, which starts it:
//!
//! ```text
//!  HandOver ──────────────────────────────▶ waits at the socket that came with it
//!  Start (of another process) ────────────▶ as above
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`create`](crate::create()), [`exec`](crate::exec()) | the parent's side |
//! | `child` | the child's side, in order |
//! | `midwife`, `userns` | how a container gets into a user namespace |
//! | `channel` | the socket between them |
//! | `namespaces`, `time` | namespaces of others, and clocks |
//! | `tree` | the container's mounts as a whole |
//! | `mounts`, `overlay`, `cgroupfs` | single mounts, detached until they are complete |
//! | `copyup` | what a tmpfs starts with |
//! | `setattr` | mount attributes, also on kernels that can't change what is detached |
//! | `hide` | masked and read-only paths |
//! | `dev`, `stdio` | device nodes, the pty, descriptors 0 to 2 |
//! | `parameters` | host name, kernel parameters |
//! | `procfs` | procfs that a container can't redirect |
//! | [`hooks`] | programs to run at points of the container's life |
//! | [`state`] | the container's state as JSON |
//! | `user`, `command` | who runs what, by the rootfs' own files |
//! | `lsm` | labels of security modules |
//! | `notify` | listeners of seccomp notifications |
//! | `credentials` | the last steps before exec |
//! | [`init`] | the tiny init of `--init`, and the one process of a pod with a pid namespace |
//! | [`sandbox`](crate::sandbox()) | a pod's namespaces, without a process |
//! | [`program`] | the caller's own program, out of a container's reach |
//!
//! The parent touches little memory and never reads the plan; the child allocates freely, for its
//! memory goes with its exec. No mount ever appears in the mount table of the caller.
//!
//! Deliberately absent: JSON libraries, threads, and rootless operation.
#![forbid(unsafe_code)]

mod cgroupfs;
mod channel;
mod checkpoint;
mod child;
mod command;
mod copyup;
mod create;
mod credentials;
mod criu;
mod dev;
mod error;
mod exec;
mod hide;
pub mod hooks;
pub mod init;
mod lsm;
mod midwife;
mod mounts;
mod namespaces;
mod notify;
mod overlay;
mod parameters;
mod process;
mod procfs;
pub mod program;
mod restore;
mod sandbox;
mod setattr;
pub mod state;
mod stdio;
mod time;
mod tree;
mod user;
mod userns;

pub use checkpoint::{Checkpoint, checkpoint};
pub use create::{Created, create, create_kept, mount_namespace_of};
pub use error::{Error, HookProblem, Kind, Rule, Step, UserProblem};
pub use exec::{ExecTarget, exec};
pub use namespaces::{Held, namespaces_of};
pub use process::{ProcessIo, Waiting, start_at};
pub use sandbox::sandbox;
