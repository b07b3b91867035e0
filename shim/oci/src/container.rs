//! A container in the state directory, `ROOT/ID`.
//!
//! | file | what |
//! |---|---|
//! | `state.json` | [`Record`]: what does not change |
//! | `config.json` | a copy of the bundle's |
//! | `plan` | what its first process executes |
//! | `init.pid` | which process that is; written once it waits to be started |
//! | `hooks` | the hooks that it has, until those that follow its end have run |
//! | `gate` | the socket where it waits; gone when it was started |
//! | `lock` | empty; locked by the command that changes the container |
//!
//! What changes is asked of the kernel, never kept: whether the process lives (by pidfd, start time
//! and boot), whether it waits (its socket listens), whether it stands still (its group).
//!
//! A command that changes a container holds its lock meanwhile, so a directory without `init.pid` that
//! nobody holds is what a killed `create` left. The lock is one of fcntl(2), which is the process' own:
//! it goes with the command, and no child of it has it, whatever that hangs in. It also goes with any
//! descriptor of the file that the command closes: who holds a [`Lock`] asks [`Container::status_held`].

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use shim_cgroup::{Cgroup, Layout};
use shim_runtime::{hooks, state};
use shim_sys::pidfd::send_signal;
use shim_wire::files::{ProcessIdentity, RunDir, start_time_of_stat};
use shim_wire::hooks::HookKind;

use crate::bundle::{self, Bundle};
use crate::cli::Global;
use crate::ending::{self, has_ended};
use crate::error::Error;
use crate::files;
use crate::gate;
use crate::report;
use crate::scope;
use crate::signal;

const RECORD: &str = "state.json";
const LOCK: &str = "lock";
/// How long another command may hold a container.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long what was killed may take to go.
const END: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// What does not change in the life of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) oci_version: String,
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    /// RFC 3339.
    pub(crate) created: String,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    /// As [`CreateOptions::cgroup`](shim_wire::plan::CreateOptions::cgroup).
    pub(crate) cgroup: String,
    /// The scope that systemd made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<String>,
}

/// A container's directory and what it says.
#[derive(Debug)]
pub(crate) struct Container {
    directory: PathBuf,
    pub(crate) record: Record,
}

