//! Everything that can go wrong in `ctl`, the one sentence a user sees for it, and its exit code.
//!
//! A daemon's own refusal is already a sentence: it is shown as it came. Only what the client alone
//! can know (no socket, no answer, a torn connection) is worded here.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tonic::Status;

use crate::copy::CopyError;
use crate::credentials::CredentialError;
use crate::flags::FlagError;
use crate::template::TemplateError;

/// The exit code of our own failures in `run`, `create` and `exec`, and of malformed flags, so that
/// they can be told from the container's codes (docker's rule).
pub(crate) const EXIT_OURS: u8 = 125;
const EXIT_NOT_EXECUTABLE: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;
/// As a shell shows a process that SIGPIPE ended.
const EXIT_BROKEN_PIPE: u8 = 141;

/// A failure of a verb.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The socket can't be connected to.
    #[error("cannot reach bosund at {address}: {}", why_unreachable(.source))]
    Unreachable { address: String, source: io::Error },
    /// The connection broke and did not come back in time.
    #[error(
        "lost bosund at {address} while it was answering: {}: see \"systemctl status bosund\"",
        why_lost(.status)
    )]
    Lost { address: String, status: Box<Status> },
    #[error(
        "bosund at {address} did not answer within {} seconds: is it hung? see \"systemctl status bosund\"",
        .after.as_secs()
    )]
    NoAnswer { address: String, after: Duration },
    /// The daemon refused, in its own words.
    #[error("{}", refusal(.0))]
    Refused(Box<Status>),
    /// The answer does not make sense.
    #[error(
        "bosund at {address} answered without {missing}: do ctl and bosund have the same version?"
    )]
    BadAnswer { address: String, missing: &'static str },
    #[error(transparent)]
    Flag(#[from] FlagError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error("no such container or image: {0}: see \"ctl ps -a\" and \"ctl images\"")]
    NoSuchObject(String),
    #[error("an archive does not go to a terminal: name a file with -o, or redirect stdout")]
    OutputIsTerminal,
    #[error("an archive does not come from a terminal: name a file{0}, or redirect stdin")]
    InputIsTerminal(&'static str),
    #[error("cannot ask for {what}: stdin is not a terminal: give it with {flag}")]
    CannotAsk { what: &'static str, flag: &'static str },
    #[error("the configuration of image {0} can't be read: pull or import it again")]
    ImageConfig(String),
    #[error("the input device is not a TTY: leave out -t, or run ctl in a terminal")]
    InputNotTerminal,
    #[error("cannot {step} {}: {source}", .path.display())]
    File { step: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    #[error("cannot read the input: {0}")]
    Input(#[source] io::Error),
    #[error("cannot {step} the terminal: {source}")]
    Terminal { step: &'static str, source: io::Error },
    #[error("cannot {step}: {source}")]
    System { step: &'static str, source: io::Error },
    #[error("lost the stream of {what}: {}", why_lost(.status))]
    StreamLost { what: String, status: Box<Status> },
}

/// How a verb tells its own failures from the exit code of what it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitCodes {
    /// `run` and `create`: [`EXIT_OURS`].
    OfRun,
    /// `exec`: as `run`, but 1 when there is no running container to run anything in.
    OfExec,
    /// Every other verb: 1.
    Plain,
}

impl Error {
    /// The exit code of a verb that failed with this.
    pub(crate) fn exit_code(&self, codes: ExitCodes) -> u8 {
        let ours = match codes {
            ExitCodes::OfRun | ExitCodes::OfExec => EXIT_OURS,
            ExitCodes::Plain => 1,
        };
        match self {
            Self::Output(source) if source.kind() == io::ErrorKind::BrokenPipe => EXIT_BROKEN_PIPE,
            Self::Refused(status) => match (reason(status), codes) {
                (Some("COMMAND_NOT_FOUND"), ExitCodes::OfRun | ExitCodes::OfExec) => EXIT_NOT_FOUND,
                (Some("COMMAND_NOT_EXECUTABLE"), ExitCodes::OfRun | ExitCodes::OfExec) => {
                    EXIT_NOT_EXECUTABLE
                }
                (
                    Some("NO_SUCH_CONTAINER" | "AMBIGUOUS_PREFIX" | "NOT_RUNNING"),
                    ExitCodes::OfExec,
                ) => 1,
                _ => ours,
            },
            Self::Flag(_) => EXIT_OURS,
            Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::NoAnswer { .. }
            | Self::BadAnswer { .. }
            | Self::Template(_)
            | Self::Credential(_)
            | Self::Copy(_)
            | Self::NoSuchObject(_)
            | Self::OutputIsTerminal
            | Self::InputIsTerminal(_)
            | Self::CannotAsk { .. }
            | Self::ImageConfig(_)
            | Self::InputNotTerminal
            | Self::File { .. }
            | Self::Output(_)
            | Self::Input(_)
            | Self::Terminal { .. }
            | Self::System { .. }
            | Self::StreamLost { .. } => ours,
        }
    }

    /// Nobody reads the output any more: there is nobody to tell either.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::Output(source) if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The `bosun-reason` of a refusal.
    pub(crate) fn reason(&self) -> Option<&str> {
        if let Self::Refused(status) = self { reason(status) } else { None }
    }

    /// The daemon says that the named thing does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code() == tonic::Code::NotFound)
    }
}

/// The `bosun-reason` that came with a status.
pub(crate) fn reason(status: &Status) -> Option<&str> {
    status.metadata().get(bosun_proto::REASON_KEY).and_then(|value| value.to_str().ok())
}

fn why_unreachable(source: &io::Error) -> String {
    const START: &str = "is bosund running? start it with \"bosund\" or \"systemctl start bosund\"";
    if source.kind() == io::ErrorKind::NotFound {
        format!("no such socket: {START}")
    } else if source.kind() == io::ErrorKind::ConnectionRefused {
        format!("nobody listens on the socket: {START}")
    } else if source.kind() == io::ErrorKind::PermissionDenied {
        "permission denied: run ctl as root, or join the group bosun".to_owned()
    } else {
        source.to_string()
    }
}

/// Why a connection is gone: in the daemon's words when it said so, not in those of HTTP/2.
pub(crate) fn why_lost(status: &Status) -> &str {
    if std::error::Error::source(status).is_some() || status.message().is_empty() {
        "the connection broke"
    } else {
        status.message()
    }
}

fn refusal(status: &Status) -> String {
    match (status.code(), status.message()) {
        // What a server says of a method that it has never heard of.
        (tonic::Code::Unimplemented, "") => {
            "bosund does not know how to do that: is it older than ctl?".to_owned()
        }
        (code, "") => format!("bosund refused: {}", code.description()),
        (_, sentence) => sentence.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn refused(code: Code, reason: Option<&'static str>) -> Error {
        let mut status = Status::new(code, "no");
        if let Some(reason) = reason {
            status.metadata_mut().insert(bosun_proto::REASON_KEY, reason.parse().unwrap());
        }
        Error::Refused(Box::new(status))
    }

    #[test]
    fn exit_codes_are_dockers() {
        use ExitCodes::{OfExec, OfRun, Plain};
        let not_found = refused(Code::NotFound, Some("COMMAND_NOT_FOUND"));
        let not_executable = refused(Code::FailedPrecondition, Some("COMMAND_NOT_EXECUTABLE"));
        let in_use = refused(Code::AlreadyExists, Some("NAME_IN_USE"));
        let no_container = refused(Code::NotFound, Some("NO_SUCH_CONTAINER"));
        let bare = refused(Code::Internal, None);
        let flag = Error::Flag(FlagError::NoImage);
        let pipe = Error::Output(io::ErrorKind::BrokenPipe.into());
        for (error, of_run, of_exec, plain) in [
            (&not_found, 127, 127, 1),
            (&not_executable, 126, 126, 1),
            (&in_use, 125, 125, 1),
            (&no_container, 125, 1, 1),
            (&bare, 125, 125, 1),
            (&Error::InputNotTerminal, 125, 125, 1),
            (&flag, 125, 125, 125),
            (&pipe, 141, 141, 141),
        ] {
            let codes = [OfRun, OfExec, Plain].map(|codes| error.exit_code(codes));
            assert_eq!(codes, [of_run, of_exec, plain], "{error}");
        }
    }

    #[test]
    fn a_refusal_is_in_the_daemons_words() {
        let shown = |code, words| Error::Refused(Box::new(Status::new(code, words))).to_string();
        assert_eq!(shown(Code::Unimplemented, "image \"x\": not yet"), "image \"x\": not yet");
        assert!(shown(Code::Unimplemented, "").contains("is it older than ctl?"));
        assert!(shown(Code::Internal, "").starts_with("bosund refused: "));
    }

    #[test]
    fn an_unreachable_daemon_is_explained_by_its_cause() {
        let error = |kind: io::ErrorKind| {
            Error::Unreachable { address: "unix:///x.sock".into(), source: kind.into() }.to_string()
        };
        assert_eq!(
            error(io::ErrorKind::NotFound),
            "cannot reach bosund at unix:///x.sock: no such socket: is bosund running? start it \
             with \"bosund\" or \"systemctl start bosund\""
        );
        assert!(error(io::ErrorKind::ConnectionRefused).contains("nobody listens"));
        assert!(error(io::ErrorKind::PermissionDenied).contains("join the group bosun"));
    }
}
