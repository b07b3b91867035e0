//! Rows of snapshots. The rules of the model (who may be a parent, what may be removed) are the
//! snapshot service's; here is only what is stored.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::copies::Key;
use super::{Error, Transaction};
use crate::time::Time;

/// containerd's three kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    View,
    Active,
    Committed,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Active => "active",
            Self::Committed => "committed",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "view" => Self::View,
            "committed" => Self::Committed,
            _ => Self::Active,
        }
    }
}

/// One snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotRow {
    /// Names its directory; never used again. 0 until it is stored.
    pub number: i64,
    pub key: String,
    pub kind: Kind,
    /// The number of the parent.
    pub parent: Option<i64>,
    /// The directory of the host that it rests on, in place of a parent.
    pub directory: Option<PathBuf>,
    /// The id of the container that holds it.
    pub held_by: Option<String>,
    pub created_at: Time,
    pub updated_at: Time,
    pub labels: BTreeMap<String, String>,
    /// The boot in which its files were written, as long as they may not be on the disk yet.
    pub written_in: Option<String>,
}

const COLUMNS: &str = "number, key, kind, parent, directory, held_by, created_at, updated_at, labels, durable, boot_id";

fn from_row(row: &Row<'_>) -> rusqlite::Result<SnapshotRow> {
    let time = |text: String| serde_json::from_str(&text).unwrap_or_default();
    Ok(SnapshotRow {
        number: row.get(0)?,
        key: row.get(1)?,
        kind: Kind::parse(&row.get::<_, String>(2)?),
        parent: row.get(3)?,
        directory: row.get::<_, Option<String>>(4)?.map(PathBuf::from),
        held_by: row.get(5)?,
        created_at: time(row.get(6)?),
        updated_at: time(row.get(7)?),
        labels: serde_json::from_str(&row.get::<_, String>(8)?).unwrap_or_default(),
        written_in: match row.get::<_, i64>(9)? {
            0 => Some(row.get(10)?),
            _ => None,
        },
    })
}

