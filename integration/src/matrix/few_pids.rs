//! Few pids: the same numbers come round again within seconds, so that whoever takes a number for a process
//! meets a stranger.
//!
//! From Linux 6.14 on a pid namespace has a `pid_max` of its own. So the program of the matrix is started once
//! more in such a namespace, with [`among_few_pids`] to do.

use std::path::PathBuf;
use std::process::Command;

use super::life::Extent;
use super::{Round, code, life, load, lost_shims};
use crate::daemon::{self, Daemon};

/// The kernel wants 301 at least, and gives the first 300 once only.
const PIDS: u32 = 400;
/// Clients that execute at once.
const CLIENTS: usize = 4;

/// As pid 1 it reaps whom nobody else does.
const INIT: &str = "echo $1 > /proc/sys/kernel/pid_max; shift; \"$@\"; exit $?";

/// Argument of the matrix' program, for [`among_few_pids`].
pub const ARGUMENT: &str = "--among-few-pids";

/// Runs [`among_few_pids`] where there are few.
pub(super) fn few(round: &Round) {
    let count = round.count(600, 100_000);
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", INIT, "sh"]);
    command.arg(PIDS.to_string()).arg(program()).arg(ARGUMENT);
    command.args([round.number, count].map(|number| number.to_string()));
    // More than there are pids anywhere, and another one in each round.
    let number = (1 << 23) * (1 + (round.number % 100) as u32) + std::process::id();
    command.env(daemon::OWN_NUMBER, number.to_string());
    let output = command.output().expect("unshare");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    round.measured(format!("{count} execs among {PIDS} pids, each with its own status"));
}

/// The program of the matrix: this one, or the one beside the tests.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("a program");
    let is_matrix = own.file_stem().is_some_and(|name| name == "matrix");
    match own.parent().and_then(|deps| deps.parent()) {
        Some(built) if !is_matrix => built.join("matrix"),
        _ => own,
    }
}

/// Execs until all numbers have been used often; then a shim's and its process' go to strangers, while the daemon
/// is down.
///
/// # Panics
/// When a status was not its process' own, a stranger was touched, or something was left behind.
pub fn among_few_pids(round: usize, count: usize) {
    let max = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    assert_eq!(max.trim(), PIDS.to_string(), "the kernel has one pid_max for all namespaces");
    let daemon = Daemon::start();
    let own = code(round);
    let command = life::lines_until_stopped(own, "0.05");
    daemon.ctl(&format!("run -d --name one --net none --rootfs / {command}")).ok();
    let process = daemon.process("one");
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let daemon = &daemon;
            scope.spawn(move || {
                let api = daemon.api();
                for number in 0..count / CLIENTS {
                    let code = code((round * CLIENTS + client) * count + number);
                    assert_eq!(load::exec(&api, "one", code), u32::from(code), "exec {number}");
                }
            });
        }
    });
    assert_eq!(daemon.process("one"), process);
    daemon.ctl("stop -t 10 one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), own.to_string());
    life::expect_log(&daemon, "one", Extent::Whole, "few pids");
    daemon.ctl("rm one").ok();
    daemon.expect_nothing_left();
    lost_shims::reused_pid();
    lost_shims::reused_at_once();
}
