//! The two ends of a stream with a client, whatever carries it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use crate::limits::WINDOW;
use crate::peer::Peer;
use crate::spdy::frame::Reset;
use crate::{spdy, websocket};

/// Makes the buffer between the reader of a connection and the reader of one stream of it.
pub(crate) fn pipe(credit: Option<Box<dyn Credit>>) -> (Filler, Incoming) {
    let (writer, reader) = tokio::io::duplex(WINDOW as usize);
    let reset = Arc::new(AtomicBool::new(false));
    let incoming = Incoming { pipe: reader, reset: reset.clone(), credit };
    (Filler { pipe: writer, reset }, incoming)
}

/// Who is told what has been read, so that the client may send as much again.
pub(crate) trait Credit: Send + std::fmt::Debug {
    /// `bytes` more have been read. Never waits: what can't be told now is told the next time.
    fn read(&mut self, bytes: usize);
    /// Waits until what is due can be told, and tells it; forever if there is nothing.
    fn tell(&mut self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// What the client sends: bytes, then perhaps an end.
#[derive(Debug)]
pub(crate) struct Incoming {
    pipe: DuplexStream,
    reset: Arc<AtomicBool>,
    credit: Option<Box<dyn Credit>>,
}

impl Incoming {
    /// Reads what there is, 0 bytes at the end. Nothing is lost when it is dropped before its time.
    ///
    /// # Errors
    ///
    /// When the client has reset the stream, or is gone.
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(credit) = self.credit.as_mut() else {
                let read = self.pipe.read(buffer).await?;
                return self.end_or(read);
            };
            tokio::select! {
                read = self.pipe.read(buffer) => {
                    let read = read?;
                    credit.read(read);
                    return self.end_or(read);
                }
                () = credit.tell() => {}
            }
        }
    }

    fn end_or(&self, read: usize) -> io::Result<usize> {
        if read == 0 && self.reset.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(read)
    }
}

/// The other end of an [`Incoming`]. Dropped, it is the end of the stream.
#[derive(Debug)]
pub(crate) struct Filler {
    pipe: DuplexStream,
    reset: Arc<AtomicBool>,
}

/// Who reads from a connection learned that nobody is behind it any more.
#[derive(Debug)]
pub(crate) struct Gone;

impl Filler {
    /// Hands over all bytes, and waits for room; false if nobody reads them any more.
    ///
    /// While it waits, nothing is read from the connection, so an end of that has to be noticed here.
    pub(crate) async fn fill(&mut self, bytes: &[u8], peer: &Peer) -> Result<bool, Gone> {
        tokio::select! {
            biased;
            written = self.pipe.write_all(bytes) => Ok(written.is_ok()),
            () = peer.gone() => Err(Gone),
        }
    }

    /// The end is one that was not meant.
    pub(crate) fn reset(self) {
        self.reset.store(true, Ordering::Release);
    }
}

/// What is sent to the client.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Spdy(spdy::Writer),
    WebSocket(websocket::Writer),
}

impl Outgoing {
    /// Hands bytes on, and waits while the client is slow.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` when the client does not want them, `ConnectionAborted` when it is gone.
    pub(crate) async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            Outgoing::Spdy(writer) => writer.send(bytes).await,
            Outgoing::WebSocket(writer) => writer.send(bytes).await,
        }
    }

    /// Says that there is no more, where the protocol can.
    pub(crate) async fn finish(self) {
        match self {
            Outgoing::Spdy(writer) => writer.finish().await,
            Outgoing::WebSocket(_) => {}
        }
    }

    /// Says that something went wrong, where the protocol can. What was sent before may be lost.
    pub(crate) async fn abort(self) {
        match self {
            Outgoing::Spdy(writer) => writer.reset(Reset::Cancel).await,
            Outgoing::WebSocket(_) => {}
        }
    }
}
