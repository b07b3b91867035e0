//! The header block: where its fields lie, its numbers, its checksum (POSIX.1-2017 pax, ustar
//! interchange format; GNU tar manual, "Basic Tar Format").

use super::BLOCK;
use crate::error::Problem;

/// A header block whose checksum is right.
#[derive(Clone, Copy)]
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

/// Which rules the fields behind the magic follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Gnu,
}

impl<'a> Header<'a> {
    /// # Errors
    /// The checksum is wrong.
    pub(super) fn new(block: &'a [u8; BLOCK]) -> Result<Self, Problem> {
        let sum = number(&block[148..156])?;
        let blank = [b' '; 8];
        let fields = || block[..148].iter().chain(&blank).chain(&block[156..]);
        let unsigned: i64 = fields().map(|byte| i64::from(*byte)).sum();
        // As old tars on machines with signed characters summed.
        let signed: i64 = fields().map(|byte| i64::from(byte.cast_signed())).sum();
        if sum == unsigned || sum == signed { Ok(Self(block)) } else { Err(Problem::Checksum) }
    }

    fn format(self) -> Format {
        match &self.0[257..265] {
            b"ustar  \0" => Format::Gnu,
            magic if magic.starts_with(b"ustar\0") => Format::Ustar,
            _ => Format::V7,
        }
    }

    /// Appends the name with its prefix.
    pub(super) fn path(self, path: &mut Vec<u8>) {
        path.clear();
        let prefix = text(&self.0[345..500]);
        if self.format() == Format::Ustar && !prefix.is_empty() {
            path.extend_from_slice(prefix);
            path.push(b'/');
        }
        path.extend_from_slice(text(&self.0[..100]));
    }

    pub(super) fn link(self) -> &'a [u8] {
        text(&self.0[157..257])
    }

    pub(super) fn flag(self) -> u8 {
        self.0[156]
    }

    pub(super) fn mode(self) -> Result<i64, Problem> {
        number(&self.0[100..108])
    }

    pub(super) fn uid(self) -> Result<i64, Problem> {
        number(&self.0[108..116])
    }

    pub(super) fn gid(self) -> Result<i64, Problem> {
        number(&self.0[116..124])
    }

    pub(super) fn size(self) -> Result<u64, Problem> {
        number(&self.0[124..136])?.try_into().map_err(|_| Problem::Range)
    }

    pub(super) fn mtime(self) -> Result<i64, Problem> {
        number(&self.0[136..148])
    }

    /// Major and minor number, as large as Linux has them: of larger ones it would take a part.
    pub(super) fn device(self) -> Result<(u32, u32), Problem> {
        if self.format() == Format::V7 {
            return Ok((0, 0));
        }
        let part = |field, most| {
            let number = u32::try_from(number(field)?).ok().filter(|number| *number <= most);
            number.ok_or(Problem::Range)
        };
        Ok((part(&self.0[329..337], 0xfff)?, part(&self.0[337..345], 0xf_ffff)?))
    }

    /// The four parts of an old GNU map of holes, whether more follow, and the size with holes.
    pub(super) fn old_sparse(self) -> Result<(&'a [u8], bool, u64), Problem> {
        let size = number(&self.0[483..495])?.try_into().map_err(|_| Problem::Range)?;
        Ok((&self.0[386..482], self.0[482] != 0, size))
    }
}

/// A field up to its NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// An octal number among blanks, or GNU's base 256: big endian, two's complement, marked by the
/// highest bit.
pub(super) fn number(field: &[u8]) -> Result<i64, Problem> {
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        // The mark is not part of the number; the bit below it is the sign.
        let high = i128::from(first & 0x3f) - if first & 0x40 == 0 { 0 } else { 0x40 };
        // Twelve bytes at most, so this can't overflow.
        let value = rest.iter().fold(high, |value, byte| value * 256 + i128::from(*byte));
        return value.try_into().map_err(|_| Problem::Range);
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !is_blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(is_blank).unwrap_or(digits.len());
    let mut value: i64 = 0;
    for digit in &digits[..end] {
        let digit = digit.wrapping_sub(b'0');
        if digit > 7 {
            return Err(Problem::Number);
        }
        value = value.checked_mul(8).ok_or(Problem::Range)? + i64::from(digit);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_all_their_forms() {
        let table: [(&[u8], Result<i64, Problem>); 12] = [
            (b"0000644\0", Ok(0o644)),
            (b"   644 \0", Ok(0o644)),
            (b"\0\0\0\0\0\0\0\0", Ok(0)),
            (b"        ", Ok(0)),
            (b"77777777", Ok(0o77_777_777)),
            (b"00008\0\0\0", Err(Problem::Number)),
            (b"-000001\0", Err(Problem::Number)),
            (b"12 x\0\0\0\0", Ok(0o12)),
            (b"\x80\0\0\0\0\0\x01\x00", Ok(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Ok(-1)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Ok(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", Err(Problem::Range)),
        ];
        for (field, want) in table {
            assert_eq!(number(field), want, "{field:?}");
        }
        assert_eq!(
            number(b"\x9f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            Err(Problem::Range)
        );
        assert_eq!(number(b"777777777777"), Ok(0o777_777_777_777));
    }
}
