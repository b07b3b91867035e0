//! Spawning a shim.
//!
//! The socket listens before the shim exists, so that the first call just waits in its backlog; the
//! descriptors it is to hold wait in a socket that becomes its standard output. Nothing is read
//! back: there is no handshake. `Command` without closures spawns by `posix_spawn`, which costs the
//! same however large the daemon is.

use std::fs::{DirBuilder, OpenOptions};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use prost::Message;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use shim_wire::files::{ContainerDir, RunDir, SocketDir};
use shim_wire::id::Id;
use shim_wire::plan::Bootstrap;

use super::{Error, ShimProcess};

/// What a shim calls itself, and the argument that says whose it is.
pub(super) const NAME: &str = "bosun-shim";
pub(super) const CONTAINER_DIR: &str = "--container-dir";

/// Descriptors that fit one message (SCM_MAX_FD of unix(7) is 253).
pub(crate) const MAX_PORT_SOCKETS: usize = 250;

/// The shim's program as this daemon found it, where no container can write to it
/// ([`shim_sys::program`]). One that is installed later is the next daemon's.
#[derive(Debug)]
pub struct Program {
    /// Of the descriptor: it means the same in a child that is about to execute it.
    path: PathBuf,
    _image: OwnedFd,
}

impl Program {
    /// # Errors
    /// When it is not there, or can't be put out of reach.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let image = shim_sys::program::protected(path).map_err(|errno| Error::Io {
            step: "put the program out of reach",
            source: errno.into(),
        })?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", image.as_raw_fd()));
        Ok(Self { path, _image: image })
    }

    /// Where it can be executed, by this process and its children alone.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What a shim is started with.
#[derive(Debug)]
pub struct Launch<'a> {
    pub program: &'a Program,
    pub namespace: &'a Id,
    pub id: &'a Id,
    pub container_dir: &'a ContainerDir,
    pub run_dir: &'a RunDir,
    pub socket_dir: &'a SocketDir,
    /// The shim's own.
    pub cgroup: &'a str,
    pub network_namespace: Option<BorrowedFd<'a>>,
    pub port_sockets: &'a [OwnedFd],
}

/// Starts a shim. Its socket takes calls when this returns.
///
/// # Errors
/// Names the step.
pub fn launch(launch: &Launch<'_>) -> Result<ShimProcess, Error> {
    let failed = |step| move |source: std::io::Error| Error::Io { step, source };
    match DirBuilder::new().mode(0o700).create(launch.socket_dir.path()) {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::Io { step: "make socket directory", source });
        }
        Ok(()) | Err(_) => {}
    }
    let socket = launch.socket_dir.shim();
    // Left by a shim that ended: nobody listens there, or this call would not have been made.
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).map_err(failed("bind"))?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(launch.run_dir.shim_log())
        .map_err(failed("open log"))?;
    let bootstrap = bootstrap(launch.network_namespace, launch.port_sockets)
        .map_err(failed("hand over descriptors"))?;
    let child = Command::new(&launch.program.path)
        .arg0(NAME)
        .arg("--namespace")
        .arg(launch.namespace.as_str())
        .arg("--id")
        .arg(launch.id.as_str())
        .arg(CONTAINER_DIR)
        .arg(launch.container_dir.path())
        .arg("--run-dir")
        .arg(launch.run_dir.path())
        .arg("--socket-dir")
        .arg(launch.socket_dir.path())
        .arg("--cgroup")
        .arg(launch.cgroup)
        .env_clear()
        .envs(shim_failpoints::environment())
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::from(bootstrap))
        .stderr(Stdio::from(log))
        .spawn()
        .map_err(failed("spawn"))?;
    ShimProcess::of_child(child)
}

/// A socket in which the message with the descriptors waits.
fn bootstrap(
    network_namespace: Option<BorrowedFd<'_>>,
    port_sockets: &[OwnedFd],
) -> std::io::Result<OwnedFd> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let message = Bootstrap {
        network_namespace: network_namespace.is_some(),
        port_sockets: u32::try_from(port_sockets.len()).unwrap_or(u32::MAX),
        parent: i32::try_from(std::process::id()).unwrap_or(0),
    };
    let descriptors: Vec<BorrowedFd<'_>> =
        network_namespace.into_iter().chain(port_sockets.iter().map(AsFd::as_fd)).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_PORT_SOCKETS + 1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(std::io::Error::other("more than 250 published ports"));
    }
    let body = message.encode_to_vec();
    // An empty packet would read as the end.
    let bytes: &[u8] = if body.is_empty() { &[0x08, 0x00] } else { &body };
    sendmsg(&ours, &[IoSlice::new(bytes)], &mut control, SendFlags::empty())?;
    Ok(theirs)
}
