//! A client of SPDY: it writes frames as it is told, and keeps what comes by stream.

use std::collections::HashMap;

use bosun_streaming::spdy::frame::{self, Control, HEAD, Head};
use bosun_streaming::spdy::{Deflater, Headers, Inflater};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf,
};
use tokio::net::TcpStream;

use super::http::{SPDY, ask, connect, within};

/// What came on a stream.
#[derive(Debug, Default)]
pub(crate) struct Came {
    pub(crate) bytes: Vec<u8>,
    pub(crate) replied: bool,
    pub(crate) ended: bool,
    pub(crate) reset: Option<u32>,
}

pub(crate) struct Sender<Io> {
    io: WriteHalf<Io>,
    deflater: Deflater,
    next: u32,
}

pub(crate) struct Receiver<Io> {
    io: ReadHalf<Io>,
    inflater: Inflater,
    pub(crate) streams: HashMap<u32, Came>,
    pub(crate) pings: Vec<u32>,
    pub(crate) goaway: Option<u32>,
    /// Credit that came, by stream.
    pub(crate) credit: HashMap<u32, u64>,
}

pub(crate) async fn open(url: &str, protocol: &str) -> (Sender<TcpStream>, Receiver<TcpStream>) {
    let mut io = connect(url).await;
    let version = [("X-Stream-Protocol-Version", protocol)];
    let head = ask(&mut io, "POST", url, &[SPDY.as_slice(), &version].concat()).await;
    assert_eq!(head.status, 101, "{head:?}");
    assert_eq!(head.get("x-stream-protocol-version"), Some(protocol));
    assert_eq!(head.get("upgrade"), Some("SPDY/3.1"));
    over(io)
}

pub(crate) fn over<Io: AsyncRead + AsyncWrite>(io: Io) -> (Sender<Io>, Receiver<Io>) {
    let (read, write) = tokio::io::split(io);
    let sender = Sender { io: write, deflater: Deflater::default(), next: 1 };
    let receiver = Receiver {
        io: read,
        inflater: Inflater::default(),
        streams: HashMap::new(),
        pings: Vec::new(),
        goaway: None,
        credit: HashMap::new(),
    };
    (sender, receiver)
}

impl<Io: AsyncRead + AsyncWrite> Sender<Io> {
    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
        self.io.flush().await.unwrap();
    }

    pub(crate) async fn control(&mut self, frame: &Control) {
        let mut bytes = Vec::new();
        frame::put_control(&mut bytes, frame, &mut self.deflater);
        self.raw(&bytes).await;
    }

    pub(crate) async fn syn(&mut self, headers: Headers) -> u32 {
        let stream = self.next;
        self.next += 2;
        let frame = Control::SynStream { stream, fin: false, unidirectional: false, headers };
        self.control(&frame).await;
        stream
    }

    pub(crate) async fn stream(&mut self, kind: &str) -> u32 {
        self.syn(Headers::default().with("streamType", kind)).await
    }

    pub(crate) async fn data(&mut self, stream: u32, bytes: &[u8], fin: bool) {
        let mut head = Vec::new();
        frame::put_data_head(&mut head, stream, fin, bytes.len());
        self.raw(&[&head, bytes].concat()).await;
    }

    pub(crate) async fn reset(&mut self, stream: u32) {
        self.control(&Control::RstStream { stream, status: 5 }).await;
    }

    pub(crate) async fn shutdown(&mut self) {
        self.io.shutdown().await.unwrap();
    }
}

impl<Io: AsyncRead + AsyncWrite> Receiver<Io> {
    /// Reads a frame; false at the end of the connection.
    pub(crate) async fn frame(&mut self) -> bool {
        let mut head = [0; HEAD];
        if within(self.io.read_exact(&mut head)).await.is_err() {
            return false;
        }
        match frame::head(head).unwrap() {
            Head::Data { stream, fin, length } => {
                let mut bytes = vec![0; length as usize];
                within(self.io.read_exact(&mut bytes)).await.unwrap();
                let came = self.streams.entry(stream).or_default();
                assert!(came.replied, "data before the reply");
                assert!(!came.ended, "data after the end");
                came.bytes.extend(bytes);
                came.ended = fin;
            }
            Head::Control { kind, flags, length } => {
                let mut payload = vec![0; length as usize];
                within(self.io.read_exact(&mut payload)).await.unwrap();
                let frame = frame::control(kind, flags, &payload, &mut self.inflater);
                self.control(frame.unwrap());
            }
        }
        true
    }

    fn control(&mut self, frame: Control) {
        match frame {
            Control::SynReply { stream, .. } => {
                self.streams.entry(stream).or_default().replied = true;
            }
            Control::RstStream { stream, status } => {
                self.streams.entry(stream).or_default().reset = Some(status);
            }
            Control::Ping { id } => self.pings.push(id),
            Control::GoAway { status, .. } => self.goaway = Some(status),
            Control::WindowUpdate { stream, delta } => {
                *self.credit.entry(stream).or_default() += u64::from(delta);
            }
            frame @ (Control::SynStream { .. }
            | Control::Headers { .. }
            | Control::Settings { .. }
            | Control::Unknown { .. }) => panic!("{frame:?}"),
        }
    }

    pub(crate) async fn until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        while !done(self) {
            assert!(self.frame().await, "the connection ended: {:?}", self.streams.keys());
        }
    }

    /// Reads to the end of the connection.
    pub(crate) async fn all(&mut self) {
        while self.frame().await {}
    }

    pub(crate) fn has(&self, stream: u32, text: &str) -> bool {
        self.streams.get(&stream).is_some_and(|came| came.bytes == text.as_bytes())
    }

    pub(crate) fn text(&self, stream: u32) -> &str {
        std::str::from_utf8(&self.streams[&stream].bytes).unwrap()
    }
}
