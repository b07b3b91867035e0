//! Whole specs, lowered.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod specs;

use std::path::PathBuf;

use oci_spec::runtime::Spec;
use serde_json::{Value, json};
use shim_plan::{Context, ExecContext, Layers, Writable, exec};
use shim_wire::hooks::{Hook, HookKind, State};
use shim_wire::plan::{
    BlockIo, CreateOptions, DeviceRule, HugepageLimit, IdMapping, Join, Log, LogFormat,
    NetworkPriority, Plan, PlanMount, RdmaLimit, Resources, Rlimit, Rootfs, Sysctl, ThrottleDevice,
    TimeOffset, WeightDevice,
};

use specs::{lower, minimal, minimal_context, with};

const NEWNS: u64 = 0x2_0000;
const NEWUTS: u64 = 0x400_0000;
const NEWIPC: u64 = 0x800_0000;
const NEWPID: u64 = 0x2000_0000;
const NEWNET: u64 = 0x4000_0000;

/// A `config.json` with everything that docker writes.
fn docker() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": true,
            "consoleSize": {"height": 24, "width": 80},
            "user": {"uid": 1000, "gid": 50, "umask": 0o022, "additionalGids": [50, 100]},
            "args": ["nginx", "-g", "daemon off;"],
            "env": ["PATH=/usr/bin:/bin", "EMPTY="],
            "cwd": "/srv",
            "capabilities": {
                "bounding": ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"],
                "effective": ["CAP_CHOWN"],
                "permitted": ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"],
                "inheritable": [],
                "ambient": ["CAP_CHECKPOINT_RESTORE"]
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}],
            "noNewPrivileges": true,
            "apparmorProfile": "docker-default",
            "oomScoreAdj": 100
        },
        "root": {"path": "/var/lib/docker/overlay2/x/merged", "readonly": true},
        "hostname": "web",
        "domainname": "example.org",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "gid=5"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup2",
             "options": ["ro", "nosuid"]},
            {"destination": "/data", "source": "data", "options": ["rbind", "ro", "rslave"]},
            {"destination": "/var/lib/bosun", "type": "tmpfs", "source": "tmpfs",
             "options": ["ro"]}
        ],
        "annotations": {"io.bosun.covers": "[\"/var/lib/bosun\"]", "other": "x"},
        "hooks": {"prestart": []},
        "linux": {
            "sysctl": {"net.ipv4.conf.eth0/1.forwarding": "1", "kernel.shmmax": "4096"},
            "cgroupsPath": "/bosun/default/web",
            "resources": {
                "devices": [
                    {"allow": false, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 10, "minor": -1, "access": "rw"}
                ],
                "memory": {"limit": 67108864, "swap": -1, "disableOOMKiller": false},
                "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0-1"},
                "pids": {"limit": 100},
                "blockIO": {"weight": 0}
            },
            "namespaces": [
                {"type": "mount"}, {"type": "uts"}, {"type": "pid"}, {"type": "ipc"},
                {"type": "network"}, {"type": "cgroup"}
            ],
            "devices": [
                {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229,
                 "fileMode": 0o20660, "uid": 0, "gid": 44},
                {"path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600}
            ],
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW",
                        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]},
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"]
        }
    })
}

fn context() -> Context {
    Context {
        attempt: 2,
        log: Some(Log {
            format: LogFormat::JsonFile.into(),
            path: "/log".into(),
            max_size: 0,
            max_files: 1,
        }),
        layers: Layers::Overlay {
            lower: vec!["/l1".into(), "/l2".into()],
            writable: Some(Writable { upper: "/u".into(), work: "/w".into(), volatile: true }),
        },
        bundle: Some(PathBuf::from("/bundle")),
        network_handed_over: true,
        stdin: true,
        user: "www:users".into(),
        init: true,
        ..Context::default()
    }
}

fn docker_plan() -> (CreateOptions, Plan) {
    lower(docker(), &context()).unwrap()
}

