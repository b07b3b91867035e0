//! A terminal or a pair of pipes connected to a process in a container.
//!
//! ```text
//! stdin ─thread─▶ Input ─(detach keys)─▶ ┐                 ┌─▶ Wire.up ──▶ bosund
//! signals ─────────────────────────────▶ │ Console::pump  │
//! stdout, stderr ◀─thread─ Output ◀───── ┘                 └── Wire.down ◀─ bosund
//! ```
//!
//! Nothing is read that can't be passed on, in either direction: a slow reader holds back the
//! process as a pipe would. What to do when the stream breaks is decided in [`attached`].

pub(crate) mod attached;
mod console;
mod input;
mod keys;
mod stdio;
mod wire;

pub(crate) use console::{Console, End, SignalsGo};
pub(crate) use input::Input;
pub(crate) use wire::Wire;

use bosun_proto::v1::Exit;

use crate::output;

/// The exit code for how a process ended; says so when nobody knows it.
pub(crate) fn exit_code(who: &str, exit: &Exit) -> u8 {
    if exit.unknown {
        let reason = if exit.reason.is_empty() { "no reason given" } else { &exit.reason };
        output::complain(&format_args!("the exit status of {who} is unknown: {reason}"));
    }
    u8::try_from(exit.status).unwrap_or(u8::MAX)
}
