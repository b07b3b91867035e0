//! Safe signatures over the system calls that rustix lacks: the only `unsafe` of bosun.
//!
//! | module | what |
//! |---|---|
//! | [`clone`] | clone3(2) as a fork that returns a pidfd |
//! | [`exec`] | execve(2), execveat(2), and what must be put right before them |
//! | [`mount`] | mount_setattr(2) |
//! | [`mountinfo`] | the mounts of a process, as the kernel lists them |
//! | [`net`] | switching the loopback interface on, a socket's peer |
//! | [`sched`] | scheduling, I/O priority, CPUs, execution domain |
//! | [`seccomp`] | installing a compiled filter |
//! | [`bpf`] | device programs of cgroup v2 |
//! | [`spawn`] | starting a program with more descriptors than three |
//! | [`signal`] | what a tiny init needs of signals |
//! | [`pidfd`] | signals by pidfd |
//! | [`program`] | a program that nobody can write to |
//! | [`memory`] | giving memory back |
//!
//! Deliberately absent: everything that rustix has with a safe signature, and any policy.

pub mod bpf;
pub mod clone;
pub mod exec;
pub mod memory;
pub mod mount;
pub mod mountinfo;
pub mod net;
pub mod pidfd;
pub mod program;
pub mod sched;
pub mod seccomp;
pub mod signal;
pub mod spawn;

use rustix::io::Errno;

/// The error of the system call that just failed, from libc's `errno`.
fn last_errno() -> Errno {
    let error = std::io::Error::last_os_error();
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// The value of a raw system call, or its error when it is -1.
fn check(returned: libc::c_long) -> Result<libc::c_long, Errno> {
    if returned == -1 { Err(last_errno()) } else { Ok(returned) }
}
