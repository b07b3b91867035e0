//! What plugins are asked, and what becomes of their answers.

use std::sync::Arc;
use std::time::Duration;

use bosun_nri::wire::{
    Container, ContainerAdjustment, ContainerEviction, ContainerState, ContainerUpdate,
    CreateContainerRequest, CreateContainerResponse, KeyValue, RemoveContainerRequest,
    RunPodSandboxRequest, RunPodSandboxResponse, StateChangeEvent, StopContainerRequest,
    StopContainerResponse, UpdateContainersRequest, ValidateContainerAdjustmentRequest,
    ValidateContainerAdjustmentResponse,
};
use bosun_nri::{Inventory, Settings};
use shim_wire::ttrpc::Code;

use crate::plugin::{Plugin, Reply, Script};
use crate::world::{World, container, eventually, pod};

fn made() -> Container {
    container("c", ContainerState::ContainerCreated)
}

fn env(name: &str, value: &str) -> CreateContainerResponse {
    let variable = KeyValue { key: name.to_owned(), value: value.to_owned() };
    CreateContainerResponse {
        adjust: Some(ContainerAdjustment { env: vec![variable], ..ContainerAdjustment::default() }),
        ..CreateContainerResponse::default()
    }
}

fn sets(name: &'static str, value: &'static str) -> Script {
    Script::new().on("CreateContainer", move |_: CreateContainerRequest| Ok(env(name, value)))
}

