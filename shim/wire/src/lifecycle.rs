//! The exit protocol: how one run of a container passes from its shim into the daemon's store.
//!
//! Both sides are pure state machines here; the shim and the daemon drive these very types, and
//! `tests/lifecycle_model.rs` explores every interleaving of them with either side crashing between
//! any two steps.
//!
//! ```text
//!  shim    Empty ─▶ Created ─▶ Running ─▶ Draining ─▶ Recording ─▶ Recorded ─▶ Released
//!             │         └──────────┴─ exit ─▲   output    exit.json    Release
//!             └─ abandoned ──────────────────── ended ─── durable ─── from the daemon
//!
//!  daemon  Created ─▶ Starting ─▶ Running ─▶ Exited          durable: Intent { attempt } or
//!             ▲          └── failed ─┘  the exit's commit             Ended { attempt, … }
//!             └──────────── Created                           then, and only then: Release
//! ```
//!
//! The rules, each an assertion of the model:
//!
//! 1. The daemon commits the start's intent before a shim exists.
//! 2. The shim makes `exit.json` durable before it tells anybody.
//! 3. The daemon commits the exit before it releases the shim.
//! 4. What the store says of an exit is what happened, or says that it is unknown.
//! 5. With the daemon up and nothing else happening, every run comes to its end in the store, and
//!    neither shim nor process is left.

use crate::exit::ExitStatus;

/// The shim's side of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShimState {
    /// Listening; no process yet.
    Empty,
    /// The process is cloned and waits before its exec.
    Created,
    /// It was told to go on.
    Running,
    /// It ended; its output has not come to its end yet.
    Draining(ExitStatus),
    /// The log is flushed; the exit record is being made durable.
    Recording(ExitStatus),
    /// The record is durable; whoever waits has been answered.
    Recorded(ExitStatus),
    /// The daemon has committed the exit: the shim lets go of the mount namespace and ends.
    Released,
}

/// What happens to a shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShimEvent {
    /// The process was cloned.
    Created,
    /// The process was told to exec.
    Started,
    /// waitid(2) on the pidfd gave a status.
    Exited(ExitStatus),
    /// All output is in the log, and the log is flushed.
    Drained,
    /// The record is renamed and its directory synced.
    RecordDurable,
    /// The daemon acknowledged the exit.
    Release,
    /// Nobody created a container in time, or Create failed.
    Abandoned,
}

/// What the shim must do on entering a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShimAction {
    /// Kill what is left in the cgroup when the container has no pid namespace of its own, and read
    /// the output to its end.
    Drain,
    /// Write, sync, rename and sync the directory of the exit record.
    WriteRecord(ExitStatus),
    /// Answer those who wait.
    AnswerWaiters(ExitStatus),
    /// Close the mount namespace and end.
    Leave,
}

/// An event that a state has no answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub state: ShimState,
    pub event: ShimEvent,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} is not possible in state {:?}", self.event, self.state)
    }
}

impl std::error::Error for Refused {}

