//! A client of WebSocket: what goes and comes on channels.
#![allow(clippy::wildcard_enum_match_arm, reason = "messages that a test does not expect")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::http::{ask, connect, within};

pub(crate) type Socket = WebSocketStream<TcpStream>;

pub(crate) async fn open(url: &str, protocol: Option<&str>) -> Socket {
    let mut io = connect(url).await;
    let mut headers = vec![
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    headers.extend(protocol.map(|protocol| ("Sec-WebSocket-Protocol", protocol)));
    let head = ask(&mut io, "GET", url, &headers).await;
    assert_eq!(head.status, 101, "{head:?}");
    assert_eq!(head.get("sec-websocket-protocol"), protocol);
    assert_eq!(head.get("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    WebSocketStream::from_raw_socket(io, Role::Client, None).await
}

pub(crate) async fn send(socket: &mut Socket, text: bool, channel: u8, bytes: &[u8]) {
    let message = if text {
        Message::Text(format!("{channel}{}", STANDARD.encode(bytes)).into())
    } else {
        Message::Binary([&[channel], bytes].concat().into())
    };
    socket.send(message).await.unwrap();
}

/// A channel and its bytes, or the code of the close.
pub(crate) async fn receive(socket: &mut Socket, text: bool) -> Result<(u8, Vec<u8>), u16> {
    match within(socket.next()).await.unwrap().unwrap() {
        Message::Binary(bytes) if !text => Ok((bytes[0], bytes[1..].to_vec())),
        Message::Text(line) if text => {
            let (channel, rest) = line.split_at(1);
            Ok((channel.parse().unwrap(), STANDARD.decode(rest).unwrap()))
        }
        Message::Close(frame) => Err(frame.unwrap().code.into()),
        other => panic!("{other:?}"),
    }
}

/// All that comes, by channel, up to the close, and its code.
pub(crate) async fn all(socket: &mut Socket, text: bool) -> ([Vec<u8>; 4], u16) {
    let mut came: [Vec<u8>; 4] = Default::default();
    loop {
        match receive(socket, text).await {
            Ok((channel, bytes)) => came[usize::from(channel)].extend(bytes),
            Err(code) => return (came, code),
        }
    }
}

/// Carries the bytes of a client of SPDY, cut up into messages, and those of the server put together.
pub(crate) async fn tunnel(mut socket: Socket, carried: DuplexStream) {
    let (mut read, mut write) = tokio::io::split(carried);
    let mut buffer = vec![0; 8191];
    loop {
        tokio::select! {
            message = socket.next() => match message.unwrap().unwrap() {
                Message::Binary(bytes) => write.write_all(&bytes).await.unwrap(),
                other => panic!("{other:?}"),
            },
            read = read.read(&mut buffer) => match read.unwrap() {
                0 => return socket.close(None).await.unwrap(),
                read => {
                    let bytes = buffer[..read].to_vec();
                    socket.send(Message::Binary(bytes.into())).await.unwrap();
                }
            },
        }
    }
}
