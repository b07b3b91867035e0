//! The log under stress: floods, rotation, a full disk, files that are moved away.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use shim_wire::attach::Hello;
use shim_wire::plan::LogFormat;
use shim_wire::task::Empty;
use support::{SHIM, TestShim, binary, eventually, may_run, read_json_log};

/// The numbers from 1, one a line, on both streams.
fn count_to(last: u32) -> String {
    format!("seq 1 {last} & seq 1 {last} >&2 & wait")
}

fn assert_counted(text: &str, last: u32) {
    let mut lines = text.lines();
    for number in 1..=last {
        assert_eq!(lines.next().map(str::parse), Some(Ok(number)));
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn a_flood_is_logged_to_the_byte_in_json() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("flood");
    let mut client = shim.connect();
    shim.run_shell(&mut client, &count_to(300_000));
    client.wait("").unwrap();
    for stream in ["stdout", "stderr"] {
        assert_counted(&shim.logged(stream), 300_000);
    }
    shim.release(&mut client);
}

#[test]
fn a_flood_is_logged_to_the_byte_in_the_cri_format() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("cri");
    shim.options.log.as_mut().unwrap().format = LogFormat::Cri as i32;
    let mut client = shim.connect();
    let script = "seq 1 200000; head -c 40000 /dev/zero | tr '\\0' y; printf '\\nend'";
    shim.run_shell(&mut client, script);
    client.wait("").unwrap();
    let text = fs::read_to_string(shim.log_path()).unwrap();
    assert!(text.ends_with('\n'));
    let mut output = String::new();
    for line in text.lines() {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.len() == 30 && time.ends_with('Z'), "{line}");
        match rest.split_at("stdout F ".len()) {
            ("stdout F ", text) => output.extend([text, "\n"]),
            ("stdout P ", text) => output.push_str(text),
            other => panic!("{other:?}"),
        }
    }
    let (numbers, long) = output.split_at(output.find('y').unwrap());
    assert_counted(numbers, 200_000);
    assert_eq!(long, format!("{}\nend\n", "y".repeat(40_000)));
    shim.release(&mut client);
}

#[test]
fn what_is_no_text_is_still_a_record() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("bytes");
    let mut client = shim.connect();
    let script = r#"printf 'a\000b\377c\n"quoted" \\back\\ \033[1m\303\251\n'"#;
    shim.run_shell(&mut client, script);
    client.wait("").unwrap();
    let expected = "a\0b\u{fffd}c\n\"quoted\" \\back\\ \u{1b}[1mé\n";
    assert_eq!(shim.logged("stdout"), expected);
    shim.release(&mut client);
}

#[test]
fn without_a_log_there_is_no_file() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("nolog");
    shim.options.log.as_mut().unwrap().format = LogFormat::None as i32;
    let mut client = shim.connect();
    shim.run_shell(&mut client, "seq 1 1000");
    assert_eq!(client.wait("").unwrap(), 0);
    assert!(!shim.log_path().exists());
    shim.release(&mut client);
}

fn rotated(path: &Path, number: u32) -> PathBuf {
    PathBuf::from(format!("{}.{number}", path.display()))
}

#[test]
fn rotation_loses_and_doubles_nothing() {
    if !may_run() {
        return;
    }
    const MAX_SIZE: u64 = 100_000;
    let mut shim = TestShim::start("rotate");
    let log = shim.options.log.as_mut().unwrap();
    (log.max_size, log.max_files) = (MAX_SIZE, 1000);
    let mut client = shim.connect();
    shim.run_shell(&mut client, &count_to(30_000));
    client.wait("").unwrap();
    let path = shim.log_path();
    let files = (1..1000).take_while(|number| rotated(&path, *number).exists()).count();
    assert!(files >= 40, "{files} files");
    let mut text = String::new();
    for number in (1..=u32::try_from(files).unwrap()).rev() {
        let file = rotated(&path, number);
        assert!(fs::metadata(&file).unwrap().len() <= MAX_SIZE);
        for record in read_json_log(&file) {
            if record.stream == "stdout" {
                text.push_str(&record.log);
            }
        }
    }
    text.push_str(&shim.logged("stdout"));
    assert_counted(&text, 30_000);
    shim.release(&mut client);
}

#[test]
fn rotation_keeps_as_many_files_as_it_is_told() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("keep");
    let log = shim.options.log.as_mut().unwrap();
    (log.max_size, log.max_files) = (10_000, 3);
    let mut client = shim.connect();
    shim.run_shell(&mut client, "seq 1 5000");
    client.wait("").unwrap();
    let names = fs::read_dir(shim.container.path()).unwrap();
    let logs = names.filter(|entry| {
        entry.as_ref().unwrap().file_name().to_str().unwrap().contains("-json.log")
    });
    assert_eq!(logs.count(), 3);
    assert!(shim.logged("stdout").ends_with("5000\n"));
    shim.release(&mut client);
}

