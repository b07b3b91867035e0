//! Standard streams of a running container: `run` in the foreground and `attach`.

use std::process::Stdio;

use integration::daemon::Daemon;
use rustix::process::Signal;

#[test]
fn input_goes_in_and_output_comes_out() {
    let daemon = Daemon::start();
    let output = daemon.client().feed("run --rm -i --net none --rootfs / /bin/cat", "one\ntwo\n");
    assert_eq!(output.text(), "one\ntwo");
}

#[test]
fn a_lot_of_input_arrives_whole() {
    let daemon = Daemon::start();
    let text: String = (0..60_000).map(|n| format!("{n:015}\n")).collect();
    let output =
        daemon.client().feed("run --rm -i --net none --rootfs / /usr/bin/sha256sum", &text);
    let file = daemon.scratch().join("input");
    std::fs::write(&file, &text).unwrap();
    let wanted = integration::netns::run(
        std::process::Command::new("sha256sum").stdin(std::fs::File::open(file).unwrap()),
    );
    assert_eq!(output.text(), wanted.trim_end());
}

#[test]
fn without_i_the_container_reads_nothing() {
    let daemon = Daemon::start();
    let output = daemon.client().feed("run --rm --net none --rootfs / /bin/cat", "not for it\n");
    assert_eq!(output.text(), "");
}

#[test]
fn run_keeps_the_streams_apart() {
    let daemon = Daemon::start();
    let output = daemon.ctl("run --rm --net none --rootfs / /bin/sh -c 'echo out; echo err >&2'");
    assert_eq!(output.stdout, "out\n");
    assert!(
        output.stderr.ends_with("err\n") && !output.stderr.contains("out"),
        "{}",
        output.stderr
    );
}

#[test]
fn no_output_is_lost_when_the_container_ends_at_once() {
    let daemon = Daemon::start();
    for _ in 0..10 {
        let output = daemon.ctl("run --rm --net none --rootfs / /usr/bin/seq 1 3000");
        assert_eq!(output.text().lines().count(), 3000);
    }
}

#[test]
fn signals_to_run_reach_the_container() {
    let daemon = Daemon::start();
    for (signal, name, code) in
        [(Signal::TERM, "TERM", 3), (Signal::INT, "INT", 4), (Signal::HUP, "HUP", 5)]
    {
        let script =
            format!("trap \"exit {code}\" {name}; echo ready; while :; do sleep 0.05; done");
        let client = daemon
            .client()
            .start(&format!("run --rm --net none --rootfs / /bin/sh -c '{script}'"), Stdio::null());
        client.expect("ready");
        client.signal(signal);
        client.finish().check(code);
    }
}

#[test]
fn signals_to_attach_reach_the_container() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sh -c 'trap \"exit 6\" TERM; while :; do echo tick; sleep 0.05; done'").ok();
    let client = daemon.ctl_start("attach one");
    client.expect("tick");
    client.signal(Signal::TERM);
    client.finish().check(6);
}

#[test]
fn several_clients_see_the_same_output() {
    let daemon = Daemon::start();
    daemon.ctl("run -d -i --name one --net none --rootfs / /bin/cat").ok();
    let mut first = daemon.ctl_start("attach one");
    let second = daemon.ctl_start("attach --no-stdin one");
    integration::wait::until("both clients to see a line", || {
        first.send("line\n");
        (first.stdout().contains("line") && second.stdout().contains("line")).then_some(())
    });
}

#[test]
fn a_client_that_goes_does_not_end_the_container() {
    let daemon = Daemon::start();
    daemon.ctl("run -d -i --name one --net none --rootfs / /bin/sh -c 'while :; do echo tick; sleep 0.05; done'").ok();
    let client = daemon.ctl_start("attach one");
    client.expect("tick");
    client.signal(Signal::KILL);
    assert_eq!(client.finish().code, None);
    assert_eq!(daemon.inspect("one", "{{.State.Running}}"), "true");
    daemon.ctl_start("attach one").expect("tick");
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up() {
    let daemon = Daemon::start();
    daemon.ctl("run -d -i --name one --net none --rootfs / /bin/sh -c 'read line; head -c 60000000 /dev/zero | tr \"\\000\" x; exit 3'").ok();
    let mut stuck = daemon.client().command("attach one");
    let mut stuck =
        stuck.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let _ = daemon.client().feed("attach one", "go\n");
    assert_eq!(daemon.ctl("wait one").waited(), "3");
    stuck.kill().unwrap();
    stuck.wait().unwrap();
}

#[test]
fn start_attached_ends_with_the_code_of_the_container() {
    let daemon = Daemon::start();
    daemon.ctl("create --name one --net none --rootfs / /bin/sh -c 'echo out; exit 8'").ok();
    let output = daemon.ctl("start -a one");
    output.check(8);
    assert_eq!(output.stdout, "out\n");
}

#[test]
fn attaching_to_what_does_not_run_is_refused() {
    let daemon = Daemon::start();
    daemon.ctl("create --name one --net none --rootfs / /bin/true").ok();
    daemon.ctl("attach one").fails(1, &["one", "not running"]);
}
