//! Why a request can't become a container: each message names the thing and the way out.

use std::path::PathBuf;

/// A request that is refused; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no command: a directory (--rootfs) brings none along, and not every image does: name a program, such as `ctl run --rootfs / /bin/sh`"
    )]
    NoCommand,
    #[error("image {image}: its {what} {value:?} can't be used: say otherwise in the request")]
    InImage { image: String, what: &'static str, value: String },
    #[error("no command: name what shall run in the container, such as `ctl exec web ls`")]
    NoExecCommand,
    #[error("{what} {value:?} is not {expected}")]
    Malformed { what: &'static str, value: String, expected: &'static str },
    #[error("{what} {value:?} is not supported: {way_out}")]
    NotSupported { what: &'static str, value: String, way_out: &'static str },
    #[error("{what}: {why}")]
    Contradiction { what: &'static str, why: &'static str },
    /// Of `--uidmap` and `--gidmap`.
    #[error(
        "user namespace: {0}: name ranges CONTAINER:HOST:SIZE with each id once, 0 and the container's user among them"
    )]
    Users(#[source] shim_plan::Error),
    #[error("{what} needs bosun's own runtime: leave it away, or --runtime {runtime:?}")]
    OnlyOwn { what: &'static str, runtime: String },
    #[error("rootfs {}: {source}: name a directory that exists", path.display())]
    Rootfs { path: PathBuf, source: std::io::Error },
    #[error("rootfs {}: is bosun's own directory: name another", path.display())]
    OwnRootfs { path: PathBuf },
    #[error("mount source {}: {source}: create it first, or name another path", path.display())]
    MountSource { path: PathBuf, source: std::io::Error },
    #[error("mount destination {path:?}: {why}")]
    MountDestination { path: String, why: &'static str },
    #[error(
        "volume name {name:?}: named volumes are not supported: name a path of the host, such as /srv/{name}"
    )]
    NamedVolume { name: String },
    #[error("capability {name:?} does not exist: capabilities(7) lists them, with or without CAP_")]
    UnknownCapability { name: String },
    #[error(
        "capability {name} can't be given: bosund does not have it, or the kernel is too old for it"
    )]
    CapabilityNotHeld { name: String },
    #[error("signal {text:?} does not exist: name one, such as TERM, or a number between 1 and 64")]
    UnknownSignal { text: String },
    #[error("log driver {driver:?} is not supported: use json-file or none")]
    LogDriver { driver: String },
    #[error(
        "log option {name:?} is not supported by the {driver} driver: use max-size or max-file"
    )]
    LogOption { driver: &'static str, name: String },
    #[error("restart policy {policy:?} is not supported: only \"no\" is")]
    RestartPolicy { policy: String },
    #[error(
        "memory limit of {asked} bytes is below the minimum of 6 MiB ({minimum} bytes): raise it"
    )]
    MemoryTooSmall { asked: i64, minimum: i64 },
    #[error("memory and swap together ({swap} bytes) are less than memory alone ({memory} bytes)")]
    SwapBelowMemory { memory: i64, swap: i64 },
    #[error("a swap limit was asked for, and this kernel counts no swap: leave --memory-swap away")]
    NoSwapLimit,
    #[error("{asked} CPUs were asked for, this machine has {online}: ask for 0.01 to {online}")]
    TooManyCpus { asked: String, online: usize },
    #[error("CPUs {asked:?}: this machine has no CPU {missing}, only {online}")]
    NoSuchCpu { asked: String, missing: u32, online: String },
    #[error(
        "an OOM score of {asked} was asked for, and bosund runs with {own}: without CAP_SYS_RESOURCE it can't be lowered"
    )]
    OomScore { asked: i32, own: i32 },
    #[error("seccomp profile {}: {source}: it is the linux.seccomp of an OCI spec", path.display())]
    SeccompProfile { path: PathBuf, source: serde_json::Error },
    #[error(
        "AppArmor profile {name:?}: {problem}: load it (apparmor_parser), or name another, or unconfined"
    )]
    AppArmor { name: String, problem: String },
    #[error("read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The builders fail on fields that are missing; here none is.
    #[error("build the spec: {0}")]
    Build(#[from] oci_spec::OciSpecError),
    #[error(transparent)]
    Plan(#[from] shim_plan::Error),
    #[error("the spec as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    pub(super) fn malformed(
        what: &'static str,
        value: impl Into<String>,
        expected: &'static str,
    ) -> Self {
        Self::Malformed { what, value: value.into(), expected }
    }
}
