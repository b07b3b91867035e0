//! Device nodes and the rules of the device controller.

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespaceType, Spec,
};
use shim_wire::plan::{Device, DeviceRule};

use crate::{Error, mounts};

/// The nodes every container has (OCI runtime specification, "Default Devices"). `/dev/console`
/// and `/dev/ptmx`, which it lists as well, are mounts and links and belong to whoever makes them.
const DEFAULT_NODES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// 20 bits of a device number's minor part, 12 of its major (`makedev(3)`).
const MAJOR_MAX: i64 = (1 << 12) - 1;
const MINOR_MAX: i64 = (1 << 20) - 1;

/// The nodes to make: the defaults, and the spec's own, which replace a default of the same path. In
/// the host's /dev none is made, which would be the host's from then on.
pub(crate) fn lower(spec: &Spec) -> Result<Vec<Device>, Error> {
    let listed = spec.linux().as_ref().and_then(|linux| linux.devices().as_deref());
    let mut own = listed
        .unwrap_or_default()
        .iter()
        .enumerate()
        .map(|(index, device)| node(device, index))
        .collect::<Result<Vec<_>, _>>()?;
    for (index, device) in own.iter().enumerate() {
        if own[..index].iter().any(|earlier| earlier.path == device.path) {
            return Err(Error::contradiction(
                format!("linux.devices[{index}].path"),
                "a second device of the same path",
            ));
        }
    }
    refuse_in_devtmpfs(spec, &own)?;
    if binds_dev(spec) {
        own.retain(|device| !is_in_dev(&device.path));
        return Ok(own);
    }
    // What a privileged container lists with the rest of the host's /dev: its own is a link to the one
    // of its own terminals.
    own.retain(|device| (&*device.path, device.major, device.minor) != ("/dev/ptmx", 5, 2));
    let defaults = DEFAULT_NODES
        .iter()
        .filter(|(path, _, _)| own.iter().all(|device| device.path != *path))
        .map(|(path, major, minor)| Device {
            path: (*path).to_owned(),
            kind: "c".to_owned(),
            major: *major,
            minor: *minor,
            mode: Some(0o666),
            uid: None,
            gid: None,
            index: None,
        });
    Ok(defaults.chain(own.iter().cloned()).collect())
}

fn binds_dev(spec: &Spec) -> bool {
    spec.mounts().iter().flatten().any(|mount| {
        // There is one devtmpfs, and it is the host's.
        let bind = matches!(mount.typ().as_deref(), Some("bind" | "devtmpfs"))
            || mount.options().iter().flatten().any(|option| option == "bind" || option == "rbind");
        bind && mounts::clean(&mount.destination().to_string_lossy()).as_deref() == Some("/dev")
    })
}

/// A devtmpfs that is mounted elsewhere than at /dev is the host's /dev as well.
fn refuse_in_devtmpfs(spec: &Spec, devices: &[Device]) -> Result<(), Error> {
    let mounts = spec.mounts().iter().flatten();
    for mount in mounts.filter(|mount| mount.typ().as_deref() == Some("devtmpfs")) {
        let place = mounts::clean(&mount.destination().to_string_lossy()).unwrap_or_default();
        let is_in = |device: &&Device| {
            let below = device.path.strip_prefix(&place);
            place != "/dev" && below.is_some_and(|below| below.starts_with('/'))
        };
        if let Some(device) = devices.iter().find(is_in) {
            let index = device.index.unwrap_or_default();
            return Err(Error::contradiction(
                format!("linux.devices[{index}].path"),
                "it lies in a devtmpfs, which is the host's /dev: nothing is made in it",
            ));
        }
    }
    Ok(())
}

fn is_in_dev(path: &str) -> bool {
    path.starts_with("/dev/")
}

/// What of `linux.devices` is passed over, and why.
pub(crate) fn warnings(spec: &Spec) -> Vec<String> {
    let Some(linux) = spec.linux() else { return Vec::new() };
    let devices = linux.devices().as_deref().unwrap_or_default();
    if binds_dev(spec) {
        let is_there = |device: &&LinuxDevice| {
            mounts::clean(&device.path().to_string_lossy()).is_some_and(|path| is_in_dev(&path))
        };
        let count = devices.iter().filter(is_there).count();
        let why =
            "of them in /dev, which is the host's: nothing is made in it, and they are passed over";
        return (count > 0).then(|| format!("linux.devices: {count} {why}")).into_iter().collect();
    }
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    if !namespaces.iter().any(|one| one.typ() == LinuxNamespaceType::User) {
        return Vec::new();
    }
    // Nobody makes a node in a user namespace, but a FIFO.
    let nodes = devices.iter().enumerate().filter(|(_, one)| one.typ() != LinuxDeviceType::P);
    let warning = |(index, device): (usize, &LinuxDevice)| {
        let fields = [
            (device.file_mode().is_some(), "fileMode"),
            (device.uid().is_some(), "uid"),
            (device.gid().is_some(), "gid"),
        ];
        let asked: Vec<&str> =
            fields.into_iter().filter(|(asked, _)| *asked).map(|(_, name)| name).collect();
        let why = "in a user namespace the host's node is bound as it is, and this is passed over";
        (!asked.is_empty()).then(|| format!("linux.devices[{index}]: {}: {why}", asked.join(", ")))
    };
    nodes.filter_map(warning).collect()
}

