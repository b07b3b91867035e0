//! The exit record: how a container ended, as the shim saw it.
//!
//! It is the one durable fact that the shim makes. On disk (`exit.json`) it is one flat JSON object,
//! so that a person can read it and the shim needs no JSON library:
//!
//! ```json
//! {"attempt":1,"exit_code":42,"oom_killed":false,"exited_at":"1763930000.000000001","boot_id":"…","boottime_ns":5,"crc":"…"}
//! ```
//!
//! `crc` is the CRC-32 (ISO-HDLC, as in zip) of all before its comma, so that a flipped bit is not
//! another exit code. A record of an older shim has none.
//!
//! `exit_code` or `signal`, never both; neither only when the kernel would not say, which is
//! reported as unknown and never as an invented number.

use std::fmt;

/// How a process ended (waitid(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    Code(u8),
    Signal(u8),
    /// Nobody could save it.
    Unknown,
}

impl ExitStatus {
    /// The number that shells and docker show: the code, or 128 + the signal. Unknown is 255, as
    /// containerd has it on the wire; whoever can say more than a number says "unknown".
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128u8.saturating_add(signal),
            Self::Unknown => 255,
        }
    }
}

/// A moment: seconds and nanoseconds since the epoch (CLOCK_REALTIME).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// How one run of a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitRecord {
    /// Which run of the container this ends, counted from 1: a record of an earlier run that was
    /// left behind is never taken for this one's.
    pub attempt: u64,
    pub status: ExitStatus,
    /// The kernel killed something in the container's cgroup for want of memory.
    pub oom_killed: bool,
    pub exited_at: Timestamp,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// CLOCK_BOOTTIME at the exit, in nanoseconds: orders exits when the wall clock stepped.
    pub boottime_ns: u64,
}

/// The room that the temporary file is allocated at create: no record is longer.
pub const MAX_ENCODED_LEN: usize = 512;

impl ExitRecord {
    /// What is judged by.
    #[must_use]
    pub fn recorded(&self) -> crate::lifecycle::Recorded {
        crate::lifecycle::Recorded { attempt: self.attempt, status: self.status }
    }

    #[must_use]
    pub fn encode(&self) -> String {
        let status = match self.status {
            ExitStatus::Code(code) => format!("\"exit_code\":{code},"),
            ExitStatus::Signal(signal) => format!("\"signal\":{signal},"),
            ExitStatus::Unknown => String::new(),
        };
        let body = format!(
            "{{\"attempt\":{},{status}\"oom_killed\":{},\"exited_at\":\"{}.{:09}\",\"boot_id\":\"{}\",\"boottime_ns\":{}",
            self.attempt,
            self.oom_killed,
            self.exited_at.seconds,
            self.exited_at.nanos,
            self.boot_id,
            self.boottime_ns
        );
        format!("{body}{CRC}{:08x}\"}}\n", crc32(body.as_bytes()))
    }

    /// # Errors
    /// Names the field that is missing or malformed. Unknown fields are passed over, so that a
    /// newer shim may add some.
    pub fn decode(text: &str) -> Result<Self, InvalidRecord> {
        let text = text.trim_end_matches(['\n', '\0']);
        if let Some((body, crc)) = text.rsplit_once(CRC) {
            let known = crc.strip_suffix("\"}").and_then(|crc| u32::from_str_radix(crc, 16).ok());
            if known != Some(crc32(body.as_bytes())) {
                return Err(InvalidRecord("crc"));
            }
        }
        let body = text
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .ok_or(InvalidRecord("the braces"))?;
        let field = |name: &'static str| {
            body.split(',').find_map(|pair| {
                let (key, value) = pair.split_once(':')?;
                (key.trim().trim_matches('"') == name).then(|| value.trim().trim_matches('"'))
            })
        };
        let number = |name: &'static str| {
            field(name).map(|text| text.parse::<u64>().map_err(|_| InvalidRecord(name))).transpose()
        };
        let byte = |name: &'static str| {
            number(name)?
                .map(|value| u8::try_from(value).map_err(|_| InvalidRecord(name)))
                .transpose()
        };
        let status = match (byte("exit_code")?, byte("signal")?) {
            (Some(code), None) => ExitStatus::Code(code),
            (None, Some(signal)) => ExitStatus::Signal(signal),
            (None, None) => ExitStatus::Unknown,
            (Some(_), Some(_)) => return Err(InvalidRecord("signal")),
        };
        let (seconds, nanos) = field("exited_at")
            .and_then(|text| text.split_once('.'))
            .ok_or(InvalidRecord("exited_at"))?;
        Ok(Self {
            attempt: number("attempt")?.ok_or(InvalidRecord("attempt"))?,
            status,
            oom_killed: match field("oom_killed") {
                Some("true") => true,
                Some("false") => false,
                Some(_) | None => return Err(InvalidRecord("oom_killed")),
            },
            exited_at: Timestamp {
                seconds: seconds.parse().map_err(|_| InvalidRecord("exited_at"))?,
                nanos: nanos
                    .parse()
                    .ok()
                    .filter(|nanos| *nanos < 1_000_000_000 && text.is_ascii())
                    .ok_or(InvalidRecord("exited_at"))?,
            },
            boot_id: field("boot_id").ok_or(InvalidRecord("boot_id"))?.to_owned(),
            boottime_ns: number("boottime_ns")?.ok_or(InvalidRecord("boottime_ns"))?,
        })
    }
}

