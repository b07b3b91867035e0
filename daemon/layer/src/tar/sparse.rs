//! Files with holes: which bytes of a file the archive has.

use super::header::number;
use crate::error::Problem;

/// The most parts of a map: 16 MiB of memory.
pub(super) const MAX_EXTENTS: usize = 1 << 20;
/// Offset and length in an old GNU header.
const OLD_PART: usize = 24;

/// Bytes that are there; between two of them is a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// Adds the parts of an old GNU header or of its continuation.
pub(super) fn read_old(parts: &[u8], map: &mut Vec<Extent>) -> Result<(), Problem> {
    let unsigned = |field| number(field)?.try_into().map_err(|_| Problem::Sparse);
    for part in parts.chunks_exact(OLD_PART).take_while(|part| part[0] != 0) {
        push(map, Extent { offset: unsigned(&part[..12])?, length: unsigned(&part[12..])? })?;
    }
    Ok(())
}

pub(super) fn push(map: &mut Vec<Extent>, extent: Extent) -> Result<(), Problem> {
    if map.len() == MAX_EXTENTS {
        return Err(Problem::LargeSparse);
    }
    map.push(extent);
    Ok(())
}

/// Checks that a map lies inside a file, in order, and has no more bytes than the archive.
pub(super) fn check(map: &[Extent], size: u64, stored: u64) -> Result<(), Problem> {
    let (mut end, mut sum) = (0, 0);
    for extent in map {
        if extent.offset < end {
            return Err(Problem::Sparse);
        }
        end = extent.offset.checked_add(extent.length).ok_or(Problem::Sparse)?;
        // Can't overflow: parts do not overlap.
        sum += extent.length;
    }
    if end <= size && sum <= stored { Ok(()) } else { Err(Problem::Sparse) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_lies_in_order_inside_its_file() {
        let map = |parts: &[(u64, u64)]| -> Vec<Extent> {
            parts.iter().map(|&(offset, length)| Extent { offset, length }).collect()
        };
        for (parts, size, stored, want) in [
            (&[][..], 10, 0, true),
            (&[(0, 5), (5, 5)], 10, 10, true),
            (&[(0, 5), (8, 2)], 10, 7, true),
            (&[(0, 5), (8, 2)], 10, 6, false),
            (&[(0, 5), (8, 3)], 10, 8, false),
            (&[(5, 5), (0, 5)], 10, 10, false),
            (&[(0, 5), (4, 5)], 10, 10, false),
            (&[(10, 0)], 10, 0, true),
            (&[(u64::MAX, 1)], u64::MAX, 1, false),
            (&[(0, u64::MAX), (u64::MAX, 0)], u64::MAX, u64::MAX, true),
        ] {
            assert_eq!(check(&map(parts), size, stored).is_ok(), want, "{parts:?}");
        }
    }
}
