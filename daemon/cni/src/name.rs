//! What may be the name of a thing: these become file names, arguments and environment variables.

use crate::error::{Error, Result};

/// IFNAMSIZ without its NUL, see netdevice(7).
const INTERFACE_LIMIT: usize = 15;

/// # Errors
///
/// [`Error::Name`] for what CNI's specification (section 2, CNI_CONTAINERID) does not allow.
pub(crate) fn container(name: &str) -> Result<()> {
    check("container id", name, identifier(name))
}

/// # Errors
///
/// [`Error::Name`] for what CNI's specification (section 1, `name`) does not allow.
pub(crate) fn network(name: &str) -> Result<()> {
    check("network name", name, identifier(name))
}

/// # Errors
///
/// [`Error::Name`] for what is not a file name.
pub(crate) fn plugin(name: &str) -> Result<()> {
    let problem = match name {
        "" => Some("is empty"),
        "." | ".." => Some("is a directory's name"),
        _ if name.contains(['/', '\\']) => Some("is a path: want a file's name"),
        _ if name.chars().any(char::is_control) => Some("has control characters in it"),
        _ if name.len() > 255 => Some("is longer than 255 bytes"),
        _ => None,
    };
    check("plugin type", name, problem)
}

/// # Errors
///
/// [`Error::Name`] for what the kernel refuses as an interface's name.
pub(crate) fn interface(name: &str) -> Result<()> {
    let problem = match name {
        "" => Some("is empty"),
        "." | ".." => Some("is a directory's name"),
        _ if name.len() > INTERFACE_LIMIT => Some("is longer than 15 bytes"),
        _ if name.contains(['/', ':']) => Some("has a slash or a colon in it"),
        _ if name.chars().any(|c| c.is_whitespace() || c.is_control()) => {
            Some("has white space or control characters in it")
        }
        _ => None,
    };
    check("interface name", name, problem)
}

/// A letter or digit, then letters, digits, `_`, `.` and `-`.
fn identifier(name: &str) -> Option<&'static str> {
    let within = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.is_empty() {
        Some("is empty")
    } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Some("must begin with a letter or a digit")
    } else if !name.chars().all(within) {
        Some("may have letters, digits, `_`, `.` and `-` only")
    } else {
        None
    }
}

fn check(what: &'static str, name: &str, problem: Option<&'static str>) -> Result<()> {
    match problem {
        None => Ok(()),
        Some(problem) => Err(Error::Name { what, name: name.into(), problem }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_paths() {
        type Check = fn(&str) -> Result<()>;
        let table: [(Check, &[&str], &[&str]); 4] = [
            (
                container,
                &["a", "0-9_.x", "4f"],
                &["", "-a", ".a", "a/b", "a b", "../a", "a\n", "ä"],
            ),
            (network, &["dbnet", "a.b-c_d"], &["", "..", "/etc", "a/b", "_a", "a;b"]),
            (plugin, &["bridge", "a b"], &["", ".", "..", "/bin/sh", "a\\b", "a\0b"]),
            (
                interface,
                &["eth0", "123456789012345"],
                &["", ".", "..", "a/b", "a:1", "a b", "a\n", "1234567890123456"],
            ),
        ];
        for (check, good, bad) in table {
            for name in good {
                check(name).unwrap();
            }
            for name in bad {
                assert!(matches!(check(name), Err(Error::Name { .. })), "{name:?}");
            }
        }
    }
}
