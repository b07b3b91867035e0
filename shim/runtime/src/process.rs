//! A process that is complete but for its exec, and the parent's way of waiting for it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use shim_cgroup::Cgroup;

use crate::channel::{Channel, Message};
use crate::error::At;
use crate::restore::Pending;
use crate::userns::Owner;
use crate::{Error, Step, notify};

/// How long a child may take from its clone until it waits, and from its start until its exec: disks
/// hang, and nobody waits for ever.
pub(crate) const SETUP_SECONDS: u64 = 60;

/// The parent's ends of a process' standard streams: close-on-exec and blocking.
#[derive(Debug)]
pub enum ProcessIo {
    /// All three are the other side of `master`.
    Terminal { master: OwnedFd },
    /// Without `stdin`, standard input is /dev/null.
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    /// The process has the caller's own.
    Inherited,
}

/// A process that waits before its exec. When it is dropped unstarted, the process ends by itself,
/// and is to be reaped like any other.
#[derive(Debug)]
pub struct Waiting {
    /// As the caller's pid namespace counts.
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub io: ProcessIo,
    /// Closed by whoever lets the process go on; the process ends when it closes before.
    gate: Option<Channel>,
    /// Of a container that is restored: the process becomes criu, which makes the first one.
    pub(crate) restore: Option<Pending>,
}

impl Waiting {
    /// Lets the process execute its program, and returns when it has. A second call does nothing.
    ///
    /// A container that is restored has its first process from then on: `pid` and `pidfd` are that
    /// one's, and a terminal is a new one.
    ///
    /// # Errors
    /// Those of the last steps, [`Error::CommandNotFound`] and [`Error::CommandNotExecutable`] among
    /// them. The process is dead and reaped then.
    pub fn start(&mut self) -> Result<(), Error> {
        let Some(gate) = self.gate.take() else { return Ok(()) };
        start(&gate).inspect_err(|_| self.end())?;
        let Some(pending) = self.restore.take() else { return Ok(()) };
        let (pid, pidfd, master) = pending.finish(&self.pidfd)?;
        (self.pid, self.pidfd) = (pid, pidfd);
        if let Some(master) = master {
            self.io = ProcessIo::Terminal { master };
        }
        Ok(())
    }

    /// Leaves the process to wait for a further parent, which comes to `listener`, a listening socket
    /// of type SOCK_SEQPACKET (see [`start_at`]). From then on it does not end with this one.
    ///
    /// # Errors
    /// [`Error::Ended`] and [`Error::System`]. The process ends when this is dropped then.
    pub fn hand_over(mut self, listener: OwnedFd) -> Result<(), Error> {
        let Some(gate) = self.gate.take() else { return Ok(()) };
        match gate.send(&Message::HandOver(listener)) {
            Ok(()) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(Error::Ended),
            Err(errno) => Err(errno).at(Step::Channel, "the gate"),
        }
    }

    /// Kills and reaps it.
    pub(crate) fn end(&self) {
        end(&self.pidfd);
    }
}

/// As [`Waiting::start`], for a process that was handed over: `socket` is connected to the listening
/// socket that it was given.
///
/// # Errors
/// Those of [`Waiting::start`]. The process is dead or about to be then, and its parent's to reap.
pub fn start_at(socket: OwnedFd) -> Result<(), Error> {
    start(&Channel::from(socket))
}

fn start(gate: &Channel) -> Result<(), Error> {
    match gate.send(&Message::Start) {
        Ok(()) => {}
        Err(Errno::PIPE | Errno::CONNRESET) => return Err(Error::Ended),
        Err(errno) => return Err(errno).at(Step::Channel, "the gate"),
    }
    loop {
        match receive(gate)? {
            None => return Ok(()),
            Some(Message::Failed(error)) => return Err(error),
            Some(Message::Listening { own, numbers }) => {
                if let Err(error) = notify::tell(&own, numbers) {
                    // What the child said meanwhile is more telling.
                    return match gate.receive_until(Instant::now()) {
                        Ok(Some(Message::Failed(said))) => Err(said),
                        Ok(_) | Err(_) => Err(error),
                    };
                }
                gate.send(&Message::GoOn).at(Step::Channel, "the gate")?;
            }
            Some(_) => return Err(Error::Ended),
        }
    }
}

/// The next message that is more than an announcement of how long it takes.
fn receive(gate: &Channel) -> Result<Option<Message>, Error> {
    let mut seconds = SETUP_SECONDS;
    loop {
        match gate.receive_until(Instant::now() + Duration::from_secs(seconds)) {
            Ok(Some(Message::Working { seconds: announced })) => seconds = announced,
            Ok(message) => return Ok(message),
            Err(Errno::TIMEDOUT) => return Err(Error::TimedOut),
            Err(errno) => return Err(errno).at(Step::Channel, "the gate"),
        }
    }
}

