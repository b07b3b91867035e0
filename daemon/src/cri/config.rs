//! `[cri]` and `[nri]` of the configuration file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::descriptors;

/// One of so many descriptors may be a connection for streams: a session has some more, and whoever may connect
/// at all is not to leave the daemon without.
const STREAMS_SHARE: u64 = 16;

/// What a node's administrator chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Configured {
    pub network: Network,
    pub cgroup_driver: CgroupDriver,
    /// Where configurations of networks lie [default: /etc/cni/net.d]
    pub cni_conf_dir: Option<PathBuf>,
    /// A configuration to be filled with the addresses that the cluster gives to the node's pods, where
    /// there is none of somebody else's.
    pub cni_conf_template: Option<PathBuf>,
    /// Where plugins are searched [default: /opt/cni/bin, /usr/lib/cni]
    pub cni_bin_dirs: Vec<PathBuf>,
    /// Where exec, attach and port-forward are served [default: 127.0.0.1:0, any free port]
    pub stream_address: Option<SocketAddr>,
    /// Serve them over TLS: the certificate and the key, in PEM.
    pub stream_certificate: Option<PathBuf>,
    pub stream_key: Option<PathBuf>,
}

impl Configured {
    /// How streams are served.
    pub(super) fn streams(&self) -> bosun_streaming::Config {
        let defaults = bosun_streaming::Config::default();
        let tls = self.stream_certificate.clone().zip(self.stream_key.clone());
        bosun_streaming::Config {
            address: self.stream_address.unwrap_or(defaults.address),
            connections: defaults.connections.min(descriptors::part(STREAMS_SHARE)),
            tls: tls.map(|(certificate, key)| bosun_streaming::Tls { certificate, key }),
            ..defaults
        }
    }
}

/// Who makes the network of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Plugins, as a cluster's network brings them.
    #[default]
    Cni,
    /// bosun's own bridge: for a machine that is in no cluster.
    Bridge,
}

/// Who manages control groups: what the kubelet is told, for both have to do the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    #[default]
    Cgroupfs,
    /// Pods are slices, and their containers scopes.
    Systemd,
}

/// Plugins that see pods and containers come and go, and change them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct NriConfigured {
    /// No plugins at all.
    pub disable: bool,
    /// Only plugins that are installed: no socket.
    pub disable_connections: bool,
    /// [default: /var/run/nri/nri.sock, or STATE/nri.sock when the root is not the default]
    pub socket: Option<PathBuf>,
    /// Programs that are started with the daemon [default: /opt/nri/plugins]
    pub plugin_dir: Option<PathBuf>,
    /// Their configurations [default: /etc/nri/conf.d]
    pub plugin_config_dir: Option<PathBuf>,
    /// Milliseconds until a plugin that has connected must have said who it is [default: 5000]
    pub registration_timeout: Option<u64>,
    /// Milliseconds until a plugin must have answered [default: 2000]
    pub request_timeout: Option<u64>,
}

impl NriConfigured {
    /// `None` when it is switched off; `socket` is in place of the default.
    pub(crate) fn settings(self, socket: Option<PathBuf>) -> Option<bosun_nri::Settings> {
        if self.disable {
            return None;
        }
        let defaults = bosun_nri::Settings::default();
        let socket = self.socket.or(socket).or(defaults.socket);
        let time = |asked: Option<u64>, or| asked.map_or(or, Duration::from_millis);
        Some(bosun_nri::Settings {
            socket: socket.filter(|_| !self.disable_connections),
            plugin_directory: self.plugin_dir.unwrap_or(defaults.plugin_directory),
            config_directory: self.plugin_config_dir.unwrap_or(defaults.config_directory),
            registration_timeout: time(self.registration_timeout, defaults.registration_timeout),
            request_timeout: time(self.request_timeout, defaults.request_timeout),
            runtime_name: "bosun".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}
