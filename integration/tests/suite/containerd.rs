//! Debian's containerd drives bosun's shim, and `ctr` drives containerd: nothing of bosun's own but
//! the shim and its helper is in these tests.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use integration::containerd::Containerd;
use integration::daemon::program;
use integration::executable;
use integration::process::{Process, mount_points};
use integration::wait;
use prost::Message;
use shim_wire::containerd::{BootstrapParams, BootstrapResult};
use shim_wire::task::{Any, UpdateTaskRequest};

#[test]
fn a_run_prints_and_ends_with_the_exit_code() {
    let containerd = Containerd::start();
    let output = containerd.run("one sh -c 'echo out; echo err >&2; exit 42'");
    output.check(42);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    containerd.expect_nothing_left();
}

#[test]
fn every_byte_arrives_and_standard_input_reaches_the_container() {
    let containerd = Containerd::start();
    let output = containerd.run("flood seq 200000");
    assert_eq!(output.text().lines().count(), 200_000);
    assert!(output.stdout.ends_with("\n200000\n"));
    let text = "a line\n".repeat(200_000);
    for round in 0..5 {
        let output = containerd.ctr_fed(&containerd.run_words("--rm", "cat cat"), &text);
        assert!(output.stdout == text, "{round}: {} bytes came back", output.stdout.len());
    }
    containerd.expect_nothing_left();
}

/// The process ends with more in its pipe than its client has taken.
#[test]
fn what_waits_for_a_slow_client_when_the_process_ends_is_not_lost() {
    let containerd = Containerd::start();
    for round in 0..10 {
        let output = containerd.run(&format!("flood{round} head -c 1400000 /dev/zero"));
        output.check(0);
        assert_eq!(output.stdout.len(), 1_400_000, "{round}");
    }
    containerd.expect_nothing_left();
}

#[test]
fn a_terminal_has_a_size_and_a_controlling_process() {
    let containerd = Containerd::start();
    let mut terminal = containerd.terminal(&containerd.run_words("--rm -t", "tty sh"));
    terminal.expect("# ");
    terminal.send("tty; echo $((6*7))\n");
    let said = terminal.expect("42");
    assert!(said.contains("/dev/pts/0"), "{said}");
    // ctr sets the size when the process runs already.
    let until = |size: &str| {
        format!("until [ \"$(stty size)\" = '{size}' ]; do sleep 0.1; done; echo si''zed {size}\n")
    };
    terminal.send(&until("24 80"));
    terminal.expect("sized 24 80");
    terminal.resize(100, 30);
    terminal.send(&until("30 100"));
    terminal.expect("sized 30 100");
    terminal.send("exit 3\n");
    let (code, seen) = terminal.finish();
    assert_eq!(code, Some(3), "{seen}");
    containerd.expect_nothing_left();
}

#[test]
fn execs_have_streams_codes_and_terminals_of_their_own() {
    let containerd = Containerd::start();
    containerd.run_detached("host sleep 1000");
    let exec = |flags: &str, command: &str| containerd.exec_words(flags, command);
    let output =
        containerd.ctr(&exec("--exec-id a", "host sh -c 'echo out; echo err >&2; exit 7'"));
    output.check(7);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    let output = containerd.ctr_fed(&exec("--exec-id b", "host cat"), "fed\n");
    assert_eq!(output.text(), "fed");
    let mut terminal = containerd.terminal(&exec("-t --exec-id c", "host sh"));
    terminal.expect("# ");
    terminal.send("tty; exit 5\n");
    assert_eq!(terminal.finish().0, Some(5));
    containerd.ctr(&exec("-d --exec-id d", "host sleep 1000")).ok();
    let list = containerd.ctr("task ps host").text();
    assert!(list.lines().any(|line| line.contains("ExecID:d")), "{list}");
    let pids = list.lines().skip(1).count();
    assert_eq!(pids, 2, "{list}");
    containerd.remove("host");
    containerd.expect_nothing_left();
}

