//! What stands at `/proc` and `/sys`: the kernel's, whole, and nothing in its place.

use integration::archive::load;
use integration::canary::Canary;
use integration::daemon::Daemon;
use integration::image::Recipe;

use super::{replace_by_link, run_on, tree};

/// CVE-2019-18837 (crun), CVE-2023-28642, CVE-2025-54867 (youki): a link in the place of `/proc` or
/// `/sys`. Fails when a link may stand there.
#[test]
fn a_proc_or_sys_that_is_a_link_is_refused() {
    let (daemon, canary) = (Daemon::start(), Canary::new());
    for path in ["proc", "sys"] {
        for (number, target) in
            [canary.dir(), canary.up() + "/dir", "/tmp".to_owned(), "tmp".to_owned()]
                .iter()
                .enumerate()
        {
            let tree = tree(&daemon, &format!("tree-{path}-{number}"));
            replace_by_link(&tree.join(path), target);
            run_on(&daemon, &tree, "", "true").fails(125, &[&format!("/{path}"), "link"]);
            canary.expect_untouched(target);
        }
    }
}

/// CVE-2015-3631, CVE-2019-16884: nothing is mounted over the kernel's controls, neither by a user nor
/// by an image, nor through a link; over `/sys` an image mounts nothing either, while a user may. Fails
/// when the daemon's, or the runtime's, look at it is left out.
#[test]
fn nothing_is_mounted_over_the_kernels_controls() {
    let daemon = Daemon::start();
    let shared = daemon.scratch().join("shared");
    std::fs::create_dir_all(shared.join("attr")).unwrap();
    std::fs::write(shared.join("meminfo"), "mine").unwrap();
    let tree = tree(&daemon, "tree");
    for path in ["/proc", "/proc/self/attr", "/proc/sys", "/proc/1", "/proc/self/fd", "/sys"] {
        let flags = format!("-v {}:{path}", shared.display());
        let run = run_on(&daemon, &tree, &flags, "true");
        if path == "/sys" {
            run.ok();
        } else {
            run.fails(125, &[path]);
        }
        if path != "/proc" && path != "/sys" {
            replace_by_link(&tree.join("link"), path);
            let flags = format!("-v {}:/link", shared.display());
            run_on(&daemon, &tree, &flags, "true").fails(125, &["/link"]);
        }
        let image = Recipe::busybox().config(serde_json::json!({"Volumes": {path: {}}})).image();
        load(&daemon, &[("test/volume:1", &image)]);
        daemon.ctl("run --rm --net none test/volume:1 true").fails(125, &[path]);
        daemon.ctl("rmi test/volume:1").ok();
    }
    // What lxcfs and its like bring is fine.
    let flags = format!("-v {}:/proc/meminfo", shared.join("meminfo").display());
    assert_eq!(run_on(&daemon, &tree, &flags, "cat /proc/meminfo").text(), "mine");
}
