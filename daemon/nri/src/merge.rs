//! What several plugins want of one container, made one: each sees what those before it have changed,
//! and two that change the same are in conflict.
//!
//! Pure: what is told to the next plugin and what is answered in the end are made of the answers alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::call::Call;
use crate::error::{Error, Result};
use crate::owners::Place;
use crate::wire::{
    ContainerAdjustment, ContainerEviction, ContainerUpdate, CreateContainerRequest,
    CreateContainerResponse, Field, Hooks, LinuxContainer, LinuxContainerUpdate, LinuxRdt,
    LinuxResources, OwningPlugins, UpdateContainerRequest, UpdateContainerResponse,
};

/// What comes of the creation of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Creation {
    pub adjust: ContainerAdjustment,
    /// Of other containers.
    pub updates: Vec<ContainerUpdate>,
    pub evictions: Vec<ContainerEviction>,
}

/// What comes of the update of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// In place of what was asked for.
    pub resources: LinuxResources,
    /// Of other containers.
    pub updates: Vec<ContainerUpdate>,
    pub evictions: Vec<ContainerEviction>,
}

/// What comes of asking one plugin after the other, each of what those before made of it.
pub(crate) trait Gathering {
    type Call: Call;

    /// As the next plugin sees it.
    fn request(&self) -> &Self::Call;

    /// # Errors
    /// What a plugin before this one has set as well.
    fn apply(&mut self, answer: <Self::Call as Call>::Answer, plugin: &str) -> Result<()>;
}

/// The creation of a container, plugin by plugin.
#[derive(Debug)]
pub(crate) struct Creating {
    request: CreateContainerRequest,
    made: Creation,
    others: Updates,
    owners: OwningPlugins,
}

impl Gathering for Creating {
    type Call = CreateContainerRequest;

    fn request(&self) -> &CreateContainerRequest {
        &self.request
    }

    fn apply(&mut self, answer: CreateContainerResponse, plugin: &str) -> Result<()> {
        if let Some(adjust) = answer.adjust {
            self.adjust(adjust, plugin)?;
        }
        let id = self.request.container.get_or_insert_default().id.clone();
        for update in answer.update {
            if update.container_id == id {
                return Err(Error::UpdateOfNew { plugin: plugin.to_owned(), container: id });
            }
            self.others.apply(update, &mut self.owners, plugin)?;
        }
        self.made.evictions.extend(answer.evict);
        Ok(())
    }
}

impl Creating {
    pub(crate) fn new(request: CreateContainerRequest) -> Self {
        Self {
            request,
            made: Creation::default(),
            others: Updates::default(),
            owners: OwningPlugins::default(),
        }
    }

    pub(crate) fn end(self) -> (Creation, OwningPlugins) {
        (Creation { updates: self.others.0, ..self.made }, self.owners)
    }

