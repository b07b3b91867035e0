use serde_json::json;

use super::*;

struct Directory(tempfile::TempDir);

impl Directory {
    fn new(files: &[(&str, &str)]) -> Directory {
        let directory = Directory(tempfile::tempdir().unwrap());
        for (name, content) in files {
            let path = directory.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        directory
    }

    fn load(&self, most: usize) -> Networks {
        Networks::load(self.0.path(), most).unwrap()
    }
}

fn names(networks: &Networks) -> Vec<&str> {
    networks.networks.iter().map(|network| network.name.as_str()).collect()
}

const LIST: &str = r#"{"cniVersion":"1.0.0","name":"NAME","plugins":[{"type":"bridge"}]}"#;

#[test]
fn the_first_valid_file_in_the_order_of_names_is_taken() {
    let one = r#"{"cniVersion":"0.4.0","name":"single","type":"ptp","mtu":9}"#;
    let directory = Directory::new(&[
        ("00-broken.conflist", "{"),
        ("05-ignored.txt", "{"),
        ("10-list.conflist", &LIST.replace("NAME", "first")),
        ("20-one.conf", one),
        ("30-again.conflist", &LIST.replace("NAME", "first")),
        ("40-last.json", &one.replace("single", "last")),
    ]);
    fs::create_dir(directory.0.path().join("01-directory.conf")).unwrap();
    let first = directory.load(1);
    assert_eq!(names(&first), ["first"]);
    assert_eq!(first.invalid.len(), 1, "{:?}", first.invalid);
    assert!(first.invalid[0].file.ends_with("00-broken.conflist"));
    assert!(first.invalid[0].reason.contains("is not JSON"), "{}", first.invalid[0]);

    let all = directory.load(9);
    assert_eq!(names(&all), ["first", "single", "last"]);
    assert_eq!(all.invalid.len(), 2, "{:?}", all.invalid);
    assert!(all.invalid[1].reason.contains("10-list.conflist already"), "{}", all.invalid[1]);
    assert_eq!(all.networks[1].plugins[0].kind, "ptp");
    assert_eq!(all.networks[1].newest(), Version::V0_4_0);

    fs::remove_file(directory.0.path().join("10-list.conflist")).unwrap();
    assert_eq!(names(&directory.load(1)), ["single"]);
}

#[test]
fn a_directory_that_is_not_there_is_empty_and_one_that_is_a_file_an_error() {
    let directory = Directory::new(&[("a.conflist", "{")]);
    let missing = Networks::load(&directory.0.path().join("none"), 1).unwrap();
    assert!(missing.networks.is_empty() && missing.invalid.is_empty());
    let file = Networks::load(&directory.0.path().join("a.conflist"), 1);
    assert!(matches!(file, Err(Error::Directory { .. })));
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let table = [
        ("a.conflist", r#"[]"#, "is not a JSON object"),
        ("a.conflist", r#"{"plugins":[{"type":"a"}]}"#, "has no `name`"),
        ("a.conflist", r#"{"name":"a/b","plugins":[{"type":"a"}]}"#, "\"a/b\""),
        ("a.conflist", r#"{"name":7,"plugins":[{"type":"a"}]}"#, "`name` is not a string"),
        ("a.conflist", r#"{"name":"a"}"#, "has no plugins"),
        ("a.conflist", r#"{"name":"a","plugins":[]}"#, "at least one plugin"),
        ("a.conflist", r#"{"name":"a","plugins":{}}"#, "at least one plugin"),
        ("a.conflist", r#"{"name":"a","plugins":["b"]}"#, "plugin 1: is not an object"),
        ("a.conflist", r#"{"name":"a","plugins":[{"type":"b"},{}]}"#, "plugin 2: has no `type`"),
        ("a.conflist", r#"{"name":"a","plugins":[{"type":"../sh"}]}"#, "is a path"),
        (
            "a.conflist",
            r#"{"name":"a","plugins":[{"type":"b","ipam":{"type":"/c"}}]}"#,
            "`ipam`: plugin type \"/c\" is a path",
        ),
        (
            "a.conflist",
            r#"{"name":"a","plugins":[{"type":"b","capabilities":{"dns":1}}]}"#,
            "\"dns\" is neither true nor false",
        ),
        ("a.conflist", r#"{"name":"a","cniVersion":"1.2.0","plugins":[{"type":"b"}]}"#, "1.2.0"),
        (
            "a.conflist",
            r#"{"name":"a","cniVersions":["1.2.0"],"plugins":[{"type":"b"}]}"#,
            "none of them",
        ),
        (
            "a.conflist",
            r#"{"name":"a","disableCheck":"perhaps","plugins":[{"type":"b"}]}"#,
            "`disableCheck` is neither",
        ),
        (
            "a.conflist",
            r#"{"name":"a","loadOnlyInlinedPlugins":true}"#,
            "`loadOnlyInlinedPlugins` is true",
        ),
        ("a.conf", r#"{"name":"a"}"#, "has no `type`"),
        ("a.json", r#"{"name":"a","plugins":[{"type":"a"}]}"#, "rename it to .conflist"),
    ];
    for (file, content, word) in table {
        let loaded = Directory::new(&[(file, content)]).load(1);
        assert!(loaded.networks.is_empty(), "{content}");
        assert!(loaded.invalid[0].reason.contains(word), "{content}: {}", loaded.invalid[0]);
    }
}

#[test]
fn what_is_no_small_file_is_not_read() {
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(LIMIT as usize));
    let directory = Directory::new(&[("a.conf", &large)]);
    std::os::unix::fs::symlink("/dev/zero", directory.0.path().join("b.conf")).unwrap();
    std::os::unix::fs::symlink("nowhere", directory.0.path().join("c.conf")).unwrap();
    let reasons: Vec<String> =
        directory.load(1).invalid.iter().map(|invalid| invalid.reason.clone()).collect();
    assert!(reasons[0].contains("is larger than"), "{reasons:?}");
    assert!(reasons[1].contains("is not a regular file"), "{reasons:?}");
    assert!(reasons[2].contains("can't be read"), "{reasons:?}");
}

#[test]
fn versions_are_the_newest_first_and_newer_ones_are_for_others() {
    let table = [
        (json!({}), vec![Version::V0_1_0]),
        (json!({ "cniVersion": "0.3.1" }), vec![Version::V0_3_1]),
        (
            json!({ "cniVersion": "0.4.0", "cniVersions": ["1.1.0", "9.0.0", "0.3.1"] }),
            vec![Version::V1_1_0, Version::V0_4_0, Version::V0_3_1],
        ),
        (json!({ "cniVersion": "1.0.0", "cniVersions": [] }), vec![Version::V1_0_0]),
    ];
    for (value, wanted) in table {
        assert_eq!(versions(value.as_object().unwrap()), Ok(wanted), "{value}");
    }
}

#[test]
fn plugins_beside_the_list_are_appended_unless_it_says_no() {
    let list = r#"{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"bridge"}]}"#;
    let files = [
        ("10.conflist", list),
        ("net/20-b.conf", r#"{"type":"tuning"}"#),
        ("net/10-a.conf", r#"{"type":"portmap"}"#),
        ("net/30-c.json", r#"{"type":"ignored"}"#),
    ];
    let kinds = |directory: &Directory| {
        let loaded = directory.load(1);
        let plugins = &loaded.networks[0].plugins;
        plugins.iter().map(|plugin| plugin.kind.clone()).collect::<Vec<_>>()
    };
    let directory = Directory::new(&files);
    assert_eq!(kinds(&directory), ["bridge", "portmap", "tuning"]);
    // The cached configuration needs no other file.
    let network = directory.load(1).networks.remove(0);
    let cached = Network::from_cache(&network.to_json(Version::V1_1_0)).unwrap();
    assert_eq!(cached.plugins, network.plugins);

    let only = list.replace("\"name\"", "\"loadOnlyInlinedPlugins\":true,\"name\"");
    fs::write(directory.0.path().join("10.conflist"), only).unwrap();
    assert_eq!(kinds(&directory), ["bridge"]);

    fs::write(directory.0.path().join("10.conflist"), r#"{"name":"net"}"#).unwrap();
    assert_eq!(kinds(&directory), ["portmap", "tuning"]);
    fs::write(directory.0.path().join("net/20-b.conf"), "{}").unwrap();
    let loaded = directory.load(1);
    assert!(loaded.invalid[0].reason.contains("20-b.conf: has no `type`"), "{:?}", loaded.invalid);
}

#[test]
fn a_plugin_reads_its_configuration_and_what_it_declared() {
    let config = json!({
        "type": "portmap",
        "snat": true,
        "capabilities": { "portMappings": true, "dns": false },
        "runtimeConfig": { "mine": 1 },
        "prevResult": {},
        "cni.dev/x": 1,
    });
    let plugin = Plugin::new(config.as_object().unwrap().clone()).unwrap();
    let arguments = json!({ "portMappings": [1], "dns": {}, "mac": "a" });
    let arguments = arguments.as_object().unwrap();
    assert_eq!(plugin.runtime_config(arguments), Some(json!({ "portMappings": [1] })));
    assert_eq!(plugin.runtime_config(&Map::new()), None);
    let request = plugin.request("net", Version::V1_0_0, [("prevResult", json!({ "a": 1 }))]);
    assert_eq!(
        serde_json::from_slice::<Value>(&request).unwrap(),
        json!({
            "type": "portmap",
            "snat": true,
            "capabilities": { "portMappings": true, "dns": false },
            "name": "net",
            "cniVersion": "1.0.0",
            "prevResult": { "a": 1 },
        })
    );
}
