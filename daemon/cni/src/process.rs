//! One run of a plugin.
//!
//! It gets standard input as a file, so nobody has to feed it; both outputs are read while it runs, and
//! bounded; it has a process group of its own, and is killed with that when its time is over, when it
//! writes too much, or when nobody waits any more. What it leaves running after a success stays: there
//! are plugins that start a daemon. If such a thing holds the output open, it is waited for a moment only.
//!
//! The environment is PATH and CNI's variables, and what the settings add.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde::Deserialize;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, Interest};
use tokio::process::{Child, ChildStderr, ChildStdout};
use tokio::time::{sleep, timeout};

use crate::error::Failure;

/// What a plugin may write to standard output.
pub(crate) const OUTPUT_LIMIT: usize = 1 << 20;
/// What is kept of what it says, from the end.
const SAID_LIMIT: usize = 4096;
/// How long an output is waited for that somebody holds open after the plugin's end.
const HELD_OPEN: Duration = Duration::from_secs(1);
/// How long a killed process may take.
const REAP: Duration = Duration::from_secs(5);
/// How often, and after which pause, a program is tried again that is just being written.
const BUSY: (u32, Duration) = (25, Duration::from_millis(200));

/// Runs a plugin until its end, and answers with its standard output.
///
/// # Errors
///
/// All kinds of [`Failure`] but an answer that can't be used: that is for who reads it.
pub(crate) async fn run(
    program: &Path,
    environment: &[(OsString, OsString)],
    input: &File,
    deadline: Duration,
) -> Result<Vec<u8>, Failure> {
    let mut plugin = spawn(program, environment, input).await?;
    let mut pipes = Pipes::new(&mut plugin.child);
    let ended = timeout(deadline, listen(&plugin, &mut pipes)).await;
    let failure = match ended {
        Ok(Ok(status)) if status.success() => {
            plugin.finish().await;
            return Ok(pipes.output);
        }
        Ok(Ok(status)) => reported(status, &pipes),
        Ok(Err(failure)) => failure,
        Err(_) => Failure::Deadline { after: deadline, said: pipes.said() },
    };
    plugin.kill().await;
    Err(failure)
}

async fn spawn(
    program: &Path,
    environment: &[(OsString, OsString)],
    input: &File,
) -> Result<Plugin, Failure> {
    let failed = |step| move |source| Failure::Run { step, source };
    let mut tries = 0;
    let child = loop {
        let input = input.try_clone().map_err(failed("hand over its configuration"))?;
        let mut command = tokio::process::Command::new(program);
        command
            .env_clear()
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::from(input))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY.0 => {
                tries += 1;
                sleep(BUSY.1).await;
            }
            spawned => break spawned.map_err(failed("run it"))?,
        }
    };
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let Some(pid) = pid else {
        return Err(failed("run it")(io::Error::other("it has no process id")));
    };
    #[expect(
        deprecated,
        reason = "the replacement is unsafe; an OwnedFd keeps what it asks for by its type"
    )]
    let opened = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)
        .map_err(io::Error::from)
        .and_then(|fd| AsyncFd::with_interest(fd, Interest::READABLE));
    match opened {
        Ok(pidfd) => Ok(Plugin { child, pidfd, group: Some(pid) }),
        Err(source) => {
            let _ = kill_process_group(pid, Signal::KILL);
            Err(failed("wait for it")(source))
        }
    }
}

/// Waits for the plugin's end and that of its outputs.
async fn listen(plugin: &Plugin, pipes: &mut Pipes) -> Result<ExitStatus, Failure> {
    let status = tokio::select! {
        drained = pipes.drain() => {
            drained?;
            return plugin.exited().await;
        }
        status = plugin.exited() => status?,
    };
    // Of one that failed, nobody needs an answer from those it has left.
    if !status.success() {
        plugin.kill_group();
    }
    match timeout(HELD_OPEN, pipes.drain()).await {
        Ok(drained) => drained?,
        Err(_) => tracing::warn!("a plugin ended and left its output open: not waited for"),
    }
    Ok(status)
}

