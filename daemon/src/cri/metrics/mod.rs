//! Metrics under the names and labels that cAdvisor gave them, read when they are asked for.
//!
//! Every metric is one row of [`METRICS`]: its name, what it is, the labels that it has beside
//! [`LABELS`], and where its samples come from. So what is described and what is listed can't differ.
//!
//! What is a kubelet's own when it has them of cAdvisor, so that who reads them sees no difference: `id` is
//! the control group, `name` the id, of a container as of a sandbox; a sandbox is in no `container` and of
//! no `image`; a disk is `/dev/` and its name. Values are whole numbers, as the CRI has them, so of seconds
//! the parts are missing. They have no time of their own: that is for runtimes that remember them.
//!
//! Deliberately absent: load averages, for which somebody would have to look between two calls, and what
//! kubelets leave out.

mod processes;
mod table;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Cri, kept, wire};
use crate::container::{Handle, Interface, Measures, Record};
use crate::error::Result;
use processes::Processes;
use table::METRICS;

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
    /// Its control group.
    cgroup: String,
    /// Of its writable layer.
    layer: crate::trees::Usage,
    looked: Looked,
    /// Seconds since the epoch.
    now: u64,
}

/// What is looked up on the machine.
#[derive(Debug, Default)]
struct Looked {
    processes: Processes,
    /// Of the file system below the writable layer.
    space: Space,
    /// Of devices, by their numbers.
    names: HashMap<(u64, u64), String>,
}

#[derive(Clone, Debug, Default)]
struct Space {
    device: String,
    bytes: u64,
    inodes: u64,
    inodes_free: u64,
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
            let id = id_label(&self.supervisor.cgroup(&pod));
            let labels = [id.as_str(), record.id.as_str(), "", "", place.0, place.1];
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
        let cgroup = self.supervisor.cgroup(container);
        let pids = measures.processes.clone();
        let devices: Vec<(u64, u64)> =
            measures.devices.iter().map(|device| (device.major, device.minor)).collect();
        let directory = self.core().layout.snapshots();
        let looked = tokio::task::spawn_blocking(move || Looked {
            processes: Processes::look(&pids),
            space: Space::of(&directory),
            names: devices.into_iter().map(|device| (device, device_name(device))).collect(),
        });
        let looked = looked.await.unwrap_or_default();
        let now = u64::try_from(crate::time::Time::now().seconds).unwrap_or(0);
        Ok(Seen { measures, record, cgroup, layer, looked, now })
    }
}

impl Seen {
    fn device_name(&self, major: u64, minor: u64) -> String {
        self.looked.names.get(&(major, minor)).cloned().unwrap_or_default()
    }
}

/// cAdvisor names control groups as paths from their root.
fn id_label(cgroup: &str) -> String {
    format!("/{}", cgroup.trim_start_matches('/'))
}

/// `/dev/` and what the kernel calls a device; its numbers when it is none of the kernel's disks, as
/// beneath file systems of several.
fn device_name((major, minor): (u64, u64)) -> String {
    let text = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent"));
    let text = text.unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map_or_else(|| format!("{major}:{minor}"), |name| format!("/dev/{name}"))
}

fn of_container(seen: &Seen, (pod, namespace): (&str, &str)) -> wire::ContainerMetrics {
    let record = &seen.record;
    let config = kept::listed(record).metadata.unwrap_or_default();
    let image = record.image_name();
    let id = id_label(&seen.cgroup);
    let labels = [&id, &record.id, &image, &config.name].map(String::as_str);
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
        // Read as it was asked for, in the CRI's words.
        timestamp: 0,
        metric_type: metric.kind.into(),
        label_values: labels.iter().cloned().chain(own).collect(),
        value: Some(wire::UInt64Value { value }),
    }
}

