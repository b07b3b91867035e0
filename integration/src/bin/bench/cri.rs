//! What a kubelet asks for, of bosun and of Debian's containerd with its CRI plugin: the same calls by the
//! same client, in turn. Pods are on the host's network, for CNI's plugins take the same time under both.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bosun_proto::cri;
use integration::archive;
use integration::daemon::Daemon;
use integration::image::{Image, Recipe};
use integration::kubelet::{self, Kubelet};
use integration::process::Process;
use integration::wait;
use tempfile::TempDir;

use crate::Bench;
use crate::measure::Sample;
use crate::table::{Goal, Row};

/// What containerd runs for each pod; bosun has nothing there.
const PAUSE: &str = "registry.example.org/test/pause:1";

const PEER: &str = "containerd+runc";

/// How many images there are beside those that are used: about what a node has.
const IMAGES: usize = 40;

fn image_name(number: usize) -> String {
    format!("registry.example.org/test/other-{number}:1")
}

/// Images of the same layer, each of which has a configuration of its own.
fn images() -> Vec<(String, Image)> {
    let image = |number: usize| {
        let config = serde_json::json!({"Cmd": ["/bin/sleep", number.to_string()]});
        (image_name(number), Recipe::busybox().config(config).image())
    };
    (0..IMAGES).map(image).collect()
}

/// A containerd that serves kubelets, with directories and a socket of its own.
struct Containerd {
    directory: TempDir,
    child: Option<Child>,
    kubelet: Option<Kubelet>,
    /// Did the machine have these before?
    had_run_directory: bool,
}

