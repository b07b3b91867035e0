//! The loop: one thread that waits for everything at once, and the owner of all state.
//!
//! What to wait for is derived from the state before every wait, so no registration can be forgotten
//! or outlive its descriptor. What the loop calls is elsewhere: [`service`](crate::service) for
//! requests, [`streams`](crate::streams) for what flows, [`exit_protocol`](crate::exit_protocol) for
//! ends.
//!
//! With nothing to do there is no timeout and no wake-up.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use shim_cgroup::OomWatch;
use shim_wire::exec;
use shim_wire::lifecycle::{ShimEvent, ShimState};
use shim_wire::ttrpc::Response;

use crate::args::Arguments;
use crate::attach::{Attachment, Client, MAX_CLIENTS};
use crate::container::Container;
use crate::containerd::Containerd;
use crate::foreign::Stock;
use crate::hooks::Work;
use crate::log::Stream;
use crate::process::{Exec, ExecState, Key, Waiter};
use crate::rpc::{Connection, MAX_CONNECTIONS};
use crate::setup::Inherited;
use crate::stdio::{Output, Stdio};
use crate::{clock, report, setup};

pub(crate) const SECOND: u64 = 1_000_000_000;
/// How long a shim waits for somebody to create a container.
const ABANDONED_AFTER: u64 = 30 * SECOND;
/// When the shim moves out of the cgroup of the service that started it: behind the start of the
/// container, and never in the life of a short one.
const LEAVE_SERVICE_AFTER: u64 = 2 * SECOND;
/// How long after the last activity memory is given back.
const QUIET_AFTER: u64 = SECOND;
/// Between two looks at what a client has taken.
const LOOK_AT_CLIENT_AFTER: u64 = SECOND / 500;

/// The shim.
#[derive(Debug)]
pub(crate) struct Shim {
    pub(crate) arguments: Arguments,
    pub(crate) inherited: Inherited,
    pub(crate) state: ShimState,
    pub(crate) container: Option<Container>,
    pub(crate) execs: Vec<Exec>,
    /// Who runs the container, when it is not this shim itself.
    pub(crate) foreign: Option<Box<Stock>>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) clients: Vec<Client>,
    /// Hooks that run.
    pub(crate) hooks: Option<Box<Work>>,
    /// The connection on which Create failed: nobody will come back for this shim when it ends.
    pub(crate) failed_create: Option<u64>,
    /// Of connections, clients and execs.
    last_serial: u64,
    /// What being driven by containerd takes more; `None` under bosund.
    pub(crate) containerd: Option<Box<Containerd>>,
    /// Empty while nothing is read.
    pub(crate) buffer: Vec<u8>,
    pub(crate) timers: Timers,
}

/// When to do what, by CLOCK_MONOTONIC in nanoseconds. All `None` in an idle shim.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    pub(crate) abandon: Option<u64>,
    /// Move out of the cgroup of the service that started the shim.
    pub(crate) service: Option<u64>,
    pub(crate) quiet: Option<u64>,
    /// Try again to empty the cgroup.
    pub(crate) kill: Option<u64>,
    /// Stop waiting for the end of the output.
    pub(crate) drained: Option<u64>,
    /// Try again to write the exit record.
    pub(crate) record: Option<u64>,
    /// Look at the hooks that run.
    pub(crate) hooks: Option<u64>,
    /// Open the client's end of standard input.
    pub(crate) feed: Option<u64>,
    /// Look again whether a client has taken what it is waited for.
    pub(crate) taken: Option<u64>,
    /// Look again whether the kernel killed for want of memory.
    pub(crate) oom: Option<u64>,
    /// Leave, whoever still waits for something.
    pub(crate) leave: Option<u64>,
}

impl Timers {
    fn next(&self) -> Option<u64> {
        let Self { abandon, service, quiet, kill, drained, record, hooks, oom, feed, taken, leave } =
            self;
        [abandon, service, quiet, kill, drained, record, hooks, oom, feed, taken, leave]
            .into_iter()
            .copied()
            .flatten()
            .min()
    }
}

