//! Following the numbered events: those that are stored, then those that come, without a hole that is
//! not said. A face says who wants which of them, and how they are told.
//!
//! A reader that is slow does not make the daemon remember for it: when it falls behind the
//! broadcast, what it missed is read from the store; when the store has let go of it, it is told
//! which numbers are missing.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::sync::broadcast::error::RecvError;

use crate::error::Result;
use crate::store::{self, Event, Store, Stored};
use crate::time::Time;

/// Events read from the store at once.
const PAGE: u32 = 256;

/// What a follower is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    Event(Arc<Event>),
    /// These numbers are no longer stored.
    Gap {
        first: u64,
        last: u64,
    },
}

/// Stored events from number `first` on, then those that come; to the moment `until`, if there is one.
pub fn follow(
    store: Store,
    first: u64,
    until: Option<Time>,
) -> impl Stream<Item = Result<Followed>> {
    async_stream::try_stream! {
        // Subscribed before the store is read: what is made meanwhile is in one of the two.
        let mut live = store.subscribe();
        let mut next = first;
        let mut behind = true;
        loop {
            while behind {
                let from = next;
                let stored: std::result::Result<Stored, store::Error> =
                    store.read(move |tx| tx.events_since(from, PAGE)).await;
                let stored = stored?;
                if let Some((first, last)) = gap(next, &stored) {
                    next = last + 1;
                    yield Followed::Gap { first, last };
                }
                behind = stored.events.len() == PAGE as usize;
                for event in stored.events {
                    next = event.sequence + 1;
                    if until.is_some_and(|until| event.time > until) {
                        return;
                    }
                    yield Followed::Event(Arc::new(event));
                }
            }
            let event = match (until, live.recv()) {
                (None, event) => event.await,
                (Some(until), event) => {
                    let left = until.as_nanos() - Time::now().as_nanos();
                    let left = u64::try_from(left).unwrap_or(0);
                    match tokio::time::timeout(Duration::from_nanos(left), event).await {
                        Ok(event) => event,
                        Err(_) => return,
                    }
                }
            };
            match event {
                Ok(event) if event.sequence < next => {}
                Ok(event) => {
                    next = event.sequence + 1;
                    yield Followed::Event(event);
                }
                Err(RecvError::Lagged(_)) => behind = true,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// The numbers from `next` on that are no longer stored.
fn gap(next: u64, stored: &Stored) -> Option<(u64, u64)> {
    let last = match stored.oldest {
        Some(oldest) => oldest.checked_sub(1)?,
        None => stored.newest,
    };
    (next <= last).then_some((next, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_what_was_asked_for_and_is_no_longer_stored() {
        let stored = |oldest, newest| Stored { events: Vec::new(), oldest, newest };
        assert_eq!(gap(1, &stored(Some(1), 5)), None);
        assert_eq!(gap(3, &stored(Some(1), 5)), None);
        assert_eq!(gap(1, &stored(Some(4), 5)), Some((1, 3)));
        assert_eq!(gap(2, &stored(None, 5)), Some((2, 5)));
        assert_eq!(gap(6, &stored(None, 5)), None);
    }
}
