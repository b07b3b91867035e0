//! `linux.seccomp` to the BPF program that the kernel takes (seccomp(2)), by libseccomp.
//!
//! libseccomp knows the system calls of its own day (Debian 12: early 2022) and would leave younger
//! names to the default action. That is worse than it sounds: with EPERM a C library concludes "not
//! allowed" where ENOSYS would have made it fall back. So two things stand in front of its program:
//!
//! ```text
//!   architecture of the profile? ──no──▶ libseccomp's program
//!        │ yes
//!   a younger call that the profile names ──▶ its action
//!   a sub-call of socketcall that it names ──▶ its action
//!   a number above every call that the profile names ──▶ ENOSYS   (default action errno only)
//!        │ else
//!        ▼ libseccomp's program
//! ```
//!
//! A rule on one sub-call of i386's `socketcall` stands there too. libseccomp would make such rules
//! itself, of those on `socket` and its like and without their conditions, and let no other in.
//!
//! A rule on a name that neither libseccomp nor this table knows can't be made, nor one with conditions
//! on a call that only this table knows: the call keeps the default action. Where that denies, the rule
//! is passed over with a warning, for profiles are written for many kernels. Where it allows what the
//! rule denies, the profile is refused: the call would be open, and nobody would know.
//!
//! Deliberately absent: notification as the default action, since no process could reach its exec
//! before the agent answers.

mod prologue;

use std::collections::HashMap;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use libseccomp::error::SeccompErrno;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};

use crate::Error;

/// A compiled profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// `struct sock_filter`s, 8 bytes each.
    pub program: Arc<[u8]>,
    /// SECCOMP_FILTER_FLAG_*.
    pub flags: u32,
    /// An agent is told of some calls.
    pub notifies: bool,
    /// The rules that are passed over, by their path, and why.
    pub warnings: Vec<String>,
}

/// BPF_MAXINSNS of `linux/bpf_common.h`.
const MAX_INSTRUCTIONS: usize = 4096;

/// How many different profiles are remembered; a host has a handful.
const CACHE_ENTRIES: usize = 64;

/// By the profile's own text, so that equal profiles of different specs meet.
static CACHE: Mutex<Option<HashMap<String, Filter>>> = Mutex::new(None);

/// Compiles `profile`, once per process and content.
///
/// # Errors
/// Names the field that is not supported, or the rule that libseccomp refused.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, Error> {
    // Serialising what was parsed from JSON can't fail; were it to, the cache is merely missed.
    let key = serde_json::to_string(profile).unwrap_or_default();
    let cached = |cache: &Option<HashMap<String, Filter>>| cache.as_ref()?.get(&key).cloned();
    if let Some(filter) = cached(&CACHE.lock().unwrap_or_else(PoisonError::into_inner)) {
        return Ok(filter);
    }
    let filter = compile_uncached(profile)?;
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    let entries = cache.get_or_insert_default();
    if entries.len() >= CACHE_ENTRIES {
        entries.clear();
    }
    entries.insert(key, filter.clone());
    Ok(filter)
}

/// [`compile`] without its memory: for measuring.
///
/// # Errors
/// As [`compile`].
pub fn compile_uncached(profile: &LinuxSeccomp) -> Result<Filter, Error> {
    const AT: &str = "linux.seccomp";
    if profile.listener_metadata().is_some() && profile.listener_path().is_none() {
        let why = "is for the agent of linux.seccomp.listenerPath, and there is none";
        return Err(Error::contradiction(format!("{AT}.listenerMetadata"), why));
    }
    if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
        return Err(Error::value(format!("{AT}.defaultAction"), "SCMP_ACT_NOTIFY"));
    }
    let notifies = notifies(profile);
    if notifies && profile.listener_path().is_none() {
        let why = "missing, and SCMP_ACT_NOTIFY needs somebody to tell";
        return Err(Error::contradiction(format!("{AT}.listenerPath"), why));
    }
    let errno_ret = profile.default_errno_ret();
    let default = action(profile.default_action(), errno_ret, AT, "defaultErrnoRet")?;
    let flags = flags(profile.flags().as_deref().unwrap_or_default(), notifies)?;
    let (mut context, architectures) =
        context(default, profile.architectures().as_deref().unwrap_or_default())?;
    let mut extras = prologue::Prologue::new(&architectures, default);
    let (mut warnings, mut earlier) = (Vec::new(), HashMap::new());
    for (index, rule) in profile.syscalls().iter().flatten().enumerate() {
        let at = format!("{AT}.syscalls[{index}]");
        warnings.extend(add(&mut context, &mut extras, &mut earlier, rule, default, &at)?);
    }
    let mut program = extras.assemble();
    program.extend(export(&context)?);
    let instructions = program.len() / 8;
    if instructions > MAX_INSTRUCTIONS {
        return Err(Error::SeccompTooLong { instructions });
    }
    Ok(Filter { program: program.into(), flags, notifies, warnings })
}

