//! Driven by containerd, as the runtime `io.containerd.bosun.v1`: what differs from a shim that bosund
//! drives. The loop, the exit protocol and the container are the same.
//!
//! ```text
//! containerd ── start ─▶ containerd-shim-bosun-v1 ── spawns ─▶ bosun-shim --containerd SOCK
//!     │                                                          │      │
//!     ├── ttrpc: Create, Start, Exec … ─────────────────────────▶│      └─ spawns ─▶ bosun-oci lower
//!     │◀─ ttrpc: Events/Forward ─────────────────────────────────┤                   (and goes again)
//!     └── delete, when nothing answers ─▶ kills by cgroup and identity
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`command`] | the command line that containerd knows |
//! | `start`, `delete` | its verbs |
//! | [`lower`] | JSON to the shim's own options, and scopes of systemd's, in another process |
//! | [`task`] | what a call does more than under bosund: streams, events, release |
//! | [`events`] | the events' way to containerd |
//! | [`logger`] | `binary://` |
//!
//! One shim serves one container, a pod's too. It owns everything that it made: with Delete the
//! cgroup and the rootfs go, with Shutdown the shim and its sockets. Deliberately absent: the sandbox
//! API, and mounts in the host's table.

pub(crate) mod command;
mod delete;
pub(crate) mod events;
pub(crate) mod logger;
pub(crate) mod lower;
mod start;
pub(crate) mod task;

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use shim_cgroup::OomWatch;
use shim_wire::files::RunDir;

use self::events::Publisher;
use self::logger::Logger;
use crate::args::Arguments;
use crate::error::Error;

/// Where the directories of sockets are, when containerd does not say where.
const SOCKETS: &str = "/run/bosun-shim";

/// Removes a shim's directory of sockets, and where it was if it was the last one there.
fn remove_sockets(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    if path.parent() == Some(Path::new(SOCKETS)) {
        // Others are still there, mostly.
        let _ = fs::remove_dir(SOCKETS);
    }
    Ok(())
}

/// The directory of a container's shim, in its bundle.
fn directory(bundle: &Path) -> RunDir {
    RunDir::new(bundle.join("bosun"))
}

/// What a shim needs beside a container to be driven by containerd.
#[derive(Debug)]
pub(crate) struct Containerd {
    pub(crate) publisher: Publisher,
    pub(crate) loggers: Vec<Logger>,
    /// Of the container's cgroup.
    pub(crate) oom: Option<OomWatch>,
    /// The task was deleted: the shim goes when containerd says so, or has gone itself. It would take
    /// a shim that goes before for one that was lost.
    pub(crate) awaits_shutdown: bool,
}

impl Containerd {
    /// `None` when bosund drives the shim.
    pub(crate) fn new(arguments: &Arguments) -> Option<Box<Self>> {
        let socket = arguments.containerd.clone()?;
        let publisher = Publisher::new(socket, arguments.namespace.as_str().to_owned());
        Some(Box::new(Self { publisher, loggers: Vec::new(), oom: None, awaits_shutdown: false }))
    }
}

/// Why a verb failed.
#[derive(Debug)]
enum Failure {
    Usage(String),
    Decode { what: &'static str, source: prost::DecodeError },
    Step { step: &'static str, object: String, source: io::Error },
    ShimCgroup { path: String, source: shim_cgroup::Error },
    Cgroup { path: String, source: shim_cgroup::Error },
    Scope(Error),
}

impl Failure {
    fn step(step: &'static str, object: impl fmt::Display, source: io::Error) -> Self {
        Self::Step { step, object: object.to_string(), source }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) => f.write_str(what),
            Self::Decode { what, source } => write!(f, "{what}: {source}"),
            Self::Step { step, object, source } => write!(f, "{step} {object}: {source}"),
            Self::ShimCgroup { path, source } => {
                write!(f, "options.shim_cgroup: move the shim to {path:?}: {source}")
            }
            Self::Cgroup { path, source } => write!(f, "clean up cgroup {path:?}: {source}"),
            Self::Scope(source) => write!(f, "forget the scope: {source}"),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Usage(_) => None,
            Self::Decode { source, .. } => Some(source),
            Self::Step { source, .. } => Some(source),
            Self::ShimCgroup { source, .. } | Self::Cgroup { source, .. } => Some(source),
            Self::Scope(source) => Some(source),
        }
    }
}
