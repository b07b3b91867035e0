//! The end of a process, by its pidfd.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

/// What a process is taken for whose status nobody knows.
pub(crate) const UNKNOWN: u8 = 255;

/// Whether it has ended, reaped or not.
pub(crate) fn has_ended(pidfd: &OwnedFd) -> bool {
    wait_until(pidfd, Instant::now())
}

/// Waits for its end; whether it came before a moment.
pub(crate) fn wait_until(pidfd: &OwnedFd, deadline: Instant) -> bool {
    loop {
        let left = timespec(deadline.saturating_duration_since(Instant::now()));
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&left)) {
            Err(Errno::INTR) => {}
            ended => return ended == Ok(1),
        }
    }
}

/// Reaps a child that has ended: its exit code, or 128 and the signal, as a shell has it.
pub(crate) fn reap(pidfd: &OwnedFd) -> u8 {
    let status = loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            status => break status.ok().flatten(),
        }
    };
    let code = status.and_then(|status| {
        status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
    });
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(UNKNOWN)
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
