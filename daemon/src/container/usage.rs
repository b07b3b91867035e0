//! What a running container uses, whichever way its machine counts.

use std::collections::BTreeMap;

use shim_wire::metrics::{v1, v2};

use crate::shim::Metrics;

/// Counters from the start of the run, and what is in use now. 0 is also what nobody counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Nanoseconds of all CPUs, and how much of them in the kernel and outside.
    pub cpu_total: u64,
    pub cpu_kernel: u64,
    pub cpu_user: u64,
    /// Nanoseconds that it was held back by its quota, and in how many periods.
    pub cpu_throttled: u64,
    pub cpu_throttled_periods: u64,
    /// How many periods of the quota there were.
    pub cpu_periods: u64,
    /// Bytes, without what of the page cache is not in use.
    pub memory_used: u64,
    /// With all of the page cache.
    pub memory_total: u64,
    /// Of no file.
    pub memory_anonymous: u64,
    pub memory_cache: u64,
    pub memory_mapped: u64,
    /// Of files, by the kernel's lists of what was used lately and what was not.
    pub memory_active_file: u64,
    pub memory_inactive_file: u64,
    /// Of the kernel's own, for this container.
    pub memory_kernel: u64,
    /// The most that there ever was.
    pub memory_peak: u64,
    /// How often the limit was met.
    pub memory_failures: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    /// At most the machine's memory.
    pub memory_limit: u64,
    pub swap_used: u64,
    pub pids: u64,
    /// 0 when there is none.
    pub pids_limit: u64,
    /// Bytes of block devices.
    pub block_read: u64,
    pub block_written: u64,
    /// Operations of block devices.
    pub block_reads: u64,
    pub block_writes: u64,
    /// Bytes of its interfaces, without loopback.
    pub network_received: u64,
    pub network_sent: u64,
    /// Kills of the kernel's for want of memory.
    pub oom_kills: u64,
    /// Where the kernel counts it: control groups v2 with PSI.
    pub pressure: Option<Pressure>,
}

/// All that this machine has, in bytes.
pub(crate) fn machine_memory() -> u64 {
    let system = rustix::system::sysinfo();
    system.totalram * u64::from(system.mem_unit)
}

impl Usage {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let usage = match metrics {
            Metrics::V1(metrics) => of_v1(metrics),
            Metrics::V2(metrics) => of_v2(metrics),
        };
        let machine = machine_memory();
        let limit = match usage.memory_limit {
            0 => machine,
            limit => limit.min(machine),
        };
        Self { memory_limit: limit, ..usage }
    }

    /// How much more memory it may have, where it has a limit below what the machine has.
    pub(crate) fn memory_available(&self) -> Option<u64> {
        let is_limited = self.memory_limit < machine_memory();
        is_limited.then(|| self.memory_limit.saturating_sub(self.memory_used))
    }

    /// Adds what the interfaces of a network namespace have carried, from `/proc/PID/net/dev`.
    pub(super) fn add_network(&mut self, text: &str) {
        for interface in Interface::all(text) {
            self.network_received += interface.received.bytes;
            self.network_sent += interface.sent.bytes;
        }
    }
}

/// What a running container uses, to the last figure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measures {
    pub usage: Usage,
    pub devices: Vec<DeviceUse>,
    pub hugepages: Vec<HugepageUse>,
    /// Its processes, by their numbers on the host.
    pub processes: Vec<u32>,
}

/// What went to and from a block device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceUse {
    pub major: u64,
    pub minor: u64,
    /// Bytes.
    pub read: u64,
    pub written: u64,
    /// Operations.
    pub reads: u64,
    pub writes: u64,
}

/// Bytes in pages of one size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HugepageUse {
    pub size: String,
    pub used: u64,
    pub peak: u64,
}

/// For how long processes waited: the kernel's PSI (proc_pressure(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Microseconds.
    pub total: u64,
    /// Percent of the last 10, 60 and 300 seconds.
    pub averages: [f64; 3],
}

/// When some, or all, processes waited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waited {
    pub some: Stall,
    pub all: Stall,
}

/// What processes waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    pub cpu: Waited,
    pub memory: Waited,
    pub io: Waited,
}