impl ShimState {
    /// The transition for `event`, and what to do on the way.
    ///
    /// # Errors
    /// When the event is not possible in this state, which is then unchanged.
    pub fn step(self, event: ShimEvent) -> Result<(Self, Option<ShimAction>), Refused> {
        let refused = Err(Refused { state: self, event });
        match (self, event) {
            (Self::Empty, ShimEvent::Created) => Ok((Self::Created, None)),
            (Self::Empty, ShimEvent::Abandoned) => Ok((Self::Released, Some(ShimAction::Leave))),
            (Self::Created, ShimEvent::Started) => Ok((Self::Running, None)),
            (Self::Created | Self::Running, ShimEvent::Exited(status)) => {
                Ok((Self::Draining(status), Some(ShimAction::Drain)))
            }
            (Self::Draining(status), ShimEvent::Drained) => {
                Ok((Self::Recording(status), Some(ShimAction::WriteRecord(status))))
            }
            (Self::Recording(status), ShimEvent::RecordDurable) => {
                Ok((Self::Recorded(status), Some(ShimAction::AnswerWaiters(status))))
            }
            (Self::Recorded(_), ShimEvent::Release) => {
                Ok((Self::Released, Some(ShimAction::Leave)))
            }
            (Self::Released, ShimEvent::Release) => Ok((Self::Released, None)),
            (
                Self::Empty,
                ShimEvent::Started
                | ShimEvent::Exited(_)
                | ShimEvent::Drained
                | ShimEvent::RecordDurable
                | ShimEvent::Release,
            )
            | (
                Self::Created,
                ShimEvent::Created
                | ShimEvent::Drained
                | ShimEvent::RecordDurable
                | ShimEvent::Release
                | ShimEvent::Abandoned,
            )
            | (
                Self::Running,
                ShimEvent::Created
                | ShimEvent::Started
                | ShimEvent::Drained
                | ShimEvent::RecordDurable
                | ShimEvent::Release
                | ShimEvent::Abandoned,
            )
            | (
                Self::Draining(_),
                ShimEvent::Created
                | ShimEvent::Started
                | ShimEvent::Exited(_)
                | ShimEvent::RecordDurable
                | ShimEvent::Release
                | ShimEvent::Abandoned,
            )
            | (
                Self::Recording(_),
                ShimEvent::Created
                | ShimEvent::Started
                | ShimEvent::Exited(_)
                | ShimEvent::Drained
                | ShimEvent::Release
                | ShimEvent::Abandoned,
            )
            | (
                Self::Recorded(_),
                ShimEvent::Created
                | ShimEvent::Started
                | ShimEvent::Exited(_)
                | ShimEvent::Drained
                | ShimEvent::RecordDurable
                | ShimEvent::Abandoned,
            )
            | (
                Self::Released,
                ShimEvent::Created
                | ShimEvent::Started
                | ShimEvent::Exited(_)
                | ShimEvent::Drained
                | ShimEvent::RecordDurable
                | ShimEvent::Abandoned,
            ) => refused,
        }
    }

    /// The state on the wire.
    #[must_use]
    pub fn phase(self) -> crate::shim::Phase {
        match self {
            Self::Empty => crate::shim::Phase::Empty,
            Self::Created => crate::shim::Phase::Created,
            Self::Running => crate::shim::Phase::Running,
            Self::Draining(_) => crate::shim::Phase::Draining,
            Self::Recording(_) => crate::shim::Phase::Recording,
            Self::Recorded(_) => crate::shim::Phase::Recorded,
            Self::Released => crate::shim::Phase::Released,
        }
    }
}

/// What the store holds of the last run of a container, durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durable {
    /// Never started, or its last start failed and was undone.
    Created,
    /// It shall run: committed before the shim exists.
    Intent { attempt: u64 },
    /// The run ended.
    Ended { attempt: u64, status: ExitStatus, reason: Reason },
}

/// Why a run ended, when it did not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The process ended; the record is the shim's.
    Exited,
    /// The shim was killed, and the container with it.
    ShimLost,
    /// The machine went down under it.
    HostLost,
}

/// What a daemon that starts finds of a run that its store says is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Evidence {
    /// The shim answers on its socket, with this state.
    pub shim: Option<ShimState>,
    /// The exit record on disk that carries this run's number.
    pub record: Option<ExitStatus>,
    /// The shim had come to life in this boot: its identity file is there.
    pub launched: bool,
    /// The run was begun before the last boot.
    pub other_boot: bool,
}

/// What a daemon must do with a run, seen at its start or when a shim's connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Wait for the exit through the living shim.
    Adopt,
    /// The process never got to its exec: kill the shim, free what there is, and go back to
    /// `Created`. A repeated request starts it again.
    Undo,
    /// Commit this exit, then release the shim, if one lives.
    Commit { status: ExitStatus, reason: Reason },
}

/// The verdict on a run whose durable state is [`Durable::Intent`].
#[must_use]
pub fn recover(evidence: Evidence) -> Verdict {
    match (evidence.record, evidence.shim) {
        (Some(status), _) => Verdict::Commit { status, reason: Reason::Exited },
        (None, Some(ShimState::Empty | ShimState::Created)) => Verdict::Undo,
        (
            None,
            Some(
                ShimState::Running
                | ShimState::Draining(_)
                | ShimState::Recording(_)
                | ShimState::Recorded(_)
                | ShimState::Released,
            ),
        ) => Verdict::Adopt,
        (None, None) if evidence.other_boot => {
            Verdict::Commit { status: ExitStatus::Unknown, reason: Reason::HostLost }
        }
        (None, None) if evidence.launched => {
            Verdict::Commit { status: ExitStatus::Unknown, reason: Reason::ShimLost }
        }
        (None, None) => Verdict::Undo,
    }
}
