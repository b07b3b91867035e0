//! podman drives the command line, with directories, a cgroup and names of its own.

use std::path::PathBuf;
use std::process::Command;

use crate::sandbox::{OCI, Said, Sandbox, until};

/// podman's defaults raise limits, which not every machine lets it do, and take a network apart.
const RUN: [&str; 7] = [
    "--ulimit",
    "nofile=1024:1024",
    "--ulimit",
    "nproc=1024:1024",
    "--network",
    "none",
    "--cgroup-parent",
];

pub(crate) struct Podman {
    /// Of its rootfs and its directories.
    sandbox: Sandbox,
    /// Who makes groups: `cgroupfs` or `systemd`.
    manager: &'static str,
    /// Where they are: a path, or a slice.
    parent: String,
}

impl Podman {
    pub(crate) fn new(manager: &'static str, parent: &str) -> Self {
        Self { sandbox: Sandbox::new("true"), manager, parent: parent.to_owned() }
    }

    /// With groups of its own making.
    fn on_cgroupfs() -> Self {
        let mut podman = Self::new("cgroupfs", "");
        podman.parent = format!("/bosun-oci-podman-{}", podman.sandbox.id);
        podman
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("podman");
        for (flag, name) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(flag).arg(self.sandbox.path(&format!("podman-{name}")));
        }
        command.args([
            "--runtime",
            OCI,
            "--cgroup-manager",
            self.manager,
            "--events-backend",
            "none",
        ]);
        command.args(["--storage-driver", "vfs"]).args(words);
        command
    }

    pub(crate) fn podman(&self, words: &[&str]) -> Said {
        self.sandbox.finish(self.command(words))
    }

    pub(crate) fn run(&self, flags: &[&str], command: &[&str]) -> Said {
        let rootfs = self.sandbox.text("bundle/rootfs");
        let words =
            [&["run"], &RUN[..], &[self.parent.as_str()], flags, &["--rootfs", &rootfs], command];
        self.podman(&words.concat())
    }

    pub(crate) fn inspect(&self, name: &str, what: &str) -> String {
        self.podman(&["inspect", "--format", what, name]).ok().trim().to_owned()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.command(&["rm", "--force", "--all", "--time", "0"]).output();
        if self.manager == "systemd" {
            return;
        }
        let roots = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        let roots = roots.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]);
        for root in roots {
            remove_groups(&root.join(self.parent.trim_start_matches('/')));
        }
    }
}

/// conmon's groups are podman's to remove, and it leaves them.
fn remove_groups(group: &std::path::Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    for _ in 0..100 {
        match std::fs::remove_dir(group) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            _ => return,
        }
    }
}

#[test]
fn output_and_exit_codes_come_through() {
    let podman = Podman::on_cgroupfs();
    let said = podman.run(&["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((said.code, &*said.stdout, &*said.stderr), (7, "out\n", "err\n"));
    assert_eq!(podman.run(&["--rm"], &["nope"]).code, 127);
    assert_eq!(podman.run(&["--rm"], &["/bin"]).code, 126);
    let tty = podman.run(&["--rm", "-t"], &["tty"]).ok();
    assert_eq!(tty.trim(), "/dev/pts/0");
    let limited = ["--rm", "--memory", "64m", "--pids-limit", "50", "--cap-drop", "all"];
    let said = podman.run(&limited, &["grep", "CapBnd", "/proc/self/status"]).ok();
    assert_eq!(said, "CapBnd:\t0000000000000000\n");
    podman.run(&["--rm", "--privileged"], &["true"]).ok();
    // podman writes a limit of 0 for none.
    let fork = podman.run(&["--rm", "--pids-limit", "-1"], &["sh", "-c", "(echo forked)"]);
    assert_eq!(fork.ok(), "forked\n");
}

#[test]
fn a_container_lives_its_life() {
    let podman = Podman::on_cgroupfs();
    let script = "trap 'exit 5' TERM; echo started; while :; do sleep 0.05; done";
    podman.run(&["--detach", "--name", "a"], &["sh", "-c", script]).ok();
    let status = || podman.inspect("a", "{{.State.Status}}");
    assert_eq!(status(), "running");
    assert_eq!(podman.inspect("a", "{{.OCIRuntime}}"), OCI);
    until("log", || podman.podman(&["logs", "a"]).ok() == "started\n");
    assert!(podman.podman(&["top", "a"]).ok().contains("sleep"));
    let said =
        podman.podman(&["exec", "-e", "A=b", "-w", "/bin", "a", "sh", "-c", "echo $A; exit 3"]);
    assert_eq!((said.code, &*said.stdout), (3, "b\n"));
    assert_eq!(podman.podman(&["exec", "a", "nope"]).code, 127);
    assert!(podman.podman(&["exec", "-t", "a", "tty"]).ok().contains("/dev/pts/"));
    let stats = ["stats", "--no-stream", "--format", "{{.PIDs}}", "a"];
    assert!(podman.podman(&stats).ok().trim().parse::<u32>().unwrap() >= 1);
    podman.podman(&["pause", "a"]).ok();
    assert_eq!(status(), "paused");
    podman.podman(&["unpause", "a"]).ok();
    assert_eq!(status(), "running");
    podman.podman(&["stop", "a"]).ok();
    assert_eq!(
        (status(), podman.inspect("a", "{{.State.ExitCode}}")),
        ("exited".to_owned(), "5".to_owned())
    );
    podman.podman(&["start", "a"]).ok();
    assert_eq!(status(), "running");
    podman.podman(&["kill", "a"]).ok();
    until("end", || status() == "exited");
    assert_eq!(podman.inspect("a", "{{.State.ExitCode}}"), "137");
    podman.podman(&["rm", "a"]).ok();
    assert_eq!(podman.podman(&["ps", "--all", "--quiet"]).ok(), "");
}
