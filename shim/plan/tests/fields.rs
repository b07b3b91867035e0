//! Every field that the specification (1.3) has for Linux: it changes what is done, or it is refused
//! by its JSON path. None is passed over in silence.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]
#![expect(dead_code, reason = "of the helpers only a part is used here")]

mod specs;

use serde_json::{Value, json};
use shim_plan::{Context, ExecContext, parse};

use specs::{minimal, minimal_context, with};

/// A spec that every field below can be added to.
fn base() -> Value {
    let spec = with(minimal(), "/process/user", json!({"uid": 1, "gid": 1}));
    let namespaces = ["mount", "network", "ipc", "uts", "pid", "cgroup"];
    let namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({"type": kind})).collect();
    let spec = with(spec, "/linux/namespaces", json!(namespaces));
    with(spec, "/process/terminal", json!(true))
}

/// All that comes of a spec: of its first process, and of a further one.
fn lowered(spec: &Value) -> Result<String, String> {
    let spec = parse::config(spec.to_string().as_bytes()).map_err(|error| error.to_string())?.value;
    let context = Context { id: "web".into(), ..minimal_context() };
    let plan = shim_plan::plan(&spec, &context).map_err(|error| error.to_string())?;
    let hooks = shim_plan::hooks(&spec, &context).unwrap();
    let linux = spec.linux().as_ref().unwrap();
    let context =
        ExecContext { personality: linux.personality().clone(), ..ExecContext::default() };
    let process = spec.process().as_ref().unwrap();
    let exec = shim_plan::exec(process, linux.seccomp().as_ref(), &context).unwrap();
    Ok(format!("{plan:?} {hooks:?} {exec:?}"))
}

