//! What a call does more when containerd makes it: streams to and from its clients, events, and the
//! release of everything with Delete.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use shim_cgroup::OomWatch;
use shim_wire::containerd::{Event, TaskDelete, TaskIo, TaskOom};
use shim_wire::lifecycle::ShimEvent;

use crate::ends::{Ends, Feed, Sink};
use crate::error::Error;
use crate::event_loop::{SECOND, Shim};
use crate::log::Stream;
use crate::process::{Exec, ExecState, Exit, Key};
use crate::{clock, report, setup};

use super::logger::{self, Logger};
use super::lower::Helper;
use super::remove_sockets;

/// How long the removal of a group waits for what was killed in it.
const REMOVE: Duration = Duration::from_secs(2);
/// Between the news that memory ran out and a second look at whom that killed.
const LOOK_AGAIN_AFTER: u64 = SECOND / 10;

impl Shim {
    pub(crate) fn is_containerds(&self) -> bool {
        self.containerd.is_some()
    }

    /// Tells containerd of an event of this shim's task, whose id it is made of.
    pub(crate) fn announce<E: Event>(&mut self, event: impl FnOnce(String) -> E) {
        if let Some(containerd) = &mut self.containerd {
            containerd.publisher.publish(&event(self.arguments.id.as_str().to_owned()));
        }
    }

    /// Opens the standard input of the container's first process, once. A client that got no answer to
    /// its Create yet may already be at the end of what it sends, and has nobody to tell that to: ctr
    /// does so, and then waits for ever.
    pub(crate) fn open_feed(&mut self) {
        self.timers.feed = None;
        let Some(container) = &mut self.container else { return };
        let path = std::mem::take(&mut container.late_stdin);
        if path.is_empty() {
            return;
        }
        match Feed::open(plain(&path)) {
            Ok(feed) => container.stdio.ends.feed = Some(feed),
            Err(error) => {
                report(&format!("open stdin {path:?}"), &error);
                if let Some(input) = &mut container.stdio.input {
                    input.close();
                }
                self.flush_input(Key::INIT);
            }
        }
    }

