//! Layers into trees: what is written, what is put off, and what is refused.

use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use crate::support::{Header, Place, Tar};
use bosun_image::Digest;
use bosun_layer::{Below, Error, Limits, Rule, Settled, apply, empty, settle};

fn unpacked(tar: Tar) -> Place {
    let place = Place::new();
    place.apply(&tar.end(), Below::Nothing).unwrap();
    place
}

fn upper(tar: Tar) -> Place {
    let place = Place::new();
    let applied = place.apply(&tar.end(), Below::Pending).unwrap();
    assert_eq!(applied.deferred.dependent(), None);
    place
}

/// The error of a layer on its own, and of the same one over another.
fn refused(tar: Tar) -> Error {
    let place = Place::new();
    let layer = tar.end();
    let error = place.apply(&layer, Below::Nothing).unwrap_err();
    let below = Place::new();
    let over = Place::new();
    let again = over.apply(&layer, Below::Tree(&below.root())).unwrap_err();
    assert_eq!(error.to_string(), again.to_string());
    assert!(below.list().is_empty());
    error
}

fn rule(error: &Error) -> Option<Rule> {
    if let Error::Refused { rule, .. } = error { Some(*rule) } else { None }
}

#[test]
fn files_of_every_kind_get_all_that_their_headers_say() {
    let place = unpacked(
        Tar::new()
            .header(Header::new(b"./", b'5').mode(0o711).owner(3, 4))
            .header(Header::new(b"d/", b'5').mode(0o1777).owner(1, 2))
            .data(Header::new(b"d/setuid", b'0').mode(0o6755).owner(5, 6).size(2), b"hi")
            .symlink("d/link", "/etc/passwd")
            .link("d/hard", "d/setuid")
            .header(Header::new(b"d/null", b'3').mode(0o666).device(1, 3))
            .header(Header::new(b"d/disk", b'4').mode(0o660).owner(0, 6).device(8, 1))
            .header(Header::new(b"d/pipe", b'6').mode(0o620)),
    );
    let stat = |path: &str| place.path(path).symlink_metadata().unwrap();
    let row = |path: &str| {
        let stat = stat(path);
        (stat.mode() & 0o7777, stat.uid(), stat.gid(), stat.mtime())
    };
    assert_eq!(row(""), (0o711, 3, 4, 1_000_000_000));
    assert_eq!(row("d"), (0o1777, 1, 2, 1_000_000_000));
    assert_eq!(row("d/setuid"), (0o6755, 5, 6, 1_000_000_000));
    assert_eq!(row("d/link"), (0o777, 0, 0, 1_000_000_000));
    assert_eq!(row("d/null"), (0o666, 0, 0, 1_000_000_000));
    assert_eq!(row("d/disk"), (0o660, 0, 6, 1_000_000_000));
    assert_eq!(row("d/pipe"), (0o620, 0, 0, 1_000_000_000));
    assert_eq!(stat("d/hard").ino(), stat("d/setuid").ino());
    assert_eq!(stat("d/null").rdev(), rustix::fs::makedev(1, 3));
    assert!(stat("d/disk").file_type().is_block_device());
    assert!(stat("d/pipe").file_type().is_fifo());
    assert_eq!(std::fs::read(place.path("d/hard")).unwrap(), b"hi");
}

#[test]
fn times_are_kept_to_the_nanosecond_whatever_comes_into_a_directory_later() {
    let time = |text: &'static [u8]| [("mtime", text)];
    let mut tar = Tar::new().pax(&time(b"7.000000001")).directory("d/").file("d/a", b"");
    // More directories than are kept open.
    for number in 0..200 {
        tar = tar.directory(&format!("other{number}/")).file(&format!("other{number}/x"), b"");
    }
    let place = unpacked(tar.pax(&time(b"-1.5")).file("d/b", b"").file("d/c", b""));
    let stat = |path: &str| place.path(path).metadata().unwrap();
    assert_eq!((stat("d").mtime(), stat("d").mtime_nsec()), (7, 1));
    assert_eq!((stat("d/b").mtime(), stat("d/b").mtime_nsec()), (-2, 500_000_000));
    for number in 0..200 {
        assert_eq!(stat(&format!("other{number}")).mtime(), 1_000_000_000);
    }
}

