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
//! A commit that fails is fatal for the store: after a failed fsync nobody knows what is on disk, so
//! every later call gets [`Error::Failed`] and the daemon says so, rather than pretending. Only a full
//! disk is no such failure: SQLite writes nothing then, and says so ([`Error::Full`]).

mod blobs;
mod containers;
mod events;
mod images;
mod leases;
mod requests;
mod reserve;
mod schema;
mod snapshots;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{broadcast, oneshot};

pub use blobs::BlobRow;
pub use containers::{Loaded, OfImage, Removed};
pub use events::{Event, NewEvent, Stored};
pub use images::ImageRow;
pub use leases::{LeaseRow, Resource, ResourceKind};
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
}

/// The open transaction that a job works in.
#[derive(Debug)]
pub struct Transaction<'a> {
    sql: rusqlite::Savepoint<'a>,
    events: Vec<Event>,
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
    #[error("metadata store: {0}")]
    Sql(Arc<rusqlite::Error>),
    #[error("metadata store: a record can't be encoded: {0}")]
    Encode(Arc<serde_json::Error>),
    #[error(
        "metadata store: a commit failed ({0}); nothing more is accepted: free the disk or mend it, then restart bosund"
    )]
    Failed(Arc<rusqlite::Error>),
    #[error("metadata store: the disk is full: free some of it, then try again")]
    Full,
    #[error("metadata store: closed")]
    Closed,
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
    In(&'t mut rusqlite::Transaction<'c>, &'t mut Vec<Event>),
    Refused(Error),
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
    /// Opens the store, creates or migrates its schema, and starts its thread.
    ///
    /// # Errors
    /// [`Error::Open`] or [`Error::Newer`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let connection = schema::open(path)?;
        let (jobs, queue) = channel();
        let (events, _) = broadcast::channel(EVENT_BACKLOG);
        let publisher = events.clone();
        let reserve = reserve::Reserve::beside(path);
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || serve(connection, &queue, &publisher, reserve))
            .map_err(|source| Error::Open {
                path: path.to_owned(),
                source: Arc::new(rusqlite::Error::ToSqlConversionFailure(Box::new(source))),
            })?;
        Ok(Self { jobs, events })
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
                Run::In(transaction, events) => in_savepoint(transaction, events, work),
            };
            Box::new(move |committed| answer(committed.map_err(E::from).and(done)))
        };
        self.jobs.send(Job { work: Box::new(work), need }).map_err(|_| Error::Closed)
    }
}

fn in_savepoint<T, E, F>(
    transaction: &mut rusqlite::Transaction<'_>,
    events: &mut Vec<Event>,
    work: F,
) -> Result<T, E>
where
    F: FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    E: From<Error>,
{
    let sql = transaction.savepoint().map_err(Error::from)?;
    let mut inner = Transaction { sql, events: Vec::new() };
    let value = work(&mut inner)?;
    let Transaction { sql, events: made } = inner;
    sql.commit().map_err(Error::from)?;
    events.extend(made);
    Ok(value)
}

fn serve(
    mut connection: Connection,
    queue: &Receiver<Job>,
    publisher: &broadcast::Sender<Arc<Event>>,
    mut reserve: reserve::Reserve,
) {
    let mut failed: Option<Error> = None;
    while let Some(batch) = next_batch(queue) {
        let (looks, batch): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|job| job.need == Need::Look);
        if let Some(error) = &failed {
            for job in batch {
                (job.work)(Run::Refused(error.clone()))(Ok(()));
            }
            look(&mut connection, looks);
            continue;
        }
        if batch.is_empty() {
            look(&mut connection, looks);
            continue;
        }
        reserve.look();
        match commit(&mut connection, batch) {
            Ok((finishes, events)) => {
                for event in events {
                    // Nobody may be listening.
                    let _ = publisher.send(Arc::new(event));
                }
                finishes.into_iter().for_each(|finish| finish(Ok(())));
            }
            // Nothing was written, and nothing is in doubt: what is removed next makes room.
            Err((finishes, source)) if is_full(&source) => {
                let error = Error::Full;
                tracing::error!(%error, "a commit failed");
                finishes.into_iter().for_each(|finish| finish(Err(error.clone())));
            }
            Err((finishes, source)) => {
                tracing::error!(%source, "a commit failed: the metadata store is closed");
                let error = Error::Failed(Arc::new(source));
                finishes.into_iter().for_each(|finish| finish(Err(error.clone())));
                failed = Some(error);
            }
        }
        look(&mut connection, looks);
    }
}

/// Runs what only reads, in a transaction that is never committed.
fn look(connection: &mut Connection, looks: Vec<Job>) {
    for job in looks {
        let finish = match connection.transaction() {
            Ok(mut transaction) => (job.work)(Run::In(&mut transaction, &mut Vec::new())),
            Err(source) => (job.work)(Run::Refused(source.into())),
        };
        finish(Ok(()));
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
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

type Committed = Result<(Vec<Finish>, Vec<Event>), (Vec<Finish>, rusqlite::Error)>;

fn commit(connection: &mut Connection, batch: Vec<Job>) -> Committed {
    let mut finishes = Vec::with_capacity(batch.len());
    let mut events = Vec::new();
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
        finishes.push((job.work)(Run::In(&mut transaction, &mut events)));
    }
    fail::fail_point!("daemon.store.before_commit");
    let committed = transaction.commit();
    fail::fail_point!("daemon.store.after_commit");
    match committed {
        Ok(()) => Ok((finishes, events)),
        Err(source) => Err((finishes, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(action: &'static str) -> NewEvent {
        NewEvent {
            namespace: "default".to_owned(),
            kind: "container".to_owned(),
            action: action.to_owned(),
            id: "x".to_owned(),
            attributes: Vec::new(),
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
        assert!(matches!(Store::open(&path), Err(Error::Newer { found: 1000, .. })));
    }
}
