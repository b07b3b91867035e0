//! `bosun-oci`: an OCI runtime with runc's command line, over the code that the shim uses.
//!
//! ```text
//! main ──▶ cli (clap) ──▶ commands/VERB ──▶ launch ──▶ shim-plan, shim-runtime
//!   │                          │    └─▶ foreground: whoever waits for a process
//!   └─ report: errors          └─▶ container: the state directory ──▶ gate, shim-cgroup
//! ```
//!
//! Who drives it (podman's conmon, containerd's and Docker's shims, conformance suites) knows runc:
//! flags, formats, exit codes and the words of errors that callers look for are runc's. Beside that,
//! [`lower`] does for a shim that containerd drives what that has no memory for.
//!
//! Nothing stays behind to look after a container: what `create` makes waits by itself for `start`, and
//! all that a later command has to know is in the state directory or asked of the kernel.
//!
//! Deliberately absent: containers without root, and a root that is not pivoted.
#![forbid(unsafe_code)]

mod bundle;
mod cli;
mod commands;
mod console;
mod container;
mod descriptors;
mod ending;
mod error;
mod files;
mod foreground;
mod gate;
mod launch;
mod lower;
mod report;
mod scope;
mod signal;

use std::process::ExitCode;

use cli::Cli;

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return cli::explain(&error),
    };
    match commands::run(&cli) {
        Ok(code) => code,
        Err(error) => {
            report::error(&cli.global, &error);
            ExitCode::FAILURE
        }
    }
}
