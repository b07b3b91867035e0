//! Pods.

use bosun_proto::cri;
use integration::kubelet::{Kubelet, node};
use integration::{http, wait};

fn options(config: &mut cri::PodSandboxConfig) -> &mut cri::NamespaceOption {
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().namespace_options.as_mut().unwrap()
}

#[test]
fn the_runtime_says_what_it_is_and_that_it_is_ready() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let version = kubelet
        .call(|mut client| async move {
            client.version(cri::VersionRequest { version: "v1".to_owned() }).await
        })
        .unwrap();
    assert_eq!(
        (version.runtime_name.as_str(), version.runtime_api_version.as_str()),
        ("bosun", "v1")
    );
    assert!(!version.version.is_empty() && !version.runtime_version.is_empty());
    let status = kubelet
        .call(|mut client| async move { client.status(cri::StatusRequest { verbose: true }).await })
        .unwrap();
    let conditions = status.status.unwrap().conditions;
    for name in ["RuntimeReady", "NetworkReady"] {
        assert!(conditions.iter().any(|one| one.r#type == name && one.status), "{conditions:?}");
    }
    assert!(status.info.contains_key("config"));
    assert!(status.runtime_handlers.iter().any(|handler| handler.name.is_empty()));
    assert!(status.features.unwrap().supplemental_groups_policy);
    let config = kubelet
        .call(|mut client| async move { client.runtime_config(cri::RuntimeConfigRequest {}).await })
        .unwrap();
    assert_eq!(config.linux.unwrap().cgroup_driver(), cri::CgroupDriver::Cgroupfs);
    kubelet
        .call(|mut client| async move {
            client.update_runtime_config(cri::UpdateRuntimeConfigRequest::default()).await
        })
        .unwrap();
}

#[test]
fn a_pod_is_what_it_was_asked_to_be_until_it_is_removed() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let status = kubelet.pod_status(&pod);
    assert_eq!(status.metadata, config.metadata);
    assert_eq!(status.labels, config.labels);
    assert_eq!(status.annotations, config.annotations);
    assert_eq!(status.state(), cri::PodSandboxState::SandboxReady);
    assert!(status.created_at > 1_700_000_000_000_000_000, "{}", status.created_at);
    assert!(status.network.unwrap().ip.starts_with("10.99."));
    kubelet.stop_pod(&pod).unwrap();
    assert_eq!(kubelet.pod_status(&pod).state(), cri::PodSandboxState::SandboxNotready);
    kubelet.stop_pod(&pod).unwrap();
    kubelet.remove_pod(&pod).unwrap();
    kubelet.remove_pod(&pod).unwrap();
    kubelet.stop_pod(&pod).unwrap();
    assert!(kubelet.pods(cri::PodSandboxFilter::default()).is_empty());
}

#[test]
fn pods_are_found_by_id_state_and_labels() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let (one, two) =
        (kubelet.run_pod(&kubelet.pod_config("one")), kubelet.run_pod(&kubelet.pod_config("two")));
    kubelet.stop_pod(&two).unwrap();
    let ids = |filter: cri::PodSandboxFilter| -> Vec<String> {
        kubelet.pods(filter).into_iter().map(|pod| pod.id).collect()
    };
    let none = cri::PodSandboxFilter::default();
    assert_eq!(ids(none.clone()).len(), 2);
    assert_eq!(
        ids(cri::PodSandboxFilter { id: one[..12].to_owned(), ..none.clone() }),
        std::slice::from_ref(&one)
    );
    let state = cri::PodSandboxState::SandboxNotready.into();
    let state = Some(cri::PodSandboxStateValue { state });
    assert_eq!(ids(cri::PodSandboxFilter { state, ..none.clone() }), std::slice::from_ref(&two));
    let label_selector = [("app".to_owned(), "one".to_owned())].into();
    assert_eq!(ids(cri::PodSandboxFilter { label_selector, ..none.clone() }), [one]);
    let label_selector = [("app".to_owned(), "three".to_owned())].into();
    assert!(ids(cri::PodSandboxFilter { label_selector, ..none }).is_empty());
    let request = cri::StreamPodSandboxesRequest::default();
    let streamed = kubelet.api().wait(async {
        let mut client = kubelet.runtime();
        let mut stream = client.stream_pod_sandboxes(request).await.unwrap().into_inner();
        let mut count = 0;
        while let Some(piece) = stream.message().await.unwrap() {
            count += piece.pod_sandboxes.len();
        }
        count
    });
    assert_eq!(streamed, 2);
}

