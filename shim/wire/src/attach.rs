//! The frames of the attach socket, without I/O.
//!
//! A client connects to `attach.sock` and sends [`Hello`]; the shim answers [`Kind::Attached`] or
//! [`Kind::Refused`], then both send frames until one closes:
//!
//! ```text
//!   kind: u8 | length: u32 big endian | length bytes
//! ```
//!
//! Output reaches a client after it reached the log. A client that does not keep up is dropped with
//! [`Kind::Lagged`]: the container never waits for it. Only a client that asked to be
//! [`paced`](Hello::paced) (the foreground `run` that started the container, an exec's own client)
//! holds the output back, as a pipe would.

use prost::Message;

/// Bytes of a frame before its payload.
pub const HEADER_LEN: usize = 5;

/// The longest payload of a frame.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// What a frame carries, and who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Client: bytes for the process.
    Stdin,
    /// Shim: bytes of standard output, or of the terminal.
    Stdout,
    /// Shim: bytes of standard error.
    Stderr,
    /// Client: no more input; empty.
    CloseStdin,
    /// Client: the window, four bytes: width and height as u16 big endian.
    Resize,
    /// Client: an encoded [`Hello`]; the first frame.
    Hello,
    /// Shim: the answer to a hello; empty. From here on output is not missed.
    Attached,
    /// Shim: why not, as text; then it closes.
    Refused,
    /// Shim: this client did not keep up and has been dropped; empty; then it closes.
    Lagged,
    /// Shim: all output has been delivered; empty; then it closes.
    End,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Stdin,
        Self::Stdout,
        Self::Stderr,
        Self::CloseStdin,
        Self::Resize,
        Self::Hello,
        Self::Attached,
        Self::Refused,
        Self::Lagged,
        Self::End,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// Whose streams, and how.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Hello {
    /// An exec's id; empty for the container's first process.
    #[prost(string, tag = "1")]
    pub exec_id: String,
    /// The client will send input.
    #[prost(bool, tag = "2")]
    pub stdin: bool,
    /// Hold the process back rather than drop this client.
    #[prost(bool, tag = "3")]
    pub paced: bool,
    /// Send no output, only take input.
    #[prost(bool, tag = "4")]
    pub no_output: bool,
}

/// The header of a frame.
///
/// # Panics
/// When `payload_len` exceeds [`MAX_PAYLOAD`]: the sender cuts, the format has no longer frame.
#[must_use]
pub fn header(kind: Kind, payload_len: usize) -> [u8; HEADER_LEN] {
    assert!(payload_len <= MAX_PAYLOAD, "attach frame of {payload_len} bytes");
    let length = u32::try_from(payload_len).unwrap_or(u32::MAX).to_be_bytes();
    [kind as u8, length[0], length[1], length[2], length[3]]
}

/// A frame that can't be read; the connection is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidFrame {
    Kind(u8),
    TooLong(u32),
}

impl std::fmt::Display for InvalidFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "attach frame of unknown kind {kind}"),
            Self::TooLong(len) => write!(f, "attach frame of {len} bytes, over {MAX_PAYLOAD}"),
        }
    }
}

impl std::error::Error for InvalidFrame {}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: Kind,
    pub payload: &'a [u8],
    /// Bytes of the buffer that this frame takes.
    pub size: usize,
}

/// The first frame in `buffer`; `None` while it is incomplete.
///
/// # Errors
/// When the header is none of this format.
pub fn decode(buffer: &[u8]) -> Result<Option<Frame<'_>>, InvalidFrame> {
    let Some((head, rest)) = buffer.split_at_checked(HEADER_LEN) else { return Ok(None) };
    let kind = Kind::from_byte(head[0]).ok_or(InvalidFrame::Kind(head[0]))?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let len = usize::try_from(length).unwrap_or(usize::MAX);
    if len > MAX_PAYLOAD {
        return Err(InvalidFrame::TooLong(length));
    }
    Ok(rest.get(..len).map(|payload| Frame { kind, payload, size: HEADER_LEN + len }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_round_trips_and_arrives_in_any_pieces() {
        for kind in Kind::ALL {
            let mut bytes = header(kind, 3).to_vec();
            bytes.extend_from_slice(b"abc");
            for end in 0..bytes.len() {
                assert_eq!(decode(&bytes[..end]), Ok(None));
            }
            bytes.push(0xff);
            assert_eq!(decode(&bytes), Ok(Some(Frame { kind, payload: b"abc", size: 8 })));
        }
    }

    #[test]
    fn hostile_headers_are_refused_before_their_payload_is_awaited() {
        assert_eq!(decode(&[200, 0, 0, 0, 0]), Err(InvalidFrame::Kind(200)));
        assert_eq!(decode(&[0, 0xff, 0, 0, 0]), Err(InvalidFrame::TooLong(0xff00_0000)));
    }
}
