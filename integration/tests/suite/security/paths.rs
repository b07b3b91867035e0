//! Links and swaps in trees that others own: nothing outside is made, mounted, written or shown.

use std::os::unix::fs::symlink;

use integration::canary::{Canary, SECRET};
use integration::daemon::Daemon;
use integration::swapper::Swapper;

use super::{replace_by_link, run_on, tree};

/// Starts under a swapper: enough to meet each moment of a start, few enough for seconds.
const STARTS: u32 = 40;

/// CVE-2015-3629, CVE-2024-5154, CVE-2025-24965 (crun), CVE-2021-43816: targets of mounts, and files
/// that the runtime brings, as links to the host's. Fails when lookups are not confined to the root.
#[test]
fn links_in_the_place_of_mount_targets_stay_inside() {
    let (daemon, canary) = (Daemon::start(), Canary::new());
    for (number, path) in
        ["etc/hosts", "etc/hostname", "etc/resolv.conf", "etc", "volume", "deep"].iter().enumerate()
    {
        for (kind, target) in
            [("file", canary.file()), ("new", canary.dir() + "/new"), ("up", canary.up() + "/dir")]
        {
            let case = format!("{path} to {kind}");
            let tree = tree(&daemon, &format!("tree-{number}-{kind}"));
            replace_by_link(&tree.join(path), target);
            let volume = daemon.scratch().join("shared");
            std::fs::create_dir_all(&volume).unwrap();
            std::fs::write(volume.join("mark"), "shared").unwrap();
            let flags = format!("-v {0}:/volume -v {0}:/deep/below/it", volume.display());
            let output = run_on(&daemon, &tree, &flags, "cat /volume/mark /deep/below/it/mark");
            canary.expect_untouched(&case);
            assert!(!output.stdout.contains(SECRET), "{case}: {}", output.stdout);
            match output.code {
                Some(0) => assert_eq!(output.stdout, "sharedshared", "{case}"),
                // A file or a file's link where a directory has to be.
                code => assert_eq!(code, Some(125), "{case}: {}", output.stderr),
            }
        }
    }
}

/// CVE-2015-3627: streams and consoles of an image as links to the host's files.
#[test]
fn streams_and_consoles_of_the_image_are_not_opened() {
    let (daemon, canary) = (Daemon::start(), Canary::new());
    let tree = tree(&daemon, "tree");
    let devices = daemon.scratch().join("devices");
    std::fs::create_dir(&devices).unwrap();
    std::fs::create_dir_all(tree.join("proc/self/fd")).unwrap();
    for name in ["stdin", "stdout", "stderr", "console", "null", "tty", "ptmx", "fd"] {
        for directory in [&devices, &tree.join("dev")] {
            symlink(canary.path().join("dir/made"), directory.join(name)).unwrap();
        }
    }
    symlink(canary.file(), tree.join("proc/self/fd/1")).unwrap();
    for flags in [String::new(), format!("-v {}:/dev", devices.display())] {
        for terminal in ["", "-t"] {
            let _ = run_on(&daemon, &tree, &format!("{flags} {terminal}"), "echo written");
            canary.expect_untouched(&format!("{flags} {terminal}"));
        }
    }
}

/// CVE-2026-41579 (runc), CVE-2026-47766 (crun): device nodes are made behind no link of the image's.
/// Fails when lookups are not confined to the root.
#[test]
fn a_dev_that_is_a_link_stays_inside() {
    let (daemon, canary) = (Daemon::start(), Canary::new());
    for (number, target) in [canary.dir(), canary.up() + "/dir"].iter().enumerate() {
        let tree = tree(&daemon, &format!("tree-{number}"));
        replace_by_link(&tree.join("dev"), target);
        let output = run_on(&daemon, &tree, "", "echo x > /dev/null && stat -c %t:%T /dev/null");
        canary.expect_untouched(target);
        assert_eq!(output.text(), "1:3", "{target}");
    }
}

