//! The process: words, credentials, limits, terminal.

use oci_spec::runtime as oci;
use shim_wire::plan::{Capabilities, Process, Rlimit, User};

use crate::capability::CapabilitySet;
use crate::{Error, seccomp};

/// Width and height of the terminal: what the caller knows, else the spec's.
pub(crate) fn window(process: &oci::Process, width: u32, height: u32) -> Result<(u32, u32), Error> {
    let Some(size) = process.console_size().filter(|_| width == 0 && height == 0) else {
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
    for (index, entry) in env.iter().enumerate() {
        if entry.find('=').is_none_or(|position| position == 0) {
            return Err(Error::malformed(format!("process.env[{index}]"), entry, "NAME=value"));
        }
    }
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
    let (seccomp, seccomp_flags) = match seccomp.map(seccomp::compile).transpose()? {
        Some(filter) => (filter.program.to_vec(), filter.flags),
        None => (Vec::new(), 0),
    };
    let (user, umask) = credentials(process.user(), user)?;
    Ok(Process {
        args,
        env,
        cwd: cwd.to_owned(),
        user: Some(user),
        capabilities: Some(capabilities(process.capabilities().as_ref())),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default())?,
        oom_score_adj,
        seccomp,
        seccomp_flags,
        terminal: process.terminal().unwrap_or(false),
        umask,
        init: false,
        apparmor: process.apparmor_profile().clone().unwrap_or_default(),
        selinux: process.selinux_label().clone().unwrap_or_default(),
        ..Process::default()
    })
}

fn credentials(user: &oci::User, name: &str) -> Result<(User, Option<u32>), Error> {
    // (uid_t)-1 means "leave it" to the kernel: setresuid(2).
    for (id, field) in [(user.uid(), "uid"), (user.gid(), "gid")] {
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
    };
    Ok((lowered, user.umask()))
}

/// No `process.capabilities` at all: the sets are empty, as the specification has it for a process
/// without any.
fn capabilities(sets: Option<&oci::LinuxCapabilities>) -> Capabilities {
    let Some(sets) = sets else { return Capabilities::default() };
    let bits = |names: &Option<oci::Capabilities>| {
        let names: Vec<String> = names.iter().flatten().map(|name| name.to_string()).collect();
        // Every name of the typed spec is known here: a test holds the two tables together.
        CapabilitySet::of(names.iter().map(String::as_str)).unwrap_or_default().0
    };
    Capabilities {
        bounding: bits(sets.bounding()),
        effective: bits(sets.effective()),
        permitted: bits(sets.permitted()),
        inheritable: bits(sets.inheritable()),
        ambient: bits(sets.ambient()),
    }
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
        let sets = serde_json::json!({"bounding": names, "effective": ["CAP_BPF"]});
        let sets: oci::LinuxCapabilities = serde_json::from_value(sets).unwrap();
        let lowered = capabilities(Some(&sets));
        assert_eq!((lowered.bounding, lowered.effective), (all.0, 1 << 39));
        for name in sets.bounding().iter().flatten().map(ToString::to_string) {
            assert!(CapabilitySet::of([name.as_str()]).is_ok(), "{name}");
        }
    }
}
