//! The flags of `run` and `create`: what a container is to be.

use std::path::PathBuf;

use bosun_proto::v1::{IdMapping, Network};
use clap::{ArgAction, Args, ValueEnum};

use super::limits::{BirthLimitArgs, LimitArgs};
use crate::flags::{
    AnyDevice, DetachKeys, id_mapping, key_value, label, parse_device, parse_network,
    security_option,
};

/// Make a container and run it
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:\n  \
        ctl run --rm -it debian:12 bash\n  \
        ctl run -d --name web -p 8000:8000 python:3 python3 -m http.server\n  \
        ctl run --rm -m 64m --cpus 0.5 -v ./data:/data:ro --rootfs / ls /data"
)]
pub(crate) struct RunArgs {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Remove the container when it has ended
    #[arg(long)]
    pub(crate) rm: bool,
    #[command(flatten)]
    pub(crate) keys: SessionKeys,
    #[command(flatten)]
    pub(crate) container: ContainerArgs,
}

/// Make a container and don't start it
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    after_help = "Example:\n  ctl create --name web -p 8000:8000 python:3 python3 -m http.server"
)]
pub(crate) struct CreateArgs {
    /// Remove the container when it has ended
    #[arg(long)]
    pub(crate) rm: bool,
    #[command(flatten)]
    pub(crate) container: ContainerArgs,
}

/// How a session with a container behaves.
#[derive(Args, Clone, Debug)]
pub(crate) struct SessionKeys {
    /// The keys that leave the container running and end the session
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: DetachKeys,
    /// Hand the signals that ctl gets to the container
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        action = ArgAction::Set
    )]
    pub(crate) sig_proxy: bool,
}

/// When `run` and `create` pull the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullWhen {
    Missing,
    Always,
    Never,
}

/// What a container is.
#[derive(Args, Debug)]
pub(crate) struct ContainerArgs {
    /// Keep its standard input open; without, nothing comes in
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal; without -i nobody types at it: a shell of -dt waits until it is stopped
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Its name; one is made up otherwise
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Stand on this directory of the host, copy on write, in place of an image
    #[arg(long, value_name = "DIR")]
    pub(crate) rootfs: Option<String>,
    /// When to download the image
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = PullWhen::Missing)]
    pub(crate) pull: PullWhen,
    /// Say nothing while it is downloaded
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Which part of the image: OS/ARCHITECTURE[/VARIANT] [default: this machine's]
    #[arg(long, value_name = "PLATFORM", default_value = "", hide_default_value = true)]
    pub(crate) platform: String,
    /// Publish ports: [[HOST_IP:]HOST_PORT:]CONTAINER_PORT[/tcp|/udp]
    #[arg(short, long, value_name = "PORTS")]
    pub(crate) publish: Vec<String>,
    /// Publish every port that the image exposes, on free ports
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// bridge, host, none or container:NAME
    #[arg(long, visible_alias = "net", value_name = "NETWORK", value_parser = parse_network)]
    pub(crate) network: Option<Network>,
    /// Share the namespaces of a pod: see `ctl pod create`
    #[arg(long, value_name = "POD")]
    pub(crate) pod: Option<String>,
    /// Set a variable: NAME=VALUE, or NAME to take the value it has here
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Set the variables of a file
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// USER[:GROUP], names or numbers
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Host name inside
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Mount a host path: HOST:CONTAINER[:ro|rw|rprivate|rslave|rshared]
    #[arg(short, long, value_name = "VOLUME")]
    pub(crate) volume: Vec<String>,
    /// Replace the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Let nobody inside write to its root file system
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Run a small init as process 1, which forwards signals and reaps
    #[arg(long)]
    pub(crate) init: bool,
    /// What runs it: bosun, runc, crun, or another that bosund knows [default: bosun]
    #[arg(long, value_name = "NAME")]
    pub(crate) runtime: Option<String>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) birth_limits: BirthLimitArgs,
    /// Add a capability
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "CAP")]
    pub(crate) cap_drop: Vec<String>,
    /// Run in a user namespace with this range of users: CONTAINER:HOST[:SIZE]
    #[arg(long, value_name = "CONTAINER:HOST:SIZE", value_parser = id_mapping)]
    pub(crate) uidmap: Vec<IdMapping>,
    /// Its groups; without any, as its users
    #[arg(long, value_name = "CONTAINER:HOST:SIZE", value_parser = id_mapping)]
    pub(crate) gidmap: Vec<IdMapping>,
    /// A device: HOST[:CONTAINER][:ACCESS] of a node, or VENDOR/CLASS=NAME of a CDI specification
    #[arg(long, value_name = "DEVICE", value_parser = parse_device)]
    pub(crate) device: Vec<AnyDevice>,
    /// Every capability and device, nothing masked
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Confine it by a profile: apparmor=NAME, or apparmor=unconfined
    #[arg(long, value_name = "OPTION", value_parser = security_option)]
    pub(crate) security_opt: Vec<String>,
    /// The signal that stops it [default: SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<String>,
    /// Seconds to wait for it to stop before KILL [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) stop_timeout: Option<u32>,
    /// Restart policy; only "no" exists
    #[arg(long, value_name = "POLICY")]
    pub(crate) restart: Option<String>,
    /// Label it: KEY=VALUE or KEY
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// json-file or none
    #[arg(long, value_name = "DRIVER")]
    pub(crate) log_driver: Option<String>,
    /// Log option: max-size=SIZE, max-file=NUMBER
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) log_opt: Vec<(String, String)>,
    /// Write the container's id to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// The image, unless --rootfs is given, then the command and its words
    #[arg(value_name = "IMAGE | COMMAND", trailing_var_arg = true)]
    pub(crate) words: Vec<String>,
}