#[test]
fn a_log_that_is_moved_away_under_a_flood_loses_nothing() {
    if !may_run() {
        return;
    }
    let mut shim = TestShim::start("moved");
    let mut client = shim.connect();
    let script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; done; sleep 0.3; echo 3001";
    shim.run_shell(&mut client, script);
    let path = shim.log_path();
    let mut moved = Vec::new();
    for number in 0..5 {
        eventually("there is a log to move", || path.exists());
        let to = shim.container.path().join(format!("moved-{number}"));
        fs::rename(&path, &to).unwrap();
        moved.push(to);
        match number {
            // One is noticed without being told.
            2 => std::thread::sleep(std::time::Duration::from_millis(150)),
            _ => drop(client.call::<Empty>(SHIM, "ReopenLog", &Empty {}).unwrap()),
        }
    }
    client.wait("").unwrap();
    moved.push(path);
    let texts = moved.iter().flat_map(|file| read_json_log(file)).map(|record| record.log);
    assert_counted(&texts.collect::<String>(), 3001);
    shim.release(&mut client);
}

/// A file system of its own, as small as it is asked for.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn new(size: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "shim-test"])
            .arg(directory.path())
            .status()
            .unwrap();
        assert!(mounted.success());
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

#[test]
fn a_full_disk_costs_counted_bytes_and_never_the_exit() {
    if !may_run() {
        return;
    }
    let disk = Tmpfs::new("256k");
    let mut shim = TestShim::start("full");
    let log = shim.options.log.as_mut().unwrap();
    log.path = disk.path().join("log").to_str().unwrap().to_owned();
    let mut client = shim.connect();
    shim.options.stdin = true;
    shim.run_shell(&mut client, "seq 1 20000; read go; seq 20001 20010; exit 9");
    let mut gate = shim.attach().hello(&Hello { stdin: true, no_output: true, ..Hello::default() });
    eventually("bytes are lost", || client.status().log_bytes_lost > 0);
    let before = read_json_log(&disk.path().join("log"));
    let kept: String = before.iter().map(|record| record.log.as_str()).collect();
    let last = u32::try_from(before.len()).unwrap();
    assert_counted(&kept, last);
    // Its own room back: what was logged is somebody else's to keep.
    fs::write(disk.path().join("log"), "").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    gate.type_in(b"\n");
    assert_eq!(client.wait("").unwrap(), 9);
    let lost = client.status().log_bytes_lost;
    let after = read_json_log(&disk.path().join("log"));
    assert!(after[0].log.contains(&format!("{lost} bytes of output are missing")), "{after:?}");
    assert_eq!(after[0].stream, "stderr");
    let rest: String = after[1..].iter().map(|record| record.log.as_str()).collect();
    let everything = |from, to| (from..=to).map(|n: u32| format!("{n}\n")).collect::<String>();
    let tail = everything(last + 1, 20_010);
    assert_eq!(tail.len(), usize::try_from(lost).unwrap() + rest.len());
    assert!(tail.ends_with(&rest));
    shim.release(&mut client);
}

/// A daemon that was started with limits hands them down. What its container writes is held to them, as the kernel
/// has it: by a signal that ends who does not expect it.
#[test]
fn a_limit_of_the_size_of_files_costs_counted_bytes_and_nobody_of_cpu_time() {
    if !may_run() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("limited");
    let limits = "--fsize=200000 --cpu=3600:7200";
    let script = format!("#!/bin/sh\nexec prlimit {limits} {} \"$@\"\n", binary().display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut shim = TestShim::start_binary(&program, "fsize", directory, &[]);
    let mut client = shim.connect();
    let script = "seq 1 20000; exec 2> /dev/null; head -c 300000 /dev/zero > /tmp/large; exit $?";
    shim.run_shell(&mut client, script);
    let killed_by_sigxfsz = 128 + 25;
    assert_eq!(client.wait("").unwrap(), killed_by_sigxfsz);
    let kept = shim.logged("stdout");
    let last = u32::try_from(kept.lines().count()).unwrap();
    assert_counted(&kept, last);
    let lost: usize = (last + 1..=20_000).map(|number| number.to_string().len() + 1).sum();
    assert!(lost > 0, "the log is below the limit");
    assert_eq!(usize::try_from(client.status().log_bytes_lost), Ok(lost));
    let limits = fs::read_to_string(format!("/proc/{}/limits", shim.pid())).unwrap();
    let cpu = limits.lines().find(|line| line.starts_with("Max cpu time")).unwrap();
    // Where it may not have more, as far as it may.
    let lifted = cpu.matches("unlimited").count() == 2 || cpu.matches("7200").count() == 2;
    assert!(lifted, "{cpu}");
    shim.release(&mut client);
}

#[test]
fn a_container_directory_without_room_refuses_the_create() {
    if !may_run() {
        return;
    }
    let disk = Tmpfs::new("64k");
    let shim = TestShim::start("noroom");
    let mut client = shim.connect();
    client.status();
    let mounted = Command::new("mount")
        .args(["--bind".as_ref(), disk.path().as_os_str(), shim.container.path().as_os_str()])
        .status()
        .unwrap();
    assert!(mounted.success());
    let _ = fs::write(shim.container.path().join("filler"), vec![0; 100_000]);
    let failure = shim.create(&mut client, &shim.shell("true")).unwrap_err();
    let _ = Command::new("umount").arg(shim.container.path()).status();
    assert_eq!(failure.code, shim_wire::ttrpc::Code::ResourceExhausted, "{}", failure.message);
}
