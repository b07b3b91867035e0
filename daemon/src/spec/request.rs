//! What a user asks for, as the core has it: the content of `options.json`.
//!
//! Made by the faces from their own messages; texts that have a rule are parsed on the way in
//! ([`Signal`], [`LogOptions::parse`], [`RestartPolicy`], [`Propagation`]), so that what is stored
//! is known to be well formed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{
    Adjustment, DeviceRequest, Error, ImageMount, LogOptions, PidMode, Resolver, Security, Signal,
};

/// A container as it was asked for. Absent is docker's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerOptions {
    pub name: String,
    /// A directory of the host, copy on write.
    pub rootfs: Option<PathBuf>,
    pub image: Option<String>,
    /// Replaces the image's entry point; empty is none.
    pub entrypoint: Option<Vec<String>>,
    pub command: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Empty is `/`.
    pub working_dir: String,
    /// `USER[:GROUP]`, names or numbers; empty is root.
    pub user: String,
    /// Empty: the first 12 characters of the id.
    pub hostname: String,
    pub domainname: String,
    pub tty: bool,
    /// Standard input is held open (docker's `-i`).
    pub stdin: bool,
    /// Removed when it ends.
    pub auto_remove: bool,
    pub read_only: bool,
    /// A small init as process 1.
    pub init: bool,
    pub privileged: bool,
    /// Names, or `ALL`.
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub mounts: Vec<BindMount>,
    pub ports: Vec<Port>,
    pub network: NetworkMode,
    pub limits: Limits,
    /// Absent is TERM.
    pub stop_signal: Option<Signal>,
    /// Seconds that a stop waits before KILL; absent is 10.
    pub stop_timeout: Option<u32>,
    pub restart_policy: RestartPolicy,
    pub labels: BTreeMap<String, String>,
    pub log: LogOptions,
    pub window: WindowSize,
    pub oom_score_adj: Option<i32>,
    /// Which part of the image; empty is this machine's.
    pub platform: String,
    /// Every port that the image exposes is published.
    pub publish_all: bool,
    /// Of the image.
    pub volumes: Vec<Volume>,
    /// Who runs it; empty is bosun's own runtime.
    pub runtime: String,
    /// Its runtime keeps the host's devices from it, also when it is privileged.
    #[serde(skip_serializing_if = "is_default")]
    pub no_host_devices: bool,
    pub role: Role,
    /// Of a user namespace; without any, it is the host's. One list alone stands for both.
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
    #[serde(skip_serializing_if = "is_default")]
    pub security: Security,
    #[serde(skip_serializing_if = "is_default")]
    pub devices: Vec<DeviceRequest>,
    /// By their qualified names, `vendor.com/class=name`.
    #[serde(skip_serializing_if = "is_default")]
    pub cdi_devices: Vec<String>,
    /// What those bring, once the container is made.
    #[serde(skip_serializing_if = "is_default")]
    pub edits: Option<bosun_cdi::Edits>,
    #[serde(skip_serializing_if = "is_default")]
    pub image_mounts: Vec<ImageMount>,
    /// Absent: as the host resolves names.
    #[serde(skip_serializing_if = "is_default")]
    pub resolver: Option<Resolver>,
    #[serde(skip_serializing_if = "is_default")]
    pub pid: PidMode,
    /// IPC and `/dev/shm` are the host's.
    #[serde(skip_serializing_if = "is_default")]
    pub host_ipc: bool,
    /// The control group below which its own is made; empty is bosun's place.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup_parent: String,
    /// Standard input ends when the client that sends it goes.
    #[serde(skip_serializing_if = "is_default")]
    pub stdin_once: bool,
    /// It is never started a second time, so its files need not outlive a power cut.
    #[serde(skip_serializing_if = "is_default")]
    pub once: bool,
    /// What of its spec is changed after it was made of all this.
    #[serde(skip_serializing_if = "is_default")]
    pub adjustment: Adjustment,
    /// At its first start it goes on where it was written down, in the place of its program.
    #[serde(skip_serializing_if = "is_default")]
    pub restore: Option<Restore>,
    /// What a face keeps with it, by the face's name.
    #[serde(skip_serializing_if = "is_default")]
    pub extensions: BTreeMap<String, String>,
    /// What a face has said with the events of its life, beside what the core says: they are read when
    /// the container is gone.
    #[serde(skip_serializing_if = "is_default")]
    pub event_attributes: BTreeMap<String, String>,
}

