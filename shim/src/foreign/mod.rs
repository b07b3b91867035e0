//! Containers that a stock shim runs in this one's stead: bosund drives `containerd-shim-runc-v2`
//! and its like.
//!
//! ```text
//!   bosund ── ttrpc ──▶ this shim ── ttrpc, as a client ──▶ stock shim ──▶ runc, crun, …
//!                       log, attach, ports, exit record  ◀── FIFOs, Wait
//! ```
//!
//! This shim stays the owner of all that outlives a daemon, so that recovery, logs and the exit
//! protocol are the same for every container. The stock shim starts and signals processes, and tells
//! when they end.
//!
//! | module | owns |
//! |---|---|
//! | `place` | the cgroup and the mount namespace that both shims share |
//! | `start`, `answer` | starting a stock shim, in the three generations of that call |
//! | `call` | the connection to it |
//! | `streams` | FIFOs |
//!
//! ```text
//!   Create ─▶ start ─▶ Task/Create ─▶ Wait (pending)      Start ─▶ Task/Start
//!   Wait answers ─▶ output drained ─▶ exit.json ─▶ told ─▶ Release ─▶ Task/Delete, Shutdown, gone
//!   connection ends ─▶ status unknown, the rest killed by the cgroup ─▶ … ─▶ `delete` verb
//! ```
//!
//! Calls that build a process block the loop, as they do for containers of our own; whatever else is
//! asked of a stock shim is answered when it answers.

mod answer;
mod call;
mod error;
mod place;
mod start;
mod streams;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use prost::Message;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use shim_wire::containerd::{Event, ForwardRequest, TaskOom};
use shim_wire::exit::ExitStatus;
use shim_wire::files::Bundle;
use shim_wire::lifecycle::ShimState;
use shim_wire::plan::{CreateOptions, ExecOptions, Foreign};
use shim_wire::task::{
    Any, CloseIoRequest, CreateTaskRequest, CreateTaskResponse, Empty, ExecProcessRequest,
    ProcessRequest, ResizePtyRequest, ShutdownRequest, StartResponse, WaitResponse,
};
use shim_wire::ttrpc::{Code, Request, Response};

use call::Connection;
pub(crate) use error::Error;
use start::Launch;
use streams::Fifos;

use crate::error::Error as ShimError;
use crate::event_loop::Shim;
use crate::process::{ExecState, Key, Waiter};
use crate::report;
use crate::stdio::Stdio;

/// How long a stock shim has for building a process: less than the daemon waits for this one.
const BUILD: Duration = Duration::from_secs(25);
/// How long what it left has to end.
const LEAVE: Duration = Duration::from_secs(5);

/// Between two looks at what is about to end.
const PAUSE: Duration = Duration::from_millis(1);

/// What a process is to be, as containerd's clients send it: JSON.
const OCI_PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// Calls that mean to a stock shim what they mean to this one.
const FORWARDED: [&str; 7] =
    ["Kill", "Pids", "Pause", "Resume", "ResizePty", "Stats", "Checkpoint"];

/// Who an answer of the stock shim is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// The call that waits for it in place.
    Caller,
    /// A process has ended.
    Exit(Key),
    /// A client of this shim; `pauses` when its success changes that.
    Client {
        waiter: Waiter,
        pauses: Option<bool>,
    },
    /// The container is forgotten.
    Deleted,
    Nobody,
}

/// The stock shim of this shim's container.
#[derive(Debug)]
pub(crate) struct Stock {
    connection: Connection,
    program: PathBuf,
    bundle: Bundle,
    /// It has a task, which it wants to be told to forget.
    has_task: bool,
    /// It was told to go.
    dismissed: bool,
    /// Its end was noted.
    lost: bool,
}

/// A container's first process that waits to be started.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) pid: u32,
    pub(crate) stdio: Stdio,
    /// The one that both shims are in.
    pub(crate) mount_namespace: OwnedFd,
}

impl Stock {
    pub(crate) fn poll(&self) -> Option<PollFd<'_>> {
        let interest = self.connection.interest();
        let socket = self.connection.socket();
        (!interest.is_empty()).then(|| PollFd::from_borrowed_fd(socket, interest))
    }

    /// Whether there is something to do without waiting.
    pub(crate) fn has_news(&self) -> bool {
        self.connection.has_arrived() || (self.connection.has_ended() && !self.lost)
    }

    fn wait(&mut self, id: &str, exec_id: &str, key: Key) {
        let request = process(id, exec_id).encode_to_vec();
        self.connection.send("Wait", request, Expect::Exit(key));
    }
}

