//! `config.json` from its text: errors name the JSON path, and nothing that the specification knows
//! is lost on the way into types that do not.

use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::Error;
use crate::{capability, devices, mounts, seccomp};

/// What was read, and what of it can't be granted and is passed over, one line each: the
/// specification wants it said and not refused.
#[derive(Debug)]
pub struct Parsed<T> {
    pub value: T,
    pub warnings: Vec<String>,
}

/// Properties of the specification that the types lack. All others that they lack are none, and are
/// passed over as the specification demands.
const NOT_IN_THE_TYPES: [&str; 1] = ["freebsd"];

/// Flags that the types call otherwise than the specification.
const RENAMED_FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

const RESOURCES: &str = "linux.resources";

/// What the specification demands to be there and the types take for 0 or false when it is not. Who
/// writes a specification in its own language writes these always: there they have no `omitempty`.
const OF_PROCESSES: [(&str, &[&str]); 3] = [
    ("user", &["uid", "gid"]),
    ("rlimits", &["soft", "hard"]),
    ("ioPriority", &["class", "priority"]),
];

const OF_RESOURCES: [(&str, &[&str]); 8] = [
    ("devices", &["allow"]),
    ("hugepageLimits", &["pageSize", "limit"]),
    ("network.priorities", &["name", "priority"]),
    ("blockIO.weightDevice", &["major", "minor"]),
    ("blockIO.throttleReadBpsDevice", &THROTTLE),
    ("blockIO.throttleWriteBpsDevice", &THROTTLE),
    ("blockIO.throttleReadIOPSDevice", &THROTTLE),
    ("blockIO.throttleWriteIOPSDevice", &THROTTLE),
];

const THROTTLE: [&str; 3] = ["major", "minor", "rate"];

const OF_MAPS: [(&str, &[&str]); 2] = [("uidMappings", &MAP), ("gidMappings", &MAP)];

const MAP: [&str; 3] = ["containerID", "hostID", "size"];

const SETS: [&str; 5] = ["bounding", "effective", "permitted", "inheritable", "ambient"];

/// Reads a `config.json`.
///
/// # Errors
/// What is no JSON, no specification, of a version other than 1, or lacks what it must have.
pub fn config(text: &[u8]) -> Result<Parsed<Spec>, Error> {
    let mut raw = json(text)?;
    for name in NOT_IN_THE_TYPES {
        if raw.get(name).is_some_and(|value| !value.is_null()) {
            return Err(Error::not_supported(name));
        }
    }
    let mut warnings = Vec::new();
    if let Some(process) = raw.get_mut("process") {
        adapt(process, &mut warnings)?;
    }
    if let Some(resources) = raw.pointer_mut("/linux/resources") {
        adapt_resources(resources, &mut warnings)?;
    }
    binds(&raw, &mut warnings);
    listener(&raw, &mut warnings);
    numbered_devices(&raw)?;
    mappings(&raw)?;
    let value: Spec = typed(raw, "")?;
    if !is_version(value.version()) {
        return Err(Error::malformed("ociVersion", value.version(), "a version 1.x.y"));
    }
    if value.annotations().as_ref().is_some_and(|map| map.contains_key("")) {
        return Err(Error::malformed("annotations", "", "the name of an annotation"));
    }
    warnings.extend(devices::warnings(&value));
    let seccomp = value.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    // What is wrong with it is said when it is lowered, which finds it compiled otherwise.
    if let Some(Ok(filter)) = seccomp.map(seccomp::compile) {
        warnings.extend(filter.warnings);
    }
    Ok(Parsed { value, warnings })
}

/// Whether a text is a version 1 of semantic versioning (semver.org, 2.0.0).
fn is_version(text: &str) -> bool {
    let is_number = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let identifiers = |list: Option<&str>, may_be: &dyn Fn(&str) -> bool| {
        let of_one = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        list.is_none_or(|list| {
            list.split('.').all(|one| !one.is_empty() && one.bytes().all(of_one) && may_be(one))
        })
    };
    let split = |text, at| match str::split_once(text, at) {
        Some((before, behind)) => (before, Some(behind)),
        None => (text, None),
    };
    let (text, build) = split(text, '+');
    let (core, release) = split(text, '-');
    let core: Vec<&str> = core.split('.').collect();
    let is_no_padded_number =
        |one: &str| is_number(one) || one.bytes().any(|byte| !byte.is_ascii_digit());
    matches!(core[..], ["1", minor, patch] if [minor, patch].iter().all(|part| {
        !part.is_empty() && is_number(part)
    })) && identifiers(release, &is_no_padded_number)
        && identifiers(build, &|_| true)
}

