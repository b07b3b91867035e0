//! Events, forwarded to containerd in the order in which they happened.
//!
//! One is under way at a time, and leaves the queue when containerd has it: one that containerd did
//! not answer is sent again. While containerd is away the queue waits, tries a few times, and then
//! goes to sleep until something happens: another event, or a containerd that connects to the shim.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use prost::Message;
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use shim_wire::containerd::{
    EVENTS_SERVICE, Envelope, Event, FORWARD, ForwardRequest, NAMESPACE_KEY,
};
use shim_wire::task::Any;
use shim_wire::ttrpc::{self, KeyValue, Kind, Request, Response};

use crate::clock;
use crate::event_loop::SECOND;
use crate::report;
use crate::rpc::{is_transient, read_more};

/// How many events wait for containerd; of more, the oldest are lost.
const MAX_QUEUED: usize = 2048;
/// How often one event is tried in a row.
const MAX_TRIES: u32 = 5;
/// Before the second try; doubled with each.
const RETRY_AFTER: u64 = SECOND / 10;
/// How long an answer may take.
const ANSWER_WITHIN: u64 = 10 * SECOND;

/// Announces events.
#[derive(Debug)]
pub(crate) struct Publisher {
    socket: PathBuf,
    namespace: String,
    /// Encoded [`ForwardRequest`]s, the oldest first.
    queue: VecDeque<Vec<u8>>,
    link: Link,
    tries: u32,
}

/// The way to containerd.
#[derive(Debug)]
enum Link {
    /// With something to say, it is made `at` a time; without one, when something happens.
    Down {
        at: Option<u64>,
    },
    Up(Connection),
}

#[derive(Debug)]
struct Connection {
    socket: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Of the last request; odd.
    stream: u32,
    /// Until when the oldest event, which is under way, is to be answered.
    under_way: Option<u64>,
}

/// The connection is of no further use.
struct Lost;

impl Publisher {
    pub(crate) fn new(socket: PathBuf, namespace: String) -> Self {
        let (queue, link) = (VecDeque::new(), Link::Down { at: None });
        Self { socket, namespace, queue, link, tries: 0 }
    }

    /// Queues an event, and sends it if nothing is before it.
    pub(crate) fn publish<E: Event>(&mut self, event: &E) {
        let envelope = Envelope {
            timestamp: Some(clock::now().into()),
            namespace: self.namespace.clone(),
            topic: E::TOPIC.to_owned(),
            event: Some(Any::of(E::TYPE_URL, event)),
        };
        if self.queue.len() == MAX_QUEUED {
            // What is under way stays the first.
            self.queue.remove(usize::from(self.is_under_way()));
        }
        self.queue.push_back(ForwardRequest { envelope: Some(envelope) }.encode_to_vec());
        self.wake();
    }

    /// There is a reason to think that containerd is there.
    pub(crate) fn wake(&mut self) {
        self.tries = 0;
        self.proceed();
    }

    /// Whether everything was announced.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What to wait for.
    pub(crate) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.link {
            Link::Down { .. } => None,
            Link::Up(connection) => {
                let mut interest = PollFlags::IN;
                interest.set(PollFlags::OUT, !connection.output.is_empty());
                Some((connection.socket.as_fd(), interest))
            }
        }
    }

    /// When to be called again at the latest.
    pub(crate) fn deadline(&self) -> Option<u64> {
        match &self.link {
            Link::Down { at } => *at,
            Link::Up(connection) => connection.under_way,
        }
    }

    /// The connection can be read or written.
    pub(crate) fn ready(&mut self) {
        let Link::Up(connection) = &mut self.link else { return };
        let refused = match connection.exchange() {
            Ok(None) => return,
            Ok(Some(response)) => response.status.filter(|status| status.code != 0),
            Err(Lost) => return self.failed(),
        };
        match refused {
            None => {
                self.tries = 0;
                self.queue.pop_front();
            }
            Some(status) => {
                self.tries += 1;
                if self.tries >= MAX_TRIES {
                    report("publish an event", &io::Error::other(status.message));
                    self.tries = 0;
                    self.queue.pop_front();
                }
            }
        }
        self.proceed();
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: u64) {
        if self.deadline().is_some_and(|at| at <= now) {
            match self.link {
                Link::Down { .. } => self.proceed(),
                Link::Up(_) => self.failed(),
            }
        }
    }

    pub(crate) fn shrink(&mut self) {
        self.queue.shrink_to_fit();
    }

    fn is_under_way(&self) -> bool {
        matches!(&self.link, Link::Up(connection) if connection.under_way.is_some())
    }

    /// Sends the oldest event, unless it is under way.
    fn proceed(&mut self) {
        let Some(event) = self.queue.front() else { return };
        if let Link::Down { .. } = self.link {
            match Connection::open(&self.socket) {
                Ok(connection) => self.link = Link::Up(connection),
                Err(_) => return self.failed(),
            }
        }
        let Link::Up(connection) = &mut self.link else { return };
        if connection.under_way.is_none() && connection.send(&self.namespace, event).is_err() {
            self.failed();
        }
    }

    /// Gives the connection up, and tries again later, if it has not been tried often enough.
    fn failed(&mut self) {
        self.tries += 1;
        let wait = RETRY_AFTER << self.tries.min(MAX_TRIES);
        let again = !self.queue.is_empty() && self.tries < MAX_TRIES;
        self.link = Link::Down { at: again.then(|| clock::monotonic_ns() + wait) };
    }
}

