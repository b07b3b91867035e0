//! Between the messages of `bosun.v1` and the core, and from errors to statuses: each written once,
//! here, and exhaustive.

use std::error::Error as _;
use std::net::Ipv4Addr;

use bosun_proto::v1;
use bosun_proto::{LEASE_KEY, NAMESPACE_KEY, REASON_KEY};
use prost::Message;
use sha2::{Digest, Sha256};
use shim_wire::id::Id;
use shim_wire::ttrpc::Code as ShimCode;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::apparmor::{self, Support};
use crate::config::hex;
use crate::container::{
    Exit, Handle, Lease, Phase, Reason, Record, Run, Running, Status as ExitedAs, Usage,
};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::network::{self, Published};
use crate::requests::Request;
use crate::runtimes;
use crate::shim;
use crate::spec::{
    self, BindMount, ContainerOptions, DeviceLimit, DeviceRequest, IdMapping, Limits, LogOptions,
    NetworkMode, Port, Protocol, Role, Sandbox, Security, WindowSize,
};
use crate::store;
use crate::time::{Time, since_boot};

/// The namespace of a call.
///
/// # Errors
/// It is no id.
pub(super) fn namespace(metadata: &MetadataMap) -> Result<Id> {
    let text = match metadata.get(NAMESPACE_KEY) {
        None => "default",
        Some(value) => value.to_str().unwrap_or("\u{fffd}"),
    };
    text.parse().map_err(|source| Error::InvalidNamespace { namespace: text.to_owned(), source })
}

/// The lease that is to hold what a call makes.
///
/// # Errors
/// It is no text.
pub(super) fn lease(metadata: &MetadataMap) -> Result<Option<String>> {
    let Some(value) = metadata.get(LEASE_KEY) else { return Ok(None) };
    let lease = value.to_str().map_err(|_| Error::InvalidArgument {
        what: LEASE_KEY,
        problem: "it is not made of letters that metadata may have".to_owned(),
    })?;
    Ok(Some(lease.to_owned()).filter(|lease| !lease.is_empty()))
}

/// A mutating call's identity: what makes two of them the same.
///
/// # Errors
/// The namespace is no id, or the request id is too long.
pub(super) fn request<M: Message>(
    metadata: &MetadataMap,
    method: &str,
    id: &str,
    body: &M,
) -> Result<Request> {
    if id.len() > 128 {
        return Err(Error::InvalidArgument {
            what: "request_id",
            problem: format!("it has {} bytes, at most 128 are taken", id.len()),
        });
    }
    let mut digest = Sha256::new();
    digest.update(method);
    digest.update([0]);
    digest.update(body.encode_to_vec());
    Ok(Request {
        namespace: namespace(metadata)?,
        id: id.to_owned(),
        body: hex(&digest.finalize()),
    })
}

/// An error as one sentence, its causes behind it.
#[must_use]
pub fn sentence(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some messages name their cause themselves.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let (code, reason) = code_of(&error);
        let mut status = Self::new(code, sentence(&error));
        if let Some(reason) = reason {
            status.metadata_mut().insert(REASON_KEY, MetadataValue::from_static(reason));
        }
        status
    }
}

/// Whether a plugin does not want something, or there are none because of the machine.
fn nri_code(error: &bosun_nri::Error) -> Code {
    use bosun_nri::Error as Nri;
    match error {
        Nri::Refused { .. }
        | Nri::Conflict { .. }
        | Nri::UpdateOfNew { .. }
        | Nri::Rejected { .. }
        | Nri::NotValidated { .. } => Code::FailedPrecondition,
        Nri::File { .. } | Nri::SocketInUse { .. } => Code::Internal,
    }
}

/// Whether it is the configuration of networks, what was said of the pod, or a plugin.
fn plugins_code(error: &bosun_cni::Error) -> Code {
    use bosun_cni::Error as Plugins;
    match error {
        Plugins::Argument { .. } | Plugins::Name { .. } => Code::InvalidArgument,
        Plugins::NoConfiguration { .. }
        | Plugins::Invalid { .. }
        | Plugins::Directory { .. }
        | Plugins::PluginMissing { .. }
        | Plugins::PluginUnusable { .. }
        | Plugins::PluginVersion { .. }
        | Plugins::Unconfigured { .. } => Code::FailedPrecondition,
        Plugins::Stopping => Code::Unavailable,
        Plugins::Plugin { .. }
        | Plugins::Add { .. }
        | Plugins::Attached { .. }
        | Plugins::NotAttached { .. }
        | Plugins::GivenUp { .. }
        | Plugins::File { .. }
        | Plugins::Damaged { .. }
        | Plugins::Several(_) => Code::Internal,
    }
}

