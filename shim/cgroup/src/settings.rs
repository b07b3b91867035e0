//! Limits as writes to control files: which file, what is written, and how it is taken back.
//!
//! | limit | v1 | v2 |
//! |---|---|---|
//! | memory | `memory.limit_in_bytes` | `memory.max` |
//! | memory and swap | `memory.memsw.limit_in_bytes` | `memory.swap.max`, without the memory |
//! | reservation | `memory.soft_limit_in_bytes` | `memory.low` |
//! | swappiness, no OOM killer | `memory.swappiness`, `memory.oom_control` | none |
//! | CPU shares | `cpu.shares` | `cpu.weight`, converted |
//! | CPU quota, period, burst | `cpu.cfs_{quota,period,burst}_us` | `cpu.max`, `cpu.max.burst` |
//! | idle | `cpu.idle` | the same |
//! | realtime | `cpu.rt_{runtime,period}_us` | none |
//! | CPUs, memory nodes | `cpuset.cpus`, `cpuset.mems` | the same |
//! | processes | `pids.max` | the same |
//! | I/O weight | `blkio.bfq.weight`, else `blkio.weight` | `io.bfq.weight`, else `io.weight`, converted |
//! | I/O throttles | `blkio.throttle.*_device` | `io.max` |
//! | huge pages | `hugetlb.SIZE.limit_in_bytes` | `hugetlb.SIZE.max` |
//! | RDMA | `rdma.max` | the same |
//! | class, priorities of packets | `net_cls.classid`, `net_prio.ifpriomap` | none |
//! | anything | none | `unified` |
//!
//! Devices are apart (`devices`): rules have an order, and no file of v2. On a hybrid machine a
//! controller that is in no v1 hierarchy may be in the unified one, and then has v2's files.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use shim_wire::plan::{BlockIo, Resources, ThrottleDevice};

use crate::{Controller, Error, Reason, read};

/// One write to a control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// As errors call it: its path in the `linux.resources` of the specification.
    pub(crate) limit: Cow<'static, str>,
    pub(crate) file: PathBuf,
    pub(crate) value: String,
    pub(crate) reads: Reads,
    /// It lifts a limit, or allows nothing of something: where there is no such file, there is nothing to
    /// lift, and nothing to have.
    pub(crate) lifts: bool,
}

/// How what a file holds is written back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    Whole,
    /// The line of one key, which is written as it is read; `otherwise` when there is none.
    Line {
        key: String,
        otherwise: String,
    },
    /// The value behind a name.
    Field(&'static str),
}

/// A group's directory, and what has been decided to write there.
pub(crate) struct Settings<'a> {
    group: &'a Path,
    list: Vec<Setting>,
}

impl<'a> Settings<'a> {
    /// What the v1 controllers that `has` knows are told.
    pub(crate) fn v1(
        group: &'a Path,
        resources: &Resources,
        has: impl Fn(Controller) -> bool,
    ) -> Vec<Setting> {
        let mut settings = Self { group, list: Vec::new() };
        if has(Controller::Memory) {
            settings.memory_v1(resources);
        }
        if has(Controller::Cpu) {
            settings.number("cpu.shares", "cpu.shares", resources.cpu_shares);
            settings.number("cpu.period", "cpu.cfs_period_us", resources.cpu_period);
            settings.number("cpu.quota", "cpu.cfs_quota_us", resources.cpu_quota);
            settings.or_zero("cpu.burst", "cpu.cfs_burst_us", resources.cpu_burst);
            settings.or_zero("cpu.idle", "cpu.idle", resources.cpu_idle);
            settings.number("cpu.realtimePeriod", "cpu.rt_period_us", resources.cpu_rt_period);
            settings.number("cpu.realtimeRuntime", "cpu.rt_runtime_us", resources.cpu_rt_runtime);
        }
        if has(Controller::Cpuset) {
            settings.cpuset(resources);
        }
        if has(Controller::Pids) {
            settings.maximum("pids.limit", "pids.max", resources.pids);
        }
        if let Some(block_io) = resources.block_io.as_ref().filter(|_| has(Controller::Io)) {
            settings.block_io_v1(block_io);
        }
        if has(Controller::Hugetlb) {
            settings.hugepages(resources, "limit_in_bytes");
        }
        if has(Controller::Rdma) {
            settings.rdma(resources);
        }
        if has(Controller::NetCls) {
            settings.number("network.classID", "net_cls.classid", resources.network_class);
        }
        if has(Controller::NetPrio) {
            for (index, priority) in resources.network_priorities.iter().enumerate() {
                let (key, value) = (&priority.interface, priority.priority.to_string());
                let limit = format!("network.priorities[{index}]");
                settings.line(limit, "net_prio.ifpriomap", key, &value, "0");
            }
        }
        settings.list
    }

