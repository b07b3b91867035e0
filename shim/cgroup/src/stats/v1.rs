//! Files of v1 into `io.containerd.cgroups.v1.Metrics`.

use shim_wire::metrics::v1::{
    BlkIoEntry, BlkIoStat, CpuStat, CpuUsage, HugetlbStat, MemoryEntry, MemoryOomControl,
    MemoryStat, Metrics, PidsStat, RdmaEntry, RdmaStat, Throttle,
};

use super::{Files, device, device_path, page_sizes, rdma};
use crate::{Cgroup, Controller, Error};

pub(super) fn metrics(group: &Cgroup) -> Result<Metrics, Error> {
    let files = |controller: Controller| {
        let hierarchy = group.layout.controller(controller)?;
        Some(Files::of(hierarchy.mount().join(&group.path)))
    };
    let mut metrics = Metrics {
        pids: files(Controller::Pids).map(pids).transpose()?,
        blkio: files(Controller::Io).map(block_io).transpose()?,
        rdma: files(Controller::Rdma).map(rdma_stat).transpose()?,
        hugetlb: files(Controller::Hugetlb).map(hugepages).transpose()?.unwrap_or_default(),
        ..Metrics::default()
    };
    if let Some(files) = files(Controller::Memory) {
        memory(files, &mut metrics)?;
    }
    let usage = files(Controller::Cpuacct).map(cpu_usage).transpose()?;
    let throttling = files(Controller::Cpu).map(cpu_throttling).transpose()?;
    if usage.is_some() || throttling.is_some() {
        metrics.cpu = Some(CpuStat { usage, throttling });
    }
    Ok(metrics)
}

fn pids(mut files: Files) -> Result<PidsStat, Error> {
    let limit = files.number("pids.max")?;
    let limit = if limit == u64::MAX { 0 } else { limit };
    Ok(PidsStat { current: files.number("pids.current")?, limit })
}

fn cpu_usage(mut files: Files) -> Result<CpuUsage, Error> {
    let per_cpu = files.text("cpuacct.usage_percpu")?.unwrap_or_default();
    let per_cpu = per_cpu.split_whitespace().filter_map(|time| time.parse().ok()).collect();
    Ok(CpuUsage {
        total: files.number("cpuacct.usage")?,
        kernel: files.number("cpuacct.usage_sys")?,
        user: files.number("cpuacct.usage_user")?,
        per_cpu,
    })
}

fn cpu_throttling(mut files: Files) -> Result<Throttle, Error> {
    let mut throttle = Throttle::default();
    files.pairs("cpu.stat", |key, value| match key {
        "nr_periods" => throttle.periods = value,
        "nr_throttled" => throttle.throttled_periods = value,
        "throttled_time" => throttle.throttled_time = value,
        _ => {}
    })?;
    Ok(throttle)
}

fn memory(mut files: Files, metrics: &mut Metrics) -> Result<(), Error> {
    let mut stat = MemoryStat::default();
    files.pairs("memory.stat", |key, value| {
        if let Some(field) = memory_field(&mut stat, key) {
            *field = value;
        }
    })?;
    stat.usage = entry(&mut files, "memory")?;
    stat.swap = entry(&mut files, "memory.memsw")?;
    stat.kernel = entry(&mut files, "memory.kmem")?;
    stat.kernel_tcp = entry(&mut files, "memory.kmem.tcp")?;
    let mut oom = MemoryOomControl::default();
    files.pairs("memory.oom_control", |key, value| match key {
        "oom_kill_disable" => oom.oom_kill_disable = value,
        "under_oom" => oom.under_oom = value,
        "oom_kill" => oom.oom_kill = value,
        _ => {}
    })?;
    metrics.memory = Some(stat);
    metrics.memory_oom_control = Some(oom);
    Ok(())
}

