//! One run of a container: from its intent to a running process, and the undoing of it.
//!
//! The way there is a chain of steps, each leading to something that can be found again by the
//! container's name alone: its address and port sockets ([`Prepared`]), directories, network, shim,
//! task, process ([`Running`]). So there is one way back for a failed start, an ended run and a run
//! that a killed daemon left half made: [`dismantle`], which asks for nothing but the name and does
//! not mind what is missing.

use std::fs::DirBuilder;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use rustix::io::Errno;
use shim_cgroup::Cgroup;
use shim_plan::Writable;
use shim_wire::attach::Hello;
use shim_wire::files::{ContainerDir, RunDir, SocketDir};
use shim_wire::hooks::{Hook, Hooks};
use shim_wire::id::Id;
use shim_wire::lifecycle::Told;
use shim_wire::plan::{CreateOptions, Plan};
use shim_wire::removal::{Dismantle, Erase, LetGo};

use super::peer::{self, Peer};
use super::record::{Lease, Record};
use super::usage::{self, Pressure};
use super::{Key, adopted, foreign, image_mounts, label, random_id, sandbox, scope};

use crate::atomic;
use crate::checkpoint;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::files;
use crate::network::{self, BoundPort, Endpoint, PortOwner};
use crate::plain_file;
use crate::shim::{self, Attached, Client, Launch, ShimProcess};
use crate::snapshots::Layers;
use crate::spec::{self, NetworkMode, PlanPlace, Role};
use crate::time::{Time, since_boot};
use crate::trees;

/// How long a removal waits for a descriptor, and between two tries. A group can't be moved away and
/// removed later: the next run has the same.
const DESCRIPTORS: Duration = Duration::from_secs(20);
const DESCRIPTORS_STEP: Duration = Duration::from_millis(100);

/// When what could not be removed is tried again, and how long that grows to.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_WITHIN: Duration = Duration::from_secs(60);

/// How long a released shim has to let go of the mount namespace: tearing an overlay down writes its
/// upper layer back.
const RELEASE: Duration = Duration::from_secs(60);

/// How long processes have to stand still, and how often it is looked.
const STILL: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(2);

/// How long a hook may take that says nothing of it.
const HOOK_SECONDS: u32 = 60;

/// How long criu may take to restore a container: a little longer than the shim waits for it.
const RESTORE: Duration = Duration::from_secs(630);

/// How long what is left in a cgroup has to die.
const KILL: Duration = Duration::from_secs(5);

/// What must be had before anything is committed: the ports are ours, the address is leased.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub lease: Option<Lease>,
    sockets: Vec<OwnedFd>,
}

/// A container that runs.
#[derive(Debug)]
pub struct Running {
    pub attempt: u64,
    /// Process 1, as the host sees it.
    pub pid: u32,
    pub started_at: Time,
    /// The same moment as CLOCK_BOOTTIME had it, which no step of the clock changes.
    pub up_since: Duration,
    pub lease: Option<Lease>,
    pub shim: Shim,
}

/// A living shim: its process, its calls, its sockets.
#[derive(Debug)]
pub struct Shim {
    pub process: ShimProcess,
    pub client: Client,
    pub sockets: SocketDir,
}

/// Binds the published ports and leases an address.
///
/// # Errors
/// A port is in use; no address is free.
pub(super) fn prepare(core: &Core, record: &Record, owners: &[PortOwner]) -> Result<Prepared> {
    if record.options.network != NetworkMode::Bridge {
        return Ok(Prepared::default());
    }
    let wanted: Vec<network::Publish> =
        record.options.ports.iter().map(network::Publish::from).collect();
    let bound = network::bind_ports(&wanted, owners)?;
    let address = core.network.lease().ok_or_else(|| Error::InvalidArgument {
        what: "network",
        problem: format!(
            "no address is free in subnet {}: remove containers, or start bosund with a wider --subnet",
            core.network.bridge.subnet()
        ),
    })?;
    shim_failpoints::step!("daemon.start.after_ports");
    let (ports, sockets) =
        bound.into_iter().map(|BoundPort { published, socket }| (published, socket)).unzip();
    Ok(Prepared { lease: Some(Lease { address, ports }), sockets })
}

