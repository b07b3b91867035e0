//! The shim's ends of a process' standard streams: pipes, or the master of its terminal.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::termios::{Winsize, tcsetwinsize};

use crate::ends::{Ends, Sink};
use crate::log::Stream;

/// Bytes for a process' standard input that wait in the shim before its clients have to.
const INPUT_BYTES: usize = 64 * 1024;

/// What a pipe is asked to hold, so that a flood costs few wake-ups: the most that a process
/// without CAP_SYS_RESOURCE may ask for (pipe(7)).
const PIPE_BYTES: usize = 1 << 20;

/// How long a stock shim has for copying what a process left, in nanoseconds. What the process started
/// and left behind may hold its streams for ever.
const RELAY_AT_MOST: u64 = 2_000_000_000;

/// How long a client that takes nothing of what an ended process said is waited for, in nanoseconds.
const PATIENCE: u64 = 200_000_000;

/// The streams of one process.
#[derive(Debug)]
pub(crate) struct Stdio {
    pub(crate) outputs: Vec<Output>,
    pub(crate) input: Option<Input>,
    terminal: Option<Terminal>,
    /// Where containerd's clients are.
    pub(crate) ends: Ends,
    relay: Option<Relay>,
    taking: Option<Taking>,
}

/// What a client had not taken at the last look, and how long it may stay as much.
#[derive(Clone, Copy, Debug)]
struct Taking {
    left: usize,
    until: u64,
}

/// Streams that go through a stock shim, which closes its ends when it has copied everything.
#[derive(Debug)]
struct Relay {
    terminal: bool,
    /// Once the process has ended: how long there may be more to come than the pipes hold.
    until: Option<u64>,
}

/// One stream that comes from a process.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stream: Stream,
    descriptor: OwnedFd,
    /// Once the process has ended: how much of what can be read may still be its own.
    own: Option<usize>,
}

/// What was read from an [`Output`], or a client's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Bytes(usize),
    /// Nothing at the moment.
    Empty,
    /// Nobody can write to it any more.
    End,
}

/// A terminal beside its streams.
#[derive(Debug)]
struct Terminal {
    master: OwnedFd,
    /// The other side, held open while the process lives: a process that closes its terminal and
    /// opens it again (getty, systemd) must not look like the end of its output.
    peer: Option<OwnedFd>,
}

/// Standard input: what clients sent and the process has not taken yet.
#[derive(Debug)]
pub(crate) struct Input {
    descriptor: OwnedFd,
    queue: Vec<u8>,
    closing: bool,
    /// It ends with the client that sends it.
    pub(crate) once: bool,
    terminal: bool,
}

impl Stdio {
    /// The streams of a process on a terminal, of which this is the master.
    ///
    /// # Errors
    /// When the master can't be duplicated or made non-blocking.
    pub(crate) fn terminal(master: OwnedFd, stdin: bool, once: bool) -> io::Result<Self> {
        set_nonblocking(&master)?;
        let flags = rustix::pty::OpenptFlags::RDWR
            | rustix::pty::OpenptFlags::NOCTTY
            | rustix::pty::OpenptFlags::CLOEXEC;
        let peer = rustix::pty::ioctl_tiocgptpeer(&master, flags).ok();
        let output = Output::new(Stream::Stdout, master.try_clone()?);
        let input = match stdin {
            true => Some(Input::new(master.try_clone()?, once, true)?),
            false => None,
        };
        let terminal = Some(Terminal { master, peer });
        Ok(Self {
            outputs: vec![output],
            input,
            terminal,
            relay: None,
            taking: None,
            ends: Ends::default(),
        })
    }

    /// The pipes of descriptors 0 to 2, as the kernel names both ends of one; those of a terminal, and what
    /// has ended, have no name here.
    pub(crate) fn names(&self) -> [Option<String>; 3] {
        if self.terminal.is_some() {
            return [const { None }; 3];
        }
        let name = |descriptor: &OwnedFd| {
            let stat = rustix::fs::fstat(descriptor).ok()?;
            let is_pipe = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
            is_pipe.then(|| format!("pipe:[{}]", stat.st_ino))
        };
        let output = |wanted| {
            let output = self.outputs.iter().find(|output| output.stream == wanted);
            output.and_then(|output| name(&output.descriptor))
        };
        let input = self.input.as_ref().and_then(|input| name(&input.descriptor));
        [input, output(Stream::Stdout), output(Stream::Stderr)]
    }

