//! Places that clients take: so many in all, and of those one process never has the last quarter.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The process of a client, as the kernel knows it when it connects; `None` when that is not known.
pub(super) type Peer = Option<i32>;

/// See the module.
#[derive(Debug)]
pub(super) struct Places {
    all: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<Peer, usize>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    peer: Peer,
}

impl Places {
    pub(super) fn new(all: usize) -> Arc<Self> {
        Arc::new(Self { all, taken: Mutex::default() })
    }

    /// How many there are.
    pub(super) fn all(&self) -> usize {
        self.all
    }

    /// A place for a client, if there is one.
    pub(super) fn take(self: &Arc<Self>, peer: Peer) -> Option<Place> {
        let mut taken = self.taken();
        let own = taken.by.get(&peer).copied().unwrap_or(0);
        if taken.all >= self.all || own >= self.all - self.all / 4 {
            return None;
        }
        taken.all += 1;
        taken.by.insert(peer, own + 1);
        Some(Place { places: Arc::clone(self), peer })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Some(own) = taken.by.get_mut(&self.peer) {
            *own -= 1;
            if *own == 0 {
                taken.by.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_everything_leaves_a_quarter_to_others() {
        let places = Places::new(8);
        let first: Vec<_> = (0..10).filter_map(|_| places.take(Some(1))).collect();
        assert_eq!(first.len(), 6);
        let second: Vec<_> = (0..10).filter_map(|_| places.take(Some(2))).collect();
        assert_eq!(second.len(), 2);
        assert!(places.take(None).is_none());
        drop(first);
        assert!(places.take(None).is_some());
        drop(second);
        assert!(places.taken().by.is_empty() && places.taken().all == 0);
    }
}