/// A start that failed, and how far it got. Its shim has ended.
#[derive(Debug)]
pub(super) struct Failed {
    pub error: Error,
    pub told: Told,
    /// Process 1, when there was one.
    pub pid: Option<u32>,
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { error: error.into(), told: Told::No, pid: None }
    }
}

/// Everything from the committed intent to a running process.
///
/// # Errors
/// Names the step; what was made is left for [`dismantle`].
pub(super) async fn run(
    core: &Core,
    key: &Key,
    record: &Record,
    attempt: u64,
    start: Start,
) -> std::result::Result<(Running, Option<Attached>), Failed> {
    let Start { prepared, spec, peer, hello } = start;
    let container_dir = core.layout.container_dir(&key.namespace, &key.id);
    let run_dir = core.layout.run_dir(&key.namespace, &key.id);
    let sockets = core.layout.socket_dir(&key.namespace, &key.id);
    let layers = layers(core, record).await?;
    files::fill_volumes(record, container_dir.path(), &layers.lower).await?;
    let scope = scope::of(&record.options.cgroup_parent, key)?;
    let cgroup = chosen_cgroup(core, key, &record.options)?;
    let log = container_dir.json_log(&record.id);
    let context = spec::plan_context(
        &record.options,
        PlanPlace {
            id: &record.id,
            bundle: container_dir.path(),
            attempt,
            layers: plan_layers(&layers, record.options.auto_remove || record.options.once),
            log: &log,
            cgroup: &cgroup,
        },
    );
    let mut parsed: oci_spec::runtime::Spec =
        serde_json::from_str(&spec).map_err(crate::store::Error::from)?;
    let joined = spec::Joined {
        namespaces: peer.as_ref().map(Peer::shared).unwrap_or_default(),
        mounts: image_mounts::mounts(core, key, record).await?,
    };
    peer::share(&mut parsed, &joined.namespaces);
    if !joined.mounts.is_empty() {
        parsed.mounts_mut().get_or_insert_default().extend(joined.mounts.iter().cloned());
    }
    let (mut create, mut plan) = shim_plan::plan(&parsed, &context)?;
    create.protocol = shim::understood().newest;
    create.restore = checkpoint::restore::pending(&container_dir, &record.options)?;
    if let Role::Sandbox(sandbox) = &record.options.role {
        sandbox::lower(sandbox, &mut create, &mut plan);
    }
    if has_default_profile(&parsed) {
        core.confine().await?;
    }
    let address = prepared.lease.as_ref().map(|lease| lease.address);
    write_files(record, &container_dir, &run_dir, &spec, &plan, address)?;
    let hooks = shim_plan::hooks(&parsed, &context)?;
    if let Some(hooks) = &hooks {
        write_file(&run_dir.hooks(), &hooks.encode_to_vec(), 0o600)?;
    }
    if let Some(root) = spec::hooks_see_root(&parsed, container_dir.path()) {
        make_directory(&root)?;
    }
    let patience = hooks.as_ref().map(patience).unwrap_or_default();
    let patience = if create.restore.is_some() { patience + RESTORE } else { patience };
    // A sandbox without a process has no group.
    let has_group = create.sandbox.is_none();
    if has_group {
        note_cgroup(core, key, record)?;
    }
    if let Some(stock) = core.config.runtimes.find(&record.options.runtime)? {
        let foreign = foreign::prepare(record, &stock, &run_dir, &layers, &spec, joined).await?;
        create.foreign = Some(foreign);
    }
    shim_failpoints::step!("daemon.start.after_files", error);
    let namespace = network(core, key, &prepared, peer.as_ref()).await?;
    shim_failpoints::step!("daemon.start.after_network", error);
    let shim_cgroup = shim_cgroup(core, key);
    let process = shim::launch(&Launch {
        program: &core.shim,
        namespace: &key.namespace,
        id: &key.id,
        container_dir: &container_dir,
        run_dir: &run_dir,
        socket_dir: &sockets,
        cgroup: &shim_cgroup,
        network_namespace: namespace.as_ref().map(AsFd::as_fd),
        port_sockets: &prepared.sockets,
    })
    .map_err(|source| shim_failed(record, source))?;
    shim_failpoints::step!("daemon.start.after_spawn");
    let place = Place { sockets: &sockets, container_dir: &container_dir, patience };
    let keeper = match scope.filter(|_| has_group) {
        None => None,
        Some(scope) => {
            let limits = create.resources.clone().unwrap_or_default();
            match scope::start(core, scope, limits).await {
                Ok(keeper) => Some(keeper),
                Err(error) => {
                    process.kill();
                    process.ended(KILL).await;
                    return Err(error.into());
                }
            }
        }
    };
    shim_failpoints::step!("daemon.start.after_scope");
    let built = build(key, record, &place, &create, peer.as_ref(), hello, &process).await;
    // The container's own process is in there by now, or nothing is to be.
    drop(keeper);
    match built {
        Ok((client, pid, attached)) => {
            let running = Running {
                attempt,
                pid,
                started_at: Time::now(),
                up_since: since_boot(),
                lease: prepared.lease,
                shim: Shim { process, client, sockets },
            };
            Ok((running, attached))
        }
        Err(failed) => {
            // Its end is waited for here, where it can still be reaped.
            process.kill();
            process.ended(KILL).await;
            Err(failed)
        }
    }
}

