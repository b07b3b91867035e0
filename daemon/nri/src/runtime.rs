//! What a runtime is to its plugins.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use crate::wire::{Container, ContainerEviction, ContainerUpdate, PodSandbox};

/// How plugins come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where plugins connect; none: only those that are installed.
    pub socket: Option<PathBuf>,
    /// Programs that are started: `INDEX-NAME`.
    pub plugin_directory: PathBuf,
    /// Their configurations: `INDEX-NAME.conf` or `NAME.conf`.
    pub config_directory: PathBuf,
    /// How long who has connected has to say who it is.
    pub registration_timeout: Duration,
    /// How long a plugin has for an answer; one that takes longer is closed.
    pub request_timeout: Duration,
    /// As plugins are told them.
    pub runtime_name: String,
    pub runtime_version: String,
}

impl Default for Settings {
    /// Where and how long every runtime has it.
    fn default() -> Self {
        Self {
            socket: Some("/var/run/nri/nri.sock".into()),
            plugin_directory: "/opt/nri/plugins".into(),
            config_directory: "/etc/nri/conf.d".into(),
            registration_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(2),
            runtime_name: String::new(),
            runtime_version: String::new(),
        }
    }
}

/// All that there is.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    pub pods: Vec<PodSandbox>,
    /// Those that have ended as well, in that state: plugins are not told of these.
    pub containers: Vec<Container>,
}

/// An answer on its way.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The runtime, as far as plugins ask something of it. None of these may wait for a plugin.
pub trait Runtime: Send + Sync + 'static {
    fn inventory(&self) -> Answer<'_, Inventory>;

    /// Changes limits of containers; answers those that could not be.
    fn update(&self, updates: Vec<ContainerUpdate>) -> Answer<'_, Vec<ContainerUpdate>>;

    /// Stops containers.
    fn evict(&self, evictions: Vec<ContainerEviction>) -> Answer<'_, ()>;
}
