//! Verbs without a session: what they send, what they show.

use bosun_proto::v1::{Event, Gap, LogRecord};
use tonic::{Code, Status};

use crate::ctl::{command, ran};
use crate::daemon::{Fake, ID, Process, refusal, running, start};

fn with_web() -> Fake {
    let fake = Fake::acting(Process::Ended(42));
    fake.book().containers.push(running("web"));
    fake
}

#[test]
fn ps_is_dockers_table() {
    let fake = with_web();
    let (daemon, _dir) = start(&fake);
    let table = ran(command(&daemon.socket, "ps"));
    let lines: Vec<&str> = table.out.lines().collect();
    assert_eq!(table.code, 0, "{}", table.err);
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>().join(" "),
        "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES"
    );
    assert!(lines[1].starts_with("0123456789ab   rootfs:/   \"sleep 1\""), "{}", lines[1]);
    assert!(lines[1].ends_with("0.0.0.0:8000->8000/tcp   web"), "{}", lines[1]);

    for (words, want) in [
        ("ps -q", "0123456789ab\n"),
        ("ps -q --no-trunc", &format!("{ID}\n")),
        ("ps --format {{.Names}}:{{.State}}", "web:running\n"),
        ("container ls -aq", "0123456789ab\n"),
        ("ps -n 0 -q", ""),
        ("ps -lq", "0123456789ab\n"),
    ] {
        assert_eq!(ran(command(&daemon.socket, words)).out, want, "{words}");
    }
    ran(command(&daemon.socket, "ps -a -f status=exited --filter name=w"));
    assert_eq!(fake.book().calls.last().unwrap(), "list true [\"status=exited\", \"name=w\"]");
    let wrong = ran(command(&daemon.socket, "ps --format {{.Nmaes}}"));
    assert_eq!(wrong.code, 1);
    assert!(wrong.err.starts_with("ctl: template: there is no field .Nmaes: there are .Command"));
}

#[test]
fn inspect_shows_what_exists_and_complains_about_the_rest() {
    let fake = with_web();
    let (daemon, _dir) = start(&fake);
    let both = ran(command(&daemon.socket, "inspect web none"));
    let sentence = "ctl: no such container or image: none: see \"ctl ps -a\" and \"ctl images\"\n";
    assert_eq!((both.code, both.err.as_str()), (1, sentence));
    assert!(
        both.out.starts_with(&format!("[\n    {{\n        \"Id\": \"{ID}\",\n")),
        "{}",
        both.out
    );
    assert!(both.out.ends_with("    }\n]\n"));
    let pid = ran(command(&daemon.socket, "inspect -f {{.State.Pid}} web"));
    assert_eq!((pid.code, pid.out.as_str()), (0, "4242\n"));
    let none = ran(command(&daemon.socket, "inspect none"));
    assert_eq!((none.code, none.out.as_str()), (1, "[]\n"));
}

#[test]
fn containers_are_held_changed_and_watched() {
    let fake = with_web();
    let (daemon, _dir) = start(&fake);
    for (words, call) in [
        ("pause web", "pause web"),
        ("unpause web", "unpause web"),
        ("checkpoint -e /tmp/web.tar web", "checkpoint web /tmp/web.tar"),
        ("update -m 64m --pids-limit 0 web", "update web Some(67108864) Some(0)"),
    ] {
        let done = ran(command(&daemon.socket, words));
        assert_eq!((done.code, done.out.as_str()), (0, "web\n"), "{words}: {}", done.err);
        assert_eq!(fake.book().calls.last().unwrap(), call);
    }
    for (words, call) in [
        ("restore /tmp/./web.tar", "restore /tmp/web.tar \"\""),
        ("restore --name other /tmp/web.tar", "restore /tmp/web.tar \"other\""),
    ] {
        let done = ran(command(&daemon.socket, words));
        assert_eq!((done.code, done.out), (0, format!("{ID}\n")), "{words}: {}", done.err);
        assert_eq!(fake.book().calls.last().unwrap(), call);
    }
    let nothing = ran(command(&daemon.socket, "update web"));
    assert_eq!(nothing.code, 125);
    assert!(nothing.err.contains("nothing to change"), "{}", nothing.err);
    let stats = ran(command(&daemon.socket, "stats --no-stream"));
    let lines: Vec<&str> = stats.out.lines().collect();
    assert!(
        lines[0].starts_with("CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT"),
        "{lines:?}"
    );
    assert!(lines[1].starts_with("0123456789ab   web       0.00%"), "{lines:?}");
    assert!(lines[1].ends_with("0B / 0B   0B / 0B     3"), "{lines:?}");
    let json = ran(command(&daemon.socket, "stats --no-stream --format json web"));
    assert!(json.out.contains("\"PIDs\":\"3\""), "{}", json.out);
    let missing = ran(command(&daemon.socket, "stats --no-stream none"));
    assert_eq!(missing.code, 1);
    let top = ran(command(&daemon.socket, "top web -eo pid,cmd"));
    assert_eq!(fake.book().calls.last().unwrap(), "top [\"-eo\", \"pid,cmd\"]");
    assert!(top.out.starts_with("PID       CMD\n42        sh -c a"), "{}", top.out);
    assert!(!top.out.contains('\u{1b}'), "a process does not speak to the terminal");
}

