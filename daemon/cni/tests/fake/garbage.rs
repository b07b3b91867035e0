//! What belongs to nobody any more.

use std::fs;

use bosun_cni::{Error, PortMapping, Protocol};
use serde_json::{Value, json};

use crate::world::{GOOD, NETNS, World, assert_says, collect, container};

#[tokio::test]
async fn what_no_container_has_goes_and_plugins_are_told_what_stays() {
    let world = World::with("1.1.0", &["a", "b"]);
    let cni = world.cni();
    for id in ["c1", "c2", "c3"] {
        cni.attach(container(id)).await.unwrap();
    }
    world.calls();
    // c4 is about to be attached.
    let collected = collect(&cni, &["c2", "c4"]).await;
    assert!(collected.failed.is_empty(), "{:?}", collected.failed);
    let removed: Vec<&str> = collected.removed.iter().map(|one| &*one.container).collect();
    assert_eq!(removed, ["c1", "c3"]);
    let undone = ["DEL b c1 eth0", "DEL a c1 eth0", "DEL b c3 eth0", "DEL a c3 eth0"];
    assert_eq!(world.calls(), [&undone[..], &["GC a", "GC b"]].concat());
    let request = world.read("b", "GC");
    let stay = json!([
        { "containerID": "c2", "ifname": "eth0" },
        { "containerID": "c4", "ifname": "eth0" },
    ]);
    assert_eq!(request["cni.dev/valid-attachments"], stay);
    assert_eq!(request["cni.dev/attachments"], stay);
    assert_eq!(request["name"], "net");
    assert_eq!(world.cached(), ["net-c2-eth0"]);

    // One that fails does not keep the others from it.
    world.plugin("a", "exit 1");
    let collected = collect(&cni, &["c2"]).await;
    assert_eq!(collected.failed.len(), 1);
    assert_says(&collected.failed[0], &["\"net\"", "\"a\"", "GC"]);
    assert_eq!(world.calls(), ["GC a", "GC b"]);
}

#[tokio::test]
async fn a_network_may_say_no_and_an_older_one_has_no_gc() {
    let world = World::with("1.1.0", &["a"]);
    let cni = world.cni();
    cni.attach(container("c1")).await.unwrap();
    world.calls();
    world.network(&json!({ "name": "net", "cniVersion": "1.1.0", "disableGC": true }), &["a"]);
    assert!(collect(&cni, &[]).await.removed.is_empty());
    assert_eq!(world.calls(), [""; 0]);
    world.network(&json!({ "name": "net", "cniVersion": "1.0.0" }), &["a"]);
    assert_eq!(collect(&cni, &[]).await.removed.len(), 1);
    assert_eq!(world.calls(), ["DEL a c1 eth0"]);
}

#[tokio::test]
async fn what_others_attached_stays_while_its_namespace_does() {
    let world = World::with("1.1.0", &["a"]);
    let cni = world.cni();
    cni.attach(container("c1")).await.unwrap();
    let own = fs::read(world.path("cache/results/net-c1-eth0")).unwrap();
    let other = |network: &str, id: &str, netns: &str| {
        let mut entry: Value = serde_json::from_slice(&own).unwrap();
        let object = entry.as_object_mut().unwrap();
        object.remove("runtime");
        object.insert("networkName".into(), network.into());
        object.insert("containerId".into(), id.into());
        object.insert("netns".into(), netns.into());
        fs::write(world.path(&format!("cache/results/{network}-{id}-eth0")), entry.to_string())
            .unwrap();
    };
    other("net", "living", NETNS);
    other("net", "dead", "/run/netns/is/not/there");
    other("foreign", "dead", "/run/netns/is/not/there");
    let collected = collect(&cni, &["c1"]).await;
    let removed: Vec<&str> = collected.removed.iter().map(|one| &*one.container).collect();
    assert_eq!(removed, ["dead"], "{:?}", collected.failed);
    assert_eq!(world.cached(), ["foreign-dead-eth0", "net-c1-eth0", "net-living-eth0"]);
    assert_eq!(
        world.read("a", "GC")["cni.dev/valid-attachments"],
        json!([
            { "containerID": "c1", "ifname": "eth0" },
            { "containerID": "living", "ifname": "eth0" },
        ])
    );
}

