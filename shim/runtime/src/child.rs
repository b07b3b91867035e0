//! The child's side, in order: from the clone to the exec.
//!
//! It is a copy of its parent, so it ends with an exec or at once, and never returns.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use prost::Message as _;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::Uid;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};
use shim_cgroup::Cgroup;
use shim_sys::exec::{close_on_exec_from, execve, exit_now, fexecve};
use shim_wire::files::RunDir;
use shim_wire::plan::{CreateOptions, ExecOptions, Plan, Process, Sysctl};

use crate::channel::{Channel, Message};
use crate::create::{NEW_CGROUP, NEW_IPC, NEW_NET, NEW_UTS};
use crate::error::At;
use crate::hide::{Masks, protect};
use crate::overlay::Made;
use crate::process::ProcessIo;
use crate::procfs::Procfs;
use crate::rootfs::{Leaf, Root, c_string};
use crate::stdio::{ChildIo, Streams, host_null};
use crate::user::Identity;
use crate::{Error, Rule, Step, cgroupfs, command, credentials, dev, init, mounts, overlay, user};

/// docker's, unless the plan says otherwise.
const UMASK: u32 = 0o022;

/// What the parent hands to the child of a new container, by the copy of its memory.
#[derive(Debug)]
pub(crate) struct Birth<'a> {
    pub(crate) options: &'a CreateOptions,
    pub(crate) run_dir: &'a RunDir,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) joined: &'a Joined,
}

/// Namespaces to join, by kind.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    pub(crate) namespaces: Vec<(u64, OwnedFd)>,
    /// One of them is handed over by somebody else.
    pub(crate) wants_network: bool,
}

/// Becomes the first process of a container.
pub(crate) fn container(
    birth: &Birth<'_>,
    io: ChildIo,
    parent: Channel,
    parents_ends: Option<ProcessIo>,
) -> ! {
    drop(parents_ends);
    report(&parent, || become_container(birth, io, &parent))
}

/// Becomes a further process of one.
pub(crate) fn joiner(
    options: &ExecOptions,
    process: &Process,
    init: BorrowedFd<'_>,
    cgroup: &Cgroup,
    io: ChildIo,
    parent: Channel,
    parents_ends: Option<ProcessIo>,
) -> ! {
    drop(parents_ends);
    report(&parent, || join_container(options, process, init, cgroup, io, &parent))
}

/// Runs the child's side and tells the parent what went wrong. A panic must not unwind into the
/// parent's code.
fn report(parent: &Channel, child: impl FnOnce() -> Result<Infallible, Error>) -> ! {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
    let error = match result {
        Ok(Err(error)) => error,
        Ok(Ok(never)) => match never {},
        Err(_) => Error::Ended,
    };
    // When nobody listens any more there is nobody to tell.
    let _ = parent.send(&Message::Failed(error));
    exit_now(1)
}

fn become_container(birth: &Birth<'_>, io: ChildIo, parent: &Channel) -> Result<Infallible, Error> {
    let plan = read_plan(birth.run_dir)?;
    let process =
        plan.process.as_ref().ok_or_else(|| Error::refused("the plan", Rule::NoProcess))?;
    rustix::process::umask(Mode::empty());
    for (kind, namespace) in &birth.joined.namespaces {
        join(*kind, namespace)?;
    }
    let image = process.init.then(init::image).transpose()?;
    let (root, procfs) = build_tree(birth, &plan, parent)?;
    if plan.loopback {
        shim_sys::net::loopback_up().at(Step::Loopback, "lo")?;
    }
    set_names(birth, &plan)?;
    let terminal = open_terminal(&io, &root, birth.options.width, birth.options.height, parent)?;
    if let Some(slave) = &terminal
        && dev::is_own(&plan.mounts)
    {
        dev::bind_console(&root, slave)?;
    }
    let procfs = set_sysctls(birth, &plan, procfs)?;
    let mut masks = Masks::new(host_null()?);
    plan.readonly_paths.iter().try_for_each(|path| protect(&root, path))?;
    plan.masked_paths.iter().try_for_each(|path| masks.mask(&root, path))?;
    if !process.cwd.is_empty() {
        root.make(&process.cwd, Leaf::Directory).map_err(|error| cwd_error(&process.cwd, error))?;
    }
    if plan.rootfs.as_ref().is_some_and(|rootfs| rootfs.readonly) {
        mounts::make_read_only(root.as_fd(), false, "/")?;
    }
    pivot(&root)?;
    let streams = Streams::new(&root, io, terminal)?;
    finish(process, &root, streams, procfs, image, parent)
}

