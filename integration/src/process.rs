//! What the host's /proc says about a process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

use crate::wait;

/// A process by its number, for as long as the test knows that it is the one it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process(pub u32);

impl Process {
    /// Every process of the machine.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Self))
            .collect()
    }

    /// Those in a cgroup whose path begins with `prefix`, in any hierarchy, or with `text` among
    /// their arguments.
    #[must_use]
    pub fn belonging(prefix: &str, text: &Path) -> Vec<Self> {
        let text = text.to_string_lossy();
        Self::all()
            .into_iter()
            .filter(|process| {
                process.cgroups().values().any(|path| path.contains(&format!("/{prefix}")))
                    || process.arguments().iter().any(|word| word.contains(&*text))
            })
            .collect()
    }

    /// A path below its /proc directory.
    #[must_use]
    pub fn path(self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.0.to_string()).join(name)
    }

    fn text(self, name: &str) -> String {
        fs::read(self.path(name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Is it there, and not only waiting to be reaped?
    #[must_use]
    pub fn lives(self) -> bool {
        let stat = self.text("stat");
        stat.rfind(')').is_some_and(|end| {
            !matches!(stat[end + 1..].trim_start().as_bytes().first(), Some(b'Z' | b'X'))
        })
    }

    /// Clock ticks after boot.
    #[must_use]
    pub fn start_time(self) -> Option<u64> {
        shim_wire::files::start_time_of_stat(&self.text("stat"))
    }

    #[must_use]
    pub fn arguments(self) -> Vec<String> {
        self.text("cmdline").split_terminator('\0').map(str::to_owned).collect()
    }

    #[must_use]
    pub fn command(self) -> String {
        self.text("comm").trim_end().to_owned()
    }

    /// A field of /proc/PID/status, such as `CapEff`.
    #[must_use]
    pub fn status(self, field: &str) -> Option<String> {
        self.text("status").lines().find_map(|line| {
            line.strip_prefix(field)?.strip_prefix(':').map(|value| value.trim().to_owned())
        })
    }

    /// Path by hierarchy: the v1 controllers' names, and "" for v2.
    #[must_use]
    pub fn cgroups(self) -> BTreeMap<String, String> {
        self.text("cgroup")
            .lines()
            .filter_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
            })
            .collect()
    }

    /// Waits until a shim is out of the control groups of the service that started it: those that a
    /// service is ended by. Some it leaves only when its container runs.
    ///
    /// # Panics
    /// When it stays.
    #[track_caller]
    pub fn until_out_of_service(self) {
        wait::until_true("groups of the shim's own", || {
            let groups = self.cgroups();
            let ends = |name: &str| matches!(name, "" | "name=systemd" | "memory");
            let mut left = groups.iter().filter(|(name, _)| ends(name));
            left.all(|(_, path)| path.contains("-shims/"))
        });
    }

    /// The identity of a namespace: `net`, `mnt`, `pid`, …
    #[must_use]
    pub fn namespace(self, kind: &str) -> Option<PathBuf> {
        fs::read_link(self.path("ns").join(kind)).ok()
    }

    /// What each open descriptor is, as /proc has it: a path, `socket:[…]`, `anon_inode:…`.
    #[must_use]
    pub fn descriptors(self) -> BTreeMap<u32, String> {
        let Ok(entries) = fs::read_dir(self.path("fd")) else { return BTreeMap::new() };
        entries
            .flatten()
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.parse().ok()?;
                Some((number, fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
            })
            .collect()
    }

    /// Inodes of the sockets that it holds.
    #[must_use]
    pub fn sockets(self) -> Vec<u64> {
        self.descriptors()
            .values()
            .filter_map(|what| what.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
            .collect()
    }

    #[must_use]
    pub fn threads(self) -> usize {
        fs::read_dir(self.path("task")).map_or(0, Iterator::count)
    }

    /// Kilobytes of a field of /proc/PID/smaps_rollup, such as `Pss` or `Private_Dirty`.
    #[must_use]
    pub fn memory(self, field: &str) -> Option<u64> {
        self.text("smaps_rollup").lines().find_map(|line| {
            line.strip_prefix(field)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok()
        })
    }

    /// The most memory that it has had, in kilobytes.
    #[must_use]
    pub fn peak_memory(self) -> Option<u64> {
        self.status("VmHWM")?.split_whitespace().next()?.parse().ok()
    }

    /// From now on the peak counts anew (proc(5), clear_refs).
    ///
    /// # Panics
    /// When it is gone.
    pub fn forget_peak_memory(self) {
        fs::write(self.path("clear_refs"), "5").expect("a process of ours");
    }

    /// Ends it, and leaves it to its parent to reap.
    pub fn kill(self) {
        self.signal(Signal::KILL);
    }

    /// Sends it a signal, if it is still there.
    pub fn signal(self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.0).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    #[must_use]
    pub fn parent(self) -> Option<Self> {
        self.status("PPid")?.parse().ok().map(Self)
    }
}

/// Inodes of the IPv4 sockets on a local port in the namespace that `process` is in.
#[must_use]
pub fn port_sockets(process: Process, protocol: &str, port: u16) -> Vec<u64> {
    let table = process.text(&format!("net/{protocol}"));
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            words.get(1)?.ends_with(&suffix).then(|| words.get(9)?.parse().ok())?
        })
        .collect()
}

/// The mount points of a process, as its mountinfo has them.
#[must_use]
pub fn mount_points(process: Process) -> Vec<String> {
    process
        .text("mountinfo")
        .lines()
        .filter_map(|line| line.split(' ').nth(4).map(str::to_owned))
        .collect()
}
