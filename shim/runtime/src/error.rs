//! What can go wrong on the way to a running process, on either side of the clone.

use std::fmt;

use rustix::io::Errno;

pub use shim_rootfs::user::UserProblem;
use shim_wire::plan::PlanMount;

/// Why a process could not be made or started. Those of the child travel to the parent as they are.
#[derive(Debug)]
pub enum Error {
    /// No file of that name in any directory of PATH, or no file at that path.
    CommandNotFound { command: String },
    /// There is such a file, and it can't be executed.
    CommandNotExecutable { command: String, errno: Errno },
    /// The user or group can't be had.
    User { user: String, problem: UserProblem },
    /// The working directory can't be entered or made.
    Cwd { cwd: String, errno: Errno },
    /// What shall be mounted is not there.
    MountSource { source: String, destination: String, errno: Errno },
    /// Of a field of the specification: its place, and what it says.
    Field { place: String, error: Box<Self> },
    /// A hook failed, by its place in the specification and its path.
    Hook {
        hook: String,
        problem: HookProblem,
        /// The end of what it said.
        output: String,
    },
    /// criu could not checkpoint or restore a container: what it said, or why there is none.
    Criu { verb: &'static str, said: String },
    /// There was too little memory to start in: the limit, by its place in the specification and what
    /// it says, where the container has one of its own; and what came of it.
    WantOfMemory { limit: Option<(&'static str, String)>, error: Box<Self> },
    /// Of the control group.
    Cgroup(shim_cgroup::Error),
    /// Something that is never done, or not done yet.
    Refused { object: String, rule: Rule },
    /// A system call.
    System { step: Step, object: String, errno: Errno },
    /// The child ended without saying why.
    Ended,
    /// The child did not get on for 60 seconds.
    TimedOut,
}

/// What kind of answer an error calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// docker's exit code 127.
    CommandNotFound,
    /// docker's exit code 126.
    CommandNotExecutable,
    BadUser,
    BadCwd,
    MountSource,
    LimitRefused,
    /// The request asks for something that is never done.
    Refused,
    /// A program of somebody else's, that was to run beside the container, failed.
    Hook,
    /// The machine failed.
    System,
}

/// How a hook failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookProblem {
    ExitCode(i32),
    Signal(i32),
    /// After so many seconds.
    TimedOut(u32),
    NotExecuted(Errno),
}

impl HookProblem {
    /// For the socket: which, and its number.
    fn encode(self) -> (u8, i32) {
        match self {
            Self::ExitCode(code) => (0, code),
            Self::Signal(signal) => (1, signal),
            Self::TimedOut(seconds) => (2, seconds.cast_signed()),
            Self::NotExecuted(errno) => (3, errno.raw_os_error()),
        }
    }

    fn decode(which: u8, number: i32) -> Option<Self> {
        Some(match which {
            0 => Self::ExitCode(number),
            1 => Self::Signal(number),
            2 => Self::TimedOut(number.cast_unsigned()),
            3 => Self::NotExecuted(errno(number)),
            _ => return None,
        })
    }
}

impl fmt::Display for HookProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExitCode(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::TimedOut(seconds) => write!(f, "did not end within {seconds} s"),
            Self::NotExecuted(errno) => write!(f, "can't be executed: {errno}"),
        }
    }
}

