//! Copies of rows, beside what they describe: what a lost database is rebuilt from.
//!
//! Containers, snapshots, blobs and names of images are rows; each of these has a copy in a file of its
//! own. A copy is one line, a checksum and then the row as JSON, put in place whole by a rename:
//!
//! | row | copy |
//! |---|---|
//! | container | `containers/NS/ID/record.json`, its specification beside it in `config.json`, and what it was made with in `options.json` |
//! | snapshot | `snapshots/overlayfs/N/snapshot.json`; that of a container is told by the container's |
//! | blob | `content/records/NS/HEX.json` |
//! | image | `images/NS/HASH-OF-NAME.json` |
//!
//! They are written after the commit and before its answer, and never synced: a daemon that is killed
//! loses none that it answered for, and after a power cut the database, which is synced, is the truth
//! and they are written anew. `meta.mark` says how many commits there were, and each copy which one wrote
//! it: a database that has fewer has lost some of them (a damaged WAL ends early and looks whole), or is
//! an older one that was put back. No copy is ahead of a database that is whole: it is written after the
//! commit is on the disk.
//!
//! Each row carries a checksum as well, so a flipped byte in the database is found, and the copy is
//! there to take its place.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};
use sha2::{Digest, Sha256};
use shim_wire::id::Id;

use super::{Error, rebuild, schema};
use crate::atomic;
use crate::plain_file::{self, NOTE, RECORD as MOST};

/// Of every checksum, hex digits: damage is found by chance once in 2^64.
const SUM_LEN: usize = 16;

/// Keys of trees that are being unpacked begin with this: half a layer is of no use to another daemon.
pub const UNPACKING: &str = "unpacking-";

/// Beside the row, in a copy: the number of the commit.
const COMMIT: &str = "commit";

/// In the directory of a container: the copy of its row, and what that becomes when it is removed.
const RECORD: &str = "record.json";
const SPEC: &str = "config.json";
const OPTIONS: &str = "options.json";
pub(super) const TOMBSTONE: &str = "removed.json";

/// The tables whose rows have copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Containers,
    Snapshots,
    Blobs,
    Images,
}

/// A row by its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Container { namespace: String, id: String },
    Snapshot(i64),
    Blob { namespace: String, digest: String },
    Image { namespace: String, name: String },
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Integer(i64),
    Text(String),
    /// What no column holds: text that is not UTF-8, as it is; or another type, which is empty here.
    Damaged(Vec<u8>),
}

/// A row, but for its checksum and a container's specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub table: Table,
    /// In the order of [`Table::columns`].
    pub cells: Vec<Cell>,
}

/// What is to become of the file of a copy.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// Below the root.
    path: PathBuf,
    /// `None`: it goes.
    content: Option<String>,
}

/// How far the database had come, as it is noted outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub commits: i64,
    pub schema: i64,
}

impl Table {
    pub(super) const ALL: [Self; 4] =
        [Self::Containers, Self::Snapshots, Self::Blobs, Self::Images];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::Snapshots => "snapshots",
            Self::Blobs => "blobs",
            Self::Images => "images",
        }
    }

    pub(super) fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Containers => &["namespace", "id", "name", "record", "image", "spec_sum"],
            Self::Snapshots => &[
                "number",
                "namespace",
                "key",
                "kind",
                "parent",
                "directory",
                "held_by",
                "created_at",
                "updated_at",
                "labels",
                "durable",
                "boot_id",
            ],
            Self::Blobs => &["namespace", "digest", "size", "created_at", "labels"],
            Self::Images => {
                &["namespace", "name", "digest", "target", "created_at", "updated_at", "labels"]
            }
        }
    }

    /// How many columns from the first are the key.
    fn keys(self) -> usize {
        match self {
            Self::Snapshots => 1,
            Self::Containers | Self::Blobs | Self::Images => 2,
        }
    }

    /// `a = ?1 AND b = ?2`
    fn by_key(self) -> String {
        let keys = self.columns()[..self.keys()].iter().enumerate();
        let terms: Vec<String> =
            keys.map(|(number, column)| format!("{column} = ?{}", number + 1)).collect();
        terms.join(" AND ")
    }
}

