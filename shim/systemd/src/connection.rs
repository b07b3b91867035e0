//! A connection to D-Bus: its socket, its authentication, calls with a deadline.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Error;
use crate::message::{self, Kind, Message, Target, Value};

/// The most signals that are kept for somebody who has not asked for them yet.
const MAX_SIGNALS: usize = 1024;

#[derive(Debug)]
pub(crate) struct Connection {
    socket: UnixStream,
    /// Whom calls are for, on a bus.
    destination: Option<&'static str>,
    serial: u32,
    input: Vec<u8>,
    signals: VecDeque<Message>,
}

impl Connection {
    /// Connects, and says who we are: the peer believes the kernel (EXTERNAL of SASL).
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Protocol`].
    pub(crate) fn new(
        path: &Path,
        destination: Option<&'static str>,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let io =
            |step| move |source| Error::Io { step, object: path.display().to_string(), source };
        let socket = UnixStream::connect(path).map_err(io("connect to"))?;
        let input = Vec::new();
        let signals = VecDeque::new();
        let mut connection = Self { socket, destination, serial: 0, input, signals };
        let uid: String = rustix::process::geteuid()
            .as_raw()
            .to_string()
            .bytes()
            .map(|b| format!("{b:02x}"))
            .collect();
        // A NUL first, for what carries credentials elsewhere. The end of the authentication with its
        // beginning, as sd-bus does it: systemd does not look at a call that comes in the same read as
        // BEGIN until something else comes (`bus_socket_auth_verify_server`), and so never.
        let hello = format!("\0AUTH EXTERNAL {uid}\r\nBEGIN\r\n");
        connection.send(hello.as_bytes(), "authenticate", deadline)?;
        let answer = connection.line(deadline)?;
        if !answer.starts_with("OK ") {
            let problem = format!("the authentication was answered with {answer:?}");
            return Err(Error::Protocol { problem });
        }
        Ok(connection)
    }

    /// Calls a method of whom the connection is to.
    ///
    /// # Errors
    /// [`Error::Refused`] with the callee's words; those of the connection.
    pub(crate) fn call(
        &mut self,
        path: &str,
        interface: &str,
        member: &'static str,
        arguments: &[Value],
        deadline: Instant,
    ) -> Result<Message, Error> {
        let target = Target { destination: self.destination, path, interface, member };
        self.exchange(target, member, arguments, deadline)
    }

    /// Calls a method of another one on the bus.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub(crate) fn call_to(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        member: &'static str,
        arguments: &[Value],
        deadline: Instant,
    ) -> Result<Message, Error> {
        let target = Target { destination: Some(destination), path, interface, member };
        self.exchange(target, member, arguments, deadline)
    }

    fn exchange(
        &mut self,
        target: Target<'_>,
        method: &'static str,
        arguments: &[Value],
        deadline: Instant,
    ) -> Result<Message, Error> {
        self.serial += 1;
        let serial = self.serial;
        let call = message::call(serial, target, arguments);
        self.send(&call, method, deadline)?;
        loop {
            let message = self.receive(method, deadline)?;
            match message.kind {
                Kind::Answer if message.answers == serial => return Ok(message),
                Kind::Error if message.answers == serial => {
                    let text = message.reader().text().unwrap_or_default();
                    return Err(Error::Refused { method, name: message.error, message: text });
                }
                Kind::Signal if self.signals.len() < MAX_SIGNALS => {
                    // A job may end before its call is answered.
                    self.signals.push_back(message);
                }
                // Nobody has anything to ask of us.
                Kind::Call | Kind::Answer | Kind::Error | Kind::Signal => {}
            }
        }
    }

    /// The next signal of that name.
    ///
    /// # Errors
    /// [`Error::TimedOut`] of the method that waits for it; those of the connection.
    pub(crate) fn signal(
        &mut self,
        member: &str,
        method: &'static str,
        deadline: Instant,
    ) -> Result<Message, Error> {
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.receive(method, deadline)?,
            };
            if message.kind == Kind::Signal && message.member == member {
                return Ok(message);
            }
        }
    }

    fn receive(&mut self, method: &'static str, deadline: Instant) -> Result<Message, Error> {
        loop {
            let decoded = Message::decode(&self.input)
                .map_err(|problem| Error::Protocol { problem: problem.to_owned() })?;
            if let Some((message, len)) = decoded {
                self.input.drain(..len);
                return Ok(message);
            }
            self.read(method, deadline)?;
        }
    }

    /// A line of the authentication.
    fn line(&mut self, deadline: Instant) -> Result<String, Error> {
        const LONGEST: usize = 16 << 10;
        loop {
            if let Some(end) = self.input.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.input[..end]).into_owned();
                self.input.drain(..end + 2);
                return Ok(line);
            }
            if self.input.len() > LONGEST {
                let problem = "an answer to the authentication without an end".to_owned();
                return Err(Error::Protocol { problem });
            }
            self.read("authenticate", deadline)?;
        }
    }

    fn read(&mut self, method: &'static str, deadline: Instant) -> Result<(), Error> {
        let mut chunk = [0; 4096];
        let timeout = left(method, deadline)?;
        let read = self
            .socket
            .set_read_timeout(Some(timeout))
            .and_then(|()| retry(|| self.socket.read(&mut chunk)));
        match read {
            Ok(0) => Err(Error::Protocol { problem: format!("{method}: the connection ended") }),
            Ok(len) => {
                self.input.extend_from_slice(&chunk[..len]);
                Ok(())
            }
            Err(error) => Err(failed("read from", method, error)),
        }
    }

    fn send(&mut self, bytes: &[u8], method: &'static str, deadline: Instant) -> Result<(), Error> {
        let timeout = left(method, deadline)?;
        self.socket
            .set_write_timeout(Some(timeout))
            .and_then(|()| self.socket.write_all(bytes))
            .map_err(|error| failed("write to", method, error))
    }
}

fn left(method: &'static str, deadline: Instant) -> Result<Duration, Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(Error::TimedOut { method }) } else { Ok(left) }
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn failed(step: &'static str, method: &'static str, source: io::Error) -> Error {
    let late = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
    if late.contains(&source.kind()) {
        return Error::TimedOut { method };
    }
    Error::Io { step, object: "systemd".to_owned(), source }
}
