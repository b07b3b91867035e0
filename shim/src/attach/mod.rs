//! Clients of the attach socket: one [`Client`] per connection.
//!
//! ```text
//!   Greeting ── hello ─▶ Attached ── end, lagged, refused ─▶ Leaving ── all sent ─▶ gone
//! ```
//!
//! What a client's frames do to a process is the event loop's business; this knows the framing,
//! what one client is owed, and how far it is behind.

mod backlog;

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use prost::Message;
use rustix::event::PollFlags;
use shim_wire::attach::{self, Hello, Kind};

use crate::log::Stream;
use crate::process::Key;
use crate::rpc::{is_transient, read_more};
use backlog::{Backlog, LIMIT, PACED_LIMIT};

/// How many connections there are at once.
pub(crate) const MAX_CLIENTS: usize = 128;

/// How many of them may follow, with a [`LIMIT`] each: all but those that hold their process back, so that
/// an exec's own client always finds a place.
pub(crate) const MAX_FOLLOWERS: usize = 64;

#[derive(Debug)]
pub(crate) struct Client {
    /// Never used twice in the life of a shim.
    pub(crate) serial: u64,
    socket: UnixStream,
    state: State,
    /// Whose standard input it may send, also while it is leaving.
    sends_to: Option<Key>,
    /// Whether it has a place of those that follow, also while it is leaving.
    follows: bool,
    input: Vec<u8>,
    backlog: Backlog,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// It has not said whom it wants.
    Greeting,
    Attached(Attachment),
    /// It gets what is in its backlog, and then its connection ends.
    Leaving,
}

/// What a client that said hello may do and wants to get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attachment {
    pub(crate) process: Key,
    pub(crate) stdin: bool,
    pub(crate) paced: bool,
    pub(crate) output: bool,
}

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Hello(Hello),
    Stdin(Vec<u8>),
    CloseStdin,
    Resize { width: u16, height: u16 },
}

/// The client has gone, or sent what it must not send.
#[derive(Debug)]
pub(crate) struct Gone;

