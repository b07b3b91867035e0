//! Signals as people write them: `TERM`, `SIGTERM`, `term`, `15`, `RTMIN+3`.

use crate::error::Error;

/// By number, from 1 on (signal(7), as x86, arm, riscv and s390 have it).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
const ALIASES: [(&str, i32); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];
/// What the C library leaves to programs.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

pub(crate) const KILL: i32 = 9;

/// 0 is no signal: kill(2) only looks then whether there is somebody to send one to.
///
/// # Errors
/// [`Error::Malformed`].
pub(crate) fn parse(text: &str) -> Result<i32, Error> {
    number(&text.to_ascii_uppercase()).ok_or_else(|| Error::Malformed {
        flag: "signal",
        value: text.to_owned(),
        expected: "a signal's name or number",
    })
}

fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (0..=RTMAX).contains(&number).then_some(number);
    }
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let realtime = |base: i32, offset: &str| match offset {
        "" => Some(base),
        offset => Some(base + offset.parse::<i32>().ok()?),
    };
    if let Some(offset) = name.strip_prefix("RTMIN") {
        return realtime(RTMIN, offset).filter(|number| (RTMIN..=RTMAX).contains(number));
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        return realtime(RTMAX, offset).filter(|number| (RTMIN..=RTMAX).contains(number));
    }
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, number)| *number);
    let position = NAMES.iter().position(|known| *known == name);
    alias.or_else(|| position.and_then(|position| i32::try_from(position + 1).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        let known = [
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGUSR1", 10),
            ("9", 9),
            ("0", 0),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("IOT", 6),
            ("SYS", 31),
            ("WINCH", 28),
        ];
        for (text, signal) in known {
            assert_eq!(parse(text).unwrap(), signal, "{text}");
        }
        for text in ["", "65", "-1", "SIG", "NOPE", "RTMIN+31", "RTMAX+1", "SIGSIGTERM"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
