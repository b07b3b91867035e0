//! Resources in systemd's terms (systemd.resource-control(5)): what it would write itself when it is
//! reloaded, so that it writes the same.
//!
//! What it does not know (burst, realtime, throttles of single devices, huge pages, rdma) it leaves alone
//! in a delegated group. What it knows and was not told it sets back to its own defaults, with the first
//! reason to write anything of that controller. So on v2 it is told what the files say, whoever wrote
//! them and by whichever name.

use shim_wire::plan::{DeviceRule, Resources};

use crate::message::Value;

/// systemd's "infinity".
const UNLIMITED: u64 = u64::MAX;
/// The kernel's default period of a quota, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;
const SECOND: u64 = 1_000_000;

type Properties = Vec<(&'static str, Value)>;

pub(crate) fn of(resources: &Resources, unified: bool) -> Properties {
    let mut properties = Properties::new();
    let mut limit = |name: &'static str, value: Option<i64>| {
        let value = value.map(|value| u64::try_from(value).unwrap_or(UNLIMITED));
        properties.extend(value.map(|value| (name, Value::Number(value))));
    };
    limit("TasksMax", resources.pids);
    if unified {
        limit("MemoryMax", resources.memory);
        limit("MemoryLow", resources.memory_reservation);
        // Without the memory, as the file has it.
        let swap = match (resources.memory, resources.memory_swap) {
            (_, Some(-1)) | (Some(-1), None) => Some(-1),
            (Some(memory), Some(both)) if memory >= 0 => Some((both - memory).max(0)),
            _ => None,
        };
        limit("MemorySwapMax", swap);
    } else {
        limit("MemoryLimit", resources.memory);
    }
    // Its own conversion would be another.
    properties.extend(resources.cpu_shares.map(|shares| match unified {
        true => ("CPUWeight", Value::Number(shim_cgroup::cpu_weight(shares))),
        false => ("CPUShares", Value::Number(shares)),
    }));
    quota(resources, &mut properties);
    if unified {
        let sets = [
            ("AllowedCPUs", &resources.cpuset_cpus),
            ("AllowedMemoryNodes", &resources.cpuset_mems),
        ];
        let sets = sets.into_iter().filter(|(_, list)| !list.is_empty());
        properties.extend(sets.filter_map(|(name, list)| Some((name, Value::Bytes(bits(list)?)))));
    }
    if !resources.devices.is_empty() {
        properties.extend(devices(&resources.devices));
    }
    if unified {
        properties.extend(files(|name| resources.unified.get(name).cloned()));
    }
    properties
}

/// The files of a group of v2 and what systemd calls their numbers.
const NUMBERS: [(&str, &str); 7] = [
    ("TasksMax", "pids.max"),
    ("MemoryMax", "memory.max"),
    ("MemoryHigh", "memory.high"),
    ("MemoryLow", "memory.low"),
    ("MemoryMin", "memory.min"),
    ("MemorySwapMax", "memory.swap.max"),
    ("CPUWeight", "cpu.weight"),
];

/// What a group of v2 holds, whose files `read` knows, and the device rules, which are in no file.
pub(crate) fn of_group(resources: &Resources, read: impl Fn(&str) -> Option<String>) -> Properties {
    let mut properties = files(read);
    if !resources.devices.is_empty() {
        properties.extend(devices(&resources.devices));
    }
    properties
}

fn files(read: impl Fn(&str) -> Option<String>) -> Properties {
    let mut properties = Properties::new();
    for (name, file) in NUMBERS {
        let text = read(file).unwrap_or_default();
        let value = match text.trim() {
            "max" => Some(UNLIMITED),
            text => text.parse().ok(),
        };
        // An idle group has no weight, and systemd has not always had a word for that.
        let value = value.filter(|value| name != "CPUWeight" || *value > 0);
        properties.extend(value.map(|value| (name, Value::Number(value))));
    }
    let text = read("cpu.max").unwrap_or_default();
    if let Some((quota, period)) = text.trim().split_once(' ') {
        let present = Resources {
            cpu_quota: Some(quota.parse().unwrap_or(-1)),
            cpu_period: period.parse().ok(),
            ..Resources::default()
        };
        self::quota(&present, &mut properties);
    }
    for (name, file) in [("AllowedCPUs", "cpuset.cpus"), ("AllowedMemoryNodes", "cpuset.mems")] {
        let text = read(file).unwrap_or_default();
        let list = Some(text.trim()).filter(|list| !list.is_empty());
        properties.extend(list.and_then(bits).map(|bits| (name, Value::Bytes(bits))));
    }
    properties
}

/// Microseconds in each second, rounded up to what systemd counts in: hundredths of a percent.
fn quota(resources: &Resources, properties: &mut Properties) {
    const STEP: u64 = 10_000;
    if let Some(period) = resources.cpu_period {
        properties.push(("CPUQuotaPeriodUSec", Value::Number(period)));
    }
    let Some(quota) = resources.cpu_quota else { return };
    let period = resources.cpu_period.unwrap_or(DEFAULT_PERIOD).max(1);
    let in_a_second = match u64::try_from(quota) {
        Err(_) => UNLIMITED,
        Ok(quota) => {
            let exact = quota.saturating_mul(SECOND) / period;
            exact.checked_next_multiple_of(STEP).unwrap_or(UNLIMITED)
        }
    };
    properties.push(("CPUQuotaPerSecUSec", Value::Number(in_a_second)));
}

/// `0-2,9` as the bytes of a set, the lowest first. `None` for more than systemd takes, and then the
/// kernel has a word to say.
fn bits(list: &str) -> Option<Vec<u8>> {
    const MOST: usize = 1 << 13;
    let mut bytes = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MOST {
            return None;
        }
        for bit in first..=last {
            if bytes.len() <= bit / 8 {
                bytes.resize(bit / 8 + 1, 0);
            }
            bytes[bit / 8] |= 1 << (bit % 8);
        }
    }
    Some(bytes)
}

