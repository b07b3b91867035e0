//! AppArmor profiles around containers. Needs root, and a kernel that has AppArmor switched on, as
//! the virtual machine of `make test-vm` has: elsewhere there is one test, that it is refused.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(dead_code, reason = "of the tests' support only a part is used here")]

use std::io::Write;
use std::process::{Command, ExitCode, Stdio};

use shim_wire::plan::{ExecOptions, Process};

#[path = "support/runner.rs"]
mod runner;
#[path = "support/mod.rs"]
mod support;

use support::{Sandbox, finish};

fn main() -> ExitCode {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if enabled.is_ok_and(|enabled| enabled.trim() == "Y") {
        runner::main(runner::tests![
            a_profile_confines_a_container,
            a_profile_confines_an_exec,
            without_a_profile_nothing_is_confined,
            a_profile_that_is_not_loaded_is_named,
        ])
    } else {
        runner::main(runner::tests![is_refused_where_the_kernel_has_none])
    }
}

/// A loaded profile that denies reading `/etc/passwd` and nothing else; it goes with this value.
struct Profile {
    name: String,
}

impl Profile {
    fn load() -> Self {
        let profile = Self { name: format!("bosun-test-{}", std::process::id()) };
        profile.parser("--replace");
        profile
    }

    fn parser(&self, action: &str) {
        let text = format!(
            "profile {} flags=(attach_disconnected,mediate_deleted) {{
                file, capability, network, mount, umount, pivot_root, signal, ptrace, unix,
                deny /etc/passwd r,
            }}",
            self.name
        );
        let mut parser = Command::new("apparmor_parser")
            .args([action, "--skip-cache"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(parser.wait().unwrap().success(), "apparmor_parser {action}");
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parser("--remove");
    }
}

const SCRIPT: &str = "cat /proc/self/attr/current; cat /etc/group > /dev/null && cat /etc/passwd";

fn a_profile_confines_a_container() {
    let profile = Profile::load();
    let mut sandbox = Sandbox::script(SCRIPT);
    sandbox.process().apparmor = profile.name.clone();
    let outcome = sandbox.run();
    assert_eq!(outcome.stdout.trim(), format!("{} (enforce)", profile.name), "{outcome:?}");
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("'/etc/passwd': Permission denied"), "{outcome:?}");
}

fn a_profile_confines_an_exec() {
    let profile = Profile::load();
    let sandbox = Sandbox::script("sleep 1000");
    let created = sandbox.start();
    let args = ["/bin/sh", "-c", SCRIPT].map(str::to_owned).to_vec();
    let apparmor = profile.name.clone();
    let process = Process { args, apparmor, ..support::process() };
    let options = ExecOptions { process: Some(process), ..ExecOptions::default() };
    let outcome = finish(sandbox.exec(&created, &options).unwrap());
    assert_eq!(outcome.stdout.trim(), format!("{} (enforce)", profile.name), "{outcome:?}");
    assert!(outcome.stderr.contains("'/etc/passwd': Permission denied"), "{outcome:?}");
}

fn without_a_profile_nothing_is_confined() {
    let outcome = Sandbox::script(SCRIPT).run();
    assert!(outcome.stdout.starts_with("unconfined\n"), "{outcome:?}");
    assert_eq!(outcome.code, 0, "{outcome:?}");
}

fn a_profile_that_is_not_loaded_is_named() {
    let mut sandbox = Sandbox::script(SCRIPT);
    sandbox.process().apparmor = "bosun-test-nobody-loaded-this".to_owned();
    let error = sandbox.error().to_string();
    assert!(error.contains("bosun-test-nobody-loaded-this"), "{error}");
}

fn is_refused_where_the_kernel_has_none() {
    let mut sandbox = Sandbox::script(SCRIPT);
    sandbox.process().apparmor = "bosun-test".to_owned();
    let error = sandbox.error().to_string();
    assert!(error.contains("bosun-test"), "{error}");
}