#[test]
fn the_same_pod_asked_for_again_is_the_same_and_another_under_its_name_is_refused() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    assert_eq!(kubelet.run_pod(&config), pod);
    config.hostname = "other".to_owned();
    let refused = kubelet.try_run_pod(&config).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::AlreadyExists, "{refused}");
    config.metadata.as_mut().unwrap().attempt = 1;
    assert_ne!(kubelet.run_pod(&config), pod);
}

#[test]
fn a_pod_whose_resources_were_updated_is_still_the_one_that_was_asked_for() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    let resources = |memory_limit_in_bytes| cri::LinuxContainerResources {
        memory_limit_in_bytes,
        ..cri::LinuxContainerResources::default()
    };
    config.linux.as_mut().unwrap().resources = Some(resources(64 << 20));
    let pod = kubelet.run_pod(&config);
    let shown = || {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: true };
        let status =
            kubelet.call(|mut client| async move { client.pod_sandbox_status(request).await });
        let info: serde_json::Value = serde_json::from_str(&status.unwrap().info["info"]).unwrap();
        ["resources", "overhead"].map(|part| info[part]["memoryLimit"].as_i64().unwrap())
    };
    let update = |resources, overhead| {
        let request = cri::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: pod.clone(),
            overhead,
            resources,
        };
        kubelet.call(|mut client| async move { client.update_pod_sandbox_resources(request).await })
    };
    assert_eq!(shown(), [64 << 20, 0]);
    update(Some(resources(128 << 20)), None).unwrap();
    update(None, Some(resources(8 << 20))).unwrap();
    assert_eq!(shown(), [128 << 20, 8 << 20]);
    assert_eq!(kubelet.run_pod(&config), pod);
    config.hostname = "other".to_owned();
    let refused = kubelet.try_run_pod(&config).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::AlreadyExists, "{refused}");
}

#[test]
fn names_are_resolved_as_the_pod_says() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    config.hostname = "box".to_owned();
    config.dns_config = Some(cri::DnsConfig {
        servers: vec!["10.0.0.10".to_owned()],
        searches: vec!["default.svc.example".to_owned(), "svc.example".to_owned()],
        options: vec!["ndots:5".to_owned()],
    });
    let pod = kubelet.run_pod(&config);
    let script = kubelet.container_config("one", "hostname; cat /etc/hostname /etc/resolv.conf");
    assert_eq!(
        kubelet.output(&pod, &script, &config),
        "box\nbox\nsearch default.svc.example svc.example\nnameserver 10.0.0.10\noptions ndots:5\n"
    );
}

#[test]
fn kernel_parameters_are_the_pod_s() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    let sysctls = [("kernel.shm_rmid_forced", "1"), ("net.ipv4.ip_local_port_range", "2000 3000")];
    let sysctls = sysctls.map(|(name, value)| (name.to_owned(), value.to_owned()));
    config.linux.as_mut().unwrap().sysctls = sysctls.into();
    let pod = kubelet.run_pod(&config);
    let script =
        "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_local_port_range | xargs";
    let script = kubelet.container_config("one", script);
    assert_eq!(kubelet.output(&pod, &script, &config), "1 2000 3000\n");
}

#[test]
fn a_port_of_the_host_leads_into_the_pod() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    config.port_mappings = vec![
        cri::PortMapping { container_port: 8080, host_port: 12000, ..Default::default() },
        cri::PortMapping { container_port: 9090, ..Default::default() },
    ];
    let pod = kubelet.run_pod(&config);
    let script = "mkdir /w; echo hello > /w/index.html; exec httpd -f -p 8080 -h /w";
    let _ = kubelet.run(&pod, &kubelet.container_config("one", script), &config);
    let localhost = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    wait::until_true("an answer", || {
        let answer = http::get(&daemon.netns().path(), localhost, 12000, "/");
        answer.is_ok_and(|answer| answer.body == "hello\n")
    });
}

