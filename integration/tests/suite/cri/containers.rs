//! Containers.

use bosun_proto::cri;
use integration::kubelet::{IMAGE, Kubelet, node};
use integration::wait;
use std::os::unix::fs::PermissionsExt;

use super::prepared;

#[test]
fn a_container_is_created_started_stopped_and_removed() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let mut container =
        kubelet.container_config("one", "trap 'exit 7' TERM; while :; do sleep 0.05; done");
    container.annotations = [("note".to_owned(), "x".to_owned())].into();
    let id = kubelet.try_create(&pod, &container, &config).unwrap();
    let status = kubelet.status(&id);
    assert_eq!(status.state(), cri::ContainerState::ContainerCreated);
    assert_eq!(status.metadata, container.metadata);
    assert_eq!((status.labels, status.annotations), (container.labels, container.annotations));
    assert_eq!((status.started_at, status.finished_at), (0, 0));
    assert_eq!(status.image.unwrap().image, IMAGE);
    assert!(status.image_id.starts_with("sha256:"), "{}", status.image_id);
    assert!(status.image_ref.contains("/busybox@sha256:"), "{}", status.image_ref);
    assert_eq!(status.log_path, format!("{}/one/0.log", config.log_directory));
    kubelet.start(&id).unwrap();
    let status = kubelet.status(&id);
    assert_eq!(status.state(), cri::ContainerState::ContainerRunning);
    assert!(status.started_at >= status.created_at && status.finished_at == 0);
    assert!(kubelet.start(&id).is_err(), "a second time");
    wait::until_true("the trap", || kubelet.exec(&id, "test -e /proc/1/stat", 0).is_ok());
    kubelet.stop(&id, 10).unwrap();
    let status = kubelet.status(&id);
    assert_eq!(status.state(), cri::ContainerState::ContainerExited);
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    assert!(status.finished_at >= status.started_at);
    kubelet.stop(&id, 10).unwrap();
    kubelet.remove(&id).unwrap();
    kubelet.remove(&id).unwrap();
    kubelet.stop(&id, 10).unwrap();
    assert_eq!(kubelet.try_status(&id).unwrap_err().code(), tonic::Code::NotFound);
}

/// Its kubelet lost the answers: whoever asks while it is being made waits for it.
#[test]
fn the_same_one_asked_for_many_times_at_once_is_one() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let container = kubelet.container_config("one", "true");
    let ids: Vec<String> = std::thread::scope(|scope| {
        let create = || kubelet.try_create(&pod, &container, &config).unwrap();
        let asking: Vec<_> = (0..20).map(|_| scope.spawn(create)).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let other = kubelet.container_config("one", "false");
    let refused = kubelet.try_create(&pod, &other, &config).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::AlreadyExists);
}

#[test]
fn ends_are_told_apart() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let end = |name: &str, script: &str| {
        let id = kubelet.run(&pod, &kubelet.container_config(name, script), &config);
        let status = kubelet.ended(&id);
        (status.exit_code, status.reason)
    };
    assert_eq!(end("good", "exit 0"), (0, "Completed".to_owned()));
    assert_eq!(end("bad", "exit 42"), (42, "Error".to_owned()));
    let deaf = kubelet.container_config("deaf", "trap '' TERM; while :; do sleep 0.05; done");
    let id = kubelet.run(&pod, &deaf, &config);
    wait::until_true("the trap", || {
        let ignored = kubelet.exec_text(&id, "grep SigIgn /proc/1/status | cut -f2");
        u64::from_str_radix(&ignored, 16).unwrap() & (1 << 14) != 0
    });
    kubelet.stop(&id, 1).unwrap();
    let status = kubelet.status(&id);
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    let mut missing = kubelet.container_config("missing", "");
    missing.command = vec!["/nowhere".to_owned()];
    let id = kubelet.try_create(&pod, &missing, &config).unwrap();
    let refused = kubelet.start(&id).unwrap_err();
    assert!(refused.message().contains("/nowhere"), "{refused}");
    let status = kubelet.status(&id);
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
    assert_eq!(status.state(), cri::ContainerState::ContainerExited);
    assert!(status.message.contains("/nowhere"));
}