fn code_of(error: &Error) -> (Code, Option<&'static str>) {
    match error {
        Error::NoSuchContainer { .. } => (Code::NotFound, Some("NO_SUCH_CONTAINER")),
        Error::NoSuchSandbox { .. } => (Code::NotFound, Some("NO_SUCH_SANDBOX")),
        Error::SandboxInUse { .. } => (Code::FailedPrecondition, Some("SANDBOX_IN_USE")),
        Error::PeerEnded => (Code::FailedPrecondition, Some("NOT_RUNNING")),
        Error::AmbiguousPrefix { .. } => (Code::InvalidArgument, Some("AMBIGUOUS_PREFIX")),
        Error::NameInUse { .. } => (Code::AlreadyExists, Some("NAME_IN_USE")),
        Error::InvalidName { .. }
        | Error::InvalidNamespace { .. }
        | Error::InvalidArgument { .. }
        | Error::RequestIdReused { .. }
        | Error::Spec(_)
        | Error::Runtime(_)
        | Error::Devices(_)
        | Error::Plan(_) => (Code::InvalidArgument, None),
        Error::AppArmor(_) => (Code::FailedPrecondition, None),
        Error::Network(error) => network_code(error),
        Error::ImagePart { .. } => (Code::InvalidArgument, None),
        Error::StreamServer(_) | Error::PodPort { .. } => (Code::Unavailable, None),
        Error::StreamRefused(bosun_streaming::Refusal::Invalid(_)) => (Code::InvalidArgument, None),
        Error::StreamRefused(bosun_streaming::Refusal::TooManyOutstanding) => {
            (Code::ResourceExhausted, None)
        }
        Error::Plugins(error) => (plugins_code(error), None),
        Error::Nri(error) => (nri_code(error), None),
        Error::Store(error) => (store_code(error), None),
        Error::Shim { source, .. } => shim_code(source),
        Error::NotRunning { .. } => (Code::FailedPrecondition, Some("NOT_RUNNING")),
        Error::AlreadyRunning { .. } => (Code::FailedPrecondition, Some("ALREADY_RUNNING")),
        Error::Started { .. } => (Code::FailedPrecondition, None),
        Error::ExecTimedOut { .. } | Error::CheckpointTimedOut { .. } => {
            (Code::DeadlineExceeded, None)
        }
        Error::Paused { .. } => (Code::FailedPrecondition, Some("PAUSED")),
        Error::NotPaused { .. } => (Code::FailedPrecondition, Some("NOT_PAUSED")),
        Error::StillRunning { .. } | Error::Removing { .. } | Error::Quarantined { .. } => {
            (Code::FailedPrecondition, None)
        }
        // The daemon is there: a client need not come back for it.
        Error::StillHeld { .. } => (Code::DeadlineExceeded, None),
        Error::EndNotRecorded { .. } | Error::Stopping => (Code::Unavailable, None),
        Error::NoSuchSnapshot { .. } => (Code::NotFound, None),
        Error::SnapshotExists { .. } => (Code::AlreadyExists, None),
        Error::SnapshotHeld { .. } | Error::SnapshotHasChild { .. } => {
            (Code::FailedPrecondition, Some("SNAPSHOT_IN_USE"))
        }
        Error::SnapshotKind { .. } => (Code::FailedPrecondition, None),
        Error::Leased { .. } => (Code::FailedPrecondition, Some("LEASED")),
        Error::NoSuchImage { .. } | Error::NoPlatform { .. } => {
            (Code::NotFound, Some("NO_SUCH_IMAGE"))
        }
        Error::AmbiguousImage { .. } => (Code::InvalidArgument, Some("AMBIGUOUS_PREFIX")),
        Error::ImageInUse { .. } | Error::SeveralNames { .. } => {
            (Code::FailedPrecondition, Some("IMAGE_IN_USE"))
        }
        Error::ImageName(_) | Error::BadArchive { .. } | Error::BadCheckpoint { .. } => {
            (Code::InvalidArgument, None)
        }
        Error::NestedTooDeep { .. }
        | Error::TooManyDocuments { .. }
        | Error::BadImage { .. }
        | Error::DiffId { .. } => (Code::FailedPrecondition, Some("BAD_IMAGE")),
        Error::Layer { source, .. } => layer_code(source),
        Error::Archive { source } => match layer_code(source) {
            (Code::FailedPrecondition, _) => (Code::InvalidArgument, None),
            other => other,
        },
        Error::Registry(source) => registry_code(source),
        Error::SnapshotTorn { .. } | Error::BlobDamaged { .. } => (Code::DataLoss, None),
        Error::WrongContent { .. } => (Code::FailedPrecondition, Some("BAD_IMAGE")),
        Error::LayerType { .. } | Error::BlobTooLarge { .. } => {
            (Code::FailedPrecondition, Some("BAD_IMAGE"))
        }
        Error::ContainerPath { source, .. } => path_code(source),
        Error::Freeze { .. }
        | Error::Limits { .. }
        | Error::OomScore { .. }
        | Error::Systemd { .. } => (Code::Internal, None),
        Error::NoImageBelow { .. } => (Code::FailedPrecondition, None),
        Error::NoSuchLease { .. }
        | Error::NotLeased { .. }
        | Error::NoSuchBlob { .. }
        | Error::NoSuchIngest { .. } => (Code::NotFound, None),
        Error::LeaseExists { .. } => (Code::AlreadyExists, None),
        Error::IngestBusy { .. } => (Code::FailedPrecondition, Some("INGEST_BUSY")),
        Error::IngestMismatch { .. } => (Code::FailedPrecondition, Some("INGEST_MISMATCH")),
        Error::IngestTorn { .. } => (Code::Aborted, None),
        Error::IngestOffset { .. } | Error::BeyondBlob { .. } => (Code::OutOfRange, None),
        Error::File { source, .. } => (disk_code(source), None),
    }
}

