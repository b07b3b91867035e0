//! The process: words, credentials, limits, terminal.

use oci_spec::runtime as oci;
use shim_wire::plan::{Capabilities, Notify, Process, Rlimit, Scheduler, User};

use crate::capability::{self, CapabilitySet};
use crate::{Error, seccomp};

/// Width and height of the terminal: what the caller knows, else the spec's. Without a terminal that
/// says nothing (config.md, `consoleSize`).
pub(crate) fn window(process: &oci::Process, width: u32, height: u32) -> Result<(u32, u32), Error> {
    let is_asked = width == 0 && height == 0 && process.terminal() == Some(true);
    let Some(size) = process.console_size().filter(|_| is_asked) else {
        return Ok((width, height));
    };
    let dimension = |value: u64, name: &str| {
        u16::try_from(value).map(u32::from).map_err(|_| {
            let at = format!("process.consoleSize.{name}");
            Error::malformed(at, value.to_string(), "a terminal's size")
        })
    };
    Ok((dimension(size.width(), "width")?, dimension(size.height(), "height")?))
}

/// Everything but `init`, under the compiled `seccomp` profile.
pub(crate) fn lower(
    process: &oci::Process,
    seccomp: Option<&oci::LinuxSeccomp>,
    user: &str,
) -> Result<Process, Error> {
    let args = process.args().clone().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        return Err(Error::missing("process.args"));
    }
    no_nul(&args, "process.args")?;
    let env = process.env().clone().unwrap_or_default();
    no_nul(&env, "process.env")?;
    variables(&env, "process.env")?;
    let cwd = process.cwd().to_str().filter(|cwd| cwd.starts_with('/') && !cwd.contains('\0'));
    let cwd = cwd.ok_or_else(|| {
        Error::malformed("process.cwd", process.cwd().to_string_lossy(), "an absolute path")
    })?;
    let oom_score_adj = process.oom_score_adj();
    if let Some(score) = oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
        return Err(Error::malformed(
            "process.oomScoreAdj",
            score.to_string(),
            "between -1000 and 1000",
        ));
    }
    let filter = seccomp.map(seccomp::compile).transpose()?;
    let notify = match (seccomp, &filter) {
        (Some(profile), Some(filter)) if filter.notifies => Some(notify(profile)?),
        (_, _) => None,
    };
    let (seccomp, seccomp_flags) =
        filter.map_or((Vec::new(), 0), |filter| (filter.program.to_vec(), filter.flags));
    let (user, umask) = credentials(process.user(), user)?;
    let affinity = process.exec_cpu_affinity().as_ref();
    let cpus = |list: Option<&String>, name: &str| {
        cpus(list.map_or("", String::as_str), &format!("process.execCPUAffinity.{name}"))
    };
    Ok(Process {
        args,
        env,
        cwd: cwd.to_owned(),
        user: Some(user),
        capabilities: Some(capabilities(process.capabilities().as_ref())?),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default())?,
        oom_score_adj,
        seccomp,
        seccomp_flags,
        terminal: process.terminal().unwrap_or(false),
        umask,
        scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
        io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
        cpus_at_clone: cpus(affinity.and_then(|list| list.initial().as_ref()), "initial")?,
        cpus: cpus(affinity.and_then(|list| list.cpu_affinity_final().as_ref()), "final")?,
        personality: None,
        notify,
        init: false,
        apparmor: process.apparmor_profile().clone().unwrap_or_default(),
        selinux: process.selinux_label().clone().unwrap_or_default(),
        ..Process::default()
    })
}

/// # Errors
/// Names the entry that has no name or no `=`.
pub(crate) fn variables(env: &[String], at: &str) -> Result<(), Error> {
    let nameless = |entry: &String| entry.find('=').is_none_or(|position| position == 0);
    match env.iter().enumerate().find(|(_, entry)| nameless(entry)) {
        Some((index, entry)) => {
            Err(Error::malformed(format!("{at}[{index}]"), entry, "NAME=value"))
        }
        None => Ok(()),
    }
}

/// Leaves out the groups that `/etc/group` gives to the user.
pub(crate) fn leave_groups(process: &mut Process, strict: bool) {
    if let Some(user) = &mut process.user {
        user.strict = strict;
    }
}