#[test]
fn want_of_memory_is_told_as_such() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let mut greedy = kubelet.container_config("greedy", "exec tail /dev/zero");
    greedy.linux.as_mut().unwrap().resources = Some(cri::LinuxContainerResources {
        memory_limit_in_bytes: 15 << 20,
        ..cri::LinuxContainerResources::default()
    });
    let id = kubelet.run(&pod, &greedy, &config);
    let status = kubelet.ended(&id);
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    let resources = status.resources.unwrap().linux.unwrap();
    assert_eq!(resources.memory_limit_in_bytes, 15 << 20);
}

#[test]
fn output_is_logged_as_the_kubelet_reads_it_and_goes_on_in_a_new_file() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let script =
        "echo out; echo err >&2; until test -e /go; do sleep 0.05; done; echo more; exec sleep 600";
    let id = kubelet.run(&pod, &kubelet.container_config("one", script), &config);
    wait::until_true("both lines", || kubelet.log(&id).lines().count() == 2);
    let log = kubelet.log(&id);
    assert!(log.contains(" stdout F out\n") && log.contains(" stderr F err\n"), "{log}");
    let path = kubelet.status(&id).log_path;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    std::fs::rename(&path, format!("{path}.1")).unwrap();
    let request = cri::ReopenContainerLogRequest { container_id: id.clone() };
    kubelet.call(|mut client| async move { client.reopen_container_log(request).await }).unwrap();
    let _ = kubelet.exec_text(&id, "touch /go");
    wait::until_true("the new file", || kubelet.said(&id) == "more\n");
    kubelet.stop(&id, 0).unwrap();
    let request = cri::ReopenContainerLogRequest { container_id: id };
    let refused =
        kubelet.call(|mut client| async move { client.reopen_container_log(request).await });
    assert!(refused.is_err(), "nobody writes");
}

#[test]
fn containers_are_found_by_id_pod_state_and_labels() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let one = kubelet.run(&pod, &kubelet.container_config("one", "sleep 600"), &config);
    let two = kubelet.try_create(&pod, &kubelet.container_config("two", "true"), &config).unwrap();
    let ids = |filter: cri::ContainerFilter| -> Vec<String> {
        kubelet.containers(filter).into_iter().map(|one| one.id).collect()
    };
    let none = cri::ContainerFilter::default();
    assert_eq!(ids(none.clone()).len(), 2);
    assert_eq!(
        ids(cri::ContainerFilter { id: two[..10].to_owned(), ..none.clone() }),
        std::slice::from_ref(&two)
    );
    let state = cri::ContainerState::ContainerRunning.into();
    let state = Some(cri::ContainerStateValue { state });
    assert_eq!(ids(cri::ContainerFilter { state, ..none.clone() }), std::slice::from_ref(&one));
    let label_selector = [("container".to_owned(), "two".to_owned())].into();
    assert_eq!(ids(cri::ContainerFilter { label_selector, ..none.clone() }), [two]);
    assert_eq!(ids(cri::ContainerFilter { pod_sandbox_id: pod, ..none.clone() }).len(), 2);
    let pod_sandbox_id = "0123".to_owned();
    assert!(ids(cri::ContainerFilter { pod_sandbox_id, ..none }).is_empty());
    let request = cri::StreamContainersRequest::default();
    let streamed = kubelet.api().wait(async {
        let mut client = kubelet.runtime();
        let mut stream = client.stream_containers(request).await.unwrap().into_inner();
        let mut count = 0;
        while let Some(piece) = stream.message().await.unwrap() {
            count += piece.containers.len();
        }
        count
    });
    assert_eq!(streamed, 2);
}

#[test]
fn removing_a_pod_takes_its_running_containers_along() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let id = kubelet.run(&pod, &kubelet.container_config("one", "sleep 600"), &config);
    kubelet.stop_pod(&pod).unwrap();
    assert_eq!(kubelet.status(&id).state(), cri::ContainerState::ContainerExited);
    kubelet.remove_pod(&pod).unwrap();
    assert!(kubelet.containers(cri::ContainerFilter::default()).is_empty());
}

#[test]
fn a_container_asked_for_again_is_the_same_until_it_was_started() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let container = kubelet.container_config("one", "sleep 600");
    let id = kubelet.try_create(&pod, &container, &config).unwrap();
    assert_eq!(kubelet.try_create(&pod, &container, &config).unwrap(), id);
    kubelet.start(&id).unwrap();
    let refused = kubelet.try_create(&pod, &container, &config).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::AlreadyExists, "{refused}");
}

