//! `start`: a shim for a container, started as bosund starts one.
//!
//! ```text
//! BUNDLE/address             unix:///run/bosun-shim/HEX/shim.sock, for a containerd that restarts
//! BUNDLE/log                 a FIFO of containerd's: the shim's messages
//! BUNDLE/bosun/              the run and container directory: plan, cgroup, exit.json, identities
//! BUNDLE/bosun/sockets  ──▶  /run/bosun-shim/HEX/, for a bundle's path is too long for a socket
//! ```
//!
//! The answer is in the form of the caller's age; see [`shim_wire::containerd`].

use std::fs::{self, DirBuilder, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use prost::Message;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};
use shim_cgroup::{Cgroup, Layout};
use shim_wire::containerd::{BootstrapParams, BootstrapResult, RUNC_OPTIONS, RuncOptions};
use shim_wire::files::{RunDir, SocketDir};
use shim_wire::plan::{Bootstrap, Resources};
use shim_wire::task::Any;

use super::command::Target;
use super::{Failure, SOCKETS, directory, lower, remove_sockets};
use crate::setup;

/// How often the directory of all sockets is made, which goes with the last shim.
const PARENT_TRIES: usize = 100;

/// The longest path of a socket (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// In what form the caller wants to be told where the shim is.
#[derive(Debug, PartialEq, Eq)]
enum Caller {
    Plain,
    /// With the newest version of the task API that it knows.
    Json(u32),
    Protobuf,
}

/// What the caller says on standard input and in the environment.
#[derive(Debug)]
struct Request {
    caller: Caller,
    events: PathBuf,
    sockets: PathBuf,
    options: RuncOptions,
}

/// Starts a shim. What to answer on standard output.
///
/// # Errors
/// Names the step; nothing is left then.
pub(super) fn start(target: &Target, input: &[u8]) -> Result<Vec<u8>, Failure> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let variable = |name: &str| std::env::var(name).ok();
    let request = Request::new(target, input, variable)?;
    let run = directory(&target.bundle);
    make(run.path()).map_err(|e| Failure::step("make", run.path().display(), e))?;
    let sockets = place_sockets(&request.sockets, &run).inspect_err(|_| {
        let _ = fs::remove_dir_all(run.path());
    })?;
    let undo = |failure| {
        let _ = remove_sockets(sockets.path());
        let _ = fs::remove_dir_all(run.path());
        failure
    };
    let socket = sockets.shim();
    let address = format!("unix://{}", socket.display());
    let answer = request.caller.answer(&address);
    if std::env::var_os("SCHED_CORE").is_some() {
        share_core().map_err(|e| undo(Failure::step("share a core with", "nobody", e)))?;
    }
    raise_oom_score();
    let mut child = spawn(target, &request, &run, &sockets).map_err(undo)?;
    let finished = move_shim(&request.options.shim_cgroup, &child).and_then(|()| {
        // Also by the shim itself, later: whoever deletes it before that has to find it.
        let noted = setup::boot_id()
            .and_then(|boot_id| setup::identity_of(child.id(), &boot_id))
            .and_then(|identity| setup::write_identity(&run.shim_identity(), &identity));
        noted.map_err(|e| Failure::step("write", run.shim_identity().display(), e))?;
        let file = target.bundle.join("address");
        setup::write_whole(&file, &address).map_err(|e| Failure::step("write", file.display(), e))
    });
    finished.map(|()| answer).map_err(|failure| {
        let _ = child.kill();
        let _ = child.wait();
        undo(failure)
    })
}

