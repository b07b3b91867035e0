//! Processes that the kernel hands to the daemon because their shim died: it is the subreaper of its
//! own shims.
//!
//! The init of a pid namespace ends only once everything in the namespace was reaped
//! (pid_namespaces(7)), and the execs among that are the daemon's to reap: whoever waits for init
//! first waits for ever.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus, waitid};
use shim_wire::exit::ExitStatus;

/// How long killed processes may take to be gone: the kernel tears their memory down first.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(1);

/// Waits for the end of a killed container's first process. `None` when it is not ours, or not gone
/// in time.
pub(super) async fn reap(init: i32) -> Option<ExitStatus> {
    let init = Pid::from_raw(init)?;
    let end = Instant::now() + PATIENCE;
    loop {
        for pid in execs() {
            take(pid);
        }
        match waitid(WaitId::Pid(init), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => return status_of(&status),
            Ok(None) if Instant::now() < end => tokio::time::sleep(PAUSE).await,
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Reaps those of some processes that were killed and are children of ours.
pub(super) fn take_all(pids: &[i32]) {
    pids.iter().filter_map(|pid| Pid::from_raw(*pid)).for_each(take);
}

/// Their codes went with the shim that was to tell them.
fn take(pid: Pid) {
    let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}

fn status_of(status: &WaitIdStatus) -> Option<ExitStatus> {
    if let Some(code) = status.exit_status() {
        return u8::try_from(code).ok().map(ExitStatus::Code);
    }
    status.terminating_signal().and_then(|signal| u8::try_from(signal).ok()).map(ExitStatus::Signal)
}

/// Children of ours in a pid namespace below our own that are not its init. The daemon starts none
/// such itself, and another container's init is left for whoever waits for its code.
fn execs() -> Vec<Pid> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            is_inner_but_not_init(&status)
        })
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .collect()
}

/// Of the text of `/proc/PID/status`: `NSpid` has one number for each namespace, the inmost last.
fn is_inner_but_not_init(status: &str) -> bool {
    let Some(numbers) = status.lines().find_map(|line| line.strip_prefix("NSpid:")) else {
        return false;
    };
    let numbers: Vec<&str> = numbers.split_whitespace().collect();
    matches!(numbers.as_slice(), [_, .., inmost] if *inmost != "1")
}

#[cfg(test)]
mod tests {
    use super::is_inner_but_not_init;

    #[test]
    fn only_execs_are_taken() {
        assert!(is_inner_but_not_init("Name:\tsh\nNSpid:\t812\t7\n"));
        assert!(!is_inner_but_not_init("Name:\tsleep\nNSpid:\t811\t1\n"), "an init");
        assert!(!is_inner_but_not_init("Name:\tbosun-shim\nNSpid:\t810\n"), "in our own namespace");
        assert!(!is_inner_but_not_init(""), "gone");
    }
}
