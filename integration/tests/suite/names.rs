//! How containers are named and found.

use integration::daemon::Daemon;

const CREATE: &str = "create --net none --rootfs /";

#[test]
fn a_name_in_use_is_refused_naming_its_holder() {
    let daemon = Daemon::start();
    let id = daemon.ctl(&format!("{CREATE} --name web /bin/true")).text();
    daemon
        .ctl("run -d --name web --net none --rootfs / /bin/true")
        .fails(125, &["name \"web\" is in use by container \"web\"", &id[..12]]);
    assert_eq!(daemon.ctl("ps -a -q --no-trunc").text(), id);
}

#[test]
fn a_name_is_free_again_after_rm() {
    let daemon = Daemon::start();
    for _ in 0..2 {
        daemon.ctl(&format!("{CREATE} --name web /bin/true")).ok();
        daemon.ctl("rm web").ok();
    }
}

#[test]
fn a_container_is_found_by_a_unique_prefix_of_its_id() {
    let daemon = Daemon::start();
    let id = daemon.ctl(&format!("{CREATE} /bin/true")).text();
    for length in [12, 20, 64] {
        assert_eq!(daemon.inspect(&id[..length], "{{.Id}}"), id);
    }
}

#[test]
fn an_ambiguous_prefix_is_refused() {
    let daemon = Daemon::start();
    // Seventeen ids have two that begin with the same hexadecimal digit.
    let mut seen = std::collections::BTreeSet::new();
    let shared = (0..17)
        .map(|_| daemon.ctl(&format!("{CREATE} /bin/true")).text()[..1].to_owned())
        .find(|digit| !seen.insert(digit.clone()))
        .unwrap();
    daemon.ctl(&format!("inspect {shared}")).fails(1, &[&shared, "ambiguous"]);
    daemon.ctl(&format!("rm {shared}")).fails(1, &["ambiguous"]);
}

#[test]
fn an_unknown_name_is_named() {
    let daemon = Daemon::start();
    for verb in
        ["start", "stop", "restart", "kill", "rm", "wait", "inspect", "logs", "attach", "exec"]
    {
        let rest = if verb == "exec" { " /bin/true" } else { "" };
        daemon
            .ctl(&format!("{verb} nobody-is-called-this{rest}"))
            .fails(1, &["nobody-is-called-this"]);
    }
}

#[test]
fn a_malformed_name_is_refused() {
    let daemon = Daemon::start();
    for name in ["a/b", "../x", "-", "a b", ".", "ä"] {
        let output =
            daemon.ctl(&format!("run --rm '--name={name}' --net none --rootfs / /bin/true"));
        output.fails(125, &[name]);
    }
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
}

#[test]
fn without_a_name_one_is_made_up() {
    let daemon = Daemon::start();
    let id = daemon.ctl(&format!("{CREATE} /bin/true")).text();
    let name = daemon.inspect(&id, "{{.Name}}");
    assert!(name.len() > 3 && name.starts_with('/'), "{name}");
    assert_eq!(daemon.inspect(&name[1..], "{{.Id}}"), id);
}

#[test]
fn of_many_with_one_name_at_once_exactly_one_is_made() {
    let daemon = Daemon::start();
    let clients: Vec<_> =
        (0..10).map(|_| daemon.ctl_start(&format!("{CREATE} --name web /bin/true"))).collect();
    let made = clients
        .into_iter()
        .map(integration::ctl::Running::finish)
        .filter(|output| output.code == Some(0))
        .count();
    assert_eq!(made, 1);
    assert_eq!(daemon.ctl("ps -a -q").text().lines().count(), 1);
}
