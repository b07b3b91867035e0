//! criu, as a program that is talked to by its socket (`criu swrk`, criu's `images/rpc.proto`).
//!
//! ```text
//!  we ── request: what, with which images ──▶ criu
//!     ◀─ notify: the terminal's master ─────        (a descriptor comes along)
//!     ── done ──────────────────────────────▶
//!     ◀─ response: done, or how it failed ──        and it ends
//! ```
//!
//! The socket is its standard input, so that the request can wait there before criu is executed.
//! Images and the log's directory it opens through our own descriptors, in `/proc`.

use std::fs::File;
use std::io::{IoSliceMut, Read, Seek};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use prost::Message;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags,
    SocketType, recvmsg, send, socketpair,
};

use crate::channel::timespec;
use crate::error::At;
use crate::{Error, Step};

/// How long criu may take: it writes, or reads, all memory of the container.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

const PROGRAM: &str = "criu";
/// Where root's programs are, for a caller without PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where criu finds out what the kernel can do.
const KERNEL: &str = "kerndat";
/// Of what criu says, an error tells so much.
const TAIL: usize = 1000;

/// Types of requests and responses.
pub(crate) mod kind {
    pub(crate) const DUMP: i32 = 1;
    pub(crate) const RESTORE: i32 = 2;
    pub(crate) const NOTIFY: i32 = 6;
    pub(crate) const SINGLE_PRE_DUMP: i32 = 13;
}

/// Leaves control groups alone: who restores is in them already.
pub(crate) const CGROUPS_IGNORE: i32 = 0;
/// Packets of open connections are held back by nftables, which the daemon needs anyway.
pub(crate) const LOCK_BY_NFTABLES: i32 = 2;
/// Everything that is done is in the log.
const LOG_EVERYTHING: i32 = 4;

/// How the network namespace is called in images, as runc calls it.
pub(crate) const NETWORK_KEY: &str = "extRootNetNS";

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Request {
    #[prost(int32, required, tag = "1")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) options: Option<Options>,
    #[prost(bool, optional, tag = "3")]
    pub(crate) notify_success: Option<bool>,
}

/// criu's `criu_opts`, as far as they are used.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Options {
    #[prost(int32, required, tag = "1")]
    pub(crate) images_dir_fd: i32,
    #[prost(int32, optional, tag = "2")]
    pub(crate) pid: Option<i32>,
    #[prost(bool, optional, tag = "3")]
    pub(crate) leave_running: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub(crate) ext_unix_sk: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    pub(crate) tcp_established: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub(crate) shell_job: Option<bool>,
    #[prost(bool, optional, tag = "8")]
    pub(crate) file_locks: Option<bool>,
    #[prost(int32, optional, tag = "9")]
    pub(crate) log_level: Option<i32>,
    #[prost(string, optional, tag = "10")]
    pub(crate) log_file: Option<String>,
    #[prost(bool, optional, tag = "12")]
    pub(crate) notify_scripts: Option<bool>,
    #[prost(string, optional, tag = "13")]
    pub(crate) root: Option<String>,
    #[prost(string, optional, tag = "14")]
    pub(crate) parent_images: Option<String>,
    #[prost(bool, optional, tag = "15")]
    pub(crate) track_memory: Option<bool>,
    #[prost(bool, optional, tag = "16")]
    pub(crate) auto_dedup: Option<bool>,
    #[prost(int32, optional, tag = "17")]
    pub(crate) work_dir_fd: Option<i32>,
    /// The first process is a child of who executed criu.
    #[prost(bool, optional, tag = "26")]
    pub(crate) restore_sibling: Option<bool>,
    #[prost(message, repeated, tag = "27")]
    pub(crate) inherit_fd: Vec<Inherit>,
    #[prost(int32, optional, tag = "34")]
    pub(crate) cgroups_mode: Option<i32>,
    #[prost(string, repeated, tag = "37")]
    pub(crate) external: Vec<String>,
    #[prost(message, repeated, tag = "39")]
    pub(crate) join_namespaces: Vec<Join>,
    #[prost(string, optional, tag = "44")]
    pub(crate) freeze_cgroup: Option<String>,
    /// A terminal may have its master outside.
    #[prost(bool, optional, tag = "50")]
    pub(crate) orphan_pts_master: Option<bool>,
    #[prost(string, optional, tag = "53")]
    pub(crate) lsm_profile: Option<String>,
    #[prost(string, optional, tag = "63")]
    pub(crate) lsm_mount_context: Option<String>,
    #[prost(int32, optional, tag = "64")]
    pub(crate) network_lock: Option<i32>,
}