    fn adjust(&mut self, asked: ContainerAdjustment, plugin: &str) -> Result<()> {
        let seen = self.request.container.get_or_insert_default();
        let id = seen.id.clone();
        let made = &mut self.made.adjust;
        let mut claims = Claims { owners: &mut self.owners, id: &id, plugin };
        claims.map(
            Field::Annotations,
            &asked.annotations,
            &mut seen.annotations,
            &mut made.annotations,
        )?;
        claims.list(Field::Mounts, asked.mounts, &mut made.mounts, &mut seen.mounts, |mount| {
            &mount.destination
        })?;
        let mut env: Vec<_> = seen.env.drain(..).map(variable).collect();
        claims.list(Field::Env, asked.env, &mut made.env, &mut env, |variable| &variable.key)?;
        seen.env = env.into_iter().map(|one| format!("{}={}", one.key, one.value)).collect();
        if let [first, rest @ ..] = asked.args.as_slice() {
            let replaces = first.is_empty();
            if replaces {
                claims.owners.clear(&id, &(Field::Args, None), plugin);
            }
            claims.simple(Field::Args)?;
            made.args = if replaces { rest.to_vec() } else { asked.args.clone() };
            seen.args.clone_from(&made.args);
        }
        if let Some(hooks) = asked.hooks {
            let none = Hooks::default();
            if hooks != none {
                claims.owners.share(&id, Field::OciHooks, plugin);
            }
            add_hooks(seen.hooks.get_or_insert_default(), &hooks);
            add_hooks(made.hooks.get_or_insert_default(), &hooks);
        }
        for limit in asked.rlimits {
            claims.entry(Field::Rlimits, &limit.r#type)?;
            for list in [&mut seen.rlimits, &mut made.rlimits] {
                list.retain(|one| one.r#type != limit.r#type);
                list.push(limit.clone());
            }
        }
        for device in asked.cdi_devices {
            claims.entry(Field::CdiDevices, &device.name)?;
            made.cdi_devices.push(device);
        }
        let Some(asked) = asked.linux else { return Ok(()) };
        let seen = seen.linux.get_or_insert_default();
        let made = made.linux.get_or_insert_default();
        claims.list(
            Field::Devices,
            asked.devices,
            &mut made.devices,
            &mut seen.devices,
            |device| &device.path,
        )?;
        claims.list(
            Field::Namespace,
            asked.namespaces,
            &mut made.namespaces,
            &mut seen.namespaces,
            |one| &one.r#type,
        )?;
        claims.map(Field::Sysctl, &asked.sysctl, &mut seen.sysctl, &mut made.sysctl)?;
        claims.map(
            Field::LinuxNetDevices,
            &asked.net_devices,
            &mut seen.net_devices,
            &mut made.net_devices,
        )?;
        if let Some(resources) = &asked.resources {
            claims.owners.claim(&id, &places(resources), plugin)?;
            overlay(seen.resources.get_or_insert_default(), resources);
            overlay(made.resources.get_or_insert_default(), resources);
        }
        if !asked.cgroups_path.is_empty() {
            claims.simple(Field::CgroupsPath)?;
            seen.cgroups_path.clone_from(&asked.cgroups_path);
            made.cgroups_path = asked.cgroups_path;
        }
        claims.set(
            Field::OomScoreAdj,
            asked.oom_score_adj,
            &mut made.oom_score_adj,
            Some(&mut seen.oom_score_adj),
        )?;
        claims.set(
            Field::IoPriority,
            asked.io_priority,
            &mut made.io_priority,
            Some(&mut seen.io_priority),
        )?;
        claims.set(
            Field::SeccompPolicy,
            asked.seccomp_policy,
            &mut made.seccomp_policy,
            Some(&mut seen.seccomp_policy),
        )?;
        claims.set(
            Field::LinuxSched,
            asked.scheduler,
            &mut made.scheduler,
            Some(&mut seen.scheduler),
        )?;
        claims.set(Field::MemoryPolicy, asked.memory_policy, &mut made.memory_policy, None)?;
        if let Some(rdt) = asked.rdt {
            claims.rdt(rdt, &mut made.rdt, seen)?;
        }
        Ok(())
    }
}

/// What one plugin sets of one container.
struct Claims<'a> {
    owners: &'a mut OwningPlugins,
    id: &'a str,
    plugin: &'a str,
}

impl Claims<'_> {
    fn simple(&mut self, field: Field) -> Result<()> {
        self.owners.claim(self.id, &[(field, None)], self.plugin)
    }

    fn entry(&mut self, field: Field, key: &str) -> Result<()> {
        self.owners.claim(self.id, &[(field, Some(key.to_owned()))], self.plugin)
    }

    fn clear(&mut self, field: Field, key: &str) {
        self.owners.clear(self.id, &(field, Some(key.to_owned())), self.plugin);
    }

    /// What is set or not.
    fn set<T: Clone>(
        &mut self,
        field: Field,
        asked: Option<T>,
        made: &mut Option<T>,
        seen: Option<&mut Option<T>>,
    ) -> Result<()> {
        if asked.is_some() {
            self.simple(field)?;
            if let Some(seen) = seen {
                seen.clone_from(&asked);
            }
            *made = asked;
        }
        Ok(())
    }

