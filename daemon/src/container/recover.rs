//! What a daemon that starts makes of what it finds: intents × living shims × exit records × cgroups,
//! each found by its deterministic name.
//!
//! Every run that the store says is going on is judged by [`shim_wire::lifecycle::take_up`], all at
//! once, each with a budget of its own, so that one hung shim holds up nobody else. One bad record
//! never stops the start: it is quarantined and listed. Containers are listed before the first call
//! is served.
//!
//! That something is missing is no evidence that a container does not run. One whose start is committed has
//! run, whatever is left of it. A shim whose identity file is lost is found by what it was started with
//! ([`Census`]), and asked to listen again where its sockets are lost; one that lives and does not answer keeps its
//! container, as it does under a daemon that runs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use futures::stream::{self, StreamExt};
use shim_wire::exit::ExitRecord;
use shim_wire::files::ProcessIdentity;
use shim_wire::id::Id;
use shim_wire::lifecycle::{self, Evidence, Reason, ShimState, Verdict};
use shim_wire::shim::{Phase, StatusResponse};

use super::actor::{Actor, Command, container_event, finish_removal, read_exit_record};
use super::handle::Handle;
use super::record::{Exit, Lease, Record, Run};
use super::registry::Registry;
use super::run::{self, Running, Shim};
use super::{Key, execs, updating};
use crate::checkpoint;
use crate::core::Core;
use crate::error::Result;
use crate::network::Endpoint;
use crate::shim::{self, Client, ShimProcess, boot_id, read_identity};
use crate::store::Loaded;
use crate::time::{Time, of_start_time, since_boot};

/// How often a shim that lives is asked, and the pause between: before its container is ended, and of one
/// that is kept whether it answers or not.
const ASKED: u32 = 5;
const ASKED_ONCE: u32 = 1;
const PAUSE: Duration = Duration::from_millis(200);

/// How long a shim has to listen again.
const SUMMONED: Duration = Duration::from_secs(2);

/// How long a shim that nobody reaches has to write down how its container has ended, and how often it is
/// looked.
const LAST_WORD: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// When a shim that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How long what a pull had brought when its daemon ended is kept for another try.
const KEPT: Duration = Duration::from_secs(600);

/// How many runs are judged at once.
const AT_ONCE: usize = 64;

pub(super) async fn recover(core: &Arc<Core>, registry: &Arc<Registry>) -> Result<()> {
    let loaded = core.store.read(|tx| tx.load_containers()).await.map_err(crate::Error::from)?;
    for container in &loaded {
        if let Ok(Record { run: Run::Intent { lease: Some(lease), .. }, .. }) = &container.record {
            core.network.hold(lease.address);
        }
    }
    checkpoint::untold::forget(&core.layout).await;
    let census = Census::default();
    let endpoints: Vec<Vec<Endpoint>> = stream::iter(loaded)
        .map(|container| take_up(core, registry, &census, container))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let report = core.network.bridge.reconcile(endpoints.into_iter().flatten().collect()).await?;
    tracing::debug!(?report, "network reconciled");
    finish_removals(core, registry).await?;
    sweep(core, registry).await;
    let orphans = core.snapshots.remove_orphans().await?;
    if orphans > 0 {
        tracing::info!(orphans, "directories of snapshots without a record removed");
    }
    core.leases.end_work((SystemTime::now() + KEPT).into()).await?;
    core.leases.drop_expired().await?;
    let orphans = core.content.remove_orphans().await?;
    if orphans > 0 {
        tracing::info!(orphans, "blobs without a record and broken ingests removed");
    }
    core.snapshots.mark_missing().await?;
    core.images.mend_torn().await?;
    Ok(())
}

