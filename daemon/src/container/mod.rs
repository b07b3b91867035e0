//! Containers: the record, the one task that owns each, and the way of a run from its intent to its
//! end.
//!
//! ```text
//!             create                start                 exit, committed
//!   (nothing) ──────▶ Created ─────────────▶ Running ─────────────────────▶ Exited ──▶ (removed)
//!                        ▲    ▲  Starting       │                              │
//!                        │    └─ failed ─┘      └──── shim or host lost ──────▶│
//!                        └───────────────────────────── start ────────────────┘
//! ```
//!
//! A running container may be held still (Paused): the shim knows, and nobody else.
//!
//! What is durable of it is [`Run`], whose variants carry the names of the exit protocol
//! (`shim_wire::lifecycle::Durable`); what is volatile is [`Phase`].
//!
//! | module | |
//! |---|---|
//! | `record` | what is durable |
//! | `registry` | names, ids and prefixes; who is where |
//! | `supervisor` | the use cases: create, stop, remove …, and nothing else combines store, registry and actors |
//! | `actor` | the one owner of a container's state, fed by a closed enum of commands |
//! | `held` | holding its processes still for a while |
//! | `usage`, `top` | what a running one uses, and its processes |
//! | `image_mounts` | images as volumes |
//! | `oom_score` | the OOM score of processes that run |
//! | `updating` | limits that are being changed, until that is committed or taken back |
//! | `execs` | the ends of execs, also of those that an earlier daemon began |
//! | `run` | from intent to a running process, and the undoing of it |
//! | `scope` | control groups that systemd makes |
//! | `sandbox` | pods: a sandbox is a container's record and actor whose run holds namespaces instead of a process |
//! | `peer` | the namespaces of another container, or of a sandbox, to join |
//! | `recover` | what a daemon that starts makes of what it finds |

mod actor;
mod adopted;
mod execs;
mod foreign;
mod handle;
mod held;
mod image_mounts;
mod oom_score;
mod peer;
mod record;
mod recover;
mod registry;
mod run;
mod sandbox;
mod scope;
mod supervisor;
mod top;
mod updating;
mod usage;

pub(crate) use actor::{CREATED, POD, UNREADY};
pub(crate) use foreign::identity;
pub use handle::{Handle, Phase, View};
pub use held::Held;
pub use record::{Exit, FromImage, Lease, Reason, Record, Run, Status};
pub use run::{Running, let_go_on, remove_empty_cgroups};
pub use sandbox::network_path;
pub(crate) use supervisor::random_id;
pub use supervisor::{Adjuster, Created, Draft, Supervisor};
pub use top::Processes;
pub(crate) use usage::machine_memory;
pub use usage::{
    DeviceUse, HugepageUse, Interface, Measures, Pressure, Stall, Traffic, Usage, Waited,
};

use shim_wire::id::Id;

/// A container's full name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub namespace: Id,
    pub id: Id,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.id)
    }
}

/// A container as errors name it: what the user called it, and what it is.
fn label(name: &str, id: &str) -> String {
    format!("{name:?} ({})", short(id))
}

/// An id as people see it.
fn short(id: &str) -> String {
    id.chars().take(12).collect()
}
