//! A container as `docker inspect` shows it, for the fields that docker has; what is bosun's alone
//! stands under `Bosun`.

use std::collections::BTreeMap;

use bosun_proto::v1::state::Status;
use bosun_proto::v1::{
    BindMount, Container, ContainerOptions, Device, DeviceRate, DeviceWeight, IdMapping,
    LogOptions, NetworkStatus, Port, State, StringList,
};

use super::moment::utc;
use super::ports::{self, bound};
use super::row::{base, network_name};
use super::status;
use crate::template::{Value, hidden, record};

pub(crate) fn inspection(container: &Container) -> Value {
    let options = container.options.clone().unwrap_or_default();
    let state = container.state.clone().unwrap_or_default();
    let inside = |file: &str| -> Value {
        if container.container_dir.is_empty() {
            return "".into();
        }
        format!("{}/{file}", container.container_dir).into()
    };
    record([
        ("Id", container.id.as_str().into()),
        ("ID", hidden(container.id.as_str())),
        ("Created", utc(container.created_at.as_ref()).into()),
        ("Path", container.args.first().cloned().unwrap_or_default().into()),
        ("Args", container.args.iter().skip(1).cloned().collect::<Vec<_>>().into()),
        ("State", state_record(&state)),
        ("Image", image(container, &options).into()),
        ("ResolvConfPath", inside("resolv.conf")),
        ("HostnamePath", inside("hostname")),
        ("HostsPath", inside("hosts")),
        ("LogPath", container.log_path.as_str().into()),
        ("Name", format!("/{}", container.name).into()),
        ("RestartCount", 0_u32.into()),
        ("Driver", "overlayfs".into()),
        ("Platform", "linux".into()),
        ("MountLabel", "".into()),
        ("ProcessLabel", "".into()),
        ("AppArmorProfile", container.apparmor_profile.as_str().into()),
        ("ExecIDs", Value::Null),
        ("HostConfig", host_config(&options)),
        ("Mounts", mounts(container, &options)),
        ("Config", config(container, &options)),
        ("NetworkSettings", network_settings(container, &options)),
        ("Bosun", own(container, &state)),
    ])
}

fn state_record(state: &State) -> Value {
    let status = state.status();
    let exit = state.exit.clone().unwrap_or_default();
    let error = match (state.error.as_str(), exit.unknown) {
        ("", true) => format!("exit status unknown: {}", exit.reason),
        (error, _) => error.to_owned(),
    };
    record([
        ("Status", status::word(status).into()),
        // docker's: one that stands still runs.
        ("Running", matches!(status, Status::Running | Status::Paused).into()),
        ("Paused", (status == Status::Paused).into()),
        ("Restarting", false.into()),
        ("OOMKilled", exit.oom_killed.into()),
        ("Dead", (status == Status::Quarantined).into()),
        ("Pid", state.pid.into()),
        ("ExitCode", exit.status.into()),
        ("Error", error.into()),
        ("StartedAt", utc(state.started_at.as_ref()).into()),
        ("FinishedAt", utc(exit.exited_at.as_ref()).into()),
        // Nothing is checked; templates ask `if .State.Health` first.
        ("Health", hidden(Value::Null)),
    ])
}

