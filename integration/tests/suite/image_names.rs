//! Names: written short or long, they are one; and ids and digests stand for images as well.

use integration::archive::load;
use integration::daemon::Daemon;
use integration::image::{Image, Recipe};
use integration::tar::Entry;

fn image(mark: &str) -> Image {
    Recipe::new().files(&[Entry::file("mark", mark)]).image()
}

#[test]
fn short_names_are_dockers() {
    let daemon = Daemon::start();
    load(&daemon, &[("docker.io/library/alpine:latest", &image("a"))]);
    for name in [
        "alpine",
        "alpine:latest",
        "library/alpine",
        "docker.io/alpine",
        "docker.io/library/alpine:latest",
        "index.docker.io/library/alpine",
    ] {
        assert_eq!(daemon.api().image(name).name, "docker.io/library/alpine:latest", "{name}");
    }
    let listed = daemon.ctl("images --format '{{.Repository}} {{.Tag}}'").text();
    assert_eq!(listed, "alpine latest");
    for (short, long) in [
        ("web", "docker.io/library/web:latest"),
        ("me/web", "docker.io/me/web:latest"),
        ("web:1.2_x-3", "docker.io/library/web:1.2_x-3"),
        ("localhost/web", "localhost/web:latest"),
        ("localhost:5000/a/b/c:d", "localhost:5000/a/b/c:d"),
        ("host.test/web", "host.test/web:latest"),
        ("[::1]:5000/web", "[::1]:5000/web:latest"),
    ] {
        daemon.ctl(&format!("tag alpine {short}")).ok();
        assert!(daemon.api().image_names().contains(&long.to_owned()), "{short}");
    }
}

#[test]
fn malformed_names_are_refused_by_name() {
    let daemon = Daemon::start();
    load(&daemon, &[("docker.io/library/alpine:latest", &image("a"))]);
    let digest = "a".repeat(64);
    for name in [
        "Alpine",
        "alpine:",
        "alpine:-x",
        "a//b",
        "/a",
        "a/",
        "-a",
        "a..b",
        "alpine@sha256:short",
        "alpine@",
        "host.test:port/a",
        "a b",
        &digest,
        &"a".repeat(300),
        &format!("a:{}", "t".repeat(129)),
    ] {
        daemon.ctl(&format!("tag -- alpine '{name}'")).fails(1, &["name"]);
        assert_ne!(daemon.ctl(&format!("pull -- '{name}'")).code, Some(0), "{name}");
    }
    assert_eq!(daemon.api().image_names(), ["docker.io/library/alpine:latest"]);
}

#[test]
fn an_id_stands_for_its_image() {
    let daemon = Daemon::start();
    let (one, two) = (image("one"), image("two"));
    load(&daemon, &[("test/one:1", &one), ("test/two:1", &two)]);
    let id = one.id();
    let hex = id.trim_start_matches("sha256:");
    for word in [&id, hex, &hex[..12]] {
        assert!(daemon.api().image(word).name.ends_with("test/one:1"), "{word}");
        assert_eq!(daemon.ctl(&format!("image inspect -f '{{{{.Id}}}}' {word}")).text(), id);
    }
    let listed = daemon.ctl("images -q --no-trunc").text();
    assert!(listed.contains(&id) && listed.contains(&two.id()), "{listed}");
    daemon.ctl(&format!("tag {} test/three:1", &hex[..12])).ok();
    // An id with several names is not removed by accident.
    daemon.ctl(&format!("rmi {}", &hex[..12])).fails(1, &["test/one:1", "test/three:1"]);
    daemon.ctl(&format!("rmi -f {}", &hex[..12])).ok();
    assert_eq!(daemon.ctl("images --format '{{.Repository}}'").text(), "test/two");
    daemon.ctl("image inspect ffffffffffff").fails(1, &["ffffffffffff"]);
}

#[test]
fn a_tag_moves_and_its_image_goes() {
    let daemon = Daemon::start();
    let (one, two) = (image("one"), image("two"));
    load(&daemon, &[("test/one:1", &one), ("test/two:1", &two)]);
    daemon.ctl("tag test/two:1 test/one:1").ok();
    assert_eq!(daemon.api().image("test/one:1").target.unwrap().digest, two.digest());
    daemon.ctl("image prune -f").ok();
    assert!(!daemon.ctl("content ls -q").text().contains(one.digest()));
    daemon.ctl("tag test/missing:1 test/x:1").fails(1, &["test/missing:1"]);
}
