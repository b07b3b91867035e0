//! Names as pure functions: what a killed daemon left is found again by them alone.

use std::fmt;
use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};
use shim_wire::id::Id;

/// Hexadecimal digits of the hash that stand for the bridge in a veth's name.
const BRIDGE_DIGITS: usize = 4;
/// Hexadecimal digits for the container: 40 bits. With the two others it fills an interface's name
/// (IFNAMSIZ less its terminating zero).
const CONTAINER_DIGITS: usize = 10;

/// The table of `bridge`.
pub(super) fn table(bridge: &str) -> String {
    format!("bosun-{bridge}")
}

/// What the names of all veths on `bridge` begin with.
pub(super) fn veth_prefix(bridge: &str) -> String {
    format!("v{}", hash(&[bridge], BRIDGE_DIGITS))
}

/// The host's end of a container's veth pair.
pub(super) fn veth(bridge: &str, namespace: &Id, id: &Id) -> String {
    // No id holds a slash, so the two can't run into each other.
    let container = hash(&[namespace.as_str(), "/", id.as_str()], CONTAINER_DIGITS);
    format!("{}{container}", veth_prefix(bridge))
}

/// Whether `name` can be an interface's, and stand in a ruleset without quoting.
pub(super) fn is_interface(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && !matches!(name, "all" | "default" | "lo")
}

/// A hardware address, locally administered, made from the IPv4 address: a container that gets an
/// address again has the neighbours' entries right from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mac(pub(super) [u8; 6]);

impl Mac {
    pub(super) fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0xb0, a, b, c, d])
    }
}

/// The hardware address of the container that has this address on the bridge: a function of the
/// address, so that it need not be remembered.
#[must_use]
pub fn mac_of(address: Ipv4Addr) -> String {
    Mac::of(address).to_string()
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

fn hash(parts: &[&str], digits: usize) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
    }
    let mut text: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(digits);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_veths_name_is_its_bridges_and_its_containers() {
        let id = |text: &str| text.parse::<Id>().unwrap();
        let name = veth("bosun0", &id("default"), &id("web"));
        assert_eq!(name.len(), 15);
        assert!(name.starts_with(&veth_prefix("bosun0")));
        assert_eq!(name, veth("bosun0", &id("default"), &id("web")));
        assert_ne!(name, veth("bosun1", &id("default"), &id("web")));
        assert_ne!(name, veth("bosun0", &id("k8s.io"), &id("web")));
        assert_ne!(name, veth("bosun0", &id("default"), &id("db")));
    }

    #[test]
    fn only_plain_interface_names_are_taken() {
        for good in ["bosun0", "br-1", "a", "bosun.100", "123456789012345"] {
            assert!(is_interface(good), "{good}");
        }
        for bad in ["", "1234567890123456", "a b", "a/b", "a\"b", "-a", ".", "..", "lo", "all"] {
            assert!(!is_interface(bad), "{bad}");
        }
    }
}
