//! Who a process shall be, by the rootfs' own files of users and groups.
//!
//! | user | uid | gid |
//! |---|---|---|
//! | `NAME` | of the entry of that name | of the entry |
//! | `UID` | the number, never looked up as a name (CVE-2016-3697, CVE-2026-46680) | of the entry with that number, else 0 |
//! | `…:GROUP` | as above | of the group of that name |
//! | `…:GID` | as above | the number, never looked up as a name |
//!
//! A word of digits alone is a number, and is in range or an error: nothing wraps to 0
//! (CVE-2024-40635, CVE-2026-30892). The groups of the user are added in every case, so that a file
//! denied to a group stays denied (CVE-2023-25173).

use std::ffi::OsStr;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::error::At;
use crate::{Error, Root, Step};

/// Larger files are refused: a link to an endless device is caught by its type, a huge file by this.
const MAX_FILE: u64 = 8 << 20;
/// docker's and shadow's highest id.
const MAX_ID: u64 = i32::MAX as u64;

/// Who is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// `NAME|UID[:GROUP|GID]`, as docker's `-u` has it; the user's groups of /etc/group are added.
    Named(&'a str),
    /// Taken as it is; only the home is looked up, and is `/` where that can't be done.
    Numbers { uid: u32, gid: u32 },
}

/// A user with all its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Sorted, with `gid` among them.
    pub groups: Vec<u32>,
    pub home: String,
}

/// Why a user can't be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum UserProblem {
    Malformed,
    OutOfRange,
    NoSuchUser,
    NoSuchGroup,
    NotAFile,
    TooLarge,
}

impl UserProblem {
    const ALL: [Self; 6] = [
        Self::Malformed,
        Self::OutOfRange,
        Self::NoSuchUser,
        Self::NoSuchGroup,
        Self::NotAFile,
        Self::TooLarge,
    ];

    /// The problem of a number (`problem as u8`).
    #[must_use]
    pub fn decode(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for UserProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a NAME|UID[:GROUP|GID]",
            Self::OutOfRange => "ids run from 0 to 2147483647",
            Self::NoSuchUser => "no such user in the container's /etc/passwd",
            Self::NoSuchGroup => "no such group in the container's /etc/group",
            Self::NotAFile => "the container's file of users or groups is not a regular file",
            Self::TooLarge => "the container's file of users or groups is larger than 8 MiB",
        })
    }
}

/// Half of `USER:GROUP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half<'a> {
    Number(u32),
    Name(&'a str),
}

impl<'a> Half<'a> {
    fn parse(text: &'a str) -> Result<Self, UserProblem> {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Name(text));
        }
        let number = text.parse::<u64>().ok().filter(|number| *number <= MAX_ID);
        number
            .and_then(|number| u32::try_from(number).ok())
            .map(Self::Number)
            .ok_or(UserProblem::OutOfRange)
    }
}

/// Looks a user up. Outer: the machine's errors. Inner: the user's.
///
/// # Errors
/// A file can't be read; there is no such user.
pub fn resolve(root: &Root, wanted: Wanted<'_>) -> Result<Result<Identity, UserProblem>, Error> {
    match wanted {
        Wanted::Named(text) => named(root, text),
        Wanted::Numbers { uid, gid } => {
            // Masked, or none: who somebody is does not hang on it.
            let account = find_account(root, Half::Number(uid)).ok().and_then(Result::ok);
            Ok(Ok(Identity { uid, gid, groups: vec![gid], home: home(account.flatten()) }))
        }
    }
}

