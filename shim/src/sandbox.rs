//! A pod's shim: it holds namespaces for others to join, and, instead of a process' end, is told when
//! its own has come.
//!
//! To whoever calls it is a task as all are, without a process: created, started, signalled, waited
//! for, with an exit record and a release.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use shim_cgroup::{Cgroup, Layout};
use shim_runtime::Held;
use shim_wire::exit::ExitStatus;
use shim_wire::lifecycle::ShimEvent;
use shim_wire::plan::{CreateOptions, Sandbox};
use shim_wire::shim::HeldNamespace;

use crate::container::{Container, Init, OomKills};
use crate::error::Error;
use crate::event_loop::Shim;
use crate::exit_record::Reserved;
use crate::stdio::Stdio;

/// The highest number of a signal (signal(7)).
const SIGNAL_MAX: u32 = 64;

impl Shim {
    /// Makes what the containers of a pod share.
    ///
    /// # Errors
    /// Names the step that failed; nothing of it is left then.
    pub(crate) fn launch_sandbox(
        &mut self,
        options: &CreateOptions,
        sandbox: &Sandbox,
        bundle: String,
    ) -> Result<(), Error> {
        let directory = &self.arguments.container;
        let reserved = Reserved::new(directory).map_err(|source| {
            let object = directory.path().display().to_string();
            Error::step("reserve the exit record in", object, source)
        })?;
        let cgroup = Cgroup::new(&Layout::detect()?, &options.cgroup)?;
        let network = self.inherited.network_namespace.as_ref().map(AsFd::as_fd);
        let namespaces = shim_runtime::sandbox(options, sandbox, network)?;
        shim_failpoints::step!("shim.sandbox.after_namespaces");
        self.container = Some(Container {
            attempt: options.attempt,
            pid: 0,
            init: Init::Held,
            stdio: Stdio::none(),
            bundle,
            io: None,
            late_stdin: String::new(),
            started_at: None,
            paused: false,
            restored: None,
            earlier_oom_kills: OomKills::default(),
            cgroup,
            // There is nobody whose end has to be seen to.
            own_pid_namespace: true,
            log: None,
            reserved,
            record: None,
            oom_noted: false,
            waiters: Vec::new(),
            failed_start: None,
            namespaces,
            mount_namespace: None,
            hooks: 0,
        });
        Ok(())
    }

    /// A signal to a sandbox without a process is its end; 0 asks whether it is there (kill(2)).
    ///
    /// # Errors
    /// There is no such signal.
    pub(crate) fn signal_sandbox(&mut self, signal: u32) -> Result<(), Error> {
        if signal > SIGNAL_MAX {
            return Err(Error::step("signal", "the sandbox", Errno::INVAL.into()));
        }
        if signal != 0 {
            self.step(ShimEvent::Exited(ExitStatus::Code(0)))?;
        }
        Ok(())
    }
}

/// What others may join, as the status shows it.
pub(crate) fn shown(namespaces: &[Held]) -> Vec<HeldNamespace> {
    namespaces
        .iter()
        .map(|held| HeldNamespace {
            kind: held.kind,
            descriptor: held.namespace.as_raw_fd().unsigned_abs(),
        })
        .collect()
}
