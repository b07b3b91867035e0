//! Sizes for people.

/// Bytes by 1024, as `1.5GiB`, with four significant digits at most.
pub(crate) fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    // From the top: the first unit that the size reaches.
    let power = (1..=UNITS.len()).rev().find(|power| bytes >> (10 * power) > 0).unwrap_or(1);
    // Thousandths of the unit, cut off.
    let scaled = (u128::from(bytes) * 1000) >> (10 * power);
    let whole = scaled / 1000;
    let digits = match whole {
        ..10 => 3,
        10..100 => 2,
        100..1000 => 1,
        _ => 0,
    };
    let mut text = format!("{whole}.{:03}", scaled % 1000);
    text.truncate(text.len() - (3 - digits));
    let text = if digits == 0 { whole.to_string() } else { text };
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    };
    format!("{text}{}", UNITS[power - 1])
}

/// Bytes by 1000, as `1.24GB`, rounded to so many significant digits: docker shows three of an
/// image's size, and four of what is used and freed.
pub(crate) fn decimal_size(bytes: u64, digits: u32) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut power = bytes.checked_ilog10().unwrap_or(0) / 3;
    let unit = 1000_u128.pow(power);
    let before = u128::from(bytes / 1000_u64.pow(power)).checked_ilog10().unwrap_or(0) + 1;
    // What a byte can't be divided into is not shown.
    let decimals = if power == 0 { 0 } else { digits.saturating_sub(before) };
    let mut scaled = (u128::from(bytes) * 10_u128.pow(decimals) + unit / 2) / unit;
    if scaled == 1000 * 10_u128.pow(decimals) {
        power += 1;
        scaled /= 1000;
    }
    let (whole, rest) = (scaled / 10_u128.pow(decimals), scaled % 10_u128.pow(decimals));
    let fraction = format!("{rest:0width$}", width = decimals as usize);
    let fraction = if decimals == 0 { "" } else { fraction.trim_end_matches('0') };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{whole}{point}{fraction}{}", UNITS[power as usize])
}

#[cfg(test)]
mod tests {
    use super::{decimal_size, human_size};

    #[test]
    fn decimal_sizes_are_rounded_to_their_digits() {
        for (bytes, three, four) in [
            (0, "0B", "0B"),
            (5, "5B", "5B"),
            (999, "999B", "999B"),
            (1000, "1kB", "1kB"),
            (2048, "2.05kB", "2.048kB"),
            (119_483_216, "119MB", "119.5MB"),
            (212_900_000, "213MB", "212.9MB"),
            (999_999, "1MB", "1MB"),
            (1_240_000_000, "1.24GB", "1.24GB"),
            (u64::MAX, "18.4EB", "18.45EB"),
        ] {
            assert_eq!(decimal_size(bytes, 3), three, "{bytes}");
            assert_eq!(decimal_size(bytes, 4), four, "{bytes}");
        }
    }

    #[test]
    fn sizes_have_one_unit() {
        for (bytes, want) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (1536, "1.5KiB"),
            (10 << 10, "10KiB"),
            (1000 << 10, "1000KiB"),
            (1 << 20, "1MiB"),
            (8_589_934_592, "8GiB"),
            (8_342_528_000, "7.769GiB"),
            (u64::MAX, "15.99EiB"),
        ] {
            assert_eq!(human_size(bytes), want, "{bytes}");
        }
    }
}