fn is_full(source: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn disk_code(source: &std::io::Error) -> Code {
    if is_full(source) { Code::ResourceExhausted } else { Code::Internal }
}

fn layer_code(error: &bosun_layer::Error) -> (Code, Option<&'static str>) {
    use bosun_layer::Error as Is;
    match error {
        Is::NotTar
        | Is::Compression(_)
        | Is::Truncated { .. }
        | Is::Malformed { .. }
        | Is::Refused { .. }
        | Is::Limit { .. } => (Code::FailedPrecondition, Some("BAD_IMAGE")),
        Is::Read(source) | Is::Write(source) if is_full(source) => (Code::ResourceExhausted, None),
        Is::Read(_) | Is::Write(_) => (Code::FailedPrecondition, Some("BAD_IMAGE")),
        Is::File { source, .. } => path_code(source),
        Is::Rootfs(_) => (Code::Internal, None),
    }
}

fn registry_code(error: &bosun_registry::Error) -> (Code, Option<&'static str>) {
    use bosun_registry::Error as Is;
    match error {
        Is::NotFound { .. } => (Code::NotFound, Some("NOT_IN_REGISTRY")),
        Is::Unauthorized { .. } | Is::Denied { .. } | Is::Token { .. } => {
            (Code::PermissionDenied, Some("UNAUTHORIZED"))
        }
        Is::TooManyRequests { .. }
        | Is::Unavailable { .. }
        | Is::Unreachable { .. }
        | Is::Broken { .. }
        | Is::Stalled { .. } => (Code::Unavailable, Some("REGISTRY_UNAVAILABLE")),
        Is::Status { .. }
        | Is::BadAnswer { .. }
        | Is::RedirectLoop { .. }
        | Is::BadRedirect { .. } => (Code::FailedPrecondition, Some("REGISTRY_UNAVAILABLE")),
        Is::BadDigest { .. }
        | Is::BadLength { .. }
        | Is::TooLarge { .. }
        | Is::BadDocument { .. } => (Code::FailedPrecondition, Some("BAD_IMAGE")),
        Is::ForeignCredentials { .. } => (Code::InvalidArgument, None),
        Is::Hosts { .. } => (Code::FailedPrecondition, None),
        Is::Client { .. } | Is::Upload { .. } => (Code::Internal, None),
    }
}

fn path_code(source: &std::io::Error) -> (Code, Option<&'static str>) {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    if source.kind() == NotFound {
        return (Code::NotFound, Some("NO_SUCH_PATH"));
    }
    if source.kind() == NotADirectory {
        return (Code::FailedPrecondition, Some("NOT_A_DIRECTORY"));
    }
    (disk_code(source), None)
}

fn network_code(error: &network::Error) -> (Code, Option<&'static str>) {
    match error {
        network::Error::PortInUse { .. } => (Code::FailedPrecondition, Some("PORT_IN_USE")),
        network::Error::NoSuchAddress { .. } => (Code::InvalidArgument, None),
        network::Error::ShuttingDown => (Code::Unavailable, None),
        network::Error::InvalidName { .. }
        | network::Error::Bind { .. }
        | network::Error::BridgeInUse { .. }
        | network::Error::SubnetInUse { .. }
        | network::Error::ForeignAddress { .. }
        | network::Error::NotABridge { .. }
        | network::Error::NftMissing
        | network::Error::Nft { .. }
        | network::Error::Kernel { .. }
        | network::Error::File { .. } => (Code::Internal, None),
    }
}

