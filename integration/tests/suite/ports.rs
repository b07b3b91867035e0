//! Published ports.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use integration::daemon::Daemon;
use integration::{http, wait};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Answers with what it was told, in capitals.
const ECHO_TCP: &str = "/usr/bin/python3 -c 'import socketserver as s, sys
class H(s.StreamRequestHandler):
    def handle(self): self.wfile.write(self.rfile.readline().upper())
s.TCPServer.allow_reuse_address = True
s.TCPServer((\"\", int(sys.argv[1])), H).serve_forever()'";
const ECHO_UDP: &str = "/usr/bin/python3 -c 'import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"\", int(sys.argv[1])))
while True:
    data, peer = s.recvfrom(2000); s.sendto(data.upper(), peer)'";

fn ask_tcp(daemon: &Daemon, address: IpAddr, port: u16) -> Option<String> {
    daemon.netns().run(|| {
        let limit = wait::patiently(Duration::from_secs(1));
        let mut stream = TcpStream::connect_timeout(&(address, port).into(), limit).ok()?;
        stream.set_read_timeout(Some(limit)).ok()?;
        stream.write_all(b"hello\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        (!answer.is_empty()).then_some(answer)
    })
}

fn ask_udp(daemon: &Daemon, address: IpAddr, port: u16) -> Option<String> {
    daemon.netns().run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.set_read_timeout(Some(wait::patiently(Duration::from_millis(300)))).ok()?;
        socket.send_to(b"hello", (address, port)).ok()?;
        let mut answer = [0; 100];
        let (count, _) = socket.recv_from(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer[..count]).into_owned())
    })
}

#[test]
fn tcp_is_forwarded_to_another_port() {
    let daemon = Daemon::start();
    daemon.ctl(&format!("run -d -p 5000:7000 --name one --rootfs / {ECHO_TCP} 7000")).ok();
    assert_eq!(wait::until("an answer", || ask_tcp(&daemon, LOCALHOST, 5000)), "HELLO\n");
    assert_eq!(ask_tcp(&daemon, LOCALHOST, 7000), None);
}

#[test]
fn udp_is_forwarded() {
    let daemon = Daemon::start();
    daemon.ctl(&format!("run -d -p 5000:7000/udp --name one --rootfs / {ECHO_UDP} 7000")).ok();
    assert_eq!(wait::until("an answer", || ask_udp(&daemon, LOCALHOST, 5000)), "HELLO");
    assert!(daemon.ctl("ps").text().contains("0.0.0.0:5000->7000/udp"));
}

#[test]
fn one_host_address_can_be_chosen() {
    let daemon = Daemon::start();
    daemon
        .ctl(&format!("run -d -p 127.0.0.1:5000:7000 --name one --rootfs / {ECHO_TCP} 7000"))
        .ok();
    wait::until("an answer", || ask_tcp(&daemon, LOCALHOST, 5000));
    let gateway: IpAddr = daemon.api().get("one").network.unwrap().gateway.parse().unwrap();
    assert_eq!(ask_tcp(&daemon, gateway, 5000), None, "not through another address");
    assert!(daemon.ctl("ps").text().contains("127.0.0.1:5000->7000/tcp"));
}

#[test]
fn a_free_host_port_is_chosen_when_none_is_named() {
    let daemon = Daemon::start();
    daemon.ctl(&format!("run -d -p 7000 --name one --rootfs / {ECHO_TCP} 7000")).ok();
    let port = daemon.api().get("one").network.unwrap().ports[0].host_port;
    assert_ne!(port, 0);
    wait::until("an answer", || ask_tcp(&daemon, LOCALHOST, port.try_into().unwrap()));
}

#[test]
fn several_ports_of_one_container() {
    let daemon = Daemon::start();
    daemon.ctl(&format!("run -d -p 5000:7000 -p 5001:7000 -p 5000:7000/udp --name one --rootfs / {ECHO_TCP} 7000")).ok();
    wait::until("an answer", || ask_tcp(&daemon, LOCALHOST, 5000));
    assert_eq!(ask_tcp(&daemon, LOCALHOST, 5001).as_deref(), Some("HELLO\n"));
}

#[test]
fn a_port_of_another_container_is_refused_naming_it() {
    let daemon = Daemon::start();
    daemon.ctl("run -d -p 5000:7000 --name first --rootfs / /bin/sleep 600").ok();
    daemon
        .ctl("run -d -p 5000:7000 --name second --rootfs / /bin/sleep 600")
        .fails(125, &["5000", "first"]);
    assert_eq!(daemon.ctl("ps -a --format '{{.Names}}'").text(), "first");
}