fn join_container(
    options: &ExecOptions,
    process: &Process,
    init: BorrowedFd<'_>,
    cgroup: &Cgroup,
    io: ChildIo,
    parent: &Channel,
) -> Result<Infallible, Error> {
    rustix::process::umask(Mode::empty());
    cgroup.join_self_v1()?;
    let image = process.init.then(init::image).transpose()?;
    let kinds = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::CONTROL_GROUP;
    rustix::thread::move_into_thread_name_spaces(init, kinds)
        .at(Step::JoinNamespace, "the container")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).map(Root::new).at(Step::Resolve, "/")?;
    let terminal = open_terminal(&io, &root, options.width, options.height, parent)?;
    let streams = Streams::new(&root, io, terminal)?;
    finish(process, &root, streams, None, image, parent)
}

fn read_plan(run_dir: &RunDir) -> Result<Plan, Error> {
    let path = run_dir.plan();
    let bytes = std::fs::read(&path).map_err(|error| Error::System {
        step: Step::ReadPlan,
        object: path.display().to_string(),
        errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
    })?;
    Plan::decode(bytes.as_slice()).map_err(|_| Error::refused(path.display(), Rule::MalformedPlan))
}

fn join(kind: u64, namespace: &OwnedFd) -> Result<(), Error> {
    let (kind, name) = match kind {
        NEW_UTS => (LinkNameSpaceType::HostNameAndNISDomainName, "the UTS namespace"),
        NEW_IPC => (LinkNameSpaceType::InterProcessCommunication, "the IPC namespace"),
        NEW_NET => (LinkNameSpaceType::Network, "the network namespace"),
        NEW_CGROUP => (LinkNameSpaceType::ControlGroup, "the cgroup namespace"),
        other => {
            return Err(Error::refused(format!("namespace {other:#x}"), Rule::NamespaceKind));
        }
    };
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind))
        .at(Step::JoinNamespace, name)
}

/// Builds the container's mounts on top of the old root, and gives back its root and its procfs.
fn build_tree(
    birth: &Birth<'_>,
    plan: &Plan,
    parent: &Channel,
) -> Result<(Root, Option<Procfs>), Error> {
    let rootfs =
        plan.rootfs.as_ref().ok_or_else(|| Error::refused("the plan", Rule::MalformedPlan))?;
    let mut shared = mounts::copy_shared(&plan.mounts)?;
    // Nothing that is mounted here may travel to the host.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .at(Step::Propagation, "/")?;
    let root = match overlay::make(rootfs)? {
        Made::Detached(mount) => {
            let old = open_directory("/").at(Step::Resolve, "/")?;
            mounts::attach(&mount, old.as_fd(), "/")?;
            Root::new(mount)
        }
        // What lies on top of the root is found by going back to it from anywhere.
        Made::OnRoot => Root::new(open_directory("/..").at(Step::Resolve, "/..")?),
    };
    let mut group = Some(());
    let mut procfs = None;
    for (mount, shared) in plan.mounts.iter().zip(&mut shared) {
        if mount.only_if_present && root.open(&mount.destination, OFlags::PATH).is_err() {
            continue;
        }
        if mount.kind == "cgroup" {
            if group.take().is_some() {
                enter_cgroup(birth, plan, parent)?;
            }
            cgroupfs::mount(&root, mount, birth.cgroup)?;
            continue;
        }
        let detached = shared.take().map_or_else(|| mounts::make(mount), Ok)?;
        let attached = detached.attach_at(&root, mount)?;
        if mount.kind == "proc" && procfs.is_none() {
            procfs = Some(Procfs::of(attached));
        }
    }
    if group.take().is_some() {
        enter_cgroup(birth, plan, parent)?;
    }
    if dev::is_own(&plan.mounts) {
        dev::make_links(&root)?;
    }
    plan.devices.iter().try_for_each(|device| dev::make_node(&root, device))?;
    Ok((root, procfs))
}