/// Takes a timer that has run out.
fn expired(timer: &mut Option<u64>, now: u64) -> bool {
    timer.take_if(|at| *at <= now).is_some()
}

/// What the loop waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Api,
    Attach,
    Connection(u64),
    Client(u64),
    Exit(Key),
    Output(Key, Stream),
    Input(Key),
    Hooks,
    Sink(Key, Stream),
    Feed(Key),
    Publisher,
    Logger(u64),
    Oom,
    Stock,
    Summons,
}

impl Shim {
    pub(crate) fn new(arguments: Arguments, inherited: Inherited) -> Self {
        Self {
            containerd: Containerd::new(&arguments),
            arguments,
            inherited,
            state: ShimState::Empty,
            container: None,
            execs: Vec::new(),
            foreign: None,
            connections: Vec::new(),
            clients: Vec::new(),
            hooks: None,
            failed_create: None,
            last_serial: 0,
            buffer: Vec::new(),
            timers: Timers {
                abandon: Some(clock::monotonic_ns() + ABANDONED_AFTER),
                service: Some(clock::monotonic_ns() + LEAVE_SERVICE_AFTER),
                ..Timers::default()
            },
        }
    }

    /// Serves until released or abandoned.
    pub(crate) fn run(mut self) {
        while !self.is_over() {
            let draining = self.draining();
            let news = self.foreign.as_ref().is_some_and(|stock| stock.has_news());
            let ready = self.wait(!draining.is_empty() || news);
            for (source, flags) in &ready {
                self.handle(*source, *flags);
            }
            self.obey_stock();
            for key in draining {
                let has_more = ready.iter().any(|(source, _)| match source {
                    // A sink that took something may let go of what its stream waits with.
                    Source::Output(of, stream) | Source::Sink(of, stream) if *of == key => {
                        self.may_say_more(key, *stream)
                    }
                    Source::Output(..)
                    | Source::Api
                    | Source::Attach
                    | Source::Connection(_)
                    | Source::Client(_)
                    | Source::Exit(_)
                    | Source::Hooks
                    | Source::Stock
                    | Source::Input(_)
                    | Source::Sink(..)
                    | Source::Feed(_)
                    | Source::Publisher
                    | Source::Logger(_)
                    | Source::Summons
                    | Source::Oom => false,
                });
                if !has_more {
                    self.output_ended(key);
                }
            }
            self.tick(!ready.is_empty());
        }
        self.bury_stock();
        self.leave_containerd();
    }

    /// A number for a connection, a client or an exec.
    pub(crate) fn next_serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }
}

