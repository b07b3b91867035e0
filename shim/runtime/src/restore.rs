//! A container that goes on where a checkpoint of it was taken.
//!
//! The child of a create becomes criu here, not the container's first process; that is made by criu, as
//! the child's sibling:
//!
//! ```text
//!  parent                       child                                 criu          container
//!  clone3 ────────────────────▶ own mount tree, the container's network
//!                               rootfs and mounts, as for any container,
//!                               at a place of this mount tree
//!  CgroupReady ───────────────▶ joins the groups
//!  hooks ◀────────────Assembled
//!  GoOn ──────────────────────▶
//!  ◀──────────────────── Ready  (the request waits in criu's socket)
//!  Start ─────────────────────▶ exec ───────────────────────────────▶ namespaces, processes ▶
//!  ◀────────────────────────────────────────────────── the first one's pid ─┘
//! ```
//!
//! So all that the host gives is made by the code, and checked as, for a new container; criu takes the
//! mounts that it can't make from there. It works in the container's groups, within its limits.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::mount::{MountFlags, mount};
use rustix::process::{PidfdFlags, pidfd_open};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use shim_rootfs::overlay::Made;
use shim_sys::exec::{close_on_exec_from, execve};
use shim_wire::hooks::HookKind;
use shim_wire::plan::{CreateOptions, Plan, Restore};

use crate::checkpoint::{STREAMS, directory, mounts_of, read_streams};
use crate::child::{Birth, read_plan, report, wait_for_start};
use crate::command::c_string;
use crate::criu::{self, Criu, Inherit, Join, NETWORK_KEY, Options, Request, Theirs, kind};
use crate::error::At;
use crate::namespaces::{NEW_IPC, NEW_NET, NEW_USER, NEW_UTS};
use crate::process::{ProcessIo, end};
use crate::procfs::Procfs;
use crate::stdio::ChildIo;
use crate::tree::{Sources, Tree};
use crate::{Error, Rule, Step, hooks, lsm, mounts, overlay, parameters};

const VERB: &str = "restore";
const LOG: &str = "restore.log";

/// A place in the child's mount tree alone; procfs has this directory on every machine.
const STAGE: &str = "/proc/fs";
/// The rootfs by itself, for criu to make the container's root of.
const ROOT: &str = "/proc/fs/root";
/// All of the container's mounts.
const TREE: &str = "/proc/fs/tree";

/// What the parent has ready before the clone.
#[derive(Debug)]
pub(crate) struct Prepared {
    program: CString,
    criu: Criu,
    theirs: Theirs,
    images: OwnedFd,
    work: OwnedFd,
}

/// What the parent keeps of it until the start.
#[derive(Debug)]
pub(crate) struct Pending {
    criu: Criu,
    /// criu opens both through these.
    _images: OwnedFd,
    _work: OwnedFd,
}

/// # Errors
/// What can't be restored, [`Error::Criu`] when there is no criu, and directories that can't be opened.
pub(crate) fn prepare(options: &CreateOptions, how: &Restore) -> Result<Prepared, Error> {
    check(options)?;
    let program = criu::program(VERB)?;
    let program = CString::new(program.as_os_str().as_bytes()).unwrap_or_default();
    let images = Path::new(&how.images);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let images =
        rustix::fs::open(images, flags, Mode::empty()).at(Step::Resolve, images.display())?;
    let work = Path::new(&how.work);
    shim_failpoints::step!("shim.restore.before_work", error);
    let opened = directory(work)?;
    shim_failpoints::step!("shim.restore.after_work", error);
    let (criu, theirs) = Criu::prepare(VERB, work.join(LOG))?;
    Ok(Prepared { program, criu, theirs, images, work: opened })
}

/// A process can't be restored into a pid or user namespace that others are in.
fn check(options: &CreateOptions) -> Result<(), Error> {
    if options.clone_flags & NEW_USER != 0 {
        return Err(Error::refused("linux.namespaces", Rule::UserNotRestored));
    }
    let known = NEW_NET | NEW_IPC | NEW_UTS;
    match options.join.iter().find(|join| join.kind & known == 0) {
        None => Ok(()),
        Some(join) => {
            let object = format!("linux.namespaces[{}].path: {:?}", join.index, join.path);
            Err(Error::refused(object, Rule::NotRestored))
        }
    }
}

impl Prepared {
    /// The parent's share, once there is a child with the other.
    pub(crate) fn keep(self) -> Pending {
        Pending { criu: self.criu, _images: self.images, _work: self.work }
    }
}

