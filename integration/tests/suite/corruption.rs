//! What lies on the disk is damaged while no daemon looks: bytes flipped, files cut, emptied, removed.
//! The next daemon starts by itself, names what it found, and loses nothing that stood elsewhere.
//!
//! Files drawn at random are a row of the matrix (`integration/src/matrix/corruption.rs`).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use integration::daemon::{Daemon, Settings};
use integration::disk::Size;
use integration::image::noise;
use integration::matrix::corruption::{
    expect_its_end, fsck, image, load, start_ended, start_running, text,
};
use integration::netns::run;
use integration::wait;

#[test]
fn a_lost_database_is_rebuilt_with_everything_that_ran_and_was_known() {
    type Strike = fn(&Path);
    let empty: Strike = |path| std::fs::write(path, "").unwrap();
    let cut: Strike = |path| {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    let noise: Strike = |path| std::fs::write(path, noise(9, 200_000)).unwrap();
    let remove: Strike = |path| std::fs::remove_file(path).unwrap();
    let without_wal: Strike = |path| std::fs::remove_file(path.with_extension("db-wal")).unwrap();
    let mut daemon = Daemon::start();
    load(&daemon);
    daemon.ctl("tag test/one:1 test/two:2").ok();
    let running = start_running(&daemon);
    start_ended(&daemon);
    daemon.ctl("create --name made --net none test/one:1").ok();
    daemon.ctl("create --name host --net none --rootfs / /bin/sh -c 'exit 5'").ok();
    let database = daemon.place().root.join("meta.db");
    let known = daemon.stored();
    let ids = daemon.ctl("ps -a -q --no-trunc").text();
    for (how, strike) in [
        ("empty", empty),
        ("cut", cut),
        ("noise", noise),
        ("removed", remove),
        ("without its WAL", without_wal),
    ] {
        // So that there is something in the WAL that is nowhere else.
        daemon.ctl("tag test/one:1 test/last:3").ok();
        daemon.ctl("rmi test/last:3").ok();
        daemon.kill();
        let logged = daemon.log().len();
        strike(&database);
        daemon.start_again();
        let log = daemon.log()[logged..].to_owned();
        assert!(log.contains("made anew from what lies on the disk"), "{how}:\n{log}");
        assert_eq!(daemon.process("runs"), running, "{how}");
        assert_eq!(daemon.inspect("ended", "{{.State.ExitCode}}"), "7", "{how}");
        assert_eq!(daemon.ctl("logs ended").text(), "said", "{how}");
        assert_eq!(daemon.ctl("ps -a -q --no-trunc").text(), ids, "{how}");
        assert_eq!(daemon.stored(), known, "{how}");
        for image in ["test/one:1", "test/two:2"] {
            assert_eq!(
                daemon.ctl(&format!("run --rm --net none {image}")).text(),
                "whole",
                "{how}"
            );
        }
        daemon.ctl("run --name runs --net none test/one:1").fails(125, &["runs"]);
    }
    let kept = std::fs::read_dir(daemon.place().root.join("quarantine")).unwrap().flatten();
    let kept: Vec<_> = kept.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert!(kept.iter().filter(|name| name.ends_with("meta.db")).count() >= 4, "{kept:?}");
    daemon.ctl("start -a made").check(0);
    daemon.ctl("start -a host").check(5);
    expect_its_end(&daemon, running);
    daemon.ctl("rm runs ended made host").ok();
    daemon.ctl("rmi test/one:1 test/two:2").ok();
}

/// A backup of the database, from before all that is made in here.
#[test]
fn an_older_database_put_back_loses_nothing_that_is_newer() {
    let mut daemon = Daemon::start();
    load(&daemon);
    daemon.ctl("create --name before --net none test/one:1").ok();
    daemon.terminate();
    let root = daemon.place().root.clone();
    let backup = daemon.scratch().join("backup");
    std::fs::create_dir(&backup).unwrap();
    for name in ["meta.db", "meta.mark"] {
        std::fs::copy(root.join(name), backup.join(name)).unwrap();
    }
    daemon.start_again();
    let running = start_running(&daemon);
    let script = "echo precious > /precious; exit 4";
    daemon.ctl(&format!("run --name db --net none test/one:1 sh -c '{script}'")).check(4);
    daemon.ctl("tag test/one:1 test/newer:2").ok();
    daemon.ctl("rm before").ok();
    let ids = daemon.ctl("ps -a -q --no-trunc").text();
    let known = daemon.stored();
    daemon.kill();
    for name in ["meta.db-wal", "meta.db-shm"] {
        let _ = std::fs::remove_file(root.join(name));
    }
    for name in ["meta.db", "meta.mark"] {
        std::fs::copy(backup.join(name), root.join(name)).unwrap();
    }
    let found = text(&fsck(&daemon, ""));
    assert!(found.contains("it is an older one") && found.lines().count() == 1, "{found}");
    daemon.start_again();
    assert!(daemon.log().contains("it is an older one"), "{}", daemon.log());
    assert_eq!(daemon.ctl("ps -a -q --no-trunc").text(), ids);
    assert_eq!(daemon.process("runs"), running);
    assert_eq!(daemon.inspect("db", "{{.State.ExitCode}}"), "4");
    assert_eq!(daemon.stored(), known);
    let copy = daemon.scratch().join("precious");
    daemon.ctl(&format!("cp db:/precious {}", copy.display())).ok();
    assert_eq!(std::fs::read_to_string(copy).unwrap(), "precious\n");
    assert_eq!(daemon.ctl("run --rm --net none test/newer:2").text(), "whole");
    expect_its_end(&daemon, running);
    daemon.ctl("rm runs db").ok();
    daemon.ctl("rmi test/one:1 test/newer:2").ok();
}

fn fifo(path: &Path) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
}