/// How a container goes on that was written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restore {
    /// The archive that it was made from; it is not needed any more.
    pub archive: PathBuf,
    /// With the TCP connections that were open.
    pub tcp_established: bool,
    pub file_locks: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A range of ids of a user namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// The first, in the container.
    pub container_id: u32,
    /// The same one, on the host.
    pub host_id: u32,
    pub size: u32,
}

/// Users and groups of a user namespace.
#[derive(Clone, Copy, Debug)]
pub struct Users<'a> {
    pub uids: &'a [IdMapping],
    pub gids: &'a [IdMapping],
}

impl Users<'_> {
    /// Who the container's root is on the host; nobody when the maps leave it out.
    #[must_use]
    pub fn root(&self) -> Option<(u32, u32)> {
        let outside = |list: &[IdMapping]| {
            list.iter().find(|mapping| mapping.container_id == 0).map(|mapping| mapping.host_id)
        };
        outside(self.uids).zip(outside(self.gids))
    }

    /// Whether the container has a group of that number.
    #[must_use]
    pub fn has_group(&self, gid: u32) -> bool {
        self.gids.iter().any(|mapping| {
            gid.checked_sub(mapping.container_id).is_some_and(|offset| offset < mapping.size)
        })
    }
}

impl ContainerOptions {
    /// It may use every device of the host.
    #[must_use]
    pub fn has_host_devices(&self) -> bool {
        self.privileged && !self.no_host_devices
    }

    /// Groups of its processes beside those that its image gives to its user.
    #[must_use]
    pub fn further_groups(&self) -> Vec<u32> {
        let of_devices = self.edits.iter().flat_map(|edits| &edits.additional_gids);
        let mut groups = self.security.groups.clone();
        for group in of_devices.filter(|group| **group != 0) {
            if !groups.contains(group) {
                groups.push(*group);
            }
        }
        groups
    }

    /// Absent: those of the host.
    #[must_use]
    pub fn users(&self) -> Option<Users<'_>> {
        let (uids, gids) = (self.uid_mappings.as_slice(), self.gid_mappings.as_slice());
        match (uids, gids) {
            ([], []) => None,
            (only, []) | ([], only) => Some(Users { uids: only, gids: only }),
            (uids, gids) => Some(Users { uids, gids }),
        }
    }
}

/// What a container is to others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    #[default]
    Alone,
    /// None itself: it holds what the containers of a pod share.
    Sandbox(Sandbox),
    /// A container of a pod, by the id of its sandbox.
    Member(String),
}

/// What is asked of a sandbox alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sandbox {
    /// One pid namespace for all.
    pub share_pid: bool,
    /// Kernel parameters of its namespaces, by their dotted names.
    pub sysctls: BTreeMap<String, String>,
    /// It is not yet what was asked for, as long as whoever makes it does not say that it is.
    pub unready: bool,
}

/// A directory that an image wants to be kept apart: made with the container, filled with what the
/// image has there, removed with the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Of its directory, beside the container's other files.
    pub name: String,
    pub destination: String,
}

/// A path of the host, seen in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    pub source: PathBuf,
    pub destination: String,
    #[serde(default)]
    pub read_only: bool,
    /// What is mounted below it stays as it is when it is read-only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub flat: bool,
    /// The files belong to the container's users of the same numbers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub id_mapped: bool,
    #[serde(default)]
    pub propagation: Propagation,
}

/// How mounts made below a bind travel (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    #[default]
    Rprivate,
    Private,
    Rslave,
    Slave,
    Rshared,
    Shared,
}

impl Propagation {
    const ALL: [Self; 6] =
        [Self::Rprivate, Self::Private, Self::Rslave, Self::Slave, Self::Rshared, Self::Shared];

    /// The word that mount options and docker use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rprivate => "rprivate",
            Self::Private => "private",
            Self::Rslave => "rslave",
            Self::Slave => "slave",
            Self::Rshared => "rshared",
            Self::Shared => "shared",
        }
    }
}

impl FromStr for Propagation {
    type Err = Error;

    /// Empty is the default.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        Self::ALL.into_iter().find(|one| one.as_str() == text).ok_or_else(|| {
            Error::malformed(
                "mount propagation",
                text,
                "rprivate, private, rslave, slave, rshared or shared",
            )
        })
    }
}

/// A port to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// `0.0.0.0` is every address of the machine.
    pub host_ip: Ipv4Addr,
    /// Absent: a free one, chosen at start.
    pub host_port: Option<u16>,
    pub container_port: u16,
    pub protocol: Protocol,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