/// Absent where the kernel does not account it.
fn entry(files: &mut Files, of: &str) -> Result<Option<MemoryEntry>, Error> {
    if !files.has(&format!("{of}.usage_in_bytes")) {
        return Ok(None);
    }
    Ok(Some(MemoryEntry {
        limit: files.number(&format!("{of}.limit_in_bytes"))?,
        usage: files.number(&format!("{of}.usage_in_bytes"))?,
        max: files.number(&format!("{of}.max_usage_in_bytes"))?,
        failcnt: files.number(&format!("{of}.failcnt"))?,
    }))
}

fn memory_field<'a>(stat: &'a mut MemoryStat, key: &str) -> Option<&'a mut u64> {
    Some(match key {
        "cache" => &mut stat.cache,
        "rss" => &mut stat.rss,
        "rss_huge" => &mut stat.rss_huge,
        "mapped_file" => &mut stat.mapped_file,
        "dirty" => &mut stat.dirty,
        "writeback" => &mut stat.writeback,
        "pgpgin" => &mut stat.pg_pg_in,
        "pgpgout" => &mut stat.pg_pg_out,
        "pgfault" => &mut stat.pg_fault,
        "pgmajfault" => &mut stat.pg_maj_fault,
        "inactive_anon" => &mut stat.inactive_anon,
        "active_anon" => &mut stat.active_anon,
        "inactive_file" => &mut stat.inactive_file,
        "active_file" => &mut stat.active_file,
        "unevictable" => &mut stat.unevictable,
        "hierarchical_memory_limit" => &mut stat.hierarchical_memory_limit,
        "hierarchical_memsw_limit" => &mut stat.hierarchical_swap_limit,
        "total_cache" => &mut stat.total_cache,
        "total_rss" => &mut stat.total_rss,
        "total_rss_huge" => &mut stat.total_rss_huge,
        "total_mapped_file" => &mut stat.total_mapped_file,
        "total_dirty" => &mut stat.total_dirty,
        "total_writeback" => &mut stat.total_writeback,
        "total_pgpgin" => &mut stat.total_pg_pg_in,
        "total_pgpgout" => &mut stat.total_pg_pg_out,
        "total_pgfault" => &mut stat.total_pg_fault,
        "total_pgmajfault" => &mut stat.total_pg_maj_fault,
        "total_inactive_anon" => &mut stat.total_inactive_anon,
        "total_active_anon" => &mut stat.total_active_anon,
        "total_inactive_file" => &mut stat.total_inactive_file,
        "total_active_file" => &mut stat.total_active_file,
        "total_unevictable" => &mut stat.total_unevictable,
        _ => return None,
    })
}

/// What passed the throttle, which every request does whatever the scheduler.
fn block_io(mut files: Files) -> Result<BlkIoStat, Error> {
    let mut entries = |name: &str| {
        // Those with the groups below them came in Linux 4.13.
        let recursive = format!("{name}_recursive");
        let name = if files.has(&recursive) { &recursive } else { name };
        Ok(files.text(name)?.unwrap_or_default().lines().filter_map(block_io_entry).collect())
    };
    Ok(BlkIoStat {
        io_service_bytes_recursive: entries("blkio.throttle.io_service_bytes")?,
        io_serviced_recursive: entries("blkio.throttle.io_serviced")?,
        ..BlkIoStat::default()
    })
}

/// `8:0 Read 4096`; the sum of all devices at the end has no device and is passed over.
fn block_io_entry(line: &str) -> Option<BlkIoEntry> {
    let mut words = line.split_whitespace();
    let (major, minor) = device(words.next()?)?;
    let (op, value) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    Some(BlkIoEntry { op, device: device_path(major, minor), major, minor, value })
}

fn hugepages(mut files: Files) -> Result<Vec<HugetlbStat>, Error> {
    let mut stats = Vec::new();
    for pagesize in page_sizes() {
        let usage = format!("hugetlb.{pagesize}.usage_in_bytes");
        if files.has(&usage) {
            stats.push(HugetlbStat {
                usage: files.number(&usage)?,
                max: files.number(&format!("hugetlb.{pagesize}.max_usage_in_bytes"))?,
                failcnt: files.number(&format!("hugetlb.{pagesize}.failcnt"))?,
                pagesize,
            });
        }
    }
    Ok(stats)
}

