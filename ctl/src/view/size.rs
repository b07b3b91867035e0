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

#[cfg(test)]
mod tests {
    use super::human_size;

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
