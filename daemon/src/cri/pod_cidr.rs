//! The range of addresses that a cluster gives to a node's pods: where the administrator keeps a template of
//! a network's configuration, it is filled in and written beside where CNI looks.
//!
//! | in the template | becomes |
//! |---|---|
//! | `{{.PodCIDR}}` | the first range: `10.1.2.0/24` |
//! | `{{.PodCIDRRanges}}` | all, as the plugin host-local has `ranges`: `[[{"subnet":"10.1.2.0/24"}],…]` |
//! | `{{.Routes}}` | a default route for each family, as it has `routes`: `[{"dst":"0.0.0.0/0"},…]` |
//!
//! Only the file of this name is ever written: a network that somebody else has configured stays.
//!
//! Plugins that declare the capability `ipRanges` are told the ranges with each pod, under every
//! configuration. A kubelet says them when it starts, and not when a daemon does: so they are kept.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bosun_cni::{Cidr, IpRange};

use super::{Cri, Network, invalid, lock, wire};
use crate::error::{Error, Result};
use crate::{atomic, directories, plain_file};

/// What is written of a template.
const FILE: &str = "10-bosun.conflist";

/// Below the daemon's root: what the kubelet said last.
const KEPT: &str = "pod-cidr";

const WHAT: &str = "pod_cidr";

/// The ranges that the kubelet said last.
#[derive(Debug)]
pub(super) struct Ranges {
    file: PathBuf,
    said: Mutex<Vec<Cidr>>,
}

impl Ranges {
    pub(super) fn new(root: &Path) -> Self {
        let file = root.join(KEPT);
        let said = match plain_file::read_text(&file, plain_file::NOTE) {
            Ok(text) => parsed(&text).unwrap_or_else(|error| {
                let path = file.display();
                tracing::warn!(%path, %error, "damaged: not known until a kubelet says it again");
                Vec::new()
            }),
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(path = %file.display(), %error, "can't be read");
                }
                Vec::new()
            }
        };
        Self { file, said: Mutex::new(said) }
    }

    /// As the capability has them: an address is taken of each.
    pub(super) fn capability(&self) -> Vec<Vec<IpRange>> {
        let range = |subnet: &Cidr| {
            vec![IpRange { subnet: *subnet, range_start: None, range_end: None, gateway: None }]
        };
        lock(&self.said).iter().map(range).collect()
    }

    fn keep(&self, ranges: &[Cidr]) -> Result<()> {
        let text = ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        atomic::write(&self.file, text.as_bytes(), 0o600)
            .map_err(Error::file("write", &self.file))?;
        ranges.clone_into(&mut lock(&self.said));
        Ok(())
    }
}

impl Cri {
    /// Takes the ranges, separated by commas, for plugins and for the template, if there is one. On
    /// the daemon's own bridge nothing comes of them.
    ///
    /// # Errors
    /// They are none; the template can't be read, or is no configuration with them.
    pub(super) async fn update_runtime_config(
        self: &Arc<Self>,
        request: wire::UpdateRuntimeConfigRequest,
    ) -> Result<()> {
        let network = request.runtime_config.and_then(|config| config.network_config);
        let text = network.map(|network| network.pod_cidr).unwrap_or_default();
        if text.is_empty() || self.settings().network == Network::Bridge {
            return Ok(());
        }
        let this = Arc::clone(self);
        let write = move || {
            let ranges = parsed(&text)?;
            this.plugins.ranges().keep(&ranges)?;
            match &this.settings().cni_conf_template {
                Some(template) => fill(template, this.plugins.directory(), &ranges),
                None => Ok(()),
            }
        };
        tokio::task::spawn_blocking(write).await.unwrap_or(Err(Error::Stopping))
    }
}

fn fill(template: &Path, directory: &Path, ranges: &[Cidr]) -> Result<()> {
    if has_others(directory)? {
        return Ok(());
    }
    let text = fs::read_to_string(template).map_err(Error::file("read", template))?;
    let made = filled(&text, ranges);
    let malformed = |problem: String| {
        invalid("cni-conf-template", format!("{}: {problem}", template.display()))
    };
    if let Some((_, rest)) = made.split_once("{{") {
        let word = rest.split("}}").next().unwrap_or_default();
        return Err(malformed(format!("\"{{{{{word}}}}}\" is nothing that is filled in")));
    }
    let read: serde_json::Result<serde_json::Value> = serde_json::from_str(&made);
    match read {
        Ok(list) if list["plugins"].is_array() => {}
        Ok(_) => return Err(malformed("it has no list of plugins".to_owned())),
        Err(error) => return Err(malformed(error.to_string())),
    }
    let path = directory.join(FILE);
    directories::make(directory).map_err(Error::file("make directory", directory))?;
    // Plugins read it at any moment.
    atomic::write(&path, made.as_bytes(), 0o644).map_err(Error::file("write", &path))
}

