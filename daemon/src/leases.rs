//! Leases: containerd's model. A lease holds snapshots and blobs that nothing else names yet, so
//! that they can't be removed under whoever works with them; it may expire.
//!
//! A lease that has expired holds nothing: it counts nowhere from that moment on, and its row goes at
//! the next start and whenever leases are looked at. Deliberately absent: holding what does not exist,
//! and holding a container's own snapshot, which goes with its container.

use std::collections::BTreeMap;

use crate::container::random_id;
use crate::error::{Error, Result};
use crate::store::{LeaseRow, NewEvent, Resource, ResourceKind, Store, Transaction};
use crate::time::Time;

/// On leases of pulls and imports that this daemon does itself: none of them outlives it.
pub const WORK_LABEL: &str = "io.bosun/work";

/// containerd's clients say with a label when a lease expires.
const EXPIRE_LABEL: &str = "containerd.io/gc.expire";

/// The lease service; clones share it.
#[derive(Clone, Debug)]
pub struct Leases {
    store: Store,
}

impl Leases {
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Makes a lease and answers its id; an empty `id` is made up.
    ///
    /// # Errors
    /// The id is taken or malformed, or the expiry has passed.
    pub async fn create(
        &self,
        namespace: &str,
        id: &str,
        labels: BTreeMap<String, String>,
        expires_at: Option<Time>,
    ) -> Result<String> {
        check_id(id)?;
        let created_at = Time::now();
        let expires_at = match (expires_at, labels.get(EXPIRE_LABEL)) {
            (None, Some(text)) => {
                Some(Time::parse(text).ok_or_else(|| Error::InvalidArgument {
                    what: "expiry of the lease",
                    problem: format!("{text:?} is no moment, as in 2026-01-31T12:00:00Z"),
                })?)
            }
            (expires_at, _) => expires_at,
        };
        if expires_at.is_some_and(|at| at <= created_at) {
            return Err(Error::InvalidArgument {
                what: "expiry of the lease",
                problem: "it has passed already".to_owned(),
            });
        }
        let id = if id.is_empty() { random_id() } else { id.to_owned() };
        // Those of the daemon's own work come and go with it.
        let is_told = !labels.contains_key(WORK_LABEL);
        let row = LeaseRow { id: id.clone(), created_at, expires_at, labels };
        let namespace = namespace.to_owned();
        self.store
            .write(move |tx| -> Result<()> {
                tx.drop_expired_leases(created_at)?;
                if tx.has_lease(&namespace, &row.id)? {
                    return Err(Error::LeaseExists { id: row.id });
                }
                tx.insert_lease(&namespace, &row)?;
                if is_told {
                    tx.event(event(&namespace, "create", &row.id))?;
                }
                Ok(())
            })
            .await?;
        Ok(id)
    }

    /// Lets a lease expire at `until`, unless it does before.
    ///
    /// # Errors
    /// It does not exist.
    pub async fn shorten(&self, namespace: &str, id: &str, until: Time) -> Result<()> {
        let (namespace, id) = (namespace.to_owned(), id.to_owned());
        self.store
            .write(move |tx| -> Result<()> {
                find(tx, &namespace, &id)?;
                Ok(tx.shorten_lease(&namespace, &id, until)?)
            })
            .await
    }

    /// Work of an earlier daemon is not going on: what it brought is kept until `until`, for whoever
    /// tries again.
    ///
    /// # Errors
    /// The store's own.
    pub async fn end_work(&self, until: Time) -> Result<()> {
        self.store
            .write(move |tx| -> Result<()> {
                for namespace in tx.namespaces()? {
                    for lease in tx.leases(&namespace)? {
                        if lease.labels.contains_key(WORK_LABEL) {
                            tx.shorten_lease(&namespace, &lease.id, until)?;
                        }
                    }
                }
                Ok(())
            })
            .await
    }

    /// Deletes a lease; what it held stays, and is free.
    ///
    /// # Errors
    /// It does not exist.
    pub async fn delete(&self, namespace: &str, id: &str) -> Result<()> {
        let (namespace, id) = (namespace.to_owned(), id.to_owned());
        self.store
            .write(move |tx| -> Result<()> {
                find(tx, &namespace, &id)?;
                let leases = tx.leases(&namespace)?;
                let own = leases.iter().find(|lease| lease.id == id);
                tx.remove_lease(&namespace, &id)?;
                if own.is_some_and(|lease| !lease.labels.contains_key(WORK_LABEL)) {
                    tx.event(event(&namespace, "delete", &id))?;
                }
                Ok(())
            })
            .await
    }

