//! Where a created container waits for the command that starts it: a socket in its directory, which
//! its process has (`shim_runtime::Waiting::hand_over`).

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use crate::error::Error;

const NAME: &str = "gate";
/// Commands that look whether it waits, beside the one that starts it.
const BACKLOG: i32 = 64;

#[derive(Debug)]
pub(crate) struct Gate<'a> {
    directory: &'a Path,
}

impl<'a> Gate<'a> {
    pub(crate) fn new(directory: &'a Path) -> Self {
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// Makes the socket: mode 0600, in a directory that is root's alone.
    ///
    /// # Errors
    /// Names the socket.
    pub(crate) fn listen(&self) -> Result<OwnedFd, Error> {
        self.with_address(|socket, address| {
            let before = rustix::process::umask(Mode::from_raw_mode(0o177));
            let bound = rustix::net::bind(socket, address);
            rustix::process::umask(before);
            bound.and_then(|()| rustix::net::listen(socket, BACKLOG))
        })
        .map_err(|errno| Error::file("listen at", &self.path())(errno.into()))
    }

    /// # Errors
    /// Names the socket; `ECONNREFUSED` when nobody waits there any more.
    pub(crate) fn connect(&self) -> Result<OwnedFd, Error> {
        self.try_connect().map_err(|errno| Error::file("connect to", &self.path())(errno.into()))
    }

    fn try_connect(&self) -> Result<OwnedFd, Errno> {
        self.with_address(|socket, address| rustix::net::connect(socket, address))
    }

    /// Whether the process still waits there: it closes the socket with its exec. A connection that
    /// says nothing is nothing to it.
    pub(crate) fn is_waited_at(&self) -> bool {
        self.path().exists() && self.try_connect().is_ok()
    }

    /// The container was started.
    pub(crate) fn remove(&self) -> io::Result<()> {
        fs::remove_file(self.path())
    }

    /// A socket path holds 107 bytes (unix(7)), the path of a state directory any number: so the
    /// address goes through a descriptor of that directory.
    fn with_address(
        &self,
        operation: impl FnOnce(&OwnedFd, &SocketAddrUnix) -> Result<(), Errno>,
    ) -> Result<OwnedFd, Errno> {
        let kind = SocketType::SEQPACKET;
        let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        let directory = fs::File::open(self.directory)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let path = format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd());
        operation(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket)
    }
}
