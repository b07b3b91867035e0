//! Plugins that are installed: found in a directory, started with a connection as descriptor 3.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

use crate::error::{Error, Result};
use crate::name::Name;

/// How long a killed plugin may take.
const KILLED: Duration = Duration::from_secs(5);

/// What is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) name: Name,
    path: PathBuf,
    pub(crate) config: String,
}

/// The programs of a directory, in their order. What is none, or has no name of a plugin, is passed over.
///
/// # Errors
/// The directory, or a configuration, is there and can't be read.
pub(crate) fn installed(directory: &Path, configs: &Path) -> Result<Vec<Program>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("read", directory)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::file("read", directory))?.path();
        // After links, by which they are often installed.
        let is_program = std::fs::metadata(&path)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
        if !is_program {
            continue;
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        match Name::parse(&file) {
            Ok(name) => found.push(Program { config: config(configs, &name)?, name, path }),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "passed over: not the name of an NRI plugin");
            }
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// `INDEX-NAME.conf`, else `NAME.conf`, else nothing.
fn config(directory: &Path, name: &Name) -> Result<String> {
    for file in [format!("{name}.conf"), format!("{}.conf", name.base)] {
        let path = directory.join(file);
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::file("read", &path)(error)),
        }
    }
    Ok(String::new())
}

/// The process of a plugin.
#[derive(Debug)]
pub(crate) struct Launched {
    pidfd: AsyncFd<OwnedFd>,
    /// Until it is reaped.
    child: Mutex<Option<Child>>,
}

impl Launched {
    /// Starts it; the second is our end of its connection.
    pub(crate) fn start(program: &Program) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let ours = UnixStream::from_std(ours)?;
        let mut command = Command::new(&program.path);
        command
            .env_clear()
            .env("NRI_PLUGIN_NAME", &program.name.base)
            .env("NRI_PLUGIN_IDX", &program.name.index)
            .env("NRI_PLUGIN_SOCKET", "3")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // What it says on standard error stands in our own log.
        let mut child = shim_sys::spawn::spawn_with(command, &[OwnedFd::from(theirs)])?;
        match pidfd(child.id()) {
            Ok(pidfd) => Ok((Self { pidfd, child: Mutex::new(Some(child)) }, ours)),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Waits for its end, for so long; then it is killed.
    pub(crate) async fn end(&self, limit: Duration) {
        if tokio::time::timeout(limit, self.pidfd.readable()).await.is_err() {
            // One that has ended by now is not somebody else.
            let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
            let _ = tokio::time::timeout(KILLED, self.pidfd.readable()).await;
        }
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut process) = child.take()
            && !matches!(process.try_wait(), Ok(Some(_)))
        {
            *child = Some(process);
        }
    }
}

fn pidfd(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    // A child that nobody has waited for keeps its number.
    let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    #[expect(
        deprecated,
        reason = "the replacement is unsafe; an OwnedFd keeps what it asks for by its type"
    )]
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_is_found_in_order_with_its_configuration() {
        let scratch = tempfile::tempdir().unwrap();
        let (programs, configs) = (scratch.path().join("p"), scratch.path().join("c"));
        let names = |directory: &Path| -> Vec<(String, String)> {
            let found = installed(directory, &configs).unwrap();
            found.into_iter().map(|one| (one.name.to_string(), one.config)).collect()
        };
        assert_eq!(names(&programs), [], "no directory is no plugin");
        for directory in [&programs, &configs, &programs.join("30-directory")] {
            std::fs::create_dir(directory).unwrap();
        }
        for (name, mode) in [("20-b", 0o755), ("10-a", 0o700), ("40-text", 0o644), ("odd", 0o755)] {
            std::fs::write(programs.join(name), "").unwrap();
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(programs.join(name), mode).unwrap();
        }
        std::os::unix::fs::symlink(programs.join("odd"), programs.join("05-link")).unwrap();
        for (name, text) in [("10-a.conf", "own"), ("a.conf", "other"), ("b.conf", "by name")] {
            std::fs::write(configs.join(name), text).unwrap();
        }
        let pair = |name: &str, config: &str| (name.to_owned(), config.to_owned());
        let expected = [pair("05-link", ""), pair("10-a", "own"), pair("20-b", "by name")];
        assert_eq!(names(&programs), expected);
    }
}
