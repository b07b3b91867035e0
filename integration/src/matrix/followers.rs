//! Many clients, and slow ones.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use tonic::Code;

use super::Case;
use crate::api::{self, Api};
use crate::daemon::Daemon;
use crate::wait;

/// Followers of one round.
const FOLLOWERS: usize = 40;
/// By how much the daemon may grow for all of them.
const GROWTH_KB: u64 = 60_000;

pub(super) fn same_request() -> Vec<Case> {
    vec![Case::plain("create", |_| {
        let daemon = Daemon::start();
        let socket = daemon.socket();
        let answers: Vec<_> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..10)
                .map(|_| {
                    scope.spawn(|| {
                        let api = Api::connect(&socket).expect("the daemon answers");
                        (0..10)
                            .map(|_| api.create("the same", api::options("one", &["/bin/true"])))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
        });
        let mut ids = BTreeSet::new();
        for answer in answers {
            match answer {
                Ok(id) => _ = ids.insert(id),
                // Too many at once is an answer as well: nothing was done for it.
                Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status}"),
            }
        }
        assert_eq!(ids.len(), 1, "{ids:?}");
        assert_eq!(daemon.ctl("ps -a -q --no-trunc").text().lines().count(), 1);
    })]
}

pub(super) fn slow() -> Vec<Case> {
    vec![Case::plain("log and events", |_| {
        let daemon = Daemon::start();
        let flood = "run -d --name one --net none --log-opt max-size=10m --log-opt max-file=2 --rootfs / \
                     /bin/sh -c 'while [ ! -e /tmp/go ]; do sleep 0.05; done; \
                     /usr/bin/awk \"BEGIN { for (i = 0; i < 1500000; i++) print i }\"; echo done >&2; sleep 600'";
        daemon.ctl(flood).ok();
        let process = daemon.pid().map(crate::process::Process).expect("the daemon runs");
        let before = process.memory("VmRSS").unwrap_or_default();
        // They are stopped as soon as they are there: nothing they are sent is read.
        let followers: Vec<_> = (0..FOLLOWERS)
            .map(|number| match number % 2 {
                0 => daemon.client().start("logs -f one", Stdio::null()),
                _ => daemon.client().start("events", Stdio::null()),
            })
            .collect();
        std::thread::sleep(Duration::from_millis(500));
        for follower in &followers {
            follower.signal(rustix::process::Signal::STOP);
        }
        daemon.ctl("exec one /bin/touch /tmp/go").ok();
        wait::until("the end of the flood", || {
            let output = daemon.ctl("logs --tail 1 one");
            output.stderr.contains("done").then_some(())
        });
        for number in 0..50 {
            daemon.ctl(&format!("create --name e{number} --net none --rootfs / /bin/true")).ok();
            daemon.ctl(&format!("rm e{number}")).ok();
        }
        let grown = process.memory("VmRSS").unwrap_or_default().saturating_sub(before);
        assert!(grown < GROWTH_KB, "the daemon grew by {grown} kB for {FOLLOWERS} that don't read");
        drop(followers);
        assert_eq!(daemon.ctl("exec one /bin/echo on").text(), "on");
    })]
}
