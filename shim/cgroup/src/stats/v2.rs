//! Files of v2 into `io.containerd.cgroups.v2.Metrics`.

use shim_wire::metrics::v2::{
    CpuStat, HugeTlbStat, IoEntry, IoStat, MemoryEvents, MemoryStat, Metrics, PidsStat, PsiData,
    PsiStats, RdmaEntry, RdmaStat,
};

use super::{Files, device, number, page_sizes, rdma};
use crate::Error;

pub(super) fn metrics(mut files: Files) -> Result<Metrics, Error> {
    let files = &mut files;
    Ok(Metrics {
        pids: pids(files)?,
        cpu: Some(cpu(files)?),
        memory: memory(files)?,
        rdma: rdma_stat(files)?,
        io: io(files)?,
        hugetlb: hugepages(files)?,
        memory_events: memory_events(files)?,
    })
}

fn pids(files: &mut Files) -> Result<Option<PidsStat>, Error> {
    if !files.has("pids.current") {
        return Ok(None);
    }
    Ok(Some(PidsStat { current: files.number("pids.current")?, limit: files.number("pids.max")? }))
}

/// Time is counted even where the controller is off.
fn cpu(files: &mut Files) -> Result<CpuStat, Error> {
    let mut stat = CpuStat { psi: pressure(files, "cpu.pressure")?, ..CpuStat::default() };
    files.pairs("cpu.stat", |key, value| match key {
        "usage_usec" => stat.usage_usec = value,
        "user_usec" => stat.user_usec = value,
        "system_usec" => stat.system_usec = value,
        "nr_periods" => stat.nr_periods = value,
        "nr_throttled" => stat.nr_throttled = value,
        "throttled_usec" => stat.throttled_usec = value,
        "nr_bursts" => stat.nr_bursts = value,
        "burst_usec" => stat.burst_usec = value,
        _ => {}
    })?;
    Ok(stat)
}

fn memory(files: &mut Files) -> Result<Option<MemoryStat>, Error> {
    if !files.has("memory.current") {
        return Ok(None);
    }
    let mut stat = MemoryStat {
        usage: files.number("memory.current")?,
        usage_limit: files.number("memory.max")?,
        max_usage: files.number("memory.peak")?,
        swap_usage: files.number("memory.swap.current")?,
        swap_limit: files.number("memory.swap.max")?,
        swap_max_usage: files.number("memory.swap.peak")?,
        psi: pressure(files, "memory.pressure")?,
        ..MemoryStat::default()
    };
    files.pairs("memory.stat", |key, value| {
        if let Some(field) = memory_field(&mut stat, key) {
            *field = value;
        }
    })?;
    Ok(Some(stat))
}

fn memory_field<'a>(stat: &'a mut MemoryStat, key: &str) -> Option<&'a mut u64> {
    Some(match key {
        "anon" => &mut stat.anon,
        "file" => &mut stat.file,
        "kernel_stack" => &mut stat.kernel_stack,
        "slab" => &mut stat.slab,
        "sock" => &mut stat.sock,
        "shmem" => &mut stat.shmem,
        "file_mapped" => &mut stat.file_mapped,
        "file_dirty" => &mut stat.file_dirty,
        "file_writeback" => &mut stat.file_writeback,
        "anon_thp" => &mut stat.anon_thp,
        "inactive_anon" => &mut stat.inactive_anon,
        "active_anon" => &mut stat.active_anon,
        "inactive_file" => &mut stat.inactive_file,
        "active_file" => &mut stat.active_file,
        "unevictable" => &mut stat.unevictable,
        "slab_reclaimable" => &mut stat.slab_reclaimable,
        "slab_unreclaimable" => &mut stat.slab_unreclaimable,
        "pgfault" => &mut stat.pgfault,
        "pgmajfault" => &mut stat.pgmajfault,
        "workingset_refault" => &mut stat.workingset_refault,
        "workingset_activate" => &mut stat.workingset_activate,
        "workingset_nodereclaim" => &mut stat.workingset_nodereclaim,
        "workingset_refault_anon" => &mut stat.workingset_refault_anon,
        "workingset_refault_file" => &mut stat.workingset_refault_file,
        "workingset_activate_anon" => &mut stat.workingset_activate_anon,
        "workingset_activate_file" => &mut stat.workingset_activate_file,
        "pgrefill" => &mut stat.pgrefill,
        "pgscan" => &mut stat.pgscan,
        "pgsteal" => &mut stat.pgsteal,
        "pgactivate" => &mut stat.pgactivate,
        "pgdeactivate" => &mut stat.pgdeactivate,
        "pglazyfree" => &mut stat.pglazyfree,
        "pglazyfreed" => &mut stat.pglazyfreed,
        "thp_fault_alloc" => &mut stat.thp_fault_alloc,
        "thp_collapse_alloc" => &mut stat.thp_collapse_alloc,
        _ => return None,
    })
}

fn memory_events(files: &mut Files) -> Result<Option<MemoryEvents>, Error> {
    if !files.has("memory.events") {
        return Ok(None);
    }
    let mut events = MemoryEvents::default();
    files.pairs("memory.events", |key, value| match key {
        "low" => events.low = value,
        "high" => events.high = value,
        "max" => events.max = value,
        "oom" => events.oom = value,
        "oom_kill" => events.oom_kill = value,
        "oom_group_kill" => events.oom_group_kill = value,
        _ => {}
    })?;
    Ok(Some(events))
}

