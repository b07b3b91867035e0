//! `kill`: sends a signal to a container's first process, or to all of them.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};

use clap::Args;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use shim_cgroup::Cgroup;
use shim_sys::pidfd::send_signal;

use crate::cli::Global;
use crate::container::{Container, Status};
use crate::error::Error;
use crate::signal;

/// Send a signal to the first process of a container
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  bosun-oci kill web\n  bosun-oci kill web KILL\n  bosun-oci kill --all web 9"
)]
pub(crate) struct KillArgs {
    /// To every process of the container
    #[arg(short, long)]
    all: bool,
    #[arg(value_name = "ID")]
    id: String,
    /// A name or a number
    #[arg(value_name = "SIGNAL", default_value = "TERM")]
    signal: String,
}

pub(crate) fn run(global: &Global, arguments: &KillArgs) -> Result<(), Error> {
    let signal = signal::parse(&arguments.signal)?;
    let container = Container::find(&global.root, &arguments.id)?;
    let paused = container.status() == Status::Paused;
    if arguments.all {
        // Also what outlived the first one, without a pid namespace of its own.
        to_all(&container.cgroup()?, signal)?;
    } else {
        let init = container.living()?;
        match send_signal(init.pidfd.as_fd(), signal) {
            Err(Errno::SRCH) => return Err(Error::NotRunning { id: arguments.id.clone() }),
            sent => sent.map_err(Error::system("send the signal"))?,
        }
    }
    if paused && signal == signal::KILL {
        // What stands still in a v1 group does not even die.
        container.cgroup()?.freeze(false)?;
    }
    Ok(())
}

/// To every process that is in a group now. A number counts only if it is in the group after what it
/// means was pinned: otherwise it was reused meanwhile.
fn to_all(cgroup: &Cgroup, signal: i32) -> Result<(), Error> {
    let pinned: Vec<(i32, OwnedFd)> = cgroup
        .procs()?
        .into_iter()
        .filter_map(|pid| {
            let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
            Some((pid, pidfd))
        })
        .collect();
    let still_there: BTreeSet<i32> = cgroup.procs()?.into_iter().collect();
    for (_, pidfd) in pinned.iter().filter(|(pid, _)| still_there.contains(pid)) {
        match send_signal(pidfd.as_fd(), signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(Error::system("send the signal")(errno)),
        }
    }
    Ok(())
}
