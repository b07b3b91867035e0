//! From a bundle to a container whose first process waits before its exec.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use prost::Message as _;
use shim_cgroup::Cgroup;
use shim_plan::{Context, Layers, Scope};
use shim_runtime::{Created, ProcessIo, Waiting};
use shim_sys::pidfd::send_signal;
use shim_wire::hooks::Hooks;
use shim_wire::plan::{CreateOptions, Plan, Resources, Restore};

use crate::bundle::Bundle;
use crate::cli::Global;
use crate::console;
use crate::container::{Container, Lock, Record};
use crate::descriptors::Preserved;
use crate::ending;
use crate::error::Error;
use crate::files;
use crate::report;
use crate::scope;
use crate::signal;

/// How long a process that is not wanted may take to end.
const UNDO: Duration = Duration::from_secs(5);

/// What `create` and `run` have in common.
#[derive(Args, Debug)]
pub(crate) struct LaunchArgs {
    /// Where its config.json is [default: the current directory]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// Listens for the master of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Where the number of its first process is written
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Refused: the root is always pivoted
    #[arg(long)]
    no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    no_new_keyring: bool,
    /// So many descriptors from 3 on are the container's as well
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Unique among the containers of the root
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

impl LaunchArgs {
    /// As [`Preserved::take`].
    ///
    /// # Errors
    /// As that.
    pub(crate) fn take_descriptors(&self) -> Result<Preserved, Error> {
        Preserved::take(self.preserve_fds, true)
    }
}

/// A container whose first process waits, and what the caller has of it.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) container: Container,
    pub(crate) waiting: Waiting,
    pub(crate) lock: Lock,
    /// From a checkpoint: which process it is shows with its start.
    pub(crate) restored: bool,
}

impl Launched {
    /// Lets it execute its program, or go on, and runs the hooks that follow.
    ///
    /// # Errors
    /// Those of the start; the container is the caller's to remove then.
    pub(crate) fn start(&mut self, arguments: &LaunchArgs) -> Result<(), Error> {
        self.waiting.start()?;
        if self.restored {
            announce(&self.container, &self.waiting, arguments)?;
        }
        self.container.run_poststart()
    }
}

/// Who looks after the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attended {
    /// This command, to its end.
    Here,
    /// Whoever takes over its processes.
    Elsewhere,
}

/// What a bundle's specification means.
#[derive(Debug)]
struct Lowered {
    options: CreateOptions,
    plan: Plan,
    hooks: Option<Hooks>,
    /// What systemd has to make first.
    scope: Option<Scope>,
}

/// # Errors
/// Names what is wrong with the bundle or the flags, before anything is made, or what failed; nothing
/// is left then.
pub(crate) fn launch(
    global: &Global,
    arguments: &LaunchArgs,
    preserved: Preserved,
    attended: Attended,
    restore: Option<Restore>,
) -> Result<Launched, Error> {
    if arguments.no_pivot {
        return Err(Error::Refused { flag: "--no-pivot", why: "the root is always pivoted" });
    }
    let bundle = Bundle::read(arguments.bundle.as_deref())?;
    // Standard error is the container's as well, and whoever attends to that elsewhere takes what is said there
    // for its own words: such a caller gives a log.
    if global.log.is_some() || attended == Attended::Here {
        bundle.warnings.iter().for_each(|warning| report::warning(global, warning));
    }
    let mut lowered = lower(&bundle, global.systemd_cgroup, arguments, preserved)?;
    bundle.check_rootfs()?;
    lowered.options.restore = restore;
    let options = &lowered.options;
    check_console(options.terminal, arguments.console_socket.is_some(), attended)?;
    let record = record(&bundle, &arguments.id, &lowered);
    let (container, lock) = Container::make(&global.root, &bundle, record)?;
    let made = make(&container, &lowered, arguments);
    let waiting = made.inspect_err(|_| container.forget())?;
    let text = format!(
        "container {}: process {} waits in the control group {}",
        arguments.id, waiting.pid, options.cgroup
    );
    report::debug(global, &text);
    let restored = lowered.options.restore.is_some();
    Ok(Launched { container, waiting, lock, restored })
}

fn lower(
    bundle: &Bundle,
    systemd_cgroup: bool,
    arguments: &LaunchArgs,
    preserved: Preserved,
) -> Result<Lowered, Error> {
    let context = Context {
        id: arguments.id.clone(),
        attempt: 1,
        layers: Layers::Spec,
        bundle: Some(bundle.directory.clone()),
        cgroup: match systemd_cgroup {
            true => arguments.id.clone(),
            false => format!("bosun-oci-{}", arguments.id),
        },
        systemd_cgroup,
        stdin: true,
        ..Context::default()
    };
    let wrong = |source| Error::Plan { file: bundle.config(), source };
    let (mut options, mut plan) = shim_plan::plan(&bundle.spec, &context).map_err(wrong)?;
    let hooks = shim_plan::hooks(&bundle.spec, &context).map_err(wrong)?;
    options.inherit_stdio = true;
    options.preserve_fds = preserved.count();
    if let Some(process) = &mut plan.process {
        process.detached = true;
        process.keep_keyring = arguments.no_new_keyring;
        process.env.extend(preserved.environment());
    }
    let scope = shim_plan::scope(&bundle.spec, &context).map_err(wrong)?;
    Ok(Lowered { options, plan, hooks, scope })
}

