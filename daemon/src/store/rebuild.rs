//! A store that is damaged, put right: a new database from the copies of its rows, or a row from its
//! own.
//!
//! The old database is set aside, never deleted. Known again afterwards are containers, snapshots,
//! blobs and names of images; what the database alone knew is lost: events (their numbers go on far
//! behind the old ones, so that readers are told of the gap), answers to repeated requests, removed
//! containers, leases. What only a lease kept is held by [`LEASE`] for a day, so that there is time to
//! look at it.
//!
//! A container whose record is lost is quarantined: it is listed with what is known of it and where that
//! lies, its name stays its own, and it can be removed. Whatever lies in the directory of a container that no
//! row names is what was one. A layer whose row is lost counts as torn, and is unpacked again from its blob.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use shim_wire::id::Id;

use super::containers::Lost;
use super::copies::{self, Cell, Copies, Key, Mark, Row, Table};
use super::examine::{self, State};
use super::{Error, Finding, Kind, Mended, schema, unfinished};
use crate::container::Record;
use crate::plain_file::{self, RECORD as MOST};
use crate::spec::ContainerOptions;

/// In the place of a boot's id: the files of this layer are not there, or not known to be.
pub const LOST: &str = "lost";

/// A store that can be gone by.
pub(super) struct Opened {
    pub connection: Connection,
    pub copies: Copies,
    pub mended: Mended,
}

/// Opens a database, new or whole, or after it was put right.
///
/// # Errors
/// [`Error::Newer`], [`Error::Open`]; files that can't be moved or written.
pub(super) fn open(path: &Path) -> Result<Opened, Error> {
    if let Ok(opened) = attempt(path)? {
        return Ok(opened);
    }
    // SQLite also calls damage what the disk did not read (SQLITE_IOERR_CORRUPTFS): it is only if all
    // of it can be read, and when it is looked at again.
    expect_readable(path)?;
    attempt(path)?.or_else(|reason| anew(path, &Copies::beside(path), reason))
}

/// Opens a database that is not damaged; answers how it is when it is.
fn attempt(path: &Path) -> Result<std::result::Result<Opened, String>, Error> {
    let copies = Copies::beside(path);
    let opened = match examine::take(path, &copies)? {
        State::Damaged(reason) => return Ok(Err(reason)),
        State::Whole(connection) => settle(path, &connection)
            .and_then(|()| finish(path, connection, copies, Mended::default())),
        State::New => {
            let failed = |source| open_failed(path, source);
            let mut connection = schema::connect(path).map_err(failed)?;
            schema::migrate(&mut connection).map_err(failed)?;
            finish(path, connection, copies, Mended::default())
        }
    };
    match opened {
        // What SQLite's own check passes over: an index that says something else than its table.
        Err(error) if error.is_damage() => Ok(Err(error.to_string())),
        opened => opened.map(Ok),
    }
}