    /// What the controllers of the unified hierarchy that `has` knows are told.
    ///
    /// # Errors
    /// [`Error::Io`] when a value that has to be completed by the present one can't be read.
    pub(crate) fn v2(
        group: &'a Path,
        resources: &Resources,
        has: impl Fn(Controller) -> bool,
    ) -> Result<Vec<Setting>, Error> {
        let mut settings = Self { group, list: Vec::new() };
        if has(Controller::Memory) {
            settings.memory_v2(resources)?;
        }
        if has(Controller::Cpu) {
            settings.cpu_v2(resources)?;
        }
        if has(Controller::Cpuset) {
            settings.cpuset(resources);
        }
        if has(Controller::Pids) {
            settings.maximum("pids.limit", "pids.max", resources.pids);
        }
        if let Some(block_io) = resources.block_io.as_ref().filter(|_| has(Controller::Io)) {
            settings.block_io_v2(block_io);
        }
        if has(Controller::Hugetlb) {
            settings.hugepages(resources, "max");
        }
        if has(Controller::Rdma) {
            settings.rdma(resources);
        }
        settings.unified(resources);
        Ok(settings.list)
    }

    fn memory_v1(&mut self, resources: &Resources) {
        self.number("memory.limit", "memory.limit_in_bytes", resources.memory);
        let both = "memory.memsw.limit_in_bytes";
        self.number("memory.swap", both, swap(resources));
        let soft = "memory.soft_limit_in_bytes";
        self.number("memory.reservation", soft, resources.memory_reservation);
        self.number("memory.swappiness", "memory.swappiness", resources.memory_swappiness);
        if let Some(disable) = resources.oom_kill_disable {
            let reads = Reads::Field("oom_kill_disable");
            let value = u8::from(disable).to_string();
            let limit = "memory.disableOOMKiller";
            self.push(limit, "memory.oom_control", value, reads, !disable);
        }
    }

    fn memory_v2(&mut self, resources: &Resources) -> Result<(), Error> {
        self.maximum("memory.limit", "memory.max", resources.memory);
        if let Some(both) = swap(resources) {
            let memory = match resources.memory {
                Some(memory) => memory,
                None if both < 0 => -1,
                // What it is limited to stays; "max" is no number.
                None => {
                    let present = self.present("memory.max")?;
                    present.trim().parse().map_err(|_| Error::LimitRefused {
                        limit: "memory.swap".into(),
                        value: both.to_string(),
                        reason: Reason::WithoutMemory,
                    })?
                }
            };
            let swap = if both >= 0 && memory >= 0 { (both - memory).max(0) } else { -1 };
            self.maximum("memory.swap", "memory.swap.max", Some(swap));
            // A kernel without swap has no such file, and nothing to limit.
            self.list.iter_mut().filter(|s| s.limit == "memory.swap").for_each(|s| s.lifts = true);
        } else if let Some(memory) = resources.memory.and_then(|memory| u64::try_from(memory).ok())
            && let Some(both) = memory_and_swap(self.group)?
        {
            // Memory and swap together stay what they were limited to, as they do on v1.
            let swap = both.saturating_sub(memory).to_string();
            self.text("memory.swap", "memory.swap.max", &swap);
        }
        self.maximum("memory.reservation", "memory.low", resources.memory_reservation);
        Ok(())
    }

    fn cpu_v2(&mut self, resources: &Resources) -> Result<(), Error> {
        self.number("cpu.shares", "cpu.weight", resources.cpu_shares.map(cpu_weight));
        let quota = resources.cpu_quota.map(max_when_negative);
        let value = match (quota, resources.cpu_period) {
            (None, None) => String::new(),
            (Some(quota), Some(period)) => format!("{quota} {period}"),
            // The kernel keeps the period then, but wants a quota before one.
            (Some(quota), None) => quota,
            (None, Some(period)) => {
                let present = self.present("cpu.max")?;
                let quota = present.split_whitespace().next().unwrap_or("max");
                format!("{quota} {period}")
            }
        };
        let limit = if resources.cpu_quota.is_some() { "cpu.quota" } else { "cpu.period" };
        self.text(limit, "cpu.max", &value);
        self.or_zero("cpu.burst", "cpu.max.burst", resources.cpu_burst);
        self.or_zero("cpu.idle", "cpu.idle", resources.cpu_idle);
        Ok(())
    }