    /// The streams of a process on pipes.
    ///
    /// # Errors
    /// When a pipe can't be made non-blocking.
    pub(crate) fn pipes(
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
        once: bool,
    ) -> io::Result<Self> {
        let mut outputs = Vec::with_capacity(2);
        for (stream, descriptor) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
            outputs.push(Output::pipe(stream, descriptor)?);
        }
        let input = stdin.map(|stdin| Input::new(stdin, once, false)).transpose()?;
        Ok(Self {
            outputs,
            input,
            terminal: None,
            relay: None,
            taking: None,
            ends: Ends::default(),
        })
    }

    /// The clients' ends of FIFOs of which a stock shim has the process'; with a terminal there is no
    /// stderr.
    ///
    /// # Errors
    /// When one can't be made non-blocking.
    pub(crate) fn relayed(
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: Option<OwnedFd>,
        once: bool,
        terminal: bool,
    ) -> io::Result<Self> {
        let mut outputs = vec![Output::pipe(Stream::Stdout, stdout)?];
        if let Some(stderr) = stderr {
            outputs.push(Output::pipe(Stream::Stderr, stderr)?);
        }
        let input = stdin.map(|stdin| Input::new(stdin, once, terminal)).transpose()?;
        let relay = Some(Relay { terminal, until: None });
        Ok(Self { outputs, input, terminal: None, relay, taking: None, ends: Ends::default() })
    }

    pub(crate) fn is_relayed(&self) -> bool {
        self.relay.is_some()
    }

    /// How long to wait, by CLOCK_MONOTONIC, for output of a process that ended; `None` when all of
    /// it is here.
    pub(crate) fn relays_until(&self) -> Option<u64> {
        let until = self.relay.as_ref().and_then(|relay| relay.until)?;
        (!self.outputs.is_empty()).then_some(until)
    }

    /// Gives up waiting, when it is time: what the pipes hold is taken for the rest.
    pub(crate) fn stop_relay(&mut self, now: u64) {
        let Some(relay) = &mut self.relay else { return };
        if relay.until.take_if(|until| *until <= now).is_some() {
            self.bound_outputs();
        }
    }

    /// Of what is no process.
    pub(crate) fn none() -> Self {
        Self {
            outputs: Vec::new(),
            input: None,
            terminal: None,
            relay: None,
            taking: None,
            ends: Ends::default(),
        }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal.is_some() || self.relay.as_ref().is_some_and(|relay| relay.terminal)
    }

    /// Sets the size of the window; zeroes are sizes too, as ioctl_tty(2) has it.
    ///
    /// # Errors
    /// `ENOTTY` when it is no terminal.
    pub(crate) fn resize(&self, width: u16, height: u16) -> Result<(), Errno> {
        let terminal = self.terminal.as_ref().ok_or(Errno::NOTTY)?;
        let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal.master, size)
    }

    /// Whether what a stream says has to wait until what it said before is taken.
    pub(crate) fn is_blocked(&self, stream: Stream) -> bool {
        self.ends.sinks.iter().any(|sink| sink.stream == stream && sink.is_blocked())
    }

    /// Whether clients are taking what was said: something is left, and it gets less.
    pub(crate) fn is_being_taken(&mut self, now: u64) -> bool {
        let left = self.ends.sinks.iter().map(Sink::untaken).sum();
        if left == 0 {
            self.taking = None;
            return false;
        }
        let taking = self.taking.filter(|taking| taking.left == left);
        let taking = taking.unwrap_or(Taking { left, until: now + PATIENCE });
        self.taking = Some(taking);
        now < taking.until
    }

    /// Gives output to where it goes.
    pub(crate) fn push(&mut self, stream: Stream, data: &[u8]) {
        self.ends.sinks.retain_mut(|sink| sink.stream != stream || sink.push(data).is_continue());
    }

    /// Writes what waits for a stream's client. Whether it may say more now.
    pub(crate) fn flush_sink(&mut self, stream: Stream) -> bool {
        self.ends.sinks.retain_mut(|sink| sink.stream != stream || sink.flush().is_continue());
        !self.is_blocked(stream)
    }

    /// Nothing more will be said: the streams end for their clients, but where something still waits
    /// for one. Whether there is such.
    pub(crate) fn flush_sinks(&mut self) -> bool {
        self.ends.sinks.retain_mut(|sink| sink.flush().is_continue() && sink.is_blocked());
        !self.ends.sinks.is_empty()
    }

    /// The input has come to its end, one way or the other.
    pub(crate) fn end_input(&mut self) {
        (self.input, self.ends.feed) = (None, None);
    }

    /// The process has ended: nothing may keep its output from ending, and nobody reads its input.
    pub(crate) fn process_ended(&mut self) {
        self.end_input();
        match &mut self.relay {
            Some(relay) => relay.until = Some(crate::clock::monotonic_ns() + RELAY_AT_MOST),
            None => self.bound_outputs(),
        }
        if let Some(terminal) = &mut self.terminal {
            terminal.peer = None;
        }
    }

    fn bound_outputs(&mut self) {
        for output in &mut self.outputs {
            output.own = Some(PIPE_BYTES);
        }
    }
}

