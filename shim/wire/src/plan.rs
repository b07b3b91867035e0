//! The plan: an OCI runtime spec lowered to what the kernel will be asked for.
//!
//! Made by one pure function (`shim-plan`), executed by `shim-runtime`. It comes in two parts, so
//! that the long-lived shim touches as little memory as possible:
//!
//! - [`CreateOptions`] travels in the Create call: what the *parent* needs.
//! - [`Plan`] lies in the file `plan` of the run directory and is read only by the cloned child (and
//!   by the children of execs), whose memory is gone after its exec.

use std::collections::BTreeMap;

use prost::Message;

use crate::task::{Any, Mount};

/// The type URL of [`CreateOptions`] in `CreateTaskRequest.options`.
pub const CREATE_OPTIONS: &str = "bosun.shim.v1.CreateOptions";
/// The type URL of [`ExecOptions`] in `ExecProcessRequest.spec`.
pub const EXEC_OPTIONS: &str = "bosun.shim.v1.ExecOptions";
/// The type URL of [`Resources`] in `UpdateTaskRequest.resources`.
pub const RESOURCES: &str = "bosun.shim.v1.Resources";

/// What the shim itself needs of a container.
#[derive(Clone, PartialEq, Message)]
pub struct CreateOptions {
    /// Which run of the container this is, counted from 1; goes into the exit record.
    #[prost(uint64, tag = "1")]
    pub attempt: u64,
    /// CLONE_NEW* flags of clone(2) for the namespaces to create. The cgroup namespace is unshared
    /// by the child, after the move into its cgroup, and the time namespace, whose clocks are set
    /// before anything is in it.
    #[prost(uint64, tag = "2")]
    pub clone_flags: u64,
    #[prost(message, repeated, tag = "3")]
    pub join: Vec<Join>,
    /// Below the mount point of each v1 controller, or of the one hierarchy: `bosun/default/web`.
    #[prost(string, tag = "4")]
    pub cgroup: String,
    #[prost(message, optional, tag = "5")]
    pub resources: Option<Resources>,
    #[prost(bool, tag = "6")]
    pub terminal: bool,
    /// Standard input is held open for clients (docker's `-i`); otherwise it is /dev/null, or a terminal
    /// that nobody types at.
    #[prost(bool, tag = "7")]
    pub stdin: bool,
    /// Standard input ends when the client that sends it goes (docker's StdinOnce).
    #[prost(bool, tag = "8")]
    pub stdin_once: bool,
    #[prost(message, optional, tag = "9")]
    pub log: Option<Log>,
    /// Of the terminal, at its birth; 0 when unknown.
    #[prost(uint32, tag = "10")]
    pub width: u32,
    #[prost(uint32, tag = "11")]
    pub height: u32,
    /// The cgroup namespace is a new one.
    #[prost(bool, tag = "12")]
    pub new_cgroup_namespace: bool,
    /// The kinds of [`Hooks`](crate::hooks::Hooks) that there are.
    #[prost(uint32, tag = "30")]
    pub hooks: u32,
    /// What is no terminal is the caller's own descriptors 0 to 2; `stdin` means nothing then.
    #[prost(bool, tag = "70")]
    pub inherit_stdio: bool,
    /// So many descriptors from 3 on are the process' as well.
    #[prost(uint32, tag = "71")]
    pub preserve_fds: u32,
    /// A stock shim runs the container in this one's stead.
    #[prost(message, optional, tag = "90")]
    pub foreign: Option<Foreign>,
    /// Makes a pod's sandbox: namespaces that its containers share, held by the shim. No process
    /// runs in it, no control group is made, and the plan is not read.
    #[prost(message, optional, tag = "100")]
    pub sandbox: Option<Sandbox>,
    /// Of a container: the kinds (CLONE_NEW*) that the shim holds by descriptor and shows in its
    /// status, for others to join.
    #[prost(uint64, tag = "101")]
    pub held: u64,
    /// The container goes on where a checkpoint of it was taken: no program of the plan is executed.
    #[prost(message, optional, tag = "110")]
    pub restore: Option<Restore>,
    /// The version of these orders (see [`protocol`](crate::protocol)).
    #[prost(uint32, tag = "120")]
    pub protocol: u32,
}

