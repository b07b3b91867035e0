//! Which file a command means, by the container's PATH.

use std::ffi::CString;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::{Error, Rule};

/// docker's, for a container whose environment has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The path to execute, found as execvp(3) finds it. To be called inside, with the container's root
/// and working directory.
///
/// # Errors
/// [`Error::CommandNotFound`] and [`Error::CommandNotExecutable`].
pub(crate) fn find(command: &str, environment: &[String]) -> Result<CString, Error> {
    let not_executable = |errno| Error::CommandNotExecutable { command: command.to_owned(), errno };
    let not_found = || Error::CommandNotFound { command: command.to_owned() };
    if command.is_empty() {
        return Err(not_found());
    }
    if command.contains('/') {
        return match check(command) {
            Ok(()) => c_string(command),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(not_found()),
            Err(errno) => Err(not_executable(errno)),
        };
    }
    let path = environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
    let mut refused = None;
    for directory in path.unwrap_or(DEFAULT_PATH).split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{directory}/{command}");
        match check(&candidate) {
            Ok(()) => return c_string(&candidate),
            Err(Errno::ACCESS) => refused = Some(Errno::ACCESS),
            Err(_) => {}
        }
    }
    Err(refused.map_or_else(not_found, not_executable))
}

/// A text of the plan as one of the kernel's.
pub(crate) fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::refused(format!("{text:?}"), Rule::NulByte))
}

/// Whether a path leads to a regular file that somebody may execute.
fn check(path: &str) -> Result<(), Errno> {
    let found = rustix::fs::stat(path)?;
    let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
    if is_file && found.st_mode & 0o111 != 0 { Ok(()) } else { Err(Errno::ACCESS) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn commands_are_found_as_a_shell_finds_them() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_str().unwrap();
        std::fs::write(directory.path().join("plain"), "").unwrap();
        std::fs::create_dir(directory.path().join("sh")).unwrap();
        let path = |path: &str| vec!["PATH=/nowhere".to_owned(), format!("PATH={path}")];
        let both = path(&format!("/nowhere:{place}:/bin"));
        assert_eq!(find("sh", &both).unwrap().to_str(), Ok("/bin/sh"), "a directory is no command");
        let kind =
            |command: &str, environment: &[String]| find(command, environment).unwrap_err().kind();
        assert_eq!(kind("sh", &path("/nowhere")), Kind::CommandNotFound);
        assert_eq!(kind("sh", &path(place)), Kind::CommandNotExecutable);
        assert_eq!(kind("plain", &path(place)), Kind::CommandNotExecutable);
        assert_eq!(kind("", &both), Kind::CommandNotFound);
        assert_eq!(kind("/no/such", &both), Kind::CommandNotFound);
        assert_eq!(kind("/bin/sh/x", &both), Kind::CommandNotFound);
        assert_eq!(kind(place, &both), Kind::CommandNotExecutable);
        assert!(find("sh", &[]).is_ok(), "without PATH there is a default");
    }
}
