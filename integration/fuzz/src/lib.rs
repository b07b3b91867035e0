//! What must hold for any bytes, whoever made them: one function for each thing that reads what
//! comes from outside. They panic when it does not hold.
//!
//! The stored corpus (`corpus/TARGET/`) is replayed by a test on every run of the tests; new inputs
//! are looked for by `cargo +nightly fuzz run TARGET` in `cargo-fuzz/`, whose targets call the same
//! functions. What it finds is fixed and added to the corpus, by a name that says what it was.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "what must hold and does not is a panic here")]

mod images;
mod layers;
mod runtime;
mod streams;

pub use images::{config, manifest, reference};
pub use layers::{tar, unpack};
pub use runtime::{mount_options, spec, ttrpc_frames, user};
pub use streams::spdy_frames;

/// A thing that reads bytes: its name, which is also its corpus', and its property.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 10] = [
    ("unpack", unpack),
    ("tar", tar),
    ("manifest", manifest),
    ("config", config),
    ("reference", reference),
    ("spec", spec),
    ("mount_options", mount_options),
    ("user", user),
    ("ttrpc_frames", ttrpc_frames),
    ("spdy_frames", spdy_frames),
];