/// Fields as JSON pointers, with a value that means something, by what else they need.
fn fields() -> Vec<(&'static str, Value)> {
    let hook = json!([{"path": "/x"}]);
    let mappings = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let device = |fields: Value| {
        let mut device = json!({"type": "c", "path": "/dev/x", "major": 1, "minor": 3});
        device.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!([device])
    };
    vec![
        ("/root/readonly", json!(true)),
        ("/root/path", json!("/other")),
        ("/mounts", json!([{"destination": "/a", "type": "tmpfs", "source": "tmpfs"}])),
        (
            "/mounts",
            json!([{"destination": "/a", "type": "tmpfs", "source": "tmpfs", "options": ["size=1k"]}]),
        ),
        (
            "/mounts",
            json!([{"destination": "/a", "source": "/a", "options": ["bind", "idmap"],
            "uidMappings": mappings, "gidMappings": mappings}]),
        ),
        ("/hostname", json!("web")),
        ("/domainname", json!("example.org")),
        ("/hooks/prestart", hook.clone()),
        ("/hooks/createRuntime", hook.clone()),
        ("/hooks/createContainer", hook.clone()),
        ("/hooks/startContainer", hook.clone()),
        ("/hooks/poststart", hook.clone()),
        ("/hooks/poststop", hook),
        ("/hooks/poststop", json!([{"path": "/x", "args": ["x", "y"]}])),
        ("/hooks/poststop", json!([{"path": "/x", "env": ["A=b"]}])),
        ("/hooks/poststop", json!([{"path": "/x", "timeout": 3}])),
        ("/solaris", json!({})),
        ("/windows", json!({"layerFolders": []})),
        ("/vm", json!({"kernel": {"path": "/x"}})),
        ("/zos", json!({"namespaces": []})),
        ("/freebsd", json!({})),
        ("/process/args", json!(["/bin/false"])),
        ("/process/commandLine", json!("x")),
        ("/process/consoleSize", json!({"height": 3, "width": 4})),
        ("/process/cwd", json!("/tmp")),
        ("/process/env", json!(["A=b"])),
        ("/process/terminal", json!(false)),
        ("/process/user/uid", json!(7)),
        ("/process/user/gid", json!(7)),
        ("/process/user/umask", json!(7)),
        ("/process/user/additionalGids", json!([7])),
        ("/process/capabilities/bounding", json!(["CAP_CHOWN"])),
        ("/process/capabilities/permitted", json!(["CAP_CHOWN"])),
        ("/process/capabilities/effective", json!(["CAP_CHOWN"])),
        ("/process/capabilities/inheritable", json!(["CAP_CHOWN"])),
        ("/process/apparmorProfile", json!("web")),
        ("/process/oomScoreAdj", json!(7)),
        ("/process/selinuxLabel", json!("a:b:c:s0")),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 3})),
        ("/process/noNewPrivileges", json!(true)),
        ("/process/scheduler", json!({"policy": "SCHED_BATCH"})),
        ("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 3})),
        ("/process/scheduler", json!({"policy": "SCHED_RR", "priority": 3})),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_DEADLINE", "runtime": 1024, "deadline": 2048, "period": 4096}),
        ),
        ("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 1, "hard": 2}])),
        ("/process/execCPUAffinity/initial", json!("1")),
        ("/process/execCPUAffinity/final", json!("1")),
        ("/linux/rootfsPropagation", json!("shared")),
        ("/linux/rootfsPropagation", json!("slave")),
        ("/linux/rootfsPropagation", json!("unbindable")),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "network", "path": "/n"}])),
        ("/linux/uidMappings", mappings.clone()),
        ("/linux/gidMappings", mappings),
        ("/linux/timeOffsets", json!({"boottime": {"secs": 1, "nanosecs": 2}})),
        ("/linux/devices", device(json!({}))),
        ("/linux/devices", device(json!({"fileMode": 384}))),
        ("/linux/devices", device(json!({"uid": 3}))),
        ("/linux/devices", device(json!({"gid": 3}))),
        ("/linux/netDevices", json!({"eth0": {"name": "net"}})),
        ("/linux/cgroupsPath", json!("/other")),
        ("/linux/cgroupsPath", json!("a.slice:b:c")),
        (
            "/linux/resources/devices",
            json!([{"allow": true, "type": "c", "major": 1, "minor": 2, "access": "r"}]),
        ),
        ("/linux/resources/memory/limit", json!(7_000_000)),
        ("/linux/resources/memory/reservation", json!(7_000_000)),
        ("/linux/resources/memory/swap", json!(7_000_000)),
        ("/linux/resources/memory/kernel", json!(7_000_000)),
        ("/linux/resources/memory/kernelTCP", json!(7_000_000)),
        ("/linux/resources/memory/swappiness", json!(7)),
        ("/linux/resources/memory/disableOOMKiller", json!(true)),
        ("/linux/resources/memory/useHierarchy", json!(true)),
        ("/linux/resources/memory/checkBeforeUpdate", json!(true)),
        ("/linux/resources/cpu/shares", json!(7)),
        ("/linux/resources/cpu/quota", json!(7000)),
        ("/linux/resources/cpu/burst", json!(7000)),
        ("/linux/resources/cpu/period", json!(7000)),
        ("/linux/resources/cpu/realtimeRuntime", json!(7000)),
        ("/linux/resources/cpu/realtimePeriod", json!(7000)),
        ("/linux/resources/cpu/cpus", json!("0")),
        ("/linux/resources/cpu/mems", json!("0")),
        ("/linux/resources/cpu/idle", json!(1)),
        ("/linux/resources/blockIO/weight", json!(70)),
        ("/linux/resources/blockIO/leafWeight", json!(70)),
        ("/linux/resources/blockIO/weightDevice", json!([{"major": 8, "minor": 0, "weight": 70}])),
        (
            "/linux/resources/blockIO/weightDevice",
            json!([{"major": 8, "minor": 0, "leafWeight": 70}]),
        ),
        (
            "/linux/resources/blockIO/throttleReadBpsDevice",
            json!([{"major": 8, "minor": 0, "rate": 7}]),
        ),
        (
            "/linux/resources/blockIO/throttleWriteBpsDevice",
            json!([{"major": 8, "minor": 0, "rate": 7}]),
        ),
        (
            "/linux/resources/blockIO/throttleReadIOPSDevice",
            json!([{"major": 8, "minor": 0, "rate": 7}]),
        ),
        (
            "/linux/resources/blockIO/throttleWriteIOPSDevice",
            json!([{"major": 8, "minor": 0, "rate": 7}]),
        ),
        ("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 2_097_152}])),
        ("/linux/resources/network/classID", json!(7)),
        ("/linux/resources/network/priorities", json!([{"name": "lo", "priority": 7}])),
        ("/linux/resources/pids/limit", json!(7)),
        ("/linux/resources/rdma", json!({"mlx5": {"hcaHandles": 3, "hcaObjects": 4}})),
        ("/linux/resources/unified", json!({"pids.max": "7"})),
        ("/linux/intelRdt", json!({"closID": "x"})),
        ("/linux/intelRdt", json!({"schemata": ["L3:0=f"]})),
        ("/linux/intelRdt", json!({"l3CacheSchema": "L3:0=f"})),
        ("/linux/intelRdt", json!({"memBwSchema": "MB:0=10"})),
        ("/linux/intelRdt", json!({"enableMonitoring": true})),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0"})),
        ("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})),
        ("/linux/sysctl", json!({"vm.swappiness": "1"})),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW"})),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 7})),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]}),
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"]}),
        ),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"})),
        ("/linux/maskedPaths", json!(["/proc/x"])),
        ("/linux/readonlyPaths", json!(["/proc/x"])),
        ("/linux/mountLabel", json!("a:b:c:s0")),
        ("/linux/personality", json!({"domain": "LINUX32"})),
        ("/linux/personality", json!({"domain": "LINUX", "flags": ["X"]})),
    ]
}

