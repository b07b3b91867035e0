//! A bundle with a small rootfs of busybox, and a state directory, for one container. Whatever is left
//! is gone when it is dropped.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub(crate) const OCI: &str = env!("CARGO_BIN_EXE_bosun-oci");

/// Commands of the rootfs.
const APPLETS: [&str; 16] = [
    "sh", "cat", "echo", "sleep", "true", "id", "ls", "readlink", "stat", "tty", "stty", "head",
    "dd", "touch", "grep", "wc",
];

pub(crate) struct Sandbox {
    directory: tempfile::TempDir,
    pub(crate) id: String,
    pub(crate) config: Value,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// Standard output of a command that succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// Standard error of one that did not.
    #[track_caller]
    pub(crate) fn err(self) -> String {
        assert_ne!(self.code, 0, "{self:?}");
        self.stderr
    }
}

impl Sandbox {
    /// One whose process is a shell script without a terminal.
    pub(crate) fn new(script: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("bosun-oci-").tempdir_in("/tmp").unwrap();
        let bin = directory.path().join("bundle/rootfs/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        let name = directory.path().file_name().unwrap().to_string_lossy();
        let id = name.trim_start_matches("bosun-oci-.").trim_start_matches('.').to_owned();
        let mut sandbox = Self { id, directory, config: Value::Null };
        sandbox.oci(&["spec", "--bundle", &sandbox.bundle()]).ok();
        let text = std::fs::read_to_string(sandbox.path("bundle/config.json")).unwrap();
        sandbox.config = serde_json::from_str(&text).unwrap();
        sandbox.config["process"]["terminal"] = json!(false);
        sandbox.config["process"]["args"] = json!(["sh", "-c", script]);
        sandbox.write();
        sandbox
    }

    /// A running one.
    pub(crate) fn running(script: &str) -> Self {
        let sandbox = Self::new(script);
        sandbox.on("run", &["--detach", "--bundle", &sandbox.bundle()]).ok();
        sandbox
    }

    /// Changes the process' or another part of the configuration.
    pub(crate) fn set(&mut self, pointer: &str, value: Value) {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        self.config.pointer_mut(parent).unwrap()[key] = value;
        self.write();
    }

    fn write(&self) {
        std::fs::write(self.path("bundle/config.json"), self.config.to_string()).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn bundle(&self) -> String {
        self.text("bundle")
    }

    /// A command with this state directory, without input and with its output in files, so that a
    /// container that outlives it does not hold a pipe of the test's.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(OCI);
        command.arg("--root").arg(self.path("state")).args(words).stdin(Stdio::null());
        command
    }

    pub(crate) fn oci(&self, words: &[&str]) -> Said {
        self.finish(self.command(words))
    }

    /// A verb on this container, with flags.
    pub(crate) fn on(&self, verb: &str, flags: &[&str]) -> Said {
        self.oci(&[&[verb], flags, &[&self.id]].concat())
    }

    pub(crate) fn create(&self) -> Said {
        self.on("create", &["--bundle", &self.bundle()])
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Said {
        self.on("run", &["--bundle", &self.bundle()])
    }

    pub(crate) fn exec(&self, flags: &[&str], command: &[&str]) -> Said {
        self.oci(&[&["exec"], flags, &[&self.id], command].concat())
    }

    /// Runs a command to its end. Its output goes to new files: a container keeps those of the
    /// command that started it, and may write to them while a later command writes to its own.
    pub(crate) fn finish(&self, mut command: Command) -> Said {
        let open = |name: &str| {
            let path = self.path(name);
            if path.exists() {
                std::fs::remove_file(&path).unwrap();
            }
            std::fs::File::create_new(path).unwrap()
        };
        command.stdout(open("stdout")).stderr(open("stderr"));
        let status = command.status().unwrap();
        let read = |name: &str| std::fs::read_to_string(self.path(name)).unwrap();
        Said { code: status.code().unwrap_or(-1), stdout: read("stdout"), stderr: read("stderr") }
    }

    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.on("state", &[]).ok()).unwrap()
    }

    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, status: &str) {
        until(&format!("status {status}"), || self.status() == status);
    }

    /// Nothing is left: no directory, no control group.
    pub(crate) fn is_gone(&self) -> bool {
        !self.path("state").join(&self.id).exists() && self.groups().is_empty()
    }

    /// The container's control groups that are there.
    pub(crate) fn groups(&self) -> Vec<PathBuf> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let roots = mounts.lines().filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            after.starts_with("cgroup").then(|| before.split(' ').nth(4))?
        });
        let group = |root: &str| PathBuf::from(root).join(format!("bosun-oci-{}", self.id));
        roots.map(group).filter(|path| path.exists()).collect()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.command(&["delete", "--force", &self.id]).output();
    }
}

#[track_caller]
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "no {what} within 20 seconds");
        std::thread::sleep(Duration::from_millis(5));
    }
}
