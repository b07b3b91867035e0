//! Memory, descriptors and threads: what a client or a container does costs the others nothing.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bosun_proto::v1;
use integration::daemon::Daemon;
use integration::process::Process;
use integration::wait;

/// What one of our processes has.
#[derive(Clone, Copy, Debug)]
struct Has {
    descriptors: usize,
    threads: usize,
    kilobytes: u64,
}

fn has(process: Process) -> Has {
    Has {
        descriptors: process.descriptors().len(),
        threads: process.threads(),
        kilobytes: process.memory("Private_Dirty").unwrap(),
    }
}

/// Waits until a process has no more than before; its memory may be a little more.
#[track_caller]
fn expect_as_before(what: &str, process: Process, before: Has, room: u64) {
    let settled = wait::within(Duration::from_secs(10), || {
        let now = has(process);
        (now.descriptors <= before.descriptors
            && now.threads <= before.threads + 1
            && now.kilobytes <= before.kilobytes + room)
            .then_some(())
    });
    assert!(settled.is_some(), "{what}: {:?} after {before:?}", has(process));
}

fn bosund(daemon: &Daemon) -> Process {
    Process(daemon.pid().unwrap())
}

/// CVE-2022-23471: thousands of new sizes of a terminal, by one call each and by the streams of clients
/// that go in the middle. Fails when the shim keeps something of each.
#[test]
fn sizes_of_a_terminal_cost_nothing() {
    let daemon = Daemon::start();
    daemon.ctl("run -d -t --name one --net none --rootfs / /bin/sleep 600").ok();
    let api = daemon.api();
    let resize = |count: u32| {
        api.wait(async {
            let mut io = api.io();
            for number in 0..count {
                let request = v1::ResizeRequest {
                    container: "one".to_owned(),
                    window: Some(v1::WindowSize { width: 80 + number % 20, height: 24 }),
                    ..v1::ResizeRequest::default()
                };
                io.resize(request).await.unwrap();
            }
        });
    };
    resize(100);
    let (daemons, shims) = (has(bosund(&daemon)), has(daemon.shim("one")));
    resize(3000);
    for _ in 0..5 {
        let terminal = daemon.terminal("attach one");
        for size in 0..100 {
            terminal.resize(80 + size % 20, 24);
        }
    }
    expect_as_before("bosund", bosund(&daemon), daemons, 5 * 1024);
    expect_as_before("the shim", daemon.shim("one"), shims, 64);
}

/// CVE-2025-64329: clients that attach and go away, and such that connect and say nothing. Fails when
/// the shim keeps the connection of each.
#[test]
fn clients_that_go_away_leave_nothing() {
    let daemon = Daemon::start();
    daemon.ctl("run -d -i --name one --net none --rootfs / /bin/sleep 600").ok();
    let id = daemon.inspect("one", "{{.Id}}");
    let shim = daemon.shim("one");
    let attach =
        shim.arguments().into_iter().skip_while(|word| word != "--socket-dir").nth(1).unwrap();
    let attach = std::path::Path::new(&attach).join("attach.sock");
    let api = daemon.api();
    let abort = |count: u32| {
        for _ in 0..count {
            api.wait(async {
                let open = v1::AttachOpen {
                    container: id.clone(),
                    stdin: true,
                    ..v1::AttachOpen::default()
                };
                let message = Some(v1::attach_request::Message::Open(open));
                let requests = tokio_stream::iter([v1::AttachRequest { message }]);
                drop(api.io().attach(requests).await.unwrap());
            });
            drop(UnixStream::connect(&attach).unwrap());
            drop(UnixStream::connect(daemon.socket()).unwrap());
        }
    };
    abort(20);
    let (daemons, shims) = (has(bosund(&daemon)), has(shim));
    abort(200);
    expect_as_before("bosund", bosund(&daemon), daemons, 4 * 1024);
    expect_as_before("the shim", shim, shims, 64);
}

/// CVE-2022-31030, CVE-2022-1708: output without end and a client that does not read.
#[test]
fn output_that_nobody_reads_is_held_nowhere() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    let shim = daemon.shim("one");
    let (daemons, shims) = (has(bosund(&daemon)), has(shim));
    let mut client = daemon
        .client()
        .command("exec one /bin/sh -c 'yes | head -c 10000000000'")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        let (daemon, shim) = (has(bosund(&daemon)), has(shim));
        assert!(daemon.kilobytes < daemons.kilobytes + 16 * 1024, "{daemon:?} after {daemons:?}");
        assert!(shim.kilobytes < shims.kilobytes + 2 * 1024, "{shim:?} after {shims:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    client.kill().unwrap();
    client.wait().unwrap();
    let state = daemon.place().state.clone();
    let size = integration::netns::run(std::process::Command::new("du").arg("-sk").arg(state));
    let size: u64 = size.split_whitespace().next().unwrap().parse().unwrap();
    assert!(size < 1024, "{size} kB in the state directory");
}

/// CVE-2018-20699: a range of all the processors that a number can name. Fails when it is counted
/// through.
#[test]
fn a_huge_range_of_processors_is_refused_at_once() {
    let daemon = Daemon::start();
    let memory = daemon.peak_memory();
    for range in ["0-4294967295", "0-999999999", "4294967295", "0-18446744073709551615"] {
        let begin = Instant::now();
        let words = format!("run --rm --cpuset-cpus {range} --net none --rootfs / /bin/true");
        daemon.ctl(&words).fails(125, &[range]);
        assert!(
            begin.elapsed() < wait::patiently(Duration::from_secs(2)),
            "{range}: {:?}",
            begin.elapsed()
        );
    }
    assert!(daemon.peak_memory() < memory + 8 * 1024, "{} kB", daemon.peak_memory());
}
