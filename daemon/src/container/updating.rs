//! Limits that are being changed: what they were is kept until the change is committed, or taken back.
//!
//! ```text
//!   note ─▶ group, systemd and processes are told ─▶ commit ─▶ the note goes
//!                            └─ error; the next daemon ─▶ put back ─▶ the note goes
//! ```
//!
//! The note lies in the run directory, and goes with the run. It names the record that it belongs to: one that a daemon
//! left that was killed behind the commit is of another, and nothing is put back. It holds what the control files
//! said, so that a limit is taken back where there was none before as well.

use std::io::ErrorKind;
use std::path::PathBuf;

use prost::Message as _;
use shim_cgroup::{Cgroup, Held};
use shim_wire::plan::Resources;

use super::{Key, Record, oom_score, run, scope};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::plain_file;
use crate::spec::{self, Change, Update};

/// A change of limits that is not committed yet.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Updating {
    /// The record before, as far as it is to be changed.
    #[prost(string, tag = "1")]
    record: String,
    #[prost(message, repeated, tag = "2")]
    files: Vec<File>,
    /// What the container is told to have its limits of before.
    #[prost(message, optional, tag = "3")]
    before: Option<Resources>,
    /// The score that its processes are to get.
    #[prost(int32, optional, tag = "4")]
    score: Option<i32>,
}

/// A control file, and what it said.
#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(string, tag = "2")]
    value: String,
}

impl Updating {
    /// Notes what a running container has before it is told something else.
    ///
    /// # Errors
    /// The note can't be written.
    pub(super) async fn begin(
        core: &Core,
        key: &Key,
        record: &Record,
        spec: &str,
        update: &Update,
    ) -> Result<Self> {
        let before = spec::update(&record.options, spec, &Change::default(), &core.machine)?;
        let asked = update.resources.clone();
        // What can't be read here the shim can't change either, and says so.
        let held = in_group(core, key, move |group| group.held(&asked)).await.unwrap_or_default();
        let files = held.into_iter().filter_map(|held| {
            Some(File { path: held.file.to_str()?.to_owned(), value: held.value })
        });
        let updating = Self {
            record: changeable(record)?,
            files: files.collect(),
            before: Some(lifting(before.resources, &update.resources)),
            score: update.oom_score_adj,
        };
        run::write_file(&note(core, key), &updating.encode_to_vec(), 0o600)?;
        Ok(updating)
    }

    /// What its shim is to be told, where nobody but that knows what was.
    pub(super) fn only_for_its_shim(&self) -> Option<&Resources> {
        self.before.as_ref().filter(|_| self.files.is_empty())
    }

    /// Puts back what was.
    ///
    /// # Errors
    /// The kernel's, or systemd's.
    pub(super) async fn take_back(&self, core: &Core, key: &Key, record: &Record) -> Result<()> {
        let held = |file: &File| Held { file: file.path.clone().into(), value: file.value.clone() };
        let files: Vec<Held> = self.files.iter().map(held).collect();
        in_group(core, key, move |group| group.put_back(&files)).await?;
        let path = run::container_cgroup(core, key);
        if let Some(before) = &self.before {
            scope::limit(core, &path, before).await?;
        }
        let before = record.options.oom_score_adj;
        // One that never was asked for is not known any more.
        if let (Some(score), Some(before)) = (self.score, before) {
            let changed = oom_score::change(core, path, Some(score), before).await;
            changed.map_err(|source| Error::OomScore {
                id: super::label(&record.name, &record.id),
                score: before,
                source: std::sync::Arc::new(source),
            })?;
        }
        Ok(())
    }

    /// It is committed, or taken back.
    pub(super) fn end(core: &Core, key: &Key) {
        match std::fs::remove_file(note(core, key)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(container = %key, %error, "a note of limits stays");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Takes back what a daemon before did not get committed, of a container that goes on.
pub(super) async fn settle(core: &Core, key: &Key, record: &Record) {
    let bytes = match plain_file::read(&note(core, key), plain_file::RECORD) {
        Err(error) if error.kind() == ErrorKind::NotFound => return,
        bytes => bytes,
    };
    let updating = bytes.ok().and_then(|bytes| Updating::decode(&*bytes).ok());
    let is_open = |updating: &Updating| changeable(record).is_ok_and(|it| it == updating.record);
    if let Some(updating) = updating.filter(is_open) {
        if let Err(error) = updating.take_back(core, key, record).await {
            tracing::error!(container = %key, %error, "new limits hold that are not recorded");
            return;
        }
        tracing::warn!(container = %key, "new limits that were not recorded are taken back");
    }
    Updating::end(core, key);
}

fn note(core: &Core, key: &Key) -> PathBuf {
    core.layout.run_dir(&key.namespace, &key.id).path().join("updating")
}

/// What an update changes of a record.
fn changeable(record: &Record) -> Result<String> {
    let options = &record.options;
    let text = serde_json::to_string(&(&options.limits, options.oom_score_adj));
    Ok(text.map_err(crate::store::Error::from)?)
}

/// The limits of before, and none where only the new ones name one.
fn lifting(before: Resources, asked: &Resources) -> Resources {
    let unlimited = |asked: Option<i64>| asked.map(|_| -1);
    Resources {
        memory: before.memory.or(unlimited(asked.memory)),
        memory_swap: before.memory_swap.or(unlimited(asked.memory_swap)),
        pids: before.pids.or(unlimited(asked.pids)),
        cpu_quota: before.cpu_quota.or(unlimited(asked.cpu_quota)),
        ..before
    }
}

/// Does something to a container's group; nothing to one that is gone.
async fn in_group<T: Default + Send + 'static>(
    core: &Core,
    key: &Key,
    work: impl FnOnce(&Cgroup) -> std::result::Result<T, shim_cgroup::Error> + Send + 'static,
) -> Result<T> {
    let (layout, path) = (core.cgroups.clone(), run::container_cgroup(core, key));
    let work = move || {
        let group = Cgroup::new(&layout, &path)?;
        if group.exists() { work(&group) } else { Ok(T::default()) }
    };
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopping)?;
    done.map_err(|source| Error::Limits {
        id: key.id.as_str().to_owned(),
        source: std::sync::Arc::new(source),
    })
}
