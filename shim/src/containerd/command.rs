//! The command line that containerd knows: Go's flags, and a verb behind them.
//!
//! ```text
//! containerd-shim-bosun-v1 -namespace NS -address SOCK -publish-binary BIN -id ID [-debug] start
//! containerd-shim-bosun-v1 … -bundle DIR delete
//! containerd-shim-bosun-v1 -v | -info
//! ```
//!
//! A flag begins with one dash or two and has its value behind it or behind `=`. Flags of which
//! nothing is needed here are taken and passed over; unknown ones are refused.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use prost::Message;
use shim_wire::containerd::{FEATURES, RuntimeInfo, RuntimeVersion};
use shim_wire::id::Id;
use shim_wire::task::Any;

use super::{Failure, delete, lower, start};

/// The name of this program for containerd, which makes it of the runtime's name.
const NAME: &str = "containerd-shim-bosun-v1";
const RUNTIME: &str = "io.containerd.bosun.v1";

/// The most that is read from standard input.
const MAX_INPUT: u64 = 4 << 20;

/// Whether the program was started under the name that containerd knows.
pub(crate) fn is_meant(argv0: &OsStr) -> bool {
    std::path::Path::new(argv0).file_name() == Some(OsStr::new(NAME))
}

/// What containerd says of the container.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) namespace: Id,
    pub(super) id: Id,
    pub(super) bundle: PathBuf,
}

#[derive(Debug, Default)]
struct Flags {
    namespace: String,
    id: String,
    bundle: Option<PathBuf>,
    version: bool,
    info: bool,
    verb: String,
}

/// Does what the command line says.
pub(crate) fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    let done = Flags::parse(arguments).and_then(|flags| flags.run());
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // containerd shows its user what it reads here.
            let _ = writeln!(std::io::stderr(), "{NAME}: {failure}");
            ExitCode::FAILURE
        }
    }
}

impl Flags {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut flags = Self::default();
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix('-') else {
                // Whatever comes behind a verb is not for us.
                flags.verb = argument;
                break;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let switch = !matches!(inline.as_deref(), Some("false" | "0"));
            match name {
                "v" | "version" => flags.version = switch,
                "info" => flags.info = switch,
                "debug" => {}
                "namespace" | "id" | "bundle" | "address" | "publish-binary" | "socket" => {
                    let missing = || Failure::Usage(format!("-{name} needs a value"));
                    let value = inline.or_else(|| arguments.next()).ok_or_else(missing)?;
                    match name {
                        "namespace" => flags.namespace = value,
                        "id" => flags.id = value,
                        "bundle" if !value.is_empty() => flags.bundle = Some(value.into()),
                        _ => {}
                    }
                }
                _ => return Err(Failure::Usage(format!("unknown flag -{name}"))),
            }
        }
        Ok(flags)
    }

    fn run(self) -> Result<(), Failure> {
        if self.version {
            let version = env!("CARGO_PKG_VERSION");
            return write(format!("{NAME}:\n  Version:  {version}\n").as_bytes());
        }
        if self.info {
            return write(&info(input()?).encode_to_vec());
        }
        match self.verb.as_str() {
            "start" => write(&start::start(&self.target()?, &input()?)?),
            "delete" => write(&delete::delete(&self.target()?)?.encode_to_vec()),
            "" => Err(Failure::Usage("a verb is missing: start or delete".to_owned())),
            verb => Err(Failure::Usage(format!("unknown verb {verb:?}: not start or delete"))),
        }
    }

    fn target(self) -> Result<Target, Failure> {
        let id = |flag: &str, text: &str| {
            text.parse::<Id>().map_err(|error| Failure::Usage(format!("-{flag}: {error}")))
        };
        let here = || std::env::current_dir().map_err(|e| Failure::step("find", "the bundle", e));
        Ok(Target {
            namespace: id("namespace", &self.namespace)?,
            id: id("id", &self.id)?,
            bundle: self.bundle.map_or_else(here, Ok)?,
        })
    }
}

/// What this runtime is and can do.
fn info(input: Vec<u8>) -> RuntimeInfo {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let features = std::process::Command::new(lower::program()).arg("features").output();
    let features = features.ok().filter(|output| output.status.success());
    RuntimeInfo {
        name: RUNTIME.to_owned(),
        version: Some(RuntimeVersion { version, revision: String::new() }),
        options: Any::decode(input.as_slice()).ok().filter(|any| !any.type_url.is_empty()),
        features: features
            .map(|output| Any { type_url: FEATURES.to_owned(), value: output.stdout }),
    }
}

fn input() -> Result<Vec<u8>, Failure> {
    let mut input = Vec::new();
    let read = std::io::stdin().lock().take(MAX_INPUT).read_to_end(&mut input);
    read.map_err(|e| Failure::step("read", "standard input", e))?;
    Ok(input)
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    let written = output.write_all(bytes).and_then(|()| output.flush());
    written.map_err(|e| Failure::step("write to", "standard output", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, Failure> {
        Flags::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn containerds_command_lines_are_understood() {
        let line =
            "-namespace ns -address /c.sock -publish-binary /bin/containerd -id web -debug start";
        let flags = parse(line).unwrap();
        assert_eq!((flags.namespace.as_str(), flags.verb.as_str()), ("ns", "start"));
        let flags = parse("--namespace=ns -id=web -bundle /b/web delete").unwrap();
        assert_eq!((flags.id.as_str(), flags.verb.as_str()), ("web", "delete"));
        assert_eq!(flags.bundle, Some("/b/web".into()));
        assert!(parse("-v").unwrap().version);
        assert!(parse("-info").unwrap().info);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, expected) in [
            ("-name x start", "unknown flag -name"),
            ("-id", "-id needs a value"),
            ("-namespace ns -id ../web start", "-id: invalid id"),
            ("-namespace ns -id web stop", "unknown verb \"stop\""),
            ("-namespace ns -id web", "a verb is missing"),
        ] {
            let failure = parse(line).and_then(|flags| match flags.verb.as_str() {
                "start" => flags.target().map(drop),
                _ => flags.run(),
            });
            let text = failure.unwrap_err().to_string();
            assert!(text.starts_with(expected), "{text}");
        }
    }
}
