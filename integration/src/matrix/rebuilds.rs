//! What a daemon had that lost its database, and the records of its blobs with it: a container that runs, one
//! that has ended, an image, a blob without a name.

use rusqlite::Connection;

use super::life::{self, Answer, Extent, Life, Patience, Told};
use super::lives::{self, ImageLife};
use crate::archive;
use crate::ctl::Ctl;
use crate::daemon::Daemon;
use crate::wait;

const IMAGE: &str = "registry.example.org/test/kept:1";
const CONTENT: &str = "nobody's\n";

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Of the database nothing is left.
    Lost,
    /// The row of a blob.
    Row,
}

/// What is known of these.
#[derive(Debug)]
pub struct RebuiltLife {
    code: u8,
    /// The digest of the blob without a name.
    blob: String,
    damage: Damage,
    shim_killed: bool,
}

impl RebuiltLife {
    /// Makes all of it, kills the daemon, and does the damage.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn begin(daemon: &mut Daemon, damage: Damage, code: u8) -> Self {
        archive::load(daemon, &[(IMAGE, &lives::image())]);
        let lines = life::lines_until_stopped(code, "0.02");
        daemon.ctl(&format!("run -d --name one -p 5000:5000 --rootfs / {lines}")).ok();
        let ended = format!("run --name two --net none {IMAGE} /bin/sh -c 'exit {code}'");
        let _ = daemon.ctl(&ended);
        let put = daemon.client().feed("content put", CONTENT);
        daemon.until_logged("one", "o 3 ");
        daemon.kill();
        let root = &daemon.place().root;
        match damage {
            Damage::Lost => {
                // Of the journal alone SQLite would make it again.
                for name in ["meta.db-wal", "meta.db-shm"] {
                    let _ = std::fs::remove_file(root.join(name));
                }
                std::fs::write(root.join("meta.db"), "no database").expect("a file");
            }
            Damage::Row => {
                let database = Connection::open(root.join("meta.db")).expect("a database");
                let changed = database.execute("UPDATE blobs SET size = size + 1", []);
                assert!(changed.expect("rows") > 3);
            }
        }
        std::fs::remove_dir_all(root.join("content/records")).expect("copies");
        Self { code, blob: put.text(), damage, shim_killed: false }
    }
}

impl Life for RebuiltLife {
    fn calls(&self) -> usize {
        0
    }

    fn ask(&mut self, _ctl: &Ctl, _call: usize, _patience: &Patience) -> Answer {
        Answer::Done
    }

    fn note(&mut self, _call: usize, _told: Told) {}

    fn without_shim(&mut self, _logged: [u64; 2]) {
        self.shim_killed = true;
    }

    /// All of it is there.
    #[track_caller]
    fn expect_sound(&self, daemon: &Daemon, case: &str) {
        let listed = daemon.ctl("ps -a --format '{{.Names}}'").text();
        let mut names: Vec<&str> = listed.lines().collect();
        names.sort_unstable();
        assert_eq!(names, ["one", "two"], "{case}");
        let code = daemon.inspect("two", "{{.State.ExitCode}}");
        assert_eq!(code, self.code.to_string(), "{case}");
        let is_running = || daemon.inspect("one", "{{.State.Running}}") == "true";
        match self.shim_killed {
            false => assert_eq!(daemon.ctl("exec one /bin/echo yes").text(), "yes", "{case}"),
            true => wait::until_true("its end", || !is_running()),
        }
        life::expect_log(daemon, "one", Extent::AtLeast([3, 3]), case);
        assert_eq!(daemon.api().image_names(), [IMAGE], "{case}");
        ImageLife::expect_whole(daemon, case);
        if self.damage == Damage::Lost {
            let content = daemon.ctl(&format!("content get {}", self.blob));
            assert_eq!(content.stdout, CONTENT, "{case}");
        }
        let unfinished = daemon.place().root.join("meta.unfinished");
        assert!(!unfinished.exists(), "{case}: it is still to be done");
        ImageLife::remove_all(daemon, case);
        daemon.expect_nothing_left();
    }
}
