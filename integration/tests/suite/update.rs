//! Limits that are changed, and what containers use.

use integration::daemon::Daemon;

use crate::limits::control;

const SLEEP: &str = "--name one --net none --rootfs / /bin/sleep 600";

#[test]
fn new_limits_hold_at_once_and_after_a_restart() {
    let mut daemon = Daemon::start();
    daemon.ctl(&format!("run -d -m 64m --pids-limit 50 {SLEEP}")).ok();
    assert_eq!(daemon.ctl("update -m 128m --pids-limit 20 --cpu-shares 512 one").text(), "one");
    let memory = (128 << 20).to_string();
    let holds = |daemon: &Daemon| {
        assert_eq!(control(daemon, "memory.limit_in_bytes", "memory.max"), memory);
        assert_eq!(control(daemon, "pids.max", "pids.max"), "20");
        let limits = "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.CpuShares}}";
        assert_eq!(daemon.inspect("one", limits), format!("{memory} 20 512"));
    };
    holds(&daemon);
    daemon.kill();
    daemon.start_again();
    holds(&daemon);
    daemon.ctl("restart -t 0 one").ok();
    holds(&daemon);
}

#[test]
fn a_limit_outlives_the_updates_that_do_not_name_it() {
    let daemon = Daemon::start();
    daemon.ctl(&format!("run -d {SLEEP}")).ok();
    daemon.ctl("update -m 64m --memory-swap 96m --pids-limit 20 one").ok();
    daemon.ctl("update -m 80m one").ok();
    daemon.ctl("update --cpu-shares 512 one").ok();
    let bytes = |mib: u64| (mib << 20).to_string();
    let holds = || {
        assert_eq!(control(&daemon, "memory.limit_in_bytes", "memory.max"), bytes(80));
        let swap = control(&daemon, "memory.memsw.limit_in_bytes", "memory.swap.max");
        // With the memory on v1, without it on v2.
        assert!([bytes(96), bytes(16)].contains(&swap), "{swap}");
        assert_eq!(control(&daemon, "pids.max", "pids.max"), "20");
    };
    holds();
    daemon.ctl("restart -t 0 one").ok();
    holds();
    daemon.ctl("update -m 100m one").fails(1, &["memory and swap together"]);
    holds();
}

#[test]
fn the_oom_killer_is_switched_on_again() {
    let daemon = Daemon::start();
    let said = "{{.HostConfig.OomKillDisable}}";
    let made = daemon.ctl(&format!("run -d -m 64m --oom-kill-disable {SLEEP}"));
    if made.code != Some(0) {
        assert!(made.stderr.contains("memory.disableOOMKiller"), "only v1 has it: {}", made.stderr);
        return;
    }
    let disabled = || {
        let text = control(&daemon, "memory.oom_control", "");
        text.lines().next().unwrap().to_owned()
    };
    assert_eq!(
        (disabled().as_str(), &*daemon.inspect("one", said)),
        ("oom_kill_disable 1", "true")
    );
    daemon.ctl("update -m 80m one").ok();
    assert_eq!(disabled(), "oom_kill_disable 1", "not said again");
    daemon.ctl("update --oom-kill-disable=false one").ok();
    assert_eq!(
        (disabled().as_str(), &*daemon.inspect("one", said)),
        ("oom_kill_disable 0", "false")
    );
    daemon.ctl("update -m 90m one").ok();
    daemon.ctl("restart -t 0 one").ok();
    assert_eq!(disabled(), "oom_kill_disable 0");
}

#[test]
fn a_limit_is_lifted_again() {
    let daemon = Daemon::start();
    daemon.ctl(&format!("run -d --pids-limit 50 {SLEEP}")).ok();
    daemon.ctl("update --pids-limit -1 one").ok();
    assert_eq!(control(&daemon, "pids.max", "pids.max"), "max");
}

#[test]
fn a_container_that_does_not_run_starts_with_its_new_limits() {
    let daemon = Daemon::start();
    daemon.ctl(&format!("create {SLEEP}")).ok();
    daemon.ctl("update --cpus 0.25 one").ok();
    daemon.ctl("start one").ok();
    let quota = control(&daemon, "cpu.cfs_quota_us", "cpu.max");
    assert!(quota.starts_with("25000"), "{quota}");
    daemon.ctl("update --cpu-quota 50000 --cpu-period 200000 one").ok();
    let period = control(&daemon, "cpu.cfs_period_us", "cpu.max");
    assert!(period.ends_with("200000"), "{period}");
    assert_eq!(daemon.inspect("one", "{{.HostConfig.NanoCpus}}"), "0", "said in another way");
}