impl Key {
    fn table(&self) -> Table {
        match self {
            Self::Container { .. } => Table::Containers,
            Self::Snapshot(_) => Table::Snapshots,
            Self::Blob { .. } => Table::Blobs,
            Self::Image { .. } => Table::Images,
        }
    }

    fn cells(&self) -> Vec<Cell> {
        match self {
            Self::Snapshot(number) => vec![Cell::Integer(*number)],
            Self::Container { namespace, id: second }
            | Self::Blob { namespace, digest: second }
            | Self::Image { namespace, name: second } => {
                vec![Cell::Text(namespace.clone()), Cell::Text(second.clone())]
            }
        }
    }

    /// Where the copy lies, below the root.
    pub(super) fn path(&self) -> PathBuf {
        let named = |text: &str| text.parse::<Id>().map_or_else(|_| sum(&[text]), |_| text.into());
        match self {
            Self::Container { namespace, id } => {
                Path::new("containers").join(named(namespace)).join(named(id)).join(RECORD)
            }
            Self::Snapshot(number) => {
                Path::new("snapshots/overlayfs").join(number.to_string()).join("snapshot.json")
            }
            Self::Blob { namespace, digest } => {
                let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
                Path::new("content/records").join(named(namespace)).join(named(hex) + ".json")
            }
            Self::Image { namespace, name } => {
                Path::new("images").join(named(namespace)).join(sum(&[name]) + ".json")
            }
        }
    }
}

/// As findings name it.
impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Container { namespace, id } => write!(f, "container {namespace}/{id}"),
            Self::Snapshot(number) => write!(f, "snapshot {number}"),
            Self::Blob { namespace, digest } => write!(f, "blob {digest} of namespace {namespace}"),
            Self::Image { namespace, name } => write!(f, "image {name} of namespace {namespace}"),
        }
    }
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => ToSqlOutput::Owned(Value::Null),
            Self::Damaged(bytes) => ToSqlOutput::Borrowed(ValueRef::Text(bytes)),
            Self::Integer(number) => ToSqlOutput::Owned(Value::Integer(*number)),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        })
    }
}

impl Cell {
    fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Self::Text(text.to_owned()),
                Err(_) => Self::Damaged(bytes.to_vec()),
            },
            ValueRef::Real(_) | ValueRef::Blob(_) => Self::Damaged(Vec::new()),
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Integer(_) | Self::Damaged(_) => None,
        }
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Self::Null | Self::Damaged(_) => serde_json::Value::Null,
            Self::Integer(number) => (*number).into(),
            Self::Text(text) => text.as_str().into(),
        }
    }

    fn of_json(value: &serde_json::Value) -> Option<Self> {
        match value {
            serde_json::Value::Null => Some(Self::Null),
            serde_json::Value::Number(number) => number.as_i64().map(Self::Integer),
            serde_json::Value::String(text) => Some(Self::Text(text.clone())),
            serde_json::Value::Bool(_)
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_) => None,
        }
    }
}

impl Row {
    pub(super) fn cell(&self, column: &str) -> &Cell {
        let at = self.table.columns().iter().position(|name| *name == column);
        at.and_then(|at| self.cells.get(at)).unwrap_or(&Cell::Null)
    }

    /// What it is found by; `None` when even that can't be read.
    pub(super) fn key(&self) -> Option<Key> {
        let text = |at: usize| self.cells.get(at)?.text().map(str::to_owned);
        Some(match self.table {
            Table::Snapshots => match self.cells.first()? {
                Cell::Integer(number) => Key::Snapshot(*number),
                Cell::Null | Cell::Text(_) | Cell::Damaged(_) => return None,
            },
            Table::Containers => Key::Container { namespace: text(0)?, id: text(1)? },
            Table::Blobs => Key::Blob { namespace: text(0)?, digest: text(1)? },
            Table::Images => Key::Image { namespace: text(0)?, name: text(1)? },
        })
    }

