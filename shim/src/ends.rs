//! Where a client of containerd wants a process' streams to come from and go to: FIFOs, files, the
//! pipes of a logger.
//!
//! The contract is containerd's. A FIFO is held open for both directions, so that clients may come
//! and go: nobody's going is the end of a stream, or a signal to the process. A FIFO that nobody
//! reads stops the process once it is full. Input ends when CloseIO was called and no client is left.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::log::Stream;
use crate::report;
use crate::stdio::Read;

/// How long a client may take to open what it asked for, and between two looks.
const MEET_WITHIN: Duration = Duration::from_secs(1);
const MEET_PAUSE: Duration = Duration::from_millis(1);

/// The clients' ends of a process' streams.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) feed: Option<Feed>,
    pub(crate) sinks: Vec<Sink>,
}

/// Where one stream goes.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) stream: Stream,
    target: OwnedFd,
    /// A FIFO's other end: without it, writing to one that nobody reads is an error.
    held: Option<OwnedFd>,
    /// Read from the process, and not taken yet: while there is some, nothing more is read.
    pending: Vec<u8>,
    /// That bytes are lost was said.
    reported: bool,
}

/// Where standard input comes from.
#[derive(Debug)]
pub(crate) struct Feed {
    reader: OwnedFd,
    /// A FIFO's other end: while it is held, a client that goes is not the end of the input.
    held: Option<OwnedFd>,
}

impl Sink {
    /// Opens a FIFO, or the end of a file that exists.
    ///
    /// # Errors
    /// Those of open(2).
    pub(crate) fn open(stream: Stream, path: &str) -> io::Result<Self> {
        if !is_fifo(path)? {
            return Ok(Self::new(stream, open(path, OFlags::WRONLY | OFlags::APPEND)?, None));
        }
        let target = meet(path)?;
        let held = open(path, OFlags::RDONLY)?;
        let target = target.map_or_else(|| open(path, OFlags::WRONLY), Ok)?;
        Ok(Self::new(stream, target, Some(held)))
    }

    /// Opens the end of a file, which is made when it is missing.
    ///
    /// # Errors
    /// Those of open(2).
    pub(crate) fn append(stream: Stream, path: &str) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOCTTY;
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let target = rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?;
        Ok(Self::new(stream, target, None))
    }

    /// Takes the writing end of a pipe, made non-blocking.
    ///
    /// # Errors
    /// Those of ioctl(2).
    pub(crate) fn pipe(stream: Stream, target: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&target, true)?;
        Ok(Self::new(stream, target, None))
    }

    fn new(stream: Stream, target: OwnedFd, held: Option<OwnedFd>) -> Self {
        Self { stream, target, held, pending: Vec::new(), reported: false }
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.target.as_fd()
    }

    /// Whether its process has to wait until somebody takes what it said.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.pending.is_empty()
    }

    /// How many bytes its client has not taken: those that wait, and those in the FIFO.
    pub(crate) fn untaken(&self) -> usize {
        let held = self.held.as_ref().and_then(|held| rustix::io::ioctl_fionread(held).ok());
        let in_fifo = held.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
        self.pending.len() + in_fifo
    }

    /// Takes output. `Break` when nobody will ever read it.
    pub(crate) fn push(&mut self, data: &[u8]) -> ControlFlow<()> {
        let written = match self.is_blocked() {
            true => 0,
            false => self.write(data)?,
        };
        self.pending.extend_from_slice(&data[written..]);
        ControlFlow::Continue(())
    }

    /// Writes what waits. `Break` when nobody will ever read it.
    pub(crate) fn flush(&mut self) -> ControlFlow<()> {
        let pending = std::mem::take(&mut self.pending);
        let written = self.write(&pending)?;
        self.pending.extend_from_slice(&pending[written..]);
        ControlFlow::Continue(())
    }

    /// Writes what is taken now. How much of it is done with.
    fn write(&mut self, data: &[u8]) -> ControlFlow<(), usize> {
        let mut written = 0;
        while written < data.len() {
            match rustix::io::write(&self.target, &data[written..]) {
                Ok(len) => written += len,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // A logger that has ended.
                Err(Errno::PIPE) => return ControlFlow::Break(()),
                // A full disk does not stop the process: it goes on, and there may be room again.
                Err(errno) => {
                    if !std::mem::replace(&mut self.reported, true) {
                        report("write output, of which some is lost", &errno);
                    }
                    return ControlFlow::Continue(data.len());
                }
            }
        }
        ControlFlow::Continue(written)
    }
}

