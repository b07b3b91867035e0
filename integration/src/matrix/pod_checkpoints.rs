//! The life of a pod of two containers that is written down: into a directory of a file system that has no
//! files without names, so that all of it can be left there.

use std::path::{Path, PathBuf};

use bosun_proto::cri;

use super::life::{Answer, Life, Patience, SETTLED, Told};
use crate::archive;
use crate::criu::{COUNT, with_one_that_waits};
use crate::ctl::Ctl;
use crate::daemon::{Daemon, Settings};
use crate::image::Recipe;
use crate::kubelet::{self, IMAGE, Kubelet, NAMESPACE};
use crate::wait;

/// A call of this life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Load,
    RunPod,
    RunOne,
    RunTwo,
    Checkpoint,
}

const CALLS: [Call; 5] = [Call::Load, Call::RunPod, Call::RunOne, Call::RunTwo, Call::Checkpoint];

const NAMES: [&str; 2] = ["one", "two"];

/// What is known of such a pod and its checkpoint.
#[derive(Debug)]
pub struct PodCheckpointLife {
    socket: PathBuf,
    logs: PathBuf,
    image: PathBuf,
    directory: PathBuf,
    config: Option<cri::PodSandboxConfig>,
    /// What the client was told of each call that it made.
    told: Vec<Told>,
    shim_killed: bool,
}

impl PodCheckpointLife {
    /// # Panics
    /// When there is no room for it.
    #[must_use]
    pub fn new(daemon: &Daemon) -> Self {
        let image = daemon.scratch().join("image.tar");
        let busybox = Recipe::busybox().image();
        std::fs::write(&image, archive::oci(&[(IMAGE, &busybox)])).expect("a file");
        let directory = daemon.scratch().join("pod");
        std::fs::create_dir(&directory).expect("a directory");
        Self {
            socket: daemon.socket(),
            logs: daemon.scratch().join("logs"),
            image,
            directory,
            config: None,
            told: Vec::new(),
            shim_killed: false,
        }
    }

    fn call(&mut self, kubelet: &Kubelet, call: Call) -> Result<(), tonic::Status> {
        let config = self.config.get_or_insert_with(|| kubelet.pod_config("pod")).clone();
        let run = |number: usize| {
            let wanted = kubelet.container_config(NAMES[number], COUNT);
            let id = kubelet.try_create(&only_pod(kubelet)?, &wanted, &config)?;
            kubelet.start(&id)
        };
        match call {
            Call::Load => Ok(()),
            Call::RunPod => kubelet.try_run_pod(&config).map(drop),
            Call::RunOne => run(0),
            Call::RunTwo => run(1),
            Call::Checkpoint => {
                let mut all = kubelet.try_containers(cri::ContainerFilter::default())?;
                all.retain(|one| counted(kubelet, &one.id).is_some());
                write_down(kubelet, &only_pod(kubelet)?, &all, &self.directory)
            }
        }
    }

    /// The checkpoint is whole, or there is nothing of it.
    #[track_caller]
    fn expect_checkpoint(&self, case: &str) -> bool {
        let whole = ["container-0.tar", "container-1.tar", "pod.json"];
        // What nobody waits for any more comes to its end by itself.
        let names = wait::within(SETTLED, || {
            let names = names_in(&self.directory);
            (names.is_empty() || names == whole).then_some(names)
        });
        let names = names.unwrap_or_else(|| {
            panic!("{case}: there are {:?}", names_in(&self.directory));
        });
        let is_there = !names.is_empty();
        match self.told.get(CALLS.len() - 1) {
            Some(Told::Done) => assert!(is_there, "{case}: it was acknowledged"),
            Some(Told::Nothing) => {}
            Some(Told::Failed) | None => assert!(!is_there, "{case}: nobody has it"),
        }
        is_there
    }
}

