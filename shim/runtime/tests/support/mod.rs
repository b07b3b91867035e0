//! A container to try things on: a small rootfs of busybox, a plan as a daemon would make it, and
//! what a shim would do with it. Everything it makes is gone when it is dropped.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use prost::Message;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use shim_cgroup::{Cgroup, Layout, list, prune};
use shim_runtime::{Created, Error, ExecTarget, ProcessIo, Waiting, create, exec};
use shim_wire::files::RunDir;
use shim_wire::hooks::Hooks;
use shim_wire::plan::{
    Capabilities, CreateOptions, Device, ExecOptions, Plan, PlanMount, Process, Resources, Rootfs,
};

const NOSUID: u64 = 2;
const NODEV: u64 = 4;
const NOEXEC: u64 = 8;
const RDONLY: u64 = 1;
const STRICTATIME: u64 = 1 << 24;

/// Mount, UTS, IPC, pid, net and cgroup namespaces.
pub(crate) const ALL_NAMESPACES: u64 =
    0x0002_0000 | 0x0400_0000 | 0x0800_0000 | 0x2000_0000 | 0x4000_0000 | 0x0200_0000;

/// docker's default capabilities.
const CAPABILITIES: u64 = 0xa804_25fb;

/// A container that is not made yet, and its surroundings.
pub(crate) struct Sandbox {
    directory: tempfile::TempDir,
    pub(crate) layout: Layout,
    prefix: String,
    pub(crate) options: CreateOptions,
    pub(crate) plan: Plan,
    pub(crate) hooks: Hooks,
}

/// What a process did.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The exit code, or 128 and the signal.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["root", "upper", "work", "run", "host"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        fill(&directory.path().join("root"));
        let unique = directory.path().file_name().unwrap().to_str().unwrap();
        let prefix = format!("bosun-test-runtime{unique}");
        let options = CreateOptions {
            attempt: 1,
            clone_flags: ALL_NAMESPACES,
            cgroup: format!("{prefix}/default/c"),
            resources: Some(Resources::default()),
            new_cgroup_namespace: true,
            ..CreateOptions::default()
        };
        let plan = plan(directory.path());
        let hooks = Hooks::default();
        Self { layout: Layout::detect().unwrap(), directory, prefix, options, plan, hooks }
    }

    /// One that runs a shell script.
    pub(crate) fn script(script: &str) -> Self {
        let mut sandbox = Self::new();
        sandbox.process().args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        sandbox
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        self.plan.process.get_or_insert_default()
    }

    /// A path on the host that belongs to the test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn run_dir(&self) -> RunDir {
        RunDir::new(self.path("run"))
    }

    /// Directories the container must not reach.
    pub(crate) fn host_is_untouched(&self) -> bool {
        std::fs::read_dir(self.path("host")).unwrap().next().is_none()
    }

    pub(crate) fn cgroup(&self) -> Cgroup {
        Cgroup::new(&self.layout, &self.options.cgroup).unwrap()
    }

    /// The path of the group that the container's own is in.
    pub(crate) fn cgroup_above(&self) -> String {
        self.options.cgroup.rsplit_once('/').unwrap().0.to_owned()
    }

    pub(crate) fn create(&self) -> Result<Created, Error> {
        self.create_in(None)
    }

    pub(crate) fn create_in(&self, network: Option<BorrowedFd<'_>>) -> Result<Created, Error> {
        let run_dir = self.run_dir();
        std::fs::write(run_dir.plan(), self.plan.encode_to_vec()).unwrap();
        let options = CreateOptions { hooks: self.hooks.kinds(), ..self.options.clone() };
        if options.hooks != 0 {
            std::fs::write(run_dir.hooks(), self.hooks.encode_to_vec()).unwrap();
        }
        create(&options, &run_dir, network)
    }

    /// Creates and starts it.
    pub(crate) fn start(&self) -> Created {
        let mut created = self.create().unwrap();
        created.process.start().unwrap();
        created
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Outcome {
        let mut created = self.create().unwrap();
        created.process.start().unwrap();
        finish(created.process)
    }

    /// The error of creating or starting it.
    pub(crate) fn error(&self) -> Error {
        let mut created = match self.create() {
            Ok(created) => created,
            Err(error) => return error,
        };
        match created.process.start() {
            Ok(()) => panic!("it started: {:?}", finish(created.process)),
            Err(error) => error,
        }
    }

    /// A further process of a running container.
    pub(crate) fn exec(&self, created: &Created, options: &ExecOptions) -> Result<Waiting, Error> {
        let init = created.process.pidfd.as_fd();
        let mut waiting = exec(options, &ExecTarget { init, cgroup: &self.options.cgroup })?;
        waiting.start()?;
        Ok(waiting)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let soon = Instant::now() + Duration::from_secs(5);
        for path in list(&self.layout, &self.prefix).unwrap() {
            let group = Cgroup::new(&self.layout, &path).unwrap();
            std::thread::scope(|scope| {
                let killing = scope.spawn(|| group.kill(soon));
                // Children of this process have to be reaped for the group to be empty.
                while !killing.is_finished() {
                    let _ = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
                    std::thread::sleep(Duration::from_millis(1));
                }
                let _ = killing.join();
            });
            let _ = group.remove(soon);
        }
        let _ = prune(&self.layout, &self.prefix);
    }
}

