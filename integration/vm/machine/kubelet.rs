//! A kubelet that uses systemd's driver: its pods are slices, and their containers scopes.

use std::fs;
use std::path::PathBuf;

use bosun_proto::cri;
use integration::daemon::{Daemon, Settings};
use integration::kubelet::{Kubelet, node_of};
use integration::process::Process;
use integration::wait;
use rustix::process::Signal;

use crate::support::{property_of, systemctl};

fn node() -> Daemon {
    node_of(Settings::new(), "cgroup-driver = \"systemd\"\n")
}

/// A pod in a slice of this name, as a kubelet names it: by the whole path.
fn slice(config: &mut cri::PodSandboxConfig, name: &str) -> PathBuf {
    let parent = format!("/bosunkube.slice/bosunkube-{name}.slice");
    config.linux.as_mut().unwrap().cgroup_parent = parent.clone();
    PathBuf::from(format!("/sys/fs/cgroup{parent}"))
}

fn unit(id: &str) -> String {
    format!("bosun-{id}.scope")
}

/// Process 1 of a container.
fn process(kubelet: &Kubelet, id: &str) -> Process {
    let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
    let answer = kubelet.call(|mut client| async move { client.container_status(request).await });
    let info = answer.unwrap().info["info"].clone();
    let (_, rest) = info.split_once("\"pid\":").unwrap();
    Process(rest.split(|letter: char| !letter.is_ascii_digit()).next().unwrap().parse().unwrap())
}

fn property(id: &str, property: &str) -> String {
    property_of(&unit(id), property)
}

#[track_caller]
fn assert_forgotten(id: &str) {
    wait::until_true("that systemd knows of nothing", || property(id, "LoadState") == "not-found");
}

fn resources(memory: i64) -> cri::LinuxContainerResources {
    cri::LinuxContainerResources {
        memory_limit_in_bytes: memory,
        cpu_period: 100_000,
        cpu_quota: 50_000,
        ..cri::LinuxContainerResources::default()
    }
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn a_container_of_a_pod_is_a_scope_in_the_pod_s_slice() {
    let mut daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let request = cri::RuntimeConfigRequest {};
    let driver = kubelet.call(|mut client| async move { client.runtime_config(request).await });
    assert_eq!(driver.unwrap().linux.unwrap().cgroup_driver(), cri::CgroupDriver::Systemd);
    let mut config = kubelet.pod_config("web");
    let slice = slice(&mut config, "one");
    let pod = kubelet.run_pod(&config);
    let mut container = kubelet.container_config("one", "sleep 600");
    container.linux.as_mut().unwrap().resources = Some(resources(64 << 20));
    let id = kubelet.run(&pod, &container, &config);
    for (name, value) in [
        ("ActiveState", "active"),
        ("Slice", "bosunkube-one.slice"),
        ("Delegate", "yes"),
        ("MemoryMax", "67108864"),
        ("CPUQuotaPerSecUSec", "500ms"),
    ] {
        assert_eq!(property(&id, name), value, "{name}");
    }
    let group = slice.join(unit(&id));
    let file = |name: &str| fs::read_to_string(group.join(name)).unwrap().trim().to_owned();
    let process = process(&kubelet, &id);
    assert_eq!(file("cgroup.procs"), process.0.to_string(), "the container alone is in it");
    let own = kubelet.exec_text(&id, "cat /proc/1/cgroup");
    assert_eq!(own, "0::/", "it sees its group as the root");
    let request = cri::UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(resources(80 << 20)),
        ..cri::UpdateContainerResourcesRequest::default()
    };
    kubelet
        .call(|mut client| async move { client.update_container_resources(request).await })
        .unwrap();
    // It writes all that it knows of again.
    systemctl("daemon-reload");
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!((file("memory.max"), file("cpu.max")), ("83886080".into(), "50000 100000".into()));
    assert_eq!(property(&id, "MemoryMax"), "83886080");
    let request = cri::PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
    let stats = kubelet.call(|mut client| async move { client.pod_sandbox_stats(request).await });
    let stats = stats.unwrap().stats.unwrap().linux.unwrap();
    let of_container = stats.containers[0].clone();
    for psi in [
        stats.cpu.unwrap().psi,
        stats.io.unwrap().psi,
        of_container.memory.unwrap().psi,
        of_container.io.unwrap().psi,
    ] {
        assert!(psi.is_some_and(|psi| psi.some.is_some() && psi.full.is_some()));
    }
    // All of it outlives the daemon.
    std::mem::forget(kubelet);
    daemon.kill();
    daemon.start_again();
    let kubelet = Kubelet::of(&daemon);
    assert_eq!(property(&id, "ActiveState"), "active");
    kubelet.stop(&id, 0).unwrap();
    assert_forgotten(&id);
    assert!(!group.exists());
    kubelet.remove_pod(&pod).unwrap();
    systemctl("stop bosunkube.slice");
}

