//! Networks of pods by CNI's plugins: Debian's, from containernetworking-plugins, and scripts.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bosun_proto::cri;
use integration::daemon::{Daemon, Settings};
use integration::image::Recipe;
use integration::kubelet::{IMAGE, Kubelet, load};
use integration::{http, wait};
use serde_json::{Value, json};

/// Where Debian has the plugins.
const PLUGINS: &str = "/usr/lib/cni";

pub(super) fn node() -> Daemon {
    node_with(Settings::new())
}

fn node_with(settings: Settings) -> Daemon {
    let mut daemon = settings.prepare();
    let [directory, own] = ["net.d", "plugins"].map(|name| daemon.scratch().join(name));
    std::fs::create_dir(&directory).unwrap();
    std::fs::create_dir(&own).unwrap();
    let text = format!(
        "[cri]\ncni-conf-dir = {:?}\ncni-bin-dirs = [{:?}, {PLUGINS:?}]\n",
        directory.display().to_string(),
        own.display().to_string()
    );
    let file = daemon.scratch().join("cni.toml");
    std::fs::write(&file, text).unwrap();
    daemon.add_arguments(&format!("--config {}", file.display()));
    daemon.start_again();
    load(&daemon, &[(IMAGE, &Recipe::busybox().image())]);
    daemon
}

