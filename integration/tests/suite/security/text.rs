//! Names and settings that become files, paths or commands: they stay what they are.

use integration::canary::Canary;
use integration::daemon::Daemon;

use super::{inside, run_on, tree};

/// CVE-2022-4318, CVE-2026-15809: a line more in a file that the runtime writes. Fails when any text
/// may be a host's name.
#[test]
fn a_host_name_is_no_line_of_a_file() {
    let daemon = Daemon::start();
    for name in ["a\n10.0.0.1 evil", "a\r10.0.0.1", "a b", "a\tb", "../a", "a:b", "a/b"] {
        let output =
            daemon.ctl(&format!("run --rm -h '{name}' --net none --rootfs / /bin/cat /etc/hosts"));
        output.fails(125, &["hostname"]);
    }
}

/// The same by the environment: nothing of it becomes an entry of a file of users. CVE-2022-4318,
/// CVE-2026-15809.
#[test]
fn a_variable_is_no_line_of_a_file() {
    let daemon = Daemon::start();
    let tree = tree(&daemon, "tree");
    let passwd = "root:x:0:0:root:/root:/bin/sh\n";
    std::fs::write(tree.join("etc/passwd"), passwd).unwrap();
    for home in ["/x\nevil:x:0:0::/:/bin/sh", "/x\r", "/x:/y:z", "\n"] {
        let flags = format!("-u 4711 -e 'HOME={home}'");
        let output = run_on(&daemon, &tree, &flags, "cat /etc/passwd; env");
        assert!(output.text().starts_with(passwd), "{home:?}");
        assert_eq!(output.stdout.matches("/bin/sh\n").count() - home.matches("/bin/sh").count(), 1);
        assert!(output.stdout.contains(&format!("HOME={home}")), "{home:?} is the process' own");
    }
}

/// CVE-2025-0750: ids, names and namespaces are no paths.
#[test]
fn a_name_is_no_path() {
    let (daemon, canary) = (Daemon::start(), Canary::new());
    let up = canary.up();
    let long = "../".repeat(10) + "tmp";
    for name in ["../x", "a/../../b", "/tmp/x", "..", ".", "a/b", long.as_str(), up.as_str()] {
        daemon
            .ctl(&format!("run -d --name '{name}' --net none --rootfs / /bin/true"))
            .fails(125, &["name"]);
        let output =
            daemon.ctl(&format!("--namespace '{name}' run -d --net none --rootfs / /bin/true"));
        output.fails(125, &["namespace"]);
        for verb in ["rm -f", "inspect", "logs", "stop", "export"] {
            let output = daemon.ctl(&format!("{verb} '{name}'"));
            assert_ne!(output.code, Some(0), "{verb} {name}");
        }
        canary.expect_untouched(name);
    }
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
}

/// CVE-2021-43784: what is longer than sixteen bits can count arrives whole or is refused by name.
/// Fails when lengths are cut to sixteen bits.
#[test]
fn long_texts_arrive_whole_or_not_at_all() {
    let daemon = Daemon::start();
    let long = "x".repeat(100_000);
    for length in [65_535, 65_536, 65_537, 100_000] {
        let value = &long[..length];
        let words =
            format!("run --rm -e A={value} --net none --rootfs / /bin/sh -c 'echo ${{#A}}'");
        assert_eq!(daemon.ctl(&words).text(), length.to_string());
        let words = format!("run --rm --net none --rootfs / /bin/sh -c 'echo ${{#1}}' sh {value}");
        assert_eq!(daemon.ctl(&words).text(), length.to_string());
    }
    let words =
        format!("run -d --name one --label long={long} --net none --rootfs / /bin/sleep 600");
    daemon.ctl(&words).ok();
    let label = daemon.inspect("one", "{{.Config.Labels.long}}");
    assert_eq!(label.len(), long.len());
    inside(&daemon, "true").ok();
    for flags in [
        format!("-w /{long}"),
        format!("-h {long}"),
        format!("-v {long}:/x"),
        format!("-v /tmp:/{long}"),
    ] {
        let output = daemon.ctl(&format!("run --rm {flags} --net none --rootfs / /bin/true"));
        assert_eq!(output.code, Some(125), "{}", &flags[..10]);
        assert!(!output.stderr.is_empty());
    }
}
