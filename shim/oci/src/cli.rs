//! The command line: runc's verbs and flags.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, Parser, ValueEnum};

use crate::commands::Verb;
use crate::error::Error;
use crate::report;

/// An OCI runtime with runc's command line
#[derive(Debug, Parser)]
#[command(
    name = "bosun-oci",
    version = VERSION.as_str(),
    disable_version_flag = true,
    disable_help_subcommand = true,
    after_help = "Example:\n  bosun-oci spec"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What stands before the verb.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Where the state of containers is kept
    #[arg(long, value_name = "DIR", default_value = "/run/bosun-oci")]
    pub(crate) root: PathBuf,
    /// Where errors are written to, beside standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Of what is written there
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Say in the log what is done
    #[arg(long)]
    pub(crate) debug: bool,
    /// Let systemd make control groups: linux.cgroupsPath is then SLICE:PREFIX:NAME
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Refused unless `false` or `auto`: containers are root's
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    rootless: String,
    /// Of runc before 1.2; passed over, for criu is found by PATH
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) criu: Option<PathBuf>,
    /// Print the versions of this, of the specification and of libseccomp
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl Cli {
    /// # Errors
    /// clap's, help and version among them.
    pub(crate) fn read(words: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(words)
    }
}

impl Global {
    /// # Errors
    /// [`Error::Refused`] for what no verb can honour.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !matches!(self.rootless.as_str(), "false" | "auto") {
            return Err(Error::Refused { flag: "--rootless", why: crate::error::ROOTLESS });
        }
        self.log.as_deref().map_or(Ok(()), report::check_log)
    }
}

/// Says what is wrong with a command line, or what was asked of it.
pub(crate) fn explain(error: &clap::Error) -> ExitCode {
    // Nobody to tell when standard output is gone.
    let _ = error.print();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The runtime specification that this follows.
pub(crate) const SPEC_VERSION: &str = "1.3.0";

/// What `--version` prints behind the name; callers look for `spec: `.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let libseccomp = libseccomp::ScmpVersion::current()
        .map_or_else(|_| "unknown".to_owned(), |version| version.to_string());
    format!("{}\nspec: {SPEC_VERSION}\nlibseccomp: {libseccomp}", env!("CARGO_PKG_VERSION"))
});

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_verb_is_described() {
        let mut command = Cli::command();
        let help = command.render_help().to_string();
        assert!(help.contains("  features    Print what this runtime can do, as JSON\n"), "{help}");
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let name = verb.get_name();
            assert!(verb.get_about().is_some(), "{name} has no description");
            assert!(verb.get_after_help().is_some(), "{name} has no example");
        }
    }
}
