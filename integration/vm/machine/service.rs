//! bosund under systemd, with the unit that `make install` installs.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use integration::{http, wait};

use crate::support::{Service, systemctl, systemctl_show};

const WEB: &str = "run -d -p 8000:8000 -t --name web --rootfs / /usr/bin/python3 -m http.server";

fn answers() -> bool {
    let here = Path::new("/proc/self/ns/net");
    let answer = http::get(here, IpAddr::V4(Ipv4Addr::LOCALHOST), 8000, "/");
    answer.is_ok_and(|answer| answer.status == 200)
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn containers_outlive_every_way_to_end_the_service() {
    let service = Service::start();
    service.ctl(WEB).ok();
    wait::until_true("HTTP 200 through 127.0.0.1:8000", answers);
    let web = service.process("web");
    let started = web.start_time();
    for (ending, then) in [
        ("restart bosund", "is-active bosund"),
        ("kill --signal KILL bosund", "is-active bosund"),
        ("stop bosund", "start bosund"),
        ("daemon-reload", "is-active bosund"),
    ] {
        let before = Service::daemon();
        systemctl(ending);
        if ending.starts_with("kill") {
            wait::until_true("systemd to start it again", || !before.lives());
            Service::daemon();
        }
        assert!(answers(), "{ending}: the port answers while nobody supervises");
        systemctl(then);
        Service::daemon();
        assert_eq!(service.process("web"), web, "{ending}");
        assert_eq!(web.start_time(), started, "{ending}");
        assert!(answers(), "{ending}");
    }
    service.ctl("exec web /bin/true").ok();
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn an_exit_while_the_service_is_stopped_is_known_afterwards() {
    let service = Service::start();
    service
        .ctl("run -d --name job --net none --rootfs / /bin/sh -c 'sleep 6; echo last; exit 42'")
        .ok();
    let job = service.process("job");
    systemctl("stop bosund");
    assert!(job.lives(), "stopping the service must not end what runs");
    wait::until_true("the container's own end", || !job.lives());
    systemctl("start bosund");
    assert_eq!(service.ctl("wait job").waited(), "42");
    assert_eq!(service.ctl("logs job").text(), "last");
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn no_container_and_no_shim_is_in_the_cgroup_of_the_service() {
    let service = Service::start();
    service.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    let own = systemctl_show("ControlGroup");
    let daemon = Service::daemon();
    assert!(daemon.cgroups()[""].starts_with(&own), "{:?}", daemon.cgroups());
    let process = service.process("one");
    let shim = process.parent().unwrap();
    for outside in [process, shim] {
        // A shim leaves behind the start of its container, not in the middle of it.
        wait::until_true("a group outside", || !outside.cgroups()[""].starts_with(&own));
        let group = outside.cgroups()[""].clone();
        assert!(group.starts_with("/bosun"), "{group}");
    }
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn systemd_takes_no_limit_away() {
    let service = Service::start();
    let words =
        "run -d --name one -m 64m --cpus 0.5 --pids-limit 9 --net none --rootfs / /bin/sleep 600";
    service.ctl(words).ok();
    let group = Path::new("/sys/fs/cgroup").join(&service.process("one").cgroups()[""][1..]);
    let limits = || ["memory.max", "cpu.max", "pids.max"].map(|file| read(&group.join(file)));
    let before = limits();
    assert_eq!(before, ["67108864", "50000 100000", "9"]);
    // It goes through all of its cgroups, and through the controllers of the root.
    systemctl("daemon-reload");
    systemctl("restart bosund");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(limits(), before);
    service.ctl("run --rm -m 64m --net none --rootfs / /bin/true").ok();
}

fn read(path: &Path) -> String {
    let text = std::fs::read_to_string(path);
    text.unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}
