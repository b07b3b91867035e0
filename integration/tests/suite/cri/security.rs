//! What containers may do.

use bosun_proto::cri;
use integration::image::Recipe;
use integration::kubelet::{Kubelet, load, node};
use integration::tar::Entry;

use super::prepared;

type Context = cri::LinuxContainerSecurityContext;

/// What a script says in a container with a security context.
fn said(
    (kubelet, config, pod): &(Kubelet, cri::PodSandboxConfig, String),
    name: &str,
    script: &str,
    change: impl FnOnce(&mut Context),
) -> String {
    let mut container = kubelet.container_config(name, script);
    change(container.linux.as_mut().unwrap().security_context.as_mut().unwrap());
    kubelet.output(pod, &container, config)
}

fn number(value: i64) -> Option<cri::Int64Value> {
    Some(cri::Int64Value { value })
}

#[test]
fn users_and_groups_are_those_that_are_asked_for() {
    let daemon = node();
    let node = prepared(&daemon);
    let image = Recipe::busybox().files(&[
        Entry::file("etc/passwd", "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n"),
        Entry::file("etc/group", "user:x:1000:\nextra:x:50000:user\n"),
    ]);
    load(&daemon, &[("registry.example.org/users:1", &image.image())]);
    let of = |name: &str, change: &dyn Fn(&mut Context)| {
        let (kubelet, config, pod) = &node;
        let mut container =
            kubelet.container_config(name, "id -u; id -g; id -G | tr ' ' '\\n' | sort -n | xargs");
        container.image = Some(cri::ImageSpec {
            image: "registry.example.org/users:1".to_owned(),
            ..Default::default()
        });
        change(container.linux.as_mut().unwrap().security_context.as_mut().unwrap());
        let id = kubelet.run(pod, &container, config);
        let status = kubelet.ended(&id);
        let user = status.user.and_then(|user| user.linux).expect("a user");
        let groups: Vec<String> = user.supplemental_groups.iter().map(i64::to_string).collect();
        let said = kubelet.said(&id);
        assert_eq!(said, format!("{}\n{}\n{}\n", user.uid, user.gid, groups.join(" ")), "{name}");
        said
    };
    assert_eq!(
        of("uid", &|context| context.run_as_user = number(1000)),
        "1000\n1000\n1000 50000\n"
    );
    assert_eq!(
        of("name", &|context| context.run_as_username = "user".into()),
        "1000\n1000\n1000 50000\n"
    );
    assert_eq!(
        of("group", &|context| {
            (context.run_as_user, context.run_as_group) = (number(1000), number(7));
            context.supplemental_groups = vec![1234];
        }),
        "1000\n7\n7 1234 50000\n"
    );
    assert_eq!(
        of("strict", &|context| {
            context.run_as_user = number(1000);
            context.supplemental_groups = vec![1234];
            context.set_supplemental_groups_policy(cri::SupplementalGroupsPolicy::Strict);
        }),
        "1000\n1000\n1000 1234\n"
    );
}

#[test]
fn capabilities_are_added_and_dropped() {
    let daemon = node();
    let node = prepared(&daemon);
    let script = "grep CapEff /proc/self/status | cut -f2";
    let bits = |name: &str, add: &[&str], drop: &[&str]| {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        let (add_capabilities, drop_capabilities) = (words(add), words(drop));
        said(&node, name, script, |context| {
            context.capabilities =
                Some(cri::Capability { add_capabilities, drop_capabilities, ..Default::default() });
        })
    };
    assert_eq!(bits("default", &[], &[]), "00000000a80425fb\n");
    assert_eq!(bits("none", &[], &["ALL"]), "0000000000000000\n");
    assert_eq!(bits("one", &["NET_ADMIN"], &["ALL"]), "0000000000001000\n");
    assert_eq!(bits("less", &[], &["CHOWN"]), "00000000a80425fa\n");
    let all = bits("all", &["ALL"], &["CHOWN"]);
    let all = u64::from_str_radix(all.trim(), 16).unwrap();
    assert!(all & 1 == 0 && all & (1 << 21) != 0, "{all:x}");
    // What is dropped is dropped at last, whoever adds it.
    assert_eq!(bits("both", &["NET_ADMIN"], &["cap_net_admin"]), "00000000a80425fb\n");
    assert_eq!(bits("nothing", &["ALL"], &["ALL"]), "0000000000000000\n");
    assert_eq!(bits("named", &["ALL", "CHOWN"], &["ALL"]), "0000000000000001\n");
    let (kubelet, ..) = &node;
    let mut config = kubelet.pod_config("privileged");
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().privileged = true;
    let pod = kubelet.run_pod(&config);
    let mut container = kubelet.container_config("privileged", script);
    let linux = container.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().privileged = true;
    let privileged = kubelet.output(&pod, &container, &config);
    assert_eq!(u64::from_str_radix(privileged.trim(), 16).unwrap(), all | 1);
}

