//! The daemon: metadata, snapshots, network and supervision, served over gRPC.
//!
//! ```text
//!   api ──▶ container::Supervisor ──▶ actor per container ──▶ shim (a process of its own)
//!    │             │                        │
//!    └─▶ snapshots └─▶ registry, requests   ├─▶ spec, shim-plan   what to run
//!        content, leases                    │
//!              │                            ├─▶ network           bridge, ports
//!              └────────▶ store ◀───────────┘   SQLite, group commit, events
//! ```
//!
//! | module | owns |
//! |---|---|
//! | `config`, `layout` | flags and file; directories and the lock on the root |
//! | `store` | durable metadata and the numbered events |
//! | `snapshots` | layers of files |
//! | `content` | blobs by digest, ingests that resume |
//! | `leases` | what holds snapshots and blobs |
//! | `images` | names, pull, push, archives |
//! | `gc` | what nothing reaches |
//! | `fsck` | everything below a root, looked at while no daemon runs |
//! | `files` | what is in a container's tree: diff, export, cp |
//! | `spec` | from a request to an OCI spec |
//! | `apparmor` | the profile of containers that ask for none |
//! | `network` | the bridge, published ports |
//! | `shim` | shims as seen from here: launch, calls, streams, end |
//! | `container` | records, states, runs, recovery |
//! | `events` | following what is stored and what comes |
//! | `requests`, `turns` | repeated calls; one at a time |
//! | `blocking` | work on files, off the threads that serve |
//! | `atomic`, `plain_file` | the daemon's own small files, written and read |
//! | `directories` | made on the host, for others to go through |
//! | `trees`, `pipe` | files that containers made; archives on their way |
//! | `logs` | reading what shims write |
//! | `api` | the gRPC server, and the face of `bosun.v1` |
//! | `cri` | the face of kubelets, `runtime.v1` |
//!
//! What never happens here: a container's bytes are not kept, its pty is not held, its exit is not
//! known before its shim has made it durable. So this process may die at any moment.
#![forbid(unsafe_code)]

pub mod api;
pub mod apparmor;
mod atomic;
pub mod blocking;
pub mod checkpoint;
pub mod config;
pub mod container;
pub mod content;
pub mod core;
pub mod cri;
mod descriptors;
mod directories;
pub mod error;
pub mod events;
pub mod files;
pub mod fsck;
pub mod gc;
pub mod images;
pub mod layout;
pub mod leases;
pub mod logs;
pub mod network;
pub mod pipe;
mod plain_file;
pub mod requests;
pub mod runtimes;
pub mod shim;
pub mod snapshots;
pub mod spec;
pub mod store;
pub mod time;
pub mod trees;
pub mod turns;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

pub use config::{Config, Flags};
pub use error::{Error, Result};

use crate::container::{Phase, Supervisor};
use crate::content::Content;
use crate::core::{Core, Network};
use crate::gc::Collector;
use crate::images::{Images, Parts};
use crate::layout::Layout;
use crate::leases::Leases;
use crate::network::{Bridge, Settings};
use crate::snapshots::Snapshots;
use crate::store::Store;
use crate::time::Time;
use crate::turns::Turns;

