//! A runtime that has a few pods and containers.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bosun_nri::wire::{Container, ContainerEviction, ContainerState, ContainerUpdate, PodSandbox};
use bosun_nri::{Answer, Inventory, Nri, Runtime, Settings};

use crate::plugin::{Plugin, Script};

/// How long something may take that takes no time.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) inventory: Mutex<Inventory>,
    pub(crate) updates: Mutex<Vec<ContainerUpdate>>,
    pub(crate) evictions: Mutex<Vec<ContainerEviction>>,
}

impl Runtime for Node {
    fn inventory(&self) -> Answer<'_, Inventory> {
        Box::pin(async { self.inventory.lock().unwrap().clone() })
    }

    /// Those of a container "no" fail.
    fn update(&self, updates: Vec<ContainerUpdate>) -> Answer<'_, Vec<ContainerUpdate>> {
        Box::pin(async move {
            self.updates.lock().unwrap().extend(updates.clone());
            updates.into_iter().filter(|update| update.container_id == "no").collect()
        })
    }

    fn evict(&self, evictions: Vec<ContainerEviction>) -> Answer<'_, ()> {
        Box::pin(async move { self.evictions.lock().unwrap().extend(evictions) })
    }
}

/// A runtime with its socket in a directory of its own.
pub(crate) struct World {
    pub(crate) node: Arc<Node>,
    pub(crate) nri: Nri,
    pub(crate) directory: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}, Inventory::default()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings), inventory: Inventory) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings(directory.path().to_owned());
        change(&mut settings);
        let node = Arc::new(Node { inventory: Mutex::new(inventory), ..Node::default() });
        let nri = Nri::start(settings, node.clone()).await.unwrap();
        Self { node, nri, directory }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("nri.sock")
    }

    /// A plugin that is asked from now on.
    pub(crate) async fn join(&self, name: &str, script: Script) -> Arc<Plugin> {
        let (socket, (index, base)) = (self.socket(), name.split_once('-').unwrap());
        let (index, base) = (index.to_owned(), base.to_owned());
        let join = move || Arc::new(Plugin::join(&socket, &index, &base, script));
        let plugin = tokio::task::spawn_blocking(join).await.unwrap();
        // Its answer is on the way; what waits for the end of it comes after.
        drop(self.nri.settle().await);
        plugin
    }
}

pub(crate) fn settings(directory: PathBuf) -> Settings {
    Settings {
        socket: Some(directory.join("nri.sock")),
        plugin_directory: directory.join("plugins"),
        config_directory: directory.join("conf.d"),
        runtime_name: "tested".to_owned(),
        runtime_version: "1.2".to_owned(),
        // None of these tests is about time; a loaded machine takes some.
        registration_timeout: LIMIT,
        request_timeout: LIMIT,
    }
}

pub(crate) fn pod(id: &str) -> PodSandbox {
    PodSandbox { id: id.to_owned(), name: format!("name of {id}"), ..PodSandbox::default() }
}

pub(crate) fn container(id: &str, state: ContainerState) -> Container {
    Container { id: id.to_owned(), state: state.into(), ..Container::default() }
}

/// Waits for what other threads do.
pub(crate) async fn eventually(what: &str, until: impl Fn() -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !until() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}
