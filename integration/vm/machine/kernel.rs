//! What the tests' kernel is to have.

use std::process::Command;

use integration::netns::run;

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn disks_that_fail_when_asked_to_can_be_made() {
    run(Command::new("modprobe").args(["-a", "dm-flakey", "dm-log-writes"]));
    let targets = run(Command::new("dmsetup").arg("targets"));
    for target in ["flakey", "log-writes"] {
        assert!(targets.lines().any(|line| line.starts_with(target)), "{targets}");
    }
}
