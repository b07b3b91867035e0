//! The daemon goes at any moment, and comes back, or not for a while.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

use super::life::Extent;
use super::{Case, code, life};
use crate::daemon::Daemon;
use crate::process::Process;
use crate::wait;

/// How long one round of runs under kills goes on.
const CHURN: Duration = Duration::from_secs(6);
const CLIENTS: usize = 3;
/// Containers at most, so that their processes don't take the machine from what is tested.
const MOST: usize = 30;

pub(super) fn cases() -> Vec<Case> {
    vec![Case::plain("at random", at_random)]
}

pub(super) fn while_down() -> Vec<Case> {
    vec![Case::plain("ends meanwhile", ends_meanwhile)]
}

fn numbered(name: &str, code: u8) -> String {
    let command = life::lines_until_stopped(code, "0.1");
    format!("run -d --name {name} --net none --rootfs / {command}")
}

/// Clients run containers; the daemon is killed again and again. Each container whose client was told
/// its id is there, and is the same process as before.
fn at_random(round: usize) {
    let mut daemon = Daemon::start();
    let acknowledged = Mutex::new(BTreeMap::new());
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let ctl = daemon.client().clone();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if acknowledged.lock().map_or(MOST, |all| all.len()) >= MOST {
                        break;
                    }
                    let (name, code) = (format!("c{number}"), code(number));
                    if ctl.run(&numbered(&name, code)).code == Some(0)
                        && let Ok(mut all) = acknowledged.lock()
                    {
                        all.insert(name, code);
                    }
                }
            });
        }
        let begin = Instant::now();
        let mut kills = 0_usize;
        while begin.elapsed() < CHURN {
            // Up to half a second: in the middle of whatever it does then.
            std::thread::sleep(Duration::from_millis(u64::from(code(round * 1000 + kills)) * 4));
            daemon.kill();
            daemon.start_again();
            kills += 1;
        }
        over.store(true, Ordering::Relaxed);
    });
    let acknowledged = acknowledged.into_inner().expect("no client panics");
    assert!(!acknowledged.is_empty(), "nobody got an answer");
    for (name, code) in &acknowledged {
        assert_eq!(daemon.inspect(name, "{{.State.Status}}"), "running", "{name}");
        assert!(daemon.process(name).lives(), "{name}");
        daemon.ctl(&format!("stop -t 10 {name}")).ok();
        assert_eq!(daemon.inspect(name, "{{.State.ExitCode}}"), code.to_string(), "{name}");
        life::expect_log(&daemon, name, Extent::Whole, name);
    }
    // The others are done or undone, and every one of them can be removed.
    let ids = daemon.ctl("ps -a -q --no-trunc").text().replace('\n', " ");
    daemon.ctl(&format!("rm -f {ids}")).ok();
    daemon.expect_nothing_left();
}

/// Containers write and end while no daemon is there, some because they take too much memory.
fn ends_meanwhile(round: usize) {
    const COUNT: usize = 10;
    let mut daemon = Daemon::start();
    let mut expected = Vec::new();
    for number in 0..COUNT {
        let (name, code) = (format!("c{number}"), code(round * COUNT + number));
        daemon.ctl(&numbered(&name, code)).ok();
        expected.push((name, code));
    }
    let hungry = "run -d --name hungry --memory 16m --memory-swap 16m --net none --rootfs / /bin/sh -c \
                  'trap : USR1; echo ready; sleep 600 & wait; x=x; while :; do x=$x$x; done'";
    daemon.ctl(hungry).ok();
    daemon.until_logged("hungry", "ready");
    for (name, _) in &expected {
        daemon.until_logged(name, "o 2 ");
    }
    let processes: Vec<Process> = expected.iter().map(|(name, _)| daemon.process(name)).collect();
    let eater = daemon.process("hungry");
    daemon.kill();
    std::thread::sleep(Duration::from_millis(500));
    let begin = SystemTime::now();
    signal(eater, Signal::USR1);
    for process in &processes {
        signal(*process, Signal::TERM);
    }
    wait::until_true("their ends", || {
        processes.iter().chain([&eater]).all(|process| !process.lives())
    });
    let end = SystemTime::now();
    std::thread::sleep(Duration::from_millis(500));
    daemon.start_again();
    for (name, code) in &expected {
        daemon.until_status(name, "exited");
        assert_eq!(daemon.inspect(name, "{{.State.ExitCode}}"), code.to_string(), "{name}");
        life::expect_log(&daemon, name, Extent::Whole, name);
        let exit = daemon.api().get(name).state.and_then(|state| state.exit).expect("an exit");
        let at = SystemTime::try_from(exit.exited_at.expect("a time")).expect("a time");
        // The kernel's clock of coarse steps is a few milliseconds behind.
        let slack = Duration::from_millis(20);
        assert!(
            begin - slack <= at && at <= end + slack,
            "{name} ended at {at:?}, {begin:?}, {end:?}"
        );
        assert!(!exit.oom_killed, "{name}");
    }
    daemon.until_status("hungry", "exited");
    let exit = daemon.api().get("hungry").state.and_then(|state| state.exit).expect("an exit");
    assert!(exit.oom_killed && exit.signal == 9, "{exit:?}");
}

fn signal(process: Process, signal: Signal) {
    let pid = i32::try_from(process.0).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, signal).expect("it lives");
}
