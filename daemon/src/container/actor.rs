//! The one owner of a container's state: a task, fed by a closed enum of commands.
//!
//! Commands are short: what waits for a process (stop, wait) waits outside, on the view. An exit is
//! committed before anybody hears of it, and before the shim is told to go.

mod change;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shim_wire::attach::Hello;
use shim_wire::exit::{ExitRecord, ExitStatus};
use shim_wire::lifecycle::{self, Verdict, Witness};
use shim_wire::removal::{self, Removal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::adopted;
use super::handle::{Handle, Phase, View};
use super::peer::Peer;
use super::record::{Exit, Lease, Record, Run};
use super::recover;
use super::registry::Registry;
use super::run::{self, Prepared, Running, Start};
use super::{Key, label};
use crate::checkpoint;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::network::PortOwner;
use crate::plain_file;
use crate::requests::Request;
use crate::shim::{self, Attached, boot_id};
use crate::spec::{Change, Role, Signal};
use crate::store::NewEvent;

/// How long a start or a removal waits for the run before it to let go of its files.
const LET_GO: Duration = Duration::from_secs(30);

/// How long a killed container has to end.
const KILLED: Duration = Duration::from_secs(10);

/// How long a lost shim's process has to end before it is killed.
const LOST: Duration = Duration::from_secs(2);

/// Between two tries to commit an exit.
const COMMIT_AGAIN: Duration = Duration::from_secs(1);

/// What a container can be told.
#[derive(Debug)]
pub(super) enum Command {
    Start {
        begin: Begin,
        answer: oneshot::Sender<Result<Started>>,
    },
    /// Sends a signal to process 1.
    Kill {
        signal: u32,
        answer: oneshot::Sender<Result<()>>,
    },
    Pause {
        answer: oneshot::Sender<Result<()>>,
    },
    Unpause {
        answer: oneshot::Sender<Result<()>>,
    },
    Update {
        change: Change,
        answer: oneshot::Sender<Result<()>>,
    },
    /// Puts another text in the place of what a face keeps with it.
    Keep {
        face: &'static str,
        text: String,
        answer: oneshot::Sender<Result<()>>,
    },
    /// A sandbox is what was asked for.
    Ready {
        answer: oneshot::Sender<Result<()>>,
    },
    /// Answers once the last run has let go of its files.
    Settle {
        answer: oneshot::Sender<Result<()>>,
    },
    Remove {
        force: bool,
        /// A creation that is undone, and may be asked for again.
        forget: Option<Request>,
        answer: oneshot::Sender<Result<()>>,
    },
    /// Something of the run before is left.
    Dismantle,
    /// The run of this number has ended, or its shim has.
    Ended {
        attempt: u64,
        announced: Option<shim::Exited>,
    },
}

/// What a start is asked for with.
#[derive(Debug, Default)]
pub(super) struct Begin {
    /// Set when the intent was committed with the record (`run`).
    pub committed: Option<Start>,
    pub peer: Option<Peer>,
    pub hello: Option<Hello>,
    /// The ports of others, so that an error can name their holder.
    pub owners: Vec<PortOwner>,
}

/// A start's answer.
#[derive(Debug)]
pub(super) struct Started {
    pub pid: u32,
    pub attached: Option<Attached>,
}

/// What the actor holds of the present run.
#[derive(Debug)]
enum State {
    Created,
    Running(Arc<Running>),
    /// It stands still.
    Paused(Arc<Running>),
    Exited(Exit),
    Quarantined(String),
    Removed,
}

#[derive(Debug)]
pub(super) struct Actor {
    core: Arc<Core>,
    registry: Arc<Registry>,
    key: Key,
    name: String,
    record: Option<Arc<Record>>,
    state: State,
    view: watch::Sender<View>,
    commands: mpsc::UnboundedSender<Command>,
    /// The end of the run before, while it still holds files.
    letting_go: Option<JoinHandle<()>>,
    /// How a run ended, while the store does not take it.
    uncommitted: Option<(u64, Exit)>,
}

impl Actor {
    /// Makes the task of a container and its entry in the registry.
    pub(super) fn spawn(
        core: &Arc<Core>,
        registry: &Arc<Registry>,
        key: Key,
        name: String,
        record: std::result::Result<Record, String>,
    ) -> Handle {
        Self::spawn_with(core, registry, key, name, record, None)
    }

    /// As [`Actor::spawn`], for a container of which a run has ended that the store could not be told
    /// of: it is told again and again.
    pub(super) fn spawn_ended(
        core: &Arc<Core>,
        registry: &Arc<Registry>,
        key: Key,
        record: Record,
        (attempt, exit): (u64, Exit),
    ) {
        let name = record.name.clone();
        let ended = Some((attempt, exit));
        let handle = Self::spawn_with(core, registry, key, name, Ok(record), ended);
        // The actor ends only after the container is removed.
        let _ = handle.commands.send(Command::Ended { attempt, announced: None });
    }

    fn spawn_with(
        core: &Arc<Core>,
        registry: &Arc<Registry>,
        key: Key,
        name: String,
        record: std::result::Result<Record, String>,
        uncommitted: Option<(u64, Exit)>,
    ) -> Handle {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (record, state) = match record {
            Err(problem) => (None, State::Quarantined(problem)),
            Ok(record) => {
                let state = match &record.run {
                    Run::Created { .. } | Run::Intent { .. } => State::Created,
                    Run::Ended { exit, .. } => State::Exited(exit.clone()),
                };
                (Some(Arc::new(record)), state)
            }
        };
        let phase = if uncommitted.is_some() { Phase::Starting } else { phase_of(&state) };
        let (view, seen) = watch::channel(View { record: record.clone(), phase });
        let handle =
            Handle { key: key.clone(), name: name.clone(), commands: commands.clone(), view: seen };
        registry.insert(handle.clone());
        let actor = Self {
            core: Arc::clone(core),
            registry: Arc::clone(registry),
            key,
            name,
            record,
            state,
            view,
            commands,
            letting_go: None,
            uncommitted,
        };
        tokio::spawn(actor.serve(inbox));
        handle
    }

    /// As [`Actor::spawn`], for a container that a living shim runs, or holds still.
    pub(super) fn adopt(
        core: &Arc<Core>,
        registry: &Arc<Registry>,
        key: Key,
        record: Record,
        running: Running,
        paused: bool,
    ) -> Handle {
        let name = record.name.clone();
        let (commands, inbox) = mpsc::unbounded_channel();
        let record = Arc::new(record);
        let running = Arc::new(running);
        let state = match paused {
            true => State::Paused(Arc::clone(&running)),
            false => State::Running(Arc::clone(&running)),
        };
        let (view, seen) =
            watch::channel(View { record: Some(Arc::clone(&record)), phase: phase_of(&state) });
        let handle =
            Handle { key: key.clone(), name: name.clone(), commands: commands.clone(), view: seen };
        registry.insert(handle.clone());
        tokio::spawn(watch_run(Arc::clone(&running), commands.clone()));
        let actor = Self {
            core: Arc::clone(core),
            registry: Arc::clone(registry),
            key,
            name,
            record: Some(record),
            state,
            view,
            commands,
            letting_go: None,
            uncommitted: None,
        };
        actor.images_are_spent();
        tokio::spawn(actor.serve(inbox));
        handle
    }

    async fn serve(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        while let Some(command) = inbox.recv().await {
            // An answer that nobody waits for any more is no trouble.
            match command {
                Command::Start { begin, answer } => {
                    let _ = answer.send(self.start(begin).await);
                }
                Command::Kill { signal, answer } => {
                    let _ = answer.send(self.kill(signal).await);
                }
                Command::Pause { answer } => {
                    let _ = answer.send(self.pause().await);
                }
                Command::Unpause { answer } => {
                    let _ = answer.send(self.unpause().await);
                }
                Command::Update { change, answer } => {
                    let _ = answer.send(self.update(&change).await);
                }
                Command::Keep { face, text, answer } => {
                    let _ = answer.send(self.keep(face, text).await);
                }
                Command::Ready { answer } => {
                    let _ = answer.send(self.ready().await);
                }
                Command::Settle { answer } => {
                    let _ = answer.send(self.wait_until_free().await);
                }
                Command::Remove { force, forget, answer } => {
                    let _ = answer.send(self.remove(force, forget).await);
                }
                Command::Dismantle => self.go_on_dismantling(),
                Command::Ended { attempt, announced } => self.ended(attempt, announced).await,
            }
            if matches!(self.state, State::Removed) {
                return;
            }
        }
    }

    /// As errors name it.
    fn label(&self) -> String {
        label(&self.name, self.key.id.as_str())
    }

    fn record(&self) -> Result<Arc<Record>> {
        match (&self.record, &self.state) {
            (Some(record), _) => Ok(Arc::clone(record)),
            (None, State::Quarantined(problem)) => {
                Err(Error::Quarantined { id: self.label(), problem: problem.clone() })
            }
            (
                None,
                State::Created
                | State::Running(_)
                | State::Paused(_)
                | State::Exited(_)
                | State::Removed,
            ) => Err(Error::Removing { id: self.label() }),
        }
    }

    fn show(&self, phase: Phase) {
        self.view.send_replace(View { record: self.record.clone(), phase });
    }

    async fn start(&mut self, begin: Begin) -> Result<Started> {
        let record = self.record()?;
        match self.state {
            State::Running(_) => return Err(Error::AlreadyRunning { id: self.label() }),
            State::Paused(_) => return Err(Error::Paused { id: self.label() }),
            State::Created | State::Exited(_) | State::Quarantined(_) | State::Removed => {}
        }
        self.settle_end().await?;
        self.wait_until_free().await?;
        // Somebody may be writing to its files.
        let turn = tokio::time::timeout(LET_GO, self.core.trees.wait(self.key.clone())).await;
        let _turn =
            turn.map_err(|_| Error::StillHeld { id: self.label(), seconds: LET_GO.as_secs() })?;
        let Begin { committed, peer, hello, owners } = begin;
        let (attempt, start) = match committed {
            Some(start) => (record.run.attempts(), Start { peer, hello, ..start }),
            None => self.commit_intent(&record, peer, hello, &owners).await?,
        };
        self.show(Phase::Starting);
        let record = self.record()?;
        let lease = start.prepared.lease.clone();
        match run::run(&self.core, &self.key, &record, attempt, start).await {
            Ok((running, attached)) => Ok(self.started(running, attached)),
            Err(failed) => {
                self.not_started(attempt, lease.as_ref(), &failed).await?;
                Err(failed.error)
            }
        }
    }

    /// A start failed: it is undone, or ended when its process may have got to its exec.
    async fn not_started(
        &mut self,
        attempt: u64,
        lease: Option<&Lease>,
        failed: &run::Failed,
    ) -> Result<()> {
        let seen = self.end_unwatched(failed.pid.unwrap_or(0)).await;
        let record = read_exit_record(&self.core, &self.key);
        let recorded = record.as_ref().map(ExitRecord::recorded);
        match lifecycle::failed_start(attempt, failed.told, recorded) {
            Verdict::Commit { reason, .. } => {
                let exit = match (reason, &record) {
                    (lifecycle::Reason::Exited, Some(record)) => Exit::recorded(record),
                    (_, _) => seen,
                };
                let committed = self.commit_exit(attempt, &exit).await;
                run::let_go(&self.core, &self.key, lease, None, attempt).await;
                if let Err(error) = committed {
                    // What is left of it tells the next daemon that it ran.
                    self.uncommitted = Some((attempt, exit));
                    self.end_later(attempt);
                    return Err(error);
                }
                self.tell(exit);
                self.take_apart(None);
                Ok(())
            }
            Verdict::Undo | Verdict::Adopt | Verdict::Settle => {
                run::let_go(&self.core, &self.key, lease, None, attempt).await;
                if !run::dismantle(&self.core, &self.key, None).await {
                    self.go_on_dismantling();
                }
                self.start_failed(attempt, &failed.error).await
            }
        }
    }

    async fn commit_intent(
        &mut self,
        record: &Record,
        peer: Option<Peer>,
        hello: Option<Hello>,
        owners: &[PortOwner],
    ) -> Result<(u64, Start)> {
        self.core.store.expect_room()?;
        let prepared = run::prepare(&self.core, record, owners)?;
        let attempt = record.run.durable().next_attempt();
        let mut next = record.clone();
        next.run =
            Run::Intent { attempt, boot_id: boot_id().to_owned(), lease: prepared.lease.clone() };
        // Of this run it is not known yet.
        next.started_at = None;
        let lease = prepared.lease.clone();
        let namespace = self.key.namespace.to_string();
        let stored = next.clone();
        let committed: Result<Option<String>> = self
            .core
            .store
            .write(move |tx| {
                tx.update_container(&namespace, &stored)?;
                Ok(tx.container_spec(&namespace, &stored.id)?)
            })
            .await;
        shim_failpoints::step!("daemon.start.after_intent");
        match committed {
            Ok(spec) => {
                let spec = spec.filter(|spec| !spec.is_empty());
                // What was lost with the store can be made again of what was asked for.
                let spec = match spec {
                    Some(spec) => spec,
                    None => run::generate(&self.core, &self.key, &next.options)?.json,
                };
                self.record = Some(Arc::new(next));
                Ok((attempt, Start { prepared, spec, peer, hello }))
            }
            Err(error) => {
                give_back(&self.core, lease.map(|lease| lease.address));
                Err(error)
            }
        }
    }

    fn started(&mut self, running: Running, attached: Option<Attached>) -> Started {
        self.images_are_spent();
        let running = Arc::new(running);
        let mut record = self.record.as_deref().cloned();
        if let Some(record) = &mut record {
            record.started_at = Some(running.started_at);
            let (namespace, stored) = (self.key.namespace.to_string(), record.clone());
            let event = self.event("start", record, Vec::new());
            self.core.store.write_soon(move |tx| {
                tx.update_container(&namespace, &stored)?;
                tx.event(event).map(|_| ())
            });
        }
        self.record = record.map(Arc::new);
        self.state = State::Running(Arc::clone(&running));
        self.show(phase_of(&self.state));
        let pid = running.pid;
        tokio::spawn(watch_run(running, self.commands.clone()));
        Started { pid, attached }
    }

    /// It has run from the images of a checkpoint, if it was made from one.
    fn images_are_spent(&self) {
        let directory = self.core.layout.container_dir(&self.key.namespace, &self.key.id);
        if let Some(record) = &self.record {
            checkpoint::restore::spent(&self.core, record, &directory);
        }
    }

    async fn start_failed(&mut self, attempt: u64, error: &Error) -> Result<()> {
        let mut record = Record::clone(&*self.record()?);
        record.run = Run::Created { attempts: attempt, error: Some(crate::api::sentence(error)) };
        let (namespace, stored) = (self.key.namespace.to_string(), record.clone());
        self.record = Some(Arc::new(record));
        self.state = State::Created;
        self.show(Phase::Created);
        self.core.store.write(move |tx| tx.update_container(&namespace, &stored)).await?;
        Ok(())
    }

    async fn kill(&mut self, signal: u32) -> Result<()> {
        let Some(running) = self.present().map(Arc::clone) else {
            return Err(Error::NotRunning { id: self.label() });
        };
        shim_failpoints::step!("daemon.stop.before_signal", error);
        let record = self.record()?;
        let event = self.event("kill", &record, vec![("signal", signal.to_string())]);
        self.core.store.write_soon(move |tx| tx.event(event).map(|_| ()));
        let killed = running.shim.client.kill("", signal, false).await;
        self.let_end(signal).await;
        match killed {
            // It has ended meanwhile: its exit is on the way.
            Ok(()) | Err(shim::Error::Gone { .. }) => Ok(()),
            Err(shim::Error::Refused { code: shim_wire::ttrpc::Code::NotFound, .. }) => Ok(()),
            // A shim that hangs does not stop a kill: the container dies by its cgroup, and a shim
            // that can't record that goes with it.
            Err(shim::Error::TimedOut { .. }) if signal == Signal::KILL.number() => {
                run::kill_cgroup(&self.core, &self.key).await;
                running.shim.process.kill();
                Ok(())
            }
            Err(source) => Err(Error::Shim { id: self.label(), source: Arc::new(source) }),
        }
    }

    /// The run has ended, or its shim has: find out how, commit it, tell, and take it apart.
    async fn ended(&mut self, attempt: u64, announced: Option<shim::Exited>) {
        let running = self.present().filter(|running| running.attempt == attempt).map(Arc::clone);
        let exit = match (self.uncommitted.take_if(|(of, _)| *of == attempt), &running) {
            (Some((_, exit)), _) => exit,
            (None, Some(running)) => self.end_of(running, announced).await,
            (None, None) => return,
        };
        if let Err(error) = self.commit_exit(attempt, &exit).await {
            tracing::error!(container = %self.key, %error, "exit not committed: it is tried again");
            self.uncommitted = Some((attempt, exit));
            self.end_later(attempt);
            return;
        }
        shim_failpoints::step!("daemon.stop.after_exit_committed");
        if let Some(running) = &running {
            let (lease, shim) = (running.lease.as_ref(), Some(&running.shim));
            run::let_go(&self.core, &self.key, lease, shim, attempt).await;
        }
        self.tell(exit);
        self.take_apart(running);
    }

    /// Commits the end of a run of which nothing is left but that.
    async fn settle_end(&mut self) -> Result<()> {
        if self.present().is_some() {
            return Ok(());
        }
        if let Some((attempt, _)) = self.uncommitted {
            self.ended(attempt, None).await;
        }
        match self.uncommitted {
            Some(_) => Err(Error::EndNotRecorded { id: self.label() }),
            None => Ok(()),
        }
    }

    /// How a run ended.
    async fn end_of(&self, running: &Running, announced: Option<shim::Exited>) -> Exit {
        let record = read_exit_record(&self.core, &self.key);
        let recorded = record.as_ref().map(ExitRecord::recorded);
        let witness = lifecycle::witness(running.attempt, recorded, announced.is_some());
        match (witness, &record, announced) {
            (Witness::Record, Some(record), _) => Exit::recorded(record),
            (Witness::Shim, _, Some(announced)) => announced_exit(announced),
            (Witness::Record | Witness::Shim | Witness::Nobody, _, _) => {
                self.shim_lost(running).await
            }
        }
    }

    /// Tries again to commit an exit.
    fn end_later(&self, attempt: u64) {
        let commands = self.commands.clone();
        tokio::spawn(async move {
            tokio::time::sleep(COMMIT_AGAIN).await;
            // The actor ends only after the container is removed.
            let _ = commands.send(Command::Ended { attempt, announced: None });
        });
    }

    /// The shim is gone without a word. The container dies with it; its real code is kept when the
    /// kernel handed the process to us.
    async fn shim_lost(&self, running: &Running) -> Exit {
        tracing::warn!(container = %self.key, shim = running.shim.process.pid(), "shim lost");
        if !running.shim.process.ended(LOST).await {
            running.shim.process.kill();
            running.shim.process.ended(LOST).await;
        }
        let record = read_exit_record(&self.core, &self.key);
        let recorded = record.as_ref().map(ExitRecord::recorded);
        match (lifecycle::witness(running.attempt, recorded, false), &record) {
            // It has written that as its last act.
            (Witness::Record, Some(record)) => Exit::recorded(record),
            (Witness::Record | Witness::Shim | Witness::Nobody, _) => {
                self.end_unwatched(running.pid).await
            }
        }
    }

    /// Ends a container that no shim watches any more.
    async fn end_unwatched(&self, pid: u32) -> Exit {
        run::kill_cgroup(&self.core, &self.key).await;
        let status = adopted::reap(i32::try_from(pid).unwrap_or(0)).await;
        Exit::seen(status.unwrap_or(ExitStatus::Unknown), lifecycle::Reason::ShimLost)
    }

    /// Commits the end of a run; with `auto_remove`, the end of the container too.
    async fn commit_exit(&mut self, attempt: u64, exit: &Exit) -> Result<()> {
        let mut record = Record::clone(&*self.record()?);
        record.run = Run::Ended { attempt, exit: exit.clone() };
        let auto_remove = record.options.auto_remove;
        let events = self.exit_events(&record, exit);
        let namespace = self.key.namespace.to_string();
        let stored = record.clone();
        let leaves_garbage = self
            .core
            .store
            .write(move |tx| -> Result<bool> {
                for event in events {
                    tx.event(event)?;
                }
                if auto_remove {
                    tx.remove_snapshot(stored.snapshot)?;
                    return Ok(tx.remove_container(&namespace, &stored)?);
                }
                tx.update_container(&namespace, &stored)?;
                Ok(false)
            })
            .await?;
        if leaves_garbage {
            self.core.collector.nudge();
        }
        self.record = Some(Arc::new(record));
        self.images_are_spent();
        Ok(())
    }

    /// Tells everybody of an exit that is committed. The ports are free by now, and with
    /// `auto_remove` so is the name.
    fn tell(&mut self, exit: Exit) {
        self.state = State::Exited(exit.clone());
        if self.record.as_ref().is_some_and(|record| record.options.auto_remove) {
            self.registry.remove(&self.key.namespace, &self.name, self.key.id.as_str());
            self.show(Phase::Removed(Some(exit)));
        } else {
            self.show(phase_of(&self.state));
        }
    }

    fn exit_events(&self, record: &Record, exit: &Exit) -> Vec<NewEvent> {
        let mut events = Vec::new();
        if exit.oom_killed {
            events.push(self.event("oom", record, Vec::new()));
        }
        let code = ("exitCode", exit.status.number().to_string());
        events.push(self.event("die", record, vec![code]));
        if record.options.auto_remove {
            events.push(self.event("destroy", record, Vec::new()));
        }
        events
    }

    /// The rest of a run's end, beside other work; what needs its files waits for it.
    fn take_apart(&mut self, running: Option<Arc<Running>>) {
        let (core, key) = (Arc::clone(&self.core), self.key.clone());
        let erase = match &self.record {
            Some(record) if record.options.auto_remove => Some(record.snapshot),
            Some(_) | None => None,
        };
        if erase.is_some() {
            self.state = State::Removed;
        }
        self.letting_go = Some(tokio::spawn(async move {
            let shim = running.as_ref().map(|running| &running.shim.process);
            run::dismantle_all(&core, &key, shim).await;
            if let Some(snapshot) = erase {
                finish_removal(&core, &key, snapshot).await;
            }
        }));
    }

    /// Of a run something did not go: it is tried again beside other work, and a start waits for it.
    fn go_on_dismantling(&mut self) {
        let (core, key) = (Arc::clone(&self.core), self.key.clone());
        self.letting_go = Some(tokio::spawn(async move {
            run::dismantle_all(&core, &key, None).await;
        }));
    }

    async fn wait_until_free(&mut self) -> Result<()> {
        let Some(letting_go) = &mut self.letting_go else { return Ok(()) };
        match tokio::time::timeout(LET_GO, letting_go).await {
            Ok(_) => {
                self.letting_go = None;
                Ok(())
            }
            Err(_) => Err(Error::StillHeld { id: self.label(), seconds: LET_GO.as_secs() }),
        }
    }

    async fn remove(&mut self, force: bool, forget: Option<Request>) -> Result<()> {
        if let State::Quarantined(_) = self.state {
            return self.remove_quarantined(force).await;
        }
        self.settle_end().await?;
        match removal::asked(self.present().is_some(), force) {
            Removal::Commit => {}
            Removal::Refuse => return Err(Error::StillRunning { id: self.label() }),
            Removal::EndFirst => {
                self.end_now().await?;
                if removal::asked(self.present().is_some(), false) != Removal::Commit {
                    return Err(Error::EndNotRecorded { id: self.label() });
                }
            }
        }
        if let State::Removed = self.state {
            return Ok(());
        }
        let record = self.record()?;
        let event = self.event("destroy", &record, Vec::new());
        let namespace = self.key.namespace.to_string();
        let stored = Arc::clone(&record);
        let leaves_garbage = self
            .core
            .store
            .write(move |tx| -> Result<bool> {
                tx.event(event)?;
                tx.remove_snapshot(stored.snapshot)?;
                if let Some(request) = forget {
                    tx.forget_request(&namespace, &request.id)?;
                }
                Ok(tx.remove_container(&namespace, &stored)?)
            })
            .await?;
        if leaves_garbage {
            self.core.collector.nudge();
        }
        shim_failpoints::step!("daemon.delete.after_commit");
        let exit = match &self.state {
            State::Exited(exit) => Some(exit.clone()),
            State::Created
            | State::Running(_)
            | State::Paused(_)
            | State::Quarantined(_)
            | State::Removed => None,
        };
        self.registry.remove(&self.key.namespace, &self.name, self.key.id.as_str());
        self.state = State::Removed;
        self.show(Phase::Removed(exit));
        let (core, key, before) =
            (Arc::clone(&self.core), self.key.clone(), self.letting_go.take());
        tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            finish_removal(&core, &key, record.snapshot).await;
        });
        Ok(())
    }

    /// Kills what runs and commits its end.
    async fn end_now(&mut self) -> Result<()> {
        let Some(running) = self.present().map(Arc::clone) else { return Ok(()) };
        self.kill(Signal::KILL.number()).await?;
        let wait = running.shim.client.wait("");
        let announced = match tokio::time::timeout(KILLED, wait).await {
            Ok(announced) => announced.ok(),
            Err(_) => {
                // A shim that hangs does not stop a removal.
                running.shim.process.kill();
                None
            }
        };
        self.ended(running.attempt, announced).await;
        Ok(())
    }

    async fn remove_quarantined(&mut self, force: bool) -> Result<()> {
        let gone = recover::end_quarantined(&self.core, &self.key, &self.name, force).await?;
        let name = self.name.clone();
        let (namespace, id) = (self.key.namespace.to_string(), self.key.id.to_string());
        let snapshot = self
            .core
            .store
            .write(move |tx| -> Result<Option<i64>> {
                let snapshot = tx.snapshot(&namespace, &id)?.map(|row| row.number);
                if let Some(number) = snapshot {
                    tx.remove_snapshot(number)?;
                }
                tx.remove_quarantined(&namespace, &id, &name, snapshot)?;
                Ok(snapshot)
            })
            .await?;
        recover::remove_rest(&self.core, &self.key, snapshot, gone).await;
        self.core.collector.nudge();
        self.registry.remove(&self.key.namespace, &self.name, self.key.id.as_str());
        self.state = State::Removed;
        self.show(Phase::Removed(None));
        Ok(())
    }

    fn event(
        &self,
        action: &str,
        record: &Record,
        attributes: Vec<(&'static str, String)>,
    ) -> NewEvent {
        container_event(&self.key, record, action, attributes)
    }
}

