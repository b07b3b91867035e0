//! Layers that mean harm: refused with the digest and the entry, nothing outside touched, nothing
//! left, memory bounded, and the next image fine.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use integration::canary::Canary;
use integration::daemon::Daemon;
use integration::device;
use integration::fake_registry::FakeRegistry;
use integration::image::{Compression, Image, Layer, Recipe};
use integration::tar::{Entry, Header, Kind, Tar};
use integration::tree::{Mounted, Tree, What};

/// How much the daemon may grow over what it has at rest, in kilobytes.
const ROOM: u64 = 64 * 1024;

/// What any of them may take on a busy machine.
const TIME: Duration = Duration::from_secs(60);

/// What should become of a layer.
#[derive(Debug)]
enum Fate {
    /// An error that says these.
    Refused(&'static [&'static str]),
    /// It unpacks, and whatever it means stays inside.
    Contained,
    /// Either: what counts is that nothing outside happens.
    Harmless,
}

struct Table {
    daemon: Daemon,
    registry: FakeRegistry,
    canary: Canary,
    memory: u64,
}

impl Table {
    fn new() -> Self {
        let daemon = Daemon::start();
        let registry = FakeRegistry::start(daemon.netns());
        let memory = daemon.peak_memory();
        Self { daemon, registry, canary: Canary::new(), memory }
    }

    fn image(&self, layers: &[Layer]) -> Image {
        layers.iter().cloned().fold(Recipe::new(), Recipe::layer).image()
    }

    #[track_caller]
    fn case(&self, what: &str, layers: &[Layer], fate: &Fate) {
        let image = self.image(layers);
        let name = self.registry.add("hostile", "1", &image);
        let begin = Instant::now();
        let output = self.daemon.ctl(&format!("pull {name}"));
        assert!(begin.elapsed() < TIME, "{what}: {:?}", begin.elapsed());
        self.canary.expect_untouched(what);
        let fine = output.code == Some(0);
        match fate {
            Fate::Refused(said) => {
                assert_eq!(output.code, Some(1), "{what}: {} {}", output.stdout, output.stderr);
                let digests = image.layers().into_iter().map(|layer| layer.digest.clone());
                let named = digests.into_iter().any(|digest| output.stderr.contains(&digest));
                assert!(named, "{what}: no digest in {}", output.stderr);
                for word in *said {
                    assert!(
                        output.stderr.contains(word),
                        "{what}: no {word:?} in {}",
                        output.stderr
                    );
                }
            }
            Fate::Contained => assert!(fine, "{what}: {}", output.stderr),
            Fate::Harmless => {
                assert!(matches!(output.code, Some(0 | 1)), "{what}: {}", output.stderr);
            }
        }
        if fine {
            self.daemon.ctl(&format!("rmi {name}")).ok();
        }
        // What was downloaded may stay for a moment as what nothing reaches.
        self.daemon.ctl("image prune -f").ok();
        self.daemon.expect_nothing_stored(what);
        let peak = self.daemon.peak_memory();
        assert!(peak < self.memory + ROOM, "{what}: {peak} kB after {} kB", self.memory);
    }

    #[track_caller]
    fn entries(&self, what: &str, entries: &[Entry], fate: &Fate) {
        self.case(what, &[Layer::of(entries)], fate);
    }

    /// The next image is fine.
    fn finish(self) {
        let fine = Recipe::busybox().image();
        let name = self.registry.add("fine", "1", &fine);
        assert_eq!(
            self.daemon.ctl(&format!("run --rm --net none {name} echo fine")).text(),
            "fine"
        );
    }
}