    /// A list whose entries have keys. What is taken away is so before anything is added, and stands
    /// before it in what is made.
    fn list<T: Clone>(
        &mut self,
        field: Field,
        asked: Vec<T>,
        made: &mut Vec<T>,
        seen: &mut Vec<T>,
        key: impl Fn(&T) -> &String,
    ) -> Result<()> {
        let (removed, added): (Vec<T>, Vec<T>) =
            asked.into_iter().partition(|entry| key(entry).starts_with('-'));
        for entry in removed {
            let bare = key(&entry).strip_prefix('-').unwrap_or_default().to_owned();
            self.clear(field, &bare);
            seen.retain(|other| *key(other) != bare);
            made.retain(|other| key(other).strip_prefix('-').unwrap_or(key(other)) != bare);
            made.insert(0, entry);
        }
        for entry in added {
            self.entry(field, key(&entry))?;
            seen.retain(|other| key(other) != key(&entry));
            made.retain(|other| key(other) != key(&entry));
            seen.push(entry.clone());
            made.push(entry);
        }
        Ok(())
    }

    /// A map. What is taken away is so before anything is set.
    fn map<T: Clone + Default>(
        &mut self,
        field: Field,
        asked: &BTreeMap<String, T>,
        seen: &mut BTreeMap<String, T>,
        made: &mut BTreeMap<String, T>,
    ) -> Result<()> {
        for key in asked.keys().filter_map(|key| key.strip_prefix('-')) {
            self.clear(field, key);
            seen.remove(key);
            made.remove(key);
            made.insert(format!("-{key}"), T::default());
        }
        for (key, value) in asked.iter().filter(|(key, _)| !key.starts_with('-')) {
            self.entry(field, key)?;
            seen.insert(key.clone(), value.clone());
            made.insert(key.clone(), value.clone());
        }
        Ok(())
    }

    fn rdt(
        &mut self,
        asked: LinuxRdt,
        made: &mut Option<LinuxRdt>,
        seen: &mut LinuxContainer,
    ) -> Result<()> {
        if asked == LinuxRdt::default() {
            return Ok(());
        }
        let made = made.get_or_insert_default();
        let fields = [Field::RdtClosId, Field::RdtSchemata, Field::RdtEnableMonitoring];
        if asked.remove {
            for field in fields {
                self.owners.clear(self.id, &(field, None), self.plugin);
            }
            *made = LinuxRdt { remove: true, ..LinuxRdt::default() };
        }
        let LinuxRdt { clos_id, schemata, enable_monitoring, .. } = asked;
        let sets = clos_id.is_some() || schemata.is_some() || enable_monitoring.is_some();
        self.set(Field::RdtClosId, clos_id, &mut made.clos_id, None)?;
        self.set(Field::RdtSchemata, schemata, &mut made.schemata, None)?;
        self.set(Field::RdtEnableMonitoring, enable_monitoring, &mut made.enable_monitoring, None)?;
        made.remove &= !sets;
        seen.rdt = Some(made.clone());
        Ok(())
    }
}

/// `NAME=value` by its parts.
fn variable(entry: String) -> crate::wire::KeyValue {
    let (key, value) = match entry.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (entry, String::new()),
    };
    crate::wire::KeyValue { key, value }
}

fn add_hooks(to: &mut Hooks, hooks: &Hooks) {
    to.prestart.extend(hooks.prestart.iter().cloned());
    to.create_runtime.extend(hooks.create_runtime.iter().cloned());
    to.create_container.extend(hooks.create_container.iter().cloned());
    to.start_container.extend(hooks.start_container.iter().cloned());
    to.poststart.extend(hooks.poststart.iter().cloned());
    to.poststop.extend(hooks.poststop.iter().cloned());
}