#[test]
fn ambient_capabilities_are_those_of_who_is_not_root() {
    let daemon = node();
    let node = prepared(&daemon);
    let script = "grep ^Cap /proc/self/status | tr -s '\\t' ' '";
    let sets = |name: &str, ambient: &[&str], drop: &[&str]| {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        let (add_ambient_capabilities, drop_capabilities) = (words(ambient), words(drop));
        said(&node, name, script, |context| {
            context.run_as_user = number(1000);
            context.capabilities = Some(cri::Capability {
                add_ambient_capabilities,
                drop_capabilities,
                ..cri::Capability::default()
            });
        })
    };
    let all = |set: &str| {
        ["Inh", "Prm", "Eff", "Bnd", "Amb"].map(|name| format!("Cap{name}: {set}\n")).concat()
    };
    let (service, none) = ("0000000000000400", "0000000000000000");
    assert_eq!(sets("one", &["NET_BIND_SERVICE"], &["ALL"]), all(service));
    let beside = sets("beside", &["NET_BIND_SERVICE"], &[]);
    assert_eq!(beside, all(service).replace("Bnd: 0000000000000400", "Bnd: 00000000a80425fb"));
    // What is dropped is dropped at last, whoever adds it.
    assert_eq!(sets("both", &["NET_BIND_SERVICE"], &["ALL", "CAP_NET_BIND_SERVICE"]), all(none));
    let without = sets("without", &[], &[]);
    assert_eq!(without, all(none).replace("Bnd: 0000000000000000", "Bnd: 00000000a80425fb"));
    let (kubelet, config, pod) = &node;
    let mut unknown = kubelet.container_config("unknown", "true");
    let context = unknown.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    let add_ambient_capabilities = vec!["FLY".to_owned()];
    context.capabilities = Some(cri::Capability { add_ambient_capabilities, ..Default::default() });
    let refused = kubelet.try_create(pod, &unknown, config).unwrap_err();
    assert!(refused.message().contains("FLY"), "{refused}");
}

