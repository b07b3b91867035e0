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

mod attach;
mod conntrack;
mod error;
mod holder;
mod link;
mod name;
mod netlink;
mod netns;
mod nftables;
mod ports;
mod setup;
mod subnet;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shim_wire::id::Id;

use netlink::Socket;

pub use error::Error;
pub use name::mac_of;
pub(crate) use netns::in_namespace;
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
    /// Where the machine-wide lock of the bridge lies, such as `/run`: the same for all daemons of
    /// the machine, and writable by root alone, so that nobody else can take the lock's name.
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
    /// Of `eth0`, as `02:b0:ac:1e:00:02`.
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

/// How long work that nobody waits for holds back behind what is waited for.
const HOLD_BACK: Duration = Duration::from_millis(20);

/// The bridge of this daemon. Cheap to clone; the lock is held until the last clone is dropped.
///
/// Every method works on tokio's blocking threads: netlink itself takes microseconds, but the kernel
/// holds one lock for all of it, and removing anybody's interface keeps that for milliseconds.
#[derive(Clone, Debug)]
pub struct Bridge {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    /// The bridge's interface index; another one after somebody removed the bridge.
    index: AtomicU32,
    stock: netns::Stock,
    /// For the table; held while elements are looked at and then changed.
    nftables: Mutex<Socket>,
    forgetting: conntrack::Forgetting,
    _lock: File,
}

impl Inner {
    fn bridge(&self) -> &str {
        &self.settings.bridge
    }

    fn subnet(&self) -> Subnet {
        self.settings.subnet
    }

    fn index(&self) -> u32 {
        self.index.load(Ordering::Relaxed)
    }

    fn remember(&self, index: u32) {
        self.index.store(index, Ordering::Relaxed);
    }

    /// A panic while it is held leaves a socket with unread answers, which the next use passes over.
    fn nftables(&self) -> MutexGuard<'_, Socket> {
        self.nftables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bridge {
    /// Takes the bridge's lock, makes the bridge and the table or adopts them, and makes sure that
    /// the kernel forwards. Idempotent. Warnings are for the log and for `info`.
    ///
    /// # Errors
    /// Another daemon has the bridge; the subnet is in use elsewhere; `nft` is missing or fails; the
    /// kernel refuses.
    pub async fn open(settings: Settings) -> Result<(Self, Vec<Warning>), Error> {
        blocking(move || {
            if !name::is_interface(&settings.bridge) {
                return Err(Error::InvalidName { name: settings.bridge });
            }
            let lock = setup::lock(&settings)?;
            let index = AtomicU32::new(setup::ensure(&settings.bridge, settings.subnet)?);
            let stock = netns::Stock::open()?;
            let mut nftables = setup::netfilter(&settings.bridge)?;
            let forgetting = conntrack::Forgetting::new(setup::netfilter(&settings.bridge)?);
            let warnings = setup::warnings(&mut nftables);
            let nftables = Mutex::new(nftables);
            let inner = Inner { settings, index, stock, nftables, forgetting, _lock: lock };
            Ok((Self { inner: Arc::new(inner) }, warnings))
        })
        .await
    }

    #[must_use]
    pub fn name(&self) -> &str {
        self.inner.bridge()
    }

    #[must_use]
    pub fn subnet(&self) -> Subnet {
        self.inner.subnet()
    }

    /// Makes a network namespace with `eth0` on the bridge and switches the published ports on. What
    /// an earlier try for the same container left is replaced. On failure nothing stays behind; when
    /// the future is dropped half-way, the work goes on and only [`Self::detach`] undoes it.
    ///
    /// # Errors
    /// The kernel refuses a step, or the address is not of the subnet.
    pub async fn attach(&self, endpoint: &Endpoint) -> Result<Attached, Error> {
        let (inner, endpoint) = (Arc::clone(&self.inner), endpoint.clone());
        let forget = conntrack::before(&endpoint.ports);
        let attached = blocking(move || attach::attach(&inner, &endpoint)).await?;
        self.forget_soon(forget);
        Ok(attached)
    }

    /// Switches the published ports off; a moment later their connections are forgotten. The interface
    /// goes with the container's namespace; when that is held by somebody else, it is removed.
    /// Idempotent: what is gone already is fine.
    ///
    /// # Errors
    /// The kernel refuses a step.
    pub async fn detach(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let (inner, endpoint) = (Arc::clone(&self.inner), endpoint.clone());
        let address = endpoint.address;
        let published = !endpoint.ports.is_empty();
        let left = blocking(move || attach::detach(&inner, &endpoint)).await?;
        if published {
            self.forget_soon(vec![conntrack::Which::AnsweredBy(address)]);
        }
        if let Some(interface) = left {
            tokio::spawn(async move {
                tokio::time::sleep(attach::LINGER).await;
                let removing = blocking(move || attach::remove_left(&interface));
                if let Err(error) = removing.await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "interface left");
                }
            });
        }
        Ok(())
    }

    /// Switches the published ports off, after a [`detach`](Self::detach) that failed. The interface may be
    /// that of the container's next run by now.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub async fn release_ports(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let (inner, endpoint) = (Arc::clone(&self.inner), endpoint.clone());
        let address = endpoint.address;
        blocking(move || attach::release(&inner, &endpoint)).await?;
        self.forget_soon(vec![conntrack::Which::AnsweredBy(address)]);
        Ok(())
    }

    /// Makes interfaces and published ports exactly what is expected, and the bridge and the table
    /// when they are gone. Touches nothing foreign. For a time when nothing else is attached or
    /// detached, such as the daemon's start: what is not expected is removed.
    ///
    /// # Errors
    /// The kernel refuses a step.
    pub async fn reconcile(&self, expected: Vec<Endpoint>) -> Result<Report, Error> {
        let inner = Arc::clone(&self.inner);
        let forget = conntrack::strange(self.subnet(), &expected);
        let report = blocking(move || attach::reconcile(&inner, &expected)).await?;
        self.forget_soon(forget);
        Ok(report)
    }

    /// Removes the interfaces, the bridge and the table (uninstall, tests). `ip_forward` stays on.
    ///
    /// # Errors
    /// The kernel refuses a step.
    pub async fn remove_all(&self) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        blocking(move || setup::remove_all(&inner)).await
    }

    /// Connections that must not go on as they are, forgotten beside other work. What a daemon that
    /// is killed meanwhile leaves of it, [`Self::reconcile`] of the next one finds.
    fn forget_soon(&self, which: Vec<conntrack::Which>) {
        if !self.inner.forgetting.add(which) {
            return;
        }
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            tokio::time::sleep(HOLD_BACK).await;
            let forgetting = blocking(move || {
                shim_failpoints::step!("daemon.detach.before_forget", error);
                inner.forgetting.forget().map_err(|rejected| Error::Kernel {
                    step: "forget the connections of released ports on",
                    object: inner.bridge().to_owned(),
                    source: rejected.into(),
                })
            });
            if let Err(error) = forgetting.await {
                tracing::warn!(error = &error as &dyn std::error::Error, "connections left");
            }
        });
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForwardDropped { chain } => write!(
                f,
                "{chain} drops forwarded packets: containers have no way out, and published ports \
                 are closed, unless that firewall lets the bridge pass"
            ),
        }
    }
}

/// Runs `work` on a blocking thread. A panic there is a panic here.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::ShuttingDown),
        },
    }
}
