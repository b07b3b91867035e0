//! Limits, as the interface has them. There, as in the OCI specification, what is absent is not set; what a kubelet
//! says as 0 is absent.

use bosun_nri::wire as nri;
use oci_spec::runtime as oci;

use crate::cri::{invalid, wire};
use crate::error::Result;
use crate::spec::{Limits, Machine};

fn signed(value: i64) -> Option<nri::OptionalInt64> {
    Some(nri::OptionalInt64 { value })
}

fn unsigned(value: u64) -> Option<nri::OptionalUInt64> {
    Some(nri::OptionalUInt64 { value })
}

/// What a kubelet limits.
pub(super) fn of_kubelet(asked: &wire::LinuxContainerResources) -> nri::LinuxResources {
    let some = |value: i64| Some(value).filter(|value| *value != 0);
    let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value != 0);
    nri::LinuxResources {
        memory: Some(nri::LinuxMemory {
            limit: some(asked.memory_limit_in_bytes).and_then(signed),
            swap: some(asked.memory_swap_limit_in_bytes).and_then(signed),
            ..nri::LinuxMemory::default()
        }),
        cpu: Some(nri::LinuxCpu {
            shares: positive(asked.cpu_shares).and_then(unsigned),
            quota: some(asked.cpu_quota).and_then(signed),
            period: positive(asked.cpu_period).and_then(unsigned),
            cpus: asked.cpuset_cpus.clone(),
            mems: asked.cpuset_mems.clone(),
            ..nri::LinuxCpu::default()
        }),
        hugepage_limits: asked
            .hugepage_limits
            .iter()
            .map(|one| nri::HugepageLimit { page_size: one.page_size.clone(), limit: one.limit })
            .collect(),
        unified: asked.unified.clone().into_iter().collect(),
        ..nri::LinuxResources::default()
    }
}

/// What a spec limits.
pub(super) fn of_spec(spec: &oci::LinuxResources) -> nri::LinuxResources {
    let memory = spec.memory().as_ref();
    let cpu = spec.cpu().as_ref();
    nri::LinuxResources {
        memory: memory.map(|memory| nri::LinuxMemory {
            limit: memory.limit().and_then(signed),
            reservation: memory.reservation().and_then(signed),
            swap: memory.swap().and_then(signed),
            swappiness: memory.swappiness().and_then(unsigned),
            disable_oom_killer: memory
                .disable_oom_killer()
                .map(|value| nri::OptionalBool { value }),
            ..nri::LinuxMemory::default()
        }),
        cpu: cpu.map(|cpu| nri::LinuxCpu {
            shares: cpu.shares().and_then(unsigned),
            quota: cpu.quota().and_then(signed),
            period: cpu.period().and_then(unsigned),
            realtime_runtime: cpu.realtime_runtime().and_then(signed),
            realtime_period: cpu.realtime_period().and_then(unsigned),
            cpus: cpu.cpus().clone().unwrap_or_default(),
            mems: cpu.mems().clone().unwrap_or_default(),
        }),
        hugepage_limits: spec
            .hugepage_limits()
            .iter()
            .flatten()
            .map(|one| nri::HugepageLimit {
                page_size: one.page_size().clone(),
                limit: u64::try_from(one.limit()).unwrap_or_default(),
            })
            .collect(),
        unified: spec.unified().clone().unwrap_or_default().into_iter().collect(),
        devices: spec.devices().iter().flatten().map(rule).collect(),
        pids: spec.pids().as_ref().map(|pids| nri::LinuxPids { limit: pids.limit() }),
        ..nri::LinuxResources::default()
    }
}

fn rule(rule: &oci::LinuxDeviceCgroup) -> nri::LinuxDeviceCgroup {
    nri::LinuxDeviceCgroup {
        allow: rule.allow(),
        r#type: rule.typ().map(|kind| kind.as_str().to_owned()).unwrap_or_default(),
        major: rule.major().and_then(signed),
        minor: rule.minor().and_then(signed),
        access: rule.access().clone().unwrap_or_default(),
    }
}

