//! The schema, its version, and how a database is opened.
//!
//! `user_version` counts migrations. A newer database is refused, never guessed at. Tables hold what
//! must be found or be unique in columns, and the rest as JSON.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::Error;

/// One step per version; the position is the version it leads to, counted from 1.
const MIGRATIONS: [&str; 2] = [
    r"
    CREATE TABLE namespaces (
        name TEXT PRIMARY KEY,
        labels TEXT NOT NULL DEFAULT '{}'
    ) STRICT, WITHOUT ROWID;

    -- A container is its record: it exists from the commit of this row to its removal.
    CREATE TABLE containers (
        namespace TEXT NOT NULL,
        id TEXT NOT NULL,
        name TEXT NOT NULL,
        record TEXT NOT NULL,
        spec TEXT NOT NULL,
        PRIMARY KEY (namespace, id),
        UNIQUE (namespace, name)
    ) STRICT, WITHOUT ROWID;

    -- Removed containers: what is left to clean up, and how they ended for those who ask late.
    CREATE TABLE removed (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        namespace TEXT NOT NULL,
        id TEXT NOT NULL,
        name TEXT NOT NULL,
        record TEXT NOT NULL,
        cleaned INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX removed_by_id ON removed (namespace, id);
    CREATE INDEX removed_unclean ON removed (cleaned) WHERE cleaned = 0;

    CREATE TABLE snapshots (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        namespace TEXT NOT NULL,
        key TEXT NOT NULL,
        kind TEXT NOT NULL,
        parent INTEGER REFERENCES snapshots (number),
        directory TEXT,
        held_by TEXT,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL,
        labels TEXT NOT NULL DEFAULT '{}',
        durable INTEGER NOT NULL DEFAULT 1,
        boot_id TEXT NOT NULL DEFAULT '',
        UNIQUE (namespace, key)
    ) STRICT;
    CREATE INDEX snapshots_by_parent ON snapshots (parent);

    CREATE TABLE blobs (
        namespace TEXT NOT NULL,
        digest TEXT NOT NULL,
        size INTEGER NOT NULL,
        created_at TEXT NOT NULL,
        labels TEXT NOT NULL DEFAULT '{}',
        PRIMARY KEY (namespace, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX blobs_by_digest ON blobs (digest);

    CREATE TABLE leases (
        namespace TEXT NOT NULL,
        id TEXT NOT NULL,
        created_at TEXT NOT NULL,
        -- Nanoseconds since the epoch; NULL: never.
        expires_at INTEGER,
        labels TEXT NOT NULL DEFAULT '{}',
        PRIMARY KEY (namespace, id)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE lease_resources (
        namespace TEXT NOT NULL,
        lease TEXT NOT NULL,
        kind TEXT NOT NULL,
        resource TEXT NOT NULL,
        PRIMARY KEY (namespace, lease, kind, resource),
        FOREIGN KEY (namespace, lease) REFERENCES leases (namespace, id) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX lease_resources_by_resource ON lease_resources (namespace, kind, resource);

    CREATE TABLE requests (
        namespace TEXT NOT NULL,
        request_id TEXT NOT NULL,
        body TEXT NOT NULL,
        answer TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        PRIMARY KEY (namespace, request_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX requests_by_age ON requests (sequence);

    CREATE TABLE events (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        seconds INTEGER NOT NULL,
        nanos INTEGER NOT NULL,
        namespace TEXT NOT NULL,
        kind TEXT NOT NULL,
        action TEXT NOT NULL,
        id TEXT NOT NULL,
        attributes TEXT NOT NULL
    ) STRICT;
",
    r#"
    CREATE TABLE images (
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        digest TEXT NOT NULL,
        -- The descriptor, as JSON.
        target TEXT NOT NULL,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL,
        labels TEXT NOT NULL DEFAULT '{}',
        PRIMARY KEY (namespace, name)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX images_by_digest ON images (namespace, digest);

    -- The digest of the manifest that the container was made from; empty over a directory.
    ALTER TABLE containers ADD COLUMN image TEXT NOT NULL DEFAULT '';
    CREATE INDEX containers_by_image ON containers (namespace, image) WHERE image <> '';

    -- What was made when nothing was collected stays until it is removed by hand.
    UPDATE blobs SET labels = json_set(labels, '$."containerd.io/gc.root"', 'kept');
    UPDATE snapshots SET labels = json_set(labels, '$."containerd.io/gc.root"', 'kept')
     WHERE held_by IS NULL;

    -- Unpacked layers that may not be on the disk yet.
    CREATE INDEX snapshots_not_durable ON snapshots (durable) WHERE durable = 0;
"#,
];

/// Opens or creates the database and brings it to this version's schema.
pub(super) fn open(path: &Path) -> Result<Connection, Error> {
    let failed =
        |source: rusqlite::Error| Error::Open { path: path.to_owned(), source: Arc::new(source) };
    let mut connection = Connection::open(path).map_err(failed)?;
    connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "full").map_err(failed)?;
    connection.pragma_update(None, "foreign_keys", "on").map_err(failed)?;
    connection.pragma_update(None, "cache_size", -1024).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    let found: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(Error::Newer { path: path.to_owned(), found, known });
    }
    let transaction = connection.transaction().map_err(failed)?;
    let done = usize::try_from(found).unwrap_or(0);
    for migration in &MIGRATIONS[done..] {
        transaction.execute_batch(migration).map_err(failed)?;
    }
    transaction.pragma_update(None, "user_version", known).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok(connection)
}
