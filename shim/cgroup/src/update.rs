//! New limits for a group in use: all of them, or none.

use rustix::io::Errno;
use shim_wire::plan::Resources;

use crate::{Cgroup, Controller, Error, Reason, apply, check, controllers, read};

impl Cgroup {
    /// Changes the limits that `resources` names and leaves the others as they are. When one of them
    /// is refused, those that were changed before it are restored.
    ///
    /// # Errors
    /// Those of [`create`](Self::create); [`Error::NotRestored`] when the kernel takes the limits
    /// that were there no more than the new ones.
    pub fn update(&self, resources: &Resources) -> Result<(), Error> {
        check::check(&self.layout, resources)?;
        self.check_memory_in_use(resources)?;
        let asked = self.asked_of_unified(resources);
        if let Some(unified) = self.layout.unified().filter(|_| !asked.is_empty()) {
            controllers::enable(unified, &self.path, false, &asked)?;
        }
        let mut before = Vec::new();
        let updated = apply::apply(self.settings(resources)?, Some(&mut before));
        let updated = updated.and_then(|()| self.replace_devices(&resources.devices));
        updated.map_err(|error| match apply::restore(before) {
            Ok(()) => error,
            Err(restore) => {
                Error::NotRestored { update: Box::new(error), restore: Box::new(restore) }
            }
        })
    }

    /// What can only be known of a group in use. v1 refuses a limit below what is in use itself; v2
    /// kills for it.
    fn check_memory_in_use(&self, resources: &Resources) -> Result<(), Error> {
        let Some(memory) = resources.memory.and_then(|memory| u64::try_from(memory).ok()) else {
            return Ok(());
        };
        let refused = |reason| Error::LimitRefused {
            limit: "memory.limit",
            value: memory.to_string(),
            reason,
        };
        if resources.memory_check {
            let bytes = self.memory_file("memory.usage_in_bytes", "memory.current")?;
            if let Some(bytes) = bytes.filter(|bytes| memory < *bytes) {
                return Err(refused(Reason::InUse { bytes }));
            }
        }
        if resources.memory_swap.is_none() && self.layout.controller(Controller::Memory).is_some() {
            let both = self.memory_file("memory.memsw.limit_in_bytes", "")?;
            if let Some(both) = both.filter(|both| memory > *both) {
                return Err(refused(Reason::AboveMemorySwap { both }));
            }
        }
        Ok(())
    }

    /// A number of the memory controller's; `None` when there is no such file.
    fn memory_file(&self, v1: &str, v2: &str) -> Result<Option<u64>, Error> {
        let (mount, file) = match self.layout.controller(Controller::Memory) {
            Some(hierarchy) => (Some(hierarchy.mount()), v1),
            None => (self.layout.unified(), v2),
        };
        let Some(mount) = mount else { return Ok(None) };
        match read(&mount.join(&self.path).join(file)) {
            Ok(text) => Ok(text.trim().parse().ok()),
            Err(Error::Io { errno: Errno::NOENT, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
