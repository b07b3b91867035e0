//! Images in files: in from every tool, out to every tool, and the same on both sides.

use std::io::Write as _;
use std::process::Command;

use integration::archive::{self, docker_files, entries, load, oci, shuffled, write_layout};
use integration::daemon::Daemon;
use integration::image::{Compression, Dialect, Image, Layer, Recipe, noise};
use integration::netns;
use integration::tar::{self, Entry, Header, Kind, Tar};
use serde_json::{Value, json};

fn image(mark: &str) -> Image {
    Recipe::busybox()
        .files(&[Entry::file("noise", noise(3, 30_000)), Entry::file("mark", mark)])
        .config(json!({"Cmd": ["cat", "/mark"], "Labels": {"made": "here"}}))
        .image()
}

/// Layers as they are in a docker archive: plain.
fn plain(mark: &str) -> Image {
    let files = [Entry::file("mark", mark)];
    Recipe::new()
        .layer(Layer::of(&integration::image::busybox()).compressed(Compression::None))
        .layer(Layer::of(&files).compressed(Compression::None))
        .config(json!({"Cmd": ["cat", "/mark"]}))
        .image()
}

fn write(daemon: &Daemon, name: &str, bytes: &[u8]) -> String {
    let file = daemon.scratch().join(name);
    std::fs::write(&file, bytes).unwrap();
    file.display().to_string()
}

fn run(daemon: &Daemon, name: &str) -> String {
    daemon.ctl(&format!("run --rm --net none {name}")).text()
}

fn tool(daemon: &Daemon, program: &str, words: &str) -> String {
    let mut command = Command::new(program);
    netns::run(command.args(integration::ctl::split(words)).current_dir(daemon.scratch()))
}

#[test]
fn an_oci_archive_a_layout_and_a_docker_archive() {
    let daemon = Daemon::start();
    let docker = archive::docker(&[(&["test/docker:1", "test/docker:2"], &plain("docker"))]);
    write_layout(&daemon.scratch().join("layout"), &[("test/layout:1", &image("layout"))]);
    let directory = daemon.scratch().join("layout").display().to_string();
    for (file, names, mark) in [
        (
            write(&daemon, "a.tar", &oci(&[("test/oci:1", &image("oci"))])),
            vec!["test/oci:1"],
            "oci",
        ),
        (write(&daemon, "b.tar", &docker), vec!["test/docker:1", "test/docker:2"], "docker"),
        (directory, vec!["test/layout:1"], "layout"),
    ] {
        let output = daemon.ctl(&format!("load -i {file}"));
        output.ok();
        for name in names {
            assert!(output.stdout.contains(&format!("Loaded image: {name}")), "{}", output.stdout);
            assert_eq!(run(&daemon, name), mark);
        }
    }
}

#[test]
fn order_and_compression_do_not_matter() {
    let daemon = Daemon::start();
    for (number, files) in [
        entries(archive::layout(&[("test/any:1", &image("any"))])),
        entries(docker_files(&[(&["test/any:1"], &plain("any"))])),
    ]
    .into_iter()
    .enumerate()
    {
        for (order, files) in
            [files.clone(), shuffled(files.clone()), files.into_iter().rev().collect()]
                .into_iter()
                .enumerate()
        {
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                let bytes = compression.apply(&tar::tar(&files));
                let file = write(&daemon, "images", &bytes);
                daemon.ctl(&format!("load -i {file}")).ok();
                assert_eq!(run(&daemon, "test/any:1"), "any", "{number} {order} {compression:?}");
                daemon.ctl("rmi test/any:1").ok();
            }
        }
    }
    daemon.expect_nothing_stored("");
}

#[test]
fn an_archive_comes_over_a_pipe() {
    let daemon = Daemon::start();
    let bytes = oci(&[("test/piped:1", &image("piped"))]);
    let mut command = daemon.client().command("load");
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    for piece in bytes.chunks(7000) {
        pipe.write_all(piece).unwrap();
    }
    drop(pipe);
    assert!(child.wait().unwrap().success());
    assert_eq!(run(&daemon, "test/piped:1"), "piped");
}

