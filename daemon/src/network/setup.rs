//! Making the bridge, or adopting the one that is there: interface, address, kernel switches, table,
//! lock; and looking for a firewall that is in the way.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::link::{self, LinkAddress};
use super::name::Mac;
use super::netlink::{Family, Rejected, Socket};
use super::nftables::{self, Loading};
use super::{Error, Inner, Settings, Subnet, Warning, name};

/// Takes the lock of the bridge: one daemon per bridge and network namespace of the machine. The
/// namespace's inode is in the file's name, because two namespaces may each have a `bosun0`.
/// The lock is the descriptor's and ends with the process; the file stays.
pub(super) fn lock(settings: &Settings) -> Result<File, Error> {
    let directory = &settings.lock_directory;
    fs::create_dir_all(directory).map_err(file("create directory", directory))?;
    let own = Path::new("/proc/thread-self/ns/net");
    let netns = fs::metadata(own).map_err(file("read", own))?.ino();
    let path = directory.join(format!("bosun-bridge-{}-{netns}.lock", settings.bridge));
    let mut file_of_lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(file("open lock", &path))?;
    match flock_patiently(&file_of_lock) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let read = file_of_lock.read_to_string(&mut holder);
            let holder = match (read, holder.trim()) {
                (Ok(_), pid) if !pid.is_empty() => format!("PID {pid}"),
                (Ok(_) | Err(_), _) => format!("lock {}", path.display()),
            };
            return Err(Error::BridgeInUse { bridge: settings.bridge.clone(), holder });
        }
        Err(errno) => return Err(file("lock", &path)(errno.into())),
    }
    file_of_lock.set_len(0).map_err(file("write lock", &path))?;
    writeln!(file_of_lock, "{}", std::process::id()).map_err(file("write lock", &path))?;
    shim_failpoints::step!("daemon.bridge.after_lock", error);
    Ok(file_of_lock)
}

/// A child of a killed daemon that was caught between fork and exec holds the lock for another
/// moment.
fn flock_patiently(file: &File) -> Result<(), Errno> {
    let deadline = Instant::now() + Duration::from_millis(200);
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Makes or adopts the bridge, its table and the kernel's switches; the answer is the bridge's index.
/// Idempotent.
pub(super) fn ensure(bridge: &str, subnet: Subnet) -> Result<u32, Error> {
    shim_failpoints::step!("daemon.bridge.before_table", error);
    let loading = Loading::start(bridge, subnet)?;
    let made = ensure_link(bridge, subnet);
    // nft is waited for in any case, or it would stay behind.
    let loaded = loading.finish();
    shim_failpoints::step!("daemon.bridge.after_table", error);
    loaded.and(made)
}

/// The bridge's index; makes the bridge with its address when it is not there.
pub(super) fn ensure_link(bridge: &str, subnet: Subnet) -> Result<u32, Error> {
    let failed = |step: &'static str| {
        move |rejected: Rejected| Error::Kernel {
            step,
            object: bridge.to_owned(),
            source: rejected.into(),
        }
    };
    let mut socket = Socket::open(Family::Route).map_err(failed("open a socket for bridge"))?;
    let existing = link::find(&mut socket, bridge).map_err(failed("look for bridge"))?;
    if existing.as_ref().is_some_and(|link| link.kind != "bridge") {
        return Err(Error::NotABridge { name: bridge.to_owned() });
    }
    let own = existing.as_ref().map(|link| link.index);
    refuse_taken_subnet(&mut socket, bridge, subnet, own)?;
    let index = match own {
        Some(index) => index,
        None => {
            shim_failpoints::step!("daemon.bridge.before_link", error);
            link::add_bridge(&mut socket, bridge, Mac::of(subnet.gateway()))
                .map_err(failed("make bridge"))?;
            let made = link::find(&mut socket, bridge).map_err(failed("look for bridge"))?;
            made.ok_or(Rejected(Errno::NODEV)).map_err(failed("look for bridge"))?.index
        }
    };
    shim_failpoints::step!("daemon.bridge.before_switches", error);
    switch_on(bridge)?;
    shim_failpoints::step!("daemon.bridge.after_switches", error);
    let address = LinkAddress { address: subnet.gateway(), prefix: subnet.prefix() };
    let present =
        link::addresses(&mut socket, index).map_err(failed("list the addresses of bridge"))?;
    if !present.contains(&address) {
        link::add_address(&mut socket, index, address).map_err(failed("give an address to"))?;
    }
    // Of an earlier configuration: the bridge is ours, and so is the address.
    for stale in present.into_iter().filter(|present| *present != address) {
        link::remove_address(&mut socket, index, stale)
            .map_err(failed("take an earlier address from"))?;
    }
    shim_failpoints::step!("daemon.bridge.after_address", error);
    link::set_up(&mut socket, index).map_err(failed("switch on bridge"))?;
    shim_failpoints::step!("daemon.bridge.after_up", error);
    Ok(index)
}

