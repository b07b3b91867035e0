//! A container's place on the bridge: made, removed, put right after a crash.
//!
//! ```text
//!   attach   namespace from stock → veth (one message) → address and route → published ports
//!   detach   published ports → a moment later: their connections; veth, if it is still there
//! ```
//!
//! The order is the same for everybody, so that at any moment a published port leads to a container
//! that has its address, or nowhere.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::link::{self, Link, LinkAddress, Veth};
use super::name::Mac;
use super::netlink::{Family, Rejected, Socket};
use super::netns::Netns;
use super::nftables::{self, Elements};
use super::{Attached, Endpoint, Error, Inner, Report, name, setup};

/// How long the kernel is given to notice that an interface is up.
const OPERATIONAL: Duration = Duration::from_secs(5);
/// How long the kernel is given to remove an interface together with its namespace.
pub(super) const LINGER: Duration = Duration::from_millis(300);

pub(super) fn attach(inner: &Inner, endpoint: &Endpoint) -> Result<Attached, Error> {
    let (bridge, subnet) = (inner.bridge(), inner.subnet());
    if !subnet.contains(endpoint.address) {
        let bridge = bridge.to_owned();
        return Err(Error::ForeignAddress { address: endpoint.address, subnet, bridge });
    }
    let netns = inner.stock.take()?;
    shim_failpoints::step!("daemon.start.after_netns", error);
    let veth = name::veth(bridge, &endpoint.namespace, &endpoint.id);
    let netns = match connect(inner, endpoint, &veth, netns).and_then(|netns| {
        publish(inner, endpoint)?;
        Ok(netns)
    }) {
        Ok(netns) => netns,
        Err(error) => {
            // The veth is half of what was made; the other half goes with the namespace.
            if let Err(error) = remove_veth(&veth) {
                tracing::warn!(%veth, %error, "left behind after a failed attach");
            }
            return Err(error);
        }
    };
    shim_failpoints::step!("daemon.start.after_ports");
    inner.stock.refill();
    Ok(Attached {
        netns: netns.descriptor,
        address: endpoint.address,
        prefix: subnet.prefix(),
        gateway: subnet.gateway(),
        mac: Mac::of(endpoint.address).to_string(),
        host_interface: veth,
    })
}

/// Makes the veth pair and gives the container's end its address and way out.
fn connect(
    inner: &Inner,
    endpoint: &Endpoint,
    veth: &str,
    mut netns: Netns,
) -> Result<Netns, Error> {
    let failed = |step: &'static str| {
        move |rejected: Rejected| Error::Kernel {
            step,
            object: format!("{veth} of container {}", endpoint.id),
            source: rejected.into(),
        }
    };
    let mut socket = Socket::open(Family::Route).map_err(failed("open a socket for interface"))?;
    shim_failpoints::step!("daemon.attach.before_veth", error);
    let made = match add_veth(&mut socket, veth, inner.index(), endpoint, &netns) {
        // Somebody removed the bridge: make it again rather than fail every start from now on.
        Err(rejected) if rejected.is(Errno::INVAL) || rejected.is(Errno::NODEV) => {
            inner.remember(setup::ensure_link(inner.bridge(), inner.subnet())?);
            add_veth(&mut socket, veth, inner.index(), endpoint, &netns)
        }
        made => made,
    };
    made.map_err(failed("make interface"))?;
    shim_failpoints::step!("daemon.start.after_veth", error);
    let address = LinkAddress { address: endpoint.address, prefix: inner.subnet().prefix() };
    configure_peer(&mut netns, address, inner.subnet().gateway())
        .map_err(failed("bring up and address the peer of"))?;
    shim_failpoints::step!("daemon.start.after_address", error);
    let host_end = operational(&mut socket, veth).map_err(failed("wait for interface"))?;
    // Without a port the bridge had no carrier itself.
    operational(&mut socket, inner.bridge()).map_err(failed("wait for the bridge of"))?;
    shim_failpoints::step!("daemon.attach.after_carrier", error);
    if !endpoint.ports.is_empty() && setup::bridged_packets_are_filtered() {
        link::set_hairpin(&mut socket, host_end.index)
            .map_err(failed("switch on the hairpin mode of"))?;
    }
    Ok(netns)
}

/// Waits until an interface sends. The kernel notices aside that its other end came up, and until
/// then drops packets: a container's first question would go unanswered for a second. Since Linux
/// 6.8 asking for the link makes the kernel look; earlier ones do within milliseconds.
fn operational(socket: &mut Socket, name: &str) -> Result<Link, Rejected> {
    let deadline = Instant::now() + OPERATIONAL;
    loop {
        let link = link::find(socket, name)?.ok_or(Rejected(Errno::NODEV))?;
        if link.operational {
            return Ok(link);
        }
        if Instant::now() > deadline {
            return Err(Errno::TIMEDOUT.into());
        }
        thread::sleep(Duration::from_micros(200));
    }
}

