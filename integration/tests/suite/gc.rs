//! Garbage: nothing that something reaches goes, nothing that nothing reaches stays.

use std::collections::HashMap;

use bosun_proto::v1;
use integration::archive::load;
use integration::daemon::Daemon;
use integration::fake_registry::{Answer, FakeRegistry};
use integration::image::{Image, Layer, Recipe, digest, noise};
use integration::tar::Entry;
use integration::wait;

fn on(base: &Layer, mark: &str) -> Image {
    Recipe::new().layer(base.clone()).files(&[Entry::file("mark", mark)]).image()
}

fn base() -> Layer {
    Layer::of(&integration::image::busybox())
}

#[test]
fn the_last_name_takes_everything_along() {
    let daemon = Daemon::start();
    load(&daemon, &[("test/one:1", &on(&base(), "one"))]);
    daemon.ctl("tag test/one:1 test/other:1").ok();
    let output = daemon.ctl("rmi test/one:1");
    assert_eq!(output.text(), "Untagged: test/one:1");
    assert_eq!(daemon.ctl("run --rm --net none test/other:1 cat /mark").text(), "one");
    let output = daemon.ctl("rmi test/other:1");
    output.ok();
    assert!(output.stdout.contains("Untagged: test/other:1"), "{}", output.stdout);
    assert!(output.stdout.contains("Deleted: sha256:"), "{}", output.stdout);
    // The answer comes when it is done.
    daemon.expect_nothing_stored("");
    daemon.ctl("rmi test/one:1").fails(1, &["test/one:1"]);
}

#[test]
fn what_is_shared_stays() {
    let daemon = Daemon::start();
    let base = base();
    load(&daemon, &[("test/one:1", &on(&base, "one")), ("test/two:1", &on(&base, "two"))]);
    daemon.ctl("rmi test/one:1").ok();
    let there = daemon.ctl("content ls -q").text();
    let (one, two) = (on(&base, "one"), on(&base, "two"));
    assert!(!there.contains(&one.layers()[1].digest) && !there.contains(one.digest()));
    assert!(two.blobs().iter().all(|blob| there.contains(&blob.digest)));
    assert_eq!(daemon.ctl("snapshot ls -q").text().lines().count(), 2);
    assert_eq!(daemon.ctl("run --rm --net none test/two:1 cat /mark").text(), "two");
}

#[test]
fn an_image_in_use_is_not_removed_and_its_user_is_named() {
    let daemon = Daemon::start();
    load(&daemon, &[("test/used:1", &on(&base(), "used"))]);
    daemon.ctl("create --name user test/used:1 cat /mark").ok();
    let before = daemon.stored();
    daemon.ctl("rmi test/used:1").fails(1, &["test/used:1", "user"]);
    assert_eq!(daemon.stored(), before);
    daemon.ctl("image prune -a -f").ok();
    assert_eq!(daemon.stored(), before);
    // The name goes by force; what the container stands on stays.
    daemon.ctl("rmi -f test/used:1").ok();
    assert_eq!(daemon.ctl("images -q").text(), "");
    daemon.ctl("image prune -a -f").ok();
    assert_eq!(daemon.ctl("start -a user").text(), "used");
    daemon.ctl("rm user").ok();
    daemon.expect_nothing_stored("");
}

#[test]
fn a_second_name_is_not_in_use() {
    let daemon = Daemon::start();
    load(&daemon, &[("test/used:1", &on(&base(), "used"))]);
    daemon.ctl("tag test/used:1 test/second:1").ok();
    daemon.ctl("create --name user test/used:1 cat /mark").ok();
    daemon.ctl("rmi test/second:1").ok();
    assert_eq!(daemon.ctl("start -a user").text(), "used");
}

#[test]
fn leases_hold_what_nothing_else_reaches() {
    let daemon = Daemon::start();
    let image = on(&base(), "leased");
    load(&daemon, &[("test/leased:1", &image)]);
    let snapshot = daemon.api().image("test/leased:1").content.unwrap().snapshot;
    let layer = image.layers()[1].digest.clone();
    let lease = daemon.ctl("lease create").text();
    daemon.ctl(&format!("lease add {lease} content {layer}")).ok();
    daemon.ctl(&format!("lease add {lease} snapshot {snapshot}")).ok();
    daemon.ctl("rmi test/leased:1").ok();
    daemon.ctl("system prune -a -f").ok();
    assert_eq!(daemon.ctl("content ls -q").text(), layer);
    assert_eq!(daemon.ctl("snapshot ls -q").text().lines().count(), 2, "with its parent");
    daemon.ctl(&format!("lease rm {lease}")).ok();
    daemon.expect_nothing_stored("");
}