fn has_default_profile(spec: &oci_spec::runtime::Spec) -> bool {
    let process = spec.process().as_ref();
    let profile = process.and_then(|process| process.apparmor_profile().as_deref());
    profile == Some(crate::apparmor::DEFAULT)
}

/// Where a shim and its files are.
struct Place<'a> {
    sockets: &'a SocketDir,
    container_dir: &'a ContainerDir,
    /// What hooks and criu may take, beside the rest.
    patience: Duration,
}

async fn publish_network(
    key: &Key,
    record: &Record,
    process: &ShimProcess,
    client: &Client,
) -> Result<()> {
    let status = client.status().await.map_err(|source| shim_failed(record, source))?;
    sandbox::publish_network(key, process.pid(), &status)
}

/// What a start needs beside the record.
#[derive(Debug, Default)]
pub(super) struct Start {
    pub prepared: Prepared,
    /// The OCI spec as JSON.
    pub spec: String,
    pub peer: Option<Peer>,
    /// Attach a client before the process goes on to its exec.
    pub hello: Option<Hello>,
}

/// What is asked of a shim that was just spawned, up to a running process.
async fn build(
    key: &Key,
    record: &Record,
    place: &Place<'_>,
    create: &CreateOptions,
    peer: Option<&Peer>,
    hello: Option<Hello>,
    process: &ShimProcess,
) -> std::result::Result<(Client, u32, Option<Attached>), Failed> {
    let failed = |source| shim_failed(record, source);
    let client = Client::connect(key.id.as_str(), &place.sockets.shim()).await.map_err(failed)?;
    let (bundle, patience) = (place.container_dir.path(), place.patience);
    let pid = client.create(bundle, create, patience).await.map_err(failed)?;
    shim_failpoints::step!("daemon.start.after_create", error);
    let of_process = |told| move |error| Failed { error, told, pid: Some(pid) };
    let attached = match hello {
        None => None,
        Some(hello) => {
            let attached = shim::attach(place.sockets, &hello).await;
            Some(attached.map_err(failed).map_err(of_process(Told::No))?)
        }
    };
    // Of one that is restored the first process is there with its start.
    let pid = match client.start("", patience).await {
        Ok(pid) => pid,
        Err(source) => {
            let told = match source {
                shim::Error::Refused { .. } => Told::No,
                shim::Error::Gone { .. }
                | shim::Error::Io { .. }
                | shim::Error::TimedOut { .. }
                | shim::Error::Malformed { .. }
                | shim::Error::AttachRefused { .. } => Told::Unanswered,
            };
            return Err(of_process(told)(failed(source)));
        }
    };
    let of_process = |told| move |error| Failed { error, told, pid: Some(pid) };
    shim_failpoints::step!("daemon.start.after_start");
    if let Some(error) = peer.and_then(|peer| peer.check().err()) {
        // What was found at its path may have been somebody else's.
        return Err(of_process(Told::No)(error));
    }
    if record.is_sandbox() {
        publish_network(key, record, process, &client).await.map_err(of_process(Told::No))?;
    }
    Ok((client, pid, attached))
}

