//! Debian's containerd, a daemon of its own beside the machine's, with bosun's shim as a runtime.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use prost::Message;
use shim_wire::files::{ProcessIdentity, RunDir};
use shim_wire::ttrpc::{self, Kind, Request, Response};
use tempfile::TempDir;

use crate::ctl::{Ctl, Output, Running};
use crate::daemon::program;
use crate::image::Recipe;
use crate::process::Process;
use crate::terminal::Terminal;
use crate::{archive, wait};

pub const RUNTIME: &str = "io.containerd.bosun.v1";
/// The image of every test: busybox under all its names.
pub const IMAGE: &str = "docker.io/library/busybox:test";

/// Where bosun's shims have their sockets when containerd does not say where.
const SOCKETS: &str = "/run/bosun-shim";
const CGROUPS: &str = "/sys/fs/cgroup";

/// Tells the daemons of one test run apart; the process id tells the runs apart.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A containerd. See the module.
#[derive(Debug)]
pub struct Containerd {
    directory: TempDir,
    namespace: String,
    child: Option<Child>,
    failpoint: Option<String>,
}

impl Containerd {
    /// Starts one that has [`IMAGE`].
    ///
    /// # Panics
    /// When Debian's containerd isn't installed, or does not come up.
    #[must_use]
    pub fn start() -> Self {
        Self::with(program("bosun-shim"), None)
    }

