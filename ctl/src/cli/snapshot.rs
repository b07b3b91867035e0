//! The verbs on snapshots: containerd's model, as `ctr snapshots` names it.

use clap::{Args, Subcommand};

use crate::flags::label;

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotVerb {
    Ls(LsArgs),
    Inspect(InspectArgs),
    Usage(UsageArgs),
    Rm(RmArgs),
    Prepare(PrepareArgs),
    View(PrepareArgs),
    Commit(CommitArgs),
    Mounts(MountsArgs),
}

/// List snapshots
#[derive(Args, Debug)]
#[command(visible_alias = "list", after_help = "Example:\n  ctl snapshot ls")]
pub(crate) struct LsArgs {
    /// Keys only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// A Go template, "table TEMPLATE", table or json
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
}

/// Show everything about snapshots, in JSON
#[derive(Args, Debug)]
#[command(
    visible_alias = "info",
    after_help = "Example:\n  ctl snapshot inspect -f '{{.Kind}}' base"
)]
pub(crate) struct InspectArgs {
    /// A Go template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
    #[arg(value_name = "KEY", required = true)]
    pub(crate) keys: Vec<String>,
}

/// Show what snapshots take up on disk, without their parents
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl snapshot usage\n  ctl snapshot usage base")]
pub(crate) struct UsageArgs {
    /// Bytes, not rounded
    #[arg(short, long)]
    pub(crate) bytes: bool,
    /// All of them when none is given
    #[arg(value_name = "KEY")]
    pub(crate) keys: Vec<String>,
}

/// Remove snapshots that nothing stands on
#[derive(Args, Debug)]
#[command(visible_alias = "remove", after_help = "Example:\n  ctl snapshot rm scratch")]
pub(crate) struct RmArgs {
    #[arg(value_name = "KEY", required = true)]
    pub(crate) keys: Vec<String>,
}

/// Make a snapshot on a committed one, on a directory, or on nothing, and print its mounts
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctl snapshot prepare scratch base\n  ctl snapshot prepare --directory /srv/tree scratch"
)]
pub(crate) struct PrepareArgs {
    /// A directory of the host to stand on
    #[arg(long, value_name = "DIR", conflicts_with = "parent")]
    pub(crate) directory: Option<String>,
    /// Label it: KEY=VALUE or KEY
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// The name of a committed snapshot
    #[arg(value_name = "PARENT")]
    pub(crate) parent: Option<String>,
}

/// Make a writable snapshot a committed one, which others can stand on
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ctl snapshot commit base scratch")]
pub(crate) struct CommitArgs {
    /// Label it: KEY=VALUE or KEY
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
}

/// Print the commands that mount a snapshot
#[derive(Args, Debug)]
#[command(
    visible_alias = "mount",
    after_help = "Example:\n  ctl snapshot mounts /mnt scratch | sh"
)]
pub(crate) struct MountsArgs {
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
}
