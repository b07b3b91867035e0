//! The socket between parent and child: whole messages, a descriptor beside one, closed by exec.
//!
//! A parent that has to go before its child may go on hands it over: it sends a listening socket, at
//! which the child waits for its next parent and then talks to that one.

use std::cell::OnceCell;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, accept_with, recv, recvmsg, sendmsg,
    socketpair,
};
use shim_sys::net::peer_uid;

use crate::Error;
use crate::userns::Owner;

/// The longest message, in bytes: an error with three texts of 512 characters.
pub(crate) const MAX_MESSAGE: usize = 8192;

/// What one side tells the other.
#[derive(Debug)]
pub(crate) enum Message {
    /// To the child: its groups are made and limited.
    CgroupReady,
    /// To the child: the parent knows it.
    Adopted,
    /// To the child: execute.
    Start,
    /// To the child: the next parent comes to this listening socket.
    HandOver(OwnedFd),
    /// To the parent: the child that it has now, and who the root of its user namespace is.
    Born { process: OwnedFd, root: Owner },
    /// To the parent: the pty's master.
    Terminal(OwnedFd),
    /// To the parent: all is mounted, and the old root is still the root.
    Assembled,
    /// To the child: what it waits for has been done.
    GoOn,
    /// To the parent: a filter with a listener will be installed by the process that `own` means. At
    /// these numbers are the words for its agent, and then the listener.
    Listening { own: OwnedFd, numbers: [i32; 2] },
    /// To the parent: it may take this long until the next message.
    Working { seconds: u64 },
    /// To the parent: all is found and made, but for the last steps.
    Ready,
    /// To the parent: this is why there will be no program.
    Failed(Error),
}

const CGROUP_READY: u8 = b'c';
const ADOPTED: u8 = b'k';
const BORN: u8 = b'b';
const START: u8 = b's';
const HAND_OVER: u8 = b'h';
const TERMINAL: u8 = b't';
const ASSEMBLED: u8 = b'a';
const GO_ON: u8 = b'd';
const LISTENING: u8 = b'l';
const WORKING: u8 = b'w';
const READY: u8 = b'r';
const FAILED: u8 = b'f';

/// One end.
#[derive(Debug)]
pub(crate) struct Channel {
    first: OwnedFd,
    /// To the parent that came after the first.
    next: OnceCell<OwnedFd>,
}

impl Channel {
    /// Both ends, close-on-exec.
    pub(crate) fn pair() -> Result<(Self, Self), Errno> {
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((one.into(), other.into()))
    }

    /// Waits for the next parent, and talks to that one from then on. One that goes without a word
    /// is not it.
    pub(crate) fn meet_next(&self, listener: &OwnedFd) -> Result<(), Errno> {
        let creator = peer_uid(self.first.as_fd())?;
        loop {
            let socket = retry(|| accept_with(listener, SocketFlags::CLOEXEC))?;
            // The permissions of the socket's path are the first line, this is the second.
            if peer_uid(socket.as_fd())? == creator && speaks(&socket) {
                return self.next.set(socket).map_err(|_| Errno::ALREADY);
            }
        }
    }

    fn socket(&self) -> &OwnedFd {
        self.next.get().unwrap_or(&self.first)
    }

