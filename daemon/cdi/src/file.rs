//! One specification: its file, version and names.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::edits::Edits;
use crate::error::InvalidFile;
use crate::name;

/// Larger than any that describes the devices of one machine.
const MAX: u64 = 4 << 20;

/// Characters of what a parser says of a file.
const LONGEST_PROBLEM: usize = 300;

/// Versions that are read; the patch level was always 0.
const VERSIONS: [&str; 7] = ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0"];

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Specification {
    cdi_version: String,
    pub(crate) kind: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) devices: Vec<Device>,
    /// For whoever gets any of its devices.
    #[serde(default)]
    pub(crate) container_edits: Edits,
    #[serde(skip)]
    pub(crate) path: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Device {
    pub(crate) name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    pub(crate) container_edits: Edits,
}

/// Whether a name is that of a specification's file.
pub(crate) fn is_one(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "json" || ending == "yaml")
}

pub(crate) fn read(path: &Path) -> Result<Specification, InvalidFile> {
    let invalid = |problem: String| InvalidFile { path: path.to_owned(), problem };
    let bytes = content(path).map_err(|error| invalid(error.to_string()))?;
    if bytes.len() as u64 > MAX {
        return Err(invalid(format!("longer than {MAX} bytes")));
    }
    let mut specification: Specification = match path.extension().is_some_and(|it| it == "json") {
        true => serde_json::from_slice(&bytes).map_err(|error| invalid(one_line(&error)))?,
        false => serde_saphyr::from_slice(&bytes).map_err(|error| invalid(one_line(&error)))?,
    };
    check(&specification).map_err(invalid)?;
    specification.path = path.to_owned();
    Ok(specification)
}

/// Its bytes, and at most one more than it may have. Nothing is waited for: it may be anything by now.
fn content(path: &Path) -> io::Result<Vec<u8>> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a parser says, without the lines of the file that it shows, and no more than helps.
fn one_line(error: &dyn std::fmt::Display) -> String {
    let said = error.to_string();
    said.lines().next().unwrap_or_default().chars().take(LONGEST_PROBLEM).collect()
}