    fn cpuset(&mut self, resources: &Resources) {
        self.text("cpu.cpus", "cpuset.cpus", &resources.cpuset_cpus);
        self.text("cpu.mems", "cpuset.mems", &resources.cpuset_mems);
    }

    fn block_io_v1(&mut self, block_io: &BlockIo) {
        // CFQ's names went with it in Linux 5.0, BFQ's came in 4.12.
        let bfq = self.has_file("blkio.bfq.weight");
        let (own, by_device, otherwise) = match bfq {
            true => ("blkio.bfq.weight", "blkio.bfq.weight_device", "default"),
            false => ("blkio.weight", "blkio.weight_device", "0"),
        };
        self.number("blockIO.weight", own, block_io.weight);
        self.number("blockIO.leafWeight", "blkio.leaf_weight", block_io.leaf_weight);
        for (index, device) in block_io.weight_devices.iter().enumerate() {
            let key = format!("{}:{}", device.major, device.minor);
            if let Some(weight) = device.weight {
                let limit = format!("blockIO.weightDevice[{index}].weight");
                self.line(limit, by_device, &key, &weight.to_string(), otherwise);
            }
            if let Some(weight) = device.leaf_weight {
                let limit = format!("blockIO.weightDevice[{index}].leafWeight");
                let file = "blkio.leaf_weight_device";
                self.line(limit, file, &key, &weight.to_string(), "0");
            }
        }
        for (limit, _, devices) in throttles(block_io) {
            let file = match limit {
                "blockIO.throttleReadBpsDevice" => "blkio.throttle.read_bps_device",
                "blockIO.throttleWriteBpsDevice" => "blkio.throttle.write_bps_device",
                "blockIO.throttleReadIOPSDevice" => "blkio.throttle.read_iops_device",
                _ => "blkio.throttle.write_iops_device",
            };
            for (index, device) in devices.iter().enumerate() {
                let key = format!("{}:{}", device.major, device.minor);
                let limit = format!("{limit}[{index}]");
                self.line(limit, file, &key, &device.rate.to_string(), "0");
            }
        }
    }

    fn block_io_v2(&mut self, block_io: &BlockIo) {
        // The cost model's weights go from 1 to 10000, BFQ's as v1's.
        let bfq = self.has_file("io.bfq.weight");
        let file = if bfq { "io.bfq.weight" } else { "io.weight" };
        let converted = |weight: u32| if bfq { weight } else { io_weight(weight) }.to_string();
        if let Some(weight) = block_io.weight {
            self.line("blockIO.weight", file, "default", &converted(weight), "100");
        }
        for (index, device) in block_io.weight_devices.iter().enumerate() {
            if let Some(weight) = device.weight {
                let key = format!("{}:{}", device.major, device.minor);
                let limit = format!("blockIO.weightDevice[{index}].weight");
                self.line(limit, file, &key, &converted(weight), "default");
            }
        }
        for (limit, name, devices) in throttles(block_io) {
            for (index, device) in devices.iter().enumerate() {
                let key = format!("{}:{}", device.major, device.minor);
                let limit = format!("{limit}[{index}]");
                let value = match device.rate {
                    0 => format!("{name}=max"),
                    rate => format!("{name}={rate}"),
                };
                self.line(limit, "io.max", &key, &value, &format!("{name}=max"));
            }
        }
    }

    fn hugepages(&mut self, resources: &Resources, end: &str) {
        for (index, limit) in resources.hugepages.iter().enumerate() {
            let (size, value) = (&limit.page_size, limit.limit);
            let place = format!("hugepageLimits[{index}]");
            let lifts = value <= 0;
            let value = if end == "max" { max_when_negative(value) } else { value.to_string() };
            let file = format!("hugetlb.{size}.{end}");
            self.push(place.clone(), &file, value.clone(), Reads::Whole, lifts);
            // Since Linux 5.7 also what is reserved by mmap(2) and not yet used.
            let reserved = format!("hugetlb.{size}.rsvd.{end}");
            if self.has_file(&reserved) {
                self.text(place, &reserved, &value);
            }
        }
    }