/// Waiting.
impl Shim {
    /// Waits until something is ready or a timer runs out; with `poll_only`, just looks.
    fn wait(&self, poll_only: bool) -> Vec<(Source, PollFlags)> {
        let mut sources = Vec::with_capacity(16);
        let mut descriptors = Vec::with_capacity(16);
        self.interests(|source, descriptor| {
            sources.push(source);
            descriptors.push(descriptor);
        });
        let timeout = match poll_only {
            true => Some(0),
            false => self.next_deadline().map(|at| at.saturating_sub(clock::monotonic_ns())),
        };
        let timeout = timeout.map(|ns| Timespec {
            tv_sec: i64::try_from(ns / SECOND).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ns % SECOND).unwrap_or(0),
        });
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => Vec::new(),
            Ok(_) => sources
                .into_iter()
                .zip(descriptors.iter().map(PollFd::revents))
                .filter(|(_, flags)| !flags.is_empty())
                .collect(),
            Err(errno) => {
                // Only a lack of memory is left: wait for better times without spinning.
                report("poll", &errno);
                std::thread::sleep(std::time::Duration::from_millis(100));
                Vec::new()
            }
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        let publisher = self.containerd.as_ref().and_then(|it| it.publisher.deadline());
        self.timers.next().into_iter().chain(publisher).chain(self.relays_until()).min()
    }

    fn interests<'a>(&'a self, mut add: impl FnMut(Source, PollFd<'a>)) {
        add(Source::Summons, PollFd::new(&self.inherited.summons, PollFlags::IN));
        if self.connections.len() < MAX_CONNECTIONS {
            add(Source::Api, PollFd::new(&self.inherited.api, PollFlags::IN));
        }
        if self.clients.len() < MAX_CLIENTS {
            add(Source::Attach, PollFd::new(&self.inherited.attach, PollFlags::IN));
        }
        for connection in &self.connections {
            let (socket, interest) = (connection.socket(), connection.interest());
            let source = Source::Connection(connection.serial);
            add(source, PollFd::from_borrowed_fd(socket, interest));
        }
        for client in &self.clients {
            let held = client.attachment().is_some_and(|to| self.holds(to));
            let interest = client.interest(held);
            if !interest.is_empty() {
                let source = Source::Client(client.serial);
                add(source, PollFd::from_borrowed_fd(client.socket(), interest));
            }
        }
        if let Some(container) = &self.container {
            if let Some(pidfd) = container.pidfd().filter(|_| !self.has_ended(Key::INIT)) {
                add(Source::Exit(Key::INIT), PollFd::from_borrowed_fd(pidfd, PollFlags::IN));
            }
            self.stdio_interests(Key::INIT, &container.stdio, &mut add);
        }
        if let Some(helper) = self.hooks.as_ref().and_then(|work| work.running.descriptor()) {
            add(Source::Hooks, PollFd::from_borrowed_fd(helper, PollFlags::IN));
        }
        if let Some(stock) = self.foreign.as_ref().and_then(|stock| stock.poll()) {
            add(Source::Stock, stock);
        }
        for exec in &self.execs {
            if let ExecState::Running { child, .. } = &exec.state
                && let Some(pidfd) = child.pidfd()
            {
                add(Source::Exit(exec.key), PollFd::from_borrowed_fd(pidfd, PollFlags::IN));
            }
            if let Some(stdio) = exec.stdio() {
                self.stdio_interests(exec.key, stdio, &mut add);
            }
        }
        if let Some(containerd) = &self.containerd {
            if let Some((socket, interest)) = containerd.publisher.interest() {
                add(Source::Publisher, PollFd::from_borrowed_fd(socket, interest));
            }
            if let Some((descriptor, interest)) = containerd.oom.as_ref().map(OomWatch::interest) {
                add(Source::Oom, PollFd::from_borrowed_fd(descriptor, interest));
            }
            for logger in &containerd.loggers {
                let pidfd = PollFd::from_borrowed_fd(logger.descriptor(), PollFlags::IN);
                add(Source::Logger(logger.serial), pidfd);
            }
        }
    }

    fn stdio_interests<'a>(
        &'a self,
        key: Key,
        stdio: &'a Stdio,
        add: &mut impl FnMut(Source, PollFd<'a>),
    ) {
        // Nobody holds an end back.
        let held = !self.has_ended(key) && self.clients.iter().any(|c| c.holds_back(key));
        let waits = |output: &&Output| held || stdio.is_blocked(output.stream);
        for output in stdio.outputs.iter().filter(|output| !waits(output)) {
            let descriptor = PollFd::from_borrowed_fd(output.descriptor(), PollFlags::IN);
            add(Source::Output(key, output.stream), descriptor);
        }
        if let Some(input) = stdio.input.as_ref().filter(|input| input.has_unsent()) {
            let descriptor = PollFd::from_borrowed_fd(input.descriptor(), PollFlags::OUT);
            add(Source::Input(key), descriptor);
        }
        for sink in stdio.ends.sinks.iter().filter(|sink| sink.is_blocked()) {
            let descriptor = PollFd::from_borrowed_fd(sink.descriptor(), PollFlags::OUT);
            add(Source::Sink(key, sink.stream), descriptor);
        }
        let takes_more = stdio.input.as_ref().is_some_and(|input| !input.is_full());
        if let Some(feed) = stdio.ends.feed.as_ref().filter(|_| takes_more) {
            add(Source::Feed(key), PollFd::from_borrowed_fd(feed.descriptor(), PollFlags::IN));
        }
    }

    /// The processes of which only output is missing that is in their pipes already.
    fn draining(&mut self) -> Vec<Key> {
        let execs = self.execs.iter().filter(|exec| exec.is_draining()).map(|exec| exec.key);
        let mut keys: Vec<Key> = execs.filter(|key| !self.is_relayed(*key)).collect();
        if matches!(self.state, ShimState::Draining(_))
            && exec::may_end(self.execs.iter().map(Exec::phase))
            && !self.is_relayed(Key::INIT)
            && self.timers.kill.is_none()
        {
            keys.push(Key::INIT);
        }
        keys.retain(|key| !self.awaits_client(*key));
        keys
    }

    /// Whether a client of containerd is taking what a process said before it ended. With the news of
    /// the end ctr, as others, takes no more.
    fn awaits_client(&mut self, key: Key) -> bool {
        let now = clock::monotonic_ns();
        let awaits = self.stdio_mut(key).is_some_and(|stdio| stdio.is_being_taken(now));
        if awaits {
            self.timers.taken = Some(now + LOOK_AT_CLIENT_AFTER);
        }
        awaits
    }

    /// Whether the output of a process that ended may still be on its way here.
    fn is_relayed(&self, key: Key) -> bool {
        self.stdio(key).is_some_and(|stdio| stdio.relays_until().is_some())
    }

    /// When the first of such waits ends, whatever came.
    fn relays_until(&self) -> Option<u64> {
        let container = self.container.as_ref().map(|container| &container.stdio);
        let execs = self.execs.iter().filter_map(Exec::stdio);
        container.into_iter().chain(execs).filter_map(Stdio::relays_until).min()
    }

    fn stop_relays(&mut self, now: u64) {
        let container = self.container.as_mut().map(|container| &mut container.stdio);
        for stdio in container.into_iter().chain(self.execs.iter_mut().filter_map(Exec::stdio_mut))
        {
            stdio.stop_relay(now);
        }
    }

    /// Whether a stream of a process that ended may hold more of its output.
    pub(crate) fn may_say_more(&self, key: Key, stream: Stream) -> bool {
        let outputs = self.stdio(key).map_or(&[][..], |stdio| &stdio.outputs);
        outputs.iter().any(|output| output.stream == stream && !output.is_others())
    }

    pub(crate) fn has_ended(&self, key: Key) -> bool {
        if key == Key::INIT {
            return !matches!(self.state, ShimState::Created | ShimState::Running);
        }
        self.exec(key).is_none_or(|exec| !matches!(exec.state, ExecState::Running { .. }))
    }

    pub(crate) fn is_full(&self, key: Key) -> bool {
        let input = self.stdio(key).and_then(|stdio| stdio.input.as_ref());
        input.is_some_and(crate::stdio::Input::is_full)
    }

    /// Whether what a client says has to wait with it: until its exec is started, and while its
    /// process takes no more input.
    pub(crate) fn holds(&self, to: Attachment) -> bool {
        let exec = self.exec(to.process).map(|exec| &exec.state);
        matches!(exec, Some(ExecState::Created(_))) || (to.stdin && self.is_full(to.process))
    }
}

