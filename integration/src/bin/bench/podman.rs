//! podman, conmon and runc as Debian has them, with directories of their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use integration::netns::NetNs;
use integration::process::Process;
use tempfile::TempDir;

use crate::measure::time;

#[derive(Debug)]
pub(crate) struct Podman {
    directory: TempDir,
    rootfs: PathBuf,
    cgroup: String,
}

impl Podman {
    pub(crate) fn new(rootfs: &Path) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("bosun-bench-podman-")
            .tempdir_in("/tmp")
            .expect("a directory in /tmp");
        let cgroup = format!("bosun-bench-podman-{}", std::process::id());
        Self { directory, rootfs: rootfs.to_owned(), cgroup }
    }

    fn podman(&self, words: &str) -> Command {
        self.with_driver("vfs", words)
    }

    /// A pull of an image with its unpacking.
    pub(crate) fn pull(&self, netns: &NetNs, name: &str) -> Duration {
        let podman = self.with_driver("overlay", &format!("pull --tls-verify=false -q {name}"));
        let mut inside = netns.command(podman.get_program());
        time(inside.args(podman.get_args()))
    }

    pub(crate) fn remove_images(&self) {
        time(&mut self.with_driver("overlay", "rmi --all --force"));
    }

    fn with_driver(&self, driver: &str, words: &str) -> Command {
        let at = |name: &str| self.directory.path().join(name);
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(at(&format!("root-{driver}")))
            .arg("--runroot")
            .arg(at(&format!("run-{driver}")))
            .arg("--tmpdir")
            .arg(at("tmp"));
        command.args([
            "--runtime",
            "runc",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "none",
        ]);
        command.args(["--storage-driver", driver]).args(integration::ctl::split(words));
        command
    }

    /// Limits are named, because podman's defaults raise them, which not every machine lets it do.
    fn run_words(&self, flags: &str, command: &str) -> String {
        format!(
            "run {flags} --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --network none --cgroup-parent /{} --rootfs {} {command}",
            self.cgroup,
            self.rootfs.display()
        )
    }

    pub(crate) fn run_true(&self) -> Duration {
        time(&mut self.podman(&self.run_words("--rm", "/bin/true")))
    }

    pub(crate) fn exec_true(&self) -> Duration {
        time(&mut self.podman("exec c0 /bin/true"))
    }

    pub(crate) fn detach(&self, count: usize) {
        for number in 0..count {
            time(
                &mut self
                    .podman(&self.run_words(&format!("-d --name c{number}"), "/bin/sleep 1000000")),
            );
        }
    }

    /// Seconds from the start of a container that writes `/lines` to its end.
    pub(crate) fn log_lines(&self) -> f64 {
        let log = self.directory.path().join("k8s.log");
        let flags = format!("-d --name log --log-driver k8s-file --log-opt path={}", log.display());
        let begin = std::time::Instant::now();
        time(&mut self.podman(&self.run_words(&flags, "/bin/cat /lines")));
        time(&mut self.podman("wait --interval 10ms log"));
        let seconds = begin.elapsed().as_secs_f64();
        time(&mut self.podman("rm -f log"));
        let _ = std::fs::remove_file(log);
        seconds
    }

    pub(crate) fn remove_all(&self) {
        let _ = self.podman("rm --all --force --time 0").output();
    }

    pub(crate) fn shims(&self) -> Vec<Process> {
        let own = self.directory.path().to_string_lossy().into_owned();
        Process::all()
            .into_iter()
            .filter(|process| {
                process.command() == "conmon"
                    && process.arguments().iter().any(|word| word.contains(&own))
            })
            .collect()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.remove_all();
        for top in integration::leak::hierarchies() {
            let parent = top.join(&self.cgroup);
            for child in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir(child.path());
            }
            let _ = std::fs::remove_dir(parent);
        }
    }
}
