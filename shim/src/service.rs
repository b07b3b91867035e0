//! The calls: containerd's task API (v2 and v3 are the same messages) and `bosun.shim.v1.Shim`.
//!
//! A call is answered at once, or, for Wait, when its process has ended, and for what a helper does,
//! when that is done. Starting processes is [`launch`](crate::launch)'s, checkpoints are
//! [`checkpoint`](crate::checkpoint)'s.

use prost::Message;
use shim_cgroup::Metrics;
use shim_wire::containerd::{
    EVENTS_SERVICE, FORWARD, PROCESS_DETAILS, ProcessDetails, TaskCreate, TaskExecAdded,
    TaskExecStarted, TaskIo, TaskPaused, TaskResumed, TaskStart,
};
use shim_wire::exec::{self, ExecEvent};
use shim_wire::exit::ExitStatus;
use shim_wire::id::Id;
use shim_wire::lifecycle::{ShimEvent, ShimState};
use shim_wire::metrics::{v1, v2};
use shim_wire::plan::{EXEC_OPTIONS, ExecOptions, RESOURCES, Resources};
use shim_wire::protocol::{self, Versions};
use shim_wire::shim::{self, ReleaseRequest, StatusResponse};
use shim_wire::task::{
    Any, CloseIoRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, DeleteResponse,
    Empty, ExecProcessRequest, KillRequest, PidsResponse, ProcessInfo, ProcessRequest,
    ResizePtyRequest, SERVICES, ShutdownRequest, StartResponse, StateResponse, StatsResponse,
    Status, TaskRequest, UpdateTaskRequest, WaitResponse,
};
use shim_wire::ttrpc::{Request, Response};

use crate::container::{Container, Init};
use crate::containerd::lower;
use crate::ends::Ends;
use crate::error::Error;
use crate::event_loop::Shim;
use crate::process::{Exec, ExecState, Exit, Key, Waiter};
use crate::sandbox::shown;
use crate::stdio::Stdio;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a call comes to.
enum Answer {
    Now(Response),
    /// When the process has ended; the caller is on its list.
    Later,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self::Now(response)
    }
}

type Outcome = Result<Answer, Error>;

impl Shim {
    /// Does what a request asks for; `None` when it is answered later.
    pub(crate) fn call(&mut self, from: Waiter, request: &Request) -> Option<Response> {
        let outcome = if SERVICES.contains(&request.service.as_str()) {
            self.task_call(from, request)
        } else if request.service == shim::SERVICE {
            self.shim_call(request)
        } else if self.foreign.is_some() && request.service == EVENTS_SERVICE {
            self.event(request)
        } else {
            Err(unknown(request))
        };
        match outcome {
            Ok(Answer::Now(response)) => Some(response),
            Ok(Answer::Later) => None,
            Err(error) => Some(error.response()),
        }
    }

    fn task_call(&mut self, from: Waiter, request: &Request) -> Outcome {
        if self.forward(from, request)? {
            return Ok(Answer::Later);
        }
        match request.method.as_str() {
            "Create" => self.create(from, decode(request)?),
            "Start" => self.start(from, &decode(request)?),
            "State" => self.state(&decode(request)?),
            "Wait" => self.wait_for(from, &decode(request)?),
            "Kill" => self.kill(&decode(request)?),
            "Exec" => self.exec_create(decode(request)?),
            "Delete" => self.delete(from, &decode(request)?),
            "ResizePty" => self.resize_pty(&decode(request)?),
            "CloseIO" => self.close_io(&decode(request)?),
            "Pids" => self.pids(&decode(request)?),
            "Stats" => self.stats(&decode(request)?),
            "Update" => self.update(&decode(request)?),
            "Checkpoint" => {
                self.checkpoint(from, decode(request)?)?;
                Ok(Answer::Later)
            }
            "Pause" => self.pause(&decode(request)?, true),
            "Resume" => self.pause(&decode(request)?, false),
            "Connect" => self.connect(&decode(request)?),
            "Shutdown" => self.shutdown(&decode(request)?),
            _ => Err(unknown(request)),
        }
    }

    fn shim_call(&mut self, request: &Request) -> Outcome {
        match request.method.as_str() {
            "Status" => self.status(),
            "Release" => self.release(decode(request)?),
            "ReopenLog" => self.reopen_log(),
            _ => Err(unknown(request)),
        }
    }
}

