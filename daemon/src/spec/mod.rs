//! From what a user asks for to an OCI runtime spec, once for all faces.
//!
//! ```text
//!   Execution ─ merge_image()
//!        ▼
//!   ContainerOptions ──▶ generate() ──▶ config.json (Generated)      at create
//!        │                 checked against Machine and the host
//!        ├──▶ etc_files()                resolv.conf, hosts, hostname  at each start
//!        ├──▶ plan_context()             what shim_plan::plan() needs   at each start
//!        ├──▶ exec_options()             a further process              at each exec
//!        └──▶ update()                   config.json with other limits  at an update
//! ```
//!
//! | module | owns |
//! |---|---|
//! | `request`, `signal`, `log` | the request, as `options.json` has it |
//! | `image` | an image's configuration, merged into the request |
//! | `machine` | what must be known of the machine |
//! | `generate` | the spec as a whole: process, namespaces |
//! | `identity` | user, host name, working directory, environment |
//! | `mounts` | default mounts, binds, covers of bosun's own directories |
//! | `privileges` | capabilities, masked paths, devices, seccomp, AppArmor |
//! | `limits` | limits and their bounds |
//! | `etc` | the files of /etc |
//! | `cdi` | what CDI devices bring |
//! | `foreign` | spec and process as runtimes of others take them |
//! | `exec` | a further process, from the container's own |
//! | `name` | names for containers that were given none |
//! | `adjust` | what is changed of a spec after it was made |
//! | `pod` | what only containers of pods are asked for |
//! | `plan` | the part of a plan's context that the request decides |
//!
//! Deliberately absent: finding images; writing any file.

mod adjust;
mod cdi;
mod error;
mod etc;
mod exec;
mod foreign;
mod generate;
mod identity;
mod image;
mod limits;
mod log;
mod machine;
mod mounts;
mod name;
mod plan;
mod pod;
mod privileges;
mod request;
mod signal;
#[cfg(test)]
mod tests;

pub use adjust::{Adjustment, NamespaceChange};
pub use cdi::hooks_see_root;
pub use error::Error;
pub use etc::{FALLBACK as FALLBACK_RESOLVERS, etc_files, hostname};
pub use exec::{ExecRequest, exec_options, exec_user};
pub use foreign::{Joined, bundle_config, check_foreign};
pub use generate::{Generated, Surroundings, generate};
pub use image::merge_image;
pub use limits::{Change, Update, update};
pub use log::LogOptions;
pub use machine::Machine;
pub use name::generated_name;
pub use plan::{PlanPlace, plan_context};
pub use pod::{AppArmor, DeviceRequest, ImageMount, PidMode, Resolver, Seccomp, Security, Selinux};
pub use privileges::{apparmor_profile, warm_up};
pub use request::{
    BindMount, ContainerOptions, DeviceLimit, IdMapping, Limits, NetworkMode, Port, Propagation,
    Protocol, RestartPolicy, Restore, Role, Sandbox, Users, Volume, WindowSize,
};
pub use signal::Signal;
