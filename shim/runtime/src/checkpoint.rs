//! A running container, written down by criu.
//!
//! What criu can't make again by itself is said to be external, under the names that runc gives it:
//! mounts of file systems of the host by their place, the network namespace, and descriptors 0 to 2.
//! What the last are is kept beside the images, in [`STREAMS`].

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use shim_sys::mountinfo::{self, Mounted};

use crate::channel::Message;
use crate::criu::{self, Criu, NETWORK_KEY, Options, PATIENCE, Request, kind};
use crate::error::At;
use crate::hooks::Running;
use crate::{Error, Rule, Step, state};

/// A JSON array of what descriptors 0 to 2 of the first process led to, as runc has it.
pub(crate) const STREAMS: &str = "descriptors.json";

const VERB: &str = "checkpoint";
const LOG: &str = "dump.log";

/// What to write down, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Where the images go; made when it is missing, root's alone.
    pub images: PathBuf,
    /// Where criu's log goes, and what else it leaves; also made.
    pub work: PathBuf,
    /// Images of an earlier [`pre_dump`](Self::pre_dump), relative to [`images`](Self::images): only
    /// memory that has changed since is written.
    pub parent: Option<String>,
    /// Memory alone, of processes that go on: a checkpoint that follows has less to do.
    pub pre_dump: bool,
    /// The processes go on afterwards; otherwise they are killed.
    pub leave_running: bool,
    /// Open TCP connections are written down as well.
    pub tcp_established: bool,
    /// Sockets that lead out of the container may be connected.
    pub external_unix_sockets: bool,
    /// The container may belong to a session, or a terminal, of somebody outside.
    pub shell_job: bool,
    pub file_locks: bool,
    /// Memory that is written again is taken out of the parent's images.
    pub auto_dedup: bool,
    /// The container's own descriptors 0 to 2, as far as the caller holds the other ends, by the kernel's
    /// names (`pipe:[INODE]`): at any moment a shell may have others in their place. Absent is what the
    /// process has there now.
    pub streams: [Option<String>; 3],
    /// The group by which all of the container is held still meanwhile; one that is paused stays so.
    pub freezer: Option<PathBuf>,
}

/// Begins to write a container down, whose first process is `pid`.
///
/// # Errors
/// [`Error::Criu`] when criu is missing. [`Running::poll`] tells the others: criu's own words, with the
/// path of its log.
pub fn checkpoint(pid: i32, how: &Checkpoint) -> Result<Running, Error> {
    let program = criu::program(VERB)?;
    if namespace_of(&pid.to_string(), "user")? != namespace_of("self", "user")? {
        return Err(Error::refused(format!("process {pid}"), Rule::UserNotRestored));
    }
    Running::helper("the checkpoint", |parent| {
        let patience = Message::Working { seconds: PATIENCE.as_secs() };
        parent.send(&patience).at(Step::Channel, "the parent")?;
        dump(&program, pid, how)
    })
}

fn dump(program: &Path, pid: i32, how: &Checkpoint) -> Result<(), Error> {
    shim_failpoints::step!("shim.checkpoint.before_directories", error);
    let images = directory(&how.images)?;
    let work = directory(&how.work)?;
    shim_failpoints::step!("shim.checkpoint.after_directories", error);
    let mut options = Options::new(images.as_raw_fd(), work.as_raw_fd(), LOG);
    options.pid = Some(pid);
    options.leave_running = Some(how.leave_running);
    options.tcp_established = Some(how.tcp_established);
    options.ext_unix_sk = Some(how.external_unix_sockets);
    options.shell_job = Some(how.shell_job);
    options.file_locks = Some(how.file_locks);
    options.auto_dedup = Some(how.auto_dedup);
    options.track_memory = Some(how.pre_dump);
    options.parent_images.clone_from(&how.parent);
    options.freeze_cgroup = how.freezer.as_ref().map(|path| path.to_string_lossy().into_owned());
    let mut streams = streams(pid)?;
    for (stream, known) in streams.iter_mut().zip(&how.streams) {
        if let Some(known) = known {
            stream.clone_from(known);
        }
    }
    options.external = external_mounts(pid)?;
    options.external.extend(external_network(pid)?);
    let files = streams.iter().filter(|stream| stream.starts_with("file["));
    options.external.extend(files.cloned());
    let streams = Streams::write(&how.images, &streams)?;

    shim_failpoints::step!("shim.checkpoint.before_criu", error);
    let (criu, theirs) = Criu::prepare(VERB, how.work.join(LOG))?;
    let kind = if how.pre_dump { kind::SINGLE_PRE_DUMP } else { kind::DUMP };
    criu.ask(&Request { kind, options: Some(options), notify_success: None })?;
    let mut child = Command::new(program)
        .args(["swrk", "0"])
        .stdin(Stdio::from(theirs.socket))
        .stdout(Stdio::null())
        .stderr(Stdio::from(theirs.complaint))
        .spawn()
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        .at(Step::Exec, program.display())?;
    shim_failpoints::step!("shim.checkpoint.after_criu");
    let heard = criu.hear();
    if matches!(heard, Err(Error::TimedOut)) {
        // It has ended already, or is reaped with this process.
        let _ = child.kill();
    }
    let _ = child.wait();
    heard?;
    shim_failpoints::step!("shim.checkpoint.before_streams", error);
    streams.keep()?;
    shim_failpoints::step!("shim.checkpoint.after_streams", error);
    Ok(())
}

