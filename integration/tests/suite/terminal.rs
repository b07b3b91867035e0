//! The client on a terminal: raw mode, window size, keys.

use integration::daemon::Daemon;
use integration::wait;

#[test]
fn a_shell_on_a_terminal() {
    let daemon = Daemon::start();
    let mut terminal = daemon.terminal("run -it --rm --net none --rootfs / /bin/sh");
    terminal.send("stty size; tty; echo $((40+2))\n");
    terminal.expect("24 80");
    terminal.expect("/dev/pts/0");
    terminal.expect("42");
    assert!(terminal.is_raw());
    terminal.send("exit 9\n");
    assert_eq!(terminal.finish().0, Some(9));
}

#[test]
fn the_window_size_is_followed() {
    let daemon = Daemon::start();
    let mut terminal = daemon.terminal("run -it --rm --net none --rootfs / /bin/sh");
    terminal.send("echo ready-$((1+1))\n");
    terminal.expect("ready-2");
    terminal.resize(132, 43);
    wait::until("the new size inside", || {
        terminal.send("stty size; echo asked-$((1+2))\n");
        terminal.expect("asked-3").contains("43 132").then_some(())
    });
    terminal.send("exit\n");
    terminal.finish();
}

#[test]
fn control_c_is_for_the_container() {
    let daemon = Daemon::start();
    let mut terminal = daemon.terminal("run -it --rm --net none --rootfs / /bin/sh -c 'trap \"echo caught; exit 21\" INT; echo ready; while :; do sleep 0.05; done'");
    terminal.expect("ready");
    terminal.send("\u{3}");
    terminal.expect("caught");
    assert_eq!(terminal.finish().0, Some(21));
}

#[test]
fn the_detach_keys_leave_the_container_running() {
    let daemon = Daemon::start();
    let mut terminal = daemon.terminal("run -it --name one --net none --rootfs / /bin/sh");
    terminal.send("echo ready-$((1+1))\n");
    terminal.expect("ready-2");
    terminal.send("\u{10}\u{11}");
    assert_eq!(terminal.finish().0, Some(0));
    assert_eq!(daemon.inspect("one", "{{.State.Running}}"), "true");

    let mut again = daemon.terminal("attach --detach-keys ctrl-x,q one");
    again.send("echo back-$((1+1))\n");
    again.expect("back-2");
    again.send("\u{18}q");
    again.finish();
    assert_eq!(daemon.inspect("one", "{{.State.Running}}"), "true");
}

#[test]
fn the_terminal_is_restored_when_the_daemon_dies() {
    let mut daemon = Daemon::start();
    let mut terminal = daemon.terminal("run -it --name one --net none --rootfs / /bin/sh");
    terminal.send("echo ready-$((1+1))\n");
    terminal.expect("ready-2");
    assert!(terminal.is_raw());
    daemon.kill();
    let (code, shown) = terminal.finish();
    assert_ne!(code, Some(0), "{shown}");
}

#[test]
fn the_terminal_is_restored_when_the_client_is_told_to_end() {
    let daemon = Daemon::start();
    let mut terminal = daemon.terminal("exec -it --detach-keys ctrl-x,q missing /bin/sh");
    terminal.expect("missing");
    terminal.finish();
    daemon.ctl("run -d -it --name one --net none --rootfs / /bin/sh").ok();
    let terminal = daemon.terminal("attach --sig-proxy=false one");
    wait::until_true("raw mode", || terminal.is_raw());
    let pid = rustix::process::Pid::from_raw(terminal.pid().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    terminal.finish();
}

#[test]
fn the_log_of_a_terminal_has_its_line_ends() {
    let daemon = Daemon::start();
    daemon.ctl("run -d -t --name one --net none --rootfs / /bin/echo hello").ok();
    daemon.until_status("one", "exited");
    assert_eq!(daemon.ctl("logs one").stdout, "hello\r\n");
}

#[test]
fn a_terminal_without_input_is_one_that_nobody_types_at() {
    let daemon = Daemon::start();
    daemon.ctl("run -d -t --name one --net none --rootfs / /bin/cat").ok();
    let tty = daemon.ctl("exec -t one /bin/sh -c 'tty; readlink /proc/1/fd/0'");
    let said = tty.text().replace('\r', "");
    assert!(
        said.lines().count() == 2 && said.lines().all(|line| line.starts_with("/dev/pts/")),
        "{said}"
    );
    daemon.ctl("rm -f one").ok();
}

#[test]
fn asking_for_a_terminal_without_one_is_an_error() {
    let daemon = Daemon::start();
    let output = daemon.ctl("run -it --rm --net none --rootfs / /bin/true");
    assert_ne!(output.code, Some(0));
    assert!(
        output.stderr.to_lowercase().contains("terminal")
            || output.stderr.to_lowercase().contains("tty"),
        "{}",
        output.stderr
    );
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
}
