//! clone3(2) as a fork that returns a pidfd, and unshare(2) of namespaces.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// Which side of [`clone3`] this is.
#[derive(Debug)]
pub enum Cloned {
    /// The new process. It holds a copy of everything and must end with an exec or with
    /// [`exit_now`](crate::exec::exit_now), never by returning from `main`.
    Child,
    Parent {
        /// As the caller's pid namespace counts.
        pid: i32,
        /// Close-on-exec.
        pidfd: OwnedFd,
    },
}

/// The namespaces that [`clone3`] and [`unshare`] may create.
pub const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWTIME
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP) as u64;

/// linux/sched.h; libc's constant of this name is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` up to and including `cgroup` (linux/sched.h, CLONE_ARGS_SIZE_VER2).
#[repr(C)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Forks into new `namespaces` (CLONE_NEW* flags) and, when given, into a cgroup v2 directory.
///
/// # Errors
/// `EDEADLK` when this process has more than one thread: the child of a threaded process may find
/// locks that nobody will ever release. `EINVAL` for flags other than namespaces. Otherwise those of
/// clone(2).
pub fn clone3(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    fork(namespaces, 0, libc::SIGCHLD as u64, cgroup)
}

/// As [`clone3`], but the child is the caller's sibling: its parent is the caller's own, which is told
/// of its end as of the caller's.
///
/// # Errors
/// As [`clone3`].
pub fn clone3_sibling(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    fork(namespaces, libc::CLONE_PARENT as u64, 0, cgroup)
}

fn fork(
    namespaces: u64,
    parent: u64,
    exit_signal: u64,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Cloned, Errno> {
    if namespaces & !NAMESPACES != 0 {
        return Err(Errno::INVAL);
    }
    if !is_single_threaded()? {
        return Err(Errno::DEADLK);
    }
    let mut pidfd: RawFd = -1;
    let mut flags = namespaces | parent | libc::CLONE_PIDFD as u64;
    if cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    let arguments = CloneArgs {
        flags,
        pidfd: std::ptr::addr_of_mut!(pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    // SAFETY: the argument block is valid for its size and outlives the call. Without CLONE_VM and
    // without a stack the child goes on on a copy of this stack, as after fork(2); the process has
    // one thread (checked above), so no lock of the copied memory is held by a thread that is gone.
    let pid = check_clone(unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArgs>())
    })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel has just put a new descriptor there, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid, pidfd })
}

fn check_clone(returned: libc::c_long) -> Result<i32, Errno> {
    crate::check(returned).map(|pid| i32::try_from(pid).unwrap_or(i32::MAX))
}

/// Whether this process has one thread. unshare(2) of CLONE_THREAD does nothing else than to say so;
/// where a filter keeps it from us, procfs knows: the link count of the task directory is one more
/// than two for each.
pub(crate) fn is_single_threaded() -> Result<bool, Errno> {
    // SAFETY: takes no pointers, and changes nothing.
    match crate::check(unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_THREAD) }) {
        Ok(_) => return Ok(true),
        Err(Errno::INVAL) => return Ok(false),
        Err(_) => {}
    }
    let links = rustix::fs::stat("/proc/self/task")?.st_nlink;
    Ok(links == 3)
}

/// Moves this process into new namespaces (unshare(2)).
///
/// # Errors
/// `EINVAL` for flags other than namespaces. Otherwise those of unshare(2).
pub fn unshare(namespaces: u64) -> Result<(), Errno> {
    if namespaces & !NAMESPACES != 0 {
        return Err(Errno::INVAL);
    }
    let flags = libc::c_int::try_from(namespaces).map_err(|_| Errno::INVAL)?;
    // SAFETY: takes no pointers, and namespaces alone (no CLONE_FILES, CLONE_VM) leave descriptors
    // and memory as they are.
    crate::check(unsafe { libc::syscall(libc::SYS_unshare, flags) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threaded_process_is_refused_rather_than_deadlocked() {
        // The test harness itself runs this on a second thread.
        assert!(!is_single_threaded().unwrap());
        assert_eq!(clone3(0, None).map(drop), Err(Errno::DEADLK));
    }

    #[test]
    fn flags_that_share_memory_are_refused() {
        assert_eq!(clone3(libc::CLONE_VM as u64, None).map(drop), Err(Errno::INVAL));
        assert_eq!(unshare(libc::CLONE_FILES as u64), Err(Errno::INVAL));
    }
}
