//! Port-forward: many connections into a sandbox over one of the client's.
//!
//! Over SPDY, direct or in a tunnel, a connection is a pair of streams, `data` and `error`, with one
//! `requestID`. Over the old WebSocket protocol it is a pair of channels for each port of the request.
//! On the error stream goes what went wrong, or nothing.

use std::collections::VecDeque;
use std::io;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Link, Session};
use crate::limits::PIECE;
use crate::request::PortForward;
use crate::runtime::{Connection, Runtime};
use crate::spdy::frame::Reset;
use crate::spdy::{self, Offered, Offers};
use crate::streams::{Incoming, Outgoing};
use crate::websocket::{self, Encoding};

/// What of a pair is there.
#[derive(Debug)]
struct Half {
    id: String,
    since: Instant,
    data: Option<(u16, Incoming, Outgoing)>,
    error: Option<Outgoing>,
}

/// Which half of a pair a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Data,
    Error,
}

impl<R: Runtime> Session<R> {
    pub(super) async fn spdy_forward<Io>(self, io: Io, sandbox: &str)
    where
        Io: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (mut offers, link) = spdy::start(io, &self.peer);
        let mut link = Link::Spdy(link);
        let reason = {
            let pairs = self.pairs(&mut offers, sandbox);
            tokio::select! {
                // With the last offer comes the reason, by the other way.
                () = pairs => link.ended().await,
                reason = self.interrupted(&mut link) => format!("{reason:?}"),
            }
        };
        tracing::debug!(reason, sandbox, "a port-forward ended");
    }

    /// Serves pairs of streams until there are no more. Dropped, it ends them all.
    async fn pairs(&self, offers: &mut Offers, sandbox: &str) {
        let mut halves: VecDeque<Half> = VecDeque::new();
        let mut pairs = JoinSet::new();
        loop {
            let first = halves.front().map(|half| half.since + self.creation);
            tokio::select! {
                offer = offers.next() => {
                    let Some(offer) = offer else { return };
                    if let Some((port, pair)) = take(&mut halves, offer).await {
                        let (runtime, sandbox) = (self.runtime.clone(), sandbox.to_owned());
                        pairs.spawn(async move { pair.serve(&*runtime, &sandbox, port).await });
                    }
                }
                Some(_) = pairs.join_next() => {}
                () = tokio::time::sleep_until(first.unwrap_or_else(Instant::now)), if first.is_some() => {
                    if let Some(half) = halves.pop_front() {
                        pairs.spawn(half.give_up());
                    }
                }
            }
        }
    }

    pub(super) async fn web_socket_forward<Io>(
        self,
        io: Io,
        encoding: Encoding,
        forward: PortForward,
    ) where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let incoming = forward.ports.iter().flat_map(|_| [true, false]).collect();
        let protocol = websocket::Protocol { encoding, closes: false, incoming };
        let (incoming, link) = websocket::start(websocket::over(io).await, &protocol, &self.peer);
        let mut pairs = JoinSet::new();
        let mut channels = (0u8..).step_by(2);
        for (port, incoming) in forward.ports.iter().zip(incoming.into_iter().flatten()) {
            let channel = channels.next().unwrap_or_default();
            let writer = |channel| Outgoing::WebSocket(link.writer(channel));
            let mut pair =
                Pair { incoming, data: writer(channel), error: writer(channel + 1), ends: false };
            let (runtime, port) = (self.runtime.clone(), *port);
            let sandbox = forward.sandbox.clone();
            pairs.spawn(async move {
                // Each channel begins with its port.
                for stream in [&mut pair.data, &mut pair.error] {
                    let _ = stream.send(Bytes::copy_from_slice(&port.to_le_bytes())).await;
                }
                pair.serve(&*runtime, &sandbox, port).await;
            });
        }
        let mut link = Link::WebSocket(link);
        tokio::select! {
            () = async { while pairs.join_next().await.is_some() {} } => self.close(link).await,
            reason = self.interrupted(&mut link) => {
                tracing::debug!(?reason, sandbox = forward.sandbox, "a port-forward ended");
            }
        }
    }
}

