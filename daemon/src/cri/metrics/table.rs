//! The metrics: each with its name, its labels and where its samples come from.

use super::{Metric, Samples, Seen, Source};
use crate::container::{DeviceUse, Interface, Pressure, Waited};
use crate::cri::wire;

const NANO: u64 = 1_000_000_000;
const MICRO: u64 = 1_000_000;

/// The label of figures that are a disk's.
const DEVICE: &[&str] = &["device"];

fn one(value: u64) -> Samples {
    vec![(Vec::new(), value)]
}

const fn counter(name: &'static str, help: &'static str, of: fn(&Seen) -> Samples) -> Metric {
    let (kind, source) = (wire::MetricType::Counter, Source::Container(of));
    Metric { name, help, kind, labels: &[], source }
}

const fn gauge(name: &'static str, help: &'static str, of: fn(&Seen) -> Samples) -> Metric {
    let (kind, source) = (wire::MetricType::Gauge, Source::Container(of));
    Metric { name, help, kind, labels: &[], source }
}

const fn labelled(metric: Metric, labels: &'static [&'static str]) -> Metric {
    Metric { labels, ..metric }
}

const fn traffic(name: &'static str, help: &'static str, of: fn(&Interface) -> u64) -> Metric {
    let (kind, source) = (wire::MetricType::Counter, Source::Pod(of));
    Metric { name, help, kind, labels: &["interface"], source }
}

fn waited(seen: &Seen, of: fn(&Pressure) -> Waited) -> Option<Waited> {
    seen.measures.usage.pressure.as_ref().map(of)
}

fn some(waited: Option<Waited>) -> Samples {
    waited.map_or_else(Vec::new, |waited| one(waited.some.total / MICRO))
}

fn all(waited: Option<Waited>) -> Samples {
    waited.map_or_else(Vec::new, |waited| one(waited.all.total / MICRO))
}

/// A figure of every device.
fn by_device(seen: &Seen, of: fn(&DeviceUse) -> u64) -> Samples {
    let devices = seen.measures.devices.iter();
    devices.map(|one| (vec![seen.device_name(one.major, one.minor)], of(one))).collect()
}

/// A figure of the file system below the writable layer.
fn of_space(seen: &Seen, value: u64) -> Samples {
    vec![(vec![seen.looked.space.device.clone()], value)]
}

/// What there is only with a quota of CPU time.
fn of_quota(seen: &Seen, value: u64) -> Samples {
    quota(seen).map_or_else(Vec::new, |_| one(value))
}

fn quota(seen: &Seen) -> Option<u64> {
    let quota = seen.record.options.limits.cpu_quota?;
    u64::try_from(quota).ok().filter(|quota| *quota > 0)
}

