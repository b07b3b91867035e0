//! The modes of a container's network, and names inside.

use integration::daemon::Daemon;
use integration::netns;
use integration::process::Process;

#[test]
fn none_is_a_loopback_and_nothing_else() {
    let daemon = Daemon::start();
    let shown = daemon.ctl("run --rm --net none --rootfs / /bin/sh -c 'ls /sys/class/net; cat /sys/class/net/lo/flags'").text();
    assert_eq!(shown, "lo\n0x9");
}

#[test]
fn host_is_the_network_of_the_daemon() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --net host --rootfs / /bin/sleep 600").ok();
    assert_eq!(
        daemon.process("one").namespace("net"),
        Process(daemon.pid().unwrap()).namespace("net")
    );
}

#[test]
fn container_is_the_network_of_another_one() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --rootfs / /bin/sleep 600").ok();
    daemon.ctl("run -d --name two --net container:one --rootfs / /bin/sleep 600").ok();
    assert_eq!(daemon.process("two").namespace("net"), daemon.process("one").namespace("net"));
    assert_ne!(daemon.process("two").namespace("mnt"), daemon.process("one").namespace("mnt"));
}

#[test]
fn the_network_of_nobody_is_refused() {
    let daemon = Daemon::start();
    daemon.ctl("run --rm --net container:nobody --rootfs / /bin/true").fails(125, &["nobody"]);
    daemon.ctl("run --rm --net no-such-mode --rootfs / /bin/true").fails(125, &["no-such-mode"]);
}

#[test]
fn containers_reach_each_other_and_the_bridge() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --rootfs / /usr/bin/python3 -m http.server 7000").ok();
    daemon.until_status("one", "running");
    let network = daemon.api().get("one").network.unwrap();
    let fetch = format!(
        "run --rm --rootfs / /usr/bin/python3 -c 'import urllib.request as u, time
for n in range(50):
    try: print(u.urlopen(\"http://{}:7000\", timeout=5).status); break
    except OSError: time.sleep(0.1)'",
        network.address
    );
    assert_eq!(daemon.ctl(&fetch).text(), "200");
}

#[test]
fn every_container_has_an_address_of_its_own_in_the_subnet() {
    let daemon = Daemon::start();
    let addresses: std::collections::BTreeSet<String> = (0..4)
        .map(|n| {
            daemon.ctl(&format!("run -d --name c{n} --rootfs / /bin/sleep 600")).ok();
            daemon.api().get(&format!("c{n}")).network.unwrap().address
        })
        .collect();
    assert_eq!(addresses.len(), 4);
    let start = daemon.place().subnet.rsplit_once('.').unwrap().0;
    assert!(addresses.iter().all(|address| address.starts_with(start)), "{addresses:?}");
    let seen = daemon.inspect("c0", "{{.NetworkSettings.IPAddress}}");
    assert!(addresses.contains(&seen), "{seen}");
}

#[test]
fn hostname_and_hosts_are_its_own() {
    let daemon = Daemon::start();
    let shown = daemon.ctl("run --rm -h box --rootfs / /bin/sh -c 'hostname; cat /etc/hostname; grep -c box /etc/hosts; grep -c localhost /etc/hosts'").text();
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(&lines[..3], ["box", "box", "1"]);
    assert_ne!(lines[3], "0");
    let ours = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    assert_ne!(ours.trim(), "box");
}

#[test]
fn foreign_tables_are_left_alone() {
    let daemon = Daemon::start();
    let _ = daemon.netns().output("nft add table ip mine");
    daemon.ctl("run --rm -p 5000:5000 --rootfs / /bin/true").ok();
    assert!(daemon.netns().output("nft list tables").contains("table ip mine"));
}

#[test]
fn an_interface_of_the_container_is_gone_with_it() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --rootfs / /bin/sleep 600").ok();
    let inside = daemon.process("one").path("ns/net");
    let names =
        netns::inside(&inside, || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    assert!(names.contains("eth0"), "{names}");
    daemon.ctl("rm -f one").ok();
    daemon.expect_nothing_left();
}