    /// The same; a step of its shims strikes: `NAME=ACTION`.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn with_failpoint(failpoint: &str) -> Self {
        Self::with(program("failpoints/bosun-shim"), Some(failpoint))
    }

    fn with(shim: PathBuf, failpoint: Option<&str>) -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory =
            tempfile::Builder::new().prefix("bosun-ctr-").tempdir_in("/tmp").expect("a directory");
        let namespace = format!("bosun-ctr-{}-{count}", std::process::id());
        let mut this =
            Self { directory, namespace, child: None, failpoint: failpoint.map(str::to_owned) };
        fs::create_dir(this.path("bin")).expect("a directory");
        symlink(shim, this.path("bin/containerd-shim-bosun-v1")).expect("a link");
        let root = this.directory.path().display().to_string();
        // Only what a run needs: nothing that looks for devices, or serves anything to anybody.
        let configuration = format!(
            r#"version = 2
root = "{root}/root"
state = "{root}/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{root}/c.sock"
[debug]
  level = "debug"
"#
        );
        fs::write(this.path("config.toml"), configuration).expect("a file");
        this.launch();
        let image = archive::oci(&[(IMAGE, &Recipe::busybox().image())]);
        fs::write(this.path("image.tar"), image).expect("a file");
        this.ctr(&format!("images import {}", this.path("image.tar").display())).ok();
        this
    }

    fn launch(&mut self) {
        let path = std::env::var("PATH").unwrap_or_default();
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log"));
        let child = Command::new("containerd")
            .arg("--config")
            .arg(self.path("config.toml"))
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .envs(self.failpoint.iter().map(|failpoint| ("FAILPOINTS", failpoint)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a file"))
            .spawn();
        self.child = Some(child.expect("Debian's containerd is installed"));
        wait::until_true("containerd to serve", || self.ctr("version").code == Some(0));
    }

    /// Kills the daemon, as a crash does.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().and_then(|()| child.wait()).expect("a child of ours");
    }

    /// Starts it on what it left.
    pub fn start_again(&mut self) {
        self.launch();
    }

    fn client(&self) -> Ctl {
        let socket = self.path("c.sock");
        Ctl::new(Path::new("ctr"), &socket)
            .with_environment("CONTAINERD_ADDRESS", &socket.display().to_string())
            .with_environment("CONTAINERD_NAMESPACE", &self.namespace)
    }

    /// Runs `ctr` to its end.
    #[must_use]
    pub fn ctr(&self, words: &str) -> Output {
        self.client().run(words)
    }

    /// The same with a text on standard input.
    #[must_use]
    pub fn ctr_fed(&self, words: &str, input: &str) -> Output {
        self.client().feed(words, input)
    }

    /// Starts `ctr`, with a pipe as standard input.
    #[must_use]
    pub fn ctr_start(&self, words: &str) -> Running {
        self.client().start(words, Stdio::piped())
    }

    /// `ctr` on a terminal of 80 by 24.
    #[must_use]
    pub fn terminal(&self, words: &str) -> Terminal {
        Terminal::start(&self.client().command(words), 80, 24)
    }

    /// The words of a `ctr run` with bosun's shim: `ID COMMAND` behind the image, flags before.
    #[must_use]
    pub fn run_words(&self, flags: &str, command: &str) -> String {
        let fifos = self.path("fifo");
        format!("run --runtime {RUNTIME} --fifo-dir {} {flags} {IMAGE} {command}", fifos.display())
    }

    /// The words of a `ctr task exec`.
    #[must_use]
    pub fn exec_words(&self, flags: &str, command: &str) -> String {
        format!("task exec --fifo-dir {} {flags} {command}", self.path("fifo").display())
    }

    /// Runs `ID COMMAND` to its end.
    #[must_use]
    pub fn run(&self, command: &str) -> Output {
        self.ctr(&self.run_words("--rm", command))
    }

    /// Starts `ID COMMAND` in the background.
    pub fn run_detached(&self, command: &str) {
        self.ctr(&self.run_words("-d", command)).ok();
    }

    /// Ends and removes a container.
    pub fn remove(&self, id: &str) {
        let _ = self.ctr(&format!("task kill --signal KILL --all {id}"));
        self.until_status(id, "STOPPED");
        // Its clients may have left, and its exit code is the client's.
        let _ = self.ctr(&format!("task rm {id}"));
        self.ctr(&format!("containers rm {id}")).ok();
    }

    /// `ctr events`, which has begun to listen.
    #[must_use]
    pub fn subscribe(&self) -> Running {
        let events = self.ctr_start("events");
        wait::until_true("the subscription", || {
            self.ctr("namespaces label probe a=b").ok();
            events.stdout().contains("/namespaces/")
        });
        self.ctr("namespaces rm probe").ok();
        events
    }

    /// Calls the task API of a container's shim, as containerd does.
    ///
    /// # Errors
    /// What the shim says.
    ///
    /// # Panics
    /// When there is no shim.
    pub fn call_shim(&self, id: &str, method: &str, payload: &[u8]) -> Result<Vec<u8>, String> {
        let address = fs::read_to_string(self.bundle(id).join("address")).expect("an address");
        let path = address.strip_prefix("unix://").expect("a path");
        let mut socket = UnixStream::connect(path).expect("the shim listens");
        let request = Request {
            service: shim_wire::task::SERVICES[1].to_owned(),
            method: method.to_owned(),
            payload: payload.to_vec(),
            ..Request::default()
        };
        let mut bytes = Vec::new();
        ttrpc::encode(&mut bytes, Kind::Request, 1, &request);
        socket.write_all(&bytes).expect("the shim reads");
        let mut answer = Vec::new();
        loop {
            if let Some(frame) = ttrpc::decode(&answer).expect("a frame") {
                let response = Response::decode(frame.message).expect("a response");
                return response.status.map_or(Ok(response.payload), |status| Err(status.message));
            }
            let mut chunk = [0; 4096];
            let len = socket.read(&mut chunk).expect("an answer");
            assert_ne!(len, 0, "the shim closed the connection");
            answer.extend_from_slice(&chunk[..len]);
        }
    }

    /// The contents of those of a container's cgroup files that there are.
    #[must_use]
    pub fn cgroup_files(&self, id: &str, names: &[&str]) -> Vec<String> {
        let groups = self.cgroups();
        let paths =
            groups.iter().flat_map(|group| names.iter().map(|name| group.join(id).join(name)));
        let texts = paths.filter_map(|path| fs::read_to_string(path).ok());
        texts.map(|text| text.trim_end().to_owned()).collect()
    }

    /// What `ctr task ls` says of a container.
    #[must_use]
    pub fn status(&self, id: &str) -> Option<String> {
        let list = self.ctr("task ls").stdout;
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(id))?;
        line.split_whitespace().nth(2).map(str::to_owned)
    }

    /// # Panics
    /// When it never has that status.
    #[track_caller]
    pub fn until_status(&self, id: &str, status: &str) {
        let what = format!("{id} to be {status}");
        wait::until_true(&what, || self.status(id).as_deref() == Some(status));
    }

    /// The container's first process.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn process(&self, id: &str) -> Process {
        self.identity(&self.run_dir(id).init_identity())
    }

    /// The container's shim.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn shim(&self, id: &str) -> Process {
        self.identity(&self.run_dir(id).shim_identity())
    }

    fn identity(&self, file: &Path) -> Process {
        let text =
            fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Process(ProcessIdentity::decode(&text).expect("an identity").pid)
    }

    #[must_use]
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.path("state/io.containerd.runtime.v2.task").join(&self.namespace).join(id)
    }

    #[must_use]
    pub fn run_dir(&self, id: &str) -> RunDir {
        RunDir::new(self.bundle(id).join("bosun"))
    }

    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A path in the directory of this daemon.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).expect("a log")
    }

    /// Everything of any container that is still there, one line each.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for process in self.processes() {
            left.push(format!("process {} {:?}", process.0, process.arguments()));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let directory = self.directory.path().display().to_string();
        let ours = mounts.lines().filter(|line| line.contains(&directory));
        left.extend(ours.map(|line| format!("mount {line}")));
        for group in self.cgroups() {
            left.extend(
                directories(&group).iter().map(|path| format!("cgroup {}", path.display())),
            );
        }
        for place in ["state/io.containerd.runtime.v2.task", "root/io.containerd.runtime.v2.task"] {
            let bundles = directories(&self.path(place).join(&self.namespace));
            left.extend(bundles.iter().map(|path| format!("bundle {}", path.display())));
        }
        let all = Process::all();
        for sockets in directories(Path::new(SOCKETS)) {
            let name = sockets.display().to_string();
            let is_used = |process: &Process| process.arguments().contains(&name);
            if !all.iter().any(is_used) {
                left.push(format!("sockets {name}"));
            }
        }
        left
    }

    /// # Panics
    /// When something is still there after a while.
    #[track_caller]
    pub fn expect_nothing_left(&self) {
        let clean =
            wait::within(Duration::from_secs(15), || self.leftovers().is_empty().then_some(()));
        assert!(clean.is_some(), "left behind: {:#?}\n{}", self.leftovers(), self.log());
    }

    /// Shims and what runs in containers; not the daemon itself.
    fn processes(&self) -> Vec<Process> {
        let own = self.child.as_ref().map(Child::id);
        let namespace = format!("/{}/", self.namespace);
        let directory = self.directory.path().display().to_string();
        Process::all()
            .into_iter()
            .filter(|process| process.lives() && Some(process.0) != own)
            .filter(|process| {
                let words = process.arguments();
                words.iter().any(|word| word.contains(&directory))
                    || process.cgroups().values().any(|path| path.contains(&namespace))
            })
            .collect()
    }

    /// The group of the namespace in every hierarchy.
    fn cgroups(&self) -> Vec<PathBuf> {
        let hierarchies = directories(Path::new(CGROUPS));
        hierarchies
            .iter()
            .map(|hierarchy| hierarchy.join(&self.namespace))
            .chain([Path::new(CGROUPS).join(&self.namespace)])
            .filter(|path| path.is_dir())
            .collect()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        for process in self.processes() {
            let words = process.arguments();
            process.kill();
            // A shim that is killed can't remove its sockets.
            if let Some(at) = words.iter().position(|word| word == "--socket-dir") {
                let _ = fs::remove_dir_all(&words[at + 1]);
            }
        }
        let _ = fs::remove_dir(SOCKETS);
        let gone = || self.processes().is_empty().then_some(());
        let _ = wait::within(Duration::from_secs(5), gone);
        for group in self.cgroups() {
            for below in directories(&group) {
                let _ = fs::remove_dir(below);
            }
            let _ = fs::remove_dir(group);
        }
    }
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.flatten().filter(is_directory).map(|entry| entry.path()).collect()
}
