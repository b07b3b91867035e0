//! What is changed of a container that is there: whether it goes on, and its limits.

use std::sync::Arc;

use shim_wire::ttrpc::Code;

use super::{Actor, State, phase_of};
use crate::container::record::Record;
use crate::container::run::{self, Running};
use crate::container::updating::Updating;
use crate::container::{oom_score, scope};
use crate::error::{Error, Result};
use crate::shim;
use crate::spec::{self, Change, Role, Update};

impl Actor {
    /// What runs, whether it stands still or not.
    pub(super) fn present(&self) -> Option<&Arc<Running>> {
        match &self.state {
            State::Running(running) | State::Paused(running) => Some(running),
            State::Created | State::Exited(_) | State::Quarantined(_) | State::Removed => None,
        }
    }

    /// Holds the container still.
    pub(super) async fn pause(&mut self) -> Result<()> {
        let running = match &self.state {
            State::Running(running) => Arc::clone(running),
            State::Paused(_) => return Err(Error::Paused { id: self.label() }),
            State::Created | State::Exited(_) | State::Quarantined(_) | State::Removed => {
                return Err(Error::NotRunning { id: self.label() });
            }
        };
        shim_failpoints::step!("daemon.pause.before_shim", error);
        running.shim.client.pause().await.map_err(|source| self.not_done(source))?;
        shim_failpoints::step!("daemon.pause.after_shim");
        self.note("pause");
        self.state = State::Paused(running);
        self.show(phase_of(&self.state));
        Ok(())
    }

    /// Lets it go on.
    pub(super) async fn unpause(&mut self) -> Result<()> {
        let running = match &self.state {
            State::Paused(running) => Arc::clone(running),
            State::Running(_) => return Err(Error::NotPaused { id: self.label() }),
            State::Created | State::Exited(_) | State::Quarantined(_) | State::Removed => {
                return Err(Error::NotRunning { id: self.label() });
            }
        };
        shim_failpoints::step!("daemon.unpause.before_shim", error);
        running.shim.client.resume().await.map_err(|source| self.not_done(source))?;
        shim_failpoints::step!("daemon.unpause.after_shim");
        self.note("unpause");
        self.state = State::Running(running);
        self.show(phase_of(&self.state));
        Ok(())
    }

    /// A process that stands still hears a signal only when it goes on, so what is to end it lets it
    /// go on, as docker does.
    pub(super) async fn let_end(&mut self, signal: u32) {
        let stop = self.record.as_ref().and_then(|record| record.options.stop_signal);
        let ends = [spec::Signal::KILL, stop.unwrap_or(spec::Signal::TERM)];
        if matches!(self.state, State::Paused(_))
            && ends.iter().any(|ending| ending.number() == signal)
            && let Err(error) = self.unpause().await
        {
            // It may have ended of the signal already.
            tracing::debug!(container = %self.key, %error, "not unpaused");
        }
    }

    /// Changes limits: first those of a running container, which takes all of them or none, then the
    /// record. What can't be committed is taken back.
    pub(super) async fn update(&mut self, asked: &Change) -> Result<()> {
        let record = self.record()?;
        let (namespace, id) = (self.key.namespace.to_string(), record.id.clone());
        let spec: Result<Option<String>> =
            self.core.store.write(move |tx| Ok(tx.container_spec(&namespace, &id)?)).await;
        let spec = spec?.unwrap_or_default();
        let update = spec::update(&record.options, &spec, asked, &self.core.machine)?;
        let mut next = Record::clone(&record);
        next.options.limits = update.limits.clone();
        next.options.oom_score_adj = update.oom_score_adj.or(record.options.oom_score_adj);
        let running = self.present().map(Arc::clone);
        let updating = match &running {
            Some(_) => Some(Updating::begin(&self.core, &self.key, &record, &spec, &update).await?),
            None => None,
        };
        let outcome = self.carry_out(running.as_deref(), &record, &next, &update).await;
        if let (Some(updating), Some(running)) = (updating, running) {
            match &outcome {
                Ok(()) => Updating::end(&self.core, &self.key),
                Err(_) => self.take_back(&running, &record, &updating).await,
            }
        }
        outcome?;
        shim_failpoints::step!("daemon.update.before_files");
        run::rewrite_spec(&self.core, &self.key, &next, &update.json);
        self.record = Some(Arc::new(next));
        self.show(phase_of(&self.state));
        Ok(())
    }