/// The peer's index is known beforehand, unless a first try to make it failed.
fn configure_peer(
    netns: &mut Netns,
    address: LinkAddress,
    gateway: Ipv4Addr,
) -> Result<(), Rejected> {
    match link::configure(&mut netns.socket, netns.next_index, address, gateway) {
        Err(rejected) if rejected.is(Errno::NODEV) => {
            let peer = link::find(&mut netns.socket, "eth0")?.ok_or(rejected)?;
            link::configure(&mut netns.socket, peer.index, address, gateway)
        }
        configured => configured,
    }
}

/// What an earlier try left under the same name is replaced.
fn add_veth(
    socket: &mut Socket,
    name: &str,
    bridge: u32,
    endpoint: &Endpoint,
    netns: &Netns,
) -> Result<(), Rejected> {
    use std::os::fd::AsFd;
    let mac = Mac::of(endpoint.address);
    let veth = Veth { name, bridge, mac, netns: netns.descriptor.as_fd() };
    match link::add_veth(socket, veth) {
        Err(rejected) if rejected.is(Errno::EXIST) => {
            link::remove(socket, name)?;
            link::add_veth(socket, veth)
        }
        made => made,
    }
}

/// Switches the published ports on. An element that is in the way is a dead container's: the caller
/// holds the bound socket, so nobody else can have the port.
fn publish(inner: &Inner, endpoint: &Endpoint) -> Result<(), Error> {
    if endpoint.ports.is_empty() {
        return Ok(());
    }
    let failed = |rejected: Rejected| Error::Kernel {
        step: "publish the ports of container",
        object: endpoint.id.to_string(),
        source: rejected.into(),
    };
    shim_failpoints::step!("daemon.attach.before_elements", error);
    let wanted = nftables::elements(endpoint.address, &endpoint.ports);
    let (bridge, none) = (inner.bridge(), Elements::new());
    let mut socket = inner.nftables();
    match nftables::change(&mut socket, bridge, &none, &wanted) {
        Err(rejected) if rejected.is(Errno::EXIST) || rejected.is(Errno::BUSY) => {
            let stale = present(&mut socket, bridge, &wanted, |_, _| true).map_err(failed)?;
            nftables::change(&mut socket, bridge, &stale, &wanted).map_err(failed)?;
        }
        Err(rejected) if rejected.is(Errno::NOENT) => {
            let table = name::table(bridge);
            tracing::warn!(%table, "the table was gone and is loaded again: reconcile is due");
            nftables::load(bridge, inner.subnet())?;
            nftables::change(&mut socket, bridge, &none, &wanted).map_err(failed)?;
        }
        changed => changed.map_err(failed)?,
    }
    shim_failpoints::step!("daemon.attach.after_elements", error);
    Ok(())
}

/// Releases the ports; the answer is the interface that is still there.
///
/// Removing a veth pair takes two grace periods of the kernel, 20 ms. A container that ended takes
/// its namespace with it, and the kernel the pair, beside other work and for many at once. So the
/// interface is given [`LINGER`] before it is removed by hand.
pub(super) fn detach(inner: &Inner, endpoint: &Endpoint) -> Result<Option<Link>, Error> {
    release(inner, endpoint)?;
    shim_failpoints::step!("daemon.detach.before_lookup", error);
    let veth = name::veth(inner.bridge(), &endpoint.namespace, &endpoint.id);
    let found = Socket::open(Family::Route).and_then(|mut socket| link::find(&mut socket, &veth));
    found.map_err(|rejected| Error::Kernel {
        step: "look for interface",
        object: veth,
        source: rejected.into(),
    })
}

/// Switches the published ports off.
pub(super) fn release(inner: &Inner, endpoint: &Endpoint) -> Result<(), Error> {
    if endpoint.ports.is_empty() {
        return Ok(());
    }
    shim_failpoints::step!("daemon.detach.before_ports", error);
    unpublish(inner, endpoint).map_err(|rejected| Error::Kernel {
        step: "release the ports of container",
        object: endpoint.id.to_string(),
        source: rejected.into(),
    })
}