    /// Opens what a client wants a process' streams to be.
    ///
    /// # Errors
    /// Names the stream.
    pub(crate) fn open_ends(&mut self, io: &TaskIo, process: &str) -> Result<Ends, Error> {
        let failed = |stream: &'static str, at: &str| {
            let at = at.to_owned();
            move |source| Error::Stream { stream, at, source }
        };
        let mut ends = Ends::default();
        if !io.stdin.is_empty() {
            let feed = Feed::open(plain(&io.stdin)).map_err(failed("stdin", &io.stdin))?;
            ends.feed = Some(feed);
        }
        // A URI of standard output speaks for both.
        let at = &io.stdout;
        if let Some(uri) = at.strip_prefix("binary://") {
            let serial = self.next_serial();
            let started = Logger::start(serial, uri, &self.arguments, process);
            let (logger, sinks) = started.map_err(failed("stdout", at))?;
            if let Some(containerd) = &mut self.containerd {
                containerd.loggers.push(logger);
            }
            ends.sinks = sinks;
            ends.sinks.truncate(if io.terminal { 1 } else { 2 });
            // The other writing end closes here, and its stream has ended for the logger.
            return Ok(ends);
        }
        if let Some(uri) = at.strip_prefix("file://") {
            let path = logger::decode(uri).map_err(failed("stdout", at))?;
            for stream in streams(io) {
                let sink = append(*stream, &path).map_err(failed("stdout", at))?;
                ends.sinks.push(sink);
            }
            return Ok(ends);
        }
        let streams = [(Stream::Stdout, "stdout", at), (Stream::Stderr, "stderr", &io.stderr)];
        for (stream, name, at) in streams {
            if at.is_empty() || (io.terminal && stream == Stream::Stderr) {
                continue;
            }
            ends.sinks.push(Sink::open(stream, plain(at)).map_err(failed(name, at))?);
        }
        Ok(ends)
    }

    /// With the task goes its cgroup, which is the daemon's business under bosund.
    ///
    /// # Errors
    /// When it can't be removed; it may be tried again.
    pub(crate) fn remove_cgroup(&self) -> Result<(), Error> {
        let Some(container) = self.container.as_ref().filter(|_| self.is_containerds()) else {
            return Ok(());
        };
        container.cgroup.remove(Instant::now() + REMOVE)?;
        Helper::new(&self.arguments).forget_scope()
    }

    /// Nothing came of the container for which a scope was made.
    pub(crate) fn forget_scope(&self) {
        if self.is_containerds()
            && let Err(error) = Helper::new(&self.arguments).forget_scope()
        {
            // What led here is the error to tell.
            report("forget the scope", &error);
        }
    }

    /// The task is no more: its mounts and its streams go. What its process said and nobody has taken
    /// yet still waits for whoever reads it, as long as the shim lives. bosund says when, by Release.
    pub(crate) fn let_go(&mut self, pid: u32, exit: Exit) {
        if !self.is_containerds() {
            return;
        }
        self.advance(ShimEvent::Release);
        let Some(container) = self.container.take() else { return };
        let mut stdio = container.stdio;
        // From here on the snapshot below is free.
        drop(container.mount_namespace);
        if stdio.flush_sinks() {
            let key = Key::exec(self.next_serial());
            let state = ExecState::Deleted { stdio };
            self.execs.push(Exec { key, id: String::new(), state, waiters: Vec::new(), io: None });
        }
        self.announce(|container_id| TaskDelete {
            container_id,
            pid,
            exit_status: exit.status.number().into(),
            exited_at: Some(exit.at.into()),
            id: String::new(),
        });
        if let Some(containerd) = &mut self.containerd {
            containerd.oom = None;
            containerd.awaits_shutdown = true;
        }
    }

    /// From now on containerd is told when the kernel kills for want of memory.
    pub(crate) fn watch_oom(&mut self) {
        if let (Some(containerd), Some(container)) = (&mut self.containerd, &self.container) {
            containerd.oom = container.cgroup.watch_oom().unwrap_or_else(|error| {
                report("watch for want of memory", &error);
                None
            });
        }
    }

    /// The kernel may have killed. Whether it had.
    pub(crate) fn look_for_oom(&mut self) -> bool {
        let Some(containerd) = &mut self.containerd else { return false };
        let killed = match containerd.oom.as_mut().map(OomWatch::killed) {
            Some(Ok(killed)) => killed,
            // The group has gone.
            Some(Err(_)) => {
                containerd.oom = None;
                false
            }
            None => false,
        };
        if killed {
            self.announce(|container_id| TaskOom { container_id });
        }
        killed
    }

    /// Memory ran out. v1 says so before it kills: what is not there yet is looked for again.
    pub(crate) fn oom(&mut self) {
        if !self.look_for_oom() {
            self.timers.oom = Some(clock::monotonic_ns() + LOOK_AGAIN_AFTER);
        }
    }

    /// A logger may have ended.
    pub(crate) fn reap_logger(&mut self, serial: u64) {
        if let Some(containerd) = &mut self.containerd {
            containerd.loggers.retain(|logger| logger.serial != serial || !logger.has_ended());
        }
    }

    /// Whether containerd or its clients are still owed something.
    pub(crate) fn owes_containerd(&self) -> bool {
        self.containerd.as_ref().is_some_and(|containerd| {
            let awaited = containerd.awaits_shutdown && !self.connections.is_empty();
            awaited || !containerd.publisher.is_empty() || !containerd.loggers.is_empty()
        }) || self.execs.iter().any(Exec::has_unsent)
    }

    /// The last act: nothing of the shim is left but its bundle, which is containerd's.
    pub(crate) fn leave_containerd(&self) {
        let Some(containerd) = &self.containerd else { return };
        for logger in &containerd.loggers {
            logger.end(Signal::TERM);
        }
        let sockets = self.arguments.sockets.path();
        if let Err(error) = remove_sockets(sockets) {
            report(&format!("remove {}", sockets.display()), &error);
        }
        // With the bundle it may have gone already.
        let _ = fs::remove_file(self.arguments.run.shim_identity());
    }

    /// The container was not made: its cgroup and scope, if there are any, are somebody else's.
    pub(crate) fn forget_cgroup(&self) {
        // It was noted under containerd only, and perhaps not yet.
        let _ = fs::remove_file(self.arguments.run.cgroup());
        let _ = fs::remove_file(self.arguments.run.scope());
    }

    /// For whoever has to clean up behind this shim.
    ///
    /// # Errors
    /// When the run directory can't be written.
    pub(crate) fn note_cgroup(&self, cgroup: &str) -> Result<(), Error> {
        if !self.is_containerds() {
            return Ok(());
        }
        let path = self.arguments.run.cgroup();
        setup::write_whole(&path, cgroup)
            .map_err(|source| Error::step("write", path.display().to_string(), source))
    }
}

/// A path, whether or not it is said that it is a FIFO's.
fn plain(at: &str) -> &str {
    at.strip_prefix("fifo://").unwrap_or(at)
}

/// The streams of a process that come apart.
fn streams(io: &TaskIo) -> &'static [Stream] {
    if io.terminal { &[Stream::Stdout] } else { &[Stream::Stdout, Stream::Stderr] }
}

fn append(stream: Stream, path: &str) -> io::Result<Sink> {
    if let Some(directory) = Path::new(path).parent() {
        fs::create_dir_all(directory)?;
    }
    Sink::append(stream, path)
}
