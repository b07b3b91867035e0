//! What reaches stdout and stderr. A reader that went away is an error here, never a panic.

use std::fmt::Display;
use std::io::{self, Write};

use crate::error::Error;

/// To stdout, at once.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    write(text.as_bytes())
}

/// The same of what need not be text.
pub(crate) fn write(data: &[u8]) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(data).and_then(|()| stdout.flush()).map_err(Error::Output)
}

/// `ctl: ` and one sentence, to stderr.
pub(crate) fn complain(sentence: &dyn Display) {
    complain_raw(&format!("ctl: {sentence}\n"));
}

/// A warning of the daemon's.
pub(crate) fn warn(sentence: &str) {
    complain(&format_args!("warning: {sentence}"));
}

/// To stderr as it is.
pub(crate) fn complain_raw(text: &str) {
    // When stderr is gone there is nobody to tell.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