impl Pending {
    /// Waits for criu, which was just executed, to restore the container: its first process, a child
    /// of this one, and its terminal's master, if it has one outside.
    pub(crate) fn finish(self, criu: &OwnedFd) -> Result<(i32, OwnedFd, Option<OwnedFd>), Error> {
        let heard = self.criu.hear();
        // It ends by itself, but for one that takes too long.
        end(criu);
        let (pid, master) = heard?;
        shim_failpoints::step!("shim.restore.after_criu", error);
        let pid = pid.and_then(rustix::process::Pid::from_raw).ok_or(Error::Ended)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).at(Step::OpenNamespace, "the process")?;
        Ok((pid.as_raw_pid(), pidfd, master))
    }
}

/// Becomes criu.
pub(crate) fn restorer(
    birth: &Birth<'_>,
    how: &Restore,
    prepared: Prepared,
    io: ChildIo,
    parents_ends: Option<ProcessIo>,
) -> ! {
    drop(parents_ends);
    report(birth.parent, || become_criu(birth, how, prepared, io))
}

fn become_criu(
    birth: &Birth<'_>,
    how: &Restore,
    prepared: Prepared,
    io: ChildIo,
) -> Result<Infallible, Error> {
    let mut plan = read_plan(birth.run_dir)?;
    if let Some(process) = &plan.process {
        lsm::check(process)?;
    }
    rustix::process::umask(Mode::empty());
    let network = enter_network(birth, &plan)?;
    shim_failpoints::step!("shim.restore.before_stage", error);
    stage(birth, &mut plan)?;
    shim_failpoints::step!("shim.restore.after_stage", error);
    let hooks = (birth.options.hooks != 0).then(|| hooks::read(birth.run_dir)).transpose()?;
    let before_pivot =
        HookKind::Prestart.bit() | HookKind::CreateRuntime.bit() | HookKind::CreateContainer.bit();
    if let Some(hooks) = hooks.as_ref().filter(|_| birth.options.hooks & before_pivot != 0) {
        hooks::before_pivot(hooks, birth.parent)?;
    }
    let mut options = Options::new(prepared.images.as_raw_fd(), prepared.work.as_raw_fd(), LOG);
    options.root = Some(ROOT.to_owned());
    options.restore_sibling = Some(true);
    options.tcp_established = Some(how.tcp_established);
    options.ext_unix_sk = Some(how.external_unix_sockets);
    options.shell_job = Some(how.shell_job);
    options.file_locks = Some(how.file_locks);
    options.auto_dedup = Some(how.auto_dedup);
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    options.lsm_profile = given(&how.lsm_profile);
    options.lsm_mount_context = given(&how.lsm_mount_context);
    options.external = staged_mounts()?;
    // criu's own descriptors: they stay open over its execution.
    let mut inherited = vec![];
    if let Some(network) = network {
        inherited.push((NETWORK_KEY.to_owned(), network));
    }
    inherited.extend(streams(io, Path::new(&how.images))?);
    for (key, descriptor) in &inherited {
        options.inherit_fd.push(Inherit { key: key.clone(), descriptor: descriptor.as_raw_fd() });
    }
    let mut kept: Vec<OwnedFd> = inherited.into_iter().map(|(_, descriptor)| descriptor).collect();
    for (kind, namespace) in birth.joined.others_than(NEW_NET) {
        // The copy is what is there after criu's execution.
        let copy =
            rustix::io::fcntl_dupfd_cloexec(namespace, 3).at(Step::Descriptors, "a namespace")?;
        let file = format!("/proc/self/fd/{}", copy.as_raw_fd());
        options.join_namespaces.push(Join { kind: kind.to_owned(), file });
        kept.push(copy);
    }
    let request = Request { kind: kind::RESTORE, options: Some(options), notify_success: None };
    prepared.criu.ask(&request)?;

    let arguments = ["criu", "swrk", "0"].map(c_string);
    let [name, verb, number] = arguments;
    let arguments = [name?, verb?, number?];
    birth.parent.send(&crate::channel::Message::Ready).at(Step::Channel, "the parent")?;
    wait_for_start(birth.parent)?;
    let null =
        rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).at(Step::Stdio, "/dev/null")?;
    dup2_stdin(&prepared.theirs.socket).at(Step::Stdio, "criu's input")?;
    dup2_stdout(&null).at(Step::Stdio, "criu's output")?;
    dup2_stderr(&prepared.theirs.complaint).at(Step::Stdio, "criu's output")?;
    close_on_exec_from(3).at(Step::Descriptors, "criu")?;
    for descriptor in &kept {
        rustix::io::fcntl_setfd(descriptor, FdFlags::empty()).at(Step::Descriptors, "criu")?;
    }
    shim_failpoints::step!("shim.restore.before_criu", error);
    shim_sys::signal::reset();
    let errno = execve(&prepared.program, &arguments, &environment());
    Err(errno).at(Step::Exec, prepared.program.to_string_lossy())
}

