//! execve(2), execveat(2), and what must be put right before them.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// Replaces this process by the program at `path`; returns only when that failed.
#[must_use]
pub fn execve(path: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: the path is a C string; both arrays hold pointers to C strings that are borrowed for
    // the whole call, and end with a null pointer.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    crate::last_errno()
}

/// Replaces this process by the program that `file` is; returns only when that failed.
#[must_use]
pub fn fexecve(file: BorrowedFd<'_>, arguments: &[CString], environment: &[CString]) -> Errno {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: the path is an empty C string; both arrays hold pointers to C strings that are
    // borrowed for the whole call, and end with a null pointer.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    crate::last_errno()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Ends this process at once: no destructors, no exit handlers, no flushed buffers. What the child
/// of a clone must end with when it does not exec, because all of those are its parent's.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: takes no pointers and does not return.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor from `first` on that this process inherited. To be called as the first
/// act of a program, before anything in it owns a descriptor.
///
/// # Errors
/// Those of close_range(2); `ENOSYS` before Linux 5.9.
pub fn close_inherited_from(first: u32) -> Result<(), Errno> {
    // SAFETY: takes no pointers; that nobody owns these descriptors yet is what this is for, and
    // every use of one that is closed fails with EBADF.
    crate::check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) })
        .map(drop)
}

/// Marks every descriptor from `first` on close-on-exec.
///
/// # Errors
/// Those of close_range(2); on kernels before 5.11, those of fcntl(2).
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: takes no pointers, and with CLOSE_RANGE_CLOEXEC closes nothing.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC as libc::c_uint,
        )
    };
    match crate::check(returned) {
        Ok(_) => Ok(()),
        Err(Errno::INVAL | Errno::NOSYS) => close_on_exec_one_by_one(first),
        Err(errno) => Err(errno),
    }
}

fn close_on_exec_one_by_one(first: u32) -> Result<(), Errno> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let end = limit.unwrap_or(1 << 20).min(1 << 20) as u32;
    for fd in first..end {
        // SAFETY: takes no pointers; setting a flag on a descriptor, or failing on a number that is
        // none, breaks nobody's ownership.
        let returned = unsafe { libc::fcntl(fd as i32, libc::F_SETFD, libc::FD_CLOEXEC) };
        match crate::check(libc::c_long::from(returned)) {
            Ok(_) | Err(Errno::BADF) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Sets a limit of this process by its number (RLIMIT_* of getrlimit(2)).
///
/// # Errors
/// Those of prlimit(2): `EPERM` when it asks for more than the hard limit without CAP_SYS_RESOURCE.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the new limit is valid for the call, and a null old limit is allowed.
    crate::check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &raw const limit,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    })
    .map(drop)
}

/// Raises the hard limit of this process to at least `hard`; the soft one stays.
///
/// # Errors
/// Those of prlimit(2): `EPERM` without CAP_SYS_RESOURCE.
pub fn raise_rlimit(resource: u32, hard: u64) -> Result<(), Errno> {
    let mut found = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a null new limit changes nothing, and the old limit is valid for the call.
    crate::check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            std::ptr::null::<libc::rlimit64>(),
            &raw mut found,
        )
    })?;
    match found.rlim_max < hard {
        true => set_rlimit(resource, found.rlim_cur, hard),
        false => Ok(()),
    }
}

/// Leaves the session keyring that this process inherited for a new, empty one (keyctl(2)).
///
/// # Errors
/// Those of KEYCTL_JOIN_SESSION_KEYRING; `ENOSYS` where the kernel has no keyrings.
pub fn new_session_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    crate::check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    })
    .map(drop)
}