#[test]
fn attributes_that_are_the_images_own_are_set() {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let rooted = [&[1, 0, 0, 3, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &[9, 0, 0, 0]];
    let place = unpacked(
        Tar::new()
            .pax(&[("SCHILY.xattr.security.capability", &capability)])
            .data(Header::new(b"ping", b'0').owner(7, 7).mode(0o755).size(1), b"x")
            .pax(&[("SCHILY.xattr.security.capability", &rooted.concat())])
            .file("v3", b"x")
            .pax(&[
                ("SCHILY.xattr.user.note", b"\0\n="),
                ("SCHILY.xattr.security.selinux", b"label"),
                ("SCHILY.xattr.security.ima", b"hash"),
            ])
            .directory("d"),
    );
    let get = |path: &str, name: &str| {
        let mut value = [0; 100];
        rustix::fs::getxattr(place.path(path), name, &mut value[..])
            .map(|count| value[..count].to_vec())
    };
    assert_eq!(get("ping", "security.capability").unwrap(), capability);
    assert_eq!(get("v3", "security.capability").unwrap(), rooted.concat());
    assert_eq!(get("d", "user.note").unwrap(), b"\0\n=");
    assert!(get("d", "security.selinux").is_err() && get("d", "security.ima").is_err());
}

#[test]
fn overlayfs_attributes_can_not_be_forged() {
    for key in [
        "SCHILY.xattr.trusted.overlay.opaque",
        "SCHILY.xattr.trusted.overlay.redirect",
        "LIBARCHIVE.xattr.trusted.overlay.metacopy",
        "LIBARCHIVE.xattr.trusted.%6fverlay.opaque",
    ] {
        for tar in [
            Tar::new().pax(&[(key, b"eQ")]).directory("d"),
            Tar::new().pax(&[(key, b"eQ")]).file("f", b""),
        ] {
            assert_eq!(rule(&refused(tar)), Some(Rule::OverlayAttribute), "{key}");
        }
    }
}

#[test]
fn the_digest_is_of_all_bytes_and_of_the_uncompressed_ones() {
    use std::io::Write;
    let tar = [Tar::new().file("a", b"x").end(), b"trailing garbage".repeat(50_000)].concat();
    let mut gzip = bosun_layer::compress::Encoder::new(Vec::new());
    gzip.write_all(&tar).unwrap();
    let zstd = zstd::stream::encode_all(&tar[..], 1).unwrap();
    for layer in [tar.clone(), gzip.finish().unwrap(), zstd] {
        let applied = Place::new().apply(&layer, Below::Nothing).unwrap();
        assert_eq!((applied.diff_id, applied.size), (Digest::of(&tar), tar.len() as u64));
    }
}

#[test]
fn of_entries_with_one_name_the_last_one_counts() {
    let place = unpacked(
        Tar::new()
            .file("a", b"old")
            .file("a", b"new")
            .directory("b/")
            .file("b/inner", b"")
            .file("b", b"now a file")
            .file("c", b"")
            .directory("c/")
            .file("c/inner", b"")
            .symlink("d", "/etc")
            .directory("d")
            .file("d/passwd", b"mine")
            .directory("e")
            .symlink("e", "a")
            .file("./f//", b""),
    );
    assert_eq!(
        place.list(),
        [
            "a \"new\"",
            "b \"now a file\"",
            "c/",
            "c/inner \"\"",
            "d/",
            "d/passwd \"mine\"",
            "e -> a",
            "f/"
        ]
    );
}

#[test]
fn paths_that_go_up_are_refused_and_absolute_ones_begin_at_the_root() {
    for name in ["../canary", "a/../../canary", "..", "/../x", "a/.."] {
        assert_eq!(rule(&refused(Tar::new().file(name, b"dead"))), Some(Rule::Up), "{name}");
    }
    let place = unpacked(Tar::new().file("//etc/passwd", b"inside"));
    assert_eq!(place.list(), ["etc/", "etc/passwd \"inside\""]);
}

#[test]
fn links_are_followed_inside_the_tree_only() {
    let place = Place::new();
    let canary = place.directory.path().join("canary");
    let outside = place.directory.path().to_str().unwrap().to_owned();
    let tar = Tar::new()
        .symlink("up", "../..")
        .symlink("out", &outside)
        .file("up/canary", b"dead")
        .file("out/canary", b"dead")
        .directory("up/made/")
        .header(Header::new(b"out/canary", b'0').mode(0o777))
        .symlink("target", canary.to_str().unwrap())
        .file("target", b"replaces the link");
    place.apply(&tar.end(), Below::Nothing).unwrap();
    assert!(place.path("canary").is_file() && place.path("made").is_dir());
    assert_eq!(std::fs::read(place.path("target")).unwrap(), b"replaces the link");
    assert!(place.directory.path().join("tree").join(&outside[1..]).join("canary").is_file());
}

#[test]
fn hard_links_stay_inside_too() {
    for target in ["/etc/passwd", "../canary", "missing", "d", "link/canary", "self"] {
        let place = Place::new();
        let outside = place.directory.path().to_str().unwrap().to_owned();
        let tar = Tar::new().directory("d").symlink("link", &outside).link("self", target);
        let error = place.apply(&tar.end(), Below::Nothing).unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{target}: {error}");
    }
    // To a link: to the link itself, whose target is not touched (CVE-2021-32760).
    let place = Place::new();
    let canary = place.directory.path().join("canary");
    let tar = Tar::new()
        .symlink("link", canary.to_str().unwrap())
        .header(Header::new(b"hard", b'1').link(b"link").mode(0o777))
        .link("hard", "hard");
    place.apply(&tar.end(), Below::Nothing).unwrap();
    let is_link = |path| place.path(path).symlink_metadata().unwrap().file_type().is_symlink();
    assert!(is_link("link") && is_link("hard"));
}

#[test]
fn a_circle_of_links_ends() {
    let tar = Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", b"");
    assert_eq!(rule(&refused(tar)), Some(Rule::TooManyLinks));
    let tar = Tar::new().file("a", b"").file("a/x", b"");
    assert_eq!(rule(&refused(tar)), Some(Rule::NotADirectory));
}

#[test]
fn whiteouts_become_overlayfs_own() {
    let tar = Tar::new()
        .file(".wh.gone", b"")
        .directory("d/")
        .file("d/.wh..wh..opq", b"")
        .file("d/new", b"")
        .file(".wh..wh.plnk", b"")
        .file(".wh..wh.aufs/x", b"")
        .directory(".wh..wh.orph/");
    assert_eq!(upper(tar.clone()).list(), ["d/ opaque", "d/new \"\"", "gone hidden"]);
    // There is nothing to hide.
    assert_eq!(unpacked(tar).list(), ["d/", "d/new \"\""]);
}

#[test]
fn a_whiteout_hides_what_is_below_and_not_what_is_beside_it() {
    let file = "x \"\"";
    for (tar, want) in [
        (Tar::new().file("x", b"").file(".wh.x", b""), vec![file]),
        (Tar::new().file(".wh.x", b"").file("x", b""), vec![file]),
        (Tar::new().file(".wh.x", b"").directory("x"), vec!["x/ opaque"]),
        (Tar::new().directory("x").file(".wh.x", b""), vec!["x/ opaque"]),
        (Tar::new().file("x/y", b"").file(".wh.x", b""), vec!["x/ opaque", "x/y \"\""]),
        (Tar::new().file(".wh.x", b"").file("x/y", b""), vec!["x/ opaque", "x/y \"\""]),
        (Tar::new().file("x", b"").directory("x"), vec!["x/ opaque"]),
        (Tar::new().symlink("x", "y").directory("x"), vec!["x/ opaque"]),
        (Tar::new().directory("x").file("x", b"").directory("x"), vec!["x/ opaque"]),
        (Tar::new().file(".wh.x", b"").file(".wh.x", b""), vec!["x hidden"]),
        (Tar::new().file(".wh.x", b"").symlink("x", "y"), vec!["x -> y"]),
        (Tar::new().file(".wh.x", b"").file("x/.wh.y", b""), vec!["x hidden"]),
        (Tar::new().file(".wh..wh..opq", b"").file("x/.wh.y", b""), vec![]),
    ] {
        assert_eq!(upper(tar).list(), want);
    }
}

#[test]
fn whiteouts_that_hide_no_file_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", ".wh../x", "a/.wh.b/c", ".wh./x"] {
        assert_eq!(rule(&refused(Tar::new().file(name, b""))), Some(Rule::Whiteout), "{name}");
    }
    let tar = Tar::new().file("a", b"").link("b", ".wh.a");
    assert_eq!(rule(&refused(tar)), Some(Rule::NoTarget));
}

