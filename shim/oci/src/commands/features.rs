//! `features`: what this runtime can do, as the specification's `features.md` has it.

use clap::Args;

use super::print_json;
use crate::error::Error;

/// Print what this runtime can do, as JSON
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  bosun-oci features")]
pub(crate) struct FeaturesArgs {}

pub(crate) fn run() -> Result<(), Error> {
    print_json(&shim_plan::features::document())
}