/// Reads a `process` on its own, as an exec is given one. Without a user it is root's, as runc has it.
///
/// # Errors
/// As [`config`].
pub fn process(text: &[u8]) -> Result<Parsed<Process>, Error> {
    let mut raw = json(text)?;
    if raw.get("user").is_none_or(Value::is_null) {
        raw["user"] = json!({"uid": 0, "gid": 0});
    }
    let mut warnings = Vec::new();
    adapt(&mut raw, &mut warnings)?;
    Ok(Parsed { value: typed(raw, "process")?, warnings })
}

/// Reads `linux.resources` on its own, as an update is given them.
///
/// # Errors
/// As [`config`].
pub fn resources(text: &[u8]) -> Result<Parsed<LinuxResources>, Error> {
    let mut raw = json(text)?;
    let mut warnings = Vec::new();
    adapt_resources(&mut raw, &mut warnings)?;
    Ok(Parsed { value: typed(raw, RESOURCES)?, warnings })
}

/// The object that a text is.
fn json(text: &[u8]) -> Result<Value, Error> {
    let raw: Value = serde_json::from_slice(text).map_err(|source| Error::Json { source })?;
    if raw.is_object() { Ok(raw) } else { Err(Error::NotAnObject) }
}

/// `below` is the path of the whole, empty for that of a `config.json`.
fn typed<T: DeserializeOwned>(raw: Value, below: &str) -> Result<T, Error> {
    serde_path_to_error::deserialize(raw).map_err(|error| {
        let inside = error.path().to_string();
        let path = match (below, inside.as_str()) {
            ("", _) => inside,
            // What is missing from the whole has no path of its own.
            (below, ".") => below.to_owned(),
            (below, _) => format!("{below}.{inside}"),
        };
        Error::Type { path, source: error.into_inner() }
    })
}

/// Makes a `process` what the types take.
///
/// # Errors
/// Names what is missing and what the types take for 0 then.
fn adapt(process: &mut Value, warnings: &mut Vec<String>) -> Result<(), Error> {
    demanded(process, "process", &OF_PROCESSES)?;
    // Without a terminal its size means nothing.
    if process.get("terminal") == Some(&Value::Bool(true)) {
        demanded(process, "process", &[("consoleSize", &["height", "width"])])?;
    }
    for flag in strings(process.pointer_mut("/scheduler/flags")) {
        if let Some((_, ours)) = RENAMED_FLAGS.iter().find(|(theirs, _)| theirs == flag) {
            *flag = (*ours).to_owned();
        }
    }
    let Some(capabilities) = process.get_mut("capabilities") else { return Ok(()) };
    for set in SETS {
        let Some(names) = capabilities.get_mut(set).and_then(Value::as_array_mut) else { continue };
        let at = format!("process.capabilities.{set}");
        names.retain(|name| {
            let known = name.as_str().is_none_or(|name| capability::number(name).is_some());
            if !known {
                warnings.push(format!("{at}: {name} is no capability and is passed over"));
            }
            known
        });
    }
    let numbers = |set: &str| -> Vec<u32> {
        let names = capabilities.get(set).and_then(Value::as_array).into_iter().flatten();
        names.filter_map(|name| capability::number(name.as_str()?)).collect()
    };
    let (permitted, inheritable) = (numbers("permitted"), numbers("inheritable"));
    for name in capabilities.get("ambient").and_then(Value::as_array).into_iter().flatten() {
        let number = name.as_str().and_then(capability::number);
        if number
            .is_some_and(|number| !permitted.contains(&number) || !inheritable.contains(&number))
        {
            warnings.push(format!(
                "process.capabilities.ambient: {name} is not both permitted and inheritable and is \
                 passed over"
            ));
        }
    }
    Ok(())
}

/// Makes `linux.resources` what the types take, and warns of what is passed over.
///
/// # Errors
/// Names what is missing and what the types take for 0 or false then.
fn adapt_resources(resources: &mut Value, warnings: &mut Vec<String>) -> Result<(), Error> {
    if let Some(limits) = resources.get("memory") {
        memory(limits, warnings);
    }
    // Nothing is asked for, and the types have 0 for it, which is a limit.
    if resources.get("pids").is_some_and(|pids| lacks(pids, "limit")) {
        resources["pids"] = Value::Null;
    }
    demanded(resources, RESOURCES, &OF_RESOURCES)
}

