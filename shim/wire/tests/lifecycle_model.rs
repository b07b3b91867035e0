//! The exit protocol, explored exhaustively: one run of one container, the shim and the daemon each
//! crashing between any two steps, the daemon started again as often as it was killed.
//!
//! A world is everything that exists: what is durable, what is volatile, what is true. Every enabled
//! step leads to another world; all worlds that can be reached are visited, and in each the rules
//! of `shim_wire::lifecycle` are asserted. The last rule (everything comes to its end) is checked by
//! walking from every world with the daemon up, without further crashes, until nothing moves.

use std::collections::{HashSet, VecDeque};

use shim_wire::exit::ExitStatus;
use shim_wire::lifecycle::{
    Durable, Evidence, Reason, ShimAction, ShimEvent, ShimState, Verdict, recover,
};

const TRUE_STATUS: ExitStatus = ExitStatus::Code(42);
const MAX_DAEMON_CRASHES: u8 = 3;
const MAX_SHIM_CRASHES: u8 = 1;

/// The process itself, whoever watches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Process {
    None,
    Waiting,
    Running,
    /// Ended by itself; the status waits for whoever reaps it.
    Ended,
    /// Killed because its shim died.
    Killed,
    Reaped,
}

/// What the daemon holds in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Daemon {
    Down,
    Idle,
    /// The shim was spawned and not told to create yet.
    Launched,
    CreateSent,
    Watching,
    /// It knows how the run ended and has not committed it.
    ExitSeen(ExitStatus, Reason),
    /// Committed; the shim has not been released.
    Committed,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct World {
    daemon: Daemon,
    durable: Durable,
    shim: Option<ShimState>,
    identity_file: bool,
    record: Option<ExitStatus>,
    process: Process,
    /// It got to its exec: from here on it must never be undone, only ended.
    ran: bool,
    /// The daemon that started the shim still lives: it is the subreaper and learns real codes.
    same_daemon: bool,
    daemon_crashes: u8,
    shim_crashes: u8,
}

impl World {
    fn first() -> Self {
        Self {
            daemon: Daemon::Idle,
            durable: Durable::Created,
            shim: None,
            identity_file: false,
            record: None,
            process: Process::None,
            ran: false,
            same_daemon: true,
            daemon_crashes: 0,
            shim_crashes: 0,
        }
    }

    fn shim_step(self, event: ShimEvent) -> Self {
        let (state, action) = self.shim.expect("a shim").step(event).expect("an enabled event");
        let mut next = Self { shim: Some(state), ..self };
        match action {
            Some(ShimAction::Leave) => next.shim = None,
            Some(ShimAction::WriteRecord(_) | ShimAction::AnswerWaiters(_) | ShimAction::Drain)
            | None => {}
        }
        next
    }

    /// The steps of the machine that are not crashes.
    fn progress(self) -> Vec<(&'static str, Self)> {
        let mut steps = Vec::new();
        self.process_steps(&mut steps);
        self.shim_steps(&mut steps);
        self.daemon_steps(&mut steps);
        steps
    }