#[test]
fn limits_change_while_it_runs() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let id = kubelet.run(&pod, &kubelet.container_config("one", "sleep 600"), &config);
    let resources = cri::LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        cpu_shares: 100,
        ..cri::LinuxContainerResources::default()
    };
    let request = cri::UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(resources),
        ..cri::UpdateContainerResourcesRequest::default()
    };
    kubelet
        .call(|mut client| async move { client.update_container_resources(request).await })
        .unwrap();
    let shown = kubelet.status(&id).resources.unwrap().linux.unwrap();
    assert_eq!((shown.memory_limit_in_bytes, shown.cpu_shares), (64 << 20, 100));
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null || true";
    assert_eq!(kubelet.exec_text(&id, script), (64 << 20).to_string());
}

#[test]
fn the_oom_score_changes_for_all_that_did_not_choose_another() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let script = "sleep 600 & (echo 700 > /proc/self/oom_score_adj; exec sleep 700) & wait";
    let mut container = kubelet.container_config("one", script);
    let with_score = |score| cri::LinuxContainerResources {
        oom_score_adj: score,
        ..cri::LinuxContainerResources::default()
    };
    container.linux.as_mut().unwrap().resources = Some(with_score(500));
    let id = kubelet.run(&pod, &container, &config);
    let scores = || {
        let script = "for p in 1 $(pidof sleep); do echo $(cat /proc/$p/oom_score_adj); done";
        let mut scores: Vec<String> =
            kubelet.exec_text(&id, script).lines().map(str::to_owned).collect();
        scores.sort();
        scores
    };
    wait::until_true("the other score", || scores() == ["500", "500", "700"]);
    let update = |resources| {
        let request = cri::UpdateContainerResourcesRequest {
            container_id: id.clone(),
            linux: Some(resources),
            ..cri::UpdateContainerResourcesRequest::default()
        };
        kubelet.call(|mut client| async move { client.update_container_resources(request).await })
    };
    update(with_score(600)).unwrap();
    assert_eq!(scores(), ["600", "600", "700"]);
    let shown = || kubelet.status(&id).resources.unwrap().linux.unwrap().oom_score_adj;
    assert_eq!(shown(), 600);
    // As the CPU manager says nothing of it.
    update(cri::LinuxContainerResources { cpu_shares: 100, ..with_score(0) }).unwrap();
    assert_eq!((scores()[0].as_str(), shown()), ("600", 600));
    let refused = update(with_score(1001)).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    assert_eq!(shown(), 600);
}

#[test]
fn agents_of_a_node_see_its_sys() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let script = "ls /sys/class/net | grep -c . > /dev/null; cat /sys/fs/bpf/file; \
        grep -c ' /sys/fs/bpf ' /proc/self/mounts; ls /host/sys/class/net";
    let mut container = kubelet.container_config("one", script);
    let shared = daemon.scratch().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("file"), "of the host\n").unwrap();
    let mount = |host: &str, inside: &str| cri::Mount {
        host_path: host.to_owned(),
        container_path: inside.to_owned(),
        readonly: true,
        ..cri::Mount::default()
    };
    container.mounts =
        vec![mount(shared.to_str().unwrap(), "/sys/fs/bpf"), mount("/sys", "/host/sys")];
    let said = kubelet.output(&pod, &container, &config);
    assert!(said.starts_with("of the host\n1\n"), "{said}");
    container.metadata.as_mut().unwrap().name = "two".to_owned();
    container.log_path = "two/0.log".to_owned();
    container.mounts = vec![mount("/sys", "/sys")];
    container.command = ["/bin/sh", "-c", "ls -d /sys/kernel"].map(str::to_owned).to_vec();
    assert_eq!(kubelet.output(&pod, &container, &config), "/sys/kernel\n");
    container.metadata.as_mut().unwrap().name = "three".to_owned();
    container.mounts = vec![mount(shared.to_str().unwrap(), "/proc/sys")];
    let refused = kubelet.try_create(&pod, &container, &config).unwrap_err();
    assert!(refused.message().contains("kernel's own controls"), "{refused}");
}