/// CVE-2014-6407, CVE-2014-9356, CVE-2014-9358.
#[test]
fn paths_that_lead_out() {
    let table = Table::new();
    let (up, host) = (table.canary.up(), table.canary.path().display().to_string());
    table.entries("..", &[Entry::file("../x", "x")], &Fate::Refused(&["../x"]));
    table.entries("many ..", &[Entry::file(&format!("{up}/x"), "x")], &Fate::Refused(&[".."]));
    table.entries(
        ".. in the middle",
        &[Entry::file(&format!("a/b/../../../{up}/x"), "x")],
        &Fate::Refused(&[".."]),
    );
    table.entries("only ..", &[Entry::directory("..").mode(0o777)], &Fate::Refused(&[".."]));
    table.entries("an absolute path", &[Entry::file(&format!("{host}/x"), "x")], &Fate::Contained);
    table.entries(
        "an absolute directory",
        &[Entry::directory(&format!("{host}/dir")).mode(0o700)],
        &Fate::Contained,
    );
    table.entries("slashes", &[Entry::file(&format!("///{host}/./x"), "x")], &Fate::Contained);
    table.entries("an empty path", &[Entry::file("", "x")], &Fate::Refused(&[]));
    table.entries("a file as the root", &[Entry::file("./", "x")], &Fate::Harmless);
    table.finish();
}

/// CVE-2021-32760, CVE-2025-47290.
#[test]
fn links_that_lead_out() {
    let table = Table::new();
    let (up, host) = (table.canary.up(), table.canary.path().display().to_string());
    for (what, target) in [("an absolute link", host.clone()), ("a relative link", up.clone())] {
        let link = Entry::symlink("link", &target);
        let below = |entry| [link.clone(), entry];
        table.entries(
            &format!("{what}, written through"),
            &below(Entry::file("link/x", "x")),
            &Fate::Harmless,
        );
        table.entries(
            &format!("{what}, over a file"),
            &below(Entry::file("link/file", "evil")),
            &Fate::Harmless,
        );
        table.entries(
            &format!("{what}, a directory made"),
            &below(Entry::directory("link/new")),
            &Fate::Harmless,
        );
        table.entries(
            &format!("{what}, a mode changed"),
            &below(Entry::directory("link/dir").mode(0o777)),
            &Fate::Harmless,
        );
        table.entries(
            &format!("{what}, a whiteout"),
            &below(Entry::file("link/.wh.file", "")),
            &Fate::Harmless,
        );
        table.entries(
            &format!("{what}, made opaque"),
            &below(Entry::file("link/.wh..wh..opq", "")),
            &Fate::Harmless,
        );
        table.entries(
            &format!("{what}, a device"),
            &below(Entry::new("link/null", Kind::Character(1, 3))),
            &Fate::Harmless,
        );
        let file = Entry::symlink("to-file", &format!("{target}/file"));
        table.entries(
            &format!("{what}, replaced"),
            &[file.clone(), Entry::file("to-file", "evil").mode(0o777)],
            &Fate::Contained,
        );
        table.entries(
            &format!("{what}, hard-linked and changed"),
            &[
                file.clone(),
                Entry::hard_link("hard", "to-file"),
                Entry::file("hard", "evil").mode(0o4777),
            ],
            &Fate::Contained,
        );
        table.entries(
            &format!("{what}, attributes"),
            &[file, Entry::symlink("to-file", &target).owner(7, 7).xattr("user.x", b"y")],
            &Fate::Harmless,
        );
    }
    // The link in one layer, what goes through it in the next.
    for target in [host, up] {
        let layers = [
            Layer::of(&[Entry::symlink("link", &target)]),
            Layer::of(&[Entry::file("link/x", "x")]),
        ];
        table.case("a link from a layer below", &layers, &Fate::Harmless);
        let layers = [
            Layer::of(&[Entry::directory("d"), Entry::file("d/file", "")]),
            Layer::of(&[Entry::symlink("d", &target)]),
            Layer::of(&[Entry::file("d/file", "evil"), Entry::file("d/.wh.dir", "")]),
        ];
        table.case("a directory that became a link", &layers, &Fate::Harmless);
    }
    table.finish();
}

