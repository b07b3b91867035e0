//! Wall-clock and boot-clock readings, and their text in log records.

use rustix::time::{ClockId, clock_gettime};
use shim_wire::exit::Timestamp;

/// Bytes of [`rfc3339`]'s text.
pub(crate) const RFC3339_LEN: usize = 30;

/// CLOCK_REALTIME.
pub(crate) fn now() -> Timestamp {
    let time = clock_gettime(ClockId::Realtime);
    Timestamp { seconds: time.tv_sec, nanos: u32::try_from(time.tv_nsec).unwrap_or(0) }
}

/// CLOCK_BOOTTIME in nanoseconds: goes on through a suspend, and never steps.
pub(crate) fn boottime_ns() -> u64 {
    nanoseconds(ClockId::Boottime)
}

/// CLOCK_MONOTONIC in nanoseconds, for deadlines.
pub(crate) fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// `2026-11-23T20:54:01.000000001Z`: RFC 3339 in UTC, always with nine digits of nanoseconds, so
/// that the texts sort as the times do. Right for the years 0 to 9999.
pub(crate) fn rfc3339(time: Timestamp) -> [u8; RFC3339_LEN] {
    let days = time.seconds.div_euclid(86_400);
    let second_of_day = time.seconds.rem_euclid(86_400);
    let (year, month, day) = civil_date(days);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    put_decimal(&mut text[0..4], year);
    put_decimal(&mut text[5..7], month);
    put_decimal(&mut text[8..10], day);
    put_decimal(&mut text[11..13], second_of_day / 3600);
    put_decimal(&mut text[14..16], second_of_day / 60 % 60);
    put_decimal(&mut text[17..19], second_of_day % 60);
    put_decimal(&mut text[20..29], i64::from(time.nanos));
    text
}

/// Year, month and day of the day `days` after 1970-01-01, in the proleptic Gregorian calendar.
/// Years are counted from March, so that the leap day is a year's last.
fn civil_date(days: i64) -> (i64, i64, i64) {
    const DAYS_OF_ERA: i64 = 146_097;
    let since_march_of_year_0 = days + 719_468;
    let era = since_march_of_year_0.div_euclid(DAYS_OF_ERA);
    let day_of_era = since_march_of_year_0.rem_euclid(DAYS_OF_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

fn put_decimal(digits: &mut [u8], mut value: i64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_have_their_known_texts() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000000001Z"),
            (951_868_799, 999_999_999, "2000-02-29T23:59:59.999999999Z"),
            (951_868_800, 0, "2000-03-01T00:00:00.000000000Z"),
            (1_763_930_000, 120_000_000, "2025-11-23T20:33:20.120000000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000000Z"),
            (4_107_456_000, 0, "2100-02-28T00:00:00.000000000Z"),
            (-1, 0, "1969-12-31T23:59:59.000000000Z"),
        ] {
            let formatted = rfc3339(Timestamp { seconds, nanos });
            assert_eq!(std::str::from_utf8(&formatted), Ok(text));
        }
    }
}
