//! What the specification demands of single values, beyond the types: each is held to, or refused or
//! warned of by its path.
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod specs;

use serde_json::{Value, json};
use shim_plan::capability::CapabilitySet;
use shim_plan::{ExecContext, parse};
use shim_wire::plan::Resources;

use specs::{lower, minimal, minimal_context, with};

/// What is said of a `config.json`: why it is refused, or what of it is passed over.
fn said(spec: &Value) -> Result<Vec<String>, String> {
    let parsed = parse::config(spec.to_string().as_bytes()).map_err(|error| error.to_string())?;
    let lowered = shim_plan::plan(&parsed.value, &minimal_context());
    lowered.map(|_| parsed.warnings).map_err(|error| error.to_string())
}

fn refused(pointer: &str, value: Value) -> String {
    said(&with(minimal(), pointer, value)).unwrap_err()
}

fn limits(resources: &Value) -> Result<Resources, String> {
    let parsed = parse::resources(resources.to_string().as_bytes());
    let value = parsed.map_err(|error| error.to_string())?.value;
    shim_plan::resources(&value).map_err(|error| error.to_string())
}

fn with_user_namespace() -> Value {
    let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    let linux = json!({
        "namespaces": [{"type": "mount"}, {"type": "user"}],
        "uidMappings": mapping,
        "gidMappings": mapping
    });
    with(minimal(), "/linux", linux)
}

#[test]
fn no_process_but_the_first_is_a_limit_and_no_limit_at_all_is_none() {
    let pids = |pids: Value| limits(&json!({"pids": pids})).unwrap().pids;
    assert_eq!(pids(json!({"limit": 0})), Some(1), "the first one is there already");
    assert_eq!(pids(json!({"limit": -1})), Some(-1));
    assert_eq!(pids(json!({"limit": 7})), Some(7));
    assert_eq!((pids(json!({})), pids(json!({"limit": null}))), (None, None));
    // As podman 4 writes no limit.
    for (version, expected) in [("1.0.2-dev", None), ("1.2.1", None), ("1.3.0", Some(1))] {
        let spec = with(minimal(), "/linux/resources", json!({"pids": {"limit": 0}}));
        let spec = with(spec, "/ociVersion", json!(version)).to_string();
        let spec = parse::config(spec.as_bytes()).unwrap().value;
        let (create, _) = shim_plan::plan(&spec, &minimal_context()).unwrap();
        let limit = create.resources.and_then(|resources| resources.pids);
        assert_eq!(limit, expected, "{version}");
    }
    let spec = with(minimal(), "/linux/resources", json!({"pids": {}}));
    let spec = parse::config(spec.to_string().as_bytes()).unwrap().value;
    let (create, _) = shim_plan::plan(&spec, &minimal_context()).unwrap();
    assert_eq!(create.resources, None);
}

#[test]
fn nothing_is_made_in_a_dev_of_the_host_s_however_it_is_written() {
    let devices = json!([
        {"path": "/dev/x", "type": "c", "major": 1, "minor": 3},
        {"path": "//dev/./y", "type": "p"},
        {"path": "/devices", "type": "p"}
    ]);
    for destination in ["/dev", "/dev/", "//dev/.", "dev"] {
        let bind = json!([{"destination": destination, "source": "/dev", "options": ["rbind"]}]);
        let spec = with(minimal(), "/mounts", bind);
        let (_, plan) = lower(spec.clone(), &minimal_context()).unwrap();
        assert_eq!(plan.devices, [], "{destination}");
        let spec = with(spec, "/linux/devices", devices.clone());
        let (_, plan) = lower(spec.clone(), &minimal_context()).unwrap();
        let paths: Vec<_> = plan.devices.iter().map(|device| device.path.as_str()).collect();
        assert_eq!(paths, ["/devices"], "{destination}");
        let warnings = said(&spec).unwrap();
        let expected = "linux.devices: 2 of them in /dev, which is the host's: ";
        assert!(warnings.len() == 1 && warnings[0].starts_with(expected), "{warnings:?}");
    }
}

