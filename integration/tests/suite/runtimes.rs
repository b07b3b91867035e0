//! Containers that a stock shim runs: Debian's `containerd-shim-runc-v2`, with runc and with crun.
//!
//! What users see is what they see of bosun's own; and nothing of the stock shim's is left, on the
//! host or anywhere, whoever dies.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use integration::archive::load;
use integration::daemon::{Daemon, Settings};
use integration::image::Recipe;
use integration::process::{Process, mount_points};
use integration::{http, wait};
use rustix::process::Signal;
use serde_json::json;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The stock shim of the one container that has one.
#[track_caller]
fn stock(daemon: &Daemon) -> Process {
    let found: Vec<Process> = Process::belonging(&daemon.place().prefix, daemon.scratch())
        .into_iter()
        .filter(|process| process.lives() && process.command().starts_with("containerd-shim"))
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

/// What is in the directory where stock shims put their sockets.
fn sockets() -> Vec<String> {
    let entries = std::fs::read_dir("/run/containerd/s").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn signal(process: Process, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(process.0.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn a_web_server_under_runc_lives_through_the_death_of_its_daemon() {
    let mut daemon = Daemon::start();
    let before = sockets();
    daemon
        .ctl("run -d -p 8000:8000 -t --name web --runtime runc --rootfs / /usr/bin/python3 -m http.server")
        .ok();
    let answers = |daemon: &Daemon| {
        wait::until("HTTP 200 through 127.0.0.1:8000", || {
            let answer = http::get(&daemon.netns().path(), LOCALHOST, 8000, "/").ok()?;
            (answer.status == 200).then_some(())
        });
    };
    answers(&daemon);
    assert_eq!(daemon.inspect("web", "{{.HostConfig.Runtime}}"), "runc");
    let (process, shim, stock_shim) = (daemon.process("web"), daemon.shim("web"), stock(&daemon));
    assert_eq!(process.parent(), Some(stock_shim), "the stock shim runs it");
    assert_ne!(shim.namespace("mnt"), Process(std::process::id()).namespace("mnt"));
    assert_eq!(shim.namespace("mnt"), stock_shim.namespace("mnt"));
    assert_eq!(sockets(), before, "its socket is nowhere on the host");
    let host = mount_points(Process(std::process::id()));
    let place = daemon.scratch().to_str().unwrap();
    assert!(!host.iter().any(|path| path.contains(place)), "{host:?}");
    assert!(shim.cgroups().values().any(|path| path.contains("-shims/")), "{:?}", shim.cgroups());
    assert_eq!(stock_shim.cgroups().get("pids"), shim.cgroups().get("pids"));

    daemon.kill();
    answers(&daemon);
    daemon.start_again();
    assert_eq!((daemon.process("web"), daemon.shim("web")), (process, shim));
    daemon.until_logged("web", "GET / HTTP/1");
    daemon.ctl("stop -t 1 web").ok();
    assert_eq!(daemon.inspect("web", "{{.State.ExitCode}}"), "137", "python is process 1");
    daemon.ctl("rm web").ok();
    daemon.expect_nothing_left();
    assert_eq!(sockets(), before);
}

#[test]
fn codes_and_streams_are_the_container_s() {
    let daemon = Daemon::start();
    let run = "run --rm --runtime runc --net none --rootfs /";
    let output = daemon.ctl(&format!("{run} /bin/sh -c 'echo out; echo err >&2; exit 7'"));
    output.check(7);
    assert_eq!(output.stdout, "out\n");
    assert!(output.stderr.ends_with("err\n"), "{}", output.stderr);
    daemon.ctl(&format!("{run} /no/such/program")).fails(127, &["/no/such/program"]);
    daemon.ctl(&format!("{run} /etc/passwd")).fails(126, &["permission denied"]);
    let text: String = (0..60_000).map(|n| format!("{n:015}\n")).collect();
    let counted = daemon.client().feed(&format!("{run} -i /usr/bin/wc -c"), &text);
    assert_eq!(counted.text(), text.len().to_string());
    for _ in 0..5 {
        let output = daemon.ctl(&format!("{run} /usr/bin/seq 1 30000"));
        assert_eq!(output.text().lines().count(), 30_000, "no output is lost");
    }
}

#[test]
fn a_shell_on_a_terminal() {
    let daemon = Daemon::start();
    let mut terminal = daemon.terminal("run -it --rm --runtime runc --net none --rootfs / /bin/sh");
    terminal.send("tty; echo $((40+2))\n");
    terminal.expect("/dev/pts/0");
    terminal.expect("42");
    terminal.resize(132, 43);
    wait::until("the new size inside", || {
        terminal.send("stty size; echo asked-$((1+2))\n");
        terminal.expect("asked-3").contains("43 132").then_some(())
    });
    terminal.send("exit 9\n");
    assert_eq!(terminal.finish().0, Some(9));
}

#[test]
fn further_processes() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --runtime runc --net none --rootfs / /bin/sleep 600").ok();
    let output = daemon.ctl("exec one /bin/sh -c 'echo out; echo err >&2; exit 5'");
    output.check(5);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(daemon.client().feed("exec -i one /bin/cat", "in\n").text(), "in");
    assert_eq!(
        daemon.ctl("exec -u nobody -w /tmp -e A=b one /bin/sh -c 'id -un; pwd; echo $A'").text(),
        "nobody\n/tmp\nb"
    );
    daemon.ctl("exec -u no-one-here one /bin/true").fails(125, &["no-one-here", "no such user"]);
    daemon.ctl("exec one /no/such/program").fails(127, &["/no/such/program"]);
    let mut terminal = daemon.terminal("exec -it one /bin/sh");
    terminal.send("stty size; tty; exit 3\n");
    terminal.expect("24 80");
    assert_eq!(terminal.finish().0, Some(3));
    // What it leaves running holds its streams; the answer does not wait for that.
    let begin = Instant::now();
    assert_eq!(daemon.ctl("exec one /bin/sh -c 'sleep 600 & echo started'").text(), "started");
    assert!(begin.elapsed() < wait::LIMIT, "{:?}", begin.elapsed());
    let bundle = daemon.run_dir(&daemon.api().get("one").id).bundle();
    let left: Vec<String> = std::fs::read_dir(bundle.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("std"))
        .collect();
    assert!(left.is_empty(), "no FIFO outlives its opening: {left:?}");
}

#[test]
fn signals_reach_it() {
    let daemon = Daemon::start();
    let script = "trap \"exit 3\" TERM; trap \"echo hup\" HUP; trap \"echo int\" INT; echo ready; while :; do sleep 0.05; done";
    daemon
        .ctl(&format!(
            "run -d --name one --runtime runc --net none --rootfs / /bin/sh -c '{script}'"
        ))
        .ok();
    daemon.until_logged("one", "ready");
    for (name, said) in [("HUP", "hup"), ("INT", "int")] {
        daemon.ctl(&format!("kill -s {name} one")).ok();
        daemon.until_logged("one", said);
    }
    daemon.ctl("stop one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), "3");
    daemon.ctl("start one").ok();
    daemon.ctl("kill one").ok();
    assert_eq!(daemon.ctl("wait one").waited(), "137");
    assert_eq!(daemon.inspect("one", "{{.HostConfig.Runtime}}"), "runc");
}

#[test]
fn logs_and_attach() {
    let daemon = Daemon::start();
    daemon
        .ctl("run -d -i --name one --runtime runc --net none --rootfs / /bin/sh -c 'echo begun; while read line; do echo \"got $line\"; done; exit 4'")
        .ok();
    daemon.until_logged("one", "begun");
    let mut client = daemon.client().start("attach one", Stdio::piped());
    client.send("word\n");
    client.expect("got word");
    assert_eq!(daemon.ctl("logs one").stdout, "begun\ngot word\n");
    client.close_input();
    assert_eq!(client.finish().code, Some(4));
}

#[test]
fn limits_volumes_and_capabilities() {
    let daemon = Daemon::start();
    let volume = daemon.scratch().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("file"), "on the host\n").unwrap();
    let shown = daemon.ctl(&format!(
        "run --rm --runtime runc --net none -h there -m 64m --pids-limit 50 -v {}:/mnt --read-only --rootfs / /bin/sh -c 'cat /mnt/file; echo back > /mnt/made; hostname; grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; ! touch /x 2>/dev/null && echo kept; grep nameserver /etc/resolv.conf | head -1; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true'",
        volume.display()
    ));
    let shown = shown.text();
    for expected in
        ["on the host", "there", "CapEff:\t00000000a80425fb", "Seccomp:\t2", "kept", "67108864"]
    {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
    assert_eq!(std::fs::read_to_string(volume.join("made")).unwrap(), "back\n");
}

#[test]
fn an_image_s_user_is_looked_up_in_it() {
    let config = json!({"User": "daemon:www-data", "Cmd": ["id"], "WorkingDir": "/srv"});
    let passwd = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:d:/home/d:/bin/sh\n";
    let group = "root:x:0:\nwww-data:x:33:\naudio:x:29:daemon\n";
    let files = [
        integration::tar::Entry::file("etc/passwd", passwd),
        integration::tar::Entry::file("etc/group", group),
    ];
    let daemon = Daemon::start();
    load(&daemon, &[("test/user:1", &Recipe::busybox().files(&files).config(config).image())]);
    let run = "run --rm --runtime runc --net none";
    let shown = daemon.ctl(&format!("{run} test/user:1")).text();
    assert!(shown.starts_with("uid=1(daemon) gid=33(www-data) groups=29(audio),33"), "{shown}");
    let shown = daemon.ctl(&format!("{run} test/user:1 sh -c 'echo $HOME; pwd'")).text();
    assert_eq!(shown, "/home/d\n/srv");
    daemon
        .ctl(&format!("{run} -u nobody-here test/user:1"))
        .fails(125, &["nobody-here", "no such user"]);
}

#[test]
fn a_killed_stock_shim_leaves_nothing_and_no_invented_code() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one -p 5000:5000 --runtime runc --rootfs / /bin/sh -c 'echo written; sleep 601 & sleep 600'").ok();
    daemon.until_logged("one", "written");
    let exec = daemon.ctl_start("exec one /bin/sh -c 'echo ready; sleep 602'");
    exec.expect("ready");
    let process = daemon.process("one");
    let waiting = daemon.ctl_start("wait one");
    stock(&daemon).kill();
    wait::until_true("the end of its process", || !process.lives());
    daemon.until_status("one", "exited");
    let exit = daemon.api().get("one").state.unwrap().exit.unwrap();
    assert!(exit.unknown && exit.reason == "ShimLost", "{exit:?}");
    let waited = waiting.finish();
    assert!(waited.stderr.contains("unknown: ShimLost"), "{waited:?}");
    assert_ne!(exec.finish().code, Some(0));
    assert_eq!(daemon.ctl("logs one").stdout, "written\n");
    wait::until_true("the end of all of it", || {
        !Process::belonging(&daemon.place().prefix, daemon.scratch())
            .into_iter()
            .any(|left| left.arguments().iter().any(|word| ["601", "602"].contains(&word.as_str())))
    });
    daemon.ctl("start one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.Status}}"), "running");
}

#[test]
fn a_killed_shim_takes_the_stock_shim_along() {
    let daemon = Daemon::start();
    let before = sockets();
    daemon.ctl("run -d --name one --runtime runc --net none --rootfs / /bin/sleep 600").ok();
    let (process, shim, stock_shim) = (daemon.process("one"), daemon.shim("one"), stock(&daemon));
    shim.kill();
    wait::until_true("their ends", || !process.lives() && !stock_shim.lives());
    daemon.until_status("one", "exited");
    let exit = daemon.api().get("one").state.unwrap().exit.unwrap();
    assert_eq!(exit.reason, "ShimLost", "{exit:?}");
    wait::until_true("the stock shim is reaped", || !stock_shim.path("stat").exists());
    daemon.ctl("start one").ok();
    daemon.ctl("rm -f one").ok();
    daemon.expect_nothing_left();
    assert_eq!(sockets(), before);
}

#[test]
fn what_died_while_no_daemon_looked() {
    let mut daemon = Daemon::start();
    for (name, code) in [("ended", 3), ("lost", 0)] {
        let script = format!("trap \"exit {code}\" USR1; echo ready; while :; do sleep 0.05; done");
        daemon
            .ctl(&format!(
                "run -d --name {name} --runtime runc --net none --rootfs / /bin/sh -c '{script}'"
            ))
            .ok();
        daemon.until_logged(name, "ready");
    }
    let (ended, lost, shim) =
        (daemon.process("ended"), daemon.process("lost"), daemon.shim("lost"));
    daemon.kill();
    signal(ended, Signal::USR1);
    wait::until_true("its end", || !ended.lives());
    shim.kill();
    wait::until_true("the shim's end", || !shim.lives());
    daemon.start_again();
    daemon.until_status("ended", "exited");
    assert_eq!(daemon.inspect("ended", "{{.State.ExitCode}}"), "3");
    wait::until_true("the end of what lost its shim", || !lost.lives());
    daemon.until_status("lost", "exited");
    assert_eq!(daemon.api().get("lost").state.unwrap().exit.unwrap().reason, "ShimLost");
    for name in ["ended", "lost"] {
        daemon.ctl(&format!("start {name}")).ok();
    }
}

#[test]
fn crun_does_it_too() {
    // crun refuses a hybrid machine whose unified hierarchy has a controller: this daemon sees none.
    let daemon = Settings::new().without("/sys/fs/cgroup/unified").start();
    daemon.ctl("run --rm --runtime crun --net none --rootfs / /bin/sh -c 'exit 6'").check(6);
    daemon
        .ctl("run -d --name one --runtime crun --rootfs / /bin/sh -c 'echo begun; sleep 600'")
        .ok();
    daemon.until_logged("one", "begun");
    assert_eq!(daemon.inspect("one", "{{.HostConfig.Runtime}}"), "crun");
    assert_eq!(daemon.ctl("exec -u nobody one /usr/bin/id -un").text(), "nobody");
    let mut terminal = daemon.terminal("exec -it one /bin/sh");
    terminal.send("stty size; exit 3\n");
    terminal.expect("24 80");
    assert_eq!(terminal.finish().0, Some(3));
    daemon.ctl("stop -t 0 one").ok();
    assert_eq!(daemon.inspect("one", "{{.State.ExitCode}}"), "137");
}

#[test]
fn a_runtime_by_its_type_or_by_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let text = "[runtimes.mine]\ntype = \"io.containerd.runc.v2\"\nbinary = \"/usr/sbin/runc\"\n\
                no-new-keyring = true\n[runtimes.ours]\ntype = \"bosun\"\n";
    std::fs::write(&file, text).unwrap();
    let daemon = Settings::new().arguments(&format!("--config {}", file.display())).start();
    for name in ["mine", "io.containerd.runc.v2", "bosun", "ours"] {
        let run = format!("run --rm --runtime {name} --net none --rootfs / /bin/echo {name}");
        assert_eq!(daemon.ctl(&run).text(), name);
    }
    daemon.ctl("run -d --name own --runtime ours --net none --rootfs / /bin/sleep 600").ok();
    assert_eq!(daemon.ctl("exec own /usr/bin/id -un").text(), "root");
}

#[test]
fn a_container_of_a_pod_may_be_runc_s() {
    let daemon = Daemon::start();
    daemon.ctl("pod create web").ok();
    daemon.ctl("run -d --name one --pod web --runtime runc --rootfs / /bin/sleep 600").ok();
    daemon.ctl("run -d --name two --pod web --rootfs / /bin/sleep 600").ok();
    for kind in ["net", "ipc", "uts"] {
        let of = |name: &str| daemon.process(name).namespace(kind);
        assert_eq!(of("one"), of("two"), "{kind}");
    }
    daemon.ctl("pod rm -f web").ok();
    daemon.expect_nothing_left();
}

#[test]
fn what_can_not_be_is_refused_before_anything_is_made() {
    let daemon = Daemon::start();
    let run = |words: &str| daemon.ctl(&format!("run --rm {words} --rootfs / /bin/true"));
    run("--runtime nope").fails(125, &["runtime \"nope\"", "none of that name", "bosun", "runc"]);
    run("--runtime io.containerd.nope.v1")
        .fails(125, &["containerd-shim-nope-v1 is not installed", "crun"]);
    run("--runtime ../../bin/sh").fails(125, &["none of that name"]);
    run("--runtime runc --init").fails(125, &["--init", "bosun's own runtime"]);
    let volume = daemon.scratch().join("v");
    std::fs::create_dir(&volume).unwrap();
    run(&format!("--runtime runc -v {}:/mnt:rshared", volume.display()))
        .fails(125, &["rshared", "bosun's own runtime"]);
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
    daemon.expect_nothing_left();
}

#[test]
fn a_stock_shim_that_does_not_start_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("containerd-shim-broken-v2");
    let script = "#!/bin/sh\necho \"no hypervisor here\" >&2\nexit 1\n";
    integration::executable::write(&program, script);
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let daemon = Settings::new().variable("PATH", &path).start();
    daemon
        .ctl("run --rm --runtime io.containerd.broken.v2 --rootfs / /bin/true")
        .fails(125, &["containerd-shim-broken-v2", "no hypervisor here"]);
    assert_eq!(daemon.ctl("ps -a -q").text(), "");
    daemon.expect_nothing_left();
    assert!(!Path::new("/run/containerd/s/broken").exists());
}
