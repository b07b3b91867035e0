//! Registries that fail, lie, stall and lead astray: a clear error or a retry, nothing half there,
//! and the next pull fine.

use std::time::Duration;

use bosun_proto::v1;
use integration::api::reason;
use integration::daemon::{Daemon, Settings};
use integration::fake_registry::{Answer, Auth, FakeRegistry};
use integration::image::{Blob, Dialect, Image, OCI_INDEX, OCI_MANIFEST, Recipe, digest, noise};
use integration::tar::Entry;
use integration::wait;
use serde_json::{Value, json};
use tonic::Code;

/// How much the daemon may grow over what it has at rest, in kilobytes, whatever it is fed.
const ROOM: u64 = 64 * 1024;

fn image() -> Image {
    let entry = |seed| [Entry::file(&format!("file-{seed}"), noise(seed, 200_000))];
    Recipe::new().files(&entry(1)).files(&entry(2)).image()
}

/// A daemon, a registry with an image, its name, and what it is.
fn prepared() -> (Daemon, FakeRegistry, String, Image) {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let image = image();
    let name = registry.add("a", "1", &image);
    (daemon, registry, name, image)
}

/// Fails with these words, shows nothing of it, and works when the registry is honest again.
#[track_caller]
fn fails_and_recovers(daemon: &Daemon, registry: &FakeRegistry, name: &str, said: &[&str]) {
    let before = daemon.stored();
    daemon.ctl(&format!("pull {name}")).fails(1, said);
    expect_as_before(daemon, &before);
    registry.forgive();
    registry.require(Auth::Everybody);
    daemon.ctl(&format!("pull {name}")).ok();
    daemon.ctl(&format!("rmi {name}")).ok();
    daemon.forget_tries();
    daemon.expect_nothing_stored("");
}

/// What came before a break is kept a while for another try, as ingests and under a lease. All else
/// is collected.
#[track_caller]
fn expect_as_before(daemon: &Daemon, before: &[String]) {
    daemon.forget_tries();
    wait::until_true("the store to be as it was", || {
        let after = daemon.stored();
        after.iter().all(|line| before.contains(line) || line.contains("ingest"))
    });
}

#[test]
fn statuses_of_a_manifest() {
    let (daemon, registry, name, _) = prepared();
    for (status, said) in
        [(401, "ctl login"), (403, "denies access"), (404, "not found"), (418, "418")]
    {
        registry.always("/manifests/", Answer::Status(status));
        fails_and_recovers(&daemon, &registry, &name, &[&name, said]);
    }
}

#[test]
fn statuses_of_a_blob() {
    let (daemon, registry, name, image) = prepared();
    let digest = &image.layers()[1].digest;
    for status in [401, 403, 404] {
        registry.always(&format!("/blobs/{digest}"), Answer::Status(status));
        fails_and_recovers(&daemon, &registry, &name, &[digest]);
    }
}

#[test]
fn a_registry_in_trouble_is_asked_again() {
    let (daemon, registry, name, _) = prepared();
    registry.next(1, "/manifests/", Answer::Status(503));
    registry.next(1, "GET /v2/a/blobs/", Answer::Status(500));
    registry.next(1, "GET /v2/a/blobs/", Answer::Status(502));
    registry.next(1, "GET /v2/a/blobs/", Answer::Cut(0));
    daemon.ctl(&format!("pull {name}")).ok();
}

#[test]
fn one_that_stays_in_trouble_is_given_up() {
    let (daemon, registry, name, _) = prepared();
    registry.always("/manifests/", Answer::Status(503));
    fails_and_recovers(&daemon, &registry, &name, &[&name, "503"]);
    registry.always("GET /v2/a/blobs/", Answer::Status(500));
    fails_and_recovers(&daemon, &registry, &name, &["500", "sha256:"]);
}

#[test]
fn too_many_requests_are_waited_for_as_told() {
    let (daemon, registry, name, _) = prepared();
    registry.next(1, "/manifests/", Answer::too_many(2));
    let begin = std::time::Instant::now();
    daemon.ctl(&format!("pull {name}")).ok();
    assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
    daemon.ctl(&format!("rmi {name}")).ok();
    registry.always("/manifests/", Answer::too_many(1));
    fails_and_recovers(&daemon, &registry, &name, &["too many requests"]);
}

