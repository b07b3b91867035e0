//! Compiled filters, executed: what the kernel would answer, call by call.
#![cfg(target_arch = "x86_64")]
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod bpf;

use std::time::{Duration, Instant};

use bpf::{Call, Verdict, run};
use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};
use shim_plan::capability::CapabilitySet;
use shim_plan::{profile, seccomp};

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const X32_BIT: u32 = 0x4000_0000;
const AARCH64: u32 = 0xc000_00b7;

const EPERM: Verdict = Verdict::Errno(1);
const ENOSYS: Verdict = Verdict::Errno(38);

/// docker's fourteen.
const DEFAULT: CapabilitySet = CapabilitySet(0xa804_25fb);

fn filter(capabilities: CapabilitySet) -> Vec<u8> {
    seccomp::compile(&profile::default(capabilities, (6, 1))).unwrap().program.to_vec()
}

fn with(names: &[&str]) -> Vec<u8> {
    filter(DEFAULT.union(CapabilitySet::of(names.iter().copied()).unwrap()))
}

fn custom(profile: Value) -> Vec<u8> {
    let profile: LinuxSeccomp = serde_json::from_value(profile).unwrap();
    seccomp::compile(&profile).unwrap().program.to_vec()
}

/// Numbers of the calls that Debian 12's libseccomp does not know yet.
fn number(name: &str) -> u32 {
    match name {
        "uretprobe" => 335,
        "cachestat" => 451,
        "fchmodat2" => 452,
        "statmount" => 457,
        "lsm_list_modules" => 461,
        "mseal" => 462,
        "removexattrat" => 466,
        name => {
            let syscall = ScmpSyscall::from_name_by_arch(name, ScmpArch::X8664).unwrap();
            u32::try_from(syscall.as_raw_syscall()).unwrap()
        }
    }
}

fn call(program: &[u8], name: &str, args: &[u64]) -> Verdict {
    raw(program, X86_64, number(name), args)
}

fn raw(program: &[u8], architecture: u32, number: u32, args: &[u64]) -> Verdict {
    let mut call = Call { number, architecture, ..Call::default() };
    call.args[..args.len()].copy_from_slice(args);
    run(program, &call).0
}

/// The answer to every call of every architecture, whatever its arguments are if they are 0. A change
/// of this file is a change of policy.
const GOLDEN: &str = include_str!("default_profile.golden");

#[test]
fn the_default_profile_answers_as_the_golden_list_says() {
    let program = filter(DEFAULT);
    let mut lines =
        vec!["# architecture, answer to a call whose arguments are 0, calls".to_owned()];
    for (name, audit, architecture) in
        [("x86_64", X86_64, ScmpArch::X8664), ("i386", I386, ScmpArch::X86)]
    {
        for (answer, verdict) in [("allow", Verdict::Allow), ("EPERM", EPERM), ("ENOSYS", ENOSYS)] {
            let mut calls: Vec<String> = (0..=450)
                .filter_map(|number| {
                    let call = ScmpSyscall::from(number).get_name_by_arch(architecture).ok()?;
                    let number = u32::try_from(number).unwrap();
                    (raw(&program, audit, number, &[]) == verdict).then_some(call)
                })
                .collect();
            calls.sort();
            calls.dedup();
            lines.extend(calls.iter().map(|call| format!("{name} {answer} {call}")));
        }
    }
    let said = lines.join("\n") + "\n";
    assert!(said == GOLDEN, "the policy has changed:\n{}", difference(GOLDEN, &said));
}

fn difference(old: &str, new: &str) -> String {
    let only_in = |one: &str, other: &str, mark: &str| -> String {
        let others: std::collections::HashSet<&str> = other.lines().collect();
        let only = one.lines().filter(|line| !others.contains(line));
        only.map(|line| format!("{mark} {line}\n")).collect()
    };
    only_in(old, new, "-") + &only_in(new, old, "+")
}

