//! Forgetting connections, over ctnetlink: address translation is decided with a connection's first
//! packet and remembered, so a change of the maps reaches no connection that is known already.
//!
//! Finding them means a walk through the machine's whole hash table: 13 ms for the 262,144 buckets of
//! a small machine, however few connections there are. So what shall be forgotten is collected, and
//! forgotten a moment later with one walk for all, beside other work. A kernel without connection
//! tracking, or without its netlink family, has nothing to forget.

use std::collections::BTreeSet;
use std::fs;
use std::mem;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::netlink::codec::{NLM_F_ACK, NLM_F_DUMP, field};
use super::netlink::{Attributes, Batch, Rejected, Socket, attributes};
use super::{Endpoint, Protocol, Published, Subnet};

// include/uapi/linux/netfilter/nfnetlink_conntrack.h
const IPCTNL_MSG_CT_GET: u16 = 1 << 8 | 1;
const IPCTNL_MSG_CT_DELETE: u16 = 1 << 8 | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
// The kernel's net/netfilter/nf_internals.h
const FILTER_IP_SRC: u32 = 1 << 0;
const FILTER_PROTO_NUM: u32 = 1 << 3;
const FILTER_PROTO_DST_PORT: u32 = 1 << 5;
/// `struct nfgenmsg` for AF_INET.
const HEADER: [u8; 4] = [2, 0, 0, 0];

/// Connections that shall be forgotten.
#[derive(Clone, Debug)]
pub(super) enum Which {
    /// Those that a container answers: all that came through its published ports.
    AnsweredBy(Ipv4Addr),
    /// UDP to a port of the host that were not translated. Their sender may never pause long
    /// enough for them to be forgotten by themselves.
    UntranslatedUdp { address: Ipv4Addr, port: u16 },
    /// Those that some address of the subnet answers, but none of these: what a killed daemon had no
    /// time to forget.
    AnsweredByStrangers { subnet: Subnet, expected: BTreeSet<Ipv4Addr> },
}

/// What keeps UDP senders from reaching ports that were just published.
pub(super) fn before(ports: &[Published]) -> Vec<Which> {
    let udp = ports.iter().filter(|port| port.protocol == Protocol::Udp);
    udp.map(|port| Which::UntranslatedUdp { address: port.host_address, port: port.host_port })
        .collect()
}

/// What doesn't belong to the expected containers.
pub(super) fn strange(subnet: Subnet, expected: &[Endpoint]) -> Vec<Which> {
    let mut all: Vec<Which> =
        expected.iter().flat_map(|endpoint| before(&endpoint.ports)).collect();
    let expected = expected.iter().map(|endpoint| endpoint.address).collect();
    all.push(Which::AnsweredByStrangers { subnet, expected });
    all
}

/// Collects what shall be forgotten, and forgets it.
#[derive(Debug)]
pub(super) struct Forgetting {
    socket: Mutex<Socket>,
    pending: Mutex<Vec<Which>>,
}

impl Forgetting {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket: Mutex::new(socket), pending: Mutex::new(Vec::new()) }
    }

    /// Whether nothing was pending before, so that [`Self::forget`] is due.
    pub(super) fn add(&self, which: Vec<Which>) -> bool {
        let mut pending = lock(&self.pending);
        let due = pending.is_empty() && !which.is_empty();
        pending.extend(which);
        due
    }

    /// How many connections were forgotten.
    pub(super) fn forget(&self) -> Result<usize, Rejected> {
        let mut socket = lock(&self.socket);
        let pending = mem::take(&mut *lock(&self.pending));
        if pending.is_empty() || nothing_is_known() {
            return Ok(0);
        }
        let mut found = Vec::new();
        let asked = socket.query(question(&pending), |_, payload| {
            let matches = |known: &Connection| pending.iter().any(|which| which.matches(known));
            found.extend(Connection::parse(payload).filter(matches));
        });
        match asked {
            // No such family in this kernel: nfnetlink answers EINVAL, or EOPNOTSUPP.
            Err(rejected) if rejected.is(Errno::INVAL) || rejected.is(Errno::OPNOTSUPP) => Ok(0),
            Err(rejected) => Err(rejected),
            Ok(()) => found.iter().map(|known| known.remove(&mut socket)).sum(),
        }
    }
}

/// The number of connections of this network namespace is to be had without the walk.
fn nothing_is_known() -> bool {
    fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")
        .is_ok_and(|count| count.trim() == "0")
}

/// The kernel filters (5.8 and later) when one thing is asked for, so that a busy table is walked but
/// not copied.
fn question(pending: &[Which]) -> Batch {
    let mut batch = Batch::default();
    batch.message(IPCTNL_MSG_CT_GET, NLM_F_DUMP, &HEADER, |filter| {
        if let [only] = pending {
            only.filter(filter);
        }
    });
    batch
}