fn node(device: &LinuxDevice, index: usize) -> Result<Device, Error> {
    let at = &format!("linux.devices[{index}]");
    let text = device.path().to_string_lossy();
    let path = mounts::clean(&text)
        .filter(|path| text.starts_with('/') && !text.contains('\0') && path != "/");
    let path =
        path.ok_or_else(|| Error::malformed(format!("{at}.path"), text, "an absolute path"))?;
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => "c",
        LinuxDeviceType::B => "b",
        LinuxDeviceType::P => "p",
        LinuxDeviceType::A => {
            return Err(Error::malformed(format!("{at}.type"), "a", "one of c, b, u, p"));
        }
    };
    let mode = device.file_mode();
    // Specs made from a stat carry the file type too; only permissions are wanted.
    let file_type = match kind {
        "c" => 0o020_000,
        "b" => 0o060_000,
        _ => 0o010_000,
    };
    if let Some(mode) = mode.filter(|mode| ![0, file_type].contains(&(mode & !0o7777))) {
        let expected = "permission bits, 4095 (octal 7777) at most";
        return Err(Error::malformed(format!("{at}.fileMode"), mode.to_string(), expected));
    }
    for (id, name) in [(device.uid(), "uid"), (device.gid(), "gid")] {
        if id == Some(u32::MAX) {
            return Err(Error::malformed(format!("{at}.{name}"), u32::MAX.to_string(), "an id"));
        }
    }
    Ok(Device {
        path,
        kind: kind.to_owned(),
        major: number(device.major(), MAJOR_MAX, &format!("{at}.major"))?,
        minor: number(device.minor(), MINOR_MAX, &format!("{at}.minor"))?,
        mode: mode.map(|mode| mode & 0o7777),
        uid: device.uid(),
        gid: device.gid(),
        index: u32::try_from(index).ok(),
    })
}

/// The number of a block device.
pub(crate) fn numbers(major: i64, minor: i64, at: &str) -> Result<(u32, u32), Error> {
    let major = number(major, MAJOR_MAX, &format!("{at}.major"))?;
    Ok((major, number(minor, MINOR_MAX, &format!("{at}.minor"))?))
}

fn number(value: i64, max: i64, at: &str) -> Result<u32, Error> {
    u32::try_from(value)
        .ok()
        .filter(|_| value <= max)
        .ok_or_else(|| Error::malformed(at, value.to_string(), "a device number"))
}

/// The spec's rules in their order, then those that the default devices and terminals need; a spec
/// without rules touches no device controller.
pub(crate) fn rules(rules: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>, Error> {
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    let mut lowered = rules
        .iter()
        .enumerate()
        .map(|(index, spec)| rule(spec, &format!("linux.resources.devices[{index}]")))
        .collect::<Result<Vec<_>, _>>()?;
    let allow = |kind: &str, major: Option<i64>, minor: Option<i64>, access: &str| DeviceRule {
        allow: true,
        kind: kind.to_owned(),
        major,
        minor,
        access: access.to_owned(),
    };
    lowered.extend([allow("c", None, None, "m"), allow("b", None, None, "m")]);
    lowered.extend(DEFAULT_NODES.iter().map(|(_, major, minor)| {
        allow("c", Some(i64::from(*major)), Some(i64::from(*minor)), "rwm")
    }));
    // Slaves of pseudo terminals, and the multiplexer.
    lowered.extend([allow("c", Some(136), None, "rwm"), allow("c", Some(5), Some(2), "rwm")]);
    Ok(lowered)
}

fn rule(rule: &LinuxDeviceCgroup, at: &str) -> Result<DeviceRule, Error> {
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => "a",
        Some(LinuxDeviceType::B) => "b",
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => "c",
        Some(LinuxDeviceType::P) => {
            return Err(Error::malformed(format!("{at}.type"), "p", "one of a, b, c"));
        }
    };
    // OCI: absent is every one; -1 is how docker and runc write the same.
    let every = |number: Option<i64>| number.filter(|number| *number != -1);
    let access = rule.access().as_deref().unwrap_or_default();
    if access.is_empty() || access.chars().any(|char| !"rwm".contains(char)) {
        return Err(Error::malformed(format!("{at}.access"), access, "of the letters r, w and m"));
    }
    for (value, max, name) in
        [(rule.major(), MAJOR_MAX, "major"), (rule.minor(), MINOR_MAX, "minor")]
    {
        if let Some(value) = every(value) {
            number(value, max, &format!("{at}.{name}"))?;
        }
    }
    if kind == "a" && every(rule.major()).or(every(rule.minor())).is_some() {
        let why = "is all devices, whatever their numbers: leave them away, or say b or c";
        return Err(Error::contradiction(format!("{at}.type"), why));
    }
    Ok(DeviceRule {
        allow: rule.allow(),
        kind: kind.to_owned(),
        major: every(rule.major()),
        minor: every(rule.minor()),
        access: access.to_owned(),
    })
}
