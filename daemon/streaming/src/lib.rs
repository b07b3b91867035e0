//! The server of streams for the Kubernetes face: exec, attach and port-forward over SPDY/3.1 and
//! WebSocket, as kubelets, crictl and kubectl speak them.
//!
//! ```text
//!   request ─▶ Server::url_for ─▶ http://…/exec/TOKEN        (the gRPC answer to Exec)
//!   client ──GET or POST──▶ server ─▶ handshake ─▶ tokens ─▶ session ─┬▶ Runtime::exec, attach
//!                                                  spdy, websocket ◀──┘  Runtime::dial
//! ```
//!
//! It knows nothing of containers: who has some implements [`Runtime`] and hands out URLs.
//!
//! ```
//! use std::sync::Arc;
//! use bosun_streaming::*;
//!
//! struct Echo;
//!
//! impl Runtime for Echo {
//!     async fn exec(&self, exec: Exec) -> Result<Process, Failure> {
//!         // What is written to `stdin` is read from `stdout`; the other ends go to the container.
//!         let (stdin, stdout) = tokio::io::duplex(4096);
//!         let (hang_up, gone) = tokio::sync::oneshot::channel();
//!         // `gone` resolves with a reason if the client left early, with an error otherwise.
//!         drop(gone);
//!         Ok(Process {
//!             stdin: exec.streams.stdin.then(|| Box::pin(stdin) as Input),
//!             stdout: exec.streams.stdout.then(|| Box::pin(stdout) as Output),
//!             stderr: None,
//!             resize: None,
//!             exit: Box::pin(async { Ok(0) }),
//!             hang_up,
//!         })
//!     }
//!
//!     async fn attach(&self, attach: Attach) -> Result<Process, Failure> {
//!         Err(format!("container {} does not run", attach.container).into())
//!     }
//!
//!     async fn dial(&self, _sandbox: &str, port: u16) -> Result<Connection, Failure> {
//!         let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
//!         Ok(Box::pin(stream))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::start(Config::default(), Arc::new(Echo)).await?;
//! let url = server.url_for(Request::Exec(Exec {
//!     container: "c1".to_owned(),
//!     command: vec!["cat".to_owned()],
//!     streams: Streams { stdin: true, stdout: true, ..Streams::default() },
//! }))?;
//! assert!(url.starts_with("http://127.0.0.1:"));
//! server.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! What holds for any client:
//!
//! - A URL works once, for a minute, and can't be guessed. At most 1,000 wait at a time.
//! - Nothing grows with a slow client or process: each stream has one buffer of fixed size, and full
//!   buffers stop who fills them ([`Process`]). A stream that its process does not read stops its
//!   whole connection, for the clients of Kubernetes know no flow control within one.
//! - Bytes that break a protocol end the connection, with the protocol's error.
//! - A client that goes away is noticed, even behind bytes that nobody reads; the process is told
//!   ([`Process::hang_up`]), a forwarded connection is dropped.
//!
//! Deliberately absent: who may do what (whoever has the URL may), and HTTP/2.
#![forbid(unsafe_code)]

mod handshake;
mod limits;
mod peer;
mod request;
mod runtime;
mod server;
mod session;
pub mod spdy;
mod status;
mod streams;
mod tasks;
mod tls;
mod tokens;
mod websocket;

pub use limits::{MAX_OUTSTANDING, TOKEN_LIFE};
pub use request::{Attach, Exec, Invalid, PortForward, Request, Streams};
pub use runtime::{
    Connection, Failure, HangUp, Input, Output, Process, ReadWrite, Runtime, TerminalSize,
};
pub use server::{Config, Refusal, Server, StartError};
pub use tls::Tls;
