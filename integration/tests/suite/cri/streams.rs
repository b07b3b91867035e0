//! URLs for streams. What is behind them is tested with the server itself.

use bosun_proto::cri;
use integration::kubelet::{Kubelet, node};
use tonic::Code;

#[test]
fn streams_have_urls_that_work_for_what_runs_alone() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let id = kubelet.run(&pod, &kubelet.container_config("one", "sleep 600"), &config);
    let exec = |container: &str, tty, stderr| {
        let request = cri::ExecRequest {
            container_id: container.to_owned(),
            cmd: vec!["true".to_owned()],
            stdout: true,
            tty,
            stderr,
            ..cri::ExecRequest::default()
        };
        let answer = kubelet.call(|mut client| async move { client.exec(request).await });
        answer.map(|answer| answer.url)
    };
    let url = exec(&id, false, true).unwrap();
    assert!(url.starts_with("http://127.0.0.1:") && url.contains("/exec/"), "{url}");
    assert_ne!(exec(&id, false, true).unwrap(), url);
    assert_eq!(exec(&id, true, true).unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(exec("0123456789ab", false, true).unwrap_err().code(), Code::NotFound);
    let request =
        cri::AttachRequest { container_id: id.clone(), stdout: true, ..Default::default() };
    let answer = kubelet.call(|mut client| async move { client.attach(request).await });
    assert!(answer.unwrap().url.contains("/attach/"));
    let forward = |port| {
        let request = cri::PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![port] };
        kubelet.call(|mut client| async move { client.port_forward(request).await })
    };
    assert!(forward(80).unwrap().url.contains("/portforward/"));
    assert_eq!(forward(70_000).unwrap_err().code(), Code::InvalidArgument);
    kubelet.stop(&id, 0).unwrap();
    assert_eq!(exec(&id, false, true).unwrap_err().code(), Code::FailedPrecondition);
}