/// CVE-2014-6407, CVE-2021-32760.
#[test]
fn hard_links_that_lead_out() {
    let table = Table::new();
    let (up, host) = (table.canary.up(), table.canary.path().display().to_string());
    table.entries(
        "an absolute one",
        &[Entry::hard_link("x", &format!("{host}/file"))],
        &Fate::Refused(&["x"]),
    );
    table.entries(
        "a relative one",
        &[Entry::hard_link("x", &format!("{up}/file"))],
        &Fate::Refused(&[".."]),
    );
    table.entries("to nothing", &[Entry::hard_link("x", "no-such")], &Fate::Refused(&["x"]));
    table.entries("to itself", &[Entry::hard_link("x", "x")], &Fate::Refused(&["x"]));
    table.entries(
        "to a directory",
        &[Entry::directory("d"), Entry::hard_link("x", "d")],
        &Fate::Refused(&["x"]),
    );
    table.entries(
        "through a link",
        &[
            Entry::symlink("out", &host),
            Entry::hard_link("x", "out/file"),
            Entry::file("x", "evil"),
        ],
        &Fate::Refused(&["x"]),
    );
    table.entries(
        "through a link, with a mode",
        &[Entry::symlink("out", &format!("{host}/file")), Entry::hard_link("x", "out").mode(0o777)],
        &Fate::Contained,
    );
    table.finish();
}

#[test]
fn whiteouts_with_strange_names() {
    let table = Table::new();
    for name in [
        ".wh..",
        ".wh...",
        ".wh..wh..",
        ".wh..wh..opq/x",
        "d/.wh.",
        ".wh.",
        ".wh..wh.plnk",
        ".wh..wh.aufs",
        "d/.wh...",
    ] {
        table.entries(name, &[Entry::directory("d"), Entry::file(name, "")], &Fate::Harmless);
    }
    table.entries(
        "opaque and a whiteout of the same",
        &[
            Entry::directory("d"),
            Entry::file("d/.wh..wh..opq", ""),
            Entry::file(".wh.d", ""),
            Entry::file("d/x", ""),
        ],
        &Fate::Harmless,
    );
    table.finish();
}

/// The root's own whiteout marks belong to overlayfs: a layer can't bring its own.
#[test]
fn marks_of_the_overlay_do_not_come_from_outside() {
    let table = Table::new();
    for name in [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "user.overlay.opaque",
        "trusted.overlay.origin",
    ] {
        let upper = [
            Entry::directory("secret-dir").xattr(name, b"y"),
            Entry::file("f", "").xattr(name, b"/../../../../etc/shadow"),
        ];
        let layers = [
            Layer::of(&[Entry::directory("secret-dir"), Entry::file("secret-dir/below", "x")]),
            Layer::of(&upper),
        ];
        table.case(name, &layers, &Fate::Harmless);
    }
    let image = table.image(&[
        Layer::of(&[Entry::directory("d"), Entry::file("d/below", "x"), Entry::file("gone", "x")]),
        Layer::of(&[
            Entry::directory("d").xattr("trusted.overlay.opaque", b"y"),
            Entry::new("gone", Kind::Character(0, 0)),
        ]),
    ]);
    let name = table.registry.add("marks", "1", &image);
    let output = table.daemon.ctl(&format!("pull {name}"));
    if output.code == Some(0) {
        let mounted = Mounted::view(
            &table.daemon,
            &table.daemon.api().image(&name).content.unwrap().snapshot,
        );
        assert!(Tree::walk(mounted.path()).has("d/below"), "a layer made a directory opaque");
    }
    table.finish();
}

#[test]
fn kinds_that_change_within_a_layer() {
    let table = Table::new();
    let entries = [
        Entry::directory("a"),
        Entry::file("a/x", "x"),
        Entry::symlink("a", table.canary.path().to_str().unwrap()),
        Entry::file("a/file", "evil"),
    ];
    table.entries("a directory becomes a link", &entries, &Fate::Harmless);
    let mut entries = Vec::new();
    for _ in 0..50 {
        entries.extend([
            Entry::directory("a"),
            Entry::file("a", "f"),
            Entry::symlink("a", "/tmp"),
            Entry::new("a", Kind::Fifo),
        ]);
    }
    table.entries("over and over", &entries, &Fate::Harmless);
    table.entries(
        "a pipe that is written",
        &[Entry::new("p", Kind::Fifo), Entry::file("p", "x")],
        &Fate::Contained,
    );
    table.entries(
        "a device that is written",
        &[Entry::new("n", Kind::Character(1, 3)), Entry::file("n", "x")],
        &Fate::Contained,
    );
    table.entries(
        "the root's own attributes",
        &[Entry::directory(".").mode(0).owner(7, 7)],
        &Fate::Contained,
    );
    table.finish();
}

