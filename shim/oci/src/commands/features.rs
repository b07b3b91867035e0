//! `features`: what this runtime can do, as the specification's `features.md` has it.

use serde_json::json;

use super::print_json;
use crate::cli::SPEC_VERSION;
use crate::error::Error;

pub(crate) fn run() -> Result<(), Error> {
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "uts"],
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false },
            "seccomp": { "enabled": true },
        },
    });
    print_json(&features)
}
