//! A tar of a container's into a directory of this machine.
//!
//! The container's processes may be hostile, and with them every name, link and mode in the tar. It
//! is unpacked below a directory that no name and no link in it leads out of, and what only the host
//! can hand out does not come with it: owners, devices, setuid and setgid bits, file capabilities.
//! With `owners` the user has asked for all of that.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read};
use std::path::Path;

use bosun_layer::{ExtractOptions, Limits, Root, extract};

use super::CopyError;
use super::rebase::{Failure, Names, Rebased, rebase};

/// Smaller reads and writes are gathered: a header is 512 bytes.
const BUFFER: usize = 256 << 10;

/// What to do with the tar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unpack<'a> {
    /// One that exists.
    pub(crate) directory: &'a Path,
    /// What every name in the tar begins with; empty when they begin at a root.
    pub(crate) had: &'a str,
    /// What is to stand there; nothing for a directory's content.
    pub(crate) name: Option<&'a str>,
    /// Everything as the tar says.
    pub(crate) owners: bool,
}

/// Unpacks all of it, and says how many devices were left out.
pub(crate) fn unpack(from: impl Read + Send, what: &Unpack<'_>) -> Result<u64, CopyError> {
    let unreadable = |source| CopyError::Read { path: what.directory.to_owned(), source };
    let failed = |source| CopyError::Unpack { path: what.directory.to_owned(), source };
    let root = Root::new(File::open(what.directory).map_err(unreadable)?.into());
    let names = Names { had: what.had, wanted: what.name, trusted: what.owners };
    let options = ExtractOptions { keep_kinds: true, owners: what.owners };
    let (reader, writer) = io::pipe().map_err(unreadable)?;
    let (rebased, extracted) = std::thread::scope(|scope| {
        let rebasing = scope.spawn(move || {
            let mut from = BufReader::with_capacity(BUFFER, from);
            let to = BufWriter::with_capacity(BUFFER, writer);
            let rebased = rebase(&mut from, names, to)?;
            // What stands behind the end tells whether the stream came to its own.
            io::copy(&mut from, &mut io::sink()).map_err(bosun_layer::Error::Read)?;
            Ok::<_, Failure>(rebased)
        });
        let extracted = extract(reader, &root, ".".as_ref(), options, &Limits::default());
        let rebased = rebasing.join();
        (rebased.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), extracted)
    });
    match (rebased, extracted) {
        (Ok(Rebased { devices }), Ok(_)) => Ok(devices),
        // A pipe that nobody reads is not why.
        (Ok(_) | Err(Failure::Archive(bosun_layer::Error::Write(_))), Err(error)) => {
            Err(failed(error))
        }
        (Err(Failure::Archive(error)), _) => Err(failed(error)),
        (Err(Failure::Names(error)), _) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use bosun_layer::tar::{Entry, Kind, Time, Writer, Xattr};

    use super::*;

    fn entry(path: &str, kind: Kind, mode: u32) -> Entry {
        Entry {
            path: path.as_bytes().to_vec(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
        }
    }

    fn archive(entries: &[Entry]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for entry in entries {
            writer.append(entry, &b"four"[..]).unwrap();
        }
        writer.finish().unwrap()
    }

    fn into(directory: &Path, name: Option<&str>, entries: &[Entry]) -> Result<u64, CopyError> {
        let what = Unpack { directory, had: "x", name, owners: false };
        unpack(archive(entries).as_slice(), &what)
    }

    const FILE: Kind = Kind::File { size: 4 };

    #[test]
    fn a_tree_lands_under_its_new_name() {
        let dir = tempfile::tempdir().unwrap();
        let entries = [entry("x/", Kind::Directory, 0o750), entry("x/f", FILE, 0o640)];
        into(dir.path(), Some("new"), &entries).unwrap();
        let file = dir.path().join("new/f");
        assert_eq!(fs::read_to_string(&file).unwrap(), "four");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
        let mode = fs::metadata(dir.path().join("new")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o750);
        into(dir.path(), None, &entries).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("f")).unwrap(), "four");
    }

    #[test]
    fn no_link_leads_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, inside) = (dir.path().join("outside"), dir.path().join("inside"));
        fs::create_dir(&outside).unwrap();
        fs::create_dir(&inside).unwrap();
        let up = |target: &str| Kind::Symlink { target: target.as_bytes().to_vec() };
        let out = outside.to_str().unwrap();
        symlink(&outside, inside.join("there")).unwrap();
        for (name, entries) in [
            (Some("n"), &[entry("x", up(out), 0o777), entry("x/f", FILE, 0o644)][..]),
            (Some("m"), &[entry("x", up("../outside"), 0o777), entry("x/f", FILE, 0o644)]),
            (Some("there"), &[entry("x/f", FILE, 0o644)]),
            (None, &[entry("x/l", up(out), 0o777), entry("x/l/f", FILE, 0o644)]),
            (None, &[entry("x/../../outside/f", FILE, 0o644)]),
        ] {
            // Refused, or somewhere inside.
            let _ = into(&inside, name, entries);
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{name:?} {entries:?}");
        }
    }

    #[test]
    fn what_only_the_host_hands_out_stays_behind() {
        let dir = tempfile::tempdir().unwrap();
        let device = Kind::Character { major: 1, minor: 3 };
        let mut capable = entry("x/f", FILE, 0o6755);
        let value = b"\x01\0\0\x02\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        capable.xattrs.push(Xattr { name: b"security.capability".to_vec(), value });
        let left_out = into(dir.path(), None, &[capable, entry("x/null", device, 0o666)]).unwrap();
        assert_eq!(left_out, 1);
        let file = dir.path().join("f");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o755);
        let mut value = [0_u8; 64];
        let capability = rustix::fs::getxattr(&file, "security.capability", &mut value);
        assert_eq!(capability, Err(rustix::io::Errno::NODATA));
        assert!(!dir.path().join("null").exists());
    }

    #[test]
    fn a_torn_stream_and_a_kind_that_would_change_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let whole = archive(&[entry("x", FILE, 0o644)]);
        let what = Unpack { directory: dir.path(), had: "x", name: Some("x"), owners: false };
        // In the middle of the file.
        assert!(unpack(&whole[..514], &what).is_err());
        fs::create_dir(dir.path().join("d")).unwrap();
        let error = into(dir.path(), Some("d"), &[entry("x", FILE, 0o644)]).unwrap_err();
        assert!(matches!(error, CopyError::Unpack { .. }), "{error}");
        assert!(dir.path().join("d").is_dir());
        let error = into(dir.path(), Some("d"), &[entry("y", FILE, 0o644)]).unwrap_err();
        assert!(matches!(error, CopyError::Stray { .. }), "{error}");
    }
}
