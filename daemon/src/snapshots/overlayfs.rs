//! The overlayfs driver: one directory per snapshot, `NUMBER/fs` and, for writable ones,
//! `NUMBER/work`. Numbers are never used again, so that what a slow removal still unlinks can't be
//! taken for anything else.

use std::collections::HashSet;
use std::fs::{DirBuilder, Metadata};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::store::Kind;
use crate::trees;

#[derive(Clone, Debug)]
pub(super) struct Overlayfs {
    directory: PathBuf,
    trash: PathBuf,
}

/// What makes up a snapshot, for whoever mounts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// Read-only, nearest first.
    pub lower: Vec<PathBuf>,
    /// Where changes go, and overlayfs' own directory beside it; `None` for a view.
    pub upper: Option<(PathBuf, PathBuf)>,
}

/// A mount as containerd's clients understand it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub kind: &'static str,
    pub source: String,
    pub options: Vec<String>,
}

impl Overlayfs {
    pub(super) fn new(directory: PathBuf, trash: PathBuf) -> Self {
        Self { directory, trash }
    }

    /// The tree of a snapshot's own changes.
    pub(super) fn tree(&self, number: i64) -> PathBuf {
        self.home(number).join("fs")
    }

    fn home(&self, number: i64) -> PathBuf {
        self.directory.join(number.to_string())
    }

    fn work(&self, number: i64) -> PathBuf {
        self.home(number).join("work")
    }

    /// Makes the directories of a writable snapshot, unless they are there. The root of its tree
    /// looks like the model's: overlayfs shows the mode and the owner of the upper one.
    pub(super) fn make(&self, number: i64, model: Option<&Path>) -> Result<()> {
        shim_failpoints::step!("daemon.create.before_snapshot_directories", error);
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        let mut made = false;
        for path in [self.home(number), self.tree(number), self.work(number)] {
            match builder.create(&path) {
                Ok(()) => made = true,
                Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(Error::file("make snapshot directory", &path)(source)),
            }
        }
        if made {
            let metadata = match model {
                None => None,
                Some(path) => {
                    Some(path.metadata().map_err(Error::file("look at base directory", path))?)
                }
            };
            let tree = self.tree(number);
            dress(&tree, metadata.as_ref()).map_err(Error::file("prepare snapshot", &tree))?;
        }
        Ok(())
    }

    pub(super) fn layers(
        &self,
        number: i64,
        kind: Kind,
        parents: &[i64],
        directory: Option<&Path>,
    ) -> Layers {
        let mut lower: Vec<PathBuf> = parents.iter().map(|parent| self.tree(*parent)).collect();
        lower.extend(directory.map(Path::to_owned));
        let upper = match kind {
            Kind::View => None,
            Kind::Active | Kind::Committed => Some((self.tree(number), self.work(number))),
        };
        Layers { lower, upper }
    }

    /// Moves a snapshot's directory away and unlinks it.
    pub(super) fn discard(&self, number: i64) -> Result<()> {
        shim_failpoints::step!("daemon.delete.before_snapshot_directories", error);
        let home = self.home(number);
        let trash = self.trash.join(format!("snapshot-{number}"));
        trees::discard(&home, &trash).map_err(Error::file("remove", &home))
    }

    pub(super) fn remove_orphans(&self, known: &HashSet<i64>) -> Result<usize> {
        let entries = std::fs::read_dir(&self.directory)
            .map_err(Error::file("read directory", &self.directory))?;
        let mut removed = 0;
        for entry in entries.flatten() {
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(number) = number.filter(|number| !known.contains(number)) {
                note(self.discard(number));
                removed += 1;
            }
        }
        let left = std::fs::read_dir(&self.trash).map_err(Error::file("read", &self.trash))?;
        for entry in left.flatten() {
            note(empty_trash(&entry.path()));
        }
        Ok(removed)
    }
}

