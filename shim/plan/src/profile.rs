//! The default seccomp profile: what a container may ask of the kernel when nobody said otherwise.
//!
//! The policy is docker's (moby/profiles, `seccomp/default_linux.go`, June 2026), so that what runs
//! there runs here: everything is denied with EPERM but an allow list; capabilities that a container
//! was given open the calls they are for; `clone` may not make namespaces, and `clone3`, whose flags
//! lie behind a pointer that BPF can't follow, answers ENOSYS so that C libraries fall back.
//!
//! Stricter than docker's in two ways to the address families that both deny. The kernel looks at the
//! lower half of `socket`'s argument alone, so this does too. And 32-bit x86 programs reached `socket`
//! through `socketcall` as well, whose arguments lie behind a pointer: that one sub-call answers
//! ENOSYS, for the call itself is there since Linux 4.3. A 32-bit glibc built for older kernels makes
//! no sockets under this profile.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

use crate::capability::{self, CapabilitySet};

/// Allowed to every container.
const ALWAYS: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2
    dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
    fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
    fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64
    fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64
    futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd
    getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32
    getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
    getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid
    gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup
    io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr
    listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise
    map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock
    mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget
    msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect
    open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free
    pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease
    pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv
    recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat
    rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
    sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile
    sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid
    setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid
    setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32
    setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget
    shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat
    stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo
    tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64
    timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat
    uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write
    writev";

/// Allowed on kernels whose ptrace no longer lets a tracee slip past its filter (Linux 4.8).
const SINCE_4_8: &str = "process_vm_readv process_vm_writev ptrace";

/// Allowed on x86-64.
const X86_64: &str = "arch_prctl modify_ldt";

/// Allowed on 64-bit ARM, whose 32-bit programs use them.
const AARCH64: &str =
    "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2";

/// Allowed to those who hold the capability. What no list names is denied to everybody: io_uring_*,
/// kexec_*, userfaultfd, the key ring, swapon, nfsservctl, …
const WITH_CAPABILITY: [(&str, &str); 14] = [
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog
         umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
];

/// Address families of socket(2) that reach parts of the kernel which no container needs: the
/// kernel's own cryptography, and the hypervisor.
///
/// AF_ALG is 38 and AF_VSOCK 40; these are all the others up to 47, as masks of 32 bits and what is
/// left under them. Linux has 46.
const FAMILIES: [(u64, u64); 7] = [
    (0xffff_ffe0, 0),
    (0xffff_fffc, 32),
    (0xffff_fffe, 36),
    (0xffff_ffff, 39),
    (0xffff_ffff, 41),
    (0xffff_fffe, 42),
    (0xffff_fffc, 44),
];

/// SYS_SOCKET of `linux/net.h`: the sub-call of socketcall(2) that makes a socket.
const SYS_SOCKET: u64 = 1;

/// What personality(2) may set: Linux, Linux with 32-bit uname, both with legacy 16-bit uids left
/// as they are; all ones asks without setting.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// CLONE_NEW* of `linux/sched.h`: mount, cgroup, uts, ipc, user, pid, net.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Major and minor number of a kernel.
pub type KernelVersion = (u32, u32);

/// The profile for a process with these capabilities in its bounding set, on this kernel.
#[must_use]
pub fn default(bounding: CapabilitySet, kernel: KernelVersion) -> LinuxSeccomp {
    let holds = |name: &str| capability::number(name).is_some_and(|bit| bounding.contains(bit));
    let mut names: Vec<&str> = ALWAYS.split_whitespace().collect();
    if kernel >= (4, 8) {
        names.extend(SINCE_4_8.split_whitespace());
    }
    let native = if cfg!(target_arch = "x86_64") {
        X86_64
    } else if cfg!(target_arch = "aarch64") {
        AARCH64
    } else {
        ""
    };
    names.extend(native.split_whitespace());
    for (capability, calls) in WITH_CAPABILITY {
        if holds(capability) {
            names.extend(calls.split_whitespace());
        }
    }
    names.sort_unstable();
    names.dedup();

    let mut rules = vec![rule(&names, LinuxSeccompAction::ScmpActAllow, None, &[])];
    for (mask, left) in FAMILIES {
        rules.push(allow_if("socket", masked(mask, left)));
    }
    let socket = compared(LinuxSeccompOperator::ScmpCmpEq, SYS_SOCKET);
    rules.push(rule(&["socketcall"], LinuxSeccompAction::ScmpActErrno, Some(ENOSYS), &[socket]));
    for persona in PERSONALITIES {
        let equal = compared(LinuxSeccompOperator::ScmpCmpEq, persona);
        rules.push(allow_if("personality", equal));
    }
    if !holds("SYS_ADMIN") {
        rules.push(allow_if("clone", masked(CLONE_NAMESPACES, 0)));
        rules.push(rule(&["clone3"], LinuxSeccompAction::ScmpActErrno, Some(ENOSYS), &[]));
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_architectures(Some(architectures()))
        .set_syscalls(Some(rules));
    profile
}

fn architectures() -> Vec<Arch> {
    if cfg!(target_arch = "x86_64") {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
    } else if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    } else {
        vec![Arch::ScmpArchNative]
    }
}

fn allow_if(name: &str, condition: LinuxSeccompArg) -> LinuxSyscall {
    rule(&[name], LinuxSeccompAction::ScmpActAllow, None, &[condition])
}

/// A condition on the first argument.
fn compared(operator: LinuxSeccompOperator, value: u64) -> LinuxSeccompArg {
    condition(LinuxSeccompArgBuilder::default().value(value).op(operator))
}

/// What is left of the first argument under a mask.
fn masked(mask: u64, left: u64) -> LinuxSeccompArg {
    let operator = LinuxSeccompOperator::ScmpCmpMaskedEq;
    condition(LinuxSeccompArgBuilder::default().value(mask).value_two(left).op(operator))
}

fn condition(arg: LinuxSeccompArgBuilder) -> LinuxSeccompArg {
    // Every field of this builder has a default, so it can't fail.
    arg.index(0_usize).build().unwrap_or_default()
}

fn rule(
    names: &[&str],
    action: LinuxSeccompAction,
    errno: Option<u32>,
    args: &[LinuxSeccompArg],
) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.iter().map(|name| (*name).to_owned()).collect())
        .set_action(action)
        .set_errno_ret(errno)
        .set_args((!args.is_empty()).then(|| args.to_vec()));
    rule
}
