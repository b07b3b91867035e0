//! The metadata store: SQLite, one connection, one writing thread, group commit.
//!
//! Work arrives as closures over a [`Transaction`]. The thread takes all that waits, runs each in a
//! savepoint of its own, commits once and then answers all of them: under load many calls share one
//! fsync. Work that nobody waits for ([`Store::write_soon`]) rides along with the next commit, at
//! latest [`RIDE`] later. Events are handed to subscribers only after the commit that made them.
//!
//! ```text
//!   write ──┐
//!   write ──┼─▶ BEGIN ─ savepoint… ─ savepoint… ─ COMMIT (WAL, synchronous=FULL) ─▶ events ─▶ answers
//!   soon  ──┘
//!   read  ────▶ after the commit of its batch, in a transaction that is rolled back
//! ```
//!
//! What a commit changed is copied beside what it describes ([`copies`]), before its answer. When the
//! store is opened it is examined ([`examine`]): a database that is damaged is set aside and rebuilt
//! from the copies, a row that is damaged is replaced by its copy, or quarantined ([`rebuild`]).
//!
//! A commit that fails is fatal for the store: after a failed fsync nobody knows what is on disk, and
//! to try again would be to pretend. So every later call gets [`Error::Failed`], and the daemon says so
//! and ends ([`Store::failed`]); the next one writes anew what is in doubt ([`rebuild`]). What fails
//! before anything is in doubt is no such failure: a disk that is full ([`Error::Full`]), can't be
//! written or can't be read ([`Error::Refused`]).

mod blobs;
mod containers;
mod copies;
mod events;
mod examine;
mod images;
mod leases;
mod rebuild;
mod requests;
mod reserve;
mod schema;
mod snapshots;
mod unfinished;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rusqlite::ffi::{SQLITE_IOERR_READ, SQLITE_IOERR_WRITE};
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, oneshot, watch};

pub use blobs::BlobRow;
pub use containers::{Loaded, OfImage, Removed};
pub use copies::UNPACKING;
pub use events::{Event, NewEvent, Stored};
pub use examine::{Contents, contents, is_sum, look as look_at};
pub use images::ImageRow;
pub use leases::{LeaseRow, Resource, ResourceKind};
pub use rebuild::{LOST, is_aside, make_way, set_aside};
pub use requests::Repeated;
pub use snapshots::{Kind, SnapshotRow};

/// How long work that nobody waits for may wait for company.
const RIDE: Duration = Duration::from_millis(50);

/// Events that a slow subscriber may be behind before it has to read them from the store.
const EVENT_BACKLOG: usize = 1024;

/// A handle on the store; clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    jobs: Sender<Job>,
    events: broadcast::Sender<Arc<Event>>,
    failed: watch::Receiver<Option<Error>>,
    mended: Arc<Mended>,
    path: Arc<Path>,
}

/// What was wrong with the store when it was opened, and was put right.
#[derive(Clone, Debug, Default)]
pub struct Mended {
    pub findings: Vec<Finding>,
    /// The whole database was made anew, so that what it alone knew is lost.
    pub is_rebuilt: bool,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `container default/ID`, `blob sha256:…`
    pub object: String,
    pub problem: String,
    /// What was done, or what to do.
    pub remedy: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.problem, self.remedy)
    }
}

/// The open transaction that a job works in.
#[derive(Debug)]
pub struct Transaction<'a> {
    sql: rusqlite::Savepoint<'a>,
    events: Vec<Event>,
    /// Rows that are no longer what their copies say.
    touched: BTreeSet<copies::Key>,
    /// Specifications that changed, by their containers.
    specs: BTreeMap<copies::Key, String>,
}