/// CVE-2021-21285, CVE-2021-20291.
#[test]
fn layers_that_are_no_tars() {
    let table = Table::new();
    let raw = |bytes: &[u8]| Layer::raw(bytes.to_vec(), Compression::Gzip);
    table.case(
        "text",
        &[raw(b"this is no tar at all".repeat(100).as_slice())],
        &Fate::Refused(&[]),
    );
    table.case("noise", &[raw(&integration::image::noise(1, 100_000))], &Fate::Refused(&[]));
    table.case(
        "half a header",
        &[raw(&integration::tar::tar(&[Entry::file("a", "b")])[..300])],
        &Fate::Refused(&[]),
    );
    let whole = integration::tar::tar(&[Entry::file("a", vec![1; 5000])]);
    table.case("cut in the data", &[raw(&whole[..2000])], &Fate::Refused(&["a"]));
    let mut unsummed = Tar::new();
    unsummed.raw(&Header::new("a", b'0', 0).spoiled(), &[]);
    table.case("a wrong checksum", &[raw(&unsummed.finish())], &Fate::Refused(&[]));
    let packed = Compression::Gzip.apply(&whole);
    let cut = packed[..packed.len() - 9].to_vec();
    table.case(
        "gzip that is cut",
        &[Layer::packed(cut, Compression::Gzip, whole.clone())],
        &Fate::Refused(&[]),
    );
    let mut spoiled = packed;
    let crc = spoiled.len() - 6;
    spoiled[crc] ^= 1;
    table.case(
        "gzip with a wrong sum",
        &[Layer::packed(spoiled, Compression::Gzip, whole.clone())],
        &Fate::Refused(&[]),
    );
    let frame = Compression::Zstd.apply(&whole);
    let cut = frame[..frame.len() - 5].to_vec();
    table.case(
        "zstd that is cut",
        &[Layer::packed(cut, Compression::Zstd, whole.clone())],
        &Fate::Refused(&[]),
    );
    let other =
        Layer::packed(Compression::Gzip.apply(&whole), Compression::Gzip, b"another".to_vec());
    table.case("another diff id", &[other], &Fate::Refused(&["unpacks to"]));
    table.case(
        "a tar in place of gzip",
        &[Layer::packed(whole.clone(), Compression::Gzip, whole)],
        &Fate::Harmless,
    );
    table.finish();
}

#[test]
fn headers_with_absurd_numbers() {
    let table = Table::new();
    let one = |header: Header, data: &[u8]| {
        let mut tar = Tar::new();
        tar.raw(&header, data);
        [Layer::raw(tar.finish(), Compression::Gzip)]
    };
    let file = || Header::new("number", b'0', 0);
    table.case("eight exabytes", &one(file().size(u64::MAX >> 1), b""), &Fate::Refused(&[]));
    table.case(
        "a negative size",
        &one(file().bytes(124, &[0xff; 12]), b""),
        &Fate::Refused(&["number"]),
    );
    table.case(
        "a size of letters",
        &one(file().text(124, 12, b"zzzzzzzzzzz"), b""),
        &Fate::Refused(&[]),
    );
    table.case(
        "a negative owner",
        &one(file().bytes(108, &[0xff; 8]), b""),
        &Fate::Refused(&["number"]),
    );
    table.case(
        "an owner beyond 32 bits",
        &one(file().owner(1 << 33, 0), b""),
        &Fate::Refused(&["number"]),
    );
    table.case(
        "the owner of nobody",
        &one(file().owner(u64::from(u32::MAX), 0), b""),
        &Fate::Harmless,
    );
    table.case("a time before 1970", &one(file().bytes(136, &[0xff; 12]), b""), &Fate::Harmless);
    table.case("a time without end", &one(file().mtime(u64::MAX >> 1), b""), &Fate::Harmless);
    table.case(
        "a huge device",
        &one(Header::new("dev", b'3', 0).device(u32::MAX, u32::MAX), b""),
        &Fate::Harmless,
    );
    table.case("an unknown type", &one(Header::new("type", b'Z', 0), b""), &Fate::Harmless);
    table.case(
        "a directory with data",
        &one(Header::new("d", b'5', 600), &[0; 600]),
        &Fate::Harmless,
    );
    table.case(
        "a link with data",
        &one(Header::new("l", b'2', 600).link("x"), &[0; 600]),
        &Fate::Harmless,
    );
    table.finish();
}