/// Waits for the groups, joins them, and makes them the root of what the container sees.
fn enter_cgroup(birth: &Birth<'_>, plan: &Plan, parent: &Channel) -> Result<(), Error> {
    wait_for(parent, |message| matches!(message, Message::CgroupReady))?;
    birth.cgroup.join_self_v1()?;
    if plan.new_cgroup_namespace {
        shim_sys::clone::unshare(NEW_CGROUP).at(Step::UnshareCgroup, "the container")?;
    }
    Ok(())
}

/// Waits for the parent's word; without a parent there is no use in going on.
fn wait_for(parent: &Channel, wanted: impl Fn(&Message) -> bool) -> Result<(), Error> {
    match parent.receive().at(Step::Channel, "the parent")? {
        Some(message) if wanted(&message) => Ok(()),
        Some(_) => Err(Errno::BADMSG).at(Step::Channel, "the parent"),
        None => exit_now(1),
    }
}

fn set_names(birth: &Birth<'_>, plan: &Plan) -> Result<(), Error> {
    let set = |name: &str, set: fn(&[u8]) -> rustix::io::Result<()>| {
        if name.is_empty() {
            return Ok(());
        }
        if !has_own(birth, NEW_UTS) {
            return Err(Error::refused(format!("host name {name:?}"), Rule::HostnameNamespace));
        }
        set(name.as_bytes()).at(Step::Hostname, format_args!("{name:?}"))
    };
    set(&plan.hostname, rustix::system::sethostname)?;
    set(&plan.domainname, rustix::system::setdomainname)
}

/// Whether the container does not share a kind of namespace with the host.
fn has_own(birth: &Birth<'_>, kind: u64) -> bool {
    birth.options.clone_flags & kind != 0
        || birth.joined.namespaces.iter().any(|(joined, _)| *joined == kind)
}

fn set_sysctls(
    birth: &Birth<'_>,
    plan: &Plan,
    procfs: Option<Procfs>,
) -> Result<Option<Procfs>, Error> {
    let needed = plan.process.as_ref().is_some_and(credentials::needs_procfs);
    if plan.sysctls.is_empty() && !needed {
        return Ok(None);
    }
    let procfs = procfs.map_or_else(Procfs::private, Ok)?;
    for sysctl in &plan.sysctls {
        let own = |kind| has_own(birth, kind);
        check_sysctl(sysctl, own(NEW_NET), own(NEW_IPC), own(NEW_UTS))?;
        procfs
            .write(&format!("sys/{}", sysctl.path), &sysctl.value)
            .at(Step::Sysctl, format_args!("{} to {:?}", sysctl.path, sysctl.value))?;
    }
    Ok(Some(procfs))
}

/// Only parameters of namespaces that are the container's own, and only one line for each.
fn check_sysctl(sysctl: &Sysctl, net: bool, ipc: bool, uts: bool) -> Result<(), Error> {
    const IPC: [&str; 9] = [
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
        "kernel/msg_next_id",
    ];
    let path = sysctl.path.as_str();
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Error::refused(format!("{path:?}"), Rule::SysctlName));
    }
    if sysctl.value.chars().any(|character| character.is_control() && character != '\t') {
        return Err(Error::refused(format!("{path} {:?}", sysctl.value), Rule::SysctlValue));
    }
    let is_own = path.starts_with("net/") && net
        || (IPC.contains(&path) || path.starts_with("fs/mqueue/")) && ipc
        || ["kernel/hostname", "kernel/domainname"].contains(&path) && uts;
    if is_own { Ok(()) } else { Err(Error::refused(path, Rule::SysctlNamespace)) }
}

fn open_terminal(
    io: &ChildIo,
    root: &Root,
    width: u32,
    height: u32,
    parent: &Channel,
) -> Result<Option<OwnedFd>, Error> {
    match io {
        ChildIo::Pipes { .. } => Ok(None),
        ChildIo::Terminal { .. } => {
            let (master, slave) = dev::open_terminal(root, width, height)?;
            parent.send(&Message::Terminal(master)).at(Step::Channel, "the parent")?;
            Ok(Some(slave))
        }
    }
}

/// Makes the container's root the root, and lets go of the old one.
fn pivot(root: &Root) -> Result<(), Error> {
    rustix::process::fchdir(root.as_fd()).at(Step::Pivot, "the rootfs")?;
    rustix::process::pivot_root(".", ".").at(Step::Pivot, "the rootfs")?;
    // The old root now lies on top of the new one, at the same place.
    unmount(".", UnmountFlags::DETACH).at(Step::Pivot, "the rootfs")?;
    rustix::process::chdir("/").at(Step::Pivot, "the rootfs")
}

