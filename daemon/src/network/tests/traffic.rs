//! Packets: who reaches whom, and who must not.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use super::harness::{
    Container, IMPATIENCE, ask_tcp, ask_tcp_within, ask_udp, ask_udp_from, enter, on_a_host, run,
};

const GATEWAY: &str = "172.30.0.1";

#[test]
fn a_published_tcp_port_answers_from_everywhere() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let web = Container::start(&bridge, "web", 2, &["8000:80"]).await;
        let other = Container::start(&bridge, "other", 3, &[]).await;
        web.serve_tcp(80);

        assert_eq!(ask_tcp("127.0.0.1", 8000).unwrap(), "web sees 172.30.0.1");
        assert_eq!(ask_tcp(GATEWAY, 8000).unwrap(), "web sees 172.30.0.1");
        assert_eq!(ask_tcp(web.address(), 80).unwrap(), "web sees 172.30.0.1");
        let from_other = |address, port| other.inside(move || ask_tcp(address, port).unwrap());
        assert_eq!(from_other("172.30.0.2", 80), "web sees 172.30.0.3");
        assert_eq!(from_other(GATEWAY, 8000), "web sees 172.30.0.1");
        let hairpin = web.inside(|| ask_tcp(GATEWAY, 8000).unwrap());
        assert_eq!(hairpin, "web sees 172.30.0.1");
        let own_loopback = web.inside(|| ask_tcp("127.0.0.1", 80).unwrap());
        assert_eq!(own_loopback, "web sees 127.0.0.1");
    });
}

#[test]
fn a_published_udp_port_answers_from_everywhere() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let dns = Container::start(&bridge, "dns", 2, &["5300:53/udp"]).await;
        let other = Container::start(&bridge, "other", 3, &[]).await;
        dns.serve_udp(53);

        assert_eq!(ask_udp("127.0.0.1", 5300).unwrap(), "dns sees 172.30.0.1");
        assert_eq!(ask_udp(GATEWAY, 5300).unwrap(), "dns sees 172.30.0.1");
        assert_eq!(other.inside(|| ask_udp("172.30.0.2", 53).unwrap()), "dns sees 172.30.0.3");
        assert_eq!(other.inside(|| ask_udp(GATEWAY, 5300).unwrap()), "dns sees 172.30.0.1");
        assert_eq!(dns.inside(|| ask_udp(GATEWAY, 5300).unwrap()), "dns sees 172.30.0.1");
    });
}

#[test]
fn a_port_published_on_one_address_answers_there_alone() {
    on_a_host(|host| async move {
        run("ip address add 192.0.2.1/32 dev lo");
        let bridge = host.bridge().await;
        let web = Container::start(&bridge, "web", 2, &["127.0.0.1:8000:80"]).await;
        web.serve_tcp(80);
        assert_eq!(ask_tcp("127.0.0.1", 8000).unwrap(), "web sees 172.30.0.1");
        assert!(ask_tcp_within(IMPATIENCE, "192.0.2.1", 8000).is_err());
        assert!(ask_tcp_within(IMPATIENCE, GATEWAY, 8000).is_err());
        assert!(web.inside(|| ask_tcp_within(IMPATIENCE, GATEWAY, 8000)).is_err());
    });
}

#[test]
fn a_port_without_a_listener_is_refused_at_once() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let _web = Container::start(&bridge, "web", 2, &["8000:80"]).await;
        let refused = ask_tcp("127.0.0.1", 8000).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

/// CVE-2020-8558: `route_localnet` must not open the host's loopback to containers.
#[test]
fn a_container_does_not_reach_the_hosts_loopback() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let secret = UdpSocket::bind("127.0.0.1:9000").unwrap();
        let container = Container::start(&bridge, "web", 2, &[]).await;
        container.inside(|| {
            run("ip route delete table local local 127.0.0.0/8 dev lo");
            run("ip route delete table local local 127.0.0.1 dev lo");
            run("ip route add 127.0.0.0/8 via 172.30.0.1");
            let socket = UdpSocket::bind("172.30.0.2:0").unwrap();
            socket.send_to(b"to loopback", "127.0.0.1:9000").unwrap();
        });
        secret.set_read_timeout(Some(IMPATIENCE)).unwrap();
        let got = secret.recv_from(&mut [0; 64]);
        assert_eq!(got.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    });
}

/// Nor may it speak in the name of the loopback.
#[test]
fn a_container_does_not_speak_as_the_loopback() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let service = UdpSocket::bind("172.30.0.1:9000").unwrap();
        let container = Container::start(&bridge, "web", 2, &[]).await;
        container.inside(|| {
            run("ip address add 127.0.0.5/32 dev eth0");
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
            let socket = UdpSocket::bind("127.0.0.5:0").unwrap();
            socket.send_to(b"as loopback", "172.30.0.1:9000").unwrap();
        });
        service.set_read_timeout(Some(IMPATIENCE)).unwrap();
        let got = service.recv_from(&mut [0; 64]);
        assert_eq!(got.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    });
}