fn host_config(options: &ContainerOptions) -> Value {
    let limits = options.limits.clone().unwrap_or_default();
    let LogOptions { driver, options: log_options } = options.log.clone().unwrap_or_default();
    let driver = if driver.is_empty() { "json-file".to_owned() } else { driver };
    let restart = match options.restart_policy.as_str() {
        "" => "no",
        policy => policy,
    };
    record([
        ("Binds", or_null(options.mounts.iter().map(bind).collect())),
        ("ContainerIDFile", "".into()),
        ("LogConfig", record([("Type", driver.into()), ("Config", (&log_options).into())])),
        ("NetworkMode", network_name(options).into()),
        ("PublishAllPorts", options.publish_all.into()),
        ("PortBindings", ports::map(&options.ports, |port| &port.host_ip)),
        ("RestartPolicy", record([("Name", restart.into()), ("MaximumRetryCount", 0_u32.into())])),
        ("AutoRemove", options.auto_remove.into()),
        ("CapAdd", or_null(options.cap_add.clone())),
        ("CapDrop", or_null(options.cap_drop.clone())),
        ("Init", if options.init { true.into() } else { Value::Null }),
        ("Privileged", options.privileged.into()),
        ("SecurityOpt", or_null(security_options(&options.apparmor))),
        ("IDMappings", id_mappings(&options.uid_mappings, &options.gid_mappings)),
        ("Devices", devices(&options.devices)),
        ("CDIDevices", or_null(options.cdi_devices.clone())),
        ("ReadonlyRootfs", options.read_only.into()),
        ("Memory", limits.memory.unwrap_or(0).into()),
        ("MemorySwap", limits.memory_swap.unwrap_or(0).into()),
        ("MemoryReservation", limits.memory_reservation.unwrap_or(0).into()),
        ("MemorySwappiness", limits.memory_swappiness.into()),
        ("OomKillDisable", limits.oom_kill_disable.unwrap_or(false).into()),
        ("NanoCpus", limits.nano_cpus.unwrap_or(0).into()),
        ("CpuShares", limits.cpu_shares.unwrap_or(0).into()),
        ("CpuQuota", limits.cpu_quota.unwrap_or(0).into()),
        ("CpuPeriod", limits.cpu_period.unwrap_or(0).into()),
        ("CpuRealtimeRuntime", limits.cpu_rt_runtime.unwrap_or(0).into()),
        ("CpuRealtimePeriod", limits.cpu_rt_period.unwrap_or(0).into()),
        ("CpusetCpus", limits.cpuset_cpus.as_str().into()),
        ("CpusetMems", limits.cpuset_mems.as_str().into()),
        ("PidsLimit", limits.pids.into()),
        ("BlkioWeight", limits.blkio_weight.unwrap_or(0).into()),
        ("BlkioWeightDevice", weights(&limits.blkio_weight_devices)),
        ("BlkioDeviceReadBps", rates(&limits.device_read_bps)),
        ("BlkioDeviceWriteBps", rates(&limits.device_write_bps)),
        ("BlkioDeviceReadIOps", rates(&limits.device_read_iops)),
        ("BlkioDeviceWriteIOps", rates(&limits.device_write_iops)),
        ("Runtime", runtime(options).into()),
    ])
}

fn security_options(apparmor: &str) -> Vec<String> {
    match apparmor {
        "" => Vec::new(),
        profile => vec![format!("apparmor={profile}")],
    }
}

fn weights(devices: &[DeviceWeight]) -> Value {
    let one = |device: &DeviceWeight| {
        record([("Path", device.path.as_str().into()), ("Weight", device.weight.into())])
    };
    list_or_null(devices.iter().map(one).collect())
}

fn rates(devices: &[DeviceRate]) -> Value {
    let one = |device: &DeviceRate| {
        record([("Path", device.path.as_str().into()), ("Rate", device.rate.into())])
    };
    list_or_null(devices.iter().map(one).collect())
}

fn list_or_null(items: Vec<Value>) -> Value {
    if items.is_empty() { Value::Null } else { Value::List(items) }
}

/// As `--runtime` would be given.
fn runtime(options: &ContainerOptions) -> &str {
    match options.runtime.as_str() {
        "" => "bosun",
        name => name,
    }
}

/// As `--volume` would be given again.
fn bind(mount: &BindMount) -> String {
    let access = if mount.read_only { "ro" } else { "rw" };
    let propagation = match mount.propagation.as_str() {
        "" => String::new(),
        mode => format!(",{mode}"),
    };
    format!("{}:{}:{access}{propagation}", mount.source, mount.destination)
}

/// As podman has them.
pub(super) fn id_mappings(uids: &[IdMapping], gids: &[IdMapping]) -> Value {
    let list = |mappings: &[IdMapping]| -> Vec<String> {
        let text = |mapping: &IdMapping| {
            format!("{}:{}:{}", mapping.container_id, mapping.host_id, mapping.size)
        };
        mappings.iter().map(text).collect()
    };
    match (uids, gids) {
        ([], []) => Value::Null,
        (uids, gids) => record([("UidMap", list(uids).into()), ("GidMap", list(gids).into())]),
    }
}

fn or_null(items: Vec<String>) -> Value {
    if items.is_empty() { Value::Null } else { items.into() }
}

/// The image's id; over a directory, the directory.
fn image(container: &Container, options: &ContainerOptions) -> String {
    match container.image_id.as_str() {
        "" => base(options),
        id => id.to_owned(),
    }
}

