//! What containerd and a shim say to each other beside the [task API](crate::task): the start of a
//! shim in its three generations, the events that a shim forwards, and the options of runtimes.
//!
//! | daemon | standard input of `start` | standard output |
//! |---|---|---|
//! | 1.6 | an [`Any`] of runtime options, or nothing | the plain address |
//! | 1.7 to 2.2 (`MAX_SHIM_VERSION` is set) | the same | JSON: version, address, protocol |
//! | 2.3 and later | [`BootstrapParams`] | [`BootstrapResult`] |
//!
//! Field numbers follow containerd's `api/runtime/bootstrap/v1`, `api/events/task.proto`,
//! `api/services/ttrpc/events/v1`, `api/types/runc/options` and `api/types/introspection.proto`; the
//! comments are ours.

use prost::Message;

use crate::task::{Any, Mount, Timestamp};

/// What a daemon of 2.3 or later gives to `start`.
#[derive(Clone, PartialEq, Message)]
pub struct BootstrapParams {
    /// The container's id.
    #[prost(string, tag = "1")]
    pub instance_id: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// 0 is "info", more is less.
    #[prost(int32, tag = "3")]
    pub log_level: i32,
    #[prost(string, tag = "4")]
    pub containerd_version: String,
    /// Where events go.
    #[prost(string, tag = "5")]
    pub containerd_ttrpc_address: String,
    #[prost(string, tag = "6")]
    pub containerd_grpc_address: String,
    #[prost(string, tag = "7")]
    pub containerd_binary: String,
    /// The runtime's options are one of them.
    #[prost(message, repeated, tag = "8")]
    pub extensions: Vec<Extension>,
    /// Where the shim's socket is to be; absent, where the shim likes.
    #[prost(string, optional, tag = "9")]
    pub socket_dir: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Extension {
    #[prost(message, optional, tag = "1")]
    pub value: Option<Any>,
}

/// What such a daemon is answered.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BootstrapResult {
    /// Of the task API: 2 or 3.
    #[prost(int32, tag = "1")]
    pub version: i32,
    /// `unix:///path`
    #[prost(string, tag = "2")]
    pub address: String,
    /// `ttrpc`
    #[prost(string, tag = "3")]
    pub protocol: String,
}

/// The type URL of [`RuncOptions`].
pub const RUNC_OPTIONS: &str = "containerd.runc.v1.Options";

/// containerd.runc.v1.Options, the options of `io.containerd.runc.v2`, which its clients send to
/// whatever they drive in its place.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RuncOptions {
    #[prost(bool, tag = "1")]
    pub no_pivot_root: bool,
    #[prost(bool, tag = "2")]
    pub no_new_keyring: bool,
    /// The cgroup that the shim itself goes to.
    #[prost(string, tag = "3")]
    pub shim_cgroup: String,
    /// Who owns the container's streams.
    #[prost(uint32, tag = "4")]
    pub io_uid: u32,
    #[prost(uint32, tag = "5")]
    pub io_gid: u32,
    /// The OCI runtime.
    #[prost(string, tag = "6")]
    pub binary_name: String,
    /// The OCI runtime's state.
    #[prost(string, tag = "7")]
    pub root: String,
    /// Until containerd 1.7.
    #[prost(string, tag = "8")]
    pub criu_path: String,
    /// `linux.cgroupsPath` is `SLICE:PREFIX:NAME`.
    #[prost(bool, tag = "9")]
    pub systemd_cgroup: bool,
    #[prost(string, tag = "10")]
    pub criu_image_path: String,
    #[prost(string, tag = "11")]
    pub criu_work_path: String,
    /// Of a sandbox's shim, since containerd 2.0; there is none.
    #[prost(string, tag = "12")]
    pub task_api_address: String,
    #[prost(uint32, tag = "13")]
    pub task_api_version: u32,
}

/// The type URL of [`ShimOptions`].
pub const SHIM_OPTIONS: &str = "runtimeoptions.v1.Options";

/// runtimeoptions.v1.Options: what shims other than runc's are told beside the spec.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ShimOptions {
    /// Of the configuration's content; the shim knows it.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// A file.
    #[prost(string, tag = "2")]
    pub config_path: String,
    /// The same in place.
    #[prost(bytes = "vec", tag = "3")]
    pub config_body: Vec<u8>,
}

/// The type URL of [`CreateOptions`].
pub const CREATE_OPTIONS: &str = "containerd.linux.runc.CreateOptions";

/// containerd.linux.runc.CreateOptions, what `ctr` until 1.7 sends to every runtime but runc's.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CreateOptions {
    #[prost(bool, tag = "1")]
    pub no_pivot_root: bool,
    #[prost(bool, tag = "8")]
    pub no_new_keyring: bool,
    #[prost(string, tag = "9")]
    pub shim_cgroup: String,
    /// Who owns the container's streams.
    #[prost(uint32, tag = "10")]
    pub io_uid: u32,
    #[prost(uint32, tag = "11")]
    pub io_gid: u32,
}

/// The type URL of [`CheckpointOptions`].
pub const CHECKPOINT_OPTIONS: &str = "containerd.runc.v1.CheckpointOptions";

