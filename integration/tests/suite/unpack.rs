//! Layers become trees: the same as umoci makes of them, once, and whole after a power cut.

use std::process::Command;

use integration::archive;
use integration::daemon::Daemon;
use integration::image::{Compression, Image, Layer, Recipe, noise};
use integration::netns;
use integration::tar::{self, Entry, Header, Kind, Tar};
use integration::tree::{Mounted, Tree, What};

const NAME: &str = "test/rich:1";

/// `cap_net_raw=ep` as the kernel keeps it: version 2, effective.
const CAP_NET_RAW: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Everything that a layer can have in it, and a second one that changes all of it.
fn rich() -> Image {
    let long = "long-name-".repeat(20);
    let deep: String = (0..40).map(|depth| format!("deep-{depth}/")).collect();
    let first = vec![
        Entry::directory("./").mode(0o755),
        Entry::directory("dir/").mode(0o2775).owner(12, 34),
        Entry::file("dir/file", noise(1, 70_000)).mode(0o640).owner(1000, 1001).mtime(86_400),
        Entry::file("dir/removed", "gone"),
        Entry::hard_link("dir/second-name", "dir/file"),
        Entry::hard_link("third-name", "./dir/file"),
        Entry::file("setuid", "s").mode(0o4755),
        Entry::file("setgid", "s").mode(0o2711),
        Entry::directory("sticky").mode(0o1777),
        Entry::file("nothing", "").mode(0),
        Entry::file("capable", "c").mode(0o755).xattr("security.capability", CAP_NET_RAW),
        Entry::file("noted", "n").xattr("user.note", b"bytes \0\xff").xattr("trusted.note", b"t"),
        Entry::symlink("link", "dir/file").owner(5, 6).mtime(1),
        Entry::symlink("dangling", "/no/such/thing"),
        Entry::symlink("absolute-dir", "/dir"),
        Entry::new("null", Kind::Character(1, 3)).mode(0o666),
        Entry::new("disk", Kind::Block(259, 7)).mode(0o660).owner(0, 6),
        Entry::new("pipe", Kind::Fifo).mode(0o600),
        Entry::file("implicit/parents/file", "no directory entries"),
        Entry::file("ünïcödé ☃", "u"),
        Entry::file("with\nnewline", "n"),
        Entry::file("big-ids", "b").owner(2_000_000_000, 2_000_000_001),
        Entry::directory("opaque"),
        Entry::file("opaque/below", "b"),
        Entry::directory("opaque/sub"),
        Entry::file("opaque/sub/below", "b"),
        Entry::directory("whole"),
        Entry::file("whole/file", "f"),
        Entry::file("becomes-dir", "f"),
        Entry::directory("becomes-file"),
        Entry::file("becomes-file/inside", "f"),
        Entry::file("becomes-link", "f"),
        Entry::file("chmod", "same").mode(0o600),
        Entry::directory("chmod-dir").mode(0o700),
        Entry::file("chmod-dir/inside", "i"),
        Entry::file("twice", "first"),
        Entry::file("twice", "second"),
    ];
    let mut bytes = Tar::new();
    first.iter().for_each(|entry| bytes.push(entry));
    bytes.push(&Entry::file(&format!("{deep}{long}"), "deep and long"));
    bytes.push_gnu(&Entry::symlink(&format!("gnu/{long}-gnu"), &format!("../{long}")));
    sparse(&mut bytes);
    let second = [
        Entry::file("dir/.wh.removed", ""),
        Entry::file(".wh.whole", ""),
        Entry::file("opaque/.wh..wh..opq", ""),
        Entry::file("opaque/above", "a"),
        Entry::directory("becomes-dir"),
        Entry::file("becomes-dir/inside", "now a directory"),
        Entry::file("becomes-file", "now a file"),
        Entry::symlink("becomes-link", "dir/file"),
        Entry::file("chmod", "same").mode(0o755),
        Entry::directory("chmod-dir").mode(0o711).owner(7, 8),
        Entry::file("fresh", "source"),
        Entry::hard_link("fresh-link", "fresh"),
        Entry::hard_link("across", "setgid"),
    ];
    let third = [
        Entry::file("opaque/third", "t"),
        Entry::file("whole", "now a file"),
        Entry::file("dir/removed", "back again").owner(9, 9),
        Entry::file("never-there/.wh.nothing", ""),
    ];
    Recipe::busybox()
        .layer(Layer::raw(bytes.finish(), Compression::Gzip))
        .layer(Layer::of(&second))
        .layer(Layer::of(&third).compressed(Compression::None))
        .image()
}

