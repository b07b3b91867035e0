//! The CRI, as a kubelet uses it: at least one test for each call that works.

mod bad_input;
mod containers;
mod events;
mod exec;
mod handlers;
mod images;
mod mounts;
mod networks;
mod nri;
mod pods;
mod security;
mod stats;
mod stop;
mod streams;
mod survival;
mod volumes;

use bosun_proto::cri;
use integration::daemon::Daemon;
use integration::kubelet::Kubelet;

/// A kubelet of this daemon, with a pod.
fn prepared(daemon: &Daemon) -> (Kubelet, cri::PodSandboxConfig, String) {
    let kubelet = Kubelet::of(daemon);
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    (kubelet, config, pod)
}
