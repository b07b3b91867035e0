//! Where an error is told: on standard error, and in the file of `--log`, which callers parse.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use jiff::{Timestamp, Unit};
use serde_json::json;

use crate::cli::{Global, LogFormat};
use crate::error::Error;

/// Tells why nothing came of a command.
pub(crate) fn error(global: &Global, error: &dyn Display) {
    let text = error.to_string();
    // Whoever closed standard error does not want to know.
    let _ = writeln!(io::stderr(), "bosun-oci: {text}");
    if let Some(path) = &global.log
        && let Err(failed) = append(path, &line(global.log_format, "error", &text))
    {
        let _ = writeln!(io::stderr(), "bosun-oci: --log {}: {failed}", path.display());
    }
}

/// Tells what went wrong without stopping a command.
pub(crate) fn warning(global: &Global, error: &dyn Display) {
    let text = error.to_string();
    let _ = match &global.log {
        Some(path) => append(path, &line(global.log_format, "warning", &text)),
        None => writeln!(io::stderr(), "bosun-oci: warning: {text}"),
    };
}

/// Tells what is done, to who asked for it.
pub(crate) fn debug(global: &Global, text: &dyn Display) {
    if !global.debug {
        return;
    }
    let line = line(global.log_format, "debug", &text.to_string());
    // What is only for information fails nothing.
    let _ = match &global.log {
        Some(path) => append(path, &line),
        None => io::stderr().write_all(line.as_bytes()),
    };
}

/// A line of the log, as logrus writes it in either of its formats.
fn line(format: LogFormat, level: &str, text: &str) -> String {
    let time = Timestamp::now().round(Unit::Second).unwrap_or(Timestamp::UNIX_EPOCH);
    match format {
        LogFormat::Json => {
            format!("{}\n", json!({"level": level, "msg": text, "time": time.to_string()}))
        }
        LogFormat::Text => format!("time={:?} level={level} msg={text:?}\n", time.to_string()),
    }
}

/// # Errors
/// Nothing can be written there: who reads it would take that for silence.
pub(crate) fn check_log(path: &Path) -> Result<(), Error> {
    open(path).map(drop).map_err(Error::file("open the log", path))
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    open(path)?.write_all(line.as_bytes())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}