/// The files of a database can be read to their ends, as far as they are there.
///
/// # Errors
/// [`Error::Open`] with what the disk says.
pub(super) fn expect_readable(path: &Path) -> Result<(), Error> {
    for extension in ["db", "db-wal"] {
        let file = path.with_extension(extension);
        if file.metadata().is_ok_and(|found| !found.is_file()) {
            // It is none, which is damage enough.
            continue;
        }
        match File::open(&file).and_then(|mut open| std::io::copy(&mut open, &mut std::io::sink()))
        {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(file_failed(&file, error));
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// Sets a database aside, whatever it is like, and makes a new one.
///
/// # Errors
/// Files that can't be moved or written.
pub(super) fn force(path: &Path) -> Result<Opened, Error> {
    let copies = Copies::beside(path);
    // One of a newer bosund is not ours to judge.
    if let State::Whole(connection) = examine::take(path, &copies)? {
        // Its copies may be older than it, when it comes from an older bosund.
        let opened = finish(path, connection, Copies::beside(path), Mended::default())?;
        drop(opened);
    }
    anew(path, &copies, "a new one was asked for".to_owned())
}

fn anew(path: &Path, copies: &Copies, reason: String) -> Result<Opened, Error> {
    let root = copies.root().to_owned();
    let mut mended = Mended { findings: Vec::new(), is_rebuilt: true };
    let mut kept = Vec::new();
    for extension in examine::FILES {
        let file = path.with_extension(extension);
        if file.symlink_metadata().is_ok() {
            shim_failpoints::step!("daemon.rebuild.before_aside");
            kept.push(set_aside(&root, &file)?.display().to_string());
        }
    }
    let kept =
        if kept.is_empty() { String::new() } else { format!("set aside as {}, ", kept.join(", ")) };
    mended.findings.push(Finding {
        object: format!("database {}", path.display()),
        problem: reason,
        remedy: format!("{kept}made anew from what lies on the disk"),
    });
    shim_failpoints::step!("daemon.rebuild.before_build");
    build(path, copies, &mut mended.findings)?;
    match examine::take(path, copies)? {
        State::Whole(connection) => finish(path, connection, Copies::beside(path), mended),
        State::New | State::Damaged(_) => {
            Err(open_failed(path, rusqlite::Error::QueryReturnedNoRows))
        }
    }
}

/// Makes a new database of the copies, whole or not at all.
fn build(path: &Path, copies: &Copies, findings: &mut Vec<Finding>) -> Result<(), Error> {
    let new = path.with_extension("db-new");
    for extension in ["db-new", "db-new-wal", "db-new-shm"] {
        // Half of one, of a daemon that was killed.
        let half = path.with_extension(extension);
        make_way(copies.root(), &half)?;
        let _ = std::fs::remove_file(half);
    }
    let mut connection = schema::connect(&new)?;
    schema::migrate(&mut connection)?;
    connection.pragma_update(None, "foreign_keys", "off")?;
    let transaction = connection.transaction()?;
    restore(&transaction, copies, &Table::ALL.into(), true, findings)?;
    let commits = copies.mark().map_or(0, |mark| mark.commits).max(copies.newest());
    transaction.execute("UPDATE commits SET count = ?1", [commits])?;
    seed(&transaction, copies.root())?;
    shim_failpoints::step!("daemon.rebuild.before_commit");
    transaction.commit()?;
    shim_failpoints::step!("daemon.rebuild.after_commit");
    strangers(&connection, copies.root(), findings)?;
    connection.pragma_update(None, "journal_mode", "delete")?;
    drop(connection);
    let root = copies.root();
    let put = || {
        unfinished::note(path, true)?;
        shim_failpoints::step!("daemon.rebuild.before_rename", error);
        File::open(&new)?.sync_all()?;
        std::fs::rename(&new, path)?;
        shim_failpoints::step!("daemon.rebuild.after_rename", error);
        File::open(root)?.sync_all()
    };
    put().map_err(|source: std::io::Error| file_failed(path, source))
}

/// Takes what the journal of the daemon before holds into the database. After an fsync that failed the
/// kernel may take pages for clean that never got to the disk, the journal's among them: the database
/// gets them as new ones.
fn settle(path: &Path, connection: &Connection) -> Result<(), Error> {
    let taken = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    match taken {
        // A full disk: the journal stays what it is.
        Err(source) if source.sqlite_error_code() == Some(ErrorCode::DiskFull) => Ok(()),
        taken => taken.map_err(|source| open_failed(path, source)),
    }
}

/// Replaces damaged rows, gives checksums to those that have none, and brings all copies up to date.
fn finish(
    path: &Path,
    mut connection: Connection,
    mut copies: Copies,
    mut mended: Mended,
) -> Result<Opened, Error> {
    let broken_off = unfinished::read(path);
    mend_rows(path, &mut connection, &copies, &mut mended.findings)?;
    if let Some(is_rebuilt) = broken_off {
        go_on(path, &connection, &copies, &mut mended)?;
        mended.is_rebuilt |= is_rebuilt;
    }
    take_up_unknown(path, &mut connection, &copies, &mut mended.findings)?;
    mend_specs(&connection, &copies, &mut mended.findings)?;
    for finding in &mended.findings {
        tracing::error!(object = finding.object, problem = finding.problem, "{}", finding.remedy);
    }
    shim_failpoints::step!("daemon.rebuild.before_copies");
    copies.renew(&connection)?;
    shim_failpoints::step!("daemon.rebuild.after_copies");
    let commits = schema::commits(&connection).map_err(|source| open_failed(path, source))?;
    copies.note(Mark { commits, schema: schema::KNOWN });
    Ok(Opened { connection, copies, mended })
}

/// After a daemon that was killed before it was done: the rows are right, and what is theirs may not be yet.
fn go_on(path: &Path, sql: &Connection, copies: &Copies, mended: &mut Mended) -> Result<(), Error> {
    strangers(sql, copies.root(), &mut mended.findings)?;
    if mended.findings.is_empty() {
        mended.findings.push(Finding {
            object: format!("database {}", path.display()),
            problem: "it was put right, and that was broken off".to_owned(),
            remedy: "what it is missing is taken from the blobs now".to_owned(),
        });
    }
    Ok(())
}

fn mend_rows(
    path: &Path,
    connection: &mut Connection,
    copies: &Copies,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let bad = examine::bad_rows(connection)?;
    let unsealed: i64 = Table::ALL.iter().try_fold(0, |all, table| {
        let count = format!("SELECT count(*) FROM {} WHERE sum = ''", table.name());
        connection.query_row(&count, [], |row| row.get::<_, i64>(0)).map(|count| all + count)
    })?;
    if bad.is_empty() && unsealed == 0 {
        return Ok(());
    }
    connection.pragma_update(None, "foreign_keys", "off")?;
    let transaction = connection.transaction()?;
    let mut tables: BTreeSet<Table> = BTreeSet::new();
    for row in &bad {
        let table = row.row.table.name();
        transaction.execute(&format!("DELETE FROM {table} WHERE sum IS ?1"), [&row.sum])?;
        tables.insert(row.row.table);
        if matches!(row.row.table, Table::Containers | Table::Snapshots) {
            // One tells of the other.
            tables.extend([Table::Containers, Table::Snapshots]);
        }
    }
    if !bad.is_empty() {
        restore(&transaction, copies, &tables, false, findings)?;
    }
    let mut quarantined = BTreeSet::new();
    if bad.iter().any(|row| row.row.table == Table::Containers) {
        quarantined = lost_rows(&transaction, copies, &bad, findings)?;
    }
    for row in &bad {
        let remedy = match row.row.key() {
            Some(key) if quarantined.contains(&key) => continue,
            Some(key) if copies::find(&transaction, &key)?.is_some() => "its copy took its place",
            Some(_) => "there is no copy of it: it is forgotten",
            None => {
                "whose it was can't be read: it is forgotten, unless a copy or a directory of its own is left"
            }
        };
        findings.push(Finding {
            object: row.object(),
            problem: "its row in the database was damaged".to_owned(),
            remedy: remedy.to_owned(),
        });
    }
    copies::reseal(&transaction)?;
    if !bad.is_empty() {
        unfinished::note(path, false).map_err(|source| file_failed(path, source))?;
    }
    shim_failpoints::step!("daemon.mend.before_commit");
    transaction.commit()?;
    shim_failpoints::step!("daemon.mend.after_commit");
    strangers_of(&bad, copies.root(), connection, findings)?;
    connection.pragma_update(None, "foreign_keys", "on")?;
    Ok(())
}

/// Why a container is taken from its copy.
pub(super) const UNKNOWN: &str =
    "no row of the database names it, and nothing says that it was removed";

/// The copies of containers that the database does not know, neither as there nor as removed. An older
/// database was put back, say, or the directory of a container.
///
/// # Errors
/// The store's own.
pub(super) fn unknown_containers(sql: &Connection, copies: &Copies) -> Result<Vec<Row>, Error> {
    let mut unknown = Vec::new();
    for path in copies.files(Table::Containers) {
        let Some((namespace, id)) = path.parent().and_then(ids) else { continue };
        if is_container(sql, &namespace, &id)? || is_of_removed(sql, &path)? {
            continue;
        }
        let Ok(bytes) = plain_file::read(&path, MOST) else { continue };
        let row = Row::unseal(Table::Containers, &bytes).ok();
        let own = |row: &Row| row.key().is_some_and(|key| copies.path(&key) == path);
        unknown.extend(row.filter(own));
    }
    Ok(unknown)
}

/// Takes them from there, with the snapshots that they tell of.
fn take_up_unknown(
    path: &Path,
    connection: &mut Connection,
    copies: &Copies,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let unknown = unknown_containers(connection, copies)?;
    if unknown.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for row in unknown {
        let Some(key) = row.key() else { continue };
        let name = row.cell("name").text().unwrap_or_default().to_owned();
        if insert_copy(&transaction, copies, &key, &row, findings)? {
            findings.push(Finding {
                object: format!("{key} ({name})"),
                problem: UNKNOWN.to_owned(),
                remedy: "taken from its copy".to_owned(),
            });
        }
    }
    snapshots_of_containers(&transaction, findings)?;
    copies::reseal(&transaction)?;
    unfinished::note(path, false).map_err(|source| file_failed(path, source))?;
    Ok(transaction.commit()?)
}

/// Stores the row of a copy, and its specification, where the database does not know it; answers whether
/// it was.
fn insert_copy(
    sql: &Connection,
    copies: &Copies,
    key: &Key,
    row: &Row,
    findings: &mut Vec<Finding>,
) -> Result<bool, Error> {
    let path = copies.path(key);
    let spec = (row.table == Table::Containers).then(|| {
        spec_beside(&path, row.cell("spec_sum").text().unwrap_or_default()).unwrap_or_default()
    });
    namespace_of(sql, row)?;
    if copies::find(sql, key)?.is_some() {
        return Ok(false);
    }
    let stored = row.insert(sql, spec.as_deref())?;
    if !stored {
        findings.push(Finding {
            object: key.to_string(),
            problem: "its name or number is another one's".to_owned(),
            remedy: format!("not restored; its copy stays: {}", path.display()),
        });
    }
    Ok(stored)
}

/// Specifications that are not what was stored: from their files, or made anew at the next start.
fn mend_specs(
    connection: &Connection,
    copies: &Copies,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let mut statement =
        connection.prepare("SELECT namespace, id, spec_sum, CAST(spec AS BLOB) FROM containers")?;
    let rows = statement.query_map([], |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
            row.get::<_, Vec<u8>>(3)?,
        ))
    })?;
    for row in rows {
        let (namespace, id, known, spec) = row?;
        let is_right = std::str::from_utf8(&spec).is_ok_and(|spec| copies::sum(&[spec]) == known);
        if is_right || spec.is_empty() {
            continue;
        }
        if known.is_empty() {
            // An older version stored it.
            let sum = copies::sum(&[&String::from_utf8_lossy(&spec)]);
            connection.execute(
                "UPDATE containers SET spec_sum = ?3 WHERE namespace = ?1 AND id = ?2",
                params![namespace, id, sum],
            )?;
            continue;
        }
        let key = Key::Container { namespace: namespace.clone(), id: id.clone() };
        let found = spec_beside(&copies.path(&key), &known).unwrap_or_default();
        connection.execute(
            "UPDATE containers SET spec = ?3 WHERE namespace = ?1 AND id = ?2",
            params![namespace, id, found],
        )?;
        findings.push(Finding {
            object: key.to_string(),
            problem: "its specification in the database was damaged".to_owned(),
            remedy: match found.is_empty() {
                true => "it is made anew at its next start",
                false => "its config.json took its place",
            }
            .to_owned(),
        });
    }
    drop(statement);
    copies::reseal(connection)
}

