//! The life of a pod as a kubelet has it, on a network of CNI's plugins: made, with a container, stopped,
//! removed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bosun_proto::cri;

use super::life::{Answer, Life, Patience, SETTLED, State, Told, learn};
use crate::archive;
use crate::ctl::Ctl;
use crate::daemon::{Daemon, Settings};
use crate::image::Recipe;
use crate::kubelet::{self, IMAGE, Kubelet, NAMESPACE};
use crate::wait;

/// Debian's plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// A call of this life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Load,
    RunPod,
    Create,
    Start,
    StopPod,
    RemovePod,
}

const CALLS: [Call; 6] =
    [Call::Load, Call::RunPod, Call::Create, Call::Start, Call::StopPod, Call::RemovePod];

/// Where a pod may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pod {
    Absent,
    NotReady,
    Ready,
}

/// What is known of such a pod and its container.
#[derive(Debug)]
pub struct KubeletLife {
    socket: PathBuf,
    logs: PathBuf,
    image: PathBuf,
    config: Option<cri::PodSandboxConfig>,
    pod: BTreeSet<Pod>,
    container: BTreeSet<State>,
    shim_killed: bool,
}

impl KubeletLife {
    /// # Panics
    /// When there is no room for it.
    #[must_use]
    pub fn new(daemon: &Daemon) -> Self {
        let image = daemon.scratch().join("image.tar");
        let busybox = Recipe::busybox().image();
        std::fs::write(&image, archive::oci(&[(IMAGE, &busybox)])).expect("a file");
        let networks = daemon.scratch().join("net.d");
        std::fs::create_dir(&networks).expect("a directory");
        let leases = leases(daemon);
        let text = format!(
            r#"{{"cniVersion":"1.0.0","name":"pods","plugins":[{{"type":"bridge","bridge":"pods0",
            "isGateway":true,"ipam":{{"type":"host-local","dataDir":{:?},
            "ranges":[[{{"subnet":"10.77.0.0/16"}}]]}}}}]}}"#,
            leases.display().to_string()
        );
        std::fs::write(networks.join("10-pods.conflist"), text).expect("a file");
        Self {
            socket: daemon.socket(),
            logs: daemon.scratch().join("logs"),
            image,
            config: None,
            pod: [Pod::Absent].into(),
            container: [State::Absent].into(),
            shim_killed: false,
        }
    }

    fn call(&mut self, kubelet: &Kubelet, call: Call) -> Result<(), tonic::Status> {
        let config = self.config.get_or_insert_with(|| kubelet.pod_config("web")).clone();
        let pod = || {
            let pods = kubelet.try_pods(cri::PodSandboxFilter::default())?;
            let pod = pods.into_iter().next().map(|pod| pod.id);
            pod.ok_or_else(|| tonic::Status::not_found("no pod"))
        };
        match call {
            Call::Load => Ok(()),
            Call::RunPod => kubelet.try_run_pod(&config).map(drop),
            Call::Create => {
                let wanted = kubelet.container_config("one", "exec sleep 1000");
                kubelet.try_create(&pod()?, &wanted, &config).map(drop)
            }
            Call::Start => {
                let all = kubelet.try_containers(cri::ContainerFilter::default())?;
                let one = all.first().ok_or_else(|| tonic::Status::not_found("no container"))?;
                kubelet.start(&one.id)
            }
            Call::StopPod => kubelet.stop_pod(&pod()?),
            Call::RemovePod => kubelet.remove_pod(&pod()?),
        }
    }

    /// A pod that is there is as its calls allow: one that is ready has its address, and its container runs.
    #[track_caller]
    fn expect_pod(&self, kubelet: &Kubelet, case: &str) {
        let (mut pods, mut containers) = (self.pod.clone(), self.container.clone());
        if self.shim_killed {
            if pods.contains(&Pod::Ready) {
                pods.insert(Pod::NotReady);
            }
            if containers.contains(&State::Running) || containers.contains(&State::Created) {
                containers.insert(State::Exited);
            }
        }
        let mut seen = (Pod::Absent, State::Absent);
        let settled = wait::within(SETTLED, || {
            seen = (pod(kubelet, case), container(kubelet, case));
            (pods.contains(&seen.0) && containers.contains(&seen.1)).then_some(())
        });
        assert!(settled.is_some(), "{case}: {seen:?}, and may be {pods:?}, {containers:?}");
        if seen.0 == Pod::Ready {
            let id = &kubelet.pods(cri::PodSandboxFilter::default())[0].id;
            let network = kubelet.pod_status(id).network.unwrap_or_default();
            assert!(network.ip.starts_with("10.77."), "{case}: ready with {network:?}");
        }
        if seen.1 == State::Running {
            let id = &kubelet.containers(cri::ContainerFilter::default())[0].id;
            assert_eq!(kubelet.exec_text(id, "echo yes"), "yes", "{case}");
        }
    }
}

impl Life for KubeletLife {
    fn settings() -> Settings {
        Settings::new().configured(&format!(
            "[cri]\ncni-conf-dir = \"{{scratch}}/net.d\"\ncni-bin-dirs = [{PLUGINS:?}]\n"
        ))
    }

    fn calls(&self) -> usize {
        CALLS.len()
    }

    fn ask(&mut self, ctl: &Ctl, call: usize, patience: &Patience) -> Answer {
        if CALLS[call] == Call::Load {
            let words = format!("--namespace {NAMESPACE} load -i {}", self.image.display());
            return Answer::of_ctl(ctl, &words, "", patience);
        }
        let patience = match patience {
            Patience::Of(time) => Some(*time),
            // It does not try again by itself.
            Patience::Endless | Patience::WithDaemon(_) => None,
        };
        let kubelet = match Kubelet::connect(&self.socket, &self.logs) {
            Ok(kubelet) => kubelet.left_alone().with_patience(patience),
            Err(error) => return Answer::Failed(error.to_string()),
        };
        match self.call(&kubelet, CALLS[call]) {
            Ok(()) => Answer::Done,
            Err(status) if kubelet::is_late(&status) => Answer::Late,
            Err(status) => Answer::Failed(status.to_string()),
        }
    }

