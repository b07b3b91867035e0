//! The client as a connection: when it was last heard of, and whether it is still there.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A client. Clones are of the same.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// A second descriptor of its socket, to learn of an end behind bytes that nobody reads yet.
    socket: Arc<TcpStream>,
    heard: Arc<Mutex<Instant>>,
}

impl Peer {
    /// # Errors
    ///
    /// Without a descriptor that is free.
    pub(crate) fn of(stream: &TcpStream) -> io::Result<Peer> {
        let socket = std::net::TcpStream::from(stream.as_fd().try_clone_to_owned()?);
        let socket = Arc::new(TcpStream::from_std(socket)?);
        Ok(Peer { socket, heard: Arc::new(Mutex::new(Instant::now())) })
    }

    /// A frame came or went.
    pub(crate) fn heard(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Resolves once nothing has been heard for that long.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let until = *self.heard.lock().unwrap_or_else(PoisonError::into_inner) + limit;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// Resolves once the client has closed the connection, even while there is something to be read.
    pub(crate) async fn gone(&self) {
        loop {
            match self.socket.ready(Interest::READABLE).await {
                Ok(ready) if !ready.is_read_closed() => {
                    // There is something to be read, but not by us: we wait for the next event.
                    let unread = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                    let _ = self.socket.try_io(Interest::READABLE, unread);
                }
                Ok(_) | Err(_) => return,
            }
        }
    }
}
