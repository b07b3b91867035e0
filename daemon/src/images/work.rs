//! What every way into the store has in common: a lease for as long as it takes, and a name at the
//! end.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bosun_image::{Descriptor, Reference};
use futures::future::BoxFuture;

use super::Images;
use super::layers::Job;
use super::progress::Board;
use crate::container::random_id;
use crate::content::Ingest;
use crate::error::{Error, Result};
use crate::gc::Mode;
use crate::leases::WORK_LABEL;
use crate::store::{ImageRow, NewEvent};
use crate::time::Time;

/// How long what came before a break is kept for another try.
pub(super) const RETRY: Duration = Duration::from_secs(600);

impl Images {
    /// Does a piece of work that brings things into the store. What it brought is held while it
    /// goes on; when it fails for good all of it goes, and after a break it is kept a while for
    /// another try.
    ///
    /// # Errors
    /// The work's own.
    pub(super) async fn with_lease<'w, T>(
        &self,
        namespace: &str,
        what: &str,
        board: &Board,
        work: impl FnOnce(Job) -> BoxFuture<'w, Result<T>>,
    ) -> Result<T> {
        let id = format!("work-{}", &random_id()[..16]);
        let labels = BTreeMap::from([(WORK_LABEL.to_owned(), what.to_owned())]);
        // Before there is a lease: a prune takes one of work that is not going on.
        let going_on = GoingOn::new(&self.going_on, &id);
        // Without a time: the clock may be set while the work goes on. The next daemon ends it.
        let lease = self.leases.create(namespace, &id, labels, None).await?;
        shim_failpoints::step!("daemon.work.after_lease");
        let outcome = work(Job::new(namespace, Some(lease.clone()), board)).await;
        drop(going_on);
        shim_failpoints::step!("daemon.work.before_release");
        match &outcome {
            Err(error) if error.is_passing() && self.brought(namespace, &lease).await => {
                let until = (SystemTime::now() + RETRY).into();
                note(self.leases.shorten(namespace, &lease, until).await);
            }
            Ok(_) => {
                note(self.leases.delete(namespace, &lease).await);
                // What earlier tries brought is part of this one, or is of no use any more.
                note(self.drop_rests(namespace, Some(what)).await);
            }
            Err(_) => {
                // First what needs no record: the disk may be full.
                note(self.content.abort_of_lease(namespace, &lease).await);
                note(self.leases.delete(namespace, &lease).await);
                self.resolved.clear();
                note(self.collector.collect(namespace, Mode::default()).await);
            }
        }
        shim_failpoints::step!("daemon.work.after_release");
        outcome
    }

    /// Whether there is anything to keep for another try.
    async fn brought(&self, namespace: &str, lease: &str) -> bool {
        let held = self.leases.list_resources(namespace, lease).await;
        let ingests = self.content.ingests(namespace).await.unwrap_or_default();
        let is_ours = |ingest: &Ingest| ingest.description.lease.as_deref() == Some(lease);
        held.is_ok_and(|held| !held.is_empty()) || ingests.iter().any(is_ours)
    }

    /// Lets go of what work that is over has left for another try: all of it, or that on one image.
    pub(super) async fn drop_rests(&self, namespace: &str, what: Option<&str>) -> Result<()> {
        for lease in self.leases.list(namespace).await? {
            let Some(own) = lease.labels.get(WORK_LABEL) else { continue };
            let goes_on = {
                let leases = self.going_on.lock().unwrap_or_else(PoisonError::into_inner);
                leases.contains(&lease.id)
            };
            if !goes_on && what.is_none_or(|what| what == own) {
                match self.leases.delete(namespace, &lease.id).await {
                    Ok(()) | Err(Error::NoSuchLease { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Gives a descriptor a name; answers whether it had it before.
    ///
    /// # Errors
    /// The store's own.
    pub(super) async fn name(
        &self,
        namespace: &str,
        name: &Reference,
        target: &Descriptor,
        labels: BTreeMap<String, String>,
        action: &'static str,
    ) -> Result<bool> {
        let named = vec![(name.clone(), target.clone())];
        Ok(self.name_all(namespace, named, labels, action).await? == [true])
    }

    /// As [`name`](Self::name) of several: all of them have theirs, or none.
    ///
    /// # Errors
    /// The store's own; what a name says of its content is not so.
    pub(super) async fn name_all(
        &self,
        namespace: &str,
        named: Vec<(Reference, Descriptor)>,
        labels: BTreeMap<String, String>,
        action: &'static str,
    ) -> Result<Vec<bool>> {
        let now = Time::now();
        let mut rows = Vec::with_capacity(named.len());
        for (name, target) in named {
            // A name with a digest promises that content, whoever gives it.
            if let Some(digest) = name.digest().filter(|digest| **digest != target.digest) {
                return Err(Error::InvalidArgument {
                    what: "name of the image",
                    problem: format!("{name} says {digest}, and the image is {}", target.digest),
                });
            }
            rows.push(ImageRow {
                name: name.name(),
                target: Descriptor { platform: None, annotations: BTreeMap::new(), ..target },
                created_at: now,
                updated_at: now,
                labels: labels.clone(),
            });
        }
        shim_failpoints::step!("daemon.pull.before_name", error);
        let namespace = namespace.to_owned();
        let named = self
            .store
            .write(move |tx| -> Result<Vec<(bool, bool)>> {
                let mut named = Vec::with_capacity(rows.len());
                for row in &rows {
                    let digest = row.target.digest.to_string();
                    // The lease that held it may have expired meanwhile.
                    if tx.blob(&namespace, &digest)?.is_none() {
                        return Err(Error::NoSuchBlob { digest });
                    }
                    let before = tx.put_image(&namespace, row)?;
                    let same = before.as_ref() == Some(&digest);
                    named.push((same, before.is_some() && !same));
                    let attributes = vec![("digest", digest)];
                    tx.event(image_event(&namespace, action, &row.name, attributes))?;
                }
                Ok(named)
            })
            .await?;
        shim_failpoints::step!("daemon.pull.after_name");
        if named.iter().any(|(_, is_another)| *is_another) {
            // What the name stood for may be nobody's any more.
            self.collector.nudge();
        }
        Ok(named.into_iter().map(|(same, _)| same).collect())
    }
}

/// The leases of work that goes on.
pub(super) type Leased = Arc<Mutex<HashSet<String>>>;

/// A piece of work, for as long as it takes.
struct GoingOn {
    leases: Leased,
    lease: String,
}

impl GoingOn {
    fn new(leases: &Leased, lease: &str) -> Self {
        leases.lock().unwrap_or_else(PoisonError::into_inner).insert(lease.to_owned());
        Self { leases: Arc::clone(leases), lease: lease.to_owned() }
    }
}

impl Drop for GoingOn {
    fn drop(&mut self) {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.lease);
    }
}

/// What the work came to is the answer; what is left of it is collected later.
fn note<T>(cleaned: Result<T>) {
    if let Err(error) = cleaned {
        tracing::warn!(%error, "what a pull or an import leaves is not all gone yet");
    }
}

/// An event of an image.
pub(super) fn image_event(
    namespace: &str,
    action: &str,
    name: &str,
    attributes: Vec<(&'static str, String)>,
) -> NewEvent {
    NewEvent {
        namespace: namespace.to_owned(),
        kind: "image".to_owned(),
        action: action.to_owned(),
        id: name.to_owned(),
        attributes: attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
    }
}