/// What was asked for, then the volumes of the image.
fn mounts(container: &Container, options: &ContainerOptions) -> Value {
    let one = |kind: &'static str, mount: &BindMount| {
        let propagation = match mount.propagation.as_str() {
            "" => "rprivate",
            mode => mode,
        };
        record([
            ("Type", kind.into()),
            ("Source", mount.source.as_str().into()),
            ("Destination", mount.destination.as_str().into()),
            ("Mode", if mount.read_only { "ro" } else { "" }.into()),
            ("RW", (!mount.read_only).into()),
            ("Propagation", propagation.into()),
        ])
    };
    let binds = options.mounts.iter().map(|mount| one("bind", mount));
    let volumes = container.volumes.iter().map(|mount| one("volume", mount));
    Value::List(binds.chain(volumes).collect())
}

fn config(container: &Container, options: &ContainerOptions) -> Value {
    let hostname = match options.hostname.as_str() {
        "" => container.id.chars().take(12).collect(),
        name => name.to_owned(),
    };
    let published = options.ports.iter();
    let published =
        published.map(|port: &Port| format!("{}/{}", port.container_port, ports::protocol(port)));
    let exposed = published.chain(container.exposed_ports.iter().cloned());
    let exposed = exposed.map(|port| (port, Value::Record(Vec::new())));
    let volumes = container.volumes.iter();
    let volumes = volumes.map(|mount| (mount.destination.clone(), Value::Record(Vec::new())));
    let volumes: BTreeMap<_, _> = volumes.collect();
    let entrypoint = options.entrypoint.clone().map(|StringList { values }| values);
    let stop_signal = match options.stop_signal.as_str() {
        "" => "SIGTERM",
        signal => signal,
    };
    record([
        ("Hostname", hostname.into()),
        ("Domainname", "".into()),
        ("User", options.user.as_str().into()),
        ("AttachStdin", options.stdin.into()),
        ("AttachStdout", true.into()),
        ("AttachStderr", true.into()),
        ("ExposedPorts", Value::Map(exposed.collect())),
        ("Tty", options.tty.into()),
        ("OpenStdin", options.stdin.into()),
        ("StdinOnce", false.into()),
        ("Env", options.env.clone().into()),
        ("Cmd", or_null(options.command.clone())),
        ("Image", base(options).into()),
        ("Volumes", if volumes.is_empty() { Value::Null } else { Value::Map(volumes) }),
        ("WorkingDir", options.working_dir.as_str().into()),
        ("Entrypoint", entrypoint.into()),
        ("Labels", (&options.labels).into()),
        ("StopSignal", stop_signal.into()),
        ("StopTimeout", options.stop_timeout_seconds.into()),
    ])
}

fn network_settings(container: &Container, options: &ContainerOptions) -> Value {
    let name = network_name(options);
    let network = container.network.clone().unwrap_or_default();
    let NetworkStatus { address, prefix_len, gateway, mac_address, bridge, ports } = network;
    let endpoint = record([
        ("MacAddress", mac_address.as_str().into()),
        ("NetworkID", bridge.as_str().into()),
        ("Gateway", gateway.as_str().into()),
        ("IPAddress", address.as_str().into()),
        ("IPPrefixLen", prefix_len.into()),
    ]);
    let networks = Value::Map([(name, endpoint)].into());
    record([
        ("Bridge", bridge.into()),
        ("Ports", bound(&ports)),
        ("Gateway", gateway.into()),
        ("IPAddress", address.into()),
        ("IPPrefixLen", prefix_len.into()),
        ("MacAddress", mac_address.into()),
        ("Networks", networks),
    ])
}

fn own(container: &Container, state: &State) -> Value {
    let exit = state.exit.as_ref();
    let phase = match state.status() {
        Status::Unspecified => "unspecified",
        Status::Created => "created",
        Status::Starting => "starting",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Exited => "exited",
        Status::Removing => "removing",
        Status::Quarantined => "quarantined",
    };
    record([
        ("Status", phase.into()),
        ("ShimPid", state.shim_pid.into()),
        ("Attempt", state.attempt.into()),
        ("ExitUnknown", exit.is_some_and(|exit| exit.unknown).into()),
        ("ExitReason", exit.map(|exit| exit.reason.clone()).unwrap_or_default().into()),
        ("ExitSignal", exit.map_or(0, |exit| exit.signal).into()),
        ("ContainerDir", container.container_dir.as_str().into()),
        ("RunDir", container.run_dir.as_str().into()),
        ("SnapshotKey", container.snapshot_key.as_str().into()),
        ("Runtime", container.runtime.as_str().into()),
    ])
}