#[test]
fn what_is_no_http_is_an_error() {
    let (daemon, registry, name, _) = prepared();
    registry.always("/manifests/", Answer::Garbage);
    fails_and_recovers(&daemon, &registry, &name, &[&name]);
    registry.always("GET /v2/a/blobs/", Answer::Garbage);
    fails_and_recovers(&daemon, &registry, &name, &["sha256:"]);
    registry.always("/manifests/", Answer::document(OCI_MANIFEST, b"<html>login</html>"));
    fails_and_recovers(&daemon, &registry, &name, &[&name]);
}

/// CVE-2014-8178, CVE-2014-8179.
#[test]
fn a_blob_with_another_digest_is_refused() {
    let (daemon, registry, name, image) = prepared();
    let layer = image.layers()[0];
    let mut spoiled = layer.bytes.clone();
    let last = spoiled.len() - 1;
    spoiled[last] ^= 1;
    registry.always(&layer.digest, Answer::bytes(&spoiled));
    fails_and_recovers(&daemon, &registry, &name, &[&layer.digest, &digest(&spoiled)]);
    let id = image.id();
    registry.always(&id, Answer::bytes(&noise(1, 10)));
    fails_and_recovers(&daemon, &registry, &name, &[&id]);
}

#[test]
fn a_manifest_with_another_digest_is_refused() {
    let (daemon, registry, name, image) = prepared();
    let wanted = format!("{}@{}", name.trim_end_matches(":1"), image.digest());
    let other = Recipe::new().files(&[Entry::file("other", "x")]).image();
    registry.add("a", "other", &other);
    registry.always("/manifests/", Answer::document(OCI_MANIFEST, &other.target.bytes));
    fails_and_recovers(&daemon, &registry, &wanted, &[image.digest(), other.digest()]);
}

#[test]
fn a_blob_of_another_length_is_refused() {
    let (daemon, registry, name, image) = prepared();
    let layer = image.layers()[0];
    let long = [layer.bytes.clone(), vec![0; 1000]].concat();
    registry.always(&layer.digest, Answer::bytes(&long));
    fails_and_recovers(&daemon, &registry, &name, &[&layer.digest]);
    registry.always(&layer.digest, Answer::bytes(&layer.bytes[..1000]));
    fails_and_recovers(&daemon, &registry, &name, &[&layer.digest]);
    registry.always(&layer.digest, Answer::Promise(7));
    fails_and_recovers(&daemon, &registry, &name, &[&layer.digest]);
}

#[test]
fn a_blob_without_end_is_cut_off() {
    let (daemon, registry, name, image) = prepared();
    let before = daemon.peak_memory();
    for digest in [image.layers()[0].digest.clone(), image.id()] {
        registry.always(&digest, Answer::Endless(8 << 30));
        fails_and_recovers(&daemon, &registry, &name, &[&digest]);
    }
    assert!(daemon.peak_memory() < before + ROOM, "{} kB", daemon.peak_memory());
}

#[test]
fn a_download_that_breaks_off_goes_on_by_range() {
    let (daemon, registry, name, image) = prepared();
    let layer = &image.layers()[0].digest;
    registry.next(1, layer, Answer::Cut(70_000));
    registry.next(1, layer, Answer::Cut(60_000));
    daemon.ctl(&format!("pull {name}")).ok();
    let asked: Vec<_> = registry
        .requests()
        .iter()
        .filter(|request| request.method == "GET" && request.path.ends_with(layer.as_str()))
        .map(|request| request.header("range").unwrap_or_default().to_owned())
        .collect();
    assert_eq!(asked.len(), 3, "{asked:?}");
    for (range, expected) in asked.iter().zip(["", "bytes=70000-", "bytes=130000-"]) {
        assert!(range.starts_with(expected), "{asked:?}");
    }
}

