//! Sizes of memory and numbers of CPUs.

use super::FlagError;

/// Bytes: a number, with a fraction or not, and a unit by 1024: b, k, m, g, t, p, alone, with `b`
/// or with `ib`, in either case (docker's units.RAMInBytes).
pub(crate) fn parse_size(text: &str) -> Result<i64, FlagError> {
    bytes(text).ok_or_else(|| FlagError::Size(text.to_owned()))
}

/// As [`parse_size`], or -1 for no limit.
pub(crate) fn parse_swap(text: &str) -> Result<i64, FlagError> {
    if text == "-1" { Ok(-1) } else { parse_size(text) }
}

fn bytes(text: &str) -> Option<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let number_len = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(number_len);
    let shift = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    fixed(number, 1_i128 << shift)
}

/// Billionths of a CPU.
pub(crate) fn parse_cpus(text: &str) -> Result<i64, FlagError> {
    fixed(text, 1_000_000_000)
        .filter(|nanos| *nanos > 0)
        .ok_or_else(|| FlagError::Cpus(text.to_owned()))
}

/// A decimal number times `scale`, exactly, what is left over cut off.
fn fixed(text: &str, scale: i128) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || whole.len() > 19 || fraction.len() > 18 {
        return None;
    }
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let number: i128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    i64::try_from(number.checked_mul(scale)? / divisor).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_count_by_1024() {
        for (text, want) in [
            ("0", 0),
            ("512", 512),
            ("512b", 512),
            ("1k", 1024),
            ("64M", 64 << 20),
            ("1.5g", 3 << 29),
            ("1GiB", 1 << 30),
            ("2 mb", 2 << 20),
            ("1t", 1 << 40),
            (".5k", 512),
        ] {
            assert_eq!(parse_size(text), Ok(want), "{text}");
        }
        for text in ["", "m", "1x", "-1", "1mm", "1.2.3m", "9999999p", "1e3", "٣"] {
            assert_eq!(parse_size(text), Err(FlagError::Size(text.to_owned())), "{text}");
        }
        assert_eq!(parse_swap("-1"), Ok(-1));
        assert_eq!(parse_swap("1g"), Ok(1 << 30));
    }

    #[test]
    fn cpus_are_exact_decimals() {
        for (text, want) in [
            ("1", 1_000_000_000),
            ("0.1", 100_000_000),
            ("1.5", 1_500_000_000),
            (".25", 250_000_000),
        ] {
            assert_eq!(parse_cpus(text), Ok(want), "{text}");
        }
        for text in ["0", "-1", "", "two", "1/2", "."] {
            assert_eq!(parse_cpus(text), Err(FlagError::Cpus(text.to_owned())), "{text}");
        }
    }
}
