//! What an image says about itself is how a container of it runs.

use std::time::Instant;

use integration::archive::load;
use integration::daemon::Daemon;
use integration::image::{Image, Recipe};
use integration::tar::{Entry, Kind};
use integration::wait;
use serde_json::{Value, json};

const NAME: &str = "test/configured:1";

/// A daemon with busybox and these keys in its configuration.
fn with(config: Value) -> Daemon {
    with_image(&Recipe::busybox().config(config).image())
}

fn with_image(image: &Image) -> Daemon {
    let daemon = Daemon::start();
    load(&daemon, &[(NAME, image)]);
    daemon
}

fn run(daemon: &Daemon, words: &str) -> String {
    daemon.ctl(&format!("run --rm --net none {words}")).text()
}

#[test]
fn entrypoint_and_command() {
    let daemon = with(json!({"Entrypoint": ["echo", "entry"], "Cmd": ["command", "two words"]}));
    assert_eq!(run(&daemon, NAME), "entry command two words");
    assert_eq!(run(&daemon, &format!("{NAME} other")), "entry other");
    assert_eq!(run(&daemon, &format!("--entrypoint printf {NAME} '%s|' a b")), "a|b|");
    daemon.ctl(&format!("run --rm --net none --entrypoint /bin/true {NAME}")).ok();
    let only_command = with(json!({"Cmd": ["echo", "command"]}));
    assert_eq!(run(&only_command, NAME), "command");
    assert_eq!(run(&only_command, &format!("{NAME} echo mine")), "mine");
}

#[test]
fn an_image_without_a_command_wants_one() {
    let daemon = with(json!({"Cmd": null}));
    daemon.ctl(&format!("run --rm --net none {NAME}")).fails(125, &["command"]);
    assert_eq!(run(&daemon, &format!("{NAME} echo given")), "given");
}

#[test]
fn environment_and_its_path() {
    let program = Entry::file("opt/tool", "#!/bin/sh\necho tool $A $B $C\n").mode(0o755);
    let config = json!({"Env": ["PATH=/opt:/bin", "A=image", "B=image two", "EMPTY="]});
    let daemon = with_image(&Recipe::busybox().files(&[program]).config(config).image());
    assert_eq!(run(&daemon, &format!("-e A=mine -e C=new {NAME} tool")), "tool mine image two new");
    let seen = run(&daemon, &format!("{NAME} env"));
    for line in ["PATH=/opt:/bin", "A=image", "EMPTY=", "HOME=/root"] {
        assert!(seen.lines().any(|other| other == line), "{line} in {seen}");
    }
    let bare = with(json!({"Env": null}));
    assert!(run(&bare, &format!("{NAME} env")).contains("PATH=/usr/local/sbin:/usr/local/bin:"));
}

#[test]
fn the_directory_to_work_in() {
    let daemon = with(json!({"WorkingDir": "/made/for/it", "Cmd": ["pwd"]}));
    assert_eq!(run(&daemon, NAME), "/made/for/it");
    assert_eq!(run(&daemon, &format!("-w /tmp {NAME}")), "/tmp");
}

/// CVE-2022-36109, CVE-2023-25173.
#[test]
fn the_user_and_all_groups() {
    for (user, expected) in [
        ("www", "33 33 26 33"),
        ("33", "33 33 26 33"),
        ("www:tape", "33 26 26"),
        ("12345", "12345 0 0"),
        ("12345:678", "12345 678 678"),
        ("0:26", "0 26 26"),
    ] {
        let daemon = with(json!({"User": user}));
        let seen = run(&daemon, &format!("{NAME} sh -c 'echo $(id -u) $(id -g) $(id -G)'"));
        let mut words: Vec<&str> = seen.split(' ').collect();
        words[2..].sort_unstable();
        assert_eq!(words.join(" "), expected, "{user}");
    }
    let daemon = with(json!({"User": "www"}));
    assert_eq!(run(&daemon, &format!("-u root {NAME} id -u")), "0");
    daemon.ctl(&format!("run -d --name one --net none {NAME} sleep 600")).ok();
    assert_eq!(daemon.ctl("exec one id -un").text(), "www");
    assert_eq!(daemon.process("one").status("CapEff").as_deref(), Some("0000000000000000"));
}

