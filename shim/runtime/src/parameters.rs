//! Host name and kernel parameters: of the container's own namespaces, never of the host's.

use shim_wire::plan::Sysctl;

use crate::error::At;
use crate::namespaces::{NEW_IPC, NEW_NET, NEW_UTS};
use crate::procfs::Procfs;
use crate::{Error, Rule, Step};

/// What of the IPC namespace is set below `kernel/` (ipc_namespaces(7)).
const IPC: [&str; 9] = [
    "kernel/msg_next_id",
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shm_rmid_forced",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
];

/// Sets the host and domain names; `own` are the kinds of namespaces that are not the host's.
pub(crate) fn set_names(own: u64, hostname: &str, domainname: &str) -> Result<(), Error> {
    let set = |field: &str, name: &str, set: fn(&[u8]) -> rustix::io::Result<()>| {
        if name.is_empty() {
            return Ok(());
        }
        if own & NEW_UTS == 0 {
            return Err(Error::refused(format!("{field} {name:?}"), Rule::HostnameNamespace));
        }
        set(name.as_bytes()).at(Step::Hostname, format_args!("{field} {name:?}"))
    };
    set("hostname", hostname, rustix::system::sethostname)?;
    set("domainname", domainname, rustix::system::setdomainname)
}

/// Sets kernel parameters, all checked before the first is set.
pub(crate) fn set_sysctls(own: u64, sysctls: &[Sysctl], procfs: &Procfs) -> Result<(), Error> {
    let [net, ipc, uts] = [NEW_NET, NEW_IPC, NEW_UTS].map(|kind| own & kind != 0);
    sysctls.iter().try_for_each(|sysctl| check(sysctl, net, ipc, uts))?;
    sysctls.iter().try_for_each(|sysctl| {
        procfs
            .write(&format!("sys/{}", sysctl.path), &sysctl.value)
            .at(Step::Sysctl, format_args!("{} to {:?}", place(&sysctl.path), sysctl.value))
    })
}

/// Where the specification has a parameter: with points for slashes, and the other way around.
fn place(path: &str) -> String {
    let swapped = path.chars().map(|character| match character {
        '/' => '.',
        '.' => '/',
        other => other,
    });
    format!("linux.sysctl.{}", swapped.collect::<String>())
}

/// Takes out those whose namespace is not among the new ones.
pub(crate) fn take_of_others(sysctls: &mut Vec<Sysctl>, new: u64) -> Vec<Sysctl> {
    let is_new = |sysctl: &Sysctl| {
        let kind = match sysctl.path.as_str() {
            "kernel/hostname" | "kernel/domainname" => NEW_UTS,
            path if path.starts_with("net/") => NEW_NET,
            _ => NEW_IPC,
        };
        new & kind != 0
    };
    let (own, others) = std::mem::take(sysctls).into_iter().partition(is_new);
    *sysctls = own;
    others
}

/// Only parameters of namespaces that are the container's own, and only one line for each
/// (CVE-2022-0811's class).
fn check(sysctl: &Sysctl, net: bool, ipc: bool, uts: bool) -> Result<(), Error> {
    let path = sysctl.path.as_str();
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Error::refused(format!("linux.sysctl: {path:?}"), Rule::SysctlName));
    }
    if sysctl.value.chars().any(|character| character.is_control() && character != '\t') {
        let object = format!("{}: {:?}", place(path), sysctl.value);
        return Err(Error::refused(object, Rule::SysctlValue));
    }
    let is_own = path.starts_with("net/") && net
        || (IPC.contains(&path) || path.starts_with("fs/mqueue/")) && ipc
        || ["kernel/hostname", "kernel/domainname"].contains(&path) && uts;
    if is_own { Ok(()) } else { Err(Error::refused(place(path), Rule::SysctlNamespace)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_called_as_the_specification_has_it() {
        assert_eq!(place("net/ipv4/conf/eth0.1/x"), "linux.sysctl.net.ipv4.conf.eth0/1.x");
    }

    #[test]
    fn kernel_parameters_are_the_containers_own_and_one_line() {
        let check = |path: &str, value: &str, net, ipc, uts| {
            let sysctl = Sysctl { path: path.to_owned(), value: value.to_owned() };
            super::check(&sysctl, net, ipc, uts).is_ok()
        };
        assert!(check("net/ipv4/ip_forward", "1", true, false, false));
        assert!(!check("net/ipv4/ip_forward", "1", false, true, true));
        assert!(check("kernel/shmmax", "1", false, true, false));
        assert!(check("kernel/sem", "250\t32000\t32\t128", false, true, false));
        assert!(check("kernel/domainname", "x", false, false, true));
        for path in ["kernel/core_pattern", "vm/swappiness", "kernel/sysrq", "fs/file-max"] {
            assert!(!check(path, "1", true, true, true), "{path}");
        }
        for path in ["net/../kernel/sysrq", "net//x", "net/./x", "/net/x", ""] {
            assert!(!check(path, "1", true, true, true), "{path}");
        }
        for value in ["1\n2", "1\0", "1\r"] {
            assert!(!check("net/x", value, true, true, true), "{value:?}");
        }
    }
}
