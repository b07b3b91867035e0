//! Networks of pods by CNI's plugins: Debian's, from containernetworking-plugins.

use std::path::Path;

use bosun_proto::cri;
use integration::daemon::{Daemon, Settings};
use integration::image::Recipe;
use integration::kubelet::{IMAGE, Kubelet, load};
use integration::{http, wait};

/// Where Debian has the plugins.
const PLUGINS: &str = "/usr/lib/cni";

fn node() -> Daemon {
    let mut daemon = Settings::new().prepare();
    let directory = daemon.scratch().join("net.d");
    std::fs::create_dir(&directory).unwrap();
    let text = format!(
        "[cri]\ncni-conf-dir = {:?}\ncni-bin-dirs = [{PLUGINS:?}]\n",
        directory.display().to_string()
    );
    let file = daemon.scratch().join("cni.toml");
    std::fs::write(&file, text).unwrap();
    daemon.add_arguments(&format!("--config {}", file.display()));
    daemon.start_again();
    load(&daemon, &[(IMAGE, &Recipe::busybox().image())]);
    daemon
}

fn configure(daemon: &Daemon, plugins: &str) {
    let text = format!(r#"{{"cniVersion":"1.0.0","name":"pods","plugins":[{plugins}]}}"#);
    std::fs::write(daemon.scratch().join("net.d/10-pods.conflist"), text).unwrap();
}

fn bridge(daemon: &Daemon) -> String {
    format!(
        r#"{{"type":"bridge","bridge":"pods0","isGateway":true,"ipMasq":true,"hairpinMode":true,
        "ipam":{{"type":"host-local","dataDir":{:?},
        "ranges":[[{{"subnet":"10.77.0.0/16"}}],[{{"subnet":"fd77::/64"}}]]}}}},
        {{"type":"portmap","capabilities":{{"portMappings":true}}}}"#,
        daemon.scratch().join("ipam").display().to_string()
    )
}

fn condition(kubelet: &Kubelet) -> cri::RuntimeCondition {
    let request = cri::StatusRequest { verbose: false };
    let status = kubelet.call(|mut client| async move { client.status(request).await });
    let conditions = status.unwrap().status.unwrap().conditions;
    conditions.into_iter().find(|condition| condition.r#type == "NetworkReady").unwrap()
}

#[test]
fn the_addresses_that_the_cluster_gives_are_filled_into_a_template() {
    let mut daemon = node();
    let template = daemon.scratch().join("template");
    let text = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp",
        "ipam": {"type": "host-local", "dataDir": "DATA", "ranges": {{.PodCIDRRanges}},
        "routes": {{.Routes}}}}]}"#;
    let data = daemon.scratch().join("ipam").display().to_string();
    std::fs::write(&template, text.replace("DATA", &data)).unwrap();
    let file = daemon.scratch().join("cni.toml");
    let settings = std::fs::read_to_string(&file).unwrap();
    let key = format!("cni-conf-template = {:?}\n", template.display().to_string());
    std::fs::write(&file, settings + &key).unwrap();
    daemon.kill();
    daemon.start_again();
    let kubelet = Kubelet::of(&daemon);
    assert!(!condition(&kubelet).status);
    let update = |pod_cidr: &str| {
        let network_config = Some(cri::NetworkConfig { pod_cidr: pod_cidr.to_owned() });
        let request = cri::UpdateRuntimeConfigRequest {
            runtime_config: Some(cri::RuntimeConfig { network_config }),
        };
        kubelet.call(|mut client| async move { client.update_runtime_config(request).await })
    };
    update("").unwrap();
    assert!(!condition(&kubelet).status);
    assert_eq!(update("10.78.0.0").unwrap_err().code(), tonic::Code::InvalidArgument);
    update("10.78.5.0/24,fd78::/64").unwrap();
    assert!(condition(&kubelet).status, "{:?}", condition(&kubelet));
    let pod = kubelet.run_pod(&kubelet.pod_config("web"));
    let network = kubelet.pod_status(&pod).network.unwrap();
    assert!(network.ip.starts_with("10.78.5."), "{network:?}");
    assert!(network.additional_ips[0].ip.starts_with("fd78::"), "{network:?}");
}