#[test]
fn directories_of_the_host_are_mounted_as_asked_for() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let shared = daemon.scratch().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::os::unix::fs::symlink(&shared, daemon.scratch().join("link")).unwrap();
    let mount = |host: &str, inside: &str, readonly| cri::Mount {
        host_path: daemon.scratch().join(host).display().to_string(),
        container_path: inside.to_owned(),
        readonly,
        ..cri::Mount::default()
    };
    let script = "echo x > /rw/file; cat /link/file; (echo y > /ro/file) 2>/dev/null || echo refused; ls -d /made";
    let mut container = kubelet.container_config("one", script);
    container.mounts = vec![
        mount("shared", "/rw", false),
        mount("shared", "/ro", true),
        mount("link", "/link", false),
        mount("made/by/it", "/made", false),
    ];
    let id = kubelet.run(&pod, &container, &config);
    let status = kubelet.ended(&id);
    assert_eq!(status.mounts, container.mounts);
    let said = kubelet.said(&id);
    assert!(said.starts_with("x\n") && said.contains("refused\n/made\n"), "{said}");
    assert!(daemon.scratch().join("made/by/it").is_dir());
    // Who is not root in the container, or reads logs, gets through all that was made.
    let log = std::path::PathBuf::from(status.log_path);
    let made = ["made", "made/by", "made/by/it"].map(|name| daemon.scratch().join(name));
    let logs = log.ancestors().skip(1).take(2).map(std::path::Path::to_owned);
    for directory in made.into_iter().chain(logs) {
        let mode = std::fs::metadata(&directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "{}", directory.display());
    }
}

#[test]
fn a_terminal_that_nobody_types_at_is_one_all_the_same() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let mut container = kubelet.container_config("one", "exec cat");
    container.tty = true;
    let id = kubelet.run(&pod, &container, &config);
    wait::until_true("its program", || kubelet.exec_text(&id, "cat /proc/1/comm") == "cat");
    let script = "for fd in 0 1 2; do readlink /proc/1/fd/$fd; done";
    assert_eq!(kubelet.exec_text(&id, script), "/dev/pts/0\n/dev/pts/0\n/dev/pts/0");
    assert_eq!(kubelet.status(&id).state(), cri::ContainerState::ContainerRunning);
}

fn update(
    kubelet: &Kubelet,
    id: &str,
    resources: cri::LinuxContainerResources,
) -> Result<cri::UpdateContainerResourcesResponse, tonic::Status> {
    let request = cri::UpdateContainerResourcesRequest {
        container_id: id.to_owned(),
        linux: Some(resources),
        ..cri::UpdateContainerResourcesRequest::default()
    };
    kubelet.call(|mut client| async move { client.update_container_resources(request).await })
}

#[test]
fn a_container_runs_in_as_little_memory_as_it_needs() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let with_memory = |limit| cri::LinuxContainerResources {
        memory_limit_in_bytes: limit,
        ..cri::LinuxContainerResources::default()
    };
    let mut container = kubelet.container_config("one", "exec sleep 600");
    container.linux.as_mut().unwrap().resources = Some(with_memory(4 << 20));
    let id = kubelet.run(&pod, &container, &config);
    wait::until_true("its program", || kubelet.exec_text(&id, "cat /proc/1/comm") == "sleep");
    update(&kubelet, &id, with_memory(5 << 20)).unwrap();
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null || true";
    assert_eq!(kubelet.exec_text(&id, script), (5 << 20).to_string());
    // docker's minimum is that of the own interface.
    let words = format!("--namespace k8s.io update -m 4m {id}");
    daemon.ctl(&words).fails(1, &["6 MiB"]);
    let refused = update(&kubelet, &id, with_memory(100)).unwrap_err();
    assert!(refused.message().contains("memory.limit: 100"), "{refused}");
    // One in which nothing starts says so.
    container.metadata.as_mut().unwrap().name = "two".to_owned();
    container.linux.as_mut().unwrap().resources = Some(with_memory(4096));
    let id = kubelet.try_create(&pod, &container, &config).unwrap();
    let refused = kubelet.start(&id).unwrap_err();
    let said = "linux.resources.memory.limit: 4096: too little memory to start in: ";
    assert!(refused.message().contains(said), "{refused}");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    let status = kubelet.status(&id);
    assert_eq!(status.reason, "StartError");
    assert!(status.message.contains(said), "{}", status.message);
}

