//! Many of everything, and what grows.

use rustix::process::{Pid, Signal, kill_process};

use super::{Case, code};
use crate::daemon::Daemon;
use crate::process::Process;
use crate::wait;

/// Of one round.
const LIVES: usize = 60;
const EXECS: usize = 100;
const ENDS: usize = 30;
const HUNGRY: usize = 6;
/// What a process may grow by, in kilobytes, between the middle of a round and its end.
const GROWTH_KB: u64 = 1_500;

pub(super) fn growth() -> Vec<Case> {
    vec![Case::plain("containers", |_| lives()), Case::plain("execs", |_| execs())]
}

pub(super) fn ends() -> Vec<Case> {
    vec![Case::plain("all at once", ends_at_once), Case::plain("out of memory", |_| hungry())]
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    memory: u64,
    descriptors: usize,
    threads: usize,
}

fn held(process: Process) -> Held {
    Held {
        memory: process.memory("VmRSS").unwrap_or_default(),
        descriptors: process.descriptors().len(),
        threads: process.threads(),
    }
}

/// Waits until a process holds no more descriptors and threads than it did, and looks at its memory.
#[track_caller]
fn expect_no_growth(process: Process, before: Held, what: &str) {
    let settled = wait::within(wait::LIMIT, || {
        let now = held(process);
        (now.descriptors <= before.descriptors && now.threads <= before.threads).then_some(())
    });
    let now = held(process);
    assert!(settled.is_some(), "{what}: {before:?} became {now:?}");
    assert!(now.memory < before.memory + GROWTH_KB, "{what}: {before:?} became {now:?}");
}

fn lives() {
    let daemon = Daemon::start();
    let process = Process(daemon.pid().expect("the daemon runs"));
    let some = || {
        for _ in 0..LIVES {
            daemon.ctl("run --rm --net none --rootfs / /bin/true").ok();
        }
        daemon.expect_nothing_left();
    };
    some();
    let before = held(process);
    some();
    expect_no_growth(process, before, "the daemon");
}

fn execs() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    let (process, shim) = (Process(daemon.pid().expect("the daemon runs")), daemon.shim("one"));
    let some = || {
        for number in 0..EXECS {
            let code = code(number);
            daemon.ctl(&format!("exec one /bin/sh -c 'exit {code}'")).check(code.into());
        }
    };
    some();
    let before = [held(process), held(shim)];
    some();
    expect_no_growth(process, before[0], "the daemon");
    expect_no_growth(shim, before[1], "the shim");
}

fn ends_at_once(round: usize) {
    let daemon = Daemon::start();
    let mut expected = Vec::new();
    for number in 0..ENDS {
        let (name, code) = (format!("c{number}"), code(round * ENDS + number));
        let script = format!("trap \"exit {code}\" TERM; echo ready; while :; do sleep 0.1; done");
        daemon
            .ctl(&format!("run -d --name {name} --net none --rootfs / /bin/sh -c '{script}'"))
            .ok();
        daemon.until_logged(&name, "ready");
        expected.push((name, code));
    }
    let processes: Vec<Process> = expected.iter().map(|(name, _)| daemon.process(name)).collect();
    for process in processes {
        let pid = i32::try_from(process.0).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, Signal::TERM).expect("it lives");
    }
    for (name, code) in expected {
        assert_eq!(daemon.ctl(&format!("wait {name}")).waited(), code.to_string(), "{name}");
    }
}

fn hungry() {
    let daemon = Daemon::start();
    for number in 0..HUNGRY {
        let script = "x=x; while :; do x=$x$x; done";
        let limits = "--memory 16m --memory-swap 16m --net none --rootfs /";
        daemon.ctl(&format!("run -d --name c{number} {limits} /bin/sh -c '{script}'")).ok();
    }
    for number in 0..HUNGRY {
        let name = format!("c{number}");
        assert_eq!(daemon.ctl(&format!("wait {name}")).waited(), "137", "{name}");
        let exit = daemon.api().get(&name).state.and_then(|state| state.exit).expect("an exit");
        assert!(exit.oom_killed && exit.signal == 9, "{name}: {exit:?}");
    }
}
