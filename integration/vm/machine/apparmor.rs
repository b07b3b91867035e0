//! Containers under profiles of AppArmor: bosun's own, those of the machine's, and none.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use bosun_proto::cri;
use bosun_proto::cri::security_profile::ProfileType;
use integration::daemon::Daemon;
use integration::kubelet::{self, Kubelet};

const DEFAULT: &str = "bosun-default (enforce)";
const LABEL: &str = "cat /proc/self/attr/current";

/// A loaded profile that denies reading `/etc/passwd`; it goes with this value.
pub(crate) struct Profile(pub(crate) &'static str);

impl Profile {
    pub(crate) fn load(name: &'static str) -> Self {
        let rules = "file, capability, network, mount, umount, pivot_root, signal, ptrace, unix,
            deny /etc/passwd r,";
        parser("--replace", name, rules);
        Self(name)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        parser("--remove", self.0, "");
    }
}

fn parser(action: &str, name: &str, rules: &str) {
    let text = format!("profile {name} flags=(attach_disconnected,mediate_deleted) {{ {rules} }}");
    let mut parser = Command::new("apparmor_parser")
        .args([action, "--skip-cache"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(parser.wait().unwrap().success(), "apparmor_parser {action}");
}

fn run(flags: &str, script: &str) -> String {
    format!("run --rm --net none {flags} --rootfs / /bin/sh -c '{script}'")
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn a_container_that_asks_for_nothing_has_the_default_profile() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --init --name one --net none --rootfs / /bin/sleep 600").ok();
    let label = daemon.process("one").path("attr/current");
    assert_eq!(fs::read_to_string(label).unwrap().trim(), DEFAULT);
    assert_eq!(daemon.ctl(&format!("exec one {LABEL}")).text(), DEFAULT);
    assert_eq!(daemon.ctl(&format!("exec --privileged one {LABEL}")).text(), DEFAULT);
    assert_eq!(daemon.inspect("one", "{{.AppArmorProfile}}"), "bosun-default");
    // Its processes signal each other, and it is ended from outside: with TERM, which its init hands
    // on, as with KILL.
    let script = "sleep 600 & kill $!; wait $!; echo $?";
    assert_eq!(daemon.ctl(&format!("exec one /bin/sh -c '{script}'")).text(), "143");
    daemon.ctl("kill -s TERM one").ok();
    assert_eq!(daemon.ctl("wait one").waited(), "143");
    daemon.ctl("start one").ok();
    daemon.ctl("rm -f one").ok();
    assert_eq!(daemon.ctl(&run("--uidmap 0:100000:65536", LABEL)).text(), DEFAULT);
    daemon.ctl("pod create --net none --share-pid pod").ok();
    let member = format!("run --rm --pod pod --rootfs / {LABEL} /proc/1/attr/current");
    assert_eq!(daemon.ctl(&member).text(), format!("{DEFAULT}\n{DEFAULT}"), "and its pod's init");
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn another_profile_or_none_is_asked_for_by_name() {
    let daemon = Daemon::start();
    let profile = Profile::load("bosun-test-ctl");
    let with = |option: &str| run(&format!("--security-opt apparmor={option}"), LABEL);
    assert_eq!(daemon.ctl(&with(profile.0)).text(), "bosun-test-ctl (enforce)");
    let script = "cat /etc/passwd";
    let denied = run(&format!("--security-opt apparmor={}", profile.0), script);
    daemon.ctl(&denied).fails(1, &["Permission denied"]);
    assert_eq!(daemon.ctl(&with("unconfined")).text(), "unconfined");
    assert_eq!(daemon.ctl(&run("--privileged", LABEL)).text(), "unconfined");
    let words = format!("run --rm --net none --privileged --security-opt apparmor={}", profile.0);
    let words = format!("{words} --rootfs / {LABEL}");
    assert_eq!(daemon.ctl(&words).text(), "bosun-test-ctl (enforce)");
    let said = ["bosun-test-none", "is not loaded"];
    daemon.ctl(&with("bosun-test-none")).fails(125, &said);
    assert_eq!(daemon.ctl("ps -aq").text(), "");
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn the_default_profile_stands_where_nothing_else_does() {
    let daemon = Daemon::start();
    let inside = |profile: &str, script: &str| {
        let flags = format!("--privileged --security-opt apparmor={profile}");
        daemon.ctl(&run(&flags, script)).code
    };
    // Each writes what is there already, so that it changes nothing where it can.
    let rewrite = |file: &str| format!("value=$(cat {file}) && echo \"$value\" > {file}");
    for script in [
        "mount -t tmpfs none /mnt".to_owned(),
        "mount --bind /etc /mnt".to_owned(),
        "mount -o remount,rw /sys".to_owned(),
        rewrite("/proc/sys/kernel/core_pattern"),
        rewrite("/proc/sys/kernel/printk"),
        rewrite("/proc/sys/vm/swappiness"),
        rewrite("/proc/sys/net/ipv4/ip_default_ttl"),
        rewrite("/proc/irq/default_smp_affinity"),
        rewrite("/sys/kernel/mm/transparent_hugepage/enabled"),
        "head -c 1 /proc/kcore > /dev/null".to_owned(),
        "cat /sys/kernel/security/lsm".to_owned(),
    ] {
        let confined = inside("bosun-default", &script);
        assert_ne!(confined, Some(0), "{script}");
        let may = inside("unconfined", &script);
        let is_open = script.starts_with("mount ") || script.contains("/proc/sys/");
        assert!(may == Some(0) || !is_open, "{script}: it fails without a profile as well");
    }
    for script in [
        rewrite("/proc/sys/kernel/shmmax"),
        rewrite("/proc/self/oom_score_adj"),
        "mkdir /sys/fs/cgroup/one && rmdir /sys/fs/cgroup/one".to_owned(),
        "umount /dev/mqueue".to_owned(),
        "echo x > /tmp/x && chmod 755 /tmp/x && cp /bin/true /tmp/true && /tmp/true".to_owned(),
    ] {
        assert_eq!(inside("bosun-default", &script), Some(0), "{script}");
    }
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn processes_of_other_profiles_are_out_of_reach() {
    let daemon = Daemon::start();
    daemon.ctl("run -d --name one --net none --rootfs / /bin/sleep 600").ok();
    // Only the profile is between them: this one has all capabilities, and sees all processes.
    let other = std::process::id();
    let own = daemon.process("one").0;
    let enter = "--privileged --security-opt apparmor=bosun-default -v /proc:/host:ro";
    let inside = |script: &str| daemon.ctl(&run(enter, script)).code;
    assert_ne!(inside(&format!("readlink /host/{other}/exe")), Some(0), "of no profile");
    assert_eq!(inside(&format!("readlink /host/{own}/exe")), Some(0), "of the same one");
}

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn a_default_profile_that_was_taken_out_is_put_back() {
    let daemon = Daemon::start();
    assert_eq!(daemon.ctl(&run("", LABEL)).text(), DEFAULT);
    parser("--remove", "bosun-default", "");
    assert_eq!(daemon.ctl(&run("", LABEL)).text(), DEFAULT);
}

type Context = cri::LinuxContainerSecurityContext;

#[test]
#[ignore = "runs in the virtual machine of `make test-vm`"]
fn a_container_of_a_pod_has_the_profile_that_a_kubelet_asks_for() {
    let daemon = kubelet::node();
    let kubelet = Kubelet::of(&daemon);
    let mut sandbox = kubelet.pod_config("web");
    let linux = sandbox.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().privileged = true;
    let pod = kubelet.run_pod(&sandbox);
    let loaded = Profile::load("bosun-test-cri");
    let asked = |name: &str, change: &dyn Fn(&mut Context)| {
        let mut config = kubelet.container_config(name, LABEL);
        change(config.linux.as_mut().unwrap().security_context.as_mut().unwrap());
        config
    };
    let label = |name: &str, change: &dyn Fn(&mut Context)| {
        kubelet.output(&pod, &asked(name, change), &sandbox)
    };
    let profile = |kind: ProfileType, name: &str| {
        Some(cri::SecurityProfile { profile_type: kind.into(), localhost_ref: name.to_owned() })
    };
    let default = format!("{DEFAULT}\n");
    assert_eq!(label("nothing", &|_| {}), default);
    let runtime = profile(ProfileType::RuntimeDefault, "");
    assert_eq!(label("default", &|context| context.apparmor = runtime.clone()), default);
    let none = profile(ProfileType::Unconfined, "");
    assert_eq!(label("none", &|context| context.apparmor = none.clone()), "unconfined\n");
    assert_eq!(label("power", &|context| context.privileged = true), "unconfined\n");
    let own = profile(ProfileType::Localhost, loaded.0);
    let confined = "bosun-test-cri (enforce)\n";
    assert_eq!(label("own", &|context| context.apparmor = own.clone()), confined);
    #[expect(deprecated, reason = "older kubelets say it there")]
    let old =
        |name: &str, said: &str| label(name, &|context| context.apparmor_profile = said.to_owned());
    assert_eq!(old("old-own", "localhost/bosun-test-cri"), confined);
    assert_eq!(old("old-default", "runtime/default"), default);
    assert_eq!(old("old-none", "unconfined"), "unconfined\n");
    // It rules over what is there, and over an exec.
    let mut config = asked("denied", &|context| context.apparmor = own.clone());
    config.command =
        ["/bin/sh", "-c", "mkdir -p /etc; echo x > /etc/passwd; cat /etc/passwd; sleep 600"]
            .map(str::to_owned)
            .to_vec();
    let id = kubelet.run(&pod, &config, &sandbox);
    assert_eq!(kubelet.exec_text(&id, LABEL), confined.trim());
    let denied = kubelet.exec(&id, "cat /etc/passwd", 0).unwrap();
    let said = String::from_utf8_lossy(&denied.stderr).into_owned();
    assert!(denied.exit_code == 1 && said.contains("Permission denied"), "{said}");
    let unknown = profile(ProfileType::Localhost, "bosun-test-none");
    let config = asked("unknown", &|context| context.apparmor = unknown.clone());
    let refused = kubelet.try_create(&pod, &config, &sandbox).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("\"bosun-test-none\": it is not loaded"), "{refused}");
}