    /// # Errors
    /// The store's own.
    pub async fn list(&self, namespace: &str) -> Result<Vec<LeaseRow>> {
        let namespace = namespace.to_owned();
        self.store
            .write(move |tx| -> Result<_> {
                tx.drop_expired_leases(Time::now())?;
                Ok(tx.leases(&namespace)?)
            })
            .await
    }

    /// Lets a lease hold a snapshot or a blob; again is fine.
    ///
    /// # Errors
    /// Either does not exist, or the snapshot is a container's own.
    pub async fn add_resource(
        &self,
        namespace: &str,
        lease: &str,
        resource: Resource,
    ) -> Result<()> {
        let (namespace, lease) = (namespace.to_owned(), lease.to_owned());
        self.store
            .write(move |tx| -> Result<()> {
                find(tx, &namespace, &lease)?;
                check_resource(tx, &namespace, &resource)?;
                tx.hold(&namespace, &lease, &resource)?;
                Ok(())
            })
            .await
    }

    /// Lets a lease let go of something.
    ///
    /// # Errors
    /// There is no such lease, or it does not hold that.
    pub async fn delete_resource(
        &self,
        namespace: &str,
        lease: &str,
        resource: Resource,
    ) -> Result<()> {
        let (namespace, lease) = (namespace.to_owned(), lease.to_owned());
        self.store
            .write(move |tx| -> Result<()> {
                find(tx, &namespace, &lease)?;
                if tx.let_go(&namespace, &lease, &resource)? {
                    return Ok(());
                }
                Err(Error::NotLeased { lease, kind: resource.kind, resource: resource.id })
            })
            .await
    }

    /// # Errors
    /// There is no such lease.
    pub async fn list_resources(&self, namespace: &str, lease: &str) -> Result<Vec<Resource>> {
        let (namespace, lease) = (namespace.to_owned(), lease.to_owned());
        self.store
            .write(move |tx| -> Result<_> {
                find(tx, &namespace, &lease)?;
                Ok(tx.held_by_lease(&namespace, &lease)?)
            })
            .await
    }

    /// Drops the leases of all namespaces that have expired.
    ///
    /// # Errors
    /// The store's own.
    pub async fn drop_expired(&self) -> Result<usize> {
        Ok(self.store.write(|tx| tx.drop_expired_leases(Time::now())).await?)
    }
}

/// Says that nothing holds a resource, or which lease does. For whoever is about to remove it, in the
/// transaction that does.
///
/// # Errors
/// [`Error::Leased`] names the lease.
pub fn check_free(
    tx: &mut Transaction<'_>,
    namespace: &str,
    kind: ResourceKind,
    resource: &str,
) -> Result<()> {
    let now = Time::now();
    tx.drop_expired_leases(now)?;
    match tx.lease_of(namespace, kind, resource, now)? {
        None => Ok(()),
        Some(lease) => Err(Error::Leased { kind, resource: resource.to_owned(), lease }),
    }
}

/// Lets a lease hold what is being made, in the transaction that makes it.
///
/// # Errors
/// There is no such lease.
pub fn hold_new(
    tx: &mut Transaction<'_>,
    namespace: &str,
    lease: Option<&str>,
    resource: Resource,
) -> Result<()> {
    let Some(lease) = lease else { return Ok(()) };
    find(tx, namespace, lease)?;
    Ok(tx.hold(namespace, lease, &resource)?)
}

fn find(tx: &mut Transaction<'_>, namespace: &str, id: &str) -> Result<()> {
    tx.drop_expired_leases(Time::now())?;
    if tx.has_lease(namespace, id)? {
        return Ok(());
    }
    Err(Error::NoSuchLease { id: id.to_owned() })
}

fn check_resource(tx: &mut Transaction<'_>, namespace: &str, resource: &Resource) -> Result<()> {
    let id = &resource.id;
    match resource.kind {
        ResourceKind::Content => match tx.blob(namespace, id)? {
            Some(_) => Ok(()),
            None => Err(Error::NoSuchBlob { digest: id.clone() }),
        },
        ResourceKind::Snapshot => match tx.snapshot(namespace, id)?.map(|row| row.held_by) {
            Some(None) => Ok(()),
            Some(Some(holder)) => Err(Error::InvalidArgument {
                what: "resource of the lease",
                problem: format!("snapshot {id} is container {holder}'s own, and goes with it"),
            }),
            None => Err(Error::NoSuchSnapshot { key: id.clone() }),
        },
    }
}

fn event(namespace: &str, action: &str, id: &str) -> NewEvent {
    NewEvent {
        namespace: namespace.to_owned(),
        kind: "lease".to_owned(),
        action: action.to_owned(),
        id: id.to_owned(),
        attributes: BTreeMap::new(),
    }
}