fn credentials(user: &oci::User, name: &str) -> Result<(User, Option<u32>), Error> {
    // (uid_t)-1 means "leave it" to the kernel: setresuid(2).
    let groups = user.additional_gids().iter().flatten().enumerate();
    let groups = groups.map(|(index, gid)| (*gid, format!("additionalGids[{index}]")));
    let own = [(user.uid(), "uid".to_owned()), (user.gid(), "gid".to_owned())];
    for (id, field) in own.into_iter().chain(groups) {
        if id == u32::MAX {
            let at = format!("process.user.{field}");
            return Err(Error::malformed(at, id.to_string(), "below 4294967295"));
        }
    }
    if name.contains('\0') {
        return Err(Error::malformed("process.user", name, "a user's name"));
    }
    if user.umask().is_some_and(|umask| umask > 0o777) {
        let value = user.umask().unwrap_or_default().to_string();
        return Err(Error::malformed("process.user.umask", value, "permission bits"));
    }
    let lowered = User {
        uid: user.uid(),
        gid: user.gid(),
        additional_gids: user.additional_gids().clone().unwrap_or_default(),
        name: name.to_owned(),
        strict: false,
    };
    Ok((lowered, user.umask()))
}

/// Everything but the container's state.
fn notify(profile: &oci::LinuxSeccomp) -> Result<Notify, Error> {
    let path = profile.listener_path().as_deref().unwrap_or(std::path::Path::new(""));
    // sun_path of unix(7).
    let usable = |path: &&str| path.starts_with('/') && path.len() < 108 && !path.contains('\0');
    let path = path.to_str().filter(usable).ok_or_else(|| {
        let value = path.to_string_lossy();
        Error::malformed("linux.seccomp.listenerPath", value, "an absolute path of a socket")
    })?;
    let metadata = profile.listener_metadata().clone().unwrap_or_default();
    Ok(Notify { path: path.to_owned(), metadata, state: None, is_exec: false })
}

/// SCHED_* and SCHED_FLAG_* of `linux/sched.h`.
fn scheduler(scheduler: &oci::Scheduler) -> Result<Scheduler, Error> {
    use oci::{LinuxSchedulerFlag as Flag, LinuxSchedulerPolicy as Policy};
    const AT: &str = "process.scheduler";
    let policy = scheduler.policy();
    let number = match policy {
        Policy::SchedOther => 0,
        Policy::SchedFifo => 1,
        Policy::SchedRr => 2,
        Policy::SchedBatch => 3,
        // Reserved, and never built into any kernel.
        Policy::SchedIso => return Err(Error::value(format!("{AT}.policy"), policy.to_string())),
        Policy::SchedIdle => 5,
        Policy::SchedDeadline => 6,
    };
    let has_deadline = *policy == Policy::SchedDeadline;
    let mut flags = 0;
    for (index, flag) in scheduler.flags().iter().flatten().enumerate() {
        let refused = |why| Err(Error::contradiction(format!("{AT}.flags[{index}]"), why));
        flags |= match flag {
            Flag::SchedResetOnFork => 0x01,
            Flag::SchedFlagReclaim if has_deadline => 0x02,
            Flag::SchedFlagDLOverrun if has_deadline => 0x04,
            Flag::SchedFlagReclaim | Flag::SchedFlagDLOverrun => {
                return refused("belongs to SCHED_DEADLINE alone");
            }
            Flag::SchedFlagKeepPolicy => 0x08,
            Flag::SchedFlagKeepParams => 0x10,
            Flag::SchedFlagUtilClampMin | Flag::SchedFlagUtilClampMax => {
                return refused("clamps to a value, and the specification has none for it");
            }
        };
    }
    let nice = scheduler.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        let at = format!("{AT}.nice");
        return Err(Error::malformed(at, nice.to_string(), "between -20 and 19"));
    }
    if nice != 0 && !matches!(policy, Policy::SchedOther | Policy::SchedBatch) {
        let why = "belongs to SCHED_OTHER and SCHED_BATCH alone";
        return Err(Error::contradiction(format!("{AT}.nice"), why));
    }
    let priority = scheduler.priority().unwrap_or(0);
    let realtime = matches!(policy, Policy::SchedFifo | Policy::SchedRr);
    let at = format!("{AT}.priority");
    match (realtime, u32::try_from(priority)) {
        (true, Ok(1..=99)) | (false, Ok(0)) => {}
        (true, _) => {
            return Err(Error::malformed(at, priority.to_string(), "between 1 and 99"));
        }
        (false, _) => {
            return Err(Error::contradiction(at, "belongs to SCHED_FIFO and SCHED_RR alone"));
        }
    }
    let [runtime, deadline, period] =
        [scheduler.runtime(), scheduler.deadline(), scheduler.period()]
            .map(|time| time.unwrap_or(0));
    let times = [("runtime", runtime), ("deadline", deadline), ("period", period)];
    if has_deadline {
        check_times(AT, runtime, deadline, period)?;
    } else if let Some((name, _)) = times.into_iter().find(|(_, time)| *time != 0) {
        let why = "runtime, deadline and period belong to SCHED_DEADLINE alone";
        return Err(Error::contradiction(format!("{AT}.{name}"), why));
    }
    let priority = priority.unsigned_abs();
    Ok(Scheduler { policy: number, flags, nice, priority, runtime, deadline, period })
}

