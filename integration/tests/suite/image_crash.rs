//! The daemon is killed on the way of an image, at each commit and at any moment: pulled, unpacked,
//! collected. Afterwards everything is whole or absent, the next pull works, and nothing stays. Its
//! failpoints are the fault matrix' (`matrix.rs`).

use integration::daemon::{Daemon, Settings};
use integration::fake_registry::FakeRegistry;
use integration::matrix::lives::{ImageLife, image};

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
    ImageLife::expect_whole(daemon, point);
    daemon.ctl(&format!("pull {name}")).ok();
    let output = daemon.ctl(&format!("run --rm --net none {name} cat /mark"));
    assert_eq!(output.text(), "whole", "{point}");
    ImageLife::remove_all(daemon, point);
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
