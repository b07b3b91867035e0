//! Why systemd could not be asked, or did not do what it was asked for.

use std::fmt;
use std::io;

#[derive(Debug)]
pub enum Error {
    /// Nobody listens where systemd does.
    NotRunning,
    Io {
        step: &'static str,
        object: String,
        source: io::Error,
    },
    /// Not the protocol, or not as this knows it.
    Protocol {
        problem: String,
    },
    /// systemd, or the bus, answered with an error.
    Refused {
        method: &'static str,
        name: String,
        message: String,
    },
    /// A job that did not end well: `failed`, `canceled`, `timeout` …
    Job {
        method: &'static str,
        unit: String,
        result: String,
    },
    TimedOut {
        method: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning => f.write_str("systemd does not run on this machine"),
            Self::Io { step, object, source } => write!(f, "{step} {object}: {source}"),
            Self::Protocol { problem } => write!(f, "D-Bus: {problem}"),
            Self::Refused { method, name, message } => {
                write!(f, "systemd: {method}: {message} ({name})")
            }
            Self::Job { method, unit, result } => {
                write!(f, "systemd: {method}: the job of {unit} ended as {result:?}")
            }
            Self::TimedOut { method } => write!(f, "systemd: {method}: no answer in time"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::NotRunning
            | Self::Protocol { .. }
            | Self::Refused { .. }
            | Self::Job { .. }
            | Self::TimedOut { .. } => None,
        }
    }
}
