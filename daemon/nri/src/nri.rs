//! All plugins of a runtime: how they come in, how they are asked, how they go.
//!
//! ```text
//!   directory ─▶ launch ─┐
//!                        ├─▶ register, configure ─▶ synchronize ─▶ asked, in the order of the indexes
//!   socket ─▶ accept ────┘                                          └─▶ closed, or its connection ends
//! ```
//!
//! One event at a time goes through all plugins. Between an event and what it tells of being seen, no plugin
//! is synchronized ([`Nri::settle`]): it would hear of that neither way.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use prost::Message as _;
use shim_wire::ttrpc::{Code, Response};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, OwnedRwLockReadGuard, RwLock, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use crate::call::{Call, RUNTIME};
use crate::connection::{Connection, Incoming};
use crate::error::{Error, Result};
use crate::launch;
use crate::merge::{Creating, Creation, Gathering, Stopping, Update, Updating};
use crate::plugin::{Plugin, Problem};
use crate::runtime::{Inventory, Runtime, Settings};
use crate::wire::{
    Container, ContainerState, ContainerUpdate, CreateContainerRequest, LinuxResources,
    OwningPlugins, PluginInstance, PodSandbox, PostCreateContainerRequest,
    PostStartContainerRequest, PostUpdateContainerRequest, PostUpdatePodSandboxRequest,
    RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StopContainerRequest, StopPodSandboxRequest, UpdateContainerRequest, UpdateContainersRequest,
    UpdateContainersResponse, UpdatePodSandboxRequest, ValidateContainerAdjustmentRequest,
};

/// Who may be on the way to being a plugin at once.
const NEWCOMERS: usize = 32;

/// How long a plugin has that is told of the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// The plugins of a runtime. Going out of scope leaves installed ones to their closed connection; call
/// [`Nri::stop`].
#[derive(Debug)]
pub struct Nri {
    shared: Arc<Shared>,
    accepting: std::sync::Mutex<Option<JoinHandle<()>>>,
}