fn store_code(error: &store::Error) -> Code {
    match error {
        store::Error::Open { .. }
        | store::Error::Newer { .. }
        | store::Error::Aside { .. }
        | store::Error::Sql(_)
        | store::Error::Encode(_) => Code::Internal,
        store::Error::Full => Code::ResourceExhausted,
        // Nothing that comes again by itself.
        store::Error::Refused { .. } => Code::FailedPrecondition,
        store::Error::Failed { .. } | store::Error::Closed => Code::Unavailable,
    }
}

fn shim_code(error: &shim::Error) -> (Code, Option<&'static str>) {
    match error {
        shim::Error::Refused { code, .. } => match code {
            ShimCode::NotFound => (Code::NotFound, Some("COMMAND_NOT_FOUND")),
            ShimCode::PermissionDenied => (Code::PermissionDenied, Some("COMMAND_NOT_EXECUTABLE")),
            ShimCode::InvalidArgument | ShimCode::OutOfRange => (Code::InvalidArgument, None),
            ShimCode::FailedPrecondition | ShimCode::Aborted => (Code::FailedPrecondition, None),
            ShimCode::ResourceExhausted => (Code::ResourceExhausted, None),
            ShimCode::Unimplemented => (Code::Unimplemented, None),
            ShimCode::Ok
            | ShimCode::Canceled
            | ShimCode::Unknown
            | ShimCode::DeadlineExceeded
            | ShimCode::AlreadyExists
            | ShimCode::Internal
            | ShimCode::Unavailable => (Code::Internal, None),
        },
        shim::Error::TimedOut { .. } => (Code::DeadlineExceeded, None),
        shim::Error::Gone { .. } => (Code::Unavailable, None),
        shim::Error::AttachRefused { .. } => (Code::FailedPrecondition, None),
        shim::Error::Io { .. } | shim::Error::Malformed { .. } => (Code::Internal, None),
    }
}

pub(super) fn time(time: Time) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.seconds, nanos: i32::try_from(time.nanos).unwrap_or(0) }
}

pub(super) fn time_from(time: prost_types::Timestamp) -> Time {
    Time { seconds: time.seconds, nanos: u32::try_from(time.nanos).unwrap_or(0) }
}

pub(super) fn exit(exit: &Exit) -> v1::Exit {
    v1::Exit {
        status: exit.status.number().into(),
        unknown: exit.status == ExitedAs::Unknown,
        signal: match exit.status {
            ExitedAs::Signal(signal) => signal.into(),
            ExitedAs::Code(_) | ExitedAs::Unknown => 0,
        },
        oom_killed: exit.oom_killed,
        exited_at: Some(time(exit.at)),
        reason: match exit.reason {
            Reason::Exited => String::new(),
            Reason::ShimLost => "ShimLost".to_owned(),
            Reason::HostLost => "HostLost".to_owned(),
        },
    }
}

/// What a client asks for, parsed: bad input dies here.
///
/// # Errors
/// Names the value and what would do.
pub(super) fn options(message: v1::ContainerOptions) -> Result<ContainerOptions> {
    use v1::container_options::Base;
    let (rootfs, image) = match message.base {
        Some(Base::Rootfs(path)) => (Some(path.into()), None),
        Some(Base::Image(image)) => (None, Some(image)),
        None => {
            return Err(Error::InvalidArgument {
                what: "rootfs",
                problem:
                    "neither an image nor a directory is named: give an image, or --rootfs DIR"
                        .to_owned(),
            });
        }
    };
    let mounts = message.mounts.into_iter().map(mount).collect::<Result<_>>()?;
    let ports = message.ports.into_iter().map(port).collect::<Result<_>>()?;
    let log = message.log.unwrap_or_default();
    Ok(ContainerOptions {
        name: message.name,
        rootfs,
        image,
        entrypoint: message.entrypoint.map(|list| list.values),
        command: message.command,
        env: message.env,
        working_dir: message.working_dir,
        user: message.user,
        hostname: message.hostname,
        tty: message.tty,
        stdin: message.stdin,
        auto_remove: message.auto_remove,
        read_only: message.read_only,
        init: message.init,
        privileged: message.privileged,
        cap_add: message.cap_add,
        cap_drop: message.cap_drop,
        mounts,
        ports,
        network: network_mode(message.network.unwrap_or_default())?,
        limits: limits(message.limits.unwrap_or_default())?,
        stop_signal: match message.stop_signal.as_str() {
            "" => None,
            text => Some(text.parse()?),
        },
        stop_timeout: message.stop_timeout_seconds,
        restart_policy: message.restart_policy.parse()?,
        labels: message.labels.into_iter().collect(),
        log: LogOptions::parse(&log.driver, &log.options.into_iter().collect())?,
        window: window(message.window),
        platform: message.platform,
        publish_all: message.publish_all,
        runtime: message.runtime,
        role: match message.sandbox {
            none if none.is_empty() => Role::Alone,
            sandbox => Role::Member(sandbox),
        },
        uid_mappings: message.uid_mappings.iter().map(mapping).collect(),
        gid_mappings: message.gid_mappings.iter().map(mapping).collect(),
        security: Security { apparmor: message.apparmor.into(), ..Security::default() },
        devices: message.devices.into_iter().map(device).collect(),
        cdi_devices: message.cdi_devices,
        ..ContainerOptions::default()
    })
}