#[test]
fn what_the_shim_itself_needs_of_a_docker_spec() {
    let (create, _) = docker_plan();
    let resources = create.resources.clone().unwrap();
    assert_eq!(
        create,
        CreateOptions {
            attempt: 2,
            clone_flags: NEWNS | NEWUTS | NEWPID | NEWIPC,
            join: vec![Join { kind: NEWNET, path: String::new(), index: 4 }],
            cgroup: "bosun/default/web".into(),
            resources: Some(resources.clone()),
            terminal: true,
            stdin: true,
            stdin_once: false,
            log: context().log,
            width: 80,
            height: 24,
            new_cgroup_namespace: true,
            ..CreateOptions::default()
        }
    );
    let rules = resources.devices.clone();
    assert_eq!(
        Resources { devices: Vec::new(), ..resources },
        Resources {
            memory: Some(64 << 20),
            memory_swap: Some(-1),
            cpu_shares: Some(512),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            cpuset_cpus: "0-1".into(),
            pids: Some(100),
            ..Resources::default()
        }
    );
    let text = |rule: &DeviceRule| {
        let number = |number: Option<i64>| number.map_or("*".into(), |number| number.to_string());
        let DeviceRule { allow, kind, major, minor, access } = rule;
        let sign = if *allow { '+' } else { '-' };
        format!("{sign}{kind} {}:{} {access}", number(*major), number(*minor))
    };
    assert_eq!(
        rules.iter().map(text).collect::<Vec<_>>(),
        [
            "-a *:* rwm",
            "+c 10:* rw",
            "+c *:* m",
            "+b *:* m",
            "+c 1:3 rwm",
            "+c 1:5 rwm",
            "+c 1:7 rwm",
            "+c 1:8 rwm",
            "+c 1:9 rwm",
            "+c 5:0 rwm",
            "+c 136:* rwm",
            "+c 5:2 rwm",
        ],
        "the spec's rules, then what default devices and terminals need"
    );
}

#[test]
fn every_limit_of_the_specification_is_lowered() {
    let spec = serde_json::from_value(json!({
        "memory": {"limit": 1 << 30, "reservation": 1 << 20, "swap": -1, "kernel": 5,
                   "kernelTCP": 6, "swappiness": 7, "disableOOMKiller": true,
                   "useHierarchy": true, "checkBeforeUpdate": true},
        "cpu": {"shares": 2, "quota": -1, "burst": 3, "period": 4000, "realtimeRuntime": 5,
                "realtimePeriod": 6, "cpus": "0", "mems": "1", "idle": 0},
        "pids": {"limit": -1},
        "blockIO": {"weight": 10, "leafWeight": 11,
            "weightDevice": [{"major": 8, "minor": 1, "weight": 12, "leafWeight": 13}],
            "throttleReadBpsDevice": [{"major": 8, "minor": 2, "rate": 14}],
            "throttleWriteBpsDevice": [{"major": 8, "minor": 3, "rate": 15}],
            "throttleReadIOPSDevice": [{"major": 8, "minor": 4, "rate": 16}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 5, "rate": 0}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 17}],
        "rdma": {"b": {"hcaObjects": 18}, "a": {"hcaHandles": 19}},
        "network": {"classID": 20, "priorities": [{"name": "eth0", "priority": 21}]},
        "unified": {"memory.high": "max", "io.max": "8:0 rbps=1\n8:1 rbps=2"}
    }));
    let throttle = |minor, rate| vec![ThrottleDevice { major: 8, minor, rate }];
    let expected = Resources {
        memory: Some(1 << 30),
        memory_swap: Some(-1),
        memory_reservation: Some(1 << 20),
        cpu_shares: Some(2),
        cpu_quota: Some(-1),
        cpu_period: Some(4000),
        cpuset_cpus: "0".into(),
        cpuset_mems: "1".into(),
        pids: Some(-1),
        devices: Vec::new(),
        memory_swappiness: Some(7),
        oom_kill_disable: Some(true),
        memory_check: true,
        cpu_burst: Some(3),
        cpu_idle: Some(0),
        cpu_rt_runtime: Some(5),
        cpu_rt_period: Some(6),
        block_io: Some(BlockIo {
            weight: Some(10),
            leaf_weight: Some(11),
            weight_devices: vec![WeightDevice {
                major: 8,
                minor: 1,
                weight: Some(12),
                leaf_weight: Some(13),
            }],
            read_bps: throttle(2, 14),
            write_bps: throttle(3, 15),
            read_iops: throttle(4, 16),
            write_iops: throttle(5, 0),
        }),
        hugepages: vec![HugepageLimit { page_size: "2MB".into(), limit: 17 }],
        rdma: vec![
            RdmaLimit { device: "a".into(), handles: Some(19), objects: None },
            RdmaLimit { device: "b".into(), handles: None, objects: Some(18) },
        ],
        network_class: Some(20),
        network_priorities: vec![NetworkPriority { interface: "eth0".into(), priority: 21 }],
        unified: [("memory.high", "max"), ("io.max", "8:0 rbps=1\n8:1 rbps=2")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    };
    assert_eq!(shim_plan::resources(&spec.unwrap()).unwrap(), expected);
}

