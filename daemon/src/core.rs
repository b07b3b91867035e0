//! What every part of the core needs: configuration, places, store, network, cgroups. Made once at
//! start and shared.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use shim_cgroup::Layout as Cgroups;

use crate::apparmor::{self, DefaultProfile, Support};
use crate::config::Config;
use crate::container::Key;
use crate::content::Content;
use crate::gc::Collector;
use crate::images::Images;
use crate::layout::Layout;
use crate::leases::Leases;
use crate::network::{self, Bridge};
use crate::shim;
use crate::snapshots::Snapshots;
use crate::spec::Machine;
use crate::store::Store;
use crate::turns::Turns;

/// The shared ground of the daemon.
#[derive(Debug)]
pub struct Core {
    pub config: Config,
    pub layout: Layout,
    pub store: Store,
    pub snapshots: Snapshots,
    pub content: Content,
    pub leases: Leases,
    pub images: Images,
    pub collector: Collector,
    pub shim: shim::Program,
    pub cgroups: Cgroups,
    pub network: Arc<Network>,
    pub machine: Machine,
    pub apparmor: DefaultProfile,
    /// Who works on the files of a container that does not run, or starts it.
    pub trees: Turns<Key>,
    /// Who adds a process to a container, shared; who holds it still to write it down, or to commit it, has it
    /// alone. Whoever wants both turns waits for this one first.
    pub processes: Turns<Key>,
}

impl Core {
    /// Puts the default profile of AppArmor into the kernel, where that can be and is not done yet.
    ///
    /// # Errors
    /// The kernel does not get it.
    pub async fn confine(&self) -> Result<(), apparmor::Error> {
        match &self.machine.apparmor {
            Support::Full { parser } => self.apparmor.ensure(parser).await,
            Support::NoDefault { .. } | Support::Absent => Ok(()),
        }
    }
}

/// The bridge and the addresses given out on it.
#[derive(Debug)]
pub struct Network {
    pub bridge: Bridge,
    addresses: Mutex<Addresses>,
}

#[derive(Debug, Default)]
struct Addresses {
    leased: BTreeSet<Ipv4Addr>,
    last: Option<Ipv4Addr>,
}

impl Network {
    #[must_use]
    pub fn new(bridge: Bridge) -> Self {
        Self { bridge, addresses: Mutex::default() }
    }

    /// Gives out a free address; `None` when the subnet is full.
    #[must_use]
    pub fn lease(&self) -> Option<Ipv4Addr> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network::pick(self.bridge.subnet(), &addresses.leased, addresses.last)?;
        addresses.leased.insert(address);
        addresses.last = Some(address);
        Some(address)
    }

    /// Marks an address that a record holds.
    pub fn hold(&self, address: Ipv4Addr) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.leased.insert(address);
        addresses.last = Some(address);
    }

    /// Takes an address back.
    pub fn free(&self, address: Ipv4Addr) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.leased.remove(&address);
    }
}
