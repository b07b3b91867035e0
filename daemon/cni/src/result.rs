//! What an attachment is, as plugins say it: read from, and written in, every version.
//!
//! 0.1.0 and 0.2.0 have one address of each family with its routes (`ip4`, `ip6`), 0.3.0 to 0.4.0 have
//! lists with the family in words (`"version": "4"`), 1.0.0 dropped that, 1.1.0 added to interfaces and
//! routes. Fields that are in no version are dropped, as libcni does.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::version::Version;

/// The result of ADD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkResult {
    /// Inside the container and on the host.
    pub interfaces: Vec<Interface>,
    pub ips: Vec<IpConfig>,
    pub routes: Vec<Route>,
    pub dns: Dns,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// In bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The network namespace's path; empty for an interface of the host.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    #[serde(
        default,
        rename = "socketPath",
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub socket_path: String,
    #[serde(
        default,
        rename = "pciID",
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub pci_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpConfig {
    /// An index into [`NetworkResult::interfaces`]. It is within them.
    pub interface: Option<usize>,
    pub address: Cidr,
    pub gateway: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub dst: Cidr,
    #[serde(default, deserialize_with = "address", skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// In bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// In bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// The lower goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// 0 is global, 253 the link, 254 the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub domain: String,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// An address and how many of its bits are the network's: `10.1.2.3/24`, host bits and all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    pub address: IpAddr,
    pub prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Not an address with a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address with a prefix, as 10.1.2.3/24 is")]
pub struct BadCidr(pub String);

impl FromStr for Cidr {
    type Err = BadCidr;

    fn from_str(text: &str) -> Result<Cidr, BadCidr> {
        let bad = || BadCidr(text.into());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        match prefix.parse() {
            Ok(prefix) if prefix <= most => Ok(Cidr { address, prefix }),
            Ok(_) | Err(_) => Err(bad()),
        }
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cidr, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A result of any version, as it is written.
#[derive(Default, Serialize, Deserialize)]
struct Wire {
    #[serde(rename = "cniVersion", default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<Interface>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    ips: Vec<WireIp>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip4: Option<WireFamily>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip6: Option<WireFamily>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dns: Option<Dns>,
}

/// An element of `ips`, since 0.3.0.
#[derive(Serialize, Deserialize)]
struct WireIp {
    /// `4` or `6`, until 0.4.0. The address says it as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interface: Option<usize>,
    address: Cidr,
    #[serde(default, deserialize_with = "address", skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
}

/// `ip4` and `ip6`, until 0.2.0.
#[derive(Serialize, Deserialize)]
struct WireFamily {
    ip: Cidr,
    #[serde(default, deserialize_with = "address", skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
}

impl NetworkResult {
    /// Reads a result of any version. One that names none is of `version`, that of its configuration.
    ///
    /// # Errors
    ///
    /// In words that follow "the result": what is wrong.
    pub(crate) fn read(json: &[u8], version: Version) -> Result<NetworkResult, String> {
        // By way of an object: a struct is read from a list as well.
        let object: Map<String, Value> =
            serde_json::from_slice(json).map_err(|error| format!("is not one: {error}"))?;
        let wire: Wire = serde_json::from_value(Value::Object(object))
            .map_err(|error| format!("is not one: {error}"))?;
        let version = match wire.version.as_deref() {
            None | Some("") => version,
            Some(text) => text.parse().map_err(|error| format!("is not known: {error}"))?,
        };
        let mut result =
            NetworkResult { dns: wire.dns.unwrap_or_default(), ..NetworkResult::default() };
        if version <= Version::V0_2_0 {
            for family in [wire.ip4, wire.ip6].into_iter().flatten() {
                let (address, gateway) = (family.ip, family.gateway);
                result.ips.push(IpConfig { interface: None, address, gateway });
                result.routes.extend(family.routes);
            }
            return Ok(result);
        }
        result.interfaces = wire.interfaces;
        result.routes = wire.routes;
        for WireIp { interface, address, gateway, .. } in wire.ips {
            if interface.is_some_and(|index| index >= result.interfaces.len()) {
                return Err(format!("has address {address} on an interface that it has not"));
            }
            result.ips.push(IpConfig { interface, address, gateway });
        }
        Ok(result)
    }

    /// The result in the words of `version`. What that can't say is left out: 0.2.0 has one address of
    /// each family, and no interfaces.
    pub(crate) fn write(&self, version: Version) -> Value {
        let mut wire = Wire { version: Some(version.as_str().into()), ..Wire::default() };
        if self.dns != Dns::default() {
            wire.dns = Some(self.dns.clone());
        }
        if version <= Version::V0_2_0 {
            wire.ip4 = self.family(|address| address.is_ipv4());
            wire.ip6 = self.family(|address| address.is_ipv6());
        } else {
            wire.interfaces.clone_from(&self.interfaces);
            wire.routes.clone_from(&self.routes);
            wire.ips = self.ips.iter().map(|ip| WireIp::new(ip, version)).collect();
        }
        // Strings, numbers and lists of them: there is nothing that JSON can't say.
        serde_json::to_value(wire).unwrap_or_default()
    }

    fn family(&self, is: impl Fn(&IpAddr) -> bool) -> Option<WireFamily> {
        let ip = self.ips.iter().find(|ip| is(&ip.address.address))?;
        let routes = self.routes.iter().filter(|route| is(&route.dst.address));
        let routes = routes.map(|route| Route {
            dst: route.dst,
            gw: route.gw,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        });
        Some(WireFamily { ip: ip.address, gateway: ip.gateway, routes: routes.collect() })
    }

    /// The addresses of the container, in the plugins' order: those on an interface of its namespace, and
    /// those of which nobody says where they are.
    pub fn container_ips(&self) -> impl Iterator<Item = IpAddr> {
        self.ips
            .iter()
            .filter(|ip| {
                ip.interface
                    .and_then(|index| self.interfaces.get(index))
                    .is_none_or(|interface| !interface.sandbox.is_empty())
            })
            .map(|ip| ip.address.address)
    }
}

impl WireIp {
    fn new(ip: &IpConfig, version: Version) -> WireIp {
        let family = if ip.address.address.is_ipv4() { "4" } else { "6" };
        WireIp {
            version: (version < Version::V1_0_0).then(|| family.into()),
            interface: ip.interface,
            address: ip.address,
            gateway: ip.gateway,
        }
    }
}

/// `null` for what is empty: Go writes it for lists that were never made.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An address; the empty string is none, as in Go.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|_| serde::de::Error::custom(format_args!("{text:?} is not an address"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value, version: Version) -> Result<NetworkResult, String> {
        NetworkResult::read(value.to_string().as_bytes(), version)
    }

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn route(dst: &str, gw: &str) -> Route {
        Route {
            dst: cidr(dst),
            gw: gw.parse().ok(),
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }
    }

    #[test]
    fn every_version_is_read_into_one_type() {
        let old = json!({
            "ip4": { "ip": "10.1.0.5/16", "gateway": "10.1.0.1",
                     "routes": [{ "dst": "0.0.0.0/0" }] },
            "ip6": { "ip": "fd00::5/64", "gateway": "", "routes": null },
            "dns": { "nameservers": ["10.1.0.1"] },
        });
        let lists = json!({
            "ips": [
                { "version": "4", "address": "10.1.0.5/16", "gateway": "10.1.0.1" },
                { "version": "6", "address": "fd00::5/64" },
            ],
            "routes": [{ "dst": "0.0.0.0/0" }],
            "interfaces": null,
            "dns": { "nameservers": ["10.1.0.1"], "search": null },
        });
        for version in Version::ALL {
            let mut value = if version <= Version::V0_2_0 { old.clone() } else { lists.clone() };
            let told = read(&value, version).unwrap();
            value["cniVersion"] = version.as_str().into();
            // The result's own version is what counts.
            let own = read(&value, Version::V1_1_0).unwrap();
            assert_eq!(told, own, "{version}");
            assert_eq!(own.ips[0].address, cidr("10.1.0.5/16"));
            assert_eq!(own.ips[0].gateway, "10.1.0.1".parse().ok());
            assert_eq!(own.ips[1].address, cidr("fd00::5/64"));
            assert_eq!(own.ips[1].gateway, None);
            assert_eq!(own.routes, [route("0.0.0.0/0", "")]);
            assert_eq!(own.dns.nameservers, ["10.1.0.1"]);
            assert_eq!(read(&own.write(version), Version::V0_1_0).unwrap(), own, "{version}");
        }
    }

    #[test]
    fn what_is_of_the_newest_version_is_kept() {
        let value = json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                { "name": "veth0", "mac": "0a:00:00:00:00:01" },
                { "name": "eth0", "mtu": 1400, "sandbox": "/run/netns/a", "socketPath": "/s",
                  "pciID": "0000:00:01.0" },
            ],
            "ips": [{ "interface": 1, "address": "10.0.0.2/24", "gateway": "10.0.0.1" }],
            "routes": [{ "dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1300, "advmss": 1260,
                         "priority": 10, "table": 100, "scope": 253 }],
            "dns": { "domain": "a", "options": ["ndots:5"] },
        });
        let result = read(&value, Version::V0_1_0).unwrap();
        assert_eq!(result.write(Version::V1_1_0), value);
        assert_eq!(result.routes[0].table, Some(100));
        assert_eq!(result.interfaces[1].mtu, Some(1400));
    }

    #[test]
    fn an_older_version_says_what_it_can() {
        let value = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{ "name": "eth0", "sandbox": "/run/netns/a" }],
            "ips": [
                { "interface": 0, "address": "10.0.0.2/24" },
                { "interface": 0, "address": "10.0.1.2/24" },
                { "interface": 0, "address": "fd00::2/64" },
            ],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0", "gw": "fd00::1", "mtu": 1300 }],
        });
        let result = read(&value, Version::V0_1_0).unwrap();
        assert_eq!(
            result.write(Version::V0_2_0),
            json!({
                "cniVersion": "0.2.0",
                "ip4": { "ip": "10.0.0.2/24", "routes": [{ "dst": "0.0.0.0/0" }] },
                "ip6": { "ip": "fd00::2/64", "routes": [{ "dst": "::/0", "gw": "fd00::1" }] },
            })
        );
        let middle = result.write(Version::V0_3_1);
        assert_eq!(middle["ips"][0]["version"], "4");
        assert_eq!(middle["ips"][2]["version"], "6");
        assert_eq!(result.write(Version::V1_1_0)["ips"][0].get("version"), None);
    }

    #[test]
    fn addresses_of_the_host_are_not_the_containers() {
        let value = json!({
            "interfaces": [{ "name": "cni0" }, { "name": "eth0", "sandbox": "/run/netns/a" }],
            "ips": [
                { "interface": 0, "address": "10.0.0.1/24" },
                { "interface": 1, "address": "10.0.0.2/24" },
                { "address": "fd00::2/64" },
            ],
        });
        let result = read(&value, Version::V1_0_0).unwrap();
        let ips: Vec<String> = result.container_ips().map(|ip| ip.to_string()).collect();
        assert_eq!(ips, ["10.0.0.2", "fd00::2"]);
    }

    #[test]
    fn what_is_no_result_is_refused_by_name() {
        let table = [
            (json!([]), "is not one"),
            (json!("text"), "is not one"),
            (json!({ "cniVersion": "2.0.0" }), "2.0.0"),
            (json!({ "ips": [{ "address": "10.0.0.2" }] }), "10.0.0.2"),
            (json!({ "ips": [{ "address": "10.0.0.2/33" }] }), "10.0.0.2/33"),
            (json!({ "ips": [{ "address": "fd00::/129" }] }), "fd00::/129"),
            (json!({ "ips": [{ "address": "10.0.0.2/24", "gateway": "x" }] }), "\"x\""),
            (json!({ "ips": [{ "address": "10.0.0.2/24", "interface": 0 }] }), "has not"),
            (json!({ "ips": [{ "address": "10.0.0.2/24", "interface": -1 }] }), "-1"),
            (json!({ "routes": [{ "gw": "10.0.0.1" }] }), "dst"),
            (json!({ "interfaces": [{ "mac": "a" }] }), "name"),
        ];
        for (value, word) in table {
            let error = read(&value, Version::V1_0_0).unwrap_err();
            assert!(error.contains(word), "{value}: {error}");
        }
        assert!(NetworkResult::read(b"", Version::V1_0_0).is_err());
    }
}
