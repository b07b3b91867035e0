//! Device rules: lines of the files of v1's controller, and on v2 a program that the kernel asks at
//! each open and mknod.
//!
//! v2 has no control files for devices, but runs a BPF_PROG_TYPE_CGROUP_DEVICE program
//! (linux/bpf.h, `struct bpf_cgroup_dev_ctx`). The last rule that matches decides, so the program
//! asks them from the last to the first and leaves with the first answer. Without a match access is
//! allowed, as in a v1 group that was told nothing.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use shim_wire::plan::DeviceRule;

use crate::{Cgroup, Controller, Error, read};

/// Refuses a rule that neither v1 nor the program could express.
pub(crate) fn check(rule: &DeviceRule) -> Result<(), Error> {
    let numbers = [rule.major, rule.minor];
    let known = ["a", "b", "c"].contains(&rule.kind.as_str())
        && !rule.access.is_empty()
        && rule.access.chars().all(|access| "rwm".contains(access))
        && numbers.iter().flatten().all(|number| u32::try_from(*number).is_ok());
    // "a" is all devices with all accesses, on v1 whatever else the rule says.
    let whole = rule.kind != "a" || numbers == [None, None];
    if known && whole {
        return Ok(());
    }
    let rule = format!("{} {:?}:{:?} {}", rule.kind, rule.major, rule.minor, rule.access);
    Err(Error::InvalidDeviceRule { rule })
}