/// From which checkpoint a container goes on, and how.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Restore {
    /// The directory of the images.
    #[prost(string, tag = "1")]
    pub images: String,
    /// Where criu's log goes, and what else it leaves; made when it is missing.
    #[prost(string, tag = "2")]
    pub work: String,
    /// With the TCP connections that were open; the network has to have their address.
    #[prost(bool, tag = "3")]
    pub tcp_established: bool,
    #[prost(bool, tag = "4")]
    pub external_unix_sockets: bool,
    /// The container belongs to the session and terminal of who restores it.
    #[prost(bool, tag = "5")]
    pub shell_job: bool,
    #[prost(bool, tag = "6")]
    pub file_locks: bool,
    /// Images lose what was restored from them.
    #[prost(bool, tag = "7")]
    pub auto_dedup: bool,
    /// In place of the label that the processes had.
    #[prost(string, tag = "8")]
    pub lsm_profile: String,
    /// In place of the label that the mounts had.
    #[prost(string, tag = "9")]
    pub lsm_mount_context: String,
}

/// What is set in the namespaces of a pod.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Sandbox {
    #[prost(string, tag = "1")]
    pub hostname: String,
    #[prost(string, tag = "2")]
    pub domainname: String,
    #[prost(message, repeated, tag = "3")]
    pub sysctls: Vec<Sysctl>,
    /// Of a user namespace that is among the new ones.
    #[prost(message, repeated, tag = "4")]
    pub uid_mappings: Vec<IdMapping>,
    #[prost(message, repeated, tag = "5")]
    pub gid_mappings: Vec<IdMapping>,
    /// As [`Plan::loopback`].
    #[prost(bool, tag = "6")]
    pub loopback: bool,
}

/// How a container is run by a shim that is not ours. Its bundle is there already (see
/// [`Bundle`](crate::files::Bundle)).
#[derive(Clone, PartialEq, Message)]
pub struct Foreign {
    /// The program, such as `/usr/bin/containerd-shim-runc-v2`.
    #[prost(string, tag = "1")]
    pub shim: String,
    /// What the runtime is told beside the spec; containerd's clients send the same.
    #[prost(message, optional, tag = "2")]
    pub options: Option<Any>,
    /// What the stock shim mounts at the bundle's `rootfs`.
    #[prost(message, repeated, tag = "3")]
    pub rootfs: Vec<Mount>,
}

/// A namespace to join instead of creating one.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Join {
    /// The CLONE_NEW* flag that names its kind.
    #[prost(uint64, tag = "1")]
    pub kind: u64,
    /// A path such as `/proc/PID/ns/net`; empty when the descriptor was handed over at the shim's
    /// start (see [`Bootstrap`]).
    #[prost(string, tag = "2")]
    pub path: String,
    /// Its index in `linux.namespaces`, for errors.
    #[prost(uint32, tag = "13")]
    pub index: u32,
}

/// The one message that waits on the shim's standard output, a SOCK_SEQPACKET socket, when it
/// starts under bosund. Its descriptors ride along as SCM_RIGHTS (unix(7)) in the order: the network
/// namespace when `network_namespace`, then one bound socket per published port.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Bootstrap {
    #[prost(bool, tag = "1")]
    pub network_namespace: bool,
    #[prost(uint32, tag = "2")]
    pub port_sockets: u32,
    /// Who starts the shim; 0 when nobody says so. The shim ends with its parent until it can be found
    /// by its identity.
    #[prost(int32, tag = "3")]
    pub parent: i32,
}

