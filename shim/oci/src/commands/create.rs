//! `create`: a container whose first process waits for `start`.

use clap::Args;

use crate::cli::Global;
use crate::error::Error;
use crate::launch::{Attended, LaunchArgs, Launched, launch};

/// Create a container; `start` starts it
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  bosun-oci create --bundle /var/lib/web --pid-file web.pid web")]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    launch: LaunchArgs,
}

pub(crate) fn run(global: &Global, arguments: &CreateArgs) -> Result<(), Error> {
    let preserved = arguments.launch.take_descriptors()?;
    let Launched { container, waiting, lock: _lock, restored: _ } =
        launch(global, &arguments.launch, preserved, Attended::Elsewhere, None)?;
    let handed_over = container
        .gate()
        .listen()
        .and_then(|listener| waiting.hand_over(listener).map_err(Error::from));
    // Its process has ended with the channel, unless it was handed over.
    handed_over.inspect_err(|_| drop(container.remove(global)))
}
