//! Writing settings, and taking them back.
//!
//! Some limits bound one another (memory and memory with swap, quota and burst, quota and period,
//! shares and idle, realtime runtime and period): whichever way they go, one order of writes is
//! refused and another is not. So a write that the kernel refuses is tried again after the others,
//! until none of a round succeeds.

use rustix::io::Errno;

use crate::settings::{Reads, Setting};
use crate::{Error, Reason, read, write};

/// Writes all of them; the values that were there are put into `before`, if that is given.
///
/// # Errors
/// [`Error::LimitRefused`] names the limit that the kernel does not grant; [`Error::Io`]. What was
/// written by then stays.
pub(crate) fn apply(
    settings: Vec<Setting>,
    mut before: Option<&mut Vec<Setting>>,
) -> Result<(), Error> {
    let mut pending = settings;
    loop {
        let (count, mut refused) = (pending.len(), None);
        let mut again = Vec::new();
        for setting in pending {
            let was = before.as_ref().map(|_| present(&setting)).transpose()?.flatten();
            match set(&setting) {
                Ok(()) => {
                    if let Some(before) = before.as_deref_mut() {
                        before.extend(was);
                    }
                }
                Err(error @ Error::LimitRefused { reason: Reason::Kernel(_), .. }) => {
                    refused.get_or_insert(error);
                    again.push(setting);
                }
                Err(error) => return Err(error),
            }
        }
        match refused {
            None => return Ok(()),
            Some(error) if again.len() == count => return Err(error),
            Some(_) => pending = again,
        }
    }
}

/// Writes back what was there, the last first.
///
/// # Errors
/// As [`apply`], for the first that can't be restored.
pub(crate) fn restore(before: Vec<Setting>) -> Result<(), Error> {
    apply(before.into_iter().rev().collect(), None)
}

/// The setting that would bring back what the file says now; `None` when there is no such file.
pub(crate) fn present(setting: &Setting) -> Result<Option<Setting>, Error> {
    let text = match read(&setting.file) {
        Ok(text) => text,
        Err(Error::Io { errno: Errno::NOENT, .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let value = match &setting.reads {
        Reads::Whole => text.trim_end().to_owned(),
        Reads::Line { key, otherwise } => {
            let line = text.lines().find(|line| line.split_whitespace().next() == Some(key));
            line.unwrap_or(otherwise).to_owned()
        }
        Reads::Field(name) => {
            let field = |line: &str| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
            text.lines().find_map(field).unwrap_or_default()
        }
    };
    // Of nothing the kernel would not even hear.
    let value = if value.is_empty() { "\n".to_owned() } else { value };
    Ok(Some(Setting { value, ..setting.clone() }))
}

/// What the kernel says against the value is an error about the limit, not about a file.
fn set(setting: &Setting) -> Result<(), Error> {
    const ABOUT_THE_VALUE: [Errno; 9] = [
        Errno::INVAL,
        Errno::RANGE,
        Errno::BUSY,
        Errno::NOSPC,
        Errno::ACCESS,
        Errno::PERM,
        // A device that is not there.
        Errno::NODEV,
        Errno::NXIO,
        Errno::OPNOTSUPP,
    ];
    let Err(error) = write(&setting.file, &setting.value) else { return Ok(()) };
    let refused = |reason| {
        let (limit, value) = (setting.limit.clone(), setting.value.clone());
        Error::LimitRefused { limit, value, reason }
    };
    let group_exists = || setting.file.parent().is_some_and(std::path::Path::exists);
    match error.errno() {
        Some(Errno::NOENT) if setting.lifts && group_exists() => Ok(()),
        Some(Errno::NOENT) if group_exists() => {
            let name = setting.file.file_name().unwrap_or_default();
            Err(refused(Reason::NotInKernel { file: name.to_string_lossy().into_owned() }))
        }
        Some(errno) if ABOUT_THE_VALUE.contains(&errno) && group_exists() => {
            Err(refused(Reason::Kernel(errno)))
        }
        Some(_) | None => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn setting(group: &std::path::Path, file: &str, value: &str, reads: Reads) -> Setting {
        let (file, value) = (group.join(file), value.to_owned());
        Setting { limit: "limit".into(), file, value, reads, lifts: false }
    }

    fn line(key: &str, otherwise: &str) -> Reads {
        Reads::Line { key: key.to_owned(), otherwise: otherwise.to_owned() }
    }

    #[test]
    fn what_was_there_is_known_in_each_way_of_reading() {
        let group = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(group.path().join(name), text).unwrap();
        file("memory.max", "max\n");
        file("io.max", "8:0 rbps=1 wbps=max\n8:16 rbps=2 wbps=max\n");
        file("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n");
        file("cpuset.cpus", "\n");
        for (name, reads, expected) in [
            ("memory.max", Reads::Whole, Some("max")),
            ("io.max", line("8:16", "8:16 rbps=max"), Some("8:16 rbps=2 wbps=max")),
            ("io.max", line("8:1", "8:1 rbps=max"), Some("8:1 rbps=max")),
            ("memory.oom_control", Reads::Field("oom_kill_disable"), Some("0")),
            ("cpuset.cpus", Reads::Whole, Some("\n")),
            ("nowhere", Reads::Whole, None),
        ] {
            let was = present(&setting(group.path(), name, "x", reads)).unwrap();
            assert_eq!(was.map(|was| was.value).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn a_file_that_the_kernel_lacks_is_named_unless_it_would_only_lift() {
        let group = tempfile::tempdir().unwrap();
        let mut asks = setting(group.path(), "cpu.max.burst", "1", Reads::Whole);
        let said = apply(vec![asks.clone()], None).unwrap_err().to_string();
        assert_eq!(said, "linux.resources.limit: 1: this kernel has no cpu.max.burst");
        asks.lifts = true;
        apply(vec![asks], None).unwrap();
    }
}
