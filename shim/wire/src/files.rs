//! The name of every file and socket of a container, in one place.
//!
//! Three directories, by what they must outlive:
//!
//! - [`ContainerDir`] `ROOT/containers/NS/ID`: survives a reboot.
//! - [`RunDir`] `STATE/containers/NS/ID`: meaningless after a reboot.
//! - [`SocketDir`] `STATE/s/HASH`: short, because a socket path holds 107 bytes (unix(7)).

use std::path::{Path, PathBuf};

/// The longest state directory: `STATE/s/<32 hex>/attach.sock` must fit `sun_path` (unix(7): 108
/// bytes with the terminating NUL).
pub const STATE_MAX_LEN: usize = 60;

/// What must outlive a reboot: spec, options, log, exit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerDir(PathBuf);

impl ContainerDir {
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The OCI runtime spec, as the daemon generated it.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("config.json")
    }

    /// What the user asked for, as the API took it.
    #[must_use]
    pub fn options(&self) -> PathBuf {
        self.0.join("options.json")
    }

    /// The json-file log; rotated files carry `.1`, `.2`, … behind it.
    #[must_use]
    pub fn json_log(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}-json.log"))
    }

    /// The exit record of the last run.
    #[must_use]
    pub fn exit(&self) -> PathBuf {
        self.0.join("exit.json")
    }

    /// The exit record before it is one: made and allocated at create, so that a full disk can't
    /// lose an exit.
    #[must_use]
    pub fn exit_temporary(&self) -> PathBuf {
        self.0.join(".exit.json.tmp")
    }
}

/// What a reboot makes meaningless: the plan, pid identities, the shim's own messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir(PathBuf);

impl RunDir {
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The encoded [`Plan`](crate::plan::Plan).
    #[must_use]
    pub fn plan(&self) -> PathBuf {
        self.0.join("plan")
    }

    /// The encoded [`Hooks`](crate::hooks::Hooks); absent without any, and once those of `poststop`
    /// have run.
    #[must_use]
    pub fn hooks(&self) -> PathBuf {
        self.0.join("hooks")
    }

    /// The shim's [`ProcessIdentity`], written by the shim before it answers its first call.
    #[must_use]
    pub fn shim_identity(&self) -> PathBuf {
        self.0.join("shim.pid")
    }

    /// The container's first process, written by the shim before Create is answered.
    #[must_use]
    pub fn init_identity(&self) -> PathBuf {
        self.0.join("init.pid")
    }

    /// The path of the container's cgroup, for whoever cleans up behind a shim that containerd drove.
    #[must_use]
    pub fn cgroup(&self) -> PathBuf {
        self.0.join("cgroup")
    }

    /// Under containerd: the scope that the cgroup is, of a container whose groups systemd makes.
    #[must_use]
    pub fn scope(&self) -> PathBuf {
        self.0.join("scope")
    }

    /// Under containerd: a link to the [`SocketDir`].
    #[must_use]
    pub fn sockets(&self) -> PathBuf {
        self.0.join("sockets")
    }

    /// What the containers of a pod have at `/dev/shm`; its sandbox's own.
    #[must_use]
    pub fn shared_memory(&self) -> PathBuf {
        self.0.join("shm")
    }

    /// The shim's standard error.
    #[must_use]
    pub fn shim_log(&self) -> PathBuf {
        self.0.join("shim.log")
    }

    /// For containers that a stock shim runs.
    #[must_use]
    pub fn bundle(&self) -> Bundle {
        Bundle(self.0.join("bundle"))
    }

    /// Files the daemon writes and the plan binds into the container.
    #[must_use]
    pub fn etc(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// What a stock shim is given for a container that it runs: containerd's bundle, in the run
/// directory. Whatever the stock shim and its runtime write lies in there as well, and goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle(PathBuf);

impl Bundle {
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The OCI runtime spec, adapted: its root is [`rootfs`](Self::rootfs).
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("config.json")
    }

    /// Where the stock shim mounts the rootfs, in a mount namespace that only it and our shim have.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.0.join("rootfs")
    }

    /// Where the network namespace that was handed over is bound, in that mount namespace.
    #[must_use]
    pub fn network_namespace(&self) -> PathBuf {
        self.0.join("netns")
    }

    /// The stock shim's own messages.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// What the stock shim sees as `/run/containerd`, where shims put their sockets.
    #[must_use]
    pub fn run_containerd(&self) -> PathBuf {
        self.0.join("containerd")
    }

    /// The state of the OCI runtime.
    #[must_use]
    pub fn runtime_root(&self) -> PathBuf {
        self.0.join("oci")
    }

    /// A stream of a process, `stdin`, `stdout` or `stderr`; an empty `exec_id` is the first one's.
    #[must_use]
    pub fn stream(&self, exec_id: &str, name: &str) -> PathBuf {
        let process = if exec_id.is_empty() { "init" } else { exec_id };
        self.0.join(format!("{process}-{name}"))
    }
}

/// The sockets of one shim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketDir(PathBuf);

impl SocketDir {
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// ttrpc: [`task`](crate::task) and [`shim`](crate::shim). Listening before the shim starts.
    #[must_use]
    pub fn shim(&self) -> PathBuf {
        self.0.join("shim.sock")
    }

    /// [`attach`](crate::attach) frames. Bound by the shim.
    #[must_use]
    pub fn attach(&self) -> PathBuf {
        self.0.join("attach.sock")
    }
}

/// Which process a pid once meant: a pid alone is reused, a pid with its start time in one boot is
/// not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessIdentity {
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)): clock ticks after boot.
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

impl ProcessIdentity {
    /// One line, `PID START_TIME BOOT_ID`.
    #[must_use]
    pub fn encode(&self) -> String {
        format!("{} {} {}\n", self.pid, self.start_time, self.boot_id)
    }

    /// The inverse of [`encode`](Self::encode); `None` when the text is anything else.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let identity = Self {
            pid: words.next()?.parse().ok()?,
            start_time: words.next()?.parse().ok()?,
            boot_id: words.next()?.to_owned(),
        };
        (words.next().is_none() && identity.pid != 0).then_some(identity)
    }
}

/// The start time in the text of `/proc/PID/stat`. The command (field 2) may hold spaces and
/// parentheses, so fields are counted from the last `)`.
#[must_use]
pub fn start_time_of_stat(stat: &str) -> Option<u64> {
    let after_command = &stat[stat.rfind(')')? + 1..];
    after_command.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_round_trips_and_refuses_the_rest() {
        let identity =
            ProcessIdentity { pid: 42, start_time: 7_000_000, boot_id: "b-1".to_owned() };
        assert_eq!(ProcessIdentity::decode(&identity.encode()), Some(identity));
        for text in ["", "1", "1 2", "0 2 b", "x 2 b", "1 2 b extra"] {
            assert_eq!(ProcessIdentity::decode(text), None, "{text:?}");
        }
    }

    #[test]
    fn start_time_is_found_behind_any_command_name() {
        let stat = "12 (a) b) c) S 1 12 12 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 4096";
        assert_eq!(start_time_of_stat(stat), Some(98765));
        assert_eq!(start_time_of_stat("12 (x) S 1"), None);
    }

    #[test]
    fn the_longest_state_directory_leaves_room_for_every_socket() {
        let state = "/".to_owned() + &"s".repeat(STATE_MAX_LEN - 1);
        let directory = SocketDir::new(Path::new(&state).join("s").join("f".repeat(32)));
        for socket in [directory.shim(), directory.attach()] {
            assert!(socket.as_os_str().len() <= 107, "{}", socket.display());
        }
    }
}
