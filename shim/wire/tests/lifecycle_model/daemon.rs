//! The steps of the daemon, and what it is asked for.

use shim_wire::exec::{self, ExecEvent, ExecState};
use shim_wire::exit::ExitStatus;
use shim_wire::lifecycle::{
    Durable, Evidence, Reason, Recorded, ShimEvent, ShimState, Told, Verdict, Witness,
    failed_start, take_up, witness,
};
use shim_wire::removal::{self, Dismantle, Erase, LetGo, Removal};

use crate::world::{Asker, Broken, Call, Config, Daemon, Process, Removed, Shim, Steps, World};

impl World {
    /// What users ask for. Nobody has to.
    pub(crate) fn wishes(&self, config: &Config, steps: &mut Steps) {
        let row = self.row;
        let resting = matches!(row, Some(Durable::Created { .. } | Durable::Ended { .. }));
        match self.daemon {
            Daemon::Idle => {
                if resting && self.attempt() < config.runs {
                    steps.push(("an intent is committed", self.intent(config)));
                }
                assert_eq!(removal::asked(false, false), Removal::Commit);
                steps.push(("a removal is committed", self.removal(config)));
            }
            // Beside the rest of its end.
            Daemon::Dismantle { .. } if resting && self.serving => {
                let next = Self { daemon: self.daemon, name_free: true, ..self.removal(config) };
                steps.push(("a removal is committed meanwhile", next));
            }
            Daemon::Watching => {
                assert_eq!(removal::asked(true, false), Removal::Refuse);
                assert_eq!(removal::asked(true, true), Removal::EndFirst);
                if !self.remove {
                    steps.push(("a forced removal", self.forced()));
                }
                if config.execs && self.exec.asker == Asker::None && self.may_call() {
                    steps.push(("an exec is made", self.exec_made()));
                }
            }
            Daemon::Down
            | Daemon::Up
            | Daemon::Asked { .. }
            | Daemon::Intended
            | Daemon::Placed
            | Daemon::Connected
            | Daemon::Spawned
            | Daemon::CreateSent
            | Daemon::StartSent
            | Daemon::StartFailed(_)
            | Daemon::StartDead(_)
            | Daemon::Undo
            | Daemon::Exit { .. }
            | Daemon::LetGo { .. }
            | Daemon::Tell
            | Daemon::Dismantle { .. }
            | Daemon::Reconcile
            | Daemon::Erase { .. }
            | Daemon::Over => {}
        }
    }

    fn intent(&self, config: &Config) -> Self {
        let durable = self.row.expect("a container");
        let again = config.broken == Some(Broken::AttemptUsedAgain);
        let attempt = match durable {
            Durable::Created { attempts } if again && attempts > 0 => attempts,
            Durable::Created { .. } | Durable::Intent { .. } | Durable::Ended { .. } => {
                durable.next_attempt()
            }
        };
        Self {
            row: Some(Durable::Intent { attempt }),
            other_boot: false,
            process: Process::None,
            truth: None,
            ran: false,
            excused: false,
            subreaper: true,
            daemon: Daemon::Intended,
            ..*self
        }
    }

    fn removal(&self, config: &Config) -> Self {
        let removed = self.row.map(|last| Removed { last, clean: false });
        let next = Self { row: None, removed, remove: false, daemon: Daemon::Tell, ..*self };
        match config.broken {
            Some(Broken::ErasedBeforeCommit) => Self { container_dir: false, ..*self },
            Some(_) | None => next,
        }
    }

    fn forced(&self) -> Self {
        let next = Self { remove: true, ..*self };
        match self.shim {
            // A shim that hangs does not stop a kill.
            Some(Shim { stopped: true, .. }) | None => next.process_killed(),
            Some(_) if self.process == Process::Running => next.process_killed(),
            Some(_) => next,
        }
    }

    fn may_call(&self) -> bool {
        self.shim.is_some_and(|shim| !shim.stopped && exec::may_begin(shim.state))
    }