#[test]
fn an_exec_of_what_is_not_there_fails_by_name() {
    let containerd = Containerd::start();
    containerd.run_detached("host sleep 1000");
    let output = containerd.ctr(&containerd.exec_words("--exec-id a", "host no-such-program"));
    output.fails(1, &["no-such-program"]);
    let output = containerd.ctr(&containerd.exec_words("--exec-id b --cwd /nowhere", "host true"));
    assert_ne!(output.code, None);
    assert_eq!(containerd.ctr(&containerd.exec_words("--exec-id c", "host echo on")).text(), "on");
    containerd.remove("host");
    containerd.expect_nothing_left();
}

#[test]
fn a_detached_container_is_attached_to_and_left_again() {
    let containerd = Containerd::start();
    let script = "i=0; while read word && [ $word != end ]; do i=$((i+1)); echo $i $word; done; \
                  echo ended; exit 4";
    let mut run =
        containerd.ctr_start(&containerd.run_words("", &format!("echo sh -c '{script}'")));
    run.send("first\n");
    run.expect("1 first");
    // Its client goes, and is nobody's end.
    drop(run);
    let mut attach = containerd.ctr_start("task attach echo");
    attach.send("second\n");
    attach.expect("2 second");
    attach.send("end\n");
    let output = attach.finish();
    assert!(output.stdout.ends_with("ended\n"), "{output:?}");
    output.check(4);
    containerd.ctr("containers rm echo").ok();
    containerd.expect_nothing_left();
}

#[test]
fn signals_reach_the_one_process_or_all() {
    let containerd = Containerd::start();
    let script = "trap \"echo told\" USR1; sleep 1000 & while :; do wait; done";
    let run =
        containerd.ctr_start(&containerd.run_words("--rm", &format!("signals sh -c '{script}'")));
    containerd.until_status("signals", "RUNNING");
    wait::until_true("the trap", || {
        containerd.ctr("task kill --signal SIGUSR1 signals").ok();
        run.stdout().contains("told")
    });
    containerd.ctr("task kill --signal 9 --all signals").ok();
    run.finish().check(137);
    let output = containerd.ctr("task kill signals");
    output.fails(1, &["not found"]);
    containerd.expect_nothing_left();
}

#[test]
fn a_paused_container_stands_still_and_goes_on() {
    let containerd = Containerd::start();
    containerd.run_detached("still sh -c 'while :; do :; done'");
    containerd.ctr("task pause still").ok();
    assert_eq!(containerd.status("still").as_deref(), Some("PAUSED"));
    let process = containerd.process("still");
    let used = || fs::read_to_string(process.path("schedstat")).unwrap();
    let before = used();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(used(), before, "it used no time");
    containerd.ctr("task resume still").ok();
    wait::until_true("it goes on", || used() != before);
    assert_eq!(containerd.status("still").as_deref(), Some("RUNNING"));
    containerd.remove("still");
    containerd.expect_nothing_left();
}