/// Takes up one container; answers its place on the bridge when it runs.
async fn take_up(
    core: &Arc<Core>,
    registry: &Arc<Registry>,
    census: &Census,
    container: Loaded,
) -> Vec<Endpoint> {
    let Loaded { namespace, id, name, record } = container;
    let (Ok(namespace), Ok(id)) = (namespace.parse::<Id>(), id.parse::<Id>()) else {
        tracing::error!(namespace, id, "a record under an id that is none is left alone");
        return Vec::new();
    };
    let key = Key { namespace, id };
    if let Err(error) = checkpoint::forget(core, &key).await {
        tracing::warn!(container = %key, %error, "what is left of a checkpoint");
    }
    let record = match record {
        Ok(record) => record,
        Err(problem) => {
            tracing::error!(container = %key, problem, "record can't be read: quarantined");
            let problem =
                format!("its record can't be read ({problem}): only its removal is possible");
            Actor::spawn(core, registry, key, name, Err(problem));
            return Vec::new();
        }
    };
    let (other_boot, lease) = match &record.run {
        Run::Intent { boot_id: begun, lease, .. } => (begun != boot_id(), lease.clone()),
        Run::Created { .. } | Run::Ended { .. } if !leaves_something(core, &key) => {
            Actor::spawn(core, registry, key, name, Ok(record));
            return Vec::new();
        }
        Run::Created { .. } | Run::Ended { .. } => (false, None),
    };
    let is_started =
        matches!(record.run, Run::Intent { .. }) && record.started_at.is_some() && !other_boot;
    let asked = if is_started { ASKED_ONCE } else { ASKED };
    let mut found = Found::of(core, &key, census, asked).await;
    if let Some(problem) = found.stranger() {
        tracing::error!(container = %key, problem, "left as it is");
        Actor::spawn(core, registry, key.clone(), name, Err(problem));
        return lease.iter().map(|lease| run::endpoint(&key, lease)).collect();
    }
    let attempt = record.run.attempts();
    // Only of those that do not answer it is asked.
    let goes_on = || is_started && !is_recorded(core, &key, attempt);
    if let Some(shim) = found.silent.take_if(|_| goes_on()) {
        tracing::error!(container = %key, pid = shim.process.pid(), "its shim does not answer: it is asked again and again");
        return adopt(core, registry, key, record, lease, (shim, found.identity, None)).await;
    }
    if found.living.is_none() && found.identity.is_some() {
        if goes_on() {
            found.have_recorded(core, &key, attempt).await;
        }
        // It may only hang, and then write a record that nobody reads any more.
        found.end(core, &key).await;
    }
    let exit = read_exit_record(core, &key);
    let evidence = Evidence {
        shim: found.answers(),
        record: exit.as_ref().map(ExitRecord::recorded),
        launched: found.identity.is_some() || is_started,
        other_boot,
    };
    let verdict = lifecycle::take_up(record.run.durable(), evidence);
    tracing::info!(container = %key, ?evidence, ?verdict, "recovering");
    shim_failpoints::step!("daemon.recover.after_verdict");
    match (verdict, found) {
        (Verdict::Settle, found) => {
            let gone = settle(core, &key, attempt, found).await;
            let handle = Actor::spawn(core, registry, key, name, Ok(record));
            go_on_unless(gone, &handle);
            Vec::new()
        }
        (Verdict::Adopt, Found { living: Some(Living { shim, status }), identity, .. }) => {
            adopt(core, registry, key, record, lease, (shim, identity, Some(status))).await
        }
        (Verdict::Adopt | Verdict::Undo, found) => {
            undo(core, registry, key, record, attempt, lease, found).await;
            Vec::new()
        }
        (Verdict::Commit { status, reason }, found) => {
            let exit = match (reason, &exit) {
                (Reason::Exited, Some(record)) => Exit::recorded(record),
                (Reason::Exited | Reason::ShimLost | Reason::HostLost, _) => {
                    Exit::seen(status, reason)
                }
            };
            commit(core, registry, key, record, attempt, lease, exit, found).await;
            Vec::new()
        }
    }
}

/// A shim that goes on: its process, who that is, and what it says of itself, if it says something.
type Witness = (Shim, Option<ProcessIdentity>, Option<StatusResponse>);

