//! Signals by pidfd, with any number: rustix knows only the named ones.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// Sends a signal by its number, real-time ones included, to the process that a pidfd means
/// (pidfd_send_signal(2)).
///
/// # Errors
/// `ESRCH` when the process has ended, `EINVAL` when there is no such signal.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    // SAFETY: a null siginfo is allowed, and there are no other pointers.
    crate::check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}
