//! Requests to specs, and on to plans.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use shim_plan::capability::CapabilitySet;
use shim_plan::{Layers, Writable};

use super::*;
use crate::apparmor::Support;

/// A machine of the tests' own: two CPUs, everything a kernel can do.
pub(super) fn machine() -> Machine {
    Machine {
        online_cpus: [0, 1].into(),
        capabilities: CapabilitySet::all(40),
        kernel: (6, 1),
        hostname: "machine".to_owned(),
        counts_swap: true,
        oom_score_floor: Some(0),
        thermal_paths: vec!["/sys/devices/system/cpu/cpu0/thermal_throttle".to_owned()],
        apparmor: Support::Absent,
    }
}

pub(super) fn web() -> ContainerOptions {
    ContainerOptions {
        name: "web".to_owned(),
        rootfs: Some(PathBuf::from("/")),
        command: ["/usr/bin/python3", "-m", "http.server"].map(str::to_owned).to_vec(),
        tty: true,
        ..ContainerOptions::default()
    }
}

fn generated_on(options: &ContainerOptions, machine: &Machine) -> Result<Generated, Error> {
    generate(
        options,
        &Surroundings {
            id: "0123456789abcdef",
            cgroup: "bosun/default/0123456789abcdef",
            etc: Path::new("/run/bosun/containers/default/0123456789abcdef"),
            container_dir: Path::new("/var/lib/bosun/containers/default/0123456789abcdef"),
            own_directories: &[],
            machine,
        },
    )
}

pub(super) fn generated(change: impl FnOnce(&mut ContainerOptions)) -> Result<Generated, Error> {
    let mut options = web();
    change(&mut options);
    generated_on(&options, &machine())
}

fn said(change: impl FnOnce(&mut ContainerOptions)) -> String {
    generated(change).unwrap_err().to_string()
}

fn bounding(spec: &Spec) -> CapabilitySet {
    let process = spec.process().as_ref().unwrap();
    let sets = process.capabilities().as_ref().unwrap();
    assert_eq!(sets.bounding(), sets.effective());
    assert_eq!(sets.bounding(), sets.permitted());
    assert!(sets.inheritable().as_ref().unwrap().is_empty());
    assert!(sets.ambient().as_ref().unwrap().is_empty());
    let names: Vec<String> =
        sets.bounding().iter().flatten().map(|name| format!("CAP_{name}")).collect();
    CapabilitySet::of(names.iter().map(String::as_str)).unwrap()
}

fn lowered(generated: &Generated, options: &ContainerOptions) -> shim_wire::plan::Plan {
    let layers = Layers::Overlay {
        lower: vec!["/".to_owned()],
        writable: Some(Writable { upper: "/u".into(), work: "/w".into(), volatile: false }),
    };
    let place = PlanPlace {
        id: "c",
        bundle: Path::new("/b"),
        attempt: 1,
        layers,
        log: Path::new("/var/lib/bosun/containers/default/web/web-json.log"),
        cgroup: "unused",
    };
    let spec: Spec = serde_json::from_str(&generated.json).unwrap();
    assert_eq!(spec, generated.spec, "the stored text is the spec");
    shim_plan::plan(&spec, &plan_context(options, place)).unwrap().1
}

#[test]
fn a_request_without_a_wish_is_docker_s_container() {
    let made = generated(|_| {}).unwrap();
    let linux = made.spec.linux().as_ref().unwrap();
    let process = made.spec.process().as_ref().unwrap();
    assert_eq!(made.spec.hostname().as_deref(), Some("0123456789ab"));
    assert_eq!(made.args, ["/usr/bin/python3", "-m", "http.server"]);
    assert_eq!(process.rlimits(), &None, "limits are not raised");
    assert_eq!(process.oom_score_adj(), None);
    assert_eq!(process.no_new_privileges(), Some(false));
    assert_eq!(
        process.env().as_ref().unwrap(),
        &[
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOSTNAME=0123456789ab",
            "TERM=xterm"
        ]
    );
    assert_eq!(bounding(&made.spec).0, 0xa804_25fb, "docker's 14, as /proc/PID/status has them");
    assert_eq!(
        linux.cgroups_path().as_ref().unwrap(),
        Path::new("/bosun/default/0123456789abcdef")
    );
    assert!(linux.resources().as_ref().unwrap().memory().is_none());
    assert!(linux.resources().as_ref().unwrap().pids().is_none());
    assert!(linux.rootfs_propagation().is_none());
    assert!(made.warnings.is_empty());
    let plan = lowered(&made, &web());
    assert!(!plan.process.unwrap().seccomp.is_empty());
}

