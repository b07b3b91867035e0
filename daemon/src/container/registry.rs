//! Names, ids and prefixes: who is where. In memory; the truth is the store's.
//!
//! A name is reserved before anything is made, so that "in use" is decided here and once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use shim_wire::id::Id;

use super::handle::Handle;
use super::{label, short};
use crate::error::{Error, Result};
use crate::time::Time;

/// Every container of every namespace.
#[derive(Debug, Default)]
pub(super) struct Registry {
    namespaces: Mutex<HashMap<Id, Names>>,
    /// When the last one was made.
    newest: Mutex<Time>,
}

#[derive(Debug, Default)]
struct Names {
    /// Sorted, so that a prefix is a range.
    by_id: BTreeMap<String, Handle>,
    /// Names, reserved ones as well, with the ids that have them.
    ids: HashMap<String, String>,
}

impl Registry {
    /// Takes a name for an id.
    pub(super) fn reserve(&self, namespace: &Id, name: &str, id: &str) -> Result<()> {
        let mut all = self.lock();
        let names = all.entry(namespace.clone()).or_default();
        if let Some(holder) = names.ids.get(name) {
            let kind = match names.by_id.get(holder) {
                Some(handle) if handle.is_sandbox() => "pod",
                Some(_) => "container",
                // Only its name is taken yet.
                None => "container or pod",
            };
            let holder = format!("{kind} {}", label(name, holder));
            return Err(Error::NameInUse { name: name.to_owned(), holder });
        }
        names.ids.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    /// Gives a reserved name back.
    pub(super) fn release(&self, namespace: &Id, name: &str, id: &str) {
        if let Some(names) = self.lock().get_mut(namespace)
            && names.ids.get(name).is_some_and(|holder| holder == id)
        {
            names.ids.remove(name);
        }
    }

    /// The moment at which the next container is made: now, and after all that are there, also when the
    /// clock was set back. Kubelets take the later one for the next try of the same.
    pub(super) fn moment(&self) -> Time {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = Time::now().max(newest.next());
        *newest
    }

    pub(super) fn insert(&self, handle: Handle) {
        if let Some((_, made)) = handle.order() {
            let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
            *newest = made.max(*newest);
        }
        let mut all = self.lock();
        let names = all.entry(handle.key.namespace.clone()).or_default();
        names.ids.insert(handle.name.clone(), handle.key.id.to_string());
        names.by_id.insert(handle.key.id.to_string(), handle);
    }

    pub(super) fn remove(&self, namespace: &Id, name: &str, id: &str) {
        if let Some(names) = self.lock().get_mut(namespace) {
            names.by_id.remove(id);
        }
        self.release(namespace, name, id);
    }

    /// Whether the id has a name, and is nobody yet.
    pub(super) fn is_being_made(&self, namespace: &Id, id: &str) -> bool {
        let all = self.lock();
        let Some(names) = all.get(namespace) else { return false };
        !names.by_id.contains_key(id) && names.ids.values().any(|one| one == id)
    }

    /// By id, then by name, then by unique prefix of an id, as docker has it.
    pub(super) fn find(&self, namespace: &Id, reference: &str) -> Result<Handle> {
        let missing = || Error::NoSuchContainer { reference: reference.to_owned() };
        let all = self.lock();
        let names = all.get(namespace).ok_or_else(missing)?;
        if let Some(handle) = names.by_id.get(reference) {
            return Ok(handle.clone());
        }
        let name = reference.strip_prefix('/').unwrap_or(reference);
        if let Some(handle) = names.ids.get(name).and_then(|id| names.by_id.get(id)) {
            return Ok(handle.clone());
        }
        if reference.is_empty() {
            return Err(missing());
        }
        let mut begun = names
            .by_id
            .range(reference.to_owned()..)
            .take_while(|(id, _)| id.starts_with(reference));
        let first = begun.next().ok_or_else(missing)?;
        let others: Vec<String> = begun.take(4).map(|(id, _)| short(id)).collect();
        if others.is_empty() {
            return Ok(first.1.clone());
        }
        let matches = std::iter::once(short(first.0)).chain(others).collect();
        Err(Error::AmbiguousPrefix { prefix: reference.to_owned(), matches })
    }

    /// All containers of a namespace, the newest first.
    pub(super) fn list(&self, namespace: &Id) -> Vec<Handle> {
        let mut found: Vec<Handle> = self
            .lock()
            .get(namespace)
            .map(|names| names.by_id.values().cloned().collect())
            .unwrap_or_default();
        found.sort_by_key(|handle| Reverse(handle.order()));
        found
    }

    /// All containers of all namespaces.
    pub(super) fn all(&self) -> Vec<Handle> {
        self.lock().values().flat_map(|names| names.by_id.values().cloned()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Id, Names>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_moment_is_after_the_one_before_wherever_the_clock_is_set() {
        let registry = Registry::default();
        let first = registry.moment();
        assert!(registry.moment() > first);
        let ahead = Time { seconds: first.seconds + 3600, nanos: 999_999_999 };
        *registry.newest.lock().unwrap() = ahead;
        let next = registry.moment();
        assert_eq!(next, Time { seconds: first.seconds + 3601, nanos: 0 });
        assert!(registry.moment() > next);
    }
}