    fn process_steps(self, steps: &mut Vec<(&'static str, Self)>) {
        if self.process == Process::Running {
            steps.push(("process ends", Self { process: Process::Ended, ..self }));
        }
    }

    fn shim_steps(self, steps: &mut Vec<(&'static str, Self)>) {
        match self.shim {
            Some(ShimState::Empty | ShimState::Released) | None => {}
            Some(ShimState::Created | ShimState::Running) => {
                if self.process == Process::Ended {
                    let next = self.shim_step(ShimEvent::Exited(TRUE_STATUS));
                    steps.push(("shim reaps", Self { process: Process::Reaped, ..next }));
                }
            }
            Some(ShimState::Draining(_)) => {
                steps.push(("shim drains", self.shim_step(ShimEvent::Drained)));
            }
            // The write and the announcement are two steps: a crash may fall between them.
            Some(ShimState::Recording(status)) => match self.record {
                None => steps.push(("record durable", Self { record: Some(status), ..self })),
                Some(_) => {
                    steps.push(("shim announces", self.shim_step(ShimEvent::RecordDurable)));
                }
            },
            Some(ShimState::Recorded(_)) => {}
        }
    }

    fn daemon_steps(self, steps: &mut Vec<(&'static str, Self)>) {
        let to = |daemon| Self { daemon, ..self };
        match self.daemon {
            Daemon::Down => {}
            Daemon::Idle => match self.durable {
                Durable::Created => steps.push((
                    "commit intent",
                    Self { durable: Durable::Intent { attempt: 1 }, ..self },
                )),
                Durable::Intent { .. } => steps.push((
                    "launch shim",
                    Self {
                        daemon: Daemon::Launched,
                        shim: Some(ShimState::Empty),
                        identity_file: true,
                        same_daemon: true,
                        ..self
                    },
                )),
                Durable::Ended { .. } => {}
            },
            Daemon::Launched => match self.shim {
                Some(ShimState::Empty) => {
                    let next = self.shim_step(ShimEvent::Created);
                    steps.push((
                        "create",
                        Self { daemon: Daemon::CreateSent, process: Process::Waiting, ..next },
                    ));
                }
                Some(_) => {}
                None => steps.push(("shim lost", self.judge())),
            },
            Daemon::CreateSent => match self.shim {
                Some(ShimState::Created) => {
                    let next = self.shim_step(ShimEvent::Started);
                    steps.push((
                        "start",
                        Self {
                            daemon: Daemon::Watching,
                            process: Process::Running,
                            ran: true,
                            ..next
                        },
                    ));
                }
                Some(_) => {}
                None => steps.push(("shim lost", self.judge())),
            },
            Daemon::Watching => match (self.shim, self.record) {
                (Some(ShimState::Recorded(_)), Some(status)) => {
                    steps.push(("see exit", to(Daemon::ExitSeen(status, Reason::Exited))));
                }
                (Some(_), _) => {}
                (None, _) => steps.push(("shim lost", self.judge())),
            },
            Daemon::ExitSeen(status, reason) => steps.push((
                "commit exit",
                Self {
                    daemon: Daemon::Committed,
                    durable: Durable::Ended { attempt: 1, status, reason },
                    ..self
                },
            )),
            Daemon::Committed => match self.shim {
                Some(ShimState::Recorded(_)) => {
                    let next = self.shim_step(ShimEvent::Release);
                    steps.push(("release", Self { daemon: Daemon::Done, ..next }));
                }
                // A record on disk and a shim that has not announced it yet: recovery may commit
                // first, and releases when the shim got there.
                Some(_) => {}
                None => steps.push(("nothing to release", to(Daemon::Done))),
            },
            Daemon::Done => {}
        }
    }

    /// What the daemon does when it starts, or when the shim's connection ended.
    fn judge(self) -> Self {
        let Durable::Intent { .. } = self.durable else {
            // Ended: only the shim may be left to release. Created: nothing is begun.
            return Self {
                daemon: match self.durable {
                    Durable::Ended { .. } => Daemon::Committed,
                    Durable::Created | Durable::Intent { .. } => Daemon::Idle,
                },
                ..self
            };
        };
        let evidence = Evidence {
            shim: self.shim,
            record: self.record,
            launched: self.identity_file,
            other_boot: false,
        };
        match recover(evidence) {
            Verdict::Adopt => Self { daemon: Daemon::Watching, ..self },
            Verdict::Undo => {
                assert!(!self.ran, "a run that got to its exec is undone: {self:?}");
                self.undone()
            }
            Verdict::Commit { status, reason } => {
                // The subreaper's own wait gives the real status of a container that its shim's
                // death killed; anybody else has to say that it does not know.
                let saved = self.same_daemon && reason == Reason::ShimLost;
                let status = match (saved, self.process) {
                    (true, Process::Killed) => ExitStatus::Signal(9),
                    (true, Process::Ended) => TRUE_STATUS,
                    (
                        _,
                        Process::None
                        | Process::Waiting
                        | Process::Running
                        | Process::Ended
                        | Process::Killed
                        | Process::Reaped,
                    ) => status,
                };
                // Without a shim nothing of the container may live on: the cgroup is killed.
                let process = if self.shim.is_none() { Process::Reaped } else { self.process };
                Self { daemon: Daemon::ExitSeen(status, reason), process, ..self }
            }
        }
    }

    /// Everything half made is gone, and the record is as before the intent.
    fn undone(self) -> Self {
        Self {
            daemon: Daemon::Idle,
            durable: Durable::Created,
            shim: None,
            identity_file: false,
            process: Process::None,
            ..self
        }
    }

    fn crashes(self) -> Vec<(&'static str, Self)> {
        let mut steps = Vec::new();
        if self.daemon != Daemon::Down && self.daemon_crashes < MAX_DAEMON_CRASHES {
            steps.push((
                "kill daemon",
                Self {
                    daemon: Daemon::Down,
                    same_daemon: false,
                    daemon_crashes: self.daemon_crashes + 1,
                    ..self
                },
            ));
        }
        if self.shim.is_some() && self.shim_crashes < MAX_SHIM_CRASHES {
            let process = match self.process {
                Process::Waiting | Process::Running => Process::Killed,
                Process::None | Process::Ended | Process::Killed | Process::Reaped => self.process,
            };
            steps.push((
                "kill shim",
                Self { shim: None, process, shim_crashes: self.shim_crashes + 1, ..self },
            ));
        }
        steps
    }

    fn restart(self) -> Option<Self> {
        (self.daemon == Daemon::Down).then(|| self.judge())
    }

    fn check(self) {
        if self.shim.is_some() {
            assert_ne!(
                self.durable,
                Durable::Created,
                "rule 1: a shim without an intent: {self:?}"
            );
        }
        if let Some(ShimState::Recorded(_)) = self.shim {
            assert!(self.record.is_some(), "rule 2: announced before durable: {self:?}");
        }
        if self.process == Process::Reaped && self.shim.is_none() && self.shim_crashes == 0 {
            assert!(
                matches!(self.durable, Durable::Ended { .. }) || self.record.is_some(),
                "rule 3: the shim went before the exit was committed: {self:?}"
            );
        }
        if let Durable::Ended { status, .. } = self.durable {
            let honest = match status {
                ExitStatus::Unknown => self.shim_crashes > 0,
                ExitStatus::Signal(9) => self.shim_crashes > 0,
                other @ (ExitStatus::Code(_) | ExitStatus::Signal(_)) => other == TRUE_STATUS,
            };
            assert!(honest, "rule 4: an invented or lost status: {self:?}");
        }
    }

    fn is_finished(self) -> bool {
        matches!(self.durable, Durable::Ended { .. })
            && self.shim.is_none()
            && matches!(self.process, Process::Reaped | Process::None)
    }
}

fn successors(world: World) -> Vec<(&'static str, World)> {
    let mut steps = world.progress();
    steps.extend(world.crashes());
    steps.extend(world.restart().map(|next| ("start daemon", next)));
    steps
}

#[test]
fn every_world_keeps_the_rules_and_comes_to_its_end() {
    let mut seen = HashSet::from([World::first()]);
    let mut queue = VecDeque::from([World::first()]);
    while let Some(world) = queue.pop_front() {
        world.check();
        for (_, next) in successors(world) {
            if seen.insert(next) {
                queue.push_back(next);
            }
        }
    }
    assert!(seen.len() > 200, "only {} worlds: the model lost its crashes", seen.len());

    // Rule 5: from every world, with the daemon up and nobody crashing any more.
    for world in &seen {
        let mut visited = HashSet::new();
        let mut frontier = vec![world.restart().unwrap_or(*world)];
        while let Some(current) = frontier.pop() {
            if !visited.insert(current) {
                continue;
            }
            let next = current.progress();
            if next.is_empty() {
                assert!(current.is_finished(), "rule 5: stuck in {current:?}, from {world:?}");
            }
            frontier.extend(next.into_iter().map(|(_, next)| next));
        }
    }
}

#[test]
fn without_a_killed_shim_the_true_status_is_never_lost() {
    let mut seen = HashSet::new();
    let mut queue = vec![World::first()];
    while let Some(world) = queue.pop() {
        if !seen.insert(world) {
            continue;
        }
        if let Durable::Ended { status, reason, .. } = world.durable {
            assert_eq!((status, reason), (TRUE_STATUS, Reason::Exited), "{world:?}");
        }
        queue.extend(
            successors(world).into_iter().map(|(_, next)| next).filter(|w| w.shim_crashes == 0),
        );
    }
    assert!(seen.len() > 100);
}