/// What a stock shim publishes.
impl Shim {
    fn event(&mut self, request: &Request) -> Outcome {
        match request.method.as_str() {
            FORWARD => self.note_event(&decode(request)?),
            _ => return Err(unknown(request)),
        }
        Ok(Response::ok(&Empty {}).into())
    }
}

fn unknown(request: &Request) -> Error {
    Error::UnknownMethod { service: request.service.clone(), method: request.method.clone() }
}

fn decode<T: Message + Default>(request: &Request) -> Result<T, Error> {
    T::decode(request.payload.as_slice())
        .map_err(|source| Error::Malformed { method: request.method.clone(), source })
}

/// What this shim understands of its daemon.
pub(crate) fn understood() -> Versions {
    Versions {
        oldest: shim_failpoints::number("shim.protocol.oldest", protocol::OWN.oldest),
        newest: shim_failpoints::number("shim.protocol.newest", protocol::OWN.newest),
    }
}

/// The message in an Any of the type `expected`.
pub(crate) fn decode_any<T: Message + Default>(
    any: Option<&Any>,
    field: &'static str,
    expected: &str,
) -> Result<T, Error> {
    let (type_url, value) = any.map_or(("", &[][..]), |any| (&any.type_url, &any.value));
    if type_url != expected {
        return Err(Error::OptionsType { field, type_url: type_url.to_owned() });
    }
    T::decode(value).map_err(|source| Error::MalformedOptions { field, source })
}

/// The life of the task.
impl Shim {
    fn create(&mut self, from: Waiter, request: CreateTaskRequest) -> Outcome {
        self.check_id(&request.id)?;
        if self.container.is_some() {
            return Err(Error::AlreadyCreated);
        }
        let rootfs = request.rootfs.clone();
        let checkpoint = request.checkpoint.clone();
        let pid = self.launch_container(request).inspect_err(|_| {
            self.failed_create = Some(from.connection);
            self.forget_cgroup();
        })?;
        self.step(ShimEvent::Created)?;
        self.watch_oom();
        let container = self.container.as_ref();
        let bundle = container.map(|container| container.bundle.clone()).unwrap_or_default();
        let io = container.and_then(|container| container.io.as_deref().cloned());
        self.announce(|container_id| TaskCreate {
            container_id,
            bundle,
            rootfs,
            io,
            checkpoint,
            pid,
        });
        Ok(Response::ok(&CreateTaskResponse { pid }).into())
    }

    fn start(&mut self, from: Waiter, request: &ProcessRequest) -> Outcome {
        self.task(&request.id)?;
        let pid = match request.exec_id.as_str() {
            "" => {
                // A start that is not possible must not reach the process.
                self.state.step(ShimEvent::Started)?;
                let pid = match self.release_container() {
                    Ok(pid) => pid,
                    Err(error) => {
                        let answer = self.start_failed(from, error.response());
                        return Ok(answer.map_or(Answer::Later, Answer::Now));
                    }
                };
                self.step(ShimEvent::Started)?;
                self.open_feed();
                self.announce(|container_id| TaskStart { container_id, pid });
                if self.run_poststart(from, pid)? {
                    return Ok(Answer::Later);
                }
                pid
            }
            id => {
                let pid = self.start_exec(id)?;
                let exec_id = id.to_owned();
                self.announce(|container_id| TaskExecStarted { container_id, exec_id, pid });
                pid
            }
        };
        Ok(Response::ok(&StartResponse { pid }).into())
    }

    /// A container that never ran is bosund's to undo. containerd's clients wait for its end, and
    /// remove it when they have the answer, which therefore comes behind that. Gives the response back
    /// when there is nothing to wait for.
    fn start_failed(&mut self, from: Waiter, response: Response) -> Option<Response> {
        let contained = self.is_containerds();
        match &mut self.container {
            Some(container) if contained && matches!(container.init, Init::Failed) => {
                container.failed_start = Some(Box::new((from, response)));
                self.advance(ShimEvent::Exited(ExitStatus::Unknown));
                None
            }
            Some(_) | None => self.run_poststop(from, response),
        }
    }