/// The first process of a container that lives.
#[derive(Debug)]
pub(crate) struct Init {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

impl Init {
    /// Waits until the process of a container that could not be started has ended: who is told so may
    /// delete the container at once.
    pub(crate) fn settle(&self) {
        let _ = ending::wait_until(&self.pidfd, Instant::now() + END);
    }
}

/// Held while a command changes a container.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "it is held by being open")] File);

impl Container {
    /// Makes the directory of a new container, which is the caller's alone as long as the lock lives.
    ///
    /// # Errors
    /// [`Error::InvalidId`], [`Error::Exists`].
    pub(crate) fn make(
        root: &Path,
        bundle: &Bundle,
        record: Record,
    ) -> Result<(Self, Lock), Error> {
        check_id(&record.id)?;
        let mut private = DirBuilder::new();
        private.mode(0o700);
        if let Some(above) = root.parent() {
            // As the system's own, whatever the umask is: who could write there could put another
            // root in this one's place.
            let mut shared = DirBuilder::new();
            let made = shared.recursive(true).mode(0o755).create(above);
            made.map_err(Error::file("make", above))?;
        }
        match private.create(root) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::file("make", root)(error));
            }
            Ok(()) | Err(_) => {}
        }
        let directory = root.join(&record.id);
        match private.create(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists { id: record.id });
            }
            Err(error) => return Err(Error::file("make", &directory)(error)),
        }
        let container = Self { directory, record };
        files::write_whole(&container.directory.join(LOCK), b"", 0o600)
            .inspect_err(|_| container.forget())?;
        let lock = container.lock()?;
        container.write(bundle).inspect_err(|_| container.forget())?;
        Ok((container, lock))
    }

    fn write(&self, bundle: &Bundle) -> Result<(), Error> {
        files::write_whole(&self.config(), bundle.text.as_bytes(), 0o600)?;
        let record = serde_json::to_vec(&self.record).unwrap_or_default();
        files::write_whole(&self.state(), &record, 0o600)
    }

    /// Finds a container.
    ///
    /// # Errors
    /// [`Error::InvalidId`], [`Error::NoContainer`], or that its record can't be read.
    pub(crate) fn find(root: &Path, id: &str) -> Result<Self, Error> {
        check_id(id)?;
        let directory = root.join(id);
        let path = directory.join(RECORD);
        let text = fs::read_to_string(&path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                return Error::NoContainer { id: id.to_owned() };
            }
            Error::file("read", &path)(error)
        })?;
        Ok(Self { directory, record: bundle::parse(&text, &path)? })
    }

    /// Removes what a `create` left that was killed before it had a record: a directory, for all else
    /// comes after.
    ///
    /// # Errors
    /// [`Error::InvalidId`], or that it can't be removed.
    pub(crate) fn sweep(root: &Path, id: &str) -> Result<(), Error> {
        check_id(id)?;
        let directory = root.join(id);
        let held = match OpenOptions::new().write(true).open(directory.join(LOCK)) {
            Ok(file) => fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_err(),
            Err(_) => false,
        };
        if held || !directory.exists() || directory.join(RECORD).exists() {
            return Ok(());
        }
        fs::remove_dir_all(&directory).map_err(Error::file("remove", &directory))
    }

    /// All of a root, sorted by id. Those that come or go meanwhile may be missing.
    ///
    /// # Errors
    /// When the root can't be read; one that does not exist has none.
    pub(crate) fn all(root: &Path) -> Result<Vec<Self>, Error> {
        let entries = match fs::read_dir(root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::file("read", root)(error)),
        };
        let ids = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut found: Vec<Self> = ids.filter_map(|id| Self::find(root, &id).ok()).collect();
        found.sort_by(|one, other| one.record.id.cmp(&other.record.id));
        Ok(found)
    }

    /// Waits until no other command changes the container.
    ///
    /// # Errors
    /// [`Error::InUse`] when it does not end, [`Error::NoContainer`] when it was removed.
    pub(crate) fn lock(&self) -> Result<Lock, Error> {
        let file = self.open()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::AGAIN | Errno::ACCESS) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(Errno::AGAIN | Errno::ACCESS) => {
                    return Err(Error::InUse { id: self.record.id.clone() });
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::file("lock", &self.directory)(errno.into())),
            }
        }
        // What the lock is on may be gone since.
        let same = |one: rustix::fs::Stat, other: rustix::fs::Stat| one.st_ino == other.st_ino;
        match (rustix::fs::fstat(&file), rustix::fs::stat(self.directory.join(LOCK))) {
            (Ok(locked), Ok(there)) if same(locked, there) => Ok(Lock(file)),
            (_, _) => Err(Error::NoContainer { id: self.record.id.clone() }),
        }
    }

    fn open(&self) -> Result<File, Error> {
        let path = self.directory.join(LOCK);
        OpenOptions::new().read(true).write(true).open(&path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                return Error::NoContainer { id: self.record.id.clone() };
            }
            Error::file("open", &path)(error)
        })
    }

    pub(crate) fn run_dir(&self) -> RunDir {
        RunDir::new(self.directory.clone())
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.join("config.json")
    }

    fn state(&self) -> PathBuf {
        self.directory.join(RECORD)
    }

    pub(crate) fn gate(&self) -> gate::Gate<'_> {
        gate::Gate::new(&self.directory)
    }

    /// # Errors
    /// Those of finding the machine's hierarchies.
    pub(crate) fn cgroup(&self) -> Result<Cgroup, Error> {
        Ok(Cgroup::new(&Layout::detect()?, &self.record.cgroup)?)
    }

    /// Writes down which process is the first one.
    ///
    /// # Errors
    /// When it is gone, or can't be written.
    pub(crate) fn set_init(&self, pid: i32) -> Result<(), Error> {
        let identity =
            identity_of(pid).map_err(Error::system("identify the container's process"))?;
        files::write_whole(&self.run_dir().init_identity(), identity.encode().as_bytes(), 0o600)
    }

    /// Its first process, when that lives.
    pub(crate) fn init(&self) -> Option<Init> {
        let text = fs::read_to_string(self.run_dir().init_identity()).ok()?;
        let identity = ProcessIdentity::decode(&text)?;
        let pid = i32::try_from(identity.pid).ok()?;
        let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        // Opened before it is looked at: whatever the number means later, this is that process.
        let same = identity_of(pid).is_ok_and(|found| found == identity);
        (same && !has_ended(&pidfd)).then_some(Init { pid, pidfd })
    }

    /// # Errors
    /// [`Error::NotRunning`].
    pub(crate) fn living(&self) -> Result<Init, Error> {
        self.init().ok_or_else(|| Error::NotRunning { id: self.record.id.clone() })
    }

    /// For whoever holds the lock: nobody else can be creating it.
    pub(crate) fn status_held(&self, _lock: &Lock) -> Status {
        self.init().map_or(Status::Stopped, |_| self.status_alive())
    }

    pub(crate) fn status(&self) -> Status {
        match self.init() {
            Some(_) => self.status_alive(),
            None if !self.run_dir().init_identity().exists() && self.is_locked() => {
                Status::Creating
            }
            None => Status::Stopped,
        }
    }

    fn status_alive(&self) -> Status {
        if self.cgroup().is_ok_and(|cgroup| cgroup.is_frozen()) {
            Status::Paused
        } else if self.gate().is_waited_at() {
            Status::Created
        } else {
            Status::Running
        }
    }

    fn is_locked(&self) -> bool {
        let Ok(file) = self.open() else { return false };
        let shared = fcntl_lock(&file, FlockOperation::NonBlockingLockShared);
        matches!(shared, Err(Errno::AGAIN | Errno::ACCESS))
    }

    /// Runs the hooks that follow a start, also of a program that has ended meanwhile.
    ///
    /// # Errors
    /// What came of them. The container is killed then, as the specification has it.
    pub(crate) fn run_poststart(&self) -> Result<(), Error> {
        if !self.run_dir().hooks().exists() {
            return Ok(());
        }
        let init = self.init();
        let (status, pid) = match &init {
            Some(init) => (state::Status::Running, Some(init.pid)),
            None => (state::Status::Stopped, None),
        };
        let run = hooks::run(&self.run_dir(), &[HookKind::Poststart], status, pid);
        run.map_err(|error| {
            // The error is the one to tell.
            if let Some(init) = init {
                let _ = send_signal(init.pidfd.as_fd(), signal::KILL);
                init.settle();
            }
            error.into()
        })
    }

    /// Ends whatever is left of it, runs the hooks that follow its end, and removes its directory. A
    /// hook that fails is a warning in the log, as the specification has it.
    ///
    /// # Errors
    /// Of the control group, which then is still there, as the directory is.
    pub(crate) fn remove(&self, global: &Global) -> Result<(), Error> {
        self.remove_cgroup()?;
        if let Err(error) = hooks::poststop(&self.run_dir()) {
            report::warning(global, &error);
        }
        fs::remove_dir_all(&self.directory).map_err(Error::file("remove", &self.directory))
    }

    /// Ends all processes in its group and removes that, and has systemd forget it.
    ///
    /// # Errors
    /// Those of the group, and systemd's.
    pub(crate) fn remove_cgroup(&self) -> Result<(), Error> {
        let cgroup = self.cgroup()?;
        if cgroup.exists() {
            cgroup.kill(Instant::now() + END)?;
            cgroup.remove(Instant::now() + END)?;
        }
        self.record.scope.as_deref().map_or(Ok(()), scope::stop)
    }

    /// Removes a directory that nothing came of.
    pub(crate) fn forget(&self) {
        // The error that led here is the one to tell.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// runc's rule: letters, digits, `_+-.`, and no name that means another directory.
fn check_id(id: &str) -> Result<(), Error> {
    let wrong = |rule| Err(Error::InvalidId { id: id.to_owned(), rule });
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty() || id.len() > 255 {
        wrong("has 1 to 255 characters")
    } else if !id.bytes().all(known) || id == "." || id == ".." {
        wrong("is of letters, digits and _+-.")
    } else {
        Ok(())
    }
}

fn identity_of(pid: i32) -> io::Result<ProcessIdentity> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let start_time = start_time_of_stat(&stat).ok_or_else(invalid)?;
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned();
    Ok(ProcessIdentity { pid: pid.unsigned_abs(), start_time, boot_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_of_directories() {
        for id in ["a", "web-1", "a.b_c+d", "0", "..."] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        let long = "x".repeat(256);
        for id in ["", ".", "..", "a/b", "../a", "a b", "é", "a\0", &long] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
    }
}
