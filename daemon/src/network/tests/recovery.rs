//! What a killed daemon leaves is adopted, put right, and nothing foreign is touched.

use std::net::{Ipv4Addr, UdpSocket};

use super::super::Report;
use super::harness::{
    Container, IMPATIENCE, PATIENCE, ask_tcp, ask_udp_from, endpoint, on_a_host, run,
};

#[test]
fn a_published_port_outlives_the_daemon() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let web = Container::start(&bridge, "web", 2, &["8000:80"]).await;
        web.serve_tcp(80);
        drop(bridge);
        assert_eq!(ask_tcp("127.0.0.1", 8000).unwrap(), "web sees 172.30.0.1");

        let bridge = host.bridge().await;
        assert_eq!(ask_tcp("127.0.0.1", 8000).unwrap(), "web sees 172.30.0.1");
        let report = bridge.reconcile(vec![web.endpoint.clone()]).await.unwrap();
        assert_eq!(report, Report::default(), "there is nothing to put right");
        assert_eq!(ask_tcp("127.0.0.1", 8000).unwrap(), "web sees 172.30.0.1");
    });
}

#[test]
fn reconciling_removes_strangers_and_adds_what_is_missing() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let web = Container::start(&bridge, "web", 2, &["8000:80"]).await;
        let gone =
            Container::start(&bridge, "gone", 3, &["9000:90", "127.0.0.1:9001:91/udp"]).await;
        web.serve_tcp(80);
        run("nft delete element ip bosun-bosun0 wildcard { tcp . 8000 }");

        let lost = endpoint("lost", 4, Vec::new());
        let report = bridge.reconcile(vec![web.endpoint.clone(), lost.clone()]).await.unwrap();
        let host_interface = std::slice::from_ref(&gone.attached.host_interface);
        assert_eq!(report.removed_interfaces, host_interface);
        assert_eq!(
            report.removed_ports,
            ["0.0.0.0:9000/tcp -> 172.30.0.3:90", "127.0.0.1:9001/udp -> 172.30.0.3:91"]
        );
        assert_eq!(report.added_ports, ["0.0.0.0:8000/tcp -> 172.30.0.2:80"]);
        assert_eq!(report.without_interface, [(lost.namespace, lost.id)]);
        assert_eq!(ask_tcp("127.0.0.1", 8000).unwrap(), "web sees 172.30.0.1");
        assert!(!run("ip -o link").contains(&gone.attached.host_interface));
    });
}

#[test]
fn a_port_that_leads_to_the_wrong_container_is_turned() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let web = Container::start(&bridge, "web", 2, &["8000:80"]).await;
        web.serve_tcp(80);
        run("nft delete element ip bosun-bosun0 wildcard { tcp . 8000 }");
        run("nft add element ip bosun-bosun0 wildcard { tcp . 8000 : 172.30.0.9 . 80 }");
        let report = bridge.reconcile(vec![web.endpoint.clone()]).await.unwrap();
        assert_eq!(report.removed_ports, ["0.0.0.0:8000/tcp -> 172.30.0.9:80"]);
        assert_eq!(report.added_ports, ["0.0.0.0:8000/tcp -> 172.30.0.2:80"]);
        assert_eq!(ask_tcp("127.0.0.1", 8000).unwrap(), "web sees 172.30.0.1");
    });
}

/// The daemon was killed between taking a port back and forgetting its connections.
#[test]
fn connections_that_a_killed_daemon_left_are_forgotten() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let first = Container::start(&bridge, "first", 2, &["5300:53/udp"]).await;
        first.serve_udp(53);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let ask = || ask_udp_from(&client, PATIENCE, "127.0.0.1", 5300);
        assert_eq!(ask().unwrap(), "first sees 172.30.0.1");
        run("nft delete element ip bosun-bosun0 wildcard { udp . 5300 }");
        run("nft add element ip bosun-bosun0 wildcard { udp . 5300 : 172.30.0.3 . 53 }");
        drop(bridge);

        let bridge = host.bridge().await;
        let mut second = first.endpoint.clone();
        second.id = "second".parse().unwrap();
        second.address = Ipv4Addr::new(172, 30, 0, 3);
        let attached = bridge.attach(&second).await.unwrap();
        let second = Container::from(second, attached);
        second.serve_udp(53);
        tokio::time::sleep(IMPATIENCE).await;
        assert_eq!(ask().unwrap(), "first sees 172.30.0.1", "the old way, until it is forgotten");
        bridge.reconcile(vec![second.endpoint.clone()]).await.unwrap();
        tokio::time::sleep(IMPATIENCE).await;
        assert_eq!(ask().unwrap(), "second sees 172.30.0.1");
    });
}

#[test]
fn a_flushed_ruleset_is_loaded_again() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let web = Container::start(&bridge, "web", 2, &["8000:80"]).await;
        web.serve_tcp(80);
        run("nft flush ruleset");
        // A start in between works, and does not wait for the repair of the others.
        let other = Container::start(&bridge, "other", 3, &["9000:80"]).await;
        other.serve_tcp(80);
        assert_eq!(ask_tcp("127.0.0.1", 9000).unwrap(), "other sees 172.30.0.1");
        run("nft flush ruleset");
        let both = vec![web.endpoint.clone(), other.endpoint.clone()];
        assert_eq!(bridge.reconcile(both).await.unwrap().added_ports.len(), 2);
        assert_eq!(ask_tcp("127.0.0.1", 8000).unwrap(), "web sees 172.30.0.1");
    });
}

#[test]
fn a_removed_bridge_is_made_again() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        run("ip link delete bosun0");
        let web = Container::start(&bridge, "web", 2, &["8000:80"]).await;
        web.serve_tcp(80);
        assert_eq!(ask_tcp("127.0.0.1", 8000).unwrap(), "web sees 172.30.0.1");
        assert_eq!(ask_tcp("172.30.0.1", 8000).unwrap(), "web sees 172.30.0.1");
    });
}

#[test]
fn a_changed_subnet_replaces_the_bridges_address() {
    on_a_host(|host| async move {
        drop(host.bridge().await);
        let mut settings = host.settings();
        settings.subnet = "172.29.0.0/16".parse().unwrap();
        let (_bridge, _) = super::super::Bridge::open(settings).await.unwrap();
        let addresses = run("ip -o -4 address show bosun0");
        assert!(
            addresses.contains("172.29.0.1/16") && !addresses.contains("172.30"),
            "{addresses}"
        );
    });
}

#[test]
fn foreign_interfaces_and_tables_are_not_touched() {
    on_a_host(|host| async move {
        let foreign = |kind: &str| {
            let shown = run(kind);
            shown.lines().filter(|line| line.contains("foreign")).map(str::to_owned).collect()
        };
        run("nft add table ip foreign");
        run("nft add chain ip foreign c { type filter hook input priority 0 ; }");
        run("ip link add foreign0 type bridge");
        run("ip link add foreign1 type veth peer name foreign2");
        run("ip link set foreign1 master foreign0");
        let before: [Vec<String>; 2] = [foreign("ip -o link"), foreign("nft list ruleset")];
        assert!(before.iter().all(|lines| !lines.is_empty()));

        let bridge = host.bridge().await;
        let _web = Container::start(&bridge, "web", 2, &["8000:80"]).await;
        bridge.reconcile(Vec::new()).await.unwrap();
        bridge.remove_all().await.unwrap();
        assert_eq!(before, [foreign("ip -o link"), foreign("nft list ruleset")]);
    });
}
