//! The kernel's side of a seccomp filter: an interpreter of classic BPF over `struct seccomp_data`
//! (`linux/filter.h`, `linux/seccomp.h`), strict where the kernel's checker is: every jump stays
//! inside, every path returns, no instruction is unknown.

/// What a filter sees of a system call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) architecture: u32,
    pub(crate) args: [u64; 6],
}

impl Call {
    /// `struct seccomp_data`, little endian as on the machines that this runs on.
    fn bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..4].copy_from_slice(&self.number.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.architecture.to_ne_bytes());
        for (index, arg) in self.args.iter().enumerate() {
            bytes[16 + 8 * index..24 + 8 * index].copy_from_slice(&arg.to_ne_bytes());
        }
        bytes
    }
}

/// What a filter answers (SECCOMP_RET_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allow,
    Errno(u16),
    KillThread,
    KillProcess,
    Other(u32),
}

/// The verdict, and how many instructions it took.
pub(crate) fn run(program: &[u8], call: &Call) -> (Verdict, usize) {
    let data = call.bytes();
    let word = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().unwrap());
    let instructions: Vec<&[u8]> = program.chunks_exact(8).collect();
    assert_eq!(instructions.len() * 8, program.len(), "a whole number of instructions");
    let (mut position, mut accumulator, mut steps) = (0, 0_u32, 0);
    loop {
        let instruction = instructions[position];
        let code = u16::from_ne_bytes([instruction[0], instruction[1]]);
        let (when_true, when_false) = (usize::from(instruction[2]), usize::from(instruction[3]));
        let operand = word(&instruction[4..]);
        position += 1;
        steps += 1;
        let jump = |taken: bool| position + if taken { when_true } else { when_false };
        match code {
            0x20 => {
                let offset = operand as usize;
                assert_eq!(offset % 4, 0, "the kernel reads aligned words only");
                accumulator = word(&data[offset..offset + 4]);
            }
            0x54 => accumulator &= operand,
            0x05 => position += operand as usize,
            0x15 => position = jump(accumulator == operand),
            0x25 => position = jump(accumulator > operand),
            0x35 => position = jump(accumulator >= operand),
            0x45 => position = jump(accumulator & operand != 0),
            0x06 => return (verdict(operand), steps),
            unknown => panic!("instruction {unknown:#x} at {}", position - 1),
        }
    }
}

fn verdict(value: u32) -> Verdict {
    let low = u16::try_from(value & 0xffff).unwrap();
    match value & 0xffff_0000 {
        0x7fff_0000 => Verdict::Allow,
        0x0005_0000 => Verdict::Errno(low),
        0x0000_0000 => Verdict::KillThread,
        0x8000_0000 => Verdict::KillProcess,
        other => Verdict::Other(other),
    }
}
