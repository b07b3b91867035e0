//! Between the messages of `runtime.v1` and the core's types: each written once, here. Errors become
//! statuses in `api::convert`, as everywhere.

mod container;
mod image;
mod plugins;
mod pod;

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};

pub(super) use container::{
    change, container_attributes, container_options, container_status, container_user,
    listed_container, pod_of,
};
pub(super) use image::{credentials, images, reference_text};
pub(super) use plugins::plugin_arguments;
pub(super) use pod::{gone_pod, listed_pod, pod_options, pod_status, uid};

use sha2::{Digest, Sha256};

use super::{invalid, wire};
use crate::config::hex;
use crate::container::{Interface, Stall, Waited};
use crate::error::Result;
use crate::spec::{IdMapping, Limits, Signal};
use crate::time::Time;

pub(super) fn now() -> i64 {
    nanos(Time::now())
}

/// The traffic of a pod; its first interface that leads somewhere is the default one.
pub(super) fn network(now: i64, interfaces: &[Interface]) -> wire::NetworkUsage {
    let some = |value: u64| Some(wire::UInt64Value { value });
    let all: Vec<wire::NetworkInterfaceUsage> = interfaces
        .iter()
        .map(|interface| wire::NetworkInterfaceUsage {
            name: interface.name.clone(),
            rx_bytes: some(interface.received.bytes),
            rx_errors: some(interface.received.errors),
            tx_bytes: some(interface.sent.bytes),
            tx_errors: some(interface.sent.errors),
        })
        .collect();
    let first = all.iter().find(|one| one.name == "eth0").or(all.first()).cloned();
    wire::NetworkUsage { timestamp: now, default_interface: first, interfaces: all }
}

/// Pressure. Its total is in microseconds, as the kernel counts and other runtimes pass it on.
pub(super) fn pressure(waited: Waited) -> wire::PsiStats {
    let data = |Stall { total, averages: [avg10, avg60, avg300] }| wire::PsiData {
        total,
        avg10,
        avg60,
        avg300,
    };
    wire::PsiStats { some: Some(data(waited.some)), full: Some(data(waited.all)) }
}

/// Nanoseconds since the epoch, as every moment of the CRI is written.
pub(super) fn nanos(time: Time) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(0)
}

/// Whether what is selected by labels is meant.
pub(super) fn selects(
    selector: &HashMap<String, String>,
    labels: &HashMap<String, String>,
) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A name for the core's table of names: readable, and different for what is different.
fn core_name(words: &[&str], identity: &[&str]) -> String {
    let plain = |word: &str, most: usize| -> String {
        let kept = word.chars().map(|letter| match letter {
            letter if letter.is_ascii_alphanumeric() || letter == '-' || letter == '.' => letter,
            _ => '-',
        });
        kept.take(most).collect()
    };
    let mut digest = Sha256::new();
    for part in identity {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    let tail = &hex(&digest.finalize())[..16];
    let words: Vec<String> = words.iter().map(|word| plain(word, 26)).collect();
    format!("k8s_{}_{tail}", words.join("_"))
}

/// A clean path below a directory, for what somebody names who is not to leave that directory.
fn below(what: &'static str, directory: &str, name: &str) -> Result<PathBuf> {
    let directory = absolute(what, directory)?;
    let is_plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if name.is_empty() || !is_plain || name.contains(['\0', '\n']) || name.ends_with('/') {
        return Err(invalid(
            what,
            format!("{name:?} is not the path of a file below {}", directory.display()),
        ));
    }
    Ok(directory.join(name))
}

fn absolute(what: &'static str, path: &str) -> Result<PathBuf> {
    let is_clean = Path::new(path).components().all(|part| part != Component::ParentDir);
    if !path.starts_with('/') || !is_clean || path.contains(['\0', '\n']) {
        return Err(invalid(what, format!("{path:?} is not an absolute path without \"..\"")));
    }
    Ok(PathBuf::from(path))
}

fn id_mappings(list: &[wire::IdMapping]) -> Vec<IdMapping> {
    list.iter()
        .map(|mapping| IdMapping {
            container_id: mapping.container_id,
            host_id: mapping.host_id,
            size: mapping.length,
        })
        .collect()
}

/// What the kubelet limits; 0 is its word for nothing.
pub(super) fn limits(
    resources: &wire::LinuxContainerResources,
    counts_swap: bool,
) -> Result<Limits> {
    let some = |value: i64| Some(value).filter(|value| *value != 0);
    let positive = |what: &'static str, value: i64| -> Result<Option<u64>> {
        let value = some(value).map(u64::try_from).transpose();
        value.map_err(|_| invalid(what, "it is below 0"))
    };
    let memory = some(resources.memory_limit_in_bytes);
    // Without a word on swap there is none, as everywhere under Kubernetes.
    let swap = some(resources.memory_swap_limit_in_bytes).or(memory).filter(|_| counts_swap);
    Ok(Limits {
        memory,
        memory_swap: swap.filter(|_| memory.is_some()),
        cpu_period: positive("cpu_period", resources.cpu_period)?,
        cpu_quota: some(resources.cpu_quota),
        cpu_shares: positive("cpu_shares", resources.cpu_shares)?,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        hugepages: resources
            .hugepage_limits
            .iter()
            .map(|limit| (limit.page_size.clone(), limit.limit))
            .collect(),
        unified: resources.unified.clone().into_iter().collect::<BTreeMap<_, _>>(),
        ..Limits::default()
    })
}

