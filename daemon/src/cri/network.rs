//! Networks of pods: CNI's plugins are asked for an interface when a pod's namespace is there, and to
//! take it back before that goes.
//!
//! A pod is ready only with its network; what is attached is found again in the cache of CNI by the
//! next daemon. What nobody has any more, because a daemon ended in the middle, is collected when the
//! next one starts.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bosun_cni::{Attached, Cni, Container, Settings, Status};
use futures::stream::{self, StreamExt};
use tokio::sync::OnceCell;

use super::pod_cidr::Ranges;
use super::pods::is_half_made;
use super::{Cri, Network, convert, kept, lock, wire};
use crate::config::Config;
use crate::container::{Handle, Record, network_path};
use crate::error::{Error, Result};
use crate::spec::NetworkMode;

/// How often what nobody has is collected.
const COLLECTED: Duration = Duration::from_secs(3600);

/// How many pods are looked at at once when the daemon starts, beside what it is asked for.
const CHECKED_AT_ONCE: usize = 2;

/// The networks of pods that plugins make.
#[derive(Debug)]
pub(super) struct Plugins {
    cni: Cni,
    directory: PathBuf,
    cache: PathBuf,
    /// Addresses by the ids of pods; filled from the cache at the first use.
    attached: OnceCell<Mutex<HashMap<String, Vec<IpAddr>>>>,
    /// Pods whose network was taken back, until they are removed.
    detached: Mutex<HashSet<String>>,
    ranges: Ranges,
}

impl Plugins {
    pub(super) fn new(config: &Config) -> Self {
        let chosen = &config.cri;
        let cache = config.root.join("cni");
        let defaults = Settings::default();
        let settings = Settings {
            config_directory: chosen.cni_conf_dir.clone().unwrap_or(defaults.config_directory),
            plugin_directories: match chosen.cni_bin_dirs.is_empty() {
                true => defaults.plugin_directories,
                false => chosen.cni_bin_dirs.clone(),
            },
            cache_directory: cache.clone(),
            run_directory: config.state.join("cni"),
            ..Settings::default()
        };
        Self {
            directory: settings.config_directory.clone(),
            cni: Cni::new(settings),
            cache,
            attached: OnceCell::new(),
            detached: Mutex::default(),
            ranges: Ranges::new(&config.root),
        }
    }