/// The plugin's error result (specification, section 5), or what there is instead.
fn reported(status: ExitStatus, pipes: &Pipes) -> Failure {
    #[derive(Deserialize)]
    struct ErrorResult {
        code: u64,
        #[serde(default)]
        msg: String,
        #[serde(default)]
        details: String,
    }
    match serde_json::from_slice::<ErrorResult>(&pipes.output) {
        Ok(ErrorResult { code, msg, details }) => {
            Failure::Reported { code, message: shorten(&msg), details: shorten(&details) }
        }
        Err(_) => Failure::Exit { status, said: pipes.said() },
    }
}

struct Plugin {
    child: Child,
    /// Readable at the end; the process is not reaped by that, so its number stays its own.
    pidfd: AsyncFd<OwnedFd>,
    /// As long as the process is not reaped.
    group: Option<Pid>,
}

impl Plugin {
    async fn exited(&self) -> Result<ExitStatus, Failure> {
        let failed = |source| Failure::Run { step: "wait for it", source };
        let id = || WaitId::PidFd(std::os::fd::AsFd::as_fd(self.pidfd.get_ref()));
        loop {
            let mut ready = self.pidfd.readable().await.map_err(failed)?;
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            if let Some(status) = waitid(id(), options).map_err(|error| failed(error.into()))? {
                // The form of wait(2): the code above the signal.
                let raw = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => (code & 0xff) << 8,
                    (None, signal) => signal.unwrap_or_default(),
                };
                return Ok(ExitStatus::from_raw(raw));
            }
            ready.clear_ready();
        }
    }

    fn kill_group(&self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// Kills it and its children.
    async fn kill(mut self) {
        self.kill_group();
        self.reap().await;
    }

    /// For one that has ended well: its children are left alone.
    async fn finish(mut self) {
        self.reap().await;
    }

    async fn reap(&mut self) {
        self.group = None;
        if timeout(REAP, self.child.wait()).await.is_err() {
            tracing::warn!("a killed plugin does not end: it is left to the kernel");
        }
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// Both outputs, until their end.
struct Pipes {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    output: Vec<u8>,
    /// The end of it.
    errors: Vec<u8>,
}

impl Pipes {
    fn new(child: &mut Child) -> Pipes {
        Pipes {
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            output: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Reads on. May be dropped at any time, and called again.
    async fn drain(&mut self) -> Result<(), Failure> {
        let (mut out, mut err) = ([0; 8192], [0; 4096]);
        while self.stdout.is_some() || self.stderr.is_some() {
            tokio::select! {
                read = next(&mut self.stdout, &mut out), if self.stdout.is_some() => {
                    self.output.extend_from_slice(&out[..read?]);
                    if self.output.len() > OUTPUT_LIMIT {
                        return Err(Failure::TooMuch { limit: OUTPUT_LIMIT });
                    }
                }
                read = next(&mut self.stderr, &mut err), if self.stderr.is_some() => {
                    self.errors.extend_from_slice(&err[..read?]);
                    let excess = self.errors.len().saturating_sub(SAID_LIMIT);
                    self.errors.drain(..excess);
                }
            }
        }
        Ok(())
    }

    /// What it said to people: on standard error, else on standard output.
    fn said(&self) -> String {
        let said = if self.errors.iter().all(u8::is_ascii_whitespace) {
            &self.output
        } else {
            &self.errors
        };
        tail(said)
    }
}

/// The next bytes; at the end the pipe goes.
async fn next(
    pipe: &mut Option<impl AsyncRead + Unpin>,
    buffer: &mut [u8],
) -> Result<usize, Failure> {
    let Some(reader) = pipe else { return Ok(0) };
    let read = reader.read(buffer).await;
    let read = read.map_err(|source| Failure::Run { step: "listen to it", source })?;
    if read == 0 {
        *pipe = None;
    }
    Ok(read)
}

/// The end of a text that may be long, and may be anything.
pub(crate) fn tail(bytes: &[u8]) -> String {
    let from = bytes.len().saturating_sub(SAID_LIMIT);
    String::from_utf8_lossy(&bytes[from..]).trim().to_owned()
}

/// A message, with what would break the line or the terminal spelled out.
fn shorten(message: &str) -> String {
    let mut text = String::new();
    for c in message.trim().chars() {
        if text.len() > SAID_LIMIT {
            text.push('…');
            break;
        }
        if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
    }
    text
}