/// Reads all output and waits for the end.
pub(crate) fn finish(process: Waiting) -> Outcome {
    let (stdout, stderr) = match process.io {
        ProcessIo::Terminal { master } => (read(master), String::new()),
        ProcessIo::Pipes { stdin, stdout, stderr } => {
            drop(stdin);
            (read(stdout), read(stderr))
        }
        ProcessIo::Inherited => (String::new(), String::new()),
    };
    Outcome { code: wait(&process.pidfd), stdout, stderr }
}

/// Reads to the end; of a pty that is an error.
pub(crate) fn read(fd: OwnedFd) -> String {
    let mut bytes = Vec::new();
    let _ = File::from(fd).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) fn wait(pidfd: &OwnedFd) -> i32 {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return status
                    .exit_status()
                    .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
                    .unwrap();
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => panic!("{errno}"),
        }
    }
}

/// How long undoing may take.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

pub(crate) fn has_no_children() -> bool {
    rustix::process::wait(rustix::process::WaitOptions::NOHANG).err()
        == Some(rustix::io::Errno::CHILD)
}

pub(crate) fn kill(pidfd: &OwnedFd) {
    pidfd_send_signal(pidfd, Signal::KILL).unwrap();
}

/// Gives the test a mount table of its own, all shared as on a machine with systemd: whatever a
/// container lets out shows in it, and what others mount meanwhile does not.
pub(crate) fn leave_the_machines_mount_table() {
    use rustix::mount::{MountPropagationFlags as Propagation, mount_change};
    shim_sys::clone::unshare(0x0002_0000).unwrap();
    mount_change("/", Propagation::PRIVATE | Propagation::REC).unwrap();
    mount_change("/", Propagation::SHARED | Propagation::REC).unwrap();
}

/// Compares the table of mounts with what it was. Of others some may have gone meanwhile, with the
/// directory that they were on.
#[track_caller]
pub(crate) fn expect_no_new_mount(before: &str) {
    let now = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let new: Vec<&str> = now.lines().filter(|line| !before.contains(line)).collect();
    assert!(new.is_empty(), "{new:#?}");
}

/// A small rootfs.
fn fill(root: &Path) {
    for directory in ["bin", "etc", "proc", "sys", "dev", "tmp", "usr/bin"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "true", "false", "cat", "echo", "id", "ls", "sleep", "readlink", "stat", "hostname",
        "tty", "stty", "touch", "mkdir", "rm", "pwd", "grep", "ps", "kill", "wc", "mount",
        "umount", "chmod", "dd", "head", "tail", "test", "env", "ip", "nc", "mv", "ln", "seq",
        "sync", "setsid", "printf", "mknod", "sort", "tr",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:App:/home/app:/bin/sh\n";
    std::fs::write(root.join("etc/passwd"), passwd).unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\napp:x:1000:\naudio:x:29:app\n").unwrap();
}

fn plan(directory: &Path) -> Plan {
    let text = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let paths = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    Plan {
        hostname: "box".to_owned(),
        rootfs: Some(Rootfs {
            lower: vec![text("root")],
            upper: text("upper"),
            work: text("work"),
            ..Rootfs::default()
        }),
        mounts: mounts(),
        masked_paths: paths(&[
            "/proc/acpi",
            "/proc/asound",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/proc/scsi",
            "/proc/interrupts",
            "/sys/firmware",
            "/sys/devices/virtual/powercap",
        ]),
        readonly_paths: paths(&[
            "/proc/bus",
            "/proc/fs",
            "/proc/irq",
            "/proc/sys",
            "/proc/sysrq-trigger",
        ]),
        devices: devices(),
        process: Some(process()),
        loopback: true,
        new_cgroup_namespace: true,
        ..Plan::default()
    }
}

pub(crate) fn process() -> Process {
    Process {
        args: vec!["/bin/true".to_owned()],
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        cwd: "/".to_owned(),
        capabilities: Some(Capabilities {
            bounding: CAPABILITIES,
            effective: CAPABILITIES,
            permitted: CAPABILITIES,
            inheritable: 0,
            ambient: 0,
        }),
        ..Process::default()
    }
}

fn mounts() -> Vec<PlanMount> {
    let mount = |kind: &str, destination: &str, flags, data: &str| PlanMount {
        destination: destination.to_owned(),
        kind: kind.to_owned(),
        source: kind.to_owned(),
        flags,
        data: data.to_owned(),
        ..PlanMount::default()
    };
    let most = NOSUID | NODEV | NOEXEC;
    vec![
        mount("proc", "/proc", most, ""),
        mount("tmpfs", "/dev", NOSUID | STRICTATIME, "mode=755,size=65536k"),
        mount("devpts", "/dev/pts", NOSUID | NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
        mount("sysfs", "/sys", most | RDONLY, ""),
        mount("cgroup", "/sys/fs/cgroup", most | RDONLY, ""),
        mount("mqueue", "/dev/mqueue", most, ""),
        mount("tmpfs", "/dev/shm", most, "mode=1777,size=65536k"),
    ]
}

fn devices() -> Vec<Device> {
    [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ]
    .iter()
    .map(|(name, major, minor)| Device {
        path: format!("/dev/{name}"),
        kind: "c".to_owned(),
        major: *major,
        minor: *minor,
        mode: Some(0o666),
        ..Device::default()
    })
    .collect()
}