/// Rules that allow something of what the first one denied; systemd can't say any other.
fn devices(rules: &[DeviceRule]) -> Properties {
    let denies_all = |rule: &DeviceRule| !rule.allow && rule.kind == "a";
    let last = rules.iter().rposition(denies_all);
    let later = last.map_or(&[][..], |last| &rules[last + 1..]);
    let all_again = later.iter().any(|rule| rule.kind == "a");
    if last.is_none() || all_again {
        return vec![("DevicePolicy", Value::Text("auto".to_owned()))];
    }
    let allowed = later.iter().filter(|rule| rule.allow).filter_map(|rule| {
        let kind = if rule.kind == "b" { "block" } else { "char" };
        let name = match (rule.major, rule.minor) {
            (None, None) => format!("{kind}-*"),
            // By the number, as systemd takes it since version 240.
            (Some(major), None) => format!("{kind}-{major}"),
            (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
            (None, Some(_)) => return None,
        };
        Some((name, rule.access.clone()))
    });
    vec![
        ("DevicePolicy", Value::Text("strict".to_owned())),
        ("DeviceAllow", Value::Pairs(allowed.collect())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(resources: &Resources, unified: bool) -> Vec<String> {
        let line = |(name, value): &(&str, Value)| format!("{name} {value:?}");
        of(resources, unified).iter().map(line).collect()
    }

    #[test]
    fn limits_have_systemd_s_names_on_both_versions() {
        let resources = Resources {
            memory: Some(100),
            memory_swap: Some(150),
            memory_reservation: Some(50),
            cpu_shares: Some(512),
            cpu_quota: Some(50_000),
            pids: Some(-1),
            cpuset_cpus: "0,9".to_owned(),
            unified: [("memory.high".to_owned(), "80".to_owned())].into(),
            ..Resources::default()
        };
        assert_eq!(
            said(&resources, true),
            [
                "TasksMax Number(18446744073709551615)",
                "MemoryMax Number(100)",
                "MemoryLow Number(50)",
                "MemorySwapMax Number(50)",
                "CPUWeight Number(59)",
                "CPUQuotaPerSecUSec Number(500000)",
                "AllowedCPUs Bytes([1, 2])",
                "MemoryHigh Number(80)",
            ]
        );
        assert_eq!(
            said(&resources, false),
            [
                "TasksMax Number(18446744073709551615)",
                "MemoryLimit Number(100)",
                "CPUShares Number(512)",
                "CPUQuotaPerSecUSec Number(500000)",
            ]
        );
        assert!(of(&Resources::default(), true).is_empty());
    }

    #[test]
    fn a_group_is_told_as_its_files_are() {
        let file = |name: &str| {
            let text = match name {
                "pids.max" => "max",
                "memory.max" => "104857600",
                "memory.high" => "52428800",
                "cpu.weight" => "20",
                "cpu.max" => "20000 50000",
                "cpuset.cpus" => "0-1",
                "cpuset.mems" => "",
                _ => return None,
            };
            Some(format!("{text}\n"))
        };
        let line = |(name, value): (&str, Value)| format!("{name} {value:?}");
        let none = Resources::default();
        let said: Vec<String> = of_group(&none, file).into_iter().map(line).collect();
        assert_eq!(
            said,
            [
                "TasksMax Number(18446744073709551615)",
                "MemoryMax Number(104857600)",
                "MemoryHigh Number(52428800)",
                "CPUWeight Number(20)",
                "CPUQuotaPeriodUSec Number(50000)",
                "CPUQuotaPerSecUSec Number(400000)",
                "AllowedCPUs Bytes([3])",
            ]
        );
        let idle = |name: &str| (name == "cpu.weight").then(|| "0\n".to_owned());
        assert!(of_group(&none, idle).is_empty());
    }

    #[test]
    fn a_quota_is_rounded_up_to_what_systemd_can_say() {
        let per_second = |quota, period| {
            let resources =
                Resources { cpu_quota: Some(quota), cpu_period: period, ..Resources::default() };
            match of(&resources, true).pop() {
                Some(("CPUQuotaPerSecUSec", Value::Number(number))) => number,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(per_second(1_500, None), 20_000);
        assert_eq!(per_second(20_000, Some(50_000)), 400_000);
        assert_eq!(per_second(-1, None), UNLIMITED);
        assert_eq!(per_second(i64::MAX, Some(1)), UNLIMITED);
    }

    #[test]
    fn device_rules_are_what_is_allowed_of_nothing() {
        let rule = |allow, kind: &str, major, minor, access: &str| DeviceRule {
            allow,
            kind: kind.to_owned(),
            major,
            minor,
            access: access.to_owned(),
        };
        let resources = |devices| Resources { devices, ..Resources::default() };
        let denied = rule(false, "a", None, None, "rwm");
        let list = resources(vec![
            denied.clone(),
            rule(true, "c", None, None, "m"),
            rule(true, "c", Some(1), Some(3), "rwm"),
            rule(true, "b", Some(8), None, "r"),
        ]);
        assert_eq!(
            said(&list, true),
            [
                "DevicePolicy Text(\"strict\")",
                "DeviceAllow Pairs([(\"char-*\", \"m\"), (\"/dev/char/1:3\", \"rwm\"), (\"block-8\", \"r\")])",
            ]
        );
        let everything = resources(vec![denied, rule(true, "a", None, None, "rwm")]);
        assert_eq!(said(&everything, true), ["DevicePolicy Text(\"auto\")"]);
    }
}