/// The OCI spec of a container, from what was asked for.
///
/// # Errors
/// Options that can't be met.
pub(super) fn generate(
    core: &Core,
    key: &Key,
    options: &spec::ContainerOptions,
) -> Result<spec::Generated> {
    let cgroup = chosen_cgroup(core, key, options)?;
    let run_dir = core.layout.run_dir(&key.namespace, &key.id);
    let container_dir = core.layout.container_dir(&key.namespace, &key.id);
    Ok(spec::generate(
        options,
        &spec::Surroundings {
            id: key.id.as_str(),
            cgroup: &cgroup,
            etc: run_dir.path(),
            container_dir: container_dir.path(),
            own_directories: &[core.config.root.clone(), core.config.state.clone()],
            machine: &core.machine,
        },
    )?)
}

pub(super) async fn layers(core: &Core, record: &Record) -> Result<Layers> {
    let mut layers = match &record.options.rootfs {
        Some(directory) => core.snapshots.materialize(record.snapshot, directory)?,
        None => core.snapshots.layers_of_number(record.snapshot).await?,
    };
    if layers.lower.is_empty() {
        // An image without layers.
        layers.lower.push(core.layout.nothing());
    }
    Ok(layers)
}

/// The layers as the plan has them. What dies with the container is never synced.
fn plan_layers(layers: &Layers, dies: bool) -> shim_plan::Layers {
    let text = |path: &std::path::PathBuf| path.to_string_lossy().into_owned();
    shim_plan::Layers::Overlay {
        lower: layers.lower.iter().map(text).collect(),
        writable: layers.upper.as_ref().map(|(upper, work)| Writable {
            upper: text(upper),
            work: text(work),
            volatile: dies,
        }),
    }
}

/// The network namespace to hand over: a new one on the bridge, another container's, or none.
async fn network(
    core: &Core,
    key: &Key,
    prepared: &Prepared,
    peer: Option<&Peer>,
) -> Result<Option<OwnedFd>> {
    if let Some(path) = peer.and_then(Peer::network) {
        let namespace = std::fs::File::open(path).map_err(Error::file("open", path))?;
        return Ok(Some(namespace.into()));
    }
    let Some(lease) = &prepared.lease else { return Ok(None) };
    Ok(Some(core.network.bridge.attach(&endpoint(key, lease)).await?.netns))
}

/// A container's place on the bridge.
pub(super) fn endpoint(key: &Key, lease: &Lease) -> Endpoint {
    Endpoint {
        namespace: key.namespace.clone(),
        id: key.id.clone(),
        address: lease.address,
        ports: lease.ports.clone(),
    }
}

/// Makes the directories and writes spec, options, plan and the files of `/etc`.
fn write_files(
    record: &Record,
    container_dir: &ContainerDir,
    run_dir: &RunDir,
    spec: &str,
    plan: &Plan,
    address: Option<Ipv4Addr>,
) -> Result<()> {
    for path in [container_dir.path(), run_dir.path()] {
        make_directory(path)?;
    }
    write_file(&container_dir.config(), spec.as_bytes(), 0o600)?;
    let options = serde_json::to_vec_pretty(&record.options).map_err(crate::store::Error::from)?;
    write_file(&container_dir.options(), &options, 0o600)?;
    write_file(&run_dir.plan(), &plan.encode_to_vec(), 0o600)?;
    let root = record.options.users().and_then(|users| users.root());
    if record.is_sandbox() {
        sandbox::make_shared_memory(run_dir, root)?;
    }
    for (name, content) in spec::etc_files(&record.options, &record.id, address) {
        let path = run_dir.etc(name);
        write_file(&path, content.as_bytes(), 0o644)?;
        // The container's root writes to them, as everywhere.
        if let Some((uid, gid)) = root {
            chown(&path, Some(uid), Some(gid)).map_err(Error::file("give away", &path))?;
        }
    }
    Ok(())
}

