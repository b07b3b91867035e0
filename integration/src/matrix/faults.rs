//! What is done to the programs at a point, and the round that does it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::life::{self, Answer, History, Life, Patience, Told};
use super::points::Point;
use crate::ctl::Ctl;
use crate::daemon::{Daemon, Place, Settings};
use crate::process::Process;
use crate::wait;

/// How long after the last call something may take to get to a point that nobody waits for.
const REACHED: Duration = Duration::from_secs(3);
/// How long a step takes in the round of a client that goes, and when that goes.
const DELAY: Duration = Duration::from_millis(1200);
const PATIENCE: Duration = Duration::from_millis(600);
/// Steps in the root of a container, where nothing can be noted: every start passes them.
const IN_ITS_ROOT: [&str; 1] = ["shim.start.before_credentials"];

/// Between two looks for what has stopped.
const LOOK: Duration = Duration::from_millis(25);

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    KillDaemon,
    KillShim,
    KillBoth,
    /// The step fails, once.
    Fail,
    /// The step takes longer than its client waits.
    ClientGone,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KillDaemon => "kill -9 of the daemon",
            Self::KillShim => "kill -9 of the shim",
            Self::KillBoth => "kill -9 of both",
            Self::Fail => "an error",
            Self::ClientGone => "a client that goes",
        })
    }
}

/// Whether a life came by a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    Yes,
    /// The life does not pass it, or there is nothing yet that could be killed.
    No,
}

/// What a client does when the daemon is killed before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// It goes as well: what it asked for is left as it is.
    Goes,
    /// It asks the next daemon the same, where it is one that does so, and the life goes on.
    AsksAgain,
}

/// A life in which something happens at a point, when it is passed after `passes` times, and what is true
/// afterwards.
///
/// # Panics
/// When something was lost, altered or left behind.
#[must_use]
pub fn strike<L: Life>(
    point: &Point,
    passes: usize,
    fault: Fault,
    client: Client,
    make: impl FnOnce(&Daemon) -> L,
) -> Passed {
    let name = &point.name;
    let case = format!("{fault} at {name}:{passes}");
    match fault {
        Fault::KillDaemon | Fault::KillShim | Fault::KillBoth => {
            let mut daemon = L::settings().stop_at(&format!("{name}:{passes}")).prepare();
            // It may stop before it serves.
            daemon.launch();
            let life = make(&daemon);
            kill(daemon, fault, client, life, &case)
        }
        Fault::Fail => {
            let action = after(passes, "1*return");
            let mut daemon = noting(L::settings().failpoint(&format!("{name}={action}")));
            daemon.launch();
            if !daemon.serves_or_ends() {
                // It was its own start that failed.
                daemon.clear_environment();
                daemon.start_again();
                make(&daemon).expect_sound(&daemon, &case);
                return Passed::Yes;
            }
            let life = make(&daemon);
            let life = life::live(daemon.client(), life, &Patience::Endless, |_| Told::Failed);
            if point.side() == "shim" {
                // Every new shim would fail once.
                daemon.kill();
                daemon.clear_environment();
                daemon.start_again();
            }
            let passed = passed(&daemon, name, passes);
            life.expect_sound(&daemon, &case);
            passed
        }
        Fault::ClientGone => {
            let action = after(passes, &format!("1*sleep({})", DELAY.as_millis()));
            let mut daemon = noting(L::settings().failpoint(&format!("{name}={action}")));
            daemon.start_again();
            let mut life = make(&daemon);
            for call in 0..life.calls() {
                let told = impatient(daemon.client(), &mut life, call);
                life.note(call, told);
                if told == Told::Done {
                    life.wait(call, daemon.client());
                }
            }
            let passed = passed(&daemon, name, passes);
            life.expect_sound(&daemon, &case);
            passed
        }
    }
}

/// A daemon that writes down which of the points that were set are passed.
fn noting(settings: Settings) -> Daemon {
    let mut daemon = settings.prepare();
    let notes = notes(&daemon);
    daemon.add_variable("FAILPOINTS_NOTES", &notes.to_string_lossy());
    daemon
}

fn notes(daemon: &Daemon) -> PathBuf {
    daemon.scratch().join("passed")
}

