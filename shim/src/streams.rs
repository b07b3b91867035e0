//! What flows between processes, the log and attach clients.
//!
//! ```text
//!   process ─▶ log ─▶ clients          clients ─▶ input queue ─▶ process
//!               └──▶ sinks               feed ─────────┘
//! ```
//!
//! Output reaches a client after it reached the log; input waits with its client while its process
//! takes no more. Sinks and the feed are containerd's ([`ends`](crate::ends)), which has no log: a
//! process waits while its sink takes no more.

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::attach::{Attachment, Client, Command, MAX_FOLLOWERS};
use crate::clock;
use crate::event_loop::Shim;
use crate::log::{Log, Stream};
use crate::process::Key;
use crate::stdio::{Input, Read};

/// Read at once from a process: few wake-ups in a flood, and still in the processor's cache.
const READ_BYTES: usize = 128 * 1024;

impl Shim {
    pub(crate) fn serve_client(&mut self, serial: u64, flags: PollFlags) {
        let Some(client) = self.client(serial) else { return };
        if flags.contains(PollFlags::OUT) && client.flush().is_err() {
            return self.client_gone(serial);
        }
        let readable = flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        if readable && client.receive().is_err() {
            return self.client_gone(serial);
        }
        self.obey(serial);
    }

    /// Does what the clients of a process asked for before it was started.
    pub(crate) fn obey_all(&mut self, key: Key) {
        let attached = |client: &&Client| client.attachment().is_some_and(|to| to.process == key);
        let clients: Vec<u64> = self.clients.iter().filter(attached).map(|c| c.serial).collect();
        for serial in clients {
            self.obey(serial);
        }
    }

    /// Does what a client asked for, as long as its process takes the input.
    fn obey(&mut self, serial: u64) {
        loop {
            let Some(client) = self.client(serial) else { return };
            let attachment = client.attachment();
            let key = attachment.map_or(Key::INIT, |attachment| attachment.process);
            if attachment.is_some_and(|attachment| self.holds(attachment)) {
                break;
            }
            let Some(client) = self.client(serial) else { return };
            match client.next() {
                Err(_) => {
                    // It gets its refusal, whatever it said behind its hello.
                    let _ = client.flush();
                    return self.client_gone(serial);
                }
                Ok(None) => break,
                Ok(Some(Command::Hello(hello))) => self.hello(serial, &hello),
                Ok(Some(Command::Stdin(bytes))) => {
                    if let Some(input) = self.stdio_mut(key).and_then(|io| io.input.as_mut()) {
                        input.push(&bytes);
                        self.flush_input(key);
                    }
                }
                Ok(Some(Command::CloseStdin)) => self.close_input(key, |_| true),
                Ok(Some(Command::Resize { width, height })) => {
                    // Of a process that has no terminal, or none any more: as good as done.
                    let _ = self.resize(key, width, height);
                }
            }
        }
        if self.client(serial).is_some_and(|client| client.flush().is_err()) {
            self.client_gone(serial);
        }
    }

    fn hello(&mut self, serial: u64, hello: &shim_wire::attach::Hello) {
        let process = match hello.exec_id.as_str() {
            "" if self.container.is_some() => Some(Key::INIT),
            "" => None,
            id => self.exec_by_id(id).map(|exec| exec.key),
        };
        let ended = process.is_some_and(|key| self.is_drained(key));
        let followers = self.clients.iter().filter(|client| client.follows()).count();
        let Some(client) = self.client(serial) else { return };
        if !hello.paced && followers >= MAX_FOLLOWERS {
            return client.refuse(&format!(
                "{MAX_FOLLOWERS} clients are attached, and there may be no more: end one of them, or follow the log"
            ));
        }
        let Some(process) = process else {
            return match hello.exec_id.as_str() {
                "" => client.refuse("the container has not been created"),
                id => client.refuse(&format!("no exec {id:?}")),
            };
        };
        client.attach(Attachment {
            process,
            stdin: hello.stdin,
            paced: hello.paced,
            output: !hello.no_output,
        });
        if ended {
            client.end();
        }
    }

    pub(crate) fn client_gone(&mut self, serial: u64) {
        let Some(index) = self.clients.iter().position(|client| client.serial == serial) else {
            return;
        };
        if let Some(process) = self.clients.swap_remove(index).sends_to() {
            self.sender_gone(process);
        }
    }

    /// A client that sent input is gone: for a process whose input is one client's, that is its end.
    fn sender_gone(&mut self, key: Key) {
        self.close_input(key, |input| input.once);
    }