/// What SCHED_DEADLINE takes, in nanoseconds (sched(7), and `__checkparam_dl` of the kernel); how long
/// or short a period may be is the machine's to say (`/proc/sys/kernel/sched_deadline_period_*_us`).
fn check_times(at: &str, runtime: u64, deadline: u64, period: u64) -> Result<(), Error> {
    /// One unit of the kernel's own counting.
    const SHORTEST: u64 = 1024;
    const LONGEST: u64 = i64::MAX.unsigned_abs();
    if runtime < SHORTEST {
        let expected = "1024 nanoseconds or more, which SCHED_DEADLINE needs";
        return Err(Error::malformed(format!("{at}.runtime"), runtime.to_string(), expected));
    }
    for (name, time) in [("deadline", deadline), ("period", period)] {
        if time > LONGEST {
            let expected = "below 2^63 nanoseconds";
            return Err(Error::malformed(format!("{at}.{name}"), time.to_string(), expected));
        }
    }
    if deadline < runtime {
        let why = "is less than process.scheduler.runtime, and SCHED_DEADLINE needs runtime <= deadline <= period";
        return Err(Error::contradiction(format!("{at}.deadline"), why));
    }
    // A period of 0 is the deadline.
    if period != 0 && period < deadline {
        let why = "is less than process.scheduler.deadline, and SCHED_DEADLINE needs runtime <= deadline <= period";
        return Err(Error::contradiction(format!("{at}.period"), why));
    }
    Ok(())
}

/// IOPRIO_CLASS_* of `linux/ioprio.h`.
fn io_priority(priority: &oci::LinuxIOPriority) -> Result<u32, Error> {
    let class = match priority.class() {
        oci::IOPriorityClass::IoprioClassRt => 1,
        oci::IOPriorityClass::IoprioClassBe => 2,
        oci::IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = priority.priority();
    let level = u32::try_from(level).ok().filter(|level| *level <= 7).ok_or_else(|| {
        Error::malformed("process.ioPriority.priority", level.to_string(), "between 0 and 7")
    })?;
    Ok(class << 13 | level)
}

/// A list such as `0-3,7` as a mask of bits.
fn cpus(list: &str, at: &str) -> Result<Vec<u8>, Error> {
    /// CONFIG_NR_CPUS is never more.
    const MOST: usize = 8192;
    let mut mask = Vec::new();
    let malformed = || Error::malformed(at, list, "a list of CPUs below 8192 such as 0-3,7");
    for range in list.split(',').filter(|_| !list.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
            return Err(malformed());
        };
        if first > last || last >= MOST {
            return Err(malformed());
        }
        mask.resize(mask.len().max(last / 8 + 1), 0);
        for cpu in first..=last {
            mask[cpu / 8] |= 1 << (cpu % 8);
        }
    }
    Ok(mask)
}

