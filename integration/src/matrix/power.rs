//! The power goes: what reached the disk is there, what was only promised to it is not, every process is
//! gone, and the next boot is another one.
//!
//! The disk is an ext4 of the round's own. EXT4_IOC_SHUTDOWN without a flush of the journal stops it
//! between two requests; what the kernel has not written back by then is lost, as in a power cut: data
//! of files that were not synced, names that are in no committed transaction of the journal. With
//! `data=writeback` a file may have got its length and not its bytes. What a disk loses of its own cache
//! is not in this: a flush that was answered is taken to be true. The virtual machine's test of the same
//! clients has that (`integration/vm/machine/power.rs`): there each request to the disk is recorded, and the disk is made
//! anew up to any of them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::lives::{ImageLife, image};
use super::{Case, code, disks};
use crate::ctl::Ctl;
use crate::daemon::{Daemon, Settings, program};
use crate::disk::Size;
use crate::fake_registry::FakeRegistry;

/// Of the disk.
pub const SIZE: Size = Size { megabytes: 160, inodes: None };

/// Lines that a container writes before it ends: as much as makes its log rotate.
const LINES: u32 = 60;

/// Containers that come and go side by side.
const CLIENTS: usize = 2;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::plain("data in order", |round| cut(round, false)),
        Case::plain("data in any order", |round| cut(round, true)),
    ]
}

fn cut(round: usize, in_any_order: bool) {
    let mut daemon = Settings::new().disk_at("root", SIZE).prepare();
    if in_any_order {
        daemon.disk_mut().in_any_order();
    }
    daemon.start_again();
    let journal = Journal::new(|_| {});
    // At any moment of the first seconds, most of them busy ones.
    let after = u64::from(code(round * 2 + usize::from(in_any_order))) * 25;
    let after = Duration::from_millis(300 + after);
    journal.clients(&mut daemon, round, after, Daemon::lose_power);
    daemon.start_again();
    journal.expect_kept(&mut daemon, usize::MAX);
}

/// What clients asked for and were told, in its order.
pub struct Journal {
    notes: Mutex<Vec<Note>>,
    mark: Box<dyn Fn(usize) + Send + Sync>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("notes", &self.notes).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
enum Note {
    Container(String, Change),
    /// A pull or a removal of the image: whether it is there then, and whether that was told.
    Image {
        there: bool,
        done: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Asked {
        code: u8,
    },
    Created,
    /// Its end was told.
    Ended,
    AskedToRemove,
    Removed,
}

/// What was told of a container.
#[derive(Clone, Debug, Default)]
struct Fact {
    code: u8,
    created: bool,
    ended: bool,
    asked_to_remove: bool,
    removed: bool,
}

impl Journal {
    /// `mark` is called with the number of each note, at once.
    pub fn new(mark: impl Fn(usize) + Send + Sync + 'static) -> Self {
        Self { notes: Mutex::default(), mark: Box::new(mark) }
    }

    fn note(&self, note: Note) {
        let Ok(mut notes) = self.notes.lock() else { return };
        notes.push(note);
        (self.mark)(notes.len());
    }

    /// Clients work on a daemon until, after a while, `end` comes over it.
    ///
    /// # Panics
    /// When one does.
    pub fn clients(
        &self,
        daemon: &mut Daemon,
        round: usize,
        after: Duration,
        end: impl FnOnce(&mut Daemon),
    ) {
        let registry = FakeRegistry::start(daemon.netns());
        let name = registry.add("a", "1", &image());
        let over = AtomicBool::new(false);
        let ctl = daemon.client().clone();
        std::thread::scope(|scope| {
            scope.spawn(|| self.image_comes_and_goes(&ctl, &name, &over));
            for client in 0..CLIENTS {
                let (ctl, over) = (&ctl, &over);
                scope.spawn(move || self.containers_come_and_go(ctl, client, round, over));
            }
            std::thread::sleep(after);
            end(daemon);
            over.store(true, Ordering::Relaxed);
        });
    }

    fn image_comes_and_goes(&self, ctl: &Ctl, name: &str, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            for (verb, there) in [("pull", true), ("rmi", false)] {
                self.note(Note::Image { there, done: false });
                if ctl.run(&format!("{verb} {name}")).code == Some(0) {
                    self.note(Note::Image { there, done: true });
                }
                if there {
                    // Its layers become durable meanwhile, or not.
                    let _ = ctl.run(&format!("run --rm --net none {name} cat /mark"));
                }
            }
        }
    }