impl Life for PodCheckpointLife {
    fn settings() -> Settings {
        let settings = with_one_that_waits("time.sleep(0.02)", Settings::new());
        settings
            .configured("[cri]\nnetwork = \"bridge\"\n")
            .variable("FAILPOINTS_NUMBERS", "daemon.checkpoint.nameless=0")
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

    fn note(&mut self, _call: usize, told: Told) {
        self.told.push(told);
    }

    fn wait(&self, call: usize, _ctl: &Ctl) {
        if CALLS[call] == Call::RunTwo {
            let kubelet = Kubelet::at(&self.socket, &self.logs).left_alone();
            let _ = wait::within(SETTLED, || {
                let all = kubelet.try_containers(cri::ContainerFilter::default()).ok()?;
                all.iter().all(|one| counted(&kubelet, &one.id).is_some()).then_some(())
            });
        }
    }

    fn without_shim(&mut self, _logged: [u64; 2]) {
        self.shim_killed = true;
    }

    /// Both containers go on; the next try into the same directory works, and a pod is made of that.
    #[track_caller]
    fn expect_sound(&self, daemon: &Daemon, case: &str) {
        let set_up = &self.told[..self.told.len().min(CALLS.len() - 1)];
        assert!(set_up.iter().all(|told| *told == Told::Done), "{case}: {:?}", self.told);
        let is_there = self.expect_checkpoint(case);
        let kubelet = Kubelet::of(daemon);
        let mut config = self.config.clone().expect("a pod");
        let mut containers = kubelet.containers(cri::ContainerFilter::default());
        if self.shim_killed {
            remove_pods(&kubelet, case);
            config = kubelet.pod_config("again");
            let pod = kubelet.run_pod(&config);
            for name in NAMES {
                let _ = kubelet.run(&pod, &kubelet.container_config(name, COUNT), &config);
            }
            containers = kubelet.containers(cri::ContainerFilter::default());
        }
        assert_eq!(containers.len(), 2, "{case}: {containers:?}");
        for one in &containers {
            goes_on(&kubelet, &one.id, case);
        }
        if !is_there {
            let pod = only_pod(&kubelet).expect("a pod");
            let done = write_down(&kubelet, &pod, &containers, &self.directory);
            done.unwrap_or_else(|status| panic!("{case}: the next try: {status}"));
        }
        remove_pods(&kubelet, case);
        let request = cri::RestorePodRequest {
            checkpoint_path: self.directory.display().to_string(),
            config: Some(config),
            container_configs: NAMES.map(|name| kubelet.container_config(name, COUNT)).to_vec(),
            ..cri::RestorePodRequest::default()
        };
        let made = kubelet.call(|mut client| async move { client.restore_pod(request).await });
        let made = made.unwrap_or_else(|status| panic!("{case}: {status}"));
        for one in &made.restored_containers {
            let started = kubelet.start(&one.container_id);
            started.unwrap_or_else(|status| panic!("{case}: {status}"));
            goes_on(&kubelet, &one.container_id, case);
        }
        remove_pods(&kubelet, case);
        let left = daemon.root().join("checkpoints").read_dir().expect("a directory").count();
        assert_eq!(left, 0, "{case}: notes of checkpoints are left");
        drop(kubelet);
        daemon.expect_nothing_left();
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = directory.read_dir().expect("a directory").flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn only_pod(kubelet: &Kubelet) -> Result<String, tonic::Status> {
    let pods = kubelet.try_pods(cri::PodSandboxFilter::default())?;
    let pod = pods.into_iter().next().map(|pod| pod.id);
    pod.ok_or_else(|| tonic::Status::not_found("no pod"))
}

fn write_down(
    kubelet: &Kubelet,
    pod: &str,
    containers: &[cri::Container],
    directory: &Path,
) -> Result<(), tonic::Status> {
    let request = cri::CheckpointPodRequest {
        pod_sandbox_id: pod.to_owned(),
        output_path: directory.display().to_string(),
        container_ids: containers.iter().map(|one| one.id.clone()).collect(),
        ..cri::CheckpointPodRequest::default()
    };
    kubelet.call(|mut client| async move { client.checkpoint_pod(request).await }).map(drop)
}

#[track_caller]
fn remove_pods(kubelet: &Kubelet, case: &str) {
    for pod in kubelet.pods(cri::PodSandboxFilter::default()) {
        kubelet.stop_pod(&pod.id).unwrap_or_else(|status| panic!("{case}: {status}"));
        kubelet.remove_pod(&pod.id).unwrap_or_else(|status| panic!("{case}: {status}"));
    }
}

fn counted(kubelet: &Kubelet, id: &str) -> Option<u64> {
    let output = kubelet.exec(id, "cat /count", 0).ok()?.stdout;
    String::from_utf8_lossy(&output).trim().parse().ok()
}

#[track_caller]
fn goes_on(kubelet: &Kubelet, id: &str, case: &str) {
    let mut first = None;
    let more = wait::within(wait::LIMIT, || {
        let now = counted(kubelet, id);
        let before = first.get_or_insert(now?);
        (now? > *before).then_some(())
    });
    assert!(more.is_some(), "{case}: {id} stands still, at {first:?}");
}
