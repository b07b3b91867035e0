//! The runtime with the plugins of Debian's containernetworking-plugins, in network and mount namespaces of
//! the tests' own: no bridge and no rule of the machine is touched. Needs root.
#![expect(clippy::unwrap_used, reason = "what surprises a test ends it")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use bosun_cni::{
    Arguments, Bandwidth, Capabilities, Checked, Cni, Container, Error, PortMapping, Protocol,
    Settings,
};
use nix::sched::CloneFlags;
use serde_json::{Value, json};

const HOST_PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(20);

/// A machine whose `/run` and network are its own.
struct Machine {
    directory: tempfile::TempDir,
}

/// What plugins may leave: interfaces, rules of both families, addresses handed out, cached results.
#[derive(Debug, PartialEq)]
struct State {
    interfaces: BTreeSet<String>,
    rules: Vec<String>,
    files: BTreeSet<PathBuf>,
}

/// Runs a test on a thread in namespaces of its own. Processes that it starts are in there too.
fn on_a_machine<F: Future<Output = ()>>(test: impl FnOnce(Machine) -> F + Send) {
    let run = || {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        sh("mount --make-rprivate /");
        sh("mount -t tmpfs tmpfs /run");
        sh("ip link set lo up");
        let machine = Machine { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(machine.path("net.d")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(machine));
    };
    thread::scope(|scope| {
        scope.spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn sh(line: &str) -> String {
    let mut words = line.split_ascii_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

impl Machine {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn cni(&self) -> Cni {
        Cni::new(Settings {
            config_directory: self.path("net.d"),
            cache_directory: self.path("cache"),
            run_directory: self.path("run"),
            ..Settings::default()
        })
    }

    /// A bridge with both families, and a chain behind it.
    ///
    /// `masquerade`: the plugin (1.1.1) finds its rules by the addresses in the namespace. When that is gone
    /// before DEL, it leaves them.
    fn bridge(&self, masquerade: bool, more: &[Value]) {
        let mut plugins = vec![
            json!({
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": masquerade,
                "ipam": {
                    "type": "host-local",
                    "dataDir": self.path("addresses"),
                    "ranges": [[{ "subnet": "10.88.0.0/24" }], [{ "subnet": "fd00:88::/64" }]],
                    "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
                },
            }),
            json!({ "type": "portmap", "snat": true, "capabilities": { "portMappings": true } }),
            json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } }),
            json!({ "type": "firewall", "backend": "iptables" }),
        ];
        plugins.extend(more.iter().cloned());
        let list = json!({ "cniVersion": "1.0.0", "name": "net", "plugins": plugins });
        fs::write(self.path("net.d/10-net.conflist"), list.to_string()).unwrap();
    }

    fn state(&self) -> State {
        let mut rules = Vec::new();
        for program in ["iptables-save", "ip6tables-save"] {
            let text = sh(program);
            // Comments have the time, chains have counters.
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            rules.extend(lines.map(|line| line.split(" [").next().unwrap_or(line).to_owned()));
        }
        let links = sh("ip -o link");
        State {
            interfaces: links.lines().map(|line| line.split(": ").nth(1).unwrap().into()).collect(),
            rules,
            files: files(self.directory.path()),
        }
    }
}

fn files(directory: &std::path::Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path);
        }
    }
    found
}

/// A pod's network namespace, with its loopback up.
fn pod(id: &str) -> Container {
    sh(&format!("ip netns add {id}"));
    sh(&format!("ip -n {id} link set lo up"));
    Container {
        id: id.into(),
        netns: Some(format!("/run/netns/{id}").into()),
        arguments: Arguments::kubernetes("default", id, id, "uid").unwrap(),
        capabilities: Capabilities {
            port_mappings: vec![PortMapping {
                host_port: HOST_PORT,
                container_port: 80,
                protocol: Protocol::Tcp,
                host_ip: None,
            }],
            bandwidth: Some(Bandwidth {
                ingress_rate: 10_000_000,
                ingress_burst: 10_000_000,
                egress_rate: 10_000_000,
                egress_burst: 10_000_000,
            }),
            ..Capabilities::default()
        },
    }
}

/// Serves in a pod: each client is told the pod's name.
fn serve(pod: &Container) {
    let (netns, name) = (File::open(pod.netns.as_ref().unwrap()).unwrap(), pod.id.clone());
    let listen = move || {
        nix::sched::setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
        TcpListener::bind("[::]:80").unwrap()
    };
    let listener = thread::spawn(listen).join().unwrap();
    thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let _ = client.write_all(name.as_bytes());
        }
    });
}

/// What a server says. A bridge changes its address of the link with its first port, and a connection from
/// the old one comes to nothing: so it is tried again.
fn ask(address: impl Into<IpAddr>, port: u16) -> io::Result<String> {
    let (address, until) = (SocketAddr::new(address.into(), port), Instant::now() + PATIENCE);
    let mut client = loop {
        match TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut && Instant::now() < until => {}
            connected => break connected?,
        }
    };
    client.set_read_timeout(Some(PATIENCE))?;
    let mut said = String::new();
    client.read_to_string(&mut said)?;
    Ok(said)
}