/// A sandbox as the core has it: a container in the role of one.
///
/// # Errors
/// Names what can't be parsed.
pub(super) fn sandbox_options(message: v1::SandboxOptions) -> Result<ContainerOptions> {
    let sysctls = message.sysctls.into_iter().collect();
    Ok(ContainerOptions {
        name: message.name,
        hostname: message.hostname,
        ports: message.ports.into_iter().map(port).collect::<Result<_>>()?,
        network: network_mode(message.network.unwrap_or_default())?,
        labels: message.labels.into_iter().collect(),
        role: Role::Sandbox(Sandbox { share_pid: message.share_pid, sysctls, unready: false }),
        uid_mappings: message.uid_mappings.iter().map(mapping).collect(),
        gid_mappings: message.gid_mappings.iter().map(mapping).collect(),
        // The one process that there may be is bosun's own, and needs nothing.
        command: vec!["bosun-init".to_owned()],
        cap_drop: vec!["ALL".to_owned()],
        read_only: true,
        log: LogOptions::None,
        ..ContainerOptions::default()
    })
}

fn mount(message: v1::BindMount) -> Result<BindMount> {
    Ok(BindMount {
        source: message.source.into(),
        destination: message.destination,
        read_only: message.read_only,
        propagation: message.propagation.parse()?,
        ..BindMount::default()
    })
}

fn port(message: v1::Port) -> Result<Port> {
    let protocol = match message.protocol() {
        v1::Protocol::Tcp => Protocol::Tcp,
        v1::Protocol::Udp => Protocol::Udp,
    };
    Ok(Port::parse(&message.host_ip, message.host_port, message.container_port, protocol)?)
}

fn network_mode(message: v1::Network) -> Result<NetworkMode> {
    use v1::network::Mode;
    Ok(match message.mode() {
        Mode::Bridge => NetworkMode::Bridge,
        Mode::Host => NetworkMode::Host,
        Mode::None => NetworkMode::None,
        Mode::Container if message.container.is_empty() => {
            return Err(Error::InvalidArgument {
                what: "network",
                problem: "container: name the container whose network is joined".to_owned(),
            });
        }
        Mode::Container => NetworkMode::Container(message.container),
    })
}

/// The least memory that this face limits a container to: docker's own minimum, below which hardly a
/// program gets on.
const MEMORY_MIN: i64 = 6 << 20;

/// Limits of a request.
///
/// # Errors
/// A weight is no number of 16 bits; a device is no absolute path; memory is below the minimum.
pub(super) fn limits(message: v1::Limits) -> Result<Limits> {
    let mut memory = [message.memory, message.memory_reservation].into_iter().flatten();
    if let Some(asked) = memory.find(|asked| *asked != 0 && *asked < MEMORY_MIN) {
        return Err(spec::Error::MemoryTooSmall { asked, minimum: MEMORY_MIN }.into());
    }
    let device = |path: String, value: u64| match path.starts_with('/') {
        true => Ok(DeviceLimit { path: path.into(), value }),
        false => Err(Error::InvalidArgument {
            what: "device",
            problem: format!("{path:?} is not an absolute path"),
        }),
    };
    let rates = |list: Vec<v1::DeviceRate>| -> Result<Vec<DeviceLimit>> {
        list.into_iter().map(|rate| device(rate.path, rate.rate)).collect()
    };
    let weights = message.blkio_weight_devices.into_iter();
    Ok(Limits {
        memory: message.memory,
        memory_swap: message.memory_swap,
        memory_reservation: message.memory_reservation,
        memory_swappiness: message.memory_swappiness,
        oom_kill_disable: message.oom_kill_disable,
        nano_cpus: message.nano_cpus,
        cpu_shares: message.cpu_shares,
        cpu_period: message.cpu_period,
        cpu_quota: message.cpu_quota,
        cpu_rt_period: message.cpu_rt_period,
        cpu_rt_runtime: message.cpu_rt_runtime,
        cpuset_cpus: message.cpuset_cpus,
        cpuset_mems: message.cpuset_mems,
        pids: message.pids,
        // What does not fit is no weight either.
        blkio_weight: message.blkio_weight.map(|weight| u16::try_from(weight).unwrap_or(u16::MAX)),
        blkio_weight_devices: weights
            .map(|weight| device(weight.path, weight.weight.into()))
            .collect::<Result<_>>()?,
        device_read_bps: rates(message.device_read_bps)?,
        device_write_bps: rates(message.device_write_bps)?,
        device_read_iops: rates(message.device_read_iops)?,
        device_write_iops: rates(message.device_write_iops)?,
        ..Limits::default()
    })
}

