//! Waiting for a condition, never for a time.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a step of a test may take before it counts as failed. Far above what anything takes on
/// a busy machine: it is reached only by what would never happen.
pub const LIMIT: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(5);

/// The variable that says how many times longer all may take on this machine, as a whole number: of the
/// virtual machine, which is emulated.
const PATIENCE: &str = "BOSUN_TEST_PATIENCE";

/// What a limit is on this machine.
#[must_use]
pub fn patiently(limit: Duration) -> Duration {
    static TIMES: OnceLock<u32> = OnceLock::new();
    let given = || std::env::var(PATIENCE).ok().and_then(|text| text.parse().ok());
    limit * *TIMES.get_or_init(|| given().unwrap_or(1))
}

/// Polls until `probe` gives a value.
///
/// # Panics
/// [Patiently](patiently) after [`LIMIT`], naming what was waited for.
#[track_caller]
pub fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    match within(LIMIT, probe) {
        Some(value) => value,
        None => panic!("waited {} seconds in vain for {what}", patiently(LIMIT).as_secs()),
    }
}

/// Polls until `probe` gives a value or the time is over, [patiently](patiently).
pub fn within<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patiently(limit);
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}

/// [`until`] for a plain condition.
///
/// # Panics
/// As [`until`].
#[track_caller]
pub fn until_true(what: &str, mut probe: impl FnMut() -> bool) {
    until(what, || probe().then_some(()));
}
