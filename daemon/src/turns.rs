//! One at a time for each key: who comes second waits, and then finds the work done. Who shares a turn keeps
//! only those waiting who want it alone.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

type Slots<K> = Arc<Mutex<HashMap<K, Weak<RwLock<()>>>>>;

/// The turns of all keys; clones share them.
#[derive(Debug)]
pub struct Turns<K>(Slots<K>);

impl<K> Clone for Turns<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// The turn of one key, until it is dropped.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "holding it is its use")] OwnedRwLockWriteGuard<()>);

/// A turn of one key that others share.
#[derive(Debug)]
pub struct Shared(#[expect(dead_code, reason = "holding it is its use")] OwnedRwLockReadGuard<()>);

impl<K: Eq + Hash> Turns<K> {
    /// Waits for the turn of a key. Turns are given in the order in which they were asked for.
    pub async fn wait(&self, key: K) -> Turn {
        Turn(self.slot(key).write_owned().await)
    }

    /// Waits until nobody has the turn of a key alone, or has asked for it before.
    pub async fn share(&self, key: K) -> Shared {
        Shared(self.slot(key).read_owned().await)
    }

    fn slot(&self, key: K) -> Arc<RwLock<()>> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Keys that nobody waits for or has are forgotten now and then.
        if slots.len() >= 64 && slots.len().is_power_of_two() {
            slots.retain(|_, slot| slot.strong_count() > 0);
        }
        let slot = slots.get(&key).and_then(Weak::upgrade).unwrap_or_default();
        slots.insert(key, Arc::downgrade(&slot));
        slot
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn only_one_at_a_time_has_a_key_and_keys_do_not_meet() {
        let turns = Turns::default();
        let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));
        let work = (0..10).map(|_| async {
            let _turn = turns.wait("a").await;
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            inside.fetch_sub(1, Ordering::SeqCst);
        });
        futures::future::join_all(work).await;
        assert_eq!(most.load(Ordering::SeqCst), 1);
        let _one = turns.wait("a").await;
        let _other = turns.wait("b").await;
    }

    #[tokio::test]
    async fn a_shared_turn_keeps_out_only_who_wants_it_alone() {
        use futures::FutureExt as _;
        let turns = Turns::default();
        let one = turns.share("a").await;
        let other = turns.share("a").await;
        assert!(turns.wait("a").now_or_never().is_none());
        drop((one, other));
        let alone = turns.wait("a").await;
        assert!(turns.share("a").now_or_never().is_none());
        drop(alone);
        turns.share("a").await;
    }

    #[tokio::test]
    async fn keys_of_the_past_are_forgotten() {
        let turns = Turns::default();
        for key in 0..10_000 {
            drop(turns.wait(key).await);
        }
        assert!(turns.0.lock().unwrap().len() < 200);
    }
}