fn process(id: &str, exec_id: &str) -> ProcessRequest {
    ProcessRequest { id: id.to_owned(), exec_id: exec_id.to_owned() }
}

/// Building.
impl Shim {
    /// Starts a stock shim and has it create the container.
    ///
    /// # Errors
    /// Names the step, or is the stock shim's own. This shim is of no further use then.
    pub(crate) fn create_by_stock(
        &mut self,
        options: &CreateOptions,
        how: &Foreign,
    ) -> Result<Created, ShimError> {
        let bundle = self.arguments.run.bundle();
        let network = self.inherited.network_namespace.as_ref().map(AsFd::as_fd);
        let mount_namespace = place::enter(self.arguments.cgroup.as_deref(), &bundle, network)?;
        shim_failpoints::step!("shim.stock.before_launch", error);
        let program = PathBuf::from(&how.shim);
        let launch = self.launch_of(&program, &bundle, how.options.as_ref());
        let (socket, version) = launch.start()?;
        let connection = Connection::new(socket, self.arguments.namespace.as_str(), version)
            .map_err(|source| Error::step("set up the connection to", &how.shim, source))?;
        let stock =
            Stock { connection, program, bundle, has_task: false, dismissed: false, lost: false };
        let stock = self.foreign.insert(Box::new(stock));
        shim_failpoints::step!("shim.stock.after_launch", error);
        let id = self.arguments.id.as_str();
        let fifos = Fifos::make(&stock.bundle, "", options.stdin, options.terminal)
            .map_err(|source| Error::step("make the streams of", "the task", source))?;
        let [stdin, stdout, stderr] = fifos.paths();
        let request = CreateTaskRequest {
            id: id.to_owned(),
            bundle: stock.bundle.path().display().to_string(),
            rootfs: how.rootfs.clone(),
            terminal: options.terminal,
            stdin,
            stdout,
            stderr,
            options: how.options.clone(),
            ..CreateTaskRequest::default()
        };
        shim_failpoints::step!("shim.stock.before_create", error);
        let created: CreateTaskResponse = stock.connection.call("Create", &request, BUILD)?;
        stock.has_task = true;
        shim_failpoints::step!("shim.stock.after_create", error);
        stock.wait(id, "", Key::INIT);
        let stdio = fifos
            .streams(options.stdin_once)
            .map_err(|source| Error::step("open the streams of", "the task", source))?;
        if options.terminal && options.width > 0 {
            self.resize_by_stock("", options.width, options.height);
        }
        Ok(Created { pid: created.pid, stdio, mount_namespace })
    }

    fn launch_of<'a>(
        &'a self,
        program: &'a Path,
        bundle: &'a Bundle,
        options: Option<&'a Any>,
    ) -> Launch<'a> {
        Launch {
            shim: program,
            namespace: self.arguments.namespace.as_str(),
            id: self.arguments.id.as_str(),
            bundle,
            address: self.arguments.sockets.shim(),
            options,
        }
    }

    /// Lets the container's first process go on to its program. Its pid.
    ///
    /// # Errors
    /// The stock shim's own.
    pub(crate) fn start_by_stock(&mut self) -> Result<u32, ShimError> {
        let Some(stock) = &mut self.foreign else { return Err(ShimError::NotCreated) };
        let request = process(self.arguments.id.as_str(), "");
        shim_failpoints::step!("shim.stock.before_start", error);
        let started: StartResponse = stock.connection.call("Start", &request, BUILD)?;
        shim_failpoints::step!("shim.stock.after_start");
        Ok(started.pid)
    }

    /// Starts a further process. Its pid and its streams.
    ///
    /// # Errors
    /// The stock shim's own; nothing of it is left then.
    pub(crate) fn exec_by_stock(
        &mut self,
        exec_id: &str,
        key: Key,
        options: &ExecOptions,
    ) -> Result<(u32, Stdio), ShimError> {
        let Some(stock) = &mut self.foreign else { return Err(ShimError::NotCreated) };
        let id = self.arguments.id.as_str();
        let terminal = options.process.as_ref().is_some_and(|process| process.terminal);
        let fifos = Fifos::make(&stock.bundle, exec_id, options.stdin, terminal)
            .map_err(|source| Error::step("make the streams of exec", exec_id, source))?;
        let [stdin, stdout, stderr] = fifos.paths();
        let request = ExecProcessRequest {
            id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            terminal,
            stdin,
            stdout,
            stderr,
            spec: Some(Any {
                type_url: OCI_PROCESS.to_owned(),
                value: options.oci_process.clone(),
            }),
        };
        shim_failpoints::step!("shim.stock.before_exec", error);
        let _: Empty = stock.connection.call("Exec", &request, BUILD)?;
        shim_failpoints::step!("shim.stock.after_exec");
        let request = process(id, exec_id);
        let started: Result<StartResponse, Error> = stock.connection.call("Start", &request, BUILD);
        let started = match started {
            Ok(started) => started,
            Err(error) => {
                self.forget_by_stock(exec_id);
                return Err(error.into());
            }
        };
        shim_failpoints::step!("shim.stock.after_exec_start");
        stock.wait(id, exec_id, key);
        let stdio = fifos
            .streams(true)
            .map_err(|source| Error::step("open the streams of exec", exec_id, source))?;
        if terminal && options.width > 0 {
            self.resize_by_stock(exec_id, options.width, options.height);
        }
        Ok((started.pid, stdio))
    }
}

