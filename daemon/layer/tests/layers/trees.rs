//! Trees into archives and back: export, cp, diff and commit.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use bosun_layer::{
    ArchiveOptions, Below, ChangeKind, Error, ExtractOptions, Limits, Rule, archive,
    archive_content, changes, diff, extract,
};

use crate::support::{Header, Place, Tar};

fn unpacked(tar: Tar) -> Place {
    let place = Place::new();
    place.apply(&tar.end(), Below::Nothing).unwrap();
    place
}

fn content(place: &Place) -> Vec<u8> {
    archive_content(place.tree().as_fd(), Vec::new(), ArchiveOptions::default()).unwrap()
}

fn into(
    place: &Place,
    directory: &str,
    archive: &[u8],
    options: ExtractOptions,
) -> Result<u64, Error> {
    let done = extract(archive, &place.root(), OsStr::new(directory), options, &Limits::default());
    place.check_canary();
    done
}

fn everything() -> Tar {
    Tar::new()
        .pax(&[("mtime", b"3.5"), ("SCHILY.xattr.user.a", b"b")])
        .header(Header::new(b"d/", b'5').mode(0o1750).owner(1, 2))
        .data(Header::new(b"d/setuid", b'0').mode(0o4755).owner(3, 4).size(5), b"hello")
        .link("d/hard", "d/setuid")
        .symlink("d/link", "/etc/passwd")
        .header(Header::new(b"d/pipe", b'6').mode(0o600).owner(5, 6))
        .header(Header::new(b"d/null", b'3').mode(0o666).device(1, 3))
        .file("empty", b"")
}

fn rows(place: &Place) -> Vec<String> {
    let mut rows = place.list();
    for path in ["d", "d/setuid", "d/hard", "d/link", "d/pipe", "d/null", "empty"] {
        let stat = place.path(path).symlink_metadata().unwrap();
        rows.push(format!(
            "{path} {:o} {}:{} {}.{} {}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.mtime(),
            stat.mtime_nsec(),
            stat.nlink()
        ));
    }
    rows
}

#[test]
fn a_tree_and_its_archive_are_the_same() {
    let place = unpacked(everything());
    let archive = content(&place);
    assert_eq!(archive, content(&place));
    let owners = ExtractOptions { owners: true, ..ExtractOptions::default() };
    let other = Place::new();
    assert_eq!(into(&other, "", &archive, owners).unwrap(), 7);
    assert_eq!(rows(&other), rows(&place));
    let mut value = [0; 8];
    assert_eq!(rustix::fs::getxattr(other.path("d"), "user.a", &mut value[..]), Ok(1));
    // As a layer too.
    let layer = Place::new();
    layer.apply(&archive, Below::Nothing).unwrap();
    assert_eq!(rows(&layer), rows(&place));
}

#[test]
fn one_file_gets_the_name_that_it_is_asked_for() {
    let place = unpacked(everything());
    for (name, want) in [("empty", vec!["new \"\""]), ("d", vec!["new/", "new/hard \"hello\""])] {
        let tree = place.tree();
        let options = ArchiveOptions::default();
        let archive =
            archive(tree.as_fd(), OsStr::new(name), OsStr::new("new"), Vec::new(), options)
                .unwrap();
        let other = Place::new();
        into(&other, "", &archive, ExtractOptions::default()).unwrap();
        assert_eq!(other.list()[..want.len()], want);
    }
    let missing = archive(
        place.tree().as_fd(),
        OsStr::new("no"),
        OsStr::new("x"),
        Vec::new(),
        ArchiveOptions::default(),
    );
    assert!(missing.is_err());
    let up = archive(
        place.tree().as_fd(),
        OsStr::new(".."),
        OsStr::new("x"),
        Vec::new(),
        ArchiveOptions::default(),
    );
    assert!(up.is_err());
}