#[test]
fn a_server_that_ignores_the_range_is_listened_to_from_the_beginning() {
    let (daemon, registry, name, image) = prepared();
    let layer = &image.layers()[0].digest;
    registry.next(1, layer, Answer::Cut(70_000));
    registry.next(1, layer, Answer::IgnoreRange);
    daemon.ctl(&format!("pull {name}")).ok();
}

/// Holds a blob back in the middle, kills the daemon there, and gives the ranges asked for later.
#[test]
fn a_download_goes_on_after_the_daemon_was_killed() {
    let (mut daemon, registry, _, _) = prepared();
    let image = Recipe::new().files(&[Entry::file("large", noise(3, 6 << 20))]).image();
    let name = registry.add("large", "1", &image);
    let layer = image.layers()[0].digest.clone();
    registry.next(1, &layer, Answer::Hold(5 << 20));
    let client = daemon.ctl_start(&format!("pull {name}"));
    let written = || -> u64 {
        let listed = daemon.ctl("content ingests --format '{{.Bytes}}'").text();
        listed.lines().filter_map(|line| line.parse::<u64>().ok()).max().unwrap_or(0)
    };
    wait::until_true("most of the layer to be written", || written() >= 4 << 20);
    daemon.kill();
    assert_ne!(client.finish().code, Some(0));
    daemon.start_again();
    assert_eq!(daemon.api().image_names(), [""; 0], "nothing half visible");
    registry.forget_requests();
    daemon.ctl(&format!("pull {name}")).ok();
    let requests = registry.requests();
    let again = requests.iter().find(|request| request.path.ends_with(&layer)).unwrap();
    let range = again.header("range").expect("a range");
    let from = range.trim_start_matches("bytes=").trim_end_matches('-').parse::<u64>().unwrap();
    assert!((4 << 20..=5 << 20).contains(&from), "{range}");
    assert!(!daemon.stored().iter().any(|line| line.contains("ingest")), "{:?}", daemon.stored());
}

#[test]
fn redirects_are_followed_but_not_in_a_ring() {
    let (daemon, registry, name, image) = prepared();
    let other = FakeRegistry::start_at(daemon.netns(), [127, 0, 0, 2].into());
    let layer = &image.layers()[0].digest;
    other.add("store", "1", &image);
    let there = format!("http://{}/v2/store/blobs/{layer}", other.host());
    registry.always(layer, Answer::redirect(&there));
    daemon.ctl(&format!("pull {name}")).ok();
    assert!(other.count(layer) > 0);
    daemon.ctl(&format!("rmi {name}")).ok();

    other
        .always(layer, Answer::redirect(&format!("http://{}/v2/a/blobs/{layer}", registry.host())));
    fails_and_recovers(&daemon, &registry, &name, &[layer, "redirect"]);
    registry.always("/manifests/", Answer::redirect("/v2/a/manifests/1"));
    fails_and_recovers(&daemon, &registry, &name, &["redirect"]);
    registry.always(layer, Answer::redirect("file:///etc/passwd"));
    fails_and_recovers(&daemon, &registry, &name, &[layer]);
}

#[test]
fn one_that_stalls_holds_nobody_else_up() {
    let (daemon, registry, name, image) = prepared();
    let other = FakeRegistry::start(daemon.netns());
    for answer in [Answer::Silent, Answer::Slow] {
        registry.always(&image.layers()[0].digest, answer);
        let stalled = daemon.ctl_start(&format!("pull {name}"));
        wait::until_true("the download", || registry.count(&image.layers()[0].digest) > 0);
        let small = Recipe::new().files(&[Entry::file("x", "y")]).image();
        daemon.ctl(&format!("pull {}", other.add("b", "1", &small))).ok();
        daemon.ctl("run --rm --net none --rootfs / /bin/true").ok();
        drop(stalled);
    }
}

