//! How this process is scheduled: policy, I/O priority, CPUs; and its execution domain.

use rustix::io::Errno;

/// `struct sched_attr` (linux/sched/types.h, SCHED_ATTR_SIZE_VER1), without its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduler {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// Nanoseconds, as the two that follow.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    util_min: u32,
    util_max: u32,
}

/// Sets the scheduling policy of this thread (sched_setattr(2)).
///
/// # Errors
/// `EPERM` without CAP_SYS_NICE, `EINVAL` for what the policy does not take, `EBUSY` when deadlines
/// can't be promised.
pub fn set_scheduler(scheduler: &Scheduler) -> Result<(), Errno> {
    let attributes = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: scheduler.policy,
        flags: scheduler.flags,
        nice: scheduler.nice,
        priority: scheduler.priority,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
        util_min: 0,
        util_max: 0,
    };
    // SAFETY: the attributes are valid for the size that they name.
    crate::check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
        .map(drop)
}

/// Sets the I/O priority of this thread, class and level in one number (ioprio_set(2)).
///
/// # Errors
/// `EPERM` for the real-time class without CAP_SYS_NICE and CAP_SYS_ADMIN.
pub fn set_io_priority(priority: u32) -> Result<(), Errno> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: takes no pointers.
    crate::check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) })
        .map(drop)
}

/// Binds this thread to CPUs, bit n of byte n / 8 for CPU n (sched_setaffinity(2)).
///
/// # Errors
/// `EINVAL` when none of them is there, or allowed by the control group.
pub fn set_affinity(cpus: &[u8]) -> Result<(), Errno> {
    // SAFETY: the mask is valid for its length.
    crate::check(unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, 0, cpus.len(), cpus.as_ptr())
    })
    .map(drop)
}

/// The CPUs that this thread is bound to, as [`set_affinity`] takes them.
///
/// # Errors
/// Those of sched_getaffinity(2).
pub fn affinity() -> Result<Vec<u8>, Errno> {
    // As many as a kernel can be built for (CONFIG_NR_CPUS).
    let mut cpus = vec![0; 8192 / 8];
    // SAFETY: the mask is valid for writes of its length, and the kernel says how much of it it used.
    let used = crate::check(unsafe {
        libc::syscall(libc::SYS_sched_getaffinity, 0, cpus.len(), cpus.as_mut_ptr())
    })?;
    cpus.truncate(usize::try_from(used).unwrap_or(0));
    Ok(cpus)
}

/// Sets the execution domain of this process (personality(2)).
///
/// # Errors
/// Those of personality(2).
pub fn set_personality(persona: u32) -> Result<(), Errno> {
    // SAFETY: takes no pointers.
    crate::check(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(persona)) })
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_what_is_there() {
        // Each test has a thread of its own.
        let before = affinity().unwrap();
        set_affinity(&[1]).unwrap();
        assert_eq!(affinity().unwrap()[0], 1);
        set_affinity(&before).unwrap();
        assert_eq!(affinity().unwrap(), before);
        assert_eq!(set_affinity(&[0]), Err(Errno::INVAL));
        set_scheduler(&Scheduler { nice: 5, ..Scheduler::default() }).unwrap();
        set_io_priority(2 << 13 | 7).unwrap();
        let unknown = Scheduler { policy: 99, ..Scheduler::default() };
        assert_eq!(set_scheduler(&unknown), Err(Errno::INVAL));
    }
}
