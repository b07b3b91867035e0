//! Capabilities: names to numbers and bit sets (capabilities(7), `linux/capability.h`).

/// In the order of their numbers: CAP_CHOWN is 0.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities: bit n for capability n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CapabilitySet(pub u64);

impl CapabilitySet {
    /// Every capability known here whose number is at most `last`
    /// (`/proc/sys/kernel/cap_last_cap`).
    #[must_use]
    pub fn all(last: u32) -> Self {
        let last = last.min(number_of_last());
        Self(u64::MAX >> (63 - last))
    }

    /// # Errors
    /// The first name that is no capability's.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        names.into_iter().try_fold(Self::default(), |set, name| {
            number(name).map(|number| set.with(number)).ok_or(name)
        })
    }

    #[must_use]
    pub fn with(self, number: u32) -> Self {
        Self(self.0 | 1 << number)
    }

    #[must_use]
    pub fn contains(self, number: u32) -> bool {
        self.0 & (1 << number) != 0
    }

    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// `CAP_CHOWN`, …, by number.
    pub fn names(self) -> impl Iterator<Item = String> {
        (0..=number_of_last())
            .filter(move |number| self.contains(*number))
            .map(|number| format!("CAP_{}", NAMES[number as usize]))
    }
}

/// The number of a capability by its name: any case, with or without `CAP_`.
#[must_use]
pub fn number(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare).and_then(|index| u32::try_from(index).ok())
}

/// The highest number that this table knows (CAP_CHECKPOINT_RESTORE, Linux 5.9).
#[must_use]
pub fn number_of_last() -> u32 {
    40
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_in_any_case_with_and_without_prefix() {
        for name in ["CAP_SYS_ADMIN", "sys_admin", "Cap_Sys_Admin", "SYS_ADMIN"] {
            assert_eq!(number(name), Some(21), "{name}");
        }
        for name in ["", "CAP_", "CAP_CAP_CHOWN", "SYS ADMIN", "ALL"] {
            assert_eq!(number(name), None, "{name}");
        }
    }

    #[test]
    fn the_numbers_are_the_kernels() {
        for (name, expected) in
            [("CHOWN", 0), ("NET_RAW", 13), ("SYS_TIME", 25), ("SETFCAP", 31), ("BPF", 39)]
        {
            assert_eq!(number(name), Some(expected), "{name}");
        }
        assert_eq!(NAMES.len(), number_of_last() as usize + 1);
    }

    #[test]
    fn sets_are_arithmetic() {
        let two = CapabilitySet::of(["CHOWN", "CAP_KILL"]).unwrap();
        assert_eq!(two.0, 0b10_0001);
        assert_eq!(two.names().collect::<Vec<_>>(), ["CAP_CHOWN", "CAP_KILL"]);
        assert_eq!(two.without(CapabilitySet(1)).0, 0b10_0000);
        assert_eq!(CapabilitySet::of(["CHOWN", "FLY"]), Err("FLY"));
        assert_eq!(CapabilitySet::all(40).0, (1 << 41) - 1);
        assert_eq!(CapabilitySet::all(37).0, (1 << 38) - 1, "an older kernel has fewer");
        assert_eq!(CapabilitySet::all(63).0, (1 << 41) - 1, "a newer one has more than we know");
    }
}
