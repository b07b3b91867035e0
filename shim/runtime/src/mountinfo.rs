//! A process' mounts, as `/proc/PID/mountinfo` has them (proc_pid_mountinfo(5)).

use crate::error::At;
use crate::{Error, Step};
use rustix::io::Errno;

/// One line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) id: u32,
    /// Of the file system: `MAJOR:MINOR`.
    pub(crate) device: String,
    /// Where it is mounted, as the process sees it.
    pub(crate) point: String,
}

/// # Errors
/// When the process is gone.
pub(crate) fn of(process: &str) -> Result<Vec<Mounted>, Error> {
    let path = format!("/proc/{process}/mountinfo");
    let text = std::fs::read(&path)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        .at(Step::Mounts, path)?;
    Ok(String::from_utf8_lossy(&text).lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Mounted> {
    let mut fields = line.split(' ');
    let id = fields.next()?.parse().ok()?;
    let device = fields.nth(1)?.to_owned();
    let point = unescape(fields.nth(1)?);
    Some(Mounted { id, device, point })
}

/// Blanks, tabs, line ends and backslashes are written as octal numbers.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let number = part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok());
        match number {
            Some(byte) => {
                plain.push(char::from(byte));
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let line = "36 35 98:0 /mnt1 /mnt\\0402\\134x rw,noatime master:1 - ext3 /dev/root rw";
        let expected = Mounted { id: 36, device: "98:0".to_owned(), point: "/mnt 2\\x".to_owned() };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn this_process_has_a_root() {
        assert!(of("self").unwrap().iter().any(|mounted| mounted.point == "/"));
    }
}