#[test]
fn systemd_names_the_group_where_it_is_asked_to() {
    let systemd = Context { systemd_cgroup: true, cgroup: "id".into(), ..minimal_context() };
    let spec = with(minimal(), "/linux/cgroupsPath", json!("a-b.slice:bosun:web"));
    let (create, _) = lower(spec, &systemd).unwrap();
    assert_eq!(create.cgroup, "a.slice/a-b.slice/bosun-web.scope");
    let (create, _) = lower(minimal(), &systemd).unwrap();
    assert_eq!(create.cgroup, "system.slice/bosun-id.scope");
    let plain = with(minimal(), "/linux/cgroupsPath", json!("/bosun/web"));
    let said = lower(plain, &systemd).unwrap_err();
    assert!(said.contains("is not SLICE:PREFIX:NAME"), "{said}");
}

#[test]
fn what_is_zero_or_empty_is_left_as_it_is() {
    let spec = serde_json::from_value(json!({
        "memory": {"limit": 0, "reservation": 0, "swap": 0, "swappiness": u64::MAX},
        "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": ""},
        "blockIO": {"weight": 0, "weightDevice": []},
        "network": {"classID": 0},
        "rdma": {}, "unified": {}, "hugepageLimits": [], "devices": []
    }));
    assert_eq!(shim_plan::resources(&spec.unwrap()).unwrap(), Resources::default());
}

#[test]
fn what_the_child_needs_of_a_docker_spec() {
    let (_, plan) = docker_plan();
    assert_eq!((plan.hostname.as_str(), plan.domainname.as_str()), ("web", "example.org"));
    assert_eq!(
        plan.rootfs.unwrap(),
        Rootfs {
            lower: vec!["/l1".into(), "/l2".into()],
            upper: "/u".into(),
            work: "/w".into(),
            volatile: true,
            directory: String::new(),
            readonly: true,
            ..Rootfs::default()
        }
    );
    let mount = |destination: &str, kind: &str, source: &str, flags, data: &str| PlanMount {
        destination: destination.into(),
        kind: kind.into(),
        source: source.into(),
        flags,
        data: data.into(),
        propagation: 0,
        ..PlanMount::default()
    };
    assert_eq!(
        plan.mounts,
        [
            mount("/proc", "proc", "proc", 0xe, ""),
            mount("/dev/pts", "devpts", "devpts", 0xa, "newinstance,ptmxmode=0666,gid=5"),
            mount("/sys/fs/cgroup", "cgroup2", "cgroup2", 0x3, ""),
            PlanMount {
                propagation: 0x8_4000,
                ..mount("/data", "bind", "/bundle/data", 0x5001, "")
            },
            PlanMount { only_if_present: true, ..mount("/var/lib/bosun", "tmpfs", "tmpfs", 1, "") },
        ]
    );
    assert_eq!(plan.masked_paths, ["/proc/kcore"]);
    assert_eq!(plan.readonly_paths, ["/proc/sys"]);
    let devices: Vec<_> = plan
        .devices
        .iter()
        .map(|device| (device.path.as_str(), device.major, device.minor, device.mode, device.gid))
        .collect();
    assert_eq!(
        devices,
        [
            ("/dev/null", 1, 3, Some(0o666), None),
            ("/dev/full", 1, 7, Some(0o666), None),
            ("/dev/random", 1, 8, Some(0o666), None),
            ("/dev/urandom", 1, 9, Some(0o666), None),
            ("/dev/tty", 5, 0, Some(0o666), None),
            ("/dev/fuse", 10, 229, Some(0o660), Some(44)),
            ("/dev/zero", 1, 5, Some(0o600), None),
        ],
        "the default nodes, less the one that the spec has its own way"
    );
    let sysctl = |path: &str, value: &str| Sysctl { path: path.into(), value: value.into() };
    assert_eq!(
        plan.sysctls,
        [sysctl("kernel/shmmax", "4096"), sysctl("net/ipv4/conf/eth0.1/forwarding", "1")]
    );
    assert!(!plan.loopback, "the network namespace came with its loopback");
    assert!(plan.new_cgroup_namespace);
}