#[test]
fn masked_and_read_only_paths_are_the_golden_list() {
    let made = generated(|_| {}).unwrap();
    let linux = made.spec.linux().as_ref().unwrap();
    assert_eq!(
        linux.masked_paths().as_ref().unwrap(),
        &[
            "/proc/acpi",
            "/proc/asound",
            "/proc/interrupts",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/sched_debug",
            "/proc/scsi",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/sys/devices/virtual/powercap",
            "/sys/firmware",
            "/sys/devices/system/cpu/cpu0/thermal_throttle",
        ]
    );
    assert_eq!(
        linux.readonly_paths().as_ref().unwrap(),
        &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    );
}

#[test]
fn capabilities_are_added_and_dropped_as_docker_does() {
    let default = 0xa804_25fb_u64;
    let all = (1_u64 << 41) - 1;
    let (net_admin, net_raw, chown) = (1_u64 << 12, 1_u64 << 13, 1_u64);
    let table: [(&[&str], &[&str], bool, u64); 9] = [
        (&[], &[], false, default),
        (&["NET_ADMIN"], &[], false, default | net_admin),
        (&["cap_net_admin"], &["CAP_NET_RAW"], false, (default | net_admin) & !net_raw),
        (&["CHOWN"], &["CHOWN"], false, default),
        (&["ALL"], &[], false, all),
        (&["all"], &["CHOWN"], false, all & !chown),
        (&[], &["ALL"], false, 0),
        (&["CHOWN"], &["ALL"], false, chown),
        (&[], &["NET_RAW"], true, all & !net_raw),
    ];
    for (add, drop, privileged, expected) in table {
        let made = generated(|options| {
            options.cap_add = add.iter().map(|name| (*name).to_owned()).collect();
            options.cap_drop = drop.iter().map(|name| (*name).to_owned()).collect();
            options.privileged = privileged;
        });
        assert_eq!(bounding(&made.unwrap().spec).0, expected, "{add:?} {drop:?} {privileged}");
    }
    assert!(
        said(|options| options.cap_add = vec!["FLY".into()]).contains("\"FLY\" does not exist")
    );
    assert!(said(|options| options.cap_drop = vec!["".into()]).contains("\"\" does not exist"));
}

#[test]
fn what_the_daemon_does_not_have_can_t_be_given() {
    let three = CapabilitySet(1 | 1 << 5 | 1 << 21);
    let poor = Machine { capabilities: three, ..machine() };
    let with = |change: fn(&mut ContainerOptions)| {
        let mut options = web();
        change(&mut options);
        generated_on(&options, &poor)
    };
    assert_eq!(
        bounding(&with(|_| {}).unwrap().spec).0,
        1 | 1 << 5,
        "of the default, what there is"
    );
    let privileged = with(|options| options.privileged = true).unwrap();
    assert_eq!(bounding(&privileged.spec), three);
    let all = with(|options| options.cap_add = vec!["ALL".into()]).unwrap();
    assert_eq!(bounding(&all.spec), three);
    let said = with(|options| options.cap_add = vec!["BPF".into()]).unwrap_err().to_string();
    assert!(said.contains("CAP_BPF can't be given"), "{said}");
}

#[test]
fn a_privileged_container_has_the_host_s_devices_and_nothing_masked() {
    let options = ContainerOptions { privileged: true, ..web() };
    let made = generated_on(&options, &machine()).unwrap();
    let linux = made.spec.linux().as_ref().unwrap();
    assert!(linux.seccomp().is_none());
    assert!(linux.masked_paths().as_ref().is_none_or(Vec::is_empty));
    assert!(linux.readonly_paths().as_ref().is_none_or(Vec::is_empty));
    let devices = linux.devices().as_ref().unwrap();
    assert!(devices.iter().any(|device| device.path() == Path::new("/dev/null")));
    let plan = lowered(&made, &options);
    let nulls = plan.devices.iter().filter(|device| device.path == "/dev/null").count();
    assert_eq!(nulls, 1, "the host's node replaces the default one");
    assert!(plan.process.unwrap().seccomp.is_empty());
}