#[test]
fn address_families_of_the_kernel_s_cryptography_and_the_hypervisor_are_denied() {
    let program = filter(DEFAULT);
    for family in 0..48 {
        let expected = if family == 38 || family == 40 { EPERM } else { Verdict::Allow };
        assert_eq!(call(&program, "socket", &[family, 1, 0]), expected, "family {family}");
    }
    // The kernel looks at the lower half of the register alone.
    for family in [38, 40] {
        assert_eq!(call(&program, "socket", &[family | 1 << 40, 1, 0]), EPERM);
        assert_eq!(call(&program, "socket", &[family | 0xffff_ffff << 32, 1, 0]), EPERM);
    }
    assert_eq!(call(&program, "socket", &[2 | 1 << 40, 1, 0]), Verdict::Allow);
    for family in [48, 0x1026, 0x8000_0026, 0xffff_ffff] {
        assert_eq!(call(&program, "socket", &[family, 1, 0]), EPERM);
    }
    // 359 is socket of i386 since Linux 4.3.
    assert_eq!(raw(&program, I386, 359, &[38, 1, 0]), EPERM);
    assert_eq!(raw(&program, I386, 359, &[40, 1, 0]), EPERM);
    assert_eq!(raw(&program, I386, 359, &[2, 1, 0]), Verdict::Allow);
    // 102 is socketcall, of which 1 makes a socket: of which family, no filter can see.
    assert_eq!(raw(&program, I386, 102, &[1, 0xffff_0000]), ENOSYS);
    for call in 2..=20 {
        assert_eq!(raw(&program, I386, 102, &[call, 0xffff_0000]), Verdict::Allow, "{call}");
    }
    // By x32's own numbers, which carry x86-64's architecture.
    for family in [38, 40] {
        assert_eq!(raw(&program, X86_64, X32_BIT | 41, &[family, 1, 0]), EPERM);
    }
}

#[test]
fn a_clone_makes_threads_and_processes_but_no_namespaces() {
    let program = filter(DEFAULT);
    let thread = 0x003d_0f00;
    assert_eq!(call(&program, "clone", &[thread]), Verdict::Allow);
    assert_eq!(call(&program, "clone", &[17]), Verdict::Allow, "SIGCHLD: a fork");
    for namespace in [
        0x0002_0000_u64,
        0x0200_0000,
        0x0400_0000,
        0x0800_0000,
        0x1000_0000,
        0x2000_0000,
        0x4000_0000,
    ] {
        assert_eq!(call(&program, "clone", &[namespace | 17]), EPERM, "{namespace:#x}");
    }
    assert_eq!(call(&program, "clone3", &[]), ENOSYS, "so that C libraries fall back to clone");
    let admin = with(&["SYS_ADMIN"]);
    assert_eq!(call(&admin, "clone", &[0x1000_0011]), Verdict::Allow);
    assert_eq!(call(&admin, "clone3", &[]), Verdict::Allow);
}

#[test]
fn a_personality_is_one_of_five() {
    let program = filter(DEFAULT);
    for allowed in [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        assert_eq!(call(&program, "personality", &[allowed]), Verdict::Allow, "{allowed:#x}");
    }
    for denied in [0x4_0000, 0x8_0000, 0x40_0000, 1] {
        assert_eq!(call(&program, "personality", &[denied]), EPERM, "{denied:#x}");
    }
}

