//! A process' mounts, as `/proc/PID/mountinfo` has them (proc_pid_mountinfo(5)).

use rustix::io::Errno;

/// One line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    pub id: u32,
    /// Of the file system: `MAJOR:MINOR`.
    pub device: String,
    /// Where it is mounted, as the process sees it.
    pub point: String,
    /// What is mounted below it is seen in other places, and the other way round.
    pub is_shared: bool,
    /// What is mounted below its master is seen here. It may be shared as well.
    pub is_slave: bool,
}

/// All mounts of a process: its number, or `self`.
///
/// # Errors
/// When the process is gone.
pub fn of(process: &str) -> Result<Vec<Mounted>, Errno> {
    let text = std::fs::read(format!("/proc/{process}/mountinfo"))
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(String::from_utf8_lossy(&text).lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Mounted> {
    let mut fields = line.split(' ');
    let id = fields.next()?.parse().ok()?;
    let device = fields.nth(1)?.to_owned();
    let point = unescape(fields.nth(1)?);
    let mut mounted = Mounted { id, device, point, is_shared: false, is_slave: false };
    // Behind the options: any number of words, until a dash.
    for word in fields.skip(1).take_while(|word| *word != "-") {
        mounted.is_shared |= word.starts_with("shared:");
        mounted.is_slave |= word.starts_with("master:");
    }
    Some(mounted)
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
        let expected = Mounted {
            id: 36,
            device: "98:0".to_owned(),
            point: "/mnt 2\\x".to_owned(),
            is_shared: false,
            is_slave: true,
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn how_mounts_travel_is_said_before_the_dash() {
        for (words, expected) in [
            ("", (false, false)),
            ("shared:7 ", (true, false)),
            ("master:7 ", (false, true)),
            ("shared:8 master:7 ", (true, true)),
            ("master:7 propagate_from:3 ", (false, true)),
            ("unbindable ", (false, false)),
        ] {
            let line = format!("36 35 98:0 / /mnt rw {words}- ext3 shared:1 rw");
            let mounted = parse(&line).unwrap();
            assert_eq!((mounted.is_shared, mounted.is_slave), expected, "{line}");
        }
    }

    #[test]
    fn this_process_has_a_root() {
        assert!(of("self").unwrap().iter().any(|mounted| mounted.point == "/"));
    }
}