#[test]
fn the_process_of_a_docker_spec() {
    let process = docker_plan().1.process.unwrap();
    assert_eq!(process.args, ["nginx", "-g", "daemon off;"]);
    assert_eq!(process.env, ["PATH=/usr/bin:/bin", "EMPTY="]);
    assert_eq!(process.cwd, "/srv");
    let user = process.user.unwrap();
    assert_eq!((user.uid, user.gid, user.name.as_str()), (1000, 50, "www:users"));
    assert_eq!(user.additional_gids, [50, 100]);
    let sets = process.capabilities.unwrap();
    assert_eq!(sets.bounding, 1 | 1 << 10);
    assert_eq!((sets.effective, sets.permitted), (1, 1 | 1 << 10));
    assert_eq!((sets.inheritable, sets.ambient), (0, 0), "what can't be ambient is not");
    assert_eq!(process.rlimits, [Rlimit { resource: 7, soft: 512, hard: 1024 }]);
    assert_eq!((process.oom_score_adj, process.umask), (Some(100), Some(0o022)));
    assert!(process.no_new_privileges && process.terminal && process.init);
    assert_eq!((process.apparmor.as_str(), process.selinux.as_str()), ("docker-default", ""));
    assert!(!process.seccomp.is_empty() && process.seccomp.len().is_multiple_of(8));
    assert_eq!(process.seccomp_flags, 2);
}

#[test]
fn a_spec_that_says_little_shares_the_rest_with_the_host() {
    let (create, plan) = lower(minimal(), &minimal_context()).unwrap();
    assert_eq!(create.clone_flags, NEWNS);
    assert_eq!((create.resources, create.log), (None, None));
    assert_eq!(create.cgroup, "fallback");
    assert!(!create.new_cgroup_namespace && !plan.loopback);
    let rootfs = plan.rootfs.unwrap();
    assert_eq!(rootfs.directory, "/bundle/rootfs");
    assert!(rootfs.lower.is_empty() && !rootfs.readonly);
    let process = plan.process.unwrap();
    let sets = process.capabilities.unwrap();
    assert_eq!(sets.bounding | sets.effective | sets.permitted, 0, "none listed, none held");
    assert!(process.seccomp.is_empty());
}

#[test]
fn namespaces_are_made_joined_or_handed_over() {
    let lowered = |namespaces: Value, handed: bool| {
        let context = Context { network_handed_over: handed, ..minimal_context() };
        lower(with(minimal(), "/linux/namespaces", namespaces), &context)
    };
    let own = json!([{"type": "mount"}, {"type": "network"}]);
    let (create, plan) = lowered(own.clone(), false).unwrap();
    assert_eq!((create.clone_flags, plan.loopback), (NEWNS | NEWNET, true));
    let (create, plan) = lowered(own, true).unwrap();
    assert_eq!((create.clone_flags, plan.loopback), (NEWNS, false));
    let path = json!([{"type": "mount"}, {"type": "network", "path": "/proc/1/ns/net"}]);
    let (create, plan) = lowered(path.clone(), false).unwrap();
    assert_eq!(create.join, [Join { kind: NEWNET, path: "/proc/1/ns/net".into(), index: 1 }]);
    assert!(!plan.loopback, "somebody else's");
    assert!(lowered(path, true).unwrap_err().starts_with("linux.namespaces[1].path: "));
    let host = json!([{"type": "mount"}]);
    assert!(lowered(host, true).unwrap_err().contains("this spec keeps the host's"));
}

#[test]
fn clocks_of_a_new_time_namespace() {
    let linux = json!({
        "namespaces": [{"type": "mount"}, {"type": "time"}],
        "timeOffsets": {"monotonic": {"secs": -3, "nanosecs": 5}, "boottime": {"secs": 7}}
    });
    let (create, plan) = lower(with(minimal(), "/linux", linux), &minimal_context()).unwrap();
    assert_eq!(create.clone_flags, NEWNS | 0x80);
    let offset = |clock: &str, seconds, nanoseconds| TimeOffset {
        clock: clock.into(),
        seconds,
        nanoseconds,
    };
    assert_eq!(plan.time_offsets, [offset("boottime", 7, 0), offset("monotonic", -3, 5)]);
}

