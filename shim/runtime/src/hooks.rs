//! Hooks: programs that run at points of a container's life (runtime-spec, `runtime.md`).
//!
//! ```text
//!  prestart, createRuntime   helper of the parent    all is mounted, the old root is still the root
//!  createContainer           child                   the same moment, in the container's namespaces
//!  startContainer            child                   start was asked for; as who the container runs
//!  poststart                 helper of the parent    the program is executed
//!  poststop                  helper of the parent    the container is gone
//! ```
//!
//! What the parent has to run it leaves to a helper, a clone of itself, whose memory goes with it. One
//! hook runs after the other. When its time is over, its process group is killed, and whatever descends
//! from it, for who runs hooks is given their orphans. The first that fails ends it, but for poststop, of which all run.
//!
//! Those of the child run in the container's control group, and count there. `pids.limit`, in either of
//! the two ways to say it, holds from the end of createContainer on; a startContainer hook is one process
//! of the container's more.
//!
//! Deliberately absent: an environment beyond the one a hook names, and descriptors beyond 0 to 2.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use prost::Message as _;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, Mode};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, set_child_subreaper,
    set_parent_process_death_signal, waitid, waitpid,
};
use shim_sys::clone::{Cloned, clone3};
use shim_sys::exec::{close_on_exec_from, execve, exit_now};
use shim_wire::files::RunDir;
use shim_wire::hooks::{Hook, HookKind, Hooks};

use crate::channel::{Channel, Message, timespec};
use crate::command::c_string;
use crate::create::hide_from_others;
use crate::error::{At, HookProblem};
use crate::process::{SETUP_SECONDS, Unfinished};
use crate::procfs::Procfs;
use crate::state::{self, Status};
use crate::{Error, Rule, Step};

/// How long a hook may take that says nothing of it.
const PATIENCE: u32 = 60;
/// What a process that was told to end, and who reports it, may take for it.
const GRACE: u64 = 5;
/// How much of what a hook says an error tells.
const TAIL: usize = 400;

const UMASK: u32 = 0o022;

/// Runs the hooks of some kinds in the caller's namespaces, in order, and returns when they have
/// ended. `pid` is the container's first process as the caller sees it.
///
/// # Errors
/// [`Error::Hook`], and what keeps hooks from being run at all.
pub fn run(
    run_dir: &RunDir,
    kinds: &[HookKind],
    status: Status,
    pid: Option<i32>,
) -> Result<(), Error> {
    begin(run_dir, kinds, status, pid)?.wait()
}

/// As [`run`], for a caller that has something else to do meanwhile.
///
/// # Errors
/// When there can be no helper.
pub fn begin(
    run_dir: &RunDir,
    kinds: &[HookKind],
    status: Status,
    pid: Option<i32>,
) -> Result<Running, Error> {
    Running::helper("the hooks", |parent| {
        let hooks = read(run_dir)?;
        announce(parent, &hooks, kinds)?;
        let done = run_kinds(&hooks, kinds, status, pid, |_| Ok(()));
        if kinds.contains(&HookKind::Poststop) {
            // They run once, whoever asks next.
            let _ = std::fs::remove_file(run_dir.hooks());
        }
        done
    })
}

/// Runs what is to run when a container is gone; does nothing when that was done before, or there is
/// nothing to run.
///
/// # Errors
/// As [`run`]; the container is gone all the same.
pub fn poststop(run_dir: &RunDir) -> Result<(), Error> {
    if !run_dir.hooks().exists() {
        return Ok(());
    }
    run(run_dir, &[HookKind::Poststop], Status::Stopped, None)
}

/// A helper at work. Dropping it kills it, and what it runs.
#[derive(Debug)]
pub struct Running {
    helper: Unfinished,
    deadline: Instant,
}

impl Running {
    /// Does something in a clone of this process, which ends with it.
    pub(crate) fn helper(
        name: &'static str,
        work: impl FnOnce(&Channel) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let (ours, theirs) = Channel::pair().at(Step::Channel, "a socket")?;
        hide_from_others()?;
        match clone3(0, None).at(Step::Clone, name)? {
            Cloned::Child => {
                drop(ours);
                help(&theirs, work)
            }
            Cloned::Parent { pid, pidfd } => {
                let deadline = Instant::now() + Duration::from_secs(SETUP_SECONDS);
                Ok(Self { helper: Unfinished::new(pid, pidfd, ours), deadline })
            }
        }
    }

