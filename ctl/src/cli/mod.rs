//! The command line, declared: verbs, flags, help. No behaviour.
//!
//! Names, letters and defaults are docker's. `run` and `create` have most of them and live in
//! [`create`], the other verbs on containers in [`container`], snapshots in [`snapshot`],
//! blobs in [`content`], leases in [`lease`].

pub(crate) mod container;
pub(crate) mod content;
pub(crate) mod create;
pub(crate) mod lease;
pub(crate) mod snapshot;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::client::{Address, DEFAULT_ADDRESS, Namespace};
use crate::flags::{Moment, parse_moment};
use container::ContainerVerb;
use content::ContentVerb;
use lease::LeaseVerb;
use snapshot::SnapshotVerb;

/// A command line, read.
#[derive(Debug)]
pub(crate) struct Cli {
    pub(crate) address: Address,
    pub(crate) namespace: Namespace,
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    #[command(flatten)]
    OnContainers(ContainerVerb),
    /// Look after snapshots: the trees that containers stand on
    #[command(subcommand, visible_alias = "snapshots", after_help = "Example:\n  ctl snapshot ls")]
    Snapshot(SnapshotVerb),
    /// Look after content: blobs by digest
    #[command(subcommand, after_help = "Example:\n  ctl content put layer.tar")]
    Content(ContentVerb),
    /// Look after leases: what keeps snapshots and blobs from being removed
    #[command(subcommand, visible_alias = "leases", after_help = "Example:\n  ctl lease ls")]
    Lease(LeaseVerb),
    Events(EventsArgs),
    Version(VersionArgs),
    Info(InfoArgs),
    Completion(CompletionArgs),
}

/// Runs and looks after the containers of bosund.
#[derive(Debug, Parser)]
#[command(
    name = "ctl",
    version,
    disable_help_subcommand = true,
    after_help = "Examples:\n  \
        ctl run -d --name web -p 8000:8000 --rootfs / /usr/bin/python3 -m http.server\n  \
        ctl ps -a\n  \
        ctl logs -f web\n\n\
        See `ctl VERB --help` for the flags of a verb."
)]
struct Declared {
    /// Where bosund listens: unix:///PATH, or the path alone; BOSUN_ADDRESS
    #[arg(
        short = 'H',
        long,
        global = true,
        env = "BOSUN_ADDRESS",
        hide_env = true,
        value_name = "ADDRESS",
        default_value = DEFAULT_ADDRESS,
        help_heading = "Global options"
    )]
    address: Address,
    /// The namespace to work in; BOSUN_NAMESPACE
    #[arg(
        long,
        global = true,
        env = "BOSUN_NAMESPACE",
        hide_env = true,
        value_name = "NAME",
        default_value = "default",
        help_heading = "Global options"
    )]
    namespace: Namespace,
    #[command(subcommand)]
    verb: DeclaredVerb,
}

#[derive(Debug, Subcommand)]
enum DeclaredVerb {
    #[command(flatten)]
    Verb(Verb),
    /// The verbs on containers, as docker has them a second time
    #[command(disable_help_flag = true, after_help = "Example:\n  ctl container ls -a")]
    Container(ContainerWords),
}

impl Cli {
    /// Reads a command line, the program's name first.
    pub(crate) fn read(words: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        let Declared { address, namespace, verb } = Declared::read(words)?;
        let words = match verb {
            DeclaredVerb::Verb(verb) => return Ok(Self { address, namespace, verb }),
            DeclaredVerb::Container(ContainerWords { words }) => words,
        };
        let known = ["ctl", "--address", &address.to_string(), "--namespace", namespace.as_str()]
            .map(OsString::from);
        let again = Declared::read(known.into_iter().chain(words.into_iter().map(OsString::from)))?;
        match again.verb {
            DeclaredVerb::Verb(verb @ Verb::OnContainers(_)) => {
                Ok(Self { address: again.address, namespace: again.namespace, verb })
            }
            DeclaredVerb::Verb(_) | DeclaredVerb::Container(_) => {
                let text = "that is no verb on containers: see `ctl --help`";
                Err(Declared::command().error(ErrorKind::InvalidSubcommand, text))
            }
        }
    }

    /// The whole declaration, for completion scripts.
    pub(crate) fn declaration() -> clap::Command {
        Declared::command()
    }
}

