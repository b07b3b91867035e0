//! Pulling: what is downloaded, once, and what stands there afterwards.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;

use integration::daemon::{Daemon, Settings};
use integration::fake_registry::{Answer, FakeRegistry};
use integration::image::{Compression, Dialect, Image, Layer, Recipe, architecture, noise};
use integration::registry::Registry;
use integration::tar::Entry;
use integration::{http, wait};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Busybox with a file that says what it is.
fn image(mark: &str) -> Image {
    Recipe::busybox().files(&[Entry::file("mark", format!("{mark}\n"))]).image()
}

/// A file or two in a layer, no program.
fn small(mark: &str) -> Image {
    Recipe::new().files(&[Entry::file("mark", mark)]).image()
}

#[test]
fn the_main_job_runs_on_an_image() {
    let mut daemon = Daemon::start();
    let registry = Registry::start(daemon.netns());
    let page = Entry::file("www/index.html", "from the image\n");
    let image = Recipe::busybox().files(&[Entry::directory("www"), page]).image();
    let name = registry.push("web", "1", &image);
    let run = format!("run -d -p 8000:8000 -t --name web {name} httpd -f -p 8000 -h /www");
    daemon.ctl(&run).ok();
    let answers = |daemon: &Daemon| {
        http::get(&daemon.netns().path(), LOCALHOST, 8000, "/")
            .is_ok_and(|answer| (answer.status, answer.body.as_str()) == (200, "from the image\n"))
    };
    wait::until_true("the page through 127.0.0.1:8000", || answers(&daemon));
    assert_eq!(daemon.ctl("ps --format '{{.Image}}'").text(), name);
    daemon.kill();
    assert!(answers(&daemon), "without the daemon");
    daemon.start_again();
    assert!(answers(&daemon), "after its return");
    daemon.ctl("rm -f web").ok();
    daemon.ctl(&format!("rmi {name}")).ok();
    daemon.expect_nothing_stored("");
}

#[test]
fn by_tag_by_digest_and_by_both() {
    let daemon = Daemon::start();
    let registry = Registry::start(daemon.netns());
    let (old, new) = (image("old"), image("new"));
    let tag = registry.push("a/b", "1", &old);
    registry.push("a/b", "1", &new);
    let repository = tag.trim_end_matches(":1");
    let by_digest = format!("{repository}@{}", old.digest());
    let by_both = format!("{tag}@{}", new.digest());
    for (name, mark) in [(&tag, "new"), (&by_digest, "old"), (&by_both, "new")] {
        daemon.ctl(&format!("pull {name}")).ok();
        assert_eq!(daemon.ctl(&format!("run --rm --net none {name} cat /mark")).text(), mark);
        assert_eq!(
            daemon.api().image(name).target.unwrap().digest,
            if mark == "new" { new.digest() } else { old.digest() }
        );
    }
    let missing = format!("{repository}@sha256:{}", "0".repeat(64));
    daemon.ctl(&format!("pull {missing}")).fails(1, &[&missing]);
}

#[test]
fn a_run_pulls_what_is_missing() {
    let daemon = Daemon::start();
    let registry = Registry::start(daemon.netns());
    let name = registry.push("a", "latest", &image("pulled"));
    let short = name.trim_end_matches(":latest");
    assert_eq!(daemon.ctl(&format!("run --rm --net none {short} cat /mark")).text(), "pulled");
    daemon
        .ctl(&format!("run --rm --net none {}/missing:1 true", registry.host()))
        .fails(125, &["missing:1", "not found"]);
    daemon.ctl(&format!("create --name later {short} cat /mark")).ok();
    assert_eq!(daemon.ctl("start -a later").text(), "pulled");
}

#[test]
fn every_kind_of_layer_and_both_dialects() {
    let daemon = Daemon::start();
    let registry = Registry::start(daemon.netns());
    for dialect in [Dialect::Oci, Dialect::Docker] {
        let mut recipe = Recipe::busybox().dialect(dialect);
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let file = Entry::file(&format!("from-{compression:?}"), format!("{compression:?} "));
            recipe = recipe.layer(Layer::of(&[file]).compressed(compression));
        }
        let name = registry.push("kinds", &format!("{dialect:?}").to_lowercase(), &recipe.image());
        let run = format!("run --rm --net none {name} sh -c 'cat /from-*'");
        assert_eq!(daemon.ctl(&run).text(), "Gzip None Zstd ", "{dialect:?}");
    }
}