/// What became ready.
impl Shim {
    fn handle(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Api => self.accept_connection(),
            Source::Attach => self.accept_client(),
            Source::Connection(serial) => self.serve_connection(serial, flags),
            Source::Client(serial) => self.serve_client(serial, flags),
            Source::Exit(key) => self.reap(key),
            Source::Output(key, stream) => drop(self.read_output(key, stream)),
            Source::Input(key) => self.flush_input(key),
            Source::Hooks => self.look_at_hooks(),
            Source::Sink(key, stream) => self.flush_sink(key, stream),
            Source::Feed(key) => self.read_feed(key),
            Source::Publisher => self.containerd.iter_mut().for_each(|it| it.publisher.ready()),
            Source::Logger(serial) => self.reap_logger(serial),
            Source::Oom => self.oom(),
            Source::Stock => self.serve_stock(flags),
            Source::Summons => self.be_found(),
        }
    }

    /// A daemon knows this process, and does not find its sockets.
    fn be_found(&mut self) {
        // However many came, they are one.
        while let Ok(Some(_)) = shim_sys::signal::read(self.inherited.summons.as_fd()) {}
        if let Some(Err(error)) = self.note_init_again() {
            report("write the identity of the process", &error);
        }
        if let Err(error) = setup::put_back(&self.arguments, &mut self.inherited) {
            report("be found again", &error);
        }
    }

    fn accept_connection(&mut self) {
        let Some(socket) = accept(&self.inherited.api) else { return };
        match Connection::new(self.next_serial(), socket) {
            Ok(connection) => {
                self.connections.push(connection);
                // Whoever connects is there to be told, too.
                self.containerd.iter_mut().for_each(|it| it.publisher.wake());
            }
            Err(error) => report("accept a connection", &error),
        }
    }

    fn accept_client(&mut self) {
        let Some(socket) = accept(&self.inherited.attach) else { return };
        match Client::new(self.next_serial(), socket) {
            Ok(client) => self.clients.push(client),
            Err(error) => report("accept an attach client", &error),
        }
    }

    fn serve_connection(&mut self, serial: u64, flags: PollFlags) {
        let Some(connection) = self.connection(serial) else { return };
        if flags.contains(PollFlags::OUT) && connection.flush().is_err() {
            return self.connection_ended(serial);
        }
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        let Ok(calls) = connection.receive() else { return self.connection_ended(serial) };
        for call in calls {
            let waiter = Waiter { connection: serial, stream: call.stream };
            if let Some(response) = self.call(waiter, &call.request) {
                self.answer(waiter, &response);
            }
        }
    }

    /// Sends an answer, if there is still somebody to get it.
    pub(crate) fn answer(&mut self, waiter: Waiter, response: &Response) {
        let Some(connection) = self.connection(waiter.connection) else { return };
        if connection.answer(waiter.stream, response).is_err() {
            self.connection_ended(waiter.connection);
        }
    }

    /// The daemon, or whoever it was, has gone: that changes nothing but who is answered, and whom it held.
    fn connection_ended(&mut self, serial: u64) {
        self.connections.retain(|connection| connection.serial != serial);
        let waiters = self.execs.iter_mut().map(|exec| &mut exec.waiters);
        for waiters in waiters.chain(self.container.as_mut().map(|c| &mut c.waiters)) {
            waiters.retain(|waiter| waiter.connection != serial);
        }
        if self.failed_create == Some(serial) && self.state == ShimState::Empty {
            self.advance(ShimEvent::Abandoned);
        }
        self.let_go_on_without_daemon();
    }

    /// A daemon holds the processes still itself while it reads what they change, and may be killed meanwhile.
    /// criu does not like to be disturbed: they wait until it is done.
    pub(crate) fn let_go_on_without_daemon(&self) {
        if self.is_containerds() || !self.connections.is_empty() || self.hooks.is_some() {
            return;
        }
        if let Some(container) = self.container.as_ref().filter(|container| !container.paused) {
            // A group that is gone holds nobody.
            let _ = container.cgroup.freeze(false);
        }
    }
}