/// PER_* of personality(2).
pub(crate) fn personality(personality: &oci::LinuxPersonality) -> Result<u32, Error> {
    if let Some(flag) = personality.flags().iter().flatten().next() {
        return Err(Error::value("linux.personality.flags[0]", flag));
    }
    Ok(match personality.domain() {
        oci::LinuxPersonalityDomain::PerLinux => 0,
        oci::LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

/// No `process.capabilities` at all: the sets are empty, as the specification has it for a process
/// without any.
fn capabilities(sets: Option<&oci::LinuxCapabilities>) -> Result<Capabilities, Error> {
    let Some(sets) = sets else { return Ok(Capabilities::default()) };
    let bits = |names: &Option<oci::Capabilities>| {
        let names: Vec<String> = names.iter().flatten().map(|name| name.to_string()).collect();
        // Every name of the typed spec is known here: a test holds the two tables together.
        CapabilitySet::of(names.iter().map(String::as_str)).unwrap_or_default()
    };
    let [bounding, effective, permitted, inheritable] =
        [sets.bounding(), sets.effective(), sets.permitted(), sets.inheritable()].map(bits);
    // The kernel's rules, capset(2).
    for (set, field, within, why) in [
        (effective, "effective", permitted, "names what process.capabilities.permitted does not"),
        (inheritable, "inheritable", bounding, "names what process.capabilities.bounding does not"),
    ] {
        if set.without(within) != CapabilitySet::default() {
            return Err(Error::contradiction(format!("process.capabilities.{field}"), why));
        }
    }
    // Those that can't be ambient are passed over, as runc has it; `parse` warns of them.
    let ambient = bits(sets.ambient()).0 & permitted.0 & inheritable.0;
    Ok(Capabilities {
        bounding: bounding.0,
        effective: effective.0,
        permitted: permitted.0,
        inheritable: inheritable.0,
        ambient,
    })
}

/// As [`crate::restrict`].
pub(crate) fn restrict(process: &mut oci::Process, held: CapabilitySet) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(mut sets) = process.capabilities().clone() else { return warnings };
    let mut kept = |set: &Option<oci::Capabilities>, name: &str| {
        let mut set = set.clone();
        let mut lost = CapabilitySet::default();
        if let Some(set) = &mut set {
            set.retain(|one| match capability::number(&one.to_string()) {
                Some(number) if !held.contains(number) => {
                    lost = lost.with(number);
                    false
                }
                Some(_) | None => true,
            });
        }
        if lost != CapabilitySet::default() {
            let lost = lost.names().collect::<Vec<_>>().join(", ");
            warnings.push(format!(
                "process.capabilities.{name}: this runtime has no {lost} to give, which is passed over"
            ));
        }
        set
    };
    let bounding = kept(sets.bounding(), "bounding");
    let effective = kept(sets.effective(), "effective");
    let permitted = kept(sets.permitted(), "permitted");
    let inheritable = kept(sets.inheritable(), "inheritable");
    let ambient = kept(sets.ambient(), "ambient");
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    sets.set_inheritable(inheritable).set_ambient(ambient);
    process.set_capabilities(Some(sets));
    warnings
}

/// RLIMIT_* of `asm-generic/resource.h`, as x86, arm, riscv and s390 have them.
fn rlimits(limits: &[oci::PosixRlimit]) -> Result<Vec<Rlimit>, Error> {
    use oci::PosixRlimitType as Type;
    let mut lowered: Vec<Rlimit> = Vec::with_capacity(limits.len());
    for (index, limit) in limits.iter().enumerate() {
        let resource = match limit.typ() {
            Type::RlimitCpu => 0,
            Type::RlimitFsize => 1,
            Type::RlimitData => 2,
            Type::RlimitStack => 3,
            Type::RlimitCore => 4,
            Type::RlimitRss => 5,
            Type::RlimitNproc => 6,
            Type::RlimitNofile => 7,
            Type::RlimitMemlock => 8,
            Type::RlimitAs => 9,
            Type::RlimitLocks => 10,
            Type::RlimitSigpending => 11,
            Type::RlimitMsgqueue => 12,
            Type::RlimitNice => 13,
            Type::RlimitRtprio => 14,
            Type::RlimitRttime => 15,
        };
        let at = format!("process.rlimits[{index}]");
        if lowered.iter().any(|earlier| earlier.resource == resource) {
            return Err(Error::contradiction(at, "a second limit of the same type"));
        }
        if limit.soft() > limit.hard() {
            return Err(Error::contradiction(at, "soft is higher than hard"));
        }
        lowered.push(Rlimit { resource, soft: limit.soft(), hard: limit.hard() });
    }
    Ok(lowered)
}

pub(crate) fn no_nul(words: &[String], at: &str) -> Result<(), Error> {
    match words.iter().position(|word| word.contains('\0')) {
        Some(index) => {
            Err(Error::malformed(format!("{at}[{index}]"), &words[index], "text without NUL bytes"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_that_a_spec_can_name_has_its_bit() {
        let all = CapabilitySet::all(63);
        let names: Vec<String> = all.names().collect();
        let sets = serde_json::json!({
            "bounding": names, "permitted": ["CAP_BPF"], "effective": ["CAP_BPF"]
        });
        let sets: oci::LinuxCapabilities = serde_json::from_value(sets).unwrap();
        let lowered = capabilities(Some(&sets)).unwrap();
        assert_eq!((lowered.bounding, lowered.effective), (all.0, 1 << 39));
        for name in sets.bounding().iter().flatten().map(ToString::to_string) {
            assert!(CapabilitySet::of([name.as_str()]).is_ok(), "{name}");
        }
    }
}