#[test]
fn extended_headers_without_measure() {
    let table = Table::new();
    let pax = |records: &[(&str, &[u8])], after: Entry| {
        let mut tar = Tar::new();
        let own: Vec<_> =
            records.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect();
        tar.pax(&own);
        tar.push(&after);
        [Layer::raw(tar.finish(), Compression::Gzip)]
    };
    let raw = |flag: u8, data: &[u8]| {
        let mut tar = Tar::new();
        tar.raw(&Header::new("extended", flag, data.len() as u64), data);
        tar.push(&Entry::file("after", "x"));
        [Layer::raw(tar.finish(), Compression::Gzip)]
    };
    let file = || Entry::file("file", "x");
    table.case(
        "a path of 64 KiB",
        &pax(&[("path", &b"p/".repeat(32_768))], file()),
        &Fate::Refused(&[]),
    );
    table.case("a name of 300", &pax(&[("path", &[b'n'; 300])], file()), &Fate::Refused(&[]));
    table.case("a path with a zero", &pax(&[("path", b"a\0b")], file()), &Fate::Harmless);
    table.case("an empty path", &pax(&[("path", b"")], file()), &Fate::Harmless);
    table.case("a path out", &pax(&[("path", b"../../x")], file()), &Fate::Refused(&[]));
    table.case("a negative size", &pax(&[("size", b"-1")], file()), &Fate::Refused(&[]));
    table.case(
        "a huge size",
        &pax(&[("size", b"99999999999999999999999")], file()),
        &Fate::Refused(&[]),
    );
    table.case("a strange owner", &pax(&[("uid", b"-5")], file()), &Fate::Refused(&[]));
    table.case("no number", &pax(&[("mtime", b"yesterday")], file()), &Fate::Harmless);
    table.case(
        "an unknown attribute",
        &pax(&[("SCHILY.xattr.nonsense", b"x")], file()),
        &Fate::Harmless,
    );
    table.case(
        "an attribute of 1 MiB",
        &pax(&[("SCHILY.xattr.user.big", &vec![b'x'; 1 << 20])], file()),
        &Fate::Refused(&[]),
    );
    table.case(
        "an attribute without a name",
        &pax(&[("SCHILY.xattr.", b"x")], file()),
        &Fate::Harmless,
    );
    table.case(
        "capabilities of version 9",
        &pax(&[("SCHILY.xattr.security.capability", &[0, 0, 0, 9, 1])], file()),
        &Fate::Harmless,
    );
    table.case("not a record", &raw(b'x', b"nonsense"), &Fate::Refused(&[]));
    table.case("a length of zero", &raw(b'x', b"0 path=x\n"), &Fate::Refused(&[]));
    table.case("a length beyond", &raw(b'x', b"99999 path=x\n"), &Fate::Refused(&[]));
    table.case("a record of 100 MB", &raw(b'x', &vec![b'x'; 100 << 20]), &Fate::Refused(&[]));
    table.case("a GNU name of 100 MB", &raw(b'L', &vec![b'x'; 100 << 20]), &Fate::Refused(&[]));
    table.case("global records of 100 MB", &raw(b'g', &vec![b'x'; 100 << 20]), &Fate::Refused(&[]));
    let mut chain = Tar::new();
    for _ in 0..20_000 {
        chain.pax(&[("path".to_owned(), b"again".to_vec())]);
    }
    chain.push(&file());
    table.case(
        "headers for headers",
        &[Layer::raw(chain.finish(), Compression::Gzip)],
        &Fate::Harmless,
    );
    let mut alone = Tar::new();
    alone.pax(&[("path".to_owned(), b"nothing follows".to_vec())]);
    table.case(
        "a header for nothing",
        &[Layer::raw(alone.finish(), Compression::Gzip)],
        &Fate::Harmless,
    );
    table.finish();
}