    /// What the cluster gives to the node's pods.
    pub(super) fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Where configurations of networks lie.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Cri {
    /// Whether a pod's network is one of plugins.
    fn is_plugged(record: &Record) -> bool {
        record.options.network == NetworkMode::None
            && record.options.extensions.contains_key(kept::NAME)
    }

    async fn attached(&self) -> &Mutex<HashMap<String, Vec<IpAddr>>> {
        let load = async || {
            let mut known = HashMap::new();
            for pod in self.supervisor.sandboxes(&self.namespace) {
                let id = pod.key().id.to_string();
                match self.plugins.cni.attached(&id).await {
                    Ok(attached) if attached.is_empty() => {}
                    Ok(attached) => {
                        known.insert(id, addresses(&attached));
                    }
                    Err(error) => {
                        tracing::error!(
                            pod = id,
                            error = error.chain(),
                            "its network is not known"
                        );
                    }
                }
            }
            Mutex::new(known)
        };
        self.plugins.attached.get_or_init(load).await
    }

    /// Whether containers can be made in a pod.
    pub(super) async fn is_ready(&self, pod: &Handle, record: &Record) -> bool {
        if pod.running().is_err() || is_half_made(record) || self.is_on_its_way(record) {
            return false;
        }
        !Self::is_plugged(record) || lock(self.attached().await).contains_key(&record.id)
    }

    /// The addresses of a pod, the first of which is *the* address.
    pub(super) async fn addresses(&self, pod: &Handle, record: &Record) -> Vec<IpAddr> {
        if Self::is_plugged(record) {
            return lock(self.attached().await).get(&record.id).cloned().unwrap_or_default();
        }
        let running = pod.running().ok();
        let lease = running.as_ref().and_then(|running| running.lease.as_ref());
        lease.map(|lease| IpAddr::V4(lease.address)).into_iter().collect()
    }

    /// Gives a pod that was just made its network.
    ///
    /// # Errors
    /// A plugin fails: what was attached is detached.
    pub(super) async fn attach(&self, pod: &Handle) -> Result<()> {
        let record = pod.record()?;
        if !Self::is_plugged(&record) {
            return Ok(());
        }
        let known = self.attached().await;
        shim_failpoints::step!("daemon.pod.before_attach", error);
        let attached =
            self.plugins.cni.attach(self.plugged(pod, &record)?).await.map_err(failed)?;
        lock(known).insert(record.id.clone(), addresses(&attached));
        Ok(())
    }

    /// Takes a pod's network back; without effect when that is done.
    ///
    /// # Errors
    /// A plugin fails: what it did not undo is undone by another try.
    pub(super) async fn detach(&self, pod: &Handle) -> Result<()> {
        let record = pod.record()?;
        if !Self::is_plugged(&record) {
            return Ok(());
        }
        if lock(&self.plugins.detached).contains(&record.id) {
            return Ok(());
        }
        let known = self.attached().await;
        shim_failpoints::step!("daemon.pod.before_detach", error);
        for passed_over in
            self.plugins.cni.detach(self.plugged(pod, &record)?).await.map_err(failed)?
        {
            tracing::warn!(pod = record.id, error = passed_over.chain(), "passed over");
        }
        shim_failpoints::step!("daemon.pod.after_detach", error);
        lock(known).remove(&record.id);
        lock(&self.plugins.detached).insert(record.id.clone());
        Ok(())
    }

    /// Nobody asks for a pod any more.
    pub(super) fn forget_network(&self, id: &str) {
        lock(&self.plugins.detached).remove(id);
    }

    pub(super) async fn network_condition(&self) -> wire::RuntimeCondition {
        let mut condition = wire::RuntimeCondition {
            r#type: super::status::NETWORK_READY.to_owned(),
            status: true,
            ..wire::RuntimeCondition::default()
        };
        if self.settings().network == Network::Bridge {
            return condition;
        }
        match self.plugins.cni.status().await {
            Status::Ready { invalid, .. } => {
                let passed_over: Vec<String> = invalid.iter().map(ToString::to_string).collect();
                condition.message = passed_over.join("; ");
            }
            Status::NotReady(error) => {
                condition.status = false;
                condition.reason = "NetworkPluginNotReady".to_owned();
                condition.message = error.chain();
            }
        }
        condition
    }

    /// Collects what pods have left that are gone: now, and now and then. A machine on which no pod
    /// ever was is left alone.
    pub(super) async fn collect_networks(self: Arc<Self>) {
        loop {
            if self.plugins.cache.exists() {
                let this = Arc::clone(&self);
                let valid = async move {
                    let pods = this.supervisor.sandboxes(&this.namespace);
                    pods.iter().map(|pod| pod.key().id.to_string()).collect::<BTreeSet<_>>()
                };
                let collected = self.plugins.cni.collect(valid).await;
                for error in &collected.failed {
                    tracing::warn!(error = error.chain(), "networks of pods that are gone");
                }
            }
            tokio::time::sleep(COLLECTED).await;
        }
    }

    /// Has plugins look once whether the pods that run when the daemon starts still have what they gave
    /// them. Nobody else asks them: a kubelet has no call for it, and sees only that a pod is there.
    pub(super) async fn check_networks(self: Arc<Self>) {
        let pods = self.supervisor.sandboxes(&self.namespace);
        let mut checks = stream::iter(pods)
            .map(|pod| async { (self.check_network(&pod).await, pod) })
            .buffer_unordered(CHECKED_AT_ONCE);
        // What has no answer for one pod has none for any, and says nothing about them.
        let mut crashed = BTreeMap::<String, (usize, String)>::new();
        while let Some((checked, pod)) = checks.next().await {
            let Err(error) = checked else { continue };
            if let bosun_cni::Error::Plugin { plugin, failure, .. } = &error
                && failure.code().is_none()
            {
                let said = || (0, first_words(&error.chain()));
                crashed.entry(plugin.clone()).or_insert_with(said).0 += 1;
                continue;
            }
            let (pod, error) = (&pod.key().id, error.chain());
            tracing::warn!(%pod, error, "its network is not as plugins made it");
        }
        for (plugin, (pods, error)) in crashed {
            tracing::warn!(plugin, pods, error, "networks of pods could not be checked");
        }
    }

    /// # Errors
    /// What plugins say of the network of a pod that still runs.
    async fn check_network(&self, pod: &Handle) -> bosun_cni::Result<()> {
        let Ok(record) = pod.record() else { return Ok(()) };
        if !Self::is_plugged(&record) || !self.is_ready(pod, &record).await {
            return Ok(());
        }
        let Ok(plugged) = self.plugged(pod, &record) else { return Ok(()) };
        let checked = self.plugins.cni.check(plugged).await;
        // Or it was stopped meanwhile.
        match checked.is_err() && self.is_ready(pod, &record).await {
            true => checked.map(drop),
            false => Ok(()),
        }
    }

    /// A pod as plugins are told of it.
    fn plugged(&self, pod: &Handle, record: &Record) -> Result<Container> {
        // The namespace of one that has ended is going, or gone.
        let path = pod.running().is_ok().then(|| network_path(pod.key()));
        let request = kept::pod(record);
        let (arguments, mut capabilities) =
            convert::plugin_arguments(&record.id, &request.config.unwrap_or_default())?;
        capabilities.ip_ranges = self.plugins.ranges.capability();
        Ok(Container { id: record.id.clone(), netns: path, arguments, capabilities })
    }
}

/// As much of what a plugin wrote as a line of the log should have: some write the traces of all their threads.
fn first_words(text: &str) -> String {
    const MOST: usize = 300;
    match text.char_indices().nth(MOST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Of the first interface, in the order of the plugins.
fn addresses(attached: &[Attached]) -> Vec<IpAddr> {
    attached.iter().flat_map(|one| one.result.container_ips().collect::<Vec<_>>()).collect()
}

pub(super) fn failed(source: bosun_cni::Error) -> Error {
    Error::Plugins(Arc::new(source))
}
