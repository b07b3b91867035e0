//! The steps of the shim, of the processes, and of what befalls them.

use shim_wire::exec::{self, ExecEvent, ExecState};
use shim_wire::exit::ExitStatus;
use shim_wire::lifecycle::{Recorded, ShimAction, ShimEvent, ShimState};

use crate::world::{
    Asker, Broken, Call, Config, Daemon, EXEC_END, KILLED, Process, Shim, Steps, World, own_end,
};

impl World {
    pub(crate) fn process_steps(&self, steps: &mut Steps) {
        if self.process == Process::Running {
            let truth = Some(own_end(self.attempt()));
            steps.push(("the process ends", Self { process: Process::Ended, truth, ..*self }));
        }
        if self.exec.lives {
            let mut next = *self;
            next.exec.lives = false;
            // With the first process of a pid namespace go all others.
            let alone = self.process != Process::Running;
            next.exec.truth = Some(if alone { KILLED } else { EXEC_END });
            steps.push(("the exec ends", next));
        }
    }

    fn shim_step(&self, shim: Shim, event: ShimEvent) -> Self {
        let (state, action) = shim.state.step(event).expect("an enabled event");
        match action {
            Some(ShimAction::Leave) => assert_eq!(state, ShimState::Released),
            Some(ShimAction::WriteRecord(_) | ShimAction::AnswerWaiters(_) | ShimAction::Drain)
            | None => {}
        }
        Self { shim: Some(Shim { state, ..shim }), ..*self }
    }

    pub(crate) fn shim_steps(&self, config: &Config, steps: &mut Steps) {
        if self.stray {
            let identity = if self.run_dir { Some(0) } else { self.identity };
            steps.push(("a stray shim writes its identity", Self { identity, ..*self }));
            steps.push(("a stray shim leaves", Self { stray: false, ..*self }));
        }
        let Some(shim) = self.shim else { return };
        if shim.stopped {
            let shim = Some(Shim { stopped: false, ..shim });
            steps.push(("the shim goes on", Self { shim, ..*self }));
            return;
        }
        if !shim.known {
            let shim = self.run_dir.then_some(Shim { known: true, ..shim });
            let identity = shim.map(|shim| shim.run).or(self.identity);
            steps.push(("the shim writes its identity", Self { shim, identity, ..*self }));
            return;
        }
        self.call_steps(shim, steps);
        if !matches!(self.call, Call::Create | Call::Start) {
            self.exec_of_shim_steps(shim, steps);
            self.end_steps(shim, config, steps);
        }
    }

    fn call_steps(&self, shim: Shim, steps: &mut Steps) {
        let answer = |call| if self.daemon == Daemon::Down { Call::None } else { call };
        match (self.call, shim.state) {
            (Call::Create, ShimState::Empty) => {
                let next = self.shim_step(shim, ShimEvent::Created);
                let call = answer(Call::Created);
                let created = Self { process: Process::Waiting, cgroup: true, call, ..next };
                steps.push(("the shim creates", created));
                self.refuse("the shim can't create", *self, steps);
            }
            (Call::Start, ShimState::Created) if self.process == Process::Waiting => {
                let next = self.shim_step(shim, ShimEvent::Started);
                let call = answer(Call::Started);
                let started = Self { process: Process::Running, ran: true, call, ..next };
                steps.push(("the shim starts", started));
                let reaped = Self { process: Process::Reaped, ..*self };
                self.refuse("the program is not there", reaped, steps);
            }
            (Call::Create | Call::Start, _) => {
                steps.push(("the shim refuses", Self { call: answer(Call::Refused), ..*self }));
            }
            (Call::None | Call::Created | Call::Started | Call::Refused, _) => {}
        }
    }

    fn refuse(&self, name: &'static str, world: Self, steps: &mut Steps) {
        let Some(mut next) = world.mishap() else { return };
        next.call = if self.daemon == Daemon::Down { Call::None } else { Call::Refused };
        steps.push((name, next));
    }

    fn end_steps(&self, shim: Shim, config: &Config, steps: &mut Steps) {
        match shim.state {
            ShimState::Empty => {
                let next = self.shim_step(shim, ShimEvent::Abandoned);
                // Who finds that it was there does not know what it did.
                steps.push(("the shim is abandoned", Self { excused: true, ..next }));
            }
            ShimState::Created | ShimState::Running => {
                if let (Process::Ended, Some(status)) = (self.process, self.truth) {
                    let next = self.shim_step(shim, ShimEvent::Exited(status));
                    steps.push(("the shim reaps", Self { process: Process::Reaped, ..next }));
                }
            }
            ShimState::Draining(_) => {
                if exec::may_end(self.exec.state) || config.broken == Some(Broken::ExecsToldLast) {
                    steps.push(("the shim drains", self.shim_step(shim, ShimEvent::Drained)));
                }
            }
            // Each a step of its own: a crash or a power cut may fall between them.
            ShimState::Recording(status) => {
                let written = Some(Recorded { attempt: shim.run, status });
                let announced = self.shim_step(shim, ShimEvent::RecordDurable);
                if self.record != written {
                    steps.push(("the record is renamed", Self { record: written, ..*self }));
                } else if self.synced != written {
                    steps.push(("the record is synced", Self { synced: written, ..*self }));
                } else {
                    steps.push(("the shim announces", announced));
                }
                if config.broken == Some(Broken::ToldBeforeDurable) {
                    steps.push(("the shim announces", announced));
                }
            }
            ShimState::Recorded(_) => {
                if config.broken == Some(Broken::ReleasedBeforeCommit) {
                    steps.push((
                        "the shim releases itself",
                        self.shim_step(shim, ShimEvent::Release),
                    ));
                }
            }
            ShimState::Released => {
                let mut next = Self { shim: None, ..*self };
                next.exec.state = self.exec.state.map(|_| ExecState::Deleted);
                steps.push(("the shim leaves", next.connection_ended(config)));
            }
        }
    }