#[test]
fn what_is_used_is_told_and_limits_are_changed() {
    let containerd = Containerd::start();
    let flags = "-d --memory-limit 50000000";
    containerd.ctr(&containerd.run_words(flags, "used sh -c 'while :; do :; done'")).ok();
    let metrics = containerd.ctr("task metrics used").text();
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.split_whitespace().next() == Some(name));
        let text = line.and_then(|line| line.split_whitespace().nth(1));
        text.unwrap_or_else(|| panic!("{name}: {metrics}")).parse::<u64>().unwrap()
    };
    // v1's names and v2's.
    let memory = ["memory.usage_in_bytes", "memory.usage"]
        .into_iter()
        .find(|name| metrics.contains(name))
        .unwrap_or_else(|| panic!("{metrics}"));
    assert!((1..=50_000_000).contains(&value(memory)), "{metrics}");
    // ctr has no word for it, so it is asked as containerd asks a shim.
    let update = |json: &str| {
        let url = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
        let resources = Any { type_url: url.to_owned(), value: json.as_bytes().to_vec() };
        let request = UpdateTaskRequest { id: "used".to_owned(), resources: Some(resources) };
        containerd.call_shim("used", "Update", &request.encode_to_vec())
    };
    update(r#"{"memory": {"limit": 60000000}}"#).unwrap();
    let limits = containerd.cgroup_files("used", &["memory.limit_in_bytes", "memory.max"]);
    assert_eq!(limits, ["59998208"], "whole pages");
    let refused = update(r#"{"memory": {"limit": "much"}}"#).unwrap_err();
    assert!(refused.contains("memory.limit"), "{refused}");
    containerd.remove("used");
    containerd.expect_nothing_left();
}

#[test]
fn want_of_memory_is_an_event_before_the_end() {
    let containerd = Containerd::start();
    let events = containerd.subscribe();
    let command = "eater dd if=/dev/zero of=/dev/null bs=200M count=1";
    containerd.ctr(&containerd.run_words("--rm --memory-limit 20000000", command)).check(137);
    events.expect("/tasks/delete");
    let seen = events.stdout();
    let at = |topic: &str| seen.find(topic).unwrap_or_else(|| panic!("{topic}: {seen}"));
    assert!(at("/tasks/oom") < at("/tasks/exit"), "{seen}");
    containerd.expect_nothing_left();
}

#[test]
fn events_come_in_containerds_order() {
    let containerd = Containerd::start();
    let events = containerd.subscribe();
    containerd.run_detached("order sleep 1000");
    containerd.ctr(&containerd.exec_words("--exec-id long -d", "order sleep 1000")).ok();
    containerd.ctr(&containerd.exec_words("--exec-id short", "order sh -c 'exit 3'")).check(3);
    containerd.ctr("task pause order").ok();
    containerd.ctr("task resume order").ok();
    containerd.remove("order");
    events.expect("/containers/delete");
    let seen = events.stdout();
    let topic = |line: &str| {
        let task = line.split(' ').find(|word| word.starts_with("/tasks/"))?;
        let id = ["long", "short"].into_iter().find(|id| line.contains(&format!("\"{id}\"")));
        Some(id.map_or_else(|| task.to_owned(), |id| format!("{task} {id}")))
    };
    let topics: Vec<String> = seen.lines().filter_map(topic).collect();
    assert_eq!(
        topics,
        [
            "/tasks/create",
            "/tasks/start",
            "/tasks/exec-added long",
            "/tasks/exec-started long",
            "/tasks/exec-added short",
            "/tasks/exec-started short",
            "/tasks/exit short",
            "/tasks/paused",
            "/tasks/resumed",
            // The container's own end is the last.
            "/tasks/exit long",
            "/tasks/exit",
            "/tasks/delete",
        ],
        "{seen}"
    );
    let exits: Vec<&str> = seen.lines().filter(|line| line.contains("/tasks/exit")).collect();
    assert!(exits[0].contains("\"exit_status\":3"), "{}", exits[0]);
    assert!(exits[2].contains("\"exit_status\":137"), "{}", exits[2]);
    containerd.expect_nothing_left();
}

#[test]
fn containers_outlive_a_containerd_that_is_killed() {
    let mut containerd = Containerd::start();
    containerd.run_detached("here sh -c 'while [ ! -e /done ]; do sleep 0.05; done; exit 6'");
    containerd.run_detached("away sh -c 'sleep 0.5; exit 8'");
    let (process, shim) = (containerd.process("here"), containerd.shim("here"));
    let away = containerd.process("away");
    containerd.kill();
    wait::until_true("one ends meanwhile", || !away.lives());
    assert!(process.lives() && shim.lives());
    containerd.start_again();
    assert_eq!(containerd.status("here").as_deref(), Some("RUNNING"));
    assert_eq!(containerd.process("here"), process);
    containerd.until_status("away", "STOPPED");
    assert!(containerd.ctr("task rm away").stderr.contains("exit code 8"));
    containerd.ctr(&containerd.exec_words("--exec-id end", "here touch /done")).ok();
    containerd.until_status("here", "STOPPED");
    assert!(containerd.ctr("task rm here").stderr.contains("exit code 6"));
    containerd.ctr("containers rm here away").ok();
    containerd.expect_nothing_left();
}

#[test]
fn what_a_killed_shim_leaves_is_cleaned_up() {
    let containerd = Containerd::start();
    let events = containerd.subscribe();
    containerd.run_detached("lost sh -c 'sleep 1000 & sleep 1000'");
    let process = containerd.process("lost");
    containerd.shim("lost").kill();
    events.expect("/tasks/delete");
    let seen = events.stdout();
    let exit = seen.lines().find(|line| line.contains("/tasks/exit")).unwrap();
    assert!(exit.contains("\"exit_status\":137"), "{exit}");
    assert!(exit.contains(&format!("\"pid\":{}", process.0)), "{exit}");
    assert_eq!(containerd.status("lost"), None);
    containerd.ctr("containers rm lost").ok();
    containerd.expect_nothing_left();
}

#[test]
fn output_goes_to_files_and_to_loggers() {
    let containerd = Containerd::start();
    let file = containerd.path("logs/out.log");
    let flags = format!("-d --log-uri file://{}", file.display());
    containerd.ctr(&containerd.run_words(&flags, "file sh -c 'echo out; echo err >&2'")).ok();
    containerd.until_status("file", "STOPPED");
    let mut lines: Vec<String> =
        fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["err", "out"]);
    containerd.remove("file");
    // A logger is told by its arguments and environment, says that it is ready, and sees the end.
    let (logger, log) = (containerd.path("logger"), containerd.path("logged"));
    let script = format!(
        "#!/bin/sh\nexec >{0}.new\necho \"$1 $2 $CONTAINER_NAMESPACE $CONTAINER_ID\"\nexec 5>&-\n\
         sed s/^/1:/ <&3 &\nsed s/^/2:/ <&4\nwait\nmv {0}.new {0}\n",
        log.display()
    );
    executable::write(&logger, script);
    let flags = format!("-d --log-uri binary://{}?key=a%20b", logger.display());
    containerd.ctr(&containerd.run_words(&flags, "binary sh -c 'echo out; echo err >&2'")).ok();
    let text = wait::until("the logger's end", || fs::read_to_string(&log).ok());
    let mut lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.remove(0), format!("key a b {} binary", containerd.namespace()));
    lines.sort_unstable();
    assert_eq!(lines, ["1:out", "2:err"]);
    containerd.remove("binary");
    containerd.ctr(&containerd.run_words("-d --null-io", "null sh -c 'seq 100000; exit 9'")).ok();
    containerd.until_status("null", "STOPPED");
    containerd.remove("null");
    containerd.expect_nothing_left();
}

