//! The lives of an image, of a blob, and of a pod.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::life::{Answer, Life, Patience, Told, learn_at_most};
use crate::ctl::Ctl;
use crate::daemon::Daemon;
use crate::fake_registry::FakeRegistry;
use crate::image::{Image, Recipe, digest, noise};
use crate::tar::Entry;

/// Layers are made durable in company, a second after they came.
const DURABLE: Duration = Duration::from_millis(1200);

/// An image of a busybox with some files: `/mark` says "whole".
#[must_use]
pub fn image() -> Image {
    Recipe::busybox()
        .files(&[Entry::file("noise", noise(1, 400_000)), Entry::file("mark", "whole")])
        .files(&[Entry::file("more", noise(2, 200_000))])
        .image()
}

/// Pulled, run, committed, removed, collected.
#[derive(Debug)]
pub struct ImageLife {
    registry: Arc<FakeRegistry>,
    name: String,
    /// Whether its name may be there, or not.
    there: BTreeSet<bool>,
}

impl ImageLife {
    #[must_use]
    pub fn new(daemon: &Daemon) -> Self {
        let registry = FakeRegistry::start(daemon.netns());
        let name = registry.add("a", "1", &image());
        Self { registry: Arc::new(registry), name, there: [false].into() }
    }

    fn words(&self, call: usize) -> String {
        let name = &self.name;
        match call {
            0 => format!("pull {name}"),
            1 => format!("run --name one --net none {name} cat /mark"),
            2 => "commit one test/committed:1".to_owned(),
            3 => "rm one".to_owned(),
            4 => "rmi test/committed:1".to_owned(),
            5 => format!("rmi {name}"),
            _ => "system prune -a -f".to_owned(),
        }
    }

    /// Every image and every blob that is there is what it was.
    ///
    /// # Panics
    /// When not, with the case.
    #[track_caller]
    pub fn expect_whole(daemon: &Daemon, case: &str) {
        for listed in daemon.api().image_names() {
            let output = daemon.ctl(&format!("run --rm --net none {listed} cat /mark"));
            assert_eq!(output.text(), "whole", "{case}: {listed} is there and not whole");
        }
        for blob in daemon.ctl("content ls -q").text().lines() {
            let file = daemon.place().root.join("content/blobs/sha256").join(&blob[7..]);
            match std::fs::read(file) {
                Ok(bytes) => assert_eq!(digest(&bytes), blob, "{case}"),
                // The collection at the start may just have come by.
                Err(_) => assert!(!daemon.ctl("content ls -q").text().contains(blob), "{case}"),
            }
        }
    }

    /// Everything of images and containers goes, and nothing stays.
    ///
    /// # Panics
    /// When something does, with the case.
    #[track_caller]
    pub fn remove_all(daemon: &Daemon, case: &str) {
        let ids = daemon.ctl("ps -a -q").text().replace('\n', " ");
        if !ids.is_empty() {
            daemon.ctl(&format!("rm -f {ids}")).ok();
        }
        for listed in daemon.api().image_names() {
            daemon.ctl(&format!("rmi {listed}")).ok();
        }
        daemon.ctl("system prune -a -f").ok();
        daemon.forget_tries();
        daemon.expect_nothing_stored(case);
    }
}

impl Life for ImageLife {
    fn calls(&self) -> usize {
        7
    }

    fn ask(&mut self, ctl: &Ctl, call: usize, patience: &Patience) -> Answer {
        Answer::of_ctl(ctl, &self.words(call), "", patience)
    }

    fn note(&mut self, call: usize, told: Told) {
        let after = match call {
            // A run pulls what is not there.
            0 | 1 => true,
            5 | 6 => false,
            _ => return,
        };
        learn_at_most(&mut self.there, told, after);
    }

    fn wait(&self, call: usize, _ctl: &Ctl) {
        if call == 0 {
            std::thread::sleep(DURABLE);
        }
    }