impl Connection {
    fn open(path: &PathBuf) -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        let (input, output) = (Vec::new(), Vec::new());
        Ok(Self { socket: socket.into(), input, output, stream: 0, under_way: None })
    }

    fn send(&mut self, namespace: &str, event: &[u8]) -> Result<(), Lost> {
        // Client streams are odd.
        self.stream = self.stream.wrapping_add(2) | 1;
        let metadata = KeyValue { key: NAMESPACE_KEY.to_owned(), value: namespace.to_owned() };
        let request = Request {
            service: EVENTS_SERVICE.to_owned(),
            method: FORWARD.to_owned(),
            payload: event.to_vec(),
            timeout_nano: i64::try_from(ANSWER_WITHIN).unwrap_or(i64::MAX),
            metadata: vec![metadata],
        };
        ttrpc::encode(&mut self.output, Kind::Request, self.stream, &request);
        self.under_way = Some(clock::monotonic_ns() + ANSWER_WITHIN);
        self.flush()
    }

    /// Sends and receives what can be. The answer to what is under way, when it has come.
    fn exchange(&mut self) -> Result<Option<Response>, Lost> {
        self.flush()?;
        match read_more(&mut self.socket, &mut self.input) {
            Ok(0) => return Err(Lost),
            Ok(_) => {}
            Err(error) if is_transient(&error) => return Ok(None),
            Err(_) => return Err(Lost),
        }
        let mut answer = None;
        let mut used = 0;
        while let Some(frame) = ttrpc::decode(&self.input[used..]).map_err(|_| Lost)? {
            if frame.kind == Kind::Response && frame.stream == self.stream {
                answer = Some(Response::decode(frame.message).map_err(|_| Lost)?);
                self.under_way = None;
            }
            used += frame.size;
        }
        self.input.drain(..used);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        Ok(answer)
    }

    fn flush(&mut self) -> Result<(), Lost> {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(0) => return Err(Lost),
                Ok(len) => drop(self.output.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Lost),
            }
        }
        self.output = Vec::new();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use shim_wire::containerd::{TaskPaused, TaskResumed};

    use super::*;

    /// Takes the next event of a connection, and answers it.
    fn topic(peer: &mut UnixStream) -> String {
        let mut input = Vec::new();
        let (stream, request) = loop {
            if let Some(frame) = ttrpc::decode(&input).unwrap() {
                break (frame.stream, Request::decode(frame.message).unwrap());
            }
            let mut byte = [0];
            peer.read_exact(&mut byte).unwrap();
            input.push(byte[0]);
        };
        assert_eq!((request.service.as_str(), request.method.as_str()), (EVENTS_SERVICE, FORWARD));
        assert_eq!(request.metadata[0].value, "default");
        let mut output = Vec::new();
        ttrpc::encode(&mut output, Kind::Response, stream, &Response::default());
        peer.write_all(&output).unwrap();
        let forward = ForwardRequest::decode(request.payload.as_slice()).unwrap();
        forward.envelope.unwrap().topic
    }

    fn publisher(directory: &Path) -> Publisher {
        Publisher::new(directory.join("ttrpc"), "default".to_owned())
    }

    #[test]
    fn events_arrive_in_order_and_what_was_not_answered_comes_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut publisher = publisher(directory.path());
        let listener = UnixListener::bind(directory.path().join("ttrpc")).unwrap();
        publisher.publish(&TaskPaused::default());
        publisher.publish(&TaskResumed::default());
        // This one goes before it has answered.
        drop(listener.accept().unwrap());
        publisher.ready();
        publisher.wake();
        let (mut peer, _) = listener.accept().unwrap();
        assert_eq!(topic(&mut peer), "/tasks/paused");
        publisher.ready();
        assert_eq!(topic(&mut peer), "/tasks/resumed");
        publisher.ready();
        assert!(publisher.is_empty());
        assert_eq!(publisher.deadline(), None, "nothing to wake up for");
    }

    #[test]
    fn nobody_there_is_tried_a_few_times_and_then_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let mut publisher = publisher(directory.path());
        publisher.publish(&TaskPaused::default());
        let mut tries = 1;
        while let Some(at) = publisher.deadline() {
            publisher.tick(at);
            tries += 1;
        }
        assert_eq!(tries, MAX_TRIES);
        let listener = UnixListener::bind(directory.path().join("ttrpc")).unwrap();
        publisher.wake();
        assert_eq!(topic(&mut listener.accept().unwrap().0), "/tasks/paused");
        publisher.ready();
        assert!(publisher.is_empty());
    }

    #[test]
    fn a_containerd_that_is_away_for_long_costs_a_bounded_queue() {
        let directory = tempfile::tempdir().unwrap();
        let mut publisher = publisher(directory.path());
        for _ in 0..MAX_QUEUED + 10 {
            publisher.publish(&TaskPaused::default());
        }
        assert_eq!(publisher.queue.len(), MAX_QUEUED);
    }
}