/// CVE-2024-40635, CVE-2026-46680.
#[test]
fn a_user_out_of_range_is_never_root() {
    let passwd = "root:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n-1:x:0:0::/:/bin/sh\n";
    for user in [
        "2147483648",
        "4294967295",
        "4294967296",
        "-1",
        "99999999999",
        "0:4294967296",
        "nobody-here",
        "root:none",
    ] {
        let image = Recipe::busybox()
            .files(&[
                Entry::file("etc/passwd", passwd),
                Entry::file("etc/group", "4294967296:x:0:\n"),
            ])
            .config(json!({"User": user}));
        let daemon = with_image(&image.image());
        let output = daemon.ctl(&format!("run --rm --net none {NAME} id -u"));
        assert_eq!(output.code, Some(125), "{user}: {} {}", output.stdout, output.stderr);
        let asked = user.split(':').find(|part| output.stderr.contains(part));
        assert!(asked.is_some(), "{user}: {}", output.stderr);
    }
}

/// CVE-2026-47262, CVE-2025-4437, CVE-2024-9676.
#[test]
fn a_passwd_file_that_is_none_is_an_error_at_once() {
    let long = "x:x:1:1::/:\n".repeat(3 << 20);
    for (what, entry) in [
        ("a pipe", Entry::new("etc/passwd", Kind::Fifo)),
        ("a directory", Entry::directory("etc/passwd")),
        ("a device", Entry::new("etc/passwd", Kind::Character(1, 5))),
        ("a link to a device", Entry::symlink("etc/passwd", "/dev/zero")),
        ("a link out", Entry::symlink("etc/passwd", "../../../../../../etc/passwd")),
        ("a long one", Entry::file("etc/passwd", long.clone())),
    ] {
        let image = Recipe::busybox().files(&[entry]).config(json!({"User": "games"})).image();
        let daemon = with_image(&image);
        let (begin, memory) = (Instant::now(), daemon.peak_memory());
        let output = daemon.ctl(&format!("run --rm --net none {NAME} id -u"));
        assert_eq!(output.code, Some(125), "{what}: {} {}", output.stdout, output.stderr);
        assert!(begin.elapsed() < wait::LIMIT, "{what}: {:?}", begin.elapsed());
        assert!(daemon.peak_memory() < memory + 32 * 1024, "{what}: {} kB", daemon.peak_memory());
    }
}