/// Refuses objects that lack what they must have. `fields` are paths `below`, of an object or of an
/// array of them, with the names in it.
fn demanded(value: &Value, below: &str, fields: &[(&str, &[&str])]) -> Result<(), Error> {
    let first = |one: &Value, names: &[&str]| {
        names.iter().find(|name| lacks(one, name)).map(|name| (*name).to_owned())
    };
    for (path, names) in fields {
        let pointer = format!("/{}", path.replace('.', "/"));
        let missing = match value.pointer(&pointer) {
            Some(Value::Array(_)) => list(value, &pointer).find_map(|(index, one)| {
                first(one, names).map(|name| format!("{path}[{index}].{name}"))
            }),
            Some(one) => first(one, names).map(|name| format!("{path}.{name}")),
            None => None,
        };
        if let Some(missing) = missing {
            return Err(Error::missing(format!("{below}.{missing}")));
        }
    }
    Ok(())
}

/// The maps of a container and of its mounts.
fn mappings(config: &Value) -> Result<(), Error> {
    if let Some(linux) = config.get("linux") {
        demanded(linux, "linux", &OF_MAPS)?;
    }
    list(config, "/mounts")
        .try_for_each(|(index, mount)| demanded(mount, &format!("mounts[{index}]"), &OF_MAPS))
}

/// Warns of limits that no kernel has any more, where they ask for something: 0 is "as it is" and -1
/// "no limit", and both are so.
fn memory(memory: &Value, warnings: &mut Vec<String>) {
    const AT: &str = "linux.resources.memory";
    for name in ["kernel", "kernelTCP"] {
        if memory.get(name).and_then(Value::as_i64).is_some_and(|limit| limit > 0) {
            warnings.push(format!(
                "{AT}.{name}: kernel memory counts for {AT}.limit and has no limit of its own; this \
                 is passed over"
            ));
        }
    }
    if memory.get("useHierarchy") == Some(&Value::Bool(false)) {
        warnings.push(format!(
            "{AT}.useHierarchy: every group counts what is below it, false is passed over"
        ));
    }
}

/// Warns of settings of a file system at binds, which are of one that is there already.
fn binds(config: &Value, warnings: &mut Vec<String>) {
    for (index, mount) in list(config, "/mounts") {
        let options = || list(mount, "/options").filter_map(|(at, one)| Some((at, one.as_str()?)));
        let is_bind = mount.get("type").is_some_and(|kind| kind == "bind")
            || options().any(|(_, option)| ["bind", "rbind"].contains(&option));
        for (at, option) in options().filter(|(_, option)| is_bind && mounts::is_setting(option)) {
            warnings.push(format!(
                "mounts[{index}].options[{at}]: {option:?} is for a new file system, and a bind is none: \
                 it is passed over"
            ));
        }
    }
}

/// Warns of an agent that is told of nothing: without SCMP_ACT_NOTIFY the specification has its path
/// ignored (config-linux.md, `listenerPath`).
fn listener(config: &Value, warnings: &mut Vec<String>) {
    let Some(seccomp) = config.pointer("/linux/seccomp") else { return };
    let notifies = |rule: &Value| rule.get("action").is_some_and(|name| name == "SCMP_ACT_NOTIFY");
    if seccomp.get("listenerPath").is_some_and(Value::is_string)
        && !list(seccomp, "/syscalls").any(|(_, rule)| notifies(rule))
        // It is refused.
        && seccomp.get("defaultAction").is_none_or(|name| name != "SCMP_ACT_NOTIFY")
    {
        warnings.push(
            "linux.seccomp.listenerPath: no rule has the action SCMP_ACT_NOTIFY; it is passed over"
                .to_owned(),
        );
    }
}

/// Numbers of devices, which the specification demands and the types take for 0 when they are missing.
fn numbered_devices(config: &Value) -> Result<(), Error> {
    for (index, device) in list(config, "/linux/devices") {
        let numbered = ["c", "u", "b"].map(Value::from);
        let is_numbered = device.get("type").is_some_and(|kind| numbered.contains(kind));
        if is_numbered
            && let Some(name) = ["major", "minor"].into_iter().find(|name| lacks(device, name))
        {
            return Err(Error::missing(format!("linux.devices[{index}].{name}")));
        }
    }
    Ok(())
}

fn lacks(value: &Value, name: &str) -> bool {
    value.is_object() && value.get(name).is_none_or(Value::is_null)
}

/// The elements of the array at a JSON pointer, numbered.
fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn strings(list: Option<&mut Value>) -> impl Iterator<Item = &mut String> {
    let list = list.and_then(Value::as_array_mut).into_iter().flatten();
    list.filter_map(|value| match value {
        Value::String(text) => Some(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    })
}
