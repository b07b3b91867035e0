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

/// `ctl: ` and one sentence, to stderr. What others said in it can't steer the terminal.
pub(crate) fn complain(sentence: &dyn Display) {
    complain_raw(&format!("ctl: {}\n", escaped_lines(&sentence.to_string())));
}

/// A warning of the daemon's.
pub(crate) fn warn(sentence: &str) {
    complain(&format_args!("warning: {sentence}"));
}

/// Control characters made visible: they would steer a terminal.
pub(crate) fn escaped(text: &str) -> String {
    escaped_but(text, |_| false)
}

/// The same of a text of several lines.
pub(crate) fn escaped_lines(text: &str) -> String {
    escaped_but(text, |c| matches!(c, '\n' | '\t'))
}

fn escaped_but(text: &str, harmless: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !harmless(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// To stderr as it is.
pub(crate) fn complain_raw(text: &str) {
    // When stderr is gone there is nobody to tell.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(escaped("a\u{1b}[2J\r\nü\u{9b}"), "a\\u{1b}[2J\\r\\nü\\u{9b}");
        assert_eq!(escaped_lines("a\n\tb\u{7}"), "a\n\tb\\u{7}");
    }
}
