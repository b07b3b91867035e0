//! SPDY/3.1, the server's side.
//!
//! ```text
//!   bytes ─▶ frame ─▶ reader ─┬▶ Offers::next ─▶ Offered ─▶ (Incoming, Writer)
//!                             └▶ a pipe for each stream ─────────▶ Incoming::read
//!   bytes ◀─ frame ◀─ writer ◀─┬─ control, at once ◀── replies, resets, pings, credit
//!                              └─ data, in turn ◀───── Writer::send
//! ```
//!
//! Flow control is kept in both directions, but cannot be relied on: the clients of Kubernetes send
//! without regard to windows and never open one. So we give credit as a stream is read, and a stream
//! that is full stops the reading of the connection; and our own sending minds windows only of a peer
//! that has shown that it has some (a SETTINGS or a WINDOW_UPDATE). What bounds the rest is TCP.

mod connection;
mod dictionary;
mod error;
pub mod frame;
mod headers;
mod reader;
mod window;

pub(crate) use connection::{Link, Offered, Offers, Writer, start};
pub use error::Error;
pub use headers::{Deflater, Headers, Inflater};
