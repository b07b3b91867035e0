//! What stands in front of libseccomp's program: calls that it is too old to know, and ENOSYS for
//! those that the profile's author was too early to know.

use libseccomp::{ScmpAction, ScmpArch, ScmpSyscall};

/// System calls younger than Debian 12's libseccomp, by their number: from 424 on it is the same on
/// every architecture (`scripts/syscall.tbl` of the kernel).
const YOUNGER: [(&str, u32); 20] = [
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", 469),
    ("listns", 470),
];

/// The one call that x86-64 got outside that range (Linux 6.11).
const URETPROBE: (&str, u32) = ("uretprobe", 335);

/// socketcall(2) of i386.
const SOCKETCALL: u32 = 102;

/// The first of the numbers that are the same everywhere; a profile whose youngest call is older is
/// not judged by number.
const UNIFIED: u32 = 424;

/// Numbers with this bit are x32's (`__X32_SYSCALL_BIT`); they carry x86-64's audit architecture.
const X32_BIT: u32 = 0x4000_0000;

/// ENOSYS.
const ENOSYS: u32 = 38;

/// `offsetof(struct seccomp_data, …)` of `linux/seccomp.h`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
/// Of its lower half, on the little-endian machines that have i386's calls.
const OFFSET_FIRST_ARGUMENT: u32 = 16;

/// Opcodes of classic BPF that are used here (`linux/bpf_common.h`).
const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Collects, then assembles.
#[derive(Debug)]
pub(super) struct Prologue {
    /// AUDIT_ARCH_* of the architectures that are judged here.
    audit: Vec<u32>,
    default: ScmpAction,
    /// Number and what to return for it.
    younger: Vec<(u32, u32)>,
    uretprobe: Option<u32>,
    /// Sub-calls of socketcall(2) and what to return for them.
    sub_calls: Vec<(u32, u32)>,
    /// The highest number that the profile names.
    highest: u32,
}

impl Prologue {
    pub(super) fn new(architectures: &[ScmpArch], default: ScmpAction) -> Self {
        let audit = architectures.iter().filter_map(|one| audit_architecture(*one)).collect();
        let (younger, sub_calls) = (Vec::new(), Vec::new());
        Self { audit, default, younger, uretprobe: None, sub_calls, highest: 0 }
    }

    /// The profile names a call that libseccomp knows.
    pub(super) fn known(&mut self, syscall: ScmpSyscall) {
        // Negative numbers stand for calls that this architecture does not have.
        if let Ok(number) = u32::try_from(syscall.as_raw_syscall()) {
            self.highest = self.highest.max(number);
        }
    }

    /// The profile names a call that libseccomp does not know: whether this table does.
    pub(super) fn names_younger(&mut self, name: &str) -> bool {
        if let Some((_, number)) = YOUNGER.iter().find(|(known, _)| *known == name) {
            self.highest = self.highest.max(*number);
            return true;
        }
        name == URETPROBE.0
    }

    /// The action of such a call, which this table knows.
    pub(super) fn younger(&mut self, name: &str, action: ScmpAction) {
        if name == URETPROBE.0 && action != self.default {
            self.uretprobe = Some(return_value(action));
        }
        if let Some((_, number)) = YOUNGER.iter().find(|(known, _)| *known == name)
            && action != self.default
            && self.younger.iter().all(|(other, _)| other != number)
        {
            self.younger.push((*number, return_value(action)));
        }
    }

    /// The profile names one sub-call of socketcall(2).
    pub(super) fn sub_call(&mut self, call: u32, action: ScmpAction) {
        // The kernel has these; others fail by themselves, and are too many to jump over.
        let exists = (1..=20).contains(&call);
        if exists && self.sub_calls.iter().all(|(other, _)| *other != call) {
            self.sub_calls.push((call, return_value(action)));
        }
    }

    /// The instructions, 8 bytes each; empty when there is nothing to say.
    pub(super) fn assemble(mut self) -> Vec<u8> {
        self.younger.sort_unstable();
        let body = self.body();
        if body.is_empty() || self.audit.is_empty() {
            return Vec::new();
        }
        let mut program = vec![load(OFFSET_ARCHITECTURE)];
        // Each test that fits jumps over the remaining ones and the way out.
        for (index, audit) in self.audit.iter().enumerate() {
            let over = self.audit.len() - index;
            program.push(test(JUMP_EQUAL, *audit, u8::try_from(over).unwrap_or(u8::MAX), 0));
        }
        program.push([JUMP.into(), 0, 0, u32::try_from(body.len()).unwrap_or(u32::MAX)]);
        program.extend(body);
        program.into_iter().flat_map(encode).collect()
    }