/// Takes a stream into its half; a pair, once it is one.
async fn take(halves: &mut VecDeque<Half>, offer: Offered) -> Option<(u16, Pair)> {
    let headers = offer.headers();
    let port = headers.get("port").and_then(|port| port.parse().ok()).filter(|port| *port > 0);
    let kind = match headers.get("streamType") {
        Some("data") => Some(Type::Data),
        Some("error") => Some(Type::Error),
        Some(_) | None => None,
    };
    let (Some(port), Some(kind)) = (port, kind) else {
        tracing::debug!(?headers, "a stream without a port or a known type is refused");
        offer.refuse(Reset::Protocol).await;
        return None;
    };
    let id = match (headers.get("requestID"), kind) {
        (Some(id), _) => id.to_owned(),
        // Old clients open the error stream, and then the data stream, with the next number.
        (None, Type::Error) => offer.id().to_string(),
        (None, Type::Data) => offer.id().saturating_sub(2).to_string(),
    };
    let place = halves.iter().position(|half| half.id == id);
    let taken = place.is_some_and(|place| match kind {
        Type::Data => halves[place].data.is_some(),
        Type::Error => halves[place].error.is_some(),
    });
    if taken {
        tracing::debug!(id, ?kind, "a stream of this request is open already");
        offer.refuse(Reset::Protocol).await;
        return None;
    }
    let (incoming, writer) = offer.accept().await;
    let mut half = match place.and_then(|place| halves.remove(place)) {
        Some(half) => half,
        None => Half { id, since: Instant::now(), data: None, error: None },
    };
    match kind {
        Type::Data => half.data = Some((port, incoming, Outgoing::Spdy(writer))),
        // The client says nothing on its error stream.
        Type::Error => half.error = Some(Outgoing::Spdy(writer)),
    }
    match half {
        Half { data: Some((port, incoming, data)), error: Some(error), .. } => {
            Some((port, Pair { incoming, data, error, ends: true }))
        }
        half => {
            halves.push_back(half);
            None
        }
    }
}

impl Half {
    /// The other half did not come in time.
    async fn give_up(self) {
        tracing::debug!(id = self.id, "the other stream of a pair did not come in time");
        if let Some(mut error) = self.error {
            let message = format!("the data stream of request {} did not come in time", self.id);
            let _ = error.send(message.into()).await;
            error.finish().await;
        }
        if let Some((_, _, data)) = self.data {
            data.abort().await;
        }
    }
}

/// A connection of the client.
#[derive(Debug)]
struct Pair {
    incoming: Incoming,
    data: Outgoing,
    error: Outgoing,
    /// The client can say that it has said all.
    ends: bool,
}

impl Pair {
    async fn serve<R: Runtime>(mut self, runtime: &R, sandbox: &str, port: u16) {
        let connection = match runtime.dial(sandbox, port).await {
            Ok(connection) => connection,
            Err(failure) => {
                let message = format!("port {port} of sandbox {sandbox}: {failure}");
                let _ = self.error.send(message.into()).await;
                self.error.finish().await;
                return self.data.abort().await;
            }
        };
        let (read, write) = tokio::io::split(connection);
        let mut up = pin!(copy_up(self.incoming, write));
        let mut down = pin!(copy_down(read, self.data));
        // Each direction ends by itself. A reset of the client ends both, and so does the end of the
        // connection's, where the client has no way to answer it with its own.
        tokio::select! {
            up = &mut up => if up.is_ok() {
                down.await;
            },
            () = &mut down => if self.ends {
                let _ = up.await;
            },
        }
        self.error.finish().await;
    }
}

/// # Errors
///
/// When the client has reset its stream.
async fn copy_up(mut incoming: Incoming, mut write: WriteHalf<Connection>) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let read = incoming.read(&mut buffer).await?;
        // Who does not listen any more may still have something to say.
        let written = match read {
            0 => return write.shutdown().await.or(Ok(())),
            read => write.write_all(&buffer[..read]).await,
        };
        if written.is_err() || write.flush().await.is_err() {
            return Ok(());
        }
    }
}

async fn copy_down(mut read: ReadHalf<Connection>, mut data: Outgoing) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        match read.read_buf(&mut buffer).await {
            Ok(0) => return data.finish().await,
            Err(error) => {
                tracing::debug!(%error, "a forwarded connection broke");
                return data.abort().await;
            }
            Ok(_) => {}
        }
        if data.send(buffer.split().freeze()).await.is_err() {
            return;
        }
    }
}