/// # Errors
/// [`Error::Refused`] when a terminal and whoever looks after it don't fit.
pub(crate) fn check_console(terminal: bool, socket: bool, attended: Attended) -> Result<(), Error> {
    let flag = "--console-socket";
    match (terminal, socket, attended) {
        (true, false, Attended::Elsewhere) => Err(Error::Refused {
            flag,
            why: "missing: process.terminal is set, and nobody here to look after a terminal",
        }),
        (false, true, _) => Err(Error::Refused { flag, why: "process.terminal is not set" }),
        (true, true, _) | (true, false, Attended::Here) | (false, false, _) => Ok(()),
    }
}

fn record(bundle: &Bundle, id: &str, lowered: &Lowered) -> Record {
    let annotations = bundle.spec.annotations().clone().unwrap_or_default();
    Record {
        oci_version: bundle.spec.version().clone(),
        id: id.to_owned(),
        bundle: bundle.directory.clone(),
        rootfs: bundle.rootfs(),
        created: Timestamp::now().to_string(),
        annotations: annotations.into_iter().collect(),
        cgroup: lowered.options.cgroup.clone(),
        scope: lowered.scope.as_ref().map(|scope| scope.unit.clone()),
    }
}

fn make(
    container: &Container,
    lowered: &Lowered,
    arguments: &LaunchArgs,
) -> Result<Waiting, Error> {
    let cgroup = container.cgroup()?;
    refuse_populated(&cgroup)?;
    let place = container.run_dir();
    files::write_whole(&place.plan(), &lowered.plan.encode_to_vec(), 0o600)?;
    if let Some(hooks) = &lowered.hooks {
        files::write_whole(&place.hooks(), &hooks.encode_to_vec(), 0o600)?;
    }
    let none = Resources::default();
    let resources = lowered.options.resources.as_ref().unwrap_or(&none);
    // In the scope until the container's own process is.
    let scope = lowered.scope.as_ref();
    let stand_in =
        scope.map(|scope| scope::start(scope, resources, cgroup.layout().is_v2())).transpose()?;
    let created = shim_runtime::create_kept(&lowered.options, &place, None, stand_in);
    let announced = created.map_err(Error::from).and_then(|created| {
        let Created { process, mount_namespace: _ } = created;
        let announced = match lowered.options.restore {
            None => announce(container, &process, arguments),
            Some(_) => container.set_init(process.pid),
        };
        announced.inspect_err(|_| undo(&process, &cgroup)).map(|()| process)
    });
    announced.inspect_err(|_| {
        // systemd notices an empty group by itself; the name is to be free now. The error that led
        // here is the one to tell.
        let _ = scope.map(|scope| scope::stop(&scope.unit));
    })
}

/// Another container's group is not to be shared: what ends one would end the other.
///
/// # Errors
/// [`Error::CgroupInUse`], and those of looking.
pub(crate) fn refuse_populated(cgroup: &Cgroup) -> Result<(), Error> {
    let pids = cgroup.procs_anywhere()?;
    if pids.is_empty() {
        return Ok(());
    }
    Err(Error::CgroupInUse { path: cgroup.path().to_owned(), pids })
}

/// Tells everybody who is to know of it.
fn announce(container: &Container, process: &Waiting, arguments: &LaunchArgs) -> Result<(), Error> {
    container.set_init(process.pid)?;
    if let (Some(socket), ProcessIo::Terminal { master }) = (&arguments.console_socket, &process.io)
    {
        console::send(socket, master)?;
    }
    write_pid_file(arguments.pid_file.as_deref(), process.pid)
}

/// # Errors
/// Names the file.
pub(crate) fn write_pid_file(path: Option<&Path>, pid: i32) -> Result<(), Error> {
    path.map_or(Ok(()), |path| files::write_whole(path, pid.to_string().as_bytes(), 0o644))
}

/// Ends a process that nobody will start.
fn undo(process: &Waiting, cgroup: &Cgroup) {
    let deadline = Instant::now() + UNDO;
    // What led here is the error to tell. Who stands still in a v1 group can't be killed.
    let _ = cgroup.freeze(false);
    let _ = send_signal(process.pidfd.as_fd(), signal::KILL);
    if ending::wait_until(&process.pidfd, deadline) {
        ending::reap(&process.pidfd);
    }
    let _ = cgroup.kill(deadline);
    let _ = cgroup.remove(deadline);
}
