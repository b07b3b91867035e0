//! Starting processes: the container's first one in two steps, create and start, and execs in one.
//!
//! What is made on the way is undone when a later step fails: the clone is killed and waited for,
//! its cgroup emptied and removed. Directories and their files are the daemon's. The only waits are
//! for the child to be complete and for it to execute, milliseconds each, with deadlines.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use shim_cgroup::{Cgroup, Layout};
use shim_runtime::{Created, ExecTarget, Held, ProcessIo, Waiting};
use shim_wire::containerd::TaskIo;
use shim_wire::exec::{self, ExecEvent};
use shim_wire::hooks::HookKind;
use shim_wire::plan::{CREATE_OPTIONS, CreateOptions, ExecOptions, Foreign};
use shim_wire::task::CreateTaskRequest;

use crate::container::{Container, Init, KeptInput, OomKills, SIGKILL};
use crate::containerd::lower;
use crate::ends::Ends;
use crate::error::Error;
use crate::event_loop::{SECOND, Shim};
use crate::exit_record::Reserved;
use crate::log::Log;
use crate::process::{self, Child, Exec, ExecState, Key};
use crate::service::{decode_any, understood};
use crate::stdio::Stdio;
use crate::{clock, report, setup};

const CLONE_NEWPID: u64 = 0x2000_0000;

/// How long after a Create its client's end of standard input is opened, if no Start comes before.
const OPEN_STDIN_AFTER: u64 = SECOND / 10;

/// How long a clone that has to go may take to go.
const UNDO: Duration = Duration::from_secs(2);

impl Shim {
    /// Clones the container's first process, up to the point where it waits to be started. Its pid.
    ///
    /// # Errors
    /// Names the step that failed; nothing of it is left then.
    pub(crate) fn launch_container(&mut self, request: CreateTaskRequest) -> Result<u32, Error> {
        let (options, io) = self.lowered(&request)?;
        let own = understood().newest;
        if options.protocol > own {
            return Err(Error::NewerOrders { asked: options.protocol, own });
        }
        if let Some(sandbox) = &options.sandbox {
            return self.launch_sandbox(&options, sandbox, request.bundle).map(|()| 0);
        }
        let directory = &self.arguments.container;
        shim_failpoints::step!("shim.create.before_reserve", error);
        let reserved = Reserved::new(directory).map_err(|source| {
            let object = directory.path().display().to_string();
            Error::step("reserve the exit record in", object, source)
        })?;
        shim_failpoints::step!("shim.create.after_reserve", error);
        let log_options = options.log.clone().unwrap_or_default();
        let log = Log::open(&log_options)
            .map_err(|source| Error::Log { path: log_options.path.clone(), source })?;
        shim_failpoints::step!("shim.create.after_log", error);
        let cgroup = Cgroup::new(&Layout::detect()?, &options.cgroup)?;
        self.note_cgroup(&options.cgroup)?;
        let ends = match &io {
            Some(io) => {
                let io = TaskIo { stdin: String::new(), ..TaskIo::clone(io) };
                self.open_ends(&io, &request.id)?
            }
            None => Ends::default(),
        };
        let built = match &options.foreign {
            None => self.build(&options, &cgroup)?,
            Some(how) => self.have_built(&options, how)?,
        };
        let Built { pid, init, mut stdio, namespaces, mount_namespace } = built;
        stdio.ends = ends;
        // Those of a stock shim's container its runtime runs.
        let hooks = if options.foreign.is_none() { options.hooks } else { 0 };
        let late_stdin = io.as_ref().map(|io| io.stdin.clone()).unwrap_or_default();
        if !late_stdin.is_empty() {
            self.timers.feed = Some(clock::monotonic_ns() + OPEN_STDIN_AFTER);
        }
        self.container = Some(Container {
            attempt: options.attempt,
            pid,
            init,
            stdio,
            bundle: request.bundle,
            io,
            late_stdin,
            started_at: None,
            paused: false,
            earlier_oom_kills: OomKills::of(&cgroup),
            cgroup,
            restored: options
                .restore
                .as_ref()
                .map(|_| KeptInput { open: options.stdin, once: options.stdin_once }),
            own_pid_namespace: options.clone_flags & CLONE_NEWPID != 0,
            log,
            reserved,
            record: None,
            oom_noted: false,
            waiters: Vec::new(),
            failed_start: None,
            namespaces,
            mount_namespace: Some(mount_namespace),
            hooks,
        });
        Ok(pid)
    }