    /// Runs when the architecture is one of ours; falls out of its end into libseccomp's program.
    fn body(&self) -> Vec<Instruction> {
        let mut body = Vec::new();
        for (number, value) in &self.younger {
            body.extend([test(JUMP_EQUAL, *number, 0, 1), finish(*value)]);
        }
        if matches!(self.default, ScmpAction::Errno(_)) && self.highest >= UNIFIED {
            body.extend([
                test(JUMP_GREATER_EQUAL, X32_BIT, 2, 0),
                test(JUMP_GREATER, self.highest, 0, 1),
                finish(RETURN_ERRNO | ENOSYS),
            ]);
        }
        if !self.sub_calls.is_empty() && self.audit.contains(&AUDIT_I386) {
            let over = 2 * u8::try_from(self.sub_calls.len()).unwrap_or(u8::MAX);
            body.extend([
                test(JUMP_EQUAL, SOCKETCALL, 0, over + 4),
                load(OFFSET_ARCHITECTURE),
                test(JUMP_EQUAL, AUDIT_I386, 0, over + 1),
                load(OFFSET_FIRST_ARGUMENT),
            ]);
            for (call, value) in &self.sub_calls {
                body.extend([test(JUMP_EQUAL, *call, 0, 1), finish(*value)]);
            }
            body.push(load(OFFSET_NUMBER));
        }
        if let Some(value) = self.uretprobe.filter(|_| self.audit.contains(&AUDIT_X86_64)) {
            // 335 is another call on other architectures, and those come here too.
            body.extend([
                test(JUMP_EQUAL, URETPROBE.1, 0, 3),
                load(OFFSET_ARCHITECTURE),
                test(JUMP_EQUAL, AUDIT_X86_64, 0, 1),
                finish(value),
            ]);
        }
        if !body.is_empty() {
            body.insert(0, load(OFFSET_NUMBER));
        }
        body
    }
}

/// Code, jump if true, jump if false, operand.
type Instruction = [u32; 4];

fn load(offset: u32) -> Instruction {
    [LOAD_WORD.into(), 0, 0, offset]
}

fn test(code: u16, operand: u32, when_true: u8, when_false: u8) -> Instruction {
    [code.into(), when_true.into(), when_false.into(), operand]
}

fn finish(value: u32) -> Instruction {
    [RETURN.into(), 0, 0, value]
}

/// `struct sock_filter` in the machine's byte order (`linux/filter.h`).
fn encode([code, when_true, when_false, operand]: Instruction) -> [u8; 8] {
    let [low, high] = u16::try_from(code).unwrap_or(u16::MAX).to_ne_bytes();
    let [a, b, c, d] = operand.to_ne_bytes();
    let byte = |value: u32| u8::try_from(value).unwrap_or(u8::MAX);
    [low, high, byte(when_true), byte(when_false), a, b, c, d]
}

/// SECCOMP_RET_* of `linux/seccomp.h`.
const RETURN_ERRNO: u32 = 0x0005_0000;

fn return_value(action: ScmpAction) -> u32 {
    match action {
        ScmpAction::KillProcess => 0x8000_0000,
        ScmpAction::Trap => 0x0003_0000,
        ScmpAction::Errno(errno) => RETURN_ERRNO | u32::try_from(errno).unwrap_or(0) & 0xffff,
        ScmpAction::Trace(value) => 0x7ff0_0000 | u32::from(value),
        ScmpAction::Log => 0x7ffc_0000,
        ScmpAction::Allow => 0x7fff_0000,
        ScmpAction::Notify => 0x7fc0_0000,
        // Whatever a later libseccomp adds: the safe end.
        ScmpAction::KillThread | _ => 0,
    }
}

const AUDIT_X86_64: u32 = 0xc000_003e;
const AUDIT_I386: u32 = 0x4000_0003;

/// AUDIT_ARCH_* of `linux/audit.h`; x32 shares x86-64's.
const AUDIT: [(ScmpArch, u32); 5] = [
    (ScmpArch::X8664, AUDIT_X86_64),
    (ScmpArch::X86, AUDIT_I386),
    (ScmpArch::Aarch64, 0xc000_00b7),
    (ScmpArch::Arm, 0x4000_0028),
    (ScmpArch::Riscv64, 0xc000_00f3),
];

/// Others keep libseccomp's program alone.
fn audit_architecture(architecture: ScmpArch) -> Option<u32> {
    AUDIT.iter().find(|(one, _)| *one == architecture).map(|(_, audit)| *audit)
}
