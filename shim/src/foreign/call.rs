//! The shim as a ttrpc client: one connection to a stock shim.
//!
//! ```text
//!   call()   blocks until its own answer, or its deadline; what else comes meanwhile is kept
//!   send()   does not wait: the answer comes by receive(), to whoever it was expected for
//! ```
//!
//! Both versions of the task API are the same messages; a shim that does not know the newer one is
//! asked by the older.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use shim_wire::containerd::NAMESPACE_KEY;
use shim_wire::task::SERVICES;
use shim_wire::ttrpc::{self, Code, KeyValue, Kind, Request, Response};

use super::Expect;
use super::error::Error;
use crate::rpc::{is_transient, read_more};

/// A connection, what was asked on it, and what came.
#[derive(Debug)]
pub(super) struct Connection {
    socket: UnixStream,
    namespace: String,
    service: &'static str,
    last_stream: u32,
    input: Vec<u8>,
    output: Vec<u8>,
    asked: Vec<(u32, Expect)>,
    arrived: Vec<(Expect, Response)>,
    ended: bool,
}

impl Connection {
    pub(super) fn new(socket: UnixStream, namespace: &str, version: u32) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            namespace: namespace.to_owned(),
            service: SERVICES[usize::from(version < 3)],
            // The first stream is 1; a client's are odd.
            last_stream: u32::MAX,
            input: Vec::new(),
            output: Vec::new(),
            asked: Vec::new(),
            arrived: Vec::new(),
            ended: false,
        })
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What the loop has to wait for; empty once the stock shim is gone.
    pub(super) fn interest(&self) -> PollFlags {
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::IN, !self.ended);
        interest.set(PollFlags::OUT, !self.ended && !self.output.is_empty());
        interest
    }

    /// The stock shim has ended, or is of no further use.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// An answer that came and was not waited for.
    pub(super) fn next_arrived(&mut self) -> Option<(Expect, Response)> {
        (!self.arrived.is_empty()).then(|| self.arrived.remove(0))
    }

    pub(super) fn has_arrived(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Who will get no answer any more.
    pub(super) fn give_up(&mut self) -> Vec<Expect> {
        std::mem::take(&mut self.asked).into_iter().map(|(_, expect)| expect).collect()
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// What the stock shim answered, or that it did not.
    pub(super) fn call<Q: Message, A: Message + Default>(
        &mut self,
        method: &'static str,
        request: &Q,
        deadline: Duration,
    ) -> Result<A, Error> {
        let end = Instant::now() + deadline;
        let payload = request.encode_to_vec();
        let mut response = self.exchange(method, payload.clone(), end)?;
        let unknown = |response: &Response| {
            response.status.as_ref().is_some_and(|status| status.code == Code::Unimplemented as i32)
        };
        if self.service == SERVICES[0] && unknown(&response) {
            self.service = SERVICES[1];
            response = self.exchange(method, payload, end)?;
        }
        if let Some(status) = response.status.filter(|status| status.code != Code::Ok as i32) {
            return Err(Error::refused(&status));
        }
        A::decode(response.payload.as_slice()).map_err(|source| Error::Malformed { method, source })
    }

    fn exchange(
        &mut self,
        method: &'static str,
        payload: Vec<u8>,
        end: Instant,
    ) -> Result<Response, Error> {
        let stream = self.ask(method, payload, end.saturating_duration_since(Instant::now()));
        self.asked.push((stream, Expect::Caller));
        loop {
            self.flush();
            self.receive();
            let answer = self.arrived.iter().position(|(expect, _)| *expect == Expect::Caller);
            if let Some(answer) = answer {
                return Ok(self.arrived.remove(answer).1);
            }
            if self.ended {
                return Err(Error::Gone { method });
            }
            if !self.ready(end) {
                // Whoever answers later answers nobody.
                self.asked.retain(|(_, expect)| *expect != Expect::Caller);
                return Err(Error::TimedOut { method });
            }
        }
    }

    /// Asks; the answer will have arrived some time.
    pub(super) fn send(&mut self, method: &str, payload: Vec<u8>, expect: Expect) {
        let stream = self.ask(method, payload, Duration::ZERO);
        self.asked.push((stream, expect));
        self.flush();
    }

    fn ask(&mut self, method: &str, payload: Vec<u8>, deadline: Duration) -> u32 {
        self.last_stream = self.last_stream.wrapping_add(2);
        let request = Request {
            service: self.service.to_owned(),
            method: method.to_owned(),
            payload,
            timeout_nano: i64::try_from(deadline.as_nanos()).unwrap_or(i64::MAX),
            metadata: vec![KeyValue {
                key: NAMESPACE_KEY.to_owned(),
                value: self.namespace.clone(),
            }],
        };
        ttrpc::encode(&mut self.output, Kind::Request, self.last_stream, &request);
        self.last_stream
    }

    /// Sends what waits for room in the socket.
    pub(super) fn flush(&mut self) {
        while !self.output.is_empty() && !self.ended {
            match self.socket.write(&self.output) {
                Ok(len) => drop(self.output.drain(..len)),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if is_transient(&error) => return,
                Err(_) => self.ended = true,
            }
        }
        self.output = Vec::new();
    }

    /// Reads what there is.
    pub(super) fn receive(&mut self) {
        match read_more(&mut self.socket, &mut self.input) {
            Ok(0) => self.ended = true,
            Ok(_) => {}
            Err(error) if is_transient(&error) => {}
            Err(_) => self.ended = true,
        }
        let mut used = 0;
        loop {
            match ttrpc::decode(&self.input[used..]) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    let asked = self.asked.iter().position(|(stream, _)| *stream == frame.stream);
                    // What nobody waits for any more is passed over.
                    if let Some(asked) = asked {
                        let expect = self.asked.swap_remove(asked).1;
                        let response = Response::decode(frame.message).unwrap_or_else(|error| {
                            Response::error(Code::Internal, format!("the stock shim: {error}"))
                        });
                        self.arrived.push((expect, response));
                    }
                    used += frame.size;
                }
                Err(invalid) => {
                    crate::report("the stock shim's connection", &invalid);
                    self.ended = true;
                    break;
                }
            }
        }
        self.input.drain(..used);
    }

    /// Waits until there is something to read or, when there is something to write, room for it.
    /// `false` at `end`.
    pub(super) fn ready(&self, end: Instant) -> bool {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut socket = [PollFd::from_borrowed_fd(self.socket(), self.interest())];
        match poll(&mut socket, Some(&timeout)) {
            Ok(0) => false,
            Ok(_) | Err(Errno::INTR) => true,
            Err(errno) => {
                crate::report("poll", &errno);
                false
            }
        }
    }
}