/// What keeps the daemon from serving.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Layout(#[from] layout::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("cgroups: {0}")]
    Cgroups(#[from] shim_cgroup::Error),
    #[error("machine: {0}")]
    Machine(#[from] spec::Error),
    #[error("{}", api::sentence(.0))]
    Core(#[from] Error),
    #[error(transparent)]
    Api(#[from] api::Error),
    #[error(transparent)]
    Shim(#[from] shim::Error),
    #[error("become the subreaper of shims: {0}")]
    Subreaper(std::io::Error),
}

/// Where the locks of bridges lie: the same for all daemons of a machine, and root's alone.
const LOCKS: &str = "/run";

/// How long a daemon that is asked to stop waits for the disk.
const SYNC: std::time::Duration = std::time::Duration::from_secs(5);

/// Takes the root, takes up what an earlier daemon left, serves until `stop` is done, and lets the
/// calls under way come to their end. Containers go on.
///
/// # Errors
/// Names what is in the way.
pub async fn run(
    config: Config,
    stop: impl Future<Output = ()>,
) -> std::result::Result<(), Failure> {
    let layout = Layout::new(&config.root, &config.state);
    let _lock = layout.lock()?;
    layout.make()?;
    layout.claim_prefix(&config.cgroup_prefix)?;
    // What a dying shim leaves is ours to reap, and its exit code ours to keep.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|errno| Failure::Subreaper(errno.into()))?;
    let store = Store::open(&layout.database())?;
    let cgroups = shim_cgroup::Layout::detect()?;
    let machine = spec::Machine::read()?;
    let (bridge, warnings) = Bridge::open(Settings {
        bridge: config.bridge.clone(),
        subnet: config.subnet,
        lock_directory: PathBuf::from(LOCKS),
    })
    .await
    .map_err(Error::from)?;
    let warnings: Vec<String> =
        warnings.iter().map(ToString::to_string).chain(machine.apparmor.warning()).collect();
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    // Some milliseconds of one CPU that the first container need not wait for.
    tokio::task::spawn_blocking({
        let machine = machine.clone();
        move || spec::warm_up(&machine)
    });
    let listener = api::bind(&config.address, config.group.as_deref())?;
    let snapshots = Snapshots::new(store.clone(), layout.snapshots(), layout.trash());
    let content = Content::new(store.clone(), &layout.content());
    let leases = Leases::new(store.clone());
    let collector = Collector::new(store.clone(), content.clone(), snapshots.clone());
    let images = Images::new(Parts {
        store: store.clone(),
        content: content.clone(),
        snapshots: snapshots.clone(),
        leases: leases.clone(),
        collector: collector.clone(),
        registry: registry(&config),
    });
    let mended = store.mended();
    if !mended.findings.is_empty() {
        images.restore(mended.is_rebuilt).await?;
        store.is_put_right()?;
        shim_failpoints::step!("daemon.rebuild.after_note");
    }
    let core = Arc::new(Core {
        shim: shim::Program::open(&config.shim)?,
        snapshots,
        content,
        leases,
        images,
        collector,
        trees: Turns::default(),
        processes: Turns::default(),
        network: Arc::new(Network::new(bridge)),
        config,
        layout,
        store,
        cgroups,
        machine,
        apparmor: apparmor::DefaultProfile::default(),
    });
    tokio::spawn({
        let core = Arc::clone(&core);
        async move {
            // The first container need not wait for it; it is told why it has none.
            if let Err(error) = core.confine().await {
                tracing::warn!(%error, "containers that are to have it can't start");
            }
        }
    });
    let supervisor = Supervisor::recover(Arc::clone(&core)).await?;
    let mut background = keep_house(&core);
    tracing::info!(address = %core.config.address.display(), "serving");
    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let about = api::About { started_at: Time::now(), warnings };
    let mut failed = None;
    let ended = async {
        tokio::select! {
            () = stop => {}
            error = core.store.failed() => failed = Some(error),
        }
    };
    api::serve(Arc::clone(&supervisor), about, listener, ended).await?;
    let _ = std::fs::remove_file(&core.config.address);
    background.abort_all();
    if let Some(error) = failed {
        // What is not stored now is found out again by the next daemon.
        return Err(error.into());
    }
    leave(&core, &supervisor).await;
    Ok(())
}

/// The client of registries, as this daemon is configured.
fn registry(config: &Config) -> bosun_registry::Registry {
    bosun_registry::Registry::new(bosun_registry::Options {
        certs_dirs: vec![config.certs_dir.clone()],
        user_agent: concat!("bosun/", env!("CARGO_PKG_VERSION")).to_owned(),
        ..bosun_registry::Options::default()
    })
}

/// What goes on beside all calls: layers come to the disk, garbage goes.
fn keep_house(core: &Arc<Core>) -> tokio::task::JoinSet<()> {
    let mut background = tokio::task::JoinSet::new();
    let snapshots = core.snapshots.clone();
    background.spawn(async move { snapshots.serve().await });
    let collector = core.collector.clone();
    collector.nudge();
    background.spawn(async move { collector.serve().await });
    background
}

/// The last acts of a daemon that was asked to stop: what is not stored yet is stored, and when
/// nothing runs the bridge and the empty cgroups go too. They are made again when they are needed.
async fn leave(core: &Core, supervisor: &Supervisor) {
    // Not for long: what is not on the disk is unpacked again, should the machine go down.
    let synced = tokio::time::timeout(SYNC, core.snapshots.make_durable()).await;
    if let Ok(Err(error)) = synced {
        tracing::error!(%error, "unpacked layers may not be on the disk");
    }
    let flushed: Result<()> = core.store.write(|_| Ok(())).await;
    if let Err(error) = flushed {
        tracing::error!(%error, "last facts not stored");
    }
    // Of one that is quarantined it is not known.
    let may_run = |phase: &Phase| match phase {
        Phase::Running(_) | Phase::Paused(_) | Phase::Starting | Phase::Quarantined(_) => true,
        Phase::Created | Phase::Exited(_) | Phase::Removed(_) => false,
    };
    if supervisor.all().iter().any(|handle| may_run(&handle.view().phase)) {
        return;
    }
    if let Err(error) = core.network.bridge.remove_all().await {
        tracing::warn!(%error, "bridge not removed");
    }
    container::remove_empty_cgroups(core).await;
}
