//! The face of kubelets: `runtime.v1`, the Container Runtime Interface. A view of the same core as
//! `bosun.v1`: pods are its sandboxes, containers its containers, all in the namespace [`NAMESPACE`].
//!
//! ```text
//!   kubelet ──▶ runtime, image ──▶ pods, containers, … ──▶ Supervisor, Images
//!                                        │
//!                                   convert: messages stop here
//! ```
//!
//! | module | |
//! |---|---|
//! | `runtime`, `image` | the two services: each call decoded, made, answered |
//! | `pods`, `containers` | what calls about them mean |
//! | `checkpoint` | pods that are written down, and made again |
//! | `events` | what happens, for kubelets that listen |
//! | `exec` | a command whose output is waited for |
//! | `handlers` | who runs containers, and what each can do |
//! | `network` | networks of pods, by CNI's plugins |
//! | `nri` | plugins of the node: what they are told, and what they want |
//! | `pod_cidr` | the range of addresses for pods, into a network's configuration |
//! | `propagation` | mounts that can't travel as they are asked to |
//! | `streams` | what is behind the URLs of exec, attach and port-forward |
//! | `stats` | what containers and pods use |
//! | `users` | who containers run as |
//! | `metrics` | the same under cAdvisor's names |
//! | `status` | version, conditions, features |
//! | `convert` | between messages and the core's types |
//! | `kept` | what was asked for, kept with the record |
//! | `config` | `[cri]` of the configuration |
//!
//! What a kubelet asked for is kept word for word with the record ([`kept`]), and answered from there:
//! the core does not know of attempts, annotations and uids of pods.

mod checkpoint;
mod config;
mod containers;
mod convert;
mod events;
mod exec;
mod handlers;
mod image;
mod kept;
mod metrics;
mod network;
mod nri;
mod pod_cidr;
mod pods;
mod propagation;
mod runtime;
mod stats;
mod status;
mod streams;
mod users;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bosun_proto::cri as wire;
use shim_wire::id::Id;
use tokio::sync::watch;

pub use config::{CgroupDriver, Configured, Network, NriConfigured};

use crate::container::{Key, Supervisor};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::turns::Turns;

/// Where everything of kubelets lies, as with every other runtime.
pub const NAMESPACE: &str = "k8s.io";

/// What both services stand on.
#[derive(Debug)]
struct Cri {
    supervisor: Arc<Supervisor>,
    namespace: Id,
    samples: stats::Samples,
    measured: stats::Measured,
    users: users::Users,
    handlers: handlers::Handlers,
    plugins: network::Plugins,
    streams: tokio::sync::OnceCell<bosun_streaming::Server>,
    /// Once it is started, if it is at all.
    nri: OnceLock<bosun_nri::Nri>,
    /// Pods that are on their way, by their names.
    on_their_way: watch::Sender<HashSet<String>>,
    /// Who makes a pod or a container of a name is alone with it.
    makings: Turns<String>,
    /// Who stops or removes a pod is alone with it.
    endings: Turns<Key>,
}

impl Cri {
    fn core(&self) -> &Arc<Core> {
        self.supervisor.core()
    }

    fn settings(&self) -> &Configured {
        &self.core().config.cri
    }
}

/// What is not a client of the face, and has to be let go.
#[derive(Debug)]
pub(crate) struct Guests(Arc<Cri>);

impl Guests {
    pub(crate) async fn leave(&self) {
        self.0.stop_plugins().await;
    }
}

/// The services, for the server that has all faces. The plugins of the node are there when this answers.
pub(crate) async fn services(
    supervisor: &Arc<Supervisor>,
) -> (runtime::Service, image::Service, Guests) {
    let cri = Arc::new(Cri {
        supervisor: Arc::clone(supervisor),
        // A constant that is an id.
        namespace: NAMESPACE.parse().unwrap_or_else(|_| unreachable!("{NAMESPACE} is an id")),
        samples: stats::Samples::default(),
        measured: stats::Measured::default(),
        users: users::Users::default(),
        handlers: handlers::Handlers::default(),
        plugins: network::Plugins::new(&supervisor.core().config),
        streams: tokio::sync::OnceCell::new(),
        nri: OnceLock::new(),
        on_their_way: watch::Sender::default(),
        makings: Turns::default(),
        endings: Turns::default(),
    });
    if cri.settings().network == Network::Cni {
        tokio::spawn(Arc::clone(&cri).collect_networks());
        tokio::spawn(Arc::clone(&cri).check_networks());
    }
    // The kubelet may write these files later, before it asks for the first stream.
    if let Some(Err(error)) = cri.settings().streams().tls.map(|tls| tls.check()) {
        tracing::warn!(%error, "there can be no exec, attach or port-forward yet");
    }
    cri.start_plugins().await;
    let runtime = runtime::Service::new(Arc::clone(&cri));
    (runtime, image::Service::new(Arc::clone(&cri)), Guests(cri))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A message that lacks something, or has what can't be.
fn invalid(what: &'static str, problem: impl Into<String>) -> Error {
    Error::InvalidArgument { what, problem: problem.into() }
}

/// A part that every message of its kind has.
fn required<T>(part: Option<T>, what: &'static str) -> Result<T> {
    part.ok_or_else(|| invalid(what, "it is missing"))
}