#[test]
fn gzip_members_one_after_the_other_are_one_layer() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let tar = integration::tar::tar(&[Entry::file("one", noise(1, 9000)), Entry::file("two", "2")]);
    let (first, second) = tar.split_at(5000);
    let packed = [Compression::Gzip.apply(first), Compression::Gzip.apply(second)].concat();
    let layer = Layer::packed(packed, Compression::Gzip, tar.clone());
    let name = registry.add("a", "1", &Recipe::new().layer(layer).image());
    daemon.ctl(&format!("pull {name}")).ok();
    let frames = [Compression::Zstd.apply(first), Compression::Zstd.apply(second)].concat();
    let layer = Layer::packed(frames, Compression::Zstd, tar);
    let name = registry.add("a", "2", &Recipe::new().layer(layer).image());
    daemon.ctl(&format!("pull {name}")).ok();
}

#[test]
fn the_platform_of_this_machine_or_the_one_asked_for() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let host = format!("linux/{}", architecture());
    let of = |platform: &str| {
        Recipe::new().platform(platform).files(&[Entry::file("mark", platform)]).image()
    };
    let images = [of("linux/s390x"), of(&host), of("linux/arm/v7")];
    let index = Image::index(Dialect::Oci, &images);
    let name = registry.add("many", "1", &index);
    daemon.ctl(&format!("pull {name}")).ok();
    assert!(registry.count(images[1].digest()) > 0);
    assert_eq!(registry.count(images[0].digest()) + registry.count(images[2].digest()), 0);
    let platform = format!("image inspect -f '{{{{.Os}}}}/{{{{.Architecture}}}}' {name}");
    assert_eq!(daemon.ctl(&platform).text(), host);
    assert_eq!(daemon.api().image(&name).target.unwrap().digest, index.digest());

    daemon.ctl(&format!("pull --platform linux/arm/v7 {name}")).ok();
    assert!(registry.count(images[2].digest()) > 0);
    assert_eq!(registry.count(images[0].digest()), 0);
    daemon
        .ctl(&format!("pull --platform linux/riscv64 {name}"))
        .fails(1, &["linux/riscv64", "linux/s390x", "linux/arm/v7", &host]);
    daemon.ctl(&format!("pull --platform what {name}")).fails(1, &["what"]);
    daemon.ctl(&format!("pull --all-platforms {name}")).ok();
    let there = daemon.ctl("content ls -q").text();
    for blob in index.blobs() {
        assert!(there.contains(&blob.digest), "{} {}", blob.media_type, blob.digest);
    }
}

#[test]
fn twenty_clients_at_once_download_it_once() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let image = Recipe::new()
        .files(&[Entry::file("a", noise(1, 300_000))])
        .files(&[Entry::file("b", noise(2, 300_000))])
        .image();
    let name = registry.add("popular", "1", &image);
    registry.always("GET /v2/popular/blobs/", Answer::Hold(1000));
    let clients: Vec<_> = (0..20).map(|_| daemon.ctl_start(&format!("pull -q {name}"))).collect();
    wait::until_true("the first blob to be asked for", || {
        registry.count("GET /v2/popular/blobs/") > 0
    });
    // Late ones join as well.
    let late = daemon.ctl_start(&format!("pull {name}"));
    registry.release();
    for client in clients.into_iter().chain([late]) {
        client.finish().ok();
    }
    for blob in image.layers() {
        let count = registry.count(&format!("GET /v2/popular/blobs/{}", blob.digest));
        assert_eq!(count, 1, "{}", blob.digest);
    }
    assert_eq!(daemon.ctl("snapshot ls -q").text().lines().count(), 2);
}

#[test]
fn images_that_share_layers_share_the_download() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let base = Layer::of(&[Entry::file("base", noise(3, 100_000))]);
    let of =
        |mark: &str| Recipe::new().layer(base.clone()).files(&[Entry::file("mark", mark)]).image();
    let (one, two) = (of("one"), of("two"));
    let names = [registry.add("one", "1", &one), registry.add("two", "1", &two)];
    registry.always(&one.layers()[0].digest, Answer::Hold(10));
    let clients = names.map(|name| daemon.ctl_start(&format!("pull {name}")));
    wait::until_true("the second layers", || {
        registry.count(&one.layers()[1].digest) + registry.count(&two.layers()[1].digest) == 2
    });
    registry.release();
    for client in clients {
        client.finish().ok();
    }
    assert_eq!(registry.count(&one.layers()[0].digest), 1);
    assert_eq!(daemon.ctl("snapshot ls -q").text().lines().count(), 3);
}