    fn rdma(&mut self, resources: &Resources) {
        const UNLIMITED: &str = "hca_handle=max hca_object=max";
        for limit in &resources.rdma {
            let handles = limit.handles.map(|count| format!("hca_handle={count}"));
            let objects = limit.objects.map(|count| format!("hca_object={count}"));
            let value: Vec<String> = handles.into_iter().chain(objects).collect();
            let place = format!("rdma[{:?}]", limit.device);
            self.line(place, "rdma.max", &limit.device, &value.join(" "), UNLIMITED);
        }
    }

    fn unified(&mut self, resources: &Resources) {
        for (file, value) in &resources.unified {
            for line in value.lines().filter(|line| !line.trim().is_empty()) {
                let key = line.split_whitespace().next().unwrap_or_default();
                let reads = match (key.contains(':') || key == "default", file.as_str()) {
                    (false, _) => Reads::Whole,
                    (true, "io.max") => by_line(key, "rbps=max wbps=max riops=max wiops=max"),
                    (true, _) => by_line(key, "default"),
                };
                let limit = format!("unified[{file:?}]");
                self.push(limit, file, line.to_owned(), reads, false);
            }
        }
    }

    fn number(
        &mut self,
        limit: impl Into<Cow<'static, str>>,
        file: &str,
        value: Option<impl ToString>,
    ) {
        self.text(limit, file, &value.map(|value| value.to_string()).unwrap_or_default());
    }

    /// A number whose 0 is what a kernel without the file has.
    fn or_zero(
        &mut self,
        limit: impl Into<Cow<'static, str>>,
        file: &str,
        value: Option<impl ToString>,
    ) {
        if let Some(value) = value.map(|value| value.to_string()) {
            let lifts = value == "0";
            self.push(limit, file, value, Reads::Whole, lifts);
        }
    }

    fn maximum(&mut self, limit: impl Into<Cow<'static, str>>, file: &str, value: Option<i64>) {
        self.text(limit, file, &value.map(max_when_negative).unwrap_or_default());
    }

    /// Unless it is empty.
    fn text(&mut self, limit: impl Into<Cow<'static, str>>, file: &str, value: &str) {
        if !value.is_empty() {
            let lifts = value == "max" || value == "-1";
            self.push(limit, file, value.to_owned(), Reads::Whole, lifts);
        }
    }

    fn line(
        &mut self,
        limit: impl Into<Cow<'static, str>>,
        file: &str,
        key: &str,
        value: &str,
        otherwise: &str,
    ) {
        self.push(limit, file, format!("{key} {value}"), by_line(key, otherwise), false);
    }

    fn push(
        &mut self,
        limit: impl Into<Cow<'static, str>>,
        file: &str,
        value: String,
        reads: Reads,
        lifts: bool,
    ) {
        let limit = limit.into();
        self.list.push(Setting { limit, file: self.group.join(file), value, reads, lifts });
    }

    fn has_file(&self, file: &str) -> bool {
        self.group.join(file).exists()
    }

    fn present(&self, file: &str) -> Result<String, Error> {
        read(&self.group.join(file))
    }
}

fn by_line(key: &str, otherwise: &str) -> Reads {
    Reads::Line { key: key.to_owned(), otherwise: format!("{key} {otherwise}") }
}

/// Memory and swap together. Memory without a limit is not counted with swap against one.
fn swap(resources: &Resources) -> Option<i64> {
    match (resources.memory, resources.memory_swap) {
        (Some(-1), None) => Some(-1),
        (_, both) => both,
    }
}

/// What memory and swap together are limited to by a group of v2; `None` when either is not.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn memory_and_swap(group: &Path) -> Result<Option<u64>, Error> {
    let limit = |file: &str| match read(&group.join(file)) {
        Ok(text) => Ok(text.trim().parse::<u64>().ok()),
        // A kernel without swap; the controller is not on.
        Err(Error::Io { errno: Errno::NOENT, .. }) => Ok(None),
        Err(error) => Err(error),
    };
    Ok(limit("memory.max")?
        .zip(limit("memory.swap.max")?)
        .map(|(memory, swap)| memory.saturating_add(swap)))
}