fn notifies(profile: &LinuxSeccomp) -> bool {
    let rules = profile.syscalls().iter().flatten();
    rules.into_iter().any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify)
}

fn failed(step: impl Into<String>) -> impl FnOnce(libseccomp::error::SeccompError) -> Error {
    let step = step.into();
    |source| Error::Seccomp { step, source }
}

/// A filter without rules, and its architectures: those of the list beside the machine's own, which
/// every filter has.
fn context(
    default: ScmpAction,
    list: &[Arch],
) -> Result<(ScmpFilterContext, Vec<ScmpArch>), Error> {
    let mut context = ScmpFilterContext::new(default).map_err(failed("start a filter"))?;
    let mut architectures = vec![ScmpArch::native()];
    for (index, listed) in list.iter().enumerate() {
        let at = || format!("linux.seccomp.architectures[{index}]");
        let name = listed.to_string();
        let Some(architecture) = architecture(*listed) else {
            return Err(Error::value(at(), name));
        };
        context.add_arch(architecture).map_err(|source| match source.errno() {
            // One filter compares the words of one byte order.
            Some(SeccompErrno::EDOM) => Error::SeccompByteOrder { path: at(), name },
            _ => Error::SeccompArchitecture { path: at(), name, source },
        })?;
        if !architectures.contains(&architecture) {
            architectures.push(architecture);
        }
    }
    // A balanced tree instead of a chain: a call is found in about 10 comparisons instead of 300.
    context.set_ctl_optimize(2).map_err(failed("choose a binary tree"))?;
    Ok((context, architectures))
}

/// Says what of the rule is passed over. `earlier` are the actions of rules before it that have no
/// conditions.
fn add(
    context: &mut ScmpFilterContext,
    extras: &mut prologue::Prologue,
    earlier: &mut HashMap<String, ScmpAction>,
    rule: &LinuxSyscall,
    default: ScmpAction,
    at: &str,
) -> Result<Vec<String>, Error> {
    if rule.names().is_empty() {
        let why = "empty: a rule is about one system call at least";
        return Err(Error::contradiction(format!("{at}.names"), why));
    }
    let action = action(rule.action(), rule.errno_ret(), at, "errnoRet")?;
    let args = rule.args().as_deref().unwrap_or_default();
    let comparisons = comparisons(args, at)?;
    let mut warnings = Vec::new();
    for (position, name) in rule.names().iter().enumerate() {
        let Ok(syscall) = ScmpSyscall::from_name(name) else {
            let is_known = extras.names_younger(name);
            if is_known && args.is_empty() {
                extras.younger(name, action);
            } else if action != default {
                let at = format!("{at}.names[{position}]");
                warnings.push(passed_over(name, is_known, action, default, at)?);
            }
            continue;
        };
        extras.known(syscall);
        if let ("socketcall", Some(call)) = (name.as_str(), sub_call(args)) {
            extras.sub_call(call, action);
            continue;
        }
        // libseccomp refuses rules that say what the default says.
        if action == default {
            continue;
        }
        // Of two rules for a call with as much to say libseccomp takes the first, as runc has it.
        if args.is_empty() && earlier.get(name).is_some_and(|earlier| *earlier != action) {
            let at = format!("{at}.names[{position}]");
            warnings.push(format!(
                "{at}: an earlier rule gives {name:?} another action: this one is passed over"
            ));
        }
        if args.is_empty() {
            earlier.entry(name.clone()).or_insert(action);
        }
        let step = || failed(format!("{at}: {name}"));
        if !conditions_meet_one_argument_twice(args) {
            context.add_rule_conditional(action, syscall, &comparisons).map_err(step())?;
            continue;
        }
        // libseccomp compares an argument once per rule; several comparisons of the same one are
        // "or", as runc has it.
        for comparison in &comparisons {
            context.add_rule_conditional(action, syscall, &[*comparison]).map_err(step())?;
        }
    }
    Ok(warnings)
}

/// A call that keeps the default action instead of its own: a warning.
///
/// # Errors
/// The default action lets the call through, and its own would not.
fn passed_over(
    name: &str,
    is_known: bool,
    action: ScmpAction,
    default: ScmpAction,
    at: String,
) -> Result<String, Error> {
    let lets_through = |action| matches!(action, ScmpAction::Allow | ScmpAction::Log);
    if lets_through(default) && !lets_through(action) {
        let expected = match is_known {
            true => "a call whose arguments libseccomp can compare, and would be let through",
            false => "a call that libseccomp knows, and would be let through",
        };
        return Err(Error::malformed(at, name, expected));
    }
    let why = match is_known {
        true => "is younger than libseccomp, which can't compare its arguments",
        false => "is no call that libseccomp knows",
    };
    Ok(format!("{at}: {name:?} {why}: the rule is passed over, and the default action holds"))
}