    #[track_caller]
    fn expect_sound(&self, daemon: &Daemon, case: &str) {
        let name = &self.name;
        let is_there = daemon.api().image_names().contains(name);
        assert!(self.there.contains(&is_there), "{case}: {name} is there: {is_there}");
        Self::expect_whole(daemon, case);
        self.registry.forgive();
        daemon.ctl(&format!("pull {name}")).ok();
        let output = daemon.ctl(&format!("run --rm --net none {name} cat /mark"));
        assert_eq!(output.text(), "whole", "{case}");
        Self::remove_all(daemon, case);
        daemon.expect_nothing_left();
    }
}

/// Put, read, removed.
#[derive(Debug)]
pub struct BlobLife {
    there: BTreeSet<bool>,
}

const CONTENT: &str = "hello\n";
/// Of that.
const DIGEST: &str = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

impl BlobLife {
    #[must_use]
    pub fn new(_daemon: &Daemon) -> Self {
        Self { there: [false].into() }
    }

    fn words(call: usize) -> String {
        match call {
            0 => format!("content put --ref blob --digest {DIGEST}"),
            1 => format!("content get {DIGEST}"),
            _ => format!("content rm {DIGEST}"),
        }
    }
}

impl Life for BlobLife {
    fn calls(&self) -> usize {
        3
    }

    fn ask(&mut self, ctl: &Ctl, call: usize, patience: &Patience) -> Answer {
        let input = if call == 0 { CONTENT } else { "" };
        Answer::of_ctl(ctl, &Self::words(call), input, patience)
    }

    fn note(&mut self, call: usize, told: Told) {
        let after = match call {
            0 => true,
            1 => return,
            _ => false,
        };
        learn_at_most(&mut self.there, told, after);
    }

    #[track_caller]
    fn expect_sound(&self, daemon: &Daemon, case: &str) {
        let listed = daemon.ctl("content ls -q").text();
        let is_there = listed.contains(DIGEST);
        // What nobody holds may have been collected.
        assert!(!is_there || self.there.contains(&true), "{case}: {listed}");
        let hello = |case: &str| {
            assert_eq!(daemon.ctl(&format!("content get {DIGEST}")).stdout, CONTENT, "{case}");
        };
        if is_there {
            hello(case);
        }
        let put = daemon.client().feed(&Self::words(0), CONTENT);
        assert_eq!(put.text(), DIGEST, "{case}");
        hello(case);
        daemon.ctl(&format!("content rm {DIGEST}")).ok();
        daemon.expect_nothing_stored(case);
    }
}

/// Made, joined by a container, removed.
#[derive(Debug)]
pub struct PodLife {
    there: BTreeSet<bool>,
}

impl PodLife {
    #[must_use]
    pub fn new(_daemon: &Daemon) -> Self {
        Self { there: [false].into() }
    }
}

impl Life for PodLife {
    fn calls(&self) -> usize {
        3
    }

    fn ask(&mut self, ctl: &Ctl, call: usize, patience: &Patience) -> Answer {
        let words = match call {
            0 => "pod create pod",
            1 => "run --name one --pod pod --rootfs / /bin/true",
            _ => "pod rm -f pod",
        };
        Answer::of_ctl(ctl, words, "", patience)
    }

    fn note(&mut self, call: usize, told: Told) {
        let after = match call {
            0 => true,
            1 => return,
            _ => false,
        };
        // One whose start failed is a pod that does not run.
        learn_at_most(&mut self.there, told, after);
    }

    #[track_caller]
    fn expect_sound(&self, daemon: &Daemon, case: &str) {
        let is_there = !daemon.ctl("pod ls -q").text().is_empty();
        assert!(self.there.contains(&is_there), "{case}: it is there: {is_there}");
        let _ = daemon.ctl("pod rm -f pod");
        let _ = daemon.ctl("rm -f one");
        daemon.expect_nothing_left();
        daemon.ctl("pod create pod").ok();
        daemon.ctl("run --rm --pod pod --rootfs / /bin/true").ok();
        daemon.ctl("pod rm -f pod").ok();
        daemon.expect_nothing_left();
    }
}