impl Measures {
    pub(super) fn new(metrics: &Metrics, processes: Vec<u32>) -> Self {
        let usage = Usage::new(metrics);
        match metrics {
            Metrics::V1(metrics) => {
                let hugepages = metrics.hugetlb.iter().map(|one| HugepageUse {
                    size: one.pagesize.clone(),
                    used: one.usage,
                    peak: one.max,
                });
                let hugepages = hugepages.collect();
                Self { usage, devices: devices_v1(metrics), hugepages, processes }
            }
            Metrics::V2(metrics) => {
                let hugepages = metrics.hugetlb.iter().map(|one| HugepageUse {
                    size: one.pagesize.clone(),
                    used: one.current,
                    peak: 0,
                });
                let io = metrics.io.iter().flat_map(|io| &io.usage);
                let devices = io.map(|entry| DeviceUse {
                    major: entry.major,
                    minor: entry.minor,
                    read: entry.rbytes,
                    written: entry.wbytes,
                    reads: entry.rios,
                    writes: entry.wios,
                });
                let (devices, hugepages) = (devices.collect(), hugepages.collect());
                Self { usage, devices, hugepages, processes }
            }
        }
    }
}

fn devices_v1(metrics: &v1::Metrics) -> Vec<DeviceUse> {
    let mut devices: BTreeMap<(u64, u64), DeviceUse> = BTreeMap::new();
    let mut count = |entries: &[v1::BlkIoEntry], add: fn(&mut DeviceUse, bool, u64)| {
        for entry in entries {
            let is_read = entry.op.eq_ignore_ascii_case("read");
            if is_read || entry.op.eq_ignore_ascii_case("write") {
                let (major, minor) = (entry.major, entry.minor);
                let new = DeviceUse { major, minor, ..DeviceUse::default() };
                add(devices.entry((major, minor)).or_insert(new), is_read, entry.value);
            }
        }
    };
    if let Some(blkio) = &metrics.blkio {
        count(&blkio.io_service_bytes_recursive, |device, is_read, value| match is_read {
            true => device.read += value,
            false => device.written += value,
        });
        count(&blkio.io_serviced_recursive, |device, is_read, value| match is_read {
            true => device.reads += value,
            false => device.writes += value,
        });
    }
    devices.into_values().collect()
}

pub(super) fn pressure(metrics: &v2::Metrics) -> Option<Pressure> {
    let waited = |psi: Option<v2::PsiStats>| {
        let psi = psi?;
        let stall = |data: Option<v2::PsiData>| {
            let v2::PsiData { total, avg10, avg60, avg300, .. } = data.unwrap_or_default();
            Stall { total, averages: [avg10, avg60, avg300] }
        };
        Some(Waited { some: stall(psi.some), all: stall(psi.full) })
    };
    let cpu = waited(metrics.cpu.and_then(|cpu| cpu.psi))?;
    Some(Pressure {
        cpu,
        memory: waited(metrics.memory.and_then(|memory| memory.psi)).unwrap_or_default(),
        io: waited(metrics.io.as_ref().and_then(|io| io.psi)).unwrap_or_default(),
    })
}

/// What an interface has carried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub received: Traffic,
    pub sent: Traffic,
}

/// Counters of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

impl Interface {
    /// Those of a network namespace that lead out of it, from its `net/dev` (proc_pid_net(5)).
    pub(super) fn all(text: &str) -> Vec<Self> {
        let interface = |line: &str| {
            let (name, counters) = line.split_once(':')?;
            let counters: Vec<u64> =
                counters.split_whitespace().filter_map(|count| count.parse().ok()).collect();
            let traffic = |from: usize| match counters.get(from..from + 4) {
                Some([bytes, packets, errors, dropped]) => Some(Traffic {
                    bytes: *bytes,
                    packets: *packets,
                    errors: *errors,
                    dropped: *dropped,
                }),
                Some(_) | None => None,
            };
            let name = name.trim().to_owned();
            Some(Self { name, received: traffic(0)?, sent: traffic(8)? })
        };
        text.lines().filter_map(interface).filter(|one| one.name != "lo").collect()
    }
}

fn of_v1(metrics: &v1::Metrics) -> Usage {
    let cpu = metrics.cpu.clone().unwrap_or_default();
    let (time, throttling) = (cpu.usage.unwrap_or_default(), cpu.throttling.unwrap_or_default());
    let memory = metrics.memory.unwrap_or_default();
    let used = memory.usage.unwrap_or_default();
    let pids = metrics.pids.unwrap_or_default();
    let block = |of: fn(&v1::BlkIoStat) -> &Vec<v1::BlkIoEntry>, op: &str| {
        let entries = metrics.blkio.iter().flat_map(of);
        entries.filter(|entry| entry.op.eq_ignore_ascii_case(op)).map(|entry| entry.value).sum()
    };
    let bytes = |op| block(|blkio| &blkio.io_service_bytes_recursive, op);
    let operations = |op| block(|blkio| &blkio.io_serviced_recursive, op);
    Usage {
        cpu_total: time.total,
        cpu_kernel: time.kernel,
        cpu_user: time.user,
        cpu_throttled: throttling.throttled_time,
        cpu_throttled_periods: throttling.throttled_periods,
        cpu_periods: throttling.periods,
        memory_used: used.usage.saturating_sub(memory.total_inactive_file),
        memory_total: used.usage,
        memory_anonymous: memory.total_rss,
        memory_cache: memory.total_cache,
        memory_mapped: memory.total_mapped_file,
        memory_active_file: memory.total_active_file,
        memory_inactive_file: memory.total_inactive_file,
        memory_kernel: memory.kernel.unwrap_or_default().usage,
        memory_peak: used.max,
        memory_failures: used.failcnt,
        page_faults: memory.total_pg_fault,
        major_page_faults: memory.total_pg_maj_fault,
        memory_limit: used.limit,
        // v1 counts both together.
        swap_used: memory.swap.unwrap_or_default().usage.saturating_sub(used.usage),
        pids: pids.current,
        pids_limit: pids.limit,
        block_read: bytes("read"),
        block_written: bytes("write"),
        block_reads: operations("read"),
        block_writes: operations("write"),
        oom_kills: metrics.memory_oom_control.unwrap_or_default().oom_kill,
        ..Usage::default()
    }
}