/// What the store can't do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("metadata store {}: {source}", path.display())]
    Open { path: PathBuf, source: Arc<rusqlite::Error> },
    #[error(
        "metadata store {}: its schema {found} is newer than this bosund's {known}: start the newer bosund",
        path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("{} is damaged, and can't be set aside: {source}", path.display())]
    Aside { path: PathBuf, source: Arc<std::io::Error> },
    #[error("metadata store: {0}")]
    Sql(Arc<rusqlite::Error>),
    #[error("metadata store: a record can't be encoded: {0}")]
    Encode(Arc<serde_json::Error>),
    #[error(
        "metadata store {}: a commit failed ({source}), and nobody knows what of it is on the disk: bosund ends, containers go on; look after the disk, then start bosund again",
        path.display()
    )]
    Failed { path: Arc<Path>, source: Arc<rusqlite::Error> },
    #[error(
        "metadata store {}: the disk does not take it ({source}): look after the disk, then try again",
        path.display()
    )]
    Refused { path: Arc<Path>, source: Arc<rusqlite::Error> },
    #[error("metadata store: the disk is full: free some of it, then try again")]
    Full,
    #[error("metadata store: closed")]
    Closed,
}

impl Error {
    /// Whether it is the database that is not what it was.
    fn is_damage(&self) -> bool {
        match self {
            Self::Open { source, .. }
            | Self::Sql(source)
            | Self::Failed { source, .. }
            | Self::Refused { source, .. } => examine::is_damage(source),
            Self::Newer { .. }
            | Self::Aside { .. }
            | Self::Encode(_)
            | Self::Full
            | Self::Closed => false,
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(source: rusqlite::Error) -> Self {
        Self::Sql(Arc::new(source))
    }
}

impl From<serde_json::Error> for Error {
    fn from(source: serde_json::Error) -> Self {
        Self::Encode(Arc::new(source))
    }
}

type Work = Box<dyn FnOnce(Run<'_, '_>) -> Finish + Send>;
/// Called after the commit, with its outcome.
type Finish = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// What a job is run with: the transaction, or why there is none.
enum Run<'t, 'c> {
    In(&'t mut rusqlite::Transaction<'c>, &'t mut Made),
    Refused(Error),
}

/// What comes of a batch beside its rows.
#[derive(Default)]
struct Made {
    events: Vec<Event>,
    changes: Vec<copies::Change>,
    /// The number of the commit.
    commits: i64,
}

struct Job {
    work: Work,
    need: Need,
}

/// What a job needs of the batch that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// A commit, now.
    Commit,
    /// A commit, with the next one.
    Ride,
    /// None: it only reads, and so it goes on when nothing can be written any more.
    Look,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("need", &self.need).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store, creates or migrates its schema, and starts its thread. One that is damaged is
    /// mended first; see [`Store::mended`].
    ///
    /// # Errors
    /// [`Error::Open`] or [`Error::Newer`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::serve_opened(path, rebuild::open(path)?)
    }

    fn serve_opened(path: &Path, opened: rebuild::Opened) -> Result<Self, Error> {
        let rebuild::Opened { connection, copies, mended } = opened;
        let (jobs, queue) = channel();
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        let publisher = events.clone();
        let (fail, failed) = watch::channel(None);
        let writer = Writer {
            path: path.into(),
            connection,
            publisher,
            reserve: reserve::Reserve::beside(path),
            copies,
            fail,
        };
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.serve(&queue))
            .map_err(|source| Error::Open {
                path: path.to_owned(),
                source: Arc::new(rusqlite::Error::ToSqlConversionFailure(Box::new(source))),
            })?;
        Ok(Self { jobs, events, failed, mended: Arc::new(mended), path: path.into() })
    }