#[test]
fn calls_are_filtered_by_the_profile_that_is_named() {
    let daemon = node();
    let node = prepared(&daemon);
    let script = "grep -w Seccomp: /proc/self/status | cut -f2; chmod 700 /tmp/x 2>&1 || true; mkdir /tmp; touch /tmp/x; chmod 700 /tmp/x 2>&1 && echo changed";
    let of = |name: &str, profile: Option<cri::SecurityProfile>| {
        said(&node, name, script, |context| context.seccomp = profile)
    };
    use cri::security_profile::ProfileType;
    let plain = |kind: ProfileType| {
        Some(cri::SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() })
    };
    assert!(of("nothing", None).starts_with("0\n"));
    assert!(of("unconfined", plain(ProfileType::Unconfined)).starts_with("0\n"));
    assert!(of("default", plain(ProfileType::RuntimeDefault)).starts_with("2\n"));
    let file = daemon.scratch().join("profile.json");
    let calls = r#"["chmod","fchmod","fchmodat","fchmodat2"]"#;
    let profile = format!(
        r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":{calls},"action":"SCMP_ACT_ERRNO"}}]}}"#
    );
    std::fs::write(&file, profile).unwrap();
    let localhost = |path: &str| {
        Some(cri::SecurityProfile {
            profile_type: ProfileType::Localhost.into(),
            localhost_ref: path.to_owned(),
        })
    };
    let seen = of("localhost", localhost(file.to_str().unwrap()));
    assert!(seen.starts_with("2\n") && !seen.contains("changed"), "{seen}");
    let (kubelet, config, pod) = &node;
    // A rule that has no effect is said to who reads the log, and one that would let through what it
    // denies is refused at once.
    let profile = |default: &str, action: &str| {
        let name = daemon.scratch().join(format!("{default}.json"));
        let rule = format!(r#"{{"names":["read","no_such_call"],"action":"{action}"}}"#);
        let text = format!(r#"{{"defaultAction":"{default}","syscalls":[{rule}]}}"#);
        std::fs::write(&name, text).unwrap();
        let mut container = kubelet.container_config(&default.to_lowercase()[9..], "true");
        let context = container.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        context.seccomp = localhost(name.to_str().unwrap());
        kubelet.try_create(pod, &container, config)
    };
    profile("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW").unwrap();
    let said = "linux.seccomp.syscalls[0].names[1]: \"no_such_call\"";
    assert!(daemon.log().replace('\\', "").contains(said), "{}", daemon.log());
    let refused = profile("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO").unwrap_err();
    assert!(refused.message().contains("no_such_call"), "{refused}");
    for path in ["/nowhere.json", "relative.json", "/etc/passwd"] {
        let mut container = kubelet.container_config("bad", "true");
        let context = container.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        context.seccomp = localhost(path);
        let refused = kubelet.try_create(pod, &container, config).unwrap_err();
        assert!(refused.message().contains(path), "{refused}");
    }
}

#[test]
fn paths_are_hidden_and_read_only_and_so_is_the_root() {
    let daemon = node();
    let node = prepared(&daemon);
    let script = "cat /etc/secret; touch /etc/x 2>&1; touch /y 2>&1; true";
    let (kubelet, config, pod) = &node;
    let image =
        Recipe::busybox().files(&[Entry::directory("etc"), Entry::file("etc/secret", "s\n")]);
    load(&daemon, &[("registry.example.org/secret:1", &image.image())]);
    let of = |name: &str, change: &dyn Fn(&mut Context)| {
        let mut container = kubelet.container_config(name, script);
        container.image.as_mut().unwrap().image = "registry.example.org/secret:1".to_owned();
        change(container.linux.as_mut().unwrap().security_context.as_mut().unwrap());
        kubelet.output(pod, &container, config)
    };
    assert_eq!(of("plain", &|_| {}), "s\n");
    assert_eq!(of("masked", &|context| context.masked_paths = vec!["/etc/secret".into()]), "");
    let seen = of("ro", &|context| context.readonly_paths = vec!["/etc".into()]);
    assert!(seen.contains("/etc/x: Read-only") && !seen.contains("/y:"), "{seen}");
    let seen = of("root", &|context| context.readonly_rootfs = true);
    assert!(seen.contains("/etc/x: Read-only") && seen.contains("/y: Read-only"), "{seen}");
}

#[test]
fn no_program_raises_what_it_may_do() {
    let daemon = node();
    let node = prepared(&daemon);
    let script = "grep NoNewPrivs /proc/self/status | cut -f2";
    assert_eq!(said(&node, "off", script, |_| {}), "0\n");
    assert_eq!(said(&node, "on", script, |context| context.no_new_privs = true), "1\n");
}

#[test]
fn devices_are_those_that_are_asked_for() {
    let daemon = node();
    let (kubelet, config, pod) = prepared(&daemon);
    let script =
        "cat /dev/noise | head -c 3 | wc -c; echo x > /dev/noise && echo written; ls /dev/net";
    let mut container = kubelet.container_config("one", script);
    container.devices = vec![cri::Device {
        host_path: "/dev/urandom".to_owned(),
        container_path: "/dev/noise".to_owned(),
        permissions: "r".to_owned(),
    }];
    let seen = kubelet.output(&pod, &container, &config);
    assert!(seen.starts_with("3\n"), "{seen}");
    for (host, inside) in
        [("/dev/nowhere", "/dev/x"), ("/etc/passwd", "/dev/x"), ("/dev/null", "x")]
    {
        container.metadata.as_mut().unwrap().attempt += 1;
        container.devices[0].host_path = host.to_owned();
        container.devices[0].container_path = inside.to_owned();
        let refused = kubelet.try_create(&pod, &container, &config);
        assert!(refused.is_err(), "{host} {inside}");
    }
}

#[test]
fn a_pod_has_users_of_its_own() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let mut config = kubelet.pod_config("web");
    let mapping = |length| cri::IdMapping { host_id: 1_000_000, container_id: 0, length };
    let with = |config: &mut cri::PodSandboxConfig, uids, gids| {
        let linux = config.linux.as_mut().unwrap();
        let context = linux.security_context.as_mut().unwrap();
        let options = context.namespace_options.as_mut().unwrap();
        options.userns_options =
            Some(cri::UserNamespace { mode: cri::NamespaceMode::Pod.into(), uids, gids });
    };
    with(&mut config, vec![mapping(65_536)], vec![mapping(65_536)]);
    let pod = kubelet.run_pod(&config);
    let script = "cat /proc/self/uid_map | xargs; id -u; touch /made; stat -c %u /made";
    let container = kubelet.container_config("one", script);
    assert_eq!(kubelet.output(&pod, &container, &config), "0 1000000 65536\n0\n0\n");
    for (uids, gids) in [
        (vec![], vec![]),
        (vec![mapping(65_536)], vec![mapping(1)]),
        (vec![mapping(5), mapping(6)], vec![mapping(5), mapping(6)]),
    ] {
        let mut bad = kubelet.pod_config("bad");
        with(&mut bad, uids, gids);
        let refused = kubelet.try_run_pod(&bad).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    }
}

