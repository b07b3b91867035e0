//! The life of archives of images: an OCI layout and a docker archive of several names each, and the tar of a
//! root file system, loaded; a container of one; an archive of what came.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::life::{Answer, Life, Patience, Told, learn_at_most};
use super::lives::{self, ImageLife};
use crate::archive;
use crate::ctl::Ctl;
use crate::daemon::Daemon;
use crate::image::{Recipe, busybox};
use crate::tar::{self, Entry};

/// A call of this life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    LoadLayout,
    LoadDocker,
    Import,
    Run,
    Save,
}

const CALLS: [Call; 5] = [Call::LoadLayout, Call::LoadDocker, Call::Import, Call::Run, Call::Save];

/// The names in each of what is loaded.
const NAMES: [&[&str]; 3] = [
    &["registry.example.org/test/one:1", "registry.example.org/test/two:1"],
    &["registry.example.org/test/three:1", "registry.example.org/test/four:1"],
    &["registry.example.org/test/tree:1"],
];

/// What is known of these images, and of the archive that is made of them.
#[derive(Debug)]
pub struct LoadLife {
    /// What is loaded, in the order of [`NAMES`].
    archives: [PathBuf; 3],
    saved: PathBuf,
    there: [BTreeSet<bool>; 3],
    has_saved: BTreeSet<bool>,
}

impl LoadLife {
    /// # Panics
    /// When there is no room for it.
    #[must_use]
    pub fn new(daemon: &Daemon) -> Self {
        let mark = || Entry::file("mark", "whole");
        let (one, three) = (lives::image(), Recipe::busybox().files(&[mark()]).image());
        let tree: Vec<Entry> = busybox().into_iter().chain([mark()]).collect();
        let archives = [
            ("layout.tar", archive::oci(&[(NAMES[0][0], &one), (NAMES[0][1], &one)])),
            ("docker.tar", archive::docker(&[(NAMES[1], &three)])),
            ("tree.tar", tar::tar(&tree)),
        ];
        let archives = archives.map(|(name, bytes)| {
            let path = daemon.scratch().join(name);
            std::fs::write(&path, bytes).expect("a file");
            path
        });
        let absent = || BTreeSet::from([false]);
        Self {
            archives,
            saved: daemon.scratch().join("saved.tar"),
            there: [absent(), absent(), absent()],
            has_saved: absent(),
        }
    }

    fn words(&self, call: Call) -> String {
        let archive = |number: usize| self.archives[number].display();
        match call {
            Call::LoadLayout => format!("load -i {}", archive(0)),
            Call::LoadDocker => format!("load -i {}", archive(1)),
            Call::Import => format!("import {} {}", archive(2), NAMES[2][0]),
            Call::Run => format!("run --rm --net none {} cat /mark", NAMES[0][1]),
            Call::Save => {
                format!("save -o {} {} {}", self.saved.display(), NAMES[0][0], NAMES[1][1])
            }
        }
    }

    /// All names of an archive are there, or none.
    #[track_caller]
    fn expect_names(&self, daemon: &Daemon, case: &str) {
        let listed = daemon.api().image_names();
        for (names, known) in NAMES.iter().zip(&self.there) {
            let count = names.iter().filter(|name| listed.iter().any(|it| it == *name)).count();
            assert!(count == 0 || count == names.len(), "{case}: half of it is there: {listed:?}");
            assert!(known.contains(&(count > 0)), "{case}: there are {listed:?}: {self:?}");
        }
    }
}

impl Life for LoadLife {
    fn calls(&self) -> usize {
        CALLS.len()
    }

    fn ask(&mut self, ctl: &Ctl, call: usize, patience: &Patience) -> Answer {
        Answer::of_ctl(ctl, &self.words(CALLS[call]), "", patience)
    }

    fn note(&mut self, call: usize, told: Told) {
        let known = match CALLS[call] {
            Call::LoadLayout => &mut self.there[0],
            Call::LoadDocker => &mut self.there[1],
            Call::Import => &mut self.there[2],
            Call::Save => &mut self.has_saved,
            Call::Run => return,
        };
        learn_at_most(known, told, true);
    }

    /// What was loaded and saved is whole, or not there; everything works once more.
    #[track_caller]
    fn expect_sound(&self, daemon: &Daemon, case: &str) {
        self.expect_names(daemon, case);
        ImageLife::expect_whole(daemon, case);
        ImageLife::remove_all(daemon, case);
        let is_saved = self.saved.exists();
        assert!(self.has_saved.contains(&is_saved), "{case}: an archive is there: {is_saved}");
        if is_saved {
            daemon.ctl(&format!("load -i {}", self.saved.display())).ok();
            assert_eq!(daemon.api().image_names().len(), 2, "{case}");
            ImageLife::expect_whole(daemon, case);
        }
        for call in CALLS {
            daemon.ctl(&self.words(call)).ok();
        }
        ImageLife::expect_whole(daemon, case);
        ImageLife::remove_all(daemon, case);
        daemon.expect_nothing_left();
    }
}