#[test]
fn a_capability_opens_its_calls_and_no_others() {
    let table: [(&str, &[&str]); 13] = [
        ("DAC_READ_SEARCH", &["open_by_handle_at"]),
        ("SYS_ADMIN", &["mount", "umount2", "unshare", "setns", "bpf", "fsopen", "syslog"]),
        ("SYS_BOOT", &["reboot"]),
        ("SYS_MODULE", &["init_module", "finit_module", "delete_module"]),
        ("SYS_PACCT", &["acct"]),
        ("SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
        ("SYS_RAWIO", &["iopl", "ioperm"]),
        ("SYS_TIME", &["settimeofday", "clock_settime"]),
        ("SYS_TTY_CONFIG", &["vhangup"]),
        ("SYS_NICE", &["mbind", "get_mempolicy", "set_mempolicy"]),
        ("SYSLOG", &["syslog"]),
        ("BPF", &["bpf"]),
        ("PERFMON", &["perf_event_open"]),
    ];
    let closed = filter(DEFAULT);
    for (capability, calls) in table {
        let open = with(&[capability]);
        for name in calls {
            assert_eq!(call(&closed, name, &[]), EPERM, "{name} without {capability}");
            assert_eq!(call(&open, name, &[]), Verdict::Allow, "{name} with {capability}");
        }
        for name in ["io_uring_setup", "kexec_load", "keyctl", "userfaultfd", "pivot_root"] {
            assert_eq!(call(&open, name, &[]), EPERM, "{name} with {capability}");
        }
    }
    assert_eq!(call(&closed, "chroot", &[]), Verdict::Allow, "docker gives SYS_CHROOT");
    assert_eq!(call(&filter(CapabilitySet(0)), "chroot", &[]), EPERM);
}

#[test]
fn ptrace_needs_a_kernel_whose_filters_it_can_t_pass() {
    let old = seccomp::compile(&profile::default(DEFAULT, (4, 7))).unwrap().program;
    assert_eq!(call(&old, "ptrace", &[]), EPERM);
    assert_eq!(call(&filter(DEFAULT), "ptrace", &[]), Verdict::Allow);
}

#[test]
fn calls_younger_than_libseccomp_are_known_and_those_younger_than_the_profile_are_not_there() {
    let program = filter(DEFAULT);
    for name in ["cachestat", "fchmodat2", "statmount", "mseal", "removexattrat", "uretprobe"] {
        assert_eq!(call(&program, name, &[]), Verdict::Allow, "{name}");
    }
    for (architecture, name) in [(X86_64, "x86-64"), (I386, "i386")] {
        assert_eq!(raw(&program, architecture, 452, &[]), Verdict::Allow, "fchmodat2 on {name}");
        assert_eq!(raw(&program, architecture, 461, &[]), EPERM, "known, denied on {name}");
        for number in [467, 500, 4000] {
            assert_eq!(raw(&program, architecture, number, &[]), ENOSYS, "{number} on {name}");
        }
    }
    let one = custom(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [{"names": ["uretprobe"], "action": "SCMP_ACT_ALLOW"}]
    }));
    assert_eq!(raw(&one, X86_64, 335, &[]), Verdict::Allow);
    assert_eq!(raw(&one, I386, 335, &[]), EPERM, "another call there");
    assert_eq!(raw(&one, X86_64, 900, &[]), EPERM, "too old a profile to judge by number");
    let admin = with(&["SYS_ADMIN"]);
    assert_eq!(call(&admin, "lsm_list_modules", &[]), Verdict::Allow);
}

#[test]
fn the_other_architectures_of_the_machine_have_the_same_policy_and_foreign_ones_die() {
    let program = filter(DEFAULT);
    let i386 = |name| {
        let syscall = ScmpSyscall::from_name_by_arch(name, ScmpArch::X86).unwrap();
        u32::try_from(syscall.as_raw_syscall()).unwrap()
    };
    for name in ["read", "openat", "clock_gettime64", "ipc", "waitpid"] {
        assert_eq!(raw(&program, I386, i386(name), &[]), Verdict::Allow, "{name}");
    }
    for name in ["mount", "io_uring_setup", "kexec_load", "reboot", "umount"] {
        assert_eq!(raw(&program, I386, i386(name), &[]), EPERM, "{name}");
    }
    assert_eq!(raw(&program, X86_64, X32_BIT, &[]), Verdict::Allow, "read of x32");
    assert_eq!(raw(&program, X86_64, X32_BIT | number("mount"), &[]), EPERM);
    assert_eq!(raw(&program, X86_64, X32_BIT | 500, &[]), EPERM, "not judged by its number");
    assert_eq!(raw(&program, AARCH64, 63, &[]), Verdict::KillThread);
}