#[test]
fn a_container_s_users_are_its_pod_s_and_other_wishes_are_refused() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let mapping = |host_id| vec![cri::IdMapping { host_id, container_id: 0, length: 65_536 }];
    let users = |mode: cri::NamespaceMode, uids: &[cri::IdMapping], gids: &[cri::IdMapping]| {
        cri::UserNamespace { mode: mode.into(), uids: uids.to_vec(), gids: gids.to_vec() }
    };
    let (its, other) = (mapping(1_000_000), mapping(2_000_000));
    let (of_pod, of_node) = (cri::NamespaceMode::Pod, cri::NamespaceMode::Node);
    let own = users(of_pod, &its, &its);
    let host = kubelet.pod_config("host");
    let mut apart = kubelet.pod_config("apart");
    let security = apart.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.namespace_options.as_mut().unwrap().userns_options = Some(own.clone());
    let pods = [&host, &apart].map(|config| kubelet.run_pod(config));
    let count = std::cell::Cell::new(0);
    let create = |pod: usize, users: Option<cri::UserNamespace>, mounts: Vec<cri::Mount>| {
        count.set(count.get() + 1);
        let name = format!("one{}", count.get());
        let mut container = kubelet.container_config(&name, "cat /proc/self/uid_map | xargs");
        let context = container.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        context.namespace_options.as_mut().unwrap().userns_options = users;
        container.mounts = mounts;
        kubelet.try_create(&pods[pod], &container, [&host, &apart][pod])
    };
    let refused = |pod, users, mounts, named: &str| {
        let refused = create(pod, users, mounts).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(named), "{refused}");
    };
    let wish =
        |mode, uids: &[cri::IdMapping], gids: &[cri::IdMapping]| Some(users(mode, uids, gids));
    for mapping in [&its[..], &[]] {
        refused(0, wish(of_pod, mapping, mapping), vec![], "in a pod without one");
    }
    refused(0, wish(of_node, &its, &its), vec![], "no mappings");
    refused(1, wish(of_pod, &other, &other), vec![], "not the pod's");
    refused(1, wish(of_pod, &its, &other), vec![], "not the pod's");
    refused(1, wish(of_node, &[], &[]), vec![], "the host's users");
    for mode in [cri::NamespaceMode::Container, cri::NamespaceMode::Target] {
        refused(1, wish(mode, &its, &its), vec![], "the pod's or the host's");
    }
    let directory = daemon.scratch().join("mnt").display().to_string();
    let mount = |uids: &[cri::IdMapping], gids: &[cri::IdMapping]| {
        vec![cri::Mount {
            host_path: directory.clone(),
            container_path: "/mnt".to_owned(),
            uid_mappings: uids.to_vec(),
            gid_mappings: gids.to_vec(),
            ..cri::Mount::default()
        }]
    };
    refused(0, None, mount(&its, &its), "/mnt");
    refused(1, None, mount(&other, &other), "/mnt");
    refused(1, None, mount(&its, &[]), "/mnt");
    refused(1, None, mount(&its, &other), "/mnt");

    let map = |id: String| {
        kubelet.start(&id).unwrap();
        let _ = kubelet.ended(&id);
        kubelet.said(&id)
    };
    let everybody = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let everybody = everybody.split_whitespace().collect::<Vec<_>>().join(" ") + "\n";
    for wish in [None, wish(of_node, &[], &[])] {
        assert_eq!(map(create(0, wish, vec![]).unwrap()), everybody);
    }
    for wish in [None, Some(own)] {
        let made = create(1, wish, mount(&its, &its)).unwrap();
        assert_eq!(map(made), "0 1000000 65536\n");
    }
}
