//! Extended headers: records of `LENGTH KEY=VALUE\n` (POSIX.1-2017 pax), and the keys that star,
//! libarchive and GNU tar added.

use super::sparse::Extent;
use super::{MAX_NAME, Time, Xattr};
use crate::error::Problem;

/// The most extended attributes of a file.
const MAX_XATTRS: usize = 1000;

/// What extended headers say of the entry that follows.
#[derive(Clone, Debug, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: Sparse,
}

/// GNU.sparse.*, versions 0.0, 0.1 and 1.0 together.
#[derive(Clone, Debug, Default)]
pub(super) struct Sparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// With holes, in bytes.
    pub(super) size: Option<u64>,
    /// Of 0.0 and 0.1.
    pub(super) map: Vec<Extent>,
    /// Of 0.0: the offset whose length comes with the next record.
    offset: Option<u64>,
}

impl Sparse {
    /// Whether the map lies before the data.
    pub(super) fn is_in_data(&self) -> bool {
        (self.major, self.minor) == (Some(1), Some(0))
    }

    pub(super) fn is_any(&self) -> bool {
        self.is_in_data() || !self.map.is_empty() || self.size.is_some()
    }
}

impl Extended {
    /// Reads the records of one header for one entry.
    pub(super) fn read(&mut self, records: &[u8]) -> Result<(), Problem> {
        each(records, |key, value| self.set(key, value))
    }

    /// Reads the records of a header for all entries: times and owners. One name, one size or one
    /// map for all files makes no sense; comments and the like are ignored.
    pub(super) fn read_global(&mut self, records: &[u8]) -> Result<(), Problem> {
        each(records, |key, value| match key {
            b"uid" | b"gid" | b"mtime" => self.set(key, value),
            b"path" | b"linkpath" | b"size" => Err(Problem::Global),
            _ => Ok(()),
        })
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        let sparse = &mut self.sparse;
        match key {
            b"path" => self.path = name(value)?,
            b"linkpath" => self.link = name(value)?,
            b"size" => self.size = decimal(value)?,
            b"uid" => self.uid = decimal(value)?.map(signed).transpose()?,
            b"gid" => self.gid = decimal(value)?.map(signed).transpose()?,
            b"mtime" => self.mtime = time(value)?,
            b"GNU.sparse.major" => sparse.major = decimal(value)?,
            b"GNU.sparse.minor" => sparse.minor = decimal(value)?,
            b"GNU.sparse.name" => sparse.name = name(value)?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => sparse.size = decimal(value)?,
            b"GNU.sparse.offset" => sparse.offset = decimal(value)?,
            b"GNU.sparse.numbytes" => {
                let offset = sparse.offset.take().ok_or(Problem::Sparse)?;
                let length = decimal(value)?.ok_or(Problem::Sparse)?;
                sparse.map.push(Extent { offset, length });
            }
            b"GNU.sparse.map" => sparse.map = map(value)?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    return self.set_xattr(name.to_vec(), value.to_vec(), true);
                }
                if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let name = percent_decoded(name).ok_or(Problem::Extended)?;
                    let value = base64_decoded(value).ok_or(Problem::Extended)?;
                    return self.set_xattr(name, value, false);
                }
            }
        }
        Ok(())
    }

    /// bsdtar writes each attribute in both forms.
    fn set_xattr(&mut self, name: Vec<u8>, value: Vec<u8>, replace: bool) -> Result<(), Problem> {
        if name.is_empty() || name.contains(&0) {
            return Err(Problem::Extended);
        }
        match self.xattrs.iter().position(|known| known.name == name) {
            Some(index) if replace => self.xattrs[index].value = value,
            Some(_) => {}
            None if self.xattrs.len() == MAX_XATTRS => return Err(Problem::ManyXattrs),
            None => self.xattrs.push(Xattr { name, value }),
        }
        Ok(())
    }
}

