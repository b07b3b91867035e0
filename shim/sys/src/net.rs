//! Switching the loopback interface of this process' network namespace on (netdevice(7)).

use std::os::fd::AsRawFd;

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
