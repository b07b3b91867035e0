//! `ctl completion`.

use crate::cli::{Cli, CompletionArgs};
use crate::error::Error;
use crate::output;

pub(super) fn run(args: &CompletionArgs) -> Result<u8, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::declaration(), "ctl", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}
