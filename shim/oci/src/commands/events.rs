//! `events`: what a container uses, and when it runs out of memory, a JSON object a line in runc's
//! shape.

use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde_json::{Map, Value, json};
use shim_cgroup::{Metrics, OomWatch};
use shim_wire::metrics::{v1, v2};

use super::print;
use crate::cli::Global;
use crate::container::{Container, Init};
use crate::ending::timespec;
use crate::error::Error;

/// Print what a container uses, again and again until it ends
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  bosun-oci events --stats web\n  bosun-oci events --interval 1s web"
)]
pub(crate) struct EventsArgs {
    /// Between two of them: 500ms, 5s, 1m
    #[arg(long, value_name = "TIME", default_value = "5s")]
    interval: String,
    /// Once
    #[arg(long)]
    stats: bool,
    #[arg(value_name = "ID")]
    id: String,
}

pub(crate) fn run(global: &Global, arguments: &EventsArgs) -> Result<(), Error> {
    let interval = interval(&arguments.interval)?;
    let container = Container::find(&global.root, &arguments.id)?;
    let init = container.living()?;
    if arguments.stats {
        return print_stats(&container);
    }
    let mut oom = container.cgroup()?.watch_oom()?;
    print_stats(&container)?;
    let mut next = Instant::now() + interval;
    loop {
        match wait(&init, oom.as_ref(), next)? {
            Woken::Ended => return Ok(()),
            Woken::OutOfMemory => match oom.as_mut().map(OomWatch::killed) {
                Some(Ok(true)) => print_event(&container, "oom", None)?,
                Some(Ok(false)) | None => {}
                // The group has gone, and the container with it.
                Some(Err(_)) => return Ok(()),
            },
            Woken::Time => {
                print_stats(&container)?;
                next = Instant::now() + interval;
            }
        }
    }
}

enum Woken {
    Ended,
    OutOfMemory,
    Time,
}

fn wait(init: &Init, oom: Option<&OomWatch>, until: Instant) -> Result<Woken, Error> {
    let mut all = vec![PollFd::new(&init.pidfd, PollFlags::IN)];
    let interest = oom.map(OomWatch::interest);
    if let Some((descriptor, flags)) = &interest {
        all.push(PollFd::new(descriptor, *flags));
    }
    loop {
        let left = timespec(until.saturating_duration_since(Instant::now()));
        match poll(&mut all, Some(&left)) {
            Ok(0) => return Ok(Woken::Time),
            Ok(_) if !all[0].revents().is_empty() => return Ok(Woken::Ended),
            Ok(_) => return Ok(Woken::OutOfMemory),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::system("wait")(errno)),
        }
    }
}

/// A number with a unit, as Go writes times.
fn interval(text: &str) -> Result<Duration, Error> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60 * 1000),
        "h" => Some(60 * 60 * 1000),
        _ => None,
    };
    let time = unit.and_then(|unit| digits.parse::<u64>().ok()?.checked_mul(unit));
    time.filter(|time| *time > 0).map(Duration::from_millis).ok_or_else(|| Error::Malformed {
        flag: "--interval",
        value: text.to_owned(),
        expected: "a time such as 5s",
    })
}

fn print_stats(container: &Container) -> Result<(), Error> {
    let stats = match container.cgroup()?.metrics()? {
        Metrics::V1(metrics) => of_v1(&metrics),
        Metrics::V2(metrics) => of_v2(&metrics),
    };
    print_event(container, "stats", Some(stats))
}

fn print_event(container: &Container, kind: &str, data: Option<Value>) -> Result<(), Error> {
    let mut event = json!({ "type": kind, "id": container.record.id });
    if let Some(data) = data {
        event["data"] = data;
    }
    print(&format!("{event}\n"))
}

fn of_v1(metrics: &v1::Metrics) -> Value {
    let cpu = metrics.cpu.clone().unwrap_or_default();
    let usage = cpu.usage.unwrap_or_default();
    let throttling = cpu.throttling.unwrap_or_default();
    let memory = metrics.memory.unwrap_or_default();
    let entry = |entry: Option<v1::MemoryEntry>| {
        let v1::MemoryEntry { limit, usage, max, failcnt } = entry.unwrap_or_default();
        json!({ "limit": limit, "usage": usage, "max": max, "failcnt": failcnt })
    };
    let hugetlb = metrics.hugetlb.iter().map(|pages| {
        let v1::HugetlbStat { usage, max, failcnt, pagesize } = pages;
        (pagesize.clone(), json!({ "usage": usage, "max": max, "failcnt": failcnt }))
    });
    let pids = metrics.pids.unwrap_or_default();
    json!({
        "cpu": {
            "usage": {
                "total": usage.total,
                "percpu": usage.per_cpu,
                "kernel": usage.kernel,
                "user": usage.user,
            },
            "throttling": {
                "periods": throttling.periods,
                "throttledPeriods": throttling.throttled_periods,
                "throttledTime": throttling.throttled_time,
            },
        },
        "memory": {
            "cache": memory.cache,
            "usage": entry(memory.usage),
            "swap": entry(memory.swap),
            "kernel": entry(memory.kernel),
            "kernelTCP": entry(memory.kernel_tcp),
            "raw": {
                "cache": memory.cache,
                "rss": memory.rss,
                "mapped_file": memory.mapped_file,
                "dirty": memory.dirty,
                "writeback": memory.writeback,
                "pgfault": memory.pg_fault,
                "pgmajfault": memory.pg_maj_fault,
                "inactive_anon": memory.inactive_anon,
                "active_anon": memory.active_anon,
                "inactive_file": memory.inactive_file,
                "active_file": memory.active_file,
                "unevictable": memory.unevictable,
                "hierarchical_memory_limit": memory.hierarchical_memory_limit,
                "hierarchical_memsw_limit": memory.hierarchical_swap_limit,
                "total_cache": memory.total_cache,
                "total_rss": memory.total_rss,
                "total_mapped_file": memory.total_mapped_file,
                "total_inactive_anon": memory.total_inactive_anon,
                "total_active_anon": memory.total_active_anon,
                "total_inactive_file": memory.total_inactive_file,
                "total_active_file": memory.total_active_file,
                "total_pgfault": memory.total_pg_fault,
                "total_pgmajfault": memory.total_pg_maj_fault,
            },
        },
        "pids": { "current": pids.current, "limit": pids.limit },
        "blkio": blkio_of_v1(&metrics.blkio.clone().unwrap_or_default()),
        "hugetlb": hugetlb.collect::<Map<_, _>>(),
    })
}