    /// What to make of a request, and under containerd, where its streams go.
    fn lowered(
        &self,
        request: &CreateTaskRequest,
    ) -> Result<(CreateOptions, Option<Box<TaskIo>>), Error> {
        if !self.is_containerds() {
            let options = decode_any(request.options.as_ref(), "options", CREATE_OPTIONS)?;
            return Ok((options, None));
        }
        let io = TaskIo {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        Ok((lower::create(&self.arguments, request)?, Some(Box::new(io))))
    }

    fn build(&self, options: &CreateOptions, cgroup: &Cgroup) -> Result<Built, Error> {
        let network = self.inherited.network_namespace.as_ref().map(AsFd::as_fd);
        // In the scope until the container's own process is.
        let keeper = match self.is_containerds() {
            true => lower::make_scope(&self.arguments, options.resources.as_ref())?,
            false => None,
        };
        let created = shim_runtime::create_kept(options, &self.arguments.run, network, keeper)
            .inspect_err(|_| self.forget_scope())?;
        shim_failpoints::step!("shim.create.before_identity", error);
        let pid = created.process.pid.unsigned_abs();
        let held = shim_runtime::namespaces_of(created.process.pid, options.held);
        let held = held.map_err(Error::from);
        let taken = held.and_then(|held| Ok((held, self.take_hold(&created.process, options)?)));
        match taken {
            Ok((namespaces, stdio)) => Ok(Built {
                pid,
                init: Init::Waiting(created.process),
                stdio,
                namespaces,
                mount_namespace: created.mount_namespace,
            }),
            Err(error) => {
                undo(created, cgroup);
                self.forget_scope();
                if options.hooks & HookKind::Poststop.bit() != 0
                    && let Err(error) = shim_runtime::hooks::poststop(&self.arguments.run)
                {
                    report("poststop", &error);
                }
                Err(error)
            }
        }
    }

    fn have_built(&mut self, options: &CreateOptions, how: &Foreign) -> Result<Built, Error> {
        let created = self.create_by_stock(options, how)?;
        if let Err(error) = self.note_identity(created.pid) {
            // A runtime whose processes are not this machine's.
            report("note the identity of the first process", &error);
        }
        Ok(Built {
            pid: created.pid,
            init: Init::Executed(Child::elsewhere(created.pid)),
            stdio: created.stdio,
            namespaces: Vec::new(),
            mount_namespace: created.mount_namespace,
        })
    }

    /// Takes over the streams of a clone, and notes which process it is.
    fn take_hold(&self, waiting: &Waiting, options: &CreateOptions) -> Result<Stdio, Error> {
        let stdio = match waiting.io {
            // A terminal that comes with the start.
            ProcessIo::Inherited if options.restore.is_some() => Ok(Stdio::none()),
            ref io @ (ProcessIo::Terminal { .. }
            | ProcessIo::Pipes { .. }
            | ProcessIo::Inherited) => streams(io, options.stdin, options.stdin_once),
        };
        let stdio =
            stdio.map_err(|source| Error::step("set up the streams of", "the task", source))?;
        self.note_identity(waiting.pid.unsigned_abs())?;
        shim_failpoints::step!("shim.create.after_identity");
        Ok(stdio)
    }

    fn note_identity(&self, pid: u32) -> Result<(), Error> {
        let path = self.arguments.run.init_identity();
        setup::identity_of(pid, &self.inherited.boot_id)
            .and_then(|identity| setup::write_identity(&path, &identity))
            .map_err(|source| Error::step("write", path.display().to_string(), source))
    }

    /// Writes the identity of a process that lives where it is gone.
    pub(crate) fn note_init_again(&self) -> Option<Result<(), Error>> {
        let pid = self.container.as_ref()?.pid;
        let is_needed = !self.has_ended(Key::INIT) && !self.arguments.run.init_identity().exists();
        is_needed.then(|| self.note_identity(pid))
    }

    /// Lets the container's first process go on to its program. Its pid.
    ///
    /// # Errors
    /// When there is no such program, or it can't be executed; the process has ended then.
    pub(crate) fn release_container(&mut self) -> Result<u32, Error> {
        if self.foreign.is_some() {
            let started = self.start_by_stock();
            let container = self.container.as_mut().ok_or(Error::NotCreated)?;
            if started.is_err() {
                container.init = Init::Failed;
            }
            container.started_at = Some(clock::now());
            return started;
        }
        let container = self.container.as_mut().ok_or(Error::NotCreated)?;
        match std::mem::replace(&mut container.init, Init::Failed) {
            Init::Waiting(mut waiting) => {
                shim_failpoints::step!("shim.start.before_exec", error);
                waiting.start()?;
                shim_failpoints::step!("shim.start.after_exec");
                if let Some(input) = container.restored {
                    self.take_over_restored(&mut waiting, input)?;
                }
                let container = self.container.as_mut().ok_or(Error::NotCreated)?;
                container.init = Init::Executed(Child::new(container.pid, waiting.pidfd));
                container.started_at = Some(clock::now());
                Ok(container.pid)
            }
            Init::Held => {
                container.init = Init::Held;
                container.started_at = Some(clock::now());
                Ok(0)
            }
            other @ (Init::Executed(_) | Init::Failed) => {
                container.init = other;
                Err(Error::Finished { process: "the task".to_owned() })
            }
        }
    }

    /// A restored container is there with its start: its first process, its mounts, and its terminal
    /// if it has one.
    fn take_over_restored(
        &mut self,
        restored: &mut Waiting,
        input: KeptInput,
    ) -> Result<(), Error> {
        let pid = restored.pid.unsigned_abs();
        let taken = self.note_identity(pid).and_then(|()| {
            let stdio = match &restored.io {
                ProcessIo::Terminal { .. } => Some(streams(&restored.io, input.open, input.once)),
                ProcessIo::Pipes { .. } | ProcessIo::Inherited => None,
            };
            let stdio = stdio
                .transpose()
                .map_err(|source| Error::step("set up the streams of", "the task", source))?;
            Ok((stdio, shim_runtime::mount_namespace_of(restored.pid)?))
        });
        let (stdio, mount_namespace) = taken.inspect_err(|_| {
            let _ = process::signal(restored.pidfd.as_fd(), SIGKILL);
        })?;
        let container = self.container.as_mut().ok_or(Error::NotCreated)?;
        container.pid = pid;
        container.mount_namespace = Some(mount_namespace);
        if let Some(mut stdio) = stdio {
            stdio.ends = std::mem::take(&mut container.stdio.ends);
            container.stdio = stdio;
        }
        Ok(())
    }

    /// Starts an exec that was created. Its pid.
    ///
    /// # Errors
    /// When it was started before, the container does not run, or the process can't be started.
    pub(crate) fn start_exec(&mut self, id: &str) -> Result<u32, Error> {
        let may_begin = exec::may_begin(self.state);
        let exec = self.exec_named(id)?;
        let (ExecState::Created(options), Ok(_)) =
            (&exec.state, exec.phase().step(ExecEvent::Started))
        else {
            let why = "it has been started before";
            return Err(Error::ExecNotStartable { id: id.to_owned(), why });
        };
        if !may_begin {
            let why = "the container is not running";
            return Err(Error::ExecNotStartable { id: id.to_owned(), why });
        }
        let (options, key, io) = (options.clone(), exec.key, exec.io.clone());
        let ends = match &io {
            Some(io) => self.open_ends(io, id)?,
            None => Ends::default(),
        };
        if self.container.as_ref().is_some_and(|container| container.paused) {
            // It would stand still before its program.
            let why = "the container is paused";
            return Err(Error::ExecNotStartable { id: id.to_owned(), why });
        }
        let (child, mut stdio) = match self.foreign {
            None => self.join_container(id, &options)?,
            Some(_) => {
                let (pid, stdio) = self.exec_by_stock(id, key, &options)?;
                (Child::elsewhere(pid), stdio)
            }
        };
        let pid = child.pid;
        let exec = self.execs.iter_mut().find(|exec| exec.key == key);
        if let Some(Exec { state, .. }) = exec {
            stdio.ends = ends;
            *state = ExecState::Running { child, stdio };
        }
        self.obey_all(key);
        Ok(pid)
    }

    fn join_container(&self, id: &str, options: &ExecOptions) -> Result<(Child, Stdio), Error> {
        let container = self.container.as_ref().ok_or(Error::NotCreated)?;
        let init = container.pidfd().ok_or(Error::NotCreated)?;
        let target = ExecTarget { init, cgroup: container.cgroup.path() };
        let mut started = shim_runtime::exec(options, &target)?;
        let stdio = streams(&started.io, options.stdin, true)
            .map_err(|source| Error::step("set up the streams of exec", id, source))?;
        started.start()?;
        shim_failpoints::step!("shim.exec.after_exec");
        Ok((Child::new(started.pid.unsigned_abs(), started.pidfd), stdio))
    }
}

/// A container up to the point where its first process waits.
struct Built {
    pid: u32,
    init: Init,
    stdio: Stdio,
    /// Those that a sandbox holds.
    namespaces: Vec<Held>,
    mount_namespace: OwnedFd,
}

/// The shim's own descriptors of a process' streams; those of the runtime close with it.
fn streams(io: &ProcessIo, stdin: bool, once: bool) -> std::io::Result<Stdio> {
    match io {
        ProcessIo::Terminal { master } => Stdio::terminal(master.try_clone()?, stdin, once),
        ProcessIo::Pipes { stdin, stdout, stderr } => {
            let stdin = stdin.as_ref().map(OwnedFd::try_clone).transpose()?;
            Stdio::pipes(stdin, stdout.try_clone()?, stderr.try_clone()?, once)
        }
        // The shim's own are no container's.
        ProcessIo::Inherited => Err(std::io::ErrorKind::Unsupported.into()),
    }
}

/// Takes a clone away that can't be kept, and its cgroup.
fn undo(created: Created, cgroup: &Cgroup) {
    let deadline = Instant::now() + UNDO;
    let pidfd = created.process.pidfd.as_fd();
    let _ = process::signal(pidfd, SIGKILL);
    if let Err(error) = cgroup.kill(deadline) {
        report("undo a create", &error);
    }
    let _ = process::reap(pidfd);
    drop(created);
    if let Err(error) = cgroup.remove(deadline) {
        report("undo a create", &error);
    }
}
