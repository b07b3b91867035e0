//! Specs, lowered by a program that goes again.
//!
//! What comes from containerd is JSON; JSON and seccomp compilation are `bosun-oci`'s, which lies
//! beside this program. Its `lower` verb gets the request on standard input, as it came, and answers
//! with the shim's own options on standard output; the plan it writes into the run directory.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use shim_wire::plan::{CreateOptions, ExecOptions, Resources};
use shim_wire::task::{CreateTaskRequest, ExecProcessRequest, UpdateTaskRequest};

use crate::args::Arguments;
use crate::error::Error;

const PROGRAM: &str = "bosun-oci";

/// How long it may take: milliseconds, on a machine that is not stuck.
const PATIENCE: Duration = Duration::from_secs(20);

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
    let program = arguments.lower.clone().unwrap_or_else(program);
    let failed = |step| {
        let object = program.display().to_string();
        move |source| Error::step(step, object, source)
    };
    // Files in memory rather than pipes: nobody has to read while the other writes.
    let files = || -> io::Result<[File; 3]> { Ok([memory()?, memory()?, memory()?]) };
    let [mut input, mut output, mut complaint] = files().map_err(failed("make files for"))?;
    input.write_all(request).and_then(|()| input.rewind()).map_err(failed("make files for"))?;
    let mut command = Command::new(&program);
    command
        .args(["lower", what, "--namespace", arguments.namespace.as_str()])
        .arg("--bundle")
        .arg(bundle(arguments))
        .arg("--run-dir")
        .arg(arguments.run.path())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(input));
    let copies = output.try_clone().and_then(|output| Ok((output, complaint.try_clone()?)));
    let (stdout, stderr) = copies.map_err(failed("make files for"))?;
    command.stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
    let status = finish(command).map_err(failed("run"))?;
    if status.success() {
        return content(&mut output).map_err(failed("read the answer of"));
    }
    let said = content(&mut complaint).map_err(failed("read the answer of"))?;
    let said = String::from_utf8_lossy(&said);
    // It names itself first, for whoever reads it in a terminal.
    let said = said.trim().trim_start_matches(PROGRAM).trim_start_matches(": ");
    if said.is_empty() {
        return Err(failed("run")(io::Error::other(status.to_string())));
    }
    Err(Error::Lowering { said: said.to_owned() })
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

/// Where containerd keeps the container's bundle: the run directory lies in it.
fn bundle(arguments: &Arguments) -> &Path {
    let run = arguments.run.path();
    run.parent().unwrap_or(run)
}

/// Beside this program, wherever that was linked to. To be asked before the shim runs from where nobody
/// can write to it, which has no name.
pub(crate) fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name(PROGRAM)
}
