//! What a kubelet that listens is told, as it happens and afterwards.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use bosun_proto::cri;
use bosun_proto::cri::runtime_service_client::RuntimeServiceClient;
use cri::ContainerEventResponse as Event;
use cri::ContainerEventType::{
    ContainerCreatedEvent as Created, ContainerDeletedEvent as Deleted,
    ContainerStartedEvent as Started, ContainerStoppedEvent as Stopped,
};
use integration::daemon::Daemon;
use integration::kubelet::Kubelet;
use integration::wait;

use super::networks::{ANSWER, calls, configure, node, script};

/// Listens from now on, until the last of these is told.
fn listen(daemon: &Daemon, last: (String, cri::ContainerEventType)) -> JoinHandle<Vec<Event>> {
    let (api, (listens, listening)) = (daemon.api(), mpsc::channel());
    let told = thread::spawn(move || {
        api.wait(async {
            let mut client = RuntimeServiceClient::new(api.channel());
            let request = cri::GetEventsRequest {};
            let mut stream = client.get_container_events(request).await.unwrap().into_inner();
            listens.send(()).unwrap();
            let mut events = Vec::new();
            loop {
                let event: Event = stream.message().await.unwrap().unwrap();
                let is_last = (event.container_id.clone(), event.container_event_type()) == last;
                events.push(event);
                if is_last {
                    return events;
                }
            }
        })
    });
    listening.recv().unwrap();
    told
}

fn order(events: &[Event]) -> Vec<(&str, cri::ContainerEventType)> {
    events.iter().map(|one| (one.container_id.as_str(), one.container_event_type())).collect()
}

/// The state of the pod, and its address.
fn pod_of(event: &Event) -> Option<(cri::PodSandboxState, &str)> {
    let status = event.pod_sandbox_status.as_ref()?;
    Some((status.state(), status.network.as_ref().map_or("", |network| network.ip.as_str())))
}

fn listed(event: &Event) -> Vec<&str> {
    event.containers_statuses.iter().map(|status| status.id.as_str()).collect()
}

/// The pod as a kubelet knows it by its uid.
fn metadata_of(event: &Event) -> Option<&cri::PodSandboxMetadata> {
    event.pod_sandbox_status.as_ref()?.metadata.as_ref()
}

/// A pod whose events are the last ones of a test.
fn sentinel(kubelet: &Kubelet) -> String {
    kubelet.run_pod(&kubelet.pod_config("last"))
}