/// What is asked of it without waiting.
impl Shim {
    /// Hands a call on whose answer is the stock shim's; `false` when this shim answers itself.
    ///
    /// # Errors
    /// When there is no process any more that it could be about.
    pub(crate) fn forward(&mut self, waiter: Waiter, request: &Request) -> Result<bool, ShimError> {
        let Some(stock) = &mut self.foreign else { return Ok(false) };
        if !FORWARDED.contains(&request.method.as_str()) {
            return Ok(false);
        }
        match self.state {
            ShimState::Created | ShimState::Running => {}
            ShimState::Empty => return Err(ShimError::NotCreated),
            ShimState::Draining(_)
            | ShimState::Recording(_)
            | ShimState::Recorded(_)
            | ShimState::Released => {
                return Err(ShimError::Finished { process: "the task".to_owned() });
            }
        }
        let pauses = match request.method.as_str() {
            "Pause" => Some(true),
            "Resume" => Some(false),
            _ => None,
        };
        let expect = Expect::Client { waiter, pauses };
        stock.connection.send(&request.method, request.payload.clone(), expect);
        Ok(true)
    }

    /// Sets the window of a process' terminal.
    pub(crate) fn resize_by_stock(&mut self, exec_id: &str, width: u32, height: u32) {
        let id = self.arguments.id.to_string();
        let request = ResizePtyRequest { id, exec_id: exec_id.to_owned(), width, height };
        self.ask_stock("ResizePty", &request);
    }

    /// Tells it that a process' input has ended.
    pub(crate) fn close_input_by_stock(&mut self, key: Key) {
        let Some(exec_id) = self.exec_id_of(key) else { return };
        let request = CloseIoRequest { id: self.arguments.id.to_string(), exec_id, stdin: true };
        self.ask_stock("CloseIO", &request);
    }

    /// Has it forget an exec.
    pub(crate) fn forget_by_stock(&mut self, exec_id: &str) {
        let request = process(self.arguments.id.as_str(), exec_id);
        self.ask_stock("Delete", &request);
    }

    fn ask_stock(&mut self, method: &str, request: &impl Message) {
        if let Some(stock) = &mut self.foreign {
            stock.connection.send(method, request.encode_to_vec(), Expect::Nobody);
        }
    }

    /// The id by which calls name a process; empty for the first.
    fn exec_id_of(&self, key: Key) -> Option<String> {
        match key {
            Key::INIT => Some(String::new()),
            key => self.exec(key).map(|exec| exec.id.clone()),
        }
    }
}

