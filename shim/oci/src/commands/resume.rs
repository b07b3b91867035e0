//! `resume`: lets the processes of a paused container go on.

use clap::Args;

use crate::cli::Global;
use crate::container::{Container, Status};
use crate::error::Error;

/// Let the processes of a paused container go on
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  bosun-oci resume web")]
pub(crate) struct ResumeArgs {
    #[arg(value_name = "ID")]
    id: String,
}

pub(crate) fn run(global: &Global, arguments: &ResumeArgs) -> Result<(), Error> {
    let container = Container::find(&global.root, &arguments.id)?;
    let lock = container.lock()?;
    let status = container.status_held(&lock);
    if status != Status::Paused {
        return Err(Error::Status { verb: "resume", id: arguments.id.clone(), status });
    }
    Ok(container.cgroup()?.freeze(false)?)
}