fn check(specification: &Specification) -> Result<(), String> {
    let Specification { cdi_version, kind, annotations, devices, container_edits, .. } =
        specification;
    if !VERSIONS.contains(&cdi_version.as_str()) {
        return Err(format!("cdiVersion {cdi_version:?} is not one of {}", VERSIONS.join(", ")));
    }
    name::check_kind(kind).map_err(|why| format!("kind {kind:?}: {why}"))?;
    if devices.is_empty() {
        return Err("it has no devices".to_owned());
    }
    let mut needs = container_edits.check().map_err(|why| format!("containerEdits: {why}"))?;
    if kind.split_once('/').is_some_and(|(_, class)| class.contains('.')) {
        needs = needs.max((0, 6));
    }
    let mut seen = std::collections::BTreeSet::new();
    for device in devices {
        let wrong = |why: &str| format!("device {:?}: {why}", device.name);
        name::check_name(&device.name).map_err(wrong)?;
        if !seen.insert(&device.name) {
            return Err(wrong("described twice"));
        }
        needs = needs.max(device.container_edits.check().map_err(|why| wrong(&why))?);
        if device.name.starts_with(|c: char| c.is_ascii_digit()) {
            needs = needs.max((0, 5));
        }
        if !device.annotations.is_empty() {
            needs = needs.max((0, 6));
        }
    }
    if !annotations.is_empty() {
        needs = needs.max((0, 6));
    }
    let mut numbers = cdi_version.split('.').map(|number| number.parse().unwrap_or(0));
    let says = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match says < needs {
        false => Ok(()),
        true => {
            let (major, minor) = needs;
            Err(format!("cdiVersion is {cdi_version}, but what is in it needs {major}.{minor}.0"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str, text: &str) -> Result<Specification, InvalidFile> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    const YAML: &str = r#"
cdiVersion: 0.7.0
kind: vendor.com/gpu
containerEdits:
  env: ["ALL=1"]
devices:
  - name: "0"
    annotations: {note: one}
    containerEdits:
      deviceNodes:
        - {path: /dev/gpu0, hostPath: /dev/vendor0, type: c, major: 195, minor: 0, fileMode: 438, permissions: rw, uid: 1, gid: 2}
      mounts:
        - hostPath: /usr/lib/vendor
          containerPath: /usr/lib/vendor
          options: [ro, nosuid, nodev, rbind]
      hooks:
        - hookName: createContainer
          path: /usr/bin/vendor-hook
          args: [vendor-hook, update]
          env: [DEBUG=0]
          timeout: 5
      additionalGids: [44]
"#;

    #[test]
    fn both_forms_of_a_file_say_the_same() {
        let yaml = parsed("a.yaml", YAML).unwrap();
        let value: serde_json::Value = serde_saphyr::from_str(YAML).unwrap();
        let json = parsed("a.json", &value.to_string()).unwrap();
        assert_eq!(yaml.devices[0].container_edits, json.devices[0].container_edits);
        assert_eq!(yaml.container_edits.env, ["ALL=1"]);
        let edits = &json.devices[0].container_edits;
        assert_eq!(edits.device_nodes[0].host(), Path::new("/dev/vendor0"));
        assert_eq!(edits.hooks[0].timeout, Some(5));
        assert_eq!(edits.additional_gids, [44]);
    }

    #[test]
    fn what_is_no_specification_says_why() {
        let with = |from: &str, to: &str| {
            assert!(YAML.contains(from), "{from}");
            parsed("a.yaml", &YAML.replace(from, to)).unwrap_err().to_string()
        };
        for (from, to, said) in [
            ("/dev/gpu0,", "/dev/../etc/gpu0,", "\"..\""),
            ("containerPath: /usr/lib/vendor", "containerPath: /usr/../etc", "\"..\""),
            ("ALL=1", "ALL=\\0", "NUL"),
            ("DEBUG=0", "\"DEBUG=\\0\"", "NUL"),
            ("vendor-hook, update", "vendor-hook, \"\\0\"", "NUL"),
            ("ro, nosuid", "\"\\0\", nosuid", "NUL"),
            ("hostPath: /dev/vendor0", "hostPath: \"/dev/\\0\"", "NUL"),
            ("0.7.0", "2.0.0", "cdiVersion \"2.0.0\""),
            ("0.7.0", "0.6.0", "needs 0.7.0"),
            ("vendor.com/gpu", "gpu", "VENDOR/CLASS"),
            ("\"0\"", "a b", "device \"a b\""),
            ("ALL=1", "ALL", "env \"ALL\""),
            ("path: /dev/gpu0", "path: gpu0", "gpu0: not an absolute path"),
            ("containerPath: /usr/lib/vendor", "containerPath: lib", "mount lib"),
            ("permissions: rw", "permissions: x", "permissions \"x\""),
            ("/usr/bin/vendor-hook", "vendor-hook", "hook vendor-hook"),
            ("createContainer", "preload", "preload"),
            ("timeout:", "netDevices:", "netDevices"),
            ("kind:", "kin:", "kin"),
        ] {
            let found = with(from, to);
            assert!(found.contains(said), "{to}: {found}");
        }
        let twice = YAML.to_owned() + "  - name: \"0\"\n    containerEdits: {}\n";
        assert!(parsed("a.yaml", &twice).unwrap_err().problem.contains("described twice"));
        assert!(parsed("a.json", "{").is_err());
        assert!(parsed("a.json", &"x".repeat(5 << 20)).unwrap_err().problem.contains("longer"));
        for bomb in [
            "[".repeat(1 << 20),
            "{a: ".repeat(1 << 20),
            "- ".repeat(1 << 20),
            format!("intelRdt: {}", "[".repeat(1 << 20)),
            laughs(),
        ] {
            let problem = parsed("a.yaml", &bomb).unwrap_err().problem;
            assert!(problem.lines().count() == 1 && problem.len() <= 1200, "{problem}");
            assert!(parsed("a.json", &bomb).is_err());
        }
        let none = r#"{"cdiVersion": "1.0.0", "kind": "v/c", "devices": []}"#;
        assert!(parsed("a.json", none).unwrap_err().problem.contains("no devices"));
    }

    /// Ten aliases of ten aliases of ten more.
    fn laughs() -> String {
        let mut text = "annotations:\n  a0: &a0 [lol]\n".to_owned();
        for level in 1..12 {
            let many = vec![format!("*a{}", level - 1); 10].join(", ");
            text += &format!("  a{level}: &a{level} [{many}]\n");
        }
        text
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        assert!(read(&path).unwrap_err().problem.contains("not a regular file"));
    }
}