/// Unpacks a layer beside the others, settles it, and does it again on top when it has to be.
fn over(below: &Place, tar: &Tar) -> (Place, bool) {
    let place = Place::new();
    let layer = tar.clone().end();
    let applied = place.apply(&layer, Below::Pending).unwrap();
    assert_eq!(applied.diff_id, Digest::of(&layer));
    let root = below.root();
    let settled = settle(place.tree().as_fd(), &applied.deferred, Some(&root)).unwrap();
    let again = settled != Settled::Done;
    if again {
        empty(place.tree().as_fd()).unwrap();
        let applied = place.apply(&layer, Below::Tree(&root)).unwrap();
        assert!(applied.deferred.is_empty());
        assert_eq!(applied.diff_id, Digest::of(&layer));
    }
    // Applied on top at once, it is the same.
    let other = Place::new();
    other.apply(&layer, Below::Tree(&root)).unwrap();
    assert_eq!(place.list(), other.list());
    below.check_canary();
    (place, again)
}

#[test]
fn directories_without_an_entry_look_like_those_below() {
    let below = unpacked(
        Tar::new()
            .header(Header::new(b"./", b'5').mode(0o700).owner(8, 9))
            .pax(&[("SCHILY.xattr.user.a", b"b"), ("mtime", b"12.5")])
            .header(Header::new(b"d/", b'5').mode(0o2750).owner(1, 2))
            .header(Header::new(b"d/e/", b'5').mode(0o1777).owner(3, 4)),
    );
    let (place, again) = over(&below, &Tar::new().file("d/e/f", b"").file("d/new/g", b""));
    assert!(!again);
    for path in ["", "d", "d/e"] {
        let (ours, theirs) =
            (place.path(path).metadata().unwrap(), below.path(path).metadata().unwrap());
        let row = |stat: &std::fs::Metadata| {
            (stat.mode(), stat.uid(), stat.gid(), stat.mtime(), stat.mtime_nsec())
        };
        assert_eq!(row(&ours), row(&theirs), "{path:?}");
    }
    let mut value = [0; 8];
    assert_eq!(rustix::fs::getxattr(place.path("d"), "user.a", &mut value[..]), Ok(1));
    let new = place.path("d/new").metadata().unwrap();
    assert_eq!((new.mode() & 0o7777, new.gid()), (0o755, 0));
}