impl Cgroup {
    /// Puts a group in use under other rules; none leaves it under those that it has. After a failure
    /// the old ones hold.
    pub(crate) fn replace_devices(&self, rules: &[DeviceRule]) -> Result<(), Error> {
        if rules.is_empty() {
            return Ok(());
        }
        match (self.layout.controller(Controller::Devices), self.layout.unified()) {
            (Some(hierarchy), _) => {
                let group = hierarchy.mount().join(&self.path);
                let before = read(&group.join("devices.list"))?;
                write(&group, rules).inspect_err(|_| {
                    // Each of these lines the kernel has written itself.
                    let _ = write_line(&group, false, "a");
                    for line in before.lines() {
                        let _ = write_line(&group, true, line);
                    }
                })
            }
            (None, Some(unified)) => {
                let group = unified.join(&self.path);
                let directory = open(&group)?;
                let query = |errno| Error::io("find the device programs of", &group, errno);
                let before = shim_sys::bpf::device_programs(directory.as_fd()).map_err(query)?;
                // All that are attached must allow an access, so there is no moment without rules.
                attach(&group, rules)?;
                for program in before {
                    shim_sys::bpf::detach_device_program(directory.as_fd(), program.as_fd())
                        .map_err(|errno| Error::io("detach a device program of", &group, errno))?;
                }
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }
}

/// Puts a v1 group under the rules, one after the other.
pub(crate) fn write(group: &Path, rules: &[DeviceRule]) -> Result<(), Error> {
    rules.iter().try_for_each(|rule| write_line(group, rule.allow, &line(rule)))
}

fn write_line(group: &Path, allow: bool, line: &str) -> Result<(), Error> {
    let file = if allow { "devices.allow" } else { "devices.deny" };
    crate::write(&group.join(file), line)
}

fn line(rule: &DeviceRule) -> String {
    let number = |number: Option<i64>| number.map_or("*".to_owned(), |number| number.to_string());
    match rule.kind.as_str() {
        "a" => "a".to_owned(),
        kind => format!("{kind} {}:{} {}", number(rule.major), number(rule.minor), rule.access),
    }
}

/// Puts a v2 group under the rules; none is no program.
pub(crate) fn attach(group: &Path, rules: &[DeviceRule]) -> Result<(), Error> {
    if rules.is_empty() {
        return Ok(());
    }
    let directory = open(group)?;
    let program = shim_sys::bpf::load_device_program(&program(rules))
        .map_err(|errno| Error::io("load the device program of", group, errno))?;
    shim_sys::bpf::attach_device_program(directory.as_fd(), program.as_fd())
        .map_err(|errno| Error::io("attach the device program of", group, errno))
}

fn open(group: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(group, flags, Mode::empty()).map_err(|errno| Error::io("open", group, errno))
}

// Instruction codes of linux/bpf_common.h and linux/bpf.h.
const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbf;
const MOVE_VALUE: u8 = 0xb7;
const AND_VALUE: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
/// On the lower halves, so that a value with its highest bit set is not extended with its sign.
const JUMP32_NOT_EQUAL: u8 = 0x56;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// The registers of the program.
const RESULT: u8 = 0;
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// BPF_DEVCG_ACC_* of linux/bpf.h.
const ALL_ACCESSES: i32 = 7;

fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
    let [o0, o1] = offset.to_ne_bytes();
    let [v0, v1, v2, v3] = value.to_ne_bytes();
    u64::from_ne_bytes([code, registers, o0, o1, v0, v1, v2, v3])
}

fn program(rules: &[DeviceRule]) -> Vec<u64> {
    // The context, in register 1: access << 16 | kind, major, minor.
    let mut code = vec![
        instruction(LOAD_WORD, KIND, SCRATCH, 0, 0),
        instruction(AND_VALUE, KIND, 0, 0, 0xffff),
        instruction(LOAD_WORD, ACCESS, SCRATCH, 0, 0),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, SCRATCH, 4, 0),
        instruction(LOAD_WORD, MINOR, SCRATCH, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let tests = questions(rule);
        for (index, test) in tests.iter().enumerate() {
            match test {
                Test::Compute(instruction) => code.push(*instruction),
                Test::Otherwise { code: jump, to, from, value } => {
                    // Past the remaining tests and the two instructions of the answer.
                    let past = i16::try_from(tests.len() - index - 1 + 2).unwrap_or(i16::MAX);
                    code.push(instruction(*jump, *to, *from, past, *value));
                }
            }
        }
        code.push(instruction(MOVE_VALUE, RESULT, 0, 0, rule.allow.into()));
        code.push(instruction(EXIT, 0, 0, 0, 0));
        if tests.is_empty() {
            // It matches everything: what would follow is unreachable, which the verifier refuses.
            return code;
        }
    }
    code.push(instruction(MOVE_VALUE, RESULT, 0, 0, 1));
    code.push(instruction(EXIT, 0, 0, 0, 0));
    code
}

/// A step of the question whether a rule matches.
enum Test {
    Compute(u64),
    /// A jump to the next rule.
    Otherwise {
        code: u8,
        to: u8,
        from: u8,
        value: i32,
    },
}

fn questions(rule: &DeviceRule) -> Vec<Test> {
    let mut tests = Vec::new();
    let mut unequal = |to, value| {
        tests.push(Test::Otherwise { code: JUMP32_NOT_EQUAL, to, from: 0, value });
    };
    if rule.kind == "a" {
        return tests;
    }
    unequal(KIND, if rule.kind == "b" { 1 } else { 2 });
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = number {
            unequal(register, u32::try_from(number).unwrap_or(u32::MAX).cast_signed());
        }
    }
    let access = access(rule);
    if access != ALL_ACCESSES {
        tests.push(Test::Compute(instruction(MOVE_REGISTER, SCRATCH, ACCESS, 0, 0)));
        tests.push(Test::Compute(instruction(AND_VALUE, SCRATCH, 0, 0, access)));
        // Allowing needs all that is asked for; denying, any of it.
        tests.push(match rule.allow {
            true => {
                let code = JUMP_NOT_EQUAL_REGISTER;
                Test::Otherwise { code, to: SCRATCH, from: ACCESS, value: 0 }
            }
            false => Test::Otherwise { code: JUMP_EQUAL, to: SCRATCH, from: 0, value: 0 },
        });
    }
    tests
}

