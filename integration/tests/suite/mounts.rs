//! Host directories in a container.

use integration::daemon::Daemon;

#[test]
fn what_is_written_is_on_the_host() {
    let daemon = Daemon::start();
    let shared = daemon.scratch().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("from-host"), "host").unwrap();
    let words = format!(
        "run --rm -v {}:/mnt --net none --rootfs / /bin/sh -c 'cat /mnt/from-host; echo inside > /mnt/from-inside'",
        shared.display()
    );
    assert_eq!(daemon.ctl(&words).text(), "host");
    assert_eq!(std::fs::read_to_string(shared.join("from-inside")).unwrap(), "inside\n");
}

#[test]
fn read_only_is_read_only() {
    let daemon = Daemon::start();
    let shared = daemon.scratch().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let words = format!(
        "run --rm -v {}:/mnt:ro --net none --rootfs / /bin/sh -c 'echo x > /mnt/file'",
        shared.display()
    );
    let output = daemon.ctl(&words);
    assert_ne!(output.code, Some(0));
    assert!(output.stderr.contains("Read-only"), "{}", output.stderr);
    assert!(!shared.join("file").exists());
}

#[test]
fn a_destination_that_is_not_there_is_made_in_the_container_only() {
    let daemon = Daemon::start();
    let shared = daemon.scratch().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let words = format!(
        "run --rm -v {}:/bosun-test/a/b --net none --rootfs / /bin/sh -c 'ls -d /bosun-test/a/b'",
        shared.display()
    );
    assert_eq!(daemon.ctl(&words).text(), "/bosun-test/a/b");
    assert!(!std::path::Path::new("/bosun-test").exists());
}

#[test]
fn a_single_file_can_be_mounted() {
    let daemon = Daemon::start();
    let file = daemon.scratch().join("motd");
    std::fs::write(&file, "ours").unwrap();
    let words = format!(
        "run --rm -v {}:/etc/motd --net none --rootfs / /bin/cat /etc/motd",
        file.display()
    );
    assert_eq!(daemon.ctl(&words).text(), "ours");
}

#[test]
fn a_destination_behind_a_link_stays_in_the_container() {
    let daemon = Daemon::start();
    let (tree, shared, outside) = (
        daemon.scratch().join("tree"),
        daemon.scratch().join("shared"),
        daemon.scratch().join("outside"),
    );
    for directory in [&tree, &shared, &outside] {
        std::fs::create_dir(directory).unwrap();
    }
    std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
    let busybox = "/bin/sleep";
    let words = format!(
        "run --rm -v {}:/link/deep --net none --rootfs {} {busybox} 0",
        shared.display(),
        tree.display()
    );
    let _ = daemon.ctl(&words);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "nothing was made outside");
}

#[test]
fn a_missing_source_is_named() {
    let daemon = Daemon::start();
    daemon
        .ctl("run --rm -v /no/such/source:/mnt --net none --rootfs / /bin/true")
        .fails(125, &["/no/such/source"]);
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
}

#[test]
fn named_volumes_are_refused_until_they_exist() {
    let daemon = Daemon::start();
    daemon.ctl("run --rm -v data:/mnt --net none --rootfs / /bin/true").fails(125, &["data"]);
}

#[test]
fn a_malformed_mount_is_named() {
    let daemon = Daemon::start();
    for mount in ["/a:relative", "/tmp:/mnt:rx", "relative/path:/mnt", "/tmp:/a:ro:more"] {
        daemon
            .ctl(&format!("run --rm -v {mount} --net none --rootfs / /bin/true"))
            .fails(125, &[mount.split(':').nth(1).unwrap()]);
    }
}
