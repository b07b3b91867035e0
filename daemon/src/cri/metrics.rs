//! Metrics under the names that cAdvisor gave them, read when they are asked for.
//!
//! Every metric is one row of [`METRICS`]: its name, what it is, the labels that it has beside
//! [`LABELS`], and where its samples come from. So what is described and what is listed can't differ.

use std::fs;
use std::path::Path;

use super::{Cri, convert, kept, wire};
use crate::container::{Handle, Interface, Measures, Record, Waited};
use crate::error::Result;

/// The labels of every metric.
const LABELS: [&str; 6] = ["id", "name", "image", "container", "pod", "namespace"];

/// A value with the labels that it has of its own.
type Samples = Vec<(Vec<String>, u64)>;

/// Where the samples of a metric come from.
#[derive(Clone, Copy)]
enum Source {
    Container(fn(&Seen) -> Samples),
    Pod(fn(&Interface) -> u64),
}

struct Metric {
    name: &'static str,
    help: &'static str,
    kind: wire::MetricType,
    labels: &'static [&'static str],
    source: Source,
}

/// What was seen of a container at one moment.
struct Seen {
    measures: Measures,
    record: std::sync::Arc<Record>,
    /// Of its writable layer.
    layer: crate::trees::Usage,
    /// Of the file system below it.
    space: Space,
    processes: Processes,
    /// Seconds since the epoch.
    now: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Space {
    bytes: u64,
    inodes: u64,
    inodes_free: u64,
}

/// What its processes have, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Processes {
    count: u64,
    threads: u64,
    descriptors: u64,
    sockets: u64,
    /// The soft limit of process 1 for descriptors.
    descriptors_limit: u64,
}

const NANO: u64 = 1_000_000_000;
const MICRO: u64 = 1_000_000;

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

fn waited(seen: &Seen, of: fn(&crate::container::Pressure) -> Waited) -> Option<Waited> {
    seen.measures.usage.pressure.as_ref().map(of)
}

fn some(waited: Option<Waited>) -> Samples {
    waited.map_or_else(Vec::new, |waited| one(waited.some.total / MICRO))
}

fn all(waited: Option<Waited>) -> Samples {
    waited.map_or_else(Vec::new, |waited| one(waited.all.total / MICRO))
}

