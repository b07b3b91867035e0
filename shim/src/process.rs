//! The processes of the container: its first one and the execs.
//!
//! ```text
//!  exec    Created ── Start ─▶ Running ── pidfd ─▶ Draining ── output read ─▶ Exited ── Delete
//! ```
//!
//! The transitions are [`shim_wire::exec::ExecState`]'s; here is what a state owns. The first process'
//! states are [`shim_wire::lifecycle::ShimState`]; what it owns is in
//! [`Container`](crate::container::Container). A process is known by its pidfd; its pid is only ever
//! shown.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use shim_wire::containerd::TaskIo;
use shim_wire::exec::{self, ExecEvent};
use shim_wire::exit::{ExitStatus, Timestamp};
use shim_wire::plan::ExecOptions;

use crate::stdio::Stdio;

/// Names a process of this shim; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u64);

impl Key {
    /// The container's first process.
    pub(crate) const INIT: Self = Self(0);

    /// The key of an exec; `serial` counts from 1.
    pub(crate) fn exec(serial: u64) -> Self {
        Self(serial)
    }
}

/// A call that is answered when a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) connection: u64,
    pub(crate) stream: u32,
}

/// How and when a process ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exit {
    pub(crate) status: ExitStatus,
    pub(crate) at: Timestamp,
}

/// A process that was cloned and not waited for yet.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: u32,
    /// `None` for a stock shim's child, of whose end that one tells.
    pidfd: Option<OwnedFd>,
}

impl Child {
    pub(crate) fn new(pid: u32, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd: Some(pidfd) }
    }

    /// A stock shim's.
    pub(crate) fn elsewhere(pid: u32) -> Self {
        Self { pid, pidfd: None }
    }

    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }
}

/// Sends a signal by its number.
///
/// # Errors
/// `ESRCH` when the process has ended, `EINVAL` when there is no such signal.
pub(crate) fn signal(pidfd: BorrowedFd<'_>, signal: u32) -> Result<(), Errno> {
    let signal = i32::try_from(signal).map_err(|_| Errno::INVAL)?;
    shim_sys::pidfd::send_signal(pidfd, signal)
}

/// How a child ended; `None` when it has not.
///
/// # Errors
/// Those of waitid(2).
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> Result<Option<ExitStatus>, Errno> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let Some(status) = waitid(WaitId::PidFd(pidfd), options)? else { return Ok(None) };
    let byte = |number: i32| u8::try_from(number).ok();
    let code = status.exit_status().and_then(byte).map(ExitStatus::Code);
    let signal = status.terminating_signal().and_then(byte).map(ExitStatus::Signal);
    Ok(Some(code.or(signal).unwrap_or(ExitStatus::Unknown)))
}

/// A further process of the container.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) key: Key,
    pub(crate) id: String,
    pub(crate) state: ExecState,
    pub(crate) waiters: Vec<Waiter>,
    /// Where a client of containerd wants its streams.
    pub(crate) io: Option<Box<TaskIo>>,
}

#[derive(Debug)]
pub(crate) enum ExecState {
    Created(Box<ExecOptions>),
    Running {
        child: Child,
        stdio: Stdio,
    },
    /// It ended; its output has not been read to its end yet.
    Draining {
        pid: u32,
        exit: Exit,
        stdio: Stdio,
    },
    /// It ended, and who waited for it knows. What it left running may still hold its streams: they
    /// are read and forgotten, so that nothing gets stuck or killed by them.
    Exited {
        pid: u32,
        exit: Exit,
        stdio: Stdio,
    },
    /// Nobody knows its id any more; its streams are still read and forgotten.
    Deleted {
        stdio: Stdio,
    },
}

impl Exec {
    /// Its streams, from its start on.
    pub(crate) fn stdio(&self) -> Option<&Stdio> {
        match &self.state {
            ExecState::Created(_) => None,
            ExecState::Running { stdio, .. }
            | ExecState::Draining { stdio, .. }
            | ExecState::Exited { stdio, .. }
            | ExecState::Deleted { stdio } => Some(stdio),
        }
    }

