//! Attach, detach and check, from the cache to the plugins.
//!
//! ADD runs a network's plugins in order, each with the result of the one before; DEL runs them in
//! reverse, with the result that ADD ended with. When a plugin fails at ADD, it and those before it are
//! undone, all of them, whatever the undoing says: addresses would be used up by tries otherwise. An
//! ordinary DEL halts at the first that fails (specification, section 3): an address that is let go while
//! a port still leads to it would be another container's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::attachment::{Arguments, Container};
use crate::cache::{Damaged, Entry, Key};
use crate::config::Network;
use crate::error::{Command, Error, Failure, Result};
use crate::lock::Lock;
use crate::name;
use crate::plugins::{self, About, Input};
use crate::process;
use crate::result::NetworkResult;
use crate::runtime::{Attached, Checked, Inner};
use crate::version::Version;

/// An attachment that is to be made or undone.
struct Attachment<'a> {
    entry: &'a Entry,
    version: Version,
    /// In the order of the network's plugins.
    programs: Vec<PathBuf>,
    netns: &'a str,
    lock: &'a Lock,
}

impl Inner {
    pub(crate) async fn attach(&self, container: &Container) -> Result<Vec<Attached>> {
        container.check()?;
        let netns = container.netns.as_deref().filter(|path| is_network_namespace(path));
        let Some(netns) = netns else {
            let path = container.netns.clone().unwrap_or_default();
            let (value, problem) =
                (path.display().to_string(), "is not a network namespace's path");
            return Err(Error::Argument { what: "network namespace", value, problem });
        };
        let lock = self.locks.lock(&container.id, self.settings.deadline).await?;
        // Everything that can be known to be wrong, before anything is run.
        let mut begun = Vec::new();
        for (index, mut network) in self.configured().await?.networks.into_iter().enumerate() {
            let interface = self.settings.interface(index);
            name::interface(&interface)?;
            let key = Key {
                network: network.name.clone(),
                container: container.id.clone(),
                interface: interface.clone(),
            };
            key.check()?;
            let programs = self.plugins.find_all(&network)?;
            network.versions = vec![self.version(&network).await?];
            begun.push((self.entry(key, network, container, netns), programs));
        }
        let (there, damaged) = self.cached(&container.id).await?;
        if let Some(Key { network, container, interface }) = there.into_iter().map(|e| e.key).next()
        {
            return Err(Error::Attached { network, container, interface });
        }
        Error::all(damaged.into_iter().map(|damaged| damaged.error).collect())?;

        let mut attached: Vec<Attached> = Vec::new();
        let netns = netns.to_str().unwrap_or_default();
        for (index, (entry, programs)) in begun.iter_mut().enumerate() {
            let programs = std::mem::take(programs);
            match self.add(entry, programs, netns, &lock).await {
                Ok(one) => attached.push(one),
                Err(Error::Add { cause, left }) => {
                    let mut errors: Vec<Error> = left.into_iter().map(|left| *left).collect();
                    for (entry, _) in begun[..index].iter().rev() {
                        errors.extend(self.del(entry, netns, &lock).await.err());
                    }
                    let left = Error::all(errors).err().map(Box::new);
                    return Err(Error::Add { cause, left });
                }
                Err(other) => return Err(other),
            }
        }
        Ok(attached)
    }

    fn entry(&self, key: Key, network: Network, container: &Container, netns: &Path) -> Entry {
        Entry {
            key,
            network,
            netns: netns.display().to_string(),
            arguments: container.arguments.pairs().to_vec(),
            capabilities: container.capabilities.to_json(),
            result: None,
            runtime: Some(self.settings.runtime.clone()),
            tries: 0,
        }
    }

