//! Channels of bytes in the messages of a WebSocket: the first byte is the channel's number.
//!
//! In the `base64` protocols that byte is a digit's character, and the rest is text. From v5 on a
//! message of two bytes, 255 and a number, is the end of what the client says on that channel.

mod tunnel;

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;

use crate::limits::{MAX_MESSAGE_BYTES, PIECE, QUEUE};
use crate::peer::Peer;
use crate::streams::{Filler, Gone, Incoming, pipe};
use crate::tasks::Tasks;

pub(crate) use tunnel::Tunnel;

/// The channel that closes others.
const CLOSE: u8 = 255;

/// Why the connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the client broke off the connection")]
    Gone,
    #[error("the client sent to channel {channel}, there are {channels}")]
    Channel { channel: u8, channels: usize },
    #[error("the client's signal to close a channel has {length} bytes, not 2")]
    CloseSignal { length: usize },
    #[error("the client sent what is not base64 to channel {channel}")]
    Base64 { channel: u8 },
    #[error("the connection failed: {0}")]
    WebSocket(#[from] tungstenite::Error),
}

impl Error {
    /// What the client is told, if there is anybody to be told.
    fn close_code(&self) -> Option<CloseCode> {
        match self {
            Error::Gone => None,
            Error::Channel { .. } | Error::CloseSignal { .. } | Error::Base64 { .. } => {
                Some(CloseCode::Protocol)
            }
            Error::WebSocket(error) => match error {
                tungstenite::Error::Capacity(_) => Some(CloseCode::Size),
                tungstenite::Error::Utf8(_) => Some(CloseCode::Invalid),
                tungstenite::Error::Protocol(
                    tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
                ) => None,
                tungstenite::Error::Protocol(_) => Some(CloseCode::Protocol),
                tungstenite::Error::ConnectionClosed
                | tungstenite::Error::AlreadyClosed
                | tungstenite::Error::Io(_)
                | tungstenite::Error::Tls(_)
                | tungstenite::Error::WriteBufferFull(_)
                | tungstenite::Error::AttackAttempt
                | tungstenite::Error::Url(_)
                | tungstenite::Error::Http(_)
                | tungstenite::Error::HttpFormat(_) => None,
            },
        }
    }
}

/// How the bytes of a channel become a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Binary,
    Base64,
}

impl Encoding {
    fn message(self, channel: u8, bytes: &[u8]) -> Message {
        match self {
            Encoding::Binary => {
                let mut message = Vec::with_capacity(1 + bytes.len());
                message.push(channel);
                message.extend_from_slice(bytes);
                Message::Binary(message.into())
            }
            Encoding::Base64 => {
                let mut message = String::with_capacity(1 + bytes.len().div_ceil(3) * 4);
                message.push(char::from(b'0'.wrapping_add(channel)));
                STANDARD.encode_string(bytes, &mut message);
                Message::Text(message.into())
            }
        }
    }

    /// The channel and its bytes; `None` of an empty message, which says nothing.
    fn parse(self, message: Bytes) -> Result<Option<(u8, Bytes)>, Error> {
        let Some(first) = message.first().copied() else { return Ok(None) };
        let rest = message.slice(1..);
        match self {
            Encoding::Binary => Ok(Some((first, rest))),
            Encoding::Base64 => {
                let channel = first.wrapping_sub(b'0');
                let bytes = STANDARD.decode(&rest).map_err(|_| Error::Base64 { channel })?;
                Ok(Some((channel, bytes.into())))
            }
        }
    }
}

/// What a connection is to be like.
#[derive(Clone, Debug)]
pub(crate) struct Protocol {
    pub(crate) encoding: Encoding,
    /// The client can end a channel.
    pub(crate) closes: bool,
    /// For each channel whether the client may say something on it.
    pub(crate) incoming: Vec<bool>,
}

/// What is written is written with this.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    channel: u8,
    out: mpsc::Sender<Out>,
    ended: CancellationToken,
}

impl Writer {
    pub(crate) async fn send(&self, bytes: Bytes) -> io::Result<()> {
        let message = Out::Bytes { channel: self.channel, bytes };
        let ended = io::ErrorKind::ConnectionAborted;
        tokio::select! {
            sent = self.out.send(message) => sent.map_err(|_| ended.into()),
            () = self.ended.cancelled() => Err(ended.into()),
        }
    }
}

#[derive(Debug)]
enum Out {
    Bytes { channel: u8, bytes: Bytes },
    Close(CloseCode, String),
}

/// The two tasks of a connection, which end with it.
#[derive(Debug)]
pub(crate) struct Link {
    out: mpsc::Sender<Out>,
    ended: CancellationToken,
    tasks: Tasks<Error>,
    over: Option<Error>,
}

/// A connection of messages, over one whose upgrade is done.
pub(crate) async fn over<Io: AsyncRead + AsyncWrite + Unpin>(io: Io) -> WebSocketStream<Io> {
    let config = WebSocketConfig::default()
        .read_buffer_size(PIECE)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * PIECE.max(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
        .max_message_size(Some(MAX_MESSAGE_BYTES));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// Starts to serve channels. The streams that come are those of `protocol.incoming`.
pub(crate) fn start<Io>(
    socket: WebSocketStream<Io>,
    protocol: &Protocol,
    peer: &Peer,
) -> (Vec<Option<Incoming>>, Link)
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sink, stream) = socket.split();
    let (out, messages) = mpsc::channel(QUEUE);
    let ended = CancellationToken::new();
    let pipes = protocol.incoming.iter().map(|wanted| wanted.then(|| pipe(None)).unzip());
    let (fillers, incoming) = pipes.unzip();
    let reader = Reader {
        stream,
        encoding: protocol.encoding,
        closes: protocol.closes,
        fillers,
        peer: peer.clone(),
    };
    let writer = write_all(sink, protocol.encoding, messages, ended.clone(), peer.clone());
    let link = Link {
        out,
        ended,
        tasks: Tasks::new(tokio::spawn(reader.run()), tokio::spawn(writer)),
        over: None,
    };
    (incoming, link)
}