/// What of resources is set.
fn places(resources: &LinuxResources) -> Vec<Place> {
    let memory = resources.memory.unwrap_or_default();
    let cpu = resources.cpu.clone().unwrap_or_default();
    let simple = [
        (memory.limit.is_some(), Field::MemLimit),
        (memory.reservation.is_some(), Field::MemReservation),
        (memory.swap.is_some(), Field::MemSwapLimit),
        (memory.kernel.is_some(), Field::MemKernelLimit),
        (memory.kernel_tcp.is_some(), Field::MemTcpLimit),
        (memory.swappiness.is_some(), Field::MemSwappiness),
        (memory.disable_oom_killer.is_some(), Field::MemDisableOomKiller),
        (memory.use_hierarchy.is_some(), Field::MemUseHierarchy),
        (cpu.shares.is_some(), Field::CpuShares),
        (cpu.quota.is_some(), Field::CpuQuota),
        (cpu.period.is_some(), Field::CpuPeriod),
        (cpu.realtime_runtime.is_some(), Field::CpuRealtimeRuntime),
        (cpu.realtime_period.is_some(), Field::CpuRealtimePeriod),
        (!cpu.cpus.is_empty(), Field::CpuSetCpUs),
        (!cpu.mems.is_empty(), Field::CpuSetMems),
        (resources.blockio_class.is_some(), Field::BlockioClass),
        (resources.rdt_class.is_some(), Field::RdtClass),
        (resources.pids.is_some(), Field::PidsLimit),
    ];
    let simple = simple.into_iter().filter(|(set, _)| *set).map(|(_, field)| (field, None));
    let pages = resources.hugepage_limits.iter();
    let pages = pages.map(|limit| (Field::HugepageLimits, Some(limit.page_size.clone())));
    let files = resources.unified.keys().map(|key| (Field::CgroupsUnified, Some(key.clone())));
    simple.chain(pages).chain(files).collect()
}

/// Puts what is set in the place of what was.
fn overlay(to: &mut LinuxResources, new: &LinuxResources) {
    fn put<T: Clone>(to: &mut Option<T>, new: &Option<T>) {
        if new.is_some() {
            to.clone_from(new);
        }
    }
    if let Some(new) = &new.memory {
        let to = to.memory.get_or_insert_default();
        put(&mut to.limit, &new.limit);
        put(&mut to.reservation, &new.reservation);
        put(&mut to.swap, &new.swap);
        put(&mut to.kernel, &new.kernel);
        put(&mut to.kernel_tcp, &new.kernel_tcp);
        put(&mut to.swappiness, &new.swappiness);
        put(&mut to.disable_oom_killer, &new.disable_oom_killer);
        put(&mut to.use_hierarchy, &new.use_hierarchy);
    }
    if let Some(new) = &new.cpu {
        let to = to.cpu.get_or_insert_default();
        put(&mut to.shares, &new.shares);
        put(&mut to.quota, &new.quota);
        put(&mut to.period, &new.period);
        put(&mut to.realtime_runtime, &new.realtime_runtime);
        put(&mut to.realtime_period, &new.realtime_period);
        for (to, new) in [(&mut to.cpus, &new.cpus), (&mut to.mems, &new.mems)] {
            if !new.is_empty() {
                to.clone_from(new);
            }
        }
    }
    let sizes: BTreeSet<&String> = new.hugepage_limits.iter().map(|one| &one.page_size).collect();
    to.hugepage_limits.retain(|limit| !sizes.contains(&limit.page_size));
    to.hugepage_limits.extend(new.hugepage_limits.iter().cloned());
    to.unified.extend(new.unified.clone());
    to.devices.extend(new.devices.iter().cloned());
    put(&mut to.blockio_class, &new.blockio_class);
    put(&mut to.rdt_class, &new.rdt_class);
    put(&mut to.pids, &new.pids);
}

/// Updates of several containers, one for each.
#[derive(Debug, Default)]
struct Updates(Vec<ContainerUpdate>);

