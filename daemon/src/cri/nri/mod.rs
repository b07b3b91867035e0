//! Plugins of the node (NRI): told of pods and containers as kubelets make, start, change and remove them, and
//! asked what they want of them. The plugins themselves are `bosun_nri`'s; here is what they are told, and what
//! becomes of their wishes.
//!
//! | module | |
//! |---|---|
//! | `told` | pods and containers in the interface's messages |
//! | `adjust` | what plugins want of a container that is made |
//! | `limits` | limits, in both directions |
//!
//! Without a plugin nothing is told, and costs nothing.

mod adjust;
mod limits;
mod told;

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bosun_nri::{Answer, Inventory, Nri, Runtime, Settling, wire as nri};
use futures::StreamExt;
use futures::future::BoxFuture;

use super::{Cri, convert, kept, lock, wire};
use crate::api::sentence;
use crate::container::{Adjuster, Draft, Handle, Record};
use crate::error::{Error, Result};
use crate::events::{Followed, follow};
use crate::spec::{Change, ContainerOptions};

/// How long an exit waits to be seen.
const SEEN: Duration = Duration::from_secs(2);

/// How long a container has that plugins evict.
const EVICTED: Duration = Duration::ZERO;

/// The daemon, as plugins see it.
struct Node(Weak<Cri>);

impl Cri {
    /// Lets plugins in, if they are not switched off. Without them the node works all the same: what is in
    /// the way is in the log.
    pub(super) async fn start_plugins(self: &Arc<Self>) {
        let Some(settings) = self.core().config.nri.clone() else { return };
        let node = Arc::new(Node(Arc::downgrade(self)));
        match Nri::start(settings, node).await {
            Ok(nri) => {
                // Once, at the start.
                let _ = self.nri.set(nri);
                tokio::spawn(follow_ends(Arc::downgrade(self)));
            }
            Err(error) => tracing::error!(%error, "without NRI plugins"),
        }
    }

    pub(super) async fn stop_plugins(&self) {
        if let Some(nri) = self.nri.get() {
            nri.stop().await;
        }
    }

    /// The plugins, when there are any.
    fn plugins_present(&self) -> Option<&Nri> {
        self.nri.get().filter(|nri| !nri.is_idle())
    }

    /// Asks plugins about a pod that nobody sees yet. What is answered is held until it is seen: a
    /// plugin that comes meanwhile is told of it then.
    ///
    /// # Errors
    /// A plugin does not want it.
    pub(super) async fn ask_of_pod(&self, pod: &Handle) -> Result<Option<Settling>> {
        let Some(nri) = self.nri.get() else { return Ok(None) };
        let settling = nri.settle().await;
        if !nri.is_idle() {
            nri.run_pod_sandbox(self.told_pod(pod).await).await?;
        }
        Ok(Some(settling))
    }

    /// # Errors
    /// A plugin does not want it.
    pub(super) async fn ask_of_pod_update(
        &self,
        pod: &Handle,
        request: &wire::UpdatePodSandboxResourcesRequest,
    ) -> Result<()> {
        let Some(nri) = self.plugins_present() else { return Ok(()) };
        let told = self.told_pod(pod).await;
        let [overhead, resources] =
            [&request.overhead, &request.resources].map(|one| one.as_ref().map(limits::of_kubelet));
        Ok(nri.update_pod_sandbox(told, overhead, resources).await?)
    }

    pub(super) async fn tell_pod_update(&self, pod: &Handle) {
        if let Some(nri) = self.plugins_present() {
            nri.post_update_pod_sandbox(self.told_pod(pod).await).await;
        }
    }

    /// The containers of a pod have ended, its network is there yet.
    pub(super) async fn tell_pod_stop(&self, pod: &Handle) {
        let Some(nri) = self.plugins_present() else { return };
        for member in self.supervisor.members(pod) {
            self.tell_end(&member).await;
        }
        nri.stop_pod_sandbox(pod.key().id.as_str(), self.told_pod(pod)).await;
    }

    /// A pod as it was, before its record goes.
    pub(super) async fn last_words_of_pod(&self, pod: &Handle) -> Option<LastWords> {
        self.plugins_present()?;
        let pod_told = self.told_pod(pod).await;
        let mut containers = Vec::new();
        for member in self.supervisor.members(pod) {
            containers.push(self.told_container(&member).await);
        }
        Some(LastWords { pod: Some(pod_told), containers })
    }

    /// A container as it was, before its record goes.
    pub(super) async fn last_words_of(&self, container: &Handle) -> Option<LastWords> {
        self.plugins_present()?;
        Some(LastWords { pod: None, containers: vec![self.told_container(container).await] })
    }

