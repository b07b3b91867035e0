//! Points in time as `--since` and `--until` take them.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::FlagError;

/// A point in time, resolved against the clock when the flag is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(Timestamp);

impl From<Moment> for prost_types::Timestamp {
    fn from(moment: Moment) -> Self {
        // The protocol wants nanoseconds from 0 up, also before 1970.
        let nanos = moment.0.as_nanosecond();
        let seconds = nanos.div_euclid(1_000_000_000);
        Self {
            seconds: i64::try_from(seconds).unwrap_or_default(),
            nanos: i32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or_default(),
        }
    }
}

/// The other direction: nothing for a time that no calendar holds.
pub(crate) fn timestamp(at: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(at.seconds, at.nanos).ok()
}

/// RFC 3339 with or without a zone (the local one then) or a time of day, Unix seconds with or
/// without a fraction, or a Go duration, which is how long ago.
pub(crate) fn parse_moment(text: &str) -> Result<Moment, FlagError> {
    parse_at(text, Timestamp::now(), &TimeZone::system())
        .map(Moment)
        .ok_or_else(|| FlagError::Moment(text.to_owned()))
}

/// A Go duration that is not nothing.
pub(crate) fn parse_span(text: &str) -> Result<Duration, FlagError> {
    let span = go_duration(text).and_then(|span| Duration::try_from(span).ok());
    span.filter(|span| !span.is_zero()).ok_or_else(|| FlagError::Span(text.to_owned()))
}

fn parse_at(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    if let Some(at) = unix_seconds(text) {
        return Some(at);
    }
    if let Some(ago) = go_duration(text) {
        return now.checked_sub(ago).ok();
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    let local = match text.parse::<DateTime>() {
        Ok(local) => local,
        Err(_) => text.parse::<jiff::civil::Date>().ok()?.at(0, 0, 0, 0),
    };
    Some(zone.to_ambiguous_zoned(local).compatible().ok()?.timestamp())
}

fn unix_seconds(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(whole.parse().ok()?, nanos).ok()
}

/// Go's `time.ParseDuration`: numbers with units, one after the other.
fn go_duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_len);
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * scale;
        rest = after;
    }
    SignedDuration::try_from_secs_f64(if negative { -seconds } else { seconds }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_docker_takes() {
        let now: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        for (text, want) in [
            ("2026-01-02T15:04:05Z", "2026-01-02T15:04:05Z"),
            ("2026-01-02T15:04:05.123456789+01:00", "2026-01-02T14:04:05.123456789Z"),
            ("2026-01-02T15:04:05", "2026-01-02T13:04:05Z"),
            ("2026-01-02T15:04", "2026-01-02T13:04:00Z"),
            ("2026-01-02", "2026-01-01T22:00:00Z"),
            ("0", "1970-01-01T00:00:00Z"),
            ("1767366245", "2026-01-02T15:04:05Z"),
            ("1767366245.5", "2026-01-02T15:04:05.5Z"),
            ("10m", "2026-01-02T11:50:00Z"),
            ("1h30m", "2026-01-02T10:30:00Z"),
            ("1.5s", "2026-01-02T11:59:58.5Z"),
            ("-1h", "2026-01-02T13:00:00Z"),
        ] {
            let want: Timestamp = want.parse().unwrap();
            assert_eq!(parse_at(text, now, &zone), Some(want), "{text}");
        }
        for text in ["", "yesterday", "10", "1h30", "10 m", "1.2.3", "2026-13-01", "m", "-"] {
            let parsed = parse_at(text, now, &zone);
            assert_eq!(parsed.is_none(), text != "10", "{text}: {parsed:?}");
        }
    }

    #[test]
    fn spans_are_positive_durations() {
        assert_eq!(parse_span("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_span("1.5s"), Ok(Duration::from_millis(1500)));
        for text in ["", "0s", "-1h", "10", "soon"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_before_1970_keep_positive_nanoseconds() {
        let moment = Moment("1969-12-31T23:59:59.5Z".parse().unwrap());
        let wire = prost_types::Timestamp::from(moment);
        assert_eq!((wire.seconds, wire.nanos), (-1, 500_000_000));
    }
}