    pub(crate) fn stdio_mut(&mut self) -> Option<&mut Stdio> {
        match &mut self.state {
            ExecState::Created(_) => None,
            ExecState::Running { stdio, .. }
            | ExecState::Draining { stdio, .. }
            | ExecState::Exited { stdio, .. }
            | ExecState::Deleted { stdio } => Some(stdio),
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        matches!(self.state, ExecState::Draining { .. })
    }

    /// Its state, without what it owns.
    pub(crate) fn phase(&self) -> exec::ExecState {
        match &self.state {
            ExecState::Created(_) => exec::ExecState::Created,
            ExecState::Running { .. } => exec::ExecState::Running,
            ExecState::Draining { exit, .. } => exec::ExecState::Draining(exit.status),
            ExecState::Exited { exit, .. } => exec::ExecState::Exited(exit.status),
            ExecState::Deleted { .. } => exec::ExecState::Deleted,
        }
    }

    /// The exit, once it may be told.
    pub(crate) fn exit(&self) -> Option<Exit> {
        match &self.state {
            ExecState::Draining { exit, .. } | ExecState::Exited { exit, .. } => {
                self.phase().told().map(|_| *exit)
            }
            ExecState::Created(_) | ExecState::Running { .. } | ExecState::Deleted { .. } => None,
        }
    }

    /// Whether it has ended, and its exit may be told.
    pub(crate) fn is_drained(&self) -> bool {
        match self.state {
            ExecState::Exited { .. } | ExecState::Deleted { .. } => true,
            ExecState::Created(_) | ExecState::Running { .. } | ExecState::Draining { .. } => false,
        }
    }

    /// 0 before its start.
    pub(crate) fn pid(&self) -> u32 {
        match &self.state {
            ExecState::Created(_) | ExecState::Deleted { .. } => 0,
            ExecState::Running { child, .. } => child.pid,
            ExecState::Draining { pid, .. } | ExecState::Exited { pid, .. } => *pid,
        }
    }

    /// The process ended. Unchanged when that is not possible.
    pub(crate) fn ended(self, exit: Exit) -> Self {
        let next = self.phase().step(ExecEvent::Exited(exit.status));
        match (next, self.state) {
            (Ok(_), ExecState::Running { child, mut stdio }) => {
                stdio.process_ended();
                Self { state: ExecState::Draining { pid: child.pid, exit, stdio }, ..self }
            }
            (_, state) => Self { state, ..self },
        }
    }

    /// Its output was read to the end. Unchanged when that is not possible.
    pub(crate) fn drained(self) -> Self {
        let next = self.phase().step(ExecEvent::Drained);
        match (next, self.state) {
            (Ok(_), ExecState::Draining { pid, exit, stdio }) => {
                Self { state: ExecState::Exited { pid, exit, stdio }, ..self }
            }
            (_, state) => Self { state, ..self },
        }
    }

    /// Whether a client has not taken everything that was said.
    pub(crate) fn has_unsent(&self) -> bool {
        self.stdio().is_some_and(|stdio| !stdio.ends.sinks.is_empty())
    }

    /// Whether nobody knows it and nothing of it is left to be read.
    pub(crate) fn is_forgotten(&self) -> bool {
        match &self.state {
            ExecState::Deleted { stdio } => stdio.outputs.is_empty() && !self.has_unsent(),
            ExecState::Created(_)
            | ExecState::Running { .. }
            | ExecState::Draining { .. }
            | ExecState::Exited { .. } => false,
        }
    }

    /// What is left of it once nobody may ask for it: its streams, if something still holds them.
    pub(crate) fn deleted(self) -> Option<Self> {
        match self.state {
            ExecState::Exited { stdio, .. } => {
                let state = ExecState::Deleted { stdio };
                let left = Self { state, id: String::new(), io: None, ..self };
                (!left.is_forgotten()).then_some(left)
            }
            ExecState::Created(_)
            | ExecState::Running { .. }
            | ExecState::Draining { .. }
            | ExecState::Deleted { .. } => None,
        }
    }
}
