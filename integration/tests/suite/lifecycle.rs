//! create, start, stop, restart, kill, rm and wait.

use std::time::Instant;

use integration::daemon::Daemon;

const SLEEP: &str = "--net none --rootfs / /bin/sleep 600";
/// Ends with 7 on TERM, as a well-behaved server does.
const POLITE: &str = "--net none --rootfs / /bin/sh -c 'trap \"exit 7\" TERM; echo ready; while :; do sleep 0.05; done'";

#[test]
fn create_makes_a_container_that_does_not_run() {
    let daemon = Daemon::start();
    let id = daemon.ctl(&format!("create --name one {SLEEP}")).text();
    assert_eq!(
        daemon.inspect("one", "{{.Id}} {{.State.Status}} {{.State.Pid}}"),
        format!("{id} created 0")
    );
    assert_eq!(daemon.ctl("ps -q").text(), "");
    assert_eq!(daemon.ctl("ps -a -q --no-trunc").text(), id);
}

#[test]
fn start_runs_what_was_created() {
    let daemon = Daemon::start();
    daemon.ctl(&format!("create --name one {SLEEP}")).ok();
    assert_eq!(daemon.ctl("start one").text(), "one");
    assert_eq!(daemon.process("one").arguments(), ["/bin/sleep", "600"]);
}

#[test]
fn starting_a_running_container_changes_nothing() {
    let daemon = Daemon::start();
    daemon.ctl(&format!("run -d --name one {SLEEP}")).ok();
    let before = daemon.process("one");
    daemon.ctl("start one").ok();
    assert_eq!(daemon.process("one"), before);
}

#[test]
fn stop_lets_the_container_end_by_itself() {
    let daemon = Daemon::start();
    daemon.ctl(&format!("run -d --name one {POLITE}")).ok();
    daemon.until_logged("one", "ready");
    assert_eq!(daemon.ctl("stop one").text(), "one");
    assert_eq!(daemon.inspect("one", "{{.State.Status}} {{.State.ExitCode}}"), "exited 7");
}

#[test]
fn stop_kills_after_its_time_out() {
    let daemon = Daemon::start();
    let deaf = "--net none --rootfs / /bin/sh -c 'trap \"\" TERM; echo ready; while :; do sleep 0.05; done'";
    daemon.ctl(&format!("run -d --name one {deaf}")).ok();
    daemon.until_logged("one", "ready");
    let begin = Instant::now();
    daemon.ctl("stop -t 1 one").ok();
    assert!(begin.elapsed().as_millis() >= 1000, "{:?}", begin.elapsed());
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), "137");
}

