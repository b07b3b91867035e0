//! A daemon that is stopped, or has no descriptors left, or less memory than its clients bring; and shims that are
//! stopped or have no descriptors left, under a daemon and under the next.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bosun_proto::v1;
use rustix::process::{Pid, Signal, kill_process};

use super::life::Extent;
use super::{Case, Round, code, life};
use crate::api::Api;
use crate::ctl::Output;
use crate::daemon::{Daemon, Settings};
use crate::process::Process;
use crate::wait;

/// Megabytes of memory, how long there is too much to do with them, and how many clients bring it in each way.
const MEMORY: u32 = 64;
const LOAD: Duration = Duration::from_secs(3);
const CLIENTS: usize = 3;
/// How long a shim that can't answer holds up whoever asks.
const ANSWERED: Duration = Duration::from_secs(5);
/// Bytes of a long message that is whole.
const LONG: usize = 3 << 20;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::plain("stopped for a while", stopped),
        Case::plain("out of descriptors", |_| out_of_descriptors()),
        Case::measured("out of memory", out_of_memory),
    ]
}

pub(super) fn shims() -> Vec<Case> {
    vec![
        Case::plain("a shim stopped for a while", shim_stopped),
        Case::plain("a shim out of descriptors", shim_out_of_descriptors),
        Case::plain("an end without descriptors", end_without_descriptors),
    ]
}

/// A container that numbers its lines and ends with a code.
pub(super) fn run(daemon: &Daemon, name: &str, code: u8) {
    let command = life::lines_until_stopped(code, "0.05");
    daemon.ctl(&format!("run -d --name {name} --net none --rootfs / {command}")).ok();
    daemon.until_logged(name, "o 3 ");
}

