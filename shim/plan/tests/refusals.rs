//! Specs that can't be lowered: each is refused by the path of its field.

mod specs;

use serde_json::{Value, json};

use specs::{lower, minimal, minimal_context, with};

#[test]
fn what_is_not_done_is_refused_by_its_path() {
    let table = [
        ("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt: not supported"),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND"}), "linux.memoryPolicy: not supported"),
        ("/linux/netDevices", json!({"eth0": {}}), "linux.netDevices: not supported"),
        (
            "/linux/rootfsPropagation",
            json!("everywhere"),
            "linux.rootfsPropagation: \"everywhere\" is not supported",
        ),
        (
            "/linux/cgroupsPath",
            json!("a.slice:b:c"),
            "linux.cgroupsPath: \"a.slice:b:c\" is not supported",
        ),
        ("/vm", json!({"kernel": {"path": "/x"}}), "vm: not supported"),
    ];
    for (path, value, message) in table {
        let said = lower(with(minimal(), path, value), &minimal_context()).unwrap_err();
        assert_eq!(said, message);
    }
}

#[test]
fn what_is_malformed_or_contradicts_itself_is_named_by_its_path() {
    let table = [
        ("/process", Value::Null, "process: missing"),
        ("/root", Value::Null, "root: missing"),
        ("/linux", Value::Null, "linux: missing"),
        ("/process/args", json!([]), "process.args: missing"),
        ("/process/args", json!([""]), "process.args: missing"),
        ("/process/args", json!(["a", "b\0"]), "process.args[1]: \"b\\0\" is not text"),
        ("/process/env", json!(["A=1", "B"]), "process.env[1]: \"B\" is not NAME=value"),
        ("/process/env", json!(["=1"]), "process.env[0]: \"=1\" is not NAME=value"),
        ("/process/cwd", json!("srv"), "process.cwd: \"srv\" is not an absolute path"),
        ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj: \"1001\" is not between"),
        ("/process/user/uid", json!(4_294_967_295_u32), "process.user.uid: \"4294967295\""),
        ("/process/user/umask", json!(0o1000), "process.user.umask: "),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]),
            "process.rlimits[0]: soft is higher than hard",
        ),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_CPU", "soft": 1, "hard": 1},
                                    {"type": "RLIMIT_CPU", "soft": 1, "hard": 1}]),
            "process.rlimits[1]: a second limit of the same type",
        ),
        ("/hostname", json!("web"), "hostname: would rename the host"),
        ("/domainname", json!("x"), "domainname: would rename the host"),
        ("/linux/namespaces", json!([]), "linux.namespaces: a container has a mount namespace"),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "mount"}]),
            "linux.namespaces[1]: a second namespace of the same type",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "user", "path": "/y"}, {"type": "mount", "path": "/x"}]),
            "linux.namespaces[1].path: a mount namespace that is joined, beside a user namespace",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "ipc", "path": "x"}]),
            "linux.namespaces[1].path: \"x\" is not an absolute path",
        ),
        (
            "/linux/timeOffsets",
            json!({"boottime": {"secs": 1}}),
            "linux.timeOffsets: clocks are set in a new time namespace only",
        ),
        (
            "/linux",
            json!({"namespaces": [{"type": "mount"}, {"type": "time", "path": "/x"}],
                   "timeOffsets": {"boottime": {"secs": 1}}}),
            "linux.timeOffsets: clocks are set in a new time namespace only",
        ),
        (
            "/linux",
            json!({"namespaces": [{"type": "mount"}, {"type": "time"}],
                   "timeOffsets": {"realtime": {"secs": 1}}}),
            "linux.timeOffsets: \"realtime\" is not monotonic or boottime",
        ),
        (
            "/linux",
            json!({"namespaces": [{"type": "mount"}, {"type": "time"}],
                   "timeOffsets": {"boottime": {"nanosecs": 1_000_000_000}}}),
            "linux.timeOffsets.boottime.nanosecs: \"1000000000\" is not below",
        ),
        (
            "/linux/sysctl",
            json!({"net.core.somaxconn": "1"}),
            "linux.sysctl.net.core.somaxconn: would change the host: no network namespace",
        ),
        (
            "/linux/sysctl",
            json!({"vm.swappiness": "1"}),
            "linux.sysctl.vm.swappiness: belongs to no namespace",
        ),
        (
            "/linux/sysctl",
            json!({"kernel.hostname": "x"}),
            "linux.sysctl.kernel.hostname: is set by the spec's hostname",
        ),
        ("/linux/sysctl", json!({"net/../../etc": "x"}), "linux.sysctl: \"net/../../etc\""),
        ("/linux/cgroupsPath", json!("/a/../b"), "linux.cgroupsPath: \"/a/../b\" is not a path"),
        ("/linux/cgroupsPath", json!("/"), "linux.cgroupsPath: \"/\" is not a path"),
        ("/linux/maskedPaths", json!(["/a", "b"]), "linux.maskedPaths[1]: \"b\" is not"),
        ("/linux/readonlyPaths", json!(["/a/../b"]), "linux.readonlyPaths[0]: "),
        (
            "/linux/resources",
            json!({"memory": {"limit": -2}}),
            "linux.resources.memory.limit: \"-2\" is not a number of bytes or -1",
        ),
        (
            "/linux/resources",
            json!({"memory": {"limit": 100, "swap": 50}}),
            "linux.resources.memory.swap: is memory and swap together",
        ),
        (
            "/linux/resources",
            json!({"cpu": {"cpus": "0-"}}),
            "linux.resources.cpu.cpus: \"0-\" is not a list",
        ),
        ("/linux/resources", json!({"cpu": {"quota": -5}}), "linux.resources.cpu.quota: \"-5\""),
        (
            "/linux/resources",
            json!({"memory": {"limit": -1, "swap": 50}}),
            "linux.resources.memory.swap: is memory and swap together, and limited while",
        ),
        (
            "/linux/resources",
            json!({"memory": {"swappiness": 101}}),
            "linux.resources.memory.swappiness: \"101\" is not from 0 to 100",
        ),
        (
            "/linux/resources",
            json!({"memory": {"kernel": -2}}),
            "linux.resources.memory.kernel: \"-2\" is not a number of bytes",
        ),
        (
            "/linux/resources",
            json!({"cpu": {"cpus": "+1"}}),
            "linux.resources.cpu.cpus: \"+1\" is not a list",
        ),
        (
            "/linux/resources",
            json!({"cpu": {"quota": 5000, "burst": 5001}}),
            "linux.resources.cpu.burst: is more than linux.resources.cpu.quota",
        ),
        ("/linux/resources", json!({"cpu": {"idle": 2}}), "linux.resources.cpu.idle: \"2\""),
        (
            "/linux/resources",
            json!({"cpu": {"realtimeRuntime": 11, "realtimePeriod": 10}}),
            "linux.resources.cpu.realtimeRuntime: is more than",
        ),
        ("/linux/resources", json!({"pids": {"limit": -2}}), "linux.resources.pids.limit: \"-2\""),
        (
            "/linux/resources",
            json!({"blockIO": {"weight": 9}}),
            "linux.resources.blockIO.weight: \"9\" is not from 10 to 1000",
        ),
        (
            "/linux/resources",
            json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 0}]}}),
            "linux.resources.blockIO.weightDevice[0].weight: missing",
        ),
        (
            "/linux/resources",
            json!({"blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": -1, "rate": 1}]}}),
            "linux.resources.blockIO.throttleWriteIOPSDevice[0].minor: \"-1\" is not",
        ),
        (
            "/linux/resources",
            json!({"hugepageLimits": [{"pageSize": "2MB/../../x", "limit": 1}]}),
            "linux.resources.hugepageLimits[0].pageSize: \"2MB/../../x\" is not a size",
        ),
        (
            "/linux/resources",
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}, {"pageSize": "2MB", "limit": 2}]}),
            "linux.resources.hugepageLimits[1].pageSize: a second limit",
        ),
        (
            "/linux/resources",
            json!({"rdma": {"a b": {"hcaHandles": 1}}}),
            "linux.resources.rdma[\"a b\"]: \"a b\" is not the name of a device",
        ),
        (
            "/linux/resources",
            json!({"rdma": {"x": {}}}),
            "linux.resources.rdma[\"x\"].hcaHandles: missing",
        ),
        (
            "/linux/resources",
            json!({"network": {"priorities": [{"name": "a\nb", "priority": 1}]}}),
            "linux.resources.network.priorities[0].name: \"a\\nb\" is not",
        ),
        (
            "/linux/resources",
            json!({"unified": {"../memory.max": "1"}}),
            "linux.resources.unified[\"../memory.max\"]: ",
        ),
        (
            "/linux/resources",
            json!({"unified": {"memory": "1"}}),
            "linux.resources.unified[\"memory\"]: \"memory\" is not a file of a controller",
        ),
        (
            "/linux/resources",
            json!({"unified": {"cgroup.procs": "1"}}),
            "linux.resources.unified[\"cgroup.procs\"]: not supported",
        ),
        (
            "/linux/resources",
            json!({"unified": {"memory.high": " "}}),
            "linux.resources.unified[\"memory.high\"]: \" \" is not text to write",
        ),
        (
            "/linux/resources",
            json!({"devices": [{"allow": true, "access": "rx"}]}),
            "linux.resources.devices[0].access: \"rx\" is not of the letters",
        ),
        (
            "/linux/resources",
            json!({"devices": [{"allow": true, "type": "p", "access": "r"}]}),
            "linux.resources.devices[0].type: \"p\" is not one of a, b, c",
        ),
        (
            "/linux/resources",
            json!({"devices": [{"allow": true, "major": 5000, "access": "r"}]}),
            "linux.resources.devices[0].major: \"5000\" is not a device number",
        ),
        (
            "/linux/devices",
            json!([{"path": "dev/x", "type": "c"}]),
            "linux.devices[0].path: \"dev/x\" is not an absolute path",
        ),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "a"}]),
            "linux.devices[0].type: \"a\" is not one of c, b, u, p",
        ),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "c", "major": -1}]),
            "linux.devices[0].major: \"-1\" is not a device number",
        ),
        (
            "/linux/devices",
            json!([{"path": "/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o10_000}]),
            "linux.devices[0].fileMode: \"4096\" is not permission bits, 4095 (octal 7777) at most",
        ),
        (
            "/linux/devices",
            json!([{"path": "/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o060_666}]),
            "linux.devices[0].fileMode: \"25014\" is not permission bits",
        ),
        (
            "/linux/devices",
            json!([{"path": "/x", "type": "p"}, {"path": "/x", "type": "p"}]),
            "linux.devices[1].path: a second device of the same path",
        ),
        (
            "/mounts",
            json!([{"destination": "/a/../b", "type": "tmpfs"}]),
            "mounts[0].destination: \"/a/../b\" is not an absolute path",
        ),
        (
            "/mounts",
            json!([{"destination": "/", "type": "tmpfs"}]),
            "mounts[0].destination: the root itself is no destination",
        ),
        ("/root/path", json!(""), "root.path: is empty"),
        ("/mounts", json!([{"destination": "/a"}]), "mounts[0].type: missing"),
        (
            "/mounts",
            json!([{"destination": "/a", "options": ["bind"]}]),
            "mounts[0].source: missing",
        ),
        (
            "/mounts",
            json!([{"destination": "/a", "type": "bind", "source": "/a",
                            "options": ["bind", "mode"]}]),
            "mounts[0].options[1]: \"mode\" is not supported",
        ),
        (
            "/mounts",
            json!([{"destination": "/a", "type": "bind", "source": "/a", "options": ["idmap"]}]),
            "mounts[0].options[0]: idmap needs uidMappings and gidMappings",
        ),
        (
            "/mounts",
            json!([{"destination": "/a", "type": "bind", "source": "/a",
                    "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}]),
            "mounts[0].uidMappings: missing",
        ),
        (
            "/mounts",
            json!([{"destination": "/a", "type": "tmpfs", "options": ["ridmap"]}]),
            "mounts[0].type: only binds, and overlays that are not written to, can be id-mapped",
        ),
        (
            "/mounts",
            json!([{"destination": "/a", "type": "overlay", "source": "overlay",
                    "options": ["idmap", "lowerdir=/l", "upperdir=/u", "workdir=/w"]}]),
            "mounts[0].type: only binds, and overlays that are not written to, can be id-mapped",
        ),
        (
            "/mounts",
            json!([{"destination": "/a", "type": "overlay", "options": ["idmap", "lowerdir=/l:/m"],
                    "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],
                    "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}]),
            "mounts[0].uidMappings: layers are mapped as the container's own",
        ),
        (
            "/mounts",
            json!([{"destination": "/a", "type": "ramfs", "options": ["tmpcopyup"]}]),
            "mounts[0].options[0]: tmpcopyup fills a new tmpfs",
        ),
        (
            "/mounts",
            json!([{"destination": "/a", "type": "bind", "source": "/a", "options": ["sync"]}]),
            "mounts[0].options[0]: sync, dirsync, mand",
        ),
        (
            "/mounts",
            json!([{"destination": "/c", "type": "cgroup", "options": ["ro", "nsdelegate"]}]),
            "mounts[0].options[1]: it would be one of the host's hierarchies",
        ),
        (
            "/mounts",
            json!([{"destination": "/c", "type": "cgroup2", "options": ["lazytime"]}]),
            "mounts[0].options[0]: sync, dirsync, mand",
        ),
        (
            "/linux/devices",
            json!([{"path": "/x", "type": "p", "gid": 4_294_967_295u32}]),
            "linux.devices[0].gid: \"4294967295\"",
        ),
        (
            "/linux/resources",
            json!({"devices": [{"allow": false, "type": "a", "major": 1, "access": "rwm"}]}),
            "linux.resources.devices[0].type: is all devices",
        ),
        (
            "/linux/resources",
            json!({"blockIO": {"throttleReadBpsDevice": [
                {"major": 254, "minor": 0, "rate": 1}, {"major": 254, "minor": 0, "rate": 2}]}}),
            "linux.resources.blockIO.throttleReadBpsDevice[1]: a second limit",
        ),
        (
            "/linux",
            json!({"namespaces": [{"type": "mount"}, {"type": "network"}],
                   "sysctl": {"net.ipv4.ip_forward": "1", "net/ipv4/ip_forward": "0"}}),
            "linux.sysctl.net",
        ),
        (
            "/linux",
            json!({"namespaces": [{"type": "mount"}, {"type": "network"}],
                   "sysctl": {"net.ipv4.ip_forward": ""}}),
            "linux.sysctl.net.ipv4.ip_forward: \"\"",
        ),
        ("/annotations", json!({"io.bosun.covers": "x"}), "annotations.io.bosun.covers: \"x\""),
        (
            "/annotations",
            json!({"io.bosun.covers": "[\"/x\"]"}),
            "annotations.io.bosun.covers: names a destination that no mount has",
        ),
    ];
    for (path, value, message) in table {
        let said = lower(with(minimal(), path, value), &minimal_context()).unwrap_err();
        assert!(said.starts_with(message), "{said}\nis not {message}");
    }
}

/// The types have 0 and false for them.
#[test]
fn what_the_specification_demands_is_missed_by_its_path() {
    let said = |pointer: &str, value: Value| {
        let spec = with(minimal(), pointer, value);
        shim_plan::parse::config(spec.to_string().as_bytes()).map(drop).map_err(|e| e.to_string())
    };
    let devices = |device: Value| said("/linux/devices", json!([device]));
    for kind in ["c", "u", "b"] {
        let missing = devices(json!({"path": "/x", "type": kind, "minor": 3}));
        assert_eq!(missing.unwrap_err(), "linux.devices[0].major: missing");
        let missing = devices(json!({"path": "/x", "type": kind, "major": 1, "minor": null}));
        assert_eq!(missing.unwrap_err(), "linux.devices[0].minor: missing");
        assert_eq!(devices(json!({"path": "/x", "type": kind, "major": 0, "minor": 0})), Ok(()));
    }
    assert_eq!(devices(json!({"path": "/x", "type": "p"})), Ok(()));
    let rules = json!([{"allow": false, "access": "rwm"}, {"type": "c", "access": "r"}]);
    let missing = said("/linux/resources", json!({"devices": rules}));
    assert_eq!(missing.unwrap_err(), "linux.resources.devices[1].allow: missing");
}

#[test]
fn hooks_that_can_t_run_are_refused_before_anything_is_made() {
    let table = [
        (
            json!({"prestart": [{"path": "x"}]}),
            "hooks.prestart[0].path: \"x\" is not an absolute path",
        ),
        (
            json!({"poststop": [{"path": "/x"}, {"path": "/x", "timeout": 0}]}),
            "hooks.poststop[1].timeout: \"0\" is not a number of seconds above 0",
        ),
        (
            json!({"createContainer": [{"path": "/x", "timeout": -3}]}),
            "hooks.createContainer[0].timeout: \"-3\" is not",
        ),
        (
            json!({"startContainer": [{"path": "/x", "args": ["\0"]}]}),
            "hooks.startContainer[0].args[0]:",
        ),
        (json!({"poststart": [{"path": "/x", "env": ["A=\0"]}]}), "hooks.poststart[0].env[0]:"),
        (
            json!({"poststart": [{"path": "/x", "env": ["A=b", "C"]}]}),
            "hooks.poststart[0].env[1]: \"C\" is not NAME=value",
        ),
    ];
    for (hooks, message) in table {
        let said = lower(with(minimal(), "/hooks", hooks), &minimal_context()).unwrap_err();
        assert!(said.starts_with(message), "{said}\nis not {message}");
    }
    let spec = with(minimal(), "/root/path", json!("/rootfs"));
    let spec = with(spec, "/hooks", json!({"prestart": [{"path": "/x"}]}));
    let context = shim_plan::Context { bundle: None, ..minimal_context() };
    let said = lower(spec, &context).unwrap_err();
    assert_eq!(said, "hooks: is told the path of the bundle, and this container has none");
}

#[test]
fn users_that_can_not_be_are_named_by_their_path() {
    let refused = |uids: Value, gids: Value, user: Value| {
        let linux = json!({
            "namespaces": [{"type": "mount"}, {"type": "user"}],
            "uidMappings": uids,
            "gidMappings": gids
        });
        let spec = with(with(minimal(), "/linux", linux), "/process/user", user);
        lower(spec, &minimal_context()).unwrap_err()
    };
    let root = json!({"uid": 0, "gid": 0});
    let map = |inside: u32, outside: u32, size: u32| json!({"containerID": inside, "hostID": outside, "size": size});
    let good = json!([map(0, 100_000, 1000)]);
    // CVE-2021-43784: a runtime whose lengths had 16 bits took the rest for other settings.
    let long = |count: u32, first: u32| -> Value {
        (0..count).map(|index| map(index, first + index, 1)).collect()
    };
    for (uids, gids, user, message) in [
        (json!([]), good.clone(), root.clone(), "linux.uidMappings: missing"),
        (good.clone(), Value::Null, root.clone(), "linux.gidMappings: missing"),
        (
            json!([map(1, 100_000, 1000)]),
            good.clone(),
            root.clone(),
            "linux.uidMappings: 0 of the container is mapped to nobody",
        ),
        (
            json!([map(0, 1, 0)]),
            good.clone(),
            root.clone(),
            "linux.uidMappings[0].size: \"0\" is not at least 1",
        ),
        (
            json!([map(0, 4_294_967_295, 1)]),
            good.clone(),
            root.clone(),
            "linux.uidMappings[0].size: \"1\" is not",
        ),
        (
            good.clone(),
            json!([map(0, 1, 10), map(9, 100, 1)]),
            root.clone(),
            "linux.gidMappings[1].containerID: overlaps with an earlier mapping",
        ),
        (
            good.clone(),
            json!([map(0, 1, 10), map(10, 10, 1)]),
            root.clone(),
            "linux.gidMappings[1].hostID: overlaps with an earlier mapping",
        ),
        (
            long(341, 1),
            good.clone(),
            root.clone(),
            "linux.uidMappings: \"341 mappings\" is not a map of at most 340",
        ),
        (
            long(340, 1_000_000_000),
            good.clone(),
            root.clone(),
            "linux.uidMappings: \"5670 bytes\" is not a map that fits",
        ),
        (long(65_536, 100_000), good.clone(), root, "linux.uidMappings: \"65536 mappings\" is not"),
        (
            good.clone(),
            good.clone(),
            json!({"uid": 1000, "gid": 0}),
            "process.user.uid: \"1000\" is not an id that is mapped",
        ),
        (
            good.clone(),
            good.clone(),
            json!({"uid": 999, "gid": 0, "additionalGids": [1, 2000]}),
            "process.user.additionalGids[1]: \"2000\" is not",
        ),
    ] {
        let said = refused(uids, gids, user);
        assert!(said.starts_with(message), "{said}\nis not {message}");
    }
    let spec = with(minimal(), "/linux/uidMappings", good);
    let said = lower(spec, &minimal_context()).unwrap_err();
    assert!(said.starts_with("linux.uidMappings: ids are mapped in a user namespace"), "{said}");
}
