//! Everything that exists of one container: what is durable, what the kernel has, what the daemon
//! remembers, and what is true. And the rules, asserted of every world.

use shim_wire::exec::ExecState;
use shim_wire::exit::ExitStatus;
use shim_wire::lifecycle::{Durable, Living, Reason, Recorded, ShimState, Told};

/// A step's name and where it leads.
pub(crate) type Steps = Vec<(&'static str, World)>;

/// How a run ends by itself: each of its own, so that none can be taken for another's.
pub(crate) fn own_end(attempt: u64) -> ExitStatus {
    ExitStatus::Code(if attempt == 1 { 41 } else { 42 })
}

pub(crate) const EXEC_END: ExitStatus = ExitStatus::Code(7);
pub(crate) const KILLED: ExitStatus = ExitStatus::Signal(9);

/// A protocol with an error in it: the explorer has to find what comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A record is taken for the present run's, whatever number it carries.
    RecordOfAnyRun,
    /// A number is used again when its run was undone.
    AttemptUsedAgain,
    /// The shim tells of the exit before its record is durable.
    ToldBeforeDurable,
    /// The shim is released before the exit is committed.
    ReleasedBeforeCommit,
    /// The record is read while a shim that does not answer may still write it.
    RecordReadTooEarly,
    /// A start whose answer never came is undone like one that was refused.
    UnansweredUndone,
    /// A shim outlives its daemon before it can be found by its identity.
    StrayShim,
    /// The container's end is told while an exec's is not.
    ExecsToldLast,
    /// Who waits for an exec whose shim died is told a code.
    ExecStatusInvented,
    /// The execs of an earlier daemon are nobody's.
    ExecsKept,
    /// The directories go before the removal is committed.
    ErasedBeforeCommit,
    /// The name is free before network and ports are.
    NameFreedEarly,
    /// The run directory goes before the rest.
    RunDirectoryFirst,
    /// The shim's end is not waited for before what it holds is removed.
    ShimEndLast,
    /// A removal goes on although the exit of its run could not be committed.
    RemovedUnended,
    /// A removal is noted as clean before it is.
    NotedTooEarly,
    /// What stands in the cgroup of a lost shim's container is left alone.
    CgroupLeft,
}

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) broken: Option<Broken>,
    pub(crate) runs: u64,
    pub(crate) execs: bool,
    pub(crate) auto_remove: bool,
    /// The state directory is on a disk and outlives a reboot.
    pub(crate) state_on_disk: bool,
    pub(crate) budget: Budget,
}

/// How often things may still go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    pub(crate) daemon_crashes: u8,
    pub(crate) shim_crashes: u8,
    pub(crate) reboots: u8,
    /// A shim that is stopped for a while, a process that is killed before its exec, a refusal.
    pub(crate) mishaps: u8,
}

/// The container's first process, whoever watches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Process {
    None,
    /// Before its exec.
    Waiting,
    Running,
    /// Ended; the status waits for whoever reaps it.
    Ended,
    Reaped,
}

impl Process {
    pub(crate) fn lives(self) -> bool {
        matches!(self, Self::Waiting | Self::Running)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shim {
    /// The run that it was started for.
    pub(crate) run: u64,
    /// Its identity is written.
    pub(crate) known: bool,
    pub(crate) state: ShimState,
    /// It was stopped: it does nothing, and answers nobody.
    pub(crate) stopped: bool,
}

impl Shim {
    pub(crate) fn answers(self) -> Living {
        Living {
            attempt: if self.state == ShimState::Empty { 0 } else { self.run },
            state: self.state,
        }
    }
}

/// What lies in the socket between the daemon and the shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    None,
    Create,
    Start,
    Created,
    Started,
    Refused,
}

/// Where the daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Daemon {
    Down,
    /// It has the root's lock and has looked at nothing.
    Up,
    /// It has asked the shim.
    Asked {
        shim: Option<Living>,
        launched: bool,
        read: Option<Option<Recorded>>,
    },
    /// Nothing runs, and nothing is left to be done.
    Idle,
    Intended,
    Placed,
    Connected,
    Spawned,
    CreateSent,
    StartSent,
    Watching,
    StartFailed(Told),
    /// As before, and the shim is dead.
    StartDead(Told),
    /// It is to be undone.
    Undo,
    /// It knows how the run ended and has not committed it.
    Exit {
        status: ExitStatus,
        reason: Reason,
    },
    LetGo {
        at: usize,
        lease: bool,
    },
    Tell,
    Dismantle {
        at: usize,
    },
    Reconcile,
    Erase {
        at: usize,
    },
    /// Nothing is left of it.
    Over,
}