/// Calls `f` with key and value of each record.
fn each(
    mut records: &[u8],
    mut f: impl FnMut(&[u8], &[u8]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    while !records.is_empty() {
        let space = records.iter().position(|byte| *byte == b' ').ok_or(Problem::Extended)?;
        let length = decimal(&records[..space])?.ok_or(Problem::Extended)?;
        let length = usize::try_from(length).map_err(|_| Problem::Extended)?;
        let (record, rest) = records.split_at_checked(length).ok_or(Problem::Extended)?;
        let record = record.get(space + 1..).and_then(|record| record.strip_suffix(b"\n"));
        let record = record.ok_or(Problem::Extended)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(Problem::Extended)?;
        f(&record[..equals], &record[equals + 1..])?;
        records = rest;
    }
    Ok(())
}

/// An empty value takes back what was said.
fn name(value: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
    match value {
        [] => Ok(None),
        _ if value.len() > MAX_NAME => Err(Problem::LongName),
        _ if value.contains(&0) => Err(Problem::NulByte),
        _ => Ok(Some(value.to_vec())),
    }
}

/// Digits only: no sign, no blanks.
pub(super) fn decimal(value: &[u8]) -> Result<Option<u64>, Problem> {
    if value.is_empty() {
        return Ok(None);
    }
    let mut number: u64 = 0;
    for byte in value {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(if *byte == b'-' { Problem::Range } else { Problem::Number });
        }
        let next = number.checked_mul(10).and_then(|next| next.checked_add(u64::from(digit)));
        number = next.ok_or(Problem::Range)?;
    }
    Ok(Some(number))
}

fn signed(number: u64) -> Result<i64, Problem> {
    number.try_into().map_err(|_| Problem::Range)
}

/// Seconds with a fraction, before 1970 with a sign.
fn time(value: &[u8]) -> Result<Option<Time>, Problem> {
    let (negative, digits) = match value {
        [] => return Ok(None),
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let point = digits.iter().position(|byte| *byte == b'.').unwrap_or(digits.len());
    let seconds = signed(decimal(&digits[..point])?.unwrap_or(0))?;
    let fraction = digits.get(point + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(Problem::Number);
    }
    // What is finer than a nanosecond is cut off.
    let digit = |index| fraction.get(index).map_or(0, |byte: &u8| u32::from(byte - b'0'));
    let nanoseconds = (0..9).fold(0, |sum, index| sum * 10 + digit(index));
    Ok(Some(match (negative, nanoseconds) {
        (false, nanoseconds) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds: 0 },
        (true, nanoseconds) => {
            Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds }
        }
    }))
}

/// `OFFSET,LENGTH,OFFSET,LENGTH…`. As long as a header may be, so its size needs no bound of its own.
fn map(value: &[u8]) -> Result<Vec<Extent>, Problem> {
    let mut numbers = value.split(|byte| *byte == b',');
    let mut next = || -> Result<Option<u64>, Problem> {
        numbers.next().map_or(Ok(None), |number| decimal(number)?.map(Some).ok_or(Problem::Sparse))
    };
    let mut map = Vec::new();
    if value.is_empty() {
        return Ok(map);
    }
    while let Some(offset) = next()? {
        map.push(Extent { offset, length: next()?.ok_or(Problem::Sparse)? });
    }
    Ok(map)
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return None };
        decoded.push(hex(*high)? << 4 | hex(*low)?);
        rest = tail;
    }
    Some(decoded)
}