/// A descriptor of criu's own, and what of the images it stands for.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Inherit {
    #[prost(string, required, tag = "1")]
    pub(crate) key: String,
    #[prost(int32, required, tag = "2")]
    pub(crate) descriptor: i32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Join {
    #[prost(string, required, tag = "1")]
    pub(crate) kind: String,
    #[prost(string, required, tag = "2")]
    pub(crate) file: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Response {
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(bool, required, tag = "2")]
    success: bool,
    #[prost(message, optional, tag = "4")]
    restored: Option<Restored>,
    #[prost(message, optional, tag = "5")]
    notify: Option<Notify>,
    #[prost(string, optional, tag = "9")]
    message: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Restored {
    #[prost(int32, required, tag = "1")]
    pid: i32,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Notify {
    #[prost(string, optional, tag = "1")]
    script: Option<String>,
}

impl Options {
    /// What every request says.
    pub(crate) fn new(images: i32, work: i32, log: &str) -> Self {
        Self {
            images_dir_fd: images,
            work_dir_fd: Some(work),
            log_level: Some(LOG_EVERYTHING),
            log_file: Some(log.to_owned()),
            cgroups_mode: Some(CGROUPS_IGNORE),
            network_lock: Some(LOCK_BY_NFTABLES),
            orphan_pts_master: Some(true),
            notify_scripts: Some(true),
            ..Self::default()
        }
    }
}

/// The program, by PATH.
///
/// # Errors
/// [`Error::Criu`] when it is not installed.
pub(crate) fn program(verb: &'static str) -> Result<PathBuf, Error> {
    let path = std::env::var("PATH").unwrap_or_default();
    let path = if path.is_empty() { DEFAULT_PATH } else { &path };
    let candidates = path.split(':').map(|directory| Path::new(directory).join(PROGRAM));
    candidates.filter(|file| file.is_absolute()).find(|file| file.is_file()).ok_or_else(|| {
        Error::Criu {
            verb,
            said: format!("criu is not installed: no program of that name in {path}"),
        }
    })
}

/// A conversation with a criu that is about to be.
#[derive(Debug)]
pub(crate) struct Criu {
    verb: &'static str,
    ours: OwnedFd,
    /// What it says before it has a log.
    complaint: File,
    /// The directory of its log, and how that is called there.
    log: PathBuf,
}

/// What criu is to be executed with.
#[derive(Debug)]
pub(crate) struct Theirs {
    pub(crate) socket: OwnedFd,
    pub(crate) complaint: OwnedFd,
}

impl Criu {
    /// `verb` is what is done to the container, for errors; `log` is where criu's log will be.
    ///
    /// # Errors
    /// Those of making a socket, and a file in memory.
    pub(crate) fn prepare(verb: &'static str, log: PathBuf) -> Result<(Self, Theirs), Error> {
        let (ours, socket) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .at(Step::Channel, PROGRAM)?;
        let complaint = memfd_create(PROGRAM, MemfdFlags::CLOEXEC).at(Step::Channel, PROGRAM)?;
        let copy = rustix::io::fcntl_dupfd_cloexec(&complaint, 3).at(Step::Channel, PROGRAM)?;
        let criu = Self { verb, ours, complaint: complaint.into(), log };
        Ok((criu, Theirs { socket, complaint: copy }))
    }

    /// Says what is to be done. Also before there is anybody to hear it.
    pub(crate) fn ask(&self, request: &Request) -> Result<(), Error> {
        let bytes = request.encode_to_vec();
        send(&self.ours, &bytes, SendFlags::NOSIGNAL).map(drop).at(Step::Channel, PROGRAM)
    }

    /// Hears it out: the pid that was restored, if one was, and a terminal's master that came up.
    ///
    /// # Errors
    /// [`Error::Criu`] with what criu says of it, [`Error::TimedOut`].
    pub(crate) fn hear(mut self) -> Result<(Option<i32>, Option<OwnedFd>), Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut master = None;
        loop {
            let (response, descriptor) = match receive(&self.ours, deadline) {
                Ok(Some(received)) => received,
                Ok(None) | Err(Errno::CONNRESET) => return Err(self.failure(None)),
                Err(Errno::TIMEDOUT) => return Err(Error::TimedOut),
                Err(errno) => return Err(errno).at(Step::Channel, PROGRAM),
            };
            if response.kind == kind::NOTIFY {
                let script = response.notify.and_then(|notify| notify.script);
                if script.as_deref() == Some("orphan-pts-master") {
                    master = descriptor;
                }
                self.ask(&Request {
                    kind: kind::NOTIFY,
                    notify_success: Some(true),
                    options: None,
                })?;
                continue;
            }
            return match response.success {
                true => Ok((response.restored.map(|restored| restored.pid), master)),
                false => Err(self.failure(response.message)),
            };
        }
    }

    /// What criu itself says of its failure: the log's errors, or what it said before it had a log.
    fn failure(&mut self, message: Option<String>) -> Error {
        let mut complaint = String::new();
        let _ =
            self.complaint.rewind().and_then(|()| self.complaint.read_to_string(&mut complaint));
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let mut said = errors_of(&log);
        if said.is_empty() {
            said = errors_of(&complaint);
        }
        let said = match (said.is_empty(), message) {
            (false, _) => said,
            (true, Some(message)) if !message.is_empty() => message,
            (true, _) => "criu ended without a word".to_owned(),
        };
        let way_out = match log.is_empty() || said.contains(KERNEL) {
            true => {
                "; criu and this kernel do not fit each other, another version of either may \
                     (`criu check` tells)"
            }
            false => "",
        };
        let more = match log.is_empty() {
            true => String::new(),
            false => format!("; all of it: {}", self.log.display()),
        };
        Error::Criu { verb: self.verb, said: format!("{said}{way_out}{more}") }
    }
}

/// The last errors of a log.
fn errors_of(log: &str) -> String {
    // Each line begins with the time. A program that is not there to be asked is no failure.
    let is_telling = |line: &&str| !line.ends_with("exited, status=1");
    let errors = log.lines().filter_map(|line| line.find("Error (").map(|at| &line[at..]));
    let errors: Vec<&str> = errors.filter(is_telling).collect();
    let last = errors.len().saturating_sub(3);
    let text = errors[last..].join("; ");
    let cut = text.char_indices().nth_back(TAIL).map_or(0, |(at, _)| at);
    text[cut..].to_owned()
}

/// The next message and the descriptor beside it; `None` when the other side is gone.
fn receive(
    socket: &OwnedFd,
    deadline: Instant,
) -> Result<Option<(Response, Option<OwnedFd>)>, Errno> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timespec(left))) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        }
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let count = match recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => received.bytes,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        let mut descriptor = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                descriptor = descriptors.last();
            }
        }
        if count == 0 {
            return Ok(None);
        }
        let response = Response::decode(&bytes[..count]).map_err(|_| Errno::BADMSG)?;
        return Ok(Some((response, descriptor)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_the_last_errors_are_told() {
        let log = "(0.1) one\n(0.2) Error (a.c:1): first\n(0.3) Error (util.c:642): exited, status=1\nWarn  (b.c:2): x\n\
                   Error (a.c:2): 2\nError (a.c:3): 3\n(0.4) Error (a.c:4): last\n";
        assert_eq!(errors_of(log), "Error (a.c:2): 2; Error (a.c:3): 3; Error (a.c:4): last");
        assert_eq!(errors_of("(0.1) all is well\n"), "");
        let long = format!("Error (a.c:1): {}é", "é".repeat(5000));
        assert!(errors_of(&long).ends_with("éé") && errors_of(&long).chars().count() <= TAIL + 1);
    }

    #[test]
    fn zero_is_said_where_it_means_something() {
        // IGNORE is 0, and without the field criu manages control groups.
        let bytes = Options::new(3, 4, "dump.log").encode_to_vec();
        let field_34 = [0x90, 0x02, 0x00];
        assert!(bytes.windows(3).any(|window| window == field_34), "{bytes:x?}");
    }
}