#[test]
fn labels_hold_and_point_as_containerds_do() {
    let daemon = Daemon::start();
    let lease = daemon.ctl("lease create").text();
    // Straight into the store, and with no label but these.
    let leased = |data: &str, labels: &[(&str, &str)]| {
        let flags = labels.iter().map(|(key, value)| format!(" --label {key}={value}"));
        let words = format!("--lease {lease} content put{}", flags.collect::<String>());
        daemon.client().feed(&words, data).text()
    };
    // Held by the lease until all of them are there, as a client does it.
    let far = leased("far", &[]);
    let near = leased("near", &[("containerd.io/gc.ref.content.0", &far)]);
    let root = leased(
        "root",
        &[
            ("containerd.io/gc.root", "2026-01-01T00:00:00Z"),
            ("containerd.io/gc.ref.content", &near),
        ],
    );
    let back = leased("back", &[("containerd.io/gc.bref.content.x", &root)]);
    let loose = leased("loose", &[("containerd.io/gc.ref.content", &root)]);
    daemon.ctl(&format!("lease rm {lease}")).ok();
    wait::until_true("what nothing reaches to go", || {
        !daemon.ctl("content ls -q").text().contains(&loose)
    });
    let mut expected = [far, near, root.clone(), back];
    expected.sort();
    assert_eq!(daemon.ctl("content ls -q").text(), expected.join("\n"));
    daemon.ctl(&format!("content rm {root}")).ok();
    daemon.expect_nothing_stored("");
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_would_go() {
    let daemon = Daemon::start();
    load(&daemon, &[("test/idle:1", &on(&base(), "idle")), ("test/used:1", &on(&base(), "used"))]);
    daemon.ctl("run --name ended --net none test/used:1 true").ok();
    let before = daemon.stored();
    let dry = daemon.ctl("image prune -a --dry-run");
    dry.ok();
    assert!(
        dry.stdout.contains("test/idle:1") && !dry.stdout.contains("test/used:1"),
        "{}",
        dry.stdout
    );
    let dry = daemon.ctl("system prune -a --dry-run");
    dry.ok();
    let id = daemon.inspect("ended", "{{.Id}}");
    assert!(dry.stdout.contains(&id[..12]), "{}", dry.stdout);
    assert!(
        dry.stdout.contains("test/used:1") && dry.stdout.contains("test/idle:1"),
        "{}",
        dry.stdout
    );
    assert_eq!(daemon.stored(), before);
    assert_eq!(daemon.ctl("ps -a -q").text().lines().count(), 1);

    let pruned = daemon.ctl("image prune -a -f");
    pruned.ok();
    assert!(pruned.stdout.contains("test/idle:1"), "{}", pruned.stdout);
    assert!(pruned.stdout.contains("reclaimed"), "{}", pruned.stdout);
    assert_eq!(daemon.api().image_names(), ["docker.io/test/used:1"]);
    daemon.ctl("system prune -a -f").ok();
    daemon.expect_nothing_stored("");
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
}

#[test]
fn running_containers_survive_a_prune() {
    let daemon = Daemon::start();
    load(&daemon, &[("test/used:1", &on(&base(), "used"))]);
    daemon.ctl("run -d --name one --net none test/used:1 sleep 600").ok();
    daemon.ctl("system prune -a -f").ok();
    assert_eq!(daemon.ctl("exec one cat /mark").text(), "used");
    assert_eq!(daemon.api().image_names(), ["docker.io/test/used:1"]);
}

#[test]
fn prune_takes_filters() {
    let daemon = Daemon::start();
    let labelled = Recipe::new()
        .files(&[Entry::file("x", "labelled")])
        .config(serde_json::json!({"Labels": {"keep": "1"}}))
        .image();
    let plain = Recipe::new().files(&[Entry::file("x", "plain")]).image();
    load(&daemon, &[("test/labelled:1", &labelled), ("test/plain:1", &plain)]);
    // They were made at the beginning of 2024.
    daemon.ctl("image prune -a -f --filter until=2023-12-31T00:00:00Z").ok();
    assert_eq!(daemon.api().image_names().len(), 2, "none is that old");
    daemon.ctl("image prune -a -f --filter label!=keep").ok();
    assert_eq!(daemon.api().image_names(), ["docker.io/test/labelled:1"]);
    daemon.ctl("image prune -a -f --filter nonsense=1").fails(1, &["nonsense"]);
    daemon.ctl("image prune -a -f --filter label=keep=1").ok();
    daemon.expect_nothing_stored("");
}

#[test]
fn a_prune_asks_a_person() {
    let daemon = Daemon::start();
    load(&daemon, &[("test/idle:1", &on(&base(), "idle"))]);
    let _ = daemon.client().feed("image prune -a", "n\n");
    assert_eq!(daemon.api().image_names().len(), 1);
    daemon.client().feed("image prune -a", "y\n").ok();
    daemon.expect_nothing_stored("");
}

/// Rows and files that belong together fall apart: the next start cleans up.
#[test]
fn orphans_go_at_the_start() {
    let mut daemon = Daemon::start();
    load(&daemon, &[("test/kept:1", &on(&base(), "kept"))]);
    let before = daemon.stored();
    daemon.terminate();
    let root = daemon.place().root.clone();
    let stray = digest(b"stray");
    std::fs::write(
        root.join("content/blobs/sha256").join(stray.trim_start_matches("sha256:")),
        "stray",
    )
    .unwrap();
    std::fs::create_dir_all(root.join("snapshots/overlayfs/9999/fs/deep/tree")).unwrap();
    std::fs::create_dir_all(root.join("content/ingest/nonsense")).unwrap();
    std::fs::create_dir_all(root.join("trash/old/thing")).unwrap();
    daemon.start_again();
    wait::until_true("the orphans to be gone", || daemon.stored() == before);
    assert_eq!(daemon.ctl("run --rm --net none test/kept:1 cat /mark").text(), "kept");
}

#[test]
fn a_download_that_nobody_resumes_is_pruned() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let image = Recipe::new().files(&[Entry::file("noise", noise(1, 200_000))]).image();
    let name = registry.add("a", "1", &image);
    registry.always(&image.layers()[0].digest, Answer::Status(403));
    daemon.ctl(&format!("pull {name}")).fails(1, &[]);
    daemon.ctl("system prune -f").ok();
    daemon.expect_nothing_stored("");
    registry.forgive();
    registry.next(1, &image.layers()[0].digest, Answer::Cut(100_000));
    registry.always(&image.layers()[0].digest, Answer::Status(403));
    let _ = daemon.ctl(&format!("pull {name}"));
    daemon.ctl("system prune -f").ok();
    daemon.expect_nothing_stored("");
}

