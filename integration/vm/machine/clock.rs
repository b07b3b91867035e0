//! Steps of the machine's clock: an hour and ten years, forward and back.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use integration::netns::run;
use integration::wait;

use crate::support::{Service, systemctl};

const HOUR: i64 = 3600;
const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;

/// What a container that does not end by itself is given.
const TIME_OUT: Duration = Duration::from_secs(2);

/// Puts the clock right again.
struct Clock {
    at: SystemTime,
    since: Instant,
}

impl Clock {
    fn hold() -> Self {
        Self { at: SystemTime::now(), since: Instant::now() }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        set(self.at + self.since.elapsed());
    }
}

fn set(to: SystemTime) {
    let seconds = to.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    run(Command::new("date").args(["-s", &format!("@{seconds}")]));
}

fn step(by: i64) {
    let far = Duration::from_secs(by.unsigned_abs());
    let now = SystemTime::now();
    set(if by > 0 { now + far } else { now - far });
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn no_step_of_the_clock_changes_an_order_a_time_out_or_a_log() {
    let service = Service::start();
    let _clock = Clock::hold();
    let begin = Instant::now();
    service.ctl("run -d --name up --net none --rootfs / /bin/sleep 600").ok();
    let up = || {
        let status = service.ctl("ps --filter name=up --format '{{.Status}}'").text();
        let is_short = ["second", "minute"].iter().any(|unit| status.contains(unit));
        assert!(status.starts_with("Up ") && is_short, "{status} after {:?}", begin.elapsed());
    };
    let mut names = vec!["up".to_owned()];
    for (number, by) in [HOUR, -HOUR, TEN_YEARS, -TEN_YEARS].into_iter().enumerate() {
        let (lines, stubborn) = (format!("lines{number}"), format!("stubborn{number}"));
        service
            .ctl(&format!(
                "run -d --name {lines} --net none --rootfs / /bin/sh -c \
                 'trap \"exit 7\" TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done'"
            ))
            .ok();
        service
            .ctl(&format!(
                "run -d --name {stubborn} --net none --rootfs / /bin/sh -c \
                 'trap : TERM; echo ready; while :; do sleep 0.1; done'"
            ))
            .ok();
        names.splice(0..0, [stubborn.clone(), lines.clone()]);
        for (name, text) in [(&lines, "2\n"), (&stubborn, "ready")] {
            wait::until_true("its output", || {
                service.ctl(&format!("logs {name}")).stdout.contains(text)
            });
        }
        let begin = Instant::now();
        let words = format!("stop -t {} {stubborn}", TIME_OUT.as_secs());
        let stopping = service.start_ctl(&words, Stdio::null());
        std::thread::sleep(TIME_OUT / 4);
        step(by);
        up();
        stopping.finish().check(0);
        assert!(begin.elapsed() >= TIME_OUT, "{by}: it was killed too early");
        assert_eq!(service.inspect(&stubborn, "{{.State.ExitCode}}"), "137", "{by}");
        let written = service.ctl(&format!("logs {lines}")).stdout.lines().count();
        wait::until_true("more lines", || {
            service.ctl(&format!("logs {lines}")).stdout.lines().count() > written
        });
        service.ctl(&format!("stop {lines}")).ok();
        assert_eq!(service.inspect(&lines, "{{.State.ExitCode}}"), "7", "{by}");
        let text = service.ctl(&format!("logs {lines}")).stdout;
        assert!(text.lines().zip(1..).all(|(line, number)| line == number.to_string()), "{text}");
        let listed = service.ctl("ps -a --format '{{.Names}}'").text();
        assert_eq!(listed.lines().collect::<Vec<_>>(), names, "{by}: the newest first");
        let since = service.ctl(&format!("ps -a --filter since={lines} --format '{{{{.Names}}}}'"));
        assert_eq!(since.text(), stubborn, "{by}: made after it");
    }
    let made: Vec<(String, String)> = names
        .iter()
        .rev()
        .map(|name| {
            let text = service.inspect(name, "{{.Created}}");
            let text = text.trim_end_matches('Z');
            let (seconds, nanos) = text.split_once('.').unwrap_or((text, ""));
            (seconds.to_owned(), format!("{nanos:0<9}"))
        })
        .collect();
    assert!(made.is_sorted_by(|one, next| one < next), "{made:?}");
    // A daemon that starts at another time finds the same.
    systemctl("kill --signal KILL bosund");
    step(-HOUR);
    Service::daemon();
    wait::until_true("the next daemon", || service.ctl("ps -q").code == Some(0));
    up();
    let listed = service.ctl("ps -a --format '{{.Names}}'").text();
    assert_eq!(listed.lines().collect::<Vec<_>>(), names);
}