/// Addresses that are given out.
fn leases(daemon: &Daemon) -> usize {
    let directory = daemon.scratch().join("ipam/pods");
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(['1', 'f'])).count()
}

#[test]
fn the_network_is_ready_when_it_is_configured_and_not_before() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let before = condition(&kubelet);
    assert!(!before.status && before.message.contains("net.d"), "{before:?}");
    let refused = kubelet.try_run_pod(&kubelet.pod_config("early")).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    std::fs::write(daemon.scratch().join("net.d/10-pods.conflist"), "{").unwrap();
    let broken = condition(&kubelet);
    assert!(!broken.status && broken.message.contains("10-pods.conflist"), "{broken:?}");
    configure(&daemon, r#"{"type":"no-such-plugin"}"#);
    let missing = condition(&kubelet);
    assert!(!missing.status && missing.message.contains("no-such-plugin"), "{missing:?}");
    assert!(kubelet.pods(cri::PodSandboxFilter::default()).is_empty());
    configure(&daemon, &bridge(&daemon));
    let ready = condition(&kubelet);
    assert!(ready.status, "{ready:?}");
}

#[test]
fn a_pod_has_addresses_and_ports_of_the_host_and_gives_them_back() {
    let mut daemon = node();
    configure(&daemon, &bridge(&daemon));
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    config.port_mappings =
        vec![cri::PortMapping { container_port: 8080, host_port: 12_000, ..Default::default() }];
    let pod = kubelet.run_pod(&config);
    let network = kubelet.pod_status(&pod).network.unwrap();
    assert!(network.ip.starts_with("10.77."), "{network:?}");
    assert!(network.additional_ips[0].ip.starts_with("fd77:"), "{network:?}");
    let script = "mkdir /w; echo hello > /w/index.html; exec httpd -f -p 8080 -h /w";
    let server = kubelet.run(&pod, &kubelet.container_config("one", script), &config);
    let seen = kubelet.exec_text(&server, "ip -o addr show eth0");
    assert!(seen.contains(&network.ip), "{seen}");
    let answers = |daemon: &Daemon, address: &str, port| {
        let answer = http::get(&daemon.netns().path(), address.parse().unwrap(), port, "/");
        answer.is_ok_and(|answer| answer.body == "hello\n")
    };
    wait::until_true("an answer", || answers(&daemon, &network.ip, 8080));
    wait::until_true("an answer of the host", || answers(&daemon, "127.0.0.1", 12_000));
    std::mem::forget(kubelet);
    daemon.kill();
    assert!(answers(&daemon, "127.0.0.1", 12_000), "without a daemon");
    daemon.start_again();
    let kubelet = Kubelet::of(&daemon);
    let status = kubelet.pod_status(&pod);
    assert_eq!(status.state(), cri::PodSandboxState::SandboxReady);
    assert_eq!(status.network.unwrap(), network);
    kubelet.stop_pod(&pod).unwrap();
    let status = kubelet.pod_status(&pod);
    assert_eq!(status.state(), cri::PodSandboxState::SandboxNotready);
    assert_eq!(leases(&daemon), 0);
    assert!(!answers(&daemon, "127.0.0.1", 12_000));
}

#[test]
fn a_plugin_that_fails_leaves_nothing() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    // A rate that tc does not take makes the second plugin fail, behind the bridge's work.
    let bandwidth = r#"{"type":"bandwidth","ingressRate":1000,"ingressBurst":0}"#;
    configure(&daemon, &format!("{},{bandwidth}", bridge(&daemon)));
    let refused = kubelet.try_run_pod(&kubelet.pod_config("web")).unwrap_err();
    assert!(refused.message().contains("bandwidth"), "{refused}");
    assert!(kubelet.pods(cri::PodSandboxFilter::default()).is_empty());
    assert_eq!(leases(&daemon), 0);
    assert!(!Path::new("/run/netns").read_dir().unwrap().flatten().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("bosun-") && refused.message().contains(&name)
    }));
}