/// CVE-2021-30465, CVE-2024-45310: the target of a mount lies in a volume whose owner swaps it for a
/// link all the time. Fails when lookups are not confined to the root.
#[test]
fn a_mount_target_that_is_swapped_stays_inside() {
    let (daemon, canary) = (Daemon::start(), Canary::new());
    let (tree, shared) = (tree(&daemon, "tree"), daemon.scratch().join("shared"));
    std::fs::create_dir_all(shared.join("target")).unwrap();
    symlink(canary.dir(), shared.join("link")).unwrap();
    let other = daemon.scratch().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("mark"), "mounted").unwrap();
    let swapper = Swapper::start(&shared, "target", "link");
    let flags = format!(
        "-v {}:/shared -v {}:/shared/target/made -v {}:/shared/target/file",
        shared.display(),
        other.display(),
        other.join("mark").display()
    );
    let mut started = 0;
    for round in 0..STARTS {
        let output = run_on(&daemon, &tree, &flags, "cat /proc/self/mountinfo");
        canary.expect_untouched(&format!("start {round}"));
        assert!(matches!(output.code, Some(0 | 125)), "{}", output.stderr);
        started += u32::from(output.code == Some(0));
        // Each of them is mounted once and somewhere inside.
        let mounted = output.stdout.lines().filter(|line| line.contains("/other ")).count();
        assert_eq!(mounted, usize::from(output.code == Some(0)), "{}", output.stdout);
    }
    assert!(started > 0 && swapper.swaps() > 1000, "{started} starts, {} swaps", swapper.swaps());
}

/// CVE-2019-19921, CVE-2023-27561: `/proc` is swapped for a link all the time. Fails when a link may
/// stand at /proc.
#[test]
fn a_proc_that_is_swapped_is_procfs_or_no_start() {
    let (daemon, canary) = (Daemon::start(), Canary::new());
    let tree = tree(&daemon, "tree");
    symlink(canary.dir(), tree.join("link")).unwrap();
    let swapper = Swapper::start(&tree, "proc", "link");
    let (mut started, mut refused) = (0, 0);
    for round in 0..STARTS {
        let output = run_on(&daemon, &tree, "", "cat /proc/mounts");
        canary.expect_untouched(&format!("start {round}"));
        match output.code {
            Some(0) => {
                started += 1;
                let at_proc =
                    output.stdout.lines().any(|line| line.starts_with("proc /proc proc "));
                assert!(at_proc, "{}", output.stdout);
            }
            code => {
                refused += 1;
                assert_eq!(code, Some(125), "{}", output.stderr);
            }
        }
    }
    assert!(started > 0 && refused > 0, "{started}, {refused}, {} swaps", swapper.swaps());
}

/// CVE-2022-4122, CVE-2023-0778: a tree that changes while it is exported.
#[test]
fn an_export_of_what_is_swapped_holds_nothing_of_the_host() {
    let (daemon, canary) = (Daemon::start(), Canary::new());
    let tree = tree(&daemon, "tree");
    let words = format!("run -d --name one --net none --rootfs {} /bin/sleep 600", tree.display());
    daemon.ctl(&words).ok();
    let seen = daemon.process("one").path("root/tmp");
    std::fs::create_dir_all(seen.join("swapped")).unwrap();
    std::fs::write(seen.join("swapped/file"), "inside").unwrap();
    symlink(canary.path(), seen.join("link")).unwrap();
    let _swapper = Swapper::start(&seen, "swapped", "link");
    for round in 0..20 {
        // It may say that the tree has changed.
        let output = daemon.client().command("export one").output().unwrap();
        let secret = SECRET.as_bytes();
        let shown = output.stdout.windows(secret.len()).any(|bytes| bytes == secret);
        assert!(!shown, "export {round}");
        canary.expect_untouched(&format!("export {round}"));
    }
}

/// CVE-2025-52565: a terminal is one of the container's own devpts, whatever stands in its place while
/// it is made. Fails when the console is found by a name.
#[test]
fn a_terminal_is_of_the_containers_own() {
    let (daemon, canary) = (Daemon::start(), Canary::new());
    let tree = tree(&daemon, "tree");
    daemon
        .ctl(&format!("run -d -t --name one --net none --rootfs {} /bin/sleep 600", tree.display()))
        .ok();
    const DEVPTS: &str = "1cd1";
    let seen = daemon.ctl("exec one /bin/stat -f -c %t /dev/console /dev/pts/0 /dev/ptmx").text();
    assert_eq!(seen.lines().collect::<Vec<_>>(), [DEVPTS; 3]);
    // 136 is the major number of such terminals.
    assert_eq!(daemon.ctl("exec one /bin/stat -c %t:%T /dev/console").text(), "88:0");
    let fake = daemon.scratch().join("fake");
    std::fs::create_dir(&fake).unwrap();
    std::fs::write(fake.join("ptmx"), "").unwrap();
    symlink(canary.file(), fake.join("link")).unwrap();
    let swapper = Swapper::start(&fake, "ptmx", "link");
    for round in 0..STARTS / 2 {
        let flags = format!("-t -v {}:/dev/pts", fake.display());
        run_on(&daemon, &tree, &flags, "echo written").fails(125, &["/dev/pts/ptmx"]);
        canary.expect_untouched(&format!("start {round}"));
    }
    assert!(swapper.swaps() > 1000);
}