/// A file of a megabyte with two pieces of data, as GNU tar writes it today: the map of PAX 1.0
/// stands before the data.
fn sparse(tar: &mut Tar) {
    let map = "3\n0\n512\n524288\n512\n1048576\n0\n";
    let records = [("major", "1"), ("minor", "0"), ("name", "sparse"), ("realsize", "1048576")];
    let records =
        records.map(|(key, value)| (format!("GNU.sparse.{key}"), value.as_bytes().to_vec()));
    tar.pax(&records);
    let mut data = map.as_bytes().to_vec();
    data.resize(512, 0);
    data.extend([[b'a'; 512], [b'b'; 512]].concat());
    tar.raw(&Header::new("GNUSparseFile.0/sparse", b'0', data.len() as u64), &data);
}

/// The same as GNU tar wrote it before PAX, with the map in the header.
fn old_sparse(tar: &mut Tar) {
    let mut header = Header::new("old-sparse", b'S', 1024).gnu().number(483, 12, 1 << 20);
    let pieces = [(0_u64, 512_u64), (524_288, 512), (1 << 20, 0)];
    for (at, (offset, size)) in pieces.into_iter().enumerate() {
        header = header.number(386 + at * 24, 12, offset).number(398 + at * 24, 12, size);
    }
    tar.raw(&header, &[[b'a'; 512], [b'b'; 512]].concat());
}

#[test]
fn the_tree_is_the_one_that_umoci_makes() {
    let daemon = Daemon::start();
    let image = rich();
    archive::load(&daemon, &[(NAME, &image)]);
    let layout = daemon.scratch().join("layout");
    archive::write_layout(&layout, &[("rich", &image)]);
    let bundle = daemon.scratch().join("bundle");
    let mut command = Command::new("umoci");
    command.arg("unpack").arg("--image").arg(format!("{}:rich", layout.display())).arg(&bundle);
    netns::run(&mut command);

    let snapshot = daemon.api().image(NAME).content.unwrap().snapshot;
    let mounted = Mounted::view(&daemon, &snapshot);
    let (theirs, ours) = (Tree::walk(&bundle.join("rootfs")), Tree::walk(mounted.path()));
    let differences = theirs.differences(&ours);
    assert!(differences.is_empty(), "{}", differences.join("\n"));

    // That they agree is not all: this is what they agree on.
    assert!(!ours.has("dir/.wh.removed") && !ours.has("opaque/below") && ours.has("opaque/third"));
    assert_eq!(ours.node("capable").xattrs["security.capability"], CAP_NET_RAW);
    assert!(matches!(ours.node("sparse").what, What::File { size: 1_048_576, .. }));
    assert_eq!(ours.node("setuid").mode, 0o4755);
    assert_eq!(ours.node("third-name").same_as, ours.node("dir/file").same_as);
    assert!(ours.node("dir/file").same_as.is_some());
}

#[test]
fn sparse_files_stay_sparse() {
    use std::os::unix::fs::MetadataExt;
    let daemon = Daemon::start();
    let mut tar = Tar::new();
    sparse(&mut tar);
    old_sparse(&mut tar);
    let layer = Layer::raw(tar.finish(), Compression::Gzip);
    archive::load(&daemon, &[(NAME, &Recipe::new().layer(layer).image())]);
    let mounted = Mounted::view(&daemon, &daemon.api().image(NAME).content.unwrap().snapshot);
    let mut expected = vec![0; 1 << 20];
    expected[..512].fill(b'a');
    expected[524_288..524_288 + 512].fill(b'b');
    for name in ["sparse", "old-sparse"] {
        let file = mounted.path().join(name);
        assert!(std::fs::read(&file).unwrap() == expected, "{name}");
        let blocks = file.metadata().unwrap().blocks();
        assert!(blocks * 512 < 100_000, "{name}: {blocks} blocks");
    }
}

#[test]
fn a_container_sees_that_tree() {
    let daemon = Daemon::start();
    archive::load(&daemon, &[(NAME, &rich())]);
    daemon.ctl(&format!("run -d --name one --net none {NAME} sleep 600")).ok();
    let inside = |script: &str| daemon.ctl(&format!("exec one sh -c '{script}'")).text();
    assert_eq!(
        inside("stat -c %a:%u:%g /dir /dir/file /setuid"),
        "2775:12:34\n640:1000:1001\n4755:0:0"
    );
    assert_eq!(
        inside("cat /whole /dir/removed /becomes-dir/inside"),
        "now a fileback againnow a directory"
    );
    assert_eq!(inside("stat -c %h /third-name"), "3");
    assert_eq!(inside("ls /opaque"), "above\nthird");
}