#[test]
fn without_owners_files_are_the_callers_and_no_more_setuid() {
    let place = Place::new();
    let tar = Tar::new()
        .data(Header::new(b"theirs", b'0').mode(0o4755).owner(3, 4).size(1), b"x")
        .data(Header::new(b"ours", b'0').mode(0o4755).size(1), b"x");
    into(&place, "", &tar.end(), ExtractOptions::default()).unwrap();
    let row = |path: &str| {
        let stat = place.path(path).metadata().unwrap();
        (stat.uid(), stat.gid(), stat.mode() & 0o7777)
    };
    assert_eq!(row("theirs"), (0, 0, 0o755));
    assert_eq!(row("ours"), (0, 0, 0o4755));
}

#[test]
fn what_is_extracted_stays_in_the_root() {
    let place = Place::new();
    let outside = place.directory.path().to_str().unwrap().to_owned();
    std::fs::create_dir_all(place.path("data/real")).unwrap();
    symlink(&outside, place.path("data/out")).unwrap();
    symlink("../../..", place.path("data/up")).unwrap();
    symlink("/data/real", place.path("data/link")).unwrap();
    let tar = Tar::new()
        .file("out/canary", b"dead")
        .file("up/canary", b"dead")
        .file("link/file", b"lands in real")
        .header(Header::new(b"up/canary", b'0').mode(0o777))
        .symlink("own", &outside)
        .file("own/canary", b"dead")
        .file("new/deep/file", b"")
        .symlink("dangling", "/run/later")
        .file("dangling/file", b"");
    into(&place, "data", &tar.end(), ExtractOptions::default()).unwrap();
    assert_eq!(std::fs::read(place.path("data/real/file")).unwrap(), b"lands in real");
    assert_eq!(place.path("data/new/deep").metadata().unwrap().permissions().mode() & 0o777, 0o755);
    for name in ["../x", "a/../../x"] {
        let error =
            into(&place, "data", &Tar::new().file(name, b"").end(), ExtractOptions::default());
        assert!(matches!(error, Err(Error::Refused { rule: Rule::Up, .. })));
    }
    let tar = Tar::new().link("hard", "out/canary");
    assert!(
        into(&place, "data", &tar.end(), ExtractOptions::default()).is_err()
            || place.path("data/hard").exists()
    );
    let forged = Tar::new().pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")]).directory("d");
    assert!(into(&place, "data", &forged.end(), ExtractOptions::default()).is_err());
    assert!(into(&place, "missing", &Tar::new().end(), ExtractOptions::default()).is_err());
    assert!(into(&place, "data/real/file", &Tar::new().end(), ExtractOptions::default()).is_err());
}

#[test]
fn kinds_are_kept_when_asked() {
    let keep = ExtractOptions { keep_kinds: true, ..ExtractOptions::default() };
    let place = unpacked(Tar::new().directory("d").file("d/kept", b"").file("f", b""));
    for tar in [Tar::new().file("d", b""), Tar::new().directory("f"), Tar::new().symlink("d", "f")]
    {
        let error = into(&place, "", &tar.clone().end(), keep).unwrap_err();
        assert!(matches!(error, Error::Refused { rule: Rule::KindKept, .. }), "{error}");
    }
    into(&place, "", &Tar::new().directory("d").file("f", b"new").end(), keep).unwrap();
    assert_eq!(place.list(), ["d/", "d/kept \"\"", "f \"new\""]);
    let swap = Tar::new().file("d", b"").directory("f");
    into(&place, "", &swap.end(), ExtractOptions::default()).unwrap();
    assert_eq!(place.list(), ["d \"\"", "f/"]);
}

#[test]
fn names_of_whiteouts_are_names_in_a_plain_archive() {
    let place = unpacked(Tar::new().file("a", b""));
    into(&place, "", &Tar::new().file(".wh.a", b"x").end(), ExtractOptions::default()).unwrap();
    assert_eq!(place.list(), [".wh.a \"x\"", "a \"\""]);
}