#[test]
fn whatever_lies_in_the_place_of_a_file_or_a_directory_the_daemon_starts() {
    let mut daemon = Daemon::start();
    load(&daemon);
    let running = start_running(&daemon);
    start_ended(&daemon);
    let ended = daemon.inspect("ended", "{{.Id}}");
    let (root, state) = (daemon.place().root.clone(), daemon.place().state.clone());
    let files = daemon.container_dir(&ended);
    let run = daemon.run_dir(&ended);
    let layer = root.join("content/blobs/sha256").join("0".repeat(64));
    for path in [
        root.join("meta.db"),
        root.join("meta.mark"),
        root.join("trash"),
        root.join("nothing"),
        root.join("content/ingest"),
        root.join("content/ingest/stray"),
        layer,
        files.path().join("record.json"),
        files.path().join("options.json"),
        state.join("root"),
        state.join("trash"),
        state.join("bosun.sock"),
        run.shim_identity(),
    ] {
        for is_fifo in [true, false] {
            daemon.kill();
            match path.symlink_metadata().map(|found| found.is_dir()) {
                Ok(true) => std::fs::remove_dir_all(&path).unwrap(),
                Ok(false) => std::fs::remove_file(&path).unwrap(),
                Err(_) => std::fs::create_dir_all(path.parent().unwrap()).unwrap(),
            }
            match is_fifo {
                true => fifo(&path),
                false => std::fs::create_dir(&path).unwrap(),
            }
            let case =
                format!("{} as a {}", path.display(), if is_fifo { "FIFO" } else { "directory" });
            println!("{case}");
            let found = fsck(&daemon, "");
            assert!(matches!(found.status.code(), Some(0 | 1)), "{case}: {found:?}");
            daemon.start_again();
            assert_eq!(daemon.process("runs"), running, "{case}");
            assert_eq!(daemon.inspect("ended", "{{.State.ExitCode}}"), "7", "{case}");
        }
    }
    expect_its_end(&daemon, running);
    daemon.ctl("rm runs ended").ok();
    daemon.ctl("rmi test/one:1").ok();
}

