//! What users of the crate call.
//!
//! Each call is a task of its own: it goes on to its end when nobody waits for it any more.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::RwLock;

use crate::attachment::Container;
use crate::cache::{Cache, Key};
use crate::config::Networks;
use crate::error::{Error, Result};
use crate::garbage::Collected;
use crate::lock::Locks;
use crate::name;
use crate::plugins::Plugins;
use crate::result::NetworkResult;
use crate::status::Status;

/// Where things are, and how long they may take.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Of network configurations.
    pub config_directory: PathBuf,
    /// In which plugins are searched, in this order.
    pub plugin_directories: Vec<PathBuf>,
    /// `results` is below it; other runtimes and tools know the place.
    pub cache_directory: PathBuf,
    /// This runtime's own, on a file system that a reboot empties: locks.
    pub run_directory: PathBuf,
    /// How many networks a container is attached to, at most. 0 is as 1.
    pub most_networks: usize,
    /// Interfaces are called by it and a number, from 0.
    pub interface_prefix: String,
    /// Whose attachments these are, among those of other runtimes in the cache.
    pub runtime: String,
    /// For each run of a plugin.
    pub deadline: Duration,
    /// For each STATUS and VERSION.
    pub probe_deadline: Duration,
    /// What plugins get beside PATH and CNI's own variables.
    pub environment: Vec<(String, String)>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            config_directory: "/etc/cni/net.d".into(),
            plugin_directories: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            cache_directory: "/var/lib/cni".into(),
            run_directory: "/run/bosun-cni".into(),
            most_networks: 1,
            interface_prefix: "eth".into(),
            runtime: "bosun".into(),
            deadline: Duration::from_secs(60),
            probe_deadline: Duration::from_secs(10),
            environment: Vec::new(),
        }
    }
}

impl Settings {
    pub(crate) fn interface(&self, index: usize) -> String {
        format!("{}{index}", self.interface_prefix)
    }
}

/// A container on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    pub network: String,
    pub interface: String,
    pub result: NetworkResult,
}

/// What CHECK found of an interface; that something is wrong is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    Whole,
    /// The configuration says not to, or is older than 0.4.0.
    Skipped,
}

/// The runtime. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Cni(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) plugins: Plugins,
    pub(crate) cache: Cache,
    pub(crate) locks: Locks,
    /// GC runs alone (specification, section 3).
    gate: RwLock<()>,
}

impl Cni {
    #[must_use]
    pub fn new(settings: Settings) -> Cni {
        let directories = settings.plugin_directories.clone();
        Cni(Arc::new(Inner {
            plugins: Plugins::new(directories, settings.environment.clone()),
            cache: Cache::new(&settings.cache_directory),
            locks: Locks::new(settings.run_directory.clone()),
            gate: RwLock::default(),
            settings,
        }))
    }

    /// The networks as they are configured now, and the files that are wrong.
    ///
    /// # Errors
    ///
    /// [`Error::Directory`].
    pub async fn networks(&self) -> Result<Networks> {
        self.task(async |inner| inner.networks().await).await
    }

    /// Whether containers can be attached: a valid configuration, its plugins there and speaking its
    /// version, and all of them content by STATUS, where the version has that.
    pub async fn status(&self) -> Status {
        let ready = self.task(async |inner| inner.ready().await).await;
        ready.unwrap_or_else(|error| Status::NotReady(Box::new(error)))
    }

    /// Attaches a container to all networks, the first of which is its `eth0`.
    ///
    /// # Errors
    ///
    /// [`Error::NoConfiguration`], [`Error::Invalid`], and those about plugins that can't be used: nothing
    /// was run. [`Error::Attached`]: it is already. [`Error::Add`]: a plugin failed, and everything was
    /// undone, or is named.
    pub async fn attach(&self, container: Container) -> Result<Vec<Attached>> {
        self.task(async move |inner| {
            let _gate = inner.gate.read().await;
            inner.attach(&container).await
        })
        .await
    }