#[test]
fn a_logger_that_does_not_come_up_fails_the_run() {
    let containerd = Containerd::start();
    let flags = "-d --log-uri binary:///no/such/logger";
    containerd.ctr(&containerd.run_words(flags, "one true")).fails(1, &["/no/such/logger"]);
    let flags = "-d --log-uri binary:///bin/false";
    containerd.ctr(&containerd.run_words(flags, "two true")).fails(1, &["before it was ready"]);
    let flags = "-d --log-uri smtp://host";
    containerd.ctr(&containerd.run_words(flags, "three true")).fails(1, &["smtp://host"]);
    containerd.expect_nothing_left();
}

#[test]
fn output_that_nobody_reads_stops_the_container_and_loses_nothing() {
    let containerd = Containerd::start();
    // ctr reads until it leaves: the flood begins after that.
    let script = "until [ -e /go ]; do sleep 0.05; done; seq 1000000; echo all >/told; sleep 1000";
    containerd.run_detached(&format!("full sh -c '{script}'"));
    let process = containerd.process("full");
    fs::write(process.path("root/go"), "").unwrap();
    let blocked = || {
        let text = fs::read_to_string(process.path("root/told"));
        text.is_err() && containerd.shim("full").lives()
    };
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(blocked(), "six megabytes fit into no pipe");
    let attach = containerd.ctr_start("task attach full");
    attach.expect("\n1000000\n");
    wait::until_true("it goes on", || !blocked());
    assert_eq!(attach.stdout().lines().count(), 1_000_000);
    drop(attach);
    containerd.remove("full");
    containerd.expect_nothing_left();
}