    fn exec_made(&self) -> Self {
        let mut next = *self;
        next.exec.state = Some(ExecState::Created);
        next.exec.asker = Asker::Starts;
        next
    }

    pub(crate) fn daemon_steps(&self, config: &Config, steps: &mut Steps) {
        let to = |daemon| Self { daemon, ..*self };
        match self.daemon {
            Daemon::Down | Daemon::Idle | Daemon::Over => {}
            Daemon::Up => self.ask(config, steps),
            Daemon::Asked { shim, launched, read } => {
                if shim.is_none() && launched && (self.shim.is_some() || self.process.lives()) {
                    steps.push(("what does not answer is ended", self.end(config)));
                } else {
                    steps.push(("the verdict", self.judge(config, shim, launched, read)));
                }
            }
            Daemon::Intended => {
                let placed = Self { run_dir: true, sockets: true, ..to(Daemon::Placed) };
                steps.push(("directories are made", placed));
            }
            Daemon::Placed => {
                let next = Self { network: true, ..to(Daemon::Connected) };
                steps.push(("the network is attached", next));
            }
            Daemon::Connected => {
                let run = self.attempt();
                let shim = Shim { run, known: false, state: ShimState::Empty, stopped: false };
                let next = Self { shim: Some(shim), ..to(Daemon::Spawned) };
                steps.push(("the shim is spawned", next));
            }
            Daemon::Spawned | Daemon::CreateSent | Daemon::StartSent => self.start(steps),
            Daemon::Watching => self.watch(config, steps),
            Daemon::StartFailed(told) => {
                let next = self.shim_dead(config);
                steps.push(("the shim is ended", Self { daemon: Daemon::StartDead(told), ..next }));
            }
            Daemon::StartDead(told) => steps.push(("the verdict", self.judge_start(config, told))),
            Daemon::Undo => {
                let next =
                    Self { daemon: Daemon::LetGo { at: 0, lease: true }, ..self.end(config) };
                steps.push(("it is ended", next));
            }
            Daemon::Exit { status, reason } => {
                let attempt = self.attempt();
                let next = self.committed(config, Durable::Ended { attempt, status, reason });
                steps.push(("the exit is committed", next));
                if config.broken == Some(Broken::RemovedUnended) && self.remove {
                    steps.push(("a removal is committed", self.removal(config)));
                }
            }
            Daemon::LetGo { at, lease } => self.let_go(config, at, lease, steps),
            Daemon::Tell => {
                // A daemon that takes things up gives no names away yet.
                let name_free = self.row.is_none() && self.serving;
                let daemon = match self.run_dir {
                    true => Daemon::Dismantle { at: 0 },
                    false => Daemon::Reconcile,
                };
                steps.push(("it is told", Self { daemon, name_free, ..*self }));
            }
            Daemon::Dismantle { at } => self.dismantle(config, at, steps),
            Daemon::Reconcile => steps.push(("nothing of the run is left", self.reconciled())),
            Daemon::Erase { at } => self.erase(config, at, steps),
        }
        self.exec_of_daemon_steps(config, steps);
    }

    /// The shim by its identity, the rest by its cgroup.
    fn end(&self, config: &Config) -> Self {
        self.shim_dead(config).process_killed()
    }

    fn ask(&self, config: &Config, steps: &mut Steps) {
        let to = |daemon| Self { daemon, ..*self };
        let name = "it is taken up";
        match (self.row, self.removed) {
            (None, Some(Removed { clean: true, .. }) | None) => {
                steps.push((name, self.over()));
            }
            (None | Some(Durable::Created { .. } | Durable::Ended { .. }), _) if !self.run_dir => {
                steps.push((name, to(Daemon::Reconcile)));
            }
            (Some(_) | None, _) => {
                let found = self.shim.filter(|shim| self.identity == Some(shim.run));
                // Calls that lie in its socket are answered first.
                let busy = matches!(self.call, Call::Create | Call::Start);
                if busy && found.is_some_and(|shim| !shim.stopped && shim.known) {
                    return;
                }
                let shim = found.filter(|shim| !shim.stopped).map(Shim::answers);
                let early = config.broken == Some(Broken::RecordReadTooEarly);
                let read = early.then_some(self.record);
                let launched = self.identity.is_some();
                steps.push(("the shim is asked", to(Daemon::Asked { shim, launched, read })));
            }
        }
    }

