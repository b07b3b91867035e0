//! A daemon and its images: what is configured about registries, and what is stored.

use std::path::{Path, PathBuf};

use super::Daemon;
use crate::leak;
use crate::process::Process;
use crate::wait;

impl Daemon {
    /// The daemon's root as it sees it itself.
    ///
    /// # Panics
    /// When it doesn't run.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        let pid = self.pid().expect("the daemon runs");
        let below = self.place.root.strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(pid.to_string()).join("root").join(below)
    }

    /// Configures a registry: the `hosts.toml` for a host, as it is in an image's name. Read at each
    /// pull and push.
    ///
    /// # Panics
    /// When the file can't be written.
    pub fn hosts_toml(&self, host: &str, text: &str) {
        let directory = self.certs_dir().join(host);
        std::fs::create_dir_all(&directory).expect("a directory");
        std::fs::write(directory.join("hosts.toml"), text).expect("a file");
    }

    pub(super) fn certs_dir(&self) -> PathBuf {
        self.directory.path().join("certs.d")
    }

    /// What is stored of images: names, blobs, ingests, snapshots, as the API and the disk have it.
    /// Two of these are the same when nothing has changed.
    ///
    /// # Panics
    /// When the daemon can't say.
    #[must_use]
    pub fn stored(&self) -> Vec<String> {
        let mut lines = self.api().image_names();
        for (verb, format) in [
            ("content ls", "blob {{.Digest}}"),
            ("content ingests", "ingest {{.Reference}}"),
            ("snapshot ls", "snapshot {{.Key}}"),
        ] {
            let listed = self.ctl(&format!("{verb} --format '{format}'")).text();
            lines.extend(listed.lines().map(str::to_owned));
        }
        lines
            .extend(leak::stored_files(&self.root()).iter().map(|path| path.display().to_string()));
        lines.sort();
        lines
    }

    /// Ends the leases under which what came before a break is kept for another try.
    ///
    /// # Panics
    /// When one can't be ended.
    pub fn forget_tries(&self) {
        for lease in self.ctl("lease ls -q").text().lines() {
            self.ctl(&format!("lease rm {lease}")).ok();
        }
    }

    /// Waits until nothing of any image is stored. What was removed may take a moment: the overlay of
    /// a container's end is not waited for.
    ///
    /// # Panics
    /// With the case, and what stays.
    #[track_caller]
    pub fn expect_nothing_stored(&self, case: &str) {
        if wait::within(leak::LIMIT, || self.stored().is_empty().then_some(())).is_none() {
            panic!("{case}: still stored:\n  {}", self.stored().join("\n  "));
        }
    }

    /// The most memory that the daemon has had, in kilobytes.
    ///
    /// # Panics
    /// When it doesn't run.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        Process(self.pid().expect("the daemon runs")).peak_memory().expect("the daemon runs")
    }
}
