//! Hands the listener of a process' seccomp notifications to the agent that asked for it
//! (runtime-spec, `config-linux.md`, "The Container Process State").
//!
//! ```text
//!  child                                     parent              its helper
//!  writes down what the agent is told
//!  Listening: itself, two numbers ─────────▶ clones ───────────▶ reads it
//!  installs the filter                                           takes the listener out of the child
//!  waits                                                         connects to the agent, tells it, sends
//!  executes ◀─────────────────────── GoOn ──◀─────────────────── the listener, closes
//! ```
//!
//! Between its filter and its exec the child makes one call, recvmsg(2): with an agent that is told of
//! it that is fine, for the agent has the listener by then.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use prost::Message as _;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, sendmsg, socket_with,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use shim_wire::plan::{Notify, Process};

use crate::channel::{Channel, Message};
use crate::error::At;
use crate::hooks::{self, Running};
use crate::process::pid_of;
use crate::state::{self, Status};
use crate::{Error, Rule, Step};

/// How long a child may take from its announcement to its filter.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AFTER: Duration = Duration::from_micros(200);

/// The child's side: installs the filter and returns when the agent has its listener.
pub(crate) fn install(process: &Process, notify: &Notify, parent: &Channel) -> Result<(), Error> {
    const NAME: &str = "linux.seccomp.listenerPath";
    let text = hooks::in_memory(&notify.encode_to_vec()).at(Step::Notify, NAME)?;
    let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).at(Step::Notify, NAME)?;
    // The lowest number that is free: where the kernel will put the listener.
    let next = rustix::io::fcntl_dupfd_cloexec(&text, 0).at(Step::Notify, NAME)?;
    let listener = next.as_raw_fd();
    drop(next);
    let numbers = [text.as_raw_fd(), listener];
    let announced = Message::Listening { own, numbers };
    parent.send(&announced).at(Step::Channel, "the parent")?;
    let installed = shim_sys::seccomp::install_listening(&process.seccomp, process.seccomp_flags)
        .at(Step::Seccomp, "the process")?;
    // Until now nothing could be closed, or a lower number had been free.
    drop(announced);
    if installed.as_raw_fd() != listener {
        return Err(Error::refused(NAME, Rule::MovedListener));
    }
    match parent.receive().at(Step::Channel, "the parent")? {
        Some(Message::GoOn) => Ok(()),
        Some(_) => Err(Errno::BADMSG).at(Step::Channel, "the parent"),
        None => shim_sys::exec::exit_now(1),
    }
}

/// The parent's side.
pub(crate) fn tell(child: &OwnedFd, numbers: [i32; 2]) -> Result<(), Error> {
    Running::helper("the seccomp agent's messenger", |_| deliver(child.as_fd(), numbers))?.wait()
}

fn deliver(child: BorrowedFd<'_>, [text, listener]: [i32; 2]) -> Result<(), Error> {
    const NAME: &str = "the process' listener";
    let text = pidfd_getfd(child, text, PidfdGetfdFlags::empty()).at(Step::Notify, NAME)?;
    let size = rustix::fs::fstat(&text).at(Step::Notify, NAME)?.st_size;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    let count = rustix::io::pread(&text, &mut bytes, 0).at(Step::Notify, NAME)?;
    let notify =
        Notify::decode(&bytes[..count]).map_err(|_| Error::refused(NAME, Rule::MalformedPlan))?;
    let deadline = Instant::now() + PATIENCE;
    let listener = loop {
        match pidfd_getfd(child, listener, PidfdGetfdFlags::empty()) {
            Ok(listener) => break listener,
            Err(Errno::BADF) if Instant::now() < deadline => std::thread::sleep(LOOK_AFTER),
            Err(errno) => return Err(errno).at(Step::Notify, NAME),
        }
    };
    let json = process_state(&notify, pid_of(child)?);
    send(&notify.path, json.as_bytes(), listener.as_fd())
        .at(Step::Notify, format_args!("linux.seccomp.listenerPath {:?}", notify.path))
}

/// All in one message where it fits; the descriptor comes with the first part.
fn send(path: &str, text: &[u8], listener: BorrowedFd<'_>) -> Result<(), Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let descriptors = [listener];
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno::NOBUFS);
    }
    let mut sent = sendmsg(&socket, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL)?;
    while sent < text.len() {
        sent += rustix::net::send(&socket, &text[sent..], SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

fn process_state(notify: &Notify, pid: i32) -> String {
    let none = shim_wire::hooks::State::default();
    let container = notify.state.as_ref().unwrap_or(&none);
    let status = if notify.is_exec { Status::Running } else { Status::Created };
    let mut text = String::from("{\"ociVersion\":");
    state::string(&mut text, &container.oci_version);
    text.push_str(",\"fds\":[\"seccompFd\"],\"pid\":");
    text.push_str(&pid.to_string());
    if !notify.metadata.is_empty() {
        text.push_str(",\"metadata\":");
        state::string(&mut text, &notify.metadata);
    }
    text.push_str(",\"state\":");
    // Of an exec, the container's own pid is not known here, and may be left out.
    let own = Pid::from_raw(pid).filter(|_| !notify.is_exec).map(Pid::as_raw_pid);
    text.push_str(&state::json(container, status, own));
    text.push('}');
    text
}
