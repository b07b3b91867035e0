//! The parent's side of a new container.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::DumpableBehavior;
use shim_cgroup::{Cgroup, Layout};
use shim_sys::clone::{Cloned, NAMESPACES, clone3};
use shim_wire::files::RunDir;
use shim_wire::hooks::HookKind;
use shim_wire::plan::{CreateOptions, Resources};

use crate::channel::{Channel, Message};
use crate::child::Birth;
use crate::error::At;
use crate::namespaces::{Joined, NEW_CGROUP, NEW_MOUNT, NEW_PID, NEW_TIME, PidNamespace};
use crate::process::{ProcessIo, Unfinished, Waiting};
use crate::state::Status;
use crate::{Error, Rule, Step, child, hooks, midwife, restore, stdio};

/// How long the removal of a group waits for the process that was just killed in it.
const UNDO: Duration = Duration::from_secs(2);

/// A container whose first process waits before its exec.
#[derive(Debug)]
pub struct Created {
    pub process: Waiting,
    /// Holds the container's mounts, whoever in it ends: closing it last is the holder's choice.
    pub mount_namespace: OwnedFd,
}

/// Makes a container of the plan in `run_dir`, up to the exec of its first process.
///
/// Its control groups are made with it, and removed again when this fails. `network` is the network
/// namespace that a `join` without a path means.
///
/// Needs root and a caller with one thread, which can't be inspected by others from then on
/// (PR_SET_DUMPABLE of prctl(2)), nor can the child, until its exec.
///
/// # Errors
/// What the request, the rootfs or the machine do not allow; [`Error::kind`] sorts them.
pub fn create(
    options: &CreateOptions,
    run_dir: &RunDir,
    network: Option<BorrowedFd<'_>>,
) -> Result<Created, Error> {
    create_kept(options, run_dir, network, ())
}

/// As [`create`], in a group that somebody else made and that goes when nobody is in it: `keeper` holds
/// a process in there, until the container's own is, or until the group is removed because this fails.
///
/// # Errors
/// As [`create`].
pub fn create_kept<K>(
    options: &CreateOptions,
    run_dir: &RunDir,
    network: Option<BorrowedFd<'_>>,
    keeper: K,
) -> Result<Created, Error> {
    check(options)?;
    let layout = Layout::detect()?;
    let cgroup = Cgroup::new(&layout, &options.cgroup)?;
    cgroup.refuse_frozen()?;
    let hooks = CreateHooks::new(options, run_dir);
    let poststop = OnFailure(Some(&hooks));
    let undo = Undo::new(&cgroup);
    // Dropped before what was declared before it: a group can't be removed with a process in it.
    let keeper = keeper;
    let memory = Memory::of(&cgroup, options.resources.as_ref());
    let process = clone(options, run_dir, network, &layout, &cgroup, &hooks)
        .map_err(|error| memory.explain(error))?;
    let mount_namespace = mount_namespace_of(process.pid).inspect_err(|_| process.end())?;
    drop(keeper);
    undo.forget();
    poststop.forget();
    Ok(Created { process, mount_namespace })
}

/// The mounts of a child that was not waited for.
///
/// # Errors
/// Those of opening its namespace.
pub fn mount_namespace_of(pid: i32) -> Result<OwnedFd, Error> {
    let path = format!("/proc/{pid}/ns/mnt");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::empty()).at(Step::OpenNamespace, path)
}

fn check(options: &CreateOptions) -> Result<(), Error> {
    if options.clone_flags & !NAMESPACES != 0 {
        let flags = format!("clone flags {:#x}", options.clone_flags);
        return Err(Error::refused(flags, Rule::NamespaceKind));
    }
    let is_joined = options.join.iter().any(|join| join.kind == NEW_MOUNT);
    if (options.clone_flags & NEW_MOUNT == 0) != is_joined {
        return Err(Error::refused("the plan", Rule::MountNamespace));
    }
    Ok(())
}

