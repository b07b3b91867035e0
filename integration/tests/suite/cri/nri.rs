//! Plugins of the node (NRI).

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bosun_nri::wire as nri;
use bosun_proto::cri;
use bosun_proto::cri::runtime_service_client::RuntimeServiceClient;
use integration::daemon::{Daemon, Settings};
use integration::kubelet::{IMAGE, Kubelet, node_of};
use integration::nri::{Plugin, Reply, Script};
use integration::wait;
use shim_wire::ttrpc;
use tonic::transport::Channel;

use super::prepared;

type Runtime = RuntimeServiceClient<Channel>;

/// A node that waits for its plugins, however loaded the machine is.
fn node() -> Daemon {
    node_of(Settings::new(), "[nri]\nregistration-timeout = 60000\nrequest-timeout = 60000\n")
}

/// Where a daemon whose root is not the default one lets plugins in.
fn socket(daemon: &Daemon) -> PathBuf {
    daemon.scratch().join("s/nri.sock")
}

fn join(daemon: &Daemon, name: &str, script: Script) -> Plugin {
    let (index, base) = name.split_once('-').unwrap();
    Plugin::join(&socket(daemon), index, base, script)
}

fn adjusts(adjust: nri::ContainerAdjustment) -> Script {
    Script::new().on("CreateContainer", move |_: nri::CreateContainerRequest| {
        Ok(nri::CreateContainerResponse { adjust: Some(adjust.clone()), ..Default::default() })
    })
}

fn of_linux(linux: nri::LinuxContainerAdjustment) -> nri::ContainerAdjustment {
    nri::ContainerAdjustment { linux: Some(linux), ..Default::default() }
}

fn memory(limit: i64) -> nri::LinuxResources {
    let limit = Some(nri::OptionalInt64 { value: limit });
    let memory = Some(nri::LinuxMemory { limit, ..Default::default() });
    nri::LinuxResources { memory, ..Default::default() }
}

fn shares(shares: u64) -> nri::LinuxResources {
    let shares = Some(nri::OptionalUInt64 { value: shares });
    let cpu = Some(nri::LinuxCpu { shares, ..Default::default() });
    nri::LinuxResources { cpu, ..Default::default() }
}

fn update(id: &str, resources: nri::LinuxResources) -> nri::ContainerUpdate {
    nri::ContainerUpdate {
        container_id: id.to_owned(),
        linux: Some(nri::LinuxContainerUpdate { resources: Some(resources) }),
        ignore_failure: false,
    }
}

fn limits(kubelet: &Kubelet, id: &str) -> cri::LinuxContainerResources {
    kubelet.status(id).resources.unwrap().linux.unwrap()
}

