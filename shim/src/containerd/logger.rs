//! Loggers: programs that take a process' output from descriptors 3 and 4 (`binary://…`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shim_sys::spawn::spawn_with;

use crate::args::Arguments;
use crate::ends::Sink;
use crate::log::Stream;
use crate::process;

/// How long a logger may take to say that it is ready.
const READY_SECONDS: i64 = 10;
/// How soon all of what a process held is closed, once one thing is: nanoseconds.
const ENDS_WITHIN: i64 = 10_000_000;

/// A logger that has not ended. It ends by itself when the output does.
#[derive(Debug)]
pub(crate) struct Logger {
    pub(crate) serial: u64,
    pidfd: OwnedFd,
}

impl Logger {
    /// Starts the program of `uri`, what stands behind `binary://`, for a process, and waits until it
    /// is ready. With it, where the process' output goes.
    ///
    /// # Errors
    /// When it can't be started, ends with an error, or is not ready in time.
    pub(crate) fn start(
        serial: u64,
        uri: &str,
        arguments: &Arguments,
        process: &str,
    ) -> io::Result<(Self, Vec<Sink>)> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC);
        let (stdout, stderr, ready) = (pipe()?, pipe()?, pipe()?);
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let mut command = Command::new(decode(path)?);
        command
            .args(words(query)?)
            .env_clear()
            .env("CONTAINER_ID", process)
            .env("CONTAINER_NAMESPACE", arguments.namespace.as_str())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = spawn_with(command, &[stdout.0, stderr.0, ready.1])?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let logger = Self { serial, pidfd };
        logger.await_ready(&ready.0, &stdout.1).inspect_err(|_| logger.end(Signal::KILL))?;
        let sinks =
            vec![Sink::pipe(Stream::Stdout, stdout.1)?, Sink::pipe(Stream::Stderr, stderr.1)?];
        Ok((logger, sinks))
    }

    /// It writes to `ready`, or closes it. One that closed it by ending was not ready: then nobody reads
    /// `output` any more either, and its end follows at once.
    fn await_ready(&self, ready: &OwnedFd, output: &OwnedFd) -> io::Result<()> {
        let patience = Timespec { tv_sec: READY_SECONDS, tv_nsec: 0 };
        if poll(&mut [PollFd::new(ready, PollFlags::IN)], Some(&patience))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if rustix::io::read(ready, &mut [0])? > 0 {
            return Ok(());
        }
        let unread = PollFd::new(output, PollFlags::empty());
        let ended = PollFd::new(&self.pidfd, PollFlags::IN);
        let soon = Timespec { tv_sec: 0, tv_nsec: ENDS_WITHIN };
        match poll(&mut [unread, ended], Some(&soon))? {
            0 => Ok(()),
            _ => Err(io::Error::other("it ended before it was ready")),
        }
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether it has ended; it is reaped then.
    pub(crate) fn has_ended(&self) -> bool {
        !matches!(process::reap(self.pidfd.as_fd()), Ok(None))
    }

    /// Ends it, in whatever state it is.
    pub(crate) fn end(&self, signal: Signal) {
        match pidfd_send_signal(&self.pidfd, signal) {
            // It has ended by itself.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => crate::report("end a logger", &errno),
        }
    }
}

/// `key=value&key`, as words: each key, and its value when it has one.
fn words(query: &str) -> io::Result<Vec<String>> {
    let mut words = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        words.push(decode(&key.replace('+', " "))?);
        if !value.is_empty() {
            words.push(decode(&value.replace('+', " "))?);
        }
    }
    Ok(words)
}

/// A part of a URI without its percent-encoding (RFC 3986, 2.1).
pub(crate) fn decode(text: &str) -> io::Result<String> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?} is no URI"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(invalid)?);
        rest = &behind[2..];
    }
    String::from_utf8(bytes).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_becomes_words_in_its_order() {
        let query = "--id=a%20b&--flag&dir=/var/log&x=1+2";
        assert_eq!(words(query).unwrap(), ["--id", "a b", "--flag", "dir", "/var/log", "x", "1 2"]);
        assert!(words("a=%4").is_err());
        assert!(words("a=%zz").is_err());
    }
}
