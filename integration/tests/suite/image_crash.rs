//! The daemon is killed at every failpoint on the way of an image: pulled, unpacked, collected.
//! Afterwards everything is whole or absent, the next pull works, and nothing stays.

use integration::daemon::{Daemon, Settings};
use integration::fake_registry::FakeRegistry;
use integration::image::{Image, Recipe, noise};
use integration::tar::Entry;

use crate::failpoints::of_operation;

fn image() -> Image {
    Recipe::busybox()
        .files(&[Entry::file("noise", noise(1, 400_000)), Entry::file("mark", "whole")])
        .files(&[Entry::file("more", noise(2, 200_000))])
        .image()
}

/// A whole life of an image, as far as it gets.
fn live(daemon: &Daemon, name: &str) {
    let _ = daemon.ctl(&format!("pull {name}"));
    // Layers are made durable in company, a second later.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    let _ = daemon.ctl(&format!("run --name one --net none {name} cat /mark"));
    let _ = daemon.ctl("commit one test/committed:1");
    let _ = daemon.ctl("rm one");
    let _ = daemon.ctl("rmi test/committed:1");
    let _ = daemon.ctl(&format!("rmi {name}"));
    let _ = daemon.ctl("system prune -a -f");
}

#[track_caller]
fn expect_sound(daemon: &Daemon, name: &str, point: &str) {
    for listed in daemon.api().image_names() {
        let output = daemon.ctl(&format!("run --rm --net none {listed} cat /mark"));
        assert_eq!(output.text(), "whole", "{point}: {listed} is there and not whole");
    }
    for digest in daemon.ctl("content ls -q").text().lines() {
        let file = daemon.place().root.join("content/blobs/sha256").join(&digest[7..]);
        match std::fs::read(file) {
            Ok(bytes) => assert_eq!(integration::image::digest(&bytes), digest, "{point}"),
            // The collection at the start may just have come by.
            Err(_) => assert!(!daemon.ctl("content ls -q").text().contains(digest), "{point}"),
        }
    }
    daemon.ctl(&format!("pull {name}")).ok();
    assert_eq!(
        daemon.ctl(&format!("run --rm --net none {name} cat /mark")).text(),
        "whole",
        "{point}"
    );
    let ids = daemon.ctl("ps -a -q").text().replace('\n', " ");
    if !ids.is_empty() {
        daemon.ctl(&format!("rm -f {ids}")).ok();
    }
    for listed in daemon.api().image_names() {
        daemon.ctl(&format!("rmi {listed}")).ok();
    }
    daemon.ctl("system prune -a -f").ok();
    daemon.forget_tries();
    daemon.expect_nothing_stored(point);
}

fn kill_at_each(operation: &str) {
    let mut unreached = Vec::new();
    for point in of_operation(operation) {
        let mut daemon = Settings::new().failpoint(&format!("{point}=panic")).start();
        let registry = FakeRegistry::start(daemon.netns());
        let name = registry.add("a", "1", &image());
        live(&daemon, &name);
        if daemon.ended_by_itself(std::time::Duration::from_millis(200)).is_none() {
            unreached.push(point);
            daemon.kill();
            daemon.clear_environment();
            daemon.start_again();
            continue;
        }
        daemon.clear_environment();
        daemon.start_again();
        expect_sound(&daemon, &name, &point);
    }
    assert!(unreached.is_empty(), "a whole life of an image does not pass {unreached:?}");
}

#[test]
fn while_pulling() {
    kill_at_each("pull");
}

#[test]
fn while_unpacking() {
    kill_at_each("unpack");
}

#[test]
fn while_collecting() {
    kill_at_each("gc");
}

#[test]
fn at_each_commit_of_the_database() {
    for commit in 1..=12 {
        let point = "daemon.store.after_commit";
        let armed = format!("{point}={}*off->panic", commit - 1);
        let mut daemon = Settings::new().failpoint(&armed).prepare();
        let registry = FakeRegistry::start(daemon.netns());
        let name = registry.add("a", "1", &image());
        daemon.launch();
        daemon.serving_or_ended();
        live(&daemon, &name);
        if daemon.ended_by_itself(std::time::Duration::from_millis(200)).is_none() {
            daemon.kill();
        }
        daemon.clear_environment();
        daemon.start_again();
        expect_sound(&daemon, &name, &armed);
    }
}

/// Not at a failpoint but at any moment.
#[test]
fn at_moments_in_between() {
    let mut daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let name = registry.add("a", "1", &image());
    for round in 0..12 {
        let client = daemon.ctl_start(&format!("pull {name}"));
        std::thread::sleep(std::time::Duration::from_millis(5 * round));
        daemon.kill();
        drop(client);
        daemon.start_again();
        for listed in daemon.api().image_names() {
            assert_eq!(
                daemon.ctl(&format!("run --rm --net none {listed} cat /mark")).text(),
                "whole"
            );
            daemon.ctl(&format!("rmi {listed}")).ok();
        }
    }
    expect_sound(&daemon, &name, "at the end");
}
