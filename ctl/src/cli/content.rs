//! The verbs on content: blobs by digest, and the ingests that bring them in.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::flags::label;

#[derive(Debug, Subcommand)]
pub(crate) enum ContentVerb {
    Ls(LsArgs),
    Get(GetArgs),
    Put(PutArgs),
    Rm(RmArgs),
    Ingests(IngestsArgs),
    Abort(AbortArgs),
}

/// List blobs
#[derive(Args, Debug)]
#[command(visible_alias = "list", after_help = "Example:\n  ctl content ls")]
pub(crate) struct LsArgs {
    /// Digests only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// A Go template, "table TEMPLATE", table or json
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
}

/// Write a blob, or a part of it, to stdout
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctl content get DIGEST > layer.tar\n  ctl content get --offset 512 --size 512 DIGEST"
)]
pub(crate) struct GetArgs {
    /// From this byte on
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub(crate) offset: u64,
    /// At most so many bytes
    #[arg(long, value_name = "BYTES")]
    pub(crate) size: Option<u64>,
    #[arg(value_name = "DIGEST")]
    pub(crate) digest: String,
}

/// Store a file, or stdin, as a blob, and print its digest
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctl content put layer.tar\n  ctl content put --ref layer --digest DIGEST layer.tar\n\n\
        With --ref, a put that was cut short goes on where it was when it is made again."
)]
pub(crate) struct PutArgs {
    /// Refuse it when its digest is another one
    #[arg(long, value_name = "DIGEST")]
    pub(crate) digest: Option<String>,
    /// Names the ingest, so that it can be resumed
    #[arg(long = "ref", value_name = "NAME", requires = "digest")]
    pub(crate) reference: Option<String>,
    /// Label it: KEY=VALUE or KEY
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// stdin when it is left out, or -
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Remove blobs that no lease holds
#[derive(Args, Debug)]
#[command(visible_alias = "remove", after_help = "Example:\n  ctl content rm DIGEST")]
pub(crate) struct RmArgs {
    #[arg(value_name = "DIGEST", required = true)]
    pub(crate) digests: Vec<String>,
}

/// List what is not a blob yet
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ctl content ingests")]
pub(crate) struct IngestsArgs {
    /// A Go template, "table TEMPLATE", table or json
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
}

/// Drop ingests and their bytes
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ctl content abort layer")]
pub(crate) struct AbortArgs {
    #[arg(value_name = "NAME", required = true)]
    pub(crate) references: Vec<String>,
}
