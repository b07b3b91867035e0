//! The exit protocol as it is carried out: [`ShimState::step`] says what to do, this does it.
//!
//! ```text
//!   pidfd readable ─▶ waitid ─▶ Drain: kill the rest, read the output to its end
//!     ─▶ WriteRecord: log synced, exit.json durable ─▶ AnswerWaiters ─▶ Release ─▶ Leave
//! ```
//!
//! The ends of execs are told first, the container's last. What does not come to an end by itself has
//! a deadline: an end is told late rather than never.

use shim_wire::containerd::TaskExit;
use shim_wire::exit::ExitStatus;
use shim_wire::lifecycle::{Refused, ShimAction, ShimEvent, ShimState};
use shim_wire::task::WaitResponse;
use shim_wire::ttrpc::Response;

use crate::attach::Client;
use crate::container::Container;
use crate::event_loop::{SECOND, Shim, Timers};
use crate::process::{self, Exec, ExecState, Exit, Key, Waiter};
use crate::rpc::Connection;
use crate::{clock, foreign, report};

/// Between two tries to empty the cgroup, or to write the exit record.
const RETRY_KILL_AFTER: u64 = SECOND / 20;
const RETRY_RECORD_AFTER: u64 = SECOND;
/// How long an end waits for what does not come to an end: a process that can't be killed, or one
/// outside the container that goes on writing to its output.
const DRAIN_AT_MOST: u64 = 10 * SECOND;
/// How long a released shim waits for clients to take what they were promised.
const LINGER_AT_MOST: u64 = 10 * SECOND;

impl Shim {
    /// Takes a step of the exit protocol and does what it asks for.
    ///
    /// # Errors
    /// When the state has no answer to the event; nothing has changed then.
    pub(crate) fn step(&mut self, event: ShimEvent) -> Result<(), Refused> {
        let (state, action) = self.state.step(event)?;
        self.state = state;
        match action {
            None => {}
            Some(ShimAction::Drain) => self.begin_drain(),
            Some(ShimAction::WriteRecord(_)) => self.write_record(),
            Some(ShimAction::AnswerWaiters(_)) => self.answer_waiters(),
            Some(ShimAction::Leave) => self.leave(),
        }
        Ok(())
    }

    /// A step that the state is known to allow.
    pub(crate) fn advance(&mut self, event: ShimEvent) {
        if let Err(refused) = self.step(event) {
            report("exit protocol", &refused);
        }
    }

    pub(crate) fn reap(&mut self, key: Key) {
        let pidfd = match key {
            Key::INIT => self.container.as_ref().and_then(Container::pidfd),
            key => match self.exec(key).map(|exec| &exec.state) {
                Some(ExecState::Running { child, .. }) => child.pidfd(),
                Some(
                    ExecState::Created(_)
                    | ExecState::Draining { .. }
                    | ExecState::Exited { .. }
                    | ExecState::Deleted { .. },
                )
                | None => None,
            },
        };
        let status = match pidfd.map(process::reap) {
            Some(Ok(Some(status))) => status,
            Some(Ok(None)) | None => return,
            Some(Err(error)) => {
                report("wait for a process", &error);
                ExitStatus::Unknown
            }
        };
        shim_failpoints::step!("shim.exit.after_reap");
        self.process_ended(key, status);
    }

    /// A process has ended: that of the container sets its end off.
    pub(crate) fn process_ended(&mut self, key: Key, status: ExitStatus) {
        if key == Key::INIT {
            return self.advance(ShimEvent::Exited(status));
        }
        let exit = Exit { status, at: clock::now() };
        if let Some(index) = self.execs.iter().position(|exec| exec.key == key) {
            let exec = self.execs.swap_remove(index);
            self.execs.push(exec.ended(exit));
        }
    }

    /// Nobody but the execs' ends and the output is waited for from here on.
    pub(crate) fn begin_drain(&mut self) {
        let ShimState::Draining(status) = self.state else { return };
        self.look_for_oom();
        let Some(container) = &mut self.container else { return };
        container.ended(status, &self.inherited.boot_id);
        let now = clock::monotonic_ns();
        self.timers.drained = Some(now + DRAIN_AT_MOST);
        self.timers.kill = Some(now);
    }

    /// Tries to empty the cgroup, until it is empty.
    pub(crate) fn kill_rest(&mut self, now: u64) {
        let Some(container) = &self.container else { return };
        if self.foreign.is_some() {
            // The first process of a pid namespace has not ended before the others are reaped.
            foreign::reap_what_it_left();
        }
        if !container.kill_rest() {
            self.timers.kill = Some(now + RETRY_KILL_AFTER);
        }
    }

