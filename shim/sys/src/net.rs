//! Switching the loopback interface of this process' network namespace on (netdevice(7)), and who is
//! at the other end of a socket.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Brings `lo` up; the kernel then gives it 127.0.0.1 and ::1 by itself.
///
/// # Errors
/// Those of socket(2) and of SIOCGIFFLAGS and SIOCSIFFLAGS.
pub fn loopback_up() -> Result<(), Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: ifreq is plain old data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    // SAFETY: the request is a valid ifreq with a terminated name, which the kernel fills in.
    let returned = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) };
    crate::check(returned.into())?;
    // SAFETY: the kernel has just filled in the flags, so that field of the union is initialised.
    unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
    // SAFETY: the request is a valid ifreq, which the kernel only reads.
    let returned =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    crate::check(returned.into()).map(drop)
}

/// The user at the other end of a connected unix socket (SO_PEERCRED of unix(7)), also when that
/// process has no number in the caller's pid namespace, of which rustix makes an error.
///
/// # Errors
/// Those of getsockopt(2).
pub fn peer_uid(socket: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: both are valid for the call, and the length is that of the credentials.
    let returned = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    crate::check(returned.into()).map(|_| credentials.uid)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_other_end_of_a_pair_is_this_user() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(peer_uid(one.as_fd()), Ok(rustix::process::geteuid().as_raw()));
        let (read, _write) = rustix::pipe::pipe().unwrap();
        assert_eq!(peer_uid(read.as_fd()), Err(Errno::NOTSOCK));
    }
}
