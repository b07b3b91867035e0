//! Namespaces, and what needs one of its own: the hostname, clocks and sysctls.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, LinuxTimeOffset, Spec};
use shim_wire::plan::{Join, Sysctl, TimeOffset};

use crate::users::Users;
use crate::{Context, Error, mounts, users};

/// The kernel's limit for both names of uts_namespaces(7).
const UTS_NAME_MAX: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    pub(crate) clone_flags: u64,
    pub(crate) join: Vec<Join>,
    pub(crate) new_cgroup_namespace: bool,
    pub(crate) loopback: bool,
    pub(crate) hostname: String,
    pub(crate) domainname: String,
    pub(crate) sysctls: Vec<Sysctl>,
    pub(crate) time_offsets: Vec<TimeOffset>,
    pub(crate) users: Users,
    pub(crate) has_user: bool,
}

pub(crate) fn lower(spec: &Spec, context: &Context) -> Result<Namespaces, Error> {
    let linux = spec.linux().as_ref().ok_or_else(|| Error::missing("linux"))?;
    let mut lowered = Namespaces::default();
    let mut seen: u64 = 0;
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let at = format!("linux.namespaces[{index}]");
        let kind = namespace.typ() as u64;
        if seen & kind != 0 {
            return Err(Error::contradiction(at, "a second namespace of the same type"));
        }
        seen |= kind;
        add(&mut lowered, namespace, index, context.network_handed_over)?;
    }
    if seen & LinuxNamespaceType::Mount as u64 == 0 {
        return Err(Error::contradiction(
            "linux.namespaces",
            "a container has a mount namespace of its own, this spec has none",
        ));
    }
    if context.network_handed_over && seen & LinuxNamespaceType::Network as u64 == 0 {
        return Err(Error::contradiction(
            "linux.namespaces",
            "a network namespace is handed over, this spec keeps the host's",
        ));
    }
    let own = |kind: LinuxNamespaceType| seen & kind as u64 != 0;
    let mount = LinuxNamespaceType::Mount as u64;
    if let Some(join) = lowered.join.iter().find(|join| join.kind == mount)
        && own(LinuxNamespaceType::User)
    {
        // It is of whoever made it, and in a user namespace nobody mounts in what is not its own.
        let at = format!("linux.namespaces[{}].path", join.index);
        let why = "a mount namespace that is joined, beside a user namespace: not supported";
        return Err(Error::contradiction(at, why));
    }
    let is_new = |lowered: &Namespaces, kind| lowered.clone_flags & kind as u64 != 0;
    lowered.has_user = own(LinuxNamespaceType::User);
    let namespace = match (lowered.has_user, is_new(&lowered, LinuxNamespaceType::User)) {
        (false, _) => users::Namespace::None,
        (true, true) => users::Namespace::New,
        (true, false) => users::Namespace::Joined,
    };
    lowered.users = users::lower(spec, namespace)?;
    let uts = own(LinuxNamespaceType::Uts);
    lowered.hostname = uts_name(spec.hostname().as_deref(), "hostname", uts)?;
    lowered.domainname = uts_name(spec.domainname().as_deref(), "domainname", uts)?;
    if let Some(settings) = linux.sysctl() {
        lowered.sysctls = sysctls(settings, own)?;
        let is_name = |sysctl: &Sysctl| sysctl.path == "kernel/domainname";
        if !lowered.domainname.is_empty() && lowered.sysctls.iter().any(is_name) {
            let at = "linux.sysctl.kernel.domainname";
            return Err(Error::contradiction(at, "is set by the spec's domainname"));
        }
    }
    if let Some(offsets) = linux.time_offsets() {
        lowered.time_offsets = time_offsets(offsets, is_new(&lowered, LinuxNamespaceType::Time))?;
    }
    Ok(lowered)
}

fn add(
    lowered: &mut Namespaces,
    namespace: &LinuxNamespace,
    index: usize,
    network_handed_over: bool,
) -> Result<(), Error> {
    let at = format!("linux.namespaces[{index}]");
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    let typ = namespace.typ();
    let kind = typ as u64;
    let path = namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty());
    match typ {
        LinuxNamespaceType::Network if network_handed_over => {
            if path.is_some() {
                return Err(Error::contradiction(
                    format!("{at}.path"),
                    "the network namespace is handed over as a descriptor as well",
                ));
            }
            lowered.join.push(Join { kind, path: String::new(), index });
            return Ok(());
        }
        LinuxNamespaceType::Mount
        | LinuxNamespaceType::Network
        | LinuxNamespaceType::Cgroup
        | LinuxNamespaceType::Uts
        | LinuxNamespaceType::Ipc
        | LinuxNamespaceType::Time
        | LinuxNamespaceType::User
        | LinuxNamespaceType::Pid => {}
    }
    if let Some(path) = path {
        let path = mounts::host_path(path, None, &format!("{at}.path"))?;
        lowered.join.push(Join { kind, path, index });
    } else if typ == LinuxNamespaceType::Cgroup {
        lowered.new_cgroup_namespace = true;
    } else {
        lowered.loopback |= typ == LinuxNamespaceType::Network;
        lowered.clone_flags |= kind;
    }
    Ok(())
}

