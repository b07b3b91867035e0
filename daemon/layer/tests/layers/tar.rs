//! Archives of every format, and of none.

use std::io::Cursor;

use bosun_layer::tar::{Chunk, Entry, Kind, Reader, Time, Writer, Xattr};
use bosun_layer::{Error, Problem};

use crate::support::{Header, Tar};

const MANY: u64 = 1 << 40;

fn all(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, Error> {
    // Odd buffers, so that every block lies across the end of one.
    let mut reader = Reader::new(std::io::BufReader::with_capacity(7, archive), MANY);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next()? {
        let mut data = Vec::new();
        while let Some(chunk) = reader.chunk()? {
            match chunk {
                Chunk::Data(bytes) => data.extend_from_slice(bytes),
                Chunk::Hole(length) => {
                    data.resize(data.len() + usize::try_from(length).unwrap(), 0);
                }
            }
        }
        entries.push((entry, data));
    }
    Ok(entries)
}

fn one(tar: Tar) -> (Entry, Vec<u8>) {
    let mut entries = all(&tar.end()).unwrap();
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

fn problem(tar: Tar) -> Problem {
    match all(&tar.end()) {
        Err(Error::Malformed { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn old_and_posix_names() {
    let v7 = Header::new(b"old/", 0).put(257, &[0; 8]);
    assert_eq!(one(Tar::new().header(v7.clone())).0.kind, Kind::Directory);
    let with_data = Tar::new().data(v7.size(5), b"abcde").file("next", b"x").end();
    let entries = all(&with_data).unwrap();
    assert_eq!((entries[0].1.len(), &entries[1].1[..]), (0, &b"x"[..]));
    let prefix = Header::new(b"name", b'0').put(345, b"some/prefix");
    assert_eq!(one(Tar::new().header(prefix.clone())).0.path, b"some/prefix/name");
    // GNU has other things there.
    assert_eq!(one(Tar::new().header(prefix.gnu())).0.path, b"name");
    let full = [b'x'; 100];
    assert_eq!(one(Tar::new().header(Header::new(&full, b'0'))).0.path, full);
}

#[test]
fn long_names_by_gnu_and_by_pax() {
    let long = vec![b'n'; 4095];
    let gnu = Tar::new().long(b'L', &long).long(b'K', &long).symlink("short", "short");
    let pax = Tar::new().pax(&[("path", &long), ("linkpath", &long)]).symlink("short", "short");
    for tar in [gnu, pax] {
        let entry = one(tar).0;
        assert_eq!(entry.path, long);
        assert_eq!(entry.kind, Kind::Symlink { target: long.clone() });
    }
}

#[test]
fn names_without_bound_are_errors() {
    let huge = vec![b'n'; 64 << 10];
    assert_eq!(problem(Tar::new().long(b'L', &huge).file("x", b"")), Problem::LongName);
    assert_eq!(problem(Tar::new().pax(&[("path", &huge)]).file("x", b"")), Problem::LongName);
    let error = all(&Tar::new().long(b'L', &huge).file("x", b"").end()).unwrap_err();
    assert!(error.to_string().contains("nnnn") && error.to_string().len() < 500, "{error}");
    // Sizes that are only said, not there.
    for flag in [b'L', b'K', b'x', b'g'] {
        let header =
            Header::new(b"x", flag).put(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
        let error = all(&Tar::new().header(header).end()).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. } | Error::Truncated { .. }), "{error}");
    }
    let endless = [("comment", &vec![b'c'; 700 << 10][..])];
    let tar = Tar::new().pax(&endless).pax(&endless).file("x", b"");
    assert_eq!(problem(tar), Problem::LargeExtended);
    let names: Vec<String> = (0..1001).map(|index| format!("SCHILY.xattr.user.{index}")).collect();
    let records: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, &b"v"[..])).collect();
    assert_eq!(problem(Tar::new().pax(&records).file("x", b"")), Problem::ManyXattrs);
}

#[test]
fn what_pax_says_counts_for_the_next_entry_and_global_for_all() {
    let global = Tar::new().pax(&[("uid", b"70000"), ("mtime", b"5.25")]).end();
    let mut global = global[..global.len() - 1024].to_vec();
    global[156] = b'g';
    let block: [u8; 512] = global[..512].try_into().unwrap();
    global[..512].copy_from_slice(&Header(block).sum());
    let tar = Tar::new()
        .raw(&global)
        .pax(&[("gid", b"9"), ("SCHILY.xattr.user.a", b"1"), ("size", b"3")])
        .data(Header::new(b"a", b'0').size(0), b"abc")
        .file("b", b"");
    let entries = all(&tar.end()).unwrap();
    let ids: Vec<_> = entries.iter().map(|(entry, _)| (entry.uid, entry.gid)).collect();
    assert_eq!(ids, [(70_000, 9), (70_000, 0)]);
    assert_eq!(entries[0].1, b"abc");
    assert_eq!(entries[1].0.mtime, Time { seconds: 5, nanoseconds: 250_000_000 });
    assert_eq!((entries[0].0.xattrs.len(), entries[1].0.xattrs.len()), (1, 0));
}

#[test]
fn numbers_in_base_256() {
    let header = Header::new(b"x", b'0')
        .put(108, b"\x80\0\0\0\0\x01\x86\xa0")
        .put(136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe");
    let entry = one(Tar::new().header(header)).0;
    assert_eq!((entry.uid, entry.mtime.seconds), (100_000, -2));
    let negative = Header::new(b"x", b'0').put(124, &[0xff; 12]);
    assert_eq!(problem(Tar::new().header(negative)), Problem::Range);
    for (major, minor) in [(4096, 0), (0, 1 << 20), (0o7_777_777, 0o7_777_777)] {
        let device = Header::new(b"x", b'3').device(major, minor);
        assert_eq!(problem(Tar::new().header(device)), Problem::Range);
    }
    let owner = Header::new(b"x", b'0').put(108, &[0xff; 8]);
    assert_eq!(problem(Tar::new().header(owner)), Problem::Range);
}

/// A file of 20 bytes with "ab" at 3 and "cde" at 10, in each of the formats.
fn sparse() -> Vec<(&'static str, Tar)> {
    let data = b"abcde";
    let old = Header::new(b"f", b'S')
        .gnu()
        .size(5)
        .number(386, 11, 3)
        .number(398, 11, 2)
        .number(410, 11, 10)
        .number(422, 11, 3)
        .number(483, 11, 20);
    let mut extension = [0; 512];
    extension[..24].copy_from_slice(b"00000000012\x0000000000003\0");
    let extended = Header::new(b"f", b'S')
        .gnu()
        .size(5)
        .number(386, 11, 3)
        .number(398, 11, 2)
        .put(482, &[1])
        .number(483, 11, 20);
    let map = b"2\n3\n2\n10\n3\n";
    let in_data = [&map[..], &[0; 501], data].concat();
    let one_zero = Header::new(b"GNUSparseFile.0/f", b'0').size(in_data.len() as u64);
    vec![
        ("old", Tar::new().data(old, data)),
        ("old, extended", Tar::new().header(extended).raw(&extension).raw(data).raw(&[0; 507])),
        (
            "0.0",
            Tar::new()
                .pax(&[
                    ("GNU.sparse.size", b"20"),
                    ("GNU.sparse.numblocks", b"2"),
                    ("GNU.sparse.offset", b"3"),
                    ("GNU.sparse.numbytes", b"2"),
                    ("GNU.sparse.offset", b"10"),
                    ("GNU.sparse.numbytes", b"3"),
                ])
                .file("f", data),
        ),
        (
            "0.1",
            Tar::new()
                .pax(&[
                    ("GNU.sparse.size", b"20"),
                    ("GNU.sparse.map", b"3,2,10,3"),
                    ("GNU.sparse.name", b"f"),
                ])
                .file("GNUSparseFile.0/f", data),
        ),
        (
            "1.0",
            Tar::new()
                .pax(&[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.name", b"f"),
                    ("GNU.sparse.realsize", b"20"),
                ])
                .data(one_zero, &in_data),
        ),
    ]
}

#[test]
fn holes_in_all_four_formats() {
    for (format, tar) in sparse() {
        let entries = all(&tar.file("next", b"x").end()).unwrap();
        assert_eq!(entries[0].0.path, b"f", "{format}");
        assert_eq!(entries[0].0.kind, Kind::File { size: 20 }, "{format}");
        assert_eq!(entries[0].1, b"\0\0\0ab\0\0\0\0\0cde\0\0\0\0\0\0\0", "{format}");
        assert_eq!(entries[1].1, b"x", "{format}");
    }
}

#[test]
fn maps_that_lie_are_errors() {
    let by_pax = |size: &[u8], map: &[u8]| {
        problem(
            Tar::new()
                .pax(&[("GNU.sparse.size", size), ("GNU.sparse.map", map)])
                .file("f", b"abcde"),
        )
    };
    for (size, map) in [
        (&b"20"[..], &b"10,3,3,2"[..]),
        (b"20", b"3,2,4,3"),
        (b"12", b"3,2,10,3"),
        (b"20", b"3,2,10,4"),
        (b"20", b"18446744073709551615,5"),
        (b"20", b"3"),
    ] {
        assert_eq!(by_pax(size, map), Problem::Sparse);
    }
    let bomb = |map: &[u8]| {
        let records: [(&str, &[u8]); 3] =
            [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")];
        problem(Tar::new().pax(&records).file("f", map))
    };
    assert_eq!(bomb(b"1000000000\n"), Problem::LargeSparse);
    assert_eq!(bomb(b"99999999999999999999999999\n"), Problem::Sparse);
    assert_eq!(bomb(b"2\n0\n1\n"), Problem::Sparse);
    assert_eq!(bomb(b"x\n"), Problem::Number);
    assert_eq!(bomb(b""), Problem::Sparse);
}

#[test]
fn checksums_signed_and_unsigned() {
    let block = Header::new(b"\xff\xfe", b'0').sum();
    let mut signed = block;
    signed[148..156].fill(b' ');
    let sum: i32 = signed.iter().map(|byte| i32::from(byte.cast_signed())).sum();
    signed[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(all(&Tar::new().raw(&signed).end()).unwrap().len(), 1);
    let mut wrong = block;
    wrong[148] ^= 1;
    assert!(matches!(all(&wrong), Err(Error::NotTar)));
    let behind = Tar::new().file("a", b"").raw(&wrong);
    assert_eq!(problem(behind), Problem::Checksum);
}

#[test]
fn ends_and_where_an_archive_is_cut_off() {
    let tar = Tar::new().file("a", &[7; 600]);
    let whole = tar.clone().end();
    assert_eq!(all(&[&whole[..], b"garbage"].concat()).unwrap().len(), 1);
    // Between entries, and in what fills the last block, nothing is missing.
    assert_eq!(all(&tar.0).unwrap().len(), 1);
    assert_eq!(all(&tar.0[..512 + 600]).unwrap().len(), 1);
    assert_eq!(all(&whole[..whole.len() - 512]).unwrap().len(), 1);
    for end in [513, 512 + 599] {
        assert!(matches!(all(&whole[..end]), Err(Error::Truncated { .. })), "{end}");
    }
    assert!(matches!(all(&whole[..100]), Err(Error::NotTar)));
    assert!(matches!(all(&Tar::new().long(b'L', b"name").0), Err(Error::Truncated { .. })));
    let alone = tar.raw(&[0; 512]).file("b", b"");
    assert_eq!(problem(alone), Problem::LoneZeros);
}

#[test]
fn kinds_that_nobody_knows_are_refused() {
    for flag in [b'D', b'M', b'N', b'A', b'9', 0xff] {
        assert!(matches!(
            all(&Tar::new().header(Header::new(b"x", flag)).end()),
            Err(Error::Refused { .. })
        ));
    }
    let label = Header::new(b"label", b'V').gnu();
    assert_eq!(all(&Tar::new().header(label).file("a", b"").end()).unwrap().len(), 1);
}

#[test]
fn what_is_written_is_read_again() {
    let entry = |path: &[u8], kind: Kind| Entry {
        path: path.to_vec(),
        kind,
        mode: 0o4751,
        uid: 3_000_000,
        gid: 12,
        mtime: Time { seconds: -5, nanoseconds: 7 },
        xattrs: vec![
            Xattr { name: b"user.=%".to_vec(), value: b"\0\xff".to_vec() },
            Xattr { name: b"user.a".to_vec(), value: b"=\n".to_vec() },
        ],
    };
    let long = [b"d/".repeat(100), b"\xff\xe4".to_vec()].concat();
    let entries = [
        entry(&long, Kind::File { size: 700 }),
        entry(b"d/", Kind::Directory),
        entry(b"s", Kind::Symlink { target: long.clone() }),
        entry(b"h", Kind::HardLink { target: long.clone() }),
        entry(b"c", Kind::Character { major: 4095, minor: 0xf_ffff }),
        entry(b"b", Kind::Block { major: 8, minor: 1 }),
        entry(b"f", Kind::Fifo),
        entry(b"empty", Kind::File { size: 0 }),
    ];
    let write = || {
        let mut writer = Writer::new(Vec::new());
        for entry in &entries {
            writer.append(entry, Cursor::new([9; 700])).unwrap();
        }
        writer.finish().unwrap()
    };
    let archive = write();
    assert_eq!(archive, write());
    let read = all(&archive).unwrap();
    assert_eq!(read.iter().map(|(entry, _)| entry.clone()).collect::<Vec<_>>(), entries);
    assert_eq!(read[0].1, [9; 700]);
}

#[test]
fn a_file_that_changes_while_it_is_written_keeps_its_size() {
    let entry = |size| Entry {
        path: b"f".to_vec(),
        kind: Kind::File { size },
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: Vec::new(),
    };
    let mut writer = Writer::new(Vec::new());
    writer.append(&entry(1000), &[1; 400][..]).unwrap();
    writer.append(&entry(100), &[1; 400][..]).unwrap();
    let read = all(&writer.finish().unwrap()).unwrap();
    assert_eq!(read[0].1, [&[1; 400][..], &[0; 600]].concat());
    assert_eq!(read[1].1, [1; 100]);
}

/// GNU tar is on every machine that builds this.
#[test]
fn gnu_tar_reads_what_is_written() {
    let mut writer = Writer::new(Vec::new());
    let long = b"long/".repeat(40);
    for (path, kind) in [
        (&b"a"[..], Kind::File { size: 3 }),
        (&long, Kind::Directory),
        (b"l", Kind::Symlink { target: b"a".to_vec() }),
    ] {
        let path = path.to_vec();
        let mtime = Time { seconds: 1, nanoseconds: 5 };
        let entry = Entry { path, kind, mode: 0o755, uid: 1, gid: 2, mtime, xattrs: Vec::new() };
        writer.append(&entry, &b"abc"[..]).unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.tar");
    std::fs::write(&path, writer.finish().unwrap()).unwrap();
    let output = std::process::Command::new("tar")
        .args(["--utc", "--full-time", "-tvf"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("-rwxr-xr-x 1/2") && text.contains("1970-01-01 00:00:01.000000005 a"),
        "{text}"
    );
    assert!(text.contains(&String::from_utf8(long).unwrap()) && text.contains("l -> a"), "{text}");
}