/// A container's process that swaps a directory for a link to the host as fast as it can.
fn with_swapper(place: &Place, name: &str, work: impl Fn()) {
    let done = AtomicBool::new(false);
    symlink(place.directory.path(), place.path("swap")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (one, other) = (place.path(name), place.path("swap"));
            let here = rustix::fs::CWD;
            while !done.load(Ordering::Relaxed) {
                let how = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(here, &one, here, &other, how).unwrap();
            }
        });
        // Also when the work panics: else nobody would ever see why.
        let _stop = Stop(&done);
        work();
    });
}

/// Says that it is done when it goes.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn who_swaps_directories_meanwhile_gets_nothing_written_outside() {
    let place = Place::new();
    std::fs::create_dir(place.path("volume")).unwrap();
    let tar = Tar::new()
        .file("volume/canary", b"dead")
        .directory("volume/made")
        .symlink("volume/l", "x")
        .end();
    with_swapper(&place, "volume", || {
        for _ in 0..1000 {
            // Whether it succeeds is the race's to say.
            let _ = into(&place, "", &tar, ExtractOptions::default());
        }
    });
}

#[test]
fn who_swaps_directories_meanwhile_gets_nothing_read_outside() {
    let place = Place::new();
    std::fs::create_dir(place.path("volume")).unwrap();
    std::fs::write(place.path("volume/canary"), "inside").unwrap();
    with_swapper(&place, "volume", || {
        for _ in 0..1000 {
            let tree = place.tree();
            let Ok(archive) = archive_content(tree.as_fd(), Vec::new(), ArchiveOptions::default())
            else {
                continue;
            };
            assert!(!archive.windows(5).any(|bytes| bytes == b"alive"));
        }
    });
}

#[test]
fn what_is_mounted_shows_as_empty() {
    let host = std::fs::File::open("/").unwrap();
    let options = ArchiveOptions { one_mount: true };
    let (proc, name) = (OsStr::new("proc"), OsStr::new("p"));
    let archive = archive(host.as_fd(), proc, name, Vec::new(), options).unwrap();
    let place = Place::new();
    assert_eq!(into(&place, "", &archive, ExtractOptions::default()).unwrap(), 1);
    assert_eq!(place.list(), ["p/"]);
}

#[test]
fn sockets_are_left_out_and_pipes_are_not_opened() {
    let place = unpacked(Tar::new().header(Header::new(b"pipe", b'6')));
    let _socket = std::os::unix::net::UnixListener::bind(place.path("socket")).unwrap();
    let other = Place::new();
    into(&other, "", &content(&place), ExtractOptions::default()).unwrap();
    assert_eq!(other.list(), ["pipe special 0"]);
}

/// A container's changes over an image.
fn changed() -> (Place, Place) {
    let below = unpacked(
        Tar::new()
            .header(Header::new(b"./", b'5').mode(0o755))
            .directory("same/")
            .file("same/a", b"1")
            .directory("touched/")
            .file("touched/a", b"1")
            .file("touched/b", b"1")
            .directory("replaced/")
            .file("replaced/old", b"1")
            .file("replaced/both", b"1")
            .directory("replaced/inner")
            .file("replaced/inner/old", b"1")
            .file("gone", b"1")
            .file("kind", b"1"),
    );
    let upper = Place::new();
    let tar = Tar::new()
        .header(Header::new(b"./", b'5').mode(0o755))
        .directory("same/")
        .file("same/a", b"2")
        .directory("touched/")
        .file("touched/.wh.a", b"")
        .file("touched/new", b"2")
        .directory("replaced/")
        .file("replaced/.wh..wh..opq", b"")
        .file("replaced/both", b"2")
        .directory("replaced/inner")
        .file("replaced/inner/new", b"2")
        .file(".wh.gone", b"")
        .file(".wh.never", b"")
        .directory("kind/")
        .file("kind/x", b"2")
        .link("hard", "kind/x");
    upper.apply(&tar.end(), Below::Pending).unwrap();
    (below, upper)
}

