//! What a client may ask for: requests that were checked when their URL was made.

use crate::limits::MAX_PORTS;

/// Which streams an exec or an attach has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// With a terminal, whose size can change; it has no stderr.
    pub tty: bool,
}

/// A process to be started in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    pub container: String,
    pub command: Vec<String>,
    pub streams: Streams,
}

/// A container's own process, to be joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    pub container: String,
    pub streams: Streams,
}

/// Connections into a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortForward {
    pub sandbox: String,
    /// For clients of the old way over WebSocket, which do not name ports themselves. The others get
    /// the ports that they ask for, whatever is here.
    pub ports: Vec<u16>,
}

/// What a URL stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Exec(Exec),
    Attach(Attach),
    PortForward(PortForward),
}

/// The first part of a URL's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Exec,
    Attach,
    PortForward,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Exec => "exec",
            Kind::Attach => "attach",
            Kind::PortForward => "portforward",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Kind> {
        [Kind::Exec, Kind::Attach, Kind::PortForward].into_iter().find(|kind| kind.name() == name)
    }
}

/// Why a request gets no URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the container's id is missing")]
    NoContainer,
    #[error("the sandbox's id is missing")]
    NoSandbox,
    #[error("the command is missing")]
    NoCommand,
    #[error("tty and stderr can't both be: a terminal has one output, ask for stdout")]
    TerminalStderr,
    #[error("one of stdin, stdout and stderr has to be asked for")]
    NoStream,
    #[error("port 0 is not one that can be forwarded")]
    PortZero,
    #[error("{count} ports are too many for one request, {MAX_PORTS} are allowed")]
    TooManyPorts { count: usize },
}

impl Request {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Request::Exec(_) => Kind::Exec,
            Request::Attach(_) => Kind::Attach,
            Request::PortForward(_) => Kind::PortForward,
        }
    }

    /// What can be said of a request without the container.
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        match self {
            Request::Exec(exec) if exec.container.is_empty() => Err(Invalid::NoContainer),
            Request::Exec(exec) if exec.command.is_empty() => Err(Invalid::NoCommand),
            Request::Exec(exec) => exec.streams.check(),
            Request::Attach(attach) if attach.container.is_empty() => Err(Invalid::NoContainer),
            Request::Attach(attach) => attach.streams.check(),
            Request::PortForward(forward) if forward.sandbox.is_empty() => Err(Invalid::NoSandbox),
            Request::PortForward(forward) if forward.ports.contains(&0) => Err(Invalid::PortZero),
            Request::PortForward(forward) if forward.ports.len() > MAX_PORTS => {
                Err(Invalid::TooManyPorts { count: forward.ports.len() })
            }
            Request::PortForward(_) => Ok(()),
        }
    }
}

impl Streams {
    fn check(self) -> Result<(), Invalid> {
        if self.tty && self.stderr {
            Err(Invalid::TerminalStderr)
        } else if !(self.stdin || self.stdout || self.stderr) {
            Err(Invalid::NoStream)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_checked_before_they_have_a_url() {
        let out = Streams { stdout: true, ..Streams::default() };
        let exec = |container: &str, command: &[&str], streams| {
            let command = command.iter().map(|word| (*word).to_owned()).collect();
            Request::Exec(Exec { container: container.to_owned(), command, streams }).check()
        };
        assert_eq!(exec("c", &["true"], out), Ok(()));
        assert_eq!(exec("", &["true"], out), Err(Invalid::NoContainer));
        assert_eq!(exec("c", &[], out), Err(Invalid::NoCommand));
        assert_eq!(exec("c", &["true"], Streams::default()), Err(Invalid::NoStream));
        let both = Streams { tty: true, stderr: true, ..out };
        assert_eq!(exec("c", &["true"], both), Err(Invalid::TerminalStderr));
        let forward = |sandbox: &str, ports: Vec<u16>| {
            Request::PortForward(PortForward { sandbox: sandbox.to_owned(), ports }).check()
        };
        assert_eq!(forward("s", vec![]), Ok(()));
        assert_eq!(forward("", vec![80]), Err(Invalid::NoSandbox));
        assert_eq!(forward("s", vec![80, 0]), Err(Invalid::PortZero));
        assert_eq!(forward("s", vec![1; 128]), Err(Invalid::TooManyPorts { count: 128 }));
    }
}
