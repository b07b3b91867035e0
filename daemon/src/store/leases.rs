//! Rows of leases and of what they hold. Whether something may be leased or removed is the services'
//! to say; here is only what is stored, and that an expired lease holds nothing.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, params};

use super::{Error, Transaction};
use crate::time::Time;

/// One lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    pub id: String,
    pub created_at: Time,
    /// `None`: it lives until it is deleted.
    pub expires_at: Option<Time>,
    pub labels: BTreeMap<String, String>,
}

/// What can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    Snapshot,
    Content,
}

/// Something that a lease holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub kind: ResourceKind,
    /// A snapshot's key, a blob's digest.
    pub id: String,
}

impl ResourceKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Content => "content",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "content" => Self::Content,
            _ => Self::Snapshot,
        }
    }
}

/// As a user names them.
impl std::fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Snapshot => "snapshot",
            Self::Content => "blob",
        })
    }
}

/// As the column has it: until the year 2262, and what is later is that.
fn nanos(time: Time) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

fn from_nanos(nanos: i64) -> Time {
    let part = nanos.rem_euclid(1_000_000_000);
    Time { seconds: nanos.div_euclid(1_000_000_000), nanos: u32::try_from(part).unwrap_or(0) }
}

impl Transaction<'_> {
    /// Stores a new lease.
    ///
    /// # Errors
    /// The store's own.
    pub fn insert_lease(&mut self, namespace: &str, row: &LeaseRow) -> Result<(), Error> {
        self.sql
            .prepare_cached("INSERT OR IGNORE INTO namespaces (name) VALUES (?1)")?
            .execute([namespace])?;
        self.sql
            .prepare_cached(
                "INSERT INTO leases (namespace, id, created_at, expires_at, labels)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                namespace,
                row.id,
                serde_json::to_string(&row.created_at)?,
                row.expires_at.map(nanos),
                serde_json::to_string(&row.labels)?
            ])?;
        Ok(())
    }

    /// Forgets a lease and what it held; false when there was none.
    ///
    /// # Errors
    /// The store's own.
    pub fn remove_lease(&mut self, namespace: &str, id: &str) -> Result<bool, Error> {
        let removed = self
            .sql
            .prepare_cached("DELETE FROM leases WHERE namespace = ?1 AND id = ?2")?
            .execute([namespace, id])?;
        Ok(removed > 0)
    }

    /// Lets a lease expire at a moment, unless it does before.
    ///
    /// # Errors
    /// The store's own.
    pub fn shorten_lease(&mut self, namespace: &str, id: &str, until: Time) -> Result<(), Error> {
        self.sql
            .prepare_cached(
                "UPDATE leases SET expires_at = min(coalesce(expires_at, ?3), ?3)
                 WHERE namespace = ?1 AND id = ?2",
            )?
            .execute(params![namespace, id, nanos(until)])?;
        Ok(())
    }

    /// Forgets the leases of all namespaces that have expired.
    ///
    /// # Errors
    /// The store's own.
    pub fn drop_expired_leases(&mut self, now: Time) -> Result<usize, Error> {
        Ok(self
            .sql
            .prepare_cached("DELETE FROM leases WHERE expires_at <= ?1")?
            .execute([nanos(now)])?)
    }

    /// Whether there is such a lease.
    ///
    /// # Errors
    /// The store's own.
    pub fn has_lease(&mut self, namespace: &str, id: &str) -> Result<bool, Error> {
        Ok(self
            .sql
            .prepare_cached("SELECT 1 FROM leases WHERE namespace = ?1 AND id = ?2")?
            .exists([namespace, id])?)
    }

    /// All leases of a namespace, by id.
    ///
    /// # Errors
    /// The store's own.
    pub fn leases(&mut self, namespace: &str) -> Result<Vec<LeaseRow>, Error> {
        let mut statement = self.sql.prepare_cached(
            "SELECT id, created_at, expires_at, labels FROM leases WHERE namespace = ?1 ORDER BY id",
        )?;
        let rows = statement.query_map([namespace], |row| {
            Ok(LeaseRow {
                id: row.get(0)?,
                created_at: serde_json::from_str(&row.get::<_, String>(1)?).unwrap_or_default(),
                expires_at: row.get::<_, Option<i64>>(2)?.map(from_nanos),
                labels: serde_json::from_str(&row.get::<_, String>(3)?).unwrap_or_default(),
            })
        })?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    }

    /// Lets a lease hold a resource; holding it already is fine.
    ///
    /// # Errors
    /// The store's own.
    pub fn hold(&mut self, namespace: &str, lease: &str, resource: &Resource) -> Result<(), Error> {
        self.sql
            .prepare_cached(
                "INSERT OR IGNORE INTO lease_resources (namespace, lease, kind, resource)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute([namespace, lease, resource.kind.as_str(), &resource.id])?;
        Ok(())
    }

    /// Lets a lease let go of a resource; false when it did not hold it.
    ///
    /// # Errors
    /// The store's own.
    pub fn let_go(
        &mut self,
        namespace: &str,
        lease: &str,
        resource: &Resource,
    ) -> Result<bool, Error> {
        let removed = self
            .sql
            .prepare_cached(
                "DELETE FROM lease_resources
                 WHERE namespace = ?1 AND lease = ?2 AND kind = ?3 AND resource = ?4",
            )?
            .execute([namespace, lease, resource.kind.as_str(), &resource.id])?;
        Ok(removed > 0)
    }

    /// What a lease holds.
    ///
    /// # Errors
    /// The store's own.
    pub fn held_by_lease(&mut self, namespace: &str, lease: &str) -> Result<Vec<Resource>, Error> {
        let mut statement = self.sql.prepare_cached(
            "SELECT kind, resource FROM lease_resources
             WHERE namespace = ?1 AND lease = ?2 ORDER BY kind, resource",
        )?;
        let rows = statement.query_map([namespace, lease], |row| {
            let kind = ResourceKind::parse(&row.get::<_, String>(0)?);
            Ok(Resource { kind, id: row.get(1)? })
        })?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    }

    /// A lease that holds a resource and has not expired.
    ///
    /// # Errors
    /// The store's own.
    pub fn lease_of(
        &mut self,
        namespace: &str,
        kind: ResourceKind,
        resource: &str,
        now: Time,
    ) -> Result<Option<String>, Error> {
        Ok(self
            .sql
            .prepare_cached(
                "SELECT lease FROM lease_resources JOIN leases
                 ON leases.namespace = lease_resources.namespace AND leases.id = lease
                 WHERE lease_resources.namespace = ?1 AND kind = ?2 AND resource = ?3
                 AND (expires_at IS NULL OR expires_at > ?4) LIMIT 1",
            )?
            .query_row(params![namespace, kind.as_str(), resource, nanos(now)], |row| row.get(0))
            .optional()?)
    }

    /// A resource goes by another name from now on; whoever holds it goes on holding it.
    ///
    /// # Errors
    /// The store's own.
    pub fn rename_leased(
        &mut self,
        namespace: &str,
        kind: ResourceKind,
        from: &str,
        to: &str,
    ) -> Result<(), Error> {
        self.sql
            .prepare_cached(
                "UPDATE OR REPLACE lease_resources SET resource = ?4
                 WHERE namespace = ?1 AND kind = ?2 AND resource = ?3",
            )?
            .execute([namespace, kind.as_str(), from, to])?;
        Ok(())
    }
}
