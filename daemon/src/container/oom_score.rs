//! The OOM score of processes that run.
//!
//! A process that gave itself another score keeps it. Processes are named by descriptors of their
//! directories in procfs: what is written through one of a process that has ended goes nowhere.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Write as _};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use shim_cgroup::Cgroup;

use crate::core::Core;

/// How often a group is looked through for children that were born meanwhile.
const ROUNDS: u32 = 4;

/// Gives all processes of a group the score `next`: those that have `before`, or, where none was asked
/// for, all.
///
/// # Errors
/// The kernel refuses.
pub(super) async fn change(
    core: &Core,
    path: String,
    before: Option<i32>,
    next: i32,
) -> io::Result<()> {
    let layout = core.cgroups.clone();
    let work = move || {
        let cgroup = Cgroup::new(&layout, &path).map_err(io::Error::other)?;
        for _ in 0..ROUNDS {
            if !round(&cgroup, before, next)? {
                break;
            }
        }
        Ok(())
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Whether anything was changed.
fn round(cgroup: &Cgroup, before: Option<i32>, next: i32) -> io::Result<bool> {
    let processes = || cgroup.procs().map_err(io::Error::other);
    let opened: Vec<(i32, File)> = processes()?
        .into_iter()
        .filter_map(|pid| Some((pid, File::open(format!("/proc/{pid}")).ok()?)))
        .collect();
    // Whose directory was opened after the end of the process that was listed is not listed again.
    let still: BTreeSet<i32> = processes()?.into_iter().collect();
    let mut changed = false;
    for (_, process) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
        match set(process, before, next) {
            Ok(done) => changed |= done,
            Err(error) if has_ended(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(changed)
}

fn set(process: &File, before: Option<i32>, next: i32) -> io::Result<bool> {
    let file = openat(process, "oom_score_adj", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let mut file = File::from(file);
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let own: i32 = text.trim().parse().map_err(io::Error::other)?;
    if next == own || before.is_some_and(|before| before != own) {
        return Ok(false);
    }
    file.write_all(next.to_string().as_bytes())?;
    Ok(true)
}

fn has_ended(error: &io::Error) -> bool {
    let gone = [Errno::SRCH, Errno::NOENT].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|errno| gone.contains(&errno))
}
