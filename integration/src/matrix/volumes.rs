//! The life of a volume of an image: filled at the first start, used, there at the next start, gone with its
//! container.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::json;

use super::life::{
    Answer, Life, Patience, State, Told, learn, learn_of_start, learn_of_stop, may_be, settled,
};
use super::lives::ImageLife;
use crate::archive;
use crate::ctl::Ctl;
use crate::daemon::Daemon;
use crate::image::{Recipe, noise};
use crate::tar::Entry;

/// A call of this life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Load,
    Create,
    Start,
    Use,
    Stop,
    StartAgain,
    Remove,
}

const CALLS: [Call; 7] =
    [Call::Load, Call::Create, Call::Start, Call::Use, Call::Stop, Call::StartAgain, Call::Remove];

const IMAGE: &str = "registry.example.org/test/volume:1";

/// What is known of a container that has a volume.
#[derive(Debug)]
pub struct VolumeLife {
    image: PathBuf,
    states: BTreeSet<State>,
    /// How many lines were written into the volume.
    used: BTreeSet<usize>,
    shim_killed: bool,
}

impl VolumeLife {
    /// # Panics
    /// When there is no room for it.
    #[must_use]
    pub fn new(daemon: &Daemon) -> Self {
        let files =
            [Entry::file("data/noise", noise(3, 300_000)), Entry::file("data/mark", "whole")];
        let built = Recipe::busybox().files(&files).config(json!({"Volumes": {"/data": {}}}));
        let image = daemon.scratch().join("image.tar");
        std::fs::write(&image, archive::oci(&[(IMAGE, &built.image())])).expect("a file");
        Self { image, states: [State::Absent].into(), used: [0].into(), shim_killed: false }
    }

    fn words(&self, call: Call) -> String {
        match call {
            Call::Load => format!("load -i {}", self.image.display()),
            Call::Create => format!("create --name one --net none {IMAGE} sleep 1000"),
            Call::Start | Call::StartAgain => "start one".to_owned(),
            Call::Use => "exec one sh -c 'echo used >>/data/used'".to_owned(),
            Call::Stop => "stop -t 0 one".to_owned(),
            Call::Remove => "rm -f one".to_owned(),
        }
    }

    /// The volume of a container that runs has what the image has there and what was written since, and no
    /// half of one lies beside it.
    #[track_caller]
    fn expect_volume(&self, daemon: &Daemon, used: &BTreeSet<usize>, case: &str) {
        let script = "md5sum </data/noise; cat /data/mark; cat /data/used 2>/dev/null; true";
        let inside = daemon.ctl(&format!("exec one sh -c '{script}'")).text();
        let lines: Vec<&str> = inside.lines().collect();
        let sum = daemon.ctl(&format!("run --rm --net none {IMAGE} md5sum /data/noise")).text();
        let noise = lines.first().and_then(|line| line.get(..32));
        assert_eq!(noise, sum.get(..32), "{case}: the volume is not whole: {inside}");
        let mark = lines.get(1).and_then(|line| line.strip_prefix("whole"));
        assert!(mark.is_some(), "{case}: the volume is not whole: {inside}");
        assert!(used.contains(&inside.matches("used").count()), "{case}: {inside}");
        let directory = daemon.container_dir(&daemon.api().get("one").id);
        let volumes = directory.path().join("volumes").read_dir().expect("volumes").flatten();
        let names: Vec<_> = volumes.map(|volume| volume.file_name()).collect();
        assert_eq!(names.len(), 1, "{case}: {names:?}");
    }
}

impl Life for VolumeLife {
    fn calls(&self) -> usize {
        CALLS.len()
    }

    fn ask(&mut self, ctl: &Ctl, call: usize, patience: &Patience) -> Answer {
        Answer::of_ctl(ctl, &self.words(CALLS[call]), "", patience)
    }

    fn note(&mut self, call: usize, told: Told) {
        match CALLS[call] {
            Call::Load => {}
            Call::Create => learn(&mut self.states, told, State::Created),
            Call::Start | Call::StartAgain => learn_of_start(&mut self.states, told),
            Call::Use => learn(&mut self.used, told, 1),
            Call::Stop => learn_of_stop(&mut self.states, told),
            Call::Remove => learn(&mut self.states, told, State::Absent),
        }
    }

    fn without_shim(&mut self, _logged: [u64; 2]) {
        self.shim_killed = true;
    }

    #[track_caller]
    fn expect_sound(&self, daemon: &Daemon, case: &str) {
        let allowed = may_be(&self.states, self.shim_killed);
        let seen = settled(daemon, &allowed, case, self);
        if matches!(seen, State::Created | State::Exited) {
            daemon.ctl("start one").ok();
        }
        if seen != State::Absent {
            self.expect_volume(daemon, &self.used, case);
        }
        ImageLife::remove_all(daemon, case);
        daemon.expect_nothing_left();
        daemon.ctl(&self.words(Call::Load)).ok();
        for call in [Call::Create, Call::Start, Call::Use, Call::Stop, Call::StartAgain] {
            daemon.ctl(&self.words(call)).ok();
        }
        self.expect_volume(daemon, &[1].into(), case);
        ImageLife::remove_all(daemon, case);
        daemon.expect_nothing_left();
    }
}