    /// They are gone.
    pub(super) async fn tell_removal(&self, gone: Option<LastWords>) {
        let (Some(nri), Some(gone)) = (self.plugins_present(), gone) else { return };
        for (pod, mut container) in gone.containers {
            // Whatever it was, it has ended with its removal.
            container.set_state(nri::ContainerState::ContainerStopped);
            self.update_others(nri.remove_container(pod, container).await).await;
        }
        if let Some(pod) = gone.pod {
            nri.remove_pod_sandbox(pod).await;
        }
    }

    /// Who is asked about a container that is made.
    pub(super) fn adjuster(self: &Arc<Self>, pod: &Handle) -> Option<Arc<Asking>> {
        self.nri.get()?;
        let (settling, told) = (Mutex::default(), Mutex::default());
        Some(Arc::new(Asking { cri: Arc::clone(self), pod: pod.clone(), settling, told }))
    }

    /// How the creation of a container has ended, of which plugins were asked.
    pub(super) async fn tell_creation(&self, asking: &Asking, made: Option<&Handle>) {
        // What was made is seen, what was not never will be.
        drop(lock(&asking.settling).take());
        let told = lock(&asking.told).take();
        let (Some(nri), Some((pod, container))) = (self.plugins_present(), told) else { return };
        match made {
            Some(handle) => {
                let (pod, container) = self.told_container(handle).await;
                nri.post_create_container(pod, container).await;
            }
            None => self.update_others(nri.remove_container(pod, container).await).await,
        }
    }

    /// Asks about a start. What is answered is to be held until it has ended.
    ///
    /// # Errors
    /// A plugin does not want it.
    pub(super) async fn ask_of_start(&self, container: &Handle) -> Result<Option<Settling>> {
        let Some(nri) = self.nri.get() else { return Ok(None) };
        let settling = nri.settle().await;
        if !nri.is_idle() {
            let (pod, told) = self.told_container(container).await;
            if let Err(error) = nri.start_container(pod, told).await {
                self.tell_end(container).await;
                return Err(error.into());
            }
        }
        Ok(Some(settling))
    }

    pub(super) async fn tell_start(&self, container: &Handle) {
        if let Some(nri) = self.plugins_present() {
            let (pod, container) = self.told_container(container).await;
            nri.post_start_container(pod, container).await;
        }
    }

    /// Asks about new limits; answers what they are to be.
    ///
    /// # Errors
    /// A plugin does not want it.
    pub(super) async fn ask_of_update(
        &self,
        container: &Handle,
        resources: &wire::LinuxContainerResources,
        change: Change,
    ) -> Result<Change> {
        let Some(nri) = self.plugins_present() else { return Ok(change) };
        let (pod, told) = self.told_container(container).await;
        let update = nri.update_container(pod, told, limits::of_kubelet(resources)).await?;
        self.evict_all(update.evictions).await;
        self.update_others(update.updates).await;
        let limits = limits::to_core(&update.resources, &self.core().machine)?;
        Ok(Change { limits, ..change })
    }

    pub(super) async fn tell_update(&self, container: &Handle) {
        if let Some(nri) = self.plugins_present() {
            let (pod, container) = self.told_container(container).await;
            nri.post_update_container(pod, container).await;
        }
    }

    /// A container has ended, or never will be anything else: told once, whoever notices.
    pub(super) async fn tell_end(&self, container: &Handle) {
        let Some(nri) = self.plugins_present() else { return };
        let id = container.key().id.as_str();
        let updates = nri.stop_container(id, self.told_container(container)).await;
        self.update_others(updates).await;
    }

    async fn update_others(&self, updates: Vec<nri::ContainerUpdate>) {
        for failed in self.update_all(updates).await {
            tracing::warn!(
                container = failed.container_id,
                "limits that a plugin wants are not met"
            );
        }
    }

    /// Answers those that could not be done.
    async fn update_all(&self, updates: Vec<nri::ContainerUpdate>) -> Vec<nri::ContainerUpdate> {
        let mut failed = Vec::new();
        for update in updates {
            let id = update.container_id.clone();
            let ignored = update.ignore_failure;
            if let Err(error) = self.update_one(&update).await {
                tracing::warn!(container = id, error = sentence(&error), "a plugin's update");
                if !ignored {
                    failed.push(update);
                }
            }
        }
        failed
    }

    async fn update_one(&self, update: &nri::ContainerUpdate) -> Result<()> {
        let container = self.container(&update.container_id)?;
        let resources = update.linux.as_ref().and_then(|linux| linux.resources.as_ref());
        let Some(resources) = resources else { return Ok(()) };
        if !resources.devices.is_empty() {
            return Err(super::invalid("devices", "rules of devices can't be changed later"));
        }
        let limits = limits::to_core(resources, &self.core().machine)?;
        self.supervisor.update(&self.namespace, container.key().id.as_str(), limits).await
    }

