//! Attach, detach, check, status: what plugins are told, and when.

use std::fs;

use bosun_cni::{Arguments, Capabilities, Checked, Error, PortMapping, Protocol, Status};
use serde_json::json;

use crate::world::{GOOD, NETNS, World, assert_says, container};

#[tokio::test]
async fn a_chain_goes_forth_with_each_result_and_back_with_the_last() {
    let world = World::with("1.0.0", &["a", "p"]);
    let cni = world.cni();
    let mut one = container("c1");
    one.arguments = Arguments::kubernetes("default", "web", "c1", "u").unwrap();
    one.capabilities = Capabilities {
        port_mappings: vec![PortMapping {
            host_port: 80,
            container_port: 8080,
            protocol: Protocol::Tcp,
            host_ip: None,
        }],
        mac: Some("0a:00:00:00:00:01".into()),
        ..Capabilities::default()
    };
    let attached = cni.attach(one.clone()).await.unwrap();
    assert_eq!(world.calls(), ["ADD a c1 eth0", "ADD p c1 eth0"]);
    assert_eq!(attached.len(), 1);
    assert_eq!((attached[0].network.as_str(), attached[0].interface.as_str()), ("net", "eth0"));
    assert_eq!(attached[0].result.interfaces[0].name, "p");

    let mut first = world.read("a", "ADD");
    assert_eq!(first.get("prevResult"), None);
    assert_eq!(first.get("runtimeConfig"), None);
    assert_eq!(first["name"].take(), "net");
    assert_eq!(first["cniVersion"].take(), "1.0.0");
    let second = world.read("p", "ADD");
    assert_eq!(second["prevResult"]["interfaces"][0]["name"], "a");
    let published = json!({
        "portMappings": [{ "hostPort": 80, "containerPort": 8080, "protocol": "tcp" }],
    });
    assert_eq!(second["runtimeConfig"], published);
    let bin = world.path("bin").display().to_string();
    let wanted = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "CNI_COMMAND=ADD",
        "CNI_CONTAINERID=c1",
        &format!("CNI_NETNS={NETNS}"),
        "CNI_IFNAME=eth0",
        "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;\
         K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u",
        &format!("CNI_PATH={bin}"),
    ];
    assert_eq!(world.environment("p", "ADD"), wanted.map(str::to_owned).into());
    assert_eq!(world.cached(), ["net-c1-eth0"]);
    assert!(matches!(cni.attach(one.clone()).await, Err(Error::Attached { .. })));
    assert_eq!(world.calls(), [""; 0]);

    // Another daemon, which knows nothing but the id; and the configuration is another one now.
    fs::remove_file(world.path("net.d/net.conflist")).unwrap();
    let next = world.cni();
    assert_eq!(next.attached("c1").await.unwrap(), attached);
    assert_eq!(next.detach(container("c1")).await.unwrap().len(), 0);
    assert_eq!(world.calls(), ["DEL p c1 eth0", "DEL a c1 eth0"]);
    for plugin in ["a", "p"] {
        assert_eq!(world.read(plugin, "DEL")["prevResult"]["interfaces"][0]["name"], "p");
    }
    assert_eq!(world.read("p", "DEL")["runtimeConfig"], published);
    let told = world.environment("a", "DEL");
    assert!(told.iter().any(|line| line.contains("K8S_POD_NAME=web")), "{told:?}");
    world.assert_clean();
}

#[tokio::test]
async fn detach_needs_no_namespace_and_no_attachment_and_does_it_again() {
    let world = World::with("1.0.0", &["a"]);
    let cni = world.cni();
    let plain = world.path("was-a-namespace");
    fs::write(&plain, "").unwrap();
    for netns in [None, Some("/nowhere/at/all".into()), Some(plain.clone())] {
        let mut gone = container("c1");
        gone.netns.clone_from(&netns);
        cni.attach(container("c1")).await.unwrap();
        for _ in 0..2 {
            cni.detach(gone.clone()).await.unwrap();
            assert_eq!(world.calls().last().unwrap(), "DEL a c1 eth0");
            // Without a path, the cached one counts, which is still there.
            let told = world.environment("a", "DEL");
            let named = told.contains(&format!("CNI_NETNS={NETNS}"));
            assert!(named || told.contains("CNI_NETNS="), "{told:?}");
            assert!(!named || netns.is_none());
        }
        world.assert_clean();
        assert!(matches!(cni.attach(gone).await, Err(Error::Argument { .. })));
    }
    assert_eq!(world.calls(), [""; 0]);
    // Without any configuration there is nothing to be done.
    fs::remove_file(world.path("net.d/net.conflist")).unwrap();
    cni.detach(container("c1")).await.unwrap();
}

