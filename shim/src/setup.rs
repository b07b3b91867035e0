//! What the process does before its loop: takes over what it was started with, and becomes
//! independent of whoever started it.

use std::fs;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use prost::Message;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};
use shim_cgroup::Layout;
use shim_wire::files::{ProcessIdentity, start_time_of_stat};
use shim_wire::plan::Bootstrap;

use crate::args::Arguments;
use crate::error::SetupError;

/// The most descriptors that one message carries (SCM_MAX_FD of unix(7)).
const MAX_DESCRIPTORS: usize = 253;

/// What the shim was given, and what it made of it.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// Listens for the task API.
    pub(crate) api: UnixListener,
    /// Listens for attach clients.
    pub(crate) attach: UnixListener,
    pub(crate) network_namespace: Option<OwnedFd>,
    /// One bound socket for each published port: held until the shim is released.
    pub(crate) ports: Vec<OwnedFd>,
    pub(crate) boot_id: String,
    /// Readable when SIGHUP came: from a daemon that does not find the sockets.
    pub(crate) summons: OwnedFd,
}

/// # Errors
/// Names the step that failed; the process is of no use then.
pub(crate) fn run(arguments: &Arguments) -> Result<Inherited, SetupError> {
    let step = SetupError::step;
    shim_runtime::program::protect()
        .map_err(|e| step("protect its program", io::Error::other(e)))?;
    // The kernel before 6.14 calls what was executed by a descriptor by its number.
    let _ = rustix::thread::set_name(c"bosun-shim");
    shim_sys::exec::close_inherited_from(3).map_err(|e| step("close descriptors", e.into()))?;
    // What ends a service must not end the container: only its own shim's release does. Nor a file that has
    // come to the limit of its size: that is a disk without room.
    for signal in [Signal::INT, Signal::TERM, Signal::PIPE, Signal::XFSZ] {
        shim_sys::signal::ignore(signal.as_raw());
    }
    let summons = shim_sys::signal::awaited(Signal::HUP.as_raw())
        .map_err(|e| step("await SIGHUP", e.into()))?;
    lift_cpu_time();
    // It fails only for a process that leads a group already, and such a one has what it wants.
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|e| step("become undumpable", e.into()))?;
    std::env::set_current_dir("/").map_err(|e| step("change to /", e))?;

    let (api, bootstrap) = take_over_stdio().map_err(|e| step("take over descriptors", e))?;
    let (bootstrap, network_namespace, ports) = receive_bootstrap(&bootstrap)?;
    end_with_parent(bootstrap.parent).map_err(|e| step("ask for the parent's death", e))?;
    shim_failpoints::step!("shim.setup.before_identity");
    let boot_id = boot_id().map_err(|e| step("read the boot id", e))?;
    if let Some(cgroup) = &arguments.cgroup {
        leave_service_named(cgroup);
    }
    let attach = listen(&arguments.sockets.attach()).map_err(|e| step("bind attach.sock", e))?;
    let identity =
        identity_of(std::process::id(), &boot_id).map_err(|e| step("read /proc/self/stat", e))?;
    write_identity(&arguments.run.shim_identity(), &identity)
        .map_err(|e| step("write shim.pid", e))?;
    set_parent_process_death_signal(None).map_err(|e| step("outlive the parent", e.into()))?;
    Ok(Inherited { api, attach, network_namespace, ports, boot_id, summons })
}

/// A limit of CPU time, of a daemon that was started with one, would end a shim after the years that it
/// takes. Its container has its own from its specification.
fn lift_cpu_time() {
    let found = getrlimit(Resource::Cpu);
    if found.current.is_some() {
        let none = Rlimit { current: None, maximum: None };
        // Where that is not allowed, at least as far as it may.
        if setrlimit(Resource::Cpu, none).is_err() {
            let _ = setrlimit(Resource::Cpu, Rlimit { current: found.maximum, ..found });
        }
    }
}

/// Takes the listening socket from standard input and the bootstrap socket from standard output, and
/// leaves /dev/null in their places.
fn take_over_stdio() -> io::Result<(UnixListener, OwnedFd)> {
    // Not std's handles of them, whose buffers would stay.
    let api = UnixListener::from(rustix::stdio::stdin().try_clone_to_owned()?);
    let bootstrap = rustix::stdio::stdout().try_clone_to_owned()?;
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    api.set_nonblocking(true)?;
    Ok((api, bootstrap))
}

/// Until a shim can be found by its identity, nobody but its parent knows of it: one that comes to its
/// setup after that has died would hold ports, and take the place of the next run's shim.
fn end_with_parent(parent: i32) -> io::Result<()> {
    if parent == 0 {
        return Ok(());
    }
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before that.
    match rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get()) {
        Some(pid) if pid == parent => Ok(()),
        Some(_) | None => Err(io::Error::other("it has ended")),
    }
}