/// Timers.
impl Shim {
    fn tick(&mut self, active: bool) {
        let now = clock::monotonic_ns();
        if active && self.state != ShimState::Released {
            self.timers.quiet = Some(now + QUIET_AFTER);
        }
        if self.state != ShimState::Empty {
            self.timers.abandon = None;
        }
        if expired(&mut self.timers.abandon, now) {
            self.advance(ShimEvent::Abandoned);
        }
        if let Some(containerd) = &mut self.containerd {
            containerd.publisher.tick(now);
        }
        self.stop_relays(now);
        if expired(&mut self.timers.service, now)
            && let Some(cgroup) = &self.arguments.cgroup
        {
            setup::leave_service(cgroup);
            self.timers.quiet = Some(now + QUIET_AFTER);
        }
        if expired(&mut self.timers.quiet, now) {
            self.quiet();
        }
        if expired(&mut self.timers.kill, now) {
            self.kill_rest(now);
        }
        if expired(&mut self.timers.record, now) {
            self.write_record();
        }
        if expired(&mut self.timers.drained, now) {
            self.init_drained();
        }
        if expired(&mut self.timers.hooks, now) {
            self.look_at_hooks();
        }
        if expired(&mut self.timers.feed, now) {
            self.open_feed();
        }
        // To look is all.
        let _ = expired(&mut self.timers.taken, now);
        if expired(&mut self.timers.oom, now) {
            self.look_for_oom();
        }
        let _ = expired(&mut self.timers.leave, now);
    }

