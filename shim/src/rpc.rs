//! One ttrpc connection: frames in, frames out, nothing of what they mean.
//!
//! A peer can't make the shim grow: a message has a longest length, and while a peer does not read
//! its answers its requests are not read either.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use prost::Message;
use rustix::event::PollFlags;
use shim_wire::ttrpc::{self, Kind, Request, Response};

/// How many connections are served at once; the daemon needs one or two.
pub(crate) const MAX_CONNECTIONS: usize = 64;

/// Answers that a peer has not read yet, above which its requests have to wait.
const MAX_UNREAD_ANSWERS: usize = 256 * 1024;

const READ_BYTES: usize = 16 * 1024;

/// A connection and what has not been sent or understood of it yet.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Never used twice in the life of a shim.
    pub(crate) serial: u64,
    socket: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// A request, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) stream: u32,
    pub(crate) request: Request,
}

/// The connection is of no further use.
#[derive(Debug)]
pub(crate) struct Closed;

impl Connection {
    /// # Errors
    /// When the socket can't be made non-blocking.
    pub(crate) fn new(serial: u64, socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { serial, socket, input: Vec::new(), output: Vec::new() })
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What to wait for.
    pub(crate) fn interest(&self) -> PollFlags {
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::IN, self.output.len() < MAX_UNREAD_ANSWERS);
        interest.set(PollFlags::OUT, !self.output.is_empty());
        interest
    }

    /// Reads what there is and returns the whole requests in it.
    ///
    /// # Errors
    /// When the peer has gone, or sent what is no ttrpc.
    pub(crate) fn receive(&mut self) -> Result<Vec<Call>, Closed> {
        match read_more(&mut self.socket, &mut self.input) {
            Ok(0) => return Err(Closed),
            Ok(_) => {}
            Err(error) if is_transient(&error) => return Ok(Vec::new()),
            Err(_) => return Err(Closed),
        }
        let mut calls = Vec::new();
        let mut used = 0;
        while let Some(frame) = ttrpc::decode(&self.input[used..]).map_err(|_| Closed)? {
            match frame.kind {
                Kind::Request => {
                    let request = Request::decode(frame.message).map_err(|_| Closed)?;
                    calls.push(Call { stream: frame.stream, request });
                }
                Kind::Response => return Err(Closed),
            }
            used += frame.size;
        }
        self.input.drain(..used);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        Ok(calls)
    }

    /// Sends an answer, or what the socket takes of it now.
    ///
    /// # Errors
    /// When the peer has gone.
    pub(crate) fn answer(&mut self, stream: u32, response: &Response) -> Result<(), Closed> {
        ttrpc::encode(&mut self.output, Kind::Response, stream, response);
        self.flush()
    }

    /// Sends what has waited for room in the socket.
    ///
    /// # Errors
    /// When the peer has gone.
    pub(crate) fn flush(&mut self) -> Result<(), Closed> {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(0) => return Err(Closed),
                Ok(len) => drop(self.output.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Closed),
            }
        }
        self.output = Vec::new();
        Ok(())
    }

    /// Whether an answer still waits for room in the socket.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.output.is_empty()
    }
}

/// Reads once, behind what `buffer` holds. Not through the stack, which never gives its pages back.
pub(crate) fn read_more(socket: &mut UnixStream, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let held = buffer.len();
    buffer.resize(held + READ_BYTES, 0);
    let read = socket.read(&mut buffer[held..]);
    buffer.truncate(held + read.as_ref().map_or(0, |len| *len));
    read
}

/// A read or write that only has to be tried again later.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Connection::new(1, ours).unwrap(), theirs)
    }

    fn request(method: &str) -> Request {
        Request { method: method.to_owned(), ..Request::default() }
    }

    #[test]
    fn requests_arrive_whole_however_they_were_cut() {
        let (mut connection, mut peer) = pair();
        let mut bytes = Vec::new();
        ttrpc::encode(&mut bytes, Kind::Request, 1, &request("First"));
        ttrpc::encode(&mut bytes, Kind::Request, 3, &request("Second"));
        let mut methods = Vec::new();
        for byte in bytes {
            peer.write_all(&[byte]).unwrap();
            for call in connection.receive().unwrap() {
                methods.push((call.stream, call.request.method));
            }
        }
        assert_eq!(methods, [(1, "First".to_owned()), (3, "Second".to_owned())]);
    }

    #[test]
    fn a_peer_that_does_not_read_is_not_read_and_one_that_lies_is_dropped() {
        let (mut connection, mut peer) = pair();
        let answer = Response { payload: vec![0; 100_000], ..Response::default() };
        while connection.interest().contains(PollFlags::IN) {
            connection.answer(1, &answer).unwrap();
        }
        assert!(connection.has_unsent());
        assert!(connection.output.len() < MAX_UNREAD_ANSWERS + 200_000);
        peer.write_all(&[0xff; 10]).unwrap();
        assert!(connection.receive().is_err());
    }
}
