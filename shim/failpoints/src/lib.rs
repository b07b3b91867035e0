//! Named steps of daemon and shim at which a test can make them stumble.
//!
//! A [`step!`] stands beside every side effect. In ordinary programs it is nothing; in those of the
//! feature `failpoints` the environment of the program decides what happens there:
//!
//! | variable | at the step |
//! |---|---|
//! | `FAILPOINTS=NAME=panic` | the process ends at once, as a kill ends it |
//! | `FAILPOINTS=NAME=return` | the step fails with [`Stumble`], where it can fail |
//! | `FAILPOINTS=NAME=sleep(MILLISECONDS)` | it takes so long |
//! | `FAILPOINTS_NOTES=FILE` | the names that `FAILPOINTS` sets are written there when they are passed, a line each time |
//! | `FAILPOINTS_NUMBERS=NAME=NUMBER,…` | a [`number`] is another one |
//! | `FAILPOINTS_STOP=NAME` | the process stops, once, as by SIGSTOP: whoever waits for that may kill what he likes. The first process of a pid namespace, which can't, is called `failpoint` for two seconds |
//!
//! Counts and chains are those of the crate `fail` (`3*off->panic`); `FAILPOINTS_STOP=NAME:3` passes
//! three times before it stops. A program with failpoints holds the names of all that it has, between
//! `<failpoint ` and `>`, with a `?` behind the name of a step that can fail: so whoever walks them
//! can't miss a new one.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fmt;
use std::io;

/// The error of a step that a test made fail.
#[derive(Clone, Copy, Debug)]
pub struct Stumble(pub &'static str);

impl fmt::Display for Stumble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failpoint {}", self.0)
    }
}

impl std::error::Error for Stumble {}

impl From<Stumble> for io::Error {
    fn from(stumble: Stumble) -> Self {
        Self::other(stumble)
    }
}

/// A step by its name, `SIDE.OPERATION.STEP`. With `, error` it may fail: the function around it then
/// returns [`Stumble`], converted into its own error.
#[cfg(feature = "failpoints")]
#[macro_export]
macro_rules! step {
    ($name:literal) => {{
        std::hint::black_box(concat!("<failpoint ", $name, ">"));
        let _ = $crate::eval($name);
    }};
    ($name:literal, error) => {{
        std::hint::black_box(concat!("<failpoint ", $name, "?>"));
        if $crate::eval($name).is_some() {
            return Err($crate::Stumble($name).into());
        }
    }};
}

/// A step by its name; nothing in this program.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! step {
    ($name:literal $(, error)?) => {};
}

#[doc(hidden)]
#[cfg(feature = "failpoints")]
#[must_use]
pub fn eval(name: &str) -> Option<()> {
    if let Some(path) = std::env::var_os("FAILPOINTS_NOTES") {
        let set = std::env::var("FAILPOINTS").unwrap_or_default();
        if set.split(';').any(|one| one.split('=').next() == Some(name)) {
            // One write, which O_APPEND keeps whole. Who has changed his root finds no such place.
            let notes = std::fs::File::options().append(true).create(true).open(path);
            let _ = notes.and_then(|mut notes| {
                io::Write::write_all(&mut notes, format!("{name}\n").as_bytes())
            });
        }
    }
    fail::eval(name, |_| ())
}

/// Reads the environment. What it says holds while the answer lives.
#[cfg(feature = "failpoints")]
#[must_use]
pub fn arm() -> impl Sized {
    let report = std::panic::take_hook();
    // It must end the process at that point, as a kill would, not only a task or a thread.
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
    let scenario = fail::FailScenario::setup();
    if let Ok(text) = std::env::var("FAILPOINTS_STOP") {
        stop_at(&text);
    }
    scenario
}

/// Nothing in this program.
#[cfg(not(feature = "failpoints"))]
#[must_use]
pub fn arm() -> impl Sized {}

/// A number of a program, which a test may have set to another one.
#[cfg(feature = "failpoints")]
#[must_use]
pub fn number(name: &str, own: u32) -> u32 {
    let numbers = std::env::var("FAILPOINTS_NUMBERS").unwrap_or_default();
    let mut pairs = numbers.split(',').filter_map(|pair| pair.split_once('='));
    let set = pairs.find(|(known, _)| *known == name).and_then(|(_, text)| text.parse().ok());
    set.unwrap_or(own)
}

/// A number of a program; its own, in this one.
#[cfg(not(feature = "failpoints"))]
#[must_use]
pub fn number(_: &str, own: u32) -> u32 {
    own
}

/// The variables of this crate in this program's environment, for a program that it starts.
pub fn environment() -> impl Iterator<Item = (&'static str, OsString)> {
    let names: &[&str] = match cfg!(feature = "failpoints") {
        true => &["FAILPOINTS", "FAILPOINTS_NOTES", "FAILPOINTS_NUMBERS", "FAILPOINTS_STOP"],
        false => &[],
    };
    names.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)))
}

#[cfg(feature = "failpoints")]
fn stop_at(text: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};

    let (name, passes) = text.split_once(':').unwrap_or((text, "0"));
    let passes: u32 = passes.parse().unwrap_or(0);
    let passed = AtomicU32::new(0);
    let stop = move || {
        if passed.fetch_add(1, Ordering::Relaxed) == passes {
            let own = rustix::process::getpid();
            if own.is_init() {
                return wait_by_name();
            }
            let _ = rustix::process::kill_process(own, rustix::process::Signal::STOP);
        }
    };
    if let Err(problem) = fail::cfg_callback(name, stop) {
        panic!("FAILPOINTS_STOP={text}: {problem}");
    }
}

/// The first process of a pid namespace can't stop itself: it waits a while, under a name that says so.
#[cfg(feature = "failpoints")]
fn wait_by_name() {
    let name = rustix::thread::name().unwrap_or_default();
    let _ = rustix::thread::set_name(c"failpoint");
    std::thread::sleep(std::time::Duration::from_secs(2));
    let _ = rustix::thread::set_name(&name);
}
