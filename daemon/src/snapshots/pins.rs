//! What is being made: trees that no row refers to yet, and that a collection must leave alone.
//!
//! In memory, because half a tree is of no use to another daemon.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Snapshots that are being made and that no row refers to yet.
#[derive(Clone, Debug, Default)]
pub struct Pins(Arc<Mutex<HashSet<i64>>>);

/// Holds a snapshot until it is dropped.
#[derive(Debug)]
pub struct Pin {
    pins: Pins,
    number: i64,
}

impl Pins {
    /// Keeps the snapshot of this number from being collected.
    #[must_use]
    pub fn hold(&self, number: i64) -> Pin {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
        Pin { pins: self.clone(), number }
    }

    /// The numbers of all that are held.
    #[must_use]
    pub fn held(&self) -> HashSet<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pins.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}
