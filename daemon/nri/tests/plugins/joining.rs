//! How plugins come in and go.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use bosun_nri::wire::{
    ConfigureRequest, ContainerState, ContainerUpdate, SynchronizeRequest, SynchronizeResponse,
};
use bosun_nri::{Error, Inventory, Nri};

use crate::plugin::{Plugin, Reply, Script};
use crate::world::{Node, World, container, eventually, pod, settings};

fn some() -> Inventory {
    Inventory {
        pods: vec![pod("p")],
        containers: vec![
            container("made", ContainerState::ContainerCreated),
            container("runs", ContainerState::ContainerRunning),
            container("ended", ContainerState::ContainerStopped),
        ],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_connects_is_configured_and_told_what_there_is() {
    let world = World::with(|_| {}, some()).await;
    assert!(world.nri.is_idle());
    let mode = std::fs::metadata(world.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let wished = ContainerUpdate { container_id: "runs".to_owned(), ..ContainerUpdate::default() };
    let answer = SynchronizeResponse { update: vec![wished.clone()], more: false };
    let script = Script::new().on("Synchronize", move |_: SynchronizeRequest| Ok(answer.clone()));
    let plugin = world.join("10-a", script).await;
    let configured: ConfigureRequest = plugin.of("Configure").remove(0);
    assert_eq!((configured.runtime_name.as_str(), configured.config.as_str()), ("tested", ""));
    assert_eq!(configured.request_timeout, 60_000);
    let told: SynchronizeRequest = plugin.of("Synchronize").remove(0);
    assert_eq!(told.pods, [pod("p")]);
    let ids: Vec<&str> = told.containers.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["made", "runs"], "those that have ended are no news");
    eventually("its wish", || *world.node.updates.lock().unwrap() == [wished.clone()]).await;
    assert!(!world.nri.is_idle());
    drop(plugin);
    eventually("it is gone", || world.nri.is_idle()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_for_a_message_comes_in_several() {
    let annotations = |n: usize| [(format!("a{n}"), "x".repeat(1 << 20))].into();
    let mut inventory = some();
    inventory.pods = (0..10)
        .map(|n| bosun_nri::wire::PodSandbox { annotations: annotations(n), ..pod(&n.to_string()) })
        .collect();
    let pods = inventory.pods.clone();
    let world = World::with(|_| {}, inventory).await;
    let plugin = world.join("10-a", Script::new()).await;
    plugin.wait_for("Synchronize", 4);
    let told: Vec<SynchronizeRequest> = plugin.of("Synchronize");
    let more: Vec<bool> = told.iter().map(|one| one.more).collect();
    assert_eq!(more, [true, true, true, false]);
    let all: Vec<_> = told.into_iter().flat_map(|one| one.pods).collect();
    assert_eq!(all, pods);
    eventually("it is there", || !world.nri.is_idle()).await;
    // One that takes the first for all is left out.
    let deaf =
        Script::new().on("Synchronize", |_: SynchronizeRequest| Ok(SynchronizeResponse::default()));
    let deaf = world.join("20-b", deaf).await;
    deaf.wait_closed();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_name_or_is_silent_is_not_let_in() {
    let short = |settings: &mut bosun_nri::Settings| {
        settings.registration_timeout = Duration::from_millis(300);
    };
    let world = World::with(short, Inventory::default()).await;
    let connect = || Plugin::over(UnixStream::connect(world.socket()).unwrap(), Script::new());
    let refused = |index: &str, name: &str| {
        let plugin = connect();
        let said = plugin.register(index, name).unwrap_err();
        plugin.wait_closed();
        said
    };
    assert!(refused("1", "a").contains("index \"1\""), "{}", refused("1", "a"));
    assert!(refused("10", "a b").contains("name \"a b\""));
    let first: Result<bosun_nri::wire::Empty, String> =
        connect().call("UpdateContainers", &bosun_nri::wire::Empty {});
    assert!(first.unwrap_err().contains("register first"));
    connect().wait_closed();
    let odd =
        Plugin::over(UnixStream::connect(world.socket()).unwrap(), Script::new().events(&[1, 15]));
    odd.register("10", "a").unwrap();
    odd.wait_closed();
    let babbling = connect();
    babbling.babble(&[0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff]);
    babbling.wait_closed();
    assert!(world.nri.is_idle());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_does_not_answer_its_configuration_does_not_keep_others_out() {
    let short = |settings: &mut bosun_nri::Settings| {
        settings.request_timeout = Duration::from_millis(500);
    };
    let world = World::with(short, Inventory::default()).await;
    let script = Script::new().reply("Configure", |_| Reply::Silence);
    let silent = Plugin::over(UnixStream::connect(world.socket()).unwrap(), script);
    silent.register("10", "a").unwrap();
    let other = world.join("20-b", Script::new()).await;
    silent.wait_closed();
    assert!(!world.nri.is_idle());
    drop(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_runtime_listens_and_what_a_dead_one_left_is_taken() {
    let world = World::new().await;
    let settings = settings(world.directory.path().to_owned());
    let again = Nri::start(settings.clone(), Arc::new(Node::default())).await;
    assert!(matches!(again, Err(Error::SocketInUse { .. })), "{again:?}");
    world.nri.stop().await;
    assert!(!world.socket().exists());
    // Bound, and nobody listens: as a killed daemon leaves it.
    drop(std::os::unix::net::UnixListener::bind(world.socket()).unwrap());
    let next = Nri::start(settings, Arc::new(Node::default())).await.unwrap();
    assert!(UnixStream::connect(world.socket()).is_ok());
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_goes_says_so() {
    let world = World::new().await;
    let plugin = world.join("10-a", Script::new()).await;
    world.nri.stop().await;
    assert_eq!(plugin.methods(), ["Shutdown"]);
    plugin.wait_closed();
    assert!(world.nri.is_idle());
}

/// Not a test: what [`those_that_are_installed_are_started`] installs runs this program with this alone.
#[test]
#[ignore = "a plugin's program"]
fn program() {
    use std::os::fd::AsFd;
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let config = std::env::var_os("NRI_NOTES").unwrap();
    let name = std::env::var("NRI_PLUGIN_NAME").unwrap();
    let index = std::env::var("NRI_PLUGIN_IDX").unwrap();
    assert_eq!(std::env::var("NRI_PLUGIN_SOCKET").unwrap(), "3");
    let notes = std::path::PathBuf::from(config);
    let script = Script::new().on("Configure", move |request: ConfigureRequest| {
        std::fs::write(notes.join(format!("{index}-{name}")), request.config).unwrap();
        Ok(bosun_nri::wire::ConfigureResponse::default())
    });
    let plugin = Plugin::over(socket, script);
    plugin.register("99", "what it calls itself does not count").unwrap();
    plugin.wait_closed();
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_are_installed_are_started() {
    let scratch = tempfile::tempdir().unwrap();
    let settings = settings(scratch.path().to_owned());
    for directory in [&settings.plugin_directory, &settings.config_directory] {
        std::fs::create_dir(directory).unwrap();
    }
    let exe = std::env::current_exe().unwrap();
    let (exe, notes) = (exe.display(), scratch.path().display());
    let program = format!(
        "#!/bin/sh\nexport NRI_NOTES={notes}\nexec {exe} --ignored --exact joining::program <&3 3<&-\n"
    );
    for (name, text) in [("10-a", program.as_str()), ("20-broken", "#!/bin/sh\nexit 1\n")] {
        let path = settings.plugin_directory.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::write(settings.config_directory.join("a.conf"), "its configuration").unwrap();
    let nri = Nri::start(settings, Arc::new(Node::default())).await.unwrap();
    assert!(!nri.is_idle(), "it is there when the runtime is");
    let noted = std::fs::read_to_string(scratch.path().join("10-a")).unwrap();
    assert_eq!(noted, "its configuration");
    nri.run_pod_sandbox(pod("p")).await.unwrap();
    nri.stop().await;
    let is_left = || {
        let table = std::process::Command::new("pgrep").args(["-f", "joining::program"]).output();
        let pids = String::from_utf8(table.unwrap().stdout).unwrap();
        let ours = |pid: &str| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&scratch.path().display().to_string())
        };
        pids.lines().any(ours)
    };
    assert!(!is_left(), "it has ended with the runtime");
}
