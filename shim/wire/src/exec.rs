//! Execs: the further processes of a container, as pure states that the shim drives.
//!
//! ```text
//!  Created ── Start ─▶ Running ── exit ─▶ Draining ── output read ─▶ Exited ── Delete ─▶ Deleted
//!     └───────────────────────────── Delete ──────────────────────────────────────────▶
//! ```
//!
//! Nothing of an exec is durable: its status lives in the shim, from its end until it is deleted. The
//! rules, each an assertion of the model (`tests/lifecycle_model`):
//!
//! 1. Who waits for an exec is told how it ended, or that its shim is gone; never anything else.
//! 2. The ends of execs are told before the end of the container ([`may_end`]).
//! 3. An exec that its daemon can't delete any more is deleted by the next one, at once or at its end.

use crate::exit::ExitStatus;
use crate::lifecycle::ShimState;

/// Where an exec is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExecState {
    /// Known, and not started.
    Created,
    Running,
    /// It ended; its output has not been read to its end.
    Draining(ExitStatus),
    /// Whoever waits has been told.
    Exited(ExitStatus),
    /// Nobody knows its id any more.
    Deleted,
}

/// What happens to an exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExecEvent {
    Started,
    Exited(ExitStatus),
    Drained,
    Delete,
}

/// An event that a state has no answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub state: ExecState,
    pub event: ExecEvent,
}

impl ExecState {
    /// The transition for `event`.
    ///
    /// # Errors
    /// When the event is not possible in this state, which is then unchanged.
    pub fn step(self, event: ExecEvent) -> Result<Self, Refused> {
        match (self, event) {
            (Self::Created, ExecEvent::Started) => Ok(Self::Running),
            (Self::Running, ExecEvent::Exited(status)) => Ok(Self::Draining(status)),
            (Self::Draining(status), ExecEvent::Drained) => Ok(Self::Exited(status)),
            (Self::Created | Self::Exited(_), ExecEvent::Delete) => Ok(Self::Deleted),
            (Self::Created, ExecEvent::Exited(_) | ExecEvent::Drained)
            | (Self::Running, ExecEvent::Started | ExecEvent::Drained | ExecEvent::Delete)
            | (Self::Draining(_), ExecEvent::Started | ExecEvent::Exited(_) | ExecEvent::Delete)
            | (Self::Exited(_), ExecEvent::Started | ExecEvent::Exited(_) | ExecEvent::Drained)
            | (
                Self::Deleted,
                ExecEvent::Started | ExecEvent::Exited(_) | ExecEvent::Drained | ExecEvent::Delete,
            ) => Err(Refused { state: self, event }),
        }
    }

    /// The exit, from when it may be told.
    #[must_use]
    pub fn told(self) -> Option<ExitStatus> {
        match self {
            Self::Exited(status) => Some(status),
            Self::Created | Self::Running | Self::Draining(_) | Self::Deleted => None,
        }
    }

    /// Whether it has no more to say, which everybody knows: also of one that never began.
    #[must_use]
    pub fn is_settled(self) -> bool {
        match self {
            Self::Created | Self::Exited(_) | Self::Deleted => true,
            Self::Running | Self::Draining(_) => false,
        }
    }
}

/// Whether execs can be made and started now.
#[must_use]
pub fn may_begin(shim: ShimState) -> bool {
    shim == ShimState::Running
}

/// Whether the end of the container may be told: the ends of its execs come first.
pub fn may_end(execs: impl IntoIterator<Item = ExecState>) -> bool {
    execs.into_iter().all(ExecState::is_settled)
}