#[test]
fn a_profile_of_one_s_own_means_what_it_says() {
    let program = custom(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            {"names": ["getpid"], "action": "SCMP_ACT_KILL_PROCESS"},
            {"names": ["chmod"], "action": "SCMP_ACT_ERRNO",
             "args": [{"index": 1, "value": 0o4000, "valueTwo": 0o4000, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [
                {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
                {"index": 1, "value": 9, "op": "SCMP_CMP_GE"}]},
            {"names": ["setuid"], "action": "SCMP_ACT_ERRNO", "args": [
                {"index": 0, "value": 5, "op": "SCMP_CMP_EQ"},
                {"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}]},
            {"names": ["mseal"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95},
            {"names": ["read", "cachestat"], "action": "SCMP_ACT_ALLOW"}
        ]
    }));
    assert_eq!(call(&program, "mkdir", &[]), Verdict::Errno(13));
    assert_eq!(call(&program, "getpid", &[]), Verdict::KillProcess);
    assert_eq!(call(&program, "chmod", &[0, 0o4755]), EPERM);
    assert_eq!(call(&program, "chmod", &[0, 0o755]), Verdict::Allow);
    assert_eq!(call(&program, "kill", &[1, 9]), EPERM, "different arguments are \"and\"");
    assert_eq!(call(&program, "kill", &[1, 8]), Verdict::Allow);
    assert_eq!(call(&program, "kill", &[2, 9]), Verdict::Allow);
    assert_eq!(call(&program, "setuid", &[5]), EPERM, "the same argument twice is \"or\"");
    assert_eq!(call(&program, "setuid", &[7]), EPERM);
    assert_eq!(call(&program, "setuid", &[6]), Verdict::Allow);
    assert_eq!(call(&program, "mseal", &[]), Verdict::Errno(95));
    assert_eq!(call(&program, "read", &[]), Verdict::Allow, "the default's own action");
    assert_eq!(raw(&program, X86_64, 900, &[]), Verdict::Allow, "the default says allow");
}

#[test]
fn a_profile_knows_all_calls_up_to_its_youngest() {
    let program = custom(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["openat2", "read"], "action": "SCMP_ACT_ALLOW"}]
    }));
    assert_eq!(number("openat2"), 437);
    for (number, expected) in [(436, EPERM), (437, Verdict::Allow), (438, ENOSYS)] {
        assert_eq!(raw(&program, X86_64, number, &[]), expected, "{number}");
    }
    // x32's numbers are above all of them, and left to libseccomp: no architecture of the profile.
    assert_eq!(raw(&program, X86_64, X32_BIT | 438, &[]), Verdict::KillThread);
}

#[test]
fn a_profile_that_can_t_be_done_is_refused_by_its_path() {
    let said = |profile: Value| {
        let profile: LinuxSeccomp = serde_json::from_value(profile).unwrap();
        seccomp::compile(&profile).unwrap_err().to_string()
    };
    let notify = json!({"defaultAction": "SCMP_ACT_NOTIFY"});
    assert_eq!(said(notify), "linux.seccomp.defaultAction: \"SCMP_ACT_NOTIFY\" is not supported");
    let nobody = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    assert!(said(nobody).starts_with("linux.seccomp.listenerPath: missing"));
    let words = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"});
    assert!(said(words).starts_with("linux.seccomp.listenerMetadata: is for the agent"));
    let number = json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1});
    assert!(said(number).starts_with("linux.seccomp.defaultErrnoRet: belongs to"));
    let number = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 1}]});
    assert!(said(number).starts_with("linux.seccomp.syscalls[0].errnoRet: belongs to"));
    let argument = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["write"], "action": "SCMP_ACT_ERRNO",
         "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]});
    assert_eq!(
        said(argument),
        "linux.seccomp.syscalls[1].args[0].index: \"6\" is not between 0 and 5"
    );
    let nothing = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ERRNO"}, {"names": [], "action": "SCMP_ACT_ERRNO"}]});
    assert!(said(nothing).starts_with("linux.seccomp.syscalls[1].names: empty"));
    let flag = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]});
    assert!(said(flag).starts_with("linux.seccomp.flags[1]: "));
    for (name, reason) in [
        ("SCMP_ARCH_S390X", "SCMP_ARCH_S390X has another byte order than this machine"),
        ("SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64 has another byte order than this machine"),
        ("SCMP_ARCH_SHEB", "\"SCMP_ARCH_SHEB\" is not supported"),
    ] {
        for (list, index) in [(json!([name]), 0), (json!(["SCMP_ARCH_X86", name]), 1)] {
            let said = said(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": list}));
            let expected = format!("linux.seccomp.architectures[{index}]: {reason}");
            assert!(said.starts_with(&expected), "{said}");
        }
    }
    let errno = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 70000});
    assert!(said(errno).contains("\"70000\" is not an errno"));
}

