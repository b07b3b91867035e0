//! Many of everything, and what grows.

use std::collections::BTreeSet;
use std::time::Instant;

use bosun_proto::v1;
use rustix::process::{Pid, Signal, kill_process};

use super::{Case, Round, code};
use crate::api::Api;
use crate::daemon::Daemon;
use crate::process::Process;
use crate::wait;

/// What a process may grow by, in kilobytes, between the middle of a round and its end.
const GROWTH_KB: u64 = 1_500;
/// How many times in a round it is looked at what a process holds.
const LOOKS: usize = 10;

pub(super) fn growth() -> Vec<Case> {
    vec![
        Case::measured("containers", lives),
        Case::measured("execs", execs),
        Case::measured("idle containers", idle),
    ]
}

pub(super) fn ends() -> Vec<Case> {
    vec![Case::measured("all at once", ends_at_once), Case::measured("out of memory", hungry)]
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) memory: u64,
    descriptors: usize,
    threads: usize,
}

pub(super) fn held(process: Process) -> Held {
    Held {
        memory: process.memory("Rss").expect("a process that lives"),
        descriptors: process.descriptors().len(),
        threads: process.threads(),
    }
}

/// Waits until a process holds no more descriptors and threads than it did, and of memory no more than so
/// many kilobytes in addition.
#[track_caller]
pub(super) fn expect_no_growth(process: Process, before: Held, memory: u64, what: &str) {
    let settled = wait::within(wait::LIMIT, || {
        let now = held(process);
        let settled = now.descriptors <= before.descriptors && now.threads <= before.threads;
        (settled && now.memory < before.memory + memory).then_some(())
    });
    let (now, open) = (held(process), process.descriptors());
    assert!(settled.is_some(), "{what}: {before:?} became {now:?}: {open:?}");
}