#[tokio::test]
async fn names_with_paths_in_them_are_refused() {
    let world = World::with("1.0.0", &["a"]);
    for id in ["", "../../etc/passwd", "a/b", "-a", &"x".repeat(250)] {
        let error = world.cni().attach(container(id)).await.unwrap_err();
        assert!(matches!(error, Error::Name { .. } | Error::Argument { .. }), "{error}");
    }
    assert!(matches!(world.cni().versions("../a").await, Err(Error::Name { .. })));
    assert_eq!(world.calls(), [""; 0]);
    world.assert_clean();
}

#[tokio::test]
async fn a_plugin_that_can_not_be_run_is_named_before_another_is() {
    let world = World::with("1.0.0", &["a", "b"]);
    fs::remove_file(world.path("bin/b")).unwrap();
    let error = world.cni().attach(container("c1")).await.unwrap_err();
    assert_says(&error, &["\"net\"", "\"b\"", "is not in", "bin"]);
    fs::write(world.path("bin/b"), "").unwrap();
    let error = world.cni().attach(container("c1")).await.unwrap_err();
    assert_says(&error, &["\"net\"", "bin/b", "is not executable"]);
    assert_says(&not_ready(&world).await, &["bin/b", "is not executable"]);
    // What was never attached can be let go all the same.
    assert_eq!(world.cni().detach(container("c1")).await.unwrap().len(), 1);
    assert_eq!(world.calls(), [""; 0]);
    world.assert_clean();
}

#[tokio::test]
async fn networks_are_attached_in_order_and_all_or_none() {
    let mut world = World::with("1.0.0", &["a"]);
    world.settings.most_networks = 2;
    world.network(&json!({ "cniVersion": "1.0.0", "name": "other" }), &["b"]);
    world.plugin("b", GOOD);
    let cni = world.cni();
    let attached = cni.attach(container("c1")).await.unwrap();
    let on: Vec<_> = attached.iter().map(|one| (&*one.network, &*one.interface)).collect();
    assert_eq!(on, [("net", "eth0"), ("other", "eth1")]);
    assert_eq!(cni.attached("c1").await.unwrap(), attached);
    cni.detach(container("c1")).await.unwrap();
    let calls = ["ADD a c1 eth0", "ADD b c1 eth1", "DEL b c1 eth1", "DEL a c1 eth0"];
    assert_eq!(world.calls(), calls);

    world.plugin("b", "[ $CNI_COMMAND != ADD ]");
    assert!(matches!(cni.attach(container("c1")).await, Err(Error::Add { left: None, .. })));
    assert_eq!(world.calls(), calls);
    world.assert_clean();
}

