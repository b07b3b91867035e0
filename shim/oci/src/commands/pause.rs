//! `pause`: lets every process of a container stand still.

use std::time::{Duration, Instant};

use clap::Args;

use crate::cli::Global;
use crate::container::{Container, Status};
use crate::error::Error;

/// How long the processes may take until they stand still: one in a system call that can't be
/// interrupted does not.
const PATIENCE: Duration = Duration::from_secs(10);

/// Let the processes of a container stand still
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  bosun-oci pause web")]
pub(crate) struct PauseArgs {
    #[arg(value_name = "ID")]
    id: String,
}

pub(crate) fn run(global: &Global, arguments: &PauseArgs) -> Result<(), Error> {
    let container = Container::find(&global.root, &arguments.id)?;
    let lock = container.lock()?;
    let status = container.status_held(&lock);
    if !matches!(status, Status::Running | Status::Created) {
        return Err(Error::Status { verb: "pause", id: arguments.id.clone(), status });
    }
    Ok(container.cgroup()?.freeze_until(Instant::now() + PATIENCE)?)
}