    fn exec_of_shim_steps(&self, shim: Shim, steps: &mut Steps) {
        if shim.state == ShimState::Released {
            return;
        }
        let (name, event) = match (self.exec.state, self.exec.truth) {
            (Some(ExecState::Running), Some(status)) if !self.exec.lives => {
                ("the shim reaps the exec", ExecEvent::Exited(status))
            }
            (Some(ExecState::Draining(_)), _) => ("the shim drains the exec", ExecEvent::Drained),
            (
                None
                | Some(
                    ExecState::Created
                    | ExecState::Running
                    | ExecState::Exited(_)
                    | ExecState::Deleted,
                ),
                _,
            ) => return,
        };
        let mut next = *self;
        next.exec.state = self.exec.state.map(|state| state.step(event).expect("an enabled event"));
        steps.push((name, next));
    }

    /// The shim's connection has ended: who waits for an exec learns it, and no more.
    pub(crate) fn connection_ended(&self, config: &Config) -> Self {
        let mut next = Self { call: Call::None, ..*self };
        if matches!(self.exec.asker, Asker::Starts | Asker::Waits | Asker::Told(_)) {
            let invented = config.broken == Some(Broken::ExecStatusInvented);
            let told = match self.exec.asker {
                Asker::Told(told) => told,
                Asker::None | Asker::Starts | Asker::Waits | Asker::Gone | Asker::Done(_) => {
                    invented.then_some(ExitStatus::Code(0))
                }
            };
            next.exec.asker = Asker::Done(told);
        }
        next
    }

    /// The shim is gone, whoever ended it.
    pub(crate) fn shim_dead(&self, config: &Config) -> Self {
        if self.shim.is_none() {
            return *self;
        }
        let mut next = Self { shim: None, ..*self };
        next.exec.state = self.exec.state.map(|_| ExecState::Deleted);
        next.excused = true;
        next.connection_ended(config)
    }

    pub(crate) fn process_killed(&self) -> Self {
        let mut next = *self;
        if self.process.lives() {
            next.process = Process::Ended;
            next.truth = Some(KILLED);
        }
        if self.exec.lives {
            next.exec.lives = false;
            next.exec.truth = Some(KILLED);
        }
        next
    }

    fn mishap(&self) -> Option<Self> {
        let mut next = *self;
        next.budget.mishaps = self.budget.mishaps.checked_sub(1)?;
        Some(next)
    }

    pub(crate) fn misfortunes(&self, config: &Config, steps: &mut Steps) {
        if let Some(shim) = self.shim {
            if let Some(shim_crashes) = self.budget.shim_crashes.checked_sub(1) {
                let mut next = self.shim_dead(config);
                next.budget.shim_crashes = shim_crashes;
                steps.push(("the shim is killed, and its container", next.process_killed()));
                if self.process.lives() {
                    // Who changed its credentials does not hear of its parent's death.
                    steps.push(("the shim is killed, not its container", next));
                }
            }
            if let Some(mut next) = self.mishap().filter(|_| !shim.stopped && shim.known) {
                next.shim = Some(Shim { stopped: true, ..shim });
                next.excused = true;
                steps.push(("the shim is stopped", next));
            }
        }
        if self.process == Process::Waiting
            && let Some(mut next) = self.mishap()
        {
            (next.process, next.truth) = (Process::Ended, Some(KILLED));
            steps.push(("the process is killed before its exec", next));
        }
        if self.daemon != Daemon::Down
            && let Some(daemon_crashes) = self.budget.daemon_crashes.checked_sub(1)
        {
            let mut next = self.daemon_dead(config);
            next.budget.daemon_crashes = daemon_crashes;
            steps.push(("the daemon is killed", next));
        }
        if let Some(reboots) = self.budget.reboots.checked_sub(1) {
            let mut next = self.machine_down(config);
            next.budget.reboots = reboots;
            steps.push(("the machine goes down", Self { record: self.synced, ..next }));
            if self.record != self.synced {
                let next = Self { synced: self.record, ..next };
                steps.push(("the machine goes down, the record is on disk", next));
            }
        }
    }

    fn daemon_dead(&self, config: &Config) -> Self {
        let mut next = Self {
            daemon: Daemon::Down,
            subreaper: false,
            serving: false,
            name_free: false,
            remove: false,
            ..*self
        };
        if !matches!(self.call, Call::Create | Call::Start) {
            next.call = Call::None;
        }
        if matches!(self.exec.asker, Asker::Starts | Asker::Waits | Asker::Told(_)) {
            next.exec.asker = Asker::Gone;
        }
        // Until it can be found by its identity, a shim dies with the daemon that started it.
        if self.shim.is_some_and(|shim| !shim.known) {
            next.shim = None;
            next.stray = config.broken == Some(Broken::StrayShim);
            next.excused = self.excused || next.stray;
        }
        next
    }

    fn machine_down(&self, config: &Config) -> Self {
        let next = self.daemon_dead(config).shim_dead(config).process_killed();
        let keep = config.state_on_disk;
        Self {
            other_boot: matches!(self.row, Some(shim_wire::lifecycle::Durable::Intent { .. })),
            run_dir: self.run_dir && keep,
            sockets: self.sockets && keep,
            identity: self.identity.filter(|_| keep),
            network: false,
            cgroup: false,
            stray: false,
            process: if next.process == Process::Ended { Process::Reaped } else { next.process },
            call: Call::None,
            excused: true,
            ..next
        }
    }
}
