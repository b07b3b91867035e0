//! Whether containers can be attached: what a CRI runtime says as `NetworkReady`. And in which version.

use std::fmt;

use crate::config::Network;
use crate::error::{Command, Error, InvalidFile, Result};
use crate::plugins::{About, Input};
use crate::runtime::Inner;
use crate::version::Version;

/// The state of the network.
#[derive(Debug)]
pub enum Status {
    /// `invalid` are files that were passed over, for people to look at.
    Ready {
        networks: Vec<String>,
        invalid: Vec<InvalidFile>,
    },
    NotReady(Box<Error>),
}

impl Status {
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self {
            Status::Ready { .. } => true,
            Status::NotReady(_) => false,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::NotReady(error) => f.write_str(&error.chain()),
            Status::Ready { networks, invalid } => {
                write!(f, "ready: {}", networks.join(", "))?;
                invalid.iter().try_for_each(|file| write!(f, "; passed over {file}"))
            }
        }
    }
}

impl Inner {
    pub(crate) async fn ready(&self) -> Result<Status> {
        let found = self.configured().await?;
        for network in &found.networks {
            let version = self.common_version(network).await?;
            if !version.has_status_and_gc() {
                continue;
            }
            for (plugin, program) in network.plugins.iter().zip(self.plugins.find_all(network)?) {
                let request = plugin.request(&network.name, version, []);
                let whom = (network.name.as_str(), program.as_path());
                let (input, deadline) = (Input::Memory(&request), self.settings.probe_deadline);
                let about = About::default();
                self.plugins.call(whom, Command::Status, about, input, deadline).await?;
            }
        }
        let networks = found.networks.into_iter().map(|network| network.name).collect();
        Ok(Status::Ready { networks, invalid: found.invalid })
    }

    /// The newest version that configuration and plugins have in common. Only where there is a choice
    /// are plugins asked: the oldest ones can't be.
    pub(crate) async fn version(&self, network: &Network) -> Result<Version> {
        if network.versions.len() == 1 {
            return Ok(network.newest());
        }
        self.common_version(network).await
    }

    async fn common_version(&self, network: &Network) -> Result<Version> {
        let mut versions = network.versions.clone();
        for (plugin, program) in network.plugins.iter().zip(self.plugins.find_all(network)?) {
            let whom = (network.name.as_str(), program.as_path());
            let supported = self.plugins.versions(whom, self.settings.probe_deadline).await?;
            versions.retain(|version| supported.iter().any(|one| one == version.as_str()));
            if versions.is_empty() {
                return Err(Error::PluginVersion {
                    network: network.name.clone(),
                    plugin: plugin.kind.clone(),
                    version: network.newest().to_string(),
                    supported,
                });
            }
        }
        Ok(versions.first().copied().unwrap_or(Version::V0_1_0))
    }
}
