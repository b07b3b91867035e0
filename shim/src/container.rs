//! The container's first process and everything that the shim holds for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use shim_cgroup::Cgroup;
use shim_runtime::{Held, Waiting};
use shim_wire::containerd::TaskIo;
use shim_wire::exit::{ExitRecord, ExitStatus, Timestamp};
use shim_wire::ttrpc::Response;

use crate::error::Error;
use crate::exit_record::Reserved;
use crate::log::{Log, Stream};
use crate::process::{Child, Waiter};
use crate::stdio::Stdio;
use crate::{clock, report};

/// One run of the container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) attempt: u64,
    pub(crate) pid: u32,
    pub(crate) init: Init,
    pub(crate) stdio: Stdio,
    pub(crate) bundle: String,
    /// Where a client of containerd wants its streams.
    pub(crate) io: Option<Box<TaskIo>>,
    /// Where its standard input comes from, until that is opened.
    pub(crate) late_stdin: String,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) paused: bool,
    /// It goes on from a checkpoint.
    pub(crate) restored: Option<KeptInput>,
    pub(crate) cgroup: Cgroup,
    pub(crate) earlier_oom_kills: OomKills,
    /// The runtime told that memory ran out.
    pub(crate) oom_noted: bool,
    /// Its end is the end of everything in it.
    pub(crate) own_pid_namespace: bool,
    pub(crate) log: Option<Log>,
    pub(crate) reserved: Reserved,
    /// Made when the process ended; durable from [`Recorded`] on.
    ///
    /// [`Recorded`]: shim_wire::lifecycle::ShimState::Recorded
    pub(crate) record: Option<ExitRecord>,
    pub(crate) waiters: Vec<Waiter>,
    /// Whose start failed under containerd, and is told so behind the end: they may remove it at once.
    pub(crate) failed_start: Option<Box<(Waiter, Response)>>,
    /// For others to join.
    pub(crate) namespaces: Vec<Held>,
    /// Dropping it is the shim's last act: the kernel then takes the rootfs down.
    pub(crate) mount_namespace: Option<OwnedFd>,
    /// The kinds of hooks that there are; of poststop, as long as they have not run.
    pub(crate) hooks: u32,
}

/// What becomes of the standard input of a terminal that comes with the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptInput {
    /// For clients; otherwise it is /dev/null.
    pub(crate) open: bool,
    /// It ends with the client that sends it.
    pub(crate) once: bool,
}

/// The first process, as far as the shim is its parent.
#[derive(Debug)]
pub(crate) enum Init {
    /// Cloned, and waits to be told to execute.
    Waiting(Waiting),
    /// Also one that a stock shim created and has not started yet.
    Executed(Child),
    /// A sandbox: namespaces without a process.
    Held,
    /// It could not execute its program, and is dead and reaped: there never was a run. The daemon
    /// undoes what is left.
    Failed,
}

/// What the kernel had counted of its kills for want of memory before a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OomKills {
    /// In the container's group, if that is not new.
    own: u64,
    /// In the group above, of one that systemd removes as soon as it is empty.
    above: Option<u64>,
}

impl OomKills {
    /// What is counted at present.
    pub(crate) fn of(cgroup: &Cgroup) -> Self {
        let is_scope = cgroup.path().ends_with(".scope");
        Self {
            own: cgroup.oom_kills().unwrap_or(0),
            above: if is_scope { cgroup.oom_kills_above() } else { None },
        }
    }
}

pub(crate) const SIGKILL: u32 = 9;

/// The number of a process that SIGKILL ended, or of a shell that tells it of the last that it ran.
const KILLED: u8 = 128 + 9;

/// How long one try to empty the cgroup may hold the loop up.
const KILL_STEP: Duration = Duration::from_millis(20);

/// How long everything in the cgroup has to come to a stand, with the loop waiting: milliseconds,
/// unless it waits for a disk.
const FREEZE: Duration = Duration::from_millis(500);

impl Container {
    /// `None` when there is no process, or none any more, whose end this shim has to wait for.
    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match &self.init {
            Init::Waiting(waiting) => Some(waiting.pidfd.as_fd()),
            Init::Executed(child) => child.pidfd(),
            Init::Held | Init::Failed => None,
        }
    }

    /// The process ended: notes how, and ends what would keep its output from ending.
    pub(crate) fn ended(&mut self, status: ExitStatus, boot_id: &str) {
        let oom_killed = match self.init {
            Init::Held => false,
            Init::Waiting(_) | Init::Executed(_) | Init::Failed => self.oom_killed(status),
        };
        self.record = Some(ExitRecord {
            attempt: self.attempt,
            status,
            oom_killed: oom_killed || self.oom_noted,
            exited_at: clock::now(),
            boot_id: boot_id.to_owned(),
            boottime_ns: clock::boottime_ns(),
        });
        self.stdio.process_ended();
    }

    /// Whether the kernel killed for want of memory in this run, which ended so.
    fn oom_killed(&self, status: ExitStatus) -> bool {
        let earlier = self.earlier_oom_kills;
        match self.cgroup.oom_kills() {
            Ok(kills) => kills > earlier.own,
            // systemd was faster. Who was killed, and in whose slice the kernel has killed, was killed by
            // it, unless another of its pod was just then, and this one by somebody else.
            Err(_) if earlier.above.is_some() => {
                status.number() == KILLED && self.cgroup.oom_kills_above() > earlier.above
            }
            Err(error) => {
                report("count the kernel's kills for want of memory", &error);
                false
            }
        }
    }

    /// Kills what the process left in its cgroup. Whether nothing is left.
    pub(crate) fn kill_rest(&self) -> bool {
        self.own_pid_namespace || self.cgroup.kill(Instant::now() + KILL_STEP).is_ok()
    }

    /// Signals everything in the cgroup.
    ///
    /// # Errors
    /// When the cgroup can't be read, or killed.
    pub(crate) fn signal_all(&mut self, signal: u32) -> Result<(), Error> {
        if signal == SIGKILL {
            // What is not dead at the deadline has its signal all the same.
            match self.cgroup.kill(Instant::now() + KILL_STEP) {
                Ok(()) | Err(shim_cgroup::Error::StillPopulated { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            return self.freeze(false);
        }
        let number = i32::try_from(signal).unwrap_or(0);
        for pid in self.cgroup.procs()? {
            // One that has ended since needs no signal.
            let _ = shim_sys::signal::kill(pid, number);
        }
        Ok(())
    }

    /// Pauses everything in the cgroup, or lets it go on.
    ///
    /// # Errors
    /// When the machine can't, or something does not stand still in time; it goes on then.
    pub(crate) fn freeze(&mut self, frozen: bool) -> Result<(), Error> {
        match (self.paused, frozen) {
            (false, true) => self.cgroup.freeze_until(Instant::now() + FREEZE)?,
            (true, false) => self.cgroup.freeze(false)?,
            (true, true) | (false, false) => {}
        }
        self.paused = frozen;
        Ok(())
    }

    /// All output is there: what is unfinished becomes a record, and the log is made durable.
    pub(crate) fn finish_log(&mut self) {
        let Some(log) = &mut self.log else { return };
        for stream in [Stream::Stdout, Stream::Stderr] {
            log.end(stream);
        }
        if let Err(error) = log.sync() {
            report("sync the log", &error);
        }
    }
}