impl Feed {
    /// # Errors
    /// Those of open(2).
    pub(crate) fn open(path: &str) -> io::Result<Self> {
        let reader = open(path, OFlags::RDONLY)?;
        let held = match is_fifo(path)? {
            true => Some(open(path, OFlags::WRONLY)?),
            false => None,
        };
        Ok(Self { reader, held })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> Read {
        match rustix::io::read(&self.reader, buffer) {
            Ok(0) => Read::End,
            Ok(len) => Read::Bytes(len),
            Err(Errno::AGAIN | Errno::INTR) => Read::Empty,
            Err(_) => Read::End,
        }
    }

    /// From now on the last client that goes ends the input.
    pub(crate) fn close(&mut self) {
        self.held = None;
    }
}

/// Opens a FIFO to write when its reader has. A client opens it beside its call: what is said and ended
/// before that would be lost. `None` when nobody comes.
fn meet(path: &str) -> io::Result<Option<OwnedFd>> {
    let deadline = Instant::now() + MEET_WITHIN;
    loop {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Err(Errno::NXIO) if Instant::now() < deadline => std::thread::sleep(MEET_PAUSE),
            Err(Errno::NXIO) => return Ok(None),
            opened => return Ok(Some(opened?)),
        }
    }
}

fn is_fifo(path: &str) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::stat(path)?.st_mode) == FileType::Fifo)
}

fn open(path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A FIFO in a directory that lives as long as the first value.
    fn fifo() -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo").to_str().unwrap().to_owned();
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path.as_str(), FileType::Fifo, mode, 0).unwrap();
        (directory, path)
    }

    #[test]
    fn a_fifo_that_nobody_reads_blocks_and_loses_nothing() {
        let (_directory, path) = fifo();
        let mut sink = Sink::open(Stream::Stdout, &path).unwrap();
        let mut sent = 0;
        while !sink.is_blocked() {
            assert!(sink.push(&[b'x'; 10_000]).is_continue());
            sent += 10_000;
        }
        let reader = open(&path, OFlags::RDONLY).unwrap();
        let mut received = 0;
        let mut buffer = vec![0; 100_000];
        while received < sent {
            received += rustix::io::read(&reader, &mut buffer).unwrap();
            assert!(sink.flush().is_continue());
        }
        assert_eq!((received, sink.is_blocked()), (sent, false));
        drop(sink);
        assert_eq!(rustix::io::read(&reader, &mut buffer), Ok(0), "the stream has ended");
    }

    #[test]
    fn readers_that_come_and_go_are_nobodys_end() {
        let (_directory, path) = fifo();
        let first = open(&path, OFlags::RDONLY).unwrap();
        let mut sink = Sink::open(Stream::Stdout, &path).unwrap();
        drop(first);
        for word in [b"one", b"two"] {
            let reader = open(&path, OFlags::RDONLY).unwrap();
            assert!(sink.push(word).is_continue());
            let mut buffer = [0; 10];
            assert_eq!(rustix::io::read(&reader, &mut buffer), Ok(3));
            assert_eq!(&buffer[..3], word);
        }
    }

    #[test]
    fn input_ends_when_it_was_closed_and_the_last_client_has_gone() {
        let (_directory, path) = fifo();
        let mut feed = Feed::open(&path).unwrap();
        let mut buffer = [0; 10];
        drop(open(&path, OFlags::WRONLY).unwrap());
        assert_eq!(feed.read(&mut buffer), Read::Empty, "a client went");
        let client = open(&path, OFlags::WRONLY).unwrap();
        feed.close();
        assert_eq!(feed.read(&mut buffer), Read::Empty, "a client is there");
        rustix::io::write(&client, b"last").unwrap();
        drop(client);
        assert_eq!(feed.read(&mut buffer), Read::Bytes(4));
        assert_eq!(feed.read(&mut buffer), Read::End);
    }

    #[test]
    fn a_logger_that_ended_is_of_no_use() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut sink = Sink::pipe(Stream::Stderr, writer).unwrap();
        drop(reader);
        assert!(sink.push(b"nobody").is_break());
    }
}