/// How long all hooks together may take.
fn patience(hooks: &Hooks) -> Duration {
    let seconds = |hook: &Hook| if hook.timeout == 0 { HOOK_SECONDS } else { hook.timeout };
    Duration::from_secs(hooks.hooks.iter().map(|hook| u64::from(seconds(hook))).sum())
}

/// Brings the files of a container's directory up to date with an update, where they are already; the
/// next start writes them anyway.
pub(super) fn rewrite_spec(core: &Core, key: &Key, record: &Record, spec: &str) {
    let container_dir = core.layout.container_dir(&key.namespace, &key.id);
    if !container_dir.config().exists() {
        return;
    }
    let rewritten = serde_json::to_vec_pretty(&record.options)
        .map_err(|error| Error::from(crate::store::Error::from(error)))
        .and_then(|options| write_file(&container_dir.options(), &options, 0o600))
        .and_then(|()| write_file(&container_dir.config(), spec.as_bytes(), 0o600));
    if let Err(error) = rewritten {
        tracing::warn!(container = %key, %error, "its files show the limits that were");
    }
}

pub(super) fn make_directory(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(Error::file("make directory", path))
}

pub(super) fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    atomic::write(path, content, mode).map_err(Error::file("write", path))
}

/// The cgroup that a container is to have.
fn chosen_cgroup(core: &Core, key: &Key, options: &spec::ContainerOptions) -> Result<String> {
    if let Some(scope) = scope::of(&options.cgroup_parent, key)? {
        return Ok(scope.path);
    }
    Ok(match options.cgroup_parent.trim_matches('/') {
        "" => own_cgroup(core, key),
        parent => format!("{parent}/{}", key.id),
    })
}

/// The group of a pod, which is its kubelet's: the parent of its containers' ones.
fn pod_cgroup(key: &Key, options: &spec::ContainerOptions) -> Option<String> {
    match scope::of(&options.cgroup_parent, key).ok()? {
        Some(scope) => scope.path.rsplit_once('/').map(|(slice, _)| slice.to_owned()),
        None => {
            Some(options.cgroup_parent.trim_matches('/').to_owned()).filter(|path| !path.is_empty())
        }
    }
}

/// What the processes of a pod waited for, where it has a group of its own.
pub(super) fn pod_pressure(core: &Core, key: &Key, record: &Record) -> Option<Pressure> {
    let path = pod_cgroup(key, &record.options)?;
    let group = Cgroup::new(&core.cgroups, &path).ok()?;
    match group.metrics().ok()? {
        shim_cgroup::Metrics::V1(_) => None,
        shim_cgroup::Metrics::V2(metrics) => usage::pressure(&metrics),
    }
}

/// The cgroup of a container, of which there is nothing but the name and what its run has left.
pub(super) fn container_cgroup(core: &Core, key: &Key) -> String {
    let run_dir = core.layout.run_dir(&key.namespace, &key.id);
    let other = plain_file::read_text(&cgroup_file(&run_dir), plain_file::NOTE).ok();
    // A file that a full disk cut would lead to what is somebody else's.
    let own = |path: &String| path.ends_with(&format!("/{}", key.id)) || scope::is_of(path, key);
    other.filter(own).unwrap_or_else(|| own_cgroup(core, key))
}

/// A container's place in bosun's own part of the tree.
fn own_cgroup(core: &Core, key: &Key) -> String {
    format!("{}/{}/{}", core.config.cgroup_prefix, key.namespace, key.id)
}

/// Notes where the group of a run is to be found when nothing but its name is known, if it is not at bosun's own
/// place.
fn note_cgroup(core: &Core, key: &Key, record: &Record) -> Result<()> {
    if record.options.cgroup_parent.is_empty() {
        return Ok(());
    }
    let run_dir = core.layout.run_dir(&key.namespace, &key.id);
    let cgroup = chosen_cgroup(core, key, &record.options)?;
    write_file(&cgroup_file(&run_dir), cgroup.as_bytes(), 0o600)
}