#[test]
fn a_start_that_can_not_go_on_says_what_is_in_the_way_and_what_to_do() {
    let mut daemon = Daemon::start();
    daemon.kill();
    let (root, state) = (daemon.place().root.clone(), daemon.place().state.clone());
    for path in [root.join("snapshots/overlayfs"), root.join("lock"), state.join("lock")] {
        let aside = daemon.scratch().join("aside");
        std::fs::rename(&path, &aside).unwrap();
        fifo(&path);
        daemon.launch();
        assert!(daemon.ended_by_itself(Duration::from_secs(60)).is_some_and(|it| !it.success()));
        let log = daemon.log();
        let said = format!("{} is a FIFO", path.display());
        assert!(log.contains(&said) && log.contains("away, then start bosund again"), "{log}");
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(&aside, &path).unwrap();
    }
    daemon.start_again();
}

/// A file system that somebody mounted into a container's tree.
#[test]
fn what_is_mounted_in_a_tree_outlives_the_removal_of_the_container() {
    let daemon = Daemon::start();
    load(&daemon);
    start_ended(&daemon);
    let trees = daemon.place().root.join("snapshots/overlayfs");
    let newest = std::fs::read_dir(&trees).unwrap().flatten();
    let newest = newest.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok()).max();
    let number = newest.unwrap().to_string();
    let place = trees.join(&number).join("fs/mnt/t");
    std::fs::create_dir_all(&place).unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&place));
    std::fs::write(place.join("keep"), "keep").unwrap();
    let removed = daemon.ctl("rm ended");
    let moved = daemon.place().root.join("trash").join(format!("snapshot-{number}"));
    wait::until_true("a try", || daemon.log().contains("something is mounted in it, on t"));
    let kept = std::fs::read_to_string(moved.join("fs/mnt/t/keep"));
    run(Command::new("umount").arg(moved.join("fs/mnt/t")));
    assert_eq!(kept.unwrap(), "keep");
    removed.ok();
    wait::until_true("the end of the removal", || !moved.exists());
    daemon.ctl("rmi test/one:1").ok();
}

#[test]
fn a_container_whose_record_is_lost_is_listed_keeps_its_name_and_can_be_removed() {
    let mut daemon = Daemon::start();
    load(&daemon);
    let running = start_running(&daemon);
    start_ended(&daemon);
    daemon.ctl("run -d --name broken --net none test/one:1 sleep 600").ok();
    let broken = daemon.process("broken");
    let id = daemon.inspect("broken", "{{.Id}}");
    daemon.kill();
    std::fs::remove_file(daemon.place().root.join("meta.db")).unwrap();
    std::fs::write(daemon.container_dir(&id).path().join("record.json"), "{}").unwrap();
    daemon.start_again();
    assert_eq!(daemon.process("runs"), running);
    assert_eq!(daemon.inspect("ended", "{{.State.ExitCode}}"), "7");
    let listed = daemon.ctl("ps -a --no-trunc --filter name=broken --format '{{.ID}}'").text();
    assert_eq!(listed, id);
    daemon.ctl("create --name broken --net none test/one:1").fails(125, &["broken"]);
    daemon.ctl("start broken").fails(1, &["record.json"]);
    let said = daemon.inspect("broken", "{{.State.Status}} {{.State.Error}}");
    let aside = daemon.place().root.join("quarantine");
    for part in ["dead its record can't be read", "record.json: it is", aside.to_str().unwrap()] {
        assert!(said.contains(part), "{said}");
    }
    let log = daemon.log();
    assert!(log.contains("quarantined") && log.contains(&id), "{log}");
    assert!(broken.lives(), "nothing is killed that nobody asked to be");
    daemon.ctl("rm broken").fails(1, &["broken"]);
    daemon.ctl("rm -f broken").ok();
    wait::until_true("its end", || !broken.lives());
    daemon.ctl("create --name broken --net none test/one:1").ok();
    expect_its_end(&daemon, running);
    daemon.ctl("rm runs ended broken").ok();
    daemon.ctl("rmi test/one:1").ok();
}

