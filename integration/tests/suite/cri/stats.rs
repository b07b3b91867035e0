//! Figures.

use std::collections::HashMap;

use bosun_proto::cri;
use integration::kubelet::{IMAGE, Kubelet, node};
use integration::wait;

#[test]
fn containers_and_pods_say_what_they_use() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let busy = kubelet.container_config(
        "busy",
        "dd if=/dev/zero of=/file bs=1000 count=2000; while :; do :; done",
    );
    let id = kubelet.run(&pod, &busy, &config);
    let idle =
        kubelet.try_create(&pod, &kubelet.container_config("idle", "true"), &config).unwrap();
    let stats = |id: &str| {
        let request = cri::ContainerStatsRequest { container_id: id.to_owned() };
        let call = kubelet.call(|mut client| async move { client.container_stats(request).await });
        call.unwrap().stats.unwrap()
    };
    wait::until_true("some work", || {
        let stats = stats(&id);
        stats.writable_layer.unwrap().used_bytes.unwrap().value > 2_000_000
            && stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 50_000_000
    });
    let seen = stats(&id);
    assert_eq!(seen.attributes.as_ref().unwrap().id, id);
    assert_eq!(seen.attributes.unwrap().labels, busy.labels);
    let memory = seen.memory.unwrap();
    assert!(memory.working_set_bytes.unwrap().value > 0 && memory.usage_bytes.unwrap().value > 0);
    assert_eq!(memory.available_bytes, None, "it has no limit");
    let before = seen.cpu.unwrap().usage_core_nano_seconds.unwrap().value;
    wait::until_true("more work", || {
        let again = stats(&id).cpu.unwrap();
        again.usage_core_nano_seconds.unwrap().value > before
            && again.usage_nano_cores.is_some_and(|rate| rate.value > 0)
    });
    assert!(stats(&idle).cpu.is_none(), "it does not run");
    let list = |filter: cri::ContainerStatsFilter| {
        let request = cri::ListContainerStatsRequest { filter: Some(filter) };
        let call =
            kubelet.call(|mut client| async move { client.list_container_stats(request).await });
        call.unwrap().stats.len()
    };
    assert_eq!(list(cri::ContainerStatsFilter::default()), 1);
    let label_selector = [("container".to_owned(), "other".to_owned())].into();
    assert_eq!(list(cri::ContainerStatsFilter { label_selector, ..Default::default() }), 0);
    let request = cri::PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
    let call = kubelet.call(|mut client| async move { client.pod_sandbox_stats(request).await });
    let stats = call.unwrap().stats.unwrap();
    assert_eq!(stats.attributes.unwrap().metadata, config.metadata);
    let linux = stats.linux.unwrap();
    assert!(linux.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    assert_eq!(
        (linux.containers.len(), linux.process.unwrap().process_count.unwrap().value),
        (1, 1)
    );
    assert_eq!(linux.network.unwrap().default_interface.unwrap().name, "eth0");
    let request = cri::ListPodSandboxStatsRequest::default();
    let call =
        kubelet.call(|mut client| async move { client.list_pod_sandbox_stats(request).await });
    assert_eq!(call.unwrap().stats.len(), 1);
    kubelet.api().wait(async {
        let mut client = kubelet.runtime();
        let request = cri::StreamPodSandboxStatsRequest::default();
        let mut stream = client.stream_pod_sandbox_stats(request).await.unwrap().into_inner();
        assert_eq!(stream.message().await.unwrap().unwrap().pod_sandbox_stats.len(), 1);
        let request = cri::StreamContainerStatsRequest::default();
        let mut stream = client.stream_container_stats(request).await.unwrap().into_inner();
        assert_eq!(stream.message().await.unwrap().unwrap().container_stats.len(), 1);
    });
}