impl Port {
    /// From what the faces carry: an empty address is every one, port 0 a free one.
    ///
    /// # Errors
    /// Names the part that is no address or no port.
    pub fn parse(
        host_ip: &str,
        host_port: u32,
        container_port: u32,
        protocol: Protocol,
    ) -> Result<Self, Error> {
        let port = |value: u32, what| {
            u16::try_from(value)
                .map_err(|_| Error::malformed(what, value.to_string(), "between 1 and 65535"))
        };
        if container_port == 0 {
            return Err(Error::malformed("container port", "0", "between 1 and 65535"));
        }
        Ok(Self {
            host_ip: host_address(host_ip)?,
            host_port: Some(port(host_port, "host port")?).filter(|port| *port != 0),
            container_port: port(container_port, "container port")?,
            protocol,
        })
    }
}

fn host_address(text: &str) -> Result<Ipv4Addr, Error> {
    if text.is_empty() {
        return Ok(Ipv4Addr::UNSPECIFIED);
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(Error::NotSupported {
            what: "publishing on the IPv6 address",
            value: text.to_owned(),
            way_out: "name an IPv4 address of this machine",
        });
    }
    text.parse().map_err(|_| Error::malformed("host address", text, "an IPv4 address"))
}

/// Whose network a container has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "mode", content = "container")]
pub enum NetworkMode {
    /// One of its own on bosun's bridge.
    #[default]
    Bridge,
    Host,
    /// One of its own with nothing but loopback.
    None,
    /// That of another container, by its id.
    Container(String),
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge => f.write_str("bridge"),
            Self::Host => f.write_str("host"),
            Self::None => f.write_str("none"),
            Self::Container(id) => write!(f, "container:{id}"),
        }
    }
}

/// Limits; absent is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together; -1 is unlimited; absent is twice the memory where the
    /// kernel counts swap.
    pub memory_swap: Option<i64>,
    /// Bytes that reclaim tries to come down to when memory is short.
    pub memory_reservation: Option<i64>,
    /// Billionths of a CPU.
    pub nano_cpus: Option<i64>,
    /// Relative weight, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// `0-3,7`; empty is every one.
    pub cpuset_cpus: String,
    /// How many processes and threads; 0 and -1 are unlimited.
    pub pids: Option<i64>,
    /// 0 to 100.
    pub memory_swappiness: Option<u64>,
    /// False takes back what was said before.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_kill_disable: Option<bool>,
    /// Microseconds; not with `nano_cpus`. A quota of -1 is unlimited.
    pub cpu_period: Option<u64>,
    pub cpu_quota: Option<i64>,
    /// Microseconds of realtime scheduling.
    pub cpu_rt_period: Option<u64>,
    pub cpu_rt_runtime: Option<i64>,
    /// Memory nodes, as `cpuset_cpus`.
    pub cpuset_mems: String,
    /// 10 to 1000.
    pub blkio_weight: Option<u16>,
    pub blkio_weight_devices: Vec<DeviceLimit>,
    /// Bytes a second.
    pub device_read_bps: Vec<DeviceLimit>,
    pub device_write_bps: Vec<DeviceLimit>,
    /// Operations a second.
    pub device_read_iops: Vec<DeviceLimit>,
    pub device_write_iops: Vec<DeviceLimit>,
    /// Bytes, by the size of the pages: `2MB`.
    #[serde(skip_serializing_if = "is_default")]
    pub hugepages: BTreeMap<String, u64>,
    /// Files of the unified hierarchy and what is written to them.
    #[serde(skip_serializing_if = "is_default")]
    pub unified: BTreeMap<String, String>,
}

/// A weight or a rate of one block device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLimit {
    pub path: PathBuf,
    pub value: u64,
}

