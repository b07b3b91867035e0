//! The last steps of a process before its exec, in the only order that works.
//!
//! ```text
//!  OOM score, labels, limits  while all capabilities are there
//!  CPUs, I/O priority, domain, scheduling policy
//!  keyring                    under its label
//!  bounding set               needs CAP_SETPCAP
//!  groups, gid, uid           capabilities are kept over it
//!  permitted, effective, inheritable, ambient
//!  no_new_privs
//!  death signal               forgotten at every change of credentials, so after the last;
//!                             not for a process that outlives its parent
//!  seccomp                    last: from here on only exec and reporting its failure
//! ```

use rustix::io::Errno;
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use rustix::thread::{Gid, Uid};
use shim_sys::sched::Scheduler;
use shim_wire::plan::{self, Capabilities, Process, Rlimit};

use crate::channel::Channel;
use crate::error::At;
use crate::procfs::Procfs;
use crate::user::Identity;
use crate::{Error, Rule, Step, lsm, notify};

/// linux/sched.h: policies, and the flag that keeps children from having one.
const SCHED_FIFO: u32 = 1;
const SCHED_RR: u32 = 2;
const SCHED_DEADLINE: u32 = 6;
const RESET_ON_FORK: u64 = 1;

/// Becomes who the process shall be. Without `capabilities` those of the caller stay.
pub(crate) fn assume(
    process: &Process,
    identity: &Identity,
    procfs: Option<&Procfs>,
    parent: &Channel,
) -> Result<(), Error> {
    set_oom_score_and_label(process, procfs)?;
    for (index, limit) in process.rlimits.iter().enumerate() {
        shim_sys::exec::set_rlimit(limit.resource, limit.soft, limit.hard)
            .at(Step::ResourceLimit, limit_text(index, limit))?;
    }
    set_scheduling(process, 0)?;
    if !process.keep_keyring {
        match shim_sys::exec::new_session_keyring() {
            // Not built into the kernel, or kept from us by whoever runs us.
            Ok(()) | Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS) => {}
            Err(errno) => return Err(errno).at(Step::Keyring, "the process"),
        }
    }
    if let Some(capabilities) = &process.capabilities {
        drop_bounding_set(capabilities)?;
    }
    become_user(identity)?;
    if let Some(capabilities) = &process.capabilities {
        set_sets(process, capabilities)?;
    }
    if process.no_new_privileges {
        set_no_new_privs(true).at(Step::NoNewPrivileges, "the process")?;
    }
    if !process.detached {
        set_parent_process_death_signal(Some(Signal::KILL)).at(Step::DeathSignal, "the process")?;
        if parent.is_abandoned() {
            // It died before the signal was set: nobody will look after this process.
            shim_sys::exec::exit_now(1);
        }
    }
    if let Some(notify) = &process.notify {
        notify::install(process, notify, parent)?;
    } else if !process.seccomp.is_empty() {
        shim_sys::seccomp::install_filter(&process.seccomp, process.seccomp_flags)
            .at(Step::Seccomp, "the process")?;
    }
    Ok(())
}

/// A limit as errors call it: its place in the specification, its type, and its values.
fn limit_text(index: usize, limit: &Rlimit) -> String {
    /// By their number in `asm-generic/resource.h`.
    const NAMES: [&str; 16] = [
        "CPU",
        "FSIZE",
        "DATA",
        "STACK",
        "CORE",
        "RSS",
        "NPROC",
        "NOFILE",
        "MEMLOCK",
        "AS",
        "LOCKS",
        "SIGPENDING",
        "MSGQUEUE",
        "NICE",
        "RTPRIO",
        "RTTIME",
    ];
    let name = NAMES.get(limit.resource as usize).copied().unwrap_or("?");
    format!("process.rlimits[{index}] (RLIMIT_{name}) to {}:{}", limit.soft, limit.hard)
}

