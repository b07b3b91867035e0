//! Containers in user namespaces (`--uidmap`, `--gidmap`).

use std::os::unix::fs::MetadataExt;

use integration::archive::load;
use integration::daemon::Daemon;
use integration::image::Recipe;
use integration::tar::Entry;
use serde_json::json;

const IMAGE: &str = "test/users:1";
const MAP: &str = "--uidmap 0:1000000:65536";

fn prepared() -> Daemon {
    let daemon = Daemon::start();
    let config = json!({"Env": ["PATH=/bin"], "Volumes": {"/volume": {}}});
    let files = [Entry::directory("volume"), Entry::file("volume/filled", "from the image")];
    load(&daemon, &[(IMAGE, &Recipe::busybox().files(&files).config(config).image())]);
    daemon
}

#[test]
fn root_of_a_container_is_nobody_on_the_host() {
    let daemon = prepared();
    daemon.ctl(&format!("run -d --name web {MAP} {IMAGE} sh -c 'touch /made; sleep 600'")).ok();
    let status = daemon.process("web").path("status");
    let status = std::fs::read_to_string(status).unwrap();
    assert!(status.contains("Uid:\t1000000\t1000000\t"), "{status}");
    let shown = daemon.ctl("exec web sh -c 'id -u; stat -c %u:%g /made /bin/busybox /etc/hosts'");
    assert_eq!(shown.text(), "0\n0:0\n0:0\n0:0");
    assert_eq!(
        daemon.inspect("web", "{{index .HostConfig.IDMappings.UidMap 0}}"),
        "0:1000000:65536"
    );
}

#[test]
fn what_it_changed_is_committed_as_the_image_has_it() {
    let daemon = prepared();
    let script = "touch /made; chown 5:6 /made; echo x >> /etc/passwd";
    daemon.ctl(&format!("run --name one {MAP} --net none {IMAGE} sh -c '{script}'")).ok();
    daemon.ctl("commit one test/after:1").ok();
    let shown = daemon.ctl("run --rm --net none test/after:1 stat -c %u:%g /made /etc/passwd");
    assert_eq!(shown.text(), "5:6\n0:0");
}

#[test]
fn volumes_of_the_image_are_its_own_and_the_host_s_are_left_alone() {
    let daemon = prepared();
    let shared = daemon.scratch().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let shown = daemon.ctl(&format!(
        "run --rm {MAP} -v {}:/shared {IMAGE} sh -c \
         'cat /volume/filled; touch /volume/x; stat -c %u /volume /volume/x /shared; touch /shared/x || echo refused'",
        shared.display()
    ));
    assert_eq!(shown.text(), "from the image0\n0\n65534\nrefused");
    assert_eq!(std::fs::metadata(&shared).unwrap().uid(), 0);
}

#[test]
fn one_list_alone_stands_for_both_and_two_for_themselves() {
    let daemon = prepared();
    let maps = |flags: &str| {
        let script = "cat /proc/self/uid_map /proc/self/gid_map | tr -s \" \"";
        daemon.ctl(&format!("run --rm {flags} --net none {IMAGE} sh -c '{script}'")).text()
    };
    assert_eq!(maps("--uidmap 0:1000000:10"), " 0 1000000 10\n 0 1000000 10");
    assert_eq!(maps("--gidmap 0:1000000:10"), " 0 1000000 10\n 0 1000000 10");
    let both = "--uidmap 0:5:1 --uidmap 1:2000000:9 --gidmap 0:1000000:10";
    assert_eq!(maps(both), " 0 5 1\n 1 2000000 9\n 0 1000000 10");
}

#[test]
fn a_network_of_others_can_be_joined() {
    let daemon = prepared();
    daemon.ctl(&format!("run -d --name web --net none {IMAGE} sleep 600")).ok();
    let network = "readlink /proc/self/ns/net";
    let web = daemon.ctl(&format!("exec web {network}")).text();
    for (network_of, is_web) in [("container:web", true), ("host", false)] {
        let words = format!("run --rm {MAP} --net {network_of} {IMAGE} {network}");
        assert_eq!(daemon.ctl(&words).text() == web, is_web, "{network_of}");
    }
}

#[test]
fn low_ports_can_be_bound_behind_the_bridge() {
    let daemon = prepared();
    let shown = daemon.ctl(&format!(
        "run --rm {MAP} {IMAGE} sh -c 'nc -l -p 80 & sleep 0.3; netstat -ltn | grep -c :80; ls /sys/class/net'"
    ));
    assert_eq!(shown.text(), "1\neth0\nlo");
}

#[test]
fn maps_that_can_not_be_are_refused_before_anything_is_made() {
    let daemon = prepared();
    for (flags, reason) in [
        ("--uidmap 1:1000000:10", "linux.uidMappings: 0 of the container is mapped to nobody"),
        ("--uidmap 0:5:10 --gidmap 1:5:1", "linux.gidMappings: 0 of the container is mapped"),
        ("--uidmap 0:5:10 --uidmap 9:100:1", "uidMappings[1].containerID: overlaps"),
        ("--uidmap 0:5:10 --uidmap 10:14:1", "uidMappings[1].hostID: overlaps"),
        ("--uidmap 0:5:0", "uidMappings[0].size: \"0\" is not at least 1"),
        (
            "--uidmap 0:4294967290:10",
            "uidMappings[0].size: \"10\" is not at least 1, and within ids",
        ),
        ("--uidmap 0:5:10 -u 1000", "process.user.uid: \"1000\" is not an id that is mapped"),
    ] {
        let output = daemon.ctl(&format!("run --rm {flags} --net none {IMAGE} true"));
        assert_eq!(output.code, Some(125), "{flags}");
        assert!(output.stderr.contains(reason), "{flags}: {}", output.stderr);
        assert!(output.stderr.contains("user namespace: linux.") || flags.contains("-u"));
        assert!(output.stderr.contains("name ranges CONTAINER:HOST:SIZE"), "{}", output.stderr);
    }
    for (flags, reason) in [
        ("--privileged", "privileged: is power over the host"),
        ("--runtime runc", "(--uidmap, --gidmap) needs bosun's own runtime"),
    ] {
        let words = format!("run --rm --uidmap 0:5:10 {flags} --net none {IMAGE} true");
        let output = daemon.ctl(&words);
        assert_eq!(output.code, Some(125), "{flags}");
        assert!(output.stderr.contains(reason), "{flags}: {}", output.stderr);
    }
    for range in ["0:-1:1", "0:4294967296:1", "0", "a:b:c"] {
        let output = daemon.ctl(&format!("run --rm --uidmap {range} {IMAGE} true"));
        assert!(output.stderr.contains(&format!("range of ids \"{range}\"")), "{}", output.stderr);
        assert!(output.stderr.contains("want CONTAINER:HOST:SIZE"), "{}", output.stderr);
    }
    assert_eq!(daemon.ctl("ps -aq").text(), "");
}