impl Error {
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::CommandNotFound { .. } => Kind::CommandNotFound,
            Self::CommandNotExecutable { .. } => Kind::CommandNotExecutable,
            Self::User { .. } => Kind::BadUser,
            Self::Cwd { .. } => Kind::BadCwd,
            Self::MountSource { .. } => Kind::MountSource,
            Self::Field { error, .. } => error.kind(),
            Self::WantOfMemory { .. } => Kind::LimitRefused,
            Self::Cgroup(error) if error.is_limit() => Kind::LimitRefused,
            Self::Cgroup(shim_cgroup::Error::Frozen { .. }) => Kind::Refused,
            Self::Hook { .. } | Self::Criu { .. } => Kind::Hook,
            Self::Refused { .. } => Kind::Refused,
            // A path of the request that leads nowhere.
            Self::System {
                step: Step::OpenNamespace, errno: Errno::NOENT | Errno::NOTDIR, ..
            } => Kind::Refused,
            Self::Cgroup(_) | Self::System { .. } | Self::Ended | Self::TimedOut => Kind::System,
        }
    }

    /// What the kernel said, when it was the kernel.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::CommandNotExecutable { errno, .. }
            | Self::Cwd { errno, .. }
            | Self::MountSource { errno, .. }
            | Self::System { errno, .. } => Some(*errno),
            Self::Cgroup(error) => error.errno(),
            Self::Field { error, .. } | Self::WantOfMemory { error, .. } => error.errno(),
            Self::Hook { problem: HookProblem::NotExecuted(errno), .. } => Some(*errno),
            Self::Hook { .. }
            | Self::Criu { .. }
            | Self::CommandNotFound { .. }
            | Self::User { .. }
            | Self::Refused { .. }
            | Self::Ended
            | Self::TimedOut => None,
        }
    }

    /// The same, as an error of a mount of the plan, which has them in the specification's order.
    pub(crate) fn of_mount(self, index: usize, mount: &PlanMount) -> Self {
        let (source, destination) = (&mount.source, &mount.destination);
        let place = if matches!(self, Self::MountSource { .. }) {
            // It says the rest itself.
            format!("mounts[{index}]")
        } else if source.is_empty() {
            format!("mounts[{index}] (at {destination:?})")
        } else {
            format!("mounts[{index}] ({source:?} at {destination:?})")
        };
        self.at(place)
    }

    /// The same, as an error of a field of the specification.
    pub(crate) fn at(self, place: String) -> Self {
        if matches!(self, Self::Field { .. }) {
            return self;
        }
        Self::Field { place, error: Box::new(self) }
    }

    pub(crate) fn refused(object: impl fmt::Display, rule: Rule) -> Self {
        Self::Refused { object: object.to_string(), rule }
    }
}

/// Names the step and the object of a failed system call.
pub(crate) trait At<T> {
    fn at(self, step: Step, object: impl fmt::Display) -> Result<T, Error>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: Step, object: impl fmt::Display) -> Result<T, Error> {
        self.map_err(|errno| Error::System { step, object: object.to_string(), errno })
    }
}

/// Declares an enum whose variants have a text and travel as their position.
macro_rules! texts {
    ($(#[$meta:meta])* $name:ident { $($variant:ident => $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($variant),+ }

        impl $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn decode(number: u8) -> Option<Self> {
                Self::ALL.get(usize::from(number)).copied()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text),+ })
            }
        }
    };
}

texts! {
    /// What was being done.
    Step {
        Channel => "talk to the child through",
        Pipe => "make the pipes of",
        OpenNamespace => "open the namespace",
        JoinNamespace => "join the namespace of",
        Clone => "clone into the namespaces of",
        JoinCgroup => "join the control group",
        Unshare => "make",
        ReadMap => "read the id map",
        WriteMap => "write",
        IdMap => "map the ids of",
        ReadPlan => "read the plan",
        Propagation => "set the mount propagation of",
        Overlay => "assemble the overlay",
        Mount => "mount",
        MountOption => "set the option",
        MountAttributes => "set the mount attributes of",
        CopyUp => "copy up into the tmpfs at",
        Attach => "attach the mount at",
        Resolve => "find in the rootfs",
        MakeTarget => "make in the rootfs",
        MakeDevice => "make the device",
        MakeLink => "make the link",
        OpenTerminal => "open the terminal",
        Hide => "mask",
        Protect => "make read-only",
        Pivot => "pivot into",
        Mounts => "read",
        MakeDirectory => "open the directory",
        Hostname => "set the",
        Loopback => "switch on the interface",
        TimeOffset => "set",
        Sysctl => "set",
        Stdio => "set up",
        Session => "make a session for",
        OomScore => "set",
        ResourceLimit => "set",
        Keyring => "make a session keyring for",
        SecurityLabel => "set the security label",
        Capabilities => "set the capabilities of",
        Groups => "set",
        Identity => "become the user",
        NoNewPrivileges => "set no_new_privs for",
        DeathSignal => "set the death signal of",
        Seccomp => "install the seccomp filter of",
        Descriptors => "close the descriptors of",
        Scheduler => "set the scheduling of",
        IoPriority => "set the I/O priority of",
        Affinity => "bind to CPUs",
        Personality => "set the execution domain of",
        Notify => "hand the seccomp notifications over to",
        OwnProgram => "put out of reach",
        HookInput => "tell the state to",
        Exec => "execute",
    }
}