/// SIGSTOP and SIGCONT: whoever asked meanwhile gets an answer, and nobody else has noticed.
fn stopped(round: usize) {
    let daemon = Daemon::start();
    run(&daemon, "one", code(round));
    let pid = daemon.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let pid = pid.expect("the daemon runs");
    kill_process(pid, Signal::STOP).expect("a child of ours");
    let clients: Vec<_> = (0..10)
        .map(|number| {
            let words = format!("run --name c{number} --net none --rootfs / /bin/sh -c 'exit 3'");
            daemon.client().start(&words, Stdio::null())
        })
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    kill_process(pid, Signal::CONT).expect("a child of ours");
    for client in clients {
        client.finish().check(3);
    }
    daemon.ctl("stop one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), code(round).to_string());
    life::expect_log(&daemon, "one", Extent::Whole, "stopped");
}

/// Clients get errors or answers, and once there are descriptors again everything works.
fn out_of_descriptors() {
    let daemon = Daemon::start();
    run(&daemon, "one", 7);
    let process = Process(daemon.pid().expect("the daemon runs"));
    let limit = process.descriptors().len() + 6;
    let before = soft_limit(process);
    set_limit(process, &limit.to_string());
    let followers: Vec<_> =
        (0..20).map(|_| daemon.client().start("logs -f one", Stdio::null())).collect();
    for number in 0..5 {
        let _ = daemon.ctl(&format!("run --name c{number} --net none --rootfs / /bin/true"));
    }
    assert!(process.lives(), "the daemon has ended");
    drop(followers);
    set_limit(process, &before);
    wait::until("an answer", || (daemon.ctl("ps -q").code == Some(0)).then_some(()));
    let made = daemon.ctl("ps -a -q --filter name=c").text().replace('\n', " ");
    if !made.is_empty() {
        daemon.ctl(&format!("rm -f {made}")).ok();
    }
    daemon.ctl("run --rm --net none --rootfs / /bin/true").ok();
    daemon.ctl("stop one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), "7");
    life::expect_log(&daemon, "one", Extent::Whole, "out of descriptors");
}

/// Its clients wait; those of the daemon before hear that this has ended, and those of the next wait until the shim
/// goes on. What asks no shim does not wait.
fn shim_stopped(round: usize) {
    let mut daemon = Daemon::start();
    run(&daemon, "one", code(round));
    run(&daemon, "two", code(round + 1));
    let (process, shim) = (daemon.process("one"), daemon.shim("one"));
    shim.signal(Signal::STOP);
    let client = daemon.client().clone();
    let exec = || client.start("exec one /bin/echo on", Stdio::null());
    let before: Vec<_> = (0..3).map(|_| exec()).collect();
    answered(&daemon, "exec two /bin/echo on").ok();
    daemon.kill();
    for client in before {
        assert_ne!(client.finish().code, Some(0), "nobody has done it");
    }
    daemon.start_again();
    let after: Vec<_> = (0..3).map(|_| exec()).collect();
    for words in ["ps -a", "inspect one", "logs one", "exec two /bin/echo on", "stop two"] {
        answered(&daemon, words).ok();
    }
    assert_eq!(daemon.process("one"), process);
    shim.signal(Signal::CONT);
    for client in after {
        assert_eq!(client.finish().text(), "on");
    }
    expect_end(&daemon, "one", code(round));
    life::expect_log(&daemon, "two", Extent::Whole, "two");
}

/// What needs some is refused, of the daemon that has a connection as of the next, which may get none.
fn shim_out_of_descriptors(round: usize) {
    let mut daemon = Daemon::start();
    run(&daemon, "one", code(round));
    let (process, shim) = (daemon.process("one"), daemon.shim("one"));
    let before = soft_limit(shim);
    take_all(shim);
    assert_ne!(answered(&daemon, "exec one /bin/echo on").code, Some(0));
    daemon.kill();
    daemon.start_again();
    assert_ne!(answered(&daemon, "exec one /bin/echo on").code, Some(0));
    assert_eq!(daemon.inspect("one", "{{.State.Status}}"), "running");
    assert_eq!(daemon.process("one"), process);
    set_limit(shim, &before);
    wait::until_true("an exec", || daemon.ctl("exec one /bin/echo on").code == Some(0));
    expect_end(&daemon, "one", code(round));
}

/// A container ends, and its log is rotated meanwhile, which would take some.
fn end_without_descriptors(round: usize) {
    let daemon = Daemon::start();
    let command = life::lines_until_stopped(code(round), "0.01");
    let options = "--log-opt max-size=2k --log-opt max-file=1000 --net none --rootfs /";
    daemon.ctl(&format!("run -d --name one {options} {command}")).ok();
    daemon.until_logged("one", "o 3 ");
    take_all(daemon.shim("one"));
    daemon.until_logged("one", "o 40 ");
    daemon.process("one").signal(Signal::TERM);
    daemon.until_status("one", "exited");
    expect_end(&daemon, "one", code(round));
}

/// It has as many descriptors as it may.
fn take_all(shim: Process) {
    set_limit(shim, &shim.descriptors().len().to_string());
}

/// It ends with its own code, and its log is whole; then another one takes its name.
fn expect_end(daemon: &Daemon, name: &str, code: u8) {
    answered(daemon, &format!("stop {name}")).ok();
    assert_eq!(daemon.inspect(name, "{{.State.ExitCode}}"), code.to_string());
    life::expect_log(daemon, name, Extent::Whole, name);
    daemon.ctl(&format!("rm {name}")).ok();
    run(daemon, name, code);
    daemon.ctl(&format!("rm -f {name}")).ok();
}

/// The answer to a call, which comes, whatever it is.
#[track_caller]
fn answered(daemon: &Daemon, words: &str) -> Output {
    let begin = Instant::now();
    let output = daemon.ctl(words);
    let took = begin.elapsed();
    assert!(took < wait::patiently(ANSWERED), "{words}: answered after {took:?}");
    output
}

/// Clients bring more than there is memory for: the daemon refuses it, and goes on, or dies of what the
/// kernel holds for their connections and comes back. Either way its containers notice nothing.
fn out_of_memory(round: &Round) {
    let mut daemon = Settings::new().memory(MEMORY).start();
    let names = ["one", "two", "three"];
    for (at, name) in names.iter().enumerate() {
        run(&daemon, name, code(round.number + at));
    }
    let processes = names.map(|name| daemon.process(name));
    names.iter().for_each(|name| daemon.shim(name).until_out_of_service());
    let process = Process(daemon.pid().expect("the daemon runs"));
    let before = process.memory("Rss").unwrap_or_default();
    process.forget_peak_memory();
    let socket = daemon.socket();
    let over = AtomicBool::new(false);
    let ended = std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| super::abuse::unfinished_messages(&socket, &over));
            scope.spawn(|| long_messages(&socket, &over));
        }
        let ended = daemon.ended_by_itself(LOAD);
        over.store(true, Ordering::Relaxed);
        ended
    });
    match ended {
        Some(status) => {
            round.measured(format!("with {MEMORY} MiB of memory the daemon ended: {status}"));
            daemon.start_again();
        }
        None => {
            let grown = process.peak_memory().unwrap_or_default().saturating_sub(before);
            round.measured(format!(
                "with {MEMORY} MiB of memory the daemon went on, and grew by {grown} kB"
            ));
        }
    }
    for (at, name) in names.iter().enumerate() {
        assert_eq!(daemon.process(name), processes[at], "{name}");
        assert_eq!(daemon.ctl(&format!("exec {name} /bin/echo on")).text(), "on");
        daemon.ctl(&format!("stop {name}")).ok();
        assert_eq!(
            daemon.inspect(name, "{{.State.ExitCode}}"),
            code(round.number + at).to_string()
        );
        life::expect_log(&daemon, name, Extent::Whole, "out of memory");
    }
}

/// Calls that are read whole before it is seen that they can't be done, one after the other.
fn long_messages(socket: &Path, over: &AtomicBool) {
    let Ok(api) = Api::connect(socket) else { return };
    let name = "no name".to_owned();
    let options = v1::ContainerOptions { name, env: vec!["x".repeat(LONG)], ..Default::default() };
    while !over.load(Ordering::Relaxed) {
        let options = Some(options.clone());
        let request = v1::CreateRequest { options, ..Default::default() };
        // For want of room, or for what they ask.
        let refused = api.wait(async { api.containers().create(request).await });
        assert!(refused.is_err(), "a container was made");
    }
}

fn soft_limit(process: Process) -> String {
    let limits = std::fs::read_to_string(process.path("limits")).unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()).expect("a limit").to_owned()
}

fn set_limit(process: Process, limit: &str) {
    let status = Command::new("prlimit")
        .args(["--pid", &process.0.to_string(), &format!("--nofile={limit}:")])
        .status();
    assert!(status.is_ok_and(|status| status.success()), "prlimit");
}
