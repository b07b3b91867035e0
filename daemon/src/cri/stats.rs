//! What containers and pods use. Every figure is read when it is asked for, so none is stale.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use bosun_proto::cri::UInt64Value;

use super::{Cri, convert, kept, lock, wire};
use crate::container::{Handle, Record, Usage};
use crate::error::{Error, Result};
use crate::store::Kind;
use crate::trees;

/// What a container had used when it was last asked: its CPU time, and when that was, both in
/// nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Samples(Mutex<HashMap<String, (u64, i64)>>);

impl Samples {
    /// Billionths of CPUs since the last time; `None` the first time.
    fn rate(&self, id: &str, total: u64, now: i64) -> Option<u64> {
        let mut samples = lock(&self.0);
        let (before, then) = samples.insert(id.to_owned(), (total, now))?;
        let elapsed = u64::try_from(now - then).ok().filter(|elapsed| *elapsed > 0)?;
        let used = u128::from(total.saturating_sub(before)) * 1_000_000_000;
        u64::try_from(used / u128::from(elapsed)).ok()
    }

    fn forget_others(&self, known: impl Fn(&str) -> bool) {
        lock(&self.0).retain(|id, _| known(id));
    }
}

fn some(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

/// What is measured once does not change: the trees of committed snapshots, by number.
#[derive(Debug, Default)]
pub(super) struct Measured(Mutex<HashMap<i64, trees::Usage>>);

impl Cri {
    pub(super) async fn container_stats(&self, id: &str) -> Result<wire::ContainerStats> {
        let container = self.container(id)?;
        let record = container.record()?;
        self.stats_of(&record).await
    }

    pub(super) async fn all_container_stats(
        &self,
        filter: Option<wire::ContainerStatsFilter>,
    ) -> Vec<wire::ContainerStats> {
        let filter = filter.unwrap_or_default();
        let containers = self.supervisor.list(&self.namespace);
        let known: HashSet<&str> = containers.iter().map(|one| one.key().id.as_str()).collect();
        self.samples.forget_others(|id| known.contains(id));
        let mut all = Vec::new();
        for container in &containers {
            let Ok(record) = container.record() else { continue };
            let labels = kept::container(&record).config.unwrap_or_default().labels;
            let is_meant = container.running().is_ok()
                && record.id.starts_with(&filter.id)
                && convert::pod_of(&record).starts_with(&filter.pod_sandbox_id)
                && convert::selects(&filter.label_selector, &labels);
            if !is_meant {
                continue;
            }
            // One that ends meanwhile is left out.
            match self.stats_of(&record).await {
                Ok(stats) => all.push(stats),
                Err(error) => tracing::debug!(container = %container.key(), %error, "no stats"),
            }
        }
        all
    }

    async fn stats_of(&self, record: &Record) -> Result<wire::ContainerStats> {
        let layer = self.core().snapshots.usage_of(record.snapshot).await?;
        let now = convert::now();
        let mut stats = wire::ContainerStats {
            attributes: Some(convert::container_attributes(record)),
            writable_layer: Some(self.file_system(now, layer)),
            ..wire::ContainerStats::default()
        };
        let usage = match self.supervisor.usage(&self.namespace, &record.id).await {
            Ok(usage) => usage,
            // What it used has gone with its control group.
            Err(Error::NotRunning { .. }) => return Ok(stats),
            Err(error) => return Err(error),
        };
        stats.cpu = Some(self.cpu(&record.id, now, &usage));
        stats.memory = Some(memory(now, &usage));
        stats.io = io(now, &usage);
        stats.swap = Some(wire::SwapUsage {
            timestamp: now,
            swap_available_bytes: None,
            swap_usage_bytes: some(usage.swap_used),
        });
        Ok(stats)
    }

    fn cpu(&self, id: &str, now: i64, usage: &Usage) -> wire::CpuUsage {
        let rate = self.samples.rate(id, usage.cpu_total, now);
        wire::CpuUsage {
            timestamp: now,
            usage_core_nano_seconds: some(usage.cpu_total),
            usage_nano_cores: rate.and_then(some),
            psi: usage.pressure.map(|pressure| convert::pressure(pressure.cpu)),
        }
    }

    fn file_system(&self, now: i64, usage: trees::Usage) -> wire::FilesystemUsage {
        let root = self.core().layout.snapshots().to_string_lossy().into_owned();
        wire::FilesystemUsage {
            timestamp: now,
            fs_id: Some(wire::FilesystemIdentifier { mountpoint: root }),
            used_bytes: some(usage.size),
            inodes_used: some(usage.inodes),
        }
    }

    pub(super) async fn pod_stats(&self, id: &str) -> Result<wire::PodSandboxStats> {
        let pod = self.pod(id)?;
        let record = pod.record()?;
        self.stats_of_pod(&pod, &record).await
    }

    pub(super) async fn all_pod_stats(
        &self,
        filter: Option<wire::PodSandboxStatsFilter>,
    ) -> Vec<wire::PodSandboxStats> {
        let filter = filter.unwrap_or_default();
        let mut all = Vec::new();
        for pod in self.supervisor.sandboxes(&self.namespace) {
            let Ok(record) = pod.record() else { continue };
            let labels = kept::pod(&record).config.unwrap_or_default().labels;
            let is_meant = pod.running().is_ok()
                && !self.is_on_its_way(&record)
                && record.id.starts_with(&filter.id)
                && convert::selects(&filter.label_selector, &labels);
            if !is_meant {
                continue;
            }
            match self.stats_of_pod(&pod, &record).await {
                Ok(stats) => all.push(stats),
                Err(error) => tracing::debug!(pod = %pod.key(), %error, "no stats"),
            }
        }
        all
    }

    /// A pod uses what its containers use: nothing else is in it.
    async fn stats_of_pod(&self, pod: &Handle, record: &Record) -> Result<wire::PodSandboxStats> {
        let now = convert::now();
        let mut total = Usage::default();
        let mut containers = Vec::new();
        for member in self.supervisor.members(pod) {
            let (Ok(record), Ok(_)) = (member.record(), member.running()) else { continue };
            let usage = self.supervisor.usage(&self.namespace, &record.id).await;
            // One that ends meanwhile is left out.
            let Ok(usage) = usage else { continue };
            total.cpu_total += usage.cpu_total;
            total.memory_used += usage.memory_used;
            total.memory_total += usage.memory_total;
            total.memory_anonymous += usage.memory_anonymous;
            total.page_faults += usage.page_faults;
            total.major_page_faults += usage.major_page_faults;
            total.memory_limit = total.memory_limit.max(usage.memory_limit);
            total.pids += usage.pids;
            if let Ok(stats) = self.stats_of(&record).await {
                containers.push(stats);
            }
        }
        total.pressure = self.supervisor.pressure(pod);
        let linux = wire::LinuxPodSandboxStats {
            cpu: Some(self.cpu(&record.id, now, &total)),
            memory: Some(memory(now, &total)),
            network: self.supervisor.interfaces(pod).ok().map(|all| convert::network(now, &all)),
            process: Some(wire::ProcessUsage { timestamp: now, process_count: some(total.pids) }),
            containers,
            io: io(now, &total),
        };
        let config = kept::pod(record).config.unwrap_or_default();
        Ok(wire::PodSandboxStats {
            attributes: Some(wire::PodSandboxAttributes {
                id: record.id.clone(),
                metadata: config.metadata,
                labels: config.labels,
                annotations: config.annotations,
            }),
            linux: Some(linux),
        })
    }

    /// What images and containers take of the disk.
    pub(super) async fn image_file_systems(&self) -> Result<wire::ImageFsInfoResponse> {
        let core = self.core();
        let namespace = self.namespace.as_str();
        let (mut images, mut containers) = (trees::Usage::default(), trees::Usage::default());
        for blob in core.content.list(namespace).await? {
            images.size += blob.size;
            images.inodes += 1;
        }
        let (mut still, mut asked) = (Vec::new(), Vec::new());
        for snapshot in core.snapshots.list(namespace).await? {
            let is_still = snapshot.row.kind == Kind::Committed;
            let number = snapshot.row.number;
            match self.measured.of(number).filter(|_| is_still) {
                Some(usage) => still.push((number, usage)),
                None => asked.push((number, is_still)),
            }
        }
        let numbers = asked.iter().map(|(number, _)| *number).collect();
        let found = core.snapshots.usage_of_all(numbers).await?;
        for ((number, is_still), usage) in asked.into_iter().zip(found) {
            match is_still {
                true => still.push((number, usage)),
                false => add(&mut containers, usage),
            }
        }
        still.iter().for_each(|(_, usage)| add(&mut images, *usage));
        self.measured.keep(still);
        let now = convert::now();
        Ok(wire::ImageFsInfoResponse {
            image_filesystems: vec![self.file_system(now, images)],
            container_filesystems: vec![self.file_system(now, containers)],
        })
    }
}

impl Measured {
    fn of(&self, number: i64) -> Option<trees::Usage> {
        lock(&self.0).get(&number).copied()
    }

    /// Those that there are, and no others.
    fn keep(&self, all: Vec<(i64, trees::Usage)>) {
        *lock(&self.0) = all.into_iter().collect();
    }
}

fn add(total: &mut trees::Usage, more: trees::Usage) {
    total.size += more.size;
    total.inodes += more.inodes;
}

fn memory(now: i64, usage: &Usage) -> wire::MemoryUsage {
    wire::MemoryUsage {
        timestamp: now,
        working_set_bytes: some(usage.memory_used),
        // Left out without a limit, as the kubelet's summary has it.
        available_bytes: usage.memory_available().and_then(some),
        usage_bytes: some(usage.memory_total),
        rss_bytes: some(usage.memory_anonymous),
        page_faults: some(usage.page_faults),
        major_page_faults: some(usage.major_page_faults),
        psi: usage.pressure.map(|pressure| convert::pressure(pressure.memory)),
    }
}

/// Only pressure: `None` where it is not counted.
fn io(now: i64, usage: &Usage) -> Option<wire::IoUsage> {
    let psi = convert::pressure(usage.pressure?.io);
    Some(wire::IoUsage { timestamp: now, psi: Some(psi) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_samples() {
        let samples = Samples::default();
        assert_eq!(samples.rate("a", 1_000, 0), None);
        assert_eq!(samples.rate("a", 500_001_000, 1_000_000_000), Some(500_000_000));
        assert_eq!(samples.rate("a", 500_001_000, 1_000_000_000), None);
        samples.forget_others(|_| false);
        assert_eq!(samples.rate("a", 1, 2_000_000_000), None);
    }
}