#[test]
fn a_pod_is_told_when_it_is_ready_and_what_is_deleted_is_not_listed() {
    let mut daemon = node();
    script(&daemon, "slow", &format!("[ $CNI_COMMAND != ADD ] || sleep 1\n{ANSWER}"));
    configure(&daemon, r#"{"type":"slow"}"#);
    let kubelet = Kubelet::of(&daemon);
    // Whose first event is known before the pod's own are.
    let before = kubelet.run_pod(&kubelet.pod_config("before"));
    let config = kubelet.pod_config("web");
    let live = listen(&daemon, (before.clone(), Deleted));
    let pod = kubelet.run_pod(&config);
    let stays = kubelet.run(&pod, &kubelet.container_config("stays", "sleep 600"), &config);
    let one = |number: usize| kubelet.container_config(&format!("one{number}"), "exit 3");
    let some: Vec<String> =
        (0..10).map(|number| kubelet.run(&pod, &one(number), &config)).collect();
    for id in &some {
        let _ = kubelet.ended(id);
        kubelet.remove(id).unwrap();
    }
    kubelet.stop_pod(&pod).unwrap();
    kubelet.remove_pod(&pod).unwrap();
    kubelet.stop_pod(&before).unwrap();
    kubelet.remove_pod(&before).unwrap();
    let events = live.join().unwrap();

    use cri::PodSandboxState::{SandboxNotready, SandboxReady};
    let ready = Some((SandboxReady, "10.88.0.2"));
    let position = |id: &str, kind| {
        let is_it =
            |event: &Event| event.container_id == id && event.container_event_type() == kind;
        assert_eq!(events.iter().filter(|event| is_it(event)).count(), 1, "{id} {kind:?}");
        events.iter().position(is_it).unwrap()
    };
    let kinds = [Created, Started, Stopped, Deleted];
    let of_pod = kinds.map(|kind| position(&pod, kind));
    assert!(of_pod.is_sorted(), "{:?}", order(&events));
    for at in &of_pod[..2] {
        assert_eq!(pod_of(&events[*at]), ready, "{:?}", events[*at]);
        assert!(listed(&events[*at]).iter().all(|id| *id != pod));
    }
    assert!(matches!(pod_of(&events[of_pod[2]]), Some((SandboxNotready, _))));
    // A kubelet passes over what does not name the pod.
    let gone = Some((SandboxNotready, ""));
    let deleted = &events[of_pod[3]];
    assert_eq!((pod_of(deleted), listed(deleted)), (gone, vec![]));
    let status = deleted.pod_sandbox_status.as_ref().unwrap();
    assert_eq!((&status.id, &status.metadata), (&pod, &config.metadata));
    let created = events[of_pod[0]].pod_sandbox_status.as_ref().unwrap().created_at;
    assert_eq!(status.created_at, created);
    for id in some.iter().chain([&stays]) {
        let at = kinds.map(|kind| position(id, kind));
        assert!(at.is_sorted() && of_pod[1] < at[0] && at[3] < of_pod[3], "{:?}", order(&events));
        for at in &at[..3] {
            assert!(listed(&events[*at]).contains(&id.as_str()), "{:?}", events[*at]);
        }
        let deleted = &events[at[3]];
        assert!(!listed(deleted).contains(&id.as_str()), "{deleted:?}");
        assert!(pod_of(deleted).is_some(), "{deleted:?}");
        if *id != stays {
            assert_eq!(pod_of(deleted), ready, "{deleted:?}");
            let stopped = &events[at[2]];
            let status = stopped.containers_statuses.iter().find(|one| one.id == *id).unwrap();
            assert_eq!(
                (status.state(), status.exit_code),
                (cri::ContainerState::ContainerExited, 3)
            );
        }
    }

    // Who comes late is told the same, of what is gone only what it was.
    let again = listen(&daemon, (before.clone(), Deleted)).join().unwrap();
    assert_eq!(order(&again), order(&events));
    std::mem::forget(kubelet);
    daemon.kill();
    daemon.start_again();
    let again = listen(&daemon, (before, Deleted)).join().unwrap();
    assert_eq!(order(&again), order(&events));
    for event in &again {
        assert_eq!((pod_of(event), listed(event)), (gone, vec![]), "{event:?}");
        let status = event.pod_sandbox_status.as_ref().unwrap();
        if status.id == pod {
            assert_eq!((&status.metadata, status.created_at), (&config.metadata, created));
        }
    }
    assert!(again.iter().any(|one| one.container_id == stays && metadata_of(one).is_some()));
    drop(Kubelet::of(&daemon));
}

#[test]
fn a_sandbox_that_is_deleted_is_told_with_the_one_that_took_its_place() {
    let daemon = node();
    script(&daemon, "plain", ANSWER);
    configure(&daemon, r#"{"type":"plain"}"#);
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let first = kubelet.run_pod(&config);
    kubelet.stop_pod(&first).unwrap();
    let mut again = config.clone();
    again.metadata.as_mut().unwrap().attempt = 1;
    let second = kubelet.run_pod(&again);
    // Another pod is not the same one.
    let last = sentinel(&kubelet);
    kubelet.remove_pod(&first).unwrap();
    kubelet.remove_pod(&last).unwrap();
    let events = listen(&daemon, (last.clone(), Deleted)).join().unwrap();
    let deleted = |id: &str| {
        let is_it = |event: &&Event| event.container_id == id;
        let mut all = events.iter().filter(|event| event.container_event_type() == Deleted);
        all.find(is_it).unwrap().pod_sandbox_status.clone().unwrap()
    };
    let told = deleted(&first);
    assert_eq!((&told.id, told.metadata.as_ref()), (&second, again.metadata.as_ref()));
    assert_eq!(told.state(), cri::PodSandboxState::SandboxReady);
    assert_eq!(deleted(&last).id, last);
}

#[test]
fn a_pod_that_does_not_come_to_be_is_not_told() {
    let mut daemon = node();
    let body = format!("[ ! -e \"$here/no\" ] || [ $CNI_COMMAND != ADD ] || exit 1\n{ANSWER}");
    script(&daemon, "moody", &body);
    configure(&daemon, r#"{"type":"moody"}"#);
    let kubelet = Kubelet::of(&daemon);
    let first = kubelet.run_pod(&kubelet.pod_config("first"));
    let no = daemon.scratch().join("plugins/no");
    std::fs::write(&no, "").unwrap();
    let refused = kubelet.try_run_pod(&kubelet.pod_config("bad")).unwrap_err();
    assert!(refused.message().contains("moody"), "{refused}");
    std::fs::remove_file(no).unwrap();
    let last = sentinel(&kubelet);
    let expected = [(&first, Created), (&first, Started), (&last, Created), (&last, Started)]
        .map(|(id, kind)| (id.as_str(), kind));
    assert_eq!(order(&listen(&daemon, (last.clone(), Started)).join().unwrap()), expected);
    std::mem::forget(kubelet);
    daemon.kill();
    daemon.start_again();
    assert_eq!(order(&listen(&daemon, (last.clone(), Started)).join().unwrap()), expected);
    drop(Kubelet::of(&daemon));
}

#[test]
fn a_pod_that_a_daemon_left_half_made_is_never_ready_and_not_told() {
    let mut daemon = node();
    // Until it may go on: the daemon is gone by then.
    let body = format!("until [ -e \"$here/go\" ]; do sleep 0.02; done\n{ANSWER}");
    script(&daemon, "slow", &body);
    configure(&daemon, r#"{"type":"slow"}"#);
    let kubelet = Kubelet::of(&daemon).left_alone();
    let config = kubelet.pod_config("half");
    let asks = thread::spawn(move || kubelet.try_run_pod(&config));
    wait::until_true("the plugin", || !calls(&daemon).is_empty());
    assert!(Kubelet::of(&daemon).left_alone().pods(cri::PodSandboxFilter::default()).is_empty());
    daemon.kill();
    assert!(asks.join().unwrap().is_err());
    std::fs::write(daemon.scratch().join("plugins/go"), "").unwrap();
    daemon.start_again();
    let kubelet = Kubelet::of(&daemon);
    let pods = kubelet.pods(cri::PodSandboxFilter::default());
    assert_eq!(pods.len(), 1, "{pods:?}");
    assert_eq!(pods[0].state(), cri::PodSandboxState::SandboxNotready);
    kubelet.stop_pod(&pods[0].id).unwrap();
    kubelet.remove_pod(&pods[0].id).unwrap();
    let last = sentinel(&kubelet);
    let events = listen(&daemon, (last.clone(), Started)).join().unwrap();
    assert_eq!(order(&events), [(last.as_str(), Created), (last.as_str(), Started)]);
}