type Bootstrapped = (Bootstrap, Option<OwnedFd>, Vec<OwnedFd>);

fn receive_bootstrap(socket: &OwnedFd) -> Result<Bootstrapped, SetupError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0u8; 256];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)
        .map_err(|e| SetupError::step("receive the bootstrap message", e.into()))?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    let bootstrap = Bootstrap::decode(&bytes[..received.bytes])
        .map_err(|source| SetupError::Bootstrap { source: Some(source) })?;
    let announced = bootstrap.port_sockets as usize + usize::from(bootstrap.network_namespace);
    if announced != descriptors.len()
        || received.flags.intersects(ReturnFlags::CTRUNC | ReturnFlags::TRUNC)
    {
        return Err(SetupError::Bootstrap { source: None });
    }
    let network_namespace = bootstrap.network_namespace.then(|| descriptors.remove(0));
    Ok((bootstrap, network_namespace, descriptors))
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Puts back what a daemon finds a shim by, where its paths are gone: whoever keeps the state directory tidy may have
/// emptied it. The daemon looks for the first socket, which is the last thing to be there again.
///
/// # Errors
/// When their directories are not there either.
pub(crate) fn put_back(arguments: &Arguments, inherited: &mut Inherited) -> io::Result<()> {
    let is_gone = |path: &Path| {
        path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let path = arguments.run.shim_identity();
    if is_gone(&path) {
        write_identity(&path, &identity_of(std::process::id(), &inherited.boot_id)?)?;
    }
    for (listener, path) in [
        (&mut inherited.attach, arguments.sockets.attach()),
        (&mut inherited.api, arguments.sockets.shim()),
    ] {
        if is_gone(&path) {
            *listener = listen(&path)?;
        }
    }
    Ok(())
}

pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}

/// Which process a pid means as long as it is not waited for.
///
/// # Errors
/// When there is no such process.
pub(crate) fn identity_of(pid: u32, boot_id: &str) -> io::Result<ProcessIdentity> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let start_time =
        start_time_of_stat(&stat).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(ProcessIdentity { pid, start_time, boot_id: boot_id.to_owned() })
}

/// Writes an identity.
///
/// # Errors
/// When the run directory can't be written.
pub(crate) fn write_identity(path: &Path, identity: &ProcessIdentity) -> io::Result<()> {
    write_whole(path, &identity.encode())
}

/// Writes a file so that a reader sees all of it or nothing.
///
/// # Errors
/// When its directory can't be written.
pub(crate) fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    // The start call of containerd's writes the same identity beside the shim itself.
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&temporary, text)?;
    fs::rename(temporary, path)
}

/// Moves the shim out of the service that started it, in systemd's named v1 hierarchy. A thread that
/// moves itself through `tasks` waits for nobody.
fn leave_service_named(cgroup: &str) {
    let Ok(layout) = Layout::detect() else { return };
    leave_v1(&layout, "name=systemd", cgroup);
}

/// The same where it takes its time: done later, beside the way of a start. A move in the unified
/// hierarchy takes a lock over all forks of the machine, and 5 to 15 ms for it; a group in that of the
/// memory, where the kernel ends whom it finds when a service has no more, takes one or two to make. A
/// shim that was born in its cgroup is there already.
pub(crate) fn leave_service(cgroup: &str) {
    let Ok(layout) = Layout::detect() else { return };
    leave_v1(&layout, "memory", cgroup);
    let Some(mount) = layout.unified() else { return };
    let Ok(own) = fs::read_to_string("/proc/self/cgroup") else { return };
    if own.lines().any(|line| line.strip_prefix("0::/") == Some(cgroup)) {
        return;
    }
    let group = mount.join(cgroup);
    note(move_into(&group, "cgroup.procs"), &group);
}

fn leave_v1(layout: &Layout, subsystem: &str, cgroup: &str) {
    let is_meant = |options: &str| options.split(',').any(|one| one == subsystem);
    if let Some((_, _, mount)) = layout.v1_mounts().find(|(_, options, _)| is_meant(options)) {
        let group = mount.join(cgroup);
        note(move_into(&group, "tasks"), &group);
    }
}

fn move_into(group: &Path, file: &str) -> io::Result<()> {
    fs::create_dir_all(group)?;
    fs::write(group.join(file), "0")
}

/// A shim that can't have a cgroup of its own serves its container all the same.
fn note(moved: io::Result<()>, group: &Path) {
    if let Err(error) = moved {
        crate::report(&format!("move into cgroup {}", group.display()), &error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_that_was_written_names_this_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shim.pid");
        let identity = identity_of(std::process::id(), &boot_id().unwrap()).unwrap();
        write_identity(&path, &identity).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(ProcessIdentity::decode(&text), Some(identity));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
