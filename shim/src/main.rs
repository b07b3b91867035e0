//! bosun-shim: one per container. It owns the cloned process, its pty, its log file and its exit
//! status, and outlives the daemon that started it.
//!
//! | module | owns |
//! |---|---|
//! | [`args`] | the command line |
//! | [`setup`] | what happens before the loop: descriptors, session, cgroup, identity |
//! | [`event_loop`] | the one loop, and with it all state |
//! | [`rpc`], [`service`] | the task API: connections, and what each call does |
//! | [`launch`] | starting the first process and execs |
//! | [`sandbox`] | a pod's namespaces, without a process |
//! | [`container`], [`process`], [`stdio`] | the first process, the execs, their streams |
//! | [`streams`] | what flows between processes, log and clients |
//! | [`exit_protocol`] | what an end sets off |
//! | [`foreign`] | containers that a stock shim runs in this one's stead |
//! | [`hooks`] | hooks that run beside the loop |
//! | [`log`] | the log file |
//! | [`attach`] | attach clients |
//! | [`exit_record`] | the exit record |
//! | [`containerd`], [`ends`] | being driven by containerd, and its clients' streams |
//!
//! One thread, one poll loop, no signal handlers. Building the container is `shim-runtime`'s, its
//! cgroup `shim-cgroup`'s, what is said on the wire `shim-wire`'s. Deliberately absent: an async
//! runtime, a JSON library, a logging library: every one of a thousand shims would pay for them.
#![forbid(unsafe_code)]

mod args;
mod attach;
mod checkpoint;
mod clock;
mod container;
mod containerd;
mod ends;
mod error;
mod event_loop;
mod exit_protocol;
mod exit_record;
mod foreign;
mod hooks;
mod launch;
mod log;
mod process;
mod rpc;
mod sandbox;
mod service;
mod setup;
mod stdio;
mod streams;

use std::process::ExitCode;

use args::Command;
use event_loop::Shim;
use shim_runtime::init;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    if name == init::ARGV0 {
        init::main();
    }
    let _armed = shim_failpoints::arm();
    if containerd::command::is_meant(&name) {
        let words = arguments.map(|word| word.to_string_lossy().into_owned());
        return containerd::command::main(words);
    }
    match args::parse(arguments) {
        Ok(Command::Version) => {
            println!("bosun-shim {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Ok(Command::Help) => {
            print!("{}", args::USAGE);
            ExitCode::SUCCESS
        }
        Ok(Command::KeepScope) => {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            ExitCode::SUCCESS
        }
        Ok(Command::Serve(arguments)) => match setup::run(&arguments) {
            Ok(inherited) => {
                Shim::new(arguments, inherited).run();
                ExitCode::SUCCESS
            }
            Err(error) => {
                report("start", &error);
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            report("command line", &error);
            ExitCode::from(2)
        }
    }
}

/// Says in the shim's own log (standard error) what nobody else is there to be told.
fn report(step: &str, error: &dyn std::error::Error) {
    use std::io::Write;
    // When that can't be written either there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "bosun-shim: {step}: {error}");
}
