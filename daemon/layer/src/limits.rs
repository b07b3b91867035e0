//! How much an archive may ask for. What is not configurable is a constant beside its user.

/// What unpacking an archive may cost at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Headers in the archive, and directories made because nothing else made them.
    pub entries: u64,
    /// Bytes of the uncompressed archive, and bytes that its files have together, holes included.
    pub size: u64,
    /// Uncompressed bytes for each compressed one, once there are more than
    /// [`expansion_from`](Self::expansion_from). Deflate can't reach 1,100, so this is for zstd; zeros
    /// alone reach 30,000.
    pub expansion: u64,
    /// Uncompressed bytes that may come at any ratio.
    pub expansion_from: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 10_000_000, size: 1 << 40, expansion: 2000, expansion_from: 16 << 30 }
    }
}
