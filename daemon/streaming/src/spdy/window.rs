//! How much may be sent: the windows of a stream and of its connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::frame::MAX_WINDOW;
use crate::limits::WINDOW;

/// A window that the peer opens. Until it has shown that it ever does, the window is counted, and
/// does not stop anybody.
#[derive(Debug)]
pub(super) struct Window {
    /// Bytes; below zero while windows are not minded, or after a peer has made them smaller.
    credit: Mutex<i64>,
    minded: AtomicBool,
    opened: Notify,
}

/// A window that would be larger than 2^31 - 1: an error of the peer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overflow;

impl Window {
    pub(super) fn new(credit: i64, minded: bool) -> Window {
        Window {
            credit: Mutex::new(credit),
            minded: AtomicBool::new(minded),
            opened: Notify::new(),
        }
    }

    /// Waits until something may be sent, and takes up to `wanted` bytes of it.
    pub(super) async fn take(&self, wanted: usize) -> usize {
        loop {
            let opened = self.opened.notified();
            if let Some(taken) = self.try_take(wanted) {
                return taken;
            }
            opened.await;
        }
    }

    fn try_take(&self, wanted: usize) -> Option<usize> {
        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = if self.minded.load(Ordering::Relaxed) {
            wanted.min(usize::try_from(*credit).unwrap_or(0))
        } else {
            wanted
        };
        *credit = credit.saturating_sub_unsigned(taken as u64);
        (taken > 0 || wanted == 0).then_some(taken)
    }

    /// Gives back what was taken and not sent.
    pub(super) fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
            *credit = credit.saturating_add_unsigned(bytes as u64);
            drop(credit);
            self.opened.notify_waiters();
        }
    }

    /// The peer has windows. Of one that shows it late, what was counted down until now is forgotten.
    pub(super) fn mind(&self) {
        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.minded.swap(true, Ordering::Relaxed) {
            *credit = (*credit).max(0);
        }
    }

    /// Makes it larger or smaller. There may be several who wait for a connection's window.
    pub(super) fn change(&self, by: i64) -> Result<(), Overflow> {
        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = credit.saturating_add(by);
        if changed > i64::from(MAX_WINDOW) {
            return Err(Overflow);
        }
        *credit = changed;
        drop(credit);
        self.opened.notify_waiters();
        Ok(())
    }
}

impl Default for Window {
    fn default() -> Window {
        Window::new(i64::from(WINDOW), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_window_stops_only_whom_it_is_minded_by() {
        let window = Window::new(10, false);
        assert_eq!(window.take(100).await, 100);
        window.mind();
        assert_eq!(window.try_take(1), None);
        window.change(5).unwrap();
        assert_eq!(window.take(100).await, 5);
        window.give_back(3);
        assert_eq!(window.take(100).await, 3);
        assert_eq!(window.take(0).await, 0);
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let window = std::sync::Arc::new(Window::new(0, true));
        let waiting = tokio::spawn({
            let window = window.clone();
            async move { window.take(7).await }
        });
        tokio::task::yield_now().await;
        window.change(4).unwrap();
        assert_eq!(waiting.await.unwrap(), 4);
    }

    #[test]
    fn a_window_has_an_upper_end() {
        let window = Window::new(1, true);
        assert_eq!(window.change(i64::from(MAX_WINDOW)), Err(Overflow));
        assert_eq!(window.try_take(9), Some(1));
        assert_eq!(window.change(i64::from(MAX_WINDOW)), Ok(()));
    }
}