fn uts_name(name: Option<&str>, at: &str, own_uts: bool) -> Result<String, Error> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(String::new()) };
    if !own_uts {
        return Err(Error::contradiction(
            at,
            "would rename the host: linux.namespaces has no uts namespace",
        ));
    }
    if name.len() > UTS_NAME_MAX || name.contains(['\0', '\n']) {
        return Err(Error::malformed(at, name, "one line of at most 64 bytes"));
    }
    Ok(name.to_owned())
}

/// The clocks of time_namespaces(7), in the order of their names.
fn time_offsets(
    offsets: &HashMap<String, LinuxTimeOffset>,
    is_new: bool,
) -> Result<Vec<TimeOffset>, Error> {
    const NANOSECONDS: u32 = 1_000_000_000;
    if !offsets.is_empty() && !is_new {
        return Err(Error::contradiction(
            "linux.timeOffsets",
            "clocks are set in a new time namespace only, and linux.namespaces has none",
        ));
    }
    let mut lowered = Vec::with_capacity(offsets.len());
    for (clock, offset) in offsets {
        if !["monotonic", "boottime"].contains(&clock.as_str()) {
            return Err(Error::malformed("linux.timeOffsets", clock, "monotonic or boottime"));
        }
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        if nanoseconds >= NANOSECONDS {
            let at = format!("linux.timeOffsets.{clock}.nanosecs");
            return Err(Error::malformed(at, nanoseconds.to_string(), "below 1000000000"));
        }
        let seconds = offset.secs().unwrap_or(0);
        lowered.push(TimeOffset { clock: clock.clone(), seconds, nanoseconds });
    }
    lowered.sort_by(|left, right| left.clock.cmp(&right.clock));
    Ok(lowered)
}

/// Sysctls of the kernel that belong to a namespace (namespaces(7)); all others are the host's.
fn sysctls(
    settings: &HashMap<String, String>,
    own: impl Fn(LinuxNamespaceType) -> bool,
) -> Result<Vec<Sysctl>, Error> {
    const IPC: [&str; 8] =
        ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
    let mut lowered = Vec::with_capacity(settings.len());
    for (name, value) in settings {
        let at = format!("linux.sysctl.{name}");
        let path = sysctl_path(name);
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains('\0') {
            return Err(Error::malformed("linux.sysctl", name, "the name of a sysctl"));
        }
        let (needs, why) = if path.starts_with("net/") {
            (LinuxNamespaceType::Network, "would change the host: no network namespace of its own")
        } else if path.starts_with("fs/mqueue/")
            || path.strip_prefix("kernel/").is_some_and(|rest| IPC.contains(&rest))
        {
            (LinuxNamespaceType::Ipc, "would change the host: no ipc namespace of its own")
        } else if path == "kernel/domainname" {
            (LinuxNamespaceType::Uts, "would change the host: no uts namespace of its own")
        } else if path == "kernel/hostname" {
            return Err(Error::contradiction(at, "is set by the spec's hostname"));
        } else {
            return Err(Error::contradiction(
                at,
                "belongs to no namespace, it would change the host",
            ));
        };
        if !own(needs) {
            return Err(Error::contradiction(at, why));
        }
        if value.is_empty() {
            return Err(Error::malformed(
                at,
                value,
                "a value: the kernel would take nothing for it",
            ));
        }
        if lowered.iter().any(|earlier: &Sysctl| earlier.path == path) {
            return Err(Error::contradiction(at, "is there twice, with dots and with slashes"));
        }
        lowered.push(Sysctl { path, value: value.clone() });
    }
    lowered.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(lowered)
}

/// sysctl.d(5): when the first separator is a dot, dots and slashes trade places, so that
/// `net.ipv4.conf.eth0/1.forwarding` names the interface `eth0.1`.
fn sysctl_path(name: &str) -> String {
    match name.find(['.', '/']).map(|index| name.as_bytes()[index]) {
        Some(b'.') => name
            .chars()
            .map(|char| match char {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        Some(_) | None => name.to_owned(),
    }
}