    /// Its checksum: over all columns, each with its length.
    pub(super) fn sum(&self) -> String {
        let parts: Vec<String> = self
            .cells
            .iter()
            .map(|cell| match cell {
                Cell::Null => "n".to_owned(),
                Cell::Damaged(_) => "d".to_owned(),
                Cell::Integer(number) => format!("i{number}"),
                Cell::Text(text) => format!("t{text}"),
            })
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        sum(&parts)
    }

    /// Whether it has a copy: what its container's record tells, and half a layer, have none.
    pub(super) fn has_copy(&self) -> bool {
        match self.table {
            Table::Snapshots => {
                let is_held = matches!(self.cell("held_by"), Cell::Text(_));
                let unpacking =
                    self.cell("key").text().is_some_and(|key| key.starts_with(UNPACKING));
                !is_held && !unpacking
            }
            Table::Containers | Table::Blobs | Table::Images => true,
        }
    }

    /// The content of its copy, as the commit of this number writes it.
    fn sealed(&self, commit: i64) -> String {
        let columns = self.table.columns().iter().map(|name| (*name).to_owned());
        let row: serde_json::Map<String, serde_json::Value> =
            columns.zip(self.cells.iter().map(Cell::json)).collect();
        let text = serde_json::json!({ COMMIT: commit, self.table.name(): row }).to_string();
        format!("{} {text}\n", sum(&[&text]))
    }

    /// The row of a copy.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn unseal(table: Table, bytes: &[u8]) -> Result<Self, String> {
        let value: serde_json::Value =
            serde_json::from_str(whole(bytes)?).map_err(|error| error.to_string())?;
        let row =
            value.get(table.name()).ok_or_else(|| format!("it is none of {}", table.name()))?;
        let cell = |name: &&str| {
            let value = row.get(name).unwrap_or(&serde_json::Value::Null);
            Cell::of_json(value).ok_or_else(|| format!("{name} is of no kind that is known"))
        };
        Ok(Self { table, cells: table.columns().iter().map(cell).collect::<Result<_, _>>()? })
    }

    /// Stores it, with its checksum; true when there is none of its key, its name or its number yet.
    ///
    /// # Errors
    /// The store's own.
    pub(super) fn insert(&self, sql: &Connection, spec: Option<&str>) -> Result<bool, Error> {
        let columns = self.table.columns();
        let mut names = columns.join(", ") + ", sum";
        let mut cells = self.cells.clone();
        cells.push(Cell::Text(self.sum()));
        if let Some(spec) = spec {
            names.push_str(", spec");
            cells.push(Cell::Text(spec.to_owned()));
        }
        let places: Vec<String> = (1..=cells.len()).map(|number| format!("?{number}")).collect();
        let table = self.table.name();
        let statement =
            format!("INSERT OR IGNORE INTO {table} ({names}) VALUES ({})", places.join(", "));
        Ok(sql.prepare_cached(&statement)?.execute(params_from_iter(cells))? > 0)
    }
}

/// The text of a copy, without its checksum.
///
/// # Errors
/// What is wrong with it.
fn whole(bytes: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let (known, text) = text
        .strip_suffix('\n')
        .and_then(|line| line.split_once(' '))
        .ok_or_else(|| "it is cut off".to_owned())?;
    if known != sum(&[text]) {
        return Err("its checksum is wrong".to_owned());
    }
    Ok(text)
}

/// The number of the commit that wrote a copy; `None` of one that is damaged, or that an older version wrote.
fn commit_of(copy: &[u8]) -> Option<i64> {
    #[derive(serde::Deserialize)]
    struct Written {
        commit: i64,
    }
    serde_json::from_str::<Written>(whole(copy).ok()?).ok().map(|written| written.commit)
}

