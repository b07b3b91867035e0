//! What every way into the store has in common: a lease for as long as it takes, and a name at the
//! end.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bosun_image::{Descriptor, Reference};

use super::Images;
use super::layers::Job;
use super::progress::Board;
use crate::container::random_id;
use crate::error::{Error, Result};
use crate::gc::Mode;
use crate::leases::WORK_LABEL;
use crate::store::{ImageRow, NewEvent};
use crate::time::Time;

/// How long the lease of a piece of work lives at most, as containerd's clients have it.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How long what came before a break is kept for another try.
pub(super) const RETRY: Duration = Duration::from_secs(600);

impl Images {
    /// Does a piece of work that brings things into the store. What it brought is held while it
    /// goes on; when it fails for good all of it goes, and after a break it is kept a while for
    /// another try.
    ///
    /// # Errors
    /// The work's own.
    pub(super) async fn with_lease<T>(
        &self,
        namespace: &str,
        board: &Board,
        work: impl AsyncFnOnce(&Job) -> Result<T>,
    ) -> Result<T> {
        let id = format!("work-{}", &random_id()[..16]);
        let labels = BTreeMap::from([(WORK_LABEL.to_owned(), String::new())]);
        let expires_at = (SystemTime::now() + LONGEST).into();
        let lease = self.leases.create(namespace, &id, labels, Some(expires_at)).await?;
        let job = Job::new(namespace, Some(lease.clone()), board);
        let outcome = work(&job).await;
        match &outcome {
            Err(error) if error.is_passing() => {
                let until = (SystemTime::now() + RETRY).into();
                self.leases.shorten(namespace, &lease, until).await?;
            }
            Ok(_) => self.leases.delete(namespace, &lease).await?,
            Err(_) => {
                // First what needs no record: the disk may be full.
                if let Err(left) = self.content.abort_of_lease(namespace, &lease).await {
                    tracing::warn!(%left, "what was on its way stays until it is collected");
                }
                self.leases.delete(namespace, &lease).await?;
                self.resolved.clear();
                if let Err(left) = self.collector.collect(namespace, Mode::default()).await {
                    tracing::warn!(%left, "what a failed pull or import brought is not all gone");
                }
            }
        }
        outcome
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
        let now = Time::now();
        let row = ImageRow {
            name: name.name(),
            target: Descriptor { platform: None, annotations: BTreeMap::new(), ..target.clone() },
            created_at: now,
            updated_at: now,
            labels,
        };
        fail::fail_point!("daemon.pull.before_name");
        let (namespace, digest) = (namespace.to_owned(), target.digest.to_string());
        let before = self
            .store
            .write(move |tx| -> Result<Option<String>> {
                // The lease that held it may have expired meanwhile.
                if tx.blob(&namespace, row.target.digest.as_str())?.is_none() {
                    return Err(Error::NoSuchBlob { digest: row.target.digest.to_string() });
                }
                let before = tx.put_image(&namespace, &row)?;
                let attributes = vec![("digest", row.target.digest.to_string())];
                tx.event(image_event(&namespace, action, &row.name, attributes))?;
                Ok(before)
            })
            .await?;
        fail::fail_point!("daemon.pull.after_name");
        let same = before.as_ref() == Some(&digest);
        if before.is_some() && !same {
            // What the name stood for may be nobody's any more.
            self.collector.nudge();
        }
        Ok(same)
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
        attributes,
    }
}
