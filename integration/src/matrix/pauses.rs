//! The life of a container that is held still and let go on: what it writes tells which of both it is.

use std::collections::BTreeSet;
use std::time::Duration;

use super::life::{self, Answer, Extent, Life, Patience, SETTLED, Told, learn};
use crate::ctl::Ctl;
use crate::daemon::Daemon;
use crate::wait;

/// A call of this life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Run,
    Pause,
    Unpause,
    PauseAgain,
    Stop,
    Remove,
}

const CALLS: [Call; 6] =
    [Call::Run, Call::Pause, Call::Unpause, Call::PauseAgain, Call::Stop, Call::Remove];

/// Where the container may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Absent,
    Created,
    Running,
    Paused,
    Exited,
}

/// How long nothing is written by what stands still; otherwise there is a line every few milliseconds.
const STILL: Duration = Duration::from_millis(400);

/// What is known of such a container.
#[derive(Debug)]
pub struct PauseLife {
    /// What it ends with when it is asked to.
    code: u8,
    states: BTreeSet<State>,
    shim_killed: Option<[u64; 2]>,
}

impl PauseLife {
    #[must_use]
    pub fn new(code: u8) -> Self {
        Self { code, states: [State::Absent].into(), shim_killed: None }
    }

    fn words(&self, call: Call) -> String {
        match call {
            Call::Run => {
                let lines = life::lines_until_stopped(self.code, "0.02");
                format!("run -d --name one --net none --rootfs / {lines}")
            }
            Call::Pause | Call::PauseAgain => "pause one".to_owned(),
            Call::Unpause => "unpause one".to_owned(),
            Call::Stop => "stop -t 5 one".to_owned(),
            Call::Remove => "rm -f one".to_owned(),
        }
    }

    /// Where it may be now. Who is killed with its shim has ended.
    fn states(&self) -> BTreeSet<State> {
        let mut states = self.states.clone();
        let may_run = [State::Created, State::Running, State::Paused];
        if self.shim_killed.is_some() && may_run.iter().any(|state| states.contains(state)) {
            states.insert(State::Exited);
        }
        states
    }

    fn is(&self, state: State) -> bool {
        self.states.contains(&state)
    }
}

impl Life for PauseLife {
    fn calls(&self) -> usize {
        CALLS.len()
    }

    fn ask(&mut self, ctl: &Ctl, call: usize, patience: &Patience) -> Answer {
        Answer::of_ctl(ctl, &self.words(CALLS[call]), "", patience)
    }

    fn note(&mut self, call: usize, told: Told) {
        match CALLS[call] {
            Call::Run => {
                learn(&mut self.states, told, State::Running);
                if told == Told::Nothing {
                    // It is two: of the first there is a container that does not run yet.
                    self.states.insert(State::Created);
                }
            }
            Call::Pause | Call::PauseAgain if self.is(State::Running) => {
                learn(&mut self.states, told, State::Paused);
            }
            Call::Unpause if self.is(State::Paused) => {
                learn(&mut self.states, told, State::Running);
            }
            Call::Stop if self.is(State::Running) || self.is(State::Paused) => {
                // What stands still goes on first.
                if told != Told::Done && self.is(State::Paused) {
                    self.states.insert(State::Running);
                }
                learn(&mut self.states, told, State::Exited);
            }
            Call::Pause | Call::PauseAgain | Call::Unpause | Call::Stop => {}
            Call::Remove => learn(&mut self.states, told, State::Absent),
        }
    }

    fn without_shim(&mut self, logged: [u64; 2]) {
        self.shim_killed = Some(logged);
    }

    /// It stands still if its daemon says so, and only then; it goes on when it is let, and ends when it is asked to,
    /// with all that it has written.
    #[track_caller]
    fn expect_sound(&self, daemon: &Daemon, case: &str) {
        match settled(daemon, &self.states(), case, self) {
            State::Absent => {}
            State::Created => {
                daemon.ctl("rm one").ok();
            }
            State::Running => self.expect_end(daemon, case),
            State::Paused => {
                let before = life::logged(daemon);
                std::thread::sleep(STILL);
                assert_eq!(life::logged(daemon), before, "{case}: it is paused, and goes on");
                daemon.ctl("unpause one").ok();
                self.expect_end(daemon, case);
            }
            State::Exited => {
                let extent = Extent::AtLeast(self.shim_killed.unwrap_or_default());
                life::expect_log(daemon, "one", extent, case);
                daemon.ctl("rm one").ok();
            }
        }
        daemon.expect_nothing_left();
        for call in CALLS {
            daemon.ctl(&self.words(call)).ok();
        }
        daemon.expect_nothing_left();
    }
}

impl PauseLife {
    #[track_caller]
    fn expect_end(&self, daemon: &Daemon, case: &str) {
        let before = life::logged(daemon);
        let more = wait::within(SETTLED, || (life::logged(daemon) > before).then_some(()));
        assert!(more.is_some(), "{case}: it runs, and stands still at {before:?}");
        daemon.ctl("stop -t 5 one").ok();
        let code = daemon.inspect("one", "{{.State.ExitCode}}");
        assert_eq!(code, self.code.to_string(), "{case}");
        life::expect_log(daemon, "one", Extent::Whole, case);
        daemon.ctl("rm one").ok();
    }
}

/// As [`life::settled`], of one that may be paused.
#[track_caller]
fn settled(daemon: &Daemon, allowed: &BTreeSet<State>, case: &str, life: &PauseLife) -> State {
    life::settled_by(daemon, allowed, case, life, |listed| match listed {
        "" => Some(State::Absent),
        "one created" => Some(State::Created),
        "one running" => Some(State::Running),
        "one paused" => Some(State::Paused),
        "one exited" => Some(State::Exited),
        _ => None,
    })
}