/// Stores what the copies of some tables say and the database does not know. `is_lost`: it knows
/// nothing, so that a container that has no copy is one that lost it.
fn restore(
    sql: &Connection,
    copies: &Copies,
    tables: &BTreeSet<Table>,
    is_lost: bool,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    for table in tables {
        for path in copies.files(*table) {
            let read = plain_file::read(&path, MOST).map_err(|error| error.to_string());
            let row = read.and_then(|bytes| Row::unseal(*table, &bytes)).and_then(|row| {
                let is_its_own = row.key().is_some_and(|key| copies.path(&key) == path);
                if is_its_own { Ok(row) } else { Err("it is another one's".to_owned()) }
            });
            match row {
                Ok(row) => {
                    if let Some(key) = row.key() {
                        insert_copy(sql, copies, &key, &row, findings)?;
                    }
                }
                // What a whole database knows better is written anew.
                Err(_) if !is_lost => {}
                Err(problem) => bad_copy(sql, copies, *table, &path, &problem, findings)?,
            }
        }
    }
    if tables.contains(&Table::Containers) {
        if is_lost {
            containers_without_row(sql, copies, findings)?;
        }
        snapshots_of_containers(sql, findings)?;
    }
    // A parent that is not known: what stands on it can't be put together.
    sql.execute(
        "UPDATE snapshots SET parent = NULL, durable = 0, boot_id = ?1
         WHERE parent IS NOT NULL AND parent NOT IN (SELECT number FROM snapshots)",
        [LOST],
    )?;
    copies::reseal(sql)
}

