//! ps, inspect, info, version and help.

use integration::daemon::Daemon;

const VERBS: [&str; 17] = [
    "run", "create", "start", "stop", "restart", "kill", "rm", "wait", "ps", "inspect", "logs",
    "attach", "exec", "events", "version", "info", "snapshot",
];

fn three() -> Daemon {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name runs --label tier=front --net none --rootfs / /bin/sleep 600").ok();
    daemon
        .ctl("run --name ended --label tier=back --net none --rootfs / /bin/sh -c 'exit 3'")
        .check(3);
    daemon.ctl("create --name fresh --net none --rootfs / /bin/true").ok();
    daemon
}

fn listed(daemon: &Daemon, flags: &str) -> Vec<String> {
    let text = daemon.ctl(&format!("ps {flags} --format '{{{{.Names}}}}'")).text();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn ps_shows_what_runs_and_with_a_everything() {
    let daemon = three();
    assert_eq!(listed(&daemon, ""), ["runs"]);
    assert_eq!(listed(&daemon, "-a"), ["fresh", "ended", "runs"], "the youngest first");
}

#[test]
fn filters_choose() {
    let daemon = three();
    for (filter, wanted) in [
        ("--filter status=exited", vec!["ended"]),
        ("--filter status=created --filter status=running", vec!["fresh", "runs"]),
        ("--filter name=run", vec!["runs"]),
        ("--filter label=tier", vec!["ended", "runs"]),
        ("--filter label=tier=back", vec!["ended"]),
        ("--filter exited=3", vec!["ended"]),
        ("--filter label=tier=front --filter status=exited", vec![]),
    ] {
        assert_eq!(listed(&daemon, &format!("-a {filter}")), wanted, "{filter}");
    }
}

#[test]
fn an_unknown_filter_is_named() {
    let daemon = Daemon::start();
    daemon.ctl("ps --filter colour=red").fails(1, &["colour"]);
}

#[test]
fn the_table_says_how_it_went() {
    let daemon = three();
    let table = daemon.ctl("ps -a").text();
    let row = |name: &str| table.lines().find(|line| line.ends_with(name)).unwrap().to_owned();
    assert!(row("runs").contains("Up "), "{table}");
    assert!(row("ended").contains("Exited (3) "), "{table}");
    assert!(row("fresh").contains("Created"), "{table}");
    assert_eq!(
        daemon.ctl("ps -a -q").text().lines().map(str::len).collect::<Vec<_>>(),
        [12, 12, 12]
    );
}

#[test]
fn json_is_one_object_a_line() {
    let daemon = three();
    let text = daemon.ctl("ps -a --format json").text();
    let rows: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 3);
    for key in [
        "ID",
        "Image",
        "Command",
        "CreatedAt",
        "RunningFor",
        "Ports",
        "State",
        "Status",
        "Names",
        "Labels",
    ] {
        assert!(rows[0].get(key).is_some(), "{key} in {}", rows[0]);
    }
}

#[test]
fn inspect_has_dockers_shape() {
    let daemon = three();
    let shown = daemon.ctl("inspect runs").json();
    let container = &shown[0];
    assert_eq!(container["Name"], "/runs");
    assert_eq!(container["State"]["Status"], "running");
    assert_eq!(container["State"]["Running"], true);
    assert_eq!(container["State"]["ExitCode"], 0);
    assert!(container["State"]["Pid"].as_u64().unwrap() > 1);
    assert_eq!(container["Path"], "/bin/sleep");
    assert_eq!(container["Args"], serde_json::json!(["600"]));
    assert_eq!(container["Config"]["Labels"]["tier"], "front");
    let id = container["Id"].as_str().unwrap();
    assert_eq!(container["LogPath"], daemon.container_dir(id).json_log(id).display().to_string());
    for key in ["Created", "HostConfig", "Mounts", "NetworkSettings"] {
        assert!(container.get(key).is_some(), "{key}");
    }
    for time in ["StartedAt", "FinishedAt"] {
        assert!(container["State"][time].as_str().unwrap().contains('T'), "{time}");
    }
}

#[test]
fn inspect_of_several_is_one_list() {
    let daemon = three();
    let shown = daemon.ctl("inspect runs ended").json();
    assert_eq!(shown.as_array().unwrap().len(), 2);
    assert_eq!(shown[1]["State"]["ExitCode"], 3);
}

#[test]
fn templates_take_paths_and_functions() {
    let daemon = three();
    assert_eq!(daemon.inspect("runs", "{{.Name}} {{.State.Status}}"), "/runs running");
    assert_eq!(daemon.inspect("runs", "{{json .Args}}"), "[\"600\"]");
    let output = daemon.ctl("inspect --format '{{.NoSuchField}}' runs");
    assert_ne!(output.code, Some(0));
    assert!(output.stderr.contains("NoSuchField"), "{}", output.stderr);
    daemon.ctl("inspect --format '{{.State' runs").fails(1, &["template"]);
}

#[test]
fn version_and_info_tell_about_both_sides() {
    let daemon = three();
    let version = daemon.ctl("version").text();
    assert!(version.contains("Client") && version.contains("Server"), "{version}");
    let info = daemon.ctl("info").text();
    for wanted in [
        daemon.place().root.display().to_string(),
        daemon.place().bridge.clone(),
        "overlayfs".to_owned(),
    ] {
        assert!(info.contains(&wanted), "{wanted} in {info}");
    }
    assert!(info.contains("Running: 1") && info.contains("Containers: 3"), "{info}");
}

#[test]
fn every_verb_has_help_with_an_example() {
    let daemon = Daemon::start();
    let all = daemon.ctl("--help").text();
    for verb in VERBS {
        assert!(all.contains(verb), "{verb} in {all}");
        let help = daemon.ctl(&format!("{verb} --help")).text();
        assert!(help.contains("xample") && help.contains(&format!("ctl {verb}")), "{verb}: {help}");
    }
}
