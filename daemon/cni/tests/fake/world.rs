//! A directory with configurations, plugins and a cache.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bosun_cni::{Arguments, Capabilities, Cni, Collected, Container, Error, Settings};
use serde_json::{Value, json};

/// The tests' own network namespace, which nobody touches.
pub(crate) const NETNS: &str = "/proc/self/ns/net";

/// What every plugin begins with: it writes down the call, what it read, and its environment.
const HEAD: &str = r#"#!/bin/sh
here=${0%/*}; me=${0##*/}; world=${here%/*}
cat > "$here/$me.$CNI_COMMAND.json"
env > "$here/$me.$CNI_COMMAND.env"
echo "$CNI_COMMAND $me $CNI_CONTAINERID $CNI_IFNAME" | sed 's/ *$//' >> "$world/log"
"#;

/// A plugin that attaches: the answer names the plugins of the chain as interfaces.
pub(crate) const GOOD: &str = r#"
case $CNI_COMMAND in
ADD) echo '{"cniVersion":"1.0.0","interfaces":[{"name":"'$me'"}],"ips":[{"address":"10.0.0.2/24"}]}' ;;
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.0.0","1.1.0"]}' ;;
esac
"#;

pub(crate) struct World {
    directory: tempfile::TempDir,
    pub(crate) settings: Settings,
}

impl World {
    pub(crate) fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        let settings = Settings {
            config_directory: place("net.d"),
            plugin_directories: vec![place("bin")],
            cache_directory: place("cache"),
            run_directory: place("run"),
            deadline: Duration::from_secs(30),
            probe_deadline: Duration::from_secs(30),
            ..Settings::default()
        };
        fs::create_dir(&settings.config_directory).unwrap();
        fs::create_dir(place("bin")).unwrap();
        World { directory, settings }
    }

    /// With network `net` of these plugins, all of them good.
    pub(crate) fn with(version: &str, plugins: &[&str]) -> World {
        let world = World::new();
        world.network(&json!({ "cniVersion": version, "name": "net" }), plugins);
        for plugin in plugins {
            world.plugin(plugin, GOOD);
        }
        world
    }

    pub(crate) fn cni(&self) -> Cni {
        Cni::new(self.settings.clone())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a configuration; the plugins declare `portMappings`, when their name has a `p` in it.
    pub(crate) fn network(&self, head: &Value, plugins: &[&str]) {
        let mut list = head.clone();
        let plugins = plugins.iter().map(|plugin| {
            json!({ "type": plugin, "capabilities": { "portMappings": plugin.contains('p') } })
        });
        list["plugins"] = Value::Array(plugins.collect());
        let file = format!("net.d/{}.conflist", list["name"].as_str().unwrap());
        fs::write(self.path(&file), list.to_string()).unwrap();
    }

    /// Makes a plugin that goes on, after it has written down its call, with `body`.
    pub(crate) fn plugin(&self, name: &str, body: &str) {
        self.program(name, &format!("{HEAD}{body}"));
    }

    pub(crate) fn program(&self, name: &str, text: &str) {
        let (half, path) = (self.path("bin/half"), self.path("bin").join(name));
        fs::write(&half, text).unwrap();
        fs::set_permissions(&half, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(half, path).unwrap();
    }

    /// The calls since the last time.
    pub(crate) fn calls(&self) -> Vec<String> {
        let log = self.path("log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(log);
        text.lines().filter(|line| !line.starts_with("VERSION")).map(str::to_owned).collect()
    }

    /// What a plugin read at its last call.
    pub(crate) fn read(&self, plugin: &str, command: &str) -> Value {
        let text = fs::read(self.path(&format!("bin/{plugin}.{command}.json"))).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    pub(crate) fn environment(&self, plugin: &str, command: &str) -> BTreeSet<String> {
        let text = fs::read_to_string(self.path(&format!("bin/{plugin}.{command}.env"))).unwrap();
        // These are the shell's.
        let own = |line: &&str| !["PWD=", "_=", "SHLVL="].iter().any(|own| line.starts_with(own));
        text.lines().filter(own).map(str::to_owned).collect()
    }

    pub(crate) fn cached(&self) -> Vec<String> {
        names(&self.path("cache/results"))
    }

    /// Nothing is cached, locked, or half-written.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.cached(), [""; 0]);
        assert_eq!(names(&self.path("run")), [""; 0]);
    }

    /// Waits until something is so.
    pub(crate) async fn wait(&self, what: &str, is: impl Fn() -> bool) {
        for _ in 0..3000 {
            if is() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}");
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub(crate) fn container(id: &str) -> Container {
    Container {
        id: id.into(),
        netns: Some(NETNS.into()),
        arguments: Arguments::default(),
        capabilities: Capabilities::default(),
    }
}

/// GC with these containers.
pub(crate) async fn collect(cni: &Cni, valid: &[&str]) -> Collected {
    let valid: BTreeSet<String> = valid.iter().map(|id| (*id).to_owned()).collect();
    cni.collect(async { valid }).await
}

/// The error's text has all of these words.
pub(crate) fn assert_says(error: &Error, words: &[&str]) {
    let text = error.chain();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}