    /// A process that ended has said everything.
    pub(crate) fn output_ended(&mut self, key: Key) {
        if key == Key::INIT {
            return self.init_drained();
        }
        let Some(index) = self.execs.iter().position(|exec| exec.key == key) else { return };
        let mut exec = self.execs.swap_remove(index).drained();
        let waiters = std::mem::take(&mut exec.waiters);
        if let Some(exit) = exec.exit() {
            self.announce_exit(&exec.id, exec.pid(), exit);
            self.answer_exit(waiters, exit);
        }
        self.execs.push(exec);
        self.end_clients(key);
        self.end_sinks(key);
    }

    fn announce_exit(&mut self, id: &str, pid: u32, exit: Exit) {
        self.announce(|container_id| TaskExit {
            // The container's first process goes by the container's name.
            id: if id.is_empty() { container_id.clone() } else { id.to_owned() },
            container_id,
            pid,
            exit_status: exit.status.number().into(),
            exited_at: Some(exit.at.into()),
        });
    }

    pub(crate) fn init_drained(&mut self) {
        let Some(container) = &mut self.container else { return };
        container.finish_log();
        (self.timers.drained, self.timers.kill) = (None, None);
        self.advance(ShimEvent::Drained);
    }

    pub(crate) fn write_record(&mut self) {
        let Some(container) = &mut self.container else { return };
        let Some(record) = &container.record else { return };
        shim_failpoints::step!("shim.exit.before_record");
        match container.reserved.write(record) {
            Ok(()) => {
                shim_failpoints::step!("shim.exit.after_record");
                self.advance(ShimEvent::RecordDurable);
            }
            Err(error) => {
                // What is not durable is not told. A disk may come back.
                report("write the exit record", &error);
                self.timers.record = Some(clock::monotonic_ns() + RETRY_RECORD_AFTER);
            }
        }
    }

    pub(crate) fn answer_waiters(&mut self) {
        let Some(container) = &mut self.container else { return };
        let Some(record) = &container.record else { return };
        let exit = Exit { status: record.status, at: record.exited_at };
        let waiters = std::mem::take(&mut container.waiters);
        let failed_start = container.failed_start.take();
        let pid = container.pid;
        self.announce_exit("", pid, exit);
        self.answer_exit(waiters, exit);
        if let Some((waiter, response)) = failed_start.map(|failed| *failed)
            && let Some(response) = self.run_poststop(waiter, response)
        {
            self.answer(waiter, &response);
        }
        self.end_clients(Key::INIT);
        self.end_sinks(Key::INIT);
    }

    pub(crate) fn answer_exit(&mut self, waiters: Vec<Waiter>, exit: Exit) {
        let response = Response::ok(&WaitResponse {
            exit_status: exit.status.number().into(),
            exited_at: Some(exit.at.into()),
        });
        for waiter in waiters {
            self.answer(waiter, &response);
        }
    }

    pub(crate) fn end_clients(&mut self, key: Key) {
        let mut gone = Vec::new();
        for client in &mut self.clients {
            if client.attachment().is_some_and(|attachment| attachment.process == key) {
                client.end();
                if client.flush().is_err() {
                    gone.push(client.serial);
                }
            }
        }
        self.clients.retain(|client| !gone.contains(&client.serial));
    }

    /// Whether what it said has been told to whoever listened.
    pub(crate) fn is_drained(&self, key: Key) -> bool {
        if key == Key::INIT {
            return matches!(self.state, ShimState::Recorded(_) | ShimState::Released);
        }
        self.exec(key).is_some_and(Exec::is_drained)
    }

    /// The ports are free before the answer to Release is sent; the mount namespace goes last.
    pub(crate) fn leave(&mut self) {
        self.inherited.ports.clear();
        let hooks = self.timers.hooks;
        let leave = Some(clock::monotonic_ns() + LINGER_AT_MOST);
        self.timers = Timers { leave, hooks, ..Timers::default() };
        self.run_poststop_and_leave();
        self.dismiss_stock();
    }

    /// Released, all hooks have run, and everybody has what they were promised.
    pub(crate) fn is_over(&self) -> bool {
        let owed = self.connections.iter().any(Connection::has_unsent)
            || self.clients.iter().any(Client::has_unsent)
            || self.owes_containerd()
            || self.awaits_stock();
        self.state == ShimState::Released
            && self.hooks.is_none()
            && (!owed || self.timers.leave.is_none())
    }
}
