//! What can go wrong, in the words that runc's callers look for: containerd, Docker and podman tell
//! errors apart by their text.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::container::Status;

/// Why what asks for it is refused.
pub(crate) const ROOTLESS: &str = "containers without root: not supported";

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("container id {id:?}: {rule}")]
    InvalidId { id: String, rule: &'static str },
    #[error("container with given ID already exists: {id}")]
    Exists { id: String },
    #[error("container does not exist: {id}")]
    NoContainer { id: String },
    #[error("container not running: {id}")]
    NotRunning { id: String },
    #[error("cannot {verb} container {id}: it is {status}")]
    Status { verb: &'static str, id: String, status: Status },
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped { id: String, status: Status },
    #[error("container {id} is in use by another command")]
    InUse { id: String },
    /// What a JSON file has at a place in it.
    #[error("{}: {place}{source}", file.display())]
    Json { file: PathBuf, place: String, source: serde_json::Error },
    #[error("{}: {source}", file.display())]
    Plan { file: PathBuf, source: shim_plan::Error },
    #[error("{}", Words(.0))]
    Runtime(#[from] shim_runtime::Error),
    #[error("{0}")]
    Cgroup(#[from] shim_cgroup::Error),
    #[error("--systemd-cgroup: {0}")]
    Systemd(#[from] shim_systemd::Error),
    #[error("linux.cgroupsPath: {path:?} has processes in it already: {pids:?}")]
    CgroupInUse { path: String, pids: Vec<i32> },
    #[error("{step} {}: {source}", path.display())]
    File { step: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: exists already: remove it first", path.display())]
    FileExists { path: PathBuf },
    #[error("{step}: {source}")]
    System { step: &'static str, source: io::Error },
    /// A flag that is known and that can't be honoured, or not with the others.
    #[error("{flag}: {why}")]
    Refused { flag: &'static str, why: &'static str },
    #[error("{flag}: {value:?} is not {expected}")]
    Malformed { flag: &'static str, value: String, expected: &'static str },
    #[error("--preserve-fds: descriptor {number} is not open")]
    NotPreserved { number: u32 },
    #[error("standard output: {0}")]
    Output(io::Error),
    /// A field of a request of containerd's.
    #[error("{field}: {why}")]
    Field { field: String, why: String },
    #[error("{what}: {source}")]
    Message { what: &'static str, source: prost::DecodeError },
    #[error("standard input: {0}")]
    Input(io::Error),
}

impl Error {
    pub(crate) fn field(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Field { field: field.into(), why: why.into() }
    }

    pub(crate) fn file(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { step, path, source }
    }

    pub(crate) fn system<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { step, source: source.into() }
    }
}

/// An error of the runtime; as runc, being written in Go, says it, where callers look for that.
struct Words<'a>(&'a shim_runtime::Error);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use shim_runtime::Error::{CommandNotExecutable, CommandNotFound};
        if let CommandNotFound { command } = self.0 {
            return match command.contains('/') {
                true => write!(f, "exec: {command:?}: stat {command}: no such file or directory"),
                false => write!(f, "exec: {command:?}: executable file not found in $PATH"),
            };
        }
        if let CommandNotExecutable { command, errno } = self.0 {
            return match *errno {
                Errno::ACCESS | Errno::PERM => write!(f, "exec: {command:?}: permission denied"),
                errno => write!(f, "exec: {command:?}: {errno}"),
            };
        }
        self.0.fmt(f)
    }
}
