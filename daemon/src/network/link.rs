//! Links, addresses and routes over rtnetlink(7).
//!
//! Each function is one step on one object; the order of steps is `setup.rs`'s and `attach.rs`'s.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::name::Mac;
use super::netlink::codec::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, field,
};
use super::netlink::{Attributes, Batch, Rejected, Socket, attributes, text};

// rtnetlink(7), include/uapi/linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
// include/uapi/linux/if_link.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BRPORT_MODE: u16 = 4;
const VETH_INFO_PEER: u16 = 1;
// include/uapi/linux/if_addr.h
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFF_UP: u32 = 1;
const IF_OPER_UP: u8 = 6;
const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;

/// A link as the kernel lists it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// `bridge`, `veth` …; empty for hardware.
    pub(super) kind: String,
    /// The bridge it is a port of.
    pub(super) master: Option<u32>,
    /// The kernel has noticed that both ends are up, and sends.
    pub(super) operational: bool,
}

/// An IPv4 address on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkAddress {
    pub(super) address: Ipv4Addr,
    pub(super) prefix: u8,
}

/// A unicast route of the main table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) destination: Ipv4Addr,
    pub(super) prefix: u8,
    pub(super) index: u32,
    /// The network is on the link itself.
    pub(super) direct: bool,
}

/// The host's end of a veth pair, and the end that is born inside `netns` as `eth0`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Veth<'a> {
    pub(super) name: &'a str,
    pub(super) bridge: u32,
    pub(super) mac: Mac,
    pub(super) netns: BorrowedFd<'a>,
}

pub(super) fn find(socket: &mut Socket, name: &str) -> Result<Option<Link>, Rejected> {
    let mut batch = Batch::default();
    batch.message(RTM_GETLINK, NLM_F_ACK, &link_header(AF_UNSPEC, 0, 0), |link| {
        link.string(IFLA_IFNAME, name);
    });
    let mut found = None;
    match socket.query(batch, |_, payload| found = parse_link(payload)) {
        Ok(()) => Ok(found),
        Err(rejected) if rejected.is(Errno::NODEV) => Ok(None),
        Err(rejected) => Err(rejected),
    }
}

pub(super) fn list(socket: &mut Socket) -> Result<Vec<Link>, Rejected> {
    let mut batch = Batch::default();
    batch.message(RTM_GETLINK, NLM_F_DUMP, &link_header(AF_UNSPEC, 0, 0), |_| {});
    let mut links = Vec::new();
    socket.query(batch, |_, payload| links.extend(parse_link(payload)))?;
    Ok(links)
}

/// Makes a bridge, not yet up. Its hardware address is given, or it would change with every port.
pub(super) fn add_bridge(socket: &mut Socket, name: &str, mac: Mac) -> Result<(), Rejected> {
    let mut batch = Batch::default();
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    batch.message(RTM_NEWLINK, flags, &link_header(AF_UNSPEC, 0, 0), |link| {
        link.string(IFLA_IFNAME, name).bytes(IFLA_ADDRESS, &mac.0);
        link.nest(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_KIND, "bridge");
        });
    });
    socket.execute(batch)
}

pub(super) fn set_up(socket: &mut Socket, index: u32) -> Result<(), Rejected> {
    let mut batch = Batch::default();
    batch.message(RTM_SETLINK, NLM_F_ACK, &link_header(AF_UNSPEC, index, IFF_UP), |_| {});
    socket.execute(batch)
}

/// Makes the pair, the host's end up and a port of the bridge: one message for what would be five
/// steps. The peer can't be born up: `veth_newlink` brings it up before the two are tied together.
pub(super) fn add_veth(socket: &mut Socket, veth: Veth<'_>) -> Result<(), Rejected> {
    let mut batch = Batch::default();
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    batch.message(RTM_NEWLINK, flags, &link_header(AF_UNSPEC, 0, IFF_UP), |link| {
        link.string(IFLA_IFNAME, veth.name).native(IFLA_MASTER, veth.bridge);
        one_queue(link);
        link.nest(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| fill_peer(peer, veth));
            });
        });
    });
    socket.execute(batch)
}

fn fill_peer(peer: &mut Attributes<'_>, veth: Veth<'_>) {
    peer.raw(&link_header(AF_UNSPEC, 0, 0))
        .string(IFLA_IFNAME, "eth0")
        .bytes(IFLA_ADDRESS, &veth.mac.0)
        .bytes(IFLA_NET_NS_FD, &veth.netns.as_raw_fd().to_ne_bytes());
    one_queue(peer);
}

/// A veth sends without queueing and without a lock; more queues (the kernel makes one per CPU) only
/// cost directories in sysfs, a third of a millisecond for two.
fn one_queue(link: &mut Attributes<'_>) {
    link.native(IFLA_NUM_TX_QUEUES, 1).native(IFLA_NUM_RX_QUEUES, 1);
}

/// Lets the bridge send a frame back through the port it came from.
pub(super) fn set_hairpin(socket: &mut Socket, index: u32) -> Result<(), Rejected> {
    let mut batch = Batch::default();
    batch.message(RTM_SETLINK, NLM_F_ACK, &link_header(AF_BRIDGE, index, 0), |link| {
        link.nest(IFLA_PROTINFO, |port| {
            port.bytes(IFLA_BRPORT_MODE, &[1]);
        });
    });
    socket.execute(batch)
}

/// Removes a link by name; both ends of a veth pair go. `false` when there is none.
pub(super) fn remove(socket: &mut Socket, name: &str) -> Result<bool, Rejected> {
    let mut batch = Batch::default();
    batch.message(RTM_DELLINK, NLM_F_ACK, &link_header(AF_UNSPEC, 0, 0), |link| {
        link.string(IFLA_IFNAME, name);
    });
    removed(socket, batch)
}

