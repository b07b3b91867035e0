//! Hooks: programs that run at points of a container's life, told its state on standard input.
//!
//! They lie in the file `hooks` of the run directory, which is there only if there are any, and is
//! read by the short-lived processes that run them: they cost a long-lived shim nothing.

use std::collections::BTreeMap;

use prost::Message;

/// The file `hooks`.
#[derive(Clone, PartialEq, Message)]
pub struct Hooks {
    #[prost(message, optional, tag = "1")]
    pub state: Option<State>,
    /// Those of one kind in the order of the spec.
    #[prost(message, repeated, tag = "2")]
    pub hooks: Vec<Hook>,
}

impl Hooks {
    /// Those of one kind, in order.
    pub fn of(&self, kind: HookKind) -> impl Iterator<Item = &Hook> {
        self.hooks.iter().filter(move |hook| hook.kind == kind as i32)
    }

    /// The [bits](HookKind::bit) of the kinds that there are.
    #[must_use]
    pub fn kinds(&self) -> u32 {
        self.hooks.iter().fold(0, |bits, hook| bits | hook.kind().bit())
    }
}

/// What the OCI specification calls the state of a container, as far as it never changes.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct State {
    #[prost(string, tag = "1")]
    pub oci_version: String,
    #[prost(string, tag = "2")]
    pub id: String,
    /// Absolute.
    #[prost(string, tag = "3")]
    pub bundle: String,
    #[prost(btree_map = "string, string", tag = "4")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Hook {
    #[prost(enumeration = "HookKind", tag = "1")]
    pub kind: i32,
    /// Absolute.
    #[prost(string, tag = "2")]
    pub path: String,
    /// `argv` of execv(3); empty is the path alone.
    #[prost(string, repeated, tag = "3")]
    pub args: Vec<String>,
    /// The whole environment.
    #[prost(string, repeated, tag = "4")]
    pub env: Vec<String>,
    /// Seconds; 0 when the specification says none.
    #[prost(uint32, tag = "5")]
    pub timeout: u32,
}

/// In the order of a container's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum HookKind {
    Prestart = 0,
    CreateRuntime = 1,
    CreateContainer = 2,
    StartContainer = 3,
    Poststart = 4,
    Poststop = 5,
}

impl HookKind {
    pub const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// As the specification names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// Of a set of kinds.
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}
