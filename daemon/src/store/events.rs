//! Events: the durable, numbered sequence.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, params};

use super::{Error, Transaction};
use crate::time::Time;

/// How many events are kept.
const KEPT: u64 = 100_000;

/// How many events are made between two trims.
const TRIM_EVERY: u64 = 1_000;

/// A committed event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counts up by one over all namespaces.
    pub sequence: u64,
    pub time: Time,
    pub namespace: String,
    /// `container`, `sandbox` or `snapshot`.
    pub kind: String,
    /// docker's word: `create`, `start`, `die` …
    pub action: String,
    /// Of the container, or the key of the snapshot.
    pub id: String,
    pub attributes: BTreeMap<String, String>,
}

/// An event to be.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub namespace: String,
    pub kind: String,
    pub action: String,
    pub id: String,
    pub attributes: BTreeMap<String, String>,
}

/// What is stored from some number on.
#[derive(Clone, Debug)]
pub struct Stored {
    pub events: Vec<Event>,
    /// The oldest number still stored; `None` when there is none.
    pub oldest: Option<u64>,
    /// The newest number ever given.
    pub newest: u64,
}

impl Transaction<'_> {
    /// Stores an event; subscribers get it after the commit.
    ///
    /// # Errors
    /// The store's own.
    pub fn event(&mut self, event: NewEvent) -> Result<u64, Error> {
        let time = Time::now();
        self.sql
            .prepare_cached(
                "INSERT INTO events (seconds, nanos, namespace, kind, action, id, attributes)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                time.seconds,
                time.nanos,
                event.namespace,
                event.kind,
                event.action,
                event.id,
                serde_json::to_string(&event.attributes)?
            ])?;
        let sequence = u64::try_from(self.sql.last_insert_rowid()).unwrap_or(0);
        if sequence.is_multiple_of(TRIM_EVERY) {
            self.sql
                .prepare_cached("DELETE FROM events WHERE sequence <= ?1")?
                .execute([i64::try_from(sequence.saturating_sub(KEPT)).unwrap_or(0)])?;
        }
        self.events.push(Event {
            sequence,
            time,
            namespace: event.namespace,
            kind: event.kind,
            action: event.action,
            id: event.id,
            attributes: event.attributes,
        });
        Ok(sequence)
    }

    /// At most `limit` events with numbers from `first` on, in order.
    ///
    /// # Errors
    /// The store's own.
    pub fn events_since(&mut self, first: u64, limit: u32) -> Result<Stored, Error> {
        let first = i64::try_from(first).unwrap_or(i64::MAX);
        let mut statement = self.sql.prepare_cached(
            "SELECT sequence, seconds, nanos, namespace, kind, action, id, attributes
             FROM events WHERE sequence >= ?1 ORDER BY sequence LIMIT ?2",
        )?;
        let events = statement
            .query_map(params![first, limit], |row| {
                Ok(Event {
                    sequence: number(row.get(0)?),
                    time: Time { seconds: row.get(1)?, nanos: row.get(2)? },
                    namespace: row.get(3)?,
                    kind: row.get(4)?,
                    action: row.get(5)?,
                    id: row.get(6)?,
                    attributes: serde_json::from_str(&row.get::<_, String>(7)?).unwrap_or_default(),
                })
            })?
            // One that is damaged is a gap in the numbers, as readers see it.
            .filter_map(Result::ok)
            .collect();
        drop(statement);
        let oldest = self
            .sql
            .query_row("SELECT min(sequence) FROM events", [], |row| row.get::<_, Option<i64>>(0))?
            .map(number);
        Ok(Stored { events, oldest, newest: self.newest_event()? })
    }

    /// The number of the first event that is not older than this; the next one to be given when all
    /// are.
    ///
    /// # Errors
    /// The store's own.
    pub fn first_event_since(&mut self, seconds: i64) -> Result<u64, Error> {
        let first = self.sql.query_row(
            "SELECT min(sequence) FROM events WHERE seconds >= ?1",
            [seconds],
            |row| row.get::<_, Option<i64>>(0),
        )?;
        Ok(match first {
            Some(first) => number(first),
            None => self.newest_event()? + 1,
        })
    }

    /// The newest number ever given; 0 when none was.
    ///
    /// # Errors
    /// The store's own.
    pub fn newest_event(&mut self) -> Result<u64, Error> {
        let newest = self
            .sql
            .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'events'", [], |row| {
                row.get(0)
            })
            .optional()?;
        Ok(newest.map_or(0, number))
    }
}

/// A stored number; SQLite's integers are signed.
fn number(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}
