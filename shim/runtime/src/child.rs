//! The child's side, in order: from the clone to the exec.
//!
//! It is a copy of its parent, so it ends with an exec or at once, and never returns.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use prost::Message as _;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Uid;
use rustix::thread::ThreadNameSpaceType;
use shim_cgroup::{Cgroup, Door};
use shim_rootfs::Root;
use shim_sys::exec::{close_on_exec_from, execve, exit_now, fexecve};
use shim_wire::files::RunDir;
use shim_wire::hooks::{HookKind, Hooks};
use shim_wire::plan::{CreateOptions, ExecOptions, Plan, Process};

use crate::channel::{Channel, Message};
use crate::command::c_string;
use crate::error::At;
use crate::namespaces::{Joined, NEW_CGROUP, NEW_TIME, other_than_own};
use crate::process::{ProcessIo, pid_of};
use crate::procfs::Procfs;
use crate::state::Status;
use crate::stdio::{ChildIo, Streams};
use crate::tree::{Sources, Tree};
use crate::user::Identity;
use crate::{
    Error, Rule, Step, command, credentials, dev, hooks, init, lsm, midwife, parameters, program,
    time, user, userns,
};

/// docker's, unless the plan says otherwise.
const UMASK: u32 = 0o022;

/// The hooks that run while the old root is still the root.
const BEFORE_PIVOT: u32 =
    HookKind::Prestart.bit() | HookKind::CreateRuntime.bit() | HookKind::CreateContainer.bit();
/// Those that the child of a container has to do with.
const OWN_HOOKS: u32 = BEFORE_PIVOT | HookKind::StartContainer.bit();

/// What the parent hands to the child of a new container, by the copy of its memory.
#[derive(Debug)]
pub(crate) struct Birth<'a> {
    pub(crate) options: &'a CreateOptions,
    pub(crate) run_dir: &'a RunDir,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) joined: &'a Joined,
    pub(crate) parent: &'a Channel,
    /// Of the groups, for a child that may not open them itself.
    pub(crate) doors: Option<Vec<Door>>,
}

impl Birth<'_> {
    /// The kinds of namespaces that the container does not share with the host: new ones, and joined
    /// ones whose parameters are not the host's.
    pub(crate) fn own_namespaces(&self) -> u64 {
        let joined = self.options.join.iter().fold(0, |kinds, join| kinds | join.kind);
        (self.options.clone_flags | joined) & !self.joined.hosts
    }

    /// Waits for the groups and opens them, to be entered from where they can't be found.
    pub(crate) fn open_doors(&self) -> Result<Vec<Door>, Error> {
        wait_for(self.parent, |message| matches!(message, Message::CgroupReady))?;
        Ok(self.cgroup.open_doors_v1()?)
    }

    /// Waits for the groups, joins them, and makes them the root of what the container sees.
    pub(crate) fn enter_cgroup(&self, new_namespace: bool) -> Result<(), Error> {
        match &self.doors {
            Some(doors) => doors.iter().try_for_each(Door::enter)?,
            None => {
                wait_for(self.parent, |message| matches!(message, Message::CgroupReady))?;
                self.cgroup.join_self_v1()?;
            }
        }
        if new_namespace {
            shim_sys::clone::unshare(NEW_CGROUP).at(Step::Unshare, "the cgroup namespace")?;
        }
        Ok(())
    }
}