#[test]
fn the_root_can_be_read_only_and_can_t_be_masked() {
    for path in ["/", "//", "/./"] {
        let spec = with(minimal(), "/linux/readonlyPaths", json!(["/proc/sys", path]));
        let (_, plan) = lower(spec, &minimal_context()).unwrap();
        assert_eq!(plan.readonly_paths, ["/proc/sys"]);
        assert!(plan.rootfs.unwrap().readonly, "{path}");
        let said = refused("/linux/maskedPaths", json!(["/proc/kcore", path]));
        assert!(said.starts_with("linux.maskedPaths[1]: "), "{said}");
    }
}

/// The types have 0 for them, and those who write specifications write them always.
#[test]
fn numbers_that_are_demanded_are_missed_by_their_path() {
    let user_namespace = with_user_namespace();
    let map = json!({"containerID": 0, "hostID": 1, "size": 1});
    let rlimit = json!({"type": "RLIMIT_CORE", "soft": 1, "hard": 2});
    let throttle = json!({"major": 8, "minor": 0, "rate": 1});
    let maps = ["containerID", "hostID", "size"];
    let cases: [(&str, &str, Value, &[&str]); 15] = [
        ("/linux/uidMappings", "[0]", map.clone(), &maps),
        ("/linux/gidMappings", "[0]", map.clone(), &maps),
        ("/process/user", "", json!({"uid": 0, "gid": 0}), &["uid", "gid"]),
        ("/process/rlimits", "[0]", rlimit, &["soft", "hard"]),
        (
            "/process/ioPriority",
            "",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 3}),
            &["class", "priority"],
        ),
        ("/process/consoleSize", "", json!({"height": 3, "width": 4}), &["height", "width"]),
        (
            "/linux/resources/hugepageLimits",
            "[0]",
            json!({"pageSize": "2MB", "limit": 0}),
            &["pageSize", "limit"],
        ),
        (
            "/linux/resources/network/priorities",
            "[0]",
            json!({"name": "lo", "priority": 0}),
            &["name", "priority"],
        ),
        (
            "/linux/resources/blockIO/weightDevice",
            "[0]",
            json!({"major": 8, "minor": 0, "weight": 10}),
            &["major", "minor"],
        ),
        (
            "/linux/resources/blockIO/throttleReadBpsDevice",
            "[0]",
            throttle.clone(),
            &["major", "minor", "rate"],
        ),
        (
            "/linux/resources/blockIO/throttleWriteBpsDevice",
            "[0]",
            throttle.clone(),
            &["major", "minor", "rate"],
        ),
        (
            "/linux/resources/blockIO/throttleReadIOPSDevice",
            "[0]",
            throttle.clone(),
            &["major", "minor", "rate"],
        ),
        (
            "/linux/resources/blockIO/throttleWriteIOPSDevice",
            "[0]",
            throttle,
            &["major", "minor", "rate"],
        ),
        ("/mounts/0/uidMappings", "[0]", map.clone(), &maps),
        ("/mounts/0/gidMappings", "[0]", map, &maps),
    ];
    let bind = json!([{"destination": "/a", "type": "bind", "source": "/a",
        "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}]);
    for (pointer, index, value, names) in cases {
        let base = match pointer.contains("Mappings") {
            true => with(user_namespace.clone(), "/mounts", bind.clone()),
            false => with(minimal(), "/process/terminal", json!(true)),
        };
        let whole = |value: Value| match index {
            "" => value,
            _ => json!([value]),
        };
        let spec = with(base.clone(), pointer, whole(value.clone()));
        assert_eq!(said(&spec), Ok(Vec::new()), "{pointer}");
        for name in names {
            let mut lacking = value.clone();
            lacking.as_object_mut().unwrap().remove(*name);
            let path = pointer[1..].replace("/0", "[0]").replace('/', ".");
            let expected = format!("{path}{index}.{name}: missing");
            let spec = with(base.clone(), pointer, whole(lacking));
            assert_eq!(said(&spec).unwrap_err(), expected);
        }
    }
    let exec = parse::process(br#"{"cwd": "/", "args": ["x"], "user": {}}"#);
    assert_eq!(exec.unwrap_err().to_string(), "process.user.uid: missing");
    let update = limits(&json!({"hugepageLimits": [{"pageSize": "2MB"}]}));
    assert_eq!(update.unwrap_err(), "linux.resources.hugepageLimits[0].limit: missing");
}

#[test]
fn nobody_is_in_the_group_that_means_leave_it() {
    let groups = json!([5, 4_294_967_295_u32]);
    let said = refused("/process/user/additionalGids", groups);
    assert_eq!(said, "process.user.additionalGids[1]: \"4294967295\" is not below 4294967295");
}

#[test]
fn the_size_of_a_console_means_nothing_without_a_terminal() {
    let sized = |terminal: Value, size: Value| {
        let spec = with(minimal(), "/process/terminal", terminal);
        with(spec, "/process/consoleSize", size)
    };
    let big = json!({"height": 70_000, "width": 80});
    for terminal in [json!(false), Value::Null] {
        let (create, _) = lower(sized(terminal.clone(), big.clone()), &minimal_context()).unwrap();
        assert_eq!((create.width, create.height), (0, 0));
        assert_eq!(said(&sized(terminal, json!({"height": 1}))), Ok(Vec::new()));
    }
    let process = serde_json::from_value(
        json!({"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0}, "consoleSize": big}),
    );
    let exec = shim_plan::exec(&process.unwrap(), None, &ExecContext::default()).unwrap();
    assert_eq!((exec.width, exec.height), (0, 0));
    assert!(said(&sized(json!(true), big)).unwrap_err().starts_with("process.consoleSize.height"));
}

/// What libseccomp can't express leaves the call to the default action: fine where that denies,
/// and said; refused where it allows what the rule denies.
#[test]
fn a_rule_that_can_not_be_made_is_never_lost_in_silence() {
    let profile = |default: &str, names: Value, action: &str, args: Value| {
        json!({"defaultAction": default,
               "syscalls": [{"names": ["read"], "action": default},
                            {"names": names, "action": action, "args": args}]})
    };
    let of = |profile: Value| said(&with(minimal(), "/linux/seccomp", profile));
    let condition = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]);
    for (names, args) in
        [(json!(["write", "fly"]), json!([])), (json!(["write", "mseal"]), condition)]
    {
        let name = names[1].as_str().unwrap().to_owned();
        let warnings =
            of(profile("SCMP_ACT_ERRNO", names.clone(), "SCMP_ACT_ALLOW", args.clone())).unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let at = format!("linux.seccomp.syscalls[1].names[1]: \"{name}\"");
        assert!(warnings[0].starts_with(&at), "{warnings:?}");
        assert!(warnings[0].contains("passed over"), "{warnings:?}");
        for default in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"] {
            for action in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
                let refused = of(profile(default, names.clone(), action, args.clone()));
                assert!(refused.unwrap_err().starts_with(&at), "{default} {action}");
            }
        }
        let same = profile("SCMP_ACT_ALLOW", names, "SCMP_ACT_ALLOW", args);
        assert_eq!(of(same), Ok(Vec::new()), "what the default says in any case");
    }
    let known = profile("SCMP_ACT_ALLOW", json!(["mseal"]), "SCMP_ACT_ERRNO", Value::Null);
    assert_eq!(of(known), Ok(Vec::new()));
}

#[test]
fn an_errno_that_the_kernel_would_cut_is_refused_by_its_path() {
    let rule = |action: &str, errno: u32| {
        json!({"defaultAction": "SCMP_ACT_ALLOW",
               "syscalls": [{"names": ["mkdir"], "action": action, "errnoRet": errno}]})
    };
    let of = |action: &str, errno| {
        said(&with(minimal(), "/linux/seccomp", rule(action, errno))).map(drop)
    };
    let refused = of("SCMP_ACT_ERRNO", 5000).unwrap_err();
    assert_eq!(
        refused,
        "linux.seccomp.syscalls[0].errnoRet: \"5000\" is not an errno, 4094 at most"
    );
    assert!(of("SCMP_ACT_ERRNO", 4095).is_err());
    assert_eq!((of("SCMP_ACT_ERRNO", 4094), of("SCMP_ACT_TRACE", 5000)), (Ok(()), Ok(())));
    let refused = of("SCMP_ACT_TRACE", 65_536).unwrap_err();
    assert!(refused.starts_with("linux.seccomp.syscalls[0].errnoRet: \"65536\""), "{refused}");
    let default = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5000});
    let refused = said(&with(minimal(), "/linux/seccomp", default)).unwrap_err();
    assert!(refused.starts_with("linux.seccomp.defaultErrnoRet: \"5000\""), "{refused}");
}

