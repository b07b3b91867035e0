//! `delete`: what containerd runs when a shim does not answer any more.
//!
//! The container is known by the cgroup and the identities that its shim wrote into the bundle: never
//! is a bare number killed. What is answered is the exit record, when the shim lived to write one.
//! Otherwise it is 137: containerd has no "unknown", and whatever was left has just been killed.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shim_cgroup::{Cgroup, Layout};
use shim_wire::exit::ExitRecord;
use shim_wire::files::{ContainerDir, ProcessIdentity};
use shim_wire::task::DeleteResponse;

use super::command::Target;
use super::lower::Helper;
use super::{Failure, directory, remove_sockets};
use crate::{clock, report, setup};

/// How long what was killed may take to be gone; containerd waits 5 seconds for all of it.
const PATIENCE: Duration = Duration::from_secs(3);

const KILLED: u32 = 137;

/// Ends and removes what is left of a container.
///
/// # Errors
/// Names the step. Everything behind it is left, and can be deleted again.
pub(super) fn delete(target: &Target) -> Result<DeleteResponse, Failure> {
    let run = directory(&target.bundle);
    let deadline = Instant::now() + PATIENCE;
    end(&run.shim_identity(), deadline)?;
    let pid = end(&run.init_identity(), deadline)?;
    if let Some(path) = read(&run.cgroup())? {
        let failed = |source| Failure::Cgroup { path: path.clone(), source };
        let cgroup = Layout::detect().and_then(|layout| Cgroup::new(&layout, &path));
        let cgroup = cgroup.map_err(failed)?;
        cgroup.kill(deadline).map_err(failed)?;
        cgroup.remove(deadline).map_err(failed)?;
    }
    Helper::behind(&target.namespace, &run).forget_scope().map_err(Failure::Scope)?;
    if let Err(error) = shim_runtime::hooks::poststop(&run) {
        // The container is gone all the same.
        report("poststop", &error);
    }
    if let Ok(sockets) = fs::read_link(run.sockets()) {
        remove_sockets(&sockets).map_err(|e| Failure::step("remove", sockets.display(), e))?;
    }
    let record = read(&ContainerDir::new(run.path().to_owned()).exit())?;
    let record = record.and_then(|text| ExitRecord::decode(&text).ok());
    remove(run.path())?;
    Ok(match record {
        Some(record) => DeleteResponse {
            pid,
            exit_status: record.status.number().into(),
            exited_at: Some(record.exited_at.into()),
        },
        None => DeleteResponse { pid, exit_status: KILLED, exited_at: Some(clock::now().into()) },
    })
}

/// Kills the process whose identity is in a file, if it is still that process. Its pid.
fn end(file: &Path, deadline: Instant) -> Result<u32, Failure> {
    let failed = |source| Failure::step("end the process of", file.display(), source);
    let Some(identity) = read(file)?.and_then(|text| ProcessIdentity::decode(&text)) else {
        return Ok(0);
    };
    let boot_id = setup::boot_id().map_err(failed)?;
    let pid = i32::try_from(identity.pid).ok().and_then(Pid::from_raw);
    // Opened before it is looked at: what is killed is what was looked at.
    let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let found = setup::identity_of(identity.pid, &boot_id).ok();
    if let (Some(pidfd), true) = (pidfd, found.as_ref() == Some(&identity)) {
        // One that ended meanwhile is what is wanted.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| failed(io::ErrorKind::TimedOut.into()))?;
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left))
            .map_err(|errno| failed(errno.into()))?;
    }
    Ok(identity.pid)
}

/// The text of a file, if there is one.
fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::step("read", path.display(), error)),
    }
}

fn remove(directory: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::step("remove", directory.display(), error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(bundle: &Path) -> Target {
        let (namespace, id) = ("ns".parse().unwrap(), "web".parse().unwrap());
        Target { namespace, id, bundle: bundle.to_owned() }
    }

    #[test]
    fn a_container_that_never_was_is_deleted() {
        let bundle = tempfile::tempdir().unwrap();
        let response = delete(&target(bundle.path())).unwrap();
        assert_eq!((response.pid, response.exit_status), (0, KILLED));
    }

    #[test]
    fn a_process_that_only_has_the_number_is_left_alone() {
        let bundle = tempfile::tempdir().unwrap();
        let run = directory(bundle.path());
        fs::create_dir(run.path()).unwrap();
        let boot_id = setup::boot_id().unwrap();
        let mut identity = setup::identity_of(std::process::id(), &boot_id).unwrap();
        identity.start_time += 1;
        setup::write_identity(&run.init_identity(), &identity).unwrap();
        let response = delete(&target(bundle.path())).unwrap();
        assert_eq!(response.pid, std::process::id());
        assert!(!run.path().exists());
    }

    #[test]
    fn what_the_shim_recorded_is_answered() {
        let bundle = tempfile::tempdir().unwrap();
        let run = directory(bundle.path());
        fs::create_dir(run.path()).unwrap();
        let record = ExitRecord {
            attempt: 1,
            status: shim_wire::exit::ExitStatus::Code(42),
            oom_killed: false,
            exited_at: shim_wire::exit::Timestamp { seconds: 7, nanos: 8 },
            boot_id: String::new(),
            boottime_ns: 0,
        };
        fs::write(ContainerDir::new(run.path().to_owned()).exit(), record.encode()).unwrap();
        let response = delete(&target(bundle.path())).unwrap();
        assert_eq!((response.exit_status, response.exited_at.unwrap().seconds), (42, 7));
    }
}
