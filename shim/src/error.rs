//! What can go wrong, and which ttrpc code each of it is.

use std::fmt;
use std::io;

use prost::DecodeError;
use shim_runtime::Kind;
use shim_wire::lifecycle::Refused;
use shim_wire::ttrpc::{Code, Response};

/// Why the process could not become a shim.
#[derive(Debug)]
pub(crate) enum SetupError {
    Step {
        step: &'static str,
        source: io::Error,
    },
    /// It does not decode, or brought other descriptors than it announced.
    Bootstrap {
        source: Option<DecodeError>,
    },
}

impl SetupError {
    pub(crate) fn step(step: &'static str, source: io::Error) -> Self {
        Self::Step { step, source }
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step { step, source } => write!(f, "{step}: {source}"),
            Self::Bootstrap { source: Some(source) } => write!(f, "bootstrap message: {source}"),
            Self::Bootstrap { source: None } => {
                f.write_str("bootstrap message: it came with other descriptors than it announces")
            }
        }
    }
}

impl std::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Step { source, .. } => Some(source),
            Self::Bootstrap { source } => source.as_ref().map(|source| source as _),
        }
    }
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Error {
    UnknownMethod {
        service: String,
        method: String,
    },
    Malformed {
        method: String,
        source: DecodeError,
    },
    /// Options of a type that this shim does not read.
    OptionsType {
        field: &'static str,
        type_url: String,
    },
    MalformedOptions {
        field: &'static str,
        source: DecodeError,
    },
    /// The task id of the call is not this shim's.
    OtherTask {
        asked: String,
        own: String,
    },
    NotCreated,
    AlreadyCreated,
    /// The daemon is of a newer build, and what it asks for might be passed over in part.
    NewerOrders {
        asked: u32,
        own: u32,
    },
    NoSuchExec {
        id: String,
    },
    InvalidExecId {
        id: String,
        source: shim_wire::id::InvalidId,
    },
    ExecExists {
        id: String,
    },
    /// An exec that has been started before, or whose container does not run.
    ExecNotStartable {
        id: String,
        why: &'static str,
    },
    /// The process has not ended, or, for an exec, not begun.
    NotStopped {
        process: String,
    },
    /// A container that can't be written down, or not in the way that was asked for.
    NotCheckpointed {
        why: &'static str,
    },
    /// A sandbox that only holds namespaces: there is nothing to hold still, to measure or to limit.
    NoProcesses,
    /// The process has not been started.
    NotStarted {
        process: String,
    },
    Finished {
        process: String,
    },
    NoTerminal {
        process: String,
    },
    WindowSize {
        width: u32,
        height: u32,
    },
    OtherAttempt {
        asked: u64,
        own: u64,
    },
    /// What `bosun-oci lower` says of a spec, options or mounts.
    Lowering {
        said: String,
    },
    /// A stream of a client's that can't be opened.
    Stream {
        stream: &'static str,
        at: String,
        source: io::Error,
    },
    Lifecycle(Refused),
    Runtime(shim_runtime::Error),
    Cgroup(shim_cgroup::Error),
    /// Of a stock shim, or on the way to one.
    Foreign(crate::foreign::Error),
    Log {
        path: String,
        source: io::Error,
    },
    /// A step of the shim's own.
    Step {
        step: &'static str,
        object: String,
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn step(step: &'static str, object: impl Into<String>, source: io::Error) -> Self {
        Self::Step { step, object: object.into(), source }
    }

    pub(crate) fn response(&self) -> Response {
        Response::error(self.code(), self.to_string())
    }

    fn code(&self) -> Code {
        match self {
            Self::UnknownMethod { .. } => Code::Unimplemented,
            Self::Malformed { .. }
            | Self::OptionsType { .. }
            | Self::MalformedOptions { .. }
            | Self::InvalidExecId { .. }
            | Self::NoTerminal { .. }
            | Self::WindowSize { .. }
            | Self::Lowering { .. }
            | Self::Stream { .. }
            | Self::OtherAttempt { .. }
            | Self::NoProcesses => Code::InvalidArgument,
            Self::OtherTask { .. }
            | Self::NotCreated
            | Self::NoSuchExec { .. }
            | Self::Finished { .. } => Code::NotFound,
            Self::AlreadyCreated | Self::ExecExists { .. } => Code::AlreadyExists,
            Self::ExecNotStartable { .. }
            | Self::NewerOrders { .. }
            | Self::NotStopped { .. }
            | Self::NotStarted { .. }
            | Self::NotCheckpointed { .. }
            | Self::Lifecycle(_) => Code::FailedPrecondition,
            Self::Runtime(error) => runtime_code(error.kind()),
            Self::Cgroup(error) if error.is_limit() => Code::InvalidArgument,
            Self::Cgroup(_) => Code::Internal,
            Self::Foreign(error) => error.code(),
            Self::Log { source, .. } | Self::Step { source, .. } if is_full(source) => {
                Code::ResourceExhausted
            }
            Self::Log { .. } | Self::Step { .. } => Code::Internal,
        }
    }
}

/// Whether somebody has to make room.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn runtime_code(kind: Kind) -> Code {
    match kind {
        Kind::CommandNotFound => Code::NotFound,
        Kind::CommandNotExecutable => Code::PermissionDenied,
        Kind::BadUser | Kind::BadCwd | Kind::MountSource | Kind::LimitRefused | Kind::Refused => {
            Code::InvalidArgument
        }
        Kind::Hook => Code::FailedPrecondition,
        Kind::System => Code::Internal,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownMethod { service, method } => {
                write!(f, "{service}/{method} is not implemented by bosun-shim")
            }
            Self::Malformed { method, source } => {
                write!(f, "{method}: malformed request: {source}")
            }
            Self::OptionsType { field, type_url } => {
                write!(f, "{field}: options of type {type_url:?} are not supported")
            }
            Self::MalformedOptions { field, source } => write!(f, "{field}: {source}"),
            Self::OtherTask { asked, own } => {
                write!(f, "no task {asked:?} here: this is the shim of {own:?}")
            }
            Self::NotCreated => f.write_str("the task has not been created"),
            Self::AlreadyCreated => f.write_str("the task has been created already"),
            Self::NewerOrders { asked, own } => write!(
                f,
                "this bosun-shim understands orders up to version {own}, and bosund gives some of version {asked}: install the bosun-shim that belongs to it"
            ),
            Self::NoSuchExec { id } => write!(f, "no exec {id:?}"),
            Self::InvalidExecId { id, source } => write!(f, "exec id {id:?}: {source}"),
            Self::ExecExists { id } => write!(f, "exec {id:?} exists already"),
            Self::ExecNotStartable { id, why } => write!(f, "exec {id:?} can't be started: {why}"),
            Self::NotStopped { process } => write!(f, "{process} has not stopped"),
            Self::NotCheckpointed { why } => write!(f, "checkpoint: {why}"),
            Self::NoProcesses => f.write_str(
                "it is the sandbox of a pod, which has no processes: the containers in it have",
            ),
            Self::NotStarted { process } => write!(f, "{process} has not been started"),
            // containerd's clients look for these very words.
            Self::Finished { process } => write!(f, "{process}: process already finished"),
            Self::NoTerminal { process } => write!(f, "{process} has no terminal"),
            Self::WindowSize { width, height } => {
                write!(f, "a window of {width} by {height}: each is at most {}", u16::MAX)
            }
            Self::OtherAttempt { asked, own } => {
                write!(f, "release of run {asked}, but this shim serves run {own}")
            }
            Self::Lowering { said } => f.write_str(said),
            Self::Stream { stream, at, source } => write!(f, "{stream} {at:?}: {source}"),
            Self::Lifecycle(refused) => refused.fmt(f),
            Self::Runtime(error) => error.fmt(f),
            Self::Cgroup(error) => error.fmt(f),
            Self::Foreign(error) => error.fmt(f),
            Self::Log { path, source } => write!(f, "open log {path:?}: {source}"),
            Self::Step { step, object, source } => write!(f, "{step} {object}: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Malformed { source, .. } | Self::MalformedOptions { source, .. } => Some(source),
            Self::InvalidExecId { source, .. } => Some(source),
            Self::Lifecycle(source) => Some(source),
            Self::Runtime(source) => Some(source),
            Self::Cgroup(source) => Some(source),
            Self::Foreign(source) => Some(source),
            Self::Log { source, .. } | Self::Stream { source, .. } | Self::Step { source, .. } => {
                Some(source)
            }
            Self::UnknownMethod { .. }
            | Self::OptionsType { .. }
            | Self::OtherTask { .. }
            | Self::NotCreated
            | Self::AlreadyCreated
            | Self::NewerOrders { .. }
            | Self::NoSuchExec { .. }
            | Self::ExecExists { .. }
            | Self::ExecNotStartable { .. }
            | Self::NotStopped { .. }
            | Self::NoProcesses
            | Self::NotStarted { .. }
            | Self::NotCheckpointed { .. }
            | Self::Finished { .. }
            | Self::NoTerminal { .. }
            | Self::WindowSize { .. }
            | Self::Lowering { .. }
            | Self::OtherAttempt { .. } => None,
        }
    }
}

impl From<shim_failpoints::Stumble> for Error {
    fn from(stumble: shim_failpoints::Stumble) -> Self {
        Self::step("pass", "a failpoint", stumble.into())
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::Lifecycle(refused)
    }
}

impl From<shim_runtime::Error> for Error {
    fn from(error: shim_runtime::Error) -> Self {
        Self::Runtime(error)
    }
}

impl From<shim_cgroup::Error> for Error {
    fn from(error: shim_cgroup::Error) -> Self {
        Self::Cgroup(error)
    }
}

impl From<crate::foreign::Error> for Error {
    fn from(error: crate::foreign::Error) -> Self {
        Self::Foreign(error)
    }
}