#[tokio::test]
async fn check_has_the_result_and_says_what_is_wrong() {
    let world = World::with("1.0.0", &["a", "b"]);
    let cni = world.cni();
    assert!(matches!(cni.check(container("c1")).await, Err(Error::NotAttached { .. })));
    cni.attach(container("c1")).await.unwrap();
    assert_eq!(cni.check(container("c1")).await.unwrap(), [("eth0".into(), Checked::Whole)]);
    assert_eq!(world.calls()[2..], ["CHECK a c1 eth0", "CHECK b c1 eth0"]);
    assert_eq!(world.read("a", "CHECK")["prevResult"]["interfaces"][0]["name"], "b");
    world.plugin("b", r#"echo '{"code":103,"msg":"gone","details":"eth0"}'; exit 1"#);
    let error = cni.check(container("c1")).await.unwrap_err();
    assert_says(&error, &["\"net\"", "\"b\"", "CHECK", "gone; eth0 (code 103)"]);

    for head in [
        json!({ "name": "net", "cniVersion": "0.3.1" }),
        json!({ "name": "net", "cniVersion": "1.0.0", "disableCheck": true }),
    ] {
        world.network(&head, &["a"]);
        cni.attach(container("c2")).await.unwrap();
        assert_eq!(cni.check(container("c2")).await.unwrap(), [("eth0".into(), Checked::Skipped)]);
        cni.detach(container("c2")).await.unwrap();
    }
}

#[tokio::test]
async fn the_version_is_one_that_all_plugins_speak() {
    let world = World::with("1.0.0", &["a", "b"]);
    let versions = json!({ "name": "net", "cniVersions": ["0.4.0", "1.0.0", "1.1.0", "1.2.0"] });
    world.network(&versions, &["a", "b"]);
    let old = GOOD.replace(r#","1.0.0","1.1.0""#, r#","1.0.0""#).replace("10.0.0.2", "10.0.0.3");
    world.plugin("b", &old);
    let cni = world.cni();
    cni.attach(container("c1")).await.unwrap();
    assert_eq!(world.read("a", "ADD")["cniVersion"], "1.0.0");
    assert_eq!(cni.versions("b").await.unwrap(), ["0.4.0", "1.0.0"]);
    // A program that was replaced is asked again; what is attached stays in its version.
    world.plugin("b", GOOD);
    assert_eq!(cni.versions("b").await.unwrap(), ["0.4.0", "1.0.0", "1.1.0"]);
    cni.detach(container("c1")).await.unwrap();
    assert_eq!(world.read("a", "DEL")["cniVersion"], "1.0.0");
    cni.attach(container("c1")).await.unwrap();
    assert_eq!(world.read("a", "ADD")["cniVersion"], "1.1.0");
}

async fn not_ready(world: &World) -> Error {
    match world.cni().status().await {
        Status::NotReady(error) => *error,
        Status::Ready { networks, .. } => panic!("ready: {networks:?}"),
    }
}

#[tokio::test]
async fn the_status_is_ready_or_says_why_not() {
    let world = World::new();
    assert_says(&not_ready(&world).await, &["no network configuration in", "net.d"]);
    fs::write(world.path("net.d/00-broken.conflist"), "{").unwrap();
    assert_says(&not_ready(&world).await, &["00-broken.conflist: is not JSON"]);
    world.network(&json!({ "name": "net", "cniVersion": "1.1.0" }), &["a"]);
    assert_says(&not_ready(&world).await, &["\"a\"", "is not in"]);

    world.plugin("a", &GOOD.replace(r#","1.1.0"]"#, "]"));
    assert_says(&not_ready(&world).await, &["\"a\"", "1.1.0", "only 0.4.0, 1.0.0"]);
    let unwell = r#"STATUS) echo '{"code":50,"msg":"no daemon"}'; exit 1 ;; ADD)"#;
    world.plugin("a", &GOOD.replacen("ADD)", unwell, 1));
    let error = not_ready(&world).await;
    assert_says(&error, &["\"net\"", "\"a\"", "STATUS", "no daemon (code 50)"]);
    let Error::Plugin { failure, .. } = error else { panic!("{error}") };
    assert_eq!(failure.code(), Some(50));

    world.plugin("a", GOOD);
    let status = world.cni().status().await;
    assert!(status.is_ready(), "{status}");
    assert!(status.to_string().contains("00-broken.conflist"), "{status}");
    assert_eq!(world.read("a", "STATUS")["name"], "net");

    // A version without STATUS is not asked for one.
    world.network(&json!({ "name": "net", "cniVersion": "1.0.0" }), &["a"]);
    world.calls();
    assert!(world.cni().status().await.is_ready());
    assert_eq!(world.calls(), [""; 0]);
}

#[tokio::test]
async fn containers_are_attached_side_by_side_but_one_thing_at_a_time_to_each() {
    let world = World::with("1.0.0", &["a"]);
    // Each waits for the other container's, and none may meet itself.
    let meet = r#"
mkdir "$here/busy.$CNI_CONTAINERID" || exit 1
if [ $CNI_COMMAND = ADD ]; then
    touch "$here/came.$CNI_CONTAINERID"
    until [ -e "$here/came.c1" ] && [ -e "$here/came.c2" ]; do sleep 0.01; done
fi
sleep 0.05
rmdir "$here/busy.$CNI_CONTAINERID"
"#;
    world.plugin("a", &format!("{meet}{GOOD}"));
    let cni = world.cni();
    let both = tokio::join!(cni.attach(container("c1")), cni.attach(container("c2")));
    both.0.unwrap();
    both.1.unwrap();
    let detach = || cni.detach(container("c1"));
    let done = tokio::join!(detach(), detach(), detach(), detach());
    for done in [done.0, done.1, done.2, done.3] {
        done.unwrap();
    }
}

#[tokio::test]
async fn an_attach_goes_on_when_nobody_waits_for_it() {
    let world = World::with("1.0.0", &["a"]);
    world.plugin("a", &format!("until [ -e \"$here/go\" ]; do sleep 0.01; done\n{GOOD}"));
    let cni = world.cni();
    tokio::select! {
        _ = cni.attach(container("c1")) => panic!("it can't have ended"),
        () = world.wait("the call", || world.path("bin/a.ADD.env").exists()) => {}
    }
    fs::write(world.path("bin/go"), "").unwrap();
    // Detach waits for it.
    cni.detach(container("c1")).await.unwrap();
    assert_eq!(world.calls(), ["ADD a c1 eth0", "DEL a c1 eth0"]);
    world.assert_clean();
}