#[test]
fn the_signal_to_stop_with() {
    let daemon = with(json!({
        "StopSignal": "SIGUSR1",
        "Cmd": ["sh", "-c", "trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done"],
    }));
    daemon.ctl(&format!("run -d --name one --net none {NAME}")).ok();
    daemon.until_logged("one", "ready");
    daemon.ctl("stop one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), "7");
    daemon.ctl(&format!("run -d --name two --stop-signal TERM --net none {NAME}")).ok();
    daemon.until_logged("two", "ready");
    daemon.ctl("stop -t 1 two").ok();
    assert_ne!(daemon.inspect("two", "{{.State.ExitCode}}"), "7");
    let strange = with(json!({"StopSignal": "SIGNOTHING"}));
    strange.ctl(&format!("run --rm --net none {NAME} true")).fails(125, &["SIGNOTHING"]);
}

#[test]
fn exposed_ports_are_shown_and_published_on_demand() {
    let daemon = with(json!({
        "ExposedPorts": {"8080/tcp": {}, "53/udp": {}},
        "Cmd": ["httpd", "-f", "-p", "8080"],
    }));
    daemon.ctl(&format!("run -d --name one {NAME}")).ok();
    let shown = daemon.inspect("one", "{{json .Config.ExposedPorts}}");
    assert!(shown.contains("8080/tcp") && shown.contains("53/udp"), "{shown}");
    let ports = daemon.ctl("ps --format '{{.Ports}}'").text();
    assert!(ports.contains("8080/tcp") && !ports.contains("->"), "{ports}");
    daemon.ctl("rm -f one").ok();
    daemon.ctl(&format!("run -d --name two -P {NAME}")).ok();
    let ports = daemon.ctl("ps --format '{{.Ports}}'").text();
    assert!(ports.contains("->8080/tcp") && ports.contains("->53/udp"), "{ports}");
}

#[test]
fn a_volume_begins_with_what_the_image_has_there() {
    let files = [
        Entry::directory("data").mode(0o750).owner(33, 33),
        Entry::file("data/file", "from the image\n").owner(33, 33).mode(0o640),
        Entry::symlink("data/link", "file"),
    ];
    let image =
        Recipe::busybox().files(&files).config(json!({"Volumes": {"/data": {}, "/new/one": {}}}));
    let daemon = with_image(&image.image());
    daemon.ctl(&format!("run -d --name one --net none {NAME} sleep 600")).ok();
    assert_eq!(daemon.ctl("exec one cat /data/link").text(), "from the image");
    let seen = daemon.ctl("exec one stat -c '%n %a %u:%g' /data /data/file").text();
    assert_eq!(seen, "/data 750 33:33\n/data/file 640 33:33");
    let mounts = daemon.ctl("exec one cat /proc/mounts").text();
    for point in [" /data ", " /new/one "] {
        assert!(mounts.contains(point), "{mounts}");
    }
    daemon.ctl("exec one sh -c 'echo more >> /data/file; echo x > /new/one/x'").ok();
    daemon.ctl("stop -t 0 one").ok();
    daemon.ctl("start one").ok();
    assert_eq!(daemon.ctl("exec one cat /data/file /new/one/x").text(), "from the image\nmore\nx");
    // They are no part of the container's own layer, and each container has its own.
    assert!(!daemon.ctl("diff one").text().contains("/data/file"));
    assert_eq!(run(&daemon, &format!("{NAME} cat /data/file")), "from the image");
    daemon.ctl("rm -f one").ok();
}

/// CVE-2022-23648.
#[test]
fn a_volume_leads_nowhere_else() {
    let mark = format!("/etc/bosun-volume-{}", std::process::id());
    for (volume, entry) in [
        ("/../../../../etc", Entry::file("x", "")),
        ("/link", Entry::symlink("link", "/../../../../etc")),
        ("/a/../../../etc", Entry::directory("a")),
    ] {
        let image = Recipe::busybox().files(&[entry]).config(json!({"Volumes": {volume: {}}}));
        let daemon = with_image(&image.image());
        let script =
            format!("ls -A /etc {volume}; cat /etc/passwd {volume}/passwd; echo x > {mark}; true");
        let output = daemon.ctl(&format!("run --rm --net none {NAME} sh -c '{script}'"));
        assert!(!output.stdout.contains("debian_version"), "{volume}: {}", output.stdout);
        assert!(!std::path::Path::new(&mark).exists(), "{volume}");
    }
}

/// CVE-2026-53488: a label became a command of the host.
#[test]
fn labels_come_along_but_not_reserved_ones() {
    let daemon = with(json!({"Labels": {
        "maintainer": "somebody",
        "containerd.io/restart.loguri": "binary:///bin/touch",
        "io.kubernetes.pod.name": "pod",
        "io.bosun.rootfs": "/",
    }}));
    let output = daemon.ctl(&format!("create --name one --label mine=1 {NAME} true"));
    output.ok();
    for reserved in ["containerd.io/restart.loguri", "io.kubernetes.pod.name", "io.bosun.rootfs"] {
        assert!(output.stderr.contains(reserved), "{}", output.stderr);
    }
    let labels: Value =
        serde_json::from_str(&daemon.inspect("one", "{{json .Config.Labels}}")).unwrap();
    assert_eq!(labels, json!({"maintainer": "somebody", "mine": "1"}));
}

#[test]
fn a_container_names_its_image() {
    let daemon = with(json!({}));
    daemon.ctl(&format!("create --name one {NAME} true")).ok();
    assert_eq!(daemon.ctl("ps -a --format '{{.Image}}'").text(), NAME);
    assert_eq!(daemon.inspect("one", "{{.Config.Image}}"), NAME);
    let id = daemon.ctl(&format!("image inspect -f '{{{{.Id}}}}' {NAME}")).text();
    assert_eq!(daemon.inspect("one", "{{.Image}}"), id);
    assert_eq!(daemon.api().image(NAME).containers, [daemon.inspect("one", "{{.Id}}")]);
    assert_eq!(
        daemon.ctl(&format!("ps -a -q --no-trunc --filter ancestor={NAME}")).text(),
        daemon.inspect("one", "{{.Id}}")
    );
}

/// CVE-2021-21334.
#[test]
fn two_containers_of_one_image_share_nothing_else() {
    let daemon = with(json!({"Env": ["PATH=/bin", "A=image"]}));
    std::thread::scope(|scope| {
        for number in 0..10 {
            let daemon = &daemon;
            scope.spawn(move || {
                let words = format!(
                    "-e N={number} {NAME} sh -c 'echo $N $A > /mark; sleep 0.1; cat /mark'"
                );
                assert_eq!(run(daemon, &words), format!("{number} image"));
            });
        }
    });
}

/// CVE-2014-6408: an image has no say in its own confinement.
#[test]
fn unknown_keys_change_nothing() {
    let daemon = with(json!({
        "SecurityOpt": ["seccomp=unconfined"], "Privileged": true, "Devices": ["/dev/sda"],
        "HostConfig": {"Privileged": true}, "Healthcheck": {"Test": ["CMD", "true"]}, "Shell": ["x"],
    }));
    daemon.ctl(&format!("run -d --name one --net none {NAME} sleep 600")).ok();
    assert_eq!(daemon.process("one").status("Seccomp").as_deref(), Some("2"));
    assert_eq!(daemon.process("one").status("CapBnd").as_deref(), Some("00000000a80425fb"));
}