/// By its index, which is never given again: the name may be the restarted container's by now.
pub(super) fn remove_left(interface: &Link) -> Result<bool, Error> {
    let removed = Socket::open(Family::Route)
        .and_then(|mut socket| link::remove_by_index(&mut socket, interface.index));
    removed.map_err(|rejected| Error::Kernel {
        step: "remove interface",
        object: interface.name.clone(),
        source: rejected.into(),
    })
}

/// Removes only elements that lead to this container: a release that comes twice never takes the
/// port from whoever has it now.
fn unpublish(inner: &Inner, endpoint: &Endpoint) -> Result<(), Rejected> {
    let bridge = inner.bridge();
    let own = nftables::elements(endpoint.address, &endpoint.ports);
    let mut socket = inner.nftables();
    let there = present(&mut socket, bridge, &own, |present, own| present == own)?;
    nftables::change(&mut socket, bridge, &there, &Elements::new())?;
    shim_failpoints::step!("daemon.stop.after_ports");
    Ok(())
}

/// The elements with keys of `asked` that are in the table and that `keep` (present, asked) wants.
fn present(
    socket: &mut Socket,
    bridge: &str,
    asked: &Elements,
    keep: impl Fn(nftables::Target, nftables::Target) -> bool,
) -> Result<Elements, Rejected> {
    let mut found = Elements::new();
    for (key, target) in asked {
        let there = nftables::lookup(socket, bridge, *key)?.filter(|there| keep(*there, *target));
        found.extend(there.map(|there| (*key, there)));
    }
    Ok(found)
}

fn remove_veth(name: &str) -> Result<bool, Error> {
    let removed =
        Socket::open(Family::Route).and_then(|mut socket| link::remove(&mut socket, name));
    removed.map_err(|rejected| Error::Kernel {
        step: "remove interface",
        object: name.to_owned(),
        source: rejected.into(),
    })
}

/// Makes interfaces and elements exactly what is expected.
pub(super) fn reconcile(inner: &Inner, expected: &[Endpoint]) -> Result<Report, Error> {
    let mut report = Report::default();
    inner.remember(setup::ensure_link(inner.bridge(), inner.subnet())?);
    shim_failpoints::step!("daemon.recover.before_ports");
    reconcile_ports(inner, expected, &mut report)?;
    shim_failpoints::step!("daemon.recover.after_ports");
    reconcile_veths(inner, expected, &mut report)?;
    shim_failpoints::step!("daemon.recover.after_interfaces");
    Ok(report)
}

fn reconcile_ports(inner: &Inner, expected: &[Endpoint], report: &mut Report) -> Result<(), Error> {
    let bridge = inner.bridge();
    let failed = |step: &'static str| {
        move |rejected: Rejected| Error::Kernel {
            step,
            object: name::table(bridge),
            source: rejected.into(),
        }
    };
    let wanted: Elements = expected
        .iter()
        .flat_map(|endpoint| nftables::elements(endpoint.address, &endpoint.ports))
        .collect();
    let mut socket = inner.nftables();
    let there =
        match nftables::dump(&mut socket, bridge).map_err(failed("list the elements of table"))? {
            Some(there) => there,
            None => {
                nftables::load(bridge, inner.subnet())?;
                Elements::new()
            }
        };
    let without = |from: &Elements, other: &Elements| -> Elements {
        let differs = from.iter().filter(|(key, target)| other.get(key) != Some(target));
        differs.map(|(key, target)| (*key, *target)).collect()
    };
    let (stale, missing) = (without(&there, &wanted), without(&wanted, &there));
    nftables::change(&mut socket, bridge, &stale, &missing).map_err(failed("put right table"))?;
    let described = |elements: Elements| -> Vec<String> {
        elements.into_iter().map(|(key, target)| nftables::describe(key, target)).collect()
    };
    (report.removed_ports, report.added_ports) = (described(stale), described(missing));
    Ok(())
}

fn reconcile_veths(inner: &Inner, expected: &[Endpoint], report: &mut Report) -> Result<(), Error> {
    let bridge = inner.bridge();
    let mut socket = Socket::open(Family::Route).map_err(|rejected| Error::Kernel {
        step: "open a socket for bridge",
        object: bridge.to_owned(),
        source: rejected.into(),
    })?;
    let mut strangers: BTreeSet<String> =
        setup::own_veths(&mut socket, bridge)?.into_iter().collect();
    for endpoint in expected {
        if !strangers.remove(&name::veth(bridge, &endpoint.namespace, &endpoint.id)) {
            report.without_interface.push((endpoint.namespace.clone(), endpoint.id.clone()));
        }
    }
    for stranger in strangers {
        if remove_veth(&stranger)? {
            report.removed_interfaces.push(stranger);
        }
    }
    Ok(())
}
