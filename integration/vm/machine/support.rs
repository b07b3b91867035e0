//! The machine's own bosund, as `make install` left it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use integration::ctl::{Ctl, Output, Running};
use integration::netns::run;
use integration::process::Process;
use integration::wait;

/// There is one such service, so one test at a time.
static ONE: Mutex<()> = Mutex::new(());

/// The service, started; its containers go with this value.
pub(crate) struct Service {
    ctl: Ctl,
    _one: MutexGuard<'static, ()>,
}

impl Service {
    pub(crate) fn start() -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let ctl = Ctl::new(Path::new("/usr/local/bin/ctl"), Path::new("/run/bosun/bosun.sock"));
        systemctl("start bosund");
        Self { ctl, _one: one }
    }

    #[track_caller]
    pub(crate) fn ctl(&self, words: &str) -> Output {
        self.ctl.run(words)
    }

    /// A client that goes on running beside the test.
    pub(crate) fn start_ctl(&self, words: &str, input: Stdio) -> Running {
        self.ctl.start(words, input)
    }

    #[track_caller]
    pub(crate) fn inspect(&self, container: &str, template: &str) -> String {
        self.ctl(&format!("inspect --format '{template}' {container}")).text()
    }

    /// Process 1 of a running container.
    #[track_caller]
    pub(crate) fn process(&self, container: &str) -> Process {
        let pid: u32 = self.inspect(container, "{{.State.Pid}}").parse().expect("a pid");
        assert_ne!(pid, 0, "{container} does not run");
        Process(pid)
    }

    /// The daemon, once systemd says that it is ready.
    pub(crate) fn daemon() -> Process {
        wait::until("bosund.service to be active", || {
            (systemctl_show("ActiveState") == "active").then_some(())
        });
        Process(systemctl_show("MainPID").parse().expect("a pid"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal = Command::new("journalctl").args(["-u", "bosund", "-n", "40"]).output();
            eprintln!("{}", String::from_utf8_lossy(&journal.unwrap().stdout));
        }
        systemctl("start bosund");
        let ids = self.ctl("ps -a -q").stdout.replace('\n', " ");
        if !ids.is_empty() {
            let _ = self.ctl(&format!("rm -f {ids}"));
        }
        systemctl("stop bosund");
    }
}

/// # Panics
/// When it fails.
#[track_caller]
pub(crate) fn systemctl(words: &str) {
    run(Command::new("systemctl").args(words.split(' ')));
}

/// A property of the service.
pub(crate) fn systemctl_show(property: &str) -> String {
    property_of("bosund", property)
}

/// A property of a unit.
pub(crate) fn property_of(unit: &str, property: &str) -> String {
    let text = run(Command::new("systemctl").args(["show", "--value", "-p", property, unit]));
    text.trim().to_owned()
}
