//! What the processes of a container have, read from `/proc` (proc(5)).

use std::fs;
use std::path::Path;

/// What its processes have, all together. What ends meanwhile has nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Processes {
    pub(super) count: u64,
    pub(super) threads: u64,
    /// Of the threads.
    pub(super) states: States,
    pub(super) descriptors: u64,
    pub(super) sockets: u64,
    /// The soft limit of process 1 for descriptors.
    pub(super) descriptors_limit: u64,
}

/// How many threads are in a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct States {
    pub(super) running: u64,
    pub(super) sleeping: u64,
    pub(super) stopped: u64,
    pub(super) uninterruptible: u64,
}

impl Processes {
    pub(super) fn look(pids: &[u32]) -> Self {
        let mut all = Self { count: pids.len() as u64, ..Self::default() };
        for (index, pid) in pids.iter().enumerate() {
            let own = Path::new("/proc").join(pid.to_string());
            for task in fs::read_dir(own.join("task")).into_iter().flatten().flatten() {
                if let Ok(stat) = fs::read_to_string(task.path().join("stat")) {
                    all.threads += 1;
                    all.states.count(&stat);
                }
            }
            for entry in fs::read_dir(own.join("fd")).into_iter().flatten().flatten() {
                all.descriptors += 1;
                let is_socket = fs::read_link(entry.path()).is_ok_and(|target| {
                    target.as_os_str().as_encoded_bytes().starts_with(b"socket:")
                });
                all.sockets += u64::from(is_socket);
            }
            if index == 0 {
                let limits = fs::read_to_string(own.join("limits")).unwrap_or_default();
                all.descriptors_limit = number_behind(&limits, "Max open files");
            }
        }
        all
    }
}

impl States {
    /// By the letter behind the name of a program, in which there may be anything.
    fn count(&mut self, stat: &str) {
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        match state {
            Some('R') => self.running += 1,
            Some('S') => self.sleeping += 1,
            Some('T' | 't') => self.stopped += 1,
            Some('D') => self.uninterruptible += 1,
            Some(_) | None => {}
        }
    }
}

/// The first number behind a word at the beginning of a line.
fn number_behind(text: &str, word: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_default();
    rest.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_has_is_seen() {
        let _socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let own = Processes::look(&[std::process::id()]);
        assert_eq!(own.count, 1);
        assert!(own.threads >= 1 && own.descriptors >= 3 && own.sockets >= 1, "{own:?}");
        assert!(own.states.running >= 1, "{own:?}");
        assert!(own.descriptors_limit > 0);
        let none = Processes { count: 1, ..Processes::default() };
        assert_eq!(Processes::look(&[u32::MAX]), none);
    }

    #[test]
    fn a_name_does_not_hide_a_state() {
        let mut states = States::default();
        for stat in ["7 (a) R 1", "8 (x) R) S 1 2", "9 () T 1", "9 (a b) t 1", "9 (a) D 1", "9"] {
            states.count(stat);
        }
        let expected = States { running: 1, sleeping: 1, stopped: 2, uninterruptible: 1 };
        assert_eq!(states, expected);
    }
}
