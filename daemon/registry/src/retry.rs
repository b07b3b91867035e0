//! Trying again: after what, how often, and how long a pause.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use crate::{Error, Options, Result};

/// What whoever shows progress is told before a pause.
#[derive(Debug)]
pub struct Retry<'a> {
    /// What is tried again: `blob sha256:… of "…"`.
    pub what: &'a str,
    pub reason: &'a Error,
    pub pause: Duration,
}

/// Whom to tell.
pub(crate) type Listener = Arc<dyn Fn(&Retry<'_>) + Send + Sync>;

/// How often a host is asked that can't be reached, or that says nothing.
const UNREACHABLE: u32 = 3;

/// The attempts at one thing.
#[derive(Debug)]
pub(crate) struct Attempts {
    failed: u32,
}

impl Attempts {
    pub(crate) fn new() -> Self {
        Self { failed: 0 }
    }

    /// It went on well for a while: what failed before does not count any more.
    pub(crate) fn forget(&mut self) {
        self.failed = 0;
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The error, when it is no passing one, or was the last that is put up with.
    pub(crate) async fn pause(
        &mut self,
        options: &Options,
        what: &str,
        error: Error,
        listener: Option<&Listener>,
    ) -> Result<()> {
        self.failed += 1;
        // A host that does not answer at all is most likely a wrong name, or down for longer, and each
        // attempt takes its time.
        let is_reached = !matches!(error, Error::Unreachable { .. } | Error::Stalled { .. });
        let most = if is_reached { options.attempts } else { options.attempts.min(UNREACHABLE) };
        if !error.is_passing() || self.failed >= most {
            return Err(error);
        }
        let doubled = options.first_pause.saturating_mul(1 << (self.failed - 1).min(16));
        let pause = error.retry_after().unwrap_or_default().max(jittered(doubled));
        let pause = pause.min(options.longest_pause);
        tracing::debug!(what, %error, ?pause, "trying again");
        if let Some(tell) = listener {
            tell(&Retry { what, reason: &error, pause });
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Between half of a pause and all of it, so that many clients do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let random = u32::try_from(RandomState::new().hash_one(0) % 1000).unwrap_or_default();
    pause / 2 + pause / 2000 * random
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_never_more_and_never_less_than_half() {
        let pause = Duration::from_secs(1);
        let all: Vec<_> = (0..100).map(|_| jittered(pause)).collect();
        assert!(all.iter().all(|one| (pause / 2..=pause).contains(one)));
        assert!(all.iter().any(|one| one != &all[0]));
    }
}