/// What it says.
impl Shim {
    pub(crate) fn serve_stock(&mut self, flags: PollFlags) {
        let Some(stock) = &mut self.foreign else { return };
        if flags.contains(PollFlags::OUT) {
            stock.connection.flush();
        }
        if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            stock.connection.receive();
        }
    }

    /// Acts on what has arrived, also while another call was waited for.
    pub(crate) fn obey_stock(&mut self) {
        while let Some((expect, response)) =
            self.foreign.as_mut().and_then(|stock| stock.connection.next_arrived())
        {
            match expect {
                Expect::Exit(key) => self.process_ended(key, status_of(&response)),
                Expect::Client { waiter, pauses } => {
                    let done = response.status.as_ref().is_none_or(|status| status.code == 0);
                    if let (Some(container), Some(paused), true) =
                        (&mut self.container, pauses, done)
                    {
                        container.paused = paused;
                    }
                    self.answer(waiter, &response);
                }
                Expect::Deleted => {
                    if let Some(status) = response.status.filter(|status| status.code != 0) {
                        report("have the stock shim forget its task", &Error::refused(&status));
                    }
                    self.shut_stock_down();
                }
                Expect::Nobody | Expect::Caller => {}
            }
        }
        let lost = self.foreign.as_mut().is_some_and(|stock| {
            stock.connection.has_ended() && !std::mem::replace(&mut stock.lost, true)
        });
        if lost {
            self.stock_lost();
        }
    }

    /// It is gone, and took what it knew of ends along: they are unknown, and what it left is killed.
    fn stock_lost(&mut self) {
        reap_what_it_left();
        if let Some(stock) = &mut self.foreign {
            for expect in stock.connection.give_up() {
                if let Expect::Client { waiter, .. } = expect {
                    let gone = Error::Gone { method: "the call" };
                    self.answer(waiter, &ShimError::from(gone).response());
                }
            }
        }
        if self.state == ShimState::Released {
            return;
        }
        if let Some(container) = &mut self.container {
            // Nobody says any more that its end is the end of everything in it.
            container.own_pid_namespace = false;
        }
        let running = |state: &ExecState| matches!(state, ExecState::Running { .. });
        let execs = self.execs.iter().filter(|exec| running(&exec.state));
        let keys: Vec<Key> = execs.map(|exec| exec.key).collect();
        if matches!(self.state, ShimState::Created | ShimState::Running) {
            report("the stock shim", &Error::Gone { method: "Wait" });
            self.process_ended(Key::INIT, ExitStatus::Unknown);
        }
        for key in keys {
            self.process_ended(key, ExitStatus::Unknown);
        }
    }

    /// An event that it publishes. Most are known already; that memory ran out is not, where the
    /// container's cgroup is not this machine's.
    pub(crate) fn note_event(&mut self, request: &ForwardRequest) {
        let topic = request.envelope.as_ref().map(|envelope| envelope.topic.as_str());
        if let (Some(TaskOom::TOPIC), Some(container)) = (topic, &mut self.container) {
            container.oom_noted = true;
        }
    }

    /// The container is done with: the stock shim forgets it, then goes. Its events are answered on the
    /// way, or it would wait for that.
    pub(crate) fn dismiss_stock(&mut self) {
        let Some(stock) = self.foreign.as_mut().filter(|stock| !stock.lost) else { return };
        shim_failpoints::step!("shim.stock.before_delete");
        stock.dismissed = true;
        if std::mem::take(&mut stock.has_task) {
            let request = process(self.arguments.id.as_str(), "").encode_to_vec();
            stock.connection.send("Delete", request, Expect::Deleted);
        } else {
            self.shut_stock_down();
        }
    }

    fn shut_stock_down(&mut self) {
        shim_failpoints::step!("shim.stock.before_shutdown");
        let request = ShutdownRequest { id: self.arguments.id.to_string(), now: true };
        self.ask_stock("Shutdown", &request);
    }

    /// Whether it has still to go before this shim may.
    pub(crate) fn awaits_stock(&self) -> bool {
        self.foreign.as_ref().is_some_and(|stock| !stock.lost)
    }

    /// The last act: what it left is waited for, and cleaned up when it could not do so itself.
    pub(crate) fn bury_stock(&mut self) {
        let Some(stock) = self.foreign.take() else { return };
        shim_failpoints::step!("shim.stock.before_burial");
        if !stock.dismissed {
            let launch = self.launch_of(&stock.program, &stock.bundle, None);
            if let Err(error) = launch.delete() {
                report("clean up after the stock shim", &error);
            }
        }
        // Whoever else reaped it would be the daemon, which does not know it.
        let end = Instant::now() + LEAVE;
        while !reap_what_it_left() && Instant::now() < end {
            std::thread::sleep(PAUSE);
        }
    }
}

/// How a process ended, as far as a stock shim tells: by a number that does not tell a signal from a
/// code.
fn status_of(response: &Response) -> ExitStatus {
    if response.status.as_ref().is_some_and(|status| status.code != Code::Ok as i32) {
        return ExitStatus::Unknown;
    }
    let number = WaitResponse::decode(response.payload.as_slice()).map(|wait| wait.exit_status);
    number
        .ok()
        .and_then(|number| u8::try_from(number).ok())
        .map_or(ExitStatus::Unknown, ExitStatus::Code)
}

/// Waits for children that have ended: whatever a stock shim left, and itself. This shim starts none
/// but the verbs of stock shims, each of which it waits for in place. Whether there are no more.
pub(crate) fn reap_what_it_left() -> bool {
    loop {
        match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}
