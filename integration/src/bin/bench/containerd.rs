//! containerd and runc as Debian has them, started privately.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use integration::netns::NetNs;
use integration::process::Process;
use integration::wait;
use tempfile::TempDir;

use crate::measure::time;

/// A containerd of our own: directories, socket and namespace.
#[derive(Debug)]
pub(crate) struct Containerd {
    directory: TempDir,
    namespace: String,
    rootfs: PathBuf,
    child: Option<Child>,
    /// Did the machine have this before? containerd 1.6 keeps its shims' sockets there.
    had_run_directory: bool,
}

impl Containerd {
    pub(crate) fn start(rootfs: &Path) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("bosun-bench-ctrd-")
            .tempdir_in("/tmp")
            .expect("a directory in /tmp");
        let config = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        std::fs::write(directory.path().join("config.toml"), config).expect("a file");
        let mut this = Self {
            directory,
            namespace: format!("bosun-bench-{}", std::process::id()),
            rootfs: rootfs.to_owned(),
            child: None,
            had_run_directory: Path::new("/run/containerd").exists(),
        };
        this.launch();
        wait::until_true("containerd to serve", || this.listed().is_some());
        this
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("c.sock")
    }

    fn launch(&mut self) {
        let at = |name: &str| self.directory.path().join(name);
        let mut command = Command::new("containerd");
        command.arg("--config").arg(at("config.toml")).arg("--root").arg(at("root"));
        command.arg("--state").arg(at("state")).arg("--address").arg(self.socket());
        command
            .args(["--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.child = Some(command.spawn().expect("containerd is installed"));
    }

    fn ctr(&self, words: &str) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket()).args(["--namespace", &self.namespace]);
        command.args(integration::ctl::split(words));
        command
    }

    fn run_words(&self, flags: &str, name: &str, command: &str) -> String {
        format!("run {flags} --rootfs {} {name} {command}", self.rootfs.display())
    }

    pub(crate) fn run_true(&self, round: usize) -> Duration {
        time(&mut self.ctr(&self.run_words("--rm", &format!("t{round}"), "/bin/true")))
    }

    pub(crate) fn exec_true(&self, round: usize) -> Duration {
        time(&mut self.ctr(&format!("task exec --exec-id e{round} c0 /bin/true")))
    }

    /// Lives a second of so many clients.
    pub(crate) fn rate_of_clients(&self, clients: usize, count: usize) -> f64 {
        let each = count.div_ceil(clients);
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for client in 0..clients {
                scope.spawn(move || {
                    for round in 0..each {
                        let words =
                            self.run_words("--rm", &format!("p{client}-{round}"), "/bin/true");
                        time(&mut self.ctr(&words));
                    }
                });
            }
        });
        u32::try_from(each * clients).map_or(0.0, f64::from) / begin.elapsed().as_secs_f64()
    }

    /// Seconds for so many detached containers, one after the other.
    pub(crate) fn detach(&self, count: usize) -> f64 {
        let begin = Instant::now();
        for number in 0..count {
            time(&mut self.ctr(&self.run_words(
                "--detach",
                &format!("c{number}"),
                "/bin/sleep 1000000",
            )));
        }
        begin.elapsed().as_secs_f64()
    }

    /// A pull of an image with its unpacking; the client, which downloads, is in the namespace.
    pub(crate) fn pull(&self, netns: &NetNs, name: &str) -> Duration {
        let ctr = self.ctr(&format!("images pull --plain-http {name}"));
        let mut inside = netns.command(ctr.get_program());
        time(inside.args(ctr.get_args()))
    }

    pub(crate) fn import(&self, file: &Path) -> Duration {
        time(&mut self.ctr(&format!("images import {}", file.display())))
    }

    /// Images and all that they had.
    pub(crate) fn remove_images(&self) {
        let output = self.ctr("images ls -q").output().expect("ctr is installed");
        for name in String::from_utf8_lossy(&output.stdout).lines() {
            time(&mut self.ctr(&format!("images rm --sync {name}")));
        }
    }

    /// Names of the tasks that run; none when it doesn't answer.
    fn listed(&self) -> Option<Vec<String>> {
        let output = self.ctr("task ls").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let names = text.lines().filter(|line| line.contains("RUNNING"));
        output.status.success().then(|| {
            names.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
        })
    }

    pub(crate) fn remove_all(&self) {
        let names = self.listed().unwrap_or_default();
        for name in &names {
            let _ = self.ctr(&format!("task kill --signal SIGKILL {name}")).output();
        }
        wait::within(Duration::from_secs(20), || {
            self.listed().is_some_and(|left| left.is_empty()).then_some(())
        });
        for name in &names {
            let _ = self.ctr(&format!("task delete {name}")).output();
            let _ = self.ctr(&format!("container delete {name}")).output();
        }
    }

    pub(crate) fn process(&self) -> Process {
        Process(self.child.as_ref().expect("it runs").id())
    }

    pub(crate) fn shims(&self) -> Vec<Process> {
        Process::all()
            .into_iter()
            .filter(|process| {
                let words = process.arguments();
                words.first().is_some_and(|word| word.contains("containerd-shim"))
                    && words.contains(&self.namespace)
            })
            .collect()
    }

    /// From the start of a new daemon to the answer that all run.
    pub(crate) fn restart(&mut self, count: usize) -> Duration {
        self.end();
        let begin = Instant::now();
        self.launch();
        wait::until("all tasks to be listed", || (self.listed()?.len() == count).then_some(()));
        begin.elapsed()
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.remove_all();
        self.end();
        for shim in self.shims() {
            shim.kill();
        }
        for top in integration::leak::hierarchies() {
            let _ = std::fs::remove_dir(top.join(&self.namespace));
        }
        if !self.had_run_directory {
            let _ = std::fs::remove_dir_all("/run/containerd");
        }
    }
}