impl Output {
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    fn new(stream: Stream, descriptor: OwnedFd) -> Self {
        Self { stream, descriptor, own: None }
    }

    fn pipe(stream: Stream, descriptor: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&descriptor)?;
        // A machine that grants less gets the same bytes with more wake-ups.
        let _ = rustix::pipe::fcntl_setpipe_size(&descriptor, PIPE_BYTES);
        Ok(Self::new(stream, descriptor))
    }

    /// Whether what can still be read is not the process' any more. It ended with at most a pipe full
    /// of output behind it; whatever comes after that somebody else wrote, who may never stop.
    pub(crate) fn is_others(&self) -> bool {
        self.own == Some(0)
    }

    /// Reads once.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Read {
        match rustix::io::read(&self.descriptor, buffer) {
            Ok(0) => Read::End,
            Ok(len) => {
                self.own = self.own.map(|own| own.saturating_sub(len));
                Read::Bytes(len)
            }
            Err(Errno::AGAIN | Errno::INTR) => Read::Empty,
            // EIO is how a terminal says that its other side is closed.
            Err(_) => Read::End,
        }
    }
}

impl Input {
    fn new(descriptor: OwnedFd, once: bool, terminal: bool) -> io::Result<Self> {
        set_nonblocking(&descriptor)?;
        Ok(Self { descriptor, queue: Vec::new(), closing: false, once, terminal })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Whether clients have to wait with more.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= INPUT_BYTES
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Takes bytes for the process; after [`close`](Self::close) they are too late.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if !self.closing {
            self.queue.extend_from_slice(bytes);
        }
    }

    /// Lets the input end behind what was taken. A terminal has no such end: whoever sits at it
    /// types an end-of-file character.
    pub(crate) fn close(&mut self) {
        self.closing = !self.terminal;
    }

    /// Gives the process what it takes now. `Break` when this input is of no further use.
    pub(crate) fn flush(&mut self) -> std::ops::ControlFlow<()> {
        use std::ops::ControlFlow::{Break, Continue};
        while !self.queue.is_empty() {
            match rustix::io::write(&self.descriptor, &self.queue) {
                Ok(len) => drop(self.queue.drain(..len)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Continue(()),
                // The process has closed its standard input.
                Err(_) => return Break(()),
            }
        }
        self.queue = Vec::new();
        if self.closing { Break(()) } else { Continue(()) }
    }
}

fn set_nonblocking(descriptor: &OwnedFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(descriptor, true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_bounded_and_ends_behind_its_last_byte() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut input = Input::new(writer, true, false).unwrap();
        let mut sent = 0;
        while !input.is_full() {
            input.push(&[b'x'; 10_000]);
            assert!(input.flush().is_continue());
            sent += 10_000;
        }
        input.close();
        input.push(b"too late");
        let mut received = 0;
        let mut buffer = vec![0; 100_000];
        while input.flush().is_continue() {
            received += rustix::io::read(&reader, &mut buffer).unwrap();
        }
        drop(input);
        while let len @ 1.. = rustix::io::read(&reader, &mut buffer).unwrap() {
            received += len;
        }
        assert_eq!(received, sent);
    }

    #[test]
    fn a_process_that_closed_its_input_does_not_stop_its_clients() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut input = Input::new(writer, false, false).unwrap();
        drop(reader);
        input.push(b"nobody");
        assert!(input.flush().is_break());
    }

    #[test]
    fn a_terminal_that_is_closed_and_opened_again_has_not_ended() {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let mut stdio = Stdio::terminal(master, false, false).unwrap();
        let path = name.to_str().unwrap().to_owned();
        for _ in 0..2 {
            std::fs::write(&path, "x").unwrap();
        }
        stdio.resize(100, 30).unwrap();
        let mut buffer = [0; 10];
        let mut bytes = 0;
        while let Read::Bytes(len) = stdio.outputs[0].read(&mut buffer) {
            bytes += len;
        }
        assert_eq!((bytes, stdio.outputs[0].read(&mut buffer)), (2, Read::Empty));
        stdio.process_ended();
        assert_eq!(stdio.outputs[0].read(&mut buffer), Read::End);
    }
}
