//! A disk that is full in the middle: an error, cleaned up, and everything else goes on.

use std::path::PathBuf;

use integration::archive;
use integration::daemon::{Daemon, Settings};
use integration::fake_registry::FakeRegistry;
use integration::image::{Compression, Image, Layer, Recipe, noise};
use integration::tar::{Entry, Header, Tar};

/// An image of so many megabytes that no compression makes smaller.
fn large(megabytes: usize) -> Image {
    let entries: Vec<Entry> = (0..megabytes)
        .map(|number| Entry::file(&format!("f{number}"), noise(number as u64, 1 << 20)))
        .collect();
    Recipe::new().files(&entries).image()
}

fn ballast(daemon: &Daemon) -> PathBuf {
    daemon.root().join("ballast")
}

/// Leaves so many megabytes of the disk.
fn fill(daemon: &Daemon, disk: usize, left: usize) {
    std::fs::write(ballast(daemon), noise(1, (disk - left) << 20)).unwrap();
}

/// Whoever meets it first says it: the file system, or the database.
#[track_caller]
fn fails_for_space(daemon: &Daemon, words: &str) {
    let output = daemon.ctl(words);
    output.check(1);
    let said = ["No space left", "disk is full"].iter().any(|text| output.stderr.contains(text));
    assert!(said, "{}", output.stderr);
}

#[track_caller]
fn expect_fine(daemon: &Daemon, registry: &FakeRegistry) {
    let _ = std::fs::remove_file(ballast(daemon));
    let name = registry.add("fine", "1", &Recipe::busybox().image());
    assert_eq!(daemon.ctl(&format!("run --rm --net none {name} echo fine")).text(), "fine");
    daemon.ctl(&format!("rmi {name}")).ok();
    daemon.ctl("system prune -f").ok();
    daemon.forget_tries();
    daemon.expect_nothing_stored("");
}

#[test]
fn while_downloading() {
    let daemon = Settings::new().disk(64).start();
    let registry = FakeRegistry::start(daemon.netns());
    let name = registry.add("large", "1", &large(80));
    fails_for_space(&daemon, &format!("pull {name}"));
    assert_eq!(daemon.api().image_names(), [""; 0]);
    assert_eq!(daemon.ctl("content ls -q").text(), "");
    expect_fine(&daemon, &registry);
}

/// Of a daemon that was started with one: the signal of it would end who does not expect it.
#[test]
fn a_limit_of_the_size_of_files_is_a_disk_without_room() {
    let daemon = Settings::new().through("prlimit --fsize=16000000").start();
    let pid = daemon.pid();
    let registry = FakeRegistry::start(daemon.netns());
    let name = registry.add("large", "1", &large(20));
    daemon.ctl(&format!("pull {name}")).fails(1, &["File too large"]);
    assert_eq!(daemon.ctl("content ls -q").text(), "");
    expect_fine(&daemon, &registry);
    assert_eq!(daemon.pid(), pid);
}

#[test]
fn while_unpacking() {
    let daemon = Settings::new().disk(64).start();
    let registry = FakeRegistry::start(daemon.netns());
    let mut tar = Tar::new();
    for number in 0..100 {
        // Zeros: small on the wire, large on the disk.
        tar.raw(&Header::new(&format!("zeros-{number}"), b'0', 1 << 20), &vec![b'z'; 1 << 20]);
    }
    let layer = Layer::raw(tar.finish(), Compression::Gzip);
    let name = registry.add("bomb", "1", &Recipe::new().layer(layer).image());
    fails_for_space(&daemon, &format!("pull {name}"));
    assert_eq!(daemon.api().image_names(), [""; 0]);
    expect_fine(&daemon, &registry);
}

#[test]
fn while_loading() {
    let daemon = Settings::new().disk(64).start();
    let registry = FakeRegistry::start(daemon.netns());
    let file = daemon.scratch().join("large.tar");
    std::fs::write(&file, archive::oci(&[("test/large:1", &large(80))])).unwrap();
    fails_for_space(&daemon, &format!("load -i {}", file.display()));
    daemon.expect_nothing_stored("");
    expect_fine(&daemon, &registry);
}

#[test]
fn containers_go_on_and_images_are_removed_all_the_same() {
    let daemon = Settings::new().disk(64).start();
    let registry = FakeRegistry::start(daemon.netns());
    let name = registry.add("busybox", "1", &Recipe::busybox().image());
    daemon.ctl(&format!("run -d --name one --net none {name} sleep 600")).ok();
    let used = registry.add("idle", "1", &large(2));
    daemon.ctl(&format!("pull {used}")).ok();
    fill(&daemon, 64, 16);
    let rest = noise(2, 1 << 16);
    let mut file = std::fs::File::options().append(true).open(ballast(&daemon)).unwrap();
    while std::io::Write::write_all(&mut file, &rest).is_ok() {}
    // An open file would keep its blocks when it is removed.
    drop(file);
    assert_eq!(daemon.ctl("exec one echo works").text(), "works");
    assert!(daemon.ctl("images -q").text().lines().count() == 2);
    let pulled = registry.add("more", "1", &large(5));
    fails_for_space(&daemon, &format!("pull {pulled}"));
    std::fs::remove_file(ballast(&daemon)).unwrap();
    daemon.ctl(&format!("rmi {used}")).ok();
    daemon.ctl("rm -f one").ok();
    daemon.ctl(&format!("rmi {name}")).ok();
    expect_fine(&daemon, &registry);
}
