//! A tar whose entries all begin with one name, into one where they begin with another, or with
//! nothing, and where nothing is that the host must not take from a container.

use std::io::{self, BufRead, Read, Write};

use bosun_layer::tar::{Chunk, Entry, Kind, Reader, Writer};

use super::CopyError;

/// What an archive's names begin with, and what is to stand there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    /// Empty: the names begin at the root itself.
    pub(super) had: &'a str,
    /// Nothing: what is in the directory is wanted, not the directory.
    pub(super) wanted: Option<&'a str>,
    /// What gives rights on the host stays in it.
    pub(super) trusted: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rebased {
    /// Left out, for they are not trusted.
    pub(super) devices: u64,
}

/// Why it stopped: the archive itself, or what is in it.
#[derive(Debug)]
pub(super) enum Failure {
    Archive(bosun_layer::Error),
    Names(CopyError),
}

impl From<bosun_layer::Error> for Failure {
    fn from(error: bosun_layer::Error) -> Self {
        Self::Archive(error)
    }
}

/// setuid and setgid.
const SET_ID: u32 = 0o6000;

/// Copies the archive. An entry that does not begin as it should ends it: whoever sent it did not
/// send what was asked for.
pub(super) fn rebase(
    from: impl BufRead,
    names: Names<'_>,
    to: impl Write,
) -> Result<Rebased, Failure> {
    // Nothing is kept of an entry, so there may be any number.
    let mut reader = Reader::new(from, u64::MAX);
    let mut writer = Writer::new(to);
    let mut devices = 0;
    while let Some(mut entry) = reader.next()? {
        let Some(path) = renamed(&entry.path, names).map_err(Failure::Names)? else { continue };
        entry.path = path;
        if !names.trusted {
            if matches!(entry.kind, Kind::Character { .. } | Kind::Block { .. }) {
                devices += 1;
                continue;
            }
            entry.mode &= !SET_ID;
            entry.xattrs.retain(|xattr| xattr.name.starts_with(b"user."));
        }
        if let Kind::HardLink { target } = &mut entry.kind {
            let renamed = renamed(target, names).map_err(Failure::Names)?;
            let Some(renamed) = renamed else { return Err(stray(&entry, names)) };
            *target = renamed;
        }
        let data = Data { reader: &mut reader, bytes: Vec::new(), taken: 0, zeros: 0 };
        writer.append(&entry, data)?;
    }
    writer.finish()?;
    Ok(Rebased { devices })
}

/// The name that an entry is to have; nothing for the directory whose content is wanted.
fn renamed(path: &[u8], names: Names<'_>) -> Result<Option<Vec<u8>>, CopyError> {
    let mut parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    if !names.had.is_empty() && parts.next() != Some(names.had.as_bytes()) {
        return Err(CopyError::Stray {
            entry: String::from_utf8_lossy(path).into_owned(),
            asked: names.had.to_owned(),
        });
    }
    let parts: Vec<&[u8]> = names.wanted.map(str::as_bytes).into_iter().chain(parts).collect();
    Ok(if parts.is_empty() { None } else { Some(parts.join(&b'/')) })
}

fn stray(entry: &Entry, names: Names<'_>) -> Failure {
    let entry = String::from_utf8_lossy(&entry.path).into_owned();
    Failure::Names(CopyError::Stray { entry, asked: names.had.to_owned() })
}

/// The bytes of the entry that a reader is at, holes as zeros.
struct Data<'a, R> {
    reader: &'a mut Reader<R>,
    bytes: Vec<u8>,
    taken: usize,
    zeros: u64,
}

impl<R: BufRead> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.bytes.len() && self.zeros == 0 {
            self.bytes.clear();
            self.taken = 0;
            match self.reader.chunk().map_err(io::Error::other)? {
                None => return Ok(0),
                Some(Chunk::Data(bytes)) => self.bytes.extend_from_slice(bytes),
                Some(Chunk::Hole(zeros)) => self.zeros = zeros,
            }
        }
        if self.zeros > 0 {
            let count = usize::try_from(self.zeros).unwrap_or(usize::MAX).min(buffer.len());
            buffer[..count].fill(0);
            self.zeros -= count as u64;
            return Ok(count);
        }
        let count = buffer.len().min(self.bytes.len() - self.taken);
        buffer[..count].copy_from_slice(&self.bytes[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bosun_layer::tar::Time;

    fn archive(entries: &[(&str, Kind)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (path, kind) in entries {
            let entry = Entry {
                path: path.as_bytes().to_vec(),
                kind: kind.clone(),
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: Time::default(),
                xattrs: Vec::new(),
            };
            writer.append(&entry, &b"four"[..]).unwrap();
        }
        writer.finish().unwrap()
    }

    fn names(archive: &[u8], had: &str, wanted: Option<&str>) -> Result<Vec<String>, String> {
        let mut out = Vec::new();
        match rebase(archive, Names { had, wanted, trusted: false }, &mut out) {
            Ok(_) => {}
            Err(Failure::Names(error)) => return Err(error.to_string()),
            Err(Failure::Archive(error)) => return Err(error.to_string()),
        }
        let mut reader = Reader::new(out.as_slice(), 100);
        let mut names = Vec::new();
        while let Some(entry) = reader.next().unwrap() {
            let mut name = String::from_utf8(entry.path).unwrap();
            if let Kind::HardLink { target } = entry.kind {
                name += &format!(" -> {}", String::from_utf8(target).unwrap());
            } else if let Some(Chunk::Data(data)) = reader.chunk().unwrap() {
                assert_eq!(data, b"four");
            }
            names.push(name.trim_end_matches('/').to_owned());
        }
        Ok(names)
    }

    #[test]
    fn the_first_name_is_replaced_or_taken_away() {
        let archive = archive(&[
            ("etc/", Kind::Directory),
            ("./etc/a", Kind::File { size: 4 }),
            ("etc/b", Kind::HardLink { target: b"etc/a".to_vec() }),
        ]);
        let owned = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(names(&archive, "etc", Some("new")), owned(&["new", "new/a", "new/b -> new/a"]));
        assert_eq!(names(&archive, "etc", None), owned(&["a", "b -> a"]));
        let whole = ["new/etc", "new/etc/a", "new/etc/b -> new/etc/a"];
        assert_eq!(names(&archive, "", Some("new")), owned(&whole));
    }

    #[test]
    fn what_was_not_asked_for_is_refused() {
        for entries in [
            &[("passwd", Kind::File { size: 4 })][..],
            &[("../etc/a", Kind::File { size: 4 })],
            &[("etc/a", Kind::HardLink { target: b"/passwd".to_vec() })],
        ] {
            let error = names(&archive(entries), "etc", Some("new")).unwrap_err();
            assert!(error.contains("is not in \"etc\""), "{error}");
        }
    }
}
