//! A file and a directory of the host that nothing may reach, and the proof that nothing did.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// What the file holds: no container may ever show it.
pub const SECRET: &str = "of the host, untouched";

/// A directory of the host with `file` and the empty `dir` in it, beside no daemon's directories.
#[derive(Debug)]
pub struct Canary {
    directory: TempDir,
    before: BTreeMap<PathBuf, Identity>,
}

/// The change time moves with every change of content, mode, owner, name and, of a directory, with
/// whatever was in it for a moment only.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    inode: u64,
    mode: u32,
    links: u64,
    changed: (i64, i64),
}

impl Canary {
    /// # Panics
    /// When nothing can be made in /tmp.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("bosun-canary-")
            .tempdir_in("/tmp")
            .expect("a directory in /tmp");
        fs::create_dir(directory.path().join("dir")).expect("a directory");
        fs::write(directory.path().join("file"), SECRET).expect("a file");
        let before = look(directory.path());
        Self { directory, before }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// # Panics
    /// Never: the path is of our own making.
    #[must_use]
    pub fn file(&self) -> String {
        self.path().join("file").display().to_string()
    }

    #[must_use]
    pub fn dir(&self) -> String {
        self.path().join("dir").display().to_string()
    }

    /// Enough `../` for any depth, and the way back down.
    #[must_use]
    pub fn up(&self) -> String {
        format!("{}{}", "../".repeat(40), self.path().display().to_string().trim_start_matches('/'))
    }

    /// # Panics
    /// With the case, when anything has changed, or something is mounted there.
    #[track_caller]
    pub fn expect_untouched(&self, case: &str) {
        assert_eq!(look(self.path()), self.before, "{case}");
        let content = fs::read_to_string(self.path().join("file")).expect("it is there");
        assert_eq!(content, SECRET, "{case}");
        let table = fs::read_to_string("/proc/self/mountinfo").expect("procfs");
        let own = self.path().display().to_string();
        let mounted: Vec<&str> = table.lines().filter(|line| line.contains(&own)).collect();
        assert!(mounted.is_empty(), "{case}: {mounted:?}");
    }
}

impl Default for Canary {
    fn default() -> Self {
        Self::new()
    }
}

fn look(directory: &Path) -> BTreeMap<PathBuf, Identity> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        let data = fs::symlink_metadata(&path).expect("a path of ours");
        if data.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory of ours");
            open.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
        let identity = Identity {
            inode: data.ino(),
            mode: data.mode(),
            links: data.nlink(),
            changed: (data.ctime(), data.ctime_nsec()),
        };
        found.insert(path, identity);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::Canary;

    #[test]
    #[should_panic(expected = "a visit")]
    fn a_visit_that_leaves_nothing_is_seen() {
        let canary = Canary::new();
        canary.expect_untouched("at first");
        std::fs::write(canary.path().join("dir/x"), "").expect("a file");
        std::fs::remove_file(canary.path().join("dir/x")).expect("a file");
        canary.expect_untouched("a visit");
    }
}