/// Whether a point was passed more often than so many times: some are, when nobody waits for it any more.
fn passed(daemon: &Daemon, name: &str, passes: usize) -> Passed {
    let is_noted = || {
        let text = std::fs::read_to_string(notes(daemon)).unwrap_or_default();
        (text.lines().filter(|line| *line == name).count() > passes).then_some(())
    };
    match IN_ITS_ROOT.contains(&name) || wait::within(REACHED, is_noted).is_some() {
        true => Passed::Yes,
        false => Passed::No,
    }
}

/// An action of the crate `fail`, once a point was passed so many times.
fn after(passes: usize, action: &str) -> String {
    if passes == 0 { action.to_owned() } else { format!("{passes}*off->{action}") }
}

/// A client that goes when its answer takes too long. What it asked for is over afterwards, one way or
/// the other.
fn impatient(ctl: &Ctl, life: &mut impl Life, call: usize) -> Told {
    match life.ask(ctl, call, &Patience::Of(PATIENCE)) {
        Answer::Done => Told::Done,
        Answer::Failed(_) => Told::Failed,
        Answer::Late => {
            std::thread::sleep(DELAY);
            Told::Nothing
        }
    }
}

fn kill<L: Life>(mut daemon: Daemon, fault: Fault, client: Client, life: L, case: &str) -> Passed {
    let with_daemon = fault != Fault::KillShim;
    let told = move |_: &str| if with_daemon { Told::Nothing } else { Told::Failed };
    let ctl = daemon.client().clone();
    let stops = daemon.serving_or_stopped(|daemon| own(daemon).is_some());
    let dies = Arc::new(AtomicBool::new(false));
    let patience = match client {
        Client::Goes => Patience::WithDaemon(Arc::clone(&dies)),
        Client::AsksAgain => Patience::Endless,
    };
    let living = std::thread::spawn(move || match stops {
        // Nobody is there to be asked.
        true => life,
        false => life::live(&ctl, life, &patience, told),
    });
    let mut after = None;
    let found = loop {
        if let Some(stopped) = stopped(&daemon) {
            break Some(stopped);
        }
        let over = |since: &mut std::time::Instant| since.elapsed() > REACHED;
        if living.is_finished() && over(after.get_or_insert_with(std::time::Instant::now)) {
            break None;
        }
        std::thread::sleep(LOOK);
    };
    let Some(stopped) = found else {
        daemon.kill();
        daemon.clear_environment();
        daemon.start_again();
        let _ = living.join();
        return Passed::No;
    };
    dies.store(with_daemon, Ordering::Relaxed);
    strike_stopped(daemon, stopped, fault, || living.join().ok(), case)
}

/// A daemon that stops at a point while it finds out what the one before left: a container that runs.
///
/// # Panics
/// As [`strike`].
#[must_use]
pub fn strike_recovery(point: &Point, fault: Fault, code: u8) -> Passed {
    let begin = |daemon: &mut Daemon| {
        let mut life = History::new(code);
        for call in 0..life.calls() - 2 {
            let answer = life.ask(daemon.client(), call, &Patience::Endless);
            assert_eq!(answer, Answer::Done, "{fault} at {}", point.name);
            life.note(call, Told::Done);
        }
        daemon.until_logged("one", "o 3 ");
        daemon.kill();
        life
    };
    strike_start(point, fault, begin)
}

/// A daemon that stops, or fails, at a point of its start, when another was killed before that had something:
/// `begin` makes it and kills that.
///
/// # Panics
/// As [`strike`].
#[must_use]
pub fn strike_start<L: Life>(
    point: &Point,
    fault: Fault,
    begin: impl FnOnce(&mut Daemon) -> L,
) -> Passed {
    let case = format!("{fault} at {}", point.name);
    let mut daemon = Settings::new().failpoint("no.such.point=off").start();
    let life = begin(&mut daemon);
    daemon.clear_environment();
    if fault == Fault::Fail {
        daemon.set_failpoint(&format!("{}=1*return", point.name));
        daemon.launch();
        let passed = if daemon.serves_or_ends() { Passed::No } else { Passed::Yes };
        if passed == Passed::Yes {
            daemon.clear_environment();
            daemon.start_again();
        }
        life.expect_sound(&daemon, &case);
        return passed;
    }
    daemon.add_variable("FAILPOINTS_STOP", &point.name);
    daemon.launch();
    if !daemon.serving_or_stopped(|daemon| own(daemon).is_some()) {
        return Passed::No;
    }
    let stopped = stopped(&daemon).expect("it stands still");
    strike_stopped(daemon, stopped, fault, || Some(life), &case)
}