impl Request {
    fn new(
        target: &Target,
        input: &[u8],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Failure> {
        // Both messages begin with a text: what it says tells them apart.
        let params = BootstrapParams::decode(input).ok().filter(|params| {
            params.instance_id == target.id.as_str()
                && params.namespace == target.namespace.as_str()
        });
        let events = |address: Option<String>| {
            let address = address.filter(|address| !address.is_empty());
            let missing = "TTRPC_ADDRESS is not set: there is nobody to tell events to";
            let address = address.ok_or_else(|| Failure::Usage(missing.to_owned()))?;
            Ok(PathBuf::from(address.strip_prefix("unix://").unwrap_or(&address)))
        };
        if let Some(params) = params {
            let of_options = |any: &Any| any.type_url == RUNC_OPTIONS;
            let extensions = params.extensions.into_iter().filter_map(|extension| extension.value);
            let sockets = params.socket_dir.filter(|path| !path.is_empty());
            return Ok(Self {
                caller: Caller::Protobuf,
                events: events(Some(params.containerd_ttrpc_address))?,
                sockets: sockets.unwrap_or_else(|| SOCKETS.to_owned()).into(),
                options: options(extensions.into_iter().find(of_options))?,
            });
        }
        let any = Any::decode(input).map_err(|source| Failure::Decode {
            what: "standard input: neither options nor bootstrap parameters of this container",
            source,
        })?;
        let version = variable("MAX_SHIM_VERSION").and_then(|text| text.parse().ok());
        Ok(Self {
            caller: version.map_or(Caller::Plain, |newest: u32| Caller::Json(newest.clamp(2, 3))),
            events: events(variable("TTRPC_ADDRESS"))?,
            sockets: SOCKETS.into(),
            options: options(Some(any))?,
        })
    }
}

/// The options in an Any of runc's; those of other runtimes are judged when the container is created.
fn options(any: Option<Any>) -> Result<RuncOptions, Failure> {
    let any = any.filter(|any| any.type_url == RUNC_OPTIONS).unwrap_or_default();
    RuncOptions::decode(any.value.as_slice())
        .map_err(|source| Failure::Decode { what: RUNC_OPTIONS, source })
}

impl Caller {
    fn answer(&self, address: &str) -> Vec<u8> {
        match self {
            Self::Plain => address.as_bytes().to_vec(),
            // The address is of our own making: nothing in it needs escaping but what SOCKETS or the
            // caller's directory may hold.
            Self::Json(version) => {
                let address = address.replace('\\', "\\\\").replace('"', "\\\"");
                format!(r#"{{"version":{version},"address":"{address}","protocol":"ttrpc"}}"#)
                    .into_bytes()
            }
            Self::Protobuf => {
                let (address, protocol) = (address.to_owned(), "ttrpc".to_owned());
                BootstrapResult { version: 3, address, protocol }.encode_to_vec()
            }
        }
    }
}

/// A directory of its own for the sockets, found again by the link in the run directory.
fn place_sockets(parent: &Path, run: &RunDir) -> Result<SocketDir, Failure> {
    // A hasher has random keys: the name is one that nobody has.
    let name = format!("{:016x}", RandomState::new().hash_one(run.path()));
    let sockets = SocketDir::new(parent.join(name));
    if sockets.attach().as_os_str().len() > SOCKET_PATH_MAX {
        let why = format!("{}: the path of a socket there is too long", parent.display());
        return Err(Failure::Usage(why));
    }
    symlink(sockets.path(), run.sockets())
        .map_err(|e| Failure::step("make", run.sockets().display(), e))?;
    for _ in 0..PARENT_TRIES {
        match make(parent) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Failure::step("make", parent.display(), error));
            }
            Ok(()) | Err(_) => {}
        }
        match make(sockets.path()) {
            // The last shim before this one took it along.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            made => {
                let failed = |e| Failure::step("make", sockets.path().display(), e);
                return made.map(|()| sockets.clone()).map_err(failed);
            }
        }
    }
    Err(Failure::step("make", sockets.path().display(), io::ErrorKind::NotFound.into()))
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Starts the shim with its listening socket as standard input and a bootstrap message that waits in
/// its standard output, which brings nothing here.
fn spawn(
    target: &Target,
    request: &Request,
    run: &RunDir,
    sockets: &SocketDir,
) -> Result<Child, Failure> {
    let listener = UnixListener::bind(sockets.shim())
        .map_err(|e| Failure::step("bind", sockets.shim().display(), e))?;
    let log = target.bundle.join("log");
    // A FIFO that containerd reads. Open for both: a containerd that is away is no error, and one that
    // does not read does not stop the shim.
    let log_file = OpenOptions::new().read(true).write(true).custom_flags(NONBLOCK).open(&log);
    let stderr = match log_file {
        Ok(file) => Stdio::from(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Stdio::null(),
        Err(error) => return Err(Failure::step("open", log.display(), error)),
    };
    let bootstrap = bootstrap().map_err(|e| Failure::step("make", "the bootstrap message", e))?;
    let program = std::env::current_exe().map_err(|e| Failure::step("find", "this program", e))?;
    let mut command = Command::new(&program);
    command
        .args(["--namespace", target.namespace.as_str(), "--id", target.id.as_str()])
        .arg("--container-dir")
        .arg(run.path())
        .arg("--run-dir")
        .arg(run.path())
        .arg("--socket-dir")
        .arg(sockets.path())
        .arg("--containerd")
        .arg(&request.events)
        .arg("--lower")
        .arg(lower::program())
        .env_clear()
        .envs(shim_failpoints::environment())
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::from(bootstrap))
        .stderr(stderr);
    command.spawn().map_err(|e| Failure::step("start", program.display(), e))
}

