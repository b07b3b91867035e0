//! Installing a compiled seccomp filter (seccomp(2)).

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Errno;

/// Puts this thread, and what it will become, under a filter.
///
/// `program` is a sequence of `struct sock_filter`, 8 bytes each; `flags` are
/// SECCOMP_FILTER_FLAG_*.
///
/// # Errors
/// `EINVAL` when the length is no multiple of 8 or more than 65,535 instructions, or the kernel
/// rejects the program; `EACCES` without both CAP_SYS_ADMIN and no_new_privs.
pub fn install_filter(program: &[u8], flags: u32) -> Result<(), Errno> {
    install(program, flags).map(drop)
}

/// The same for a filter that notifies of calls: the listener that hears of them, close-on-exec and at
/// the lowest free number (seccomp_unotify(2)).
///
/// # Errors
/// As [`install_filter`], and `EBUSY` when a filter of this thread has a listener already.
pub fn install_listening(program: &[u8], flags: u32) -> Result<OwnedFd, Errno> {
    let listener = install(program, flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32)?;
    let listener = i32::try_from(listener).map_err(|_| Errno::BADF)?;
    // SAFETY: with that flag the kernel returns a descriptor that it has just made.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

fn install(program: &[u8], flags: u32) -> Result<libc::c_long, Errno> {
    let (instructions, rest) = program.as_chunks::<8>();
    let len = u16::try_from(instructions.len()).map_err(|_| Errno::INVAL)?;
    if !rest.is_empty() || len == 0 {
        return Err(Errno::INVAL);
    }
    let mut filter: Vec<libc::sock_filter> = instructions
        .iter()
        .map(|i| libc::sock_filter {
            code: u16::from_ne_bytes([i[0], i[1]]),
            jt: i[2],
            jf: i[3],
            k: u32::from_ne_bytes([i[4], i[5], i[6], i[7]]),
        })
        .collect();
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: the program points to `len` instructions that live across the call; the kernel copies
    // and verifies them.
    crate::check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_or_empty_program_is_refused() {
        assert_eq!(install_filter(&[], 0), Err(Errno::INVAL));
        assert_eq!(install_filter(&[6, 0, 0, 0, 0, 0, 255], 0), Err(Errno::INVAL));
        assert_eq!(install_filter(&vec![0; 8 * 65_536], 0), Err(Errno::INVAL));
    }
}