    fn note(&mut self, call: usize, told: Told) {
        match CALLS[call] {
            Call::Load => {}
            Call::RunPod => {
                learn(&mut self.pod, told, Pod::Ready);
                if told == Told::Nothing {
                    self.pod.insert(Pod::NotReady);
                }
            }
            Call::Create => learn(&mut self.container, told, State::Created),
            Call::Start => {
                learn(&mut self.container, told, State::Running);
                // It may have had its process for a moment.
                if told != Told::Done && self.container.contains(&State::Created) {
                    self.container.insert(State::Exited);
                }
            }
            Call::StopPod | Call::RemovePod => {
                let is_removed = CALLS[call] == Call::RemovePod;
                // What comes before its last step is done, also when that fails.
                if self.pod.contains(&Pod::Ready) {
                    self.pod.insert(Pod::NotReady);
                }
                if self.container.contains(&State::Running) {
                    self.container.insert(State::Exited);
                }
                if is_removed {
                    self.pod.insert(Pod::Absent);
                    self.container.insert(State::Absent);
                }
                if told == Told::Done {
                    self.pod.remove(&Pod::Ready);
                    self.container.remove(&State::Running);
                    if is_removed {
                        (self.pod, self.container) = ([Pod::Absent].into(), [State::Absent].into());
                    }
                }
            }
        }
    }

    fn without_shim(&mut self, _logged: [u64; 2]) {
        self.shim_killed = true;
    }

    /// After what a kubelet does about it nothing is left, of addresses and results neither; and another one
    /// works.
    #[track_caller]
    fn expect_sound(&self, daemon: &Daemon, case: &str) {
        let kubelet = Kubelet::of(daemon);
        // Nobody sees one that is on its way.
        let arrived = wait::within(SETTLED, || {
            let made = daemon.ctl(&format!("--namespace {NAMESPACE} pod ls -q")).text();
            let seen = kubelet.pods(cri::PodSandboxFilter::default());
            (made.lines().count() == seen.len()).then_some(())
        });
        assert!(arrived.is_some(), "{case}: a pod is on its way for ever");
        self.expect_pod(&kubelet, case);
        for pod in kubelet.pods(cri::PodSandboxFilter::default()) {
            kubelet.stop_pod(&pod.id).unwrap_or_else(|status| panic!("{case}: {status}"));
            kubelet.remove_pod(&pod.id).unwrap_or_else(|status| panic!("{case}: {status}"));
        }
        drop(kubelet);
        expect_no_network(daemon, case);
        daemon.expect_nothing_left();
        let kubelet = Kubelet::of(daemon);
        kubelet::load(daemon, &[(IMAGE, &Recipe::busybox().image())]);
        let config = kubelet.pod_config("next");
        let pod = kubelet.run_pod(&config);
        let one = kubelet.container_config("one", "exec sleep 1000");
        let one = kubelet.run(&pod, &one, &config);
        let address = kubelet.pod_status(&pod).network.unwrap_or_default().ip;
        assert!(kubelet.exec_text(&one, "ip -o addr show eth0").contains(&address), "{case}");
        assert_eq!(given_out(daemon).len(), 1, "{case}");
        drop(kubelet);
        expect_no_network(daemon, case);
        daemon.expect_nothing_left();
    }
}

fn pod(kubelet: &Kubelet, case: &str) -> Pod {
    let pods = kubelet.pods(cri::PodSandboxFilter::default());
    assert!(pods.len() < 2, "{case}: {pods:?}");
    match pods.first().map(cri::PodSandbox::state) {
        None => Pod::Absent,
        Some(cri::PodSandboxState::SandboxReady) => Pod::Ready,
        Some(cri::PodSandboxState::SandboxNotready) => Pod::NotReady,
    }
}

fn container(kubelet: &Kubelet, case: &str) -> State {
    let containers = kubelet.containers(cri::ContainerFilter::default());
    assert!(containers.len() < 2, "{case}: {containers:?}");
    match containers.first().map(cri::Container::state) {
        None => State::Absent,
        Some(cri::ContainerState::ContainerCreated) => State::Created,
        Some(cri::ContainerState::ContainerRunning) => State::Running,
        Some(cri::ContainerState::ContainerExited) => State::Exited,
        Some(other) => panic!("{case}: a container is {other:?}"),
    }
}

/// Where the plugin notes the addresses that it gives out.
fn leases(daemon: &Daemon) -> PathBuf {
    daemon.scratch().join("ipam")
}

fn given_out(daemon: &Daemon) -> Vec<String> {
    let mut names = names(&leases(daemon).join("pods"));
    names.retain(|name| name.starts_with("10."));
    names
}

/// Every address is given back, and no result is kept.
#[track_caller]
fn expect_no_network(daemon: &Daemon, case: &str) {
    let left = || (given_out(daemon), names(&daemon.place().root.join("cni/results")));
    // What a killed daemon left of pods that nobody ever saw is collected beside other work.
    let gone = wait::within(SETTLED, || {
        let (addresses, results) = left();
        (addresses.is_empty() && results.is_empty()).then_some(())
    });
    assert!(gone.is_some(), "{case}: addresses and results are left: {:?}", left());
}

fn names(directory: &Path) -> Vec<String> {
    let entries = directory.read_dir().into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
