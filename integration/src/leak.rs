//! What a daemon's containers left on the machine: looked for where the kernel keeps it, never in
//! the daemon's own account.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::daemon::Place;
use crate::netns::NetNs;
use crate::process::Process;
use crate::wait;

/// How long the freeing of things may go on after the answer that removed them (an overlay's
/// teardown is not waited for by `rm`).
pub const LIMIT: Duration = Duration::from_secs(15);

/// Everything of any container that is still there, one line each.
#[must_use]
pub fn leftovers(place: &Place, netns: &NetNs, baseline: &[String]) -> Vec<String> {
    let mut left = Vec::new();
    left.extend(processes(place).into_iter().map(|process| {
        format!(
            "process {} {:?} in {:?}",
            process.0,
            process.arguments(),
            process.cgroups().get("pids")
        )
    }));
    left.extend(mounts(place).into_iter().map(|line| format!("mount {line}")));
    left.extend(container_cgroups(place).iter().map(|path| format!("cgroup {}", path.display())));
    left.extend(veths(netns, &place.bridge).into_iter().map(|line| format!("veth {line}")));
    let elements = nft_elements(netns);
    left.extend(
        elements
            .into_iter()
            .filter(|line| !baseline.contains(line))
            .map(|line| format!("nftables element {line}")),
    );
    left.extend(files(place).iter().map(|path| format!("file {}", path.display())));
    left
}

/// Shims and containers: what is in the daemon's cgroups, or names its directories and isn't the
/// daemon or a client of it.
fn processes(place: &Place) -> Vec<Process> {
    Process::belonging(&place.prefix, &place.state)
        .into_iter()
        .filter(|process| process.lives())
        .filter(|process| {
            !matches!(process.command().as_str(), "bosund" | "ctl" | "nsenter" | "strace")
        })
        .collect()
}

/// Lines of the host's mount table that name the daemon's directories: as mount point, as root of a
/// bind, or as a layer of an overlay.
fn mounts(place: &Place) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let ours = [place.root.display().to_string(), place.state.display().to_string()];
    table
        .lines()
        .filter(|line| ours.iter().any(|path| line.contains(path.as_str())))
        // A disk of the test's own. No container has one.
        .filter(|line| ![" /dev/loop", " /dev/mapper/"].iter().any(|disk| line.contains(disk)))
        .map(str::to_owned)
        .collect()
}

/// `PREFIX/NS/ID` and below, in every hierarchy.
fn container_cgroups(place: &Place) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for top in cgroups_of(&place.prefix) {
        for namespace in directories(&top) {
            found.extend(directories(&namespace));
        }
    }
    found
}

/// `PREFIX`, `PREFIX-shims` and `PREFIX-daemon` in every hierarchy of the machine.
fn cgroups_of(prefix: &str) -> Vec<PathBuf> {
    let own = Process(std::process::id()).cgroups();
    let mut tops = Vec::new();
    for hierarchy in hierarchies() {
        let below = own
            .values()
            .filter(|path| path.len() > 1)
            .map(|path| hierarchy.join(path.trim_start_matches('/')));
        for base in below.chain([hierarchy.clone()]) {
            tops.push(base.join(prefix));
            tops.push(base.join(format!("{prefix}-shims")));
            tops.push(base.join(format!("{prefix}-daemon")));
        }
    }
    tops.retain(|path| path.is_dir());
    tops.sort();
    tops.dedup();
    tops
}

/// Makes the cgroup `PREFIX-daemon`, whose processes have so many megabytes of memory together; its
/// `cgroup.procs`. [`sweep`] removes it.
///
/// # Panics
/// When it can't be made.
#[must_use]
pub fn memory_cgroup(prefix: &str, megabytes: u32) -> PathBuf {
    let v1 = Path::new("/sys/fs/cgroup/memory");
    let (hierarchy, file) = match v1.is_dir() {
        true => (v1, "memory.limit_in_bytes"),
        false => (Path::new("/sys/fs/cgroup"), "memory.max"),
    };
    let path = hierarchy.join(format!("{prefix}-daemon"));
    fs::create_dir(&path).expect("a cgroup");
    fs::write(path.join(file), format!("{megabytes}M")).expect("a limit of memory");
    path.join("cgroup.procs")
}

