//! The schema, its version, and how a database is opened.
//!
//! `user_version` counts migrations. A newer database is refused, never guessed at ([`super::examine`]).
//! Tables hold what
//! must be found or be unique in columns, and the rest as JSON.

use std::path::Path;

use rusqlite::Connection;

/// One step per version; the position is the version it leads to, counted from 1.
const MIGRATIONS: [&str; 3] = [
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
    r"
    -- Checksums of rows, without which a flipped byte is another value; empty until they are known.
    ALTER TABLE containers ADD COLUMN spec_sum TEXT NOT NULL DEFAULT '';
    ALTER TABLE containers ADD COLUMN sum TEXT NOT NULL DEFAULT '';
    ALTER TABLE snapshots ADD COLUMN sum TEXT NOT NULL DEFAULT '';
    ALTER TABLE blobs ADD COLUMN sum TEXT NOT NULL DEFAULT '';
    ALTER TABLE images ADD COLUMN sum TEXT NOT NULL DEFAULT '';

    -- How many commits there were, which is noted outside as well.
    CREATE TABLE commits (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        count INTEGER NOT NULL
    ) STRICT;
    INSERT INTO commits (one, count) VALUES (1, 0);
",
];

/// The version that this bosund makes of a database.
pub(super) const KNOWN: i64 = MIGRATIONS.len() as i64;

/// Opens or creates the database.
///
/// # Errors
/// SQLite's.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", "on")?;
    connection.pragma_update(None, "cache_size", -1024)?;
    connection.set_prepared_statement_cache_capacity(96);
    Ok(connection)
}

/// The version of a database.
///
/// # Errors
/// SQLite's.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings a database to this version's schema.
///
/// # Errors
/// SQLite's; nothing is changed then.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let done = usize::try_from(version(connection)?).unwrap_or(0);
    let transaction = connection.transaction()?;
    for migration in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", KNOWN)?;
    transaction.commit()
}

/// Whether tables, columns and indices are those of this version: what says how they look can be
/// damaged as everything else.
///
/// # Errors
/// SQLite's.
pub(super) fn is_as_known(connection: &Connection) -> rusqlite::Result<bool> {
    let mut fresh = Connection::open_in_memory()?;
    migrate(&mut fresh)?;
    Ok(shape(connection)? == shape(&fresh)?)
}

fn shape(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT format('%s %s %s: %s %s %d %s %d', o.type, o.name, o.tbl_name, c.name, c.type,
                       c.\"notnull\", c.dflt_value, c.pk)
         FROM sqlite_schema AS o JOIN pragma_table_info(o.name) AS c
         UNION ALL
         SELECT format('%s %s %s: %d %s', o.type, o.name, o.tbl_name, c.cid, c.name)
         FROM sqlite_schema AS o JOIN pragma_index_info(o.name) AS c WHERE o.type = 'index'
         ORDER BY 1",
    )?;
    let rows = statement.query_map([], |row| row.get(0))?;
    rows.collect()
}

/// Counts a commit, in its transaction; answers its number.
///
/// # Errors
/// SQLite's.
pub(super) fn count_commit(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("UPDATE commits SET count = count + 1 WHERE one = 1 RETURNING count")?
        .query_row([], |row| row.get(0))
}

/// The number of the last commit.
///
/// # Errors
/// SQLite's.
pub(super) fn commits(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT count FROM commits WHERE one = 1")?
        .query_row([], |row| row.get(0))
}
