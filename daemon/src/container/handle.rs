//! A container, seen from outside its actor: what it is like now, and how to ask it for something.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::actor::Command;
use super::record::{Exit, Record};
use super::run::Running;
use super::{Key, label};
use crate::error::{Error, Result};
use crate::time::Time;

/// What is volatile of a container.
#[derive(Clone, Debug)]
pub enum Phase {
    Created,
    Starting,
    Running(Arc<Running>),
    /// It stands still.
    Paused(Arc<Running>),
    Exited(Exit),
    /// The record is gone; the exit of its last run, if it ever ran.
    Removed(Option<Exit>),
    /// The record can't be read.
    Quarantined(String),
}

/// A container at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// `None` for a quarantined one.
    pub record: Option<Arc<Record>>,
    pub phase: Phase,
}

/// The way to a container. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) key: Key,
    pub(super) name: String,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) view: watch::Receiver<View>,
}

impl Handle {
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// As errors name it.
    #[must_use]
    pub fn label(&self) -> String {
        label(&self.name, self.key.id.as_str())
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its place in the order of creations, which no clock changes: the number of its snapshot. Those
    /// without one, as sandboxes are, are in the clock's order. `None` for a quarantined one.
    #[must_use]
    pub fn order(&self) -> Option<(i64, Time)> {
        let view = self.view.borrow();
        view.record.as_ref().map(|record| (record.snapshot, record.created_at))
    }

    /// What it is like now.
    #[must_use]
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// The running side, whether it stands still or not.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn running(&self) -> Result<Arc<Running>> {
        match &self.view.borrow().phase {
            Phase::Running(running) | Phase::Paused(running) => Ok(Arc::clone(running)),
            Phase::Created
            | Phase::Starting
            | Phase::Exited(_)
            | Phase::Removed(_)
            | Phase::Quarantined(_) => Err(Error::NotRunning { id: self.label() }),
        }
    }

    /// Whether it is no container, but what a pod's containers share.
    #[must_use]
    pub fn is_sandbox(&self) -> bool {
        let view = self.view.borrow();
        view.record.as_ref().is_some_and(|record| record.is_sandbox())
    }

    /// The record.
    ///
    /// # Errors
    /// [`Error::Quarantined`] when it can't be read.
    pub fn record(&self) -> Result<Arc<Record>> {
        let view = self.view.borrow();
        match (&view.record, &view.phase) {
            (Some(record), _) => Ok(Arc::clone(record)),
            (None, Phase::Quarantined(problem)) => {
                Err(Error::Quarantined { id: self.label(), problem: problem.clone() })
            }
            (None, _) => Err(Error::Removing { id: self.label() }),
        }
    }

    /// Waits for the end of the present run, or of the next one when none is going on. A container
    /// that has ended answers at once; one that is removed without ever having run answers `None`.
    pub async fn ended(&self) -> Option<Exit> {
        let mut view = self.view.clone();
        loop {
            match &view.borrow_and_update().phase {
                Phase::Exited(exit) => return Some(exit.clone()),
                Phase::Removed(exit) => return exit.clone(),
                Phase::Created
                | Phase::Starting
                | Phase::Running(_)
                | Phase::Paused(_)
                | Phase::Quarantined(_) => {}
            }
            if view.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Waits until the last run has let go of the container's files.
    ///
    /// # Errors
    /// It does not; or the container is being removed.
    pub async fn settled(&self) -> Result<()> {
        self.ask(|answer| Command::Settle { answer }).await
    }

    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let gone = || Error::Removing { id: self.label() };
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}