    fn record_for(&self, config: &Config, record: Option<Recorded>) -> Option<Recorded> {
        let attempt = self.attempt();
        match config.broken {
            Some(Broken::RecordOfAnyRun) => record.map(|record| Recorded { attempt, ..record }),
            Some(_) | None => record,
        }
    }

    fn judge(
        &self,
        config: &Config,
        shim: Option<shim_wire::lifecycle::Living>,
        launched: bool,
        read: Option<Option<Recorded>>,
    ) -> Self {
        let record = self.record_for(config, read.unwrap_or(self.record));
        let evidence = Evidence { shim, record, launched, other_boot: self.other_boot };
        let to = |daemon| Self { daemon, ..*self };
        // What was removed is settled like what ended.
        match take_up(self.row.unwrap_or(Durable::Created { attempts: 0 }), evidence) {
            Verdict::Settle => to(Daemon::LetGo { at: 0, lease: false }),
            Verdict::Adopt => Self { serving: true, ..to(Daemon::Watching) },
            Verdict::Undo => to(Daemon::Undo),
            Verdict::Commit { status, reason } => to(Daemon::Exit { status, reason }),
        }
    }

    fn start(&self, steps: &mut Steps) {
        let to = |daemon| Self { daemon, ..*self };
        let told = if self.daemon == Daemon::StartSent { Told::Unanswered } else { Told::No };
        let Some(shim) = self.shim else {
            steps.push(("the shim is gone", to(Daemon::StartFailed(told))));
            return;
        };
        if shim.stopped {
            steps.push(("the shim does not answer", to(Daemon::StartFailed(told))));
        }
        let next = match (self.daemon, self.call) {
            (Daemon::Spawned, _) => {
                ("create is called", Self { call: Call::Create, ..to(Daemon::CreateSent) })
            }
            (Daemon::CreateSent, Call::Created) => {
                ("start is called", Self { call: Call::Start, ..to(Daemon::StartSent) })
            }
            (Daemon::StartSent, Call::Started) => {
                ("it runs", Self { call: Call::None, ..to(Daemon::Watching) })
            }
            (_, Call::Refused) => {
                ("it is refused", Self { call: Call::None, ..to(Daemon::StartFailed(Told::No)) })
            }
            (_, Call::None | Call::Create | Call::Start | Call::Created | Call::Started) => return,
        };
        steps.push(next);
    }

    fn watch(&self, config: &Config, steps: &mut Steps) {
        let attempt = self.attempt();
        let record = self.record_for(config, self.record);
        let exit =
            |world: Self, status, reason| Self { daemon: Daemon::Exit { status, reason }, ..world };
        match self.shim {
            Some(Shim { state: ShimState::Recorded(status), stopped: false, .. }) => {
                let status = match (witness(attempt, record, true), record) {
                    (Witness::Record, Some(record)) => record.status,
                    (Witness::Record | Witness::Shim | Witness::Nobody, _) => status,
                };
                steps.push(("the exit is told", exit(*self, status, Reason::Exited)));
            }
            Some(shim) if shim.stopped && self.remove => {
                steps.push(("a shim that hangs is killed", self.shim_dead(config)));
            }
            Some(_) => {}
            None => match (witness(attempt, record, false), record) {
                (Witness::Record, Some(record)) => {
                    steps.push(("the shim is lost", exit(*self, record.status, Reason::Exited)));
                }
                (Witness::Record | Witness::Shim | Witness::Nobody, _) => {
                    let (next, status) = self.reaped(config);
                    steps.push(("the shim is lost", exit(next, status, Reason::ShimLost)));
                }
            },
        }
    }

