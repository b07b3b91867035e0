//! Checkpoint: the container, written down by criu while the loop goes on.

use std::path::PathBuf;

use shim_wire::containerd::{CHECKPOINT_OPTIONS, CheckpointOptions};
use shim_wire::lifecycle::ShimState;
use shim_wire::task::CheckpointTaskRequest;

use crate::container::{Container, Init};
use crate::error::Error;
use crate::event_loop::Shim;
use crate::process::Waiter;
use crate::service::decode_any;

/// Where criu's log goes, in the run directory, when nobody says where.
pub(crate) const WORK: &str = "criu";

impl Shim {
    /// Begins a checkpoint; the helper's end is its answer.
    ///
    /// # Errors
    /// What can't be written down, and what is asked for and not done, by name.
    pub(crate) fn checkpoint(
        &mut self,
        from: Waiter,
        request: CheckpointTaskRequest,
    ) -> Result<(), Error> {
        let container = self.task(&request.id)?;
        if self.state != ShimState::Running {
            return Err(Error::NotStarted { process: "the task".to_owned() });
        }
        if matches!(container.init, Init::Held) {
            return Err(Error::NotCheckpointed { why: "a sandbox has no processes" });
        }
        if self.hooks.is_some() {
            return Err(Error::NotCheckpointed {
                why: "hooks, or another checkpoint, are at work",
            });
        }
        let options: CheckpointOptions = match &request.options {
            Some(any) if !any.type_url.is_empty() => {
                decode_any(Some(any), "options", CHECKPOINT_OPTIONS)?
            }
            Some(_) | None => CheckpointOptions::default(),
        };
        if options.empty_namespaces.iter().any(|kind| kind != "network") {
            let why = "of its namespaces only the network can be left out";
            return Err(Error::NotCheckpointed { why });
        }
        let or = |given: String, other: PathBuf| match given.is_empty() {
            true => other,
            false => PathBuf::from(given),
        };
        let images = or(options.image_path, PathBuf::from(request.path));
        if !images.is_absolute() {
            return Err(Error::NotCheckpointed { why: "the directory for it is no absolute path" });
        }
        let how = shim_runtime::Checkpoint {
            work: or(options.work_path, self.arguments.run.path().join(WORK)),
            images: images.clone(),
            leave_running: !options.exit,
            tcp_established: options.open_tcp,
            external_unix_sockets: options.external_unix_sockets,
            shell_job: options.terminal,
            file_locks: options.file_locks,
            streams: container.stdio.names(),
            freezer: container.cgroup.freezer(),
            ..shim_runtime::Checkpoint::default()
        };
        let pid = pid_of(container);
        shim_failpoints::step!("shim.checkpoint.before_clone", error);
        let running = shim_runtime::checkpoint(pid, &how)?;
        shim_failpoints::step!("shim.checkpoint.after_clone");
        self.watch_checkpoint(from, running, images.to_string_lossy().into_owned());
        Ok(())
    }
}

fn pid_of(container: &Container) -> i32 {
    container.pid.cast_signed()
}
