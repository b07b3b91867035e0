//! Whether a database is whole: looked at before anybody is served.
//!
//! ```text
//!   there? ─ version ─ integrity ─ schema ─ commits as many as were noted ─ checksums of rows
//! ```
//!
//! Everything but the checksums is about the database as a whole, and the answer to what is wrong is
//! that it is made anew. After an unclean end (a WAL is left) pages and indices are compared to each
//! other in full (`integrity_check`), else the pages alone (`quick_check`).
//!
//! What the disk or the rights of files keep from being read is no damage: that is an error, and
//! nothing is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::copies::{self, Cell, Copies, Key, Mark, Row, Table};
use super::{Error, Finding, SnapshotRow, rebuild, schema};
use crate::plain_file;

/// The files of a database, by their extensions. What is in the last two it can do without.
pub(super) const FILES: [&str; 4] = ["db", "db-wal", "db-shm", "db-journal"];
const NEEDED: usize = 2;

/// What is found of a database.
pub(super) enum State {
    /// There never was one.
    New,
    /// It is of this version now.
    Whole(Connection),
    /// Why nobody may go by it.
    Damaged(String),
}

/// A row that is not what was stored.
#[derive(Debug)]
pub(super) struct BadRow {
    pub row: Row,
    /// As it is stored: what the row is found by.
    pub sum: Cell,
}

impl BadRow {
    /// As findings name it.
    pub(super) fn object(&self) -> String {
        let table = self.row.table.name();
        self.row.key().map_or_else(|| format!("a row of {table}"), |key| key.to_string())
    }
}

/// Opens a database that is whole, and brings it to this version.
///
/// # Errors
/// [`Error::Newer`], before anything is touched; [`Error::Open`] when it can't be read.
pub(super) fn take(path: &Path, copies: &Copies) -> Result<State, Error> {
    let failed = |source| Error::Open { path: path.to_owned(), source: Arc::new(source) };
    for extension in &FILES[NEEDED..] {
        rebuild::make_way(copies.root(), &path.with_extension(extension))?;
    }
    let was_left_open = path.with_extension("db-wal").metadata().is_ok_and(|wal| wal.len() > 0);
    let seen = match glance(path, copies)? {
        Glance::New => return Ok(State::New),
        Glance::Damaged(reason) => return Ok(State::Damaged(reason)),
        Glance::Readable(seen) => seen,
    };
    drop(seen);
    let open = || -> rusqlite::Result<std::result::Result<Connection, String>> {
        let mut connection = schema::connect(path)?;
        if let Some(reason) = integrity(&connection, was_left_open)? {
            return Ok(Err(reason));
        }
        if schema::version(&connection)? < schema::KNOWN {
            let commits = copies.mark().map_or(0, |mark| mark.commits);
            Copies::beside(path).note(Mark { commits, schema: schema::KNOWN });
        }
        schema::migrate(&mut connection)?;
        Ok(judge(&connection, copies)?.map_or(Ok(connection), Err))
    };
    match open() {
        Ok(Ok(connection)) => Ok(State::Whole(connection)),
        Ok(Err(reason)) => Ok(State::Damaged(reason)),
        Err(source) if is_damage(&source) => Ok(State::Damaged(source.to_string())),
        Err(source) => Err(failed(source)),
    }
}

/// What is wrong with a database and with the copies of its rows; nothing is changed.
///
/// # Errors
/// As [`take`].
pub fn look(path: &Path) -> Result<Vec<Finding>, Error> {
    let copies = Copies::beside(path);
    let database = |problem: String| -> Result<Vec<Finding>, Error> {
        rebuild::expect_readable(path)?;
        Ok(vec![Finding {
            object: format!("database {}", path.display()),
            problem,
            remedy: "the next start of bosund, or `bosund fsck --rebuild`, sets it aside and makes a new one from what lies on the disk".to_owned(),
        }])
    };
    if odd(path, &FILES[..NEEDED]).is_none()
        && let Some(problem) = odd(path, &FILES[NEEDED..])
    {
        return Ok(vec![Finding {
            object: format!("database {}", path.display()),
            problem,
            remedy: "the next start of bosund sets that aside; then look at it again".to_owned(),
        }]);
    }
    let connection = match glance(path, &copies)? {
        Glance::New => return Ok(Vec::new()),
        Glance::Damaged(reason) => return database(reason),
        Glance::Readable(connection) => connection,
    };
    let look = || -> Result<Vec<Finding>, Error> {
        if let Some(reason) = integrity(&connection, true)? {
            return database(reason);
        }
        if schema::version(&connection)? != schema::KNOWN {
            // An older version has no checksums: the next start gives it some.
            return Ok(Vec::new());
        }
        if let Some(reason) = judge(&connection, &copies)? {
            return database(reason);
        }
        let mut findings: Vec<Finding> = bad_rows(&connection)?
            .iter()
            .map(|bad| Finding {
                object: bad.object(),
                problem: "its row in the database is damaged".to_owned(),
                remedy: "the next start of bosund, or `bosund fsck --repair`, takes its copy"
                    .to_owned(),
            })
            .collect();
        findings.extend(differing(&connection, &copies)?);
        for row in rebuild::unknown_containers(&connection, &copies)? {
            let Some(key) = row.key() else { continue };
            findings.push(Finding {
                object: format!("{key} ({})", row.cell("name").text().unwrap_or_default()),
                problem: rebuild::UNKNOWN.to_owned(),
                remedy:
                    "the next start of bosund, or `bosund fsck --repair`, takes it from its copy"
                        .to_owned(),
            });
        }
        Ok(findings)
    };
    match look() {
        Err(Error::Sql(source)) if is_damage(&source) => database(source.to_string()),
        other => other,
    }
}

