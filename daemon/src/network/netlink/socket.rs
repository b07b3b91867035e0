//! A netlink socket for one operation: send a batch, read what the kernel answers.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::codec::{Batch, Message, field, messages};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// The kernel never sends a larger datagram unless it is asked to (`netlink_dump`).
const DATAGRAM: usize = 64 * 1024;
/// The kernel answers before `send` returns; only a broken one makes anybody wait.
const DEADLINE: Duration = Duration::from_secs(10);

/// The family of a socket.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Family {
    /// Links, addresses, routes: rtnetlink(7).
    Route,
    /// nftables and conntrack.
    Netfilter,
}

/// The kernel said no.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Rejected(pub(in super::super) Errno);

impl Rejected {
    pub(in super::super) fn is(self, errno: Errno) -> bool {
        self.0 == errno
    }
}

impl From<Errno> for Rejected {
    fn from(errno: Errno) -> Self {
        Self(errno)
    }
}

impl From<Rejected> for io::Error {
    fn from(rejected: Rejected) -> Self {
        rejected.0.into()
    }
}

#[derive(Debug)]
pub(in super::super) struct Socket {
    descriptor: OwnedFd,
    next: u32,
}

impl Socket {
    /// Opens a socket into the network namespace of the calling thread.
    pub(in super::super) fn open(family: Family) -> Result<Self, Rejected> {
        let protocol = match family {
            // NETLINK_ROUTE is 0.
            Family::Route => None,
            Family::Netfilter => Some(NETFILTER),
        };
        let descriptor = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        set_socket_timeout(&descriptor, Timeout::Recv, Some(DEADLINE))?;
        Ok(Self { descriptor, next: 1 })
    }

    /// Sends `batch` and waits for all its acknowledgements. The first refusal is the result; whether
    /// the other messages took effect is the family's rule (nftables: none, routes: each by itself).
    pub(in super::super) fn execute(&mut self, batch: Batch) -> Result<(), Rejected> {
        let mut missing = batch.acknowledged();
        let first = self.send(batch)?;
        let mut buffer = vec![0; DATAGRAM];
        while missing > 0 {
            let length = self.receive(&mut buffer)?;
            for message in messages(&buffer[..length]) {
                if message.kind == NLMSG_ERROR && is_answer(first, message) {
                    refusal(message)?;
                    missing = missing.saturating_sub(1);
                }
            }
        }
        Ok(())
    }

    /// Sends one request and hands every message of the answer to `each`: its type and what follows
    /// the netlink header. The request either dumps or asks for one object with an acknowledgement.
    pub(in super::super) fn query(
        &mut self,
        batch: Batch,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), Rejected> {
        let first = self.send(batch)?;
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let length = self.receive(&mut buffer)?;
            for message in messages(&buffer[..length]).filter(|message| is_answer(first, *message))
            {
                match message.kind {
                    NLMSG_ERROR => return refusal(message),
                    // A dump that fails midway carries the error in its end.
                    NLMSG_DONE => return refusal(message),
                    kind => each(kind, message.payload),
                }
            }
        }
    }

    /// Returns the sequence number of the batch's first message.
    fn send(&mut self, batch: Batch) -> Result<u32, Rejected> {
        let first = self.next;
        self.next = first.wrapping_add(batch.messages());
        let kernel = SocketAddrNetlink::new(0, 0);
        let bytes = batch.numbered(first);
        rustix::net::sendto(&self.descriptor, &bytes, SendFlags::empty(), &kernel)?;
        Ok(first)
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<usize, Rejected> {
        loop {
            match rustix::net::recv(&self.descriptor, &mut *buffer, RecvFlags::TRUNC) {
                Ok((_, whole)) if whole > buffer.len() => return Err(Errno::MSGSIZE.into()),
                Ok((length, _)) => return Ok(length),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Answers to an earlier batch that was refused midway may still be queued.
fn is_answer(first: u32, message: Message<'_>) -> bool {
    message.sequence >= first
}

/// The negated errno that NLMSG_ERROR and NLMSG_DONE begin with; 0 is an acknowledgement.
fn refusal(message: Message<'_>) -> Result<(), Rejected> {
    match field(message.payload, 0).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(Errno::from_raw_os_error(code.saturating_neg()).into()),
        None => Err(Errno::BADMSG.into()),
    }
}
