//! `spec`: a config.json to begin with.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use clap::Args;

use crate::error::{Error, ROOTLESS};

/// Write a starter config.json
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  bosun-oci spec --bundle /var/lib/web")]
pub(crate) struct SpecArgs {
    /// Where it goes [default: the current directory]
    #[arg(short, long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Refused: containers are root's
    #[arg(long)]
    rootless: bool,
}

/// A shell in `rootfs`, on a terminal.
const STARTER: &str = include_str!("spec.json");

pub(crate) fn run(arguments: &SpecArgs) -> Result<(), Error> {
    if arguments.rootless {
        return Err(Error::Refused { flag: "--rootless", why: ROOTLESS });
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