/// The four throttles: the limit's name, its name in `io.max`, the devices.
pub(crate) fn throttles(
    block_io: &BlockIo,
) -> [(&'static str, &'static str, &[ThrottleDevice]); 4] {
    [
        ("blockIO.throttleReadBpsDevice", "rbps", &block_io.read_bps),
        ("blockIO.throttleWriteBpsDevice", "wbps", &block_io.write_bps),
        ("blockIO.throttleReadIOPSDevice", "riops", &block_io.read_iops),
        ("blockIO.throttleWriteIOPSDevice", "wiops", &block_io.write_iops),
    ]
}

/// Shares of v1 (2 to 262144) as a weight of v2 (1 to 10000), so that the default of the one, 1024,
/// is the default of the other, 100: the curve through these three points that the OCI runtimes
/// agreed on in 2025 (crun 1.23, runc 1.3.2).
#[must_use]
pub fn cpu_weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144) as f64;
    let l = shares.log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    // Three of the values are whole but for the last bits.
    (10_f64.powf(exponent) - 1e-9).ceil().clamp(1.0, 10_000.0) as u64
}

/// A blkio weight (10 to 1000) as a weight of v2 (1 to 10000), in a straight line.
fn io_weight(weight: u32) -> u32 {
    1 + (weight.clamp(10, 1000) - 10) * 9_999 / 990
}