    /// Undoes whatever attach did or began, by what is cached, and by the networks configured now for
    /// what is not. The container's arguments count for the latter only. A second time, and without a
    /// network namespace, it does nothing and is content. Yet detach before the namespace goes: plugins can
    /// not look into it later (the bridge of 1.1.1 then leaves its masquerading rules).
    ///
    /// The answer is what was wrong and did not matter, for a log: damaged files of the cache.
    ///
    /// # Errors
    ///
    /// Those of plugins, [`Error::Unconfigured`], [`Error::Several`]. What could not be undone stays in the
    /// cache, for another try or for GC.
    pub async fn detach(&self, container: Container) -> Result<Vec<Error>> {
        self.task(async move |inner| {
            let _gate = inner.gate.read().await;
            inner.detach(&container).await
        })
        .await
    }

    /// Asks the plugins whether a container's interfaces are as they made them.
    ///
    /// # Errors
    ///
    /// [`Error::NotAttached`], and what plugins find.
    pub async fn check(&self, container: Container) -> Result<Vec<(String, Checked)>> {
        self.task(async move |inner| {
            let _gate = inner.gate.read().await;
            inner.check(&container).await
        })
        .await
    }

    /// What a container is attached to, from the cache: also to an earlier daemon's networks.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`], [`Error::File`].
    pub async fn attached(&self, container: &str) -> Result<Vec<Attached>> {
        let container = container.to_owned();
        self.task(async move |inner| {
            let (entries, damaged) =
                inner.on_disk(move |cache| cache.list(Some(&container))).await?;
            Error::all(damaged.into_iter().map(|damaged| damaged.error).collect())?;
            let mut attached: Vec<Attached> = entries
                .into_iter()
                .filter_map(|entry| {
                    let Key { network, interface, .. } = entry.key;
                    entry.result.map(|result| Attached { network, interface, result })
                })
                .collect();
            attached.sort_by(|one, other| one.interface.cmp(&other.interface));
            Ok(attached)
        })
        .await
    }

    /// Removes what belongs to no container of `valid`, a future that is asked for their ids while no
    /// attach and no detach runs. A container has to be among them from before its attach; and neither may
    /// be waited for in there. Attachments in the cache are undone, then plugins clean up themselves, where
    /// the version has GC. Attachments that other runtimes of the machine made are spared while their
    /// network namespace exists.
    pub async fn collect(
        &self,
        valid: impl Future<Output = BTreeSet<String>> + Send + 'static,
    ) -> Collected {
        let collected = self
            .task(async move |inner| {
                let _gate = inner.gate.write().await;
                let valid = valid.await;
                Ok(inner.collect(&valid).await)
            })
            .await;
        collected.unwrap_or_else(|error| Collected { removed: Vec::new(), failed: vec![error] })
    }

    /// The versions that a plugin says it speaks.
    ///
    /// # Errors
    ///
    /// Those of finding and running it.
    pub async fn versions(&self, plugin: &str) -> Result<Vec<String>> {
        name::plugin(plugin)?;
        let plugin = plugin.to_owned();
        self.task(async move |inner| {
            let program = inner.plugins.find("", &plugin)?;
            inner.plugins.versions(("", &program), inner.settings.probe_deadline).await
        })
        .await
    }

    async fn task<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let task = tokio::spawn(work(Arc::clone(&self.0)));
        task.await.unwrap_or(Err(Error::Stopping))
    }
}

impl Inner {
    /// Works on files where it blocks nobody.
    pub(crate) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cache) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let cache = self.cache.clone();
        tokio::task::spawn_blocking(move || work(&cache)).await.unwrap_or(Err(Error::Stopping))
    }

    pub(crate) async fn networks(&self) -> Result<Networks> {
        let (directory, most) =
            (self.settings.config_directory.clone(), self.settings.most_networks.max(1));
        self.on_disk(move |_| Networks::load(&directory, most)).await
    }

    /// At least one network.
    pub(crate) async fn configured(&self) -> Result<Networks> {
        let found = self.networks().await?;
        if !found.networks.is_empty() {
            return Ok(found);
        }
        if found.invalid.is_empty() {
            let directory = self.settings.config_directory.clone();
            return Err(Error::NoConfiguration { directory });
        }
        Err(Error::Invalid { files: found.invalid })
    }
}
