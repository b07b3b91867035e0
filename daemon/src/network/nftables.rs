//! The one table: its rules, loaded by `nft`, and the elements of its maps, changed over netlink.
//!
//! ```text
//!   raw-prerouting   from anywhere but lo: 127.0.0.0/8 is dropped        (CVE-2020-8558's class)
//!   prerouting       address . proto . port  in @ports     ─┐
//!   output           proto . port of a local address in @wildcard ─┴─▶ dnat to the container
//!   forward          into the bridge: answers, published ports, its own; nothing else
//!   postrouting      masquerade: containers to outside; 127.0.0.1 to containers; hairpin
//! ```
//!
//! Loading is one transaction that replaces the rules and keeps the maps' elements, so it can be done
//! at any time without a packet noticing. Spawning `nft` takes 4 ms and happens once per start;
//! elements change with every container, and netlink takes microseconds: as long as the socket stays
//! open. Closing one waits until the kernel has freed what was deleted, a grace period of 12 ms.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use rustix::io::Errno;

use super::netlink::codec::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, field};
use super::netlink::{Attributes, Batch, Rejected, Socket, attributes, text};
use super::{Error, Protocol, Published, Subnet, name};

// include/uapi/linux/netfilter/nfnetlink.h
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
// include/uapi/linux/netfilter/nf_tables.h
const NFT_MSG_DELTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8 | 2;
const NFT_MSG_GETCHAIN: u16 = NFNL_SUBSYS_NFTABLES << 8 | 4;
const NFT_MSG_NEWSETELEM: u16 = NFNL_SUBSYS_NFTABLES << 8 | 12;
const NFT_MSG_GETSETELEM: u16 = NFNL_SUBSYS_NFTABLES << 8 | 13;
const NFT_MSG_DELSETELEM: u16 = NFNL_SUBSYS_NFTABLES << 8 | 14;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_HOOK_HOOKNUM: u16 = 1;
// include/uapi/linux/netfilter.h
const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NF_INET_FORWARD: u32 = 2;
const NF_DROP: u32 = 0;

const PORTS: &str = "ports";
const WILDCARD: &str = "wildcard";

/// Where the host listens: the key of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// `0.0.0.0` lives in the map of its own.
    address: Ipv4Addr,
    protocol: Protocol,
    port: u16,
}

/// Where it goes: the data of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) address: Ipv4Addr,
    pub(super) port: u16,
}

/// Elements of both maps.
pub(super) type Elements = BTreeMap<Key, Target>;

impl Key {
    fn map(self) -> &'static str {
        if self.address.is_unspecified() { WILDCARD } else { PORTS }
    }

    /// Concatenated parts, each padded to a register of four bytes, as the maps' types have them.
    fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(12);
        if !self.address.is_unspecified() {
            bytes.extend_from_slice(&self.address.octets());
        }
        bytes.extend_from_slice(&[self.protocol.number(), 0, 0, 0]);
        bytes.extend_from_slice(&self.port.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (address, rest) = match bytes.len() {
            12 => (Ipv4Addr::from(field::<4>(bytes, 0)?), &bytes[4..]),
            _ => (Ipv4Addr::UNSPECIFIED, bytes),
        };
        let protocol = Protocol::from_number(*rest.first()?)?;
        Some(Self { address, protocol, port: u16::from_be_bytes(field(rest, 4)?) })
    }
}

impl Target {
    fn encode(self) -> [u8; 8] {
        let [a, b, c, d] = self.address.octets();
        let [high, low] = self.port.to_be_bytes();
        [a, b, c, d, high, low, 0, 0]
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let address = Ipv4Addr::from(field::<4>(bytes, 0)?);
        Some(Self { address, port: u16::from_be_bytes(field(bytes, 4)?) })
    }
}

/// The elements that publish `ports` of the container at `address`.
pub(super) fn elements(address: Ipv4Addr, ports: &[Published]) -> Elements {
    let element = |port: &Published| {
        let key = Key { address: port.host_address, protocol: port.protocol, port: port.host_port };
        (key, Target { address, port: port.container_port })
    };
    ports.iter().map(element).collect()
}

/// An element as a user reads it.
pub(super) fn describe(key: Key, target: Target) -> String {
    let Target { address, port } = target;
    format!("{}:{}/{} -> {address}:{port}", key.address, key.port, key.protocol)
}

/// Loads the table, or replaces its rules and keeps its elements.
pub(super) fn load(bridge: &str, subnet: Subnet) -> Result<(), Error> {
    Loading::start(bridge, subnet)?.finish()
}

/// `nft` at work; other steps of the set-up go on beside it.
#[derive(Debug)]
pub(super) struct Loading {
    table: String,
    child: std::process::Child,
}