/// A child that is not complete yet; killed and reaped when it is dropped.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(crate) pid: i32,
    pidfd: Option<OwnedFd>,
    gate: Option<Channel>,
    /// To be thawed before it is killed.
    group: Option<Cgroup>,
}

impl Unfinished {
    pub(crate) fn new(pid: i32, pidfd: OwnedFd, gate: Channel) -> Self {
        Self { pid, pidfd: Some(pidfd), gate: Some(gate), group: None }
    }

    /// One that is in a group of its own, or will be.
    pub(crate) fn in_group(mut self, group: &Cgroup) -> Self {
        self.group = Some(group.clone());
        self
    }

    pub(crate) fn gate(&self) -> Option<&Channel> {
        self.gate.as_ref()
    }

    pub(crate) fn tell(&self, message: &Message) -> Result<(), Error> {
        match self.gate.as_ref().map(|gate| gate.send(message)) {
            // It is gone: what it said before is more telling.
            Some(Err(Errno::PIPE | Errno::CONNRESET)) | None => Ok(()),
            Some(result) => result.at(Step::Channel, "the child"),
        }
    }

    /// Waits until a child is complete that has no streams.
    pub(crate) fn ready(&self) -> Result<(), Error> {
        match self.gate.as_ref().map(receive).transpose()?.flatten() {
            Some(Message::Ready) => Ok(()),
            Some(Message::Failed(error)) => Err(error),
            Some(_) | None => Err(Error::Ended),
        }
    }

    /// Waits for the child that this one bears in its stead, and goes on with that one: it, and who
    /// the root of its user namespace is.
    pub(crate) fn adopt(mut self) -> Result<(Self, Owner), Error> {
        let message = self.gate.as_ref().map(receive).transpose()?.flatten();
        let (process, root) = match message {
            Some(Message::Born { process, root }) => (process, root),
            Some(Message::Failed(error)) => return Err(error),
            Some(_) | None => return Err(Error::Ended),
        };
        let pid = pid_of(process.as_fd());
        let (gate, group) = (self.gate.take(), self.group.take());
        // The midwife has nothing more to do, and is reaped.
        drop(self);
        let mut child = Self { pid: 0, pidfd: Some(process), gate, group };
        child.pid = pid?;
        child.tell(&Message::Adopted)?;
        Ok((child, root))
    }

    /// Waits until the child is complete; a pty's master may come on the way. `assembled` is what is
    /// done between its mounts and its new root.
    pub(crate) fn finish(
        mut self,
        pipes: Option<ProcessIo>,
        assembled: impl Fn(i32) -> Result<(), Error>,
    ) -> Result<Waiting, Error> {
        let mut io = pipes;
        loop {
            let message = match &self.gate {
                Some(gate) => receive(gate)?,
                None => None,
            };
            match message {
                Some(Message::Terminal(master)) => io = Some(ProcessIo::Terminal { master }),
                Some(Message::Assembled) => {
                    assembled(self.pid)?;
                    self.tell(&Message::GoOn)?;
                }
                Some(Message::Ready) => break,
                Some(Message::Failed(error)) => return Err(error),
                Some(_) | None => return Err(Error::Ended),
            }
        }
        match (self.pidfd.take(), io) {
            (Some(pidfd), Some(io)) => {
                Ok(Waiting { pid: self.pid, pidfd, io, gate: self.gate.take(), restore: None })
            }
            (_, _) => Err(Error::Ended),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.pidfd {
            if let Some(group) = &self.group {
                // A hook may have frozen it, and who stands still in a v1 group can't be killed. Where
                // there is no group, nobody stands still.
                let _ = group.freeze(false);
            }
            end(pidfd);
        }
    }
}

/// The number of the process that a pidfd means, not to be kept (proc_pid_fdinfo(5)).
pub(crate) fn pid_of(pidfd: BorrowedFd<'_>) -> Result<i32, Error> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
        .filter(|pid| *pid > 0)
        .ok_or(Errno::SRCH)
        .at(Step::OpenNamespace, path)
}

/// How long a killed child may take to go: one that hangs in a disk is left behind, to be reaped by
/// whoever reaps for the caller.
const END: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Kills and reaps a child.
pub(crate) fn end(pidfd: &OwnedFd) {
    // It may have ended by itself, and is then only reaped.
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
    while let Err(Errno::INTR) = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&END)) {}
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    while let Err(Errno::INTR) = waitid(WaitId::PidFd(pidfd.as_fd()), options) {}
}