#[test]
fn a_container_whose_output_nobody_reads_ends_when_it_is_killed() {
    let containerd = Containerd::start();
    containerd.run_detached("stuck sh -c 'seq 1000000'");
    containerd.until_status("stuck", "RUNNING");
    containerd.ctr("task kill --signal 9 stuck").ok();
    let ended = wait::within(std::time::Duration::from_secs(5), || {
        (containerd.status("stuck").as_deref() == Some("STOPPED")).then_some(())
    });
    assert!(ended.is_some(), "its end waits for nobody");
    containerd.remove("stuck");
    containerd.expect_nothing_left();
}

#[test]
fn what_is_asked_for_and_not_done_is_refused_by_name() {
    let containerd = Containerd::start();
    for (flags, said) in
        [("--no-pivot", "options.no_pivot_root"), ("--rdt-class gold", "linux.intelRdt")]
    {
        let output = containerd.ctr(&containerd.run_words(&format!("--rm {flags}"), "one true"));
        output.fails(1, &[said]);
    }
    containerd
        .ctr(&containerd.run_words("--rm", "two no-such-program"))
        .fails(1, &["no-such-program"]);
    containerd.expect_nothing_left();
}

#[test]
fn what_is_passed_over_is_in_containerds_log() {
    let containerd = Containerd::start();
    containerd.ctr(&containerd.run_words("--rm --cap-add CAP_NOPE", "one true")).ok();
    let said = "warning: process.capabilities.bounding: \"CAP_NOPE\" is no capability";
    wait::until_true("a warning in its log", || containerd.log().contains(said));
}

#[test]
fn a_program_that_can_not_be_executed_leaves_nothing() {
    let containerd = Containerd::start();
    let program = containerd.path("garbage");
    executable::write(&program, [0; 64]);
    let mount = format!("--mount type=bind,src={},dst=/garbage,options=rbind", program.display());
    let output = containerd.ctr(&containerd.run_words(&format!("--rm {mount}"), "one /garbage"));
    output.fails(1, &["/garbage"]);
    containerd.expect_nothing_left();
}

/// Who is told that a start failed removes the task at once, and is not told that it still runs: fails
/// when the answer comes before the end is recorded.
#[test]
fn what_failed_to_start_can_be_removed_as_soon_as_that_is_told() {
    let containerd = Containerd::with_failpoint("shim.exit.before_rename=1*return->off");
    let program = containerd.path("garbage");
    executable::write(&program, [0; 64]);
    let mount = format!("--mount type=bind,src={},dst=/garbage,options=rbind", program.display());
    containerd
        .ctr(&containerd.run_words(&format!("--rm {mount}"), "one /garbage"))
        .fails(1, &["/garbage"]);
    containerd.expect_nothing_left();
}

#[test]
fn a_create_that_fails_does_not_touch_who_has_its_cgroup() {
    let containerd = Containerd::start();
    let cgroup = format!("--cgroup /{}/shared", containerd.namespace());
    containerd.ctr(&containerd.run_words(&format!("-d {cgroup}"), "first sleep 1000")).ok();
    let process = containerd.process("first");
    let words = containerd.run_words(&format!("--rm {cgroup}"), "second no-such-program");
    assert_eq!(containerd.ctr(&words).code, Some(1));
    assert!(process.lives());
    // What ends one would end the other.
    containerd
        .ctr(&containerd.run_words(&format!("--rm {cgroup}"), "second true"))
        .fails(1, &["linux.cgroupsPath", "has processes in it already"]);
    assert!(process.lives());
    containerd.remove("first");
    containerd.expect_nothing_left();
}