/// While one lives, no plugin is synchronized.
#[derive(Debug)]
#[must_use = "plugins may be synchronized as soon as this is gone"]
pub struct Settling(#[expect(dead_code, reason = "held")] OwnedRwLockReadGuard<()>);

struct Shared {
    settings: Settings,
    runtime: Arc<dyn Runtime>,
    settling: Arc<RwLock<()>>,
    present: Mutex<Present>,
    /// How many plugins there are.
    count: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Present {
    /// In their order.
    plugins: Vec<Arc<Plugin>>,
    /// How far plugins were told of pods and containers, by their ids.
    stages: HashMap<String, Stage>,
}

/// What plugins believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Made,
    Ended,
}

impl Nri {
    /// Starts the plugins that are installed, waits until they are synchronized, and lets others in. A
    /// plugin that fails is left out.
    ///
    /// # Errors
    /// The directory of plugins can't be read, the socket can't be had.
    pub async fn start(settings: Settings, runtime: Arc<dyn Runtime>) -> Result<Self> {
        let programs = launch::installed(&settings.plugin_directory, &settings.config_directory)?;
        let listener = settings.socket.as_deref().map(listen).transpose()?;
        let shared = Arc::new(Shared {
            settings,
            runtime,
            settling: Arc::default(),
            present: Mutex::default(),
            count: AtomicUsize::new(0),
        });
        let mut launches = JoinSet::new();
        for program in programs {
            let shared = Arc::clone(&shared);
            launches.spawn(async move {
                let launched = Plugin::launch(&program, &shared.settings).await;
                (program.name.clone(), launched)
            });
        }
        let mut launched = Vec::new();
        while let Some(joined) = launches.join_next().await {
            match joined {
                Ok((_, Ok(plugin))) => launched.push(plugin),
                Ok((name, Err(problem))) => {
                    tracing::error!(plugin = %name, error = %problem, "an NRI plugin is left out");
                }
                Err(error) => tracing::error!(%error, "an NRI plugin is left out"),
            }
        }
        launched.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        for (plugin, incoming) in launched {
            shared.admit(plugin, incoming).await;
        }
        let accepting = listener.map(|listener| {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move { shared.accept(listener).await })
        });
        Ok(Self { shared, accepting: std::sync::Mutex::new(accepting) })
    }

    /// Whether there is no plugin: nobody need be told anything.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.shared.count.load(Ordering::Acquire) == 0
    }

    /// Holds the synchronization of plugins back, from before an event until what it tells of can be seen.
    /// Not twice by the same task.
    pub async fn settle(&self) -> Settling {
        Settling(Arc::clone(&self.shared.settling).read_owned().await)
    }

    /// A pod is there, and nobody has seen it yet.
    ///
    /// # Errors
    /// A plugin does not want it; it is told of its end, as are the others.
    pub async fn run_pod_sandbox(&self, pod: PodSandbox) -> Result<()> {
        let mut present = self.shared.present.lock().await;
        present.stages.insert(pod.id.clone(), Stage::Made);
        let request = RunPodSandboxRequest { pod: Some(pod.clone()) };
        let told = self.tell(&mut present, &request).await;
        if told.is_err() {
            drop(present);
            self.stop_pod_sandbox(&pod.id.clone(), std::future::ready(pod.clone())).await;
            self.remove_pod_sandbox(pod).await;
        }
        told
    }

    /// What a pod may use is about to change.
    ///
    /// # Errors
    /// A plugin does not want it.
    pub async fn update_pod_sandbox(
        &self,
        pod: PodSandbox,
        overhead: Option<LinuxResources>,
        resources: Option<LinuxResources>,
    ) -> Result<()> {
        let mut present = self.shared.present.lock().await;
        let request = UpdatePodSandboxRequest {
            pod: Some(pod),
            overhead_linux_resources: overhead,
            linux_resources: resources,
        };
        self.tell(&mut present, &request).await
    }

    /// What a pod may use has changed.
    pub async fn post_update_pod_sandbox(&self, pod: PodSandbox) {
        self.note(&PostUpdatePodSandboxRequest { pod: Some(pod) }).await;
    }

    /// The containers of a pod have ended; its network and namespaces are still there. Told once.
    pub async fn stop_pod_sandbox(&self, id: &str, pod: impl Future<Output = PodSandbox> + Send) {
        let mut present = self.shared.present.lock().await;
        if present.stages.get(id) != Some(&Stage::Made) {
            return;
        }
        present.stages.insert(id.to_owned(), Stage::Ended);
        let request = StopPodSandboxRequest { pod: Some(pod.await) };
        self.say(&mut present, &request).await;
    }

    /// A pod is gone. Told once.
    pub async fn remove_pod_sandbox(&self, pod: PodSandbox) {
        let mut present = self.shared.present.lock().await;
        if present.stages.remove(&pod.id).is_some() {
            self.say(&mut present, &RemovePodSandboxRequest { pod: Some(pod) }).await;
        }
    }

    /// A container is about to be made: what plugins want of it, and of others.
    ///
    /// # Errors
    /// A plugin does not want it; two want the same of it; one does not allow what others want.
    pub async fn create_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> Result<Creation> {
        let mut present = self.shared.present.lock().await;
        present.stages.insert(container.id.clone(), Stage::Made);
        let pristine = container.clone();
        let mut creating = Creating::new(CreateContainerRequest {
            pod: Some(pod.clone()),
            container: Some(container),
        });
        let asked = present.plugins.iter().map(|plugin| PluginInstance {
            name: plugin.name.base.clone(),
            index: plugin.name.index.clone(),
        });
        let asked = asked.collect();
        self.gather(&mut present, &mut creating).await?;
        let (creation, owners) = creating.end();
        self.validate(&mut present, pod, pristine, &creation, owners, asked).await?;
        Ok(creation)
    }

    async fn validate(
        &self,
        present: &mut Present,
        pod: PodSandbox,
        container: Container,
        creation: &Creation,
        owners: OwningPlugins,
        plugins: Vec<PluginInstance>,
    ) -> Result<()> {
        let request = ValidateContainerAdjustmentRequest {
            pod: Some(pod),
            container: Some(container),
            adjust: Some(creation.adjust.clone()),
            update: creation.updates.clone(),
            owners: Some(owners),
            plugins,
        };
        for plugin in present.plugins.clone() {
            if !plugin.wants::<ValidateContainerAdjustmentRequest>() {
                continue;
            }
            let plugin_name = plugin.name.to_string();
            match plugin.try_ask(&request, self.limit()).await {
                Ok(Some(answer)) if answer.reject => {
                    let reason = match answer.reason.as_str() {
                        "" => "it says no more".to_owned(),
                        reason => reason.to_owned(),
                    };
                    return Err(Error::Rejected { plugin: plugin_name, reason });
                }
                // One that subscribes to every event without knowing of this one allows.
                Ok(_) => {}
                Err(error) => {
                    if error.is_fatal() {
                        plugin.close();
                        self.shared.forget_closed(present);
                    }
                    let problem = error.to_string();
                    return Err(Error::NotValidated { plugin: plugin_name, problem });
                }
            }
        }
        Ok(())
    }

    /// A container is there.
    pub async fn post_create_container(&self, pod: PodSandbox, container: Container) {
        let request = PostCreateContainerRequest { pod: Some(pod), container: Some(container) };
        self.note(&request).await;
    }

    /// A container is about to be started.
    ///
    /// # Errors
    /// A plugin does not want it.
    pub async fn start_container(&self, pod: PodSandbox, container: Container) -> Result<()> {
        let mut present = self.shared.present.lock().await;
        present.stages.insert(container.id.clone(), Stage::Made);
        let request = StartContainerRequest { pod: Some(pod), container: Some(container) };
        self.tell(&mut present, &request).await
    }

    /// A container runs.
    pub async fn post_start_container(&self, pod: PodSandbox, container: Container) {
        self.note(&PostStartContainerRequest { pod: Some(pod), container: Some(container) }).await;
    }

    /// The limits of a container are about to change: what plugins make of it.
    ///
    /// # Errors
    /// A plugin does not want it; two want the same of it.
    pub async fn update_container(
        &self,
        pod: PodSandbox,
        container: Container,
        resources: LinuxResources,
    ) -> Result<Update> {
        let mut present = self.shared.present.lock().await;
        let mut updating = Updating::new(UpdateContainerRequest {
            pod: Some(pod),
            container: Some(container),
            linux_resources: Some(resources),
        });
        self.gather(&mut present, &mut updating).await?;
        Ok(updating.end())
    }

    /// The limits of a container have changed.
    pub async fn post_update_container(&self, pod: PodSandbox, container: Container) {
        self.note(&PostUpdateContainerRequest { pod: Some(pod), container: Some(container) }).await;
    }

    /// A container has ended, or is no more to be. Told once; answers what plugins want of others then.
    pub async fn stop_container(
        &self,
        id: &str,
        told: impl Future<Output = (PodSandbox, Container)> + Send,
    ) -> Vec<ContainerUpdate> {
        let mut present = self.shared.present.lock().await;
        if present.stages.get(id) != Some(&Stage::Made) {
            return Vec::new();
        }
        let (pod, container) = told.await;
        self.stop_made(&mut present, pod, container).await
    }

    async fn stop_made(
        &self,
        present: &mut Present,
        pod: PodSandbox,
        container: Container,
    ) -> Vec<ContainerUpdate> {
        present.stages.insert(container.id.clone(), Stage::Ended);
        let request = StopContainerRequest { pod: Some(pod), container: Some(container) };
        let mut stopping = Stopping::default();
        for plugin in present.plugins.clone() {
            let applied = match plugin.ask(&request, self.limit()).await {
                Ok(Some(answer)) => stopping.apply(answer.update, &plugin.name.to_string()),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = applied {
                // It has ended all the same.
                tracing::warn!(%error, "not done");
            }
        }
        self.shared.forget_closed(present);
        stopping.end()
    }

    /// A container is gone. Told once, and after its end.
    pub async fn remove_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> Vec<ContainerUpdate> {
        let mut present = self.shared.present.lock().await;
        let Some(stage) = present.stages.get(&container.id).copied() else { return Vec::new() };
        let updates = match stage {
            Stage::Made => self.stop_made(&mut present, pod.clone(), container.clone()).await,
            Stage::Ended => Vec::new(),
        };
        present.stages.remove(&container.id);
        let request = RemoveContainerRequest { pod: Some(pod), container: Some(container) };
        self.say(&mut present, &request).await;
        updates
    }

    /// Lets all plugins know of the end, and ends those that were started here. The socket is removed.
    pub async fn stop(&self) {
        self.let_nobody_in();
        if let Some(socket) = &self.shared.settings.socket {
            let _ = std::fs::remove_file(socket);
        }
        let plugins = std::mem::take(&mut self.shared.present.lock().await.plugins);
        self.shared.count.store(0, Ordering::Release);
        let mut farewells = JoinSet::new();
        let limit = FAREWELL.min(self.shared.settings.request_timeout);
        for plugin in plugins {
            farewells.spawn(async move { plugin.shut_down(limit).await });
        }
        farewells.join_all().await;
    }

    fn let_nobody_in(&self) {
        let mut accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(accepting) = accepting.take() {
            accepting.abort();
        }
    }

    fn limit(&self) -> Duration {
        self.shared.settings.request_timeout
    }

    /// Asks all, each of what those before made of it, up to the first that says no.
    async fn gather<G: Gathering>(&self, present: &mut Present, gathering: &mut G) -> Result<()> {
        let mut gathered = Ok(());
        for plugin in present.plugins.clone() {
            let answer = plugin.ask(gathering.request(), self.limit()).await;
            gathered = answer.and_then(|answer| match answer {
                Some(answer) => gathering.apply(answer, &plugin.name.to_string()),
                None => Ok(()),
            });
            if gathered.is_err() {
                break;
            }
        }
        self.shared.forget_closed(present);
        gathered
    }

    /// Asks all, up to the first that says no.
    async fn tell<C: Call>(&self, present: &mut Present, call: &C) -> Result<()> {
        let mut told = Ok(());
        for plugin in present.plugins.clone() {
            told = plugin.ask(call, self.limit()).await.map(drop);
            if told.is_err() {
                break;
            }
        }
        self.shared.forget_closed(present);
        told
    }

    /// Tells all of what is done already.
    async fn say<C: Call>(&self, present: &mut Present, call: &C) {
        for plugin in present.plugins.clone() {
            if let Err(error) = plugin.ask(call, self.limit()).await {
                tracing::warn!(%error, "what it does not want is done already");
            }
        }
        self.shared.forget_closed(present);
    }

    async fn note<C: Call>(&self, call: &C) {
        let mut present = self.shared.present.lock().await;
        self.say(&mut present, call).await;
    }
}