/// CVE-2025-58183.
#[test]
fn sparse_files_that_lie() {
    let table = Table::new();
    let old = |real: u64, pieces: &[(u64, u64)], data: usize| {
        let mut header = Header::new("sparse", b'S', data as u64).gnu().number(483, 12, real);
        for (at, (offset, size)) in pieces.iter().enumerate() {
            header = header.number(386 + at * 24, 12, *offset).number(398 + at * 24, 12, *size);
        }
        let mut tar = Tar::new();
        tar.raw(&header, &vec![b'x'; data]);
        [Layer::raw(tar.finish(), Compression::Gzip)]
    };
    table.case(
        "eight exabytes of holes",
        &old(u64::MAX >> 1, &[(0, 512)], 512),
        &Fate::Refused(&[]),
    );
    table.case(
        "pieces that overlap",
        &old(4096, &[(0, 512), (100, 512)], 1024),
        &Fate::Refused(&["sparse"]),
    );
    table.case(
        "a piece beyond the end",
        &old(1000, &[(0, 512), (4096, 512)], 1024),
        &Fate::Refused(&["sparse"]),
    );
    table.case(
        "pieces that are too much",
        &old(1 << 20, &[(0, 1 << 19)], 512),
        &Fate::Refused(&["sparse"]),
    );
    table.case(
        "offsets that wrap",
        &old(4096, &[((u64::MAX >> 1) - 5, 512)], 512),
        &Fate::Refused(&["sparse"]),
    );
    // The map of PAX 1.0 stands before the data, and says itself how long it is.
    let map = format!("{}\n", 1_000_000_000);
    let mut tar = Tar::new();
    tar.pax(&[
        ("GNU.sparse.major".to_owned(), b"1".to_vec()),
        ("GNU.sparse.minor".to_owned(), b"0".to_vec()),
        ("GNU.sparse.name".to_owned(), b"sparse".to_vec()),
        ("GNU.sparse.realsize".to_owned(), b"1000000".to_vec()),
    ]);
    tar.raw(&Header::new("GNUSparseFile.0/sparse", b'0', 1024), map.as_bytes());
    table.case(
        "a map of a billion",
        &[Layer::raw(tar.finish(), Compression::Gzip)],
        &Fate::Refused(&[]),
    );
    let mut tar = Tar::new();
    tar.pax(&[("GNU.sparse.map".to_owned(), b"0,1,".repeat(1 << 18))]);
    tar.push(&Entry::file("sparse", "x"));
    table.case(
        "a map of a megabyte",
        &[Layer::raw(tar.finish(), Compression::Gzip)],
        &Fate::Refused(&[]),
    );
    table.finish();
}

/// Small things that unpack to large ones: the compressed size is the only thing that is small.
/// CVE-2017-14992.
#[test]
fn bombs_fill_neither_memory_nor_the_disk() {
    let table = Table::new();
    let zeros = |megabytes: usize| {
        let mut tar = Tar::new();
        tar.raw(&Header::new("zeros", b'0', (megabytes << 20) as u64), &vec![0; megabytes << 20]);
        tar.finish()
    };
    // 256 MB in 256 kB are a file like any other, as far as memory goes.
    let bomb = zeros(256);
    table.case("gzip of zeros", &[Layer::raw(bomb.clone(), Compression::Gzip)], &Fate::Harmless);
    table.case("zstd of zeros", &[Layer::raw(bomb, Compression::Zstd)], &Fate::Harmless);
    let after = vec![0; 512 << 20];
    let mut trailing = integration::tar::tar(&[Entry::file("a", "b")]);
    trailing.extend(after);
    table.case(
        "half a gigabyte behind the end",
        &[Layer::raw(trailing, Compression::Gzip)],
        &Fate::Harmless,
    );
    table.finish();
}