/// Clones the child and sees it through until it waits.
fn clone(
    options: &CreateOptions,
    run_dir: &RunDir,
    network: Option<BorrowedFd<'_>>,
    layout: &Layout,
    cgroup: &Cgroup,
    hooks: &CreateHooks<'_>,
) -> Result<Waiting, Error> {
    let mut joined = Joined::open(options, network)?;
    let (ours, theirs) = Channel::pair().at(Step::Channel, "a socket")?;
    let (mut pipes, child_io) =
        stdio::make(options.terminal, options.stdin, options.inherit_stdio)?;
    if options.restore.is_some() && options.terminal {
        // It comes with the start.
        pipes = Some(ProcessIo::Inherited);
    }
    let none = Resources::default();
    let resources = options.resources.as_ref().unwrap_or(&none);
    if layout.is_v2() {
        // The child is born into its limits.
        cgroup.create(resources)?;
        hooks.lift_pids(cgroup, resources)?;
    }
    let born_into = cgroup.create_unified()?;
    let restore = options.restore.as_ref();
    let mut prepared = restore.map(|how| restore::prepare(options, how)).transpose()?;
    shim_failpoints::step!("shim.create.before_clone", error);
    hide_from_others()?;
    // These are the child's to unshare: the cgroup namespace once it is in its group, the time
    // namespace to set its clocks before it is entered.
    let namespaces = options.clone_flags & !(NEW_CGROUP | NEW_TIME);
    let group = born_into.as_ref().map(AsFd::as_fd);
    let has_user = midwife::is_needed(options);
    let cloned = match has_user {
        // What else is new is made by criu.
        _ if prepared.is_some() => clone_into(NEW_MOUNT, group, None)?,
        // What else is new is made by the midwife, in the user namespace.
        true => clone_into(NEW_MOUNT, None, None)?,
        false => {
            let pid = joined.pid.as_ref().map(|namespace| PidNamespace::At(namespace.as_fd()));
            let place = joined.place(NEW_PID);
            clone_into(namespaces, group, pid.map(|pid| (pid, &*place)))?
        }
    };
    let (pid, pidfd) = match cloned {
        Cloned::Child => {
            drop(ours);
            let user = joined.user.take();
            let birth =
                Birth { options, run_dir, cgroup, joined: &joined, parent: &theirs, doors: None };
            if let (Some(how), Some(prepared)) = (restore, prepared.take()) {
                restore::restorer(&birth, how, prepared, child_io, pipes);
            }
            match has_user {
                true => midwife::deliver(birth, user, group, child_io, pipes),
                false => child::container(&birth, child_io, pipes),
            }
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((theirs, child_io, joined));
    let mut process = Unfinished::new(pid, pidfd, ours).in_group(cgroup);
    shim_failpoints::step!("shim.create.after_clone", error);
    if !layout.is_v2() {
        // While the child assembles its rootfs.
        cgroup.create(resources)?;
        hooks.lift_pids(cgroup, resources)?;
    }
    shim_failpoints::step!("shim.create.after_cgroup", error);
    process.tell(&Message::CgroupReady)?;
    if has_user && prepared.is_none() {
        let (child, root) = process.adopt()?;
        process = child;
        if layout.is_v2() && options.new_cgroup_namespace {
            cgroup.delegate(root.uid, root.gid)?;
        }
    }
    let mut waiting = process.finish(pipes, |pid| hooks.run(pid))?;
    hooks.limit_pids(cgroup, resources).inspect_err(|_| waiting.end())?;
    waiting.restore = prepared.map(restore::Prepared::keep);
    shim_failpoints::step!("shim.create.after_setup");
    Ok(waiting)
}

/// Makes this process, and what it clones, impossible to inspect or trace for others: a child that is
/// visible inside a container has the caller's memory and descriptors (CVE-2016-9962).
pub(crate) fn hide_from_others() -> Result<(), Error> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .at(Step::Clone, "the process")
}

/// Clones into new namespaces, a group and a pid namespace, which errors call by the name beside it, and
/// takes the caller's later children out of that one again.
pub(crate) fn clone_into(
    namespaces: u64,
    cgroup: Option<BorrowedFd<'_>>,
    pid_namespace: Option<(PidNamespace<'_>, &str)>,
) -> Result<Cloned, Error> {
    let Some((target, name)) = pid_namespace else {
        return clone3(namespaces, cgroup).at(Step::Clone, "the container");
    };
    const OWN: &str = "/proc/self/ns/pid";
    let own = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .at(Step::OpenNamespace, OWN)?;
    target.enter().at(Step::JoinNamespace, name)?;
    let cloned = clone3(namespaces, cgroup);
    if !matches!(cloned, Ok(Cloned::Child)) {
        PidNamespace::At(own.as_fd()).enter().at(Step::JoinNamespace, OWN)?;
    }
    cloned.at(Step::Clone, "the container")
}

/// What a create had of memory, should it fail for want of that.
struct Memory<'a> {
    cgroup: &'a Cgroup,
    resources: Option<&'a Resources>,
    /// What the kernel had killed by then in a group that was there before.
    kills: u64,
}

impl<'a> Memory<'a> {
    fn of(cgroup: &'a Cgroup, resources: Option<&'a Resources>) -> Self {
        Self { cgroup, resources, kills: cgroup.oom_kills().unwrap_or(0) }
    }

    /// A process that the kernel killed says nothing, and one that was given no memory does not know why.
    fn explain(&self, error: Error) -> Error {
        let limit = self.limit();
        let was_killed = self.cgroup.oom_kills().is_ok_and(|kills| kills > self.kills);
        let got_none = limit.is_some() && error.errno() == Some(Errno::NOMEM);
        match was_killed || got_none {
            true => Error::WantOfMemory { limit, error: Box::new(error) },
            false => error,
        }
    }

    /// The container's own, in whichever of the two ways it is said.
    fn limit(&self) -> Option<(&'static str, String)> {
        let resources = self.resources?;
        let own = resources.memory.filter(|bytes| *bytes > 0).map(|bytes| bytes.to_string());
        if let Some(bytes) = own {
            return Some(("linux.resources.memory.limit", bytes));
        }
        let unified = resources.unified.get("memory.max").map(|limit| limit.trim())?;
        (unified != "max").then(|| ("linux.resources.unified.memory.max", unified.to_owned()))
    }
}

/// The hooks that a create calls for.
struct CreateHooks<'a> {
    run_dir: &'a RunDir,
    kinds: u32,
    begun: Cell<bool>,
}