    /// The cgroup is killed, and a subreaper gets the code of what its shim left.
    fn reaped(&self, config: &Config) -> (Self, ExitStatus) {
        let left = config.broken == Some(Broken::CgroupLeft);
        let next = if left { *self } else { self.process_killed() };
        let saved = self.subreaper && next.process == Process::Ended;
        let status = next.truth.filter(|_| saved).unwrap_or(ExitStatus::Unknown);
        let process = if saved { Process::Reaped } else { next.process };
        (Self { process, ..next }, status)
    }

    fn judge_start(&self, config: &Config, told: Told) -> Self {
        let told = match config.broken {
            Some(Broken::UnansweredUndone) => Told::No,
            Some(_) | None => told,
        };
        let (next, seen) = self.reaped(config);
        let record = self.record_for(config, self.record);
        match failed_start(self.attempt(), told, record) {
            Verdict::Commit { status, reason } => {
                let status = if reason == Reason::Exited { status } else { seen };
                Self { daemon: Daemon::Exit { status, reason }, ..next }
            }
            Verdict::Undo | Verdict::Adopt | Verdict::Settle => {
                Self { daemon: Daemon::LetGo { at: 0, lease: true }, ..next }
            }
        }
    }

    fn committed(&self, config: &Config, ended: Durable) -> Self {
        let (row, removed) = match config.auto_remove {
            true => (None, Some(Removed { last: ended, clean: false })),
            false => (Some(ended), self.removed),
        };
        let daemon = Daemon::LetGo { at: 0, lease: true };
        let next = Self { row, removed, daemon, ..*self };
        match config.broken {
            Some(Broken::NameFreedEarly) if row.is_none() => Self { name_free: true, ..next },
            Some(_) | None => next,
        }
    }

    fn let_go(&self, config: &Config, at: usize, lease: bool, steps: &mut Steps) {
        let daemon = Daemon::LetGo { at: at + 1, lease };
        let step = match LetGo::ORDER.get(at) {
            Some(LetGo::Network) => {
                let network = self.network && !lease;
                ("the network is detached", Self { network, daemon, ..*self })
            }
            Some(LetGo::Release) => {
                ("the shim is released", Self { daemon, ..self.release(config) })
            }
            None => ("it has let go", Self { daemon: Daemon::Tell, ..*self }),
        };
        steps.push(step);
    }

    fn reconciled(&self) -> Self {
        // What an earlier daemon attached is found by a new one that knows no lease.
        let next = Self { network: self.network && self.serving, ..*self };
        match self.row {
            Some(Durable::Intent { attempt }) => {
                let row = Some(Durable::Created { attempts: attempt });
                Self { daemon: Daemon::Idle, serving: true, row, ..next }
            }
            Some(Durable::Created { .. } | Durable::Ended { .. }) => {
                Self { daemon: Daemon::Idle, serving: true, ..next }
            }
            None => Self { daemon: Daemon::Erase { at: 0 }, ..next },
        }
    }

    fn release(&self, config: &Config) -> Self {
        let Some(shim) = self.shim else { return *self };
        match shim.state.step(ShimEvent::Release) {
            Ok((state, _)) if !shim.stopped => Self { shim: Some(Shim { state, ..shim }), ..*self },
            Ok(_) | Err(_) => self.shim_dead(config),
        }
    }