#[test]
fn a_container_goes_on_from_its_checkpoint() {
    let containerd = Containerd::start();
    containerd.run_detached("kept sleep 1000");
    let check = std::process::Command::new("criu").arg("check").output();
    let criu_works = check.is_ok_and(|output| output.status.success());
    let output = containerd.ctr("containers checkpoint --task kept example.org/kept:1");
    assert_eq!(containerd.status("kept").as_deref(), Some("RUNNING"));
    if !criu_works {
        eprintln!("criu can't work with this kernel: only what is said of it is tested");
        output.fails(1, &["checkpoint through criu: "]);
        containerd.remove("kept");
        containerd.expect_nothing_left();
        return;
    }
    output.ok();
    containerd.remove("kept");
    containerd.ctr("containers restore --live kept example.org/kept:1").ok();
    assert_eq!(containerd.status("kept").as_deref(), Some("RUNNING"));
    let process = containerd.process("kept");
    assert_eq!(process.arguments(), ["sleep", "1000"]);
    let output = containerd.ctr("task exec --exec-id one kept cat /proc/1/comm");
    assert_eq!(output.text(), "sleep");
    containerd.ctr("task kill --signal SIGKILL kept").ok();
    containerd.ctr("images rm example.org/kept:1").ok();
    containerd.remove("kept");
    containerd.expect_nothing_left();
}

#[test]
fn an_idle_shim_sleeps() {
    let containerd = Containerd::start();
    containerd.run_detached("idle sleep 1000");
    let shim = containerd.shim("idle");
    let wake_ups = || shim.status("voluntary_ctxt_switches").unwrap();
    // It gives memory back when nothing has happened for a second.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let before = wake_ups();
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(wake_ups(), before, "no wake-up in two seconds");
    let [pss, dirty] = ["Pss", "Private_Dirty"].map(|field| shim.memory(field).unwrap());
    println!("under containerd: PSS {pss} kB, private dirty {dirty} kB");
    containerd.remove("idle");
    containerd.expect_nothing_left();
}

