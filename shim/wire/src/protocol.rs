//! The version of what daemon and shim say to each other.
//!
//! Each meets others of another build: shims live on while their daemon is replaced by a newer or an
//! older one, and while a package is installed, the programs side by side are not of one build for a
//! moment. Messages are protobuf: who does not know a field does not see it. That is right for what is
//! told, and wrong for what is ordered, such as a restriction. So the number is counted up with
//! everything that must not be passed over, and:
//!
//! - [`CreateOptions`](crate::plan::CreateOptions) carries the daemon's number. A shim of a lower one
//!   refuses, naming both.
//! - [`StatusResponse`](crate::shim::StatusResponse), which every shim answers alike, carries the numbers
//!   that it understands. A daemon gives it orders of the highest that both know. When there is none,
//!   it leaves shim and container as they are, and says so.

/// The numbers that one side understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub oldest: u32,
    pub newest: u32,
}

/// Of this build. 0 is what there was before there were numbers.
pub const OWN: Versions = Versions { oldest: 0, newest: 1 };

impl Versions {
    /// The highest number that both understand.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u32> {
        let highest = self.newest.min(other.newest);
        (highest >= self.oldest.max(other.oldest)).then_some(highest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_take_the_highest_number_that_they_share() {
        let versions = |(oldest, newest)| Versions { oldest, newest };
        for (one, other, common) in [
            ((0, 1), (0, 1), Some(1)),
            ((0, 1), (0, 3), Some(1)),
            ((0, 0), (0, 3), Some(0)),
            ((1, 3), (3, 5), Some(3)),
            ((0, 1), (2, 3), None),
            ((2, 3), (0, 1), None),
        ] {
            assert_eq!(versions(one).common(versions(other)), common, "{one:?} {other:?}");
            assert_eq!(versions(other).common(versions(one)), common, "{other:?} {one:?}");
        }
    }
}
