//! Entries into a stream.
//!
//! ustar headers, and an extended header where they are too small: the same entries give the same
//! bytes. Files with holes are written in full.

use std::io::{self, Read, Write};

use super::{BLOCK, Entry, Kind, Time, Xattr};
use crate::error::{Error, Result};

/// What an octal field of 8 and of 12 bytes holds at most.
const MAX_SMALL: u64 = 0o7_777_777;
const MAX_LARGE: u64 = 0o77_777_777_777;
const COPY: usize = 256 << 10;

/// Writes an archive. Without [`finish`](Self::finish) it is cut off.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub fn new(to: W) -> Self {
        Self { to, buffer: Vec::new() }
    }

    /// Adds an entry. A file's bytes come from `data`: exactly as many as the entry says, cut off or
    /// filled with zeros when it has more or less of them, for it may be changing. For all else,
    /// `data` is not touched.
    ///
    /// # Errors
    /// [`Error::Write`] when the stream does not take it, [`Error::Read`] when `data` can't be read.
    pub fn append(&mut self, entry: &Entry, data: impl Read) -> Result<()> {
        let records = records(entry);
        if !records.is_empty() {
            let mut header = Header::default();
            header.text(0..100, b"PaxHeaders/entry");
            header.number(100..108, 0o644);
            header.number(124..136, records.len() as u64);
            header.0[156] = b'x';
            self.write(header.finish())?;
            self.write_padded(&records)?;
        }
        self.write(header(entry).finish())?;
        if let Kind::File { size } = entry.kind {
            self.copy(data, size)?;
        }
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// [`Error::Write`] when the stream does not take it.
    pub fn finish(mut self) -> Result<W> {
        self.write(&[0; 2 * BLOCK])?;
        self.to.flush().map_err(Error::Write)?;
        Ok(self.to)
    }

    fn copy(&mut self, mut data: impl Read, size: u64) -> Result<()> {
        self.buffer.resize(COPY, 0);
        let mut left = size;
        let mut is_short = false;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(COPY).min(COPY);
            let count = match is_short {
                true => most,
                false => match data.read(&mut self.buffer[..most]) {
                    Ok(0) => {
                        is_short = true;
                        self.buffer.fill(0);
                        continue;
                    }
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(Error::Read(error)),
                },
            };
            self.to.write_all(&self.buffer[..count]).map_err(Error::Write)?;
            left -= count as u64;
        }
        self.pad(size)
    }

    fn write_padded(&mut self, bytes: &[u8]) -> Result<()> {
        self.write(bytes)?;
        self.pad(bytes.len() as u64)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let block = BLOCK as u64;
        let rest = usize::try_from((block - size % block) % block).unwrap_or(0);
        self.write(&[0; BLOCK][..rest])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).map_err(Error::Write)
    }
}

/// A header block being filled.
struct Header([u8; BLOCK]);

impl Default for Header {
    fn default() -> Self {
        let mut header = Self([0; BLOCK]);
        header.0[257..265].copy_from_slice(b"ustar\x0000");
        for field in [100..108, 108..116, 116..124, 124..136, 136..148, 329..337, 337..345] {
            header.number(field, 0);
        }
        header
    }
}

impl Header {
    /// Cut off when it is too long.
    fn text(&mut self, field: std::ops::Range<usize>, text: &[u8]) {
        let field = &mut self.0[field];
        let count = text.len().min(field.len());
        field[..count].copy_from_slice(&text[..count]);
    }

    /// Zero when it does not fit: an extended header has it.
    fn number(&mut self, field: std::ops::Range<usize>, number: u64) {
        let field = &mut self.0[field];
        let digits = field.len() - 1;
        let fits = number >> (3 * digits) == 0;
        for (index, digit) in field[..digits].iter_mut().rev().enumerate() {
            *digit = b'0' + if fits { (number >> (3 * index) & 7) as u8 } else { 0 };
        }
    }

    fn finish(&mut self) -> &[u8; BLOCK] {
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.number(148..155, u64::from(sum));
        self.0[154] = 0;
        &self.0
    }
}