pub(super) fn window(message: Option<v1::WindowSize>) -> WindowSize {
    let side = |value| u16::try_from(value).unwrap_or(u16::MAX);
    message.map_or_else(WindowSize::default, |window| WindowSize {
        width: side(window.width),
        height: side(window.height),
    })
}

impl From<&Port> for network::Publish {
    fn from(port: &Port) -> Self {
        Self {
            host_address: port.host_ip,
            host_port: port.host_port,
            container_port: port.container_port,
            protocol: match port.protocol {
                Protocol::Tcp => network::Protocol::Tcp,
                Protocol::Udp => network::Protocol::Udp,
            },
        }
    }
}

fn options_message(options: &ContainerOptions) -> v1::ContainerOptions {
    use v1::container_options::Base;
    let (log_driver, log_options) = options.log.to_docker();
    let sandbox = match &options.role {
        Role::Alone | Role::Sandbox(_) => String::new(),
        Role::Member(sandbox) => sandbox.clone(),
    };
    v1::ContainerOptions {
        name: options.name.clone(),
        base: match (&options.rootfs, &options.image) {
            (Some(path), _) => Some(Base::Rootfs(path.to_string_lossy().into_owned())),
            (None, Some(image)) => Some(Base::Image(image.clone())),
            (None, None) => None,
        },
        entrypoint: options
            .entrypoint
            .as_ref()
            .map(|values| v1::StringList { values: values.clone() }),
        command: options.command.clone(),
        env: options.env.clone(),
        working_dir: options.working_dir.clone(),
        user: options.user.clone(),
        hostname: options.hostname.clone(),
        tty: options.tty,
        stdin: options.stdin,
        auto_remove: options.auto_remove,
        read_only: options.read_only,
        init: options.init,
        privileged: options.privileged,
        cap_add: options.cap_add.clone(),
        cap_drop: options.cap_drop.clone(),
        mounts: options.mounts.iter().map(mount_message).collect(),
        ports: options.ports.iter().map(port_message).collect(),
        network: Some(network_message(&options.network)),
        limits: Some(limits_message(&options.limits)),
        stop_signal: options.stop_signal.unwrap_or(spec::Signal::TERM).to_string(),
        stop_timeout_seconds: options.stop_timeout,
        labels: options.labels.clone().into_iter().collect(),
        log: Some(v1::LogOptions {
            driver: log_driver.to_owned(),
            options: log_options.into_iter().collect(),
        }),
        window: None,
        restart_policy: "no".to_owned(),
        platform: options.platform.clone(),
        publish_all: options.publish_all,
        sandbox,
        runtime: options.runtime.clone(),
        uid_mappings: options.uid_mappings.iter().map(mapping_message).collect(),
        gid_mappings: options.gid_mappings.iter().map(mapping_message).collect(),
        apparmor: options.security.apparmor.clone().into(),
        devices: options.devices.iter().map(device_message).collect(),
        cdi_devices: options.cdi_devices.clone(),
    }
}

fn device(message: v1::Device) -> DeviceRequest {
    DeviceRequest {
        host_path: message.host_path.into(),
        container_path: message.container_path.into(),
        access: message.access,
    }
}

fn device_message(device: &DeviceRequest) -> v1::Device {
    v1::Device {
        host_path: device.host_path.to_string_lossy().into_owned(),
        container_path: device.container_path.to_string_lossy().into_owned(),
        access: device.access.clone(),
    }
}

fn apparmor_profile(core: &Core, record: &Record) -> String {
    let machine = &core.machine;
    let profile = spec::apparmor_profile(&record.options, machine);
    let none = if machine.apparmor == Support::Absent { "" } else { apparmor::UNCONFINED };
    profile.unwrap_or(none).to_owned()
}

fn mapping(message: &v1::IdMapping) -> IdMapping {
    let v1::IdMapping { container_id, host_id, size } = *message;
    IdMapping { container_id, host_id, size }
}

fn mapping_message(mapping: &IdMapping) -> v1::IdMapping {
    let IdMapping { container_id, host_id, size } = *mapping;
    v1::IdMapping { container_id, host_id, size }
}

fn network_message(network: &NetworkMode) -> v1::Network {
    let (mode, container) = match network {
        NetworkMode::Bridge => (v1::network::Mode::Bridge, String::new()),
        NetworkMode::Host => (v1::network::Mode::Host, String::new()),
        NetworkMode::None => (v1::network::Mode::None, String::new()),
        NetworkMode::Container(id) => (v1::network::Mode::Container, id.clone()),
    };
    v1::Network { mode: mode.into(), container }
}

