//! `run`: a container from its creation to its end.

use clap::Args;
use rustix::process::set_child_subreaper;
use shim_wire::plan::Restore;

use crate::cli::Global;
use crate::container::Container;
use crate::descriptors::Preserved;
use crate::error::Error;
use crate::foreground::{Foreground, Signals};
use crate::launch::{Attended, LaunchArgs, Launched, launch};

/// Create a container, start it, and wait for its end
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  bosun-oci run --bundle /var/lib/job job; echo $?")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    launch: LaunchArgs,
    #[command(flatten)]
    attendance: Attendance,
}

/// Who waits for its end, and what of it stays.
#[derive(Args, Debug)]
pub(super) struct Attendance {
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
    run_to_end(global, &arguments.launch, &arguments.attendance, preserved, None)
}

/// Runs a new container, or one from a checkpoint. The code is the container's.
pub(super) fn run_to_end(
    global: &Global,
    arguments: &LaunchArgs,
    attendance: &Attendance,
    preserved: Preserved,
    restore: Option<Restore>,
) -> Result<u8, Error> {
    if attendance.detach {
        let mut launched = launch(global, arguments, preserved, Attended::Elsewhere, restore)?;
        return match launched.start(arguments) {
            Ok(()) => Ok(0),
            Err(error) => Err(given_up(global, &launched.container, error)),
        };
    }
    if !attendance.no_subreaper {
        set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(Error::system("become a subreaper"))?;
    }
    let signals = Signals::take()?;
    let mut launched = launch(global, arguments, preserved, Attended::Here, restore)?;
    let attendant = match attend_start(&mut launched, signals, arguments) {
        Ok(attendant) => attendant,
        Err(error) => return Err(given_up(global, &launched.container, error)),
    };
    let Launched { container, waiting, lock, restored: _ } = launched;
    drop(lock);
    let code = attendant.attend(waiting.pid, &waiting.pidfd);
    if !attendance.keep {
        remove(global, &container)?;
    }
    Ok(code)
}

/// Starts it, with somebody at its terminal.
fn attend_start(
    launched: &mut Launched,
    signals: Signals,
    arguments: &LaunchArgs,
) -> Result<Foreground, Error> {
    let handed_away = arguments.console_socket.is_some();
    if launched.restored {
        // Its terminal comes with the start.
        launched.start(arguments)?;
        return Foreground::new(signals, &launched.waiting.io, handed_away);
    }
    let attendant = Foreground::new(signals, &launched.waiting.io, handed_away)?;
    launched.start(arguments)?;
    Ok(attendant)
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
