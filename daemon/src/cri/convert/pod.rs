//! Pods: what they are asked to be, as a sandbox of the core, and a sandbox as the kubelet sees it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{absolute, core_name, id_mappings, nanos};
use crate::container::{CREATED, Record};
use crate::cri::{CgroupDriver, Configured, Network, invalid, kept, required, wire};
use crate::error::Result;
use crate::spec::{
    ContainerOptions, LogOptions, NetworkMode, Port, Protocol, Resolver, Role, Sandbox,
};
use crate::store::Event;
use crate::time::Time;

/// The sandbox that a pod asks for; `hostname` is the machine's.
///
/// # Errors
/// Names the part that is missing or can't be.
pub(crate) fn pod_options(
    request: &wire::RunPodSandboxRequest,
    settings: &Configured,
    hostname: &str,
) -> Result<ContainerOptions> {
    let config = required(request.config.as_ref(), "config")?;
    let metadata = required(config.metadata.as_ref(), "config.metadata")?;
    if metadata.name.is_empty() || metadata.uid.is_empty() {
        return Err(invalid("config.metadata", "a pod has a name and a uid"));
    }
    if !config.log_directory.is_empty() {
        absolute("config.log_directory", &config.log_directory)?;
    }
    check_ports(&config.port_mappings)?;
    let linux = config.linux.clone().unwrap_or_default();
    let cgroup_parent = cgroup_parent(&linux.cgroup_parent, settings.cgroup_driver)?;
    let security = linux.security_context.clone().unwrap_or_default();
    let namespaces = security.namespace_options.clone().unwrap_or_default();
    let is_host = |mode: wire::NamespaceMode| mode == wire::NamespaceMode::Node;
    let host_network = is_host(namespaces.network());
    let users = users(&namespaces, host_network)?;
    let network = match (host_network, settings.network) {
        (true, _) => NetworkMode::Host,
        (false, Network::Bridge) => NetworkMode::Bridge,
        (false, Network::Cni) => NetworkMode::None,
    };
    let ports = match network {
        NetworkMode::Bridge => ports(&config.port_mappings)?,
        NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_) => Vec::new(),
    };
    if let Some(name) = linux.sysctls.keys().find(|name| host_network && name.starts_with("net")) {
        return Err(invalid("sysctls", format!("{name} is the machine's with the host's network")));
    }
    let mut sysctls: BTreeMap<String, String> = linux.sysctls.clone().into_iter().collect();
    if network == NetworkMode::None {
        // As everywhere under Kubernetes, and as the bridge has it.
        let mut open = |name: &str, value: &str| {
            sysctls.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        };
        open("net.ipv4.ip_unprivileged_port_start", "0");
        if users.is_empty() {
            open("net.ipv4.ping_group_range", "0 2147483647");
        }
    }
    let hostname = match (config.hostname.as_str(), host_network) {
        ("", true) => hostname.to_owned(),
        (name, _) => name.to_owned(),
    };
    Ok(ContainerOptions {
        name: pod_name(metadata),
        hostname,
        ports,
        network,
        labels: config.labels.clone().into_iter().collect(),
        role: Role::Sandbox(Sandbox {
            share_pid: namespaces.pid() == wire::NamespaceMode::Pod,
            sysctls,
            unready: true,
        }),
        host_ipc: is_host(namespaces.ipc()),
        resolver: config.dns_config.as_ref().and_then(resolver),
        cgroup_parent,
        uid_mappings: users.clone(),
        gid_mappings: users,
        command: vec!["bosun-init".to_owned()],
        cap_drop: vec!["ALL".to_owned()],
        read_only: true,
        log: LogOptions::None,
        extensions: BTreeMap::from([(kept::NAME.to_owned(), kept::text(request))]),
        event_attributes: words_of(metadata),
        ..ContainerOptions::default()
    })
}

/// Below what a pod's groups are made, as the driver has it: a path below the roots of the hierarchies,
/// or a slice. Of that a kubelet gives the whole path, whose last part says the rest.
fn cgroup_parent(parent: &str, driver: CgroupDriver) -> Result<String> {
    const WHAT: &str = "cgroup_parent";
    if parent.is_empty() {
        return Ok(String::new());
    }
    absolute(WHAT, &format!("/{}", parent.trim_matches('/')))?;
    let slice = parent.rsplit('/').next().filter(|name| name.ends_with(".slice"));
    match (driver, slice) {
        (CgroupDriver::Cgroupfs, None) => Ok(parent.to_owned()),
        (CgroupDriver::Systemd, Some(slice)) => Ok(slice.to_owned()),
        (CgroupDriver::Cgroupfs, Some(_)) => {
            let problem =
                "is systemd's: let the kubelet use the cgroupfs driver, or set cgroup-driver";
            Err(invalid(WHAT, format!("{parent:?} {problem} to \"systemd\"")))
        }
        (CgroupDriver::Systemd, None) => {
            let problem =
                "is no slice: let the kubelet use the systemd driver, or set cgroup-driver";
            Err(invalid(WHAT, format!("{parent:?} {problem} to \"cgroupfs\"")))
        }
    }
}

