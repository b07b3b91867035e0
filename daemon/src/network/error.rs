//! What can go wrong with the network, by step and object.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::{Protocol, Subnet};

/// A failed step of the network, with the object it was about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "bridge {name:?}: an interface name has 1 to 15 letters, digits, '.', '_' and '-', and \
         begins with a letter or digit"
    )]
    InvalidName { name: String },
    /// The port is another's. `holder` reads as `PID 812 (nginx)` or `container web`.
    #[error(
        "port {address}:{port}/{protocol} is already in use by {holder}: choose another with -p"
    )]
    PortInUse { address: Ipv4Addr, port: u16, protocol: Protocol, holder: String },
    #[error("port {address}:{port}/{protocol}: this machine has no address {address}")]
    NoSuchAddress { address: Ipv4Addr, port: u16, protocol: Protocol },
    #[error("bind port {address}:{port}/{protocol}")]
    Bind { address: Ipv4Addr, port: u16, protocol: Protocol, source: io::Error },
    #[error(
        "bridge {bridge} belongs to another daemon ({holder}): choose another with --bridge, \
         or stop that one"
    )]
    BridgeInUse { bridge: String, holder: String },
    #[error(
        "subnet {subnet} of bridge {bridge} is already in use by interface {interface}: choose \
         another with --subnet"
    )]
    SubnetInUse { subnet: Subnet, bridge: String, interface: String },
    #[error("address {address} is not in the subnet {subnet} of bridge {bridge}")]
    ForeignAddress { address: Ipv4Addr, subnet: Subnet, bridge: String },
    #[error("interface {name} is there already and is not a bridge: choose another with --bridge")]
    NotABridge { name: String },
    #[error("nft is not installed: install Debian's nftables package")]
    NftMissing,
    #[error("nft: load table {table}: {message}")]
    Nft { table: String, message: String },
    #[error("network: the daemon is shutting down")]
    ShuttingDown,
    #[error("network: {step} {object}")]
    Kernel { step: &'static str, object: String, source: io::Error },
    #[error("network: {step} {}", path.display())]
    File { step: &'static str, path: PathBuf, source: io::Error },
}

impl From<shim_failpoints::Stumble> for Error {
    fn from(stumble: shim_failpoints::Stumble) -> Self {
        Self::Kernel { step: "pass", object: "failpoint".to_owned(), source: stumble.into() }
    }
}