#[test]
fn what_a_bound_node_can_not_be_is_warned_of() {
    let devices = json!([
        {"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 384, "gid": 5},
        {"path": "/dev/y", "type": "p", "fileMode": 384},
        {"path": "/dev/z", "type": "b", "major": 1, "minor": 3}
    ]);
    let warnings = said(&with(with_user_namespace(), "/linux/devices", devices.clone())).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("linux.devices[0]: fileMode, gid: "), "{warnings:?}");
    assert_eq!(said(&with(minimal(), "/linux/devices", devices)), Ok(Vec::new()));
}

#[test]
fn an_idle_group_has_no_shares() {
    let expected = "linux.resources.cpu.shares: are of no group that linux.resources.cpu.idle";
    let refused = limits(&json!({"cpu": {"idle": 1, "shares": 512}})).unwrap_err();
    assert!(refused.starts_with(expected), "{refused}");
    for cpu in
        [json!({"idle": 1}), json!({"idle": 1, "shares": 0}), json!({"idle": 0, "shares": 512})]
    {
        assert!(limits(&json!({"cpu": cpu})).is_ok(), "{cpu}");
    }
}

#[test]
fn a_version_is_semantic_and_an_annotation_has_a_name() {
    for version in ["1.0.0", "1.2.0-rc.1", "1.0.2-dev", "1.3.0+dev.2", "1.0.10-a-b+c-d"] {
        assert_eq!(said(&with(minimal(), "/ociVersion", json!(version))), Ok(Vec::new()));
    }
    for version in [
        "1.0",
        "1.0.0.0",
        "1.x.y",
        "1.0.",
        "1.00.1",
        "01.0.0",
        "2.0.0",
        "1.0.0-",
        "1.0.0+",
        "1.0.0-a..b",
        "1.0.0-01",
        "1.0.0-ä",
        "1.0.0 ",
        "v1.0.0",
        "1.+1.0",
    ] {
        let said = refused("/ociVersion", json!(version));
        assert_eq!(said, format!("ociVersion: {version:?} is not a version 1.x.y"));
    }
    let said = refused("/annotations", json!({"a": "b", "": "c"}));
    assert_eq!(said, "annotations: \"\" is not the name of an annotation");
}

