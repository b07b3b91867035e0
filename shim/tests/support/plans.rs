//! Plans and options as small as they can be and still make a container.

use std::path::Path;

use shim_wire::files::ContainerDir;
use shim_wire::plan::{
    Capabilities, CreateOptions, ExecOptions, Log, LogFormat, Plan, PlanMount, Process, Resources,
    Rootfs, User,
};

const CLONE_NEWNS: u64 = 0x0002_0000;
const CLONE_NEWUTS: u64 = 0x0400_0000;
const CLONE_NEWIPC: u64 = 0x0800_0000;
pub(crate) const CLONE_NEWPID: u64 = 0x2000_0000;
const CLONE_NEWNET: u64 = 0x4000_0000;

/// The capabilities of docker's containers.
const DOCKERS: u64 = 0xa804_25fb;

const MS_NOSUID: u64 = 2;
const MS_NODEV: u64 = 4;
const MS_NOEXEC: u64 = 8;

pub(crate) fn options(container: &ContainerDir, cgroup: &str, id: &str) -> CreateOptions {
    CreateOptions {
        attempt: 1,
        clone_flags: CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET,
        cgroup: cgroup.to_owned(),
        resources: Some(Resources::default()),
        log: Some(Log {
            format: LogFormat::JsonFile as i32,
            path: container.json_log(id).to_str().unwrap().to_owned(),
            max_size: 0,
            max_files: 1,
        }),
        ..CreateOptions::default()
    }
}

pub(crate) fn plan(directory: &Path, args: &[&str]) -> Plan {
    let text = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let mount = |destination: &str, kind: &str, flags: u64, data: &str| PlanMount {
        destination: destination.to_owned(),
        kind: kind.to_owned(),
        source: kind.to_owned(),
        flags,
        data: data.to_owned(),
        ..PlanMount::default()
    };
    Plan {
        hostname: "test".to_owned(),
        rootfs: Some(Rootfs {
            lower: vec!["/".to_owned()],
            upper: text("upper"),
            work: text("work"),
            volatile: true,
            ..Rootfs::default()
        }),
        mounts: vec![
            mount("/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, ""),
            mount("/dev", "tmpfs", MS_NOSUID, "mode=755,size=65536k"),
            mount(
                "/dev/pts",
                "devpts",
                MS_NOSUID | MS_NOEXEC,
                "newinstance,ptmxmode=0666,mode=0620",
            ),
        ],
        devices: [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)]
            .map(|(name, minor)| shim_wire::plan::Device {
                path: format!("/dev/{name}"),
                kind: "c".to_owned(),
                major: 1,
                minor,
                mode: Some(0o666),
                ..Default::default()
            })
            .to_vec(),
        process: Some(process(args)),
        loopback: true,
        ..Plan::default()
    }
}

pub(crate) fn process(args: &[&str]) -> Process {
    Process {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec!["PATH=/usr/bin:/bin:/usr/sbin:/sbin".to_owned()],
        cwd: "/".to_owned(),
        user: Some(User::default()),
        capabilities: Some(Capabilities {
            bounding: DOCKERS,
            effective: DOCKERS,
            permitted: DOCKERS,
            ..Capabilities::default()
        }),
        ..Process::default()
    }
}

/// An exec of `script` in a shell.
pub(crate) fn exec_of(script: &str) -> ExecOptions {
    ExecOptions { process: Some(process(&["/bin/sh", "-c", script])), ..ExecOptions::default() }
}