/// A panic leaves a list, or a socket whose unread answers the next use passes over.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Which {
    fn filter(&self, filter: &mut Attributes<'_>) {
        match self {
            Self::AnsweredBy(address) => {
                filter.nest(CTA_TUPLE_REPLY, |tuple| {
                    tuple.nest(CTA_TUPLE_IP, |ip| {
                        ip.bytes(CTA_IP_V4_SRC, &address.octets());
                    });
                });
                filter.nest(CTA_FILTER, |flags| {
                    flags.native(CTA_FILTER_REPLY_FLAGS, FILTER_IP_SRC);
                });
            }
            Self::UntranslatedUdp { port, .. } => {
                filter.nest(CTA_TUPLE_ORIG, |tuple| {
                    tuple.nest(CTA_TUPLE_PROTO, |proto| {
                        proto
                            .bytes(CTA_PROTO_NUM, &[Protocol::Udp.number()])
                            .bytes(CTA_PROTO_DST_PORT, &port.to_be_bytes());
                    });
                });
                filter.nest(CTA_FILTER, |flags| {
                    flags.native(CTA_FILTER_ORIG_FLAGS, FILTER_PROTO_NUM | FILTER_PROTO_DST_PORT);
                });
            }
            // The kernel has no filter for a range of addresses.
            Self::AnsweredByStrangers { .. } => {}
        }
    }

    fn matches(&self, connection: &Connection) -> bool {
        let Connection { original, reply, .. } = connection;
        match self {
            Self::AnsweredBy(address) => reply.source == *address,
            Self::UntranslatedUdp { address, port } => {
                original.protocol == Protocol::Udp.number()
                    && original.port == *port
                    && (address.is_unspecified() || original.destination == *address)
                    && reply.source == original.destination
                    && reply.destination == original.source
            }
            Self::AnsweredByStrangers { subnet, expected } => {
                reply.source != original.destination
                    && subnet.contains(reply.source)
                    && !expected.contains(&reply.source)
            }
        }
    }
}

/// One direction of a connection.
#[derive(Debug)]
struct Tuple {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    /// Destination port; 0 for protocols without.
    port: u16,
}

#[derive(Debug)]
struct Connection {
    original: Tuple,
    reply: Tuple,
    /// The attributes that name it, as the kernel wrote them.
    identity: Vec<(u16, Vec<u8>)>,
}

impl Connection {
    fn parse(payload: &[u8]) -> Option<Self> {
        let all = || attributes(payload.get(HEADER.len()..).unwrap_or_default());
        let tuple = |wanted| {
            all().find(|(kind, _)| *kind == wanted).and_then(|(_, value)| Tuple::parse(value))
        };
        let identifies = |kind: u16| matches!(kind, CTA_TUPLE_ORIG | CTA_ID | CTA_ZONE);
        let identity = all().filter(|(kind, _)| identifies(*kind));
        Some(Self {
            original: tuple(CTA_TUPLE_ORIG)?,
            reply: tuple(CTA_TUPLE_REPLY)?,
            identity: identity.map(|(kind, value)| (kind, value.to_vec())).collect(),
        })
    }

    /// How many were removed: 0 when it ended by itself meanwhile.
    fn remove(&self, socket: &mut Socket) -> Result<usize, Rejected> {
        let mut batch = Batch::default();
        batch.message(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, &HEADER, |connection| {
            for (kind, value) in &self.identity {
                match *kind {
                    CTA_TUPLE_ORIG => connection.nest(CTA_TUPLE_ORIG, |tuple| {
                        tuple.raw(value);
                    }),
                    kind => connection.bytes(kind, value),
                };
            }
        });
        match socket.execute(batch) {
            Ok(()) => Ok(1),
            Err(rejected) if rejected.is(Errno::NOENT) => Ok(0),
            Err(rejected) => Err(rejected),
        }
    }
}

impl Tuple {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let nest = |wanted| attributes(bytes).find(|(kind, _)| *kind == wanted);
        let (_, ip) = nest(CTA_TUPLE_IP)?;
        let (_, proto) = nest(CTA_TUPLE_PROTO)?;
        let address = |wanted| {
            let (_, value) = attributes(ip).find(|(kind, _)| *kind == wanted)?;
            field::<4>(value, 0).map(Ipv4Addr::from)
        };
        let of_proto =
            |wanted| attributes(proto).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let port = of_proto(CTA_PROTO_DST_PORT).and_then(|value| field(value, 0));
        Some(Self {
            source: address(CTA_IP_V4_SRC)?,
            destination: address(CTA_IP_V4_DST)?,
            protocol: *of_proto(CTA_PROTO_NUM)?.first()?,
            port: port.map(u16::from_be_bytes).unwrap_or(0),
        })
    }
}