fn header(entry: &Entry) -> Header {
    let mut header = Header::default();
    header.text(0..100, &entry.path);
    header.number(100..108, u64::from(entry.mode & 0o7777));
    header.number(108..116, u64::from(entry.uid));
    header.number(116..124, u64::from(entry.gid));
    header.number(136..148, u64::try_from(entry.mtime.seconds).unwrap_or(0));
    header.0[156] = match &entry.kind {
        Kind::File { size } => {
            header.number(124..136, *size);
            b'0'
        }
        Kind::HardLink { target } => {
            header.text(157..257, target);
            b'1'
        }
        Kind::Symlink { target } => {
            header.text(157..257, target);
            b'2'
        }
        Kind::Character { major, minor } | Kind::Block { major, minor } => {
            header.number(329..337, u64::from(*major));
            header.number(337..345, u64::from(*minor));
            if matches!(entry.kind, Kind::Block { .. }) { b'4' } else { b'3' }
        }
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    };
    header
}

/// What the header has no room for.
fn records(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    let plain = |text: &[u8]| text.len() <= 100 && text.is_ascii();
    if !plain(&entry.path) {
        record(&mut records, b"path", &entry.path);
    }
    if let Kind::HardLink { target } | Kind::Symlink { target } = &entry.kind
        && !plain(target)
    {
        record(&mut records, b"linkpath", target);
    }
    if let Kind::File { size } = entry.kind
        && size > MAX_LARGE
    {
        record(&mut records, b"size", size.to_string().as_bytes());
    }
    for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
        if u64::from(id) > MAX_SMALL {
            record(&mut records, key.as_bytes(), id.to_string().as_bytes());
        }
    }
    let is_whole = entry.mtime.nanoseconds == 0;
    if !(is_whole && u64::try_from(entry.mtime.seconds).is_ok_and(|seconds| seconds <= MAX_LARGE)) {
        record(&mut records, b"mtime", time(entry.mtime).as_bytes());
    }
    for Xattr { name, value } in &entry.xattrs {
        if name.contains(&b'=') {
            let key = [b"LIBARCHIVE.xattr.", percent_encoded(name).as_bytes()].concat();
            record(&mut records, &key, base64_encoded(value).as_bytes());
        } else {
            record(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
    }
    records
}

/// A record begins with its own length, which has that of its digits in it.
pub(super) fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn time(time: Time) -> String {
    let Time { seconds, nanoseconds } = time;
    let text = match nanoseconds {
        0 => return seconds.to_string(),
        _ if seconds < 0 => {
            let sign = if seconds == -1 { "-" } else { "" };
            format!("{sign}{}.{:09}", seconds + 1, 1_000_000_000 - nanoseconds)
        }
        _ => format!("{seconds}.{nanoseconds:09}"),
    };
    text.trim_end_matches('0').to_owned()
}

fn percent_encoded(name: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'=');
    let encode = |byte: &u8| match plain(*byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    name.iter().map(encode).collect()
}

fn base64_encoded(value: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for group in value.chunks(3) {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for index in 0..=group.len() {
            encoded.push(char::from(DIGITS[(bits >> (18 - 6 * index) & 63) as usize]));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_digits() {
        for (value, want) in [(90, "99 "), (91, "101 "), (1, "9 ")] {
            let mut records = Vec::new();
            record(&mut records, b"path", &vec![b'x'; value]);
            assert!(records.starts_with(want.as_bytes()), "{value}");
            assert_eq!(records.len().to_string(), want.trim_end());
        }
    }

    #[test]
    fn times_are_written_as_short_as_they_are() {
        let text = |seconds, nanoseconds| time(Time { seconds, nanoseconds });
        assert_eq!(text(1, 500_000_000), "1.5");
        assert_eq!(text(100, 0), "100");
        assert_eq!(text(-2, 500_000_000), "-1.5");
        assert_eq!(text(-1, 999_999_999), "-0.000000001");
        assert_eq!(text(-10, 0), "-10");
    }

    #[test]
    fn odd_names_of_attributes_are_encoded() {
        assert_eq!(percent_encoded(b"user.a=b%"), "user.a%3Db%25");
        assert_eq!(base64_encoded(b"\x00\x01\x02\xff"), "AAEC/w");
        assert_eq!(base64_encoded(b""), "");
    }
}