texts! {
    /// What is never done, or not done yet.
    Rule {
        NoRoot => "the root of a user namespace is mapped to nobody",
        OtherMappings => "the user namespace to join has others",
        CantIdmap => "its file system, or this kernel, has no id-mapped mounts",
        CantIdmapOverlay => "the kernel has no overlays of id-mapped layers, Linux 5.19 has",
        MountNamespace => "a container needs a mount namespace of its own",
        NamespaceKind => "not a kind of namespace that can be joined",
        NotANamespace => "not a namespace",
        OtherNamespace => "a namespace of another kind",
        HostMounts => "the host's mount namespace, whose root would become the container's",
        NoTimeNamespaces => "the kernel has no time namespaces",
        NetworkNotGiven => "the plan joins a network namespace that was not handed over",
        MalformedPlan => "the plan is malformed",
        Symlink => "it is a symbolic link in the rootfs",
        Overmount => "nothing may be mounted over a part of procfs",
        NoFileSystem => "this kernel has no such file system",
        DirectoryOnFile => "it is a directory, and what it would cover is none",
        FileOnDirectory => "its source is no directory, and what it would cover is one",
        NotAPath => "not a path inside the rootfs",
        TooManyLinks => "too many symbolic links on the way",
        NotANullDevice => "not the null device",
        NotAPty => "not a terminal of the container's own devpts",
        NoMaps => "there is no user namespace whose maps the mount could have",
        NoUnified => "the machine has no unified hierarchy of control groups",
        OptionTooLong => "the option does not fit a page",
        DeviceKind => "not a kind of device",
        OtherDevice => "another device is there already",
        OthersDevice => "it is there, on a mount of somebody else's files, and stays as it is",
        SysctlName => "not the name of a kernel parameter",
        SysctlValue => "a value of one line without control characters is needed",
        SysctlNamespace => "it would change the host: the container shares that namespace",
        HostnameNamespace => "it would rename the host: the container shares the UTS namespace",
        NoProcess => "there is no command to run",
        NulByte => "it holds a NUL byte",
        MovedListener => "the listener is not where it was announced",
        NoAppArmor => "AppArmor is not enabled on this kernel",
        NoSelinux => "SELinux is not enabled on this kernel",
        NotRestored => "criu can't restore a process into what others are in already",
        UserNotRestored => "a container in a user namespace can't be checkpointed or restored",
        NoRealTime => "the kernel gives no real-time priority here: it takes CAP_SYS_NICE, and of a v1 control group, or those above it, cpu.rt_runtime_us (linux.resources.cpu.realtimeRuntime)",
        DeadlinePeriod => "the period is not within kernel.sched_deadline_period_min_us and _max_us (sched(7))",
        DeadlineBandwidth => "the CPUs that the process may run on have not so much time left for deadlines (sched(7))",
        OldKernel => "the kernel can't assemble these layers without a place",
        SandboxNamespace => "not a kind of namespace that lives without a process",
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandNotFound { command } => {
                write!(f, "command {command:?}: not found in the container")
            }
            Self::CommandNotExecutable { command, errno } => {
                write!(f, "command {command:?}: can't be executed: {errno}")
            }
            Self::User { user, problem } => write!(f, "user {user:?}: {problem}"),
            Self::Cwd { cwd, errno } => write!(f, "working directory {cwd:?}: {errno}"),
            Self::MountSource { source, destination, errno } => {
                write!(f, "source {source:?} of the mount at {destination:?}: {errno}")
            }
            Self::Field { place, error } => write!(f, "{place}: {error}"),
            Self::WantOfMemory { limit: Some((place, value)), error } => {
                write!(f, "{place}: {value}: too little memory to start in: {error}")
            }
            Self::WantOfMemory { limit: None, error } => {
                write!(f, "the control groups above leave too little memory to start in: {error}")
            }
            Self::Hook { hook, problem, output } if output.is_empty() => {
                write!(f, "{hook}: {problem}")
            }
            Self::Hook { hook, problem, output } => write!(f, "{hook}: {problem}: {output}"),
            Self::Criu { verb, said } => write!(f, "{verb} through criu: {said}"),
            Self::Cgroup(error) => error.fmt(f),
            Self::Refused { object, rule } => write!(f, "{object}: {rule}"),
            Self::System { step, object, errno } => write!(f, "{step} {object}: {errno}"),
            Self::Ended => f.write_str("the process ended before its program was executed"),
            Self::TimedOut => f.write_str("the process did not get to its program in time"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Cgroup(error) => error.source(),
            Self::Field { error, .. } | Self::WantOfMemory { error, .. } => error.source(),
            Self::CommandNotExecutable { errno, .. }
            | Self::Cwd { errno, .. }
            | Self::MountSource { errno, .. }
            | Self::System { errno, .. } => Some(errno),
            Self::Hook { .. }
            | Self::Criu { .. }
            | Self::CommandNotFound { .. }
            | Self::User { .. }
            | Self::Refused { .. }
            | Self::Ended
            | Self::TimedOut => None,
        }
    }
}

