//! `run`: a container from its creation to its end.

use clap::Args;
use rustix::process::set_child_subreaper;

use crate::cli::Global;
use crate::container::Container;
use crate::error::Error;
use crate::foreground::{Foreground, Signals};
use crate::launch::{Attended, LaunchArgs, Launched, launch};

/// Create a container, start it, and wait for its end
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  bosun-oci run --bundle /var/lib/job job; echo $?")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    launch: LaunchArgs,
    /// Don't wait
    #[arg(short, long)]
    detach: bool,
    /// Keep what is left of the container after its end
    #[arg(long)]
    keep: bool,
    /// Leave orphans of the container to whoever takes them
    #[arg(long)]
    no_subreaper: bool,
}

/// The code is the container's.
pub(crate) fn run(global: &Global, arguments: &RunArgs) -> Result<u8, Error> {
    let preserved = arguments.launch.take_descriptors()?;
    if arguments.detach {
        let Launched { container, mut waiting, lock: _lock } =
            launch(global, &arguments.launch, preserved, Attended::Elsewhere)?;
        let started = waiting.start().map_err(Error::from);
        return match started.and_then(|()| container.run_poststart()) {
            Ok(()) => Ok(0),
            Err(error) => Err(given_up(global, &container, error)),
        };
    }
    if !arguments.no_subreaper {
        set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(Error::system("become a subreaper"))?;
    }
    let signals = Signals::take()?;
    let Launched { container, mut waiting, lock } =
        launch(global, &arguments.launch, preserved, Attended::Here)?;
    let handed_away = arguments.launch.console_socket.is_some();
    let attendant = Foreground::new(signals, &waiting.io, handed_away);
    let started = attendant.and_then(|attendant| {
        waiting.start()?;
        container.run_poststart()?;
        Ok(attendant)
    });
    let attendant = match started {
        Ok(attendant) => attendant,
        Err(error) => return Err(given_up(global, &container, error)),
    };
    drop(lock);
    let code = attendant.attend(waiting.pid, &waiting.pidfd);
    if !arguments.keep {
        remove(global, &container)?;
    }
    Ok(code)
}

fn remove(global: &Global, container: &Container) -> Result<(), Error> {
    match container.lock().and_then(|_lock| container.remove(global)) {
        // Somebody was quicker.
        Err(Error::NoContainer { .. }) => Ok(()),
        done => done,
    }
}

/// Removes a container whose start failed; its process has ended or is about to.
fn given_up(global: &Global, container: &Container, error: Error) -> Error {
    // The error that led here is the one to tell.
    let _ = container.remove(global);
    error
}