#[test]
fn an_update_that_is_refused_changes_nothing() {
    let daemon = Daemon::start();
    daemon.ctl(&format!("run -d -m 64m --pids-limit 50 {SLEEP}")).ok();
    daemon.ctl("update one").fails(125, &["nothing to change"]);
    daemon.ctl("update --pids-limit 9 -m 1k one").fails(1, &["6 MiB"]);
    daemon
        .ctl("update --pids-limit 9 --cpuset-mems 77 one")
        .fails(1, &["linux.resources.cpu.mems: 77"]);
    daemon.ctl("update --pids-limit 9 --memory-swap 32m one").fails(1, &["memory"]);
    assert_eq!(control(&daemon, "pids.max", "pids.max"), "50");
    let limits = "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.CpusetMems}}";
    assert_eq!(daemon.inspect("one", limits), "67108864 50 ");
    daemon.ctl("update --pids-limit 9 nobody").fails(1, &["nobody"]);
}

#[test]
fn an_update_is_an_event() {
    let daemon = Daemon::start();
    daemon.ctl(&format!("run -d {SLEEP}")).ok();
    daemon.ctl("update --pids-limit 9 one").ok();
    daemon.ctl("pause one").ok();
    daemon.ctl("unpause one").ok();
    integration::wait::until("the events", || {
        let seen = daemon.ctl("events --since 1m --until 0s --format {{.Action}}").stdout;
        let seen: Vec<&str> = seen.lines().collect();
        seen.ends_with(&["update", "pause", "unpause"]).then_some(())
    });
}

#[test]
fn what_a_container_uses_is_shown() {
    let daemon = Daemon::start();
    let busy = "--name busy --net none --rootfs / /bin/sh -c 'while :; do :; done'";
    daemon.ctl(&format!("run -d -m 64m --pids-limit 5 {busy}")).ok();
    daemon.ctl("create --name made --net none --rootfs / /bin/true").ok();
    let shown = daemon.ctl("stats --no-stream --format json busy").json();
    assert_eq!((shown["Name"].as_str(), shown["PIDs"].as_str()), (Some("busy"), Some("1")));
    let cpu: f64 = shown["CPUPerc"].as_str().unwrap().trim_end_matches('%').parse().unwrap();
    assert!(cpu > 0.0 && cpu < 400.0, "{cpu}");
    let memory = shown["MemUsage"].as_str().unwrap();
    assert!(memory.ends_with(" / 64MiB"), "{memory}");
    let table = daemon.ctl("stats --no-stream -a").stdout;
    assert!(table.starts_with("CONTAINER ID   NAME"), "{table}");
    let made = table.lines().find(|line| line.contains("made")).unwrap();
    assert!(made.ends_with("--"), "{made}");
    assert_eq!(daemon.ctl("stats --no-stream").stdout.lines().count(), 2);
    daemon.ctl("stats --no-stream nobody").fails(1, &["nobody"]);
}

#[test]
fn traffic_is_counted() {
    let daemon = Daemon::start();
    let words =
        "run -d --name one -p 127.0.0.1:8731:80 --rootfs / /usr/bin/python3 -m http.server 80";
    daemon.ctl(words).ok();
    let shown = daemon.ctl("stats --no-stream --format {{.NetIO}} one").text();
    let parts: Vec<&str> = shown.split(" / ").collect();
    assert_eq!(parts.len(), 2, "{shown}");
}

#[test]
fn the_processes_of_a_container_are_listed_as_ps_does() {
    let daemon = Daemon::start();
    let script = "sleep 601 & sleep 602; true";
    daemon.ctl(&format!("run -d --name one --net none --rootfs / /bin/sh -c '{script}'")).ok();
    let mut listed = String::new();
    for _ in 0..100 {
        listed = daemon.ctl("top one").stdout;
        // The shell's own line holds both, and does not end with either.
        let ends = |line: &&str| line.ends_with("sleep 601") || line.ends_with("sleep 602");
        if listed.lines().filter(ends).count() == 2 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(listed.starts_with("UID "), "{listed}");
    assert_eq!(listed.lines().count(), 4, "{listed}");
    let short = daemon.ctl("top one -eo pid,comm").stdout;
    let commands: Vec<&str> =
        short.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(commands, ["COMMAND", "sh", "sleep", "sleep"], "{short}");
    daemon.ctl("top one -eo comm").fails(1, &["no column PID"]);
    daemon.ctl("top nobody").fails(1, &["nobody"]);
}
