//! Signals by name and number (signal(7)).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Error;

/// By number from 1, as x86 and arm have them.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Other names of the same.
const ALIASES: [(&str, u8); 3] = [("IOT", 6), ("CLD", 17), ("POLL", 29)];

/// As C libraries show them to programs: the first two are their own.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

/// A signal that can be sent; stored as its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Signal(u8);

impl Signal {
    pub const HUP: Self = Self(1);
    pub const KILL: Self = Self(9);
    pub const TERM: Self = Self(15);

    #[must_use]
    pub fn number(self) -> u32 {
        self.0.into()
    }
}

impl Default for Signal {
    fn default() -> Self {
        Self::TERM
    }
}

impl FromStr for Signal {
    type Err = Error;

    /// `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`; empty is the default.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let unknown = || Error::UnknownSignal { text: text.to_owned() };
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = text.parse().ok().filter(|number| (1..=RTMAX).contains(number));
            return number.map(Self).ok_or_else(unknown);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        named(name).or_else(|| real_time(name)).map(Self).ok_or_else(unknown)
    }
}

fn named(name: &str) -> Option<u8> {
    let position = NAMES.iter().position(|known| *known == name);
    position
        .and_then(|index| u8::try_from(index + 1).ok())
        .or_else(|| ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, number)| *number))
}

fn real_time(name: &str) -> Option<u8> {
    let offset = |rest: &str, sign: char| match rest.strip_prefix(sign) {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        None if rest.is_empty() => Some(0),
        Some(_) | None => None,
    };
    let number: u8 = if let Some(rest) = name.strip_prefix("RTMIN") {
        RTMIN.checked_add(offset(rest, '+')?)?
    } else {
        RTMAX.checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?)?
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (NAMES.get(usize::from(self.0) - 1), self.0) {
            (Some(name), _) => write!(f, "SIG{name}"),
            (None, RTMIN) => f.write_str("SIGRTMIN"),
            (None, number) if number > RTMIN => write!(f, "SIGRTMIN+{}", number - RTMIN),
            (None, number) => write!(f, "{number}"),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> Self {
        signal.to_string()
    }
}

impl TryFrom<String> for Signal {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_round_trips_through_its_name() {
        for number in 1..=RTMAX {
            let signal = Signal(number);
            assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal, "{signal}");
        }
    }

    #[test]
    fn names_are_taken_as_docker_takes_them() {
        for (text, number) in [
            ("", 15),
            ("TERM", 15),
            ("sigterm", 15),
            ("15", 15),
            ("SIGRTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMAX-2", 62),
            ("RTMAX", 64),
            ("POLL", 29),
        ] {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_named() {
        for text in ["0", "65", "999", "TERMINATE", "SIG", "RTMIN+31", "RTMIN+-1", "RTMIN3"] {
            let said = text.parse::<Signal>().unwrap_err().to_string();
            assert!(said.contains(&format!("signal {text:?} does not exist")), "{said}");
        }
    }
}