    /// Tells what runs its new limits, and commits them.
    async fn carry_out(
        &self,
        running: Option<&Running>,
        record: &Record,
        next: &Record,
        update: &Update,
    ) -> Result<()> {
        shim_failpoints::step!("daemon.update.before_limits", error);
        if let Some(running) = running {
            running.shim.client.update(&update.resources).await.map_err(|it| self.not_done(it))?;
            shim_failpoints::step!("daemon.update.after_group", error);
            let path = run::container_cgroup(&self.core, &self.key);
            scope::limit(&self.core, &path, &update.resources).await?;
            self.tell_score(record.options.oom_score_adj, update.oom_score_adj).await?;
        }
        shim_failpoints::step!("daemon.update.before_commit", error);
        let event = self.event("update", next, Vec::new());
        let (namespace, stored, json) =
            (self.key.namespace.to_string(), next.clone(), update.json.clone());
        let committed: Result<()> = self
            .core
            .store
            .write(move |tx| {
                tx.update_container(&namespace, &stored)?;
                tx.update_spec(&namespace, &stored.id, &json)?;
                tx.event(event)?;
                Ok(())
            })
            .await;
        shim_failpoints::step!("daemon.update.after_commit");
        committed
    }

    /// Puts another text in the place of what a face keeps with it.
    pub(super) async fn keep(&mut self, face: &str, text: String) -> Result<()> {
        let mut next = Record::clone(&*self.record()?);
        next.options.extensions.insert(face.to_owned(), text);
        let (namespace, stored) = (self.key.namespace.to_string(), next.clone());
        let committed: Result<()> =
            self.core.store.write(move |tx| Ok(tx.update_container(&namespace, &stored)?)).await;
        committed?;
        self.record = Some(Arc::new(next));
        self.show(phase_of(&self.state));
        Ok(())
    }

    /// A sandbox that runs is what was asked for, from now on; without effect when it was before.
    pub(super) async fn ready(&mut self) -> Result<()> {
        if self.present().is_none() {
            return Err(Error::NotRunning { id: self.label() });
        }
        let mut next = Record::clone(&*self.record()?);
        match &mut next.options.role {
            Role::Sandbox(sandbox) if sandbox.unready => sandbox.unready = false,
            Role::Sandbox(_) | Role::Member(_) | Role::Alone => return Ok(()),
        }
        let event = self.event("ready", &next, Vec::new());
        let (namespace, stored) = (self.key.namespace.to_string(), next.clone());
        let committed: Result<()> = self
            .core
            .store
            .write(move |tx| {
                tx.update_container(&namespace, &stored)?;
                Ok(tx.event(event).map(drop)?)
            })
            .await;
        committed?;
        self.record = Some(Arc::new(next));
        self.show(phase_of(&self.state));
        Ok(())
    }

    /// Those of its processes that have the score of before get the next one.
    async fn tell_score(&self, before: Option<i32>, next: Option<i32>) -> Result<()> {
        let Some(next) = next.filter(|_| next != before) else { return Ok(()) };
        let path = run::container_cgroup(&self.core, &self.key);
        oom_score::change(&self.core, path, before, next).await.map_err(|source| Error::OomScore {
            id: self.label(),
            score: next,
            source: Arc::new(source),
        })
    }

    /// Puts back what was before an update of which nothing came. What can't be is tried again by the next
    /// daemon.
    async fn take_back(&self, running: &Running, record: &Record, updating: &Updating) {
        let told = match updating.only_for_its_shim() {
            Some(before) => running.shim.client.update(before).await,
            None => Ok(()),
        };
        let told = told.map_err(|source| self.not_done(source));
        let back = match told {
            Ok(()) => updating.take_back(&self.core, &self.key, record).await,
            Err(error) => Err(error),
        };
        match back {
            // What has ended has no limits.
            Ok(()) | Err(Error::NotRunning { .. }) => Updating::end(&self.core, &self.key),
            Err(error) => {
                tracing::error!(container = %self.key, %error, "new limits hold that are not recorded");
            }
        }
    }

    /// What a shim answers, in the container's terms.
    fn not_done(&self, source: shim::Error) -> Error {
        use shim::Error::{Gone, Refused};
        let over = [Code::NotFound, Code::FailedPrecondition];
        let id = self.label();
        match source {
            // Its exit is on the way.
            Gone { .. } => Error::NotRunning { id },
            Refused { code, .. } if over.contains(&code) => Error::NotRunning { id },
            Refused { .. }
            | shim::Error::Io { .. }
            | shim::Error::TimedOut { .. }
            | shim::Error::Malformed { .. }
            | shim::Error::AttachRefused { .. } => Error::Shim { id, source: Arc::new(source) },
        }
    }

    fn note(&self, action: &str) {
        if let Some(record) = &self.record {
            let event = self.event(action, record, Vec::new());
            self.core.store.write_soon(move |tx| tx.event(event).map(|_| ()));
        }
    }
}