#[test]
fn the_network_decides_the_namespace() {
    let has_network = |network: NetworkMode| {
        let made = generated(|options| options.network = network).unwrap();
        let linux = made.spec.linux().as_ref().unwrap();
        linux.namespaces().iter().flatten().any(|namespace| namespace.typ().to_string() == "net")
    };
    assert!(has_network(NetworkMode::Bridge));
    assert!(has_network(NetworkMode::None));
    assert!(has_network(NetworkMode::Container("other".into())));
    assert!(!has_network(NetworkMode::Host));

    let none = ContainerOptions { network: NetworkMode::None, ..web() };
    let loopback = |options| lowered(&generated_on(options, &machine()).unwrap(), options).loopback;
    assert!(loopback(&none), "nobody else switches it on");
    assert!(!loopback(&web()), "the bridge did");

    let host = generated(|options| options.network = NetworkMode::Host).unwrap();
    assert_eq!(host.spec.hostname().as_deref(), Some("machine"));
}

#[test]
fn ports_belong_to_the_bridge() {
    let port = Port::parse("", 80, 80, Protocol::Tcp).unwrap();
    let with = |network: NetworkMode| {
        generated(|options| (options.network, options.ports) = (network, vec![port]))
    };
    assert!(with(NetworkMode::Bridge).unwrap().warnings.is_empty());
    assert!(with(NetworkMode::Host).unwrap().warnings[0].contains("network host"));
    let joined = with(NetworkMode::Container("other".into())).unwrap_err().to_string();
    assert!(joined.contains("publish them there"), "{joined}");
}

#[test]
fn covers_reach_the_plan_as_mounts_that_need_a_place() {
    let scratch = tempfile::tempdir().unwrap();
    let own = [scratch.path().join("lib/bosun")];
    std::fs::create_dir_all(&own[0]).unwrap();
    let machine = machine();
    let options = ContainerOptions { rootfs: Some(scratch.path().to_owned()), ..web() };
    let made = generate(
        &options,
        &Surroundings {
            id: "web",
            cgroup: "bosun/default/web",
            etc: Path::new("/run/x"),
            container_dir: Path::new("/var/lib/x"),
            own_directories: &own,
            machine: &machine,
        },
    )
    .unwrap();
    let plan = lowered(&made, &options);
    let covers: Vec<_> = plan.mounts.iter().filter(|mount| mount.only_if_present).collect();
    assert_eq!(covers.len(), 1);
    assert_eq!((covers[0].destination.as_str(), covers[0].kind.as_str()), ("/lib/bosun", "tmpfs"));
    assert_eq!(covers[0].flags & 1, 1, "read-only");
}

#[test]
fn limits_reach_the_spec() {
    let made = generated(|options| {
        options.limits = Limits {
            memory: Some(64 << 20),
            nano_cpus: Some(500_000_000),
            cpu_shares: Some(512),
            cpuset_cpus: "0".to_owned(),
            pids: Some(100),
            ..Limits::default()
        };
    })
    .unwrap();
    let linux = made.spec.linux().as_ref().unwrap();
    let resources = linux.resources().as_ref().unwrap();
    let memory = resources.memory().as_ref().unwrap();
    assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(128 << 20)));
    let cpu = resources.cpu().as_ref().unwrap();
    assert_eq!((cpu.quota(), cpu.period(), cpu.shares()), (Some(50_000), Some(100_000), Some(512)));
    assert_eq!(cpu.cpus().as_deref(), Some("0"));
    assert_eq!(resources.pids().as_ref().unwrap().limit(), 100);
    assert_eq!(resources.devices().as_ref().unwrap().len(), 3);
}

#[test]
fn an_oom_score_that_can_t_be_had_is_refused() {
    assert!(said(|options| options.oom_score_adj = Some(-1)).contains("CAP_SYS_RESOURCE"));
    assert!(said(|options| options.oom_score_adj = Some(1001)).contains("\"1001\""));
    let made = generated(|options| options.oom_score_adj = Some(500)).unwrap();
    assert_eq!(made.spec.process().as_ref().unwrap().oom_score_adj(), Some(500));
    let free = Machine { oom_score_floor: None, ..machine() };
    let options = ContainerOptions { oom_score_adj: Some(-500), ..web() };
    assert!(generated_on(&options, &free).is_ok());
}

#[test]
fn an_entry_point_comes_before_the_command_and_an_empty_one_is_none() {
    let words = |entrypoint: Option<&[&str]>| {
        generated(|options| {
            let owned = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
            options.entrypoint = entrypoint.map(owned);
            options.command = vec!["run".to_owned()];
        })
        .unwrap()
        .args
    };
    assert_eq!(words(None), ["run"]);
    assert_eq!(words(Some(&["/bin/app", "-v"])), ["/bin/app", "-v", "run"]);
    assert_eq!(words(Some(&[])), ["run"]);
}

