//! A blocking client of the attach socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use prost::Message;
use shim_wire::attach::{self, Hello, Kind};

use super::PATIENCE;

pub(crate) struct AttachClient {
    pub(crate) socket: UnixStream,
    input: Vec<u8>,
}

/// Everything that a client got, until its connection ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// The frame that came last.
    pub(crate) last: Option<Kind>,
}

impl Output {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }
}

impl AttachClient {
    pub(crate) fn connect(path: &Path) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, input: Vec::new() }
    }

    /// Says hello and waits until nothing is missed any more.
    pub(crate) fn hello(mut self, hello: &Hello) -> Self {
        self.send(Kind::Hello, &hello.encode_to_vec());
        let (kind, payload) = self.receive().expect("an answer");
        assert_eq!(kind, Kind::Attached, "{}", String::from_utf8_lossy(&payload));
        self
    }

    pub(crate) fn send(&mut self, kind: Kind, payload: &[u8]) {
        self.socket.write_all(&attach::header(kind, payload.len())).unwrap();
        self.socket.write_all(payload).unwrap();
    }

    pub(crate) fn type_in(&mut self, bytes: &[u8]) {
        for payload in bytes.chunks(attach::MAX_PAYLOAD) {
            self.send(Kind::Stdin, payload);
        }
    }

    /// The next frame; `None` when the connection has ended.
    pub(crate) fn receive(&mut self) -> Option<(Kind, Vec<u8>)> {
        loop {
            if let Some(frame) = attach::decode(&self.input).unwrap() {
                let (kind, payload, size) = (frame.kind, frame.payload.to_vec(), frame.size);
                self.input.drain(..size);
                return Some((kind, payload));
            }
            let mut chunk = vec![0; 65_536];
            match self.socket.read(&mut chunk).expect("a frame in time") {
                0 if self.input.is_empty() => return None,
                0 => panic!("half a frame"),
                len => self.input.extend_from_slice(&chunk[..len]),
            }
        }
    }

    /// Reads until what was written on standard output ends with `end`.
    pub(crate) fn expect(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            match self.receive() {
                Some((Kind::Stdout, payload)) => text.extend_from_slice(&payload),
                other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&text)),
            }
        }
        String::from_utf8(text).unwrap()
    }

    /// Reads to the end of the connection.
    pub(crate) fn finish(mut self) -> Output {
        let mut output = Output::default();
        while let Some((kind, payload)) = self.receive() {
            match kind {
                Kind::Stdout => output.stdout.extend_from_slice(&payload),
                Kind::Stderr => output.stderr.extend_from_slice(&payload),
                Kind::Stdin
                | Kind::CloseStdin
                | Kind::Resize
                | Kind::Hello
                | Kind::Attached
                | Kind::Refused
                | Kind::Lagged
                | Kind::End => {}
            }
            output.last = Some(kind);
        }
        output
    }
}