/// What is collected beside a pull is never what the pull brings.
#[test]
fn a_prune_beside_a_pull_takes_nothing_from_it() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let layers = (0..5).fold(Recipe::busybox(), |recipe, number| {
        recipe.files(&[Entry::file(&format!("f{number}"), noise(number, 300_000))])
    });
    let name = registry.add("a", "1", &layers.image());
    for _ in 0..3 {
        let client = daemon.ctl_start(&format!("pull {name}"));
        for _ in 0..10 {
            daemon.ctl("system prune -f").ok();
        }
        client.finish().ok();
        daemon.ctl("system prune -f").ok();
        assert_eq!(daemon.ctl(&format!("run --rm --net none {name} ls /f4")).text(), "/f4");
        daemon.ctl(&format!("rmi {name}")).ok();
    }
    daemon.expect_nothing_stored("");
}

#[test]
fn disk_usage_adds_up() {
    let daemon = Daemon::start();
    let (one, two) = (on(&base(), "one"), on(&base(), "two"));
    load(&daemon, &[("test/one:1", &one), ("test/two:1", &two)]);
    daemon.ctl("run -d --name user --net none test/one:1 sleep 600").ok();
    let api = daemon.api();
    let usage = api
        .wait(async { api.system().disk_usage(v1::DiskUsageRequest {}).await })
        .unwrap()
        .into_inner();
    let (images, content) = (usage.images.unwrap(), usage.content.unwrap());
    assert_eq!((images.count, images.active), (2, 1));
    let bytes: HashMap<&str, u64> = [&one, &two]
        .into_iter()
        .flat_map(Image::blobs)
        .map(|blob| (blob.digest.as_str(), blob.bytes.len() as u64))
        .collect();
    assert_eq!(content.count, bytes.len() as u64);
    assert_eq!(content.active, content.count);
    let sum: u64 = bytes.values().sum();
    assert!(content.size >= sum && content.size < sum + 4096 * content.count, "{content:?} {sum}");
    assert!(usage.snapshots.unwrap().size > 1_000_000);
    assert_eq!(usage.ingests.unwrap().count, 0);
    let table = daemon.ctl("system df").text();
    for word in ["TYPE", "RECLAIMABLE", "Images", "Containers"] {
        assert!(table.contains(word), "{table}");
    }
    assert!(daemon.ctl("system df -v").text().contains("test/two"), "each image");
}

/// A removal that is made again, because its answer was lost, is not another one.
#[test]
fn a_removal_with_the_same_request_id_is_done_once() {
    let daemon = Daemon::start();
    load(&daemon, &[("test/one:1", &on(&base(), "one"))]);
    let api = daemon.api();
    let remove = || {
        let request = v1::RemoveImageRequest {
            request_id: "once".to_owned(),
            image: "test/one:1".to_owned(),
            ..v1::RemoveImageRequest::default()
        };
        api.wait(async { api.images().remove(request).await }).map(tonic::Response::into_inner)
    };
    let first = remove().unwrap();
    assert_eq!(first.untagged, ["docker.io/test/one:1"]);
    assert!(!first.deleted.is_empty());
    load(&daemon, &[("test/one:1", &on(&base(), "another"))]);
    assert_eq!(remove().unwrap(), first);
    assert_eq!(daemon.api().image_names().len(), 1, "the other one stays");
}