    /// Nothing has happened for a while: memory is given back.
    fn quiet(&mut self) {
        self.buffer = Vec::new();
        if let Some(log) = self.container.as_mut().and_then(|container| container.log.as_mut()) {
            log.shrink();
        }
        for client in &mut self.clients {
            client.shrink();
        }
        self.connections.shrink_to_fit();
        self.clients.shrink_to_fit();
        self.execs.shrink_to_fit();
        if let Some(containerd) = &mut self.containerd {
            containerd.publisher.shrink();
        }
        shim_sys::memory::trim();
        shim_sys::memory::release();
    }
}

/// Finding things.
impl Shim {
    pub(crate) fn connection(&mut self, serial: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|connection| connection.serial == serial)
    }

    pub(crate) fn client(&mut self, serial: u64) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| client.serial == serial)
    }

    pub(crate) fn exec(&self, key: Key) -> Option<&Exec> {
        self.execs.iter().find(|exec| exec.key == key)
    }

    pub(crate) fn exec_by_id(&mut self, id: &str) -> Option<&mut Exec> {
        self.execs.iter_mut().find(|exec| exec.id == id)
    }

    pub(crate) fn stdio(&self, key: Key) -> Option<&Stdio> {
        match key {
            Key::INIT => self.container.as_ref().map(|container| &container.stdio),
            key => self.exec(key).and_then(Exec::stdio),
        }
    }

    pub(crate) fn stdio_mut(&mut self, key: Key) -> Option<&mut Stdio> {
        match key {
            Key::INIT => self.container.as_mut().map(|container| &mut container.stdio),
            key => self.execs.iter_mut().find(|exec| exec.key == key).and_then(Exec::stdio_mut),
        }
    }
}

/// Accepts a connection of root's, or of whoever this shim runs as; drops any other.
fn accept(listener: &UnixListener) -> Option<std::os::unix::net::UnixStream> {
    let (socket, _) = match listener.accept() {
        Ok(accepted) => accepted,
        Err(error) if crate::rpc::is_transient(&error) => return None,
        Err(error) => {
            // Out of descriptors, most likely: the listener stays ready, and must not make a spin.
            report("accept", &error);
            std::thread::sleep(std::time::Duration::from_millis(10));
            return None;
        }
    };
    let peer = rustix::net::sockopt::socket_peercred(&socket).ok()?;
    (peer.uid.is_root() || peer.uid == rustix::process::getuid()).then_some(socket)
}