/// Who asked for the exec, as far as they are still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asker {
    /// Nobody has yet.
    None,
    /// It is to be started.
    Starts,
    Waits,
    /// Their daemon is gone.
    Gone,
    /// They were told, and it is to be deleted.
    Told(Option<ExitStatus>),
    Done(Option<ExitStatus>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Exec {
    /// As the shim has it.
    pub(crate) state: Option<ExecState>,
    pub(crate) lives: bool,
    pub(crate) truth: Option<ExitStatus>,
    pub(crate) asker: Asker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Removed {
    pub(crate) last: Durable,
    pub(crate) clean: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    /// In the store.
    pub(crate) row: Option<Durable>,
    pub(crate) removed: Option<Removed>,
    /// The intent was committed before the last boot.
    pub(crate) other_boot: bool,
    /// `exit.json`, as it is read, and as a power cut leaves it.
    pub(crate) record: Option<Recorded>,
    pub(crate) synced: Option<Recorded>,
    pub(crate) container_dir: bool,
    pub(crate) snapshot: bool,

    pub(crate) run_dir: bool,
    pub(crate) sockets: bool,
    /// The run whose shim the identity file names.
    pub(crate) identity: Option<u64>,
    pub(crate) network: bool,
    pub(crate) cgroup: bool,
    pub(crate) shim: Option<Shim>,
    /// A shim that nobody can find.
    pub(crate) stray: bool,
    pub(crate) process: Process,
    pub(crate) call: Call,
    pub(crate) exec: Exec,

    pub(crate) daemon: Daemon,
    /// The daemon that started the shim still lives: the kernel gives it what the shim leaves.
    pub(crate) subreaper: bool,
    /// It has taken everything up.
    pub(crate) serving: bool,
    pub(crate) name_free: bool,
    /// A forced removal waits for the end of the run.
    pub(crate) remove: bool,

    /// How the present run's process really ended.
    pub(crate) truth: Option<ExitStatus>,
    /// It got to its exec.
    pub(crate) ran: bool,
    /// Something that knew the status may have died in this run.
    pub(crate) excused: bool,
    pub(crate) budget: Budget,
}

impl World {
    /// A container that was just made.
    pub(crate) fn first(budget: Budget) -> Self {
        Self {
            row: Some(Durable::Created { attempts: 0 }),
            removed: None,
            other_boot: false,
            record: None,
            synced: None,
            container_dir: true,
            snapshot: true,
            run_dir: false,
            sockets: false,
            identity: None,
            network: false,
            cgroup: false,
            shim: None,
            stray: false,
            process: Process::None,
            call: Call::None,
            exec: Exec { state: None, lives: false, truth: None, asker: Asker::None },
            daemon: Daemon::Idle,
            subreaper: false,
            serving: true,
            name_free: false,
            remove: false,
            truth: None,
            ran: false,
            excused: false,
            budget,
        }
    }

    /// The last run's number.
    pub(crate) fn attempt(&self) -> u64 {
        self.row.or(self.removed.map(|removed| removed.last)).map_or(0, Durable::attempts)
    }

    /// The first rule that does not hold.
    pub(crate) fn violated(&self) -> Option<&'static str> {
        self.run_rules().or_else(|| self.exec_rules()).or_else(|| self.removal_rules())
    }

    fn run_rules(&self) -> Option<&'static str> {
        if let Some(shim) = self.shim {
            match self.row {
                Some(Durable::Created { .. }) => return Some("a shim without an intent"),
                Some(Durable::Intent { attempt }) if shim.run != attempt => {
                    return Some("a shim of an earlier run beside a new intent");
                }
                Some(Durable::Intent { .. })
                    if shim.state == ShimState::Released && self.synced_here() =>
                {
                    return Some("released before the exit was committed");
                }
                Some(Durable::Intent { .. } | Durable::Ended { .. }) | None => {}
            }
            if matches!(shim.state, ShimState::Recorded(_)) && !self.synced_here() {
                return Some("announced before durable");
            }
            if shim.known && self.identity != Some(shim.run) {
                return Some("a living shim that its identity does not name");
            }
        }
        let last = self.row.or(self.removed.map(|removed| removed.last));
        if let Some(Durable::Ended { status, .. }) = last {
            let honest = match status {
                ExitStatus::Unknown => self.excused,
                ExitStatus::Code(_) | ExitStatus::Signal(_) => Some(status) == self.truth,
            };
            if !honest {
                return Some("an invented status");
            }
            if status == ExitStatus::Unknown && self.recorded_here() {
                return Some("a status that was recorded is lost");
            }
            if self.process.lives() && self.shim.is_none() {
                return Some("it is said to have ended, and lives");
            }
        }
        if self.process.lives() && !self.cgroup {
            return Some("a process without its cgroup");
        }
        if let (Some(Durable::Created { .. }), true) = (last, self.ran) {
            return Some("a run that got to its exec is undone");
        }
        None
    }

    fn recorded_here(&self) -> bool {
        self.record.is_some_and(|record| record.attempt == self.attempt())
    }

    fn synced_here(&self) -> bool {
        self.synced.is_some_and(|record| record.attempt == self.attempt())
    }

    fn exec_rules(&self) -> Option<&'static str> {
        if let Asker::Told(Some(status)) | Asker::Done(Some(status)) = self.exec.asker
            && self.exec.truth != Some(status)
        {
            return Some("an invented status of an exec");
        }
        let ended = self.shim.is_some_and(|shim| matches!(shim.state, ShimState::Recorded(_)));
        if ended && self.exec.state.is_some_and(|state| !state.is_settled()) {
            return Some("the container's end is told before its exec's");
        }
        None
    }

    fn removal_rules(&self) -> Option<&'static str> {
        if self.row.is_some() && !(self.container_dir && self.snapshot) {
            return Some("a record without its directories");
        }
        let held = self.shim.is_some_and(|shim| shim.state != ShimState::Released);
        if self.name_free && (self.row.is_some() || self.network || held) {
            return Some("a name is free and what it stood for is not");
        }
        if self.shim.is_some() && !self.snapshot {
            return Some("a snapshot is removed under a shim that has it mounted");
        }
        if self.removed.is_some_and(|removed| removed.clean) && !self.is_clean() {
            return Some("noted as clean with something left");
        }
        None
    }

    fn is_clean(&self) -> bool {
        !self.container_dir && !self.snapshot && self.is_at_rest()
    }

    fn is_at_rest(&self) -> bool {
        let held = self.run_dir || self.sockets || self.cgroup || self.network;
        self.shim.is_none()
            && !self.stray
            && !held
            && self.identity.is_none()
            && !self.process.lives()
            && !self.exec.lives
    }

    /// Whether everything has come to its end, for a world in which nothing moves any more.
    pub(crate) fn is_finished(&self) -> bool {
        let told = !matches!(self.exec.asker, Asker::Starts | Asker::Waits | Asker::Told(_));
        let settled = match self.row {
            Some(Durable::Created { .. } | Durable::Ended { .. }) => {
                self.daemon == Daemon::Idle && !self.name_free
            }
            Some(Durable::Intent { .. }) => false,
            None => self.daemon == Daemon::Over && self.name_free && self.is_clean(),
        };
        settled && told && self.is_at_rest()
    }
}
