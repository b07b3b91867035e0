//! A bosund with its own root, cgroups, bridge, subnet and network namespace.
//!
//! Going out of scope is part of every test: what containers are left are removed the way a user
//! does it, the daemon is asked to stop, and whatever remains on the machine fails the test.

mod images;
mod misfortunes;

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use shim_wire::files::{ContainerDir, RunDir};
use tempfile::TempDir;

use crate::api::Api;
use crate::ctl::{Ctl, Output, Running};
use crate::disk::{Disk, Size};
use crate::leak;
use crate::netns::NetNs;
use crate::process::Process;
use crate::terminal::Terminal;
use crate::wait;

/// Tells the daemons of one test run apart; the process id tells the runs apart.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A program that `make build` made.
///
/// # Panics
/// When it isn't there.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("bin").join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `make build` (and `make build-test` for bin/failpoints)",
        path.display()
    );
    path
}

/// The variable with [`own_number`], for a program that is started in a pid namespace of its own.
pub const OWN_NUMBER: &str = "BOSUN_TEST_NUMBER";

/// What sets the names of this program's things apart from those of others that run now.
pub(crate) fn own_number() -> u32 {
    let given = std::env::var(OWN_NUMBER).ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(std::process::id)
}

/// What is in the names of all that a daemon of this program has on the machine. None begins another: what
/// begins with it is looked for, and swept away.
fn token(number: u32) -> String {
    format!("{:x}-{number}d", own_number())
}