/// Where output goes and how much of it is kept.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Log {
    #[prost(enumeration = "LogFormat", tag = "1")]
    pub format: i32,
    #[prost(string, tag = "2")]
    pub path: String,
    /// Bytes after which the file is rotated; 0 never.
    #[prost(uint64, tag = "3")]
    pub max_size: u64,
    /// How many files are kept, the current one included; at least 1.
    #[prost(uint32, tag = "4")]
    pub max_files: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum LogFormat {
    None = 0,
    JsonFile = 1,
    Cri = 2,
}

/// Limits; an absent field is no limit and touches no controller. In an update it stays as it is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Resources {
    /// Bytes; -1 is unlimited, as the next two.
    #[prost(int64, optional, tag = "1")]
    pub memory: Option<i64>,
    /// Bytes of memory and swap together, as OCI has it.
    #[prost(int64, optional, tag = "2")]
    pub memory_swap: Option<i64>,
    #[prost(int64, optional, tag = "3")]
    pub memory_reservation: Option<i64>,
    /// v1 weight, 2 to 262144; converted on v2.
    #[prost(uint64, optional, tag = "4")]
    pub cpu_shares: Option<u64>,
    /// Microseconds in each period; -1 is unlimited.
    #[prost(int64, optional, tag = "5")]
    pub cpu_quota: Option<i64>,
    #[prost(uint64, optional, tag = "6")]
    pub cpu_period: Option<u64>,
    #[prost(string, tag = "7")]
    pub cpuset_cpus: String,
    #[prost(string, tag = "8")]
    pub cpuset_mems: String,
    /// -1 is unlimited.
    #[prost(int64, optional, tag = "9")]
    pub pids: Option<i64>,
    /// In order, the last match wins; empty touches no device controller. What the default devices
    /// and terminals need is among them.
    #[prost(message, repeated, tag = "10")]
    pub devices: Vec<DeviceRule>,
    /// v1 only: 0 to 100.
    #[prost(uint64, optional, tag = "50")]
    pub memory_swappiness: Option<u64>,
    /// v1 only. False switches the killer on again.
    #[prost(bool, optional, tag = "51")]
    pub oom_kill_disable: Option<bool>,
    /// An update is refused when less memory is asked for than is in use.
    #[prost(bool, tag = "52")]
    pub memory_check: bool,
    /// Microseconds that may be saved up from periods before.
    #[prost(uint64, optional, tag = "53")]
    pub cpu_burst: Option<u64>,
    /// 1: runs only when nobody else wants to (SCHED_IDLE for the group).
    #[prost(int64, optional, tag = "54")]
    pub cpu_idle: Option<i64>,
    /// v1 only, as the period: microseconds.
    #[prost(int64, optional, tag = "55")]
    pub cpu_rt_runtime: Option<i64>,
    #[prost(uint64, optional, tag = "56")]
    pub cpu_rt_period: Option<u64>,
    #[prost(message, optional, tag = "57")]
    pub block_io: Option<BlockIo>,
    #[prost(message, repeated, tag = "58")]
    pub hugepages: Vec<HugepageLimit>,
    #[prost(message, repeated, tag = "59")]
    pub rdma: Vec<RdmaLimit>,
    /// v1 only: net_cls.
    #[prost(uint32, optional, tag = "60")]
    pub network_class: Option<u32>,
    /// v1 only: net_prio.
    #[prost(message, repeated, tag = "61")]
    pub network_priorities: Vec<NetworkPriority>,
    /// Files of the unified hierarchy and what is written to them, a line at a time; after
    /// everything else.
    #[prost(btree_map = "string, string", tag = "62")]
    pub unified: BTreeMap<String, String>,
}