impl<'a> CreateHooks<'a> {
    fn new(options: &CreateOptions, run_dir: &'a RunDir) -> Self {
        Self { run_dir, kinds: options.hooks, begun: Cell::new(false) }
    }

    /// What runs beside the container's first process, in its group, before that has a program: not to
    /// be refused for a container of one process.
    fn lift_pids(&self, cgroup: &Cgroup, resources: &Resources) -> Result<(), Error> {
        match self.limit_of_pids(resources) {
            Some(limit) => Ok(cgroup.update(&lifted(limit))?),
            None => Ok(()),
        }
    }

    /// Takes that back once they have run.
    fn limit_pids(&self, cgroup: &Cgroup, resources: &Resources) -> Result<(), Error> {
        match self.limit_of_pids(resources) {
            Some(limit) => Ok(cgroup.update(&limit)?),
            None => Ok(()),
        }
    }

    /// What of the limits is one of processes, if it is in the way of hooks.
    fn limit_of_pids(&self, resources: &Resources) -> Option<Resources> {
        let limit = of_pids(resources);
        let is_in_the_way = self.kinds & HookKind::CreateContainer.bit() != 0;
        (is_in_the_way && limit != Resources::default()).then_some(limit)
    }

    /// The parent's share of those that run before the rootfs is the root.
    fn run(&self, pid: i32) -> Result<(), Error> {
        self.begun.set(true);
        let kinds = [HookKind::Prestart, HookKind::CreateRuntime];
        if kinds.iter().all(|kind| self.kinds & kind.bit() == 0) {
            return Ok(());
        }
        hooks::run(self.run_dir, &kinds, Status::Creating, Some(pid))
    }
}

/// The file of the unified hierarchy that says the same as `pids.limit`.
const PIDS_MAX: &str = "pids.max";

/// A group's limit of processes, in whichever of the two ways it is said, or in both.
fn of_pids(resources: &Resources) -> Resources {
    let unified = resources.unified.get(PIDS_MAX).filter(|limit| limit.trim() != "max");
    Resources {
        pids: resources.pids.filter(|pids| *pids > 0),
        unified: unified.map(|limit| (PIDS_MAX.to_owned(), limit.clone())).into_iter().collect(),
        ..Resources::default()
    }
}