fn open_directory(path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}

/// From a complete container to the exec in it; the same for its first process and the others.
fn finish(
    process: &Process,
    root: &Root,
    streams: Streams,
    procfs: Option<Procfs>,
    image: Option<OwnedFd>,
    parent: &Channel,
) -> Result<Infallible, Error> {
    let identity = match &process.user {
        Some(user) => user::resolve(root, user)?,
        None => user::resolve(root, &shim_wire::plan::User::default())?,
    };
    let command =
        process.args.first().ok_or_else(|| Error::refused("the plan", Rule::NoProcess))?;
    let arguments = process.args.iter().map(|text| c_string(text)).collect::<Result<_, _>>()?;
    let environment = environment(process, &identity)?;
    enter_cwd(root, &process.cwd)?;
    let path = command::find(command, &process.env)?;
    let procfs = match procfs {
        None if credentials::needs_procfs(process) => Some(Procfs::private()?),
        other => other,
    };
    rustix::process::setsid().at(Step::Session, "the process")?;
    streams.give_to(Uid::from_raw(identity.uid))?;
    streams.install()?;
    parent.send(&Message::Ready).at(Step::Channel, "the parent")?;
    wait_for(parent, |message| matches!(message, Message::Start))?;
    close_on_exec_from(3).at(Step::Descriptors, "the process")?;
    shim_sys::signal::reset();
    rustix::process::umask(Mode::from_raw_mode(process.umask.unwrap_or(UMASK) & 0o777));
    credentials::assume(process, &identity, procfs.as_ref(), parent)?;
    execute(command, path, arguments, &environment, image.as_ref())
}

fn execute(
    command: &str,
    path: CString,
    arguments: Vec<CString>,
    environment: &[CString],
    image: Option<&OwnedFd>,
) -> Result<Infallible, Error> {
    let command = command.to_owned();
    let errno = match image {
        Some(image) => fexecve(image.as_fd(), &init::arguments(path, arguments), environment),
        None => execve(&path, &arguments, environment),
    };
    Err(match errno {
        // Its interpreter is missing.
        Errno::NOENT | Errno::NOTDIR => Error::CommandNotFound { command },
        Errno::ACCESS
        | Errno::PERM
        | Errno::NOEXEC
        | Errno::ISDIR
        | Errno::LOOP
        | Errno::LIBBAD => Error::CommandNotExecutable { command, errno },
        errno => Error::System { step: Step::Exec, object: command, errno },
    })
}

fn environment(process: &Process, identity: &Identity) -> Result<Vec<CString>, Error> {
    let mut environment =
        process.env.iter().map(|entry| c_string(entry)).collect::<Result<Vec<_>, _>>()?;
    if !process.env.iter().any(|entry| entry.starts_with("HOME=")) {
        environment.push(c_string(&format!("HOME={}", identity.home))?);
    }
    Ok(environment)
}

/// Enters the working directory, which must lie inside and be no descriptor of ours in disguise
/// (CVE-2024-21626).
fn enter_cwd(root: &Root, cwd: &str) -> Result<(), Error> {
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    root.open(cwd, OFlags::PATH | OFlags::DIRECTORY)
        .and_then(|directory| rustix::process::fchdir(&directory))
        .map_err(|errno| Error::Cwd { cwd: cwd.to_owned(), errno })
}

fn cwd_error(cwd: &str, error: Error) -> Error {
    match error {
        Error::System { errno, .. } => Error::Cwd { cwd: cwd.to_owned(), errno },
        Error::Refused { .. } => Error::Cwd { cwd: cwd.to_owned(), errno: Errno::LOOP },
        Error::CommandNotFound { .. }
        | Error::CommandNotExecutable { .. }
        | Error::User { .. }
        | Error::Cwd { .. }
        | Error::MountSource { .. }
        | Error::Cgroup(_)
        | Error::Ended
        | Error::TimedOut => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_parameters_are_the_containers_own_and_one_line() {
        let check = |path: &str, value: &str, net, ipc, uts| {
            let sysctl = Sysctl { path: path.to_owned(), value: value.to_owned() };
            check_sysctl(&sysctl, net, ipc, uts).is_ok()
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
