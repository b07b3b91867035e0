//! What a process that is about to exec, a tiny init, and whoever waits for a process need of signals
//! (signal(7)).

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// The highest signal number of Linux.
const LAST: libc::c_int = 64;

/// Sets every signal to its default action and unblocks all of them, as a program expects to find
/// it after an exec: ignored and blocked signals survive one.
pub fn reset() {
    for signal in 1..=LAST {
        // SAFETY: SIG_DFL is a valid disposition and no handler of ours is needed any more. Numbers
        // that libc keeps for itself, SIGKILL and SIGSTOP are refused with EINVAL, which is fine.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: sigset_t is plain old data that sigemptyset initialises; a null old set is allowed.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Ignores a signal until [`reset`] or a new disposition.
pub fn ignore(signal: i32) {
    // SAFETY: SIG_IGN is a valid disposition. A number that is no signal, SIGKILL and SIGSTOP are
    // refused with EINVAL, which is fine.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Blocks one signal, and answers a descriptor that is readable when it has come (signalfd(2)), for [`read`]:
/// close-on-exec and non-blocking. Whatever this process starts has it blocked until [`reset`].
///
/// # Errors
/// Those of signalfd(2).
pub fn awaited(signal: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: sigset_t is plain old data that sigemptyset initialises; a number that is no signal is refused; SIG_DFL
    // is a valid disposition; a null old set is allowed; -1 asks for a new descriptor.
    let fd = unsafe {
        let mut one = std::mem::zeroed();
        libc::sigemptyset(&raw mut one);
        libc::sigaddset(&raw mut one, signal);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const one, std::ptr::null_mut());
        libc::signal(signal, libc::SIG_DFL);
        libc::signalfd(-1, &raw const one, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    crate::check(fd.into())?;
    // SAFETY: the kernel has just made it, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// All signals, blocked: they wait until [`wait`](Self::wait) takes them.
pub struct Blocked(libc::sigset_t);

impl std::fmt::Debug for Blocked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Blocked(all signals)")
    }
}

impl Blocked {
    /// Blocks every signal that can be blocked, but the ones a fault of this process raises.
    #[must_use]
    pub fn all() -> Self {
        // SAFETY: sigset_t is plain old data that sigfillset initialises; the signals named are
        // valid; a null old set is allowed.
        unsafe {
            let mut all = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP] {
                libc::sigdelset(&raw mut all, fault);
            }
            libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
            Self(all)
        }
    }

    /// Waits for the next signal and takes it.
    ///
    /// # Errors
    /// `EINTR` after a stop and continue.
    pub fn wait(&self) -> Result<i32, Errno> {
        // SAFETY: the set is initialised, and a null siginfo is allowed.
        let signal = unsafe { libc::sigwaitinfo(&raw const self.0, std::ptr::null_mut()) };
        crate::check(signal.into()).map(|signal| i32::try_from(signal).unwrap_or(0))
    }

    /// A descriptor that is readable when one waits (signalfd(2)), for [`read`]: close-on-exec and
    /// non-blocking.
    ///
    /// # Errors
    /// Those of signalfd(2).
    pub fn descriptor(&self) -> Result<OwnedFd, Errno> {
        // SAFETY: the set is initialised, and -1 asks for a new descriptor.
        let fd = unsafe {
            libc::signalfd(-1, &raw const self.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        crate::check(fd.into())?;
        // SAFETY: the kernel has just made it, and nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// Takes the next signal from a [`descriptor`](Blocked::descriptor) or an [`awaited`] one; `None` when none waits.
///
/// # Errors
/// Those of read(2).
pub fn read(descriptor: BorrowedFd<'_>) -> Result<Option<i32>, Errno> {
    let mut bytes = [0; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(descriptor, &mut bytes) {
        // `ssi_signo` is the first field.
        Ok(4..) => Ok(Some(i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))),
        Ok(_) | Err(Errno::AGAIN) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Sends a signal by its number, real-time ones included, to the process or, negative, the process
/// group `pid` (kill(2)).
///
/// # Errors
/// Those of kill(2).
pub fn kill(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: takes no pointers.
    crate::check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// Forks this single-threaded process for an init whose child only execs: by fork(2), since default
/// seccomp profiles answer ENOSYS to clone3. `None` in the child.
///
/// # Errors
/// `EDEADLK` when the process has other threads, and those of fork(2).
pub fn fork() -> Result<Option<i32>, Errno> {
    if !crate::clone::is_single_threaded()? {
        return Err(Errno::DEADLK);
    }
    // SAFETY: no other thread exists, so the child's copy of every lock and buffer is consistent.
    let pid = crate::check(unsafe { libc::fork() }.into())?;
    Ok(i32::try_from(pid).ok().filter(|pid| *pid != 0))
}