#[test]
fn wait_prints_the_exit_code_and_takes_it() {
    let fake = with_web();
    let (daemon, _dir) = start(&fake);
    let one = ran(command(&daemon.socket, "wait web"));
    assert_eq!((one.code, one.out.as_str()), (42, "42\n"));
    let missing = ran(command(&daemon.socket, "wait web none"));
    assert_eq!((missing.code, missing.out.as_str()), (1, "42\n"));
    fake.book().process = Some(Process::Echoes);
    let unknown = ran(command(&daemon.socket, "wait web"));
    assert_eq!((unknown.code, unknown.out.as_str()), (255, "unknown\n"));
    assert_eq!(unknown.err, "ctl: the exit status of web is unknown: ShimLost\n");
}

#[test]
fn verbs_on_several_go_on_after_a_failure() {
    let fake = with_web();
    let (daemon, _dir) = start(&fake);
    let removed = ran(command(&daemon.socket, "rm -f none web"));
    assert_eq!((removed.code, removed.out.as_str()), (1, "web\n"));
    assert_eq!(removed.err, "ctl: no such container: none\n");
    assert_eq!(fake.book().calls, ["remove web true"]);

    fake.book().containers.push(running("web"));
    fake.book().calls.clear();
    for (words, call) in [
        ("start web", "start web"),
        ("stop -t 3 web", "stop web Some(3)"),
        ("stop web", "stop web None"),
        ("restart web", "restart web"),
        ("kill web", "kill web KILL"),
        ("kill -s HUP web", "kill web HUP"),
    ] {
        let ran = ran(command(&daemon.socket, words));
        assert_eq!((ran.code, ran.out.as_str()), (0, "web\n"), "{words}: {}", ran.err);
        assert_eq!(fake.book().calls.last().unwrap(), call);
    }
    fake.book().start_failures =
        [refusal(Code::FailedPrecondition, "ALREADY_RUNNING", "it runs")].into();
    let running = ran(command(&daemon.socket, "start web"));
    assert_eq!((running.code, running.out.as_str()), (0, "web\n"), "as docker has it");
    let created = ran(command(&daemon.socket, "create --name new --rootfs / true"));
    assert_eq!((created.code, created.out), (0, format!("{ID}\n")));
}

#[test]
fn a_refusal_is_one_sentence() {
    let fake = with_web();
    fake.book().stop_failures = [
        refusal(Code::FailedPrecondition, "NOT_RUNNING", "container web is not running"),
        Status::new(Code::Internal, "disk full"),
    ]
    .into();
    let (daemon, _dir) = start(&fake);
    for want in ["ctl: container web is not running\n", "ctl: disk full\n"] {
        let ran = ran(command(&daemon.socket, "stop web"));
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (1, "", want));
    }
    let wrong = ran(command(&daemon.socket, "rm"));
    assert_eq!(wrong.code, 1);
    let wrong = ran(command(&daemon.socket, "run -p 1:2:3:4 --rootfs / true"));
    assert_eq!(wrong.code, 125);
    assert!(wrong.err.starts_with("ctl: port \"1:2:3:4\": want"), "{}", wrong.err);
}

fn record(nanos: i32, stream: i32, log: &str) -> LogRecord {
    let time = Some(prost_types::Timestamp { seconds: 1_767_366_245, nanos });
    LogRecord { time, stream, log: log.into() }
}

#[test]
fn logs_go_where_they_were_written() {
    let fake = with_web();
    fake.book().logs = [vec![record(1, 0, "out\n"), record(2, 1, "err\n")]].into();
    let (daemon, _dir) = start(&fake);
    let logs = ran(command(&daemon.socket, "logs -t --tail 5 web"));
    assert_eq!(logs.code, 0, "{}", logs.err);
    assert_eq!(logs.out, "2026-01-02T15:04:05.000000001Z out\n");
    assert_eq!(logs.err, "2026-01-02T15:04:05.000000002Z err\n");
    assert_eq!(fake.book().log_requests[0].tail, Some(5));
}

