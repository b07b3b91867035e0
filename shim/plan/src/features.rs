//! The features document (runtime-spec, `features.md`): what this runtime does.
//!
//! It is asked and not written: each name that the specification has is put into a small spec, and is
//! a feature when that can be lowered. So there is no list here that could lag behind the code.

use serde_json::{Map, Value, json};
use shim_wire::hooks::HookKind;
use shim_wire::plan::Plan;

use crate::capability::CapabilitySet;
use crate::{COVERS_ANNOTATION, Context, parse, plan};

/// The specification that all of this follows.
pub const SPEC_VERSION: &str = "1.3.0";
/// The oldest that a `config.json` may name.
pub const OLDEST_SPEC_VERSION: &str = "1.0.0";

const NAMESPACES: &str = "cgroup ipc mount network pid time user uts";

/// Of mount(8), and what runtimes have added.
const MOUNT_OPTIONS: &str = "
    acl async atime bind defaults dev diratime dirsync exec idmap iversion lazytime loud mand noacl
    noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid
    nosymfollow private ratime rbind rdev rdiratime relatime remount rexec ridmap rnoatime rnodev
    rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw
    rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid
    symfollow sync tmpcopyup unbindable";

const ACTIONS: &str = "
    SCMP_ACT_ALLOW SCMP_ACT_ERRNO SCMP_ACT_KILL SCMP_ACT_KILL_PROCESS SCMP_ACT_KILL_THREAD
    SCMP_ACT_LOG SCMP_ACT_NOTIFY SCMP_ACT_TRACE SCMP_ACT_TRAP";

const OPERATORS: &str = "
    SCMP_CMP_EQ SCMP_CMP_GE SCMP_CMP_GT SCMP_CMP_LE SCMP_CMP_LT SCMP_CMP_MASKED_EQ SCMP_CMP_NE";

const ARCHITECTURES: &str = "
    SCMP_ARCH_AARCH64 SCMP_ARCH_ARM SCMP_ARCH_LOONGARCH64 SCMP_ARCH_M68K SCMP_ARCH_MIPS
    SCMP_ARCH_MIPS64 SCMP_ARCH_MIPS64N32 SCMP_ARCH_MIPSEL SCMP_ARCH_MIPSEL64 SCMP_ARCH_MIPSEL64N32
    SCMP_ARCH_PARISC SCMP_ARCH_PARISC64 SCMP_ARCH_PPC SCMP_ARCH_PPC64 SCMP_ARCH_PPC64LE
    SCMP_ARCH_RISCV64 SCMP_ARCH_S390 SCMP_ARCH_S390X SCMP_ARCH_SH SCMP_ARCH_SHEB SCMP_ARCH_X32
    SCMP_ARCH_X86 SCMP_ARCH_X86_64";

const SECCOMP_FLAGS: &str = "
    SECCOMP_FILTER_FLAG_LOG SECCOMP_FILTER_FLAG_SPEC_ALLOW SECCOMP_FILTER_FLAG_TSYNC
    SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";

const MEMORY_MODES: &str = "
    MPOL_BIND MPOL_DEFAULT MPOL_INTERLEAVE MPOL_LOCAL MPOL_PREFERRED MPOL_PREFERRED_MANY
    MPOL_WEIGHTED_INTERLEAVE";

const MEMORY_FLAGS: &str = "MPOL_F_NUMA_BALANCING MPOL_F_RELATIVE_NODES MPOL_F_STATIC_NODES";

