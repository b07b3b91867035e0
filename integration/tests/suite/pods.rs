//! Pods: containers that share what a sandbox holds.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use integration::daemon::Daemon;
use integration::{http, wait};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SHARED: &str = "for kind in ipc uts net; do readlink /proc/self/ns/$kind; done";

fn pod(daemon: &Daemon, flags: &str) -> String {
    daemon.ctl(&format!("pod create {flags}")).text().trim().to_owned()
}

fn shown(daemon: &Daemon, field: &str) -> String {
    let answer = daemon.ctl(&format!("pod inspect --format {{{{.{field}}}}} one"));
    answer.text().trim().to_owned()
}

fn inside(daemon: &Daemon, script: &str) -> String {
    daemon.ctl(&format!("run --rm --pod one --rootfs / /bin/sh -c '{script}'")).text()
}

fn serves(daemon: &Daemon) -> bool {
    let answer = http::get(&daemon.netns().path(), LOCALHOST, 5000, "/");
    answer.is_ok_and(|response| response.status == 200)
}

#[test]
fn containers_share_namespaces_and_no_process_holds_them() {
    let daemon = Daemon::start();
    pod(&daemon, "--net none --hostname box one");
    assert_eq!(shown(&daemon, "Pid"), "0");
    let seen = inside(&daemon, &format!("hostname; {SHARED}"));
    assert!(seen.starts_with("box\nipc:["), "{seen}");
    assert_eq!(seen, inside(&daemon, &format!("hostname; {SHARED}")));
    let alone = daemon.ctl(&format!("run --rm --net none --rootfs / /bin/sh -c '{SHARED}'"));
    for namespace in alone.text().lines() {
        assert!(!seen.contains(namespace), "{namespace}");
    }
    inside(&daemon, "echo note > /dev/shm/note");
    assert_eq!(inside(&daemon, "cat /dev/shm/note"), "note");
}

/// Fails when its group, which is not there, is looked for: that was an internal error.
#[test]
fn a_sandbox_can_not_be_held_still_measured_or_limited() {
    let daemon = Daemon::start();
    let id = pod(&daemon, "");
    for words in ["pause", "stats --no-stream", "update --memory 64m"] {
        let output = daemon.ctl(&format!("{words} {id}"));
        output.fails(1, &["it is the sandbox of a pod, which has no processes"]);
    }
    daemon.ctl(&format!("pod rm -f {id}")).ok();
    daemon.expect_nothing_left();
}

#[test]
fn processes_are_shared_only_on_request() {
    let daemon = Daemon::start();
    pod(&daemon, "--net none --share-pid one");
    assert_ne!(shown(&daemon, "Pid"), "0");
    daemon.ctl("run -d --name sleeper --pod one --rootfs / /bin/sleep 600").ok();
    let seen = inside(&daemon, "cat /proc/[0-9]*/comm; ls -l /proc/1/root/ 2>&1");
    assert!(seen.starts_with("bosun-init\nsleep\n"), "{seen}");
    assert!(!seen.contains("boot"), "the init's own root is empty: {seen}");
    daemon.ctl("pod rm -f one").ok();
    pod(&daemon, "--net none one");
    assert_eq!(inside(&daemon, "cat /proc/1/comm; true"), "sh");
}

#[test]
fn a_network_of_its_own_has_its_loopback_up() {
    let daemon = Daemon::start();
    pod(&daemon, "--net none one");
    let up = 0x1 | 0x8;
    assert_eq!(inside(&daemon, "cat /sys/class/net/lo/flags"), format!("{up:#x}"));
}

#[test]
fn its_ports_outlive_containers_and_the_daemon() {
    let mut daemon = Daemon::start();
    pod(&daemon, "-p 5000:7000 one");
    let server = "--pod one --rootfs / /usr/bin/python3 -m http.server 7000";
    daemon.ctl(&format!("run -d --name first {server}")).ok();
    wait::until_true("an answer", || serves(&daemon));
    daemon.kill();
    assert!(serves(&daemon), "without a daemon");
    daemon.start_again();
    assert_eq!(shown(&daemon, "State"), "running");
    daemon.ctl("rm -f first").ok();
    daemon.ctl(&format!("run -d --name second {server}")).ok();
    wait::until_true("an answer again", || serves(&daemon));
}

