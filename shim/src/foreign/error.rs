//! What can go wrong between this shim and a stock one.

use std::fmt;
use std::io;

use prost::DecodeError;
use shim_wire::ttrpc::{Code, Status};

use super::answer::Unusable;

/// Why a stock shim did not do its part.
#[derive(Debug)]
pub(crate) enum Error {
    /// A step on the way to it.
    Step {
        step: &'static str,
        object: String,
        source: io::Error,
    },
    /// It did not start; `said` is what it wrote.
    NotStarted {
        shim: String,
        said: String,
    },
    Unusable {
        shim: String,
        unusable: Unusable,
    },
    /// Its own answer, and the code that fits it.
    Refused {
        code: Code,
        message: String,
    },
    Gone {
        method: &'static str,
    },
    TimedOut {
        method: &'static str,
    },
    Malformed {
        method: &'static str,
        source: DecodeError,
    },
}

impl Error {
    pub(crate) fn step(step: &'static str, object: impl Into<String>, source: io::Error) -> Self {
        Self::Step { step, object: object.into(), source }
    }

    /// A refusal. OCI runtimes tell what went wrong by their text alone, which stock shims hand on
    /// under the code "unknown"; for what users' scripts tell apart, that text is all there is (as
    /// docker has it).
    pub(crate) fn refused(status: &Status) -> Self {
        const NOT_FOUND: [&str; 2] = ["executable file not found", "no such file or directory"];
        const NOT_EXECUTABLE: [&str; 3] = ["permission denied", "is a directory", "exec format"];
        let said = status.message.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
        let code = match Code::try_from(status.code) {
            Ok(Code::Unknown) if says(&NOT_FOUND) => Code::NotFound,
            Ok(Code::Unknown) if says(&NOT_EXECUTABLE) => Code::PermissionDenied,
            Ok(code) => code,
            Err(_) => Code::Unknown,
        };
        Self::Refused { code, message: status.message.clone() }
    }

    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Refused { code, .. } => *code,
            Self::TimedOut { .. } => Code::DeadlineExceeded,
            Self::Gone { .. } => Code::Unavailable,
            Self::Step { .. }
            | Self::NotStarted { .. }
            | Self::Unusable { .. }
            | Self::Malformed { .. } => Code::Internal,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step { step, object, source } => write!(f, "{step} {object}: {source}"),
            Self::NotStarted { shim, said } => write!(f, "{shim} did not start: {said}"),
            Self::Unusable { shim, unusable } => write!(f, "{shim}: {unusable}"),
            Self::Refused { message, .. } => f.write_str(message),
            Self::Gone { method } => write!(f, "{method}: the runtime's own shim is gone"),
            Self::TimedOut { method } => {
                write!(f, "{method}: the runtime's own shim did not answer in time")
            }
            Self::Malformed { method, source } => {
                write!(f, "{method}: the answer of the runtime's own shim: {source}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Step { source, .. } => Some(source),
            Self::Malformed { source, .. } => Some(source),
            Self::NotStarted { .. }
            | Self::Unusable { .. }
            | Self::Refused { .. }
            | Self::Gone { .. }
            | Self::TimedOut { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_runtime_says_of_a_command_is_told_apart() {
        let code = |code: Code, message: &str| {
            Error::refused(&Status { code: code as i32, message: message.to_owned() }).code()
        };
        let runc = "OCI runtime create failed: exec: \"x\": executable file not found in $PATH";
        assert_eq!(code(Code::Unknown, runc), Code::NotFound);
        assert_eq!(code(Code::Unknown, "exec /etc: Permission denied"), Code::PermissionDenied);
        assert_eq!(code(Code::Unknown, "something else"), Code::Unknown);
        assert_eq!(
            code(Code::FailedPrecondition, "no such file or directory"),
            Code::FailedPrecondition
        );
    }
}