/// Shares and limits of block devices.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BlockIo {
    /// 10 to 1000, as the leaf weight; converted on v2.
    #[prost(uint32, optional, tag = "1")]
    pub weight: Option<u32>,
    /// v1 only.
    #[prost(uint32, optional, tag = "2")]
    pub leaf_weight: Option<u32>,
    #[prost(message, repeated, tag = "3")]
    pub weight_devices: Vec<WeightDevice>,
    /// Bytes a second, as the next one; 0 is unlimited.
    #[prost(message, repeated, tag = "4")]
    pub read_bps: Vec<ThrottleDevice>,
    #[prost(message, repeated, tag = "5")]
    pub write_bps: Vec<ThrottleDevice>,
    /// Operations a second.
    #[prost(message, repeated, tag = "6")]
    pub read_iops: Vec<ThrottleDevice>,
    #[prost(message, repeated, tag = "7")]
    pub write_iops: Vec<ThrottleDevice>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct WeightDevice {
    #[prost(uint32, tag = "1")]
    pub major: u32,
    #[prost(uint32, tag = "2")]
    pub minor: u32,
    #[prost(uint32, optional, tag = "3")]
    pub weight: Option<u32>,
    #[prost(uint32, optional, tag = "4")]
    pub leaf_weight: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ThrottleDevice {
    #[prost(uint32, tag = "1")]
    pub major: u32,
    #[prost(uint32, tag = "2")]
    pub minor: u32,
    #[prost(uint64, tag = "3")]
    pub rate: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct HugepageLimit {
    /// As the files are named: `2MB`, `1GB`, `64KB`.
    #[prost(string, tag = "1")]
    pub page_size: String,
    /// Bytes; -1 is unlimited.
    #[prost(int64, tag = "2")]
    pub limit: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct RdmaLimit {
    /// `mlx5_0`.
    #[prost(string, tag = "1")]
    pub device: String,
    #[prost(uint32, optional, tag = "2")]
    pub handles: Option<u32>,
    #[prost(uint32, optional, tag = "3")]
    pub objects: Option<u32>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct NetworkPriority {
    #[prost(string, tag = "1")]
    pub interface: String,
    #[prost(uint32, tag = "2")]
    pub priority: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct DeviceRule {
    #[prost(bool, tag = "1")]
    pub allow: bool,
    /// `a`, `b` or `c`.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// Absent is every one.
    #[prost(int64, optional, tag = "3")]
    pub major: Option<i64>,
    #[prost(int64, optional, tag = "4")]
    pub minor: Option<i64>,
    /// Of `rwm`.
    #[prost(string, tag = "5")]
    pub access: String,
}

/// What the child executes to become the container.
#[derive(Clone, PartialEq, Message)]
pub struct Plan {
    #[prost(string, tag = "1")]
    pub hostname: String,
    #[prost(message, optional, tag = "2")]
    pub rootfs: Option<Rootfs>,
    /// In the order of the spec.
    #[prost(message, repeated, tag = "3")]
    pub mounts: Vec<PlanMount>,
    #[prost(string, repeated, tag = "4")]
    pub masked_paths: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    pub readonly_paths: Vec<String>,
    /// Every node to make: the OCI default devices (null, zero, full, random, urandom, tty) are
    /// among them; `/dev/console`, `/dev/ptmx` and the links to `/proc/self/fd` are not.
    #[prost(message, repeated, tag = "6")]
    pub devices: Vec<Device>,
    #[prost(message, repeated, tag = "7")]
    pub sysctls: Vec<Sysctl>,
    #[prost(message, optional, tag = "8")]
    pub process: Option<Process>,
    /// The network namespace is new and nobody else will switch its loopback on.
    #[prost(bool, tag = "9")]
    pub loopback: bool,
    #[prost(bool, tag = "10")]
    pub new_cgroup_namespace: bool,
    #[prost(string, tag = "11")]
    pub domainname: String,
    /// Of the clocks of a new time namespace.
    #[prost(message, repeated, tag = "13")]
    pub time_offsets: Vec<TimeOffset>,
    /// Of the new user namespace, or what those of the joined one are said to be.
    #[prost(message, repeated, tag = "14")]
    pub uid_mappings: Vec<IdMapping>,
    #[prost(message, repeated, tag = "15")]
    pub gid_mappings: Vec<IdMapping>,
    /// As in [`PlanMount`], of the root when all is done; 0 is MS_PRIVATE.
    #[prost(uint64, tag = "16")]
    pub root_propagation: u64,
    /// The SELinux context of what is mounted for the container; empty is none.
    #[prost(string, tag = "17")]
    pub mount_label: String,
}

/// A range of ids of a user namespace (user_namespaces(7)).
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct IdMapping {
    /// The first, in the namespace.
    #[prost(uint32, tag = "1")]
    pub inside: u32,
    /// The same one, as the host counts.
    #[prost(uint32, tag = "2")]
    pub outside: u32,
    #[prost(uint32, tag = "3")]
    pub size: u32,
}

/// What a clock is ahead of the host's.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TimeOffset {
    /// `monotonic` or `boottime`.
    #[prost(string, tag = "1")]
    pub clock: String,
    #[prost(int64, tag = "2")]
    pub seconds: i64,
    /// Added to the seconds; below 1000000000.
    #[prost(uint32, tag = "3")]
    pub nanoseconds: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Rootfs {
    /// Overlay layers, nearest first; with none, `directory` is bound instead.
    #[prost(string, repeated, tag = "1")]
    pub lower: Vec<String>,
    /// Both empty: a read-only overlay.
    #[prost(string, tag = "2")]
    pub upper: String,
    #[prost(string, tag = "3")]
    pub work: String,
    /// Never synced: for containers whose upper layer dies with them.
    #[prost(bool, tag = "4")]
    pub volatile: bool,
    #[prost(string, tag = "5")]
    pub directory: String,
    /// Remounted read-only at the end of the set-up.
    #[prost(bool, tag = "6")]
    pub readonly: bool,
    /// The layers belong to whom the container's user namespace maps their owners to: root's files to
    /// its root.
    #[prost(bool, tag = "13")]
    pub idmap: bool,
    /// Where hooks that run before the rootfs is the root find it; empty without such hooks.
    #[prost(string, tag = "30")]
    pub shown_at: String,
    /// Further options of the overlay, `index=off` or `userxattr`.
    #[prost(string, repeated, tag = "80")]
    pub overlay_options: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct PlanMount {
    /// A path inside the rootfs.
    #[prost(string, tag = "1")]
    pub destination: String,
    /// `bind`, `cgroup` (all hierarchies), `cgroup2` (the unified one), or a file system's.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// A path on the host for `bind`; a name otherwise.
    #[prost(string, tag = "3")]
    pub source: String,
    /// MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME …, MS_BIND, MS_REC, MS_REMOUNT of
    /// mount(2).
    #[prost(uint64, tag = "4")]
    pub flags: u64,
    /// Options of the file system: `mode=755,size=65536k`.
    #[prost(string, tag = "5")]
    pub data: String,
    /// MS_PRIVATE, MS_SLAVE, MS_SHARED with or without MS_REC; 0 is MS_REC|MS_PRIVATE.
    #[prost(uint64, tag = "6")]
    pub propagation: u64,
    /// Hides what the rootfs has there; passed over when the destination does not exist.
    #[prost(bool, tag = "7")]
    pub only_if_present: bool,
    /// Of the flags, what the source of a bind has and its copy shall not have.
    #[prost(uint64, tag = "13")]
    pub cleared: u64,
    /// MOUNT_ATTR_* of mount_setattr(2), for the mount and all below it.
    #[prost(uint64, tag = "14")]
    pub recursive_set: u64,
    #[prost(uint64, tag = "15")]
    pub recursive_cleared: u64,
    /// Owners are shown as a user namespace maps them: the container's, or one of these maps. Of an
    /// overlay without an upper directory: those of its layers, as the container's has it.
    #[prost(enumeration = "IdMap", tag = "16")]
    pub idmap: i32,
    #[prost(message, repeated, tag = "17")]
    pub uid_mappings: Vec<IdMapping>,
    #[prost(message, repeated, tag = "18")]
    pub gid_mappings: Vec<IdMapping>,
    /// What the rootfs has there is copied into the tmpfs.
    #[prost(bool, tag = "19")]
    pub copy_up: bool,
}

/// Which mounts of a bind are id-mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum IdMap {
    None = 0,
    /// The one that is bound.
    Mount = 1,
    /// That one and those below it.
    Tree = 2,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Device {
    #[prost(string, tag = "1")]
    pub path: String,
    /// `c`, `b` or `p`.
    #[prost(string, tag = "2")]
    pub kind: String,
    #[prost(uint32, tag = "3")]
    pub major: u32,
    #[prost(uint32, tag = "4")]
    pub minor: u32,
    /// Permission bits. What of these three is absent is 0666 or root of a node that is made, and as it
    /// is of one that is there.
    #[prost(uint32, optional, tag = "5")]
    pub mode: Option<u32>,
    #[prost(uint32, optional, tag = "6")]
    pub uid: Option<u32>,
    #[prost(uint32, optional, tag = "7")]
    pub gid: Option<u32>,
    /// Its place in the specification; absent for one that every container has.
    #[prost(uint32, optional, tag = "8")]
    pub index: Option<u32>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Sysctl {
    /// With slashes: `net/ipv4/ip_forward`.
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A process to become: the container's first, or an exec's.
#[derive(Clone, PartialEq, Message)]
pub struct Process {
    #[prost(string, repeated, tag = "1")]
    pub args: Vec<String>,
    /// `NAME=value`. HOME is added from the rootfs' /etc/passwd when it is absent or empty.
    #[prost(string, repeated, tag = "2")]
    pub env: Vec<String>,
    #[prost(string, tag = "3")]
    pub cwd: String,
    #[prost(message, optional, tag = "4")]
    pub user: Option<User>,
    #[prost(message, optional, tag = "5")]
    pub capabilities: Option<Capabilities>,
    #[prost(bool, tag = "6")]
    pub no_new_privileges: bool,
    #[prost(message, repeated, tag = "7")]
    pub rlimits: Vec<Rlimit>,
    #[prost(int32, optional, tag = "8")]
    pub oom_score_adj: Option<i32>,
    /// The compiled filter: `struct sock_filter`s, 8 bytes each (seccomp(2)); empty is none.
    #[prost(bytes = "vec", tag = "9")]
    pub seccomp: Vec<u8>,
    /// SECCOMP_FILTER_FLAG_*.
    #[prost(uint32, tag = "10")]
    pub seccomp_flags: u32,
    #[prost(bool, tag = "11")]
    pub terminal: bool,
    #[prost(uint32, optional, tag = "12")]
    pub umask: Option<u32>,
    /// Run under bosun's own init, which reaps and forwards signals (docker's `--init`).
    #[prost(bool, tag = "13")]
    pub init: bool,
    #[prost(string, tag = "14")]
    pub apparmor: String,
    #[prost(string, tag = "15")]
    pub selinux: String,
    /// It lives on when whoever made it ends.
    #[prost(bool, tag = "70")]
    pub detached: bool,
    /// It keeps the session keyring of whoever made it.
    #[prost(bool, tag = "71")]
    pub keep_keyring: bool,
    /// Instead of a program: bosun's own init without a command, which reaps what others leave and
    /// ends at a signal. The first process of a pod that shares a pid namespace.
    #[prost(bool, tag = "100")]
    pub pause: bool,
    #[prost(message, optional, tag = "30")]
    pub scheduler: Option<Scheduler>,
    /// As ioprio_set(2) takes it: class and level in one number.
    #[prost(uint32, optional, tag = "31")]
    pub io_priority: Option<u32>,
    /// CPUs that an exec's process is cloned on, bit n of byte n / 8 for CPU n; empty for all that
    /// the caller may use.
    #[prost(bytes = "vec", tag = "32")]
    pub cpus_at_clone: Vec<u8>,
    /// CPUs that it runs on once it is in the container's group; empty leaves that to the kernel.
    #[prost(bytes = "vec", tag = "33")]
    pub cpus: Vec<u8>,
    /// As personality(2) takes it.
    #[prost(uint32, optional, tag = "34")]
    pub personality: Option<u32>,
    /// The filter tells an agent of calls.
    #[prost(message, optional, tag = "35")]
    pub notify: Option<Notify>,
}

/// Who is told of calls that the filter notifies of, and with what words.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Notify {
    /// A listening unix socket on the host.
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(string, tag = "2")]
    pub metadata: String,
    #[prost(message, optional, tag = "3")]
    pub state: Option<crate::hooks::State>,
    /// The process is not the container's first.
    #[prost(bool, tag = "4")]
    pub is_exec: bool,
}

/// What sched_setattr(2) takes, `size` apart.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Scheduler {
    /// SCHED_*.
    #[prost(uint32, tag = "1")]
    pub policy: u32,
    /// SCHED_FLAG_*.
    #[prost(uint64, tag = "2")]
    pub flags: u64,
    #[prost(int32, tag = "3")]
    pub nice: i32,
    #[prost(uint32, tag = "4")]
    pub priority: u32,
    /// Nanoseconds, as the two that follow.
    #[prost(uint64, tag = "5")]
    pub runtime: u64,
    #[prost(uint64, tag = "6")]
    pub deadline: u64,
    #[prost(uint64, tag = "7")]
    pub period: u64,
}

/// Who: numbers, or a name that is looked up in the rootfs' own files by the child, inside.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct User {
    #[prost(uint32, tag = "1")]
    pub uid: u32,
    #[prost(uint32, tag = "2")]
    pub gid: u32,
    #[prost(uint32, repeated, tag = "3")]
    pub additional_gids: Vec<u32>,
    /// `NAME|UID[:GROUP|GID]` as docker's `-u`; when not empty it decides `uid`, `gid` and adds the
    /// user's groups of /etc/group.
    #[prost(string, tag = "4")]
    pub name: String,
    /// Those groups are left out.
    #[prost(bool, tag = "5")]
    pub strict: bool,
}

/// Bit sets, bit n for capability n (capabilities(7)).
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Capabilities {
    #[prost(uint64, tag = "1")]
    pub bounding: u64,
    #[prost(uint64, tag = "2")]
    pub effective: u64,
    #[prost(uint64, tag = "3")]
    pub permitted: u64,
    #[prost(uint64, tag = "4")]
    pub inheritable: u64,
    #[prost(uint64, tag = "5")]
    pub ambient: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Rlimit {
    /// RLIMIT_* of getrlimit(2).
    #[prost(uint32, tag = "1")]
    pub resource: u32,
    /// u64::MAX is unlimited.
    #[prost(uint64, tag = "2")]
    pub soft: u64,
    #[prost(uint64, tag = "3")]
    pub hard: u64,
}

/// A further process of a running container. Namespaces, cgroup and root are the container's.
#[derive(Clone, PartialEq, Message)]
pub struct ExecOptions {
    #[prost(message, optional, tag = "1")]
    pub process: Option<Process>,
    /// Standard input is held open for the client; otherwise it is /dev/null, or a terminal that nobody
    /// types at.
    #[prost(bool, tag = "2")]
    pub stdin: bool,
    #[prost(uint32, tag = "3")]
    pub width: u32,
    #[prost(uint32, tag = "4")]
    pub height: u32,
    /// As [`CreateOptions::inherit_stdio`].
    #[prost(bool, tag = "70")]
    pub inherit_stdio: bool,
    /// As [`CreateOptions::preserve_fds`].
    #[prost(uint32, tag = "71")]
    pub preserve_fds: u32,
    /// The process as OCI has it, in JSON, for a container that a stock shim runs; empty otherwise.
    #[prost(bytes = "vec", tag = "90")]
    pub oci_process: Vec<u8>,
}