#[test]
fn its_network_is_where_others_look_for_it() {
    let daemon = Daemon::start();
    let id = pod(&daemon, "--net none one");
    let path = format!("/run/netns/bosun-{id}");
    assert_eq!(shown(&daemon, "NetworkNamespace"), path);
    let address = integration::netns::run(
        std::process::Command::new("nsenter").arg(format!("--net={path}")).args(["ip", "link"]),
    );
    assert!(address.contains("lo"), "{address}");
    daemon.ctl("pod stop one").ok();
    wait::until_true("its end", || !Path::new(&path).exists());
    daemon.ctl("pod start one").ok();
    assert!(Path::new(&path).exists());
}

#[test]
fn stop_and_start_keep_its_containers() {
    let daemon = Daemon::start();
    pod(&daemon, "--net none one");
    daemon.ctl("run -d --name sleeper --init --pod one --rootfs / /bin/sleep 600").ok();
    daemon.ctl("pod stop one").ok();
    assert_eq!(daemon.inspect("sleeper", "{{.State.Status}}"), "exited");
    daemon.ctl("start sleeper").fails(1, &["is not running"]);
    daemon.ctl("pod start one").ok();
    daemon.ctl("start sleeper").ok();
    daemon.ctl("pod rm one").fails(1, &["\"sleeper\"", "-f"]);
    daemon.ctl("pod rm -f one").ok();
    assert_eq!(daemon.ctl("ps -aq").text(), "");
}

#[test]
fn a_killed_shim_is_the_end_of_the_sandbox_and_said_to_be() {
    let daemon = Daemon::start();
    let id = pod(&daemon, "--net none one");
    integration::process::Process(shown(&daemon, "ShimPid").parse().unwrap()).kill();
    wait::until_true("its end", || shown(&daemon, "State") == "exited");
    let path = format!("/run/netns/bosun-{id}");
    wait::until_true("the binding's end", || !Path::new(&path).exists());
    daemon.ctl("run --rm --pod one --rootfs / /bin/true").fails(125, &["is not running"]);
    daemon.ctl("pod start one").ok();
    daemon.ctl("run --rm --pod one --rootfs / /bin/true").ok();
}

#[test]
fn kernel_parameters_are_its_own() {
    let daemon = Daemon::start();
    pod(
        &daemon,
        "--net none --sysctl net.ipv4.ip_default_ttl=77 --sysctl kernel.shmmax=123456 one",
    );
    let seen = inside(&daemon, "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shmmax");
    assert_eq!(seen, "77\n123456");
    daemon.ctl("pod rm -f one").ok();
    daemon.ctl("pod create --sysctl kernel.sysrq=1 two").fails(1, &["linux.sysctl.kernel.sysrq"]);
    assert_eq!(daemon.ctl("pod ls -q").text(), "");
}

#[test]
fn what_is_shared_is_not_asked_for_twice() {
    let daemon = Daemon::start();
    pod(&daemon, "--net none one");
    for (flags, said) in [
        ("--net host", "network"),
        ("--hostname other", "host name"),
        ("-p 80:80", "published ports"),
    ] {
        let run = format!("run --rm --pod one {flags} --rootfs / /bin/true");
        daemon.ctl(&run).fails(125, &[said, "one"]);
    }
    daemon.ctl("run --rm --pod two --rootfs / /bin/true").fails(125, &["no such pod", "two"]);
    daemon.ctl("pod create --net container:one two").fails(1, &["bridge, host or none"]);
    daemon.ctl("pod create one").fails(1, &["name \"one\" is in use by pod \"one\""]);
    daemon.ctl("exec one /bin/true").fails(125, &["a sandbox has no processes"]);
    assert_eq!(daemon.ctl("ps -aq").text(), "", "it is no container");
}