/// A second machine, one hop away.
#[test]
fn the_outside_reaches_published_ports_and_nothing_else() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let web = Container::start(&bridge, "web", 2, &["8000:80", "127.0.0.1:8001:80"]).await;
        web.serve_tcp(80);
        let outside = std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                std::fs::File::open("/proc/thread-self/ns/net").unwrap()
            });
            made.join().unwrap()
        });
        // `ip` is given the namespace by the path of the descriptor.
        let path = format!("/proc/{}/fd/{}", std::process::id(), {
            use std::os::fd::AsRawFd;
            outside.as_raw_fd()
        });
        run(&format!("ip link add wan type veth peer name lan netns {path}"));
        run("ip address add 198.51.100.1/24 dev wan");
        run("ip link set wan up");
        let from_outside = |work: &(dyn Fn() -> String + Sync)| {
            std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    enter(&outside);
                    work()
                });
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        };
        from_outside(&|| {
            run("ip link set lo up");
            run("ip link set lan up");
            run("ip address add 198.51.100.2/24 dev lan");
            run("ip route add 172.30.0.0/16 via 198.51.100.1");
            run("ip route delete table local local 127.0.0.0/8 dev lo");
            run("ip route delete table local local 127.0.0.1 dev lo");
            run("ip route add 127.0.0.1 via 198.51.100.1")
        });
        let ask = |address: &'static str, port| {
            from_outside(&move || match ask_tcp_within(IMPATIENCE, address, port) {
                Ok(said) => said,
                Err(error) => error.kind().to_string(),
            })
        };
        // The client's own address is seen: nothing is masqueraded on the way in.
        assert_eq!(ask("198.51.100.1", 8000), "web sees 198.51.100.2");
        assert_eq!(ask("172.30.0.2", 80), "timed out");
        assert_eq!(ask("127.0.0.1", 8001), "timed out");

        let listener = std::thread::scope(|scope| {
            let bind = scope.spawn(|| {
                enter(&outside);
                UdpSocket::bind("198.51.100.2:7000").unwrap()
            });
            bind.join().unwrap()
        });
        listener.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        web.inside(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.send_to(b"hello", "198.51.100.2:7000").unwrap();
        });
        let (_, from) = listener.recv_from(&mut [0; 64]).unwrap();
        assert_eq!(from.ip().to_string(), "198.51.100.1", "masqueraded on the way out");
    });
}

/// One UDP sender that never pauses, through three states of the port.
#[test]
fn udp_senders_follow_the_port_when_it_changes_hands() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(ask_udp_from(&client, IMPATIENCE, "127.0.0.1", 5300).is_err());

        let first = Container::start(&bridge, "first", 2, &["5300:53/udp"]).await;
        first.serve_udp(53);
        // Old connections are forgotten a moment later.
        let ask = async || {
            tokio::time::sleep(IMPATIENCE).await;
            ask_udp_from(&client, IMPATIENCE, "127.0.0.1", 5300)
        };
        assert_eq!(ask().await.unwrap(), "first sees 172.30.0.1");

        bridge.detach(&first.endpoint).await.unwrap();
        drop(first);
        let second = Container::start(&bridge, "second", 3, &["5300:53/udp"]).await;
        second.serve_udp(53);
        assert_eq!(ask().await.unwrap(), "second sees 172.30.0.1");
    });
}

/// The kernel retries an unanswered question for an address after a second, so a first packet that was
/// dropped, because an interface was not quite up, shows as a late answer.
#[test]
fn the_first_packet_gets_through() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let host_side = UdpSocket::bind("172.30.0.1:9000").unwrap();
        host_side.set_read_timeout(Some(Duration::from_millis(900))).unwrap();
        for octet in 2..12 {
            let container = Container::start(&bridge, &format!("c{octet}"), octet, &[]).await;
            container.inside(|| {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
                socket.send_to(b"first", "172.30.0.1:9000").unwrap();
            });
            let (_, from) = host_side.recv_from(&mut [0; 64]).unwrap();
            assert_eq!(from.ip(), container.address());
        }
    });
}

#[test]
fn a_container_has_what_docker_gives_it() {
    on_a_host(|host| async move {
        let bridge = host.bridge().await;
        let web = Container::start(&bridge, "web", 2, &[]).await;
        assert_eq!(web.attached.mac, "02:b0:ac:1e:00:02");
        let (links, routes, sysctl) = web.inside(|| {
            let sysctl = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
            (run("ip -o address"), run("ip route"), sysctl.unwrap())
        });
        assert!(links.contains("lo    inet 127.0.0.1/8"), "{links}");
        assert!(links.contains("eth0    inet 172.30.0.2/16 brd 172.30.255.255"), "{links}");
        assert!(!links.contains("fe80"), "{links}");
        assert!(routes.contains("default via 172.30.0.1 dev eth0"), "{routes}");
        assert_eq!(sysctl.trim(), "0");
        let mac = web.inside(|| run("ip -o link show eth0"));
        assert!(mac.contains(&web.attached.mac), "{mac}");
    });
}