#[test]
fn what_is_up_to_date_is_not_downloaded() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let name = registry.add("a", "1", &small("first"));
    let first = daemon.ctl(&format!("pull {name}"));
    first.ok();
    assert!(first.stdout.contains("Downloaded newer image"), "{}", first.stdout);
    registry.forget_requests();
    let second = daemon.ctl(&format!("pull {name}"));
    second.ok();
    assert!(second.stdout.contains("up to date"), "{}", second.stdout);
    assert_eq!(registry.count("/blobs/"), 0, "{:?}", registry.requests());

    registry.add("a", "1", &small("second"));
    daemon.ctl(&format!("pull {name}")).ok();
    let mark = daemon.api().image(&name).target.unwrap().digest;
    assert_eq!(mark, small("second").digest());
    wait::until_true("the first one to be collected", || {
        !daemon.ctl("content ls -q").text().contains(&small("first").layers()[0].digest)
    });
}

#[test]
fn a_pull_goes_on_when_its_client_goes_away() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let name = registry.add("a", "1", &small("x"));
    registry.always("GET /v2/a/blobs/", Answer::Hold(10));
    let client = daemon.ctl_start(&format!("pull {name}"));
    wait::until_true("the download", || registry.count("GET /v2/a/blobs/") > 0);
    drop(client);
    registry.release();
    wait::until_true("the image", || !daemon.api().image_names().is_empty());
}

#[test]
fn progress_is_plain_lines_for_a_pipe_and_bars_on_a_terminal() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let image = Recipe::new()
        .files(&[Entry::file("a", noise(1, 50_000))])
        .files(&[Entry::file("b", noise(2, 50_000))])
        .image();
    let name = registry.add("a", "1", &image);
    let output = daemon.ctl(&format!("pull {name}"));
    output.ok();
    let all = output.stdout + &output.stderr;
    assert!(!all.contains('\u{1b}') && !all.contains('\r'), "{all:?}");
    for layer in image.layers() {
        assert!(all.contains(&layer.hex()[..12]), "{all}");
    }
    assert!(all.contains(&format!("Digest: {}", image.digest())), "{all}");
    assert_eq!(daemon.ctl(&format!("pull -q {name}")).text(), name);

    let again = registry.add(
        "again",
        "1",
        &Recipe::new().files(&[Entry::file("c", noise(3, 50_000))]).image(),
    );
    let mut terminal = daemon.terminal(&format!("pull {again}"));
    let shown = terminal.expect("Digest: ").to_owned() + &terminal.finish().1;
    assert!(shown.contains('\u{1b}') || shown.contains('\r'), "{shown:?}");
}

#[test]
fn an_image_belongs_to_its_namespace() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let (name, image) = (registry.add("a", "1", &small("x")), small("x"));
    daemon.ctl(&format!("pull {name}")).ok();
    assert_eq!(daemon.ctl("--namespace other images -q").text(), "");
    daemon.ctl(&format!("--namespace other image inspect {name}")).fails(1, &[&name]);
    daemon.ctl(&format!("--namespace other pull {name}")).ok();
    daemon.ctl(&format!("rmi {name}")).ok();
    let blob = format!("--namespace other content get {}", image.layers()[0].digest);
    assert_eq!(daemon.client().start(&blob, Stdio::null()).finish().code, Some(0));
    daemon.ctl(&format!("--namespace other rmi {name}")).ok();
    daemon.expect_nothing_stored("");
}

#[test]
fn a_missing_one_is_named_with_its_registry() {
    let daemon = Daemon::start();
    let registry = Registry::start(daemon.netns());
    let name = format!("{}/no/such:thing", registry.host());
    daemon.ctl(&format!("pull {name}")).fails(1, &[&name, "not found"]);
    daemon.ctl("pull 127.0.0.1:1/a").fails(1, &["127.0.0.1:1", "refused"]);
    daemon.expect_nothing_stored("");
}

#[test]
fn a_proxy_from_the_environment_is_used() {
    let mut daemon = Settings::new().prepare();
    let proxy = FakeRegistry::start(daemon.netns());
    let registry = FakeRegistry::start(daemon.netns());
    daemon.add_variable("HTTPS_PROXY", &format!("http://{}", proxy.host()));
    daemon.add_variable("HTTP_PROXY", &format!("http://{}", proxy.host()));
    daemon.add_variable("NO_PROXY", "127.0.0.1");
    daemon.start_again();
    daemon.ctl("pull registry.test/a:1").fails(1, &["registry.test"]);
    assert!(proxy.count("CONNECT registry.test:443") > 0, "{:?}", proxy.requests());
    proxy.forget_requests();
    daemon.ctl(&format!("pull {}", registry.add("a", "1", &small("x")))).ok();
    assert!(proxy.requests().is_empty(), "{:?}", proxy.requests());
}