pub(super) fn configure(daemon: &Daemon, plugins: &str) {
    let text = format!(r#"{{"cniVersion":"1.0.0","name":"pods","plugins":[{plugins}]}}"#);
    std::fs::write(daemon.scratch().join("net.d/10-pods.conflist"), text).unwrap();
}

/// Makes a plugin of a script, which begins with `$here`, where it lies, and has written down the call
/// and what it read.
pub(super) fn script(daemon: &Daemon, name: &str, body: &str) {
    let head = r#"#!/bin/sh
here=${0%/*}
cat > "$here/$CNI_COMMAND.json"
if [ $CNI_COMMAND = VERSION ]; then
    echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}'
    exit
fi
echo "$CNI_COMMAND $CNI_CONTAINERID" >> "$here/calls"
"#;
    let path = daemon.scratch().join("plugins").join(name);
    std::fs::write(&path, format!("{head}{body}")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// What a script says to ADD.
pub(super) const ANSWER: &str = r#"
[ $CNI_COMMAND != ADD ] || echo '{"cniVersion":"1.0.0","ips":[{"address":"10.88.0.2/24"}]}'
"#;

/// What scripts were asked for, but for versions.
pub(super) fn calls(daemon: &Daemon) -> Vec<String> {
    let text = std::fs::read_to_string(daemon.scratch().join("plugins/calls"));
    text.unwrap_or_default().lines().map(str::to_owned).collect()
}

/// What a script read at the last call of this command.
fn read(daemon: &Daemon, command: &str) -> Value {
    let file = daemon.scratch().join(format!("plugins/{command}.json"));
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// The attachments that are known, by the ids of their pods.
fn attachments(daemon: &Daemon) -> Vec<String> {
    let directory = daemon.place().directory("root").join("cni/results");
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = files.map(|file| file.file_name().into_string().unwrap());
    let mut ids: Vec<String> =
        names.map(|name| name.split('-').nth(1).unwrap().to_owned()).collect();
    ids.sort();
    ids
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

/// Has the daemon know a template of a network, and starts it again.
fn add_template(daemon: &mut Daemon) {
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
}

fn give(kubelet: &Kubelet, pod_cidr: &str) -> Result<(), tonic::Status> {
    let network_config = Some(cri::NetworkConfig { pod_cidr: pod_cidr.to_owned() });
    let request = cri::UpdateRuntimeConfigRequest {
        runtime_config: Some(cri::RuntimeConfig { network_config }),
    };
    let call =
        kubelet.call(|mut client| async move { client.update_runtime_config(request).await });
    call.map(drop)
}

#[test]
fn the_addresses_that_the_cluster_gives_are_filled_into_a_template() {
    let mut daemon = node();
    add_template(&mut daemon);
    let kubelet = Kubelet::of(&daemon);
    assert!(!condition(&kubelet).status);
    give(&kubelet, "").unwrap();
    assert!(!condition(&kubelet).status);
    assert_eq!(give(&kubelet, "10.78.0.0").unwrap_err().code(), tonic::Code::InvalidArgument);
    give(&kubelet, "10.78.5.0/24,fd78::/64").unwrap();
    assert!(condition(&kubelet).status, "{:?}", condition(&kubelet));
    let pod = kubelet.run_pod(&kubelet.pod_config("web"));
    let network = kubelet.pod_status(&pod).network.unwrap();
    assert!(network.ip.starts_with("10.78.5."), "{network:?}");
    assert!(network.additional_ips[0].ip.starts_with("fd78::"), "{network:?}");
}

#[test]
fn what_others_on_the_node_look_into_is_open_to_them_whatever_the_umask() {
    // With a /run of its own, in which nothing is yet.
    let script = "'umask 077; mount -t tmpfs -o mode=755 tmpfs /run; exec \"$@\"'";
    let settings = Settings::new().through(&format!("unshare -m -- /bin/sh -ec {script} sh"));
    let mut daemon = node_with(settings);
    std::fs::remove_dir(daemon.scratch().join("net.d")).unwrap();
    add_template(&mut daemon);
    let kubelet = Kubelet::of(&daemon);
    give(&kubelet, "10.78.5.0/24").unwrap();
    let pod = kubelet.run_pod(&kubelet.pod_config("web"));
    assert!(kubelet.pod_status(&pod).network.unwrap().ip.starts_with("10.78.5."));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let networks = daemon.scratch().join("net.d");
    assert_eq!(mode(&networks), 0o755);
    assert_eq!(mode(&networks.join("10-bosun.conflist")), 0o644);
    let run = Path::new("/proc").join(daemon.pid().unwrap().to_string()).join("root/run");
    assert!(run.join("netns").join(format!("bosun-{pod}")).exists());
    assert_eq!(mode(&run.join("netns")), 0o755);
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

#[test]
fn plugins_see_what_they_are_capable_of_and_the_same_at_the_end_after_a_kill() {
    let mut daemon = node();
    script(&daemon, "seer", ANSWER);
    let capabilities =
        json!({"portMappings": true, "bandwidth": true, "dns": true, "ipRanges": true});
    configure(&daemon, &json!({"type": "seer", "capabilities": capabilities}).to_string());
    let kubelet = Kubelet::of(&daemon);
    let network_config = Some(cri::NetworkConfig { pod_cidr: "10.88.0.0/24,fd88::/64".to_owned() });
    let runtime_config = Some(cri::RuntimeConfig { network_config });
    let request = cri::UpdateRuntimeConfigRequest { runtime_config };
    kubelet.call(|mut client| async move { client.update_runtime_config(request).await }).unwrap();
    std::mem::forget(kubelet);
    // A kubelet says the ranges once, and not to each daemon.
    daemon.kill();
    daemon.start_again();
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    config.port_mappings = vec![
        cri::PortMapping { container_port: 80, host_port: 12_080, ..Default::default() },
        cri::PortMapping { container_port: 81, ..Default::default() },
    ];
    config.dns_config = Some(cri::DnsConfig {
        servers: vec!["10.96.0.10".to_owned()],
        searches: vec!["default.svc.cluster.local".to_owned()],
        options: vec!["ndots:5".to_owned()],
    });
    for (way, rate) in [("ingress", "8M"), ("egress", "4M")] {
        config.annotations.insert(format!("kubernetes.io/{way}-bandwidth"), rate.to_owned());
    }
    let pod = kubelet.run_pod(&config);
    let expected = json!({
        "portMappings": [{"hostPort": 12_080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {
            "ingressRate": 8_000_000, "ingressBurst": i32::MAX,
            "egressRate": 4_000_000, "egressBurst": i32::MAX,
        },
        "dns": {
            "servers": ["10.96.0.10"],
            "searches": ["default.svc.cluster.local"],
            "options": ["ndots:5"],
        },
        "ipRanges": [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd88::/64"}]],
    });
    assert_eq!(read(&daemon, "ADD")["runtimeConfig"], expected);
    let network = kubelet.pod_status(&pod).network;
    assert_eq!(network.as_ref().unwrap().ip, "10.88.0.2");
    std::mem::forget(kubelet);
    daemon.kill();
    daemon.start_again();
    let kubelet = Kubelet::of(&daemon);
    let status = kubelet.pod_status(&pod);
    assert_eq!(status.state(), cri::PodSandboxState::SandboxReady);
    assert_eq!(status.network, network);
    kubelet.stop_pod(&pod).unwrap();
    let del = read(&daemon, "DEL");
    assert_eq!(del["runtimeConfig"], expected);
    assert_eq!(del["prevResult"]["ips"], json!([{"address": "10.88.0.2/24"}]));
    // The daemon that has started may have asked meanwhile whether it is whole.
    let mut calls = calls(&daemon);
    calls.retain(|call| !call.starts_with("CHECK"));
    assert_eq!(calls, [format!("ADD {pod}"), format!("DEL {pod}")]);
    assert!(attachments(&daemon).is_empty());
}

#[test]
fn a_port_that_plugins_can_t_publish_is_refused_before_they_are_asked() {
    let daemon = node();
    script(&daemon, "seer", ANSWER);
    configure(&daemon, r#"{"type":"seer","capabilities":{"portMappings":true}}"#);
    let kubelet = Kubelet::of(&daemon);
    for (container_port, host_port, named) in [
        (0, 8088, "container_port 0"),
        (0, 0, "container_port 0"),
        (-1, 8088, "container_port -1"),
        (65_536, 8088, "container_port 65536"),
        (80, -1, "host_port -1"),
        (80, 65_536, "host_port 65536"),
    ] {
        let mut config = kubelet.pod_config("web");
        config.port_mappings =
            vec![cri::PortMapping { container_port, host_port, ..Default::default() }];
        let refused = kubelet.try_run_pod(&config).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(named), "{refused}");
    }
    assert!(calls(&daemon).is_empty(), "{:?}", calls(&daemon));
}

#[test]
fn a_network_that_can_t_be_undone_is_given_up_when_its_pod_is_gone_and_never_before() {
    let mut daemon = node();
    // Fails as long as there are files that say so.
    let body = format!("[ ! -e \"$here/no.$CNI_COMMAND\" ] || exit 1\n{ANSWER}");
    script(&daemon, "moody", &body);
    configure(&daemon, r#"{"type":"moody"}"#);
    let kubelet = Kubelet::of(&daemon);
    let pod = kubelet.run_pod(&kubelet.pod_config("good"));
    let mood = |command: &str| daemon.scratch().join(format!("plugins/no.{command}"));
    let (no_add, no_del) = (mood("ADD"), mood("DEL"));
    std::fs::write(&no_add, "").unwrap();
    std::fs::write(&no_del, "").unwrap();
    let refused = kubelet.try_run_pod(&kubelet.pod_config("bad")).unwrap_err();
    assert!(refused.message().contains("moody"), "{refused}");
    let bad = calls(&daemon).last().unwrap().strip_prefix("DEL ").unwrap().to_owned();
    let mut both = vec![pod.clone(), bad.clone()];
    both.sort();
    assert_eq!(attachments(&daemon), both);
    assert!(kubelet.stop_pod(&pod).is_err());
    std::mem::forget(kubelet);
    // Every daemon collects what the one before has left.
    let tries = |daemon: &Daemon| {
        calls(daemon).iter().filter(|call| **call == format!("DEL {bad}")).count()
    };
    for count in 1..=3 {
        daemon.kill();
        daemon.start_again();
        let warnings = || daemon.log().matches("networks of pods that are gone").count();
        wait::until_true("a try that is counted", || warnings() == count);
    }
    assert_eq!(attachments(&daemon), [pod.as_str()]);
    let log = daemon.log();
    assert!(log.contains("is given up") && log.contains(&bad), "{log}");
    assert!(log.contains("what moody made"), "{log}");
    daemon.kill();
    daemon.start_again();
    let kubelet = Kubelet::of(&daemon);
    assert!(kubelet.stop_pod(&pod).is_err());
    assert_eq!(attachments(&daemon), [pod.as_str()]);
    std::fs::remove_file(no_del).unwrap();
    kubelet.stop_pod(&pod).unwrap();
    assert!(attachments(&daemon).is_empty());
    assert_eq!(tries(&daemon), 4);
}

#[test]
fn a_pod_that_a_killed_daemon_left_half_made_goes_when_it_is_asked_for_again() {
    let mut daemon = node_with(Settings::new().failpoint("no.such.point=off"));
    configure(&daemon, &bridge(&daemon));
    let points = ["after_publish", "before_attach", "after_attach"];
    for point in points {
        daemon.kill();
        daemon.set_failpoint(&format!("daemon.pod.{point}=panic"));
        daemon.start_again();
        let kubelet = Kubelet::of(&daemon).left_alone();
        let config = kubelet.pod_config("web");
        kubelet.try_run_pod(&config).unwrap_err();
        assert!(daemon.ended_by_itself(wait::LIMIT).is_some(), "{point}");
        drop(kubelet);
        daemon.clear_environment();
        daemon.start_again();
        let kubelet = Kubelet::of(&daemon);
        let left = kubelet.pods(cri::PodSandboxFilter::default());
        assert_eq!(left.len(), 1, "{point}");
        let pod = kubelet.run_pod(&config);
        assert_ne!(pod, left[0].id, "{point}");
        let pods = kubelet.pods(cri::PodSandboxFilter::default());
        assert_eq!((pods.len(), pods[0].id.as_str()), (1, pod.as_str()), "{point}");
        let status = kubelet.pod_status(&pod);
        assert_eq!(status.state(), cri::PodSandboxState::SandboxReady, "{point}");
        assert!(status.network.unwrap().ip.starts_with("10.77."), "{point}");
        assert_eq!((attachments(&daemon), leases(&daemon)), (vec![pod.clone()], 2), "{point}");
        assert!(!Path::new("/run/netns").join(format!("bosun-{}", left[0].id)).exists(), "{point}");
        // That one was told of: whatever becomes of it, its name is its own.
        assert_eq!(kubelet.run_pod(&config), pod, "{point}");
        kubelet.stop_pod(&pod).unwrap();
        let refused = kubelet.try_run_pod(&config).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::AlreadyExists, "{point}: {refused}");
    }
}

#[test]
fn who_asks_for_a_pod_that_is_on_its_way_waits_for_it() {
    let daemon = node();
    configure(&daemon, r#"{"type":"slow"}"#);
    script(
        &daemon,
        "slow",
        &format!(
            "[ $CNI_COMMAND != ADD ] || until test -e $here/go; do sleep 0.02; done\n{ANSWER}"
        ),
    );
    let kubelet = Kubelet::of(&daemon);
    let config = kubelet.pod_config("web");
    let ids: Vec<String> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..2)
            .map(|_| {
                let asking = scope.spawn(|| Kubelet::of(&daemon).left_alone().run_pod(&config));
                wait::until_true("the plugin", || !calls(&daemon).is_empty());
                asking
            })
            .collect();
        // As long as a refusal would take, and longer.
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(!asking.iter().any(|asking| asking.is_finished()));
        std::fs::write(daemon.scratch().join("plugins/go"), "").unwrap();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    assert_eq!(ids[0], ids[1]);
    assert_eq!(calls(&daemon).iter().filter(|call| call.starts_with("ADD")).count(), 1);
}

#[test]
fn a_daemon_that_starts_says_which_running_pods_have_lost_their_network() {
    let mut daemon = node();
    let broken = r#"[ $CNI_COMMAND != CHECK ] || {
        echo '{"cniVersion":"1.0.0","code":100,"msg":"eth0 is gone"}'
        exit 1
    }"#;
    script(&daemon, "broken", &format!("{broken}\n{ANSWER}"));
    let kubelet = Kubelet::of(&daemon);
    let pod = |options: &str| {
        let text = format!(
            r#"{{"cniVersion":"1.0.0","name":"pods"{options},"plugins":[{{"type":"broken"}}]}}"#
        );
        std::fs::write(daemon.scratch().join("net.d/10-pods.conflist"), text).unwrap();
        kubelet.run_pod(&kubelet.pod_config("web"))
    };
    let unchecked = pod(r#","disableCheck":true"#);
    let trace = r#"[ $CNI_COMMAND != CHECK ] || { yes goroutine | head -c 5000 >&2; exit 2; }"#;
    script(&daemon, "crash", &format!("{trace}\n{ANSWER}"));
    let text = r#"{"cniVersion":"1.0.0","name":"crashes","plugins":[{"type":"crash"}]}"#;
    std::fs::write(daemon.scratch().join("net.d/10-pods.conflist"), text).unwrap();
    let crashes = [(), ()].map(|()| kubelet.run_pod(&kubelet.pod_config("web")));
    let [checked, stopped] = [pod(""), pod("")];
    kubelet.stop_pod(&stopped).unwrap();
    std::mem::forget(kubelet);
    daemon.kill();
    daemon.start_again();
    wait::until_true("the warning", || daemon.log().contains("eth0 is gone"));
    let log = daemon.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("eth0 is gone")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for word in ["WARN", "broken", "not as plugins made it", &checked] {
        assert!(warnings[0].contains(word), "{word}: {warnings:?}");
    }
    // That of one that can't tell is said once, and in short.
    wait::until_true("the other", || daemon.log().contains("could not be checked"));
    let log = daemon.log();
    let crashed: Vec<&str> = log.lines().filter(|line| line.contains("goroutine")).collect();
    assert!(crashed.len() == 1 && crashed[0].len() < 1000, "{crashed:?}");
    assert!(crashed[0].contains("crash") && crashed[0].contains("pods=2"), "{crashed:?}");
    let is_checked = |call: &String| {
        call.starts_with("CHECK") && !crashes.iter().any(|id| call.contains(id.as_str()))
    };
    let checks = calls(&daemon).into_iter().filter(is_checked);
    assert_eq!(checks.collect::<Vec<_>>(), [format!("CHECK {checked}")]);
    let kubelet = Kubelet::of(&daemon);
    for id in [&checked, &unchecked] {
        let status = kubelet.pod_status(id);
        assert_eq!(status.state(), cri::PodSandboxState::SandboxReady, "it goes on");
    }
}