impl From<shim_failpoints::Stumble> for Error {
    fn from(stumble: shim_failpoints::Stumble) -> Self {
        Self::System { step: Step::Channel, object: stumble.to_string(), errno: Errno::IO }
    }
}

impl From<shim_cgroup::Error> for Error {
    fn from(error: shim_cgroup::Error) -> Self {
        Self::Cgroup(error)
    }
}

impl From<shim_rootfs::Error> for Error {
    fn from(error: shim_rootfs::Error) -> Self {
        match error {
            shim_rootfs::Error::Refused { object, rule } => {
                Self::Refused { object, rule: rule.into() }
            }
            shim_rootfs::Error::Layer { path, errno } => {
                Self::MountSource { source: path, destination: "/".to_owned(), errno }
            }
            shim_rootfs::Error::System { step, object, errno } => {
                Self::System { step: step.into(), object, errno }
            }
        }
    }
}

impl From<shim_rootfs::Rule> for Rule {
    fn from(rule: shim_rootfs::Rule) -> Self {
        match rule {
            shim_rootfs::Rule::NotAPath => Self::NotAPath,
            shim_rootfs::Rule::TooManyLinks => Self::TooManyLinks,
            shim_rootfs::Rule::OptionTooLong => Self::OptionTooLong,
            shim_rootfs::Rule::NulByte => Self::NulByte,
            shim_rootfs::Rule::OldKernel => Self::OldKernel,
        }
    }
}

impl From<shim_rootfs::Step> for Step {
    fn from(step: shim_rootfs::Step) -> Self {
        match step {
            shim_rootfs::Step::Resolve | shim_rootfs::Step::Look => Self::Resolve,
            shim_rootfs::Step::MakeTarget => Self::MakeTarget,
            shim_rootfs::Step::Overlay => Self::Overlay,
        }
    }
}

/// Between the two texts of an encoded error.
const SEPARATOR: char = '\0';
const HEADER: usize = 6;
/// The variant that holds another: its number is the length of its text, and the other follows.
const OF_FIELD: u8 = 10;
/// What an encoded error is cut to: the message of a socket.
const MAX_TEXT: usize = 2048;

impl Error {
    /// For the socket: variant, detail, number, two texts.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let raw = |errno: &Errno| errno.raw_os_error();
        let limit = |text: &str| -> String { text.chars().take(MAX_TEXT / 4).collect() };
        let (variant, detail, number, first, second): (u8, u8, i32, &str, &str) = match self {
            Self::CommandNotFound { command } => (0, 0, 0, command, ""),
            Self::CommandNotExecutable { command, errno } => (1, 0, raw(errno), command, ""),
            Self::User { user, problem } => (2, *problem as u8, 0, user, ""),
            Self::Cwd { cwd, errno } => (3, 0, raw(errno), cwd, ""),
            Self::MountSource { source, destination, errno } => {
                (4, 0, raw(errno), source, destination)
            }
            Self::Refused { object, rule } => (5, *rule as u8, 0, object, ""),
            Self::System { step, object, errno } => (6, *step as u8, raw(errno), object, ""),
            Self::Cgroup(error) => {
                let errno = error.errno().unwrap_or(Errno::IO);
                return Self::System { step: Step::JoinCgroup, object: error.to_string(), errno }
                    .encode();
            }
            Self::TimedOut | Self::Ended => (7, 0, 0, "", ""),
            // Only the parent says so.
            Self::WantOfMemory { error, .. } => return error.encode(),
            Self::Hook { hook, problem, output } => {
                let (which, number) = problem.encode();
                (8, which, number, hook, output)
            }
            Self::Criu { verb, said } => (9, 0, 0, verb, said),
            Self::Field { place, error } => {
                let place = limit(place);
                let mut bytes = vec![OF_FIELD, 0];
                bytes.extend((place.len() as i32).to_le_bytes());
                bytes.extend(place.bytes());
                bytes.extend(error.encode());
                return bytes;
            }
        };
        let mut bytes = vec![variant, detail];
        bytes.extend(number.to_le_bytes());
        bytes.extend(limit(first).bytes());
        bytes.push(SEPARATOR as u8);
        bytes.extend(limit(second).bytes());
        bytes
    }

    /// The inverse; what can't be read is [`Error::Ended`], for then the child is broken.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        Self::try_decode(bytes).unwrap_or(Self::Ended)
    }

    fn try_decode(bytes: &[u8]) -> Option<Self> {
        let (header, text) = bytes.split_at_checked(HEADER)?;
        if header[0] == OF_FIELD {
            let length = i32::from_le_bytes(header[2..].try_into().ok()?);
            let (place, error) = text.split_at_checked(usize::try_from(length).ok()?)?;
            let place = String::from_utf8_lossy(place).into_owned();
            // A field of a field is none.
            let error = Some(error).filter(|error| error.first() != Some(&OF_FIELD))?;
            return Some(Self::Field { place, error: Box::new(Self::try_decode(error)?) });
        }
        let text = String::from_utf8_lossy(text);
        let (first, second) = text.split_once(SEPARATOR)?;
        let (first, second) = (first.to_owned(), second.to_owned());
        let number = i32::from_le_bytes(header[2..].try_into().ok()?);
        let errno = errno(number);
        Some(match header[0] {
            0 => Self::CommandNotFound { command: first },
            1 => Self::CommandNotExecutable { command: first, errno },
            2 => Self::User { user: first, problem: UserProblem::decode(header[1])? },
            3 => Self::Cwd { cwd: first, errno },
            4 => Self::MountSource { source: first, destination: second, errno },
            5 => Self::Refused { object: first, rule: Rule::decode(header[1])? },
            6 => Self::System { step: Step::decode(header[1])?, object: first, errno },
            8 => {
                let problem = HookProblem::decode(header[1], number)?;
                Self::Hook { hook: first, problem, output: second }
            }
            9 => {
                let verb = ["checkpoint", "restore"].into_iter().find(|verb| *verb == first)?;
                Self::Criu { verb, said: second }
            }
            _ => return None,
        })
    }
}