#[test]
fn users_of_a_user_namespace() {
    let linux = |mut namespace: Value| {
        namespace["type"] = json!("user");
        json!({
            "namespaces": [{"type": "mount"}, namespace],
            "uidMappings": [{"containerID": 0, "hostID": 100_000, "size": 65536}],
            "gidMappings": [{"containerID": 0, "hostID": 200_000, "size": 10},
                            {"containerID": 10, "hostID": 1000, "size": 1}]
        })
    };
    let mapping = |inside, outside, size| IdMapping { inside, outside, size };
    for (namespace, flags) in
        [(json!({}), NEWNS | 0x1000_0000), (json!({"path": "/proc/7/ns/user"}), NEWNS)]
    {
        let spec = with(minimal(), "/linux", linux(namespace));
        let (create, plan) = lower(spec, &minimal_context()).unwrap();
        assert_eq!(create.clone_flags, flags);
        assert_eq!(plan.uid_mappings, [mapping(0, 100_000, 65536)]);
        assert_eq!(plan.gid_mappings, [mapping(0, 200_000, 10), mapping(10, 1000, 1)]);
        assert!(!plan.rootfs.unwrap().idmap, "a directory is the caller's to prepare");
    }
    let layers = context().layers;
    let context = Context { layers, ..minimal_context() };
    let spec = with(minimal(), "/linux", linux(json!({})));
    assert!(lower(spec, &context).unwrap().1.rootfs.unwrap().idmap);
}

#[test]
fn what_is_mounted_and_how() {
    let mounts = json!([
        {"destination": "a", "type": "ext4", "source": "/dev/x", "options": ["noload", "lazytime"]},
        {"destination": "/b", "type": "none", "source": "/b",
         "options": ["rbind", "rw", "rro", "ridmap"],
         "uidMappings": [{"containerID": 0, "hostID": 5, "size": 1}],
         "gidMappings": [{"containerID": 0, "hostID": 6, "size": 1}]},
        {"destination": "/c", "type": "tmpfs", "options": ["tmpcopyup", "size=1m"]},
        {"destination": "/d", "options": ["bind", "remount", "ro"]}
    ]);
    let spec = with(minimal(), "/mounts", mounts);
    let spec = with(spec, "/linux/rootfsPropagation", json!("rslave"));
    let spec = with(spec, "/linux/mountLabel", json!("system_u:object_r:x:s0:c1,c2"));
    let (_, plan) = lower(spec, &minimal_context()).unwrap();
    assert_eq!(plan.root_propagation, 0x8_4000);
    assert_eq!(plan.mount_label, "system_u:object_r:x:s0:c1,c2");
    let mapping = |outside| vec![IdMapping { inside: 0, outside, size: 1 }];
    let mount = |destination: &str, kind: &str, source: &str| PlanMount {
        destination: destination.into(),
        kind: kind.into(),
        source: source.into(),
        ..PlanMount::default()
    };
    assert_eq!(
        plan.mounts,
        [
            PlanMount { flags: 1 << 25, data: "noload".into(), ..mount("/a", "ext4", "/dev/x") },
            PlanMount {
                flags: 0x5000,
                cleared: 1,
                recursive_set: 1,
                idmap: 2,
                uid_mappings: mapping(5),
                gid_mappings: mapping(6),
                ..mount("/b", "bind", "/b")
            },
            PlanMount { copy_up: true, data: "size=1m".into(), ..mount("/c", "tmpfs", "tmpfs") },
            PlanMount { flags: 0x1021, ..mount("/d", "bind", "") },
        ]
    );
}

#[test]
fn a_host_s_dev_gets_no_nodes() {
    let dev = json!([{"destination": "/dev", "type": "bind", "source": "/dev"}]);
    let (_, plan) = lower(with(minimal(), "/mounts", dev), &minimal_context()).unwrap();
    assert!(plan.devices.is_empty());
    assert_eq!(plan.mounts[0].flags, 0x1000, "a bind by its type alone");
    // The machine has one devtmpfs: what is made in it is made for all.
    let dev = json!([{"destination": "/dev", "type": "devtmpfs", "source": "devtmpfs"}]);
    let spec = with(minimal(), "/mounts", dev);
    let devices = json!([{"path": "/dev/x", "type": "p"}, {"path": "/x", "type": "p"}]);
    let (_, plan) = lower(with(spec, "/linux/devices", devices), &minimal_context()).unwrap();
    let paths: Vec<_> = plan.devices.iter().map(|device| device.path.as_str()).collect();
    assert_eq!(paths, ["/x"]);
    let elsewhere = json!([{"destination": "/mnt//d", "type": "devtmpfs", "source": "devtmpfs"}]);
    let spec = with(minimal(), "/mounts", elsewhere);
    let devices = json!([{"path": "/mnt/dd", "type": "p"}, {"path": "/mnt/d/x", "type": "p"}]);
    let said = lower(with(spec, "/linux/devices", devices), &minimal_context()).unwrap_err();
    assert_eq!(
        said,
        "linux.devices[1].path: it lies in a devtmpfs, which is the host's /dev: nothing is made in it"
    );
}