fn named(root: &Root, text: &str) -> Lookup<Identity> {
    let (who, group) = text.split_once(':').unwrap_or((text, ""));
    if who.is_empty() || text.matches(':').count() > 1 {
        return Ok(Err(UserProblem::Malformed));
    }
    let group = (!group.is_empty()).then(|| Half::parse(group)).transpose();
    let (who, group) = match (Half::parse(who), group) {
        (Ok(who), Ok(group)) => (who, group),
        (Err(problem), _) | (_, Err(problem)) => return Ok(Err(problem)),
    };
    let account = match find_account(root, who)? {
        Ok(account) => account,
        Err(problem) => return Ok(Err(problem)),
    };
    let (uid, account_gid) = match (&account, who) {
        (Some(account), _) => (account.uid, account.gid),
        (None, Half::Number(uid)) => (uid, 0),
        (None, Half::Name(_)) => return Ok(Err(UserProblem::NoSuchUser)),
    };
    let name = account.as_ref().map(|account| account.name.as_str());
    let found = match find_groups(root, group, name)? {
        Ok(found) => found,
        Err(problem) => return Ok(Err(problem)),
    };
    let gid = match (group, found.named) {
        (None, _) => account_gid,
        (Some(Half::Number(gid)), _) | (Some(Half::Name(_)), Some(gid)) => gid,
        (Some(Half::Name(_)), None) => return Ok(Err(UserProblem::NoSuchGroup)),
    };
    Ok(Ok(Identity { uid, gid, groups: with(gid, found.of_user), home: home(account) }))
}

fn home(account: Option<Account>) -> String {
    account.map(|account| account.home).filter(|home| !home.is_empty()).unwrap_or("/".to_owned())
}

