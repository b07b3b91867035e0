//! What can go wrong in the core, in the user's terms.
//!
//! One enum for all of it, because a face must be able to tell every case apart and map it once
//! (`api::convert`). Each message names the thing and the way out; sources are kept.

use std::path::PathBuf;
use std::sync::Arc;

use crate::store::ResourceKind;
use crate::{apparmor, network, runtimes, shim, spec, store};

/// An error of the core.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("no such container: {reference}: `ctl ps -a` lists those that exist")]
    NoSuchContainer { reference: String },
    #[error("no such pod: {reference}: `ctl pod ls` lists those that exist")]
    NoSuchSandbox { reference: String },
    #[error("pod {id} has containers: {}: remove them first, or it with force (-f)", members.join(", "))]
    SandboxInUse { id: String, members: Vec<String> },
    #[error("the container whose namespaces are joined has ended: start it first")]
    PeerEnded,
    #[error("container prefix {prefix:?} is ambiguous: it begins {}: give more characters", matches.join(", "))]
    AmbiguousPrefix { prefix: String, matches: Vec<String> },
    #[error("name {name:?} is in use by {holder}: remove that one, or choose another name")]
    NameInUse { name: String, holder: String },
    #[error(
        "invalid container name {name:?}: letters and digits, then also '_', '.' and '-', at least two characters, at most 76"
    )]
    InvalidName { name: String },
    #[error("invalid namespace {namespace:?}: {source}")]
    InvalidNamespace { namespace: String, source: shim_wire::id::InvalidId },
    #[error("{what}: {problem}")]
    InvalidArgument { what: &'static str, problem: String },
    #[error("request id {request_id:?} was used for another request: make a new one")]
    RequestIdReused { request_id: String },
    #[error(transparent)]
    Spec(Arc<spec::Error>),
    #[error(transparent)]
    Plan(Arc<shim_plan::Error>),
    #[error(transparent)]
    AppArmor(Arc<apparmor::Error>),
    #[error(transparent)]
    Runtime(Arc<runtimes::Error>),
    #[error(transparent)]
    Devices(Arc<bosun_cdi::Error>),
    #[error(transparent)]
    Network(Arc<network::Error>),
    #[error("image {image}: {path:?}: {source}: name a path that is in the image")]
    ImagePart { image: String, path: String, source: Arc<std::io::Error> },
    #[error(transparent)]
    StreamServer(Arc<bosun_streaming::StartError>),
    #[error(transparent)]
    StreamRefused(bosun_streaming::Refusal),
    #[error("pod {pod}: port {port}: {source}")]
    PodPort { pod: String, port: u16, source: Arc<std::io::Error> },
    #[error("network of the pod: {}", .0.chain())]
    Plugins(Arc<bosun_cni::Error>),
    #[error(transparent)]
    Nri(Arc<bosun_nri::Error>),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("container {id}: {source}")]
    Shim { id: String, source: Arc<shim::Error> },
    #[error("container {id} is not running")]
    NotRunning { id: String },
    #[error("container {id} is running: stop it first, or remove it with force (-f)")]
    StillRunning { id: String },
    #[error("container {id} is running already")]
    AlreadyRunning { id: String },
    #[error("container {id}: {problem}")]
    Started { id: String, problem: String },
    #[error("container {id}: the command did not end within {seconds} s and was killed")]
    ExecTimedOut { id: String, seconds: u64 },
    #[error(
        "container {id}: the checkpoint took longer than {seconds} s: nothing is written, and it goes on once criu has let go of it: give it more time"
    )]
    CheckpointTimedOut { id: String, seconds: u64 },
    #[error("container {id} is paused: let it go on first (`ctl unpause`)")]
    Paused { id: String },
    #[error("container {id} is not paused")]
    NotPaused { id: String },
    #[error("container {id} is being removed")]
    Removing { id: String },
    #[error("container {id}: {problem}")]
    Quarantined { id: String, problem: String },
    #[error(
        "container {id}: its last run has not let go of its files after {seconds} s: the disk may hang; try again"
    )]
    StillHeld { id: String, seconds: u64 },
    #[error(
        "container {id}: it was killed, but its exit could not be stored, so it is not removed: it is tried again; see the log of bosund for the cause"
    )]
    EndNotRecorded { id: String },
    #[error("no such snapshot: {key}: `ctl snapshot ls` lists those that exist")]
    NoSuchSnapshot { key: String },
    #[error("snapshot {key} exists already: choose another key")]
    SnapshotExists { key: String },
    #[error("snapshot {key} is held by container {holder}: remove that container first")]
    SnapshotHeld { key: String, holder: String },
    #[error("snapshot {key} is the parent of snapshot {child}: remove that one first")]
    SnapshotHasChild { key: String, child: String },
    #[error("snapshot {key} is {kind}, not {wanted}")]
    SnapshotKind { key: String, kind: &'static str, wanted: &'static str },
    #[error("{kind} {resource} is held by lease {lease}: delete that lease first")]
    Leased { kind: ResourceKind, resource: String, lease: String },
    #[error("no such lease: {id}: `ctl lease ls` lists those that exist")]
    NoSuchLease { id: String },
    #[error("lease {id} exists already: choose another id")]
    LeaseExists { id: String },
    #[error("lease {lease} does not hold {kind} {resource}")]
    NotLeased { lease: String, kind: ResourceKind, resource: String },
    #[error("no such blob: {digest}: `ctl content ls` lists those that exist")]
    NoSuchBlob { digest: String },
    #[error("no such ingest: {reference}: it was never begun, or is committed already")]
    NoSuchIngest { reference: String },
    #[error("ingest {reference} has a writer already: wait for its end, or use another reference")]
    IngestBusy { reference: String },
    #[error("ingest {reference}: its stream broke off: ask for its status, and go on from there")]
    IngestTorn { reference: String },
    #[error("ingest {reference} has {received} bytes, so it can't go on at {offset}")]
    IngestOffset { reference: String, received: u64, offset: u64 },
    #[error(
        "ingest {reference}: {what} {got} came, {wanted} was expected: nothing is kept of it, send it again"
    )]
    IngestMismatch { reference: String, what: &'static str, wanted: String, got: String },
    #[error("blob {digest} has {size} bytes: there is nothing at {offset}")]
    BeyondBlob { digest: String, size: u64, offset: u64 },
    #[error("{step} {}: {source}", path.display())]
    File { step: &'static str, path: PathBuf, source: Arc<std::io::Error> },
    #[error("{blob}: the registry sent another {what}: {got}, not {wanted}: nothing is kept of it")]
    WrongContent { blob: String, what: &'static str, wanted: String, got: String },
    #[error("blob {digest} has {size} bytes, at most {most} are read of such a one")]
    BlobTooLarge { digest: String, size: u64, most: u64 },
    #[error(
        "blob {digest}: its bytes are damaged: remove it (`ctl content rm`) and pull the image again"
    )]
    BlobDamaged { digest: String },
    #[error(
        "snapshot {key} was not on the disk when the machine went down, and can't be unpacked again: remove what stands on it, and pull the image again"
    )]
    SnapshotTorn { key: String },
    #[error(
        "no such image: {reference}{}: `ctl images` lists those that are here, `ctl pull` brings one",
        similar.as_ref().map(|name| format!(" (but {name} is here)")).unwrap_or_default()
    )]
    NoSuchImage { reference: String, similar: Option<String> },
    #[error("image id {prefix:?} is ambiguous: it begins {}: give more characters", matches.join(", "))]
    AmbiguousImage { prefix: String, matches: Vec<String> },
    #[error("image {id} has several names ({}): name one of them, or remove all with force (-f)", names.join(", "))]
    SeveralNames { id: String, names: Vec<String> },
    #[error(
        "image {name} is in use by container {container:?}: remove that one first, or only the name with force (-f)"
    )]
    ImageInUse { name: String, container: String },
    #[error("image {name} is not there for platform {platform}, only for {}", if there.is_empty() { "none".to_owned() } else { there.join(", ") })]
    NoPlatform { name: String, platform: String, there: Vec<String> },
    #[error("image {name}: its indexes lie in each other deeper than {}", bosun_image::MAX_DEPTH)]
    NestedTooDeep { name: String },
    #[error("image {name}: its indexes lead to more than {limit} manifests")]
    TooManyDocuments { name: String, limit: usize },
    #[error("{digest}: {source}")]
    BadImage { digest: String, source: Arc<bosun_image::Error> },
    #[error("layer {digest}: layers of type {media_type:?} can't be unpacked")]
    LayerType { digest: String, media_type: String },
    #[error(
        "layer {digest}: it unpacks to {got}, the image's configuration says {wanted}: the image is broken"
    )]
    DiffId { digest: String, wanted: String, got: String },
    #[error("layer {digest}: {source}")]
    Layer { digest: String, source: Arc<bosun_layer::Error> },
    #[error("archive: {source}")]
    Archive { source: Arc<bosun_layer::Error> },
    #[error("archive: {problem}")]
    BadArchive { problem: String },
    #[error("checkpoint {archive}: {problem}")]
    BadCheckpoint { archive: String, problem: String },
    #[error(transparent)]
    ImageName(Arc<bosun_image::Error>),
    #[error(transparent)]
    Registry(Arc<bosun_registry::Error>),
    #[error(
        "container {id}: its processes can't be held still: {source}: commit without a pause (--pause=false)"
    )]
    Freeze { id: String, source: Arc<shim_cgroup::Error> },
    #[error("container {id}: its limits of before can't be put back: {source}")]
    Limits { id: String, source: Arc<shim_cgroup::Error> },
    #[error("{unit}: {source}")]
    Systemd { unit: String, source: Arc<shim_systemd::Error> },
    #[error("container {id}: its processes can't be given the OOM score {score}: {source}")]
    OomScore { id: String, score: i32, source: Arc<std::io::Error> },
    #[error(
        "container {id} stands on a directory, not on an image, so nothing can be committed on top: use `ctl export` and `ctl import`"
    )]
    NoImageBelow { id: String },
    #[error("container {container}: {path}: {source}")]
    ContainerPath { container: String, path: String, source: Arc<std::io::Error> },
    #[error("bosund is stopping: try again when it has been started")]
    Stopping,
}

