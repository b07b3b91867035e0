//! Published ports: `0.0.0.0:8000->8000/tcp`, neighbours joined to ranges, and docker's port maps.

use std::collections::BTreeMap;

use bosun_proto::v1::{Port, Protocol};

use crate::template::{Value, record};

pub(super) fn protocol(port: &Port) -> &'static str {
    match port.protocol() {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

fn host_ip(port: &Port) -> &str {
    if port.host_ip.is_empty() { "0.0.0.0" } else { &port.host_ip }
}

/// The PORTS column: published ports, then those that the image exposes and nobody publishes.
pub(super) fn sentence(ports: &[Port], exposed: &[String]) -> String {
    let is_published = |text: &&String| {
        ports.iter().any(|port| format!("{}/{}", port.container_port, protocol(port)) == **text)
    };
    let only_exposed = exposed.iter().filter(|text| !is_published(text)).cloned();
    let bound = published(ports);
    Some(bound)
        .filter(|text| !text.is_empty())
        .into_iter()
        .chain(only_exposed)
        .collect::<Vec<_>>()
        .join(", ")
}

fn published(ports: &[Port]) -> String {
    let mut ports: Vec<&Port> = ports.iter().collect();
    ports.sort_by_key(|port| (host_ip(port), protocol(port), port.container_port, port.host_port));
    ports.dedup();
    let next = |before: &&Port, after: &&Port| {
        host_ip(before) == host_ip(after)
            && before.protocol == after.protocol
            && before.container_port + 1 == after.container_port
            && before.host_port + 1 == after.host_port
    };
    let groups = ports.chunk_by(next).filter_map(|group| group.first().zip(group.last()));
    groups.map(|(first, last)| one(first, last)).collect::<Vec<_>>().join(", ")
}

fn one(first: &Port, last: &Port) -> String {
    let range = |first: u32, last: u32| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    let inside = range(first.container_port, last.container_port);
    let outside = range(first.host_port, last.host_port);
    let ip = host_ip(first);
    let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    format!("{ip}:{outside}->{inside}/{}", protocol(first))
}

/// docker's port map: `{"8000/tcp": [{"HostIp": …, "HostPort": …}]}`.
pub(super) fn map(ports: &[Port], host_ip: impl Fn(&Port) -> &str) -> Value {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in ports {
        let key = format!("{}/{}", port.container_port, protocol(port));
        let outside = if port.host_port == 0 { String::new() } else { port.host_port.to_string() };
        all.entry(key)
            .or_default()
            .push(record([("HostIp", host_ip(port).into()), ("HostPort", outside.into())]));
    }
    Value::Map(all.into_iter().map(|(key, list)| (key, Value::List(list))).collect())
}

/// As they were bound.
pub(super) fn bound(ports: &[Port]) -> Value {
    map(ports, host_ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host_ip: &str, host_port: u32, container_port: u32, protocol: Protocol) -> Port {
        Port { host_ip: host_ip.to_owned(), host_port, container_port, protocol: protocol.into() }
    }

    #[test]
    fn neighbours_become_ranges() {
        let tcp = |host, container| port("", host, container, Protocol::Tcp);
        for (ports, want) in [
            (vec![], ""),
            (vec![tcp(8000, 8000)], "0.0.0.0:8000->8000/tcp"),
            (vec![tcp(8001, 81), tcp(8000, 80)], "0.0.0.0:8000-8001->80-81/tcp"),
            (vec![tcp(8000, 80), tcp(9000, 81)], "0.0.0.0:8000->80/tcp, 0.0.0.0:9000->81/tcp"),
            (
                vec![port("127.0.0.1", 53, 53, Protocol::Udp), tcp(53, 53)],
                "0.0.0.0:53->53/tcp, 127.0.0.1:53->53/udp",
            ),
            (vec![port("::1", 80, 80, Protocol::Tcp)], "[::1]:80->80/tcp"),
        ] {
            assert_eq!(sentence(&ports, &[]), want);
        }
    }

    #[test]
    fn a_port_map_groups_by_the_port_inside() {
        let ports = [port("", 8000, 80, Protocol::Tcp), port("127.0.0.1", 9000, 80, Protocol::Tcp)];
        assert_eq!(
            bound(&ports).json(),
            r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8000"},{"HostIp":"127.0.0.1","HostPort":"9000"}]}"#
        );
    }

    #[test]
    fn exposed_ports_stand_behind_the_published_ones() {
        let port = Port { host_port: 8000, container_port: 80, ..Port::default() };
        let exposed = ["53/udp", "80/tcp"].map(str::to_owned);
        assert_eq!(sentence(&[port], &exposed), "0.0.0.0:8000->80/tcp, 53/udp");
        assert_eq!(sentence(&[], &exposed), "53/udp, 80/tcp");
    }
}