/// What the core calls a pod.
fn pod_name(metadata: &wire::PodSandboxMetadata) -> String {
    let wire::PodSandboxMetadata { name, uid, namespace, attempt } = metadata;
    core_name(&[name, namespace], &[name, uid, namespace, &attempt.to_string()])
}

/// One user namespace for a pod has one range of ids, for users and groups alike, with root in it.
fn users(
    namespaces: &wire::NamespaceOption,
    host_network: bool,
) -> Result<Vec<crate::spec::IdMapping>> {
    const WHAT: &str = "userns_options";
    let Some(options) = &namespaces.userns_options else { return Ok(Vec::new()) };
    match options.mode() {
        wire::NamespaceMode::Node => {
            return match options.uids.is_empty() && options.gids.is_empty() {
                true => Ok(Vec::new()),
                false => Err(invalid(WHAT, "the host's users have no mappings")),
            };
        }
        wire::NamespaceMode::Pod => {}
        wire::NamespaceMode::Container | wire::NamespaceMode::Target => {
            return Err(invalid(WHAT, "a user namespace is the pod's or the host's"));
        }
    }
    if host_network {
        return Err(invalid(WHAT, "the host's network is not for a pod with users of its own"));
    }
    let is_one =
        |list: &[wire::IdMapping]| matches!(list, [one] if one.container_id == 0 && one.length > 0);
    if !is_one(&options.uids) || options.uids != options.gids {
        return Err(invalid(WHAT, "one range from 0 on is needed, the same for users and groups"));
    }
    Ok(id_mappings(&options.uids))
}

/// `None` when it says nothing: then names are resolved as the host does.
fn resolver(config: &wire::DnsConfig) -> Option<Resolver> {
    let resolver = Resolver {
        servers: config.servers.clone(),
        searches: config.searches.clone(),
        options: config.options.clone(),
    };
    Some(resolver).filter(|resolver| *resolver != Resolver::default())
}

/// What plugins can't undo is refused before they see it, under every network.
fn check_ports(mappings: &[wire::PortMapping]) -> Result<()> {
    const WHAT: &str = "port_mappings";
    const MOST: i32 = u16::MAX as i32;
    for wire::PortMapping { container_port, host_port, .. } in mappings {
        if !(1..=MOST).contains(container_port) {
            let problem = format!("container_port {container_port} is not between 1 and {MOST}");
            return Err(invalid(WHAT, problem));
        }
        // 0 publishes nothing.
        if !(0..=MOST).contains(host_port) {
            let problem = format!("host_port {host_port} is not between 1 and {MOST}");
            return Err(invalid(WHAT, problem));
        }
    }
    Ok(())
}

fn ports(mappings: &[wire::PortMapping]) -> Result<Vec<Port>> {
    // Those without a port of the host only say what the pod listens to.
    let published = mappings.iter().filter(|mapping| mapping.host_port > 0);
    published
        .map(|mapping| {
            let protocol = match mapping.protocol() {
                wire::Protocol::Tcp => Protocol::Tcp,
                wire::Protocol::Udp => Protocol::Udp,
                wire::Protocol::Sctp => {
                    return Err(invalid("port_mappings", "the bridge does not publish SCTP"));
                }
            };
            let number = |port: i32| u32::try_from(port).unwrap_or(0);
            let (host, inside) = (number(mapping.host_port), number(mapping.container_port));
            Ok(Port::parse(&mapping.host_ip, host, inside, protocol)?)
        })
        .collect()
}

fn state(is_ready: bool) -> i32 {
    match is_ready {
        true => wire::PodSandboxState::SandboxReady.into(),
        false => wire::PodSandboxState::SandboxNotready.into(),
    }
}

/// A pod in a list.
pub(crate) fn listed_pod(record: &Record, is_ready: bool) -> wire::PodSandbox {
    let request = kept::pod(record);
    let config = request.config.unwrap_or_default();
    wire::PodSandbox {
        id: record.id.clone(),
        metadata: Some(metadata(record, config.metadata)),
        state: state(is_ready),
        created_at: nanos(record.created_at),
        labels: record.options.labels.clone().into_iter().collect(),
        annotations: config.annotations,
        runtime_handler: request.runtime_handler,
    }
}