#[test]
fn containers_share_its_user_namespace_with_a_rootfs_that_is_theirs() {
    let daemon = Daemon::start();
    let maps = "--uidmap 0:1000000:65536 --gidmap 0:2000000:65536";
    for share_pid in ["", "--share-pid"] {
        pod(&daemon, &format!("-p 5000:80 --hostname box {share_pid} {maps} one"));
        assert_eq!(shown(&daemon, "IDMappings.UidMap"), "[0:1000000:65536]");
        assert_eq!(shown(&daemon, "IDMappings.GidMap"), "[0:2000000:65536]");
        let user = format!("hostname; readlink /proc/self/ns/user; {SHARED}");
        let seen = inside(&daemon, &user);
        assert_eq!(seen, inside(&daemon, &user));
        let host = std::fs::read_link("/proc/self/ns/user").unwrap();
        assert!(
            seen.starts_with("box\nuser:[") && !seen.contains(host.to_str().unwrap()),
            "{seen}"
        );
        let script = "touch /made; stat -c %u:%g /made /etc/passwd /etc/hosts /dev/shm";
        assert_eq!(inside(&daemon, script), "0:0\n0:0\n0:0\n0:0");
        let rename =
            "run --rm --cap-add SYS_ADMIN --pod one --rootfs / sh -c 'hostname new; hostname'";
        assert_eq!(daemon.ctl(rename).text(), "new", "its root has power over what the pod shares");
        inside(&daemon, "echo note > /dev/shm/note");
        assert_eq!(inside(&daemon, "cat /dev/shm/note; stat -c %u /dev/shm/note"), "note\n0");
        let server = "--pod one --rootfs / /usr/bin/python3 -m http.server 80";
        daemon.ctl(&format!("run -d --name web {server}")).ok();
        wait::until_true("an answer on a low port", || serves(&daemon));
        let status = std::fs::read_to_string(daemon.process("web").path("status")).unwrap();
        assert!(
            status.contains("Uid:\t1000000\t") && status.contains("Gid:\t2000000\t"),
            "{status}"
        );
        assert_eq!(daemon.ctl("exec web id -u").text(), "0");
        daemon.ctl("pod rm -f one").ok();
    }
}

#[test]
fn its_user_namespace_outlives_the_daemon_and_its_own_stop() {
    let mut daemon = Daemon::start();
    pod(&daemon, "--net none --uidmap 0:1000000:65536 one");
    let user = "readlink /proc/self/ns/user; cat /proc/self/uid_map | tr -s \" \"; cat /sys/class/net/lo/flags";
    let before = inside(&daemon, user);
    assert!(before.ends_with("\n 0 1000000 65536\n0x9"), "{before}");
    daemon.kill();
    daemon.start_again();
    assert_eq!(inside(&daemon, user), before);
    daemon.ctl("pod stop one").ok();
    daemon.ctl("pod start one").ok();
    let after = inside(&daemon, user);
    assert!(after.ends_with("\n 0 1000000 65536\n0x9"), "{after}");
}

#[test]
fn kernel_parameters_of_a_user_namespace_are_set_whoever_its_network_belongs_to() {
    let daemon = Daemon::start();
    for network in ["none", "bridge"] {
        pod(
            &daemon,
            &format!(
                "--net {network} --uidmap 0:1000000:9 --sysctl net.ipv4.ip_default_ttl=77 --sysctl kernel.shmmax=123456 one"
            ),
        );
        let seen = inside(&daemon, "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shmmax");
        assert_eq!(seen, "77\n123456", "{network}");
        daemon.ctl("pod rm -f one").ok();
    }
}

#[test]
fn users_of_a_pod_that_can_not_be_are_refused_before_anything_is_made() {
    let daemon = Daemon::start();
    for (flags, reason) in [
        ("--uidmap 1:1000000:10", "linux.uidMappings: 0 of the container is mapped to nobody"),
        ("--uidmap 0:5:10 --uidmap 9:100:1", "uidMappings[1].containerID: overlaps"),
        ("--uidmap 0:4294967290:10", "uidMappings[0].size"),
    ] {
        let said = &[reason, "name ranges CONTAINER:HOST:SIZE"];
        daemon.ctl(&format!("pod create {flags} one")).fails(1, said);
    }
    assert_eq!(daemon.ctl("pod ls -q").text(), "");
    pod(&daemon, "--net none --uidmap 0:1000000:10 one");
    let run = |flags: &str| daemon.ctl(&format!("run --rm --pod one {flags} --rootfs / true"));
    run("--uidmap 0:5:10").fails(125, &["user namespace", "sandbox"]);
    run("--privileged").fails(125, &["privileged"]);
    run("-u 1000").fails(125, &["process.user.uid", "mapped"]);
}
