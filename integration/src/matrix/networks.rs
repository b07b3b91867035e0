//! The life of a container's place on bosun's own bridge: its address, and a published port by which it is
//! reached, over two runs; and of the bridge itself.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::life::{
    Answer, Life, Patience, SETTLED, State, Told, learn, learn_of_start, learn_of_stop, may_be,
    settled,
};
use crate::ctl::Ctl;
use crate::daemon::Daemon;
use crate::{http, wait};

/// A call of this life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Create,
    Start,
    Stop,
    StartAgain,
    Remove,
}

const CALLS: [Call; 5] = [Call::Create, Call::Start, Call::Stop, Call::StartAgain, Call::Remove];

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const PORT: u16 = 5000;

/// What is known of such a container.
#[derive(Debug)]
pub struct NetworkLife {
    states: BTreeSet<State>,
    shim_killed: bool,
}

impl NetworkLife {
    #[must_use]
    pub fn new(_daemon: &Daemon) -> Self {
        Self { states: [State::Absent].into(), shim_killed: false }
    }

    fn words(call: Call) -> String {
        match call {
            Call::Create => format!(
                "create --name one -p {PORT}:7000 --rootfs / /bin/busybox httpd -f -p 7000 -h /proc/self"
            ),
            Call::Start | Call::StartAgain => "start one".to_owned(),
            Call::Stop => "stop -t 0 one".to_owned(),
            Call::Remove => "rm -f one".to_owned(),
        }
    }
}

impl Life for NetworkLife {
    fn calls(&self) -> usize {
        CALLS.len()
    }

    fn ask(&mut self, ctl: &Ctl, call: usize, patience: &Patience) -> Answer {
        Answer::of_ctl(ctl, &Self::words(CALLS[call]), "", patience)
    }

    fn note(&mut self, call: usize, told: Told) {
        match CALLS[call] {
            Call::Create => learn(&mut self.states, told, State::Created),
            Call::Start | Call::StartAgain => learn_of_start(&mut self.states, told),
            Call::Stop => learn_of_stop(&mut self.states, told),
            Call::Remove => learn(&mut self.states, told, State::Absent),
        }
    }

    fn without_shim(&mut self, _logged: [u64; 2]) {
        self.shim_killed = true;
    }

    /// One that runs is reached, one that does not has no port; another one is reached by the same port.
    #[track_caller]
    fn expect_sound(&self, daemon: &Daemon, case: &str) {
        let allowed = may_be(&self.states, self.shim_killed);
        match settled(daemon, &allowed, case, self) {
            State::Running => expect_reached(daemon, true, case),
            State::Absent | State::Created | State::Exited => expect_reached(daemon, false, case),
        }
        let _ = daemon.ctl("rm -f one");
        daemon.expect_nothing_left();
        for call in [Call::Create, Call::Start] {
            daemon.ctl(&Self::words(call)).ok();
        }
        expect_reached(daemon, true, case);
        daemon.ctl(&Self::words(Call::Remove)).ok();
        expect_reached(daemon, false, case);
        daemon.expect_nothing_left();
    }
}

#[track_caller]
fn expect_reached(daemon: &Daemon, wanted: bool, case: &str) {
    let is_reached =
        || http::get(&daemon.netns().path(), LOCALHOST.into(), PORT, "/status").is_ok() == wanted;
    let is_so = wait::within(SETTLED, || is_reached().then_some(()));
    assert!(is_so.is_some(), "{case}: that its port answers is not {wanted}");
}
