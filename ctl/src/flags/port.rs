//! `--publish`: ports of the host that lead into the container.

use std::net::IpAddr;

use bosun_proto::v1::{Port, Protocol};

use super::FlagError;

/// First and last port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    fn len(self) -> usize {
        usize::from(self.last - self.first) + 1
    }
}

/// Every port of every `--publish`.
pub(crate) fn publish(specs: &[String]) -> Result<Vec<Port>, FlagError> {
    let mut all = Vec::new();
    for spec in specs {
        all.extend(parse_ports(spec)?);
    }
    Ok(all)
}

/// `[[HOST_IP:][HOST_PORT[-LAST]]:]CONTAINER_PORT[-LAST][/PROTOCOL]`; an IPv6 address stands in
/// brackets. Without a host port the daemon takes a free one.
pub(crate) fn parse_ports(spec: &str) -> Result<Vec<Port>, FlagError> {
    let (rest, protocol) = match spec.split_once('/') {
        None => (spec, Protocol::Tcp),
        Some((rest, "tcp")) => (rest, Protocol::Tcp),
        Some((rest, "udp")) => (rest, Protocol::Udp),
        Some((_, other)) => {
            return Err(FlagError::PortProtocol {
                spec: spec.to_owned(),
                protocol: other.to_owned(),
            });
        }
    };
    let (rest, container) = rest.rsplit_once(':').map_or((None, rest), |(l, r)| (Some(l), r));
    let container = range(spec, container)?;
    let (address, host) = match rest {
        None => ("", ""),
        Some(rest) => rest.rsplit_once(':').unwrap_or(("", rest)),
    };
    let host_ip = host_address(spec, address)?;
    let host = if host.is_empty() { None } else { Some(range(spec, host)?) };
    if let Some(host) = host
        && host.len() != container.len()
    {
        return Err(FlagError::PortRanges {
            spec: spec.to_owned(),
            host: host.len(),
            container: container.len(),
        });
    }
    Ok((container.first..=container.last)
        .enumerate()
        .map(|(index, port)| Port {
            host_ip: host_ip.clone(),
            host_port: host
                .map_or(0, |host| u32::from(host.first) + u32::try_from(index).unwrap_or_default()),
            container_port: port.into(),
            protocol: protocol.into(),
        })
        .collect())
}

fn host_address(spec: &str, address: &str) -> Result<String, FlagError> {
    if address.is_empty() {
        return Ok(String::new());
    }
    let bad = || FlagError::PortAddress { spec: spec.to_owned(), address: address.to_owned() };
    let bare = match address.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(bad)?,
        // 1:2:3:4 has a colon too many rather than an IPv6 address.
        None if address.contains(':') => return Err(FlagError::Port(spec.to_owned())),
        None => address,
    };
    Ok(bare.parse::<IpAddr>().map_err(|_| bad())?.to_string())
}

fn range(spec: &str, text: &str) -> Result<PortRange, FlagError> {
    if text.is_empty() {
        return Err(FlagError::Port(spec.to_owned()));
    }
    let number = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        Ok(_) | Err(_) if text.bytes().any(|byte| !byte.is_ascii_digit()) || text.is_empty() => {
            Err(FlagError::Port(spec.to_owned()))
        }
        Ok(_) | Err(_) => {
            Err(FlagError::PortNumber { spec: spec.to_owned(), number: text.to_owned() })
        }
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(FlagError::Port(spec.to_owned()));
    }
    Ok(PortRange { first, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As "IP host->container/protocol", joined.
    fn shown(spec: &str) -> String {
        let ports = parse_ports(spec).unwrap();
        let one = |port: &Port| {
            let protocol = if port.protocol() == Protocol::Udp { "udp" } else { "tcp" };
            format!("{} {}->{}/{protocol}", port.host_ip, port.host_port, port.container_port)
        };
        ports.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn ports_in_every_form() {
        for (spec, want) in [
            ("80", " 0->80/tcp"),
            ("8080:80", " 8080->80/tcp"),
            ("53:53/udp", " 53->53/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1 8080->80/tcp"),
            ("127.0.0.1::80", "127.0.0.1 0->80/tcp"),
            ("[::1]:8080:80", "::1 8080->80/tcp"),
            (":80", " 0->80/tcp"),
            ("8000-8001:80-81", " 8000->80/tcp,  8001->81/tcp"),
            ("65535:65535", " 65535->65535/tcp"),
        ] {
            assert_eq!(shown(spec), want, "{spec}");
        }
    }

    #[test]
    fn malformed_ports_are_named() {
        for (spec, want) in [
            ("", "want [[HOST_IP:]"),
            ("http", "want [[HOST_IP:]"),
            ("80:http", "want [[HOST_IP:]"),
            ("1:2:3:4", "want [[HOST_IP:]"),
            ("8080:", "want [[HOST_IP:]"),
            ("81-80", "want [[HOST_IP:]"),
            ("+80:80", "want [[HOST_IP:]"),
            ("80-:80", "want [[HOST_IP:]"),
            ("0:80", "0 is not a port number"),
            ("80:70000", "70000 is not a port number"),
            ("8000-8002:80-81", "3 host and 2 container ports"),
            ("8000-8002:80", "3 host and 1 container ports"),
            ("80/sctp", "protocol \"sctp\""),
            ("80/", "protocol \"\""),
            ("localhost:80:80", "\"localhost\" is not an IP address"),
            ("[::1:80:80", "is not an IP address"),
        ] {
            let error = parse_ports(spec).unwrap_err().to_string();
            assert!(error.contains(want) && error.contains(spec), "{spec}: {error}");
        }
    }
}
