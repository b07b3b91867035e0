//! Files that a checkpoint gives names to, in directories of others, before its caller is told of it.
//!
//! ```text
//!   ROOT/checkpoints/ID.json ─▶ the files have their names ─▶ the note goes ─▶ the caller is told
//! ```
//!
//! As long as there is a note, nobody was told of what it lists, and it must not stand in the way of the next
//! try: it goes with the try that failed, or with the next daemon. A file is known by its number, its length and
//! when it was last written to; what somebody else has put in its place, or has changed, is theirs and stays.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, open, openat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Archive;
use crate::atomic;
use crate::blocking::off_the_loop;
use crate::container::random_id;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::plain_file;
use crate::store;

/// How long a daemon that starts waits for directories of others: they may be anywhere.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a note lists.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    /// Under names that nobody else comes upon.
    hidden: Vec<PathBuf>,
    named: Vec<Named>,
}

/// A file with the name that it gets.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    path: PathBuf,
    inode: u64,
    length: u64,
    /// Seconds since 1970, and nanoseconds.
    written: (i64, i64),
}

impl Named {
    fn of(path: PathBuf, found: &Metadata) -> Self {
        let written = (found.mtime(), found.mtime_nsec());
        Self { path, inode: found.ino(), length: found.size(), written }
    }
}

/// What is written for a caller who was not told of it yet. It goes with this.
#[derive(Debug)]
pub(super) struct Untold {
    note: PathBuf,
    listed: Listed,
}

impl Untold {
    pub(super) fn new(layout: &Layout) -> Self {
        let note = layout.checkpoints().join(format!("{}.json", random_id()));
        Self { note, listed: Listed::default() }
    }

    /// A name beside a place that is free to take.
    pub(super) fn hide(&mut self, place: &Path) -> Result<PathBuf> {
        let mut name = OsString::from(".");
        name.push(place.file_name().unwrap_or_default());
        name.push(format!(".{}.new", &random_id()[..16]));
        let hidden = place.with_file_name(name);
        self.listed.hidden.push(hidden.clone());
        self.note()?;
        Ok(hidden)
    }

    /// Notes what is about to have a name: all of them, with everything in them.
    pub(super) fn list<'a>(&mut self, archives: impl Iterator<Item = &'a Archive>) -> Result<()> {
        for archive in archives {
            let path = archive.place.clone();
            let found = archive.file.metadata().map_err(Error::file("look at", &path))?;
            self.listed.named.push(Named::of(path, &found));
        }
        shim_failpoints::step!("daemon.checkpoint.before_note", error);
        self.note()?;
        shim_failpoints::step!("daemon.checkpoint.after_note", error);
        Ok(())
    }

    fn note(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.listed).map_err(crate::store::Error::from)?;
        atomic::write_durably(&self.note, &text, 0o600).map_err(Error::file("write", &self.note))
    }

    /// The files stay: whoever asked for them is told of them now.
    pub(super) fn told(mut self) -> Result<()> {
        shim_failpoints::step!("daemon.checkpoint.before_told", error);
        for hidden in std::mem::take(&mut self.listed.hidden) {
            // It has another name as well.
            remove(&hidden, |_| true).map_err(Error::file("remove", &hidden))?;
        }
        // What a power cut brings back would take them away.
        remove_note(&self.note).map_err(Error::file("remove", &self.note))?;
        shim_failpoints::step!("daemon.checkpoint.after_told", error);
        self.listed = Listed::default();
        Ok(())
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        if let Err(error) = undo(&self.listed, &self.note) {
            tracing::warn!(note = %self.note.display(), %error, "not removed: the next daemon tries again");
        }
    }
}

/// Takes away what a daemon that was killed had told nobody of. What can't be reached now is tried again by the
/// next one.
pub(crate) async fn forget(layout: &Layout) {
    let layout = layout.clone();
    let all = off_the_loop(move || forget_all(&layout));
    match tokio::time::timeout(PATIENCE, all).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "what is left of checkpoints"),
        Err(_) => tracing::warn!("what is left of checkpoints is removed beside other work"),
    }
}

fn forget_all(layout: &Layout) -> Result<()> {
    let directory = layout.checkpoints();
    let failed = Error::file("read directory", &directory);
    let entries = directory.read_dir().map_err(failed)?.flatten();
    for note in entries.map(|entry| entry.path()) {
        if note.extension().is_none_or(|extension| extension != "json") {
            // It did not become one.
            let _ = std::fs::remove_file(&note);
            continue;
        }
        let text = plain_file::read(&note, plain_file::RECORD);
        let listed = text.and_then(|text| Ok(serde_json::from_slice::<Listed>(&text)?));
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => {
                let aside = store::set_aside(layout.root(), &note)?;
                tracing::warn!(note = %note.display(), aside = %aside.display(), %error, "damaged: set aside");
                continue;
            }
        };
        tracing::info!(?listed, "a checkpoint that nobody was told of is removed");
        if let Err(error) = undo(&listed, &note) {
            tracing::warn!(note = %note.display(), %error, "not removed: the next daemon tries again");
        }
    }
    Ok(())
}

