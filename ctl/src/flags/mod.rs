//! What flags hold, parsed: one pure parser per file, each tested as a table.
//!
//! Only form is judged here. Whether a path, a user or a limit exists is the daemon's to say.

use std::path::PathBuf;

mod detach;
mod device;
mod env;
mod idmap;
mod moment;
mod mount;
mod network;
mod port;
mod security;
mod size;

pub(crate) use detach::DetachKeys;
pub(crate) use device::{
    AnyDevice, parse_device, parse_device_iops, parse_device_rate, parse_device_weight,
};
pub(crate) use env::{environment, key_value, label};
pub(crate) use idmap::id_mapping;
pub(crate) use moment::{Moment, parse_moment, parse_span, timestamp};
pub(crate) use mount::{absolute, parse_mount};
pub(crate) use network::parse_network;
pub(crate) use port::publish;
pub(crate) use security::security_option;
pub(crate) use size::{parse_cpus, parse_size, parse_swap};

/// A flag's value that can't be used: what it was, and what is wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FlagError {
    #[error("address \"{0}\": bosund listens on unix sockets only: give unix:///PATH")]
    AddressScheme(String),
    #[error("address \"{0}\": want unix:///PATH or /PATH, at most 107 bytes long")]
    Address(String),
    #[error("namespace \"{0}\": want letters, digits and dashes")]
    Namespace(String),
    #[error(
        "registry \"{0}\": want a host as an image's name has it, for example registry.example:5000"
    )]
    Registry(String),
    #[error("the password is empty: put it on stdin")]
    NoPassword,
    #[error("lease \"{0}\": want an id that \"ctl lease ls\" shows")]
    Lease(String),
    #[error(
        "port \"{0}\": want [[HOST_IP:]HOST_PORT:]CONTAINER_PORT[/tcp|/udp], for example 8080:80"
    )]
    Port(String),
    #[error("port \"{spec}\": {number} is not a port number, those are 1 to 65535")]
    PortNumber { spec: String, number: String },
    #[error(
        "port \"{spec}\": the ranges differ in length: {host} host and {container} container ports"
    )]
    PortRanges { spec: String, host: usize, container: usize },
    #[error("port \"{spec}\": protocol \"{protocol}\" can't be published: use tcp or udp")]
    PortProtocol { spec: String, protocol: String },
    #[error("port \"{spec}\": \"{address}\" is not an IP address")]
    PortAddress { spec: String, address: String },
    #[error("volume \"{0}\": want HOST_PATH:CONTAINER_PATH[:ro|rw|rprivate|rslave|rshared]")]
    Mount(String),
    #[error(
        "volume \"{spec}\": named volumes do not exist yet: give a host path in place of \"{name}\", for example ./{name}"
    )]
    MountNamed { spec: String, name: String },
    #[error("volume \"{0}\": anonymous volumes do not exist yet: give HOST_PATH:CONTAINER_PATH")]
    MountAnonymous(String),
    #[error("volume \"{spec}\": the path in the container, \"{path}\", is not absolute")]
    MountDestination { spec: String, path: String },
    #[error(
        "volume \"{spec}\": unknown option \"{option}\": use ro, rw, rprivate, private, rslave, slave, rshared or shared"
    )]
    MountOption { spec: String, option: String },
    #[error("size \"{0}\": want a number with b, k, m, g or t, for example 512m")]
    Size(String),
    #[error("range of ids \"{0}\": want CONTAINER:HOST:SIZE, for example 0:100000:65536")]
    IdMapping(String),
    #[error(
        "security option \"{0}\": there is apparmor=PROFILE, where unconfined is none: leave others out"
    )]
    SecurityOption(String),
    #[error("number of CPUs \"{0}\": want a positive number, for example 1.5")]
    Cpus(String),
    #[error("device \"{0}\": want DEVICE:VALUE, for example /dev/sda:1mb or /dev/sda:300")]
    Device(String),
    #[error(
        "device \"{0}\": want HOST[:CONTAINER][:ACCESS], for example /dev/fuse or /dev/sda:/dev/a:r, or a CDI device's name, as vendor.com/gpu=0"
    )]
    DeviceNode(String),
    #[error("nothing to change: name a limit, for example --memory 512m")]
    NothingToUpdate,
    #[error("network \"{0}\": there are bridge, host, none and container:NAME")]
    Network(String),
    #[error("environment variable \"{0}\": want NAME=VALUE, or NAME to take the value it has here")]
    Env(String),
    #[error("environment variable {0}: its value here is not UTF-8, and can't be handed on")]
    EnvNotText(String),
    #[error("path {0:?} is not UTF-8, and can't be handed on: use another one")]
    PathNotText(PathBuf),
    #[error("{path}, line {line}: environment variable \"{text}\": want NAME=VALUE or NAME")]
    EnvLine { path: String, line: usize, text: String },
    #[error("cannot read the environment file {path}: {reason}")]
    EnvFile { path: String, reason: String },
    #[error("\"{0}\": want KEY=VALUE")]
    KeyValue(String),
    #[error("label \"{0}\": want KEY=VALUE or KEY")]
    Label(String),
    #[error(
        "detach keys \"{keys}\": \"{key}\" is not a key: want letters, or ctrl- and one of a-z @ [ \\ ] ^ _, separated by commas, for example ctrl-p,ctrl-q"
    )]
    DetachKey { keys: String, key: String },
    #[error(
        "time \"{0}\": want RFC 3339 (2026-01-02T15:04:05Z), Unix seconds, or how long ago (10m, 1h30m)"
    )]
    Moment(String),
    #[error("duration \"{0}\": want a positive one, for example 90s, 10m or 1h30m")]
    Span(String),
    #[error("restart policy \"{0}\" does not exist yet: leave --restart out, or say --restart no")]
    Restart(String),
    #[error("cannot tell the working directory, which \"{path}\" is relative to: {reason}")]
    WorkingDirectory { path: String, reason: String },
    #[error("{0} works on one container, with --attach or --interactive as well")]
    OneContainer(&'static str),
    #[error("an image is missing: give one, or a directory with --rootfs DIR")]
    NoImage,
    #[error(
        "a command is missing: --rootfs takes a directory, then the command follows, for example --rootfs / sh"
    )]
    NoCommand,
    #[error("number of lines \"{0}\": want a number, or all")]
    Tail(String),
    #[error(
        "the container ID file {0} exists: it may belong to a running container; remove it, or name another one"
    )]
    CidFileExists(String),
}