/// A directory, made when it is missing.
pub(crate) fn directory(path: &Path) -> Result<OwnedFd, Error> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        .at(Step::MakeDirectory, path.display())?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).at(Step::MakeDirectory, path.display())
}

/// Mounts whose file system is also mounted outside. All others are the container's own, and criu makes
/// them again with what is in them.
fn external_mounts(pid: i32) -> Result<Vec<String>, Error> {
    let host = mounts_of("self")?;
    let inside = mounts_of(&pid.to_string())?;
    let is_hosts = |device: &str| host.iter().any(|mounted| mounted.device == device);
    let external =
        inside.iter().filter(|mounted| mounted.point != "/" && is_hosts(&mounted.device));
    Ok(external.map(|mounted| format!("mnt[{0}]:{0}", mounted.point)).collect())
}

/// All mounts of a process: its number, or `self`.
pub(crate) fn mounts_of(process: &str) -> Result<Vec<Mounted>, Error> {
    mountinfo::of(process).at(Step::Mounts, format_args!("/proc/{process}/mountinfo"))
}

/// The network namespace is not criu's to make: who makes one for the restored container gives it the
/// network, as for any other.
fn external_network(pid: i32) -> Result<Option<String>, Error> {
    let (own, inside) = (namespace_of("self", "net")?, namespace_of(&pid.to_string(), "net")?);
    Ok((own != inside).then(|| format!("net[{inside}]:{NETWORK_KEY}")))
}

/// Which namespace of a kind a process is in.
fn namespace_of(process: &str, kind: &str) -> Result<u64, Error> {
    let path = format!("/proc/{process}/ns/{kind}");
    rustix::fs::stat(&path).map(|found| found.st_ino).at(Step::OpenNamespace, path)
}

/// What descriptors 0 to 2 lead to: `pipe:[INODE]` and the like; a path of the container's; for a file
/// of the host's, as criu names such, `file[MOUNT:INODE]`.
fn streams(pid: i32) -> Result<Vec<String>, Error> {
    let inside = mounts_of(&pid.to_string())?;
    (0..3)
        .map(|number| {
            let path = format!("/proc/{pid}/fd/{number}");
            let link = match rustix::fs::readlink(&path, Vec::new()) {
                Ok(link) => link.to_string_lossy().into_owned(),
                // It is closed.
                Err(Errno::NOENT) => return Ok(String::new()),
                Err(errno) => return Err(errno).at(Step::Stdio, path),
            };
            if !link.starts_with('/') {
                return Ok(link);
            }
            let mount = mount_of(pid, number)?;
            match inside.iter().any(|mounted| mounted.id == mount) {
                true => Ok(link),
                false => {
                    let inode = rustix::fs::stat(&path).at(Step::Stdio, path)?.st_ino;
                    Ok(format!("file[{mount:x}:{inode:x}]"))
                }
            }
        })
        .collect()
}

/// The mount that a descriptor lies in (proc_pid_fdinfo(5)).
fn mount_of(pid: i32, number: i32) -> Result<u32, Error> {
    let path = format!("/proc/{pid}/fdinfo/{number}");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or(Errno::SRCH)
        .at(Step::Stdio, path)
}

/// What descriptors 0 to 2 lead to, written beside the images and moved to its place once these are
/// whole; removed when they never are.
struct Streams {
    written: PathBuf,
    kept: PathBuf,
}

impl Streams {
    fn write(images: &Path, streams: &[String]) -> Result<Self, Error> {
        let kept = images.join(STREAMS);
        let written = images.join(format!(".{STREAMS}"));
        let mut text = String::from("[");
        for (index, stream) in streams.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            state::string(&mut text, stream);
        }
        text.push(']');
        let made = Self { written, kept };
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&made.written)
            .and_then(|mut file: File| file.write_all(text.as_bytes()))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            .at(Step::Stdio, made.written.display())?;
        Ok(made)
    }

    fn keep(self) -> Result<(), Error> {
        rustix::fs::rename(&self.written, &self.kept).at(Step::Stdio, self.kept.display())
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        // It is not there any more when it was kept.
        let _ = std::fs::remove_file(&self.written);
    }
}

/// What [`STREAMS`] says; images without it have none. Names of pipes and files hold nothing that JSON
/// writes in another way.
pub(crate) fn read_streams(images: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(images.join(STREAMS)).unwrap_or_default();
    let strings = text.split('"').skip(1).step_by(2);
    strings.take(3).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_kept_beside_the_images() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read_streams(directory.path()), Vec::<String>::new());
        let streams = ["/dev/null", "pipe:[4711]", "file[2c:4a]"].map(str::to_owned);
        Streams::write(directory.path(), &streams).unwrap().keep().unwrap();
        assert_eq!(read_streams(directory.path()), streams);
        let others = ["", "", ""].map(str::to_owned);
        drop(Streams::write(directory.path(), &others).unwrap());
        assert_eq!(read_streams(directory.path()), streams, "of images that are whole");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left");
    }
}
