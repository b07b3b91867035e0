//! What can go wrong. An error names network, plugin and step, or the file and what is wrong in it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} {name:?} {problem}")]
    Name { what: &'static str, name: String, problem: &'static str },
    #[error("{what} {value:?} {problem}")]
    Argument { what: &'static str, value: String, problem: &'static str },
    #[error("no network configuration in {}: put a .conflist there", directory.display())]
    NoConfiguration { directory: PathBuf },
    #[error("no valid network configuration: {}", list(files))]
    Invalid { files: Vec<InvalidFile> },
    #[error("{}: can't be read", directory.display())]
    Directory { directory: PathBuf, source: io::Error },
    #[error(
        "network {network:?}: plugin {plugin:?} is not in {}: install it there, or name its directory",
        paths(searched)
    )]
    PluginMissing { network: String, plugin: String, searched: Vec<PathBuf> },
    #[error("network {network:?}: plugin {plugin:?}: {} {problem}", path.display())]
    PluginUnusable { network: String, plugin: String, path: PathBuf, problem: &'static str },
    #[error(
        "network {network:?}: plugin {plugin:?} does not speak version {version} of its configuration, only {}",
        words(supported)
    )]
    PluginVersion { network: String, plugin: String, version: String, supported: Vec<String> },
    /// A plugin was run and failed.
    #[error("network {network:?}: plugin {plugin:?}: {command}: {failure}")]
    Plugin { network: String, plugin: String, command: Command, failure: Failure },
    /// An ADD failed. Without `left`, nothing of it is left.
    #[error("{}{}", cause.chain(), undone(left.as_deref()))]
    Add { cause: Box<Error>, left: Option<Box<Error>> },
    #[error(
        "container {container}: {interface} is attached to network {network:?} already: detach it first"
    )]
    Attached { network: String, container: String, interface: String },
    #[error("container {container}: not attached to a network")]
    NotAttached { container: String },
    #[error("container {container}: {interface} may be attached to network {network:?}, which has no configuration any more: {}", hint(*cached))]
    Unconfigured { network: String, container: String, interface: String, cached: bool },
    /// What is nobody's any more was tried to be undone for the last time. `left` is what may be left of
    /// it on the machine.
    #[error(
        "container {container}: {interface} on network {network:?} could not be detached in {tries} tries, and is given up, for its network namespace is gone; this may be left: {}: {}",
        words(left), cause.chain()
    )]
    GivenUp {
        network: String,
        container: String,
        interface: String,
        tries: u32,
        left: Vec<String>,
        cause: Box<Error>,
    },
    #[error("{}: can't {step}", path.display())]
    File { step: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: the cached result is damaged: {problem}", path.display())]
    Damaged { path: PathBuf, problem: String },
    /// Several things were tried, and these failed.
    #[error("{}", several(.0))]
    Several(Vec<Error>),
    #[error("the runtime is stopping")]
    Stopping,
}

impl From<shim_failpoints::Stumble> for Error {
    fn from(stumble: shim_failpoints::Stumble) -> Error {
        Error::file("pass", Path::new("failpoint"))(stumble.into())
    }
}

impl Error {
    pub(crate) fn file(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File { step, path, source }
    }

    /// The error with its sources, in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }

    /// One error for all of them; nothing for none.
    pub(crate) fn all(mut errors: Vec<Error>) -> Result<()> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Error::Several(errors)),
        }
    }
}

/// A file of the directory of configurations that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidFile {
    pub file: PathBuf,
    pub reason: String,
}

impl fmt::Display for InvalidFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.reason)
    }
}

/// What a plugin is asked for: CNI_COMMAND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Add,
    Del,
    Check,
    Status,
    Gc,
    Version,
}

impl Command {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Command::Add => "ADD",
            Command::Del => "DEL",
            Command::Check => "CHECK",
            Command::Status => "STATUS",
            Command::Gc => "GC",
            Command::Version => "VERSION",
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a plugin failed.
#[derive(Debug)]
pub enum Failure {
    /// It said what is wrong, in the error result of the specification (section 5).
    Reported { code: u64, message: String, details: String },
    /// It failed without an error result. `said` is the end of what it wrote, on standard error
    /// before standard output.
    Exit { status: ExitStatus, said: String },
    /// It succeeded, but its answer is not one.
    Answer { problem: String, said: String },
    /// It wrote more than so many bytes, and was killed.
    TooMuch { limit: usize },
    /// It did not end in time, and was killed with its children.
    Deadline { after: Duration, said: String },
    /// It could not be run or listened to.
    Run { step: &'static str, source: io::Error },
}

impl Failure {
    /// The code of an error result: 7 is an invalid configuration, 11 try again later, 50 and 51
    /// come from STATUS; 100 and more are the plugin's own.
    #[must_use]
    pub fn code(&self) -> Option<u64> {
        match self {
            Failure::Reported { code, .. } => Some(*code),
            Failure::Exit { .. }
            | Failure::Answer { .. }
            | Failure::TooMuch { .. }
            | Failure::Deadline { .. }
            | Failure::Run { .. } => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Reported { code, message, details } => {
                f.write_str(if message.is_empty() { "no message" } else { message })?;
                if !details.is_empty() {
                    write!(f, "; {details}")?;
                }
                write!(f, " (code {code})")
            }
            Failure::Exit { status, said } => write!(f, "{status}{}", saying(said)),
            Failure::Answer { problem, said } => write!(f, "its answer {problem}{}", saying(said)),
            Failure::TooMuch { limit } => {
                write!(f, "wrote more than {limit} bytes, and was killed")
            }
            Failure::Deadline { after, said } => {
                write!(f, "was killed, for it did not end within {after:?}{}", saying(said))
            }
            Failure::Run { step, source } => write!(f, "can't {step}: {source}"),
        }
    }
}

fn saying(said: &str) -> String {
    if said.is_empty() { ", without a word".into() } else { format!(", saying {said:?}") }
}

fn undone(left: Option<&Error>) -> String {
    match left {
        None => String::new(),
        Some(left) => {
            format!("; undoing it failed as well, and will be tried again: {}", left.chain())
        }
    }
}

fn hint(cached: bool) -> &'static str {
    if cached { "give it one, or remove its file from the cache" } else { "give it one" }
}

fn several(errors: &[Error]) -> String {
    errors.iter().map(Error::chain).collect::<Vec<_>>().join("; ")
}

fn list(files: &[InvalidFile]) -> String {
    files.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn paths(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "any directory, for none is configured".into();
    }
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
}

fn words(words: &[String]) -> String {
    words.join(", ")
}