fn devices(devices: &[Device]) -> Value {
    let one = |device: &Device| {
        let or = |text: &str, other: &str| if text.is_empty() { other } else { text }.to_owned();
        record([
            ("PathOnHost", device.host_path.clone().into()),
            ("PathInContainer", or(&device.container_path, &device.host_path).into()),
            ("CgroupPermissions", or(&device.access, "rwm").into()),
        ])
    };
    list_or_null(devices.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use bosun_proto::v1::Exit;
    use bosun_proto::v1::container_options::Base;

    use super::*;
    use crate::template::Template;

    fn job() -> Container {
        Container {
            id: "0123456789abcdef".repeat(4),
            name: "job".to_owned(),
            created_at: Some(prost_types::Timestamp { seconds: 1_767_366_245, nanos: 5 }),
            options: Some(ContainerOptions {
                base: Some(Base::Rootfs("/srv".to_owned())),
                command: vec!["true".to_owned()],
                mounts: vec![BindMount {
                    source: "/a".to_owned(),
                    destination: "/b".to_owned(),
                    read_only: true,
                    propagation: String::new(),
                }],
                ports: vec![Port { container_port: 80, ..Port::default() }],
                ..ContainerOptions::default()
            }),
            state: Some(State {
                status: Status::Exited.into(),
                exit: Some(Exit {
                    status: 255,
                    unknown: true,
                    reason: "ShimLost".to_owned(),
                    ..Exit::default()
                }),
                ..State::default()
            }),
            args: vec!["true".to_owned(), "-x".to_owned()],
            container_dir: "/var/lib/x".to_owned(),
            exposed_ports: vec!["53/udp".to_owned()],
            volumes: vec![BindMount {
                source: "/var/lib/x/volumes/1".to_owned(),
                destination: "/data".to_owned(),
                ..BindMount::default()
            }],
            ..Container::default()
        }
    }

    #[test]
    fn a_container_of_an_image_has_its_id_and_its_name() {
        let base = Some(Base::Image("docker.io/library/debian:12".to_owned()));
        let options = Some(ContainerOptions { base, ..ContainerOptions::default() });
        let container = Container { image_id: "sha256:c".to_owned(), options, ..job() };
        let template = Template::parse("{{.Image}} {{.Config.Image}}").unwrap();
        assert_eq!(template.render(&inspection(&container)).unwrap(), "sha256:c debian:12");
    }

    #[test]
    fn fields_are_where_docker_has_them() {
        for (template, want) in [
            ("{{.Name}} {{slice .ID 0 4}}", "/job 0123"),
            ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
            ("{{.Created}}", "2026-01-02T15:04:05.000000005Z"),
            ("{{.Path}} {{.Args}}", "true [-x]"),
            ("{{.State.Status}} {{.State.Running}} {{.State.ExitCode}}", "exited false 255"),
            ("{{.State.Error}}", "exit status unknown: ShimLost"),
            ("{{.State.StartedAt}}", "0001-01-01T00:00:00Z"),
            ("{{.Bosun.ExitUnknown}} {{.Bosun.ExitReason}}", "true ShimLost"),
            ("{{.HostConfig.Binds}}", "[/a:/b:ro]"),
            ("{{json .HostConfig.PortBindings}}", r#"{"80/tcp":[{"HostIp":"","HostPort":""}]}"#),
            ("{{json .NetworkSettings.Ports}}", "{}"),
            ("{{range $k, $v := .NetworkSettings.Networks}}{{$k}}{{end}}", "bridge"),
            ("{{.Config.Image}} {{.Config.Hostname}}", "rootfs:/srv 0123456789ab"),
            ("{{json .Config.ExposedPorts}}", r#"{"53/udp":{},"80/tcp":{}}"#),
            ("{{json .Config.Volumes}} {{.Image}}", r#"{"/data":{}} rootfs:/srv"#),
            ("{{range .Mounts}}{{.Type}} {{.Destination}};{{end}}", "bind /b;volume /data;"),
            ("{{(index .Mounts 0).RW}} {{(index .Mounts 0).Propagation}}", "false rprivate"),
            ("{{.ResolvConfPath}}", "/var/lib/x/resolv.conf"),
            ("{{json .HostConfig.CapAdd}} {{json .HostConfig.PidsLimit}}", "null null"),
        ] {
            let got = Template::parse(template).unwrap().render(&inspection(&job()));
            assert_eq!(got.as_deref(), Ok(want), "{template}");
        }
    }
}
