//! Names in a request that have a rule: user, host name, working directory, environment.

use super::{ContainerOptions, Error};

/// The highest user and group id that can be asked for: what wraps in an `int` somewhere becomes
/// root (CVE-2024-40635).
const ID_MAX: u32 = i32::MAX.cast_unsigned();

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Numbers where they can be told without the rootfs: the child looks names up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// # Errors
/// An empty part, or a number that is none of a user.
pub(super) fn user(text: &str) -> Result<Ids, Error> {
    const EXPECTED: &str = "USER[:GROUP], names or numbers between 0 and 2147483647";
    if text.is_empty() {
        return Ok(Ids::default());
    }
    let malformed = || Error::malformed("user", text, EXPECTED);
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let id = |part: &str| -> Result<Option<u32>, Error> {
        let digits = part.trim_start_matches(['+', '-']);
        let numeric = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if part.is_empty() || part.contains([':', '\0', '\n', '/']) || (numeric && digits != part) {
            return Err(malformed());
        }
        if !numeric {
            return Ok(None);
        }
        part.parse().ok().filter(|id| *id <= ID_MAX).map(Some).ok_or_else(malformed)
    };
    Ok(Ids {
        uid: id(user)?.unwrap_or_default(),
        gid: group.map(id).transpose()?.flatten().unwrap_or_default(),
    })
}

/// RFC 1123's letters, and the kernel's length.
pub(super) fn host_name(what: &'static str, name: &str) -> Result<(), Error> {
    let valid = name.len() <= 64
        && !name.starts_with(['-', '.'])
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if valid {
        Ok(())
    } else {
        Err(Error::malformed(
            what,
            name,
            "at most 64 letters, digits, '-', '.' and '_', beginning with a letter or digit",
        ))
    }
}

pub(super) fn working_dir(path: &str) -> Result<String, Error> {
    if path.is_empty() {
        return Ok("/".to_owned());
    }
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Error::malformed("working directory", path, "an absolute path"));
    }
    Ok(path.to_owned())
}

/// The defaults, each replaced in its place when the user sets it; HOME is the shim's, which knows
/// the rootfs' users.
pub(super) fn environment(
    options: &ContainerOptions,
    hostname: &str,
) -> Result<Vec<String>, Error> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if options.tty {
        env.push("TERM=xterm".to_owned());
    }
    for entry in &options.env {
        set(&mut env, entry, Existing::Replace)?;
    }
    Ok(env)
}

/// What becomes of a variable that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    Replace,
    Keep,
}

/// Adds `NAME=value`, or puts it in the place of the variable of that name.
pub(super) fn set(env: &mut Vec<String>, entry: &str, existing: Existing) -> Result<(), Error> {
    let name = match entry.split_once('=') {
        Some((name, _)) if !name.is_empty() && !entry.contains('\0') => name,
        Some(_) | None => {
            return Err(Error::malformed("environment variable", entry, "NAME=value"));
        }
    };
    let same = |other: &&mut String| other.split_once('=').is_some_and(|(other, _)| other == name);
    match (env.iter_mut().find(same), existing) {
        (Some(other), Existing::Replace) => entry.clone_into(other),
        (Some(_), Existing::Keep) => {}
        (None, _) => env.push(entry.to_owned()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_never_root_unless_asked_for() {
        for (text, uid, gid) in [
            ("", 0, 0),
            ("0", 0, 0),
            ("1", 1, 0),
            ("01", 1, 0),
            ("65535", 65535, 0),
            ("1:1", 1, 1),
            ("1000:staff", 1000, 0),
            ("2147483647", 2_147_483_647, 0),
            ("www-data:33", 0, 33),
        ] {
            assert_eq!(user(text).unwrap(), Ids { uid, gid }, "{text:?}");
        }
        for text in [
            "1:",
            ":1",
            ":",
            "+1",
            "-1",
            "1:+1",
            "1:-1",
            "2147483648",
            "4294967295",
            "4294967296",
            "99999999999",
            "1:4294967296",
            "a:b:c",
            "root\n",
            "../x",
        ] {
            let said = user(text).unwrap_err().to_string();
            assert!(said.contains(&format!("user {text:?}")), "{said}");
        }
    }

    #[test]
    fn the_environment_has_docker_s_defaults_and_the_user_s_word() {
        let mut options = ContainerOptions {
            tty: true,
            env: vec!["A=1".into(), "PATH=/bin".into(), "A=2".into(), "EMPTY=".into()],
            ..ContainerOptions::default()
        };
        assert_eq!(
            environment(&options, "web").unwrap(),
            ["PATH=/bin", "HOSTNAME=web", "TERM=xterm", "A=2", "EMPTY="]
        );
        options.tty = false;
        options.env.clear();
        assert_eq!(environment(&options, "web").unwrap(), [PATH, "HOSTNAME=web"]);
        for entry in ["A", "=x", ""] {
            options.env = vec![entry.to_owned()];
            let said = environment(&options, "web").unwrap_err().to_string();
            assert!(said.contains(&format!("{entry:?} is not NAME=value")), "{said}");
        }
    }

    #[test]
    fn host_names_and_working_directories_have_rules() {
        for name in ["web", "web.example.org", "a_b", &"x".repeat(64)] {
            assert!(host_name("hostname", name).is_ok(), "{name}");
        }
        for name in ["-web", ".web", "a b", "a\n", "ü", &"x".repeat(65)] {
            assert!(host_name("hostname", name).is_err(), "{name:?}");
        }
        assert_eq!(working_dir("").unwrap(), "/");
        assert!(working_dir("srv").unwrap_err().to_string().contains("\"srv\" is not an absolute"));
    }
}