#[test]
fn a_container_of_which_only_its_log_is_left_is_listed_until_it_is_removed() {
    let mut daemon = Daemon::start();
    let words =
        "run --name one --net none --rootfs / /bin/sh -c 'echo said; echo mark > /opt/mark'";
    daemon.ctl(words).ok();
    let id = daemon.inspect("one", "{{.Id}}");
    let directory = daemon.container_dir(&id);
    daemon.kill();
    std::fs::remove_file(daemon.place().root.join("meta.db")).unwrap();
    for name in ["record.json", "options.json", "config.json"] {
        std::fs::remove_file(directory.path().join(name)).unwrap();
    }
    for _ in 0..2 {
        daemon.start_again();
        assert_eq!(daemon.ctl("ps -a -q --no-trunc").text(), id);
        let said = daemon.inspect(&id, "{{.State.Status}} {{.State.Error}}");
        let place = directory.path().display();
        assert!(said.starts_with(&format!("dead its record can't be read ({place}: ")), "{said}");
        let trees = said.split_once("what was set aside: ").unwrap().1;
        let tree = Path::new(trees.split_once(')').unwrap().0);
        assert_eq!(std::fs::read_to_string(tree.join("fs/opt/mark")).unwrap(), "mark\n");
        daemon.kill();
    }
    let found = text(&fsck(&daemon, ""));
    assert!(found.contains(&id) && found.contains("quarantined"), "{found}");
    daemon.start_again();
    daemon.ctl(&format!("rm -f {id}")).ok();
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
    wait::until_true("the end of the removal", || !directory.path().exists());
}

#[test]
fn a_removal_of_one_whose_record_is_lost_is_ended_by_the_next_daemon() {
    let mut daemon = Daemon::start();
    daemon.ctl("create --name broken --net none --rootfs / /bin/true").ok();
    daemon.ctl("start broken").ok();
    daemon.ctl("wait broken").ok();
    let directory = daemon.container_dir(&daemon.inspect("broken", "{{.Id}}")).path().to_owned();
    daemon.kill();
    std::fs::remove_file(daemon.place().root.join("meta.db")).unwrap();
    std::fs::write(directory.join("record.json"), "{}").unwrap();
    daemon.start_again();
    // What is mounted can be removed by nobody.
    let mount = |verb: &str, words: &[&str]| {
        run(Command::new(verb).args(words).arg(&directory));
    };
    mount("mount", &["-t", "tmpfs", "none"]);
    daemon.ctl("rm -f broken").ok();
    daemon.kill();
    mount("umount", &[]);
    assert!(directory.join("record.json").exists(), "it is not removed yet");
    daemon.start_again();
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
    wait::until_true("the end of the removal", || !directory.exists());
}

#[test]
fn what_a_container_was_made_with_is_whole_at_every_start() {
    let mut daemon = Daemon::start();
    daemon.ctl("create --name one --net none --rootfs / /bin/true").ok();
    daemon.ctl("start one").ok();
    daemon.ctl("wait one").ok();
    let directory = daemon.container_dir(&daemon.inspect("one", "{{.Id}}")).path().to_owned();
    let files = ["options.json", "config.json", "record.json"].map(|name| directory.join(name));
    let before = files.each_ref().map(|path| std::fs::read(path).unwrap());
    daemon.kill();
    // As a power cut leaves what was never synced.
    files.iter().for_each(|path| std::fs::write(path, "").unwrap());
    daemon.start_again();
    // But for the commit that wrote a copy, and the checksum over that.
    let row = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_owned()).unwrap();
        text.split_once("\"containers\":").map_or(text.clone(), |(_, row)| row.to_owned())
    };
    for (path, before) in files.iter().zip(&before) {
        assert_eq!(row(&std::fs::read(path).unwrap()), row(before), "{}", path.display());
    }
    daemon.kill();
    let found = fsck(&daemon, "");
    assert_eq!((found.status.code(), text(&found).as_str()), (Some(0), ""), "{found:?}");
    daemon.start_again();
}