#[test]
fn very_many_entries() {
    let table = Table::new();
    let mut tar = Tar::new();
    // As many as a slow disk makes in a few seconds: what counts is that memory does not grow with them.
    for number in 0..30_000 {
        tar.raw(&Header::new(&format!("d{}/{number}", number % 100), b'0', 0), &[]);
    }
    table.case(
        "tens of thousands of files",
        &[Layer::raw(tar.finish(), Compression::Gzip)],
        &Fate::Harmless,
    );
    let mut tar = Tar::new();
    for _ in 0..20_000 {
        tar.raw(&Header::new("same", b'0', 0), &[]);
    }
    table.case(
        "many times the same",
        &[Layer::raw(tar.finish(), Compression::Gzip)],
        &Fate::Harmless,
    );
    table.finish();
}

#[test]
fn very_deep_trees() {
    let table = Table::new();
    for depth in [1000, 10_000] {
        let path = "d/".repeat(depth) + "file";
        table.entries(&format!("a path of {depth}"), &[Entry::file(&path, "x")], &Fate::Harmless);
    }
    // Made step by step through links that each stand for a long way.
    let mut entries = vec![Entry::directory("l0")];
    for number in 1..60 {
        let below = format!("l{}/{}", number - 1, "d/".repeat(40));
        entries.push(Entry::directory(&below));
        entries.push(Entry::symlink(&format!("l{number}"), below.trim_end_matches('/')));
    }
    table.entries("links of links", &entries, &Fate::Harmless);
    let ring = [Entry::symlink("a", "b"), Entry::symlink("b", "a"), Entry::file("a/x", "x")];
    table.entries("links in a ring", &ring, &Fate::Harmless);
    table.finish();
}

/// What a layer may have: it is there in the container, and nowhere else.
/// CVE-2021-41089, CVE-2021-41091, CVE-2021-41103.
#[test]
fn devices_and_setuid_are_only_for_the_container() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let entries = [
        Entry::new("disk", Kind::Block(254, 0)).mode(0o666),
        Entry::new("node", Kind::Character(device::MISC, device::harmless())).mode(0o666),
        Entry::file("root-shell", "x").mode(0o6755),
    ];
    let name = registry.add("devices", "1", &Recipe::busybox().files(&entries).image());
    daemon.ctl(&format!("pull {name}")).ok();
    let mounted = Mounted::view(&daemon, &daemon.api().image(&name).content.unwrap().snapshot);
    let tree = Tree::walk(mounted.path());
    assert_eq!(tree.node("disk").what, What::Block(254, 0));
    assert_eq!(tree.node("root-shell").mode, 0o6755);
    drop(mounted);
    let run = |flags: &str| {
        daemon.ctl(&format!("run --rm {flags} --net none {name} sh -c 'exec < /node'"))
    };
    // The device cgroup says no, and nobody else.
    run("").fails(1, &["/node", "not permitted"]);
    run("--privileged").ok();
    // Nobody but root gets as far as to see them.
    for directory in ["snapshots", "content"] {
        let mode = daemon.place().root.join(directory).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{directory}");
    }
    assert_eq!(daemon.place().root.metadata().unwrap().permissions().mode() & 0o077, 0);
}

/// Decompressors are ours: none from the image, none from the machine.
/// CVE-2014-9357, CVE-2019-14271, CVE-2022-1227, CVE-2026-41567.
#[test]
fn no_program_of_an_image_runs_on_the_host() {
    let daemon = Daemon::start();
    let registry = FakeRegistry::start(daemon.netns());
    let mark = daemon.scratch().join("mark");
    let script = format!("#!/bin/sh\ntouch {}\n", mark.display());
    let programs: Vec<Entry> = ["xz", "unpigz", "gzip", "zstd", "tar", "ps", "mount", "getent"]
        .map(|name| Entry::file(&format!("usr/bin/{name}"), script.clone()).mode(0o755))
        .to_vec();
    let name = registry.add("programs", "1", &Recipe::busybox().files(&programs).image());
    daemon.ctl(&format!("run -d --name one --net none {name} sleep 600")).ok();
    daemon.ctl(&format!("cp {}/daemon.log one:/tmp/log", daemon.scratch().display())).ok();
    daemon.ctl(&format!("export -o {}/one.tar one", daemon.scratch().display())).ok();
    daemon.ctl("commit one test/committed:1").ok();
    let _ = daemon.ctl("diff one");
    let _ = daemon.ctl("top one");
    assert!(!mark.exists());
}