/// Where cgroup file systems are mounted.
#[must_use]
pub fn hierarchies() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<_> = table
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            right.starts_with("cgroup").then(|| left.split(' ').nth(4).map(PathBuf::from))?
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

fn veths(netns: &NetNs, bridge: &str) -> Vec<String> {
    let text = netns.output("ip -o link show type veth");
    text.lines()
        .filter(|line| line.contains(&format!("master {bridge} ")) || !line.contains(" master "))
        .map(str::to_owned)
        .collect()
}

/// Every element of every map and set in a network namespace.
#[must_use]
pub fn nft_elements(netns: &NetNs) -> Vec<String> {
    let text = netns.output("nft -j list ruleset");
    let Ok(json) = serde_json::from_str::<serde_json::Value>(&text) else { return Vec::new() };
    let mut elements = Vec::new();
    for object in json["nftables"].as_array().into_iter().flatten() {
        for kind in ["map", "set"] {
            let Some(holder) = object.get(kind) else { continue };
            for element in holder["elem"].as_array().into_iter().flatten() {
                elements.push(format!("{} {}: {element}", holder["table"], holder["name"]));
            }
        }
    }
    elements
}

/// The places at which networks of pods are bound, of whichever daemon, by the pods' ids.
#[must_use]
pub fn bound_networks() -> Vec<(String, PathBuf)> {
    let id = |path: &Path| path.file_name()?.to_str()?.strip_prefix("bosun-").map(str::to_owned);
    let found = entries(Path::new("/run/netns"));
    // As long as an id: tests have networks of their own there.
    let found = found.into_iter().filter_map(|path| Some((id(&path)?, path)));
    found.filter(|(id, _)| id.len() == 64).collect()
}

/// What containers and snapshots had in the daemon's directories.
fn files(place: &Place) -> Vec<PathBuf> {
    let mut left = Vec::new();
    for base in [place.root.join("containers"), place.state.join("containers")] {
        for namespace in directories(&base) {
            left.extend(entries(&namespace));
        }
    }
    for base in [
        place.root.join("snapshots/overlayfs"),
        place.root.join("trash"),
        place.state.join("s"),
        place.state.join("trash"),
    ] {
        left.extend(entries(&base));
    }
    left
}

/// Blobs, ingests, snapshots and what waits for its removal, in a daemon's root.
#[must_use]
pub fn stored_files(root: &Path) -> Vec<PathBuf> {
    let places = ["content/blobs/sha256", "content/ingest", "snapshots/overlayfs", "trash"];
    let found = places.iter().flat_map(|place| entries(&root.join(place)));
    found.map(|path| path.strip_prefix(root).map(Path::to_owned).unwrap_or(path)).collect()
}

fn entries(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let mut found = entries(path);
    found.retain(|path| path.is_dir() && !path.is_symlink());
    found
}

/// Removes by force whatever a daemon may have left, after a failed test as after a good one (its
/// empty top cgroups are infrastructure). Nothing here is reported: the tests did that.
pub fn sweep(place: &Place, directory: &Path) {
    kill(place, directory);
    for line in mounts(place).iter().rev() {
        if let Some(point) = line.split(' ').nth(4) {
            let _ = Command::new("umount")
                .args(["--lazy", point])
                .stderr(std::process::Stdio::null())
                .status();
        }
    }
    remove_cgroups(place);
    // The lock of a bridge is a file that stays (it could not be removed without a race).
    let lock = format!("bosun-bridge-{}-", place.bridge);
    for path in entries(Path::new("/run")) {
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&lock)) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Ends every process of a daemon and its containers.
pub fn kill(place: &Place, directory: &Path) {
    wait::within(Duration::from_secs(5), || {
        let mut left = Process::belonging(&place.prefix, directory);
        left.retain(|process| process.0 != std::process::id() && process.lives());
        left.iter().for_each(|process| process.kill());
        left.is_empty().then_some(())
    });
}

/// Removes the control groups of a daemon, in which nothing runs any more.
pub fn remove_cgroups(place: &Place) {
    for top in cgroups_of(&place.prefix) {
        remove_cgroup(&top);
    }
}

fn remove_cgroup(path: &Path) {
    for child in directories(path) {
        remove_cgroup(&child);
    }
    // A cgroup whose last process is just going answers EBUSY for a moment.
    wait::within(Duration::from_secs(1), || {
        (fs::remove_dir(path).is_ok() || !path.exists()).then_some(())
    });
}