#[test]
fn metrics_have_the_names_and_labels_of_cadvisor() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let id = kubelet.run(&pod, &kubelet.container_config("one", "sleep 600"), &config);
    let request = cri::ListMetricDescriptorsRequest {};
    let call =
        kubelet.call(|mut client| async move { client.list_metric_descriptors(request).await });
    let described: HashMap<String, Vec<String>> = call
        .unwrap()
        .descriptors
        .into_iter()
        .map(|descriptor| (descriptor.name, descriptor.label_keys))
        .collect();
    let request = cri::ListPodSandboxMetricsRequest {};
    let call =
        kubelet.call(|mut client| async move { client.list_pod_sandbox_metrics(request).await });
    let listed = call.unwrap().pod_metrics;
    assert_eq!((listed.len(), listed[0].pod_sandbox_id.as_str()), (1, pod.as_str()));
    let container = &listed[0].container_metrics[0];
    assert_eq!(container.container_id, id);
    let labels = |metric: &cri::Metric| -> HashMap<&str, String> {
        let keys = &described[&metric.name];
        assert_eq!(keys.len(), metric.label_values.len(), "{metric:?}");
        keys.iter().map(String::as_str).zip(metric.label_values.iter().cloned()).collect()
    };
    let common = |metric: &cri::Metric, own: &str, image: &str, container: &str| {
        let labels = labels(metric);
        // The path of a control group, whose last part tells it from the others.
        assert!(labels["id"].starts_with('/') && labels["id"].ends_with(own), "{metric:?}");
        assert_eq!((labels["name"].as_str(), labels["image"].as_str()), (own, image));
        assert_eq!(labels["container"], container);
        assert_eq!((labels["pod"].as_str(), labels["namespace"].as_str()), ("web", "default"));
        assert_eq!(metric.timestamp, 0, "read as it was asked for: {metric:?}");
    };
    assert!(!listed[0].metrics.is_empty());
    listed[0].metrics.iter().for_each(|metric| common(metric, &pod, "", ""));
    container.metrics.iter().for_each(|metric| common(metric, &id, IMAGE, "one"));
    let value = |name: &str| {
        let found = container.metrics.iter().find(|metric| metric.name == name);
        found.unwrap_or_else(|| panic!("{name}")).value.unwrap().value
    };
    let of = |name: &str, label: &str| -> Vec<(String, u64)> {
        let all = container.metrics.iter().filter(|metric| metric.name == name);
        all.map(|metric| (labels(metric)[label].clone(), metric.value.unwrap().value)).collect()
    };
    let states = of("container_tasks_state", "state");
    let named: Vec<&str> = states.iter().map(|(state, _)| state.as_str()).collect();
    assert_eq!(named, ["sleeping", "running", "stopped", "uninterruptible", "iowaiting"]);
    assert_eq!(states.iter().map(|(_, count)| count).sum::<u64>(), 1, "{states:?}");
    assert_eq!(of("container_cpu_usage_seconds_total", "cpu")[0].0, "total");
    assert_eq!(of("container_memory_failures_total", "scope").len(), 4);
    assert!(!of("container_fs_usage_bytes", "device")[0].0.is_empty());
    let files = ["active", "inactive"]
        .map(|kind| value(&format!("container_memory_total_{kind}_file_bytes")));
    assert!(files.iter().sum::<u64>() <= value("container_memory_usage_bytes"), "{files:?}");
    assert_eq!((value("container_processes"), value("container_threads")), (1, 1));
    assert!(value("container_memory_usage_bytes") > 0 && value("container_file_descriptors") >= 3);
    assert!(
        listed[0].metrics.iter().any(|metric| metric.label_values.contains(&"eth0".to_owned()))
    );
    kubelet.api().wait(async {
        let mut client = kubelet.runtime();
        let request = cri::StreamPodSandboxMetricsRequest {};
        let mut stream = client.stream_pod_sandbox_metrics(request).await.unwrap().into_inner();
        assert_eq!(stream.message().await.unwrap().unwrap().pod_sandbox_metrics.len(), 1);
    });
}

#[test]
fn the_figures_of_a_pod_s_own_group_are_kept() {
    let mut daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let pod = kubelet.run_pod(&kubelet.pod_config("web"));
    let request = cri::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod.clone(),
        resources: Some(cri::LinuxContainerResources {
            cpu_shares: 77,
            ..cri::LinuxContainerResources::default()
        }),
        ..cri::UpdatePodSandboxResourcesRequest::default()
    };
    kubelet
        .call(|mut client| async move { client.update_pod_sandbox_resources(request).await })
        .unwrap();
    let before = kubelet.pod_status(&pod);
    std::mem::forget(kubelet);
    daemon.kill();
    daemon.start_again();
    let kubelet = Kubelet::of(&daemon);
    assert_eq!(kubelet.pod_status(&pod), before);
    let request = cri::PodSandboxStatusRequest { pod_sandbox_id: pod, verbose: true };
    let answer = kubelet.call(|mut client| async move { client.pod_sandbox_status(request).await });
    assert!(answer.unwrap().info["info"].contains("\"cpuShares\":77"));
}

#[test]
fn figures_are_found_by_id_pod_and_labels() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let (first, second) = (kubelet.pod_config("first"), kubelet.pod_config("second"));
    let (one, two) = (kubelet.run_pod(&first), kubelet.run_pod(&second));
    let run = |pod: &str, name: &str, config: &cri::PodSandboxConfig| {
        kubelet.run(pod, &kubelet.container_config(name, "exec sleep 600"), config)
    };
    let ids = [run(&one, "a", &first), run(&one, "b", &first), run(&two, "c", &second)];
    let listed = |filter: Option<cri::ContainerStatsFilter>| {
        let request = cri::ListContainerStatsRequest { filter };
        let call =
            kubelet.call(|mut client| async move { client.list_container_stats(request).await });
        let mut ids: Vec<String> = Vec::new();
        for stats in call.unwrap().stats {
            assert!(stats.cpu.is_some() && stats.memory.is_some(), "{stats:?}");
            assert!(stats.writable_layer.is_some(), "{stats:?}");
            ids.push(stats.attributes.unwrap().id);
        }
        ids.sort();
        ids
    };
    let sorted = |ids: &[String]| {
        let mut ids = ids.to_vec();
        ids.sort();
        ids
    };
    assert_eq!(listed(None), sorted(&ids));
    let filter = cri::ContainerStatsFilter { id: ids[1].clone(), ..Default::default() };
    assert_eq!(listed(Some(filter)), sorted(&ids[1..2]));
    let filter = cri::ContainerStatsFilter { pod_sandbox_id: one.clone(), ..Default::default() };
    assert_eq!(listed(Some(filter)), sorted(&ids[..2]));
    let label_selector = [("container".to_owned(), "c".to_owned())].into();
    let filter = cri::ContainerStatsFilter { label_selector, ..Default::default() };
    assert_eq!(listed(Some(filter)), sorted(&ids[2..]));
    let pods = |filter: cri::PodSandboxStatsFilter| -> Vec<String> {
        let request = cri::ListPodSandboxStatsRequest { filter: Some(filter) };
        let call =
            kubelet.call(|mut client| async move { client.list_pod_sandbox_stats(request).await });
        call.unwrap().stats.into_iter().map(|stats| stats.attributes.unwrap().id).collect()
    };
    let filter = cri::PodSandboxStatsFilter { id: one.clone(), ..Default::default() };
    assert_eq!(pods(filter), [one]);
    let label_selector = [("app".to_owned(), "second".to_owned())].into();
    assert_eq!(pods(cri::PodSandboxStatsFilter { label_selector, ..Default::default() }), [two]);
}
