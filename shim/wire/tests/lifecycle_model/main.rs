//! The life of a container, explored exhaustively: its runs, one after the other, an exec, its removal;
//! shim, daemon and machine going down between any two steps, shims that hang, the daemon started again
//! as often as it was killed.
//!
//! A [`World`] is everything that exists. Every enabled step leads to another world; all that can be
//! reached are visited, and the rules of `shim_wire::lifecycle`, `exec` and `removal` hold in each. The
//! steps take every decision by the functions that shim and daemon call. What has to come to its end
//! does: where nothing moves any more, everything is at rest, and no progress leads in a circle.
//!
//! That the explorer would see an error is a test as well: each protocol of [`Broken`] has one.

mod daemon;
mod shim;
mod world;

use std::collections::HashMap;

use shim_wire::exec::ExecState;
use shim_wire::exit::ExitStatus;
use shim_wire::lifecycle::{Durable, Reason};

use world::{Broken, Budget, Config, Daemon, Process, Steps, World};

const EVERYTHING: Config = Config {
    broken: None,
    runs: 2,
    execs: false,
    auto_remove: false,
    state_on_disk: false,
    budget: Budget { daemon_crashes: 2, shim_crashes: 2, reboots: 1, mishaps: 1 },
};

/// A rule that does not hold, and the steps that led there.
struct Violation {
    rule: &'static str,
    steps: Vec<&'static str>,
    world: World,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}:", self.rule)?;
        for step in &self.steps {
            writeln!(f, "  {step}")?;
        }
        write!(f, "{:#?}", self.world)
    }
}

/// All worlds that were reached.
struct Explored {
    worlds: Vec<World>,
    /// The world and the step that each was reached by.
    from: Vec<(u32, &'static str)>,
    /// Where progress leads from each.
    progress: Vec<Vec<u32>>,
}

impl Explored {
    fn violation(&self, rule: &'static str, index: usize) -> Violation {
        let mut steps = Vec::new();
        let mut at = index;
        while at != 0 {
            let (before, step) = self.from[at];
            steps.push(step);
            at = before as usize;
        }
        steps.reverse();
        Violation { rule, steps, world: self.worlds[index] }
    }
}

/// The steps of the machine that are no misfortunes.
fn progress(world: &World, config: &Config) -> Steps {
    let mut steps = Steps::new();
    world.process_steps(&mut steps);
    world.shim_steps(config, &mut steps);
    world.daemon_steps(config, &mut steps);
    if world.daemon == Daemon::Down {
        steps.push(("the daemon starts", World { daemon: Daemon::Up, ..*world }));
    }
    steps
}

fn explore(config: &Config) -> Result<Explored, Box<Violation>> {
    let first = World::first(config.budget);
    let mut known = HashMap::from([(first, 0)]);
    let mut explored = Explored { worlds: vec![first], from: vec![(0, "")], progress: Vec::new() };
    let mut at = 0;
    while let Some(world) = explored.worlds.get(at).copied() {
        if let Some(rule) = world.violated() {
            return Err(Box::new(explored.violation(rule, at)));
        }
        let mut steps = progress(&world, config);
        if let Some(rule) = unfinished(&world, &steps) {
            return Err(Box::new(explored.violation(rule, at)));
        }
        let count = steps.len();
        world.wishes(config, &mut steps);
        world.misfortunes(config, &mut steps);
        let mut leads = Vec::with_capacity(count);
        for (number, (name, next)) in steps.into_iter().enumerate() {
            let index = *known.entry(next).or_insert_with(|| {
                explored.worlds.push(next);
                explored.from.push((u32::try_from(at).expect("few worlds"), name));
                u32::try_from(explored.worlds.len() - 1).expect("few worlds")
            });
            if number < count {
                leads.push(index);
            }
        }
        explored.progress.push(leads);
        at += 1;
    }
    match in_a_circle(&explored.progress) {
        Some(index) => Err(Box::new(explored.violation("progress goes in a circle", index))),
        None => Ok(explored),
    }
}

/// What is left undone in a world where nobody does anything any more.
fn unfinished(world: &World, progress: &Steps) -> Option<&'static str> {
    if progress.is_empty() && !world.is_finished() {
        return Some("it does not come to its end");
    }
    let waits = progress.iter().all(|(name, _)| *name == "the process ends");
    let forgotten = matches!(world.exec.state, None | Some(ExecState::Deleted));
    (waits && world.process == Process::Running && !forgotten)
        .then_some("an exec is kept for nobody")
}