/// An archive with links in it, as `docker save` before 25 wrote for layers that are the same.
#[test]
fn a_layer_that_is_a_link_to_another() {
    let daemon = Daemon::start();
    let layer = Layer::of(&[Entry::file("x", "x")]).compressed(Compression::None);
    let image = Recipe::new().layer(layer.clone()).layer(layer).image();
    let mut files = entries(docker_files(&[(&["test/links:1"], &image)]));
    let position = files.iter().position(|entry| entry.path == "0-1/layer.tar").unwrap();
    files[position] = Entry::symlink("0-1/layer.tar", "../0-0/layer.tar");
    daemon.ctl(&format!("load -i {}", write(&daemon, "a.tar", &tar::tar(&files)))).ok();
    assert_eq!(daemon.api().image("test/links:1").content.unwrap().layers.len(), 2);
}

#[test]
fn several_images_in_one_archive() {
    let daemon = Daemon::start();
    let file = write(
        &daemon,
        "a.tar",
        &oci(&[("test/one:1", &image("one")), ("test/two:1", &image("two"))]),
    );
    daemon.ctl(&format!("load -i {file}")).ok();
    let saved = daemon.scratch().join("saved.tar").display().to_string();
    daemon.ctl(&format!("save -o {saved} test/one:1 test/two:1")).ok();
    daemon.ctl("rmi test/one:1 test/two:1").ok();
    daemon.expect_nothing_stored("");
    daemon.ctl(&format!("load -i {saved}")).ok();
    assert_eq!(
        (run(&daemon, "test/one:1"), run(&daemon, "test/two:1")),
        ("one".into(), "two".into())
    );
    assert_eq!(daemon.api().image("test/one:1").target.unwrap().digest, image("one").digest());
}

#[test]
fn what_is_saved_is_both_kinds_of_archive() {
    let daemon = Daemon::start();
    load(&daemon, &[("test/both:1", &image("both"))]);
    daemon.ctl(&format!("save -o {}/saved.tar test/both:1", daemon.scratch().display())).ok();
    let files = tar::read(&std::fs::read(daemon.scratch().join("saved.tar")).unwrap());
    let paths: Vec<&str> = files.iter().map(|entry| entry.path.as_str()).collect();
    for path in ["oci-layout", "index.json", "manifest.json"] {
        assert!(paths.contains(&path), "{paths:?}");
    }
    for (number, from) in
        ["oci-archive:saved.tar", "docker-archive:saved.tar:docker.io/test/both:1"]
            .into_iter()
            .enumerate()
    {
        tool(&daemon, "skopeo", &format!("--insecure-policy copy -q {from} dir:{number}"));
        let manifest =
            std::fs::read(daemon.scratch().join(format!("{number}/manifest.json"))).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest["config"]["digest"], image("both").id(), "{from}");
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 2, "{from}");
    }
    // And over a pipe the same bytes.
    let mut command = daemon.client().command("save test/both:1");
    let piped = command.output().unwrap().stdout;
    assert!(piped == std::fs::read(daemon.scratch().join("saved.tar")).unwrap());
}

#[test]
fn what_skopeo_writes_is_loaded() {
    let daemon = Daemon::start();
    write_layout(&daemon.scratch().join("layout"), &[("x", &image("skopeo"))]);
    for (number, to) in
        ["oci-archive:a.tar:test/s:1", "docker-archive:b.tar:test/s:1", "oci:c:test/s:1"]
            .into_iter()
            .enumerate()
    {
        tool(&daemon, "skopeo", &format!("--insecure-policy copy -q oci:layout:x {to}"));
        let file = ["a.tar", "b.tar", "c"][number];
        daemon.ctl(&format!("load -i {}/{file}", daemon.scratch().display())).ok();
        assert_eq!(run(&daemon, "test/s:1"), "skopeo", "{to}");
        daemon.ctl("rmi test/s:1").ok();
    }
}

