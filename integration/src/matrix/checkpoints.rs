//! The life of a container that is held still: committed, written down while it goes on, written down to its
//! end, removed, restored.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::life::{Answer, Life, Patience, SETTLED, State, Told, learn, may_be, settled};
use super::lives::ImageLife;
use crate::archive;
use crate::criu::{COUNT, with_one_that_waits};
use crate::ctl::Ctl;
use crate::daemon::{Daemon, Settings};
use crate::image::Recipe;
use crate::wait;

/// A call of this life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Load,
    Run,
    Commit,
    /// A checkpoint after which it goes on.
    Checkpoint,
    CheckpointToItsEnd,
    Remove,
    Restore,
    RemoveRestored,
    RemoveImage,
}

const CALLS: [Call; 9] = [
    Call::Load,
    Call::Run,
    Call::Commit,
    Call::Checkpoint,
    Call::CheckpointToItsEnd,
    Call::Remove,
    Call::Restore,
    Call::RemoveRestored,
    Call::RemoveImage,
];

const IMAGE: &str = "registry.example.org/test/busybox:1";
const COMMITTED: &str = "registry.example.org/test/counted:1";
/// Archives of the one checkpoint, and of the other.
const ARCHIVES: [&str; 2] = ["first.tar", "last.tar"];

/// What is known of such a container, its image, and its archives.
#[derive(Debug)]
pub struct CheckpointLife {
    /// What is loaded.
    base: PathBuf,
    /// Where the archives are.
    directory: PathBuf,
    states: BTreeSet<State>,
    has_image: BTreeSet<bool>,
    has_archive: [BTreeSet<bool>; 2],
    shim_killed: bool,
}

impl CheckpointLife {
    /// # Panics
    /// When there is no room for it.
    #[must_use]
    pub fn new(daemon: &Daemon) -> Self {
        let base = daemon.scratch().join("base.tar");
        let image = Recipe::busybox().image();
        std::fs::write(&base, archive::oci(&[(IMAGE, &image)])).expect("a file");
        let directory = daemon.scratch().join("archives");
        std::fs::create_dir(&directory).expect("a directory");
        Self {
            base,
            directory,
            states: [State::Absent].into(),
            has_image: [false].into(),
            has_archive: [[false].into(), [false].into()],
            shim_killed: false,
        }
    }

    fn words(&self, call: Call) -> String {
        let archive = |number: usize| self.directory.join(ARCHIVES[number]).display().to_string();
        match call {
            Call::Load => format!("load -i {}", self.base.display()),
            Call::Run => format!("run -d --name one --net none {IMAGE} /bin/sh -c '{COUNT}'"),
            Call::Commit => format!("commit one {COMMITTED}"),
            Call::Checkpoint => format!("checkpoint -R -e {} one", archive(0)),
            Call::CheckpointToItsEnd => format!("checkpoint -e {} one", archive(1)),
            Call::Remove | Call::RemoveRestored => "rm -f one".to_owned(),
            Call::Restore => format!("restore --name one {}", archive(1)),
            Call::RemoveImage => format!("rmi {COMMITTED}"),
        }
    }

    /// A container that is there is as its calls allow, and stands still only if it has ended; nothing of what
    /// was done to it lies beside it.
    #[track_caller]
    fn expect_container(&self, daemon: &Daemon, case: &str) {
        let seen = settled(daemon, &may_be(&self.states, self.shim_killed), case, self);
        if seen == State::Running {
            goes_on(daemon, "one", case);
        }
        if seen != State::Absent {
            let directory = daemon.container_dir(&daemon.api().get("one").id);
            let lies = |name: &str| directory.path().join(name).exists();
            assert!(!lies("checkpoint"), "{case}: half a checkpoint is left");
            let has_run = matches!(seen, State::Running | State::Exited);
            assert!(!(has_run && lies("restore/images")), "{case}: images that it ran from");
        }
    }

