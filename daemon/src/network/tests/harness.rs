//! A host in a network namespace of its own, and containers on its bridge that answer.

use std::fmt::Debug;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sched::CloneFlags;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::super::netlink::{Family, Socket};
use super::super::{
    Attached, BoundPort, Bridge, Endpoint, Publish, Published, Settings, Subnet, bind_ports, link,
    parse_publish,
};

pub(super) const BRIDGE: &str = "bosun0";
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// For what must not get through.
pub(super) const IMPATIENCE: Duration = Duration::from_millis(300);

/// Runs a test on a thread in a network namespace of its own, loopback up. Threads and processes
/// that it starts are in there too.
pub(super) fn on_a_host<F: Future<Output = ()>>(test: impl FnOnce(Host) -> F + Send) {
    let run = || {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
        link::set_up(&mut Socket::open(Family::Route).unwrap(), 1).unwrap();
        let locks = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(Host { locks }));
    };
    thread::scope(|scope| {
        scope.spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// The machine as a test sees it.
#[derive(Debug)]
pub(super) struct Host {
    locks: tempfile::TempDir,
}

impl Host {
    pub(super) fn settings(&self) -> Settings {
        Settings {
            bridge: BRIDGE.to_owned(),
            subnet: Subnet::new(Ipv4Addr::new(172, 30, 0, 0), 16),
            lock_directory: self.locks.path().to_owned(),
        }
    }

    pub(super) async fn bridge(&self) -> Bridge {
        Bridge::open(self.settings()).await.unwrap().0
    }

    /// What is left of the bridge: nothing but the loopback, no table.
    pub(super) fn assert_clean(&self) {
        let links = link::list(&mut Socket::open(Family::Route).unwrap()).unwrap();
        let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
        assert_eq!(names, ["lo"]);
        assert_eq!(run("nft list ruleset"), "");
    }
}

/// Runs a command line in the network namespace of the thread.
pub(super) fn run(line: &str) -> String {
    let mut words = line.split_ascii_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The kernel removes interfaces of namespaces that ended in its own time.
pub(super) async fn assert_gone(interface: &str) {
    for _ in 0..100 {
        if !run("ip -o link").contains(interface) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    panic!("{interface} is still there: who holds its namespace?");
}

/// An attached container without processes but those of the test.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) endpoint: Endpoint,
    pub(super) attached: Attached,
    /// What the shim would hold.
    _sockets: Vec<OwnedFd>,
}

pub(super) fn published(ports: &[&str]) -> (Vec<Published>, Vec<OwnedFd>) {
    let wanted: Vec<Publish> = ports.iter().flat_map(|port| parse_publish(port).unwrap()).collect();
    let bound = bind_ports(&wanted, &[]).unwrap();
    bound.into_iter().map(|BoundPort { published, socket }| (published, socket)).unzip()
}

pub(super) fn endpoint(id: &str, last_octet: u8, ports: Vec<Published>) -> Endpoint {
    Endpoint {
        namespace: "default".parse().unwrap(),
        id: id.parse().unwrap(),
        address: Ipv4Addr::new(172, 30, 0, last_octet),
        ports,
    }
}

impl Container {
    pub(super) async fn start(bridge: &Bridge, id: &str, last_octet: u8, ports: &[&str]) -> Self {
        let (published, sockets) = published(ports);
        let endpoint = endpoint(id, last_octet, published);
        let attached = bridge.attach(&endpoint).await.unwrap();
        Self { endpoint, attached, _sockets: sockets }
    }

    /// Of a test that attached by itself.
    pub(super) fn from(endpoint: Endpoint, attached: Attached) -> Self {
        Self { endpoint, attached, _sockets: Vec::new() }
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.endpoint.address
    }

    /// Runs `work` inside, on a thread of its own.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                enter(&self.attached.netns);
                work()
            });
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Serves TCP for as long as the test runs: says its name and whom it sees.
    pub(super) fn serve_tcp(&self, port: u16) {
        let name = self.endpoint.id.to_string();
        let listener = self.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        thread::spawn(move || {
            while let Ok((mut client, from)) = listener.accept() {
                let _ = write!(client, "{name} sees {}", from.ip());
            }
        });
    }

    pub(super) fn serve_udp(&self, port: u16) {
        let name = self.endpoint.id.to_string();
        let socket = self.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(format!("{name} sees {}", from.ip()).as_bytes(), from);
            }
        });
    }
}

pub(super) fn enter(netns: impl AsFd) {
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// What a server says to a client in the thread's network namespace.
pub(super) fn ask_tcp(address: impl ToString, port: u16) -> io::Result<String> {
    ask_tcp_within(PATIENCE, address, port)
}

pub(super) fn ask_tcp_within(
    patience: Duration,
    address: impl ToString,
    port: u16,
) -> io::Result<String> {
    let address: Ipv4Addr = address.to_string().parse().unwrap();
    let address = SocketAddr::V4(SocketAddrV4::new(address, port));
    let mut client = TcpStream::connect_timeout(&address, patience)?;
    client.set_read_timeout(Some(patience))?;
    let mut said = String::new();
    client.read_to_string(&mut said)?;
    Ok(said)
}

pub(super) fn ask_udp(address: impl ToString, port: u16) -> io::Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    ask_udp_from(&socket, PATIENCE, address, port)
}

pub(super) fn ask_udp_from(
    socket: &UdpSocket,
    patience: Duration,
    address: impl ToString,
    port: u16,
) -> io::Result<String> {
    let address: Ipv4Addr = address.to_string().parse().unwrap();
    socket.set_read_timeout(Some(patience))?;
    socket.send_to(b"who?", (address, port))?;
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer)?;
    // An answer from elsewhere would be refused by a connected socket.
    assert_eq!(from, SocketAddr::from((address, port)));
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// The error's words with those of its sources.
pub(super) fn said<T: Debug>(result: Result<T, super::super::Error>) -> String {
    let error = result.unwrap_err();
    let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}