#[tokio::test]
async fn gc_waits_for_attaches_and_asks_afterwards_what_is_valid() {
    let world = World::with("1.0.0", &["a"]);
    world.plugin("a", &format!("until [ -e \"$here/go\" ]; do sleep 0.01; done\n{GOOD}"));
    let cni = world.cni();
    let attaching = tokio::spawn({
        let cni = cni.clone();
        async move { cni.attach(container("c1")).await }
    });
    world.wait("the call", || world.path("bin/a.ADD.env").exists()).await;
    let go = world.path("bin/go");
    let (asked, ask) = tokio::sync::oneshot::channel();
    let collecting = tokio::spawn({
        let (cni, go) = (cni.clone(), go.clone());
        async move {
            cni.collect(async move {
                let _ = asked.send(go.exists());
                ["c1".to_owned()].into()
            })
            .await
        }
    });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    fs::write(&go, "").unwrap();
    attaching.await.unwrap().unwrap();
    assert!(ask.await.unwrap(), "it was asked while an attach ran");
    assert!(collecting.await.unwrap().removed.is_empty());
    assert_eq!(world.cached(), ["net-c1-eth0"]);
}

#[tokio::test]
async fn what_plugins_can_t_undo_is_given_up_when_it_is_nobody_s_and_its_namespace_is_gone() {
    let world = World::with("1.0.0", &["p"]);
    let cni = world.cni();
    let mapping =
        PortMapping { host_port: 8088, container_port: 80, protocol: Protocol::Tcp, host_ip: None };
    for id in ["gone", "held", "valid"] {
        let mut container = container(id);
        container.capabilities.port_mappings = vec![mapping.clone()];
        cni.attach(container).await.unwrap();
        let file = world.path(&format!("cache/results/net-{id}-eth0"));
        let mut entry: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        if id != "held" {
            entry["netns"] = "/run/netns/is/not/there".into();
        }
        fs::write(file, entry.to_string()).unwrap();
    }
    world.calls();
    world.plugin("p", "echo no >&2; exit 1");
    let both = ["DEL p gone eth0", "DEL p held eth0"];
    for _ in 0..2 {
        // Another runtime's life goes on with the count.
        let collected = collect(&world.cni(), &["valid"]).await;
        assert_eq!(collected.failed.len(), 2, "{:?}", collected.failed);
        assert_eq!(world.calls(), both);
        assert_eq!(world.cached(), ["net-gone-eth0", "net-held-eth0", "net-valid-eth0"]);
    }
    let collected = collect(&world.cni(), &["valid"]).await;
    assert!(matches!(collected.failed[0], Error::GivenUp { tries: 3, .. }));
    let left = ["gone", "eth0", "\"net\"", "what p made", "10.0.0.2", "port 8088", "DEL"];
    assert_says(&collected.failed[0], &left);
    assert_eq!(world.calls(), both);
    for _ in 0..4 {
        assert_eq!(collect(&world.cni(), &["valid"]).await.failed.len(), 1);
    }
    assert_eq!(world.cached(), ["net-held-eth0", "net-valid-eth0"]);
    assert_eq!(world.calls(), ["DEL p held eth0"; 4]);
    // One that comes to its senses in time undoes what it made.
    world.plugin("p", GOOD);
    assert_eq!(collect(&world.cni(), &[]).await.removed.len(), 2);
    assert_eq!(world.cached(), [""; 0]);
}

#[tokio::test]
async fn damaged_files_are_named_and_half_written_ones_go() {
    let world = World::with("1.0.0", &["a"]);
    let cni = world.cni();
    cni.attach(container("c1")).await.unwrap();
    fs::write(world.path("cache/results/net-c9-eth0"), "{").unwrap();
    fs::write(world.path("cache/results/.net-c1-eth0.new"), "{").unwrap();
    let collected = collect(&cni, &["c1"]).await;
    assert_eq!(collected.failed.len(), 1);
    assert_says(&collected.failed[0], &["net-c9-eth0", "damaged"]);
    assert_eq!(world.cached(), ["net-c1-eth0", "net-c9-eth0"]);
}