impl Client {
    /// # Errors
    /// When the socket can't be made non-blocking.
    pub(crate) fn new(serial: u64, socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            serial,
            socket,
            state: State::Greeting,
            sends_to: None,
            follows: false,
            input: Vec::new(),
            backlog: Backlog::default(),
        })
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whom it is attached to.
    pub(crate) fn attachment(&self) -> Option<Attachment> {
        match self.state {
            State::Attached(attachment) => Some(attachment),
            State::Greeting | State::Leaving => None,
        }
    }

    /// Whether it has one of the [`MAX_FOLLOWERS`] places.
    pub(crate) fn follows(&self) -> bool {
        self.follows
    }

    /// Whose standard input it may send.
    pub(crate) fn sends_to(&self) -> Option<Key> {
        self.sends_to
    }

    /// What to wait for. `held`: its process takes no more input at the moment, so this client has
    /// to wait with more.
    pub(crate) fn interest(&self, held: bool) -> PollFlags {
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::IN, !held);
        interest.set(PollFlags::OUT, !self.backlog.is_empty());
        interest
    }

    /// Whether output has to wait for this client.
    pub(crate) fn holds_back(&self, process: Key) -> bool {
        let paced = |attachment: Attachment| attachment.paced && attachment.process == process;
        self.attachment().is_some_and(paced) && !self.backlog.is_empty()
    }

    /// Whether something it was promised has not been sent.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Reads what there is; [`next`](Self::next) then gives the commands in it.
    ///
    /// # Errors
    /// When the client has gone.
    pub(crate) fn receive(&mut self) -> Result<(), Gone> {
        match read_more(&mut self.socket, &mut self.input) {
            Ok(0) => Err(Gone),
            Ok(_) => {
                // What a leaving client still says is of no interest.
                if matches!(self.state, State::Leaving) {
                    self.input.clear();
                }
                Ok(())
            }
            Err(error) if is_transient(&error) => Ok(()),
            Err(_) => Err(Gone),
        }
    }

    /// The next whole command that was received.
    ///
    /// # Errors
    /// When the client breaks the protocol.
    pub(crate) fn next(&mut self) -> Result<Option<Command>, Gone> {
        let Some(frame) = attach::decode(&self.input).map_err(|_| Gone)? else { return Ok(None) };
        let command = match (frame.kind, self.state) {
            (Kind::Hello, State::Greeting) => {
                Command::Hello(Hello::decode(frame.payload).map_err(|_| Gone)?)
            }
            (Kind::Stdin, State::Attached(Attachment { stdin: true, .. })) => {
                Command::Stdin(frame.payload.to_vec())
            }
            (Kind::CloseStdin, State::Attached(Attachment { stdin: true, .. })) => {
                Command::CloseStdin
            }
            (Kind::Resize, State::Attached(_)) => {
                let &[w1, w0, h1, h0] = frame.payload else { return Err(Gone) };
                let (width, height) = (u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
                Command::Resize { width, height }
            }
            (
                Kind::Stdin
                | Kind::CloseStdin
                | Kind::Resize
                | Kind::Hello
                | Kind::Stdout
                | Kind::Stderr
                | Kind::Attached
                | Kind::Refused
                | Kind::Lagged
                | Kind::End,
                State::Greeting | State::Attached(_) | State::Leaving,
            ) => return Err(Gone),
        };
        let size = frame.size;
        self.input.drain(..size);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        Ok(Some(command))
    }

    /// Answers its hello: from here on it misses nothing.
    pub(crate) fn attach(&mut self, attachment: Attachment) {
        self.state = State::Attached(attachment);
        self.follows = !attachment.paced;
        self.sends_to = attachment.stdin.then_some(attachment.process);
        self.say(Kind::Attached, &[]);
    }

    /// Answers its hello with the reason why not.
    pub(crate) fn refuse(&mut self, reason: &str) {
        self.say(Kind::Refused, reason.as_bytes());
        self.state = State::Leaving;
    }

    /// Gives it output of its process. One that can't keep up is let go with a notice.
    pub(crate) fn output(&mut self, stream: Stream, data: &[u8]) {
        let State::Attached(attachment) = self.state else { return };
        if !attachment.output {
            return;
        }
        let kind = match stream {
            Stream::Stdout => Kind::Stdout,
            Stream::Stderr => Kind::Stderr,
        };
        let limit = if attachment.paced { PACED_LIMIT } else { LIMIT };
        if self.backlog.push(kind, data, limit).is_err() {
            self.backlog.cut_short(Kind::Lagged);
            self.state = State::Leaving;
        }
    }

    /// Its process has no more output.
    pub(crate) fn end(&mut self) {
        self.say(Kind::End, &[]);
        self.state = State::Leaving;
    }

    fn say(&mut self, kind: Kind, payload: &[u8]) {
        // A few bytes more than the limit do no harm, and there is no other way to say it.
        let unlimited = self.backlog.push(kind, payload, usize::MAX);
        debug_assert!(unlimited.is_ok());
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// When the client has gone, or is leaving and has got everything.
    pub(crate) fn flush(&mut self) -> Result<(), Gone> {
        while !self.backlog.is_empty() {
            match self.socket.write(self.backlog.unsent()) {
                Ok(0) => return Err(Gone),
                Ok(len) => self.backlog.advance(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Gone),
            }
        }
        match self.state {
            State::Leaving => Err(Gone),
            State::Greeting | State::Attached(_) => Ok(()),
        }
    }

    /// Gives memory back that only a slow client needs.
    pub(crate) fn shrink(&mut self) {
        self.backlog.shrink();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn pair() -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Client::new(1, ours).unwrap(), theirs)
    }

    fn send(peer: &mut UnixStream, kind: Kind, payload: &[u8]) {
        peer.write_all(&attach::header(kind, payload.len())).unwrap();
        peer.write_all(payload).unwrap();
    }

    fn attachment(stdin: bool) -> Attachment {
        Attachment { process: Key::INIT, stdin, paced: false, output: true }
    }

    #[test]
    fn commands_come_in_order_once_attached() {
        let (mut client, mut peer) = pair();
        let hello = Hello { exec_id: "e1".to_owned(), stdin: true, ..Hello::default() };
        send(&mut peer, Kind::Hello, &hello.encode_to_vec());
        client.receive().unwrap();
        assert_eq!(client.next().unwrap(), Some(Command::Hello(hello)));
        client.attach(attachment(true));
        send(&mut peer, Kind::Stdin, b"in");
        send(&mut peer, Kind::Resize, &[0, 80, 1, 0]);
        send(&mut peer, Kind::CloseStdin, &[]);
        client.receive().unwrap();
        assert_eq!(client.next().unwrap(), Some(Command::Stdin(b"in".to_vec())));
        assert_eq!(client.next().unwrap(), Some(Command::Resize { width: 80, height: 256 }));
        assert_eq!(client.next().unwrap(), Some(Command::CloseStdin));
        assert_eq!(client.next().unwrap(), None);
    }

    #[test]
    fn frames_out_of_place_end_the_connection() {
        for (attached, kind, payload) in [
            (None, Kind::Stdin, &b"x"[..]),
            (None, Kind::Hello, &[0xff, 0xff]),
            (Some(false), Kind::Stdin, b"x"),
            (Some(true), Kind::Hello, b""),
            (Some(true), Kind::Stdout, b"x"),
            (Some(true), Kind::Resize, &[0, 80, 0]),
        ] {
            let (mut client, mut peer) = pair();
            if let Some(stdin) = attached {
                client.attach(attachment(stdin));
            }
            send(&mut peer, kind, payload);
            client.receive().unwrap();
            assert!(client.next().is_err(), "{kind:?} {payload:?}");
        }
    }

    #[test]
    fn who_follows_has_a_place_until_it_has_gone_and_nobody_else() {
        let (mut client, _peer) = pair();
        assert!(!client.follows());
        client.attach(attachment(false));
        client.end();
        assert!(client.follows(), "what it is owed takes room");
        let (mut paced, _peer) = pair();
        paced.attach(Attachment { paced: true, ..attachment(false) });
        paced.end();
        let (mut refused, _peer) = pair();
        refused.refuse("no");
        assert!(!paced.follows() && !refused.follows());
    }

    #[test]
    fn a_client_that_does_not_read_is_told_and_let_go() {
        let (mut client, mut peer) = pair();
        client.attach(attachment(false));
        for _ in 0..100 {
            client.output(Stream::Stdout, &[b'x'; 60_000]);
            client.flush().unwrap();
        }
        assert!(client.attachment().is_none(), "it is leaving");
        let mut received = Vec::new();
        peer.set_nonblocking(true).unwrap();
        while client.flush().is_ok() {
            let _ = peer.read_to_end(&mut received);
        }
        let _ = peer.read_to_end(&mut received);
        let mut last = None;
        while let Some(frame) = attach::decode(&received).unwrap() {
            last = Some(frame.kind);
            let size = frame.size;
            received.drain(..size);
        }
        assert_eq!((last, received.len()), (Some(Kind::Lagged), 0));
    }
}