/// None, where there was that one.
fn lifted(mut limit: Resources) -> Resources {
    limit.pids = limit.pids.map(|_| -1);
    limit.unified.values_mut().for_each(|value| "max".clone_into(value));
    limit
}

/// A create that fails once its hooks have begun to run ends like a container: with poststop.
struct OnFailure<'a>(Option<&'a CreateHooks<'a>>);

impl OnFailure<'_> {
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for OnFailure<'_> {
    fn drop(&mut self) {
        if let Some(hooks) = self.0
            && hooks.begun.get()
            && hooks.kinds & HookKind::Poststop.bit() != 0
        {
            // The first error is the one to report.
            let _ = hooks::poststop(hooks.run_dir);
        }
    }
}

/// Removes a group, unless it is told to forget it.
struct Undo<'a> {
    cgroup: Option<&'a Cgroup>,
    /// Groups above it that were not there before, deepest first.
    above: Vec<PathBuf>,
}

impl<'a> Undo<'a> {
    fn new(cgroup: &'a Cgroup) -> Self {
        Self { cgroup: Some(cgroup), above: cgroup.missing_above() }
    }

    fn forget(mut self) {
        self.cgroup = None;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(cgroup) = self.cgroup {
            // The first error is the one to report; what somebody else uses by now stays.
            let _ = cgroup.remove(Instant::now() + UNDO);
            self.above.iter().for_each(|group| drop(std::fs::remove_dir(group)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However it is said, a limit of processes is not for the hooks, and it alone is lifted for them.
    #[test]
    fn a_limit_of_processes_is_lifted_in_the_way_it_was_said() {
        let unified = |list: &[(&str, &str)]| {
            list.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect()
        };
        let none = Resources::default();
        for (pids, files, expected, free) in [
            (Some(1), &[][..], (Some(1), &[][..]), (Some(-1), &[][..])),
            (
                None,
                &[("pids.max", "1"), ("memory.high", "9")],
                (None, &[("pids.max", "1")]),
                (None, &[("pids.max", "max")]),
            ),
            (
                Some(5),
                &[("pids.max", "1\n")],
                (Some(5), &[("pids.max", "1\n")]),
                (Some(-1), &[("pids.max", "max")]),
            ),
            (Some(-1), &[("pids.max", "max\n")], (None, &[]), (None, &[])),
        ] {
            let asked =
                Resources { pids, memory: Some(1), unified: unified(files), ..none.clone() };
            let limit = of_pids(&asked);
            let of = |(pids, files): (Option<i64>, &[(&str, &str)])| Resources {
                pids,
                unified: unified(files),
                ..Resources::default()
            };
            assert_eq!(limit, of(expected), "{asked:?}");
            assert_eq!(lifted(limit), of(free), "{asked:?}");
        }
    }

    /// Where the hierarchy is unified, the group's file is what says so.
    #[test]
    fn a_limit_of_the_unified_map_is_gone_while_hooks_run() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path().to_str().unwrap();
        let layout = Layout::parse(&format!("31 30 0:26 / {root} rw - cgroup2 cgroup2 rw\n"));
        let group = tree.path().join("c");
        std::fs::create_dir(&group).unwrap();
        for (file, text) in
            [("cgroup.controllers", "pids"), ("c/cgroup.controllers", "pids"), ("c/pids.max", "1")]
        {
            std::fs::write(tree.path().join(file), text).unwrap();
        }
        let cgroup = Cgroup::new(&layout, "c").unwrap();
        let resources = Resources {
            unified: [("pids.max".to_owned(), "1".to_owned())].into(),
            ..Resources::default()
        };
        let options =
            CreateOptions { hooks: HookKind::CreateContainer.bit(), ..CreateOptions::default() };
        let run_dir = RunDir::new(tree.path().to_owned());
        let hooks = CreateHooks::new(&options, &run_dir);
        let limit = || std::fs::read_to_string(group.join("pids.max")).unwrap();
        hooks.lift_pids(&cgroup, &resources).unwrap();
        assert_eq!(limit(), "max");
        hooks.limit_pids(&cgroup, &resources).unwrap();
        // A plain file keeps the end of a longer text.
        assert_eq!(limit(), "1ax");
    }
}
