//! Statistics of real groups, their standing still, and news of kills. Needs root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shim_cgroup::{Metrics, OomWatch};
use shim_wire::plan::Resources;

use support::{Member, Prefix, soon};

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_a_group_uses_is_told() {
    let prefix = Prefix::new("metrics");
    let group = prefix.group("a");
    let limits = Resources {
        memory: Some(256 << 20),
        pids: Some(17),
        cpu_quota: Some(10_000),
        cpu_period: Some(50_000),
        ..Resources::default()
    };
    group.create(&limits).unwrap();
    let _busy = Member::new(&group, "while :; do :; done");
    let _full = Member::new(&group, "exec dd if=/dev/zero of=/dev/null bs=40M");
    // Processes, their limit, memory, its limit, nanoseconds, how often they were throttled.
    let numbers = || match group.metrics().unwrap() {
        Metrics::V1(metrics) => {
            let (pids, cpu) = (metrics.pids.unwrap(), metrics.cpu.unwrap());
            let memory = metrics.memory.unwrap().usage.unwrap();
            let throttled = cpu.throttling.unwrap().throttled_periods;
            let usage = cpu.usage.unwrap();
            assert_eq!(
                usage.per_cpu.iter().sum::<u64>() / 1_000_000_000,
                usage.total / 1_000_000_000
            );
            (pids.current, pids.limit, memory.usage, memory.limit, usage.total, throttled)
        }
        Metrics::V2(metrics) => {
            let (pids, cpu) = (metrics.pids.unwrap(), metrics.cpu.unwrap());
            let (memory, time) = (metrics.memory.unwrap(), cpu.usage_usec * 1000);
            let throttled = cpu.nr_throttled;
            (pids.current, pids.limit, memory.usage, memory.usage_limit, time, throttled)
        }
    };
    until("work is done", || numbers().4 > 20_000_000 && numbers().5 > 1);
    until("memory is used", || numbers().2 > 40 << 20);
    let (processes, most, used, limit, ..) = numbers();
    assert_eq!((processes, most, limit), (2, 17, 256 << 20));
    assert!(used < 200 << 20, "{used}");
}

#[test]
fn a_group_that_is_not_there_has_no_statistics() {
    let prefix = Prefix::new("no-metrics");
    assert!(prefix.group("a").metrics().is_err());
}

#[test]
fn frozen_processes_stand_still_until_they_are_thawed() {
    let prefix = Prefix::new("freeze");
    let group = prefix.group("a");
    group.create(&Resources::default()).unwrap();
    let _busy = Member::new(&group, "while :; do :; done");
    let used = || match group.metrics().unwrap() {
        Metrics::V1(metrics) => metrics.cpu.unwrap().usage.unwrap().total,
        Metrics::V2(metrics) => metrics.cpu.unwrap().usage_usec,
    };
    until("work is done", || used() > 0);
    group.freeze_until(soon()).unwrap();
    let before = used();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(used(), before);
    group.freeze(false).unwrap();
    until("it goes on", || used() > before);
}

#[test]
fn a_frozen_group_is_killed_all_the_same() {
    let prefix = Prefix::new("freeze-kill");
    let group = prefix.group("a");
    group.create(&Resources::default()).unwrap();
    let mut member = Member::new(&group, "sleep 1000");
    group.freeze_until(soon()).unwrap();
    let killed = std::thread::scope(|scope| {
        let killing = scope.spawn(|| group.kill(soon()));
        member.0.wait().unwrap();
        killing.join().unwrap()
    });
    killed.unwrap();
}

/// Whether the watch becomes ready within `time`.
fn ready(watch: &OomWatch, time: Duration) -> bool {
    let (descriptor, flags) = watch.interest();
    let mut descriptors = [PollFd::from_borrowed_fd(descriptor, flags)];
    let timeout =
        Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() };
    let count = poll(&mut descriptors, Some(&timeout)).unwrap();
    count == 1 && !(descriptors[0].revents() & (flags | PollFlags::ERR)).is_empty()
}

#[test]
fn a_kill_for_want_of_memory_is_told_and_nothing_else() {
    let prefix = Prefix::new("oom-watch");
    let group = prefix.group("a");
    group.create(&Resources { memory: Some(16 << 20), ..Resources::default() }).unwrap();
    let mut watch = group.watch_oom().unwrap().unwrap();
    let mut member = Member::new(&group, "head -c 1048576 /dev/zero >/dev/null");
    member.0.wait().unwrap();
    assert!(!ready(&watch, Duration::from_millis(100)), "nothing has happened");
    for round in 0..2 {
        let mut hog = Member::new(&group, "head -c 67108864 /dev/zero | tail");
        assert!(!hog.0.wait().unwrap().success());
        assert!(ready(&watch, Duration::from_secs(5)), "round {round}");
        assert!(watch.killed().unwrap(), "round {round}");
        assert!(!ready(&watch, Duration::from_millis(50)), "it waits for the next");
    }
}