/// Becomes the first process of a container.
pub(crate) fn container(birth: &Birth<'_>, io: ChildIo, parents_ends: Option<ProcessIo>) -> ! {
    drop(parents_ends);
    report(birth.parent, || become_container(birth, io))
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
pub(crate) fn report(parent: &Channel, child: impl FnOnce() -> Result<Infallible, Error>) -> ! {
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

fn become_container(birth: &Birth<'_>, io: ChildIo) -> Result<Infallible, Error> {
    let plan = read_plan(birth.run_dir)?;
    let process =
        plan.process.as_ref().ok_or_else(|| Error::refused("the plan", Rule::NoProcess))?;
    lsm::check(process)?;
    rustix::process::umask(Mode::empty());
    birth.joined.join()?;
    if birth.options.clone_flags & NEW_TIME != 0 {
        time::unshare(&plan.time_offsets, &Procfs::private()?)?;
        time::enter()?;
    }
    let image = (process.init || process.pause).then(program::image).transpose()?;
    let hooks = own_hooks(birth)?;
    let doors = birth.joined.has_mounts().then(|| birth.open_doors()).transpose()?;
    birth.joined.join_mounts()?;
    shim_failpoints::step!("shim.create.before_mounts", error);
    let sources = Sources::take(&plan, None)?;
    let birth = Birth { doors, ..*birth };
    assemble(&birth, &plan, sources, Found { image, hooks }, io)
}

/// What a container needs of the host that is found by path.
pub(crate) struct Found {
    /// Of the init that its process runs under.
    pub(crate) image: Option<OwnedFd>,
    pub(crate) hooks: Option<Hooks>,
}

/// The hooks, if the child has to do with some.
pub(crate) fn own_hooks(birth: &Birth<'_>) -> Result<Option<Hooks>, Error> {
    let some = birth.options.hooks & OWN_HOOKS != 0;
    some.then(|| hooks::read(birth.run_dir)).transpose()
}

/// From what the host gave to the exec.
pub(crate) fn assemble(
    birth: &Birth<'_>,
    plan: &Plan,
    sources: Sources,
    found: Found,
    io: ChildIo,
) -> Result<Infallible, Error> {
    let Found { image, hooks } = found;
    let options = birth.options;
    let process =
        plan.process.as_ref().ok_or_else(|| Error::refused("the plan", Rule::NoProcess))?;
    if !plan.mount_label.is_empty() && !lsm::selinux_is_enabled() {
        return Err(Error::refused("linux.mountLabel", Rule::NoSelinux));
    }
    let mut tree = Tree::build(birth, plan, sources)?;
    if plan.loopback {
        shim_sys::net::loopback_up().at(Step::Loopback, "lo")?;
    }
    parameters::set_names(birth.own_namespaces(), &plan.hostname, &plan.domainname)?;
    let terminal = open_terminal(&io, &tree.root, options.width, options.height, birth.parent)?;
    if let Some(slave) = &terminal
        && dev::is_own(&plan.mounts)
    {
        dev::bind_console(&tree.root, slave)?;
    }
    let procfs = if plan.sysctls.is_empty() && !credentials::needs_procfs(process) {
        None
    } else {
        // The container's own may be read-only, or show a part only; that of processes of another
        // user namespace, though, is made by the midwife alone.
        Some(Procfs::private().or_else(|error| tree.procfs.take().ok_or(error))?)
    };
    if let Some(procfs) = &procfs {
        parameters::set_sysctls(birth.own_namespaces(), &plan.sysctls, procfs)?;
    }
    tree.hide(plan)?;
    tree.enter_groups(birth, plan)?;
    tree.make_cwd(&process.cwd)?;
    tree.close_filled()?;
    shim_failpoints::step!("shim.create.before_pivot", error);
    if let Some(hooks) = hooks.as_ref().filter(|_| options.hooks & BEFORE_PIVOT != 0) {
        hooks::before_pivot(hooks, birth.parent)?;
    }
    tree.enter(plan)?;
    let streams = Streams::new(&tree.root, io, terminal)?;
    let hooks = hooks.filter(|_| options.hooks & HookKind::StartContainer.bit() != 0);
    let brought = Brought { procfs, image, hooks, preserve_fds: options.preserve_fds };
    finish(process, &tree.root, streams, brought, birth.parent)
}

fn join_container(
    options: &ExecOptions,
    process: &Process,
    init: BorrowedFd<'_>,
    cgroup: &Cgroup,
    io: ChildIo,
    parent: &Channel,
) -> Result<Infallible, Error> {
    lsm::check(process)?;
    rustix::process::umask(Mode::empty());
    cgroup.join_self_v1()?;
    let image = process.init.then(program::image).transpose()?;
    let pid = pid_of(init)?;
    let others = other_than_own(pid)?;
    let has_user = others.contains(ThreadNameSpaceType::USER);
    let mut process = std::borrow::Cow::Borrowed(process);
    if has_user {
        midwife::take_privileges(process.to_mut(), &Procfs::private()?)?;
        io.give_to(userns::root_of_process(pid)?)?;
    }
    let kinds = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::CONTROL_GROUP
        | others;
    rustix::thread::move_into_thread_name_spaces(init, kinds)
        .at(Step::JoinNamespace, "the container")?;
    if has_user {
        userns::become_root()?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).map(Root::new).at(Step::Resolve, "/")?;
    let terminal = open_terminal(&io, &root, options.width, options.height, parent)?;
    let streams = Streams::new(&root, io, terminal)?;
    let preserve_fds = options.preserve_fds;
    let brought = Brought { procfs: None, image, hooks: None, preserve_fds };
    finish(&process, &root, streams, brought, parent)
}

pub(crate) fn read_plan(run_dir: &RunDir) -> Result<Plan, Error> {
    let path = run_dir.plan();
    let bytes = std::fs::read(&path).map_err(|error| Error::System {
        step: Step::ReadPlan,
        object: path.display().to_string(),
        errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
    })?;
    Plan::decode(bytes.as_slice()).map_err(|_| Error::refused(path.display(), Rule::MalformedPlan))
}

/// Waits for the parent's word; without a parent there is no use in going on.
pub(crate) fn wait_for(parent: &Channel, wanted: impl Fn(&Message) -> bool) -> Result<(), Error> {
    match parent.receive().at(Step::Channel, "the parent")? {
        Some(message) if wanted(&message) => Ok(()),
        Some(_) => Err(Errno::BADMSG).at(Step::Channel, "the parent"),
        None => exit_now(1),
    }
}

/// Waits for the word to execute, from this parent or from the one that it leaves the process to.
pub(crate) fn wait_for_start(parent: &Channel) -> Result<(), Error> {
    match parent.receive().at(Step::Channel, "the parent")? {
        Some(Message::Start) => Ok(()),
        Some(Message::HandOver(listener)) => {
            parent.meet_next(&listener).at(Step::Channel, "the next parent")?;
            wait_for(parent, |message| matches!(message, Message::Start))
        }
        Some(_) => Err(Errno::BADMSG).at(Step::Channel, "the parent"),
        None => exit_now(1),
    }
}

/// Does nothing any more, until the parent has no more use for this process.
pub(crate) fn wait_for_the_end(parent: &Channel) -> Result<Infallible, Error> {
    loop {
        wait_for(parent, |_| true)?;
    }
}

fn open_terminal(
    io: &ChildIo,
    root: &Root,
    width: u32,
    height: u32,
    parent: &Channel,
) -> Result<Option<OwnedFd>, Error> {
    match io {
        ChildIo::Pipes { .. } | ChildIo::Inherited => Ok(None),
        ChildIo::Terminal => {
            let (master, slave) = dev::open_terminal(root, width, height)?;
            parent.send(&Message::Terminal(master)).at(Step::Channel, "the parent")?;
            Ok(Some(slave))
        }
    }
}

/// What a process brings along from outside.
struct Brought {
    procfs: Option<Procfs>,
    /// Of the init that it runs under.
    image: Option<OwnedFd>,
    /// Those that run before its program.
    hooks: Option<Hooks>,
    preserve_fds: u32,
}

/// From a complete container to the exec in it; the same for its first process and the others.
fn finish(
    process: &Process,
    root: &Root,
    streams: Streams,
    brought: Brought,
    parent: &Channel,
) -> Result<Infallible, Error> {
    let identity = match &process.user {
        Some(user) => user::resolve(root, user)?,
        None => user::resolve(root, &shim_wire::plan::User::default())?,
    };
    let environment = environment(process, &identity)?;
    enter_cwd(root, &process.cwd)?;
    let (command, file, arguments) = program(process, brought.image)?;
    let procfs = match brought.procfs {
        None if credentials::needs_procfs(process) => Some(Procfs::private()?),
        other => other,
    };
    credentials::raise_limits(process)?;
    credentials::check_permitted(process, procfs.as_ref())?;
    rustix::process::setsid().at(Step::Session, "the process")?;
    streams.give_to(Uid::from_raw(identity.uid))?;
    streams.install()?;
    parent.send(&Message::Ready).at(Step::Channel, "the parent")?;
    wait_for_start(parent)?;
    if let Some(hooks) = &brought.hooks {
        // They are files of the container, and get no more than the container.
        hooks::within(hooks, HookKind::StartContainer, Status::Created, parent, |parent| {
            credentials::assume(process, &identity, procfs.as_ref(), parent)
        })?;
    }
    close_on_exec_from(3 + brought.preserve_fds).at(Step::Descriptors, "the process")?;
    shim_sys::signal::reset();
    rustix::process::umask(Mode::from_raw_mode(process.umask.unwrap_or(UMASK) & 0o777));
    shim_failpoints::step!("shim.start.before_credentials", error);
    credentials::assume(process, &identity, procfs.as_ref(), parent)?;
    execute(command, &file, &arguments, &environment)
}

/// What is executed.
enum File {
    At(CString),
    /// bosun's own init.
    Init(OwnedFd),
}

/// The program of a process, how it is called in errors, and its arguments.
fn program(process: &Process, image: Option<OwnedFd>) -> Result<(&str, File, Vec<CString>), Error> {
    let image = match image {
        Some(image) if process.pause => {
            return Ok((init::ARGV0, File::Init(image), init::pause_arguments()));
        }
        image => image,
    };
    let command =
        process.args.first().ok_or_else(|| Error::refused("the plan", Rule::NoProcess))?;
    let arguments = process.args.iter().map(|text| c_string(text)).collect::<Result<_, _>>()?;
    let path = command::find(command, &process.env)?;
    Ok(match image {
        Some(image) => (command, File::Init(image), init::arguments(path, arguments)),
        None => (command, File::At(path), arguments),
    })
}

fn execute(
    command: &str,
    file: &File,
    arguments: &[CString],
    environment: &[CString],
) -> Result<Infallible, Error> {
    let command = command.to_owned();
    let errno = match file {
        File::Init(image) => fexecve(image.as_fd(), arguments, environment),
        File::At(path) => execve(path, arguments, environment),
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
    // As runc has it, an empty one is none.
    let is_home = |entry: &&String| entry.starts_with("HOME=");
    if process.env.iter().rfind(is_home).is_none_or(|entry| entry == "HOME=") {
        environment.retain(|entry| !entry.as_bytes().starts_with(b"HOME="));
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