    fn wait_for(&mut self, from: Waiter, request: &ProcessRequest) -> Outcome {
        self.task(&request.id)?;
        let exit = match request.exec_id.as_str() {
            "" => self.exit(),
            id => self.exec_named(id)?.exit(),
        };
        if let Some(exit) = exit {
            let exit_status = exit.status.number().into();
            let response = WaitResponse { exit_status, exited_at: Some(exit.at.into()) };
            return Ok(Response::ok(&response).into());
        }
        match request.exec_id.as_str() {
            "" => self.task_mut(&request.id)?.waiters.push(from),
            id => self.exec_named(id)?.waiters.push(from),
        }
        Ok(Answer::Later)
    }

    fn delete(&mut self, from: Waiter, request: &ProcessRequest) -> Outcome {
        self.task(&request.id)?;
        let (pid, exit) = match request.exec_id.as_str() {
            "" => {
                let not_stopped = Error::NotStopped { process: "the task".to_owned() };
                let exit = self.exit().ok_or(not_stopped)?;
                self.remove_cgroup()?;
                (self.task(&request.id)?.pid, exit)
            }
            id => self.delete_exec(id)?,
        };
        let response = DeleteResponse {
            pid,
            exit_status: exit.status.number().into(),
            exited_at: Some(exit.at.into()),
        };
        let response = Response::ok(&response);
        if !request.exec_id.is_empty() {
            return Ok(response.into());
        }
        let answer = self.run_poststop(from, response);
        self.let_go(pid, exit);
        Ok(answer.map_or(Answer::Later, Answer::Now))
    }

    fn delete_exec(&mut self, id: &str) -> Result<(u32, Exit), Error> {
        let exec = self.exec_named(id)?;
        let (key, pid) = (exec.key, exec.pid());
        if exec.phase().step(ExecEvent::Delete).is_err() {
            return Err(Error::NotStopped { process: format!("exec {id:?}") });
        }
        // One that was never started ends by never beginning.
        let never = Exit { status: ExitStatus::Code(0), at: crate::clock::now() };
        let exit = exec.exit().unwrap_or(never);
        if let Some(index) = self.execs.iter().position(|exec| exec.key == key) {
            let mut exec = self.execs.swap_remove(index);
            let waiters = std::mem::take(&mut exec.waiters);
            self.answer_exit(waiters, exit);
            self.end_clients(key);
            self.forget_by_stock(&exec.id);
            self.execs.extend(exec.deleted());
        }
        Ok((pid, exit))
    }

    fn shutdown(&mut self, request: &ShutdownRequest) -> Outcome {
        match self.state {
            ShimState::Empty => self.step(ShimEvent::Abandoned)?,
            ShimState::Recorded(_) if request.now => self.step(ShimEvent::Release)?,
            // As containerd has it: a shim that still has a task stays.
            ShimState::Created
            | ShimState::Running
            | ShimState::Draining(_)
            | ShimState::Recording(_)
            | ShimState::Recorded(_) => {}
            ShimState::Released => {
                self.containerd.iter_mut().for_each(|it| it.awaits_shutdown = false);
            }
        }
        Ok(Response::ok(&Empty {}).into())
    }

    fn release(&mut self, request: ReleaseRequest) -> Outcome {
        let own = self.container.as_ref().map_or(0, |container| container.attempt);
        if request.attempt != own {
            return Err(Error::OtherAttempt { asked: request.attempt, own });
        }
        self.step(ShimEvent::Release)?;
        Ok(Response::ok(&Empty {}).into())
    }
}

/// What is asked and told.
impl Shim {
    fn state(&mut self, request: &ProcessRequest) -> Outcome {
        let response = match request.exec_id.as_str() {
            "" => self.task_state(&request.id)?,
            id => {
                self.task(&request.id)?;
                let id = id.to_owned();
                let exec = self.exec_named(&id)?;
                exec_state(exec, &request.id)
            }
        };
        Ok(Response::ok(&response).into())
    }

    fn task_state(&self, id: &str) -> Result<StateResponse, Error> {
        let container = self.task(id)?;
        let status = match self.state {
            ShimState::Empty => Status::Unknown,
            ShimState::Created => Status::Created,
            ShimState::Running if container.paused => Status::Paused,
            // Nothing is told of an exit before its record is durable.
            ShimState::Running | ShimState::Draining(_) | ShimState::Recording(_) => {
                Status::Running
            }
            ShimState::Recorded(_) | ShimState::Released => Status::Stopped,
        };
        let exit = self.exit();
        let io = container.io.as_deref().cloned().unwrap_or_default();
        Ok(StateResponse {
            id: id.to_owned(),
            bundle: container.bundle.clone(),
            pid: container.pid,
            status: status as i32,
            stdin: io.stdin,
            stdout: io.stdout,
            stderr: io.stderr,
            terminal: container.stdio.is_terminal(),
            exit_status: exit.map_or(0, |exit| exit.status.number().into()),
            exited_at: exit.map(|exit| exit.at.into()),
            exec_id: String::new(),
        })
    }