    /// Containers that are made, end, and are removed or not.
    fn containers_come_and_go(&self, ctl: &Ctl, client: usize, round: usize, over: &AtomicBool) {
        for number in 0.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let (name, code) = (format!("c{client}-{number}"), code(round * 1000 + number));
            let note = |change| self.note(Note::Container(name.clone(), change));
            note(Change::Asked { code });
            let words = format!(
                "run -d --name {name} --log-opt max-size=2k --log-opt max-file=100 --net none \
                 --rootfs / /bin/sh -c 'i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); \
                 echo o $i $((i*7919%65521)); echo e $i $((i*7919%65521)) >&2; done; exit {code}'"
            );
            if ctl.run(&words).code != Some(0) {
                continue;
            }
            note(Change::Created);
            if ctl.run(&format!("wait {name}")).stdout.trim() == code.to_string() {
                note(Change::Ended);
            }
            if number % 3 == 2 {
                note(Change::AskedToRemove);
                if ctl.run(&format!("rm -f {name}")).code == Some(0) {
                    note(Change::Removed);
                }
            }
        }
    }

    /// All that was told in the first so many notes is so, `bosund fsck` finds nothing, and everything
    /// works as ever. The daemon has just been started.
    ///
    /// # Panics
    /// When something was lost.
    pub fn expect_kept(&self, daemon: &mut Daemon, notes: usize) {
        let all = self.notes.lock().expect("no client panics");
        let told = &all[..notes.min(all.len())];
        let mut facts: BTreeMap<&str, Fact> = BTreeMap::new();
        let mut image = None;
        for note in told {
            match note {
                Note::Container(name, change) => {
                    let fact = facts.entry(name).or_default();
                    match change {
                        Change::Asked { code } => fact.code = *code,
                        Change::Created => fact.created = true,
                        Change::Ended => fact.ended = true,
                        Change::AskedToRemove => fact.asked_to_remove = true,
                        Change::Removed => fact.removed = true,
                    }
                }
                Note::Image { there, done } => image = Some((*there, *done)),
            }
        }
        for (container, fact) in &facts {
            expect_fact(daemon, container, fact);
        }
        let images = daemon.api().image_names();
        if let Some((there, true)) = image {
            assert_eq!(!images.is_empty(), there, "the image: {images:?}");
        }
        ImageLife::expect_whole(daemon, "after the cut");
        daemon.kill();
        expect_nothing_found(daemon);
        daemon.start_again();
        let registry = FakeRegistry::start(daemon.netns());
        let name = registry.add("a", "1", &super::lives::image());
        disks::works_as_ever(daemon, &name);
    }
}

#[track_caller]
fn expect_fact(daemon: &Daemon, container: &str, fact: &Fact) {
    let listed = daemon.ctl("ps -a --format '{{.Names}}'").text();
    let is_there = listed.lines().any(|line| line == container);
    if fact.removed {
        assert!(!is_there, "{container} was removed: {fact:?}");
    } else if !fact.asked_to_remove {
        assert!(is_there || !fact.created, "{container} is lost: {fact:?}");
    }
    if !is_there {
        return;
    }
    let state = daemon.api().get(container).state.unwrap_or_default();
    if let Some(exit) = &state.exit {
        let own = exit.status == u32::from(fact.code) && !exit.unknown;
        assert!(own || (exit.unknown && !fact.ended), "{container}: {exit:?} for {fact:?}");
    } else {
        assert!(!fact.ended, "{container} has no exit: {state:?} for {fact:?}");
    }
    let lines = disks::expect_whole_lines(daemon, container).map(|tail| tail.count);
    if fact.ended {
        assert_eq!(lines, [u64::from(LINES); 2], "{container}: its log is not whole: {fact:?}");
    }
}

/// `bosund fsck` finds nothing but what the next start of a container puts right, the tail of its log, and
/// a removal that the daemon before was killed in.
#[track_caller]
fn expect_nothing_found(daemon: &Daemon) {
    let fsck = std::process::Command::new(program("bosund"))
        .args(["fsck", "--root"])
        .arg(&daemon.place().root)
        .output()
        .expect("a program");
    let text = String::from_utf8_lossy(&fsck.stdout).into_owned();
    let may_be = [
        "are no records",
        "no record names it: the next start of bosund removes it",
        "what a removal left: the next start of bosund removes it",
    ];
    let found = text.lines().filter(|line| !may_be.iter().any(|text| line.contains(text)));
    let found: Vec<&str> = found.collect();
    assert!(found.is_empty() && fsck.status.code().is_some_and(|code| code < 8), "{fsck:?}");
}