#[test]
fn following_logs_goes_on_after_a_break() {
    let fake = with_web();
    fake.book().logs = [vec![record(1, 0, "one\n")], vec![record(7, 0, "two\n")]].into();
    let (daemon, _dir) = start(&fake);
    let logs = ran(command(&daemon.socket, "logs -f --tail 1 web"));
    assert_eq!((logs.code, logs.out.as_str()), (0, "one\ntwo\n"), "{}", logs.err);
    let resumed = fake.book().log_requests[1].clone();
    assert_eq!((resumed.tail, resumed.since.map(|at| at.nanos)), (None, Some(2)));
}

fn event(sequence: u64, action: &str) -> Event {
    Event {
        sequence,
        time: Some(prost_types::Timestamp { seconds: 1_767_366_245, nanos: 0 }),
        namespace: "default".to_owned(),
        r#type: "container".to_owned(),
        action: action.to_owned(),
        id: "abc".to_owned(),
        ..Event::default()
    }
}

#[test]
fn events_resume_by_number_and_say_a_gap() {
    let fake = Fake::default();
    let gap = Event { gap: Some(Gap { first: 6, last: 8 }), ..Event::default() };
    fake.book().events = [vec![event(5, "start")], vec![gap, event(9, "die")]].into();
    let (daemon, _dir) = start(&fake);
    let events = ran(command(&daemon.socket, "events --since 1h --until 0s"));
    assert_eq!(events.code, 0, "{}", events.err);
    assert_eq!(
        events.out,
        "2026-01-02T15:04:05.000000000Z container start abc\n\
         2026-01-02T15:04:05.000000000Z container die abc\n"
    );
    assert_eq!(events.err, "ctl: warning: the events 6 to 8 are no longer stored\n");
    let book = fake.book();
    assert_eq!(book.subscriptions[0].since_sequence, None);
    assert_eq!(book.subscriptions[1].since_sequence, Some(6));
    assert_eq!(book.subscriptions[1].since, None);
}

#[test]
fn snapshots_are_listed_and_held_ones_named() {
    let fake = Fake::default();
    let (daemon, _dir) = start(&fake);
    for (words, code, out, err) in [
        ("snapshot ls -q", 0, "a\nb\n", ""),
        (
            "snapshot ls --format {{.Key}}:{{.Parent}}:{{.Kind}}",
            0,
            "a:dir:/:Active\nb:dir:/:Active\n",
            "",
        ),
        ("snapshot inspect -f {{.HeldBy}} a", 0, "web\n", ""),
        ("snapshot usage a", 0, "SIZE        INODES    KEY\n1.5KiB      7         a\n", ""),
        ("snapshot usage -b a", 0, "SIZE      INODES    KEY\n1536      7         a\n", ""),
        ("snapshot rm a", 1, "", "ctl: snapshot \"a\" is held by container web\n"),
        ("snapshot mounts /mnt a", 0, "mount -t overlay overlay /mnt -o lowerdir=/\n", ""),
        ("snapshot commit base a", 0, "", ""),
    ] {
        let ran = ran(command(&daemon.socket, words));
        let got = (ran.code, ran.out.as_str(), ran.err.as_str());
        assert_eq!(got.0, code, "{words}: {ran:?}");
        assert_eq!(
            got.1.split_whitespace().collect::<Vec<_>>(),
            out.split_whitespace().collect::<Vec<_>>()
        );
        assert_eq!(got.2, err, "{words}");
    }
    ran(command(&daemon.socket, "snapshot view k base"));
    ran(command(&daemon.socket, "snapshot prepare --directory /srv k"));
    let book = fake.book();
    assert_eq!(book.calls[0], "commit a base");
    assert_eq!(book.calls[1], "view k Some(Parent(\"base\"))");
    assert_eq!(book.calls[2], "prepare k Some(Directory(\"/srv\"))");
}

#[test]
fn version_and_info_show_both_sides() {
    let fake = Fake::default();
    let (daemon, _dir) = start(&fake);
    let version = ran(command(&daemon.socket, "version --format {{.Server.Version}}"));
    assert_eq!((version.code, version.out.as_str()), (0, "9.9\n"));
    let info = ran(command(&daemon.socket, "info"));
    assert!(info.out.contains("Shim: /bin/bosun-shim"), "{}", info.out);
    assert_eq!(info.err, "ctl: warning: swap is not limited\n");
    let script = ran(command(&daemon.socket, "completion bash"));
    assert!(script.out.contains("complete -F"), "no completion script");
}
