//! Users, groups, capabilities: nobody is more than was asked for.

use integration::archive::load;
use integration::daemon::Daemon;
use integration::image::Recipe;
use integration::process::Process;
use integration::tar::Entry;

use super::{inside, sleeper};

/// docker's default set: CHOWN, DAC_OVERRIDE, FSETID, FOWNER, MKNOD, NET_RAW, SETGID, SETUID,
/// SETFCAP, SETPCAP, NET_BIND_SERVICE, SYS_CHROOT, KILL, AUDIT_WRITE.
const DEFAULT_CAPABILITIES: &str = "00000000a80425fb";
const NONE: &str = "0000000000000000";

#[test]
fn the_capabilities_are_dockers() {
    let (_daemon, process) = sleeper("");
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(process.status(set).as_deref(), Some(DEFAULT_CAPABILITIES), "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(process.status(set).as_deref(), Some("0000000000000000"), "{set}");
    }
}

#[test]
fn capabilities_are_added_and_dropped() {
    let (_daemon, process) = sleeper("--cap-drop ALL --cap-add NET_ADMIN --cap-add CAP_KILL");
    assert_eq!(process.status("CapEff").as_deref(), Some("0000000000001020"));
}

#[test]
fn an_unknown_capability_is_named() {
    let daemon = Daemon::start();
    daemon.ctl("run --rm --cap-add FLY --net none --rootfs / /bin/true").fails(125, &["FLY"]);
}

/// CVE-2016-8867: of a user without any, also those that outlive an exec.
#[test]
fn another_user_has_no_capabilities() {
    let (daemon, process) = sleeper("-u 65534:65534");
    for set in ["CapEff", "CapPrm", "CapAmb", "CapInh"] {
        assert_eq!(process.status(set).as_deref(), Some(NONE), "{set}");
    }
    assert_eq!(process.status("Uid").unwrap().split_whitespace().next(), Some("65534"));
    let seen = daemon.ctl("exec -u 1 one /bin/grep -E Cap(Eff|Prm|Amb) /proc/self/status").text();
    assert_eq!(seen.matches(NONE).count(), 3, "{seen}");
}

/// CVE-2022-24769, CVE-2022-29162, CVE-2022-27649 to 27652, CVE-2022-3466, CVE-2025-27612 (youki):
/// a program's file capabilities must not add to inheritable ones.
#[test]
fn no_capability_is_ever_inheritable() {
    let daemon = Daemon::start();
    for flags in [
        "",
        "-u 65534",
        "--cap-add NET_ADMIN",
        "--cap-add ALL",
        "--cap-drop ALL",
        "--privileged",
        "--init",
    ] {
        daemon.ctl(&format!("run -d --name one {flags} --net none --rootfs / /bin/sleep 600")).ok();
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(daemon.process("one").status(set).as_deref(), Some(NONE), "{flags} {set}");
        }
        for exec in ["", "-u 1", "--privileged", "--privileged -u 1", "-u 0:1"] {
            let words = format!("exec {exec} one /bin/grep -E Cap(Inh|Amb) /proc/self/status");
            let seen = daemon.ctl(&words).text();
            assert_eq!(seen.matches(NONE).count(), 2, "run {flags}, exec {exec}: {seen}");
        }
        daemon.ctl("rm -f one").ok();
    }
}

