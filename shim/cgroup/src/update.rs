//! New limits for a group in use: all of them, or none.

use std::path::PathBuf;

use rustix::io::Errno;
use shim_wire::plan::Resources;

use crate::settings::{Reads, Setting, memory_and_swap};
use crate::{Cgroup, Controller, Error, Reason, UNLIMITED, apply, check, read};

/// What a control file holds, to be put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub file: PathBuf,
    /// As it is to be written.
    pub value: String,
}

impl Cgroup {
    /// What the files hold that an [`update`](Self::update) would write. The controllers that it needs are
    /// switched on, as by that.
    ///
    /// # Errors
    /// As [`update`](Self::update), but for what only a write tells.
    pub fn held(&self, resources: &Resources) -> Result<Vec<Held>, Error> {
        if let Some(unified) = self.layout.unified() {
            self.enable(unified, false, resources)?;
        }
        let mut held = Vec::new();
        for setting in self.settings(resources)? {
            let present = apply::present(&setting)?;
            held.extend(present.map(|Setting { file, value, .. }| Held { file, value }));
        }
        Ok(held)
    }

    /// Writes back what files of this group held; those of another are passed over.
    ///
    /// # Errors
    /// For the first that can't be written back; the others may be.
    pub fn put_back(&self, held: &[Held]) -> Result<(), Error> {
        let directories = self.paths();
        let own = held.iter().filter(|held| {
            held.file.parent().is_some_and(|at| directories.iter().any(|path| path == at))
        });
        let settings = own.map(|held| Setting {
            limit: held.file.file_name().unwrap_or_default().to_string_lossy().into_owned().into(),
            file: held.file.clone(),
            value: held.value.clone(),
            reads: Reads::Whole,
            lifts: true,
        });
        apply::restore(settings.collect())
    }

