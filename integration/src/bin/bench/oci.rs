//! `bosun-oci` beside runc: the same bundle, the same command line.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::measure::time;

/// A bundle, and the state directories of both.
#[derive(Debug)]
pub(crate) struct Oci {
    directory: TempDir,
}

impl Oci {
    /// # Panics
    /// When `make build` was not run.
    pub(crate) fn new(rootfs: &Path) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("bosun-bench-oci-")
            .tempdir_in("/tmp")
            .expect("a directory in /tmp");
        let place = directory.path();
        time(Command::new(OURS).args(["spec", "--bundle"]).arg(place));
        let config = place.join("config.json");
        let text = std::fs::read_to_string(&config).expect("a starter configuration");
        let mut spec: Value = serde_json::from_str(&text).expect("JSON");
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["/bin/true"]);
        spec["root"]["path"] = json!(rootfs);
        // What Debian's runc knows.
        spec["ociVersion"] = json!("1.0.2");
        std::fs::write(&config, spec.to_string()).expect("room on the disk");
        Self { directory }
    }

    /// A whole life.
    pub(crate) fn run_true(&self, runtime: &str) -> Duration {
        let place = self.directory.path();
        let mut command = Command::new(runtime);
        command.arg("--root").arg(place.join(runtime.trim_start_matches('/').replace('/', "-")));
        command.arg("run").arg("--bundle").arg(place);
        time(command.arg(format!("bench-{}", std::process::id())))
    }
}

pub(crate) const OURS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../bin/bosun-oci");
