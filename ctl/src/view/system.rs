//! `version` and `info`, as docker lays them out.

use std::fmt::Write as _;

use bosun_proto::v1::{InfoResponse, VersionResponse};

use super::moment::utc;
use super::size::human_size;
use crate::template::{Value, hidden, record};

/// The version of `bosun.v1` that this client speaks.
const API_VERSION: &str = "1";

fn client() -> Value {
    record([
        ("Version", env!("CARGO_PKG_VERSION").into()),
        ("ApiVersion", API_VERSION.into()),
        ("APIVersion", hidden(API_VERSION)),
        ("Os", std::env::consts::OS.into()),
        ("Arch", std::env::consts::ARCH.into()),
    ])
}

/// Both versions; `Server` is nothing when bosund could not be asked.
pub(crate) fn version(server: Option<&VersionResponse>) -> Value {
    let server = server.map(|server| {
        record([
            ("Version", server.version.as_str().into()),
            ("ApiVersion", server.api_version.as_str().into()),
            ("APIVersion", hidden(server.api_version.as_str())),
            ("GitCommit", server.revision.as_str().into()),
            ("Os", server.os.as_str().into()),
            ("Arch", server.arch.as_str().into()),
            ("KernelVersion", server.kernel.as_str().into()),
        ])
    });
    record([("Client", client()), ("Server", server.into())])
}

pub(crate) fn version_text(server: Option<&VersionResponse>) -> String {
    let mut out = block(
        "Client: ctl",
        &[
            ("Version", env!("CARGO_PKG_VERSION").to_owned()),
            ("API version", API_VERSION.to_owned()),
            ("OS/Arch", format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)),
        ],
    );
    if let Some(server) = server {
        out.push('\n');
        out += &block(
            "Server: bosund",
            &[
                ("Version", server.version.clone()),
                ("API version", server.api_version.clone()),
                ("Git commit", server.revision.clone()),
                ("OS/Arch", format!("{}/{}", server.os, server.arch)),
                ("Kernel", server.kernel.clone()),
            ],
        );
    }
    out
}

fn block(title: &str, lines: &[(&str, String)]) -> String {
    let mut out = format!("{title}\n");
    for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        // Writing to a String can't fail.
        let _ = writeln!(out, " {:<13} {value}", format!("{name}:"));
    }
    out
}

/// docker's fields; what is bosun's alone stands under `Bosun`.
pub(crate) fn info(info: &InfoResponse) -> Value {
    record([
        ("Containers", info.containers.into()),
        ("ContainersRunning", info.running.into()),
        ("ContainersPaused", info.paused.into()),
        ("ContainersStopped", info.exited.into()),
        ("Driver", info.snapshotter.as_str().into()),
        ("CgroupVersion", info.cgroup_version.as_str().into()),
        ("KernelVersion", info.kernel.as_str().into()),
        ("OperatingSystem", info.operating_system.as_str().into()),
        ("OSType", "linux".into()),
        ("NCPU", info.cpus.into()),
        ("MemTotal", info.memory_total.into()),
        ("DockerRootDir", info.root.as_str().into()),
        ("Name", info.hostname.as_str().into()),
        ("Warnings", info.warnings.clone().into()),
        (
            "Bosun",
            record([
                ("Pid", info.pid.into()),
                ("StartedAt", utc(info.started_at.as_ref()).into()),
                ("Root", info.root.as_str().into()),
                ("State", info.state.as_str().into()),
                ("Address", info.address.as_str().into()),
                ("Shim", info.shim.as_str().into()),
                ("CgroupPrefix", info.cgroup_prefix.as_str().into()),
                ("Bridge", info.bridge.as_str().into()),
                ("Subnet", info.subnet.as_str().into()),
                ("Snapshots", info.snapshots.into()),
                ("Namespaces", info.namespaces.into()),
                ("LastEvent", info.last_event.into()),
            ]),
        ),
    ])
}

pub(crate) fn info_text(info: &InfoResponse) -> String {
    let mut out = String::from("Server: bosund\n");
    let started = utc(info.started_at.as_ref());
    let other = info.containers.saturating_sub(info.running).saturating_sub(info.exited);
    let lines: [(&str, String); 22] = [
        ("Containers", info.containers.to_string()),
        (" Running", info.running.to_string()),
        (" Exited", info.exited.to_string()),
        (" Other", other.to_string()),
        ("Snapshots", info.snapshots.to_string()),
        ("Namespaces", info.namespaces.to_string()),
        ("Last event", info.last_event.to_string()),
        ("Pid", info.pid.to_string()),
        ("Started", started),
        ("Root", info.root.clone()),
        ("State", info.state.clone()),
        ("Address", info.address.clone()),
        ("Shim", info.shim.clone()),
        ("Snapshotter", info.snapshotter.clone()),
        ("Cgroup version", info.cgroup_version.clone()),
        ("Cgroup prefix", info.cgroup_prefix.clone()),
        ("Bridge", format!("{} {}", info.bridge, info.subnet)),
        ("Kernel", info.kernel.clone()),
        ("Operating system", info.operating_system.clone()),
        ("CPUs", info.cpus.to_string()),
        ("Total memory", human_size(info.memory_total)),
        ("Name", info.hostname.clone()),
    ];
    for (name, value) in lines {
        // Writing to a String can't fail.
        let _ = writeln!(out, " {name}: {value}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_server_is_null() {
        let json = version(None).json();
        assert!(json.starts_with("{\"Client\":{\"Version\":\""), "{json}");
        assert!(json.ends_with(",\"Server\":null}"), "{json}");
        assert!(!version_text(None).contains("Server"));
    }

    #[test]
    fn info_counts_what_is_neither_running_nor_exited() {
        let info = InfoResponse { containers: 5, running: 2, exited: 1, ..InfoResponse::default() };
        let text = info_text(&info);
        assert!(text.contains(" Containers: 5\n  Running: 2\n  Exited: 1\n  Other: 2\n"), "{text}");
        assert!(super::info(&info).json().contains("\"ContainersStopped\":1"));
    }
}