#[test]
fn every_action_is_the_kernel_s() {
    for (action, expected) in [
        ("SCMP_ACT_KILL", Verdict::KillThread),
        ("SCMP_ACT_KILL_THREAD", Verdict::KillThread),
        ("SCMP_ACT_KILL_PROCESS", Verdict::KillProcess),
        ("SCMP_ACT_TRAP", Verdict::Other(0x0003_0000)),
        ("SCMP_ACT_ERRNO", EPERM),
        ("SCMP_ACT_TRACE", Verdict::Other(0x7ff0_0000)),
        ("SCMP_ACT_LOG", Verdict::Other(0x7ffc_0000)),
        ("SCMP_ACT_NOTIFY", Verdict::Other(0x7fc0_0000)),
    ] {
        // One call that libseccomp knows, and one that it is too old for.
        let program = custom(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a",
            "syscalls": [{"names": ["mkdir", "fchmodat2"], "action": action}]}));
        assert_eq!(call(&program, "mkdir", &[]), expected, "{action}");
        assert_eq!(call(&program, "fchmodat2", &[]), expected, "{action}");
        assert_eq!(call(&program, "rmdir", &[]), Verdict::Allow, "{action}");
    }
}

#[test]
fn flags_reach_the_kernel_s_numbers() {
    let profile: LinuxSeccomp = serde_json::from_value(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "listenerPath": "/a",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]
    }))
    .unwrap();
    let filter = seccomp::compile(&profile).unwrap();
    assert_eq!((filter.flags, filter.notifies), (1 << 5, true), "one thread needs no TSYNC");

    let profile: LinuxSeccomp = serde_json::from_value(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    }))
    .unwrap();
    assert_eq!(seccomp::compile(&profile).unwrap().flags, 0b110);
}

#[test]
fn equal_profiles_are_compiled_once_and_calls_are_found_quickly() {
    let profile = profile::default(DEFAULT, (6, 1));
    let started = Instant::now();
    let anew = seccomp::compile_uncached(&profile).unwrap();
    let compiled = started.elapsed();
    let first = seccomp::compile(&profile).unwrap();
    let started = Instant::now();
    let second = seccomp::compile(&profile::default(DEFAULT, (6, 1))).unwrap();
    let remembered = started.elapsed();
    assert_eq!(first, anew);
    let stored = serde_json::to_string(&profile).unwrap();
    let read = seccomp::compile(&serde_json::from_str(&stored).unwrap()).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first.program, &read.program), "also when it was stored");
    assert!(std::sync::Arc::ptr_eq(&first.program, &second.program));
    assert!(remembered < Duration::from_millis(50), "{remembered:?}, compiled in {compiled:?}");

    let instructions = first.program.len() / 8;
    assert!(instructions < 2500, "{instructions} instructions");
    let steps = |name: &str| {
        let call = Call { number: number(name), architecture: X86_64, ..Call::default() };
        run(&first.program, &call).1
    };
    let longest = ["read", "write", "futex", "openat", "epoll_wait", "getpid", "mseal"]
        .map(|name| (steps(name), name))
        .into_iter()
        .max()
        .unwrap();
    println!("compiled in {compiled:?}, remembered in {remembered:?}, {instructions} instructions");
    println!("at most {} steps ({})", longest.0, longest.1);
    assert!(longest.0 < 80, "{longest:?}");
}

#[test]
fn a_second_rule_for_a_call_is_told() {
    let rule = |action: &str| json!({"names": ["mkdir"], "action": action});
    let profile = |rules: [Value; 2]| {
        let profile = json!({"defaultAction": "SCMP_ACT_LOG", "syscalls": rules});
        let profile: LinuxSeccomp = serde_json::from_value(profile).unwrap();
        seccomp::compile(&profile).unwrap().warnings
    };
    let said = profile([rule("SCMP_ACT_ALLOW"), rule("SCMP_ACT_ERRNO")]);
    assert_eq!(
        said,
        [
            "linux.seccomp.syscalls[1].names[0]: an earlier rule gives \"mkdir\" another action: this one is passed over"
        ]
    );
    let none: [&str; 0] = [];
    assert_eq!(profile([rule("SCMP_ACT_ALLOW"), rule("SCMP_ACT_ALLOW")]), none);
    // What says the same as the default is none.
    assert_eq!(profile([rule("SCMP_ACT_LOG"), rule("SCMP_ACT_ERRNO")]), none);
}