/// What a number that came over the socket says.
fn errno(number: i32) -> Errno {
    let known = if (1..4096).contains(&number) { number } else { Errno::IO.raw_os_error() };
    Errno::from_raw_os_error(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_child_reach_the_parent_as_they_are() {
        let errors = [
            Error::CommandNotFound { command: "nope".to_owned() },
            Error::CommandNotExecutable { command: "/etc".to_owned(), errno: Errno::ACCESS },
            Error::User { user: "x".to_owned(), problem: UserProblem::TooLarge },
            Error::Cwd { cwd: "/x".to_owned(), errno: Errno::NOTDIR },
            Error::MountSource {
                source: "/a".to_owned(),
                destination: "/b".to_owned(),
                errno: Errno::NOENT,
            },
            Error::Hook {
                hook: "hooks.poststop[0]".to_owned(),
                problem: HookProblem::TimedOut(u32::MAX),
                output: "no\0 \n".to_owned(),
            },
            Error::refused("/proc", Rule::Overmount).of_mount(
                3,
                &PlanMount { destination: "/proc".to_owned(), ..PlanMount::default() },
            ),
            Error::Criu { verb: "restore", said: "Error (a.c:1): no".to_owned() },
            Error::refused("/proc", Rule::Symlink),
            Error::System { step: Step::Exec, object: "é".to_owned(), errno: Errno::NOEXEC },
        ];
        for error in errors {
            assert_eq!(Error::decode(&error.encode()).to_string(), error.to_string());
            assert_eq!(Error::decode(&error.encode()).kind(), error.kind());
        }
    }

    #[test]
    fn what_a_broken_child_says_is_no_error_of_its_own() {
        let whole = Error::refused("/proc", Rule::Symlink).encode();
        for bytes in [
            &[][..],
            &whole[..5],
            &whole[..6],
            &[10, 0, 0, 0, 0, 0, 0],
            &[10; 99],
            &[11; 9],
            &[5; 9],
        ] {
            assert!(matches!(Error::decode(bytes), Error::Ended), "{bytes:?}");
        }
    }

    #[test]
    fn an_endless_text_is_cut_to_a_message() {
        let command = "é".repeat(100_000);
        let error = Error::CommandNotFound { command: command.clone() };
        assert!(error.encode().len() <= HEADER + 1 + MAX_TEXT);
        let mount = PlanMount { source: command.clone(), ..PlanMount::default() };
        let error =
            Error::Criu { verb: "restore", said: command.clone() }.of_mount(usize::MAX, &mount);
        assert!(error.encode().len() < crate::channel::MAX_MESSAGE);
    }
}