/// A checksum: the first digits of SHA-256 over the parts, each with its length before it.
pub(super) fn sum(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let mut digits = String::with_capacity(SUM_LEN);
    for byte in &hash.finalize()[..SUM_LEN / 2] {
        // Writing to a String can't fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// Gives the rows that were touched their checksums, and answers what becomes of their copies.
pub(super) fn seal(
    sql: &Connection,
    touched: &BTreeSet<Key>,
    specs: &BTreeMap<Key, String>,
) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::with_capacity(touched.len() + specs.len());
    if touched.is_empty() {
        return Ok(changes);
    }
    // It is counted when it is made.
    let commit = schema::commits(sql)? + 1;
    for key in touched {
        let Some(row) = find(sql, key)? else {
            changes.push(Change { path: key.path(), content: None });
            continue;
        };
        set_sum(sql, key, &row)?;
        // The specification first: who finds the record finds that as well.
        if let Some(spec) = specs.get(key) {
            let path = key.path().with_file_name(SPEC);
            changes.push(Change { path, content: Some(spec.clone()) });
        }
        if row.has_copy() {
            changes.push(Change { path: key.path(), content: Some(row.sealed(commit)) });
        }
    }
    Ok(changes)
}

fn set_sum(sql: &Connection, key: &Key, row: &Row) -> Result<(), Error> {
    let mut cells = key.cells();
    cells.push(Cell::Text(row.sum()));
    let (table, number) = (row.table, cells.len());
    let statement = format!("UPDATE {} SET sum = ?{number} WHERE {}", table.name(), table.by_key());
    sql.prepare_cached(&statement)?.execute(params_from_iter(cells))?;
    Ok(())
}

/// Gives every row the checksum of what it is.
///
/// # Errors
/// The store's own.
pub(super) fn reseal(sql: &Connection) -> Result<(), Error> {
    for table in Table::ALL {
        for (row, known) in rows(sql, table)? {
            let Some(key) = row.key() else { continue };
            if known.text() != Some(row.sum().as_str()) {
                set_sum(sql, &key, &row)?;
            }
        }
    }
    Ok(())
}

/// The row of a key.
///
/// # Errors
/// The store's own.
pub(super) fn find(sql: &Connection, key: &Key) -> Result<Option<Row>, Error> {
    let table = key.table();
    let columns = table.columns();
    let statement =
        format!("SELECT {} FROM {} WHERE {}", columns.join(", "), table.name(), table.by_key());
    let mut statement = sql.prepare_cached(&statement)?;
    let mut rows = statement.query(params_from_iter(key.cells()))?;
    Ok(rows.next()?.map(|row| read(table, row)).transpose()?)
}

fn read(table: Table, row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let cells = (0..table.columns().len()).map(|at| row.get_ref(at).map(Cell::of));
    Ok(Row { table, cells: cells.collect::<Result<_, _>>()? })
}

/// All rows of a table, each with the checksum that is stored with it; empty for one that an older
/// version stored.
///
/// # Errors
/// The store's own.
pub(super) fn rows(sql: &Connection, table: Table) -> Result<Vec<(Row, Cell)>, Error> {
    let columns = table.columns();
    let mut statement =
        sql.prepare(&format!("SELECT {}, sum FROM {}", columns.join(", "), table.name()))?;
    let rows = statement
        .query_map([], |row| Ok((read(table, row)?, Cell::of(row.get_ref(columns.len())?))))?;
    Ok(rows.collect::<Result<Vec<_>, _>>()?)
}

/// The files of all copies below a root.
#[derive(Debug)]
pub(super) struct Copies {
    root: PathBuf,
    /// What could not be written: tried again with the next change.
    failed: BTreeMap<PathBuf, Option<String>>,
    mark: Option<File>,
}

impl Copies {
    /// Those beside a database.
    pub(super) fn beside(database: &Path) -> Self {
        let root = database.parent().unwrap_or(Path::new("/")).to_owned();
        Self { root, failed: BTreeMap::new(), mark: None }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Brings the files up to date with what was committed. What fails is said, and tried again: the
    /// rows are the truth, and a full disk must not stop what makes room.
    pub(super) fn apply(&mut self, changes: Vec<Change>) {
        let before = self.failed.len();
        for change in changes {
            if change.content.is_none() {
                // What could not be written beside it would bring the directory back.
                self.failed.remove(&change.path.with_file_name(SPEC));
            }
            self.failed.insert(change.path, change.content);
        }
        let root = self.root.clone();
        let mut problem = None;
        self.failed.retain(|path, content| {
            let path = root.join(path);
            let done = match content {
                Some(content) => put(&root, &path, content),
                None => take_away(&path),
            };
            done.map_err(|error| problem = Some((path, error))).is_err()
        });
        if let Some((path, error)) = problem.filter(|_| before < self.failed.len()) {
            tracing::warn!(path = %path.display(), %error, "the copy of a record is not up to date; it is tried again");
        }
    }

    /// Notes how far the database has come.
    pub(super) fn note(&mut self, mark: Mark) {
        if self.mark.is_none() {
            let opened = self.open_mark(mark.encode().len() as u64);
            let path = self.mark_path();
            self.mark = opened
                .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "not noted"))
                .ok();
        }
        // Without it, lost commits are not seen as such: no reason to stop.
        if let Some(file) = &self.mark {
            let _ = file.write_all_at(mark.encode().as_bytes(), 0);
        }
    }

    /// The file of the mark, which has so many bytes at most.
    fn open_mark(&self, most: u64) -> std::io::Result<File> {
        let path = self.mark_path();
        rebuild::make_way(&self.root, &path).map_err(std::io::Error::other)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = plain_file::open_with(&mut options, &path)?;
        if file.metadata()?.len() > most {
            file.set_len(most)?;
        }
        Ok(file)
    }

    /// How far it had come; `None` when that is not known.
    pub(super) fn mark(&self) -> Option<Mark> {
        Mark::decode(&plain_file::read_text(&self.mark_path(), NOTE).ok()?)
    }

    fn mark_path(&self) -> PathBuf {
        self.root.join("meta.mark")
    }

    /// The file of a row's copy.
    pub(super) fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.path())
    }

    /// Whether anything below the root says that there was a database.
    pub(super) fn are_there(&self) -> bool {
        self.mark_path().exists()
            || Table::ALL.iter().any(|table| !self.files(*table).is_empty())
            || !self.containers().is_empty()
    }

    /// The files of the copies of a table that are there.
    pub(super) fn files(&self, table: Table) -> Vec<PathBuf> {
        let (place, depth, name) = match table {
            Table::Containers => ("containers", 2, Some(RECORD)),
            Table::Snapshots => ("snapshots/overlayfs", 1, Some("snapshot.json")),
            Table::Blobs => ("content/records", 1, None),
            Table::Images => ("images", 1, None),
        };
        let mut found = below(&self.root.join(place), depth);
        match name {
            Some(name) => {
                found = found.into_iter().map(|path| path.join(name)).collect();
                found.retain(|path| path.symlink_metadata().is_ok());
            }
            None => found = found.iter().flat_map(|path| below(path, 1)).collect(),
        }
        found.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        found.sort();
        found
    }

    /// The directories of containers.
    pub(super) fn containers(&self) -> Vec<PathBuf> {
        let mut found = below(&self.root.join("containers"), 2);
        found.sort();
        found
    }

    /// The number of the last commit that a copy tells of.
    pub(super) fn newest(&self) -> i64 {
        let files = Table::ALL.into_iter().flat_map(|table| self.files(table));
        let commits = files.filter_map(|path| commit_of(&plain_file::read(&path, MOST).ok()?));
        commits.max().unwrap_or(0)
    }

    /// Makes all files what the rows are; files of rows that are gone go. That of a container goes only if
    /// it was removed.
    ///
    /// # Errors
    /// The store's own.
    pub(super) fn renew(&mut self, sql: &Connection) -> Result<(), Error> {
        let commit = schema::commits(sql)?;
        let mut changes = Vec::new();
        for table in Table::ALL {
            let mut left: BTreeSet<PathBuf> = self.files(table).into_iter().collect();
            for (row, _) in rows(sql, table)? {
                let Some(key) = row.key().filter(|_| row.has_copy()) else { continue };
                let path = self.path(&key);
                left.remove(&path);
                let known = plain_file::read(&path, MOST).map(|known| Row::unseal(table, &known));
                if known.is_ok_and(|known| known.as_ref() == Ok(&row)) {
                    continue;
                }
                changes.push(Change { path: key.path(), content: Some(row.sealed(commit)) });
            }
            if table == Table::Containers {
                let mut removed = BTreeSet::new();
                for path in left {
                    if rebuild::is_of_removed(sql, &path)? {
                        removed.insert(path);
                    }
                }
                left = removed;
            }
            let gone = left.iter().filter_map(|path| path.strip_prefix(&self.root).ok());
            changes.extend(gone.map(|path| Change { path: path.to_owned(), content: None }));
        }
        self.renew_specs(sql, &mut changes)?;
        self.renew_options(sql, &mut changes)?;
        self.apply(changes);
        Ok(())
    }

    fn renew_specs(&self, sql: &Connection, changes: &mut Vec<Change>) -> Result<(), Error> {
        let mut statement = sql.prepare("SELECT namespace, id, spec, spec_sum FROM containers")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let cells = [0, 1, 2, 3].map(|at| row.get_ref(at).map_or(Cell::Null, Cell::of));
            let [Some(namespace), Some(id), Some(spec), Some(known)] =
                cells.each_ref().map(Cell::text)
            else {
                continue;
            };
            let key = Key::Container { namespace: namespace.to_owned(), id: id.to_owned() };
            let path = key.path().with_file_name(SPEC);
            let there = plain_file::read_text(&self.root.join(&path), MOST).unwrap_or_default();
            if !spec.is_empty() && sum(&[&there]) != known && sum(&[spec]) == known {
                changes.push(Change { path, content: Some(spec.to_owned()) });
            }
        }
        Ok(())
    }

    /// What containers were made with: a file of their last start, which was never synced.
    fn renew_options(&self, sql: &Connection, changes: &mut Vec<Change>) -> Result<(), Error> {
        let mut statement = sql.prepare("SELECT namespace, id, record FROM containers")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let cells = [0, 1, 2].map(|at| row.get_ref(at).map_or(Cell::Null, Cell::of));
            let [Some(namespace), Some(id), Some(record)] = cells.each_ref().map(Cell::text) else {
                continue;
            };
            let key = Key::Container { namespace: namespace.to_owned(), id: id.to_owned() };
            let path = key.path().with_file_name(OPTIONS);
            let there = match plain_file::read(&self.root.join(&path), MOST) {
                Err(error) if !plain_file::is_damage(&error) => continue,
                there => there.unwrap_or_default(),
            };
            let Ok(record) = super::containers::parse(record) else { continue };
            let options = serde_json::to_string_pretty(&record.options)?;
            if there != options.as_bytes() {
                changes.push(Change { path, content: Some(options) });
            }
        }
        Ok(())
    }
}