fn mount_message(mount: &BindMount) -> v1::BindMount {
    v1::BindMount {
        source: mount.source.to_string_lossy().into_owned(),
        destination: mount.destination.clone(),
        read_only: mount.read_only,
        propagation: mount.propagation.as_str().to_owned(),
    }
}

fn port_message(port: &Port) -> v1::Port {
    v1::Port {
        host_ip: address(port.host_ip),
        host_port: port.host_port.unwrap_or(0).into(),
        container_port: port.container_port.into(),
        protocol: match port.protocol {
            Protocol::Tcp => v1::Protocol::Tcp,
            Protocol::Udp => v1::Protocol::Udp,
        }
        .into(),
    }
}

fn published_message(published: &Published) -> v1::Port {
    v1::Port {
        host_ip: published.host_address.to_string(),
        host_port: published.host_port.into(),
        container_port: published.container_port.into(),
        protocol: match published.protocol {
            network::Protocol::Tcp => v1::Protocol::Tcp,
            network::Protocol::Udp => v1::Protocol::Udp,
        }
        .into(),
    }
}

fn address(address: Ipv4Addr) -> String {
    if address.is_unspecified() { String::new() } else { address.to_string() }
}

fn limits_message(limits: &Limits) -> v1::Limits {
    let path = |limit: &DeviceLimit| limit.path.to_string_lossy().into_owned();
    let rates = |list: &[DeviceLimit]| {
        list.iter().map(|limit| v1::DeviceRate { path: path(limit), rate: limit.value }).collect()
    };
    let weights = limits.blkio_weight_devices.iter();
    v1::Limits {
        memory: limits.memory,
        memory_swap: limits.memory_swap,
        memory_reservation: limits.memory_reservation,
        memory_swappiness: limits.memory_swappiness,
        oom_kill_disable: limits.oom_kill_disable,
        nano_cpus: limits.nano_cpus,
        pids: limits.pids,
        cpu_shares: limits.cpu_shares,
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        cpu_rt_period: limits.cpu_rt_period,
        cpu_rt_runtime: limits.cpu_rt_runtime,
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        blkio_weight: limits.blkio_weight.map(u32::from),
        blkio_weight_devices: weights
            .map(|limit| v1::DeviceWeight {
                path: path(limit),
                weight: u32::try_from(limit.value).unwrap_or(u32::MAX),
            })
            .collect(),
        device_read_bps: rates(&limits.device_read_bps),
        device_write_bps: rates(&limits.device_write_bps),
        device_read_iops: rates(&limits.device_read_iops),
        device_write_iops: rates(&limits.device_write_iops),
    }
}

/// What a container uses, as clients see it.
pub(super) fn usage(core: &Core, usage: &Usage) -> v1::StatsResponse {
    v1::StatsResponse {
        read_at: Some(time(Time::now())),
        cpu_total: usage.cpu_total,
        cpu_kernel: usage.cpu_kernel,
        cpu_user: usage.cpu_user,
        cpu_throttled: usage.cpu_throttled,
        cpu_throttled_periods: usage.cpu_throttled_periods,
        memory_used: usage.memory_used,
        memory_limit: usage.memory_limit,
        pids: usage.pids,
        pids_limit: usage.pids_limit,
        block_read: usage.block_read,
        block_written: usage.block_written,
        network_received: usage.network_received,
        network_sent: usage.network_sent,
        oom_kills: usage.oom_kills,
        online_cpus: u32::try_from(core.machine.online_cpus.len()).unwrap_or(u32::MAX),
    }
}

/// A container as clients see it.
pub(super) fn container(core: &Core, handle: &Handle) -> v1::Container {
    let view = handle.view();
    let key = handle.key();
    let container_dir = core.layout.container_dir(&key.namespace, &key.id);
    let mut message = v1::Container {
        id: key.id.to_string(),
        name: handle.name().to_owned(),
        state: Some(state(&view.phase, view.record.as_deref())),
        container_dir: container_dir.path().to_string_lossy().into_owned(),
        run_dir: core.layout.run_dir(&key.namespace, &key.id).path().to_string_lossy().into_owned(),
        snapshot_key: key.id.to_string(),
        runtime: runtimes::OWN.to_owned(),
        ..v1::Container::default()
    };
    if let Some(record) = &view.record {
        message.created_at = Some(time(record.created_at));
        message.options = Some(options_message(&record.options));
        if !record.options.runtime.is_empty() {
            message.runtime.clone_from(&record.options.runtime);
        }
        message.args.clone_from(&record.args);
        message.apparmor_profile = apparmor_profile(core, record);
        if let Some(image) = &record.image {
            message.image_id.clone_from(&image.id);
            message.exposed_ports.clone_from(&image.exposed_ports);
        }
        let volumes = record.options.volumes.iter();
        message.volumes = volumes
            .map(|volume| v1::BindMount {
                source: volume.source(container_dir.path()).to_string_lossy().into_owned(),
                destination: volume.destination.clone(),
                ..v1::BindMount::default()
            })
            .collect();
        message.log_path = match &record.options.log {
            LogOptions::None => String::new(),
            LogOptions::Cri { path } => path.to_string_lossy().into_owned(),
            LogOptions::JsonFile { .. } => {
                container_dir.json_log(key.id.as_str()).to_string_lossy().into_owned()
            }
        };
    }
    if let Phase::Running(running) | Phase::Paused(running) = &view.phase
        && let Some(lease) = &running.lease
    {
        message.network = Some(network_status(core, lease));
    }
    message
}