/// Makes a note of a copy that is damaged: a container's is quarantined, others are set aside.
fn bad_copy(
    sql: &Connection,
    copies: &Copies,
    table: Table,
    path: &Path,
    problem: &str,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let named = format!("{}: {problem}", path.display());
    if table == Table::Containers {
        let Some((namespace, id)) = path.parent().and_then(ids) else { return Ok(()) };
        return quarantine(sql, copies, (&namespace, &id), None, &named, findings);
    }
    // A snapshot's goes with its directory.
    let remedy = match table {
        Table::Snapshots => "its directory is set aside; a layer is unpacked again".to_owned(),
        Table::Containers | Table::Blobs | Table::Images => {
            let aside = set_aside(copies.root(), path)?;
            let then = match table {
                Table::Images => "; pull the image again if its name is missing",
                Table::Containers | Table::Snapshots | Table::Blobs => "",
            };
            format!("set aside as {}{then}", aside.display())
        }
    };
    let object = format!("the copy of a record of {}", table.name());
    findings.push(Finding { object, problem: named, remedy });
    Ok(())
}

/// Quarantines the containers whose rows are damaged and have no copy; answers which.
fn lost_rows(
    sql: &Connection,
    copies: &Copies,
    bad: &[examine::BadRow],
    findings: &mut Vec<Finding>,
) -> Result<BTreeSet<Key>, Error> {
    let mut quarantined = BTreeSet::new();
    // An id may be what is damaged of a row: so one without a directory comes last, and takes no name from
    // the one that it may be.
    for has_directory in [true, false] {
        for row in bad {
            let Some(key) = row.row.key() else { continue };
            let Key::Container { namespace, id } = &key else { continue };
            let directory = copies.path(&key).with_file_name("");
            let can_be = namespace.parse::<Id>().is_ok() && id.parse::<Id>().is_ok();
            if can_be && directory.is_dir() == has_directory && !is_container(sql, namespace, id)? {
                let name = row.row.cell("name").text();
                let problem = format!(
                    "its record in the database is damaged, and there is no copy in {}",
                    directory.display()
                );
                quarantine(sql, copies, (namespace, id), name, &problem, findings)?;
                quarantined.insert(key);
            }
        }
        if has_directory {
            quarantined.extend(containers_without_row(sql, copies, findings)?);
        }
    }
    Ok(quarantined)
}