/// The sub-call that the conditions of a rule on socketcall(2) name, if they name one and no more.
fn sub_call(args: &[LinuxSeccompArg]) -> Option<u32> {
    let [arg] = args else { return None };
    let names_one = arg.index() == 0 && arg.op() == LinuxSeccompOperator::ScmpCmpEq;
    u32::try_from(arg.value()).ok().filter(|_| names_one)
}

fn conditions_meet_one_argument_twice(args: &[LinuxSeccompArg]) -> bool {
    args.iter()
        .enumerate()
        .any(|(index, arg)| args[..index].iter().any(|earlier| earlier.index() == arg.index()))
}

fn comparisons(args: &[LinuxSeccompArg], at: &str) -> Result<Vec<ScmpArgCompare>, Error> {
    args.iter()
        .enumerate()
        .map(|(position, arg)| {
            let index = u32::try_from(arg.index()).ok().filter(|index| *index < 6);
            let index = index.ok_or_else(|| {
                let at = format!("{at}.args[{position}].index");
                Error::malformed(at, arg.index().to_string(), "between 0 and 5")
            })?;
            let (operator, datum) = match arg.op() {
                LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
                LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
                LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
                LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
                LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
                LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
                // OCI: `value` is the mask, `valueTwo` what must come out.
                LinuxSeccompOperator::ScmpCmpMaskedEq => {
                    (ScmpCompareOp::MaskedEqual(arg.value()), arg.value_two().unwrap_or(0))
                }
            };
            Ok(ScmpArgCompare::new(index, operator, datum))
        })
        .collect()
}

/// EPERM, the errno of an errno action that names none.
const EPERM: u32 = 1;

/// MAX_ERRNO of `linux/err.h`.
const MAX_ERRNO: u16 = 4095;

/// `errno_field` is that of the action's number, below `at`.
fn action(
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    at: &str,
    errno_field: &str,
) -> Result<ScmpAction, Error> {
    use LinuxSeccompAction as Oci;
    let number_at = format!("{at}.{errno_field}");
    if errno_ret.is_some() && !matches!(action, Oci::ScmpActErrno | Oci::ScmpActTrace) {
        let why = "belongs to SCMP_ACT_ERRNO and SCMP_ACT_TRACE alone";
        return Err(Error::contradiction(number_at, why));
    }
    let value = errno_ret.unwrap_or(EPERM);
    let up_to = |most: u16, expected: &'static str| {
        let short = u16::try_from(value).ok().filter(|value| *value <= most);
        short.ok_or_else(|| Error::malformed(&*number_at, value.to_string(), expected))
    };
    // The kernel cuts errnos to MAX_ERRNO, and libseccomp takes none that is not below it.
    let errno = || up_to(MAX_ERRNO - 1, "an errno, 4094 at most");
    Ok(match action {
        Oci::ScmpActKill | Oci::ScmpActKillThread => ScmpAction::KillThread,
        Oci::ScmpActKillProcess => ScmpAction::KillProcess,
        Oci::ScmpActTrap => ScmpAction::Trap,
        Oci::ScmpActErrno => ScmpAction::Errno(i32::from(errno()?)),
        Oci::ScmpActTrace => ScmpAction::Trace(up_to(u16::MAX, "a number below 65536")?),
        Oci::ScmpActLog => ScmpAction::Log,
        Oci::ScmpActAllow => ScmpAction::Allow,
        Oci::ScmpActNotify => ScmpAction::Notify,
    })
}

/// SECCOMP_FILTER_FLAG_* of `linux/seccomp.h`.
fn flags(flags: &[LinuxSeccompFilterFlag], notifies: bool) -> Result<u32, Error> {
    let mut bits = 0;
    for (index, flag) in flags.iter().enumerate() {
        bits |= match flag {
            // The process that installs the filter has one thread.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => 1 << 1,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 1 << 2,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if notifies => 1 << 5,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                let why = "means something only with SCMP_ACT_NOTIFY";
                return Err(Error::contradiction(format!("linux.seccomp.flags[{index}]"), why));
            }
        };
    }
    Ok(bits)
}

/// Absent where libseccomp's binding has no name for it.
fn architecture(architecture: Arch) -> Option<ScmpArch> {
    Some(match architecture {
        Arch::ScmpArchNative => ScmpArch::native(),
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchLoongarch64 | Arch::ScmpArchM68k | Arch::ScmpArchSh | Arch::ScmpArchSheb => {
            return None;
        }
    })
}

/// libseccomp before 2.6 writes its program to a descriptor only.
fn export(context: &ScmpFilterContext) -> Result<Vec<u8>, Error> {
    let io = |step| move |source| Error::SeccompExport { step, source };
    let mut file = tempfile::tempfile().map_err(io("make a temporary file"))?;
    context.export_bpf(file.as_fd()).map_err(failed("write the program"))?;
    file.rewind().map_err(io("read the program back"))?;
    let mut program = Vec::new();
    file.read_to_end(&mut program).map_err(io("read the program back"))?;
    Ok(program)
}