/// A signal by the CRI's number for it, which is no number of the kernel's; `None` for the runtime's
/// choice.
fn signal(number: i32) -> Result<Option<Signal>> {
    let unknown = || invalid("stop_signal", format!("{number} is the number of no signal"));
    let signal = wire::Signal::try_from(number).map_err(|_| unknown())?;
    if signal == wire::Signal::RuntimeDefault {
        return Ok(None);
    }
    let name = signal.as_str_name().replace("PLUS", "+").replace("MINUS", "-");
    name.trim_start_matches("SIGNAL_").parse().map(Some).map_err(|_| unknown())
}

/// The CRI's number for a signal.
fn signal_number(signal: Signal) -> i32 {
    (1..=65)
        .find(|number| {
            self::signal(*number).ok().flatten().is_some_and(|one| one.number() == signal.number())
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_of_the_cri_is_one_of_the_kernel_s_and_back() {
        for number in 1..=65 {
            let signal = signal(number).unwrap().unwrap();
            let same = self::signal(signal_number(signal)).unwrap().unwrap();
            assert_eq!(same.number(), signal.number(), "{number}");
        }
        assert_eq!(signal(23).unwrap().unwrap().number(), 15);
        assert_eq!(signal(36).unwrap().unwrap().number(), 35);
        assert_eq!(signal(65).unwrap().unwrap().number(), 64);
        assert!(signal(0).unwrap().is_none() && signal(66).is_err());
    }

    #[test]
    fn names_are_the_core_s_and_tell_everything_apart() {
        let name = core_name(&["web/1", "default"], &["a", "bc"]);
        assert!(name.starts_with("k8s_web-1_default_"), "{name}");
        assert_ne!(name, core_name(&["web/1", "default"], &["ab", "c"]));
        let long = "x".repeat(300);
        assert!(core_name(&[&long, &long], &[]).len() <= 76);
    }

    #[test]
    fn a_path_stays_below_its_directory() {
        assert_eq!(below("log", "/var/log/p", "c/0.log").unwrap(), Path::new("/var/log/p/c/0.log"));
        for (directory, name) in [
            ("/var/log", "../x"),
            ("/var/log", "/x"),
            ("/var/log", ""),
            ("/var/log", "a\nb"),
            ("/var/log", "a/"),
            ("var/log", "x"),
            ("/var/../log", "x"),
        ] {
            assert!(below("log", directory, name).is_err(), "{directory:?} {name:?}");
        }
    }

    #[test]
    fn nothing_said_is_nothing_limited_and_memory_without_swap_has_none() {
        let none = limits(&wire::LinuxContainerResources::default(), true).unwrap();
        assert_eq!(none, Limits::default());
        let asked = wire::LinuxContainerResources {
            memory_limit_in_bytes: 1 << 24,
            cpu_shares: 2,
            cpu_quota: -1,
            ..wire::LinuxContainerResources::default()
        };
        let made = limits(&asked, true).unwrap();
        assert_eq!((made.memory, made.memory_swap), (Some(1 << 24), Some(1 << 24)));
        assert_eq!((made.cpu_shares, made.cpu_quota), (Some(2), Some(-1)));
        assert_eq!(limits(&asked, false).unwrap().memory_swap, None);
    }
}