#[test]
fn stop_uses_the_stop_signal_of_the_container() {
    let daemon = Daemon::start();
    let words = "run -d --name one --stop-signal USR1 --net none --rootfs / /bin/sh -c 'trap \"exit 9\" USR1; echo ready; while :; do sleep 0.05; done'";
    daemon.ctl(words).ok();
    daemon.until_logged("one", "ready");
    daemon.ctl("stop one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), "9");
}

#[test]
fn stopping_what_has_ended_is_no_error() {
    let daemon = Daemon::start();
    daemon.ctl("run --name one --net none --rootfs / /bin/true").ok();
    assert_eq!(daemon.ctl("stop one").text(), "one");
}

#[test]
fn restart_is_a_new_process_of_the_same_container() {
    let daemon = Daemon::start();
    let id = daemon.ctl(&format!("run -d --name one {SLEEP}")).text();
    let before = daemon.process("one");
    daemon.ctl("restart -t 0 one").ok();
    assert_ne!(daemon.process("one"), before);
    assert!(!before.lives());
    assert_eq!(daemon.inspect("one", "{{.Id}}"), id);
}

#[test]
fn what_was_written_survives_a_restart() {
    let daemon = Daemon::start();
    daemon.ctl("run --name one --net none --rootfs / /bin/sh -c 'cat /kept 2>/dev/null; echo first > /kept'").ok();
    daemon.ctl("start -a one").ok();
    assert_eq!(daemon.ctl("logs one").text(), "first");
}

#[test]
fn kill_sends_the_signal_that_was_named() {
    let daemon = Daemon::start();
    daemon.ctl(&format!("run -d --name one {POLITE}")).ok();
    daemon.until_logged("one", "ready");
    assert_eq!(daemon.ctl("kill -s TERM one").text(), "one");
    assert_eq!(daemon.ctl("wait one").waited(), "7");
}

#[test]
fn kill_without_a_signal_is_kill() {
    let daemon = Daemon::start();
    daemon.ctl(&format!("run -d --name one {SLEEP}")).ok();
    daemon.ctl("kill one").ok();
    assert_eq!(daemon.ctl("wait one").waited(), "137");
}

#[test]
fn killing_what_does_not_run_is_refused() {
    let daemon = Daemon::start();
    daemon.ctl("run --name one --net none --rootfs / /bin/true").ok();
    daemon.ctl("kill one").fails(1, &["one", "not running"]);
}

#[test]
fn a_running_container_is_not_removed_without_force() {
    let daemon = Daemon::start();
    daemon.ctl(&format!("run -d --name one {SLEEP}")).ok();
    daemon.ctl("rm one").fails(1, &["one", "running", "-f"]);
    assert_eq!(daemon.inspect("one", "{{.State.Running}}"), "true");
    assert_eq!(daemon.ctl("rm -f one").text(), "one");
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
}

#[test]
fn rm_goes_on_to_the_next_when_one_is_unknown() {
    let daemon = Daemon::start();
    daemon.ctl("create --name two --net none --rootfs / /bin/true").ok();
    let output = daemon.ctl("rm missing two");
    output.fails(1, &["missing"]);
    assert_eq!(output.stdout.trim(), "two");
}

#[test]
fn a_container_with_rm_is_gone_when_it_has_ended() {
    let daemon = Daemon::start();
    assert_eq!(daemon.ctl("run --rm --net none --rootfs / /bin/echo hello").text(), "hello");
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
    daemon.expect_nothing_left();
}

#[test]
fn a_detached_container_with_rm_is_gone_when_it_has_ended() {
    let daemon = Daemon::start();
    let id = daemon.ctl("run -d --rm --net none --rootfs / /bin/sleep 0.2").text();
    integration::wait::until("its removal", || {
        (daemon.ctl("ps -a -q --no-trunc").text() != id).then_some(())
    });
    daemon.expect_nothing_left();
}

#[test]
fn everyone_who_waits_is_told_the_same() {
    let daemon = Daemon::start();
    daemon.ctl("run -d -i --name one --net none --rootfs / /bin/sh -c 'read line; exit 5'").ok();
    let waiting: Vec<_> = (0..3).map(|_| daemon.ctl_start("wait one")).collect();
    daemon.client().feed("attach one", "go\n").check(5);
    for client in waiting {
        assert_eq!(client.finish().waited(), "5");
    }
    assert_eq!(daemon.ctl("wait one").waited(), "5");
}

#[test]
fn an_init_passes_signals_on_and_the_container_ends_by_them() {
    let daemon = Daemon::start();
    daemon.ctl(&format!("run -d --init --name one {SLEEP}")).ok();
    assert_ne!(daemon.process("one").arguments(), ["/bin/sleep", "600"]);
    daemon.ctl("stop one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), "143");
}

#[test]
fn an_init_reaps_orphans() {
    let daemon = Daemon::start();
    let orphan = "run --rm --init --net none --rootfs / /bin/sh -c '(sleep 0.1 & ) ; sleep 0.5; grep -l \"^State:.Z\" /proc/[0-9]*/status; true'";
    assert_eq!(daemon.ctl(orphan).text(), "");
}

#[test]
fn twenty_at_once_come_and_go() {
    let daemon = Daemon::start();
    let clients: Vec<_> = (0..20)
        .map(|n| daemon.ctl_start(&format!("run --rm --net none --rootfs / /bin/sh -c 'exit {n}'")))
        .collect();
    for (n, client) in clients.into_iter().enumerate() {
        client.finish().check(i32::try_from(n).unwrap());
    }
    daemon.expect_nothing_left();
}
