//! The rows about images: pulled from a registry on loopback, and out of a file.

use integration::archive;
use integration::image::Recipe;
use integration::registry::Registry;

use crate::table::{Goal, Row};
use crate::{Bench, debian, measure, seconds};

/// Both sides in turn, each from an empty store and a clean page cache.
pub(crate) fn pull_and_unpack(bench: &mut Bench) {
    let (image, size) = debian::image();
    let registry = Registry::start(bench.ours.netns());
    let name = registry.push("bench/debian", "1", &image);
    let (ours, containerd, podman) = (&bench.ours, &bench.containerd, &bench.podman);
    for daemon in [ours.daemon_process(), containerd.process()] {
        daemon.forget_peak_memory();
    }
    let [mine, theirs, others] = measure::in_turn(
        bench.options.rounds(7),
        [
            &|_| {
                rustix::fs::sync();
                let time = ours.pull(&name);
                ours.remove_images();
                time
            },
            &|_| {
                rustix::fs::sync();
                let time = containerd.pull(ours.netns(), &name);
                containerd.remove_images();
                time
            },
            &|_| {
                rustix::fs::sync();
                let time = podman.pull(ours.netns(), &name);
                podman.remove_images();
                time
            },
        ],
    );
    let peak = |process: integration::process::Process| {
        process
            .peak_memory()
            .and_then(|kilobytes| u32::try_from(kilobytes).ok())
            .map_or(f64::NAN, f64::from)
    };
    let memory = (peak(containerd.process()), peak(ours.daemon_process()));
    let what = format!("pull + unpack, {size}");
    for (peer, sample) in [("containerd (by ctr)", theirs), ("podman, overlay", others)] {
        bench.table.push(Row::against(
            &what,
            "s",
            peer,
            seconds(&sample),
            seconds(&mine),
            Goal::AtMost(1.3),
        ));
    }
    bench.table.push(Row::against(
        "the daemon's peak RSS meanwhile",
        "kB",
        "containerd (ctr downloads)",
        memory.0,
        memory.1,
        Goal::AtMost(65_536.0),
    ));
}

pub(crate) fn import_and_unpack(bench: &mut Bench) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("busybox.tar");
    let archive = archive::oci(&[("bench/busybox:1", &Recipe::busybox().image())]);
    std::fs::write(&file, archive).expect("a file");
    let (ours, containerd) = (&bench.ours, &bench.containerd);
    let [mine, theirs] = measure::in_turn(
        bench.options.rounds(20),
        [
            &|_| {
                let time = ours.import(&file);
                ours.remove_images();
                time
            },
            &|_| {
                let time = containerd.import(&file);
                containerd.remove_images();
                time
            },
        ],
    );
    bench.table.push(Row::against(
        "import + unpack of a 1 MB image",
        "ms",
        "ctr image import",
        theirs.median(),
        mine.median(),
        Goal::AtMost(25.0),
    ));
}