/// What a database knows, for whoever compares it with what lies on the disk.
#[derive(Debug, Default)]
pub struct Contents {
    /// Digests, whichever namespace has them.
    pub blobs: BTreeSet<String>,
    pub snapshots: BTreeMap<i64, SnapshotRow>,
    /// By namespace and id.
    pub containers: BTreeMap<(String, String), Container>,
    /// Containers that were removed and have left something that is still to be cleaned up; likewise.
    pub removals: BTreeSet<(String, String)>,
    /// Containers that have a copy alone, from which the next start takes them; likewise.
    pub copied: BTreeSet<(String, String)>,
    /// The numbers of their snapshots.
    pub of_copied: BTreeSet<i64>,
}

/// A container as the database knows it.
#[derive(Debug)]
pub struct Container {
    pub name: String,
    /// Of its specification; see [`is_sum`].
    pub spec_sum: String,
    /// Why its record can't be read, if it can't.
    pub record: Result<(), String>,
}

/// What a database knows; `None` when it is damaged, lacks commits, is of an older version, or not there. Nothing is
/// changed.
///
/// # Errors
/// As [`look`].
pub fn contents(path: &Path) -> Result<Option<Contents>, Error> {
    let copies = Copies::beside(path);
    let Glance::Readable(mut connection) = glance(path, &copies)? else {
        return Ok(None);
    };
    let read = |connection: &mut Connection| -> Result<Option<Contents>, Error> {
        if schema::version(connection)? != schema::KNOWN || judge(connection, &copies)?.is_some() {
            return Ok(None);
        }
        let mut contents = Contents::default();
        for row in rebuild::unknown_containers(connection, &copies)? {
            let Some(Key::Container { namespace, id }) = row.key() else { continue };
            let record = row.cell("record").text().map(super::containers::parse);
            contents.of_copied.extend(record.and_then(Result::ok).map(|record| record.snapshot));
            contents.copied.insert((namespace, id));
        }
        for (row, _) in copies::rows(connection, Table::Containers)? {
            let text = |column: &str| row.cell(column).text().unwrap_or_default().to_owned();
            let container = Container {
                name: text("name"),
                spec_sum: text("spec_sum"),
                record: super::containers::parse(&text("record")).map(drop),
            };
            contents.containers.insert((text("namespace"), text("id")), container);
        }
        let mut transaction = super::reading(connection)?;
        let removals = transaction.load_unclean()?.into_iter();
        contents.removals = removals.map(|removed| (removed.namespace, removed.id)).collect();
        contents.blobs = transaction.blob_digests()?.into_iter().collect();
        for namespace in transaction.namespaces()? {
            let rows = transaction.snapshots(&namespace)?;
            contents.snapshots.extend(rows.into_iter().map(|row| (row.number, row)));
        }
        Ok(Some(contents))
    };
    match read(&mut connection) {
        Err(Error::Sql(source)) if is_damage(&source) => Ok(None),
        other => other,
    }
}

/// Whether this is the checksum of a specification; an older version stored none.
#[must_use]
pub fn is_sum(known: &str, spec: &[u8]) -> bool {
    known.is_empty() || std::str::from_utf8(spec).is_ok_and(|spec| copies::sum(&[spec]) == known)
}

enum Glance {
    New,
    Damaged(String),
    /// Open for reading alone.
    Readable(Connection),
}

/// Which of these files of a database is none: SQLite would say that it can't open it, or wait for ever.
fn odd(path: &Path, extensions: &[&str]) -> Option<String> {
    extensions.iter().find_map(|extension| {
        let file = path.with_extension(extension);
        // The database itself may be a link to where it is.
        let followed = || file.metadata().is_ok_and(|found| found.is_file());
        let kind = plain_file::other_kind(&file).filter(|_| *extension != "db" || !followed())?;
        Some(format!("{} is {kind}, not a file", file.display()))
    })
}

