//! What a container may cost, with room for another machine's noise above the goals.

use integration::daemon::{Daemon, program};
use integration::process::Process;
use integration::wait;

#[test]
fn the_shim_is_a_small_static_program() {
    let path = program("bosun-shim");
    let size = path.metadata().unwrap().len();
    assert!(size < 2_250_000, "{size} bytes");
    assert!(!wants_an_interpreter(&std::fs::read(&path).unwrap()));
}

#[test]
fn an_idle_shim_is_one_thread_and_little_memory() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one -p 5000:5000 --rootfs / /bin/sleep 600").ok();
    let shim = daemon.shim("one");
    assert_eq!(shim.threads(), 1);
    // Once it is idle it gives back what its start took.
    for (field, limit) in [("Private_Dirty", 150), ("Rss", 1300)] {
        wait::until(&format!("{field} of at most {limit} kB"), || {
            shim.memory(field).filter(|kilobytes| *kilobytes <= limit)
        });
    }
}

#[test]
fn an_idle_shim_sleeps() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    let shim = daemon.shim("one");
    let woken = |process: Process| process.status("voluntary_ctxt_switches");
    // Once it has settled, two looks half a second apart have to agree.
    wait::until("a shim that does not wake up", || {
        let before = woken(shim);
        std::thread::sleep(std::time::Duration::from_millis(500));
        (before.is_some() && woken(shim) == before).then_some(())
    });
}

#[test]
fn the_shim_does_not_grow_with_the_log() {
    let daemon = Daemon::start();
    daemon
        .ctl("run -d --name one --net none --rootfs / /bin/sh -c 'seq 1 1000000; sleep 600'")
        .ok();
    let shim = daemon.shim("one");
    let id = daemon.inspect("one", "{{.Id}}");
    let log = daemon.container_dir(&id).json_log(&id);
    wait::until("the last line", || {
        let file = std::fs::read(&log).ok()?;
        file.windows(9).rev().take(400).any(|window| window == b"\"1000000\\").then_some(())
    });
    let kilobytes = shim.memory("Rss").unwrap();
    assert!(kilobytes <= 4096, "{kilobytes} kB");
}

#[test]
fn the_daemon_is_small() {
    let daemon = Daemon::start();
    let bosund = Process(daemon.pid().unwrap());
    let own = bosund.memory("Anonymous").unwrap();
    assert!(own <= 6_000, "{own} kB of its own when idle");
    // The rest is pages of the program. How many are mapped is the page cache's doing: the same daemon had from 24
    // to 29 MB, least where its file was read from the disk and not just written.
    let kilobytes = bosund.memory("Rss").unwrap();
    assert!(kilobytes <= 32_000, "{kilobytes} kB when idle");
}

/// Has an ELF file (elf(5), 64 bits) a program header of the type `PT_INTERP`?
fn wants_an_interpreter(file: &[u8]) -> bool {
    let number = |at: usize, len: usize| {
        file[at..at + len].iter().rev().fold(0, |number, &byte| (number << 8) | usize::from(byte))
    };
    assert_eq!((&file[..4], file[4]), (&b"\x7fELF"[..], 2));
    let (start, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|index| number(start + index * size, 4) == 3)
}