#[test]
fn a_port_of_a_process_of_the_host_is_refused_naming_it() {
    let daemon = Daemon::start();
    let listener = daemon.netns().run(|| TcpListener::bind("0.0.0.0:5000").unwrap());
    let pid = std::process::id().to_string();
    daemon.ctl("run -d -p 5000:7000 --rootfs / /bin/sleep 600").fails(125, &["5000", &pid]);
    drop(listener);
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
}

#[test]
fn a_published_port_is_taken_for_the_host_while_the_container_lives() {
    let mut daemon = Daemon::start();
    daemon.ctl("run -d -p 5000:7000 -p 5000:7000/udp --name one --rootfs / /bin/sleep 600").ok();
    let bind = |daemon: &Daemon| {
        daemon.netns().run(|| {
            (TcpListener::bind("0.0.0.0:5000").is_ok(), UdpSocket::bind("0.0.0.0:5000").is_ok())
        })
    };
    assert_eq!(bind(&daemon), (false, false));
    daemon.kill();
    assert_eq!(bind(&daemon), (false, false), "also while the daemon is dead");
    daemon.start_again();
    daemon.ctl("rm -f one").ok();
    wait::until_true("the port to be free", || bind(&daemon) == (true, true));
}

#[test]
fn a_port_is_free_again_after_stop() {
    let daemon = Daemon::start();
    for name in ["first", "second"] {
        daemon.ctl(&format!("run -d -p 5000:7000 --name {name} --rootfs / {ECHO_TCP} 7000")).ok();
        wait::until("an answer", || ask_tcp(&daemon, LOCALHOST, 5000));
        daemon.ctl(&format!("stop -t 0 {name}")).ok();
        assert_eq!(ask_tcp(&daemon, LOCALHOST, 5000), None);
    }
}

#[test]
fn a_new_container_on_the_same_udp_port_gets_its_datagrams() {
    let daemon = Daemon::start();
    for name in ["first", "second"] {
        daemon
            .ctl(&format!("run -d -p 5000:7000/udp --name {name} --rootfs / {ECHO_UDP} 7000"))
            .ok();
        wait::until("an answer", || ask_udp(&daemon, LOCALHOST, 5000));
        daemon.ctl(&format!("rm -f {name}")).ok();
    }
}

#[test]
fn the_hosts_loopback_is_not_in_reach_of_a_container() {
    let daemon = Daemon::start();
    let listener = daemon.netns().run(|| TcpListener::bind("127.0.0.1:5005").unwrap());
    daemon.ctl(&format!("run -d -p 5000:7000 --name one --rootfs / {ECHO_TCP} 7000")).ok();
    let network = daemon.api().get("one").network.unwrap();
    // A packet for 127.0.0.1 that is sent out to the bridge, as an attacker would (CVE-2020-8558).
    let script = format!(
        "ip route add 127.0.0.1 via {} dev eth0 table local 2>/dev/null; ip route del local 127.0.0.1 table local 2>/dev/null; ip addr del 127.0.0.1/8 dev lo 2>/dev/null; timeout 2 /usr/bin/python3 -c \"import socket; socket.create_connection((chr(49)+chr(50)+chr(55)+chr(46)+chr(48)+chr(46)+chr(48)+chr(46)+chr(49), 5005), 1); print(chr(88))\"; true",
        network.gateway
    );
    let output = daemon.ctl(&format!("run --rm --privileged --rootfs / /bin/sh -c 'echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; {script}'"));
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(!output.stdout.contains('X'), "it reached the host's loopback");
    drop(listener);
}

#[test]
fn an_ipv6_host_address_is_refused_by_name() {
    let daemon = Daemon::start();
    daemon.ctl("run --rm -p [::1]:5000:7000 --rootfs / /bin/true").fails(125, &["::1"]);
}

#[test]
fn a_malformed_port_is_refused_naming_it() {
    let daemon = Daemon::start();
    for port in ["x", "70000:80", "80:x", "80:80/sctpx", "1.2.3:80:80", ":", "80:0"] {
        daemon.ctl(&format!("run --rm -p {port} --rootfs / /bin/true")).fails(125, &[port]);
    }
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
}

#[test]
fn forwarding_goes_on_while_the_daemon_is_dead() {
    let mut daemon = Daemon::start();
    daemon
        .ctl("run -d -p 5000:7000 --name one --rootfs / /usr/bin/python3 -m http.server 7000")
        .ok();
    let answers = |daemon: &Daemon| http::get(&daemon.netns().path(), LOCALHOST, 5000, "/").is_ok();
    wait::until_true("an answer", || answers(&daemon));
    daemon.kill();
    assert!(answers(&daemon));
    daemon.start_again();
    assert!(answers(&daemon));
}