/// containerd.runc.v1.CheckpointOptions.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CheckpointOptions {
    /// The container ends with it.
    #[prost(bool, tag = "1")]
    pub exit: bool,
    #[prost(bool, tag = "2")]
    pub open_tcp: bool,
    #[prost(bool, tag = "3")]
    pub external_unix_sockets: bool,
    /// The container may belong to a session of somebody outside.
    #[prost(bool, tag = "4")]
    pub terminal: bool,
    #[prost(bool, tag = "5")]
    pub file_locks: bool,
    /// Kinds of namespaces that the restore makes anew.
    #[prost(string, repeated, tag = "6")]
    pub empty_namespaces: Vec<String>,
    #[prost(string, tag = "7")]
    pub cgroups_mode: String,
    /// In place of the request's directory.
    #[prost(string, tag = "8")]
    pub image_path: String,
    /// Where criu's log goes.
    #[prost(string, tag = "9")]
    pub work_path: String,
}

/// The type URL of [`ProcessDetails`].
pub const PROCESS_DETAILS: &str = "containerd.runc.v1.ProcessDetails";

/// What is known of a process of a list.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ProcessDetails {
    #[prost(string, tag = "1")]
    pub exec_id: String,
}

/// What `-info` answers.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RuntimeInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub version: Option<RuntimeVersion>,
    /// Those that were asked with.
    #[prost(message, optional, tag = "3")]
    pub options: Option<Any>,
    /// OCI's features document, as JSON.
    #[prost(message, optional, tag = "4")]
    pub features: Option<Any>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct RuntimeVersion {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(string, tag = "2")]
    pub revision: String,
}

/// The type URL of OCI's features document.
pub const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// The service that containerd serves at its ttrpc address, and its one method.
pub const EVENTS_SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
pub const FORWARD: &str = "Forward";
/// The name of the namespace among a call's metadata.
pub const NAMESPACE_KEY: &str = "containerd-namespace-ttrpc";

#[derive(Clone, PartialEq, Eq, Message)]
pub struct ForwardRequest {
    #[prost(message, optional, tag = "1")]
    pub envelope: Option<Envelope>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Envelope {
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "3")]
    pub topic: String,
    #[prost(message, optional, tag = "4")]
    pub event: Option<Any>,
}

/// An event of a task: its message, and how that is announced.
pub trait Event: Message {
    const TOPIC: &'static str;
    const TYPE_URL: &'static str;
}

macro_rules! events {
    ($($message:ident: $topic:literal, $type_url:literal;)*) => {
        $(impl Event for $message {
            const TOPIC: &'static str = $topic;
            const TYPE_URL: &'static str = concat!("containerd.events.", $type_url);
        })*
    };
}

events! {
    TaskCreate: "/tasks/create", "TaskCreate";
    TaskStart: "/tasks/start", "TaskStart";
    TaskDelete: "/tasks/delete", "TaskDelete";
    TaskExit: "/tasks/exit", "TaskExit";
    TaskOom: "/tasks/oom", "TaskOOM";
    TaskExecAdded: "/tasks/exec-added", "TaskExecAdded";
    TaskExecStarted: "/tasks/exec-started", "TaskExecStarted";
    TaskPaused: "/tasks/paused", "TaskPaused";
    TaskResumed: "/tasks/resumed", "TaskResumed";
    TaskCheckpointed: "/tasks/checkpointed", "TaskCheckpointed";
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct TaskCreate {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(string, tag = "2")]
    pub bundle: String,
    #[prost(message, repeated, tag = "3")]
    pub rootfs: Vec<Mount>,
    #[prost(message, optional, tag = "4")]
    pub io: Option<TaskIo>,
    #[prost(string, tag = "5")]
    pub checkpoint: String,
    #[prost(uint32, tag = "6")]
    pub pid: u32,
}

/// Where a process' streams come from and go to: FIFOs, or URIs.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TaskIo {
    #[prost(string, tag = "1")]
    pub stdin: String,
    #[prost(string, tag = "2")]
    pub stdout: String,
    #[prost(string, tag = "3")]
    pub stderr: String,
    #[prost(bool, tag = "4")]
    pub terminal: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct TaskStart {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(uint32, tag = "2")]
    pub pid: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct TaskDelete {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    #[prost(uint32, tag = "3")]
    pub exit_status: u32,
    #[prost(message, optional, tag = "4")]
    pub exited_at: Option<Timestamp>,
    /// An exec's; empty for the container's first process.
    #[prost(string, tag = "5")]
    pub id: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct TaskExit {
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// An exec's id, or the container's for its first process.
    #[prost(string, tag = "2")]
    pub id: String,
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    #[prost(uint32, tag = "4")]
    pub exit_status: u32,
    #[prost(message, optional, tag = "5")]
    pub exited_at: Option<Timestamp>,
}

/// The kernel killed something in the container for want of memory.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TaskOom {
    #[prost(string, tag = "1")]
    pub container_id: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct TaskExecAdded {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(string, tag = "2")]
    pub exec_id: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct TaskExecStarted {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(string, tag = "2")]
    pub exec_id: String,
    #[prost(uint32, tag = "3")]
    pub pid: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct TaskPaused {
    #[prost(string, tag = "1")]
    pub container_id: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct TaskResumed {
    #[prost(string, tag = "1")]
    pub container_id: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct TaskCheckpointed {
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// The directory that it was written to.
    #[prost(string, tag = "2")]
    pub checkpoint: String,
}