fn check_id(id: &str) -> Result<()> {
    let problem = if id.len() > 128 {
        "it has at most 128 bytes"
    } else if id.chars().any(|c| c.is_control() || c.is_whitespace()) {
        "it must not hold blanks or control characters"
    } else {
        return Ok(());
    };
    Err(Error::InvalidArgument { what: "lease id", problem: problem.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::snapshots::{Base, Marks, Snapshots};
    use crate::store::Kind;

    fn run(test: impl AsyncFnOnce(&Path, Store)) {
        let directory = tempfile::tempdir().unwrap();
        for name in ["s", "trash"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let store = Store::open(&directory.path().join("meta.db")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(directory.path(), store));
    }

    async fn snapshots(place: &Path, store: &Store, key: &str) -> Snapshots {
        let snapshots = Snapshots::new(store.clone(), place.join("s"), place.join("trash"));
        let labels = Marks::default();
        snapshots.prepare("default", key, Base::Nothing, Kind::Active, labels).await.unwrap();
        snapshots
    }

    fn snapshot(key: &str) -> Resource {
        Resource { kind: ResourceKind::Snapshot, id: key.to_owned() }
    }

    fn soon(milliseconds: u64) -> Option<Time> {
        Some((SystemTime::now() + Duration::from_millis(milliseconds)).into())
    }

    #[test]
    fn a_leased_snapshot_stays_and_the_error_names_the_lease() {
        run(async |place, store| {
            let (snapshots, leases) =
                (snapshots(place, &store, "key").await, Leases::new(store.clone()));
            let id = leases.create("default", "build", BTreeMap::new(), None).await.unwrap();
            leases.add_resource("default", &id, snapshot("key")).await.unwrap();
            let error = snapshots.remove("default", "key").await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "snapshot key is held by lease build: delete that lease first"
            );
            leases.delete("default", &id).await.unwrap();
            snapshots.remove("default", "key").await.unwrap();
        });
    }

    #[test]
    fn the_hold_follows_a_snapshot_that_is_committed() {
        run(async |place, store| {
            let (snapshots, leases) =
                (snapshots(place, &store, "key").await, Leases::new(store.clone()));
            leases.create("default", "build", BTreeMap::new(), None).await.unwrap();
            leases.add_resource("default", "build", snapshot("key")).await.unwrap();
            snapshots.commit("default", "key", "name", Marks::default()).await.unwrap();
            assert_eq!(
                leases.list_resources("default", "build").await.unwrap(),
                [snapshot("name")]
            );
            assert!(snapshots.remove("default", "name").await.is_err());
            leases.delete_resource("default", "build", snapshot("name")).await.unwrap();
            snapshots.remove("default", "name").await.unwrap();
        });
    }

    #[test]
    fn an_expired_lease_holds_nothing_and_is_gone() {
        run(async |place, store| {
            let (snapshots, leases) =
                (snapshots(place, &store, "key").await, Leases::new(store.clone()));
            leases.create("default", "brief", BTreeMap::new(), soon(150)).await.unwrap();
            leases.create("default", "later", BTreeMap::new(), soon(60_000)).await.unwrap();
            leases.add_resource("default", "brief", snapshot("key")).await.unwrap();
            assert!(snapshots.remove("default", "key").await.is_err());
            tokio::time::sleep(Duration::from_millis(200)).await;
            snapshots.remove("default", "key").await.unwrap();
            assert_eq!(leases.drop_expired().await.unwrap(), 0, "dropped when it was seen");
            let left = leases.list("default").await.unwrap();
            assert_eq!(left.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["later"]);
            assert!(matches!(
                leases.list_resources("default", "brief").await,
                Err(Error::NoSuchLease { .. })
            ));
        });
    }

    #[test]
    fn what_does_not_exist_is_not_leased_and_ids_are_used_once() {
        run(async |_, store| {
            let leases = Leases::new(store);
            let made = leases.create("default", "", BTreeMap::new(), None).await.unwrap();
            assert!(!made.is_empty());
            let again = leases.create("default", &made, BTreeMap::new(), None).await;
            assert!(matches!(again, Err(Error::LeaseExists { .. })));
            leases.create("other", &made, BTreeMap::new(), None).await.unwrap();
            let missing = leases.add_resource("default", &made, snapshot("none")).await;
            assert!(matches!(missing, Err(Error::NoSuchSnapshot { .. })));
            let dropped = leases.delete_resource("default", &made, snapshot("none")).await;
            assert!(matches!(dropped, Err(Error::NotLeased { .. })));
            let passed = leases.create("default", "x", BTreeMap::new(), Some(Time::now())).await;
            assert!(matches!(passed, Err(Error::InvalidArgument { .. })));
        });
    }
}