    /// The end of the input, once what was sent is taken: a client said so, or `when` it counts.
    fn close_input(&mut self, key: Key, when: impl FnOnce(&Input) -> bool) {
        let input = self.stdio_mut(key).and_then(|stdio| stdio.input.as_mut());
        if let Some(input) = input.filter(|input| when(input)) {
            input.close();
            self.flush_input(key);
        }
    }

    /// Gives a process what it takes of its input, and asks clients for more.
    pub(crate) fn flush_input(&mut self, key: Key) {
        let Some(stdio) = self.stdio_mut(key) else { return };
        let Some(input) = &mut stdio.input else { return };
        let was_full = input.is_full();
        if input.flush().is_break() {
            stdio.end_input();
            if stdio.is_relayed() {
                self.close_input_by_stock(key);
            }
        }
        if was_full && !self.is_full(key) {
            self.obey_all(key);
        }
    }

    /// Sets the size of the window of a process' terminal.
    ///
    /// # Errors
    /// `ENOTTY` when it has none.
    pub(crate) fn resize(&mut self, key: Key, width: u16, height: u16) -> Result<(), Errno> {
        let stdio = self.stdio(key).ok_or(Errno::NOTTY)?;
        if !stdio.is_relayed() || !stdio.is_terminal() {
            return stdio.resize(width, height);
        }
        let exec_id = self.exec(key).map(|exec| exec.id.clone()).unwrap_or_default();
        self.resize_by_stock(&exec_id, width.into(), height.into());
        Ok(())
    }

    /// Reads once from a process. What came, if the stream is still open.
    pub(crate) fn read_output(&mut self, key: Key, stream: Stream) -> Option<Read> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(READ_BYTES, 0);
        let stdio = self.stdio_mut(key)?;
        let output = stdio.outputs.iter_mut().find(|output| output.stream == stream)?;
        let read = output.read(&mut buffer);
        match read {
            Read::Bytes(len) => self.deliver(key, stream, &buffer[..len]),
            Read::Empty => {}
            Read::End => {
                stdio.outputs.retain(|output| output.stream != stream);
                if let Some(log) = self.log_of(key) {
                    log.end(stream);
                }
            }
        }
        self.buffer = buffer;
        self.execs.retain(|exec| !exec.is_forgotten());
        Some(read)
    }

    /// A client of containerd takes more of what a stream said.
    pub(crate) fn flush_sink(&mut self, key: Key, stream: Stream) {
        let Some(stdio) = self.stdio_mut(key) else { return };
        if !stdio.flush_sink(stream) || !self.is_drained(key) {
            return;
        }
        // Its process has ended, and waited for nothing but this: what it left in its pipe comes now,
        // and then the end.
        while self.may_say_more(key, stream) {
            match self.read_output(key, stream) {
                Some(Read::Bytes(_)) if self.stdio(key).is_some_and(|io| io.is_blocked(stream)) => {
                    return;
                }
                Some(Read::Bytes(_)) => {}
                Some(Read::Empty | Read::End) | None => break,
            }
        }
        self.end_sinks(key);
    }

    /// Nothing more comes from a process: its clients are told.
    pub(crate) fn end_sinks(&mut self, key: Key) {
        if let Some(stdio) = self.stdio_mut(key) {
            stdio.flush_sinks();
        }
        self.execs.retain(|exec| !exec.is_forgotten());
    }

    /// A client of containerd sent input, or the last one has gone.
    pub(crate) fn read_feed(&mut self, key: Key) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(READ_BYTES, 0);
        if let Some(stdio) = self.stdio_mut(key)
            && let Some(feed) = &stdio.ends.feed
        {
            match feed.read(&mut buffer) {
                Read::Bytes(len) => {
                    if let Some(input) = &mut stdio.input {
                        input.push(&buffer[..len]);
                    }
                    self.flush_input(key);
                }
                Read::Empty => {}
                Read::End => {
                    stdio.ends.feed = None;
                    self.close_input(key, |_| true);
                }
            }
        }
        self.buffer = buffer;
    }

    /// Output goes to the log first, then to whoever listens.
    fn deliver(&mut self, key: Key, stream: Stream, data: &[u8]) {
        if let Some(log) = self.log_of(key) {
            log.write(stream, data, clock::now());
        }
        if let Some(stdio) = self.stdio_mut(key) {
            stdio.push(stream, data);
        }
        let mut gone = Vec::new();
        for client in &mut self.clients {
            if client.attachment().is_some_and(|attachment| attachment.process == key) {
                client.output(stream, data);
                if client.flush().is_err() {
                    gone.push(client.serial);
                }
            }
        }
        for serial in gone {
            self.client_gone(serial);
        }
    }

    fn log_of(&mut self, key: Key) -> Option<&mut Log> {
        self.container.as_mut().filter(|_| key == Key::INIT)?.log.as_mut()
    }
}
