//! What a client can use up, at most.
//!
//! A stream holds one buffer for what its reader has not taken; a connection holds [`QUEUE`] pieces of
//! [`PIECE`] bytes on their way out. So a connection's memory is bounded by its streams, whoever is
//! slow.

use std::time::Duration;

/// Requests that wait for their client. More are refused.
pub const MAX_OUTSTANDING: usize = 1000;
/// How long a URL is good for.
pub const TOKEN_LIFE: Duration = Duration::from_secs(60);

/// Bytes of a request's head.
pub(crate) const MAX_REQUEST_BYTES: usize = 64 << 10;
/// Connections at a time, if nobody says fewer.
pub(crate) const MAX_CONNECTIONS: usize = 4096;

/// Bytes of a header block of SPDY, inflated.
pub(crate) const MAX_HEADER_BYTES: usize = 16 << 10;
/// Headers in one.
pub(crate) const MAX_HEADERS: u32 = 64;
/// Bytes of a SPDY control frame. (Data is read in pieces; it may have what fits in its length.)
pub(crate) const MAX_CONTROL_BYTES: u32 = 16 << 10;
/// Streams of a connection at a time.
pub(crate) const MAX_STREAMS: usize = 1024;
/// Bytes of a message of a WebSocket. There are clients that send a file as one.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Ports of one request, for the old way over WebSocket: a channel's number is a byte.
pub(crate) const MAX_PORTS: usize = 127;

/// Bytes that a stream holds for a slow reader; also its window of flow control.
pub(crate) const WINDOW: u32 = 64 << 10;
/// The most that is read from a process and sent as one frame.
pub(crate) const PIECE: usize = 32 << 10;
/// Pieces of a connection that wait to be written.
pub(crate) const QUEUE: usize = 4;
/// Bytes of a message that sets a terminal's size.
pub(crate) const MAX_RESIZE_BYTES: usize = 4 << 10;

/// For a client that is told the end without having asked: it broke the protocol, or was idle.
pub(crate) const FAREWELL: Duration = Duration::from_secs(1);
/// For a client that has been told the end, to read it.
pub(crate) const LINGER: Duration = Duration::from_secs(30);