/// Goes on with a run. Answers its place on the bridge.
async fn adopt(
    core: &Arc<Core>,
    registry: &Arc<Registry>,
    key: Key,
    mut record: Record,
    lease: Option<Lease>,
    (shim, identity, status): Witness,
) -> Vec<Endpoint> {
    let run_dir = core.layout.run_dir(&key.namespace, &key.id);
    let said = status.as_ref();
    let pid = said.map_or_else(
        || read_identity(&run_dir.init_identity()).map_or(0, |process| process.pid),
        |status| status.pid,
    );
    if let Some(identity) = identity.as_ref().filter(|_| !run_dir.shim_identity().exists()) {
        // For the daemons after this one: it was found without.
        let _ = std::fs::write(run_dir.shim_identity(), identity.encode());
    }
    if let Err(error) = run::put_back(core, &key, &record) {
        tracing::warn!(container = %key, %error, "what is gone of its run directory");
    }
    updating::settle(core, &key, &record).await;
    let running = Running {
        attempt: record.run.attempts(),
        pid,
        started_at: record
            .started_at
            .or_else(|| said.and_then(started_at))
            .unwrap_or_else(Time::now),
        // Its shim was started for it, and a moment before it.
        up_since: identity.map_or_else(since_boot, |shim| of_start_time(shim.start_time)),
        lease: lease.clone(),
        shim,
    };
    if record.started_at.replace(running.started_at).is_none() {
        // The fact was on its way to the store when the daemon before ended.
        let start = container_event(&key, &record, "start", Vec::new());
        let (namespace, stored) = (key.namespace.to_string(), record.clone());
        core.store.write_soon(move |tx| {
            tx.update_container(&namespace, &stored)?;
            tx.event(start).map(|_| ())
        });
    }
    let paused = said.map_or_else(|| run::is_frozen(core, &key), |status| status.paused);
    // A daemon that was killed in the middle of a commit had them held still. A shim lets go of them when
    // nobody is connected any more; an older one does not, and this daemon may have been too quick.
    if !paused && let Err(error) = run::let_go_on(core, &key) {
        tracing::debug!(container = %key, %error, "not thawed");
    }
    let endpoint = lease.as_ref().map(|lease| run::endpoint(&key, lease));
    let handle = Actor::adopt(core, registry, key, record, running, paused);
    if let Ok(running) = handle.running() {
        tokio::spawn(take_up_execs(Arc::clone(core), handle.clone(), running, status));
    }
    endpoint.into_iter().collect()
}

/// Takes up the execs of a run, once its shim says which they are.
async fn take_up_execs(
    core: Arc<Core>,
    handle: Handle,
    running: Arc<Running>,
    status: Option<StatusResponse>,
) {
    let mut status = status.ok_or(());
    while status.is_err() {
        if running.shim.process.ended(ASK_AGAIN).await {
            return;
        }
        status = running.shim.client.status().await.map_err(drop);
    }
    for id in status.map(|status| status.execs).unwrap_or_default() {
        tokio::spawn(execs::take_up(Arc::clone(&core), handle.clone(), Arc::clone(&running), id));
    }
}

/// The start never got to its exec: everything half made goes, the record stays.
async fn undo(
    core: &Arc<Core>,
    registry: &Arc<Registry>,
    key: Key,
    mut record: Record,
    attempt: u64,
    lease: Option<Lease>,
    found: Found,
) {
    found.end(core, &key).await;
    run::let_go(core, &key, lease.as_ref(), None, attempt).await;
    let gone = run::dismantle(core, &key, None).await;
    record.run = Run::Created {
        attempts: attempt,
        error: Some("bosund ended in the middle of its start, which was undone".to_owned()),
    };
    let (namespace, stored) = (key.namespace.to_string(), record.clone());
    core.store.write_soon(move |tx| tx.update_container(&namespace, &stored));
    let name = record.name.clone();
    go_on_unless(gone, &Actor::spawn(core, registry, key, name, Ok(record)));
}

/// What did not go is tried again by the container's actor.
fn go_on_unless(gone: bool, handle: &Handle) {
    if !gone {
        // The actor ends only after the container is removed.
        let _ = handle.commands.send(Command::Dismantle);
    }
}

