//! Figures.

use bosun_proto::cri;
use integration::kubelet::{Kubelet, node};
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
fn metrics_have_the_labels_that_are_described() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let id = kubelet.run(&pod, &kubelet.container_config("one", "sleep 600"), &config);
    let request = cri::ListMetricDescriptorsRequest {};
    let call =
        kubelet.call(|mut client| async move { client.list_metric_descriptors(request).await });
    let described: std::collections::HashMap<String, usize> = call
        .unwrap()
        .descriptors
        .into_iter()
        .map(|descriptor| (descriptor.name, descriptor.label_keys.len()))
        .collect();
    let request = cri::ListPodSandboxMetricsRequest {};
    let call =
        kubelet.call(|mut client| async move { client.list_pod_sandbox_metrics(request).await });
    let listed = call.unwrap().pod_metrics;
    assert_eq!((listed.len(), listed[0].pod_sandbox_id.as_str()), (1, pod.as_str()));
    let container = &listed[0].container_metrics[0];
    assert_eq!(container.container_id, id);
    for metric in listed[0].metrics.iter().chain(&container.metrics) {
        assert_eq!(described.get(&metric.name), Some(&metric.label_values.len()), "{metric:?}");
    }
    let value = |name: &str| {
        let found = container.metrics.iter().find(|metric| metric.name == name);
        found.unwrap_or_else(|| panic!("{name}")).value.unwrap().value
    };
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