    /// Readable when there is something to [`poll`](Self::poll).
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.helper.gate().map(AsFd::as_fd)
    }

    /// When the helper is overdue.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What came of it; `None` while it goes on. To be called when the descriptor is readable or the
    /// deadline is over; waits for nothing.
    pub fn poll(&mut self) -> Option<Result<(), Error>> {
        self.next(Instant::now())
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// What came of it, or [`Error::TimedOut`].
    pub fn wait(mut self) -> Result<(), Error> {
        loop {
            if let Some(result) = self.next(self.deadline) {
                return result;
            }
        }
    }

    fn next(&mut self, until: Instant) -> Option<Result<(), Error>> {
        let Some(gate) = self.helper.gate() else { return Some(Err(Error::Ended)) };
        match gate.receive_until(until) {
            Ok(Some(Message::Working { seconds })) => {
                self.deadline = Instant::now() + Duration::from_secs(seconds);
                None
            }
            Ok(Some(Message::Ready)) => Some(Ok(())),
            Ok(Some(Message::Failed(error))) => Some(Err(error)),
            Ok(_) => Some(Err(Error::Ended)),
            Err(Errno::TIMEDOUT) if Instant::now() < self.deadline => None,
            Err(Errno::TIMEDOUT) => Some(Err(Error::TimedOut)),
            Err(errno) => Some(Err(errno).at(Step::Channel, "the helper")),
        }
    }
}

/// The helper's side.
fn help(parent: &Channel, work: impl FnOnce(&Channel) -> Result<(), Error>) -> ! {
    // Without a parent nobody looks after the hooks.
    let orphaned = set_parent_process_death_signal(Some(Signal::KILL)).is_err();
    if orphaned || parent.is_abandoned() {
        exit_now(1);
    }
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(parent)));
    let message = match result {
        Ok(Ok(())) => Message::Ready,
        Ok(Err(error)) => Message::Failed(error),
        Err(_) => Message::Failed(Error::Ended),
    };
    let _ = parent.send(&message);
    exit_now(0)
}

/// The hooks of a container that has some.
pub(crate) fn read(run_dir: &RunDir) -> Result<Hooks, Error> {
    let path = run_dir.hooks();
    let bytes = std::fs::read(&path).map_err(|error| Error::System {
        step: Step::ReadPlan,
        object: path.display().to_string(),
        errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
    })?;
    Hooks::decode(bytes.as_slice()).map_err(|_| Error::refused(path.display(), Rule::MalformedPlan))
}

/// Runs, in the child of a new container, those that run before its rootfs is the root: the parent's,
/// then its own.
pub(crate) fn before_pivot(hooks: &Hooks, parent: &Channel) -> Result<(), Error> {
    parent.send(&Message::Assembled).at(Step::Channel, "the parent")?;
    match parent.receive().at(Step::Channel, "the parent")? {
        Some(Message::GoOn) => {}
        Some(_) => return Err(Errno::BADMSG).at(Step::Channel, "the parent"),
        None => exit_now(1),
    }
    within(hooks, HookKind::CreateContainer, Status::Creating, parent, |_| Ok(()))
}

/// Runs, in the child, those of one kind. `become_user` is what each does before it executes.
pub(crate) fn within(
    hooks: &Hooks,
    kind: HookKind,
    status: Status,
    parent: &Channel,
    become_user: impl Fn(&Channel) -> Result<(), Error>,
) -> Result<(), Error> {
    announce(parent, hooks, &[kind])?;
    let pid = rustix::process::getpid().as_raw_pid();
    run_kinds(hooks, &[kind], status, Some(pid), become_user)
}

/// Says how long it may take.
fn announce(parent: &Channel, hooks: &Hooks, kinds: &[HookKind]) -> Result<(), Error> {
    let each = kinds.iter().flat_map(|kind| hooks.of(*kind));
    let seconds = each.fold(SETUP_SECONDS, |sum, hook| sum + u64::from(time_of(hook)) + GRACE);
    let message = Message::Working { seconds };
    parent.send(&message).at(Step::Channel, "the parent")
}