impl Declared {
    fn read(words: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        // Never freed: the process is short, and freeing takes a sixth of its time.
        let command = Box::leak(Box::new(Self::command()));
        let mut matches = command.try_get_matches_from_mut(words)?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(command))
    }
}

/// The words after `container`, which are read as if it were not there. Declaring its verbs a
/// second time would cost every start of `ctl` a sixth of its time.
#[derive(Args, Debug)]
pub(crate) struct ContainerWords {
    #[arg(value_name = "VERB", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Show what happens, as it happens
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctl events --filter event=die\n  ctl events --since 10m --until 0s --format json"
)]
pub(crate) struct EventsArgs {
    /// From this moment on: RFC 3339, Unix seconds, or how long ago (10m)
    #[arg(long, value_name = "TIME", value_parser = parse_moment, allow_hyphen_values = true)]
    pub(crate) since: Option<Moment>,
    /// From the event with this number on
    #[arg(long, value_name = "NUMBER", conflicts_with = "since")]
    pub(crate) since_sequence: Option<u64>,
    /// Up to this moment, then end
    #[arg(long, value_name = "TIME", value_parser = parse_moment, allow_hyphen_values = true)]
    pub(crate) until: Option<Moment>,
    /// KEY=VALUE: container, event, type, label; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// A Go template, or json
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
    /// Events of every namespace
    #[arg(long)]
    pub(crate) all_namespaces: bool,
}

/// Show the versions of ctl and of bosund
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl version\n  ctl version --format '{{.Server.Version}}'")]
pub(crate) struct VersionArgs {
    /// A Go template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
}

/// Show the state of bosund and of its machine
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl info\n  ctl info --format '{{.Bosun.Shim}}'")]
pub(crate) struct InfoArgs {
    /// A Go template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
}

/// Print the completion script of a shell
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ctl completion bash > /etc/bash_completion.d/ctl")]
pub(crate) struct CompletionArgs {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    #[test]
    fn the_declaration_is_sound() {
        Cli::declaration().debug_assert();
    }

    fn every_verb(command: &Command, path: &str, check: &mut impl FnMut(&Command, &str)) {
        for verb in command.get_subcommands() {
            let path = format!("{path} {}", verb.get_name());
            check(verb, &path);
            every_verb(verb, &path, check);
        }
    }

    #[test]
    fn every_verb_has_an_example_and_an_explanation() {
        let mut seen = 0;
        every_verb(&Cli::declaration(), "ctl", &mut |verb, path| {
            seen += 1;
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{path} lacks an example");
            assert!(help.contains("ctl "), "{path} lacks an example");
            assert!(verb.get_about().is_some(), "{path} lacks an explanation");
        });
        assert!(seen > 20, "{seen}");
    }

    #[test]
    fn every_example_parses() {
        every_verb(&Cli::declaration(), "ctl", &mut |verb, path| {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().map(str::trim).filter(|line| line.starts_with("ctl ")) {
                // The shell's part is not ours.
                let line = line.split([';', '|', '>']).next().unwrap_or_default();
                let words = shell_words(line);
                if let Err(error) = Cli::read(words.iter().map(OsString::from)) {
                    panic!("{path}: example {words:?}: {error}");
                }
            }
        });
    }

    #[test]
    fn container_stands_before_verbs_on_containers_only() {
        let read = |line: &str| Cli::read(line.split(' ').map(OsString::from));
        for line in
            ["ctl -H /a container ls -aq", "ctl container -H /a ps", "ctl container ps -H /a"]
        {
            let cli = read(line).unwrap();
            assert_eq!(cli.address.to_string(), "unix:///a", "{line}");
            assert!(matches!(cli.verb, Verb::OnContainers(ContainerVerb::Ps(_))), "{line}");
        }
        let run = read("ctl container run --rm -it --rootfs / sh -c x").unwrap();
        assert!(matches!(run.verb, Verb::OnContainers(ContainerVerb::Run(args)) if args.rm));
        for line in ["ctl container info", "ctl container container ps", "ctl container"] {
            assert!(read(line).is_err(), "{line}");
        }
        let help = read("ctl container --help").unwrap_err();
        assert_eq!(help.kind(), ErrorKind::DisplayHelp);
    }

    /// Words at spaces, single quotes respected.
    fn shell_words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for c in line.trim().chars() {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words
    }
}
