//! `[cri]` of the configuration file.

use std::net::SocketAddr;
use std::path::PathBuf;

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