fn of_v2(metrics: &v2::Metrics) -> Usage {
    const MICROSECOND: u64 = 1000;
    let cpu = metrics.cpu.unwrap_or_default();
    let memory = metrics.memory.unwrap_or_default();
    let pids = metrics.pids.unwrap_or_default();
    let io = || metrics.io.iter().flat_map(|io| &io.usage);
    Usage {
        cpu_total: cpu.usage_usec * MICROSECOND,
        cpu_kernel: cpu.system_usec * MICROSECOND,
        cpu_user: cpu.user_usec * MICROSECOND,
        cpu_throttled: cpu.throttled_usec * MICROSECOND,
        cpu_throttled_periods: cpu.nr_throttled,
        cpu_periods: cpu.nr_periods,
        memory_used: memory.usage.saturating_sub(memory.inactive_file),
        memory_total: memory.usage,
        memory_anonymous: memory.anon,
        memory_cache: memory.file,
        memory_mapped: memory.file_mapped,
        memory_active_file: memory.active_file,
        memory_inactive_file: memory.inactive_file,
        memory_kernel: memory.kernel_stack + memory.slab,
        memory_peak: memory.max_usage,
        memory_failures: metrics.memory_events.unwrap_or_default().max,
        page_faults: memory.pgfault,
        major_page_faults: memory.pgmajfault,
        memory_limit: memory.usage_limit,
        swap_used: memory.swap_usage,
        pids: pids.current,
        pids_limit: if pids.limit == u64::MAX { 0 } else { pids.limit },
        block_read: io().map(|entry| entry.rbytes).sum(),
        block_written: io().map(|entry| entry.wbytes).sum(),
        block_reads: io().map(|entry| entry.rios).sum(),
        block_writes: io().map(|entry| entry.wios).sum(),
        oom_kills: metrics.memory_events.unwrap_or_default().oom_kill,
        pressure: pressure(metrics),
        ..Usage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_counting_come_to_the_same() {
        let entry = |op: &str, value| v1::BlkIoEntry {
            op: op.to_owned(),
            value,
            ..v1::BlkIoEntry::default()
        };
        let v1 = v1::Metrics {
            pids: Some(v1::PidsStat { current: 2, limit: 0 }),
            cpu: Some(v1::CpuStat {
                usage: Some(v1::CpuUsage {
                    total: 3000,
                    kernel: 1000,
                    user: 2000,
                    per_cpu: vec![],
                }),
                throttling: Some(v1::Throttle {
                    throttled_periods: 4,
                    throttled_time: 5000,
                    periods: 9,
                }),
            }),
            memory: Some(v1::MemoryStat {
                total_inactive_file: 100,
                total_active_file: 30,
                usage: Some(v1::MemoryEntry { usage: 600, limit: 1 << 20, max: 0, failcnt: 0 }),
                ..v1::MemoryStat::default()
            }),
            blkio: Some(v1::BlkIoStat {
                io_service_bytes_recursive: vec![
                    entry("Read", 7),
                    entry("Write", 8),
                    entry("Read", 1),
                ],
                ..v1::BlkIoStat::default()
            }),
            memory_oom_control: Some(v1::MemoryOomControl { oom_kill: 6, ..Default::default() }),
            ..v1::Metrics::default()
        };
        let io = |rbytes, wbytes| v2::IoEntry { rbytes, wbytes, ..v2::IoEntry::default() };
        let v2 = v2::Metrics {
            pids: Some(v2::PidsStat { current: 2, limit: u64::MAX }),
            cpu: Some(v2::CpuStat {
                usage_usec: 3,
                system_usec: 1,
                user_usec: 2,
                nr_periods: 9,
                nr_throttled: 4,
                throttled_usec: 5,
                ..v2::CpuStat::default()
            }),
            memory: Some(v2::MemoryStat {
                inactive_file: 100,
                active_file: 30,
                usage: 600,
                usage_limit: 1 << 20,
                ..v2::MemoryStat::default()
            }),
            io: Some(v2::IoStat { usage: vec![io(7, 8), io(1, 0)], psi: None }),
            memory_events: Some(v2::MemoryEvents { oom_kill: 6, ..Default::default() }),
            ..v2::Metrics::default()
        };
        let expected = Usage {
            cpu_total: 3000,
            cpu_kernel: 1000,
            cpu_user: 2000,
            cpu_throttled: 5000,
            cpu_throttled_periods: 4,
            cpu_periods: 9,
            memory_used: 500,
            memory_total: 600,
            memory_active_file: 30,
            memory_inactive_file: 100,
            memory_limit: 1 << 20,
            pids: 2,
            block_read: 8,
            block_written: 8,
            oom_kills: 6,
            ..Usage::default()
        };
        assert_eq!(Usage::new(&Metrics::V1(v1)), expected);
        assert_eq!(Usage::new(&Metrics::V2(v2)), expected);
    }

    #[test]
    fn devices_are_counted_by_bytes_and_operations() {
        let entry = |op: &str, minor, value| v1::BlkIoEntry {
            op: op.to_owned(),
            major: 8,
            minor,
            value,
            ..v1::BlkIoEntry::default()
        };
        let v1 = v1::Metrics {
            blkio: Some(v1::BlkIoStat {
                io_service_bytes_recursive: vec![
                    entry("Read", 0, 4096),
                    entry("Write", 0, 512),
                    entry("Total", 0, 4608),
                    entry("Write", 16, 9),
                ],
                io_serviced_recursive: vec![
                    entry("Read", 0, 3),
                    entry("Write", 0, 1),
                    entry("Write", 16, 2),
                ],
                ..v1::BlkIoStat::default()
            }),
            ..v1::Metrics::default()
        };
        let io = |minor, rbytes, wbytes, rios, wios| v2::IoEntry {
            major: 8,
            minor,
            rbytes,
            wbytes,
            rios,
            wios,
        };
        let usage = vec![io(0, 4096, 512, 3, 1), io(16, 0, 9, 0, 2)];
        let v2 =
            v2::Metrics { io: Some(v2::IoStat { usage, psi: None }), ..v2::Metrics::default() };
        let one = |minor, [read, written, reads, writes]: [u64; 4]| DeviceUse {
            major: 8,
            minor,
            read,
            written,
            reads,
            writes,
        };
        let expected = [one(0, [4096, 512, 3, 1]), one(16, [0, 9, 0, 2])];
        assert_eq!(Measures::new(&Metrics::V1(v1), Vec::new()).devices, expected);
        assert_eq!(Measures::new(&Metrics::V2(v2), Vec::new()).devices, expected);
    }

    #[test]
    fn pressure_is_what_the_second_version_counts() {
        let data = |total, avg10| v2::PsiData { total, avg10, ..v2::PsiData::default() };
        let psi = v2::PsiStats { some: Some(data(77, 1.5)), full: Some(data(8, 0.5)) };
        let cpu = v2::CpuStat { psi: Some(psi), ..v2::CpuStat::default() };
        let metrics = v2::Metrics { cpu: Some(cpu), ..v2::Metrics::default() };
        let pressure = Usage::new(&Metrics::V2(metrics)).pressure.unwrap();
        let some = Stall { total: 77, averages: [1.5, 0.0, 0.0] };
        let all = Stall { total: 8, averages: [0.5, 0.0, 0.0] };
        assert_eq!(pressure.cpu, Waited { some, all });
        assert_eq!(Usage::new(&Metrics::V2(v2::Metrics::default())).pressure, None);
        assert_eq!(Usage::new(&Metrics::V1(v1::Metrics::default())).pressure, None);
    }

    #[test]
    fn traffic_is_that_of_all_interfaces_but_loopback() {
        let mut usage = Usage::default();
        usage.add_network(
            "Inter-|   Receive                    |  Transmit\n\
              face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n\
                 lo:   10 1 0 0 0 0 0 0   20 1 0 0 0 0 0 0\n\
               eth0: 3000 3 0 0 0 0 0 0  400 2 0 0 0 0 0 0\n\
               eth1:   70 3 0 0 0 0 0 0    5 2 0 0 0 0 0 0\n",
        );
        assert_eq!((usage.network_received, usage.network_sent), (3070, 405));
    }

    #[test]
    fn without_a_limit_the_machine_is_one() {
        let none = Usage::new(&Metrics::V2(v2::Metrics::default()));
        assert!(none.memory_limit > 1 << 20);
    }
}