/// The run ended while no daemon looked.
#[expect(clippy::too_many_arguments, reason = "the facts of one run, each used once")]
async fn commit(
    core: &Arc<Core>,
    registry: &Arc<Registry>,
    key: Key,
    mut record: Record,
    attempt: u64,
    lease: Option<Lease>,
    exit: Exit,
    found: Found,
) {
    let mut events = Vec::new();
    if record.started_at.is_none() {
        let status = found.living.as_ref().map(|living| &living.status);
        record.started_at = status.and_then(started_at);
        events.push(container_event(&key, &record, "start", Vec::new()));
    }
    if exit.oom_killed {
        events.push(container_event(&key, &record, "oom", Vec::new()));
    }
    let shim = match found.living {
        // Its record is durable, so it only waits for its release.
        Some(Living { shim, .. }) => Some(shim),
        None => {
            found.end(core, &key).await;
            None
        }
    };
    let before = record.clone();
    record.run = Run::Ended { attempt, exit: exit.clone() };
    let auto_remove = record.options.auto_remove;
    let code = vec![("exitCode", exit.status.number().to_string())];
    events.push(container_event(&key, &record, "die", code));
    if auto_remove {
        events.push(container_event(&key, &record, "destroy", Vec::new()));
    }
    let (namespace, stored) = (key.namespace.to_string(), record.clone());
    let committed: Result<()> = core
        .store
        .write(move |tx| {
            for event in events {
                tx.event(event)?;
            }
            if auto_remove {
                tx.remove_snapshot(stored.snapshot)?;
                tx.remove_container(&namespace, &stored)?;
            } else {
                tx.update_container(&namespace, &stored)?;
            }
            Ok(())
        })
        .await;
    if let Err(error) = committed {
        tracing::error!(container = %key, %error, "exit not committed: it is tried again");
        run::let_go(core, &key, lease.as_ref(), None, attempt).await;
        // A shim that lives waits for its release: with it the directory of the run, which says that
        // there was one.
        Actor::spawn_ended(core, registry, key, before, (attempt, exit));
        return;
    }
    let directory = core.layout.container_dir(&key.namespace, &key.id);
    checkpoint::restore::spent(core, &record, &directory);
    run::let_go(core, &key, lease.as_ref(), shim.as_ref(), attempt).await;
    let handle = (!auto_remove).then(|| {
        let name = record.name.clone();
        Actor::spawn(core, registry, key.clone(), name, Ok(record.clone()))
    });
    // What remains needs nobody's waiting, but the snapshot must be free before it is used again.
    let gone = run::dismantle(core, &key, shim.as_ref().map(|shim| &shim.process)).await;
    match handle {
        Some(handle) => go_on_unless(gone, &handle),
        None => remove_rest(core, &key, record.snapshot, gone).await,
    }
}

/// Ends the removal of a container: now, or when what is left of its run is gone.
pub(super) async fn remove_rest(
    core: &Arc<Core>,
    key: &Key,
    snapshot: impl Into<Option<i64>>,
    is_dismantled: bool,
) {
    let snapshot = snapshot.into();
    if is_dismantled {
        return finish_removal(core, key, snapshot).await;
    }
    let (core, key) = (Arc::clone(core), key.clone());
    tokio::spawn(async move {
        run::dismantle_all(&core, &key, None).await;
        finish_removal(&core, &key, snapshot).await;
    });
}

/// When the process was started, as its shim has it.
fn started_at(status: &StatusResponse) -> Option<Time> {
    status.started_at.map(|at| shim_wire::exit::Timestamp::from(at).into())
}

/// Whether the exit record on disk is of this run.
fn is_recorded(core: &Core, key: &Key, attempt: u64) -> bool {
    read_exit_record(core, key).is_some_and(|exit| exit.attempt == attempt)
}

/// Whether there is something of a run.
fn leaves_something(core: &Core, key: &Key) -> bool {
    core.layout.run_dir(&key.namespace, &key.id).path().exists()
        || core.layout.socket_dir(&key.namespace, &key.id).path().exists()
}

