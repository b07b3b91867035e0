//! The terminal that `ctl` stands on: its modes with their guards, and its size.

use std::io::{self, IsTerminal};

use bosun_proto::v1::WindowSize;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::error::Error;

/// Raw mode of stdin's terminal, until dropped. A panic unwinds through the drop as well.
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    pub(crate) fn enter() -> Result<Self, Error> {
        let failed =
            |step| move |error: rustix::io::Errno| Error::Terminal { step, source: error.into() };
        let before = tcgetattr(io::stdin()).map_err(failed("read the mode of"))?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).map_err(failed("set the mode of"))?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that went away needs no mode.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// What is typed is not shown, until dropped.
#[derive(Debug)]
pub(crate) struct Hidden {
    before: Termios,
}

impl Hidden {
    pub(crate) fn enter() -> Result<Self, Error> {
        let failed =
            |step| move |error: rustix::io::Errno| Error::Terminal { step, source: error.into() };
        let before = tcgetattr(io::stdin()).map_err(failed("read the mode of"))?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &hidden).map_err(failed("set the mode of"))?;
        Ok(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that went away needs no mode.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

pub(crate) fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// The size of the terminal on stdout, or on stdin; nothing when neither is one.
pub(crate) fn window_size() -> Option<WindowSize> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    (size.ws_col > 0 && size.ws_row > 0)
        .then(|| WindowSize { width: size.ws_col.into(), height: size.ws_row.into() })
}