fn blkio_of_v1(blkio: &v1::BlkIoStat) -> Value {
    let entries = |entries: &[v1::BlkIoEntry]| -> Vec<Value> {
        entries.iter().map(|one| blkio_entry(one.major, one.minor, &one.op, one.value)).collect()
    };
    json!({
        "ioServiceBytesRecursive": entries(&blkio.io_service_bytes_recursive),
        "ioServicedRecursive": entries(&blkio.io_serviced_recursive),
        "ioQueueRecursive": entries(&blkio.io_queued_recursive),
        "ioServiceTimeRecursive": entries(&blkio.io_service_time_recursive),
        "ioWaitTimeRecursive": entries(&blkio.io_wait_time_recursive),
        "ioMergedRecursive": entries(&blkio.io_merged_recursive),
        "ioTimeRecursive": entries(&blkio.io_time_recursive),
        "sectorsRecursive": entries(&blkio.sectors_recursive),
    })
}

fn blkio_entry(major: u64, minor: u64, op: &str, value: u64) -> Value {
    json!({ "major": major, "minor": minor, "op": op, "value": value })
}

fn of_v2(metrics: &v2::Metrics) -> Value {
    /// runc tells nanoseconds on either version.
    const NANOSECONDS: u64 = 1000;
    let cpu = metrics.cpu.unwrap_or_default();
    let memory = metrics.memory.unwrap_or_default();
    let pids = metrics.pids.unwrap_or_default();
    let hugetlb = metrics.hugetlb.iter().map(|pages| {
        let v2::HugeTlbStat { current, max, failcnt, pagesize } = pages;
        (pagesize.clone(), json!({ "usage": current, "max": max, "failcnt": failcnt }))
    });
    json!({
        "cpu": {
            "usage": {
                "total": cpu.usage_usec * NANOSECONDS,
                "kernel": cpu.system_usec * NANOSECONDS,
                "user": cpu.user_usec * NANOSECONDS,
            },
            "throttling": {
                "periods": cpu.nr_periods,
                "throttledPeriods": cpu.nr_throttled,
                "throttledTime": cpu.throttled_usec * NANOSECONDS,
            },
        },
        "memory": {
            "cache": memory.file,
            "usage": {
                "limit": memory.usage_limit, "usage": memory.usage, "max": memory.max_usage,
                "failcnt": 0,
            },
            "swap": {
                "limit": memory.swap_limit, "usage": memory.swap_usage,
                "max": memory.swap_max_usage, "failcnt": 0,
            },
            "kernel": { "failcnt": 0 },
            "kernelTCP": { "failcnt": 0 },
            "raw": {
                "anon": memory.anon,
                "file": memory.file,
                "kernel_stack": memory.kernel_stack,
                "slab": memory.slab,
                "sock": memory.sock,
                "shmem": memory.shmem,
                "file_mapped": memory.file_mapped,
                "file_dirty": memory.file_dirty,
                "file_writeback": memory.file_writeback,
                "inactive_anon": memory.inactive_anon,
                "active_anon": memory.active_anon,
                "inactive_file": memory.inactive_file,
                "active_file": memory.active_file,
                "unevictable": memory.unevictable,
                "pgfault": memory.pgfault,
                "pgmajfault": memory.pgmajfault,
            },
        },
        "pids": { "current": pids.current, "limit": pids.limit },
        "blkio": blkio_of_v2(&metrics.io.clone().unwrap_or_default()),
        "hugetlb": hugetlb.collect::<Map<_, _>>(),
    })
}

fn blkio_of_v2(io: &v2::IoStat) -> Value {
    let of = |read: fn(&v2::IoEntry) -> u64, write: fn(&v2::IoEntry) -> u64| -> Vec<Value> {
        let both = |one: &v2::IoEntry| {
            let entry = |op, value| blkio_entry(one.major, one.minor, op, value);
            [entry("Read", read(one)), entry("Write", write(one))]
        };
        io.usage.iter().flat_map(both).collect()
    };
    json!({
        "ioServiceBytesRecursive": of(|one| one.rbytes, |one| one.wbytes),
        "ioServicedRecursive": of(|one| one.rios, |one| one.wios),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_units() {
        for (text, expected) in [("5s", 5000), ("500ms", 500), ("1m", 60_000), ("1h", 3_600_000)] {
            assert_eq!(interval(text).unwrap(), Duration::from_millis(expected), "{text}");
        }
        for text in ["", "5", "0s", "s", "-1s", "1d"] {
            assert!(interval(text).is_err(), "{text:?}");
        }
    }
}