/// CVE-2021-41190, GHSA-5j5w-g665-5m35.
#[test]
fn a_document_that_is_index_and_manifest_at_once_is_refused() {
    let (daemon, registry, name, image) = prepared();
    let mut both: Value = serde_json::from_slice(&image.target.bytes).unwrap();
    both["manifests"] = json!([image.target.descriptor()]);
    for media_type in [OCI_MANIFEST, OCI_INDEX] {
        both["mediaType"] = json!(media_type);
        let name = registry.add(
            "both",
            "1",
            &Image::of(Blob::json(media_type, &both), image.parts.clone()),
        );
        daemon.ctl(&format!("pull {name}")).fails(1, &["manifests"]);
    }
    // What it says of itself, and what the server says of it.
    registry.always("/manifests/1", Answer::document(OCI_INDEX, &image.target.bytes));
    fails_and_recovers(&daemon, &registry, &name, &[OCI_INDEX]);
}

#[test]
fn indexes_in_indexes_have_an_end() {
    let (daemon, registry, _, image) = prepared();
    let mut nested = image.clone();
    for depth in 1..=1000 {
        let index = Image::index(Dialect::Oci, &[nested.clone()]);
        nested = Image::of(index.target, index.parts);
        if depth == 2 {
            daemon.ctl(&format!("pull {}", registry.add("nested", "2", &nested))).ok();
            daemon.ctl(&format!("rmi {}/nested:2", registry.host())).ok();
        }
    }
    let before = daemon.stored();
    daemon.ctl(&format!("pull {}", registry.add("nested", "1000", &nested))).fails(1, &["nested"]);
    assert_eq!(daemon.stored(), before);
}

#[test]
fn a_manifest_of_a_hundred_megabytes_is_refused() {
    let (daemon, registry, name, image) = prepared();
    let before = daemon.peak_memory();
    let mut huge = image.target.bytes.clone();
    huge.resize(100 << 20, b' ');
    registry.always("/manifests/", Answer::document(OCI_MANIFEST, &huge));
    fails_and_recovers(&daemon, &registry, &name, &[&name]);
    registry.always("/manifests/", Answer::Endless(1 << 40));
    fails_and_recovers(&daemon, &registry, &name, &[&name]);
    assert!(daemon.peak_memory() < before + ROOM, "{} kB", daemon.peak_memory());
}

/// Manifests that point at what can't be: malformed digests, absurd sizes, too much of everything.
#[test]
fn absurd_manifests_are_refused() {
    let (daemon, registry, name, image) = prepared();
    let layer = image.layers()[0].descriptor();
    let with = |key: &str, value: Value| {
        let mut manifest: Value = serde_json::from_slice(&image.target.bytes).unwrap();
        manifest[key] = value;
        manifest
    };
    let spoiled = |key: &str, value: Value| {
        let mut descriptor = layer.clone();
        descriptor[key] = value;
        with("layers", json!([descriptor, image.layers()[1].descriptor()]))
    };
    let before = daemon.stored();
    let memory = daemon.peak_memory();
    for (what, manifest) in [
        ("no digest at all", spoiled("digest", json!("../../../../etc/passwd"))),
        ("a short digest", spoiled("digest", json!("sha256:abc"))),
        ("upper case", spoiled("digest", json!(layer["digest"].as_str().unwrap().to_uppercase()))),
        ("another algorithm", spoiled("digest", json!("md5:d41d8cd98f00b204e9800998ecf8427e"))),
        ("a negative size", spoiled("size", json!(-1))),
        ("a huge size", spoiled("size", json!(u64::MAX))),
        ("a size of text", spoiled("size", json!("12"))),
        ("a wrong size", spoiled("size", json!(7))),
        ("an unknown layer", spoiled("mediaType", json!("application/x-cpio"))),
        ("a layer too few", with("layers", json!([layer]))),
        ("ten thousand layers", with("layers", Value::from(vec![layer.clone(); 10_000]))),
        ("no layers", with("layers", Value::Null)),
        ("layers of text", with("layers", json!("sha256"))),
        ("no configuration", with("config", Value::Null)),
        ("an image of version 1", with("schemaVersion", json!(1))),
    ] {
        let name = registry.add(
            "absurd",
            "1",
            &Image::of(Blob::json(OCI_MANIFEST, &manifest), image.parts.clone()),
        );
        let output = daemon.ctl(&format!("pull {name}"));
        assert_eq!(output.code, Some(1), "{what}: {}", output.stderr);
        let named = output.stderr.contains("absurd") || output.stderr.contains("sha256:");
        assert!(named, "{what}: {}", output.stderr);
        assert!(daemon.pid().is_some() && daemon.api().is_serving(), "{what}");
    }
    expect_as_before(&daemon, &before);
    // What they said about the same layers counts for nothing.
    daemon.ctl(&format!("pull {name}")).ok();
    assert!(daemon.peak_memory() < memory + ROOM, "{} kB", daemon.peak_memory());
}