    fn dismantle(&self, config: &Config, at: usize, steps: &mut Steps) {
        let mut order = Dismantle::ORDER;
        match config.broken {
            Some(Broken::RunDirectoryFirst) => order.rotate_right(1),
            Some(Broken::ShimEndLast) => order.rotate_left(1),
            Some(_) | None => {}
        }
        let next = Self { daemon: Daemon::Dismantle { at: at + 1 }, ..*self };
        match order.get(at) {
            Some(Dismantle::ShimEnd) => match self.shim {
                None => steps.push(("the shim has ended", next)),
                Some(shim) if shim.stopped || shim.state != ShimState::Released => {
                    let next = Self { daemon: next.daemon, ..self.shim_dead(config) };
                    steps.push(("a shim that hangs is killed", next));
                }
                Some(_) => {}
            },
            Some(Dismantle::Cgroups) => {
                let next = Self { cgroup: false, ..next.process_killed() };
                steps.push(("the cgroups are removed", next));
            }
            Some(Dismantle::NetworkName) => steps.push(("the network's name is withdrawn", next)),
            Some(Dismantle::Sockets) => {
                steps.push(("the sockets are removed", Self { sockets: false, ..next }));
            }
            Some(Dismantle::RunDirectory) => {
                let next = Self { run_dir: false, identity: None, ..next };
                steps.push(("the run directory is removed", next));
            }
            None if self.remove && self.row.is_some() => {
                steps.push(("a removal is committed", self.removal(config)));
            }
            None => steps.push(("it is dismantled", Self { daemon: Daemon::Reconcile, ..*self })),
        }
    }

    fn erase(&self, config: &Config, at: usize, steps: &mut Steps) {
        let mut order = Erase::ORDER;
        if config.broken == Some(Broken::NotedTooEarly) {
            order.rotate_right(1);
        }
        let next = Self { daemon: Daemon::Erase { at: at + 1 }, ..*self };
        let step = match order.get(at) {
            Some(Erase::ContainerDirectory) => {
                let gone = Self { container_dir: false, record: None, synced: None, ..next };
                ("the container's directory is removed", gone)
            }
            Some(Erase::Snapshot) => ("the snapshot is removed", Self { snapshot: false, ..next }),
            Some(Erase::Noted) => {
                let removed = self.removed.map(|removed| Removed { clean: true, ..removed });
                ("the removal is noted", Self { removed, ..next })
            }
            None => ("it is over", self.over()),
        };
        steps.push(step);
    }

    fn over(&self) -> Self {
        Self { daemon: Daemon::Over, name_free: true, serving: true, ..*self }
    }

    fn exec_of_daemon_steps(&self, config: &Config, steps: &mut Steps) {
        let Some(shim) = self.shim.filter(|shim| !shim.stopped) else { return };
        let mut next = *self;
        let Some(state) = self.exec.state else { return };
        match self.exec.asker {
            Asker::Starts => match state.step(ExecEvent::Started) {
                Ok(state) if exec::may_begin(shim.state) && self.process == Process::Running => {
                    (next.exec.state, next.exec.lives) = (Some(state), true);
                    next.exec.asker = Asker::Waits;
                    steps.push(("the exec is started", next));
                }
                Ok(_) | Err(_) => {
                    next.exec.asker = Asker::Told(None);
                    steps.push(("the exec can't be started", next));
                }
            },
            Asker::Waits => {
                if let Some(status) = state.told() {
                    next.exec.asker = Asker::Told(Some(status));
                    steps.push(("the exec's end is told", next));
                }
            }
            Asker::Told(told) => {
                next.exec.state = Some(state.step(ExecEvent::Delete).unwrap_or(state));
                next.exec.asker = Asker::Done(told);
                steps.push(("the exec is deleted", next));
            }
            // That of an earlier daemon.
            Asker::Gone => {
                let kept = config.broken == Some(Broken::ExecsKept);
                if self.daemon != Daemon::Watching || kept {
                    return;
                }
                match state.step(ExecEvent::Delete) {
                    Ok(state) => {
                        next.exec.state = Some(state);
                        next.exec.asker = Asker::Done(None);
                        steps.push(("an exec of before is deleted", next));
                    }
                    Err(_) if state == ExecState::Deleted => {}
                    Err(_) => {
                        next.exec.asker = Asker::Waits;
                        steps.push(("an exec of before is waited for", next));
                    }
                }
            }
            Asker::None | Asker::Done(_) => {}
        }
    }
}