/// Whatever is in the directory of a container that no row names: it has lost its row, and its copy. Answers
/// which were quarantined.
fn containers_without_row(
    sql: &Connection,
    copies: &Copies,
    findings: &mut Vec<Finding>,
) -> Result<Vec<Key>, Error> {
    let mut quarantined = Vec::new();
    for directory in copies.containers() {
        let Some((namespace, id)) = ids(&directory) else { continue };
        let has_anything = directory.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        let is_known = is_container(sql, &namespace, &id)? || is_removed(sql, &namespace, &id)?;
        if !has_anything || is_known {
            continue;
        }
        let problem = match plain_file::read(&directory.join("record.json"), MOST) {
            Ok(bytes) => match Row::unseal(Table::Containers, &bytes) {
                // Its name is another one's by now, which was told of.
                Ok(_) => continue,
                Err(problem) => format!("{}: {problem}", directory.join("record.json").display()),
            },
            Err(_) if directory.join(copies::TOMBSTONE).exists() => {
                removed(sql, copies, &directory, findings)?;
                continue;
            }
            Err(_) => format!("{}: its record is missing", directory.display()),
        };
        quarantine(sql, copies, (&namespace, &id), None, &problem, findings)?;
        quarantined.push(Key::Container { namespace, id });
    }
    Ok(quarantined)
}