impl Drop for Nri {
    fn drop(&mut self) {
        self.let_nobody_in();
    }
}

impl Shared {
    async fn accept(self: Arc<Self>, listener: UnixListener) {
        let places = Arc::new(Semaphore::new(NEWCOMERS));
        loop {
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>((listener.accept().await?.0, place))
            };
            match accepted.await {
                Ok((socket, place)) => {
                    let shared = Arc::clone(&self);
                    tokio::spawn(async move {
                        shared.let_in(socket).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Without descriptors there is nothing to be done but to wait for some.
                    tracing::warn!(%error, "an NRI plugin could not be let in");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn let_in(self: Arc<Self>, socket: UnixStream) {
        match Plugin::welcome(socket, None, &self.settings).await {
            Ok((plugin, incoming)) => self.admit(plugin, incoming).await,
            Err(problem) => tracing::warn!(error = %problem, "an NRI plugin is not let in"),
        }
    }

    /// Synchronizes a plugin: from then on it hears of everything.
    async fn admit(self: &Arc<Self>, plugin: Arc<Plugin>, incoming: mpsc::Receiver<Incoming>) {
        let serving = Arc::downgrade(self);
        tokio::spawn(serve(serving, Arc::downgrade(plugin.connection()), incoming));
        let admitted = self.synchronize(&plugin).await;
        match admitted {
            Ok(()) => {
                tracing::info!(plugin = %plugin.name, kind = plugin.kind(), "an NRI plugin is there");
            }
            Err(problem) => {
                tracing::error!(plugin = %plugin.name, error = %problem, "an NRI plugin is left out");
                plugin.close();
                plugin.end(Duration::ZERO).await;
                return;
            }
        }
        let shared = Arc::downgrade(self);
        tokio::spawn(async move {
            plugin.closed().await;
            tracing::info!(plugin = %plugin.name, "an NRI plugin is gone");
            if let Some(shared) = shared.upgrade() {
                let mut present = shared.present.lock().await;
                shared.forget_closed(&mut present);
            }
            // What is left of its process has no use any more.
            plugin.end(FAREWELL).await;
        });
    }

    async fn synchronize(&self, plugin: &Arc<Plugin>) -> Result<(), Problem> {
        let _settled = self.settling.write().await;
        let mut present = self.present.lock().await;
        let inventory = self.runtime.inventory().await;
        present.take_stock(&inventory);
        let Inventory { pods, mut containers } = inventory;
        containers.retain(|container| container.state() != ContainerState::ContainerStopped);
        let updates = plugin.synchronize(pods, containers, self.settings.request_timeout).await?;
        present.plugins.push(Arc::clone(plugin));
        present.plugins.sort_by(|one, other| one.name.index.cmp(&other.name.index));
        self.count.store(present.plugins.len(), Ordering::Release);
        for failed in self.runtime.update(updates).await {
            tracing::warn!(plugin = %plugin.name, container = failed.container_id, "not updated");
        }
        Ok(())
    }

    fn forget_closed(&self, present: &mut Present) {
        present.plugins.retain(|plugin| !plugin.is_closed());
        self.count.store(present.plugins.len(), Ordering::Release);
    }

    /// What a plugin asks for by itself.
    async fn called(&self, call: &Incoming) -> Response {
        if call.service != RUNTIME || call.method != "UpdateContainers" {
            let problem = format!("{}/{}: there is no such call", call.service, call.method);
            return Response::error(Code::Unimplemented, problem);
        }
        match UpdateContainersRequest::decode(call.payload.as_slice()) {
            Err(error) => Response::error(Code::InvalidArgument, error.to_string()),
            Ok(UpdateContainersRequest { update, evict }) => {
                self.runtime.evict(evict).await;
                let failed = self.runtime.update(update).await;
                Response::ok(&UpdateContainersResponse { failed })
            }
        }
    }
}

impl Present {
    /// What was missed while nobody was to be told.
    fn take_stock(&mut self, inventory: &Inventory) {
        let there: HashSet<&str> = inventory
            .pods
            .iter()
            .map(|pod| pod.id.as_str())
            .chain(inventory.containers.iter().map(|container| container.id.as_str()))
            .collect();
        self.stages.retain(|id, _| there.contains(id.as_str()));
        for pod in &inventory.pods {
            // Whether a pod has been stopped, those know who were told.
            self.stages.entry(pod.id.clone()).or_insert(Stage::Made);
        }
        for container in &inventory.containers {
            let stage = match container.state() {
                ContainerState::ContainerStopped | ContainerState::ContainerUnknown => Stage::Ended,
                ContainerState::ContainerCreated
                | ContainerState::ContainerPaused
                | ContainerState::ContainerRunning => Stage::Made,
            };
            self.stages.entry(container.id.clone()).or_insert(stage);
        }
    }
}

/// Answers what a plugin asks for, one call after the other, until its connection ends.
async fn serve(
    shared: Weak<Shared>,
    connection: Weak<Connection>,
    mut incoming: mpsc::Receiver<Incoming>,
) {
    while let Some(call) = incoming.recv().await {
        let Some(shared) = shared.upgrade() else { return };
        let response = shared.called(&call).await;
        let Some(connection) = connection.upgrade() else { return };
        connection.answer(&call, &response).await;
    }
}

/// Makes the socket, closed to everybody else.
fn listen(path: &Path) -> Result<UnixListener> {
    if let Some(parent) = path.parent()
        && !parent.exists()
    {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(Error::file("make directory", parent))?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Error::SocketInUse { path: PathBuf::from(path) });
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::file("remove", path)(error));
        }
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(Error::file("listen at", path))?;
    let closed = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, closed).map_err(Error::file("close", path))?;
    Ok(listener)
}