/// A world that leads back to itself.
fn in_a_circle(progress: &[Vec<u32>]) -> Option<usize> {
    let mut entries = vec![0u32; progress.len()];
    for next in progress.iter().flatten() {
        entries[*next as usize] += 1;
    }
    let mut open: Vec<usize> = (0..entries.len()).filter(|index| entries[*index] == 0).collect();
    while let Some(index) = open.pop() {
        for next in &progress[index] {
            let next = *next as usize;
            entries[next] -= 1;
            if entries[next] == 0 {
                open.push(next);
            }
        }
    }
    entries.iter().position(|count| *count > 0)
}

fn expect_sound(config: &Config, at_least: usize) -> Explored {
    match explore(config) {
        Ok(explored) => {
            let count = explored.worlds.len();
            println!("{count} worlds");
            assert!(count >= at_least, "only {count} worlds: the model lost some of its steps");
            explored
        }
        Err(violation) => panic!("{violation}"),
    }
}

#[test]
fn two_runs_and_a_removal() {
    expect_sound(&EVERYTHING, 1000);
}

#[test]
fn a_container_that_is_removed_at_its_end() {
    expect_sound(&Config { auto_remove: true, ..EVERYTHING }, 1000);
}

#[test]
fn a_run_with_an_exec() {
    expect_sound(&Config { runs: 1, execs: true, ..EVERYTHING }, 1000);
}

#[test]
fn state_that_outlives_a_reboot() {
    expect_sound(&Config { state_on_disk: true, ..EVERYTHING }, 1000);
}

#[test]
fn without_a_killed_shim_the_true_status_is_never_lost() {
    let budget = Budget { shim_crashes: 0, reboots: 0, mishaps: 0, ..EVERYTHING.budget };
    let explored = expect_sound(&Config { budget, ..EVERYTHING }, 100);
    for world in explored.worlds.iter().filter(|world| world.ran) {
        if let Some(Durable::Ended { status, reason, .. }) = world.row {
            assert_ne!(status, ExitStatus::Unknown, "{world:?}");
            assert_eq!(reason, Reason::Exited, "{world:?}");
        }
    }
}

/// Explores a protocol with an error in it.
fn expect_seen(broken: Broken, rule: &str) {
    let execs =
        matches!(broken, Broken::ExecsToldLast | Broken::ExecStatusInvented | Broken::ExecsKept);
    let auto_remove = broken == Broken::NameFreedEarly;
    let runs = if execs { 1 } else { 2 };
    let config = Config { broken: Some(broken), execs, auto_remove, runs, ..EVERYTHING };
    match explore(&config) {
        Ok(explored) => panic!("{broken:?} is not seen in {} worlds", explored.worlds.len()),
        Err(violation) => assert_eq!(violation.rule, rule, "{broken:?}: {violation}"),
    }
}

#[test]
fn errors_in_the_exit_protocol_are_seen() {
    expect_seen(Broken::RecordOfAnyRun, "an invented status");
    expect_seen(Broken::AttemptUsedAgain, "an invented status");
    expect_seen(Broken::ToldBeforeDurable, "announced before durable");
    expect_seen(Broken::ReleasedBeforeCommit, "released before the exit was committed");
    expect_seen(Broken::RecordReadTooEarly, "a status that was recorded is lost");
    expect_seen(Broken::UnansweredUndone, "a run that got to its exec is undone");
    expect_seen(Broken::StrayShim, "a living shim that its identity does not name");
    expect_seen(Broken::CgroupLeft, "it is said to have ended, and lives");
}

#[test]
fn errors_in_the_protocol_of_execs_are_seen() {
    expect_seen(Broken::ExecsToldLast, "the container's end is told before its exec's");
    expect_seen(Broken::ExecStatusInvented, "an invented status of an exec");
    expect_seen(Broken::ExecsKept, "an exec is kept for nobody");
}

#[test]
fn errors_in_the_removal_are_seen() {
    expect_seen(Broken::ErasedBeforeCommit, "a record without its directories");
    expect_seen(Broken::NameFreedEarly, "a name is free and what it stood for is not");
    expect_seen(Broken::RunDirectoryFirst, "it does not come to its end");
    expect_seen(Broken::ShimEndLast, "a living shim that its identity does not name");
    expect_seen(Broken::RemovedUnended, "a name is free and what it stood for is not");
    expect_seen(Broken::NotedTooEarly, "noted as clean with something left");
}
