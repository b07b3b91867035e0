//! A directory as root, copy on write.

use integration::daemon::Daemon;

#[test]
fn the_hosts_tree_is_not_changed() {
    let daemon = Daemon::start();
    let mark = format!("/etc/bosun-test-{}", std::process::id());
    let script = format!(
        "echo x > {mark}; echo y >> /etc/hostname-not; rm -f /etc/debian_version; ls {mark}"
    );
    assert_eq!(
        daemon.ctl(&format!("run --rm --net none --rootfs / /bin/sh -c '{script}'")).text(),
        mark
    );
    assert!(!std::path::Path::new(&mark).exists());
    assert!(std::path::Path::new("/etc/debian_version").exists());
}

#[test]
fn containers_do_not_see_each_others_changes() {
    let daemon = Daemon::start();
    daemon.ctl("run --name one --net none --rootfs / /bin/sh -c 'echo x > /only-one'").ok();
    let output = daemon.ctl("run --rm --net none --rootfs / /bin/ls /only-one");
    assert_ne!(output.code, Some(0));
}

#[test]
fn read_only_lets_nothing_be_written() {
    let daemon = Daemon::start();
    let output = daemon.ctl("run --rm --read-only --net none --rootfs / /bin/sh -c 'echo x > /x'");
    assert_ne!(output.code, Some(0));
    assert!(output.stderr.contains("Read-only"), "{}", output.stderr);
}

#[test]
fn another_directory_than_the_hosts_root() {
    let daemon = Daemon::start();
    let tree = daemon.scratch().join("tree");
    for directory in ["usr/bin", "etc", "mark"] {
        std::fs::create_dir_all(tree.join(directory)).unwrap();
    }
    copy_with_libraries("/bin/sh", &tree);
    let words = format!(
        "run --rm --net none --rootfs {} /bin/sh -c 'echo /*; echo x > /mark/x'",
        tree.display()
    );
    let shown = daemon.ctl(&words).text();
    assert!(shown.contains("/mark") && !shown.contains("/home"), "{shown}");
    assert!(!tree.join("mark/x").exists());
}

#[test]
fn a_missing_one_is_named() {
    let daemon = Daemon::start();
    daemon
        .ctl("run --rm --net none --rootfs /no/such/tree /bin/true")
        .fails(125, &["/no/such/tree"]);
    daemon.ctl("run --rm --net none --rootfs relative /bin/true").fails(125, &["relative"]);
    daemon.ctl("run --rm --net none --rootfs /etc/passwd /bin/true").fails(125, &["/etc/passwd"]);
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
}

#[test]
fn the_hosts_tree_comes_with_a_word_of_warning() {
    let daemon = Daemon::start();
    let output = daemon.ctl("run -d --net none --rootfs / /bin/true");
    output.ok();
    assert!(output.stderr.contains("readable"), "{:?}", output.stderr);
}

#[test]
fn environment_directory_user_and_entrypoint() {
    let daemon = Daemon::start();
    let words = "run --rm -e A=1 -e B='two words' -w /usr/share -u nobody --net none --rootfs / /bin/sh -c 'echo $A $B; pwd; id -un; id -gn'";
    assert_eq!(daemon.ctl(words).text(), "1 two words\n/usr/share\nnobody\nnogroup");
    assert_eq!(
        daemon.ctl("run --rm --entrypoint /bin/echo --net none --rootfs / a b").text(),
        "a b"
    );
    assert_eq!(
        daemon
            .client()
            .with_environment("PASSED", "through")
            .run("run --rm -e PASSED --net none --rootfs / /bin/sh -c 'echo $PASSED'")
            .text(),
        "through"
    );
}

#[test]
fn a_directory_to_work_in_is_made_when_it_is_missing() {
    let daemon = Daemon::start();
    assert_eq!(
        daemon.ctl("run --rm -w /made/for/it --net none --rootfs / /bin/pwd").text(),
        "/made/for/it"
    );
    assert!(!std::path::Path::new("/made").exists());
}

fn copy_with_libraries(program: &str, tree: &std::path::Path) {
    let listing = integration::netns::run(std::process::Command::new("ldd").arg(program));
    let libraries = listing.split_whitespace().filter(|word| word.starts_with('/'));
    for file in std::iter::once(program).chain(libraries) {
        let to = tree.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        integration::executable::copy(file, to);
    }
}