#[test]
fn bad_input_names_the_thing_and_the_way_out() {
    assert!(said(|options| options.command.clear()).contains("ctl run --rootfs / /bin/sh"));
    assert!(said(|options| options.command = vec![String::new()]).contains("no command"));
    assert!(said(|options| options.user = "-1".into()).contains("user \"-1\""));
    assert!(said(|options| options.working_dir = "x".into()).contains("directory \"x\""));
    assert!(said(|options| options.hostname = "a b".into()).contains("hostname \"a b\""));
    assert!(said(|options| options.env = vec!["A".into()]).contains("\"A\" is not NAME=value"));
    assert!(said(|options| options.rootfs = Some("/nowhere".into())).contains("rootfs /nowhere"));
    assert!(said(|options| options.rootfs = Some("/dev/null".into())).contains("rootfs /dev/null"));
    assert!(said(|options| options.limits.memory = Some(-1)).contains("memory limit \"-1\""));
}

#[test]
fn the_log_of_a_plan_is_the_request_s() {
    let (id, bundle, log) = ("c", Path::new("/b"), Path::new("/l"));
    let place = |layers| PlanPlace { id, bundle, attempt: 3, layers, log, cgroup: "c" };
    let context = plan_context(&web(), place(Layers::Spec));
    let log = context.log.unwrap();
    assert_eq!((log.format(), log.path.as_str(), log.max_files), (json(), "/l", 1));
    assert_eq!((context.attempt, context.network_handed_over), (3, true));
    let quiet = ContainerOptions { log: LogOptions::None, ..web() };
    let log = plan_context(&quiet, place(Layers::Spec)).log.unwrap();
    assert_eq!((log.format(), log.path.as_str()), (shim_wire::plan::LogFormat::None, ""));
}

fn json() -> shim_wire::plan::LogFormat {
    shim_wire::plan::LogFormat::JsonFile
}

#[test]
fn a_container_has_the_default_profile_where_the_machine_can_have_it() {
    let full = Support::Full { parser: PathBuf::from("/usr/sbin/apparmor_parser") };
    let partly = Support::NoDefault { reason: "no parser" };
    let default = Some("bosun-default");
    for (privileged, asked, support, expected) in [
        (false, "", &full, Ok(default)),
        (true, "", &full, Ok(None)),
        (false, "unconfined", &full, Ok(None)),
        (false, "bosun-default", &full, Ok(default)),
        (true, "bosun-default", &full, Ok(default)),
        (false, "", &partly, Ok(None)),
        (false, "", &Support::Absent, Ok(None)),
        (false, "unconfined", &Support::Absent, Ok(None)),
        // Stacked ones are in no list of the kernel's.
        (false, "one//&two", &partly, Ok(Some("one//&two"))),
        (false, "no-such-profile", &full, Err("\"no-such-profile\"")),
        (false, "no-such-profile", &Support::Absent, Err("not enabled")),
        (false, "bosun-default", &Support::Absent, Err("\"bosun-default\"")),
    ] {
        let mut options = ContainerOptions { privileged, ..web() };
        options.security.apparmor = asked.to_owned().into();
        let made = generated_on(&options, &Machine { apparmor: support.clone(), ..machine() });
        let found = made.map_err(|error| error.to_string()).map(|made| {
            made.spec.process().as_ref().and_then(|process| process.apparmor_profile().clone())
        });
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.as_deref(), expected, "{asked:?}"),
            (Err(said), Err(expected)) => assert!(said.contains(expected), "{said}"),
            (found, expected) => panic!("{asked:?}, {support:?}: {found:?}, not {expected:?}"),
        }
    }
}

/// What the runtime passes over of a profile is said when the container is made, and what it could not
/// run under is refused then.
#[test]
fn rules_of_a_profile_without_effect_are_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.json");
    let with = |text: &str| {
        std::fs::write(&path, text).unwrap();
        generated(|options| options.security.seccomp = Seccomp::Profile(path.clone()))
            .and_then(|made| made.rules_without_effect())
    };
    let allows = |names: &str| {
        format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":[{names}],"action":"SCMP_ACT_ALLOW"}}]}}"#
        )
    };
    assert_eq!(with(&allows(r#""read""#)).unwrap(), Vec::<String>::new());
    let said = with(&allows(r#""read","no_such_call""#)).unwrap();
    let [said] = &said[..] else { panic!("{said:?}") };
    assert!(said.contains("linux.seccomp.syscalls[0].names[1]: \"no_such_call\""), "{said}");
    let open = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["no_such_call"],"action":"SCMP_ACT_ERRNO"}]}"#;
    let said = with(open).unwrap_err().to_string();
    assert!(said.contains("linux.seccomp.syscalls[0].names[0]"), "{said}");
}