/// Puts back what a run that goes on needs of its run directory, where that was emptied. The files of `/etc` are in
/// its mounts.
pub(super) fn put_back(core: &Core, key: &Key, record: &Record) -> Result<()> {
    let run_dir = core.layout.run_dir(&key.namespace, &key.id);
    let has_group = match &record.options.role {
        Role::Sandbox(sandbox) => sandbox.share_pid,
        Role::Alone | Role::Member(_) => true,
    };
    if has_group && !cgroup_file(&run_dir).exists() {
        note_cgroup(core, key, record)?;
    }
    if record.is_sandbox() && !run_dir.shared_memory().exists() {
        let root = record.options.users().and_then(|users| users.root());
        sandbox::make_shared_memory(&run_dir, root)?;
    }
    Ok(())
}

/// Where a run notes its cgroup, when that is not at bosun's own place.
fn cgroup_file(run_dir: &RunDir) -> std::path::PathBuf {
    run_dir.path().join("cgroup")
}

/// The cgroup of a container's shim.
pub(super) fn shim_cgroup(core: &Core, key: &Key) -> String {
    format!("{}-shims/{}/{}", core.config.cgroup_prefix, key.namespace, key.id)
}

fn shim_failed(record: &Record, source: shim::Error) -> Error {
    Error::Shim { id: label(&record.name, &record.id), source: Arc::new(source) }
}

/// The first part of taking a run apart. The network is detached while the shim still holds the ports.
pub(super) async fn let_go(
    core: &Core,
    key: &Key,
    lease: Option<&Lease>,
    shim: Option<&Shim>,
    attempt: u64,
) {
    for step in LetGo::ORDER {
        match (step, lease, shim) {
            (LetGo::Network, Some(lease), _) => detach(core, key, lease).await,
            (LetGo::Release, _, Some(shim)) => release(key, shim, attempt).await,
            (LetGo::Network, None, _) | (LetGo::Release, _, None) => {}
        }
    }
}

async fn detach(core: &Core, key: &Key, lease: &Lease) {
    let (network, endpoint) = (Arc::clone(&core.network), endpoint(key, lease));
    match network.bridge.detach(&endpoint).await {
        Ok(()) => network.free(endpoint.address),
        Err(error) => {
            tracing::warn!(container = %key, %error, "network not detached: it is tried again");
            // Nobody else gets the address as long as ports may lead to it.
            tokio::spawn(async move {
                let release = || async { network.bridge.release_ports(&endpoint).await.is_ok() };
                again_and_again(release).await;
                network.free(endpoint.address);
            });
        }
    }
    shim_failpoints::step!("daemon.stop.after_detach");
}

async fn release(key: &Key, shim: &Shim, attempt: u64) {
    match shim.client.release(attempt).await {
        // A shim that is gone needs no release.
        Ok(()) | Err(shim::Error::Gone { .. }) => {}
        Err(error) => {
            tracing::warn!(container = %key, %error, "shim not released, killing it");
            shim.process.kill();
        }
    }
    shim_failpoints::step!("daemon.stop.after_release");
}

/// The rest of it. Asks for nothing but the name; what is missing is fine. Answers whether all of it is
/// gone: a control group may stay, of processes that sleep where no signal reaches them, and with it the
/// run directory, by which it is found again.
#[must_use]
pub(super) async fn dismantle(core: &Core, key: &Key, shim: Option<&ShimProcess>) -> bool {
    for step in Dismantle::ORDER {
        match step {
            Dismantle::ShimEnd => wait_for_shim(key, shim).await,
            Dismantle::Cgroups => {
                shim_failpoints::step!("daemon.stop.before_cgroups");
                let container = container_cgroup(core, key);
                if !remove_cgroup(core, container.clone()).await {
                    return false;
                }
                scope::forget(&container).await;
                if !remove_cgroup(core, shim_cgroup(core, key)).await {
                    return false;
                }
            }
            Dismantle::NetworkName => sandbox::withdraw_network(key),
            Dismantle::Sockets => {
                shim_failpoints::step!("daemon.stop.before_run_directories");
                remove_of_run(core, core.layout.socket_dir(&key.namespace, &key.id).path());
            }
            Dismantle::RunDirectory => {
                remove_of_run(core, core.layout.run_dir(&key.namespace, &key.id).path());
            }
        }
    }
    true
}