fn rdma_stat(mut files: Files) -> Result<RdmaStat, Error> {
    let mut entries = |name: &str| {
        let entry =
            |(device, hca_handles, hca_objects)| RdmaEntry { device, hca_handles, hca_objects };
        Ok(rdma(files.text(name)?.unwrap_or_default()).map(entry).collect())
    };
    Ok(RdmaStat { current: entries("rdma.current")?, limit: entries("rdma.max")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layout;

    #[test]
    fn a_group_of_v1_is_read_into_containerd_s_message() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join("a").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("pids.current", "3\n");
        write("pids.max", "max\n");
        write("cpuacct.usage", "300\n");
        write("cpuacct.usage_user", "100\n");
        write("cpuacct.usage_sys", "200\n");
        write("cpuacct.usage_percpu", "120 180 \n");
        write("cpu.stat", "nr_periods 5\nnr_throttled 2\nthrottled_time 777\nnr_bursts 0\n");
        write(
            "memory.stat",
            "cache 10\npgpgin 11\ntotal_rss 12\nhierarchical_memsw_limit 13\nx 1\n",
        );
        write("memory.usage_in_bytes", "21\n");
        write("memory.limit_in_bytes", "22\n");
        write("memory.max_usage_in_bytes", "23\n");
        write("memory.failcnt", "24\n");
        write("memory.memsw.usage_in_bytes", "25\n");
        write("memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 4\n");
        write(
            "blkio.throttle.io_service_bytes_recursive",
            "1000:5 Read 4096\n1000:5 Write 1\nTotal 4097\n",
        );
        write("blkio.throttle.io_serviced", "1000:5 Read 2\n");
        write("rdma.current", "mlx5_0 hca_handle=2 hca_object=20\n");
        write("rdma.max", "mlx5_0 hca_handle=max hca_object=30\n");
        let all = "memory,cpu,cpuacct,pids,blkio,rdma,hugetlb";
        let mount = root.path().display();
        let line = format!("1 1 0:1 / {mount} rw - cgroup cgroup rw,{all}\n");
        let group = Cgroup::new(&Layout::parse(&line), "a").unwrap();
        let metrics = metrics(&group).unwrap();
        assert_eq!(metrics.pids, Some(PidsStat { current: 3, limit: 0 }));
        let cpu = metrics.cpu.unwrap();
        let usage = CpuUsage { total: 300, kernel: 200, user: 100, per_cpu: vec![120, 180] };
        assert_eq!(cpu.usage, Some(usage));
        let throttle = Throttle { periods: 5, throttled_periods: 2, throttled_time: 777 };
        assert_eq!(cpu.throttling, Some(throttle));
        assert_eq!(
            metrics.memory.unwrap(),
            MemoryStat {
                cache: 10,
                pg_pg_in: 11,
                total_rss: 12,
                hierarchical_swap_limit: 13,
                usage: Some(MemoryEntry { limit: 22, usage: 21, max: 23, failcnt: 24 }),
                swap: Some(MemoryEntry { usage: 25, ..MemoryEntry::default() }),
                ..MemoryStat::default()
            }
        );
        let oom = MemoryOomControl { oom_kill_disable: 1, under_oom: 0, oom_kill: 4 };
        assert_eq!(metrics.memory_oom_control, Some(oom));
        let entry = |op: &str, value| BlkIoEntry {
            op: op.to_owned(),
            device: String::new(),
            major: 1000,
            minor: 5,
            value,
        };
        let blkio = metrics.blkio.unwrap();
        assert_eq!(blkio.io_service_bytes_recursive, [entry("Read", 4096), entry("Write", 1)]);
        assert_eq!(blkio.io_serviced_recursive, [entry("Read", 2)]);
        let rdma = metrics.rdma.unwrap();
        assert_eq!((rdma.current[0].hca_handles, rdma.current[0].hca_objects), (2, 20));
        assert_eq!((rdma.limit[0].hca_handles, rdma.limit[0].hca_objects), (u32::MAX, 30));
        assert!(metrics.hugetlb.is_empty(), "none of the files is there");
    }
}
