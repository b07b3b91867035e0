//! The main job: a web server over the host's own tree, from `run` to `rm`, with a daemon that is
//! killed in between.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use integration::daemon::Daemon;
use integration::process::{Process, mount_points, port_sockets};
use integration::{http, wait};

const RUN: &str = "run -d -p 8000:8000 -t --name web --rootfs / /usr/bin/python3 -m http.server";
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const FETCH: &str = "/usr/bin/python3 -c \"import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=9).status)\"";

#[test]
fn a_web_server_lives_through_the_death_of_its_daemon() {
    let mut daemon = Daemon::start();
    let id = daemon.ctl(RUN).text();
    assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id:?}");
    until_answering(&daemon);

    it_is_listed(&daemon, &id);
    it_answers_from_everywhere(&daemon);
    the_shim_holds_everything(&daemon, &id);
    its_files_are_there(&daemon, &id);
    it_is_a_process_of_its_own(&daemon, &id);
    its_rootfs_is_held(&daemon);
    it_outlives_the_daemon(&mut daemon);
    it_ends_and_nothing_is_left(&daemon);
}

fn until_answering(daemon: &Daemon) {
    wait::until("HTTP 200 through 127.0.0.1:8000", || {
        let answer = http::get(&daemon.netns().path(), LOCALHOST, 8000, "/").ok()?;
        (answer.status == 200).then_some(())
    });
}

fn it_is_listed(daemon: &Daemon, id: &str) {
    let table = daemon.ctl("ps").text();
    let mut lines = table.lines();
    let columns = |line: &str| -> Vec<String> {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    assert_eq!(
        columns(lines.next().unwrap()),
        ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    );
    let row = columns(lines.next().unwrap());
    assert_eq!(row.len(), 7, "{table}");
    assert_eq!(row[0], id[..12]);
    assert!(row[2].starts_with("\"/usr/bin/python3"), "{table}");
    assert!(row[3].ends_with("ago"), "{table}");
    assert!(row[4].starts_with("Up "), "{table}");
    assert_eq!(row[5], "0.0.0.0:8000->8000/tcp");
    assert_eq!(row[6], "web");
}

fn it_answers_from_everywhere(daemon: &Daemon) {
    let network = daemon.api().get("web").network.expect("it is on the bridge");
    let gateway: IpAddr = network.gateway.parse().unwrap();
    let from_host = http::get(&daemon.netns().path(), gateway, 8000, "/").unwrap();
    assert_eq!(from_host.status, 200, "through the bridge's own address");

    let second = format!("run --rm --rootfs / {FETCH} http://{}:8000/", network.address);
    assert_eq!(daemon.ctl(&second).text(), "200", "from a second container, by the address");
    let itself = format!("exec web {FETCH} http://{gateway}:8000/");
    assert_eq!(daemon.ctl(&itself).text(), "200", "from itself, through its published port");
}

fn the_shim_holds_everything(daemon: &Daemon, id: &str) {
    let (shim, process) = (daemon.shim("web"), daemon.process("web"));
    let bosund = Process(daemon.pid().unwrap());
    let log = daemon.container_dir(id).json_log(id).display().to_string();
    let holds = |process: Process, what: &str| {
        process.descriptors().values().any(|path| path.contains(what))
    };
    assert!(holds(shim, "ptmx"), "{:?}", shim.descriptors());
    assert!(holds(shim, &log), "{:?}", shim.descriptors());
    assert!(!holds(bosund, "ptmx") && !holds(bosund, &log), "{:?}", bosund.descriptors());

    let sockets = port_sockets(bosund, "tcp", 8000);
    let held_by =
        |process: Process| process.sockets().iter().any(|socket| sockets.contains(socket));
    assert!(held_by(shim), "the shim holds the published port");
    assert!(!held_by(bosund), "the daemon doesn't hold the published port");

    let stdio = process.descriptors();
    assert!(stdio[&0].starts_with("/dev/pts/"), "{stdio:?}");
    assert!(stdio[&0] == stdio[&1] && stdio[&1] == stdio[&2], "{stdio:?}");
    assert_eq!(process.parent(), Some(shim));
}

fn its_files_are_there(daemon: &Daemon, id: &str) {
    let shown = daemon.until_logged("web", "GET / HTTP/1");
    assert!(shown.contains("200"), "{shown}");
    let directory = daemon.container_dir(id);
    let text = std::fs::read_to_string(directory.json_log(id)).unwrap();
    for line in text.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(record.as_object().unwrap().len(), 3, "{line}");
        assert!(record["log"].as_str().unwrap().ends_with("\r\n"), "{line}");
        assert_eq!(record["stream"], "stdout");
        let time = record["time"].as_str().unwrap();
        assert_eq!((time.len(), &time[19..20], &time[29..]), (30, ".", "Z"), "{line}");
    }
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(directory.config()).unwrap()).unwrap();
    assert_eq!(config["process"]["args"][0], "/usr/bin/python3");
    let options: serde_json::Value =
        serde_json::from_slice(&std::fs::read(directory.options()).unwrap()).unwrap();
    assert!(options.is_object(), "{options}");
}