fn time_of(hook: &Hook) -> u32 {
    if hook.timeout == 0 { PATIENCE } else { hook.timeout }
}

fn run_kinds(
    hooks: &Hooks,
    kinds: &[HookKind],
    status: Status,
    pid: Option<i32>,
    become_user: impl Fn(&Channel) -> Result<(), Error>,
) -> Result<(), Error> {
    let none = shim_wire::hooks::State::default();
    let state = state::json(hooks.state.as_ref().unwrap_or(&none), status, pid);
    let mut first = Ok(());
    for kind in kinds {
        for (index, hook) in hooks.of(*kind).enumerate() {
            let name = format!("hooks.{}[{index}] {:?}", kind.name(), hook.path);
            let result = run_one(hook, &name, state.as_bytes(), &become_user);
            match kind {
                HookKind::Poststop => first = first.and(result),
                HookKind::Prestart
                | HookKind::CreateRuntime
                | HookKind::CreateContainer
                | HookKind::StartContainer
                | HookKind::Poststart => result?,
            }
        }
    }
    first
}

/// Runs one to its end.
fn run_one(
    hook: &Hook,
    name: &str,
    state: &[u8],
    become_user: impl Fn(&Channel) -> Result<(), Error>,
) -> Result<(), Error> {
    let deadline = Instant::now() + Duration::from_secs(time_of(hook).into());
    let orphans = Orphans::take_in();
    let input = in_memory(state).at(Step::HookInput, name)?;
    let (output, theirs) = pipe_with(PipeFlags::CLOEXEC).at(Step::Pipe, name)?;
    let (gate, childs) = Channel::pair().at(Step::Channel, "a socket")?;
    let (pid, pidfd) = match clone3(0, None).at(Step::Clone, name)? {
        Cloned::Child => {
            drop((gate, output));
            let Err(error) = execute(hook, &input, &theirs, || become_user(&childs));
            let _ = childs.send(&Message::Failed(error));
            exit_now(127)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((childs, theirs, input));
    let failed =
        |problem, output: String| Err(Error::Hook { hook: name.to_owned(), problem, output });
    match gate.receive_until(deadline) {
        Ok(None) => {}
        Ok(Some(Message::Failed(Error::System { step: Step::Exec, errno, .. }))) => {
            end(pid, &pidfd);
            return failed(HookProblem::NotExecuted(errno), String::new());
        }
        Ok(Some(Message::Failed(error))) => {
            end(pid, &pidfd);
            return Err(error);
        }
        Ok(Some(_)) | Err(_) => {
            end(pid, &pidfd);
            orphans.end();
            return failed(HookProblem::TimedOut(time_of(hook)), String::new());
        }
    }
    let mut tail = Tail::default();
    let in_time = watch(&pidfd, &output, &mut tail, deadline);
    if !in_time {
        end(pid, &pidfd);
        orphans.end();
        return failed(HookProblem::TimedOut(time_of(hook)), tail.text());
    }
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    let status = status.at(Step::Clone, name)?;
    match status.and_then(|status| {
        let code = status.exit_status().map(HookProblem::ExitCode);
        code.or_else(|| status.terminating_signal().map(HookProblem::Signal))
    }) {
        Some(HookProblem::ExitCode(0)) => Ok(()),
        Some(problem) => failed(problem, tail.text()),
        None => Err(Error::Ended),
    }
}

/// In the clone: becomes the hook.
fn execute(
    hook: &Hook,
    input: &OwnedFd,
    output: &OwnedFd,
    become_user: impl FnOnce() -> Result<(), Error>,
) -> Result<Infallible, Error> {
    let name = &hook.path;
    rustix::process::setsid().at(Step::Session, name)?;
    rustix::stdio::dup2_stdin(input).at(Step::Stdio, name)?;
    rustix::stdio::dup2_stdout(output).at(Step::Stdio, name)?;
    rustix::stdio::dup2_stderr(output).at(Step::Stdio, name)?;
    close_on_exec_from(3).at(Step::Descriptors, name)?;
    shim_sys::signal::reset();
    rustix::process::umask(Mode::from_raw_mode(UMASK));
    let path = c_string(name)?;
    let strings = |texts: &[String]| -> Result<Vec<CString>, Error> {
        texts.iter().map(|text| c_string(text)).collect()
    };
    let arguments = if hook.args.is_empty() { vec![path.clone()] } else { strings(&hook.args)? };
    let environment = strings(&hook.env)?;
    set_parent_process_death_signal(Some(Signal::KILL)).at(Step::DeathSignal, name)?;
    become_user()?;
    Err(execve(&path, &arguments, &environment)).at(Step::Exec, name)
}

/// Something to be read to its end, that never keeps who writes it waiting.
pub(crate) fn in_memory(bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let file = rustix::fs::memfd_create("state", MemfdFlags::CLOEXEC)?;
    let mut written = 0;
    while written < bytes.len() {
        written += rustix::io::pwrite(&file, &bytes[written..], written as u64)?;
    }
    Ok(file)
}

/// Reads what a process says until it ends. Whether it did in time; what it left behind may go on to
/// hold the pipe.
fn watch(pidfd: &OwnedFd, output: &OwnedFd, tail: &mut Tail, deadline: Instant) -> bool {
    let mut open = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let interest = if open { PollFlags::IN } else { PollFlags::empty() };
        let mut ready = [PollFd::new(pidfd, PollFlags::IN), PollFd::new(output, interest)];
        let descriptors = if open { &mut ready[..] } else { &mut ready[..1] };
        match poll(descriptors, Some(&timespec(left))) {
            Ok(0) => return false,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return false,
        }
        let [ended, spoke] = ready.map(|ready| !ready.revents().is_empty());
        if spoke {
            open = tail.read(output);
        } else if ended {
            return true;
        }
        if left.is_zero() {
            return ended;
        }
    }
}

/// Ends a process and what it started, and reaps it.
fn end(pid: i32, pidfd: &OwnedFd) {
    // It leads a group of its own, or has not got so far.
    let _ = shim_sys::signal::kill(-pid, Signal::KILL.as_raw());
    crate::process::end(pidfd);
}

/// Descendants of a hook that lost their parent: they come to this process while this is there, in
/// whatever session they are.
struct Orphans {
    /// What earlier hooks left, on purpose.
    earlier: Vec<i32>,
}

impl Orphans {
    fn take_in() -> Self {
        // Without it only those of the hook's own group are found.
        let _ = set_child_subreaper(Some(rustix::process::getpid()));
        Self { earlier: children() }
    }

    /// Ends them all: with each that goes, its children come.
    fn end(&self) {
        let deadline = Instant::now() + Duration::from_secs(GRACE) / 2;
        while Instant::now() < deadline {
            let mut left = children();
            left.retain(|pid| !self.earlier.contains(pid));
            if left.is_empty() {
                return;
            }
            for pid in left.into_iter().filter_map(Pid::from_raw) {
                // It is a child, so its number is its own until it is waited for.
                let _ = kill_process(pid, Signal::KILL);
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Orphans {
    fn drop(&mut self) {
        // It would stay with the program that this process becomes.
        let _ = set_child_subreaper(None);
    }
}

/// The children of this process. None where the kernel does not tell (CONFIG_PROC_CHILDREN).
fn children() -> Vec<i32> {
    let pid = rustix::process::getpid().as_raw_pid();
    let read = |procfs: Procfs| procfs.read(&format!("{pid}/task/{pid}/children")).ok();
    let text = Procfs::private().ok().and_then(read).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// The last of what was said.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    /// Reads once; whether there may be more.
    fn read(&mut self, from: &OwnedFd) -> bool {
        let mut bytes = [0; 4096];
        match rustix::io::read(from, &mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                self.0.extend(&bytes[..count]);
                let excess = self.0.len().saturating_sub(TAIL);
                self.0.drain(..excess);
                true
            }
            Err(errno) => errno == Errno::INTR,
        }
    }

    /// On one line.
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let printable = |char: char| if char.is_control() { ' ' } else { char };
        text.trim().chars().map(printable).collect()
    }
}