#[test]
fn namespaces_are_the_pod_s_the_container_s_the_node_s_or_another_container_s() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let with_pid = |config: &mut cri::ContainerConfig, mode: cri::NamespaceMode, target: &str| {
        let linux = config.linux.as_mut().unwrap();
        let context = linux.security_context.as_mut().unwrap();
        let options = context.namespace_options.as_mut().unwrap();
        options.set_pid(mode);
        options.target_id = target.to_owned();
    };
    let mut config = kubelet.pod_config("web");
    options(&mut config).set_pid(cri::NamespaceMode::Pod);
    let pod = kubelet.run_pod(&config);
    let mut sleeper = kubelet.container_config("sleeper", "exec sleep 600");
    with_pid(&mut sleeper, cri::NamespaceMode::Pod, "");
    let _ = kubelet.run(&pod, &sleeper, &config);
    let mut own = kubelet.container_config("own", "exec sleep 700");
    with_pid(&mut own, cri::NamespaceMode::Container, "");
    let own = kubelet.run(&pod, &own, &config);
    let seen = |name: &str, mode, target: &str| {
        let mut one = kubelet.container_config(name, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '");
        with_pid(&mut one, mode, target);
        kubelet.output(&pod, &one, &config)
    };
    let pods = seen("a", cri::NamespaceMode::Pod, "");
    assert!(pods.contains("sleep 600") && !pods.contains("sleep 700"), "{pods}");
    let alone = seen("b", cri::NamespaceMode::Container, "");
    assert!(!alone.contains("sleep 600") && !alone.contains("sleep 700"), "{alone}");
    let target = seen("c", cri::NamespaceMode::Target, &own);
    assert!(!target.contains("sleep 600") && target.contains("sleep 700"), "{target}");
    let node = seen("d", cri::NamespaceMode::Node, "");
    assert!(node.contains("sleep 600") && node.contains("bosund"), "{node}");
}

#[test]
fn only_processes_of_containers_of_the_same_pod_are_seen() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let (config, other) = (kubelet.pod_config("one"), kubelet.pod_config("other"));
    let (pod, elsewhere) = (kubelet.run_pod(&config), kubelet.run_pod(&other));
    let sleeper = kubelet.container_config("sleeper", "exec sleep 600");
    let (near, far) =
        (kubelet.run(&pod, &sleeper, &config), kubelet.run(&elsewhere, &sleeper, &other));
    let create = |target: &str| {
        let mut one = kubelet.container_config("debug", "true");
        let context = one.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        let options = context.namespace_options.as_mut().unwrap();
        options.set_pid(cri::NamespaceMode::Target);
        options.target_id = target.to_owned();
        kubelet.try_create(&pod, &one, &config)
    };
    for stranger in [&far, &elsewhere, &pod] {
        let refused = create(stranger).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        let said = format!("does not belong to pod {pod}");
        assert!(refused.message().contains(&said), "{refused}");
    }
    assert_eq!(create("0123456789ab").unwrap_err().code(), tonic::Code::NotFound);
    kubelet.start(&create(&near).unwrap()).unwrap();
}

#[test]
fn whoever_stops_and_removes_a_pod_at_once_is_told_that_it_is_done() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    for round in 0..6 {
        let config = kubelet.pod_config("web");
        let pod = kubelet.run_pod(&config);
        for name in ["one", "two"] {
            let container = kubelet.container_config(name, "exec sleep 600");
            let _ = kubelet.run(&pod, &container, &config);
        }
        // In each second round somebody removes it by the other face.
        let removal = format!("--namespace k8s.io pod rm -f {pod}");
        std::thread::scope(|scope| {
            if round % 2 == 1 {
                scope.spawn(|| daemon.ctl(&removal));
            }
            for caller in 0..8 {
                let (kubelet, pod) = (&kubelet, &pod);
                scope.spawn(move || match caller % 2 {
                    0 => kubelet.stop_pod(pod).unwrap(),
                    _ => kubelet.remove_pod(pod).unwrap(),
                });
            }
        });
        assert!(kubelet.pods(cri::PodSandboxFilter::default()).is_empty());
        assert!(kubelet.containers(cri::ContainerFilter::default()).is_empty());
    }
}