    fn status(&mut self) -> Outcome {
        let container = self.container.as_ref();
        let execs = self.execs.iter().filter(|exec| !exec.id.is_empty());
        let log = container.and_then(|container| container.log.as_ref());
        let versions = understood();
        let response = StatusResponse {
            phase: self.state.phase() as i32,
            attempt: container.map_or(0, |container| container.attempt),
            pid: container.map_or(0, |container| container.pid),
            started_at: container.and_then(|container| container.started_at).map(Into::into),
            execs: execs.map(|exec| exec.id.clone()).collect(),
            attached: u32::try_from(self.clients.len()).unwrap_or(u32::MAX),
            log_bytes_lost: log.map_or(0, crate::log::Log::bytes_lost),
            version: VERSION.to_owned(),
            oldest_protocol: versions.oldest,
            newest_protocol: versions.newest,
            paused: container.is_some_and(|container| container.paused),
            namespaces: container.map_or_else(Vec::new, |container| shown(&container.namespaces)),
        };
        Ok(Response::ok(&response).into())
    }

    fn stats(&mut self, request: &TaskRequest) -> Outcome {
        let (type_url, value) = match self.with_processes(&request.id)?.cgroup.metrics()? {
            Metrics::V1(metrics) => (v1::METRICS, metrics.encode_to_vec()),
            Metrics::V2(metrics) => (v2::METRICS, metrics.encode_to_vec()),
        };
        let stats = Some(Any { type_url: type_url.to_owned(), value });
        Ok(Response::ok(&StatsResponse { stats }).into())
    }

    fn pids(&mut self, request: &TaskRequest) -> Outcome {
        let container = self.task(&request.id)?;
        let pids = match container.init {
            Init::Held => Vec::new(),
            Init::Waiting(_) | Init::Executed(_) | Init::Failed => container.cgroup.procs()?,
        };
        let processes = pids
            .into_iter()
            .filter_map(|pid| u32::try_from(pid).ok())
            .map(|pid| ProcessInfo { pid, info: self.details(pid) })
            .collect();
        Ok(Response::ok(&PidsResponse { processes }).into())
    }

    /// What else is known of a process: that it is an exec's first one.
    fn details(&self, pid: u32) -> Option<Any> {
        let exec = self.execs.iter().find(|exec| exec.pid() == pid && !exec.id.is_empty())?;
        let details = ProcessDetails { exec_id: exec.id.clone() };
        Some(Any::of(PROCESS_DETAILS, &details))
    }

    fn connect(&mut self, request: &TaskRequest) -> Outcome {
        self.check_id(&request.id)?;
        let response = ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: self.container.as_ref().map_or(0, |container| container.pid),
            version: VERSION.to_owned(),
        };
        Ok(Response::ok(&response).into())
    }
}

/// What is done to processes and their streams.
impl Shim {
    fn kill(&mut self, request: &KillRequest) -> Outcome {
        self.task(&request.id)?;
        if request.exec_id.is_empty() {
            self.kill_task(request)?;
        } else {
            let id = request.exec_id.clone();
            let exec = self.exec_named(&id)?;
            match &exec.state {
                ExecState::Running { child, .. } => {
                    let finished = || Error::Finished { process: format!("exec {id:?}") };
                    let pidfd = child.pidfd().ok_or_else(finished)?;
                    let signalled = crate::process::signal(pidfd, request.signal);
                    signalled.map_err(|errno| kill_error(format!("exec {id:?}"), errno))?;
                }
                ExecState::Created(_) => {
                    return Err(Error::NotStarted { process: format!("exec {id:?}") });
                }
                ExecState::Draining { .. }
                | ExecState::Exited { .. }
                | ExecState::Deleted { .. } => {
                    return Err(Error::Finished { process: format!("exec {id:?}") });
                }
            }
        }
        Ok(Response::ok(&Empty {}).into())
    }