pub(super) fn sandbox(core: &Core, handle: &Handle, members: &[Handle]) -> v1::Sandbox {
    let v1::Container { id, name, created_at, state, network: network_status, .. } =
        container(core, handle);
    let mut message = v1::Sandbox {
        id,
        name,
        created_at,
        state,
        network_status,
        containers: members.iter().map(|member| member.key().id.to_string()).collect(),
        ..v1::Sandbox::default()
    };
    let view = handle.view();
    let Some(record) = &view.record else { return message };
    let options = &record.options;
    if let (Phase::Running(_) | Phase::Paused(_), true) =
        (&view.phase, options.network != NetworkMode::Host)
    {
        let path = crate::container::network_path(handle.key());
        message.network_namespace = path.to_string_lossy().into_owned();
    }
    let (share_pid, sysctls) = match &options.role {
        Role::Sandbox(sandbox) => (sandbox.share_pid, sandbox.sysctls.clone()),
        Role::Alone | Role::Member(_) => Default::default(),
    };
    message.options = Some(v1::SandboxOptions {
        name: options.name.clone(),
        hostname: spec::hostname(options, &record.id, ""),
        ports: options.ports.iter().map(port_message).collect(),
        network: Some(network_message(&options.network)),
        share_pid,
        sysctls: sysctls.into_iter().collect(),
        labels: options.labels.clone().into_iter().collect(),
        uid_mappings: options.uid_mappings.iter().map(mapping_message).collect(),
        gid_mappings: options.gid_mappings.iter().map(mapping_message).collect(),
    });
    message
}

fn network_status(core: &Core, lease: &Lease) -> v1::NetworkStatus {
    let bridge = &core.network.bridge;
    v1::NetworkStatus {
        address: lease.address.to_string(),
        prefix_len: bridge.subnet().prefix().into(),
        gateway: bridge.subnet().gateway().to_string(),
        mac_address: network::mac_of(lease.address),
        bridge: bridge.name().to_owned(),
        ports: lease.ports.iter().map(published_message).collect(),
    }
}

fn state(phase: &Phase, record: Option<&Record>) -> v1::State {
    use v1::state::Status as Is;
    let mut message = v1::State {
        attempt: record.map_or(0, |record| record.run.attempts()),
        started_at: record.and_then(|record| record.started_at).map(time),
        error: match record.map(|record| &record.run) {
            Some(Run::Created { error: Some(error), .. }) => error.clone(),
            Some(Run::Created { .. } | Run::Intent { .. } | Run::Ended { .. }) | None => {
                String::new()
            }
        },
        ..v1::State::default()
    };
    let status = match phase {
        Phase::Created => Is::Created,
        Phase::Starting => Is::Starting,
        Phase::Running(running) => {
            set_processes(&mut message, running);
            Is::Running
        }
        Phase::Paused(running) => {
            set_processes(&mut message, running);
            Is::Paused
        }
        Phase::Exited(ended) => {
            message.exit = Some(exit(ended));
            Is::Exited
        }
        Phase::Removed(ended) => {
            message.exit = ended.as_ref().map(exit);
            Is::Removing
        }
        Phase::Quarantined(problem) => {
            message.error.clone_from(problem);
            Is::Quarantined
        }
    };
    message.set_status(status);
    message
}

fn set_processes(message: &mut v1::State, running: &Running) {
    message.pid = running.pid;
    message.shim_pid = running.shim.process.pid();
    message.running_for = since_boot().saturating_sub(running.up_since).try_into().ok();
}

/// A signal's name or number; empty is `default`.
///
/// # Errors
/// There is no such signal.
pub(super) fn signal(text: &str, default: spec::Signal) -> Result<u32> {
    let signal = if text.is_empty() { default } else { text.parse()? };
    Ok(signal.number())
}
