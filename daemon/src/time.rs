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

    /// Reads what RFC 3339 writes; `None` when it is nothing of the kind.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let at: jiff::Timestamp = text.trim().parse().ok()?;
        let nanos = at.as_nanosecond().rem_euclid(1_000_000_000);
        Some(Self {
            seconds: i64::try_from(at.as_nanosecond().div_euclid(1_000_000_000)).ok()?,
            nanos: u32::try_from(nanos).ok()?,
        })
    }

    /// As RFC 3339 writes it, in UTC; what no calendar has is the epoch.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let nanos = i32::try_from(self.nanos).unwrap_or(0);
        jiff::Timestamp::new(self.seconds, nanos).unwrap_or_default().to_string()
    }

    /// A nanosecond later.
    #[must_use]
    pub fn next(self) -> Self {
        match self.nanos {
            999_999_999.. => Self { seconds: self.seconds.saturating_add(1), nanos: 0 },
            nanos => Self { nanos: nanos + 1, ..self },
        }
    }

    /// Nanoseconds since the epoch, for comparisons of moments of one clock.
    #[must_use]
    pub fn as_nanos(self) -> i128 {
        i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos)
    }
}

/// How long ago the machine was started (CLOCK_BOOTTIME): what durations are differences of.
#[must_use]
pub fn since_boot() -> Duration {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(at.tv_sec.try_into().unwrap_or(0), at.tv_nsec.try_into().unwrap_or(0))
}

/// In a second, as `/proc/PID/stat` counts them (USER_HZ; include/asm-generic/param.h).
const TICKS: u64 = 100;

/// The start time of a process, from `/proc/PID/stat`, as [`since_boot`] counts.
#[must_use]
pub fn of_start_time(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(1000 / TICKS))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_this_process_lies_between_the_machines_and_now() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let started = of_start_time(shim_wire::files::start_time_of_stat(&stat).unwrap());
        let age = since_boot().checked_sub(started).unwrap();
        assert!(age < Duration::from_secs(600), "{age:?}");
        assert!(started > Duration::ZERO);
    }

    #[test]
    fn moments_are_read_and_written_as_rfc_3339_has_them() {
        let time = Time { seconds: 1_767_225_600, nanos: 500_000_000 };
        assert_eq!(time.rfc3339(), "2026-01-01T00:00:00.5Z");
        assert_eq!(Time::parse("2026-01-01T00:00:00.5Z"), Some(time));
        assert_eq!(Time::parse("2026-01-01T02:00:00.5+02:00"), Some(time));
        for text in ["", "yesterday", "2026-01-01"] {
            assert_eq!(Time::parse(text), None, "{text}");
        }
    }
}
