//! Runtime handlers: who runs the containers of a pod.

use bosun_proto::cri;
use integration::daemon::{Daemon, Settings};
use integration::kubelet::{Kubelet, node_with};
use integration::process::Process;
use tonic::Code;

const RUNTIMES: &str = r#"
[runtimes.strict]
type = "bosun"
privileged-without-host-devices = true
[runtimes.mine]
type = "io.containerd.runc.v2"
binary = "/usr/sbin/runc"
[runtimes.machine]
type = "io.containerd.machine.v2"
[runtimes.alone]
type = "io.containerd.runc.v2"
pods = false
"#;

fn node() -> Daemon {
    node_with(Settings::new().configured(RUNTIMES))
}

fn pod_by(kubelet: &Kubelet, handler: &str, config: &cri::PodSandboxConfig) -> String {
    kubelet
        .try_run_pod_by(handler, config)
        .unwrap_or_else(|status| panic!("RunPodSandbox by {handler}: {status}"))
}

/// Stock shims that belong to a daemon.
fn stock_shims(daemon: &Daemon) -> usize {
    Process::belonging(&daemon.place().prefix, daemon.scratch())
        .into_iter()
        .filter(|process| process.lives() && process.command().starts_with("containerd-shim"))
        .count()
}

#[test]
fn all_handlers_are_reported_with_what_they_can_do() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let status = kubelet
        .call(|mut client| async move { client.status(cri::StatusRequest::default()).await })
        .unwrap();
    let all = status.runtime_handlers;
    let names: Vec<&str> = all.iter().map(|handler| handler.name.as_str()).collect();
    assert_eq!(names, ["", "bosun", "crun", "mine", "runc", "strict"]);
    let features = |name: &str| {
        all.iter()
            .find(|handler| handler.name == name)
            .and_then(|handler| handler.features)
            .unwrap()
    };
    for name in ["", "bosun", "strict"] {
        assert!(features(name).user_namespaces && features(name).recursive_read_only_mounts);
    }
    for name in ["runc", "mine"] {
        assert!(!features(name).user_namespaces);
        assert!(features(name).recursive_read_only_mounts, "Debian's runc says so of itself");
    }
    assert!(!features("crun").recursive_read_only_mounts, "Debian's crun says nothing");
}

#[test]
fn containers_under_runc_share_a_pod_that_no_process_holds() {
    let mut daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    config.hostname = "shared".to_owned();
    let pod = pod_by(&kubelet, "runc", &config);
    assert_eq!(kubelet.pod_status(&pod).runtime_handler, "runc");
    assert_eq!(stock_shims(&daemon), 0, "the pod is bosun's own");
    let one = kubelet.container_config("one", "echo kept >/dev/shm/note; exec sleep 600");
    let one = kubelet.run(&pod, &one, &config);
    let mut two = kubelet.container_config("two", "id -G; exec sleep 600");
    let context = two.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.supplemental_groups = vec![4711];
    let two = kubelet.run(&pod, &two, &config);
    assert_eq!(stock_shims(&daemon), 2);
    let both = |script: &str| (kubelet.exec_text(&one, script), kubelet.exec_text(&two, script));
    for kind in ["net", "ipc", "uts"] {
        let (one, two) = both(&format!("readlink /proc/self/ns/{kind}"));
        assert_eq!(one, two, "{kind}");
    }
    assert_eq!(both("hostname"), ("shared".to_owned(), "shared".to_owned()));
    assert_eq!(kubelet.exec_text(&two, "cat /dev/shm/note"), "kept");
    let address = kubelet.pod_status(&pod).network.unwrap().ip;
    assert!(kubelet.exec_text(&one, "ip addr").contains(&address));
    assert!(kubelet.said(&two).contains("4711"), "{}", kubelet.said(&two));
    assert!(kubelet.exec_text(&two, "id -G").contains("4711"));
    // Its end would take the pod along.
    std::mem::forget(kubelet);

    daemon.kill();
    daemon.start_again();
    let kubelet = Kubelet::of(&daemon);
    assert_eq!(kubelet.exec_text(&one, "cat /dev/shm/note"), "kept");
    kubelet.stop(&one, 0).unwrap();
    let ended = kubelet.status(&one);
    assert_eq!((ended.exit_code, ended.state()), (137, cri::ContainerState::ContainerExited));
    let again = kubelet.container_config("again", "exit 7");
    let again = kubelet.run(&pod, &again, &config);
    assert_eq!(kubelet.ended(&again).exit_code, 7);
    kubelet.remove_pod(&pod).unwrap();
    // A stock shim says that it ends, and does so in its own time.
    integration::wait::until("the end of the shims", || (stock_shims(&daemon) == 0).then_some(()));
}

