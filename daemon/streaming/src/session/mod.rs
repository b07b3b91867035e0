//! What is done on a connection once its protocol is agreed on.

mod forward;
mod remote;

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use crate::handshake::Protocol;
use crate::peer::Peer;
use crate::request::Request;
use crate::runtime::{HangUp, Runtime};
use crate::{spdy, websocket};

/// What every session needs.
#[derive(Debug)]
pub(crate) struct Session<R> {
    pub(crate) runtime: Arc<R>,
    pub(crate) peer: Peer,
    /// Nothing comes or goes for that long: the end.
    pub(crate) idle: Duration,
    /// For the client to open its streams.
    pub(crate) creation: Duration,
    pub(crate) stop: CancellationToken,
}

/// A connection's tasks.
#[derive(Debug)]
enum Link {
    Spdy(spdy::Link),
    WebSocket(websocket::Link),
}

impl Link {
    async fn ended(&mut self) -> String {
        match self {
            Link::Spdy(link) => link.ended().await,
            Link::WebSocket(link) => link.ended().await,
        }
    }

    async fn close(self) {
        match self {
            Link::Spdy(link) => link.close().await,
            Link::WebSocket(link) => link.close().await,
        }
    }
}

impl<R: Runtime> Session<R> {
    /// Serves a request to its end. `protocol` was agreed on for it.
    pub(crate) async fn run(self, protocol: Protocol, request: Request, io: Upgraded) {
        self.peer.heard();
        let io = TokioIo::new(io);
        match (protocol, request) {
            (Protocol::SpdyRemote(version), request @ (Request::Exec(_) | Request::Attach(_))) => {
                self.spdy_remote(io, version, request).await;
            }
            (
                Protocol::WebSocketRemote(version, encoding),
                request @ (Request::Exec(_) | Request::Attach(_)),
            ) => {
                self.web_socket_remote(io, version, encoding, request).await;
            }
            (Protocol::SpdyForward, Request::PortForward(forward)) => {
                self.spdy_forward(io, &forward.sandbox).await;
            }
            (Protocol::TunnelForward, Request::PortForward(forward)) => {
                let tunnel = websocket::Tunnel::new(websocket::over(io).await);
                self.spdy_forward(tunnel, &forward.sandbox).await;
            }
            (Protocol::WebSocketForward(encoding), Request::PortForward(forward)) => {
                self.web_socket_forward(io, encoding, forward).await;
            }
            (Protocol::SpdyRemote(_) | Protocol::WebSocketRemote(..), Request::PortForward(_))
            | (
                Protocol::SpdyForward | Protocol::TunnelForward | Protocol::WebSocketForward(_),
                Request::Exec(_) | Request::Attach(_),
            ) => {
                tracing::error!(?protocol, "a protocol was agreed on for another kind of request");
            }
        }
    }

    /// Resolves when the session has to end, whatever its process does.
    async fn interrupted(&self, link: &mut Link) -> HangUp {
        tokio::select! {
            reason = link.ended() => HangUp::Client(reason),
            () = self.peer.idle(self.idle) => HangUp::Idle,
            () = self.stop.cancelled() => HangUp::Stopping,
        }
    }

    /// Closes in order, unless the session has to end.
    async fn close(&self, link: Link) {
        tokio::select! {
            () = link.close() => {}
            () = self.peer.idle(self.idle) => {}
            () = self.stop.cancelled() => {}
        }
    }
}
