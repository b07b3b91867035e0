//! `spec`: a config.json to begin with.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use crate::cli::SpecArgs;
use crate::error::Error;

/// A shell in `rootfs`, on a terminal.
const STARTER: &str = include_str!("spec.json");

pub(crate) fn run(arguments: &SpecArgs) -> Result<(), Error> {
    if arguments.rootless {
        return Err(Error::Refused {
            flag: "--rootless",
            why: "containers without root: not supported",
        });
    }
    let path = arguments.bundle.clone().unwrap_or_else(|| PathBuf::from(".")).join("config.json");
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(Error::FileExists { path });
        }
        Err(error) => return Err(Error::file("make", &path)(error)),
    };
    file.write_all(STARTER.as_bytes()).map_err(Error::file("write", &path))
}