#[test]
fn changes_are_told_as_docker_does() {
    let (below, upper) = changed();
    let listed: Vec<String> = changes(upper.tree().as_fd(), Some(&below.root()))
        .unwrap()
        .into_iter()
        .map(|change| {
            let kind = match change.kind {
                ChangeKind::Added => 'A',
                ChangeKind::Modified => 'C',
                ChangeKind::Deleted => 'D',
            };
            format!("{kind} {}", String::from_utf8(change.path).unwrap())
        })
        .collect();
    assert_eq!(
        listed,
        [
            "D /gone",
            "A /hard",
            "C /kind",
            "A /kind/x",
            "C /replaced",
            "C /replaced/both",
            "C /replaced/inner",
            "A /replaced/inner/new",
            "D /replaced/inner/old",
            "D /replaced/old",
            "C /same/a",
            "C /touched",
            "D /touched/a",
            "A /touched/new",
        ]
    );
    let all = changes(upper.tree().as_fd(), None).unwrap();
    assert!(all.iter().all(|change| change.kind == ChangeKind::Added));
}

#[test]
fn a_diff_applied_again_is_the_same_upper_directory() {
    let (below, upper) = changed();
    let layer = diff(upper.tree().as_fd(), Some(&below.root()), Vec::new()).unwrap();
    assert_eq!(layer, diff(upper.tree().as_fd(), Some(&below.root()), Vec::new()).unwrap());
    let again = Place::new();
    let applied = again.apply(&layer, Below::Pending).unwrap();
    assert_eq!(applied.deferred.dependent(), None);
    assert_eq!(again.list(), upper.list());
    assert_eq!(again.path("hard").metadata().unwrap().nlink(), 2);
    // The root looks like the one below, and has an entry only when it does not.
    let has_root = |layer: &[u8]| layer.starts_with(b"./\0");
    assert!(!has_root(&layer));
    assert!(has_root(&diff(upper.tree().as_fd(), None, Vec::new()).unwrap()));
    std::fs::set_permissions(upper.path(""), std::fs::Permissions::from_mode(0o700)).unwrap();
    assert!(has_root(&diff(upper.tree().as_fd(), Some(&below.root()), Vec::new()).unwrap()));
}

#[test]
fn a_layer_that_can_not_say_what_changed_is_refused() {
    use rustix::fs::XattrFlags;
    let upper = unpacked(Tar::new().directory("d").file("f", b""));
    let refusal = |name: &str, path: &str| {
        rustix::fs::setxattr(upper.path(path), name, b"x", XattrFlags::empty()).unwrap();
        let error = diff(upper.tree().as_fd(), None, Vec::new()).unwrap_err();
        rustix::fs::removexattr(upper.path(path), name).unwrap();
        matches!(error, Error::Refused { rule: Rule::Redirect, .. })
    };
    assert!(refusal("trusted.overlay.redirect", "d"));
    assert!(refusal("trusted.overlay.metacopy", "f"));
    std::fs::write(upper.path(".wh.f"), "").unwrap();
    let error = diff(upper.tree().as_fd(), None, Vec::new()).unwrap_err();
    assert!(matches!(error, Error::Refused { rule: Rule::Whiteout, .. }));
}

#[test]
fn directories_without_end_are_an_error() {
    let place = Place::new();
    let mut here = place.tree();
    for _ in 0..600 {
        rustix::fs::mkdirat(&here, "d", rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        here = rustix::fs::openat(&here, "d", flags, rustix::fs::Mode::empty()).unwrap();
    }
    let error = archive_content(place.tree().as_fd(), Vec::new(), ArchiveOptions::default());
    assert!(matches!(error, Err(Error::Refused { rule: Rule::TooDeep, .. })));
    assert!(changes(place.tree().as_fd(), None).is_err());
}