impl Updates {
    /// A conflict in an update that may fail leaves that out.
    fn apply(
        &mut self,
        update: ContainerUpdate,
        owners: &mut OwningPlugins,
        plugin: &str,
    ) -> Result<()> {
        let resources = update.linux.and_then(|linux| linux.resources).unwrap_or_default();
        match owners.claim(&update.container_id, &places(&resources), plugin) {
            Err(error) if update.ignore_failure => {
                tracing::warn!(%error, "left out");
                return Ok(());
            }
            claimed => claimed?,
        }
        let is_it = |one: &&mut ContainerUpdate| one.container_id == update.container_id;
        let made = match self.0.iter_mut().find(is_it) {
            Some(made) => {
                made.ignore_failure &= update.ignore_failure;
                made
            }
            None => {
                self.0.push(ContainerUpdate {
                    container_id: update.container_id,
                    linux: Some(LinuxContainerUpdate::default()),
                    ignore_failure: update.ignore_failure,
                });
                let last = self.0.len() - 1;
                &mut self.0[last]
            }
        };
        let linux = made.linux.get_or_insert_default();
        overlay(linux.resources.get_or_insert_default(), &resources);
        Ok(())
    }
}

/// The update of a container, plugin by plugin.
#[derive(Debug)]
pub(crate) struct Updating {
    request: UpdateContainerRequest,
    others: Updates,
    owners: OwningPlugins,
    evictions: Vec<ContainerEviction>,
}

impl Gathering for Updating {
    type Call = UpdateContainerRequest;

    fn request(&self) -> &UpdateContainerRequest {
        &self.request
    }

    fn apply(&mut self, answer: UpdateContainerResponse, plugin: &str) -> Result<()> {
        let id = self.request.container.get_or_insert_default().id.clone();
        for update in answer.update {
            if update.container_id != id {
                self.others.apply(update, &mut self.owners, plugin)?;
                continue;
            }
            let resources = update.linux.and_then(|linux| linux.resources).unwrap_or_default();
            match self.owners.claim(&id, &places(&resources), plugin) {
                Err(error) if update.ignore_failure => tracing::warn!(%error, "left out"),
                claimed => {
                    claimed?;
                    let asked = self.request.linux_resources.get_or_insert_default();
                    overlay(asked, &resources);
                }
            }
        }
        self.evictions.extend(answer.evict);
        Ok(())
    }
}

impl Updating {
    pub(crate) fn new(request: UpdateContainerRequest) -> Self {
        Self {
            request,
            others: Updates::default(),
            owners: OwningPlugins::default(),
            evictions: Vec::new(),
        }
    }

    pub(crate) fn end(self) -> Update {
        Update {
            resources: self.request.linux_resources.unwrap_or_default(),
            updates: self.others.0,
            evictions: self.evictions,
        }
    }
}

/// What plugins want of others when a container has ended.
#[derive(Debug, Default)]
pub(crate) struct Stopping {
    others: Updates,
    owners: OwningPlugins,
}

impl Stopping {
    /// # Errors
    /// What a plugin before this one has set as well.
    pub(crate) fn apply(&mut self, updates: Vec<ContainerUpdate>, plugin: &str) -> Result<()> {
        updates
            .into_iter()
            .try_for_each(|update| self.others.apply(update, &mut self.owners, plugin))
    }

    pub(crate) fn end(self) -> Vec<ContainerUpdate> {
        self.others.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        Container, KeyValue, LinuxContainerAdjustment, LinuxCpu, LinuxDevice, LinuxMemory, Mount,
        OptionalInt64, OptionalUInt64, PosixRlimit,
    };

    fn creating() -> Creating {
        Creating::new(CreateContainerRequest {
            container: Some(Container {
                id: "c".to_owned(),
                env: vec!["A=1".to_owned(), "B=2".to_owned()],
                args: vec!["true".to_owned()],
                mounts: vec![mount("/old", "/src")],
                annotations: [("was".to_owned(), "there".to_owned())].into(),
                ..Container::default()
            }),
            ..CreateContainerRequest::default()
        })
    }

    fn mount(destination: &str, source: &str) -> Mount {
        Mount { destination: destination.to_owned(), source: source.to_owned(), ..Mount::default() }
    }

