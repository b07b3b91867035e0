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
//! Further processes are [`exec`](crate::exec)'s, the way from an end to nothing is
//! [`removal`](crate::removal)'s. The rules, each an assertion of the model:
//!
//! 1. The daemon commits the start's intent before a shim exists.
//! 2. The shim makes `exit.json` durable before it tells anybody.
//! 3. The daemon commits the exit before it releases the shim.
//! 4. What the store says of an exit is what happened, or says that it is unknown; and it says so only
//!    of what is recorded nowhere. A record speaks of the run whose number it carries, and of no other.
//! 5. With the daemon up and nothing else happening, every run comes to its end in the store, and
//!    neither shim nor process is left.
//! 6. A run that got to its exec is ended, never undone, but where its shim says that the start failed.

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
    Created { attempts: u64 },
    /// It shall run: committed before the shim exists.
    Intent { attempt: u64 },
    /// The run ended.
    Ended { attempt: u64, status: ExitStatus, reason: Reason },
}

impl Durable {
    /// How often it was started.
    #[must_use]
    pub fn attempts(self) -> u64 {
        match self {
            Self::Created { attempts } => attempts,
            Self::Intent { attempt } | Self::Ended { attempt, .. } => attempt,
        }
    }

    /// The number of its next run: never one that was used before, whatever became of that run.
    #[must_use]
    pub fn next_attempt(self) -> u64 {
        self.attempts() + 1
    }
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

/// A shim that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Living {
    /// The run that it serves; 0 before Create.
    pub attempt: u64,
    pub state: ShimState,
}

/// What an exit record says, whichever run's it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Recorded {
    pub attempt: u64,
    pub status: ExitStatus,
}

/// What a daemon that starts finds of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Evidence {
    /// Answers on its socket. One that lives and does not answer is killed before the record is read:
    /// it might write that afterwards.
    pub shim: Option<Living>,
    /// The exit record on disk.
    pub record: Option<Recorded>,
    /// The shim had come to life in this boot: its identity file is there.
    pub launched: bool,
    /// The run was begun before the last boot.
    pub other_boot: bool,
}

/// What a daemon must do with a container, seen at its start or when a shim's connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Nothing is going on: what an earlier run left is taken apart, a shim that waits is released.
    Settle,
    /// Wait for the exit through the living shim.
    Adopt,
    /// The process never got to its exec: kill the shim, free what there is, and go back to
    /// `Created`. A repeated request starts it again.
    Undo,
    /// Commit this exit, then release the shim, if one lives.
    Commit { status: ExitStatus, reason: Reason },
}

/// The verdict of a daemon that starts.
#[must_use]
pub fn take_up(durable: Durable, evidence: Evidence) -> Verdict {
    match durable {
        Durable::Created { .. } | Durable::Ended { .. } => Verdict::Settle,
        Durable::Intent { attempt } => take_up_run(attempt, evidence),
    }
}

fn take_up_run(attempt: u64, evidence: Evidence) -> Verdict {
    // A shim that still stands there for an earlier run is none of this one's.
    let shim = evidence.shim.filter(|shim| shim.attempt == attempt || shim.attempt == 0);
    let launched = evidence.launched && shim == evidence.shim;
    match (status_of(attempt, evidence.record), shim.map(|shim| shim.state)) {
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
        (None, None) if launched => LOST,
        (None, None) => Verdict::Undo,
    }
}

const LOST: Verdict = Verdict::Commit { status: ExitStatus::Unknown, reason: Reason::ShimLost };

fn status_of(attempt: u64, record: Option<Recorded>) -> Option<ExitStatus> {
    record.filter(|record| record.attempt == attempt).map(|record| record.status)
}

/// Whose word counts when a run has ended under the eyes of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Witness {
    Record,
    /// The record can't be read, but the shim has said how it ended.
    Shim,
    /// Nobody is left. The container is killed; its code is known only to who was given it to reap.
    Nobody,
}

/// Who tells how a run ended. The record must be read when nobody can write it any more: after the
/// announcement, or after the shim's death.
#[must_use]
pub fn witness(attempt: u64, record: Option<Recorded>, announced: bool) -> Witness {
    match (status_of(attempt, record), announced) {
        (Some(_), _) => Witness::Record,
        (None, true) => Witness::Shim,
        (None, false) => Witness::Nobody,
    }
}

/// How far a start got that failed under a daemon that lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    /// The shim was not told to start the process, or has said that it could not.
    No,
    /// It was told, and its answer never came: nobody knows whether the process got to its exec.
    Unanswered,
}

/// The verdict on a start that failed, once its shim is dead.
#[must_use]
pub fn failed_start(attempt: u64, told: Told, record: Option<Recorded>) -> Verdict {
    match (told, status_of(attempt, record)) {
        (Told::No, _) => Verdict::Undo,
        (Told::Unanswered, Some(status)) => Verdict::Commit { status, reason: Reason::Exited },
        (Told::Unanswered, None) => LOST,
    }
}
