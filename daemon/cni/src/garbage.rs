//! What is attached, and belongs to nobody any more.
//!
//! What plugins can't undo is tried again by the next GC; where nothing of it can be in use any more, for
//! its container and its network namespace are gone, only so often: a container that can't be attached is
//! made again and again, and each would leave something that costs every GC a run of the plugins.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::cache::{Entry, Key};
use crate::config::{Network, Networks};
use crate::error::{Command, Error, Result};
use crate::operations::{is_network_namespace, never_ran};
use crate::plugins::{About, Input};
use crate::result::NetworkResult;
use crate::runtime::Inner;
use crate::version::Version;

/// How often GC tries to undo what plugins fail to, when it is nobody's and its namespace is gone. More
/// than once, for plugins that ask a daemon of theirs fail until that is up.
const TRIES: u32 = 3;

/// What GC did.
#[derive(Debug, Default)]
pub struct Collected {
    pub removed: Vec<Removed>,
    /// What could not be done; it is tried again by the next, but for [`Error::GivenUp`].
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
                    Err(error) => collected.failed.push(self.not_undone(entry, error).await),
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

    /// Counts a try to undo what belongs to nobody, and gives it up after the last.
    async fn not_undone(&self, mut entry: Entry, cause: Error) -> Error {
        let by_plugins = matches!(cause, Error::Plugin { .. }) || never_ran(&cause);
        let ours = entry.runtime.as_deref() == Some(&self.settings.runtime);
        if !by_plugins || !ours || is_network_namespace(Path::new(&entry.netns)) {
            return cause;
        }
        entry.tries = entry.tries.saturating_add(1);
        let is_last = entry.tries >= TRIES;
        let noted = if is_last { self.forget(&entry.key).await } else { self.put(&entry).await };
        match noted {
            Err(error) => Error::Several(vec![cause, error]),
            Ok(()) if is_last => given_up(entry, cause),
            Ok(()) => cause,
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

fn given_up(entry: Entry, cause: Error) -> Error {
    let mut left: Vec<String> =
        entry.network.plugins.iter().map(|plugin| format!("what {} made", plugin.kind)).collect();
    let addresses = entry.result.iter().flat_map(NetworkResult::container_ips);
    left.extend(addresses.map(|address| format!("address {address}")));
    let mappings = entry.capabilities.get("portMappings").and_then(Value::as_array);
    let ports = mappings.into_iter().flatten().filter_map(|mapping| mapping["hostPort"].as_u64());
    left.extend(ports.map(|port| format!("port {port} of the host")));
    let Key { network, container, interface } = entry.key;
    let cause = Box::new(cause);
    Error::GivenUp { network, container, interface, tries: entry.tries, left, cause }
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
