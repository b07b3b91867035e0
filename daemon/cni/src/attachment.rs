//! What is attached, and what plugins are told about it.
//!
//! There are two ways to tell them. CNI_ARGS goes to all plugins as text. *Capability arguments* are JSON,
//! and a plugin gets of them what its configuration declares under `capabilities`. Their names and forms
//! are conventions (CONVENTIONS.md of CNI), and so are the numbers' units.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::name;
use crate::result::Cidr;

/// A container that is to be on the configured networks.
#[derive(Clone, Debug)]
pub struct Container {
    /// CNI_CONTAINERID: a pod sandbox's id.
    pub id: String,
    /// The path at which its network namespace is bound, or a `/proc/PID/ns/net`. To detach, none, or a
    /// path at which there is no namespace any more, is as good.
    pub netns: Option<PathBuf>,
    pub arguments: Arguments,
    pub capabilities: Capabilities,
}

/// CNI_ARGS: what all plugins are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments(Vec<(String, String)>);

impl Arguments {
    /// What a Kubernetes runtime says. `IgnoreUnknown` keeps plugins quiet about the rest.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] for a text that can't be in CNI_ARGS.
    pub fn kubernetes(namespace: &str, name: &str, sandbox: &str, uid: &str) -> Result<Arguments> {
        let mut arguments = Arguments::default();
        arguments.add("IgnoreUnknown", "1")?;
        arguments.add("K8S_POD_NAMESPACE", namespace)?;
        arguments.add("K8S_POD_NAME", name)?;
        arguments.add("K8S_POD_INFRA_CONTAINER_ID", sandbox)?;
        arguments.add("K8S_POD_UID", uid)?;
        Ok(arguments)
    }

    /// # Errors
    ///
    /// [`Error::Argument`] for a text that can't be in CNI_ARGS: `;` and `=` are its separators.
    pub fn add(&mut self, key: &str, value: &str) -> Result<()> {
        let separates = |c: char| c == ';' || c == '=' || c.is_control();
        for (what, text) in [("CNI_ARGS: key", key), ("CNI_ARGS: value", value)] {
            if text.contains(separates) {
                let problem = "has a `;`, a `=` or a control character in it";
                return Err(Error::Argument { what, value: text.into(), problem });
            }
        }
        if key.is_empty() {
            let problem = "is empty";
            return Err(Error::Argument { what: "CNI_ARGS: key", value: key.into(), problem });
        }
        self.0.push((key.into(), value.into()));
        Ok(())
    }

    pub(crate) fn from_pairs(pairs: Vec<(String, String)>) -> Arguments {
        Arguments(pairs)
    }

    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    pub(crate) fn environment(&self) -> String {
        let pairs: Vec<String> =
            self.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(";")
    }
}