/// A daemon that stops, or fails, at a point of its end, which it was asked for; nothing runs.
///
/// # Panics
/// As [`strike`].
#[must_use]
pub fn strike_leaving<L: Life>(
    point: &Point,
    fault: Fault,
    make: impl FnOnce(&Daemon) -> L,
) -> Passed {
    let case = format!("{fault} at {}", point.name);
    let mut daemon = match fault {
        Fault::KillDaemon | Fault::KillBoth => L::settings().stop_at(&point.name).start(),
        Fault::Fail | Fault::ClientGone => {
            let mut daemon = noting(L::settings().failpoint(&format!("{}=1*return", point.name)));
            daemon.start_again();
            daemon
        }
        // There is none.
        Fault::KillShim => return Passed::No,
    };
    let life = make(&daemon);
    if fault == Fault::Fail {
        let status = daemon.terminate();
        assert!(status.success(), "{case}: {status}");
        let passed = passed(&daemon, &point.name, 0);
        daemon.clear_environment();
        daemon.start_again();
        life.expect_sound(&daemon, &case);
        return passed;
    }
    let pid = daemon.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let _ = kill_process(pid.expect("it runs"), Signal::TERM);
    let found = wait::within(wait::LIMIT, || own(&daemon));
    let stopped = found.unwrap_or_else(|| panic!("{case}: it does not stop there"));
    strike_stopped(daemon, stopped, fault, || Some(life), &case)
}

fn strike_stopped<L: Life>(
    mut daemon: Daemon,
    stopped: Process,
    fault: Fault,
    lived: impl FnOnce() -> Option<L>,
    case: &str,
) -> Passed {
    let with_daemon = fault != Fault::KillShim;
    let shims = shims(&daemon);
    let kills_shim = fault != Fault::KillDaemon;
    let logged = life::logged(&daemon);
    if with_daemon {
        daemon.kill();
    }
    if kills_shim {
        shims.iter().for_each(|shim| shim.kill());
    }
    // Whoever was stopped and is not dead goes on, as if nothing had been. So does the next shim that
    // stops there, or another child: that is not what is looked at.
    let (place, over) = (daemon.place().clone(), AtomicBool::new(false));
    proceed(stopped);
    let sound = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                stopped_of(&place).into_iter().for_each(proceed);
                std::thread::sleep(LOOK);
            }
        });
        let sound = catch_unwind(AssertUnwindSafe(|| {
            if with_daemon {
                daemon.clear_environment();
                daemon.start_again();
            }
            daemon.serving_or_stopped(|_| false);
            let mut life = lived().unwrap_or_else(|| panic!("{case}: the life broke off"));
            if kills_shim {
                life.without_shim(logged);
            }
            life.expect_sound(&daemon, case);
        }));
        over.store(true, Ordering::Relaxed);
        sound
    });
    if let Err(panic) = sound {
        resume_unwind(panic);
    }
    if kills_shim && shims.is_empty() { Passed::No } else { Passed::Yes }
}

/// The daemon, a shim or its child, when it has stopped at a point.
fn stopped(daemon: &Daemon) -> Option<Process> {
    own(daemon).or_else(|| stopped_of(daemon.place()))
}

fn own(daemon: &Daemon) -> Option<Process> {
    daemon.pid().map(Process).filter(|process| has_stopped(*process))
}

fn stopped_of(place: &Place) -> Option<Process> {
    let processes = Process::belonging(&place.prefix, &place.state);
    processes.into_iter().find(|process| has_stopped(*process))
}

fn has_stopped(process: Process) -> bool {
    let state = process.status("State").unwrap_or_default();
    state.starts_with('T') || process.command() == "failpoint"
}

fn proceed(process: Process) {
    if let Some(pid) = i32::try_from(process.0).ok().and_then(Pid::from_raw) {
        // It may be one of those that were killed.
        let _ = kill_process(pid, Signal::CONT);
    }
}

/// The shims of a daemon's containers, without what they are about to become containers of.
#[must_use]
pub fn shims(daemon: &Daemon) -> Vec<Process> {
    let place = daemon.place();
    let mut found = Process::belonging(&place.prefix, &place.state);
    found.retain(|process| process.command() == "bosun-shim" && process.lives());
    let all = found.clone();
    found.retain(|process| process.parent().is_none_or(|parent| !all.contains(&parent)));
    found
}
