//! `start`: lets the first process of a created container execute its program.

use clap::Args;

use crate::cli::Global;
use crate::container::{Container, Status};
use crate::error::Error;

/// Start a created container
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  bosun-oci start web")]
pub(crate) struct StartArgs {
    #[arg(value_name = "ID")]
    id: String,
}

pub(crate) fn run(global: &Global, arguments: &StartArgs) -> Result<(), Error> {
    let container = Container::find(&global.root, &arguments.id)?;
    let lock = container.lock()?;
    let status = container.status_held(&lock);
    if status != Status::Created {
        return Err(Error::Status { verb: "start", id: arguments.id.clone(), status });
    }
    let gate = container.gate();
    let init = container.init();
    shim_runtime::start_at(gate.connect()?).inspect_err(|_| {
        // Its process ends by itself.
        if let Some(init) = &init {
            init.settle();
        }
    })?;
    // One that is left behind leads to nobody.
    let _ = gate.remove();
    container.run_poststart()
}