/// Raises the hard limits as far as the process' go, which is all about them that can fail: before it
/// waits for its start. Nothing is held to them until [`assume`].
pub(crate) fn raise_limits(process: &Process) -> Result<(), Error> {
    process.rlimits.iter().enumerate().try_for_each(|(index, limit)| {
        shim_sys::exec::raise_rlimit(limit.resource, limit.hard)
            .at(Step::ResourceLimit, limit_text(index, limit))
    })
}

/// Finds out what of [`assume`] is not permitted before the process waits for its start: what can be
/// taken early is set, and set again then; of capabilities it is known.
pub(crate) fn check_permitted(process: &Process, procfs: Option<&Procfs>) -> Result<(), Error> {
    if let Some(procfs) = procfs {
        set_oom_score(process, procfs)?;
    }
    // Who has a deadline clones itself, for its hooks, only if they do not inherit it.
    let has_deadline = |scheduler: &plan::Scheduler| scheduler.policy == SCHED_DEADLINE;
    let flags = process.scheduler.as_ref().is_some_and(has_deadline).then_some(RESET_ON_FORK);
    set_scheduling(process, flags.unwrap_or_default())?;
    match &process.capabilities {
        Some(asked) => check_sets(asked),
        None => Ok(()),
    }
}

/// The permitted set can't grow, nor the inheritable one beyond itself and the bounding set
/// (capabilities(7)).
fn check_sets(asked: &Capabilities) -> Result<(), Error> {
    let current = capabilities(None).at(Step::Capabilities, "the process")?;
    let (mut known, mut bounding) = (0, 0);
    for number in 0..64 {
        // The first number that is refused is none of this kernel's, and passed over as ever.
        let capability = CapabilitySet::from_bits_retain(1 << number);
        let Ok(is_there) = capability_is_in_bounding_set(capability) else { break };
        known |= 1 << number;
        bounding |= u64::from(is_there) << number;
    }
    let permitted = current.permitted.bits();
    let inheritable = current.inheritable.bits() | bounding & asked.bounding;
    for (set, wanted, available) in [
        ("permitted", asked.permitted, permitted),
        ("effective", asked.effective, permitted & asked.permitted),
        ("inheritable", asked.inheritable, inheritable),
        ("ambient", asked.ambient, asked.permitted & asked.inheritable),
    ] {
        let missing = wanted & known & !available;
        if missing != 0 {
            let set = format!("process.capabilities.{set}: number {}", missing.trailing_zeros());
            return Err(Errno::PERM).at(Step::Capabilities, set);
        }
    }
    Ok(())
}

/// Takes the priorities that only the host's root can give, and children inherit. What policy it is, a
/// process of a user namespace can say again itself; the I/O priority of the real-time class it can't.
pub(crate) fn take_priorities(process: &mut Process) -> Result<(), Error> {
    if let Some(priority) = process.io_priority.take() {
        set_io_priority(priority)?;
    }
    match process.scheduler {
        // Children don't inherit it.
        Some(scheduler) if scheduler.policy == SCHED_DEADLINE => Ok(()),
        Some(scheduler) => {
            set_scheduler(&Scheduler { flags: scheduler.flags & !RESET_ON_FORK, ..of(&scheduler) })
        }
        None => Ok(()),
    }
}

/// Whether [`assume`] writes to procfs.
pub(crate) fn needs_procfs(process: &Process) -> bool {
    process.oom_score_adj.is_some() || lsm::is_asked_for(process)
}

fn set_oom_score_and_label(process: &Process, procfs: Option<&Procfs>) -> Result<(), Error> {
    let Some(procfs) = procfs else { return Ok(()) };
    set_oom_score(process, procfs)?;
    lsm::set(process, procfs)
}

fn set_oom_score(process: &Process, procfs: &Procfs) -> Result<(), Error> {
    let Some(score) = process.oom_score_adj else { return Ok(()) };
    procfs
        .write_own("oom_score_adj", &score.to_string())
        .at(Step::OomScore, format_args!("process.oomScoreAdj to {score}"))
}