/// Runs a container of a spec that has all of busybox, and hooks that write down what they are told.
fn run_hooked(containerd: &Containerd, id: &str, command: &str) -> std::path::PathBuf {
    containerd.run_detached("model sleep 1000");
    let spec = containerd.ctr("containers info --spec model").text();
    containerd.remove("model");
    let mut spec: serde_json::Value = serde_json::from_str(&spec).unwrap();
    let rootfs = containerd.path(&format!("rootfs-{id}"));
    for directory in ["bin", "proc", "dev", "sys", "run", "tmp"] {
        fs::create_dir_all(rootfs.join(directory)).unwrap();
    }
    executable::copy("/bin/busybox", rootfs.join("bin/sh"));
    let log = containerd.path(&format!("hooks-{id}"));
    let hook = |name: &str| {
        let script = format!("echo {name} $(cat) >>{}", log.display());
        serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    spec["root"] = serde_json::json!({"path": rootfs});
    spec["process"]["args"] = serde_json::json!(["sh", "-c", command]);
    spec["linux"]["cgroupsPath"] = format!("/{}/{id}", containerd.namespace()).into();
    spec["hooks"] = serde_json::json!({
        "createRuntime": hook("createRuntime"),
        "poststart": hook("poststart"),
        "poststop": hook("poststop"),
    });
    let config = containerd.path(&format!("config-{id}.json"));
    fs::write(&config, spec.to_string()).unwrap();
    let (runtime, fifos) = (integration::containerd::RUNTIME, containerd.path("fifo"));
    let flags = format!("--runtime {runtime} --fifo-dir {} -d", fifos.display());
    containerd.ctr(&format!("run {flags} --config {} {id}", config.display())).ok();
    log
}

#[test]
fn hooks_run_in_their_order_also_behind_a_killed_shim() {
    let containerd = Containerd::start();
    for id in ["ended", "lost"] {
        let log = run_hooked(&containerd, id, "while :; do sleep 1; done");
        let lines = || fs::read_to_string(&log).unwrap();
        let names = || {
            let text = lines();
            let first = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
            text.lines().map(first).collect::<Vec<String>>()
        };
        assert_eq!(names(), ["createRuntime", "poststart"]);
        assert!(lines().contains(&format!("\"id\":\"{id}\"")), "{}", lines());
        if id == "lost" {
            containerd.shim(id).kill();
            // A task whose shim does not answer is not listed, before its clean-up as after it.
            wait::until_true("the clean-up", || names().len() == 3);
            wait::until_true("no task", || containerd.status(id).is_none());
            containerd.ctr(&format!("containers rm {id}")).ok();
        } else {
            containerd.remove(id);
        }
        assert_eq!(names(), ["createRuntime", "poststart", "poststop"]);
    }
    containerd.expect_nothing_left();
}

#[test]
fn a_rootfs_is_a_directory_or_read_only_as_it_is_said() {
    let containerd = Containerd::start();
    let output = containerd.ctr(&containerd.run_words("--rm --read-only", "ro touch /new"));
    output.fails(1, &["Read-only file system"]);
    let rootfs = containerd.path("rootfs");
    fs::create_dir_all(rootfs.join("bin")).unwrap();
    for directory in ["proc", "dev", "sys", "run", "tmp"] {
        fs::create_dir(rootfs.join(directory)).unwrap();
    }
    executable::copy("/bin/busybox", rootfs.join("bin/busybox"));
    let words = format!(
        "run --runtime {} --fifo-dir {} --rm --rootfs {} dir /bin/busybox touch /made",
        integration::containerd::RUNTIME,
        containerd.path("fifo").display(),
        rootfs.display()
    );
    containerd.ctr(&words).ok();
    assert!(rootfs.join("made").exists(), "it is the directory itself");
    containerd.expect_nothing_left();
}

#[test]
fn nothing_of_a_container_is_in_the_hosts_mount_table() {
    let containerd = Containerd::start();
    containerd.run_detached("apart sleep 1000");
    let directory = containerd.path("").display().to_string();
    let host = mount_points(Process(std::process::id()));
    let ours: Vec<&String> = host.iter().filter(|path| path.contains(&directory)).collect();
    assert!(ours.is_empty(), "{ours:?}");
    let inside = mount_points(containerd.process("apart"));
    assert!(inside.contains(&"/proc".to_owned()), "{inside:?}");
    containerd.remove("apart");
    containerd.expect_nothing_left();
}

#[test]
fn a_container_has_users_of_its_own() {
    let containerd = Containerd::start();
    let flags = "--rm --uidmap 0:100000:65536 --gidmap 0:100000:65536";
    let script = "id -u; cat /proc/self/uid_map; touch /new; stat -c %u /new; echo ok >/dev/stdout";
    let output = containerd.ctr(&containerd.run_words(flags, &format!("own sh -c '{script}'")));
    let text = output.text();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert_eq!((lines[0], lines[2], lines[3]), ("0", "0", "ok"), "{text}");
    assert!(lines[1].contains("100000"), "{text}");
    containerd.expect_nothing_left();
}

#[test]
fn a_pod_of_containers_is_one_shim_each() {
    let containerd = Containerd::start();
    let group = "--annotation io.kubernetes.cri.sandbox-id=pod";
    containerd.ctr(&containerd.run_words(&format!("-d {group}"), "pod sleep 1000")).ok();
    let network = format!("--with-ns network:/proc/{}/ns/net", containerd.process("pod").0);
    containerd.ctr(&containerd.run_words(&format!("-d {group} {network}"), "web sleep 1000")).ok();
    assert_ne!(containerd.shim("pod"), containerd.shim("web"));
    let [pod, web] = ["pod", "web"].map(|id| containerd.process(id).namespace("net"));
    assert_eq!(pod, web);
    containerd.remove("web");
    containerd.remove("pod");
    containerd.expect_nothing_left();
}

#[test]
fn the_shim_says_what_it_is() {
    let shim = |words: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("containerd-shim-bosun-v1");
        std::os::unix::fs::symlink(program("bosun-shim"), &link).unwrap();
        Command::new(link).args(words).stdin(Stdio::null()).output().unwrap()
    };
    let version = shim(&["-v"]);
    assert!(String::from_utf8_lossy(&version.stdout).contains("Version:"));
    let info = shim(&["-info"]);
    assert!(info.status.success());
    let text = String::from_utf8_lossy(&info.stdout).into_owned();
    assert!(text.contains("io.containerd.bosun.v1") && text.contains("ociVersionMin"), "{text}");
    let wrong = shim(&["-namespace", "ns", "-id", "../x", "start"]);
    assert!(!wrong.status.success());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("-id: invalid id"));
}

