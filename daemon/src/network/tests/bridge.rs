//! Opening, attaching, detaching, and everything that is refused.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use super::super::{Bridge, Error, PortOwner, Subnet, Warning, bind_ports, parse_publish};
use super::harness::{
    BRIDGE, Container, IMPATIENCE, ask_tcp, ask_tcp_within, assert_gone, endpoint, on_a_host,
    published, run, said,
};

#[test]
fn everything_that_was_made_is_removed() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let web = Container::start(&bridge, "web", 2, &["8000:80", "8000:80/udp"]).await;
        let table = run("nft list table ip bosun-bosun0");
        assert!(table.contains("tcp . 8000 : 172.30.0.2 . 80"), "{table}");
        assert!(table.contains("udp . 8000 : 172.30.0.2 . 80"), "{table}");
        assert!(run("ip -o link").contains(&web.attached.host_interface));

        bridge.detach(&web.endpoint).await.unwrap();
        assert!(!run("nft list table ip bosun-bosun0").contains("172.30.0.2"));
        assert_gone(&web.attached.host_interface).await;
        bridge.detach(&web.endpoint).await.expect("a second time changes nothing");

        bridge.remove_all().await.unwrap();
        host.assert_clean();
        bridge.remove_all().await.expect("a second time changes nothing");
    });
}

#[test]
fn the_interface_goes_with_the_containers_namespace() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let web = Container::start(&bridge, "web", 2, &[]).await;
        let interface = web.attached.host_interface.clone();
        drop(web);
        assert_gone(&interface).await;
    });
}

/// The same name comes and goes at once; the removal of the first must not hit the second.
#[test]
fn a_container_that_is_restarted_at_once_keeps_its_new_interface() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let first = Container::start(&bridge, "web", 2, &[]).await;
        bridge.detach(&first.endpoint).await.unwrap();
        let second = Container::start(&bridge, "web", 3, &[]).await;
        drop(first);
        second.serve_tcp(80);
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        assert_eq!(ask_tcp(second.address(), 80).unwrap(), "web sees 172.30.0.1");
    });
}

#[test]
fn the_kernel_is_switched_to_forward() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let read = |path: &str| {
            let path = format!("/proc/sys/net/{path}");
            std::fs::read_to_string(path).unwrap().trim().to_owned()
        };
        assert_eq!(read("ipv4/ip_forward"), "1");
        assert_eq!(read("ipv4/conf/bosun0/route_localnet"), "1");
        assert_eq!(read("ipv4/conf/all/route_localnet"), "0");
        bridge.remove_all().await.unwrap();
        assert_eq!(read("ipv4/ip_forward"), "1");
    });
}

#[test]
fn a_container_that_is_started_again_replaces_its_interface() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let _killed = Container::start(&bridge, "web", 2, &["8000:80"]).await;
        // The same container at another address, its ports still in the table, its old namespace
        // still alive.
        drop(_killed.endpoint.ports.clone());
        let mut again = endpoint("web", 3, _killed.endpoint.ports.clone());
        again.address = Ipv4Addr::new(172, 30, 0, 3);
        bridge.attach(&again).await.unwrap();
        let table = run("nft list table ip bosun-bosun0");
        assert!(table.contains("172.30.0.3 . 80") && !table.contains("172.30.0.2"), "{table}");
    });
}

#[test]
fn a_late_release_does_not_take_the_port_from_its_next_holder() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let first = Container::start(&bridge, "first", 2, &["8000:80"]).await;
        let late = first.endpoint.clone();
        bridge.detach(&first.endpoint).await.unwrap();
        drop(first);
        let second = Container::start(&bridge, "second", 3, &["8000:80"]).await;
        second.serve_tcp(80);
        bridge.detach(&late).await.unwrap();
        assert_eq!(ask_tcp("127.0.0.1", 8000).unwrap(), "second sees 172.30.0.1");
    });
}

#[test]
fn a_failed_attach_leaves_nothing() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let mut foreign = endpoint("web", 2, Vec::new());
        foreign.address = Ipv4Addr::new(10, 0, 0, 2);
        let error = said(bridge.attach(&foreign).await);
        assert_eq!(error, "address 10.0.0.2 is not in the subnet 172.30.0.0/16 of bridge bosun0");

        // The table can't take the elements: a map of another type is in the way.
        run("nft delete table ip bosun-bosun0");
        run("nft add table ip bosun-bosun0");
        run("nft add map ip bosun-bosun0 wildcard { type mark : mark ; }");
        let (ports, _sockets) = published(&["8000:80"]);
        assert!(bridge.attach(&endpoint("web", 2, ports)).await.is_err());
        assert!(!run("ip -o link").contains("veth"), "no pair is left");
        assert!(!run("ip -o link").contains("master"), "no port of the bridge is left");
    });
}

#[test]
fn one_bridge_has_one_daemon() {
    on_a_host(|host| async move {
        let first = host.bridge().await;
        let error = said(Bridge::open(host.settings()).await);
        let pid = std::process::id();
        assert!(
            error.starts_with(&format!("bridge bosun0 belongs to another daemon (PID {pid})")),
            "{error}"
        );
        let mut settings = host.settings();
        settings.bridge = "bosun1".to_owned();
        settings.subnet = Subnet::new(Ipv4Addr::new(172, 29, 0, 0), 16);
        let (second, _) = Bridge::open(settings).await.expect("another bridge is another matter");
        second.remove_all().await.unwrap();
        drop(first);
        host.bridge().await.remove_all().await.unwrap();
        host.assert_clean();
    });
}

