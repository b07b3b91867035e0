//! Published ports: how they are written, and the sockets that keep them taken.
//!
//! A published port is an element of a map in the table, and beside it a bound socket that the
//! container's shim holds: the element carries the packets, the socket makes the kernel refuse the
//! port to everybody else. The socket never sees a packet while the element is there.
//!
//! Deliberately absent: a proxy. Publishing on IPv6 is refused by name.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use super::{Error, holder};

/// How long a port in use may take to come free.
const PATIENCE: Duration = Duration::from_millis(20);

/// The transport of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// The number of IANA's protocol registry.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port that shall be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Publish {
    /// `0.0.0.0` is every address of the machine.
    pub host_address: Ipv4Addr,
    /// `None`: the kernel picks a free one.
    pub host_port: Option<u16>,
    pub container_port: u16,
    pub protocol: Protocol,
}

/// A port that is published: the host's port is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Published {
    /// `0.0.0.0` is every address of the machine.
    pub host_address: Ipv4Addr,
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}

impl Published {
    /// Whether the two can't be published at once.
    fn collides(&self, address: Ipv4Addr, port: u16, protocol: Protocol) -> bool {
        self.host_port == port
            && self.protocol == protocol
            && (self.host_address == address
                || self.host_address.is_unspecified()
                || address.is_unspecified())
    }
}

/// As `ps` shows it: `0.0.0.0:8000->8000/tcp`.
impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}->{}/{}",
            self.host_address, self.host_port, self.container_port, self.protocol
        )
    }
}

/// A port that one of our own containers has, so that an error can name the container.
#[derive(Clone, Debug)]
pub struct PortOwner {
    /// The container's name, or its id when it has none.
    pub container: String,
    pub published: Published,
}

/// A published port and the socket that keeps it taken; the shim gets the socket.
#[derive(Debug)]
pub struct BoundPort {
    pub published: Published,
    pub socket: OwnedFd,
}

/// Binds all of `wanted`, in their order, or none. TCP sockets listen.
///
/// Blocking: a socket, a bind and a listen are microseconds. Only when a port is in use this takes 20
/// milliseconds, to see whether it comes free, and reads much of `/proc` to find its holder.
///
/// # Errors
/// [`Error::PortInUse`] names the holder: a container of `owners`, else a process of the machine.
pub fn bind_ports(wanted: &[Publish], owners: &[PortOwner]) -> Result<Vec<BoundPort>, Error> {
    let mut bound: Vec<BoundPort> = Vec::with_capacity(wanted.len());
    for publish in wanted {
        match bind_patiently(*publish) {
            Ok(port) => bound.push(port),
            Err(source) => return Err(explain(*publish, source, &bound, owners)),
        }
    }
    Ok(bound)
}

/// A container that ended a moment ago may still have the port: its shim is on its way out, or a
/// child of some process was caught with a copy of the socket between fork and exec.
fn bind_patiently(publish: Publish) -> Result<BoundPort, Errno> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match bind(publish) {
            Err(Errno::ADDRINUSE) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(2));
            }
            result => return result,
        }
    }
}

fn bind(publish: Publish) -> Result<BoundPort, Errno> {
    let kind = match publish.protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
    // For TCP it means: connections that linger in TIME_WAIT don't keep the port. For UDP it would
    // mean sharing the port with anybody.
    if publish.protocol == Protocol::Tcp {
        net::sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    net::bind(&socket, &SocketAddrV4::new(publish.host_address, publish.host_port.unwrap_or(0)))?;
    if publish.protocol == Protocol::Tcp {
        net::listen(&socket, 0)?;
    }
    let host_port = match publish.host_port {
        Some(port) => port,
        None => SocketAddrV4::try_from(net::getsockname(&socket)?)?.port(),
    };
    let published = Published {
        host_address: publish.host_address,
        host_port,
        container_port: publish.container_port,
        protocol: publish.protocol,
    };
    Ok(BoundPort { published, socket })
}

/// Turns the kernel's refusal into an error that names who is in the way.
fn explain(publish: Publish, source: Errno, bound: &[BoundPort], owners: &[PortOwner]) -> Error {
    let (address, protocol) = (publish.host_address, publish.protocol);
    let port = publish.host_port.unwrap_or(0);
    match source {
        Errno::ADDRINUSE => {
            let collides = |other: &Published| other.collides(address, port, protocol);
            let owner = owners.iter().find(|owner| collides(&owner.published));
            let holder = if bound.iter().any(|own| collides(&own.published)) {
                "the same container (it is given twice)".to_owned()
            } else if let Some(owner) = owner {
                format!("container {}", owner.container)
            } else {
                holder::describe(address, port, protocol)
            };
            Error::PortInUse { address, port, protocol, holder }
        }
        Errno::ADDRNOTAVAIL => Error::NoSuchAddress { address, port, protocol },
        source => Error::Bind { address, port, protocol, source: source.into() },
    }
}

/// Why a text is not a port specification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPublish {
    #[error(
        "invalid port {text:?}: {part:?} is not a port: write [HOST_IP:][HOST:]CONTAINER[/tcp|/udp]"
    )]
    Port { text: String, part: String },
    #[error("invalid port {text:?}: {part:?} is not an IPv4 address of the host")]
    Address { text: String, part: String },
    #[error(
        "invalid port {text:?}: publishing on IPv6 ({address}) is not supported, give an IPv4 address"
    )]
    Ipv6 { text: String, address: Ipv6Addr },
    #[error("invalid port {text:?}: protocol {protocol:?} is not tcp or udp")]
    Protocol { text: String, protocol: String },
    #[error(
        "invalid port {text:?}: the ranges differ in length ({host} ports of the host, {container} of the container)"
    )]
    Ranges { text: String, host: usize, container: usize },
}