/// Capability arguments. What is empty is not passed.
#[derive(Clone, Debug, Default)]
pub struct Capabilities {
    pub port_mappings: Vec<PortMapping>,
    pub bandwidth: Option<Bandwidth>,
    pub dns: Option<DnsSettings>,
    /// An address is taken of each of the sets: two for dual stack.
    pub ip_ranges: Vec<Vec<IpRange>>,
    pub mac: Option<String>,
    pub ips: Vec<Cidr>,
    pub aliases: Vec<String>,
    /// Of the pod, below the mount point of control groups.
    pub cgroup_path: Option<String>,
    /// By the capability's name: what has no form here, as `io.kubernetes.cri.pod-annotations`.
    pub others: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// 0 publishes nothing: such a mapping is not passed.
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
    /// None is every address of the host.
    #[serde(rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bandwidth {
    /// Bits per second, into the container.
    pub ingress_rate: u64,
    /// Bits.
    pub ingress_burst: u64,
    /// Bits per second, out of the container.
    pub egress_rate: u64,
    /// Bits.
    pub egress_burst: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DnsSettings {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IpRange {
    pub subnet: Cidr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range_start: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range_end: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

impl Capabilities {
    /// By the capabilities' names.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let mut all: Map<String, Value> =
            self.others.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let published: Vec<&PortMapping> =
            self.port_mappings.iter().filter(|mapping| mapping.host_port != 0).collect();
        let known = [
            ("portMappings", some(!published.is_empty(), &published)),
            ("bandwidth", self.bandwidth.as_ref().and_then(|bandwidth| some(true, bandwidth))),
            ("dns", self.dns.as_ref().and_then(|dns| some(true, dns))),
            ("ipRanges", some(!self.ip_ranges.is_empty(), &self.ip_ranges)),
            ("mac", self.mac.as_ref().and_then(|mac| some(true, mac))),
            ("ips", some(!self.ips.is_empty(), &self.ips)),
            ("aliases", some(!self.aliases.is_empty(), &self.aliases)),
            ("cgroupPath", self.cgroup_path.as_ref().and_then(|path| some(true, path))),
        ];
        for (name, value) in known {
            if let Some(value) = value {
                all.insert(name.into(), value);
            }
        }
        all
    }
}

/// Strings, numbers, and lists of them: there is nothing that JSON can't say.
fn some(is: bool, value: &impl Serialize) -> Option<Value> {
    is.then(|| serde_json::to_value(value).unwrap_or_default())
}

impl Container {
    /// # Errors
    ///
    /// [`Error::Name`] and [`Error::Argument`].
    pub(crate) fn check(&self) -> Result<()> {
        name::container(&self.id)?;
        let Some(path) = &self.netns else { return Ok(()) };
        let problem = match path.to_str() {
            None => "is not UTF-8",
            Some(text) if text.contains(char::is_control) => "has control characters in it",
            Some(_) if !path.is_absolute() => "is not absolute",
            Some(_) => return Ok(()),
        };
        let value = path.display().to_string();
        Err(Error::Argument { what: "network namespace", value, problem })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn capabilities_have_the_forms_of_the_conventions() {
        let mapping = |host_port, host_ip: Option<&str>| PortMapping {
            host_port,
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        };
        let capabilities = Capabilities {
            port_mappings: vec![mapping(8080, None), mapping(0, None), mapping(81, Some("::1"))],
            bandwidth: Some(Bandwidth { ingress_rate: 1000, ..Bandwidth::default() }),
            dns: Some(DnsSettings { servers: vec!["10.0.0.1".into()], ..DnsSettings::default() }),
            ip_ranges: vec![vec![IpRange {
                subnet: "10.1.2.0/24".parse().unwrap(),
                range_start: "10.1.2.3".parse().ok(),
                range_end: None,
                gateway: None,
            }]],
            mac: Some("c2:11:22:33:44:55".into()),
            ips: vec!["10.0.0.9/24".parse().unwrap()],
            aliases: vec!["db".into()],
            cgroup_path: Some("/kubepods/pod1".into()),
            others: BTreeMap::from([("deviceID".into(), json!("0000:00"))]),
        };
        assert_eq!(
            Value::Object(capabilities.to_json()),
            json!({
                "portMappings": [
                    { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
                    { "hostPort": 81, "containerPort": 80, "protocol": "tcp", "hostIP": "::1" },
                ],
                "bandwidth": { "ingressRate": 1000, "ingressBurst": 0,
                               "egressRate": 0, "egressBurst": 0 },
                "dns": { "servers": ["10.0.0.1"], "searches": [], "options": [] },
                "ipRanges": [[{ "subnet": "10.1.2.0/24", "rangeStart": "10.1.2.3" }]],
                "mac": "c2:11:22:33:44:55",
                "ips": ["10.0.0.9/24"],
                "aliases": ["db"],
                "cgroupPath": "/kubepods/pod1",
                "deviceID": "0000:00",
            })
        );
        assert!(Capabilities::default().to_json().is_empty());
    }

    #[test]
    fn arguments_are_text_that_can_be_taken_apart_again() {
        let arguments = Arguments::kubernetes("default", "web-0", "4f2a", "1-2").unwrap();
        assert_eq!(
            arguments.environment(),
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;\
             K8S_POD_INFRA_CONTAINER_ID=4f2a;K8S_POD_UID=1-2"
        );
        for (key, value) in [("a", "b;c"), ("a", "b=c"), ("a;b", "c"), ("", "c"), ("a", "b\nc")] {
            assert!(
                matches!(Arguments::default().add(key, value), Err(Error::Argument { .. })),
                "{key:?} {value:?}"
            );
        }
    }

    #[test]
    fn a_namespace_is_an_absolute_path() {
        let container = |netns: &str| Container {
            id: "a".into(),
            netns: Some(netns.into()),
            arguments: Arguments::default(),
            capabilities: Capabilities::default(),
        };
        container("/run/netns/a").check().unwrap();
        for path in ["", "run/netns/a", "/run/\na"] {
            assert!(matches!(container(path).check(), Err(Error::Argument { .. })), "{path:?}");
        }
    }
}
