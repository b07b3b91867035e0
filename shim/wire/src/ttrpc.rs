//! ttrpc's frames, without I/O: both the blocking shim and the asynchronous daemon use this.
//!
//! ```text
//!   length: u32 BE | stream id: u32 BE | type: u8 | flags: u8 | length bytes
//! ```
//!
//! Type 1 is a [`Request`], type 2 a [`Response`]; clients use odd stream ids. The rule is
//! containerd/ttrpc's PROTOCOL.md. Deliberately absent: streaming (type 3), which the task API does
//! not use.

use prost::Message;

/// Bytes of a frame before its message.
pub const HEADER_LEN: usize = 10;

/// The longest message, as ttrpc's other implementations have it.
pub const MAX_MESSAGE: usize = 4 << 20;

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Request {
    /// The full service name, `containerd.task.v3.Task`.
    #[prost(string, tag = "1")]
    pub service: String,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    /// How long the caller waits; 0 for ever.
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
    #[prost(message, repeated, tag = "5")]
    pub metadata: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

/// google.rpc.Status.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Status {
    /// A [`Code`].
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

/// google.rpc.Code: those that the task API answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Code {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Response,
}

/// One frame, its message still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: Kind,
    pub stream: u32,
    pub message: &'a [u8],
    /// Bytes of the buffer that this frame takes.
    pub size: usize,
}

/// A frame that can't be read; the connection is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidFrame {
    TooLong(u32),
    Kind(u8),
}

impl std::fmt::Display for InvalidFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong(len) => write!(f, "ttrpc message of {len} bytes, over {MAX_MESSAGE}"),
            Self::Kind(kind) => write!(f, "ttrpc frame of unsupported type {kind}"),
        }
    }
}

impl std::error::Error for InvalidFrame {}

/// Appends one frame to `buffer`.
pub fn encode(buffer: &mut Vec<u8>, kind: Kind, stream: u32, message: &impl Message) {
    let len = message.encoded_len();
    buffer.reserve(HEADER_LEN + len);
    buffer.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    buffer.extend_from_slice(&stream.to_be_bytes());
    buffer.push(match kind {
        Kind::Request => 1,
        Kind::Response => 2,
    });
    buffer.push(0);
    message.encode_raw(buffer);
}

/// The first frame in `buffer`; `None` while it is incomplete.
///
/// # Errors
/// When the header is none of this protocol's, or the message too long.
pub fn decode(buffer: &[u8]) -> Result<Option<Frame<'_>>, InvalidFrame> {
    let Some((head, rest)) = buffer.split_at_checked(HEADER_LEN) else { return Ok(None) };
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    let stream = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let len = usize::try_from(length).unwrap_or(usize::MAX);
    if len > MAX_MESSAGE {
        return Err(InvalidFrame::TooLong(length));
    }
    let kind = match head[8] {
        1 => Kind::Request,
        2 => Kind::Response,
        other => return Err(InvalidFrame::Kind(other)),
    };
    Ok(rest.get(..len).map(|message| Frame { kind, stream, message, size: HEADER_LEN + len }))
}

impl Response {
    #[must_use]
    pub fn ok(payload: &impl Message) -> Self {
        Self { status: None, payload: payload.encode_to_vec() }
    }

    #[must_use]
    pub fn error(code: Code, message: String) -> Self {
        Self { status: Some(Status { code: code as i32, message }), payload: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            service: "containerd.task.v3.Task".to_owned(),
            method: "Wait".to_owned(),
            payload: vec![1, 2, 3],
            timeout_nano: 5,
            metadata: Vec::new(),
        }
    }

    #[test]
    fn a_frame_round_trips_and_arrives_in_any_pieces() {
        let mut bytes = Vec::new();
        encode(&mut bytes, Kind::Request, 7, &request());
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), Ok(None));
        }
        bytes.extend_from_slice(b"next");
        let frame = decode(&bytes).unwrap().unwrap();
        assert_eq!((frame.kind, frame.stream, frame.size), (Kind::Request, 7, bytes.len() - 4));
        assert_eq!(Request::decode(frame.message), Ok(request()));
    }

    #[test]
    fn hostile_headers_are_refused_before_their_message_is_awaited() {
        let mut header = [0u8; HEADER_LEN];
        header[0] = 0xff;
        assert_eq!(decode(&header), Err(InvalidFrame::TooLong(0xff00_0000)));
        assert_eq!(decode(&[0, 0, 0, 0, 0, 0, 0, 1, 3, 0]), Err(InvalidFrame::Kind(3)));
    }
}