    fn set(key: &str, value: &str) -> KeyValue {
        KeyValue { key: key.to_owned(), value: value.to_owned() }
    }

    fn adjust(adjust: ContainerAdjustment) -> CreateContainerResponse {
        CreateContainerResponse { adjust: Some(adjust), ..CreateContainerResponse::default() }
    }

    fn memory(limit: i64) -> LinuxResources {
        LinuxResources {
            memory: Some(LinuxMemory {
                limit: Some(OptionalInt64 { value: limit }),
                ..LinuxMemory::default()
            }),
            ..LinuxResources::default()
        }
    }

    fn shares(shares: u64) -> LinuxResources {
        LinuxResources {
            cpu: Some(LinuxCpu {
                shares: Some(OptionalUInt64 { value: shares }),
                ..LinuxCpu::default()
            }),
            ..LinuxResources::default()
        }
    }

    fn update(id: &str, resources: LinuxResources) -> ContainerUpdate {
        ContainerUpdate {
            container_id: id.to_owned(),
            linux: Some(LinuxContainerUpdate { resources: Some(resources) }),
            ignore_failure: false,
        }
    }

    #[test]
    fn the_next_plugin_sees_what_the_one_before_has_changed() {
        let mut creating = creating();
        let first = ContainerAdjustment {
            env: vec![set("-A", ""), set("B", "3"), set("C", "4")],
            args: vec!["false".to_owned()],
            mounts: vec![mount("-/old", ""), mount("/new", "/src")],
            annotations: [("-was".to_owned(), String::new()), ("is".to_owned(), "here".to_owned())]
                .into(),
            ..ContainerAdjustment::default()
        };
        creating.apply(adjust(first), "10-a").unwrap();
        let seen = creating.request.container.clone().unwrap();
        assert_eq!(seen.env, ["B=3", "C=4"]);
        assert_eq!(seen.args, ["false"]);
        assert_eq!(seen.mounts, [mount("/new", "/src")]);
        assert_eq!(seen.annotations, [("is".to_owned(), "here".to_owned())].into());
        let made = creating.end().0.adjust;
        assert_eq!(made.env, [set("-A", ""), set("B", "3"), set("C", "4")]);
        assert_eq!(made.mounts, [mount("-/old", ""), mount("/new", "/src")]);
        let keys: Vec<&str> = made.annotations.keys().map(String::as_str).collect();
        assert_eq!(keys, ["-was", "is"]);
    }

