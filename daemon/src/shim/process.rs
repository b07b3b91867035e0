//! A shim as a process: who it is, whether it lives, and how its end is awaited.
//!
//! Identity is a pidfd, or on disk a pid with its start time and boot id; never a bare pid.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shim_wire::files::{ProcessIdentity, start_time_of_stat};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Error;
use crate::plain_file;

/// A shim's process.
#[derive(Debug)]
pub struct ShimProcess {
    pid: u32,
    pidfd: AsyncFd<OwnedFd>,
    /// Ours to reap; `None` when an earlier daemon started it.
    child: std::sync::Mutex<Option<Child>>,
}

impl ShimProcess {
    /// A shim that this daemon has just started.
    pub(super) fn of_child(child: Child) -> Result<Self, Error> {
        // A child that nobody waited for keeps its pid, so the pidfd is the child's.
        Self::new(child.id(), Some(child))
    }

    /// The process that an identity file names, if it is still that one.
    #[must_use]
    pub fn of_identity(identity: &ProcessIdentity) -> Option<Self> {
        let process = Self::new(identity.pid, None).ok()?;
        // Checked after the pidfd is open: it can't be another one's from here on.
        is_alive(identity).then_some(process)
    }

    fn new(pid: u32, child: Option<Child>) -> Result<Self, Error> {
        let failed = |source| Error::Io { step: "open pidfd", source };
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let raw = raw.ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?;
        let pidfd = pidfd_open(raw, PidfdFlags::NONBLOCK).map_err(|errno| failed(errno.into()))?;
        #[expect(
            deprecated,
            reason = "the replacement is unsafe; an OwnedFd keeps what it asks for by its type"
        )]
        let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE).map_err(failed)?;
        Ok(Self { pid, pidfd, child: std::sync::Mutex::new(child) })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until the process has ended, and reaps it when it is ours. `false` when it lives on
    /// after `deadline`.
    pub async fn ended(&self, deadline: Duration) -> bool {
        // A pidfd becomes readable at the end and stays so.
        let ended = tokio::time::timeout(deadline, self.pidfd.readable()).await.is_ok();
        if ended {
            self.reap();
        }
        ended
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let mut pidfd = [PollFd::new(self.pidfd.get_ref(), PollFlags::IN)];
        matches!(poll(&mut pidfd, Some(&Timespec::default())), Ok(0))
    }

    /// Asks it to put back what it is found by, where that is gone; without effect on one of a build that does not
    /// know of this.
    pub fn summon(&self) {
        let _ = pidfd_send_signal(self.pidfd.get_ref().as_fd(), Signal::HUP);
    }

    /// Kills it; without effect on one that has ended.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(self.pidfd.get_ref().as_fd(), Signal::KILL);
    }

    fn reap(&self) {
        let mut child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(mut child) = child.take() {
            // It has ended: this does not block.
            let _ = child.wait();
        }
    }
}

/// Whether the very process that an identity names lives.
#[must_use]
pub fn is_alive(identity: &ProcessIdentity) -> bool {
    identity.boot_id == boot_id()
        && std::fs::read_to_string(format!("/proc/{}/stat", identity.pid))
            .ok()
            .and_then(|stat| start_time_of_stat(&stat))
            == Some(identity.start_time)
}

/// The identity in a file; `None` when there is none or it can't be read.
#[must_use]
pub fn read_identity(path: &Path) -> Option<ProcessIdentity> {
    ProcessIdentity::decode(&plain_file::read_text(path, plain_file::NOTE).ok()?)
}

/// Every shim that lives on this machine, by the directory of its container: what it was started with. For those
/// whose identity file is lost.
#[must_use]
pub fn living() -> HashMap<PathBuf, ProcessIdentity> {
    let own = std::fs::read_link("/proc/self/ns/pid").ok();
    let shim = |entry: std::fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let arguments = std::fs::read(entry.path().join("cmdline")).ok()?;
        let directory = container_dir(&arguments)?;
        // Whoever is in a container may call itself what it likes.
        let is_ours = std::fs::read_link(entry.path().join("ns/pid")).ok() == own;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let identity = ProcessIdentity {
            pid,
            start_time: start_time_of_stat(&stat)?,
            boot_id: boot_id().to_owned(),
        };
        is_ours.then_some((directory, identity))
    };
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(shim).collect()
}

/// The container's directory in the arguments of a shim.
fn container_dir(arguments: &[u8]) -> Option<PathBuf> {
    let mut words = arguments.split(|byte| *byte == 0);
    words.next().filter(|name| *name == super::launch::NAME.as_bytes())?;
    words.find(|word| *word == super::launch::CONTAINER_DIR.as_bytes())?;
    words.next().map(|path| PathBuf::from(OsStr::from_bytes(path)))
}

/// The kernel's id of this boot.
#[must_use]
pub fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    })
}
