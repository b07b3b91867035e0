//! The server before clients that are written here, byte by byte, and with processes that are none.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that can't go on ends there, as does one to which something else comes"
)]

mod attach;
mod exec;
mod fake;
mod forward;
mod http;
mod limits;
mod socket;
mod spdy;
mod web_socket;