pub(super) const METRICS: [Metric; 59] = [
    labelled(
        counter("container_blkio_device_usage_total", "Bytes to and from block devices", |seen| {
            let devices = seen.measures.devices.iter();
            let both = |device: &DeviceUse| {
                let name = seen.device_name(device.major, device.minor);
                let of = |operation: &str, value| {
                    let name = name.clone();
                    let (major, minor) = (device.major.to_string(), device.minor.to_string());
                    (vec![name, major, minor, operation.to_owned()], value)
                };
                [of("Read", device.read), of("Write", device.written)]
            };
            devices.flat_map(both).collect()
        }),
        &["device", "major", "minor", "operation"],
    ),
    counter("container_cpu_cfs_periods_total", "Periods of the CPU quota", |seen| {
        of_quota(seen, seen.measures.usage.cpu_periods)
    }),
    counter(
        "container_cpu_cfs_throttled_periods_total",
        "Periods in which the quota was used up",
        |seen| of_quota(seen, seen.measures.usage.cpu_throttled_periods),
    ),
    counter(
        "container_cpu_cfs_throttled_seconds_total",
        "Seconds held back by the CPU quota",
        |seen| of_quota(seen, seen.measures.usage.cpu_throttled / NANO),
    ),
    counter("container_cpu_system_seconds_total", "Seconds of CPU in the kernel", |seen| {
        one(seen.measures.usage.cpu_kernel / NANO)
    }),
    labelled(
        counter("container_cpu_usage_seconds_total", "Seconds of CPU", |seen| {
            vec![(vec!["total".to_owned()], seen.measures.usage.cpu_total / NANO)]
        }),
        &["cpu"],
    ),
    counter("container_cpu_user_seconds_total", "Seconds of CPU outside of the kernel", |seen| {
        one(seen.measures.usage.cpu_user / NANO)
    }),
    gauge("container_file_descriptors", "Open file descriptors", |seen| {
        one(seen.looked.processes.descriptors)
    }),
    labelled(
        gauge("container_fs_inodes_free", "Free inodes of the file system", |seen| {
            of_space(seen, seen.looked.space.inodes_free)
        }),
        DEVICE,
    ),
    labelled(
        gauge("container_fs_inodes_total", "Inodes of the file system", |seen| {
            of_space(seen, seen.looked.space.inodes)
        }),
        DEVICE,
    ),
    labelled(
        gauge("container_fs_limit_bytes", "Bytes of the file system", |seen| {
            of_space(seen, seen.looked.space.bytes)
        }),
        DEVICE,
    ),
    labelled(
        counter("container_fs_reads_bytes_total", "Bytes read from block devices", |seen| {
            by_device(seen, |device| device.read)
        }),
        DEVICE,
    ),
    labelled(
        counter("container_fs_reads_total", "Reads from block devices", |seen| {
            by_device(seen, |device| device.reads)
        }),
        DEVICE,
    ),
    labelled(
        gauge("container_fs_usage_bytes", "Bytes of the writable layer", |seen| {
            of_space(seen, seen.layer.size)
        }),
        DEVICE,
    ),
    labelled(
        counter("container_fs_writes_bytes_total", "Bytes written to block devices", |seen| {
            by_device(seen, |device| device.written)
        }),
        DEVICE,
    ),
    labelled(
        counter("container_fs_writes_total", "Writes to block devices", |seen| {
            by_device(seen, |device| device.writes)
        }),
        DEVICE,
    ),
    labelled(
        gauge("container_hugetlb_max_usage_bytes", "The most bytes in huge pages", |seen| {
            let pages = seen.measures.hugepages.iter();
            pages.map(|page| (vec![page.size.clone()], page.peak)).collect()
        }),
        &["pagesize"],
    ),
    labelled(
        gauge("container_hugetlb_usage_bytes", "Bytes in huge pages", |seen| {
            let pages = seen.measures.hugepages.iter();
            pages.map(|page| (vec![page.size.clone()], page.used)).collect()
        }),
        &["pagesize"],
    ),
    gauge("container_last_seen", "When these figures were read, in seconds", |seen| one(seen.now)),
    gauge("container_memory_cache", "Bytes of page cache", |seen| {
        one(seen.measures.usage.memory_cache)
    }),
    counter("container_memory_failcnt", "How often the memory limit was met", |seen| {
        one(seen.measures.usage.memory_failures)
    }),
    labelled(
        counter("container_memory_failures_total", "Page faults", |seen| {
            let usage = &seen.measures.usage;
            let (all, major) = (usage.page_faults, usage.major_page_faults);
            let of =
                |kind: &str, scope: &str, value| (vec![kind.to_owned(), scope.to_owned()], value);
            // Of the group and all below it, whichever is asked for.
            vec![
                of("pgfault", "container", all),
                of("pgmajfault", "container", major),
                of("pgfault", "hierarchy", all),
                of("pgmajfault", "hierarchy", major),
            ]
        }),
        &["failure_type", "scope"],
    ),
    gauge("container_memory_kernel_usage", "Bytes of the kernel's own", |seen| {
        one(seen.measures.usage.memory_kernel)
    }),
    gauge("container_memory_mapped_file", "Bytes of mapped files", |seen| {
        one(seen.measures.usage.memory_mapped)
    }),
    gauge("container_memory_max_usage_bytes", "The most bytes of memory", |seen| {
        one(seen.measures.usage.memory_peak)
    }),
    gauge("container_memory_rss", "Bytes of anonymous memory", |seen| {
        one(seen.measures.usage.memory_anonymous)
    }),
    gauge("container_memory_swap", "Bytes of swap", |seen| one(seen.measures.usage.swap_used)),
    gauge(
        "container_memory_total_active_file_bytes",
        "Bytes of the page cache that were used lately",
        |seen| one(seen.measures.usage.memory_active_file),
    ),
    gauge(
        "container_memory_total_inactive_file_bytes",
        "Bytes of the page cache that were not used lately",
        |seen| one(seen.measures.usage.memory_inactive_file),
    ),
    gauge(
        "container_memory_usage_bytes",
        "Bytes of memory, all of the page cache included",
        |seen| one(seen.measures.usage.memory_total),
    ),
    gauge(
        "container_memory_working_set_bytes",
        "Bytes of memory that can't be let go of at once",
        |seen| one(seen.measures.usage.memory_used),
    ),
    traffic("container_network_receive_bytes_total", "Bytes received", |one| one.received.bytes),
    traffic("container_network_receive_errors_total", "Errors in receiving", |one| {
        one.received.errors
    }),
    traffic(
        "container_network_receive_packets_dropped_total",
        "Packets dropped in receiving",
        |one| one.received.dropped,
    ),
    traffic("container_network_receive_packets_total", "Packets received", |one| {
        one.received.packets
    }),
    traffic("container_network_transmit_bytes_total", "Bytes sent", |one| one.sent.bytes),
    traffic("container_network_transmit_errors_total", "Errors in sending", |one| one.sent.errors),
    traffic(
        "container_network_transmit_packets_dropped_total",
        "Packets dropped in sending",
        |one| one.sent.dropped,
    ),
    traffic("container_network_transmit_packets_total", "Packets sent", |one| one.sent.packets),
    counter("container_oom_events_total", "Kills for want of memory", |seen| {
        one(seen.measures.usage.oom_kills)
    }),
    counter(
        "container_pressure_cpu_stalled_seconds_total",
        "Seconds in which all waited for a CPU",
        |seen| all(waited(seen, |pressure| pressure.cpu)),
    ),
    counter(
        "container_pressure_cpu_waiting_seconds_total",
        "Seconds in which some waited for a CPU",
        |seen| some(waited(seen, |pressure| pressure.cpu)),
    ),
    counter(
        "container_pressure_io_stalled_seconds_total",
        "Seconds in which all waited for the disk",
        |seen| all(waited(seen, |pressure| pressure.io)),
    ),
    counter(
        "container_pressure_io_waiting_seconds_total",
        "Seconds in which some waited for the disk",
        |seen| some(waited(seen, |pressure| pressure.io)),
    ),
    counter(
        "container_pressure_memory_stalled_seconds_total",
        "Seconds in which all waited for memory",
        |seen| all(waited(seen, |pressure| pressure.memory)),
    ),
    counter(
        "container_pressure_memory_waiting_seconds_total",
        "Seconds in which some waited for memory",
        |seen| some(waited(seen, |pressure| pressure.memory)),
    ),
    gauge("container_processes", "Processes", |seen| one(seen.looked.processes.count)),
    gauge("container_sockets", "Open sockets", |seen| one(seen.looked.processes.sockets)),
    gauge("container_spec_cpu_period", "Microseconds of a period of the CPU quota", |seen| {
        one(seen.record.options.limits.cpu_period.unwrap_or(100_000))
    }),
    gauge("container_spec_cpu_quota", "Microseconds of CPU in each period", |seen| {
        quota(seen).map_or_else(Vec::new, one)
    }),
    gauge("container_spec_cpu_shares", "The weight of its CPU time", |seen| {
        one(seen.record.options.limits.cpu_shares.unwrap_or(1024))
    }),
    gauge("container_spec_memory_limit_bytes", "The limit of memory; 0 is none", |seen| {
        one(bytes(seen.record.options.limits.memory))
    }),
    gauge(
        "container_spec_memory_reservation_limit_bytes",
        "What reclaim comes down to; 0 is none",
        |seen| one(bytes(seen.record.options.limits.memory_reservation)),
    ),
    gauge(
        "container_spec_memory_swap_limit_bytes",
        "The limit of memory and swap; 0 is none",
        |seen| one(bytes(seen.record.options.limits.memory_swap)),
    ),
    gauge("container_start_time_seconds", "When it was started, in seconds", |seen| {
        let started = seen.record.started_at.unwrap_or_default();
        one(u64::try_from(started.seconds).unwrap_or(0))
    }),
    labelled(
        gauge("container_tasks_state", "Threads in a state", |seen| {
            let states = seen.looked.processes.states;
            let of = |state: &str, count| (vec![state.to_owned()], count);
            vec![
                of("sleeping", states.sleeping),
                of("running", states.running),
                of("stopped", states.stopped),
                of("uninterruptible", states.uninterruptible),
                // The kernel (cgroupstats) has no threads in here but those in none of the others.
                of("iowaiting", 0),
            ]
        }),
        &["state"],
    ),
    gauge("container_threads", "Threads", |seen| one(seen.looked.processes.threads)),
    gauge("container_threads_max", "The limit of processes and threads; 0 is none", |seen| {
        one(seen.measures.usage.pids_limit)
    }),
    labelled(
        gauge("container_ulimits_soft", "Soft limits of process 1", |seen| {
            vec![(vec!["max_open_files".to_owned()], seen.looked.processes.descriptors_limit)]
        }),
        &["ulimit"],
    ),
];

fn bytes(limit: Option<i64>) -> u64 {
    limit.and_then(|limit| u64::try_from(limit).ok()).unwrap_or(0)
}