fn it_is_a_process_of_its_own(daemon: &Daemon, id: &str) {
    let process = daemon.process("web");
    assert_eq!(process.arguments(), ["/usr/bin/python3", "-m", "http.server"]);
    let own = format!("/{}/default/{id}", daemon.place().prefix);
    for (controller, path) in process.cgroups() {
        // The v2 tree of a hybrid machine and systemd's have no limits: joining them is optional.
        if !matches!(controller.as_str(), "" | "name=systemd") {
            assert!(path.ends_with(&own), "{controller} {path}");
        }
    }
    assert!(process.cgroups().values().any(|path| path.ends_with(&own)));
    let ourselves = Process(std::process::id());
    for kind in ["pid", "mnt", "uts", "ipc", "net", "cgroup"] {
        assert_ne!(process.namespace(kind), ourselves.namespace(kind), "{kind}");
    }

    let points = mount_points(process);
    for wanted in [
        "/",
        "/proc",
        "/sys",
        "/dev",
        "/dev/pts",
        "/dev/console",
        "/etc/resolv.conf",
        "/etc/hosts",
        "/etc/hostname",
    ] {
        assert!(points.iter().any(|point| point == wanted), "{wanted} of {points:?}");
    }
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    for directory in [&daemon.place().root, &daemon.place().state] {
        assert!(!table.contains(&*directory.to_string_lossy()), "the host's mount table:\n{table}");
    }
    it_sees_its_own_world(daemon, id);
}

fn it_sees_its_own_world(daemon: &Daemon, id: &str) {
    let inside = |script: &str| daemon.ctl(&format!("exec web /bin/sh -c '{script}'")).text();
    assert_eq!(inside("tr \"\\000\" \" \" < /proc/1/cmdline"), "/usr/bin/python3 -m http.server ");
    assert_eq!(
        inside("test -c /dev/ptmx -a -c /dev/console -a -d /dev/pts && echo there"),
        "there"
    );
    assert_ne!(daemon.ctl("exec web /bin/sh -c 'true >> /sys/kernel/uevent_helper'").code, Some(0));
    assert_eq!(inside("cat /etc/hostname"), id[..12]);
    let address = daemon.api().get("web").network.unwrap().address;
    assert!(inside("cat /etc/hosts").contains(&address));
    assert!(
        Path::new("/etc/resolv.conf").exists()
            && inside("cat /etc/resolv.conf").contains("nameserver")
    );
    let place = daemon.place();
    let (root, state) = (place.root.display(), place.state.display());
    assert_eq!(inside(&format!("ls -A {root} {state} | grep -v :$ | grep -v ^$ || true")), "");
}

fn its_rootfs_is_held(daemon: &Daemon) {
    let key = daemon.api().get("web").snapshot_key;
    daemon.ctl(&format!("snapshot rm {key}")).fails(1, &[&key, "held by container"]);
    assert_eq!(daemon.inspect("web", "{{.State.Running}}"), "true");
}

fn it_outlives_the_daemon(daemon: &mut Daemon) {
    let second = "run -d --name second --rootfs / /bin/sh -c 'trap : TERM; echo ready; sleep 600 & wait; echo the last line; exit 42'";
    daemon.ctl(second).ok();
    daemon.until_logged("second", "ready");
    let (web, ending) = (daemon.process("web"), daemon.process("second"));
    let (web_start, ending_shim) = (web.start_time(), daemon.shim("second"));

    daemon.kill();
    let answer = http::get(&daemon.netns().path(), LOCALHOST, 8000, "/written-while-dead").unwrap();
    assert_eq!(answer.status, 404, "the web server goes on answering");
    let pid = rustix::process::Pid::from_raw(ending.0.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    wait::until_true("the end of the second container", || !ending.lives());
    assert!(ending_shim.lives(), "its shim waits for a daemon to tell");
    let ended_at = now();
    daemon.start_again();

    assert_eq!(daemon.process("web"), web, "the same pid");
    assert_eq!(web.start_time(), web_start, "the same start time");
    assert!(daemon.ctl("logs web").text().contains("/written-while-dead"));
    daemon.until_status("second", "exited");
    assert_eq!(daemon.inspect("second", "{{.State.ExitCode}}"), "42");
    let finished = daemon.api().get("second").state.unwrap().exit.unwrap().exited_at.unwrap();
    assert!((finished.seconds - ended_at).abs() <= 2, "ended at {ended_at}, said {finished:?}");
    assert!(daemon.ctl("logs second").text().ends_with("the last line"));
    assert_eq!(daemon.ctl("wait second").waited(), "42");

    assert_eq!(daemon.ctl("exec web echo again").text(), "again");
    let mut attached = daemon.ctl_start("attach --no-stdin web");
    wait::until("a line on the attached client", || {
        let _ = http::get(&daemon.netns().path(), LOCALHOST, 8000, "/seen-by-attach");
        attached.stdout().contains("/seen-by-attach").then_some(())
    });
    assert!(!attached.has_ended());
    daemon.ctl("rm second").ok();
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

fn it_ends_and_nothing_is_left(daemon: &Daemon) {
    let waiting = daemon.ctl_start("wait web");
    assert_eq!(daemon.ctl("stop -t 1 web").text(), "web");
    // Process 1 of a pid namespace gets no signal that it has no handler for, TERM included.
    assert_eq!(waiting.finish().waited(), "137");
    assert_eq!(
        daemon.inspect("web", "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}"),
        "exited 137 0"
    );
    assert!(daemon.ctl("ps").text().lines().count() == 1);
    assert!(daemon.ctl("ps -a").text().contains("Exited (137)"));
    assert!(http::get(&daemon.netns().path(), LOCALHOST, 8000, "/").is_err());
    assert_eq!(daemon.ctl("rm web").text(), "web");
    daemon.ctl("inspect web").fails(1, &["web"]);
    daemon.expect_nothing_left();
}