#[test]
fn what_umoci_writes_is_loaded() {
    let daemon = Daemon::start();
    tool(&daemon, "umoci", "init --layout made");
    tool(&daemon, "umoci", "new --image made:empty");
    std::fs::create_dir(daemon.scratch().join("tree")).unwrap();
    std::fs::write(daemon.scratch().join("tree/mark"), "umoci").unwrap();
    tool(&daemon, "umoci", "insert --image made:empty tree /tree");
    daemon.ctl(&format!("load -i {}/made", daemon.scratch().display())).ok();
    assert_eq!(daemon.api().image_names(), ["docker.io/library/empty:latest"]);
}

#[test]
fn a_root_file_system_becomes_an_image() {
    let daemon = Daemon::start();
    let tar = tar::tar(&integration::image::busybox());
    for (number, compression) in
        [Compression::None, Compression::Gzip, Compression::Zstd].into_iter().enumerate()
    {
        let file = write(&daemon, "rootfs.tar", &compression.apply(&tar));
        let changes = "-c 'CMD [\"sh\", \"-c\", \"echo $A; pwd\"]' -c 'ENV A=imported' -c 'WORKDIR /tmp' -c 'LABEL from=file'";
        let id =
            daemon.ctl(&format!("import -m remark {changes} {file} test/imported:{number}")).text();
        assert!(id.contains("sha256:"), "{id}");
        assert_eq!(run(&daemon, &format!("test/imported:{number}")), "imported\n/tmp");
    }
    let inspected = daemon.ctl("image inspect test/imported:0").json();
    assert_eq!(inspected[0]["Config"]["Labels"]["from"], "file");
    assert!(daemon.ctl("history test/imported:0").text().contains("remark"));
    let file = write(&daemon, "rootfs.tar", &tar);
    daemon.ctl(&format!("import -c 'RUN rm -rf /' {file} test/x:1")).fails(1, &["RUN"]);
    daemon.ctl(&format!("import -c 'USER' {file} test/x:1")).fails(1, &["USER"]);
}

#[test]
fn a_root_file_system_goes_round() {
    let daemon = Daemon::start();
    load(&daemon, &[("test/round:1", &image("round"))]);
    daemon.ctl("create --name one test/round:1").ok();
    daemon.ctl(&format!("export -o {}/one.tar one", daemon.scratch().display())).ok();
    daemon
        .ctl(&format!(
            "import -c 'CMD cat /mark' {}/one.tar test/again:1",
            daemon.scratch().display()
        ))
        .ok();
    assert_eq!(run(&daemon, "test/again:1"), "round");
}

#[test]
fn every_platform_of_an_index_goes_round() {
    let daemon = Daemon::start();
    let of = |platform: &str| {
        Recipe::new().platform(platform).files(&[Entry::file("mark", platform)]).image()
    };
    let host = format!("linux/{}", integration::image::architecture());
    let index = Image::index(Dialect::Oci, &[of("linux/s390x"), of(&host)]);
    load(&daemon, &[("test/many:1", &index)]);
    let saved = daemon.scratch().join("saved.tar").display().to_string();
    daemon.ctl(&format!("save -o {saved} test/many:1")).ok();
    daemon.ctl("rmi test/many:1").ok();
    daemon.ctl(&format!("load -i {saved}")).ok();
    assert_eq!(daemon.api().image("test/many:1").target.unwrap().digest, index.digest());
    let there = daemon.ctl("content ls -q").text();
    assert!(index.blobs().iter().all(|blob| there.contains(&blob.digest)));
}

