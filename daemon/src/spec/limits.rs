//! Limits: checked against the machine, then in the spec's terms.

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
};

use super::machine::cpu_list;
use super::{Error, Limits, Machine, privileges};

/// Below this a container can't start at all; docker's own minimum.
const MEMORY_MIN: i64 = 6 << 20;

/// Microseconds in which the quota counts, as docker has it.
const CPU_PERIOD: u64 = 100_000;

/// The kernel takes no quota below a millisecond: a hundredth of a CPU in that period.
const NANO_CPUS_MIN: i64 = 10_000_000;

const NANO: i64 = 1_000_000_000;

/// What the kernel takes as a weight (`sched/core.c`: MIN_SHARES, MAX_SHARES).
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// Limits as the kernel will be told them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Checked {
    memory: Option<i64>,
    memory_swap: Option<i64>,
    memory_reservation: Option<i64>,
    cpu_quota: Option<i64>,
    cpu_shares: Option<u64>,
    cpuset_cpus: Option<String>,
    pids: Option<i64>,
}

pub(super) fn check(limits: &Limits, machine: &Machine) -> Result<Checked, Error> {
    let memory = limits.memory.filter(|memory| *memory != 0);
    if let Some(asked) = memory.filter(|memory| *memory < MEMORY_MIN) {
        return Err(Error::MemoryTooSmall { asked, minimum: MEMORY_MIN });
    }
    let reservation = limits.memory_reservation.filter(|reservation| *reservation != 0);
    if let Some(asked) = reservation.filter(|reservation| *reservation < MEMORY_MIN) {
        return Err(Error::MemoryTooSmall { asked, minimum: MEMORY_MIN });
    }
    if let (Some(memory), Some(reservation)) = (memory, reservation)
        && reservation > memory
    {
        return Err(Error::Contradiction {
            what: "memory reservation",
            why: "is more than the memory limit: lower it",
        });
    }
    Ok(Checked {
        memory,
        memory_swap: swap(limits.memory_swap, memory, machine.counts_swap)?,
        memory_reservation: reservation,
        cpu_quota: cpu_quota(limits.nano_cpus, machine.online_cpus.len())?,
        cpu_shares: shares(limits.cpu_shares)?,
        cpuset_cpus: cpuset(&limits.cpuset_cpus, machine)?,
        pids: pids(limits.pids)?,
    })
}

fn swap(asked: Option<i64>, memory: Option<i64>, counted: bool) -> Result<Option<i64>, Error> {
    match (asked.filter(|swap| *swap != 0), memory) {
        (None, None) => Ok(None),
        (None, Some(memory)) => Ok(counted.then(|| memory.saturating_mul(2))),
        (Some(_), None) => Err(Error::Contradiction {
            what: "memory and swap together",
            why: "can be limited only with memory: set a memory limit (-m) as well",
        }),
        (Some(_), Some(_)) if !counted => Err(Error::NoSwapLimit),
        (Some(-1), Some(_)) => Ok(Some(-1)),
        (Some(swap), Some(_)) if swap < 0 => {
            Err(Error::malformed("memory and swap together", swap.to_string(), "a size or -1"))
        }
        (Some(swap), Some(memory)) if swap < memory => Err(Error::SwapBelowMemory { memory, swap }),
        (Some(swap), Some(_)) => Ok(Some(swap)),
    }
}

fn cpu_quota(nano_cpus: Option<i64>, online: usize) -> Result<Option<i64>, Error> {
    let Some(asked) = nano_cpus.filter(|asked| *asked != 0) else { return Ok(None) };
    let most = i64::try_from(online).unwrap_or(i64::MAX).saturating_mul(NANO);
    if !(NANO_CPUS_MIN..=most).contains(&asked) {
        return Err(Error::TooManyCpus { asked: cpus(asked), online });
    }
    // At most some thousand CPUs: the product is far below 2^63.
    Ok(Some(asked / 1000 * CPU_PERIOD.cast_signed() / (NANO / 1000)))
}

