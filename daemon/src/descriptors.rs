//! How many descriptors the daemon may have, for those who give them away.

use rustix::process::{Resource, getrlimit};

/// One of `share` of them.
pub(crate) fn part(share: u64) -> usize {
    let all = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(all / share).unwrap_or(usize::MAX)
}