/// Looks at a database without changing it: is it there, and of a version that is known?
fn glance(path: &Path, copies: &Copies) -> Result<Glance, Error> {
    let failed = |source| Error::Open { path: path.to_owned(), source: Arc::new(source) };
    if let Some(reason) = odd(path, &FILES) {
        return Ok(Glance::Damaged(reason));
    }
    let size = path.metadata().map(|file| file.len());
    if !size.as_ref().is_ok_and(|size| *size > 0) {
        let how = if size.is_ok() { "it is empty" } else { "it is missing" };
        return Ok(match copies.are_there() {
            true => Glance::Damaged(how.to_owned()),
            false => Glance::New,
        });
    }
    // With any other number here SQLite takes the file for one that it may only read
    // (fileformat2.html, "File format version numbers").
    let mut header = [0; 20];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    if read.is_ok() && !header[18..].iter().all(|version| matches!(version, 1 | 2)) {
        return Ok(Glance::Damaged("the version of its format is none".to_owned()));
    }
    let open = || -> rusqlite::Result<(Connection, i64)> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        let version = schema::version(&connection)?;
        Ok((connection, version))
    };
    let (connection, found) = match open() {
        Ok(opened) => opened,
        Err(source) if is_damage(&source) => return Ok(Glance::Damaged(source.to_string())),
        Err(source) => return Err(failed(source)),
    };
    if found > schema::KNOWN {
        // A newer bosund notes its version before it changes anything. A lower version than there was
        // is found by the migrations, for which there is nothing to do.
        if let Some(Mark { schema: noted @ ..=schema::KNOWN, .. }) = copies.mark() {
            return Ok(Glance::Damaged(format!("its version reads {found}, and was {noted}")));
        }
        return Err(Error::Newer { path: path.to_owned(), found, known: schema::KNOWN });
    }
    Ok(Glance::Readable(connection))
}

/// What SQLite finds in its own structures.
fn integrity(connection: &Connection, thorough: bool) -> rusqlite::Result<Option<String>> {
    let check = if thorough { "PRAGMA integrity_check(3)" } else { "PRAGMA quick_check(3)" };
    let mut statement = connection.prepare(check)?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    let lines: Vec<String> = lines.collect::<Result<_, _>>()?;
    Ok((lines != ["ok"]).then(|| lines.join("; ").replace('\n', " ")))
}

/// What only this program can tell of a database of its own version.
fn judge(connection: &Connection, copies: &Copies) -> rusqlite::Result<Option<String>> {
    if !schema::is_as_known(connection)? {
        return Ok(Some("its tables are not those of its version".to_owned()));
    }
    let commits = schema::commits(connection)?;
    let noted = copies.mark().map_or(0, |mark| mark.commits);
    if noted > commits {
        return Ok(Some(format!("its last {} commits are missing", noted - commits)));
    }
    let newest = copies.newest();
    Ok((newest > commits).then(|| {
        format!(
            "it is an older one: it ends {} commits before the last that a copy of its rows tells of",
            newest - commits
        )
    }))
}

/// Rows whose checksum is another one.
///
/// # Errors
/// The store's own.
pub(super) fn bad_rows(connection: &Connection) -> Result<Vec<BadRow>, Error> {
    let mut bad = Vec::new();
    for table in Table::ALL {
        for (row, sum) in copies::rows(connection, table)? {
            let is_read = !row.cells.iter().any(|cell| matches!(cell, Cell::Damaged(_)));
            let is_right = match sum.text() {
                // An older version stored it.
                Some("") => true,
                Some(sum) => sum == row.sum(),
                None => false,
            };
            if !is_read || !is_right {
                bad.push(BadRow { row, sum });
            }
        }
    }
    Ok(bad)
}

/// Copies that are damaged, or are missing.
fn differing(connection: &Connection, copies: &Copies) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for table in Table::ALL {
        for (row, _) in copies::rows(connection, table)? {
            let Some(key) = row.key().filter(|_| row.has_copy()) else { continue };
            let path = copies.path(&key);
            let problem = match plain_file::read(&path, plain_file::RECORD) {
                Ok(bytes) => match Row::unseal(table, &bytes) {
                    Ok(copy) if copy == row => continue,
                    Ok(_) => "is not what the database has".to_owned(),
                    Err(problem) => problem,
                },
                Err(error) => error.to_string(),
            };
            findings.push(Finding {
                object: key.to_string(),
                problem: format!("the copy of its record, {}: {problem}", path.display()),
                remedy: "the next start of bosund, or `bosund fsck --repair`, writes it anew"
                    .to_owned(),
            });
        }
    }
    Ok(findings)
}

/// Whether an error says that bytes are not what was written.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    let Some(error) = error.sqlite_error() else {
        // A value that is none of its column's.
        return true;
    };
    // What is "unknown" to the binding is SQLITE_ERROR: statements that don't fit the tables.
    matches!(
        error.code,
        ErrorCode::NotADatabase
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::Unknown
            | ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch
            | ErrorCode::TooBig
    ) || error.extended_code == ffi::SQLITE_IOERR_SHORT_READ
}