impl Link {
    pub(crate) fn writer(&self, channel: u8) -> Writer {
        Writer { channel, out: self.out.clone(), ended: self.ended.clone() }
    }

    /// Resolves with the reason at the end of the connection.
    pub(crate) async fn ended(&mut self) -> String {
        if self.over.is_none() {
            self.over = Some(self.tasks.ended().await.unwrap_or(Error::Gone));
        }
        let error = self.over.as_ref().unwrap_or(&Error::Gone);
        if let Some(code) = error.close_code() {
            let close = self.out.send(Out::Close(code, error.to_string()));
            self.tasks.farewell(async { drop(close.await) }).await;
        }
        error.to_string()
    }

    /// Ends it as it should end: with a close.
    pub(crate) async fn close(self) {
        let close = self.out.send(Out::Close(CloseCode::Normal, String::new()));
        self.tasks.close(async { drop(close.await) }).await;
    }
}

async fn write_all<Io: AsyncRead + AsyncWrite + Unpin>(
    mut sink: SplitSink<WebSocketStream<Io>, Message>,
    encoding: Encoding,
    mut messages: mpsc::Receiver<Out>,
    ended: CancellationToken,
    peer: Peer,
) {
    // However this ends, nobody waits for it any more.
    let _ended = ended.drop_guard();
    while let Some(out) = messages.recv().await {
        let message = match out {
            Out::Bytes { channel, bytes } => encoding.message(channel, &bytes),
            Out::Close(code, reason) => {
                // A reason has 123 bytes at most.
                let reason = reason.chars().take(100).filter(char::is_ascii).collect::<String>();
                let _ = sink
                    .send(Message::Close(Some(CloseFrame { code, reason: reason.into() })))
                    .await;
                return;
            }
        };
        if sink.send(message).await.is_err() {
            return;
        }
        peer.heard();
    }
}

struct Reader<Io> {
    stream: SplitStream<WebSocketStream<Io>>,
    encoding: Encoding,
    closes: bool,
    /// By channel; `None` of one whose bytes nobody wants.
    fillers: Vec<Option<Filler>>,
    peer: Peer,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Reader<Io> {
    async fn run(mut self) -> Result<(), Error> {
        let error = loop {
            match self.message().await {
                Ok(()) => self.peer.heard(),
                Err(error) => break error,
            }
        };
        for filler in self.fillers.into_iter().flatten() {
            filler.reset();
        }
        Err(error)
    }

    async fn message(&mut self) -> Result<(), Error> {
        let bytes = match self.stream.next().await.ok_or(Error::Gone)?? {
            Message::Binary(bytes) => bytes,
            // There are clients that send what they have as text.
            Message::Text(text) => Bytes::from(text),
            // Pings have been answered; the answer to a close goes out with the next read.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {
                return Ok(());
            }
        };
        if self.closes && bytes.first() == Some(&CLOSE) {
            return self.end(&bytes);
        }
        let Some((channel, bytes)) = self.encoding.parse(bytes)? else { return Ok(()) };
        let channels = self.fillers.len();
        let place = self.fillers.get_mut(usize::from(channel));
        let place = place.ok_or(Error::Channel { channel, channels })?;
        if let Some(filler) = place
            && !filler.fill(&bytes, &self.peer).await.map_err(|Gone| Error::Gone)?
        {
            *place = None;
        }
        Ok(())
    }

    fn end(&mut self, signal: &[u8]) -> Result<(), Error> {
        let [_, channel] = *signal else {
            return Err(Error::CloseSignal { length: signal.len() });
        };
        let channels = self.fillers.len();
        let place = self.fillers.get_mut(usize::from(channel));
        *place.ok_or(Error::Channel { channel, channels })? = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_went() {
        for encoding in [Encoding::Binary, Encoding::Base64] {
            for (channel, bytes) in [(0, b"".as_slice()), (1, b"\0\xffx"), (4, b"{\"Width\":1}")] {
                let parsed = encoding.parse(encoding.message(channel, bytes).into_data()).unwrap();
                assert_eq!(parsed, Some((channel, Bytes::copy_from_slice(bytes))), "{encoding:?}");
            }
        }
        let text = Encoding::Base64.message(0, b"foo\n").into_data();
        assert_eq!(text.as_ref(), b"0Zm9vCg==");
        assert!(matches!(Encoding::Binary.parse(Bytes::new()), Ok(None)));
    }

    #[test]
    fn what_is_not_base64_is_refused_with_its_channel() {
        let error = Encoding::Base64.parse(Bytes::from_static(b"3=")).unwrap_err();
        assert_eq!(error.to_string(), "the client sent what is not base64 to channel 3");
        assert_eq!(error.close_code(), Some(CloseCode::Protocol));
    }
}