impl Space {
    fn of(directory: &Path) -> Self {
        let Ok(found) = rustix::fs::statvfs(directory) else { return Self::default() };
        let device = fs::metadata(directory).map_or(0, |metadata| metadata.dev());
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        Self {
            device: device_name((major.into(), minor.into())),
            bytes: found.f_blocks * found.f_frsize,
            inodes: found.f_files,
            inodes_free: found.f_ffree,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{DeviceUse, HugepageUse, Pressure, Usage};
    use std::collections::{BTreeMap, BTreeSet};

    /// What cAdvisor has beside [`LABELS`], where it has any.
    const OF_THEIR_OWN: [(&str, &[&str]); 20] = [
        ("container_blkio_device_usage_total", &["device", "major", "minor", "operation"]),
        ("container_cpu_usage_seconds_total", &["cpu"]),
        ("container_fs_inodes_free", &["device"]),
        ("container_fs_inodes_total", &["device"]),
        ("container_fs_limit_bytes", &["device"]),
        ("container_fs_reads_bytes_total", &["device"]),
        ("container_fs_reads_total", &["device"]),
        ("container_fs_usage_bytes", &["device"]),
        ("container_fs_writes_bytes_total", &["device"]),
        ("container_fs_writes_total", &["device"]),
        ("container_hugetlb_max_usage_bytes", &["pagesize"]),
        ("container_hugetlb_usage_bytes", &["pagesize"]),
        ("container_memory_failures_total", &["failure_type", "scope"]),
        ("container_network_receive_bytes_total", &["interface"]),
        ("container_network_receive_errors_total", &["interface"]),
        ("container_network_receive_packets_dropped_total", &["interface"]),
        ("container_network_receive_packets_total", &["interface"]),
        ("container_network_transmit_bytes_total", &["interface"]),
        ("container_tasks_state", &["state"]),
        ("container_ulimits_soft", &["ulimit"]),
    ];

    #[test]
    fn every_metric_is_described_once_with_the_labels_of_cadvisor() {
        let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        assert!(METRICS.is_sorted_by_key(|metric| metric.name), "in the order of their names");
        let own: BTreeMap<&str, &[&str]> = OF_THEIR_OWN.into();
        assert!(own.keys().all(|name| names.contains(name)));
        for described in Cri::metric_descriptors() {
            assert!(!described.help.is_empty());
            let (all, more) = described.label_keys.split_at(LABELS.len());
            assert_eq!(all, LABELS);
            match own.get(described.name.as_str()) {
                Some(labels) => assert_eq!(more, *labels, "{}", described.name),
                None if described.name.starts_with("container_network_") => {
                    assert_eq!(more, ["interface"]);
                }
                None => assert!(more.is_empty(), "{}", described.name),
            }
            // Totals go up, everything else goes both ways; two are named as the other kind.
            let metric = METRICS.iter().find(|metric| metric.name == described.name).unwrap();
            let is_total = match metric.name {
                "container_memory_failcnt" => true,
                "container_fs_inodes_total" => false,
                name => name.ends_with("_total"),
            };
            assert_eq!(metric.kind == wire::MetricType::Counter, is_total, "{}", metric.name);
        }
    }

    #[test]
    fn labels_and_values_are_those_of_cadvisor() {
        let usage = Usage {
            cpu_total: 7_900_000_000,
            cpu_periods: 5,
            memory_active_file: 11,
            memory_inactive_file: 12,
            page_faults: 3,
            major_page_faults: 2,
            pressure: Some(Pressure::default()),
            ..Usage::default()
        };
        let device =
            DeviceUse { major: 8, minor: 1, read: 4096, written: 512, reads: 3, writes: 1 };
        let record = Record {
            id: "4f".to_owned(),
            name: "k8s_one".to_owned(),
            created_at: crate::time::Time::default(),
            options: crate::spec::ContainerOptions::default(),
            args: Vec::new(),
            snapshot: 1,
            started_at: None,
            run: crate::container::Run::Created { attempts: 0, error: None },
            warnings: Vec::new(),
            image: None,
        };
        let mut seen = Seen {
            measures: Measures {
                usage,
                devices: vec![device],
                hugepages: vec![HugepageUse { size: "2MB".to_owned(), used: 0, peak: 0 }],
                processes: vec![1],
            },
            record: std::sync::Arc::new(record),
            cgroup: "kubepods/pod1/4f".to_owned(),
            layer: crate::trees::Usage::default(),
            looked: Looked {
                space: Space { device: "/dev/sda2".to_owned(), ..Space::default() },
                names: HashMap::from([((8, 1), "/dev/sda1".to_owned())]),
                ..Looked::default()
            },
            now: 1,
        };
        let said = |seen: &Seen| -> Vec<String> {
            let listed = of_container(seen, ("web", "default")).metrics.into_iter();
            let line = |metric: wire::Metric| {
                let own = &metric.label_values[LABELS.len()..];
                format!("{} {} {}", metric.name, own.join(","), metric.value.unwrap().value)
            };
            listed.map(line).collect()
        };
        let lines = said(&seen);
        for expected in [
            "container_blkio_device_usage_total /dev/sda1,8,1,Read 4096",
            "container_blkio_device_usage_total /dev/sda1,8,1,Write 512",
            "container_cpu_usage_seconds_total total 7",
            "container_fs_reads_total /dev/sda1 3",
            "container_fs_writes_bytes_total /dev/sda1 512",
            "container_fs_usage_bytes /dev/sda2 0",
            "container_hugetlb_usage_bytes 2MB 0",
            "container_memory_failures_total pgfault,container 3",
            "container_memory_failures_total pgmajfault,hierarchy 2",
            "container_memory_total_active_file_bytes  11",
            "container_memory_total_inactive_file_bytes  12",
            "container_tasks_state iowaiting 0",
            "container_ulimits_soft max_open_files 0",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected}: {lines:#?}");
        }
        let first = of_container(&seen, ("web", "default")).metrics.remove(0);
        assert_eq!(
            first.label_values[..LABELS.len()],
            ["/kubepods/pod1/4f", "4f", "", "", "web", "default"]
        );
        assert_eq!(first.timestamp, 0);
        // Without a quota there are no periods of one.
        let of_quota = |line: &&String| line.contains("_cfs_") || line.contains("_cpu_quota");
        assert_eq!(lines.iter().filter(of_quota).count(), 0, "{lines:#?}");
        let mut record = Record::clone(&seen.record);
        record.options.limits.cpu_quota = Some(20_000);
        seen.record = std::sync::Arc::new(record);
        assert_eq!(said(&seen).iter().filter(of_quota).count(), 4);
        let described = Cri::metric_descriptors();
        for metric in of_container(&seen, ("web", "default")).metrics {
            let keys = described.iter().find(|one| one.name == metric.name).unwrap();
            assert_eq!(keys.label_keys.len(), metric.label_values.len(), "{}", metric.name);
        }
    }

    #[test]
    fn a_device_has_the_kernel_s_name() {
        let disk = fs::read_dir("/sys/dev/block").into_iter().flatten().flatten().next();
        if let Some(disk) = disk {
            let numbers = disk.file_name().into_string().unwrap();
            let (major, minor) = numbers.split_once(':').unwrap();
            let name = device_name((major.parse().unwrap(), minor.parse().unwrap()));
            assert!(Path::new(&name).starts_with("/dev"), "{name}");
        }
        assert_eq!(device_name((0, 4_000_000)), "0:4000000");
    }
}
