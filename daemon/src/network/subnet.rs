//! The bridge's IPv4 subnet, and the choice of addresses in it.
//!
//! Pure: which addresses are leased is the store's to know, and is handed in.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The longest prefix that leaves room for a gateway and a few containers.
const LONGEST_PREFIX: u8 = 29;
/// Nothing wider than a class A network makes sense behind one bridge.
const SHORTEST_PREFIX: u8 = 8;

/// An IPv4 network such as `172.30.0.0/16`. Its first address is the bridge's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

/// Why a text is not a subnet for a bridge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubnet {
    #[error("{text:?} is not ADDRESS/PREFIX, such as 172.30.0.0/16")]
    Form { text: String },
    #[error("prefix /{prefix}: a bridge's subnet has /{SHORTEST_PREFIX} to /{LONGEST_PREFIX}")]
    Prefix { prefix: u8 },
    #[error("{network} is not for hosts: give a private network such as 172.30.0.0/16")]
    NotForHosts { network: Subnet },
}

impl Subnet {
    /// The network that `address` lies in. A prefix outside 8 to 29 is moved to the nearer end.
    #[must_use]
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.clamp(SHORTEST_PREFIX, LONGEST_PREFIX);
        let network = Ipv4Addr::from_bits(address.to_bits() & mask(prefix));
        Self { network, prefix }
    }

    #[must_use]
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// Length of the prefix in bits.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The first address: the bridge's, and every container's way out.
    #[must_use]
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 1)
    }

    #[must_use]
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | !mask(self.prefix))
    }

    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.network.to_bits()
    }

    /// Whether the two share an address. `other` may have any prefix, as routes do.
    pub(super) fn overlaps(self, other: Ipv4Addr, other_prefix: u8) -> bool {
        let common = mask(self.prefix.min(other_prefix));
        self.network.to_bits() & common == other.to_bits() & common
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Self, InvalidSubnet> {
        let form = || InvalidSubnet::Form { text: text.to_owned() };
        let (address, prefix) = text.split_once('/').ok_or_else(form)?;
        let address: Ipv4Addr = address.parse().map_err(|_| form())?;
        let prefix: u8 = prefix.parse().map_err(|_| form())?;
        if !(SHORTEST_PREFIX..=LONGEST_PREFIX).contains(&prefix) {
            return Err(InvalidSubnet::Prefix { prefix });
        }
        let network = Self::new(address, prefix);
        let first = network.network.octets()[0];
        if first == 0 || first == 127 || first >= 224 {
            return Err(InvalidSubnet::NotForHosts { network });
        }
        Ok(network)
    }
}

/// The next free address after `hint` (the one given last), round and round, so that an address
/// rests as long as possible before it is used again. The network, the bridge and the broadcast
/// address are never given. `None` when the subnet is full.
#[must_use]
pub fn pick(
    subnet: Subnet,
    leased: &BTreeSet<Ipv4Addr>,
    hint: Option<Ipv4Addr>,
) -> Option<Ipv4Addr> {
    let first = subnet.gateway().to_bits() + 1;
    let last = subnet.broadcast().to_bits() - 1;
    let start = match hint.map(Ipv4Addr::to_bits) {
        Some(hint) if (first..last).contains(&hint) => hint + 1,
        Some(_) | None => first,
    };
    free_in(start, last, leased).or_else(|| free_in(first, last, leased))
}

/// The lowest address of `first..=last` that is not leased. Walks the leases, not the addresses.
fn free_in(first: u32, last: u32, leased: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let mut candidate = first;
    for taken in leased.range(Ipv4Addr::from_bits(first)..) {
        if taken.to_bits() != candidate {
            break;
        }
        candidate += 1;
    }
    (candidate <= last).then(|| Ipv4Addr::from_bits(candidate))
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(addresses: &[&str]) -> BTreeSet<Ipv4Addr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    fn picked(leased: &[&str], hint: Option<&str>) -> Option<String> {
        let subnet: Subnet = "10.9.8.0/29".parse().unwrap();
        pick(subnet, &set(leased), hint.map(|hint| hint.parse().unwrap())).map(|a| a.to_string())
    }

    #[test]
    fn addresses_are_handed_out_round_and_round() {
        assert_eq!(picked(&[], None).as_deref(), Some("10.9.8.2"));
        assert_eq!(picked(&[], Some("10.9.8.2")).as_deref(), Some("10.9.8.3"));
        assert_eq!(picked(&["10.9.8.3"], Some("10.9.8.2")).as_deref(), Some("10.9.8.4"));
        assert_eq!(picked(&[], Some("10.9.8.6")).as_deref(), Some("10.9.8.2"));
        assert_eq!(picked(&["10.9.8.2"], Some("10.9.8.6")).as_deref(), Some("10.9.8.3"));
        assert_eq!(picked(&[], Some("192.168.1.1")).as_deref(), Some("10.9.8.2"));
    }

    #[test]
    fn a_full_subnet_has_no_address() {
        let most = ["10.9.8.2", "10.9.8.3", "10.9.8.4", "10.9.8.5"];
        assert_eq!(picked(&most, Some("10.9.8.3")).as_deref(), Some("10.9.8.6"));
        let all = ["10.9.8.2", "10.9.8.3", "10.9.8.4", "10.9.8.5", "10.9.8.6"];
        assert_eq!(picked(&all, Some("10.9.8.3")), None);
    }

    #[test]
    fn a_subnet_is_read_and_written() {
        let subnet: Subnet = "172.30.7.9/16".parse().unwrap();
        assert_eq!(subnet.to_string(), "172.30.0.0/16");
        assert_eq!(subnet.gateway(), Ipv4Addr::new(172, 30, 0, 1));
        assert_eq!(subnet.broadcast(), Ipv4Addr::new(172, 30, 255, 255));
        assert!(subnet.contains(Ipv4Addr::new(172, 30, 4, 4)));
        assert!(!subnet.contains(Ipv4Addr::new(172, 31, 0, 1)));
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/30", "127.0.0.0/8", "224.0.0.0/8"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn overlap_is_seen_whichever_is_wider() {
        let subnet = Subnet::new(Ipv4Addr::new(172, 30, 0, 0), 16);
        assert!(subnet.overlaps(Ipv4Addr::new(172, 30, 5, 0), 24));
        assert!(subnet.overlaps(Ipv4Addr::new(172, 16, 0, 0), 12));
        assert!(!subnet.overlaps(Ipv4Addr::new(172, 31, 0, 0), 16));
    }
}
