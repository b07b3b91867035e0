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

Usage: bosun-shim --namespace NS --id ID --container-dir DIR --run-dir DIR --socket-dir DIR --cgroup PATH
       bosun-shim --version | --help

bosund starts it, with the listening socket of its task API as standard input and a socket that
holds its bootstrap message as standard output.

  --namespace NS        the container's namespace
  --id ID               the container's id
  --container-dir DIR   where its log and exit record go
  --run-dir DIR         where its plan lies and process identities go
  --socket-dir DIR      where attach.sock is bound
  --cgroup PATH         the shim's own cgroup, relative to the hierarchy
";

/// What this process is asked to be.
#[derive(Debug)]
pub(crate) enum Command {
    Serve(Arguments),
    Version,
    Help,
}

/// Which container, and where its things are.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    pub(crate) id: Id,
    pub(crate) container: ContainerDir,
    pub(crate) run: RunDir,
    pub(crate) sockets: SocketDir,
    pub(crate) cgroup: String,
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

const FLAGS: [&str; 6] =
    ["--namespace", "--id", "--container-dir", "--run-dir", "--socket-dir", "--cgroup"];

/// # Errors
/// Names the argument that is unknown, missing or malformed.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut values: [Option<OsString>; FLAGS.len()] = Default::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if argument == "--version" {
            return Ok(Command::Version);
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
    let mut taken = values.into_iter().zip(FLAGS);
    let mut next = || {
        let (value, flag) = taken.next().unwrap_or((None, ""));
        value.map(|value| (value, flag)).ok_or(UsageError::Missing(flag))
    };
    // Told for whoever looks at a list of processes; the directories say the rest.
    id(next()?)?;
    Ok(Command::Serve(Arguments {
        id: id(next()?)?,
        container: ContainerDir::new(directory(next()?)?),
        run: RunDir::new(directory(next()?)?),
        sockets: SocketDir::new(directory(next()?)?),
        cgroup: text(next()?)?,
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
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (at, replacement, expected) in [
            (0, Some("--name"), "unknown argument \"--name\""),
            (3, Some("../web"), "--id: invalid id"),
            (5, Some("c"), "--container-dir: the path is not absolute"),
            (11, None, "--cgroup needs a value"),
            (10, None, "--cgroup is missing"),
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