impl Mark {
    fn encode(self) -> String {
        let text = format!("{:020} {:06}", self.commits, self.schema);
        format!("{text} {}\n", sum(&[&text]))
    }

    fn decode(text: &str) -> Option<Self> {
        let (text, known) = text.strip_suffix('\n')?.rsplit_once(' ')?;
        let (commits, schema) = text.split_once(' ')?;
        let mark = Self { commits: commits.parse().ok()?, schema: schema.parse().ok()? };
        (known == sum(&[text])).then_some(mark)
    }
}

/// What lies so many levels below a directory.
fn below(directory: &Path, depth: usize) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    // What was set aside on a file system of its own is no copy.
    let paths = entries.map(|entry| entry.path()).filter(|path| !super::is_aside(path));
    match depth {
        1 => paths.collect(),
        _ => paths.flat_map(|path| below(&path, depth - 1)).collect(),
    }
}

/// Puts a file in place whole, in a directory that may not be there yet.
fn put(root: &Path, path: &Path, content: &str) -> std::io::Result<()> {
    match atomic::write(path, content.as_bytes(), 0o600) {
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            rebuild::make_way(root, path).map_err(std::io::Error::other)?;
            atomic::write(path, content.as_bytes(), 0o600)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let directory = path.parent().unwrap_or(Path::new("/"));
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            atomic::write(path, content.as_bytes(), 0o600)
        }
        other => other,
    }
}