/// A container that does not run: nothing of an earlier run may be left. Answers whether all of it is gone.
async fn settle(core: &Arc<Core>, key: &Key, attempt: u64, found: Found) -> bool {
    let shim = found.living.as_ref().map(|living| &living.shim);
    run::let_go(core, key, None, shim, attempt).await;
    match found.living {
        Some(living) => run::dismantle(core, key, Some(&living.shim.process)).await,
        None => {
            found.end(core, key).await;
            run::dismantle(core, key, None).await
        }
    }
}

/// Containers whose removal was committed and not done.
async fn finish_removals(core: &Arc<Core>, registry: &Arc<Registry>) -> Result<()> {
    let removed = core.store.read(|tx| tx.load_unclean()).await.map_err(crate::Error::from)?;
    let census = Census::default();
    for container in removed {
        let (Ok(namespace), Ok(id)) = (container.namespace.parse(), container.id.parse()) else {
            continue;
        };
        let key = Key { namespace, id };
        let gone = match leaves_something(core, &key) {
            true => {
                let found = Found::of(core, &key, &census, ASKED).await;
                settle(core, &key, container.attempts, found).await
            }
            false => true,
        };
        remove_rest(core, &key, container.snapshot, gone).await;
    }
    // After a power cut the note that all is gone may be on the disk, and the directory still as well.
    let mut directories = run::with_directory(core);
    directories.retain(|key| registry.find(&key.namespace, key.id.as_str()).is_err());
    if directories.is_empty() {
        return Ok(());
    }
    let of_removed = core.store.read(move |tx| {
        let mut removed = Vec::new();
        for key in directories {
            if tx.was_removed(key.namespace.as_str(), key.id.as_str())? {
                removed.push(key);
            }
        }
        Ok::<_, crate::store::Error>(removed)
    });
    for key in of_removed.await.map_err(crate::Error::from)? {
        remove_rest(core, &key, None, true).await;
    }
    Ok(())
}

/// State directories that no container owns: of creations that never got to their commit, or of
/// records that are lost.
async fn sweep(core: &Arc<Core>, registry: &Arc<Registry>) {
    run::empty_trash(core);
    let census = Census::default();
    for key in run::left_in_state(core) {
        if registry.find(&key.namespace, key.id.as_str()).is_err() {
            tracing::warn!(container = %key, "left behind without a record: removed");
            Found::of(core, &key, &census, ASKED).await.end(core, &key).await;
            let core = Arc::clone(core);
            if !run::dismantle(&core, &key, None).await {
                tokio::spawn(async move { run::dismantle_all(&core, &key, None).await });
            }
        }
    }
}

/// Ends what is left of a container whose record can't be read, and takes it apart. Answers whether all
/// of that is gone.
///
/// # Errors
/// Its shim lives, and `force` is not set.
pub(super) async fn end_quarantined(
    core: &Core,
    key: &Key,
    name: &str,
    force: bool,
) -> Result<bool> {
    let found = Found::of(core, key, &Census::default(), ASKED).await;
    if found.process().is_some() && !force {
        return Err(crate::Error::StillRunning { id: super::label(name, key.id.as_str()) });
    }
    found.end(core, key).await;
    Ok(run::dismantle(core, key, None).await)
}

/// The shims that live on this machine, by the directories of their containers: looked for once, when one is
/// asked for.
#[derive(Default)]
struct Census(OnceLock<HashMap<PathBuf, ProcessIdentity>>);

impl Census {
    fn find(&self, container_dir: &Path) -> Option<ProcessIdentity> {
        self.0.get_or_init(shim::living).get(container_dir).cloned()
    }
}

/// Has a shim listen again whose sockets are gone, with all that was in the state directory.
async fn summon(core: &Core, key: &Key, process: &ShimProcess) {
    let sockets = core.layout.socket_dir(&key.namespace, &key.id);
    let run_dir = core.layout.run_dir(&key.namespace, &key.id);
    for path in [run_dir.path(), sockets.path()] {
        if let Err(error) = run::make_directory(path) {
            tracing::warn!(container = %key, %error, "a shim can't be found again");
            return;
        }
    }
    tracing::warn!(container = %key, pid = process.pid(), "its sockets are gone: its shim is asked to listen again");
    process.summon();
    let deadline = tokio::time::Instant::now() + SUMMONED;
    let is_over = || sockets.shim().exists() || tokio::time::Instant::now() >= deadline;
    while !is_over() && !process.ended(LOOK).await {}
}

