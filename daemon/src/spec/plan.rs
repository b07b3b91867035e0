//! What the plan of a run needs beside the spec.

use std::path::Path;

use shim_plan::{Context, Layers};
use shim_wire::plan::{Log, LogFormat};

use super::{ContainerOptions, LogOptions, NetworkMode};

/// One run of a container.
#[derive(Clone, Debug)]
pub struct PlanPlace<'a> {
    pub id: &'a str,
    /// Where its config.json lies, as hooks are told it.
    pub bundle: &'a Path,
    /// Counted from 1.
    pub attempt: u64,
    pub layers: Layers,
    /// The json-file log.
    pub log: &'a Path,
    /// `bosun/default/ID`.
    pub cgroup: &'a str,
}

/// What the request says to the plan.
#[must_use]
pub fn plan_context(options: &ContainerOptions, place: PlanPlace<'_>) -> Context {
    Context {
        attempt: place.attempt,
        log: Some(log(&options.log, place.log)),
        layers: place.layers,
        cgroup: place.cgroup.to_owned(),
        systemd_cgroup: false,
        network_handed_over: match options.network {
            NetworkMode::Bridge | NetworkMode::Container(_) => true,
            NetworkMode::Host | NetworkMode::None => false,
        },
        stdin: options.stdin,
        // docker's rule: `run -i` ends the input with its client, `run -d -i` keeps it open; the
        // difference is the client's, who closes the input itself.
        stdin_once: options.stdin_once,
        width: options.window.width.into(),
        height: options.window.height.into(),
        user: options.user.clone(),
        strict_groups: options.security.strict_groups,
        init: options.init,
        id: place.id.to_owned(),
        bundle: Some(place.bundle.to_owned()),
    }
}

fn log(options: &LogOptions, path: &Path) -> Log {
    match options {
        LogOptions::JsonFile { max_size, max_files } => Log {
            format: LogFormat::JsonFile.into(),
            path: path.to_string_lossy().into_owned(),
            max_size: max_size.unwrap_or(0),
            max_files: *max_files,
        },
        LogOptions::Cri { path } => Log {
            format: LogFormat::Cri.into(),
            path: path.to_string_lossy().into_owned(),
            max_size: 0,
            max_files: 1,
        },
        LogOptions::None => {
            Log { format: LogFormat::None.into(), path: String::new(), max_size: 0, max_files: 1 }
        }
    }
}