#[test]
fn what_lies_below_a_link_lands_where_it_leads() {
    let below = unpacked(
        Tar::new()
            .directory("usr/")
            .header(Header::new(b"usr/bin/", b'5').mode(0o751))
            .symlink("bin", "usr/bin")
            .symlink("abs", "/usr/./bin/../bin")
            .symlink("dangling", "run/new"),
    );
    let tar = Tar::new()
        .file("bin/tool", b"x")
        .file("bin/.wh.old", b"")
        .file("abs/other", b"")
        .file("dangling/file", b"");
    let (place, again) = over(&below, &tar);
    assert!(again);
    assert_eq!(
        place.list(),
        [
            "run/",
            "run/new/",
            "run/new/file \"\"",
            "usr/",
            "usr/bin/",
            "usr/bin/other \"\"",
            "usr/bin/tool \"x\""
        ]
    );
    assert_eq!(place.path("usr/bin").metadata().unwrap().mode() & 0o7777, 0o751);
    // The same through a link of the layer's own.
    let (place, again) = over(&below, &Tar::new().symlink("l", "bin").file("l/tool", b"x"));
    assert!(again);
    assert_eq!(place.list(), ["l -> bin", "usr/", "usr/bin/", "usr/bin/tool \"x\""]);
    // A directory's own entry replaces the link.
    let (place, again) = over(&below, &Tar::new().directory("bin/").file("bin/tool", b"x"));
    assert!(!again);
    assert_eq!(place.list(), ["bin/", "bin/tool \"x\""]);
}

#[test]
fn a_hard_link_to_a_file_below_brings_it_up() {
    let below = unpacked(
        Tar::new()
            .directory("d/")
            .data(Header::new(b"d/file", b'0').mode(0o4711).owner(1, 2).size(5), b"below")
            .symlink("d/link", "file")
            .header(Header::new(b"d/null", b'3').device(1, 3))
            .directory("d/e"),
    );
    let (place, again) = over(&below, &Tar::new().link("a", "d/file").link("b", "/d/file"));
    assert!(again);
    assert_eq!(place.list(), ["a \"below\"", "b \"below\"", "d/", "d/file \"below\""]);
    let stat = place.path("d/file").metadata().unwrap();
    assert_eq!(
        (stat.nlink(), stat.mode() & 0o7777, stat.uid(), stat.mtime()),
        (3, 0o4711, 1, 1_000_000_000)
    );
    let (place, _) = over(&below, &Tar::new().link("a", "d/link").link("n", "d/null"));
    assert_eq!(
        place.list(),
        ["a -> file", "d/", "d/link -> file", "d/null special 259", "n special 259"]
    );
    // In the order of the entries.
    let (place, _) = over(&below, &Tar::new().link("a", "d/file").file("d/.wh.file", b""));
    assert_eq!(place.list()[0], "a \"below\"");
    for tar in [
        Tar::new().file("d/.wh.file", b"").link("a", "d/file"),
        Tar::new().file("d/.wh..wh..opq", b"").link("a", "d/file"),
        Tar::new().link("a", "d/e"),
        Tar::new().link("a", "d/none"),
    ] {
        assert!(Place::new().apply(&tar.end(), Below::Tree(&below.root())).is_err());
    }
}

