//! The built-in bridge network: one bridge, one nftables table, a veth pair per container.
//!
//! ```text
//!   outside ── host ── table ip bosun-BRIDGE (dnat by maps, masquerade) ── BRIDGE .1
//!                                                                            ├─ vXXXX… ═ eth0 (container)
//!                                                                            └─ vYYYY… ═ eth0 (container)
//! ```
//!
//! Everything made here is found again by name alone, so what a killed daemon left is adopted by
//! [`Bridge::open`] and put right by [`Bridge::reconcile`]. Nothing but the bridge, our table and
//! the veths named by us is ever changed, save two switches of the kernel: `ip_forward` (switched
//! on, never off again) and `route_localnet` of the bridge.
//!
//! No process is in the data path. The sockets of [`bind_ports`] only keep ports taken; the shim
//! holds them.
//!
//! Deliberately absent: leases (the store's), `/etc/hosts` and `/etc/resolv.conf` (the container's
//! files), the modes `host`, `none` and `container:ID` (no bridge takes part), IPv6.

mod error;
mod holder;
mod ports;
mod subnet;

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use shim_wire::id::Id;

pub use error::Error;
pub use ports::{
    BoundPort, InvalidPublish, PortOwner, Protocol, Publish, Published, bind_ports, parse_publish,
};
pub use subnet::{InvalidSubnet, Subnet, pick};

/// What a bridge is made from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the interface; the table is `bosun-NAME`.
    pub bridge: String,
    pub subnet: Subnet,
    /// Where the machine-wide lock of the bridge lies, such as `/run/lock`. It must be the same for
    /// all daemons of the machine.
    pub lock_directory: PathBuf,
}

/// A container's place on the bridge: what the store knows of it while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub namespace: Id,
    pub id: Id,
    /// Leased by the caller, see [`pick`].
    pub address: Ipv4Addr,
    /// As [`bind_ports`] gave them: host ports are numbers, never 0.
    pub ports: Vec<Published>,
}

/// What [`Bridge::attach`] made.
#[derive(Debug)]
pub struct Attached {
    /// The container's network namespace, loopback up, `eth0` up with address and default route.
    /// It lives as long as this descriptor or a process in it.
    pub netns: OwnedFd,
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub gateway: Ipv4Addr,
    /// Of `eth0`, as `02:42:ac:1e:00:02`.
    pub mac: String,
    /// Name of the host's end of the veth pair.
    pub host_interface: String,
}

/// Something that works against the bridge and is not ours to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A foreign firewall drops forwarded packets unless a rule of its own lets them pass.
    ForwardDropped {
        /// `table ip filter, chain FORWARD`.
        chain: String,
    },
}

/// What [`Bridge::reconcile`] changed, and what it could not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Interfaces of containers that are gone, removed.
    pub removed_interfaces: Vec<String>,
    /// Published ports that nobody expects, removed.
    pub removed_ports: Vec<String>,
    /// Published ports that were missing, added.
    pub added_ports: Vec<String>,
    /// Expected containers without their interface: they have no network until restarted.
    pub without_interface: Vec<(Id, Id)>,
}

/// The bridge of this daemon. Cheap to clone; the lock is held until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Bridge {
    settings: Settings,
}

impl Bridge {
    /// Takes the bridge's lock, makes the bridge and the table or adopts them, and makes sure that
    /// the kernel forwards. Idempotent. Warnings are for the log and for `info`.
    ///
    /// # Errors
    /// Another daemon has the bridge; the subnet is in use elsewhere; `nft` is missing or fails; the
    /// kernel refuses.
    pub async fn open(settings: Settings) -> Result<(Self, Vec<Warning>), Error> {
        Err(Error::NotBuilt { step: "open", object: settings.bridge })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.bridge
    }

    #[must_use]
    pub fn subnet(&self) -> Subnet {
        self.settings.subnet
    }

    /// Makes a network namespace with `eth0` on the bridge and switches the published ports on. What
    /// an earlier try for the same container left is replaced. On failure nothing stays behind.
    ///
    /// # Errors
    /// The kernel refuses a step, or the address is not of the subnet.
    pub async fn attach(&self, endpoint: &Endpoint) -> Result<Attached, Error> {
        Err(Error::NotBuilt { step: "attach", object: endpoint.id.to_string() })
    }

    /// Switches the published ports off, forgets their connections and removes the interface.
    /// Idempotent: what is gone already is fine.
    ///
    /// # Errors
    /// The kernel refuses a step.
    pub async fn detach(&self, endpoint: &Endpoint) -> Result<(), Error> {
        Err(Error::NotBuilt { step: "detach", object: endpoint.id.to_string() })
    }

    /// Makes interfaces and published ports exactly what is expected. Touches nothing foreign.
    ///
    /// # Errors
    /// The kernel refuses a step.
    pub async fn reconcile(&self, expected: Vec<Endpoint>) -> Result<Report, Error> {
        Err(Error::NotBuilt { step: "reconcile", object: format!("{expected:?}") })
    }

    /// Removes the interfaces, the bridge and the table (uninstall, tests). `ip_forward` stays on.
    ///
    /// # Errors
    /// The kernel refuses a step.
    pub async fn remove_all(&self) -> Result<(), Error> {
        Err(Error::NotBuilt { step: "remove", object: self.settings.bridge.clone() })
    }
}