#[test]
fn the_same_bridge_name_in_another_namespace_does_not_meet() {
    on_a_host(|host| async move {
        let _here = host.bridge().await;
        let settings = host.settings();
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(Bridge::open(settings)).unwrap();
        })
        .join()
        .unwrap();
    });
}

#[test]
fn a_subnet_in_use_is_refused_by_the_interfaces_name() {
    on_a_host(|host| async move {
        run("ip link add office type bridge");
        run("ip address add 172.30.5.1/24 dev office");
        run("ip link set office up");
        let error = said(Bridge::open(host.settings()).await);
        assert!(
            error.starts_with(
                "subnet 172.30.0.0/16 of bridge bosun0 is already in use by interface office"
            ),
            "{error}"
        );
        assert!(!run("ip -o link").contains(BRIDGE));
    });
}

#[test]
fn an_interface_that_is_no_bridge_is_left_alone() {
    on_a_host(|host| async move {
        run("ip link add bosun0 type veth peer name other");
        let error = said(Bridge::open(host.settings()).await);
        assert!(error.starts_with("interface bosun0 is there already and is not a bridge"));
        assert!(run("ip -d link show bosun0").contains("veth"));
    });
}

#[test]
fn a_firewall_that_drops_forwarded_packets_is_reported() {
    on_a_host(|host| async move {
        run("nft add table inet corporate");
        run(
            "nft add chain inet corporate transit { type filter hook forward priority 0 ; policy drop ; }",
        );
        let (bridge, warnings) = Bridge::open(host.settings()).await.unwrap();
        let chain = "table inet corporate, chain transit".to_owned();
        assert_eq!(warnings, [Warning::ForwardDropped { chain }]);
        bridge.remove_all().await.unwrap();
        assert!(run("nft list ruleset").contains("policy drop"), "it is not ours to change");
    });
}

#[test]
fn a_port_in_use_names_its_holder() {
    on_a_host(|host| async move {
        let _ = host;
        let bind = |text: &str, owners: &[PortOwner]| -> Result<(), Error> {
            bind_ports(&parse_publish(text).unwrap(), owners).map(drop)
        };
        let pid = std::process::id();
        let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
        let me = format!("PID {pid} ({})", comm.trim());

        let _tcp = TcpListener::bind("127.0.0.1:8000").unwrap();
        let error = said(bind("8000:80", &[]));
        assert_eq!(
            error,
            format!("port 0.0.0.0:8000/tcp is already in use by {me}: choose another with -p")
        );
        let _udp = UdpSocket::bind("0.0.0.0:5300").unwrap();
        assert!(said(bind("127.0.0.1:5300:53/udp", &[])).contains(&me));
        let _tcp6 = TcpListener::bind("[::]:8006").unwrap();
        assert!(said(bind("8006:80", &[])).contains(&me), "an IPv6 socket may hold it too");

        let (ports, _sockets) = published(&["9000:90"]);
        let owner = PortOwner { container: "web".to_owned(), published: ports[0] };
        let error = said(bind("127.0.0.1:9000:1", &[owner]));
        assert!(error.contains("127.0.0.1:9000/tcp is already in use by container web"), "{error}");

        let twice: Vec<_> = ["7000:1", "7000:2"].map(|text| parse_publish(text).unwrap()).concat();
        assert!(said(bind_ports(&twice, &[])).contains("the same container"));
        assert!(said(bind("192.0.2.9:80:80", &[])).contains("no address 192.0.2.9"));
        bind("8000:80/udp", &[]).expect("the other protocol is another port");
    });
}

#[test]
fn a_bound_port_is_taken_and_a_free_one_is_found() {
    on_a_host(|host| async move {
        let _ = host;
        let (ports, sockets) = published(&["80", "80/udp", "7000-7002:7000-7002"]);
        assert!(ports[0].host_port >= 1024 && ports[1].host_port >= 1024);
        assert_eq!(ports[2..].iter().map(|p| p.host_port).collect::<Vec<_>>(), [7000, 7001, 7002]);
        assert!(TcpListener::bind(("0.0.0.0", ports[0].host_port)).is_err());
        assert!(UdpSocket::bind(("0.0.0.0", ports[1].host_port)).is_err());
        drop(sockets);
        let again = format!("{}:1", ports[0].host_port);
        bind_ports(&parse_publish(&again).unwrap(), &[]).unwrap();
    });
}

#[test]
fn many_containers_at_once_each_get_their_place() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let attaching = (2..18_u8).map(|octet| {
            let bridge = bridge.clone();
            tokio::spawn(async move {
                let id = format!("c{octet}");
                bridge.attach(&endpoint(&id, octet, Vec::new())).await.map(|made| (octet, made))
            })
        });
        let mut made = Vec::new();
        for attaching in attaching.collect::<Vec<_>>() {
            made.push(attaching.await.unwrap().unwrap());
        }
        for (octet, _) in &made {
            // Nobody listens, but the container's own kernel says so.
            let refused = ask_tcp_within(IMPATIENCE * 4, Ipv4Addr::new(172, 30, 0, *octet), 80);
            assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        }
        bridge.remove_all().await.unwrap();
        host.assert_clean();
    });
}
