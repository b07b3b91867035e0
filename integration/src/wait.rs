//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// How long a step of a test may take before it counts as failed. Far above what anything takes on
/// a busy machine: it is reached only by what would never happen.
pub const LIMIT: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(5);

/// Polls until `probe` gives a value.
///
/// # Panics
/// After [`LIMIT`], naming what was waited for.
#[track_caller]
pub fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    match within(LIMIT, probe) {
        Some(value) => value,
        None => panic!("waited {} seconds in vain for {what}", LIMIT.as_secs()),
    }
}

/// Polls until `probe` gives a value or the time is over.
pub fn within<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
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