#[test]
fn a_path_is_the_same_however_it_is_written() {
    let devices = json!([{"path": "/dev/x", "type": "p"}, {"path": "//dev/./x/", "type": "p"}]);
    let said = refused("/linux/devices", devices);
    assert_eq!(said, "linux.devices[1].path: a second device of the same path");
    let own = json!([{"path": "/dev//null", "type": "c", "major": 1, "minor": 3, "fileMode": 384}]);
    let (_, plan) = lower(with(minimal(), "/linux/devices", own), &minimal_context()).unwrap();
    let null: Vec<_> = plan.devices.iter().filter(|one| one.path.ends_with("null")).collect();
    assert_eq!(null.len(), 1, "in the place of the default one");
    assert_eq!((null[0].path.as_str(), null[0].mode), ("/dev/null", Some(0o600)));
    let said = refused("/linux/devices", json!([{"path": "/", "type": "p"}]));
    assert!(said.starts_with("linux.devices[0].path: \"/\""), "{said}");
}

/// The kernel would say no more than that some option is wrong, once much is made.
#[test]
fn options_of_memory_file_systems_and_terminals_are_held_to_their_form() {
    let of = |kind: &str, option: &str| {
        let mount = json!([{"destination": "/a", "type": "tmpfs"},
                           {"destination": "/b", "type": kind, "options": ["nosuid", option]}]);
        said(&with(with_user_namespace(), "/mounts", mount)).map(drop)
    };
    for (kind, option) in [
        ("tmpfs", "size=65536k"),
        ("tmpfs", "size=50%"),
        ("tmpfs", "size=0x1000"),
        ("tmpfs", "nr_inodes=1M"),
        ("tmpfs", "mode=1777"),
        ("tmpfs", "mode=0755"),
        ("tmpfs", "uid=999"),
        ("tmpfs", "huge=never"),
        ("devpts", "gid=5"),
        ("devpts", "ptmxmode=0666"),
        ("devpts", "newinstance"),
        ("ext4", "size=lots"),
    ] {
        assert_eq!(of(kind, option), Ok(()), "{kind} {option}");
    }
    for (kind, option, expected) in [
        ("tmpfs", "size=lots", "a size"),
        ("tmpfs", "size=", "a size"),
        ("tmpfs", "nr_blocks=-1", "a size"),
        ("tmpfs", "mode=999", "permission bits"),
        ("tmpfs", "mode=17777", "permission bits"),
        ("tmpfs", "gid=1000", "an id that is mapped"),
        ("tmpfs", "uid=root", "the number of a user or group"),
        ("devpts", "gid=1000", "an id that is mapped"),
        ("devpts", "gid=-5", "the number of a user or group"),
        ("devpts", "ptmxmode=8", "permission bits"),
    ] {
        let said = of(kind, option).unwrap_err();
        let at = format!("mounts[1].options[1]: {option:?} is not ");
        assert!(said.starts_with(&at) && said.contains(expected), "{said}");
    }
    let mount = json!([{"destination": "/b", "type": "tmpfs", "options": ["gid=1000"]}]);
    assert_eq!(said(&with(minimal(), "/mounts", mount)), Ok(Vec::new()), "without such ids");
}