    #[test]
    fn two_plugins_that_set_the_same_are_in_conflict_and_both_are_named() {
        let with = |linux: LinuxContainerAdjustment| ContainerAdjustment {
            linux: Some(linux),
            ..ContainerAdjustment::default()
        };
        let limited = with(LinuxContainerAdjustment {
            resources: Some(memory(1)),
            ..LinuxContainerAdjustment::default()
        });
        let device = with(LinuxContainerAdjustment {
            devices: vec![LinuxDevice { path: "/dev/x".to_owned(), ..LinuxDevice::default() }],
            ..LinuxContainerAdjustment::default()
        });
        let limit = ContainerAdjustment {
            rlimits: vec![PosixRlimit { r#type: "RLIMIT_NOFILE".to_owned(), hard: 1, soft: 1 }],
            ..ContainerAdjustment::default()
        };
        let mounted = ContainerAdjustment {
            mounts: vec![mount("/m", "/s")],
            ..ContainerAdjustment::default()
        };
        let words =
            ContainerAdjustment { args: vec!["x".to_owned()], ..ContainerAdjustment::default() };
        for (asked, what) in [
            (limited, "the memory limit"),
            (device, "device /dev/x"),
            (limit, "the limit RLIMIT_NOFILE"),
            (mounted, "the mount at /m"),
            (words, "the command"),
        ] {
            let mut creating = creating();
            creating.apply(adjust(asked.clone()), "10-a").unwrap();
            let said = creating.apply(adjust(asked), "20-b").unwrap_err().to_string();
            let expected = format!("NRI plugins 10-a and 20-b both set {what} of container c");
            assert!(said.starts_with(&expected), "{said}");
        }
    }

    #[test]
    fn who_takes_away_first_may_set_anew() {
        let mut creating = creating();
        let env = |env: Vec<KeyValue>| {
            adjust(ContainerAdjustment { env, ..ContainerAdjustment::default() })
        };
        creating.apply(env(vec![set("X", "1")]), "10-a").unwrap();
        creating.apply(env(vec![set("-X", ""), set("X", "2")]), "20-b").unwrap();
        let args = |words: &[&str]| {
            let args = words.iter().map(|word| (*word).to_owned()).collect();
            adjust(ContainerAdjustment { args, ..ContainerAdjustment::default() })
        };
        creating.apply(args(&["one"]), "10-a").unwrap();
        creating.apply(args(&["", "two", "three"]), "20-b").unwrap();
        let made = creating.end().0.adjust;
        assert_eq!(made.env, [set("-X", ""), set("X", "2")]);
        assert_eq!(made.args, ["two", "three"]);
    }

    #[test]
    fn hooks_of_several_plugins_add_up() {
        let mut creating = creating();
        for plugin in ["10-a", "20-b"] {
            let hook = crate::wire::Hook { path: plugin.to_owned(), ..Default::default() };
            let hooks = Some(Hooks { prestart: vec![hook], ..Hooks::default() });
            let asked = ContainerAdjustment { hooks, ..ContainerAdjustment::default() };
            creating.apply(adjust(asked), plugin).unwrap();
        }
        let hooks = creating.end().0.adjust.hooks.unwrap();
        let paths: Vec<&str> = hooks.prestart.iter().map(|hook| hook.path.as_str()).collect();
        assert_eq!(paths, ["10-a", "20-b"]);
    }

    #[test]
    fn updates_of_others_are_one_for_each_and_never_of_the_new_one() {
        let mut creating = creating();
        let updates = |update| CreateContainerResponse { update, ..Default::default() };
        let both = vec![update("x", memory(5)), update("y", memory(6))];
        creating.apply(updates(both), "10-a").unwrap();
        creating.apply(updates(vec![update("x", shares(7))]), "20-b").unwrap();
        let conflict = creating.apply(updates(vec![update("y", memory(8))]), "20-b");
        assert!(matches!(conflict, Err(Error::Conflict { .. })), "{conflict:?}");
        let ignored = ContainerUpdate { ignore_failure: true, ..update("y", memory(8)) };
        creating.apply(updates(vec![ignored]), "20-b").unwrap();
        let own = creating.apply(updates(vec![update("c", memory(8))]), "20-b");
        assert!(matches!(own, Err(Error::UpdateOfNew { .. })), "{own:?}");
        let mut expected = memory(5);
        expected.cpu = shares(7).cpu;
        assert_eq!(creating.end().0.updates, [update("x", expected), update("y", memory(6))]);
    }

    #[test]
    fn an_update_goes_through_the_plugins_in_their_order() {
        let mut updating = Updating::new(UpdateContainerRequest {
            container: Some(Container { id: "c".to_owned(), ..Container::default() }),
            linux_resources: Some(memory(1)),
            ..UpdateContainerRequest::default()
        });
        let updates = |update| UpdateContainerResponse { update, ..Default::default() };
        updating
            .apply(updates(vec![update("c", memory(2)), update("x", shares(3))]), "10-a")
            .unwrap();
        assert_eq!(updating.request.linux_resources, Some(memory(2)), "as the next one sees it");
        updating.apply(updates(vec![update("c", shares(4))]), "20-b").unwrap();
        assert!(updating.apply(updates(vec![update("c", memory(5))]), "20-b").is_err());
        let made = updating.end();
        assert_eq!(made.resources, LinuxResources { cpu: shares(4).cpu, ..memory(2) });
        assert_eq!(made.updates, [update("x", shares(3))]);
    }
}