/// What is listed goes, and then the note.
fn undo(listed: &Listed, note: &Path) -> io::Result<()> {
    for hidden in &listed.hidden {
        remove(hidden, |_| true)?;
    }
    for named in &listed.named {
        let is_it = |found: &Metadata| Named::of(named.path.clone(), found) == *named;
        remove(&named.path, is_it)?;
    }
    match listed.hidden.is_empty() && listed.named.is_empty() {
        true => Ok(()),
        false => remove_note(note),
    }
}

/// Removes a file, if it is the one, and makes that durable. What is no file, or not there, is no error.
fn remove(path: &Path, is_it: impl Fn(&Metadata) -> bool) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    // By descriptor: what was looked at is in the directory out of which it goes, whoever else moves it.
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = match open(directory, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        opened => opened?,
    };
    let found = match openat(
        &directory,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Err(Errno::NOENT) => return Ok(()),
        opened => File::from(opened?).metadata()?,
    };
    if !found.is_file() || !is_it(&found) {
        return Ok(());
    }
    unlinkat(&directory, name, AtFlags::empty())?;
    File::from(directory).sync_all()
}

fn remove_note(note: &Path) -> io::Result<()> {
    match std::fs::remove_file(note) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    note.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(directory: &Path) -> Layout {
        let layout = Layout::new(&directory.join("root"), &directory.join("state"));
        layout.make().unwrap();
        layout
    }

    fn names_in(directory: &Path) -> Vec<String> {
        let entries = directory.read_dir().unwrap().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Three files with names that nobody is told of.
    fn begun(layout: &Layout, place: &Path) -> Untold {
        std::fs::create_dir(place).unwrap();
        let mut untold = Untold::new(layout);
        let archives = ["one", "two", "three"]
            .map(|name| Archive::begin(&place.join(name), &mut untold).unwrap());
        for archive in &archives {
            io::Write::write_all(&mut &archive.file, b"what it is").unwrap();
        }
        untold.list(archives.iter()).unwrap();
        for archive in &archives {
            archive.name().unwrap();
        }
        assert_eq!(names_in(place), ["one", "three", "two"]);
        untold
    }

    #[test]
    fn what_nobody_was_told_of_goes_and_what_is_another_s_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (layout, place) = (layout(directory.path()), directory.path().join("place"));
        std::mem::forget(begun(&layout, &place));
        std::fs::write(place.join("two"), "what it is, and more").unwrap();
        std::fs::remove_file(place.join("three")).unwrap();
        std::os::unix::fs::symlink("one", place.join("three")).unwrap();
        std::fs::write(place.join("four"), "what it is").unwrap();
        forget_all(&layout).unwrap();
        assert_eq!(names_in(&place), ["four", "three", "two"]);
        assert_eq!(names_in(&layout.checkpoints()), Vec::<String>::new());
        std::fs::remove_dir_all(&place).unwrap();
        // As a try that failed.
        drop(begun(&layout, &place));
        assert_eq!(names_in(&place), Vec::<String>::new());
        assert_eq!(names_in(&layout.checkpoints()), Vec::<String>::new());
    }

    #[test]
    fn what_somebody_was_told_of_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (layout, place) = (layout(directory.path()), directory.path().join("place"));
        begun(&layout, &place).told().unwrap();
        forget_all(&layout).unwrap();
        assert_eq!(names_in(&place).len(), 3);
        assert_eq!(names_in(&layout.checkpoints()), Vec::<String>::new());
    }

    #[test]
    fn a_note_whose_directory_is_gone_or_that_is_none_is_no_trouble() {
        let directory = tempfile::tempdir().unwrap();
        let (layout, place) = (layout(directory.path()), directory.path().join("place"));
        std::mem::forget(begun(&layout, &place));
        std::fs::remove_dir_all(&place).unwrap();
        std::fs::write(layout.checkpoints().join("torn.json"), "{\"hidden\":").unwrap();
        std::fs::write(layout.checkpoints().join("half.json.new"), "").unwrap();
        forget_all(&layout).unwrap();
        assert_eq!(names_in(&layout.checkpoints()), Vec::<String>::new());
        assert_eq!(names_in(&layout.root().join("quarantine")).len(), 1);
    }
}
