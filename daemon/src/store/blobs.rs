//! Rows of blobs, one per namespace that has it. Their bytes are the content service's.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, Row, params};

use super::copies::Key;
use super::{Error, Transaction};
use crate::time::Time;

/// One blob as a namespace has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRow {
    /// `sha256:HEX`.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    pub created_at: Time,
    pub labels: BTreeMap<String, String>,
}

const COLUMNS: &str = "digest, size, created_at, labels";

fn from_row(row: &Row<'_>) -> rusqlite::Result<BlobRow> {
    Ok(BlobRow {
        digest: row.get(0)?,
        size: u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0),
        created_at: serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default(),
        labels: serde_json::from_str(&row.get::<_, String>(3)?).unwrap_or_default(),
    })
}

fn blob(namespace: &str, digest: &str) -> Key {
    Key::Blob { namespace: namespace.to_owned(), digest: digest.to_owned() }
}

impl Transaction<'_> {
    /// Stores a blob; the labels of one that is there already are added to. True when it is new.
    ///
    /// # Errors
    /// The store's own.
    pub fn insert_blob(&mut self, namespace: &str, row: &BlobRow) -> Result<bool, Error> {
        self.sql
            .prepare_cached("INSERT OR IGNORE INTO namespaces (name) VALUES (?1)")?
            .execute([namespace])?;
        let known = self.blob(namespace, &row.digest)?;
        let is_new = known.is_none();
        let mut labels = known.map(|known| known.labels).unwrap_or_default();
        labels.extend(row.labels.clone());
        self.sql
            .prepare_cached(
                "INSERT INTO blobs (namespace, digest, size, created_at, labels)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (namespace, digest) DO UPDATE SET labels = excluded.labels",
            )?
            .execute(params![
                namespace,
                row.digest,
                i64::try_from(row.size).unwrap_or(i64::MAX),
                serde_json::to_string(&row.created_at)?,
                serde_json::to_string(&labels)?
            ])?;
        self.touched.insert(blob(namespace, &row.digest));
        Ok(is_new)
    }

    /// The blob of a digest.
    ///
    /// # Errors
    /// The store's own.
    pub fn blob(&mut self, namespace: &str, digest: &str) -> Result<Option<BlobRow>, Error> {
        Ok(self
            .sql
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM blobs WHERE namespace = ?1 AND digest = ?2"
            ))?
            .query_row([namespace, digest], from_row)
            .optional()?)
    }

    /// All blobs of a namespace, by digest.
    ///
    /// # Errors
    /// The store's own.
    pub fn blobs(&mut self, namespace: &str) -> Result<Vec<BlobRow>, Error> {
        let mut statement = self.sql.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM blobs WHERE namespace = ?1 ORDER BY digest"
        ))?;
        let rows = statement.query_map([namespace], from_row)?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    }

    /// The digests of the blobs of all namespaces.
    ///
    /// # Errors
    /// The store's own.
    pub fn blob_digests(&mut self) -> Result<Vec<String>, Error> {
        let mut statement = self.sql.prepare_cached("SELECT DISTINCT digest FROM blobs")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    }

    /// The size of a blob, whichever namespace has it.
    ///
    /// # Errors
    /// The store's own.
    pub fn blob_size(&mut self, digest: &str) -> Result<Option<u64>, Error> {
        let size: Option<i64> = self
            .sql
            .prepare_cached("SELECT size FROM blobs WHERE digest = ?1 LIMIT 1")?
            .query_row([digest], |row| row.get(0))
            .optional()?;
        Ok(size.and_then(|size| u64::try_from(size).ok()))
    }

    /// Adds to the labels of a blob; an empty value takes a label away (containerd's rule). False
    /// when the namespace does not have it.
    ///
    /// # Errors
    /// The store's own.
    pub fn label_blob(
        &mut self,
        namespace: &str,
        digest: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<bool, Error> {
        let Some(mut row) = self.blob(namespace, digest)? else { return Ok(false) };
        row.labels.extend(labels.clone());
        row.labels.retain(|_, value| !value.is_empty());
        self.sql
            .prepare_cached("UPDATE blobs SET labels = ?3 WHERE namespace = ?1 AND digest = ?2")?
            .execute([namespace, digest, &serde_json::to_string(&row.labels)?])?;
        self.touched.insert(blob(namespace, digest));
        Ok(true)
    }

    /// Forgets a blob in all namespaces.
    ///
    /// # Errors
    /// The store's own.
    pub fn forget_blob(&mut self, digest: &str) -> Result<(), Error> {
        let mut statement =
            self.sql.prepare_cached("DELETE FROM blobs WHERE digest = ?1 RETURNING namespace")?;
        let rows = statement.query_map([digest], |row| row.get::<_, String>(0))?;
        let namespaces = rows.collect::<Result<Vec<_>, _>>()?;
        self.touched.extend(namespaces.iter().map(|namespace| blob(namespace, digest)));
        Ok(())
    }

    /// Whether any namespace has a blob.
    ///
    /// # Errors
    /// The store's own.
    pub fn is_blob_needed(&mut self, digest: &str) -> Result<bool, Error> {
        Ok(self.sql.prepare_cached("SELECT 1 FROM blobs WHERE digest = ?1")?.exists([digest])?)
    }

    /// Forgets the blob of a namespace.
    ///
    /// # Errors
    /// The store's own.
    pub fn remove_blob(&mut self, namespace: &str, digest: &str) -> Result<(), Error> {
        self.sql
            .prepare_cached("DELETE FROM blobs WHERE namespace = ?1 AND digest = ?2")?
            .execute([namespace, digest])?;
        self.touched.insert(blob(namespace, digest));
        Ok(())
    }
}
