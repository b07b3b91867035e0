//! User namespaces: made, looked into, entered (user_namespaces(7)).
//!
//! One is held by its descriptor alone. Its maps are written once, by a process outside of it, through
//! a procfs that nobody else sees.

use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    LinkNameSpaceType, capabilities, move_into_link_name_space, set_capabilities,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use shim_sys::clone::{Cloned, clone3};
use shim_sys::exec::exit_now;
use shim_wire::plan::{IdMapping, Plan};

use crate::channel::{Channel, Message};
use crate::create::hide_from_others;
use crate::error::At;
use crate::namespaces::NEW_USER;
use crate::process::Unfinished;
use crate::procfs::Procfs;
use crate::{Error, Rule, Step};

/// A namespace with its maps.
#[derive(Debug)]
pub(crate) struct UserNamespace {
    descriptor: OwnedFd,
    /// Who its root is outside.
    pub(crate) root: Owner,
}

/// A user and a group, as the host counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl UserNamespace {
    /// Makes one.
    pub(crate) fn make(
        uids: &[IdMapping],
        gids: &[IdMapping],
        procfs: &Procfs,
    ) -> Result<Self, Error> {
        let root = root_of(uids, gids)?;
        let descriptor = with_maps(uids, gids, procfs)?;
        Ok(Self { descriptor, root })
    }

    /// One that somebody else made, which errors call `place`. The plan may say what its maps are, and
    /// has to be right.
    pub(crate) fn of(
        descriptor: OwnedFd,
        place: &str,
        plan: &Plan,
        procfs: &Procfs,
    ) -> Result<Self, Error> {
        let (keeper, pid) = keep(0, || {
            move_into_link_name_space(descriptor.as_fd(), Some(LinkNameSpaceType::User))
                .at(Step::JoinNamespace, place)
        })?;
        let read = |file: &str| {
            let path = format!("{pid}/{file}");
            procfs.read(&path).map(|text| parse(&text)).at(Step::ReadMap, path)
        };
        let (uids, gids) = (read("uid_map")?, read("gid_map")?);
        drop(keeper);
        for (path, said, found) in [
            ("linux.uidMappings", &plan.uid_mappings, &uids),
            ("linux.gidMappings", &plan.gid_mappings, &gids),
        ] {
            if !said.is_empty() && said != found {
                return Err(Error::refused(path, Rule::OtherMappings));
            }
        }
        Ok(Self { descriptor, root: root_of(&uids, &gids)? })
    }

    /// Enters it, as nobody yet.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::User))
            .at(Step::JoinNamespace, "the kind user")
    }
}

impl AsFd for UserNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The root of the user namespace that a process is in, as the host counts.
pub(crate) fn root_of_process(pid: i32) -> Result<Owner, Error> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        std::fs::read_to_string(&path)
            .map(|text| parse(&text))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            .at(Step::ReadMap, path)
    };
    root_of(&read("uid_map")?, &read("gid_map")?)
}

/// Becomes the root of the user namespace that this process has entered.
pub(crate) fn become_root() -> Result<(), Error> {
    match set_thread_groups(&[]) {
        // Forbidden for good by who made the namespace (/proc/PID/setgroups).
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(errno).at(Step::Groups, "[]"),
    }
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    set_thread_res_gid(gid, gid, gid).at(Step::Identity, "group 0")?;
    set_thread_res_uid(uid, uid, uid).at(Step::Identity, 0)?;
    // Credentials that change may make a process visible again (proc_sys_fs(5), suid_dumpable).
    hide_from_others()
}

/// Does something as a user of the host who can do what root can: what a file system makes for itself
/// then has an owner on an id-mapped mount.
pub(crate) fn acting_as<T>(
    owner: Owner,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let sets = capabilities(None).at(Step::Capabilities, "the process")?;
    let become_user = |uid: Uid, gid: Gid| {
        // The way back needs root again to change the group.
        set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
        set_thread_res_gid(Gid::ROOT, gid, Gid::ROOT)?;
        set_thread_res_uid(Uid::ROOT, uid, Uid::ROOT)?;
        set_capabilities(None, sets)
    };
    become_user(Uid::from_raw(owner.uid), Gid::from_raw(owner.gid))
        .at(Step::Identity, owner.uid)?;
    let done = work();
    become_user(Uid::ROOT, Gid::ROOT).at(Step::Identity, 0)?;
    done
}

/// A namespace of its own for nothing but its maps.
pub(crate) fn with_maps(
    uids: &[IdMapping],
    gids: &[IdMapping],
    procfs: &Procfs,
) -> Result<OwnedFd, Error> {
    let (keeper, pid) = keep(NEW_USER, || Ok(()))?;
    for (file, mappings) in [("uid_map", uids), ("gid_map", gids)] {
        let path = format!("{pid}/{file}");
        let name = if file == "uid_map" { "uidMappings" } else { "gidMappings" };
        procfs.write(&path, &text(mappings)).at(Step::WriteMap, format_args!("{file} ({name})"))?;
    }
    let path = format!("{pid}/ns/user");
    let descriptor = procfs.open_namespace(&path).at(Step::OpenNamespace, path)?;
    drop(keeper);
    Ok(descriptor)
}

/// A process that does nothing but keep a namespace, until it is dropped: it, and its number.
fn keep(
    namespaces: u64,
    enter: impl FnOnce() -> Result<(), Error>,
) -> Result<(Unfinished, i32), Error> {
    let (ours, theirs) = Channel::pair().at(Step::Channel, "a socket")?;
    match clone3(namespaces, None).at(Step::Clone, "a user namespace")? {
        Cloned::Child => {
            drop(ours);
            let said = enter().map_or_else(Message::Failed, |()| Message::Ready);
            if theirs.send(&said).is_ok() {
                let _ = theirs.receive();
            }
            exit_now(0)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let keeper = Unfinished::new(pid, pidfd, ours);
            keeper.ready()?;
            Ok((keeper, pid))
        }
    }
}

fn root_of(uids: &[IdMapping], gids: &[IdMapping]) -> Result<Owner, Error> {
    let outside = |mappings: &[IdMapping], path| {
        let found = mappings.iter().find(|mapping| mapping.inside == 0 && mapping.size > 0);
        found.map(|mapping| mapping.outside).ok_or_else(|| Error::refused(path, Rule::NoRoot))
    };
    Ok(Owner { uid: outside(uids, "linux.uidMappings")?, gid: outside(gids, "linux.gidMappings")? })
}

fn text(mappings: &[IdMapping]) -> String {
    let mut text = String::new();
    for IdMapping { inside, outside, size } in mappings {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{inside} {outside} {size}");
    }
    text
}

fn parse(text: &str) -> Vec<IdMapping> {
    let mapping = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        Some(IdMapping { inside: next()?, outside: next()?, size: next()? })
    };
    text.lines().filter_map(mapping).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read_as_the_kernel_writes_them() {
        let mappings = [
            IdMapping { inside: 0, outside: 100_000, size: 1000 },
            IdMapping { inside: 1000, outside: 1000, size: 1 },
        ];
        let kernels = "         0     100000       1000\n      1000       1000          1\n";
        assert_eq!(parse(kernels), mappings);
        assert_eq!(text(&mappings), "0 100000 1000\n1000 1000 1\n");
        assert_eq!(root_of(&mappings, &mappings).unwrap(), Owner { uid: 100_000, gid: 100_000 });
        assert_eq!(root_of(&mappings[1..], &mappings).unwrap_err().kind(), crate::Kind::Refused);
    }
}