#[test]
fn what_is_no_archive_is_refused_and_nothing_stays() {
    let daemon = Daemon::start();
    let good = oci(&[("test/good:1", &image("good"))]);
    let mut no_layer = archive::layout(&[("test/lacks:1", &image("lacks"))]);
    let layer = image("lacks").layers()[1].hex().to_owned();
    no_layer.retain(|(path, _)| !path.ends_with(&layer));
    let mut spoiled = archive::layout(&[("test/spoiled:1", &image("spoiled"))]);
    for (path, data) in &mut spoiled {
        if path.ends_with(image("spoiled").layers()[1].hex()) {
            data[50] ^= 1;
        }
    }
    let mut no_manifest = docker_files(&[(&["test/x:1"], &plain("x"))]);
    no_manifest.retain(|(path, _)| path != "manifest.json");
    // Of two layers the configuration knows one.
    let mut unknown_layer = docker_files(&[(&["test/more:1"], &plain("more"))]);
    let manifest = unknown_layer.pop().unwrap().1;
    let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layers = manifest[0]["Layers"].as_array_mut().unwrap();
    layers.push(layers[0].clone());
    unknown_layer.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
    let file = |path: &str, data: &[u8]| (path.to_owned(), data.to_vec());
    let out = json!([{"Config": "../../../../etc/passwd", "RepoTags": ["test/x:1"], "Layers": []}]);
    for (what, bytes, said) in [
        ("nothing", Vec::new(), ""),
        ("text", b"hello".repeat(1000), ""),
        ("half", good[..good.len() / 2].to_vec(), ""),
        ("without a layer", tar::tar(&entries(no_layer)), layer.as_str()),
        ("with a spoiled layer", tar::tar(&entries(spoiled)), image("spoiled").layers()[1].hex()),
        ("without its manifest", tar::tar(&entries(no_manifest)), ""),
        ("with a layer more", tar::tar(&entries(unknown_layer)), "diff ids"),
        (
            "with a path out of it",
            tar::tar(&entries(vec![file("manifest.json", out.to_string().as_bytes())])),
            "etc/passwd",
        ),
        (
            "with a strange index",
            tar::tar(&entries(vec![
                file("oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}"),
                file("index.json", b"[]"),
            ])),
            "index.json",
        ),
    ] {
        let output = daemon.ctl(&format!("load -i {}", write(&daemon, "bad.tar", &bytes)));
        assert_eq!(output.code, Some(1), "{what}: {}", output.stderr);
        assert!(output.stderr.contains(said), "{what}: no {said:?} in {}", output.stderr);
        daemon.expect_nothing_stored(what);
    }
    daemon.ctl("load -i /no/such/file").fails(1, &["/no/such/file"]);
    load(&daemon, &[("test/good:1", &image("good"))]);
}

/// Documents of gigabytes, and links that lead to files of the host.
/// CVE-2023-25153, CVE-2026-53489.
#[test]
fn hostile_archives_are_refused() {
    let daemon = Daemon::start();
    let memory = daemon.peak_memory();
    for path in ["index.json", "oci-layout", "manifest.json"] {
        let mut tar = Tar::new();
        if path != "oci-layout" {
            tar.push(&Entry::file("oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}"));
        }
        tar.raw(&Header::new(path, b'0', 8 << 30), &[]);
        // What is promised comes, as far as anybody reads.
        let mut child = daemon
            .client()
            .command("load")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let _ = pipe.write_all(&tar.unfinished());
        let spaces = vec![b' '; 1 << 20];
        let sent = (0..8192).take_while(|_| pipe.write_all(&spaces).is_ok()).count();
        drop(pipe);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{path}: {said}");
        assert!(said.contains(path), "{said}");
        assert!(sent < 1024, "{sent} MB of {path} were taken");
    }
    for (path, kind) in [
        ("index.json", Kind::Symlink("/etc/passwd".to_owned())),
        ("manifest.json", Kind::Symlink("../../../../../../etc/passwd".to_owned())),
        ("manifest.json", Kind::HardLink("/etc/passwd".to_owned())),
        ("manifest.json", Kind::Fifo),
        ("manifest.json", Kind::Character(1, 5)),
        ("../../../../../../tmp/bosun-evil", Kind::File(b"x".to_vec())),
    ] {
        let files = [
            Entry::file("oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}"),
            Entry::new(path, kind),
        ];
        let output =
            daemon.ctl(&format!("load -i {}", write(&daemon, "bad.tar", &tar::tar(&files))));
        assert_eq!(output.code, Some(1), "{path}: {}", output.stderr);
        assert!(!output.stderr.contains("root:x"), "{}", output.stderr);
        assert!(!std::path::Path::new("/tmp/bosun-evil").exists());
    }
    assert!(daemon.peak_memory() < memory + 64 * 1024, "{} kB", daemon.peak_memory());
    daemon.expect_nothing_stored("");
}