#[test]
fn processes_of_a_pod_are_shared_under_runc_too() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    let mode = cri::NamespaceMode::Pod.into();
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().namespace_options.as_mut().unwrap().pid = mode;
    let pod = pod_by(&kubelet, "mine", &config);
    let shared = |name: &str, script: &str| {
        let mut container = kubelet.container_config(name, script);
        let context = container.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        context.namespace_options.as_mut().unwrap().pid = mode;
        container
    };
    let one = kubelet.run(&pod, &shared("one", "exec sleep 4711"), &config);
    let two = kubelet.run(&pod, &shared("two", "ps; sleep 600 & exit 3"), &config);
    assert_eq!(kubelet.ended(&two).exit_code, 3, "what it leaves behind goes with it");
    let said = kubelet.said(&two);
    assert!(said.contains("sleep 4711") && said.contains("bosun-init"), "{said}");
    let left = kubelet.exec_text(&one, "ps");
    assert!(!left.contains("sleep 600"), "{left}");
}

#[test]
fn a_handler_may_keep_devices_from_privileged_containers() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let devices = |handler: &str| {
        let mut config = kubelet.pod_config("web");
        let linux = config.linux.as_mut().unwrap();
        linux.security_context.as_mut().unwrap().privileged = true;
        let pod = pod_by(&kubelet, handler, &config);
        let mut container = kubelet.container_config("one", "ls /dev; head -c 1 /dev/kmsg | wc -c");
        container.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
        kubelet.output(&pod, &container, &config)
    };
    let (all, none) = (devices("bosun"), devices("strict"));
    assert!(all.lines().any(|line| line == "kmsg"), "{all}");
    assert!(!none.lines().any(|line| line == "kmsg"), "{none}");
    assert!(none.lines().any(|line| line == "null"), "{none}");
}

#[test]
fn what_a_handler_can_not_hold_is_refused_by_name() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let said = |handler: &str, config: &cri::PodSandboxConfig| {
        let refused = kubelet.try_run_pod_by(handler, config).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        refused.message().to_owned()
    };
    let plain = kubelet.pod_config("bad");
    let unknown = said("kata", &plain);
    assert_eq!(
        unknown,
        "runtime handler \"kata\": there is none of that name: here are bosun, crun, mine, runc, strict"
    );
    assert!(said("machine", &plain).contains("containerd-shim-machine-v2 is not installed"));
    assert!(said("alone", &plain).contains("[runtimes.alone]"));
    assert!(said("io.containerd.runc.v2", &plain).contains("none of that name"));
    let mut users = kubelet.pod_config("bad");
    let linux = users.linux.as_mut().unwrap();
    let options = linux.security_context.as_mut().unwrap().namespace_options.as_mut().unwrap();
    let range = cri::IdMapping { host_id: 100_000, container_id: 0, length: 65536 };
    options.userns_options = Some(cri::UserNamespace {
        mode: cri::NamespaceMode::Pod.into(),
        uids: vec![range],
        gids: vec![range],
    });
    let refused = said("runc", &users);
    assert!(refused.contains("\"runc\" has no user namespaces"), "{refused}");
    assert!(kubelet.pods(cri::PodSandboxFilter::default()).is_empty());

    let config = kubelet.pod_config("web");
    let pod = pod_by(&kubelet, "crun", &config);
    let mut container = kubelet.container_config("one", "true");
    container.mounts = vec![cri::Mount {
        container_path: "/mnt".to_owned(),
        host_path: "/usr".to_owned(),
        readonly: true,
        recursive_read_only: true,
        ..cri::Mount::default()
    }];
    let refused = kubelet.try_create(&pod, &container, &config).unwrap_err();
    assert!(refused.message().contains("/mnt") && refused.message().contains("crun"), "{refused}");
}
