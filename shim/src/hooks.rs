//! What a helper does while the loop goes on, and who waits for it: hooks, and checkpoints.
//!
//! ```text
//!   Start   ─▶ program executed ─▶ poststart ─▶ answer; a failure ends the container
//!   Delete, or else Release ─────▶ poststop ──▶ answer; a failure is noted
//!   Checkpoint ──────────────────▶ criu ──────▶ answer
//! ```
//!
//! The exit record and the answers to Wait never wait for a hook. Those that run during a create are
//! `shim-runtime`'s.

use shim_runtime::hooks::{self, Running};
use shim_runtime::state::Status;
use shim_wire::containerd::TaskCheckpointed;
use shim_wire::hooks::HookKind;
use shim_wire::lifecycle::ShimState;
use shim_wire::task::{Empty, StartResponse};
use shim_wire::ttrpc::Response;

use crate::container::SIGKILL;
use crate::error::Error;
use crate::event_loop::{SECOND, Shim};
use crate::process::{Waiter, signal};
use crate::{clock, report};

/// Between two looks at a helper that says nothing.
const LOOK_AFTER: u64 = SECOND;

/// Hooks at work.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) running: Running,
    then: Then,
}

/// What follows their end.
#[derive(Debug)]
enum Then {
    /// The start is complete.
    Started { waiter: Waiter, pid: u32 },
    /// Somebody gets the answer they wait for.
    Answer { waiter: Waiter, response: Response },
    /// The container was written down to a directory.
    Checkpointed { waiter: Waiter, images: String },
    /// The shim may go.
    Leave,
}

impl Shim {
    /// Runs poststart, if there is any. Whether the start is to be answered when that has ended.
    ///
    /// # Errors
    /// When they can't be run; the container ends then.
    pub(crate) fn run_poststart(&mut self, waiter: Waiter, pid: u32) -> Result<bool, Error> {
        let Some(container) = &self.container else { return Ok(false) };
        if container.hooks & HookKind::Poststart.bit() == 0 {
            return Ok(false);
        }
        let kinds = [HookKind::Poststart];
        let pid_told = i32::try_from(pid).ok();
        let running = hooks::begin(&self.arguments.run, &kinds, Status::Running, pid_told)
            .inspect_err(|_| self.end_container())?;
        self.watch_hooks(running, Then::Started { waiter, pid });
        Ok(true)
    }

    /// Runs poststop, if there is any that did not run yet. Gives the response back when there is
    /// nothing to wait for.
    pub(crate) fn run_poststop(&mut self, waiter: Waiter, response: Response) -> Option<Response> {
        match self.begin_poststop() {
            Some(running) => {
                self.watch_hooks(running, Then::Answer { waiter, response });
                None
            }
            None => Some(response),
        }
    }

    /// The same for a shim whose last act it is.
    pub(crate) fn run_poststop_and_leave(&mut self) {
        if let Some(running) = self.begin_poststop() {
            self.watch_hooks(running, Then::Leave);
        }
    }

    fn begin_poststop(&mut self) -> Option<Running> {
        let container = self.container.as_mut()?;
        if self.hooks.is_some() || container.hooks & HookKind::Poststop.bit() == 0 {
            return None;
        }
        container.hooks &= !HookKind::Poststop.bit();
        let kinds = [HookKind::Poststop];
        hooks::begin(&self.arguments.run, &kinds, Status::Stopped, None)
            .inspect_err(|error| report("poststop", error))
            .ok()
    }

    /// Answers once the container is written down to a directory.
    pub(crate) fn watch_checkpoint(&mut self, waiter: Waiter, running: Running, images: String) {
        self.watch_hooks(running, Then::Checkpointed { waiter, images });
    }

    fn watch_hooks(&mut self, running: Running, then: Then) {
        self.hooks = Some(Box::new(Work { running, then }));
        self.timers.hooks = Some(clock::monotonic_ns() + LOOK_AFTER);
    }

    /// Looks whether they have ended.
    pub(crate) fn look_at_hooks(&mut self) {
        let Some(work) = &mut self.hooks else { return };
        let Some(result) = work.running.poll() else {
            self.timers.hooks = Some(clock::monotonic_ns() + LOOK_AFTER);
            return;
        };
        self.timers.hooks = None;
        let Some(work) = self.hooks.take() else { return };
        match (work.then, result) {
            (Then::Started { waiter, pid }, Ok(())) => {
                self.answer(waiter, &Response::ok(&StartResponse { pid }));
            }
            (Then::Started { waiter, .. }, Err(error)) => {
                self.end_container();
                self.answer(waiter, &Error::from(error).response());
            }
            (Then::Checkpointed { waiter, images }, Ok(())) => {
                shim_failpoints::step!("shim.checkpoint.before_answer");
                self.announce(|container_id| TaskCheckpointed { container_id, checkpoint: images });
                self.answer(waiter, &Response::ok(&Empty {}));
            }
            (Then::Checkpointed { waiter, .. }, Err(error)) => {
                self.answer(waiter, &Error::from(error).response());
            }
            (Then::Answer { waiter, response }, result) => {
                note(result);
                self.answer(waiter, &response);
            }
            (Then::Leave, result) => note(result),
        }
        self.let_go_on_without_daemon();
        if self.state == ShimState::Released {
            // They were released while others ran.
            self.run_poststop_and_leave();
        }
    }

    /// As a container ends whose start failed after its program was executed.
    fn end_container(&self) {
        if let Some(pidfd) = self.container.as_ref().and_then(|container| container.pidfd()) {
            // It may have ended by itself.
            let _ = signal(pidfd, SIGKILL);
        }
    }
}

fn note(result: Result<(), shim_runtime::Error>) {
    if let Err(error) = result {
        report("poststop", &error);
    }
}