/// Removes a copy. A container's becomes its tombstone, which goes with its directory: until then, what
/// is left of a removed container must not be taken for one that lost its record.
fn take_away(path: &Path) -> std::io::Result<()> {
    let removed = match path.file_name().is_some_and(|name| name == RECORD) {
        true => std::fs::rename(path, path.with_file_name(TOMBSTONE)),
        false => std::fs::remove_file(path),
    };
    match removed {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(error)
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let text = |text: &str| Cell::Text(text.to_owned());
        Row {
            table: Table::Blobs,
            cells: vec![text("default"), text("sha256:aa"), Cell::Integer(7), text("{}"), text("")],
        }
    }

    #[test]
    fn a_copy_is_read_back_and_every_flipped_bit_of_it_is_found() {
        let sealed = row().sealed(42);
        assert_eq!(commit_of(sealed.as_bytes()), Some(42));
        assert_eq!(Row::unseal(Table::Blobs, sealed.as_bytes()), Ok(row()));
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut bytes = sealed.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                assert!(Row::unseal(Table::Blobs, &bytes).is_err(), "byte {at}, bit {bit}");
            }
            assert!(Row::unseal(Table::Blobs, &sealed.as_bytes()[..at]).is_err(), "cut at {at}");
        }
        assert!(Row::unseal(Table::Images, sealed.as_bytes()).is_err());
    }

    #[test]
    fn a_value_that_moves_to_the_next_column_changes_the_checksum() {
        let mut other = row();
        other.cells.swap(3, 4);
        assert_ne!(other.sum(), row().sum());
        assert_ne!(sum(&["ab", "c"]), sum(&["a", "bc"]));
    }

    #[test]
    fn a_mark_is_read_back_whole_or_not_at_all() {
        let mark = Mark { commits: 42, schema: 3 };
        let text = mark.encode();
        assert_eq!(Mark::decode(&text), Some(mark));
        assert_eq!(Mark::decode(&text.replace("42", "43")), None);
        assert_eq!(Mark::decode(&text[..text.len() - 1]), None);
    }

    /// A disk that refuses for a while, or a daemon without descriptors.
    #[test]
    fn a_copy_that_could_not_be_written_does_not_come_after_its_removal() {
        let root = tempfile::tempdir().unwrap();
        let mut copies = Copies::beside(&root.path().join("meta.db"));
        let key = Key::Container { namespace: "default".to_owned(), id: "one".to_owned() };
        let containers = root.path().join("containers");
        std::fs::write(&containers, "in the way").unwrap();
        let put = |path: PathBuf| Change { path, content: Some("{}".to_owned()) };
        let spec = key.path().with_file_name(SPEC);
        copies.apply(vec![put(spec), put(key.path())]);
        copies.apply(vec![Change { path: key.path(), content: None }]);
        std::fs::remove_file(&containers).unwrap();
        copies.apply(Vec::new());
        assert!(!containers.exists(), "the removed container's directory is back");
    }
}