#[test]
fn setuid_and_file_capabilities_work() {
    let busybox = std::fs::read("/bin/busybox").unwrap();
    let programs = [
        Entry::file("usr/bin/setuid-id", busybox.clone()).mode(0o4755),
        Entry::file("usr/bin/capable", busybox)
            .mode(0o755)
            .xattr("security.capability", CAP_NET_RAW),
    ];
    let daemon = Daemon::start();
    // busybox goes by its name, so the name is a script's that calls it as `id` or `grep`.
    archive::load(&daemon, &[(NAME, &Recipe::busybox().files(&programs).image())]);
    let run =
        |words: &str| daemon.ctl(&format!("run --rm -u 65534 --net none {NAME} {words}")).text();
    // busybox drops the setuid of applets that need none; `exec -a` gives the applet.
    let caps = run("sh -c 'exec -a grep /usr/bin/capable CapEff /proc/self/status'");
    assert!(caps.ends_with("0000000000002000"), "{caps}");
    let uid = run("sh -c 'exec -a cat /usr/bin/setuid-id /proc/self/status'");
    assert!(uid.contains("Uid:\t65534\t0\t0\t0") || uid.contains("Uid:\t65534\t65534"), "{uid}");
}

#[test]
fn the_snapshots_are_named_by_chain() {
    let daemon = Daemon::start();
    let image = rich();
    archive::load(&daemon, &[(NAME, &image)]);
    let config: serde_json::Value =
        serde_json::from_slice(&daemon.api().image(NAME).content.unwrap().config_json).unwrap();
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    let mut chain = String::new();
    let mut expected = Vec::new();
    for diff_id in diff_ids {
        let diff_id = diff_id.as_str().unwrap();
        chain = if chain.is_empty() {
            diff_id.to_owned()
        } else {
            integration::image::digest(format!("{chain} {diff_id}").as_bytes())
        };
        expected.push(chain.clone());
    }
    expected.sort();
    let listed = daemon.ctl("snapshot ls --format '{{.Key}}'").text();
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, expected);
    assert_eq!(daemon.api().image(NAME).content.unwrap().snapshot, chain);
}

/// Writes down that a layer was unpacked before the last boot and never made durable, and spoils it. A row
/// without a checksum is one of an older version.
#[test]
fn a_layer_that_a_power_cut_tore_is_unpacked_again() {
    let mut daemon = Daemon::start();
    let image = Recipe::busybox().files(&[Entry::file("important", "every byte\n")]).image();
    archive::load(&daemon, &[(NAME, &image)]);
    daemon.ctl(&format!("create --name one {NAME} cat /important")).ok();
    daemon.terminate();
    let database = rusqlite::Connection::open(daemon.place().root.join("meta.db")).unwrap();
    let layers = database
        .execute(
            "UPDATE snapshots SET durable = 0, boot_id = 'another', sum = '' WHERE kind = 'committed'",
            [],
        )
        .unwrap();
    assert_eq!(layers, 2);
    drop(database);
    let mut torn = 0;
    for snapshot in std::fs::read_dir(daemon.place().root.join("snapshots/overlayfs")).unwrap() {
        let file = snapshot.unwrap().path().join("fs/important");
        if file.exists() {
            std::fs::write(file, "").unwrap();
            torn += 1;
        }
    }
    assert_eq!(torn, 1);
    daemon.start_again();
    assert_eq!(daemon.ctl("start -a one").text(), "every byte");
    assert_eq!(
        daemon.ctl(&format!("run --rm --net none {NAME} cat /important")).text(),
        "every byte"
    );
}

#[test]
fn layers_become_durable_by_themselves() {
    let daemon = Daemon::start();
    archive::load(&daemon, &[(NAME, &rich())]);
    let path = daemon.place().root.join("meta.db");
    integration::wait::until("all layers to be durable", || {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let database = rusqlite::Connection::open_with_flags(&path, flags).ok()?;
        let left: i64 = database
            .query_row("SELECT count(*) FROM snapshots WHERE durable = 0", [], |row| row.get(0))
            .ok()?;
        (left == 0).then_some(())
    });
}

#[test]
fn a_hundred_and_twenty_seven_layers_are_mounted() {
    let daemon = Daemon::start();
    let recipe = (0..126).fold(Recipe::busybox(), |recipe, number| {
        recipe.files(&[
            Entry::file(&format!("layers/{number}"), "x"),
            Entry::file("last", number.to_string()),
        ])
    });
    archive::load(&daemon, &[(NAME, &recipe.image())]);
    let run = format!("run --rm --net none {NAME} sh -c 'ls /layers | wc -l; cat /last'");
    assert_eq!(daemon.ctl(&run).text(), "126\n125");
}

#[test]
fn an_image_without_layers_is_an_empty_tree() {
    let daemon = Daemon::start();
    archive::load(&daemon, &[(NAME, &Recipe::new().image())]);
    daemon.ctl(&format!("run --rm --net none {NAME} sh")).fails(127, &["sh"]);
    let empty = Recipe::busybox().layer(Layer::raw(tar::tar(&[]), Compression::Gzip)).image();
    archive::load(&daemon, &[("test/empty-layer:1", &empty)]);
    assert_eq!(daemon.ctl("run --rm --net none test/empty-layer:1 echo x").text(), "x");
}
