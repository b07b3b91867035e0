//! The verbs on the daemon as a whole.

use clap::{Args, Subcommand};

use super::{EventsArgs, InfoArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum SystemVerb {
    Df(DfArgs),
    Prune(PruneArgs),
    Info(InfoArgs),
    Events(EventsArgs),
}

/// Show what takes how much of the disk
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl system df\n  ctl system df -v")]
pub(crate) struct DfArgs {
    /// Each image, container and blob as well
    #[arg(short, long, conflicts_with = "format")]
    pub(crate) verbose: bool,
    /// A Go template, "table TEMPLATE", table or json
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
}

/// Remove containers that don't run, and what nothing reaches then
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl system prune --dry-run\n  ctl system prune -af")]
pub(crate) struct PruneArgs {
    /// Also the images that no container was made from
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Don't ask
    #[arg(short, long)]
    pub(crate) force: bool,
}
