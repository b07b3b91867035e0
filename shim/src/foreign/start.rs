//! Starting a stock shim, and having it clean up after one that died.
//!
//! The older way of the start call is tried first: shims up to containerd 2.3, and so all that Debian
//! has, understand it, and one of 2.4 refuses it at once. The other way round, each start of a shim of
//! 1.6 would cost a failed one.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use shim_wire::containerd::{BootstrapParams, Extension};
use shim_wire::files::Bundle;
use shim_wire::task::Any;

use super::answer::{self, Answer};
use super::error::Error;

/// How long a verb of a stock shim may take.
const VERB: Duration = Duration::from_secs(10);

/// Where runtimes are found by name, as an administrator's shell has it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The newest task API that this side speaks.
const MAX_VERSION: &str = "3";

/// Every start of a process of others has this umask; the shim's own is tighter.
const UMASK: u32 = 0o022;

/// What a stock shim is started with.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) shim: &'a Path,
    pub(super) namespace: &'a str,
    pub(super) id: &'a str,
    pub(super) bundle: &'a Bundle,
    /// Where its events go: this shim's own socket.
    pub(super) address: PathBuf,
    pub(super) options: Option<&'a Any>,
}

impl Launch<'_> {
    /// Starts it and connects.
    ///
    /// # Errors
    /// What it wrote when it did not start; that it listens where nobody can go.
    pub(super) fn start(&self) -> Result<(UnixStream, u32), Error> {
        let Answer { socket, version } = self.ask()?;
        let connected = UnixStream::connect(&socket);
        let connected = connected.map_err(|e| self.failed("connect to", &socket, e))?;
        Ok((connected, version))
    }

    fn ask(&self) -> Result<Answer, Error> {
        let older = self.options.map(Message::encode_to_vec).unwrap_or_default();
        let first = self.verb("start", &older)?;
        if first.status.success() {
            return self.understood(&first.stdout);
        }
        let second = self.verb("start", &self.params().encode_to_vec())?;
        if second.status.success() {
            return self.understood(&second.stdout);
        }
        let said = format!("{}; and in the newer way: {}", said(&first), said(&second));
        Err(Error::NotStarted { shim: self.shim.display().to_string(), said })
    }

    fn understood(&self, bytes: &[u8]) -> Result<Answer, Error> {
        answer::parse(bytes).map_err(|unusable| {
            let shim = self.shim.display().to_string();
            Error::Unusable { shim, unusable }
        })
    }

    fn params(&self) -> BootstrapParams {
        let extensions = self.options.iter().map(|any| Extension { value: Some((*any).clone()) });
        BootstrapParams {
            instance_id: self.id.to_owned(),
            namespace: self.namespace.to_owned(),
            containerd_ttrpc_address: self.address.display().to_string(),
            containerd_grpc_address: self.address.display().to_string(),
            containerd_binary: own_program(),
            extensions: extensions.collect(),
            ..BootstrapParams::default()
        }
    }

    /// Has the program clean up what a shim that died left.
    pub(super) fn delete(&self) -> Result<(), Error> {
        let output = self.verb("delete", &[])?;
        match output.status.success() {
            true => Ok(()),
            false => Err(Error::NotStarted {
                shim: format!("{} delete", self.shim.display()),
                said: said(&output),
            }),
        }
    }

    fn verb(&self, verb: &str, input: &[u8]) -> Result<Output, Error> {
        let mut command = Command::new(self.shim);
        command
            .args(["-namespace", self.namespace, "-id", self.id])
            .arg("-address")
            .arg(&self.address)
            .args(["-publish-binary", &own_program()]);
        if verb == "delete" {
            command.arg("-bundle").arg(self.bundle.path());
        }
        command
            .arg(verb)
            .env_clear()
            .env("PATH", PATH)
            .env("TTRPC_ADDRESS", &self.address)
            .env("GRPC_ADDRESS", &self.address)
            .env("NAMESPACE", self.namespace)
            .env("MAX_SHIM_VERSION", MAX_VERSION)
            // As containerd has it: a supervisor needs no thread for each processor.
            .env("GOMAXPROCS", "2")
            .current_dir(self.bundle.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let failed = |step, error| self.failed(step, self.shim, error);
        let mut child = spawn(command).map_err(|e| failed("start", e))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read it says so by how it ends. It fits the pipe.
            let _ = stdin.write_all(input);
        }
        output_of(child).map_err(|e| failed("wait for", e))
    }

    fn failed(&self, step: &'static str, object: &Path, source: std::io::Error) -> Error {
        Error::step(step, object.display().to_string(), source)
    }
}

/// Starts a program that finds no signal ignored and the usual umask, whatever this shim has.
fn spawn(command: Command) -> std::io::Result<Child> {
    let own = rustix::process::umask(rustix::fs::Mode::from_raw_mode(UMASK));
    let child = shim_sys::spawn::spawn_with(command, &[]);
    rustix::process::umask(own);
    child
}

/// Waits for the end of a program, and takes what it wrote up to then: what it left running may hold
/// its streams for ever.
fn output_of(mut child: Child) -> std::io::Result<Output> {
    let ended = has_ended(&child);
    if !matches!(ended, Ok(true)) {
        child.kill()?;
    }
    let status = child.wait()?;
    if !ended? {
        return Err(std::io::ErrorKind::TimedOut.into());
    }
    let stdout = child.stdout.take().map(available).unwrap_or_default();
    let stderr = child.stderr.take().map(available).unwrap_or_default();
    Ok(Output { status, stdout, stderr })
}

fn has_ended(child: &Child) -> std::io::Result<bool> {
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let end = Instant::now() + VERB;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(0),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// What a pipe holds now.
fn available(mut pipe: impl Read + std::os::fd::AsFd) -> Vec<u8> {
    let mut bytes = Vec::new();
    if rustix::io::ioctl_fionbio(&pipe, true).is_ok() {
        // It ends in "nothing at the moment" when somebody else holds the other side.
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}

/// The end of what it wrote, on one line.
fn said(output: &Output) -> String {
    const MOST: usize = 1000;
    let text = String::from_utf8_lossy(&output.stderr);
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    let skipped = line.chars().count().saturating_sub(MOST);
    let line: String = line.chars().skip(skipped).collect();
    match line.is_empty() {
        true => output.status.to_string(),
        false => format!("{line} ({})", output.status),
    }
}

/// What shims of old are to run to publish an event; those of today call the socket.
fn own_program() -> String {
    std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default()
}