#[test]
fn a_pod_is_on_the_bridge_with_both_families_and_its_port_and_leaves_nothing() {
    on_a_machine(|machine| async move {
        machine.bridge(true, &[]);
        let cni = machine.cni();
        assert!(cni.status().await.is_ready(), "{}", cni.status().await);
        assert!(cni.versions("bridge").await.unwrap().contains(&"1.0.0".to_owned()));

        // The first makes what is every pod's: the bridge, and chains.
        let one = pod("one");
        cni.attach(one.clone()).await.unwrap();
        cni.detach(one).await.unwrap();
        let before = machine.state();

        let web = pod("web");
        let attached = cni.attach(web.clone()).await.unwrap();
        let addresses: Vec<IpAddr> = attached[0].result.container_ips().collect();
        assert_eq!(addresses.len(), 2, "{attached:?}");
        assert!(addresses[0].is_ipv4() && addresses[1].is_ipv6());
        let inside = sh("ip -n web -o address show dev eth0");
        for address in &addresses {
            assert!(inside.contains(&address.to_string()), "{inside}");
        }
        assert!(sh("ip -n web route").contains("default via 10.88.0.1"));
        assert_ne!(machine.state(), before);

        serve(&web);
        for address in addresses {
            assert_eq!(ask(address, 80).unwrap(), "web", "{address}");
        }
        assert_eq!(ask([127, 0, 0, 1], HOST_PORT).unwrap(), "web");
        assert_eq!(ask([10, 88, 0, 1], HOST_PORT).unwrap(), "web");
        assert!(sh("ip -d link").contains("tbf"));

        // By a daemon that knows nothing of it.
        machine.cni().detach(web.clone()).await.unwrap();
        assert_eq!(machine.state(), before);
        assert!(ask([127, 0, 0, 1], HOST_PORT).is_err());
        machine.cni().detach(web).await.unwrap();
        assert_eq!(machine.state(), before);
    });
}

#[test]
fn what_lost_its_namespace_or_its_daemon_or_failed_midway_leaves_nothing() {
    on_a_machine(|machine| async move {
        machine.bridge(false, &[]);
        let cni = machine.cni();
        let one = pod("one");
        cni.attach(one.clone()).await.unwrap();
        cni.detach(one.clone()).await.unwrap();
        let before = machine.state();

        // The namespace first.
        cni.attach(one.clone()).await.unwrap();
        sh("ip netns delete one");
        cni.detach(one).await.unwrap();
        assert_eq!(machine.state(), before);

        // Nobody detaches: GC does.
        for id in ["two", "three"] {
            let mut pod = pod(id);
            pod.capabilities.port_mappings.clear();
            cni.attach(pod).await.unwrap();
        }
        sh("ip netns delete two");
        let collected = cni.collect(async { ["three".to_owned()].into() }).await;
        assert!(collected.failed.is_empty(), "{:?}", collected.failed);
        assert_eq!(collected.removed.len(), 1);
        assert_eq!(collected.removed[0].container, "two");
        assert_eq!(cni.attached("three").await.unwrap().len(), 1);
        assert_ne!(machine.state(), before);
        assert_eq!(cni.collect(async { [].into() }).await.removed.len(), 1);
        assert_eq!(machine.state(), before);

        // The last of the chain fails.
        machine.bridge(true, &[json!({ "type": "tuning", "sysctl": { "net.core.nothing": "1" } })]);
        let error = cni.attach(pod("four")).await.unwrap_err();
        assert!(error.to_string().contains("\"tuning\": ADD"), "{error}");
        assert!(matches!(error, Error::Add { left: None, .. }), "{error}");
        assert_eq!(machine.state(), before);
        assert!(!sh("ip -n four -o link").contains("eth0"));
    });
}

/// Without a port: for one on two families, portmap 1.1.1 looks among the rules of the wrong one.
#[test]
fn check_sees_what_is_not_as_it_was_made() {
    on_a_machine(|machine| async move {
        machine.bridge(true, &[]);
        let mut web = pod("web");
        web.capabilities.port_mappings.clear();
        machine.cni().attach(web.clone()).await.unwrap();
        let checked = machine.cni().check(web.clone()).await.unwrap();
        assert_eq!(checked, [("eth0".into(), Checked::Whole)]);
        sh("ip -n web address flush dev eth0");
        let error = machine.cni().check(web.clone()).await.unwrap_err();
        assert!(error.to_string().contains("\"bridge\": CHECK"), "{error}");
        machine.cni().detach(web).await.unwrap();
    });
}

#[test]
fn an_older_configuration_of_one_plugin_does_as_well() {
    on_a_machine(|machine| async move {
        for version in ["0.2.0", "0.4.0"] {
            let one = json!({
                "cniVersion": version,
                "name": "pair",
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "dataDir": machine.path("addresses"),
                    "subnet": "10.89.0.0/24",
                },
            });
            fs::write(machine.path("net.d/20-pair.conf"), one.to_string()).unwrap();
            let cni = machine.cni();
            let id = format!("v{}", version.replace('.', "-"));
            let mut pod = pod(&id);
            pod.capabilities = Capabilities::default();
            let attached = cni.attach(pod.clone()).await.unwrap();
            let ips: Vec<IpAddr> = attached[0].result.container_ips().collect();
            assert_eq!(ips.len(), 1, "{attached:?}");
            serve(&pod);
            assert_eq!(ask(ips[0], 80).unwrap(), id);
            cni.detach(pod).await.unwrap();
            let interfaces = machine.state().interfaces;
            assert_eq!(interfaces, BTreeSet::from(["lo".to_owned()]), "{version}");
        }
    });
}
