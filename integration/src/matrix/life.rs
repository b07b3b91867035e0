//! A container's whole life, what its client was told of it, and what must be true then.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ctl::{Ctl, Output};
use crate::daemon::Daemon;
use crate::wait;

/// How long a daemon may take until what it says is what was promised: to find a shim's death, to
/// undo what was begun.
const SETTLED: Duration = Duration::from_secs(10);
/// Between two looks at a log.
const LOOK: Duration = Duration::from_millis(100);

/// A line by which a container's log has been rotated: its files have 2 kB.
const ROTATED: &str = "o 30 ";

/// Where a container may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Absent,
    Created,
    Running,
    Exited,
}

/// A call of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Create,
    Start,
    Update,
    Exec,
    Stop,
    Remove,
}

/// In their order.
pub const CALLS: [Call; 6] =
    [Call::Create, Call::Start, Call::Update, Call::Exec, Call::Stop, Call::Remove];

/// What a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Done,
    /// It failed, says the daemon.
    Failed,
    /// Nobody answered.
    Nothing,
}

/// What has happened to a container, as far as a client knows.
#[derive(Clone, Debug)]
pub struct History {
    /// What it ends with when it is asked to.
    pub code: u8,
    states: BTreeSet<State>,
    calls: Vec<(Call, Told)>,
    /// Its shim was killed: it may have ended at any time, and its status may be unknown.
    pub shim_killed: bool,
}

impl History {
    #[must_use]
    pub fn new(code: u8) -> Self {
        let states = BTreeSet::from([State::Absent]);
        Self { code, states, calls: Vec::new(), shim_killed: false }
    }

    /// The words of a call for the client.
    #[must_use]
    pub fn words(&self, call: Call) -> String {
        let code = self.code;
        match call {
            Call::Create => format!(
                "create --name one -p 5000:5000 --log-opt max-size=2k --log-opt max-file=1000 \
                 --rootfs / /bin/sh -c \
                 'trap \"exit {code}\" TERM; i=0; while :; do i=$((i+1)); \
                 echo o $i $((i*7919%65521)); echo e $i $((i*7919%65521)) >&2; sleep 0.02; done'"
            ),
            Call::Start => "start one".to_owned(),
            Call::Update => "update --memory 256m one".to_owned(),
            Call::Exec => "exec one /bin/true".to_owned(),
            Call::Stop => "stop -t 5 one".to_owned(),
            Call::Remove => "rm -f one".to_owned(),
        }
    }

    /// Notes what a call's client was told.
    pub fn note(&mut self, call: Call, told: Told) {
        self.calls.push((call, told));
        let after: BTreeSet<State> = match call {
            Call::Create => [State::Created].into(),
            Call::Start => [State::Running].into(),
            Call::Update | Call::Exec => self.states.clone(),
            Call::Stop => [State::Exited].into(),
            Call::Remove => [State::Absent].into(),
        };
        match told {
            Told::Done => self.states = after,
            // A start that failed may have had its process for a moment.
            Told::Failed if call == Call::Start => _ = self.states.insert(State::Exited),
            Told::Failed => {}
            Told::Nothing => self.states.extend(after),
        }
    }

    /// Where the container may be now.
    #[must_use]
    pub fn states(&self) -> BTreeSet<State> {
        let mut states = self.states.clone();
        if self.shim_killed
            && (states.contains(&State::Running) || states.contains(&State::Created))
        {
            states.insert(State::Exited);
        }
        states
    }

    /// Whether a stop was acknowledged, or may have reached the process.
    fn was_stopped(&self) -> bool {
        self.calls.iter().any(|(call, _)| *call == Call::Stop)
    }
}

/// Does a whole life, call by call, until one is not answered any more. `told` is what to make of a
/// call that failed.
#[must_use]
pub fn live(ctl: &Ctl, mut history: History, told: impl Fn(&Output) -> Told) -> History {
    for call in CALLS {
        let output = ctl.run(&history.words(call));
        let told = if output.code == Some(0) { Told::Done } else { told(&output) };
        history.note(call, told);
        if told == Told::Nothing {
            break;
        }
        if (call, told) == (Call::Exec, Told::Done) {
            // As much as makes its log rotate.
            let _ = wait::within(SETTLED, || {
                std::thread::sleep(LOOK);
                ctl.run("logs one").stdout.contains(ROTATED).then_some(())
            });
        }
    }
    history
}

/// There is one truth, and it is one that the history allows; what was written is whole; a container of
/// the same name and port can be made, and ends as it should; and nothing is left.
///
/// # Panics
/// When not, with the case.
#[track_caller]
pub fn expect_sound(daemon: &Daemon, history: &History, case: &str) {
    let mut seen = State::Absent;
    let allowed = history.states();
    let settled = wait::within(SETTLED, || {
        seen = state(daemon, case);
        allowed.contains(&seen).then_some(())
    });
    assert!(settled.is_some(), "{case}: it is {seen:?}, and may be {allowed:?}: {history:?}");
    match seen {
        State::Absent | State::Created => {}
        State::Running => {
            assert_eq!(daemon.ctl("exec one /bin/echo yes").text(), "yes", "{case}");
            expect_log(daemon, "one", case);
        }
        State::Exited => {
            expect_status(daemon, history, case);
            expect_log(daemon, "one", case);
        }
    }
    if seen != State::Absent {
        daemon.ctl("rm -f one").ok();
    }
    daemon.expect_nothing_left();
    for call in [Call::Create, Call::Start] {
        daemon.ctl(&history.words(call)).ok();
    }
    daemon.until_logged("one", "o 3 ");
    daemon.ctl("stop one").ok();
    let code = daemon.inspect("one", "{{.State.ExitCode}}");
    assert_eq!(code, history.code.to_string(), "{case}: the next one's");
    expect_log(daemon, "one", case);
    daemon.ctl("rm one").ok();
    daemon.expect_nothing_left();
}

fn state(daemon: &Daemon, case: &str) -> State {
    let listed = daemon.ctl("ps -a --format '{{.Names}} {{.State}}'").text();
    match listed.as_str() {
        "" => State::Absent,
        "one created" => State::Created,
        "one running" => State::Running,
        "one exited" => State::Exited,
        other => panic!("{case}: listed are {other:?}"),
    }
}

/// The status is the process' own, or says that it is unknown.
#[track_caller]
fn expect_status(daemon: &Daemon, history: &History, case: &str) {
    let exit = daemon.api().get("one").state.and_then(|state| state.exit);
    let Some(exit) = exit else { panic!("{case}: exited, and there is no status") };
    let own = history.was_stopped() && exit.status == u32::from(history.code) && !exit.unknown;
    // Killed with its shim, or before it had a program to run, it has no code of its own.
    let killed = history.shim_killed && (exit.unknown || exit.signal == 9);
    let never_ran = history.calls.contains(&(Call::Start, Told::Failed));
    assert!(own || killed || never_ran, "{case}: an invented status: {exit:?} for {history:?}");
}

/// The lines of a container's log are whole, none is missing and none is there twice.
///
/// # Panics
/// When not, with the case.
#[track_caller]
pub fn expect_log(daemon: &Daemon, container: &str, case: &str) {
    let output = daemon.ctl(&format!("logs {container}"));
    for (text, letter) in [(&output.stdout, 'o'), (&output.stderr, 'e')] {
        for (index, line) in text.lines().enumerate() {
            let number = index as u64 + 1;
            let expected = format!("{letter} {number} {}", number * 7919 % 65521);
            assert_eq!(line, expected, "{case}: line {number} of {container}");
        }
    }
}