/// How a daemon is to be started. [`Daemon::start`] takes the defaults.
#[derive(Debug, Default)]
pub struct Settings {
    failpoints: bool,
    programs: Option<PathBuf>,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    netns: Option<Arc<NetNs>>,
    log_level: Option<&'static str>,
    disk: Option<u32>,
    disks: Vec<(&'static str, Size)>,
    devices: Vec<(&'static str, PathBuf)>,
    memory: Option<u32>,
    umask: Option<u32>,
    hidden: Option<&'static str>,
    replaced: Option<(&'static str, String)>,
    configuration: Option<String>,
    through: Vec<String>,
}

impl Settings {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The programs with failpoints in them, and one that shall strike: `NAME=ACTION`.
    #[must_use]
    pub fn failpoint(mut self, configuration: &str) -> Self {
        self.failpoints = true;
        self.environment.push(("FAILPOINTS".to_owned(), configuration.to_owned()));
        self
    }

    /// The programs with failpoints in them, of which one stops at the point of this name.
    #[must_use]
    pub fn stop_at(mut self, point: &str) -> Self {
        self.failpoints = true;
        self.environment.push(("FAILPOINTS_STOP".to_owned(), point.to_owned()));
        self
    }

    /// Programs of another build, from this directory.
    #[must_use]
    pub fn programs(mut self, directory: &Path) -> Self {
        self.programs = Some(directory.to_owned());
        self
    }

    /// More flags of bosund.
    #[must_use]
    pub fn arguments(mut self, words: &str) -> Self {
        self.arguments.extend(crate::ctl::split(words));
        self
    }

    /// A configuration file with this in it, behind what was said before; `{scratch}` stands for the directory
    /// of [`Daemon::scratch`].
    #[must_use]
    pub fn configured(mut self, text: &str) -> Self {
        self.configuration.get_or_insert_default().push_str(text);
        self
    }

    /// What the daemon logs, in place of everything.
    #[must_use]
    pub fn log_level(mut self, level: &'static str) -> Self {
        self.log_level = Some(level);
        self
    }

    /// A variable of bosund's environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Its root on a disk of so many megabytes, in memory, that only it sees and that goes with it.
    #[must_use]
    pub fn disk(mut self, megabytes: u32) -> Self {
        self.disk = Some(megabytes);
        self
    }

    /// A disk of its own for one of its directories: `root`, `state`, or one below them, as
    /// `root/content`. See [`Daemon::disk`].
    #[must_use]
    pub fn disk_at(mut self, directory: &'static str, size: Size) -> Self {
        self.disks.push((directory, size));
        self
    }

    /// As [`disk_at`](Self::disk_at), on a device of the machine.
    #[must_use]
    pub fn on_device(mut self, directory: &'static str, device: &Path) -> Self {
        self.devices.push((directory, device.to_owned()));
        self
    }

    /// Started by another program, as `strace -f -o FILE`; `{root}` stands for the daemon's root.
    #[must_use]
    pub fn through(mut self, words: &str) -> Self {
        self.through = crate::ctl::split(words);
        self
    }

    /// No more than so many megabytes of memory, for it and what it starts and does not put elsewhere.
    #[must_use]
    pub fn memory(mut self, megabytes: u32) -> Self {
        self.memory = Some(megabytes);
        self
    }

    /// It and what it starts see a script in the place of a program.
    #[must_use]
    pub fn in_place_of(mut self, program: &'static str, script: &str) -> Self {
        self.replaced = Some((program, script.to_owned()));
        self
    }

    /// Started with this umask.
    #[must_use]
    pub fn umask(mut self, umask: u32) -> Self {
        self.umask = Some(umask);
        self
    }

    /// With a mount of the machine taken away, for it and all that it starts.
    #[must_use]
    pub fn without(mut self, mount: &'static str) -> Self {
        self.hidden = Some(mount);
        self
    }

    /// In the network namespace of another daemon.
    #[must_use]
    pub fn beside(mut self, other: &Daemon) -> Self {
        self.netns = Some(other.netns.clone());
        self
    }

    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// When it doesn't, with its log.
    #[must_use]
    pub fn start(self) -> Daemon {
        let mut daemon = self.prepare();
        daemon.start_again();
        daemon
    }

    /// Everything but the start.
    ///
    /// # Panics
    /// When the directory or the network namespace can't be made.
    #[must_use]
    pub fn prepare(self) -> Daemon {
        assert!(
            rustix::process::geteuid().is_root(),
            "the tests run real containers: they need root"
        );
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let token = token(number);
        let directory = tempfile::Builder::new()
            .prefix("bosun-t-")
            .tempdir_in("/tmp")
            .expect("a directory in /tmp");
        let mut arguments = self.arguments;
        if let Some(text) = self.configuration {
            let file = directory.path().join("config.toml");
            let scratch = directory.path().display().to_string();
            std::fs::write(&file, text.replace("{scratch}", &scratch)).expect("a file");
            arguments.extend(["--config".to_owned(), file.display().to_string()]);
        }
        let replaced = self.replaced.map(|(program, script)| {
            let file = directory.path().join("program");
            std::fs::write(&file, script).expect("a file");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&file, mode).expect("a file");
            (program.into(), file)
        });
        let programs = if self.failpoints { "failpoints/" } else { "" };
        let place = Place {
            root: directory.path().join("r"),
            state: directory.path().join("s"),
            prefix: format!("bosun-t-{token}"),
            bridge: format!("bt{token}"),
            subnet: format!("10.99.{}.0/24", number % 250),
        };
        let ctl = Ctl::new(&program("ctl"), &place.state.join("bosun.sock"));
        let disks = self.disks.into_iter().enumerate().map(|(number, (path, size))| {
            let image = directory.path().join(format!("disk-{number}"));
            Disk::new(&image, size, &place.directory(path))
        });
        let devices = self.devices.into_iter().map(|(path, device)| {
            let size = Size { megabytes: 0, inodes: None };
            Disk::new(&device, size, &place.directory(path))
        });
        let mut daemon = Daemon {
            disks: disks.chain(devices).collect(),
            boot: None,
            through: self.through,
            bosund: program(&format!("{programs}bosund")),
            shim: program(&format!("{programs}bosun-shim")),
            netns: self.netns.unwrap_or_else(|| Arc::new(NetNs::new(&format!("bosun-t-{token}")))),
            environment: self.environment,
            arguments,
            log_level: self.log_level.unwrap_or("debug"),
            disk: self.disk,
            memory: self
                .memory
                .map(|megabytes| leak::memory_cgroup(&format!("bosun-t-{token}"), megabytes)),
            umask: self.umask,
            hidden: self.hidden,
            replaced,
            child: None,
            baseline: Vec::new(),
            ctl,
            place,
            directory,
        };
        if let Some(programs) = &self.programs {
            daemon.set_programs(programs);
        }
        daemon
    }
}

/// The names that a daemon was given.
#[derive(Clone, Debug)]
pub struct Place {
    pub root: PathBuf,
    pub state: PathBuf,
    /// Of its cgroups.
    pub prefix: String,
    pub bridge: String,
    pub subnet: String,
}

impl Place {
    /// `root`, `state`, or a directory below one of them.
    ///
    /// # Panics
    /// When it is below neither.
    #[must_use]
    pub fn directory(&self, name: &str) -> PathBuf {
        let (top, below) = name.split_once('/').unwrap_or((name, ""));
        let top = match top {
            "root" => &self.root,
            "state" => &self.state,
            other => panic!("{other} is neither root nor state"),
        };
        if below.is_empty() { top.clone() } else { top.join(below) }
    }
}

/// A real daemon. See the module.
#[derive(Debug)]
pub struct Daemon {
    bosund: PathBuf,
    shim: PathBuf,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    log_level: &'static str,
    disk: Option<u32>,
    disks: Vec<Disk>,
    /// What it takes for the id of the machine's boot, when that is not the machine's own.
    boot: Option<PathBuf>,
    through: Vec<String>,
    /// The `cgroup.procs` of the cgroup that bounds its memory.
    memory: Option<PathBuf>,
    umask: Option<u32>,
    hidden: Option<&'static str>,
    replaced: Option<(PathBuf, PathBuf)>,
    child: Option<Child>,
    /// The elements of its nftables table before any container.
    baseline: Vec<String>,
    ctl: Ctl,
    place: Place,
    netns: Arc<NetNs>,
    directory: TempDir,
}

impl Daemon {
    /// # Panics
    /// As [`Settings::start`].
    #[must_use]
    pub fn start() -> Self {
        Settings::new().start()
    }

    /// More flags, from the next start on.
    pub fn add_arguments(&mut self, words: &str) {
        self.arguments.extend(crate::ctl::split(words));
    }

    /// The programs of another build, from the next start on.
    pub fn set_programs(&mut self, directory: &Path) {
        self.bosund = directory.join("bosund");
        self.shim = directory.join("bosun-shim");
    }

    /// Those that `make build` made, from the next start on.
    pub fn set_own_programs(&mut self) {
        self.bosund = program("bosund");
        self.shim = program("bosun-shim");
    }

    /// The command line of this daemon.
    #[must_use]
    pub fn command(&self) -> Command {
        if let Some(boot) = &self.boot {
            // Without the disks of other tests, which could not be unmounted meanwhile.
            let script = "own=$1; mount --bind \"$2\" /proc/sys/kernel/random/boot_id; shift 2; \
                          awk '/ \\/dev\\/loop/ { print $5 }' /proc/self/mountinfo | while read -r disk; do \
                          case $disk in \"$own\"*) ;; *) umount -l \"$disk\" || true ;; esac; done; exec \"$@\"";
            let mut command = self.netns.command("unshare");
            command.args(["-m", "--", "/bin/sh", "-ec", script, "sh"]).arg(self.directory.path());
            command.arg(boot).arg(&self.bosund);
            return self.with_arguments(command);
        }
        if let Some((program, words)) = self.through.split_first() {
            let mut command = self.netns.command(program);
            let root = self.place.root.to_string_lossy();
            command.args(words.iter().map(|word| word.replace("{root}", &root))).arg(&self.bosund);
            return self.with_arguments(command);
        }
        if let Some(procs) = &self.memory {
            let mut command = self.netns.command("/bin/sh");
            command.args(["-ec", "echo $$ > \"$1\"; shift; exec \"$@\"", "sh"]);
            command.arg(procs).arg(&self.bosund);
            return self.with_arguments(command);
        }
        let command = match (self.disk, self.umask, self.hidden) {
            (None, None, None) => match &self.replaced {
                None => self.netns.command(&self.bosund),
                Some((path, file)) => {
                    let script = "mount --bind \"$1\" \"$2\"; shift 2; exec \"$@\"";
                    let mut command = self.netns.command("unshare");
                    command.args(["-m", "--", "/bin/sh", "-ec", script, "sh"]).arg(file).arg(path);
                    command.arg(&self.bosund);
                    command
                }
            },
            (None, Some(umask), _) => {
                let mut command = self.netns.command("/bin/sh");
                command.args(["-ec", "umask \"$1\"; shift; exec \"$@\"", "sh"]);
                command.arg(format!("{umask:03o}")).arg(&self.bosund);
                command
            }
            (None, None, Some(mount)) => {
                let script = "! mountpoint -q \"$1\" || umount \"$1\"; shift; exec \"$@\"";
                let mut command = self.netns.command("unshare");
                command.args(["-m", "--", "/bin/sh", "-ec", script, "sh", mount]);
                command.arg(&self.bosund);
                command
            }
            (Some(megabytes), _, _) => {
                // Programs that become each other: the daemon is the process that was started.
                let script = "mkdir -p \"$2\"; mount -t tmpfs -o \"size=$1m,mode=0700\" disk \"$2\"; shift 2; exec \"$@\"";
                let mut command = self.netns.command("unshare");
                command.args(["-m", "--", "/bin/sh", "-ec", script, "sh"]);
                command.arg(megabytes.to_string()).arg(&self.place.root).arg(&self.bosund);
                command
            }
        };
        self.with_arguments(command)
    }

    fn with_arguments(&self, mut command: Command) -> Command {
        command.arg("--root").arg(&self.place.root).arg("--state").arg(&self.place.state);
        command.arg("--shim").arg(&self.shim).args(["--log-level", self.log_level]);
        command.args(["--cgroup-prefix", &self.place.prefix, "--bridge", &self.place.bridge]);
        command.args(["--subnet", &self.place.subnet]).arg("--certs-dir").arg(self.certs_dir());
        // Not those of the machine.
        let devices = ["etc-cdi", "run-cdi"].map(|name| self.scratch().join(name));
        command.arg("--cdi-dirs").arg(format!("{},{}", devices[0].display(), devices[1].display()));
        command.args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Starts it, after a kill or for the first time, and waits until its health says SERVING.
    ///
    /// # Panics
    /// When it doesn't, with its log.
    pub fn start_again(&mut self) {
        self.launch();
        let socket = self.socket();
        let serving = wait::within(wait::LIMIT, || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(ended.is_none(), "bosund ended at once: {ended:?}\n{}", self.log());
            (socket.exists() && Api::connect(&socket).is_ok_and(|api| api.is_serving()))
                .then_some(())
        });
        assert!(serving.is_some(), "bosund does not serve:\n{}", self.log());
        if self.baseline.is_empty() {
            self.baseline = leak::nft_elements(&self.netns);
        }
    }

    /// Starts it without waiting for anything.
    ///
    /// # Panics
    /// When it already runs, or the program can't be executed.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "the daemon runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("daemon.log"))
            .expect("the daemon's log");
        let mut command = self.command();
        let child = command.stderr(log).spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("{command:?}: {error}")));
    }

    /// Waits until it is gone by itself: at a failpoint.
    pub fn ended_by_itself(&mut self, limit: Duration) -> Option<ExitStatus> {
        let status = wait::within(limit, || self.child.as_mut()?.try_wait().ok().flatten());
        if status.is_some() {
            self.child = None;
        }
        status
    }

    /// Waits until it serves, or is gone at a failpoint on the way there.
    pub fn serving_or_ended(&mut self) {
        let socket = self.socket();
        wait::within(wait::LIMIT, || {
            let ended = matches!(self.child.as_mut()?.try_wait(), Ok(Some(_)));
            (ended || Api::connect(&socket).is_ok_and(|api| api.is_serving())).then_some(())
        });
        if self.baseline.is_empty() {
            self.baseline = leak::nft_elements(&self.netns);
        }
    }

    /// From the next start on it is started by nobody else.
    pub fn not_through(&mut self) {
        self.through.clear();
    }

    /// Waits until it serves or ends: whether it serves.
    ///
    /// # Panics
    /// When it does neither, with its log.
    pub fn serves_or_ends(&mut self) -> bool {
        self.serving_or_ended();
        let ended = self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
        if ended {
            self.child = None;
        }
        !ended
    }

    /// Waits until it serves, or until `stops` says so: whether that was it.
    ///
    /// # Panics
    /// When neither happens, with its log.
    pub fn serving_or_stopped(&mut self, stops: impl Fn(&Self) -> bool) -> bool {
        let (socket, serves) = (self.socket(), Arc::new(AtomicBool::new(false)));
        let seen = Arc::clone(&serves);
        // One that stands still does not answer, and nobody is to wait for it.
        std::thread::spawn(move || {
            wait::within(wait::LIMIT, || {
                let is = socket.exists() && Api::connect(&socket).is_ok_and(|api| api.is_serving());
                seen.store(is, Ordering::Relaxed);
                is.then_some(())
            })
        });
        let stopped = wait::within(wait::LIMIT, || {
            let serves = serves.load(Ordering::Relaxed);
            if stops(self) { Some(true) } else { serves.then_some(false) }
        });
        let stopped = stopped.unwrap_or_else(|| panic!("bosund does not serve:\n{}", self.log()));
        if !stopped && self.baseline.is_empty() {
            self.baseline = leak::nft_elements(&self.netns);
        }
        stopped
    }

    /// The failpoint that shall strike from the next start on.
    pub fn set_failpoint(&mut self, configuration: &str) {
        self.environment = vec![("FAILPOINTS".to_owned(), configuration.to_owned())];
    }

    /// A variable of its environment, from the next start on.
    pub fn add_variable(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// From the next start on.
    pub fn clear_environment(&mut self) {
        self.environment.clear();
    }

    /// `kill -9`, and its end.
    ///
    /// # Panics
    /// When it doesn't run.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        child.kill().expect("a child of ours");
        child.wait().expect("a child of ours");
    }

    /// SIGTERM, and its end.
    ///
    /// # Panics
    /// When it doesn't run, or doesn't end in time.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the daemon runs");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, Signal::TERM).expect("a child of ours");
        let status = wait::within(wait::LIMIT, || child.try_wait().expect("a child of ours"));
        let Some(status) = status else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("bosund does not end on SIGTERM:\n{}", self.log());
        };
        status
    }

    /// One run of the client; the words are split as a shell does.
    #[must_use]
    pub fn ctl(&self, words: &str) -> Output {
        self.ctl.run(words)
    }

    /// A client that goes on running beside the test.
    #[must_use]
    pub fn ctl_start(&self, words: &str) -> Running {
        self.ctl.start(words, Stdio::piped())
    }

    /// The client, for other ways to run it.
    #[must_use]
    pub fn client(&self) -> &Ctl {
        &self.ctl
    }

    /// A client on a terminal of 80 by 24.
    #[must_use]
    pub fn terminal(&self, words: &str) -> Terminal {
        Terminal::start(&self.ctl.command(words), 80, 24)
    }

    /// # Panics
    /// When the socket doesn't answer.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::connect(&self.socket()).expect("the daemon answers")
    }

    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.place.state.join("bosun.sock")
    }

    #[must_use]
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// A directory for a test's own files, removed with everything else.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Everything it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(self.directory.path().join("daemon.log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// What `ctl inspect --format` says of a container.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    #[must_use]
    pub fn inspect(&self, container: &str, template: &str) -> String {
        self.ctl(&format!("inspect --format '{template}' {container}")).text()
    }

    /// Process 1 of a running container, as the host sees it.
    ///
    /// # Panics
    /// When it doesn't run.
    #[track_caller]
    #[must_use]
    pub fn process(&self, container: &str) -> Process {
        let pid: u32 = self.inspect(container, "{{.State.Pid}}").parse().expect("a pid");
        assert_ne!(pid, 0, "{container} does not run");
        Process(pid)
    }

    /// The shim of a container that has one.
    ///
    /// # Panics
    /// When it has none.
    #[track_caller]
    #[must_use]
    pub fn shim(&self, container: &str) -> Process {
        let pid = self.api().get(container).state.map_or(0, |state| state.shim_pid);
        assert_ne!(pid, 0, "{container} has no shim");
        Process(pid)
    }

    /// Waits until `ctl inspect` has this as the status.
    ///
    /// # Panics
    /// After the time limit.
    #[track_caller]
    pub fn until_status(&self, container: &str, status: &str) {
        wait::until(&format!("status {status} of {container}"), || {
            (self.inspect(container, "{{.State.Status}}") == status).then_some(())
        });
    }

    /// Waits until `ctl logs` of a container holds a text, and gives all of it.
    ///
    /// # Panics
    /// After the time limit.
    #[track_caller]
    pub fn until_logged(&self, container: &str, text: &str) -> String {
        wait::until(&format!("{text:?} in the log of {container}"), || {
            let output = self.ctl(&format!("logs {container}"));
            let all = output.stdout + &output.stderr;
            all.contains(text).then_some(all)
        })
    }

    /// The directory of a container that outlives a reboot.
    #[must_use]
    pub fn container_dir(&self, id: &str) -> ContainerDir {
        ContainerDir::new(self.place.root.join("containers/default").join(id))
    }

    #[must_use]
    pub fn run_dir(&self, id: &str) -> RunDir {
        RunDir::new(self.place.state.join("containers/default").join(id))
    }

    /// What is on the machine of this daemon's containers, right now.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = leak::leftovers(&self.place, &self.netns, &self.baseline);
        let bound = leak::bound_networks();
        if !bound.is_empty() {
            // Only the ids of their pods tell whose they are.
            let log = self.log();
            let own = bound.into_iter().filter(|(id, _)| log.contains(id.as_str()));
            left.extend(own.map(|(_, path)| format!("network {}", path.display())));
        }
        left
    }

    /// Waits until nothing is left of any container.
    ///
    /// # Panics
    /// With what stays.
    #[track_caller]
    pub fn expect_nothing_left(&self) {
        if wait::within(leak::LIMIT, || self.leftovers().is_empty().then_some(())).is_none() {
            panic!("left behind:\n  {}", self.leftovers().join("\n  "));
        }
    }

    fn close(&mut self) {
        if self.child.is_none() {
            self.environment.clear();
            self.start_again();
        }
        // Pods take their containers along.
        for (list, remove) in [("pod ls -q", "pod rm -f"), ("ps -a -q --no-trunc", "rm -f")] {
            let ids = self.ctl(list).text().replace('\n', " ");
            if !ids.is_empty() {
                self.ctl(&format!("{remove} {ids}")).ok();
            }
        }
        self.forget_tries();
        for name in self.api().image_names() {
            self.ctl(&format!("rmi -f {name}")).ok();
        }
        self.expect_nothing_left();
        let status = self.terminate();
        assert!(status.success(), "bosund ended with {status} on SIGTERM:\n{}", self.log());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        let closed = if failed {
            eprintln!("--- log of the daemon ---\n{}", tail(&self.log(), 60));
            Ok(())
        } else {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.close()))
        };
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if closed.is_err() {
            eprintln!("--- log of the daemon ---\n{}", tail(&self.log(), 60));
        }
        leak::sweep(&self.place, self.directory.path());
        if let Err(panic) = closed {
            std::panic::resume_unwind(panic);
        }
    }
}

pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_one_daemons_is_not_taken_for_another_ones() {
        let tokens: Vec<String> = (0..200).map(token).collect();
        for one in &tokens {
            let begun: Vec<&String> =
                tokens.iter().filter(|other| other.starts_with(one)).collect();
            assert_eq!(begun, [one]);
        }
    }
}