    async fn evict_all(&self, evictions: Vec<nri::ContainerEviction>) {
        for nri::ContainerEviction { container_id: id, reason } in evictions {
            tracing::info!(container = id, reason, "stopped by a plugin");
            let stopped = match self.container(&id) {
                Ok(container) => {
                    let id = container.key().id.as_str();
                    self.supervisor.stop(&self.namespace, id, Some(EVICTED)).await.map(drop)
                }
                Err(error) => Err(error),
            };
            if let Err(error) = stopped {
                tracing::warn!(container = id, error = sentence(&error), "not stopped");
            }
        }
    }
}

/// What is told of those that are gone.
#[derive(Debug)]
pub(super) struct LastWords {
    pod: Option<nri::PodSandbox>,
    containers: Vec<(nri::PodSandbox, nri::Container)>,
}

/// Asks plugins about a container that is made.
pub(super) struct Asking {
    cri: Arc<Cri>,
    pod: Handle,
    /// From the question until the container is seen.
    settling: Mutex<Option<Settling>>,
    /// What they were told.
    told: Mutex<Option<(nri::PodSandbox, nri::Container)>>,
}

impl Asking {
    async fn ask(&self, draft: Draft<'_>) -> Result<ContainerOptions> {
        let mut options = draft.options.clone();
        let Some(nri) = self.cri.nri.get() else { return Ok(options) };
        *lock(&self.settling) = Some(nri.settle().await);
        if nri.is_idle() {
            return Ok(options);
        }
        let pod = self.cri.told_pod(&self.pod).await;
        let container = told::draft(&draft);
        *lock(&self.told) = Some((pod.clone(), container.clone()));
        let creation = nri.create_container(pod, container).await?;
        adjust::adjust(&mut options, draft.key, creation.adjust, &self.cri.core().machine)?;
        self.cri.evict_all(creation.evictions).await;
        self.cri.update_others(creation.updates).await;
        Ok(options)
    }
}

impl Adjuster for Asking {
    fn adjust<'a>(&'a self, draft: Draft<'a>) -> BoxFuture<'a, Result<ContainerOptions>> {
        Box::pin(self.ask(draft))
    }
}

impl Runtime for Node {
    fn inventory(&self) -> Answer<'_, Inventory> {
        Box::pin(async move {
            let Some(cri) = self.0.upgrade() else { return Inventory::default() };
            let mut inventory = Inventory::default();
            for pod in cri.supervisor.sandboxes(&cri.namespace) {
                if pod
                    .record()
                    .is_ok_and(|record| is_of_kubelet(&record) && !cri.is_on_its_way(&record))
                {
                    inventory.pods.push(cri.told_pod(&pod).await);
                }
            }
            for container in cri.supervisor.list(&cri.namespace) {
                if container.record().is_ok_and(|record| is_of_kubelet(&record)) {
                    inventory.containers.push(cri.told_container(&container).await.1);
                }
            }
            inventory
        })
    }

    fn update(&self, updates: Vec<nri::ContainerUpdate>) -> Answer<'_, Vec<nri::ContainerUpdate>> {
        Box::pin(async move {
            match self.0.upgrade() {
                Some(cri) => cri.update_all(updates).await,
                None => updates,
            }
        })
    }

    fn evict(&self, evictions: Vec<nri::ContainerEviction>) -> Answer<'_, ()> {
        Box::pin(async move {
            if let Some(cri) = self.0.upgrade() {
                cri.evict_all(evictions).await;
            }
        })
    }
}

fn is_of_kubelet(record: &Record) -> bool {
    record.options.extensions.contains_key(kept::NAME)
}

/// Tells plugins of containers that end by themselves.
async fn follow_ends(cri: Weak<Cri>) {
    let Some(store) = cri.upgrade().map(|cri| cri.supervisor.store().clone()) else { return };
    let now = crate::time::Time::now().seconds;
    let first = match store.read(move |tx| tx.first_event_since(now)).await {
        Ok(first) => first,
        Err(error) => {
            let error = Error::from(error);
            tracing::error!(%error, "plugins are not told of containers that end by themselves");
            return;
        }
    };
    let mut events = std::pin::pin!(follow(store, first, None));
    while let Some(followed) = events.next().await {
        let Ok(Followed::Event(event)) = followed else { continue };
        let Some(cri) = cri.upgrade() else { return };
        let is_end = event.kind == "container" && event.action == "die";
        if !is_end || event.namespace != cri.namespace.as_str() || cri.plugins_present().is_none() {
            continue;
        }
        let Ok(container) = cri.supervisor.find(&cri.namespace, &event.id) else { continue };
        // It is told once it is stored, which is before it is seen.
        let _ = tokio::time::timeout(SEEN, container.ended()).await;
        cri.tell_end(&container).await;
    }
}

/// The pod of a container, where it has one.
fn pod_of(cri: &Cri, record: &Record) -> Option<Handle> {
    cri.supervisor.sandbox(&cri.namespace, convert::pod_of(record)).ok()
}