/// `flags` of the scheduling policy come on top of its own.
fn set_scheduling(process: &Process, flags: u64) -> Result<(), Error> {
    if !process.cpus.is_empty() {
        shim_sys::sched::set_affinity(&process.cpus)
            .at(Step::Affinity, "process.execCPUAffinity.final")?;
    }
    if let Some(priority) = process.io_priority {
        set_io_priority(priority)?;
    }
    if let Some(persona) = process.personality {
        shim_sys::sched::set_personality(persona).at(Step::Personality, "linux.personality")?;
    }
    match &process.scheduler {
        Some(scheduler) => {
            set_scheduler(&Scheduler { flags: scheduler.flags | flags, ..of(scheduler) })
        }
        None => Ok(()),
    }
}

fn set_io_priority(priority: u32) -> Result<(), Error> {
    shim_sys::sched::set_io_priority(priority).at(Step::IoPriority, "process.ioPriority")
}

fn set_scheduler(scheduler: &Scheduler) -> Result<(), Error> {
    const PLACE: &str = "process.scheduler";
    let is_real_time = matches!(scheduler.policy, SCHED_FIFO | SCHED_RR);
    match shim_sys::sched::set_scheduler(scheduler) {
        Err(Errno::PERM) if is_real_time => Err(Error::refused(PLACE, Rule::NoRealTime)),
        Err(Errno::INVAL) if scheduler.policy == SCHED_DEADLINE => {
            Err(Error::refused(PLACE, Rule::DeadlinePeriod))
        }
        Err(Errno::BUSY) if scheduler.policy == SCHED_DEADLINE => {
            Err(Error::refused(PLACE, Rule::DeadlineBandwidth))
        }
        result => result.at(Step::Scheduler, PLACE),
    }
}

fn of(scheduler: &plan::Scheduler) -> Scheduler {
    Scheduler {
        policy: scheduler.policy,
        flags: scheduler.flags,
        nice: scheduler.nice,
        priority: scheduler.priority,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    }
}

fn drop_bounding_set(capabilities: &Capabilities) -> Result<(), Error> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if capabilities.bounding & capability.bits() != 0 {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first number that this kernel has no capability for.
            Err(Errno::INVAL) => break,
            Err(errno) => {
                return Err(errno).at(
                    Step::Capabilities,
                    format_args!("process.capabilities.bounding: number {number}"),
                );
            }
        }
    }
    Ok(())
}

fn become_user(identity: &Identity) -> Result<(), Error> {
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    set_thread_groups(&groups)
        .at(Step::Groups, format_args!("the groups of process.user, {:?}", identity.groups))?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    set_thread_res_gid(gid, gid, gid).at(Step::Identity, format_args!("group {}", identity.gid))?;
    // So that the sets can still be narrowed to what was asked for afterwards; exec forgets it.
    set_keep_capabilities(true).at(Step::Capabilities, "the process")?;
    set_thread_res_uid(uid, uid, uid).at(Step::Identity, identity.uid)
}

fn set_sets(process: &Process, capabilities: &Capabilities) -> Result<(), Error> {
    let mut permitted = CapabilitySet::from_bits_retain(capabilities.permitted);
    let mut effective = CapabilitySet::from_bits_retain(capabilities.effective);
    if !process.seccomp.is_empty() && !process.no_new_privileges {
        // Needed for the filter, and gone with the exec: what a program gets then is made of the
        // bounding, inheritable and ambient sets alone (capabilities(7)).
        permitted |= CapabilitySet::SYS_ADMIN;
        effective |= CapabilitySet::SYS_ADMIN;
    }
    let inheritable = CapabilitySet::from_bits_retain(capabilities.inheritable);
    set_capabilities(None, CapabilitySets { effective, permitted, inheritable })
        .at(Step::Capabilities, "the process")?;
    clear_ambient_capability_set().at(Step::Capabilities, "the process")?;
    for number in (0..64).filter(|number| capabilities.ambient & 1 << number != 0) {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match configure_capability_in_ambient_set(capability, true) {
            // A number that this kernel has no capability for can't be granted, by any set.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => {
                return Err(errno).at(
                    Step::Capabilities,
                    format_args!("process.capabilities.ambient: number {number}"),
                );
            }
        }
    }
    Ok(())
}