/// What plugins want, as the core has it; rules of devices are left out.
///
/// # Errors
/// Names what bosun does not limit.
pub(super) fn to_core(asked: &nri::LinuxResources, machine: &Machine) -> Result<Limits> {
    let memory = asked.memory.unwrap_or_default();
    let cpu = asked.cpu.clone().unwrap_or_default();
    let refused = [
        (
            memory.kernel.is_some_and(|one| one.value > 0),
            "memory.kernel",
            "no kernel has that limit any more",
        ),
        (
            memory.kernel_tcp.is_some_and(|one| one.value > 0),
            "memory.kernel_tcp",
            "it counts for the memory limit",
        ),
        (
            memory.use_hierarchy.is_some_and(|one| !one.value),
            "memory.use_hierarchy",
            "every group counts what is below it",
        ),
        (
            asked.blockio_class.as_ref().is_some_and(|one| !one.value.is_empty()),
            "blockio_class",
            "bosun has no classes of block I/O",
        ),
        (
            asked.rdt_class.as_ref().is_some_and(|one| !one.value.is_empty()),
            "rdt_class",
            "bosun has no classes of RDT",
        ),
    ];
    if let Some((_, what, problem)) = refused.into_iter().find(|(is_asked, ..)| *is_asked) {
        return Err(invalid(what, format!("a plugin asks for it, and {problem}")));
    }
    let whole = |one: Option<nri::OptionalInt64>| one.map(|one| one.value).filter(|one| *one != 0);
    let natural =
        |one: Option<nri::OptionalUInt64>| one.map(|one| one.value).filter(|one| *one != 0);
    let limit = whole(memory.limit);
    // Without a word on swap there is none, as everywhere under Kubernetes.
    let swap = whole(memory.swap).or(limit).filter(|_| machine.counts_swap && limit.is_some());
    Ok(Limits {
        memory: limit,
        memory_swap: swap,
        memory_reservation: whole(memory.reservation),
        memory_swappiness: memory.swappiness.map(|one| one.value),
        oom_kill_disable: memory.disable_oom_killer.map(|one| one.value),
        cpu_shares: natural(cpu.shares),
        cpu_quota: whole(cpu.quota),
        cpu_period: natural(cpu.period),
        cpu_rt_runtime: whole(cpu.realtime_runtime),
        cpu_rt_period: natural(cpu.realtime_period),
        cpuset_cpus: cpu.cpus,
        cpuset_mems: cpu.mems,
        pids: asked.pids.map(|pids| pids.limit),
        hugepages: asked
            .hugepage_limits
            .iter()
            .map(|one| (one.page_size.clone(), one.limit))
            .collect(),
        unified: asked.unified.clone(),
        ..Limits::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::convert;

    #[test]
    fn what_a_kubelet_limits_comes_through_as_it_was() {
        let machine = Machine::read().unwrap();
        for memory_swap_limit_in_bytes in [0, 96 << 20] {
            let asked = wire::LinuxContainerResources {
                cpu_period: 50_000,
                cpu_quota: -1,
                cpu_shares: 512,
                memory_limit_in_bytes: 64 << 20,
                memory_swap_limit_in_bytes,
                cpuset_cpus: "0".to_owned(),
                hugepage_limits: vec![wire::HugepageLimit { page_size: "2MB".into(), limit: 4 }],
                unified: [("memory.high".to_owned(), "5".to_owned())].into(),
                ..wire::LinuxContainerResources::default()
            };
            let direct = convert::limits(&asked, machine.counts_swap).unwrap();
            assert_eq!(to_core(&of_kubelet(&asked), &machine).unwrap(), direct);
        }
        let nothing = of_kubelet(&wire::LinuxContainerResources::default());
        assert_eq!(to_core(&nothing, &machine).unwrap(), Limits::default());
    }

    #[test]
    fn what_bosun_does_not_limit_is_refused_by_its_name() {
        let machine = Machine::read().unwrap();
        let class = Some(nri::OptionalString { value: "gold".to_owned() });
        for (asked, what) in [
            (
                nri::LinuxResources { blockio_class: class.clone(), ..Default::default() },
                "blockio_class",
            ),
            (nri::LinuxResources { rdt_class: class, ..Default::default() }, "rdt_class"),
            (
                nri::LinuxResources {
                    memory: Some(nri::LinuxMemory { kernel: signed(1), ..Default::default() }),
                    ..Default::default()
                },
                "memory.kernel",
            ),
        ] {
            let said = to_core(&asked, &machine).unwrap_err().to_string();
            assert!(said.starts_with(what), "{said}");
        }
    }
}
