//! What is behind the streams: to be implemented by who has containers.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

use crate::request::{Attach, Exec};

/// What went wrong, in words for who sits before the client.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Bytes from a process.
pub type Output = Pin<Box<dyn AsyncRead + Send>>;
/// Bytes to a process. Shut down at the end of what the client has to say; dropped if there was no
/// end.
pub type Input = Pin<Box<dyn AsyncWrite + Send>>;
/// Bytes both ways, each of which can end by itself.
pub type Connection = Pin<Box<dyn ReadWrite>>;

/// What a [`Connection`] is.
pub trait ReadWrite: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> ReadWrite for T {}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// Why a session ended before its process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HangUp {
    /// The client went away, or broke the protocol: how.
    Client(String),
    /// Nothing came or went for too long.
    Idle,
    /// The server stops.
    Stopping,
}

/// A process with a client: started for it, or joined by it.
///
/// The streams are those of the request; one more is dropped, one less is nothing to the client.
/// Reads and writes go piece by piece, and only as fast as the client: nothing is kept between. So if
/// output is not read in time, that is the client's doing, and whether the process is to wait for it
/// is up to who made the other end.
pub struct Process {
    pub stdin: Option<Input>,
    pub stdout: Option<Output>,
    pub stderr: Option<Output>,
    /// Takes each size of the client's terminal, in their order.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// Resolves at the process' end with its exit code. The client is told once `stdout` and `stderr`
    /// are at their end too, so these should end soon after the process, even if another one still
    /// holds them.
    pub exit: Pin<Box<dyn Future<Output = Result<i32, Failure>> + Send>>,
    /// Is sent why, if the client's session ends before `exit` and the streams; everything else is
    /// dropped then. After an orderly end it is dropped without a word.
    pub hang_up: oneshot::Sender<HangUp>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .field("resize", &self.resize.is_some())
            .finish_non_exhaustive()
    }
}

/// Containers and sandboxes, by their ids. A future that is dropped before its end: the client has
/// gone meanwhile.
pub trait Runtime: Send + Sync + 'static {
    /// Starts a process in a container.
    fn exec(&self, exec: Exec) -> impl Future<Output = Result<Process, Failure>> + Send;

    /// Joins the process of a container. Its exit code is not what a client of attach asks for: 0 is
    /// the usual answer.
    fn attach(&self, attach: Attach) -> impl Future<Output = Result<Process, Failure>> + Send;

    /// Connects to a port inside a sandbox. The connection is dropped when its client has gone.
    fn dial(
        &self,
        sandbox: &str,
        port: u16,
    ) -> impl Future<Output = Result<Connection, Failure>> + Send;
}