/// What is found of a run by its name.
struct Found {
    identity: Option<ProcessIdentity>,
    living: Option<Living>,
    /// One that lives, takes calls, and does not answer them.
    silent: Option<Shim>,
}

struct Living {
    shim: Shim,
    status: StatusResponse,
}

impl Found {
    async fn of(core: &Core, key: &Key, census: &Census, asked: u32) -> Self {
        let run_dir = core.layout.run_dir(&key.namespace, &key.id);
        let identity = read_identity(&run_dir.shim_identity())
            .or_else(|| census.find(core.layout.container_dir(&key.namespace, &key.id).path()));
        let mut found = Self { identity, living: None, silent: None };
        if let Some(process) = found.process() {
            found.ask(core, key, process, asked).await;
        }
        found
    }

    /// Its shim, if that lives.
    fn process(&self) -> Option<ShimProcess> {
        self.identity.as_ref().and_then(ShimProcess::of_identity)
    }

    /// Asks a shim for its status.
    async fn ask(&mut self, core: &Core, key: &Key, process: ShimProcess, asked: u32) {
        let sockets = core.layout.socket_dir(&key.namespace, &key.id);
        if !sockets.shim().exists() {
            summon(core, key, &process).await;
        }
        let mut silent = None;
        for attempt in 1..=asked {
            match Client::connect(key.id.as_str(), &sockets.shim()).await {
                Ok(client) => match client.status().await {
                    Ok(status) => {
                        let shim = Shim { process, client, sockets };
                        self.living = Some(Living { shim, status });
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(container = %key, %error, attempt, "shim does not answer");
                        silent = Some(client);
                    }
                },
                Err(error) => {
                    tracing::warn!(container = %key, %error, attempt, "shim takes no calls");
                }
            }
            // One that has ended has nothing more to say; one that lives may only be slow.
            if process.ended(PAUSE).await {
                return;
            }
        }
        self.silent = silent.map(|client| Shim { process, client, sockets });
    }

    /// Nobody reaches a shim that lives, whose sockets are lost: ends its container, and waits until it has
    /// written down how.
    async fn have_recorded(&self, core: &Core, key: &Key, attempt: u64) {
        let Some(process) = self.process() else { return };
        run::kill_cgroup(core, key).await;
        let deadline = tokio::time::Instant::now() + LAST_WORD;
        let is_over = || is_recorded(core, key, attempt) || tokio::time::Instant::now() >= deadline;
        while !is_over() && !process.ended(LOOK).await {}
    }

    /// Why a shim that lives can't be talked to: it is of a build that shares no version with ours.
    fn stranger(&self) -> Option<String> {
        let status = &self.living.as_ref()?.status;
        let (own, other) = (shim::understood(), status.versions());
        own.common(other).is_none().then(|| {
            format!(
                "its bosun-shim {} understands versions {} to {} of what this bosund says in {} to {}: it goes on as it is, and can be used by the bosund that it belongs to",
                status.version, other.oldest, other.newest, own.oldest, own.newest
            )
        })
    }

    fn answers(&self) -> Option<lifecycle::Living> {
        use shim_wire::exit::ExitStatus::Unknown;
        let status = &self.living.as_ref()?.status;
        let state = match status.phase() {
            Phase::Empty => ShimState::Empty,
            Phase::Created => ShimState::Created,
            Phase::Running => ShimState::Running,
            Phase::Draining => ShimState::Draining(Unknown),
            Phase::Recording => ShimState::Recording(Unknown),
            Phase::Recorded => ShimState::Recorded(Unknown),
            Phase::Released => ShimState::Released,
        };
        Some(lifecycle::Living { attempt: status.attempt, state })
    }

    /// Ends whatever is left: the shim by its identity, the container by its cgroup.
    async fn end(&self, core: &Core, key: &Key) {
        if let Some(process) = self.process() {
            process.kill();
            process.ended(Duration::from_secs(5)).await;
        }
        run::kill_cgroup(core, key).await;
    }
}