    /// Sets the database aside, whatever it is like, makes a new one of what lies on the disk, and opens
    /// that.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn rebuild(path: &Path) -> Result<Self, Error> {
        Self::serve_opened(path, rebuild::force(path)?)
    }

    /// To be asked before something new is begun: on a full disk what room there is belongs to the
    /// records of exits and removals.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub fn expect_room(&self) -> Result<(), Error> {
        if reserve::is_low(&self.path) { Err(Error::Full) } else { Ok(()) }
    }

    /// Ends when a commit has failed in such a way that nothing more can be stored, with that error.
    pub async fn failed(&self) -> Error {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or(Error::Closed),
            // Its thread is gone with the last handle.
            Err(_) => std::future::pending().await,
        }
    }

    /// What was wrong when it was opened, and has been put right.
    #[must_use]
    pub fn mended(&self) -> &Mended {
        &self.mended
    }

    /// What the rows were missing has been taken from the blobs: the next one that opens it need not.
    ///
    /// # Errors
    /// [`Error::Open`] with what the disk says.
    pub fn is_put_right(&self) -> Result<(), Error> {
        unfinished::done(&self.path)
    }

    /// Runs `work` in a transaction and answers once it is durable. When `work` fails nothing of it
    /// stays, and its error is the answer.
    ///
    /// # Errors
    /// What `work` answered, or the store's own trouble.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.submit(Need::Commit, work, move |outcome| {
            // The caller may have gone; the work is done all the same.
            let _ = answer.send(outcome);
        })?;
        answered.await.unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Runs `work`, which only looks: what it writes all the same is forgotten. It sees everything that
    /// was asked for before it, and answers also when the disk is full.
    ///
    /// # Errors
    /// What `work` answered, or the store's own trouble.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.submit(Need::Look, work, move |outcome| {
            // The caller may have gone.
            let _ = answer.send(outcome);
        })?;
        answered.await.unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Runs `work` in the next commit, at latest 50 ms from now. For facts that can be derived again
    /// after a crash.
    pub fn write_soon<F>(&self, work: F)
    where
        F: FnOnce(&mut Transaction<'_>) -> Result<(), Error> + Send + 'static,
    {
        let submitted = self.submit(Need::Ride, work, |outcome| {
            if let Err(error) = outcome {
                tracing::error!(%error, "a fact could not be stored");
            }
        });
        if let Err(error) = submitted {
            tracing::error!(%error, "a fact could not be stored");
        }
    }

    /// Events from now on, each after its commit.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }

    fn submit<T, E, F, A>(&self, need: Need, work: F, answer: A) -> Result<(), Error>
    where
        F: FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
        A: FnOnce(Result<T, E>) + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let work = move |run: Run<'_, '_>| -> Finish {
            let done = match run {
                Run::Refused(error) => Err(error.into()),
                Run::In(transaction, made) => in_savepoint(transaction, made, work),
            };
            Box::new(move |committed| answer(committed.map_err(E::from).and(done)))
        };
        self.jobs.send(Job { work: Box::new(work), need }).map_err(|_| Error::Closed)
    }
}

fn in_savepoint<T, E, F>(
    transaction: &mut rusqlite::Transaction<'_>,
    made: &mut Made,
    work: F,
) -> Result<T, E>
where
    F: FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    E: From<Error>,
{
    let sql = transaction.savepoint().map_err(Error::from)?;
    let mut inner =
        Transaction { sql, events: Vec::new(), touched: BTreeSet::new(), specs: BTreeMap::new() };
    let value = work(&mut inner)?;
    let Transaction { sql, events, touched, specs } = inner;
    let changes = copies::seal(&sql, &touched, &specs)?;
    sql.commit().map_err(Error::from)?;
    made.events.extend(events);
    made.changes.extend(changes);
    Ok(value)
}

/// The thread of the store.
struct Writer {
    path: Arc<Path>,
    connection: Connection,
    publisher: broadcast::Sender<Arc<Event>>,
    reserve: reserve::Reserve,
    copies: copies::Copies,
    fail: watch::Sender<Option<Error>>,
}

impl Writer {
    fn serve(mut self, queue: &Receiver<Job>) {
        while let Some(batch) = next_batch(queue) {
            let (looks, batch): (Vec<_>, Vec<_>) =
                batch.into_iter().partition(|job| job.need == Need::Look);
            let failed = self.fail.borrow().clone();
            match failed {
                Some(error) => batch.into_iter().for_each(|job| {
                    (job.work)(Run::Refused(error.clone()))(Ok(()));
                }),
                None if batch.is_empty() => {}
                None => self.write(batch),
            }
            look(&mut self.connection, looks);
        }
    }