impl Transaction<'_> {
    /// Stores a new snapshot and answers its number.
    ///
    /// # Errors
    /// The store's own.
    pub fn insert_snapshot(&mut self, namespace: &str, row: &SnapshotRow) -> Result<i64, Error> {
        self.sql
            .prepare_cached("INSERT OR IGNORE INTO namespaces (name) VALUES (?1)")?
            .execute([namespace])?;
        self.sql
            .prepare_cached(
                "INSERT INTO snapshots
                 (namespace, key, kind, parent, directory, held_by, created_at, updated_at, labels,
                  durable, boot_id)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .execute(params![
                namespace,
                row.key,
                row.kind.as_str(),
                row.parent,
                row.directory.as_ref().map(|path| path.to_string_lossy().into_owned()),
                row.held_by,
                serde_json::to_string(&row.created_at)?,
                serde_json::to_string(&row.updated_at)?,
                serde_json::to_string(&row.labels)?,
                row.written_in.is_none(),
                row.written_in.as_deref().unwrap_or_default()
            ])?;
        let number = self.sql.last_insert_rowid();
        self.touched.insert(Key::Snapshot(number));
        Ok(number)
    }

    /// The snapshot of a key or name.
    ///
    /// # Errors
    /// The store's own.
    pub fn snapshot(&mut self, namespace: &str, key: &str) -> Result<Option<SnapshotRow>, Error> {
        Ok(self
            .sql
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM snapshots WHERE namespace = ?1 AND key = ?2"
            ))?
            .query_row(params![namespace, key], from_row)
            .optional()?)
    }

    /// The snapshot of a number.
    ///
    /// # Errors
    /// The store's own.
    pub fn snapshot_by_number(&mut self, number: i64) -> Result<Option<SnapshotRow>, Error> {
        Ok(self
            .sql
            .prepare_cached(&format!("SELECT {COLUMNS} FROM snapshots WHERE number = ?1"))?
            .query_row([number], from_row)
            .optional()?)
    }

    /// All snapshots of a namespace, in the order they were made.
    ///
    /// # Errors
    /// The store's own.
    pub fn snapshots(&mut self, namespace: &str) -> Result<Vec<SnapshotRow>, Error> {
        let mut statement = self.sql.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM snapshots WHERE namespace = ?1 ORDER BY number"
        ))?;
        let rows = statement.query_map([namespace], from_row)?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    }

    /// The numbers of all snapshots of all namespaces.
    ///
    /// # Errors
    /// The store's own.
    pub fn snapshot_numbers(&mut self) -> Result<Vec<i64>, Error> {
        let mut statement = self.sql.prepare_cached("SELECT number FROM snapshots")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    }

    /// A snapshot that has this one as its parent.
    ///
    /// # Errors
    /// The store's own.
    pub fn child_of(&mut self, number: i64) -> Result<Option<String>, Error> {
        Ok(self
            .sql
            .prepare_cached("SELECT key FROM snapshots WHERE parent = ?1 LIMIT 1")?
            .query_row([number], |row| row.get(0))
            .optional()?)
    }

    /// Makes an active snapshot a committed one, under a new name.
    ///
    /// # Errors
    /// The store's own.
    pub fn commit_snapshot(
        &mut self,
        number: i64,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        self.sql
            .prepare_cached(
                "UPDATE snapshots SET key = ?2, kind = 'committed', labels = ?3, updated_at = ?4
                 WHERE number = ?1",
            )?
            .execute(params![
                number,
                name,
                serde_json::to_string(labels)?,
                serde_json::to_string(&Time::now())?
            ])?;
        self.touched.insert(Key::Snapshot(number));
        Ok(())
    }

    /// Makes an unpacked layer a committed snapshot on its parent. Its files may not be on the disk.
    ///
    /// # Errors
    /// The store's own.
    pub fn commit_layer(
        &mut self,
        number: i64,
        name: &str,
        parent: Option<i64>,
        labels: &BTreeMap<String, String>,
        boot_id: &str,
    ) -> Result<(), Error> {
        self.sql
            .prepare_cached(
                "UPDATE snapshots SET key = ?2, kind = 'committed', parent = ?3, labels = ?4,
                 updated_at = ?5, durable = 0, boot_id = ?6 WHERE number = ?1",
            )?
            .execute(params![
                number,
                name,
                parent,
                serde_json::to_string(labels)?,
                serde_json::to_string(&Time::now())?,
                boot_id
            ])?;
        self.touched.insert(Key::Snapshot(number));
        Ok(())
    }

    /// Committed snapshots that may not be on the disk, with their namespaces, parents first.
    ///
    /// # Errors
    /// The store's own.
    pub fn not_durable(&mut self) -> Result<Vec<(String, SnapshotRow)>, Error> {
        let mut statement = self.sql.prepare_cached(&format!(
            "SELECT {COLUMNS}, namespace FROM snapshots
             WHERE durable = 0 AND kind = 'committed' ORDER BY number"
        ))?;
        let rows = statement.query_map([], |row| Ok((row.get(11)?, from_row(row)?)))?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    }

    /// Says of a layer whose row was lost what it stands on and what it is unpacked from.
    ///
    /// # Errors
    /// The store's own.
    pub fn place_lost_layer(
        &mut self,
        number: i64,
        parent: Option<i64>,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        self.sql
            .prepare_cached("UPDATE snapshots SET parent = ?2, labels = ?3 WHERE number = ?1")?
            .execute(params![number, parent, serde_json::to_string(labels)?])?;
        self.touched.insert(Key::Snapshot(number));
        Ok(())
    }

    /// The committed snapshots of all namespaces.
    ///
    /// # Errors
    /// The store's own.
    pub fn committed(&mut self) -> Result<Vec<SnapshotRow>, Error> {
        let mut statement = self.sql.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM snapshots WHERE kind = 'committed' ORDER BY number"
        ))?;
        let rows = statement.query_map([], from_row)?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    }

    /// The files of a snapshot are on the disk; or they were written anew, in this boot.
    ///
    /// # Errors
    /// The store's own.
    pub fn set_durability(&mut self, number: i64, written_in: Option<&str>) -> Result<(), Error> {
        self.sql
            .prepare_cached("UPDATE snapshots SET durable = ?2, boot_id = ?3 WHERE number = ?1")?
            .execute(params![number, written_in.is_none(), written_in.unwrap_or_default()])?;
        self.touched.insert(Key::Snapshot(number));
        Ok(())
    }

    /// Replaces the labels of a snapshot.
    ///
    /// # Errors
    /// The store's own.
    pub fn set_snapshot_labels(
        &mut self,
        number: i64,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        self.sql
            .prepare_cached("UPDATE snapshots SET labels = ?2, updated_at = ?3 WHERE number = ?1")?
            .execute(params![
                number,
                serde_json::to_string(labels)?,
                serde_json::to_string(&Time::now())?
            ])?;
        self.touched.insert(Key::Snapshot(number));
        Ok(())
    }

    /// Forgets a snapshot; its directory is an orphan from the commit on.
    ///
    /// # Errors
    /// The store's own.
    pub fn remove_snapshot(&mut self, number: i64) -> Result<(), Error> {
        self.sql.prepare_cached("DELETE FROM snapshots WHERE number = ?1")?.execute([number])?;
        self.touched.insert(Key::Snapshot(number));
        Ok(())
    }

    /// How many namespaces and snapshots there are.
    ///
    /// # Errors
    /// The store's own.
    pub fn counts(&mut self) -> Result<(u32, u32), Error> {
        Ok(self.sql.query_row(
            "SELECT (SELECT count(*) FROM namespaces), (SELECT count(*) FROM snapshots)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?)
    }
}