/// As [`dismantle`], until all of it is gone. Whoever wants to run the container again waits for that.
pub(super) async fn dismantle_all(core: &Core, key: &Key, shim: Option<&ShimProcess>) {
    if !dismantle(core, key, shim).await {
        again_and_again(|| dismantle(core, key, None)).await;
    }
}

async fn wait_for_shim(key: &Key, shim: Option<&ShimProcess>) {
    let Some(shim) = shim else { return };
    if !shim.ended(RELEASE).await {
        tracing::warn!(container = %key, pid = shim.pid(), "shim hangs at its end, killing it");
        shim.kill();
        shim.ended(RELEASE).await;
    }
}

/// Removes what outlives a run: the container's directory and its snapshot's, and notes it.
pub(super) async fn erase(core: &Core, key: &Key, snapshot: Option<i64>) -> Result<()> {
    for step in Erase::ORDER {
        match step {
            Erase::ContainerDirectory => {
                shim_failpoints::step!("daemon.delete.before_container_directory", error);
                let directory = core.layout.container_dir(&key.namespace, &key.id);
                // Half of it would be a container that lost its record.
                let trash = core.layout.trash().join(format!("container-{}", key.id));
                let _ = std::fs::rename(directory.path(), &trash);
                for path in [&trash, directory.path()] {
                    trees::remove(path).map_err(Error::file("remove", path))?;
                }
            }
            Erase::Snapshot => {
                if let Some(number) = snapshot {
                    core.snapshots.discard(number).await?;
                }
            }
            Erase::Noted => {
                let (namespace, id) = (key.namespace.to_string(), key.id.to_string());
                core.store.write_soon(move |tx| tx.container_cleaned(&namespace, &id));
            }
        }
    }
    Ok(())
}

/// Removes the inner nodes of our cgroups that no container needs. What still has processes stays.
pub async fn remove_empty_cgroups(core: &Core) {
    let prefix = core.config.cgroup_prefix.clone();
    for path in [prefix.clone(), format!("{prefix}-shims")] {
        in_cgroup(core, path, "remove", |cgroup| cgroup.remove(Instant::now() + KILL)).await;
    }
}

/// Stops the processes of a container, and waits until they stand.
pub(super) async fn freeze(core: &Core, key: &Key) -> Result<()> {
    let (layout, path) = (core.cgroups.clone(), container_cgroup(core, key));
    let label = key.id.to_string();
    tokio::task::spawn_blocking(move || {
        let freeze = |cgroup: Cgroup| {
            cgroup.freeze(true)?;
            let deadline = Instant::now() + STILL;
            // Who does not stand still by then sleeps where nothing wakes it: it writes nothing either.
            while !cgroup.is_frozen() && Instant::now() < deadline {
                std::thread::sleep(STEP);
            }
            Ok(())
        };
        Cgroup::new(&layout, &path).and_then(freeze).map_err(not_frozen(label))
    })
    .await
    .unwrap_or(Err(Error::Stopping))
}

/// Lets the processes of a container go on: one write, which is waited for.
///
/// # Errors
/// Its group is gone.
pub fn let_go_on(core: &Core, key: &Key) -> Result<()> {
    Cgroup::new(&core.cgroups, &container_cgroup(core, key))
        .and_then(|cgroup| cgroup.freeze(false))
        .map_err(not_frozen(key.id.to_string()))
}

/// Whether the processes of a container stand still.
pub(super) fn is_frozen(core: &Core, key: &Key) -> bool {
    Cgroup::new(&core.cgroups, &container_cgroup(core, key)).is_ok_and(|cgroup| cgroup.is_frozen())
}

fn not_frozen(id: String) -> impl FnOnce(shim_cgroup::Error) -> Error {
    |source| Error::Freeze { id, source: Arc::new(source) }
}

