//! Pushing: what goes over the wire, and that what arrives is what was there.

use integration::daemon::Daemon;
use integration::fake_registry::{Answer, FakeRegistry};
use integration::image::{Dialect, Image, Recipe, architecture, noise};
use integration::netns;
use integration::registry::Registry;
use integration::tar::Entry;

fn image(mark: &str) -> Image {
    Recipe::new()
        .files(&[Entry::file("noise", noise(5, 100_000))])
        .files(&[Entry::file("mark", mark)])
        .image()
}

#[test]
fn what_was_pulled_is_pushed_as_it_was() {
    let daemon = Daemon::start();
    let registry = Registry::start(daemon.netns());
    for dialect in [Dialect::Oci, Dialect::Docker] {
        let image = Recipe::busybox().dialect(dialect).image();
        let name = registry.push("from", "1", &image);
        let target = format!("{}/to/here:{dialect:?}", registry.host());
        daemon.ctl(&format!("pull {name}")).ok();
        daemon.ctl(&format!("tag {name} {target}")).ok();
        let output = daemon.ctl(&format!("push {target}"));
        output.ok();
        assert!(output.stdout.contains(image.digest()), "{}", output.stdout);
        assert!(registry.manifest("to/here", image.digest()).is_some());
        for blob in image.parts {
            assert_eq!(registry.blob("to/here", &blob.digest), Some(blob.bytes));
        }
    }
}

#[test]
fn skopeo_reads_what_was_pushed() {
    let daemon = Daemon::start();
    let registry = Registry::start(daemon.netns());
    let name = registry.push("from", "1", &image("x"));
    let target = format!("{}/to:1", registry.host());
    daemon.ctl(&format!("pull {name}")).ok();
    daemon.ctl(&format!("push -q {name} {target}")).ok();
    let mut command = daemon.netns().command("skopeo");
    command.args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}"]);
    let seen = netns::run(command.arg(format!("docker://{target}")));
    assert_eq!(seen.trim(), image("x").digest());
}

#[test]
fn what_is_there_is_not_sent() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let name = registry.add("a", "1", &image("x"));
    daemon.ctl(&format!("pull {name}")).ok();
    let to = format!("{}/a:2", registry.host());
    daemon.ctl(&format!("push {name} {to}")).ok();
    assert_eq!(registry.count("PATCH ") + registry.count("PUT /v2/a/blobs"), 0);
    assert_eq!(registry.tag("a", "2").unwrap().digest, image("x").digest());
}

#[test]
fn a_layer_of_another_repository_is_mounted() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let name = registry.add("first", "1", &image("x"));
    daemon.ctl(&format!("pull {name}")).ok();
    daemon.ctl(&format!("push {name} {}/second:1", registry.host())).ok();
    let mounts = registry.requests();
    let mounts = mounts.iter().filter(|request| request.parameter("mount").is_some());
    assert!(mounts.clone().all(|request| request.parameter("from").as_deref() == Some("first")));
    assert!(mounts.count() >= 2);
    for layer in image("x").layers() {
        assert!(registry.has_blob("second", &layer.digest));
    }
    assert_eq!(registry.count("PATCH /v2/second"), 0);
    // Another registry does not hear of it.
    let other = FakeRegistry::start(daemon.netns());
    daemon.ctl(&format!("push {name} {}/second:1", other.host())).ok();
    assert!(other.requests().iter().all(|request| request.parameter("mount").is_none()));
    for layer in image("x").layers() {
        assert!(other.has_blob("second", &layer.digest));
    }
}

#[test]
fn an_index_goes_as_far_as_it_is_here() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let of = |platform: &str| {
        Recipe::new().platform(platform).files(&[Entry::file("mark", platform)]).image()
    };
    let ours = of(&format!("linux/{}", architecture()));
    let index = Image::index(Dialect::Oci, &[of("linux/s390x"), ours.clone()]);
    let name = registry.add("many", "1", &index);
    let other = FakeRegistry::start(daemon.netns());
    let to = format!("{}/many:1", other.host());
    daemon.ctl(&format!("pull {name}")).ok();
    daemon.ctl(&format!("push {name} {to}")).ok();
    assert_eq!(other.tag("many", "1").unwrap().digest, ours.digest(), "the only part that is here");
    daemon.ctl(&format!("pull --all-platforms {name}")).ok();
    daemon.ctl(&format!("push {name} {to}")).ok();
    assert_eq!(other.tag("many", "1").unwrap().digest, index.digest());
    for blob in index.blobs().into_iter().filter(|blob| !blob.is_manifest()) {
        assert!(other.has_blob("many", &blob.digest), "{}", blob.media_type);
    }
}

#[test]
fn a_registry_that_refuses_is_named() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let name = registry.add("a", "1", &image("x"));
    daemon.ctl(&format!("pull {name}")).ok();
    let other = FakeRegistry::start(daemon.netns());
    let to = format!("{}/b:1", other.host());
    for (part, status) in [("POST ", 401), ("POST ", 403), ("PUT /v2/b/manifests", 403)] {
        other.always(part, Answer::Status(status));
        daemon.ctl(&format!("push {name} {to}")).fails(1, &[&to]);
        assert!(other.tag("b", "1").is_none());
        other.forgive();
    }
    other.next(1, "POST ", Answer::Status(503));
    other.next(1, "PUT /v2/b/manifests", Answer::Status(500));
    daemon.ctl(&format!("push {name} {to}")).ok();
    assert_eq!(other.tag("b", "1").unwrap().digest, image("x").digest());
}

#[test]
fn an_image_that_is_not_here_is_named() {
    let daemon = Daemon::start();
    daemon.ctl("push 127.0.0.1:1/no/such:1").fails(1, &["no/such:1"]);
}
