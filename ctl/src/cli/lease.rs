//! The verbs on leases: what holds snapshots and blobs.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::flags::{label, parse_span};

#[derive(Debug, Subcommand)]
pub(crate) enum LeaseVerb {
    Create(CreateArgs),
    Ls(LsArgs),
    Rm(RmArgs),
    Add(ResourceArgs),
    Drop(DropArgs),
}

/// What a lease can hold.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    Snapshot,
    Content,
}

/// Make a lease, and print its id
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl lease create\n  ctl lease create --ttl 24h build")]
pub(crate) struct CreateArgs {
    /// How long it lives, for example 24h; for ever when it is left out
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    pub(crate) ttl: Option<Duration>,
    /// Label it: KEY=VALUE or KEY
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// Its id; one is made up otherwise
    #[arg(value_name = "LEASE", default_value = "", hide_default_value = true)]
    pub(crate) id: String,
}

/// List leases, or what one of them holds
#[derive(Args, Debug)]
#[command(visible_alias = "list", after_help = "Examples:\n  ctl lease ls\n  ctl lease ls build")]
pub(crate) struct LsArgs {
    /// Ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// A Go template, "table TEMPLATE", table or json
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
    #[arg(value_name = "LEASE")]
    pub(crate) lease: Option<String>,
}

/// Delete leases; what they held stays, and can be removed
#[derive(Args, Debug)]
#[command(visible_alias = "remove", after_help = "Example:\n  ctl lease rm build")]
pub(crate) struct RmArgs {
    #[arg(value_name = "LEASE", required = true)]
    pub(crate) leases: Vec<String>,
}

/// Let a lease hold a snapshot or a blob
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctl lease add build snapshot base\n  ctl lease add build content DIGEST"
)]
pub(crate) struct ResourceArgs {
    #[arg(value_name = "LEASE")]
    pub(crate) lease: String,
    #[arg(value_name = "KIND")]
    pub(crate) kind: Kind,
    /// A snapshot's key, a blob's digest
    #[arg(value_name = "KEY | DIGEST")]
    pub(crate) id: String,
}

/// Let a lease let go of a snapshot or a blob
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ctl lease drop build snapshot base")]
pub(crate) struct DropArgs {
    #[arg(value_name = "LEASE")]
    pub(crate) lease: String,
    #[arg(value_name = "KIND")]
    pub(crate) kind: Kind,
    /// A snapshot's key, a blob's digest
    #[arg(value_name = "KEY | DIGEST")]
    pub(crate) id: String,
}