#[test]
fn the_oom_killer_that_was_switched_off_can_be_switched_on_again() {
    let of = |disable: Value| limits(&json!({"memory": {"disableOOMKiller": disable}})).unwrap();
    assert_eq!(of(json!(false)).oom_kill_disable, Some(false));
    assert_eq!(of(json!(true)).oom_kill_disable, Some(true));
    assert_eq!(of(Value::Null).oom_kill_disable, None);
    let spec = with(minimal(), "/linux/resources", json!({"memory": {"disableOOMKiller": false}}));
    let (create, _) = lower(spec, &minimal_context()).unwrap();
    assert_eq!(create.resources, None, "of a new container it is on");
}

#[test]
fn capabilities_that_the_runtime_lacks_are_passed_over_by_name() {
    let sets = json!({"bounding": ["CAP_KILL", "CAP_SYSLOG", "CAP_CHOWN"],
                      "permitted": ["CAP_KILL", "CAP_SYSLOG"], "effective": ["CAP_SYSLOG"],
                      "inheritable": ["CAP_KILL"]});
    let process = json!({"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0},
                         "capabilities": sets});
    let mut process = serde_json::from_value(process).unwrap();
    let held = CapabilitySet::of(["KILL", "NET_RAW"]).unwrap();
    assert_eq!(
        shim_plan::restrict(&mut process, held),
        [
            ("bounding", "CAP_CHOWN, CAP_SYSLOG"),
            ("effective", "CAP_SYSLOG"),
            ("permitted", "CAP_SYSLOG")
        ]
        .map(|(set, names)| format!(
            "process.capabilities.{set}: this runtime has no {names} to give, which is passed over"
        ))
    );
    let lowered = shim_plan::exec(&process, None, &ExecContext::default()).unwrap();
    let sets = lowered.process.unwrap().capabilities.unwrap();
    assert_eq!((sets.bounding, sets.permitted, sets.effective), (1 << 5, 1 << 5, 0));
    assert_eq!(shim_plan::restrict(&mut process, held), Vec::<String>::new());
}