/// A container whose removal was committed and not done: it is done by who reads the store next.
fn removed(
    sql: &Connection,
    copies: &Copies,
    directory: &Path,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let read = plain_file::read(&directory.join(copies::TOMBSTONE), MOST)
        .map_err(|error| error.to_string());
    match read.and_then(|bytes| Row::unseal(Table::Containers, &bytes)) {
        Ok(row) => {
            sql.execute(
                "INSERT INTO removed (namespace, id, name, record) VALUES (?1, ?2, ?3, ?4)",
                [row.cell("namespace"), row.cell("id"), row.cell("name"), row.cell("record")],
            )?;
        }
        Err(problem) => {
            let aside = set_aside(copies.root(), directory)?;
            findings.push(Finding {
                object: format!("what is left of a removed container, {}", directory.display()),
                problem,
                remedy: format!("set aside as {}", aside.display()),
            });
        }
    }
    Ok(())
}

/// Puts a container into the database whose record is lost.
fn quarantine(
    sql: &Connection,
    copies: &Copies,
    (namespace, id): (&str, &str),
    name: Option<&str>,
    problem: &str,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let key = Key::Container { namespace: namespace.to_owned(), id: id.to_owned() };
    let directory = copies.path(&key).parent().map(Path::to_owned).unwrap_or_default();
    let known = || {
        let text = plain_file::read(&directory.join("options.json"), MOST).ok()?;
        Some(serde_json::from_slice::<ContainerOptions>(&text).ok()?.name)
    };
    let name = name.map(str::to_owned).or_else(known).filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| id.chars().take(12).collect());
    let lost = Lost { quarantined: problem.to_owned(), snapshot: None, trees: Vec::new() };
    let record = serde_json::to_string(&lost)?;
    for name in [name.as_str(), id] {
        let text = |text: &str| Cell::Text(text.to_owned());
        let cells = [namespace, id, name, &record, "", ""].map(text);
        let row = Row { table: Table::Containers, cells: cells.into() };
        namespace_of(sql, &row)?;
        if row.insert(sql, Some(""))? {
            break;
        }
    }
    findings.push(Finding {
        object: format!("{key} ({name})"),
        problem: problem.to_owned(),
        remedy: format!("quarantined: listed as unknown; `ctl rm -f {id}` removes it"),
    });
    Ok(())
}

/// The snapshots that the records of containers tell of.
fn snapshots_of_containers(sql: &Connection, findings: &mut Vec<Finding>) -> Result<(), Error> {
    let mut statement = sql.prepare("SELECT namespace, record FROM containers")?;
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    for (namespace, record) in rows {
        let Ok(record) = serde_json::from_str::<Record>(&record) else { continue };
        if copies::find(sql, &Key::Snapshot(record.snapshot))?.is_some() {
            continue;
        }
        let base = record.image.as_ref().map(|image| image.snapshot.as_str());
        let base = base.filter(|name| !name.is_empty() && record.options.rootfs.is_none());
        let parent = match base {
            None => None,
            Some(name) => Some(layer(sql, &namespace, name, &record)?),
        };
        let directory = record.options.rootfs.as_ref().map(|path| path.to_string_lossy());
        let at = serde_json::to_string(&record.created_at)?;
        let stored = sql.execute(
            "INSERT OR IGNORE INTO snapshots
             (number, namespace, key, kind, parent, directory, held_by, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?3, ?7, ?7)",
            params![
                record.snapshot,
                namespace,
                record.id,
                Kind::Active.as_str(),
                parent,
                directory,
                at
            ],
        )?;
        if stored == 0 {
            findings.push(Finding {
                object: format!("container {namespace}/{}", record.id),
                problem: format!("its snapshot {} is another one's", record.snapshot),
                remedy: "it can't be started: remove it, and make it again".to_owned(),
            });
        }
    }
    Ok(())
}