/// Groups with one more, each once.
#[must_use]
pub fn with(gid: u32, mut groups: Vec<u32>) -> Vec<u32> {
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// A line of /etc/passwd (passwd(5)).
#[derive(Debug)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// Outer: the machine's errors. Inner: the user's.
type Lookup<T> = Result<Result<T, UserProblem>, Error>;

fn find_account(root: &Root, who: Half<'_>) -> Lookup<Option<Account>> {
    let mut found = None;
    each_line(root, "/etc/passwd", |line| {
        let fields: Vec<&str> = line.split(':').collect();
        let &[name, _, uid, gid, _, home, ..] = fields.as_slice() else { return Ok(true) };
        let is_it = match who {
            Half::Name(wanted) => name == wanted,
            Half::Number(wanted) => id(uid) == Some(wanted),
        };
        if !is_it {
            return Ok(true);
        }
        let (Some(uid), Some(gid)) = (id(uid), id(gid)) else {
            return Err(UserProblem::OutOfRange);
        };
        found = Some(Account { name: name.to_owned(), uid, gid, home: home.to_owned() });
        Ok(false)
    })
    .map(|result| result.map(|()| found))
}

struct Groups {
    /// The gid of the group that was asked for by name.
    named: Option<u32>,
    /// The gids of those that have the user as a member.
    of_user: Vec<u32>,
}

fn find_groups(root: &Root, group: Option<Half<'_>>, user: Option<&str>) -> Lookup<Groups> {
    let mut groups = Groups { named: None, of_user: Vec::new() };
    let wanted = match group {
        Some(Half::Name(name)) => Some(name),
        Some(Half::Number(_)) | None => None,
    };
    if wanted.is_none() && user.is_none() {
        return Ok(Ok(groups));
    }
    each_line(root, "/etc/group", |line| {
        let fields: Vec<&str> = line.split(':').collect();
        let &[name, _, gid, members, ..] = fields.as_slice() else { return Ok(true) };
        if Some(name) == wanted && groups.named.is_none() {
            groups.named = Some(id(gid).ok_or(UserProblem::OutOfRange)?);
        }
        if let (Some(user), Some(gid)) = (user, id(gid))
            && members.split(',').any(|member| member == user)
        {
            groups.of_user.push(gid);
        }
        Ok(true)
    })
    .map(|result| result.map(|()| groups))
}

/// An id as the files have it: decimal, in range.
fn id(text: &str) -> Option<u32> {
    match Half::parse(text).ok()? {
        Half::Number(number) if !text.is_empty() => Some(number),
        Half::Number(_) | Half::Name(_) => None,
    }
}

/// Calls back for each line until it has enough. A missing file has no lines.
fn each_line(
    root: &Root,
    path: &str,
    mut line: impl FnMut(&str) -> Result<bool, UserProblem>,
) -> Lookup<()> {
    let file = match open(root, path)? {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(Ok(())),
        Err(problem) => return Ok(Err(problem)),
    };
    let mut reader = BufReader::new(std::fs::File::from(file).take(MAX_FILE + 1));
    let mut bytes = Vec::new();
    let mut total = 0;
    loop {
        bytes.clear();
        let count = reader.read_until(b'\n', &mut bytes).map_err(|error| Error::System {
            step: Step::Resolve,
            object: path.to_owned(),
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        })?;
        total += count as u64;
        if total > MAX_FILE {
            return Ok(Err(UserProblem::TooLarge));
        }
        if count == 0 {
            return Ok(Ok(()));
        }
        match line(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r'])) {
            Ok(true) => {}
            Ok(false) => return Ok(Ok(())),
            Err(problem) => return Ok(Err(problem)),
        }
    }
}

/// Opens a regular file of a bounded size, without waiting for anybody (a FIFO has no end).
fn open(root: &Root, path: &str) -> Lookup<Option<OwnedFd>> {
    let file = match root.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Ok(None)),
        Err(Errno::NXIO) => return Ok(Err(UserProblem::NotAFile)),
        Err(errno) => return Err(errno).at(Step::Resolve, OsStr::new(path)),
    };
    let found = rustix::fs::fstat(&file).at(Step::Resolve, OsStr::new(path))?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Ok(Err(UserProblem::NotAFile));
    }
    if found.st_size as u64 > MAX_FILE {
        return Ok(Err(UserProblem::TooLarge));
    }
    Ok(Ok(Some(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
app:x:1000:1001:App:/home/app:/bin/sh
1000:x:0:0:a number as a name:/:/bin/sh
4294967296:x:0:0:another:/:/bin/sh
huge:x:4294967296:0::/:/bin/sh
negative:x:-1:0::/:/bin/sh
homeless:x:1002:1002:::/bin/sh
broken line
+nis::::::
";
    const GROUP: &str = "\
root:x:0:
app:x:1001:
audio:x:29:other,app
video:x:44:app
1001:x:0:app1
2000:x:0:
huge:x:4294967296:app
";

    fn fixture() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        std::fs::write(directory.path().join("etc/passwd"), PASSWD).unwrap();
        std::fs::write(directory.path().join("etc/group"), GROUP).unwrap();
        let file = std::fs::File::open(directory.path()).unwrap();
        (directory, Root::new(file.into()))
    }

    fn found(root: &Root, name: &str) -> Result<Identity, UserProblem> {
        resolve(root, Wanted::Named(name)).unwrap()
    }

    #[test]
    fn every_way_to_name_a_user() {
        use UserProblem::{Malformed, NoSuchGroup, NoSuchUser, OutOfRange};
        let (_directory, root) = fixture();
        type Expected = Result<(u32, u32, &'static [u32]), UserProblem>;
        let table: &[(&str, Expected)] = &[
            ("root", Ok((0, 0, &[0]))),
            ("0", Ok((0, 0, &[0]))),
            ("app", Ok((1000, 1001, &[29, 44, 1001]))),
            ("1000", Ok((1000, 1001, &[29, 44, 1001]))),
            ("1", Ok((1, 0, &[0]))),
            ("1:", Ok((1, 0, &[0]))),
            ("1:1", Ok((1, 1, &[1]))),
            ("01", Ok((1, 0, &[0]))),
            ("65535", Ok((65535, 0, &[0]))),
            ("2147483647", Ok((2_147_483_647, 0, &[0]))),
            ("app:audio", Ok((1000, 29, &[29, 44]))),
            ("app:5", Ok((1000, 5, &[5, 29, 44]))),
            ("1000:1001", Ok((1000, 1001, &[29, 44, 1001]))),
            ("app:2000", Ok((1000, 2000, &[29, 44, 2000]))),
            (":1", Err(Malformed)),
            (":", Err(Malformed)),
            ("1:1:1", Err(Malformed)),
            ("+1", Err(NoSuchUser)),
            ("-1", Err(NoSuchUser)),
            ("1 ", Err(NoSuchUser)),
            ("nobody-here", Err(NoSuchUser)),
            ("app:nope", Err(NoSuchGroup)),
            ("app:-1", Err(NoSuchGroup)),
            ("2147483648", Err(OutOfRange)),
            ("4294967295", Err(OutOfRange)),
            ("4294967296", Err(OutOfRange)),
            ("99999999999999999999999", Err(OutOfRange)),
            ("app:4294967296", Err(OutOfRange)),
            ("huge", Err(OutOfRange)),
            ("negative", Err(OutOfRange)),
            ("app:huge", Err(OutOfRange)),
        ];
        for (name, expected) in table {
            match (found(&root, name), expected) {
                (Ok(found), Ok((uid, gid, groups))) => {
                    assert_eq!((found.uid, found.gid), (*uid, *gid), "{name:?}");
                    assert_eq!(found.groups, *groups, "{name:?}");
                }
                (Err(problem), Err(expected)) => assert_eq!(problem, *expected, "{name:?}"),
                (found, expected) => panic!("{name:?}: {found:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn numbers_of_a_spec_are_taken_as_they_are() {
        let (_directory, root) = fixture();
        let found = resolve(&root, Wanted::Numbers { uid: 1000, gid: 7 }).unwrap().unwrap();
        assert_eq!((found.uid, found.gid, found.groups), (1000, 7, vec![7]));
        assert_eq!(found.home, "/home/app");
    }

    #[test]
    fn numbers_of_a_spec_need_no_file() {
        let (directory, root) = fixture();
        let passwd = directory.path().join("etc/passwd");
        std::fs::remove_file(&passwd).unwrap();
        std::fs::create_dir(&passwd).unwrap();
        let found = resolve(&root, Wanted::Numbers { uid: 1000, gid: 7 }).unwrap().unwrap();
        assert_eq!((found.uid, found.gid, found.home.as_str()), (1000, 7, "/"));
        std::fs::remove_dir(&passwd).unwrap();
        std::os::unix::fs::symlink("passwd", &passwd).unwrap();
        let found = resolve(&root, Wanted::Numbers { uid: 1000, gid: 7 }).unwrap().unwrap();
        assert_eq!(found.home, "/");
    }

    #[test]
    fn a_problem_is_its_number() {
        for problem in UserProblem::ALL {
            assert_eq!(UserProblem::decode(problem as u8), Some(problem));
        }
        assert_eq!(UserProblem::decode(6), None);
    }

    #[test]
    fn a_user_without_a_home_lives_at_the_root() {
        let (_directory, root) = fixture();
        for name in ["homeless", "4711"] {
            assert_eq!(found(&root, name).unwrap().home, "/");
        }
    }

    #[test]
    fn without_files_only_numbers_are_known() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(std::fs::File::open(directory.path()).unwrap().into());
        assert_eq!(found(&root, "12:34").unwrap().groups, [34]);
        assert!(found(&root, "root").is_err());
    }

    #[test]
    fn files_that_are_none_end_in_an_error_at_once() {
        use UserProblem::{NotAFile, TooLarge};
        let (directory, root) = fixture();
        let passwd = directory.path().join("etc/passwd");
        let problem = || found(&root, "app").unwrap_err();
        std::fs::remove_file(&passwd).unwrap();
        std::fs::create_dir(&passwd).unwrap();
        assert_eq!(problem(), NotAFile);
        std::fs::remove_dir(&passwd).unwrap();
        let fifo = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(rustix::fs::CWD, &passwd, FileType::Fifo, fifo, 0).unwrap();
        assert_eq!(problem(), NotAFile);
        std::fs::remove_file(&passwd).unwrap();
        std::fs::File::create(&passwd).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(problem(), TooLarge);
    }

    use rustix::fs::Mode;
}