/// What processes hold, again and again while something is repeated.
#[derive(Debug)]
struct Series {
    processes: Vec<(&'static str, Process)>,
    held: Vec<Vec<Held>>,
}

impl Series {
    fn of(processes: Vec<(&'static str, Process)>) -> Self {
        Self { processes, held: Vec::new() }
    }

    fn look(&mut self) {
        self.held.push(self.processes.iter().map(|(_, process)| held(*process)).collect());
    }

    /// Reports by how much each process grew with each of so many repetitions between two looks, and
    /// expects no growth between the middle of the round and its end.
    fn judge(&self, round: &Round, what: &str, repetitions: usize) {
        let middle = self.held.len() / 2;
        for (index, (name, process)) in self.processes.iter().enumerate() {
            let memory: Vec<u64> = self.held.iter().map(|held| held[index].memory).collect();
            let slope = slope(&memory[1..]) * 1024.0 / repetitions as f64;
            let (first, last) = (self.held[0][index], self.held[self.held.len() - 1][index]);
            round.measured(format!(
                "{} {what}: {name}: {slope:.1} bytes each, from {} to {} kB; descriptors {} to {}, threads {} to {}",
                repetitions * (self.held.len() - 1),
                first.memory, last.memory, first.descriptors, last.descriptors, first.threads, last.threads
            ));
            expect_no_growth(*process, self.held[middle][index], GROWTH_KB, name);
        }
    }
}

/// Of the line that is nearest to values at equal distances (least squares).
fn slope(values: &[u64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<u64>() as f64 / count;
    let middle = (count - 1.0) / 2.0;
    let pairs =
        values.iter().enumerate().map(|(at, value)| (at as f64 - middle, *value as f64 - mean));
    let (above, below) =
        pairs.fold((0.0, 0.0), |(above, below), (x, y)| (above + x * y, below + x * x));
    above / below
}

/// Containers, one after the other.
fn lives(round: &Round) {
    let daemon = Daemon::start();
    let mut series =
        Series::of(vec![("the daemon", Process(daemon.pid().expect("the daemon runs")))]);
    let some = round.count(120, 10_000) / LOOKS;
    series.look();
    for look in 0..LOOKS {
        for number in 0..some {
            let code = code(look * some + number);
            let words = format!("run --rm --net none --rootfs / /bin/sh -c 'exit {code}'");
            daemon.ctl(&words).check(code.into());
        }
        daemon.expect_nothing_left();
        series.look();
    }
    series.judge(round, "containers", some);
}

/// Processes in one container, one after the other, over one connection.
fn execs(round: &Round) {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 60000").ok();
    let process = Process(daemon.pid().expect("the daemon runs"));
    let mut series = Series::of(vec![("the daemon", process), ("the shim", daemon.shim("one"))]);
    let some = round.count(200, 100_000) / LOOKS;
    let api = daemon.api();
    series.look();
    for look in 0..LOOKS {
        for number in 0..some {
            let code = code(look * some + number);
            assert_eq!(exec(&api, "one", code), u32::from(code), "exec {number}");
        }
        series.look();
    }
    series.judge(round, "execs", some);
    assert_eq!(daemon.ctl("exec one /bin/echo on").text(), "on");
}

/// Runs a process that ends with this code; answers its status.
pub(super) fn exec(api: &Api, container: &str, code: u8) -> u32 {
    use v1::{exec_request, output_chunk};
    let open = v1::ExecOpen {
        container: container.to_owned(),
        command: ["/bin/sh", "-c", &format!("exit {code}")].map(str::to_owned).into(),
        ..Default::default()
    };
    let open = v1::ExecRequest { message: Some(exec_request::Message::Open(open)) };
    api.wait(async {
        let answers = api.io().exec(tokio_stream::iter([open])).await.expect("an exec");
        let mut answers = answers.into_inner();
        while let Some(chunk) = answers.message().await.expect("its stream") {
            if let Some(output_chunk::Message::Exit(exit)) = chunk.message {
                return exit.status;
            }
        }
        panic!("no status of an exec");
    })
}

/// Containers that do nothing: what they cost, and a daemon that starts takes them all up.
fn idle(round: &Round) {
    let mut daemon = Daemon::start();
    let count = round.count(15, 1_000);
    let base = held(Process(daemon.pid().expect("the daemon runs")));
    for number in 0..count {
        daemon.ctl(&format!("run -d --name c{number} --net none --rootfs / /bin/sleep 60000")).ok();
    }
    let running = |daemon: &Daemon| -> BTreeSet<(u32, u32)> {
        let states = daemon.api().list().into_iter().filter_map(|one| one.state);
        states.map(|state| (state.pid, state.shim_pid)).collect()
    };
    let before = running(&daemon);
    assert!(before.len() == count && before.iter().all(|(pid, _)| *pid != 0), "{before:?}");
    let now = held(Process(daemon.pid().expect("the daemon runs")));
    let shims: u64 = before.iter().filter_map(|(_, shim)| Process(*shim).memory("Pss")).sum();
    let begin = Instant::now();
    daemon.ctl("ps").ok();
    let listed = begin.elapsed();
    daemon.kill();
    let begin = Instant::now();
    daemon.start_again();
    let started = begin.elapsed();
    assert_eq!(running(&daemon), before);
    round.measured(format!(
        "{count} idle containers: {} kB and {:.2} descriptors of the daemon each, {} kB (PSS) of a shim; listed in {} ms; the next daemon serves after {} ms",
        now.memory.saturating_sub(base.memory) / count as u64,
        (now.descriptors - base.descriptors) as f64 / count as f64,
        shims / count as u64,
        listed.as_millis(),
        started.as_millis()
    ));
    daemon.ctl("run --rm --net none --rootfs / /bin/true").ok();
    for number in 0..count {
        daemon.ctl(&format!("rm -f c{number}")).ok();
    }
    daemon.expect_nothing_left();
}

fn ends_at_once(round: &Round) {
    let daemon = Daemon::start();
    let count = round.count(30, 1_000);
    let mut expected = Vec::new();
    for number in 0..count {
        let (name, code) = (format!("c{number}"), code(round.number * count + number));
        let script = format!("trap \"exit {code}\" TERM; echo ready; sleep 60000 & wait");
        daemon
            .ctl(&format!("run -d --name {name} --net none --rootfs / /bin/sh -c '{script}'"))
            .ok();
        expected.push((name, code));
    }
    for (name, _) in &expected {
        daemon.until_logged(name, "ready");
    }
    let processes: Vec<Process> = expected.iter().map(|(name, _)| daemon.process(name)).collect();
    let begin = Instant::now();
    for process in processes {
        let pid = i32::try_from(process.0).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, Signal::TERM).expect("it lives");
    }
    let sent = begin.elapsed();
    wait::within(wait::LIMIT * 4, || {
        let all = daemon.api().list();
        let ended =
            |one: &v1::Container| one.state.as_ref().is_some_and(|state| state.exit.is_some());
        all.iter().all(ended).then_some(())
    })
    .expect("their ends");
    round.measured(format!(
        "{count} ends, asked for in {} ms: all known after {} ms",
        sent.as_millis(),
        begin.elapsed().as_millis()
    ));
    for (name, code) in expected {
        assert_eq!(daemon.ctl(&format!("wait {name}")).waited(), code.to_string(), "{name}");
    }
}

/// Containers that take more memory than they may, some at once.
fn hungry(round: &Round) {
    const AT_ONCE: usize = 6;
    let daemon = Daemon::start();
    let count = round.count(AT_ONCE, 1_000);
    for first in (0..count).step_by(AT_ONCE) {
        let names: Vec<String> =
            (first..count.min(first + AT_ONCE)).map(|number| format!("c{number}")).collect();
        for name in &names {
            let script = "x=x; while :; do x=$x$x; done";
            let limits = "--memory 16m --memory-swap 16m --net none --rootfs /";
            daemon.ctl(&format!("run -d --name {name} {limits} /bin/sh -c '{script}'")).ok();
        }
        for name in &names {
            assert_eq!(daemon.ctl(&format!("wait {name}")).waited(), "137", "{name}");
            let exit = daemon.api().get(name).state.and_then(|state| state.exit);
            let exit = exit.expect("an exit");
            assert!(exit.oom_killed && exit.signal == 9, "{name}: {exit:?}");
            daemon.ctl(&format!("rm {name}")).ok();
        }
    }
    round.measured(format!("{count} containers killed for want of memory, each with its flag"));
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn the_slope_is_that_of_the_nearest_line() {
        assert!((slope(&[5, 8, 11, 14]) - 3.0).abs() < 1e-9);
        assert!(slope(&[7, 7, 7]).abs() < 1e-9);
        assert!((slope(&[0, 3, 3, 6]) - 1.8).abs() < 1e-9);
    }
}