fn io(files: &mut Files) -> Result<Option<IoStat>, Error> {
    if !files.has("io.stat") {
        return Ok(None);
    }
    let psi = pressure(files, "io.pressure")?;
    let text = files.text("io.stat")?.unwrap_or_default();
    Ok(Some(IoStat { usage: text.lines().filter_map(io_entry).collect(), psi }))
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`
fn io_entry(line: &str) -> Option<IoEntry> {
    let mut words = line.split_whitespace();
    let (major, minor) = device(words.next()?)?;
    let mut entry = IoEntry { major, minor, ..IoEntry::default() };
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        match key {
            "rbytes" => entry.rbytes = number(value),
            "wbytes" => entry.wbytes = number(value),
            "rios" => entry.rios = number(value),
            "wios" => entry.wios = number(value),
            _ => {}
        }
    }
    Some(entry)
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
fn pressure(files: &mut Files, name: &str) -> Result<Option<PsiStats>, Error> {
    let Some(text) = files.text(name)? else { return Ok(None) };
    let mut stats = PsiStats::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let which = words.next();
        let mut data = PsiData::default();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let percent = || value.parse().unwrap_or(0.0);
            match key {
                "avg10" => data.avg10 = percent(),
                "avg60" => data.avg60 = percent(),
                "avg300" => data.avg300 = percent(),
                "total" => data.total = number(value),
                _ => {}
            }
        }
        match which {
            Some("some") => stats.some = Some(data),
            Some("full") => stats.full = Some(data),
            Some(_) | None => {}
        }
    }
    Ok(Some(stats))
}

fn hugepages(files: &mut Files) -> Result<Vec<HugeTlbStat>, Error> {
    let mut stats = Vec::new();
    for pagesize in page_sizes() {
        let current = format!("hugetlb.{pagesize}.current");
        if files.has(&current) {
            let mut failcnt = 0;
            files.pairs(&format!("hugetlb.{pagesize}.events"), |key, value| {
                if key == "max" {
                    failcnt = value;
                }
            })?;
            stats.push(HugeTlbStat {
                current: files.number(&current)?,
                max: files.number(&format!("hugetlb.{pagesize}.max"))?,
                failcnt,
                pagesize,
            });
        }
    }
    Ok(stats)
}

fn rdma_stat(files: &mut Files) -> Result<Option<RdmaStat>, Error> {
    let mut entries = |name: &str| {
        let entry =
            |(device, hca_handles, hca_objects)| RdmaEntry { device, hca_handles, hca_objects };
        Ok(files.text(name)?.map(|text| rdma(text).map(entry).collect()))
    };
    let current = entries("rdma.current")?;
    let limit = entries("rdma.max")?.unwrap_or_default();
    Ok(current.map(|current| RdmaStat { current, limit }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_v2_is_read_into_containerd_s_message() {
        let group = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(group.path().join(name), text).unwrap();
        write("pids.current", "3\n");
        write("pids.max", "max\n");
        write(
            "cpu.stat",
            "usage_usec 9\nuser_usec 4\nsystem_usec 5\nnr_throttled 2\nburst_usec 6\n",
        );
        write(
            "cpu.pressure",
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\n\
             full avg10=0.00 avg60=0.00 avg300=0.00 total=8\n",
        );
        write("memory.stat", "anon 1\nworkingset_refault_file 2\nthp_collapse_alloc 3\nzswap 9\n");
        write("memory.current", "100\n");
        write("memory.max", "max\n");
        write("memory.swap.current", "7\n");
        write("memory.events", "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n");
        write("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n253:0 \n");
        write("rdma.current", "mlx5_0 hca_handle=2 hca_object=20\n");
        let metrics = metrics(Files::of(group.path().to_owned())).unwrap();
        assert_eq!(metrics.pids, Some(PidsStat { current: 3, limit: u64::MAX }));
        let cpu = metrics.cpu.unwrap();
        assert_eq!((cpu.usage_usec, cpu.user_usec, cpu.system_usec), (9, 4, 5));
        assert_eq!((cpu.nr_throttled, cpu.burst_usec), (2, 6));
        let some = PsiData { avg10: 1.5, avg60: 0.25, avg300: 0.0, total: 77 };
        assert_eq!(cpu.psi.unwrap().some, Some(some));
        assert_eq!(cpu.psi.unwrap().full.unwrap().total, 8);
        let memory = metrics.memory.unwrap();
        assert_eq!((memory.anon, memory.workingset_refault_file), (1, 2));
        assert_eq!(memory.thp_collapse_alloc, 3);
        assert_eq!((memory.usage, memory.usage_limit, memory.swap_usage), (100, u64::MAX, 7));
        assert_eq!(memory.psi, None, "no such file");
        let events = metrics.memory_events.unwrap();
        assert_eq!((events.high, events.oom_kill, events.oom_group_kill), (1, 4, 5));
        let io = metrics.io.unwrap().usage;
        let entry = IoEntry { major: 8, minor: 0, rbytes: 1, wbytes: 2, rios: 3, wios: 4 };
        assert_eq!(io, [entry, IoEntry { major: 253, minor: 0, ..IoEntry::default() }]);
        assert_eq!(metrics.rdma.unwrap().current[0].device, "mlx5_0");
    }
}
