//! The command line.
//!
//! Deliberately absent: a parser library, which would be most of the shim.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use shim_wire::files::{ContainerDir, RunDir, SocketDir};
use shim_wire::id::Id;

pub(crate) const USAGE: &str = "\
One per container: owns the process, its pty, its log file and its exit status.

Usage: bosun-shim --namespace NS --id ID --container-dir DIR --run-dir DIR --socket-dir DIR
                  [--cgroup PATH] [--containerd SOCKET --lower PROGRAM]
       bosun-shim --keep-scope | --version | --help
       containerd-shim-bosun-v1 … start | delete, -v, -info

bosund starts it, with the listening socket of its task API as standard input and a socket that
holds its bootstrap message as standard output. Under the name containerd-shim-bosun-v1 it is what
containerd starts for the runtime io.containerd.bosun.v1, and starts itself.

  --namespace NS        the container's namespace
  --id ID               the container's id
  --container-dir DIR   where its log and exit record go
  --run-dir DIR         where its plan lies and process identities go
  --socket-dir DIR      where attach.sock is bound
  --cgroup PATH         the shim's own cgroup, relative to the hierarchy; otherwise its parent's
  --containerd SOCKET   containerd drives it, and serves its ttrpc API there
  --lower PROGRAM       the bosun-oci that reads what containerd sends
  --keep-scope          waits for the end of standard input: a process for a group that systemd makes
";

/// What this process is asked to be.
#[derive(Debug)]
pub(crate) enum Command {
    Serve(Arguments),
    KeepScope,
    Version,
    Help,
}

/// Which container, and where its things are.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    pub(crate) namespace: Id,
    pub(crate) id: Id,
    pub(crate) container: ContainerDir,
    pub(crate) run: RunDir,
    pub(crate) sockets: SocketDir,
    pub(crate) cgroup: Option<String>,
    /// The ttrpc socket of the containerd that drives this shim; bosund drives it otherwise.
    pub(crate) containerd: Option<PathBuf>,
    /// The `bosun-oci` that reads what containerd sends.
    pub(crate) lower: Option<PathBuf>,
}

/// A command line that says nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UsageError {
    Unknown(String),
    MissingValue(&'static str),
    Missing(&'static str),
    Invalid { flag: &'static str, reason: String },
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(argument) => write!(f, "unknown argument {argument:?}")?,
            Self::MissingValue(flag) => write!(f, "{flag} needs a value")?,
            Self::Missing(flag) => write!(f, "{flag} is missing")?,
            Self::Invalid { flag, reason } => write!(f, "{flag}: {reason}")?,
        }
        f.write_str("; see --help")
    }
}

impl std::error::Error for UsageError {}

const FLAGS: [&str; 8] = [
    "--namespace",
    "--id",
    "--container-dir",
    "--run-dir",
    "--socket-dir",
    "--cgroup",
    "--containerd",
    "--lower",
];

/// # Errors
/// Names the argument that is unknown, missing or malformed.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut values: [Option<OsString>; FLAGS.len()] = Default::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if argument == "--version" {
            return Ok(Command::Version);
        }
        if argument == "--keep-scope" {
            return Ok(Command::KeepScope);
        }
        if argument == "--help" {
            return Ok(Command::Help);
        }
        let index = FLAGS
            .iter()
            .position(|flag| argument == *flag)
            .ok_or_else(|| UsageError::Unknown(argument.to_string_lossy().into_owned()))?;
        values[index] = Some(arguments.next().ok_or(UsageError::MissingValue(FLAGS[index]))?);
    }
    let [namespace, own, container, run, sockets, cgroup, containerd, lower] = values;
    let mut flags = FLAGS.into_iter();
    let mut take = |value: Option<OsString>| {
        let flag = flags.next().unwrap_or_default();
        value.map(|value| (value, flag)).ok_or(UsageError::Missing(flag))
    };
    Ok(Command::Serve(Arguments {
        namespace: id(take(namespace)?)?,
        id: id(take(own)?)?,
        container: ContainerDir::new(directory(take(container)?)?),
        run: RunDir::new(directory(take(run)?)?),
        sockets: SocketDir::new(directory(take(sockets)?)?),
        cgroup: take(cgroup).ok().map(text).transpose()?,
        containerd: take(containerd).ok().map(directory).transpose()?,
        lower: take(lower).ok().map(directory).transpose()?,
    }))
}

fn text((value, flag): (OsString, &'static str)) -> Result<String, UsageError> {
    value
        .into_string()
        .map_err(|_| UsageError::Invalid { flag, reason: "it is not UTF-8".to_owned() })
}

fn id((value, flag): (OsString, &'static str)) -> Result<Id, UsageError> {
    let invalid = |error: shim_wire::id::InvalidId| error.to_string();
    text((value, flag))?
        .parse()
        .map_err(|error| UsageError::Invalid { flag, reason: invalid(error) })
}

fn directory((value, flag): (OsString, &'static str)) -> Result<PathBuf, UsageError> {
    let path = PathBuf::from(value);
    match path.is_absolute() {
        true => Ok(path),
        false => Err(UsageError::Invalid { flag, reason: "the path is not absolute".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: [&str; 12] = [
        "--namespace",
        "default",
        "--id",
        "web",
        "--container-dir",
        "/c",
        "--run-dir",
        "/r",
        "--socket-dir",
        "/s",
        "--cgroup",
        "bosun-shims/default/web",
    ];

    fn parsed(arguments: &[&str]) -> Result<Command, UsageError> {
        parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn a_whole_command_line_is_understood() {
        let Ok(Command::Serve(arguments)) = parsed(&WHOLE) else { panic!("refused") };
        assert_eq!(arguments.id.as_str(), "web");
        assert_eq!(arguments.sockets.path(), std::path::Path::new("/s"));
        assert_eq!(arguments.cgroup.as_deref(), Some("bosun-shims/default/web"));
        assert_eq!(arguments.containerd, None);
    }

    #[test]
    fn a_shim_that_containerd_drives_needs_no_cgroup_of_its_own() {
        let mut arguments = WHOLE[..10].to_vec();
        arguments.extend(["--containerd", "/run/containerd/containerd.sock.ttrpc"]);
        let Ok(Command::Serve(arguments)) = parsed(&arguments) else { panic!("refused") };
        assert_eq!(arguments.cgroup, None);
        assert!(arguments.containerd.is_some());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (at, replacement, expected) in [
            (0, Some("--name"), "unknown argument \"--name\""),
            (3, Some("../web"), "--id: invalid id"),
            (5, Some("c"), "--container-dir: the path is not absolute"),
            (11, None, "--cgroup needs a value"),
            (8, None, "--socket-dir is missing"),
        ] {
            let mut arguments = WHOLE.to_vec();
            match replacement {
                Some(replacement) => arguments[at] = replacement,
                None => arguments.truncate(at),
            }
            let Err(error) = parsed(&arguments) else { panic!("{arguments:?} passed") };
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }
}