/// Without padding, as libarchive writes it, or with.
fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut count) = (0_u32, 0);
    let end = text.iter().position(|byte| *byte == b'=').unwrap_or(text.len());
    for byte in &text[..end] {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count & 0xff) as u8);
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::writer::record;

    fn records(all: &[(&str, &[u8])]) -> Vec<u8> {
        let mut records = Vec::new();
        all.iter().for_each(|(key, value)| record(&mut records, key.as_bytes(), value));
        records
    }

    fn read(records: &[u8]) -> Result<Extended, Problem> {
        let mut extended = Extended::default();
        extended.read(records).map(|()| extended)
    }

    #[test]
    fn records_are_taken_apart_by_their_length() {
        let records =
            records(&[("path", b"a b"), ("SCHILY.xattr.u.x", b"\n\0="), ("linkpath", b"x\ny=z")]);
        let extended = read(&records).unwrap();
        assert_eq!(extended.path.as_deref(), Some(&b"a b"[..]));
        assert_eq!(extended.xattrs, [Xattr { name: b"u.x".to_vec(), value: b"\n\0=".to_vec() }]);
        assert_eq!(extended.link.as_deref(), Some(&b"x\ny=z"[..]));
    }

    #[test]
    fn malformed_records_are_errors() {
        assert!(read(b"9 path=x\n").is_ok());
        for records in [
            &b"x"[..],
            b"0 ",
            b"3 a",
            b"99 path=x\n",
            b"9 path=xx",
            b"8 path=x\n",
            b"99999999999999999999999 path=x\n",
            b"-9 path=x\n",
            b" 9 path=x\n",
            b"8 pathx\n",
            b"1 path=x\n",
        ] {
            assert!(read(records).is_err(), "{records:?}");
        }
        assert_eq!(read(&records(&[("path", b"a\0b")])).err(), Some(Problem::NulByte));
        assert_eq!(read(&records(&[("path", &[b'x'; 4096])])).err(), Some(Problem::LongName));
        assert_eq!(read(&records(&[("size", b"-1")])).err(), Some(Problem::Range));
        assert_eq!(read(&records(&[("uid", b"1e3")])).err(), Some(Problem::Number));
    }

    #[test]
    fn an_empty_value_takes_back_what_was_said() {
        assert_eq!(read(&records(&[("path", b"a"), ("path", b"")])).unwrap().path, None);
    }

    #[test]
    fn times_have_fractions_on_both_sides_of_1970() {
        let at = |seconds, nanoseconds| Ok(Some(Time { seconds, nanoseconds }));
        assert_eq!(time(b"1.5"), at(1, 500_000_000));
        assert_eq!(time(b"1.0123456789999"), at(1, 12_345_678));
        assert_eq!(time(b"-1.5"), at(-2, 500_000_000));
        assert_eq!(time(b"-3"), at(-3, 0));
        assert_eq!(time(b"7."), at(7, 0));
        assert_eq!(time(b"1.x"), Err(Problem::Number));
        assert_eq!(time(b"9223372036854775808"), Err(Problem::Range));
    }

    #[test]
    fn attributes_in_both_forms_are_one() {
        let records = records(&[
            ("LIBARCHIVE.xattr.user.%3d", b"AAEC/w"),
            ("SCHILY.xattr.user.b", b"\x00\x01"),
            ("LIBARCHIVE.xattr.user.b", b"YQ"),
        ]);
        let extended = read(&records).unwrap();
        let xattr =
            |name: &[u8], value: &[u8]| Xattr { name: name.to_vec(), value: value.to_vec() };
        assert_eq!(
            extended.xattrs,
            [xattr(b"user.=", b"\0\x01\x02\xff"), xattr(b"user.b", b"\0\x01")]
        );
        assert_eq!(base64_decoded(b"YQ=="), Some(b"a".to_vec()));
        assert_eq!(base64_decoded(b"Y?"), None);
        assert_eq!(percent_decoded(b"%4"), None);
    }

    #[test]
    fn a_header_for_all_entries_names_none() {
        let mut extended = Extended::default();
        extended.read_global(&records(&[("uid", b"7"), ("comment", b"a b")])).unwrap();
        assert_eq!(extended.uid, Some(7));
        assert_eq!(extended.read_global(&records(&[("path", b"a")])), Err(Problem::Global));
    }

    #[test]
    fn a_map_of_holes_in_records() {
        let read = |text: &[u8]| read(&records(&[("GNU.sparse.map", text)]));
        assert_eq!(read(b"0,5,10,1").unwrap().sparse.map.len(), 2);
        assert!(read(b"0,5,10").is_err() && read(b"0,,1").is_err() && read(b",").is_err());
    }
}