fn max_when_negative(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use shim_wire::plan::{HugepageLimit, NetworkPriority, RdmaLimit, WeightDevice};

    use super::*;

    /// Everything that can be asked for.
    fn all() -> Resources {
        let throttle = |rate| vec![ThrottleDevice { major: 8, minor: 0, rate }];
        Resources {
            memory: Some(100 << 20),
            memory_swap: Some(150 << 20),
            memory_reservation: Some(50 << 20),
            memory_swappiness: Some(10),
            oom_kill_disable: Some(true),
            memory_check: true,
            cpu_shares: Some(1024),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            cpu_burst: Some(1_000),
            cpu_idle: Some(1),
            cpu_rt_runtime: Some(950),
            cpu_rt_period: Some(1_000),
            cpuset_cpus: "0-1".to_owned(),
            cpuset_mems: "0".to_owned(),
            pids: Some(-1),
            devices: Vec::new(),
            block_io: Some(BlockIo {
                weight: Some(500),
                leaf_weight: Some(20),
                weight_devices: vec![WeightDevice {
                    major: 8,
                    minor: 0,
                    weight: Some(1000),
                    leaf_weight: Some(30),
                }],
                read_bps: throttle(1),
                write_bps: throttle(0),
                read_iops: throttle(3),
                write_iops: throttle(4),
            }),
            hugepages: vec![HugepageLimit { page_size: "2MB".to_owned(), limit: -1 }],
            rdma: vec![RdmaLimit {
                device: "mlx5_0".to_owned(),
                handles: Some(5),
                objects: Some(6),
            }],
            network_class: Some(0x10001),
            network_priorities: vec![NetworkPriority { interface: "eth0".to_owned(), priority: 7 }],
            unified: [("memory.high", "max"), ("io.max", "8:0 rbps=1\n8:16 wbps=2\n")]
                .map(|(file, value)| (file.to_owned(), value.to_owned()))
                .into(),
        }
    }

    fn lines(group: &Path, settings: &[Setting]) -> Vec<String> {
        let line = |setting: &Setting| {
            let file = setting.file.strip_prefix(group).unwrap().display();
            format!("{file} = {}", setting.value)
        };
        settings.iter().map(line).collect()
    }

    #[test]
    fn every_limit_has_its_files_on_v1() {
        let group = tempfile::tempdir().unwrap();
        let settings = Settings::v1(group.path(), &all(), |_| true);
        assert_eq!(
            lines(group.path(), &settings),
            [
                "memory.limit_in_bytes = 104857600",
                "memory.memsw.limit_in_bytes = 157286400",
                "memory.soft_limit_in_bytes = 52428800",
                "memory.swappiness = 10",
                "memory.oom_control = 1",
                "cpu.shares = 1024",
                "cpu.cfs_period_us = 100000",
                "cpu.cfs_quota_us = 50000",
                "cpu.cfs_burst_us = 1000",
                "cpu.idle = 1",
                "cpu.rt_period_us = 1000",
                "cpu.rt_runtime_us = 950",
                "cpuset.cpus = 0-1",
                "cpuset.mems = 0",
                "pids.max = max",
                "blkio.weight = 500",
                "blkio.leaf_weight = 20",
                "blkio.weight_device = 8:0 1000",
                "blkio.leaf_weight_device = 8:0 30",
                "blkio.throttle.read_bps_device = 8:0 1",
                "blkio.throttle.write_bps_device = 8:0 0",
                "blkio.throttle.read_iops_device = 8:0 3",
                "blkio.throttle.write_iops_device = 8:0 4",
                "hugetlb.2MB.limit_in_bytes = -1",
                "rdma.max = mlx5_0 hca_handle=5 hca_object=6",
                "net_cls.classid = 65537",
                "net_prio.ifpriomap = eth0 7",
            ]
        );
        assert!(Settings::v1(group.path(), &all(), |_| false).is_empty());
    }

    #[test]
    fn every_limit_has_its_files_on_v2() {
        let group = tempfile::tempdir().unwrap();
        let settings = Settings::v2(group.path(), &all(), |_| true).unwrap();
        assert_eq!(
            lines(group.path(), &settings),
            [
                "memory.max = 104857600",
                "memory.swap.max = 52428800",
                "memory.low = 52428800",
                "cpu.weight = 100",
                "cpu.max = 50000 100000",
                "cpu.max.burst = 1000",
                "cpu.idle = 1",
                "cpuset.cpus = 0-1",
                "cpuset.mems = 0",
                "pids.max = max",
                "io.weight = default 4950",
                "io.weight = 8:0 10000",
                "io.max = 8:0 rbps=1",
                "io.max = 8:0 wbps=max",
                "io.max = 8:0 riops=3",
                "io.max = 8:0 wiops=4",
                "hugetlb.2MB.max = max",
                "rdma.max = mlx5_0 hca_handle=5 hca_object=6",
                "io.max = 8:0 rbps=1",
                "io.max = 8:16 wbps=2",
                "memory.high = max",
            ]
        );
    }

    #[test]
    fn the_scheduler_that_is_there_gets_the_weight() {
        let group = tempfile::tempdir().unwrap();
        for file in ["io.bfq.weight", "blkio.bfq.weight", "hugetlb.2MB.rsvd.max"] {
            std::fs::write(group.path().join(file), "").unwrap();
        }
        let v2 = Settings::v2(group.path(), &all(), |_| true).unwrap();
        let v2 = lines(group.path(), &v2);
        assert!(v2.contains(&"io.bfq.weight = default 500".to_owned()), "{v2:?}");
        assert!(v2.contains(&"io.bfq.weight = 8:0 1000".to_owned()), "{v2:?}");
        assert!(v2.contains(&"hugetlb.2MB.rsvd.max = max".to_owned()), "{v2:?}");
        let v1 = lines(group.path(), &Settings::v1(group.path(), &all(), |_| true));
        assert!(v1.contains(&"blkio.bfq.weight = 500".to_owned()), "{v1:?}");
        assert!(v1.contains(&"blkio.bfq.weight_device = 8:0 1000".to_owned()), "{v1:?}");
    }

    #[test]
    fn what_an_update_leaves_out_is_completed_by_what_is() {
        let group = tempfile::tempdir().unwrap();
        std::fs::write(group.path().join("memory.max"), "1000\n").unwrap();
        std::fs::write(group.path().join("cpu.max"), "5000 100000\n").unwrap();
        let of = |resources: Resources| {
            let settings = Settings::v2(group.path(), &resources, |_| true).unwrap();
            lines(group.path(), &settings)
        };
        let none = Resources::default();
        assert_eq!(
            of(Resources { memory_swap: Some(1500), ..none.clone() }),
            ["memory.swap.max = 500"]
        );
        assert_eq!(
            of(Resources { memory: Some(-1), ..none.clone() }),
            ["memory.max = max", "memory.swap.max = max"]
        );
        assert_eq!(
            of(Resources { cpu_period: Some(50_000), ..none.clone() }),
            ["cpu.max = 5000 50000"]
        );
        assert_eq!(of(Resources { cpu_quota: Some(-1), ..none }), ["cpu.max = max"]);
    }

    #[test]
    fn shares_become_weights_that_keep_the_default() {
        for (shares, weight) in [
            (0, 1),
            (2, 1),
            (1024, 100),
            (2048, 174),
            (512, 59),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
        for (weight, expected) in [(10, 1), (100, 910), (1000, 10_000)] {
            assert_eq!(io_weight(weight), expected, "{weight}");
        }
    }
}
