//! The command line, declared: verbs, flags, help. No behaviour.
//!
//! Names, letters and defaults are docker's. `run` and `create` have most of them and live in
//! [`create`], the other verbs on containers in [`container`], snapshots in [`snapshot`].

pub(crate) mod container;
pub(crate) mod create;
pub(crate) mod snapshot;

use clap::{Args, Parser, Subcommand};

use crate::client::{Address, DEFAULT_ADDRESS, Namespace};
use crate::flags::{Moment, parse_moment};
use container::ContainerVerb;
use snapshot::SnapshotVerb;

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
pub(crate) struct Cli {
    /// Where bosund listens: unix:///PATH, or the path alone
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
    pub(crate) address: Address,
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
    pub(crate) namespace: Namespace,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    #[command(flatten)]
    Container(ContainerVerb),
    /// The verbs on containers, as docker has them a second time
    #[command(subcommand, name = "container", after_help = "Example:\n  ctl container ls -a")]
    Containers(ContainerVerb),
    /// Look after snapshots: the trees that containers stand on
    #[command(subcommand, visible_alias = "snapshots", after_help = "Example:\n  ctl snapshot ls")]
    Snapshot(SnapshotVerb),
    Events(EventsArgs),
    Version(VersionArgs),
    Info(InfoArgs),
    Completion(CompletionArgs),
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
    use clap::{Command, CommandFactory};

    use super::*;

    #[test]
    fn the_declaration_is_sound() {
        Cli::command().debug_assert();
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
        every_verb(&Cli::command(), "ctl", &mut |verb, path| {
            seen += 1;
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{path} lacks an example");
            assert!(help.contains("ctl "), "{path} lacks an example");
            assert!(verb.get_about().is_some(), "{path} lacks an explanation");
        });
        assert!(seen > 30, "{seen}");
    }

    #[test]
    fn every_example_parses() {
        every_verb(&Cli::command(), "ctl", &mut |verb, path| {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().map(str::trim).filter(|line| line.starts_with("ctl ")) {
                // The shell's part is not ours.
                let line = line.split([';', '|', '>']).next().unwrap_or_default();
                let words = shell_words(line);
                if let Err(error) = Cli::try_parse_from(&words) {
                    panic!("{path}: example {words:?}: {error}");
                }
            }
        });
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