    /// Archives are whole, or not there.
    #[track_caller]
    fn expect_archives(&self, daemon: &Daemon, case: &str) {
        let entries = self.directory.read_dir().expect("a directory").flatten();
        for name in entries.map(|entry| entry.file_name()) {
            assert!(ARCHIVES.iter().any(|known| name == *known), "{case}: {name:?} is left");
        }
        for (name, known) in ARCHIVES.iter().zip(&self.has_archive) {
            let archive = self.directory.join(name);
            assert!(known.contains(&archive.exists()), "{case}: {name}, which may be: {known:?}");
            if archive.exists() {
                daemon.ctl(&format!("restore --name again {}", archive.display())).ok();
                goes_on(daemon, "again", case);
                daemon.ctl("rm -f again").ok();
                std::fs::remove_file(archive).expect("a file");
            }
        }
    }

    #[track_caller]
    fn expect_image(&self, daemon: &Daemon, case: &str) {
        let is_there = daemon.api().image_names().iter().any(|name| name == COMMITTED);
        assert!(self.has_image.contains(&is_there), "{case}: {COMMITTED} is there: {is_there}");
        if is_there {
            let counted = daemon.ctl(&format!("run --rm --net none {COMMITTED} cat /count"));
            assert!(counted.text().parse::<u64>().is_ok(), "{case}: {counted:?}");
        }
    }
}

impl Life for CheckpointLife {
    fn settings() -> Settings {
        with_one_that_waits("time.sleep(0.02)", Settings::new())
    }

    fn calls(&self) -> usize {
        CALLS.len()
    }

    fn ask(&mut self, ctl: &Ctl, call: usize, patience: &Patience) -> Answer {
        Answer::of_ctl(ctl, &self.words(CALLS[call]), "", patience)
    }

    fn note(&mut self, call: usize, told: Told) {
        match CALLS[call] {
            Call::Load => {}
            Call::Run | Call::Restore => {
                learn(&mut self.states, told, State::Running);
                // It is made, and its start was undone.
                if told == Told::Nothing {
                    self.states.insert(State::Created);
                }
            }
            Call::Commit => learn(&mut self.has_image, told, true),
            Call::Checkpoint => learn(&mut self.has_archive[0], told, true),
            Call::CheckpointToItsEnd => {
                learn(&mut self.has_archive[1], told, true);
                learn(&mut self.states, told, State::Exited);
            }
            Call::Remove | Call::RemoveRestored => learn(&mut self.states, told, State::Absent),
            Call::RemoveImage => learn(&mut self.has_image, told, false),
        }
    }

    fn wait(&self, call: usize, ctl: &Ctl) {
        if CALLS[call] == Call::Run {
            let _ = wait::within(SETTLED, || counted(ctl, "one"));
        }
    }

    fn without_shim(&mut self, _logged: [u64; 2]) {
        self.shim_killed = true;
    }

    #[track_caller]
    fn expect_sound(&self, daemon: &Daemon, case: &str) {
        self.expect_container(daemon, case);
        self.expect_archives(daemon, case);
        self.expect_image(daemon, case);
        ImageLife::remove_all(daemon, case);
        daemon.expect_nothing_left();
        for call in CALLS {
            daemon.ctl(&self.words(call)).ok();
            if matches!(call, Call::Run | Call::Checkpoint | Call::Restore) {
                goes_on(daemon, "one", case);
            }
        }
        ImageLife::remove_all(daemon, case);
        daemon.expect_nothing_left();
    }
}

/// What a container has counted to.
fn counted(ctl: &Ctl, container: &str) -> Option<u64> {
    ctl.run(&format!("exec {container} cat /count")).stdout.trim().parse().ok()
}

#[track_caller]
fn goes_on(daemon: &Daemon, container: &str, case: &str) {
    let counted = || counted(daemon.client(), container);
    let mut first = None;
    let more = wait::within(wait::LIMIT, || {
        let now = counted();
        let before = first.get_or_insert(now?);
        (now? > *before).then_some(())
    });
    assert!(more.is_some(), "{case}: {container} stands still, at {first:?}");
}
