//! `delete`: removes what is left of a container.

use clap::Args;

use crate::cli::Global;
use crate::container::{Container, Status};
use crate::error::Error;

/// Remove a container that has ended, or was never started
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  bosun-oci delete web\n  bosun-oci delete --force web")]
pub(crate) struct DeleteArgs {
    /// Kill it first when it runs; none at all is removed already
    #[arg(short, long)]
    force: bool,
    #[arg(value_name = "ID")]
    id: String,
}

pub(crate) fn run(global: &Global, arguments: &DeleteArgs) -> Result<(), Error> {
    match delete(global, arguments) {
        Err(Error::NoContainer { id }) if arguments.force => Container::sweep(&global.root, &id),
        done => done,
    }
}

fn delete(global: &Global, arguments: &DeleteArgs) -> Result<(), Error> {
    let container = Container::find(&global.root, &arguments.id)?;
    let lock = match container.lock() {
        // A command that hangs with it is no reason to keep it.
        Err(Error::InUse { .. }) if arguments.force => None,
        lock => Some(lock?),
    };
    let status = lock.as_ref().map_or(Status::Running, |lock| container.status_held(lock));
    // One that was never started holds nothing that anybody could miss: runc ends it, too.
    let ends = matches!(status, Status::Stopped | Status::Created);
    if !ends && !arguments.force {
        return Err(Error::NotStopped { id: arguments.id.clone(), status });
    }
    container.remove(global)
}
