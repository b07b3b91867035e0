//! Specs, lowered by a program that goes again.
//!
//! What comes from containerd is JSON; JSON and seccomp compilation are `bosun-oci`'s, which lies
//! beside this program. Its `lower` verb gets the request on standard input, as it came, and answers
//! with the shim's own options on standard output; the plan it writes into the run directory.
//!
//! So with systemd's D-Bus, where that makes the control group: the helper has the scope made, and is
//! the process that keeps it until the container's own is in it.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use shim_wire::files::RunDir;
use shim_wire::id::Id;
use shim_wire::plan::{CreateOptions, ExecOptions, Resources};
use shim_wire::task::{CreateTaskRequest, ExecProcessRequest, UpdateTaskRequest};

use crate::args::Arguments;
use crate::error::Error;

const PROGRAM: &str = "bosun-oci";

/// How long it may take: milliseconds, on a machine that is not stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the making of a scope may take: more than the helper waits for systemd.
const PATIENCE_WITH_SYSTEMD: Duration = Duration::from_secs(40);

/// The most that is read of what it says.
const MAX_ANSWER: u64 = 4 << 20;

/// # Errors
/// What is wrong with the spec, the options or the mounts, by name.
pub(crate) fn create(
    arguments: &Arguments,
    request: &CreateTaskRequest,
) -> Result<CreateOptions, Error> {
    decode("options", &run("create", arguments, &request.encode_to_vec())?)
}

/// # Errors
/// What is wrong with the process, by name.
pub(crate) fn exec(
    arguments: &Arguments,
    request: &ExecProcessRequest,
) -> Result<ExecOptions, Error> {
    decode("spec", &run("exec", arguments, &request.encode_to_vec())?)
}

/// # Errors
/// What is wrong with the limits, by name.
pub(crate) fn update(
    arguments: &Arguments,
    request: &UpdateTaskRequest,
) -> Result<Resources, Error> {
    decode("resources", &run("update", arguments, &request.encode_to_vec())?)
}

fn decode<T: Message + Default>(field: &'static str, answer: &[u8]) -> Result<T, Error> {
    T::decode(answer).map_err(|source| Error::MalformedOptions { field, source })
}

fn run(what: &str, arguments: &Arguments, request: &[u8]) -> Result<Vec<u8>, Error> {
    Helper::new(arguments).run(what, request)
}

/// A process in a scope that systemd has made, until this is dropped.
#[derive(Debug)]
pub(crate) struct Keeper {
    child: Child,
    /// Its end is the process', should this program be killed.
    said: OwnedFd,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // It is ours, and was not waited for: neither can fail.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has systemd make the container's scope, if its group is one.
///
/// # Errors
/// systemd's, in its words.
pub(crate) fn make_scope(
    arguments: &Arguments,
    resources: Option<&Resources>,
) -> Result<Option<Keeper>, Error> {
    let helper = Helper::new(arguments);
    if !helper.has_scope() {
        return Ok(None);
    }
    let failed = |source| Error::step("run", helper.program.display().to_string(), source);
    let request = resources.map(Message::encode_to_vec).unwrap_or_default();
    let mut complaint = memory().map_err(failed)?;
    let copy = complaint.try_clone().map_err(failed)?;
    let (said, says) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
    // The writing end is the helper's alone once the command is gone.
    let started = helper.command("scope", &request).and_then(|mut command| {
        command.stdout(Stdio::from(says)).stderr(Stdio::from(copy)).spawn()
    });
    let mut keeper = Keeper { child: started.map_err(failed)?, said };
    let patience = Timespec { tv_sec: PATIENCE_WITH_SYSTEMD.as_secs() as i64, tv_nsec: 0 };
    let heard = poll(&mut [PollFd::new(&keeper.said, PollFlags::IN)], Some(&patience));
    if !matches!(heard, Ok(1..)) {
        return Err(failed(io::ErrorKind::TimedOut.into()));
    }
    // A byte, or the end of a helper that says why on standard error.
    if rustix::io::read(&keeper.said, &mut [0; 1]) == Ok(1) {
        return Ok(Some(keeper));
    }
    let status = keeper.child.wait().map_err(failed)?;
    Err(helper.complaint(status, &mut complaint))
}

/// Tells systemd the limits that the container's scope has now, if its group is one.
///
/// # Errors
/// systemd's, in its words.
pub(crate) fn tell_limits(arguments: &Arguments, resources: &Resources) -> Result<(), Error> {
    let helper = Helper::new(arguments);
    if !helper.has_scope() {
        return Ok(());
    }
    helper.run("limits", &resources.encode_to_vec()).map(drop)
}

/// What `bosun-oci lower` is told of its place.
#[derive(Debug)]
pub(crate) struct Helper<'a> {
    program: PathBuf,
    namespace: &'a Id,
    run: &'a RunDir,
}