/// A subnet is taken when another interface is in it, or a route leads into a part of it. A wider
/// route through a gateway is no obstacle: the bridge's own is more specific and wins.
fn refuse_taken_subnet(
    socket: &mut Socket,
    bridge: &str,
    subnet: Subnet,
    own: Option<u32>,
) -> Result<(), Error> {
    let failed = |rejected: Rejected| Error::Kernel {
        step: "compare the routes with the subnet of",
        object: bridge.to_owned(),
        source: rejected.into(),
    };
    let routes = link::routes(socket).map_err(failed)?;
    let taken = routes.into_iter().find(|route| {
        Some(route.index) != own
            && subnet.overlaps(route.destination, route.prefix)
            && (route.direct || route.prefix >= subnet.prefix())
    });
    let Some(route) = taken else { return Ok(()) };
    let links = link::list(socket).map_err(failed)?;
    let interface = links.into_iter().find(|link| link.index == route.index);
    Err(Error::SubnetInUse {
        subnet,
        bridge: bridge.to_owned(),
        interface: interface.map_or_else(|| route.index.to_string(), |link| link.name),
    })
}

/// The switches of the kernel. `route_localnet` lets packets from 127.0.0.1 reach the bridge, on the
/// bridge alone; the table drops what would come back through it. IPv6 is off on the bridge, or
/// containers would reach the host's services by link-local addresses past the table.
fn switch_on(bridge: &str) -> Result<(), Error> {
    ensure_switch(Path::new("/proc/sys/net/ipv4/ip_forward"), "1")?;
    ensure_switch(&PathBuf::from(format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet")), "1")?;
    let ipv6 = PathBuf::from(format!("/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6"));
    if ipv6.exists() { ensure_switch(&ipv6, "1") } else { Ok(()) }
}

/// Writes only what differs: writing `ip_forward` resets other switches of every interface.
fn ensure_switch(path: &Path, value: &str) -> Result<(), Error> {
    let present = fs::read_to_string(path).map_err(file("read", path))?;
    if present.trim() == value {
        return Ok(());
    }
    fs::write(path, value).map_err(file("write", path))
}

/// A socket for the table or for connections, in the daemon's network namespace.
pub(super) fn netfilter(bridge: &str) -> Result<Socket, Error> {
    Socket::open(Family::Netfilter).map_err(|rejected| Error::Kernel {
        step: "open a netfilter socket for bridge",
        object: bridge.to_owned(),
        source: rejected.into(),
    })
}

/// Whether packets between ports of a bridge pass the firewall as routed ones do (br_netfilter).
/// Then a container's packets to itself must be let back through the port they came from.
pub(super) fn bridged_packets_are_filtered() -> bool {
    fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables")
        .is_ok_and(|text| text.trim() == "1")
}

/// Firewalls that drop forwarded packets. What can't be found out is logged and passed over: it
/// only costs a warning.
pub(super) fn warnings(socket: &mut Socket) -> Vec<Warning> {
    let chains = nftables::dropping_forward_chains(socket).unwrap_or_else(|rejected| {
        tracing::debug!(error = %rejected.0, "can't list the chains of nftables");
        Vec::new()
    });
    let legacy = legacy_forward_drops().then(|| "iptables-legacy filter, chain FORWARD".to_owned());
    chains.into_iter().chain(legacy).map(|chain| Warning::ForwardDropped { chain }).collect()
}

/// The old iptables has an interface of its own in the kernel; it is asked only when in use.
fn legacy_forward_drops() -> bool {
    let in_use = fs::read_to_string("/proc/thread-self/net/ip_tables_names")
        .is_ok_and(|names| names.lines().any(|name| name == "filter"));
    if !in_use {
        return false;
    }
    match Command::new("iptables-legacy").args(["-w", "2", "-S", "FORWARD"]).output() {
        Ok(output) => {
            String::from_utf8_lossy(&output.stdout).lines().any(|line| line == "-P FORWARD DROP")
        }
        Err(error) => {
            tracing::debug!(%error, "can't ask iptables-legacy for its FORWARD policy");
            false
        }
    }
}

/// Removes veths, bridge and table. Idempotent.
pub(super) fn remove_all(inner: &Inner) -> Result<(), Error> {
    let bridge = inner.bridge();
    let failed = |object: String| {
        move |rejected: Rejected| Error::Kernel { step: "remove", object, source: rejected.into() }
    };
    let mut socket =
        Socket::open(Family::Route).map_err(failed(format!("bridge {bridge} (socket)")))?;
    shim_failpoints::step!("daemon.unbridge.before_link", error);
    for veth in own_veths(&mut socket, bridge)? {
        link::remove(&mut socket, &veth).map_err(failed(veth.clone()))?;
    }
    let found = link::find(&mut socket, bridge).map_err(failed(bridge.to_owned()))?;
    if found.is_some_and(|link| link.kind == "bridge") {
        link::remove(&mut socket, bridge).map_err(failed(bridge.to_owned()))?;
    }
    shim_failpoints::step!("daemon.unbridge.after_link", error);
    nftables::remove_table(&mut inner.nftables(), bridge)
        .map_err(failed(format!("table {}", name::table(bridge))))?;
    shim_failpoints::step!("daemon.unbridge.after_table", error);
    Ok(())
}

/// The host's ends that are ours by name, kind and place.
pub(super) fn own_veths(socket: &mut Socket, bridge: &str) -> Result<Vec<String>, Error> {
    let links = link::list(socket).map_err(|rejected| Error::Kernel {
        step: "list the interfaces of",
        object: bridge.to_owned(),
        source: rejected.into(),
    })?;
    let index = links.iter().find(|link| link.name == bridge).map(|link| link.index);
    let prefix = name::veth_prefix(bridge);
    let ours = links.into_iter().filter(|link| {
        link.kind == "veth"
            && link.name.starts_with(&prefix)
            && (link.master.is_none() || link.master == index)
    });
    Ok(ours.map(|link| link.name).collect())
}

fn file(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { step, path, source }
}