#[test]
fn a_whiteout_of_nothing_makes_nothing() {
    let below = unpacked(Tar::new().file("file", b""));
    let tar = Tar::new().file("no/such/.wh.x", b"").file("file/.wh.x", b"").file("kept", b"");
    let (place, again) = over(&below, &tar);
    assert!(!again);
    assert_eq!(place.list(), ["kept \"\""]);
}

#[test]
fn a_file_below_where_a_directory_must_be_is_an_error() {
    let below = unpacked(Tar::new().file("file", b""));
    let place = Place::new();
    let layer = Tar::new().file("file/x", b"").end();
    let applied = place.apply(&layer, Below::Pending).unwrap();
    let error = settle(place.tree().as_fd(), &applied.deferred, Some(&below.root())).unwrap_err();
    assert_eq!(rule(&error), Some(Rule::NotADirectory));
    let error = Place::new().apply(&layer, Below::Tree(&below.root())).unwrap_err();
    assert_eq!(rule(&error), Some(Rule::NotADirectory));
}

#[test]
fn limits_are_kept() {
    let apply = |tar: Tar, limits: &Limits| {
        let place = Place::new();
        apply(&tar.end()[..], place.tree().as_fd(), Below::Nothing, limits).map(|_| ())
    };
    let limits = Limits { entries: 3, ..Limits::default() };
    let three = Tar::new().file("a", b"").file("b", b"").file("c", b"");
    assert!(apply(three.clone(), &limits).is_ok());
    assert!(matches!(apply(three.file("d", b""), &limits), Err(Error::Limit { limit: 3, .. })));
    let deep = Tar::new().file("a/b/c/d/e", b"");
    assert!(matches!(apply(deep, &limits), Err(Error::Limit { limit: 3, .. })));
    let limits = Limits { size: 4096, ..Limits::default() };
    assert!(matches!(apply(Tar::new().file("a", &[7; 4096]), &limits), Err(Error::Limit { .. })));
    // A hole takes no bytes of the archive.
    let hole = Tar::new()
        .pax(&[("GNU.sparse.map", b"1000000,0"), ("GNU.sparse.size", b"1000000")])
        .file("hole", b"");
    assert!(matches!(apply(hole, &limits), Err(Error::Limit { .. })));
}

#[test]
fn paths_as_deep_as_they_go() {
    let deep = ["a"; 2047].join("/");
    let place = unpacked(Tar::new().long(b'L', deep.as_bytes()).file("x", b"deep"));
    assert!(place.path(&deep[..3]).is_dir());
    empty(place.tree().as_fd()).unwrap();
    let link = "a/".repeat(2000);
    let tar = Tar::new()
        .long(b'K', link.as_bytes())
        .symlink("l", "x")
        .long(b'L', format!("l/{deep}").as_bytes())
        .file("x", b"");
    assert_eq!(rule(&refused(tar)), Some(Rule::LongPath));
}

#[test]
fn a_stream_that_is_no_tar_says_so() {
    for bytes in [&b"<html>404 not found</html>"[..], &[7; 4096]] {
        assert!(matches!(Place::new().apply(bytes, Below::Nothing), Err(Error::NotTar)));
    }
    let place = Place::new();
    place.apply(b"", Below::Nothing).unwrap();
    place.apply(&[0; 1024], Below::Nothing).unwrap();
    assert!(place.list().is_empty());
}

#[test]
fn owners_that_no_file_can_have_are_refused() {
    for (key, value) in [("uid", "4294967295"), ("gid", "4294967296"), ("uid", "-1")] {
        let tar = Tar::new().pax(&[(key, value.as_bytes())]).file("x", b"");
        assert!(matches!(refused(tar), Error::Malformed { .. }), "{key} {value}");
    }
    let place = unpacked(Tar::new().pax(&[("uid", b"4294967294")]).file("x", b""));
    assert_eq!(place.path("x").metadata().unwrap().uid(), 4_294_967_294);
}