/// The number of a committed layer; one that is not known gets a row that says that it is lost.
fn layer(sql: &Connection, namespace: &str, name: &str, record: &Record) -> Result<i64, Error> {
    let known: Option<i64> = sql
        .query_row(
            "SELECT number FROM snapshots WHERE namespace = ?1 AND key = ?2",
            [namespace, name],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(number) = known {
        return Ok(number);
    }
    let at = serde_json::to_string(&record.created_at)?;
    sql.execute(
        "INSERT INTO snapshots (namespace, key, kind, created_at, updated_at, durable, boot_id)
         VALUES (?1, ?2, ?3, ?4, ?4, 0, ?5)",
        params![namespace, name, Kind::Committed.as_str(), at, LOST],
    )?;
    Ok(sql.last_insert_rowid())
}

/// Numbers that were given before are not given again.
fn seed(sql: &Connection, root: &Path) -> Result<(), Error> {
    let names = |directory: &str| {
        let entries = std::fs::read_dir(root.join(directory)).into_iter().flatten().flatten();
        entries.filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?;
            name.strip_prefix("snapshot-").unwrap_or(name).parse::<i64>().ok()
        })
    };
    let highest: i64 =
        sql.query_row("SELECT coalesce(max(number), 0) FROM snapshots", [], |row| row.get(0))?;
    let highest = names("snapshots/overlayfs").chain(names("trash")).fold(highest, i64::max);
    // More than one event for each second since 1970 were hardly made.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(0);
    for (table, number) in [("snapshots", highest), ("events", now)] {
        sql.execute("DELETE FROM sqlite_sequence WHERE name = ?1", [table])?;
        sql.execute(
            "INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)",
            params![table, number],
        )?;
    }
    Ok(())
}

/// Directories of snapshots that no row knows any more: one may be what a container runs on, or ran on.
fn strangers(sql: &Connection, root: &Path, findings: &mut Vec<Finding>) -> Result<(), Error> {
    let mut trees = Vec::new();
    let entries =
        std::fs::read_dir(root.join("snapshots/overlayfs")).into_iter().flatten().flatten();
    for entry in entries {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if copies::find(sql, &Key::Snapshot(number))?.is_none() {
            let is_layer = entry.path().join("snapshot.json").exists();
            let aside = set_aside(root, &entry.path())?.display().to_string();
            findings.push(Finding {
                object: format!("snapshot {number}"),
                problem: "nothing says whose it is".to_owned(),
                remedy: format!("set aside as {aside}: remove it when nothing is missing"),
            });
            trees.extend((!is_layer).then_some(aside));
        }
    }
    tell_where(sql, &trees)
}

/// Has quarantined containers say where the trees are of which one is their own.
fn tell_where(sql: &Connection, trees: &[String]) -> Result<(), Error> {
    if trees.is_empty() {
        return Ok(());
    }
    let mut statement = sql.prepare(
        "SELECT namespace, id, record FROM containers WHERE NOT EXISTS (
             SELECT 1 FROM snapshots
             WHERE snapshots.namespace = containers.namespace AND key = id)",
    )?;
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<Vec<(String, String, String)>, _>>()?;
    for (namespace, id, record) in rows {
        let Ok(mut lost) = serde_json::from_str::<Lost>(&record) else { continue };
        if lost.trees.is_empty() {
            lost.trees = trees.to_vec();
            sql.execute(
                "UPDATE containers SET record = ?3 WHERE namespace = ?1 AND id = ?2",
                params![namespace, id, serde_json::to_string(&lost)?],
            )?;
        }
    }
    copies::reseal(sql)
}

/// As [`strangers`], of the snapshots whose rows were found damaged and are gone.
fn strangers_of(
    bad: &[examine::BadRow],
    root: &Path,
    sql: &Connection,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let is_snapshot = |row: &&examine::BadRow| row.row.table == Table::Snapshots;
    match bad.iter().any(|row| is_snapshot(&row)) {
        true => strangers(sql, root, findings),
        false => Ok(()),
    }
}

/// Where something is set aside on a file system of its own: no name of a namespace, a container, a
/// snapshot or a blob.
const ASIDE: &str = ".quarantine";

/// Whether that is it.
#[must_use]
pub fn is_aside(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == ASIDE)
}

/// Moves something out of the way, under the root, and answers where it is: in `quarantine`, or in
/// `.quarantine` of the directory that is a file system of its own.
///
/// # Errors
/// Names the file.
pub fn set_aside(root: &Path, path: &Path) -> Result<PathBuf, Error> {
    let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('/', "-");
    let mut outcome = moved_to(&root.join("quarantine"), path, &name);
    // One of the directories on the way may be a file system of its own: the highest place in there.
    let below =
        path.ancestors().skip(1).take_while(|above| above.starts_with(root) && *above != root);
    for above in below.collect::<Vec<_>>().iter().rev() {
        let is_elsewhere =
            |error: &std::io::Error| error.kind() == std::io::ErrorKind::CrossesDevices;
        if !outcome.as_ref().is_err_and(is_elsewhere) {
            break;
        }
        let place = above.join(ASIDE);
        outcome = moved_to(&place, path, &name);
        if outcome.is_err() {
            // It stays if there is something in it.
            let _ = std::fs::remove_dir(&place);
        }
    }
    outcome.map_err(|source| Error::Aside { path: path.to_owned(), source: Arc::new(source) })
}

