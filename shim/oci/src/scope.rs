//! systemd as the manager of a container's group (`--systemd-cgroup`): the group is a scope that systemd
//! makes around a process, so one of ours stands in until the container's own is there. Of a container
//! that a shim makes, this whole program is it (`lower scope`).

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use shim_cgroup::Cgroup;
use shim_plan::Scope;
use shim_sys::clone::{Cloned, clone3};
use shim_sys::exec::exit_now;
use shim_sys::pidfd::send_signal;
use shim_systemd::Manager;
use shim_wire::plan::Resources;

use crate::ending;
use crate::error::Error;
use crate::signal;

/// Has systemd make a scope. The group is there as long as what is returned, or another process in
/// it, lives.
///
/// # Errors
/// systemd's, and that there is none.
pub(crate) fn start(scope: &Scope, resources: &Resources, unified: bool) -> Result<StandIn, Error> {
    let mut manager = Manager::connect()?;
    let stand_in = StandIn::new()?;
    let (unit, slice) = (&scope.unit, &scope.slice);
    manager.start(unit, slice, stand_in.pid.unsigned_abs(), resources, unified)?;
    Ok(stand_in)
}

/// Has systemd make a scope around this process, whose end is the scope's then.
///
/// # Errors
/// systemd's, and that there is none.
pub(crate) fn enter(
    unit: &str,
    slice: &str,
    resources: &Resources,
    unified: bool,
) -> Result<(), Error> {
    Ok(Manager::connect()?.start(unit, slice, std::process::id(), resources, unified)?)
}

/// Has systemd forget a scope.
///
/// # Errors
/// systemd's.
pub(crate) fn stop(unit: &str) -> Result<(), Error> {
    Ok(Manager::connect()?.stop(unit)?)
}

/// Tells systemd the limits of a scope after an update of its group, so that a reload keeps them.
///
/// # Errors
/// systemd's.
pub(crate) fn set(unit: &str, resources: &Resources, cgroup: &Cgroup) -> Result<(), Error> {
    let group = cgroup.paths().into_iter().next().filter(|_| cgroup.layout().is_v2());
    Ok(Manager::connect()?.set(unit, resources, group.as_deref())?)
}

/// A process that waits. It ends when this is dropped, and when this program is killed.
#[derive(Debug)]
pub(crate) struct StandIn {
    pid: i32,
    pidfd: OwnedFd,
    #[expect(dead_code, reason = "its end is what the process waits for")]
    alive: OwnedFd,
}

impl StandIn {
    fn new() -> Result<Self, Error> {
        let failed = Error::system("make a process for the scope");
        let (waits, alive) =
            pipe_with(PipeFlags::CLOEXEC).map_err(Error::system("make a pipe for the scope"))?;
        match clone3(0, None).map_err(failed)? {
            Cloned::Child => {
                drop(alive);
                let _ = rustix::io::read(&waits, &mut [0_u8; 1]);
                exit_now(0)
            }
            Cloned::Parent { pid, pidfd } => Ok(Self { pid, pidfd, alive }),
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // Not by the pipe: the container's process has a copy of its end until its exec.
        let _ = send_signal(self.pidfd.as_fd(), signal::KILL);
        ending::reap(&self.pidfd);
    }
}
