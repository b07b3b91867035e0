//! The verbs on pods: containers that share namespaces.

use bosun_proto::v1::{IdMapping, Network};
use clap::{Args, Subcommand};

use crate::flags::{id_mapping, key_value, label, parse_network};

#[derive(Debug, Subcommand)]
pub(crate) enum PodVerb {
    Create(CreateArgs),
    Start(NamesArgs),
    Stop(StopArgs),
    Rm(RmArgs),
    Ls(LsArgs),
    Inspect(InspectArgs),
}

/// Make a pod and start it, and print its id; containers get into it by `ctl run --pod NAME`
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctl pod create -p 8000:8000 web\n  ctl run -d --pod web debian-python:12 python3 -m http.server\n  ctl pod create --share-pid --sysctl net.core.somaxconn=1024 db"
)]
pub(crate) struct CreateArgs {
    /// Publish ports of its containers: [[HOST_IP:]HOST_PORT:]CONTAINER_PORT[/tcp|/udp]
    #[arg(short, long, value_name = "PORTS")]
    pub(crate) publish: Vec<String>,
    /// bridge, host or none
    #[arg(long, visible_alias = "net", value_name = "NETWORK", value_parser = parse_network)]
    pub(crate) network: Option<Network>,
    /// Host name inside
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Let its containers see each other's processes
    #[arg(long)]
    pub(crate) share_pid: bool,
    /// Set a kernel parameter of its namespaces: NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    pub(crate) sysctl: Vec<(String, String)>,
    /// Run its containers in a user namespace with this range of users: CONTAINER:HOST[:SIZE]
    #[arg(long, value_name = "CONTAINER:HOST:SIZE", value_parser = id_mapping)]
    pub(crate) uidmap: Vec<IdMapping>,
    /// Its groups; without any, as its users
    #[arg(long, value_name = "CONTAINER:HOST:SIZE", value_parser = id_mapping)]
    pub(crate) gidmap: Vec<IdMapping>,
    /// Label it: KEY=VALUE or KEY
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// Its name; one is made up otherwise
    #[arg(value_name = "POD", default_value = "", hide_default_value = true)]
    pub(crate) name: String,
}

/// Start pods that were stopped; their containers stay as they are
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ctl pod start web")]
pub(crate) struct NamesArgs {
    #[arg(value_name = "POD", required = true)]
    pub(crate) pods: Vec<String>,
}

/// Stop pods: their containers, all at once, then what they share
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ctl pod stop -t 3 web")]
pub(crate) struct StopArgs {
    /// Seconds until containers are killed [default: each container's own, or 10]
    #[arg(short, long, value_name = "SECONDS")]
    pub(crate) time: Option<u32>,
    #[arg(value_name = "POD", required = true)]
    pub(crate) pods: Vec<String>,
}

/// Remove pods
#[derive(Args, Debug)]
#[command(visible_alias = "remove", after_help = "Example:\n  ctl pod rm -f web")]
pub(crate) struct RmArgs {
    /// Kill and remove their containers first
    #[arg(short, long)]
    pub(crate) force: bool,
    #[arg(value_name = "POD", required = true)]
    pub(crate) pods: Vec<String>,
}

/// List pods
#[derive(Args, Debug)]
#[command(visible_alias = "list", after_help = "Example:\n  ctl pod ls")]
pub(crate) struct LsArgs {
    /// Ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// A Go template, "table TEMPLATE", table or json
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
}

/// Show all that is known of pods
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ctl pod inspect --format '{{.NetworkNamespace}}' web")]
pub(crate) struct InspectArgs {
    /// A Go template, or json
    #[arg(short, long, value_name = "TEMPLATE")]
    pub(crate) format: Option<String>,
    #[arg(value_name = "POD", required = true)]
    pub(crate) pods: Vec<String>,
}
