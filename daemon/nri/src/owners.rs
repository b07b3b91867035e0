//! Which plugin has set what: two that set the same are in conflict, and neither wins.
//!
//! A plugin that takes away what another one set may set it anew. What was taken away is noted with `-`
//! before the plugin's name, as validators of other runtimes have it.

use crate::error::{Error, Result};
use crate::wire::{Field, FieldOwners, OwningPlugins};

/// A field, and the entry of it where it has entries.
pub(crate) type Place = (Field, Option<String>);

impl OwningPlugins {
    /// Gives all of these to a plugin, or none.
    ///
    /// # Errors
    /// Another one has one of them.
    pub(crate) fn claim(&mut self, container: &str, places: &[Place], plugin: &str) -> Result<()> {
        let owners = self.owners.entry(container.to_owned()).or_default();
        for (field, key) in places {
            if let Some(owner) = owners.owner(*field, key.as_deref())
                && !owner.starts_with('-')
                && owner != plugin
            {
                return Err(Error::Conflict {
                    first: owner.to_owned(),
                    second: plugin.to_owned(),
                    what: words(*field, key.as_deref()),
                    container: container.to_owned(),
                });
            }
        }
        for (field, key) in places {
            owners.set(*field, key.as_deref(), plugin.to_owned());
        }
        Ok(())
    }

    /// Notes that a plugin has taken something away, whoever set it.
    pub(crate) fn clear(&mut self, container: &str, (field, key): &Place, plugin: &str) {
        let owners = self.owners.entry(container.to_owned()).or_default();
        owners.set(*field, key.as_deref(), format!("-{plugin}"));
    }

    /// Notes who adds to what several may add to.
    pub(crate) fn share(&mut self, container: &str, field: Field, plugin: &str) {
        let owners = self.owners.entry(container.to_owned()).or_default();
        let all = match owners.owner(field, None) {
            Some(others) => format!("{others},{plugin}"),
            None => plugin.to_owned(),
        };
        owners.set(field, None, all);
    }
}

impl FieldOwners {
    fn owner(&self, field: Field, key: Option<&str>) -> Option<&str> {
        let number = field as i32;
        let owner = match key {
            None => self.simple.get(&number),
            Some(key) => self.compound.get(&number).and_then(|list| list.owners.get(key)),
        };
        owner.map(String::as_str)
    }

    fn set(&mut self, field: Field, key: Option<&str>, owner: String) {
        let number = field as i32;
        match key {
            None => drop(self.simple.insert(number, owner)),
            Some(key) => {
                let list = self.compound.entry(number).or_default();
                list.owners.insert(key.to_owned(), owner);
            }
        }
    }
}

fn words(field: Field, key: Option<&str>) -> String {
    let field = match field {
        Field::None => "nothing",
        Field::Annotations => "annotation",
        Field::Mounts => "the mount at",
        Field::OciHooks => "hooks",
        Field::Devices => "device",
        Field::CdiDevices => "CDI device",
        Field::Env => "variable",
        Field::Args => "the command",
        Field::MemLimit => "the memory limit",
        Field::MemReservation => "the memory reservation",
        Field::MemSwapLimit => "the limit of memory and swap",
        Field::MemKernelLimit => "the limit of kernel memory",
        Field::MemTcpLimit => "the limit of TCP memory",
        Field::MemSwappiness => "the swappiness",
        Field::MemDisableOomKiller => "whether the OOM killer is off",
        Field::MemUseHierarchy => "whether memory counts by hierarchy",
        Field::CpuShares => "the CPU shares",
        Field::CpuQuota => "the CPU quota",
        Field::CpuPeriod => "the CPU period",
        Field::CpuRealtimeRuntime => "the realtime runtime",
        Field::CpuRealtimePeriod => "the realtime period",
        Field::CpuSetCpUs => "the CPUs",
        Field::CpuSetMems => "the memory nodes",
        Field::PidsLimit => "the limit of processes",
        Field::HugepageLimits => "the limit of huge pages of",
        Field::BlockioClass => "the block I/O class",
        Field::RdtClass => "the RDT class",
        Field::CgroupsUnified => "the cgroup file",
        Field::CgroupsPath => "the cgroup",
        Field::OomScoreAdj => "the OOM score",
        Field::Rlimits => "the limit",
        Field::IoPriority => "the I/O priority",
        Field::SeccompPolicy => "the seccomp policy",
        Field::Namespace => "the namespace",
        Field::Sysctl => "sysctl",
        Field::LinuxNetDevices => "network device",
        Field::LinuxSched => "the scheduler",
        Field::RdtClosId => "the RDT class of service",
        Field::RdtSchemata => "the RDT schemata",
        Field::RdtEnableMonitoring => "RDT monitoring",
        Field::MemoryPolicy => "the memory policy",
    };
    match key {
        None => field.to_owned(),
        Some(key) => format!("{field} {key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_has_it_until_another_takes_it_away() {
        let mut owners = OwningPlugins::default();
        let place = (Field::Env, Some("A".to_owned()));
        let mut claim = |places: &[Place], plugin| owners.claim("c", places, plugin);
        claim(std::slice::from_ref(&place), "10-a").unwrap();
        claim(std::slice::from_ref(&place), "10-a").unwrap();
        let limit = (Field::MemLimit, None);
        let conflict = claim(&[limit.clone(), place.clone()], "20-b").unwrap_err().to_string();
        let expected = "NRI plugins 10-a and 20-b both set variable A of container c";
        assert!(conflict.starts_with(expected), "{conflict}");
        claim(&[limit], "30-c").expect("of a conflict nothing is kept");
        owners.clear("c", &place, "20-b");
        owners.claim("c", std::slice::from_ref(&place), "20-b").unwrap();
        assert!(owners.claim("c", std::slice::from_ref(&place), "10-a").is_err());
        owners.claim("another", &[place], "10-a").unwrap();
    }
}
