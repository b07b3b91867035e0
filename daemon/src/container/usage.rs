//! What a running container uses, whichever way its machine counts.

use shim_wire::metrics::{v1, v2};

use crate::shim::Metrics;

/// Counters from the start of the run, and what is in use now. 0 is also what nobody counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nanoseconds of all CPUs, and how much of them in the kernel and outside.
    pub cpu_total: u64,
    pub cpu_kernel: u64,
    pub cpu_user: u64,
    /// Nanoseconds that it was held back by its quota, and in how many periods.
    pub cpu_throttled: u64,
    pub cpu_throttled_periods: u64,
    /// Bytes, without what of the page cache is not in use.
    pub memory_used: u64,
    /// At most the machine's memory.
    pub memory_limit: u64,
    pub pids: u64,
    /// 0 when there is none.
    pub pids_limit: u64,
    /// Bytes of block devices.
    pub block_read: u64,
    pub block_written: u64,
    /// Bytes of its interfaces, without loopback.
    pub network_received: u64,
    pub network_sent: u64,
    /// Kills of the kernel's for want of memory.
    pub oom_kills: u64,
}

impl Usage {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let usage = match metrics {
            Metrics::V1(metrics) => of_v1(metrics),
            Metrics::V2(metrics) => of_v2(metrics),
        };
        let system = rustix::system::sysinfo();
        let machine = system.totalram * u64::from(system.mem_unit);
        let limit = match usage.memory_limit {
            0 => machine,
            limit => limit.min(machine),
        };
        Self { memory_limit: limit, ..usage }
    }

    /// Adds what the interfaces of a network namespace have carried, from `/proc/PID/net/dev`.
    pub(super) fn add_network(&mut self, text: &str) {
        for line in text.lines() {
            let Some((name, counters)) = line.split_once(':') else { continue };
            let counters: Vec<u64> =
                counters.split_whitespace().filter_map(|count| count.parse().ok()).collect();
            if let (false, Some(received), Some(sent)) =
                (name.trim() == "lo", counters.first(), counters.get(8))
            {
                self.network_received += received;
                self.network_sent += sent;
            }
        }
    }
}

fn of_v1(metrics: &v1::Metrics) -> Usage {
    let cpu = metrics.cpu.clone().unwrap_or_default();
    let (time, throttling) = (cpu.usage.unwrap_or_default(), cpu.throttling.unwrap_or_default());
    let memory = metrics.memory.unwrap_or_default();
    let used = memory.usage.unwrap_or_default();
    let pids = metrics.pids.unwrap_or_default();
    let bytes = metrics.blkio.iter().flat_map(|blkio| &blkio.io_service_bytes_recursive);
    let block = |op: &str| {
        bytes.clone().filter(|entry| entry.op.eq_ignore_ascii_case(op)).map(|e| e.value).sum()
    };
    Usage {
        cpu_total: time.total,
        cpu_kernel: time.kernel,
        cpu_user: time.user,
        cpu_throttled: throttling.throttled_time,
        cpu_throttled_periods: throttling.throttled_periods,
        memory_used: used.usage.saturating_sub(memory.total_inactive_file),
        memory_limit: used.limit,
        pids: pids.current,
        pids_limit: pids.limit,
        block_read: block("read"),
        block_written: block("write"),
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
        memory_used: memory.usage.saturating_sub(memory.inactive_file),
        memory_limit: memory.usage_limit,
        pids: pids.current,
        pids_limit: if pids.limit == u64::MAX { 0 } else { pids.limit },
        block_read: io().map(|entry| entry.rbytes).sum(),
        block_written: io().map(|entry| entry.wbytes).sum(),
        oom_kills: metrics.memory_events.unwrap_or_default().oom_kill,
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
                nr_throttled: 4,
                throttled_usec: 5,
                ..v2::CpuStat::default()
            }),
            memory: Some(v2::MemoryStat {
                inactive_file: 100,
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
            memory_used: 500,
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
