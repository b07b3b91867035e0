//! `exec`: a further process in a container.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process, Spec, User};
use shim_plan::parse::Parsed;
use shim_plan::{Context, ExecContext};
use shim_runtime::{ExecTarget, ProcessIo, Waiting};
use shim_wire::plan::ExecOptions;

use crate::bundle;
use crate::cli::Global;
use crate::console;
use crate::container::{Container, Status};
use crate::descriptors::Preserved;
use crate::error::Error;
use crate::foreground::{Foreground, Signals};
use crate::launch::{self, Attended};
use crate::report;

/// What runc's `exec` ends with when it is not with the process' own code.
const FAILED: u8 = 255;

/// Run a further process in a container
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        bosun-oci exec web ls /\n  \
        bosun-oci exec --tty web sh\n  \
        bosun-oci exec --detach --process process.json --pid-file exec.pid web")]
pub(crate) struct ExecArgs {
    /// Listens for the master of the process' terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Its working directory in the container
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Beside the container's own
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// On a terminal
    #[arg(short, long)]
    tty: bool,
    /// Who runs it
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Groups beside the first
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// A file with the whole process as JSON, in place of the flags
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Don't wait for its end
    #[arg(short, long)]
    detach: bool,
    /// Where its number is written
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Its SELinux label
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// Its AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// It can't gain privileges
    #[arg(long)]
    no_new_privs: bool,
    /// A capability beside the container's own
    #[arg(short, long, value_name = "CAPABILITY")]
    cap: Vec<String>,
    /// So many descriptors from 3 on are the process' as well
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// A control group below the container's, which must be there
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// Also in a paused container, where it begins when that goes on
    #[arg(long)]
    ignore_paused: bool,
    #[arg(value_name = "ID")]
    id: String,
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// The code is the process' own.
pub(crate) fn run(global: &Global, arguments: &ExecArgs) -> ExitCode {
    match exec(global, arguments) {
        Ok(code) => code.into(),
        Err(error) => {
            report::error(global, &error);
            FAILED.into()
        }
    }
}

fn exec(global: &Global, arguments: &ExecArgs) -> Result<u8, Error> {
    let preserved = Preserved::take(arguments.preserve_fds, false)?;
    let container = Container::find(&global.root, &arguments.id)?;
    match container.status() {
        Status::Running | Status::Created => {}
        Status::Paused if arguments.ignore_paused => {}
        status @ (Status::Creating | Status::Paused | Status::Stopped) => {
            return Err(Error::Status { verb: "exec in", id: arguments.id.clone(), status });
        }
    }
    let mut options = lower(global, &container, arguments)?;
    options.inherit_stdio = true;
    options.preserve_fds = preserved.count();
    let terminal = options.process.as_mut().is_some_and(|process| {
        process.detached = true;
        process.terminal
    });
    let attended = if arguments.detach { Attended::Elsewhere } else { Attended::Here };
    launch::check_console(terminal, arguments.console_socket.is_some(), attended)?;
    let signals = match attended {
        Attended::Here => Some(Signals::take()?),
        Attended::Elsewhere => None,
    };
    let cgroup = group(&container, arguments.cgroup.as_deref())?;
    let init = container.living()?;
    let target = ExecTarget { init: init.pidfd.as_fd(), cgroup: &cgroup };
    let waiting = shim_runtime::exec(&options, &target)?;
    start(waiting, signals, arguments)
}

/// Starts the process and waits for it, when it is to be waited for.
fn start(
    mut waiting: Waiting,
    signals: Option<Signals>,
    arguments: &ExecArgs,
) -> Result<u8, Error> {
    if let (Some(socket), ProcessIo::Terminal { master }) = (&arguments.console_socket, &waiting.io)
    {
        console::send(socket, master)?;
    }
    let handed_away = arguments.console_socket.is_some();
    let foreground =
        signals.map(|signals| Foreground::new(signals, &waiting.io, handed_away)).transpose()?;
    waiting.start()?;
    launch::write_pid_file(arguments.pid_file.as_deref(), waiting.pid)?;
    Ok(foreground.map_or(0, |foreground| foreground.attend(waiting.pid, &waiting.pidfd)))
}

fn lower(
    global: &Global,
    container: &Container,
    arguments: &ExecArgs,
) -> Result<ExecOptions, Error> {
    let path = container.config();
    let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    // What its own process asks for and was passed over was said when it was made.
    let Parsed { value: spec, warnings: _ } = bundle::config(&text, &path)?;
    let wrong = |file: &Path| {
        let file = file.to_owned();
        move |source| Error::Plan { file, source }
    };
    let place = Context {
        id: container.record.id.clone(),
        bundle: Some(container.record.bundle.clone()),
        ..Context::default()
    };
    let state = shim_plan::state(&spec, &place).map_err(wrong(&path))?;
    let (mut process, file) = match &arguments.process {
        Some(file) => {
            refuse_beside_process(arguments)?;
            (read_process(global, file)?, file.clone())
        }
        None => (changed(&spec, arguments)?, path),
    };
    let lacked = bundle::restrict(&mut process, &spec);
    if arguments.process.is_some() || !arguments.cap.is_empty() {
        lacked.iter().for_each(|warning| report::warning(global, warning));
    }
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let personality = spec.linux().as_ref().and_then(|linux| linux.personality().clone());
    let context = ExecContext { stdin: true, personality, state, ..ExecContext::default() };
    let mut options = shim_plan::exec(&process, seccomp, &context).map_err(wrong(&file))?;
    if let Some(process) = options.process.as_mut().filter(|_| arguments.tty) {
        process.terminal = true;
    }
    Ok(options)
}

fn read_process(global: &Global, file: &Path) -> Result<Process, Error> {
    let text = fs::read(file).map_err(Error::file("read", file))?;
    let Parsed { value, warnings } = bundle::process(&text, file)?;
    warnings.iter().for_each(|warning| report::warning(global, warning));
    Ok(value)
}

/// What the file of --process says is not to be said a second time, and passed over.
fn refuse_beside_process(arguments: &ExecArgs) -> Result<(), Error> {
    let beside = [
        ("COMMAND", !arguments.command.is_empty()),
        ("--cwd", arguments.cwd.is_some()),
        ("--env", !arguments.env.is_empty()),
        ("--user", arguments.user.is_some()),
        ("--additional-gids", !arguments.additional_gids.is_empty()),
        ("--process-label", arguments.process_label.is_some()),
        ("--apparmor", arguments.apparmor.is_some()),
        ("--no-new-privs", arguments.no_new_privs),
        ("--cap", !arguments.cap.is_empty()),
    ];
    match beside.into_iter().find(|(_, given)| *given) {
        Some((flag, _)) => {
            Err(Error::Refused { flag, why: "the file of --process says that: give one of them" })
        }
        None => Ok(()),
    }
}

/// The container's own process, changed as the flags say.
fn changed(spec: &Spec, arguments: &ExecArgs) -> Result<Process, Error> {
    if arguments.command.is_empty() {
        return Err(Error::Refused { flag: "COMMAND", why: "missing, and no --process either" });
    }
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(arguments.command.clone())).set_terminal(Some(arguments.tty));
    if let Some(cwd) = &arguments.cwd {
        if !cwd.is_absolute() {
            let value = cwd.to_string_lossy().into_owned();
            return Err(Error::Malformed { flag: "--cwd", value, expected: "an absolute path" });
        }
        process.set_cwd(cwd.clone());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(arguments.env.iter().cloned());
    process.set_env(Some(env));
    if arguments.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(profile) = &arguments.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &arguments.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    let user = user(process.user(), arguments)?;
    process.set_user(user);
    add_capabilities(&mut process, &arguments.cap)?;
    Ok(process)
}

fn user(own: &User, arguments: &ExecArgs) -> Result<User, Error> {
    let mut user = own.clone();
    if let Some(text) = &arguments.user {
        let (uid, gid) = match text.split_once(':') {
            Some((uid, gid)) => (uid.parse().ok(), gid.parse().ok()),
            None => (text.parse().ok(), Some(user.gid())),
        };
        let (Some(uid), Some(gid)) = (uid, gid) else {
            let value = text.clone();
            return Err(Error::Malformed { flag: "--user", value, expected: "UID or UID:GID" });
        };
        user.set_uid(uid).set_gid(gid);
    }
    if !arguments.additional_gids.is_empty() {
        let mut gids = user.additional_gids().clone().unwrap_or_default();
        gids.extend(&arguments.additional_gids);
        user.set_additional_gids(Some(gids));
    }
    Ok(user)
}

/// To every set but the inheritable one: what a file gives must not grow with it.
fn add_capabilities(process: &mut Process, names: &[String]) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let named = |name: &String| {
        let known = serde_json::from_value::<Capability>(name.to_uppercase().into());
        let value = name.clone();
        known.map_err(|_| Error::Malformed { flag: "--cap", value, expected: "a capability" })
    };
    let added: Vec<Capability> = names.iter().map(named).collect::<Result<_, _>>()?;
    let mut sets = process.capabilities().clone().unwrap_or_else(none);
    let with = |set: &Option<Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(added.iter().copied());
        Some(set)
    };
    let (bounding, effective) = (with(sets.bounding()), with(sets.effective()));
    let permitted = with(sets.permitted());
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    process.set_capabilities(Some(sets));
    Ok(())
}

/// Five empty sets: the type's own default has some.
fn none() -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(None)
        .set_effective(None)
        .set_inheritable(None)
        .set_permitted(None)
        .set_ambient(None);
    sets
}

/// The container's group, or one below it that is there.
fn group(container: &Container, below: Option<&str>) -> Result<String, Error> {
    let own = container.record.cgroup.clone();
    let Some(below) = below.map(|path| path.trim_matches('/')).filter(|path| !path.is_empty())
    else {
        return Ok(own);
    };
    if below.contains(':') {
        let why = "a path for a single controller: not supported";
        return Err(Error::Refused { flag: "--cgroup", why });
    }
    let path = format!("{own}/{below}");
    let cgroup = shim_cgroup::Cgroup::new(&shim_cgroup::Layout::detect()?, &path)?;
    match cgroup.paths().iter().all(|path| path.is_dir()) {
        true => Ok(path),
        false => Err(Error::Malformed {
            flag: "--cgroup",
            value: below.to_owned(),
            expected: "a control group of the container in every hierarchy",
        }),
    }
}
