//! HTTP/2 by hand, over a daemon's socket: for clients that behave as no library lets them (RFC 9113).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use prost::Message;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a peer may take nothing before a write of ours gives up.
const WRITE: Duration = Duration::from_secs(2);

/// Bytes of a frame before its payload.
const HEADER: usize = 9;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Data = 0,
    Headers = 1,
    Priority = 2,
    Reset = 3,
    Settings = 4,
    Ping = 6,
    GoAway = 7,
    WindowUpdate = 8,
    Continuation = 9,
}

/// Of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
/// Of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;

/// A connection.
#[derive(Debug)]
pub struct Raw {
    stream: UnixStream,
    next: u32,
    received: Vec<u8>,
}

impl Raw {
    /// Connects and says nothing.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn silent(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_write_timeout(Some(WRITE))?;
        Ok(Self { stream, next: 1, received: Vec::new() })
    }

    /// Connects; `window` is what a stream's answer may have on its way.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(socket: &Path, window: u32) -> io::Result<Self> {
        let mut raw = Self::silent(socket)?;
        raw.stream.write_all(PREFACE)?;
        let initial_window_size = [&[0, 4], &window.to_be_bytes()[..]].concat();
        raw.frame(Kind::Settings, 0, 0, &initial_window_size)?;
        Ok(raw)
    }

    /// # Errors
    /// The peer is gone, or takes nothing.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// # Errors
    /// The peer is gone, or takes nothing.
    pub fn frame(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.bytes(&frame(kind, flags, stream, payload))
    }

    /// A number for the next stream.
    pub fn next_stream(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// Begins a call of gRPC with its first message; `end`: there will be no other. Answers its stream.
    ///
    /// # Errors
    /// The peer is gone, or takes nothing.
    pub fn call(&mut self, path: &str, message: &impl Message, end: bool) -> io::Result<u32> {
        let stream = self.next_stream();
        let mut bytes = frame(Kind::Headers, END_HEADERS, stream, &headers(path, &[]));
        let body = grpc_frame(message);
        let last = if end { END_STREAM } else { 0 };
        bytes.extend(frame(Kind::Data, last, stream, &body));
        self.bytes(&bytes)?;
        Ok(stream)
    }

    /// Reads one byte, if there is one now.
    ///
    /// # Errors
    /// The peer is gone.
    pub fn read_a_byte(&mut self) -> io::Result<()> {
        self.stream.set_nonblocking(true)?;
        let mut byte = [0];
        let read = self.stream.read(&mut byte);
        self.stream.set_nonblocking(false)?;
        match read {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {
                self.received.push(byte[0]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits until a call is answered: whether more follows.
    ///
    /// # Errors
    /// The connection broke off, or nothing came for `patience`.
    pub fn answered(&mut self, stream: u32, patience: Duration) -> io::Result<bool> {
        self.stream.set_read_timeout(Some(patience))?;
        loop {
            let mut at = 0;
            while let Some(found) = next_frame(&self.received[at..]) {
                if found.stream == stream && found.kind == Kind::Headers as u8 {
                    return Ok(found.flags & END_STREAM == 0);
                }
                at += HEADER + found.payload.len();
            }
            if self.receive()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads what there is, waiting for something.
    fn receive(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 65_536];
        let count = self.stream.read(&mut buffer)?;
        self.received.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    /// Gives the peer leave to send everything, and reads to the end of the stream, or until nothing
    /// came for `silence`. Answers the messages of gRPC that there were since the connection began, and
    /// whether the stream has ended.
    ///
    /// # Errors
    /// The connection broke off in the middle of a frame.
    pub fn drain(&mut self, stream: u32, silence: Duration) -> io::Result<(Vec<Vec<u8>>, bool)> {
        const ALL: u32 = 0x7000_0000;
        for number in [0, stream] {
            // It may be over already.
            let _ = self.frame(Kind::WindowUpdate, 0, number, &ALL.to_be_bytes());
        }
        self.stream.set_read_timeout(Some(silence))?;
        let (mut body, mut ended, mut at) = (Vec::new(), false, 0);
        while !ended {
            let Some(found) = next_frame(&self.received[at..]) else {
                match self.receive() {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
                continue;
            };
            if found.stream == stream {
                if found.kind == Kind::Data as u8 {
                    body.extend_from_slice(found.payload);
                }
                let may_end = [Kind::Data as u8, Kind::Headers as u8].contains(&found.kind);
                ended =
                    (may_end && found.flags & END_STREAM != 0) || found.kind == Kind::Reset as u8;
            }
            at += HEADER + found.payload.len();
        }
        Ok((messages(&body), ended))
    }
}

/// One frame.
#[must_use]
pub fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind as u8, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

struct Found<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

fn next_frame(bytes: &[u8]) -> Option<Found<'_>> {
    let head = bytes.get(..HEADER)?;
    let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).ok()?;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
    let payload = bytes.get(HEADER..HEADER + length)?;
    Some(Found { kind: head[3], flags: head[4], stream, payload })
}

/// A message as gRPC sends it.
fn grpc_frame(message: &impl Message) -> Vec<u8> {
    let encoded = message.encode_to_vec();
    let length = u32::try_from(encoded.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0], &length[..], &encoded].concat()
}

/// The whole messages in a body.
fn messages(mut body: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let Some((head, rest)) = body.split_at_checked(5) {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let Some(message) = usize::try_from(length).ok().and_then(|len| rest.get(..len)) else {
            break;
        };
        found.push(message.to_vec());
        body = &rest[message.len()..];
    }
    found
}

/// The headers of a call of gRPC, and more of them: literals that enter no table (RFC 7541, 6.2.2).
#[must_use]
pub fn headers(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let own = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut bytes = Vec::new();
    for (name, value) in own.iter().chain(more) {
        bytes.push(0);
        for text in [name, value] {
            length(&mut bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// An integer of seven bits' prefix (RFC 7541, 5.1).
fn length(bytes: &mut Vec<u8>, mut value: usize) {
    const PREFIX: usize = 0x7f;
    if value < PREFIX {
        bytes.push(value as u8);
        return;
    }
    bytes.push(0x7f);
    value -= PREFIX;
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_headers_have_lengths_of_several_bytes() {
        let mut bytes = Vec::new();
        // RFC 7541, C.1.2, with a prefix of seven bits.
        length(&mut bytes, 1337);
        assert_eq!(bytes, [0x7f, 0xba, 0x09]);
        bytes.clear();
        length(&mut bytes, 126);
        assert_eq!(bytes, [126]);
    }

    #[test]
    fn frames_are_read_as_they_are_written() {
        let bytes = frame(Kind::Data, END_STREAM, 7, b"abc");
        let found = next_frame(&bytes).unwrap();
        assert_eq!((found.kind, found.flags, found.stream, found.payload), (0, 1, 7, &b"abc"[..]));
        assert!(next_frame(&bytes[..bytes.len() - 1]).is_none());
    }
}