/// Billionths as a person writes them: 1.5.
fn cpus(nano: i64) -> String {
    let text = format!("{}.{:09}", nano / NANO, (nano % NANO).abs());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn shares(asked: Option<u64>) -> Result<Option<u64>, Error> {
    match asked.filter(|shares| *shares != 0) {
        Some(shares) if !SHARES.contains(&shares) => {
            Err(Error::malformed("CPU shares", shares.to_string(), "between 2 and 262144"))
        }
        shares => Ok(shares),
    }
}

fn cpuset(asked: &str, machine: &Machine) -> Result<Option<String>, Error> {
    if asked.is_empty() {
        return Ok(None);
    }
    let list =
        cpu_list(asked).ok_or_else(|| Error::malformed("CPUs", asked, "a list such as 0-3,7"))?;
    match list.difference(&machine.online_cpus).next() {
        Some(missing) => Err(Error::NoSuchCpu {
            asked: asked.to_owned(),
            missing: *missing,
            online: machine.online_cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
        }),
        None => Ok(Some(asked.to_owned())),
    }
}

fn pids(asked: Option<i64>) -> Result<Option<i64>, Error> {
    match asked {
        None | Some(0 | -1) => Ok(None),
        Some(limit) if limit < -1 => {
            Err(Error::malformed("limit of processes", limit.to_string(), "above 0, or -1"))
        }
        limit => Ok(limit),
    }
}

/// With the device rules, which are resources to the spec.
pub(super) fn resources(
    checked: &Checked,
    privileged: bool,
) -> Result<LinuxResources, OciSpecError> {
    let mut resources =
        LinuxResourcesBuilder::default().devices(privileges::device_rules(privileged)?);
    if checked.memory.is_some() || checked.memory_reservation.is_some() {
        let mut memory = LinuxMemoryBuilder::default();
        if let Some(limit) = checked.memory {
            memory = memory.limit(limit);
        }
        if let Some(swap) = checked.memory_swap {
            memory = memory.swap(swap);
        }
        if let Some(reservation) = checked.memory_reservation {
            memory = memory.reservation(reservation);
        }
        resources = resources.memory(memory.build()?);
    }
    let mut cpu = LinuxCpuBuilder::default();
    if let Some(quota) = checked.cpu_quota {
        cpu = cpu.quota(quota).period(CPU_PERIOD);
    }
    if let Some(shares) = checked.cpu_shares {
        cpu = cpu.shares(shares);
    }
    if let Some(cpus) = &checked.cpuset_cpus {
        cpu = cpu.cpus(cpus);
    }
    let cpu = cpu.build()?;
    if cpu != oci_spec::runtime::LinuxCpu::default() {
        resources = resources.cpu(cpu);
    }
    if let Some(limit) = checked.pids {
        resources = resources.pids(LinuxPidsBuilder::default().limit(limit).build()?);
    }
    resources.build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::machine;

    fn checked(change: impl FnOnce(&mut Limits)) -> Result<Checked, Error> {
        let mut limits = Limits::default();
        change(&mut limits);
        check(&limits, &machine())
    }

    fn said(change: impl FnOnce(&mut Limits)) -> String {
        checked(change).unwrap_err().to_string()
    }

    #[test]
    fn nothing_asked_is_nothing_limited() {
        assert_eq!(checked(|_| {}).unwrap(), Checked::default());
        let zeros = checked(|limits| {
            (limits.memory, limits.nano_cpus, limits.pids) = (Some(0), Some(0), Some(0));
            (limits.memory_swap, limits.cpu_shares) = (Some(0), Some(0));
        });
        assert_eq!(zeros.unwrap(), Checked::default());
    }

    #[test]
    fn cpus_become_a_quota() {
        let quota =
            |nano| checked(|limits| limits.nano_cpus = Some(nano)).unwrap().cpu_quota.unwrap();
        assert_eq!(quota(NANO), 100_000);
        assert_eq!(quota(1_500_000_000), 150_000);
        assert_eq!(quota(2 * NANO), 200_000);
        assert_eq!(quota(NANO_CPUS_MIN), 1_000);
    }

    #[test]
    fn more_cpus_than_the_machine_has_are_refused_naming_both() {
        let message = said(|limits| limits.nano_cpus = Some(2_500_000_000));
        assert!(message.contains("2.5 CPUs") && message.contains("has 2"), "{message}");
        assert!(said(|limits| limits.nano_cpus = Some(1)).contains("0.000000001 CPUs"));
        assert!(said(|limits| limits.nano_cpus = Some(-NANO)).contains("-1 CPUs"));
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_named() {
        assert!(said(|limits| limits.cpuset_cpus = "0-3".into()).contains("no CPU 2, only 0,1"));
        assert!(said(|limits| limits.cpuset_cpus = "x".into()).contains("\"x\" is not a list"));
        let both = checked(|limits| limits.cpuset_cpus = "0-1".into()).unwrap();
        assert_eq!(both.cpuset_cpus.as_deref(), Some("0-1"));
    }

    #[test]
    fn memory_has_a_minimum_and_swap_is_twice_that() {
        let message = said(|limits| limits.memory = Some(MEMORY_MIN - 1));
        assert!(message.contains("6291455 bytes") && message.contains("6 MiB"), "{message}");
        assert!(said(|limits| limits.memory = Some(-1)).contains("-1 bytes"));
        let default = checked(|limits| limits.memory = Some(64 << 20)).unwrap();
        assert_eq!(default.memory_swap, Some(128 << 20));
        let none = checked(|limits| {
            (limits.memory, limits.memory_swap) = (Some(64 << 20), Some(64 << 20));
        });
        assert_eq!(none.unwrap().memory_swap, Some(64 << 20));
        let unlimited = checked(|limits| {
            (limits.memory, limits.memory_swap) = (Some(64 << 20), Some(-1));
        });
        assert_eq!(unlimited.unwrap().memory_swap, Some(-1));
        assert!(said(|limits| limits.memory_swap = Some(64 << 20)).contains("-m"));
        let less = said(|limits| (limits.memory, limits.memory_swap) = (Some(64 << 20), Some(1)));
        assert!(less.contains("less than memory alone"), "{less}");
        let reserved = said(|limits| {
            (limits.memory, limits.memory_reservation) = (Some(8 << 20), Some(9 << 20));
        });
        assert!(reserved.contains("more than the memory limit"), "{reserved}");
    }

    #[test]
    fn a_swap_limit_that_the_kernel_can_t_grant_is_an_error_only_when_asked_for() {
        let machine = Machine { counts_swap: false, ..machine() };
        let mut limits = Limits { memory: Some(64 << 20), ..Limits::default() };
        assert_eq!(check(&limits, &machine).unwrap().memory_swap, None);
        limits.memory_swap = Some(128 << 20);
        assert!(check(&limits, &machine).unwrap_err().to_string().contains("counts no swap"));
    }

    #[test]
    fn weights_and_numbers_of_processes_have_bounds() {
        assert!(said(|limits| limits.cpu_shares = Some(1)).contains("\"1\""));
        assert!(said(|limits| limits.cpu_shares = Some(262_145)).contains("262144"));
        assert!(said(|limits| limits.pids = Some(-2)).contains("\"-2\""));
        assert_eq!(checked(|limits| limits.pids = Some(-1)).unwrap().pids, None);
        assert_eq!(checked(|limits| limits.pids = Some(100)).unwrap().pids, Some(100));
    }
}
