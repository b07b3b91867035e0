//! The parent's side of a further process in a running container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use shim_cgroup::{Cgroup, Layout};
use shim_sys::clone::Cloned;
use shim_wire::plan::ExecOptions;

use crate::channel::Channel;
use crate::create::{clone_into, hide_from_others};
use crate::error::At;
use crate::namespaces::PidNamespace;
use crate::process::{Unfinished, Waiting, pid_of};
use crate::{Error, Rule, Step, child, stdio};

/// The container to join.
#[derive(Clone, Copy, Debug)]
pub struct ExecTarget<'a> {
    /// The pidfd of its first process.
    pub init: BorrowedFd<'a>,
    /// Its control group, as in [`CreateOptions`](shim_wire::plan::CreateOptions).
    pub cgroup: &'a str,
}

/// Makes a further process of a container, up to its exec: in all the namespaces of the container's
/// first process, in its control groups, and with its root.
///
/// Needs root and a caller with one thread; see [`create`](crate::create()).
///
/// # Errors
/// [`Error::System`] with `ESRCH` when the container has ended; otherwise as for `create`.
pub fn exec(options: &ExecOptions, target: &ExecTarget<'_>) -> Result<Waiting, Error> {
    let process =
        options.process.as_ref().ok_or_else(|| Error::refused("the exec", Rule::NoProcess))?;
    let layout = Layout::detect()?;
    let cgroup = Cgroup::new(&layout, target.cgroup)?;
    let born_into = cgroup.open_unified()?;
    let (ours, theirs) = Channel::pair().at(Step::Channel, "a socket")?;
    let (pipes, child_io) = stdio::make(process.terminal, options.stdin, options.inherit_stdio)?;
    shim_failpoints::step!("shim.exec.before_clone", error);
    hide_from_others()?;
    let clone = |group: Option<&OwnedFd>| {
        clone_into(
            0,
            group.map(AsFd::as_fd),
            Some((PidNamespace::Of(target.init), "the container's processes")),
        )
    };
    let bound = Bound::to(&process.cpus_at_clone)?;
    let mut cloned = clone(born_into.as_ref());
    if matches!(&cloned, Err(Error::System { errno: Errno::BUSY, .. })) {
        // The container has divided its group, so nothing can be in the group itself (cgroups(7),
        // "no internal processes"): where its first process went, others can go.
        cloned = clone(cgroup.open_unified_of(pid_of(target.init)?)?.as_ref());
    }
    let (pid, pidfd) = match cloned? {
        Cloned::Child => {
            drop(ours);
            child::joiner(options, process, target.init, &cgroup, child_io, theirs, pipes)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((theirs, child_io, bound));
    let unfinished = Unfinished::new(pid, pidfd, ours);
    shim_failpoints::step!("shim.exec.after_clone");
    unfinished.finish(pipes, |_| Ok(()))
}

/// The caller, bound to some CPUs until this is dropped.
struct Bound(Option<Vec<u8>>);

impl Bound {
    /// Without any it stays as it is.
    fn to(cpus: &[u8]) -> Result<Self, Error> {
        if cpus.is_empty() {
            return Ok(Self(None));
        }
        let before = shim_sys::sched::affinity().at(Step::Affinity, "the caller")?;
        shim_sys::sched::set_affinity(cpus)
            .at(Step::Affinity, "process.execCPUAffinity.initial")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // It was so a moment ago.
            let _ = shim_sys::sched::set_affinity(before);
        }
    }
}