/// What no kernel does any more, and what every kernel does: `resources` says which. A warning tells
/// of each that asks for another thing.
const MEANS_NOTHING_HERE: [&str; 3] = [
    "/linux/resources/memory/kernel",
    "/linux/resources/memory/kernelTCP",
    "/linux/resources/memory/useHierarchy",
];

#[test]
fn every_field_does_something_or_is_refused_by_its_path() {
    let without = lowered(&base()).unwrap();
    let mut wrong = Vec::new();
    for (pointer, value) in fields() {
        let path = pointer[1..].replace('/', ".");
        match lowered(&with(base(), pointer, value.clone())) {
            Ok(with) if (with == without) != MEANS_NOTHING_HERE.contains(&pointer) => {
                wrong.push(format!("{path} = {value} is passed over in silence"));
            }
            Err(said) if !said.starts_with(&path) => wrong.push(format!("{path}: {said}")),
            Ok(_) | Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_passed_over_is_warned_of_by_its_path() {
    let warnings = |pointer: &str, value: Value| {
        let spec = with(base(), pointer, value);
        parse::config(spec.to_string().as_bytes()).unwrap().warnings
    };
    for (pointer, value) in [
        ("/linux/resources/memory/kernel", json!(7_000_000)),
        ("/linux/resources/memory/kernelTCP", json!(1)),
        ("/linux/resources/memory/useHierarchy", json!(false)),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a",
                   "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}),
        ),
        (
            "/mounts",
            json!([{"destination": "/a", "source": "/b", "options": ["ro", "mode=755", "rbind"]}]),
        ),
    ] {
        let said = warnings(pointer, value);
        let path = pointer[1..].replace('/', ".");
        assert_eq!(said.len(), 1, "{pointer}: {said:?}");
        let path = path.replace("linux.seccomp", "linux.seccomp.listenerPath");
        let path = path.replace("mounts", "mounts[0].options[1]");
        assert!(said[0].starts_with(&format!("{path}: ")), "{said:?}");
        assert!(said[0].ends_with("passed over"), "{said:?}");
    }
    for (pointer, value) in [
        ("/linux/resources/memory/kernel", json!(0)),
        ("/linux/resources/memory/kernelTCP", json!(-1)),
        ("/linux/resources/memory/useHierarchy", json!(true)),
        ("/linux/resources/memory/limit", json!(7_000_000)),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a",
                   "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}),
        ),
        ("/mounts", json!([{"destination": "/a", "type": "tmpfs", "options": ["mode=755"]}])),
    ] {
        assert_eq!(warnings(pointer, value), Vec::<String>::new(), "{pointer}");
    }
}

/// What is lost between the text and the types would be passed over without a trace.
#[test]
fn no_field_is_lost_in_the_types() {
    for (pointer, value) in fields() {
        let spec = with(base(), pointer, value);
        let Ok(parsed) = parse::config(spec.to_string().as_bytes()) else { continue };
        let again = serde_json::to_value(&parsed.value).unwrap();
        assert_eq!(lost(&spec, &again, ""), None);
    }
}

/// The path of the first value that one document has and the other does not.
fn lost(one: &Value, other: &Value, at: &str) -> Option<String> {
    match (one, other) {
        (Value::Object(one), other) => one.iter().find_map(|(name, value)| {
            let at = format!("{at}.{name}");
            match other.get(name) {
                Some(found) => lost(value, found, &at),
                None => Some(at),
            }
        }),
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            one.iter().zip(other).find_map(|(one, other)| lost(one, other, at))
        }
        (Value::Array(_), _) => Some(at.to_owned()),
        _ => None,
    }
}
