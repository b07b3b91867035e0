//! Programs of a few machine instructions, as static ELF files: what no compiler on a 64-bit machine
//! emits, such as a call through another entry of the kernel, needs no compiler.

/// Which machine the program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    X86_64,
    I386,
}

const ADDRESS: u32 = 0x40_0000;

/// An executable that begins with the first byte of `code`, on a machine with a stack and no more.
#[must_use]
pub fn program(machine: Machine, code: &[u8]) -> Vec<u8> {
    let wide = machine == Machine::X86_64;
    let headers: u32 = if wide { 64 + 56 } else { 52 + 32 };
    let number: u16 = if wide { 62 } else { 3 };
    let length = headers + u32::try_from(code.len()).expect("a small program");
    let mut file = vec![0x7f, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1, 1];
    file.resize(16, 0);
    // An address is as wide as the machine.
    let word = |value: u32| {
        let mut bytes = value.to_le_bytes().to_vec();
        bytes.resize(if wide { 8 } else { 4 }, 0);
        bytes
    };
    let sizes: [u16; 6] = if wide { [64, 56, 1, 0, 0, 0] } else { [52, 32, 1, 0, 0, 0] };
    const READ_EXECUTE: u32 = 5;
    for part in [
        // An executable of version 1.
        2u16.to_le_bytes().to_vec(),
        number.to_le_bytes().to_vec(),
        1u32.to_le_bytes().to_vec(),
        word(ADDRESS + headers),
        word(if wide { 64 } else { 52 }),
        word(0),
        0u32.to_le_bytes().to_vec(),
        sizes.iter().flat_map(|size| size.to_le_bytes()).collect(),
        // One segment to load: the whole file. Its flags stand in another place on each machine.
        1u32.to_le_bytes().to_vec(),
        if wide { READ_EXECUTE.to_le_bytes().to_vec() } else { Vec::new() },
        word(0),
        word(ADDRESS),
        word(ADDRESS),
        word(length),
        word(length),
        if wide { Vec::new() } else { READ_EXECUTE.to_le_bytes().to_vec() },
        word(0x1000),
        code.to_vec(),
    ] {
        file.extend(part);
    }
    file
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::process::Command;

    use super::{Machine, program};
    use crate::executable;

    /// exit(7) in each machine's way.
    #[test]
    fn both_kinds_run() {
        let directory = tempfile::tempdir().expect("a directory");
        for (machine, code) in [
            (Machine::X86_64, &b"\xb8\x3c\0\0\0\xbf\x07\0\0\0\x0f\x05"[..]),
            (Machine::I386, &b"\xb8\x01\0\0\0\xbb\x07\0\0\0\xcd\x80"[..]),
        ] {
            let path = directory.path().join(format!("{machine:?}"));
            executable::write(&path, program(machine, code));
            assert_eq!(
                Command::new(&path).status().expect("it runs").code(),
                Some(7),
                "{machine:?}"
            );
        }
    }
}