#[test]
fn relative_paths_need_a_bundle() {
    let context = Context { bundle: None, ..minimal_context() };
    let said = lower(minimal(), &context).unwrap_err();
    assert_eq!(said, "root.path: \"rootfs\" is not an absolute path");
}

#[test]
fn an_exec_is_lowered_like_the_first_process() {
    let spec: Spec = serde_json::from_value(docker()).unwrap();
    let seccomp = spec.linux().as_ref().unwrap().seccomp().clone();
    let context = ExecContext { stdin: true, user: "root".into(), ..ExecContext::default() };
    let process = spec.process().clone().unwrap();
    let lowered = exec(&process, seccomp.as_ref(), &context).unwrap();
    assert_eq!((lowered.stdin, lowered.width, lowered.height), (true, 80, 24));
    let first = docker_plan().1.process.unwrap();
    let own = lowered.process.unwrap();
    assert_eq!((&own.seccomp, &own.capabilities), (&first.seccomp, &first.capabilities));
    assert_eq!(own.user.unwrap().name, "root");
    assert!(!own.init);

    let mut refused = process;
    refused.set_args(None);
    let said = exec(&refused, None, &context).unwrap_err().to_string();
    assert_eq!(said, "process.args: missing");
}

#[test]
fn hooks_keep_their_order_and_are_told_the_state() {
    let spec = with(
        with(minimal(), "/annotations", json!({"a": "b"})),
        "/hooks",
        json!({
            "poststop": [{"path": "/z"}],
            "createRuntime": [
                {"path": "/a", "args": ["a", "-x"], "env": ["K=v"], "timeout": 5},
                {"path": "/b"},
            ],
            "poststart": [],
        }),
    );
    let context = Context { id: "web".into(), ..minimal_context() };
    let (create, plan) = lower(spec.clone(), &context).unwrap();
    let kinds = HookKind::CreateRuntime.bit() | HookKind::Poststop.bit();
    assert_eq!(create.hooks, kinds);
    assert_eq!(plan.rootfs.unwrap().shown_at, "/bundle/rootfs");
    let spec: Spec = serde_json::from_value(spec).unwrap();
    let hooks = shim_plan::hooks(&spec, &context).unwrap().unwrap();
    assert_eq!(hooks.kinds(), kinds);
    let hook = |kind: HookKind, path: &str| Hook {
        kind: kind.into(),
        path: path.into(),
        ..Hook::default()
    };
    assert_eq!(
        hooks.hooks,
        [
            Hook {
                args: vec!["a".into(), "-x".into()],
                env: vec!["K=v".into()],
                timeout: 5,
                ..hook(HookKind::CreateRuntime, "/a")
            },
            hook(HookKind::CreateRuntime, "/b"),
            hook(HookKind::Poststop, "/z"),
        ]
    );
    let expected = State {
        oci_version: "1.0.2".into(),
        id: "web".into(),
        bundle: "/bundle".into(),
        annotations: [("a".into(), "b".into())].into(),
    };
    assert_eq!(hooks.state, Some(expected));
}

#[test]
fn without_hooks_there_is_nothing_to_write_and_nowhere_to_show_the_rootfs() {
    for hooks in [json!({}), json!({"prestart": []})] {
        let spec = with(minimal(), "/hooks", hooks);
        let (create, plan) = lower(spec.clone(), &minimal_context()).unwrap();
        assert_eq!((create.hooks, plan.rootfs.unwrap().shown_at), (0, String::new()));
        let spec: Spec = serde_json::from_value(spec).unwrap();
        assert_eq!(shim_plan::hooks(&spec, &minimal_context()).unwrap(), None);
    }
}

#[test]
fn a_spec_with_all_of_the_host_s_devices_has_its_own_terminals() {
    let devices = json!([{"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2}]);
    let (_, plan) = lower(with(minimal(), "/linux/devices", devices), &minimal_context()).unwrap();
    assert!(plan.devices.iter().all(|device| device.path != "/dev/ptmx"));
    let devices = json!([{"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 1}]);
    let (_, plan) = lower(with(minimal(), "/linux/devices", devices), &minimal_context()).unwrap();
    assert!(plan.devices.iter().any(|device| device.path == "/dev/ptmx"), "some other device");
}