/// A pod as it is.
pub(crate) fn pod_status(
    record: &Record,
    is_ready: bool,
    addresses: &[IpAddr],
) -> wire::PodSandboxStatus {
    let request = kept::pod(record);
    let config = request.config.unwrap_or_default();
    let security = config.linux.and_then(|linux| linux.security_context);
    let options = security.and_then(|security| security.namespace_options);
    wire::PodSandboxStatus {
        id: record.id.clone(),
        metadata: Some(metadata(record, config.metadata)),
        state: state(is_ready),
        created_at: nanos(record.created_at),
        network: Some(wire::PodSandboxNetworkStatus {
            ip: addresses.first().map(IpAddr::to_string).unwrap_or_default(),
            additional_ips: addresses
                .iter()
                .skip(1)
                .map(|address| wire::PodIp { ip: address.to_string() })
                .collect(),
        }),
        linux: Some(wire::LinuxPodSandboxStatus {
            namespaces: Some(wire::Namespace { options: Some(options.unwrap_or_default()) }),
        }),
        labels: record.options.labels.clone().into_iter().collect(),
        annotations: config.annotations,
        runtime_handler: request.runtime_handler,
    }
}

// What a kubelet calls a pod, with the events of the pod and of its containers.
const NAME: &str = "pod.name";
const UID: &str = "pod.uid";
const NAMESPACE: &str = "pod.namespace";
const ATTEMPT: &str = "pod.attempt";
/// With those of its containers, when it was made.
const MADE: &str = "pod.created";

fn words_of(metadata: &wire::PodSandboxMetadata) -> BTreeMap<String, String> {
    let words = [
        (NAME, metadata.name.clone()),
        (UID, metadata.uid.clone()),
        (NAMESPACE, metadata.namespace.clone()),
        (ATTEMPT, metadata.attempt.to_string()),
    ];
    words.map(|(key, value)| (key.to_owned(), value)).into()
}

/// What the events of a pod's containers say of the pod.
pub(super) fn words_of_member(pod: &Record) -> BTreeMap<String, String> {
    let mut words = pod.options.event_attributes.clone();
    words.insert(MADE.to_owned(), pod.created_at.rfc3339());
    words
}

/// The uid of the pod that a sandbox is, or was, if a kubelet asked for it.
pub(crate) fn uid(attributes: &BTreeMap<String, String>) -> Option<&str> {
    attributes.get(UID).map(String::as_str)
}

/// What is known of a pod that is gone by an event of its own, or of a container that was in it. `None`
/// of one that no kubelet asked for.
pub(crate) fn gone_pod(id: &str, event: &Event) -> Option<wire::PodSandboxStatus> {
    let word = |name: &str| event.attributes.get(name).cloned();
    let made = word(MADE).or_else(|| word(CREATED)).and_then(|text| Time::parse(&text));
    Some(wire::PodSandboxStatus {
        id: id.to_owned(),
        metadata: Some(wire::PodSandboxMetadata {
            name: word(NAME)?,
            uid: word(UID)?,
            namespace: word(NAMESPACE)?,
            attempt: word(ATTEMPT)?.parse().ok()?,
        }),
        state: state(false),
        created_at: nanos(made?),
        network: Some(wire::PodSandboxNetworkStatus::default()),
        ..wire::PodSandboxStatus::default()
    })
}

/// What another face made has the name that it was given there.
fn metadata(record: &Record, kept: Option<wire::PodSandboxMetadata>) -> wire::PodSandboxMetadata {
    kept.unwrap_or_else(|| wire::PodSandboxMetadata {
        name: record.name.clone(),
        uid: record.id.clone(),
        ..wire::PodSandboxMetadata::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_driver_has_its_own_parents() {
        let slice = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice";
        let plain = "/kubepods/burstable/pod1";
        let of = |parent, driver| cgroup_parent(parent, driver).map_err(|error| error.to_string());
        let (cgroupfs, systemd) = (CgroupDriver::Cgroupfs, CgroupDriver::Systemd);
        assert_eq!(of(slice, systemd).unwrap(), "kubepods-burstable-pod1.slice");
        assert_eq!(of("a.slice", systemd).unwrap(), "a.slice");
        assert_eq!(of(plain, cgroupfs).unwrap(), plain);
        assert_eq!(of("", systemd).unwrap(), "");
        assert!(of(slice, cgroupfs).unwrap_err().contains("systemd"));
        assert!(of(plain, systemd).unwrap_err().contains("is no slice"));
        assert!(of("/../a.slice", systemd).is_err());
    }
}