impl<'a> Helper<'a> {
    pub(crate) fn new(arguments: &'a Arguments) -> Self {
        let program = arguments.lower.clone().unwrap_or_else(program);
        Self { program, namespace: &arguments.namespace, run: &arguments.run }
    }

    /// For whoever cleans up behind a shim.
    pub(super) fn behind(namespace: &'a Id, run: &'a RunDir) -> Self {
        Self { program: program(), namespace, run }
    }

    /// Whether systemd makes the container's group.
    fn has_scope(&self) -> bool {
        self.run.scope().exists()
    }

    /// Has systemd forget the container's scope, with all that is in it, if its group is one.
    ///
    /// # Errors
    /// systemd's, in its words.
    pub(crate) fn forget_scope(&self) -> Result<(), Error> {
        if !self.has_scope() {
            return Ok(());
        }
        self.run("forget", &[]).map(drop)
    }

    /// Runs it to its end, and what it answers.
    fn run(&self, what: &str, request: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |step| {
            let object = self.program.display().to_string();
            move |source| Error::step(step, object, source)
        };
        // Files in memory rather than pipes: nobody has to read while the other writes.
        let files = || -> io::Result<[File; 2]> { Ok([memory()?, memory()?]) };
        let [mut output, mut complaint] = files().map_err(failed("make files for"))?;
        let copies = output.try_clone().and_then(|output| Ok((output, complaint.try_clone()?)));
        let (stdout, stderr) = copies.map_err(failed("make files for"))?;
        let mut command = self.command(what, request).map_err(failed("make files for"))?;
        command.stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
        let status = finish(command).map_err(failed("run"))?;
        if status.success() {
            pass_on(&mut complaint);
            return content(&mut output).map_err(failed("read the answer of"));
        }
        Err(self.complaint(status, &mut complaint))
    }

    fn command(&self, what: &str, request: &[u8]) -> io::Result<Command> {
        let mut input = memory()?;
        input.write_all(request)?;
        input.rewind()?;
        let mut command = Command::new(&self.program);
        command
            .args(["lower", what, "--namespace", self.namespace.as_str()])
            .arg("--bundle")
            .arg(self.bundle())
            .arg("--run-dir")
            .arg(self.run.path())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(input));
        Ok(command)
    }

    /// Where containerd keeps the container's bundle: the run directory lies in it.
    fn bundle(&self) -> &Path {
        let run = self.run.path();
        run.parent().unwrap_or(run)
    }

    /// The error that it said before it ended.
    fn complaint(&self, status: ExitStatus, complaint: &mut File) -> Error {
        let failed = |step, source| Error::step(step, self.program.display().to_string(), source);
        let said = match content(complaint) {
            Ok(said) => said,
            Err(source) => return failed("read the answer of", source),
        };
        let said = String::from_utf8_lossy(&said);
        // It names itself first, for whoever reads it in a terminal.
        let said = said.trim().trim_start_matches(PROGRAM).trim_start_matches(": ");
        if said.is_empty() {
            return failed("run", io::Error::other(status.to_string()));
        }
        Error::Lowering { said: said.to_owned() }
    }
}

/// What it warned of goes where the shim's own messages go, which containerd reads.
fn pass_on(warnings: &mut File) {
    if let Ok(said) = content(warnings) {
        // When that can't be written there is nobody left to tell.
        let _ = io::stderr().write_all(&said);
    }
}

/// Runs it to its end.
fn finish(mut command: Command) -> io::Result<ExitStatus> {
    let mut child = command.spawn()?;
    let pid = Pid::from_child(&child);
    let ended = pidfd_open(pid, PidfdFlags::empty()).and_then(|pidfd| {
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience))
    });
    if !matches!(ended, Ok(1..)) {
        child.kill()?;
        child.wait()?;
        return Err(ended.err().map_or_else(|| io::ErrorKind::TimedOut.into(), io::Error::from));
    }
    child.wait()
}

fn memory() -> io::Result<File> {
    Ok(memfd_create("lower", MemfdFlags::CLOEXEC)?.into())
}

fn content(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(MAX_ANSWER).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Beside this program, wherever that was linked to. To be asked before the shim runs from where nobody
/// can write to it, which has no name.
pub(crate) fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name(PROGRAM)
}