    fn kill_task(&mut self, request: &KillRequest) -> Result<(), Error> {
        let living = matches!(self.state, ShimState::Created | ShimState::Running);
        let container = self.task_mut(&request.id)?;
        if living && matches!(container.init, Init::Held) {
            return self.signal_sandbox(request.signal);
        }
        if request.all {
            return container.signal_all(request.signal);
        }
        let Some(pidfd) = container.pidfd().filter(|_| living) else {
            return Err(Error::Finished { process: "the task".to_owned() });
        };
        let signalled = crate::process::signal(pidfd, request.signal);
        signalled.map_err(|errno| kill_error("the task".to_owned(), errno))?;
        if request.signal == crate::container::SIGKILL {
            // A frozen process does not die.
            container.freeze(false)?;
        }
        Ok(())
    }

    fn exec_create(&mut self, request: ExecProcessRequest) -> Outcome {
        self.task(&request.id)?;
        let id = request.exec_id.clone();
        if let Err(source) = id.parse::<Id>() {
            return Err(Error::InvalidExecId { id, source });
        }
        if self.exec_by_id(&id).is_some() {
            return Err(Error::ExecExists { id });
        }
        if !exec::may_begin(self.state) {
            let why = "the container is not running";
            return Err(Error::ExecNotStartable { id, why });
        }
        if self.container.as_ref().is_some_and(|container| matches!(container.init, Init::Held)) {
            let why = "a sandbox has no processes";
            return Err(Error::ExecNotStartable { id, why });
        }
        let options: ExecOptions = match self.is_containerds() {
            true => lower::exec(&self.arguments, &request)?,
            false => decode_any(request.spec.as_ref(), "spec", EXEC_OPTIONS)?,
        };
        let ExecProcessRequest { stdin, stdout, stderr, terminal, .. } = request;
        let io = TaskIo { stdin, stdout, stderr, terminal };
        let io = self.is_containerds().then(|| Box::new(io));
        let key = Key::exec(self.next_serial());
        let state = ExecState::Created(Box::new(options));
        self.execs.push(Exec { key, id: id.clone(), state, waiters: Vec::new(), io });
        self.announce(|container_id| TaskExecAdded { container_id, exec_id: id });
        Ok(Response::ok(&Empty {}).into())
    }

    fn resize_pty(&mut self, request: &ResizePtyRequest) -> Outcome {
        let (width, height) = (request.width, request.height);
        let (Ok(columns), Ok(rows)) = (u16::try_from(width), u16::try_from(height)) else {
            return Err(Error::WindowSize { width, height });
        };
        let (key, process) = self.key_of(&request.id, &request.exec_id)?;
        let Some(stdio) = self.stdio(key) else { return Err(Error::NotStarted { process }) };
        if !stdio.is_terminal() {
            return Err(Error::NoTerminal { process });
        }
        stdio
            .resize(columns, rows)
            .map_err(|errno| Error::step("resize the terminal of", process, errno.into()))?;
        Ok(Response::ok(&Empty {}).into())
    }

    fn close_io(&mut self, request: &CloseIoRequest) -> Outcome {
        let (key, _) = self.key_of(&request.id, &request.exec_id)?;
        if request.stdin {
            if key == Key::INIT {
                self.open_feed();
            }
            match self.stdio_mut(key) {
                // Clients may still have something in it.
                Some(Stdio { ends: Ends { feed: Some(feed), .. }, .. }) => feed.close(),
                Some(Stdio { input: Some(input), .. }) => input.close(),
                Some(_) | None => {}
            }
            self.flush_input(key);
        }
        Ok(Response::ok(&Empty {}).into())
    }

    fn pause(&mut self, request: &TaskRequest, pause: bool) -> Outcome {
        if self.state != ShimState::Running {
            self.task(&request.id)?;
            return Err(Error::NotStarted { process: "the task".to_owned() });
        }
        self.with_processes(&request.id)?;
        let container = self.task_mut(&request.id)?;
        shim_failpoints::step!("shim.pause.before_freeze", error);
        container.freeze(pause)?;
        shim_failpoints::step!("shim.pause.after_freeze");
        match pause {
            true => self.announce(|container_id| TaskPaused { container_id }),
            false => self.announce(|container_id| TaskResumed { container_id }),
        }
        Ok(Response::ok(&Empty {}).into())
    }