/// The core's results.
pub type Result<T> = std::result::Result<T, Error>;

impl From<spec::Error> for Error {
    fn from(source: spec::Error) -> Self {
        Self::Spec(Arc::new(source))
    }
}

impl From<shim_plan::Error> for Error {
    fn from(source: shim_plan::Error) -> Self {
        Self::Plan(Arc::new(source))
    }
}

impl From<apparmor::Error> for Error {
    fn from(source: apparmor::Error) -> Self {
        Self::AppArmor(Arc::new(source))
    }
}

impl From<bosun_nri::Error> for Error {
    fn from(source: bosun_nri::Error) -> Self {
        Self::Nri(Arc::new(source))
    }
}

impl From<runtimes::Error> for Error {
    fn from(source: runtimes::Error) -> Self {
        Self::Runtime(Arc::new(source))
    }
}

impl From<bosun_cdi::Error> for Error {
    fn from(source: bosun_cdi::Error) -> Self {
        Self::Devices(Arc::new(source))
    }
}

impl From<network::Error> for Error {
    fn from(source: network::Error) -> Self {
        Self::Network(Arc::new(source))
    }
}

impl From<bosun_image::Error> for Error {
    fn from(source: bosun_image::Error) -> Self {
        Self::ImageName(Arc::new(source))
    }
}

impl From<bosun_image::InvalidDigest> for Error {
    fn from(source: bosun_image::InvalidDigest) -> Self {
        Self::ImageName(Arc::new(source.into()))
    }
}

impl From<shim_failpoints::Stumble> for Error {
    fn from(stumble: shim_failpoints::Stumble) -> Self {
        Self::file("pass", std::path::Path::new("failpoint"))(stumble.into())
    }
}

impl From<bosun_registry::Error> for Error {
    fn from(source: bosun_registry::Error) -> Self {
        Self::Registry(Arc::new(source))
    }
}

impl Error {
    /// Whether another try may succeed with what came until now.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        if let Self::Registry(source) = self {
            return source.is_passing();
        }
        matches!(self, Self::Stopping)
    }

    /// A closure for `map_err` over file operations.
    pub fn file(step: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { step, path, source: Arc::new(source) }
    }
}