fn parsed(text: &str) -> Result<Vec<Cidr>> {
    let range = |part: &str| {
        let cidr = part.trim().parse::<Cidr>();
        cidr.map_err(|_| invalid(WHAT, format!("{part:?} is no range of addresses")))
    };
    text.split(',').map(range).collect()
}

/// Whether there is a configuration of somebody else's, whatever it is worth.
fn has_others(directory: &Path) -> Result<bool> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::file("read", directory)(error)),
    };
    let is_other = |name: &str| {
        name != FILE && [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end))
    };
    Ok(entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_other)))
}

fn filled(template: &str, ranges: &[Cidr]) -> String {
    let subnets: Vec<serde_json::Value> =
        ranges.iter().map(|range| serde_json::json!([{"subnet": range.to_string()}])).collect();
    let destinations: BTreeSet<&str> = ranges
        .iter()
        .map(|range| match range.address {
            IpAddr::V4(_) => "0.0.0.0/0",
            IpAddr::V6(_) => "::/0",
        })
        .collect();
    let routes: Vec<serde_json::Value> =
        destinations.iter().map(|dst| serde_json::json!({"dst": dst})).collect();
    let first = ranges.first().map(ToString::to_string).unwrap_or_default();
    template
        .replace("{{.PodCIDR}}", &first)
        .replace("{{.PodCIDRRanges}}", &serde_json::Value::Array(subnets).to_string())
        .replace("{{.Routes}}", &serde_json::Value::Array(routes).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge",
        "ipam": {"type": "host-local", "ranges": {{.PodCIDRRanges}}, "routes": {{.Routes}}},
        "note": "{{.PodCIDR}}"}]}"#;

    fn scratch() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
        let scratch = tempfile::tempdir().unwrap();
        let (template, directory) = (scratch.path().join("t"), scratch.path().join("net.d"));
        fs::write(&template, TEMPLATE).unwrap();
        (scratch, template, directory)
    }

    #[test]
    fn ranges_are_filled_in_and_new_ones_take_their_place() {
        let (_scratch, template, directory) = scratch();
        fill(&template, &directory, &parsed("10.1.2.0/24,fd01::/64").unwrap()).unwrap();
        let read = || -> serde_json::Value {
            serde_json::from_slice(&fs::read(directory.join(FILE)).unwrap()).unwrap()
        };
        let plugin = &read()["plugins"][0];
        let ipam = &plugin["ipam"];
        assert_eq!(
            ipam["ranges"],
            serde_json::json!([[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd01::/64"}]])
        );
        assert_eq!(ipam["routes"], serde_json::json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));
        assert_eq!(plugin["note"], "10.1.2.0/24");
        fill(&template, &directory, &parsed("10.1.3.0/24").unwrap()).unwrap();
        assert_eq!(read()["plugins"][0]["note"], "10.1.3.0/24");
    }

    #[test]
    fn ranges_are_known_to_the_next_daemon() {
        let root = tempfile::tempdir().unwrap();
        let ranges = Ranges::new(root.path());
        assert!(ranges.capability().is_empty());
        ranges.keep(&parsed("10.1.2.0/24, fd01::/64").unwrap()).unwrap();
        let next = Ranges::new(root.path()).capability();
        assert_eq!(next, ranges.capability());
        let subnets: Vec<String> = next.iter().map(|set| set[0].subnet.to_string()).collect();
        assert_eq!(subnets, ["10.1.2.0/24", "fd01::/64"]);
        fs::write(root.path().join(KEPT), "10.1.2").unwrap();
        assert!(Ranges::new(root.path()).capability().is_empty());
    }

    #[test]
    fn a_network_of_somebody_else_stays() {
        let (_scratch, template, directory) = scratch();
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("20-other.conflist"), "{").unwrap();
        fill(&template, &directory, &parsed("10.1.2.0/24").unwrap()).unwrap();
        assert!(!directory.join(FILE).exists());
    }

    #[test]
    fn what_is_wrong_is_named_and_nothing_is_written() {
        let (_scratch, template, directory) = scratch();
        assert!(parsed("10.1.2.0/33").unwrap_err().to_string().contains("10.1.2.0/33"));
        let ranges = parsed("10.1.2.0/24").unwrap();
        let said = || fill(&template, &directory, &ranges).unwrap_err().to_string();
        for (text, expected) in [
            ("{\"plugins\": [], \"a\": {{.Pods}}}", "{{.Pods}}"),
            ("{\"plugins\"", "EOF"),
            ("{}", "plugins"),
        ] {
            fs::write(&template, text).unwrap();
            let said = said();
            assert!(said.contains(expected) && said.contains("cni-conf-template"), "{said}");
        }
        fs::remove_file(&template).unwrap();
        assert!(said().contains(&template.display().to_string()));
        assert!(!directory.exists());
    }
}