/// As [`remove`], for exactly this link.
pub(super) fn remove_by_index(socket: &mut Socket, index: u32) -> Result<bool, Rejected> {
    let mut batch = Batch::default();
    batch.message(RTM_DELLINK, NLM_F_ACK, &link_header(AF_UNSPEC, index, 0), |_| {});
    removed(socket, batch)
}

fn removed(socket: &mut Socket, batch: Batch) -> Result<bool, Rejected> {
    match socket.execute(batch) {
        Ok(()) => Ok(true),
        Err(rejected) if rejected.is(Errno::NODEV) => Ok(false),
        Err(rejected) => Err(rejected),
    }
}

pub(super) fn addresses(socket: &mut Socket, index: u32) -> Result<Vec<LinkAddress>, Rejected> {
    let mut batch = Batch::default();
    batch.message(RTM_GETADDR, NLM_F_DUMP, &address_header(0, 0), |_| {});
    let mut found = Vec::new();
    socket.query(batch, |_, payload| {
        let of_link = field(payload, 4).map(u32::from_ne_bytes) == Some(index);
        if let (true, Some(address)) = (of_link, parse_address(payload)) {
            found.push(address);
        }
    })?;
    Ok(found)
}

pub(super) fn add_address(
    socket: &mut Socket,
    index: u32,
    address: LinkAddress,
) -> Result<(), Rejected> {
    let mut batch = Batch::default();
    new_address(&mut batch, index, address);
    socket.execute(batch)
}

/// Brings a link up and gives it its address and its way out.
pub(super) fn configure(
    socket: &mut Socket,
    index: u32,
    address: LinkAddress,
    gateway: Ipv4Addr,
) -> Result<(), Rejected> {
    let mut batch = Batch::default();
    batch.message(RTM_SETLINK, NLM_F_ACK, &link_header(AF_UNSPEC, index, IFF_UP), |_| {});
    new_address(&mut batch, index, address);
    let header =
        [AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0, 0, 0, 0];
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    batch.message(RTM_NEWROUTE, flags, &header, |route| {
        route.bytes(RTA_GATEWAY, &gateway.octets()).native(RTA_OIF, index);
    });
    socket.execute(batch)
}

pub(super) fn remove_address(
    socket: &mut Socket,
    index: u32,
    address: LinkAddress,
) -> Result<(), Rejected> {
    let mut batch = Batch::default();
    batch.message(RTM_DELADDR, NLM_F_ACK, &address_header(address.prefix, index), |link| {
        link.bytes(IFA_LOCAL, &address.address.octets());
    });
    socket.execute(batch)
}

/// The routes of the main table, the default route left out.
pub(super) fn routes(socket: &mut Socket) -> Result<Vec<Route>, Rejected> {
    let mut batch = Batch::default();
    let header = [AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    batch.message(RTM_GETROUTE, NLM_F_DUMP, &header, |_| {});
    let mut found = Vec::new();
    socket.query(batch, |_, payload| found.extend(parse_route(payload)))?;
    Ok(found)
}

fn new_address(batch: &mut Batch, index: u32, address: LinkAddress) {
    let LinkAddress { address, prefix } = address;
    let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    let broadcast = Ipv4Addr::from_bits(address.to_bits() | host_bits);
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    batch.message(RTM_NEWADDR, flags, &address_header(prefix, index), |link| {
        link.bytes(IFA_LOCAL, &address.octets())
            .bytes(IFA_ADDRESS, &address.octets())
            .bytes(IFA_BROADCAST, &broadcast.octets());
    });
}

/// `struct ifinfomsg`; `flags` are switched on, no other is changed.
fn link_header(family: u8, index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

/// `struct ifaddrmsg`.
fn address_header(prefix: u8, index: u32) -> [u8; 8] {
    let [a, b, c, d] = index.to_ne_bytes();
    [AF_INET, prefix, 0, 0, a, b, c, d]
}

fn parse_link(payload: &[u8]) -> Option<Link> {
    let index = u32::from_ne_bytes(field(payload, 4)?);
    let mut link =
        Link { index, name: String::new(), kind: String::new(), master: None, operational: false };
    for (kind, value) in attributes(payload.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_OPERSTATE => link.operational = value.first() == Some(&IF_OPER_UP),
            IFLA_MASTER => link.master = field(value, 0).map(u32::from_ne_bytes),
            IFLA_LINKINFO => {
                let mut info = attributes(value);
                let found = info.find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = found.map(|(_, value)| text(value)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

fn parse_address(payload: &[u8]) -> Option<LinkAddress> {
    let prefix = *payload.get(1)?;
    let (_, local) = attributes(payload.get(8..)?).find(|(kind, _)| *kind == IFA_LOCAL)?;
    Some(LinkAddress { address: Ipv4Addr::from(field::<4>(local, 0)?), prefix })
}

fn parse_route(payload: &[u8]) -> Option<Route> {
    let [_, prefix, _, _, table, _, _, kind] = field::<8>(payload, 0)?;
    if table != RT_TABLE_MAIN || kind != RTN_UNICAST {
        return None;
    }
    let (mut destination, mut index, mut direct) = (None, 0, true);
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            RTA_DST => destination = field::<4>(value, 0).map(Ipv4Addr::from),
            RTA_OIF => index = u32::from_ne_bytes(field(value, 0)?),
            RTA_GATEWAY => direct = false,
            _ => {}
        }
    }
    Some(Route { destination: destination?, prefix, index, direct })
}