    fn write(&mut self, batch: Vec<Job>) {
        self.reserve.look();
        match commit(&mut self.connection, batch) {
            Ok((finishes, made)) => {
                self.copies.apply(made.changes);
                self.copies.note(copies::Mark { commits: made.commits, schema: schema::KNOWN });
                shim_failpoints::step!("daemon.store.after_copies");
                for event in made.events {
                    // Nobody may be listening.
                    let _ = self.publisher.send(Arc::new(event));
                }
                finishes.into_iter().for_each(|finish| finish(Ok(())));
            }
            Err((finishes, source)) => {
                let error = self.judge(source);
                tracing::error!(%error, "a commit failed");
                if let Error::Failed { .. } = error {
                    self.fail.send_replace(Some(error.clone()));
                }
                finishes.into_iter().for_each(|finish| finish(Err(error.clone())));
            }
        }
    }

    /// What a commit that failed means for those that come.
    fn judge(&self, source: rusqlite::Error) -> Error {
        let (path, source) = (Arc::clone(&self.path), Arc::new(source));
        match source.sqlite_error() {
            Some(error) if error.code == ErrorCode::DiskFull => Error::Full,
            // Nothing was written, or something without its end, which counts for nothing; the next
            // commit begins at the same place of the journal.
            Some(error)
                if error.code == ErrorCode::ReadOnly
                    || [SQLITE_IOERR_WRITE, SQLITE_IOERR_READ].contains(&error.extended_code) =>
            {
                Error::Refused { path, source }
            }
            // What the disk does not read SQLite calls damage.
            Some(_) if examine::is_damage(&source) && rebuild::expect_readable(&path).is_err() => {
                Error::Refused { path, source }
            }
            Some(_) | None => Error::Failed { path, source },
        }
    }
}

/// Runs what only reads, in a transaction that is never committed.
fn look(connection: &mut Connection, looks: Vec<Job>) {
    for job in looks {
        let finish = match connection.transaction() {
            Ok(mut transaction) => (job.work)(Run::In(&mut transaction, &mut Made::default())),
            Err(source) => (job.work)(Run::Refused(source.into())),
        };
        finish(Ok(()));
    }
}

/// A transaction of somebody who only looks.
fn reading(connection: &mut Connection) -> Result<Transaction<'_>, Error> {
    let (events, touched, specs) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
    Ok(Transaction { sql: connection.savepoint()?, events, touched, specs })
}

/// All jobs that wait; blocks for the first. Jobs that nobody waits for hold the batch open, for
/// [`RIDE`] at most or until one comes that somebody waits for. `None` when the store is closed.
fn next_batch(queue: &Receiver<Job>) -> Option<Vec<Job>> {
    let first = queue.recv().ok()?;
    let mut batch = vec![first];
    let deadline = Instant::now() + RIDE;
    loop {
        batch.extend(queue.try_iter());
        let left = deadline.saturating_duration_since(Instant::now());
        if batch.iter().any(|job| job.need != Need::Ride) || left.is_zero() {
            return Some(batch);
        }
        match queue.recv_timeout(left) {
            Ok(job) => batch.push(job),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Some(batch),
        }
    }
}

type Committed = Result<(Vec<Finish>, Made), (Vec<Finish>, rusqlite::Error)>;