/// The document.
#[must_use]
pub fn document() -> Value {
    let hooks: Vec<&str> = HookKind::ALL.iter().map(|kind| kind.name()).collect();
    let capabilities: Vec<String> = CapabilitySet::all(63).names().collect();
    json!({
        "ociVersionMin": OLDEST_SPEC_VERSION,
        "ociVersionMax": SPEC_VERSION,
        "hooks": hooks,
        "mountOptions": those(MOUNT_OPTIONS, has_mount_option),
        "linux": {
            "namespaces": those(NAMESPACES, has_namespace),
            "capabilities": capabilities,
            "cgroup": {
                "v1": true,
                "v2": true,
                "systemd": has_systemd(),
                "systemdUser": false,
                "rdma": takes(&[("/linux/resources/rdma", json!({"mlx5_1": {"hcaHandles": 1}}))]),
            },
            "seccomp": {
                "enabled": true,
                "actions": those(ACTIONS, has_action),
                "operators": those(OPERATORS, has_operator),
                "archs": those(ARCHITECTURES, has_architecture),
                "knownFlags": those(SECCOMP_FLAGS, has_seccomp_flag),
                "supportedFlags": those(SECCOMP_FLAGS, has_seccomp_flag),
            },
            "apparmor": {"enabled": takes(&[("/process/apparmorProfile", json!("web"))])},
            "selinux": {"enabled": takes(&[("/process/selinuxLabel", json!("a:b:c:s0"))])},
            "intelRdt": {"enabled": takes(&[("/linux/intelRdt", json!({"closID": "web"}))])},
            "memoryPolicy": {
                "modes": those(MEMORY_MODES, has_memory_mode),
                "flags": those(MEMORY_FLAGS, has_memory_flag),
            },
            "mountExtensions": {"idmap": {"enabled": has_mount_option("idmap")}},
            "netDevices": {"enabled": takes(&[("/linux/netDevices", json!({"eth0": {}}))])},
        },
        "potentiallyUnsafeConfigAnnotations": [COVERS_ANNOTATION],
    })
}

fn those(names: &str, has: fn(&str) -> bool) -> Vec<&str> {
    names.split_whitespace().filter(|name| has(name)).collect()
}

/// Whether a small spec with these fields can be lowered.
fn takes(fields: &[(&str, Value)]) -> bool {
    lowered(fields).is_some()
}

fn lowered(fields: &[(&str, Value)]) -> Option<Plan> {
    lowered_in(&context(), fields)
}

fn lowered_in(context: &Context, fields: &[(&str, Value)]) -> Option<Plan> {
    let mut spec = json!({
        "ociVersion": SPEC_VERSION,
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "cwd": "/"},
        "root": {"path": "/rootfs"},
        "linux": {"namespaces": [
            {"type": "mount"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "pid"},
        ]},
    });
    for (pointer, value) in fields {
        put(&mut spec, pointer, value.clone());
    }
    let spec = parse::config(spec.to_string().as_bytes()).ok()?.value;
    plan(&spec, context).ok().map(|(_, plan)| plan)
}

fn context() -> Context {
    Context {
        id: "web".to_owned(),
        bundle: Some("/bundle".into()),
        cgroup: "web".to_owned(),
        ..Context::default()
    }
}

/// Sets the value at a JSON pointer, whose objects are made.
fn put(object: &mut Value, pointer: &str, value: Value) {
    let mut at = object;
    for name in pointer.split('/').skip(1) {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[name];
    }
    *at = value;
}

fn mappings() -> Value {
    json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}])
}

/// As `--systemd-cgroup` asks for it.
fn has_systemd() -> bool {
    let context = Context { systemd_cgroup: true, ..context() };
    let path = ("/linux/cgroupsPath", json!("system.slice:bosun:web"));
    lowered_in(&context, &[path]).is_some()
}

fn has_namespace(name: &str) -> bool {
    let namespaces = match name {
        "mount" => json!([{"type": "mount"}]),
        other => json!([{"type": "mount"}, {"type": other}]),
    };
    let mut fields = vec![("/linux/namespaces", namespaces)];
    if name == "user" {
        fields.push(("/linux/uidMappings", mappings()));
        fields.push(("/linux/gidMappings", mappings()));
    }
    takes(&fields)
}