/// CVE-2016-3697, CVE-2026-46680: a number is never a name, in no file of the image's. Fails when an
/// entry whose name is the number is taken.
#[test]
fn a_number_is_not_looked_up_as_a_name() {
    let daemon = Daemon::start();
    let passwd = "root:x:0:0::/:/bin/sh\n1000:x:0:0::/:/bin/sh\napp:x:2000:2000::/:/bin/sh\n";
    let files =
        [Entry::file("etc/passwd", passwd), Entry::file("etc/group", "root:x:0:\n1000:x:0:\n")];
    load(&daemon, &[("test/names:1", &Recipe::busybox().files(&files).image())]);
    daemon.ctl("run -d --name one --net none test/names:1 sleep 600").ok();
    for user in ["1000", "1000:1000", "01000"] {
        let words = "sh -c 'echo $(id -u)'";
        let run = daemon.ctl(&format!("run --rm -u {user} --net none test/names:1 {words}"));
        assert_eq!(run.text(), "1000", "{user}");
        assert_eq!(daemon.ctl(&format!("exec -u {user} one {words}")).text(), "1000", "{user}");
    }
    let group = daemon.ctl("exec -u 2000:1000 one sh -c 'echo $(id -g)'").text();
    assert_eq!(group, "1000");
}

/// CVE-2026-30892 (crun), CVE-2024-40635: who is asked for, or an error; root only when root is asked
/// for. Fails when a user is not passed on, and when numbers wrap.
#[test]
fn an_exec_is_who_was_asked_for_or_nobody() {
    let (daemon, _process) = sleeper("-u 33:33");
    for (user, ids) in [
        ("0", Some("0 0")),
        ("root", Some("0 0")),
        ("1", Some("1 1")),
        ("01", Some("1 1")),
        ("1:1", Some("1 1")),
        ("1:7", Some("1 7")),
        ("65535", Some("65535 0")),
        ("2147483647", Some("2147483647 0")),
        ("1:", None),
        (":1", None),
        (":", None),
        ("+1", None),
        ("-1", None),
        ("1:-1", None),
        ("2147483648", None),
        ("4294967295", None),
        ("4294967296", None),
        ("1:4294967296", None),
        ("18446744073709551616", None),
        ("0x0", None),
        ("nobody-here", None),
        ("root:nobody-here", None),
    ] {
        let script = "/bin/sh -c 'echo $(id -u) $(id -g)'";
        for words in [
            format!("exec -u {user} one {script}"),
            format!("run --rm -u {user} --net none --rootfs / {script}"),
        ] {
            let output = daemon.ctl(&words);
            match ids {
                Some(ids) => assert_eq!(output.text(), ids, "{words}"),
                None => {
                    assert_ne!(output.code, Some(0), "{words}: {}", output.stdout);
                    assert_eq!(output.stdout, "", "{words}");
                }
            }
        }
    }
}

/// CVE-2022-36109, CVE-2022-2989, 2990 and 2995, CVE-2023-25173: the groups of a user come along in
/// an exec as in a run (`image_config::the_user_and_all_groups`), so that a file denied to a group
/// stays denied. Fails when only the first group is set.
#[test]
fn an_exec_has_all_groups_of_its_user() {
    let daemon = Daemon::start();
    load(&daemon, &[("test/groups:1", &Recipe::busybox().image())]);
    daemon.ctl("run -d --name one --net none test/groups:1 sleep 600").ok();
    for (user, groups) in [
        ("www", "26 33"),
        ("33", "26 33"),
        ("www:0", "0 26"),
        ("33:0", "0 26"),
        ("12345", "0"),
        ("12345:7", "7"),
    ] {
        let seen = daemon.ctl(&format!("exec -u {user} one id -G")).text();
        let mut seen: Vec<&str> = seen.split_whitespace().collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.join(" "), groups, "{user}");
    }
    let script = "echo secret > /tmp/denied; chown 0:26 /tmp/denied; chmod 604 /tmp/denied";
    inside(&daemon, script).ok();
    assert_ne!(daemon.ctl("exec -u www one cat /tmp/denied").code, Some(0));
    assert_eq!(daemon.ctl("exec -u 12345 one cat /tmp/denied").text(), "secret");
}

/// The bounding set of a privileged container is the daemon's own.
#[test]
fn privileged_is_what_the_daemon_has_and_no_more() {
    let (_daemon, process) = sleeper("--privileged");
    assert_eq!(process.status("CapBnd"), Process(std::process::id()).status("CapBnd"));
}