/// systemd removes a scope as soon as it is empty, with what the kernel has counted in it: here always
/// before the shim looks.
#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn want_of_memory_is_told_of_a_scope_that_has_gone() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    let slice = slice(&mut config, "three");
    let pod = kubelet.run_pod(&config);
    let ends_unseen = |name: &str, script: &str, end: &dyn Fn(Process)| {
        let mut container = kubelet.container_config(name, script);
        container.linux.as_mut().unwrap().resources = Some(resources(16 << 20));
        let id = kubelet.run(&pod, &container, &config);
        let process = process(&kubelet, &id);
        let shim = process.parent().unwrap();
        shim.signal(Signal::STOP);
        end(process);
        let group = slice.join(unit(&id));
        wait::until_true("the end of the group", || !group.exists());
        shim.signal(Signal::CONT);
        let status = kubelet.ended(&id);
        assert_forgotten(&id);
        (status.exit_code, status.reason)
    };
    let killed = ends_unseen("killed", "sleep 600", &|process| process.kill());
    assert_eq!(killed, (137, "Error".to_owned()));
    let large = "sleep 1; exec tail -c 100m /dev/zero";
    assert_eq!(ends_unseen("large", large, &|_| {}), (137, "OOMKilled".to_owned()));
    // Of what was counted for another one nothing is said of the next.
    let killed = ends_unseen("next", "sleep 600", &|process| process.kill());
    assert_eq!(killed, (137, "Error".to_owned()));
    kubelet.remove_pod(&pod).unwrap();
    systemctl("stop bosunkube.slice");
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn a_scope_goes_however_its_container_ends() {
    let mut daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    let slice = slice(&mut config, "two");
    let linux = config.linux.as_mut().unwrap();
    let context = linux.security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap().set_pid(cri::NamespaceMode::Pod);
    let pod = kubelet.run_pod(&config);
    // Its processes are shared, so it has a first one, whose group is a scope as well.
    assert_eq!(property(&pod, "Slice"), "bosunkube-two.slice");
    let id = kubelet.run(&pod, &kubelet.container_config("ended", "exit 3"), &config);
    assert_eq!(kubelet.ended(&id).exit_code, 3);
    assert_forgotten(&id);
    let mut bad = kubelet.container_config("bad", "true");
    bad.command = vec!["/no/such/program".to_owned()];
    let id = kubelet.try_create(&pod, &bad, &config).unwrap();
    kubelet.start(&id).unwrap_err();
    assert_forgotten(&id);
    // What the kernel kills for want of memory leaves a unit that has failed.
    let mut large = kubelet.container_config("large", "exec tail -c 100m /dev/zero");
    large.linux.as_mut().unwrap().resources = Some(resources(16 << 20));
    let id = kubelet.run(&pod, &large, &config);
    assert_eq!(kubelet.ended(&id).reason, "OOMKilled");
    assert_forgotten(&id);
    // One that ends while nobody supervises.
    let script = "sleep 3; exit 4";
    let id = kubelet.run(&pod, &kubelet.container_config("late", script), &config);
    std::mem::forget(kubelet);
    daemon.kill();
    let group = slice.join(unit(&id)).join("cgroup.procs");
    wait::until_true("its end", || {
        fs::read_to_string(&group).is_ok_and(|text| text.is_empty()) || !group.exists()
    });
    daemon.start_again();
    let kubelet = Kubelet::of(&daemon);
    assert_eq!(kubelet.ended(&id).exit_code, 4);
    assert_forgotten(&id);
    // One whose shim is lost.
    let id = kubelet.run(&pod, &kubelet.container_config("lost", "sleep 600"), &config);
    process(&kubelet, &id).parent().unwrap().kill();
    let _ = kubelet.ended(&id);
    assert_forgotten(&id);
    kubelet.remove_pod(&pod).unwrap();
    assert_forgotten(&pod);
    assert!(fs::read_dir(&slice).is_ok_and(|entries| {
        entries.flatten().all(|entry| !entry.file_type().is_ok_and(|kind| kind.is_dir()))
    }));
    systemctl("stop bosunkube.slice");
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn a_parent_of_the_other_driver_is_refused_by_name() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    for (parent, word) in [("/kubepods/burstable/pod1", "no slice"), ("/a--b.slice", "a--b.slice")]
    {
        config.linux.as_mut().unwrap().cgroup_parent = parent.to_owned();
        let refused = kubelet.try_run_pod(&config).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(word), "{refused}");
    }
    assert!(kubelet.pods(cri::PodSandboxFilter::default()).is_empty());
}
