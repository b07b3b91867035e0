//! One verb per file.

mod features;
mod spec;

use std::process::ExitCode;

use crate::cli::{Cli, Verb};
use crate::error::Error;

/// Does what the command line says; the code is the program's.
///
/// # Errors
/// Those of the verb.
pub(crate) fn run(cli: &Cli) -> Result<ExitCode, Error> {
    match &cli.verb {
        Verb::Spec(arguments) => spec::run(arguments).map(|()| ExitCode::SUCCESS),
        Verb::Features => features::run().map(|()| ExitCode::SUCCESS),
    }
}