    /// ADD, from the intent to the result, or to the undoing: every error is an [`Error::Add`].
    async fn add(
        &self,
        entry: &mut Entry,
        programs: Vec<PathBuf>,
        netns: &str,
        lock: &Lock,
    ) -> Result<Attached> {
        let version = entry.network.newest();
        if let Err(cause) = self.put(entry).await {
            // Nothing has been run; but it may be there, and not be durable.
            let left = self.forget(&entry.key).await.err().map(Box::new);
            return Err(Error::Add { cause: Box::new(cause), left });
        }
        let attachment = Attachment { entry, version, programs, netns, lock };
        let mut result: Option<NetworkResult> = None;
        let mut failed = None;
        for index in 0..attachment.programs.len() {
            match self.add_one(&attachment, index, result.as_ref()).await {
                Ok(next) => result = Some(next),
                Err(error) => {
                    failed = Some((index, error));
                    break;
                }
            }
        }
        let Some((index, cause)) = failed else {
            let result = result.unwrap_or_default();
            let (network, interface) = (entry.key.network.clone(), entry.key.interface.clone());
            entry.result = Some(result.clone());
            return match self.put(entry).await {
                Ok(()) => Ok(Attached { network, interface, result }),
                Err(cause) => {
                    let left = self.del(entry, netns, lock).await.err().map(Box::new);
                    Err(Error::Add { cause: Box::new(cause), left })
                }
            };
        };
        let mut errors = Vec::new();
        for index in (0..=index).rev() {
            errors.extend(self.del_one(&attachment, index, result.as_ref()).await.err());
        }
        if errors.is_empty() {
            errors.extend(self.forget(&entry.key).await.err());
        }
        let left = Error::all(errors).err().map(Box::new);
        Err(Error::Add { cause: Box::new(cause), left })
    }

    async fn add_one(
        &self,
        attachment: &Attachment<'_>,
        index: usize,
        before: Option<&NetworkResult>,
    ) -> Result<NetworkResult> {
        shim_failpoints::step!("daemon.cni.before_add", error);
        let answer = self.run(attachment, index, Command::Add, before).await?;
        shim_failpoints::step!("daemon.cni.after_add", error);
        NetworkResult::read(&answer, attachment.version).map_err(|problem| {
            let whom =
                (attachment.entry.key.network.as_str(), attachment.programs[index].as_path());
            let said = process::tail(&answer);
            plugins::failed(whom, Command::Add, Failure::Answer { problem, said })
        })
    }

    async fn del_one(
        &self,
        attachment: &Attachment<'_>,
        index: usize,
        result: Option<&NetworkResult>,
    ) -> Result<()> {
        let result = result.filter(|_| attachment.version.has_check());
        shim_failpoints::step!("daemon.cni.before_del", error);
        self.run(attachment, index, Command::Del, result).await?;
        shim_failpoints::step!("daemon.cni.after_del", error);
        Ok(())
    }

    /// Runs one plugin of an attachment.
    async fn run(
        &self,
        attachment: &Attachment<'_>,
        index: usize,
        command: Command,
        result: Option<&NetworkResult>,
    ) -> Result<Vec<u8>> {
        let Attachment { entry, version, programs, netns, lock } = attachment;
        let (plugin, whom) = (
            &entry.network.plugins[index],
            (entry.key.network.as_str(), programs[index].as_path()),
        );
        let mut more = Vec::new();
        more.extend(result.map(|result| ("prevResult", result.write(*version))));
        let capabilities = plugin.runtime_config(&entry.capabilities);
        more.extend(capabilities.map(|capabilities| ("runtimeConfig", capabilities)));
        let request = plugin.request(&entry.key.network, *version, more);
        let input = lock.input(&request).map_err(|source| {
            let failure = Failure::Run { step: "hand over its configuration", source };
            plugins::failed(whom, command, failure)
        })?;
        let arguments = Arguments::from_pairs(entry.arguments.clone()).environment();
        let about = About {
            container: &entry.key.container,
            netns,
            interface: &entry.key.interface,
            arguments: &arguments,
        };
        let (input, deadline) = (Input::File(input), self.settings.deadline);
        self.plugins.call(whom, command, about, input, deadline).await
    }

    /// DEL of all plugins, until one fails; then the entry goes.
    async fn del(&self, entry: &Entry, netns: &str, lock: &Lock) -> Result<()> {
        let programs = self.plugins.find_all(&entry.network)?;
        let version = self.version(&entry.network).await?;
        let attachment = Attachment { entry, version, programs, netns, lock };
        for index in (0..attachment.programs.len()).rev() {
            self.del_one(&attachment, index, entry.result.as_ref()).await?;
        }
        self.forget(&entry.key).await
    }

    /// DEL of what GC found.
    pub(crate) async fn undo_cached(&self, entry: &Entry) -> Result<()> {
        let lock = self.locks.lock(&entry.key.container, self.settings.deadline).await?;
        self.del(entry, living(Some(Path::new(&entry.netns))), &lock).await
    }

