//! The three files of `/etc` that a container has of its own.
//!
//! A resolver on the host's loopback can't be reached from another network namespace, so its address
//! is left out; systemd-resolved, which writes only such an address, keeps the real ones in a file
//! of its own. When nothing is left, the public servers of [`FALLBACK`] are named, as docker does.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use super::{ContainerOptions, NetworkMode};

/// Where each is in the container, and its name in the container's run directory.
pub(super) const FILES: [(&str, &str); 3] =
    [("/etc/resolv.conf", "resolv.conf"), ("/etc/hosts", "hosts"), ("/etc/hostname", "hostname")];

const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";
const SYSTEMD_RESOLV_CONF: &str = "/run/systemd/resolve/resolv.conf";
const HOST_HOSTS: &str = "/etc/hosts";

/// The stub of systemd-resolved.
const SYSTEMD_STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

/// Google Public DNS, for a host that names no server that a container could reach.
pub const FALLBACK: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];

/// How many characters of its id name a container that was given no name of its own.
const SHORT_ID: usize = 12;

/// The files of a container, by their name in its run directory. `address` is its own, when it has
/// one. Reads the host's files; one that is missing is an empty one.
#[must_use]
pub fn etc_files(
    options: &ContainerOptions,
    id: &str,
    address: Option<Ipv4Addr>,
) -> [(&'static str, String); 3] {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let host = read(HOST_RESOLV_CONF);
    let (resolv_conf, hosts) = match options.network {
        NetworkMode::Host => (host, read(HOST_HOSTS)),
        NetworkMode::Bridge | NetworkMode::None | NetworkMode::Container(_) => {
            let hostname = hostname(options, id, "");
            (
                reachable_resolvers(resolver_source(&host, &read(SYSTEMD_RESOLV_CONF))),
                hosts(address, &hostname, &options.domainname),
            )
        }
    };
    let resolv_conf = match &options.resolver {
        Some(resolver) => resolver.text(),
        None => resolv_conf,
    };
    let own = match options.network {
        NetworkMode::Host => hostname(options, id, read("/proc/sys/kernel/hostname").trim()),
        NetworkMode::Bridge | NetworkMode::None | NetworkMode::Container(_) => {
            hostname(options, id, "")
        }
    };
    [("resolv.conf", resolv_conf), ("hosts", hosts), ("hostname", format!("{own}\n"))]
}

/// What was asked for; else the host's own name with the host's network; else the short id.
#[must_use]
pub fn hostname(options: &ContainerOptions, id: &str, host: &str) -> String {
    match (&options.network, options.hostname.as_str()) {
        (NetworkMode::Host, "") if !host.is_empty() => host.to_owned(),
        (_, "") => id.chars().take(SHORT_ID).collect(),
        (_, name) => name.to_owned(),
    }
}

/// The text to take servers from: systemd-resolved's own file when the host's names its stub alone.
fn resolver_source<'a>(host: &'a str, systemd: &'a str) -> &'a str {
    let mut servers = host.lines().filter_map(nameserver).peekable();
    let stub_alone = servers.peek().is_some() && servers.all(|server| server == SYSTEMD_STUB);
    if stub_alone && !systemd.is_empty() { systemd } else { host }
}

/// `nameserver ADDRESS` of resolv.conf(5); a scope (`%eth0`) means nothing elsewhere.
fn nameserver(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
}

/// Keeps search domains and options, and the servers that a container on an IPv4 bridge can reach.
fn reachable_resolvers(text: &str) -> String {
    let reachable = |server: &IpAddr| server.is_ipv4() && !server.is_loopback();
    let mut lines: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| {
            ["search", "domain", "options"].iter().any(|word| {
                line.strip_prefix(word).is_some_and(|rest| rest.starts_with(char::is_whitespace))
            })
        })
        .map(str::to_owned)
        .collect();
    let mut servers: Vec<IpAddr> = text.lines().filter_map(nameserver).filter(reachable).collect();
    if servers.is_empty() {
        servers = FALLBACK.to_vec();
    }
    lines.extend(servers.iter().map(|server| format!("nameserver {server}")));
    lines.join("\n") + "\n"
}

/// Loopback, then the container itself: its full name before its short one.
fn hosts(address: Option<Ipv4Addr>, hostname: &str, domainname: &str) -> String {
    let mut text = "127.0.0.1\tlocalhost\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\n\
        fe00::\tip6-localnet\n\
        ff00::\tip6-mcastprefix\n\
        ff02::1\tip6-allnodes\n\
        ff02::2\tip6-allrouters\n"
        .to_owned();
    let address = address.unwrap_or(Ipv4Addr::LOCALHOST);
    let names = match (domainname, hostname.split_once('.')) {
        ("", None) => hostname.to_owned(),
        ("", Some((short, _))) => format!("{hostname} {short}"),
        (domain, _) => format!("{hostname}.{domain} {hostname}"),
    };
    text.push_str(&format!("{address}\t{names}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_the_host_s_loopback_are_left_out() {
        let host = "# made by hand\nsearch example.org\noptions ndots:2\nnameserver 127.0.0.1\n\
            nameserver 192.0.2.1\nnameserver ::1\nnameserver 2001:db8::1\nnameserver 192.0.2.2 \n";
        assert_eq!(
            reachable_resolvers(resolver_source(host, "nameserver 203.0.113.1")),
            "search example.org\noptions ndots:2\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n"
        );
    }

    #[test]
    fn the_stub_of_systemd_is_replaced_by_the_servers_behind_it() {
        let host = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n";
        let behind = "nameserver 192.0.2.53\nsearch .\n";
        assert_eq!(resolver_source(host, behind), behind);
        assert_eq!(resolver_source(host, ""), host, "without its file there is only the stub");
        let mixed = "nameserver 127.0.0.53\nnameserver 192.0.2.1\n";
        assert_eq!(resolver_source(mixed, behind), mixed);
    }

    #[test]
    fn a_host_without_a_reachable_server_gets_the_documented_ones() {
        for host in ["", "nameserver 127.0.0.1\n", "nameserver ::1\n", "nameserver nonsense\n"] {
            assert_eq!(reachable_resolvers(host), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        }
        assert_eq!(
            reachable_resolvers("searching\noptionsx\nsearch a"),
            "search a\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n"
        );
    }

    #[test]
    fn a_container_finds_itself_by_its_name() {
        let own = Some(Ipv4Addr::new(172, 30, 0, 2));
        assert!(hosts(own, "web", "").ends_with("172.30.0.2\tweb\n"));
        assert!(hosts(own, "web", "example.org").ends_with("172.30.0.2\tweb.example.org web\n"));
        assert!(hosts(own, "web.example.org", "").ends_with("\tweb.example.org web\n"));
        assert!(hosts(None, "web", "").ends_with("127.0.0.1\tweb\n"));
    }

    #[test]
    fn the_name_is_the_asked_one_or_the_short_id() {
        let id = "0123456789abcdef";
        let mut options = ContainerOptions::default();
        assert_eq!(hostname(&options, id, "machine"), "0123456789ab");
        assert_eq!(hostname(&options, "web", "machine"), "web");
        options.network = NetworkMode::Host;
        assert_eq!(hostname(&options, id, "machine"), "machine");
        options.hostname = "own".to_owned();
        assert_eq!(hostname(&options, id, "machine"), "own");
        let [_, _, (name, content)] = etc_files(&options, id, None);
        assert_eq!((name, content.as_str()), ("hostname", "own\n"));
    }
}