impl Loading {
    pub(super) fn start(bridge: &str, subnet: Subnet) -> Result<Self, Error> {
        let table = name::table(bridge);
        let failed = |source: io::Error| match source.kind() == io::ErrorKind::NotFound {
            true => Error::NftMissing,
            false => Error::Kernel { step: "run nft for table", object: table.clone(), source },
        };
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // When nft ends early the pipe breaks; what it has to say is read in `finish`.
            match stdin.write_all(ruleset(&table, bridge, subnet).as_bytes()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                written => written.map_err(failed)?,
            }
        }
        Ok(Self { table, child })
    }

    pub(super) fn finish(self) -> Result<(), Error> {
        let Self { table, child } = self;
        let output = child.wait_with_output().map_err(|source| Error::Kernel {
            step: "wait for nft to load table",
            object: table.clone(),
            source,
        })?;
        if output.status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::Nft { table, message })
    }
}

/// One transaction: what is there already stays, the rules are written anew.
fn ruleset(table: &str, bridge: &str, subnet: Subnet) -> String {
    format!(
        r#"
add table ip {table}
add map ip {table} {PORTS} {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
add map ip {table} {WILDCARD} {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
add chain ip {table} raw-prerouting {{ type filter hook prerouting priority -300; policy accept; }}
add chain ip {table} prerouting {{ type nat hook prerouting priority -100; policy accept; }}
add chain ip {table} output {{ type nat hook output priority -100; policy accept; }}
add chain ip {table} forward {{ type filter hook forward priority 0; policy accept; }}
add chain ip {table} postrouting {{ type nat hook postrouting priority 100; policy accept; }}
flush chain ip {table} raw-prerouting
flush chain ip {table} prerouting
flush chain ip {table} output
flush chain ip {table} forward
flush chain ip {table} postrouting
add rule ip {table} raw-prerouting iifname != "lo" ip daddr 127.0.0.0/8 drop
add rule ip {table} raw-prerouting iifname != "lo" ip saddr 127.0.0.0/8 drop
add rule ip {table} prerouting dnat to ip daddr . meta l4proto . th dport map @{PORTS}
add rule ip {table} prerouting fib daddr type local dnat to meta l4proto . th dport map @{WILDCARD}
add rule ip {table} output dnat to ip daddr . meta l4proto . th dport map @{PORTS}
add rule ip {table} output fib daddr type local dnat to meta l4proto . th dport map @{WILDCARD}
add rule ip {table} forward oifname != "{bridge}" accept
add rule ip {table} forward iifname "{bridge}" accept
add rule ip {table} forward ct state established,related accept
add rule ip {table} forward ct status dnat accept
add rule ip {table} forward drop
add rule ip {table} postrouting oifname "{bridge}" ip saddr 127.0.0.0/8 masquerade
add rule ip {table} postrouting oifname "{bridge}" ip saddr {subnet} ct status dnat masquerade
add rule ip {table} postrouting oifname != "{bridge}" ip saddr {subnet} masquerade
"#
    )
}

/// Removes the table with all that is in it. Idempotent.
pub(super) fn remove_table(socket: &mut Socket, bridge: &str) -> Result<(), Rejected> {
    let mut batch = begun();
    batch.message(NFT_MSG_DELTABLE, NLM_F_ACK, &header(NFPROTO_IPV4, 0), |table| {
        table.string(NFTA_TABLE_NAME, &name::table(bridge));
    });
    absent_is_fine(socket.execute(ended(batch)))
}

/// Takes `remove` out and puts `add` in, in one transaction: both or none. Every key of `remove` must
/// be there (else ENOENT); a key of `add` that is there with another target is EBUSY or EEXIST.
pub(super) fn change(
    socket: &mut Socket,
    bridge: &str,
    remove: &Elements,
    add: &Elements,
) -> Result<(), Rejected> {
    if remove.is_empty() && add.is_empty() {
        return Ok(());
    }
    let mut batch = begun();
    for key in remove.keys() {
        element_message(&mut batch, NFT_MSG_DELSETELEM, NLM_F_ACK, bridge, *key, None);
    }
    for (key, target) in add {
        let flags = NLM_F_ACK | NLM_F_CREATE;
        element_message(&mut batch, NFT_MSG_NEWSETELEM, flags, bridge, *key, Some(*target));
    }
    socket.execute(ended(batch))
}

/// Where `key` goes at present.
pub(super) fn lookup(
    socket: &mut Socket,
    bridge: &str,
    key: Key,
) -> Result<Option<Target>, Rejected> {
    let mut batch = Batch::default();
    element_message(&mut batch, NFT_MSG_GETSETELEM, NLM_F_ACK, bridge, key, None);
    let mut found = Elements::new();
    let asked = socket.query(batch, |kind, payload| {
        if kind == NFT_MSG_NEWSETELEM {
            read_elements(payload, &mut found);
        }
    });
    absent_is_fine(asked)?;
    Ok(found.remove(&key))
}

/// All elements; `None` when the table is not there.
pub(super) fn dump(socket: &mut Socket, bridge: &str) -> Result<Option<Elements>, Rejected> {
    let mut found = Elements::new();
    for map in [PORTS, WILDCARD] {
        let mut batch = Batch::default();
        batch.message(NFT_MSG_GETSETELEM, NLM_F_DUMP, &header(NFPROTO_IPV4, 0), |list| {
            list.string(NFTA_SET_ELEM_LIST_TABLE, &name::table(bridge))
                .string(NFTA_SET_ELEM_LIST_SET, map);
        });
        match socket.query(batch, |_, payload| read_elements(payload, &mut found)) {
            Ok(()) => {}
            Err(rejected) if rejected.is(Errno::NOENT) => return Ok(None),
            Err(rejected) => return Err(rejected),
        }
    }
    Ok(Some(found))
}

/// Chains of the forward hook whose policy is drop, as `table ip filter, chain FORWARD`.
pub(super) fn dropping_forward_chains(socket: &mut Socket) -> Result<Vec<String>, Rejected> {
    let mut batch = Batch::default();
    batch.message(NFT_MSG_GETCHAIN, NLM_F_DUMP, &header(NFPROTO_UNSPEC, 0), |_| {});
    let mut found = Vec::new();
    socket.query(batch, |_, payload| found.extend(parse_dropping_chain(payload)))?;
    Ok(found)
}

fn parse_dropping_chain(payload: &[u8]) -> Option<String> {
    let family = match *payload.first()? {
        NFPROTO_INET => "inet",
        NFPROTO_IPV4 => "ip",
        _ => return None,
    };
    let number = |value: &[u8]| field(value, 0).map(u32::from_be_bytes);
    let (mut table, mut chain, mut hook, mut policy) = (String::new(), String::new(), None, None);
    for (kind, value) in attributes(payload.get(4..)?) {
        match kind {
            NFTA_CHAIN_TABLE => table = text(value),
            NFTA_CHAIN_NAME => chain = text(value),
            NFTA_CHAIN_POLICY => policy = number(value),
            NFTA_CHAIN_HOOK => {
                let hooknum = attributes(value).find(|(kind, _)| *kind == NFTA_HOOK_HOOKNUM);
                hook = hooknum.and_then(|(_, value)| number(value));
            }
            _ => {}
        }
    }
    let drops = hook == Some(NF_INET_FORWARD) && policy == Some(NF_DROP);
    drops.then(|| format!("table {family} {table}, chain {chain}"))
}

fn element_message(
    batch: &mut Batch,
    kind: u16,
    flags: u16,
    bridge: &str,
    key: Key,
    target: Option<Target>,
) {
    let value = |attributes: &mut Attributes<'_>, kind, bytes: &[u8]| {
        attributes.nest(kind, |data| {
            data.bytes(NFTA_DATA_VALUE, bytes);
        });
    };
    batch.message(kind, flags, &header(NFPROTO_IPV4, 0), |list| {
        list.string(NFTA_SET_ELEM_LIST_TABLE, &name::table(bridge))
            .string(NFTA_SET_ELEM_LIST_SET, key.map())
            .nest(NFTA_SET_ELEM_LIST_ELEMENTS, |elements| {
                elements.nest(NFTA_LIST_ELEM, |element| {
                    value(element, NFTA_SET_ELEM_KEY, &key.encode());
                    if let Some(target) = target {
                        value(element, NFTA_SET_ELEM_DATA, &target.encode());
                    }
                });
            });
    });
}

fn read_elements(payload: &[u8], into: &mut Elements) {
    let lists = attributes(payload.get(4..).unwrap_or_default())
        .filter(|(kind, _)| *kind == NFTA_SET_ELEM_LIST_ELEMENTS);
    for (_, element) in lists.flat_map(|(_, list)| attributes(list)) {
        let value = |wanted| {
            let (_, nest) = attributes(element).find(|(kind, _)| *kind == wanted)?;
            attributes(nest).find(|(kind, _)| *kind == NFTA_DATA_VALUE).map(|(_, value)| value)
        };
        let key = value(NFTA_SET_ELEM_KEY).and_then(Key::decode);
        let target = value(NFTA_SET_ELEM_DATA).and_then(Target::decode);
        into.extend(key.zip(target));
    }
}

/// A transaction that begins.
fn begun() -> Batch {
    let mut batch = Batch::default();
    batch.message(NFNL_MSG_BATCH_BEGIN, 0, &header(NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES), |_| {});
    batch
}

fn ended(mut batch: Batch) -> Batch {
    batch.message(NFNL_MSG_BATCH_END, 0, &header(NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES), |_| {});
    batch
}

/// `struct nfgenmsg`, version NFNETLINK_V0.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn absent_is_fine(result: Result<(), Rejected>) -> Result<(), Rejected> {
    match result {
        Err(rejected) if rejected.is(Errno::NOENT) => Ok(()),
        result => result,
    }
}