const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

fn bootstrap() -> io::Result<OwnedFd> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let message = Bootstrap::default();
    debug_assert!(message.encode_to_vec().is_empty());
    // Field 1 as its default: an empty packet would read as the end.
    let mut none = SendAncillaryBuffer::default();
    sendmsg(&ours, &[IoSlice::new(&[0x08, 0x00])], &mut none, SendFlags::empty())?;
    Ok(theirs)
}

/// In the cgroup that the options name; otherwise it stays where containerd started it.
fn move_shim(cgroup: &str, shim: &Child) -> Result<(), Failure> {
    let path = cgroup.trim_matches('/');
    if path.is_empty() {
        return Ok(());
    }
    let moved = Layout::detect().and_then(|layout| {
        let cgroup = Cgroup::new(&layout, path)?;
        cgroup.create(&Resources::default())?;
        cgroup.join(i32::try_from(shim.id()).unwrap_or(0))
    });
    moved.map_err(|source| Failure::ShimCgroup { path: cgroup.to_owned(), source })
}

/// Killed for want of memory before containerd, and its containers before it.
fn raise_oom_score() {
    let parent = std::os::unix::process::parent_id();
    let score = fs::read_to_string(format!("/proc/{parent}/oom_score_adj")).unwrap_or_default();
    let Ok(score) = score.trim().parse::<i32>() else { return };
    // A score can always be raised; lowering it back is not asked for.
    let _ = fs::write("/proc/self/oom_score_adj", (score + 1).min(1000).to_string());
}

/// Gives this process, and so the shim and its container, a core scheduling cookie of its own.
fn share_core() -> io::Result<()> {
    use rustix::thread::{CoreSchedulingScope, create_core_scheduling_cookie};
    let own = rustix::process::getpid();
    Ok(create_core_scheduling_cookie(own, CoreSchedulingScope::ThreadGroup)?)
}

#[cfg(test)]
mod tests {
    use shim_wire::containerd::Extension;

    use super::*;

    fn target() -> Target {
        let (namespace, id) = ("ns".parse().unwrap(), "web".parse().unwrap());
        Target { namespace, id, bundle: "/bundle".into() }
    }

    fn request(input: &[u8], environment: &[(&str, &str)]) -> Result<Request, Failure> {
        let value = |name: &str| environment.iter().find(|(key, _)| *key == name);
        Request::new(&target(), input, |name| value(name).map(|(_, value)| (*value).to_owned()))
    }

    const EVENTS: (&str, &str) = ("TTRPC_ADDRESS", "/run/c.sock.ttrpc");

    fn any() -> Any {
        let options = RuncOptions { shim_cgroup: "/shims".to_owned(), ..RuncOptions::default() };
        Any::of(RUNC_OPTIONS, &options)
    }

    #[test]
    fn each_generation_is_answered_in_its_form() {
        let plain = request(&any().encode_to_vec(), &[EVENTS]).unwrap();
        assert_eq!(plain.options.shim_cgroup, "/shims");
        assert_eq!(plain.caller.answer("unix:///s"), b"unix:///s");
        let json = request(&[], &[EVENTS, ("MAX_SHIM_VERSION", "2")]).unwrap();
        let text = String::from_utf8(json.caller.answer("unix:///s")).unwrap();
        assert_eq!(text, r#"{"version":2,"address":"unix:///s","protocol":"ttrpc"}"#);
        let params = BootstrapParams {
            instance_id: "web".to_owned(),
            namespace: "ns".to_owned(),
            containerd_ttrpc_address: "unix:///run/c.ttrpc".to_owned(),
            extensions: vec![Extension { value: Some(any()) }],
            socket_dir: Some("/run/short".to_owned()),
            ..BootstrapParams::default()
        };
        let newest = request(&params.encode_to_vec(), &[("MAX_SHIM_VERSION", "2")]).unwrap();
        assert_eq!(newest.events, Path::new("/run/c.ttrpc"));
        assert_eq!(newest.sockets, Path::new("/run/short"));
        assert_eq!(newest.options.shim_cgroup, "/shims");
        let answer = BootstrapResult::decode(newest.caller.answer("unix:///s").as_slice());
        let answer = answer.unwrap();
        assert_eq!((answer.version, answer.protocol.as_str()), (3, "ttrpc"));
        assert_eq!(answer.address, "unix:///s");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(request(&[0xff, 0xff], &[EVENTS]).is_err());
        let error = request(&[], &[]).unwrap_err().to_string();
        assert!(error.starts_with("TTRPC_ADDRESS is not set"), "{error}");
    }
}
