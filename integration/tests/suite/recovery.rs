//! What a new daemon finds of an old one's containers.

use std::time::{Duration, Instant};

use integration::daemon::Daemon;
use integration::wait::{self, patiently};

#[test]
fn what_runs_goes_on_running() {
    let mut daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    let begin = Instant::now();
    let before = (daemon.process("one"), daemon.process("one").start_time(), daemon.shim("one"));
    let running_for = |daemon: &Daemon| {
        let state = daemon.api().get("one").state.unwrap();
        Duration::try_from(state.running_for.expect("it runs")).unwrap()
    };
    let up = running_for(&daemon);
    assert!(up < patiently(Duration::from_secs(20)), "{up:?}");
    for _ in 0..3 {
        daemon.kill();
        daemon.start_again();
        assert_eq!(
            (daemon.process("one"), daemon.process("one").start_time(), daemon.shim("one")),
            before
        );
        // Of a clock that counts in hundredths.
        let (passed, up) = (begin.elapsed(), running_for(&daemon));
        assert!(up + Duration::from_millis(10) >= passed, "{up:?} of {passed:?}");
        assert!(up < passed + patiently(Duration::from_secs(20)), "{up:?} of {passed:?}");
    }
    daemon.ctl("stop -t 0 one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), "137");
}

#[test]
fn what_ended_meanwhile_has_its_own_code_time_and_output() {
    let mut daemon = Daemon::start();
    for code in [0, 3, 42] {
        let script = format!(
            "trap : USR1; echo ready; sleep 600 & wait; printf \"said {code}\"; exit {code}"
        );
        daemon
            .ctl(&format!("run -d --name c{code} --net none --rootfs / /bin/sh -c '{script}'"))
            .ok();
        daemon.until_logged(&format!("c{code}"), "ready");
    }
    let processes = [0, 3, 42].map(|code| daemon.process(&format!("c{code}")));
    daemon.kill();
    for process in processes {
        let pid = rustix::process::Pid::from_raw(process.0.try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    }
    wait::until_true("their ends", || processes.iter().all(|process| !process.lives()));
    daemon.start_again();
    for code in [0, 3, 42] {
        daemon.until_status(&format!("c{code}"), "exited");
        assert_eq!(daemon.inspect(&format!("c{code}"), "{{.State.ExitCode}}"), code.to_string());
        assert!(daemon.ctl(&format!("logs c{code}")).stdout.ends_with(&format!("said {code}")));
    }
}

#[test]
fn a_wait_can_be_asked_again_after_the_daemon_died() {
    let mut daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    let waiting = daemon.ctl_start("wait one");
    daemon.kill();
    assert_ne!(waiting.finish().code, Some(0), "it is not told an invented code");
    daemon.start_again();
    let waiting = daemon.ctl_start("wait one");
    daemon.ctl("kill one").ok();
    assert_eq!(waiting.finish().waited(), "137");
}

#[test]
fn what_was_created_can_be_started_by_the_next_daemon() {
    let mut daemon = Daemon::start();
    daemon.ctl("create --name one --net none --rootfs / /bin/sh -c 'exit 4'").ok();
    daemon.kill();
    daemon.start_again();
    daemon.ctl("start one").ok();
    assert_eq!(daemon.ctl("wait one").waited(), "4");
}

#[test]
fn with_rm_it_is_removed_by_the_next_daemon() {
    let mut daemon = Daemon::start();
    daemon.ctl("run -d --rm --name one --net none --rootfs / /bin/sleep 600").ok();
    let process = daemon.process("one");
    daemon.kill();
    process.kill();
    wait::until_true("its end", || !process.lives());
    daemon.start_again();
    wait::until("its removal", || daemon.ctl("ps -a -q").text().is_empty().then_some(()));
    daemon.expect_nothing_left();
}

#[test]
fn execs_of_the_past_do_not_stand_in_the_way() {
    let mut daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    let client = daemon.ctl_start("exec one /bin/sh -c 'echo ready; sleep 600'");
    client.expect("ready");
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.ctl("exec one /bin/echo new").text(), "new");
}

#[test]
fn an_exec_of_the_past_is_told_and_forgotten_at_its_end() {
    let mut daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    let waits = "exec -d one /bin/sh -c 'until test -e /go; do sleep 0.05; done; exit 7'";
    daemon.ctl(waits).ok();
    daemon.kill();
    daemon.start_again();
    daemon.ctl("exec one /bin/touch /go").ok();
    let died = |code: &str| {
        let events = daemon.ctl("events --since 1h --until 0s").text();
        events
            .lines()
            .any(|line| line.contains("exec_die") && line.contains(&format!("exitCode={code}")))
    };
    wait::until_true("its end", || died("7"));
}

#[test]
fn addresses_and_ports_stay_with_their_containers() {
    let mut daemon = Daemon::start();
    daemon.ctl("run -d --name one -p 5000:5000 --rootfs / /bin/sleep 600").ok();
    let before = daemon.api().get("one").network;
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.api().get("one").network, before);
    daemon.ctl("run -d --name two --rootfs / /bin/sleep 600").ok();
    assert_ne!(daemon.api().get("two").network.unwrap().address, before.unwrap().address);
    daemon
        .ctl("run -d --name three -p 5000:5000 --rootfs / /bin/sleep 600")
        .fails(125, &["5000", "one"]);
}