fn has_mount_option(name: &str) -> bool {
    let mapped = matches!(name, "idmap" | "ridmap");
    let bind =
        json!([{"destination": "/a", "type": "bind", "source": "/a", "options": ["bind", name]}]);
    let mut fields = vec![("/mounts", bind)];
    if mapped {
        let mut mount = fields[0].1[0].clone();
        (mount["uidMappings"], mount["gidMappings"]) = (mappings(), mappings());
        fields[0].1 = json!([mount]);
    }
    // What a file system is handed as it is, is no option of the runtime's.
    let tmpfs =
        json!([{"destination": "/a", "type": "tmpfs", "source": "tmpfs", "options": [name]}]);
    takes(&fields)
        || lowered(&[("/mounts", tmpfs)])
            .is_some_and(|plan| plan.mounts.iter().all(|mount| !mount.data.contains(name)))
}

fn seccomp(rule: Value, flags: Value, architectures: Value) -> bool {
    takes(&[(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": architectures,
            "flags": flags,
            "listenerPath": "/agent.sock",
            "syscalls": [rule, {"names": ["acct"], "action": "SCMP_ACT_NOTIFY"}],
        }),
    )])
}

fn has_action(name: &str) -> bool {
    seccomp(json!({"names": ["mkdir"], "action": name}), json!([]), json!([]))
}

fn has_operator(name: &str) -> bool {
    let condition = json!([{"index": 0, "value": 1, "valueTwo": 1, "op": name}]);
    let rule = json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": condition});
    seccomp(rule, json!([]), json!([]))
}

fn has_architecture(name: &str) -> bool {
    seccomp(json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}), json!([]), json!([name]))
}

fn has_seccomp_flag(name: &str) -> bool {
    seccomp(json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}), json!([name]), json!([]))
}

fn has_memory_mode(name: &str) -> bool {
    takes(&[("/linux/memoryPolicy", json!({"mode": name, "nodes": "0"}))])
        || takes(&[("/linux/memoryPolicy", json!({"mode": name}))])
}

fn has_memory_flag(name: &str) -> bool {
    let policy = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": [name]});
    takes(&[("/linux/memoryPolicy", policy)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_says_what_is_done_and_nothing_else() {
        let document = document();
        let list = |pointer: &str| -> Vec<String> {
            serde_json::from_value(document.pointer(pointer).unwrap().clone()).unwrap()
        };
        assert_eq!(list("/hooks").len(), 6);
        assert_eq!(list("/linux/capabilities").len(), 41);
        for (pointer, some) in [
            ("/mountOptions", vec!["bind", "rbind", "ro", "nosuid", "rslave", "strictatime"]),
            ("/linux/namespaces", vec!["cgroup", "ipc", "mount", "network", "pid", "time", "uts"]),
            ("/linux/seccomp/actions", ACTIONS.split_whitespace().collect()),
            ("/linux/seccomp/operators", OPERATORS.split_whitespace().collect()),
            ("/linux/seccomp/archs", vec!["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]),
            ("/linux/seccomp/supportedFlags", SECCOMP_FLAGS.split_whitespace().collect()),
        ] {
            let list = list(pointer);
            assert!(
                some.iter().all(|name| list.iter().any(|has| has == name)),
                "{pointer} {list:?}"
            );
            assert!(list.is_sorted(), "{pointer}");
        }
        assert!(!list("/linux/seccomp/archs").contains(&"SCMP_ARCH_SH".to_owned()));
        assert!(!list("/mountOptions").contains(&"acl".to_owned()), "a file system's own");
        assert_eq!(document["linux"]["cgroup"]["systemd"], json!(true));
        assert_eq!(document["linux"]["apparmor"]["enabled"], json!(true));
        assert_eq!(document["linux"]["intelRdt"]["enabled"], json!(false));
        assert!(!takes(&[("/linux/namespaces", json!([{"type": "planet"}]))]));
    }
}