fn commit(connection: &mut Connection, batch: Vec<Job>) -> Committed {
    let mut finishes = Vec::with_capacity(batch.len());
    let mut made = Made::default();
    let mut transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate)
    {
        Ok(transaction) => transaction,
        Err(source) => {
            let error = Error::Sql(Arc::new(rusqlite::Error::InvalidQuery));
            finishes.extend(batch.into_iter().map(|job| (job.work)(Run::Refused(error.clone()))));
            return Err((finishes, source));
        }
    };
    for job in batch {
        finishes.push((job.work)(Run::In(&mut transaction, &mut made)));
    }
    match schema::count_commit(&transaction) {
        Ok(commits) => made.commits = commits,
        Err(source) => return Err((finishes, source)),
    }
    shim_failpoints::step!("daemon.store.before_commit");
    let committed = transaction.commit();
    shim_failpoints::step!("daemon.store.after_commit");
    match committed {
        Ok(()) => Ok((finishes, made)),
        Err(source) => Err((finishes, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ContainerOptions;

    fn note(action: &'static str) -> NewEvent {
        NewEvent {
            namespace: "default".to_owned(),
            kind: "container".to_owned(),
            action: action.to_owned(),
            id: "x".to_owned(),
            attributes: BTreeMap::new(),
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn failed_work_leaves_nothing_and_its_neighbours_are_untouched() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("meta.db")).unwrap();
        runtime().block_on(async {
            let mut events = store.subscribe();
            let failing = store.write(|tx| -> Result<(), Error> {
                tx.event(note("lost"))?;
                Err(Error::Closed)
            });
            let kept = store.write(|tx| tx.event(note("kept")));
            let (failing, kept) = tokio::join!(failing, kept);
            assert!(failing.is_err() && kept.is_ok());
            assert_eq!(events.recv().await.unwrap().action, "kept");
            let stored = store.write(|tx| tx.events_since(1, 10)).await.unwrap();
            assert_eq!(stored.events.len(), 1);
        });
    }

    #[test]
    fn facts_that_nobody_waits_for_are_stored_and_survive_a_reopen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.db");
        let store = Store::open(&path).unwrap();
        runtime().block_on(async {
            let mut events = store.subscribe();
            store.write_soon(|tx| tx.event(note("soon")).map(|_| ()));
            assert_eq!(events.recv().await.unwrap().action, "soon");
        });
        drop(store);
        let store = Store::open(&path).unwrap();
        runtime().block_on(async {
            let stored = store.write(|tx| tx.events_since(1, 10)).await.unwrap();
            assert_eq!(stored.events.len(), 1);
        });
    }

    #[test]
    fn a_newer_schema_is_refused_politely() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.db");
        drop(Store::open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 1000).unwrap();
        copies::Copies::beside(&path).note(copies::Mark { commits: 1, schema: 1000 });
        let before = std::fs::read(&path).unwrap();
        let Err(error) = Store::open(&path) else { panic!("it was opened") };
        assert!(matches!(error, Error::Newer { found: 1000, known: schema::KNOWN, .. }));
        let said = error.to_string();
        assert!(said.contains("1000") && said.contains(&schema::KNOWN.to_string()), "{said}");
        assert_eq!(std::fs::read(&path).unwrap(), before, "it was touched");
    }

    #[test]
    fn a_version_that_nobody_made_is_damage() {
        for version in [0, 1, 2, 1000] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("meta.db");
            drop(Store::open(&path).unwrap());
            Connection::open(&path).unwrap().pragma_update(None, "user_version", version).unwrap();
            let store = Store::open(&path).unwrap();
            assert!(store.mended().is_rebuilt, "{version}");
        }
    }

    #[test]
    fn every_row_that_is_changed_behind_our_back_is_found_and_taken_from_its_copy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.db");
        let store = Store::open(&path).unwrap();
        let row = BlobRow {
            digest: format!("sha256:{}", "a".repeat(64)),
            size: 7,
            created_at: crate::time::Time::default(),
            labels: BTreeMap::from([("key".to_owned(), "value".to_owned())]),
        };
        let stored = row.clone();
        let snapshot = SnapshotRow {
            number: 0,
            key: "layer".to_owned(),
            kind: Kind::Committed,
            parent: None,
            directory: None,
            held_by: None,
            created_at: crate::time::Time::default(),
            updated_at: crate::time::Time::default(),
            labels: BTreeMap::new(),
            written_in: None,
        };
        let number = runtime()
            .block_on(store.write(move |tx| {
                tx.insert_blob("default", &stored)?;
                tx.insert_snapshot("default", &snapshot)
            }))
            .unwrap();
        drop(store);
        for change in [
            "UPDATE blobs SET size = 8",
            "UPDATE blobs SET labels = '{}'",
            "UPDATE blobs SET labels = CAST(x'ff' AS TEXT)",
            "UPDATE blobs SET digest = 'sha256:ab'",
            "UPDATE blobs SET sum = 'x'",
            "UPDATE snapshots SET kind = 'active'",
            "UPDATE snapshots SET key = 'other'",
        ] {
            Connection::open(&path).unwrap().execute(change, []).unwrap();
            let store = Store::open(&path).unwrap();
            assert!(!store.mended().is_rebuilt, "{change}");
            assert_eq!(store.mended().findings.len(), 1, "{change}: {:?}", store.mended());
            let (blob, layer) = runtime()
                .block_on(store.read(move |tx| -> Result<_, Error> {
                    Ok((tx.blobs("default")?, tx.snapshot_by_number(number)?))
                }))
                .unwrap();
            assert_eq!(blob, std::slice::from_ref(&row), "{change}");
            let layer = layer.unwrap();
            assert_eq!((layer.key.as_str(), layer.kind), ("layer", Kind::Committed), "{change}");
        }
    }

    #[test]
    fn a_container_whose_row_and_copy_are_damaged_is_found_by_its_directory() {
        let id = "a".repeat(64);
        let other = "b".repeat(64);
        for (stored, expected) in [
            // What its row says whose it is: nothing, the truth, or another one.
            ("CAST(x'ff' AS TEXT)".to_owned(), vec![(id.as_str(), "web")]),
            (format!("'{id}'"), vec![(id.as_str(), "web")]),
            (format!("'{other}'"), vec![(id.as_str(), "web"), (other.as_str(), other.as_str())]),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("meta.db");
            drop(Store::open(&path).unwrap());
            let place = directory.path().join("containers/default").join(&id);
            std::fs::create_dir_all(&place).unwrap();
            let options = ContainerOptions { name: "web".to_owned(), ..Default::default() };
            std::fs::write(place.join("options.json"), serde_json::to_string(&options).unwrap())
                .unwrap();
            std::fs::create_dir_all(place.with_file_name("stranger")).unwrap();
            let sql = Connection::open(&path).unwrap();
            sql.execute("INSERT INTO namespaces (name) VALUES ('default')", []).unwrap();
            let row = format!(
                "INSERT INTO containers (namespace, id, name, record, spec, image, spec_sum, sum)
                 VALUES ('default', {stored}, 'web', '{{}}', '', '', '', 'wrong')"
            );
            sql.execute(&row, []).unwrap();
            drop(sql);
            let store = Store::open(&path).unwrap();
            assert!(!store.mended().is_rebuilt, "{stored}");
            let mut found = runtime().block_on(store.read(|tx| tx.load_containers())).unwrap();
            found.sort_by(|one, other| one.id.cmp(&other.id));
            let names: Vec<(&str, &str)> =
                found.iter().map(|one| (one.id.as_str(), one.name.as_str())).collect();
            assert_eq!(names, expected, "{stored}");
            let problem = found[0].record.as_ref().unwrap_err();
            assert!(problem.contains(place.to_str().unwrap()), "{stored}: {problem}");
        }
    }

    /// Closes it: the last handle goes, and a moment later the connection.
    fn close(store: Store, path: &Path) {
        drop(store);
        while path.with_extension("db-wal").exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn record(id: &str, name: &str, snapshot: i64) -> crate::container::Record {
        crate::container::Record {
            id: id.to_owned(),
            name: name.to_owned(),
            created_at: crate::time::Time::default(),
            options: ContainerOptions { name: name.to_owned(), ..Default::default() },
            args: Vec::new(),
            snapshot,
            started_at: None,
            run: crate::container::Run::Created { attempts: 0, error: None },
            warnings: Vec::new(),
            image: None,
        }
    }

    #[test]
    fn an_older_database_put_back_is_seen_as_such_and_the_copies_are_the_truth() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.db");
        let blob = |digit: &str| BlobRow {
            digest: format!("sha256:{}", digit.repeat(64)),
            size: 7,
            created_at: crate::time::Time::default(),
            labels: BTreeMap::new(),
        };
        let write = |store: &Store, add: BlobRow, remove: Option<BlobRow>| {
            runtime()
                .block_on(store.write(move |tx| -> Result<(), Error> {
                    if let Some(row) = remove {
                        tx.remove_blob("default", &row.digest)?;
                    }
                    tx.insert_blob("default", &add).map(drop)
                }))
                .unwrap();
        };
        let store = Store::open(&path).unwrap();
        write(&store, blob("a"), None);
        close(store, &path);
        let names = ["meta.db", "meta.mark"];
        let older = names.map(|name| std::fs::read(directory.path().join(name)).unwrap());
        let store = Store::open(&path).unwrap();
        write(&store, blob("b"), Some(blob("a")));
        close(store, &path);
        for (name, bytes) in names.iter().zip(&older) {
            std::fs::write(directory.path().join(name), bytes).unwrap();
        }
        let found = look_at(&path).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].problem.contains("it is an older one"), "{found:?}");
        assert!(contents(&path).unwrap().is_none());
        let store = Store::open(&path).unwrap();
        assert!(store.mended().is_rebuilt, "{:?}", store.mended());
        let blobs = runtime().block_on(store.read(|tx| tx.blobs("default"))).unwrap();
        assert_eq!(blobs, [blob("b")]);
        close(store, &path);
        // What it is missing is still to be taken from the blobs.
        let store = Store::open(&path).unwrap();
        assert!(store.mended().is_rebuilt, "{:?}", store.mended());
        assert_eq!(store.mended().findings.len(), 1, "{:?}", store.mended());
        store.is_put_right().unwrap();
        close(store, &path);
        // Once is enough.
        let store = Store::open(&path).unwrap();
        assert!(store.mended().findings.is_empty(), "{:?}", store.mended());
    }

    /// A daemon that was killed between the commit that mends and this leaves trees that no row names: to
    /// the next one they are not what a broken work has left.
    #[test]
    fn what_a_mending_that_was_broken_off_left_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.db");
        close(Store::open(&path).unwrap(), &path);
        let tree = directory.path().join("snapshots/overlayfs/7");
        std::fs::create_dir_all(&tree).unwrap();
        close(Store::open(&path).unwrap(), &path);
        assert!(tree.exists(), "an ordinary start leaves it to others");
        unfinished::note(&path, false).unwrap();
        let store = Store::open(&path).unwrap();
        assert!(!tree.exists() && !store.mended().is_rebuilt);
        let findings = &store.mended().findings;
        assert!(findings.len() == 1 && findings[0].object == "snapshot 7", "{findings:?}");
        assert!(directory.path().join("quarantine").read_dir().unwrap().next().is_some());
        store.is_put_right().unwrap();
        close(store, &path);
        assert!(Store::open(&path).unwrap().mended().findings.is_empty());
    }

    #[test]
    fn a_container_that_no_row_names_is_taken_from_its_copy_unless_it_was_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.db");
        let (kept, gone) = ("a".repeat(64), "b".repeat(64));
        let store = Store::open(&path).unwrap();
        let records = [record(&kept, "kept", 7), record(&gone, "gone", 8)];
        let stored = records.clone();
        runtime()
            .block_on(store.write(move |tx| -> Result<(), Error> {
                stored.iter().try_for_each(|one| tx.insert_container("default", one, "{}"))
            }))
            .unwrap();
        let place =
            |id: &str, name: &str| directory.path().join("containers/default").join(id).join(name);
        let copy = std::fs::read(place(&gone, "record.json")).unwrap();
        let removed = records[1].clone();
        runtime()
            .block_on(store.write(move |tx| tx.remove_container("default", &removed).map(drop)))
            .unwrap();
        close(store, &path);
        // A daemon that was killed between the two had not got to it yet.
        std::fs::write(place(&gone, "record.json"), copy).unwrap();
        let sql = Connection::open(&path).unwrap();
        sql.execute("DELETE FROM containers", []).unwrap();
        drop(sql);
        let found = look_at(&path).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].object.contains(&kept) && found[0].remedy.contains("takes it from its"));
        let seen = contents(&path).unwrap().unwrap();
        assert_eq!(seen.copied, BTreeSet::from([("default".to_owned(), kept.clone())]));
        assert_eq!(seen.of_copied, BTreeSet::from([7]));
        let store = Store::open(&path).unwrap();
        let mended = store.mended();
        assert!(!mended.is_rebuilt && mended.findings.len() == 1, "{mended:?}");
        let (found, snapshot) = runtime()
            .block_on(store.read(|tx| -> Result<_, Error> {
                Ok((tx.load_containers()?, tx.snapshot_by_number(7)?))
            }))
            .unwrap();
        let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["kept"]);
        assert_eq!(snapshot.unwrap().held_by.as_deref(), Some(kept.as_str()));
        assert!(place(&kept, "record.json").exists() && !place(&kept, "removed.json").exists());
        assert!(!place(&gone, "record.json").exists() && place(&gone, "removed.json").exists());
    }

    #[test]
    fn whatever_lies_in_the_place_of_a_file_of_the_store_it_is_opened() {
        use rustix::fs::{CWD, Mode, mkfifoat};
        type Strike = fn(&Path);
        let fifo: Strike = |path| mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap();
        let inside: Strike = |path| std::fs::create_dir_all(path.join("inside")).unwrap();
        let sparse: Strike = |path| std::fs::File::create(path).unwrap().set_len(6 << 30).unwrap();
        let id = "a".repeat(64);
        let of = |name: &str| format!("containers/default/{id}/{name}");
        for (name, is_rebuilt) in [
            ("meta.db", true),
            ("meta.db-wal", true),
            ("meta.db-shm", false),
            ("meta.db-journal", false),
            ("meta.db-reserve", false),
            ("meta.mark", false),
            (&of("record.json"), false),
            (&of("options.json"), false),
            (&of("config.json"), false),
        ] {
            for (how, strike) in [("fifo", fifo), ("directory", inside), ("sparse", sparse)] {
                let is_of_sqlite = name.starts_with("meta.db") && name != "meta.db-reserve";
                if how == "sparse" && is_of_sqlite {
                    continue;
                }
                let case = format!("{name}: {how}");
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("meta.db");
                let store = Store::open(&path).unwrap();
                let stored = record(&id, "one", 7);
                runtime()
                    .block_on(store.write(move |tx| tx.insert_container("default", &stored, "{}")))
                    .unwrap();
                close(store, &path);
                let place = directory.path().join(name);
                let _ = std::fs::remove_file(&place);
                strike(&place);
                look_at(&path).unwrap_or_else(|error| panic!("{case}: {error}"));
                let store = Store::open(&path).unwrap_or_else(|error| panic!("{case}: {error}"));
                assert_eq!(store.mended().is_rebuilt, is_rebuilt, "{case}");
                let found = runtime().block_on(store.read(|tx| tx.load_containers())).unwrap();
                assert!(found.len() == 1 && found[0].record.is_ok(), "{case}: {found:?}");
                close(store, &path);
                if !["meta.db-wal", "meta.db-shm", "meta.db-journal"].contains(&name) {
                    let now = place.symlink_metadata().unwrap();
                    assert!(now.is_file() && now.len() <= 4 << 20, "{case}: {now:?}");
                }
                if how == "directory" {
                    let aside = std::fs::read_dir(directory.path().join("quarantine")).unwrap();
                    let mut kept = aside.flatten().map(|entry| entry.path().join("inside"));
                    assert!(kept.any(|path| path.is_dir()), "{case}");
                }
                Store::open(&path).unwrap().is_put_right().unwrap();
                let store = Store::open(&path).unwrap();
                assert!(store.mended().findings.is_empty(), "{case}: {:?}", store.mended());
            }
        }
    }

    #[test]
    fn any_flipped_byte_of_a_database_is_harmless_found_or_mended() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.db");
        let store = Store::open(&path).unwrap();
        let row = BlobRow {
            digest: format!("sha256:{}", "a".repeat(64)),
            size: 7,
            created_at: crate::time::Time::default(),
            labels: BTreeMap::new(),
        };
        let stored = row.clone();
        runtime().block_on(store.write(move |tx| tx.insert_blob("default", &stored))).unwrap();
        drop(store);
        // The last handle is gone, and a moment later so is the connection.
        while path.with_extension("db-wal").exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let whole = std::fs::read(&path).unwrap();
        // The header, byte for byte, and a walk through the rest.
        for at in (0..100).chain((100..whole.len()).step_by(1021)) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x24;
            std::fs::write(&path, bytes).unwrap();
            let store = Store::open(&path).unwrap_or_else(|error| panic!("byte {at}: {error}"));
            let blobs = runtime().block_on(store.read(|tx| tx.blobs("default"))).unwrap();
            assert_eq!(blobs, std::slice::from_ref(&row), "byte {at}");
            drop(store);
            while path.with_extension("db-wal").exists() {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::fs::write(&path, &whole).unwrap();
        }
    }
}
