//! What is attached, and belongs to nobody any more.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::cache::{Entry, Key};
use crate::config::{Network, Networks};
use crate::error::{Command, Error, Result};
use crate::operations::is_network_namespace;
use crate::plugins::{About, Input};
use crate::runtime::Inner;
use crate::version::Version;

/// What GC did.
#[derive(Debug, Default)]
pub struct Collected {
    pub removed: Vec<Removed>,
    /// What could not be done; it is tried again by the next.
    pub failed: Vec<Error>,
}

/// An attachment that was undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    pub network: String,
    pub container: String,
    pub interface: String,
}

/// What becomes of a cached attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    Goes,
}

impl Inner {
    pub(crate) async fn collect(&self, valid: &BTreeSet<String>) -> Collected {
        let mut collected = Collected::default();
        if let Err(error) = self.collect_into(valid, &mut collected).await {
            collected.failed.push(error);
        }
        collected
    }

    async fn collect_into(
        &self,
        valid: &BTreeSet<String>,
        collected: &mut Collected,
    ) -> Result<()> {
        let networks = self.networks().await?;
        let (entries, damaged) = self
            .on_disk(|cache| {
                cache.sweep();
                cache.list(None)
            })
            .await?;
        collected.failed.extend(damaged.into_iter().map(|damaged| damaged.error));
        let mut stay = Vec::new();
        for entry in entries {
            match self.fate(&entry, &networks, valid) {
                Fate::Stays => stay.push(entry.key),
                Fate::Goes => match self.undo_cached(&entry).await {
                    Ok(()) => collected.removed.push(Removed {
                        network: entry.key.network,
                        container: entry.key.container,
                        interface: entry.key.interface,
                    }),
                    Err(error) => collected.failed.push(error),
                },
            }
        }
        for (index, network) in networks.networks.iter().enumerate() {
            let interface = self.settings.interface(index);
            let pairs = attachments(network, &interface, valid, &stay);
            self.collect_network(network, pairs, collected).await;
        }
        Ok(())
    }

    /// Ours go when their container is gone. Those of others, which may have networks in common with us,
    /// go as libcni would have it, but only once their namespace is gone.
    fn fate(&self, entry: &Entry, networks: &Networks, valid: &BTreeSet<String>) -> Fate {
        let network = networks.networks.iter().find(|network| network.name == entry.key.network);
        let ours = entry.runtime.as_deref() == Some(&self.settings.runtime);
        let dead = if ours {
            !valid.contains(&entry.key.container)
        } else {
            network.is_some() && !is_network_namespace(Path::new(&entry.netns))
        };
        if dead && !network.is_some_and(|network| network.disable_gc) {
            Fate::Goes
        } else {
            Fate::Stays
        }
    }

    /// The plugins' own garbage: all are asked, whatever the others say.
    async fn collect_network(
        &self,
        network: &Network,
        attachments: Vec<Value>,
        collected: &mut Collected,
    ) {
        let version = match self.version(network).await {
            Ok(version) => version,
            Err(error) => return collected.failed.push(error),
        };
        if network.disable_gc || !version.has_status_and_gc() {
            return;
        }
        for plugin in &network.plugins {
            let done = match self.plugins.find(&network.name, &plugin.kind) {
                Ok(program) => {
                    let request = gc_request(network, plugin, version, &attachments);
                    let whom = (network.name.as_str(), program.as_path());
                    let input = Input::Memory(&request);
                    let deadline = self.settings.deadline;
                    let about = About::default();
                    self.plugins.call(whom, Command::Gc, about, input, deadline).await
                }
                Err(error) => Err(error),
            };
            collected.failed.extend(done.err());
        }
    }
}

/// Under both names: the specification has the first, and its first edition had plugins read the second.
fn gc_request(
    network: &Network,
    plugin: &crate::config::Plugin,
    version: Version,
    attachments: &[Value],
) -> Vec<u8> {
    let list = Value::Array(attachments.to_vec());
    let more = [("cni.dev/valid-attachments", list.clone()), ("cni.dev/attachments", list)];
    plugin.request(&network.name, version, more)
}

/// The attachments of a network that are to be spared: of each valid container the one that it would get,
/// whether or not it is there yet, and all that stay in the cache.
fn attachments(
    network: &Network,
    interface: &str,
    valid: &BTreeSet<String>,
    stay: &[Key],
) -> Vec<Value> {
    let cached = stay.iter().filter(|key| key.network == network.name);
    let pairs: BTreeSet<(&str, &str)> = valid
        .iter()
        .map(|container| (container.as_str(), interface))
        .chain(cached.map(|key| (key.container.as_str(), key.interface.as_str())))
        .collect();
    pairs
        .into_iter()
        .map(|(container, interface)| json!({ "containerID": container, "ifname": interface }))
        .collect()
}
