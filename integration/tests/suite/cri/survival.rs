//! A node goes on when its daemon is killed.

use bosun_proto::cri;
use integration::kubelet::{Kubelet, node};
use integration::wait;

#[test]
fn pods_containers_and_logs_go_on_without_a_daemon() {
    let mut daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let script = "echo one; until test -e /mnt/go; do sleep 0.05; done; echo two; exit 9";
    let mut container = kubelet.container_config("one", script);
    let directory = daemon.scratch().join("mnt");
    container.mounts = vec![cri::Mount {
        host_path: directory.display().to_string(),
        container_path: "/mnt".to_owned(),
        ..cri::Mount::default()
    }];
    let ends = kubelet.run(&pod, &container, &config);
    let stays = kubelet.run(&pod, &kubelet.container_config("two", "sleep 600"), &config);
    wait::until_true("its first line", || kubelet.said(&ends) == "one\n");
    let (before, log) = (kubelet.pod_status(&pod), kubelet.status(&ends).log_path);
    std::mem::forget(kubelet);
    daemon.kill();
    std::fs::write(directory.join("go"), "").unwrap();
    wait::until_true("its second line", || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains(" two\n"))
    });
    daemon.start_again();
    let kubelet = Kubelet::of(&daemon);
    assert_eq!(kubelet.pod_status(&pod), before);
    let status = kubelet.ended(&ends);
    assert_eq!((status.exit_code, status.reason.as_str()), (9, "Error"));
    assert_eq!(status.mounts, container.mounts);
    assert_eq!(kubelet.exec_text(&stays, "echo here"), "here");
    let again = kubelet.container_config("three", "hostname");
    assert!(!kubelet.output(&pod, &again, &config).is_empty());
}