const METRICS: [Metric; 56] = [
    labelled(
        counter("container_blkio_device_usage_total", "Bytes to and from block devices", |seen| {
            let devices = seen.measures.devices.iter();
            let both = |device: &crate::container::DeviceUse| {
                let of = |operation: &str, value| {
                    let name = format!("{}:{}", device.major, device.minor);
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
        one(seen.measures.usage.cpu_periods)
    }),
    counter(
        "container_cpu_cfs_throttled_periods_total",
        "Periods in which the quota was used up",
        |seen| one(seen.measures.usage.cpu_throttled_periods),
    ),
    counter(
        "container_cpu_cfs_throttled_seconds_total",
        "Seconds held back by the CPU quota",
        |seen| one(seen.measures.usage.cpu_throttled / NANO),
    ),
    counter("container_cpu_system_seconds_total", "Seconds of CPU in the kernel", |seen| {
        one(seen.measures.usage.cpu_kernel / NANO)
    }),
    counter("container_cpu_usage_seconds_total", "Seconds of CPU", |seen| {
        one(seen.measures.usage.cpu_total / NANO)
    }),
    counter("container_cpu_user_seconds_total", "Seconds of CPU outside of the kernel", |seen| {
        one(seen.measures.usage.cpu_user / NANO)
    }),
    gauge("container_file_descriptors", "Open file descriptors", |seen| {
        one(seen.processes.descriptors)
    }),
    gauge("container_fs_inodes_free", "Free inodes of the file system", |seen| {
        one(seen.space.inodes_free)
    }),
    gauge("container_fs_inodes_total", "Inodes of the file system", |seen| one(seen.space.inodes)),
    gauge("container_fs_limit_bytes", "Bytes of the file system", |seen| one(seen.space.bytes)),
    counter("container_fs_reads_bytes_total", "Bytes read from block devices", |seen| {
        one(seen.measures.usage.block_read)
    }),
    counter("container_fs_reads_total", "Reads from block devices", |seen| {
        one(seen.measures.usage.block_reads)
    }),
    gauge("container_fs_usage_bytes", "Bytes of the writable layer", |seen| one(seen.layer.size)),
    counter("container_fs_writes_bytes_total", "Bytes written to block devices", |seen| {
        one(seen.measures.usage.block_written)
    }),
    counter("container_fs_writes_total", "Writes to block devices", |seen| {
        one(seen.measures.usage.block_writes)
    }),
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
            let of = |kind: &str, value| (vec![kind.to_owned(), "container".to_owned()], value);
            vec![of("pgfault", usage.page_faults), of("pgmajfault", usage.major_page_faults)]
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
    gauge("container_processes", "Processes", |seen| one(seen.processes.count)),
    gauge("container_sockets", "Open sockets", |seen| one(seen.processes.sockets)),
    gauge("container_spec_cpu_period", "Microseconds of a period of the CPU quota", |seen| {
        one(seen.record.options.limits.cpu_period.unwrap_or(100_000))
    }),
    gauge("container_spec_cpu_quota", "Microseconds of CPU in each period", |seen| {
        let quota = seen.record.options.limits.cpu_quota;
        quota.and_then(|quota| u64::try_from(quota).ok()).map_or_else(Vec::new, one)
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
    gauge("container_threads", "Threads", |seen| one(seen.processes.threads)),
    gauge("container_threads_max", "The limit of processes and threads; 0 is none", |seen| {
        one(seen.measures.usage.pids_limit)
    }),
    labelled(
        gauge("container_ulimits_soft", "Soft limits of process 1", |seen| {
            vec![(vec!["max_open_files".to_owned()], seen.processes.descriptors_limit)]
        }),
        &["ulimit"],
    ),
];

fn bytes(limit: Option<i64>) -> u64 {
    limit.and_then(|limit| u64::try_from(limit).ok()).unwrap_or(0)
}

impl Cri {
    pub(super) fn metric_descriptors() -> Vec<wire::MetricDescriptor> {
        let described = METRICS.iter().map(|metric| wire::MetricDescriptor {
            name: metric.name.to_owned(),
            help: metric.help.to_owned(),
            label_keys: LABELS.iter().chain(metric.labels).map(|key| (*key).to_owned()).collect(),
        });
        described.collect()
    }

    pub(super) async fn pod_metrics(&self) -> Vec<wire::PodSandboxMetrics> {
        let mut metrics = Vec::new();
        for pod in self.supervisor.sandboxes(&self.namespace) {
            let (Ok(record), Ok(_)) = (pod.record(), pod.running()) else { continue };
            if self.is_on_its_way(&record) {
                continue;
            }
            let config = kept::pod(&record).config.unwrap_or_default().metadata.unwrap_or_default();
            let place = (config.name.as_str(), config.namespace.as_str());
            let interfaces = self.supervisor.interfaces(&pod).unwrap_or_default();
            let labels = [record.id.as_str(), record.name.as_str(), "", "POD", place.0, place.1];
            let labels = labels.map(str::to_owned);
            let mut container_metrics = Vec::new();
            for member in self.supervisor.members(&pod) {
                // One that ends meanwhile is left out.
                if let Ok(seen) = self.see(&member).await {
                    container_metrics.push(of_container(&seen, place));
                }
            }
            metrics.push(wire::PodSandboxMetrics {
                pod_sandbox_id: record.id.clone(),
                metrics: of_pod(&interfaces, &labels),
                container_metrics,
            });
        }
        metrics
    }

    async fn see(&self, container: &Handle) -> Result<Seen> {
        let record = container.record()?;
        let measures = self.supervisor.measures(container).await?;
        let layer = self.core().snapshots.usage_of(record.snapshot).await?;
        let pids = measures.processes.clone();
        let directory = self.core().layout.snapshots();
        let looked = tokio::task::spawn_blocking(move || (processes(&pids), space(&directory)));
        let (processes, space) = looked.await.unwrap_or_default();
        let now = u64::try_from(crate::time::Time::now().seconds).unwrap_or(0);
        Ok(Seen { measures, record, layer, space, processes, now })
    }
}

fn of_container(seen: &Seen, (pod, namespace): (&str, &str)) -> wire::ContainerMetrics {
    let record = &seen.record;
    let config = kept::container(record).config.unwrap_or_default().metadata.unwrap_or_default();
    let image = record.image_name();
    let labels = [&record.id, &record.name, &image, &config.name].map(String::as_str);
    let labels: Vec<String> =
        labels.into_iter().chain([pod, namespace]).map(str::to_owned).collect();
    let samples = |metric: &Metric| -> Vec<wire::Metric> {
        match metric.source {
            Source::Pod(_) => Vec::new(),
            Source::Container(of) => {
                of(seen).into_iter().map(|sample| sampled(metric, &labels, sample)).collect()
            }
        }
    };
    wire::ContainerMetrics {
        container_id: record.id.clone(),
        metrics: METRICS.iter().flat_map(samples).collect(),
    }
}

fn of_pod(interfaces: &[Interface], labels: &[String]) -> Vec<wire::Metric> {
    let samples = |metric: &Metric| -> Vec<wire::Metric> {
        match metric.source {
            Source::Container(_) => Vec::new(),
            Source::Pod(of) => interfaces
                .iter()
                .map(|one| sampled(metric, labels, (vec![one.name.clone()], of(one))))
                .collect(),
        }
    };
    METRICS.iter().flat_map(samples).collect()
}

fn sampled(metric: &Metric, labels: &[String], (own, value): (Vec<String>, u64)) -> wire::Metric {
    wire::Metric {
        name: metric.name.to_owned(),
        timestamp: convert::now(),
        metric_type: metric.kind.into(),
        label_values: labels.iter().cloned().chain(own).collect(),
        value: Some(wire::UInt64Value { value }),
    }
}

fn space(directory: &Path) -> Space {
    let Ok(found) = rustix::fs::statvfs(directory) else { return Space::default() };
    Space {
        bytes: found.f_blocks * found.f_frsize,
        inodes: found.f_files,
        inodes_free: found.f_ffree,
    }
}

/// Processes that end meanwhile have nothing.
fn processes(pids: &[u32]) -> Processes {
    let mut all = Processes { count: pids.len() as u64, ..Processes::default() };
    for (index, pid) in pids.iter().enumerate() {
        let own = Path::new("/proc").join(pid.to_string());
        let status = fs::read_to_string(own.join("status")).unwrap_or_default();
        all.threads += number_behind(&status, "Threads:");
        for entry in fs::read_dir(own.join("fd")).into_iter().flatten().flatten() {
            all.descriptors += 1;
            let is_socket = fs::read_link(entry.path())
                .is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
            all.sockets += u64::from(is_socket);
        }
        if index == 0 {
            let limits = fs::read_to_string(own.join("limits")).unwrap_or_default();
            all.descriptors_limit = number_behind(&limits, "Max open files");
        }
    }
    all
}

/// The first number behind a word at the beginning of a line.
fn number_behind(text: &str, word: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_default();
    rest.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_metric_is_described_once() {
        let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for described in Cri::metric_descriptors() {
            assert!(!described.help.is_empty() && described.label_keys.len() >= LABELS.len());
        }
    }

    #[test]
    fn what_this_process_has_is_seen() {
        let _socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let own = processes(&[std::process::id()]);
        assert_eq!(own.count, 1);
        assert!(own.threads >= 1 && own.descriptors >= 3 && own.sockets >= 1, "{own:?}");
        assert!(own.descriptors_limit > 0);
        assert_eq!(processes(&[u32::MAX]), Processes { count: 1, ..Processes::default() });
    }
}