/// Configurations that are absurd, or say other layers than there are.
#[test]
fn absurd_configurations_are_refused() {
    let (daemon, registry, _, _) = prepared();
    let of =
        |document: Value| Recipe::new().files(&[Entry::file("x", "y")]).document(document).image();
    let deep = (0..100_000).fold(String::new(), |text, _| text + "[");
    for (what, image) in [
        ("another diff id", of(json!({"rootfs": {"type": "layers", "diff_ids": [digest(b"no")]}}))),
        ("no diff ids", of(json!({"rootfs": {"type": "layers", "diff_ids": []}}))),
        ("a malformed one", of(json!({"rootfs": {"type": "layers", "diff_ids": ["sha256:.."]}}))),
        ("no rootfs", of(json!({"rootfs": null}))),
        (
            "another kind of rootfs",
            of(json!({"rootfs": {"type": "tree", "diff_ids": [digest(b"")]}})),
        ),
        ("a config of text", of(json!({"config": "sh"}))),
        ("huge labels", of(json!({"config": {"Labels": {"a": "x".repeat(9 << 20)}}}))),
        ("a deep one", {
            let config = Blob::new(integration::image::OCI_CONFIG, deep.into_bytes());
            let layer = of(json!({})).layers()[0].clone();
            let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
                "config": config.descriptor(), "layers": [layer.descriptor()]});
            Image::of(Blob::json(OCI_MANIFEST, &manifest), vec![layer, config])
        }),
    ] {
        let name = registry.add("absurd", "1", &image);
        let output = daemon.ctl(&format!("pull {name}"));
        assert_eq!(output.code, Some(1), "{what}: {}", output.stderr);
        assert!(output.stderr.contains("sha256:"), "{what}: {}", output.stderr);
        assert!(!daemon.api().image_names().contains(&name), "{what}");
    }
    daemon.ctl("image prune -f").ok();
    daemon.expect_nothing_stored("");
}

/// Clients tell errors apart by their reasons, never by their texts.
#[test]
fn errors_have_reasons() {
    let (daemon, registry, name, image) = prepared();
    let api = daemon.api();
    let pull = |reference: &str| {
        let request =
            v1::PullRequest { reference: reference.to_owned(), ..v1::PullRequest::default() };
        api.wait(async {
            let mut stream = api.images().pull(request).await?.into_inner();
            while stream.message().await?.is_some() {}
            Ok(())
        })
    };
    let reason_of = |reference: &str| {
        let status: tonic::Status = pull(reference).expect_err("it fails");
        (status.code(), reason(&status))
    };
    let of = |code, text: &str| (code, text.to_owned());
    let missing = format!("{}/no/such:1", registry.host());
    assert_eq!(reason_of(&missing), of(Code::NotFound, "NOT_IN_REGISTRY"));
    assert_eq!(reason_of("127.0.0.1:1/a:1"), of(Code::Unavailable, "REGISTRY_UNAVAILABLE"));
    assert_eq!(reason_of("Upper").0, Code::InvalidArgument);
    registry.require(Auth::Basic { user: "a".to_owned(), password: "b".to_owned() });
    assert_eq!(reason_of(&name).1, "UNAUTHORIZED");
    registry.require(Auth::Everybody);
    registry.always(&image.layers()[0].digest, Answer::bytes(b"another"));
    assert_eq!(reason_of(&name).1, "BAD_IMAGE");
    let request = v1::GetImageRequest { image: "no/such".to_owned(), platform: String::new() };
    let status = api.wait(async { api.images().get(request).await }).unwrap_err();
    assert_eq!((status.code(), reason(&status)), of(Code::NotFound, "NO_SUCH_IMAGE"));
}