/// Of a container's event: the pod that it is in.
pub(crate) const POD: &str = "pod";

/// Of a sandbox's event: nobody has said yet that it is what was asked for.
pub(crate) const UNREADY: &str = "unready";

/// Of a sandbox's events: when it was made.
pub(crate) const CREATED: &str = "created";

/// An event of a container.
pub(super) fn container_event(
    key: &Key,
    record: &Record,
    action: &str,
    mut attributes: Vec<(&'static str, String)>,
) -> NewEvent {
    attributes.push(("name", record.name.clone()));
    attributes.push(("image", record.image_name()));
    match &record.options.role {
        Role::Member(pod) => attributes.push((POD, pod.clone())),
        Role::Sandbox(sandbox) => {
            attributes.push((CREATED, record.created_at.rfc3339()));
            if sandbox.unready {
                attributes.push((UNREADY, true.to_string()));
            }
        }
        Role::Alone => {}
    }
    let mut attributes: BTreeMap<String, String> =
        attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    // Of its life, which others follow when it is over; not of each exec, of which there are many.
    if matches!(action, "create" | "ready" | "start" | "die" | "destroy") {
        let faces = record.options.event_attributes.iter();
        attributes.extend(faces.map(|(key, value)| (key.clone(), value.clone())));
    }
    NewEvent {
        namespace: key.namespace.to_string(),
        kind: if record.is_sandbox() { "sandbox" } else { "container" }.to_owned(),
        action: action.to_owned(),
        id: key.id.to_string(),
        attributes,
    }
}

fn phase_of(state: &State) -> Phase {
    match state {
        State::Created => Phase::Created,
        State::Running(running) => Phase::Running(Arc::clone(running)),
        State::Paused(running) => Phase::Paused(Arc::clone(running)),
        State::Exited(exit) => Phase::Exited(exit.clone()),
        State::Quarantined(problem) => Phase::Quarantined(problem.clone()),
        State::Removed => Phase::Removed(None),
    }
}

/// Removes what a removed container left, and says so in the store: now, and where that fails again and
/// again beside the caller, and at the next start.
pub(super) async fn finish_removal(core: &Arc<Core>, key: &Key, snapshot: impl Into<Option<i64>>) {
    let snapshot = snapshot.into();
    if erased(core, key, snapshot).await {
        return;
    }
    let (core, key) = (Arc::clone(core), key.clone());
    tokio::spawn(run::again_and_again(move || {
        let (core, key) = (Arc::clone(&core), key.clone());
        async move { erased(&core, &key, snapshot).await }
    }));
}

async fn erased(core: &Core, key: &Key, snapshot: Option<i64>) -> bool {
    if let Err(error) = run::erase(core, key, snapshot).await {
        tracing::warn!(container = %key, %error, "not all removed: tried again");
        return false;
    }
    true
}

/// The exit record of a container, whichever run's it is; `None` when there is none, or one that can't
/// be read.
pub(super) fn read_exit_record(core: &Core, key: &Key) -> Option<ExitRecord> {
    let path = core.layout.container_dir(&key.namespace, &key.id).exit();
    let text = plain_file::read_text(&path, plain_file::NOTE)
        .inspect_err(|error| {
            if plain_file::is_damage(error) {
                tracing::warn!(container = %key, %error, "exit record");
            }
        })
        .ok()?;
    ExitRecord::decode(&text)
        .inspect_err(|error| tracing::warn!(container = %key, %error, "exit record"))
        .ok()
}

/// What the shim said, when its record can't be read: a disk that failed under it.
fn announced_exit(announced: shim::Exited) -> Exit {
    let status = match u8::try_from(announced.status) {
        Ok(255) | Err(_) => ExitStatus::Unknown,
        Ok(number @ 129..=192) => ExitStatus::Signal(number - 128),
        Ok(code) => ExitStatus::Code(code),
    };
    Exit {
        status: status.into(),
        reason: lifecycle::Reason::Exited.into(),
        oom_killed: false,
        at: announced.at.into(),
    }
}

/// Waits for the end of a run, or of its shim, and tells the actor.
async fn watch_run(running: Arc<Running>, commands: mpsc::UnboundedSender<Command>) {
    let announced = running.shim.client.wait("").await.ok();
    // The actor ends only after the container is removed.
    let _ = commands.send(Command::Ended { attempt: running.attempt, announced });
}

/// Takes an address back that no run will use.
pub(super) fn give_back(core: &Core, address: Option<std::net::Ipv4Addr>) {
    if let Some(address) = address {
        core.network.free(address);
    }
}

impl Prepared {
    /// Nothing came of it.
    pub(super) fn abandon(self, core: &Core) {
        give_back(core, self.lease.map(|lease| lease.address));
    }
}