impl Limits {
    /// These, with what `new` says in the place of what was said.
    #[must_use]
    pub fn updated(&self, new: &Self) -> Self {
        let text = |new: &String, old: &String| if new.is_empty() { old } else { new }.clone();
        let list = |new: &Vec<DeviceLimit>, old: &Vec<DeviceLimit>| {
            let named = |old: &&DeviceLimit| new.iter().all(|new| new.path != old.path);
            old.iter().filter(named).chain(new).cloned().collect()
        };
        // A share of CPUs is said in one of two ways.
        let in_cpus = new.nano_cpus.is_some();
        let in_quota = new.cpu_quota.is_some() || new.cpu_period.is_some();
        Self {
            memory: new.memory.or(self.memory),
            memory_swap: new.memory_swap.or(self.memory_swap),
            memory_reservation: new.memory_reservation.or(self.memory_reservation),
            nano_cpus: new.nano_cpus.or(self.nano_cpus.filter(|_| !in_quota)),
            cpu_shares: new.cpu_shares.or(self.cpu_shares),
            cpuset_cpus: text(&new.cpuset_cpus, &self.cpuset_cpus),
            pids: new.pids.or(self.pids),
            memory_swappiness: new.memory_swappiness.or(self.memory_swappiness),
            oom_kill_disable: new.oom_kill_disable.or(self.oom_kill_disable),
            cpu_period: new.cpu_period.or(self.cpu_period.filter(|_| !in_cpus)),
            cpu_quota: new.cpu_quota.or(self.cpu_quota.filter(|_| !in_cpus)),
            cpu_rt_period: new.cpu_rt_period.or(self.cpu_rt_period),
            cpu_rt_runtime: new.cpu_rt_runtime.or(self.cpu_rt_runtime),
            cpuset_mems: text(&new.cpuset_mems, &self.cpuset_mems),
            blkio_weight: new.blkio_weight.or(self.blkio_weight),
            blkio_weight_devices: list(&new.blkio_weight_devices, &self.blkio_weight_devices),
            device_read_bps: list(&new.device_read_bps, &self.device_read_bps),
            device_write_bps: list(&new.device_write_bps, &self.device_write_bps),
            device_read_iops: list(&new.device_read_iops, &self.device_read_iops),
            device_write_iops: list(&new.device_write_iops, &self.device_write_iops),
            hugepages: merged(&new.hugepages, &self.hugepages),
            unified: merged(&new.unified, &self.unified),
        }
    }
}

/// What was said before, and over it what is said now.
fn merged<V: Clone>(new: &BTreeMap<String, V>, old: &BTreeMap<String, V>) -> BTreeMap<String, V> {
    old.iter().chain(new).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// What happens when a container ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestartPolicy {
    #[default]
    No,
}

impl FromStr for RestartPolicy {
    type Err = Error;

    /// Empty is `no`.
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "" | "no" => Ok(Self::No),
            policy => Err(Error::RestartPolicy { policy: policy.to_owned() }),
        }
    }
}

/// Of a terminal, in characters; 0 is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    pub width: u16,
    pub height: u16,
}

impl ContainerOptions {
    /// The words of process 1: the entry point, then the command. Empty when there are none.
    #[must_use]
    pub fn args(&self) -> Vec<String> {
        self.entrypoint.iter().flatten().chain(&self.command).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_by_an_older_daemon_lacks_fields_and_is_still_read() {
        let stored = r#"{"name":"web","rootfs":"/","network":{"mode":"bridge"},"new":1}"#;
        let options: ContainerOptions = serde_json::from_str(stored).unwrap();
        assert_eq!(options.rootfs, Some(PathBuf::from("/")));
        assert_eq!(options.stop_signal, None);
    }

    #[test]
    fn options_round_trip_through_their_file() {
        let options = ContainerOptions {
            network: NetworkMode::Container("abc".to_owned()),
            ports: vec![Port::parse("127.0.0.1", 0, 80, Protocol::Udp).unwrap()],
            stop_signal: Some("QUIT".parse().unwrap()),
            oom_score_adj: Some(5),
            ..ContainerOptions::default()
        };
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<ContainerOptions>(&text).unwrap(), options, "{text}");
    }

    #[test]
    fn ports_are_numbers_of_16_bits_on_ipv4() {
        let said = |ip, host, container| {
            Port::parse(ip, host, container, Protocol::Tcp).unwrap_err().to_string()
        };
        assert!(said("", 65536, 80).contains("host port \"65536\""));
        assert!(said("", 80, 0).contains("container port \"0\""));
        assert!(said("localhost", 80, 80).contains("\"localhost\" is not an IPv4 address"));
        assert!(said("[::1]", 80, 80).contains("IPv6"));
        let any = Port::parse("", 0, 80, Protocol::Tcp).unwrap();
        assert_eq!((any.host_ip, any.host_port), (Ipv4Addr::UNSPECIFIED, None));
    }

    #[test]
    fn only_the_restart_policy_no_is_known() {
        assert_eq!("".parse::<RestartPolicy>().unwrap(), RestartPolicy::No);
        let said = "unless-stopped".parse::<RestartPolicy>().unwrap_err().to_string();
        assert!(said.contains("\"unless-stopped\" is not supported"), "{said}");
    }
}
