//! Commands in containers.

use bosun_proto::cri;
use integration::kubelet::{Kubelet, node};
use integration::wait;

#[test]
fn a_command_answers_with_its_output_and_its_code() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let id = kubelet.run(&pod, &kubelet.container_config("one", "sleep 600"), &config);
    let answer = kubelet.exec(&id, "echo out; echo err >&2; exit 5", 0).unwrap();
    assert_eq!((answer.stdout, answer.stderr), (b"out\n".to_vec(), b"err\n".to_vec()));
    assert_eq!(answer.exit_code, 5);
    let long = kubelet.exec(&id, "head -c 3000000 /dev/zero", 30).unwrap();
    assert_eq!(long.stdout.len(), 3_000_000);
    let refused = kubelet.exec("0123456789abcdef", "true", 0).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
    let request = cri::ExecSyncRequest { container_id: id, ..Default::default() };
    let refused = kubelet.call(|mut client| async move { client.exec_sync(request).await });
    assert_eq!(refused.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[test]
fn a_command_that_takes_too_long_is_killed() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let id = kubelet.run(&pod, &kubelet.container_config("one", "sleep 600"), &config);
    let refused = kubelet.exec(&id, "exec sleep 777", 1).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::DeadlineExceeded, "{refused}");
    let count = "ls -d /proc/[0-9]* | wc -l; grep -l '[s]leep.777' /proc/[0-9]*/cmdline || true";
    wait::until_true("that it is gone", || !kubelet.exec_text(&id, count).contains("cmdline"));
}

#[test]
fn a_client_that_goes_away_takes_its_command_along() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let id = kubelet.run(&pod, &kubelet.container_config("one", "sleep 600"), &config);
    let find = "grep -l '[s]leep.777' /proc/[0-9]*/cmdline || true";
    let runs = || kubelet.exec_text(&id, find).contains("cmdline");
    let request = cri::ExecSyncRequest {
        container_id: id.clone(),
        cmd: ["sleep", "777"].map(str::to_owned).to_vec(),
        timeout: 0,
    };
    let began = kubelet.api().wait(async {
        let mut client = kubelet.runtime();
        let call = tokio::spawn(async move { client.exec_sync(request).await });
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        call.abort();
        call.await.is_err_and(|error| error.is_cancelled())
    });
    assert!(began, "it did not wait");
    wait::until_true("that it is gone", || !runs());
    // Its end is told like every other's: one for each exec that was made.
    let count = |action: &str| {
        let text = daemon.ctl("--namespace k8s.io events --since 1h --until 0s").text();
        text.lines().filter(|line| line.contains(action)).count()
    };
    wait::until_true("the end in the events", || count("exec_die") == count("exec_create"));
    assert!(count("exec_die") >= 2);
}