/// What stands between a record and its checksum.
const CRC: &str = ",\"crc\":\"";

/// CRC-32 (ISO-HDLC), bit by bit: it is asked for once in a container's life.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

/// The part of an exit record that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidRecord(pub &'static str);

impl fmt::Display for InvalidRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit record: {} is missing or malformed", self.0)
    }
}

impl std::error::Error for InvalidRecord {}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(status: ExitStatus) -> ExitRecord {
        ExitRecord {
            attempt: 3,
            status,
            oom_killed: true,
            exited_at: Timestamp { seconds: 1_763_930_000, nanos: 1 },
            boot_id: "0c5b8bd6-1d6e-4b5f-8d0b-6d0c5e0f3a11".to_owned(),
            boottime_ns: 5_000_000_000,
        }
    }

    #[test]
    fn round_trips_every_kind_of_status_within_the_allocated_room() {
        for status in [ExitStatus::Code(42), ExitStatus::Signal(9), ExitStatus::Unknown] {
            let text = record(status).encode();
            assert!(text.len() <= MAX_ENCODED_LEN);
            assert_eq!(ExitRecord::decode(&text), Ok(record(status)));
            let padded = format!("{text}{}", "\0".repeat(100));
            assert_eq!(ExitRecord::decode(&padded), Ok(record(status)), "allocated tail");
        }
    }

    #[test]
    fn a_torn_record_is_refused_at_every_length() {
        let text = record(ExitStatus::Code(42)).encode();
        for end in 0..text.len() - 1 {
            assert!(ExitRecord::decode(&text[..end]).is_err(), "{}", &text[..end]);
        }
    }

    #[test]
    fn a_flipped_bit_is_never_another_exit() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let text = record(ExitStatus::Code(42)).encode();
        for at in 0..text.len() - 1 {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let Ok(flipped) = String::from_utf8(bytes) else { continue };
                // One in the name of the checksum leaves a record without one, which is whole.
                if let Ok(read) = ExitRecord::decode(&flipped) {
                    assert_eq!(read, record(ExitStatus::Code(42)), "{flipped}");
                }
            }
        }
    }

    #[test]
    fn a_record_of_an_older_shim_has_no_checksum() {
        let text = record(ExitStatus::Code(42)).encode();
        let (body, _) = text.rsplit_once(CRC).unwrap();
        assert_eq!(ExitRecord::decode(&format!("{body}}}\n")), Ok(record(ExitStatus::Code(42))));
    }

    #[test]
    fn a_field_that_a_newer_shim_adds_is_passed_over() {
        let text = record(ExitStatus::Code(1)).encode();
        let (body, _) = text.rsplit_once(CRC).unwrap();
        let body = body.replace("{\"att", "{\"new\":7,\"att");
        let text = format!("{body}{CRC}{:08x}\"}}\n", crc32(body.as_bytes()));
        assert_eq!(ExitRecord::decode(&text), Ok(record(ExitStatus::Code(1))));
    }
}