    pub(crate) async fn detach(&self, container: &Container) -> Result<Vec<Error>> {
        container.check()?;
        let lock = self.locks.lock(&container.id, self.settings.deadline).await?;
        let (mut entries, damaged) = self.cached(&container.id).await?;
        let (mut passed_over, mut failed) = (Vec::new(), Vec::new());
        let mut seen: BTreeSet<Key> = BTreeSet::new();
        // The last was attached last. Numbers with more digits are greater.
        entries.sort_by_key(|entry| (entry.key.interface.len(), entry.key.interface.clone()));
        for entry in entries.iter().rev() {
            seen.insert(entry.key.clone());
            let netns = living(container.netns.as_deref().or(Some(Path::new(&entry.netns))));
            failed.extend(self.del(entry, netns, &lock).await.err());
        }
        let networks = match self.networks().await {
            Ok(networks) => networks.networks,
            Err(error) => {
                passed_over.push(error);
                Vec::new()
            }
        };
        let mut uncached: Vec<(Key, bool)> = Vec::new();
        for damaged in damaged {
            passed_over.push(damaged.error);
            uncached.extend(damaged.key.map(|key| (key, true)));
        }
        for (index, network) in networks.iter().enumerate() {
            let key = Key {
                network: network.name.clone(),
                container: container.id.clone(),
                interface: self.settings.interface(index),
            };
            if uncached.iter().all(|(one, _)| *one != key) {
                uncached.push((key, false));
            }
        }
        let netns = living(container.netns.as_deref());
        for (key, cached) in uncached.into_iter().rev().filter(|(key, _)| !seen.contains(key)) {
            let Some(network) = networks.iter().find(|network| network.name == key.network) else {
                let Key { network, container, interface } = key;
                failed.push(Error::Unconfigured { network, container, interface, cached });
                continue;
            };
            let path = container.netns.clone().unwrap_or_default();
            let entry = self.entry(key, network.clone(), container, &path);
            match self.del(&entry, netns, &lock).await {
                Ok(()) => {}
                // Nothing says that it was ever attached, and a plugin that can't be run never was.
                Err(error) if !cached && never_ran(&error) => passed_over.push(error),
                Err(error) => failed.push(error),
            }
        }
        Error::all(failed).map(|()| passed_over)
    }

    pub(crate) async fn check(&self, container: &Container) -> Result<Vec<(String, Checked)>> {
        container.check()?;
        let lock = self.locks.lock(&container.id, self.settings.deadline).await?;
        let (entries, damaged) = self.cached(&container.id).await?;
        Error::all(damaged.into_iter().map(|damaged| damaged.error).collect())?;
        let mut checked = Vec::new();
        for entry in &entries {
            let Some(result) = &entry.result else { continue };
            let version = entry.network.newest();
            let interface = entry.key.interface.clone();
            if entry.network.disable_check || !version.has_check() {
                checked.push((interface, Checked::Skipped));
                continue;
            }
            let programs = self.plugins.find_all(&entry.network)?;
            let netns = &entry.netns;
            let attachment = Attachment { entry, version, programs, netns, lock: &lock };
            for index in 0..attachment.programs.len() {
                self.run(&attachment, index, Command::Check, Some(result)).await?;
            }
            checked.push((interface, Checked::Whole));
        }
        if checked.is_empty() {
            return Err(Error::NotAttached { container: container.id.clone() });
        }
        Ok(checked)
    }

    async fn cached(&self, container: &str) -> Result<(Vec<Entry>, Vec<Damaged>)> {
        let container = container.to_owned();
        self.on_disk(move |cache| cache.list(Some(&container))).await
    }

    pub(crate) async fn put(&self, entry: &Entry) -> Result<()> {
        let entry = entry.clone();
        self.on_disk(move |cache| cache.put(&entry)).await
    }

    pub(crate) async fn forget(&self, key: &Key) -> Result<()> {
        let key = key.clone();
        self.on_disk(move |cache| cache.remove(&key)).await
    }
}

pub(crate) fn never_ran(error: &Error) -> bool {
    matches!(
        error,
        Error::PluginMissing { .. } | Error::PluginUnusable { .. } | Error::PluginVersion { .. }
    )
}

/// What DEL is told: nothing of a namespace that is gone.
fn living(netns: Option<&Path>) -> &str {
    netns.filter(|path| is_network_namespace(path)).and_then(Path::to_str).unwrap_or_default()
}

/// Whether a namespace is at a path: after a reboot, or when it was unmounted, there may be a plain file.
pub(crate) fn is_network_namespace(path: &Path) -> bool {
    /// NSFS_MAGIC of linux/magic.h.
    const NSFS: i64 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == NSFS)
}
