//! Wall-clock moments, as records and messages carry them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Seconds and nanoseconds since the epoch (CLOCK_REALTIME). For display only: nothing is ordered
/// by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    pub seconds: i64,
    pub nanos: u32,
}

impl Time {
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Nanoseconds since the epoch, for comparisons of moments of one clock.
    #[must_use]
    pub fn as_nanos(self) -> i128 {
        i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos)
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: since.subsec_nanos(),
        }
    }
}

impl From<shim_wire::exit::Timestamp> for Time {
    fn from(time: shim_wire::exit::Timestamp) -> Self {
        Self { seconds: time.seconds, nanos: time.nanos }
    }
}