    /// Changes the limits that `resources` names and leaves the others as they are. When one of them
    /// is refused, those that were changed before it are restored.
    ///
    /// # Errors
    /// Those of [`create`](Self::create); [`Error::NotRestored`] when the kernel takes the limits
    /// that were there no more than the new ones.
    pub fn update(&self, resources: &Resources) -> Result<(), Error> {
        check::check(&self.layout, resources)?;
        self.check_memory_in_use(resources)?;
        if let Some(unified) = self.layout.unified() {
            self.enable(unified, false, resources)?;
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
        if resources.memory.is_none() {
            return self.check_swap_in_use(resources);
        }
        let Some(memory) = resources.memory.and_then(|memory| u64::try_from(memory).ok()) else {
            return Ok(());
        };
        let refused = |reason| Error::LimitRefused {
            limit: "memory.limit".into(),
            value: memory.to_string(),
            reason,
        };
        if resources.memory_check {
            let bytes = self.memory_file("memory.usage_in_bytes", "memory.current")?;
            if let Some(bytes) = bytes.filter(|bytes| memory < *bytes) {
                return Err(refused(Reason::InUse { bytes }));
            }
        }
        if resources.memory_swap.is_none() {
            let both = match (self.layout.controller(Controller::Memory), self.layout.unified()) {
                (Some(_), _) => self.memory_file("memory.memsw.limit_in_bytes", "")?,
                (None, Some(mount)) => memory_and_swap(&mount.join(&self.path))?,
                (None, None) => None,
            };
            if let Some(both) = both.filter(|both| memory > *both) {
                return Err(refused(Reason::AboveMemorySwap { both }));
            }
        }
        Ok(())
    }

    /// Memory and swap together, beside a limit of the memory that stays.
    fn check_swap_in_use(&self, resources: &Resources) -> Result<(), Error> {
        let both = resources.memory_swap.and_then(|both| u64::try_from(both).ok());
        let memory = self.memory_file("memory.limit_in_bytes", "memory.max")?;
        let (Some(both), Some(memory)) = (both, memory) else { return Ok(()) };
        let reason = match memory {
            _ if both >= memory => return Ok(()),
            UNLIMITED.. => Reason::WithoutMemory,
            _ => Reason::BelowMemory,
        };
        Err(Error::LimitRefused { limit: "memory.swap".into(), value: both.to_string(), reason })
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Layout;

    #[test]
    fn what_was_held_is_put_back_where_there_was_no_limit_and_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        let mount = root.path().display();
        let layout = Layout::parse(&format!("1 1 0:1 / {mount} rw - cgroup2 none rw\n"));
        for group in ["c", "d"] {
            fs::create_dir(root.path().join(group)).unwrap();
            fs::write(root.path().join(group).join("pids.max"), "max").unwrap();
        }
        for file in ["cgroup.controllers", "c/cgroup.controllers"] {
            fs::write(root.path().join(file), "pids").unwrap();
        }
        let cgroup = Cgroup::new(&layout, "c").unwrap();
        let limited = Resources { pids: Some(100), ..Resources::default() };
        let mut held = cgroup.held(&limited).unwrap();
        let file = |group: &str| root.path().join(group).join("pids.max");
        assert_eq!(held, [Held { file: file("c"), value: "max".to_owned() }]);
        cgroup.update(&limited).unwrap();
        let said = |group| fs::read_to_string(file(group)).unwrap();
        assert_eq!(said("c"), "100");
        held.push(Held { file: file("d"), value: "5".to_owned() });
        cgroup.put_back(&held).unwrap();
        assert_eq!((said("c"), said("d")), ("max".to_owned(), "max".to_owned()));
    }

    /// What is said once holds until it is said again, and memory with swap is one limit: on v2, whose
    /// files have them apart, as on v1.
    #[test]
    fn a_limit_outlives_the_updates_that_do_not_name_it() {
        const MIB: i64 = 1 << 20;
        let root = tempfile::tempdir().unwrap();
        let mount = root.path().display();
        let layout = Layout::parse(&format!("1 1 0:1 / {mount} rw - cgroup2 none rw\n"));
        let group = root.path().join("c");
        fs::create_dir(&group).unwrap();
        for (file, text) in [
            ("cgroup.controllers", "memory pids"),
            ("c/cgroup.controllers", "memory pids"),
            ("c/memory.max", "max"),
            ("c/memory.swap.max", "max"),
            ("c/memory.low", "0"),
            ("c/pids.max", "max"),
        ] {
            fs::write(root.path().join(file), text).unwrap();
        }
        let cgroup = Cgroup::new(&layout, "c").unwrap();
        let none = Resources::default();
        let seen = || {
            ["memory.max", "memory.swap.max", "memory.low", "pids.max"]
                .map(|file| fs::read_to_string(group.join(file)).unwrap())
        };
        let update = |resources: Resources| {
            // Plain files keep the end of a longer text; the kernel's are written as a whole.
            for file in ["memory.max", "memory.swap.max"] {
                let text = fs::read_to_string(group.join(file)).unwrap();
                fs::write(group.join(file), format!("{:<12}", text.trim_end())).unwrap();
            }
            let result = cgroup.update(&resources);
            for file in ["memory.max", "memory.swap.max"] {
                let text = fs::read_to_string(group.join(file)).unwrap();
                let first = match text.starts_with("max") {
                    true => "max",
                    false => text.split(' ').next().unwrap(),
                };
                fs::write(group.join(file), first).unwrap();
            }
            result
        };
        let text = |mib: i64| (mib * MIB).to_string();
        update(Resources {
            memory: Some(64 * MIB),
            memory_swap: Some(164 * MIB),
            pids: Some(100),
            ..none.clone()
        })
        .unwrap();
        assert_eq!(seen(), [&*text(64), &*text(100), "0", "100"]);
        // Only the memory: together they stay 164 MiB.
        update(Resources { memory: Some(54 * MIB), ..none.clone() }).unwrap();
        assert_eq!(seen(), [&*text(54), &*text(110), "0", "100"]);
        update(Resources { memory_reservation: Some(9), ..none.clone() }).unwrap();
        assert_eq!(seen(), [&*text(54), &*text(110), "9", "100"]);
        // Only both together: the memory stays.
        update(Resources { memory_swap: Some(154 * MIB), ..none.clone() }).unwrap();
        assert_eq!(seen(), [&*text(54), &*text(100), "9", "100"]);
        let said = update(Resources { memory: Some(155 * MIB), ..none.clone() }).unwrap_err();
        let expected = "more than the limit of memory and swap together";
        assert!(said.to_string().contains(expected), "{said}");
        assert_eq!(seen(), [&*text(54), &*text(100), "9", "100"]);
        let said = update(Resources { memory_swap: Some(53 * MIB), ..none.clone() }).unwrap_err();
        assert!(said.to_string().contains("less than linux.resources.memory.limit"), "{said}");
        assert_eq!(seen(), [&*text(54), &*text(100), "9", "100"]);
        update(Resources { memory: Some(-1), ..none.clone() }).unwrap();
        assert_eq!(seen(), ["max", "max", "9", "100"]);
        update(Resources { memory: Some(64 * MIB), ..none }).unwrap();
        assert_eq!(seen(), [&*text(64), "max", "9", "100"], "of swap alone there is no limit");
    }
}
