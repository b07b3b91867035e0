use serde_json::json;

use super::*;

/// As libcni 1.2 writes it, with `config` in base64.
fn libcni(config: &str) -> Value {
    json!({
        "kind": "cniCacheV1",
        "containerId": "c1",
        "config": STANDARD.encode(config),
        "ifName": "eth0",
        "networkName": "net",
        "netns": "/run/netns/c1",
        "cniArgs": [["K8S_POD_NAME", "web"]],
        "capabilityArgs": { "portMappings": [{ "hostPort": 80 }] },
        "result": { "cniVersion": "1.0.0", "ips": [{ "address": "10.0.0.2/24" }] },
    })
}

const CONFIG: &str =
    r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"bridge","bridge":"cni0"}]}"#;

fn key() -> Key {
    Key { network: "net".into(), container: "c1".into(), interface: "eth0".into() }
}

fn get(cache: &Cache) -> Result<Option<Entry>> {
    read(&cache.path(&key()), &key().file())
}

fn cache(files: &[(&str, &str)]) -> (tempfile::TempDir, Cache) {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::new(directory.path());
    fs::create_dir(&cache.directory).unwrap();
    for (name, content) in files {
        fs::write(cache.directory.join(name), content).unwrap();
    }
    (directory, cache)
}

#[test]
fn what_libcni_wrote_is_understood_and_written_as_it_would_be() {
    let (_directory, cache) = cache(&[("net-c1-eth0", &libcni(CONFIG).to_string())]);
    let mut entry = get(&cache).unwrap().unwrap();
    assert_eq!(entry.arguments, [("K8S_POD_NAME".to_owned(), "web".to_owned())]);
    assert_eq!(entry.network.plugins[0].kind, "bridge");
    assert_eq!(entry.runtime, None);
    assert_eq!(entry.result.as_ref().unwrap().ips.len(), 1);

    entry.runtime = Some("bosun".into());
    cache.put(&entry).unwrap();
    let written: Value = serde_json::from_slice(&fs::read(cache.path(&key())).unwrap()).unwrap();
    let mut wanted = libcni(CONFIG);
    wanted["runtime"] = "bosun".into();
    wanted["config"] = written["config"].clone();
    assert_eq!(written, wanted);
    let config = STANDARD.decode(written["config"].as_str().unwrap()).unwrap();
    let mut wanted: Value = serde_json::from_str(CONFIG).unwrap();
    wanted["loadOnlyInlinedPlugins"] = true.into();
    assert_eq!(serde_json::from_slice::<Value>(&config).unwrap(), wanted);

    entry.result = None;
    cache.put(&entry).unwrap();
    assert_eq!(get(&cache).unwrap().unwrap().result, None);
    cache.remove(&key()).unwrap();
    cache.remove(&key()).unwrap();
    assert!(get(&cache).unwrap().is_none());
}

#[test]
fn what_is_damaged_is_named_and_found_by_its_name() {
    let mut other = libcni(CONFIG);
    other["containerId"] = "c2".into();
    let mut kind = libcni(CONFIG);
    kind["kind"] = "cniCacheV9".into();
    let mut result = libcni(CONFIG);
    result["result"]["ips"][0]["address"] = "nowhere".into();
    let whole = libcni(CONFIG).to_string();
    let table = [
        (String::new(), "EOF"),
        (whole[..whole.len() / 2].into(), "EOF"),
        ("[]".into(), "invalid"),
        (other.to_string(), "another attachment"),
        (kind.to_string(), "cniCacheV9"),
        (result.to_string(), "nowhere"),
        (libcni("{}").to_string(), "has no `name`"),
        (whole.replace("\"config\":\"", "\"config\":\"*"), "config"),
    ];
    for (content, word) in table {
        let (_directory, cache) = cache(&[("net-c1-eth0", &content)]);
        let error = get(&cache).unwrap_err().to_string();
        assert!(error.contains("results/net-c1-eth0") && error.contains(word), "{error}");
        let (entries, damaged) = cache.list(Some("c1")).unwrap();
        assert!(entries.is_empty(), "{content}");
        // What is whole, and another container's, is not this one's.
        if word != "another attachment" {
            assert_eq!(damaged[0].key, Some(key()));
        }
        assert_eq!(cache.list(None).unwrap().1.len(), 1);
    }
}

#[test]
fn a_container_has_what_is_its_own() {
    let entry = |network: &str, container: &str, interface: &str| {
        let mut value = libcni(&CONFIG.replace("\"net\"", &format!("{network:?}")));
        value["networkName"] = network.into();
        value["containerId"] = container.into();
        value["ifName"] = interface.into();
        value.to_string()
    };
    let (_directory, cache) = cache(&[
        ("net-c1-eth0", &entry("net", "c1", "eth0")),
        ("a-net-c1-eth1", &entry("a-net", "c1", "eth1")),
        // Of container `x`: only the content tells.
        ("net-c1-x-eth0", &entry("net-c1", "x", "eth0")),
        ("net-c12-eth0", &entry("net", "c12", "eth0")),
        (".net-c1-eth0.new", "half"),
    ]);
    let interfaces = |container| -> Vec<String> {
        let (entries, damaged) = cache.list(container).unwrap();
        assert!(damaged.is_empty(), "{damaged:?}");
        entries.into_iter().map(|entry| entry.key.interface).collect()
    };
    assert_eq!(interfaces(Some("c1")), ["eth1", "eth0"]);
    assert_eq!(interfaces(None).len(), 4);
    cache.sweep();
    assert_eq!(fs::read_dir(&cache.directory).unwrap().count(), 4);
}

#[test]
fn names_have_to_fit() {
    let mut key = key();
    key.check().unwrap();
    key.container = "c".repeat(250);
    assert!(matches!(key.check(), Err(Error::Argument { .. })));
}