fn quick(settings: &mut Settings) {
    settings.request_timeout = Duration::from_millis(500);
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_asked_in_the_order_of_their_indexes_and_for_what_they_want() {
    let world = World::new().await;
    let last = world.join("20-b", sets("B", "2")).await;
    let first = world.join("10-a", sets("A", "1")).await;
    let other = world.join("15-c", Script::new().events(&[2])).await;
    let creation = world.nri.create_container(pod("p"), made()).await.unwrap();
    let names: Vec<&str> = creation.adjust.env.iter().map(|one| one.key.as_str()).collect();
    assert_eq!(names, ["A", "B"]);
    let seen: CreateContainerRequest = last.of("CreateContainer").remove(0);
    assert_eq!(seen.container.unwrap().env, ["A=1"]);
    assert_eq!(seen.pod, Some(pod("p")));
    let seen: CreateContainerRequest = first.of("CreateContainer").remove(0);
    assert!(seen.container.unwrap().env.is_empty());
    assert!(other.methods().is_empty(), "it wants to hear of pods that stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_plugin_refuses_is_not_done_and_it_is_named() {
    let world = World::new().await;
    let no = Script::new().on("RunPodSandbox", |_: RunPodSandboxRequest| {
        Err::<RunPodSandboxResponse, _>("not here".to_owned())
    });
    let plugin = world.join("10-a", no).await;
    let said = world.nri.run_pod_sandbox(pod("p")).await.unwrap_err().to_string();
    assert_eq!(said, "NRI plugin 10-a: RunPodSandbox: not here");
    let undone = ["RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"];
    assert_eq!(plugin.methods(), undone, "it is told of the end");
    assert!(!world.nri.is_idle(), "to say no is no fault");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_plugins_in_conflict_are_both_named() {
    let world = World::new().await;
    let _plugins =
        (world.join("10-a", sets("A", "1")).await, world.join("20-b", sets("A", "2")).await);
    let said = world.nri.create_container(pod("p"), made()).await.unwrap_err().to_string();
    assert!(
        said.starts_with("NRI plugins 10-a and 20-b both set variable A of container c"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_hangs_or_dies_is_closed_and_things_go_on() {
    for reply in [Reply::Silence, Reply::HangUp, Reply::Answer(vec![0xff; 3])] {
        let world = World::with(quick, Inventory::default()).await;
        let bad = reply.clone();
        let bad = Script::new().reply("CreateContainer", move |_| bad.clone());
        let bad = world.join("10-a", bad).await;
        let good = world.join("20-b", sets("B", "2")).await;
        let creation = world.nri.create_container(pod("p"), made()).await.unwrap();
        assert_eq!(creation.adjust.env.len(), 1, "{reply:?}");
        bad.wait_closed();
        world.nri.post_create_container(pod("p"), made()).await;
        assert_eq!(good.methods(), ["CreateContainer", "PostCreateContainer"]);
        assert_eq!(bad.methods(), ["CreateContainer"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn older_plugins_hear_of_everything_by_one_call() {
    let world = World::new().await;
    let mut script = Script::new();
    for method in ["RunPodSandbox", "StartContainer", "CreateContainer", "UpdatePodSandbox"] {
        script =
            script.reply(method, |_| Reply::Refuse(Code::Unimplemented, "what is that".to_owned()));
    }
    let plugin = world.join("10-a", script).await;
    for _ in 0..2 {
        world.nri.run_pod_sandbox(pod("p")).await.unwrap();
    }
    world.nri.start_container(pod("p"), made()).await.unwrap();
    // What there never was an event for is passed over.
    world.nri.create_container(pod("p"), made()).await.unwrap();
    world.nri.update_pod_sandbox(pod("p"), None, None).await.unwrap();
    let expected = [
        "RunPodSandbox",
        "StateChange",
        "StateChange",
        "StartContainer",
        "StateChange",
        "CreateContainer",
        "UpdatePodSandbox",
    ];
    assert_eq!(plugin.methods(), expected, "it is not asked twice");
    let events: Vec<StateChangeEvent> = plugin.of("StateChange");
    let numbers: Vec<i32> = events.iter().map(|event| event.event).collect();
    assert_eq!(numbers, [1, 1, 6]);
    assert_eq!((&events[2].pod, &events[2].container), (&Some(pod("p")), &Some(made())));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_told_once_and_before_the_removal() {
    let world = World::new().await;
    let update = ContainerUpdate { container_id: "x".to_owned(), ..ContainerUpdate::default() };
    let answer = StopContainerResponse { update: vec![update] };
    let script =
        Script::new().on("StopContainer", move |_: StopContainerRequest| Ok(answer.clone()));
    let plugin = world.join("10-a", script).await;
    let told = || std::future::ready((pod("p"), made()));
    assert!(world.nri.stop_container("c", told()).await.is_empty(), "it was never made");
    world.nri.create_container(pod("p"), made()).await.unwrap();
    assert_eq!(world.nri.stop_container("c", told()).await[0].container_id, "x");
    assert!(world.nri.stop_container("c", told()).await.is_empty());
    world.nri.remove_container(pod("p"), made()).await;
    world.nri.remove_container(pod("p"), made()).await;
    assert_eq!(plugin.methods(), ["CreateContainer", "StopContainer", "RemoveContainer"]);
    world.nri.create_container(pod("p"), made()).await.unwrap();
    world.nri.remove_container(pod("p"), made()).await;
    let of_second = &plugin.methods()[3..];
    assert_eq!(of_second, ["CreateContainer", "StopContainer", "RemoveContainer"]);
    let removed: Vec<RemoveContainerRequest> = plugin.of("RemoveContainer");
    assert_eq!(removed.len(), 2);
    world.nri.run_pod_sandbox(pod("p")).await.unwrap();
    for _ in 0..2 {
        world.nri.stop_pod_sandbox("p", std::future::ready(pod("p"))).await;
    }
    world.nri.remove_pod_sandbox(pod("p")).await;
    assert_eq!(plugin.methods()[6..], ["RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_a_plugin_has_its_end_told() {
    let inventory = Inventory {
        pods: vec![pod("p")],
        containers: vec![
            container("runs", ContainerState::ContainerRunning),
            container("ended", ContainerState::ContainerStopped),
        ],
    };
    let world = World::with(|_| {}, inventory).await;
    let plugin = world.join("10-a", Script::new()).await;
    eventually("it is there", || !world.nri.is_idle()).await;
    for id in ["runs", "ended"] {
        let told = (pod("p"), container(id, ContainerState::ContainerStopped));
        world.nri.stop_container(id, std::future::ready(told.clone())).await;
        world.nri.remove_container(told.0, told.1).await;
    }
    world.nri.stop_pod_sandbox("p", std::future::ready(pod("p"))).await;
    let expected = ["StopContainer", "RemoveContainer", "RemoveContainer", "StopPodSandbox"];
    assert_eq!(plugin.methods(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_updates_and_evicts_by_itself_even_while_it_is_asked() {
    let world = World::new().await;
    let (ready, set) = (Arc::new(std::sync::OnceLock::<Arc<Plugin>>::new()), ());
    let own = Arc::clone(&ready);
    let update = |id: &str| ContainerUpdate { container_id: id.to_owned(), ..Default::default() };
    let request = UpdateContainersRequest {
        update: vec![update("yes"), update("no")],
        evict: vec![ContainerEviction { container_id: "e".to_owned(), reason: "r".to_owned() }],
    };
    let asked = request.clone();
    let script = Script::new().on("RunPodSandbox", move |_: RunPodSandboxRequest| {
        let answer = own.get().unwrap().update(&asked)?;
        assert_eq!(answer.failed, [update("no")]);
        Ok(RunPodSandboxResponse {})
    });
    let plugin = world.join("10-a", script).await;
    assert!(ready.set(Arc::clone(&plugin)).is_ok(), "{set:?}");
    world.nri.run_pod_sandbox(pod("p")).await.unwrap();
    let alone = Arc::clone(&plugin);
    let answer = tokio::task::spawn_blocking(move || alone.update(&request)).await.unwrap();
    assert_eq!(answer.unwrap().failed, [update("no")]);
    assert_eq!(world.node.updates.lock().unwrap().len(), 4);
    assert_eq!(world.node.evictions.lock().unwrap()[0].container_id, "e");
    let unknown: Result<bosun_nri::wire::Empty, String> = {
        let plugin = Arc::clone(&plugin);
        let call = move || plugin.call("Nothing", &bosun_nri::wire::Empty {});
        tokio::task::spawn_blocking(call).await.unwrap()
    };
    assert!(unknown.unwrap_err().contains("there is no such call"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_synchronized_between_an_event_and_what_comes_of_it() {
    let world = World::new().await;
    let settling = world.nri.settle().await;
    let socket = world.socket();
    let joining =
        tokio::task::spawn_blocking(move || Plugin::join(&socket, "10", "a", Script::new()));
    // The container becomes one that there is, by the time that the plugin could have been told.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!joining.is_finished());
    world.node.inventory.lock().unwrap().containers.push(made());
    drop(settling);
    let plugin = joining.await.unwrap();
    let told: bosun_nri::wire::SynchronizeRequest = plugin.of("Synchronize").remove(0);
    assert_eq!(told.containers, [made()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_sees_all_and_has_the_last_word() {
    let world = World::new().await;
    let validator = Script::new().events(&[14]).on(
        "ValidateContainerAdjustment",
        |request: ValidateContainerAdjustmentRequest| {
            let owners = request.owners.unwrap().owners.remove("c").unwrap_or_default();
            let of_env = owners.compound.get(&6).cloned().unwrap_or_default();
            let asked: Vec<String> =
                request.plugins.iter().map(|one| format!("{}-{}", one.index, one.name)).collect();
            assert_eq!(asked, ["10-a", "90-v"]);
            assert!(request.container.unwrap().env.is_empty(), "as it was asked for");
            let owner = of_env.owners.get("BAD").cloned();
            Ok(ValidateContainerAdjustmentResponse {
                reject: owner.is_some(),
                reason: owner.map(|owner| format!("BAD is of {owner}")).unwrap_or_default(),
            })
        },
    );
    let _validator = world.join("90-v", validator).await;
    let good = world.join("10-a", sets("GOOD", "1")).await;
    world.nri.create_container(pod("p"), made()).await.unwrap();
    drop(good);
    let socket = world.socket();
    eventually("it is gone", || std::fs::metadata(&socket).is_ok()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let _bad = world.join("10-a", sets("BAD", "1")).await;
    let said = world.nri.create_container(pod("p"), made()).await.unwrap_err().to_string();
    assert!(
        said.ends_with("does not allow what plugins change of the container: BAD is of 10-a"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_validator_did_not_look_at_is_not_allowed() {
    let world = World::with(quick, Inventory::default()).await;
    let silent =
        Script::new().events(&[14]).reply("ValidateContainerAdjustment", |_| Reply::Silence);
    let _silent = world.join("90-v", silent).await;
    let said = world.nri.create_container(pod("p"), made()).await.unwrap_err().to_string();
    assert!(said.starts_with("NRI plugin 90-v could not look at"), "{said}");
    // It is gone; whether it has to be there is somebody else's rule.
    world.nri.create_container(pod("p"), made()).await.unwrap();
}