impl FromStr for Protocol {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(()),
        }
    }
}

/// Reads docker's `-p`: `[HOST_IP:][HOST:]CONTAINER[/tcp|/udp]`, where both may be ranges `A-B` of
/// the same length. An empty host port, or 0, is a free one.
///
/// # Errors
/// Says which part is wrong. An IPv6 address is refused by name.
pub fn parse_publish(text: &str) -> Result<Vec<Publish>, InvalidPublish> {
    let owned = || text.to_owned();
    let (rest, protocol) = match text.split_once('/') {
        Some((rest, protocol)) => {
            let parsed = protocol.to_ascii_lowercase().parse().map_err(|()| {
                InvalidPublish::Protocol { text: owned(), protocol: protocol.to_owned() }
            })?;
            (rest, parsed)
        }
        None => (text, Protocol::Tcp),
    };
    let (rest, container) = rest.rsplit_once(':').map_or(("", rest), |(rest, last)| (rest, last));
    let (address, host) =
        rest.rsplit_once(':').map_or(("", rest), |(address, host)| (address, host));
    let host_address = parse_address(text, address)?;
    let container = parse_range(text, container)?;
    if container.contains(&0) {
        return Err(InvalidPublish::Port { text: owned(), part: "0".to_owned() });
    }
    let host = match host {
        "" | "0" => None,
        host => Some(parse_range(text, host)?),
    };
    if let Some(host) = &host {
        let (host, container) = (host.len(), container.len());
        if host != container {
            return Err(InvalidPublish::Ranges { text: owned(), host, container });
        }
    }
    let first = host.map(|host| *host.start());
    let publish = |(offset, container_port)| Publish {
        host_address,
        host_port: first.map(|first| first + offset),
        container_port,
        protocol,
    };
    Ok((0..).zip(container).map(publish).collect())
}

fn parse_address(text: &str, part: &str) -> Result<Ipv4Addr, InvalidPublish> {
    let bare = part.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<Ipv6Addr>() {
        return Err(InvalidPublish::Ipv6 { text: text.to_owned(), address });
    }
    match part {
        "" => Ok(Ipv4Addr::UNSPECIFIED),
        part => part
            .parse()
            .map_err(|_| InvalidPublish::Address { text: text.to_owned(), part: part.to_owned() }),
    }
}

fn parse_range(text: &str, part: &str) -> Result<RangeInclusive<u16>, InvalidPublish> {
    let invalid = || InvalidPublish::Port { text: text.to_owned(), part: part.to_owned() };
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let number = |digits: &str| {
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        if plain { digits.parse::<u16>().map_err(|_| invalid()) } else { Err(invalid()) }
    };
    let range = number(first)?..=number(last)?;
    if range.is_empty() { Err(invalid()) } else { Ok(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<String> {
        let show = |publish: Publish| {
            let port = publish.host_port.map_or("free".to_owned(), |port| port.to_string());
            let Publish { host_address, container_port, protocol, .. } = publish;
            format!("{host_address}:{port}->{container_port}/{protocol}")
        };
        parse_publish(text).unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn ports_are_written_as_docker_has_them() {
        assert_eq!(parsed("8000:80"), ["0.0.0.0:8000->80/tcp"]);
        assert_eq!(parsed("127.0.0.1:8000:80/udp"), ["127.0.0.1:8000->80/udp"]);
        assert_eq!(parsed("80"), ["0.0.0.0:free->80/tcp"]);
        assert_eq!(parsed("0:80/TCP"), ["0.0.0.0:free->80/tcp"]);
        assert_eq!(parsed("127.0.0.1::80"), ["127.0.0.1:free->80/tcp"]);
        assert_eq!(parsed("7000-7001:80-81"), ["0.0.0.0:7000->80/tcp", "0.0.0.0:7001->81/tcp"]);
        assert_eq!(parsed("80-81"), ["0.0.0.0:free->80/tcp", "0.0.0.0:free->81/tcp"]);
        assert_eq!(parsed("65535:65535"), ["0.0.0.0:65535->65535/tcp"]);
    }

    #[test]
    fn a_malformed_port_is_refused_with_the_part_that_is_wrong() {
        let said = |text: &str| parse_publish(text).unwrap_err().to_string();
        assert!(said("").contains("\"\" is not a port"));
        assert!(said("80:").contains("\"\" is not a port"));
        assert!(said("http:80").contains("\"http\" is not a port"));
        assert!(said("70000:80").contains("\"70000\" is not a port"));
        assert!(said("+80:80").contains("\"+80\" is not a port"));
        assert!(said("8000:0").contains("\"0\" is not a port"));
        assert!(said("9-8:9-8").contains("\"9-8\" is not a port"));
        assert!(said("80:80/sctp").contains("\"sctp\" is not tcp or udp"));
        assert!(said("localhost:80:80").contains("\"localhost\" is not an IPv4 address"));
        assert!(said("[::1]:80:80").contains("IPv6 (::1)"));
        assert!(said(":::80:80").contains("IPv6 (::)"));
        assert!(said("1-3:1-2").contains("3 ports of the host, 2 of the container"));
    }
}
