//! Being told when the kernel kills for want of memory.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::fs::{Mode, OFlags};

use crate::{Cgroup, Controller, Error, write};

/// A descriptor that becomes ready when a group may have run out of memory. Nobody wakes up before.
#[derive(Debug)]
pub struct OomWatch {
    group: Cgroup,
    kind: Kind,
    kills: u64,
}

#[derive(Debug)]
enum Kind {
    /// v1 counts into an eventfd that was registered with `cgroup.event_control`.
    Counter(OwnedFd),
    /// v2 makes `memory.events` exceptional (POLLPRI) when one of its numbers has changed, until it
    /// is read again.
    Events(OwnedFd),
}

impl Cgroup {
    /// Watches the group from now on. `None` where nobody counts its memory.
    ///
    /// # Errors
    /// [`Error::Io`], `ENOENT` when the group does not exist.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>, Error> {
        let open = |path: &std::path::Path| {
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| Error::io("open", path, errno))
        };
        let kind = if let Some(hierarchy) = self.layout.controller(Controller::Memory) {
            let group = hierarchy.mount().join(&self.path);
            let control = open(&group.join("memory.oom_control"))?;
            let file = group.join("cgroup.event_control");
            let counter = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|errno| Error::io("make a counter for", &file, errno))?;
            write(&file, &format!("{} {}", counter.as_raw_fd(), control.as_raw_fd()))?;
            Kind::Counter(counter)
        } else {
            let Some(unified) = self.layout.unified() else { return Ok(None) };
            let group = unified.join(&self.path);
            match open(&group.join("memory.events")) {
                Ok(events) => Kind::Events(events),
                // The controller is not on.
                Err(_) if group.exists() => return Ok(None),
                Err(error) => return Err(error),
            }
        };
        let mut watch = OomWatch { group: self.clone(), kind, kills: 0 };
        watch.killed()?;
        Ok(Some(watch))
    }
}

impl OomWatch {
    /// What to poll, and for what. It is ready as well when the group has gone.
    #[must_use]
    pub fn interest(&self) -> (BorrowedFd<'_>, PollFlags) {
        match &self.kind {
            Kind::Counter(counter) => (counter.as_fd(), PollFlags::IN),
            Kind::Events(events) => (events.as_fd(), PollFlags::PRI),
        }
    }

    /// Whether something was killed since the last time this was asked; lets the descriptor wait for
    /// the next time.
    ///
    /// v1 tells when memory runs out, just before the kernel chooses whom to kill, so one call may
    /// come too early to see it; the number is right at the next one, at the latest when the container
    /// ends.
    ///
    /// # Errors
    /// [`Error::Io`], `ENOENT` or `ENODEV` when the group has gone: there is nothing to watch any
    /// more.
    pub fn killed(&mut self) -> Result<bool, Error> {
        let mut buffer = [0; 512];
        match &self.kind {
            // Empty when it was ready for nothing.
            Kind::Counter(counter) => drop(rustix::io::read(counter, &mut buffer[..8])),
            Kind::Events(events) => drop(rustix::io::pread(events, &mut buffer, 0)),
        }
        let kills = self.group.oom_kills()?;
        let more = kills > self.kills;
        self.kills = kills;
        Ok(more)
    }
}