/// Kills everything in a container's cgroup.
pub(super) async fn kill_cgroup(core: &Core, key: &Key) {
    let path = container_cgroup(core, key);
    in_cgroup(core, path, "kill", |cgroup| cgroup.kill(Instant::now() + KILL)).await;
}

/// Answers whether it is gone.
async fn remove_cgroup(core: &Core, path: String) -> bool {
    in_cgroup(core, path, "remove", |cgroup| {
        let deadline = Instant::now() + DESCRIPTORS;
        loop {
            match kill_and_remove(cgroup) {
                Err(error) if no_descriptor(&error) && Instant::now() < deadline => {
                    std::thread::sleep(DESCRIPTORS_STEP);
                }
                done => return done,
            }
        }
    })
    .await
}

fn kill_and_remove(cgroup: &Cgroup) -> std::result::Result<(), shim_cgroup::Error> {
    if cgroup.exists() {
        let left = cgroup.procs()?;
        cgroup.kill(Instant::now() + KILL)?;
        // A stock shim whose own shim died is ours to reap.
        adopted::take_all(&left);
        cgroup.remove(Instant::now() + KILL)?;
    }
    Ok(())
}

/// Whether this process, or the machine, has no descriptor left.
fn no_descriptor(error: &shim_cgroup::Error) -> bool {
    matches!(error.errno(), Some(Errno::MFILE | Errno::NFILE))
}

async fn in_cgroup(
    core: &Core,
    path: String,
    step: &'static str,
    work: impl FnOnce(&Cgroup) -> std::result::Result<(), shim_cgroup::Error> + Send + 'static,
) -> bool {
    let layout = core.cgroups.clone();
    let name = path.clone();
    let outcome = tokio::task::spawn_blocking(move || {
        Cgroup::new(&layout, &path).and_then(|cgroup| work(&cgroup))
    })
    .await;
    if let Ok(Err(error)) = &outcome {
        tracing::warn!(cgroup = name, %error, step, "cgroup");
    }
    matches!(outcome, Ok(Ok(())))
}

/// Removes a directory of a run. It is moved away first: the next run may have one of that name before
/// all of this one is gone.
fn remove_of_run(core: &Core, path: &Path) {
    let trash = core.layout.state_trash().join(random_id());
    match std::fs::rename(path, &trash) {
        Ok(()) if removed(&trash) => {}
        Ok(()) => drop(tokio::spawn(again_and_again(move || {
            let trash = trash.clone();
            async move { removed(&trash) }
        }))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "not removed"),
    }
}

/// What an earlier daemon had moved away and did not get to remove.
pub(super) fn empty_trash(core: &Core) {
    for entry in std::fs::read_dir(core.layout.state_trash()).into_iter().flatten().flatten() {
        removed(&entry.path());
    }
}

fn removed(path: &Path) -> bool {
    let removed = trees::remove(path);
    if let Err(error) = &removed {
        tracing::warn!(path = %path.display(), %error, "not removed: tried again");
    }
    removed.is_ok()
}

/// Tries something until it is done, ever more rarely.
pub(super) async fn again_and_again<F: Future<Output = bool>>(mut attempt: impl FnMut() -> F) {
    let mut pause = AGAIN_AFTER;
    loop {
        tokio::time::sleep(pause).await;
        if attempt().await {
            break;
        }
        pause = (pause * 2).min(AGAIN_WITHIN);
    }
}

/// The ids of containers that left something in the state directory.
pub(super) fn left_in_state(core: &Core) -> Vec<Key> {
    named_below(&core.layout.state().join("containers"))
}

/// The containers that have a directory below the root.
pub(super) fn with_directory(core: &Core) -> Vec<Key> {
    named_below(&core.layout.root().join("containers"))
}

fn named_below(containers: &Path) -> Vec<Key> {
    let mut keys = Vec::new();
    let names = |path: &Path| -> Vec<Id> {
        std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    };
    for namespace in names(containers) {
        for id in names(&containers.join(namespace.as_str())) {
            keys.push(Key { namespace: namespace.clone(), id });
        }
    }
    keys
}