#[test]
fn what_lies_on_a_disk_of_its_own_is_set_aside_there() {
    let size = Size { megabytes: 48, inodes: None };
    let mut daemon = Settings::new().disk_at("root/content", size).start();
    load(&daemon);
    daemon.kill();
    let layer = image().layers()[1].hex().to_owned();
    let content = daemon.place().root.join("content");
    let blob = content.join("blobs/sha256").join(&layer);
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&blob, &bytes).unwrap();
    let repaired = fsck(&daemon, "--repair");
    assert!(text(&repaired).contains(&layer), "{repaired:?}");
    assert!(!blob.exists(), "it is set aside");
    let aside: Vec<_> = std::fs::read_dir(content.join(".quarantine")).unwrap().flatten().collect();
    assert_eq!(aside.len(), 1);
    assert_eq!(std::fs::read(aside[0].path()).unwrap(), bytes);
    // It is nobody's orphan, and no finding.
    daemon.start_again();
    load(&daemon);
    daemon.kill();
    let found = fsck(&daemon, "");
    assert_eq!((found.status.code(), text(&found).as_str()), (Some(0), ""), "{found:?}");
    assert!(aside[0].path().exists());
    daemon.start_again();
    assert_eq!(daemon.ctl("run --rm --net none test/one:1").text(), "whole");
    daemon.ctl("rmi test/one:1").ok();
}

#[test]
fn a_layer_whose_tree_is_lost_is_unpacked_again() {
    let mut daemon = Daemon::start();
    load(&daemon);
    daemon.kill();
    let trees = daemon.place().root.join("snapshots/overlayfs");
    for entry in std::fs::read_dir(&trees).unwrap().flatten() {
        std::fs::remove_dir_all(entry.path().join("fs")).unwrap();
    }
    daemon.start_again();
    assert!(daemon.log().contains("the tree of a layer is missing"));
    assert_eq!(daemon.ctl("run --rm --net none test/one:1").text(), "whole");
    daemon.kill();
    // Their records too, together with the database.
    std::fs::remove_file(daemon.place().root.join("meta.db")).unwrap();
    for entry in std::fs::read_dir(&trees).unwrap().flatten() {
        std::fs::write(entry.path().join("snapshot.json"), "").unwrap();
    }
    daemon.start_again();
    assert_eq!(daemon.ctl("run --rm --net none test/one:1").text(), "whole");
}

#[test]
fn a_damaged_layer_is_named_set_aside_and_brought_again() {
    let mut daemon = Daemon::start();
    load(&daemon);
    daemon.kill();
    let image = image();
    let layer = image.layers()[1].hex().to_owned();
    let blob = daemon.place().root.join("content/blobs/sha256").join(&layer);
    let mut bytes = std::fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    for entry in std::fs::read_dir(daemon.place().root.join("snapshots/overlayfs")).unwrap() {
        std::fs::remove_dir_all(entry.unwrap().path().join("fs")).unwrap();
    }
    daemon.start_again();
    let failed = daemon.ctl("run --rm --net none test/one:1");
    assert_ne!(failed.code, Some(0));
    assert!(failed.stderr.contains(&layer), "{failed:?}");
    assert!(!blob.exists(), "it is set aside");
    load(&daemon);
    assert_eq!(daemon.ctl("run --rm --net none test/one:1").text(), "whole");
}