    fn update(&mut self, request: &UpdateTaskRequest) -> Outcome {
        self.with_processes(&request.id)?;
        if !matches!(self.state, ShimState::Created | ShimState::Running) {
            return Err(Error::Finished { process: "the task".to_owned() });
        }
        let resources: Resources = match self.is_containerds() {
            true => lower::update(&self.arguments, request)?,
            false => decode_any(request.resources.as_ref(), "resources", RESOURCES)?,
        };
        self.task(&request.id)?.cgroup.update(&resources)?;
        if self.is_containerds() {
            lower::tell_limits(&self.arguments, &resources)?;
        }
        Ok(Response::ok(&Empty {}).into())
    }

    fn reopen_log(&mut self) -> Outcome {
        let container = self.container.as_mut().ok_or(Error::NotCreated)?;
        if let Some(log) = &mut container.log {
            log.reopen().map_err(|source| Error::Log { path: log.path(), source })?;
        }
        Ok(Response::ok(&Empty {}).into())
    }
}

/// Finding what a call names.
impl Shim {
    fn check_id(&self, id: &str) -> Result<(), Error> {
        let own = self.arguments.id.as_str();
        match id == own {
            true => Ok(()),
            false => Err(Error::OtherTask { asked: id.to_owned(), own: own.to_owned() }),
        }
    }

    pub(crate) fn task(&self, id: &str) -> Result<&Container, Error> {
        self.check_id(id)?;
        self.container.as_ref().ok_or(Error::NotCreated)
    }

    /// The same of one that has a cgroup, which goes with its processes.
    fn with_processes(&self, id: &str) -> Result<&Container, Error> {
        let container = self.task(id)?;
        match container.init {
            Init::Held => Err(Error::NoProcesses),
            Init::Waiting(_) | Init::Executed(_) | Init::Failed => Ok(container),
        }
    }

    fn task_mut(&mut self, id: &str) -> Result<&mut Container, Error> {
        self.check_id(id)?;
        self.container.as_mut().ok_or(Error::NotCreated)
    }

    pub(crate) fn exec_named(&mut self, id: &str) -> Result<&mut Exec, Error> {
        self.exec_by_id(id).ok_or_else(|| Error::NoSuchExec { id: id.to_owned() })
    }

    /// The key of a process and how messages name it.
    fn key_of(&mut self, id: &str, exec_id: &str) -> Result<(Key, String), Error> {
        self.task(id)?;
        match exec_id {
            "" => Ok((Key::INIT, "the task".to_owned())),
            exec_id => Ok((self.exec_named(exec_id)?.key, format!("exec {exec_id:?}"))),
        }
    }

    /// How the task ended, once that may be told.
    fn exit(&self) -> Option<Exit> {
        match self.state {
            ShimState::Recorded(_) | ShimState::Released => {
                let record = self.container.as_ref()?.record.as_ref()?;
                Some(Exit { status: record.status, at: record.exited_at })
            }
            ShimState::Empty
            | ShimState::Created
            | ShimState::Running
            | ShimState::Draining(_)
            | ShimState::Recording(_) => None,
        }
    }
}

fn exec_state(exec: &Exec, task: &str) -> StateResponse {
    let status = match &exec.state {
        ExecState::Created(_) => Status::Created,
        ExecState::Running { .. } | ExecState::Draining { .. } => Status::Running,
        ExecState::Exited { .. } | ExecState::Deleted { .. } => Status::Stopped,
    };
    let exit = exec.exit();
    let io = exec.io.as_deref().cloned().unwrap_or_default();
    StateResponse {
        id: task.to_owned(),
        exec_id: exec.id.clone(),
        pid: exec.pid(),
        status: status as i32,
        stdin: io.stdin,
        stdout: io.stdout,
        stderr: io.stderr,
        terminal: exec.stdio().map_or(io.terminal, crate::stdio::Stdio::is_terminal),
        exit_status: exit.map_or(0, |exit| exit.status.number().into()),
        exited_at: exit.map(|exit| exit.at.into()),
        ..StateResponse::default()
    }
}

fn kill_error(process: String, errno: rustix::io::Errno) -> Error {
    match errno {
        rustix::io::Errno::SRCH => Error::Finished { process },
        other => Error::step("signal", process, other.into()),
    }
}