#[test]
fn the_network_of_what_ended_meanwhile_is_freed() {
    let mut daemon = Daemon::start();
    daemon.ctl("run -d --name one -p 5000:5000 --rootfs / /bin/sleep 600").ok();
    let process = daemon.process("one");
    daemon.kill();
    process.kill();
    wait::until_true("its end", || !process.lives());
    daemon.start_again();
    daemon.until_status("one", "exited");
    daemon.ctl("run -d --name two -p 5000:5000 --rootfs / /bin/sleep 600").ok();
}

#[test]
fn a_damaged_record_does_not_stop_the_daemon() {
    let mut daemon = Daemon::start();
    daemon.ctl("run --name one --net none --rootfs / /bin/true").ok();
    daemon.ctl("create --name two --net none --rootfs / /bin/true").ok();
    let id = daemon.inspect("one", "{{.Id}}");
    daemon.kill();
    for file in [daemon.container_dir(&id).config(), daemon.container_dir(&id).options()] {
        std::fs::write(file, "{").unwrap();
    }
    daemon.start_again();
    assert_eq!(daemon.ctl("ps -a -q").text().lines().count(), 2);
    daemon.ctl("rm -f one").ok();
}

#[test]
fn a_kill_in_the_middle_of_a_burst_leaves_one_truth() {
    let mut daemon = Daemon::start();
    let clients: Vec<_> = (0..12)
        .map(|n| {
            daemon.ctl_start(&format!("run -d --name c{n} --net none --rootfs / /bin/sleep 600"))
        })
        .collect();
    wait::until_true("some to be made", || daemon.ctl("ps -q").stdout.lines().count() >= 3);
    daemon.kill();
    for client in clients {
        client.finish();
    }
    daemon.start_again();
    let shims = || {
        integration::process::Process::all()
            .into_iter()
            .filter(|process| {
                process.command() == "bosun-shim"
                    && process
                        .arguments()
                        .iter()
                        .any(|word| word.contains(&*daemon.place().state.to_string_lossy()))
            })
            .count()
    };
    wait::until("as many shims as running containers", || {
        let running = daemon.ctl("ps -q").text().lines().count();
        (running == shims()).then_some(())
    });
    for line in daemon.ctl("ps -a --format '{{.Names}} {{.State}}'").text().lines() {
        let (name, state) = line.split_once(' ').unwrap();
        assert!(matches!(state, "running" | "created" | "exited"), "{line}");
        if state == "running" {
            assert_eq!(daemon.process(name).arguments(), ["/bin/sleep", "600"]);
        }
    }
}

/// The note of a removal may be on a disk that has the directory still, when the power fails.
#[test]
fn a_directory_of_a_container_that_was_removed_goes_at_the_next_start() {
    let mut daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    let id = daemon.api().get("one").id;
    let directory = daemon.container_dir(&id).path().to_owned();
    daemon.ctl("rm -f one").ok();
    wait::until_true("the directory's end", || !directory.exists());
    daemon.terminate();
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("options.json"), "{}").unwrap();
    let other = directory.with_file_name("f".repeat(64));
    std::fs::create_dir(&other).unwrap();
    daemon.start_again();
    assert!(!directory.exists());
    assert!(other.exists(), "nobody knows what that is");
    std::fs::remove_dir(other).unwrap();
}
