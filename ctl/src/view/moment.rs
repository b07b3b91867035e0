//! Points in time as docker writes them.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::flags::timestamp;

/// What docker shows for a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 in UTC, the fraction without trailing zeros (Go's RFC3339Nano).
pub(super) fn utc(at: Option<&prost_types::Timestamp>) -> String {
    at.and_then(timestamp).map_or_else(|| NEVER.to_owned(), |at| at.to_string())
}

/// RFC 3339 in UTC with all nine digits, so that lines of a log align.
pub(crate) fn utc_fixed(at: Option<&prost_types::Timestamp>) -> String {
    at.and_then(timestamp).map_or_else(|| NEVER.to_owned(), |at| format!("{at:.9}"))
}

/// RFC 3339 with all nine digits in the local zone.
pub(crate) fn local(at: Option<&prost_types::Timestamp>) -> String {
    let Some(at) = at.and_then(timestamp) else { return NEVER.to_owned() };
    let zoned = at.to_zoned(TimeZone::system());
    let shown = zoned.strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string();
    shown.strip_suffix("+00:00").map_or(shown.clone(), |rest| format!("{rest}Z"))
}

/// Go's `2006-01-02 15:04:05 -0700 MST`, as `docker ps` has it in CreatedAt.
pub(super) fn local_words(at: Option<&prost_types::Timestamp>) -> String {
    at.and_then(timestamp).map_or_else(String::new, |at| {
        at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
    })
}

/// Whole seconds from then to now; 0 when then is unknown or to come.
pub(super) fn seconds_since(at: Option<&prost_types::Timestamp>, now: Timestamp) -> i64 {
    let since = at.and_then(timestamp).map_or(SignedDuration::ZERO, |at| now.duration_since(at));
    since.as_secs().max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        let at = prost_types::Timestamp { seconds: 1_767_366_245, nanos: 120_000_000 };
        assert_eq!(utc(Some(&at)), "2026-01-02T15:04:05.12Z");
        assert_eq!(utc_fixed(Some(&at)), "2026-01-02T15:04:05.120000000Z");
        assert_eq!(utc(None), "0001-01-01T00:00:00Z");
        let whole = prost_types::Timestamp { seconds: 1_767_366_245, nanos: 0 };
        assert_eq!(utc_fixed(Some(&whole)), "2026-01-02T15:04:05.000000000Z");
        assert_eq!(local(Some(&at)).len(), local(Some(&whole)).len());
        let now: Timestamp = "2026-01-02T15:05:05Z".parse().unwrap();
        assert_eq!(seconds_since(Some(&at), now), 59);
        assert_eq!(seconds_since(Some(&at), "2020-01-01T00:00:00Z".parse().unwrap()), 0);
    }
}