#[test]
fn the_host_s_network_and_ipc_are_joined_on_request() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    options(&mut config).set_network(cri::NamespaceMode::Node);
    options(&mut config).set_ipc(cri::NamespaceMode::Node);
    let pod = kubelet.run_pod(&config);
    assert_eq!(kubelet.pod_status(&pod).network.unwrap().ip, "");
    let script = kubelet.container_config("one", "readlink /proc/self/ns/ipc; ls /sys/class/net");
    let seen = kubelet.output(&pod, &script, &config);
    let ipc = std::fs::read_link("/proc/self/ns/ipc").unwrap();
    assert!(seen.starts_with(ipc.to_str().unwrap()), "{seen}");
    assert!(seen.contains(&daemon.place().bridge), "{seen}");
}

#[test]
fn control_groups_lie_where_the_kubelet_says_and_go_with_the_containers() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    let parent = format!("{}-kubepods/burstable/pod1", daemon.place().prefix);
    config.linux.as_mut().unwrap().cgroup_parent = format!("/{parent}");
    let pod = kubelet.run_pod(&config);
    let container = kubelet.run(&pod, &kubelet.container_config("one", "sleep 600"), &config);
    let found = || -> Vec<std::path::PathBuf> {
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        let unified = std::path::PathBuf::from("/sys/fs/cgroup");
        let all = hierarchies.map(|entry| entry.path()).chain([unified]);
        all.map(|path| path.join(&parent).join(&container)).filter(|path| path.exists()).collect()
    };
    assert!(!found().is_empty());
    kubelet.stop(&container, 0).unwrap();
    kubelet.remove(&container).unwrap();
    wait::until_true("that the groups are gone", || found().is_empty());
    kubelet.remove_pod(&pod).unwrap();
    let top = format!("{}-kubepods", daemon.place().prefix);
    for entry in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        // What the kubelet makes it removes.
        for below in ["burstable/pod1", "burstable", ""] {
            let _ = std::fs::remove_dir(entry.path().join(&top).join(below));
        }
    }
}

#[test]
fn what_happens_is_told_to_who_listens() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let container = kubelet.run(&pod, &kubelet.container_config("one", "exit 3"), &config);
    let _ = kubelet.ended(&container);
    kubelet.remove(&container).unwrap();
    let events = kubelet.api().wait(async {
        let mut client = kubelet.runtime();
        let request = cri::GetEventsRequest {};
        let mut stream = client.get_container_events(request).await.unwrap().into_inner();
        let mut events = Vec::new();
        while events.len() < 6 {
            events.push(stream.message().await.unwrap().unwrap());
        }
        events
    });
    use cri::ContainerEventType::{
        ContainerCreatedEvent as Created, ContainerDeletedEvent as Deleted,
        ContainerStartedEvent as Started, ContainerStoppedEvent as Stopped,
    };
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event.container_id.as_str(), event.container_event_type()))
        .collect();
    let (pod_id, id) = (pod.as_str(), container.as_str());
    for expected in [
        (pod_id, Created),
        (pod_id, Started),
        (id, Created),
        (id, Started),
        (id, Stopped),
        (id, Deleted),
    ] {
        assert!(seen.contains(&expected), "{expected:?} in {seen:?}");
    }
    let deleted = events.iter().find(|event| event.container_event_type() == Deleted).unwrap();
    assert!(deleted.created_at > 0);
}

#[test]
fn containers_of_a_pod_share_its_network_and_its_name() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    config.hostname = "box".to_owned();
    options(&mut config).set_pid(cri::NamespaceMode::Pod);
    let pod = kubelet.run_pod(&config);
    let script = "mkdir /w; echo of the other > /w/file; exec httpd -f -p 127.0.0.1:8080 -h /w";
    let _ = kubelet.run(&pod, &kubelet.container_config("server", script), &config);
    let script = "until wget -q -O - http://127.0.0.1:8080/file; do sleep 0.05; done; hostname";
    let said = kubelet.output(&pod, &kubelet.container_config("client", script), &config);
    assert_eq!(
        said.lines().filter(|line| !line.contains("wget")).collect::<Vec<_>>(),
        ["of the other", "box"]
    );
    // The kubelet reads back what it asked for.
    let told = kubelet.pod_status(&pod).linux.unwrap().namespaces.unwrap().options;
    assert_eq!(told.as_ref(), Some(&*options(&mut config)));
}
