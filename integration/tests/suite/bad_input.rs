//! Mistakes of the user: the thing is named, and so is the way out.

use integration::ctl::Ctl;
use integration::daemon::{Daemon, program};
use integration::executable;

#[test]
fn without_a_daemon_the_client_says_how_to_start_one() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("bosun.sock");
    let ctl = Ctl::new(&program("ctl"), &socket);
    ctl.run("ps").fails(1, &[&socket.display().to_string(), "is bosund running?", "start it with"]);
    ctl.run("run --rm --rootfs / /bin/true").fails(125, &["is bosund running?"]);
}

#[test]
fn a_socket_that_nobody_serves_is_the_same() {
    let mut daemon = Daemon::start();
    daemon.kill();
    daemon.ctl("ps").fails(1, &["is bosund running?"]);
}

#[test]
fn another_user_is_told_what_is_missing() {
    let daemon = Daemon::start();
    // The client has to be where anybody may read it, as an installed one is.
    let copy = daemon.scratch().join("client");
    executable::copy(program("ctl"), &copy);
    open(daemon.scratch(), 0o755);
    let nobody = Ctl::new(&copy, &daemon.socket())
        .through("setpriv --reuid 65534 --regid 65534 --clear-groups");
    nobody
        .run("ps")
        .fails(1, &[&daemon.socket().display().to_string(), "permission denied", "root"]);
}

#[test]
fn the_daemon_needs_root() {
    let daemon = Daemon::start();
    let copy = daemon.scratch().join("daemon");
    executable::copy(program("bosund"), &copy);
    open(daemon.scratch(), 0o755);
    let output = std::process::Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(copy)
        .args(["--root", "/tmp/bosun-not-root", "--shim", "/bin/true"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("root"), "{said}");
    assert!(!std::path::Path::new("/tmp/bosun-not-root").exists());
}

#[test]
fn an_unknown_verb_or_flag_is_named() {
    let daemon = Daemon::start();
    let output = daemon.ctl("inspet");
    assert_ne!(output.code, Some(0));
    assert!(
        output.stderr.contains("inspet") && output.stderr.contains("inspect"),
        "{}",
        output.stderr
    );
    let output = daemon.ctl("ps --al");
    assert_ne!(output.code, Some(0));
    assert!(output.stderr.contains("--al"), "{}", output.stderr);
}

#[test]
fn only_the_restart_policy_no_is_taken() {
    let daemon = Daemon::start();
    daemon.ctl("run --rm --restart always --net none --rootfs / /bin/true").fails(125, &["always"]);
    daemon.ctl("run --rm --restart no --net none --rootfs / /bin/true").ok();
}

#[test]
fn an_unknown_signal_is_named() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    daemon.ctl("kill -s NOSUCH one").fails(1, &["NOSUCH"]);
    daemon
        .ctl("run --rm --stop-signal NOSUCH --net none --rootfs / /bin/true")
        .fails(125, &["NOSUCH"]);
    assert_eq!(daemon.inspect("one", "{{.State.Running}}"), "true");
}

#[test]
fn an_unknown_log_option_is_named() {
    let daemon = Daemon::start();
    daemon
        .ctl("run --rm --log-opt no-such=1 --net none --rootfs / /bin/true")
        .fails(125, &["no-such"]);
    daemon
        .ctl("run --rm --log-opt max-size=much --net none --rootfs / /bin/true")
        .fails(125, &["much"]);
    daemon
        .ctl("run --rm --log-driver syslog --net none --rootfs / /bin/true")
        .fails(125, &["syslog"]);
}

#[test]
fn an_unknown_user_is_named() {
    let daemon = Daemon::start();
    daemon
        .ctl("run --rm -u no-such-user --net none --rootfs / /bin/true")
        .fails(125, &["no-such-user"]);
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
}

#[test]
fn nothing_is_left_of_what_was_refused() {
    let daemon = Daemon::start();
    for words in [
        "-v /no/such:/mnt --rootfs / /bin/true",
        "--rootfs /no/such /bin/true",
        "--rootfs / /no/such",
        "-u nobody-here --rootfs / /bin/true",
        "-p 5000:5000 --rootfs / /no/such",
    ] {
        let output = daemon.ctl(&format!("run --name same {words}"));
        assert!(matches!(output.code, Some(125 | 127)), "{words}: {output:?}");
        daemon.expect_nothing_left();
    }
    daemon.ctl("run --rm --name same -p 5000:5000 --rootfs / /bin/true").ok();
}

fn open(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