#[test]
fn fsck_names_what_is_damaged_and_repairs_it() {
    let mut daemon = Daemon::start();
    load(&daemon);
    let running = start_running(&daemon);
    start_ended(&daemon);
    let pid = daemon.pid().unwrap();
    let held = fsck(&daemon, "");
    assert_eq!(held.status.code(), Some(8));
    let said = String::from_utf8_lossy(&held.stderr).into_owned();
    assert!(said.contains("held by another bosund") && said.contains(&pid.to_string()), "{said}");
    let ended = daemon.inspect("ended", "{{.Id}}");
    daemon.kill();
    let clean = fsck(&daemon, "");
    assert_eq!((clean.status.code(), text(&clean).as_str()), (Some(0), ""), "{clean:?}");

    let directory = daemon.container_dir(&ended);
    let layer = image().layers()[1].hex().to_owned();
    let blob = daemon.place().root.join("content/blobs/sha256").join(&layer);
    let flip = |path: &Path| {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        std::fs::write(path, bytes).unwrap();
    };
    flip(&blob);
    flip(&directory.exit());
    flip(&directory.path().join("record.json"));
    flip(&directory.config());
    let log = directory.json_log(&ended);
    std::fs::write(&log, [std::fs::read(&log).unwrap(), vec![0; 100]].concat()).unwrap();
    let found = fsck(&daemon, "");
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    let lines = text(&found);
    for named in [&layer, "exit.json", "record.json", "config.json", "100 bytes", &ended] {
        assert!(lines.contains(named), "{named} is not named:\n{lines}");
    }
    assert_eq!(lines.lines().count(), 5, "{lines}");
    assert!(blob.exists(), "nothing is changed without being asked to");

    assert_eq!(fsck(&daemon, "--repair").status.code(), Some(1));
    assert!(!blob.exists() && !directory.exit().exists());
    let left = text(&fsck(&daemon, ""));
    assert!(left.contains("100 bytes") && left.lines().count() == 1, "{left}");
    daemon.start_again();
    assert_eq!(daemon.process("runs"), running);
    assert_eq!(daemon.inspect("ended", "{{.State.ExitCode}}"), "7");
    load(&daemon);
    expect_its_end(&daemon, running);
}

#[test]
fn fsck_tells_what_a_start_removes_from_what_nobody_knows() {
    let mut daemon = Settings::new().failpoint("daemon.delete.after_commit=panic").start();
    load(&daemon);
    start_ended(&daemon);
    let gone = daemon.container_dir(&daemon.inspect("ended", "{{.Id}}"));
    let _ = daemon.ctl("rm ended");
    assert!(daemon.ended_by_itself(Duration::from_secs(60)).is_some());
    let stranger = daemon.container_dir("stranger");
    std::fs::create_dir(stranger.path()).unwrap();
    let found = text(&fsck(&daemon, ""));
    for (directory, remedy) in [
        (&gone, "what a removal left: the next start of bosund removes it"),
        (&stranger, "nobody knows what it is of: remove it by hand"),
    ] {
        let name = directory.path().display().to_string();
        let line = found.lines().find(|line| line.contains(&name));
        assert!(line.is_some_and(|line| line.ends_with(remedy)), "{found}");
    }
    daemon.clear_environment();
    daemon.start_again();
    assert!(!gone.path().exists() && stranger.path().exists());
    std::fs::remove_dir(stranger.path()).unwrap();
}

#[test]
fn fsck_rebuilds_a_database_under_running_containers() {
    let mut daemon = Daemon::start();
    load(&daemon);
    let running = start_running(&daemon);
    start_ended(&daemon);
    let known = daemon.stored();
    daemon.kill();
    for way in ["lost", "whole"] {
        if way == "lost" {
            for name in ["meta.db", "meta.db-wal", "meta.db-shm", "meta.mark"] {
                let _ = std::fs::remove_file(daemon.place().root.join(name));
            }
        }
        let rebuilt = fsck(&daemon, "--rebuild");
        assert_eq!(rebuilt.status.code(), Some(1), "{rebuilt:?}");
        assert!(text(&rebuilt).contains("made anew"), "{rebuilt:?}");
        let clean = fsck(&daemon, "");
        assert_eq!((clean.status.code(), text(&clean).as_str()), (Some(0), ""), "{way}");
        daemon.start_again();
        assert_eq!(daemon.process("runs"), running, "{way}");
        assert_eq!(daemon.inspect("ended", "{{.State.ExitCode}}"), "7", "{way}");
        assert_eq!(daemon.stored(), known, "{way}");
        daemon.kill();
    }
    daemon.start_again();
    expect_its_end(&daemon, running);
}
