//! Images shown: `images`, `image inspect`, `history`, and what scripts make of them.

use integration::archive::load;
use integration::daemon::Daemon;
use integration::image::{Image, Recipe, architecture};
use integration::tar::Entry;
use serde_json::json;

fn image(mark: &str) -> Image {
    Recipe::new()
        .files(&[Entry::file("mark", mark)])
        .config(json!({"Labels": {"kind": mark}, "Cmd": ["serve", "two words"], "ExposedPorts": {"80/tcp": {}}}))
        .document(json!({"author": "somebody"}))
        .image()
}

fn prepared() -> Daemon {
    let daemon = Daemon::start();
    load(
        &daemon,
        &[
            ("test/one:1", &image("one")),
            ("test/two:1", &image("two")),
            ("docker.io/library/short:latest", &image("three")),
        ],
    );
    daemon
}

#[test]
fn the_table_is_dockers() {
    let daemon = prepared();
    let table = daemon.ctl("images").text();
    let mut lines = table.lines();
    let head: Vec<&str> =
        lines.next().unwrap().split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
    assert_eq!(head, ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    assert_eq!(lines.count(), 3);
    assert!(table.contains(&image("one").id()[7..19]), "{table}");
    assert_eq!(daemon.ctl("image ls -q").text().lines().count(), 3);
    let digests = daemon.ctl("images --digests").text();
    assert!(digests.contains(image("two").digest()), "{digests}");
    let formatted = daemon.ctl("images --format '{{.Repository}}:{{.Tag}}' test/one").text();
    assert_eq!(formatted, "test/one:1");
    let line = daemon.ctl("images --format json test/two:1").json();
    assert_eq!((line["Repository"].as_str(), line["Tag"].as_str()), (Some("test/two"), Some("1")));
}

#[test]
fn filters_are_dockers() {
    let daemon = prepared();
    let listed = |filters: &str| {
        daemon.ctl(&format!("images --format '{{{{.Repository}}}}' {filters}")).text()
    };
    assert_eq!(listed("-f reference=test/o*"), "test/one");
    assert_eq!(listed("-f label=kind=two"), "test/two");
    assert_eq!(listed("-f label=kind").lines().count(), 3);
    assert_eq!(listed("-f label=none"), "");
    assert_eq!(listed("-f dangling=true"), "");
    assert_eq!(listed("short"), "short");
    daemon.ctl("images -f nonsense=1").fails(1, &["nonsense"]);
}

#[test]
fn inspect_is_dockers_json() {
    let daemon = prepared();
    let all = daemon.ctl("image inspect test/one:1 test/two:1").json();
    let one = &all[0];
    assert_eq!(one["Id"], image("one").id());
    assert_eq!(one["RepoTags"], json!(["test/one:1"]));
    assert_eq!(one["Config"]["Cmd"], json!(["serve", "two words"]));
    assert_eq!(one["Config"]["ExposedPorts"], json!({"80/tcp": {}}));
    assert_eq!(one["Os"], "linux");
    assert_eq!(one["Architecture"], architecture());
    assert_eq!(one["Author"], "somebody");
    assert_eq!(one["RootFS"]["Type"], "layers");
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert_eq!(
        daemon.ctl("image inspect -f '{{index .Config.Cmd 1}}' test/one:1").text(),
        "two words"
    );
    daemon.ctl("image inspect no/such:1").fails(1, &["no/such:1"]);
    // Without the noun: a container's name comes first, then an image's.
    assert_eq!(daemon.ctl("inspect -f '{{.Id}}' test/one:1").text(), image("one").id());
}

#[test]
fn history_tells_the_steps_the_last_one_first() {
    let daemon = Daemon::start();
    let history = json!({"history": [
        {"created": "2024-01-01T00:00:00Z", "created_by": "ADD base"},
        {"created": "2024-01-02T00:00:00Z", "created_by": "ENV A=1", "empty_layer": true, "comment": "remark"},
        {"created": "2024-01-03T00:00:00Z", "created_by": "COPY more"},
    ]});
    let image = Recipe::new()
        .files(&[Entry::file("a", "a")])
        .files(&[Entry::file("b", "b")])
        .document(history)
        .image();
    load(&daemon, &[("test/steps:1", &image)]);
    let text = daemon.ctl("history --format '{{.CreatedBy}}|{{.Comment}}' test/steps:1").text();
    assert_eq!(text, "COPY more|\nENV A=1|remark\nADD base|");
    assert!(daemon.ctl("history test/steps:1").text().starts_with("IMAGE"));
}

#[test]
fn what_becomes_of_images_is_told_as_events() {
    let daemon = prepared();
    daemon.ctl("tag test/one:1 test/other:1").ok();
    daemon.ctl("rmi test/other:1").ok();
    let format = "{{.Type}} {{.Action}} {{.Actor.ID}}";
    let events = daemon.ctl(&format!("events --since 1m --until 0s --format '{format}'")).text();
    let of_images: Vec<&str> = events.lines().filter(|line| line.starts_with("image ")).collect();
    for action in ["load", "tag", "untag"] {
        let line = of_images.iter().find(|line| line.split(' ').nth(1) == Some(action));
        assert!(line.is_some_and(|line| line.contains("test/")), "{action} in {of_images:?}");
    }
}
