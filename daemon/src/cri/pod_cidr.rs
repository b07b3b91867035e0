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

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use bosun_cni::Cidr;

use super::{Cri, invalid, wire};
use crate::atomic;
use crate::error::{Error, Result};

/// What is written of a template.
const FILE: &str = "10-bosun.conflist";

const WHAT: &str = "pod_cidr";

impl Cri {
    /// Takes the ranges, separated by commas. Without a template, or with a network of somebody else,
    /// nothing comes of them.
    ///
    /// # Errors
    /// They are none; the template can't be read, or is no configuration with them.
    pub(super) async fn update_runtime_config(
        &self,
        request: wire::UpdateRuntimeConfigRequest,
    ) -> Result<()> {
        let network = request.runtime_config.and_then(|config| config.network_config);
        let text = network.map(|network| network.pod_cidr).unwrap_or_default();
        let Some(template) = self.settings().cni_conf_template.clone() else { return Ok(()) };
        if text.is_empty() {
            return Ok(());
        }
        let directory = self.plugins.directory().to_owned();
        let write = move || fill(&template, &directory, &text);
        tokio::task::spawn_blocking(write).await.unwrap_or(Err(Error::Stopping))
    }
}

fn fill(template: &Path, directory: &Path, ranges: &str) -> Result<()> {
    let ranges = parsed(ranges)?;
    if has_others(directory)? {
        return Ok(());
    }
    let text = fs::read_to_string(template).map_err(Error::file("read", template))?;
    let made = filled(&text, &ranges);
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
    fs::create_dir_all(directory).map_err(Error::file("make directory", directory))?;
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
        fill(&template, &directory, "10.1.2.0/24,fd01::/64").unwrap();
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
        fill(&template, &directory, "10.1.3.0/24").unwrap();
        assert_eq!(read()["plugins"][0]["note"], "10.1.3.0/24");
    }

    #[test]
    fn a_network_of_somebody_else_stays() {
        let (_scratch, template, directory) = scratch();
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("20-other.conflist"), "{").unwrap();
        fill(&template, &directory, "10.1.2.0/24").unwrap();
        assert!(!directory.join(FILE).exists());
    }

    #[test]
    fn what_is_wrong_is_named_and_nothing_is_written() {
        let (_scratch, template, directory) = scratch();
        let said = |ranges: &str| fill(&template, &directory, ranges).unwrap_err().to_string();
        assert!(said("10.1.2.0/33").contains("10.1.2.0/33"));
        for (text, expected) in [
            ("{\"plugins\": [], \"a\": {{.Pods}}}", "{{.Pods}}"),
            ("{\"plugins\"", "EOF"),
            ("{}", "plugins"),
        ] {
            fs::write(&template, text).unwrap();
            let said = said("10.1.2.0/24");
            assert!(said.contains(expected) && said.contains("cni-conf-template"), "{said}");
        }
        fs::remove_file(&template).unwrap();
        assert!(said("10.1.2.0/24").contains(&template.display().to_string()));
        assert!(!directory.exists());
    }
}