#[test]
fn no_huge_pages_are_asked_for_of_every_size() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let with = |limits: &[(&str, u64)]| cri::LinuxContainerResources {
        hugepage_limits: limits
            .iter()
            .map(|(size, limit)| cri::HugepageLimit {
                page_size: (*size).to_owned(),
                limit: *limit,
            })
            .collect(),
        ..cri::LinuxContainerResources::default()
    };
    let none = with(&[("64KB", 0), ("2MB", 0), ("32MB", 0), ("1GB", 0)]);
    let mut container = kubelet.container_config("one", "exec sleep 600");
    container.linux.as_mut().unwrap().resources = Some(none.clone());
    let id = kubelet.run(&pod, &container, &config);
    update(&kubelet, &id, none).unwrap();
    let refused = update(&kubelet, &id, with(&[("32MB", 32 << 20)])).unwrap_err();
    assert!(refused.message().contains("hugetlb"), "{refused}");
    container.metadata.as_mut().unwrap().name = "two".to_owned();
    container.linux.as_mut().unwrap().resources = Some(with(&[("32MB", 32 << 20)]));
    let id = kubelet.try_create(&pod, &container, &config).unwrap();
    let refused = kubelet.start(&id).unwrap_err();
    assert!(refused.message().contains("hugetlb"), "{refused}");
}

#[test]
fn files_of_the_unified_hierarchy_are_written_or_refused_by_name() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let at = |path: &str| std::fs::read_to_string(format!("{path}/cgroup.controllers"));
    let (place, controllers) = match at("/sys/fs/cgroup") {
        Ok(all) => ("/sys/fs/cgroup", all),
        // Beside v1, with the controllers that v1 does not have, or not at all.
        Err(_) => ("/sys/fs/cgroup/unified", at("/sys/fs/cgroup/unified").unwrap_or_default()),
    };
    let with = |file: &str, value: u64| cri::LinuxContainerResources {
        unified: [(file.to_owned(), value.to_string())].into(),
        ..cri::LinuxContainerResources::default()
    };
    let plain = kubelet.run(&pod, &kubelet.container_config("plain", "exec sleep 600"), &config);
    for (file, value, other) in [
        ("memory.high", 64 << 20, 32 << 20),
        ("pids.max", 77, 78),
        ("hugetlb.2MB.max", 4 << 20, 2 << 20),
    ] {
        let controller = file.split('.').next().unwrap();
        let name = format!("of-{controller}");
        let mut container = kubelet.container_config(&name, "exec sleep 600");
        container.linux.as_mut().unwrap().resources = Some(with(file, value));
        let id = kubelet.try_create(&pod, &container, &config).unwrap();
        if controllers.split_whitespace().any(|known| known == controller) {
            kubelet.start(&id).unwrap();
            let written = || kubelet.exec_text(&id, &format!("cat {place}/{file}"));
            assert_eq!(written(), value.to_string(), "{file}");
            update(&kubelet, &id, with(file, other)).unwrap();
            assert_eq!(written(), other.to_string(), "{file}");
            let shown = kubelet.status(&id).resources.unwrap().linux.unwrap();
            assert_eq!(shown.unified, with(file, other).unified);
        } else {
            let name = format!("unified[{file:?}]");
            let refused = kubelet.start(&id).unwrap_err();
            assert!(refused.message().contains(&name), "{refused}");
            let refused = update(&kubelet, &plain, with(file, other)).unwrap_err();
            assert!(refused.message().contains(&name), "{refused}");
        }
    }
}

#[test]
fn a_long_line_is_logged_in_parts_each_with_its_time() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let script = "head -c 20000 /dev/zero | tr '\\0' x; echo; printf open";
    let id = kubelet.run(&pod, &kubelet.container_config("one", script), &config);
    let _ = kubelet.ended(&id);
    let log = kubelet.log(&id);
    let lines: Vec<Vec<&str>> = log.lines().map(|line| line.splitn(4, ' ').collect()).collect();
    let parts: Vec<(&str, usize)> = lines.iter().map(|line| (line[2], line[3].len())).collect();
    assert_eq!(parts[..2], [("P", 16_384), ("F", 20_000 - 16_384)]);
    assert_eq!(lines[2][3], "open");
    for line in &lines {
        // As Go's RFC3339Nano, with all nine digits.
        assert_eq!((line[0].len(), &line[0][19..20], &line[0][29..]), (30, ".", "Z"), "{line:?}");
        assert_eq!(line[1], "stdout");
    }
}