/// What an archive calls by an id or a digest has it: nothing comes in the place of another image, nor
/// a layer in the place of another's.
/// CVE-2014-5282.
#[test]
fn an_id_is_that_of_its_content() {
    let daemon = Daemon::start();
    let (victim, evil) = (plain("victim"), plain("evil"));
    daemon
        .ctl(&format!(
            "load -i {}",
            write(&daemon, "victim.tar", &archive::docker(&[(&["test/victim:1"], &victim)]))
        ))
        .ok();
    let before = daemon.ctl("content ls -q").text();
    let hex = |image: &Image| image.id()["sha256:".len()..].to_owned();
    // The evil one's files, under names that are the victim's.
    let renamed = |from: &str, to: &str| -> Vec<(String, Vec<u8>)> {
        let named = |text: &str| text.replace(from, to);
        docker_files(&[(&["test/evil:1"], &evil)])
            .into_iter()
            .map(|(path, data)| match path == "manifest.json" {
                true => (path, named(std::str::from_utf8(&data).unwrap()).into_bytes()),
                false => (named(&path), data),
            })
            .collect()
    };
    let config = format!("{}.json", hex(&evil));
    let own = victim.layers()[1].hex().to_owned();
    let swapped = archive::layout(&[("test/evil:1", &evil)])
        .into_iter()
        .map(|(path, data)| (path.replace(evil.layers()[1].hex(), &own), data))
        .collect();
    // The victim's configuration, and the other one's layers.
    let foreign_layers = docker_files(&[(&["test/evil:1"], &evil)])
        .into_iter()
        .map(|(path, data)| match path == config {
            true => {
                let found = victim.parts.iter().find(|blob| blob.digest == victim.id());
                (format!("{}.json", hex(&victim)), found.unwrap().bytes.clone())
            }
            false if path == "manifest.json" => {
                let text = String::from_utf8(data).unwrap();
                (path, text.replace(&config, &format!("{}.json", hex(&victim))).into_bytes())
            }
            false => (path, data),
        })
        .collect();
    let evil_layer = evil.layers()[1].hex();
    for (what, files, said) in [
        ("an id", renamed(&config, &format!("{}.json", hex(&victim))), hex(&evil)),
        ("a digest", renamed(&config, &victim.id()), hex(&evil)),
        ("a blob", renamed(&config, &format!("blobs/sha256/{}", hex(&victim))), hex(&victim)),
        ("a layer of a layout", swapped, own.clone()),
        ("layers of another", foreign_layers, evil_layer.to_owned()),
        ("a path", renamed(&config, "../../../../../../tmp/bosun-evil.json"), String::new()),
        ("a path of a layer", renamed("0-1/layer.tar", "/etc/passwd"), String::new()),
    ] {
        let file = write(&daemon, "bad.tar", &tar::tar(&entries(files)));
        let output = daemon.ctl(&format!("load -i {file}"));
        assert!(!std::path::Path::new("/tmp/bosun-evil.json").exists(), "{what}");
        if !said.is_empty() {
            assert_eq!(output.code, Some(1), "{what}: {}", output.stderr);
            assert!(output.stderr.contains(&said), "{what}: no {said:?} in {}", output.stderr);
            assert_eq!(daemon.ctl("content ls -q").text(), before, "{what}");
        }
    }
    // Paths lead nowhere but into the archive: there these names are as good as any.
    assert_eq!(run(&daemon, "test/evil:1"), "evil");
    assert_eq!(run(&daemon, "test/victim:1"), "victim");
    assert_eq!(daemon.api().image("test/victim:1").target.unwrap().digest.len(), 71);
}

#[test]
fn a_client_that_goes_away_leaves_nothing() {
    let daemon = Daemon::start();
    let bytes = oci(&[("test/half:1", &image("half"))]);
    let mut child = daemon
        .client()
        .command("load")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&bytes[..bytes.len() / 2]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    integration::wait::until_true("everything of it to be gone", || daemon.stored().is_empty());
}