    pub(crate) fn send(&self, message: &Message) -> Result<(), Errno> {
        let mut control_room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut control_room);
        let descriptors;
        let text;
        let number;
        let owner;
        let (kind, body): (u8, &[u8]) = match message {
            Message::CgroupReady => (CGROUP_READY, &[]),
            Message::Adopted => (ADOPTED, &[]),
            Message::Born { process, root } => {
                descriptors = [process.as_fd()];
                if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
                    return Err(Errno::NOBUFS);
                }
                owner = [root.uid.to_le_bytes(), root.gid.to_le_bytes()].concat();
                (BORN, &owner)
            }
            Message::Start => (START, &[]),
            Message::Assembled => (ASSEMBLED, &[]),
            Message::GoOn => (GO_ON, &[]),
            Message::Working { seconds } => {
                number = seconds.to_ne_bytes();
                (WORKING, &number)
            }
            Message::Listening { own, numbers } => {
                descriptors = [own.as_fd()];
                if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
                    return Err(Errno::NOBUFS);
                }
                let [first, second] = numbers.map(|number| u64::from(number.cast_unsigned()));
                number = (first << 32 | second).to_ne_bytes();
                (LISTENING, &number)
            }
            Message::Ready => (READY, &[]),
            Message::Terminal(descriptor) | Message::HandOver(descriptor) => {
                descriptors = [descriptor.as_fd()];
                if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
                    return Err(Errno::NOBUFS);
                }
                (if matches!(message, Message::Terminal(_)) { TERMINAL } else { HAND_OVER }, &[])
            }
            Message::Failed(error) => {
                text = error.encode();
                (FAILED, &text)
            }
        };
        let parts = [IoSlice::new(std::slice::from_ref(&kind)), IoSlice::new(body)];
        retry(|| sendmsg(self.socket(), &parts, &mut control, SendFlags::NOSIGNAL)).map(drop)
    }

    /// The next message; `None` when the other side is gone, or has executed its program.
    pub(crate) fn receive(&self) -> Result<Option<Message>, Errno> {
        let mut bytes = [0; MAX_MESSAGE];
        let mut control_room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut control_room);
        // A peer that ended with something unread resets the connection, which is told once, before
        // what it had said.
        let count = retry_after(&[Errno::INTR, Errno::CONNRESET], || {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            recvmsg(self.socket(), &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
        })?
        .bytes;
        let mut descriptor = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                descriptor = descriptors.last();
            }
        }
        let Some((kind, body)) = bytes[..count].split_first() else { return Ok(None) };
        match (*kind, descriptor) {
            (CGROUP_READY, None) => Ok(Some(Message::CgroupReady)),
            (ADOPTED, None) => Ok(Some(Message::Adopted)),
            (BORN, Some(process)) => match body.split_first_chunk().zip(body.last_chunk()) {
                Some(((uid, _), gid)) if body.len() == 8 => {
                    let [uid, gid] = [uid, gid].map(|id| u32::from_le_bytes(*id));
                    Ok(Some(Message::Born { process, root: Owner { uid, gid } }))
                }
                Some(_) | None => Err(Errno::BADMSG),
            },
            (START, None) => Ok(Some(Message::Start)),
            (ASSEMBLED, None) => Ok(Some(Message::Assembled)),
            (GO_ON, None) => Ok(Some(Message::GoOn)),
            (WORKING, None) => {
                let seconds = body.try_into().map_err(|_| Errno::BADMSG)?;
                Ok(Some(Message::Working { seconds: u64::from_ne_bytes(seconds) }))
            }
            (LISTENING, Some(own)) => {
                let numbers = u64::from_ne_bytes(body.try_into().map_err(|_| Errno::BADMSG)?);
                let numbers = [(numbers >> 32) as i32, numbers as u32 as i32];
                Ok(Some(Message::Listening { own, numbers }))
            }
            (READY, None) => Ok(Some(Message::Ready)),
            (TERMINAL, Some(master)) => Ok(Some(Message::Terminal(master))),
            (HAND_OVER, Some(listener)) => Ok(Some(Message::HandOver(listener))),
            (FAILED, None) => Ok(Some(Message::Failed(Error::decode(body)))),
            (_, _) => Err(Errno::BADMSG),
        }
    }

    /// The next message, or `TIMEDOUT`.
    pub(crate) fn receive_until(&self, deadline: Instant) -> Result<Option<Message>, Errno> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match poll(&mut [PollFd::new(self.socket(), PollFlags::IN)], Some(&timespec(left))) {
                Ok(0) => return Err(Errno::TIMEDOUT),
                Ok(_) => return self.receive(),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Whether the other side is gone, without waiting.
    pub(crate) fn is_abandoned(&self) -> bool {
        let mut poll_fd = [PollFd::new(self.socket(), PollFlags::IN)];
        match poll(&mut poll_fd, Some(&Timespec::default())) {
            Ok(_) => poll_fd[0].revents().contains(PollFlags::HUP),
            Err(_) => true,
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl From<OwnedFd> for Channel {
    fn from(socket: OwnedFd) -> Self {
        Self { first: socket, next: OnceCell::new() }
    }
}

/// Whether the other side says something before it goes.
fn speaks(socket: &OwnedFd) -> bool {
    let heard = retry(|| recv(socket, &mut [0_u8; 1], RecvFlags::PEEK));
    heard.is_ok_and(|(count, _)| count > 0)
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

fn retry<T>(call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    retry_after(&[Errno::INTR], call)
}

/// Again as long as it fails with nothing else.
fn retry_after<T>(
    passing: &[Errno],
    mut call: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    loop {
        match call() {
            Err(errno) if passing.contains(&errno) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_before_a_reset_is_heard() {
        let (one, other) = Channel::pair().unwrap();
        one.send(&Message::CgroupReady).unwrap();
        other.send(&Message::Failed(Error::Ended)).unwrap();
        drop(other);
        assert!(matches!(one.receive().unwrap(), Some(Message::Failed(_))));
        assert!(one.receive().unwrap().is_none());
    }

    #[test]
    fn messages_and_descriptors_arrive_and_the_end_is_seen() {
        let (one, other) = Channel::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        one.send(&Message::Terminal(file.into())).unwrap();
        one.send(&Message::Failed(Error::Ended)).unwrap();
        assert!(matches!(other.receive().unwrap(), Some(Message::Terminal(_))));
        assert!(matches!(other.receive().unwrap(), Some(Message::Failed(_))));
        assert!(!other.is_abandoned());
        let soon = Instant::now() + Duration::from_millis(5);
        assert!(matches!(other.receive_until(soon), Err(Errno::TIMEDOUT)));
        drop(one);
        assert!(other.is_abandoned());
        assert!(other.receive().unwrap().is_none());
    }
}