/// Sets aside what lies where a file is to be written, and is none.
///
/// # Errors
/// As [`set_aside`].
pub fn make_way(root: &Path, path: &Path) -> Result<(), Error> {
    if let Some(kind) = plain_file::other_kind(path) {
        let aside = set_aside(root, path)?;
        tracing::warn!(path = %path.display(), aside = %aside.display(), "{kind} in the place of a file: set aside");
    }
    Ok(())
}

/// Moves something into a directory, by the time and a name.
fn moved_to(place: &Path, path: &Path, name: &str) -> std::io::Result<PathBuf> {
    let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(place);
    if let (Err(error), Ok(found)) = (&made, place.symlink_metadata()) {
        let (kind, place) = (plain_file::kind(found.file_type()), place.display());
        return Err(std::io::Error::new(
            error.kind(),
            format!("{place} is {kind}, not a directory: move that away, then start bosund again"),
        ));
    }
    made?;
    for number in 0.. {
        let aside = place.join(format!("{}-{number}-{name}", at.as_secs()));
        if aside.symlink_metadata().is_err() {
            std::fs::rename(path, &aside)?;
            return Ok(aside);
        }
    }
    Err(std::io::ErrorKind::AlreadyExists.into())
}

/// The specification beside a copy, if it is the one that is meant.
fn spec_beside(copy: &Path, known: &str) -> Option<String> {
    let spec = plain_file::read_text(&copy.with_file_name("config.json"), MOST).ok()?;
    (copies::sum(&[&spec]) == known).then_some(spec)
}

fn namespace_of(sql: &Connection, row: &Row) -> Result<(), Error> {
    if let Some(namespace) = row.cell("namespace").text() {
        sql.prepare_cached("INSERT OR IGNORE INTO namespaces (name) VALUES (?1)")?
            .execute([namespace])?;
    }
    Ok(())
}

fn is_container(sql: &Connection, namespace: &str, id: &str) -> Result<bool, Error> {
    let mut statement =
        sql.prepare_cached("SELECT 1 FROM containers WHERE namespace = ?1 AND id = ?2")?;
    Ok(statement.exists([namespace, id])?)
}

/// Whether it is one whose removal is committed, and not done yet.
fn is_removed(sql: &Connection, namespace: &str, id: &str) -> Result<bool, Error> {
    let mut statement = sql
        .prepare_cached("SELECT 1 FROM removed WHERE namespace = ?1 AND id = ?2 AND cleaned = 0")?;
    Ok(statement.exists([namespace, id])?)
}

/// Whether that lies in the directory of a container that was removed, whether or not all of it is gone.
///
/// # Errors
/// The store's own.
pub(super) fn is_of_removed(sql: &Connection, path: &Path) -> Result<bool, Error> {
    let Some((namespace, id)) = path.parent().and_then(ids) else { return Ok(false) };
    let mut statement =
        sql.prepare_cached("SELECT 1 FROM removed WHERE namespace = ?1 AND id = ?2")?;
    Ok(statement.exists([namespace, id])?)
}

/// The namespace and the id that a container's directory is named by.
fn ids(directory: &Path) -> Option<(String, String)> {
    let id: Id = directory.file_name()?.to_str()?.parse().ok()?;
    let namespace: Id = directory.parent()?.file_name()?.to_str()?.parse().ok()?;
    Some((namespace.to_string(), id.to_string()))
}

fn open_failed(path: &Path, source: rusqlite::Error) -> Error {
    Error::Open { path: path.to_owned(), source: Arc::new(source) }
}

pub(super) fn file_failed(path: &Path, source: std::io::Error) -> Error {
    open_failed(path, rusqlite::Error::ToSqlConversionFailure(Box::new(source)))
}