fn access(rule: &DeviceRule) -> i32 {
    [('m', 1), ('r', 2), ('w', 4)]
        .iter()
        .filter(|(name, _)| rule.access.contains(*name))
        .fold(0, |bits, (_, bit)| bits | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(
        allow: bool,
        kind: &str,
        major: Option<i64>,
        minor: Option<i64>,
        access: &str,
    ) -> DeviceRule {
        DeviceRule { allow, kind: kind.to_owned(), major, minor, access: access.to_owned() }
    }

    /// Runs a program as the kernel would, on the instructions it is made of.
    fn run(program: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> u64 {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0u64; 6];
        let mut at = 0;
        loop {
            let [code, pair, o0, o1, v0, v1, v2, v3] = program[at].to_ne_bytes();
            let (to, from) = ((pair & 15) as usize, (pair >> 4) as usize);
            let offset = i16::from_ne_bytes([o0, o1]);
            let value = i32::from_ne_bytes([v0, v1, v2, v3]);
            at += 1;
            let jump = match code {
                LOAD_WORD => {
                    registers[to] = u64::from(context[value as usize + offset as usize / 4]);
                    false
                }
                MOVE_REGISTER => {
                    registers[to] = registers[from];
                    false
                }
                MOVE_VALUE => {
                    registers[to] = value as u64;
                    false
                }
                AND_VALUE => {
                    registers[to] &= value as u64;
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= value;
                    false
                }
                JUMP32_NOT_EQUAL => registers[to] as u32 != value as u32,
                JUMP_EQUAL => registers[to] == value as u64,
                JUMP_NOT_EQUAL_REGISTER => registers[to] != registers[from],
                EXIT => return registers[0],
                other => panic!("instruction {other:#x}"),
            };
            if jump {
                at += offset as usize;
            }
        }
    }

    const BLOCK: u32 = 1;
    const CHAR: u32 = 2;
    const MKNOD: u32 = 1;
    const READ: u32 = 2;
    const WRITE: u32 = 4;

    #[test]
    fn the_last_match_decides() {
        let program = program(&[
            rule(false, "a", None, None, "rwm"),
            rule(true, "c", None, None, "m"),
            rule(true, "c", Some(1), Some(3), "rwm"),
            rule(true, "c", Some(136), None, "rw"),
            rule(false, "c", Some(136), Some(7), "w"),
        ]);
        for (kind, access, major, minor, allowed) in [
            (CHAR, READ | WRITE, 1, 3, 1),
            (BLOCK, READ, 1, 3, 0),
            (CHAR, READ, 1, 5, 0),
            (CHAR, MKNOD, 9, 9, 1),
            (CHAR, MKNOD | READ, 9, 9, 0),
            (CHAR, READ | WRITE, 136, 2, 1),
            (CHAR, READ | WRITE, 136, 7, 0),
            (CHAR, READ, 136, 7, 1),
            (BLOCK, MKNOD, 8, 0, 0),
        ] {
            let result = run(&program, kind, access, major, minor);
            assert_eq!(result, allowed, "{kind} {access} {major}:{minor}");
        }
    }

    #[test]
    fn without_a_match_access_is_allowed_and_nothing_is_unreachable() {
        let denying_one = program(&[rule(false, "b", Some(8), None, "rwm")]);
        assert_eq!(run(&denying_one, BLOCK, READ, 8, 1), 0);
        assert_eq!(run(&denying_one, BLOCK, READ, 9, 1), 1);
        let all =
            program(&[rule(true, "c", Some(1), None, "r"), rule(false, "a", None, None, "rwm")]);
        assert_eq!(all.len(), 8, "nothing follows the rule that matches everything");
    }

    #[test]
    fn rules_are_lines_of_the_v1_files() {
        assert_eq!(line(&rule(true, "a", None, None, "rwm")), "a");
        assert_eq!(line(&rule(true, "c", Some(1), Some(3), "rwm")), "c 1:3 rwm");
        assert_eq!(line(&rule(true, "b", Some(8), None, "r")), "b 8:* r");
    }

    #[test]
    fn rules_that_say_nothing_are_refused() {
        for rule in [
            rule(true, "x", None, None, "r"),
            rule(true, "c", None, None, ""),
            rule(true, "c", None, None, "rx"),
            rule(true, "c", Some(-1), None, "r"),
            rule(true, "c", Some(1 << 32), None, "r"),
            rule(true, "a", Some(1), None, "rwm"),
        ] {
            assert!(check(&rule).is_err(), "{rule:?}");
        }
        assert!(check(&rule(false, "a", None, None, "rwm")).is_ok());
    }
}