/// A `start` as a daemon of some age calls it, its answer, and whether the shim serves there, to root
/// alone, whatever the daemon's umask is (fails when the shim leaves that as it is).
fn started(input: &[u8], environment: &[(&str, &str)]) -> Vec<u8> {
    let bundle = tempfile::Builder::new().prefix("bosun-ctr-bundle-").tempdir_in("/tmp").unwrap();
    let link = bundle.path().join("containerd-shim-bosun-v1");
    std::os::unix::fs::symlink(program("bosun-shim"), &link).unwrap();
    let shim = |verb: &str| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "umask 0; exec \"$@\"", "sh"]).arg(&link);
        command.args(["-namespace", "old", "-address", "/none", "-publish-binary", "/none"]);
        command.args(["-id", "web", "-bundle"]).arg(bundle.path()).arg(verb);
        command.env_remove("MAX_SHIM_VERSION").envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "a daemon reads both as one");
        output.stdout
    };
    let answer = shim("start");
    let address = fs::read_to_string(bundle.path().join("address")).unwrap();
    let path = address.strip_prefix("unix://").unwrap().to_owned();
    let mut socket = UnixStream::connect(&path).unwrap();
    let sockets = std::path::Path::new(&path).parent().unwrap();
    for directory in [sockets, &bundle.path().join("bosun")] {
        let inside = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        for path in [directory.to_owned()].into_iter().chain(inside) {
            let found = fs::symlink_metadata(&path).unwrap();
            let mode = std::os::unix::fs::MetadataExt::mode(&found);
            assert!(found.is_symlink() || mode & 0o077 == 0, "{}: {mode:o}", path.display());
        }
    }
    shim("delete");
    assert!(matches!(socket.read(&mut [0]), Ok(0) | Err(_)), "the shim has gone");
    assert!(!std::path::Path::new(&path).exists());
    answer
}

/// Whatever umask the caller has, nobody else comes to what is made for it. CVE-2021-41103.
#[test]
fn a_start_is_answered_in_the_form_of_the_callers_age() {
    let events = ("TTRPC_ADDRESS", "/none.ttrpc");
    let plain = String::from_utf8(started(&[], &[events])).unwrap();
    assert!(plain.starts_with("unix:///run/bosun-shim/"), "{plain}");
    let json = String::from_utf8(started(&[], &[events, ("MAX_SHIM_VERSION", "2")])).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["version"], &json["protocol"]), (&2.into(), &"ttrpc".into()));
    assert!(json["address"].as_str().unwrap().starts_with("unix:///"), "{json}");
    let sockets = tempfile::Builder::new().prefix("bosun-ctr-s-").tempdir_in("/tmp").unwrap();
    let params = BootstrapParams {
        instance_id: "web".to_owned(),
        namespace: "old".to_owned(),
        containerd_ttrpc_address: "/none.ttrpc".to_owned(),
        socket_dir: Some(sockets.path().display().to_string()),
        ..BootstrapParams::default()
    };
    let answer = started(&params.encode_to_vec(), &[("MAX_SHIM_VERSION", "2")]);
    let answer = BootstrapResult::decode(answer.as_slice()).unwrap();
    assert_eq!((answer.version, answer.protocol.as_str()), (3, "ttrpc"));
    let directory = format!("unix://{}/", sockets.path().display());
    assert!(answer.address.starts_with(&directory), "{}", answer.address);
}