#[test]
fn a_plugin_hears_of_a_pod_and_its_container_from_the_beginning_to_the_end() {
    let daemon = node();
    let plugin = join(&daemon, "10-a", Script::new());
    let (kubelet, config, pod) = prepared(&daemon);
    let mut container =
        kubelet.container_config("one", "trap 'exit 7' TERM; while :; do sleep 0.05; done");
    container.annotations = [("note".to_owned(), "x".to_owned())].into();
    container.envs = vec![cri::KeyValue { key: "A".to_owned(), value: b"1".to_vec() }];
    let id = kubelet.run(&pod, &container, &config);
    wait::until_true("the trap", || kubelet.exec(&id, "test -e /proc/1/stat", 0).is_ok());
    kubelet.stop(&id, 10).unwrap();
    kubelet.stop(&id, 10).unwrap();
    kubelet.remove(&id).unwrap();
    kubelet.stop_pod(&pod).unwrap();
    kubelet.stop_pod(&pod).unwrap();
    kubelet.remove_pod(&pod).unwrap();
    kubelet.remove_pod(&pod).unwrap();
    let expected = [
        "RunPodSandbox",
        "CreateContainer",
        "PostCreateContainer",
        "StartContainer",
        "PostStartContainer",
        "StopContainer",
        "RemoveContainer",
        "StopPodSandbox",
        "RemovePodSandbox",
    ];
    assert_eq!(plugin.methods(), expected, "each of them once");
    let run: nri::RunPodSandboxRequest = plugin.of("RunPodSandbox").remove(0);
    let told = run.pod.unwrap();
    let asked = config.metadata.clone().unwrap();
    assert_eq!((&told.id, &told.name, &told.uid), (&pod, &asked.name, &asked.uid));
    assert_eq!(told.namespace, "default");
    assert_eq!(told.labels, config.labels.clone().into_iter().collect());
    assert_eq!(told.annotations, config.annotations.clone().into_iter().collect());
    assert_eq!(told.ips.len(), 1);
    let namespaces = told.linux.unwrap().namespaces;
    let network = namespaces.iter().find(|one| one.r#type == "network").unwrap();
    assert_eq!(network.path, format!("/run/netns/bosun-{pod}"));
    let create: nri::CreateContainerRequest = plugin.of("CreateContainer").remove(0);
    let (told, of_pod) = (create.container.unwrap(), create.pod.unwrap());
    assert_eq!((&told.id, &told.name, &told.pod_sandbox_id), (&id, &"one".to_owned(), &pod));
    assert_eq!(of_pod.id, pod);
    assert_eq!(told.args[..2], ["/bin/sh", "-c"]);
    assert!(told.env.contains(&"A=1".to_owned()), "{:?}", told.env);
    assert_eq!(told.annotations["note"], "x");
    assert_eq!(told.labels["container"], "one");
    assert!(told.mounts.iter().any(|mount| mount.destination == "/etc/hosts"));
    let image = told.image.unwrap();
    assert_eq!(image.name, IMAGE);
    assert!(image.config_digest.starts_with("sha256:") && image.digest.starts_with("sha256:"));
    let linux = told.linux.unwrap();
    assert!(linux.cgroups_path.ends_with(&id), "{}", linux.cgroups_path);
    assert!(linux.namespaces.iter().any(|one| one.r#type == "mount"));
    let start: nri::StartContainerRequest = plugin.of("StartContainer").remove(0);
    assert_eq!(start.container.unwrap().state(), nri::ContainerState::ContainerCreated);
    let started: nri::PostStartContainerRequest = plugin.of("PostStartContainer").remove(0);
    let started = started.container.unwrap();
    assert_eq!(started.state(), nri::ContainerState::ContainerRunning);
    assert!(started.pid > 1 && started.started_at >= started.created_at);
    let stop: nri::StopContainerRequest = plugin.of("StopContainer").remove(0);
    let stopped = stop.container.unwrap();
    assert_eq!(stopped.state(), nri::ContainerState::ContainerStopped);
    assert_eq!((stopped.exit_code, stopped.name.as_str()), (7, "one"));
    let removed: nri::RemoveContainerRequest = plugin.of("RemoveContainer").remove(0);
    assert_eq!((removed.container.unwrap().name, removed.pod.unwrap().id), ("one".to_owned(), pod));
}

#[test]
fn ends_that_nobody_asked_for_are_told() {
    let daemon = node();
    let plugin = join(&daemon, "10-a", Script::new());
    let (kubelet, config, pod) = prepared(&daemon);
    let _ends = kubelet.run(&pod, &kubelet.container_config("ends", "exit 3"), &config);
    plugin.wait_for("StopContainer", 1);
    let stop: nri::StopContainerRequest = plugin.of("StopContainer").remove(0);
    let stopped = stop.container.unwrap();
    assert_eq!((stopped.name.as_str(), stopped.exit_code), ("ends", 3));
    let mut broken = kubelet.container_config("broken", "");
    broken.command = vec!["/no/such/program".to_owned()];
    let id = kubelet.try_create(&pod, &broken, &config).unwrap();
    assert!(kubelet.start(&id).is_err());
    plugin.wait_for("StopContainer", 2);
    let runs = kubelet.run(&pod, &kubelet.container_config("runs", "sleep 600"), &config);
    kubelet.stop_pod(&pod).unwrap();
    let methods = plugin.methods();
    assert_eq!(methods[methods.len() - 2..], ["StopContainer", "StopPodSandbox"]);
    let stops: Vec<nri::StopContainerRequest> = plugin.of("StopContainer");
    assert_eq!(stops.len(), 3);
    assert_eq!(stops[2].container.as_ref().unwrap().id, runs);
}

#[test]
fn what_plugins_adjust_is_what_a_container_is() {
    let daemon = node();
    let shared = daemon.scratch().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("file"), "from the host").unwrap();
    let hook = |name: &str, seconds: i64| nri::Hook {
        path: "/bin/sh".to_owned(),
        args: ["sh", "-c"]
            .map(str::to_owned)
            .into_iter()
            .chain([format!("cat > {}", shared.join(name).display())])
            .collect(),
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        timeout: Some(nri::OptionalInt { value: seconds }),
    };
    let set =
        |key: &str, value: &str| nri::KeyValue { key: key.to_owned(), value: value.to_owned() };
    let script = "echo $A $B; cat /mnt/file; echo; ulimit -n; cat /proc/self/oom_score_adj
        ls -l /dev/mine | cut -c1; cat /proc/sys/net/ipv4/ip_unprivileged_port_start
        mkdir /x 2>/dev/null || echo refused; ls -d /dev/mqueue 2>/dev/null || echo gone
        cut -d' ' -f41 /proc/self/stat; exit 5";
    let adjust = nri::ContainerAdjustment {
        annotations: [("by.plugin".to_owned(), "yes".to_owned())].into(),
        env: vec![set("A", "plugin's"), set("-B", "")],
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        mounts: vec![
            nri::Mount {
                destination: "/mnt".to_owned(),
                r#type: "bind".to_owned(),
                source: shared.display().to_string(),
                options: ["rbind", "ro"].map(str::to_owned).to_vec(),
            },
            nri::Mount { destination: "-/dev/mqueue".to_owned(), ..Default::default() },
        ],
        hooks: Some(nri::Hooks {
            create_runtime: vec![hook("created", 20)],
            poststop: vec![hook("stopped", 0)],
            ..Default::default()
        }),
        rlimits: vec![nri::PosixRlimit { r#type: "RLIMIT_NOFILE".into(), hard: 200, soft: 100 }],
        linux: Some(nri::LinuxContainerAdjustment {
            devices: vec![nri::LinuxDevice {
                path: "/dev/mine".to_owned(),
                r#type: "c".to_owned(),
                major: 1,
                minor: 5,
                file_mode: Some(nri::OptionalFileMode { value: 0o666 }),
                ..Default::default()
            }],
            resources: Some(nri::LinuxResources { cpu: shares(100).cpu, ..memory(48 << 20) }),
            oom_score_adj: Some(nri::OptionalInt { value: 777 }),
            sysctl: [("net.ipv4.ip_unprivileged_port_start".to_owned(), "7".to_owned())].into(),
            scheduler: Some(nri::LinuxScheduler {
                policy: nri::LinuxSchedulerPolicy::SchedBatch.into(),
                ..Default::default()
            }),
            io_priority: Some(nri::LinuxIoPriority {
                class: nri::IoPrioClass::IoprioClassIdle.into(),
                priority: 0,
            }),
            seccomp_policy: Some(nri::LinuxSeccomp {
                default_action: "SCMP_ACT_ALLOW".to_owned(),
                syscalls: vec![nri::LinuxSyscall {
                    names: vec!["mkdir".to_owned(), "mkdirat".to_owned()],
                    action: "SCMP_ACT_ERRNO".to_owned(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let plugin = join(&daemon, "10-a", adjusts(adjust));
    let (kubelet, config, pod) = prepared(&daemon);
    let mut container = kubelet.container_config("one", "echo never");
    container.envs = vec![
        cri::KeyValue { key: "A".to_owned(), value: b"1".to_vec() },
        cri::KeyValue { key: "B".to_owned(), value: b"2".to_vec() },
    ];
    let id = kubelet.run(&pod, &container, &config);
    assert_eq!(kubelet.ended(&id).exit_code, 5);
    let said = kubelet.said(&id);
    let expected = "plugin's\nfrom the host\n100\n777\nc\n7\nrefused\ngone\n3\n";
    assert_eq!(said, expected);
    let limits = limits(&kubelet, &id);
    assert_eq!((limits.memory_limit_in_bytes, limits.cpu_shares), (48 << 20, 100));
    let state = |name: &str| -> serde_json::Value {
        let text = std::fs::read_to_string(shared.join(name)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    };
    assert_eq!(
        (&state("created")["id"], &state("created")["status"]),
        (&id.as_str().into(), &"creating".into())
    );
    assert_eq!(state("created")["annotations"]["by.plugin"], "yes");
    wait::until_true("the hook after its end", || state("stopped")["status"] == "stopped");
    let start: nri::StartContainerRequest = plugin.of("StartContainer").remove(0);
    let told = start.container.unwrap();
    assert_eq!(told.annotations["by.plugin"], "yes");
    assert_eq!(told.rlimits.len(), 1);
    assert_eq!(told.hooks.unwrap().create_runtime.len(), 1);
    let linux = told.linux.unwrap();
    assert!(linux.devices.iter().any(|device| device.path == "/dev/mine"));
    assert_eq!(linux.scheduler.unwrap().policy(), nri::LinuxSchedulerPolicy::SchedBatch);
    assert_eq!(linux.oom_score_adj.unwrap().value, 777);
}

#[test]
fn a_plugin_gives_a_container_a_device_of_a_vendor() {
    let daemon = node();
    let directory = daemon.scratch().join("etc-cdi");
    std::fs::create_dir_all(&directory).unwrap();
    let device = r#"{"cdiVersion": "0.6.0", "kind": "a.com/b", "devices": [
        {"name": "c", "containerEdits": {"env": ["OF=vendor"], "deviceNodes": [
            {"path": "/dev/mine", "hostPath": "/dev/full"}]}}]}"#;
    std::fs::write(directory.join("a.json"), device).unwrap();
    let _plugin = join(
        &daemon,
        "10-a",
        adjusts(nri::ContainerAdjustment {
            cdi_devices: vec![nri::CdiDevice { name: "a.com/b=c".to_owned() }],
            env: vec![nri::KeyValue { key: "BY".into(), value: "plugin".into() }],
            ..Default::default()
        }),
    );
    let (kubelet, config, pod) = prepared(&daemon);
    let container = kubelet.container_config("one", "echo $OF $BY; ls -l /dev/mine");
    let said = kubelet.output(&pod, &container, &config);
    assert!(said.starts_with("vendor plugin\n") && said.contains("1,   7"), "{said}");
}

#[test]
fn what_bosun_can_t_do_is_refused_by_its_name_and_nothing_is_left() {
    let daemon = node();
    let asked = Arc::new(Mutex::new(nri::ContainerAdjustment::default()));
    let next = Arc::clone(&asked);
    let script = Script::new().on("CreateContainer", move |_: nri::CreateContainerRequest| {
        let adjust = Some(next.lock().unwrap().clone());
        Ok(nri::CreateContainerResponse { adjust, ..Default::default() })
    });
    let plugin = join(&daemon, "10-a", script);
    let (kubelet, config, pod) = prepared(&daemon);
    let class = Some(nri::OptionalString { value: "gold".to_owned() });
    let cases = [
        (
            nri::ContainerAdjustment {
                cdi_devices: vec![nri::CdiDevice { name: "a.com/b=c".to_owned() }],
                ..Default::default()
            },
            "a.com/b=c",
        ),
        (
            of_linux(nri::LinuxContainerAdjustment {
                net_devices: [("eth7".to_owned(), nri::LinuxNetDevice::default())].into(),
                ..Default::default()
            }),
            "eth7",
        ),
        (
            of_linux(nri::LinuxContainerAdjustment {
                memory_policy: Some(nri::LinuxMemoryPolicy::default()),
                ..Default::default()
            }),
            "memory_policy",
        ),
        (
            of_linux(nri::LinuxContainerAdjustment {
                rdt: Some(nri::LinuxRdt { clos_id: class.clone(), ..Default::default() }),
                ..Default::default()
            }),
            "linux.rdt",
        ),
        (
            of_linux(nri::LinuxContainerAdjustment {
                resources: Some(nri::LinuxResources { blockio_class: class, ..Default::default() }),
                ..Default::default()
            }),
            "blockio_class",
        ),
        (
            of_linux(nri::LinuxContainerAdjustment {
                cgroups_path: "/others/group".to_owned(),
                ..Default::default()
            }),
            "\"/others/group\"",
        ),
        (
            of_linux(nri::LinuxContainerAdjustment {
                namespaces: vec![nri::LinuxNamespace {
                    r#type: "network".into(),
                    path: "/x".into(),
                }],
                ..Default::default()
            }),
            "network: it is the pod's",
        ),
        (
            of_linux(nri::LinuxContainerAdjustment {
                sysctl: [("kernel.panic".to_owned(), "1".to_owned())].into(),
                ..Default::default()
            }),
            "kernel.panic",
        ),
        (
            nri::ContainerAdjustment {
                annotations: [("io.bosun.covers".to_owned(), "[]".to_owned())].into(),
                ..Default::default()
            },
            "io.bosun.covers",
        ),
    ];
    let container = kubelet.container_config("one", "true");
    for (adjust, what) in cases {
        *asked.lock().unwrap() = adjust;
        let said = kubelet.try_create(&pod, &container, &config).unwrap_err();
        assert!(said.message().contains(what), "{what}: {said}");
        let methods = plugin.methods();
        let undone = ["CreateContainer", "StopContainer", "RemoveContainer"];
        assert_eq!(methods[methods.len() - 3..], undone, "{what}");
    }
    assert!(kubelet.containers(cri::ContainerFilter::default()).is_empty());
    *asked.lock().unwrap() = nri::ContainerAdjustment::default();
    let _ = kubelet.run(&pod, &container, &config);
}

#[test]
fn limits_go_through_plugins_and_they_change_them_by_themselves() {
    let daemon = node();
    let other = Arc::new(Mutex::new(String::new()));
    let of_other = Arc::clone(&other);
    let script = Script::new().on("UpdateContainer", move |asked: nri::UpdateContainerRequest| {
        let resources = asked.linux_resources.unwrap();
        assert_eq!(resources.memory.unwrap().limit.unwrap().value, 64 << 20);
        let own = update(&asked.container.unwrap().id, shares(200));
        let others = update(&of_other.lock().unwrap(), shares(300));
        Ok(nri::UpdateContainerResponse { update: vec![own, others], ..Default::default() })
    });
    let plugin = join(&daemon, "10-a", script);
    let (kubelet, config, pod) = prepared(&daemon);
    let one = kubelet.run(&pod, &kubelet.container_config("one", "sleep 600"), &config);
    let two = kubelet.run(&pod, &kubelet.container_config("two", "sleep 600"), &config);
    other.lock().unwrap().clone_from(&two);
    let resources =
        cri::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() };
    let request = cri::UpdateContainerResourcesRequest {
        container_id: one.clone(),
        linux: Some(resources),
        ..Default::default()
    };
    kubelet
        .call(|mut client| async move { client.update_container_resources(request).await })
        .unwrap();
    let (of_one, of_two) = (limits(&kubelet, &one), limits(&kubelet, &two));
    assert_eq!((of_one.memory_limit_in_bytes, of_one.cpu_shares), (64 << 20, 200));
    assert_eq!((of_two.memory_limit_in_bytes, of_two.cpu_shares), (0, 300));
    let after: nri::PostUpdateContainerRequest = plugin.of("PostUpdateContainer").remove(0);
    let told = after.container.unwrap().linux.unwrap().resources.unwrap();
    assert_eq!(told.cpu.unwrap().shares.unwrap().value, 200, "as it is");
    let request = nri::UpdateContainersRequest {
        update: vec![
            update(&one, shares(400)),
            update("nobody", shares(1)),
            nri::ContainerUpdate { ignore_failure: true, ..update("nobody", shares(1)) },
        ],
        evict: vec![nri::ContainerEviction { container_id: two.clone(), reason: "x".to_owned() }],
    };
    let failed = plugin.update(&request).unwrap().failed;
    assert_eq!(failed, [update("nobody", shares(1))]);
    assert_eq!(limits(&kubelet, &one).cpu_shares, 400);
    assert_eq!(kubelet.status(&two).state(), cri::ContainerState::ContainerExited);
    let linux = Some(cri::LinuxContainerResources { cpu_shares: 5, ..Default::default() });
    let request = cri::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod,
        overhead: None,
        resources: linux,
    };
    kubelet
        .call(|mut client| async move { client.update_pod_sandbox_resources(request).await })
        .unwrap();
    let before: nri::UpdatePodSandboxRequest = plugin.of("UpdatePodSandbox").remove(0);
    let told = before.linux_resources.unwrap().cpu.unwrap().shares.unwrap();
    assert_eq!((told.value, before.overhead_linux_resources), (5, None));
    plugin.wait_for("PostUpdatePodSandbox", 1);
}

#[test]
fn a_pod_that_a_plugin_does_not_want_is_not_there() {
    let daemon = node();
    let first = AtomicBool::new(true);
    let script = Script::new().on("RunPodSandbox", move |_: nri::RunPodSandboxRequest| match first
        .swap(false, Ordering::Relaxed)
    {
        true => Err("not today".to_owned()),
        false => Ok(nri::RunPodSandboxResponse {}),
    });
    let plugin = join(&daemon, "10-a", script);
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let said = kubelet.try_run_pod(&config).unwrap_err();
    assert_eq!(said.message(), "NRI plugin 10-a: RunPodSandbox: not today");
    assert!(kubelet.pods(cri::PodSandboxFilter::default()).is_empty());
    assert_eq!(plugin.methods(), ["RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]);
    let _ = kubelet.run_pod(&config);
}

#[test]
fn nobody_sees_a_pod_or_a_container_before_plugins_have_agreed() {
    // A plugin that waits until it is let go, each time.
    let (reached, at) = mpsc::channel();
    let (let_go, gone) = mpsc::channel::<()>();
    let (reached, gone) = (Mutex::new(reached), Arc::new(Mutex::new(gone)));
    let reached = Arc::new(reached);
    let (on_run, run_gone) = (Arc::clone(&reached), Arc::clone(&gone));
    let script = Script::new()
        .on("RunPodSandbox", move |asked: nri::RunPodSandboxRequest| {
            on_run.lock().unwrap().send(asked.pod.unwrap().id).unwrap();
            run_gone.lock().unwrap().recv().unwrap();
            Ok(nri::RunPodSandboxResponse {})
        })
        .on("CreateContainer", move |asked: nri::CreateContainerRequest| {
            reached.lock().unwrap().send(asked.container.unwrap().id).unwrap();
            gone.lock().unwrap().recv().unwrap();
            Ok(nri::CreateContainerResponse::default())
        });
    let daemon = node();
    let _plugin = join(&daemon, "10-a", script);
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let pod = std::thread::scope(|scope| {
        let running = scope.spawn(|| kubelet.run_pod(&config));
        let pod = at.recv().unwrap();
        assert!(kubelet.pods(cri::PodSandboxFilter::default()).is_empty());
        let request = cri::ListPodSandboxStatsRequest::default();
        let call =
            |mut client: Runtime| async move { client.list_pod_sandbox_stats(request).await };
        assert!(kubelet.call(call).unwrap().stats.is_empty());
        let request = cri::ListPodSandboxMetricsRequest::default();
        let call =
            |mut client: Runtime| async move { client.list_pod_sandbox_metrics(request).await };
        assert!(kubelet.call(call).unwrap().pod_metrics.is_empty());
        let state = kubelet.pod_status(&pod).state();
        assert_eq!(state, cri::PodSandboxState::SandboxNotready);
        let early = kubelet.try_create(&pod, &kubelet.container_config("early", "true"), &config);
        assert!(early.is_err(), "{early:?}");
        let_go.send(()).unwrap();
        running.join().unwrap()
    });
    let container = kubelet.container_config("one", "true");
    std::thread::scope(|scope| {
        let creating = scope.spawn(|| kubelet.try_create(&pod, &container, &config));
        let id = at.recv().unwrap();
        assert!(kubelet.containers(cri::ContainerFilter::default()).is_empty());
        assert!(kubelet.try_status(&id).is_err());
        // Who asks for the same meanwhile waits, and is told the same.
        let again = scope.spawn(|| kubelet.try_create(&pod, &container, &config));
        let_go.send(()).unwrap();
        assert_eq!(creating.join().unwrap().unwrap(), id);
        assert_eq!(again.join().unwrap().unwrap(), id);
    });
    assert_eq!(kubelet.containers(cri::ContainerFilter::default()).len(), 1);
}

#[test]
fn plugins_that_come_back_after_a_restart_are_told_what_there_is() {
    let mut daemon = node();
    let plugin = join(&daemon, "10-a", Script::new());
    let (kubelet, config, pod) = prepared(&daemon);
    let runs = kubelet.run(&pod, &kubelet.container_config("runs", "sleep 600"), &config);
    let waits = "until test -e /mnt/go; do sleep 0.05; done";
    let mut ends = kubelet.container_config("ends", waits);
    let directory = daemon.scratch().join("mnt");
    ends.mounts = vec![cri::Mount {
        host_path: directory.display().to_string(),
        container_path: "/mnt".to_owned(),
        ..cri::Mount::default()
    }];
    let ends = kubelet.run(&pod, &ends, &config);
    std::mem::forget(kubelet);
    daemon.kill();
    plugin.wait_closed();
    std::fs::write(directory.join("go"), "").unwrap();
    daemon.start_again();
    let kubelet = Kubelet::of(&daemon);
    let _ = kubelet.ended(&ends);
    let plugin = join(&daemon, "10-a", Script::new());
    let told: nri::SynchronizeRequest = plugin.of("Synchronize").remove(0);
    let pods: Vec<&str> = told.pods.iter().map(|pod| pod.id.as_str()).collect();
    assert_eq!(pods, [pod.as_str()]);
    let containers: Vec<&str> = told.containers.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(containers, [runs.as_str()]);
    assert_eq!(told.containers[0].state(), nri::ContainerState::ContainerRunning);
    kubelet.stop_pod(&pod).unwrap();
    kubelet.remove_pod(&pod).unwrap();
    let expected = [
        "StopContainer",
        "StopPodSandbox",
        "RemoveContainer",
        "RemoveContainer",
        "RemovePodSandbox",
    ];
    assert_eq!(plugin.methods(), expected);
}

#[test]
fn a_plugin_that_hangs_keeps_nobody() {
    let daemon = node_of(Settings::new(), "[nri]\nrequest-timeout = 3000\n");
    let silent = Script::new().reply("CreateContainer", |_| Reply::Silence);
    let silent = join(&daemon, "10-a", silent);
    let (kubelet, config, pod) = prepared(&daemon);
    let begun = Instant::now();
    let one = kubelet.run(&pod, &kubelet.container_config("one", "sleep 600"), &config);
    assert!(begun.elapsed() >= Duration::from_secs(3));
    silent.wait_closed();
    let log = daemon.log();
    assert!(log.contains("closing an NRI plugin") && log.contains("10-a"), "{log}");
    assert_eq!(kubelet.status(&one).state(), cri::ContainerState::ContainerRunning);
}

/// How long a plugin floods at most.
const ENOUGH: Duration = Duration::from_secs(60);

/// What is written by who never reads, until the daemon closes the connection.
fn is_closed_on(daemon: &Daemon, noise: &[u8]) {
    let mut stranger = UnixStream::connect(socket(daemon)).unwrap();
    stranger.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let _ = stranger.write_all(noise);
    // What it was answered; then the end, or a reset for what the daemon did not read.
    if let Err(error) = stranger.read_to_end(&mut Vec::new()) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
}

#[test]
fn plugins_that_talk_nonsense_die_or_flood_hurt_nobody() {
    let limits = "[nri]\nrequest-timeout = 3000\nregistration-timeout = 3000\n";
    let daemon = node_of(Settings::new(), limits);
    let mut flood = Vec::new();
    for stream in 0..20_000 {
        let (mut frame, service) = (Vec::new(), "nri.pkg.api.v1alpha1.Runtime".to_owned());
        let method = "UpdateContainers".to_owned();
        let request = ttrpc::Request { service, method, ..Default::default() };
        ttrpc::encode(&mut frame, ttrpc::Kind::Request, 2 * stream + 1, &request);
        flood.extend(2_u32.to_be_bytes());
        flood.extend(u32::try_from(frame.len()).unwrap().to_be_bytes());
        flood.extend(frame);
    }
    let huge = [0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff];
    for noise in [vec![0xff; 1 << 16], vec![0; 1 << 16], huge.to_vec(), vec![0, 0, 0], flood] {
        is_closed_on(&daemon, &noise);
    }
    let nonsense = Script::new().reply("CreateContainer", |_| Reply::Answer(vec![0xff; 64]));
    let dying = Script::new().reply("StartContainer", |_| Reply::HangUp);
    let (nonsense, dying) = (join(&daemon, "10-a", nonsense), join(&daemon, "20-b", dying));
    let busy = join(&daemon, "30-c", Script::new());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let update = update("0123456789ab", shares(512));
                let asked = nri::UpdateContainersRequest { update: vec![update], evict: vec![] };
                let begun = Instant::now();
                while !is_over.load(Ordering::Relaxed) && begun.elapsed() < ENOUGH {
                    assert_eq!(busy.update(&asked).unwrap().failed.len(), 1);
                }
            });
        }
        let (kubelet, config, pod) = prepared(&daemon);
        let one = kubelet.run(&pod, &kubelet.container_config("one", "sleep 600"), &config);
        is_over.store(true, Ordering::Relaxed);
        nonsense.wait_closed();
        dying.wait_closed();
        assert_eq!(kubelet.status(&one).state(), cri::ContainerState::ContainerRunning);
        kubelet.stop(&one, 0).unwrap();
        busy.wait_for("StopContainer", 1);
    });
}

#[test]
fn plugins_in_conflict_are_both_named_to_the_kubelet() {
    let daemon = node();
    let limit = |limit| {
        adjusts(of_linux(nri::LinuxContainerAdjustment {
            resources: Some(memory(limit)),
            ..Default::default()
        }))
    };
    let _plugins = (join(&daemon, "10-a", limit(1 << 26)), join(&daemon, "20-b", limit(1 << 27)));
    let (kubelet, config, pod) = prepared(&daemon);
    let said = kubelet.try_create(&pod, &kubelet.container_config("one", "true"), &config);
    let said = said.unwrap_err();
    assert_eq!(said.code(), tonic::Code::FailedPrecondition);
    assert!(
        said.message().starts_with("NRI plugins 10-a and 20-b both set the memory limit"),
        "{said}"
    );
}

/// Not a test: what the next one installs runs this program with this alone.
#[test]
#[ignore = "a plugin's program"]
fn program() {
    use std::os::fd::AsFd;
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let notes = PathBuf::from(std::env::var_os("NRI_NOTES").unwrap());
    let script = Script::new()
        .on("Configure", {
            let notes = notes.clone();
            move |asked: nri::ConfigureRequest| {
                std::fs::write(notes.join("config"), asked.config).unwrap();
                Ok(nri::ConfigureResponse::default())
            }
        })
        .on("RunPodSandbox", {
            let notes = notes.clone();
            move |asked: nri::RunPodSandboxRequest| {
                std::fs::write(notes.join("pod"), asked.pod.unwrap().id).unwrap();
                Ok(nri::RunPodSandboxResponse {})
            }
        })
        .on("Shutdown", move |_: nri::Empty| {
            std::fs::write(notes.join("shutdown"), "").unwrap();
            Ok(nri::Empty {})
        });
    let plugin = Plugin::over(socket, script);
    plugin.register("", "").unwrap();
    plugin.wait_closed();
}

#[test]
fn plugins_that_are_installed_come_and_go_with_the_daemon() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = |name: &str| {
        let path = scratch.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let (programs, configs, notes) =
        (directory("plugins"), directory("conf.d"), directory("notes"));
    let exe = std::env::current_exe().unwrap();
    let path = programs.join("10-mine");
    let text = format!(
        "#!/bin/sh\nexport NRI_NOTES={}\nexec {} --ignored --exact cri::nri::program <&3 3<&-\n",
        notes.display(),
        exe.display()
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(configs.join("mine.conf"), "its configuration").unwrap();
    let text = format!(
        "[nri]\nplugin-dir = {:?}\nplugin-config-dir = {:?}\ndisable-connections = true\n\
         registration-timeout = 30000\nrequest-timeout = 30000\n",
        programs, configs
    );
    let daemon = node_of(Settings::new(), &text);
    assert!(!socket(&daemon).exists());
    assert_eq!(std::fs::read_to_string(notes.join("config")).unwrap(), "its configuration");
    let kubelet = Kubelet::of(&daemon);
    let pod = kubelet.run_pod(&kubelet.pod_config("web"));
    assert_eq!(std::fs::read_to_string(notes.join("pod")).unwrap(), pod);
    drop(kubelet);
    drop(daemon);
    assert!(notes.join("shutdown").exists());
}

#[test]
fn without_plugins_there_is_no_socket_and_nothing_else_changes() {
    let daemon = node_of(Settings::new(), "[nri]\ndisable = true\n");
    assert!(!socket(&daemon).exists());
    let (kubelet, config, pod) = prepared(&daemon);
    let _ = kubelet.run(&pod, &kubelet.container_config("one", "sleep 600"), &config);
}