/// criu runs further programs, for what it is told by its own configuration.
fn environment() -> Vec<CString> {
    let text = |name: &str, value: std::ffi::OsString| {
        let mut entry = format!("{name}=").into_bytes();
        entry.extend(value.as_bytes());
        CString::new(entry).unwrap_or_default()
    };
    ["PATH", "HOME"]
        .into_iter()
        .filter_map(|name| std::env::var_os(name).map(|value| text(name, value)))
        .collect()
}

/// Makes or joins the container's network, and gives it what it has from its birth on.
fn enter_network(birth: &Birth<'_>, plan: &Plan) -> Result<Option<OwnedFd>, Error> {
    let is_new = birth.options.clone_flags & NEW_NET != 0;
    if is_new {
        shim_sys::clone::unshare(NEW_NET).at(Step::Unshare, "the network namespace")?;
    }
    if !birth.joined.join_only(NEW_NET)? && !is_new {
        return Ok(None);
    }
    if plan.loopback {
        shim_sys::net::loopback_up().at(Step::Loopback, "lo")?;
    }
    // Those of other namespaces are in the images.
    let of_network: Vec<_> =
        plan.sysctls.iter().filter(|sysctl| sysctl.path.starts_with("net/")).cloned().collect();
    if !of_network.is_empty() {
        parameters::set_sysctls(birth.own_namespaces(), &of_network, &Procfs::private()?)?;
    }
    const OWN: &str = "/proc/self/ns/net";
    rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map(Some)
        .at(Step::OpenNamespace, OWN)
}

/// Makes all of the container's mounts, at a place where criu finds them.
fn stage(birth: &Birth<'_>, plan: &mut Plan) -> Result<(), Error> {
    let mut sources = Sources::take(plan, None)?;
    sources.root = Made::Detached(match sources.root {
        Made::Detached(root) => root,
        Made::OnRoot => overlay::copy_of_covered_root()?,
    });
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tmpfs", STAGE, "tmpfs", flags, Some(c"mode=755,size=64k")).at(Step::Mount, STAGE)?;
    for path in [ROOT, TREE] {
        rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)).at(Step::MakeTarget, path)?;
    }
    if let Some(rootfs) = &mut plan.rootfs {
        rootfs.shown_at = TREE.to_owned();
    }
    let mut tree = Tree::build(birth, plan, sources)?;
    tree.hide(plan)?;
    tree.enter_groups(birth, plan)?;
    // Without what is mounted below it.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(TREE, flags, Mode::empty())
        .and_then(|root| mounts::copy_of(std::os::fd::AsFd::as_fd(&root), false))
        .at(Step::Resolve, TREE)?;
    if plan.rootfs.as_ref().is_some_and(|rootfs| rootfs.readonly) {
        mounts::make_read_only(std::os::fd::AsFd::as_fd(&root), false, "/")?;
    }
    let place = rustix::fs::open(ROOT, flags, Mode::empty()).at(Step::Resolve, ROOT)?;
    mounts::attach(&root, std::os::fd::AsFd::as_fd(&place), ROOT)
}

/// Where criu finds what was external when the checkpoint was taken, by the place in the container.
fn staged_mounts() -> Result<Vec<String>, Error> {
    let mounted = mounts_of("self")?;
    let below = mounted.iter().filter_map(|mounted| mounted.point.strip_prefix(TREE));
    let below = below.filter(|point| point.starts_with('/'));
    Ok(below.map(|point| format!("mnt[{point}]:{TREE}{point}")).collect())
}

/// The new streams, by the names of the old ones. What was a file of the container's stays that.
fn streams(io: ChildIo, images: &Path) -> Result<Vec<(String, OwnedFd)>, Error> {
    let copy = |fd| rustix::io::fcntl_dupfd_cloexec(fd, 3).at(Step::Stdio, "a copy");
    let new = match io {
        ChildIo::Terminal => return Ok(Vec::new()),
        ChildIo::Pipes { stdin, stdout, stderr } => [stdin, Some(stdout), Some(stderr)],
        ChildIo::Inherited => [
            Some(copy(rustix::stdio::stdin())?),
            Some(copy(rustix::stdio::stdout())?),
            Some(copy(rustix::stdio::stderr())?),
        ],
    };
    let old = read_streams(images);
    if old.is_empty() {
        return Err(Errno::NOENT).at(Step::Resolve, images.join(STREAMS).display());
    }
    let mut named: Vec<(String, OwnedFd)> = Vec::new();
    for (name, descriptor) in old.into_iter().zip(new) {
        let leads_out = ["pipe:", "socket:", "file["].iter().any(|kind| name.starts_with(kind));
        let Some(descriptor) = descriptor.filter(|_| leads_out) else { continue };
        if named.iter().all(|(known, _)| *known != name) {
            named.push((name, descriptor));
        }
    }
    Ok(named)
}