impl Layers {
    /// As containerd's overlayfs snapshotter answers: a bind mount where one tree is enough.
    #[must_use]
    pub fn mounts(&self) -> Vec<Mount> {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let bind = |path: &PathBuf, mode: &str| Mount {
            kind: "bind",
            source: text(path),
            options: vec!["rbind".to_owned(), mode.to_owned()],
        };
        match (&self.upper, self.lower.as_slice()) {
            (Some((upper, _)), []) => vec![bind(upper, "rw")],
            (None, [only]) => vec![bind(only, "ro")],
            (None, []) => Vec::new(),
            (upper, lower) => {
                let mut options = Vec::new();
                if let Some((upper, work)) = upper {
                    options.push(format!("workdir={}", text(work)));
                    options.push(format!("upperdir={}", text(upper)));
                }
                let lower: Vec<String> = lower.iter().map(text).collect();
                options.push(format!("lowerdir={}", lower.join(":")));
                vec![Mount { kind: "overlay", source: "overlay".to_owned(), options }]
            }
        }
    }
}

/// Gives a tree's root the mode and owner that the container's root shall have.
fn dress(tree: &Path, model: Option<&Metadata>) -> std::io::Result<()> {
    let mode = model.map_or(0o755, |metadata| metadata.permissions().mode() & 0o7777);
    if let Some(metadata) = model {
        chown(tree, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    std::fs::set_permissions(tree, std::fs::Permissions::from_mode(mode))
}

/// One that can't be removed keeps nobody from being served.
fn note(removed: Result<()>) {
    if let Err(error) = removed {
        tracing::warn!(%error, "left behind; the next start of bosund tries again");
    }
}

/// Unlinks a tree.
fn empty_trash(path: &Path) -> Result<()> {
    trees::remove(path).map_err(Error::file("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_become_the_mounts_that_containerd_answers() {
        let path = |text: &str| PathBuf::from(text);
        let upper = Some((path("/s/3/fs"), path("/s/3/work")));
        let row = |lower: &[&str], upper: &Option<(PathBuf, PathBuf)>| {
            let lower = lower.iter().map(|text| path(text)).collect();
            let mounts = Layers { lower, upper: upper.clone() }.mounts();
            mounts
                .first()
                .map(|mount| format!("{} {} {}", mount.kind, mount.source, mount.options.join(",")))
        };
        assert_eq!(row(&[], &upper).as_deref(), Some("bind /s/3/fs rbind,rw"));
        assert_eq!(row(&["/s/1/fs"], &None).as_deref(), Some("bind /s/1/fs rbind,ro"));
        assert_eq!(row(&[], &None), None);
        assert_eq!(
            row(&["/s/2/fs", "/s/1/fs"], &upper).as_deref(),
            Some("overlay overlay workdir=/s/3/work,upperdir=/s/3/fs,lowerdir=/s/2/fs:/s/1/fs")
        );
        assert_eq!(
            row(&["/s/2/fs", "/"], &None).as_deref(),
            Some("overlay overlay lowerdir=/s/2/fs:/")
        );
    }

    #[test]
    fn the_root_of_a_tree_looks_like_its_base() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("base");
        std::fs::create_dir(&base).unwrap();
        std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o751)).unwrap();
        let driver = Overlayfs::new(directory.path().join("s"), directory.path().join("trash"));
        std::fs::create_dir(directory.path().join("s")).unwrap();
        std::fs::create_dir(directory.path().join("trash")).unwrap();
        driver.make(1, Some(&base)).unwrap();
        driver.make(1, Some(&base)).unwrap();
        assert_eq!(driver.tree(1).metadata().unwrap().permissions().mode() & 0o7777, 0o751);
        driver.discard(1).unwrap();
        driver.discard(1).unwrap();
        assert!(!driver.home(1).exists());
    }

    #[test]
    fn orphans_go_and_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        let driver = Overlayfs::new(directory.path().join("s"), directory.path().join("trash"));
        std::fs::create_dir(directory.path().join("s")).unwrap();
        std::fs::create_dir(directory.path().join("trash")).unwrap();
        for number in [1, 2, 3] {
            driver.make(number, None).unwrap();
        }
        assert_eq!(driver.remove_orphans(&HashSet::from([2])).unwrap(), 2);
        assert!(driver.home(2).exists() && !driver.home(1).exists() && !driver.home(3).exists());
    }
}