/// CVE-2020-15157: nothing is asked of where a manifest points.
#[test]
fn a_foreign_layer_is_not_fetched_from_where_it_says() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let evil = FakeRegistry::start_at(daemon.netns(), [127, 0, 0, 3].into());
    let image = image();
    let mut manifest: Value = serde_json::from_slice(&image.target.bytes).unwrap();
    manifest["layers"][0]["urls"] = json!([format!("http://{}/layer", evil.host())]);
    let image = Image::of(Blob::json(OCI_MANIFEST, &manifest), image.parts.clone());
    daemon.ctl(&format!("pull {}", registry.add("a", "1", &image))).ok();
    assert!(evil.requests().is_empty(), "{:?}", evil.requests());
}

#[test]
fn a_mirror_that_fails_is_not_the_end() {
    let mut daemon = Settings::new().prepare();
    daemon.start_again();
    let (mirror, origin) =
        (FakeRegistry::start(daemon.netns()), FakeRegistry::start(daemon.netns()));
    let image = image();
    mirror.add("a", "1", &image);
    let name = origin.add("a", "1", &image);
    let hosts = format!(
        "server = \"http://{0}\"\n[host.\"http://{1}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        origin.host(),
        mirror.host()
    );
    daemon.hosts_toml(&origin.host(), &hosts);
    daemon.ctl(&format!("pull {name}")).ok();
    assert!(mirror.count("GET /v2/a/blobs/") > 0);
    assert_eq!(origin.count("/blobs/"), 0, "{:?}", origin.requests());
    for (part, answer) in [
        ("/v2/", Answer::Status(404)),
        ("/v2/", Answer::Status(500)),
        ("/v2/", Answer::Garbage),
        ("/blobs/", Answer::Status(500)),
        ("/blobs/", Answer::Cut(0)),
        ("/blobs/", Answer::bytes(b"another")),
    ] {
        daemon.ctl(&format!("rmi {name}")).ok();
        mirror.forgive();
        origin.forget_requests();
        mirror.always(part, answer);
        daemon.ctl(&format!("pull {name}")).ok();
        assert!(origin.count("GET /v2/a/blobs/") > 0);
    }
    // One that is not there at all.
    daemon.ctl(&format!("rmi {name}")).ok();
    drop(mirror);
    daemon.ctl(&format!("pull {name}")).ok();
}

#[test]
fn an_error_names_the_mirrors_that_were_tried() {
    let daemon = Daemon::start();
    let (mirror, origin) =
        (FakeRegistry::start(daemon.netns()), FakeRegistry::start(daemon.netns()));
    daemon.hosts_toml(
        "registry.test",
        &format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", origin.host(), mirror.host()),
    );
    daemon
        .ctl("pull registry.test/no/such:1")
        .fails(1, &["registry.test/no/such:1", "not found", &mirror.host()]);
    assert!(mirror.count("/manifests/1") > 0 && origin.count("/manifests/1") > 0);
}

#[test]
fn a_mirror_is_told_whose_images_are_asked_for() {
    let daemon = Daemon::start();
    let mirror = FakeRegistry::start(daemon.netns());
    let image = image();
    mirror.add("prefix/v2-of/a", "1", &image);
    mirror.add("a", "1", &image);
    let hosts = format!("[host.\"http://{}\"]\n", mirror.host());
    daemon.hosts_toml("registry.test", &hosts);
    daemon.ctl("pull registry.test/a:1").ok();
    let requests = mirror.requests();
    let manifest = requests.iter().find(|request| request.path.ends_with("/manifests/1")).unwrap();
    assert_eq!(manifest.parameter("ns").as_deref(), Some("registry.test"), "{manifest:?}");
}

#[test]
fn a_malformed_hosts_file_is_named() {
    let daemon = Daemon::start();
    for text in
        ["host = 3\n", "[host.\"nonsense", "[host.\"http://h\"]\ncapabilities = [\"fly\"]\n"]
    {
        daemon.hosts_toml("registry.test", text);
        daemon.ctl("pull registry.test/a:1").fails(1, &["registry.test/hosts.toml"]);
    }
}