impl Containerd {
    fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("bosun-bench-cri-")
            .tempdir_in("/tmp")
            .expect("a directory in /tmp");
        let had_run_directory = Path::new("/run/containerd").exists();
        let mut this = Self { directory, child: None, kubelet: None, had_run_directory };
        let root = this.directory.path().display().to_string();
        let config = format!(
            r#"version = 2
root = "{root}/root"
state = "{root}/state"
[grpc]
  address = "{root}/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "{root}/net.d"
"#
        );
        std::fs::write(this.at("config.toml"), config).expect("a file");
        this.launch();
        let pause = Recipe::busybox()
            .config(serde_json::json!({"Entrypoint": ["/bin/sleep"], "Cmd": ["1000000000"]}));
        let busybox = Recipe::busybox().image();
        let (pause, others) = (pause.image(), images());
        let mut all = vec![(kubelet::IMAGE, &busybox), (PAUSE, &pause)];
        all.extend(others.iter().map(|(name, image)| (name.as_str(), image)));
        let images = archive::oci(&all);
        std::fs::write(this.at("images.tar"), images).expect("a file");
        let imported = Command::new("ctr")
            .arg("--address")
            .arg(this.at("c.sock"))
            .args(["--namespace", kubelet::NAMESPACE, "images", "import"])
            .arg(this.at("images.tar"))
            .output()
            .expect("ctr is installed");
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        let kubelet = Kubelet::at(&this.at("c.sock"), &this.at("logs"));
        wait::until_true("the images", || kubelet.image_list().len() == all.len());
        this.kubelet = Some(kubelet);
        this
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn launch(&mut self) {
        let log = std::fs::File::create(self.at("log")).expect("a file");
        let child = Command::new("containerd")
            .arg("--config")
            .arg(self.at("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("containerd is installed"));
        wait::until_true("containerd to serve", || {
            let socket = self.at("c.sock");
            integration::api::Api::connect(&socket).is_ok()
                && Kubelet::at(&socket, &self.at("logs")).left_alone().try_version().is_ok()
        });
    }

    fn kubelet(&self) -> &Kubelet {
        self.kubelet.as_ref().expect("it is there until the end")
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The daemon, its shims, and what holds its pods.
    fn processes(&self) -> Vec<Process> {
        let socket = self.at("c.sock").display().to_string();
        let shims: Vec<Process> =
            Process::all().into_iter().filter(|one| one.arguments().contains(&socket)).collect();
        let pauses = Process::all().into_iter().filter(|one| {
            one.arguments().last().is_some_and(|word| word == "1000000000")
                && one.parent().is_some_and(|parent| shims.contains(&parent))
        });
        let daemon = Process(self.child.as_ref().expect("it runs").id());
        pauses.chain(shims.iter().copied()).chain([daemon]).collect()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Removes all pods.
        drop(self.kubelet.take());
        self.end();
        for top in integration::leak::hierarchies() {
            let _ = std::fs::remove_dir(top.join(kubelet::NAMESPACE));
        }
        if !self.had_run_directory {
            let _ = std::fs::remove_dir_all("/run/containerd");
        }
    }
}

/// Both, ready.
struct Sides {
    ours: Daemon,
    kubelet: Option<Kubelet>,
    peer: Containerd,
}

impl Sides {
    fn start() -> Self {
        let settings = integration::daemon::Settings::new().log_level("info");
        let ours = kubelet::node_with(settings);
        let images = images();
        let images: Vec<(&str, &Image)> =
            images.iter().map(|(name, image)| (name.as_str(), image)).collect();
        kubelet::load(&ours, &images);
        let kubelet = Some(Kubelet::of(&ours));
        Self { ours, kubelet, peer: Containerd::start() }
    }

    fn kubelet(&self) -> &Kubelet {
        self.kubelet.as_ref().expect("it is there until the end")
    }

    /// The daemon and all its shims.
    fn processes(&self) -> Vec<Process> {
        let daemon = Process(self.ours.pid().expect("the daemon runs"));
        let state = self.ours.place().state.display().to_string();
        let is_shim = |one: &Process| {
            let words = one.arguments();
            words.first().is_some_and(|word| word.ends_with("bosun-shim"))
                && words.iter().any(|word| word.starts_with(&state))
        };
        Process::all().into_iter().filter(is_shim).chain([daemon]).collect()
    }
}

impl Drop for Sides {
    fn drop(&mut self) {
        // Before the daemon: it removes what is left.
        drop(self.kubelet.take());
    }
}

fn pod_config(kubelet: &Kubelet, name: &str) -> cri::PodSandboxConfig {
    let mut config = kubelet.pod_config(name);
    std::fs::create_dir_all(&config.log_directory).expect("a directory");
    let context = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
    if let Some(options) = context.and_then(|context| context.namespace_options.as_mut()) {
        options.set_network(cri::NamespaceMode::Node);
    }
    config
}

fn container_config(kubelet: &Kubelet) -> cri::ContainerConfig {
    let mut config = kubelet.container_config("one", "exec sleep 1000000");
    config.log_path = "one.log".to_owned();
    config
}

/// The calls of a pod's life, each with its goal in milliseconds.
const CALLS: [(&str, f64); 6] = [
    ("RunPodSandbox", 8.0),
    ("CreateContainer", 2.0),
    ("StartContainer", 5.0),
    ("StopContainer", 5.0),
    ("RemoveContainer", 2.0),
    ("StopPodSandbox", 8.0),
];

fn life(kubelet: &Kubelet) -> [Duration; 6] {
    let config = pod_config(kubelet, "bench");
    let container = container_config(kubelet);
    let mut times = [Duration::ZERO; 6];
    let mut at = 0;
    let mut timed = |begin: Instant| {
        times[at] = begin.elapsed();
        at += 1;
    };
    let begin = Instant::now();
    let pod = kubelet.run_pod(&config);
    timed(begin);
    let begin = Instant::now();
    let id = kubelet.try_create(&pod, &container, &config).expect("CreateContainer");
    timed(begin);
    let begin = Instant::now();
    kubelet.start(&id).expect("StartContainer");
    timed(begin);
    let begin = Instant::now();
    kubelet.stop(&id, 0).expect("StopContainer");
    timed(begin);
    let begin = Instant::now();
    kubelet.remove(&id).expect("RemoveContainer");
    timed(begin);
    let begin = Instant::now();
    kubelet.stop_pod(&pod).expect("StopPodSandbox");
    timed(begin);
    kubelet.remove_pod(&pod).expect("RemovePodSandbox");
    times
}

fn fill(kubelet: &Kubelet, count: usize) {
    for _ in 0..count {
        let config = pod_config(kubelet, "full");
        let pod = kubelet.run_pod(&config);
        let _ = kubelet.run(&pod, &container_config(kubelet), &config);
    }
}

fn running(kubelet: &Kubelet) -> usize {
    let state = cri::ContainerState::ContainerRunning.into();
    let state = Some(cri::ContainerStateValue { state });
    kubelet.containers(cri::ContainerFilter { state, ..Default::default() }).len()
}

fn list(kubelet: &Kubelet, count: usize) -> Duration {
    let begin = Instant::now();
    let listed = kubelet.containers(cri::ContainerFilter::default()).len();
    let elapsed = begin.elapsed();
    assert_eq!(listed, count, "containers");
    elapsed
}

fn list_pods(kubelet: &Kubelet, count: usize) -> Duration {
    let begin = Instant::now();
    let listed = kubelet.pods(cri::PodSandboxFilter::default()).len();
    let elapsed = begin.elapsed();
    assert_eq!(listed, count, "pods");
    elapsed
}

/// The state of one image, another one in each round.
fn image(kubelet: &Kubelet, round: usize) -> Duration {
    let name = image_name(round % IMAGES);
    let begin = Instant::now();
    let image = kubelet.image(&name);
    let elapsed = begin.elapsed();
    assert_eq!(image.map(|image| image.repo_tags), Some(vec![name]));
    elapsed
}

fn list_images(kubelet: &Kubelet) -> Duration {
    let begin = Instant::now();
    let listed = kubelet.image_list().len();
    let elapsed = begin.elapsed();
    assert!(listed > IMAGES, "{listed} images");
    elapsed
}

fn file_systems(kubelet: &Kubelet) -> Duration {
    let begin = Instant::now();
    let request = cri::ImageFsInfoRequest {};
    let answer =
        kubelet.image_call(|mut client| async move { client.image_fs_info(request).await });
    answer.expect("ImageFsInfo");
    begin.elapsed()
}

/// What a kubelet asks of images: at each start of a container, and once a minute of all.
pub(crate) fn state_of_images(bench: &mut Bench) {
    let sides = Sides::start();
    let (own, peer) = (sides.kubelet(), sides.peer.kubelet());
    let mut row = |what: &str, [ours, theirs]: [Sample; 2], goal| {
        let what = format!("CRI {what}, {IMAGES} images");
        let (ours, theirs) = (ours.median(), theirs.median());
        bench.table.push(Row::against(&what, "ms", PEER, theirs, ours, Goal::AtMost(goal)));
    };
    let rounds = bench.options.rounds(1000);
    let times = crate::measure::in_turn(rounds, [&|n| image(own, n), &|n| image(peer, n)]);
    row("ImageStatus", times, 0.5);
    let rounds = bench.options.rounds(200);
    let times = crate::measure::in_turn(rounds, [&|_| list_images(own), &|_| list_images(peer)]);
    row("ListImages", times, 1.5);
}

pub(crate) fn pods(bench: &mut Bench) {
    let mut sides = Sides::start();
    let rounds = bench.options.rounds(20);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..=rounds {
        ours.push(life(sides.kubelet()));
        theirs.push(life(sides.peer.kubelet()));
    }
    for (at, (name, goal)) in CALLS.iter().enumerate() {
        // The first ones warm up.
        let sample =
            |all: &[[Duration; 6]]| Sample::new(all.iter().skip(1).map(|times| times[at])).median();
        let what = format!("CRI {name}, the host's network");
        bench.table.push(Row::against(
            &what,
            "ms",
            PEER,
            sample(&theirs),
            sample(&ours),
            Goal::AtMost(*goal),
        ));
    }
    let count = bench.options.rounds(100);
    fill(sides.kubelet(), count);
    fill(sides.peer.kubelet(), count);
    let mut row = |what: &str, unit, theirs, ours, goal| {
        bench.table.push(Row::against(what, unit, PEER, theirs, ours, Goal::AtMost(goal)));
    };
    let [ours, theirs] = crate::measure::in_turn(
        30,
        [&|_| list(sides.kubelet(), count), &|_| list(sides.peer.kubelet(), count)],
    );
    let what = format!("CRI ListContainers, {count} pods");
    row(&what, "ms", theirs.median(), ours.median(), 3.0);
    let [ours, theirs] = crate::measure::in_turn(
        30,
        [&|_| list_pods(sides.kubelet(), count), &|_| list_pods(sides.peer.kubelet(), count)],
    );
    let what = format!("CRI ListPodSandbox, {count} pods");
    row(&what, "ms", theirs.median(), ours.median(), 3.0);
    let [ours, theirs] = crate::measure::in_turn(
        10,
        [&|_| file_systems(sides.kubelet()), &|_| file_systems(sides.peer.kubelet())],
    );
    let what = format!("CRI ImageFsInfo, {count} pods");
    row(&what, "ms", theirs.median(), ours.median(), 10.0);
    let total = |processes: Vec<Process>| {
        let all: u64 = processes.iter().filter_map(|process| process.memory("Pss")).sum();
        u32::try_from(all).map_or(f64::MAX, f64::from) / 1000.0
    };
    let (peer, own) = (total(sides.peer.processes()), total(sides.processes()));
    row(&format!("CRI, all of it with {count} pods, Pss"), "MB", peer, own, 70.0);
    let peer = {
        sides.peer.end();
        let begin = Instant::now();
        sides.peer.launch();
        let kubelet = Kubelet::at(&sides.peer.at("c.sock"), &sides.peer.at("logs")).left_alone();
        wait::until_true("all to be listed", || running(&kubelet) == count);
        begin.elapsed().as_secs_f64()
    };
    let own = {
        sides.ours.kill();
        let begin = Instant::now();
        sides.ours.launch();
        wait::until_true("all to be listed", || {
            integration::api::Api::connect(&sides.ours.socket()).is_ok()
                && running(&Kubelet::of(&sides.ours).left_alone()) == count
        });
        begin.elapsed().as_secs_f64()
    };
    row(&format!("CRI kill -9, start, {count} pods listed"), "s", peer, own, 0.15);
}
